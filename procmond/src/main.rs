//! `procmond`: sees every process of this host and writes down what happens to it.
//!
//! In order: settings, log, source, mode, collection until a signal or the agent ends it, bounded drain. With
//! `DAEMONEYE_BROKER_SOCKET` it works for an agent, without it alone; it never opens a network connection.

mod args;
mod configured;
mod heap;
mod mode;
mod signals;

use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use collector_core::{EventSource, RuntimeBuilder, Stopped};
use daemoneye_lib::BUILD;
use daemoneye_lib::config::{self, Config, PROCMOND};
use daemoneye_lib::exit::Exit;
use daemoneye_lib::jail::Required;
use daemoneye_lib::telemetry::{self, Format};
use procmond::follow::Follow;
use procmond::jail;
use procmond::monitor::{Pace, ProcessMonitor};
use procmond::sources;
use procmond::tasks::ProcessTasks;
use tokio_util::sync::CancellationToken;

use crate::mode::Mode;

/// The collector's id: prefix of its log files and `collector` column of its events.
const ID: &str = "procmond";

/// From the signal to the end: one scan, the log's last sync and the ledger's last entry take far less. Past it the log is
/// still whole, as after a kill.
const DRAIN: Duration = Duration::from_secs(20);

/// Standard output may be a pipe that nobody reads.
const PRINT_REST: Duration = Duration::from_secs(2);

/// Scans, log reads and signals; more threads would only cost memory.
const BLOCKING_THREADS: usize = 4;

struct Failure(Exit, anyhow::Error);

fn main() -> ExitCode {
    let given = args::parse();
    let config = match config::load(&PROCMOND, &given.sources) {
        Ok(config) => config,
        Err(errors) => {
            eprintln!("{errors}");
            return Exit::Config.into();
        }
    };
    heap::tighten(|| sources::hand_over(config.text("source"), &config.path("proc_root")));
    let format = Format::of_setting(config.text("log.format"));
    if let Err(error) = telemetry::init("procmond", config.text("log.level"), format) {
        eprintln!("{error}");
        return Exit::Failure.into();
    }
    match start(&config, given.follow) {
        Ok(stopped) => {
            let last = stopped.last.map(|last| last.to_string());
            tracing::info!(reason = stopped.reason, last, "stopped");
            Exit::Ok.into()
        }
        Err(Failure(exit, error)) => {
            tracing::error!(exit = exit.code(), "{}", told(&error));
            exit.into()
        }
    }
}

/// The message and its causes; many messages end with their cause already.
fn told(error: &anyhow::Error) -> String {
    error.chain().map(ToString::to_string).fold(String::new(), |text, cause| match text.as_str() {
        "" => cause,
        told if told.contains(&cause) => text,
        told => format!("{told}: {cause}"),
    })
}

fn start(config: &Config, follow: bool) -> Result<Stopped, Failure> {
    let failed = |exit| move |error: std::io::Error| Failure(exit, error.into());
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .max_blocking_threads(BLOCKING_THREADS)
        .build()
        .map_err(failed(Exit::Failure))?;
    let stopped = runtime.block_on(async {
        let shutdown = CancellationToken::new();
        let signals = signals::Signals::listen().map_err(failed(Exit::Failure))?;
        let asked = shutdown.clone();
        tokio::spawn(async move {
            let name = signals.first().await;
            tracing::info!(signal = name, "stopping");
            asked.cancel();
        });
        run(config, follow, shutdown).await
    });
    // A scan that hangs on a dead mount must not hold the exit.
    runtime.shutdown_timeout(PRINT_REST);
    stopped
}

async fn run(config: &Config, follow: bool, shutdown: CancellationToken) -> Result<Stopped, Failure> {
    let data_dir = config.path("data_dir");
    let mode =
        Mode::of_environment(config.boolean("standalone")).map_err(|error| Failure(Exit::Config, error.into()))?;
    let chosen = sources::choose(config.text("source"), &config.path("proc_root"))
        .map_err(|error| Failure(Exit::StartupFailed, error.into()))?;
    let pace =
        config.optional_integer("snapshot_interval_ms").map(Duration::from_millis).map_or(Pace::DEFAULT, Pace::every);
    let (reason, name) = (chosen.reason.clone(), mode.name());
    for better in &chosen.passed_over {
        tracing::warn!("{better}");
    }
    let redactor = configured::redactor(config).map_err(|error| Failure(Exit::Unreadable, error.into()))?;
    let (report, lacking) = jailed(config)?;
    let monitor = ProcessMonitor::new(chosen, pace, ID, &data_dir.join("wal"))
        .with(redactor, configured::hashing(config))
        .map_err(|error| Failure(Exit::StartupFailed, error.into()))?
        .for_rules(config.text("hashing.scope") == "rules");
    let monitor = Arc::new(monitor);
    let (source, shown) = (monitor.name().to_owned(), data_dir.display().to_string());
    let opened = move || tracing::info!(source, reason, mode = name, data_dir = shown, "capturing");
    let tasks = ProcessTasks::new(Arc::clone(&monitor));
    let mut builder = configured::runtime(ID, config)
        .map_err(|error| Failure(error.exit(), error.into()))?
        .interval(monitor.interval())
        .source(monitor)
        .tasks(Arc::new(tasks))
        .version(BUILD)
        .sandbox_note(report, lacking)
        .on_opened(Arc::new(opened));
    if let Mode::Actor(bus) = mode {
        builder = builder.bus(bus);
    }
    let mut printing = None;
    if follow {
        let (lines, printed) = Follow::start(ID, std::io::stdout(), shutdown.clone())
            .map_err(|error| Failure(Exit::Failure, error.into()))?;
        let taker = Arc::clone(&lines);
        builder = builder.follow(Arc::new(move |record| taker.take(record)));
        printing = Some((lines, printed));
    }
    let stopped = drained(builder, shutdown).await;
    if let Some((lines, printed)) = printing {
        let shed = lines.finish();
        if shed > 0 {
            tracing::warn!(shed, "lines were not printed because nobody read them; the log has their events");
        }
        if tokio::time::timeout(PRINT_REST, printed.cancelled()).await.is_err() {
            tracing::warn!("standard output takes no more lines");
        }
    }
    stopped
}

/// The sources are open and no thread has been started. What holds from here on goes to the ledger and to `health`.
fn jailed(config: &Config) -> Result<(serde_json::Value, Vec<String>), Failure> {
    let required = Required::of_setting(config.text("sandbox.required"));
    let jailed =
        jail::enter(&config.path("data_dir"), required).map_err(|error| Failure(error.exit(), error.into()))?;
    let notes = jailed.report().notes();
    for note in &notes {
        tracing::info!("{note}");
    }
    let report = serde_json::to_value(jailed.report()).map_err(|error| Failure(Exit::Failure, error.into()))?;
    Ok((report, notes))
}

async fn drained(builder: RuntimeBuilder, shutdown: CancellationToken) -> Result<Stopped, Failure> {
    let overdue = async {
        shutdown.cancelled().await;
        tokio::time::sleep(DRAIN).await;
    };
    tokio::select! {
        stopped = builder.run(shutdown.clone()) => stopped.map_err(|error| Failure(error.exit(), error.into())),
        () = overdue => Err(Failure(Exit::Failure, anyhow::anyhow!("the drain took more than {DRAIN:?}; the next start recovers the rest"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cause_is_told_once() {
        let denied = || std::io::Error::from(std::io::ErrorKind::PermissionDenied);
        let repeated = anyhow::Error::new(denied()).context(format!("cannot open /x: {}; look at it", denied()));
        assert_eq!(told(&repeated), "cannot open /x: permission denied; look at it");
        assert_eq!(told(&anyhow::Error::new(denied()).context("cannot open /x")), "cannot open /x: permission denied");
    }
}
