//! `replay PATH --rules DIR`: the alerts that rules raise over past events, as JSON Lines. The agent program does it, alone and
//! jailed; this one starts it and hands its exit code on.

use std::process::{Command, Stdio};

use daemoneye_lib::exit::Exit;

use crate::args::Replay;
use crate::error::CliError;
use crate::offline;
use crate::settings::Settings;

pub(super) fn run(arguments: &Replay, settings: &Settings) -> Result<Exit, CliError> {
    if settings.store.is_some() {
        return Err(CliError::Usage(
            "replay takes the directory itself: daemoneye-cli replay DIR --rules RULES".to_owned(),
        ));
    }
    let program = offline::program();
    let mut command = Command::new(&program);
    command.arg("replay").arg(&arguments.path).stdin(Stdio::null());
    for dir in &arguments.rules {
        command.arg("--rules").arg(dir);
    }
    let ended = command.status().map_err(|source| CliError::Io {
        what: format!("start {}; install it beside daemoneye-cli or in PATH", program.display()),
        source,
    })?;
    Ok(offline::exit_of(ended))
}
