//! The operator's console: a thin client of the agent's socket, and a reader of ledger files.
//!
//! Data goes to standard output, everything else to standard error. It opens no network connection and writes no file but
//! those that it is told to, and the history of its shell. A closed pipe on standard output ends it silently.

mod agent;
mod args;
mod commands;
mod error;
mod jail;
mod offline;
mod owner;
mod private;
mod render;
mod selftest;
mod settings;
mod shell;
mod signals;
mod tool;
mod value;

use std::process::ExitCode;

use clap::Parser as _;
use daemoneye_lib::exit::Exit;

use crate::args::Arguments;
use crate::error::CliError;
use crate::settings::Settings;

fn main() -> ExitCode {
    // Before anything looks at the arguments: they are those of the program that is imitated.
    if selftest::is_imitation() {
        return selftest::imitate();
    }
    let arguments = Arguments::parse_from(args::with_comments(std::env::args_os().collect()));
    match run(arguments) {
        Ok(exit) => exit.into(),
        Err(error) if error.is_closed_pipe() => Exit::Ok.into(),
        Err(error) => {
            eprintln!("{}", error.report());
            error.exit().into()
        }
    }
}

fn run(mut arguments: Arguments) -> Result<Exit, CliError> {
    if arguments.command.has_own_format() {
        arguments.common.settings.0.retain(|(key, _)| key != "format");
    }
    let settings = Settings::load(&arguments.common)?;
    settings.start_logging()?;
    // A console that starts programs closes its jail when it has a connection, and starts none from then on.
    if !arguments.command.may_start_programs(&settings) {
        jail::close(&settings.sandbox_required)?;
    }
    // The connection is served beside the commands: a reader that pauses standard output must not stop it from answering
    // the agent's pings.
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .map_err(|source| CliError::Io { what: "start the runtime".to_owned(), source })?;
    let writes = arguments.command.writes_rows();
    let outcome = runtime.block_on(async {
        if arguments.command.takes_interrupts() {
            return commands::run(arguments.command, &settings).await;
        }
        tokio::select! {
            result = commands::run(arguments.command, &settings) => result,
            _ = tokio::signal::ctrl_c() => Err(CliError::Interrupted),
            // What it has written so far is removed.
            () = signals::terminated(), if writes => Err(CliError::Interrupted),
        }
    });
    // A thread that waits for standard input would hold up the end until the next line.
    runtime.shutdown_background();
    outcome
}
