//! The agent's program, started for work on files that needs the engine: this one links none.

use std::ffi::OsString;
use std::process::{ExitStatus, Stdio};

use daemoneye_lib::exit::Exit;
use tokio::process::{Child, Command};

use crate::error::CliError;
use crate::jail;
use crate::offline;
use crate::settings::Settings;

/// Starts it, then closes this program's jail. It inherits standard input and standard error.
pub(crate) fn start(arguments: Vec<OsString>, stdout: Stdio, settings: &Settings) -> Result<Child, CliError> {
    let program = offline::program();
    let what = || format!("start {}; install it beside daemoneye-cli or in PATH", program.display());
    let child = Command::new(&program).args(arguments).stdout(stdout).kill_on_drop(true).spawn();
    let child = child.map_err(|source| CliError::Io { what: what(), source })?;
    jail::close(&settings.sandbox_required)?;
    Ok(child)
}

/// Waits for its end. It has told on standard error whatever there was to tell.
pub(crate) async fn ended(child: &mut Child) -> Result<Exit, CliError> {
    let status = child.wait().await;
    status.map(exit).map_err(|source| CliError::Io { what: "wait for daemoneye-agent".to_owned(), source })
}

fn exit(status: ExitStatus) -> Exit {
    let same = |exit: &&Exit| status.code() == Some(i32::from(exit.code()));
    Exit::ALL.iter().find(same).copied().unwrap_or(Exit::Failure)
}

/// `--name value`.
pub(crate) fn flag(name: &str, value: impl Into<OsString>) -> [OsString; 2] {
    [OsString::from(name), value.into()]
}
