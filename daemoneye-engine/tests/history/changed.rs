//! A byte of a file that somebody changed, and that still decodes: no answer is made of it, and none is whole without it.

use std::sync::Arc;

use daemoneye_engine::sql::{NoCollectors, QueryEngine, QueryLimits};
use daemoneye_engine::store::Verification;

use super::compaction::ask;
use super::*;

const COUNT: &str = "SELECT pid FROM process_events";

/// Changes the name of the writer at the end of the file, which no reader minds.
fn change(path: &Path) {
    let mut bytes = fs::read(path).unwrap();
    let word = b"daemoneye ";
    let at = bytes.windows(word.len()).rposition(|part| part == word).unwrap();
    *bytes.get_mut(at).unwrap() ^= 1;
    fs::write(path, bytes).unwrap();
    assert_eq!(read(path).iter().map(RecordBatch::num_rows).sum::<usize>(), 100, "it decodes");
}

fn three_files(dir: &Path) -> (Store, Vec<PathBuf>) {
    let (store, mut collector) = (open(dir), Collector::new("procmond", 1));
    for hour in 0..3 {
        seal(&store, collector.events(100, T0 + hour * HOUR_US, 1_000_000));
    }
    let files = store.snapshot().segments.iter().map(|file| file.path.clone()).collect();
    (store, files)
}

fn engine(store: Store) -> (Arc<Store>, QueryEngine) {
    let store = Arc::new(store);
    let engine = QueryEngine::new(Arc::clone(&store), QueryLimits::default(), Arc::new(NoCollectors)).unwrap();
    (store, engine)
}

fn unreadable() -> Vec<String> {
    vec!["data_unreadable".to_owned()]
}

#[tokio::test]
async fn a_changed_file_of_a_copied_store_is_found_before_it_is_first_read() {
    let dir = tempfile::tempdir().unwrap();
    let (store, files) = three_files(dir.path());
    drop(store);
    change(&files[1]);
    let (store, engine) = engine(Store::open_offline(dir.path()).unwrap());
    let first_hour = format!("{COUNT} WHERE time < '2026-01-31 00:30:00'");
    assert_eq!(ask(&engine, &first_hour).await, (100, vec![]), "what is not read is not asked for");
    assert_eq!(ask(&engine, COUNT).await, (200, unreadable()));
    assert_eq!(store.snapshot().damaged.len(), 1);
}

#[tokio::test]
async fn a_file_that_changes_under_a_running_agent_is_found_by_the_next_query() {
    let dir = tempfile::tempdir().unwrap();
    let (store, files) = three_files(dir.path());
    let (store, engine) = engine(store);
    let mut pass = Verification::default();
    assert!(store.verify(&mut pass, u64::MAX).unwrap().is_none());
    assert_eq!(ask(&engine, COUNT).await, (300, vec![]));
    change(&files[2]);
    assert_eq!(ask(&engine, COUNT).await, (200, unreadable()));
    let told = store.coverage().unwrap();
    assert!(told.iter().any(|row| row.gap.reason == "segment_damaged"), "{told:?}");
    fs::remove_file(&files[0]).unwrap();
    assert_eq!(ask(&engine, COUNT).await, (100, unreadable()));
}

#[tokio::test]
async fn what_a_check_finds_is_missing_from_answers_as_it_says() {
    let dir = tempfile::tempdir().unwrap();
    let (store, files) = three_files(dir.path());
    let whole = fs::read(&files[0]).unwrap();
    change(&files[0]);
    let found = store.fsck(&mut |_, _| true).unwrap();
    assert_eq!(found.problems.len(), 1, "{found:?}");
    assert_eq!(store.snapshot().damaged.len(), 1, "set aside at once");
    let (store, engine) = engine(store);
    assert_eq!(ask(&engine, COUNT).await, (200, unreadable()));
    fs::write(&files[0], whole).unwrap();
    assert!(store.fsck(&mut |_, _| true).unwrap().is_sound());
    assert_eq!((ask(&engine, COUNT).await.0, store.snapshot().damaged.len()), (300, 0), "it was put back");
}

#[cfg(unix)]
#[tokio::test]
async fn a_pipe_in_the_place_of_a_file_holds_up_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let (store, files) = three_files(dir.path());
    drop(store);
    fs::remove_file(&files[1]).unwrap();
    let made = std::process::Command::new("mkfifo").arg(&files[1]).status().unwrap();
    assert!(made.success());
    let (store, engine) = engine(Store::open_offline(dir.path()).unwrap());
    assert_eq!(ask(&engine, COUNT).await, (200, unreadable()));
    assert!(!store.fsck(&mut |_, _| true).unwrap().is_sound());
}
