//! A rule's match on its way into the store.

use std::borrow::Cow;
use std::sync::Arc;

use daemoneye_lib::model::{Completeness, DetectionRule, EventPointer, RuleKind};
use datafusion::arrow::array::{Array as _, AsArray as _, RecordBatch};
use datafusion::arrow::datatypes::{ArrowPrimitiveType, Int64Type, TimestampMicrosecondType};
use serde_json::{Map, Value};
use uuid::Uuid;

use crate::ingest::{row_to_json, value_in};

/// Name space of derived ids. Frozen: another value would make every replayed alert a new one.
const ALERTS: Uuid = Uuid::from_u128(0x7d3c_52a1_9f0e_4b68_8c17_e2b5_40d9_6a3f);

/// One event that a rule matched.
#[derive(Debug, Clone)]
pub struct RuleMatch {
    /// The rule, with the version that [`super::Store::set_rules`] gave it.
    pub rule: Arc<DetectionRule>,
    /// The batch that holds the event; of a window rule the events that were put together, in order.
    pub batch: Arc<RecordBatch>,
    /// The event's row in it; of a window rule the latest.
    pub row: usize,
    /// What the rule's SELECT returned for it.
    pub answer: Answer,
    /// Whether the evaluation saw everything.
    pub completeness: Completeness,
}

/// What a rule's SELECT returned.
#[derive(Debug, Clone)]
pub enum Answer {
    /// Columns of the event, each under its name in the answer. Read when they are asked for: most matches only count up an alert
    /// that is there, and copying three columns takes as long as finding the match.
    Columns(Arc<[(String, &'static str)]>),
    /// What was worked out.
    Row(Map<String, Value>),
}

/// A match that an exception of its rule hides: no alert is raised, and it is kept as a suppressed one.
#[derive(Debug, Clone)]
pub struct HiddenMatch {
    /// What was found.
    pub found: RuleMatch,
    /// The exception that holds for it.
    pub exception: Uuid,
}

/// Rule, process and instant of a match.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Moment {
    rule: Uuid,
    entity_id: String,
    time_us: i64,
}

impl RuleMatch {
    /// `None` when nobody knows which process it was.
    pub(super) fn moment(&self) -> Option<Moment> {
        let moment = Moment { rule: self.rule.id, entity_id: self.text("entity_id"), time_us: self.time_us() };
        (!moment.entity_id.is_empty()).then_some(moment)
    }

    /// Event time, µs since the Unix epoch.
    #[must_use]
    pub fn time_us(&self) -> i64 {
        self.number::<TimestampMicrosecondType>("time").unwrap_or_default()
    }

    /// Where the event stands in its collector's stream.
    pub(super) fn pointer(&self) -> EventPointer {
        let position = |name| self.number::<Int64Type>(name).and_then(|n| u64::try_from(n).ok()).unwrap_or_default();
        EventPointer { collector: self.text("collector"), epoch: position("epoch"), number: position("seq") }
    }

    /// Where all events of the batch stand that a window rule put together; of a stream rule only its own.
    pub(super) fn pointers(&self) -> Vec<EventPointer> {
        if self.rule.kind == RuleKind::Stream {
            return vec![self.pointer()];
        }
        (0..self.batch.num_rows()).map(|row| Self { row, ..self.clone() }.pointer()).collect()
    }

    /// What the rule's SELECT returned.
    #[must_use]
    pub fn output(&self) -> Cow<'_, Map<String, Value>> {
        match &self.answer {
            Answer::Columns(columns) => {
                let values =
                    columns.iter().map(|(name, column)| (name.clone(), value_in(&self.batch, column, self.row)));
                Cow::Owned(values.collect())
            }
            Answer::Row(row) => Cow::Borrowed(row),
        }
    }

    /// The event's columns that are not NULL.
    pub(super) fn process(&self) -> Map<String, Value> {
        row_to_json(&self.batch, self.row)
    }

    /// What tells this alert from the next one of its rule.
    pub(super) fn dedup_key(&self) -> String {
        let rule = self.rule.id;
        if self.rule.dedup.is_empty() {
            return format!("{rule}|{}", self.text("entity_id"));
        }
        let (output, event) = (self.output(), self.process());
        let value = |column: &String| output.get(column).or_else(|| event.get(column)).unwrap_or(&Value::Null);
        self.rule.dedup.iter().fold(rule.to_string(), |key, column| format!("{key}|{column}={}", value(column)))
    }

    /// The id that this match, and any replay of it, has.
    pub(super) fn alert_id(&self, at: &EventPointer) -> Uuid {
        let mut bytes = Vec::with_capacity(64 + at.collector.len());
        bytes.extend_from_slice(&self.time_us().to_le_bytes());
        bytes.extend_from_slice(self.rule.id.as_bytes());
        bytes.extend_from_slice(&self.rule.version.to_le_bytes());
        bytes.extend_from_slice(&(at.collector.len() as u64).to_le_bytes());
        bytes.extend_from_slice(at.collector.as_bytes());
        bytes.extend_from_slice(&at.epoch.to_le_bytes());
        bytes.extend_from_slice(&at.number.to_le_bytes());
        // One event may complete several groups of a window rule.
        if self.rule.kind == RuleKind::Window {
            bytes.extend_from_slice(self.dedup_key().as_bytes());
        }
        Uuid::new_v5(&ALERTS, &bytes)
    }

    fn number<T: ArrowPrimitiveType>(&self, name: &str) -> Option<T::Native> {
        let array = self.batch.column_by_name(name)?.as_primitive_opt::<T>()?;
        (self.row < array.len() && array.is_valid(self.row)).then(|| array.value(self.row))
    }

    fn text(&self, name: &str) -> String {
        let array = self.batch.column_by_name(name).and_then(|array| array.as_string_opt::<i32>());
        array
            .filter(|array| self.row < array.len() && array.is_valid(self.row))
            .map_or_else(String::new, |array| array.value(self.row).to_owned())
    }
}

/// The id that a match has that this exception hides; another than the alert's, which the same event may raise one day.
pub(super) fn hidden_id(exception: Uuid, alert: Uuid) -> Uuid {
    let mut bytes = b"hidden".to_vec();
    bytes.extend_from_slice(exception.as_bytes());
    bytes.extend_from_slice(alert.as_bytes());
    Uuid::new_v5(&ALERTS, &bytes)
}

/// Id of the summary that takes a rule's excess in one minute of event time.
pub(super) fn summary_id(rule: Uuid, minute: i64) -> Uuid {
    let mut bytes = b"folded".to_vec();
    bytes.extend_from_slice(rule.as_bytes());
    bytes.extend_from_slice(&minute.to_le_bytes());
    Uuid::new_v5(&ALERTS, &bytes)
}
