//! Records of a stream that never came, and of which nobody said that they were lost.
//!
//! A collector removes from its log what the agent has said to have stored. When the store is then one that has less, because a backup
//! was put back, the stream goes on behind a hole: only the numbers tell of it. It becomes a gap in the transaction that moves the
//! watermark over it, so that it is neither lost nor told twice. A collector that lost records itself says so, but only later in its
//! stream, and stored gaps never shrink, because the ledger has them: so whoever reads coverage leaves out what was told.

use std::collections::HashMap;

use daemoneye_lib::proto::{CoverageGap, Sequence};
use datafusion::arrow::array::{AsArray as _, RecordBatch};
use datafusion::arrow::datatypes::TimestampMicrosecondType;

use super::held::{Held, Open};
use super::history::HistoryTable;
use super::{StoreError, audit, reason};
use crate::ingest::{EventBatch, GapAt, UNDECODABLE};

/// Reasons of what a collector's log lost begin with this.
const LOG_REASONS: &str = "wal_";
/// What is told where a log was begun anew.
const ANEW: &str = "the collector's log was begun anew: whatever came behind the last of its records that is stored, and did not come \
                    here, is not known. Its directory was removed, the store was put beside another one, as a backup is on a new host, or a power \
                    failure took the end of it";
/// Why such records are missing.
const DETAIL: &str = "they never came, and their collector's log does not have them any more: it was full, which is told by itself, or the \
                      store was replaced by one that has less, as a backup has that is put back";

impl Held {
    /// Tells in `batch` what is missing before it, once however often the batch is offered.
    pub(super) fn note_unreceived(&self, batch: &mut EventBatch) {
        let Some(seen) = self.seen.get(batch.collector.as_ref()) else { return };
        let Some(hole) = Hole::between(*seen, batch.first) else { return };
        let last = hole.last();
        let is_told = |told: &GapAt| told.gap.reason == reason::NOT_RECEIVED && told.gap.last == Some(last);
        if batch.gaps.iter().any(is_told) {
            return;
        }
        let now_us = audit::now_us();
        let before_us = self.newest_us(&batch.collector, now_us);
        let mut times = times(&batch.batch);
        let to_us = times.find(|time| before_us <= Some(*time) && *time <= now_us).unwrap_or(now_us);
        let (first, count, detail) = match hole {
            Hole::Counted { first, last } => {
                (Some(first), Some(last.number.saturating_sub(seen.number)), format!("{first} to {last}: {DETAIL}"))
            }
            Hole::Anew { .. } => (None, None, ANEW.to_owned()),
        };
        let gap = CoverageGap {
            collector: batch.collector.to_string(),
            reason: reason::NOT_RECEIVED.to_owned(),
            from_us: before_us.unwrap_or(to_us),
            to_us,
            count,
            detail,
            first,
            last: Some(last),
        };
        batch.gaps.insert(0, GapAt { at: batch.first, gap });
    }

    /// When the last event of a stream was, as far as the store has it. Times from the future are lies.
    fn newest_us(&self, collector: &str, now_us: i64) -> Option<i64> {
        let open = std::iter::once(&self.open).chain(self.sealing.as_deref());
        open.filter_map(|open| newest_in(open, collector, now_us)).next().or_else(|| {
            let files = self.every_file().filter(|file| file.table == HistoryTable::ProcessEvents);
            let of = |range: &&super::segment::SequenceRange| range.collector == collector && range.rows > 0;
            let newest = files.filter_map(|file| Some((file.ranges.iter().find(of)?.last, file)));
            let (_, file) = newest.max_by_key(|(last, _)| *last)?;
            Some(if file.last_us <= now_us { file.last_us } else { file.first_us.min(now_us) })
        })
    }
}

fn newest_in(open: &Open, collector: &str, now_us: i64) -> Option<i64> {
    let of = |batch: &RecordBatch| {
        let whose = batch.column_by_name("collector")?.as_string_opt::<i32>()?;
        let times = batch.column_by_name("time")?.as_primitive_opt::<TimestampMicrosecondType>()?;
        let mut rows = whose.iter().zip(times.values());
        rows.rfind(|(whose, time)| *whose == Some(collector) && **time <= now_us).map(|(_, time)| *time)
    };
    open.ranges.get(collector)?;
    open.batches.iter().rev().find_map(of)
}

fn times(batch: &RecordBatch) -> impl Iterator<Item = i64> {
    let times = batch.column_by_name("time").and_then(|times| times.as_primitive_opt::<TimestampMicrosecondType>());
    times.into_iter().flat_map(|times| times.values().iter().copied())
}

/// What is missing between two records of a stream.
enum Hole {
    /// Numbers go on over the epochs of a log: these never came.
    Counted { first: Sequence, last: Sequence },
    /// A log that was begun anew has lesser numbers, and then nobody knows what is missing before its first.
    Anew { next: Sequence },
}

impl Hole {
    fn between(seen: Sequence, next: Sequence) -> Option<Self> {
        if next.epoch > seen.epoch && next.number <= seen.number {
            return Some(Self::Anew { next });
        }
        let first = Sequence::new(seen.epoch, seen.number.checked_add(1)?);
        let last = Sequence::new(next.epoch, next.number.checked_sub(1)?);
        (seen < next && first.number <= last.number).then_some(Self::Counted { first, last })
    }

    /// What a row of it is known by.
    const fn last(&self) -> Sequence {
        match self {
            Self::Counted { last, .. } => *last,
            Self::Anew { next } => *next,
        }
    }
}

/// What collectors say that their logs lost, of those whose streams have holes.
#[derive(Debug, Default)]
pub(super) struct Told(HashMap<String, Vec<Lost>>);

#[derive(Debug)]
struct Lost {
    first: Sequence,
    last: Sequence,
    count: u64,
}

impl Told {
    /// `holes`: the collectors whose streams have some.
    pub(super) fn of(
        holes: impl IntoIterator<Item = String>,
        gaps: impl Iterator<Item = Result<CoverageGap, StoreError>>,
    ) -> Result<Self, StoreError> {
        let mut told: HashMap<String, Vec<Lost>> =
            holes.into_iter().map(|collector| (collector, Vec::new())).collect();
        for gap in gaps {
            let gap = gap?;
            if let Some(of_collector) = told.get_mut(&gap.collector) {
                of_collector.extend(Lost::of(&gap));
            }
        }
        told.values_mut().for_each(|lost| lost.sort_by_key(|lost| lost.first.number));
        Ok(Self(told))
    }

    /// The gap without what was told of it; `None`: all of it was.
    pub(super) fn rest(&self, mut gap: CoverageGap) -> Option<CoverageGap> {
        if gap.reason != reason::NOT_RECEIVED {
            return Some(gap);
        }
        if let Some(((first, last), count)) = gap.first.zip(gap.last).zip(gap.count)
            && let Some(told) = self.0.get(&gap.collector)
        {
            let rest = count.saturating_sub(told_within(told, first, last));
            gap.count = Some(rest);
            return (rest > 0).then_some(gap);
        }
        Some(gap)
    }
}

/// How many records of a hole were told. A record that its log lost never came, so it is one of the hole's where it lies in it.
fn told_within(told: &[Lost], first: Sequence, last: Sequence) -> u64 {
    let (mut begin, mut sum) = (first.number, 0_u64);
    let of_this_log = |lost: &&Lost| lost.first.epoch <= last.epoch && lost.last.epoch >= first.epoch;
    for lost in told.iter().take_while(|lost| lost.first.number <= last.number).filter(of_this_log) {
        // What is told twice counts once.
        let end = lost.last.number.min(last.number).saturating_add(1);
        let from = lost.first.number.max(begin);
        sum = sum.saturating_add(end.saturating_sub(from).min(lost.count));
        begin = begin.max(end);
    }
    sum
}

impl Lost {
    fn of(gap: &CoverageGap) -> Option<Self> {
        let ((first, last), count) = gap.first.zip(gap.last).zip(gap.count)?;
        let span = last.number.checked_sub(first.number)?.saturating_add(1);
        // Records that cannot be decoded came, unless they are a whole run that was refused.
        let is_lost = gap.reason.starts_with(LOG_REASONS) || gap.reason == UNDECODABLE && count == span;
        is_lost.then_some(Self { first, last, count })
    }
}

#[cfg(test)]
mod tests {
    use daemoneye_lib::entity::EntityId;
    use daemoneye_lib::proto::{EventType, ProcessEvent, ProcessRecord, Record};
    use prost::Message as _;

    use super::super::{Store, StoreOptions};
    use super::*;
    use crate::ingest::decode;

    /// Some day in 2026, and a second.
    const T0: i64 = 1_770_000_000_000_000;
    const SECOND: i64 = 1_000_000;

    /// A start, as many seconds after `T0` as its number says.
    fn start(epoch: u64, number: u64) -> Record {
        let time_us = T0 + number.cast_signed() * SECOND;
        let pid = u32::try_from(number).unwrap();
        let entity_id = EntityId::derive("boot", pid, 1).as_bytes().to_vec();
        let process = Some(ProcessRecord { entity_id, pid, ..ProcessRecord::default() });
        let event = ProcessEvent { event_type: EventType::Start.into(), time_us, process, ..ProcessEvent::default() };
        let (sequence, topic) = (Some(Sequence::new(epoch, number)), "events.process.start".to_owned());
        Record { sequence, topic, time_us, payload: event.encode_to_vec().into() }
    }

    fn starts(epoch: u64, numbers: std::ops::RangeInclusive<u64>) -> EventBatch {
        decode("c", &numbers.map(|number| start(epoch, number)).collect::<Vec<_>>()).unwrap()
    }

    /// A record of the collector `c` that tells that its log lost something.
    fn tells(at: u64, reason: &str, lost: std::ops::RangeInclusive<u64>, epoch: u64) -> EventBatch {
        let (first, last) = (*lost.start(), *lost.end());
        let time_us = T0 + at.cast_signed() * SECOND;
        let gap = CoverageGap {
            collector: "c".to_owned(),
            reason: reason.to_owned(),
            from_us: T0 + first.cast_signed() * SECOND,
            to_us: T0 + last.cast_signed() * SECOND,
            count: Some(last - first + 1),
            detail: String::new(),
            first: Some(Sequence::new(epoch, first)),
            last: Some(Sequence::new(epoch, last)),
        };
        let (sequence, topic) = (Some(Sequence::new(1, at)), "events.collector.c".to_owned());
        decode("c", &[Record { sequence, topic, time_us, payload: gap.encode_to_vec().into() }]).unwrap()
    }

    fn open(dir: &tempfile::TempDir) -> Store {
        Store::open(StoreOptions::new(dir.path())).unwrap()
    }

    /// Reason, count, first and last number.
    fn told(store: &Store) -> Vec<(String, Option<u64>, u64, u64)> {
        let number = |at: Option<Sequence>| at.map_or(0, |at| at.number);
        let rows = store.coverage().unwrap().into_iter().map(|row| row.gap);
        rows.map(|gap| (gap.reason, gap.count, number(gap.first), number(gap.last))).collect()
    }

    fn hole(count: u64, first: u64, last: u64) -> (String, Option<u64>, u64, u64) {
        ("not_received".to_owned(), Some(count), first, last)
    }

    #[test]
    fn records_that_never_came_are_told_once_through_replays_seals_and_starts() {
        let dir = tempfile::tempdir().unwrap();
        let store = open(&dir);
        store.append(starts(1, 1..=5)).unwrap();
        store.seal().unwrap();
        assert_eq!(told(&store), []);
        drop(store);

        // As after a start: what is before the hole is in a file.
        let store = open(&dir);
        let judged = store.unseen(starts(1, 106..=108)).unwrap();
        assert_eq!(judged.gaps.len(), 1, "whoever judges the batch knows");
        store.append(judged).unwrap();
        let gap = store.coverage().unwrap().remove(0).gap;
        assert_eq!((gap.from_us, gap.to_us), (T0 + 5 * SECOND, T0 + 106 * SECOND));
        assert_eq!((gap.first, gap.last), (Some(Sequence::new(1, 6)), Some(Sequence::new(1, 105))));
        assert_eq!(told(&store), [hole(100, 6, 105)]);
        store.append(starts(1, 106..=108)).unwrap();
        assert_eq!(told(&store), [hole(100, 6, 105)], "a replay");
        drop(store);

        // It was not sealed: neither the watermark nor the gap has come onto the disk.
        let store = open(&dir);
        assert_eq!(told(&store), []);
        store.append(starts(1, 106..=110)).unwrap();
        store.seal().unwrap();
        store.append(starts(1, 106..=111)).unwrap();
        assert_eq!(told(&store), [hole(100, 6, 105)]);
        drop(store);

        let store = open(&dir);
        store.append(starts(1, 111..=112)).unwrap();
        assert_eq!(told(&store), [hole(100, 6, 105)]);
        // What is before this one is in memory.
        store.append(starts(1, 120..=120)).unwrap();
        let rows = store.coverage().unwrap();
        assert_eq!((rows[1].gap.from_us, rows[1].gap.to_us), (T0 + 112 * SECOND, T0 + 120 * SECOND));
    }

    #[test]
    fn numbers_go_on_in_a_new_epoch_and_begin_anew_in_a_new_log() {
        let of_next = |epoch, number| {
            let dir = tempfile::tempdir().unwrap();
            let store = open(&dir);
            store.append(starts(1, 3..=5)).unwrap();
            store.append(starts(epoch, number..=number)).unwrap();
            told(&store)
        };
        assert_eq!(of_next(2, 6), []);
        let anew = |number| ("not_received".to_owned(), None, 0, number);
        assert_eq!(of_next(2, 4), [anew(4)], "what was not synced was cut, with whatever came behind it");
        assert_eq!(of_next(9, 1), [anew(1)]);
        assert_eq!(of_next(2, 9), [hole(3, 6, 8)], "a log of which all of the old epoch was removed");
    }

    #[test]
    fn what_the_collector_says_that_it_lost_is_told_by_that_alone() {
        let dir = tempfile::tempdir().unwrap();
        let store = open(&dir);
        let lost = |count, first, last| ("wal_bound".to_owned(), Some(count), first, last);
        store.append(starts(1, 1..=5)).unwrap();
        store.append(starts(1, 106..=110)).unwrap();
        store.append(tells(111, "wal_bound", 6..=25, 1)).unwrap();
        assert_eq!(told(&store), [hole(80, 6, 105), lost(20, 6, 25)], "both in memory");
        store.seal().unwrap();
        assert_eq!(told(&store), [hole(80, 6, 105), lost(20, 6, 25)], "both stored");
        // Says again what was said, and the rest.
        store.append(tells(112, "wal_corrupt", 16..=105, 1)).unwrap();
        let both = [lost(20, 6, 25), ("wal_corrupt".to_owned(), Some(90), 16, 105)];
        assert_eq!(told(&store), both, "one stored, one in memory");
        drop(store);
        let store = open(&dir);
        store.append(tells(112, "wal_corrupt", 16..=105, 1)).unwrap();
        store.seal().unwrap();
        assert_eq!(told(&store), both);
    }

    #[test]
    fn only_what_the_same_log_lost_there_is_left_out() {
        let dir = tempfile::tempdir().unwrap();
        let store = open(&dir);
        store.append(starts(1, 1..=5)).unwrap();
        store.append(starts(1, 16..=20)).unwrap();
        store.append(tells(21, "kernel_lost", 6..=15, 1)).unwrap();
        store.append(tells(22, "wal_bound", 6..=15, 7)).unwrap();
        store.append(tells(23, "wal_bound", 1..=5, 1)).unwrap();
        let of = |gap: CoverageGap| store.add_coverage(gap).unwrap();
        let here = store.coverage().unwrap().into_iter().map(|row| row.gap).find(|gap| gap.reason == "not_received");
        let here = here.unwrap();
        of(CoverageGap { collector: "d".to_owned(), reason: "wal_bound".to_owned(), ..here.clone() });
        of(CoverageGap { reason: "retention".to_owned(), ..here.clone() });
        assert!(told(&store).contains(&hole(10, 6, 15)), "{:?}", told(&store));
        // A run that was refused as a whole.
        of(CoverageGap { reason: "undecodable".to_owned(), ..here });
        assert!(!told(&store).iter().any(|row| row.0 == "not_received"), "{:?}", told(&store));
    }
}
