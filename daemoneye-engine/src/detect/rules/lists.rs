//! Named sets of values, which rules use as `x IN (list('web_servers'))`.
//!
//! A list of a later directory stands in place of an earlier one's with the same name, or adds to it (`extends: true`), so that
//! what a vendor ships is never edited.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;

use serde_json::Value;

use super::super::Refusal;
use super::document::Document;
use super::part;
use super::reader::{Fields, Reader};
use super::yaml::{Node, Yaml};
use crate::sql::lists::{ListItem, ValueLists};
use crate::sql::names::nearest;

const FIELDS: &[&str] = &["list", "description", "values", "extends"];

/// Most values of one list, its extensions included: a rule that names it compiles to as many literals.
pub const MAX_LIST_VALUES: usize = 10_000;

/// One list, its extensions included.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ValueList {
    /// The name in SQL.
    pub name: String,
    /// What its values are.
    pub description: String,
    /// Each value once, in the order of the files.
    pub items: Arc<[ListItem]>,
    /// The files that it was read from, the first one first.
    pub files: Vec<PathBuf>,
}

/// The lists by name.
#[derive(Debug, Clone, Default)]
pub struct Lists(BTreeMap<String, Arc<ValueList>>);

/// A file's list before it meets those of other files.
pub(super) struct Told {
    list: ValueList,
    extends: bool,
    /// Of its name.
    place: (u64, u64),
}

impl Lists {
    /// Every list, by name.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<ValueList>> {
        self.0.values()
    }

    /// The list of that name.
    #[must_use]
    pub fn named(&self, name: &str) -> Option<&Arc<ValueList>> {
        self.0.get(name)
    }

    /// Those of these names.
    pub(super) fn only(&self, names: &BTreeSet<String>) -> Self {
        Self(names.iter().filter_map(|name| Some((name.clone(), Arc::clone(self.0.get(name)?)))).collect())
    }

    /// A list of `before` stays as it was while something is wrong with one of its files.
    pub(super) fn keep(&mut self, before: &Self, problems: &[Refusal]) {
        let is_broken = |file: &PathBuf| problems.iter().any(|problem| problem.concerns(file));
        for list in before.iter().filter(|list| list.files.iter().any(is_broken)) {
            self.0.insert(list.name.clone(), Arc::clone(list));
        }
    }

    /// The lists of one directory over those of earlier ones: first what replaces, then what extends.
    pub(super) fn take(&mut self, told: Vec<Told>, problems: &mut Vec<Refusal>) {
        let (extensions, whole): (Vec<_>, Vec<_>) = told.into_iter().partition(|told| told.extends);
        let mut of_this_dir: BTreeMap<String, PathBuf> = BTreeMap::new();
        for told in whole {
            let file = told.file();
            if let Some(first) = of_this_dir.get(&told.list.name) {
                let message = format!("the list {} also stands in {}", told.list.name, first.display());
                problems
                    .push(told.refusal(message, Some("give one of them another name, or write extends: true".into())));
                continue;
            }
            of_this_dir.insert(told.list.name.clone(), file);
            self.0.insert(told.list.name.clone(), Arc::new(told.list));
        }
        extensions.into_iter().for_each(|told| self.extend(&told, problems));
    }

    fn extend(&mut self, told: &Told, problems: &mut Vec<Refusal>) {
        let name = &told.list.name;
        let Some(base) = self.0.get(name) else {
            let message = format!("there is no list {name} to extend");
            return problems.push(told.refusal(message, Some(self.instead(name))));
        };
        let mut list = ValueList::clone(base);
        let mut seen: BTreeSet<ListItem> = base.items.iter().cloned().collect();
        let fresh = told.list.items.iter().filter(|item| seen.insert((*item).clone()));
        list.items = base.items.iter().chain(fresh).cloned().collect();
        list.files.extend(told.list.files.iter().cloned());
        if list.items.len() > MAX_LIST_VALUES {
            let message = format!("with this the list {name} has more than {MAX_LIST_VALUES} values");
            return problems.push(told.refusal(message, Some("split it into several lists".into())));
        }
        self.0.insert(name.clone(), Arc::new(list));
    }
}

impl Told {
    pub(super) fn name(&self) -> &str {
        &self.list.name
    }

    fn file(&self) -> PathBuf {
        self.list.files.first().cloned().unwrap_or_default()
    }

    fn refusal(&self, message: String, hint: Option<String>) -> Refusal {
        let (line, column) = self.place;
        Refusal { file: self.file(), line, column, message, hint }
    }
}

impl FromIterator<ValueList> for Lists {
    fn from_iter<T: IntoIterator<Item = ValueList>>(lists: T) -> Self {
        Self(lists.into_iter().map(|list| (list.name.clone(), Arc::new(list))).collect())
    }
}

impl ValueLists for Lists {
    fn items(&self, name: &str) -> Option<Arc<[ListItem]>> {
        self.0.get(name).map(|list| Arc::clone(&list.items))
    }

    fn instead(&self, name: &str) -> String {
        match nearest(name, self.0.keys().map(String::as_str)) {
            Some(near) => format!("did you mean {near}?"),
            None if self.0.is_empty() => "no list is loaded: a file with list: and values: makes one".to_owned(),
            None => format!("the lists are {}", self.0.keys().map(String::as_str).collect::<Vec<_>>().join(", ")),
        }
    }
}

pub(super) fn json(items: &[ListItem]) -> Value {
    let value = |item: &ListItem| match item {
        ListItem::Integer(number) => Value::from(*number),
        ListItem::Text(text) => Value::from(text.as_str()),
    };
    items.iter().map(value).collect()
}

/// Reads the file of a list.
pub(super) fn read(document: &Document) -> Result<Told, Vec<Refusal>> {
    let lists = Lists::default();
    let mut reader = Reader::new(document, &lists);
    let told = reader.list(&document.root);
    reader.finish(told)
}

impl Reader<'_> {
    fn list(&mut self, root: &Node) -> Option<Told> {
        let Yaml::Map(pairs) = &root.value else { return None };
        self.known_keys(pairs, FIELDS, "a list");
        let fields = Fields { pairs, at: root.referenced };
        let name = self.required_text(&fields, "list")?;
        let at = fields.place("list");
        let plain =
            |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || matches!(byte, b'_' | b'-' | b'.');
        if !name.bytes().all(plain) {
            let hint = "write it like web_servers: small letters, digits and _ - .";
            self.refuse(at, format!("{name} is no name of a list"), Some(hint.into()));
        }
        let (description, extends) = (self.text(&fields, "description"), self.boolean(&fields, "extends", false));
        let items = self.items(&fields);
        let list = ValueList { name, description, items: items.into(), files: vec![self.file.to_owned()] };
        Some(Told { list, extends, place: (at.line(), at.column()) })
    }

    fn items(&mut self, fields: &Fields<'_>) -> Vec<ListItem> {
        let Some(node) = fields.of("values") else {
            self.refuse(fields.at, "the field values is missing", Some("an empty list is values: []".into()));
            return Vec::new();
        };
        let Yaml::List(nodes) = &node.value else {
            self.wrong(node, "values", "a list");
            return Vec::new();
        };
        if nodes.len() > MAX_LIST_VALUES {
            let message = format!("there are {} values, and a list has at most {MAX_LIST_VALUES}", nodes.len());
            self.refuse(node.referenced, message, Some("split it into several lists".into()));
        }
        let mut seen = BTreeSet::new();
        nodes.iter().filter_map(|node| self.item(node)).filter(|item| seen.insert(item.clone())).collect()
    }

    fn item(&mut self, node: &Node) -> Option<ListItem> {
        match &node.value {
            Yaml::Text(text) => Some(ListItem::Text(text.clone())),
            Yaml::Integer(number) => Some(ListItem::Integer(number.value)),
            other => {
                let message = format!("a value is text or a whole number, and this is {}", other.kind());
                self.refuse(node.referenced, message, Some("put it in quotes".into()));
                None
            }
        }
    }
}

impl ValueList {
    /// The values as a JSON array.
    #[must_use]
    pub fn json(&self) -> String {
        json(&self.items).to_string()
    }

    /// The last parts of the files' paths, comma-separated.
    #[must_use]
    pub fn file_names(&self) -> String {
        self.files.iter().map(|file| part(Some(file))).collect::<Vec<_>>().join(",")
    }
}
