//! Each value of a list once, and the list as what is kept in memory.
//!
//! Of rows that are there or not (`IN`, `EXISTS`, also beside OR) the planner keeps those that are asked about, all of them, and looks through as many as
//! have the same value for every row of the list: `name IN (SELECT name …)` over two million events never ends.

use super::operators::kept_apart;
use datafusion::common::tree_node::{Transformed, TransformedResult as _, TreeNode as _};
use datafusion::common::{Column, JoinType, Result, TableReference};
use datafusion::config::ConfigOptions;
use datafusion::logical_expr::{Expr, Join, LogicalPlan, LogicalPlanBuilder};
use datafusion::optimizer::optimizer::ApplyOrder;
use datafusion::optimizer::{OptimizerConfig, OptimizerRule};
use datafusion::physical_optimizer::PhysicalOptimizerRule;
use datafusion::physical_optimizer::optimizer::PhysicalOptimizer;
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::joins::{HashJoinExec, PartitionMode};
use std::sync::Arc;

/// Columns of which few rows have the same value: finding them once costs more than it saves.
const MOSTLY_APART: [&str; 5] = ["entity_id", "parent_entity_id", "seq", "time", "start_time"];

/// How the values of a list are called.
const VALUE: &str = "value of a list ";

/// The rules for operators, of which one keeps lists on the side that is held in memory, and ours keep columns apart.
pub(super) fn rules() -> Vec<Arc<dyn PhysicalOptimizerRule + Send + Sync>> {
    let mut rules = PhysicalOptimizer::new().rules;
    let chosen = rules.iter().position(|rule| rule.name() == "join_selection");
    rules.insert(chosen.map_or(0, |chosen| chosen.saturating_add(1)), Arc::new(Once));
    kept_apart(rules)
}

/// Has to be the last of the optimizer's rules: no other looks for joins of this side.
#[derive(Debug)]
pub(super) struct Once;

impl OptimizerRule for Once {
    fn name(&self) -> &'static str {
        "listed_once"
    }

    fn apply_order(&self) -> Option<ApplyOrder> {
        Some(ApplyOrder::BottomUp)
    }

    fn rewrite(&self, plan: LogicalPlan, config: &dyn OptimizerConfig) -> Result<Transformed<LogicalPlan>> {
        let LogicalPlan::Join(join) = &plan else { return Ok(Transformed::no(plan)) };
        let Some(turned) = turned(join.join_type).filter(|_| repeats(join)) else { return Ok(Transformed::no(plan)) };
        let list = match turned {
            // The answer goes by the name of the list.
            JoinType::RightMark => match join.schema.iter().last().and_then(|(of, _)| of.cloned()) {
                Some(list) => list,
                None => return Ok(Transformed::no(plan)),
            },
            _ => TableReference::bare(config.alias_generator().next("listed")),
        };
        let names: Vec<String> = (0..join.on.len()).map(|key| format!("{VALUE}{key}")).collect();
        let values = join.on.iter().zip(&names).map(|((_, key), name)| key.clone().alias(name));
        let columns = || names.iter().map(|name| Expr::Column(Column::new_unqualified(name)));
        let once = LogicalPlanBuilder::from(Arc::clone(&join.right))
            .project(values.collect::<Vec<_>>())?
            .aggregate(columns(), Vec::<Expr>::new())?
            .alias(list.clone())?
            .build()?;
        let listed = names.iter().map(|name| Expr::Column(Column::new(Some(list.clone()), name)));
        let on = listed.zip(join.on.iter().map(|(asked, _)| asked.clone())).collect();
        let asked = Arc::clone(&join.left);
        let join =
            Join::try_new(Arc::new(once), asked, on, None, turned, join.join_constraint, join.null_equality, false)?;
        Ok(Transformed::yes(LogicalPlan::Join(join)))
    }
}

/// The planner compares how many rows it takes both sides for, and knows nothing of how many values there are: a list has been put together
/// in memory anyway, and what is asked goes past it.
impl PhysicalOptimizerRule for Once {
    fn optimize(&self, plan: Arc<dyn ExecutionPlan>, _: &ConfigOptions) -> Result<Arc<dyn ExecutionPlan>> {
        let is_list = |side: &Arc<dyn ExecutionPlan>| {
            side.schema().fields().first().is_some_and(|field| field.name().starts_with(VALUE))
        };
        plan.transform_up(|node| {
            let Some(join) = node.downcast_ref::<HashJoinExec>() else { return Ok(Transformed::no(node)) };
            match join.join_type() {
                JoinType::RightSemi | JoinType::RightAnti | JoinType::RightMark if is_list(join.left()) => {
                    let kept = join.builder().with_partition_mode(PartitionMode::CollectLeft).build()?;
                    Ok(Transformed::yes(Arc::new(kept) as Arc<dyn ExecutionPlan>))
                }
                JoinType::LeftSemi | JoinType::LeftAnti | JoinType::LeftMark
                    if is_list(join.right()) && !join.null_aware =>
                {
                    Ok(Transformed::yes(join.swap_inputs(PartitionMode::CollectLeft)?))
                }
                _ => Ok(Transformed::no(node)),
            }
        })
        .data()
    }

    fn name(&self) -> &str {
        "lists_in_memory"
    }

    fn schema_check(&self) -> bool {
        true
    }
}

/// The same join with the list on the left.
const fn turned(of: JoinType) -> Option<JoinType> {
    match of {
        JoinType::LeftSemi => Some(JoinType::RightSemi),
        JoinType::LeftAnti => Some(JoinType::RightAnti),
        JoinType::LeftMark => Some(JoinType::RightMark),
        _ => None,
    }
}

/// Whether nothing but the keys is asked of a list that may have the same ones again and again.
fn repeats(join: &Join) -> bool {
    let is_apart = |key: &Expr| matches!(key, Expr::Column(column) if MOSTLY_APART.contains(&column.name()));
    let is_once = matches!(join.right.as_ref(), LogicalPlan::Aggregate(_) | LogicalPlan::Distinct(_));
    let asks_more = join.filter.is_some() || join.null_aware;
    !asks_more && !is_once && !join.on.is_empty() && !join.on.iter().any(|(_, key)| is_apart(key))
}
