//! Why a rule matches an event, or why not: its condition as a tree, with the values that decided each part.

use daemoneye_lib::columns::PROCESS_EVENTS;
use datafusion::arrow::array::RecordBatch;
use serde::Serialize;
use serde_json::{Map, Value};
use uuid::Uuid;

use super::compile;
use super::exceptions::Exception;
use super::row::Columns;
use super::{LoadedRule, Refusal, window};

/// One part of a condition.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Part {
    /// `and`, `or`, `not`, `is true` and its kin, or `predicate`.
    pub kind: &'static str,
    /// Its text, at most 4,096 characters of it.
    pub sql: String,
    /// TRUE, FALSE, or `None` for NULL.
    pub outcome: Option<bool>,
    /// Of a predicate: the columns that it reads, with their values in this event.
    #[serde(skip_serializing_if = "Map::is_empty")]
    pub values: Map<String, Value>,
    /// What it is made of.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub parts: Vec<Part>,
}

/// What an exception of the rule says to the event.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Exempted {
    /// As in the table `rule_exceptions`.
    pub id: Uuid,
    /// Its condition.
    pub condition: String,
    /// Who answers for it.
    pub owner: String,
    /// Why it is there.
    pub reason: String,
    /// Whether it hides a match of this event: its condition holds, and it had not ended.
    pub hides: bool,
}

/// What one of the tables of a window rule says to the event.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ScanSaid {
    /// Its alias.
    pub table: String,
    /// The rule finds something where this table has nothing.
    pub may_be_absent: bool,
    /// Whether it takes the event: the rule then keeps it for as long as it looks back.
    pub takes: bool,
    /// How far back it sees events, in seconds.
    pub looks_back_s: i64,
    /// How long its events wait for what may come, in seconds.
    pub waits_s: i64,
    /// What each of its events has to pass.
    pub conditions: Vec<Part>,
    /// Conditions of it alone that only the plan can decide.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub left_to_the_plan: Vec<String>,
}

/// What a rule says to one event.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Explanation {
    /// Which rule.
    pub rule_id: Uuid,
    /// Its name.
    pub rule: String,
    /// Which version of it; of a file that is not loaded, 1.
    pub version: u32,
    /// Whether the event matches; `None`: of a window rule no event does by itself.
    pub matches: Option<bool>,
    /// Why the rule never sees the event, whatever its condition says.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub unseen: Option<&'static str>,
    /// Columns that the rule reads and that have no value in this event.
    pub missing_columns: Vec<&'static str>,
    /// The condition; a rule without one matches every event that it sees.
    pub condition: Option<Part>,
    /// Of a window rule, in place of a condition: the places where it reads events.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub scans: Vec<ScanSaid>,
    /// What its users know to be harmless.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub exceptions: Vec<Exempted>,
}

/// Explains one row of a batch.
///
/// # Errors
/// A [`Refusal`] when the rule's text cannot be read any more.
pub fn explain(rule: &LoadedRule, events: &RecordBatch, row: usize) -> Result<Explanation, Refusal> {
    let again = "check the file: daemoneye-cli rules validate";
    let refused = |message: String| Refusal::whole(&rule.path, message, Some(again));
    let columns = Columns::of(events);
    let checked = rule.checked().map_err(|refusal| refused(refusal.message))?;
    let said = match &rule.window {
        Some(plan) => window::scans_said(&checked, plan, &columns, row).map(|scans| (None, scans)),
        None => compile::explain(checked.query(), &columns, row).map(|condition| (condition, Vec::new())),
    };
    let (condition, scans) = said.map_err(|problem| refused(problem.message))?;
    let (read, sees_forks) = match &rule.window {
        Some(plan) => (&plan.asked, plan.sees_forks),
        None => (&rule.compiled.columns, rule.compiled.sees_forks),
    };
    let is_missing = |at: &&usize| columns.cell(**at, row).is_none();
    let missing = read.iter().filter(is_missing).filter_map(|at| PROCESS_EVENTS.get(*at));
    let is_hidden_fork = columns.is_fork(row) && !sees_forks;
    Ok(Explanation {
        rule_id: rule.rule.id,
        rule: rule.rule.name.clone(),
        version: rule.rule.version,
        matches: rule.window.is_none().then(|| rule.compiled.matches(&columns, row)),
        unseen: is_hidden_fork.then_some("a bare fork is seen only by rules that speak of start_kind"),
        missing_columns: missing.map(|column| column.name).collect(),
        condition,
        scans,
        exceptions: rule.exceptions.iter().map(|exception| exempted(exception, &columns, row)).collect(),
    })
}

fn exempted(exception: &Exception, columns: &Columns<'_>, row: usize) -> Exempted {
    Exempted {
        id: exception.id,
        condition: exception.condition.clone(),
        owner: exception.owner.clone(),
        reason: exception.reason.clone(),
        hides: exception.hides(columns, row),
    }
}
