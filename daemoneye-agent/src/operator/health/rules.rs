//! The rules' part of the report.

use daemoneye_engine::detect::{RuleStats, WindowStats};
use daemoneye_engine::store::Folded;
use jiff::Timestamp;
use serde_json::{Value, json};

use super::Findings;
use crate::worker::{Blinded, Summary, Worker};

/// Rules held by the limit of alerts that have a finding of their own.
const HELD: usize = 10;

/// The rules, and what is wrong with them.
pub(super) fn of(worker: &Worker, findings: &mut Findings) -> Value {
    let problems: Vec<String> = worker.rules.problems().iter().map(ToString::to_string).collect();
    let (running, summary) = (worker.rules.set().len(), Summary::of(worker));
    for problem in &problems {
        findings.add(format!("rule not taken: {problem}"), "correct the file; it is read again by itself");
    }
    if running == 0 {
        findings.add("no rule runs", "give --rules DIR");
    }
    for (reason, blinded) in &summary.unhealthy {
        // A collector that is away is a finding of its own.
        if !worker.roster.all().values().any(|collector| collector.connected) {
            continue;
        }
        findings.add(
            format!("{} rules cannot see what they read: {reason} ({})", blinded.count, named(blinded)),
            "see the table rule_stats; change the collector's settings, or disable them with an override",
        );
    }
    for (name, mark) in &summary.over_budget {
        findings.add(
            format!("the rule {name} is {mark}: it takes more CPU time for a batch than it may"),
            "it runs, and delays all others: correct it, or disable it with an override",
        );
    }
    for (name, held) in summary.held.iter().take(HELD) {
        let (problem, remedy) = told_of(name, held);
        findings.add(problem, remedy);
    }
    if let Some(more) = summary.held.len().checked_sub(HELD).filter(|more| *more > 0) {
        findings.add(
            format!("the limit of alerts holds {more} more rules"),
            "SELECT name, matches, folded FROM rule_stats WHERE folded > 0 ORDER BY folded DESC",
        );
    }
    for (rule, owner, reason) in &summary.expired {
        findings.add(
            format!("an exception of the rule {rule} has expired ({owner}: {reason})"),
            "it hides nothing any more: remove it, or let its owner give it a new date",
        );
    }
    json!({
        "running": running,
        "drafts": summary.drafts,
        "unhealthy": summary.unhealthy.values().fold(0, |sum: u64, blinded| sum.saturating_add(blinded.count)),
        "over_budget": summary.over_budget.len(),
        "held_now": summary.held.len(),
        "folded": summary.folded,
        "held": summary.held.iter().take(HELD).map(|(name, held)| row_of(name, held)).collect::<Vec<_>>(),
        "exceptions": summary.exceptions,
        "exceptions_expired": summary.expired.len(),
        "evaluations": summary.evaluations,
        "matches": summary.matches,
        "degraded": summary.degraded,
        "time_us": summary.time_us,
        "dirs": worker.rules.dirs(),
        "problems": problems,
        "windows": windows(&worker.rules.set().stats(), findings),
    })
}

/// What the limits of alerts held back of a rule, and what can be done.
fn told_of(name: &str, held: &Folded) -> (String, String) {
    let what = if held.by_its_own {
        format!("the rule {name} is held by its limit of alerts")
    } else {
        format!("the limit of alerts of all rules together holds the rule {name} too")
    };
    let since = Timestamp::from_microsecond(held.since_us).map(|time| format!("{time:.0}")).unwrap_or_default();
    let folded = held.last_hour;
    let problem =
        format!("{what} since {since}: {folded} matches of the last hour were folded into a summary for each minute");
    let remedy = if held.by_its_own {
        "tune it (rules backtest shows its top values), add an exception for what is harmless, or disable it with an override; \
         the limit is alerts.rate_per_rule_per_minute"
    } else {
        "tune, except or disable the rules that match most: SELECT name, matches, folded FROM rule_stats ORDER BY matches DESC; \
         the limit is alerts.rate_per_minute"
    };
    (problem, remedy.to_owned())
}

fn row_of(name: &str, held: &Folded) -> Value {
    json!({ "rule_id": held.rule.to_string(), "name": name, "since_us": held.since_us, "folded_last_hour": held.last_hour,
        "folded": held.matches })
}

fn named(blinded: &Blinded) -> String {
    let more = u64::try_from(blinded.names.len()).is_ok_and(|named| named < blinded.count);
    format!("{}{}", blinded.names.join(", "), if more { ", …" } else { "" })
}

/// The window rules together; one that cannot see what it should is a finding.
fn windows(stats: &[RuleStats], findings: &mut Findings) -> Value {
    let windows: Vec<_> = stats.iter().filter_map(|stats| Some((stats, stats.window?))).collect();
    for (stats, window) in &windows {
        let name = &stats.rule.name;
        if window.shed > 0 {
            let shed = window.shed;
            findings.add(
                format!("the window rule {name} has no room for all that it filters: {shed} events were shed"),
                "narrow its conditions or its window",
            );
        }
        if window.postponed > 0 {
            let times = window.postponed;
            findings.add(
                format!("the window rule {name} was decided late {times} times: window rules have used up their share of time"),
                "see what each takes: SELECT name, time_us FROM rule_stats ORDER BY time_us DESC",
            );
        }
        if window.skipped > 0 {
            let times = window.skipped;
            findings.add(
                format!(
                    "the window rule {name} was not decided at {times} moments of bursts, at which it may have matched"
                ),
                "backtest it over that time: where nobody waits every moment is looked at; or narrow its conditions",
            );
        }
        if window.untimed > 0 {
            let what = format!("the window rule {name} goes by time, and {} of its events have none", window.untimed);
            findings.add(what, "see who sent them: SELECT DISTINCT collector FROM process_events WHERE time IS NULL");
        }
        let undecided = window.timed_out.saturating_add(window.failed);
        if undecided > 0 {
            let why = stats.failure.as_deref().map(|why| format!(", the last time as {why}")).unwrap_or_default();
            let remedy = if window.failed > 0 {
                "correct the rule so that no event can make it fail, or narrow its conditions"
            } else {
                "narrow its conditions or its window"
            };
            findings.add(format!("the window rule {name} was not decided {undecided} times{why}"), remedy);
        }
    }
    let sum = |of: &dyn Fn(&RuleStats, &WindowStats) -> u64| -> u64 {
        windows.iter().map(|(stats, window)| of(stats, window)).fold(0, u64::saturating_add)
    };
    json!({
        "running": windows.len(),
        "evaluations": sum(&|stats, _| stats.evaluations),
        "degraded": sum(&|stats, _| stats.degraded),
        "cpu_ns": sum(&|stats, _| stats.nanoseconds),
        "kept_rows": sum(&|_, window| window.kept_rows),
        "kept_bytes": sum(&|_, window| window.kept_bytes),
        "shed": sum(&|_, window| window.shed),
        "late": sum(&|_, window| window.late),
        "ahead": sum(&|_, window| window.ahead),
        "postponed": sum(&|_, window| window.postponed),
        "timed_out": sum(&|_, window| window.timed_out),
        "failed": sum(&|_, window| window.failed),
        "skipped": sum(&|_, window| window.skipped),
        "untimed": sum(&|_, window| window.untimed),
        "over_budget": sum(&|_, window| window.over_budget),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rule_that_is_held_is_told_with_its_name_time_number_and_what_to_do() {
        let held = Folded {
            rule: uuid::Uuid::nil(),
            matches: 9,
            last_hour: 7,
            since_us: 1_769_860_800_000_000,
            by_its_own: true,
        };
        let (problem, remedy) = told_of("too wide", &held);
        assert_eq!(
            problem,
            "the rule too wide is held by its limit of alerts since 2026-01-31T12:00:00Z: 7 matches of the last hour were \
             folded into a summary for each minute"
        );
        for what in ["tune", "exception", "disable", "alerts.rate_per_rule_per_minute"] {
            assert!(remedy.contains(what), "{remedy}");
        }
        let (problem, remedy) = told_of("quiet", &Folded { by_its_own: false, ..held });
        assert!(
            problem.contains("all rules together") && remedy.contains("alerts.rate_per_minute"),
            "{problem} {remedy}"
        );
    }
}
