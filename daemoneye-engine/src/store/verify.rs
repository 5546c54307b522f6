//! Reading the history from end to end, slowly, so that a file whose bytes have changed is known before anybody needs it.
//!
//! What is damaged is set aside, and used again when it is as it was written, because a disk is back or somebody has put
//! the file back: it is named in coverage, answers about its time say that they lack it, and all other files
//! answer as before.

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError};

use daemoneye_lib::proto::{CoverageGap, Sequence};
use serde_json::json;

use super::hash::{CHANGED, Hashing};
use super::segment::{DamagedSegment, SegmentFile, is_damage};
use super::{SequenceRange, Store, StoreError, coverage, lifetimes, reason};

/// How far a pass over all segments has come. Between two steps it holds the one file that it is in the middle of.
#[derive(Debug, Default)]
pub struct Verification {
    reading: Option<Reading>,
    /// The last segment that is done; segments are read by number.
    after: u64,
}

#[derive(Debug)]
struct Reading {
    segment: Arc<SegmentFile>,
    hashing: Hashing,
}

impl Reading {
    fn of(segment: Arc<SegmentFile>) -> std::io::Result<Self> {
        Ok(Self { hashing: Hashing::open(&segment.path)?, segment })
    }

    /// Reads at most `bytes`; `Some` at the end of the file, with what is wrong with it.
    fn step(&mut self, bytes: &mut u64) -> std::io::Result<Option<Result<(), String>>> {
        let step = self.hashing.step(*bytes)?;
        *bytes = bytes.saturating_sub(step.bytes);
        Ok(step.hash.map(|hash| self.segment.judge(&hash, &self.hashing)))
    }
}

impl Store {
    /// Compares files with their registered hashes, those that are aside too, about `bytes` of them, and goes on where the last call with this `pass`
    /// stopped. Returns the segments that it set aside; `None` when all have been read, and the next call begins again.
    ///
    /// # Errors
    /// [`StoreError`] when `state.redb` fails, or a file cannot be read now.
    pub fn verify(&self, pass: &mut Verification, bytes: u64) -> Result<Option<Vec<DamagedSegment>>, StoreError> {
        let mut left = bytes;
        let mut bad = Vec::new();
        while left > 0 {
            let Some(mut reading) = pass.reading.take() else {
                match self.segment_after(pass.after) {
                    Some(segment) => match Reading::of(Arc::clone(&segment)) {
                        Ok(reading) => pass.reading = Some(reading),
                        Err(error) if is_damage(&error) => {
                            pass.after = segment.id;
                            bad.push((segment, error.to_string()));
                        }
                        // It may pass, and says nothing of the file: the next pass looks at it again, this one goes on behind it.
                        Err(error) => {
                            pass.after = segment.id;
                            return self.unread(bad, &segment, error);
                        }
                    },
                    None if bad.is_empty() => {
                        *pass = Verification::default();
                        return Ok(None);
                    }
                    None => break,
                }
                continue;
            };
            match reading.step(&mut left) {
                Ok(None) => pass.reading = Some(reading),
                Ok(Some(verdict)) => {
                    pass.after = reading.segment.id;
                    match verdict {
                        Ok(()) => self.use_again(&[reading.segment])?,
                        Err(what) => bad.push((reading.segment, what)),
                    }
                }
                Err(error) => {
                    pass.after = reading.segment.id;
                    return self.unread(bad, &reading.segment, error);
                }
            }
        }
        self.set_aside(bad).map(Some)
    }

    /// What was found before a file could not be read is told all the same.
    fn unread(
        &self,
        bad: Vec<(Arc<SegmentFile>, String)>,
        segment: &SegmentFile,
        error: std::io::Error,
    ) -> Result<Option<Vec<DamagedSegment>>, StoreError> {
        if bad.is_empty() {
            return Err(StoreError::io("read", &segment.path)(error));
        }
        self.set_aside(bad).map(Some)
    }

    /// The registered segment with the lowest number above `id`.
    fn segment_after(&self, id: u64) -> Option<Arc<SegmentFile>> {
        let held = self.held.read().unwrap_or_else(PoisonError::into_inner);
        held.every_file().filter(|file| file.id > id).min_by_key(|file| file.id).cloned()
    }

    /// Looks again at the files that were set aside because they could not be opened, were gone or cut short, and uses those
    /// that are whole now: a disk may have been away. A file whose bytes have changed is left to [`Store::verify`].
    ///
    /// # Errors
    /// [`StoreError`] when `state.redb` fails.
    pub fn take_back(&self) -> Result<(), StoreError> {
        let aside = self.held.read().map_err(|_| StoreError::LockPoisoned)?.damaged.clone();
        let (mut whole, mut changed) = (Vec::new(), Vec::new());
        for (file, what) in aside {
            if what == CHANGED || file.look().is_err() {
                continue;
            }
            match file.compare() {
                Ok(Ok(())) => whole.push(file),
                Ok(Err(what)) => changed.push((file.id, what)),
                // It may pass.
                Err(_) => {}
            }
        }
        let mut held = self.held.write().map_err(|_| StoreError::LockPoisoned)?;
        for (file, known) in &mut held.damaged {
            if let Some((_, what)) = changed.iter().find(|(id, _)| *id == file.id) {
                what.clone_into(known);
            }
        }
        drop(held);
        self.use_again(&whole)
    }

    /// Puts files that are whole back into the list, those of them that are aside; the ledger says so.
    pub(super) fn use_again(&self, whole: &[Arc<SegmentFile>]) -> Result<(), StoreError> {
        if self.held.read().map_err(|_| StoreError::LockPoisoned)?.damaged.is_empty() {
            return Ok(());
        }
        let mut held = self.held.write().map_err(|_| StoreError::LockPoisoned)?;
        let (back, aside) = std::mem::take(&mut held.damaged)
            .into_iter()
            .partition(|(file, _)| whole.iter().any(|whole| whole.id == file.id));
        held.damaged = aside;
        let back: Vec<(Arc<SegmentFile>, String)> = back;
        held.segments.extend(back.iter().map(|(file, _)| Arc::clone(file)));
        held.segments.sort_by_key(|file| (file.first_us, file.id));
        drop(held);
        for (file, what) in &back {
            let segment = file.path.file_name().unwrap_or_default().display().to_string();
            tracing::info!(path = %file.path.display(), %what, "a segment is whole again and used");
            let payload = json!({ "segment": segment, "rows": file.rows, "problem": what });
            if !self.state.is_offline() {
                self.audit_push("agent", "segment-restored", &payload)?;
            }
        }
        Ok(())
    }

    /// Uses these files no more and says so in coverage. Returns those that were in use.
    pub(super) fn set_aside(&self, bad: Vec<(Arc<SegmentFile>, String)>) -> Result<Vec<DamagedSegment>, StoreError> {
        let mut found = Vec::new();
        for (file, what) in bad {
            let mut held = self.held.write().map_err(|_| StoreError::LockPoisoned)?;
            let before = held.damaged.len();
            held.set_aside(file.id, what);
            found.extend(held.damaged_segments().into_iter().skip(before));
        }
        if !found.is_empty() {
            self.tell_damage()?;
        }
        Ok(found)
    }

    /// Compares the files that coverage names as damaged, before anybody reads them: the slow pass of an earlier run has found
    /// their bytes changed, and this run knows nothing of it yet.
    pub(super) fn remember_damage(&self) -> Result<(), StoreError> {
        let told = self.coverage()?;
        let names: Vec<&str> = told
            .iter()
            .filter(|row| row.gap.reason == reason::SEGMENT_DAMAGED)
            .filter_map(|row| named(&row.gap))
            .collect();
        if names.is_empty() {
            return Ok(());
        }
        let mut held = self.held.write().map_err(|_| StoreError::LockPoisoned)?;
        let is_named = |file: &SegmentFile| {
            let name = file.path.file_name().unwrap_or_default().to_string_lossy();
            names.iter().any(|told| *told == name)
        };
        let suspects: Vec<Arc<SegmentFile>> = held.segments.iter().filter(|file| is_named(file)).cloned().collect();
        for file in suspects {
            if let Ok(Err(what)) = file.compare() {
                held.set_aside(file.id, what);
            }
        }
        Ok(())
    }

    /// Writes down every damaged segment that coverage does not name yet.
    pub(super) fn tell_damage(&self) -> Result<(), StoreError> {
        let damaged = self.held.read().map_err(|_| StoreError::LockPoisoned)?.damaged.clone();
        if damaged.is_empty() || self.state.is_offline() {
            return Ok(());
        }
        let told: Vec<CoverageGap> = self.coverage()?.into_iter().map(|row| row.gap).collect();
        let gaps = damaged.iter().flat_map(|(file, what)| gaps(file, what));
        let is_told = |gap: &CoverageGap| told.iter().any(|row| tells(row, gap));
        let fresh: Vec<CoverageGap> = gaps.filter(|gap| !is_told(gap)).collect();
        if fresh.is_empty() {
            return Ok(());
        }
        self.state.write(|transaction| {
            let told: Result<Vec<_>, _> = fresh.iter().map(|gap| coverage::record_alone(transaction, gap)).collect();
            coverage::tell(transaction, self.options.audit_entries, told?)
        })
    }
}

/// The file that a row about damage names.
fn named(row: &CoverageGap) -> Option<&str> {
    row.detail.split_once(": ").map(|(name, _)| name)
}

/// Whether a row is about this damage, or about a part of it: a store of an earlier build has a row for each stretch of a file.
fn tells(row: &CoverageGap, gap: &CoverageGap) -> bool {
    let within = row.first.as_ref().map(Sequence::key) >= gap.first.as_ref().map(Sequence::key)
        && row.last.as_ref().map(Sequence::key) <= gap.last.as_ref().map(Sequence::key);
    (&row.reason, &row.collector, named(row)) == (&gap.reason, &gap.collector, named(gap)) && within
}

/// One for each collector: a file of lifetimes has many stretches of each, and what is wrong with it is one thing.
fn gaps(file: &SegmentFile, what: &str) -> Vec<CoverageGap> {
    let name = file.path.file_name().unwrap_or_default().display().to_string();
    let mut ranges = BTreeMap::new();
    file.ranges.iter().for_each(|range| lifetimes::extend(&mut ranges, range.clone()));
    let of = |range: SequenceRange| CoverageGap {
        collector: range.collector,
        reason: reason::SEGMENT_DAMAGED.to_owned(),
        from_us: file.first_us,
        to_us: file.last_us,
        count: Some(range.rows),
        detail: format!("{name}: {what}"),
        first: Some(Sequence::new(range.first.0, range.first.1)),
        last: Some(Sequence::new(range.last.0, range.last.1)),
    };
    ranges.into_values().map(of).collect()
}

#[cfg(test)]
mod tests {
    use super::super::dated::Dated;
    use super::super::file::Verified;
    use super::super::history::HistoryTable;
    use super::super::segment::SegmentFile;
    use super::*;

    fn lifetimes(ranges: &[(&str, u64, u64)]) -> SegmentFile {
        let of = |&(collector, first, last): &(&str, u64, u64)| SequenceRange {
            collector: collector.to_owned(),
            first: (1, first),
            last: (1, last),
            rows: last - first + 1,
        };
        SegmentFile {
            table: HistoryTable::ProcessLifetimes,
            path: "lifetimes/7.parquet".into(),
            id: 7,
            level: 1,
            rows: 0,
            bytes: 1,
            first_us: 5,
            last_us: 9,
            ranges: ranges.iter().map(of).collect(),
            hash: [0; 32],
            schema_version: 1,
            dated: Dated::default(),
            verified: Verified::default(),
        }
    }

    #[test]
    fn a_damaged_file_is_one_row_for_each_collector_however_many_stretches_it_has() {
        let told = gaps(&lifetimes(&[("a", 30, 39), ("a", 1, 10), ("b", 5, 5), ("a", 20, 21)]), CHANGED);
        let told: Vec<_> = told.iter().map(|gap| (gap.collector.as_str(), gap.count, gap.first, gap.last)).collect();
        let at = |number| Some(Sequence::new(1, number));
        assert_eq!(told, [("a", Some(22), at(1), at(39)), ("b", Some(1), at(5), at(5))]);
    }

    #[test]
    fn a_file_that_was_told_stretch_by_stretch_is_not_told_again() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(super::super::StoreOptions::new(dir.path())).unwrap();
        let damaged = |file: SegmentFile| {
            store.held.write().unwrap().damaged = vec![(Arc::new(file), "it is gone".to_owned())];
            store.tell_damage().unwrap();
            store.coverage().unwrap().len()
        };
        for stretch in [("a", 1, 10), ("a", 20, 29)] {
            damaged(lifetimes(&[stretch]));
        }
        assert_eq!(damaged(lifetimes(&[("a", 1, 10), ("a", 20, 29)])), 2, "as an earlier build told it");
        let other = SegmentFile { path: "lifetimes/8.parquet".into(), ..lifetimes(&[("a", 1, 29)]) };
        assert_eq!(damaged(other), 3, "another file is another damage");
    }
}
