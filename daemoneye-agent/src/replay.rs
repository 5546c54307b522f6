//! `replay PATH`: rules over past events, the alerts as JSON Lines. No socket, no store, no other program.

use std::io::{self, BufWriter, StdoutLock, Write as _};
use std::path::Path;

use daemoneye_engine::detect::rules;
use daemoneye_engine::replay::{Replay, ReplayError, read};
use daemoneye_engine::store::StoreOptions;
use daemoneye_lib::exit::Exit;
use daemoneye_lib::jail::Dropped;
use daemoneye_lib::model::Alert;

use crate::error::AgentError;
use crate::jail;
use crate::settings::Settings;

/// To read rules and events, and nothing else, from here on.
pub(crate) fn confine(settings: &Settings, path: &Path) -> Result<Dropped, AgentError> {
    settings.find_rules()?;
    std::fs::metadata(path).map_err(|source| ReplayError::Io { path: path.to_owned(), source })?;
    Ok(jail::enter(&jail::replay(settings, path), &settings.sandbox_required)?)
}

pub(crate) fn run(settings: &Settings, dropped: Dropped, path: &Path) -> Result<Exit, AgentError> {
    jail::close(dropped)?;
    let loaded = rules::load_dirs(&settings.rules);
    let narrow = |number: u64| u32::try_from(number).unwrap_or(u32::MAX);
    let options = StoreOptions {
        dedup_window_s: narrow(settings.alerts.dedup_window.as_secs()),
        rate_per_rule: narrow(settings.alerts.rate_per_rule_per_minute),
        rate_total: narrow(settings.alerts.rate_per_minute),
        audit_entries: 0,
        ..StoreOptions::new(&settings.data_dir)
    };
    let (mut replay, refused) = Replay::new(loaded.rules, options)?;
    let problems: Vec<_> = loaded.problems.into_iter().chain(refused).collect();
    problems.iter().for_each(|problem| eprintln!("not taken: {problem}"));
    let mut printed = Printed::new();
    let troubles = read(path, &mut |events| {
        replay.take(&events)?;
        printed.print(&replay.settled()?);
        Ok(())
    })?;
    replay.finish()?;
    printed.print(&replay.alerts()?);
    let troubles = [troubles, replay.shortfalls()].concat();
    troubles.iter().for_each(|trouble| eprintln!("degraded: {trouble}"));
    printed.end(&replay)?;
    Ok(match (problems.is_empty(), troubles.is_empty()) {
        (false, _) => Exit::Refused,
        (true, false) => Exit::Degraded,
        (true, true) => Exit::Ok,
    })
}

fn hidden(matches: u64) -> String {
    if matches == 0 { String::new() } else { format!("; exceptions hid {matches} more matches") }
}

/// Alerts on standard output, as they are final.
struct Printed {
    out: BufWriter<StdoutLock<'static>>,
    alerts: u64,
    /// Nothing is printed after it has failed.
    written: io::Result<()>,
}

impl Printed {
    fn new() -> Self {
        Self { out: BufWriter::new(io::stdout().lock()), alerts: 0, written: Ok(()) }
    }

    fn print(&mut self, alerts: &[Alert]) {
        self.alerts = self.alerts.saturating_add(alerts.len() as u64);
        if self.written.is_ok() {
            self.written = alerts.iter().try_for_each(|alert| {
                serde_json::to_writer(&mut self.out, alert)?;
                self.out.write_all(b"\n")
            });
        }
    }

    fn end(mut self, replay: &Replay) -> Result<(), AgentError> {
        match self.written.and_then(|()| self.out.flush()) {
            // Somebody has read enough.
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
            Err(error) => Err(AgentError::io("write the alerts", "", error)),
            Ok(()) => {
                eprintln!("{} matches, {} alerts{}", replay.matches(), self.alerts, hidden(replay.hidden()));
                Ok(())
            }
        }
    }
}
