//! A directory of tiles as `audit export --tiles` lays it out, read back by the reader of `tlog_tiles`, which believes only what the
//! root of the checkpoint is over.

use std::fs;
use std::path::{Path, PathBuf};

use daemoneye_lib::ledger::checkpoint::Checkpoint;
use daemoneye_lib::ledger::note::NoteSigner;
use daemoneye_lib::ledger::tiles::{GrowingTree, partial_path, tile_path};
use daemoneye_lib::ledger::tree::TreeHash;
use tlog_tiles::{
    Error, HashReader as _, Tile, TileHashReader, TileReader, check_record, check_tree, prove_record, prove_tree,
    record_hash, stored_hash_index,
};

/// Hashes of a tile: 2 to the power of this.
const HEIGHT: u8 = 8;

fn entry(number: u64) -> Vec<u8> {
    format!("entry {number}").into_bytes()
}

fn write(path: &Path, bytes: &[u8]) {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, bytes).unwrap();
}

/// The tiles over so many entries, below `dir`, with a signed checkpoint.
fn exported(dir: &Path, size: u64) {
    let mut tree = GrowingTree::new(TreeHash::Sha256);
    for number in 0..size {
        tree.push(TreeHash::Sha256.leaf(&entry(number)), |tile| {
            write(&tile_path(dir, tile.level, tile.index), &tile.bytes());
        });
    }
    for (level, hashes) in (0..).zip(tree.edge()).filter(|(_, hashes)| !hashes.is_empty()) {
        let index = size.checked_shr(u32::from(HEIGHT) * (level + 1)).unwrap_or(0);
        write(&partial_path(&tile_path(dir, level, index), hashes.len()), &hashes.concat());
    }
    let origin = "daemoneye/3d1219c7/audit";
    let signer = NoteSigner::new(origin, &[9; 32]).unwrap();
    let note = Checkpoint { origin: origin.into(), size, root: tree.root() }.sign(&signer).unwrap();
    write(&dir.join("checkpoint"), note.as_bytes());
}

struct Directory(PathBuf);

impl TileReader for Directory {
    fn height(&self) -> u8 {
        HEIGHT
    }

    fn read_tiles(&self, tiles: &[Tile]) -> Result<Vec<Vec<u8>>, Error> {
        // Their path names the height as well, which the layout of tlog-tiles leaves out.
        let path = |tile: &Tile| self.0.join(tile.path().replacen("tile/8/", "tile/", 1));
        Ok(tiles.iter().map(|tile| fs::read(path(tile)).unwrap()).collect())
    }

    fn save_tiles(&self, _: &[Tile], _: &[Vec<u8>]) {}
}

#[test]
fn exported_tiles_prove_entries_and_growth_to_a_reader_that_believes_the_checkpoint_only() {
    // A single entry, the edges of a tile, two levels and three, and a tile beyond the first thousand.
    for size in [1, 255, 256, 257, 65_537, 256 * 1_001 + 3] {
        let dir = Directory(Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("tiles-{size}")));
        fs::remove_dir_all(&dir.0).unwrap_or_default();
        exported(&dir.0, size);
        let note = fs::read(dir.0.join("checkpoint")).unwrap();
        let text = note.split_inclusive(|byte| *byte == b'\n').take(3).collect::<Vec<_>>().concat();
        let checkpoint = tlog_tiles::Checkpoint::from_bytes(&text).unwrap();
        assert_eq!(checkpoint.size(), size);
        let (root, tiles) = (*checkpoint.hash(), TileHashReader::new(size, *checkpoint.hash(), &dir));
        for number in [0, 1, size / 2, size.saturating_sub(2), size - 1].into_iter().filter(|number| *number < size) {
            let hash = record_hash(&entry(number));
            assert!(tiles.read_hashes(&[stored_hash_index(0, number)]).unwrap() == [hash], "{number} of {size}");
            let proof = prove_record(size, number, &tiles).unwrap();
            check_record(&proof, size, root, number, hash).unwrap();
        }
        for old in [1, size / 2, size - 1].into_iter().filter(|old| *old > 0) {
            let older = tlog_tiles::tree_hash(old, &tiles).unwrap();
            check_tree(&prove_tree(size, old, &tiles).unwrap(), size, root, old, older).unwrap();
        }
        // One bit of a tile: the reader refuses it, or, where the root takes several hashes of one tile and it holds fewer tiles against
        // those above, gives a hash that is not the entry's.
        let tile = match size {
            256.. => tile_path(&dir.0, 0, 0),
            width => partial_path(&tile_path(&dir.0, 0, 0), usize::try_from(width).unwrap()),
        };
        let mut bytes = fs::read(&tile).unwrap();
        bytes[3] ^= 1;
        fs::write(&tile, bytes).unwrap();
        let found = tiles.read_hashes(&[stored_hash_index(0, 0)]);
        assert!(!found.is_ok_and(|found| found == [record_hash(&entry(0))]), "{size}");
        fs::remove_dir_all(&dir.0).unwrap();
    }
}
