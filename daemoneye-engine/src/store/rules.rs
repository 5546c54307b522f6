//! The rules that are loaded, with the version that the store gives each.

use std::collections::{HashMap, HashSet};

use daemoneye_lib::model::{DetectionRule, RuleState};
use redb::{ReadableTable as _, WriteTransaction};
use serde_json::json;
use uuid::Uuid;

use super::state::{RULES, key};
use super::value::Record as _;
use super::{Store, StoreError, audit};

impl Store {
    /// Makes `rules` the loaded set and returns it with versions: 1 for a new rule, one more than before when the hash of
    /// its text has changed. Rules that are no longer there are archived, since their alerts refer to them. Every change is
    /// an audit entry.
    ///
    /// # Errors
    /// [`StoreError`] when `state.redb` fails or a stored rule cannot be read.
    pub fn set_rules(&self, rules: Vec<DetectionRule>) -> Result<Vec<DetectionRule>, StoreError> {
        let room = self.options.audit_entries;
        self.state.write(|transaction| {
            let before = stored(transaction)?;
            let kept: HashSet<Uuid> = rules.iter().map(|rule| rule.id).collect();
            let mut versioned = Vec::with_capacity(rules.len());
            for rule in rules {
                let rule = DetectionRule { version: version(&rule, before.get(&rule.id)), ..rule };
                if let Some(action) = change(&rule, before.get(&rule.id)) {
                    put(transaction, room, &rule, action)?;
                }
                versioned.push(rule);
            }
            for rule in before.into_values().filter(|r| !kept.contains(&r.id) && r.state != RuleState::Archived) {
                put(transaction, room, &DetectionRule { state: RuleState::Archived, ..rule }, "rule-removed")?;
            }
            Ok(versioned)
        })
    }

    /// Every rule that was ever loaded, archived ones included, by id.
    ///
    /// # Errors
    /// [`StoreError`] when `state.redb` fails or a rule cannot be read.
    pub fn rules(&self) -> Result<Vec<DetectionRule>, StoreError> {
        self.state_view()?.rules()?.collect()
    }
}

fn stored(transaction: &WriteTransaction) -> Result<HashMap<Uuid, DetectionRule>, StoreError> {
    let table = transaction.open_table(RULES)?;
    let mut rules = HashMap::new();
    for entry in table.iter()? {
        let rule: DetectionRule = entry?.1.value().decode()?;
        rules.insert(rule.id, rule);
    }
    Ok(rules)
}

fn version(rule: &DetectionRule, before: Option<&DetectionRule>) -> u32 {
    match before {
        None => 1,
        Some(before) if before.hash == rule.hash => before.version,
        Some(before) => before.version.saturating_add(1),
    }
}

fn change(rule: &DetectionRule, before: Option<&DetectionRule>) -> Option<&'static str> {
    match before {
        None => Some("rule-added"),
        Some(before) if before.state == RuleState::Archived && rule.state != RuleState::Archived => Some("rule-added"),
        Some(before) if before != rule => Some("rule-changed"),
        Some(_) => None,
    }
}

fn put(transaction: &WriteTransaction, room: u64, rule: &DetectionRule, action: &str) -> Result<(), StoreError> {
    transaction.open_table(RULES)?.insert(key(rule.id), rule.encode()?)?;
    let payload = json!({
        "rule": rule.id, "name": rule.name, "version": rule.version, "hash": rule.hash, "state": rule.state,
        "file": rule.file,
    });
    audit::push(transaction, room, "agent", action, &payload)?;
    Ok(())
}
