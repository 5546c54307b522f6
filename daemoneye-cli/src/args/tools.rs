//! Arguments of the tools around rules.

use std::path::PathBuf;

use clap::{Args, ValueHint};

#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  daemoneye-cli selftest\n  daemoneye-cli selftest --wait-s 30 --format json\n\
                  Starts harmless processes whose names and arguments are those of known attacks, each in a temporary directory, and \
                  waits for the alert of the running agent. Nothing is done but that.\n\
                  Exits with 1 when an alert did not come, and with 3 when something could not be tried.")]
pub(crate) struct Selftest {
    /// How long an alert may take to come, in seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 20, value_parser = clap::value_parser!(u16).range(1..=600))]
    pub(crate) wait_s: u16,
}

#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  daemoneye-cli rules new \"Shell below a mail server\"\n  \
                  daemoneye-cli rules new \"Shell below a mail server\" --severity high --output rules/local/mail-shell.yaml\n\
                  The file loads and passes its tests as it is; its comments say what to change. Needs no agent.")]
pub(crate) struct RulesNew {
    /// What the rule finds, in one line: the title of its alerts
    pub(crate) name: String,
    /// How urgent its alerts are
    #[arg(long, default_value = "medium", value_parser = ["info", "low", "medium", "high", "critical"])]
    pub(crate) severity: String,
    /// The new file; otherwise one in this directory that is named after the rule
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub(crate) output: Option<PathBuf>,
}

#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  daemoneye-cli rules backtest my-rule.yaml --since 7d\n  \
                  daemoneye-cli rules backtest my-rule.yaml --since 2026-01-01T00:00:00Z --until 2026-02-01T00:00:00Z --format json\n  \
                  daemoneye-cli rules backtest my-rule.yaml --since 30d --max-alerts-per-day 10 --fail-on-loss\n\
                  Alerts are counted after deduplication and the rate limit. Exits with 1 when a bound that was given is exceeded, with 3 \
                  when stored events are missing, with 5 when the rule is refused.")]
pub(crate) struct RulesBacktest {
    /// The rule
    #[arg(value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub(crate) file: PathBuf,
    /// From when: 7d, 12h, 30m before now, or a time (RFC 3339)
    #[arg(long, value_name = "TIME", default_value = "7d")]
    pub(crate) since: String,
    /// Until when; otherwise until now
    #[arg(long, value_name = "TIME")]
    pub(crate) until: Option<String>,
    /// Fail when the rule would have raised more alerts than this on one day
    #[arg(long, value_name = "ALERTS")]
    pub(crate) max_alerts_per_day: Option<u64>,
    /// Fail when the version in use finds an event that this one does not
    #[arg(long)]
    pub(crate) fail_on_loss: bool,
}

#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  daemoneye-cli rules explain \"Command line of a reverse shell\" procmond:3:18211\n  \
                  daemoneye-cli rules explain my-rule.yaml 5f1c0e6a9d3b47c2a1e8f00db4c6d7e9\n  \
                  daemoneye-cli rules explain my-rule.yaml 0c7e0a8e-5a0f-5c5b-9d5e-0d2b6f1f3a77\n  \
                  echo '{\"event_type\":\"start\",\"name\":\"nc\"}' | daemoneye-cli rules explain my-rule.yaml -\n\
                  With a rule file and an event that is given, no running agent is needed."
)]
pub(crate) struct RulesExplain {
    /// A rule file, or the name, id or file name of a loaded rule
    #[arg(value_hint = ValueHint::FilePath)]
    pub(crate) rule: String,
    /// The event: a file with one JSON object of columns, - for standard input, an entity_id, collector:epoch:seq, or the id of an alert
    #[arg(value_hint = ValueHint::FilePath)]
    pub(crate) event: String,
}

#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  daemoneye-cli rules coverage\n  daemoneye-cli rules coverage --techniques --format json\n  \
                  daemoneye-cli rules coverage --navigator layer.json"
)]
pub(crate) struct RulesCoverage {
    /// By technique instead of by tactic
    #[arg(long)]
    pub(crate) techniques: bool,
    /// Also write a layer for the ATT&CK Navigator
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub(crate) navigator: Option<PathBuf>,
}

#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  daemoneye-cli replay january.parquet --rules rules/linux > alerts.jsonl\n  \
                  daemoneye-cli replay /mnt/evidence/daemoneye/wal --rules rules/linux --rules rules/local\n\
                  Alerts come as JSON Lines in the order of their time. The same events and rules give the same bytes. Needs no running \
                  agent. Exits with 3 when events could not be read, with 5 when a rule file is refused.")]
pub(crate) struct Replay {
    /// A Parquet or JSON Lines file of `data export`, the log directory of collectors, or a data directory with one
    #[arg(value_hint = ValueHint::AnyPath)]
    pub(crate) path: PathBuf,
    /// Directory of rules; may be given more than once
    #[arg(long, required = true, value_name = "DIR", value_hint = ValueHint::DirPath)]
    pub(crate) rules: Vec<PathBuf>,
}
