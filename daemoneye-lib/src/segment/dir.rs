//! A log's directory: which segments there are, and where and how it ends.

use std::path::{Path, PathBuf};

use super::{
    BadRecord, DurableNote, HEADER_BYTES, HeaderError, Kind, SegmentError, SegmentHeader, SegmentReader, WalHeader,
};

/// How a log's files are called.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SegmentName {
    /// `procmond`, `entries`.
    pub prefix: String,
    /// `wal`, `log`.
    pub extension: &'static str,
}

impl SegmentName {
    /// Segments of the audit ledger.
    #[must_use]
    pub fn ledger() -> Self {
        Self { prefix: "entries".to_owned(), extension: "log" }
    }

    /// Segments of a collector's write-ahead log.
    #[must_use]
    pub fn wal(collector: &str) -> Self {
        Self { prefix: collector.to_owned(), extension: "wal" }
    }

    /// `procmond-00001.wal`
    #[must_use]
    pub fn file(&self, segment: u64) -> String {
        format!("{}-{segment:05}.{}", self.prefix, self.extension)
    }

    /// The number in a file name, if it is one of this log's.
    #[must_use]
    pub fn number(&self, file: &str) -> Option<u64> {
        let digits =
            file.strip_prefix(&self.prefix)?.strip_prefix('-')?.strip_suffix(self.extension)?.strip_suffix('.')?;
        let number = digits.parse().ok()?;
        // `+7`, `7` and `007` are not how the writer writes.
        (self.file(number) == file).then_some(number)
    }
}

/// The segments of a log in order of their numbers.
///
/// # Errors
/// The directory cannot be read.
pub fn list(dir: &Path, name: &SegmentName) -> Result<Vec<(u64, PathBuf)>, SegmentError> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(dir).map_err(|e| SegmentError::io("list", dir, e))? {
        let entry = entry.map_err(|e| SegmentError::io("list", dir, e))?;
        if let Some(number) = entry.file_name().to_str().and_then(|file| name.number(file)) {
            found.push((number, entry.path()));
        }
    }
    found.sort_unstable();
    Ok(found)
}

/// Where something that is not a record was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bad {
    /// Offset in the file.
    pub offset: u64,
    /// Number of the record that had to stand there.
    pub expected: u64,
    /// What is wrong; a bad segment header counts as a bad first record.
    pub what: BadRecord,
}

/// One segment as a scan found it.
#[derive(Debug, Clone)]
pub struct SegmentScan {
    /// From its name.
    pub number: u64,
    /// The file.
    pub path: PathBuf,
    /// `None`: a spare, or the header is bad.
    pub header: Option<SegmentHeader>,
    /// Highest epoch in header and records.
    pub epoch: Option<u64>,
    /// The records from this number up to the first one here are not in the segments before.
    pub missing_from: Option<u64>,
    /// First readable record.
    pub first: Option<u64>,
    /// Last readable record, bad ones in between skipped.
    pub last: Option<u64>,
    /// Readable records.
    pub records: u64,
    /// Checksum of the last record before the first bad one.
    pub last_crc: u32,
    /// Where the records before the first bad one end.
    pub end: u64,
    /// First bad place.
    pub bad: Option<Bad>,
    /// Time of the first and last readable record, µs since the Unix epoch.
    pub time_us: Option<(i64, i64)>,
}

/// How a log ends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Tail {
    /// Every record can be read.
    Clean,
    /// A record that was known to be synced cannot be read; nothing is cut.
    Corrupt,
    /// Nothing that was promised is lost: everything from this place on is to be cut.
    Torn {
        /// Index into [`DirScan::segments`].
        segment: usize,
        /// Offset in that segment.
        offset: u64,
    },
}

/// A whole WAL directory as found.
#[derive(Debug, Clone)]
pub struct DirScan {
    /// In order; spares at the end have no header.
    pub segments: Vec<SegmentScan>,
    /// Last number that is known to have been synced.
    pub durable_upto: u64,
    /// Highest epoch that was ever given, as far as segments and note tell.
    pub epoch: Option<u64>,
    /// How it ends.
    pub tail: Tail,
}

/// What the segments walked so far say about the next one.
#[derive(Default)]
struct Walk {
    /// The lowest number that the next record may have; `None` before the first segment.
    next: Option<u64>,
    epoch: Option<u64>,
    durable: u64,
}

/// Reads every record of a WAL and judges its end.
///
/// # Errors
/// The directory or a file cannot be read, or is of a newer version.
pub fn scan_dir(dir: &Path, name: &SegmentName) -> Result<DirScan, SegmentError> {
    let mut walk = Walk::default();
    let segments: Vec<SegmentScan> =
        list(dir, name)?.into_iter().map(|(number, path)| walk.segment(number, &path)).collect::<Result<_, _>>()?;
    // A note older than the whole log speaks of one that was removed.
    let oldest = segments.iter().filter_map(|s| s.epoch).min();
    let damaged = segments.iter().any(|s| s.bad.is_some());
    let note = DurableNote::read(dir, name)?;
    if let Some(note) = note.filter(|note| oldest.map_or(damaged, |epoch| note.epoch >= epoch)) {
        walk.durable = walk.durable.max(note.number);
    }
    let first_bad = segments.iter().enumerate().find_map(|(at, segment)| {
        let missing = segment.missing_from.map(|expected| (at, expected, 0));
        missing.or_else(|| segment.bad.as_ref().map(|bad| (at, bad.expected, bad.offset)))
    });
    let tail = match first_bad {
        None if walk.next.is_none_or(|next| next > walk.durable) => Tail::Clean,
        None => Tail::Corrupt,
        Some((_, expected, _)) if expected <= walk.durable => Tail::Corrupt,
        Some((segment, _, offset)) => Tail::Torn { segment, offset },
    };
    let epoch = walk.epoch.max(note.map(|note| note.epoch));
    Ok(DirScan { segments, durable_upto: walk.durable, epoch, tail })
}

impl Walk {
    fn segment(&mut self, number: u64, path: &Path) -> Result<SegmentScan, SegmentError> {
        let mut reader = SegmentReader::open(path, Kind::Wal)?;
        let mut scan = SegmentScan {
            number,
            path: path.to_owned(),
            header: None,
            epoch: None,
            missing_from: None,
            first: None,
            last: None,
            records: 0,
            last_crc: 0,
            end: HEADER_BYTES as u64,
            bad: None,
            time_us: None,
        };
        match reader.header() {
            Ok(None) => {
                // A spare holds nothing; a header that never reached the disk may have records behind it.
                if !reader.zero_to_the_end()? {
                    scan.bad = Some(self.bad_header());
                }
            }
            Ok(Some(header)) if header.segment == number => self.begin(header, &mut scan),
            // A file cut inside its header never had a record.
            Err(HeaderError::CorruptShort) if reader.length() == 0 => {}
            Ok(Some(_)) | Err(_) => scan.bad = Some(self.bad_header()),
        }
        let mut next = self.next.unwrap_or(1);
        self.durable = self.durable.max(walk(&mut reader, &mut scan, &mut next)?);
        if scan.header.is_some() || scan.bad.is_some() {
            self.next = Some(next);
        }
        self.epoch = self.epoch.max(scan.epoch);
        Ok(scan)
    }

    fn begin(&mut self, header: SegmentHeader, scan: &mut SegmentScan) {
        let next = self.next.unwrap_or(header.first);
        if self.epoch.is_some_and(|before| before < header.epoch) {
            self.durable = self.durable.max(header.first.saturating_sub(1));
        }
        scan.missing_from = (header.first > next).then_some(next);
        self.next = Some(next.max(header.first));
        scan.last_crc = header.previous_crc;
        scan.epoch = Some(header.epoch);
        scan.header = Some(header);
    }

    fn bad_header(&self) -> Bad {
        Bad { offset: 0, expected: self.next.unwrap_or(1), what: BadRecord::CorruptHeader }
    }
}

/// `next`: the lowest number that the first record may have.
fn walk(reader: &mut SegmentReader, scan: &mut SegmentScan, next: &mut u64) -> Result<u64, SegmentError> {
    let (mut durable, mut skipping) = (0, scan.bad.is_some());
    loop {
        let offset = reader.offset();
        let what = match reader.step()? {
            Ok(None) if skipping || reader.zero_to_the_end()? => {
                if skipping && reader.resync()? {
                    continue;
                }
                return Ok(durable);
            }
            Ok(None) => BadRecord::CorruptAfterEnd,
            Err(what) => what,
            Ok(Some(record)) => match record.header::<WalHeader>() {
                Ok(header) if header.number >= *next && (skipping || record.previous_crc == scan.last_crc) => {
                    durable = durable.max(record.durable_upto);
                    skipping = false;
                    *next = header.number + 1;
                    scan.records += 1;
                    scan.epoch = scan.epoch.max(Some(header.epoch));
                    scan.first.get_or_insert(header.number);
                    scan.last = Some(header.number);
                    scan.last_crc = record.crc;
                    scan.time_us = Some((scan.time_us.map_or(header.time_us, |t| t.0), header.time_us));
                    if scan.bad.is_none() {
                        scan.end = reader.offset();
                    }
                    continue;
                }
                Ok(_) => BadRecord::CorruptLink,
                Err(what) => what,
            },
        };
        skipping = true;
        scan.bad.get_or_insert(Bad { offset, expected: *next, what });
        reader.seek(offset);
        if !reader.resync()? {
            return Ok(durable);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_names_that_the_writer_writes_are_segments() {
        let name = SegmentName::wal("procmond");
        assert_eq!(name.file(7), "procmond-00007.wal");
        assert_eq!(name.number("procmond-00007.wal"), Some(7));
        assert_eq!(name.number("procmond-123456.wal"), Some(123_456));
        for other in ["procmond-7.wal", "procmond-+0007.wal", "procmond-00007.wal.tmp", "lock", "x-00007.wal"] {
            assert_eq!(name.number(other), None, "{other}");
        }
    }
}
