//! The collectors as the worker knows them: who registered, who is connected, what the last heartbeat said, and for how long
//! somebody has been away.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use daemoneye_engine::sql::CollectorRow;
use daemoneye_lib::proto::{CollectionCapabilities, CollectorHealth, CoverageGap, Heartbeat, Register, Sequence};

use super::pushdown::Pushdown;
use crate::clock::now_us;

/// Heartbeats that may be missing before a collector counts as failed; one or two are `degraded`.
const FAILED_AFTER: u32 = 3;
/// The collector without which nothing is seen: it is missing from the start, not only when it has left.
const EXPECTED: &str = "procmond";
/// How long nobody may collect before it is written down, µs: a start or a restart in order is over by then.
const OUTAGE_AFTER_US: i64 = 2_000_000;
/// The same for one that has not come yet, µs. A collector tells itself since when nobody captured; this is for one that does
/// not come at all, not for a busy machine on which the start takes seconds.
const FIRST_AFTER_US: i64 = 10_000_000;
/// How often the row of an outage that lasts is written again, µs.
const OUTAGE_EVERY_US: i64 = 5_000_000;
/// How late events may be taken before that is told, µs: a busy moment is over by then.
const LATE_US: i64 = 5_000_000;
/// How long the committed position may stand still beyond the age at which a segment is sealed, while the collector goes on: a
/// slow disk takes seconds.
const COMMIT_PATIENCE: Duration = Duration::from_secs(60);

/// One collector.
#[derive(Debug, Clone)]
pub(crate) struct Collector {
    pub(crate) register: Register,
    pub(crate) registered_us: i64,
    pub(crate) connected: bool,
    /// The last heartbeat and when it came.
    pub(crate) health: Option<CollectorHealth>,
    pub(crate) last_heartbeat_us: Option<i64>,
    last_seen: Instant,
    pub(crate) missed: u32,
    /// Since when it has been away, and why.
    pub(crate) away: Option<(i64, String)>,
    behind: Option<Behind>,
    /// When the event that was taken last was captured, and how much later it was taken, µs, while that is long.
    pub(crate) late: Option<(i64, i64)>,
    pending: Option<Pending>,
    /// How it stands with what the rules need; `None`: it does not ask.
    pub(crate) pushdown: Option<Pushdown>,
    /// For how long nothing that it recorded was committed, once that is longer than any seal takes.
    pub(crate) stuck: Option<Duration>,
}

/// Records behind `committed` wait to be committed, and have since this time.
#[derive(Debug, Clone, Copy)]
struct Pending {
    committed: Option<Sequence>,
    since: Instant,
}

/// Events from `since_us` on may be captured and not here yet; the position `until` ends that, once the collector has told it.
#[derive(Debug, Clone, Copy)]
struct Behind {
    since_us: i64,
    until: Option<Sequence>,
}

impl Collector {
    /// Why it collects nothing, or less than it should.
    pub(crate) fn trouble(&self) -> Option<&str> {
        self.health.as_ref().map(|health| health.trouble.as_str()).filter(|trouble| !trouble.is_empty())
    }

    /// From when on events may be captured and not here yet.
    fn behind_since_us(&self) -> Option<i64> {
        let late = self.late.map(|(captured_us, _)| captured_us);
        self.behind.map(|behind| behind.since_us).into_iter().chain(late).min()
    }

    /// `healthy`, `degraded`, `failed` or `away`.
    pub(crate) fn standing(&self) -> &'static str {
        match (self.connected, self.missed) {
            (false, _) => "away",
            (true, 0) if self.stuck.is_none() && self.trouble().is_none() => "healthy",
            (true, 0..FAILED_AFTER) => "degraded",
            (true, _) => "failed",
        }
    }

    /// Name, reason and notes of its source: as it is now, and before its first heartbeat as it said when it came.
    pub(crate) fn source(&self) -> (&str, &str, &[String]) {
        let told = self.health.as_ref().filter(|health| !health.source.is_empty());
        let said = self.register.capabilities.as_ref();
        match (told, said) {
            (Some(now), _) => (&now.source, &now.source_reason, &now.notes),
            (None, Some(then)) => (&then.source, &then.source_reason, &then.notes),
            (None, None) => ("", "", &[]),
        }
    }

    /// Its state word: the last heartbeat's, else what the connection tells.
    pub(crate) fn state(&self) -> &str {
        match (&self.health, self.connected) {
            (_, false) => "away",
            (Some(health), true) if !health.state.is_empty() => &health.state,
            (_, true) => "registered",
        }
    }
}

/// Every collector that has registered since the worker started.
#[derive(Debug)]
pub(crate) struct Roster {
    collectors: Mutex<BTreeMap<String, Collector>>,
    /// When the worker started, µs since the Unix epoch: since then the expected collector is missing.
    started_us: i64,
    /// The time of the newest event that was stored before.
    newest_us: i64,
    /// The last position of each collector that ingest has taken.
    arrived: Mutex<BTreeMap<String, Sequence>>,
    /// Outages that are in coverage and last: since when, and when the row was written last.
    outages: Mutex<BTreeMap<String, (i64, i64)>>,
}

/// A stretch of an outage, to be written.
#[derive(Debug)]
pub(crate) struct Outage {
    pub(crate) gap: CoverageGap,
    /// The first row of this outage; later ones only make it longer.
    pub(crate) begins: bool,
}

/// A collector that is not connected, since when and why.
#[derive(Debug)]
struct Absent {
    id: String,
    since_us: i64,
    /// How long that may last before it is written down.
    patience_us: i64,
    why: String,
}

fn unavailable(collector: &str, from_us: i64, to_us: i64, detail: String) -> CoverageGap {
    CoverageGap {
        collector: collector.to_owned(),
        reason: "collector_unavailable".to_owned(),
        from_us,
        to_us,
        detail,
        ..CoverageGap::default()
    }
}

/// The collector whose ledger the agent's entries go into: another one keeps a ledger of its own.
fn keeper(collectors: &BTreeMap<String, Collector>) -> Option<(&String, &Collector)> {
    collectors.get_key_value(EXPECTED).or_else(|| collectors.first_key_value())
}

impl Roster {
    /// Nobody has registered; the time runs from now, and the store ends at `newest_us`.
    pub(crate) fn after(newest_us: i64) -> Self {
        Self {
            collectors: Mutex::default(),
            started_us: now_us(),
            newest_us,
            arrived: Mutex::default(),
            outages: Mutex::default(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, Collector>> {
        self.collectors.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// All of them, by id.
    pub(crate) fn all(&self) -> BTreeMap<String, Collector> {
        self.lock().clone()
    }

    /// Whether everything that was captured until now has arrived or is on its way.
    pub(crate) fn is_current(&self) -> bool {
        let collectors = self.lock();
        !collectors.is_empty()
            && collectors
                .values()
                .all(|collector| collector.connected && collector.behind.is_none() && collector.late.is_none())
    }

    /// The connected collector whose ledger takes the agent's audit entries, and the highest outbox id that this had taken when it
    /// registered.
    pub(crate) fn ledger_keeper(&self) -> Option<(String, u64)> {
        let collectors = self.lock();
        let keeper = keeper(&collectors).filter(|(_, collector)| collector.connected);
        keeper.map(|(id, collector)| (id.clone(), collector.register.ledger_outbox_id))
    }

    /// A collector registered. The gap is the time during which nobody captured: only a new process leaves one, the old one
    /// has gone on writing its log.
    pub(crate) fn registered(&self, register: Register) -> Option<CoverageGap> {
        let now = now_us();
        let id = register.collector_id.clone();
        let mut collectors = self.lock();
        let before = collectors.get(&id);
        let since_us = before.map_or(Some(self.newest_us), |before| before.behind.map(|behind| behind.since_us));
        let fresh = Collector {
            behind: since_us.map(|since_us| Behind { since_us, until: None }),
            registered_us: now,
            connected: true,
            health: None,
            last_heartbeat_us: None,
            last_seen: Instant::now(),
            missed: 0,
            away: None,
            pending: None,
            pushdown: None,
            stuck: None,
            late: None,
            register,
        };
        let pid = fresh.register.pid;
        let before = collectors.insert(id.clone(), fresh);
        drop(collectors);
        let written = self.outages.lock().unwrap_or_else(PoisonError::into_inner).remove(&id);
        if let Some((from_us, _)) = written {
            return Some(unavailable(&id, from_us, now, "the collector runs again".to_owned()));
        }
        let before = before?;
        let (from_us, reason) = before.away.filter(|_| before.register.pid != pid)?;
        Some(unavailable(&id, from_us, now, format!("the collector was started again: {reason}")))
    }

    /// What is to be written of outages that last. One that `collects` while it is not connected loses nothing: what it
    /// sees follows when it is back.
    pub(crate) fn outages(&self, now_us: i64, collects: impl Fn() -> bool) -> Vec<Outage> {
        let absent = self.absent();
        let mut written = self.outages.lock().unwrap_or_else(PoisonError::into_inner);
        let mut outages = Vec::new();
        for Absent { id, since_us, patience_us, why } in absent {
            let before = written.get(&id).copied();
            let waited_us = now_us.saturating_sub(before.map_or(since_us, |(_, at_us)| at_us));
            if waited_us < before.map_or(patience_us, |_| OUTAGE_EVERY_US) || collects() {
                continue;
            }
            written.insert(id.clone(), (since_us, now_us));
            let gap = unavailable(&id, since_us, now_us, format!("no collector runs: {why}"));
            outages.push(Outage { gap, begins: before.is_none() });
        }
        outages
    }

    /// How it stands with what the rules need.
    pub(crate) fn pushed(&self, id: &str, pushdown: Pushdown) {
        if let Some(collector) = self.lock().get_mut(id) {
            collector.pushdown = Some(pushdown);
        }
    }

    /// The connected collectors that are told what the rules need: what they announced, and what they can leave empty.
    pub(crate) fn selecting(&self) -> Vec<(String, CollectionCapabilities, Vec<String>)> {
        let collectors = self.lock();
        let told = collectors.iter().filter(|(_, collector)| collector.connected).filter_map(|(id, collector)| {
            let Some(Pushdown::Selected(selected)) = &collector.pushdown else { return None };
            let can = collector.register.capabilities.clone().unwrap_or_default();
            Some((id.clone(), can, selected.optional.clone()))
        });
        told.collect()
    }

    /// Who is not connected, since when and why; the expected one also when it never was.
    fn absent(&self) -> Vec<Absent> {
        let collectors = self.lock();
        let never = (!collectors.contains_key(EXPECTED)).then(|| Absent {
            id: EXPECTED.to_owned(),
            since_us: self.started_us,
            patience_us: FIRST_AFTER_US,
            why: "it has not registered".to_owned(),
        });
        let away = collectors.iter().filter(|(_, collector)| !collector.connected);
        let left = away.filter_map(|(id, collector)| {
            let (since_us, why) = collector.away.clone()?;
            Some(Absent { id: id.clone(), since_us, patience_us: OUTAGE_AFTER_US, why })
        });
        left.chain(never).collect()
    }

    /// The row of the expected collector while it has not registered.
    pub(crate) fn missing(&self) -> Option<CollectorRow> {
        (!self.lock().contains_key(EXPECTED)).then(|| CollectorRow {
            id: EXPECTED.to_owned(),
            collector_type: "process".to_owned(),
            state: "away".to_owned(),
            connected: false,
            behind_since_us: Some(self.newest_us),
            ..CollectorRow::default()
        })
    }

    pub(crate) fn disconnected(&self, id: &str, reason: &str) {
        if let Some(collector) = self.lock().get_mut(id) {
            let now = now_us();
            collector.connected = false;
            collector.away = Some((now, reason.to_owned()));
            let since_us = collector.behind.map_or(now, |behind| behind.since_us);
            collector.behind = Some(Behind { since_us, until: None });
        }
    }

    /// The newest checkpoint of the ledger, as the collector that keeps it told last.
    pub(crate) fn checkpoint(&self) -> Option<String> {
        let collectors = self.lock();
        let health = keeper(&collectors)?.1.health.as_ref()?;
        Some(health.ledger_checkpoint.clone()).filter(|note| !note.is_empty())
    }

    /// Where the ledger lies, as the collector that keeps it told last.
    pub(crate) fn ledger_dir(&self) -> Option<PathBuf> {
        let collectors = self.lock();
        let health = keeper(&collectors)?.1.health.as_ref()?;
        Some(&health.ledger_dir).filter(|dir| !dir.is_empty()).map(PathBuf::from)
    }

    /// What is wrong with the ledger of each collector that has told how it is; empty where it is sound.
    pub(crate) fn ledger_troubles(&self) -> Vec<(String, String)> {
        let collectors = self.lock();
        let told = collectors.iter().filter_map(|(id, collector)| Some((id, collector.health.as_ref()?)));
        told.map(|(id, health)| (id.clone(), health.ledger_trouble.clone())).collect()
    }

    /// What a collector can do as it is now, which may be something else than when it registered.
    pub(crate) fn can(&self, id: &str, capabilities: CollectionCapabilities) {
        if let Some(collector) = self.lock().get_mut(id) {
            collector.register.capabilities = Some(capabilities);
        }
    }

    /// Takes a heartbeat; returns whether another source collects than the one that its capabilities are of.
    pub(crate) fn heartbeat(&self, heartbeat: Heartbeat) -> bool {
        if let Some(collector) = self.lock().get_mut(&heartbeat.collector_id) {
            collector.missed = 0;
            collector.last_seen = Instant::now();
            collector.last_heartbeat_us = Some(now_us());
            let mut health = heartbeat.health.unwrap_or_default();
            health.state = heartbeat.state;
            self.aim(collector, &health);
            let source = collector.register.capabilities.as_ref().map(|can| can.source.as_str());
            let other = source != Some(health.source.as_str());
            collector.health = Some(health);
            return other;
        }
        false
    }

    /// What a collector answered to a health check.
    pub(crate) fn told(&self, id: &str, health: CollectorHealth) {
        if let Some(collector) = self.lock().get_mut(id) {
            self.aim(collector, &health);
            collector.health = Some(health);
        }
    }

    /// The store has everything up to `at` from before.
    pub(crate) fn committed(&self, id: &str, at: Sequence) {
        let now_us = now_us();
        self.arrived(id, at, now_us, now_us);
    }

    /// Ingest has taken everything up to `at`, which was captured at `captured_us`.
    pub(crate) fn arrived(&self, id: &str, at: Sequence, captured_us: i64, now_us: i64) {
        self.arrivals().insert(id.to_owned(), at);
        if let Some(collector) = self.lock().get_mut(id) {
            if collector.behind.is_some_and(|behind| behind.until.is_some_and(|until| until <= at)) {
                collector.behind = None;
            }
            let late_us = now_us.saturating_sub(captured_us);
            collector.late = (late_us > LATE_US).then_some((captured_us, late_us));
        }
    }

    /// Ingest has nothing left to take.
    pub(crate) fn nothing_waits(&self) {
        self.lock().values_mut().for_each(|collector| collector.late = None);
    }

    /// The first health report after a registration tells how far the stream reaches that is to be repeated.
    fn aim(&self, collector: &mut Collector, health: &CollectorHealth) {
        let Some(behind) = collector.behind.filter(|behind| collector.connected && behind.until.is_none()) else {
            return;
        };
        let arrived = self.arrivals().get(&collector.register.collector_id).copied();
        let ahead = health.last.filter(|last| arrived.is_none_or(|at| at < *last));
        collector.behind = ahead.map(|last| Behind { until: Some(last), ..behind });
    }

    fn arrivals(&self) -> MutexGuard<'_, BTreeMap<String, Sequence>> {
        self.arrived.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether everything that a collector had captured when it registered is here.
    pub(crate) fn is_caught_up(&self, id: &str) -> bool {
        self.lock().get(id).is_none_or(|collector| collector.behind.is_none())
    }

    /// Notices collectors that go on recording while nothing of it is committed. `seal_after` is how long events gather before they
    /// are, at most.
    pub(crate) fn notice_commits(
        &self,
        committed: impl Fn(&str) -> Option<Sequence>,
        seal_after: Duration,
        now: Instant,
    ) {
        for (id, collector) in self.lock().iter_mut() {
            let done = committed(id);
            let last = collector.health.as_ref().and_then(|health| health.last);
            let waits = collector.connected && last > done;
            let before = collector.pending.filter(|pending| pending.committed == done);
            collector.pending = waits.then(|| before.unwrap_or(Pending { committed: done, since: now }));
            let waited = collector.pending.map(|pending| now.duration_since(pending.since));
            collector.stuck = waited.filter(|waited| *waited > seal_after.saturating_add(COMMIT_PATIENCE));
        }
    }

    /// Counts missing heartbeats; returns those that have just failed, each once.
    pub(crate) fn overdue(&self, interval: Duration, now: Instant) -> Vec<String> {
        let mut failed = Vec::new();
        for (id, collector) in self.lock().iter_mut().filter(|(_, collector)| collector.connected) {
            // The first interval is the heartbeat's own time.
            let intervals = now.duration_since(collector.last_seen).as_nanos() / interval.as_nanos().max(1);
            let missed = u32::try_from(intervals.saturating_sub(1)).unwrap_or(u32::MAX);
            if missed >= FAILED_AFTER && collector.missed < FAILED_AFTER {
                failed.push(id.clone());
            }
            collector.missed = missed;
        }
        failed
    }
}

/// A row of the SQL table `collectors`.
pub(crate) fn row(id: String, collector: &Collector, restarts: u32) -> CollectorRow {
    let health = collector.health.clone().unwrap_or_default();
    let (source, source_reason, _) = collector.source();
    CollectorRow {
        id,
        collector_type: collector.register.collector_type.clone(),
        state: collector.state().to_owned(),
        connected: collector.connected,
        behind_since_us: collector.behind_since_us(),
        version: collector.register.version.clone(),
        pid: Some(collector.register.pid),
        source: source.to_owned(),
        source_reason: source_reason.to_owned(),
        registered_us: Some(collector.registered_us),
        last_heartbeat_us: collector.last_heartbeat_us,
        cycles: health.cycles,
        events: health.events,
        errors: health.errors,
        processes: health.processes,
        lost: health.lost,
        restarts,
        pushdown: collector.pushdown.as_ref().map(ToString::to_string),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn register(pid: u32) -> Register {
        Register { collector_id: "procmond".into(), pid, ..Register::default() }
    }

    #[test]
    fn the_table_shows_the_source_that_runs_now() {
        let roster = Roster::after(0);
        roster.registered(register(1));
        let health = CollectorHealth {
            source: "procfs".to_owned(),
            source_reason: "its better has failed".to_owned(),
            ..CollectorHealth::default()
        };
        roster.told("procmond", health);
        let row = row("procmond".to_owned(), &roster.all()["procmond"], 0);
        assert_eq!((row.source.as_str(), row.source_reason.as_str()), ("procfs", "its better has failed"));
    }

    #[test]
    fn a_collector_that_goes_on_with_another_source_is_asked_what_it_can_do_now() {
        let roster = Roster::after(0);
        let of = |source: &str| CollectionCapabilities { source: source.to_owned(), ..Default::default() };
        let beat = |source: &str| {
            let health = Some(CollectorHealth { source: source.to_owned(), ..CollectorHealth::default() });
            roster.heartbeat(Heartbeat { collector_id: "procmond".into(), health, ..Heartbeat::default() })
        };
        roster.registered(Register { capabilities: Some(of("ebpf")), ..register(1) });
        assert!(!beat("ebpf"));
        assert!(beat("proc-connector"));
        roster.can("procmond", of("proc-connector"));
        assert!(!beat("proc-connector"));
    }

    #[test]
    fn three_missed_heartbeats_fail_a_collector_once_and_one_heals_it() {
        let roster = Roster::after(0);
        roster.registered(register(1));
        let interval = Duration::from_secs(30);
        let start = Instant::now();
        assert!(roster.overdue(interval, start + Duration::from_secs(59)).is_empty());
        assert_eq!(roster.all()["procmond"].standing(), "healthy");
        assert!(roster.overdue(interval, start + Duration::from_secs(61)).is_empty());
        assert_eq!(roster.all()["procmond"].standing(), "degraded");
        assert_eq!(roster.overdue(interval, start + Duration::from_secs(130)), ["procmond"]);
        assert!(roster.overdue(interval, start + Duration::from_secs(160)).is_empty(), "said once");
        roster.heartbeat(Heartbeat { collector_id: "procmond".into(), ..Heartbeat::default() });
        assert_eq!(roster.all()["procmond"].standing(), "healthy");
    }

    #[test]
    fn a_collector_that_goes_on_while_nothing_is_committed_is_degraded_until_it_moves() {
        let (roster, start) = (Roster::after(0), Instant::now());
        roster.registered(register(1));
        let seal_after = Duration::from_secs(60);
        let after = |seconds, last, committed| {
            let last = Some(Sequence::new(1, last));
            roster.told("procmond", CollectorHealth { last, ..CollectorHealth::default() });
            let committed = Some(Sequence::new(1, committed));
            roster.notice_commits(|_| committed, seal_after, start + Duration::from_secs(seconds));
            let collector = roster.all().remove("procmond").unwrap();
            (collector.standing(), collector.stuck.map(|stuck| stuck.as_secs()))
        };
        assert_eq!(after(0, 10, 10), ("healthy", None));
        assert_eq!(after(500, 10, 10), ("healthy", None), "nothing happens, and nothing waits");
        assert_eq!(after(510, 20, 10), ("healthy", None));
        assert_eq!(after(630, 30, 10), ("healthy", None), "a seal may take so long");
        assert_eq!(after(631, 31, 10), ("degraded", Some(121)));
        assert_eq!(after(700, 99, 10), ("degraded", Some(190)));
        assert_eq!(after(701, 99, 98), ("healthy", None), "it moves, though not everything is committed");
        roster.disconnected("procmond", "hung up");
        assert_eq!(after(900, 99, 98), ("away", None));
    }

    #[test]
    fn an_outage_is_written_while_it_lasts_and_ends_when_the_collector_is_back() {
        let roster = Roster::after(0);
        let start = roster.started_us;
        assert_eq!(roster.missing().map(|row| (row.id, row.connected)), Some(("procmond".to_owned(), false)));
        assert!(roster.outages(start + 9_000_000, || false).is_empty(), "a start in order");
        assert!(roster.outages(start + 13_000_000, || true).is_empty(), "it collects; the events follow");
        let first = roster.outages(start + 13_000_000, || false);
        assert!(first[0].begins);
        assert_eq!((first[0].gap.from_us, first[0].gap.to_us), (start, start + 13_000_000));
        assert!(roster.outages(start + 14_000_000, || false).is_empty(), "written a moment ago");
        let later = roster.outages(start + 18_000_000, || false);
        assert!(!later[0].begins);
        assert_eq!(later[0].gap.from_us, start);
        let last = roster.registered(register(1)).unwrap();
        assert_eq!(last.from_us, start);
        assert!(roster.missing().is_none());
        assert!(roster.outages(start + 30_000_000, || false).is_empty());

        roster.disconnected("procmond", "hung up");
        let second = roster.outages(now_us() + 3_000_000, || false);
        assert!(second[0].begins);
        assert!(second[0].gap.from_us >= last.to_us);
        assert!(roster.registered(register(1)).is_some(), "what is in coverage is closed, whoever comes back");
    }

    #[test]
    fn only_a_new_process_leaves_a_gap() {
        let roster = Roster::after(0);
        assert!(roster.registered(register(1)).is_none());
        roster.disconnected("procmond", "hung up");
        assert!(roster.registered(register(1)).is_none(), "it went on collecting");
        roster.disconnected("procmond", "hung up");
        let gap = roster.registered(register(2)).unwrap();
        assert_eq!(gap.reason, "collector_unavailable");
        assert!(gap.to_us >= gap.from_us);
    }

    #[test]
    fn events_that_are_taken_late_are_told_until_nothing_waits() {
        let roster = Roster::after(0);
        roster.registered(register(1));
        roster.registered(register(1));
        roster.told("procmond", CollectorHealth::default());
        let behind = || row("p".into(), &roster.all()["procmond"], 0).behind_since_us;
        let second = 1_000_000;
        roster.arrived("procmond", Sequence::new(1, 1), second, 2 * second);
        assert_eq!((behind(), roster.is_current()), (None, true));
        roster.arrived("procmond", Sequence::new(1, 2), 2 * second, 9 * second);
        assert_eq!((behind(), roster.is_current()), (Some(2 * second), false));
        assert_eq!(roster.all()["procmond"].late, Some((2 * second, 7 * second)));
        roster.arrived("procmond", Sequence::new(1, 3), 8 * second, 10 * second);
        assert_eq!(behind(), None);
        roster.arrived("procmond", Sequence::new(1, 4), 8 * second, 20 * second);
        roster.nothing_waits();
        assert_eq!((behind(), roster.is_current()), (None, true), "one that came late by itself");
    }

    #[test]
    fn a_collector_that_is_back_is_behind_until_what_it_had_then_has_arrived() {
        let told = |number| CollectorHealth { last: Some(Sequence::new(1, number)), ..CollectorHealth::default() };
        let behind = |roster: &Roster| row("p".into(), &roster.all()["procmond"], 0).behind_since_us;
        let roster = Roster::after(70);
        assert_eq!(roster.missing().and_then(|row| row.behind_since_us), Some(70));
        roster.arrived("procmond", Sequence::new(1, 5), 0, 0);
        roster.registered(register(1));
        assert_eq!(behind(&roster), Some(70), "what was captured while no agent ran");
        roster.told("procmond", told(7));
        roster.told("procmond", told(900));
        roster.arrived("procmond", Sequence::new(1, 6), 0, 0);
        assert!(!roster.is_caught_up("procmond"));
        roster.arrived("procmond", Sequence::new(1, 7), 0, 0);
        assert!(roster.is_caught_up("procmond"), "what came later is not waited for");

        roster.disconnected("procmond", "hung up");
        let since = behind(&roster).unwrap();
        roster.told("procmond", told(7));
        assert_eq!(behind(&roster), Some(since), "an answer from before it left says nothing");
        roster.registered(register(1));
        assert_eq!(behind(&roster), Some(since), "it was connected to nobody and captured all the same");
        roster.told("procmond", told(7));
        assert_eq!(behind(&roster), None);
    }
}
