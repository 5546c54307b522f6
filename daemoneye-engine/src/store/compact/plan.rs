//! Which segments become one: those of an hour that has ended, then those of a day.
//!
//! A segment belongs to the hour under which it is dated. What comes late for an hour or day that has been merged waits until it
//! is worth rewriting the file, at most a day.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::super::history::HistoryTable;
use super::super::segment::SegmentFile;

/// A merged hour.
pub(super) const HOUR: u8 = 1;
/// A merged day.
pub(super) const DAY: u8 = 2;

const HOUR_US: i64 = 3_600_000_000;
const DAY_US: i64 = 24 * HOUR_US;
/// How long after its end an hour or day is left alone: the open segment and a collector that catches up come in meanwhile.
const GRACE_US: i64 = 300_000_000;
/// Files that may overlap each other at any point of a merge; each open one costs a few MiB.
const OPEN_FILES: usize = 8;
/// Files of one merge: a day of a busy host before its hours were merged has a thousand.
const INPUTS: usize = 512;
/// Late files that are merged into what is merged already, however small they are.
const LATE_FILES: usize = 16;
/// The share of a merged file that late ones must have, as its denominator, for rewriting it.
const LATE_SHARE: u64 = 4;

/// What may be merged now.
#[derive(Debug, Clone, Copy)]
pub(super) struct Policy {
    pub(super) now_us: i64,
    /// Size above which files are left as they are.
    pub(super) file_bytes: u64,
    /// Also what is late, little as it may be.
    pub(super) late: bool,
    /// Also hours and days that have not ended.
    pub(super) unfinished: bool,
}

/// One merge.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Job {
    /// Whose rows: files of one table become a file of that table.
    pub(super) table: HistoryTable,
    /// By their first event.
    pub(super) inputs: Vec<Arc<SegmentFile>>,
    pub(super) level: u8,
}

/// The merges that are due, table by table, oldest first.
pub(super) fn jobs(files: &[Arc<SegmentFile>], policy: Policy) -> Vec<Job> {
    HistoryTable::ALL.into_iter().flat_map(|table| jobs_of(table, files, policy)).collect()
}

fn jobs_of(table: HistoryTable, files: &[Arc<SegmentFile>], policy: Policy) -> Vec<Job> {
    let mut jobs = Vec::new();
    for (day, files) in by(DAY_US, files.iter().filter(|file| file.table == table)) {
        if policy.has_ended(day, DAY_US) {
            jobs.extend(runs(table, files, DAY, policy));
            continue;
        }
        let small = files.into_iter().filter(|file| file.level <= HOUR);
        for (hour, files) in by(HOUR_US, small) {
            if policy.has_ended(hour, HOUR_US) {
                jobs.extend(runs(table, files, HOUR, policy));
            }
        }
    }
    jobs
}

impl Policy {
    fn has_ended(&self, number: i64, length_us: i64) -> bool {
        let end_us = number.saturating_add(1).saturating_mul(length_us);
        self.unfinished || end_us.saturating_add(GRACE_US) <= self.now_us
    }

    fn is_worth_it(&self, run: &[&Arc<SegmentFile>], level: u8) -> bool {
        let (merged, added): (Vec<_>, Vec<_>) = run.iter().partition(|file| file.level == level);
        let bytes = |files: &[&&Arc<SegmentFile>]| files.iter().map(|file| file.bytes).sum::<u64>();
        run.len() > 1
            && (self.late
                || merged.is_empty()
                || added.len() >= LATE_FILES
                || bytes(&added).saturating_mul(LATE_SHARE) >= bytes(&merged))
    }
}

/// The files by number of the hour or day under which they are dated.
fn by<'a>(
    length_us: i64,
    files: impl Iterator<Item = &'a Arc<SegmentFile>>,
) -> BTreeMap<i64, Vec<&'a Arc<SegmentFile>>> {
    let mut groups: BTreeMap<i64, Vec<_>> = BTreeMap::new();
    for file in files {
        groups.entry(file.dated.us().div_euclid(length_us)).or_default().push(file);
    }
    groups
}

/// Neighbours that together stay within the bounds of a merge. A file that overlaps too many of them waits for the next one.
fn runs(table: HistoryTable, mut files: Vec<&Arc<SegmentFile>>, level: u8, policy: Policy) -> Vec<Job> {
    files.sort_by_key(|file| (file.first_us, file.id));
    let mut runs: Vec<Vec<&Arc<SegmentFile>>> = vec![Vec::new()];
    for file in files {
        let Some(run) = runs.last_mut() else { break };
        let bytes = run.iter().map(|file| file.bytes).sum::<u64>().saturating_add(file.bytes);
        let same_columns = run.first().is_none_or(|first| first.schema_version == file.schema_version);
        if !run.is_empty() && (bytes > policy.file_bytes || run.len() >= INPUTS || !same_columns) {
            runs.push(vec![file]);
        } else if run.iter().filter(|other| other.last_us >= file.first_us).count() < OPEN_FILES {
            run.push(file);
        }
    }
    runs.retain(|run| policy.is_worth_it(run, level));
    let job = |run: Vec<&Arc<SegmentFile>>| Job { table, inputs: run.into_iter().cloned().collect(), level };
    runs.into_iter().map(job).collect()
}
