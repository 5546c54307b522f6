//! What the kernel announces, and what of it is lost or comes at a bad time.

use super::*;

#[tokio::test]
async fn announcements_become_events_at_once_and_losses_are_told_with_their_exact_number() {
    let (steps, kernel) = script();
    let mut running = Running::start(chosen(Table::of(3), Some(kernel)), HOUR);
    assert_eq!(running.event(3).await.source, "table");
    steps.send(fork(7)).unwrap();
    let event = running.event(7).await;
    assert_eq!((event.source.as_str(), event.start_kind()), ("script", StartKind::Fork));
    steps.send(Step::Lose(40)).unwrap();
    let gap = running.gap("kernel_lost").await;
    assert_eq!((gap.count, gap.from_us), (Some(40), event.time_us), "nothing is known to be lost before");
    let health = running.monitor.health().await;
    let recall = health.recall_percent.unwrap();
    assert_eq!((health.kernel_lost, format!("{recall:.3}").as_str()), (40, "2.439"), "1 of 41");
    assert!(health.notes.iter().any(|note| note.starts_with("40 announcements")), "{:?}", health.notes);
    let caps = running.monitor.capabilities();
    assert_eq!((caps.bits & 48, caps.source.as_str()), (48, "script"));
    running.end().await;
}

#[tokio::test]
async fn what_only_a_snapshot_found_is_told_and_lowers_the_recall() {
    // It lives, and tells of nobody's start.
    let renames = |wait: Duration| {
        std::thread::park_timeout(wait.min(Duration::from_millis(5)));
        let what = What::Rename("p".to_owned());
        Some(Step::Announce(Notice { time_us: now_us(), pid: 1, start_ticks: Some(1), what }))
    };
    let kernel = Box::new(Script(renames, 0));
    let mut running = Running::start(chosen(Table::growing(), Some(kernel)), Duration::from_millis(100));
    let gap = running.gap("announcements_missed").await;
    assert_eq!(gap.count, Some(1), "{gap:?}");
    assert!(gap.detail.contains("recall 0.00 percent"), "{gap:?}");
    assert_eq!(running.monitor.health().await.recall_percent, Some(0.0));
    running.end().await;
}

#[tokio::test]
async fn what_is_announced_during_a_pause_is_dropped_and_told_with_its_number() {
    let (steps, kernel) = script();
    let alone = Alone::new(chosen(Table::growing(), Some(kernel)));
    let run = alone.run();
    alone.has_written(3).await;

    alone.settings.send_modify(|settings| settings.paused = true);
    steps.send(fork(7)).unwrap();
    let dropped = "1 announcements came during pauses and were dropped";
    until(async || alone.monitor.health().await.notes.iter().any(|note| note == dropped)).await;
    alone.settings.send_modify(|settings| settings.paused = false);
    // Three of the baseline, the gap, and the one that has come during the pause.
    alone.has_written(5).await;
    alone.shutdown.cancel();
    run.await.unwrap().unwrap();

    let told: Vec<_> = alone.log(gap_in).into_iter().map(|gap| (gap.reason, gap.count)).collect();
    assert_eq!(told, [("paused".to_owned(), Some(1))]);
    let mut pids = alone.log(|record| event_in(record).as_ref().map(pid_of));
    pids.sort_unstable();
    assert_eq!(pids, [1, 2, 3, 4]);
    let health = alone.monitor.health().await;
    assert_eq!((health.missed, health.recall_percent), (0, Some(100.0)));
}
