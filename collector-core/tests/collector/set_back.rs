//! A ledger of a host whose clock was set back: what came twice is known from then on, and no pass of it is proven without the other.

use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use collector_core::ledger::{Draft, Ledger, LedgerOptions};
use daemoneye_lib::ledger::LedgerFiles;
use daemoneye_lib::ledger::clock::LedgerClock;
use daemoneye_lib::ledger::heartbeat::{HEARTBEAT, HeartbeatEntry};
use daemoneye_lib::ledger::note::VerifierKey;
use daemoneye_lib::ledger::notes::{StoredCheckpoints, keys_file};
use daemoneye_lib::ledger::proof::{EntryProof, Period, Proof, Target, Told, run_before};
use daemoneye_lib::ledger::tiles::StoredTree;
use daemoneye_lib::ledger::tree::TreeHash;

use crate::tree::tree_options;

const MINUTE: i64 = 60_000;
/// The minute at which the first pass ends, to which the clock is then set back, and at which the second one ends.
const FIRST: i64 = 40;
const BACK: i64 = 20;
const SECOND: i64 = 60;

fn options(dir: &Path) -> LedgerOptions {
    let tree = Some(tree_options(&dir.join("keys")));
    LedgerOptions { segment_bytes: 4096, tree, ..LedgerOptions::new(dir.join("audit")) }
}

/// Behind the entries that a ledger makes itself.
fn begin_ms() -> i64 {
    let later = SystemTime::now().duration_since(UNIX_EPOCH).unwrap() + Duration::from_secs(3_600);
    i64::try_from(later.as_millis()).unwrap()
}

fn beat(from_ms: i64, to_ms: i64, clock: &LedgerClock) -> Draft {
    let entry = HeartbeatEntry {
        collector: "test".into(),
        from_ms,
        to_ms,
        state: "running".into(),
        trouble: String::new(),
        events: 0,
        lost: 0,
        errors: 0,
        cycles: 12,
        entities: 9,
        last: None,
        announced: Some(false),
        look_ms: Some(5_000),
        every_ms: Some(60_000),
        clock: Some(clock.clone()),
    };
    let payload = serde_json::to_vec(&entry).unwrap();
    Draft { actor: "test".into(), action: HEARTBEAT.into(), timestamp_ms: to_ms + 2, payload }
}

/// A heartbeat for each minute of both passes, some ten in each file.
fn write(ledger: &Ledger, begin_ms: i64) {
    let mut clock = LedgerClock::default();
    clock.shows(begin_ms);
    let mut run = |from_ms: i64, to_ms: i64| {
        clock.ran(from_ms, to_ms, MINUTE);
        ledger.append(beat(from_ms, to_ms, &clock)).unwrap();
    };
    let at = |minute: i64| begin_ms + minute * MINUTE;
    (0..FIRST).for_each(|minute| run(at(minute), at(minute + 1)));
    run(at(FIRST), at(BACK));
    (BACK..SECOND).for_each(|minute| run(at(minute), at(minute + 1)));
    ledger.checkpoint().unwrap();
}

struct Files {
    audit: std::path::PathBuf,
    size: u64,
}

impl Files {
    fn run(&self, period: Period) -> Vec<EntryProof> {
        period.entries(&LedgerFiles::open(&self.audit).unwrap(), self.size).unwrap()
    }

    fn told(&self, period: Period, run: Vec<EntryProof>) -> Told {
        let newest = StoredCheckpoints::read(&self.audit).unwrap().newest.unwrap();
        let mut tree = StoredTree::open(&self.audit, TreeHash::Sha256, self.size).unwrap();
        let mut proof = Proof::new(Target::Period(period), TreeHash::Sha256, newest.note, Vec::new());
        proof.set_run(run, self.size, &mut tree).unwrap();
        let key: VerifierKey = std::fs::read_to_string(keys_file(&self.audit)).unwrap().trim().parse().unwrap();
        Proof::of_file(&proof.to_file()).unwrap().verify(&key).unwrap().told.unwrap()
    }
}

#[test]
fn both_passes_of_a_time_that_came_twice_are_in_its_proof_and_neither_is_silence_without_the_other() {
    let home = tempfile::tempdir().unwrap();
    let begin_ms = begin_ms();
    let (ledger, _) = Ledger::open(options(home.path())).unwrap();
    write(&ledger, begin_ms);
    let files = Files { audit: home.path().join("audit"), size: ledger.head().entries };
    let period = |from: i64, to: i64| Period { from_ms: begin_ms + from * MINUTE, to_ms: begin_ms + to * MINUTE };
    for once in [period(5, 8), period(45, 48)] {
        let told = files.told(once, files.run(once));
        assert!(told.is_silence() && told.heartbeats == 3, "{told:?}");
    }

    let twice = period(25, 28);
    let run = files.run(twice);
    let told = files.told(twice, run.clone());
    assert_eq!((told.heartbeats, told.is_silence()), (6, false), "{told:?}");
    let is_named = |told: &Told| {
        told.gaps
            .iter()
            .any(|gap| gap.why.contains("came twice") && (gap.from_ms, gap.to_ms) == (twice.from_ms, twice.to_ms))
    };
    assert!(is_named(&told), "{told:?}");
    // Each pass alone, as one who hides the other would hand it over.
    let back = run.iter().position(|entry| entry.timestamp_ms == begin_ms + BACK * MINUTE + 2).unwrap();
    let second = files.told(twice, run[back + 1..].to_vec());
    assert!(second.heartbeats == 3 && is_named(&second), "{second:?}");
    let until = run.iter().position(|entry| entry.timestamp_ms > begin_ms + 29 * MINUTE).unwrap();
    let newest = run.last().unwrap().clone();
    let first = files.told(twice, [&run[..=until], &[newest]].concat());
    assert!(first.heartbeats == 3 && is_named(&first), "{first:?}");
    let lacking = files.told(twice, run[..=until].to_vec());
    assert!(!lacking.is_silence() && lacking.gaps[0].why.contains("whether the clock was set back"), "{lacking:?}");

    drop(ledger);
    let (_, found) = Ledger::open(options(home.path())).unwrap();
    let at = |minute: i64| begin_ms + minute * MINUTE;
    let clock = found.clock.unwrap();
    assert_eq!(clock.twice, [(at(BACK - 1), at(FIRST + 1))], "as one who starts again goes on");
    assert_eq!(clock.highest_ms, at(SECOND) + 2);
}

/// A ledger with room for a flood in one file, and its clock as it begins.
fn roomy(home: &Path) -> (Ledger, LedgerClock, i64) {
    let begin_ms = begin_ms();
    let (ledger, _) = Ledger::open(LedgerOptions { segment_bytes: 1024 * 1024, ..options(home) }).unwrap();
    let mut clock = LedgerClock::default();
    clock.shows(begin_ms);
    (ledger, clock, begin_ms)
}

#[test]
fn a_time_is_silence_also_where_the_agent_has_written_all_that_it_may_since_the_newest_heartbeat() {
    let home = tempfile::tempdir().unwrap();
    let (ledger, mut clock, begin_ms) = roomy(home.path());
    let at = |minute: i64| begin_ms + minute * MINUTE;
    for minute in 0..9 {
        clock.ran(at(minute), at(minute + 1), MINUTE);
        ledger.append(beat(at(minute), at(minute + 1), &clock)).unwrap();
    }
    let said = Draft { actor: "agent".into(), action: "config".into(), timestamp_ms: at(9), payload: b"{}".to_vec() };
    let flood = vec![said; 8_192 + 100 * 60];
    ledger.append_batch(&flood).unwrap();
    ledger.checkpoint().unwrap();
    let files = Files { audit: home.path().join("audit"), size: ledger.head().entries };
    let period = Period { from_ms: at(3), to_ms: at(6) };
    let told = files.told(period, files.run(period));
    assert!(told.is_silence(), "{:?}", told.gaps);
}

#[test]
fn evidence_has_room_for_all_that_may_be_written_in_the_time_before_an_alert() {
    let home = tempfile::tempdir().unwrap();
    let (ledger, clock, begin_ms) = roomy(home.path());
    let at = |minute: i64| begin_ms + minute * MINUTE;
    ledger.append(beat(at(0), at(1), &clock)).unwrap();
    // At once, and each second of twelve minutes: the agent's entries, its orders with the control entry of each, an event range.
    let said = Draft { actor: "agent".into(), action: "config".into(), timestamp_ms: at(2), payload: b"{}".to_vec() };
    let flood = vec![said; 8_192 + 256 + 720 * (100 + 4 + 1)];
    for part in flood.chunks(8_192) {
        ledger.append_batch(part).unwrap();
    }
    let raised = ledger.head().entries - 1;
    ledger.append(beat(at(11), at(12), &clock)).unwrap();
    let us = (at(11) + 1_000) * 1_000;
    let alert = serde_json::json!({
        "id": "019b1f6e-8c1a-7c3e-9d7e-0a1b2c3d4e5f", "time_us": us, "severity": "low", "title": "", "description": "",
        "rule_id": "019b1f6e-8c1a-7c3e-9d7e-0a1b2c3d4e5f", "rule_version": 1, "rule_hash": "", "pack": "", "tags": [],
        "process": {}, "row": {}, "events": [], "dedup_key": "", "count": 1, "first_seen_us": us, "last_seen_us": us,
        "completeness": { "degraded": [] }, "engine": "", "host": "", "status": "open",
    });
    let files = LedgerFiles::open(&home.path().join("audit")).unwrap();
    let run = run_before(&serde_json::from_value(alert).unwrap(), raised, &files, ledger.head().entries).unwrap();
    assert_eq!(run.map(|run| run.len() as u64), Some(ledger.head().entries - ledger_begin(&files)));
}

/// The first heartbeat's place.
fn ledger_begin(files: &LedgerFiles) -> u64 {
    let first =
        files.from(0).unwrap().find_map(|record| record.ok().filter(|record| record.entry.action == HEARTBEAT));
    first.unwrap().entry.sequence
}
