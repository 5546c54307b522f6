//! One file by itself, before it lies in a rule directory.

use std::path::Path;

use uuid::Uuid;

use super::super::Refusal;
use super::document::{Document, Kind};
use super::lists::{self, Lists};
use super::overrides::Told;
use super::{LoadedRule, load, overrides, packs, parse};

/// What a file is, when nothing is wrong with it.
#[derive(Debug)]
pub enum Checked {
    /// A list of that name.
    List(String),
    /// An override of that rule, which is looked for where somebody knows the rules.
    Override(Uuid),
    /// The manifest of a pack of that name.
    Pack(String),
    /// A rule.
    Rule(Box<LoadedRule>),
}

/// Reads one file of a rule directory; its SQL may name `lists`.
///
/// # Errors
/// Every problem of the file, each with its place.
pub fn check_file(file: &Path, text: &str, lists: &Lists) -> Result<Checked, Vec<Refusal>> {
    checked(file, text, lists, Told::default(), None)
}

/// [`check_file`] beside the files of its directory that come before it, and the `rules` that an override may be of; `None`: nobody
/// knows them.
///
/// # Errors
/// As [`check_file`]; two exceptions of one condition are problems too, and so is an override of a rule that is not there.
pub fn check_file_after<'a>(
    file: &Path,
    text: &str,
    lists: &Lists,
    before: impl Iterator<Item = (&'a Path, &'a str)>,
    rules: Option<&[LoadedRule]>,
) -> Result<Checked, Vec<Refusal>> {
    let mut told = Told::default();
    let documents = before.filter_map(|(file, text)| Document::new(file, text).ok());
    for document in documents.filter(|document| document.kind == Kind::Override) {
        // What is wrong there is told where that file is checked.
        let _own = overrides::read(&document, lists).and_then(|over| told.take(&over));
    }
    checked(file, text, lists, told, rules)
}

fn checked(
    file: &Path,
    text: &str,
    lists: &Lists,
    mut before: Told,
    rules: Option<&[LoadedRule]>,
) -> Result<Checked, Vec<Refusal>> {
    load::bounded(file, text)?;
    let document = Document::new(file, text)?;
    Ok(match document.kind {
        Kind::List => Checked::List(lists::read(&document)?.name().to_owned()),
        Kind::Override => {
            let over = overrides::read(&document, lists)?;
            before.take(&over)?;
            if let Some(rules) = rules.filter(|rules| rules.iter().all(|loaded| loaded.rule.id != over.rule)) {
                return Err(vec![over.without_rule(rules.iter())]);
            }
            Checked::Override(over.rule)
        }
        Kind::Pack => Checked::Pack(packs::read(&document)?.name),
        Kind::Rule => Checked::Rule(Box::new(parse::rule(&document, lists)?)),
    })
}

/// The lists, and over them those of the files that are lists and in order.
pub fn lists_with<'a>(lists: &Lists, files: impl Iterator<Item = (&'a Path, &'a str)>) -> Lists {
    let documents = files.filter_map(|(file, text)| Document::new(file, text).ok());
    let told = documents.filter(|document| document.kind == Kind::List);
    let mut lists = lists.clone();
    lists.take(told.filter_map(|document| lists::read(&document).ok()).collect(), &mut Vec::new());
    lists
}
