//! Collectors' streams: order, credit, commits, replay after a reconnect.

use std::sync::atomic::Ordering;
use std::time::Duration;

use daemoneye_eventbus::{ClientEvent, Notice, SendError};
use daemoneye_lib::proto::{
    CollectorRequest, DeliveryGuarantee, Empty, FaultKind, Heartbeat, Role, Sequence, collector_request,
    envelope::Body,
};
use daemoneye_lib::topic::Topic;
use prost::Message as _;

use crate::support::{Bus, Raw, connected, eventually, next, qos, records, start, within};

#[tokio::test]
async fn runs_arrive_in_order_and_credit_and_commits_come_back() {
    let mut bus = Bus::open_with(|options| options.credit_records = 100).await;
    *bus.house.committed.lock().unwrap() = Some(Sequence::new(1, 5));
    let (_client, mut events, connected) = bus.collector("procmond").await;
    assert_eq!(connected.welcome.committed, Some(Sequence::new(1, 5)));
    assert_eq!(connected.welcome.credit, 100);
    assert_eq!(connected.registered.unwrap().heartbeat_interval_ms, 30_000);

    for first in (1..=1_000).step_by(50) {
        let run = records(first..=first + 49);
        within(connected.stream.send_run(run.clone())).await.unwrap();
        let taken = within(bus.streams.runs.recv()).await.unwrap();
        assert_eq!(&*taken.collector, "procmond");
        assert_eq!(taken.records, run, "byte-identical and in order");
        bus.broker.credit("procmond", 50);
    }
    bus.broker.commit("procmond", Sequence::new(1, 900));
    bus.broker.commit("procmond", Sequence::new(1, 1_000));
    loop {
        if let ClientEvent::Committed(Sequence { epoch: 1, number: 1_000 }) = next(&mut events).await {
            break;
        }
    }
    assert_eq!(bus.broker.stats().records, 1_000);
}

#[tokio::test]
async fn without_credit_nothing_is_sent_and_with_credit_it_goes_on() {
    let mut bus = Bus::open_with(|options| options.credit_records = 10).await;
    let (client, _events, connected) = bus.collector("procmond").await;
    let stream = connected.stream;
    let too_long = stream.send_run(records(1..=11)).await;
    assert!(matches!(too_long, Err(SendError::MisuseRun { records: 11, credit: 10 })));
    stream.send_run(records(1..=10)).await.unwrap();
    assert_eq!(stream.credit(), 0);
    within(bus.streams.runs.recv()).await.unwrap();

    let waiting = stream.clone();
    let more = tokio::spawn(async move { waiting.send_run(records(11..=15)).await });
    bus.broker.credit("procmond", 4);
    // Credit was queued before these answers, so it has arrived when the second one has.
    for _ in 0..2 {
        let verb = Some(collector_request::Verb::Deregister(Empty {}));
        within(client.call(CollectorRequest { verb }, Duration::from_secs(30))).await.unwrap();
    }
    assert!(!more.is_finished() && bus.streams.runs.is_empty());
    bus.broker.credit("procmond", 1);
    within(more).await.unwrap().unwrap();
    assert_eq!(within(bus.streams.runs.recv()).await.unwrap().records, records(11..=15));
}

#[tokio::test(start_paused = true)]
async fn waiting_for_credit_is_bounded() {
    let bus = Bus::open_with(|options| options.credit_records = 1).await;
    let (_client, _events, connected) = bus.collector("procmond").await;
    connected.stream.send_run(records(1..=1)).await.unwrap();
    let late = connected.stream.send_run(records(2..=2)).await;
    assert!(matches!(late, Err(SendError::Timeout("credit"))), "{late:?}");
}

#[tokio::test]
async fn a_client_finds_a_restarted_broker_registers_again_and_replays() {
    let Bus { directory, house, broker, streams } = Bus::open().await;
    let socket = directory.path().join("bus.sock");
    let (client, mut events) =
        daemoneye_eventbus::Client::start(crate::support::options(socket.clone(), "procmond")).unwrap();
    let old = connected(&mut events).await.stream;
    old.send_run(records(1..=3)).await.unwrap();
    broker.shutdown().await;
    drop(streams);
    within(old.ended()).await;
    assert!(matches!(old.send_run(records(4..=4)).await, Err(SendError::Disconnected)));

    *house.committed.lock().unwrap() = Some(Sequence::new(1, 2));
    let (broker, mut streams) = start(socket, &house, |_| {}).await;
    let again = connected(&mut events).await;
    assert_eq!(again.welcome.committed, Some(Sequence::new(1, 2)));
    assert_eq!(house.registrations.load(Ordering::SeqCst), 2);
    assert!(
        matches!(old.send_run(records(4..=4)).await, Err(SendError::Disconnected)),
        "nothing overtakes the replay"
    );
    again.stream.send_run(records(3..=4)).await.unwrap();
    assert_eq!(within(streams.runs.recv()).await.unwrap().records, records(3..=4));
    client.shutdown().await;
    eventually("it is gone", || broker.connected().is_empty()).await;
}

#[tokio::test(start_paused = true)]
async fn an_idle_connection_still_works_after_many_ping_intervals() {
    let mut bus = Bus::open().await;
    let (client, mut events, connected) = bus.collector("procmond").await;
    for _ in 0..200 {
        tokio::time::sleep(Duration::from_secs(30)).await;
    }
    connected.stream.send_run(records(1..=1)).await.unwrap();
    assert_eq!(within(bus.streams.runs.recv()).await.unwrap().records, records(1..=1));
    assert!(client.is_connected() && events.try_recv().is_err(), "it never was another connection");
    assert_eq!(bus.broker.stats().admitted, 1);
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_says_nothing_for_three_intervals_is_taken_for_dead() {
    let bus = Bus::open().await;
    let mut raw = Raw::admitted(bus.socket(), "procmond", Role::Collector).await;
    let began = tokio::time::Instant::now();
    assert!(matches!(raw.receive().await, Some(Body::Fault(fault)) if fault.kind() == FaultKind::Timeout));
    assert!(began.elapsed() >= Duration::from_secs(90));
}

#[tokio::test]
async fn heartbeats_registrations_and_departures_are_told() {
    let mut bus = Bus::open().await;
    let (client, _events, _connected) = bus.collector("procmond").await;
    let heartbeat = Heartbeat { collector_id: "procmond".to_owned(), sequence: 4, ..Heartbeat::default() };
    let topic = Topic::Heartbeat("procmond".to_owned());
    client.publish(&topic, heartbeat.encode_to_vec().into(), qos(DeliveryGuarantee::AtMostOnce)).await.unwrap();
    let mut told = Vec::new();
    for _ in 0..3 {
        told.push(match within(bus.streams.notices.recv()).await.unwrap() {
            Notice::Connected { id, .. } => format!("connected {id}"),
            Notice::Registered(register) => format!("registered {}", register.collector_id),
            Notice::Heartbeat(heartbeat) => format!("heartbeat {}", heartbeat.sequence),
            other => format!("{other:?}"),
        });
    }
    assert_eq!(told, ["connected procmond", "registered procmond", "heartbeat 4"]);
    client.shutdown().await;
    let gone = within(bus.streams.notices.recv()).await.unwrap();
    assert!(matches!(gone, Notice::Disconnected { collector, .. } if &*collector == "procmond"));
}
