//! What peers get that do what they may not.

use std::time::Duration;

use daemoneye_eventbus::Notice;
use daemoneye_lib::proto::{
    CollectorRequest, Credit, Empty, FaultKind, Hello, Ping, Publish, Record, Register, Request, Role, Sequence,
    Subscribe, collector_request, envelope::Body, request,
};

use crate::support::{Bus, Raw, connected, eventually, frame_of, hello, next, records, within};

async fn first_bytes_get(bytes: &[u8]) -> FaultKind {
    let mut bus = Bus::open().await;
    let mut raw = Raw::connect(bus.socket()).await;
    raw.send_bytes(bytes).await;
    let fault = raw.fault().await;
    eventually("it is counted", || bus.broker.stats().refused == 1).await;
    let notice = within(bus.streams.notices.recv()).await.unwrap();
    assert!(matches!(notice, Notice::Refused { fault: told, .. } if told == fault));
    assert_eq!(bus.broker.stats().connections, 0);
    fault.kind()
}

/// Castagnoli, bit by bit: written down here a second time, so that the frame's checksum is pinned by the test.
fn crc32c(bytes: &[u8]) -> u32 {
    let step = |crc: u32, _| (crc >> 1) ^ (0x82f6_3b78 * (crc & 1));
    !bytes.iter().fold(u32::MAX, |crc, byte| (0..8).fold(crc ^ u32::from(*byte), step))
}

async fn first_hello_gets(change: impl FnOnce(&mut Hello)) -> FaultKind {
    let mut hello = hello("procmond", Role::Collector);
    change(&mut hello);
    first_bytes_get(&frame_of(Body::Hello(hello))).await
}

#[tokio::test]
async fn a_wrong_frame_gets_its_fault_and_is_closed() {
    let good = frame_of(Body::Hello(hello("procmond", Role::Collector)));
    let mut flipped = good.clone();
    *flipped.last_mut().unwrap() ^= 1;
    assert_eq!(first_bytes_get(&flipped).await, FaultKind::BadChecksum);
    assert_eq!(first_bytes_get(&[0; 8]).await, FaultKind::BadLength);
    assert_eq!(first_bytes_get(&[0xff; 8]).await, FaultKind::TooLarge);
    // A frame of one byte that is no envelope, with its right checksum.
    let no_envelope = [&1_u32.to_le_bytes()[..], &crc32c(&[0xff]).to_le_bytes(), &[0xff]].concat();
    assert_eq!(first_bytes_get(&no_envelope).await, FaultKind::BadMessage);
    // A valid frame of a message that a later version may bring.
    let unknown = [0xf2, 0x06, 0x00];
    let unknown = [&3_u32.to_le_bytes()[..], &crc32c(&unknown).to_le_bytes(), &unknown].concat();
    assert_eq!(first_bytes_get(&unknown).await, FaultKind::BadMessage);
}

#[tokio::test]
async fn a_peer_without_a_right_to_be_here_gets_its_fault_and_is_closed() {
    assert_eq!(first_hello_gets(|hello| hello.token.clear()).await, FaultKind::Unauthenticated);
    assert_eq!(first_hello_gets(|hello| hello.token = vec![8; 32]).await, FaultKind::Unauthenticated);
    assert_eq!(first_hello_gets(|hello| hello.protocol = 2).await, FaultKind::UnsupportedVersion);
    assert_eq!(first_hello_gets(|hello| hello.id = "../x".to_owned()).await, FaultKind::InvalidRequest);
    assert_eq!(first_hello_gets(|hello| hello.id = "x".repeat(65)).await, FaultKind::InvalidRequest);
    assert_eq!(first_hello_gets(|hello| hello.role = Role::Operator.into()).await, FaultKind::Unauthenticated);
    assert_eq!(first_bytes_get(&frame_of(Body::Ping(Ping { nonce: 1 }))).await, FaultKind::Unauthenticated);
}

#[tokio::test]
async fn another_version_is_refused_by_name() {
    let bus = Bus::open().await;
    let mut raw = Raw::connect(bus.socket()).await;
    let mut older = hello("procmond", Role::Collector);
    older.protocol = 7;
    older.build = "0.0.9".to_owned();
    raw.send(Body::Hello(older)).await;
    let message = raw.fault().await.message;
    assert!(message.contains("protocol 7") && message.contains("0.0.9"), "{message}");
}

async fn after_welcome(role: Role, body: Body) -> FaultKind {
    let bus = Bus::open_with(|options| options.credit_records = 10).await;
    let mut raw = Raw::admitted(bus.socket(), "procmond", role).await;
    raw.send(body).await;
    let fault = raw.fault().await;
    eventually("its slot is free", || bus.broker.stats().connections == 0).await;
    assert_eq!(bus.broker.stats().refused, 1);
    fault.kind()
}

fn message(topic: &str) -> Body {
    let record = Record { topic: topic.to_owned(), ..Record::default() };
    Body::Publish(Publish { records: vec![record], ..Publish::default() })
}

fn run(records: Vec<Record>) -> Body {
    Body::Publish(Publish { records, ..Publish::default() })
}

fn subscribe(pattern: &str) -> Body {
    Body::Subscribe(Subscribe { subscription_id: 1, pattern: pattern.to_owned(), qos: None, credit: 1 })
}

fn ask(verb: collector_request::Verb) -> Body {
    let body = Some(request::Body::Collector(CollectorRequest { verb: Some(verb) }));
    Body::Request(Request { id: 1, deadline_ms: 0, correlation: None, body })
}

#[tokio::test]
async fn what_the_table_does_not_list_is_forbidden_where_it_enters() {
    for (role, body) in [
        (Role::Collector, message("control.collector.lifecycle")),
        (Role::Collector, message("control.health.heartbeat.other")),
        (Role::Collector, message("alerts.high")),
        (Role::Subscriber, message("events.process.start")),
        (Role::Collector, subscribe("#")),
        (Role::Collector, subscribe("control.collector.other")),
        (Role::Collector, ask(collector_request::Verb::ForceShutdown(Empty {}))),
        (Role::Subscriber, ask(collector_request::Verb::Register(Register::default()))),
    ] {
        let text = format!("{role:?} {body:?}");
        assert_eq!(after_welcome(role, body).await, FaultKind::Forbidden, "{text}");
    }
}

#[tokio::test]
async fn a_stream_that_is_none_is_refused() {
    let mixed =
        [records(1..=1), vec![Record { topic: "events.process.stop".to_owned(), ..Record::default() }]].concat();
    let backwards = [records(2..=2), records(1..=1)].concat();
    assert_eq!(after_welcome(Role::Collector, run(mixed)).await, FaultKind::InvalidRequest);
    assert_eq!(after_welcome(Role::Collector, run(backwards)).await, FaultKind::InvalidRequest);
    assert_eq!(after_welcome(Role::Collector, run(records(1..=11))).await, FaultKind::ResourceExhausted);
    assert_eq!(after_welcome(Role::Collector, message("Not A Topic")).await, FaultKind::InvalidRequest);
    let one_bad = [
        records(1..=1),
        vec![Record { sequence: Some(Sequence::new(1, 2)), topic: "alerts.low".into(), ..Record::default() }],
    ];
    assert_eq!(after_welcome(Role::Collector, run(one_bad.concat())).await, FaultKind::Forbidden);
}

#[tokio::test(start_paused = true)]
async fn a_half_sent_hello_times_out_and_never_costs_a_connection() {
    let bus = Bus::open_with(|options| options.max_connections = 1).await;
    let whole = frame_of(Body::Hello(hello("late", Role::Collector)));
    let mut halves = Vec::new();
    for _ in 0..20 {
        let mut raw = Raw::connect(bus.socket()).await;
        raw.send_bytes(&whole[..whole.len() / 2]).await;
        halves.push(raw);
    }
    let (_client, _events, _connected) = bus.collector("procmond").await;
    for mut raw in halves {
        assert_eq!(raw.fault().await.kind(), FaultKind::Timeout);
    }
    assert_eq!(bus.broker.connected(), ["procmond"]);
}

#[tokio::test(start_paused = true)]
async fn a_half_sent_frame_is_not_kept_alive_by_dripping() {
    let bus = Bus::open().await;
    let mut raw = Raw::admitted(bus.socket(), "procmond", Role::Collector).await;
    let frame = frame_of(message("events.process.start"));
    let began = tokio::time::Instant::now();
    for byte in &frame[..frame.len() - 1] {
        raw.send_bytes(&[*byte]).await;
        tokio::time::advance(Duration::from_secs(1)).await;
        if began.elapsed() > Duration::from_secs(29) {
            break;
        }
    }
    assert_eq!(raw.fault().await.kind(), FaultKind::Timeout);
    eventually("its slot is free", || bus.broker.stats().connections == 0).await;
}

#[tokio::test]
async fn a_hundred_connections_are_served_after_any_number_of_broken_ones() {
    let bus = Bus::open().await;
    let whole = frame_of(Body::Hello(hello("broken", Role::Collector)));
    for cut in 0..whole.len() {
        let mut raw = Raw::connect(bus.socket()).await;
        raw.send_bytes(&whole[..cut]).await;
    }
    for _ in 0..100 {
        let mut raw = Raw::admitted(bus.socket(), "broken", Role::Collector).await;
        raw.send_bytes(&whole[..9]).await;
    }
    eventually("all are gone", || bus.broker.stats().connections == 0).await;
    let mut kept = Vec::new();
    for number in 0..100 {
        let id = format!("peer-{number}");
        // The last of the broken ones may still be on their way out.
        let admitted = async {
            loop {
                let mut raw = Raw::connect(bus.socket()).await;
                raw.send(Body::Hello(hello(&id, Role::Collector))).await;
                if let Some(Body::Welcome(_)) = raw.receive().await {
                    return raw;
                }
            }
        };
        kept.push(within(admitted).await);
    }
    assert_eq!(bus.broker.stats().connections, 100);
    let mut more = Raw::connect(bus.socket()).await;
    more.send(Body::Hello(hello("one-more", Role::Collector))).await;
    assert_eq!(more.fault().await.kind(), FaultKind::ResourceExhausted);
    kept.pop();
    eventually("a slot is free again", || bus.broker.stats().connections == 99).await;
}

#[tokio::test]
async fn a_refused_client_is_told_and_tries_again() {
    let bus = Bus::open().await;
    let mut options = bus.options("procmond");
    options.token = vec![0; 32];
    let (client, mut events) = daemoneye_eventbus::Client::start(options).unwrap();
    for _ in 0..2 {
        let event = next(&mut events).await;
        assert!(
            matches!(event, daemoneye_eventbus::ClientEvent::Refused(fault) if fault.kind() == FaultKind::Unauthenticated)
        );
    }
    client.shutdown().await;
}

#[tokio::test]
async fn a_refused_registration_is_told() {
    let bus = Bus::open().await;
    let mut options = bus.options("procmond");
    options.register = Some(std::sync::Arc::new(|| Register {
        collector_id: "procmond".to_owned(),
        version: "banned".to_owned(),
        ..Register::default()
    }));
    let (_client, mut events) = daemoneye_eventbus::Client::start(options).unwrap();
    let event = next(&mut events).await;
    assert!(matches!(event, daemoneye_eventbus::ClientEvent::Refused(fault) if fault.kind() == FaultKind::Refused));
}

#[tokio::test]
async fn a_newer_connection_under_the_same_id_takes_the_place_of_the_older() {
    let bus = Bus::open().await;
    let mut older = Raw::admitted(bus.socket(), "procmond", Role::Collector).await;
    let (_client, mut events) = daemoneye_eventbus::Client::start(bus.options("procmond")).unwrap();
    connected(&mut events).await;
    assert!(within(older.receive()).await.is_none());
    assert_eq!(bus.broker.connected(), ["procmond"]);
}

#[tokio::test]
async fn credit_for_nothing_and_acknowledgements_of_nothing_do_no_harm() {
    let bus = Bus::open().await;
    let mut raw = Raw::admitted(bus.socket(), "procmond", Role::Collector).await;
    raw.send(Body::Credit(Credit { subscription_id: 99, records: u32::MAX })).await;
    raw.send(Body::Ack(daemoneye_lib::proto::Ack { id: 99, ..Default::default() })).await;
    bus.broker.credit("procmond", u32::MAX);
    bus.broker.credit("nobody", 1);
    raw.send(ask(collector_request::Verb::Deregister(Empty {}))).await;
    assert!(matches!(within(raw.receive()).await, Some(Body::Response(_))));
}

#[tokio::test]
async fn a_topic_of_a_megabyte_is_refused_in_a_short_sentence() {
    let bus = Bus::open().await;
    let mut raw = Raw::admitted(bus.socket(), "procmond", Role::Collector).await;
    raw.send(message(&"x".repeat(1_000_000))).await;
    assert!(raw.fault().await.message.len() < 200);
}

#[tokio::test]
async fn somebody_who_only_looks_whether_the_broker_answers_is_not_a_refusal() {
    let mut bus = Bus::open().await;
    drop(Raw::connect(bus.socket()).await);
    let (_client, _events, _connected) = bus.collector("procmond").await;
    assert!(matches!(within(bus.streams.notices.recv()).await, Some(Notice::Connected { .. })));
    assert_eq!(bus.broker.stats().refused, 0);
}

#[tokio::test(start_paused = true)]
async fn a_shutdown_does_not_wait_for_half_a_hello() {
    let bus = Bus::open().await;
    let mut raw = Raw::connect(bus.socket()).await;
    raw.send_bytes(&frame_of(Body::Hello(hello("procmond", Role::Collector)))[..10]).await;
    let (_client, _events, _connected) = bus.collector("procmond").await;
    let asked = tokio::time::Instant::now();
    bus.broker.shutdown().await;
    assert!(asked.elapsed() < Duration::from_secs(10), "a hello may take 30 s");
}
