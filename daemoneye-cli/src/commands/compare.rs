//! The store against the ledger, for `audit verify`.

use daemoneye_lib::proto::{AuditCompare, Row, Value, operator_request::Verb};
use serde_json::Value as Json;

use super::data::{document, watch};
use crate::error::CliError;
use crate::render::{self, Unit};
use crate::settings::Settings;
use crate::value;

/// What was counted, in the order of [`ask`].
pub(super) const COLUMNS: [&str; 8] =
    ["ranges", "events", "removed", "pending", "unproven", "alerts", "coverage", "rows_unproven"];
const PROBLEM: [&str; 3] = ["place", "problem", "advice"];

/// Compares, and returns what was counted. Problems are printed, and make an error of it.
pub(super) async fn ask(settings: &Settings) -> Result<Vec<Value>, CliError> {
    let shown = watch(settings, Verb::AuditCompare(AuditCompare {}), "comparing events", Unit::Rows).await?;
    let found = document(&shown)?;
    let problems = found.get("problems").and_then(Json::as_array).map(Vec::as_slice).unwrap_or_default();
    let number = |name: &str| found.get(name).and_then(Json::as_u64).unwrap_or_default();
    if !problems.is_empty() {
        let text =
            |problem: &Json, name: &str| problem.get(name).and_then(Json::as_str).unwrap_or_default().to_owned();
        let row = |problem: &Json| Row {
            values: ["place", "what", "advice"].map(|name| value::of_text(text(problem, name))).to_vec(),
        };
        // Whoever does not read the rows is told by the code.
        let _unread = render::rows(settings.format, &PROBLEM, &problems.iter().map(row).collect::<Vec<_>>());
        let count = number("further_problems").saturating_add(problems.len() as u64);
        let what = format!("the store is not what the ledger says, in {count} places; keep both as they are");
        return Err(CliError::NotProven(what));
    }
    if !shown.sound {
        return Err(CliError::Unreadable("the comparison did not reach its end; run it again".to_owned()));
    }
    Ok(COLUMNS.map(|name| value::of_number(number(name))).to_vec())
}
