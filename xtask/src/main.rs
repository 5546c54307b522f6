//! Tasks of the workspace that are more than one cargo command: `cargo xtask up | bpf | layering | sizes | spec |
//! docs | bench`.
//!
//! The checks print every violation before they fail, so that one run of CI shows all of them.

mod bench;
mod bpf;
mod docs;
mod layering;
mod sizes;
mod spec;
mod up;
mod workspace;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

#[derive(Debug, Parser)]
#[command(name = "cargo xtask", about = "Tasks of the DaemonEye workspace")]
struct Arguments {
    #[command(subcommand)]
    task: Task,
}

#[derive(Debug, Subcommand)]
enum Task {
    /// Build the three programs and run the agent with procmond on a scratch data directory
    Up(up::Options),
    /// Run every benchmark and write the table into docs/benchmarks.md
    Bench(bench::Options),
    /// Build bpf/procmond.bpf.o from its source with the pinned clang
    Bpf {
        /// Fail when the committed object differs instead of writing it; skipped without the pinned clang
        #[arg(long)]
        check: bool,
        /// With --check: fail when the pinned clang is not installed
        #[arg(long, requires = "check")]
        required: bool,
    },
    /// Check crate edges, places of cfg(target_os), and the size of procmond's dependency tree
    Layering,
    /// Check that no production file is above 500 lines
    Sizes,
    /// Check that every promise and every answer to a threat names a test that exists
    Spec,
    /// Write docs/reference from the tables in the code
    Docs {
        /// Fail when a file differs instead of writing it
        #[arg(long)]
        check: bool,
    },
}

fn main() -> anyhow::Result<ExitCode> {
    match Arguments::parse().task {
        Task::Up(options) => up::run(&options),
        Task::Bench(options) => bench::run(&options).map(|()| ExitCode::SUCCESS),
        Task::Bpf { check: true, required } => Ok(verdict("bpf", &bpf::differences(required)?)),
        Task::Bpf { check: false, .. } => bpf::write().map(|()| ExitCode::SUCCESS),
        Task::Layering => Ok(verdict("layering", &layering::violations()?)),
        Task::Sizes => Ok(verdict("sizes", &sizes::violations()?)),
        Task::Spec => Ok(verdict("spec", &spec::violations()?)),
        Task::Docs { check: true } => Ok(verdict("docs", &docs::differences()?)),
        Task::Docs { check: false } => docs::write().map(|()| ExitCode::SUCCESS),
    }
}

fn verdict(check: &str, violations: &[String]) -> ExitCode {
    for violation in violations {
        eprintln!("{check}: {violation}");
    }
    if violations.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
