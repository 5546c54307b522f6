//! A log's directory: which segments there are, and where and how it ends.

use std::path::{Path, PathBuf};

use super::{BadRecord, HEADER_BYTES, HeaderError, Kind, SegmentError, SegmentHeader, SegmentReader, WalHeader};

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
    /// Highest `durable_upto` in any readable record.
    pub durable_upto: u64,
    /// How it ends.
    pub tail: Tail,
}

/// Reads every record of a WAL and judges its end.
///
/// # Errors
/// The directory or a file cannot be read, or is of a newer version.
pub fn scan_dir(dir: &Path, name: &SegmentName) -> Result<DirScan, SegmentError> {
    let mut segments = Vec::new();
    let (mut durable_upto, mut next) = (0, 1);
    for (number, path) in list(dir, name)? {
        let (segment, durable) = scan_segment(number, &path, &mut next)?;
        durable_upto = durable_upto.max(durable);
        segments.push(segment);
    }
    let first_bad = segments.iter().enumerate().find_map(|(at, s)| s.bad.as_ref().map(|bad| (at, bad)));
    let tail = match first_bad {
        None => Tail::Clean,
        Some((_, bad)) if bad.expected <= durable_upto => Tail::Corrupt,
        Some((segment, bad)) => Tail::Torn { segment, offset: bad.offset },
    };
    Ok(DirScan { segments, durable_upto, tail })
}

/// `next`: the lowest number that the first record may have.
fn scan_segment(number: u64, path: &Path, next: &mut u64) -> Result<(SegmentScan, u64), SegmentError> {
    let mut reader = SegmentReader::open(path, Kind::Wal)?;
    let mut scan = SegmentScan {
        number,
        path: path.to_owned(),
        header: None,
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
                scan.bad = Some(Bad { offset: 0, expected: *next, what: BadRecord::CorruptHeader });
            }
        }
        Ok(Some(header)) if header.segment == number => {
            scan.last_crc = header.previous_crc;
            *next = (*next).max(header.first);
            scan.header = Some(header);
        }
        // A file cut inside its header never had a record.
        Err(HeaderError::CorruptShort) if reader.length() == 0 => {}
        Ok(Some(_)) | Err(_) => {
            scan.bad = Some(Bad { offset: 0, expected: *next, what: BadRecord::CorruptHeader });
        }
    }
    let durable = walk(&mut reader, &mut scan, next)?;
    Ok((scan, durable))
}

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
