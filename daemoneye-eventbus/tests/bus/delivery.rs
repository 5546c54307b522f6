//! Messages to subscribers: who gets what, how often, and what a slow one costs the others.

use daemoneye_eventbus::{ClientEvent, Delivered, Notice};
use daemoneye_lib::proto::{
    Credit, DeliveryGuarantee, DuplicateHandling, FaultKind, Publish, QoS, Record, Role, Subscribe, envelope::Body,
};
use daemoneye_lib::topic::Topic;
use tokio::sync::mpsc;

use crate::support::{Bus, Raw, connected, eventually, next, qos, records, within};

const ONCE: DeliveryGuarantee = DeliveryGuarantee::AtMostOnce;
const KEPT: DeliveryGuarantee = DeliveryGuarantee::AtLeastOnce;

fn notice() -> Topic {
    Topic::CollectorEvents("procmond".to_owned())
}

async fn delivered(events: &mut mpsc::Receiver<ClientEvent>) -> Delivered {
    loop {
        if let ClientEvent::Deliver(delivered) = next(events).await {
            return delivered;
        }
    }
}

fn payloads(delivered: &Delivered) -> Vec<&[u8]> {
    delivered.records.iter().map(|record| &record.payload[..]).collect()
}

#[tokio::test]
async fn a_message_reaches_the_subscriptions_that_select_it_and_no_other() {
    let bus = Bus::open().await;
    let (publisher, _events, connected) = bus.collector("procmond").await;
    let (watcher, mut events) = bus.subscriber("watcher").await;
    let all = watcher.subscribe(&"events.#".parse().unwrap(), qos(ONCE), 100);
    let starts = watcher.subscribe(&"events.process.start".parse().unwrap(), qos(ONCE), 100);
    let _none = watcher.subscribe(&"alerts.#".parse().unwrap(), qos(ONCE), 100);
    eventually("subscribed", || bus.broker.stats().subscriptions == 3).await;

    publisher.publish(&notice(), "hello".into(), qos(ONCE)).await.unwrap();
    let first = delivered(&mut events).await;
    assert_eq!((first.subscription, &*first.publisher, payloads(&first)), (all, "procmond", vec![&b"hello"[..]]));
    // Records of a stream are selected by their topic as well.
    connected.stream.send_run(records(1..=2)).await.unwrap();
    let (one, other) = (delivered(&mut events).await, delivered(&mut events).await);
    let mut subscriptions = [one.subscription, other.subscription];
    subscriptions.sort_unstable();
    assert_eq!(subscriptions, [all, starts]);
    assert_eq!(one.records, records(1..=2));
    watcher.unsubscribe(all);
    eventually("unsubscribed", || bus.broker.stats().subscriptions == 2).await;
}

#[tokio::test]
async fn a_subscriber_that_stops_reading_delays_nobody() {
    let mut bus = Bus::open().await;
    let mut stuck = Raw::admitted(bus.socket(), "stuck", Role::Subscriber).await;
    let subscribe =
        Subscribe { subscription_id: 1, pattern: "events.#".into(), qos: Some(qos(ONCE)), credit: u32::MAX };
    stuck.send(Body::Subscribe(subscribe)).await;
    let (watcher, mut events) = bus.subscriber("watcher").await;
    let _all = watcher.subscribe(&"events.#".parse().unwrap(), qos(ONCE), 1_000);
    eventually("subscribed", || bus.broker.stats().subscriptions == 2).await;
    let (publisher, _events, _connected) = bus.collector("procmond").await;

    // Far more than the sockets and the stuck one's queue hold; the other gets every single one.
    let payload = vec![1; 16 * 1024];
    for number in 0..2_000_u32 {
        publisher.publish(&notice(), payload.clone().into(), qos(ONCE)).await.unwrap();
        if number % 100 == 99 {
            let mut got = 0;
            while got < 100 {
                let delivered = delivered(&mut events).await;
                got += delivered.records.len();
                watcher.done(&delivered);
            }
        }
    }
    assert!(bus.broker.stats().shed > 0, "the stuck one's messages are shed and counted");
    loop {
        if let Notice::Shed { topic, count } = within(bus.streams.notices.recv()).await.unwrap() {
            assert_eq!(topic, notice().to_string());
            assert!(count > 0);
            break;
        }
    }
}

#[tokio::test]
async fn what_was_not_acknowledged_comes_again_to_whoever_returns_under_the_same_id() {
    let bus = Bus::open().await;
    let (publisher, _events, _connected) = bus.collector("procmond").await;
    let (watcher, mut events) = bus.subscriber("watcher").await;
    let subscription = watcher.subscribe(&"events.#".parse().unwrap(), qos(KEPT), 100);
    eventually("subscribed", || bus.broker.stats().subscriptions == 1).await;
    publisher.publish(&notice(), "one".into(), qos(KEPT)).await.unwrap();
    let one = delivered(&mut events).await;
    watcher.done(&one);
    publisher.publish(&notice(), "two".into(), qos(KEPT)).await.unwrap();
    assert_eq!(payloads(&delivered(&mut events).await), [b"two"]);
    watcher.shutdown().await;
    eventually("it is gone", || bus.broker.stats().connections == 1).await;
    publisher.publish(&notice(), "three".into(), qos(KEPT)).await.unwrap();

    let (watcher, mut events) = bus.subscriber("watcher").await;
    assert_eq!(watcher.subscribe(&"events.#".parse().unwrap(), qos(KEPT), 100), subscription);
    let again = delivered(&mut events).await;
    assert_eq!(payloads(&again), [&b"two"[..], b"three"], "not the acknowledged one, and in order");
}

#[tokio::test]
async fn an_at_most_once_subscription_ends_with_its_connection() {
    let bus = Bus::open().await;
    let (watcher, _events) = bus.subscriber("watcher").await;
    let _all = watcher.subscribe(&"events.#".parse().unwrap(), qos(ONCE), 100);
    eventually("subscribed", || bus.broker.stats().subscriptions == 1).await;
    watcher.shutdown().await;
    eventually("unsubscribed", || bus.broker.stats().subscriptions == 0).await;
}

#[tokio::test]
async fn an_at_least_once_message_is_refused_while_a_subscriber_that_must_have_it_has_no_room() {
    let bus = Bus::open().await;
    let mut keeper = Raw::admitted(bus.socket(), "keeper", Role::Subscriber).await;
    let subscribe = Subscribe { subscription_id: 1, pattern: "events.#".into(), qos: Some(qos(KEPT)), credit: 0 };
    keeper.send(Body::Subscribe(subscribe)).await;
    eventually("subscribed", || bus.broker.stats().subscriptions == 1).await;
    let (publisher, _events, _connected) = bus.collector("procmond").await;
    for _ in 0..1_000 {
        publisher.publish(&notice(), "x".into(), qos(KEPT)).await.unwrap();
    }
    let refused = publisher.publish(&notice(), "x".into(), qos(KEPT)).await.unwrap_err();
    assert!(refused.is_retryable());
    assert!(matches!(
        refused,
        daemoneye_eventbus::SendError::PeerRefused(fault) if fault.kind() == FaultKind::ResourceExhausted
    ));
    // Room again after an acknowledgement.
    keeper.send(Body::Credit(Credit { subscription_id: 1, records: 1 })).await;
    let Some(Body::Deliver(deliver)) = within(keeper.receive()).await else { panic!("no delivery") };
    keeper.send(Body::Ack(daemoneye_lib::proto::Ack { id: deliver.delivery_id, ..Default::default() })).await;
    let again = async { while publisher.publish(&notice(), "x".into(), qos(KEPT)).await.is_err() {} };
    within(again).await;
}

#[tokio::test]
async fn a_repeated_message_is_dropped_where_the_subscriber_asks_for_it() {
    let bus = Bus::open().await;
    let mut local = bus.broker.subscribe(
        &"events.#".parse().unwrap(),
        QoS { guarantee: KEPT.into(), duplicates: DuplicateHandling::Drop.into() },
    );
    let mut raw = Raw::admitted(bus.socket(), "procmond", Role::Collector).await;
    for (message_id, payload) in [(5, "a"), (5, "a"), (6, "b")] {
        let record = Record { topic: notice().to_string(), payload: payload.into(), ..Record::default() };
        raw.send(Body::Publish(Publish { records: vec![record], message_id, ..Publish::default() })).await;
        assert!(
            matches!(within(raw.receive()).await, Some(Body::Ack(ack)) if ack.id == message_id && ack.refused.is_none())
        );
    }
    assert_eq!(&within(local.next()).await.unwrap().record.payload[..], b"a");
    assert_eq!(&within(local.next()).await.unwrap().record.payload[..], b"b");
    assert_eq!(bus.broker.stats().duplicates, 1);
}

#[tokio::test]
async fn the_agent_reaches_its_collectors_and_itself() {
    let bus = Bus::open().await;
    let mut local = bus.broker.subscribe(&"control.collector.+".parse().unwrap(), qos(ONCE));
    let (collector, mut events, _connected) = bus.collector("procmond").await;
    let _own = collector.subscribe(&"control.collector.procmond".parse().unwrap(), qos(ONCE), 10);
    eventually("subscribed", || bus.broker.stats().subscriptions == 2).await;
    bus.broker.publish(&Topic::Collector("procmond".to_owned()), "x".into(), qos(ONCE));
    let delivered = delivered(&mut events).await;
    assert_eq!((&*delivered.publisher, payloads(&delivered)), ("agent", vec![&b"x"[..]]));
    assert_eq!(&*within(local.next()).await.unwrap().publisher, "agent");
    bus.broker.shutdown().await;
    assert!(within(local.next()).await.is_none(), "nothing comes after the shutdown");
}

#[tokio::test]
async fn subscriptions_come_back_with_the_connection() {
    let Bus { directory, house, broker, streams } = Bus::open().await;
    let socket = directory.path().join("bus.sock");
    let (collector, mut events) =
        daemoneye_eventbus::Client::start(crate::support::options(socket.clone(), "procmond")).unwrap();
    connected(&mut events).await;
    let _lifecycle = collector.subscribe(&"control.collector.lifecycle".parse().unwrap(), qos(ONCE), 10);
    broker.shutdown().await;
    drop(streams);
    let (broker, _streams) = crate::support::start(socket, &house, |_| {}).await;
    connected(&mut events).await;
    eventually("subscribed again", || broker.stats().subscriptions == 1).await;
    broker.publish(&Topic::Lifecycle, "begin".into(), qos(ONCE));
    assert_eq!(payloads(&delivered(&mut events).await), [b"begin"]);
}

#[tokio::test]
async fn an_at_least_once_message_survives_a_reconnect_of_its_publisher() {
    let Bus { directory, house, broker, streams } = Bus::open().await;
    let socket = directory.path().join("bus.sock");
    let (publisher, mut events) =
        daemoneye_eventbus::Client::start(crate::support::options(socket.clone(), "procmond")).unwrap();
    connected(&mut events).await;
    broker.shutdown().await;
    drop(streams);
    eventually("it has noticed", || !publisher.is_connected()).await;
    let publishing = tokio::spawn(async move { publisher.publish(&notice(), "x".into(), qos(KEPT)).await });
    let (broker, _streams) = crate::support::start(socket, &house, |_| {}).await;
    within(publishing).await.unwrap().unwrap();
    assert_eq!(broker.stats().messages, 1);
}

#[tokio::test]
async fn a_successor_under_the_same_id_gets_what_its_predecessor_had_not_acknowledged() {
    let bus = Bus::open().await;
    let (publisher, _events, _connected) = bus.collector("procmond").await;
    let subscribe = Subscribe { subscription_id: 1, pattern: "events.#".into(), qos: Some(qos(KEPT)), credit: 5 };
    let mut first = Raw::admitted(bus.socket(), "watcher", Role::Subscriber).await;
    first.send(Body::Subscribe(subscribe.clone())).await;
    eventually("subscribed", || bus.broker.stats().subscriptions == 1).await;
    publisher.publish(&notice(), "one".into(), qos(KEPT)).await.unwrap();
    assert!(matches!(within(first.receive()).await, Some(Body::Deliver(_))));

    let mut second = Raw::admitted(bus.socket(), "watcher", Role::Subscriber).await;
    second.send(Body::Subscribe(subscribe)).await;
    let Some(Body::Deliver(again)) = within(second.receive()).await else { panic!("no delivery") };
    assert_eq!(&again.records[0].payload[..], b"one");
    assert!(within(first.receive()).await.is_none(), "the first one is closed");
    publisher.publish(&notice(), "two".into(), qos(KEPT)).await.unwrap();
    assert!(matches!(within(second.receive()).await, Some(Body::Deliver(_))));
}

#[tokio::test]
async fn what_the_agent_publishes_as_soon_as_a_collector_registers_reaches_it() {
    let mut bus = Bus::open().await;
    let (collector, mut events) = daemoneye_eventbus::Client::start(bus.options("procmond")).unwrap();
    let _lifecycle = collector.subscribe(&"control.collector.lifecycle".parse().unwrap(), qos(ONCE), 10);
    while !matches!(within(bus.streams.notices.recv()).await, Some(Notice::Registered(_))) {}
    bus.broker.publish(&Topic::Lifecycle, "begin".into(), qos(ONCE));
    assert!(matches!(next(&mut events).await, ClientEvent::Connected(_)), "first of all");
    assert_eq!(payloads(&delivered(&mut events).await), [b"begin"]);
    assert_eq!(bus.broker.stats().subscriptions, 1, "and it is subscribed once");
}
