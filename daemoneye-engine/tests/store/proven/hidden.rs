//! What an attacker hides without touching a row of events: what queries leave rows out by, and what is made of events.

use daemoneye_engine::store::HistoryTable;
use parquet::file::metadata::ParquetMetaData;
use parquet::file::reader::{FileReader as _, SerializedFileReader};

use super::*;

#[derive(Debug)]
struct Segments;

impl Named for Segments {
    const NAME: &'static str = "daemoneye::segments";
}

type Key = (&'static str, i64, u64);
const SEGMENTS: TableDefinition<'_, Key, Raw<Segments>> = TableDefinition::new("segments");

/// Every registered segment: its key, and its value as it lies there.
fn registered(dir: &Path) -> Vec<((String, i64, u64), Vec<u8>)> {
    let database = redb::Database::open(dir.join("state.redb")).unwrap();
    let transaction = redb::ReadableDatabase::begin_read(&database).unwrap();
    let table = transaction.open_table(SEGMENTS).unwrap();
    let one = |row: Result<(redb::AccessGuard<'_, Key>, redb::AccessGuard<'_, Raw<Segments>>), _>| {
        let (key, value) = row.unwrap();
        let (table, us, id) = key.value();
        ((table.to_owned(), us, id), value.value().to_vec())
    };
    redb::ReadableTable::iter(&table).unwrap().map(one).collect()
}

/// Changes a value of a registered segment.
fn register(dir: &Path, (table, us, id): &(String, i64, u64), value: Option<&[u8]>) {
    let database = redb::Database::open(dir.join("state.redb")).unwrap();
    let transaction = database.begin_write().unwrap();
    let name = HistoryTable::named(table).unwrap().name();
    {
        let mut table = transaction.open_table(SEGMENTS).unwrap();
        match value {
            Some(value) => drop(table.insert((name, *us, *id), value).unwrap()),
            None => drop(table.remove((name, *us, *id)).unwrap()),
        }
    }
    transaction.commit().unwrap();
}

fn path_of(store: &Store) -> PathBuf {
    store.snapshot().segments.first().unwrap().path.clone()
}

/// What is found of a store in whose only file of events `change` was made, and which has the changed file registered if it `is_known`.
fn changed(is_known: bool, change: impl Fn(&mut Vec<u8>, &ParquetMetaData)) -> Vec<(String, String)> {
    let dir = tempfile::tempdir().unwrap();
    let mut ledger = Ledger::new(dir.path());
    let records: Vec<Record> = (1..=40).map(|number| event(number, if number == 14 { "zoo" } else { "sh" })).collect();
    ledger.cover(&records, 4);
    let store = filled(dir.path(), &records, &[]);
    store.seal().unwrap();
    ledger.drain(&store);
    let found = compare(&store, dir.path());
    assert!(found.is_sound() && found.events == 40, "{found:?}");
    let path = path_of(&store);
    drop(store);
    let mut bytes = fs::read(&path).unwrap();
    let before = *blake3::hash(&bytes).as_bytes();
    let footer = SerializedFileReader::new(fs::File::open(&path).unwrap()).unwrap().metadata().clone();
    change(&mut bytes, &footer);
    fs::write(&path, &bytes).unwrap();
    if is_known {
        let (key, mut value) = registered(dir.path()).into_iter().find(|(key, _)| key.0 == "process_events").unwrap();
        let at = value.windows(32).position(|bytes| bytes == before).unwrap();
        value.get_mut(at..at + 32).unwrap().copy_from_slice(blake3::hash(&bytes).as_bytes());
        register(dir.path(), &key, Some(&value));
    }
    let store = Store::open(options(dir.path())).unwrap();
    let found = compare(&store, dir.path());
    assert_eq!(found.events, 40, "the rows are as they were: {found:?}");
    found.problems.into_iter().map(|problem| (problem.place, problem.what)).collect()
}

fn replace(bytes: &mut [u8], from: &[u8], to: &[u8]) {
    let windows = bytes.windows(from.len()).enumerate();
    let places: Vec<usize> = windows.filter(|(_, window)| *window == from).map(|(at, _)| at).collect();
    assert!(!places.is_empty());
    places.into_iter().for_each(|at| bytes.get_mut(at..at + to.len()).unwrap().copy_from_slice(to));
}

/// Where the footer begins.
fn footer_at(bytes: &[u8]) -> usize {
    let end = bytes.len() - 8;
    end - u32::from_le_bytes(bytes.get(end..end + 4).unwrap().try_into().unwrap()) as usize
}

fn hides(found: &[(String, String)], by: &str) {
    assert_eq!(found.len(), 1, "{found:?}");
    let (place, what) = found.first().unwrap();
    assert_eq!(place, "procmond:1:14", "{found:?}");
    assert!(what.starts_with(&format!("no query shows it: {by}")), "{found:?}");
}

#[test]
fn a_row_that_statistics_leave_out_is_named() {
    let found = changed(true, |bytes, _| {
        let from = footer_at(bytes);
        replace(&mut bytes[from..], b"zoo", b"sho");
    });
    hides(&found, "the statistics of name");
}

#[test]
fn a_row_that_the_index_of_pages_leaves_out_is_named() {
    let found = changed(true, |bytes, footer| {
        let name = footer.row_groups()[0].columns().iter().find(|column| column.column_path().string() == "name");
        let name = name.unwrap();
        let from = usize::try_from(name.column_index_offset().unwrap()).unwrap();
        let to = from + usize::try_from(name.column_index_length().unwrap()).unwrap();
        replace(&mut bytes[from..to], b"zoo", b"sho");
    });
    hides(&found, "the page index of name");
}

#[test]
fn a_row_that_a_bloom_filter_leaves_out_is_named() {
    let found = changed(true, |bytes, footer| {
        let name = footer.row_groups()[0].columns().iter().find(|column| column.column_path().string() == "name");
        let name = name.unwrap();
        let from = usize::try_from(name.bloom_filter_offset().unwrap()).unwrap();
        let to = from + usize::try_from(name.bloom_filter_length().unwrap()).unwrap();
        // Behind its header, all but what the other name sets.
        let mut other = parquet::bloom_filter::Sbbf::new_with_num_of_bytes(32);
        other.insert("sh");
        let mut bits = Vec::new();
        other.write_bitset(&mut bits).unwrap();
        assert!(bytes[from..to].ends_with(&bytes[to - 32..to]) && to - from < 64, "one block");
        bytes[to - 32..to].copy_from_slice(&bits);
    });
    hides(&found, "the Bloom filter of name");
}

#[test]
fn a_file_that_is_not_the_registered_one_is_named_though_its_rows_are() {
    let found = changed(false, |bytes, _| {
        let from = footer_at(bytes);
        // Who wrote it, which decides nothing.
        let at = (from..bytes.len()).find(|at| bytes[*at..].starts_with(b"daemoneye 0")).unwrap();
        bytes[at] = b'D';
    });
    let [(place, what)] = found.as_slice() else { panic!("{found:?}") };
    assert!(place.starts_with("segments/process_events-") && what.contains("registered"), "{found:?}");
}

fn stop(number: u64, of: u64, name: &str) -> Record {
    let started = event(of, name);
    let mut event = ProcessEvent::decode(started.payload).unwrap();
    event.event_type = EventType::Stop.into();
    event.time_us = T0 + i64::try_from(number).unwrap() * 1_000;
    (event.exit_code, event.runtime_ms, event.end_observed) = (Some(0), Some(5), Some(true));
    let sequence = Some(Sequence::new(1, number));
    let (topic, time_us) = ("events.process.stop".into(), event.time_us);
    Record { sequence, topic, time_us, payload: event.encode_to_vec().into() }
}

/// Twenty processes that started and ended.
fn lived(name: &str) -> Vec<Record> {
    let named = |number: u64| if number == 5 { name } else { "sh" };
    let starts = (1..=20).map(|number| event(number, named(number)));
    starts.chain((1..=20).map(|number| stop(20 + number, number, named(number)))).collect()
}

fn sealed(records: &[Record]) -> (tempfile::TempDir, Ledger, Store) {
    let dir = tempfile::tempdir().unwrap();
    let mut ledger = Ledger::new(dir.path());
    ledger.cover(&lived("sh"), 4);
    let store = filled(dir.path(), records, &[30]);
    store.seal().unwrap();
    ledger.drain(&store);
    (dir, ledger, store)
}

fn copy_lifetimes(from: &Path, to: &Path) {
    for file in fs::read_dir(from.join("segments")).unwrap().map(Result::unwrap) {
        if file.file_name().to_str().unwrap().starts_with("process_lifetimes") {
            fs::copy(file.path(), to.join("segments").join(file.file_name())).unwrap();
        }
    }
}

#[test]
fn lifetimes_that_were_deleted_or_changed_are_named() {
    let (dir, _ledger, store) = sealed(&lived("sh"));
    let found = compare(&store, dir.path());
    assert!(found.is_sound(), "{found:?}");
    assert_eq!((found.lifetimes, found.lifetimes_unproven), (20, 0));
    drop(store);
    let of = |dir: &Path| {
        let mut all = registered(dir);
        all.retain(|(key, _)| key.0 == "process_lifetimes");
        all
    };
    // Of the second file the list forgets; of the first it has that of a store in which another process ended.
    let (other, _other_ledger, other_store) = sealed(&lived("us"));
    drop(other_store);
    let (mine, theirs) = (of(dir.path()), of(other.path()));
    assert_eq!((mine.len(), theirs.len()), (2, 2));
    register(dir.path(), &mine[1].0, None);
    register(dir.path(), &mine[0].0, Some(&theirs[0].1));
    copy_lifetimes(other.path(), dir.path());
    let store = Store::open(options(dir.path())).unwrap();
    let found = compare(&store, dir.path());
    let entity = |of: u32| format!("process_lifetimes, entity {}", EntityId::derive("boot", of, 1));
    let mut wanted: Vec<_> = (11..=20).map(|number| (entity(number), "deleted".to_owned())).collect();
    wanted.push((entity(5), "changed".to_owned()));
    let mut told = told(&found);
    told.sort_unstable();
    wanted.sort_unstable();
    assert_eq!((told, found.lifetimes), (wanted, 9));
}

#[test]
fn a_lifetime_that_was_put_in_is_named() {
    let (dir, _ledger, store) = sealed(&lived("sh"));
    drop(store);
    // Their events are those that were recorded; their lifetimes are of a store in which one more process ended.
    let mut more = lived("sh");
    more[39] = stop(40, 200, "sh");
    let (other, _other_ledger, other_store) = sealed(&more);
    drop(other_store);
    for (key, value) in registered(other.path()).into_iter().filter(|(key, _)| key.0 == "process_lifetimes") {
        register(dir.path(), &key, Some(&value));
    }
    copy_lifetimes(other.path(), dir.path());
    let store = Store::open(options(dir.path())).unwrap();
    let entity = |of: u32| format!("process_lifetimes, entity {}", EntityId::derive("boot", of, 1));
    let mut found = told(&compare(&store, dir.path()));
    found.sort_unstable();
    let mut wanted = [(entity(20), "deleted".to_owned()), (entity(200), "no".to_owned())];
    wanted.sort_unstable();
    assert_eq!(found, wanted);
}

#[test]
fn lifetimes_that_retention_took_are_no_finding() {
    let (dir, mut ledger, store) = sealed(&lived("sh"));
    drop(store);
    // File by file, the oldest first: now a stop has no lifetime, now a lifetime no stop.
    for left in (0..4).rev() {
        let files = fs::read_dir(dir.path().join("segments")).unwrap().map(|file| file.unwrap().path());
        let bytes: u64 = files.filter(|path| path.is_file()).map(|path| fs::metadata(path).unwrap().len()).sum();
        let store = Store::open(StoreOptions { retention_bytes: bytes - 1, ..options(dir.path()) }).unwrap();
        assert_eq!(store.expire_by_size().unwrap().segments, 1);
        ledger.drain(&store);
        let found = compare(&store, dir.path());
        assert!(found.is_sound(), "{left}: {found:?}");
        assert_eq!(found.lifetimes == 0, left < 2, "{left}: {found:?}");
        assert_eq!(found.events + found.removed, 40, "{left}: {found:?}");
    }
}

#[cfg(unix)]
#[test]
fn a_pipe_in_the_place_of_a_file_is_told_and_not_waited_for() {
    let (dir, mut ledger, records) = covered(4);
    let store = filled(dir.path(), &records, &[]);
    store.seal().unwrap();
    ledger.drain(&store);
    let path = path_of(&store);
    fs::remove_file(&path).unwrap();
    assert!(std::process::Command::new("mkfifo").arg(&path).status().unwrap().success());
    let found = compare(&store, dir.path());
    assert!(found.problems.iter().any(|problem| problem.what.contains("no regular file")), "{found:?}");
}
