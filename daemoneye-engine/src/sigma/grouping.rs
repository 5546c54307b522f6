//! What the events of a correlation have in common: the fields of its `group-by`, each with the column that it is in the events of each
//! rule. An alias may stand for another field in each of them.

use std::rc::Rc;

use daemoneye_lib::columns::{Kind, process_event_column};

use super::correlation::{Correlation, Matches, Part};
use super::document::{field, texts};
use super::fields::{self, Naming, OF_ONE_EVENT, Target};
use crate::detect::rules::yaml::{Node, Yaml};

/// Names of groups whose columns are the names of others: a name stands once in an answer.
const FURTHER: [&str; 8] = ["group_1", "group_2", "group_3", "group_4", "group_5", "group_6", "group_7", "group_8"];

/// Groups, and the fields of `group-by` as they are written, each with the place of its group.
pub(super) type Grouped = (Vec<Group>, Vec<(String, usize)>);

/// One field of `group-by`.
pub(super) struct Group {
    /// What the rule's answer calls it.
    pub(super) name: &'static str,
    /// Its column in the matches of each rule, in their order.
    pub(super) columns: Vec<&'static str>,
    kind: Option<Kind>,
}

impl Group {
    /// Whether it is one column, whatever the rule.
    pub(super) fn is_one_column(&self) -> bool {
        self.columns.iter().all(|column| *column == self.name)
    }
}

/// The fields of `group-by`, with aliases resolved.
pub(super) fn groups(node: &Node, parts: &[Rc<Part>]) -> Result<Grouped, String> {
    let (mut each, mut fields): (Vec<Found>, Vec<(String, usize)>) = Default::default();
    if parts.is_empty() {
        return Ok(Default::default());
    }
    let aliases = field(node, "aliases");
    for name in texts(node, "group-by") {
        let alias = aliases.and_then(|aliases| field(aliases, &name));
        let of = |part: &Rc<Part>| match alias {
            Some(alias) => aliased(&name, alias, part),
            None => column(&name, part),
        };
        let (columns, kinds): (Vec<_>, Vec<_>) =
            parts.iter().map(of).collect::<Result<Vec<_>, _>>()?.into_iter().unzip();
        let kind = kinds.first().copied().flatten();
        if kinds.iter().any(|other| *other != kind) {
            return Err(format!("{name} stands for columns of different kinds: {}", columns.join(", ")));
        }
        let place = each.iter().position(|(known, _)| *known == columns).unwrap_or_else(|| {
            each.push((columns, kind));
            each.len().saturating_sub(1)
        });
        fields.push((name, place));
    }
    Ok((named(each)?, fields))
}

/// A column of the matches of each rule, and of which kind they are.
type Found = (Vec<&'static str>, Option<Kind>);

/// Gives each group a name of its own, in whatever order they stand: what is one column is called by it, and the others by what is left.
fn named(each: Vec<Found>) -> Result<Vec<Group>, String> {
    let one = |columns: &[&'static str]| match columns {
        [first, rest @ ..] if rest.iter().all(|column| column == first) => Some(*first),
        _ => None,
    };
    let mut taken: Vec<&'static str> = each.iter().filter_map(|(columns, _)| one(columns)).collect();
    let mut name = |columns: &[&'static str]| {
        let name = one(columns).or_else(|| {
            let free = columns.iter().chain(&FURTHER).find(|name| !taken.contains(*name)).copied();
            taken.extend(free);
            free
        });
        name.ok_or_else(|| format!("group-by has more than {} aliases of the same columns", FURTHER.len()))
    };
    each.into_iter().map(|(columns, kind)| Ok(Group { name: name(&columns)?, columns, kind })).collect()
}

/// The column of a field in the matches of each rule.
pub(super) fn columns(name: &str, parts: &[Rc<Part>]) -> Result<Vec<&'static str>, String> {
    parts.iter().map(|part| Ok(column(name, part)?.0)).collect()
}

fn aliased(name: &str, alias: &Node, part: &Part) -> Result<(&'static str, Option<Kind>), String> {
    let Yaml::Map(pairs) = &alias.value else {
        return Err(format!("the alias {name} is {}, and a map of rules and fields is needed", alias.value.kind()));
    };
    let Some((_, named)) = pairs.iter().find(|(rule, _)| part.is_called(&rule.value)) else {
        return Err(format!("the alias {name} names no field of the rule {}", part.called()));
    };
    match &named.value {
        Yaml::Text(named) => column(named, part),
        other => Err(format!("the alias {name} names fields, and this is {}", other.kind())),
    }
}

/// Of an event any field that is a column; of what a correlation finds what its matches have in common, or else what the event has that
/// completed each.
fn column(name: &str, part: &Part) -> Result<(&'static str, Option<Kind>), String> {
    let naming = match &part.matches {
        Matches::Correlated(of) => {
            let place = of.fields.iter().find(|(field, _)| field == name).map(|(_, place)| *place);
            return match place.and_then(|place| of.groups.get(place)) {
                Some(group) => Ok((group.name, group.kind)),
                None => of_last(name, of, part),
            };
        }
        Matches::Events { naming, .. } => *naming,
        Matches::Nothing | Matches::Later => Naming::Sysmon,
    };
    if naming == Naming::CreatedOrExited && OF_ONE_EVENT.contains(&name) {
        return Err(format!(
            "{name} is no one column in what {} finds, as events 4688 and 4689 have other ones: let that ask for one EventID",
            part.called()
        ));
    }
    match fields::target(name, naming) {
        Some(Target::Column(column) | Target::Guid(column)) => {
            Ok((column, process_event_column(column).map(|column| column.kind)))
        }
        Some(_) => Err(format!("the field {name} has no column of its own to group or count by")),
        None => Err(format!("no column holds the field {name}")),
    }
}

/// The column of a field in the last event of what a correlation finds, whichever of its rules that fits.
fn of_last(name: &str, of: &Correlation, part: &Part) -> Result<(&'static str, Option<Kind>), String> {
    let found: Vec<_> = of.parts.iter().map(|part| column(name, part)).collect::<Result<_, _>>()?;
    let is_taken = |column: &str| of.groups.iter().any(|group| group.name == column && !group.is_one_column());
    match found.as_slice() {
        [first, rest @ ..] if rest.iter().all(|other| other == first) => match first.0 {
            taken if is_taken(taken) => Err(format!(
                "{name} is the column {taken}, by which the correlation {} calls the group of an alias, since that is its field in its \
                 first rule: name its rules in another order",
                part.called()
            )),
            _ => Ok(*first),
        },
        _ => Err(format!(
            "{name} is not in the group-by of the correlation {}, and is no one column of what its rules find: name a field that is the \
             same column in all of them",
            part.called()
        )),
    }
}
