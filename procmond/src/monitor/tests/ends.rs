//! A source or a run that ends: what follows it, and what is told of it.

use std::sync::atomic::{AtomicU64, Ordering};

use super::run::SILENT_LOOKS;
use super::*;

#[tokio::test]
async fn a_source_that_dies_is_followed_by_the_next_best_and_then_by_snapshots() {
    let ((first, kernel), (second, next)) = (script(), script());
    let next = Mutex::new(Some(next));
    let open: Open = Box::new(move |boot_id| {
        assert_eq!(boot_id, "boot");
        lock(&next).take().ok_or(KernelSourceError::Unavailable { source_name: "script", reason: "used up".into() })
    });
    let chosen = Chosen { next: vec![open], ..chosen(Table::of(3), Some(kernel)) };
    let mut running = Running::start(chosen, HOUR);
    running.event(3).await;
    first.send(Step::Die).unwrap();
    assert!(running.gap("source_fallback").await.detail.contains("the test says so"));
    second.send(fork(7)).unwrap();
    assert_eq!(running.event(7).await.source, "script");
    second.send(Step::Die).unwrap();
    running.gap("source_fallback").await;
    let caps = running.monitor.capabilities();
    assert_eq!((caps.bits & 48, caps.source.as_str()), (0, "table"));
    assert!(caps.notes.iter().any(|note| note.contains("the test says so")), "{:?}", caps.notes);
    // The snapshot that follows knows nothing of the announced process.
    assert_eq!(running.event(7).await.event_type(), EventType::Stop);
    running.end().await;
}

#[tokio::test]
async fn a_reader_that_ends_without_a_word_is_followed_by_snapshots() {
    let (steps, kernel) = script();
    let mut running = Running::start(chosen(Table::of(3), Some(kernel)), HOUR);
    running.event(3).await;
    steps.send(Step::Panic).unwrap();
    assert!(running.gap("source_fallback").await.detail.contains("without a word"));
    assert_eq!(running.monitor.capabilities().source, "table");
    running.end().await;
}

#[tokio::test]
async fn a_source_that_falls_silent_while_processes_start_is_followed_by_the_next_best() {
    let ((first, kernel), (second, next)) = (script(), script());
    let next = Mutex::new(Some(next));
    let open: Open = Box::new(move |_| Ok(lock(&next).take().unwrap()));
    let chosen = Chosen { next: vec![open], ..chosen(Table::growing(), Some(kernel)) };
    let mut running = Running::start(chosen, Duration::from_millis(100));
    first.send(fork(70)).unwrap();
    let announced = running.event(70).await;
    let gap = running.gap("source_fallback").await;
    assert!(gap.detail.contains("announces nothing any more"), "{gap:?}");
    assert!(gap.from_us >= announced.time_us && gap.from_us < gap.to_us, "{gap:?} {announced:?}");
    assert!(running.monitor.health().await.missed >= u64::from(SILENT_LOOKS));
    second.send(fork(71)).unwrap();
    assert_eq!(running.event(71).await.source, "script");
    running.end().await;
}

#[tokio::test]
async fn an_idle_host_silences_nobody() {
    let (steps, kernel) = script();
    let mut running = Running::start(chosen(Table::of(3), Some(kernel)), Duration::from_millis(20));
    running.event(3).await;
    until(async || running.monitor.health().await.cycles >= 6).await;
    steps.send(fork(7)).unwrap();
    assert_eq!(running.event(7).await.source, "script");
    assert!(running.monitor.capabilities().notes.iter().all(|note| !note.contains("announces nothing")));
    running.end().await;
}

#[tokio::test]
async fn what_is_lost_while_a_run_ends_is_told() {
    let lost = Arc::new(AtomicU64::new(0));
    let theirs = Arc::clone(&lost);
    let leak = move |wait| {
        std::thread::park_timeout(wait);
        theirs.fetch_add(1, Ordering::SeqCst);
        Some(Step::Lose(1))
    };
    let kernel = Box::new(Script(leak, 0));
    let mut running = Running::start(chosen(Table::of(3), Some(kernel)), HOUR);
    running.event(3).await;
    let monitor = Arc::clone(&running.monitor);
    running.end().await;
    assert_eq!(monitor.health().await.kernel_lost, lost.load(Ordering::SeqCst));
}

#[tokio::test]
async fn a_run_that_was_cut_off_leaves_its_source_to_the_next() {
    let (steps, kernel) = script();
    let alone = Alone::new(chosen(Table::of(3), Some(kernel)));
    let first = alone.run();
    alone.has_written(3).await;
    first.abort();
    first.await.unwrap_err();
    let second = alone.run();
    // The gap says that the source is back: until then its former thread may take what comes, and nobody hears it.
    alone.has_written(4).await;
    steps.send(fork(7)).unwrap();
    alone.has_written(5).await;
    alone.shutdown.cancel();
    second.await.unwrap().unwrap();
    assert_eq!(alone.monitor.capabilities().source, "script");
    let sources = alone.log(|record| event_in(record).map(|event| event.source));
    assert_eq!(sources, ["table", "table", "table", "script"]);
}
