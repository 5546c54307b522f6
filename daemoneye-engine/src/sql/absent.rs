//! `x NOT IN (SELECT y …)`, asked of the rows that pass a condition, in a form that holds little in memory and knows what NULL means.
//!
//! The planner's own join for it gathers all rows that are asked about, on one thread, knows only one key, and beside OR takes an
//! unknown answer for true. No row is absent from what has a NULL, NULL is absent only from nothing, and what is left is a join of
//! what is not there.

use datafusion::common::tree_node::{Transformed, TreeNode as _, TreeNodeRecursion};
use datafusion::common::{Column, DFSchema, Result};
use datafusion::config::ConfigOptions;
use datafusion::functions_aggregate::expr_fn::count;
use datafusion::logical_expr::expr::InSubquery;
use datafusion::logical_expr::{
    BinaryExpr, Distinct, Expr, ExprSchemable as _, Filter, LogicalPlan, LogicalPlanBuilder, Operator, Subquery, lit,
    not, not_exists, scalar_subquery, when,
};
use datafusion::optimizer::AnalyzerRule;
use std::sync::Arc;

/// What a list has.
const NOTHING: i64 = 0;
/// It has values, and none is NULL.
const VALUES: i64 = 1;
/// One of them is NULL.
const NULL_TOO: i64 = 2;

/// Behind the rule that makes both sides of one type.
#[derive(Debug)]
pub(crate) struct Absent;

impl AnalyzerRule for Absent {
    fn analyze(&self, plan: LogicalPlan, _: &ConfigOptions) -> Result<LogicalPlan> {
        let mut lists = 0;
        let analyzed = plan.transform_up_with_subqueries(|node| {
            let LogicalPlan::Filter(filter) = &node else { return Ok(Transformed::no(node)) };
            let is_list = |expr: &Expr| Ok(matches!(expr, Expr::InSubquery(_)));
            if !filter.predicate.exists(is_list)? {
                return Ok(Transformed::no(node));
            }
            let mut lists = Lists { columns: filter.input.schema(), count: &mut lists };
            let predicate = lists.told(filter.predicate.clone(), true)?;
            let told = Filter::try_new(predicate, Arc::clone(&filter.input))?;
            Ok(Transformed::yes(LogicalPlan::Filter(told)))
        });
        analyzed.map(|analyzed| analyzed.data)
    }

    fn name(&self) -> &'static str {
        "absent"
    }
}

struct Lists<'a> {
    /// Of the rows that are asked about.
    columns: &'a DFSchema,
    /// For names that nothing else has.
    count: &'a mut usize,
}

impl Lists<'_> {
    /// The condition where an unknown answer is none (`passing`), or stands below NOT, where it must not become one.
    fn told(&mut self, condition: Expr, passing: bool) -> Result<Expr> {
        match condition {
            Expr::BinaryExpr(BinaryExpr { left, op: op @ (Operator::And | Operator::Or), right }) => {
                let [left, right] = [self.told(*left, passing)?, self.told(*right, passing)?].map(Box::new);
                Ok(Expr::BinaryExpr(BinaryExpr { left, op, right }))
            }
            Expr::Not(inner) => Ok(not(self.told(*inner, !passing)?)),
            Expr::InSubquery(list) if list.negated == passing => {
                let absent = self.absent(&list)?;
                Ok(match absent {
                    Some(absent) if passing => absent,
                    Some(absent) => not(absent),
                    None => Expr::InSubquery(list),
                })
            }
            other => Ok(other),
        }
    }

    /// Whether the value is absent, without a third answer; `None` where the planner's own form says the same, or no other is known.
    fn absent(&mut self, list: &InSubquery) -> Result<Option<Expr>> {
        let (value, listed) = (list.expr.as_ref(), &list.subquery);
        let may_be_null = |plan: &LogicalPlan| plan.schema().fields().first().is_some_and(|field| field.is_nullable());
        let looks_further = |expr: &Expr| {
            let further = matches!(expr, Expr::OuterReferenceColumn(..) | Expr::ScalarSubquery(_) | Expr::Exists(_));
            Ok(further || matches!(expr, Expr::InSubquery(_)))
        };
        if value.exists(looks_further)? || !(value.nullable(self.columns)? || may_be_null(&listed.subquery)) {
            return Ok(None);
        }
        let outer = self.outer(value)?;
        if !listed.outer_ref_columns.is_empty() {
            let Some(column) = listed.subquery.schema().columns().into_iter().next() else { return Ok(None) };
            if !is_plain(&listed.subquery, value)? {
                return Ok(None);
            }
            let met = Expr::Column(column).eq(outer).is_not_false();
            let met = LogicalPlanBuilder::from(Arc::clone(&listed.subquery)).filter(met)?.build()?;
            return Ok(Some(not_exists(Arc::new(met))));
        }
        if takes_some(&listed.subquery)? {
            return Ok(None);
        }
        let (plan, column) = self.named(listed)?;
        let missing = not_exists(Arc::new(plan.filter(column.eq(outer))?.build()?));
        let (plan, column) = self.named(listed)?;
        let (all, known) = (count(lit(1_i64)).alias("all"), count(column).alias("known"));
        let [of_all, of_known] = ["all", "known"].map(|name| Expr::Column(Column::new_unqualified(name)));
        let has = when(of_all.clone().eq(lit(0_i64)), lit(NOTHING))
            .when(of_all.eq(of_known), lit(VALUES))
            .otherwise(lit(NULL_TOO))?;
        let has = plan.aggregate(Vec::<Expr>::new(), [all, known])?.project([has.alias("has")])?.build()?;
        let below = when(value.clone().is_null(), lit(VALUES)).otherwise(lit(NULL_TOO))?;
        Ok(Some(missing.and(scalar_subquery(Arc::new(has)).lt(below))))
    }

    /// The list and its column, under a name of its own.
    fn named(&mut self, listed: &Subquery) -> Result<(LogicalPlanBuilder, Expr)> {
        let is_taken = |name: &str| self.columns.iter().any(|(of, _)| of.is_some_and(|of| of.table() == name));
        let list = loop {
            *self.count = self.count.saturating_add(1);
            let list = format!("list {}", self.count);
            if !is_taken(&list) {
                break list;
            }
        };
        let columns = listed.subquery.schema().columns();
        let name = columns.first().map(|column| column.name.clone()).unwrap_or_default();
        let values = columns.into_iter().map(|column| Expr::Column(column).alias(name.as_str()));
        let plan = LogicalPlanBuilder::from(Arc::clone(&listed.subquery)).project(values)?.alias(list.as_str())?;
        Ok((plan, Expr::Column(Column::new(Some(list), name))))
    }

    /// The value as a list sees it that looks at each row.
    fn outer(&self, value: &Expr) -> Result<Expr> {
        let value = value.clone().transform(|expr| match expr {
            Expr::Column(column) => {
                let (_, field) = self.columns.qualified_field_from_column(&column)?;
                Ok(Transformed::yes(Expr::OuterReferenceColumn(Arc::clone(field), column)))
            }
            other => Ok(Transformed::no(other)),
        });
        value.map(|value| value.data)
    }
}

/// Whether nothing but rows of one table and conditions on them make a list that looks at the row it is asked for: behind a number of rows,
/// groups or a window its own condition would be asked too late, and of two columns of one name one would be taken for the other.
fn is_plain(list: &LogicalPlan, value: &Expr) -> Result<bool> {
    let of_value = value.column_refs();
    let mut plain = true;
    list.apply(|node| {
        plain &= matches!(
            node,
            LogicalPlan::Projection(_)
                | LogicalPlan::Filter(_)
                | LogicalPlan::SubqueryAlias(_)
                | LogicalPlan::TableScan(_)
        );
        plain &= !node.schema().iter().any(|(of, _)| of_value.iter().any(|column| column.relation.as_ref() == of));
        Ok(TreeNodeRecursion::Continue)
    })?;
    Ok(plain)
}

/// Whether a list that is read twice could have other rows each time.
fn takes_some(list: &LogicalPlan) -> Result<bool> {
    let mut some = false;
    list.apply_with_subqueries(|node| {
        some |=
            matches!(node, LogicalPlan::Limit(_) | LogicalPlan::Window(_) | LogicalPlan::Distinct(Distinct::On(_)));
        Ok(TreeNodeRecursion::Continue)
    })?;
    Ok(some)
}
