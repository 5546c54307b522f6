//! The newest records, for a reader that has read everything before them: what was just written need not be read from the disk.
//!
//! They are the bytes that the log took, kept after the write, and they go first when there are many: then one read of the log is
//! cheaper than a copy of each.

use std::collections::VecDeque;

use bytes::Bytes;
use daemoneye_lib::proto::{Record, Sequence};

use crate::source::SourceEvent;

/// Records and bytes kept: a burst of short processes, and little beside everything else in memory.
const RECORDS: usize = 128;
const BYTES: usize = 128 * 1024;

#[derive(Default)]
pub(super) struct Recent {
    /// In order, without a gap, each with the place behind it in the stream.
    records: VecDeque<(Record, u64)>,
    bytes: usize,
}

impl Recent {
    /// One write of the log: its records, each with the place behind it, begin at `first`.
    pub(super) fn wrote<'a>(
        &mut self,
        first: Sequence,
        events: impl ExactSizeIterator<Item = (&'a SourceEvent, u64)>,
    ) {
        let count = events.len();
        let follows = self.records.back().is_none_or(|(last, _)| last.sequence.map(next) == Some(first));
        if count > RECORDS || !follows {
            self.records.clear();
            self.bytes = 0;
        }
        if count > RECORDS {
            return;
        }
        let mut sequence = first;
        for (event, end) in events {
            self.bytes += event.payload.len();
            let record = Record {
                sequence: Some(sequence),
                topic: event.topic.clone().into_owned(),
                time_us: event.time_us,
                payload: Bytes::copy_from_slice(&event.payload),
            };
            self.records.push_back((record, end));
            sequence = next(sequence);
        }
        while self.records.len() > RECORDS || self.bytes > BYTES {
            let Some((gone, _)) = self.records.pop_front() else { break };
            self.bytes -= gone.payload.len();
        }
    }

    /// The records behind `after` up to `until` and the place behind them; `None` when they have to be read from the log.
    pub(super) fn behind(
        &self,
        after: Sequence,
        until: Sequence,
        records: usize,
        bytes: usize,
    ) -> Option<(Vec<Record>, u64)> {
        let first = self.records.front()?.0.sequence?;
        let skip = next(after).number.checked_sub(first.number).filter(|_| after.epoch == first.epoch)?;
        let (mut run, mut size, mut place) = (Vec::new(), 0, None);
        for (record, end) in self.records.iter().skip(usize::try_from(skip).ok()?) {
            if record.sequence > Some(until) || run.len() >= records || size >= bytes {
                break;
            }
            size += record.payload.len();
            place = Some(*end);
            run.push(record.clone());
        }
        Some((run, place?))
    }
}

const fn next(sequence: Sequence) -> Sequence {
    Sequence { epoch: sequence.epoch, number: sequence.number + 1 }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wal::{Wal, WalOptions};

    fn events(count: usize, from: usize) -> Vec<SourceEvent> {
        let one = |number: usize| SourceEvent::new("events.test", 1, vec![7; 1 + number % 900]);
        (from..from + count).map(one).collect()
    }

    /// Everything behind the first record, taken by `take` in runs of at most `records`.
    fn read(wal: &Wal, first: Sequence, take: impl Fn(&mut crate::wal::Cursor) -> Vec<Record>) -> (Vec<Record>, u64) {
        let mut cursor = wal.reader().cursor(Some(first));
        let mut all = Vec::new();
        loop {
            let run = take(&mut cursor);
            if run.is_empty() {
                return (all, cursor.place());
            }
            all.extend(run);
        }
    }

    #[test]
    fn what_is_at_hand_is_what_the_log_holds() {
        let dir = tempfile::tempdir().unwrap();
        let (wal, _) =
            Wal::open(WalOptions { segment_bytes: 64 * 1024, ..WalOptions::new(dir.path(), "test") }).unwrap();
        let first = wal.append(&events(1, 0)).unwrap().unwrap();
        let mut written = 1;
        for count in [1, 3, 100, 20, 1, 60, 2] {
            wal.append(&events(count, written)).unwrap();
            written += count;
            let last = wal.reader().visible().unwrap();
            // Few enough to be still there, and rotations have come between them.
            let after = Sequence { epoch: first.epoch, number: last.number.saturating_sub(20).max(first.number) };
            let at_hand = read(&wal, after, |cursor| cursor.run_at_hand(7, 4096).expect("they are at hand"));
            let in_log = read(&wal, after, |cursor| cursor.run(7, 4096).unwrap());
            assert_eq!(at_hand, in_log);
        }
    }

    #[test]
    fn who_is_too_far_behind_reads_the_log() {
        let dir = tempfile::tempdir().unwrap();
        let (wal, _) = Wal::open(WalOptions::new(dir.path(), "test")).unwrap();
        let first = wal.append(&events(1, 0)).unwrap().unwrap();
        for _ in 0..=RECORDS {
            wal.append(&events(1, 0)).unwrap();
        }
        assert!(wal.reader().cursor(Some(first)).run_at_hand(7, 4096).is_none());
        assert!(wal.reader().cursor(None).run_at_hand(7, 4096).is_none());
        let last = wal.append(&events(RECORDS + 1, 0)).unwrap().unwrap();
        let before = Sequence { epoch: last.epoch, number: last.number - 1 };
        assert!(wal.reader().cursor(Some(before)).run_at_hand(7, 4096).is_none(), "a large batch is not copied");
        assert_eq!(wal.reader().cursor(Some(last)).run_at_hand(7, 4096), Some(Vec::new()));
        wal.append(&events(1, 0)).unwrap();
        assert_eq!(wal.reader().cursor(Some(last)).run_at_hand(7, 4096).map(|run| run.len()), Some(1));
    }

    #[test]
    fn who_falls_behind_goes_on_where_it_was() {
        let dir = tempfile::tempdir().unwrap();
        let (wal, _) = Wal::open(WalOptions::new(dir.path(), "test")).unwrap();
        let first = wal.append(&events(1, 0)).unwrap().unwrap();
        let mut cursor = wal.reader().cursor(Some(first));
        // One write of which the cursor takes a part: it stands between two records of it.
        wal.append(&events(20, 1)).unwrap();
        assert_eq!(cursor.run_at_hand(7, usize::MAX).map(|run| run.len()), Some(7));
        let place = cursor.place();
        wal.append(&events(RECORDS + 1, 21)).unwrap();
        assert!(cursor.run_at_hand(7, usize::MAX).is_none());
        assert!(cursor.open_next().unwrap());
        assert_eq!(cursor.place(), place, "it would be read again from its start");
        let expected: Vec<Record> = wal.replay_from(cursor.position()).unwrap().map(Result::unwrap).collect();
        assert_eq!(cursor.run(usize::MAX, usize::MAX).unwrap(), expected);
        assert_eq!(expected.len(), 13 + RECORDS + 1);
    }

    #[test]
    fn bytes_bound_what_is_kept() {
        let mut recent = Recent::default();
        let large: Vec<SourceEvent> = (0..4).map(|_| SourceEvent::new("t", 1, vec![0; BYTES / 2])).collect();
        recent.wrote(Sequence { epoch: 1, number: 1 }, large.iter().zip([9; 40]));
        assert_eq!((recent.records.len(), recent.bytes), (2, BYTES));
        let (run, place) =
            recent.behind(Sequence { epoch: 1, number: 2 }, Sequence { epoch: 1, number: 4 }, 9, usize::MAX).unwrap();
        assert_eq!((run.len(), place), (2, 9));
    }
}
