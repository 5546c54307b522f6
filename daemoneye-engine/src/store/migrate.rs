//! From the formats of earlier builds to ours, in the transaction that opens the store: all of it or nothing.
//!
//! Every format that a build has written is kept as a data directory under `tests/store/golden/`, and opened by a test.

use daemoneye_lib::proto::CoverageGap;
use redb::{ReadableTable as _, TableDefinition, TableHandle as _, WriteTransaction};
use serde::{Deserialize, Serialize};

use super::segment::{SegmentRow, SequenceRange};
use super::state::{FORMAT_KEY, META, SEGMENTS};
use super::value::{Record, Stored};
use super::{FORMAT_VERSION, StoreError, audit, counts, coverage, reason};

type Step = fn(&WriteTransaction) -> Result<(), StoreError>;

/// What makes each version the next one; the first is from 1 to 2. Tables that were added are there already, and empty.
const STEPS: [Step; 3] = [
    // 2 counts deliveries as it goes.
    counts::recount,
    // 3 lists the files that leave, segments of several levels and those of lifetimes: an older build would take them for damage.
    no_lifetimes_before,
    // 4 dates every segment.
    date_segments,
];

const _: () = assert!(STEPS.len() + 1 == FORMAT_VERSION as usize, "a step for each version");

/// Events that were stored before lifetimes were have none, and answers about that time have to say so.
fn no_lifetimes_before(transaction: &WriteTransaction) -> Result<(), StoreError> {
    let mut first_us: Option<i64> = None;
    for entry in transaction.open_table(SEGMENTS)?.iter()? {
        let at = entry?.0.value().1;
        first_us = Some(first_us.map_or(at, |first| first.min(at)));
    }
    let Some(from_us) = first_us else { return Ok(()) };
    let gap = CoverageGap {
        collector: "agent".to_owned(),
        reason: reason::LIFETIMES_RETENTION.to_owned(),
        from_us,
        to_us: audit::now_us(),
        count: None,
        detail: "lifetimes were not kept before this build".to_owned(),
        first: None,
        last: None,
    };
    let row = coverage::record_alone(transaction, &gap)?;
    // However much waits: a row that no entry tells of looks as if it had been put in.
    coverage::tell(transaction, u64::MAX, [row])
}

/// A segment as formats up to 3 had it.
#[derive(Debug, Serialize, Deserialize)]
struct UndatedRow {
    file: String,
    level: u8,
    rows: u64,
    bytes: u64,
    first_us: i64,
    last_us: i64,
    ranges: Vec<SequenceRange>,
    hash: [u8; 32],
    schema_version: u32,
}

impl Record for UndatedRow {
    const NAME: &'static str = SegmentRow::NAME;
}

/// When they were stored is not known; it was not later than now.
fn date_segments(transaction: &WriteTransaction) -> Result<(), StoreError> {
    let now_us = audit::now_us();
    let mut rows = Vec::new();
    let undated: TableDefinition<'_, (&str, i64, u64), Stored<UndatedRow>> = TableDefinition::new(SEGMENTS.name());
    for entry in transaction.open_table(undated)?.iter()? {
        let (at, row) = entry?;
        let (table, first_us, id) = at.value();
        rows.push((table.to_owned(), first_us, id, row.value().decode()?));
    }
    let mut segments = transaction.open_table(SEGMENTS)?;
    for (table, first_us, id, row) in rows {
        let UndatedRow { file, level, rows, bytes, first_us: from_us, last_us, ranges, hash, schema_version } = row;
        let dated_us = last_us.min(now_us);
        let row = SegmentRow {
            file,
            level,
            rows,
            bytes,
            first_us: from_us,
            last_us,
            ranges,
            hash,
            schema_version,
            dated_us,
        };
        segments.insert((table.as_str(), first_us, id), row.encode()?)?;
    }
    Ok(())
}

/// Makes a store of version `found` one of ours.
pub(super) fn from(transaction: &WriteTransaction, found: u64) -> Result<(), StoreError> {
    if found >= u64::from(FORMAT_VERSION) {
        return Ok(());
    }
    let done = usize::try_from(found).unwrap_or(usize::MAX).saturating_sub(1);
    STEPS.iter().skip(done).try_for_each(|step| step(transaction))?;
    transaction.open_table(META)?.insert(FORMAT_KEY, u64::from(FORMAT_VERSION).encode()?)?;
    tracing::info!(found, now = FORMAT_VERSION, "the store was written by an older build and has been converted");
    Ok(())
}
