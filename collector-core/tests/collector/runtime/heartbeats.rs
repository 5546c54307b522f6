//! The heartbeat entries of a real run, and what is proven of a time with them.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use collector_core::ledger::{Draft, Ledger, LedgerOptions};
use collector_core::testing::FakeSource;
use collector_core::wal::SyncMode;
use collector_core::{CollectorError, Runtime, Stopped};
use daemoneye_lib::ledger::heartbeat::{HEARTBEAT, HEARTBEAT_INTERVAL, HeartbeatEntry};
use daemoneye_lib::ledger::note::VerifierKey;
use daemoneye_lib::ledger::notes::{StoredCheckpoints, keys_file};
use daemoneye_lib::ledger::proof::{Gap, Period, Proof, Target, Told};
use daemoneye_lib::ledger::tiles::StoredTree;
use daemoneye_lib::ledger::tree::TreeHash;
use daemoneye_lib::ledger::{LedgerFiles, LedgerRecord, verify_dir};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::support::{events, until};
use crate::tree::tree_options;

/// A collector without an agent, whose ledger is signed.
struct Run {
    stop: CancellationToken,
    running: JoinHandle<Result<Stopped, CollectorError>>,
    source: Arc<FakeSource>,
}

impl Run {
    async fn start(dir: &Path) -> Self {
        Self::begin(dir, HEARTBEAT_INTERVAL).await
    }

    async fn begin(dir: &Path, heartbeat: Duration) -> Self {
        let (source, stop) = (FakeSource::new(), CancellationToken::new());
        let collector = Runtime::builder("test", "fake", dir)
            .triggerable(Arc::clone(&source))
            .wal(16 * 1024, 1024 * 1024, SyncMode::Group)
            .ledger_segment_bytes(4 * 1024)
            .ledger_heartbeat(heartbeat)
            .ledger_tree(tree_options(&dir.join("keys")));
        let before = beats(dir).len();
        let running = tokio::spawn(collector.run(stop.clone()));
        until("the begin", async || beats(dir).len() > before).await;
        Self { stop, running, source }
    }

    async fn stop(self) {
        self.stop.cancel();
        self.running.await.unwrap().unwrap();
    }
}

/// The clock of the programs goes on by so much; that of the entries does not, so their times are milliseconds.
async fn pass(time: Duration) {
    tokio::time::pause();
    tokio::time::advance(time).await;
    tokio::time::resume();
}

/// Lets a minute go by and waits for what it leaves.
async fn minute(dir: &Path) -> HeartbeatEntry {
    let before = beats(dir);
    let begin = before.last().unwrap().to_ms;
    until("a later millisecond", async || jiff_ms() > begin + 1).await;
    pass(HEARTBEAT_INTERVAL - Duration::from_secs(10)).await;
    assert_eq!(beats(dir).len(), before.len(), "too early");
    pass(Duration::from_secs(11)).await;
    until("a heartbeat", async || beats(dir).len() > before.len()).await;
    beats(dir).pop().unwrap()
}

fn jiff_ms() -> i64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    i64::try_from(since.as_millis()).unwrap()
}

fn beats(dir: &Path) -> Vec<HeartbeatEntry> {
    let audit = dir.join("audit");
    if !audit.exists() {
        return Vec::new();
    }
    let entries = LedgerFiles::open(&audit).unwrap().from(0).unwrap().map(Result::unwrap);
    let beats = entries.filter(|record| record.entry.action == HEARTBEAT);
    beats.map(|record| HeartbeatEntry::read(&record.payload).unwrap()).collect()
}

/// What a stranger is told of a time, who has the file and the key.
fn told(dir: &Path, from_ms: i64, to_ms: i64) -> Told {
    let audit = dir.join("audit");
    let newest = StoredCheckpoints::read(&audit).unwrap().newest.unwrap();
    let size = newest.checkpoint.size;
    let mut tree = StoredTree::open(&audit, TreeHash::Sha256, size).unwrap();
    let period = Period { from_ms, to_ms };
    let run = period.entries(&LedgerFiles::open(&audit).unwrap(), size).unwrap();
    let mut proof = Proof::new(Target::Period(period), TreeHash::Sha256, newest.note, Vec::new());
    proof.set_run(run, size, &mut tree).unwrap();
    let key: VerifierKey = std::fs::read_to_string(keys_file(&audit)).unwrap().trim().parse().unwrap();
    Proof::of_file(&proof.to_file()).unwrap().verify(&key).unwrap().told.unwrap()
}

#[tokio::test]
async fn heartbeats_join_until_a_stop_and_time_that_nobody_watched_is_no_silence() {
    let home = tempfile::tempdir().unwrap();
    let dir = home.path();
    let run = Run::start(dir).await;
    let quiet = minute(dir).await;
    let still = minute(dir).await;
    run.source.feed(events(0..5)).await;
    until("the range", async || {
        let entries = LedgerFiles::open(&dir.join("audit")).unwrap().from(0).unwrap().map(Result::unwrap);
        entries.into_iter().any(|record| record.entry.action == "event-range")
    })
    .await;
    let busy = minute(dir).await;
    run.stop().await;
    let first = beats(dir);
    let run = Run::start(dir).await;
    let again = minute(dir).await;
    run.stop().await;
    verify_dir(&dir.join("audit"), |_| {}).unwrap();

    let all = beats(dir);
    let states = first.iter().map(|beat| beat.state.as_str());
    assert_eq!(states.collect::<Vec<_>>(), ["waiting_for_agent", "running", "running", "running", "running"]);
    assert!(first.windows(2).all(|pair| pair[0].to_ms == pair[1].from_ms && pair[1].fits(&pair[0])), "{first:?}");
    assert_eq!(first.iter().map(|beat| beat.events).collect::<Vec<_>>(), [0, 0, 0, 5, 0]);
    let (stopped, started) = (first.last().unwrap().to_ms, all[first.len()].from_ms);
    assert!(stopped <= started && again.state == "running", "{all:?}");

    let around = told(dir, quiet.from_ms, still.to_ms);
    assert_eq!((around.heartbeats, around.events), (2, 0), "{around:?}");
    let waited = around.gaps.iter().any(|gap| gap.why.contains("waiting_for_agent") && gap.to_ms <= quiet.from_ms);
    assert!(waited && !around.is_silence(), "less than a minute before it nobody watched: {around:?}");
    let found = told(dir, quiet.from_ms, busy.to_ms);
    assert_eq!((found.is_silence(), found.events, found.gaps.len()), (false, 5, 0), "{found:?}");
    assert!(found.ranges > 0);
    let over = told(dir, quiet.from_ms, again.to_ms);
    let gap = Gap { from_ms: stopped, to_ms: started, why: "the collector was stopped".into() };
    assert!(over.gaps.contains(&gap), "{over:?}");
    let waited = over.gaps.iter().filter(|gap| gap.why.contains("waiting_for_agent")).count();
    assert_eq!((over.gaps.len(), waited), (2, 1), "{over:?}");
    let end = all.last().unwrap().to_ms;
    let behind = told(dir, quiet.from_ms, end + 60_000).gaps.pop().unwrap();
    assert_eq!((behind.from_ms, behind.to_ms), (end, end + 60_000), "what is behind the end is not shown");
}

#[tokio::test]
async fn silence_is_proven_once_there_is_a_heartbeat_on_either_side_and_an_event_there_ends_it() {
    let home = tempfile::tempdir().unwrap();
    let dir = home.path();
    let run = Run::begin(dir, Duration::from_secs(1)).await;
    let mut silent = None;
    // A machine that is busy leaves longer intervals, which show nothing.
    until("silence", async || {
        let found = beats(dir)
            .into_iter()
            .rev()
            .find(|beat| beat.state == "running" && told(dir, beat.from_ms, beat.to_ms).is_silence());
        silent = found.or(silent.take());
        silent.is_some()
    })
    .await;
    let silent = silent.unwrap();
    assert_eq!((silent.announced, silent.every_ms, silent.look_ms), (Some(true), Some(1_000), Some(5_000)));
    let clock = silent.clock.clone().unwrap();
    assert!(clock.twice.is_empty() && clock.highest_ms == silent.to_ms, "{clock:?}");
    run.source.feed(events(0..5)).await;
    until("the events", async || beats(dir).iter().any(|beat| beat.events > 0)).await;
    run.stop().await;
    let busy = beats(dir).into_iter().find(|beat| beat.events > 0).unwrap();
    assert!(!told(dir, busy.from_ms - 500, busy.from_ms).is_silence(), "an event is written after it happened");
    assert!(told(dir, silent.from_ms, silent.to_ms).is_silence(), "also with what came later");
}

#[tokio::test]
async fn a_ledger_that_is_not_signed_any_more_is_told_in_health() {
    let house = super::house::House::new();
    let keys = house.data().join("keys");
    for lost in [false, true] {
        let broker = house.broker().await;
        let stop = CancellationToken::new();
        if lost {
            std::fs::remove_file(keys.join("audit.seed")).unwrap();
        }
        let collector = house.collector().ledger_tree(tree_options(&keys));
        let running = tokio::spawn(collector.run(stop.clone()));
        until("connected", async || broker.connected().contains(&"test".to_owned())).await;
        let told = super::house::health(&broker).await.ledger_trouble;
        assert_eq!(told.contains("the seed"), lost, "{told}");
        stop.cancel();
        running.await.unwrap().unwrap();
        broker.shutdown().await;
    }
}

#[tokio::test]
async fn a_pause_ends_an_interval_and_nobody_is_said_to_have_watched_it() {
    let house = super::house::House::new();
    let (broker, running, stop) = house.begun().await;
    super::house::ask(&broker, daemoneye_lib::proto::collector_request::Verb::Pause(Default::default()))
        .await
        .unwrap();
    super::house::ask(&broker, daemoneye_lib::proto::collector_request::Verb::Resume(Default::default()))
        .await
        .unwrap();
    stop.cancel();
    running.await.unwrap().unwrap();
    broker.shutdown().await;
    let beats = beats(&house.data());
    let states: Vec<&str> = beats.iter().map(|beat| beat.state.as_str()).collect();
    assert_eq!(states, ["waiting_for_agent", "running", "paused", "running"]);
    assert!(beats.windows(2).all(|pair| pair[0].to_ms == pair[1].from_ms), "{beats:?}");
    assert!(beats[2].blind().is_some() && beats[1].blind().is_none());
}

#[tokio::test]
async fn a_source_that_does_not_answer_leaves_its_counters_where_they_were() {
    let home = tempfile::tempdir().unwrap();
    let dir = home.path();
    let run = Run::start(dir).await;
    run.source.feed(events(0..5)).await;
    let counted = |beat: &HeartbeatEntry| (beat.lost, beat.errors, beat.cycles);
    until("a minute with the look", async || minute(dir).await.cycles == 1).await;
    run.source.fall_silent(true);
    let silent = minute(dir).await;
    assert!(!silent.trouble.is_empty() && counted(&silent) == (0, 0, 0), "{silent:?}");
    run.source.feed(events(5..9)).await;
    let still = minute(dir).await;
    assert!(!still.trouble.is_empty(), "{still:?}");
    run.source.fall_silent(false);
    let heard = minute(dir).await;
    // The look that nobody told of is told now, and nothing that was told before is told again.
    assert_eq!(counted(&heard), (0, 0, 1), "{heard:?}");
    assert!(heard.blind().is_some(), "at its begin nobody knew: {heard:?}");
    let sound = minute(dir).await;
    assert_eq!((sound.trouble.as_str(), counted(&sound)), ("", (0, 0, 0)), "{sound:?}");
    run.stop().await;
}

/// The newest heartbeat; files before it may be unreadable.
fn newest_beat(dir: &Path) -> Option<HeartbeatEntry> {
    let read = |record: &LedgerRecord| HeartbeatEntry::of(&record.entry.actor, &record.entry.action, &record.payload);
    LedgerFiles::open(&dir.join("audit")).ok()?.newest(read).ok()?
}

#[tokio::test]
async fn a_clock_that_could_not_be_read_at_the_start_is_looked_at_again_and_nothing_counts_as_come_twice() {
    let home = tempfile::tempdir().unwrap();
    let dir = home.path();
    let audit = dir.join("audit");
    let runtime = || Runtime::builder("test", "fake", dir).triggerable(FakeSource::new());
    let begun = async |before: i64| {
        until("a heartbeat", async || newest_beat(dir).is_some_and(|beat| beat.to_ms > before)).await;
    };
    let stop = CancellationToken::new();
    let running = tokio::spawn(runtime().run(stop.clone()));
    begun(0).await;
    stop.cancel();
    running.await.unwrap().unwrap();
    // Each run has a file of its own; the one in the middle cannot be read at the next start.
    for _ in 0..2 {
        let (ledger, _) = Ledger::open(LedgerOptions::new(&audit)).unwrap();
        ledger.append(Draft::now("test", "config", b"{}".to_vec())).unwrap();
    }
    let mut files: Vec<_> = std::fs::read_dir(&audit).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.retain(|path| path.extension().is_some_and(|extension| extension == "log"));
    files.sort();
    let (middle, aside) = (files[files.len() - 2].clone(), dir.join("aside"));
    std::fs::rename(&middle, &aside).unwrap();
    std::fs::create_dir(&middle).unwrap();
    let (stop, now_ms) = (CancellationToken::new(), jiff_ms());
    let running = tokio::spawn(runtime().run(stop.clone()));
    begun(now_ms).await;
    let unknown = newest_beat(dir).unwrap();
    assert_eq!(unknown.clock, None);
    let watched = HeartbeatEntry { state: "running".into(), ..unknown };
    assert!(watched.blind().unwrap().contains("clock"), "{watched:?}");

    std::fs::remove_dir(&middle).unwrap();
    std::fs::rename(&aside, &middle).unwrap();
    stop.cancel();
    running.await.unwrap().unwrap();
    let known = newest_beat(dir).unwrap().clock.unwrap();
    assert_eq!(known.twice, []);
    verify_dir(&audit, |_| {}).unwrap();
}
