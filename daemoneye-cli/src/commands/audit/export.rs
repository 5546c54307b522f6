//! `audit export --tiles`: the ledger as a static log, so that tools which know nothing of DaemonEye verify it.
//!
//! What is written is what the newest checkpoint is over: its note, the tiles, and bundles of entries, each entry its canonical bytes
//! behind their length as u16 BE. The root is computed from the entries on the way and has to be the checkpoint's.

use std::fs;
use std::io::{self, BufWriter, Write as _};
use std::path::Path;

use daemoneye_lib::exit::Exit;
use daemoneye_lib::ledger::LedgerFiles;
use daemoneye_lib::ledger::checkpoint::Checkpoint;
use daemoneye_lib::ledger::tiles::{
    GrowingTree, TILE_WIDTH, Tile, TreeError, bundle_path, partial_path, tile_path, tree_hash,
};
use daemoneye_lib::ledger::tree::TreeHash;
use daemoneye_lib::proto::Row;

use super::super::proof::making::is_there;
use super::{signed, unreadable};
use crate::error::CliError;
use crate::render::{self, Format};
use crate::value;

/// Writes everything into a new directory and prints what that was.
pub(super) fn tiles(directory: &Path, to: &Path, format: Format) -> Result<Exit, CliError> {
    let note = signed::newest_checkpoint(directory)?;
    let checkpoint = Checkpoint::dangerous_unverified(&note).map_err(|error| unreadable(directory, &error))?;
    fs::create_dir(to).map_err(|source| is_there(to, "--tiles", source))?;
    if let Err(error) = fill(directory, to, &note, &checkpoint) {
        // Half of a log would be in the way of the next try.
        fs::remove_dir_all(to).unwrap_or_default();
        return Err(error);
    }
    let values = vec![value::of_number(checkpoint.size), value::of_text(to.display().to_string())];
    render::rows(format, &["entries", "directory"], &[Row { values }])?;
    Ok(Exit::Ok)
}

fn fill(directory: &Path, to: &Path, note: &str, checkpoint: &Checkpoint) -> Result<(), CliError> {
    let failed = |source| CliError::Io { what: format!("write {}", to.display()), source };
    let broken = |error: TreeError| unreadable(directory, &error);
    let hash = tree_hash(directory).map_err(broken)?.unwrap_or(TreeHash::Sha256);
    let (mut tree, mut written) = (GrowingTree::new(hash), Ok(()));
    let mut bundle = Bundle { to, index: 0, entries: Vec::new() };
    let entries = LedgerFiles::open(directory).and_then(|files| files.from(0));
    let mut entries = entries.map_err(|error| broken(error.into()))?;
    while tree.size() < checkpoint.size {
        let bytes = entries.numbered(tree.size()).map_err(broken)?.entry.canonical_bytes();
        tree.push(hash.leaf(&bytes), |tile| {
            if written.is_ok() {
                written = write_tile(to, &tile);
            }
        });
        bundle.push(bytes).map_err(failed)?;
    }
    written.map_err(failed)?;
    bundle.end().map_err(failed)?;
    if tree.root() != checkpoint.root {
        let text = "the entries do not have the root of the newest checkpoint; run: daemoneye-cli audit verify";
        return Err(CliError::Unreadable(text.to_owned()));
    }
    write_edge(to, &tree).and_then(|()| fs::write(to.join("checkpoint"), note)).map_err(failed)
}

fn write(path: &Path, bytes: &[u8]) -> io::Result<()> {
    path.parent().map_or(Ok(()), fs::create_dir_all)?;
    fs::write(path, bytes)
}

fn write_tile(to: &Path, tile: &Tile) -> io::Result<()> {
    write(&tile_path(to, tile.level, tile.index), &tile.bytes())
}

/// The tiles that are not full have their width in their names.
fn write_edge(to: &Path, tree: &GrowingTree) -> io::Result<()> {
    for (level, hashes) in (0..).zip(tree.edge()) {
        if !hashes.is_empty() {
            let index = tree.size().checked_shr(8 * (level + 1)).unwrap_or(0);
            write(&partial_path(&tile_path(to, level, index), hashes.len()), &hashes.concat())?;
        }
    }
    Ok(())
}

/// The entries below one tile of level 0.
struct Bundle<'a> {
    to: &'a Path,
    index: u64,
    entries: Vec<Vec<u8>>,
}

impl Bundle<'_> {
    fn push(&mut self, entry: Vec<u8>) -> io::Result<()> {
        self.entries.push(entry);
        if self.entries.len() < TILE_WIDTH {
            return Ok(());
        }
        self.write(&bundle_path(self.to, self.index))?;
        self.index += 1;
        self.entries.clear();
        Ok(())
    }

    fn end(self) -> io::Result<()> {
        if self.entries.is_empty() {
            return Ok(());
        }
        self.write(&partial_path(&bundle_path(self.to, self.index), self.entries.len()))
    }

    fn write(&self, path: &Path) -> io::Result<()> {
        path.parent().map_or(Ok(()), fs::create_dir_all)?;
        let mut file = BufWriter::new(fs::File::create(path)?);
        for entry in &self.entries {
            let length = u16::try_from(entry.len()).map_err(io::Error::other)?;
            file.write_all(&length.to_be_bytes())?;
            file.write_all(entry)?;
        }
        file.into_inner().map(drop).map_err(io::IntoInnerError::into_error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use daemoneye_lib::ledger::note::NoteSigner;
    use daemoneye_lib::ledger::notes::checkpoint_file;

    #[test]
    fn an_export_that_fails_is_not_in_the_way_of_the_next_one() {
        let home = tempfile::tempdir().unwrap();
        let (audit, to) = (home.path().join("audit"), home.path().join("tiles"));
        fs::create_dir(&audit).unwrap();
        let origin = "daemoneye/4f/audit";
        let signer = NoteSigner::new(origin, &[1; 32]).unwrap();
        let note = Checkpoint { origin: origin.into(), size: 7, root: [3; 32] }.sign(&signer).unwrap();
        fs::write(checkpoint_file(&audit), note).unwrap();
        for _ in 0..2 {
            assert!(matches!(tiles(&audit, &to, Format::Json), Err(CliError::Unreadable(_))));
            assert!(!to.exists());
        }
    }
}
