//! Sigma's correlations as window rules: how many events, how many values, which rules in which order, within a time and a group.
//!
//! The windows slide: they end at each event and begin the time span before it. Events without a value in a field of the group
//! belong to no group. Rules that a correlation refers to raise nothing by themselves unless it says `generate`.

use super::document::{field, text, texts};
use super::fields::{self, Target};
use crate::detect::rules::yaml::{Node, Yaml};

/// Most rules of one correlation: each of an ordered one is a join.
const MAX_RULES: usize = 8;
/// Longest time span in seconds: a week, as of rules.
const MAX_SECONDS: i64 = 7 * 24 * 3600;

/// A rule that a correlation may refer to.
pub(super) struct Part {
    pub(super) id: String,
    pub(super) name: Option<String>,
    /// Its condition in SQL; `None`: it was not converted.
    pub(super) condition: Option<String>,
    pub(super) in_security: bool,
}

/// What a correlation became.
pub(super) struct Correlated {
    pub(super) sql: String,
    /// The columns that tell its matches apart.
    pub(super) dedup: Vec<&'static str>,
}

/// A correlation as it is written.
struct Wanted<'a> {
    node: &'a Node,
    parts: Vec<&'a Part>,
    group: Vec<&'static str>,
    seconds: i64,
}

/// Converts the map below `correlation`.
pub(super) fn convert(node: &Node, parts: &[Part]) -> Result<Correlated, String> {
    let named = texts(node, "rules");
    if named.is_empty() || named.len() > MAX_RULES {
        return Err(format!("a correlation is of 1 to {MAX_RULES} rules"));
    }
    let parts: Vec<&Part> = named.iter().map(|name| find(name, parts)).collect::<Result<_, _>>()?;
    let group = group(node, &parts)?;
    let wanted = Wanted { node, group, seconds: seconds(node)?, parts };
    let kind = text(node, "type").unwrap_or_default();
    let sql = match kind.as_str() {
        "event_count" => wanted.counted("count(*)")?,
        "value_count" => wanted.values()?,
        "temporal" => wanted.together()?,
        "temporal_ordered" => wanted.ordered()?,
        "" => return Err("the correlation has no type".to_owned()),
        other => return Err(format!("correlations of the type {other} are not built")),
    };
    Ok(Correlated { sql, dedup: wanted.group })
}

/// The ids of the rules that raise nothing by themselves because a correlation refers to them.
pub(super) fn replaced(node: &Node, parts: &[Part]) -> Vec<String> {
    if matches!(field(node, "generate").map(|node| &node.value), Some(Yaml::Boolean(true))) {
        return Vec::new();
    }
    let named = texts(node, "rules");
    named.iter().filter_map(|name| Some(part(name, parts)?.id.clone())).collect()
}

fn part<'a>(name: &str, parts: &'a [Part]) -> Option<&'a Part> {
    parts.iter().find(|part| part.name.as_deref() == Some(name) || part.id.eq_ignore_ascii_case(name))
}

fn find<'a>(name: &str, parts: &'a [Part]) -> Result<&'a Part, String> {
    let part =
        part(name, parts).ok_or_else(|| format!("the correlation refers to {name}, and there is no such rule"))?;
    if part.condition.is_none() {
        return Err(format!("the correlation refers to {name}, which is a correlation itself or was not converted"));
    }
    Ok(part)
}

/// The columns of `group-by`, with aliases resolved.
fn group(node: &Node, parts: &[&Part]) -> Result<Vec<&'static str>, String> {
    let in_security = parts.iter().all(|part| part.in_security);
    let aliases = field(node, "aliases");
    let mut columns = Vec::new();
    for name in texts(node, "group-by") {
        let fields = match aliases.and_then(|aliases| field(aliases, &name)).map(|alias| &alias.value) {
            Some(Yaml::Map(pairs)) => pairs.iter().map(|(_, field)| scalar(&field.value)).collect::<Result<_, _>>()?,
            _ => vec![name.clone()],
        };
        let mut found = fields.iter().map(|field| column(field, in_security));
        let first = found.next().unwrap_or_else(|| column(&name, in_security))?;
        for other in found {
            if other? != first {
                return Err(format!("the alias {name} stands for different columns, which is not built"));
            }
        }
        if !columns.contains(&first) {
            columns.push(first);
        }
    }
    Ok(columns)
}

fn scalar(value: &Yaml) -> Result<String, String> {
    match value {
        Yaml::Text(text) => Ok(text.clone()),
        other => Err(format!("an alias names fields, and this is {}", other.kind())),
    }
}

fn column(name: &str, in_security: bool) -> Result<&'static str, String> {
    match fields::target(name, in_security) {
        Some(Target::Column(column) | Target::Guid(column)) => Ok(column),
        Some(_) => Err(format!("the field {name} has no column of its own to group or count by")),
        None => Err(format!("no column holds the field {name}")),
    }
}

/// `90s`, `5m`, `1h`, `2d`.
fn seconds(node: &Node) -> Result<i64, String> {
    let span = text(node, "timespan").ok_or("the correlation has no timespan")?;
    let wrong = || format!("the timespan {span} is no number with s, m, h or d behind it");
    let unit = span.chars().last().ok_or_else(wrong)?;
    let number: i64 = span.strip_suffix(unit).and_then(|number| number.parse().ok()).ok_or_else(wrong)?;
    let factor = match unit {
        's' => 1,
        'm' => 60,
        'h' => 3_600,
        'd' => 86_400,
        _ => return Err(wrong()),
    };
    let seconds = number.checked_mul(factor).filter(|seconds| (1..=MAX_SECONDS).contains(seconds));
    seconds.ok_or_else(|| format!("the timespan {span} is not within one second and a week"))
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
        let key: String = self.group.iter().map(|column| format!("{column}, ")).collect();
        let known: String = self.group.iter().map(|column| format!("\n  AND {column} IS NOT NULL")).collect();
        let by = if self.group.is_empty() { String::new() } else { format!("\nGROUP BY {}", self.group.join(", ")) };
        format!(
            "SELECT {key}{counted} AS found, min(time) AS first_time, max(time) AS time\nFROM process_events\n\
             WHERE ({condition}){known}\n  AND {}{by}\nHAVING {having}",
            self.recent()
        )
    }

    fn counted(&self, count: &str) -> Result<String, String> {
        let having = self.bounds(count)?;
        if having.is_empty() {
            return Err("the correlation's condition has no bound".to_owned());
        }
        Ok(self.grouped(count, &self.any(), &having))
    }

    fn values(&self) -> Result<String, String> {
        let condition = field(self.node, "condition");
        let name = condition.and_then(|condition| text(condition, "field"));
        let name = name.ok_or("a value_count needs a field in its condition")?;
        let column = column(&name, self.parts.iter().all(|part| part.in_security))?;
        self.counted(&format!("count(DISTINCT {column})"))
    }

    /// Every rule in the span, or as many of them as the condition says.
    fn together(&self) -> Result<String, String> {
        let each: Vec<String> =
            self.conditions().map(|condition| format!("max(CASE WHEN {condition} THEN 1 ELSE 0 END)")).collect();
        let kinds = each.join(" + ");
        let bounds = self.bounds(&format!("({kinds})"))?;
        let having = if bounds.is_empty() { format!("({kinds}) = {}", each.len()) } else { bounds };
        Ok(self.grouped("count(*)", &self.any(), &having))
    }

    /// Each rule's event not before that of the rule before it, the last within the span of the first.
    fn ordered(&self) -> Result<String, String> {
        if field(self.node, "condition").is_some() {
            return Err("a condition of a temporal_ordered correlation is not built: all rules are needed".to_owned());
        }
        let selected: String = self.group.iter().map(|column| format!(", {column}")).collect();
        let mut from = String::new();
        for (at, condition) in self.conditions().enumerate() {
            let rows = format!(
                "(SELECT time{selected} FROM process_events WHERE ({condition}) AND {}) AS e{at}",
                self.recent()
            );
            if let Some(before) = at.checked_sub(1) {
                let same: String =
                    self.group.iter().map(|column| format!(" AND e{at}.{column} = e0.{column}")).collect();
                let span = format!("e{at}.time <= e0.time + INTERVAL '{} seconds'", self.seconds);
                from.push_str(&format!("\nJOIN {rows}\n  ON e{at}.time >= e{before}.time AND {span}{same}"));
            } else {
                from.push_str(&rows);
            }
        }
        let key: String = self.group.iter().map(|column| format!("e0.{column} AS {column}, ")).collect();
        let last = self.parts.len().saturating_sub(1);
        Ok(format!("SELECT {key}e0.time AS first_time, e{last}.time AS time\nFROM {from}"))
    }

    /// The bounds of the condition over a count; several are an AND.
    fn bounds(&self, count: &str) -> Result<String, String> {
        let Some(condition) = field(self.node, "condition") else { return Ok(String::new()) };
        let Yaml::Map(pairs) = &condition.value else {
            return Err("the condition of a correlation is a map of bounds".to_owned());
        };
        let mut bounds = Vec::new();
        for (key, value) in pairs {
            let operator = match key.value.as_str() {
                "field" => continue,
                "gt" => ">",
                "gte" => ">=",
                "lt" => "<",
                "lte" => "<=",
                "eq" => "=",
                "neq" => "<>",
                other => return Err(format!("the correlation's condition has {other}, which is no bound")),
            };
            let Yaml::Integer(number) = value.value else {
                return Err(format!("the bound {} is {}, not a whole number", key.value, value.value.kind()));
            };
            bounds.push(format!("{count} {operator} {number}"));
        }
        Ok(bounds.join(" AND "))
    }
}
