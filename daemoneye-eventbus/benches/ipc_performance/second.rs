//! The second process: how it is started, what it does, and how it reports.
//!
//! On its standard output it says `ready`, then `+` for every hundred messages that arrived, at last
//! `elapsed p50 p99` in nanoseconds. It ends with its standard input, so that it outlives nobody.

use std::io::{BufRead as _, BufReader, Read as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::thread::JoinHandle;

use daemoneye_eventbus::operator::BoxFuture;
use daemoneye_eventbus::{
    Broker, BrokerOptions, BrokerStreams, Caller, Client, ClientEvent, ClientOptions, OperatorService, Peer,
    serve_operators,
};
use daemoneye_lib::proto::{
    DeliveryGuarantee, Fault, HealthShown, Hello, OperatorRequest, OperatorResponse, QoS, Role, operator_response,
};
use tokio::sync::{Semaphore, mpsc};
use tokio_util::sync::CancellationToken;

use crate::everybody::Everybody;
use crate::{clock, nats};

pub(crate) const BUS_SOCKET: &str = "bus.sock";
pub(crate) const OPERATOR_SOCKET: &str = "cli.sock";
/// Tells the started program that it is the second process.
const VARIABLE: &str = "DAEMONEYE_BENCH_SECOND";
/// Messages between two reports of progress: a fraction of the smallest window.
const STEP: usize = 100;

/// What is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    AtMostOnce,
    AtLeastOnce,
    Stream,
    Operator,
    Nats,
}

impl Kind {
    const ALL: [Self; 5] = [Self::AtMostOnce, Self::AtLeastOnce, Self::Stream, Self::Operator, Self::Nats];

    pub(crate) const fn words(self) -> &'static str {
        match self {
            Self::AtMostOnce => "at most once, 500 or 4 MiB on their way",
            Self::AtLeastOnce => "at least once, 64 publishers",
            Self::Stream => "collector's stream, in runs",
            Self::Operator => "operator",
            Self::Nats => "nats",
        }
    }
}

/// What the second process is told.
pub(crate) struct Task {
    pub(crate) kind: Kind,
    pub(crate) count: usize,
    /// The directory of the sockets, or the server's address.
    pub(crate) place: String,
}

impl Task {
    /// `Some` in the second process.
    pub(crate) fn from_environment() -> Option<Self> {
        let text = std::env::var(VARIABLE).ok()?;
        let mut parts = text.splitn(3, ',');
        let number: usize = parts.next()?.parse().ok()?;
        let count = parts.next()?.parse().ok()?;
        Some(Self { kind: *Kind::ALL.get(number)?, count, place: parts.next()?.to_owned() })
    }

    fn to_text(&self) -> String {
        let number = Kind::ALL.iter().position(|kind| *kind == self.kind).unwrap();
        format!("{number},{},{}", self.count, self.place)
    }
}

/// What the second process saw.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Outcome {
    /// From the first message's publication to the last one's arrival.
    pub(crate) elapsed_ns: u64,
    pub(crate) p50_ns: u64,
    pub(crate) p99_ns: u64,
}

impl Outcome {
    fn parse(line: &str) -> Option<Self> {
        let mut numbers = line.split_whitespace().map_while(|word| word.parse().ok());
        Some(Self { elapsed_ns: numbers.next()?, p50_ns: numbers.next()?, p99_ns: numbers.next()? })
    }
}

/// The second process as the first one holds it.
pub(crate) struct Second {
    child: Child,
    /// Messages that may still be sent.
    pub(crate) window: Arc<Semaphore>,
    reading: Option<JoinHandle<Option<Outcome>>>,
}

impl Second {
    /// Starts it and waits until it is ready.
    pub(crate) fn start(task: &Task, window: usize) -> Self {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.env(VARIABLE, task.to_text()).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let mut output = BufReader::new(child.stdout.take().unwrap());
        let mut line = String::new();
        output.read_line(&mut line).unwrap();
        assert_eq!(line.trim(), "ready", "the second process did not start");
        let window = Arc::new(Semaphore::new(window));
        let open = Arc::clone(&window);
        let reading = std::thread::spawn(move || {
            for line in output.lines().map_while(Result::ok) {
                if line != "+" {
                    return Outcome::parse(&line);
                }
                open.add_permits(STEP);
            }
            None
        });
        Self { child, window, reading: Some(reading) }
    }

    /// Waits until all messages have arrived.
    pub(crate) async fn outcome(mut self) -> Outcome {
        let reading = self.reading.take().unwrap();
        let outcome = tokio::task::spawn_blocking(move || reading.join().ok().flatten()).await.unwrap();
        outcome.expect("the second process ended before all messages had arrived")
    }
}

impl Drop for Second {
    fn drop(&mut self) {
        drop(self.child.stdin.take());
        self.child.wait().unwrap();
    }
}

/// Counts what arrives.
pub(crate) struct Tally {
    wanted: usize,
    latencies_ns: Vec<u64>,
    first_ns: u64,
}

impl Tally {
    fn new(wanted: usize) -> Self {
        Self { wanted, latencies_ns: Vec::with_capacity(wanted), first_ns: u64::MAX }
    }

    /// One message.
    pub(crate) fn take(&mut self, payload: &[u8]) {
        let now = clock::now_ns();
        let sent = payload.first_chunk().copied().map(u64::from_le_bytes).unwrap();
        self.first_ns = self.first_ns.min(sent);
        self.latencies_ns.push(now - sent);
        if self.latencies_ns.len() == self.wanted {
            let (p50, p99) = percentiles(&mut self.latencies_ns);
            println!("{} {p50} {p99}", now - self.first_ns);
        } else if self.latencies_ns.len().is_multiple_of(STEP) {
            println!("+");
        }
    }
}

/// Writes the instant of publication into a payload.
pub(crate) fn stamp(payload: &mut [u8]) {
    *payload.first_chunk_mut().unwrap() = clock::now_ns().to_le_bytes();
}

/// The median and the p99.
pub(crate) fn percentiles(samples: &mut [u64]) -> (u64, u64) {
    samples.sort_unstable();
    let at = |hundredth: usize| samples.get(samples.len() * hundredth / 100).copied().unwrap_or_default();
    (at(50), at(99))
}

/// The second process, until its standard input ends.
pub(crate) fn run(task: &Task) {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let tally = Tally::new(task.count);
    let place = PathBuf::from(&task.place);
    match task.kind {
        Kind::AtMostOnce => drop(runtime.spawn(subscribe(place, DeliveryGuarantee::AtMostOnce, tally))),
        Kind::AtLeastOnce => drop(runtime.spawn(subscribe(place, DeliveryGuarantee::AtLeastOnce, tally))),
        Kind::Stream => drop(runtime.spawn(own(place, tally))),
        Kind::Operator => drop(runtime.spawn(answer(place.join(OPERATOR_SOCKET)))),
        Kind::Nats => {
            let address = task.place.clone();
            drop(runtime.spawn_blocking(move || nats::subscribe(&address, tally)));
        }
    }
    std::io::stdin().read_to_end(&mut Vec::new()).unwrap();
    runtime.shutdown_background();
}

pub(crate) fn ready() {
    println!("ready");
}

async fn broker(directory: &Path) -> (Broker, BrokerStreams) {
    let options = BrokerOptions::new(directory.join(BUS_SOCKET), Arc::new(Everybody));
    Broker::start(options).await.unwrap()
}

/// A subscriber beside the broker, over its socket like any other.
async fn subscribe(directory: PathBuf, guarantee: DeliveryGuarantee, mut tally: Tally) {
    let (broker, _streams) = broker(&directory).await;
    let options = ClientOptions::new(directory.join(BUS_SOCKET), "watcher", Role::Subscriber, Vec::new());
    let (watcher, mut events) = Client::start(options).unwrap();
    let qos = QoS { guarantee: guarantee.into(), duplicates: 0 };
    let _subscription = watcher.subscribe(&"events.#".parse().unwrap(), qos, 1_000);
    while broker.stats().subscriptions == 0 {
        tokio::task::yield_now().await;
    }
    ready();
    while let Some(event) = events.recv().await {
        if let ClientEvent::Deliver(delivered) = event {
            delivered.records.iter().for_each(|record| tally.take(&record.payload));
            watcher.done(&delivered);
        }
    }
}

/// The owner of the streams, as the agent is.
async fn own(directory: PathBuf, mut tally: Tally) {
    let (broker, mut streams) = broker(&directory).await;
    ready();
    while let Some(run) = streams.runs.recv().await {
        run.records.iter().for_each(|record| tally.take(&record.payload));
        broker.credit(&run.collector, u32::try_from(run.records.len()).unwrap());
    }
}

async fn answer(socket: PathBuf) {
    let serving = serve_operators(socket, Arc::new(Everybody), CancellationToken::new()).await.unwrap();
    ready();
    serving.await.unwrap();
}

impl OperatorService for Everybody {
    fn admit(&self, _peer: &Peer, hello: &Hello) -> Result<Role, Fault> {
        Ok(hello.role())
    }

    fn handle(
        self: Arc<Self>,
        _caller: Caller,
        _request: OperatorRequest,
        answers: mpsc::Sender<OperatorResponse>,
        _cancel: CancellationToken,
    ) -> BoxFuture<Result<(), Fault>> {
        Box::pin(async move {
            let health = HealthShown { json: "{}".to_owned(), healthy: true };
            let answer = operator_response::Answer::Health(health);
            // An operator that hung up is told nothing.
            drop(answers.send(OperatorResponse { answer: Some(answer) }).await);
            Ok(())
        })
    }
}
