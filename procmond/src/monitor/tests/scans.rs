//! Scans that do not see all, or do not come back.

use super::*;

#[tokio::test]
async fn a_table_that_hides_processes_ends_nobody() {
    let (steps, kernel) = script();
    let mut looks = 0..;
    let hiding = Table::that(move || {
        // All of three, then two of them with the word that some are hidden.
        let hiding = looks.next() != Some(0);
        CollectionStats { hiding, ..Table::shows(if hiding { 2 } else { 3 }) }
    });
    let mut running = Running::start(chosen(hiding, Some(kernel)), Duration::from_millis(50));
    running.event(3).await;
    until(async || running.monitor.health().await.cycles >= 3).await;
    steps.send(fork(9)).unwrap();
    let mut kinds = Vec::new();
    while kinds.last() != Some(&(9, EventType::Start)) {
        let event = running.next(event_in).await;
        kinds.push((pid_of(&event), event.event_type()));
    }
    assert_eq!(kinds, [(9, EventType::Start)]);
    let notes = running.monitor.health().await.notes;
    assert!(notes.iter().any(|note| note.contains("hidepid")), "{notes:?}");
    running.end().await;
}

#[tokio::test]
async fn a_scan_that_hangs_is_shown_and_announcements_go_on() {
    let ((steps, kernel), (let_go, held)) = (script(), std::sync::mpsc::channel::<()>());
    let stuck = Table::that(move || {
        held.recv().ok();
        CollectionStats::default()
    });
    let mut running = Running::start(chosen(stuck, Some(kernel)), HOUR);
    until(async || lock(&running.monitor.seen).scanning.is_some()).await;
    steps.send(fork(7)).unwrap();
    assert_eq!(running.event(7).await.start_kind(), StartKind::Fork);
    tokio::time::pause();
    tokio::time::advance(HANGING + Duration::from_secs(1)).await;
    let health = running.monitor.health().await;
    assert!(health.unhealthy && health.notes.iter().any(|note| note.contains("hanging")), "{:?}", health.notes);
    tokio::time::resume();
    drop(let_go);
    running.end().await;
}

#[tokio::test]
#[cfg(target_os = "linux")]
async fn executables_on_a_file_system_that_does_not_answer_hold_up_no_announcement() {
    let ((steps, kernel), (let_go, hasher)) = (script(), crate::hashing::tests::that_hangs());
    let door = Door::new(None, Some(hasher));
    let mut running = Running::behind(door, chosen(Table::of(3), Some(kernel)), HOUR);
    until(async || lock(&running.monitor.seen).scanning.is_some()).await;
    // One that the source knows nothing of but its path, one with what the kernel keeps of the file, and one without any.
    let key = crate::hashing::FileKey { device: (0, 1), inode: 1, size: 1, modified: (0, 0), changed: (0, 0) };
    for (pid, file) in [(7, None), (8, Some(key)), (9, Some(key))] {
        let record = ProcessRecord { executable_path: Some("/gone/p".to_owned()), ..ProcessRecord::default() };
        let what = What::Exec(Box::new(record), Image::UNSEEN, file);
        steps.send(Step::Announce(Notice { time_us: now_us(), pid, start_ticks: Some(1), what })).unwrap();
    }
    steps.send(fork(10)).unwrap();
    for pid in 7..=10 {
        assert_eq!(running.event(pid).await.source, "script");
    }
    let health = running.monitor.health().await;
    assert_eq!((health.entities, lock(&running.monitor.seen).scanning.is_some()), (4, true), "the scan waits");
    drop(let_go);
    running.event(3).await;
    running.end().await;
}
