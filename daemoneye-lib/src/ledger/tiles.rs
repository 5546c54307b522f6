//! A ledger's tree as it lies on the disk: tiles of 256 hashes in the layout of c2sp.org/tlog-tiles.
//!
//! `tile/<level>/<index>` holds node hashes of tree level 8·level, 32 bytes each, written once when all 256 are known; indexes are
//! written in groups of three digits, all but the last with an `x` before (`x001/x234/067`). Tiles are derived: what is missing is
//! computed from the entries, and so is the ragged right edge, which is never stored.

use std::path::{Path, PathBuf};

use super::Hash;
use super::LedgerFiles;
use super::tree::{self, Frontier, Nodes, TreeHash};
use crate::segment::{SegmentError, SegmentName, read_regular};

/// Hashes of a full tile.
pub const TILE_WIDTH: usize = 256;
/// Bytes of a full tile.
pub const TILE_BYTES: usize = TILE_WIDTH * size_of::<Hash>();
/// Tree levels that one tile spans: 2^8 hashes.
const TILE_LEVELS: u32 = 8;
/// The file that names the tree's hash.
const TREE_FILE: &str = "tree";
/// What is read of it: a word and a line end.
const TREE_FILE_BYTES: usize = 64;

/// Why a ledger's tree cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum TreeError {
    /// An entry below the tree's size is not there or cannot be read.
    #[error("entry {sequence} cannot be read, so the tree above it cannot be made; run: daemoneye-cli audit verify")]
    CorruptEntry {
        /// Which one.
        sequence: u64,
    },
    /// The file that names the tree's hash says something else.
    #[error("{} does not name a hash: it reads sha256 or blake3", .0.display())]
    CorruptTreeFile(PathBuf),
    /// The files cannot be read.
    #[error(transparent)]
    Segment(#[from] SegmentError),
}

/// `x001/x234/067` for 1,234,067.
fn index_path(index: u64) -> String {
    let mut path = format!("{:03}", index % 1000);
    let mut rest = index / 1000;
    while rest > 0 {
        path = format!("x{:03}/{path}", rest % 1000);
        rest /= 1000;
    }
    path
}

/// Where a full tile lies below a ledger's directory, or below any other of this layout.
#[must_use]
pub fn tile_path(dir: &Path, level: u32, index: u64) -> PathBuf {
    dir.join(format!("tile/{level}/{}", index_path(index)))
}

/// Where the bundle of 256 entries lies that a tile of level 0 is over.
#[must_use]
pub fn bundle_path(dir: &Path, index: u64) -> PathBuf {
    dir.join(format!("tile/entries/{}", index_path(index)))
}

/// Where a tile or bundle lies that holds only its first hashes or entries.
#[must_use]
pub fn partial_path(full: &Path, width: usize) -> PathBuf {
    let mut name = full.as_os_str().to_owned();
    name.push(format!(".p/{width}"));
    name.into()
}

/// Where a ledger names the hash of its tree.
#[must_use]
pub fn tree_file(dir: &Path) -> PathBuf {
    dir.join(TREE_FILE)
}

/// How the durable note of the tiles is called: `tiles.durable`.
#[must_use]
pub fn tiles_name() -> SegmentName {
    SegmentName { prefix: "tiles".to_owned(), extension: "log" }
}

/// What the tree of this ledger is hashed with; `None` for a ledger that has none yet.
///
/// # Errors
/// The file cannot be read or says something else.
pub fn tree_hash(dir: &Path) -> Result<Option<TreeHash>, TreeError> {
    let path = tree_file(dir);
    let Some(bytes) = read_regular(&path, TREE_FILE_BYTES)? else { return Ok(None) };
    let text = std::str::from_utf8(&bytes).ok().and_then(|text| text.strip_suffix('\n'));
    text.and_then(TreeHash::of_word).map(Some).ok_or(TreeError::CorruptTreeFile(path))
}

/// The root of what a tile's hashes, or some of them, stand for; their number is a power of two.
fn root_of(hash: TreeHash, hashes: &[Hash]) -> Hash {
    let mut nodes = hashes.to_vec();
    while nodes.len() > 1 {
        nodes = nodes
            .chunks(2)
            .map(|pair| match pair {
                [left, right] => hash.node(left, right),
                [single] => *single,
                _ => hash.empty(),
            })
            .collect();
    }
    nodes.first().copied().unwrap_or_else(|| hash.empty())
}

/// 256 hashes that will not change any more.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tile {
    /// Tile level: its hashes are nodes of tree level 8·level.
    pub level: u32,
    /// From 0 in its level.
    pub index: u64,
    /// All 256.
    pub hashes: Vec<Hash>,
}

impl Tile {
    /// The file's content.
    #[must_use]
    pub fn bytes(&self) -> Vec<u8> {
        self.hashes.concat()
    }
}

/// A tree that grows entry by entry and gives its tiles when they are full. It holds the frontier and the right edge: some
/// kilobytes, however many entries there are.
#[derive(Debug, Clone)]
pub struct GrowingTree {
    frontier: Frontier,
    edge: Vec<Vec<Hash>>,
}

impl GrowingTree {
    /// Without entries.
    #[must_use]
    pub const fn new(hash: TreeHash) -> Self {
        Self { frontier: Frontier::new(hash), edge: Vec::new() }
    }

    /// Goes on behind the entries that `stored` is over.
    ///
    /// # Errors
    /// Its files cannot be read.
    pub fn resume(mut stored: StoredTree) -> Result<Self, TreeError> {
        let (hash, size) = (stored.hash, stored.size);
        Ok(Self { frontier: Frontier::at(&mut stored, hash, size)?, edge: stored.edge })
    }

    /// Appends the hash of an entry's canonical bytes as a leaf.
    pub fn push(&mut self, leaf: Hash, mut full: impl FnMut(Tile)) {
        let edge = &mut self.edge;
        self.frontier.push(leaf, |level, index, node| {
            if level % TILE_LEVELS != 0 {
                return;
            }
            let level = level / TILE_LEVELS;
            let place = level as usize;
            if edge.len() <= place {
                edge.resize_with(place + 1, || Vec::with_capacity(TILE_WIDTH));
            }
            let Some(hashes) = edge.get_mut(place) else { return };
            hashes.push(*node);
            if hashes.len() == TILE_WIDTH {
                let hashes = std::mem::replace(hashes, Vec::with_capacity(TILE_WIDTH));
                full(Tile { level, index: index / TILE_WIDTH as u64, hashes });
            }
        });
    }

    /// Entries.
    #[must_use]
    pub const fn size(&self) -> u64 {
        self.frontier.size()
    }

    /// The root over them.
    #[must_use]
    pub fn root(&self) -> Hash {
        self.frontier.root()
    }

    /// What it is hashed with.
    #[must_use]
    pub const fn hash(&self) -> TreeHash {
        self.frontier.hash()
    }

    /// The hashes of each level's tile that is not full, lowest level first.
    #[must_use]
    pub fn edge(&self) -> &[Vec<Hash>] {
        &self.edge
    }
}

/// The tree over the first entries of a ledger, read from its files: what proofs are made from.
#[derive(Debug)]
pub struct StoredTree {
    dir: PathBuf,
    hash: TreeHash,
    size: u64,
    edge: Vec<Vec<Hash>>,
    /// The tile of each level that was read last: a proof asks for many nodes of few tiles.
    last: Vec<Option<(u64, Vec<Hash>)>>,
}

impl StoredTree {
    /// Over the first `size` entries, as of one checkpoint.
    ///
    /// # Errors
    /// There are fewer, or the files cannot be read.
    pub fn open(dir: &Path, hash: TreeHash, size: u64) -> Result<Self, TreeError> {
        let mut tree = Self { dir: dir.to_owned(), hash, size, edge: Vec::new(), last: Vec::new() };
        let full = size / TILE_WIDTH as u64;
        let edge = tree.leaves(full * TILE_WIDTH as u64, size)?;
        tree.edge.push(edge);
        let (mut level, mut count) = (0, full);
        while count > 0 {
            let above = count / TILE_WIDTH as u64;
            let mut hashes = Vec::with_capacity(TILE_WIDTH);
            for index in above * TILE_WIDTH as u64..count {
                let tile = tree.tile(level, index)?;
                hashes.push(root_of(hash, &tile));
            }
            tree.edge.push(hashes);
            (level, count) = (level + 1, above);
        }
        Ok(tree)
    }

    /// Entries.
    #[must_use]
    pub const fn size(&self) -> u64 {
        self.size
    }

    /// The root over them.
    ///
    /// # Errors
    /// The files cannot be read.
    pub fn root(&mut self) -> Result<Hash, TreeError> {
        self.root_at(self.size)
    }

    /// The root over the first `size` of them.
    ///
    /// # Errors
    /// The files cannot be read.
    pub fn root_at(&mut self, size: u64) -> Result<Hash, TreeError> {
        let hash = self.hash;
        tree::root(self, hash, size)
    }

    /// The proof that entry `index` is one of them; `None` when it is not.
    ///
    /// # Errors
    /// The files cannot be read.
    pub fn inclusion(&mut self, index: u64) -> Result<Option<Vec<Hash>>, TreeError> {
        let (hash, size) = (self.hash, self.size);
        tree::inclusion(self, hash, index, size)
    }

    /// The proof that the first `old` entries are the first ones of these; `None` when there are fewer.
    ///
    /// # Errors
    /// The files cannot be read.
    pub fn consistency(&mut self, old: u64) -> Result<Option<Vec<Hash>>, TreeError> {
        let (hash, size) = (self.hash, self.size);
        tree::consistency(self, hash, old, size)
    }

    /// The hashes of each level's tile that is not full, lowest level first.
    #[must_use]
    pub fn edge(&self) -> &[Vec<Hash>] {
        &self.edge
    }

    /// A full tile: its file, or what it has to hold when there is none, or one that the tile above it contradicts.
    ///
    /// # Errors
    /// The files cannot be read.
    pub fn tile(&mut self, level: u32, index: u64) -> Result<Vec<Hash>, TreeError> {
        let width = TILE_WIDTH as u64;
        let above = match index / width < self.full(level + 1) {
            true => self
                .hashes(level + 1, index / width)?
                .get(usize::try_from(index % width).unwrap_or(TILE_WIDTH))
                .copied(),
            false => None,
        };
        if let Some(hashes) = read_tile(&self.dir, level, index)?
            && above.is_none_or(|above| above == root_of(self.hash, &hashes))
        {
            return Ok(hashes);
        }
        self.made(level, index)
    }

    /// What a full tile has to hold, whatever its file does: from the entries, or from the tiles below it.
    ///
    /// # Errors
    /// The files cannot be read.
    pub fn made(&mut self, level: u32, index: u64) -> Result<Vec<Hash>, TreeError> {
        let width = TILE_WIDTH as u64;
        let Some(below) = level.checked_sub(1) else { return self.leaves(index * width, (index + 1) * width) };
        (index * width..(index + 1) * width)
            .map(|index| {
                // Not held against the tile above: that is the one that is made.
                let found = read_tile(&self.dir, below, index)?;
                found.map_or_else(|| self.made(below, index), Ok).map(|tile| root_of(self.hash, &tile))
            })
            .collect()
    }

    fn leaves(&self, first: u64, end: u64) -> Result<Vec<Hash>, TreeError> {
        if first == end {
            return Ok(Vec::new());
        }
        let mut entries = LedgerFiles::open(&self.dir)?.from(first)?;
        (first..end).map(|sequence| Ok(self.hash.leaf(&entries.numbered(sequence)?.entry.canonical_bytes()))).collect()
    }
}

/// The hashes of a tile's file; `None` when there is none, or one that was cut.
///
/// # Errors
/// It is there and cannot be read.
pub fn read_tile(dir: &Path, level: u32, index: u64) -> Result<Option<Vec<Hash>>, TreeError> {
    let path = tile_path(dir, level, index);
    let Some(bytes) = read_regular(&path, 2 * TILE_BYTES)? else { return Ok(None) };
    let (hashes, rest) = bytes.as_chunks::<32>();
    Ok((hashes.len() == TILE_WIDTH && rest.is_empty()).then(|| hashes.to_vec()))
}

impl Nodes for StoredTree {
    type Error = TreeError;

    fn node(&mut self, level: u32, index: u64) -> Result<Hash, TreeError> {
        let (hash, missing) = (self.hash, TreeError::CorruptEntry { sequence: self.size });
        let (tile_level, within) = (level / TILE_LEVELS, level % TILE_LEVELS);
        let first = index << within;
        let offset = usize::try_from(first % TILE_WIDTH as u64).unwrap_or(TILE_WIDTH);
        let hashes = self.hashes(tile_level, first / TILE_WIDTH as u64)?;
        let part = hashes.get(offset..).and_then(|rest| rest.get(..1 << within));
        part.map(|part| root_of(hash, part)).ok_or(missing)
    }
}

impl StoredTree {
    /// How many tiles of a level are full.
    fn full(&self, level: u32) -> u64 {
        self.size.checked_shr(TILE_LEVELS * (level + 1)).unwrap_or(0)
    }

    /// Of a tile, full or not.
    fn hashes(&mut self, level: u32, index: u64) -> Result<&[Hash], TreeError> {
        let place = level as usize;
        if index >= self.full(level) {
            return Ok(self.edge.get(place).map_or(&[], Vec::as_slice));
        }
        if self.last.len() <= place {
            self.last.resize(place + 1, None);
        }
        let kept = self.last.get_mut(place).and_then(Option::take).filter(|(kept, _)| *kept == index);
        let hashes = match kept {
            Some((_, hashes)) => hashes,
            None => self.tile(level, index)?,
        };
        let Some(slot) = self.last.get_mut(place) else { return Ok(&[]) };
        Ok(&slot.insert((index, hashes)).1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tiles_lie_where_the_layout_says() {
        let dir = Path::new("audit");
        assert_eq!(tile_path(dir, 0, 0), Path::new("audit/tile/0/000"));
        assert_eq!(tile_path(dir, 1, 999), Path::new("audit/tile/1/999"));
        assert_eq!(tile_path(dir, 2, 1_234_067), Path::new("audit/tile/2/x001/x234/067"));
        assert_eq!(bundle_path(dir, 1_000), Path::new("audit/tile/entries/x001/000"));
        assert_eq!(partial_path(&tile_path(dir, 0, 3), 17), Path::new("audit/tile/0/003.p/17"));
    }

    #[test]
    fn a_growing_tree_gives_each_tile_once_and_has_the_frontiers_root() {
        let hash = TreeHash::Sha256;
        let (mut growing, mut frontier, mut tiles) = (GrowingTree::new(hash), Frontier::new(hash), Vec::new());
        for n in 0..70_000_u64 {
            let leaf = hash.leaf(&n.to_le_bytes());
            growing.push(leaf, |tile| tiles.push((tile.level, tile.index, root_of(hash, &tile.hashes))));
            frontier.push(leaf, |_, _, _| {});
        }
        assert_eq!((growing.size(), growing.root()), (70_000, frontier.root()));
        let of_level = |level| tiles.iter().filter(|(of, ..)| *of == level).count();
        assert_eq!((of_level(0), of_level(1), of_level(2)), (273, 1, 0));
        let widths: Vec<usize> = growing.edge().iter().map(Vec::len).collect();
        assert_eq!(widths, [70_000 % 256, 273 % 256, 1]);
        assert_eq!(growing.edge()[2][0], tiles.iter().find(|(level, ..)| *level == 1).unwrap().2);
    }

    #[test]
    fn the_file_that_names_the_hash_has_no_other_spelling() {
        let dir = tempfile::tempdir().unwrap();
        assert!(matches!(tree_hash(dir.path()), Ok(None)));
        for (text, named) in [
            ("sha256\n", Some(TreeHash::Sha256)),
            ("blake3\n", Some(TreeHash::Blake3)),
            ("sha256", None),
            ("\n", None),
        ] {
            std::fs::write(tree_file(dir.path()), text).unwrap();
            assert_eq!(tree_hash(dir.path()).ok().flatten(), named, "{text:?}");
        }
    }
}
