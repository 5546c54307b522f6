//! Detection: our own figures, those of the programs with many rules, then those of others over the rules and events that ours
//! wrote down, then window rules.
//!
//! The others are a crate of their own outside the workspace, with its own lock file: nothing of them is in what is shipped.

use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::bail;

use super::{CAPTURE, cargo, printed, printed_with, remove, target, workspace};

/// Where the suite leaves the corpus, and where the others find it.
const CORPUS: &str = "DAEMONEYE_BENCH_CORPUS";

/// The suite of window rules; it has no peers.
const WINDOWS: &str = "window_rules";

/// All tables.
pub(super) fn run(suite: &str) -> anyhow::Result<String> {
    let place = target()?.join("bench-detection");
    remove(&place)?;
    let tables = printed_with(suite, |command| {
        command.env(CORPUS, &place);
    });
    let tables = tables.and_then(|ours| {
        cargo(&["build", "--profile", "bench", "--workspace", "--bins"])?;
        let programs = printed_with(CAPTURE, |command| {
            command.env("DAEMONEYE_BENCH_RULES", place.join("rules"));
        });
        Ok(format!("{ours}\n{}", programs?))
    });
    let tables = tables.map(|ours| {
        let others = peers(&place).unwrap_or_else(|error| format!("The others are not measured: {error}\n"));
        format!("{ours}\n{others}")
    });
    remove(&place)?;
    let windows = printed(WINDOWS)?;
    Ok(format!("{}\n### Window rules (bar: 5 % of a core)\n\n{windows}", tables?))
}

fn peers(corpus: &Path) -> anyhow::Result<String> {
    let manifest = workspace::root()?.join("bench/detection-peers/Cargo.toml");
    let mut command = Command::new(workspace::cargo_program());
    command.args(["run", "--release", "--quiet", "--locked", "--manifest-path"]).arg(manifest);
    command.arg("--target-dir").arg(target()?.join("detection-peers")).env(CORPUS, corpus);
    let output = command.stderr(Stdio::inherit()).output()?;
    if !output.status.success() {
        bail!("bench/detection-peers does not build or run here");
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}
