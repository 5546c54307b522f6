//! The yardsticks of history: what ingest reaches, what an event costs on the disk, how long eight queries take, and what a
//! heavy query does to ingest, with SQLite and DuckDB beside it over the same rows on the same disk.
//!
//! Rows by `DAEMONEYE_BENCH_ROWS` (1,000,000; 20,000 where nothing is measured). `DAEMONEYE_BENCH_STORE` names a directory that
//! keeps the store for a suite that runs later. `DAEMONEYE_BENCH_SQLITE=0` leaves SQLite out. `DAEMONEYE_BENCH_ONLY` asks over such
//! a store, as it is, only those of our queries whose names have this in them, many times; `memory` only what some take, and
//! `pressure` only what heavy ones do to ingest, which adds to the store. Prints Markdown tables; a peer that is not installed is
//! a cell that says so. It fails, after its tables, where heavy queries double the p99 of ingest.
//!
//! Run with `cargo xtask bench history`, which also prepares the peers.

#![expect(clippy::unwrap_used, reason = "a benchmark that cannot run has nothing to measure")]

mod events;
mod ingest;
mod memory;
mod peers;
mod pressure;
mod queries;
mod sizes;
mod table;

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Instant;

use daemoneye_engine::store::{Store, StoreOptions};
use tempfile::TempDir;
use tokio_util::sync::CancellationToken;

use events::{Events, START_US};

/// Where the files go: a directory that is removed, unless a later suite wants them.
struct Place {
    dir: PathBuf,
    _temporary: Option<TempDir>,
}

impl Place {
    fn new() -> Self {
        match std::env::var_os("DAEMONEYE_BENCH_STORE") {
            Some(dir) => {
                std::fs::create_dir_all(&dir).unwrap();
                Self { dir: dir.into(), _temporary: None }
            }
            None => {
                let temporary = tempfile::tempdir().unwrap();
                Self { dir: temporary.path().to_owned(), _temporary: Some(temporary) }
            }
        }
    }
}

fn main() -> ExitCode {
    let measured = std::env::args().any(|argument| argument == "--bench");
    let rows = std::env::var("DAEMONEYE_BENCH_ROWS").ok().and_then(|rows| rows.parse().ok());
    let rows = rows.unwrap_or(if measured { 1_000_000 } else { 20_000 });
    let place = Place::new();
    let options = StoreOptions { compaction_bytes_per_s: 0, ..StoreOptions::new(&place.dir) };
    let store = Arc::new(Store::open(options).unwrap());
    if let Ok(only) = std::env::var("DAEMONEYE_BENCH_ONLY") {
        match only.as_str() {
            "memory" => memory::Gathering::over(&store).print(),
            "pressure" => {
                let mut events = Events::new(2, rows);
                pressure::measure(&store, &mut events, measured).print();
            }
            _ => queries::again(&store, &only),
        }
        return ExitCode::SUCCESS;
    }
    let mut events = Events::new(1, rows);
    let ingested = ingest::fill(&store, &mut events, rows);
    let before = sizes::of(&store);
    let began = Instant::now();
    let filled = memory::resident();
    let (merged, merging) = memory::above(filled, || store.vacuum(START_US, &CancellationToken::new()).unwrap());
    let compaction = began.elapsed();
    let after = sizes::of(&store);
    let suite = queries::suite(&store);
    let ours = queries::measure(&store, &suite);
    let peers = peers::measure(&place.dir, &suite, &ours);
    let gathering = memory::Gathering::over(&store);
    let pressure = pressure::measure(&store, &mut events, measured);

    table::contest(rows, &ingested, &after, &suite, &ours, &peers);
    println!("\n| figure | value |\n|---|---|");
    table::figures(&ingested, &merged, compaction, &peers);
    println!("| compaction, highest resident size above that of before | {} |", memory::told(merging));
    pressure.print();
    gathering.print();
    sizes::print(rows, &before, &after);
    if pressure.holds() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
