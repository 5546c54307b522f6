//! Builds the three programs and runs the agent in the foreground on a scratch directory.
//!
//! Ctrl-C goes to the agent, which stops everything in order; this task only waits for it.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, ExitStatus};

use anyhow::{Context as _, bail};

use crate::workspace;

#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// Build and run optimised programs
    #[arg(long)]
    release: bool,
    /// Keep the scratch directory afterwards
    #[arg(long)]
    keep: bool,
    /// Further arguments of `daemoneye-agent run`
    #[arg(last = true)]
    agent: Vec<String>,
}

/// Ends with the agent's exit code.
pub(crate) fn run(options: &Options) -> anyhow::Result<ExitCode> {
    build(options)?;
    let programs = programs(options)?;
    // A socket's path may have at most 107 bytes, so the name stays short.
    let scratch = tempfile::Builder::new().prefix("daemoneye-").tempdir().context("create a scratch directory")?;
    let runtime = scratch.path().join("run");
    print_second_terminal(&programs, &runtime);
    let mut agent = Command::new(program(&programs, "daemoneye-agent"))
        .arg("run")
        .arg("--data-dir")
        .arg(scratch.path().join("data"))
        .arg("--runtime-dir")
        .arg(&runtime)
        .arg("--rules")
        .arg(workspace::root()?.join("rules"))
        // The screen is for the summary and the alerts; `-- --log-level info` brings the log back.
        .args(["--log-level", "warn"])
        .args(&options.agent)
        .spawn()
        .context("start daemoneye-agent")?;
    leave_signals_to(&agent)?;
    let status = agent.wait().context("wait for daemoneye-agent")?;
    if options.keep {
        eprintln!("the scratch directory is kept: {}", scratch.keep().display());
    }
    Ok(exit_code(status))
}

fn build(options: &Options) -> anyhow::Result<()> {
    let mut cargo = Command::new(workspace::cargo_program());
    cargo.args(["build", "-p", "procmond", "-p", "daemoneye-agent", "-p", "daemoneye-cli"]);
    if options.release {
        cargo.arg("--release");
    }
    let status = cargo.current_dir(workspace::root()?).status().context("start cargo")?;
    if !status.success() {
        bail!("the build failed");
    }
    Ok(())
}

fn programs(options: &Options) -> anyhow::Result<PathBuf> {
    let metadata = workspace::metadata()?;
    let target = metadata
        .get("target_directory")
        .and_then(|path| path.as_str())
        .context("cargo metadata names no target directory")?;
    Ok(Path::new(target).join(if options.release { "release" } else { "debug" }))
}

fn program(programs: &Path, name: &str) -> PathBuf {
    programs.join(format!("{name}{}", std::env::consts::EXE_SUFFIX))
}

fn print_second_terminal(programs: &Path, runtime: &Path) {
    println!("in a second terminal:");
    println!("  export DAEMONEYE_CLI_RUNTIME_DIR={} PATH=\"{}:$PATH\"", runtime.display(), programs.display());
    println!("  daemoneye-cli health\n");
}

/// The terminal sends Ctrl-C to the agent as well; what is sent to this process alone is passed on. The signals are
/// blocked after the agent was started, because a program inherits the blocked set.
#[cfg(unix)]
fn leave_signals_to(agent: &Child) -> anyhow::Result<()> {
    use nix::sys::signal::{SigSet, Signal, kill};
    let agent = nix::unistd::Pid::from_raw(i32::try_from(agent.id()).context("the agent's pid")?);
    let mut passed_on = SigSet::empty();
    passed_on.add(Signal::SIGTERM);
    passed_on.add(Signal::SIGHUP);
    let mut blocked = passed_on;
    blocked.add(Signal::SIGINT);
    blocked.thread_block().context("block signals")?;
    std::thread::spawn(move || {
        while passed_on.wait().is_ok() {
            if kill(agent, Signal::SIGTERM).is_err() {
                break;
            }
        }
    });
    Ok(())
}

#[cfg(not(unix))]
fn leave_signals_to(_: &Child) -> anyhow::Result<()> {
    Ok(())
}

fn exit_code(status: ExitStatus) -> ExitCode {
    status.code().and_then(|code| u8::try_from(code).ok()).map_or(ExitCode::FAILURE, ExitCode::from)
}
