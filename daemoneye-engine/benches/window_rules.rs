//! What window rules cost: 50 of them over events at 333 a second, as a share of one core.
//!
//! Ten each of five kinds: a count of a group, a sequence, an absence, a window function, a count of distinct values; each over
//! the starts of one of the generator's programs, which are 1 to 16 % of them. The events come in batches of 64, a fifth of a
//! second each. Time is the processor's, of the thread that evaluates and of the one that runs plans. Prints Markdown tables.
//!
//! `DAEMONEYE_BENCH_SECONDS` sets how much time is played (1,200, which is four times the longest window: an hour costs three times
//! as much; 60 where nothing is measured).
//! Run with `cargo bench -p daemoneye-engine -p daemoneye-eventbus --bench window_rules`.

#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::cast_precision_loss,
    reason = "a benchmark that cannot run has nothing to measure; figures are rounded"
)]

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use daemoneye_engine::RecordBatch;
use daemoneye_engine::detect::{LoadedRule, RuleSet, rules};
use daemoneye_engine::generate::Generator;
use daemoneye_engine::ingest::{self, EventBatch};
use daemoneye_lib::model::Completeness;
use datafusion::arrow::array::TimestampMicrosecondArray;
use serde_json::json;

/// 2026-01-31T12:00:00Z.
const START_US: i64 = 1_769_860_800_000_000;
/// A busy host.
const EVENTS_A_SECOND: i64 = 333;
const BATCH: usize = 64;
/// How often it is told how far it is, in seconds that are played.
const TOLD_SECONDS: i64 = 120;
const KINDS: [&str; 5] = ["count of a group", "sequence", "absence", "window function", "distinct values"];
const NAMES: [&str; 10] = ["curl", "sshd", "cron", "openssl", "cargo", "node", "sleep", "python3", "gcc", "cc1"];

fn sql(kind: usize, name: &str, next: &str) -> String {
    let starts = format!("event_type = 'start' AND name = '{name}'");
    match kind {
        0 => format!(
            "SELECT parent_name, count(*) AS n FROM process_events WHERE {starts} AND time > now() - INTERVAL '5 minutes' \
             GROUP BY parent_name HAVING count(*) >= 100000"
        ),
        1 => format!(
            "SELECT a.pid AS first, b.pid AS second FROM process_events a JOIN process_events b ON b.ppid = a.pid AND b.time \
             BETWEEN a.time AND a.time + INTERVAL '30 seconds' WHERE a.event_type = 'start' AND a.name = '{name}' AND \
             b.event_type = 'start' AND b.name = '{next}' AND b.command_line LIKE '%--never%'"
        ),
        2 => format!(
            "SELECT a.pid AS pid FROM process_events a LEFT JOIN process_events b ON b.ppid = a.ppid AND b.time BETWEEN \
             a.time AND a.time + INTERVAL '60 seconds' AND b.event_type = 'start' AND b.name = '{next}' WHERE \
             a.event_type = 'start' AND a.name = '{name}' AND a.command_line LIKE '%7' AND b.pid IS NULL"
        ),
        3 => format!(
            "SELECT parent_name, pid FROM (SELECT parent_name, pid, row_number() OVER (PARTITION BY parent_name ORDER BY \
             time) AS nth FROM process_events WHERE {starts} AND time > now() - INTERVAL '2 minutes') AS q WHERE nth = 100000"
        ),
        _ => format!(
            "SELECT ppid, count(DISTINCT command_line) AS n FROM process_events WHERE {starts} AND time > now() - INTERVAL \
             '5 minutes' GROUP BY ppid HAVING count(DISTINCT command_line) >= 100000"
        ),
    }
}

fn rule(at: usize) -> LoadedRule {
    let (kind, name) = (at % KINDS.len(), NAMES[at / KINDS.len() % NAMES.len()]);
    let next = NAMES[(at / KINDS.len() + 1) % NAMES.len()];
    let id = format!("00000000-0000-4000-8000-{at:012}");
    let yaml = json!({"id": id, "name": KINDS[kind], "severity": "info", "sql": sql(kind, name, next)});
    rules::parse(Path::new("generated/rule.yaml"), &yaml.to_string()).unwrap()
}

/// The same events at the rate that is measured.
fn paced(batch: EventBatch, from: i64) -> EventBatch {
    let rows = i64::try_from(batch.batch.num_rows()).unwrap();
    let times = (from..from + rows).map(|at| START_US + at * 1_000_000 / EVENTS_A_SECOND);
    let times = TimestampMicrosecondArray::from_iter_values(times).with_timezone("UTC");
    let mut columns = batch.batch.columns().to_vec();
    columns[batch.batch.schema().index_of("time").unwrap()] = Arc::new(times);
    EventBatch { batch: RecordBatch::try_new(batch.batch.schema(), columns).unwrap(), ..batch }
}

fn main() {
    let measured = std::env::args().any(|argument| argument == "--bench");
    let seconds = std::env::var("DAEMONEYE_BENCH_SECONDS").ok().and_then(|seconds| seconds.parse().ok());
    let seconds: i64 = seconds.unwrap_or(if measured { 1_200 } else { 60 });
    let loading = Instant::now();
    let (set, refusals) = RuleSet::compile((0..50).map(rule).collect());
    let set = set.in_haste();
    assert!(refusals.is_empty(), "{refusals:?}");
    let loading = loading.elapsed();

    let (mut generator, complete) = (Generator::new(1, START_US), Completeness::complete());
    let mut told = 0;
    let (mut at, mut spent, mut longest, mut matches) = (0_i64, Duration::ZERO, Duration::ZERO, 0_usize);
    while at < seconds * EVENTS_A_SECOND {
        let batch = paced(ingest::decode("procmond", &generator.records(BATCH)).unwrap(), at);
        at += i64::try_from(BATCH).unwrap();
        let began = cpu();
        matches += set.evaluate(&batch, &complete).len();
        let took = cpu() - began;
        spent += took;
        longest = longest.max(took);
        let played = at / EVENTS_A_SECOND;
        if played >= told + TOLD_SECONDS {
            told = played;
            eprintln!(
                "{played} of {seconds} s played, {:.2} % of a core",
                spent.as_secs_f64() / played as f64 * 100.0
            );
        }
    }
    print(&set, seconds, loading, spent, longest, matches);
}

/// What the process has worked, so that a busy machine does not count.
fn cpu() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    Duration::new(u64::try_from(time.tv_sec).unwrap(), u32::try_from(time.tv_nsec).unwrap())
}

fn print(set: &RuleSet, seconds: i64, loading: Duration, spent: Duration, longest: Duration, matches: usize) {
    let stats = set.stats();
    let runs: u64 = stats.iter().map(|stats| stats.evaluations).sum();
    let plans: u64 = stats.iter().map(|stats| stats.nanoseconds).sum();
    println!("| figure | value |\n|---|---|");
    println!("| window rules | {} |", stats.len());
    println!("| loading one | {:.2} ms |", loading.as_secs_f64() * 1e3 / stats.len() as f64);
    println!("| time played at {EVENTS_A_SECOND} events/s | {seconds} s |");
    println!("| share of one core | {:.2} % |", spent.as_secs_f64() / seconds as f64 * 100.0);
    println!("| of that in plans | {:.2} % |", plans as f64 / 1e9 / seconds as f64 * 100.0);
    println!("| longest batch of {BATCH} | {:.1} ms |", longest.as_secs_f64() * 1e3);
    println!("| runs of plans | {runs} |");
    println!("| matches | {matches} |");
    println!("\n| kind | runs | µs a run | rows kept | bytes kept |\n|---|---|---|---|---|");
    for kind in KINDS {
        let of = || stats.iter().filter(|stats| stats.rule.name == kind);
        let (runs, ns): (u64, u64) =
            of().fold((0, 0), |(runs, ns), stats| (runs + stats.evaluations, ns + stats.nanoseconds));
        let kept = || of().filter_map(|stats| stats.window);
        let rows: u64 = kept().map(|window| window.kept_rows).sum();
        let bytes: u64 = kept().map(|window| window.kept_bytes).sum();
        println!("| {kind} | {runs} | {:.0} | {rows} | {bytes} |", ns as f64 / 1e3 / runs.max(1) as f64);
    }
}
