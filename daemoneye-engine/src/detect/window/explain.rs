//! What each scan of a window rule says to one event.

use super::super::compile::{self, Problem};
use super::super::explain::ScanSaid;
use super::super::row::Columns;
use super::plan::Planned;
use super::shape::Shape;
use crate::sql::Checked;

/// The scans in the order of the SELECT. What the row matcher does not know is left to the plan, which decides it over the rows
/// that are kept.
pub(in crate::detect) fn scans_said(
    checked: &Checked,
    plan: &Planned,
    columns: &Columns<'_>,
    row: usize,
) -> Result<Vec<ScanSaid>, Problem> {
    let shape = Shape::of(checked.query().clone())?;
    let is_seen = plan.sees_forks || !columns.is_fork(row);
    let said = shape.scans.iter().zip(&plan.scans).map(|(read, scan)| {
        let mut said = ScanSaid {
            table: read.alias.clone(),
            may_be_absent: scan.absent,
            takes: is_seen && scan.condition.holds(columns, row),
            looks_back_s: scan.reach.back_us / 1_000_000,
            waits_s: scan.reach.wait_us / 1_000_000,
            conditions: Vec::new(),
            left_to_the_plan: Vec::new(),
        };
        for condition in &read.conditions {
            match compile::explain_one(condition, &read.alias, columns, row) {
                Ok(part) => said.conditions.push(part),
                Err(_) => said.left_to_the_plan.push(compile::shown(condition)),
            }
        }
        said
    });
    Ok(said.collect())
}
