//! The leaves of one range, and the tree over them.

use std::collections::BTreeMap;

use super::super::event::RANGE_HASH;
use super::super::tree::{self, Nodes, TreeHash};
use super::super::{EventRange, Hash};

/// The leaves of a range's events, by number.
#[derive(Debug, Clone, Default)]
pub struct RangeLeaves(BTreeMap<u64, Hash>);

impl RangeLeaves {
    /// Takes the event with this number.
    pub fn add(&mut self, number: u64, leaf: Hash) {
        self.0.insert(number, leaf);
    }

    /// All of them, by number.
    #[cfg(test)]
    pub(super) fn iter(&self) -> impl Iterator<Item = (u64, Hash)> + '_ {
        self.0.iter().map(|(number, leaf)| (*number, *leaf))
    }

    /// How many are there.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.0.len() as u64
    }

    /// Whether the event with this number is there.
    #[must_use]
    pub fn has(&self, number: u64) -> bool {
        self.0.contains_key(&number)
    }

    /// Whether these are all events of the range, unchanged.
    #[must_use]
    pub fn fits(&self, range: &EventRange) -> bool {
        let mut frontier = tree::Frontier::new(RANGE_HASH);
        self.0.values().for_each(|leaf| frontier.push(*leaf, |_, _, _| {}));
        self.count() == range.events && frontier.root() == range.root
    }

    pub(super) fn path(&self, range: &EventRange, number: u64) -> Option<Vec<Hash>> {
        let index = self.0.keys().position(|known| *known == number).filter(|_| self.fits(range))?;
        let mut nodes = LeafNodes::new(RANGE_HASH, self.0.values().copied().collect());
        let Ok(path) = tree::inclusion(&mut nodes, RANGE_HASH, index as u64, range.events);
        path
    }
}

/// Every complete subtree of a tree that fits into memory.
#[derive(Debug, Clone)]
pub struct LeafNodes(Vec<Vec<Hash>>);

impl LeafNodes {
    /// Over these leaves.
    #[must_use]
    pub fn new(hash: TreeHash, leaves: Vec<Hash>) -> Self {
        let mut levels = vec![leaves];
        while let Some(below) = levels.last().filter(|level| level.len() > 1) {
            let (pairs, _) = below.as_chunks();
            levels.push(pairs.iter().map(|[left, right]| hash.node(left, right)).collect());
        }
        Self(levels)
    }
}

impl Nodes for LeafNodes {
    type Error = std::convert::Infallible;

    fn node(&mut self, level: u32, index: u64) -> Result<Hash, Self::Error> {
        let level = usize::try_from(level).ok().and_then(|level| self.0.get(level));
        let node = level.and_then(|nodes| nodes.get(usize::try_from(index).ok()?));
        // One that is not there makes a proof that fits no root.
        Ok(node.copied().unwrap_or_default())
    }
}
