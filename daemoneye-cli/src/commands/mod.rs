//! One file per noun, each a function from its arguments to an exit code.

mod alerts;
mod audit;
mod compare;
mod completions;
mod config;
mod data;
mod events;
mod health;
mod hunt;
mod import;
mod processes;
mod proof;
pub(crate) mod query;
mod replay;
mod rules;

use daemoneye_lib::exit::Exit;

use crate::args::Command;
use crate::error::CliError;
use crate::settings::Settings;
use crate::{selftest, shell};

pub(crate) async fn run(command: Command, settings: &Settings) -> Result<Exit, CliError> {
    match command {
        Command::Query(arguments) => query::run(arguments, settings).await,
        Command::Processes(arguments) => processes::run(&arguments, settings).await,
        Command::Alerts(verb) => alerts::run(verb, settings).await,
        Command::Rules(verb) => rules::run(verb, settings).await,
        Command::Hunt(arguments) => hunt::run(&arguments, settings).await,
        Command::Health => health::run(settings).await,
        Command::Events(verb) => events::run(verb, settings).await,
        Command::Audit(verb) => audit::run(verb, settings).await,
        Command::Config(verb) => config::run(verb, settings).await,
        Command::Data(verb) => data::run(verb, settings).await,
        Command::Replay(arguments) => replay::run(&arguments, settings),
        Command::Selftest(arguments) => selftest::run(&arguments, settings).await,
        Command::Shell => shell::run(settings).await,
        Command::Completions { shell } => completions::run(shell),
    }
}
