//! The plan of a query that found no memory: slower, and whole. What holds all of its rows in memory gives way to what spills.
//!
//! A hash join keeps one whole input, the first rows of an order are kept in a heap: neither can spill. Sorted inputs are
//! merged row by row, and all rows are sorted before the first of them are taken.

use super::session::Batches;
use datafusion::arrow::compute::SortOptions;
use datafusion::arrow::datatypes::{DataType, Schema};
use datafusion::common::tree_node::{Transformed, TransformedResult as _, TreeNode as _};
use datafusion::common::{Column as Name, JoinType, NullEquality, Result};
use datafusion::logical_expr::{Aggregate, Expr, ExprSchemable as _, LogicalPlan, LogicalPlanBuilder};
use datafusion::physical_expr::expressions::{CastExpr, Column};
use datafusion::physical_expr::{LexOrdering, PhysicalExpr, PhysicalExprRef, PhysicalSortExpr};
use datafusion::physical_plan::aggregates::AggregateExec;
use datafusion::physical_plan::coalesce_partitions::CoalescePartitionsExec;
use datafusion::physical_plan::joins::{HashJoinExec, JoinOn, SortMergeJoinExec};
use datafusion::physical_plan::limit::LocalLimitExec;
use datafusion::physical_plan::projection::ProjectionExec;
use datafusion::physical_plan::sorts::sort::SortExec;
use datafusion::physical_plan::{ExecutionPlan, ExecutionPlanProperties as _, InputOrderMode};
use std::sync::Arc;

/// First rows of an order that a heap may keep all the same.
const FIRST: usize = 8192;
/// A sort that has spilled holds a few batches of each of its files, and here are several sorts.
pub(crate) const SORTED: Batches = Batches { cells: 16 * 1024, rows: 128..=1024 };
/// As joins compare keys.
const ORDER: SortOptions = SortOptions { descending: false, nulls_first: true };

/// Counts of different values, each over rows of its own: one alone becomes groups, which spill; beside others each holds its values in
/// memory. Groups are put together by what they are of.
pub(crate) fn parted(plan: LogicalPlan) -> Result<LogicalPlan> {
    plan.transform_up_with_subqueries(|node| {
        let Some(Aggregate { input, group_expr, aggr_expr, .. }) = several(&node) else {
            return Ok(Transformed::no(node));
        };
        let (distinct, others): (Vec<&Expr>, Vec<&Expr>) = aggr_expr.iter().partition(|expr| is_distinct(expr));
        let over = |exprs: Vec<Expr>| {
            LogicalPlanBuilder::from(Arc::clone(input)).aggregate(group_expr.iter().cloned(), exprs)?.build()
        };
        let mut parts = distinct.into_iter().map(|expr| over(vec![expr.clone()])).collect::<Result<Vec<_>>>()?;
        if !others.is_empty() {
            parts.push(over(others.into_iter().cloned().collect())?);
        }
        let columns = node.schema().columns();
        let (keys, _) = columns.split_at_checked(group_expr.len()).unwrap_or_default();
        let mut parts = parts.into_iter().enumerate();
        let Some((_, first)) = parts.next() else { return Ok(Transformed::no(node)) };
        let joined = parts.try_fold(LogicalPlanBuilder::from(first), |all, (nth, part)| match keys {
            [] => all.cross_join(part),
            _ => beside(all, part, keys, nth),
        })?;
        Ok(Transformed::yes(joined.project(columns.into_iter().map(Expr::Column))?.build()?))
    })
    .data()
}

/// The groups of both, which are the same: NULL is a group too.
fn beside(all: LogicalPlanBuilder, part: LogicalPlan, keys: &[Name], nth: usize) -> Result<LogicalPlanBuilder> {
    let names: Vec<String> = (0..keys.len()).map(|key| format!("key {key} of part {nth}")).collect();
    let renamed = keys.iter().zip(&names).map(|(key, name)| Expr::Column(key.clone()).alias(name));
    let results = part.schema().columns().into_iter().skip(keys.len()).map(Expr::Column);
    let exprs: Vec<Expr> = renamed.chain(results).collect();
    let part = LogicalPlanBuilder::from(part).project(exprs)?.build()?;
    let names = names.into_iter().map(Name::new_unqualified).collect();
    all.join_detailed(part, JoinType::Inner, (keys.to_vec(), names), None, NullEquality::NullEqualsNull)
}

fn several(node: &LogicalPlan) -> Option<&Aggregate> {
    let LogicalPlan::Aggregate(all) = node else { return None };
    let distinct = all.aggr_expr.iter().filter(|expr| is_distinct(expr)).count();
    // What looks at an outer row is no input of its own, and of a LIMIT or of ties each reading could take others.
    let takes_some = |node: &LogicalPlan| Ok(matches!(node, LogicalPlan::Limit(_) | LogicalPlan::Window(_)));
    let is_own = || all.input.all_out_ref_exprs().is_empty() && !all.input.exists(takes_some).unwrap_or(true);
    // A join knows two zeros where groups know one.
    let joins = |expr: &Expr| {
        !matches!(expr, Expr::GroupingSet(_))
            && expr.get_type(all.input.schema()).is_ok_and(|kind| !kind.is_floating())
    };
    (distinct > 0 && all.aggr_expr.len() > 1 && all.group_expr.iter().all(joins) && is_own()).then_some(all)
}

fn is_distinct(expr: &Expr) -> bool {
    expr.exists(|expr| Ok(matches!(expr, Expr::AggregateFunction(call) if call.params.distinct))).unwrap_or(false)
}

/// Whether no row leaves before all have come together: a plan that hands rows on while it joins could not begin again.
pub(crate) fn gathers_first(plan: &Arc<dyn ExecutionPlan>) -> bool {
    let groups = plan.downcast_ref::<AggregateExec>();
    if plan.downcast_ref::<SortExec>().is_some()
        || groups.is_some_and(|groups| *groups.input_order_mode() == InputOrderMode::Linear)
    {
        return true;
    }
    matches!(plan.children().as_slice(), [input] if gathers_first(input))
}

/// The same rows, from operators that spill.
pub(crate) fn spilling(plan: Arc<dyn ExecutionPlan>) -> Result<Arc<dyn ExecutionPlan>> {
    // From above, as a merged join has an order that the joins over it would be taken to rely on.
    plan.transform_down(|node| {
        if let Some((join, keys)) = mergeable(&node) {
            return Ok(Transformed::yes(merged(join, keys)?));
        }
        let Some((sort, first)) = many_first(&node) else { return Ok(Transformed::no(node)) };
        let whole: Arc<dyn ExecutionPlan> = Arc::new(sort.with_fetch(None));
        Ok(Transformed::yes(Arc::new(LocalLimitExec::new(whole, first)) as Arc<dyn ExecutionPlan>))
    })
    .data()
}

/// How many first rows of an order a heap keeps, where they are many.
fn many_first(node: &Arc<dyn ExecutionPlan>) -> Option<(&SortExec, usize)> {
    let sort = node.downcast_ref::<SortExec>()?;
    sort.fetch().filter(|first| *first > FIRST).map(|first| (sort, first))
}

/// A join that may be merged, and its keys. Not one on whose order something above it may rely, nor a NOT IN to which one NULL is an
/// answer, which merging does not know.
fn mergeable(node: &Arc<dyn ExecutionPlan>) -> Option<(&HashJoinExec, JoinOn)> {
    let join = node.downcast_ref::<HashJoinExec>()?;
    let may = !join.null_aware && node.output_ordering().is_none();
    let [left, right] = [join.left(), join.right()].map(|side| side.schema());
    let pair = |(a, b): &(PhysicalExprRef, PhysicalExprRef)| {
        let (a, b) = (comparable(a, &left)?, comparable(b, &right)?);
        (a.data_type(&left).ok()? == b.data_type(&right).ok()?).then_some((a, b))
    };
    let keys = may.then(|| join.on().iter().map(pair).collect::<Option<JoinOn>>())??;
    Some((join, keys))
}

/// The key as merging joins compare it, and not with an error: of times with a zone what they count. Not real numbers, of which sorting
/// knows two zeros.
fn comparable(key: &PhysicalExprRef, schema: &Schema) -> Option<PhysicalExprRef> {
    match key.data_type(schema).ok()? {
        DataType::Timestamp(_, Some(_)) => Some(Arc::new(CastExpr::new(Arc::clone(key), DataType::Int64, None))),
        kind if kind.is_integer() || kind.is_string() || kind.is_binary() => Some(Arc::clone(key)),
        DataType::Boolean | DataType::Timestamp(_, None) | DataType::Date32 | DataType::Decimal128(..) => {
            Some(Arc::clone(key))
        }
        _ => None,
    }
}

fn merged(join: &HashJoinExec, keys: JoinOn) -> Result<Arc<dyn ExecutionPlan>> {
    let left = sorted(join.left(), keys.iter().map(|(left, _)| left))?;
    let right = sorted(join.right(), keys.iter().map(|(_, right)| right))?;
    let (filter, orders) = (join.filter().cloned(), vec![ORDER; keys.len()]);
    let merged =
        SortMergeJoinExec::try_new(left, right, keys, filter, *join.join_type(), orders, join.null_equality())?;
    let merged: Arc<dyn ExecutionPlan> = Arc::new(merged);
    let schema = merged.schema();
    let column = |at: &usize| {
        let name = schema.field(*at).name();
        (Arc::new(Column::new(name, *at)) as Arc<dyn PhysicalExpr>, name.clone())
    };
    let kept = match &join.projection {
        Some(kept) => Arc::new(ProjectionExec::try_new(kept.iter().map(column), merged)?) as Arc<dyn ExecutionPlan>,
        None => merged,
    };
    // A LIMIT above it may stand in the join alone.
    Ok(match join.fetch() {
        Some(rows) => Arc::new(LocalLimitExec::new(kept, rows)),
        None => kept,
    })
}

/// All rows of all partitions, by these keys.
fn sorted<'a>(
    input: &Arc<dyn ExecutionPlan>,
    keys: impl Iterator<Item = &'a PhysicalExprRef>,
) -> Result<Arc<dyn ExecutionPlan>> {
    let several = input.output_partitioning().partition_count() > 1;
    let one: Arc<dyn ExecutionPlan> =
        if several { Arc::new(CoalescePartitionsExec::new(Arc::clone(input))) } else { Arc::clone(input) };
    let order = LexOrdering::new(keys.map(|key| PhysicalSortExpr { expr: Arc::clone(key), options: ORDER }));
    // A hash join has keys.
    Ok(order.map_or_else(|| Arc::clone(&one), |order| Arc::new(SortExec::new(order, Arc::clone(&one)))))
}
