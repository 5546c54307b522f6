//! What a merge does, one at a time.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use daemoneye_engine::sql::{NoCollectors, QueryEngine, QueryLimits};
use daemoneye_engine::store::Vacuumed;
use daemoneye_lib::model::Degraded;
use daemoneye_lib::proto::QueryRequest;

use super::*;

/// Two days of one event a minute, sealed twice an hour.
fn two_days(dir: &Path) -> (Store, Collector) {
    let (store, mut collector) = (open(dir), Collector::new("procmond", 1));
    for half in 0..2 * 24 * 2 {
        seal(&store, collector.events(30, T0 + half * HOUR_US / 2, 60_000_000));
    }
    (store, collector)
}

fn levels(store: &Store) -> Vec<u8> {
    store.snapshot().segments.iter().map(|file| file.level).collect()
}

#[test]
fn segments_become_hours_and_hours_become_days_once_they_have_ended() {
    let dir = tempfile::tempdir().unwrap();
    let (store, _) = two_days(dir.path());
    let before = rows(&store.snapshot());
    assert_eq!(compact(&store, T0), 0, "nothing has ended yet");
    assert_eq!(compact(&store, T0 + 2 * HOUR_US), 1, "the second hour may still get events");
    let merged = store.snapshot();
    assert_eq!((merged.segments.len(), merged.segments[0].level, merged.segments[0].rows), (95, 1, 60));
    assert_eq!(compact(&store, T0 + 36 * HOUR_US), 1 + 11, "the first day and eleven hours of the second");
    assert_eq!(levels(&store), [[2].as_slice(), &[1; 11], &[0; 13 * 2]].concat());
    assert_eq!(compact(&store, T0 + 3 * DAY_US), 1);
    assert_eq!(levels(&store), [2, 2]);
    let after = store.snapshot();
    assert_eq!(rows(&after), before);
    assert_registered_exactly(&after);
    assert_eq!(after.segments[0].ranges.len(), 1, "a stream without gaps is one range");
    drop((merged, after));
    assert_eq!(compact(&store, T0 + 4 * DAY_US), 0, "and that is all");
    assert_only_listed_files(&store, dir.path());
    let state = store.compaction_state().unwrap();
    assert_eq!((state.merges, state.failures, state.levels[2].rows, state.due_segments), (14, 0, 2880, 0));
    assert_eq!(state.levels.map(|level| level.level), [0, 1, 2]);
    drop(store);
    let store = open(dir.path());
    assert_eq!(rows(&store.snapshot()), before);
}

#[test]
fn interleaved_streams_are_one_file_by_time() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let (mut one, mut other) = (Collector::new("procmond", 1), Collector::new("netmond", 2));
    for part in 0..6 {
        store.append(one.events(300, T0 + part * 300_000_000, 1_000_003)).unwrap();
        store.append(other.events(200, T0 + part * 299_000_000, 1_500_001)).unwrap();
        store.seal().unwrap();
    }
    let before = rows(&store.snapshot());
    assert_registered_exactly(&store.snapshot());
    assert_eq!(compact(&store, T0 + 2 * HOUR_US), 1);
    let after = store.snapshot();
    assert_eq!((after.segments.len(), rows(&after)), (1, before));
    assert_registered_exactly(&after);
}

#[test]
fn what_comes_late_is_merged_when_it_is_worth_it_or_asked_for() {
    let dir = tempfile::tempdir().unwrap();
    let (store, mut collector) = two_days(dir.path());
    compact(&store, T0 + 3 * DAY_US);
    let late = |collector: &mut Collector| collector.events(2, T0 + 5 * HOUR_US + 1, 1);
    seal(&store, late(&mut collector));
    assert_eq!(compact(&store, T0 + 3 * DAY_US), 0, "one small file is not worth a day's");
    for _ in 0..15 {
        seal(&store, late(&mut collector));
    }
    // Files that all overlap are merged a few at a time.
    assert!(compact(&store, T0 + 3 * DAY_US) > 0);
    assert!(store.snapshot().segments.len() < 12);
    let before = rows(&store.snapshot());
    store.vacuum(T0 + 3 * DAY_US, &CancellationToken::new()).unwrap();
    assert_eq!(levels(&store), [2, 2]);
    assert_eq!((rows(&store.snapshot()), before.len()), (before.clone(), 2880 + 32));
    assert_registered_exactly(&store.snapshot());
}

#[test]
fn a_vacuum_ends_however_much_is_sealed_meanwhile() {
    let dir = tempfile::tempdir().unwrap();
    let (store, mut collector) = two_days(dir.path());
    let (stop, done) = (CancellationToken::new(), AtomicBool::new(false));
    let patience = Instant::now() + Duration::from_secs(180);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                seal(&store, collector.events(2, T0 + 5 * HOUR_US + 1, 1));
                if Instant::now() > patience {
                    stop.cancel();
                }
            }
        });
        let vacuumed = store.vacuum(T0 + 3 * DAY_US, &stop);
        done.store(true, Ordering::Relaxed);
        assert!(vacuumed.as_ref().is_ok_and(|vacuumed| vacuumed.complete), "{vacuumed:?}");
    });
    assert_registered_exactly(&store.snapshot());
}

#[test]
fn a_reader_keeps_its_files_until_it_has_left() {
    let dir = tempfile::tempdir().unwrap();
    let (store, _) = two_days(dir.path());
    let reader = store.snapshot();
    let before = rows(&reader);
    compact(&store, T0 + 3 * DAY_US);
    assert_eq!(rows(&reader), before, "it reads what it read");
    assert_eq!(rows(&store.snapshot()), before);
    assert_eq!(store.compaction_state().unwrap().leaving_files, 96);
    drop(reader);
    compact(&store, T0 + 3 * DAY_US);
    assert_eq!(store.compaction_state().unwrap().leaving_files, 0);
    assert_only_listed_files(&store, dir.path());
}

#[test]
fn files_that_were_still_read_when_the_agent_ended_go_at_the_next_start_and_are_no_loss() {
    let dir = tempfile::tempdir().unwrap();
    let (store, _) = two_days(dir.path());
    let (reader, before) = (store.snapshot(), rows(&store.snapshot()));
    compact(&store, T0 + 3 * DAY_US);
    drop(store);
    drop(reader);
    let offline = Store::open_offline(dir.path()).unwrap();
    assert_eq!((rows(&offline.snapshot()), offline.coverage().unwrap().len()), (before.clone(), 0));
    drop(offline);
    let store = open(dir.path());
    assert_eq!((rows(&store.snapshot()), store.coverage().unwrap().len()), (before, 0));
    assert_only_listed_files(&store, dir.path());
}

#[test]
fn a_flipped_bit_is_not_merged_but_named_and_the_rest_is() {
    let dir = tempfile::tempdir().unwrap();
    let (store, _) = two_days(dir.path());
    let bad = Arc::clone(&store.snapshot().segments[7]);
    let mut bytes = fs::read(&bad.path).unwrap();
    bytes[200] ^= 0x10;
    fs::write(&bad.path, bytes).unwrap();
    compact(&store, T0 + 3 * DAY_US);
    compact(&store, T0 + 3 * DAY_US);
    let snapshot = store.snapshot();
    assert_eq!(snapshot.damaged.iter().map(|file| &file.path).collect::<Vec<_>>(), [&bad.path]);
    assert_eq!(snapshot.completeness.degraded, [Degraded::DataUnreadable]);
    assert_eq!(snapshot.segments.iter().map(|file| file.rows).sum::<u64>(), 2880 - bad.rows);
    assert_eq!(levels(&store), [2, 2]);
    assert!(bad.path.exists(), "it may be the only copy");
}

#[test]
fn a_merged_file_that_is_gone_or_cut_is_named_at_the_start() {
    let dir = tempfile::tempdir().unwrap();
    let (store, _) = two_days(dir.path());
    compact(&store, T0 + 3 * DAY_US);
    let paths: Vec<PathBuf> = store.snapshot().segments.iter().map(|file| file.path.clone()).collect();
    drop(store);
    fs::remove_file(&paths[0]).unwrap();
    let store = open(dir.path());
    let damaged = store.snapshot().damaged;
    assert_eq!(damaged.iter().map(|file| (&file.path, file.rows)).collect::<Vec<_>>(), [(&paths[0], 1440)]);
    assert_eq!(store.snapshot().completeness.degraded, [Degraded::DataUnreadable]);
}

#[test]
fn a_merge_that_is_told_to_end_leaves_everything_as_it_was() {
    let dir = tempfile::tempdir().unwrap();
    let (store, _) = two_days(dir.path());
    let stop = CancellationToken::new();
    stop.cancel();
    assert_eq!(store.compact(T0 + 3 * DAY_US, &stop).unwrap(), None);
    assert_eq!(store.snapshot().segments.len(), 96);
    assert_only_listed_files(&store, dir.path());
    assert!(!store.vacuum(T0, &stop).unwrap().complete);
}

#[test]
fn a_full_disk_costs_the_merge_and_nothing_else() {
    let dir = tempfile::tempdir().unwrap();
    let (store, mut collector) = two_days(dir.path());
    // A directory in the place of the unfinished file: no merge can be written, as on a full disk.
    let partial = dir.path().join("segments/merge.parquet.tmp");
    fs::create_dir(&partial).unwrap();
    let failed = store.compact(T0 + 3 * DAY_US, &CancellationToken::new()).unwrap_err().to_string();
    assert!(failed.contains("merge.parquet.tmp"), "{failed}");
    let state = store.compaction_state().unwrap();
    assert_eq!((state.failures, state.last_error.as_deref(), state.running), (1, Some(failed.as_str()), None));
    seal(&store, collector.events(10, T0 + 2 * DAY_US, 1));
    fs::remove_dir(&partial).unwrap();
    assert_eq!(compact(&store, T0 + 3 * DAY_US), 2);
    assert_eq!(store.compaction_state().unwrap().last_error, None);
    assert_eq!(rows(&store.snapshot()).len(), 2890);
}

#[test]
fn a_vacuum_merges_what_it_can_makes_the_state_smaller_and_says_by_how_much() {
    let dir = tempfile::tempdir().unwrap();
    let (store, _) = two_days(dir.path());
    let before = rows(&store.snapshot());
    let reader = store.snapshot();
    let done = store.vacuum(T0, &CancellationToken::new()).unwrap();
    let Vacuumed { merges, segments_before, segments_after, files_removed, files_still_read, complete, .. } = done;
    assert_eq!((merges, segments_before, segments_after), (2, 96, 2), "{done:?}");
    assert_eq!((files_removed, files_still_read, complete), (0, 96, true));
    assert!(done.segment_bytes_after * 10 < done.segment_bytes_before, "{done:?}");
    assert!(done.state_compacted && done.state_bytes_after < done.state_bytes_before, "{done:?}");
    drop(reader);
    let again = store.vacuum(T0, &CancellationToken::new()).unwrap();
    assert_eq!((again.merges, again.files_removed, again.files_still_read), (0, 96, 0));
    assert_eq!(rows(&store.snapshot()), before);
    assert_only_listed_files(&store, dir.path());
}

#[test]
fn a_large_day_is_several_files_so_that_retention_can_take_small_steps() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(StoreOptions { retention_bytes: 2_000_000, ..options(dir.path()) }).unwrap();
    let mut collector = Collector::new("procmond", 1);
    for hour in 0..24 {
        seal(&store, collector.events(500, T0 + hour * HOUR_US, 1_000_000));
    }
    let before = rows(&store.snapshot());
    compact(&store, T0 + 3 * DAY_US);
    let after = store.snapshot();
    assert!(after.segments.len() > 1 && after.segments.len() < 12, "{} files", after.segments.len());
    assert!(after.segments.iter().all(|file| file.bytes <= 250_000));
    assert_eq!(rows(&after), before);
    assert_eq!(compact(&store, T0 + 4 * DAY_US), 0);
}

/// Rows of the answer and what is missing from it.
pub(super) async fn ask(engine: &QueryEngine, sql: &str) -> (u64, Vec<String>) {
    let request = QueryRequest { sql: sql.to_owned(), ..QueryRequest::default() };
    let mut run = engine.query(request, CancellationToken::new()).await.unwrap();
    while run.next_page().await.unwrap().is_some() {}
    (run.done().rows, run.done().completeness.unwrap().degraded)
}

#[tokio::test]
async fn a_flipped_bit_in_a_merged_file_costs_that_file_and_is_told() {
    let dir = tempfile::tempdir().unwrap();
    let (store, _) = two_days(dir.path());
    compact(&store, T0 + 3 * DAY_US);
    let bad = Arc::clone(&store.snapshot().segments[0]);
    let mut bytes = fs::read(&bad.path).unwrap();
    // In the middle of the first third: pages, far from the footer.
    let at = bytes.len() / 6;
    bytes[at..at + 64].iter_mut().for_each(|byte| *byte ^= 0xff);
    fs::write(&bad.path, bytes).unwrap();
    let store = Arc::new(store);
    let engine = QueryEngine::new(Arc::clone(&store), QueryLimits::default(), Arc::new(NoCollectors)).unwrap();
    let (rows, degraded) = ask(&engine, "SELECT * FROM process_events").await;
    assert_eq!((rows, degraded.as_slice()), (1440, ["data_unreadable".to_owned()].as_slice()));
    assert_eq!(store.snapshot().damaged.iter().map(|file| &file.path).collect::<Vec<_>>(), [&bad.path]);
    let elsewhere = "SELECT pid FROM process_events WHERE time >= '2026-02-01 00:00:00'";
    assert_eq!(ask(&engine, elsewhere).await, (1440, vec![]), "the other day is whole");
}

#[test]
fn lifetimes_become_days_in_files_of_their_own_and_each_stays_once() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let mut generator = Generator::new(11, T0);
    for _ in 0..12 {
        seal(&store, decode("procmond", &generator.records(200)).unwrap());
    }
    let before = store.snapshot();
    let lifetimes = |snapshot: &Snapshot| -> Vec<RecordBatch> {
        snapshot.lifetimes.iter().flat_map(|file| read(&file.path)).collect()
    };
    let ended = rows_of(&lifetimes(&before));
    assert!(
        before.lifetimes.len() == 12 && ended.len() > 100,
        "{} files, {} ended",
        before.lifetimes.len(),
        ended.len()
    );
    assert_eq!(compact(&store, T0 + 2 * DAY_US), 2, "one file for each table");
    let after = store.snapshot();
    assert_eq!((after.segments.len(), after.lifetimes.len(), after.lifetimes[0].level), (1, 1, 2));
    assert_eq!((rows_of(&lifetimes(&after)), rows(&after)), (ended, rows(&before)));
    assert!(ended_once(&lifetimes(&after)));
}

/// Whether no entity stands twice.
fn ended_once(batches: &[RecordBatch]) -> bool {
    let mut seen = std::collections::HashSet::new();
    batches.iter().all(|batch| {
        let entities = batch.column_by_name("entity_id").unwrap().as_string::<i32>().clone();
        entities.iter().all(|entity| seen.insert(entity.unwrap().to_owned()))
    })
}

#[test]
fn a_merge_that_fails_steps_back_and_the_others_go_on() {
    let dir = tempfile::tempdir().unwrap();
    let (store, _) = two_days(dir.path());
    let before = rows(&store.snapshot());
    let bad = Arc::clone(&store.snapshot().segments[7]);
    let aside = bad.path.with_extension("aside");
    // Reading it fails, as on a device with a bad sector; that may pass, so it is not taken for damaged.
    fs::rename(&bad.path, &aside).unwrap();
    fs::create_dir(&bad.path).unwrap();
    assert_eq!(compact(&store, T0 + 3 * DAY_US), 1, "the second day is merged though the first one comes before it");
    let state = store.compaction_state().unwrap();
    assert_eq!((state.merges, state.failures, state.set_back, state.levels[2].rows), (1, 1, 1, 1440));
    assert!(state.last_error.unwrap().contains(bad.path.file_name().unwrap().to_str().unwrap()));
    assert_eq!(compact(&store, T0 + 3 * DAY_US), 0);
    assert_eq!(store.compaction_state().unwrap().failures, 1, "it waits for its turn");
    let done = store.vacuum(T0 + 3 * DAY_US, &CancellationToken::new()).unwrap();
    assert_eq!((done.merges, done.failures, done.complete), (0, 1, false), "somebody who asks has it tried at once");

    fs::remove_dir(&bad.path).unwrap();
    fs::rename(&aside, &bad.path).unwrap();
    let done = store.vacuum(T0 + 3 * DAY_US, &CancellationToken::new()).unwrap();
    assert_eq!((done.merges, done.failures, done.complete), (1, 0, true));
    let state = store.compaction_state().unwrap();
    assert_eq!((state.set_back, state.last_error), (0, None));
    assert_eq!((levels(&store), rows(&store.snapshot())), (vec![2, 2], before));
}

#[test]
fn figures_of_events_and_of_lifetimes_are_told_apart() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let mut generator = Generator::new(11, T0);
    for _ in 0..3 {
        seal(&store, decode("procmond", &generator.records(200)).unwrap());
    }
    let (stats, snapshot) = (store.stats().unwrap(), store.snapshot());
    let sums = |files: &[Arc<daemoneye_engine::store::SegmentFile>]| {
        let sum =
            |of: fn(&daemoneye_engine::store::SegmentFile) -> u64| files.iter().map(|file| of(file)).sum::<u64>();
        (files.len() as u64, sum(|file| file.rows), sum(|file| file.bytes))
    };
    assert_eq!((stats.segments, stats.segment_rows, stats.segment_bytes), sums(&snapshot.segments));
    let lifetimes = (stats.lifetime_segments, stats.lifetime_rows, stats.lifetime_bytes);
    assert_eq!(lifetimes, sums(&snapshot.lifetimes));
    assert!(stats.lifetime_rows > 0 && stats.segment_rows == 600);
}
