//! `daemoneye-agent`: starts procmond, takes its events, judges them by rules, keeps them, and answers operators.
//!
//! `run` is the small parent of the process tree; the work is done by its worker, the same program under a hidden name.

mod args;
mod clock;
mod error;
mod jail;
mod jitter;
mod link;
mod operator;
mod parent;
mod platform;
mod replay;
mod settings;
mod sinks;
mod tools;
mod worker;

use std::process::ExitCode;
use std::time::Duration;

use args::Asked;
use daemoneye_lib::allocator;
use daemoneye_lib::config::{self, AGENT, Sources};
use daemoneye_lib::exit::Exit;
use daemoneye_lib::telemetry;
use error::AgentError;
use settings::Settings;
use tokio::runtime::{Builder, Runtime};

/// How long the last blocking work may hold up the end of a program: a terminal that is stopped must not keep it alive.
const DRAIN: Duration = Duration::from_secs(2);

fn main() -> ExitCode {
    let outcome = match args::parse() {
        Asked::Run { sources, worker_args } => {
            let confine =
                |settings: &Settings| Ok(jail::close_parent(settings.procmond.spawn, &settings.sandbox_required)?);
            start(&sources, Builder::new_current_thread, confine, |settings, jail, runtime| {
                runtime.block_on(parent::run(settings, jail, worker_args))
            })
        }
        Asked::Hunt(asked) => tools::hunt::run(&asked),
        Asked::Import { folder, lists } => tools::import::run(&folder, lists.as_deref()),
        Asked::Worker { sources } => {
            start(&sources, Builder::new_multi_thread, worker::confine, |settings, jail, runtime| {
                runtime.block_on(worker::run(settings, jail))
            })
        }
        Asked::Replay { path, sources } => {
            let confine = |settings: &Settings| replay::confine(settings, &path);
            start(&sources, Builder::new_current_thread, confine, |settings, jail, _| {
                replay::run(&settings, jail, &path)
            })
        }
        Asked::Offline { dir, transient, sources } => {
            let settings = allocator::unset();
            if !settings.is_empty() {
                platform::begin_again_with(&settings);
            }
            platform::take_name(AGENT.name);
            let confine = |settings: &Settings| operator::offline::confine(settings, &dir, transient);
            start(&sources, Builder::new_multi_thread, confine, |settings, jail, runtime| {
                runtime.block_on(operator::offline::run(settings, jail, &dir, transient))
            })
        }
    };
    outcome
        .unwrap_or_else(|error| {
            eprintln!("daemoneye-agent: {error}");
            error.exit()
        })
        .into()
}

/// How long a thread for blocking work waits for more of it. Work goes round among those that wait, so the runtime's own 10 s would keep
/// more of them than there is work for, each with a megabyte or two of its own.
const IDLE: Duration = Duration::from_millis(500);

/// Settings, then logging, then the part of the jail that must come before threads, then a runtime, then the work, then a
/// bounded drain.
fn start<J>(
    sources: &Sources,
    builder: fn() -> Builder,
    confine: impl FnOnce(&Settings) -> Result<J, AgentError>,
    work: impl FnOnce(Settings, J, &Runtime) -> Result<Exit, AgentError>,
) -> Result<Exit, AgentError> {
    let config = config::load(&AGENT, sources)?;
    let format = telemetry::Format::of_setting(config.text("log.format"));
    telemetry::init(AGENT.name, config.text("log.level"), format)
        .map_err(|error| AgentError::io("start logging", "", std::io::Error::other(error)))?;
    let settings = Settings::read(config, &sources.environment)?;
    let jail = confine(&settings)?;
    let runtime = builder()
        .enable_all()
        .thread_keep_alive(IDLE)
        .build()
        .map_err(|source| AgentError::io("start a runtime", "", source))?;
    let outcome = work(settings, jail, &runtime);
    runtime.shutdown_timeout(DRAIN);
    outcome
}
