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
    let told: Vec<_> = coverage.iter().map(|row| (row.gap.reason.as_str(), row.gap.from_us, row.gap.count)).collect();
    assert_eq!(told, [("retention", T0, Some(1_600))], "neighbours are one row");
    assert_eq!(rows(&store.snapshot()).len(), 1_600);
    store.expire(T0 + 5 * DAY_US).unwrap();
    let counts: Vec<_> = store.coverage().unwrap().into_iter().map(|row| row.gap.count).collect();
    assert_eq!(counts, [Some(2_400)], "and so is what went later");
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

#[test]
fn gaps_go_with_the_history_that_they_are_about() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(StoreOptions { retention: Duration::from_secs(86_400), ..options(dir.path()) }).unwrap();
    let gap = |day: i64, reason: &str| CoverageGap {
        collector: "procmond".to_owned(),
        reason: reason.to_owned(),
        from_us: T0 + day * DAY_US,
        to_us: T0 + day * DAY_US + 1,
        ..CoverageGap::default()
    };
    for (day, reason) in [(0, "wal_bound"), (1, "kernel_lost"), (2, "wal_bound"), (9, "wal_bound")] {
        store.add_coverage(gap(day, reason)).unwrap();
    }
    store.expire(T0 + 3 * DAY_US).unwrap();
    let left = |store: &Store| -> Vec<(i64, String)> {
        let rows = store.coverage().unwrap().into_iter();
        rows.map(|row| ((row.gap.from_us - T0) / DAY_US, row.gap.reason)).collect()
    };
    let kept =
        |days: &[(i64, &str)]| days.iter().map(|(day, reason)| (*day, (*reason).to_owned())).collect::<Vec<_>>();
    assert_eq!(
        left(&store),
        kept(&[(1, "kernel_lost"), (2, "wal_bound"), (9, "wal_bound")]),
        "the newest of a kind stays"
    );
    store.expire(T0 + 12 * DAY_US).unwrap();
    assert_eq!(left(&store), kept(&[(1, "kernel_lost"), (9, "wal_bound")]));
    let noted = store.audit_pending(100).unwrap().into_iter().filter(|entry| entry.action == "retention");
    let rows = noted.map(|entry| serde_json::from_slice::<serde_json::Value>(&entry.payload).unwrap());
    assert_eq!(rows.map(|payload| payload["coverage"].as_u64().unwrap()).collect::<Vec<_>>(), [1, 1]);
}

/// The time of this host, to the second.
fn now_us() -> i64 {
    i64::try_from(std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs()).unwrap()
        * 1_000_000
}

#[test]
fn an_event_dated_years_ahead_keeps_no_neighbour_and_stays_as_long_as_they_do() {
    let dir = tempfile::tempdir().unwrap();
    let (store, mut collector) = (open(dir.path()), Collector::new("procmond", 1));
    let now = now_us();
    let retention = i64::try_from(StoreOptions::new("").retention.as_micros()).unwrap();
    for part in 0..4 {
        store.append(collector.events(10, now - HOUR_US / 2 + part * 60_000_000, 1)).unwrap();
        store.append(collector.events(1, now + 20 * 365 * DAY_US, 1)).unwrap();
        store.seal().unwrap();
    }
    seal(&store, collector.events(3, now + 30 * 365 * DAY_US, 1));
    assert!(store.snapshot().segments.iter().all(|file| file.last_us > now && file.dated.us() < now + HOUR_US));
    assert!(compact(&store, now + 3 * DAY_US) >= 1, "they are merged as all others of their day");
    assert!(store.snapshot().segments.len() <= 2, "half an hour lies in two days at most");
    assert_eq!(rows(&store.snapshot()).len(), 47);
    drop(store);
    let store = open(dir.path());
    let outlook = store.outlook(now + retention + HOUR_US).unwrap();
    assert!(outlook.due_segments == outlook.segments && outlook.next[0].goes_us < now + retention + HOUR_US);
    assert_eq!(store.expire(now + retention - HOUR_US).unwrap().segments, 0, "nor is it lost early");
    assert_eq!(store.expire(now + retention + HOUR_US).unwrap().rows, 47);
    let told = store.coverage().unwrap();
    assert!(told.iter().all(|row| row.gap.to_us < now + HOUR_US), "no gap reaches into the future: {told:?}");
}

#[test]
fn what_was_stored_while_a_step_of_the_clock_was_not_believed_is_dated_when_it_is() {
    let dir = tempfile::tempdir().unwrap();
    let (store, mut collector) = (open(dir.path()), Collector::new("procmond", 1));
    let (now, off) = (now_us(), 10 * DAY_US);
    let dated = |store: &Store| store.snapshot().segments[0].dated.us();
    // The host was off for ten days.
    store.watch_clock(now - off, Duration::ZERO).unwrap();
    store.watch_clock(now, Duration::from_secs(60)).unwrap();
    seal(&store, collector.events(10, now - 60_000_000, 1));
    assert!(dated(&store) < now - off + HOUR_US, "as long as it may be wrong, so may the events");
    drop(store);
    let store = open(dir.path());
    store.watch_clock(now + DAY_US, Duration::from_secs(86_400)).unwrap();
    assert_eq!(dated(&store), now - 60_000_000 + 9, "it goes no day too early");
    drop(store);
    assert_eq!(dated(&open(dir.path())), now - 60_000_000 + 9);
}

#[test]
fn merging_goes_by_the_believed_clock_too() {
    let dir = tempfile::tempdir().unwrap();
    let (store, mut collector) = (open(dir.path()), Collector::new("procmond", 1));
    for half in 0..2 {
        seal(&store, collector.events(10, T0 + half * HOUR_US / 2, 1));
    }
    let now = now_us();
    assert_eq!(store.compaction_state().unwrap().due_segments, 2);
    // A host whose clock was set ten years ahead.
    store.watch_clock(T0, Duration::ZERO).unwrap();
    store.watch_clock(now + 10 * 365 * DAY_US, Duration::from_secs(60)).unwrap();
    assert!(store.believed_us() < T0 + HOUR_US);
    assert_eq!(store.compaction_state().unwrap().due_segments, 0, "the hour has not ended");
    assert_eq!(compact(&store, store.believed_us()), 0);
}
