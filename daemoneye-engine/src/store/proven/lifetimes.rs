//! Lifetimes against the events that they are made of.
//!
//! No entry of the ledger tells of a lifetime: the store makes it of the event that ended a process, and has both in files as of one
//! transaction. So every stop that is stored has its lifetime, and every lifetime of which an end was told says what its stop says.
//! Where retention took one of the two, or nobody told of the end, the other can be proven no more, and is counted.
//!
//! A host has millions of them, so as many are held at once as fit into some 30 MB, and the files are read that often.

use std::collections::HashMap;
use std::sync::Arc;

use daemoneye_lib::proto::CoverageGap;
use datafusion::arrow::array::{Array as _, AsArray as _, Int64Array, RecordBatch, StringArray};
use datafusion::arrow::datatypes::{Int64Type, TimestampMicrosecondType};
use datafusion::parquet::arrow::ProjectionMask;
use datafusion::parquet::arrow::arrow_reader::{ArrowReaderOptions, ParquetRecordBatchReaderBuilder};
use datafusion::parquet::file::metadata::PageIndexPolicy;

use super::super::fsck::OnProgress;
use super::super::segment::SegmentFile;
use super::super::{damage, reason};
use super::facts::Facts;
use super::found::{Proven, named, shown};
use super::leaves::{Position, hidden_in, name_of};
use super::pruned;
use super::streams::Standing;

/// Lifetimes that are held at once.
const AT_ONCE: u64 = 262_144;
/// Rows that are decoded at a time.
const BATCH_ROWS: usize = 4_096;
/// What is read of both tables.
const COLUMNS: [&str; 12] = [
    "entity_id",
    "event_type",
    "collector",
    "epoch",
    "seq",
    "time",
    "exit_code",
    "runtime_ms",
    "end_observed",
    "pid",
    "name",
    "executable_path",
];

/// A lifetime, or the stop of one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct End {
    entity: u128,
    at: Position,
    time_us: i64,
    exit_code: Option<i64>,
    runtime_ms: Option<i64>,
    observed: Option<bool>,
    pid: Option<i64>,
    name: Option<u128>,
    executable: Option<u128>,
}

impl End {
    /// Whether a lifetime is what this stop made it. What a stop does not tell comes from before it.
    fn makes(&self, lifetime: &Self) -> bool {
        let of = |end: &Self| (end.time_us, end.exit_code, end.runtime_ms, end.observed);
        let agrees = |told: Option<u128>, has: Option<u128>| told.is_none() || told == has;
        of(self) == of(lifetime)
            && (self.pid.is_none() || self.pid == lifetime.pid)
            && agrees(self.name, lifetime.name)
            && agrees(self.executable, lifetime.executable)
    }
}

#[derive(Debug)]
struct Row {
    end: End,
    collector: Arc<str>,
    /// A stop of the process is stored; one that says the same.
    stops: bool,
    fits: bool,
}

/// What retention took of lifetimes, by what coverage and the ledger say.
#[derive(Debug, Default)]
pub(super) struct Gone {
    before_us: Option<i64>,
    until: HashMap<String, Position>,
}

impl Gone {
    /// `before_us`: what was older was too old.
    pub(super) fn of<'a>(coverage: impl Iterator<Item = &'a CoverageGap>, before_us: Option<i64>) -> Self {
        let mut gone = Self { before_us, until: HashMap::new() };
        for gap in coverage.filter(|gap| gap.reason == reason::LIFETIMES_RETENTION) {
            gone.before_us = gone.before_us.max(Some(gap.to_us));
            if let Some(last) = &gap.last {
                let until = gone.until.entry(gap.collector.clone()).or_default();
                *until = last.key().max(*until);
            }
        }
        gone
    }

    fn has(&self, collector: &str, at: Position, time_us: i64) -> bool {
        self.before_us.is_some_and(|before_us| time_us <= before_us)
            || self.until.get(collector).is_some_and(|until| at <= *until)
    }
}

/// What is compared.
pub(super) struct Lifetimes<'a> {
    pub(super) facts: &'a Facts,
    pub(super) events: &'a [Arc<SegmentFile>],
    pub(super) lifetimes: &'a [Arc<SegmentFile>],
    pub(super) gone: Gone,
    /// Per collector, how far its stream has come in.
    pub(super) seen: &'a HashMap<String, Position>,
}

impl Lifetimes<'_> {
    /// False: it was stopped.
    pub(super) fn compare(&self, found: &mut Proven, progress: &mut OnProgress<'_>) -> bool {
        for file in self.lifetimes {
            if !progress(0, file.rows) {
                return false;
            }
            match hidden_in(file) {
                Ok(hidden) => pruned::tell(&name_of(file), &hidden, found),
                Err(what) => found.report(place(file), format!("its lifetimes cannot be read: {what}")),
            }
        }
        let rows = self.lifetimes.iter().fold(0_u64, |sum, file| sum.saturating_add(file.rows));
        let passes = u128::from(rows.checked_div(AT_ONCE).unwrap_or_default().saturating_add(1));
        for pass in 0..passes {
            let is_of = |entity: u128| entity.checked_rem(passes) == Some(pass);
            if !self.pass(&is_of, found, progress) {
                return false;
            }
        }
        true
    }

    fn pass(&self, is_of: &dyn Fn(u128) -> bool, found: &mut Proven, progress: &mut OnProgress<'_>) -> bool {
        let room = usize::try_from(AT_ONCE.saturating_mul(2)).unwrap_or(usize::MAX);
        let (mut rows, mut further) = (Vec::new(), 0_u64);
        for file in self.lifetimes {
            let outcome = ends(file, &mut |collector, end| {
                if is_of(end.entity) && rows.len() < room {
                    rows.push(Row { end, collector: collector.into(), stops: false, fits: false });
                } else if is_of(end.entity) {
                    further = further.saturating_add(1);
                }
            });
            // What cannot be read was told of.
            drop(outcome);
        }
        rows.sort_unstable_by_key(|row| row.end.entity);
        if further > 0 {
            found
                .report("process_lifetimes", format!("it has {further} rows more than its files are registered with"));
        }
        for file in self.events {
            if !progress(file.rows, file.rows) {
                return false;
            }
            let outcome = ends(file, &mut |collector, end| {
                if is_of(end.entity) {
                    self.stop(collector, &end, &mut rows, found);
                }
            });
            drop(outcome);
        }
        rows.iter().for_each(|row| self.judge(row, found));
        true
    }

    /// A stop that is stored.
    fn stop(&self, collector: &str, stop: &End, rows: &mut [Row], found: &mut Proven) {
        let first = rows.partition_point(|row| row.end.entity < stop.entity);
        let mut is_there = false;
        for row in rows.iter_mut().skip(first).take_while(|row| row.end.entity == stop.entity) {
            is_there = true;
            row.stops = true;
            row.fits |= stop.makes(&row.end);
        }
        if is_there {
            return;
        }
        if self.gone.has(collector, stop.at, stop.time_us) {
            found.lifetimes_unproven = found.lifetimes_unproven.saturating_add(1);
            return;
        }
        let what = format!(
            "deleted: {}:{} ended it, and retention did not take its lifetime",
            named(collector),
            shown(stop.at)
        );
        found.report(lifetime(stop.entity), what);
    }

    fn judge(&self, row: &Row, found: &mut Proven) {
        let Row { end, collector, .. } = row;
        let (facts, at) = (self.facts, end.at);
        let seen = self.seen.get(&**collector).copied();
        let is_there = matches!(facts.streams.standing(collector, at, seen), Standing::Covered)
            && facts.removals.of(collector, at).is_none()
            && !facts.streams.has_lost(collector, at);
        if row.fits {
            found.lifetimes = found.lifetimes.saturating_add(1);
        } else if is_there && row.stops {
            found.report(lifetime(end.entity), "changed: it is not what the stop of its process says");
        } else if is_there && end.observed == Some(true) {
            let what =
                format!("no stop of it is stored, and {}:{} is none: it was put in", named(collector), shown(at));
            found.report(lifetime(end.entity), what);
        } else {
            // Nobody told of the end, or retention took the event.
            found.lifetimes_unproven = found.lifetimes_unproven.saturating_add(1);
        }
    }
}

fn lifetime(entity: u128) -> String {
    format!("process_lifetimes, entity {entity:032x}")
}

fn place(file: &SegmentFile) -> String {
    format!("segments/{}", name_of(file))
}

/// Calls `take` with each lifetime of a file, or with each stop of a file of events.
fn ends(file: &SegmentFile, take: &mut dyn FnMut(&str, End)) -> Result<(), String> {
    let mut read = || -> Result<(), String> {
        let opened = crate::store::file::open(&file.path).map_err(|error| error.to_string())?;
        let options = ArrowReaderOptions::new().with_page_index_policy(PageIndexPolicy::Optional);
        let reader = ParquetRecordBatchReaderBuilder::try_new_with_options(opened, options);
        let reader = reader.map_err(|error| error.to_string())?;
        let mask = ProjectionMask::columns(reader.parquet_schema(), COLUMNS);
        let batches = reader.with_projection(mask).with_batch_size(BATCH_ROWS).build();
        for batch in batches.map_err(|error| error.to_string())? {
            each(&batch.map_err(|error| error.to_string())?, take);
        }
        Ok(())
    };
    // The decoder may panic on bytes that are not what was written.
    damage::guarded(&file.path, || Ok(read())).unwrap_or_else(|error| Err(error.to_string()))
}

fn each(batch: &RecordBatch, take: &mut dyn FnMut(&str, End)) {
    let texts = |name: &str| batch.column_by_name(name).and_then(|array| array.as_string_opt::<i32>());
    let numbers = |name: &str| batch.column_by_name(name).and_then(|array| array.as_primitive_opt::<Int64Type>());
    let times = batch.column_by_name("time").and_then(|array| array.as_primitive_opt::<TimestampMicrosecondType>());
    let flags = batch.column_by_name("end_observed").and_then(|array| array.as_boolean_opt());
    let [entities, kinds, collectors, names, executables] =
        ["entity_id", "event_type", "collector", "name", "executable_path"].map(texts);
    let [epochs, sequences, codes, runtimes, pids] = ["epoch", "seq", "exit_code", "runtime_ms", "pid"].map(numbers);
    for row in 0..batch.num_rows() {
        let text = |array: Option<&'_ StringArray>| {
            array.filter(|array| array.is_valid(row)).map(|array| array.value(row).to_owned())
        };
        let number =
            |array: Option<&Int64Array>| array.filter(|array| array.is_valid(row)).map(|array| array.value(row));
        // A lifetime has no kind.
        if kinds.is_some() && text(kinds).as_deref() != Some("stop") {
            continue;
        }
        let Some(entity) = text(entities).and_then(|entity| u128::from_str_radix(&entity, 16).ok()) else { continue };
        let unsigned = |value: Option<i64>| value.and_then(|value| u64::try_from(value).ok()).unwrap_or_default();
        let end = End {
            entity,
            at: (unsigned(number(epochs)), unsigned(number(sequences))),
            time_us: times.filter(|times| times.is_valid(row)).map_or(0, |times| times.value(row)),
            exit_code: number(codes),
            runtime_ms: number(runtimes),
            observed: flags.filter(|flags| flags.is_valid(row)).map(|flags| flags.value(row)),
            pid: number(pids),
            name: text(names).map(|text| digest(&text)),
            executable: text(executables).map(|text| digest(&text)),
        };
        take(&text(collectors).unwrap_or_default(), end);
    }
}

/// Short, so that many fit.
fn digest(text: &str) -> u128 {
    let hash = blake3::hash(text.as_bytes());
    hash.as_bytes().first_chunk().map_or(0, |half| u128::from_be_bytes(*half))
}
