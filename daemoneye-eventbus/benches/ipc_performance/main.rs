//! What the bus carries between two processes: this one publishes, a second one (the same program, started again) holds the
//! broker and the subscriber. Latency is one way, from the call of publish to the subscriber's hands, on the clock that all
//! processes of a host share. Where a `nats-server` is installed, it does the same work for comparison.
//!
//! Prints Markdown rows. Reports; never fails because something was slow.
#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a benchmark that cannot run should stop")]

mod clock;
#[path = "../everybody/mod.rs"]
mod everybody;
mod nats;
mod second;

use std::fmt;
use std::future::Future;
use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::Bytes;
use daemoneye_eventbus::{Client, ClientEvent, ClientOptions, Connected, OperatorClient};
use daemoneye_lib::proto::{DeliveryGuarantee, Empty, OperatorRequest, QoS, Record, Role, Sequence, operator_request};
use daemoneye_lib::topic::Topic;
use tokio::runtime::Runtime;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::MissedTickBehavior;

use self::second::{BUS_SOCKET, Kind, OPERATOR_SOCKET, Outcome, Second, Task};

/// Most of what a host publishes is near the first; command lines and environments reach the second.
const SIZES: [usize; 2] = [200, 16 * 1024];
/// Rounds at full speed; their median is reported.
const ROUNDS: usize = 3;
/// Messages on their way at a time, and their bytes: less than half of what any queue holds, delivered but not yet acknowledged ones
/// included, so that nothing is shed or refused.
const WINDOW: usize = 500;
const WINDOW_BYTES: usize = 4 * 1024 * 1024;
/// Publishers that wait for their acknowledgement at the same time.
const AT_ONCE: usize = 64;
/// Records of one run.
const RUN: usize = 256;
/// Samples of a latency: fifty lie beyond the p99.
const SAMPLES: usize = 5_000;
/// Between two messages whose latency is measured: far from full speed, so that no queue is measured.
const PACE: Duration = Duration::from_millis(1);

fn main() {
    if let Some(task) = Task::from_environment() {
        second::run(&task);
        return;
    }
    // Cargo says `--bench` when it is to be measured; everything else only wants to know that this starts.
    if !std::env::args().any(|argument| argument == "--bench") {
        return;
    }
    println!("| bus between two processes | value |\n|---|---|");
    let runtime = Runtime::new().unwrap();
    for size in SIZES {
        for kind in [Kind::AtMostOnce, Kind::AtLeastOnce, Kind::Stream] {
            let row = Row { what: kind.words(), size };
            row.speed(&runtime, |count, payload| daemoneye(kind, count, payload, None));
            row.latency(&runtime, |payload| daemoneye(kind, SAMPLES, payload, Some(PACE)));
        }
    }
    operator_round_trip(&runtime);
    for size in SIZES {
        let Some(server) = nats::Server::start() else { break };
        let row = Row { what: "nats-server over loopback TCP, at most once", size };
        row.speed(&runtime, |count, payload| server.carry(count, payload, None));
        row.latency(&runtime, |payload| server.carry(SAMPLES, payload, Some(PACE)));
    }
}

/// The messages of one measurement, each with its instant in front.
#[derive(Clone, Copy)]
struct Payload {
    size: usize,
}

impl Payload {
    fn stamped(self) -> Bytes {
        let mut payload = vec![7; self.size];
        second::stamp(&mut payload);
        payload.into()
    }

    const fn window(self) -> usize {
        let fitting = WINDOW_BYTES / self.size;
        if fitting < WINDOW { fitting } else { WINDOW }
    }
}

struct Row {
    what: &'static str,
    size: usize,
}

impl Row {
    /// Some seconds' worth of messages, in whole windows and runs.
    const fn count(&self) -> usize {
        if self.size > 1_024 { 25_600 } else { 128_000 }
    }

    fn speed<F: Future<Output = Outcome>>(&self, runtime: &Runtime, carry: impl Fn(usize, Payload) -> F) {
        let round = |_| {
            let outcome = runtime.block_on(carry(self.count(), Payload { size: self.size }));
            self.count() as f64 * 1e9 / outcome.elapsed_ns as f64
        };
        let mut rates: Vec<f64> = (0..ROUNDS).map(round).collect();
        rates.sort_by(f64::total_cmp);
        let rate = rates.get(ROUNDS / 2).copied().unwrap_or_default();
        let megabytes = rate * self.size as f64 / 1e6;
        println!("| {self} | {rate:.0} messages/s, {megabytes:.0} MB/s |");
    }

    fn latency<F: Future<Output = Outcome>>(&self, runtime: &Runtime, carry: impl Fn(Payload) -> F) {
        let outcome = runtime.block_on(carry(Payload { size: self.size }));
        let per_second = 1.0 / PACE.as_secs_f64();
        println!("| {self}, one way at {per_second:.0}/s | {} |", percentiles(outcome.p50_ns, outcome.p99_ns));
    }
}

impl fmt::Display for Row {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}, {} bytes", self.what, self.size)
    }
}

fn percentiles(p50_ns: u64, p99_ns: u64) -> String {
    format!("p50 {:.0} µs, p99 {:.0} µs", p50_ns as f64 / 1e3, p99_ns as f64 / 1e3)
}

/// One measurement: a second process with a fresh broker, `count` messages, and what the second process saw.
async fn daemoneye(kind: Kind, count: usize, payload: Payload, pace: Option<Duration>) -> Outcome {
    let directory = tempfile::tempdir().unwrap();
    let place = directory.path().to_string_lossy().into_owned();
    let second = Second::start(&Task { kind, count, place }, payload.window());
    let (client, _events, connected) = connect(&directory.path().join(BUS_SOCKET)).await;
    match kind {
        Kind::AtMostOnce => messages(&client, &second, count, payload, pace).await,
        Kind::AtLeastOnce if pace.is_none() => acknowledged(&client, &second, count, payload).await,
        Kind::AtLeastOnce => paced_acknowledged(&client, count, payload).await,
        Kind::Stream => stream(&connected, count, payload, pace).await,
        Kind::Operator | Kind::Nats => unreachable!("not carried by the broker"),
    }
    let outcome = second.outcome().await;
    client.shutdown().await;
    outcome
}

async fn connect(socket: &Path) -> (Client, mpsc::Receiver<ClientEvent>, Connected) {
    let options = ClientOptions::new(socket.to_owned(), "procmond", Role::Collector, Vec::new());
    let (client, mut events) = Client::start(options).unwrap();
    let Some(ClientEvent::Connected(connected)) = events.recv().await else {
        unreachable!("the broker admits everybody")
    };
    // The event may come a moment before the connection takes messages.
    while !client.is_connected() {
        tokio::task::yield_now().await;
    }
    (client, events, connected)
}

fn topic() -> Topic {
    Topic::CollectorEvents("procmond".to_owned())
}

fn qos(guarantee: DeliveryGuarantee) -> QoS {
    QoS { guarantee: guarantee.into(), duplicates: 0 }
}

/// Waits for the next of evenly spaced instants, or not at all.
struct Pace(Option<tokio::time::Interval>);

impl Pace {
    fn new(pace: Option<Duration>) -> Self {
        Self(pace.map(|pace| {
            let mut interval = tokio::time::interval(pace);
            // A late message must not thin out those after it.
            interval.set_missed_tick_behavior(MissedTickBehavior::Burst);
            interval
        }))
    }

    async fn next(&mut self) {
        if let Some(interval) = &mut self.0 {
            interval.tick().await;
        }
    }
}

async fn messages(client: &Client, second: &Second, count: usize, payload: Payload, pace: Option<Duration>) {
    let (topic, once, mut pace) = (topic(), qos(DeliveryGuarantee::AtMostOnce), Pace::new(pace));
    for _ in 0..count {
        second.window.acquire().await.unwrap().forget();
        pace.next().await;
        client.publish(&topic, payload.stamped(), once).await.unwrap();
    }
}

async fn acknowledged(client: &Client, second: &Second, count: usize, payload: Payload) {
    let mut publishers = JoinSet::new();
    for _ in 0..AT_ONCE {
        let (client, window) = (client.clone(), second.window.clone());
        publishers.spawn(async move {
            for _ in 0..count / AT_ONCE {
                window.acquire().await.unwrap().forget();
                client.publish(&topic(), payload.stamped(), qos(DeliveryGuarantee::AtLeastOnce)).await.unwrap();
            }
        });
    }
    publishers.join_all().await;
}

/// Never more than one on its way, so that no window is needed.
async fn paced_acknowledged(client: &Client, count: usize, payload: Payload) {
    let mut pace = Pace::new(Some(PACE));
    for _ in 0..count {
        pace.next().await;
        client.publish(&topic(), payload.stamped(), qos(DeliveryGuarantee::AtLeastOnce)).await.unwrap();
    }
}

/// The way of a collector's events: in runs, bounded by the broker's credit.
async fn stream(connected: &Connected, count: usize, payload: Payload, pace: Option<Duration>) {
    // A frame holds a mebibyte; half of it is what the collectors fill.
    let fitting = (512 * 1024 / payload.size).min(RUN);
    let per_run = if pace.is_some() { 1 } else { fitting };
    let mut pace = Pace::new(pace);
    let mut sent = 0;
    while sent < count {
        pace.next().await;
        let run = (sent..count.min(sent + per_run)).map(|number| Record {
            sequence: Some(Sequence::new(1, number as u64 + 1)),
            topic: "events.process.start".to_owned(),
            time_us: 0,
            payload: payload.stamped(),
        });
        connected.stream.send_run(run.collect()).await.unwrap();
        sent += per_run;
    }
}

/// What a console waits for besides the agent's own work: request and answer over the operator socket.
fn operator_round_trip(runtime: &Runtime) {
    let directory = tempfile::tempdir().unwrap();
    let place = directory.path().to_string_lossy().into_owned();
    let second = Second::start(&Task { kind: Kind::Operator, count: 0, place }, WINDOW);
    let mut samples = runtime.block_on(ask(directory.path().join(OPERATOR_SOCKET)));
    drop(second);
    let (p50, p99) = second::percentiles(&mut samples);
    println!("| operator socket, request and answer | {} |", percentiles(p50, p99));
}

async fn ask(socket: PathBuf) -> Vec<u64> {
    let client = OperatorClient::connect(&socket, "bench").await.unwrap();
    let mut samples = Vec::with_capacity(SAMPLES);
    for _ in 0..SAMPLES {
        let request = OperatorRequest { verb: Some(operator_request::Verb::Health(Empty {})) };
        let began = clock::now_ns();
        let mut answers = client.request(request, None).await.unwrap();
        while answers.next().await.unwrap().is_some() {}
        samples.push(clock::now_ns() - began);
    }
    samples
}
