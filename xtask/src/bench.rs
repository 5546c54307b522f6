//! Runs every benchmark with the `bench` profile and writes its tables to docs/benchmarks.md, those of capture, history, detection and the ledger under
//! headings of their own.
//!
//! Criterion suites leave their estimates in files, of which one table is made; the other suites print tables of their own.
//! Everything is built with the features of the whole workspace, so that no library is compiled twice.
//! A benchmark reports and never fails a build: what is slow is a row in the table. Only what heavy queries do to ingest is held.

mod detection;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::SystemTime;

use anyhow::{Context as _, bail};
use daemoneye_lib::allocator;
use serde_json::Value;

use crate::workspace;

/// Criterion suites.
const SUITES: &[&str] = &[
    "wal_benchmarks",
    "cryptographic_operations",
    "throughput",
    "database_operations",
    "alert_processing",
    "detection_engine",
];
/// What enumerating 10,000 processes takes belongs to the table of capture.
const ENUMERATION: &str = "process_collector_benchmarks";
/// The suite that measures between two processes and prints its own table.
const BUS: &str = "ipc_performance";
/// The suites that start the real programs and print tables of their own; the second one's table stands by itself.
const FIGURES: &str = "figures";
const CAPTURE: &str = "capture";
/// History with its peers, and the agent over the store that it leaves; one section.
const HISTORY: &str = "history";
const HISTORY_AGENT: &str = "history_agent";
/// Stream rules, and others over the same rules and events; one section.
const DETECTION: &str = "detection";
/// The ledger at its size; one section.
const LEDGER: &str = "ledger_growth";
/// Events of the full measurement of history: months of a quiet host.
const HISTORY_ROWS: &str = "10000000";
const ROWS: &str = "DAEMONEYE_BENCH_ROWS";
/// The Python that has the peers of history, and where the suites find the store of the one before.
const PYTHON: &str = "DAEMONEYE_PYTHON";
const STORE: &str = "DAEMONEYE_BENCH_STORE";

/// Seconds to warm up and to measure: about five for each of some fifty benchmarks keep the whole below ten minutes. Suites
/// whose single round is long set fewer samples themselves.
const SAMPLING: &[&str] = &["--warm-up-time", "1", "--measurement-time", "3"];

/// Sizes of the full measurement, unless the caller sets others.
const SIZES: &[(&str, &str)] = &[("PROCESSES", "10000")];

#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// Run only suites whose name contains this
    filter: Option<String>,
    /// Print the table without writing docs/benchmarks.md
    #[arg(long)]
    print: bool,
}

pub(crate) fn run(options: &Options) -> anyhow::Result<()> {
    let wanted = |name: &str| options.filter.as_deref().is_none_or(|part| name.contains(part));
    let suites: Vec<&str> = SUITES.iter().copied().filter(|suite| wanted(suite)).collect();
    let mut tables: Vec<String> = criterion(&suites)?.into_iter().collect();
    if wanted(BUS) {
        tables.push(printed(BUS)?);
    }
    if wanted(FIGURES) {
        tables.push(of_programs(FIGURES)?);
    }
    publish(&tables, "measured", options.filter.is_none() && !options.print)?;
    if wanted(CAPTURE) || wanted(ENUMERATION) {
        let mut tables: Vec<String> = criterion(&[ENUMERATION])?.into_iter().collect();
        if wanted(CAPTURE) {
            tables.push(of_programs(CAPTURE)?);
        }
        publish(&tables, CAPTURE, wanted(CAPTURE) && !options.print)?;
    }
    if wanted(DETECTION) {
        publish(&[detection::run(DETECTION)?], DETECTION, !options.print)?;
    }
    if wanted(LEDGER) {
        publish(&[printed(LEDGER)?], "ledger", !options.print)?;
    }
    if wanted(HISTORY) {
        publish(&[history()?], HISTORY, !options.print)?;
    }
    Ok(())
}

/// History: the store and its peers first, then the agent over the same store, which is removed at the end.
fn history() -> anyhow::Result<String> {
    let place = target()?.join("bench-history");
    let python = python_with_peers();
    let rows = std::env::var_os(ROWS).unwrap_or_else(|| HISTORY_ROWS.into());
    let with = |command: &mut Command| {
        command.env(ROWS, &rows).env(STORE, &place).envs(allocator::SETTINGS);
        command.envs(python.as_ref().map(|python| (PYTHON, python)));
    };
    remove(&place)?;
    let tables = printed_with(HISTORY, with).and_then(|store| {
        cargo(&["build", "--profile", "bench", "--workspace", "--bins"])?;
        Ok(format!("{store}\n{}", printed_with(HISTORY_AGENT, with)?))
    });
    remove(&place)?;
    tables
}

fn remove(dir: &Path) -> anyhow::Result<()> {
    if dir.exists() { fs::remove_dir_all(dir).with_context(|| format!("remove {}", dir.display())) } else { Ok(()) }
}

/// A Python with DuckDB: the caller's, or one of our own below the target directory. `None` when it cannot be had: the suite
/// then says that the peers are not installed.
fn python_with_peers() -> Option<PathBuf> {
    if let Some(named) = std::env::var_os(PYTHON) {
        return Some(named.into());
    }
    let succeeds = |program: &Path, arguments: &[&str]| {
        let status = Command::new(program).args(arguments).status();
        status.is_ok_and(|status| status.success())
    };
    let dir = target().ok()?.join("bench-python");
    let python = dir.join("bin/python3");
    let made = python.exists() || succeeds(Path::new("python3"), &["-m", "venv", dir.to_str()?]);
    let ready = made
        && (succeeds(&python, &["-c", "import duckdb"])
            || succeeds(&python, &["-m", "pip", "install", "--quiet", "duckdb"]));
    if !ready {
        eprintln!("no Python with duckdb (name one in {PYTHON}): SQLite and DuckDB are not measured");
    }
    ready.then_some(python)
}

/// Prints the tables, and writes them where they stand. A part of a section would erase the rest of it, so it is not written.
fn publish(tables: &[String], section: &str, written: bool) -> anyhow::Result<()> {
    let table = tables.join("\n");
    println!("{table}");
    if written { write(&table, section) } else { Ok(()) }
}

/// Runs these Criterion suites and makes one table of them.
fn criterion(suites: &[&str]) -> anyhow::Result<Option<String>> {
    let began = SystemTime::now();
    for suite in suites {
        cargo(&[&["bench", "--workspace", "--bench", suite, "--"], SAMPLING].concat())?;
    }
    let rows = criterion_rows(&target()?.join("criterion"), began)?;
    Ok((!rows.is_empty()).then(|| format!("| benchmark | time (mean) | rate |\n|---|---|---|\n{}", rows.concat())))
}

/// The table of a suite that starts the programs beside it; they have to be of the same profile.
fn of_programs(suite: &str) -> anyhow::Result<String> {
    cargo(&["build", "--profile", "bench", "--workspace", "--bins"])?;
    printed(suite)
}

fn command(arguments: &[&str]) -> anyhow::Result<Command> {
    let mut command = Command::new(workspace::cargo_program());
    command.args(arguments).current_dir(workspace::root()?);
    command.envs(SIZES.iter().filter(|(name, _)| std::env::var_os(name).is_none()).copied());
    Ok(command)
}

fn cargo(arguments: &[&str]) -> anyhow::Result<()> {
    let status = command(arguments)?.status()?;
    if !status.success() {
        bail!("cargo {} failed", arguments.join(" "));
    }
    Ok(())
}

/// The table that a suite prints.
fn printed(suite: &str) -> anyhow::Result<String> {
    printed_with(suite, |_| {})
}

/// The tables that a suite prints with these settings; a blank line stays between two.
fn printed_with(suite: &str, with: impl FnOnce(&mut Command)) -> anyhow::Result<String> {
    let mut command = command(&["bench", "--quiet", "--workspace", "--bench", suite])?;
    with(&mut command);
    let output = command.stderr(std::process::Stdio::inherit()).output()?;
    if !output.status.success() {
        // What it measured says why.
        print!("{}", String::from_utf8_lossy(&output.stdout));
        bail!("the suite {suite} failed");
    }
    let text = String::from_utf8_lossy(&output.stdout);
    let mut tables = String::new();
    for line in text.lines().filter(|line| line.starts_with('|') || line.is_empty()) {
        if !(line.is_empty() && (tables.is_empty() || tables.ends_with("\n\n"))) {
            tables = tables + line + "\n";
        }
    }
    Ok(tables.trim_end().to_owned() + "\n")
}

fn target() -> anyhow::Result<PathBuf> {
    let metadata = workspace::metadata()?;
    let target = metadata.get("target_directory").and_then(Value::as_str);
    target.map(PathBuf::from).context("cargo metadata names no target directory")
}

/// One row for each measurement that is newer than `began`.
fn criterion_rows(dir: &Path, began: SystemTime) -> anyhow::Result<Vec<String>> {
    let mut rows = Vec::new();
    // No criterion suite has run yet when the directory is missing.
    let mut pending: Vec<PathBuf> = dir.is_dir().then(|| dir.to_owned()).into_iter().collect();
    while let Some(dir) = pending.pop() {
        for entry in fs::read_dir(&dir).with_context(|| format!("list {}", dir.display()))? {
            let path = entry?.path();
            if path.is_dir() {
                pending.push(path);
            } else if path.ends_with("new/estimates.json") && fs::metadata(&path)?.modified()? >= began {
                rows.push(criterion_row(&path)?);
            }
        }
    }
    rows.sort();
    Ok(rows)
}

fn criterion_row(estimates: &Path) -> anyhow::Result<String> {
    let read = |path: &Path| -> anyhow::Result<Value> { Ok(serde_json::from_str(&fs::read_to_string(path)?)?) };
    let mean = read(estimates)?.pointer("/mean/point_estimate").and_then(Value::as_f64).context("no mean")?;
    let benchmark = read(&estimates.with_file_name("benchmark.json"))?;
    let name = benchmark.get("full_id").and_then(Value::as_str).unwrap_or("?");
    let throughput = |unit: &str| benchmark.pointer(&format!("/throughput/{unit}")).and_then(Value::as_f64);
    let rate = match (throughput("Elements"), throughput("Bytes")) {
        (Some(elements), _) => format!("{} /s", thousands(elements / mean * 1e9)),
        (None, Some(bytes)) => format!("{:.1} MB/s", bytes / mean * 1e3),
        (None, None) => String::new(),
    };
    Ok(format!("| {name} | {} | {rate} |\n", duration(mean)))
}

fn duration(nanoseconds: f64) -> String {
    match nanoseconds {
        n if n < 1e3 => format!("{n:.0} ns"),
        n if n < 1e6 => format!("{:.2} µs", n / 1e3),
        n if n < 1e9 => format!("{:.2} ms", n / 1e6),
        n => format!("{:.2} s", n / 1e9),
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

/// Replaces what stands between the two marks of the section in docs/benchmarks.md.
fn write(table: &str, section: &str) -> anyhow::Result<()> {
    let (begin, end) = (format!("<!-- {section}: begin -->"), format!("<!-- {section}: end -->"));
    let path = workspace::root()?.join("docs/benchmarks.md");
    let text = fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))?;
    let (before, rest) = text.split_once(&begin).with_context(|| format!("docs/benchmarks.md has no {begin}"))?;
    let (_, after) = rest.split_once(&end).with_context(|| format!("docs/benchmarks.md has no {end}"))?;
    let machine = machine();
    fs::write(&path, format!("{before}{begin}\n{machine}\n\n{table}{end}{after}"))?;
    Ok(())
}

fn machine() -> String {
    let said = |program: &str, arguments: &[&str]| {
        let output = Command::new(program).args(arguments).output().ok();
        output.map_or_else(String::new, |output| String::from_utf8_lossy(&output.stdout).trim().to_owned())
    };
    let cpu = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = cpu.lines().find(|line| line.starts_with("model name")).and_then(|line| line.split_once(": "));
    format!(
        "{}; {} × {}; {}; {}. Command: `cargo {}`.",
        said("date", &["-u", "+%Y-%m-%d"]),
        std::thread::available_parallelism().map_or(1, usize::from),
        model.map_or("unknown CPU", |(_, model)| model),
        said("uname", &["-sr"]),
        said("rustc", &["--version"]),
        std::env::args().skip(1).fold("xtask".to_owned(), |line, argument| line + " " + &argument) + &sizes(),
    )
}

/// Sizes that the caller has set.
fn sizes() -> String {
    let named = std::env::vars().filter(|(name, _)| name.starts_with("DAEMONEYE_BENCH_") || name == "PROCESSES");
    named.fold(String::new(), |line, (name, value)| format!("{line} {name}={value}"))
}
