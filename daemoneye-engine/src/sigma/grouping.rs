//! What the events of a correlation have in common: the fields of its `group-by`, each with the column that it is in the events of each
//! rule. An alias may stand for another field in each of them.

use daemoneye_lib::columns::process_event_column;

use super::correlation::Part;
use super::document::{field, texts};
use super::fields::{self, Target};
use crate::detect::rules::yaml::{Node, Yaml};

/// Names of groups whose columns are the names of others: a name stands once in an answer.
const FURTHER: [&str; 8] = ["group_1", "group_2", "group_3", "group_4", "group_5", "group_6", "group_7", "group_8"];

/// One field of `group-by`.
pub(super) struct Group {
    /// What the rule's answer calls it.
    pub(super) name: &'static str,
    /// Its column in the events of each rule, in their order.
    pub(super) columns: Vec<&'static str>,
}

impl Group {
    /// Whether it is one column, whatever the rule.
    pub(super) fn is_one_column(&self) -> bool {
        self.columns.iter().all(|column| *column == self.name)
    }
}

/// The fields of `group-by`, with aliases resolved.
pub(super) fn groups(node: &Node, parts: &[&Part]) -> Result<Vec<Group>, String> {
    if parts.is_empty() {
        return Ok(Vec::new());
    }
    let aliases = field(node, "aliases");
    let mut each: Vec<Vec<&'static str>> = Vec::new();
    for name in texts(node, "group-by") {
        let alias = aliases.and_then(|aliases| field(aliases, &name));
        let columns = match alias {
            Some(alias) => parts.iter().map(|part| aliased(&name, alias, part)).collect::<Result<Vec<_>, _>>()?,
            None => columns(&name, parts)?,
        };
        let mut kinds = columns.iter().map(|column| process_event_column(column).map(|column| column.kind));
        let first = kinds.next();
        if kinds.any(|kind| Some(kind) != first) {
            return Err(format!("{name} stands for columns of different kinds: {}", columns.join(", ")));
        }
        if !each.contains(&columns) {
            each.push(columns);
        }
    }
    named(each)
}

/// Gives each group a name of its own, in whatever order they stand: what is one column is called by it, and the others by what is left.
fn named(each: Vec<Vec<&'static str>>) -> Result<Vec<Group>, String> {
    let one = |columns: &[&'static str]| match columns {
        [first, rest @ ..] if rest.iter().all(|column| column == first) => Some(*first),
        _ => None,
    };
    let mut taken: Vec<&'static str> = each.iter().filter_map(|columns| one(columns)).collect();
    let mut name = |columns: &[&'static str]| {
        let name = one(columns).or_else(|| {
            let free = columns.iter().chain(&FURTHER).find(|name| !taken.contains(*name)).copied();
            taken.extend(free);
            free
        });
        name.ok_or_else(|| format!("group-by has more than {} aliases of the same columns", FURTHER.len()))
    };
    each.into_iter().map(|columns| Ok(Group { name: name(&columns)?, columns })).collect()
}

/// The column of a field in the events of each rule.
pub(super) fn columns(name: &str, parts: &[&Part]) -> Result<Vec<&'static str>, String> {
    parts.iter().map(|part| column(name, part.in_security)).collect()
}

fn aliased(name: &str, alias: &Node, part: &Part) -> Result<&'static str, String> {
    let Yaml::Map(pairs) = &alias.value else {
        return Err(format!("the alias {name} is {}, and a map of rules and fields is needed", alias.value.kind()));
    };
    let Some((_, named)) = pairs.iter().find(|(rule, _)| part.is_called(&rule.value)) else {
        return Err(format!("the alias {name} names no field of the rule {}", part.called()));
    };
    match &named.value {
        Yaml::Text(named) => column(named, part.in_security),
        other => Err(format!("the alias {name} names fields, and this is {}", other.kind())),
    }
}

fn column(name: &str, in_security: bool) -> Result<&'static str, String> {
    match fields::target(name, in_security) {
        Some(Target::Column(column) | Target::Guid(column)) => Ok(column),
        Some(_) => Err(format!("the field {name} has no column of its own to group or count by")),
        None => Err(format!("no column holds the field {name}")),
    }
}
