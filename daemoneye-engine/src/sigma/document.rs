//! A file of Sigma as its documents, and a document as what it says: the words for people, the log source, the detection.

use std::collections::BTreeSet;

use serde_saphyr::{Location, Spanned};

use super::Reason;
use super::condition::Identifiers;
use super::expr::Expr;
use super::fields::Naming;
use super::leaf;
use super::lists::Lists;
use super::modifiers;
use crate::detect::rules::yaml::{Node, Yaml, read_merged};

/// What a rule says about itself; nothing of it decides an event but the log source.
#[derive(Debug, Clone, Default)]
pub(super) struct Header {
    pub(super) title: String,
    pub(super) id: Option<String>,
    /// The name by which correlations refer to it.
    pub(super) name: Option<String>,
    pub(super) description: String,
    pub(super) author: String,
    pub(super) references: Vec<String>,
    pub(super) tags: Vec<String>,
    pub(super) false_positives: Vec<String>,
    pub(super) level: Option<String>,
    pub(super) status: Option<String>,
    pub(super) category: Option<String>,
    pub(super) product: Option<String>,
    pub(super) service: Option<String>,
}

/// The documents of a file, each with the lines before it left empty, so that places stay those of the file.
pub(super) fn documents(text: &str) -> Vec<String> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let (mut documents, mut current, mut lines) = (Vec::new(), String::new(), 0_usize);
    for line in text.lines() {
        let begins = line.strip_prefix("---").filter(|rest| rest.is_empty() || rest.starts_with([' ', '\t']));
        let is_directed =
            begins.is_some() && is_prologue(&current) && current.lines().any(|line| line.starts_with('%'));
        if line.trim_end() == "..." || (begins.is_some() && !is_directed) {
            documents.push(std::mem::replace(&mut current, "\n".repeat(lines)));
        }
        // What stands behind the mark belongs to the document, and directives end with it.
        let is_mark = begins.map_or(line.trim_end() == "...", |rest| !is_directed && is_blank(rest.trim_start()));
        current.push_str(if is_mark { "" } else { line });
        current.push('\n');
        lines += 1;
    }
    documents.push(current);
    documents.retain(|document| !is_prologue(document));
    documents
}

fn is_blank(line: &str) -> bool {
    line.trim().is_empty() || line.starts_with('#')
}

/// Whether these lines say nothing by themselves: what may stand before a document, directives (`%YAML 1.2`) among it.
fn is_prologue(text: &str) -> bool {
    text.lines().all(|line| is_blank(line) || line.starts_with('%') || line.trim_end() == "---")
}

/// The keys of a file's documents; `None`: none of them can be read.
pub(super) fn keys(text: &str) -> Option<BTreeSet<String>> {
    let read: Vec<Node> = documents(text).iter().filter_map(|document| read_merged(document).ok()).collect();
    let keys = |node: &Node| match &node.value {
        Yaml::Map(pairs) => pairs.iter().map(|(key, _)| key.value.clone()).collect::<Vec<String>>(),
        _ => Vec::new(),
    };
    (!read.is_empty()).then(|| read.iter().flat_map(keys).collect())
}

/// Where a detection first asks for a field.
pub(super) fn asked_for(node: &Node, name: &str) -> Option<Location> {
    match &node.value {
        Yaml::Map(pairs) => pairs.iter().find_map(|(key, value)| {
            let is_field = key.value.split('|').next() == Some(name);
            if is_field { Some(key.referenced) } else { asked_for(value, name) }
        }),
        Yaml::List(items) => items.iter().find_map(|item| asked_for(item, name)),
        _ => None,
    }
}

/// The numbers that a detection asks of a field, wherever.
pub(super) fn numbers(node: &Node, name: &str) -> Vec<i64> {
    match &node.value {
        Yaml::Map(pairs) => {
            let of = |(key, value): &(Spanned<String>, Node)| match key.value.split('|').next() {
                Some(field) if field == name => {
                    texts(node, &key.value).iter().filter_map(|text| leaf::parse_integer(text)).collect()
                }
                _ => numbers(value, name),
            };
            pairs.iter().flat_map(of).collect()
        }
        Yaml::List(items) => items.iter().flat_map(|item| numbers(item, name)).collect(),
        _ => Vec::new(),
    }
}

/// The keywords of a detection, which are values without a field.
pub(super) fn keywords(node: &Node) -> Vec<&Node> {
    let Yaml::Map(pairs) = &node.value else { return Vec::new() };
    let named = pairs.iter().filter(|(key, _)| !matches!(key.value.as_str(), "condition" | "timeframe"));
    named.flat_map(|(_, value)| keywords_of(value)).collect()
}

fn keywords_of(node: &Node) -> Vec<&Node> {
    match &node.value {
        Yaml::Map(pairs) => {
            let unnamed = pairs.iter().filter(|(key, _)| key.value.starts_with('|'));
            unnamed.flat_map(|(_, value)| keywords_of(value)).collect()
        }
        Yaml::List(items) => items.iter().flat_map(keywords_of).collect(),
        _ => vec![node],
    }
}

/// The value of a field of a map.
pub(super) fn field<'a>(node: &'a Node, name: &str) -> Option<&'a Node> {
    match &node.value {
        Yaml::Map(pairs) => pairs.iter().find(|(key, _)| key.value == name).map(|(_, value)| value),
        _ => None,
    }
}

/// Where a key of a map stands.
pub(super) fn key_at(node: &Node, name: &str) -> Option<Location> {
    match &node.value {
        Yaml::Map(pairs) => pairs.iter().find(|(key, _)| key.value == name).map(|(key, _)| key.referenced),
        _ => None,
    }
}

/// A scalar as text; an absent or empty one is none.
pub(super) fn text(node: &Node, name: &str) -> Option<String> {
    scalar(&field(node, name)?.value).filter(|text| !text.trim().is_empty())
}

/// A list of scalars, or one scalar.
pub(super) fn texts(node: &Node, name: &str) -> Vec<String> {
    match field(node, name).map(|node| &node.value) {
        Some(Yaml::List(items)) => items.iter().filter_map(|item| scalar(&item.value)).collect(),
        Some(other) => scalar(other).into_iter().collect(),
        None => Vec::new(),
    }
}

fn scalar(value: &Yaml) -> Option<String> {
    match value {
        Yaml::Text(text) => Some(text.clone()),
        Yaml::Integer(number) => Some(number.written.clone()),
        Yaml::Real(number) => Some(number.written.clone()),
        Yaml::Boolean(value) => Some(value.written.clone()),
        Yaml::List(_) | Yaml::Map(_) | Yaml::Null => None,
    }
}

impl Header {
    pub(super) fn read(node: &Node) -> Self {
        let source = |name: &str| text(field(node, "logsource")?, name).map(|word| word.to_lowercase());
        Self {
            title: text(node, "title").unwrap_or_default(),
            id: text(node, "id"),
            name: text(node, "name"),
            description: text(node, "description").unwrap_or_default(),
            author: texts(node, "author").join(", "),
            references: texts(node, "references"),
            tags: texts(node, "tags"),
            false_positives: texts(node, "falsepositives"),
            level: text(node, "level"),
            status: text(node, "status"),
            category: source("category"),
            product: source("product"),
            service: source("service"),
        }
    }
}

/// The conditions, and the search identifiers that they name.
pub(super) struct Detection {
    pub(super) conditions: Vec<(String, Location)>,
    pub(super) identifiers: Identifiers,
    /// Where the condition stands.
    pub(super) at: Location,
}

impl Detection {
    pub(super) fn read(node: &Node, naming: Naming, lists: &Lists) -> Result<Self, String> {
        let Yaml::Map(pairs) = &node.value else { return Err("detection is a map of search identifiers".to_owned()) };
        let named = pairs.iter().filter(|(key, _)| !matches!(key.value.as_str(), "condition" | "timeframe"));
        let reading = Reading { naming, lists };
        let identifiers =
            named.map(|(key, value)| (key.value.clone(), reading.identifier(&key.value, value))).collect();
        let at = field(node, "condition").map_or(node.referenced, |node| node.referenced);
        let written = field(node, "condition");
        let each: Vec<&Node> = match written.map(|node| &node.value) {
            Some(Yaml::List(items)) => items.iter().collect(),
            _ => written.into_iter().collect(),
        };
        let text = |node: &Node| {
            let wrong = || format!("a condition is text, and this is {}", node.value.kind());
            scalar(&node.value).map(|text| (text, node.referenced)).ok_or_else(wrong)
        };
        let written = each.into_iter().filter(|node| node.value != Yaml::Null);
        let conditions = written.map(text).collect::<Result<_, _>>()?;
        Ok(Self { conditions, identifiers, at })
    }
}

struct Reading<'a> {
    naming: Naming,
    lists: &'a Lists,
}

impl Reading<'_> {
    /// Everything that is wrong with it, where it stands.
    fn identifier(&self, name: &str, node: &Node) -> Result<Expr, Vec<Reason>> {
        let refused = |what: &str| Err(vec![Reason::new(node.referenced, format!("{name}: {what}"))]);
        match &node.value {
            Yaml::Map(pairs) if pairs.is_empty() => refused("the map is empty"),
            Yaml::Map(pairs) => all(pairs.iter().map(|(key, value)| self.item(name, key, value))).map(Expr::All),
            Yaml::List(items) if items.is_empty() => refused("the list is empty"),
            Yaml::List(items) => {
                let (maps, words): (Vec<&Node>, Vec<&Node>) =
                    items.iter().partition(|item| matches!(item.value, Yaml::Map(_) | Yaml::List(_)));
                let keywords = (!words.is_empty()).then(|| self.made(name, node.referenced, "", &[], &words));
                all(maps.into_iter().map(|item| self.identifier(name, item)).chain(keywords)).map(Expr::Any)
            }
            _ => self.made(name, node.referenced, "", &[], &[node]),
        }
    }

    /// `Field|modifier|modifier: value` or a list of values; without a field, keywords.
    fn item(&self, name: &str, key: &Spanned<String>, node: &Node) -> Result<Expr, Vec<Reason>> {
        let mut parts = key.value.split('|');
        let field = parts.next().unwrap_or_default();
        let modifiers: Vec<&str> = parts.collect();
        let whose = format!("{name}: {}", key.value);
        let values: Vec<&Node> = match &node.value {
            Yaml::List(items) if items.is_empty() => {
                return Err(vec![Reason::new(node.referenced, format!("{whose}: the list of values is empty"))]);
            }
            Yaml::List(items) => items.iter().collect(),
            _ => vec![node],
        };
        if field.is_empty() && modifiers.is_empty() {
            return Err(vec![Reason::new(key.referenced, format!("{whose}: a field has no name"))]);
        }
        self.made(&whose, key.referenced, field, &modifiers, &values)
    }

    /// What is wrong with some values is told of each by itself, and what is wrong with all of them of the field.
    fn made(
        &self,
        whose: &str,
        at: Location,
        name: &str,
        modifiers: &[&str],
        values: &[&Node],
    ) -> Result<Expr, Vec<Reason>> {
        let make = |values: &[&Node]| {
            let item = modifiers::apply(at, modifiers, values, self.lists)?;
            if name.is_empty() { leaf::keywords(&item) } else { leaf::field(name, self.naming, &item) }
        };
        make(values).map_err(|problem| {
            let told = |at: Location, problem: &str| Reason::new(at, format!("{whose}: {problem}"));
            if make(&[]).is_err() {
                return vec![told(at, &problem)];
            }
            let wrong = |value: &&Node| make(&[*value]).err().map(|problem| told(value.referenced, &problem));
            let each: Vec<Reason> = values.iter().filter_map(wrong).collect();
            if each.is_empty() { vec![told(at, &problem)] } else { each }
        })
    }
}

/// All of them, or everything that is wrong with any.
fn all(parts: impl Iterator<Item = Result<Expr, Vec<Reason>>>) -> Result<Vec<Expr>, Vec<Reason>> {
    let (mut good, mut problems) = (Vec::new(), Vec::new());
    for part in parts {
        match part {
            Ok(expr) => good.push(expr),
            Err(more) => problems.extend(more),
        }
    }
    if problems.is_empty() { Ok(good) } else { Err(problems) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn documents_keep_their_places() {
        let found = documents("a: 1\n---\nb: 2\nc: |\n  x\n  ---\n--- # next\nd: 3\n");
        assert_eq!(found, ["a: 1\n", "\n\nb: 2\nc: |\n  x\n  ---\n", "\n\n\n\n\n\n\nd: 3\n"]);
        assert_eq!(documents("---\n# nothing\n\n"), Vec::<String>::new());
    }
}
