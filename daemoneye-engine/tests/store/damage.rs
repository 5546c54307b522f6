//! What happens to a data directory that lost a part, was damaged, or was copied while in use: nothing is deleted that may be
//! the only copy, nothing is claimed that was not read, nothing panics.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use daemoneye_engine::ingest::decode;
use daemoneye_engine::store::{Store, StoreError, StoreOptions, Verification};
use daemoneye_lib::entity::EntityId;
use daemoneye_lib::exit::Exit;
use daemoneye_lib::proto::{EventType, ProcessEvent, ProcessRecord, Record, Sequence};
use daemoneye_lib::segment::{self, DurableNote, Kind, SegmentHeader, SegmentName, WalHeader};
use prost::Message as _;

pub(super) const T0: i64 = 1_760_000_000_000_000;

pub(super) fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let path = entry.unwrap().path();
        let target = to.join(path.file_name().unwrap());
        if path.is_dir() {
            copy(&path, &target);
        } else {
            fs::copy(&path, &target).unwrap();
        }
    }
}

/// `Err` when `work` panics.
pub(super) fn panics<T>(work: impl FnOnce() -> T) -> Result<T, ()> {
    std::panic::catch_unwind(std::panic::AssertUnwindSafe(work)).map_err(drop)
}

pub(super) fn open(dir: &Path) -> Store {
    Store::open(StoreOptions::new(dir)).unwrap()
}

pub(super) fn start(number: u64) -> Record {
    let pid = u32::try_from(number).unwrap();
    let time_us = T0 + i64::from(pid) * 1_000_000;
    let entity_id = EntityId::derive("boot", pid, 1).as_bytes().to_vec();
    let process = Some(ProcessRecord { entity_id, pid, ..ProcessRecord::default() });
    let event = ProcessEvent { event_type: EventType::Start.into(), time_us, process, ..ProcessEvent::default() };
    let sequence = Some(Sequence::new(1, number));
    Record { sequence, topic: "events.process.start".to_owned(), time_us, payload: event.encode_to_vec().into() }
}

pub(super) fn seal(store: &Store, numbers: std::ops::RangeInclusive<u64>) {
    let records: Vec<Record> = numbers.map(start).collect();
    store.append(decode("procmond", &records).unwrap()).unwrap();
    store.seal().unwrap();
}

/// A data directory with one segment of ten events per seal.
pub(super) fn sealed(seals: u64) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    for at in 0..seals {
        seal(&store, at * 10 + 1..=at * 10 + 10);
    }
    dir
}

pub(super) fn parquet(dir: &Path) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(dir) else { return Vec::new() };
    let mut found: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
    found.retain(|path| path.extension().is_some_and(|end| end == "parquet"));
    found.sort();
    found
}

pub(super) fn rows(store: &Store) -> u64 {
    let snapshot = store.snapshot();
    let open: usize = snapshot.open.iter().map(|batch| batch.num_rows()).sum();
    snapshot.segments.iter().map(|file| file.rows).sum::<u64>() + u64::try_from(open).unwrap()
}

fn reasons(store: &Store) -> Vec<String> {
    store.coverage().unwrap().into_iter().map(|row| row.gap.reason).collect()
}

/// A log as a collector writes it.
fn write_wal(dir: &Path, collector: &str, segment: u64, records: impl IntoIterator<Item = Record>) {
    fs::create_dir_all(dir).unwrap();
    let records: Vec<Record> = records.into_iter().collect();
    let first = records.first().unwrap().sequence.unwrap().number;
    let header = SegmentHeader { kind: Kind::Wal, previous_crc: 0, epoch: 1, segment, first };
    let mut bytes = header.encode().to_vec();
    let mut crc = 0;
    for record in records {
        let at = record.sequence.unwrap();
        let header = WalHeader { epoch: at.epoch, number: at.number, topic: record.topic, time_us: record.time_us };
        crc = segment::encode(&mut bytes, crc, at.number - 1, &header, &record.payload).unwrap();
    }
    fs::write(dir.join(SegmentName::wal(collector).file(segment)), bytes).unwrap();
}

#[test]
fn a_lost_state_is_refused_by_name_and_no_segment_is_touched() {
    for lose in [|path: &Path| fs::remove_file(path).unwrap(), |path: &Path| fs::write(path, b"").unwrap()] {
        let dir = sealed(3);
        let state = dir.path().join("state.redb");
        let saved = fs::read(&state).unwrap();
        lose(&state);
        for _ in 0..2 {
            for refused in [Store::open(StoreOptions::new(dir.path())), Store::open_offline(dir.path())] {
                let refused = refused.unwrap_err();
                assert!(matches!(&refused, StoreError::CorruptNoState { files: 3, .. }), "{refused}");
                assert_eq!(refused.exit(), Exit::Unreadable);
                let said = refused.to_string();
                assert!(
                    said.contains("state.redb") && said.contains("3 segment files") && said.contains("backup"),
                    "{said}"
                );
            }
        }
        assert_eq!(parquet(&dir.path().join("segments")).len(), 3);
        fs::write(&state, saved).unwrap();
        assert_eq!(rows(&open(dir.path())), 30, "the remedy works");
    }
}

#[test]
fn a_state_that_never_had_a_segment_is_no_state_for_those_that_are_there() {
    let dir = sealed(3);
    let fresh = tempfile::tempdir().unwrap();
    drop(open(fresh.path()));
    fs::copy(fresh.path().join("state.redb"), dir.path().join("state.redb")).unwrap();
    for refused in [Store::open(StoreOptions::new(dir.path())), Store::open_offline(dir.path())] {
        assert!(matches!(refused.unwrap_err(), StoreError::CorruptNoState { files: 3, .. }));
    }
    assert_eq!(parquet(&dir.path().join("segments")).len(), 3);
}

#[test]
fn segments_that_an_older_state_does_not_know_are_moved_aside_and_told() {
    let dir = sealed(2);
    let state = dir.path().join("state.redb");
    let older = fs::read(&state).unwrap();
    let store = open(dir.path());
    for at in 2..5 {
        seal(&store, at * 10 + 1..=at * 10 + 10);
    }
    drop(store);
    let segments = dir.path().join("segments");
    fs::write(segments.join("foreign.parquet"), b"what is this").unwrap();
    fs::write(&state, older).unwrap();

    let offline = Store::open_offline(dir.path()).unwrap();
    assert_eq!((rows(&offline), reasons(&offline)), (20, vec!["segments_unregistered".to_owned(); 4]));
    drop(offline);
    assert_eq!(parquet(&segments).len(), 6, "looking moves nothing");
    for _ in 0..2 {
        let store = open(dir.path());
        assert_eq!(rows(&store), 20);
        assert!(reasons(&store).iter().all(|reason| reason == "segments_unregistered"));
        assert!(!reasons(&store).is_empty());
        assert_eq!((parquet(&segments).len(), parquet(&segments.join("aside")).len()), (2, 4));
    }
}

#[test]
fn what_retention_left_on_the_disk_is_removed_and_not_told_again() {
    let dir = sealed(2);
    let segments = dir.path().join("segments");
    let expired = parquet(&segments);
    let store = open(dir.path());
    let reader = store.snapshot();
    assert_eq!(store.expire(i64::MAX).unwrap().segments, 2);
    drop(store);
    drop(reader);
    assert_eq!(parquet(&segments), expired, "a query still read them when the agent ended");
    let store = open(dir.path());
    assert_eq!((parquet(&segments).len(), parquet(&segments.join("aside")).len()), (0, 0));
    assert_eq!(reasons(&store), ["retention"]);
}

/// Opens both ways; whatever the bytes are, the answer is an error or a store.
fn opens_or_refuses(dir: &Path) -> [Option<StoreError>; 2] {
    let offline = Store::open_offline(dir).err();
    let online = Store::open(StoreOptions::new(dir)).err();
    [offline, online]
}

#[test]
fn a_state_that_is_no_database_says_so_with_its_remedy() {
    let whole = {
        let dir = sealed(2);
        fs::read(dir.path().join("state.redb")).unwrap()
    };
    let mut no_magic = whole.clone();
    no_magic[..16].fill(0x5a);
    for bytes in [b"not a database".to_vec(), no_magic, whole[..whole.len() / 2].to_vec(), whole[..100].to_vec()] {
        let dir = sealed(2);
        fs::write(dir.path().join("state.redb"), &bytes).unwrap();
        for refused in opens_or_refuses(dir.path()) {
            let refused = refused.unwrap();
            assert!(matches!(refused, StoreError::CorruptDatabase { .. }), "{} bytes: {refused:?}", bytes.len());
            assert_eq!(refused.exit(), Exit::Unreadable);
            let said = refused.to_string();
            assert!(said.contains("state.redb") && said.contains("backup") && said.contains("Parquet"), "{said}");
            assert!(!said.contains('\n'), "{said}");
        }
        assert_eq!(parquet(&dir.path().join("segments")).len(), 2);
    }
}

#[test]
fn a_state_damaged_anywhere_is_opened_or_refused_and_never_panics() {
    let dir = sealed(3);
    let state = dir.path().join("state.redb");
    let whole = fs::read(&state).unwrap();
    let used: Vec<usize> =
        (0..whole.len()).step_by(512).filter(|at| whole[*at..].iter().take(512).any(|b| *b != 0)).collect();
    let mut refusals = 0;
    for (turn, at) in used.iter().enumerate() {
        let mut bytes = whole.clone();
        let end = (at + 512).min(bytes.len());
        match turn % 3 {
            0 => bytes[*at..end].fill(0xff),
            1 => bytes[*at..end].fill(0),
            _ => bytes[*at..end].iter_mut().for_each(|byte| *byte ^= 0x55),
        }
        let copy = tempfile::tempdir().unwrap();
        fs::create_dir(copy.path().join("segments")).unwrap();
        for file in parquet(&dir.path().join("segments")) {
            fs::copy(&file, copy.path().join("segments").join(file.file_name().unwrap())).unwrap();
        }
        fs::write(copy.path().join("state.redb"), bytes).unwrap();
        refusals += opens_or_refuses(copy.path()).iter().flatten().count();
        let kept = parquet(&copy.path().join("segments")).len() + parquet(&copy.path().join("segments/aside")).len();
        assert_eq!(kept, 3, "damage at {at}");
    }
    assert!(refusals > 0);
}

#[test]
fn an_offline_copy_has_the_events_that_were_not_sealed_yet() {
    let dir = sealed(1);
    let wal = dir.path().join("wal");
    // The log reaches back before the watermark, and over two files.
    write_wal(&wal, "procmond", 1, (5..=20).map(start));
    write_wal(&wal, "procmond", 2, (21..=25).map(start));
    write_wal(&wal, "netmond", 1, (1..=3).map(start));
    let offline = Store::open_offline(dir.path()).unwrap();
    assert_eq!((rows(&offline), reasons(&offline)), (28, vec![]));
    assert_eq!(offline.live().unwrap().num_rows(), 25, "both logs tell of the same three processes");
    assert_eq!(offline.committed("procmond"), Some(Sequence::new(1, 10)), "reading commits nothing");
}

#[test]
fn events_that_were_acknowledged_and_are_not_in_a_copied_log_are_told() {
    let dir = sealed(1);
    let wal = dir.path().join("wal");
    write_wal(&wal, "procmond", 1, (11..=20).map(start));
    let note = DurableNote::path(&wal, &SegmentName::wal("procmond"));
    for (epoch, number, told) in [(1, 20, 0), (1, 25, 1), (0, 25, 0), (2, 21, 1)] {
        fs::write(&note, DurableNote { epoch, number }.encode()).unwrap();
        let offline = Store::open_offline(dir.path()).unwrap();
        assert_eq!((rows(&offline), reasons(&offline).len()), (20, told), "epoch {epoch}, number {number}");
        assert!(reasons(&offline).iter().all(|reason| reason == "wal_unreadable"));
    }
    let (offline, lost) = (Store::open_offline(dir.path()).unwrap(), "up to number 21, and has up to");
    assert!(offline.coverage().unwrap()[0].gap.detail.contains(lost), "{:?}", offline.coverage());
}

#[test]
fn a_log_alone_is_a_store_without_history() {
    let dir = tempfile::tempdir().unwrap();
    write_wal(&dir.path().join("wal"), "procmond", 1, (1..=7).map(start));
    let offline = Store::open_offline(dir.path()).unwrap();
    assert_eq!((rows(&offline), reasons(&offline)), (7, vec![]));
    assert!(!dir.path().join("state.redb").exists(), "the directory stays as it was");
}

#[test]
fn a_log_with_a_hole_or_that_cannot_be_read_is_told() {
    let dir = sealed(1);
    let wal = dir.path().join("wal");
    write_wal(&wal, "procmond", 1, (14..=20).map(start));
    let offline = Store::open_offline(dir.path()).unwrap();
    assert_eq!((rows(&offline), reasons(&offline)), (17, vec!["wal_unreadable".to_owned()]));

    fs::remove_dir_all(&wal).unwrap();
    fs::write(&wal, b"no directory").unwrap();
    let offline = Store::open_offline(dir.path()).unwrap();
    assert_eq!((rows(&offline), reasons(&offline)), (10, vec!["wal_unreadable".to_owned()]));

    fs::remove_file(&wal).unwrap();
    fs::create_dir_all(wal.join("procmond-00001.wal")).unwrap();
    let offline = Store::open_offline(dir.path()).unwrap();
    assert_eq!((rows(&offline), reasons(&offline)), (10, vec!["wal_unreadable".to_owned()]));
}

/// Reads everything once, `bytes` at a time; the names of what was set aside.
fn verify(store: &Store, bytes: u64) -> Vec<String> {
    let (mut pass, mut found) = (Verification::default(), Vec::new());
    for step in 0.. {
        let Some(damaged) = store.verify(&mut pass, bytes).unwrap() else { break };
        found.extend(damaged.iter().map(|one| one.path.file_name().unwrap().to_string_lossy().into_owned()));
        assert!(step < 100_000, "a pass ends");
    }
    found
}

#[test]
fn a_segment_that_cannot_be_read_now_is_not_taken_for_damaged() {
    let dir = sealed(3);
    let paths = parquet(&dir.path().join("segments"));
    let store = open(dir.path());
    let aside = paths[1].with_extension("aside");
    fs::rename(&paths[1], &aside).unwrap();
    // Neither missing nor other bytes: opening it fails, as it does without a free descriptor.
    std::os::unix::fs::symlink(&paths[1], &paths[1]).unwrap();
    let mut pass = Verification::default();
    for _ in 0..3 {
        let error = store.verify(&mut pass, u64::MAX).unwrap_err();
        assert!(error.to_string().contains(paths[1].file_name().unwrap().to_str().unwrap()), "{error}");
        assert!(store.verify(&mut pass, u64::MAX).unwrap().is_none(), "those behind it are read all the same");
    }
    assert!(!store.fsck(&mut |_, _| true).unwrap().is_sound());
    assert!(store.snapshot().damaged.is_empty() && store.coverage().unwrap().is_empty());
    fs::remove_file(&paths[1]).unwrap();
    fs::rename(&aside, &paths[1]).unwrap();
    assert!(store.verify(&mut pass, u64::MAX).unwrap().is_none(), "it goes on where it was");
}

#[test]
fn a_segment_that_is_flipped_cut_missing_or_another_is_named_and_skipped() {
    let dir = sealed(6);
    let paths = parquet(&dir.path().join("segments"));
    let whole: Vec<Vec<u8>> = paths.iter().map(|path| fs::read(path).unwrap()).collect();
    let store = open(dir.path());
    assert_eq!(verify(&store, 10_000), Vec::<String>::new());
    let mut flipped = whole[1].clone();
    flipped[whole[1].len() / 2] ^= 4;
    fs::write(&paths[1], flipped).unwrap();
    fs::write(&paths[2], &whole[2][..whole[2].len() - 7]).unwrap();
    fs::remove_file(&paths[3]).unwrap();
    fs::write(&paths[4], &whole[0]).unwrap();
    let name = |at: usize| paths[at].file_name().unwrap().to_str().unwrap().to_owned();
    let bad: Vec<String> = (1..5).map(name).collect();
    assert_eq!(verify(&store, 10_000), bad, "all of them, each once, a little at a time");
    assert_eq!(verify(&store, u64::MAX), Vec::<String>::new(), "what is set aside is read no more");

    let told = |store: &Store| -> Vec<(String, Option<u64>)> {
        let rows = store.coverage().unwrap().into_iter().map(|row| row.gap);
        rows.inspect(|gap| assert_eq!(gap.reason, "segment_damaged"))
            .map(|gap| (gap.detail.split(':').next().unwrap().to_owned(), gap.count))
            .collect()
    };
    let expected: Vec<_> = bad.iter().map(|name| (name.clone(), Some(10))).collect();
    assert_eq!(told(&store), expected);
    assert!(!store.snapshot().completeness.is_complete());
    assert_eq!(rows(&store), 20, "the others answer");
    drop(store);
    let store = open(dir.path());
    assert_eq!((store.snapshot().damaged.len(), rows(&store)), (4, 20), "a restart knows what was found before");
    assert!(!store.snapshot().completeness.is_complete());
    verify(&store, u64::MAX);
    assert_eq!(told(&store), expected, "a restart tells nothing twice");
    drop(store);
    for (path, bytes) in paths.iter().zip(&whole) {
        fs::write(path, bytes).unwrap();
    }
    let store = open(dir.path());
    assert_eq!(verify(&store, u64::MAX), Vec::<String>::new());
    assert!(store.snapshot().completeness.is_complete(), "what was put back is whole");
    assert_eq!(rows(&store), 60);
}

#[test]
fn a_clock_that_jumps_ten_years_removes_nothing() {
    const HOUR: Duration = Duration::from_secs(3_600);
    const HOUR_US: i64 = 3_600_000_000;
    const TEN_YEARS_US: i64 = 10 * 365 * 24 * HOUR_US;
    let dir = sealed(3);
    let (mut store, mut now) = (open(dir.path()), T0 + HOUR_US);
    assert_eq!(store.watch_clock(now, HOUR).unwrap(), 0);
    for hour in 1..24 {
        now += HOUR_US;
        let ahead = store.watch_clock(now + TEN_YEARS_US, HOUR).unwrap();
        assert_eq!((ahead, store.clock_ahead_us()), (TEN_YEARS_US, TEN_YEARS_US), "hour {hour}");
        assert_eq!(store.expire(now + TEN_YEARS_US - ahead).unwrap().segments, 0);
        if hour == 7 {
            drop(store);
            store = open(dir.path());
        }
    }
    // Set right again, and set back.
    for back in [0, TEN_YEARS_US] {
        assert_eq!(store.watch_clock(now - back, HOUR).unwrap(), 0);
        assert_eq!(store.expire(now - back).unwrap().segments, 0);
    }
    assert_eq!(rows(&store), 30);
    // A host that was off for ten years: nothing is removed at its start, everything a day later.
    let mut removed = Vec::new();
    for hour in 0..25 {
        let host = now + TEN_YEARS_US + hour * HOUR_US;
        let ahead = store.watch_clock(host, HOUR).unwrap();
        removed.push(store.expire(host - ahead).unwrap().segments);
    }
    assert_eq!((removed.iter().sum::<usize>(), removed[..23].iter().sum::<usize>()), (3, 0));
}

#[test]
fn events_that_lie_about_their_time_neither_keep_nor_remove_others() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    seal(&store, 1..=10);
    let liar = |number: u64, time_us: i64| {
        let honest = start(number);
        let event = ProcessEvent { time_us, ..ProcessEvent::decode(honest.payload.clone()).unwrap() };
        Record { time_us, payload: event.encode_to_vec().into(), ..honest }
    };
    for (number, time_us) in [(11, i64::MAX), (12, i64::MIN), (13, 0), (14, -1)] {
        store.append(decode("procmond", &[liar(number, time_us)]).unwrap()).unwrap();
        store.seal().unwrap();
    }
    seal(&store, 15..=20);
    assert_eq!(rows(&store), 20);
    store.watch_clock(T0, Duration::ZERO).unwrap();
    assert_eq!(store.clock_ahead_us(), 0, "no event sets the clock");
    store.expire(T0 + 60_000_000).unwrap();
    assert!(rows(&store) >= 17, "the honest ones and those of the future");
    drop(store);
    assert!(rows(&open(dir.path())) >= 17);
}

#[test]
fn an_offline_copy_of_a_merged_store_knows_who_has_ended() {
    let dir = sealed(2);
    let stop = |number: u64, time_us: i64| {
        let honest = start(1);
        let event = ProcessEvent {
            event_type: EventType::Stop.into(),
            time_us,
            ..ProcessEvent::decode(honest.payload.clone()).unwrap()
        };
        let sequence = Some(Sequence::new(1, number));
        Record { sequence, time_us, payload: event.encode_to_vec().into(), ..honest }
    };
    let store = open(dir.path());
    store.append(decode("procmond", &[stop(21, T0 + 60_000_000)]).unwrap()).unwrap();
    store.seal().unwrap();
    store.vacuum(T0 + 86_400_000_000, &tokio_util::sync::CancellationToken::new()).unwrap();
    drop(store);
    write_wal(&dir.path().join("wal"), "procmond", 1, [stop(22, T0 + 90_000_000)]);
    let offline = std::sync::Arc::new(Store::open_offline(dir.path()).unwrap());
    let ends = "SELECT count(*) FROM process_lifetimes WHERE stop_time IS NOT NULL";
    assert_eq!(super::golden::answer(&offline, ends), ["1"], "one end for each process");
}

#[test]
fn segments_whose_disk_was_away_are_used_again_when_it_is_back() {
    let dir = sealed(3);
    let (segments, away) = (dir.path().join("segments"), dir.path().join("away"));
    let store = open(dir.path());
    fs::rename(&segments, &away).unwrap();
    assert_eq!(verify(&store, u64::MAX).len(), 3);
    store.take_back().unwrap();
    assert_eq!((rows(&store), store.snapshot().damaged.len()), (0, 3), "it is still away");
    fs::rename(&away, &segments).unwrap();
    store.take_back().unwrap();
    assert_eq!((rows(&store), store.snapshot().completeness.is_complete()), (30, true));
    let told = store.audit_pending(100).unwrap();
    assert_eq!(told.iter().filter(|entry| entry.action == "segment-restored").count(), 3);

    // At a start, and with a file that came back changed.
    drop(store);
    fs::rename(&segments, &away).unwrap();
    let store = open(dir.path());
    let mut files = parquet(&away);
    let changed = files.remove(0);
    let mut bytes = fs::read(&changed).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(&changed, &bytes).unwrap();
    fs::remove_dir_all(&segments).unwrap();
    fs::rename(&away, &segments).unwrap();
    store.take_back().unwrap();
    assert_eq!(rows(&store), 20);
    assert_eq!(store.snapshot().damaged[0].what, "its bytes have changed");
    bytes[middle] ^= 1;
    fs::write(segments.join(changed.file_name().unwrap()), bytes).unwrap();
    verify(&store, u64::MAX);
    assert_eq!(rows(&store), 30, "the slow check looks at it again too");
}
