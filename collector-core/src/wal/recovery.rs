//! Opening a log that may have been left at any instant: cut what was torn, keep aside what is damaged, read what can be read.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{Read as _, Seek as _, SeekFrom};
use std::path::{Path, PathBuf};

use daemoneye_lib::ledger::RangeBuilder;
use daemoneye_lib::proto::{CoverageGap, Sequence};
use daemoneye_lib::segment::{
    HEADER_BYTES, Kind, SegmentHeader, SegmentReader, SegmentScan, WalHeader, encode, scan_dir,
};

use super::{Inner, Losses, Recovered, Segment, WalOptions, now_us, reason};
use crate::disk::DiskDir;
use crate::error::CollectorError;
use crate::wal::recent::Recent;
use crate::writer::{LogOptions, SegmentLog};

/// Damaged segments that are kept for a person to look at; older ones make room.
const KEPT_DAMAGED: usize = 4;
/// Segments that the total bound has to hold: one that is written, its spare, and two that wait for the agent.
const MIN_SEGMENTS: u64 = 4;

/// What happens to a damaged segment as soon as what it lacks is told.
pub(super) enum Repaired {
    /// Nothing in it can be read.
    Gone(PathBuf),
    /// It is sound, but the records before it are missing: its header follows the last one that is left.
    Header(PathBuf, SegmentHeader),
    /// What could be read waits under a temporary name.
    Twin { temporary: PathBuf, path: PathBuf },
}

/// Removes the traces of the damage.
pub(super) fn replace(
    options: &WalOptions,
    directory: &dyn DiskDir,
    repaired: Vec<Repaired>,
) -> Result<(), CollectorError> {
    if repaired.is_empty() {
        return Ok(());
    }
    for one in repaired {
        let (path, done) = match one {
            Repaired::Gone(path) => {
                let done = options.disk.remove(&path);
                (path, done)
            }
            Repaired::Header(path, header) => {
                let file = options.disk.open(&path);
                let done = file.and_then(|file| file.write_at(&header.encode(), 0).and_then(|()| file.sync()));
                (path, done)
            }
            Repaired::Twin { temporary, path } => {
                let done = options.disk.rename(&temporary, &path);
                (path, done)
            }
        };
        done.map_err(|e| CollectorError::io("repair", &path, e))?;
    }
    directory.sync().map_err(|e| CollectorError::io("repair", &options.dir, e))
}

/// Repairs the log and begins its next segment.
pub(super) fn recover(
    options: &WalOptions,
    log_options: LogOptions,
) -> Result<(Inner, Recovered, Vec<Repaired>), CollectorError> {
    check_bound(options)?;
    log_options.clean()?;
    let scan = scan_dir(&options.dir, &log_options.name)?;
    let durable = scan.durable_upto;
    let number = scan.segments.last().map_or(1, |s| s.number + 1);
    // Without a log there is no epoch to count on from: seconds outrank whatever an agent may have seen of a log that was removed.
    let epoch = scan.epoch.map_or_else(|| now_us().unsigned_abs() / 1_000_000, |epoch| epoch + 1);
    let mut repair = Repair {
        options,
        durable,
        next: None,
        told: 0,
        taken: None,
        kept: VecDeque::new(),
        recovered: Recovered { epoch, ..Recovered::default() },
        repaired: Vec::new(),
        base: 0,
    };
    repair.all(scan.segments)?;
    let Repair { next, taken, kept, mut recovered, repaired, base, .. } = repair;
    recovered.last = kept.iter().rev().find_map(|s| s.last);
    recovered.last_us = kept.iter().rev().find(|s| s.records > 0).map(|s| s.time_us.1);
    recovered.records = kept.iter().map(|s| s.records).sum();
    let next = next.unwrap_or(1);
    // Removing the spares frees their numbers; taking them again keeps numbers without gaps.
    let number = taken.map_or(number, |taken| taken + 1);
    // The header names the end that was found, not that of the gap: until the gap is told, the next start finds it again.
    let log = SegmentLog::begin(log_options, number, epoch, next, 0)?;
    let mut segments = kept;
    segments.push_back(Segment::begun(&log, options.segment_bytes, base));
    let inner = Inner {
        log,
        epoch,
        next: next.max(durable + 1),
        segments,
        unsynced: Vec::new(),
        ranges: RangeBuilder::new(options.prefix.as_str()),
        recent: Recent::default(),
        losses: Vec::new(),
        gaps: recovered.gaps.clone(),
        condemned: Vec::new(),
        appended: 0,
        written: recovered.last,
        lost: 0,
        untold: Losses::default(),
        complained: None,
        missed_upto: 0,
        trimmed: None,
    };
    Ok((inner, recovered, repaired))
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
    /// Last number that is known to have been synced.
    durable: u64,
    /// Number that follows what is kept so far; `None` before the first segment.
    next: Option<u64>,
    /// Numbers below are kept or told.
    told: u64,
    /// Last segment whose file is still there.
    taken: Option<u64>,
    kept: VecDeque<Segment>,
    recovered: Recovered,
    repaired: Vec<Repaired>,
    base: u64,
}

impl Repair<'_> {
    fn all(&mut self, segments: Vec<SegmentScan>) -> Result<(), CollectorError> {
        let mut torn = false;
        let mut rest = segments.into_iter().peekable();
        while let Some(segment) = rest.next() {
            let bad = segment.bad.as_ref().map(|bad| bad.expected);
            let spare = bad.is_none() && segment.header.is_none();
            if torn || spare {
                self.drop_file(&segment, torn)?;
                continue;
            }
            match segment.missing_from.or(bad) {
                Some(expected) if expected > self.durable => {
                    torn = true;
                    self.keep_front(segment)?;
                }
                Some(expected) if segment.bad.is_none() => self.bridge(segment, expected)?,
                Some(expected) => {
                    let until = rest.peek().and_then(|next| Some(next.header?.first));
                    torn = self.salvage(segment, expected, until)?;
                }
                None => {
                    self.trim_zeros(&segment)?;
                    self.keep(segment, false)?;
                }
            }
        }
        if let Some(next) = self.next.filter(|_| !torn) {
            let (epoch, from_us) =
                self.kept.back().map_or((0, now_us()), |s| (s.last.map_or(0, |l| l.epoch), s.time_us.1));
            self.missing(epoch, next, self.durable + 1, (from_us, now_us()), "the end of the log");
        }
        Ok(())
    }

    fn drop_file(&mut self, segment: &SegmentScan, torn: bool) -> Result<(), CollectorError> {
        if torn {
            self.recovered.torn_bytes += used_from(&segment.path, 0)?;
        }
        self.options.remove(&segment.path)
    }

    /// Keeps the records in front of the place where a torn segment is cut.
    fn keep_front(&mut self, mut segment: SegmentScan) -> Result<(), CollectorError> {
        let headless = segment.bad.as_ref().is_some_and(|bad| bad.offset < HEADER_BYTES as u64);
        if headless || segment.missing_from.is_some() {
            return self.drop_file(&segment, true);
        }
        self.recovered.torn_bytes += used_from(&segment.path, segment.end)?;
        // Before anything new is written: a cut that a power failure takes back would be found below what is durable then.
        let file = self.options.disk.open(&segment.path);
        file.and_then(|f| f.truncate(segment.end).and_then(|()| f.sync()))
            .map_err(|e| CollectorError::io("cut", &segment.path, e))?;
        self.recount(&mut segment)?;
        self.keep(segment, false)
    }

    /// Gives back the zeros that nobody will fill.
    fn trim_zeros(&self, segment: &SegmentScan) -> Result<(), CollectorError> {
        let file = self.options.disk.open(&segment.path);
        file.and_then(|f| f.truncate(segment.end)).map_err(|e| CollectorError::io("cut", &segment.path, e))
    }

    /// The scan counted readable records behind the cut as well.
    fn recount(&self, segment: &mut SegmentScan) -> Result<(), CollectorError> {
        (segment.first, segment.last, segment.records, segment.time_us) = (None, None, 0, None);
        let mut reader = SegmentReader::open(&segment.path, Kind::Wal)?;
        while let Ok(Some(raw)) = reader.step()? {
            let Ok(header) = raw.header::<WalHeader>() else { break };
            count(segment, &header);
        }
        Ok(())
    }

    fn keep(&mut self, segment: SegmentScan, synced: bool) -> Result<(), CollectorError> {
        let header_first = segment.header.map(|h| h.first);
        self.next = self.next.max(header_first).max(segment.last.map(|last| last + 1));
        let (Some(first), Some(last)) = (segment.first, segment.last) else {
            return self.options.remove(&segment.path);
        };
        // A crash of the program alone leaves records in the page cache; they are promised from now on.
        if last > self.durable && !synced {
            let synced = self.options.disk.open(&segment.path).and_then(|file| file.sync());
            synced.map_err(|e| CollectorError::SyncFailed { path: segment.path.clone(), message: e.to_string() })?;
        }
        let epoch = segment.epoch.unwrap_or(0);
        self.taken = Some(segment.number);
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

    /// Keeps a sound segment whose predecessors lost their end.
    fn bridge(&mut self, mut segment: SegmentScan, from: u64) -> Result<(), CollectorError> {
        let Some(header) = &mut segment.header else { return self.keep(segment, false) };
        let (epoch, first) = (header.epoch, std::mem::replace(&mut header.first, from));
        let repaired = Repaired::Header(segment.path.clone(), *header);
        let span = segment.time_us.unwrap_or_else(|| (now_us(), now_us()));
        self.missing(epoch, from, first, span, &format!("the log before segment {}", segment.number));
        if segment.records > 0 {
            self.repaired.push(repaired);
        }
        self.trim_zeros(&segment)?;
        self.keep(segment, false)
    }

    /// Writes what can be read into a sound segment and keeps the damaged one aside; `true` when a torn tail begins in it.
    fn salvage(
        &mut self,
        mut segment: SegmentScan,
        expected: u64,
        until: Option<u64>,
    ) -> Result<bool, CollectorError> {
        let mut found = readable(&segment)?;
        let front = found.first().map(|(header, _)| header.number);
        let start =
            segment.missing_from.or(segment.header.map(|h| h.first)).or(self.next).or(front).unwrap_or(expected);
        let (epoch, span) = (segment.epoch.unwrap_or(0), segment.time_us.unwrap_or_else(|| (now_us(), now_us())));
        let place = format!("segment {}", segment.number);
        let told = self.recovered.gaps.len();
        let (mut next, mut torn) = (start, None);
        for (at, (header, _)) in found.iter().enumerate() {
            if header.number > next && next > self.durable {
                torn = Some(at);
                break;
            }
            self.missing(epoch, next, header.number, span, &place);
            next = header.number + 1;
        }
        match torn {
            Some(at) => found.truncate(at),
            None => {
                self.missing(epoch, next, until.unwrap_or(u64::MAX).min(self.durable + 1), span, &place);
            }
        }
        self.recovered.corrupt.push(self.aside(&segment.path)?);
        if self.recovered.gaps.len() == told {
            // Somebody changed it all the same: said at the moment it was found, because nothing is missing at any other.
            let now = now_us();
            self.recovered.gaps.push(gap(&self.options.prefix, None, (now, now), &place));
        }
        self.next = self.next.max(Some(start));
        if found.is_empty() {
            self.taken = Some(segment.number);
            self.repaired.push(Repaired::Gone(segment.path));
            return Ok(torn.is_some());
        }
        let header = SegmentHeader { kind: Kind::Wal, previous_crc: 0, epoch, segment: segment.number, first: start };
        segment.end = self.rewrite(&segment.path, header, &found)?;
        (segment.header, segment.first, segment.last, segment.records) = (Some(header), None, None, 0);
        for (header, _) in &found {
            count(&mut segment, header);
        }
        self.keep(segment, true)?;
        Ok(torn.is_some())
    }

    fn rewrite(
        &mut self,
        path: &Path,
        header: SegmentHeader,
        records: &[(WalHeader, Vec<u8>)],
    ) -> Result<u64, CollectorError> {
        let mut bytes = header.encode().to_vec();
        let mut crc = 0;
        for (header, payload) in records {
            crc = encode(&mut bytes, crc, self.durable.min(header.number - 1), header, payload)
                .map_err(|_| CollectorError::LimitRecord { bytes: payload.len(), limit: bytes.len() })?;
        }
        let temporary = path.with_extension("wal.tmp");
        let written = self.options.disk.create(&temporary, 0o600).and_then(|file| {
            file.write_at(&bytes, 0)?;
            file.sync()
        });
        written.map_err(|e| CollectorError::io("repair", path, e))?;
        self.repaired.push(Repaired::Twin { temporary, path: path.to_owned() });
        Ok(bytes.len() as u64)
    }

    /// Gives a damaged segment a second name beside the log, which needs no room; it stays until its repaired twin takes the
    /// first. Where neither that nor a copy works nothing is repaired: it would replace the only evidence.
    fn aside(&self, path: &Path) -> Result<PathBuf, CollectorError> {
        let refused = |error| CollectorError::io("keep aside the damaged", path, error);
        let listed = std::fs::read_dir(&self.options.dir).map_err(refused)?;
        let mut kept: Vec<PathBuf> = listed.flatten().map(|e| e.path()).collect();
        kept.retain(|p| p.extension().is_some_and(|e| e == "damaged"));
        kept.sort();
        for old in kept.iter().take((kept.len() + 1).saturating_sub(KEPT_DAMAGED)) {
            self.options.disk.remove(old).ok();
        }
        let aside = path.with_extension("wal.damaged");
        // From a start that got no further than this.
        self.options.disk.remove(&aside).ok();
        let named = std::fs::hard_link(path, &aside);
        let named = named.or_else(|_| std::fs::copy(path, &aside).and_then(|_| File::open(&aside)?.sync_all()));
        named.map(|()| aside).map_err(refused)
    }

    /// Tells that the records from `from` up to before `to` are gone.
    fn missing(&mut self, epoch: u64, from: u64, to: u64, (from_us, to_us): (i64, i64), place: &str) {
        let from = from.max(self.told);
        if from >= to {
            return;
        }
        self.told = to;
        let range = (Sequence::new(epoch, from), Sequence::new(epoch, to - 1));
        self.recovered.gaps.push(gap(&self.options.prefix, Some(range), (from_us, to_us), place));
    }
}

/// `range`: the first and the last record that are gone.
fn gap(collector: &str, range: Option<(Sequence, Sequence)>, time_us: (i64, i64), place: &str) -> CoverageGap {
    let lost = if range.is_some() { "" } else { "; every record of it can be read" };
    CoverageGap {
        collector: collector.to_owned(),
        reason: reason::CORRUPT.to_owned(),
        from_us: time_us.0,
        to_us: time_us.1,
        count: Some(range.map_or(0, |(first, last)| last.number - first.number + 1)),
        detail: format!(
            "{place} was damaged on disk after it had been synced; what is left of it is kept aside{lost}"
        ),
        first: range.map(|(first, _)| first),
        last: range.map(|(_, last)| last),
    }
}

fn count(segment: &mut SegmentScan, header: &WalHeader) {
    segment.first.get_or_insert(header.number);
    segment.last = Some(header.number);
    segment.records += 1;
    segment.time_us = Some((segment.time_us.map_or(header.time_us, |t| t.0), header.time_us));
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
