//! What the events of a correlation have in common: the fields of its `group-by`, each with the column that it is in the events of each
//! rule. An alias may stand for another field in each of them.

use daemoneye_lib::columns::process_event_column;

use super::correlation::Part;
use super::document::{field, texts};
use super::fields::{self, Target};
use crate::detect::rules::yaml::{Node, Yaml};

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
    let aliases = field(node, "aliases");
    let mut groups: Vec<Group> = Vec::new();
    for name in texts(node, "group-by") {
        let alias = aliases.and_then(|aliases| field(aliases, &name));
        let columns = match alias {
            Some(alias) => parts.iter().map(|part| aliased(&name, alias, part)).collect::<Result<Vec<_>, _>>()?,
            None => columns(&name, parts)?,
        };
        if groups.iter().any(|group| group.columns == columns) {
            continue;
        }
        let mut kinds = columns.iter().map(|column| process_event_column(column).map(|column| column.kind));
        let first = kinds.next();
        if kinds.any(|kind| Some(kind) != first) {
            return Err(format!("{name} stands for columns of different kinds: {}", columns.join(", ")));
        }
        let is_free = |column: &&&'static str| !groups.iter().any(|group| group.name == **column);
        let name = *columns.iter().find(is_free).ok_or_else(|| format!("{name} is in group-by twice"))?;
        groups.push(Group { name, columns });
    }
    Ok(groups)
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
