//! The command line. Every command's help has an example.

mod ledger;
mod proof;
mod tools;

use std::ffi::OsString;
use std::path::PathBuf;

use clap::builder::PossibleValuesParser;
use clap::{Arg, ArgMatches, Args, FromArgMatches, Parser, Subcommand, ValueHint};
use clap_complete::Shell as ShellName;
use daemoneye_lib::config::{CLI, Flag};

pub(crate) use self::ledger::{Checkpoint, ExportTiles, Key, LedgerDir, Verify};
pub(crate) use self::proof::{Evidence, Known, Prove, VerifyEvidence, VerifyProof};
pub(crate) use self::tools::{Replay, RulesBacktest, RulesCoverage, RulesExplain, RulesNew, Selftest};
use crate::settings::Settings;

#[derive(Debug, Parser)]
#[command(
    name = "daemoneye-cli",
    version = daemoneye_lib::BUILD,
    about = "Ask DaemonEye: processes, events, alerts, rules, health, audit",
    after_help = "Example: daemoneye-cli query \"SELECT time, name, command_line FROM process_events LIMIT 10\"\n\
                  Exit codes: 0 ok, 1 failure, 2 usage, 3 degraded result, 4 not found, 5 refused, 6 agent not reachable, \
                  72 cannot be read, 76 the ledger does not verify, 78 configuration"
)]
pub(crate) struct Arguments {
    #[command(flatten)]
    pub(crate) common: Common,
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// A statement may begin with a comment, which looks like an option. No option has a blank behind its dashes or a line end in its
/// name, so such an argument is moved behind `--`, where nothing is one.
pub(crate) fn with_comments(mut arguments: Vec<OsString>) -> Vec<OsString> {
    let is_comment = |argument: &OsString| {
        let text = argument.to_string_lossy();
        let name = text.strip_prefix("--").and_then(|rest| rest.split('=').next());
        name.is_some_and(|name| name.starts_with(char::is_whitespace) || name.contains('\n'))
    };
    // What stands behind an option is its value, as in `--param '-- x'`.
    let wants_value = |argument: &OsString| {
        let text = argument.to_string_lossy();
        text.starts_with("--") && !text.contains('=')
    };
    let found =
        arguments.windows(2).position(|pair| matches!(pair, [before, it] if !wants_value(before) && is_comment(it)));
    if let Some(at) = found.filter(|_| arguments.iter().all(|argument| argument != "--")) {
        let statement = arguments.remove(at + 1);
        arguments.extend([OsString::from("--"), statement]);
    }
    arguments
}

/// Options of every command.
#[derive(Debug, Default, Args)]
#[command(next_help_heading = "Options of every command")]
pub(crate) struct Common {
    #[command(flatten)]
    pub(crate) settings: Flags,
    /// Ask a copied data directory instead of a running agent
    #[arg(long, global = true, value_name = "DIR", value_hint = ValueHint::DirPath)]
    pub(crate) store: Option<PathBuf>,
    /// Configuration file in place of the ones in ~/.config and /etc [variable: DAEMONEYE_CLI_CONFIG]
    #[arg(long, global = true, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub(crate) config: Option<PathBuf>,
}

/// The settings of this program that were given, as `(key, value)`.
#[derive(Debug, Default)]
pub(crate) struct Flags(pub(crate) Vec<(String, String)>);

impl Args for Flags {
    fn augment_args(command: clap::Command) -> clap::Command {
        command.args(CLI.flags().map(arg))
    }

    fn augment_args_for_update(command: clap::Command) -> clap::Command {
        Self::augment_args(command)
    }
}

impl FromArgMatches for Flags {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        let given = |key: &'static str| Some((key.to_owned(), matches.get_one::<String>(key)?.clone()));
        Ok(Self(CLI.settings.iter().filter_map(|setting| given(setting.key)).collect()))
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}

fn arg(flag: Flag) -> Arg {
    let arg = Arg::new(flag.key).long(flag.long).value_name(flag.value_name).help(flag.help).global(true);
    match (flag.words, flag.value_name) {
        ([], "PATH") => arg.value_hint(ValueHint::AnyPath),
        ([], _) => arg,
        // Named here as well, so that shells complete them.
        (words, _) => arg.value_parser(PossibleValuesParser::new(words)).hide_possible_values(true),
    }
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Ask in SQL
    Query(Query),
    /// List the processes that are alive
    Processes(Processes),
    /// Look at alerts
    #[command(subcommand)]
    Alerts(Alerts),
    /// Look at, check and reload detection rules
    #[command(subcommand)]
    Rules(Rules),
    /// Tell how every part of the agent does
    #[command(after_help = "Example: daemoneye-cli health\nExits with 3 when something is not healthy.")]
    Health,
    /// Run rules over a file of events
    Hunt(Hunt),
    /// Follow events as they come
    #[command(subcommand)]
    Events(Events),
    /// Check, sign and take out the audit ledger
    #[command(subcommand)]
    Audit(Audit),
    /// Look at and check settings
    #[command(subcommand)]
    Config(Config),
    /// Look at, check, copy and export what is stored
    #[command(subcommand)]
    Data(Data),
    /// Run rules over past events: the same alerts, with the same ids, every time
    Replay(Replay),
    /// Imitate known attacks without doing any of them, and tell which alerts came
    Selftest(Selftest),
    /// Ask in SQL, statement after statement
    #[command(
        after_help = "Examples:\n  daemoneye-cli shell\n  daemoneye-cli shell --store /mnt/evidence/daemoneye\n  \
                            daemoneye-cli shell --format csv < hunt.sql > hunt.csv\n\
                            Statements end with a semicolon; .help lists what else there is. Tab completes, Ctrl-C cancels a query, \
                            Ctrl-D leaves."
    )]
    Shell,
    /// Print a completion script for a shell
    #[command(
        after_help = "Example: daemoneye-cli completions bash > ~/.local/share/bash-completion/completions/daemoneye-cli"
    )]
    Completions {
        /// Which shell
        shell: ShellName,
    },
}

impl Command {
    /// Whether `--format` is the command's own, with words that no other command has.
    pub(crate) const fn has_own_format(&self) -> bool {
        matches!(self, Self::Data(Data::Export(_)))
    }

    /// Whether Ctrl-C means something to the command, so that it does not end the program.
    pub(crate) const fn takes_interrupts(&self) -> bool {
        matches!(self, Self::Events(_) | Self::Shell)
    }

    /// Whether rows grow into a file, of which nothing is to stay when the program is ended before its end.
    pub(crate) const fn writes_rows(&self) -> bool {
        matches!(self, Self::Data(Data::Export(_)) | Self::Query(Query { output: Some(_), .. }))
    }

    /// Whether programs may be started for it: an agent for a copied store and for rules where none runs, and imitations.
    pub(crate) const fn may_start_programs(&self, settings: &Settings) -> bool {
        let starts = matches!(
            self,
            Self::Hunt(_)
                | Self::Replay(_)
                | Self::Selftest(_)
                | Self::Rules(Rules::Explain(_) | Rules::Import(_) | Rules::Validate { .. } | Rules::Test { .. })
        );
        settings.store.is_some() || starts
    }
}

#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  daemoneye-cli query \"SELECT pid, name FROM processes WHERE uid = 0\"\n  \
                  daemoneye-cli query --param sshd \"SELECT time, command_line FROM process_events WHERE parent_name = $1\"\n  \
                  daemoneye-cli query --store /mnt/evidence/daemoneye --format csv - < hunt.sql > hunt.csv\n  \
                  daemoneye-cli query --explain \"SELECT name FROM process_events WHERE pid = 4711\"\n\
                  Tables: daemoneye-cli query \"SELECT * FROM tables\"; their columns: SELECT * FROM columns")]
pub(crate) struct Query {
    /// The SELECT; `-` or nothing reads it from standard input
    pub(crate) sql: Option<String>,
    /// Value of $1, $2, … in their order; numbers, true, false and null as such, anything else (or 'quoted') as text
    #[arg(long = "param", value_name = "VALUE", allow_hyphen_values = true)]
    pub(crate) params: Vec<String>,
    /// Rows that are fetched and printed at a time
    #[arg(long, value_name = "ROWS", value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub(crate) page: Option<u32>,
    /// Most rows that are returned; the agent's query.row_cap holds above it
    #[arg(long, value_name = "ROWS", value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) row_cap: Option<u64>,
    /// Write to a new file instead of standard output
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub(crate) output: Option<PathBuf>,
    /// Run it, show no rows, and tell what was read and what could be skipped
    #[arg(long, conflicts_with = "output")]
    pub(crate) explain: bool,
}

#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  daemoneye-cli processes --name sshd\n  daemoneye-cli processes --user root --format jsonl"
)]
pub(crate) struct Processes {
    /// Only processes of this name
    #[arg(long)]
    pub(crate) name: Option<String>,
    /// Only processes of this user
    #[arg(long)]
    pub(crate) user: Option<String>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Alerts {
    /// List alerts, latest first
    #[command(
        after_help = "Examples:\n  daemoneye-cli alerts list --severity high\n  daemoneye-cli alerts list --limit 5 --format jsonl\n  daemoneye-cli alerts list --suppressed"
    )]
    List {
        /// Only alerts of this severity
        #[arg(long, value_parser = ["info", "low", "medium", "high", "critical"])]
        severity: Option<String>,
        /// At most this many
        #[arg(long, value_name = "ROWS", default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
        limit: u32,
        /// What exceptions hid, instead of alerts
        #[arg(long)]
        suppressed: bool,
    },
    /// Show one alert with everything that is known about it
    #[command(
        after_help = "Examples:\n  daemoneye-cli alerts show 019b1f6e-8c1a-7c3e-9d7e-0a1b2c3d4e5f\n  daemoneye-cli alerts show 019b1f6e"
    )]
    Show {
        /// Its id as `alerts list` prints it, or the first 4 or more characters of it
        id: String,
    },
    /// Write a file with an alert, what it is about, and the proof of it
    Evidence(Box<Evidence>),
    /// Verify such a file, on any machine
    VerifyEvidence(VerifyEvidence),
}

#[derive(Debug, Subcommand)]
pub(crate) enum Rules {
    /// List the loaded rules
    #[command(after_help = "Example: daemoneye-cli rules list")]
    List,
    /// Check rule files without loading them
    #[command(after_help = "Example: daemoneye-cli rules validate my-rule.yaml\nNeeds no running agent.")]
    Validate {
        /// Rule files, or directories of them
        #[arg(required = true, value_name = "FILE", value_hint = ValueHint::AnyPath)]
        paths: Vec<PathBuf>,
    },
    /// Run the tests that rule files carry
    #[command(after_help = "Example: daemoneye-cli rules test rules/\nNeeds no running agent.")]
    Test {
        /// Rule files, or directories of them
        #[arg(required = true, value_name = "FILE", value_hint = ValueHint::AnyPath)]
        paths: Vec<PathBuf>,
    },
    /// Write Sigma rules as rules of ours, and tell what became of each
    Import(Import),
    /// Load the rule files again now
    #[command(after_help = "Example: daemoneye-cli rules reload")]
    Reload,
    /// Write a commented rule file to begin with
    New(RulesNew),
    /// Run a rule over stored events: hits, alerts a day, top values, cost, difference to the version in use
    Backtest(RulesBacktest),
    /// Tell why a rule matches an event, or why not, predicate by predicate
    Explain(RulesExplain),
    /// Show which tactics and techniques of ATT&CK the active rules name
    Coverage(RulesCoverage),
    /// Write the loaded rules, as they are in force, into a new directory
    #[command(after_help = "Example: daemoneye-cli rules export /srv/rules-2026-01-31\n\
                            Every field is written out, also those that the files leave to their defaults. Needs a running agent.")]
    Export {
        /// A directory that is empty or not there yet
        #[arg(value_hint = ValueHint::DirPath)]
        dir: PathBuf,
    },
}

#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  daemoneye-cli rules import --sigma sigma/rules/linux/process_creation\n  \
                  daemoneye-cli rules import --sigma sigma/rules --output /etc/daemoneye/rules/sigma --format json > report.json\n\
                  compiled: says the same; partial: a part needs a field that no column holds; inert: could never match, so it \
                  is not written; refused: cannot be said, with the reason.\n\
                  Exits with 3 when a rule is refused. Needs no running agent.")]
pub(crate) struct Import {
    /// A directory of Sigma rules, or one file
    #[arg(long, value_name = "DIR", value_hint = ValueHint::AnyPath)]
    pub(crate) sigma: PathBuf,
    /// Write the rule files below this directory; otherwise only the report is made
    #[arg(long, value_name = "DIR", value_hint = ValueHint::DirPath)]
    pub(crate) output: Option<PathBuf>,
    /// Values of placeholders (`expand`): a file or directory of lists, or one map from names to values
    #[arg(long, value_name = "FILE", value_hint = ValueHint::AnyPath)]
    pub(crate) lists: Option<PathBuf>,
}

#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  daemoneye-cli hunt --rules rules/linux --events events.jsonl\n  \
                  daemoneye-cli hunt --rules sigma/rules/windows --events sysmon.jsonl > matches.jsonl\n\
                  An event is one JSON object a line, with the columns of process_events, or with the field names of Sysmon's \
                  event 1 or Security's event 4688, flat or inside Event.EventData or winlog.event_data. A match is one line: \
                  {\"rule_id\":\"…\",\"event\":<line, from 0>}, in order of event, then of rule; a rule over several events names \
                  the one that completed them.\n\
                  Exits with 0 when the answer is whole, 3 when a line or rule could not be used (told on standard error), 4 when a path \
                  does not exist, 5 when no rule can run. Needs no running agent.")]
pub(crate) struct Hunt {
    /// A directory of rules, ours, Sigma's or both, or one file; may be repeated
    #[arg(long, required = true, value_name = "DIR", value_hint = ValueHint::AnyPath)]
    pub(crate) rules: Vec<PathBuf>,
    /// The events, one JSON object a line; `-` reads standard input
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub(crate) events: PathBuf,
    /// Values of placeholders in Sigma rules: a file or directory of lists, or one map from names to values
    #[arg(long, value_name = "FILE", value_hint = ValueHint::AnyPath)]
    pub(crate) lists: Option<PathBuf>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Events {
    /// Print events as they come, until Ctrl-C
    #[command(after_help = "Example: daemoneye-cli events follow --where \"event_type = 'start' AND uid = 0\"")]
    Follow {
        /// Only events for which this SQL condition over process_events holds
        #[arg(long = "where", value_name = "CONDITION", default_value = "")]
        condition: String,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum Audit {
    /// Verify every entry of the ledger, live or copied; exits with 76 at the first bad one
    Verify(Verify),
    /// Print the key that verifies the ledger's checkpoints
    Key(Key),
    /// Print the newest checkpoint: who keeps it elsewhere can show later that history was changed
    Checkpoint(Checkpoint),
    /// Write the ledger as a static log that the tools of transparency logs read
    Export(ExportTiles),
    /// Take a ledger that was moved away or put back on purpose as it is, and end what `health` says of it
    #[command(after_help = "Example: daemoneye-cli audit accept-ledger\n\
                            The ledger says for ever who did, and how far it had been and was then. The alert stays.")]
    AcceptLedger,
    /// Let the key of the ledger hand over to a new one
    #[command(after_help = "Example: daemoneye-cli audit rotate-key\n\
                            The old key signs the new one over; whoever has kept the old one still verifies everything.")]
    RotateKey,
    /// Write a file that proves an entry, an alert, events or what a time held to whoever has the ledger's key
    Prove(Box<Prove>),
    /// Verify such a file, on any machine
    VerifyProof(VerifyProof),
}

#[derive(Debug, Subcommand)]
pub(crate) enum Data {
    /// Show how much is stored, by table, level and column
    #[command(after_help = "Example: daemoneye-cli data stats")]
    Stats,
    /// Show how long events are kept and which segments go next
    #[command(after_help = "Example: daemoneye-cli data retention")]
    Retention,
    /// Merge segments and give room back now, in place of little by little
    #[command(after_help = "Example: daemoneye-cli data vacuum\nNo event goes; what is merged answers as before.")]
    Vacuum,
    /// Copy the store of a running agent, as it is at one moment, into a new directory
    #[command(after_help = "Example: daemoneye-cli data backup /mnt/backup/2026-01-31\n\
                            Ask the copy with --store DIR. The audit ledger is no part of it.")]
    Backup {
        /// A directory that is empty or not there yet
        #[arg(value_hint = ValueHint::DirPath)]
        dir: PathBuf,
    },
    /// Write rows to a new Parquet, CSV or JSON Lines file, however many there are
    Export(Box<Export>),
    /// Check every segment, every value and every reference; exits with 1 when something is wrong
    #[command(
        after_help = "Examples:\n  daemoneye-cli data fsck\n  daemoneye-cli data fsck --store /mnt/backup/2026-01-31"
    )]
    Fsck,
}

#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  daemoneye-cli data export --output january.parquet --from 2026-01-01T00:00:00Z --to 2026-02-01T00:00:00Z\n  \
                  daemoneye-cli data export --output root.csv --where \"uid = 0\"\n  \
                  daemoneye-cli data export --output top.jsonl \"SELECT name, count(*) AS n FROM process_events GROUP BY name\"\n\
                  --from and --to go by the column time, which process_events, processes, process_lifetimes, alerts, scans, \
                  system_info and audit_entries have; of coverage they take what reaches into that time."
)]
pub(crate) struct Export {
    /// A SELECT in place of a table and conditions
    #[arg(conflicts_with_all = ["table", "condition", "from", "to"])]
    pub(crate) sql: Option<String>,
    /// The new file
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub(crate) output: PathBuf,
    /// What it holds: parquet, csv or jsonl; otherwise the end of its name tells
    #[arg(long, value_name = "FORMAT", value_parser = ["parquet", "csv", "jsonl"])]
    pub(crate) format: Option<String>,
    /// The table
    #[arg(long, default_value = "process_events")]
    pub(crate) table: String,
    /// Only rows for which this SQL condition holds
    #[arg(long = "where", value_name = "CONDITION")]
    pub(crate) condition: Option<String>,
    /// Only from this time on (RFC 3339), where the table has a time
    #[arg(long, value_name = "TIME")]
    pub(crate) from: Option<String>,
    /// Only before this time (RFC 3339), where the table has a time
    #[arg(long, value_name = "TIME")]
    pub(crate) to: Option<String>,
    /// Value of $1, $2, … in their order, as of `query`
    #[arg(long = "param", value_name = "VALUE", allow_hyphen_values = true)]
    pub(crate) params: Vec<String>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Config {
    /// Show the settings in force: this program's, the agent's and those of the procmond that it starts
    #[command(after_help = "Example: daemoneye-cli config show --origin")]
    Show {
        /// Also show where each value comes from
        #[arg(long)]
        origin: bool,
    },
    /// Check a configuration file
    #[command(after_help = "Example: daemoneye-cli config validate --component procmond /etc/procmond/config.yaml")]
    Validate {
        /// Whose file it is; otherwise the name of its directory tells
        #[arg(long, value_parser = ["procmond", "daemoneye-agent", "daemoneye-cli"])]
        component: Option<String>,
        /// The file
        #[arg(value_hint = ValueHint::FilePath)]
        file: PathBuf,
    },
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory as _;

    #[test]
    fn every_command_has_an_example_in_its_help() {
        fn walk(command: &clap::Command) {
            if command.get_subcommands().next().is_none() {
                let help = command.get_after_help().map(ToString::to_string).unwrap_or_default();
                assert!(help.contains("daemoneye-cli "), "{} has no example", command.get_name());
            }
            command.get_subcommands().for_each(walk);
        }
        let command = Arguments::command();
        command.clone().debug_assert();
        walk(&command);
    }

    #[test]
    fn a_statement_may_begin_with_a_comment() {
        let query = |line: &[&str]| {
            let arguments = with_comments(line.iter().map(OsString::from).collect());
            Arguments::try_parse_from(arguments).map(|parsed| match parsed.command {
                Command::Query(query) => (query.sql, query.params),
                other => panic!("{other:?}"),
            })
        };
        let sql = "-- who\nSELECT 1";
        let only = (Some(sql.to_owned()), Vec::new());
        assert_eq!(query(&["cli", "query", sql]).unwrap(), only);
        assert_eq!(
            query(&["cli", "--format=csv", "query", "--who\nSELECT 1"]).unwrap().0.as_deref(),
            Some("--who\nSELECT 1")
        );
        assert_eq!(query(&["cli", "query", sql, "--format", "csv"]).unwrap(), only);
        assert_eq!(query(&["cli", "--format", "csv", "query", "--", sql]).unwrap(), only);
        let (_, params) = query(&["cli", "query", "--param", "-- x", "SELECT $1"]).unwrap();
        assert_eq!(params, ["-- x"]);
        assert!(query(&["cli", "query", "--frmat", "csv", "SELECT 1"]).is_err(), "a mistyped option stays one");
    }
}
