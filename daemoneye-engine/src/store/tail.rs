//! The part of the collectors' logs that no segment has, for an offline store: read once, held in memory, bounded.
//!
//! It never changes a log. What cannot be read, or is more than the bound, is told as a gap, so that no answer about that
//! time claims to be whole.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::Path;

use daemoneye_lib::proto::{CoverageGap, Record, Sequence};
use daemoneye_lib::segment::{DirReader, SegmentName, scan_dir};

use super::held::Held;
use super::{Store, StoreError, audit, reason};
use crate::ingest::{self, GapAt};

/// Where the collectors' logs lie, under the data directory.
pub(crate) const WAL_DIR: &str = "wal";
/// Records that are held: some 600 MB, and sixty times what an agent leaves unsealed.
const TAIL_RECORDS: usize = 1_000_000;
/// Payload bytes that are held; a record may have up to 1 MiB.
const TAIL_BYTES: usize = 512 * 1024 * 1024;
/// Records decoded at a time: batches large enough that they are not merged again.
const RUN_RECORDS: usize = 4_096;

/// Whether any collector's log lies there.
pub(super) fn has_logs(dir: &Path) -> bool {
    collectors(dir).is_ok_and(|found| !found.is_empty())
}

/// Whose logs lie in `dir`.
pub(crate) fn collectors(dir: &Path) -> io::Result<BTreeSet<String>> {
    let mut found = BTreeSet::new();
    let entries = match fs::read_dir(dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(found),
        entries => entries?,
    };
    for entry in entries {
        let name = entry?.file_name();
        let Some(name) = name.to_str() else { continue };
        let Some((collector, _)) = name.rsplit_once('-') else { continue };
        if SegmentName::wal(collector).number(name).is_some() {
            found.insert(collector.to_owned());
        }
    }
    Ok(found)
}

/// Logs that were not read to their end: what they have behind that may have been recorded, and is not here.
#[derive(Debug, Clone, Default)]
pub(super) struct Cut {
    collectors: BTreeSet<String>,
    /// Nobody knows whose.
    all: bool,
}

impl Cut {
    pub(super) fn has(&self, collector: &str) -> bool {
        self.all || self.collectors.contains(collector)
    }
}

/// Room that is left for all logs together.
#[derive(Debug)]
struct Room {
    records: usize,
    bytes: usize,
}

impl Room {
    fn take(&mut self, record: &Record) -> bool {
        match (self.records.checked_sub(1), self.bytes.checked_sub(record.payload.len())) {
            (Some(records), Some(bytes)) => {
                *self = Self { records, bytes };
                true
            }
            _ => false,
        }
    }
}

impl Store {
    /// Puts what the logs have beyond the watermarks into the open segment.
    pub(super) fn read_tails(&mut self) -> Result<(), StoreError> {
        self.read_tails_within(Room { records: TAIL_RECORDS, bytes: TAIL_BYTES })
    }

    fn read_tails_within(&mut self, mut room: Room) -> Result<(), StoreError> {
        let dir = self.options.dir.join(WAL_DIR);
        let held = self.held.get_mut().map_err(|_| StoreError::LockPoisoned)?;
        match collectors(&dir) {
            Ok(found) => found.iter().try_for_each(|collector| read_tail(held, &dir, collector, &mut room)),
            Err(error) => {
                let what = format!("{}: {error}", dir.display());
                missing(held, "", reason::WAL_UNREADABLE, 0, what);
                held.cut.all = true;
                Ok(())
            }
        }
    }
}

fn read_tail(held: &mut Held, dir: &Path, collector: &str, room: &mut Room) -> Result<(), StoreError> {
    if !read_records(held, dir, collector, room)? {
        held.cut.collectors.insert(collector.to_owned());
    }
    Ok(())
}

/// False: not to the log's end.
fn read_records(held: &mut Held, dir: &Path, collector: &str, room: &mut Room) -> Result<bool, StoreError> {
    let mut before = held.committed.get(collector).copied();
    let mut records = match DirReader::open(dir, collector, before) {
        Ok(records) => records,
        Err(error) => {
            missing(held, collector, reason::WAL_UNREADABLE, 0, error.to_string());
            return Ok(false);
        }
    };
    let mut is_whole = true;
    let (mut run, mut time_us) = (Vec::with_capacity(RUN_RECORDS), 0);
    for record in records.by_ref() {
        let record = match record {
            Ok(record) => record,
            Err(error) => {
                missing(held, collector, reason::WAL_UNREADABLE, time_us, error.to_string());
                is_whole = false;
                break;
            }
        };
        let Some(at) = record.sequence.filter(|at| before.is_none_or(|before| *at > before)) else { continue };
        if let Some(before) = before.filter(|before| at.number > before.number.saturating_add(1)) {
            let what = format!("the log has nothing between {before} and {at}");
            missing(held, collector, reason::WAL_UNREADABLE, time_us, what);
        }
        if !room.take(&record) {
            let what = "the log has more events than an offline store holds".to_owned();
            missing(held, collector, reason::WAL_BEYOND_BOUND, record.time_us, what);
            is_whole = false;
            break;
        }
        (before, time_us) = (Some(at), record.time_us);
        run.push(record);
        // What came behind records that were not taken would make them look as if they had been stored once.
        if run.len() >= RUN_RECORDS && !enter(held, collector, &mut run)? {
            return Ok(false);
        }
    }
    let is_whole = enter(held, collector, &mut run)? && is_whole && !records.is_cut();
    if let Some(last) = synced(dir, collector, before).filter(|_| is_whole) {
        let read = before.map_or_else(|| "nothing".to_owned(), |before| format!("up to {before}"));
        let what = format!("the log's end is missing: it was synced up to number {last}, and has {read}");
        missing(held, collector, reason::WAL_UNREADABLE, time_us, what);
        return Ok(false);
    }
    Ok(is_whole)
}

/// The number up to which the log was synced, and so acknowledged, where that is more than what was `read` of it: its note, or
/// the head of a segment behind, says so.
fn synced(dir: &Path, collector: &str, read: Option<Sequence>) -> Option<u64> {
    let log = scan_dir(dir, &SegmentName::wal(collector)).ok()?;
    let (epoch, number) = read.map_or((0, 0), |read| read.key());
    (log.durable_upto > number && log.epoch.is_none_or(|told| told >= epoch)).then_some(log.durable_upto)
}

/// False: they cannot be decoded.
fn enter(held: &mut Held, collector: &str, run: &mut Vec<Record>) -> Result<bool, StoreError> {
    let Some(time_us) = run.first().map(|record| record.time_us) else { return Ok(true) };
    let decoded = ingest::decode(collector, run);
    let is_taken = decoded.is_ok();
    match decoded {
        Ok(mut batch) => {
            let (name, last) = (batch.collector.clone(), batch.last);
            let changes = std::mem::take(&mut batch.live);
            held.open.push(batch)?;
            held.live_through(&name, changes, last)?;
            held.seen.insert(collector.to_owned(), last);
        }
        Err(error) => missing(held, collector, reason::WAL_UNREADABLE, time_us, error.to_string()),
    }
    run.clear();
    Ok(is_taken)
}

/// A gap from `from_us` to now that only this opening knows.
fn missing(held: &mut Held, collector: &str, reason: &str, from_us: i64, what: String) {
    tracing::warn!(collector, reason, %what, "a log is not read whole");
    let gap = CoverageGap {
        collector: collector.to_owned(),
        reason: reason.to_owned(),
        from_us,
        to_us: audit::now_us().max(from_us),
        count: None,
        detail: what,
        first: None,
        last: None,
    };
    held.open.gaps.push(GapAt { at: Sequence::new(0, 0), gap });
}

#[cfg(test)]
mod tests {
    use daemoneye_lib::segment::{self, Kind, SegmentHeader, WalHeader};
    use prost::Message as _;

    use super::*;
    use crate::store::StoreOptions;
    use crate::store::disk::RealDisk;
    use crate::store::state::State;

    #[test]
    fn a_log_beyond_the_bound_is_read_up_to_it_and_told() {
        let dir = tempfile::tempdir().unwrap();
        let wal = dir.path().join(WAL_DIR);
        fs::create_dir(&wal).unwrap();
        let header = SegmentHeader { kind: Kind::Wal, previous_crc: 0, epoch: 1, segment: 1, first: 1 };
        let (mut bytes, mut crc) = (header.encode().to_vec(), 0);
        for number in 1..=9 {
            let gap = CoverageGap { reason: "shed".to_owned(), from_us: 7, to_us: 7, ..CoverageGap::default() };
            let topic = "events.collector.procmond".to_owned();
            let header = WalHeader { epoch: 1, number, topic, time_us: 7 };
            crc = segment::encode(&mut bytes, crc, 0, &header, &gap.encode_to_vec()).unwrap();
        }
        fs::write(wal.join("procmond-00001.wal"), bytes).unwrap();
        let state = State::over(redb::backends::InMemoryBackend::new(), dir.path()).unwrap().offline();
        let mut store =
            Store::assemble(StoreOptions::new(dir.path()), state, std::sync::Arc::new(RealDisk), None).unwrap();
        store.read_tails_within(Room { records: 4, bytes: TAIL_BYTES }).unwrap();
        let told: Vec<String> = store.coverage().unwrap().into_iter().map(|row| row.gap.reason).collect();
        assert_eq!(told, ["wal_beyond_bound", "shed", "shed", "shed", "shed"]);
        let fits = Record { sequence: Some(Sequence::new(1, 1)), payload: vec![0; 3].into(), ..Record::default() };
        assert!(!Room { records: 1, bytes: 2 }.take(&fits) && Room { records: 1, bytes: 3 }.take(&fits));
    }
}
