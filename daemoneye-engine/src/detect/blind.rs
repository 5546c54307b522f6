//! Rules that read a column which no collector fills: they are evaluated, and each time it is over something that is missing.

use std::collections::BTreeSet;
use std::sync::{Arc, PoisonError, RwLock};

use uuid::Uuid;

use super::RuleSet;

/// Their places in a set.
#[derive(Debug, Default)]
pub(super) struct Blind(RwLock<Arc<[usize]>>);

impl Blind {
    pub(super) fn places(&self) -> Arc<[usize]> {
        Arc::clone(&self.0.read().unwrap_or_else(PoisonError::into_inner))
    }
}

impl RuleSet {
    /// From here on these, and no others, lack a column.
    pub fn mark_blind(&self, rules: &BTreeSet<Uuid>) {
        let places = self.rules.iter().enumerate().filter(|(_, running)| rules.contains(&running.rule.id));
        let places = places.map(|(at, _)| at).collect();
        *self.blind.0.write().unwrap_or_else(PoisonError::into_inner) = places;
        self.windows.mark_blind(rules);
    }
}
