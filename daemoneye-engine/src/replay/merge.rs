//! Logs of several collectors as one run of events: by event time, as they would have come to one agent.
//!
//! The order within a log is never changed: an event that is older than one before it counts as old as that one.

use std::collections::BTreeSet;
use std::path::Path;

use daemoneye_lib::segment::DirReader;
use datafusion::arrow::array::RecordBatch;
use datafusion::arrow::compute::interleave_record_batch;

use super::read::{PIECE, ReplayError};
use super::{events_of, times};
use crate::ingest::{self, EventBatch, GapAt};
use crate::store::StoreError;

/// One log, read piece by piece.
struct Log {
    collector: String,
    records: DirReader,
    batch: Option<RecordBatch>,
    /// By row of the batch, the latest time up to it.
    reached: Vec<i64>,
    row: usize,
    latest: i64,
}

/// Hands over what the logs of the directory hold. A log that ends in the middle has been read up to there, which `troubles` tells.
pub(super) fn logs(
    dir: &Path,
    collectors: &BTreeSet<String>,
    troubles: &mut Vec<String>,
    each: &mut dyn FnMut(EventBatch) -> Result<(), StoreError>,
) -> Result<(), ReplayError> {
    let mut logs = Vec::with_capacity(collectors.len());
    for collector in collectors {
        match DirReader::open(dir, collector, None) {
            Ok(records) => logs.push(Log::new(collector, records)),
            Err(error) => troubles.push(format!("{collector}: {error}")),
        }
    }
    let (mut picked, mut gaps) = (Vec::with_capacity(PIECE), Vec::new());
    logs.iter_mut().for_each(|log| log.refill(troubles, &mut gaps));
    while let Some(at) = oldest(&logs) {
        let Some(log) = logs.get_mut(at) else { break };
        picked.push((at, log.row));
        log.row = log.row.saturating_add(1);
        let is_used_up = log.reached.len() == log.row;
        if is_used_up || picked.len() == PIECE {
            hand_over(dir, &logs, &mut picked, &mut gaps, each)?;
        }
        if let Some(log) = logs.get_mut(at).filter(|_| is_used_up) {
            log.refill(troubles, &mut gaps);
        }
    }
    hand_over(dir, &logs, &mut picked, &mut gaps, each)
}

/// The log whose next event is the oldest; of several the first one.
fn oldest(logs: &[Log]) -> Option<usize> {
    let next = logs.iter().enumerate().filter_map(|(at, log)| Some((*log.reached.get(log.row)?, at)));
    next.min().map(|(_, at)| at)
}

fn hand_over(
    dir: &Path,
    logs: &[Log],
    picked: &mut Vec<(usize, usize)>,
    gaps: &mut Vec<GapAt>,
    each: &mut dyn FnMut(EventBatch) -> Result<(), StoreError>,
) -> Result<(), ReplayError> {
    if picked.is_empty() && gaps.is_empty() {
        return Ok(());
    }
    // Places in the list of batches; a log that has ended has none.
    let (mut places, mut batches) = (Vec::with_capacity(logs.len()), Vec::new());
    for log in logs {
        places.push(batches.len());
        batches.extend(&log.batch);
    }
    let rows: Vec<(usize, usize)> = picked.drain(..).filter_map(|(log, row)| Some((*places.get(log)?, row))).collect();
    let batch = match batches.first() {
        Some(_) => interleave_record_batch(&batches, &rows),
        None => Ok(RecordBatch::new_empty(crate::schema::process_events_schema())),
    };
    let batch = batch.map_err(|source| ReplayError::CorruptColumns { path: dir.to_owned(), source })?;
    Ok(each(EventBatch { gaps: std::mem::take(gaps), ..events_of(batch) })?)
}

impl Log {
    fn new(collector: &str, records: DirReader) -> Self {
        let collector = collector.to_owned();
        Self { collector, records, batch: None, reached: Vec::new(), row: 0, latest: i64::MIN }
    }

    /// Reads the next piece that has rows, if there is one.
    fn refill(&mut self, troubles: &mut Vec<String>, gaps: &mut Vec<GapAt>) {
        (self.batch, self.row) = (None, 0);
        self.reached.clear();
        let mut is_over = false;
        while self.reached.is_empty() && !is_over {
            let mut run = Vec::with_capacity(PIECE);
            while run.len() < PIECE && !is_over {
                match self.records.next() {
                    Some(Ok(record)) => run.push(record),
                    Some(Err(error)) => {
                        troubles.push(format!("{}: {error}", self.collector));
                        is_over = true;
                    }
                    None => is_over = true,
                }
            }
            if run.is_empty() {
                return;
            }
            match ingest::decode(&self.collector, &run) {
                Ok(events) => self.take(events, gaps),
                Err(error) => troubles.push(error.to_string()),
            }
        }
    }

    fn take(&mut self, events: EventBatch, gaps: &mut Vec<GapAt>) {
        gaps.extend(events.gaps);
        for time in times(&events.batch) {
            self.latest = self.latest.max(time.unwrap_or(i64::MIN));
            self.reached.push(self.latest);
        }
        self.batch = Some(events.batch);
    }
}

#[cfg(test)]
mod tests {
    use daemoneye_lib::entity::EntityId;
    use daemoneye_lib::proto::{EventType, ProcessEvent, ProcessRecord};
    use daemoneye_lib::segment::{self, Kind, SegmentHeader, WalHeader};
    use datafusion::arrow::array::AsArray as _;
    use datafusion::arrow::datatypes::Int64Type;
    use prost::Message as _;

    use super::*;

    const START_US: i64 = 1_769_860_800_000_000;

    fn write(dir: &Path, collector: &str, events: impl Iterator<Item = (u32, i64)>) {
        let header = SegmentHeader { kind: Kind::Wal, previous_crc: 0, epoch: 1, segment: 1, first: 1 };
        let (mut bytes, mut crc) = (header.encode().to_vec(), 0);
        for (number, (pid, second)) in (1..).zip(events) {
            let time_us = START_US + second * 1_000_000;
            let entity_id = EntityId::derive("boot", pid, 1).as_bytes().to_vec();
            let process = ProcessRecord { entity_id, pid, name: "p".to_owned(), ..ProcessRecord::default() };
            let event_type = EventType::Start.into();
            let event = ProcessEvent { time_us, event_type, process: Some(process), ..ProcessEvent::default() };
            let header = WalHeader { epoch: 1, number, topic: "events.process.start".to_owned(), time_us };
            crc = segment::encode(&mut bytes, crc, 0, &header, &event.encode_to_vec()).unwrap();
        }
        std::fs::write(dir.join(format!("{collector}-00001.wal")), bytes).unwrap();
    }

    #[test]
    fn events_of_several_logs_come_by_time_and_a_log_keeps_its_order() {
        let dir = tempfile::tempdir().unwrap();
        // More than a piece each, one of them with an event out of order and an end before the other's.
        let even = (0..5_000_u32).map(|n| (n * 2, i64::from(n) * 2));
        let odd = (0..4_500_u32).map(|n| (n * 2 + 1, if n == 10 { 3 } else { i64::from(n) * 2 + 1 }));
        write(dir.path(), "a", even);
        write(dir.path(), "b", odd);
        let (mut pids, mut troubles) = (Vec::<i64>::new(), Vec::new());
        let collectors = BTreeSet::from(["a".to_owned(), "b".to_owned()]);
        logs(dir.path(), &collectors, &mut troubles, &mut |events| {
            assert!(events.gaps.is_empty() && events.batch.num_rows() <= PIECE);
            pids.extend(events.batch.column_by_name("pid").unwrap().as_primitive::<Int64Type>().values());
            Ok(())
        })
        .unwrap();
        assert_eq!(troubles, Vec::<String>::new());
        let mut wanted: Vec<i64> = (0..9_000).chain((9_000..10_000).step_by(2)).collect();
        // Behind the one before it in its log, at the time of that one.
        wanted.swap(20, 21);
        assert_eq!(pids, wanted);
    }
}
