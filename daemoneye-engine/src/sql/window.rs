//! What the plans of window rules take from here: the same gates, session and limits as a query has.

pub(crate) use super::allowance::Allowance;
pub(crate) use super::operators::limited;
pub(crate) use super::plan::refusal;
pub(crate) use super::session::{block_on, plan, with_tables};
pub(crate) use super::tables::{Batches, made_rows};

use super::{Checked, SqlRefusal, plan as gate, session};
use datafusion::common::{DataFusionError, SchemaError};

/// Plans a checked statement as it is written, over tables without rows, and walks the plan. On a thread with a large stack.
pub(crate) fn gated(checked: &Checked) -> Result<(), SqlRefusal> {
    let planning = |error: DataFusionError| gate::refusal(&error, checked.query());
    let state = session::over_empty_tables().map_err(planning)?;
    let plan = session::block_on(session::plan(&state, checked)).map_err(planning)?;
    gate::gate(&plan, checked.query())?;
    // The optimizer checks types and functions that planning leaves open.
    state.optimize(&plan).map_err(planning)?;
    Ok(())
}

/// Whether every column that it names is one, and one only. Nothing else that the planner refuses is told. On a thread with a large
/// stack.
pub(crate) fn named(checked: &Checked) -> Result<(), SqlRefusal> {
    let Ok(state) = session::over_empty_tables() else { return Ok(()) };
    let Err(error) = session::block_on(session::plan(&state, checked)) else { return Ok(()) };
    match error.find_root() {
        DataFusionError::SchemaError(schema, _)
            if matches!(
                schema.as_ref(),
                SchemaError::FieldNotFound { .. } | SchemaError::AmbiguousReference { .. }
            ) =>
        {
            Err(gate::refusal(&error, checked.query()))
        }
        _ => Ok(()),
    }
}
