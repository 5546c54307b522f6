//! What a query that explodes does to ingest: runs arrive at a fixed pace, and each is timed from its arrival until it is in
//! the open segment; a seal that is due waits for the last one, and then goes on beside.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use daemoneye_engine::ingest::decode;
use daemoneye_engine::store::Store;
use daemoneye_lib::proto::{QueryRequest, Record};
use tokio_util::sync::CancellationToken;

use crate::events::Events;
use crate::ingest::Sealing;
use crate::queries::Asker;
use crate::table::milliseconds;

/// Events of a run and time between two: 12,800 events a second, some sixty times a busy host.
const RUN: usize = 256;
const PACE: Duration = Duration::from_millis(20);
/// Runs of each half: 20 s, some fifteen seals.
const RUNS: usize = 1_000;
const RUNS_IF_UNMEASURED: usize = 20;
/// The halves take turns, so that a disk or a host that slows down slows both.
const TURNS: usize = 4;
/// The yardstick: heavy queries do not double what one run in a hundred takes.
const MOST_TIMES: f64 = 2.0;

/// Neither ends before its deadline: a cross join of all events, and a pattern over every command line, sorted, again and again.
const HEAVY: &[&str] = &[
    "SELECT count(*) FROM process_events AS a, process_events AS b WHERE a.memory_usage + b.memory_usage = 7 AND a.pid <> b.pid",
    "SELECT command_line, count(*) AS n FROM process_events WHERE command_line REGEXP '(a|e|i|o|u)+[0-9]+.*' \
     GROUP BY command_line ORDER BY n DESC LIMIT 5",
];

/// p50 and p99 without and with heavy queries.
pub(crate) struct Pressure {
    alone: Spread,
    beside: Spread,
    queries: u64,
    measured: bool,
}

struct Spread {
    p50_ms: f64,
    p99_ms: f64,
    longest_ms: f64,
}

impl Spread {
    fn of(mut times: Vec<Duration>) -> Self {
        times.sort();
        let at = |percent: usize| times.get((times.len() * percent / 100).min(times.len() - 1)).unwrap();
        let ms = |percent: usize| at(percent).as_secs_f64() * 1e3;
        Self { p50_ms: ms(50), p99_ms: ms(99), longest_ms: ms(100) }
    }
}

pub(crate) fn measure(store: &Arc<Store>, events: &mut Events, measured: bool) -> Pressure {
    let runs = if measured { RUNS } else { RUNS_IF_UNMEASURED } / TURNS;
    let mut made = |_| -> Vec<Vec<Record>> { (0..runs).map(|_| events.records(RUN)).collect() };
    let asked = AtomicU64::new(0);
    let asker = Asker::new(store);
    let (mut alone, mut beside) = (Vec::new(), Vec::new());
    for _ in 0..TURNS {
        let (first, second) = (made(()), made(()));
        alone.extend(paced(store, &first));
        beside.extend(beside_queries(&asker, &asked, || paced(store, &second)));
    }
    Pressure { alone: Spread::of(alone), beside: Spread::of(beside), queries: asked.into_inner(), measured }
}

/// What the work took while each heavy query was asked again as soon as it had ended.
fn beside_queries(asker: &Asker, asked: &AtomicU64, work: impl FnOnce() -> Vec<Duration>) -> Vec<Duration> {
    let over = AtomicBool::new(false);
    thread::scope(|scope| {
        for sql in HEAVY {
            let over = &over;
            scope.spawn(move || {
                while !over.load(Ordering::Relaxed) {
                    asked.fetch_add(1, Ordering::Relaxed);
                    asker.ask_until(sql, over);
                }
            });
        }
        let times = work();
        over.store(true, Ordering::Relaxed);
        times
    })
}

/// Takes each run when it is due, or as soon as those before it are done.
fn paced(store: &Store, runs: &[Vec<Record>]) -> Vec<Duration> {
    thread::scope(|scope| taken(store, runs, &mut Sealing::start(scope, store)))
}

fn taken(store: &Store, runs: &[Vec<Record>], sealing: &mut Sealing) -> Vec<Duration> {
    let began = Instant::now();
    let mut times = Vec::with_capacity(runs.len());
    for (number, records) in (0_u32..).zip(runs) {
        let due = began + PACE * number;
        thread::park_timeout(due.saturating_duration_since(Instant::now()));
        store.append(decode("procmond", records).unwrap()).unwrap();
        if store.seal_due() {
            sealing.begin();
        }
        times.push(due.elapsed());
    }
    // What is sealed for this half must not slow the next one.
    sealing.wait();
    times
}

impl Asker {
    /// Runs a statement until it ends or `over` is set.
    fn ask_until(&self, sql: &str, over: &AtomicBool) {
        self.runtime.block_on(async {
            let request = QueryRequest { sql: sql.to_owned(), ..QueryRequest::default() };
            let cancel = CancellationToken::new();
            let Ok(mut run) = self.engine.query(request, cancel.clone()).await else { return };
            loop {
                tokio::select! {
                    page = run.next_page() => if !matches!(page, Ok(Some(_))) { return },
                    () = tokio::time::sleep(Duration::from_millis(50)) => if over.load(Ordering::Relaxed) { cancel.cancel() },
                }
            }
        });
    }
}

impl Pressure {
    pub(crate) fn print(&self) {
        for (when, spread) in [("alone", &self.alone), ("beside heavy queries", &self.beside)] {
            println!(
                "| ingest, a run of {RUN} every {} ms, {when}: arrival → open segment, seals beside | p50 {}, p99 {}, longest {} |",
                PACE.as_millis(),
                milliseconds(spread.p50_ms),
                milliseconds(spread.p99_ms),
                milliseconds(spread.longest_ms)
            );
        }
        println!("| ingest p99 beside heavy queries ÷ alone ({} queries begun) | {:.2} |", self.queries, self.times());
    }

    fn times(&self) -> f64 {
        self.beside.p99_ms / self.alone.p99_ms
    }

    /// Whether the yardstick is met; a few runs that only show that it works hold nothing.
    pub(crate) fn holds(&self) -> bool {
        let holds = !self.measured || self.times() <= MOST_TIMES;
        if !holds {
            eprintln!(
                "history: heavy queries make the p99 of ingest {:.2} times as long, more than {MOST_TIMES}: \
                 on a machine with nothing else to do that is a fault",
                self.times()
            );
        }
        holds
    }
}
