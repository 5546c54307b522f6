//! The command line. Every setting of the table is a flag, so the two cannot drift apart; `--config` and `--follow` are
//! the only ones beside it.

use std::path::PathBuf;

use clap::{Arg, ArgAction, ArgMatches, Command, value_parser};
use daemoneye_lib::BUILD;
use daemoneye_lib::config::{Flag, PROCMOND, Sources};

/// What the command line asks for.
pub(crate) struct Given {
    /// Where settings come from, this command line included.
    pub(crate) sources: Sources,
    /// Print events as JSON lines.
    pub(crate) follow: bool,
}

/// Reads this process's command line; a wrong one ends the program with the usage exit code.
pub(crate) fn parse() -> Given {
    given(&command().get_matches())
}

fn command() -> Command {
    Command::new("procmond")
        .version(BUILD)
        .about("Sees every process of this host and writes down what happens to it")
        .after_help(
            "Every setting is also a key of the configuration file. Without an agent, events are kept in --data-dir.\n\
             Example: procmond --standalone --follow --data-dir /tmp/de/data",
        )
        .arg(
            Arg::new("config")
                .long("config")
                .value_name("FILE")
                .value_parser(value_parser!(PathBuf))
                .help("read this file instead of the ones in ~/.config and /etc [variable: PROCMOND_CONFIG]"),
        )
        .arg(
            Arg::new("follow")
                .long("follow")
                .action(ArgAction::SetTrue)
                .help("print events to standard output as JSON lines"),
        )
        .args(PROCMOND.flags().map(arg))
}

fn arg(flag: Flag) -> Arg {
    let action = if flag.repeats { ArgAction::Append } else { ArgAction::Set };
    let arg = Arg::new(flag.key).long(flag.long).value_name(flag.value_name).action(action).help(flag.help);
    // `--standalone` alone means yes; a file may say yes and `--standalone=false` no.
    if flag.switch { arg.num_args(0..=1).require_equals(true).default_missing_value("true") } else { arg }
}

fn given(matches: &ArgMatches) -> Given {
    let mut sources = Sources::of_process();
    sources.config_file = matches.get_one::<PathBuf>("config").cloned();
    for setting in PROCMOND.settings {
        if let Some(value) = matches.get_one::<String>(setting.key) {
            sources.flags.push((setting.key.to_owned(), value.clone()));
        }
    }
    Given { sources, follow: matches.get_flag("follow") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_setting_is_a_flag_and_a_switch_needs_no_value() {
        command().debug_assert();
        let matches = command().get_matches_from([
            "procmond",
            "--data-dir",
            "/d",
            "--standalone",
            "--follow",
            "--wal-sync",
            "always",
            "--snapshot-interval-ms",
            "100",
        ]);
        let given = given(&matches);
        assert!(given.follow);
        let flags: Vec<(&str, &str)> = given.sources.flags.iter().map(|(k, v)| (k.as_str(), v.as_str())).collect();
        let wanted =
            [("data_dir", "/d"), ("standalone", "true"), ("snapshot_interval_ms", "100"), ("wal.sync", "always")];
        assert_eq!(flags, wanted);
    }

    #[test]
    fn the_help_names_variables_ranges_and_an_example() {
        let help = command().term_width(0).render_help().to_string();
        for wanted in [
            "PROCMOND_WAL__SYNC",
            "from 100 to 3600000",
            "one of group, always, never",
            "--standalone[=<BOOL>]",
            "Example: procmond ",
        ] {
            assert!(help.contains(wanted), "{wanted} is not in\n{help}");
        }
    }

    #[test]
    fn an_unknown_flag_is_refused() {
        assert!(command().try_get_matches_from(["procmond", "--hash-everything"]).is_err());
    }
}
