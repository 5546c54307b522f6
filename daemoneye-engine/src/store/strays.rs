//! Files in `segments/` that `state.redb` does not know.
//!
//! Only two kinds are removed, because their events are told or kept elsewhere: what a crash left between rename and
//! transaction (the number after the last registered one: its events are in no watermark, so the collector sends them again,
//! or in the segments that were to be merged), and what retention or compaction had taken out of the list but not off the
//! disk. Everything else may be the only copy of history: it is
//! moved to `segments/aside/` and told in `coverage`. Without any state nothing is touched and nothing is opened.

use std::collections::HashSet;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::UNIX_EPOCH;

use daemoneye_lib::proto::{CoverageGap, Sequence};

use super::backup::MANIFEST_FILE;
use super::history::HistoryTable;
use super::open::{STATE_FILE, registered};
use super::{Store, StoreError, reason};
use crate::ingest::GapAt;

/// Where files go that nobody can place; under `segments/`.
const ASIDE_DIR: &str = "aside";
/// Numbers that one seal gives: one for each table that has rows.
const SEALED_AT_ONCE: u64 = 2;
/// Files that can be left with the next numbers: those of a failed seal, of the one after it, and a merge's, with other times
/// in their names.
const LEFTOVERS: usize = 5;

/// A Parquet file in `segments/`.
#[derive(Debug)]
pub(super) struct Found {
    pub(super) path: PathBuf,
    /// Table, earliest time and number, when the name is one of ours.
    name: Option<(HistoryTable, i64, u64)>,
}

/// Whether there is no database, or an empty file in its place.
pub(super) fn is_without_state(state: &Path) -> bool {
    match fs::metadata(state) {
        Ok(found) => found.len() == 0,
        Err(error) => error.kind() == io::ErrorKind::NotFound,
    }
}

/// Refuses a directory whose segments have lost their `state.redb`.
pub(super) fn refuse_without_state(state: &Path, segments: &Path) -> Result<(), StoreError> {
    let files = if is_without_state(state) { files(segments)?.len() } else { 0 };
    if files == 0 { Ok(()) } else { Err(no_state(state, segments, files)) }
}

fn no_state(state: &Path, segments: &Path, files: usize) -> StoreError {
    StoreError::CorruptNoState { path: state.to_owned(), segments: segments.to_owned(), files }
}

/// The Parquet files of `dir`; none when it does not exist.
fn files(dir: &Path) -> Result<Vec<Found>, StoreError> {
    let entries = match fs::read_dir(dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries.map_err(StoreError::unreadable(dir))?,
    };
    let mut found = Vec::new();
    for entry in entries {
        let path = entry.map_err(StoreError::unreadable(dir))?.path();
        if path.extension().is_some_and(|end| end == "parquet") {
            let name = path.file_stem().and_then(|name| name.to_str()).and_then(parse);
            found.push(Found { path, name });
        }
    }
    found.sort_by_key(|file| file.name);
    Ok(found)
}

fn parse(name: &str) -> Option<(HistoryTable, i64, u64)> {
    let (table, rest) = HistoryTable::of_file(name)?;
    let (first_us, id) = rest.rsplit_once('-')?;
    Some((table, first_us.parse().ok()?, id.parse().ok()?))
}

impl Store {
    /// Removes what a crash left and what nobody lists any more, moves aside what nobody can place.
    pub(super) fn tidy(&self, dir: &Path) -> Result<(), StoreError> {
        // From the first change on, a restored backup is no longer what its manifest says.
        match fs::remove_file(self.options.dir.join(MANIFEST_FILE)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                tracing::warn!(%error, "the manifest of the backup stays");
            }
            _ => {}
        }
        for entry in fs::read_dir(dir).map_err(StoreError::unreadable(dir))? {
            let path = entry.map_err(StoreError::unreadable(dir))?.path();
            if path.extension().is_some_and(|end| end == "tmp") {
                self.remove(&path)?;
            }
        }
        let (removable, strays) = self.unregistered(dir)?;
        for file in &removable {
            self.remove(&file.path)?;
        }
        let left: Vec<u64> = self.leaving()?.into_iter().map(|(id, _)| id).collect();
        self.forget_leaving(&left)?;
        strays.iter().try_for_each(|file| self.put_aside(dir, file))
    }

    /// Tells of the events in an offline copy that no list has.
    pub(super) fn note_strays(&mut self, dir: &Path) -> Result<(), StoreError> {
        let (_, strays) = self.unregistered(dir)?;
        let held = self.held.get_mut().map_err(|_| StoreError::LockPoisoned)?;
        held.open.gaps.extend(strays.iter().map(|file| GapAt { at: Sequence::new(0, 0), gap: gap(file) }));
        Ok(())
    }

    /// The files that may go, and the strays.
    pub(super) fn unregistered(&self, dir: &Path) -> Result<(Vec<Found>, Vec<Found>), StoreError> {
        let known: HashSet<PathBuf> =
            registered(&self.state.read()?, dir)?.into_iter().map(|file| file.path).collect();
        let unknown: Vec<Found> = files(dir)?.into_iter().filter(|file| !known.contains(&file.path)).collect();
        let last = self.last_segment()?;
        let above: Vec<u64> =
            unknown.iter().filter_map(|file| file.name).map(|(_, _, id)| id).filter(|id| *id > last).collect();
        let unfinished = above.len() <= LEFTOVERS && above.iter().all(|id| id.saturating_sub(last) <= SEALED_AT_ONCE);
        if last == 0 && !unknown.is_empty() && !(unfinished && above.len() == unknown.len()) {
            return Err(no_state(&self.options.dir.join(STATE_FILE), dir, unknown.len()));
        }
        let leaving: HashSet<PathBuf> = self.leaving()?.into_iter().map(|(_, name)| dir.join(name)).collect();
        Ok(unknown.into_iter().partition(|file| {
            leaving.contains(&file.path) || file.name.is_some_and(|(_, _, id)| id > last && unfinished)
        }))
    }

    fn put_aside(&self, dir: &Path, file: &Found) -> Result<(), StoreError> {
        let aside = dir.join(ASIDE_DIR);
        fs::create_dir_all(&aside).map_err(StoreError::io("create", &aside))?;
        self.disk.sync_dir(dir).map_err(StoreError::io("sync", dir))?;
        let target = aside.join(file.path.file_name().unwrap_or_default());
        tracing::error!(
            path = %file.path.display(), aside = %target.display(),
            "state.redb does not know this segment; it is moved aside and its events are missing from every answer"
        );
        self.add_coverage(gap(file))?;
        self.disk.rename(&file.path, &target).map_err(StoreError::io("move aside", &file.path))?;
        // Its new name before its old one is gone: a power cut in between leaves it twice, not nowhere.
        for synced in [&aside, dir] {
            self.disk.sync_dir(synced).map_err(StoreError::io("sync", synced))?;
        }
        Ok(())
    }

    fn remove(&self, path: &Path) -> Result<(), StoreError> {
        tracing::info!(path = %path.display(), "removing what an unfinished seal or retention left");
        self.disk.remove(path).map_err(StoreError::io("remove", path))
    }
}

/// Its events lie between the time in its name and the time it was written; without a name anywhere before that.
fn gap(file: &Found) -> CoverageGap {
    let written = fs::metadata(&file.path).and_then(|found| found.modified()).ok();
    let written = written.and_then(|at| at.duration_since(UNIX_EPOCH).ok());
    let written_us = written.and_then(|at| i64::try_from(at.as_micros()).ok()).unwrap_or_else(super::audit::now_us);
    let from_us = file.name.map_or(0, |(_, first_us, _)| first_us);
    CoverageGap {
        collector: String::new(),
        reason: reason::SEGMENTS_UNREGISTERED.to_owned(),
        from_us,
        to_us: written_us.max(from_us),
        count: None,
        detail: format!(
            "state.redb does not know {}; move it back when a state.redb that does is restored",
            file.path.file_name().unwrap_or_default().display()
        ),
        first: None,
        last: None,
    }
}
