//! The tables that are printed.

use std::time::Duration;

use daemoneye_engine::store::Vacuumed;

use crate::ingest::Ingested;
use crate::peers::{CONTESTANTS, Peers};
use crate::queries::{Outcome, Query};
use crate::sizes::{Sizes, per_event};

const MISSING: &str = "not installed";

/// Everything that the peers do too.
pub(crate) fn contest(
    rows: usize,
    ingested: &Ingested,
    after: &Sizes,
    suite: &[Query],
    ours: &[Outcome],
    peers: &Peers,
) {
    let headings: String = CONTESTANTS.iter().map(|(_, heading)| format!(" {heading} |")).collect();
    println!("| {} events | ours |{headings}\n|---|---|{}", thousands(rows as f64), "---|".repeat(CONTESTANTS.len()));
    let rate = |rate: f64| format!("{} rows/s", thousands(rate));
    line("ingest until committed", &rate(ingested.rows_per_second()), peers, |name| {
        let peer = peers.get(name)?;
        Some(peer.rows_per_second.map_or_else(String::new, rate))
    });
    let size = |bytes: u64| format!("{:.1}", per_event(bytes, rows));
    line("bytes an event, compacted", &size(after.values().sum()), peers, |name| {
        let peer = peers.get(name)?;
        Some(peer.bytes.map_or_else(String::new, size))
    });
    for (query, outcome) in suite.iter().zip(ours) {
        let lacks = if outcome.lacks.is_empty() { String::new() } else { format!(", DEGRADED: {}", outcome.lacks) };
        let told = format!("{}{lacks}", milliseconds(outcome.p50.as_secs_f64() * 1e3));
        let what = format!("{} ({} rows)", query.name, thousands(outcome.rows.len() as f64));
        line(&what, &told, peers, |name| answer(peers, name, query.name));
    }
}

fn line(what: &str, ours: &str, peers: &Peers, of: impl Fn(&str) -> Option<String>) {
    let missing = |name: &str| if peers.contains_key(name) { String::new() } else { MISSING.to_owned() };
    let cells = CONTESTANTS.iter().map(|(name, _)| format!(" {} |", of(name).unwrap_or_else(|| missing(name))));
    println!("| {what} | {ours} |{}", cells.collect::<String>());
}

/// What a peer took; with a word when its answer is not ours.
fn answer(peers: &Peers, peer: &str, query: &str) -> Option<String> {
    let peer = peers.get(peer)?;
    let Some(answered) = peer.answers.get(query) else {
        return Some(if peer.rows_per_second.is_some() { "no answer".to_owned() } else { String::new() });
    };
    let differs = &answered.differs;
    let verdict = if differs.is_empty() { String::new() } else { format!(", ANSWER DIFFERS: {differs}") };
    Some(format!("{}{verdict}", milliseconds(answered.p50_ms)))
}

/// What only we do, and who was beside us.
pub(crate) fn figures(ingested: &Ingested, merged: &Vacuumed, compaction: Duration, peers: &Peers) {
    let mut versions: Vec<&str> = peers.values().map(|peer| peer.version.as_str()).collect();
    versions.sort_unstable();
    versions.dedup();
    let versions = if versions.is_empty() { MISSING.to_owned() } else { versions.join(", ") };
    println!("| peers | {versions} |");
    println!(
        "| compaction, without its budget | {} files → {} in {:.1} s, {} rows/s |",
        merged.segments_before,
        merged.segments_after,
        compaction.as_secs_f64(),
        thousands(ingested.rows as f64 / compaction.as_secs_f64())
    );
}

pub(crate) fn milliseconds(ms: f64) -> String {
    match ms {
        ms if ms < 10.0 => format!("{ms:.2} ms"),
        ms if ms < 100.0 => format!("{ms:.1} ms"),
        ms => format!("{} ms", thousands(ms)),
    }
}

fn thousands(number: f64) -> String {
    let digits = format!("{number:.0}");
    let mut grouped = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    grouped
}
