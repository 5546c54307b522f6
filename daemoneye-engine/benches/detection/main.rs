//! The yardsticks of stream rules: events a second with 1,400 Windows-like and 144 Linux-like rules, what rules that do not
//! match cost, loading, memory, and a batch of one event.
//!
//! `DAEMONEYE_BENCH_EVENTS` events are measured. `DAEMONEYE_BENCH_CORPUS` names a directory that takes the same rules in other
//! languages, events and our matches, for those who are measured beside us. `DAEMONEYE_BENCH_ONLY` asks for one part: `windows`,
//! `linux`, `growth`, `memory` or `one` event. Prints Markdown tables.
//!
//! Run with `cargo xtask bench detection`, which also builds and runs the others.

#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a benchmark that cannot run has nothing to measure"
)]

mod corpus;
mod render;

use std::fmt::Write as _;
use std::fs;
use std::hint::black_box;
use std::path::Path;
use std::time::{Duration, Instant};

use daemoneye_engine::detect::{LoadedRule, RuleSet, rules};
use daemoneye_engine::ingest::{EventBatch, batch_from_json};
use daemoneye_lib::model::Completeness;
use daemoneye_lib::proto::Sequence;
use serde_json::{Map, Value};

use corpus::{Event, FIELDS, Random, Rule, World};

/// Events of one batch.
const BATCH: usize = 1_024;
/// Events that the others are given: they are slower, and each of them stops after some seconds.
const SHARED: usize = 20_000;
/// Events that are made before the clock runs, as the others have theirs: what makes them takes the processor's caches.
const PREPARED: usize = 20 * BATCH;

struct Sizes {
    events: usize,
    windows: usize,
    linux: usize,
    steps: [usize; 3],
    many: usize,
}

fn main() {
    let measured = std::env::args().any(|argument| argument == "--bench");
    let events = std::env::var("DAEMONEYE_BENCH_EVENTS").ok().and_then(|events| events.parse().ok());
    let sizes = if measured {
        Sizes {
            events: events.unwrap_or(1_000_000),
            windows: 1_400,
            linux: 144,
            steps: [100, 1_000, 10_000],
            many: 3_000,
        }
    } else {
        Sizes { events: 2_048, windows: 20, linux: 10, steps: [1, 2, 4], many: 20 }
    };
    let only = std::env::var("DAEMONEYE_BENCH_ONLY").ok();
    let asked = |part: &str| only.as_ref().is_none_or(|only| only == part);
    println!("| rules and events | value |\n|---|---|");
    if asked("memory") {
        memory(sizes.steps[2]);
    }
    let place = std::env::var_os("DAEMONEYE_BENCH_CORPUS");
    for (name, windows, count) in [("Windows", true, sizes.windows), ("Linux", false, sizes.linux)] {
        if !asked(&name.to_lowercase()) {
            continue;
        }
        let mut random = Random::new(if windows { 7 } else { 11 });
        let world = World::new(windows, &mut random);
        let rules: Vec<Rule> = (0..count).map(|at| world.rule(at, &mut random)).collect();
        let place = place.as_ref().map(|place| Path::new(place).join(name.to_lowercase()));
        throughput(name, &world, &rules, sizes.events, place.as_deref());
    }
    if let Some(place) = &place {
        for_the_agent(&Path::new(place).join("rules"), sizes.many);
    }
    if asked("growth") {
        scaling(&sizes);
    }
    if asked("one") {
        one_event(sizes.many);
    }
}

/// Rules for the programs, which are measured with them afterwards.
fn for_the_agent(dir: &Path, count: usize) {
    let mut random = Random::new(11);
    let world = World::new(false, &mut random);
    let rules: Vec<Rule> = (0..count).map(|at| world.rule(at, &mut random)).collect();
    fs::create_dir_all(dir).unwrap();
    write_rules(dir, &rules);
}

fn write_rules(dir: &Path, rules: &[Rule]) {
    rules.iter().for_each(|rule| fs::write(dir.join(&rule.id).with_extension("yaml"), render::ours(rule)).unwrap());
}

/// The rules as files, as they are on a host.
fn written(rules: &[Rule]) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    write_rules(dir.path(), rules);
    dir
}

fn load(dir: &tempfile::TempDir) -> Vec<LoadedRule> {
    let loaded = rules::load_dirs(&[dir.path().to_owned()]);
    assert!(loaded.problems.is_empty(), "{:?}", loaded.problems);
    loaded.rules
}

/// However many: a directory holds at most 10,000.
fn load_all(rules: &[Rule]) -> Vec<LoadedRule> {
    rules.chunks(10_000).flat_map(|some| load(&written(some))).collect()
}

fn set(loaded: Vec<LoadedRule>) -> RuleSet {
    let (set, refusals) = RuleSet::compile(loaded);
    assert!(refusals.is_empty(), "{refusals:?}");
    set
}

fn batch(events: &[Event]) -> EventBatch {
    let row = |event: &Event| -> Map<String, Value> {
        let mut row: Map<String, Value> =
            event.iter().map(|(field, text)| (FIELDS[*field].1.to_owned(), text.as_str().into())).collect();
        row.insert("event_type".into(), "start".into());
        row.insert("start_kind".into(), "exec".into());
        row
    };
    let rows: Vec<_> = events.iter().map(row).collect();
    let at = Sequence { epoch: 1, number: 1 };
    let batch = batch_from_json(&rows).unwrap();
    EventBatch { batch, collector: "bench".into(), first: at, last: at, gaps: Vec::new(), live: Vec::new() }
}

fn shape(rules: &[Rule]) -> String {
    let values = |rule: &Rule| {
        let selections = rule.selections.iter().chain(&rule.filters).flatten();
        selections.flat_map(|item| item.values.iter().cloned()).collect::<Vec<_>>()
    };
    let mut counts: Vec<usize> = rules.iter().map(|rule| values(rule).len()).collect();
    counts.sort_unstable();
    let all: Vec<String> = rules.iter().flat_map(values).collect();
    let slashed = all.iter().filter(|value| value.contains('\\')).count();
    format!(
        "{:.1} values a rule, p95 {}, {} % with a backslash",
        ratio(all.len(), counts.len()),
        counts[counts.len() * 95 / 100],
        slashed * 100 / all.len()
    )
}

fn ratio(part: usize, whole: usize) -> f64 {
    let float = |count: usize| f64::from(u32::try_from(count).unwrap());
    float(part) / float(whole)
}

fn throughput(name: &str, world: &World, rules: &[Rule], events: usize, place: Option<&Path>) {
    let files = written(rules);
    let began = Instant::now();
    let loaded = load(&files);
    let parsed = began.elapsed();
    let set = set(loaded);
    let loading = began.elapsed();
    let mut random = Random::new(23);
    let (mut took, mut matches, mut seen) = (Duration::ZERO, 0, 0);
    let mut shared = String::new();
    let mut ours = String::new();
    while seen < events {
        let some: Vec<Event> = (0..PREPARED.min(events - seen)).map(|_| world.event(rules, &mut random)).collect();
        let batches: Vec<EventBatch> = some.chunks(BATCH).map(batch).collect();
        let mut all = Vec::with_capacity(PREPARED);
        let began = cpu();
        for (batch, first) in batches.iter().zip((seen..).step_by(BATCH)) {
            let found = black_box(set.evaluate(black_box(batch), &Completeness::complete()));
            all.extend(found.iter().map(|found| (first + found.row, found.rule.id)));
        }
        took += cpu() - began;
        matches += all.len();
        for (event, rule) in all.into_iter().filter(|(event, _)| place.is_some() && *event < SHARED) {
            writeln!(ours, "{event} {rule}").unwrap();
        }
        if place.is_some() {
            let left = SHARED.saturating_sub(seen);
            some.iter().take(left).for_each(|event| writeln!(shared, "{}", json(event)).unwrap());
        }
        seen += some.len();
    }
    if let Some(place) = place {
        share(place, rules, &shared, &ours);
    }
    let rate = f64::from(u32::try_from(events).unwrap()) / took.as_secs_f64();
    println!(
        "| {} {name}-like rules: {} | loaded in {:.0} ms ({:.0} ms of it the prefilter) |",
        rules.len(),
        shape(rules),
        loading.as_secs_f64() * 1e3,
        (loading - parsed).as_secs_f64() * 1e3
    );
    println!(
        "| {events} {name}-like events, one thread | **{rate:.0} events/s**, {:.2} µs an event; {:.2} matches and {:.1} candidates an event |",
        1e6 / rate,
        ratio(matches, events),
        ratio(usize::try_from(set.candidates()).unwrap(), events)
    );
    println!("| what finds needles, of {name} | {:.2} MB |", ratio(set.needle_bytes(), 1_000_000));
}

fn json(event: &Event) -> Value {
    event
        .iter()
        .map(|(field, text)| (FIELDS[*field].0.to_owned(), Value::from(text.as_str())))
        .collect::<Map<_, _>>()
        .into()
}

fn share(place: &Path, rules: &[Rule], events: &str, ours: &str) {
    let all = |render: fn(&Rule) -> String, between: &str| rules.iter().map(render).collect::<Vec<_>>().join(between);
    fs::create_dir_all(place).unwrap();
    fs::write(place.join("events.jsonl"), events).unwrap();
    fs::write(place.join("ours.txt"), ours).unwrap();
    fs::write(place.join("sigma.yml"), all(render::sigma, "---\n")).unwrap();
    fs::write(place.join("tau.yml"), all(render::tau, "---\n")).unwrap();
    fs::write(place.join("sqlite.sql"), all(render::sqlite, "\n")).unwrap();
    fs::write(place.join("ids.txt"), all(|rule| rule.id.clone(), "\n")).unwrap();
}

/// What the same events cost as more rules are there that match none of them: events made of the words that the rules ask for, and
/// events of a host that has other words.
fn scaling(sizes: &Sizes) {
    let mut random = Random::new(5);
    let world = World::new(true, &mut random);
    let most = sizes.steps[2];
    let rules: Vec<Rule> = (0..most * 3).map(|at| world.rule(at, &mut random)).collect();
    // Other events of the same world come before those that are counted: an expression is compiled when it is first asked.
    let mut some = |world: &World| -> Vec<EventBatch> {
        let events: Vec<Event> = (0..BATCH * 20).map(|_| world.event(&[], &mut random)).collect();
        events.chunks(BATCH).map(batch).collect()
    };
    let near = [some(&world), some(&world)];
    let elsewhere = world.elsewhere();
    let far = [some(&elsewhere), some(&elsewhere)];
    let all = set(load_all(&rules));
    let mut matching = std::collections::HashSet::new();
    for batch in near.iter().chain(&far).flatten() {
        matching
            .extend(all.evaluate(batch, &Completeness::complete()).into_iter().map(|found| found.rule.id.to_string()));
    }
    drop(all);
    let silent: Vec<Rule> = rules.into_iter().filter(|rule| !matching.contains(&rule.id)).take(most).collect();
    let mut costs = [String::new(), String::new()];
    for step in sizes.steps {
        let count = step.min(silent.len());
        for ([batches, earlier], costs) in [&near, &far].into_iter().zip(&mut costs) {
            let cost = silent_cost(&set(load_all(&silent[..count])), batches, earlier);
            write!(costs, "{}{count}: {cost}", if costs.is_empty() { "" } else { ", " }).unwrap();
        }
    }
    let [near, far] = costs;
    println!("| an event with rules that do not match | {near} |");
    println!("| the same, of a host with other words than theirs | {far} |");
}

fn silent_cost(set: &RuleSet, batches: &[EventBatch], earlier: &[EventBatch]) -> String {
    for batch in earlier {
        assert!(set.evaluate(batch, &Completeness::complete()).is_empty());
    }
    let before = set.candidates();
    let began = cpu();
    for batch in batches {
        assert!(black_box(set.evaluate(batch, &Completeness::complete())).is_empty());
    }
    let events = batches.len() * BATCH;
    let cost = (cpu() - began).as_secs_f64() * 1e6 / f64::from(u32::try_from(events).unwrap());
    let candidates = ratio(usize::try_from(set.candidates() - before).unwrap(), events);
    format!("{cost:.2} µs ({candidates:.1} candidates)")
}

fn one_event(rules: usize) {
    let mut random = Random::new(3);
    let world = World::new(true, &mut random);
    let rules: Vec<Rule> = (0..rules).map(|at| world.rule(at, &mut random)).collect();
    let set = set(load_all(&rules));
    let count = if rules.len() < 1_000 { 100 } else { 20_000 };
    let batches: Vec<EventBatch> = (0..count).map(|_| batch(&[world.event(&rules, &mut random)])).collect();
    let (mut times, mut busy) = (Vec::new(), Vec::new());
    for batch in &batches {
        let (began, working) = (Instant::now(), cpu());
        black_box(set.evaluate(batch, &Completeness::complete()));
        busy.push(cpu() - working);
        times.push(began.elapsed());
    }
    let at = |times: &mut Vec<Duration>, percent: usize| {
        times.sort_unstable();
        times[(times.len() - 1) * percent / 100].as_secs_f64() * 1e6
    };
    println!(
        "| a batch of one event, {} rules | p50 {:.1} µs, p99 {:.1} µs; of the thread's CPU p50 {:.1} µs, p99 {:.1} µs |",
        rules.len(),
        at(&mut times, 50),
        at(&mut times, 99),
        at(&mut busy, 50),
        at(&mut busy, 99)
    );
}

/// Resident bytes for each rule of a large set.
fn memory(count: usize) {
    let mut random = Random::new(13);
    let world = World::new(true, &mut random);
    let rules: Vec<Rule> = (0..count).map(|at| world.rule(at, &mut random)).collect();
    let files = written(&rules);
    drop(set(load(&written(&rules[..rules.len().min(10)]))));
    let before = resident_kb();
    let set = set(load(&files));
    let after = resident_kb();
    println!(
        "| resident memory of {} rules, of it {:.2} MB for finding needles | {:.1} KB a rule |",
        rules.len(),
        ratio(set.needle_bytes(), 1_000_000),
        ratio(after.saturating_sub(before), rules.len())
    );
}

/// What the thread has worked, so that a busy machine does not count.
fn cpu() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    Duration::new(u64::try_from(time.tv_sec).unwrap(), u32::try_from(time.tv_nsec).unwrap())
}

fn resident_kb() -> usize {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap_or("0");
    line.trim().trim_end_matches(" kB").parse().unwrap_or(0)
}
