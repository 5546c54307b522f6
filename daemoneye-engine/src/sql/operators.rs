//! What we add to a physical plan so that its limits hold: joins that yield, look at the clock and count what they gather,
//! windows whose rows are counted, and rows that are kept without the pages that they came from. What gathers or counts rows
//! steps aside between batches.

mod alike;
mod dense;
mod dictionaries;
mod gate;
mod grouped;
mod in_turn;
mod metered;
mod passing;
mod sifted;
mod sliced;
mod windowed;

use super::allowance::Allowance;
pub(crate) use alike::kept_apart;
use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::common::{JoinType, Result};
use datafusion::datasource::source::DataSourceExec;
use datafusion::physical_plan::aggregates::AggregateExec;
use datafusion::physical_plan::coop::CooperativeExec;
use datafusion::physical_plan::joins::{
    CrossJoinExec, HashJoinExec, HashJoinExecBuilder, NestedLoopJoinExec, NestedLoopJoinExecBuilder, SortMergeJoinExec,
};
use datafusion::physical_plan::sorts::sort::SortExec;
use datafusion::physical_plan::windows::{BoundedWindowAggExec, WindowAggExec};
use datafusion::physical_plan::{ExecutionPlan, ExecutionPlanProperties as _, replace_children_if_necessary};
use gate::gated;
use grouped::grouped;
use in_turn::in_turn;
use metered::{Charge, Metered};
use passing::{Between, Compact, Within, through};
use sifted::sifted;
use sliced::Sliced;
use std::sync::Arc;
use windowed::windowed;

/// The plan with our operators in it.
///
/// A join can make a million rows of one batch without ever polling a leaf, which is where DataFusion yields: it would hold
/// the thread past every deadline. A join whose condition nothing passes does not even come back with a batch: its
/// condition looks at the clock. A window keeps its rows without asking the memory pool: over a join it would take all
/// the memory there is before the deadline. A join asks for the columns of the side it gathers and for nothing else: over
/// joins whose columns nobody reads that is nothing at all, however many batches there are.
///
/// `alone`: it works on one thread but for its readers, whose rows leave in order.
pub(crate) fn limited(
    plan: Arc<dyn ExecutionPlan>,
    allowance: &Arc<Allowance>,
    alone: bool,
) -> Result<Arc<dyn ExecutionPlan>> {
    plan.transform_up(|node| {
        if node.downcast_ref::<DataSourceExec>().is_some() {
            let node = dictionaries::compared(&node).unwrap_or(node);
            let several = alone && node.output_partitioning().partition_count() > 1;
            return Ok(Transformed::yes(if several { in_turn(&node) } else { node }));
        }
        if let Some(halves) = grouped(&node) {
            return halves.map(Transformed::yes);
        }
        if let Some(window) = windowed(&node) {
            return window.map(Transformed::yes);
        }
        if node.children().len() > 1 {
            let node = joined(node, allowance)?;
            return Ok(Transformed::yes(Arc::new(CooperativeExec::new(node)) as Arc<dyn ExecutionPlan>));
        }
        let over = |input: &Arc<dyn ExecutionPlan>| match gathers(node.as_ref()) {
            Some(charge) => Some(through(input, Metered::at(charge))),
            None => node.downcast_ref::<AggregateExec>().map(|_| through(input, Between)),
        };
        let inputs: Option<Vec<_>> = node.children().into_iter().map(over).collect();
        let Some(inputs) = inputs.filter(|inputs| !inputs.is_empty()) else { return Ok(Transformed::no(node)) };
        Ok(Transformed::yes(replace_children_if_necessary(node, inputs)?))
    })
    .map(|plan| {
        // What is sealed is older than what is open: where nothing limits the rows it leaves first, although what is in memory is there at once.
        let several = alone && plan.data.output_partitioning().partition_count() > 1;
        if several { in_turn(&plan.data) } else { plan.data }
    })
}

/// What yields in turns here.
fn inside(plan: &Arc<dyn ExecutionPlan>) -> &Arc<dyn ExecutionPlan> {
    plan.downcast_ref::<CooperativeExec>().map_or(plan, CooperativeExec::input)
}

/// What is to be asked for the rows that an operator with one input keeps; `None` when it keeps none.
fn gathers(node: &dyn ExecutionPlan) -> Option<Charge> {
    let window =
        node.downcast_ref::<WindowAggExec>().is_some() || node.downcast_ref::<BoundedWindowAggExec>().is_some();
    let sort = node.downcast_ref::<SortExec>().is_some();
    if window { Some(Charge::Rows) } else { sort.then_some(Charge::Nothing) }
}

/// Joins gather all of their first input; what else has several inputs stays as it is.
fn joined(node: Arc<dyn ExecutionPlan>, allowance: &Arc<Allowance>) -> Result<Arc<dyn ExecutionPlan>> {
    if let Some(join) = node.downcast_ref::<HashJoinExec>() {
        if join.filter().is_none() && hands_on_all(*join.join_type()) {
            return over_counted_build_side(node, false);
        }
        let filter = Some(gated(join.filter(), allowance, false));
        let join = HashJoinExecBuilder::from(join).with_filter(filter).build()?;
        return over_counted_build_side(Arc::new(join), false);
    }
    if let Some(join) = node.downcast_ref::<NestedLoopJoinExec>() {
        let filter = join.filter().map(|filter| gated(Some(filter), allowance, false));
        let join = NestedLoopJoinExecBuilder::from(join).with_filter(filter).build()?;
        return over_counted_build_side(Arc::new(join), true);
    }
    if let Some(join) = node.downcast_ref::<SortMergeJoinExec>() {
        let filter = join.filter().as_ref().map(|filter| gated(Some(filter), allowance, true));
        let (left, right) = (through(join.left(), Compact), through(join.right(), Compact));
        let orders = join.sort_options().to_vec();
        let nulls = join.null_equality();
        let join =
            SortMergeJoinExec::try_new(left, right, join.on().to_vec(), filter, join.join_type(), orders, nulls)?;
        return Ok(through(&(Arc::new(join) as Arc<dyn ExecutionPlan>), Within));
    }
    if node.downcast_ref::<CrossJoinExec>().is_some() { over_counted_build_side(node, false) } else { Ok(node) }
}

/// Whether each pair of equal keys becomes a row, so that the join comes back for every batch of them.
const fn hands_on_all(join: JoinType) -> bool {
    matches!(join, JoinType::Full | JoinType::Inner | JoinType::Left | JoinType::Right)
}

fn over_counted_build_side(join: Arc<dyn ExecutionPlan>, sliced: bool) -> Result<Arc<dyn ExecutionPlan>> {
    let inputs = match join.children().as_slice() {
        [build, probe] => {
            let metered = Metered::at(Charge::Batches);
            let gathered = metered.rows();
            let build = through(build, metered);
            match join.downcast_ref::<HashJoinExec>().and_then(|join| sifted(join, &build)) {
                Some(inputs) => inputs.into(),
                None if sliced => vec![build, through(probe, Sliced::by(gathered))],
                None => vec![build, Arc::clone(probe)],
            }
        }
        _ => return Ok(join),
    };
    replace_children_if_necessary(join, inputs)
}
