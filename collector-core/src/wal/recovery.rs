//! Opening a log that may have been left at any instant: cut what was torn, keep aside what is damaged, read what can be read.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{Read as _, Seek as _, SeekFrom};
use std::path::{Path, PathBuf};

use daemoneye_lib::proto::{CoverageGap, Sequence};
use daemoneye_lib::segment::{
    HEADER_BYTES, Kind, SegmentHeader, SegmentReader, SegmentScan, WalHeader, encode, scan_dir,
};

use super::{Inner, Recovered, Segment, SyncMode, WalOptions, now_us, reason};
use crate::error::CollectorError;
use crate::wal::range::RangeHasher;
use crate::writer::SegmentLog;

/// Damaged segments that are kept for a person to look at; older ones make room.
const KEPT_DAMAGED: usize = 4;
/// Segments that the total bound has to hold: one that is written, its spare, and two that wait for the agent.
const MIN_SEGMENTS: u64 = 4;

/// Repairs the log and begins its next segment.
pub(super) fn recover(options: &WalOptions) -> Result<(Inner, Recovered), CollectorError> {
    check_bound(options)?;
    let log_options = options.log();
    log_options.clean()?;
    let scan = scan_dir(&options.dir, &log_options.name)?;
    let durable = scan.durable_upto;
    let number = scan.segments.last().map_or(1, |s| s.number + 1);
    let epochs = scan.segments.iter().filter_map(|s| Some(s.header?.epoch)).max();
    // Without a log there is no epoch to count on from: seconds outrank whatever an agent may have seen of a log that was removed.
    let epoch = epochs.map_or_else(|| now_us().unsigned_abs() / 1_000_000, |epoch| epoch + 1);
    let first = scan.segments.iter().filter_map(|s| Some(s.header?.first)).max();
    let mut repair = Repair {
        options,
        durable,
        kept: VecDeque::new(),
        recovered: Recovered { epoch, ..Recovered::default() },
        base: 0,
    };
    repair.all(scan.segments)?;
    let Repair { kept, mut recovered, base, .. } = repair;
    recovered.last = kept.iter().rev().find_map(|s| s.last);
    recovered.records = kept.iter().map(|s| s.records).sum();
    let next = first.unwrap_or(1).max(durable + 1).max(recovered.last.map_or(1, |s| s.number + 1));
    // Removing the spares frees their numbers; taking them again keeps numbers without gaps.
    let number = kept.back().map_or(number, |s| s.number + 1);
    let log = SegmentLog::begin(log_options, number, epoch, next, 0)?;
    let mut segments = kept;
    segments.push_back(Segment::begun(&log, options.segment_bytes, base));
    let inner = Inner {
        log,
        epoch,
        next,
        segments,
        unsynced: Vec::new(),
        range: RangeHasher::default(),
        losses: Vec::new(),
        gaps: recovered.gaps.clone(),
        appended: 0,
        lost: 0,
        trimmed: None,
        committed: None,
    };
    Ok((inner, recovered))
}

fn check_bound(options: &WalOptions) -> Result<(), CollectorError> {
    if options.max_bytes < MIN_SEGMENTS * options.segment_bytes {
        let text = format!(
            "the write-ahead log's bound of {} bytes holds less than {MIN_SEGMENTS} segments of {} bytes",
            options.max_bytes, options.segment_bytes
        );
        return Err(CollectorError::MisuseOptions(text));
    }
    Ok(())
}

struct Repair<'a> {
    options: &'a WalOptions,
    durable: u64,
    kept: VecDeque<Segment>,
    recovered: Recovered,
    base: u64,
}

impl Repair<'_> {
    fn all(&mut self, segments: Vec<SegmentScan>) -> Result<(), CollectorError> {
        let mut torn = false;
        let mut rest = segments.into_iter().peekable();
        while let Some(mut segment) = rest.next() {
            let bad = segment.bad.take();
            let spare = bad.is_none() && segment.header.is_none();
            if torn || spare {
                self.drop_file(&segment, torn)?;
                continue;
            }
            match bad {
                Some(bad) if bad.expected > self.durable => {
                    torn = true;
                    if bad.offset < HEADER_BYTES as u64 {
                        self.drop_file(&segment, true)?;
                        continue;
                    }
                    self.cut(&segment)?;
                    segment.last = segment.last.filter(|_| segment.end > HEADER_BYTES as u64);
                    self.recount(&mut segment)?;
                }
                Some(bad) => {
                    let until = rest.peek().and_then(|next| Some(next.header?.first));
                    self.salvage(&mut segment, bad.expected, until)?;
                }
                None => self.cut(&segment)?,
            }
            self.keep(segment)?;
        }
        Ok(())
    }

    fn drop_file(&mut self, segment: &SegmentScan, torn: bool) -> Result<(), CollectorError> {
        if torn {
            self.recovered.torn_bytes += used_from(&segment.path, 0)?;
        }
        self.options.log().remove(&segment.path)
    }

    /// Cuts a segment behind its last good record, and with it the zeros that nobody will fill.
    fn cut(&mut self, segment: &SegmentScan) -> Result<(), CollectorError> {
        self.recovered.torn_bytes += used_from(&segment.path, segment.end)?;
        let file = self.options.disk.open(&segment.path);
        file.and_then(|f| f.truncate(segment.end)).map_err(|e| CollectorError::io("cut", &segment.path, e))
    }

    /// The scan counted readable records behind the cut as well.
    fn recount(&self, segment: &mut SegmentScan) -> Result<(), CollectorError> {
        (segment.first, segment.last, segment.records) = (None, None, 0);
        let mut reader = SegmentReader::open(&segment.path, Kind::Wal)?;
        while let Ok(Some(raw)) = reader.step()? {
            let Ok(header) = raw.header::<WalHeader>() else { break };
            segment.first.get_or_insert(header.number);
            segment.last = Some(header.number);
            segment.records += 1;
            segment.time_us = Some((segment.time_us.map_or(header.time_us, |t| t.0), header.time_us));
        }
        Ok(())
    }

    fn keep(&mut self, segment: SegmentScan) -> Result<(), CollectorError> {
        let (Some(first), Some(last)) = (segment.first, segment.last) else {
            return self.options.log().remove(&segment.path);
        };
        // A crash of the program alone leaves records in the page cache; they are promised from now on.
        if last > self.durable && self.options.sync != SyncMode::Never {
            let synced = self.options.disk.open(&segment.path).and_then(|file| file.sync());
            synced.map_err(|e| CollectorError::SyncFailed { path: segment.path.clone(), message: e.to_string() })?;
        }
        let epoch = segment.header.map_or(0, |h| h.epoch);
        self.kept.push_back(Segment {
            number: segment.number,
            path: segment.path,
            first: Some(Sequence::new(epoch, first)),
            last: Some(Sequence::new(epoch, last)),
            time_us: segment.time_us.unwrap_or_default(),
            records: segment.records,
            bytes: segment.end,
            base: self.base,
        });
        self.base += segment.end;
        Ok(())
    }

    /// Writes what can be read into a sound segment and keeps the damaged one aside.
    fn salvage(&mut self, segment: &mut SegmentScan, expected: u64, until: Option<u64>) -> Result<(), CollectorError> {
        let aside = self.aside(&segment.path);
        let found = readable(segment)?;
        let until = until.unwrap_or(self.durable + 1);
        let start = segment.header.map_or(expected, |h| h.first);
        let epoch = found.first().map(|(h, ..)| h.epoch).or(segment.header.map(|h| h.epoch)).unwrap_or(0);
        let mut next = start;
        for (header, _) in &found {
            self.missing(epoch, next, header.number, segment);
            next = header.number + 1;
        }
        self.missing(epoch, next, until, segment);
        let header = SegmentHeader { kind: Kind::Wal, previous_crc: 0, epoch, segment: segment.number, first: start };
        let mut bytes = header.encode().to_vec();
        let mut crc = 0;
        for (header, payload) in &found {
            crc = encode(&mut bytes, crc, self.durable.min(header.number - 1), header, payload)
                .map_err(|_| CollectorError::LimitRecord { bytes: payload.len(), limit: bytes.len() })?;
        }
        let temporary = segment.path.with_extension("wal.tmp");
        let written = self.options.disk.create(&temporary, 0o600).and_then(|file| {
            file.write_at(&bytes, 0)?;
            file.sync()?;
            self.options.disk.rename(&temporary, &segment.path)?;
            self.options.disk.sync_dir(&self.options.dir)
        });
        written.map_err(|e| CollectorError::io("repair", &segment.path, e))?;
        self.recovered.corrupt.extend(aside);
        segment.header = Some(header);
        segment.end = bytes.len() as u64;
        Ok(())
    }

    /// Copies a damaged segment beside the log; the original stays until its repaired twin takes its name.
    fn aside(&self, path: &Path) -> Option<PathBuf> {
        let mut kept: Vec<PathBuf> = std::fs::read_dir(&self.options.dir).ok()?.flatten().map(|e| e.path()).collect();
        kept.retain(|p| p.extension().is_some_and(|e| e == "damaged"));
        kept.sort();
        for old in kept.iter().take((kept.len() + 1).saturating_sub(KEPT_DAMAGED)) {
            self.options.disk.remove(old).ok();
        }
        let aside = path.with_extension("wal.damaged");
        match std::fs::copy(path, &aside) {
            Ok(_) => Some(aside),
            Err(error) => {
                tracing::error!(%error, path = %path.display(), "a damaged segment cannot be kept aside");
                None
            }
        }
    }

    fn missing(&mut self, epoch: u64, from: u64, to: u64, segment: &SegmentScan) {
        if from >= to {
            return;
        }
        let (from_us, to_us) = segment.time_us.unwrap_or_else(|| (now_us(), now_us()));
        self.recovered.gaps.push(CoverageGap {
            collector: self.options.prefix.clone(),
            reason: reason::CORRUPT.to_owned(),
            from_us,
            to_us,
            count: Some(to - from),
            detail: format!(
                "segment {} was damaged on disk after it had been synced; it is kept aside",
                segment.number
            ),
            first: Some(Sequence::new(epoch, from)),
            last: Some(Sequence::new(epoch, to - 1)),
        });
    }
}

/// Every readable record of a damaged segment, in order.
fn readable(segment: &SegmentScan) -> Result<Vec<(WalHeader, Vec<u8>)>, CollectorError> {
    let mut reader = SegmentReader::open(&segment.path, Kind::Wal)?;
    let mut found: Vec<(WalHeader, Vec<u8>)> = Vec::new();
    loop {
        match reader.step()? {
            Ok(Some(raw)) => {
                if let Ok(header) = raw.header::<WalHeader>()
                    && found.last().is_none_or(|(last, _)| header.number > last.number)
                {
                    found.push((header, raw.payload.to_vec()));
                }
            }
            Ok(None) | Err(_) if reader.resync()? => {}
            Ok(None) | Err(_) => return Ok(found),
        }
    }
}

/// Bytes from `offset` to the last one that is not zero.
fn used_from(path: &Path, offset: u64) -> Result<u64, CollectorError> {
    let unreadable = |e| CollectorError::io("read", path, e);
    let mut file = File::open(path).map_err(unreadable)?;
    file.seek(SeekFrom::Start(offset)).map_err(unreadable)?;
    let mut chunk = vec![0; 64 * 1024];
    let (mut at, mut used) = (0, 0);
    loop {
        let read = file.read(&mut chunk).map_err(unreadable)?;
        if read == 0 {
            return Ok(used);
        }
        if let Some(last) = chunk.get(..read).and_then(|bytes| bytes.iter().rposition(|b| *b != 0)) {
            used = at + last as u64 + 1;
        }
        at += read as u64;
    }
}
