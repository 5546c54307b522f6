//! A consistent copy of the store while it is in use: the segments as they lie, and what `state.redb` says about them.
//!
//! What is in memory is sealed first. Then the files are pinned and one read transaction is opened that names the same files;
//! the database is copied out of that transaction into a file of its own, so that the copy was closed in order and holds
//! nothing of a later change. Writing goes on meanwhile. The collectors' logs are not part of it: what they hold beyond the
//! watermarks comes later than the copy.

use std::collections::{BTreeMap, HashSet};
use std::fs;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use daemoneye_lib::proto::Sequence;
use redb::{Builder, Durability, Key, ReadTransaction, TableDefinition, TableHandle as _, Value, WriteTransaction};
use serde_json::{Value as Json, json};

use super::hash::hash;
use super::open::{STATE_FILE, registered};
use super::seal::SEGMENTS_DIR;
use super::segment::SegmentFile;
use super::state::{every_table, watermarks};
use super::{FORMAT_VERSION, Store, StoreError, audit, damage};

/// What the copy says about itself, beside `state.redb`.
pub(super) const MANIFEST_FILE: &str = "backup-manifest.json";
/// Attempts to pin what a transaction names: each fails only when a seal or a merge came between two lines.
const PIN_ATTEMPTS: usize = 16;
/// Page cache of the copy under way.
const COPY_CACHE_BYTES: usize = 4 * 1024 * 1024;
/// Ends the name of a file that the next start removes from `segments/`.
const SCRATCH_END: &str = "redb.tmp";

/// One file of a copy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BackupFile {
    /// Where it goes, relative, with `/` between its parts.
    pub path: String,
    /// Its length.
    pub bytes: u64,
    /// BLAKE3 of it; of a segment the one that it was registered with.
    pub hash: [u8; 32],
    source: PathBuf,
}

impl BackupFile {
    /// Opens it for reading, from its beginning.
    ///
    /// # Errors
    /// [`StoreError::Io`] when it is gone or cannot be read.
    pub fn open(&self) -> Result<impl Read + use<>, StoreError> {
        crate::store::file::open(&self.source).map_err(StoreError::io("open", &self.source))
    }

    /// The error of a read that failed.
    #[must_use]
    pub fn unreadable(&self, source: io::Error) -> StoreError {
        StoreError::Io { action: "read", path: self.source.clone(), source }
    }
}

/// A copy that can be read out; its files stay for as long as this lives.
#[derive(Debug)]
pub struct Backup {
    files: Vec<BackupFile>,
    missing: Vec<String>,
    sealed: Vec<(String, Sequence)>,
    manifest: String,
    _pinned: Vec<Arc<SegmentFile>>,
    _scratch: Scratch,
}

impl Backup {
    /// What belongs to it, the database first.
    #[must_use]
    pub fn files(&self) -> &[BackupFile] {
        &self.files
    }

    /// Registered segments that are not there, so that the copy lacks them too.
    #[must_use]
    pub fn missing(&self) -> &[String] {
        &self.missing
    }

    /// The watermarks that sealing has moved: the collectors may trim their logs up to there.
    #[must_use]
    pub fn sealed(&self) -> &[(String, Sequence)] {
        &self.sealed
    }

    /// The text of `backup-manifest.json`: what the copy holds and up to where, with the hash of each file.
    #[must_use]
    pub fn manifest(&self) -> &str {
        &self.manifest
    }

    /// Bytes of all files.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.files.iter().fold(0, |sum, file| sum.saturating_add(file.bytes))
    }
}

impl Store {
    /// Seals what is in memory and prepares a copy of everything that is stored.
    ///
    /// # Errors
    /// [`StoreError::MisuseOffline`] for a copied store (copy the directory itself: nothing changes it), else what went wrong
    /// while sealing or copying.
    pub fn begin_backup(&self) -> Result<Backup, StoreError> {
        if self.state.is_offline() {
            return Err(StoreError::MisuseOffline);
        }
        let sealed = self.seal()?;
        let segments = self.options.dir.join(SEGMENTS_DIR);
        let (transaction, pinned) = self.pinned(&segments)?;
        let scratch = Scratch::beside(&segments);
        damage::guarded(&scratch.0, || copy(&transaction, &scratch.0))?;
        let state = BackupFile {
            path: STATE_FILE.to_owned(),
            bytes: scratch.0.metadata().map_err(StoreError::io("look at", &scratch.0))?.len(),
            hash: hash(&scratch.0).map_err(StoreError::io("read", &scratch.0))?,
            source: scratch.0.clone(),
        };
        let (there, missing): (Vec<_>, Vec<_>) = pinned.iter().partition(|file| file.path.exists());
        let missing: Vec<String> = missing.into_iter().map(|file| name(&file.path)).collect();
        let files: Vec<BackupFile> = std::iter::once(state).chain(there.into_iter().map(|file| of(file))).collect();
        let marks = watermarks(&transaction)?;
        let manifest = format!("{:#}\n", self.manifest(&files, &missing, marks));
        Ok(Backup { files, missing, sealed, manifest, _pinned: pinned, _scratch: scratch })
    }

    /// A read transaction, and the files that it names held so that nobody deletes them.
    fn pinned(&self, dir: &Path) -> Result<(ReadTransaction, Vec<Arc<SegmentFile>>), StoreError> {
        for _ in 0..PIN_ATTEMPTS {
            let held = self.every_file()?;
            let transaction = self.state.read()?;
            let named: HashSet<u64> = registered(&transaction, dir)?.iter().map(|file| file.id).collect();
            let pinned: Vec<Arc<SegmentFile>> = held.into_iter().filter(|file| named.contains(&file.id)).collect();
            if pinned.len() == named.len() {
                return Ok((transaction, pinned));
            }
        }
        Err(StoreError::Changing)
    }

    /// Every registered file, also those that cannot be read.
    pub(super) fn every_file(&self) -> Result<Vec<Arc<SegmentFile>>, StoreError> {
        Ok(self.held.read().map_err(|_| StoreError::LockPoisoned)?.every_file().cloned().collect())
    }

    fn manifest(&self, files: &[BackupFile], missing: &[String], marks: BTreeMap<String, Sequence>) -> Json {
        let marks: serde_json::Map<String, Json> =
            marks.into_iter().map(|(collector, at)| (collector, at.to_string().into())).collect();
        let file =
            |file: &BackupFile| json!({ "path": file.path, "bytes": file.bytes, "blake3": hex::encode(file.hash) });
        json!({
            "manifest": 1,
            "format_version": FORMAT_VERSION,
            "build": daemoneye_lib::BUILD,
            "host": self.options.host,
            "created_us": audit::now_us(),
            "watermarks": marks,
            "files": files.iter().map(file).collect::<Vec<_>>(),
            "missing": missing,
        })
    }
}

fn of(file: &SegmentFile) -> BackupFile {
    // The length on disk: of a damaged file it is another than the registered one.
    let bytes = file.path.metadata().map_or(file.bytes, |found| found.len());
    BackupFile {
        path: format!("{SEGMENTS_DIR}/{}", name(&file.path)),
        bytes,
        hash: file.hash,
        source: file.path.clone(),
    }
}

fn name(path: &Path) -> String {
    path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default()
}

/// Everything that `from` sees, in a new database at `path`.
fn copy(from: &ReadTransaction, path: &Path) -> Result<(), StoreError> {
    let made = Builder::new().set_cache_size(COPY_CACHE_BYTES).create(path);
    let db = made.map_err(|error| StoreError::IoState(Box::new(error.into())))?;
    let mut to = db.begin_write()?;
    to.set_durability(Durability::Immediate)?;
    every_table!(copy_table, from, &to);
    let left_out = {
        let copied: HashSet<String> = to.list_tables()?.map(|table| table.name().to_owned()).collect();
        from.list_tables()?.find(|table| !copied.contains(table.name())).map(|table| table.name().to_owned())
    };
    if let Some(table) = left_out {
        return Err(StoreError::CorruptState { table, what: "this build does not know the table".to_owned() });
    }
    to.commit()?;
    Ok(())
}

fn copy_table<K: Key + 'static, V: Value + 'static>(
    from: &ReadTransaction,
    to: &WriteTransaction,
    table: TableDefinition<'_, K, V>,
) -> Result<(), StoreError> {
    use redb::ReadableTable as _;
    let mut target = to.open_table(table)?;
    for entry in from.open_table(table)?.iter()? {
        let (key, value) = entry?;
        target.insert(key.value(), value.value())?;
    }
    Ok(())
}

/// A file that goes when this goes; what a crash leaves, the next start removes.
#[derive(Debug)]
struct Scratch(PathBuf);

impl Scratch {
    fn beside(segments: &Path) -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        Self(segments.join(format!("backup-{}-{number}.{SCRATCH_END}", std::process::id())))
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        match fs::remove_file(&self.0) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                tracing::warn!(path = %self.0.display(), %error, "a scratch file stays until the next start");
            }
            _ => {}
        }
    }
}
