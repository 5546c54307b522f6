//! `replay PATH`: rules over past events, the alerts as JSON Lines. No socket, no store, no other program.

use std::io::{BufWriter, Write as _};
use std::path::Path;

use daemoneye_engine::detect::rules;
use daemoneye_engine::replay::{Replay, ReplayError, read};
use daemoneye_engine::store::StoreOptions;
use daemoneye_lib::exit::Exit;
use daemoneye_lib::jail::Dropped;

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
    let troubles = read(path, &mut |events| replay.take(&events).map(drop))?;
    replay.finish()?;
    troubles.iter().for_each(|trouble| eprintln!("degraded: {trouble}"));
    print(&replay)?;
    Ok(match (problems.is_empty(), troubles.is_empty()) {
        (false, _) => Exit::Refused,
        (true, false) => Exit::Degraded,
        (true, true) => Exit::Ok,
    })
}

fn print(replay: &Replay) -> Result<(), AgentError> {
    let alerts = replay.alerts()?;
    let mut out = BufWriter::new(std::io::stdout().lock());
    let written = alerts.iter().try_for_each(|alert| {
        serde_json::to_writer(&mut out, alert)?;
        out.write_all(b"\n")
    });
    match written.and_then(|()| out.flush()) {
        // Somebody has read enough.
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Ok(()),
        Err(error) => Err(AgentError::io("write the alerts", "", error)),
        Ok(()) => {
            eprintln!("{} matches, {} alerts", replay.matches(), alerts.len());
            Ok(())
        }
    }
}
