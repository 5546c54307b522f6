//! The ledger at its size: appends, proofs, memory, verification. Prints a table; `DAEMONEYE_BENCH_ROWS` sets the number of entries.
#![expect(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic, reason = "a benchmark")]

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use collector_core::Runtime;
use collector_core::ledger::{Draft, Ledger, LedgerOptions, TreeOptions};
use collector_core::runtime::BusOptions;
use collector_core::testing::FakeSource;
use daemoneye_eventbus::{Authority, Broker, BrokerOptions, Notice, Peer};
use daemoneye_lib::ledger::tiles::StoredTree;
use daemoneye_lib::ledger::tree::{TreeHash, verify_inclusion};
use daemoneye_lib::ledger::{LedgerFiles, verify_dir};
use daemoneye_lib::proto::collector_request::Verb;
use daemoneye_lib::proto::collector_response::Answer;
use daemoneye_lib::proto::{
    AppendAudit, AuditAppend, CollectorRequest, Fault, Hello, Register, Registered, Role, Sequence,
};
use tokio_util::sync::CancellationToken;

const ENTRIES: u64 = 10_000_000;
/// What one call of the writer takes, and what one request of the agent's outbox holds.
const BATCH: usize = 4_096;
const REQUEST: u64 = 256;
/// As many as a collector takes at once.
const REQUESTS: u64 = 32;
/// How long the collector may take for a request; as the agent gives it.
const DEADLINE: Duration = Duration::from_secs(10);
const PROOFS: u64 = 10_000;

fn options(dir: &Path) -> LedgerOptions {
    let tree = TreeOptions {
        hash: TreeHash::Sha256,
        machine: "bench".into(),
        actor: "procmond".into(),
        keys_dir: dir.join("keys"),
        credential: None,
    };
    LedgerOptions { tree: Some(tree), ..LedgerOptions::new(dir.join("audit")) }
}

fn row(what: &str, measured: &str, goal: &str) {
    println!("| {what} | {measured} | {goal} |");
}

/// KiB of a line of /proc/self/status.
fn memory(line: &str) -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let found = status.lines().find_map(|text| text.strip_prefix(line));
    found.and_then(|rest| rest.split_whitespace().next()?.parse().ok()).unwrap_or(0)
}

#[expect(clippy::cast_precision_loss, reason = "a rate for people")]
fn rate(count: u64, took: Duration) -> String {
    format!("{:.0} k/s", count as f64 / took.as_secs_f64() / 1000.0)
}

fn grow(ledger: &Ledger, entries: u64) -> Duration {
    let payload = br#"{"collector":"procmond","epoch":3,"first":18211,"last":18260,"count":50,"root":"0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"}"#;
    let drafts = vec![Draft::now("procmond", "event-range", payload.to_vec()); BATCH];
    let (began, done) = (Instant::now(), AtomicBool::new(false));
    std::thread::scope(|scope| {
        // As in procmond: signed beside the appends.
        scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                ledger.checkpoint().unwrap();
                std::thread::park_timeout(Duration::from_millis(5));
            }
        });
        while ledger.head().entries < entries {
            ledger.append_batch(&drafts).unwrap();
        }
        done.store(true, Ordering::Relaxed);
    });
    began.elapsed()
}

/// The agent's side of a bus that admits everybody.
struct Anybody;

impl Authority for Anybody {
    fn admit(&self, _peer: &Peer, hello: &Hello) -> Result<Role, Fault> {
        Ok(hello.role())
    }
    fn committed(&self, _collector: &str) -> Option<Sequence> {
        None
    }
    fn register(&self, _register: &Register) -> Result<Registered, Fault> {
        Ok(Registered { heartbeat_interval_ms: 1_000, committed: None })
    }
    fn deregister(&self, _collector: &str) {}
}

fn request(number: u64) -> CollectorRequest {
    let append = |n| AuditAppend {
        outbox_id: number * REQUEST + n + 1,
        actor: "agent".into(),
        action: "alert".into(),
        timestamp_ms: 1,
        payload: format!("{{\"x\":\"{}\"}}", "x".repeat(292)).into_bytes(),
    };
    let entries = (0..REQUEST).map(append).collect();
    CollectorRequest { verb: Some(Verb::AppendAudit(AppendAudit { entries })) }
}

/// A collector at work, on a thread of its own as procmond is on one; ends with the bus.
fn collect(dir: &Path, socket: &Path, stop: CancellationToken) -> std::thread::JoinHandle<()> {
    let bus = BusOptions { socket: socket.to_owned(), token: Vec::new() };
    let collector = Runtime::builder("bench", "fake", dir).triggerable(FakeSource::new()).bus(bus);
    let collector = collector.ledger_tree(options(dir).tree.unwrap());
    std::thread::spawn(move || {
        alone().block_on(collector.run(stop)).unwrap();
    })
}

fn alone() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
}

/// As the agent's outbox sends them, over the bus's sockets: a request is answered when its entries are synced.
fn requests(dir: &Path) -> Duration {
    let (socket, stop) = (dir.join("bus.sock"), CancellationToken::new());
    alone().block_on(async {
        let options = BrokerOptions::new(socket.clone(), Arc::new(Anybody));
        let (broker, mut streams) = Broker::start(options).await.unwrap();
        let collector = collect(&dir.join("collector"), &socket, stop.clone());
        while !matches!(streams.notices.recv().await.unwrap(), Notice::Registered(_)) {}
        let began = Instant::now();
        for number in 0..REQUESTS {
            let answered = broker.call("bench", request(number), DEADLINE).await.unwrap();
            let Some(Answer::Audit(taken)) = answered.answer else { panic!("{answered:?}") };
            assert_eq!(taken.last_outbox_id, (number + 1) * REQUEST);
        }
        let took = began.elapsed();
        stop.cancel();
        broker.shutdown().await;
        collector.join().unwrap();
        took
    })
}

/// Every proof from cold tiles of its own; it is verified as well, outside the time.
fn prove(audit: &Path, size: u64) -> (Duration, Vec<Duration>) {
    let began = Instant::now();
    let mut tree = StoredTree::open(audit, TreeHash::Sha256, size).unwrap();
    let (opened, root) = (began.elapsed(), tree.root().unwrap());
    let mut times = Vec::new();
    for n in 0..PROOFS {
        let index = n.wrapping_mul(0x9E37_79B9_7F4A_7C15) % size;
        let began = Instant::now();
        let proof = tree.inclusion(index).unwrap().unwrap();
        times.push(began.elapsed());
        if n % 1_000 == 0 {
            let entry = LedgerFiles::open(audit).unwrap().entry(index).unwrap().unwrap().entry;
            let leaf = TreeHash::Sha256.leaf(&entry.canonical_bytes());
            verify_inclusion(TreeHash::Sha256, &leaf, index, size, &root, &proof).unwrap();
        }
    }
    times.sort_unstable();
    (opened, times)
}

fn main() {
    let entries = std::env::var("DAEMONEYE_BENCH_ROWS").ok().and_then(|text| text.parse().ok()).unwrap_or(ENTRIES);
    let dir = tempfile::tempdir().unwrap();
    let audit = dir.path().join("audit");
    let (ledger, _) = Ledger::open(options(dir.path())).unwrap();
    println!("| ledger of {entries} entries, SHA-256 tree | measured | goal |\n|---|---|---|");
    let took = grow(&ledger, entries);
    row("appends in batches of 4,096, each batch synced, signed meanwhile", &rate(entries, took), "≥ 200 k/s");
    row("memory behind them, resident", &format!("{:.1} MB", kib(memory("VmRSS:"))), "≤ 40 MB");
    row(
        "the agent's entries over the bus to a collector, in requests of 256, each synced",
        &rate(REQUESTS * REQUEST, requests(dir.path())),
        "≥ 10 k/s",
    );
    ledger.checkpoint().unwrap();
    let size = ledger.head().entries;
    drop(ledger);
    let began = Instant::now();
    drop(Ledger::open(options(dir.path())).unwrap());
    row("a start on it", &format!("{} ms", began.elapsed().as_millis()), "");
    let (opened, times) = prove(&audit, size);
    row("a prover's look at it", &format!("{} ms", opened.as_millis()), "");
    let at = |part: usize| format!("{} µs", times[times.len() * part / 1000].as_micros());
    row("inclusion proof of any entry, median and p99", &format!("{}, {}", at(500), at(990)), "p99 ≤ 500 µs");
    let began = Instant::now();
    let summary = verify_dir(&audit, |_| {}).unwrap();
    let took = began.elapsed();
    row(
        "verification of all of it",
        &format!("{:.1} s, {}", took.as_secs_f64(), rate(summary.entries, took)),
        "≤ 20 s",
    );
    row("memory at its highest, all of this", &format!("{:.1} MB", kib(memory("VmHWM:"))), "");
}

#[expect(clippy::cast_precision_loss, reason = "megabytes for people")]
fn kib(kib: u64) -> f64 {
    kib as f64 * 1024.0 / 1e6
}
