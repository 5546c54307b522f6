//! Appending: one write per batch, numbers only for what was written, losses told as soon as there is room.

use std::sync::MutexGuard;
use std::time::{Duration, Instant};

use daemoneye_lib::proto::{CoverageGap, Sequence};
use daemoneye_lib::segment::{MAX_RECORD_BYTES, encode};
use prost::Message as _;

use super::{Inner, Loss, Segment, SyncMode, Wal, now_us, reason};
use crate::error::CollectorError;
use crate::source::SourceEvent;

/// Bytes of one write: larger batches are written in several, so that memory stays flat.
const CHUNK_BYTES: usize = 256 * 1024;

/// Bytes of an append that is not worth a thread of its own: some ten microseconds.
const QUICK_BYTES: usize = 64 * 1024;

/// How often a disk that takes nothing is complained about: at every batch the complaints would fill another one.
const COMPLAIN_EVERY: Duration = Duration::from_secs(60);

/// Room for prefix and header of a record besides its topic, counted generously.
const HEADERS_BYTES: usize = 128;

/// Records encoded for one write.
struct Batch {
    bytes: Vec<u8>,
    crc: u32,
    next: u64,
    /// Where each record ends in `bytes`.
    ends: Vec<u64>,
    /// Events taken into it.
    taken: usize,
    first_us: i64,
    last_us: i64,
}

impl Wal {
    /// Appends events in order and returns the sequence of the last one; `None` when none was written. What finds no room is lost, counted
    /// and told by a gap record as soon as there is room again.
    ///
    /// # Errors
    /// [`CollectorError::SyncFailed`], for good.
    pub fn append(&self, events: &[SourceEvent]) -> Result<Option<Sequence>, CollectorError> {
        self.check()?;
        Ok(self.append_to(self.shared.lock(), events))
    }

    /// As [`Wal::append`] when that is one write into prepared space: no wait for another append, no new segment, nothing to tell.
    /// `None` leaves it to a thread that may wait.
    ///
    /// # Errors
    /// As [`Wal::append`].
    pub(crate) fn append_quickly(&self, events: &[SourceEvent]) -> Option<Result<Option<Sequence>, CollectorError>> {
        if let Err(error) = self.check() {
            return Some(Err(error));
        }
        let inner = self.shared.inner.try_lock().ok()?;
        let bytes: usize = events.iter().map(|event| HEADERS_BYTES + event.topic.len() + event.payload.len()).sum();
        let short = self.syncer.is_some() && bytes <= QUICK_BYTES && bytes as u64 <= inner.log.room();
        let quiet = inner.losses.is_empty() && inner.gaps.is_empty() && !self.shared.wishes.hangs();
        (short && quiet).then(|| Ok(self.append_to(inner, events)))
    }

    fn append_to(&self, mut inner: MutexGuard<'_, Inner>, events: &[SourceEvent]) -> Option<Sequence> {
        let before = inner.next;
        let written = if inner.tell(self) { inner.append_all(events, self) } else { 0 };
        match events.get(written..).filter(|rest| !rest.is_empty()) {
            Some(rest) => inner.lose(reason::DISK, rest),
            // The bound or an oversized event may have left something to tell.
            None => {
                inner.tell(self);
            }
        }
        if self.shared.options.sync == SyncMode::Never && inner.gaps.is_empty() {
            inner.release(&self.shared);
        }
        self.shared.show(&inner);
        let last = (inner.next > before).then(|| Sequence::new(inner.epoch, inner.next - 1));
        drop(inner);
        if let Some(last) = last {
            self.announce(last);
        }
        last
    }

    fn announce(&self, last: Sequence) {
        let always = self.shared.options.sync == SyncMode::Always;
        // Before those who read: the disk takes longest.
        if self.syncer.is_some() {
            self.shared.wishes.ask(always);
        }
        self.shared.progress.send_modify(|progress| {
            progress.written = progress.written.max(Some(last));
            if !always {
                progress.visible = progress.visible.max(Some(last));
            }
        });
    }
}

impl Inner {
    /// Writes as many of `events` as there is room for and returns how many.
    fn append_all(&mut self, events: &[SourceEvent], wal: &Wal) -> usize {
        let mut done = 0;
        while let Some(rest) = events.get(done..).filter(|rest| !rest.is_empty()) {
            match self.append_some(rest, wal) {
                Ok(taken) => done += taken,
                Err(error) => {
                    if self.complained.is_none_or(|at| at.elapsed() >= COMPLAIN_EVERY) {
                        self.complained = Some(Instant::now());
                        let lost = self.lost;
                        tracing::error!(%error, events = rest.len(), lost, "events cannot be written; collection goes on");
                    }
                    // The room of what was dropped is wanted more than its last word.
                    self.release(&wal.shared);
                    return done;
                }
            }
        }
        done
    }

    /// One write. Events that no record can hold are counted and passed over.
    fn append_some(&mut self, events: &[SourceEvent], wal: &Wal) -> Result<usize, CollectorError> {
        let durable = wal.shared.progress.borrow().durable.map_or(0, |s| s.number);
        let batch = self.encode(events, durable);
        if batch.bytes.is_empty() && batch.taken == 0 {
            self.rotate(wal)?;
            return Ok(0);
        }
        if batch.bytes.is_empty() {
            return Ok(batch.taken);
        }
        self.log.write(&batch.bytes, batch.crc)?;
        let begin = self.end() - batch.bytes.len() as u64;
        let mut number = self.next;
        for event in events.get(..batch.taken).unwrap_or_default() {
            if self.fits_a_record(event) {
                self.ranges.add(Sequence::new(self.epoch, number), event.content());
                number += 1;
            }
        }
        let (first, last) = (Sequence::new(self.epoch, self.next), Sequence::new(self.epoch, number - 1));
        let (records, end) = (number - self.next, self.log.offset());
        // Passed over ones would shift the numbers of what follows; they are rare, and the log is read then.
        let taken = events.get(..batch.taken).filter(|taken| taken.len() as u64 == records).unwrap_or_default();
        self.recent.wrote(first, taken.iter().zip(batch.ends.iter().map(|end| begin + end)));
        self.next = number;
        self.appended += records;
        if records > 0 {
            self.written = Some(last);
        }
        if let Some(segment) = self.segments.back_mut() {
            let from = segment.first.map_or(batch.first_us, |_| segment.time_us.0);
            segment.time_us = (from, batch.last_us);
            segment.first.get_or_insert(first);
            segment.last = Some(last);
            segment.records += records;
            segment.bytes = segment.bytes.max(end);
        }
        Ok(batch.taken)
    }

    fn encode(&mut self, events: &[SourceEvent], durable: u64) -> Batch {
        let room = usize::try_from(self.log.room()).unwrap_or(CHUNK_BYTES);
        // Events of a batch are mostly of one size; growing step by step would copy them several times.
        let guess = events.first().map_or(0, |e| events.len() * (HEADERS_BYTES + e.payload.len())).min(CHUNK_BYTES);
        let mut batch = Batch {
            bytes: Vec::with_capacity(guess),
            crc: self.log.crc(),
            next: self.next,
            ends: Vec::with_capacity(events.len().min(CHUNK_BYTES / HEADERS_BYTES)),
            taken: 0,
            first_us: 0,
            last_us: 0,
        };
        for event in events {
            if !self.fits_a_record(event) {
                self.lose(reason::OVERSIZE, std::slice::from_ref(event));
                batch.taken += 1;
                continue;
            }
            // The fields of a `WalHeader`, borrowed.
            let header = (self.epoch, batch.next, &*event.topic, event.time_us);
            let before = batch.bytes.len();
            let crc = match encode(&mut batch.bytes, batch.crc, durable, &header, &event.payload) {
                Ok(crc) if batch.bytes.len() <= room => crc,
                _ => {
                    batch.bytes.truncate(before);
                    break;
                }
            };
            if before == 0 {
                batch.first_us = event.time_us;
            }
            batch.last_us = event.time_us;
            batch.crc = crc;
            batch.ends.push(batch.bytes.len() as u64);
            batch.next += 1;
            batch.taken += 1;
            if batch.bytes.len() >= CHUNK_BYTES {
                break;
            }
        }
        batch
    }

    /// Whether an empty segment and a frame have room for it, headers counted generously.
    fn fits_a_record(&self, event: &SourceEvent) -> bool {
        let bytes = HEADERS_BYTES + event.topic.len() + event.payload.len();
        bytes as u64 <= self.log.largest() && bytes <= MAX_RECORD_BYTES - 4096
    }

    /// Makes room under the total bound, then goes to the next segment.
    fn rotate(&mut self, wal: &Wal) -> Result<(), CollectorError> {
        self.hold_bound(wal);
        let base = self.segments.back().map_or(0, |s| s.base) + self.log.offset();
        let closed = self.log.rotate(self.next)?;
        self.unsynced.push(closed.file);
        self.segments.push_back(Segment::begun(&self.log, wal.shared.options.segment_bytes, base));
        Ok(())
    }

    fn lose(&mut self, reason: &'static str, events: &[SourceEvent]) {
        let count = events.len() as u64;
        self.lost += count;
        let (Some(first), Some(last)) = (events.first(), events.last()) else { return };
        self.untold.add(CoverageGap { reason: reason.to_owned(), count: Some(count), ..CoverageGap::default() });
        match self.losses.iter_mut().find(|loss| loss.reason == reason) {
            Some(loss) => {
                loss.count += count;
                loss.to_us = last.time_us;
            }
            None => self.losses.push(Loss { reason, count, from_us: first.time_us, to_us: last.time_us }),
        }
    }

    /// Writes what is known to be lost; `false` when there was no room for it either.
    fn tell(&mut self, wal: &Wal) -> bool {
        while !(self.losses.is_empty() && self.gaps.is_empty()) {
            let (losses, gaps) = (std::mem::take(&mut self.losses), std::mem::take(&mut self.gaps));
            let events = gap_events(wal, &gaps, &losses);
            let told = self.append_all(&events, wal);
            if told < events.len() {
                let first_loss = told.saturating_sub(gaps.len());
                self.gaps.splice(..0, gaps.into_iter().skip(told));
                self.losses.splice(..0, losses.into_iter().skip(first_loss));
                return false;
            }
        }
        true
    }
}

fn gap_events(wal: &Wal, gaps: &[CoverageGap], losses: &[Loss]) -> Vec<SourceEvent> {
    let collector = &wal.shared.options.prefix;
    let losses = losses.iter().map(|loss| CoverageGap {
        collector: collector.clone(),
        reason: loss.reason.to_owned(),
        from_us: loss.from_us,
        to_us: loss.to_us,
        count: Some(loss.count),
        detail: "the write-ahead log could not take these events".to_owned(),
        first: None,
        last: None,
    });
    let all = gaps.iter().cloned().chain(losses);
    all.map(|gap| SourceEvent::new(wal.shared.topic.clone(), now_us(), gap.encode_to_vec())).collect()
}
