//! Runs every benchmark with the `bench` profile and writes one table to docs/benchmarks.md.
//!
//! A benchmark reports and never fails a build: what is slow is a row in the table.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::SystemTime;

use anyhow::{Context as _, bail};
use serde_json::Value;

use crate::workspace;

/// Criterion suites: package and name. `e2e figures` starts the real programs and prints its own rows.
const SUITES: &[(&str, &str)] = &[
    ("procmond", "process_collector_benchmarks"),
    ("collector-core", "wal_benchmarks"),
    ("daemoneye-eventbus", "throughput"),
    ("daemoneye-engine", "database_operations"),
    ("daemoneye-engine", "query"),
    ("daemoneye-engine", "detection_engine"),
];

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
    let began = SystemTime::now();
    for (package, suite) in SUITES.iter().filter(|(_, suite)| wanted(suite)) {
        cargo(&["bench", "-p", package, "--bench", suite])?;
    }
    let mut table = String::from("| benchmark | time (mean) | rate |\n|---|---|---|\n");
    for row in criterion_rows(&target()?.join("criterion"), began)? {
        table.push_str(&row);
    }
    if wanted("figures") {
        // The figures suite starts the programs beside it, so they have to be of the same profile.
        cargo(&["build", "--profile", "bench", "-p", "procmond", "-p", "daemoneye-agent", "-p", "daemoneye-cli"])?;
        table.push('\n');
        table.push_str(&figures()?);
    }
    println!("{table}");
    if !options.print {
        write(&table)?;
    }
    Ok(())
}

fn cargo(arguments: &[&str]) -> anyhow::Result<()> {
    let status = Command::new(workspace::cargo_program()).args(arguments).current_dir(workspace::root()?).status()?;
    if !status.success() {
        bail!("cargo {} failed", arguments.join(" "));
    }
    Ok(())
}

fn figures() -> anyhow::Result<String> {
    let output = Command::new(workspace::cargo_program())
        .args(["bench", "--quiet", "-p", "e2e", "--bench", "figures"])
        .current_dir(workspace::root()?)
        .stderr(std::process::Stdio::inherit())
        .output()?;
    if !output.status.success() {
        bail!("the figures suite failed");
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

fn target() -> anyhow::Result<PathBuf> {
    let metadata = workspace::metadata()?;
    let target = metadata.get("target_directory").and_then(Value::as_str);
    target.map(PathBuf::from).context("cargo metadata names no target directory")
}

/// One row for each measurement that is newer than `began`.
fn criterion_rows(dir: &Path, began: SystemTime) -> anyhow::Result<Vec<String>> {
    let mut rows = Vec::new();
    let mut pending = vec![dir.to_owned()];
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

/// Replaces what stands between the two marks in docs/benchmarks.md.
fn write(table: &str) -> anyhow::Result<()> {
    const BEGIN: &str = "<!-- measured: begin -->";
    const END: &str = "<!-- measured: end -->";
    let path = workspace::root()?.join("docs/benchmarks.md");
    let text = fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))?;
    let (before, rest) = text.split_once(BEGIN).context("docs/benchmarks.md has no begin mark")?;
    let (_, after) = rest.split_once(END).context("docs/benchmarks.md has no end mark")?;
    let machine = machine();
    fs::write(&path, format!("{before}{BEGIN}\n{machine}\n\n{table}{END}{after}"))?;
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
        "{}; {} × {}; {}; {}. Command: `cargo xtask bench`.",
        said("date", &["-u", "+%Y-%m-%d"]),
        std::thread::available_parallelism().map_or(1, usize::from),
        model.map_or("unknown CPU", |(_, model)| model),
        said("uname", &["-sr"]),
        said("rustc", &["--version"]),
    )
}
