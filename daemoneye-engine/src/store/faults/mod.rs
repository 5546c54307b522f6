//! The store on a disk that fails: what was acknowledged is there, once, and nothing is doubled.
//!
//! Each failure names its seed; `DAEMONEYE_SEED=<seed>` plays that one alone, `DAEMONEYE_SEEDS=<number>` plays so many.

mod events;
mod platter;

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use daemoneye_lib::proto::{CoverageGap, Sequence};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use self::events::{batch, lifetimes, lived, matches, once, open, process, sealed};
use self::platter::{Dice, Fault, Platter, Spot};
use super::{AlertFilter, Store, StoreError, StoreOptions};

const T0: i64 = 1_760_000_000_000_000;
const DAY_US: i64 = 86_400_000_000;
const SINKS: [&str; 2] = ["file", "stdout"];
/// Power cuts in CI; `DAEMONEYE_SEEDS` sets another number.
const SEEDS: u64 = 1_000;
/// Times that the power goes, for each seed.
const LIVES: u64 = 3;

fn number_from(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

/// False: fewer seeds were asked for than CI plays.
fn each_seed(name: &str, run: impl Fn(u64, &Path)) -> bool {
    let seeds = match number_from("DAEMONEYE_SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..number_from("DAEMONEYE_SEEDS").unwrap_or(SEEDS),
    };
    let all = seeds.start == 0 && seeds.end >= SEEDS;
    for seed in seeds {
        let dir = scratch();
        let told = Told { name, seed };
        run(seed, dir.path());
        drop(told);
    }
    all
}

/// The model is the disk; in memory its files cost least.
fn scratch() -> tempfile::TempDir {
    let memory = Path::new("/dev/shm");
    if memory.is_dir() { tempfile::tempdir_in(memory) } else { tempfile::tempdir() }.unwrap()
}

/// Says which seed it was when the run unwinds.
struct Told<'a> {
    name: &'a str,
    seed: u64,
}

impl Drop for Told<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!(
                "play it again: DAEMONEYE_SEED={} cargo test -p daemoneye-engine --lib {}",
                self.seed, self.name
            );
        }
    }
}

fn options(dir: &Path) -> StoreOptions {
    let sinks = SINKS.map(str::to_owned).to_vec();
    StoreOptions { sinks, compaction_bytes_per_s: 0, ..StoreOptions::new(dir) }
}

/// Merges everything that has been sealed.
fn compact(store: &Store) -> Result<(), StoreError> {
    while store.compact(T0 + 10 * DAY_US, &CancellationToken::new())?.is_some() {}
    Ok(())
}

/// What a store is at.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
enum Work {
    #[default]
    Open,
    Ingest,
    Seal,
    Merge,
}

/// What the collector's log has, and what the store has promised.
#[derive(Default)]
struct Promised {
    /// Events that exist; all of them are in the log until they are acknowledged.
    given: u64,
    /// The last watermark that was published.
    committed: u64,
    /// Alerts that were committed, by the event that caused them.
    alerts: BTreeMap<u64, Uuid>,
    /// The last event that was offered in this life.
    sent: u64,
    /// What the store is asked for.
    work: Work,
}

impl Promised {
    fn publish(&mut self, marks: &[(String, Sequence)]) {
        for (_, at) in marks {
            assert!(at.number <= self.given, "a watermark beyond what was sent");
            self.committed = self.committed.max(at.number);
        }
    }

    /// One run, as ingest takes it: alerts first, then the rows.
    fn ingest(&mut self, store: &Store, upto: u64) -> Result<(), StoreError> {
        let Some(batch) = store.unseen(batch(self.sent + 1..=upto)) else {
            self.sent = upto;
            return Ok(());
        };
        let cause = |pointer: &daemoneye_lib::model::EventPointer| pointer.number;
        for alert in store.commit_matches(matches(&batch))? {
            let number = cause(&alert.events[0]);
            assert_eq!(self.alerts.insert(number, alert.id), None, "the alert of {number} was raised twice");
        }
        store.append(batch)?;
        self.sent = upto;
        Ok(())
    }

    /// The collector tells once more who lives, as of something that is not sealed yet.
    fn enumerate(&self, store: &Store, dice: &mut Dice) -> Result<(), StoreError> {
        let as_of = self.committed + dice.below(self.sent - self.committed + 1);
        let living = lived(as_of).into_keys().filter(|(_, by)| by.is_none());
        let records = living.map(|(pid, _)| process(u32::try_from(pid).unwrap())).collect();
        store.reset_live("procmond", records, Sequence::new(1, as_of))
    }

    /// What a start finds.
    fn check(&mut self, store: &Store) {
        let committed = store.committed("procmond").map_or(0, |at| at.number);
        assert!(committed >= self.committed, "acknowledged up to {}, found {committed}", self.committed);
        assert!(committed <= self.given);
        assert_eq!(store.check_segments().unwrap(), [], "what is registered is whole");
        assert_eq!(sealed(store), once(1..=committed), "every event up to the watermark, once");
        assert_eq!(open(store), BTreeMap::new());
        assert_eq!(lifetimes(store), lived(committed), "one lifetime for each process up to the watermark");
        let found = store.alerts(&AlertFilter::default()).unwrap();
        let causes: BTreeMap<u64, Uuid> = found.iter().map(|alert| (alert.events[0].number, alert.id)).collect();
        assert_eq!(causes.len(), found.len(), "one alert for each cause");
        assert!(found.iter().all(|alert| alert.count == 1), "counted once");
        for (number, id) in &self.alerts {
            assert_eq!(causes.get(number), Some(id), "the alert of {number} was committed");
        }
        assert_eq!(store.deliveries().unwrap().len(), found.len() * SINKS.len(), "an outbox row for each sink");
        self.alerts = causes;
        (self.committed, self.sent) = (committed, committed);
    }
}

/// Random work until the power goes or it is done.
fn live(store: &Store, promised: &mut Promised, dice: &mut Dice) -> Result<(), StoreError> {
    for _ in 0..=dice.below(4) {
        promised.work = Work::Ingest;
        // What the last life left in the log comes first.
        promised.given = promised.given.max(promised.sent + 1 + dice.below(5));
        promised.ingest(store, promised.given)?;
        if dice.below(2) == 0 {
            promised.work = Work::Seal;
            let marks = store.seal()?;
            promised.publish(&marks);
        }
        if dice.below(3) == 0 {
            promised.work = Work::Ingest;
            promised.enumerate(store, dice)?;
        }
        if dice.below(4) == 0 {
            promised.work = Work::Merge;
            compact(store)?;
        }
    }
    promised.work = Work::Seal;
    let marks = store.seal()?;
    promised.publish(&marks);
    promised.work = Work::Merge;
    compact(store)
}

#[test]
fn a_power_cut_at_any_call_costs_nothing_that_was_acknowledged() {
    let cuts: RefCell<BTreeMap<(Work, Spot), u64>> = RefCell::default();
    let all = each_seed("a_power_cut_at_any_call", |seed, dir| {
        let (mut dice, platter, mut promised) = (Dice::new(seed), Platter::default(), Promised::default());
        for life in 0..LIVES {
            let span = if life == 0 { 260 } else { 160 };
            platter.arm(Some(Fault::Cut(dice.below(span))));
            promised.work = Work::Open;
            let opened = Store::open_on(Arc::new(platter.clone()), options(dir));
            let ended = match &opened {
                Ok(store) if !platter.is_down() => {
                    promised.check(store);
                    live(store, &mut promised, &mut dice)
                }
                Ok(_) => Ok(()),
                Err(error) => {
                    assert!(platter.is_down(), "{error}");
                    Ok(())
                }
            };
            if let Err(error) = ended {
                assert!(platter.is_down(), "{error}");
            }
            if let Some(spot) = platter.cut_at() {
                *cuts.borrow_mut().entry((promised.work, spot)).or_default() += 1;
            }
            drop(opened);
            platter.come_back(dir, &mut dice);
        }
        let store = Store::open_on(Arc::new(platter), options(dir)).unwrap();
        promised.check(&store);
    });
    let cuts = cuts.into_inner();
    println!("cuts: {cuts:?}");
    // Each step of a seal and of a merge was cut off somewhere, or this says nothing about it.
    let steps = [Spot::Create, Spot::Write, Spot::Sync, Spot::Rename, Spot::SyncDir, Spot::State];
    for at in [Work::Seal, Work::Merge].into_iter().flat_map(|work| steps.map(|spot| (work, spot))) {
        assert!(!all || cuts.contains_key(&at), "no cut fell into {at:?}: {cuts:?}");
    }
    assert!(!all || cuts.contains_key(&(Work::Merge, Spot::Remove)), "no merged file was removed: {cuts:?}");
}

/// One life on a disk that fails at call `at` and then works again: everything goes on in the same process.
fn through(fault: impl Fn(u64) -> Fault, at: u64, seed: u64) -> bool {
    let (dir, platter, mut promised) = (scratch(), Platter::default(), Promised::default());
    let store = Store::open_on(Arc::new(platter.clone()), options(dir.path())).unwrap();
    let work = |promised: &mut Promised| -> Result<(), StoreError> {
        for upto in [7, 13] {
            promised.given = promised.given.max(upto);
            if promised.sent < upto {
                promised.ingest(&store, upto)?;
            }
            promised.publish(&store.seal()?);
        }
        compact(&store)
    };
    platter.arm(Some(fault(at)));
    let failed = work(&mut promised);
    let (calls, reached) = (platter.calls(), failed.is_err());
    if let Err(error) = &failed {
        assert!(error.may_pass(), "call {at}: {error}");
        // The disk stays as it is for a while; nothing is believed meanwhile, and all of it can be seen.
        let mut seen = sealed(&store);
        seen.extend(open(&store));
        assert_eq!(seen, once(1..=promised.sent), "call {at}");
        assert_eq!(lifetimes(&store), lived(promised.sent), "call {at}");
    }
    platter.arm(None);
    promised.publish(&store.recover().unwrap());
    work(&mut promised).unwrap_or_else(|error| panic!("call {at}: {error}"));
    assert_eq!(lifetimes(&store), lived(13), "call {at}");
    assert_eq!(promised.committed, 13, "call {at}");
    drop(store);
    platter.come_back(dir.path(), &mut Dice::new(seed));
    let store = Store::open_on(Arc::new(platter), options(dir.path())).unwrap();
    promised.check(&store);
    let kept = store.snapshot();
    assert_eq!((kept.segments.len(), kept.lifetimes.len()), (1, 1), "call {at}: merged");
    let files = std::fs::read_dir(dir.path().join("segments")).unwrap().count();
    assert_eq!(files, 2, "call {at}: nothing is left over");
    assert!(store.coverage().unwrap().is_empty(), "call {at}: nothing was lost");
    reached || at < calls
}

#[test]
fn a_disk_that_is_full_or_fails_at_any_call_is_recovered_from_in_process() {
    for fault in [Fault::Error as fn(u64) -> Fault, Fault::Full] {
        let mut at = 0;
        while through(fault, at, at) {
            at += 1;
        }
        assert!(at > 40, "only {at} calls: the faults did not reach the commits");
    }
}

#[test]
fn a_pause_is_told_while_it_lasts_and_afterwards_as_one_gap() {
    let (dir, platter) = (scratch(), Platter::default());
    let store = Store::open_on(Arc::new(platter.clone()), options(dir.path())).unwrap();
    store.append(batch(1..=3)).unwrap();
    platter.arm(Some(Fault::Full(0)));
    let full = store.seal().unwrap_err();
    assert!(full.may_pass(), "{full}");
    store.pause(&full.to_string()).unwrap();
    let (began, why) = store.paused().unwrap();
    assert_eq!(why, full.to_string());
    let told = || -> Vec<CoverageGap> { store.coverage().unwrap().into_iter().map(|row| row.gap).collect() };
    assert_eq!(told().len(), 1, "{:?}", told());
    assert!(store.seal().is_err());
    platter.arm(None);
    store.recover().unwrap();
    store.seal().unwrap();
    store.resume().unwrap();
    assert_eq!(store.paused(), None);
    let told = told();
    assert!(
        told.len() == 1 && told[0].reason == "store_paused" && told[0].from_us == began && told[0].to_us > began,
        "{told:?}"
    );
    assert!(told[0].detail.contains("no storage space"), "{told:?}");
    assert_eq!(sealed(&store), once(1..=3));
}

#[test]
fn a_migration_that_is_cut_off_anywhere_is_done_by_the_next_start() {
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/store/golden/v1");
    let mut at = 0;
    loop {
        let (dir, platter) = (scratch(), Platter::default());
        std::fs::create_dir(dir.path().join("segments")).unwrap();
        for entry in std::fs::read_dir(golden.join("segments")).unwrap() {
            let path = entry.unwrap().path();
            std::fs::copy(&path, dir.path().join("segments").join(path.file_name().unwrap())).unwrap();
        }
        platter.put(&dir.path().join("state.redb"), std::fs::read(golden.join("state.redb")).unwrap());
        platter.arm(Some(Fault::Cut(at)));
        let cut = Store::open_on(Arc::new(platter.clone()), options(dir.path())).is_err();
        platter.come_back_in_place(&mut Dice::new(at));
        let store = Store::open_on(Arc::new(platter), options(dir.path())).unwrap();
        let stats = store.outbox_stats().unwrap();
        assert_eq!(stats.iter().map(|of| (of.done, of.pending)).collect::<Vec<_>>(), [(1, 2), (0, 3)], "call {at}");
        assert_eq!(sealed(&store).len(), 26, "call {at}");
        if !cut {
            break;
        }
        at += 1;
    }
    assert!(at > 10, "only {at} calls");
}

#[test]
fn a_start_on_a_full_disk_waits_for_room_shows_what_is_stored_and_loses_nothing() {
    let mut waited = 0;
    for at in 0..40 {
        let (dir, platter) = (scratch(), Platter::default());
        let store = Store::open_on(Arc::new(platter.clone()), options(dir.path())).unwrap();
        store.append(batch(1..=5)).unwrap();
        store.seal().unwrap();
        // A crash between file and transaction leaves something to tidy.
        let stray =
            store.snapshot().segments[0].path.with_file_name("process_events-0000000000000009-00000002.parquet");
        drop(store);
        platter.come_back(dir.path(), &mut Dice::new(at));
        std::fs::write(&stray, b"unfinished").unwrap();
        platter.arm(Some(Fault::Full(at)));
        let store = Store::open_on(Arc::new(platter.clone()), options(dir.path())).unwrap();
        assert_eq!(sealed(&store), once(1..=5), "call {at}: it answers");
        assert_eq!(store.committed("procmond"), Some(Sequence::new(1, 5)), "call {at}");
        if store.is_unsettled() {
            waited += 1;
            assert!(store.recover().is_err() && store.seal().is_err(), "call {at}: nothing is written");
            assert!(store.audit_push("agent", "start", &serde_json::Value::Null).is_err(), "call {at}");
            store.append(batch(6..=8)).unwrap();
            platter.arm(None);
            store.recover().unwrap();
            assert!(!store.is_unsettled() && !stray.exists(), "call {at}: it is tidied now");
        } else {
            platter.arm(None);
            store.recover().unwrap();
            store.append(batch(6..=8)).unwrap();
        }
        store.seal().unwrap();
        assert_eq!(sealed(&store), once(1..=8), "call {at}");
        drop(store);
        platter.come_back(dir.path(), &mut Dice::new(at));
        let store = Store::open_on(Arc::new(platter), options(dir.path())).unwrap();
        assert_eq!(sealed(&store), once(1..=8), "call {at}: also behind a power cut");
    }
    assert!(waited > 3, "only {waited} starts found no room");
}

#[test]
fn a_first_start_on_a_full_disk_begins_when_there_is_room() {
    let (dir, platter) = (scratch(), Platter::default());
    platter.arm(Some(Fault::Full(0)));
    let store = Store::open_on(Arc::new(platter.clone()), options(dir.path())).unwrap();
    assert!(store.is_unsettled() && store.recover().is_err());
    store.append(batch(1..=3)).unwrap();
    platter.arm(None);
    store.recover().unwrap();
    store.seal().unwrap();
    drop(store);
    platter.come_back(dir.path(), &mut Dice::new(1));
    let store = Store::open_on(Arc::new(platter), options(dir.path())).unwrap();
    assert_eq!(sealed(&store), once(1..=3));
}

#[test]
fn a_database_that_is_away_when_it_is_opened_again_is_waited_for_and_not_begun_anew() {
    let dir = scratch();
    let store = Store::open(options(dir.path())).unwrap();
    store.append(batch(1..=5)).unwrap();
    store.seal().unwrap();
    let (state, away) = (dir.path().join("state.redb"), dir.path().join("away"));
    store.state.doubt_all();
    std::fs::rename(&state, &away).unwrap();
    let error = store.recover().unwrap_err();
    assert!(error.may_pass() && !state.exists(), "{error}");
    assert_eq!(sealed(&store), once(1..=5), "its segments are no garbage");
    std::fs::rename(&away, &state).unwrap();
    store.recover().unwrap();
    store.append(batch(6..=7)).unwrap();
    store.seal().unwrap();
    assert_eq!(sealed(&store), once(1..=7));
}

#[test]
fn a_file_that_was_moved_aside_is_there_after_a_power_cut_and_told_once() {
    for seed in 0..20 {
        let (dir, platter) = (scratch(), Platter::default());
        let store = Store::open_on(Arc::new(platter.clone()), options(dir.path())).unwrap();
        store.append(batch(1..=5)).unwrap();
        store.seal().unwrap();
        drop(store);
        platter.come_back(dir.path(), &mut Dice::new(seed));
        let name = "process_events-0000000000000009-00000001.parquet";
        platter.put(&dir.path().join("segments").join(name), b"nobody knows it".to_vec());
        for _ in 0..2 {
            drop(Store::open_on(Arc::new(platter.clone()), options(dir.path())).unwrap());
            platter.come_back(dir.path(), &mut Dice::new(seed));
            assert!(dir.path().join("segments/aside").join(name).exists(), "seed {seed}");
        }
        let store = Store::open_on(Arc::new(platter), options(dir.path())).unwrap();
        let told = store.coverage().unwrap();
        assert_eq!(told.iter().map(|row| row.gap.reason.as_str()).collect::<Vec<_>>(), ["segments_unregistered"]);
        assert_eq!(sealed(&store), once(1..=5), "seed {seed}");
    }
}
