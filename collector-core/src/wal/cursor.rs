//! Reading the stream while it is written. The publisher reads the same bytes back that were appended, so there is no second
//! buffer that a crash could lose or a reconnect could send twice; a copy of the newest only saves the disk.

use std::time::Duration;

use daemoneye_lib::proto::{CoverageGap, Record, Sequence};
use daemoneye_lib::segment::{Kind, SegmentError, SegmentReader, WalHeader};

use super::{Inner, Progress, Shared, SyncMode, Wal, WalReader, reason};
use crate::error::CollectorError;

/// A place in the stream that moves forward.
pub struct Cursor {
    wal: WalReader,
    after: Option<Sequence>,
    /// Number and start in the stream of the open segment.
    segment: Option<(u64, u64, SegmentReader)>,
    /// Segments up to this number have been read.
    done: u64,
    /// The place behind the last record, when that is not in the open segment.
    place: Option<u64>,
    /// Where something stood that is not a record; the next one that can be read says how many are missing.
    damaged: Option<String>,
}

/// The records after a place, up to the last one that was visible when the replay began.
pub struct Replay {
    cursor: Cursor,
    until: Option<Sequence>,
}

impl WalReader {
    /// A cursor behind `after`; at the oldest record with `None`.
    #[must_use]
    pub fn cursor(&self, after: Option<Sequence>) -> Cursor {
        Cursor { wal: self.clone(), after, segment: None, done: 0, place: None, damaged: None }
    }

    /// The records after `after`, oldest first, up to the last one visible now. Payloads are the bytes that were appended.
    ///
    /// # Errors
    /// The first segment of them cannot be read.
    pub fn replay_from(&self, after: Option<Sequence>) -> Result<Replay, CollectorError> {
        let until = self.shared.progress.borrow().visible;
        let mut cursor = self.cursor(after);
        cursor.open_next()?;
        Ok(Replay { cursor, until })
    }

    /// Where the next record will be written, as a byte position in the whole stream. Never waits for an append.
    #[must_use]
    pub fn end(&self) -> u64 {
        self.shared.shown().end
    }

    /// Last record that no power failure takes back. With `never` nothing is promised, and it is the last one written.
    #[must_use]
    pub fn settled(&self) -> Option<Sequence> {
        self.settled_of(&self.shared.progress.borrow())
    }

    /// Waits until everything up to `upto` is settled; `false` when that takes longer than `within` or cannot happen any
    /// more because a sync failed.
    pub async fn settle(&self, upto: Option<Sequence>, within: Duration) -> bool {
        let mut progress = self.shared.progress.subscribe();
        let _waiting = self.shared.wishes.wait();
        let reached = progress.wait_for(|progress| self.settled_of(progress) >= upto || progress.failed.is_some());
        matches!(tokio::time::timeout(within, reached).await, Ok(Ok(progress)) if self.settled_of(&progress) >= upto)
    }

    fn settled_of(&self, progress: &Progress) -> Option<Sequence> {
        if self.shared.options.sync == SyncMode::Never { progress.written } else { progress.durable }
    }

    /// Last visible record.
    #[must_use]
    pub fn visible(&self) -> Option<Sequence> {
        self.shared.progress.borrow().visible
    }
}

impl Inner {
    /// What stood between two records and cannot be read any more, told once however often it is read.
    fn missed(&mut self, shared: &Shared, after: Option<Sequence>, next: Sequence, time_us: i64, place: &str) {
        let first = after.map_or(1, |after| after.number + 1).max(self.missed_upto + 1);
        if first >= next.number {
            return;
        }
        self.missed_upto = next.number - 1;
        let gap = CoverageGap {
            collector: shared.options.prefix.clone(),
            reason: reason::CORRUPT.to_owned(),
            from_us: time_us,
            to_us: time_us,
            count: Some(next.number - first),
            detail: format!("{place} cannot be read back"),
            first: Some(Sequence::new(next.epoch, first)),
            last: Some(Sequence::new(next.epoch, next.number - 1)),
        };
        self.untold.add(gap.clone());
        self.gaps.push(gap);
    }
}

impl Wal {
    /// Writes the gaps that reading has found, so that they do not wait for the next event.
    ///
    /// # Errors
    /// [`CollectorError::SyncFailed`].
    pub(crate) fn tell(&self) -> Result<(), CollectorError> {
        if self.shared.lock().gaps.is_empty() { Ok(()) } else { self.append(&[]).map(drop) }
    }

    /// As [`WalReader::replay_from`].
    ///
    /// # Errors
    /// As [`WalReader::replay_from`].
    pub fn replay_from(&self, after: Option<Sequence>) -> Result<Replay, CollectorError> {
        self.reader().replay_from(after)
    }
}

impl Iterator for Replay {
    type Item = Result<Record, CollectorError>;

    fn next(&mut self) -> Option<Self::Item> {
        self.cursor.step(self.until?).transpose()
    }
}

impl Cursor {
    /// Last record that was read.
    #[must_use]
    pub const fn position(&self) -> Option<Sequence> {
        self.after
    }

    /// Up to `records` records and about `bytes` bytes, in order; empty when there is nothing new that may be seen.
    ///
    /// # Errors
    /// The log cannot be read.
    pub fn run(&mut self, records: usize, bytes: usize) -> Result<Vec<Record>, CollectorError> {
        let Some(until) = self.wal.visible() else { return Ok(Vec::new()) };
        let (mut run, mut size) = (Vec::new(), 0);
        while run.len() < records && size < bytes {
            let Some(record) = self.step(until)? else { break };
            size += record.payload.len() + record.topic.len() + 32;
            run.push(record);
        }
        Ok(run)
    }

    /// As [`Cursor::run`] without the disk and without waiting; `None` when it takes one of them. Empty when nothing is new.
    pub(crate) fn run_at_hand(&mut self, records: usize, bytes: usize) -> Option<Vec<Record>> {
        let until = self.wal.visible();
        if until <= self.after {
            return Some(Vec::new());
        }
        let (run, place) =
            self.wal.shared.inner.try_lock().ok()?.recent.behind(self.after?, until?, records, bytes)?;
        self.after = run.last()?.sequence;
        self.place = Some(place);
        // An old segment must not stay open: its room is given back only when nobody reads it.
        self.segment = None;
        Some(run)
    }

    /// Where the next record begins, as a byte position in the whole stream; compare it with [`WalReader::end`]. Waits for an
    /// append only before the first record is read.
    #[must_use]
    pub fn place(&self) -> u64 {
        if let Some(place) = self.place {
            return place;
        }
        if let Some((_, base, reader)) = &self.segment {
            return base + reader.offset();
        }
        let inner = self.wal.shared.lock();
        let mut unread = inner.segments.iter().filter(|s| s.number > self.done);
        unread.find(|s| s.last > self.after).map_or_else(|| inner.end(), |s| s.base)
    }

    fn step(&mut self, until: Sequence) -> Result<Option<Record>, CollectorError> {
        let mut refreshed = false;
        while self.after < Some(until) {
            let Some((_, _, reader)) = &mut self.segment else {
                if !self.open_next()? {
                    return Ok(None);
                }
                continue;
            };
            let at = reader.offset();
            match reader.step()? {
                Ok(Some(raw)) => {
                    let Ok(header) = raw.header::<WalHeader>() else { continue };
                    let sequence = Sequence::new(header.epoch, header.number);
                    if sequence > until {
                        reader.seek(at);
                        return Ok(None);
                    }
                    if Some(sequence) > self.after {
                        if let Some(place) = self.damaged.take() {
                            self.wal.shared.lock().missed(
                                &self.wal.shared,
                                self.after,
                                sequence,
                                header.time_us,
                                &place,
                            );
                        }
                        self.after = Some(sequence);
                        return Ok(Some(header.into_record(raw)));
                    }
                }
                // What looked like the end, or like damage, may have been written since the window was read.
                _ if !refreshed => {
                    reader.refresh()?;
                    refreshed = true;
                }
                Err(what) => {
                    if self.damaged.is_none() {
                        tracing::error!(%what, path = %reader.path().display(), at, "a record cannot be read back");
                        self.damaged = Some(format!("{} at byte {at}", reader.path().display()));
                    }
                    if !reader.resync()? && !self.leave() {
                        return Ok(None);
                    }
                }
                Ok(None) if !self.leave() => return Ok(None),
                Ok(None) => refreshed = false,
            }
        }
        Ok(None)
    }

    /// Leaves the open segment if a later one has been begun.
    fn leave(&mut self) -> bool {
        let Some((number, ..)) = &self.segment else { return false };
        let number = *number;
        let later = self.wal.shared.lock().segments.iter().find(|s| s.number > number).map(|s| s.base);
        if later.is_some() {
            self.done = number;
            self.segment = None;
            self.place = later;
        }
        later.is_some()
    }

    /// Opens the first segment that holds something unread; `false` when there is none.
    pub(super) fn open_next(&mut self) -> Result<bool, CollectorError> {
        loop {
            let next = {
                let inner = self.wal.shared.lock();
                let mut unread = inner.segments.iter().filter(|s| s.number > self.done);
                unread.find(|s| s.last > self.after).map(|s| (s.number, s.base, s.path.clone()))
            };
            let Some((number, base, path)) = next else { return Ok(false) };
            match SegmentReader::open(&path, Kind::Wal) {
                Ok(mut reader) => {
                    // What was at hand is not read again.
                    let known = self.place.take().and_then(|place| place.checked_sub(base));
                    if let Some(offset) = known.filter(|offset| *offset > reader.offset()) {
                        reader.seek(offset);
                    }
                    self.segment = Some((number, base, reader));
                    return Ok(true);
                }
                // Trimmed or dropped between the two lines above; its gap is in the stream.
                Err(SegmentError::Io { source, .. }) if source.kind() == std::io::ErrorKind::NotFound => {
                    self.done = number;
                }
                Err(error) => return Err(error.into()),
            }
        }
    }
}
