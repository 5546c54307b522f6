//! The Merkle tree over a ledger's entries: the shape, the prefixes and the proofs of RFC 6962.
//!
//! A leaf is the hash of 0x00 and an entry's canonical bytes, a node the hash of 0x01 and its two children, so that neither can be
//! passed off as the other. The writer keeps a [`Frontier`]; whoever makes proofs asks a [`Nodes`] for complete subtrees, wherever
//! those lie, and nodes of the ragged right edge are computed from them. Verification follows RFC 9162, sections 2.1.3.2 and
//! 2.1.4.2, and needs nothing but the proof.

use sha2::{Digest as _, Sha256};

use super::Hash;

const LEAF: [u8; 1] = [0];
const NODE: [u8; 1] = [1];

/// What a ledger's tree is hashed with; fixed when the ledger is created.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TreeHash {
    /// BLAKE3, 32 bytes.
    Blake3,
    /// SHA-256: what witnesses and the tools of transparency logs verify.
    Sha256,
}

impl TreeHash {
    /// The word in settings and files.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Blake3 => "blake3",
            Self::Sha256 => "sha256",
        }
    }

    /// The hash that a word names.
    #[must_use]
    pub fn of_word(word: &str) -> Option<Self> {
        [Self::Blake3, Self::Sha256].into_iter().find(|hash| hash.word() == word)
    }

    /// Hash of a leaf with these bytes.
    #[must_use]
    pub fn leaf(self, bytes: &[u8]) -> Hash {
        self.of([&LEAF, bytes])
    }

    /// Hash of the node above two others.
    #[must_use]
    pub fn node(self, left: &Hash, right: &Hash) -> Hash {
        self.of([&NODE, left, right])
    }

    /// Root of a tree without leaves.
    #[must_use]
    pub fn empty(self) -> Hash {
        self.of([])
    }

    fn of<const N: usize>(self, parts: [&[u8]; N]) -> Hash {
        match self {
            Self::Blake3 => {
                let mut hasher = blake3::Hasher::new();
                parts.iter().for_each(|part| {
                    hasher.update(part);
                });
                *hasher.finalize().as_bytes()
            }
            Self::Sha256 => {
                let mut hasher = Sha256::new();
                parts.iter().for_each(|part| hasher.update(part));
                hasher.finalize().into()
            }
        }
    }
}

/// The roots of the complete subtrees of a growing tree: all that appending needs, at most 64 hashes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frontier {
    hash: TreeHash,
    size: u64,
    /// Largest first; the bits of `size` tell their levels.
    peaks: Vec<Hash>,
}

impl Frontier {
    /// Of a tree without leaves.
    #[must_use]
    pub const fn new(hash: TreeHash) -> Self {
        Self { hash, size: 0, peaks: Vec::new() }
    }

    /// Of the first `size` leaves of a tree.
    ///
    /// # Errors
    /// What `nodes` says.
    pub fn at<N: Nodes>(nodes: &mut N, hash: TreeHash, size: u64) -> Result<Self, N::Error> {
        let peaks = subtrees(0, size).map(|(level, index)| nodes.node(level, index)).collect::<Result<_, _>>()?;
        Ok(Self { hash, size, peaks })
    }

    /// Appends the hash of a leaf and reports every node that is complete now: level, index in that level, hash.
    pub fn push(&mut self, leaf: Hash, mut complete: impl FnMut(u32, u64, &Hash)) {
        let (mut node, mut level, mut index) = (leaf, 0, self.size);
        complete(level, index, &node);
        while index & 1 == 1 {
            let Some(left) = self.peaks.pop() else { break };
            node = self.hash.node(&left, &node);
            level += 1;
            index >>= 1;
            complete(level, index, &node);
        }
        self.peaks.push(node);
        self.size += 1;
    }

    /// What the tree is hashed with.
    #[must_use]
    pub const fn hash(&self) -> TreeHash {
        self.hash
    }

    /// Leaves.
    #[must_use]
    pub const fn size(&self) -> u64 {
        self.size
    }

    /// The tree's root.
    #[must_use]
    pub fn root(&self) -> Hash {
        fold(self.hash, &self.peaks)
    }
}

/// Where the hashes of complete subtrees come from: node `index` of `level` is over the leaves from `index << level` on, 2^level of
/// them, all of which exist.
pub trait Nodes {
    /// Why a node cannot be had.
    type Error;

    /// One node.
    ///
    /// # Errors
    /// It cannot be read.
    fn node(&mut self, level: u32, index: u64) -> Result<Hash, Self::Error>;
}

/// The complete subtrees that a range of leaves consists of, largest first. `begin` is a multiple of the largest one's size.
fn subtrees(begin: u64, end: u64) -> impl Iterator<Item = (u32, u64)> {
    let mut at = begin;
    std::iter::from_fn(move || {
        let level = end.checked_sub(at)?.checked_ilog2()?;
        let index = at >> level;
        at += 1 << level;
        Some((level, index))
    })
}

fn fold(hash: TreeHash, peaks: &[Hash]) -> Hash {
    let mut peaks = peaks.iter().rev();
    let Some(last) = peaks.next() else { return hash.empty() };
    peaks.fold(*last, |right, left| hash.node(left, &right))
}

/// Largest power of two below `leaves`, which is at least 2: where RFC 6962 splits a tree.
const fn split(leaves: u64) -> u64 {
    1 << (leaves - 1).ilog2()
}

fn range_root<N: Nodes>(nodes: &mut N, hash: TreeHash, begin: u64, end: u64) -> Result<Hash, N::Error> {
    let peaks: Vec<Hash> =
        subtrees(begin, end).map(|(level, index)| nodes.node(level, index)).collect::<Result<_, _>>()?;
    Ok(fold(hash, &peaks))
}

/// The root of the first `size` leaves.
///
/// # Errors
/// What `nodes` says.
pub fn root<N: Nodes>(nodes: &mut N, hash: TreeHash, size: u64) -> Result<Hash, N::Error> {
    range_root(nodes, hash, 0, size)
}

/// The proof that leaf `index` is one of the first `size`, from the leaf up; `None` when it is not.
///
/// # Errors
/// What `nodes` says.
pub fn inclusion<N: Nodes>(
    nodes: &mut N,
    hash: TreeHash,
    index: u64,
    size: u64,
) -> Result<Option<Vec<Hash>>, N::Error> {
    if index >= size {
        return Ok(None);
    }
    let (mut begin, mut end, mut proof) = (0, size, Vec::new());
    while end - begin > 1 {
        let middle = begin + split(end - begin);
        if index < middle {
            proof.push(range_root(nodes, hash, middle, end)?);
            end = middle;
        } else {
            proof.push(range_root(nodes, hash, begin, middle)?);
            begin = middle;
        }
    }
    proof.reverse();
    Ok(Some(proof))
}

/// The proof that the first `old` leaves are the first ones of the first `new`; `None` when `old` is more than `new`.
///
/// # Errors
/// What `nodes` says.
pub fn consistency<N: Nodes>(
    nodes: &mut N,
    hash: TreeHash,
    old: u64,
    new: u64,
) -> Result<Option<Vec<Hash>>, N::Error> {
    if old > new {
        return Ok(None);
    }
    let (mut begin, mut end, mut proof) = (0, new, Vec::new());
    if old == 0 {
        return Ok(Some(proof));
    }
    while old != end {
        let middle = begin + split(end - begin);
        if old <= middle {
            proof.push(range_root(nodes, hash, middle, end)?);
            end = middle;
        } else {
            proof.push(range_root(nodes, hash, begin, middle)?);
            begin = middle;
        }
    }
    if begin > 0 {
        proof.push(range_root(nodes, hash, begin, end)?);
    }
    proof.reverse();
    Ok(Some(proof))
}

/// Why a proof proves nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ProofError {
    /// It has more or fewer hashes than a proof for these sizes.
    #[error("the proof has a wrong number of hashes")]
    CorruptLength,
    /// It leads to another root.
    #[error("the proof does not lead to the root")]
    CorruptRoot,
    /// There is no such leaf, or the older tree is the larger one.
    #[error("there is no proof for these sizes")]
    MisuseSize,
}

/// Checks that `leaf` is leaf `index` of the tree of `size` leaves with this root.
///
/// # Errors
/// [`ProofError`]: it is not shown.
pub fn verify_inclusion(
    hash: TreeHash,
    leaf: &Hash,
    index: u64,
    size: u64,
    root: &Hash,
    proof: &[Hash],
) -> Result<(), ProofError> {
    if index >= size {
        return Err(ProofError::MisuseSize);
    }
    let (mut at, mut last, mut found) = (index, size - 1, *leaf);
    for sibling in proof {
        if last == 0 {
            return Err(ProofError::CorruptLength);
        }
        if at & 1 == 1 || at == last {
            found = hash.node(sibling, &found);
            let ragged = at.trailing_zeros().min(63);
            (at, last) = (at >> ragged, last >> ragged);
        } else {
            found = hash.node(&found, sibling);
        }
        (at, last) = (at >> 1, last >> 1);
    }
    judge(last, found == *root)
}

/// Checks that the tree of `old` leaves is the beginning of the tree of `new` leaves.
///
/// # Errors
/// [`ProofError`]: it is not shown.
pub fn verify_consistency(
    hash: TreeHash,
    old: u64,
    old_root: &Hash,
    new: u64,
    new_root: &Hash,
    proof: &[Hash],
) -> Result<(), ProofError> {
    if old > new {
        return Err(ProofError::MisuseSize);
    }
    if old == 0 || old == new {
        let expected = if old == new { *new_root } else { hash.empty() };
        return if proof.is_empty() { judge(0, *old_root == expected) } else { Err(ProofError::CorruptLength) };
    }
    let mut rest = proof.iter();
    // A complete older tree is a node of the newer one, so its root is left out of the proof.
    let first = if old.is_power_of_two() { old_root } else { rest.next().ok_or(ProofError::CorruptLength)? };
    let ones = (old - 1).trailing_ones();
    let (mut at, mut last) = ((old - 1) >> ones, (new - 1) >> ones);
    let (mut found_old, mut found_new) = (*first, *first);
    for sibling in rest {
        if last == 0 {
            return Err(ProofError::CorruptLength);
        }
        if at & 1 == 1 || at == last {
            found_old = hash.node(sibling, &found_old);
            found_new = hash.node(sibling, &found_new);
            let ragged = at.trailing_zeros().min(63);
            (at, last) = (at >> ragged, last >> ragged);
        } else {
            found_new = hash.node(&found_new, sibling);
        }
        (at, last) = (at >> 1, last >> 1);
    }
    judge(last, found_old == *old_root && found_new == *new_root)
}

const fn judge(left: u64, fits: bool) -> Result<(), ProofError> {
    match (left, fits) {
        (0, true) => Ok(()),
        (0, false) => Err(ProofError::CorruptRoot),
        _ => Err(ProofError::CorruptLength),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::convert::Infallible;

    /// Straight from the definition, for small trees.
    struct Leaves(TreeHash, Vec<Hash>);

    fn at(index: u64) -> usize {
        usize::try_from(index).unwrap()
    }

    fn defined(hash: TreeHash, leaves: &[Hash]) -> Hash {
        match leaves {
            [] => hash.empty(),
            [leaf] => *leaf,
            _ => {
                let (left, right) = leaves.split_at(at(split(leaves.len() as u64)));
                hash.node(&defined(hash, left), &defined(hash, right))
            }
        }
    }

    impl Nodes for Leaves {
        type Error = Infallible;

        fn node(&mut self, level: u32, index: u64) -> Result<Hash, Infallible> {
            let begin = at(index << level);
            Ok(defined(self.0, &self.1[begin..begin + (1 << level)]))
        }
    }

    fn leaves(hash: TreeHash, size: u64) -> Leaves {
        Leaves(hash, (0..size).map(|n| hash.leaf(&n.to_le_bytes())).collect())
    }

    const BOTH: [TreeHash; 2] = [TreeHash::Blake3, TreeHash::Sha256];

    #[test]
    fn the_frontier_has_the_root_of_the_definition_and_reports_each_node_once() {
        for hash in BOTH {
            let all = leaves(hash, 70);
            let (mut frontier, mut reported) = (Frontier::new(hash), Vec::new());
            for (n, leaf) in all.1.iter().enumerate() {
                assert_eq!(frontier.root(), defined(hash, &all.1[..n]));
                frontier.push(*leaf, |level, index, node| reported.push((level, index, *node)));
                let mut nodes = leaves(hash, 70);
                assert_eq!(Frontier::at(&mut nodes, hash, n as u64 + 1), Ok(frontier.clone()));
            }
            assert_eq!(frontier.size(), 70);
            let mut nodes = leaves(hash, 70);
            assert!(reported.iter().all(|(level, index, node)| nodes.node(*level, *index) == Ok(*node)));
            assert_eq!(reported.len(), 70 + 35 + 17 + 8 + 4 + 2 + 1);
        }
    }

    #[test]
    fn the_root_of_the_rfcs_test_vector_is_reached() {
        // RFC 6962's reference implementation: the leaves "", 00, 10, 2021, 3031, 40414243, 5051525354555657, 606162…6f.
        let hexes =
            ["", "00", "10", "2021", "3031", "40414243", "5051525354555657", "606162636465666768696a6b6c6d6e6f"];
        let mut frontier = Frontier::new(TreeHash::Sha256);
        for hex in hexes {
            frontier.push(TreeHash::Sha256.leaf(&crate::hex::decode(hex).unwrap()), |_, _, _| {});
        }
        let wanted = "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328";
        assert_eq!(crate::hex::encode(&frontier.root()), wanted);
        let empty = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
        assert_eq!(crate::hex::encode(&TreeHash::Sha256.empty()), empty);
    }

    #[test]
    fn every_inclusion_proof_of_small_trees_verifies_and_for_nothing_else() {
        for hash in BOTH {
            let mut all = leaves(hash, 40);
            for size in 1..=40 {
                let top = root(&mut all, hash, size).unwrap();
                for index in 0..size {
                    let proof = inclusion(&mut all, hash, index, size).unwrap().unwrap();
                    let leaf = all.1[at(index)];
                    let verify =
                        |leaf: &Hash, index, proof: &[Hash]| verify_inclusion(hash, leaf, index, size, &top, proof);
                    assert_eq!(verify(&leaf, index, &proof), Ok(()));
                    for other in (0..size).filter(|other| *other != index) {
                        assert!(verify(&leaf, other, &proof).is_err(), "{index} is not {other} of {size}");
                    }
                    for place in 0..proof.len() {
                        let mut bad = proof.clone();
                        bad[place][7] ^= 1;
                        assert_eq!(verify(&leaf, index, &bad), Err(ProofError::CorruptRoot));
                        bad.remove(place);
                        assert!(verify(&leaf, index, &bad).is_err());
                    }
                    let longer: Vec<Hash> = proof.iter().copied().chain([top]).collect();
                    assert_eq!(verify(&leaf, index, &longer), Err(ProofError::CorruptLength));
                }
                assert_eq!(inclusion(&mut all, hash, size, size), Ok(None));
                assert_eq!(verify_inclusion(hash, &top, size, size, &top, &[]), Err(ProofError::MisuseSize));
            }
        }
    }

    #[test]
    fn every_consistency_proof_of_small_trees_verifies_and_for_nothing_else() {
        for hash in BOTH {
            let mut all = leaves(hash, 40);
            let roots: Vec<Hash> = (0..=40).map(|size| root(&mut all, hash, size).unwrap()).collect();
            for new in 0..=40 {
                for old in 0..=new {
                    let proof = consistency(&mut all, hash, old, new).unwrap().unwrap();
                    let verify = |old: u64, old_root: &Hash, new_root: &Hash, proof: &[Hash]| {
                        verify_consistency(hash, old, old_root, new, new_root, proof)
                    };
                    let (before, after) = (roots[at(old)], roots[at(new)]);
                    assert_eq!(verify(old, &before, &after, &proof), Ok(()), "{old} of {new}");
                    assert!(verify(old, &[9; 32], &after, &proof).is_err());
                    assert!(old == 0 || verify(old, &before, &[9; 32], &proof).is_err());
                    for place in 0..proof.len() {
                        let mut bad = proof.clone();
                        bad[place][31] ^= 128;
                        assert!(verify(old, &before, &after, &bad).is_err());
                        bad.remove(place);
                        assert!(verify(old, &before, &after, &bad).is_err());
                    }
                    let longer: Vec<Hash> = proof.iter().copied().chain([after]).collect();
                    assert_eq!(verify(old, &before, &after, &longer), Err(ProofError::CorruptLength));
                    for other in (1..=new).filter(|other| *other != old) {
                        assert!(verify(other, &before, &after, &proof).is_err(), "{old} is not {other} of {new}");
                    }
                }
            }
            assert_eq!(consistency(&mut all, hash, 3, 2), Ok(None));
        }
    }

    #[test]
    fn sizes_at_the_end_of_the_range_are_refused_without_harm() {
        let hash = TreeHash::Sha256;
        let proof = [[0; 32]; 64];
        for (index, size) in [(0, u64::MAX), (u64::MAX - 1, u64::MAX), (1 << 63, u64::MAX), (u64::MAX, u64::MAX)] {
            assert!(verify_inclusion(hash, &[1; 32], index, size, &[2; 32], &proof).is_err());
            assert!(verify_consistency(hash, index, &[1; 32], size, &[2; 32], &proof).is_err());
        }
    }

    #[test]
    fn a_node_is_no_leaf_and_words_name_their_hash() {
        for hash in BOTH {
            let two = [[1; 32], [2; 32]];
            assert_ne!(hash.leaf(&two.concat()), hash.node(&two[0], &two[1]));
            assert_eq!(TreeHash::of_word(hash.word()), Some(hash));
        }
        assert_eq!(TreeHash::of_word("SHA256"), None);
    }
}
