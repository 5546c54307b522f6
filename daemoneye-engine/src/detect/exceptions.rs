//! Exceptions: what a rule matches and its users know to be harmless. A match that one of them holds for becomes no alert; it is
//! kept with the alerts as suppressed, so that what an exception hid can be asked for.
//!
//! An exception ends by the time of the event, never by the clock, so that a replay decides the same.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use daemoneye_lib::model::RuleState;
use datafusion::arrow::array::RecordBatch;
use uuid::Uuid;

use super::LoadedRule;
use super::compile::Compiled;
use super::row::Columns;
use crate::store::{HiddenMatch, RuleMatch};

/// Name space of the ids of exceptions. Frozen: what they hid refers to them.
const EXCEPTIONS: Uuid = Uuid::from_u128(0x51e0_7b3c_92d4_4f6a_b8c9_0d1e_63a7_f245);

/// One exception, compiled.
#[derive(Debug)]
pub struct Exception {
    /// Of the rule and the condition, so that another reason or expiry leaves it the same exception.
    pub id: Uuid,
    /// The rule that it belongs to.
    pub rule: Uuid,
    /// The condition as it was written.
    pub condition: String,
    /// Who answers for it.
    pub owner: String,
    /// Why it is there.
    pub reason: String,
    /// Events from then on are not hidden any more, µs since the Unix epoch; `None`: it stays.
    pub expires_us: Option<i64>,
    /// Where it stands.
    pub file: PathBuf,
    /// Line in that file.
    pub line: u64,
    /// Column in that line, in characters.
    pub column: u64,
    pub(super) compiled: Compiled,
}

impl Exception {
    pub(super) fn identity(rule: Uuid, condition: &str) -> Uuid {
        let mut name = rule.as_bytes().to_vec();
        name.extend_from_slice(condition.trim().as_bytes());
        Uuid::new_v5(&EXCEPTIONS, &name)
    }

    /// Whether it has ended at that time, µs since the Unix epoch.
    #[must_use]
    pub fn is_expired(&self, at_us: i64) -> bool {
        self.expires_us.is_some_and(|expires_us| at_us >= expires_us)
    }

    /// Forks too: a rule that sees them is meant with all that it sees. An event without a time hides nothing for long.
    pub(super) fn hides(&self, columns: &Columns<'_>, row: usize) -> bool {
        !self.is_expired(columns.time(row).unwrap_or(i64::MAX)) && self.compiled.condition.holds(columns, row)
    }
}

/// What becomes of the matches of one batch.
#[derive(Debug, Clone, Default)]
pub struct Judged {
    /// Become alerts.
    pub shown: Vec<RuleMatch>,
    /// An exception holds for them.
    pub hidden: Vec<HiddenMatch>,
}

impl Judged {
    /// Adds what was found later.
    pub fn extend(&mut self, later: Self) {
        self.shown.extend(later.shown);
        self.hidden.extend(later.hidden);
    }
}

/// The exceptions of a rule set, and which of its rules are drafts.
#[derive(Debug, Default)]
pub struct Exceptions {
    of: BTreeMap<Uuid, Vec<Arc<Exception>>>,
}

impl Exceptions {
    /// Those of the rules, each rule's in the order of its files.
    #[must_use]
    pub fn of(rules: &[LoadedRule]) -> Self {
        let with = rules.iter().filter(|loaded| !loaded.exceptions.is_empty());
        Self { of: with.map(|loaded| (loaded.rule.id, loaded.exceptions.clone())).collect() }
    }

    /// Every exception, by rule.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<Exception>> {
        self.of.values().flatten()
    }

    /// Parts the matches: those of drafts are dropped, since a draft never alerts (the rule's counters have them).
    #[must_use]
    pub fn judge(&self, matches: Vec<RuleMatch>) -> Judged {
        let verdicts = self.verdicts(&matches);
        let mut judged = Judged::default();
        for (found, exception) in matches.into_iter().zip(verdicts) {
            match exception {
                _ if found.rule.state == RuleState::Draft => {}
                Some(exception) => judged.hidden.push(HiddenMatch { found, exception }),
                None => judged.shown.push(found),
            }
        }
        judged
    }

    /// For each match the exception that hides it: the first one that holds.
    fn verdicts(&self, matches: &[RuleMatch]) -> Vec<Option<Uuid>> {
        // Matches of one batch come together, and its columns are brought to their types once.
        let mut current: Option<(&Arc<RecordBatch>, Columns<'_>)> = None;
        let mut verdicts = Vec::with_capacity(matches.len());
        for found in matches {
            let Some(exceptions) = self.of.get(&found.rule.id) else {
                verdicts.push(None);
                continue;
            };
            let columns = match current.take() {
                Some((batch, columns)) if Arc::ptr_eq(batch, &found.batch) => columns,
                _ => Columns::of(&found.batch),
            };
            let (_, columns) = current.insert((&found.batch, columns));
            let held = exceptions.iter().find(|exception| exception.hides(columns, found.row));
            verdicts.push(held.map(|exception| exception.id));
        }
        verdicts
    }
}
