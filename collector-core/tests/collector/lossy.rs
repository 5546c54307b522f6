//! The logs on a disk that loses power at any call: what was acknowledged is there, once and in order, and what is missing is told.
//!
//! Each failure names its seed; `LOSSY_SEED=<seed>` plays that one alone.

use std::path::Path;
use std::sync::Arc;

use crate::support::power::{Dice, Handle, LossyDisk};
use crate::support::{all, gaps};
use crate::tree::tree_options;
use collector_core::SourceEvent;
use collector_core::ledger::{Draft, Ledger, LedgerOptions};
use collector_core::wal::{SyncMode, Wal, WalOptions};
use daemoneye_lib::ledger::{LedgerFiles, LedgerRecord, verify_dir};
use daemoneye_lib::proto::{Record, Sequence};

const SEEDS: u64 = 1_000;
const LIVES: u64 = 3;
const SEGMENT_BYTES: u64 = 2048;

fn each_seed(name: &str, run: impl Fn(u64, &Path)) {
    let seeds = std::env::var("LOSSY_SEED").map_or(0..SEEDS, |seed| {
        let seed = seed.parse().unwrap();
        seed..seed + 1
    });
    // The model is the disk; in memory its files cost least.
    let memory = Path::new("/dev/shm");
    let dir = if memory.is_dir() { tempfile::tempdir_in(memory) } else { tempfile::tempdir() }.unwrap();
    for seed in seeds {
        let _told = Told { name, seed };
        run(seed, &dir.path().join(seed.to_string()));
    }
}

/// Says which seed it was when the run unwinds.
struct Told<'a> {
    name: &'a str,
    seed: u64,
}

impl Drop for Told<'_> {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            return;
        }
        eprintln!(
            "play it again: LOSSY_SEED={} cargo test -p collector-core --test collector {}",
            self.seed, self.name
        );
    }
}

/// What the log was given and what it promised.
#[derive(Default)]
struct Promised {
    /// Events that may be there, by the number that each payload begins with.
    given: Vec<u64>,
    /// Last record and last event that were acknowledged as durable.
    durable: (u64, u64),
    /// Records up to here may be gone.
    trimmed: u64,
    /// Last record of each append and the last event in it.
    appends: Vec<(Sequence, u64)>,
    next: u64,
}

impl Promised {
    fn events(&mut self, dice: &mut Dice) -> Vec<SourceEvent> {
        let mut events = Vec::new();
        for _ in 0..=dice.below(6) {
            self.next += 1;
            self.given.push(self.next);
            let length = 8 + usize::try_from(dice.below(90)).unwrap();
            let mut payload = self.next.to_le_bytes().to_vec();
            payload.resize(length, payload[0]);
            events.push(SourceEvent::new("events.process.start", 1, payload));
        }
        events
    }

    fn acknowledge(&mut self, wal: &Wal) {
        let durable = durable(wal);
        let event = self.appends.iter().filter(|(last, _)| last.number <= durable).map(|(_, event)| *event).max();
        self.durable = (self.durable.0.max(durable), self.durable.1.max(event.unwrap_or(0)));
    }

    /// Checks what a start found, and goes on from there.
    fn check(&mut self, records: &[Record]) {
        let numbers: Vec<u64> = records.iter().map(|r| r.sequence.unwrap().number).collect();
        assert!(numbers.windows(2).all(|pair| pair[0] + 1 == pair[1]), "neither holes nor doubles: {numbers:?}");
        assert!(records.windows(2).all(|pair| pair[0].sequence < pair[1].sequence), "epochs grow");
        let events = records.iter().filter(|r| r.topic == "events.process.start");
        let events: Vec<u64> = events
            .map(|record| {
                assert!(record.payload[8..].iter().all(|byte| *byte == record.payload[0]), "as it was appended");
                u64::from_le_bytes(record.payload[..8].try_into().unwrap())
            })
            .collect();
        let first = events.first().copied().unwrap_or(u64::MAX);
        let durable = self.given.iter().filter(|event| (first..=self.durable.1).contains(event)).count();
        assert!(events.len() >= durable, "{durable} events are durable: {events:?}");
        let possible: Vec<u64> =
            self.given.iter().copied().filter(|event| *event >= first).take(events.len()).collect();
        assert_eq!(events, possible, "each once, in order, none between is missing");
        let last = numbers.last().copied().unwrap_or(0);
        assert!(last >= self.durable.0, "{} was durable, the log ends at {last}", self.durable.0);
        let begin = numbers.first().copied().unwrap_or(last + 1);
        let told = gaps(records).iter().any(|gap| gap.last.unwrap().number + 1 >= begin);
        assert!(told || begin <= self.trimmed + 1, "1 to {} are gone, and nothing says so", begin - 1);
        // Numbers that were never durable are given again under the next epoch.
        self.trimmed = self.trimmed.min(last);
        self.durable = (last, events.last().copied().unwrap_or(self.durable.1));
        self.given = events;
        self.appends.clear();
    }
}

fn wal_options(dir: &Path, disk: &Arc<LossyDisk>, bound: u64) -> WalOptions {
    WalOptions {
        segment_bytes: SEGMENT_BYTES,
        max_bytes: bound * SEGMENT_BYTES,
        sync: SyncMode::Always,
        disk: Arc::new(Handle(Arc::clone(disk))),
        ..WalOptions::new(dir, "test")
    }
}

fn durable(wal: &Wal) -> u64 {
    wal.progress().borrow().durable.map_or(0, |s| s.number)
}

/// The syncing thread works until its note and stands in front of the next round, if there is one to come.
fn sync(wal: &Wal, disk: &LossyDisk) {
    if wal.progress().borrow().written.map_or(0, |s| s.number) <= durable(wal) {
        return;
    }
    disk.sync_round();
    if wal.progress().borrow().written.map_or(0, |s| s.number) > durable(wal) {
        disk.await_syncer();
    }
}

/// One life of a collector, until the power goes or it ends.
fn live(wal: &Wal, disk: &LossyDisk, promised: &mut Promised, dice: &mut Dice) {
    for _ in 0..dice.below(40) {
        disk.make_spare();
        match dice.below(9) {
            0..=4 => {
                let events = promised.events(dice);
                if let Ok(Some(last)) = wal.append(&events) {
                    disk.await_syncer();
                    promised.appends.push((last, promised.next));
                }
            }
            5..=7 => sync(wal, disk),
            _ => {
                let chosen = usize::try_from(dice.below(promised.appends.len() as u64 + 1)).unwrap();
                if let Some((upto, _)) = promised.appends.get(chosen) {
                    promised.trimmed = promised.trimmed.max(upto.number);
                    wal.trim(*upto).ok();
                }
            }
        }
        // Told before the note is written, so also what the power failed behind.
        promised.acknowledge(wal);
        if disk.is_down() {
            return;
        }
    }
}

/// Power for some calls, and the spares that find the disk full.
fn power(disk: &LossyDisk, dice: &mut Dice) {
    let refuse = (1..60).filter(|_| dice.below(5) == 0).collect();
    disk.power(1 + dice.below(150), refuse);
}

/// Ends a life before the log is dropped, whose threads would wait for their turn.
struct PowerOff<'a>(&'a LossyDisk);

impl Drop for PowerOff<'_> {
    fn drop(&mut self) {
        self.0.kill();
    }
}

fn wal_run(seed: u64, dir: &Path) {
    let (disk, mut dice, mut promised) = (LossyDisk::new(), Dice::new(seed), Promised::default());
    let bound = if dice.below(2) == 0 { 5 } else { 1000 };
    for life in 0..=LIVES {
        power(&disk, &mut dice);
        if life == LIVES {
            disk.power(u64::MAX, Vec::new());
        }
        match Wal::open(wal_options(dir, &disk, bound)) {
            Ok((wal, recovered)) => {
                let _off = PowerOff(&disk);
                assert!(
                    recovered.gaps.is_empty() && recovered.corrupt.is_empty(),
                    "nothing synced is lost: {recovered:?}"
                );
                promised.check(&all(&wal));
                if life < LIVES {
                    live(&wal, &disk, &mut promised, &mut dice);
                }
            }
            Err(error) => assert!(disk.is_down(), "{error}"),
        }
        let keep = dice.below(4) == 0;
        disk.come_back(dir, &mut dice, keep);
    }
}

#[test]
fn a_power_failure_at_any_call_costs_the_log_nothing_that_was_acknowledged() {
    each_seed("a_power_failure_at_any_call_costs_the_log", wal_run);
}

fn ledger_run(seed: u64, dir: &Path) {
    let (disk, mut dice) = (LossyDisk::new(), Dice::new(seed));
    let (mut acknowledged, mut signed, mut head) = (0, 0, None);
    for life in 0..=LIVES {
        power(&disk, &mut dice);
        if life == LIVES {
            disk.power(u64::MAX, Vec::new());
        }
        let options = LedgerOptions {
            dir: dir.to_owned(),
            segment_bytes: SEGMENT_BYTES,
            disk: Arc::new(Handle(Arc::clone(&disk))),
            tree: Some(tree_options(&dir.with_extension("keys"))),
        };
        match Ledger::open(options) {
            Ok((ledger, found)) => {
                let _off = PowerOff(&disk);
                assert_eq!(found.damage, None);
                assert!(found.entries >= acknowledged, "{acknowledged} were acknowledged: {found:?}");
                // The first life's end may have taken the entry that names the key, which is written again.
                let verified = verify_dir(dir, |_| {}).unwrap();
                assert!((found.entries..=found.entries + 1).contains(&verified.entries));
                assert!(verified.signed_entries >= signed, "{signed} were signed: {verified:?}");
                if verified.entries == acknowledged && head.is_some() {
                    assert_eq!(Some(ledger.head().hash), head);
                }
                (acknowledged, head) = (verified.entries, Some(ledger.head().hash));
                // Of a torn batch of ranges the ledger covers what the last one that is left covers, and no more.
                let records = LedgerFiles::open(dir).unwrap().from(0).unwrap().map(Result::unwrap);
                let covers = records.filter(|record| record.entry.action == "cover").last();
                let number = |record: LedgerRecord| std::str::from_utf8(&record.payload).unwrap().parse().unwrap();
                let mut covered: u64 = covers.map_or(0, number);
                assert_eq!(ledger.head().covered.map_or(0, |at| at.number), covered);
                for _ in 0..dice.below(30) {
                    disk.make_spare();
                    if dice.below(4) == 0 {
                        match ledger.checkpoint() {
                            Ok(note) => signed = if note.is_some() { acknowledged } else { signed },
                            Err(_) => break,
                        }
                    }
                    if dice.below(3) == 0 {
                        let numbers = covered + 1..=covered + 1 + dice.below(4);
                        let range = |number: u64| {
                            let payload = format!("{number:0>200}").into_bytes();
                            (Draft::now("test", "cover", payload), Sequence::new(1, number))
                        };
                        let written = ledger.append_ranges(&numbers.clone().map(range).collect::<Vec<_>>());
                        let Ok(entries) = written else { break };
                        acknowledged += entries.len() as u64;
                        covered = *numbers.end();
                        head = None;
                        continue;
                    }
                    let draft = Draft::now("test", "act", vec![b'x'; usize::try_from(dice.below(200)).unwrap()]);
                    let Ok(entries) = ledger.append_batch(&vec![draft; 1 + usize::try_from(dice.below(4)).unwrap()])
                    else {
                        break;
                    };
                    acknowledged += entries.len() as u64;
                    head = entries.last().map(|entry| entry.entry_hash);
                }
            }
            Err(error) => assert!(disk.is_down(), "{error}"),
        }
        let keep = dice.below(4) == 0;
        disk.come_back(dir, &mut dice, keep);
    }
}

#[test]
fn a_power_failure_at_any_call_costs_the_ledger_nothing_that_was_acknowledged() {
    each_seed("a_power_failure_at_any_call_costs_the_ledger", ledger_run);
}
