//! The command line. Every setting of the table is a flag of `run`, so the two cannot drift apart.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::builder::ValueParser;
use clap::{Arg, ArgAction, ArgMatches, Command};
use daemoneye_lib::config::{AGENT, Flag, Sources};

use crate::tools::hunt;

/// What was asked for.
pub(crate) enum Asked {
    /// Parent of the process tree.
    Run { sources: Sources, worker_args: Vec<OsString> },
    /// Rules over a file of events.
    Hunt(hunt::Asked),
    /// Sigma rules as ours.
    Import { folder: PathBuf, lists: Option<PathBuf> },
    /// Answer operators from a copied data directory.
    Offline {
        dir: PathBuf,
        /// Ends with standard input and removes the runtime directory.
        transient: bool,
        sources: Sources,
    },
    /// Rules over past events, alone.
    Replay { path: PathBuf, sources: Sources },
    /// The worker of a parent.
    Worker { sources: Sources },
}

/// Reads the command line of this process; ends it with a message for `--help`, `--version` and mistakes.
pub(crate) fn parse() -> Asked {
    let arguments: Vec<OsString> = std::env::args_os().collect();
    let matches = command().get_matches_from(&arguments);
    match matches.subcommand() {
        Some(("hunt", given)) => Asked::Hunt(hunt::Asked {
            rules: given.get_many::<PathBuf>("rules").into_iter().flatten().cloned().collect(),
            events: given.get_one::<PathBuf>("events").cloned().unwrap_or_default(),
            lists: given.get_one::<PathBuf>("lists").cloned(),
        }),
        Some(("import", given)) => Asked::Import {
            folder: given.get_one::<PathBuf>("sigma").cloned().unwrap_or_default(),
            lists: given.get_one::<PathBuf>("lists").cloned(),
        },
        Some(("worker", given)) => Asked::Worker { sources: sources(given) },
        Some(("serve", given)) => {
            let dir = given.get_one::<PathBuf>("offline").cloned().unwrap_or_default();
            let mut sources = sources(given);
            // Nothing is kept, so no default is needed, which a host without a home directory would not have.
            sources.flags.push(("data_dir".to_owned(), dir.to_string_lossy().into_owned()));
            Asked::Offline { dir, transient: given.get_flag("transient"), sources }
        }
        Some(("replay", given)) => {
            let path = given.get_one::<PathBuf>("path").cloned().unwrap_or_default();
            let mut sources = sources(given);
            // Nothing is kept and nothing listens, so no default is needed, which a host without a home directory would not have.
            for key in ["data_dir", "runtime_dir"] {
                sources.flags.push((key.to_owned(), "/nonexistent".to_owned()));
            }
            Asked::Replay { path, sources }
        }
        Some((_, given)) => {
            Asked::Run { sources: sources(given), worker_args: arguments.into_iter().skip(2).collect() }
        }
        None => command().error(clap::error::ErrorKind::MissingSubcommand, "say what to do: run, or serve").exit(),
    }
}

fn command() -> Command {
    let offline = Arg::new("offline")
        .long("offline")
        .value_name("DIR")
        .required(true)
        .value_parser(ValueParser::path_buf())
        .help("Copied data directory; its files stay untouched");
    let transient = Arg::new("transient")
        .long("transient")
        .action(ArgAction::SetTrue)
        .requires("runtime_dir")
        .help("Stop when standard input ends, and remove the runtime directory with everything in it");
    Command::new("daemoneye-agent")
        .version(daemoneye_lib::BUILD)
        .about("Collects, keeps and judges process events on this host")
        .subcommand_required(true)
        // A wrapper script's flag can be overridden by appending another one.
        .args_override_self(true)
        .subcommand(with_settings(
            |_| true,
            Command::new("run")
                .about("Starts procmond and the worker, and prints alerts until it is stopped with Ctrl-C")
                .after_help("Example: daemoneye-agent run --data-dir /tmp/de/data --runtime-dir /tmp/de/run --rules rules/linux"),
        ))
        .subcommand(with_settings(
            serves,
            Command::new("serve")
                .about("Answers daemoneye-cli from a copied data directory")
                .arg(offline)
                .arg(transient)
                .after_help("Example: daemoneye-agent serve --offline /mnt/evidence/daemoneye --runtime-dir /tmp/de-run"),
        ))
        .subcommand(with_settings(
            replays,
            Command::new("replay")
                .about("Runs rules over past events and prints the alerts as JSON Lines, the same every time")
                .arg(
                    Arg::new("path")
                        .value_name("PATH")
                        .required(true)
                        .value_parser(ValueParser::path_buf())
                        .help("A file of `daemoneye-cli data export`, or a directory of collectors' logs"),
                )
                .after_help("Example: daemoneye-agent replay january.parquet --rules rules/linux"),
        ))
        .subcommand(with_settings(|_| true, Command::new("worker").hide(true)))
        .subcommand(hunt_command())
        .subcommand(import_command())
}

/// What the console starts for `hunt`; its help is the console's.
fn hunt_command() -> Command {
    let rules = path("rules", true).action(ArgAction::Append);
    Command::new("hunt").hide(true).args([rules, path("events", true), path("lists", false)])
}

/// What the console starts for `rules import`.
fn import_command() -> Command {
    Command::new("import").hide(true).args([path("sigma", true), path("lists", false)])
}

fn path(name: &'static str, required: bool) -> Arg {
    Arg::new(name).long(name).value_name("PATH").required(required).value_parser(ValueParser::path_buf())
}

/// Settings that matter where nothing is collected, judged or stored.
fn serves(key: &str) -> bool {
    ["procmond.audit_dir", "runtime_dir"].contains(&key)
        || ["query.", "log."].iter().any(|group| key.starts_with(group))
}

/// Settings that decide which alerts come.
fn replays(key: &str) -> bool {
    key == "rules" || ["alerts.", "log."].iter().any(|group| key.starts_with(group))
}

fn with_settings(takes: impl Fn(&str) -> bool, command: Command) -> Command {
    let config = Arg::new("config")
        .long("config")
        .value_name("FILE")
        .value_parser(ValueParser::path_buf())
        .help("Configuration file in place of the ones in ~/.config and /etc [variable: DAEMONEYE_AGENT_CONFIG]");
    command.arg(config).args(AGENT.flags().filter(|flag| takes(flag.key)).map(arg))
}

fn arg(flag: Flag) -> Arg {
    let action = if flag.repeats { ArgAction::Append } else { ArgAction::Set };
    let arg = Arg::new(flag.key).long(flag.long).value_name(flag.value_name).action(action).help(flag.help);
    // `--sinks-stdout-enabled` alone means yes, and `--sinks-stdout-enabled=false` no.
    if flag.switch { arg.num_args(0..=1).require_equals(true).default_missing_value("true") } else { arg }
}

fn sources(given: &ArgMatches) -> Sources {
    let mut sources = Sources::of_process();
    sources.config_file = given.get_one::<PathBuf>("config").cloned();
    for setting in AGENT.settings {
        for value in given.try_get_many::<String>(setting.key).ok().flatten().into_iter().flatten() {
            sources.flags.push((setting.key.to_owned(), value.clone()));
        }
    }
    sources
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn serving_takes_only_what_has_an_effect_there() {
        let line = ["a", "serve", "--offline", "/x", "--transient", "--runtime-dir", "/r", "--log-level", "error"];
        let matches = command().try_get_matches_from(line).unwrap();
        assert_eq!(sources(matches.subcommand().unwrap().1).flags.len(), 2);
        assert!(command().try_get_matches_from(["a", "serve", "--offline", "/x", "--rules", "/y"]).is_err());
        assert!(command().try_get_matches_from(["a", "serve", "--offline", "/x", "--transient"]).is_err());
    }

    #[test]
    fn every_setting_is_a_flag_and_lists_may_be_repeated() {
        command().debug_assert();
        let line = ["a", "run", "--store-seal-rows", "7", "--rules", "/x", "--rules", "/y"];
        let matches = command().get_matches_from(line);
        let sources = sources(matches.subcommand().unwrap().1);
        let flags: Vec<(&str, &str)> =
            sources.flags.iter().map(|(key, value)| (key.as_str(), value.as_str())).collect();
        assert_eq!(flags, [("rules", "/x"), ("rules", "/y"), ("store.seal_rows", "7")]);
    }
}
