//! The store as a whole: copies of it while it is written, checks that find what is wrong, figures that add up.

use std::collections::BTreeMap;
use std::fs;
use std::io::Read as _;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use daemoneye_engine::store::{Fsck, Store, StoreError, StoreOptions};
use redb::TableDefinition;

use super::damage::{T0, open, parquet, rows, seal, sealed, start};
use super::raw::{Counter, Named, Raw, overwrite};

/// What the table of hosts calls its values.
#[derive(Debug)]
pub(crate) struct SystemInfo;

impl Named for SystemInfo {
    const NAME: &'static str = "daemoneye::system_info";
}

const SYSTEM: TableDefinition<'_, u64, Raw<SystemInfo>> = TableDefinition::new("system_info");
const META: TableDefinition<'_, &str, Raw<Counter>> = TableDefinition::new("meta");

fn checked(store: &Store) -> Fsck {
    store.fsck(&mut |_, _| true).unwrap()
}

/// Writes a backup out as the console does.
fn write_out(store: &Store, to: &Path) {
    let backup = store.begin_backup().unwrap();
    fs::create_dir_all(to.join("segments")).unwrap();
    for file in backup.files() {
        let mut bytes = Vec::new();
        file.open().unwrap().read_to_end(&mut bytes).unwrap();
        assert_eq!((blake3::hash(&bytes).as_bytes(), bytes.len() as u64), (&file.hash, file.bytes), "{}", file.path);
        fs::write(to.join(&file.path), bytes).unwrap();
    }
    fs::write(to.join("backup-manifest.json"), backup.manifest()).unwrap();
}

fn names(dir: &Path) -> Vec<String> {
    let mut names: Vec<String> =
        fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

#[test]
fn a_backup_opens_with_everything_that_was_stored_and_is_sound() {
    let (dir, copy) = (sealed(3), tempfile::tempdir().unwrap());
    let store = open(dir.path());
    store.append(daemoneye_engine::ingest::decode("procmond", &[start(31)]).unwrap()).unwrap();
    write_out(&store, copy.path());
    assert_eq!(rows(&store), 31);
    for offline in [Store::open_offline(copy.path()).unwrap(), open(copy.path())] {
        assert_eq!(rows(&offline), 31, "what was in memory is in the copy");
        assert_eq!(offline.committed("procmond"), store.committed("procmond"));
        let found = checked(&offline);
        assert!(found.is_sound() && found.segments == 4, "{found:?}");
    }
    assert!(!copy.path().join("backup-manifest.json").exists(), "a copy that is written is no backup any more");
    assert_eq!(names(&dir.path().join("segments")).len(), 4, "nothing is left behind in the store");
}

#[test]
fn a_backup_taken_while_the_store_is_written_and_expires_is_sound() {
    let dir = sealed(2);
    let store = open(dir.path());
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut at = 2;
            while !stop.load(Ordering::SeqCst) && at < 200 {
                seal(&store, at * 10 + 1..=at * 10 + 10);
                let age_us = i64::try_from(store_age().as_micros()).unwrap();
                store.expire(T0 + i64::try_from(at * 5).unwrap() * 1_000_000 + age_us).unwrap();
                at += 1;
            }
        });
        for _ in 0..5 {
            let copy = tempfile::tempdir().unwrap();
            write_out(&store, copy.path());
            let copied = Store::open_offline(copy.path()).unwrap();
            let found = checked(&copied);
            assert!(found.is_sound(), "{found:?}");
            let snapshot = copied.snapshot();
            let last = snapshot.segments.iter().flat_map(|file| &file.ranges).map(|range| range.last).max().unwrap();
            assert_eq!(copied.committed("procmond").unwrap().key(), last, "files and watermark are of one moment");
            assert!(checked(&store).is_sound(), "also while it is written");
        }
        stop.store(true, Ordering::SeqCst);
    });
}

fn store_age() -> std::time::Duration {
    StoreOptions::new("").retention
}

#[test]
fn a_copied_store_is_not_backed_up_and_a_file_that_is_gone_is_named() {
    let dir = sealed(2);
    let offline = Store::open_offline(dir.path()).unwrap();
    assert!(matches!(offline.begin_backup().unwrap_err(), StoreError::MisuseOffline));
    drop(offline);
    let store = open(dir.path());
    let lost = parquet(&dir.path().join("segments")).remove(0);
    fs::remove_file(&lost).unwrap();
    let backup = store.begin_backup().unwrap();
    assert_eq!(backup.missing(), [lost.file_name().unwrap().to_str().unwrap()]);
    assert!(backup.manifest().contains(&backup.missing()[0]));
}

#[test]
fn a_check_names_every_damaged_missing_and_foreign_file() {
    let dir = sealed(4);
    let segments = dir.path().join("segments");
    let files = parquet(&segments);
    let mut bytes = fs::read(&files[0]).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(&files[0], bytes).unwrap();
    fs::remove_file(&files[1]).unwrap();
    fs::copy(&files[2], segments.join("process_events-0000000000000001-00000003.parquet")).unwrap();
    // What a seal had not registered yet when the host was killed is no damage: the collector has those events.
    fs::copy(&files[3], segments.join("process_events-0000000000000001-00000005.parquet")).unwrap();
    let found = checked(&Store::open_offline(dir.path()).unwrap());
    let what: BTreeMap<&str, &str> =
        found.problems.iter().map(|problem| (problem.place.as_str(), problem.what.as_str())).collect();
    let of = |path: &Path| format!("segments/{}", path.file_name().unwrap().display());
    assert_eq!(what.len(), 3, "{found:?}");
    assert!(what[of(&files[0]).as_str()].contains("bytes have changed"), "{what:?}");
    assert!(what[of(&files[1]).as_str()].contains("No such file"), "{what:?}");
    assert!(what["segments/process_events-0000000000000001-00000003.parquet"].contains("does not know"), "{what:?}");
    assert!(!found.is_sound() && found.segments == 4);
}

#[test]
fn a_check_names_values_that_do_not_decode() {
    let dir = sealed(1);
    overwrite(dir.path(), SYSTEM, 7, &[1, 0xff, 0xff]);
    overwrite(dir.path(), META, "last_coverage", &[9, 1]);
    let store = Store::open_offline(dir.path()).unwrap();
    let found = checked(&store);
    let places: Vec<&str> = found.problems.iter().map(|problem| problem.place.as_str()).collect();
    assert_eq!(places, ["state.redb, meta \"last_coverage\"", "state.redb, system_info 7"], "{found:?}");
}

#[test]
fn a_check_names_references_that_lead_nowhere() {
    let dir = sealed(1);
    let db = redb::Database::open(dir.path().join("state.redb")).unwrap();
    let change = db.begin_write().unwrap();
    let by_status: TableDefinition<'_, (u8, i64, u128), ()> = TableDefinition::new("alerts_by_status");
    let by_key: TableDefinition<'_, (u128, i64), u128> = TableDefinition::new("alerts_by_key");
    let due: TableDefinition<'_, (&str, i64, u64), u128> = TableDefinition::new("alert_deliveries_due");
    let newest: TableDefinition<'_, (&str, &str), (i64, u64)> = TableDefinition::new("coverage_newest");
    change.open_table(by_status).unwrap().insert((0, 7, 1), ()).unwrap();
    change.open_table(by_key).unwrap().insert((5, 7), 2).unwrap();
    change.open_table(due).unwrap().insert(("file", 0, 1), 3).unwrap();
    change.open_table(newest).unwrap().insert(("procmond", "shed"), (9, 9)).unwrap();
    change.commit().unwrap();
    drop(db);
    let found = checked(&Store::open_offline(dir.path()).unwrap());
    let tables: Vec<&str> = found.problems.iter().filter_map(|problem| problem.place.split(' ').nth(1)).collect();
    assert_eq!(tables, ["alerts_by_status", "alerts_by_key", "alert_deliveries_due", "coverage_newest"], "{found:?}");
}

#[test]
fn a_check_that_is_stopped_says_that_it_is_not_whole() {
    let dir = sealed(3);
    let store = open(dir.path());
    let found = store.fsck(&mut |done, _| done == 0).unwrap();
    assert!(!found.finished && !found.is_sound() && found.segments == 1, "{found:?}");
}

#[test]
fn figures_add_up_to_what_lies_on_the_disk() {
    let dir = sealed(3);
    let store = open(dir.path());
    let figures = store.figures().unwrap();
    let [level] = figures.segments.as_slice() else { panic!("{figures:?}") };
    let bytes: u64 = parquet(&dir.path().join("segments")).iter().map(|path| path.metadata().unwrap().len()).sum();
    assert_eq!(
        (level.table.as_str(), level.level, level.segments, level.rows, level.bytes),
        ("process_events", 0, 3, 30, bytes)
    );
    assert_eq!((level.from_us, level.to_us), (T0 + 1_000_000, T0 + 30_000_000));
    let of_columns: u64 = figures.columns.iter().map(|column| column.bytes).sum();
    assert!(of_columns > 0 && of_columns < bytes, "footers are no column's");
    assert!(figures.columns.iter().any(|column| column.column == "entity_id" && column.bytes_per_row > 0.0));
    assert!(figures.columns.is_sorted_by(|a, b| a.bytes >= b.bytes));
    assert_eq!(figures.watermarks.len(), 1);
    assert_eq!(figures.bytes, bytes + figures.state_bytes);
    assert_eq!(figures.unreadable_segments, 0);
    let paths = parquet(&dir.path().join("segments"));
    let mut changed = std::fs::read(&paths[0]).unwrap();
    changed[40] ^= 1;
    std::fs::write(&paths[0], changed).unwrap();
    store.check_segments().unwrap();
    let figures = store.figures().unwrap();
    assert_eq!(figures.unreadable_segments, 1, "its footer is whole");
    assert!(figures.columns.iter().map(|column| column.bytes).sum::<u64>() < of_columns);
}

#[test]
fn what_goes_next_is_the_oldest_and_when() {
    let dir = sealed(12);
    let store = open(dir.path());
    let age_us = i64::try_from(store_age().as_micros()).unwrap();
    let outlook = store.outlook(T0 + age_us + 25_000_000).unwrap();
    assert_eq!((outlook.segments, outlook.due_segments, outlook.next.len()), (12, 2, 10));
    let first = &outlook.next[0];
    assert_eq!((first.rows, first.to_us, first.goes_us), (10, T0 + 10_000_000, T0 + 10_000_000 + age_us));
    drop(store);
    let retention_bytes = outlook.segment_bytes - 1;
    let options = StoreOptions { retention_bytes, ..StoreOptions::new(dir.path()) };
    let by_size = Store::open(options).unwrap().outlook(T0).unwrap();
    assert_eq!((by_size.due_segments, by_size.retention_bytes), (1, retention_bytes));
}

#[test]
fn a_backup_taken_under_ingest_has_every_event_once_after_catching_up() {
    const LAST: u64 = 400;
    let dir = sealed(1);
    let store = open(dir.path());
    let stop = AtomicBool::new(false);
    let copies: Vec<tempfile::TempDir> = std::thread::scope(|scope| {
        let writer = scope.spawn(|| {
            let mut at = 11;
            while at + 6 < LAST && !stop.load(Ordering::SeqCst) {
                let records: Vec<_> = (at..at + 7).map(start).collect();
                store.append(daemoneye_engine::ingest::decode("procmond", &records).unwrap()).unwrap();
                if at.is_multiple_of(3) {
                    store.seal().unwrap();
                }
                at += 7;
            }
        });
        let copies = (0..8).map(|_| {
            let copy = tempfile::tempdir().unwrap();
            write_out(&store, copy.path());
            copy
        });
        let copies = copies.collect();
        stop.store(true, Ordering::SeqCst);
        writer.join().unwrap();
        copies
    });
    for copy in copies {
        let told: serde_json::Value =
            serde_json::from_str(&fs::read_to_string(copy.path().join("backup-manifest.json")).unwrap()).unwrap();
        let restored = open(copy.path());
        let committed = restored.committed("procmond").unwrap();
        assert_eq!(told["watermarks"]["procmond"], committed.to_string(), "the manifest is of the same moment");
        assert_eq!(rows(&restored), committed.number, "what is committed is there, and nothing else");
        // The collector's log begins somewhere before the watermark.
        for first in (1..=LAST).step_by(50) {
            let records: Vec<_> = (first..first + 50).map(start).collect();
            restored.append(daemoneye_engine::ingest::decode("procmond", &records).unwrap()).unwrap();
        }
        restored.seal().unwrap();
        let restored = std::sync::Arc::new(restored);
        let each = "SELECT count(*), count(DISTINCT seq), min(seq), max(seq) FROM process_events";
        assert_eq!(super::golden::answer(&restored, each), ["400", "400", "1", "400"]);
    }
}

#[test]
fn a_backup_hands_out_the_watermarks_that_its_seal_has_moved() {
    let dir = sealed(1);
    let store = open(dir.path());
    assert_eq!(store.begin_backup().unwrap().sealed(), []);
    store.append(daemoneye_engine::ingest::decode("procmond", &[start(11)]).unwrap()).unwrap();
    let backup = store.begin_backup().unwrap();
    assert_eq!(backup.sealed(), [("procmond".to_owned(), store.committed("procmond").unwrap())]);
}
