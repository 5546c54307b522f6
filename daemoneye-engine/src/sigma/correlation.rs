//! Sigma's correlations as window rules: how many events, how many values, which rules in which order, within a time and a group.
//!
//! The windows slide: they end at each event and begin the time span before it. Events without a value in a field of the group
//! belong to no group. Rules that a correlation refers to raise nothing by themselves unless it says `generate`.

use super::Reason;
use super::document::{field, text, texts};
use super::grouping::{Group, columns, groups};
use crate::detect::rules::yaml::{Node, Yaml, truth};

/// Most rules of one correlation: each of an ordered one is a join.
const MAX_RULES: usize = 8;
/// Longest time span in days. A window keeps its rows in memory whatever its length, up to its bound, and begins with those that
/// history still has: this is longer than history is kept.
const MAX_DAYS: i64 = 366;
const DAY_SECONDS: i64 = 24 * 3600;
/// What a correlation may say. Other words would change what it finds, so they are refused.
const FIELDS: [&str; 7] = ["type", "rules", "aliases", "group-by", "timespan", "condition", "generate"];

/// A rule that a correlation may refer to.
pub(super) struct Part {
    pub(super) id: String,
    pub(super) name: Option<String>,
    /// Its title, file and line, for messages.
    pub(super) place: String,
    pub(super) is_correlation: bool,
    /// Its condition in SQL; `None`: it was not converted.
    pub(super) condition: Option<String>,
    pub(super) in_security: bool,
    /// The fields that it asks for and no column holds.
    pub(super) unmapped: Vec<String>,
}

impl Part {
    pub(super) fn is_called(&self, name: &str) -> bool {
        self.name.as_deref() == Some(name) || self.id.eq_ignore_ascii_case(name)
    }

    /// As people know it.
    pub(super) fn called(&self) -> &str {
        self.name.as_deref().unwrap_or(&self.id)
    }
}

/// What a correlation became.
pub(super) struct Correlated {
    pub(super) sql: String,
    /// The columns that tell its matches apart.
    pub(super) dedup: Vec<&'static str>,
    /// Its rules and the fields that they ask for and no column holds.
    pub(super) unmapped: Vec<(String, String)>,
}

/// A correlation as it is written.
struct Wanted<'a> {
    node: &'a Node,
    parts: Vec<&'a Part>,
    groups: Vec<Group>,
    seconds: i64,
}

/// Converts the map below `correlation`, or tells everything that is wrong with it.
pub(super) fn convert(document: &Node, node: &Node, parts: &[Part]) -> Result<Correlated, Vec<Reason>> {
    let mut problems = Vec::new();
    if let Yaml::Map(pairs) = &node.value {
        problems.extend(pairs.iter().filter(|(key, _)| !FIELDS.contains(&key.value.as_str())).map(|(key, _)| {
            let message =
                format!("the correlation has a field {}, which Sigma's specification does not know", key.value);
            Reason::new(key.referenced, message)
        }));
    }
    let place = |name: &str| field(node, name).map_or(node.referenced, |node| node.referenced);
    let mut told = |name: &str, problem: String| {
        let problem = Reason::new(place(name), problem);
        // A rule may be named twice.
        problems.extend((!problems.contains(&problem)).then_some(problem));
    };
    let named = texts(node, "rules");
    if named.is_empty() || named.len() > MAX_RULES {
        told("rules", format!("a correlation is of 1 to {MAX_RULES} rules"));
    }
    let found = named.iter().map(|name| find(name, parts));
    let found: Vec<&Part> = found.filter_map(|part| part.map_err(|problem| told("rules", problem)).ok()).collect();
    let groups = groups(node, &found).map_err(|problem| told("group-by", problem)).unwrap_or_default();
    let seconds = seconds(node).map_err(|problem| told("timespan", problem)).unwrap_or_default();
    if let Err(problem) = generates(document).and(generates(node)) {
        told("generate", problem);
    }
    let wanted = Wanted { node, groups, seconds, parts: found };
    let sql = match text(node, "type").unwrap_or_default().as_str() {
        "event_count" => wanted.events().map_err(|problem| ("condition", problem)),
        "value_count" => wanted.values().map_err(|problem| ("condition", problem)),
        "temporal" => wanted.together().map_err(|problem| ("condition", problem)),
        "temporal_ordered" => wanted.ordered().map_err(|problem| ("condition", problem)),
        "" => Err(("type", "the correlation has no type".to_owned())),
        other => Err(("type", format!("correlations of the type {other} are not built"))),
    };
    let sql = sql.map_err(|(name, problem)| told(name, problem)).unwrap_or_default();
    if !problems.is_empty() {
        return Err(problems);
    }
    let of =
        |part: &Part| part.unmapped.iter().map(|field| (part.called().to_owned(), field.clone())).collect::<Vec<_>>();
    let unmapped = wanted.parts.iter().flat_map(|part| of(part)).collect();
    Ok(Correlated { sql, dedup: wanted.groups.iter().map(|group| group.name).collect(), unmapped })
}

/// Whether its rules also raise alerts by themselves; YAML 1.1 had more words for it.
fn generates(node: &Node) -> Result<bool, String> {
    match field(node, "generate").map(|node| &node.value) {
        None | Some(Yaml::Null) => Ok(false),
        Some(Yaml::Boolean(typed)) => Ok(typed.value),
        Some(Yaml::Text(word)) if truth(word).is_some() => Ok(truth(word) == Some(true)),
        Some(other) => Err(format!("generate is true or false, and this is {}", other.kind())),
    }
}

/// The ids of the rules of a document that raise nothing by themselves because its correlation refers to them.
pub(super) fn replaced(document: &Node, node: &Node, parts: &[Part]) -> Vec<String> {
    // The specification has it inside of the correlation; beside it was a draft's place.
    if [document, node].into_iter().any(|node| generates(node) == Ok(true)) {
        return Vec::new();
    }
    let named = texts(node, "rules");
    named.iter().filter_map(|name| Some(find(name, parts).ok()?.id.clone())).collect()
}

fn find<'a>(name: &str, parts: &'a [Part]) -> Result<&'a Part, String> {
    let called: Vec<&Part> = parts.iter().filter(|part| part.is_called(name)).collect();
    match called.as_slice() {
        [] => Err(format!("the correlation refers to {name}, and there is no such rule")),
        [part] if part.is_correlation => Err(format!(
            "the correlation refers to {name}, which is a correlation itself: a chain of correlations is not built"
        )),
        [part] if part.condition.is_none() => {
            Err(format!("the correlation refers to {name}, and nothing runs of that rule: {}", part.place))
        }
        [part] => Ok(part),
        several => {
            let places: Vec<&str> = several.iter().map(|part| part.place.as_str()).collect();
            Err(format!(
                "the correlation refers to {name}, which several rules are called: {}; give each a name or id of its own",
                places.join(", ")
            ))
        }
    }
}

/// `90s`, `5m`, `1h`, `30d`, `1w`.
fn seconds(node: &Node) -> Result<i64, String> {
    let span = text(node, "timespan").ok_or("the correlation has no timespan: write timespan: 5m")?;
    let wrong =
        || format!("the timespan {span} is no number with s, m, h, d or w behind it: write 90s, 5m, 12h, 30d or 2w");
    let unit = span.chars().last().ok_or_else(wrong)?;
    let number: i64 = span.strip_suffix(unit).and_then(|number| number.parse().ok()).ok_or_else(wrong)?;
    let factor: i64 = match unit {
        's' => 1,
        'm' => 60,
        'h' => 3_600,
        'd' => DAY_SECONDS,
        'w' => 7 * DAY_SECONDS,
        // Sigma has them too.
        'M' | 'y' => {
            let days = if unit == 'M' { 30 } else { 365 };
            return Err(format!(
                "the timespan {span} has no fixed length, as months and years differ: write it in days, as {days}d"
            ));
        }
        _ => return Err(wrong()),
    };
    let bounds = 1..=MAX_DAYS * DAY_SECONDS;
    number.checked_mul(factor).filter(|seconds| bounds.contains(seconds)).ok_or_else(|| {
        format!("the timespan {span} is not from 1s to {MAX_DAYS}d, which is longer than events are kept: write one that is")
    })
}

/// A further column of a SELECT.
fn named(column: &str, name: &str) -> String {
    if column == name { format!(", {column}") } else { format!(", {column} AS {name}") }
}

impl Wanted<'_> {
    /// Any of the rules, as conditions over one event.
    fn any(&self) -> String {
        let each: Vec<String> = self.conditions().map(|condition| format!("({condition})")).collect();
        each.join(" OR ")
    }

    fn conditions(&self) -> impl Iterator<Item = &str> {
        self.parts.iter().filter_map(|part| part.condition.as_deref())
    }

    fn recent(&self) -> String {
        format!("time > now() - INTERVAL '{} seconds'", self.seconds)
    }

    /// Groups of the rows that a condition holds for, those for which `having` is true.
    fn grouped(&self, counted: &str, condition: &str, having: &str) -> String {
        let known: String = self.groups.iter().map(|group| format!("\n  AND {} IS NOT NULL", group.name)).collect();
        let rows = format!("process_events\nWHERE ({condition}){known}\n  AND {}", self.recent());
        self.found(counted, &rows, having)
    }

    fn found(&self, counted: &str, rows: &str, having: &str) -> String {
        let names: Vec<&str> = self.groups.iter().map(|group| group.name).collect();
        let key: String = names.iter().map(|name| format!("{name}, ")).collect();
        let by = if names.is_empty() { String::new() } else { format!("\nGROUP BY {}", names.join(", ")) };
        format!(
            "SELECT {key}{counted} AS found, min(time) AS first_time, max(time) AS time\nFROM {rows}{by}\nHAVING {having}"
        )
    }

    /// The same where a group or a value is another column in the events of each rule: the rows of each rule by themselves. `once`: an
    /// event that fits several rules in one group counts as one.
    fn gathered(&self, counted: &str, values: Option<&[&str]>, once: bool, having: &str) -> String {
        let rows = self.conditions().enumerate().map(|(at, condition)| {
            let mut columns = format!("time, {at} AS rule_number");
            if let Some(value) = values.and_then(|values| values.get(at)) {
                columns.push_str(&format!(", {value} AS counted"));
            }
            let mut condition = format!("({condition})\n  AND {}", self.recent());
            for group in &self.groups {
                if let Some(column) = group.columns.get(at) {
                    columns.push_str(&named(column, group.name));
                    condition.push_str(&format!("\n  AND {column} IS NOT NULL"));
                }
            }
            let before = self.conditions().take(if once { at } else { 0 }).enumerate();
            before.for_each(|(other, earlier)| condition.push_str(&self.unlike(other, at, earlier)));
            format!("SELECT {columns}\n  FROM process_events\n  WHERE {condition}")
        });
        let rows = rows.collect::<Vec<_>>().join("\n  UNION ALL ");
        self.found(counted, &format!("({rows}) AS matched"), having)
    }

    /// The event is not one that an earlier rule has counted in the same group.
    fn unlike(&self, earlier: usize, at: usize, condition: &str) -> String {
        let alike = self.groups.iter().filter_map(|group| {
            let (one, other) = (group.columns.get(earlier)?, group.columns.get(at)?);
            (one != other).then(|| format!(" AND {one} = {other}"))
        });
        format!("\n  AND (({condition}){}) IS NOT TRUE", alike.collect::<String>())
    }

    /// Whether each group is one column in the events of all rules.
    fn is_plain(&self) -> bool {
        self.groups.iter().all(Group::is_one_column)
    }

    /// The bounds of the condition, of which there has to be one.
    fn having(&self, count: &str, counts: Counts) -> Result<String, String> {
        let bounds = self.bounds(counts)?;
        if bounds.is_empty() {
            return Err("the correlation's condition has no bound".to_owned());
        }
        Ok(self.said(&bounds, count))
    }

    /// Bounds over a count. Without groups there is an answer where there is no event, of which nothing is raised.
    fn said(&self, bounds: &[Bound], count: &str) -> String {
        let holds_of_none = self.groups.is_empty() && bounds.iter().all(|bound| bound.holds(0));
        let each = bounds.iter().map(|bound| format!("{count} {} {}", bound.operator, bound.number));
        each.chain(holds_of_none.then(|| "count(*) > 0".to_owned())).collect::<Vec<_>>().join(" AND ")
    }

    fn events(&self) -> Result<String, String> {
        self.no_field("an event_count counts events: for the values of a field write value_count")?;
        let (count, having) = ("count(*)", self.having("count(*)", Counts { least: 1, most: i64::MAX })?);
        if self.is_plain() {
            return Ok(self.grouped(count, &self.any(), &having));
        }
        Ok(self.gathered(count, None, true, &having))
    }

    fn values(&self) -> Result<String, String> {
        let asked = field(self.node, "condition").and_then(|condition| field(condition, "field"));
        if asked.is_some_and(|asked| matches!(asked.value, Yaml::List(_) | Yaml::Map(_))) {
            return Err("a value_count of several fields is not built: name one".to_owned());
        }
        let name = field(self.node, "condition").and_then(|condition| text(condition, "field"));
        let name = name.ok_or("a value_count needs a field in its condition")?;
        // An event without a value is one of its group and counts for none.
        let counts = Counts { least: 0, most: i64::MAX };
        let values = columns(&name, &self.parts)?;
        match values.as_slice() {
            [first, rest @ ..] if self.is_plain() && rest.iter().all(|value| value == first) => {
                let count = format!("count(DISTINCT {first})");
                Ok(self.grouped(&count, &self.any(), &self.having(&count, counts)?))
            }
            values => {
                let count = "count(DISTINCT counted)";
                Ok(self.gathered(count, Some(values), false, &self.having(count, counts)?))
            }
        }
    }

    /// Every rule in the span, or as many of them as the condition says.
    fn together(&self) -> Result<String, String> {
        let each: Vec<String> =
            self.conditions().map(|condition| format!("max(CASE WHEN {condition} THEN 1 ELSE 0 END)")).collect();
        let is_plain = self.is_plain();
        let kinds =
            if is_plain { format!("({})", each.join(" + ")) } else { "count(DISTINCT rule_number)".to_owned() };
        self.no_field(NO_FIELD)?;
        let bounds = self.bounds(self.of_rules())?;
        let having = if bounds.is_empty() { format!("{kinds} >= {}", each.len()) } else { self.said(&bounds, &kinds) };
        if is_plain {
            return Ok(self.grouped("count(*)", &self.any(), &having));
        }
        Ok(self.gathered("count(*)", None, false, &having))
    }

    /// Each rule's event not before that of the rule before it and another one, the last within the span of the first.
    fn ordered(&self) -> Result<String, String> {
        self.no_field(NO_FIELD)?;
        let (bounds, counts) = (self.bounds(self.of_rules())?, self.of_rules());
        if !bounds.is_empty() && (counts.least..counts.most).any(|few| bounds.iter().all(|bound| bound.holds(few))) {
            return Err(format!(
                "some of the rules in order are not built: the condition has to need all {}",
                counts.most
            ));
        }
        let (mut chain, mut entries) = (String::new(), Vec::new());
        for (at, condition) in self.conditions().enumerate() {
            let (rows, columns) = (self.step(at, condition), self.of_step(at));
            let step = match at.checked_sub(1) {
                None => format!("SELECT step_time AS first_time, {columns}\n  FROM {rows}"),
                Some(before) => format!(
                    "SELECT max(s{before}.first_time) AS first_time, {columns}\n  FROM {chain}\n  JOIN {rows}\n  ON {}\n  GROUP BY {columns}",
                    self.follows(at, before)
                ),
            };
            // Subqueries nest three deep, and each use of an entry counts with all that it reads: two steps are one entry.
            let is_entry = at % 2 == 1 && at.saturating_add(1) < self.parts.len();
            chain = if is_entry {
                entries.push(format!("s{at} AS ({step})"));
                format!("s{at}")
            } else {
                format!("({step}) AS s{at}")
            };
        }
        let last = self.parts.len().saturating_sub(1);
        let key: String = self.groups.iter().map(|group| format!("s{last}.{0} AS {0}, ", group.name)).collect();
        let with = if entries.is_empty() { String::new() } else { format!("WITH {}\n", entries.join(",\n")) };
        Ok(format!("{with}SELECT {key}s{last}.first_time AS first_time, s{last}.step_time AS time\nFROM {chain}"))
    }

    /// The events of one step: when and where each stands in its stream, and its group.
    fn step(&self, at: usize, condition: &str) -> String {
        let columns = self.groups.iter().filter_map(|group| Some(named(group.columns.get(at)?, group.name)));
        let selected: String = columns.collect();
        let place = "time AS step_time, collector AS step_collector, epoch AS step_epoch, seq AS step_seq";
        let rows = format!("FROM process_events WHERE ({condition}) AND {}", self.recent());
        format!("(SELECT {place}{selected} {rows}) AS e{at}")
    }

    fn of_step(&self, at: usize) -> String {
        let groups: String = self.groups.iter().map(|group| format!(", e{at}.{}", group.name)).collect();
        format!("e{at}.step_time, e{at}.step_collector, e{at}.step_epoch, e{at}.step_seq{groups}")
    }

    /// A further event, not before that of the step before; of those at one time in one stream a later one. Within the span of the
    /// first, of which the latest is kept for each: one event is not more because of how many came before it.
    fn follows(&self, at: usize, before: usize) -> String {
        let of = |column: &str, sign: &str| format!("e{at}.step_{column} {sign} s{before}.step_{column}");
        let tie = [of("seq", ">"), of("epoch", "<>"), of("collector", "<>")].join(" OR ");
        let after = format!("({} OR ({} AND ({tie})))", of("time", ">"), of("time", "="));
        let span = format!("e{at}.step_time <= s{before}.first_time + INTERVAL '{} seconds'", self.seconds);
        let same: String =
            self.groups.iter().map(|group| format!(" AND e{at}.{0} = s{before}.{0}", group.name)).collect();
        format!("{after} AND {span}{same}")
    }

    /// What counts of rules there are.
    fn of_rules(&self) -> Counts {
        Counts { least: 1, most: i64::try_from(self.parts.len()).unwrap_or(i64::MAX).max(1) }
    }

    fn no_field(&self, problem: &str) -> Result<(), String> {
        let condition = field(self.node, "condition");
        let asked = condition.and_then(|condition| field(condition, "field"));
        if asked.is_some() { Err(problem.to_owned()) } else { Ok(()) }
    }

    /// The bounds of the condition; several are an AND, which some count has to meet.
    fn bounds(&self, counts: Counts) -> Result<Vec<Bound>, String> {
        let Some(condition) = field(self.node, "condition") else { return Ok(Vec::new()) };
        let Yaml::Map(pairs) = &condition.value else {
            return Err("the condition of a correlation is a map of bounds".to_owned());
        };
        let mut bounds = Vec::new();
        for (key, value) in pairs.iter().filter(|(key, _)| key.value != "field") {
            let operator = match key.value.as_str() {
                "gt" => ">",
                "gte" => ">=",
                "lt" => "<",
                "lte" => "<=",
                "eq" => "=",
                "neq" => "<>",
                other => return Err(format!("the correlation's condition has {other}, which is no bound")),
            };
            let Yaml::Integer(number) = &value.value else {
                return Err(format!("the bound {} is {}, not a whole number", key.value, value.value.kind()));
            };
            bounds.push(Bound { operator, number: number.value });
        }
        // What is met anywhere is met beside a bound or at an end.
        let beside = |bound: &Bound| [-1, 0, 1].map(|by| bound.number.saturating_add(by));
        let mut known = bounds.iter().flat_map(beside).chain([counts.least, counts.most]);
        let is_met = known.any(|count| {
            (counts.least..=counts.most).contains(&count) && bounds.iter().all(|bound| bound.holds(count))
        });
        if is_met || self.parts.is_empty() { Ok(bounds) } else { Err(counts.never()) }
    }
}

const NO_FIELD: &str = "a temporal correlation counts its rules and has no field: for values write value_count";

/// The counts that a correlation may come to.
#[derive(Clone, Copy)]
struct Counts {
    least: i64,
    most: i64,
}

impl Counts {
    fn never(self) -> String {
        let Self { least, most } = self;
        let there_is = if most == i64::MAX {
            format!("what is counted is {least} or more; for what does not come write a rule with NOT EXISTS")
        } else {
            format!("of its rules {least} to {most} are there")
        };
        format!("the condition can never be true: {there_is}")
    }
}

/// One bound of a condition.
struct Bound {
    /// As SQL writes it.
    operator: &'static str,
    number: i64,
}

impl Bound {
    fn holds(&self, count: i64) -> bool {
        match self.operator {
            ">" => count > self.number,
            ">=" => count >= self.number,
            "<" => count < self.number,
            "<=" => count <= self.number,
            "=" => count == self.number,
            _ => count != self.number,
        }
    }
}
