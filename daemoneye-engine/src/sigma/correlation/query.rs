//! A correlation as SQL: as the rule that finds it, and as what it finds for a correlation that refers to it.

use super::bounds::Bound;
use super::{Correlation, Kind, Matches, Part};
use crate::detect::GRACE_US;
use crate::sigma::grouping::Group;

/// What tells one event from all others, and when it was: a step or a match has them as `step_time` and so on, so that a group may be
/// called like one of them.
const PLACE: [&str; 4] = ["time", "collector", "epoch", "seq"];

/// How far back a rule looks for events at which a count holds that need not stay so: late ones come within it.
const LAST_SECONDS: i64 = GRACE_US / 1_000_000;

/// The entries of WITH that a rule needs, in the order in which they use each other.
#[derive(Default)]
struct Entries {
    written: Vec<String>,
    /// Correlations among them, by which their entries are called.
    inner: usize,
}

impl Entries {
    fn add(&mut self, name: &str, query: &str) {
        self.written.push(format!("{name} AS ({query})"));
    }

    /// Before the SELECT that uses them.
    fn before(&self, select: &str) -> String {
        if self.written.is_empty() {
            return select.to_owned();
        }
        format!("WITH {}\n{select}", self.written.join(",\n"))
    }
}

/// A further column of a SELECT.
fn named(column: &str, name: &str) -> String {
    if column == name { format!(", {column}") } else { format!(", {column} AS {name}") }
}

/// Which rows of its rules a correlation counts: no older than so many seconds, and with what else of each.
struct Rows<'a> {
    back: i64,
    /// The column of each rule whose values are counted.
    values: Option<&'a [&'static str]>,
    /// An event that fits several rules in one group is one row.
    once: bool,
    /// With the place of each.
    placed: bool,
    /// Columns beside the groups that the correlation around this one asks for.
    further: &'a [&'static str],
}

impl Correlation {
    /// The SELECT of its rule.
    pub(in crate::sigma) fn sql(&self) -> String {
        let mut entries = Entries::default();
        let select = match &self.kind {
            Kind::Ordered => {
                let (last, chain) = self.chain(self.seconds, "", &[], &mut entries);
                let key: String = self.groups.iter().map(|group| format!("{last}.{0} AS {0}, ", group.name)).collect();
                format!("SELECT {key}{last}.first_time AS first_time, {last}.step_time AS time\nFROM {chain}")
            }
            // At an event of the group, and not because one of it has become too old.
            _ if !self.bounds.iter().all(Bound::grows) => {
                let key: String = self.groups.iter().map(|group| format!("{}, ", group.name)).collect();
                let found = self.entry(LAST_SECONDS, &[], &mut entries);
                format!(
                    "SELECT {key}found, step_time AS time\nFROM {found}\nWHERE {}",
                    recent("step_time", LAST_SECONDS)
                )
            }
            Kind::Together if self.is_plain() => self.grouped("count(*)", &self.having(&self.kinds())),
            Kind::Together => {
                self.gathered(self.rows(None, false), "count(*)", "count(DISTINCT rule_number)", &mut entries)
            }
            Kind::Events if self.is_plain() => self.grouped("count(*)", &self.having("count(*)")),
            Kind::Events => self.gathered(self.rows(None, true), "count(*)", "count(*)", &mut entries),
            Kind::Values(values) => match values.as_slice() {
                [first, rest @ ..] if self.is_plain() && rest.iter().all(|value| value == first) => {
                    let count = format!("count(DISTINCT {first})");
                    self.grouped(&count, &self.having(&count))
                }
                values => {
                    let count = "count(DISTINCT counted)";
                    self.gathered(self.rows(Some(values), false), count, count, &mut entries)
                }
            },
        };
        entries.before(&select)
    }

    const fn rows<'a>(&self, values: Option<&'a [&'static str]>, once: bool) -> Rows<'a> {
        Rows { back: self.seconds, values, once, placed: false, further: &[] }
    }

    /// What it finds, no older than so many seconds: an entry with the place of the last event of each match, its groups, and what
    /// else of that event is wanted.
    fn entry(&self, back: i64, wanted: &[&'static str], entries: &mut Entries) -> String {
        entries.inner = entries.inner.saturating_add(1);
        let name = format!("found_{}", entries.inner);
        let back = back.saturating_add(self.seconds);
        let names = self.dedup();
        let mut further: Vec<&'static str> = wanted.iter().copied().filter(|name| !names.contains(name)).collect();
        further.sort_unstable();
        further.dedup();
        let rows = |values, once| Rows { back, values, once, placed: true, further: &further };
        let query = match &self.kind {
            Kind::Ordered => {
                let (last, chain) = self.chain(back, &format!("{name}_"), &further, entries);
                let place = PLACE.map(|column| format!("{last}.step_{column} AS step_{column}"));
                let key: String =
                    names.iter().chain(&further).map(|name| format!(", {last}.{name} AS {name}")).collect();
                format!("SELECT {}{key}\n  FROM {chain}", place.join(", "))
            }
            Kind::Events => self.sliding(&name, &rows(None, true), "count(*)", entries),
            Kind::Together => self.sliding(&name, &rows(None, false), "count(DISTINCT rule_number)", entries),
            Kind::Values(values) => {
                self.sliding(&name, &rows(Some(values), false), "count(DISTINCT counted)", entries)
            }
        };
        entries.add(&name, &query);
        name
    }

    /// The rows at which a count over the span before them meets the bounds. A row counts until it is as old as the span, and of those
    /// at its time it sees all: where rows are counted, those that stand behind it are taken off again.
    fn sliding(&self, name: &str, rows: &Rows<'_>, count: &str, entries: &mut Entries) -> String {
        let (of, query) = (format!("{name}_rows"), self.matched(rows, entries));
        entries.add(&of, &query);
        let names = self.dedup();
        let by = |more: Option<&'static str>| {
            let keys: Vec<&str> = names.iter().copied().chain(more).collect();
            if keys.is_empty() { String::new() } else { format!("PARTITION BY {} ", keys.join(", ")) }
        };
        let place = PLACE.map(|column| format!("step_{column}"));
        let columns: String = place
            .iter()
            .map(String::as_str)
            .chain(names.iter().copied())
            .chain(rows.further.iter().copied())
            .map(|column| format!("{column}, "))
            .collect();
        let span = format!("{}.999999", self.seconds.saturating_sub(1));
        let mut found = format!(
            "{count} OVER ({}ORDER BY step_time RANGE BETWEEN INTERVAL '{span} seconds' PRECEDING AND CURRENT ROW)",
            by(None)
        );
        if rows.once {
            let (alike, order) = (by(Some("step_time")), place.get(1..).unwrap_or_default().join(", "));
            found.push_str(&format!(
                "\n    - count(*) OVER ({}) + count(*) OVER ({alike}ORDER BY {order})",
                alike.trim_end()
            ));
        }
        format!(
            "SELECT DISTINCT {columns}found\n  FROM (SELECT {columns}{found} AS found\n    FROM {of}) AS counted\n  WHERE {}",
            self.said("found")
        )
    }

    /// Any of the rules, as conditions over one event.
    fn any(&self) -> String {
        let each: Vec<String> = self.conditions().map(|condition| format!("({condition})")).collect();
        each.join(" OR ")
    }

    fn conditions(&self) -> impl Iterator<Item = &str> {
        self.parts.iter().filter_map(|part| part.condition())
    }

    /// How many of the rules the events of a group fit.
    fn kinds(&self) -> String {
        let each = self.conditions().map(|condition| format!("max(CASE WHEN {condition} THEN 1 ELSE 0 END)"));
        format!("({})", each.collect::<Vec<_>>().join(" + "))
    }

    /// Groups of the rows that any of the conditions holds for, those for which `having` is true.
    fn grouped(&self, counted: &str, having: &str) -> String {
        let known: String = self.groups.iter().map(|group| format!("\n  AND {} IS NOT NULL", group.name)).collect();
        let rows = format!("process_events\nWHERE ({}){known}\n  AND {}", self.any(), recent("time", self.seconds));
        self.found(counted, &rows, having)
    }

    fn found(&self, counted: &str, rows: &str, having: &str) -> String {
        let names = self.dedup();
        let key: String = names.iter().map(|name| format!("{name}, ")).collect();
        let by = if names.is_empty() { String::new() } else { format!("\nGROUP BY {}", names.join(", ")) };
        format!(
            "SELECT {key}{counted} AS found, min(time) AS first_time, max(time) AS time\nFROM {rows}{by}\nHAVING {having}"
        )
    }

    /// The same where a group or a value is another column in the matches of each rule, or where one is a correlation.
    fn gathered(&self, rows: Rows<'_>, counted: &str, count: &str, entries: &mut Entries) -> String {
        let rows = self.matched(&rows, entries);
        self.found(counted, &format!("({rows}) AS matched"), &self.having(count))
    }

    /// The rows of each rule by themselves.
    fn matched(&self, rows: &Rows<'_>, entries: &mut Entries) -> String {
        let of_each = self.parts.iter().enumerate().map(|(at, part)| {
            let value = rows.values.and_then(|values| values.get(at)).copied();
            let keys = self.groups.iter().filter_map(|group| group.columns.get(at).copied());
            let wanted: Vec<&'static str> = keys.chain(value).chain(rows.further.iter().copied()).collect();
            let (from, passed) = source(part, rows.back, &wanted, entries);
            let mut columns = if rows.placed { placed(part) } else { named(time(part), "time").split_off(2) };
            columns.push_str(&format!(", {at} AS rule_number"));
            if let Some(value) = value {
                columns.push_str(&format!(", {value} AS counted"));
            }
            rows.further.iter().for_each(|further| columns.push_str(&named(further, further)));
            let mut condition = passed.map_or_else(String::new, |passed| format!("{passed}\n  AND "));
            condition.push_str(&recent(time(part), rows.back));
            for group in &self.groups {
                if let Some(column) = group.columns.get(at) {
                    columns.push_str(&named(column, group.name));
                    condition.push_str(&format!("\n  AND {column} IS NOT NULL"));
                }
            }
            if rows.once && part.condition().is_some() {
                let before = self.parts.iter().take(at).enumerate();
                before.for_each(|(other, earlier)| condition.push_str(&self.unlike(other, at, earlier)));
            }
            format!("SELECT {columns}\n  FROM {from}\n  WHERE {condition}")
        });
        of_each.collect::<Vec<_>>().join("\n  UNION ALL ")
    }

    /// The event is not one that an earlier rule has counted in the same group.
    fn unlike(&self, earlier: usize, at: usize, part: &Part) -> String {
        let Some(condition) = part.condition() else { return String::new() };
        let alike = self.groups.iter().filter_map(|group| {
            let (one, other) = (group.columns.get(earlier)?, group.columns.get(at)?);
            (one != other).then(|| format!(" AND {one} = {other}"))
        });
        format!("\n  AND (({condition}){}) IS NOT TRUE", alike.collect::<String>())
    }

    /// Whether each group is one column in the events of all rules, and each match one event.
    fn is_plain(&self) -> bool {
        self.groups.iter().all(Group::is_one_column) && self.parts.iter().all(|part| part.condition().is_some())
    }

    fn said(&self, count: &str) -> String {
        let each = self.bounds.iter().map(|bound| format!("{count} {} {}", bound.operator, bound.number));
        each.collect::<Vec<_>>().join(" AND ")
    }

    /// Bounds over a count. Without groups there is an answer where there is no event, of which nothing is raised.
    fn having(&self, count: &str) -> String {
        let holds_of_none = self.groups.is_empty() && self.bounds.iter().all(|bound| bound.holds(0));
        let said = self.said(count);
        if holds_of_none { format!("{said} AND count(*) > 0") } else { said }
    }

    /// Each rule's match not before that of the rule before it and another one, the last within the span of the first: what the last
    /// step is called, and the tables that it stands in.
    fn chain(&self, back: i64, prefix: &str, further: &[&'static str], entries: &mut Entries) -> (String, String) {
        let (mut chain, mut last) = (String::new(), String::new());
        for (at, part) in self.parts.iter().enumerate() {
            let further = if at.saturating_add(1) == self.parts.len() { further } else { &[] };
            let (rows, columns) = (self.step(at, part, back, further, entries), self.of_step(at, further));
            let step = if at == 0 {
                format!("SELECT step_time AS first_time, {columns}\n  FROM {rows}")
            } else {
                format!(
                    "SELECT max({last}.first_time) AS first_time, {columns}\n  FROM {chain}\n  JOIN {rows}\n  ON {}\n  GROUP BY {columns}",
                    self.follows(at, &last)
                )
            };
            last = format!("{prefix}s{at}");
            // Subqueries nest three deep, the query of an entry is one, and each use of an entry counts with all that it reads: two steps
            // are one entry.
            let is_entry = at % 2 == 1 && (!prefix.is_empty() || at.saturating_add(1) < self.parts.len());
            chain = if is_entry {
                entries.add(&last, &step);
                last.clone()
            } else {
                format!("({step}) AS {last}")
            };
        }
        (last, chain)
    }

    /// The matches of one step: when and where each stands in its stream, and its group.
    fn step(&self, at: usize, part: &Part, back: i64, further: &[&'static str], entries: &mut Entries) -> String {
        let keys = self.groups.iter().filter_map(|group| group.columns.get(at).copied());
        let wanted: Vec<&'static str> = keys.chain(further.iter().copied()).collect();
        let (from, passed) = source(part, back, &wanted, entries);
        let passed = passed.map_or_else(String::new, |passed| format!("{passed} AND "));
        let columns = self.groups.iter().filter_map(|group| Some(named(group.columns.get(at)?, group.name)));
        let selected: String = columns.chain(further.iter().map(|further| named(further, further))).collect();
        let recent = recent(time(part), back);
        // What stands behind the first has to have the same.
        let first = self.groups.iter().filter(|_| at == 0).filter_map(|group| group.columns.get(at));
        let known: String = first.map(|column| format!(" AND {column} IS NOT NULL")).collect();
        format!("(SELECT {}{selected} FROM {from} WHERE {passed}{recent}{known}) AS e{at}", placed(part))
    }

    fn of_step(&self, at: usize, further: &[&'static str]) -> String {
        let names = self.dedup();
        let groups: String = names.iter().chain(further).map(|name| format!(", e{at}.{name}")).collect();
        format!("e{at}.step_time, e{at}.step_collector, e{at}.step_epoch, e{at}.step_seq{groups}")
    }

    /// A further event, not before that of the step before; of those at one time in one stream a later one. Within the span of the
    /// first, of which the latest is kept for each: one event is not more because of how many came before it.
    fn follows(&self, at: usize, before: &str) -> String {
        let of = |column: &str, sign: &str| format!("e{at}.step_{column} {sign} {before}.step_{column}");
        let tie = [of("seq", ">"), of("epoch", "<>"), of("collector", "<>")].join(" OR ");
        let after = format!("({} OR ({} AND ({tie})))", of("time", ">"), of("time", "="));
        let span = format!("e{at}.step_time < {before}.first_time + INTERVAL '{} seconds'", self.seconds);
        let same: String =
            self.groups.iter().map(|group| format!(" AND e{at}.{0} = {before}.{0}", group.name)).collect();
        format!("{after} AND {span}{same}")
    }
}

/// Where the matches of a rule are read from, and what they have to pass there.
fn source(part: &Part, back: i64, wanted: &[&'static str], entries: &mut Entries) -> (String, Option<String>) {
    match &part.matches {
        Matches::Correlated(correlation) => (correlation.entry(back, wanted, entries), None),
        _ => ("process_events".to_owned(), part.condition().map(|condition| format!("({condition})"))),
    }
}

/// When a match of a rule was.
const fn time(part: &Part) -> &'static str {
    if matches!(part.matches, Matches::Correlated(_)) { "step_time" } else { "time" }
}

/// The place of each match of a rule, as a step has it.
fn placed(part: &Part) -> String {
    let is_entry = matches!(part.matches, Matches::Correlated(_));
    PLACE
        .map(|column| if is_entry { format!("step_{column}") } else { format!("{column} AS step_{column}") })
        .join(", ")
}

fn recent(time: &str, seconds: i64) -> String {
    format!("{time} > now() - INTERVAL '{seconds} seconds'")
}
