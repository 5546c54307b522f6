//! The files: each as it was registered, and none that nobody knows.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::io::{self, Read as _};
use std::path::Path;
use std::sync::Arc;

use datafusion::parquet::file::metadata::ParquetMetaData;
use datafusion::parquet::file::reader::{FileReader as _, SerializedFileReader};
use datafusion::parquet::file::statistics::Statistics;
use redb::ReadableTable as _;

use super::super::backup::MANIFEST_FILE;
use super::super::file;
use super::super::hash::hash;
use super::super::open::{STATE_FILE, registered};
use super::super::seal::SEGMENTS_DIR;
use super::super::segment::SegmentFile;
use super::super::state::SEGMENTS;
use super::super::{Store, StoreError};
use super::{Fsck, OnProgress, shown};

const RESTORE: &str = "restore the file from a backup; until then its rows are missing from answers, which say so";
const UNREAD: &str =
    "see to its permissions and its disk, and check again; until then its rows are missing from answers, which say so";
const REGISTERED: &str = "restore the file and state.redb from a backup: its bytes are those that were registered, and answers have its rows";
const FOREIGN: &str =
    "look where it comes from; the next start moves it to segments/aside and tells of it in coverage";

impl Store {
    /// False when it was stopped.
    pub(super) fn check_history(&self, found: &mut Fsck, progress: &mut OnProgress<'_>) -> Result<bool, StoreError> {
        let dir = self.options.dir.join(SEGMENTS_DIR);
        // Held, so that no file goes while it is read.
        let held = self.every_file()?;
        let files = registered(&self.state.read()?, &dir)?;
        self.check_list(&files, found)?;
        let total = files.iter().fold(0_u64, |sum, file| sum.saturating_add(file.bytes));
        let mut done = 0_u64;
        for file in &files {
            if !progress(done, total) {
                return Ok(false);
            }
            let place = || format!("{SEGMENTS_DIR}/{}", shown(&file.path));
            // Gone since the list was made, because of its age or into a merged one.
            let is_here =
                || Ok::<_, StoreError>(held.iter().any(|pinned| pinned.id == file.id) || self.is_registered(file.id)?);
            match file.compare() {
                Ok(Ok(())) => {
                    self.use_again(&[Arc::new(file.clone())])?;
                    if let Err(what) = check_footer(file) {
                        found.report(place(), what, REGISTERED);
                    }
                }
                Ok(Err(what)) if is_here()? => {
                    found.report(place(), file.look().err().unwrap_or_else(|| what.clone()), RESTORE);
                    self.set_aside(vec![(Arc::new(file.clone()), what)])?;
                }
                Ok(Err(_)) => {}
                // It may pass; a query that needs it looks again, and says so.
                Err(error) => found.report(place(), format!("it cannot be read: {error}"), UNREAD),
            }
            done = done.saturating_add(file.bytes);
            found.segments = found.segments.saturating_add(1);
            found.segment_bytes = found.segment_bytes.saturating_add(file.bytes);
            found.segment_rows = found.segment_rows.saturating_add(file.rows);
        }
        self.check_foreign(&dir, found)?;
        check_manifest(&self.options.dir, self.state.is_offline(), found);
        Ok(progress(done, total))
    }

    /// What the list says of itself and of the watermarks.
    fn check_list(&self, files: &[SegmentFile], found: &mut Fsck) -> Result<(), StoreError> {
        let (last, marks) = (self.last_segment()?, self.state.watermarks()?);
        let (mut ids, mut names) = (HashSet::new(), HashSet::new());
        for entry in self.state.read()?.open_table(SEGMENTS)?.iter()? {
            let (at, row) = entry?;
            let (table, first_us, id) = at.value();
            let Ok(row) = row.value().decode() else { continue };
            let place = format!("state.redb, segments {table} {id}");
            if first_us != row.first_us || row.last_us < row.first_us || !row.file.starts_with(table) {
                found.report(&place, "its key, file name and time range contradict each other", RESTORE);
            }
            if !ids.insert(id) {
                found.report(&place, "the number is given twice", RESTORE);
            }
            if !names.insert(row.file.clone()) {
                found.report(
                    &place,
                    format!("{} is registered twice: answers have its rows twice", row.file),
                    RESTORE,
                );
            }
            if id > last && !self.is_newer(id)? {
                found.report(&place, format!("the counter of segments stands at {last}"), RESTORE);
            }
        }
        for file in files {
            let ahead = file.ranges.iter().find(|range| {
                let mark = marks.get(&range.collector).map_or((0, 0), daemoneye_lib::proto::Sequence::key);
                range.first > range.last || range.last > mark
            });
            if let Some(range) = ahead {
                let what = format!("the events of {} reach beyond its watermark", range.collector);
                let place = format!("state.redb, segments {}", file.id);
                // Sealed between the two reads of a live store.
                if self.state.is_offline() || range.first > range.last || !self.has_moved_to(range.last, range)? {
                    found.report(place, what, "restore state.redb from a backup");
                }
            }
        }
        Ok(())
    }

    fn is_newer(&self, id: u64) -> Result<bool, StoreError> {
        Ok(id <= self.last_segment()?)
    }

    fn has_moved_to(
        &self,
        last: (u64, u64),
        range: &super::super::segment::SequenceRange,
    ) -> Result<bool, StoreError> {
        Ok(self.state.watermarks()?.get(&range.collector).is_some_and(|mark| mark.key() >= last))
    }

    fn is_registered(&self, id: u64) -> Result<bool, StoreError> {
        Ok(registered(&self.state.read()?, Path::new(""))?.iter().any(|file| file.id == id))
    }

    /// Parquet files that the list does not have.
    fn check_foreign(&self, dir: &Path, found: &mut Fsck) -> Result<(), StoreError> {
        let unknown = self.unknown(dir)?;
        if unknown.is_empty() {
            return Ok(());
        }
        // Once more: one that was being sealed or deleted is known, or gone, by now.
        let still = self.unknown(dir)?;
        for name in unknown.intersection(&still) {
            found.report(format!("{SEGMENTS_DIR}/{name}"), "state.redb does not know this segment", FOREIGN);
        }
        Ok(())
    }

    /// Without those that a seal has not registered yet or that are about to go.
    fn unknown(&self, dir: &Path) -> Result<HashSet<String>, StoreError> {
        let (_, strays) = self.unregistered(dir)?;
        Ok(strays.iter().map(|file| shown(&file.path)).collect())
    }
}

/// Rows and time range of one.
fn check_footer(file: &SegmentFile) -> Result<(), String> {
    let opened = file::open(&file.path).map_err(|error| error.to_string())?;
    let reader = SerializedFileReader::new(opened).map_err(|error| format!("it is no sound Parquet file: {error}"))?;
    let metadata = reader.metadata();
    let rows = u64::try_from(metadata.file_metadata().num_rows()).unwrap_or_default();
    if rows != file.rows {
        return Err(format!("it has {rows} rows, {} were registered", file.rows));
    }
    let of_collectors = file.ranges.iter().fold(0_u64, |sum, range| sum.saturating_add(range.rows));
    if !file.ranges.is_empty() && of_collectors != rows {
        return Err(format!("it has {rows} rows, its collectors have {of_collectors} in it"));
    }
    match bounds(metadata, "time") {
        Some(times) if times != (file.first_us, file.last_us) => {
            let (from, to) = times;
            Err(format!(
                "its times reach from {from} to {to} µs, {} to {} were registered",
                file.first_us, file.last_us
            ))
        }
        _ => Ok(()),
    }
}

/// Smallest and largest value of an integer column, as the footer tells; `None` where it does not.
fn bounds(metadata: &ParquetMetaData, column: &str) -> Option<(i64, i64)> {
    let groups = metadata.row_groups().iter();
    let one = |statistics: &Statistics| match statistics {
        Statistics::Int64(known) => Some((*known.min_opt()?, *known.max_opt()?)),
        _ => None,
    };
    let columns =
        groups.filter_map(|group| group.columns().iter().find(|known| known.column_path().string() == column));
    columns.map(|known| known.statistics().and_then(one)).try_fold(None, |all: Option<(i64, i64)>, next| {
        let (low, high) = next?;
        Some(Some(all.map_or((low, high), |(from, to)| (from.min(low), to.max(high)))))
    })?
}

/// A backup also says what its files were; only the database is covered by nothing else. One that is in use has moved on.
fn check_manifest(dir: &Path, offline: bool, found: &mut Fsck) {
    let read = || -> io::Result<String> {
        let mut text = String::new();
        file::open(&dir.join(MANIFEST_FILE))?.read_to_string(&mut text)?;
        Ok(text)
    };
    if !offline {
        return;
    }
    let advice = "take another backup; this one was changed after it was made";
    let files = match read() {
        Ok(text) => listed(&text).filter(|files| files.contains_key(STATE_FILE)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return,
        Err(error) => return found.report(MANIFEST_FILE, format!("it cannot be read: {error}"), advice),
    };
    let Some(files) = files else {
        return found.report(MANIFEST_FILE, format!("it is no list of files with {STATE_FILE} among them"), advice);
    };
    for (path, expected) in files {
        // A segment was compared with its registered hash already.
        if path.starts_with(SEGMENTS_DIR) {
            if !dir.join(&path).exists() {
                found.report(path, "it is in the manifest and not there", advice);
            }
            continue;
        }
        match hash(&dir.join(&path)) {
            Ok(known) if hex::encode(known) == expected => {}
            Ok(_) => found.report(path, "its bytes are not those of the backup", advice),
            Err(error) => found.report(path, error.to_string(), advice),
        }
    }
}

/// Path and hash of each file of a manifest.
fn listed(text: &str) -> Option<BTreeMap<String, String>> {
    let document: HashMap<String, serde_json::Value> = serde_json::from_str(text).ok()?;
    let one = |file: &serde_json::Value| {
        let (path, hash) = (file.get("path")?.as_str()?, file.get("blake3")?.as_str()?);
        // Never out of the directory, whatever it says.
        let inside = Path::new(path).components().all(|part| matches!(part, std::path::Component::Normal(_)));
        inside.then(|| (path.to_owned(), hash.to_owned()))
    };
    document.get("files")?.as_array()?.iter().map(one).collect()
}
