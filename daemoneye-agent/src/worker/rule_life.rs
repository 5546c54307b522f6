//! The rules as the tables and `health` show them: what each has done and cost, whether it can see what it reads, what its
//! exceptions hid.

use std::collections::BTreeMap;
use std::sync::Arc;

use daemoneye_engine::detect::rules::{Lists, Pack, ValueList};
use daemoneye_engine::detect::{Exception, LoadedRule, Mark, RuleStats};
use daemoneye_engine::sql::{RuleExceptionRow, RuleLife, RuleListRow, RulePackRow, RuleStatsRow};
use daemoneye_engine::store::{Folded, HiddenCount};
use daemoneye_lib::model::RuleState;
use uuid::Uuid;

use super::{Collector, Worker, rule_marks, rules};

/// What a collector calls itself whose events the rules read.
const PROCESSES: &str = "process";
/// Runs of a window rule that failed before it counts as degraded: one may be of a moment.
const UNDECIDED: u64 = 3;
/// Rules that a finding names; the table has all of them.
const NAMED: usize = 3;

/// The numbers of `health`, and what is wrong.
#[derive(Debug, Default)]
pub(crate) struct Summary {
    pub(crate) drafts: u64,
    /// Why rules cannot see what they read, how many, and the first of them.
    pub(crate) unhealthy: BTreeMap<String, Blinded>,
    /// Slow or degraded: name and mark.
    pub(crate) over_budget: Vec<(String, &'static str)>,
    /// Rules of which the limits of alerts held something back in the last hour, by name; the one with the most comes first.
    pub(crate) held: Vec<(String, Folded)>,
    /// What those limits held back of all rules since the store was opened.
    pub(crate) folded: u64,
    pub(crate) exceptions: u64,
    /// Rule, owner and reason of exceptions that have ended.
    pub(crate) expired: Vec<(String, String, String)>,
    pub(crate) evaluations: u64,
    pub(crate) matches: u64,
    pub(crate) degraded: u64,
    pub(crate) time_us: u64,
}

/// Rules that cannot see what they read, for one reason.
#[derive(Debug, Default)]
pub(crate) struct Blinded {
    pub(crate) count: u64,
    /// At most [`NAMED`].
    pub(crate) names: Vec<String>,
}

/// What a rule over past events would need that no collector fills.
pub(crate) fn unfilled(worker: &Worker, rule: &LoadedRule) -> Option<String> {
    let sight = Sight::of(&worker.roster.all());
    let unfilled = sight.unfilled(rule);
    (!unfilled.is_empty()).then(|| format!("no collector fills {}, which the rule reads", unfilled.join(", ")))
}

/// Everything for the tables. Blocking.
pub(super) fn of(worker: &Worker) -> RuleLife {
    let in_force = worker.rules.in_force();
    let hidden = worker.store.hidden().unwrap_or_else(|error| {
        tracing::warn!(%error, "what exceptions hid cannot be read");
        Vec::new()
    });
    let (sight, now) = (Sight::of(&worker.roster.all()), worker.store.believed_us());
    let folded = worker.store.folded(now);
    let problems = worker.rules.problems();
    worker.rules.read(|loaded, lists, packs| {
        let by_id: BTreeMap<Uuid, &LoadedRule> = loaded.iter().map(|rule| (rule.rule.id, rule)).collect();
        let stats = in_force.set().stats();
        let stats = stats.iter().filter_map(|stats| {
            let row = stats_row(stats, by_id.get(&stats.rule.id)?, &sight, &hidden);
            let folded = folded.iter().find(|folded| folded.rule == stats.rule.id);
            Some(if let Some(folded) = folded { held(row, folded) } else { row })
        });
        let name = |id: &Uuid| by_id.get(id).map(|rule| rule.rule.name.clone()).unwrap_or_default();
        let exceptions = in_force.exceptions().iter().map(|one| exception_row(one, name(&one.rule), &hidden, now));
        RuleLife {
            stats: stats.collect(),
            exceptions: exceptions.collect(),
            lists: list_rows(lists, loaded),
            packs: pack_rows(packs, loaded),
            problems,
        }
    })
}

/// Finds out which rules lack a column: after a load, and when a collector registers.
pub(super) fn look_again(worker: &Worker) {
    let sight = Sight::of(&worker.roster.all());
    let blind = worker.rules.read(|loaded, _, _| {
        loaded.iter().filter(|rule| !sight.unfilled(rule).is_empty()).map(|rule| rule.rule.id).collect()
    });
    worker.rules.mark_blind(blind);
}

impl Summary {
    /// Of the rules in force. Blocking only for as long as a load takes.
    pub(crate) fn of(worker: &Worker) -> Self {
        let in_force = worker.rules.in_force();
        let (sight, now) = (Sight::of(&worker.roster.all()), worker.store.believed_us());
        let mut summary = Self::default();
        let folded = worker.store.folded(now);
        for stats in in_force.set().stats() {
            summary.count(&stats);
            let held = folded.iter().find(|folded| folded.rule == stats.rule.id && folded.last_hour > 0);
            summary.held.extend(held.map(|held| (stats.rule.name.clone(), *held)));
        }
        summary.folded = folded.iter().map(|folded| folded.matches).fold(0, u64::saturating_add);
        summary.held.sort_by_key(|(_, held)| std::cmp::Reverse(held.last_hour));
        worker.rules.read(|loaded, _, _| {
            for rule in loaded.iter().filter(|rule| rules::runs(rule)) {
                if let Some(reason) = sight.lacks(rule) {
                    let blinded = summary.unhealthy.entry(reason).or_default();
                    blinded.count = blinded.count.saturating_add(1);
                    if blinded.names.len() < NAMED {
                        blinded.names.push(rule.rule.name.clone());
                    }
                }
                for exception in &rule.exceptions {
                    summary.exceptions = summary.exceptions.saturating_add(1);
                    if exception.is_expired(now) {
                        let (owner, reason) = (exception.owner.clone(), exception.reason.clone());
                        summary.expired.push((rule.rule.name.clone(), owner, reason));
                    }
                }
            }
        });
        summary
    }

    fn count(&mut self, stats: &RuleStats) {
        self.drafts = self.drafts.saturating_add(u64::from(stats.rule.state == RuleState::Draft));
        if stats.mark != Mark::Kept {
            self.over_budget.push((stats.rule.name.clone(), rule_marks::word(stats.mark)));
        }
        self.evaluations = self.evaluations.saturating_add(stats.evaluations);
        self.matches = self.matches.saturating_add(stats.matches);
        self.degraded = self.degraded.saturating_add(stats.degraded);
        self.time_us = self.time_us.saturating_add(stats.nanoseconds / 1_000);
    }
}

/// What the collectors that are connected can see: made anew whenever somebody asks, so a collector that comes back with other
/// columns changes the answer at once.
#[derive(Debug, Default)]
struct Sight {
    /// One that tells of processes is connected.
    connected: bool,
    /// Columns that none of them fills.
    missing: Vec<String>,
}

impl Sight {
    fn of(collectors: &BTreeMap<String, Collector>) -> Self {
        let of_processes = collectors.values().filter(|one| one.connected && one.register.collector_type == PROCESSES);
        let lacks: Vec<Vec<String>> = of_processes
            .map(|one| one.register.capabilities.as_ref().map(|can| can.missing_columns.clone()).unwrap_or_default())
            .collect();
        let Some((first, rest)) = lacks.split_first() else { return Self::default() };
        let nobodys = |column: &&String| rest.iter().all(|other| other.contains(column));
        Self { connected: true, missing: first.iter().filter(nobodys).cloned().collect() }
    }

    /// Why a rule cannot see what it reads.
    fn lacks(&self, rule: &LoadedRule) -> Option<String> {
        if !self.connected {
            return Some("no collector of processes is connected".to_owned());
        }
        let unfilled = self.unfilled(rule);
        (!unfilled.is_empty()).then(|| format!("no collector fills {}", unfilled.join(", ")))
    }

    /// The columns that it reads and nobody fills.
    fn unfilled(&self, rule: &LoadedRule) -> Vec<&str> {
        if self.missing.is_empty() {
            return Vec::new();
        }
        let columns = rule.columns();
        self.missing.iter().map(String::as_str).filter(|column| columns.contains(column)).collect()
    }
}

fn stats_row(stats: &RuleStats, loaded: &LoadedRule, sight: &Sight, hidden: &[HiddenCount]) -> RuleStatsRow {
    let of_rule = hidden.iter().filter(|count| count.rule == stats.rule.id);
    let lacks = sight.lacks(loaded);
    let over = (stats.mark != Mark::Kept).then(|| format!("over its budget {} times", stats.over_budget));
    let undecided = stats.window.filter(|window| window.failed >= UNDECIDED).map(|window| {
        let why = stats.failure.as_deref().unwrap_or_default();
        format!("not decided {} times, the last time as {why}", window.failed)
    });
    let health = match (&lacks, &undecided) {
        (Some(_), _) => "unhealthy",
        (None, Some(_)) => "degraded",
        (None, None) => rule_marks::word(stats.mark),
    };
    RuleStatsRow {
        rule_id: stats.rule.id.to_string(),
        name: stats.rule.name.clone(),
        version: stats.rule.version,
        state: if stats.rule.state == RuleState::Draft { "draft" } else { "active" }.to_owned(),
        health: health.to_owned(),
        reason: lacks.or(undecided).or(over),
        evaluations: stats.evaluations,
        rows: stats.rows,
        matches: stats.matches,
        hidden: of_rule.map(|count| count.matches).fold(0, u64::saturating_add),
        folded: 0,
        time_us: stats.nanoseconds / 1_000,
        over_budget: stats.over_budget,
        degraded: stats.degraded,
        overflows: stats.overflows,
        last_match_us: stats.last_match_us,
        overrides: loaded.override_names(),
    }
}

/// The row of a rule of which the limits of alerts held something back; what is worse stays what is told.
fn held(row: RuleStatsRow, folded: &Folded) -> RuleStatsRow {
    let row = RuleStatsRow { folded: folded.matches, ..row };
    if row.reason.is_some() || folded.last_hour == 0 {
        return row;
    }
    let reason = format!("held by the limit of alerts: {} matches of the last hour were folded", folded.last_hour);
    RuleStatsRow { health: "held".to_owned(), reason: Some(reason), ..row }
}

fn exception_row(exception: &Exception, rule: String, hidden: &[HiddenCount], now: i64) -> RuleExceptionRow {
    let count = hidden.iter().find(|count| count.exception == exception.id);
    RuleExceptionRow {
        id: exception.id.to_string(),
        rule_id: exception.rule.to_string(),
        rule,
        condition: exception.condition.clone(),
        owner: exception.owner.clone(),
        reason: exception.reason.clone(),
        expires_us: exception.expires_us,
        expired: exception.is_expired(now),
        hits: count.map_or(0, |count| count.matches),
        last_hit_us: count.map(|count| count.last_us),
        file: exception.file.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default(),
        line: exception.line,
    }
}

fn size(number: usize) -> u64 {
    u64::try_from(number).unwrap_or(u64::MAX)
}

fn list_rows(lists: &Lists, loaded: &[LoadedRule]) -> Vec<RuleListRow> {
    let users = |name: &str| loaded.iter().filter(|rule| rule.lists.named(name).is_some()).count();
    let row = |list: &Arc<ValueList>| RuleListRow {
        name: list.name.clone(),
        description: list.description.clone(),
        size: size(list.items.len()),
        items: list.json(),
        rules: size(users(&list.name)),
        files: list.file_names(),
    };
    lists.iter().map(row).collect()
}

/// Packs with a manifest, and the directories that rules came in without one.
fn pack_rows(packs: &[Pack], loaded: &[LoadedRule]) -> Vec<RulePackRow> {
    let mut rows: BTreeMap<String, RulePackRow> = BTreeMap::new();
    for pack in packs {
        let word = |text: &String| (!text.is_empty()).then(|| text.clone());
        let row = RulePackRow {
            name: pack.name.clone(),
            version: word(&pack.version),
            description: word(&pack.description),
            author: word(&pack.author),
            ..RulePackRow::default()
        };
        rows.entry(pack.name.clone()).or_insert(row);
    }
    for rule in loaded {
        let name = rule.rule.pack.clone();
        let row = rows.entry(name.clone()).or_insert_with(|| RulePackRow { name, ..RulePackRow::default() });
        row.rules = row.rules.saturating_add(1);
        row.running = row.running.saturating_add(u64::from(rules::runs(rule)));
    }
    rows.into_values().collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::worker::Roster;
    use daemoneye_engine::detect::rules::parse;
    use daemoneye_lib::proto::{CollectionCapabilities, Register};
    use std::path::Path;

    fn rule(column: &str) -> LoadedRule {
        let yaml = format!(
            "id: 3d9f2c1e-7a54-4b0e-9a51-0c8c5f3f7a01\nname: a rule\nseverity: low\n\
             sql: SELECT pid FROM process_events WHERE {column} = 'x'\n"
        );
        parse(Path::new("pack/rule.yaml"), &yaml).unwrap()
    }

    fn register(missing: &[&str]) -> Register {
        let missing_columns = missing.iter().map(ToString::to_string).collect();
        let capabilities = Some(CollectionCapabilities { missing_columns, ..CollectionCapabilities::default() });
        Register {
            collector_id: "procmond".into(),
            collector_type: PROCESSES.into(),
            capabilities,
            ..Register::default()
        }
    }

    #[test]
    fn a_rule_that_the_limit_of_alerts_holds_says_so_unless_something_is_worse() {
        let folded = Folded { rule: Uuid::nil(), matches: 9, last_hour: 7, since_us: 0, by_its_own: true };
        let ok = RuleStatsRow { health: "ok".into(), ..RuleStatsRow::default() };
        let row = held(ok.clone(), &folded);
        assert_eq!((row.health.as_str(), row.folded), ("held", 9));
        assert!(row.reason.unwrap().contains("7 matches of the last hour"));
        assert_eq!(held(ok.clone(), &Folded { last_hour: 0, ..folded }), RuleStatsRow { folded: 9, ..ok });
        let blind = RuleStatsRow { health: "unhealthy".into(), reason: Some("why".into()), ..RuleStatsRow::default() };
        assert_eq!(held(blind.clone(), &folded), RuleStatsRow { folded: 9, ..blind });
    }

    #[test]
    fn a_window_rule_is_unhealthy_without_a_column_that_decides_it() {
        let yaml = "id: 3d9f2c1e-7a54-4b0e-9a51-0c8c5f3f7a01\nname: a rule\nseverity: low\nwindow: 1m\n\
                    sql: SELECT user, count(*) AS n FROM process_events WHERE product = 'x' GROUP BY user\n";
        let rule = parse(Path::new("pack/rule.yaml"), yaml).unwrap();
        let roster = Roster::after(0);
        roster.registered(register(&["product", "company"]));
        assert_eq!(Sight::of(&roster.all()).lacks(&rule).as_deref(), Some("no collector fills product"));
    }

    #[test]
    fn a_rule_is_unhealthy_without_its_collector_or_column_and_heals_when_a_collector_comes_back_with_it() {
        let roster = Roster::after(0);
        let why = |column: &str| Sight::of(&roster.all()).lacks(&rule(column));
        assert_eq!(why("name").as_deref(), Some("no collector of processes is connected"));
        roster.registered(register(&["executable_hash"]));
        assert_eq!(why("name"), None);
        assert_eq!(why("executable_hash").as_deref(), Some("no collector fills executable_hash"));
        roster.registered(register(&[]));
        assert_eq!(why("executable_hash"), None);
        roster.disconnected("procmond", "gone");
        assert_eq!(why("executable_hash").as_deref(), Some("no collector of processes is connected"));
    }
}
