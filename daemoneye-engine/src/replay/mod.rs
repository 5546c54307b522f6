//! Rules over events that are past: the same matcher, deduplication and rate limits as live, on a store in memory.
//!
//! Everything is decided by event time and stream position, so the same events and rules give the same alerts with the same
//! ids every time. Nothing is delivered, audited or kept; of alerts only those that a match may still be added to are held, so
//! that memory does not grow with what the rules find.

mod merge;
mod read;
mod rows;

use daemoneye_lib::model::Alert;
use daemoneye_lib::proto::Sequence;
use datafusion::arrow::array::{Array as _, AsArray as _, RecordBatch};
use datafusion::arrow::datatypes::TimestampMicrosecondType;

pub use self::read::{ReplayError, read};
pub use self::rows::{batch_of_rows, process_events};

use crate::detect::{Exceptions, GRACE_US, LoadedRule, Refusal, RuleSet};
use crate::ingest::EventBatch;
use crate::store::{AlertFilter, RuleMatch, Store, StoreError, StoreOptions};

/// Alerts that are held before any is handed on, so that most replays are in order whatever the order of their events: some 50 MB.
const FEW_ALERTS: u64 = 10_000;
/// Alerts that are held at most; beyond that the oldest leave before their time is over, which is told.
const MOST_ALERTS: usize = 20_000;
/// A summary takes the matches of one minute.
const MINUTE_US: i64 = 60_000_000;

/// Rules, and the alerts that they would have raised so far.
#[derive(Debug)]
pub struct Replay {
    set: RuleSet,
    exceptions: Exceptions,
    store: Store,
    matches: u64,
    hidden: u64,
    /// Matches of events before it are not kept, µs since the Unix epoch.
    from_us: i64,
    /// For how long an alert may be added to, µs.
    open_us: i64,
    /// The oldest event of those that were taken last, µs since the Unix epoch.
    oldest_us: i64,
    /// The latest alert that was handed on, µs since the Unix epoch.
    settled_us: i64,
    /// Alerts that were handed on before their time was over.
    early: u64,
    /// Matches from before alerts that were handed on.
    behind: u64,
}

impl Replay {
    /// Nothing has happened yet. Of `options`, deduplication, rate limits and the host's name count.
    ///
    /// # Errors
    /// [`StoreError`] when no store can be made in memory.
    pub fn new(rules: Vec<LoadedRule>, options: StoreOptions) -> Result<(Self, Vec<Refusal>), StoreError> {
        let exceptions = Exceptions::of(&rules);
        let folds = rules.iter().map(|rule| rule.rule.dedup_window_s).fold(options.dedup_window_s, u32::max);
        let waits = rules.iter().map(LoadedRule::wait_us).fold(GRACE_US, i64::max);
        let open_us = i64::from(folds).saturating_mul(1_000_000).saturating_add(waits).saturating_add(MINUTE_US);
        let (set, refusals) = RuleSet::compile(rules);
        let store = Store::in_memory(options)?;
        let replay = Self {
            set,
            exceptions,
            store,
            matches: 0,
            hidden: 0,
            from_us: i64::MIN,
            open_us,
            oldest_us: i64::MIN,
            settled_us: i64::MIN,
            early: 0,
            behind: 0,
        };
        Ok((replay, refusals))
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
        self.oldest_us = times(&events.batch).flatten().min().unwrap_or(self.oldest_us);
        self.keep(self.set.evaluate(events, &events.completeness()))
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
        self.hidden = self.hidden.saturating_add(judged.hidden.len() as u64);
        let behind = judged.shown.iter().filter(|found| found.time_us() < self.settled_us).count();
        self.behind = self.behind.saturating_add(behind as u64);
        self.store.commit_hidden(&judged.hidden)?;
        self.store.commit_matches(judged.shown.clone())?;
        Ok(judged.shown)
    }

    /// Matches so far.
    #[must_use]
    pub const fn matches(&self) -> u64 {
        self.matches
    }

    /// Matches so far that exceptions hid.
    #[must_use]
    pub const fn hidden(&self) -> u64 {
        self.hidden
    }

    /// Hands on alerts that nothing is added to any more, by event time and id, once there are many: each before those of the next
    /// call and of [`Replay::alerts`].
    ///
    /// # Errors
    /// [`StoreError`] when the store in memory fails.
    pub fn settled(&mut self) -> Result<Vec<Alert>, StoreError> {
        let before_us = self.oldest_us.saturating_sub(self.open_us);
        let taken = self.store.take_alerts(before_us, FEW_ALERTS, MOST_ALERTS)?;
        self.early = self.early.saturating_add(taken.early);
        let mut alerts = taken.alerts;
        self.settled_us = alerts.last().map_or(self.settled_us, |alert| alert.time_us.max(self.settled_us));
        alerts.retain(|alert| alert.suppressed_by.is_none());
        Ok(alerts)
    }

    /// What was not decided, or not as it would have been live.
    #[must_use]
    pub fn shortfalls(&self) -> Vec<String> {
        let mut told = self.set.shortfalls();
        if self.early > 0 {
            told.push(format!(
                "{} alerts of {MOST_ALERTS} and more at a time were let go early: a repeat of one is an alert of its own",
                self.early
            ));
        }
        if self.behind > 0 {
            told.push(format!(
                "{} matches came after the alerts of younger ones: order the file by time",
                self.behind
            ));
        }
        told
    }

    /// The alerts that were not handed on so far, by event time and id.
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
