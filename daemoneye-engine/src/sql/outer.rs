//! Subqueries that look at the row they stand in, where the planner's joins would say something else.
//!
//! It takes the conditions on that row out of the subquery and asks them of all of its rows at last. Rows that were numbered, counted
//! or skipped before are then those of every row at once: such a subquery is one value instead, or refused.

use datafusion::common::tree_node::{Transformed, TreeNode as _, TreeNodeRecursion};
use datafusion::common::{JoinType, Result, TableReference, plan_err};
use datafusion::logical_expr::{
    Aggregate, Distinct, Expr, FetchType, Filter, Join, Limit, LogicalPlan, LogicalPlanBuilder, SkipType,
};
use std::sync::Arc;

/// What stands in such a subquery and may not.
pub(super) const MAY_NOT: &str = "in a subquery that looks at the outer row";
/// Which rows an outer join keeps is not asked of lists.
pub(super) const IN_ON: &str = "in ON of an outer join";

/// What is asked of a subquery.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum For {
    Existence,
    List,
    Value,
}

/// A subquery with one row whatever there is, an aggregate of all rows, or with none where a condition on that row fails.
pub(super) struct Single {
    /// Without the condition.
    pub(super) value: Arc<LogicalPlan>,
    /// The condition as a value.
    pub(super) having: Option<Arc<LogicalPlan>>,
}

/// The subquery as one value, if it is one.
pub(super) fn single(plan: &LogicalPlan) -> Result<Option<Single>> {
    Ok(match plan {
        LogicalPlan::Aggregate(of) if of.group_expr.is_empty() => {
            Some(Single { value: Arc::new(plan.clone()), having: None })
        }
        LogicalPlan::Filter(filter) => match single(&filter.input)? {
            Some(Single { value, having: None }) => {
                let having = LogicalPlanBuilder::from(Arc::clone(&value))
                    .project([filter.predicate.clone().alias("having")])?;
                Some(Single { value, having: Some(Arc::new(having.build()?)) })
            }
            _ => None,
        },
        LogicalPlan::Sort(sort) if sort.fetch.is_none() => single(&sort.input)?,
        LogicalPlan::Limit(limit) if takes_the_first(limit)? => single(&limit.input)?,
        LogicalPlan::Projection(_) | LogicalPlan::SubqueryAlias(_) => match plan.inputs().first() {
            Some(input) => single(input)?
                .map(|Single { value, having }| {
                    let value = plan.with_new_exprs(plan.expressions(), vec![value.as_ref().clone()])?;
                    Ok::<_, datafusion::common::DataFusionError>(Single { value: Arc::new(value), having })
                })
                .transpose()?,
            None => None,
        },
        _ => None,
    })
}

fn takes_the_first(limit: &Limit) -> Result<bool> {
    let takes = match limit.get_fetch_type()? {
        FetchType::Literal(number) => number.is_none_or(|number| number > 0),
        FetchType::UnsupportedExpr => false,
    };
    Ok(takes && skips_none(limit)?)
}

fn skips_none(limit: &Limit) -> Result<bool> {
    Ok(matches!(limit.get_skip_type()?, SkipType::Literal(0)))
}

/// Those that stand for one value, wherever they do.
pub(super) fn check_values(node: &LogicalPlan) -> Result<()> {
    for expr in node.expressions() {
        expr.apply(|expr| {
            if let Expr::ScalarSubquery(value) = expr
                && !value.outer_ref_columns.is_empty()
            {
                check(&value.subquery, For::Value)?;
            }
            Ok(TreeNodeRecursion::Continue)
        })?;
    }
    Ok(())
}

/// Refuses what the planner's join would answer wrongly.
pub(super) fn check(subquery: &LogicalPlan, of: For) -> Result<()> {
    looks(subquery, of, true).map(|_| ())
}

/// Whether the plan looks at the outer row; `first` while nothing but names and conditions stand above.
fn looks(plan: &LogicalPlan, of: For, first: bool) -> Result<bool> {
    let still = matches!(plan, LogicalPlan::Projection(_) | LogicalPlan::Filter(_) | LogicalPlan::SubqueryAlias(_));
    let mut looks_out = plan.expressions().iter().any(Expr::contains_outer);
    for (at, input) in plan.inputs().into_iter().enumerate() {
        if !looks(input, of, first && still)? {
            continue;
        }
        looks_out = true;
        if let Some(what) = loses(plan, at, of, first)? {
            return plan_err!("{what} {MAY_NOT}");
        }
    }
    Ok(looks_out)
}

/// What of the node would be another for conditions that are asked above it.
fn loses(plan: &LogicalPlan, input: usize, of: For, first: bool) -> Result<Option<&'static str>> {
    let is_value = of == For::Value;
    Ok(match plan {
        LogicalPlan::Projection(_)
        | LogicalPlan::Filter(_)
        | LogicalPlan::SubqueryAlias(_)
        | LogicalPlan::Distinct(Distinct::All(_)) => None,
        LogicalPlan::Aggregate(Aggregate { group_expr, .. }) if !group_expr.is_empty() || (is_value && first) => None,
        LogicalPlan::Aggregate(_) => Some("an aggregate without GROUP BY"),
        LogicalPlan::Join(Join { join_type, .. }) => match (join_type, input) {
            (JoinType::Inner, _)
            | (JoinType::Left | JoinType::LeftSemi | JoinType::LeftAnti, 0)
            | (JoinType::Right, 1) => None,
            _ => Some("an outer join"),
        },
        LogicalPlan::Window(_) => Some("a window function"),
        LogicalPlan::Limit(limit) if of == For::Existence && skips_none(limit)? => None,
        // Of one value the planner says so itself.
        LogicalPlan::Limit(_) | LogicalPlan::Sort(_) | LogicalPlan::Union(_) if is_value => None,
        LogicalPlan::Limit(_) => Some("LIMIT"),
        LogicalPlan::Sort(_) => Some("ORDER BY"),
        LogicalPlan::Union(_) => Some("UNION"),
        _ => Some("more than conditions, joins and groups"),
    })
}

/// A table of the value that the list has too where it looks at the row.
pub(super) fn in_both(value: &Expr, list: &LogicalPlan) -> Result<Option<TableReference>> {
    let of_value: Vec<_> = value.column_refs().into_iter().filter_map(|column| column.relation.as_ref()).collect();
    let mut both = None;
    list.apply(|node| {
        let is_asked = std::ptr::eq(node, list) || matches!(node, LogicalPlan::Filter(_));
        let found = node.schema().iter().filter_map(|(of, _)| of).find(|of| of_value.contains(of));
        both = both.take().or(found.filter(|_| is_asked).cloned());
        Ok(TreeNodeRecursion::Continue)
    })?;
    Ok(both)
}

/// Lists that a join of equal rows asks for in ON, asked of what it joins.
pub(super) fn behind_join(node: LogicalPlan) -> Result<Transformed<LogicalPlan>> {
    let is_list = |expr: &Expr| Ok(matches!(expr, Expr::InSubquery(_) | Expr::Exists(_)));
    let LogicalPlan::Join(join) = node else { return Ok(Transformed::no(node)) };
    let asks = match &join.filter {
        Some(condition) => condition.exists(is_list)?,
        None => false,
    };
    match (join.join_type, join.filter.clone()) {
        (JoinType::Inner, Some(condition)) if asks => {
            let joined = LogicalPlan::Join(Join { filter: None, ..join });
            Ok(Transformed::yes(LogicalPlan::Filter(Filter::try_new(condition, Arc::new(joined))?)))
        }
        _ if asks => plan_err!("IN (SELECT …) or EXISTS {IN_ON}"),
        _ => Ok(Transformed::no(LogicalPlan::Join(join))),
    }
}
