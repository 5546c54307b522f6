//! Rules over events that are past: the same matcher, deduplication and rate limits as live, on a store in memory.
//!
//! Everything is decided by event time and stream position, so the same events and rules give the same alerts with the same
//! ids every time. Nothing is delivered, audited or kept.

mod merge;
mod read;
mod rows;

use daemoneye_lib::model::{Alert, Completeness, Degraded};
use daemoneye_lib::proto::Sequence;
use datafusion::arrow::array::{Array as _, AsArray as _, RecordBatch};
use datafusion::arrow::datatypes::TimestampMicrosecondType;

pub use self::read::{ReplayError, read};
pub use self::rows::{batch_of_rows, process_events};

use crate::detect::{Exceptions, LoadedRule, Refusal, RuleSet};
use crate::ingest::EventBatch;
use crate::store::{AlertFilter, RuleMatch, Store, StoreError, StoreOptions};

/// Rules, and the alerts that they would have raised so far.
#[derive(Debug)]
pub struct Replay {
    set: RuleSet,
    exceptions: Exceptions,
    store: Store,
    matches: u64,
    /// Matches of events before it are not kept, µs since the Unix epoch.
    from_us: i64,
}

impl Replay {
    /// Nothing has happened yet. Of `options`, deduplication, rate limits and the host's name count.
    ///
    /// # Errors
    /// [`StoreError`] when no store can be made in memory.
    pub fn new(rules: Vec<LoadedRule>, options: StoreOptions) -> Result<(Self, Vec<Refusal>), StoreError> {
        let exceptions = Exceptions::of(&rules);
        let (set, refusals) = RuleSet::compile(rules);
        let store = Store::in_memory(options)?;
        Ok((Self { set, exceptions, store, matches: 0, from_us: i64::MIN }, refusals))
    }

    /// Events before that time (µs since the Unix epoch) are there for rules that look back over them: what matches them is left out.
    #[must_use]
    pub fn since(self, from_us: i64) -> Self {
        Self { from_us, ..self }
    }

    /// Takes the next events and returns what matched and no exception hides.
    ///
    /// # Errors
    /// [`StoreError`] when the store in memory fails.
    pub fn take(&mut self, events: &EventBatch) -> Result<Vec<RuleMatch>, StoreError> {
        let mut completeness = Completeness::complete();
        if !events.gaps.is_empty() {
            completeness.degrade(Degraded::EventsShed);
        }
        self.keep(self.set.evaluate(events, &completeness))
    }

    /// No more events will come: what window rules were still waiting for is decided.
    ///
    /// # Errors
    /// [`StoreError`] when the store in memory fails.
    pub fn finish(&mut self) -> Result<Vec<RuleMatch>, StoreError> {
        self.advance(i64::MAX)
    }

    /// No event older than `to_us` (µs since the Unix epoch) will come: what window rules were waiting for until then is decided.
    ///
    /// # Errors
    /// [`StoreError`] when the store in memory fails.
    pub fn advance(&mut self, to_us: i64) -> Result<Vec<RuleMatch>, StoreError> {
        self.keep(self.set.advance(to_us))
    }

    fn keep(&mut self, mut found: Vec<RuleMatch>) -> Result<Vec<RuleMatch>, StoreError> {
        found.retain(|found| self.from_us == i64::MIN || found.time_us() >= self.from_us);
        let judged = self.exceptions.judge(found);
        self.matches = self.matches.saturating_add(judged.shown.len() as u64);
        self.store.commit_hidden(&judged.hidden)?;
        self.store.commit_matches(judged.shown.clone())?;
        Ok(judged.shown)
    }

    /// Matches so far.
    #[must_use]
    pub const fn matches(&self) -> u64 {
        self.matches
    }

    /// The alerts so far, by event time and id.
    ///
    /// # Errors
    /// [`StoreError`] when the store in memory fails.
    pub fn alerts(&self) -> Result<Vec<Alert>, StoreError> {
        let mut alerts = self.store.alerts(&AlertFilter::default())?;
        alerts.retain(|alert| alert.suppressed_by.is_none());
        alerts.sort_by_key(|alert| (alert.time_us, alert.id));
        Ok(alerts)
    }
}

/// Rows of `process_events` as a run of events: their positions stand in the rows.
#[must_use]
pub fn events_of(batch: RecordBatch) -> EventBatch {
    let nowhere = Sequence::new(0, 0);
    EventBatch { batch, collector: "".into(), first: nowhere, last: nowhere, gaps: Vec::new(), live: Vec::new() }
}

/// The event times of a batch in µs since the Unix epoch, by row.
fn times(batch: &RecordBatch) -> impl Iterator<Item = Option<i64>> {
    let times = batch.column_by_name("time").and_then(|column| column.as_primitive_opt::<TimestampMicrosecondType>());
    (0..batch.num_rows()).map(move |row| times.filter(|times| times.is_valid(row)).map(|times| times.value(row)))
}
