//! How much the broker carries between clients over real sockets, in one process: streams to the owner, messages to one and
//! to ten subscribers, and requests. The figures across two processes come from the suite `ipc_performance`.
#![expect(clippy::unwrap_used, reason = "a benchmark that fails by panicking")]

mod everybody;

use std::sync::Arc;
use std::time::Duration;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use daemoneye_eventbus::{Broker, BrokerOptions, BrokerStreams, Client, ClientEvent, ClientOptions, Connected};
use daemoneye_lib::proto::{
    CollectorRequest, CollectorResponse, DeliveryGuarantee, Empty, QoS, Record, Role, Sequence, collector_request,
    collector_response,
};
use daemoneye_lib::topic::Topic;
use tokio::runtime::Runtime;
use tokio::sync::{Semaphore, mpsc};

use self::everybody::Everybody;

/// Messages per round: many enough that waking up is not what is measured; a few where nothing is.
fn round() -> u64 {
    if std::env::args().any(|argument| argument == "--bench") { 10_000 } else { 100 }
}

/// Messages on their way at a time: less than any queue holds, so that nothing is shed.
const WINDOW: usize = 500;
const SIZES: [usize; 2] = [200, 16 * 1024];

struct Bus {
    directory: tempfile::TempDir,
    broker: Broker,
    streams: BrokerStreams,
}

async fn open() -> Bus {
    let directory = tempfile::tempdir().unwrap();
    let options = BrokerOptions::new(directory.path().join("bus.sock"), Arc::new(Everybody));
    let (broker, streams) = Broker::start(options).await.unwrap();
    Bus { directory, broker, streams }
}

async fn client(bus: &Bus, id: &str, role: Role) -> (Client, mpsc::Receiver<ClientEvent>, Connected) {
    let options = ClientOptions::new(bus.directory.path().join("bus.sock"), id, role, Vec::new());
    let (client, mut events) = Client::start(options).unwrap();
    match events.recv().await {
        Some(ClientEvent::Connected(connected)) => (client, events, connected),
        _ => unreachable!("the broker admits everybody"),
    }
}

fn stream_runs(c: &mut Criterion) {
    let runtime = Runtime::new().unwrap();
    let mut group = c.benchmark_group("event_bus_stream");
    let round = round();
    group.sample_size(20);
    for size in SIZES {
        let mut bus = runtime.block_on(open());
        let (_client, _events, connected) = runtime.block_on(client(&bus, "procmond", Role::Collector));
        let payload = bytes::Bytes::from(vec![7; size]);
        let per_run = (512 * 1024 / size).clamp(1, 256) as u64;
        let mut number = 0;
        group.throughput(Throughput::Elements(round));
        group.bench_function(BenchmarkId::from_parameter(size), |b| {
            b.iter(|| {
                runtime.block_on(async {
                    let sending = async {
                        let mut sent = 0;
                        while sent < round {
                            let count = per_run.min(round - sent);
                            let record = |number| Record {
                                sequence: Some(Sequence::new(1, number)),
                                topic: "events.process.start".to_owned(),
                                time_us: 0,
                                payload: payload.clone(),
                            };
                            let run = (number + 1..=number + count).map(record).collect();
                            connected.stream.send_run(run).await.unwrap();
                            number += count;
                            sent += count;
                        }
                    };
                    let receiving = async {
                        let mut got = 0;
                        while got < round {
                            let run = bus.streams.runs.recv().await.unwrap();
                            got += run.records.len() as u64;
                            bus.broker.credit("procmond", u32::try_from(run.records.len()).unwrap());
                        }
                    };
                    tokio::join!(sending, receiving);
                });
            });
        });
        runtime.block_on(bus.broker.shutdown());
    }
    group.finish();
}

/// Counts what a subscriber gets and opens the publisher's window again.
fn take_all(runtime: &Runtime, watcher: Client, mut events: mpsc::Receiver<ClientEvent>) -> Arc<Semaphore> {
    let window = Arc::new(Semaphore::new(WINDOW));
    let open = Arc::clone(&window);
    runtime.spawn(async move {
        while let Some(event) = events.recv().await {
            if let ClientEvent::Deliver(delivered) = event {
                watcher.done(&delivered);
                open.add_permits(delivered.records.len());
            }
        }
    });
    window
}

async fn watchers(bus: &Bus, count: u64) -> Vec<(Client, mpsc::Receiver<ClientEvent>)> {
    let qos = QoS { guarantee: DeliveryGuarantee::AtMostOnce.into(), duplicates: 0 };
    let mut all = Vec::new();
    for number in 0..count {
        let (watcher, events, _) = client(bus, &format!("watcher-{number}"), Role::Subscriber).await;
        let _subscription = watcher.subscribe(&"events.#".parse().unwrap(), qos, 1_000);
        all.push((watcher, events));
    }
    while bus.broker.stats().subscriptions < count {
        tokio::task::yield_now().await;
    }
    all
}

fn messages(c: &mut Criterion) {
    let runtime = Runtime::new().unwrap();
    let mut group = c.benchmark_group("event_bus_message");
    let round = round();
    group.sample_size(20);
    let once = QoS { guarantee: DeliveryGuarantee::AtMostOnce.into(), duplicates: 0 };
    let topic = Topic::CollectorEvents("procmond".to_owned());
    for (size, subscribers) in [(200, 1), (16 * 1024, 1), (200, 10)] {
        let bus = runtime.block_on(open());
        let (publisher, _events, _connected) = runtime.block_on(client(&bus, "procmond", Role::Collector));
        let watching = runtime.block_on(watchers(&bus, subscribers));
        let windows: Vec<_> = watching.into_iter().map(|(w, events)| take_all(&runtime, w, events)).collect();
        let payload = bytes::Bytes::from(vec![7; size]);
        group.throughput(Throughput::Elements(round));
        group.bench_function(BenchmarkId::new(format!("{size}_bytes"), subscribers), |b| {
            b.iter(|| {
                runtime.block_on(async {
                    for _ in 0..round {
                        for window in &windows {
                            window.acquire().await.unwrap().forget();
                        }
                        publisher.publish(&topic, payload.clone(), once).await.unwrap();
                    }
                    // The round ends when the last message has arrived.
                    for window in &windows {
                        drop(window.acquire_many(u32::try_from(WINDOW).unwrap()).await.unwrap());
                    }
                });
            });
        });
        assert_eq!(bus.broker.stats().shed, 0, "a measured message was shed");
        runtime.block_on(bus.broker.shutdown());
    }
    group.finish();
}

fn latency(c: &mut Criterion) {
    let runtime = Runtime::new().unwrap();
    let bus = runtime.block_on(open());
    let (publisher, mut asked, _connected) = runtime.block_on(client(&bus, "procmond", Role::Collector));
    let (watcher, mut events) = runtime.block_on(watchers(&bus, 1)).pop().unwrap();
    let once = QoS { guarantee: DeliveryGuarantee::AtMostOnce.into(), duplicates: 0 };
    let topic = Topic::CollectorEvents("procmond".to_owned());
    let payload = bytes::Bytes::from(vec![7; 200]);
    c.bench_function("event_bus_latency/one_message", |b| {
        b.iter(|| {
            runtime.block_on(async {
                publisher.publish(&topic, payload.clone(), once).await.unwrap();
                if let Some(ClientEvent::Deliver(delivered)) = events.recv().await {
                    watcher.done(&delivered);
                }
            });
        });
    });
    runtime.spawn(async move {
        while let Some(event) = asked.recv().await {
            if let ClientEvent::Call(call) = event {
                let answer = collector_response::Answer::Done(Empty {});
                call.responder.done(CollectorResponse { answer: Some(answer) }).await.unwrap();
            }
        }
    });
    let pause = CollectorRequest { verb: Some(collector_request::Verb::Pause(Empty {})) };
    c.bench_function("event_bus_latency/one_request", |b| {
        b.iter(|| runtime.block_on(bus.broker.call("procmond", pause.clone(), Duration::from_secs(30))).unwrap());
    });
}

criterion_group!(benches, stream_runs, messages, latency);
criterion_main!(benches);
