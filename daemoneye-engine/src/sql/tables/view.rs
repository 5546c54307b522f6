//! What one query sees: one snapshot of the store, taken when the first table is read, and what that snapshot lacks.

use super::super::allowance::Allowance;
use super::super::completeness::{Lack, Missing, of_gap};
use super::prune::TimeRange;
use super::system::SystemTable;
use super::{CollectorRow, History, RuleLife, SystemTables};
use crate::store::{HistoryTable, Living, SegmentFile, Snapshot, StateView, Store, StoreError};
use daemoneye_lib::model::Degraded;
use daemoneye_lib::proto::CoverageGap;
use datafusion::arrow::record_batch::RecordBatch;
use datafusion::catalog::TableProvider;
use datafusion::common::DataFusionError;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

/// Shared by all tables of one query.
pub(crate) struct QueryView {
    pub(super) store: Arc<Store>,
    pub(super) extra: Arc<dyn SystemTables>,
    missing: Missing,
    /// Whether lifetimes are read, which have to be made.
    with_lifetimes: AtomicBool,
    /// Whether its plan works on several threads.
    spread: AtomicBool,
    snapshot: OnceLock<Arc<Snapshot>>,
    /// Until the statement is planned; then its scans have it, and who reads none of it holds up nobody.
    state: Mutex<Option<Arc<StateView>>>,
    /// Gaps that say what is missing from events.
    gaps: OnceLock<Arc<Gaps>>,
    living: OnceLock<Living>,
    rule_life: OnceLock<RuleLife>,
    /// The files that its scans open, by id.
    opened: Mutex<BTreeMap<u64, Arc<SegmentFile>>>,
    /// Ids of those that have something for it.
    read: Mutex<BTreeSet<u64>>,
    /// Names of those that it should have read and that cannot be.
    unreadable: Mutex<BTreeSet<String>>,
    /// Row groups that its scans left out before the reader saw them.
    excluded: AtomicUsize,
    /// How long it may go on; without one it belongs to no query.
    allowance: OnceLock<Arc<Allowance>>,
}

impl std::fmt::Debug for QueryView {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("QueryView").field("missing", &self.missing).finish_non_exhaustive()
    }
}

impl QueryView {
    pub(crate) fn new(store: Arc<Store>, extra: Arc<dyn SystemTables>, missing: Missing) -> Arc<Self> {
        let with_lifetimes = AtomicBool::new(false);
        Arc::new(Self {
            store,
            extra,
            missing,
            with_lifetimes,
            spread: AtomicBool::new(false),
            snapshot: OnceLock::new(),
            state: Mutex::default(),
            gaps: OnceLock::new(),
            living: OnceLock::new(),
            rule_life: OnceLock::new(),
            opened: Mutex::default(),
            read: Mutex::default(),
            unreadable: Mutex::default(),
            excluded: AtomicUsize::new(0),
            allowance: OnceLock::new(),
        })
    }

    /// It works for the query that has this allowance.
    pub(crate) fn works_within(&self, allowance: &Arc<Allowance>) {
        self.allowance.get_or_init(|| Arc::clone(allowance));
    }

    /// Its plan works on several threads; told before its scans are planned.
    pub(crate) fn works_on_several(&self) {
        self.spread.store(true, Ordering::Relaxed);
    }

    pub(super) fn is_spread(&self) -> bool {
        self.spread.load(Ordering::Relaxed)
    }

    /// Tells whether its query is over.
    pub(super) fn over(&self) -> impl Fn() -> bool + Send + use<> {
        let allowance = self.allowance.get().cloned();
        move || allowance.as_ref().is_some_and(|allowance| allowance.over().is_some())
    }

    /// Providers for the tables that a statement reads.
    pub(crate) fn tables(
        self: &Arc<Self>,
        names: impl Iterator<Item = &'static str>,
    ) -> Vec<(&'static str, Arc<dyn TableProvider>)> {
        names
            .map(|name| {
                let history = HistoryTable::named(name);
                if history == Some(HistoryTable::ProcessLifetimes) {
                    self.with_lifetimes.store(true, Ordering::Relaxed);
                }
                let table: Arc<dyn TableProvider> = match history {
                    Some(table) => Arc::new(History::new(table, Arc::clone(self))),
                    None => Arc::new(SystemTable::new(name, Arc::clone(self))),
                };
                (name, table)
            })
            .collect()
    }

    /// The same snapshot for every scan of the query.
    pub(super) fn snapshot(&self) -> Result<Arc<Snapshot>, DataFusionError> {
        if let Some(taken) = self.snapshot.get() {
            return Ok(Arc::clone(taken));
        }
        let fresh = if self.with_lifetimes.load(Ordering::Relaxed) {
            self.store.snapshot_with_lifetimes()
        } else {
            self.store.snapshot()
        };
        Ok(Arc::clone(self.snapshot.get_or_init(|| Arc::new(fresh))))
    }

    /// The same state for every scan of the query.
    pub(super) fn state(&self) -> Result<Arc<StateView>, DataFusionError> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(taken) = state.as_ref() {
            return Ok(Arc::clone(taken));
        }
        let fresh = Arc::new(self.store.state_view().map_err(store_error)?);
        *state = Some(Arc::clone(&fresh));
        Ok(fresh)
    }

    /// No more scans will be planned: the state lives as long as those that read it.
    pub(crate) fn planned(&self) {
        *self.state.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    /// The same live processes for every scan of the query, those of its lifetimes where it reads both.
    pub(super) fn living(&self) -> Result<Living, DataFusionError> {
        if self.with_lifetimes.load(Ordering::Relaxed) {
            return Ok(self.snapshot()?.open_lifetimes.living());
        }
        if let Some(taken) = self.living.get() {
            return Ok(taken.clone());
        }
        let fresh = self.store.live().map_err(store_error)?;
        Ok(self.living.get_or_init(|| fresh).clone())
    }

    pub(super) fn rule_life(&self) -> &RuleLife {
        self.rule_life.get_or_init(|| self.extra.rule_life())
    }

    fn gaps(&self) -> Result<Arc<Gaps>, DataFusionError> {
        if let Some(read) = self.gaps.get() {
            return Ok(Arc::clone(read));
        }
        let fresh = Gaps::read(&*self.state()?).map_err(store_error)?;
        Ok(Arc::clone(self.gaps.get_or_init(|| Arc::new(fresh))))
    }

    pub(super) fn note(&self, lack: Lack) {
        self.missing.add(lack);
    }

    /// Says that a file that the query should have read is not there as it was written.
    pub(super) fn note_unreadable(&self, path: &Path, rows: u64, first_us: i64, last_us: i64) {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        self.unreadable.lock().unwrap_or_else(PoisonError::into_inner).insert(name.clone().into_owned());
        let what = format!("segment {name} with {rows} rows is damaged or missing");
        self.note(Lack::new(Degraded::DataUnreadable, what).during(first_us, last_us));
    }

    /// Sealed segments of the snapshot and those that are read; none of both when no table was read that has any.
    pub(crate) fn segments(&self) -> (usize, usize) {
        let known = self.snapshot.get().map_or(0, |snapshot| {
            let lifetimes = if self.with_lifetimes.load(Ordering::Relaxed) { snapshot.lifetimes.len() } else { 0 };
            snapshot.segments.len().saturating_add(lifetimes)
        });
        (known, self.read.lock().unwrap_or_else(PoisonError::into_inner).len())
    }

    /// Names of the files that are read, by their age.
    pub(crate) fn read_names(&self) -> Vec<String> {
        let read = self.read.lock().unwrap_or_else(PoisonError::into_inner);
        let opened = self.opened.lock().unwrap_or_else(PoisonError::into_inner);
        let name = |file: &Arc<SegmentFile>| file.path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        read.iter().filter_map(|id| opened.get(id)).map(name).collect()
    }

    /// Names of those that should be and cannot.
    pub(crate) fn unreadable_names(&self) -> Vec<String> {
        self.unreadable.lock().unwrap_or_else(PoisonError::into_inner).iter().cloned().collect()
    }

    /// Rows of sealed segments that a query of these tables can read.
    pub(crate) fn history_rows(&self, mut tables: impl Iterator<Item = &'static str>) -> Result<u64, DataFusionError> {
        if !tables.any(|name| HistoryTable::named(name).is_some()) {
            return Ok(0);
        }
        let snapshot = self.snapshot()?;
        let segments = snapshot.segments.iter().chain(&snapshot.lifetimes);
        Ok(segments.map(|segment| segment.rows).sum())
    }

    /// Rows that are in memory only.
    pub(crate) fn open_rows(&self) -> usize {
        let open = self.snapshot.get().map(|snapshot| snapshot.open.iter().map(RecordBatch::num_rows).sum());
        open.unwrap_or_default()
    }

    /// Remembers that a scan opens this file.
    pub(super) fn opens(&self, file: &Arc<SegmentFile>) {
        self.opened.lock().unwrap_or_else(PoisonError::into_inner).insert(file.id, Arc::clone(file));
    }

    /// Remembers that a scan reads rows of this file.
    pub(super) fn reads(&self, file: &SegmentFile) {
        self.read.lock().unwrap_or_else(PoisonError::into_inner).insert(file.id);
    }

    /// Remembers row groups that a scan leaves out because of their Bloom filters.
    pub(super) fn excludes_row_groups(&self, count: usize) {
        self.excluded.fetch_add(count, Ordering::Relaxed);
    }

    /// Row groups that were left out because of their Bloom filters before the reader saw them.
    pub(crate) fn excluded_row_groups(&self) -> usize {
        self.excluded.load(Ordering::Relaxed)
    }

    /// The files that the query's scans open.
    pub(crate) fn opened(&self) -> Vec<Arc<SegmentFile>> {
        self.opened.lock().unwrap_or_else(PoisonError::into_inner).values().cloned().collect()
    }

    /// Says what the store knows to be missing from this range of time.
    pub(super) fn note_coverage(&self, table: HistoryTable, range: TimeRange) -> Result<(), DataFusionError> {
        let gaps = self.gaps()?;
        for (reason, gap) in gaps.during(range) {
            self.note(Lack::new(*reason, gap_words(gap)).during(gap.from_us, gap.to_us));
        }
        // Events since then wait in the logs of their collectors.
        if let Some((since_us, _)) = self.store.paused().filter(|(since_us, _)| range.to_us >= *since_us) {
            let what = "ingest waits for room on the disk: later events are in the logs of their collectors";
            self.note(Lack::new(Degraded::CollectorUnavailable, what).during(since_us, range.to_us));
        }
        if let Some(last_us) = gaps.removed_until(table).filter(|last_us| range.asks_back_to(*last_us)) {
            let rows = match table {
                HistoryTable::ProcessEvents => "events",
                HistoryTable::ProcessLifetimes => "lifetimes that ended",
            };
            let what = format!("retention: {rows} up to then were deleted because of their age or size");
            self.note(Lack::new(Degraded::Capped, what).during(range.from_us, last_us));
        }
        Ok(())
    }

    /// Says so when the table of live processes had no room for all of them.
    pub(super) fn note_processes(&self) {
        if self.store.lacks_processes() {
            self.note(Lack::new(Degraded::Capped, "processes: more live than the table holds"));
        }
    }

    /// Says so when the range reaches beyond what a copied store can know. Without an end it asks for what there is.
    pub(super) fn note_end(&self, range: TimeRange) {
        let Some(ends_us) = self.store.ends_us() else { return };
        if range.from_us > ends_us || (range.to_us > ends_us && range.to_us < i64::MAX) {
            let at = jiff::Timestamp::from_microsecond(ends_us).map(|at| at.to_string()).unwrap_or_default();
            let what = format!("the copy ends at {at}: what came after it is not known here");
            self.note(Lack::new(Degraded::CollectorUnavailable, what).during(ends_us, range.to_us));
        }
    }

    /// Says so when the range begins, or all of it lies, before anything was watched.
    pub(super) fn note_beginning(&self, range: TimeRange) -> Result<(), DataFusionError> {
        let snapshot = self.snapshot()?;
        let files = snapshot.segments.iter().chain(&snapshot.lifetimes).map(|file| file.first_us);
        let state = self.state()?;
        let mut host = None;
        for described in state.system_info().map_err(store_error)? {
            let time_us = described.map_err(store_error)?.time_us;
            host = Some(host.map_or(time_us, |first: i64| first.min(time_us)));
        }
        let gap = state.first_gap_us().map_err(store_error)?;
        let began = files.chain(host).chain(gap).min();
        // Without a begin it asks for what there is.
        let is_before = |began: &i64| range.to_us < *began || (range.from_us > i64::MIN && range.from_us < *began);
        if let Some(began) = began.filter(is_before) {
            let what = "nobody watched before this host was first watched";
            self.note(Lack::new(Degraded::CollectorUnavailable, what).during(range.from_us, began));
        }
        Ok(())
    }

    /// Says so when a file that holds rows of this range had to be set aside.
    pub(super) fn note_damage(&self, table: HistoryTable, range: TimeRange) -> Result<(), DataFusionError> {
        let snapshot = self.snapshot()?;
        let damaged = snapshot.damaged.iter().filter(|file| file.table == table);
        let lost = damaged.filter(|file| range.overlaps(file.first_us, file.last_us));
        lost.for_each(|file| self.note_unreadable(&file.path, file.rows, file.first_us, file.last_us));
        Ok(())
    }

    /// Says so when a collector is away and the range reaches the present, or a time whose events are still to come.
    pub(super) fn note_collectors(&self, range: TimeRange) {
        let now_us = jiff::Timestamp::now().as_microsecond();
        let lacks = |collector: &CollectorRow| {
            (!collector.connected && range.to_us >= now_us)
                || collector.behind_since_us.is_some_and(|since_us| range.to_us >= since_us)
        };
        for collector in self.extra.collectors().into_iter().filter(lacks) {
            let what = match (collector.connected, collector.behind_since_us) {
                (false, _) => format!("{}: the collector is not connected", collector.id),
                (true, _) => format!("{}: events that it has captured are still to come", collector.id),
            };
            let lack = Lack::new(Degraded::CollectorUnavailable, what);
            self.note(match collector.behind_since_us {
                Some(since_us) => lack.during(since_us, now_us),
                None => lack,
            });
        }
    }
}

/// What is missing from events, read once for a query.
struct Gaps {
    /// Those that say so, by their begin.
    lacking: Vec<(Degraded, CoverageGap)>,
    /// Up to when retention took rows of a table.
    removed: BTreeMap<HistoryTable, i64>,
}

impl Gaps {
    fn read(state: &StateView) -> Result<Self, StoreError> {
        let (mut lacking, mut removed) = (Vec::new(), BTreeMap::new());
        for row in state.coverage()? {
            let gap = row?.gap;
            if let Some(table) = HistoryTable::removed_for(&gap.reason) {
                let until_us: &mut i64 = removed.entry(table).or_insert(gap.to_us);
                *until_us = gap.to_us.max(*until_us);
            }
            lacking.extend(of_gap(&gap.reason).map(|reason| (reason, gap)));
        }
        lacking.sort_by_key(|(_, gap)| gap.from_us);
        Ok(Self { lacking, removed })
    }

    fn during(&self, range: TimeRange) -> impl Iterator<Item = &(Degraded, CoverageGap)> {
        let begun = self.lacking.partition_point(|(_, gap)| gap.from_us <= range.to_us);
        let begun = self.lacking.get(..begun).unwrap_or_default();
        begun.iter().filter(move |(_, gap)| range.overlaps(gap.from_us, gap.to_us))
    }

    fn removed_until(&self, table: HistoryTable) -> Option<i64> {
        self.removed.get(&table).copied()
    }
}

/// `shed: 120 events of procmond`, with what the collector said about it.
fn gap_words(gap: &CoverageGap) -> String {
    let CoverageGap { collector, reason, count, detail, .. } = gap;
    let events = count.map_or_else(|| "events".to_owned(), |count| format!("{count} events"));
    let of = if collector.is_empty() { String::new() } else { format!(" of {collector}") };
    let because = if detail.is_empty() { String::new() } else { format!(" ({detail})") };
    format!("{reason}: {events}{of}{because}")
}

/// A store that cannot be read is not an empty one.
pub(super) fn store_error(error: StoreError) -> DataFusionError {
    DataFusionError::IoError(std::io::Error::other(error))
}
