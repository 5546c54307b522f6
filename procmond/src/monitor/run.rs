//! One run of the process source: the task that joins announcements and snapshots and writes what follows.
//!
//! A snapshot's findings are judged when everything announced before its end has been taken, so nothing is told twice,
//! whoever saw it first.

mod kernel;

use std::sync::Arc;
use std::time::Duration;

use collector_core::SourceError;
use collector_core::source::SourceContext;
use tokio::task::JoinHandle;
use tokio::time::Instant;

use self::kernel::Pulse;
#[cfg(test)]
pub(super) use self::kernel::SILENT_LOOKS;
use super::reader::{Heard, Reader};
use super::watch::{lock, now_us};
use super::{ProcessMonitor, recall_percent};
use crate::collector::{CollectionStats, ProcessCollectionError, Sighting};
use crate::sources::native;
use crate::tracker::{Counters, Input};

/// Announcements taken between two writes: their events are about 1 MiB.
const BATCH: usize = 512;

/// How long what was announced before the end of a scan may take to arrive; past it, nobody is taken for ended.
const FENCE: Duration = Duration::from_secs(10);

/// How soon a snapshot heals what was lost: soon, but a storm of losses must not become a storm of scans.
const HEAL: Duration = Duration::from_secs(5);

/// How often losses are told while they go on: one coverage row each time.
const TELL: Duration = Duration::from_secs(1);

/// How long the write-down of the tracker's state waits for the log, and then for the disk, while announcements queue up.
const KEEP_UP: Duration = Duration::from_millis(200);

type Outcome = Result<CollectionStats, ProcessCollectionError>;

/// How far the snapshot is.
enum Look {
    Idle,
    Scanning(JoinHandle<Outcome>),
    /// What was announced before its end is awaited.
    Fenced {
        number: u64,
        until: Instant,
        complete: bool,
    },
    Settling,
}

/// Losses that are not told yet.
struct Losses {
    /// As the source counts them.
    total: u64,
    untold: u64,
    /// When the first of them may have been.
    since_us: i64,
    told_at: Option<Instant>,
}

/// While nothing is to be collected, announcements are taken and dropped: kept, they would fill the kernel's buffer and read as
/// a loss.
struct Pause {
    since_us: i64,
    /// Dropped before it.
    unheard: u64,
}

pub(super) struct Run<'a> {
    monitor: &'a ProcessMonitor,
    context: SourceContext,
    reader: Option<Reader>,
    pause: Option<Pause>,
    /// No snapshot has begun since the last pause.
    resumed: bool,
    look: Look,
    /// When the last snapshot began, and by the wall clock.
    looked: Option<(Instant, i64)>,
    /// When the one before it did, by the wall clock.
    looked_before_us: Option<i64>,
    pulse: Pulse,
    /// The next one is to heal.
    hurry: bool,
    losses: Losses,
    /// At the end of the last snapshot.
    counted: Counters,
}

impl<'a> Run<'a> {
    pub(super) fn new(monitor: &'a ProcessMonitor, context: SourceContext) -> Self {
        let losses = Losses { total: 0, untold: 0, since_us: 0, told_at: None };
        let counted = lock(&monitor.watch).tracker.counters();
        Self {
            monitor,
            context,
            reader: None,
            pause: None,
            resumed: false,
            look: Look::Idle,
            looked: None,
            looked_before_us: None,
            pulse: Pulse::new(now_us()),
            hurry: false,
            losses,
            counted,
        }
    }

    pub(super) async fn go(mut self) -> Result<(), SourceError> {
        let idle_since_us = lock(&self.monitor.station).idle_since_us;
        // Before the baseline: who starts while it is taken is announced.
        match self.take_kernel().await {
            Some(kernel) => self.listen(kernel, idle_since_us)?,
            None if lock(&self.monitor.seen).kernel => {
                self.fall_back("its reader has not come back from an earlier run".to_owned(), idle_since_us).await?;
            }
            None => {}
        }
        let mut heard = Vec::new();
        loop {
            let collecting = !self.heed_pause();
            if collecting {
                self.write().await?;
            }
            let look_again = lock(&self.monitor.watch).looks.due();
            let (wake, settling) = (self.wake(), collecting && matches!(self.look, Look::Settling));
            tokio::select! {
                () = self.context.shutdown.cancelled() => return self.end(heard).await,
                () = hear(&mut self.reader, &mut heard) => self.take(&mut heard).await?,
                outcome = scanned(&mut self.look) => self.on_scan(outcome),
                () = self.monitor.stirred.notified() => {}
                changed = self.context.settings.changed() => if changed.is_err() { return self.end(heard).await },
                () = at(wake), if wake.is_some() => self.on_time().await?,
                () = at(look_again), if look_again.is_some() => self.look_again(),
                () = std::future::ready(()), if settling => self.settle().await?,
            }
        }
    }

    /// Whether nothing is to be collected now.
    fn heed_pause(&mut self) -> bool {
        let paused = self.context.settings.borrow().paused;
        let unheard = lock(&self.monitor.seen).unheard;
        match (paused, self.pause.take()) {
            (true, before) => self.pause = before.or_else(|| Some(Pause { since_us: now_us(), unheard })),
            (false, Some(pause)) => {
                let detail = "collection was paused; a snapshot tells who has come and gone since".to_owned();
                let count = self.reader.is_some().then(|| unheard.saturating_sub(pause.unheard));
                lock(&self.monitor.watch).tell_gap("paused", pause.since_us, count, detail);
                self.looked = None;
                self.resumed = true;
            }
            (false, None) => {}
        }
        paused
    }

    /// Writes what the tracker has come to.
    async fn write(&mut self) -> Result<(), SourceError> {
        self.tell_losses(false);
        let events = lock(&self.monitor.watch).take_events();
        if !events.is_empty() {
            let last = self.context.events.emit(events).await?;
            lock(&self.monitor.watch).wrote(last);
        }
        Ok(())
    }

    async fn take(&mut self, heard: &mut Vec<Heard>) -> Result<(), SourceError> {
        match self.absorb(heard) {
            Some(why) => {
                let since_us = self.looked.map_or_else(now_us, |(_, at)| at);
                self.fall_back(why, since_us).await
            }
            None => Ok(()),
        }
    }

    /// Hands to the tracker what was heard; returns why the source has died, if it has.
    fn absorb(&mut self, heard: &mut Vec<Heard>) -> Option<String> {
        let mut died = None;
        let (paused, mut unheard) = (self.heed_pause(), 0u64);
        if heard.iter().any(|one| matches!(one, Heard::Notice(_) | Heard::Lost { .. })) {
            (self.pulse.heard, self.pulse.heard_us) = (true, now_us());
        }
        {
            let mut watch = lock(&self.monitor.watch);
            for one in heard.drain(..) {
                match one {
                    Heard::Notice(_) if paused => unheard = unheard.saturating_add(1),
                    Heard::Notice(notice) => watch.hear(notice),
                    Heard::Died(why) => died = Some(why),
                    Heard::Lost { total, since_us } => {
                        if self.losses.untold == 0 {
                            self.losses.since_us = since_us;
                        }
                        let more = total.saturating_sub(std::mem::replace(&mut self.losses.total, total));
                        self.losses.untold = self.losses.untold.saturating_add(more);
                        self.hurry = true;
                    }
                    Heard::Fence(answered) => {
                        if let Look::Fenced { number, complete, .. } = self.look
                            && number == answered
                        {
                            watch.apply(Input::End { complete });
                            self.look = Look::Settling;
                        }
                    }
                }
            }
        }
        if unheard > 0 {
            let mut seen = lock(&self.monitor.seen);
            seen.unheard = seen.unheard.saturating_add(unheard);
        }
        died
    }

    /// When something has to be done although nothing happens.
    fn wake(&self) -> Option<Instant> {
        match self.look {
            Look::Idle => self.due(),
            Look::Fenced { until, .. } => Some(until),
            Look::Scanning(_) | Look::Settling => None,
        }
    }

    fn due(&self) -> Option<Instant> {
        let settings = self.context.settings.borrow();
        if settings.paused {
            return None;
        }
        let Some((looked, _)) = self.looked else { return Some(Instant::now()) };
        let interval = self.interval(settings.interval);
        Some(looked + if self.hurry { interval.min(HEAL) } else { interval })
    }

    fn interval(&self, wanted: Duration) -> Duration {
        let pace = self.monitor.pace;
        if self.reader.is_none() && wanted == pace.beside_kernel { pace.alone } else { wanted }
    }

    async fn on_time(&mut self) -> Result<(), SourceError> {
        if matches!(self.look, Look::Fenced { .. }) {
            tracing::warn!("announcements are late by {FENCE:?}; who has ended is told by the next snapshot");
            let mut watch = lock(&self.monitor.watch);
            watch.tracker.overtake();
            watch.apply(Input::End { complete: false });
            drop(watch);
            self.look = Look::Settling;
            return Ok(());
        }
        self.keep_up().await;
        self.hurry = false;
        let time_us = now_us();
        self.looked_before_us = self.looked.replace((Instant::now(), time_us)).map(|(_, at)| at);
        let interval = self.interval(self.context.settings.borrow().interval);
        {
            let mut seen = lock(&self.monitor.seen);
            (seen.scanning, seen.every) = (Some(Instant::now()), Some(interval));
        }
        let resumed = std::mem::take(&mut self.resumed);
        let (watch, table) = (Arc::clone(&self.monitor.watch), Arc::clone(&self.monitor.table));
        let stirred = Arc::clone(&self.monitor.stirred);
        self.look = Look::Scanning(tokio::task::spawn_blocking(move || {
            let mut table = lock(&table);
            let (unknown, door) = {
                let mut watch = lock(&watch);
                if resumed {
                    watch.tracker.excuse();
                }
                watch.apply(Input::Begin { time_us });
                (watch.tracker.take_unknown(), Arc::clone(&watch.door))
            };
            table.forget(&unknown);
            table.collect_processes(&mut |sighting| {
                let looked = match &sighting {
                    Sighting::Read(record, _) => door.look(record),
                    _ => None,
                };
                if lock(&watch).see(sighting, looked) {
                    stirred.notify_one();
                }
            })
        }));
        Ok(())
    }

    /// Asks the kernel for the executables of those that were announced a moment ago. It has the answer at hand, whatever file
    /// system they come from, so the threads that ask do not pile up.
    fn look_again(&self) {
        let pids = lock(&self.monitor.watch).take_looks();
        if pids.is_empty() {
            return;
        }
        let (watch, stirred) = (Arc::clone(&self.monitor.watch), Arc::clone(&self.monitor.stirred));
        tokio::task::spawn_blocking(move || {
            let mut gone = pids.into_iter().filter_map(|pid| Some((pid, native::deleted_executable(pid)?))).peekable();
            if gone.peek().is_none() {
                return;
            }
            for (pid, executable_path) in gone {
                lock(&watch).apply(Input::Deleted { pid, executable_path, time_us: now_us() });
            }
            stirred.notify_one();
        });
    }

    /// Everything heard so far is in the log, so the state may be written down.
    async fn keep_up(&self) {
        if !lock(&self.monitor.watch).is_behind() || !self.monitor.settle(None, KEEP_UP).await {
            return;
        }
        // One that takes longer goes on by itself.
        let written = tokio::time::timeout(KEEP_UP, self.monitor.write_down(None)).await;
        if let Ok(Err(error)) = written {
            tracing::warn!(%error, "the log is replayed from an older checkpoint after a kill");
        }
    }

    fn on_scan(&mut self, outcome: Outcome) {
        let hiding = outcome.as_ref().is_ok_and(|stats| stats.hiding);
        // Where nobody announces, the tracker knows only what the table lists.
        let complete = outcome.is_ok() && !(hiding && self.reader.is_some());
        {
            let mut seen = lock(&self.monitor.seen);
            seen.scanning = None;
            seen.cycles = seen.cycles.saturating_add(1);
            seen.errors = seen.errors.saturating_add(u64::from(outcome.is_err()));
            seen.failure = outcome.as_ref().err().map(ToString::to_string);
            seen.stats = outcome.as_ref().copied().unwrap_or(seen.stats);
        }
        if let Err(error) = &outcome {
            tracing::warn!(%error, "a scan failed");
        }
        if let Some(reader) = &self.reader {
            self.look = Look::Fenced { number: reader.ask(), until: Instant::now() + FENCE, complete };
        } else {
            lock(&self.monitor.watch).apply(Input::End { complete });
            self.look = Look::Settling;
        }
    }

    async fn settle(&mut self) -> Result<(), SourceError> {
        let Some(missed) = self.missed() else { return Ok(()) };
        if self.pulse.settle(missed) && self.reader.is_some() {
            return self.fall_back("it announces nothing any more".to_owned(), self.pulse.heard_us).await;
        }
        Ok(())
    }

    /// Starts the next of those that a snapshot has found; how many nobody had announced, when these were all.
    fn missed(&mut self) -> Option<u64> {
        let mut watch = lock(&self.monitor.watch);
        if watch.proceed() {
            return None;
        }
        self.look = Look::Idle;
        let now = watch.tracker.counters();
        let before = std::mem::replace(&mut self.counted, now);
        let missed = now.missed.saturating_sub(before.missed);
        if missed > 0 {
            let recall = recall_percent(now.announced.saturating_sub(before.announced), missed);
            let detail = format!(
                "a snapshot found starts that nobody announced; recall {recall:.2} percent, without what the kernel lost"
            );
            // What was missed began after the snapshot before, which would have found it.
            let since = self.looked_before_us.or(self.looked.map(|(_, at)| at)).unwrap_or_else(now_us);
            watch.tell_gap("announcements_missed", since, Some(missed), detail);
        }
        drop(watch);
        lock(&self.monitor.seen).swept = true;
        Some(missed)
    }

    fn tell_losses(&mut self, last: bool) {
        let quiet = self.losses.told_at.is_none_or(|at| at.elapsed() >= TELL);
        if self.losses.untold == 0 || !(quiet || last) {
            return;
        }
        let (count, since) = (std::mem::take(&mut self.losses.untold), self.losses.since_us);
        self.losses.told_at = Some(Instant::now());
        let mut seen = lock(&self.monitor.seen);
        seen.lost = seen.lost.saturating_add(count);
        let detail = format!("{}: the kernel's buffer was full", seen.source);
        lock(&self.monitor.watch).tell_gap("kernel_lost", since, Some(count), detail);
    }

    /// What was seen before the end is still written, and the source waits for the next run.
    async fn end(mut self, mut heard: Vec<Heard>) -> Result<(), SourceError> {
        if let Some(reader) = self.reader.take() {
            let kernel = reader.end(&mut heard).await;
            let mut station = lock(&self.monitor.station);
            station.kernel = kernel;
            station.idle_since_us = now_us();
        }
        // A source that has died meanwhile says so again in the next run.
        self.absorb(&mut heard);
        if let Look::Scanning(scan) = &mut self.look {
            // One scan at most; the runtime cuts off a longer one.
            scan.await.ok();
        }
        self.tell_losses(true);
        self.write().await
    }
}

async fn hear(reader: &mut Option<Reader>, heard: &mut Vec<Heard>) {
    let Some(reader) = reader else { return std::future::pending().await };
    if reader.hear(heard, BATCH).await == 0 {
        heard.push(Heard::Died("the thread that listened to it has ended without a word".to_owned()));
    }
}

async fn scanned(look: &mut Look) -> Outcome {
    let Look::Scanning(scan) = look else { return std::future::pending().await };
    scan.await.unwrap_or_else(|error| {
        let reason = format!("the scan thread ended: {error}");
        Err(ProcessCollectionError::PlatformError { source_name: "snapshot", reason })
    })
}

async fn at(wake: Option<Instant>) {
    match wake {
        Some(wake) => tokio::time::sleep_until(wake).await,
        None => std::future::pending().await,
    }
}
