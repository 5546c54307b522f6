//! History goes by age and by size, also when it is merged.

use super::*;

fn days(dir: &Path, options: StoreOptions, count: i64) -> Store {
    let (store, mut collector) = (Store::open(options).unwrap(), Collector::new("procmond", 1));
    for day in 0..count {
        for part in 0..4 {
            seal(&store, collector.events(200, T0 + day * DAY_US + part * 6 * HOUR_US, 1_000_000));
        }
    }
    compact(&store, T0 + (count + 1) * DAY_US);
    assert_eq!(store.snapshot().segments.len(), usize::try_from(count).unwrap());
    assert_only_listed_files(&store, dir);
    store
}

#[test]
fn merged_days_go_by_age_and_coverage_says_so() {
    let dir = tempfile::tempdir().unwrap();
    let kept = StoreOptions { retention: Duration::from_secs(2 * 86_400), ..options(dir.path()) };
    let store = days(dir.path(), kept, 4);
    let expired = store.expire(T0 + 4 * DAY_US).unwrap();
    assert_eq!((expired.segments, expired.rows), (2, 1_600));
    let coverage = store.coverage().unwrap();
    assert!(coverage.iter().all(|row| row.gap.reason == "retention"));
    assert_eq!(coverage.iter().filter_map(|row| row.gap.count).sum::<u64>(), 1_600);
    assert_eq!(rows(&store.snapshot()).len(), 1_600);
    assert_only_listed_files(&store, dir.path());
}

#[test]
fn the_oldest_go_when_all_together_are_too_large() {
    let dir = tempfile::tempdir().unwrap();
    let store = days(dir.path(), options(dir.path()), 4);
    let sizes: Vec<u64> = store.snapshot().segments.iter().map(|file| file.bytes).collect();
    drop(store);
    let two = sizes[2] + sizes[3];
    let store = Store::open(StoreOptions { retention_bytes: two, ..options(dir.path()) }).unwrap();
    let expired = store.expire_by_size().unwrap();
    assert_eq!((expired.segments, expired.bytes), (2, sizes[0] + sizes[1]));
    let left = store.snapshot().segments;
    assert!(left.iter().all(|file| file.first_us >= T0 + 2 * DAY_US));
    let coverage = store.coverage().unwrap();
    assert!(coverage.iter().all(|row| row.gap.reason == "retention" && row.gap.detail.contains("too large")));
    let noted = store.audit_pending(10).unwrap();
    assert!(noted.iter().any(|entry| entry.action == "retention"));
    assert_eq!(store.expire_by_size().unwrap().segments, 0);
    assert_eq!(store.expire(T0).unwrap().segments, 0, "nothing is old");
    assert_only_listed_files(&store, dir.path());
}
