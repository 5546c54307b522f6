//! What else evaluates Sigma rules in Rust, and SQLite, over the rules and events that `DAEMONEYE_BENCH_CORPUS` was given by
//! our own benchmark: one thread each, events parsed before the clock runs, every match compared with ours.
//!
//! Prints rows of a Markdown table: who, events a second, and how its matches differ.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use rsigma_eval::Engine;
use rsigma_eval::event::JsonEvent;
use rusqlite::functions::FunctionFlags;
use serde_json::Value;

/// Each stops after this long; its rate is that of the events it came to.
const PATIENCE: Duration = Duration::from_secs(20);

/// Rule numbers by event.
type Matches = Vec<BTreeSet<usize>>;

struct Corpus {
    events: Vec<Value>,
    ids: Vec<String>,
    sigma: String,
    tau: String,
    sqlite: String,
    ours: Matches,
}

impl Corpus {
    fn read(dir: &Path) -> Self {
        let text = |name: &str| fs::read_to_string(dir.join(name)).expect(name);
        let events: Vec<Value> =
            text("events.jsonl").lines().map(|line| serde_json::from_str(line).expect("an event")).collect();
        let ids: Vec<String> = text("ids.txt").lines().map(str::to_owned).collect();
        let mut ours: Matches = vec![BTreeSet::new(); events.len()];
        for line in text("ours.txt").lines() {
            let (event, id) = line.split_once(' ').expect("event and rule");
            ours[event.parse::<usize>().expect("a number")].insert(number(&ids, id));
        }
        Self { events, ids, sigma: text("sigma.yml"), tau: text("tau.yml"), sqlite: text("sqlite.sql"), ours }
    }

    /// One row: the rate over the events that `one` came to in time, and the differences of their matches.
    fn measure(&self, set: &str, who: &str, loading: Duration, mut one: impl FnMut(usize) -> BTreeSet<usize>) {
        let (began, working, mut found) = (Instant::now(), cpu(), Matches::new());
        for event in 0..self.events.len() {
            found.push(one(event));
            if began.elapsed() > PATIENCE {
                break;
            }
        }
        self.row(set, who, loading, cpu() - working, &found);
    }

    fn row(&self, set: &str, who: &str, loading: Duration, took: Duration, found: &[BTreeSet<usize>]) {
        let (mut lacks, mut more, mut same) = (0, 0, 0);
        for (theirs, ours) in found.iter().zip(&self.ours) {
            lacks += ours.difference(theirs).count();
            more += theirs.difference(ours).count();
            same += ours.intersection(theirs).count();
        }
        let rate = found.len() as f64 / took.as_secs_f64();
        println!(
            "| {set} | {who} | {rate:.0} | {} | {} | {same} the same, {lacks} only ours, {more} only theirs |",
            found.len(),
            loading.as_millis()
        );
    }
}

fn number(ids: &[String], id: &str) -> usize {
    ids.binary_search_by(|known| known.as_str().cmp(id)).expect("a rule of the corpus")
}

/// What this thread has worked.
fn cpu() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

fn main() {
    let dir = std::env::var_os("DAEMONEYE_BENCH_CORPUS").expect("DAEMONEYE_BENCH_CORPUS");
    let dir = Path::new(&dir);
    println!("| rules | evaluated by | events/s | events | load ms | matches |\n|---|---|---|---|---|---|");
    for set in ["windows", "linux"] {
        let corpus = Corpus::read(&dir.join(set));
        rsigma(&corpus, set, "rsigma-eval 0.23", |_| {});
        rsigma(&corpus, set, "rsigma-eval 0.23 with its Bloom filter", |engine| engine.set_bloom_prefilter(true));
        rsigma(&corpus, set, "rsigma-eval 0.23 with its cross-rule index", |engine| engine.set_cross_rule_ac(true));
        sigma_rust(&corpus, set);
        tau(&corpus, set);
        sqlite(&corpus, set);
    }
}

fn rsigma(corpus: &Corpus, set: &str, who: &str, with: impl FnOnce(&mut Engine)) {
    let began = Instant::now();
    let collection = rsigma_parser::parse_sigma_yaml(&corpus.sigma).expect("the rules of the corpus");
    let mut engine = Engine::new();
    with(&mut engine);
    engine.add_collection(&collection).expect("the rules compile");
    let loading = began.elapsed();
    assert_eq!(engine.rule_count(), corpus.ids.len(), "rules are missing");
    let events: Vec<JsonEvent<'_>> = corpus.events.iter().map(JsonEvent::borrow).collect();
    corpus.measure(set, who, loading, |event| {
        let found = engine.evaluate(&events[event]);
        found.iter().map(|found| number(&corpus.ids, found.header.rule_id.as_deref().expect("an id"))).collect()
    });
}

fn sigma_rust(corpus: &Corpus, set: &str) {
    let began = Instant::now();
    let rules: Vec<_> =
        corpus.sigma.split("---\n").map(|rule| sigma_rust::rule_from_yaml(rule).expect("a rule")).collect();
    let loading = began.elapsed();
    let events: Vec<_> =
        corpus.events.iter().map(|event| sigma_rust::event_from_json(&event.to_string()).expect("an event")).collect();
    corpus.measure(set, "sigma-rust 0.7", loading, |event| {
        rules.iter().enumerate().filter(|(_, rule)| rule.is_match(&events[event])).map(|(at, _)| at).collect()
    });
}

fn tau(corpus: &Corpus, set: &str) {
    let began = Instant::now();
    let rules: Vec<_> = corpus
        .tau
        .split("---\n")
        .map(|rule| tau_engine::Rule::from_str(rule).expect("a rule").optimise(tau_engine::Optimisations::default()))
        .collect();
    let loading = began.elapsed();
    corpus.measure(set, "tau-engine 1.16", loading, |event| {
        rules.iter().enumerate().filter(|(_, rule)| rule.matches(&corpus.events[event])).map(|(at, _)| at).collect()
    });
}

/// Rule after rule over a table of all events, as a scheduled query does it; of fewer events where all take too long.
fn sqlite(corpus: &Corpus, set: &str) {
    let fields = ["Image", "CommandLine", "ParentImage", "ParentCommandLine", "User", "CurrentDirectory"];
    let began = Instant::now();
    let database = rusqlite::Connection::open_in_memory().expect("a database");
    let flags = FunctionFlags::SQLITE_UTF8 | FunctionFlags::SQLITE_DETERMINISTIC;
    database
        .create_scalar_function("regexp", 2, flags, |call| {
            let pattern =
                call.get_or_create_aux(0, |value| -> Result<_, Box<dyn std::error::Error + Send + Sync>> {
                    Ok(regex::Regex::new(value.as_str()?)?)
                })?;
            Ok(call.get_raw(1).as_str().is_ok_and(|text| pattern.is_match(text)))
        })
        .expect("a function");
    database
        .execute_batch(&format!("CREATE TABLE events (seq INTEGER PRIMARY KEY, {})", fields.join(", ")))
        .expect("a table");
    let rules: Vec<String> =
        corpus.sqlite.lines().map(|condition| format!("SELECT seq FROM events WHERE {condition}")).collect();
    let mut statements: Vec<_> = rules.iter().map(|sql| database.prepare(sql).expect("a rule")).collect();
    let loading = began.elapsed();
    let count = corpus.events.len().min(2_000);
    for (at, event) in corpus.events.iter().take(count).enumerate() {
        let text = |field: &str| event.get(field).and_then(Value::as_str).unwrap_or_default().to_owned();
        let values = fields.map(text);
        let [a, b, c, d, e, f] = &values;
        database
            .execute(
                "INSERT INTO events VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
                rusqlite::params![at as i64, a, b, c, d, e, f],
            )
            .expect("a row");
    }
    let (working, mut found) = (cpu(), vec![BTreeSet::new(); count]);
    for (rule, statement) in statements.iter_mut().enumerate() {
        let rows = statement.query_map([], |row| row.get::<_, i64>(0)).expect("an answer");
        for row in rows {
            found[usize::try_from(row.expect("a row")).expect("a number")].insert(rule);
        }
    }
    corpus.row(set, "SQLite (in memory, rusqlite 0.41)", loading, cpu() - working, &found);
}
