//! What the store keeps of the loaded rules, and the way back: a file that cannot be taken leaves its rule as it was, also when the agent
//! has been started since.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use daemoneye_lib::model::DetectionRule;

use super::super::Refusal;
use super::document::Document;
use super::lists::{Lists, ValueList};
use super::{Loaded, LoadedRule, overrides, parse};
use crate::sql;
use crate::store::{KeptList, RuleText, Store, StoreError};

/// Keeps the texts of these rules, which have their versions, and the lists. Texts that [`LoadedRule::settle`] has dropped are there
/// already.
///
/// # Errors
/// [`StoreError`] when the store cannot be written.
pub fn keep(loaded: &Loaded, store: &Store) -> Result<(), StoreError> {
    let unkept = loaded.rules.iter().filter(|rule| !rule.source.is_empty());
    store.keep_rule_texts(unkept.map(text_of), loaded.lists.iter().map(|list| kept(list)))
}

/// The lists of the last load.
///
/// # Errors
/// [`StoreError`] when the store cannot be read.
pub fn kept_lists(store: &Store) -> Result<Lists, StoreError> {
    let list = |kept: KeptList| ValueList {
        name: kept.name,
        description: kept.description,
        items: kept.items.into(),
        files: kept.files.into_iter().map(PathBuf::from).collect(),
    };
    Ok(store.kept_lists()?.into_iter().map(list).collect())
}

/// The rules of the last load that one of the problems concerns, as they were. `lists` are those of that load.
///
/// # Errors
/// [`StoreError`] when the store cannot be read.
pub fn kept_rules(store: &Store, problems: &[Refusal], lists: &Lists) -> Result<Vec<LoadedRule>, StoreError> {
    if problems.is_empty() {
        return Ok(Vec::new());
    }
    let concerned = |file: &str| problems.iter().any(|problem| problem.concerns(Path::new(file)));
    let mut texts = store.texts_in_force()?;
    texts.retain(|(_, text)| concerned(&text.path) || text.overrides.iter().any(|(file, _)| concerned(file)));
    let again = || texts.iter().filter_map(|(rule, text)| rebuilt(rule, text, lists)).collect();
    Ok(sql::on_large_stack(|| Ok(again())).unwrap_or_else(|_| again()))
}

fn text_of(loaded: &LoadedRule) -> RuleText {
    let path = |path: &Path| path.to_string_lossy().into_owned();
    RuleText {
        rule: loaded.rule.id,
        version: loaded.rule.version,
        hash: loaded.rule.hash.clone(),
        since_us: 0,
        path: path(&loaded.path),
        text: loaded.source.clone(),
        overrides: loaded.overrides.iter().map(|file| (path(&file.path), file.text.clone())).collect(),
        hashed: loaded.hashed.clone(),
    }
}

fn kept(list: &ValueList) -> KeptList {
    KeptList {
        name: list.name.clone(),
        description: list.description.clone(),
        files: list.files.iter().map(|file| file.to_string_lossy().into_owned()).collect(),
        items: list.items.to_vec(),
    }
}

/// `None`: this build takes it no longer, which the problem of its file says anyway.
fn rebuilt(rule: &DetectionRule, text: &RuleText, lists: &Lists) -> Option<LoadedRule> {
    let mut loaded = parse::rule(&Document::new(Path::new(&text.path), &text.text).ok()?, lists).ok()?;
    for (file, text) in &text.overrides {
        let over = overrides::read(&Document::new(Path::new(file), text).ok()?, lists).ok()?;
        over.apply(&mut loaded).ok()?;
    }
    Arc::make_mut(&mut loaded.rule).pack.clone_from(&rule.pack);
    Some(loaded)
}
