//! Waiting for the agent, beginning without it, losing it and finding it again.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use collector_core::Runtime;
use collector_core::runtime::BusOptions;
use daemoneye_eventbus::{Notice, RpcError};
use daemoneye_lib::proto::collector_request::Verb;
use daemoneye_lib::proto::lifecycle::Phase;
use daemoneye_lib::proto::{DetectionTask, FaultKind, Lifecycle, QoS};
use daemoneye_lib::topic::Topic;
use prost::Message as _;
use tokio_util::sync::CancellationToken;

use super::house::{House, actions, ask, begin, health, names, stored};
use crate::support::{Faults, FaultyDisk, event, events, make_readable, make_unreadable, payloads, until};

#[tokio::test]
async fn it_waits_for_the_agents_word_and_then_streams_in_order() {
    let house = House::new();
    let broker = house.broker().await;
    let stop = CancellationToken::new();
    let running = tokio::spawn(house.collector().run(stop.clone()));
    house.registered(1).await;
    assert_eq!(health(&broker).await.state, "waiting_for_agent");
    assert_eq!(house.source.starts(), 0, "nothing is collected before the word");
    // What has no meaning on the lifecycle topic begins nothing.
    let nothing = Lifecycle { phase: Phase::ShuttingDown.into(), time_us: 1 };
    broker.publish(&Topic::Lifecycle, nothing.encode_to_vec().into(), QoS::default());
    assert_eq!(health(&broker).await.state, "waiting_for_agent");
    begin(&broker);
    house.source.feed(events(0..700)).await;
    house.has_received(700).await;
    let expected: Vec<String> = (0..700).map(|n| format!("payload {n}")).collect();
    assert_eq!(payloads(&house.received.lock().unwrap()), expected);
    stop.cancel();
    assert_eq!(running.await.unwrap().unwrap().reason, "signal");
    assert_eq!(*house.received.lock().unwrap(), stored(&house.data()), "bus and log hold the same bytes");
    until("goodbye", async || *house.agent.deregistered.lock().unwrap() == 1).await;
    let names = names(&house.data());
    assert!(
        ["start", "registration", "begin-monitoring", "event-range", "stop"]
            .iter()
            .all(|n| names.iter().any(|m| m == n))
    );
    broker.shutdown().await;
}

#[tokio::test]
async fn without_the_agents_word_it_begins_by_itself_and_says_so() {
    let house = House::new();
    let stop = CancellationToken::new();
    let running = tokio::spawn(house.collector().begin_timeout(Duration::from_millis(50)).run(stop.clone()));
    house.source.feed(events(0..5)).await;
    until("logged", async || house.data().join("wal").exists() && stored(&house.data()).len() == 5).await;
    let broker = house.broker().await;
    house.has_received(5).await;
    let health = health(&broker).await;
    assert_eq!(health.state, "running");
    assert!(health.notes.iter().any(|n| n.contains("without the agent")), "{:?}", health.notes);
    stop.cancel();
    running.await.unwrap().unwrap();
    broker.shutdown().await;
}

#[tokio::test]
async fn a_lost_agent_stops_nothing_and_gets_everything_it_had_not_committed() {
    let house = House::new();
    let (broker, running, stop) = house.begun().await;
    house.source.feed(events(0..50)).await;
    house.has_received(50).await;
    let committed = house.received.lock().unwrap()[29].sequence.unwrap();
    broker.shutdown().await;
    house.source.feed(events(50..80)).await;
    until("logged", async || stored(&house.data()).len() == 80).await;
    *house.agent.committed.lock().unwrap() = Some(committed);
    house.received.lock().unwrap().clear();
    let broker = house.broker().await;
    house.has_received(50).await;
    let expected: Vec<String> = (30..80).map(|n| format!("payload {n}")).collect();
    assert_eq!(payloads(&house.received.lock().unwrap()), expected);
    stop.cancel();
    running.await.unwrap().unwrap();
    broker.shutdown().await;
}

#[tokio::test]
async fn a_log_that_cannot_be_read_for_a_while_is_read_again_and_nothing_is_missing() {
    let house = House::new();
    let (broker, running, stop) = house.begun().await;
    house.source.feed(events(0..80)).await;
    house.has_received(80).await;
    broker.shutdown().await;
    let segment = house.data().join("wal/test-00001.wal");
    make_unreadable(&segment);
    house.received.lock().unwrap().clear();
    house.notices.lock().unwrap().clear();
    let broker = house.broker().await;
    until("heartbeats", async || {
        house.notices.lock().unwrap().iter().filter(|n| matches!(n, Notice::Heartbeat(_))).count() > 2
    })
    .await;
    assert!(house.received.lock().unwrap().is_empty());
    make_readable(&segment);
    house.has_received(80).await;
    let expected: Vec<String> = (0..80).map(|n| format!("payload {n}")).collect();
    assert_eq!(payloads(&house.received.lock().unwrap()), expected);
    stop.cancel();
    running.await.unwrap().unwrap();
    broker.shutdown().await;
}

#[tokio::test]
async fn a_commit_trims_the_log_and_heartbeats_carry_health() {
    let house = House::new();
    let (broker, running, stop) = house.begun().await;
    for n in 0..10 {
        house.source.feed(events(n * 200..n * 200 + 200)).await;
    }
    house.has_received(2000).await;
    assert!(health(&broker).await.wal_segments > 3);
    let last = house.received.lock().unwrap().last().unwrap().sequence.unwrap();
    broker.commit("test", last);
    until("trimmed", async || health(&broker).await.wal_segments == 1).await;
    until("a heartbeat after the trim", async || {
        house.notices.lock().unwrap().iter().any(|n| match n {
            Notice::Heartbeat(beat) => beat.state == "running" && beat.health.as_ref().unwrap().trimmed.is_some(),
            _ => false,
        })
    })
    .await;
    stop.cancel();
    running.await.unwrap().unwrap();
    broker.shutdown().await;
}

/// A backup of its store was put back.
#[tokio::test]
async fn an_agent_that_comes_back_with_less_gets_what_the_log_has_before_that_goes() {
    let house = House::new();
    house.source.keep_no_checkpoint(true);
    let (broker, running, stop) = house.begun().await;
    for n in 0..10 {
        house.source.feed(events(n * 200..n * 200 + 200)).await;
    }
    house.has_received(2000).await;
    let (has, last) = {
        let received = house.received.lock().unwrap();
        (received[499].sequence.unwrap(), received.last().unwrap().sequence.unwrap())
    };
    broker.commit("test", last);
    broker.shutdown().await;
    *house.agent.committed.lock().unwrap() = Some(has);
    house.received.lock().unwrap().clear();
    let broker = house.broker().await;
    house.registered(2).await;
    house.source.keep_no_checkpoint(false);
    house.source.feed(events(2000..2001)).await;
    house.has_received(1501).await;
    let newest = house.received.lock().unwrap().last().unwrap().sequence.unwrap();
    let covers = |(name, told): &(String, serde_json::Value)| name == "event-range" && told["last"] == newest.number;
    until("covered", async || actions(&house.data()).iter().any(covers)).await;
    until("trimmed", async || health(&broker).await.trimmed.is_some()).await;
    let begins = stored(&house.data())[0].sequence.unwrap();
    assert!(begins.number <= has.number + 1, "it goes because it was committed once: {begins} {has}");
    broker.commit("test", newest);
    until("trimmed again", async || health(&broker).await.wal_segments == 1).await;
    stop.cancel();
    running.await.unwrap().unwrap();
    broker.shutdown().await;
}

#[tokio::test]
async fn a_source_that_fails_is_told_and_tried_again() {
    struct Failing;
    #[async_trait::async_trait]
    impl collector_core::EventSource for Failing {
        fn name(&self) -> &str {
            "failing"
        }
        fn capabilities(&self) -> daemoneye_lib::proto::CollectionCapabilities {
            collector_core::SourceCaps::PROCESS.describe("failing", "")
        }
        async fn start(&self, context: collector_core::SourceContext) -> Result<(), collector_core::SourceError> {
            context.events.emit(vec![event(1)]).await?;
            Err(collector_core::SourceError::Failed("no such device".into()))
        }
        async fn health(&self) -> collector_core::SourceHealth {
            collector_core::SourceHealth::default()
        }
    }
    let house = House::new();
    let broker = house.broker().await;
    let stop = CancellationToken::new();
    let bus = BusOptions { socket: house.socket(), token: b"right".to_vec() };
    let run = Runtime::builder("test", "fake", house.data())
        .source(Arc::new(Failing))
        .bus(bus)
        .begin_timeout(Duration::ZERO);
    let running = tokio::spawn(run.run(stop.clone()));
    house.has_received(1).await;
    until("told", async || health(&broker).await.trouble == "source failed: no such device").await;
    let Err(RpcError::PeerFault(fault)) = ask(&broker, Verb::ExecuteTask(DetectionTask::default())).await else {
        panic!("a collector without tasks took one")
    };
    assert_eq!(fault.kind(), FaultKind::Refused);
    stop.cancel();
    running.await.unwrap().unwrap();
    broker.shutdown().await;
}

#[tokio::test]
async fn a_word_given_before_the_registration_is_answered_is_heard() {
    let house = House::new();
    let broker = house.broker().await;
    *house.agent.hasty.lock().unwrap() = Some(broker.clone());
    let stop = CancellationToken::new();
    let running = tokio::spawn(house.collector().run(stop.clone()));
    until("begun at the agent's word", async || house.source.starts() == 1).await;
    // The source is started first, so that nothing waits for the entry.
    let begun = || actions(&house.data()).into_iter().find(|(name, _)| name == "begin-monitoring");
    until("the entry", async || begun().is_some()).await;
    let word = begun().unwrap();
    assert_eq!(word.1["word"], "agent");
    stop.cancel();
    running.await.unwrap().unwrap();
    broker.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn sixty_seconds_without_the_word_are_enough() {
    let house = House::new();
    let began = tokio::time::Instant::now();
    let stop = CancellationToken::new();
    let running = tokio::spawn(house.collector().run(stop.clone()));
    let waited = async {
        while house.source.starts() == 0 {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        began.elapsed()
    };
    let waited = tokio::time::timeout(Duration::from_secs(120), waited).await.unwrap();
    assert!((60..62).contains(&waited.as_secs()), "on the paused clock: {waited:?}");
    stop.cancel();
    running.await.unwrap().unwrap();
    let word = actions(&house.data()).into_iter().find(|(name, _)| name == "begin-monitoring").unwrap();
    assert_eq!(word.1["word"], "no word from the agent in time");
}

#[tokio::test]
async fn a_disk_that_takes_no_write_holds_up_neither_health_nor_heartbeats_nor_the_end() {
    let house = House::new();
    let faults = Arc::new(Faults::default());
    let broker = house.broker().await;
    let stop = CancellationToken::new();
    let collector = house.collector().disk(Arc::new(FaultyDisk(Arc::clone(&faults))));
    let running = tokio::spawn(collector.run(stop.clone()));
    house.registered(1).await;
    begin(&broker);
    house.source.feed(events(0..80)).await;
    house.has_received(80).await;
    let hung = faults.watchdog();
    faults.hold_writes(true);
    // More than is written without a thread that may wait.
    house.source.feed(events(80..900)).await;
    until("a write hangs", async || faults.waiting() > 0).await;
    house.notices.lock().unwrap().clear();
    // A second and more: pressure is judged and the ledger's turn comes.
    until("heartbeats", async || {
        house.notices.lock().unwrap().iter().filter(|n| matches!(n, Notice::Heartbeat(_))).count() > 15
    })
    .await;
    let health = health(&broker).await;
    assert_eq!((health.state.as_str(), health.bus_connected), ("running", true));
    assert!(health.events >= 80 && faults.waiting() > 0, "{health:?}");

    stop.cancel();
    tokio::time::pause();
    while !running.is_finished() && !hung.load(Ordering::SeqCst) {
        tokio::time::advance(Duration::from_millis(100)).await;
    }
    assert!(faults.waiting() > 0 && !hung.load(Ordering::SeqCst), "the end waits for the disk");
    let error = running.await.unwrap().unwrap_err();
    assert!(error.to_string().contains("the disk does not answer"), "{error}");
    faults.hold_writes(false);
    broker.shutdown().await;
}
