//! The fields of a YAML map, each read with its kind, and every problem with its place.

use std::path::Path;

use serde_saphyr::{Location, Spanned};

use super::super::Refusal;
use super::document::Document;
use super::lists::Lists;
use super::yaml::{self, Node, Yaml};
use crate::sql::names::nearest;

/// Reads fields and collects what is wrong with them.
pub(super) struct Reader<'a> {
    pub(super) file: &'a Path,
    pub(super) source: &'a str,
    /// What the SQL of the file may name.
    pub(super) lists: &'a Lists,
    pub(super) problems: Vec<Refusal>,
}

impl<'a> Reader<'a> {
    pub(super) fn new(document: &'a Document, lists: &'a Lists) -> Self {
        Self { file: &document.file, source: &document.text, lists, problems: Vec::new() }
    }

    /// What was read, if nothing is wrong with the file; else every problem in the order of the file.
    pub(super) fn finish<T>(mut self, read: Option<T>) -> Result<T, Vec<Refusal>> {
        match read {
            Some(read) if self.problems.is_empty() => Ok(read),
            _ => {
                self.problems.sort_by_key(|problem| (problem.line, problem.column));
                Err(self.problems)
            }
        }
    }
}

impl Reader<'_> {
    pub(super) fn refuse(&mut self, at: Location, message: impl Into<String>, hint: Option<String>) {
        let (line, column) = (at.line(), at.column());
        self.problems.push(Refusal { file: self.file.to_owned(), line, column, message: message.into(), hint });
    }

    pub(super) fn known_keys(&mut self, pairs: &[(Spanned<String>, Node)], known: &[&str], whose: &str) {
        for (key, _) in pairs {
            if !known.contains(&key.value.as_str()) {
                let hint = nearest(&key.value, known.iter().copied())
                    .map_or_else(|| format!("known are {}", known.join(", ")), |near| format!("did you mean {near}?"));
                self.refuse(key.referenced, format!("{whose} has no field {}", key.value), Some(hint));
            }
        }
    }

    pub(super) fn required_text(&mut self, fields: &Fields<'_>, name: &str) -> Option<String> {
        if fields.of(name).is_none() {
            self.refuse(fields.at, format!("the field {name} is missing"), None);
            return None;
        }
        let text = self.text(fields, name);
        (!text.is_empty()).then_some(text)
    }

    pub(super) fn text(&mut self, fields: &Fields<'_>, name: &str) -> String {
        match fields.of(name) {
            None => String::new(),
            Some(Spanned { value: Yaml::Text(text), referenced, .. }) => {
                let text = text.trim_end();
                if text.is_empty() {
                    self.refuse(*referenced, format!("{name} is empty"), None);
                }
                text.to_owned()
            }
            Some(node) => {
                self.wrong(node, name, "text");
                String::new()
            }
        }
    }

    pub(super) fn texts(&mut self, fields: &Fields<'_>, name: &str) -> Vec<String> {
        let Some(node) = fields.of(name) else { return Vec::new() };
        let Yaml::List(items) = &node.value else {
            self.wrong(node, name, "a list");
            return Vec::new();
        };
        let mut texts = Vec::with_capacity(items.len());
        for item in items {
            match &item.value {
                Yaml::Text(text) => texts.push(text.clone()),
                _ => self.wrong(item, name, "a list of text"),
            }
        }
        texts
    }

    pub(super) fn boolean(&mut self, fields: &Fields<'_>, name: &str, default: bool) -> bool {
        match fields.of(name) {
            None => default,
            Some(Spanned { value: Yaml::Boolean(typed), .. }) => typed.value,
            Some(node) => {
                let word = if let Yaml::Text(text) = &node.value { yaml::truth(text) } else { None };
                word.unwrap_or_else(|| {
                    self.wrong(node, name, "true or false");
                    default
                })
            }
        }
    }

    pub(super) fn wrong(&mut self, node: &Node, name: &str, wanted: &str) {
        let hint = (wanted == "text").then(|| "put it in quotes".to_owned());
        self.refuse(node.referenced, format!("{name} is {wanted}, and this is {}", node.value.kind()), hint);
    }
}

/// The pairs of a map by name.
pub(super) struct Fields<'a> {
    pub(super) pairs: &'a [(Spanned<String>, Node)],
    pub(super) at: Location,
}

impl<'a> Fields<'a> {
    pub(super) fn of(&self, name: &str) -> Option<&'a Node> {
        self.pairs.iter().find(|(key, _)| key.value == name).map(|(_, value)| value)
    }

    pub(super) fn key_place(&self, name: &str) -> Location {
        self.pairs.iter().find(|(key, _)| key.value == name).map_or(self.at, |(key, _)| key.referenced)
    }

    pub(super) fn place(&self, name: &str) -> Location {
        self.of(name).map_or(self.at, |node| node.referenced)
    }
}
