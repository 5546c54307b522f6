//! What the store holds in memory: the open segment, the list of sealed ones, and how far each stream has been seen.

use std::collections::{BTreeMap, HashMap};
use std::mem;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use daemoneye_lib::proto::{CoverageGap, Sequence};
use datafusion::arrow::array::{AsArray as _, RecordBatch};
use datafusion::arrow::compute::concat_batches;
use datafusion::arrow::datatypes::Int64Type;
use datafusion::arrow::error::ArrowError;

use super::lifetimes::{self, Lifetimes};
use super::live::Live;
use super::segment::{DamagedSegment, SegmentFile, SequenceRange};
use super::tail::Cut;
use super::{Store, StoreError, audit, reason};
use crate::ingest::{EventBatch, GapAt};

/// Batches with fewer rows are merged: fifty columns of one row each weigh a hundred times their content.
const MERGE_BELOW_ROWS: usize = 1_024;
/// So many small batches are merged at once: merging two costs as much as merging all, and a query reads these as quickly.
const MERGE_BATCHES: usize = 64;
/// Open rows, as a multiple of the sealing bound, at which appending is refused: the disk has then failed for minutes.
const REFUSE_AT: usize = 8;

/// What an append did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Appended {
    /// Rows that entered the open segment.
    pub rows: usize,
    /// Rows that were there already.
    pub replayed: usize,
    /// The collector's high-water mark now.
    pub last: Sequence,
}

/// Events that no file holds yet.
#[derive(Debug, Default)]
pub(super) struct Open {
    pub(super) batches: Vec<RecordBatch>,
    pub(super) gaps: Vec<GapAt>,
    pub(super) ranges: BTreeMap<String, SequenceRange>,
    /// Processes that ended meanwhile.
    pub(super) lifetimes: Lifetimes,
    pub(super) rows: usize,
    /// Bytes of `batches`, the newest counted before they were merged.
    bytes: usize,
    since: Option<Instant>,
}

impl Open {
    pub(super) const fn bytes(&self) -> usize {
        self.bytes.saturating_add(self.lifetimes.bytes())
    }

    fn weigh(&mut self) {
        self.bytes = self.batches.iter().map(RecordBatch::get_array_memory_size).sum();
    }

    pub(super) fn is_empty(&self) -> bool {
        self.ranges.is_empty()
    }

    fn due(&self, rows: usize, bytes: usize, after: Duration) -> bool {
        self.rows.saturating_add(self.gaps.len()) >= rows
            || self.bytes() >= bytes
            || self.since.is_some_and(|since| since.elapsed() >= after)
    }

    pub(super) fn push(&mut self, batch: EventBatch) -> Result<(), ArrowError> {
        self.since.get_or_insert_with(Instant::now);
        let rows = batch.batch.num_rows();
        let range = SequenceRange {
            collector: batch.collector.to_string(),
            first: batch.first.key(),
            last: batch.last.key(),
            rows: rows as u64,
        };
        lifetimes::extend(&mut self.ranges, range);
        self.gaps.extend(batch.gaps);
        if rows > 0 {
            self.rows = self.rows.saturating_add(rows);
            self.bytes = self.bytes.saturating_add(batch.batch.get_array_memory_size());
            self.batches.push(batch.batch);
            self.merge()?;
        }
        Ok(())
    }

    /// Merges the small batches at the end when there are many of them.
    fn merge(&mut self) -> Result<(), ArrowError> {
        let small = self.batches.iter().rev().take_while(|batch| batch.num_rows() < MERGE_BELOW_ROWS).count();
        let at = self.batches.len().saturating_sub(small);
        if small >= MERGE_BATCHES
            && let Some([first, ..]) = self.batches.get(at..)
        {
            let merged = concat_batches(&first.schema(), self.batches.get(at..).unwrap_or_default())?;
            self.batches.truncate(at);
            self.batches.push(merged);
            self.weigh();
        }
        Ok(())
    }

    /// Puts back what could not be sealed, before what came since.
    pub(super) fn prepend(&mut self, earlier: &Self) {
        let later = mem::take(&mut self.batches);
        self.batches = earlier.batches.iter().cloned().chain(later).collect();
        self.gaps.splice(0..0, earlier.gaps.iter().cloned());
        for range in earlier.ranges.values() {
            lifetimes::extend(&mut self.ranges, range.clone());
        }
        self.lifetimes.prepend(&earlier.lifetimes);
        self.rows = self.rows.saturating_add(earlier.rows);
        self.bytes = self.bytes.saturating_add(earlier.bytes);
        self.since = earlier.since;
    }
}

/// Everything behind the store's lock.
#[derive(Debug, Default)]
pub(super) struct Held {
    pub(super) open: Open,
    pub(super) sealing: Option<Arc<Open>>,
    pub(super) segments: Vec<Arc<SegmentFile>>,
    /// Registered, but cannot be read, and why.
    pub(super) damaged: Vec<(Arc<SegmentFile>, String)>,
    /// No longer registered, but perhaps still read by a query.
    pub(super) leaving: Vec<Arc<SegmentFile>>,
    /// Files of a transaction that failed: whether it happened is known once `state.redb` is opened again.
    pub(super) doubtful: Vec<PathBuf>,
    /// No events are taken, since when and why; not written down yet.
    pub(super) paused: Option<CoverageGap>,
    pub(super) committed: BTreeMap<String, Sequence>,
    /// The high-water mark of every stream, at or above `committed`.
    pub(super) seen: HashMap<String, Sequence>,
    pub(super) live: Live,
    /// Of an offline store: whose logs were not read to their end.
    pub(super) cut: Cut,
}

impl Held {
    pub(super) fn set_aside(&mut self, id: u64, what: String) {
        if let Some(at) = self.segments.iter().position(|file| file.id == id) {
            let file = self.segments.remove(at);
            tracing::error!(path = %file.path.display(), rows = file.rows, %what, "a segment cannot be read");
            self.damaged.push((file, what));
        }
    }

    /// Every registered file, also those that cannot be read.
    pub(super) fn every_file(&self) -> impl Iterator<Item = &Arc<SegmentFile>> {
        self.segments.iter().chain(self.damaged.iter().map(|(file, _)| file))
    }

    /// Puts a merged file in the place of its inputs.
    pub(super) fn replace(&mut self, inputs: &[Arc<SegmentFile>], file: SegmentFile) {
        self.segments.retain(|listed| !inputs.iter().any(|input| input.id == listed.id));
        self.segments.push(Arc::new(file));
        self.segments.sort_by_key(|listed| (listed.first_us, listed.id));
        self.leaving.extend(inputs.iter().cloned());
    }

    pub(super) fn damaged_segments(&self) -> Vec<DamagedSegment> {
        let one = |(file, what): &(Arc<SegmentFile>, String)| DamagedSegment {
            table: file.table,
            path: file.path.clone(),
            rows: file.rows,
            first_us: file.first_us,
            last_us: file.last_us,
            what: what.clone(),
        };
        self.damaged.iter().map(one).collect()
    }

    /// Tells of processes that have found no room in the table of live ones since `shed` was read; one gap until the next
    /// seal.
    pub(super) fn note_shed(&mut self, collector: &str, at: Sequence, shed_before: u64) {
        let lost = self.live.shed().saturating_sub(shed_before);
        if lost == 0 {
            return;
        }
        let now_us = audit::now_us();
        let same = |open: &&mut GapAt| open.gap.reason == reason::PROCESSES_FULL && open.gap.collector == collector;
        if let Some(open) = self.open.gaps.iter_mut().find(same) {
            open.at = open.at.max(at);
            open.gap.last = Some(open.at);
            open.gap.to_us = now_us;
            open.gap.count = open.gap.count.map(|count| count.saturating_add(lost));
            return;
        }
        let gap = CoverageGap {
            collector: collector.to_owned(),
            reason: reason::PROCESSES_FULL.to_owned(),
            from_us: now_us,
            to_us: now_us,
            count: Some(lost),
            detail: "more processes live than the table of live ones holds; their events are stored".to_owned(),
            first: Some(at),
            last: Some(at),
        };
        self.open.gaps.push(GapAt { at, gap });
    }

    fn unsealed_rows(&self) -> usize {
        self.open.rows.saturating_add(self.sealing.as_ref().map_or(0, |open| open.rows))
    }
}

/// The part of `batch` after `seen`; `None` when a replay brought nothing new.
fn after(mut batch: EventBatch, seen: Option<Sequence>) -> Option<EventBatch> {
    let Some(seen) = seen.filter(|seen| *seen >= batch.first) else { return Some(batch) };
    if seen >= batch.last {
        return None;
    }
    let start = repeated_rows(&batch.batch, seen);
    batch.batch = batch.batch.slice(start, batch.batch.num_rows().saturating_sub(start));
    batch.gaps.retain(|gap| gap.at > seen);
    batch.live.retain(|change| change.at > seen);
    batch.first = Sequence::new(seen.epoch, seen.number.saturating_add(1));
    Some(batch)
}

/// How many rows stand at or before `seen`; rows are in stream order.
fn repeated_rows(batch: &RecordBatch, seen: Sequence) -> usize {
    let column = |name| batch.column_by_name(name).and_then(|array| array.as_primitive_opt::<Int64Type>());
    let (Some(epochs), Some(numbers)) = (column("epoch"), column("seq")) else { return 0 };
    let signed = |value: u64| i64::try_from(value).unwrap_or(i64::MAX);
    let seen = (signed(seen.epoch), signed(seen.number));
    epochs.values().iter().zip(numbers.values()).take_while(|(epoch, number)| (**epoch, **number) <= seen).count()
}

impl Store {
    /// The part of `batch` that has not been appended yet, with a gap for what is missing before it: what detection has to look
    /// at. `None`: all of it is a replay.
    #[must_use]
    pub fn unseen(&self, batch: EventBatch) -> Option<EventBatch> {
        let held = self.held.read().unwrap_or_else(std::sync::PoisonError::into_inner);
        let seen = held.seen.get(batch.collector.as_ref()).copied();
        let mut batch = after(batch, seen)?;
        held.note_unreceived(&mut batch);
        Some(batch)
    }

    /// Puts events into the open segment, where queries see them at once. Rows at or below the collector's high-water mark
    /// are dropped: a replay adds nothing. What is missing between that mark and the batch is a gap.
    ///
    /// # Errors
    /// [`StoreError::LimitOpenSegment`] when sealing has failed for long; the batch is then not taken and may come again.
    pub fn append(&self, batch: EventBatch) -> Result<Appended, StoreError> {
        if self.state.is_offline() {
            return Err(StoreError::MisuseOffline);
        }
        let mut held = self.held.write().map_err(|_| StoreError::LockPoisoned)?;
        let rows = held.unsealed_rows();
        if rows >= self.options.seal_rows.saturating_mul(REFUSE_AT) {
            return Err(StoreError::LimitOpenSegment { rows });
        }
        let (offered, collector) = (batch.batch.num_rows(), batch.collector.to_string());
        let seen = held.seen.get(&collector).copied();
        let last = batch.last;
        let Some(mut batch) = after(batch, seen) else {
            return Ok(Appended { rows: 0, replayed: offered, last: seen.unwrap_or(last) });
        };
        held.note_unreceived(&mut batch);
        let rows = batch.batch.num_rows();
        let changes = mem::take(&mut batch.live);
        let name = Arc::clone(&batch.collector);
        held.open.push(batch)?;
        let shed_before = held.live.shed();
        held.live_through(&name, changes, last)?;
        held.note_shed(&name, last, shed_before);
        held.seen.insert(collector, last);
        Ok(Appended { rows, replayed: offered.saturating_sub(rows), last })
    }

    /// Whether the open segment is full or old enough.
    #[must_use]
    pub fn seal_due(&self) -> bool {
        let held = self.held.read().unwrap_or_else(std::sync::PoisonError::into_inner);
        held.open.due(self.options.seal_rows, self.options.seal_bytes, self.options.seal_after)
    }
}

#[cfg(test)]
mod tests {
    use daemoneye_lib::entity::EntityId;
    use daemoneye_lib::proto::{EventType, ProcessEvent, ProcessRecord, Record};
    use prost::Message as _;

    use super::*;
    use crate::ingest::{batch_from_json, decode};

    #[test]
    fn processes_that_find_no_room_are_told_until_an_enumeration_fits() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(crate::store::StoreOptions::new(dir.path())).unwrap();
        store.held.write().unwrap().live = Live::with_room(2);
        let of = |pid: u32| ProcessRecord {
            entity_id: EntityId::derive("boot", pid, 1).as_bytes().to_vec(),
            pid,
            ..ProcessRecord::default()
        };
        let start = |number: u64| {
            let process = Some(of(u32::try_from(number).unwrap()));
            let event = ProcessEvent { event_type: EventType::Start.into(), process, ..ProcessEvent::default() };
            Record {
                sequence: Some(Sequence::new(1, number)),
                topic: "events.process.start".to_owned(),
                time_us: 1,
                payload: event.encode_to_vec().into(),
            }
        };
        for number in 1..=5 {
            store.append(decode("procmond", &[start(number)]).unwrap()).unwrap();
        }
        let told = |store: &Store| -> Vec<(String, Option<u64>)> {
            store.coverage().unwrap().into_iter().map(|row| (row.gap.reason, row.gap.count)).collect()
        };
        assert_eq!(
            (told(&store), store.live().unwrap().num_rows()),
            (vec![("processes_full".to_owned(), Some(3))], 2)
        );
        store.seal().unwrap();
        assert_eq!(told(&store), [("processes_full".to_owned(), Some(3))]);
        assert!(store.lacks_processes());
        store.reset_live("procmond", vec![of(3), of(4), of(5)], Sequence::new(1, 5)).unwrap();
        assert!(store.lacks_processes());
        store.reset_live("procmond", vec![of(3), of(4)], Sequence::new(1, 5)).unwrap();
        assert!(!store.lacks_processes());
    }

    #[test]
    fn many_single_rows_stay_few_batches_in_order() {
        let mut open = Open::default();
        for number in 1..=500_u64 {
            let row = serde_json::json!({"collector": "c", "epoch": 1, "seq": number});
            let batch = batch_from_json(&[row.as_object().unwrap().clone()]).unwrap();
            let at = Sequence::new(1, number);
            let (gaps, live) = (Vec::new(), Vec::new());
            open.push(EventBatch { batch, collector: "c".into(), first: at, last: at, gaps, live }).unwrap();
        }
        assert!(open.batches.len() <= MERGE_BATCHES, "{} batches", open.batches.len());
        let numbers: Vec<i64> = open
            .batches
            .iter()
            .flat_map(|b| b.column_by_name("seq").unwrap().as_primitive::<Int64Type>().values().to_vec())
            .collect();
        assert_eq!(numbers, (1..=500).collect::<Vec<i64>>());
        assert_eq!(open.ranges["c"].rows, 500);
    }
}
