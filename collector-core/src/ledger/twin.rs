//! The newest checkpoint once more, beside the seed: `keys/audit.signed`.
//!
//! Whoever takes the checkpoints out of `audit/`, or puts older ones there, and rewrites what they were over would have that signed with
//! the real key by the next start. So what was signed is kept where the seed is as well. It is written behind `audit/checkpoint`:
//! after a crash it is over as many entries or fewer, and a ledger that does not go on from it is not signed.

use std::path::{Path, PathBuf};

use daemoneye_lib::ledger::checkpoint::Checkpoint;
use daemoneye_lib::ledger::note::MAX_NOTE_BYTES;
use daemoneye_lib::ledger::notes::{keys_file, read_text};
use daemoneye_lib::ledger::tiles::StoredTree;
use daemoneye_lib::ledger::tree::TreeHash;
use daemoneye_lib::segment::read_regular;

use super::growth::{Grown, replace};
use super::seed::Seeds;
use super::signing::TreeOptions;
use crate::error::CollectorError;
use crate::platform;
use crate::writer::LogOptions;

fn path(keys_dir: &Path) -> PathBuf {
    keys_dir.join("audit.signed")
}

/// Keeps the note of what was signed now.
pub(super) fn write(log: &LogOptions, seeds: &Seeds, note: &str) -> Result<(), CollectorError> {
    let path = path(&seeds.dir);
    // A credential has no directory of ours.
    platform::create_dir(&seeds.dir, 0o700).map_err(|e| CollectorError::io("create", &seeds.dir, e))?;
    replace(log, &path, note.as_bytes(), true)?;
    seeds.sync_dir().map_err(|error| CollectorError::io("sync", &seeds.dir, std::io::Error::other(error)))
}

/// Whether it is this note.
pub(super) fn is(seeds: &Seeds, note: &str) -> bool {
    matches!(read_regular(&path(&seeds.dir), MAX_NOTE_BYTES), Ok(Some(found)) if found == note.as_bytes())
}

/// What `entries` of a ledger that was opened lack of what was signed; `None`: nothing.
pub(super) fn lacks(log: &LogOptions, options: &TreeOptions, entries: u64, grown: &Grown) -> Option<String> {
    let path = path(&options.keys_dir);
    let found = match read_regular(&path, MAX_NOTE_BYTES) {
        Ok(found) => found,
        Err(error) => return Some(error.to_string()),
    };
    let Some(note) = found else { return lacks_first(log, options, entries, grown) };
    let Ok(twin) = Checkpoint::dangerous_unverified(&String::from_utf8_lossy(&note)) else {
        return Some(format!(
            "{} holds no checkpoint; verify audit/ against a checkpoint that was kept elsewhere, and remove it where that fits",
            path.display()
        ));
    };
    let (said, signed) = (path.display(), twin.size);
    if signed > entries {
        return Some(format!(
            "{said} says that {signed} entries were signed, and there are {entries}: the end was cut off, an older copy was put back, or \
             audit/ was moved away without keys/"
        ));
    }
    match grown.stored.newest.as_ref().map(|newest| &newest.checkpoint) {
        Some(newest) if newest.size >= signed => {
            let root = if newest.size == signed { Ok(newest.root) } else { root(log, grown, signed) };
            match root {
                Ok(root) if root == twin.root => None,
                Ok(_) => Some(format!(
                    "the first {signed} entries have another root than {said} says: entries there were replaced"
                )),
                Err(why) => Some(why),
            }
        }
        Some(newest) => Some(format!(
            "{said} says that {signed} entries were signed, and the newest checkpoint in audit/ is over {}: an older one was put back",
            newest.size
        )),
        None => Some(format!(
            "{said} says that {signed} entries were signed, and audit/ has no checkpoint: it was removed"
        )),
    }
}

fn root(log: &LogOptions, grown: &Grown, size: u64) -> Result<[u8; 32], String> {
    let hash = grown.tree.as_ref().map_or(TreeHash::Sha256, |tree| tree.hash());
    StoredTree::open(&log.dir, hash, size).and_then(|mut tree| tree.root()).map_err(|error| error.to_string())
}

/// Of a ledger of which nothing says that it was ever signed: what a crash before its first checkpoint does not leave.
fn lacks_first(log: &LogOptions, options: &TreeOptions, entries: u64, grown: &Grown) -> Option<String> {
    if grown.stored.newest.is_some() || entries == 0 {
        return None;
    }
    if grown.unsigned.has_key {
        let long =
            "the ledger names a key and goes on for longer than it is ever unsigned, but its checkpoints are gone";
        return grown.unsigned.ran_long().then(|| long.to_owned());
    }
    // A seed is put in its place when the ledger has named its key; a credential was there before any ledger.
    let seed = Seeds::file(&options.keys_dir);
    let named = keys_file(&log.dir);
    let is_named = read_text(&named).is_ok_and(|text| text.is_some_and(|text| !text.is_empty()));
    let found = if is_named { Some(named) } else { Some(seed).filter(|seed| seed.exists()) };
    let found = found.filter(|found| options.credential.is_none() || *found == keys_file(&log.dir))?;
    Some(format!(
        "no entry names a key although {} is there: the entry that did was removed, or an older ledger was put in its place",
        found.display()
    ))
}
