//! Signs what the ledger's tree is: checkpoints, and the hand-over from one key to the next.
//!
//! Nothing is signed that does not continue the newest checkpoint: a ledger that was cut, put back or rewritten goes on without
//! signatures and says so, because a signature would turn the change into history.

use std::path::PathBuf;

use daemoneye_lib::ledger::checkpoint::{self, Checkpoint};
use daemoneye_lib::ledger::keys::{CREATED, KeyEntry, ROTATED, rotation_note};
use daemoneye_lib::ledger::note::{NoteSigner, VerifierKey};
use daemoneye_lib::ledger::notes::{StoredCheckpoints, checkpoint_file, checkpoints_log, keys_file, read_text};
use daemoneye_lib::ledger::tiles::Tile;
use daemoneye_lib::ledger::tree::TreeHash;

use super::Draft;
use super::growth::{Grown, UnsyncedTiles, write_tile, write_whole};
use super::seed::{SeedError, Seeds};
use super::twin;
use crate::error::CollectorError;
use crate::writer::LogOptions;

/// A ledger with a tree, and who signs it.
#[derive(Debug, Clone)]
pub struct TreeOptions {
    /// What a new tree is hashed with; one that exists keeps its own.
    pub hash: TreeHash,
    /// Names the ledger: the machine's id.
    pub machine: String,
    /// Who writes the entries that name keys.
    pub actor: String,
    /// Where the seed of the key is.
    pub keys_dir: PathBuf,
    /// The seed in a file of the service manager, in place of the directory's.
    pub credential: Option<PathBuf>,
}

/// Why a checkpoint was not made.
#[derive(Debug, thiserror::Error)]
pub enum SigningError {
    /// The files cannot be written.
    #[error(transparent)]
    Disk(#[from] CollectorError),
    /// There is no key, or no new one.
    #[error("{0}")]
    Key(String),
    /// The ledger does not continue what was signed before.
    #[error("nothing is signed: {0}")]
    Refused(String),
}

impl From<SeedError> for SigningError {
    fn from(error: SeedError) -> Self {
        Self::Key(error.to_string())
    }
}

/// Who signs, and what was signed last.
pub(super) struct Signing {
    log: LogOptions,
    seeds: Seeds,
    actor: String,
    signer: Result<NoteSigner, String>,
    keys: Vec<VerifierKey>,
    /// The signer's entry is written, its seed and the file of keys not yet.
    handing_over: bool,
    unsynced: UnsyncedTiles,
    last_size: u64,
    log_end: u64,
}

/// Whether a key is new to the ledger, which then has to name it.
pub(super) struct Begun {
    pub(super) signing: Signing,
    pub(super) entry: Option<Draft>,
}

impl Signing {
    pub(super) fn begin(log: &LogOptions, options: TreeOptions, grown: Grown) -> Result<Begun, CollectorError> {
        let Grown { stored, unsynced, keys: seen, all_keys, refused, .. } = grown;
        let text = read_text(&keys_file(&log.dir))?.unwrap_or_default();
        let mut keys: Vec<VerifierKey> = text.lines().filter_map(|line| line.parse().ok()).collect();
        if all_keys && !seen.is_empty() {
            keys.clear();
        }
        let known = keys.clone();
        keys.extend(seen.into_iter().filter(|key| !known.contains(key)));
        let mut signing = Self {
            log: log.clone(),
            seeds: Seeds { dir: options.keys_dir, credential: options.credential },
            actor: options.actor,
            signer: Err(String::new()),
            keys,
            handing_over: false,
            unsynced,
            last_size: stored.newest.as_ref().map_or(0, |newest| newest.checkpoint.size),
            log_end: stored.log_end,
        };
        let origin = checkpoint::origin(&options.machine);
        let name = signing.keys.last().map_or(origin, |key| key.name().to_owned());
        let mut entry = None;
        signing.signer = match refused {
            Some(why) => Err(why),
            None => signing.key(&name, &stored, &mut entry),
        };
        if signing.signer.is_ok() {
            signing.mend(&stored)?;
        }
        Ok(Begun { signing, entry })
    }

    /// The key that the ledger names last; a new one for a ledger that names none.
    fn key(
        &mut self,
        name: &str,
        stored: &StoredCheckpoints,
        entry: &mut Option<Draft>,
    ) -> Result<NoteSigner, String> {
        let say = |error: SeedError| error.to_string();
        let current = self.seeds.current(name).map_err(say)?;
        let signed = |key: &VerifierKey| {
            stored.newest.as_ref().is_none_or(|newest| Checkpoint::verified(&newest.note, key).is_ok())
        };
        let Some(expected) = self.keys.last().cloned() else {
            let signer = match current {
                Some(signer) => signer,
                None => {
                    // In its place when the ledger names it: a seed there says that the ledger is one with a key.
                    self.handing_over = true;
                    self.seeds.make_next(name).map_err(say)?
                }
            };
            if !signed(signer.verifier()) {
                return Err("the newest checkpoint was signed by another key than the one that is there".to_owned());
            }
            if stored.newest.is_none() {
                *entry = Some(self.draft(CREATED, signer.verifier(), String::new()));
            }
            self.keys.push(signer.verifier().clone());
            return Ok(signer);
        };
        let signer = match current.filter(|signer| *signer.verifier() == expected) {
            Some(signer) => signer,
            None => {
                let next = self.seeds.next(name).map_err(say)?.filter(|signer| *signer.verifier() == expected);
                let next =
                    next.ok_or("the seed of the key that the ledger names is gone, or another was put in its place")?;
                self.seeds.adopt_next().map_err(say)?;
                next
            }
        };
        if !self.keys.iter().any(signed) {
            return Err("the newest checkpoint was signed by none of the ledger's keys".to_owned());
        }
        // Not before: the seed that waits may be the one that signed.
        self.seeds.drop_next();
        Ok(signer)
    }

    fn draft(&self, action: &'static str, key: &VerifierKey, note: String) -> Draft {
        Draft::now(&self.actor, action, KeyEntry { key: key.clone(), note }.payload())
    }

    /// Finishes what a crash broke off between two files.
    fn mend(&mut self, stored: &StoredCheckpoints) -> Result<(), CollectorError> {
        if let Some(newest) = stored.newest.as_ref().filter(|_| stored.unlogged) {
            self.append_to_log(&newest.note)?;
        }
        // A crash between the two, or a build that kept none. The next checkpoint makes up for one that cannot be written.
        if let Some(newest) = stored.newest.as_ref().filter(|newest| !twin::is(&self.seeds, &newest.note))
            && let Err(error) = twin::write(&self.log, &self.seeds, &newest.note)
        {
            tracing::warn!(%error, "the newest checkpoint is not kept beside the seed");
        }
        Ok(())
    }

    /// Behind the entry that names a first key.
    pub(super) fn settle(&mut self) -> Result<(), CollectorError> {
        self.write_keys()?;
        if let Err(error) = self.finish_hand_over() {
            tracing::warn!(%error, "the new seed is not in its place yet; the next checkpoint makes up for it");
        }
        Ok(())
    }

    /// Writes the file of keys; behind the entry that names the newest one.
    fn write_keys(&self) -> Result<(), CollectorError> {
        let text: String = self.keys.iter().map(|key| format!("{key}\n")).collect();
        let path = keys_file(&self.log.dir);
        match read_text(&path)? {
            Some(found) if found == text => Ok(()),
            _ => write_whole(&self.log, &path, text.as_bytes()),
        }
    }

    /// Why nothing is signed.
    pub(super) fn refused(&self) -> Option<&str> {
        self.signer.as_ref().err().map(String::as_str)
    }

    pub(super) fn write_tile(&self, tile: &Tile) -> Result<(), CollectorError> {
        write_tile(&self.log, tile)
    }

    /// Signs a tree and keeps the note; it is on disk when this returns. `None`: nothing is new.
    pub(super) fn sign(&mut self, hash: TreeHash, size: u64, root: [u8; 32]) -> Result<Option<String>, SigningError> {
        self.finish_hand_over()?;
        let signer = self.signer.as_ref().map_err(|why| SigningError::Refused(why.clone()))?;
        self.unsynced.sync_some(&self.log, hash, size)?;
        if size <= self.last_size {
            return Ok(None);
        }
        let checkpoint = Checkpoint { origin: signer.verifier().name().to_owned(), size, root };
        let note = checkpoint.sign(signer).map_err(|error| SigningError::Key(error.to_string()))?;
        // A note of which half is there is known by the checkpoint that it is half of, which is replaced now.
        self.cut_log()?;
        write_whole(&self.log, &checkpoint_file(&self.log.dir), note.as_bytes())?;
        self.last_size = size;
        self.append_to_log(&note)?;
        twin::write(&self.log, &self.seeds, &note)?;
        Ok(Some(note))
    }

    /// Cuts what a failed append left behind the whole notes.
    fn cut_log(&self) -> Result<(), CollectorError> {
        let path = checkpoints_log(&self.log.dir);
        let cut = match std::fs::metadata(&path) {
            Ok(found) if found.len() <= self.log_end => return Ok(()),
            Ok(_) => self.log.disk.open(&path).and_then(|file| file.truncate(self.log_end).and_then(|()| file.sync())),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
            Err(error) => Err(error),
        };
        cut.map_err(|e| CollectorError::io("cut", &path, e))
    }

    fn append_to_log(&mut self, note: &str) -> Result<(), CollectorError> {
        self.cut_log()?;
        let path = checkpoints_log(&self.log.dir);
        let failed = |e| CollectorError::io("write to", &path, e);
        let mut created = false;
        let file = self.log.disk.open(&path).or_else(|error| match error.kind() {
            std::io::ErrorKind::NotFound => {
                created = true;
                self.log.disk.create(&path, self.log.mode)
            }
            _ => Err(error),
        });
        let file = file.map_err(failed)?;
        let bytes = format!("{note}\n");
        file.write_at(bytes.as_bytes(), self.log_end).and_then(|()| file.sync()).map_err(failed)?;
        if created {
            self.log.directory.sync().map_err(failed)?;
        }
        self.log_end += bytes.len() as u64;
        Ok(())
    }

    /// Makes the next key; the draft is the entry by which the one before hands over.
    pub(super) fn next_key(&mut self) -> Result<(NoteSigner, Draft), SigningError> {
        // The next seed would replace the one that waits.
        self.finish_hand_over()?;
        let signer = self.signer.as_ref().map_err(|why| SigningError::Refused(why.clone()))?;
        let next = self.seeds.make_next(signer.verifier().name())?;
        let note = rotation_note(signer, next.verifier()).map_err(|error| SigningError::Key(error.to_string()))?;
        let draft = self.draft(ROTATED, next.verifier(), note);
        Ok((next, draft))
    }

    /// Signs with the next key from here on; its entry is on disk.
    pub(super) fn hand_over(&mut self, next: NoteSigner) -> Result<(), SigningError> {
        self.keys.push(next.verifier().clone());
        self.signer = Ok(next);
        self.handing_over = true;
        self.finish_hand_over()
    }

    /// Before anything is signed with the new key: a start looks for keys behind the newest checkpoint only, and would not find
    /// this one any more.
    fn finish_hand_over(&mut self) -> Result<(), SigningError> {
        let Some(signer) = self.signer.as_ref().ok().filter(|_| self.handing_over) else { return Ok(()) };
        let verifier = signer.verifier();
        self.write_keys()?;
        // A try before may have got as far as the rename.
        match self.seeds.current(verifier.name())? {
            Some(current) if current.verifier() == verifier => self.seeds.sync_dir()?,
            _ => self.seeds.adopt_next()?,
        }
        self.handing_over = false;
        Ok(())
    }
}
