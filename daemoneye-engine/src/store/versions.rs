//! What each version of a rule said, and the value lists in force: an alert's rule can be read after the rule has changed, and a rule
//! whose file cannot be read at a start runs as it ran before.

use std::collections::BTreeSet;

use daemoneye_lib::model::{DetectionRule, RuleState};
use redb::{ReadableTable as _, Table, WriteTransaction};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::state::{RULE_LISTS, RULE_VERSIONS, key};
use super::value::{Record, Stored};
use super::{Store, StoreError, audit};
use crate::sql::lists::ListItem;

/// Versions of one rule; the oldest goes first. Rules are edited some times a year, and one that is tuned some times a day.
const VERSIONS_KEPT: usize = 16;

/// Bytes of all versions of one rule beside the newest: with its lists a version can have a megabyte.
const VERSION_BYTES_KEPT: usize = 1024 * 1024;

/// One version of a rule, as its files had it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RuleText {
    /// Which rule.
    pub rule: Uuid,
    /// Which version of it.
    pub version: u32,
    /// The hash that its alerts have.
    pub hash: String,
    /// When it was first loaded, µs since the Unix epoch.
    pub since_us: i64,
    /// The rule's file.
    pub path: String,
    /// What that held.
    pub text: String,
    /// The files that override it, each with what it held, in their order.
    pub overrides: Vec<(String, String)>,
    /// The parts that its hash is over.
    pub hashed: Vec<String>,
}

/// A value list as rules had it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeptList {
    /// What rules call it.
    pub name: String,
    /// What its values are.
    pub description: String,
    /// The files that it was made of.
    pub files: Vec<String>,
    /// Its values.
    pub items: Vec<ListItem>,
}

impl Record for RuleText {
    const NAME: &'static str = "rule_versions";
}
impl Record for KeptList {
    const NAME: &'static str = "rule_lists";
}

impl Store {
    /// Keeps the texts of the loaded rules, whose versions [`Store::set_rules`] has given, and their lists in place of those kept before.
    ///
    /// # Errors
    /// [`StoreError`] when `state.redb` fails or a kept text cannot be read.
    pub fn keep_rule_texts(
        &self,
        texts: impl Iterator<Item = RuleText>,
        lists: impl Iterator<Item = KeptList>,
    ) -> Result<(), StoreError> {
        let now_us = audit::now_us();
        self.state.write(|transaction| {
            let mut table = transaction.open_table(RULE_VERSIONS)?;
            for text in texts {
                keep(&mut table, text, now_us)?;
            }
            keep_lists(transaction, lists)
        })
    }

    /// What a version of a rule said; `None`: it is not kept, or not any more.
    ///
    /// # Errors
    /// [`StoreError`] when `state.redb` fails or the text cannot be read.
    pub fn rule_text(&self, rule: Uuid, version: u32) -> Result<Option<RuleText>, StoreError> {
        let table = self.state.read()?.open_table(RULE_VERSIONS)?;
        table.get((key(rule), version))?.map(|stored| stored.value().decode()).transpose()
    }

    /// Every version that is kept, by rule and version.
    ///
    /// # Errors
    /// [`StoreError`] when `state.redb` fails or a text cannot be read.
    pub fn rule_texts(&self) -> Result<Vec<RuleText>, StoreError> {
        self.state_view()?.rule_texts()?.collect()
    }

    /// The value lists of the last load.
    ///
    /// # Errors
    /// [`StoreError`] when `state.redb` fails or a list cannot be read.
    pub fn kept_lists(&self) -> Result<Vec<KeptList>, StoreError> {
        let table = self.state.read()?.open_table(RULE_LISTS)?;
        table.iter()?.map(|entry| entry?.1.value().decode()).collect()
    }

    /// The versions of the rules that are loaded, each with the rule as it was in force.
    ///
    /// # Errors
    /// [`StoreError`] when `state.redb` fails or a rule cannot be read.
    pub fn texts_in_force(&self) -> Result<Vec<(DetectionRule, RuleText)>, StoreError> {
        let mut found = Vec::new();
        for rule in self.rules()?.into_iter().filter(|rule| rule.state != RuleState::Archived) {
            let text = self.rule_text(rule.id, rule.version)?;
            found.extend(text.map(|text| (rule, text)));
        }
        Ok(found)
    }
}

type Versions<'t> = Table<'t, (u128, u32), Stored<RuleText>>;

fn keep(table: &mut Versions<'_>, text: RuleText, now_us: i64) -> Result<(), StoreError> {
    let at = (key(text.rule), text.version);
    let kept = table.get(at)?.map(|stored| stored.value().decode()).transpose()?;
    let text = RuleText { since_us: kept.as_ref().map_or(now_us, |kept| kept.since_us), ..text };
    if kept.as_ref() == Some(&text) {
        return Ok(());
    }
    table.insert(at, text.encode()?)?;
    let (mut versions, mut bytes, mut old) = (0_usize, 0_usize, Vec::new());
    for entry in table.range((at.0, 0)..=(at.0, u32::MAX))?.rev() {
        let (place, stored) = entry?;
        versions = versions.saturating_add(1);
        if versions > VERSIONS_KEPT || bytes > VERSION_BYTES_KEPT {
            old.push(place.value());
        } else if versions > 1 {
            bytes = bytes.saturating_add(stored.value().len());
        }
    }
    for place in old {
        table.remove(place)?;
    }
    Ok(())
}

fn keep_lists(transaction: &WriteTransaction, lists: impl Iterator<Item = KeptList>) -> Result<(), StoreError> {
    let mut table = transaction.open_table(RULE_LISTS)?;
    let mut stay = BTreeSet::new();
    for list in lists {
        let kept = table.get(list.name.as_str())?.map(|stored| stored.value().decode()).transpose()?;
        if kept.as_ref() != Some(&list) {
            table.insert(list.name.as_str(), list.encode()?)?;
        }
        stay.insert(list.name);
    }
    table.retain(|name, _| stay.contains(name))?;
    Ok(())
}
