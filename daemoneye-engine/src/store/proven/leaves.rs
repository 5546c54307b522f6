//! Stored events as leaves of the ledger's ranges, a row group at a time.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use daemoneye_lib::ledger::{Hash, event};
use datafusion::arrow::array::{Array as _, AsArray as _, RecordBatch};
use datafusion::arrow::datatypes::{Int64Type, TimestampMicrosecondType};
use datafusion::arrow::error::ArrowError;
use datafusion::parquet::arrow::arrow_reader::{ArrowReaderOptions, ParquetRecordBatchReaderBuilder};
use datafusion::parquet::file::metadata::{PageIndexPolicy, RowGroupMetaData};
use datafusion::parquet::file::statistics::Statistics;

use super::super::damage;
use super::super::segment::SegmentFile;
use super::pruned::{Hidden, Pruning};
use crate::ingest::content;
use crate::replay::process_events;

/// Rows that are decoded at a time.
const BATCH_ROWS: usize = 4_096;

/// Ranges without a tree have none.
const FIRST_SCHEMA: u32 = 1;

/// Epoch and number.
pub(in crate::store) type Position = (u64, u64);

/// A row as it is read.
#[derive(Debug, Clone, Copy)]
pub(in crate::store) struct Seen<'a> {
    pub(in crate::store) collector: &'a str,
    pub(in crate::store) at: Position,
    pub(in crate::store) time_us: i64,
    entity: &'a str,
}

impl Seen<'_> {
    /// 0: it has none that could be read.
    pub(in crate::store) fn entity(&self) -> u128 {
        u128::from_str_radix(self.entity, 16).unwrap_or_default()
    }
}

/// Says of each row whether it is to be kept until a stretch takes it.
pub(in crate::store) type Keep<'a> = dyn FnMut(&Seen<'_>) -> bool + 'a;

/// What is kept of an event.
#[derive(Debug, Clone, Copy)]
pub(in crate::store) struct Leaf {
    pub(in crate::store) hash: Hash,
    /// 0: it has none that could be read.
    pub(in crate::store) entity: u128,
}

/// Events that are read together.
#[derive(Debug)]
enum Rows {
    Group(Arc<SegmentFile>, usize),
    Open(RecordBatch),
}

#[derive(Debug)]
struct Unit {
    rows: Rows,
    count: u64,
    is_read: bool,
}

/// Every event of a snapshot, read as far as it is asked for.
#[derive(Debug, Default)]
pub(in crate::store) struct Leaves {
    units: Vec<Unit>,
    /// Per collector, the units by the least position that they may hold.
    order: HashMap<String, Vec<(Position, usize)>>,
    read: HashMap<String, BTreeMap<Position, Leaf>>,
    /// Files that could not be read, and why.
    pub(in crate::store) unreadable: Vec<(String, String)>,
    /// Positions at which more than one row stands, the first of them.
    pub(in crate::store) twice: Vec<(String, Position)>,
    /// Those that are not listed.
    pub(in crate::store) further_twice: u64,
    /// Rows that are read are held against what queries leave them out by.
    is_holding: bool,
    /// What was found so, and in which file.
    pub(super) hidden: Vec<(String, Vec<Hidden>)>,
    pub(in crate::store) total: u64,
    pub(in crate::store) done: u64,
    /// Units before this one are read.
    skimmed: usize,
}

impl Leaves {
    /// Of these files, and what is in memory.
    pub(in crate::store) fn of(files: &[Arc<SegmentFile>], open: &[RecordBatch]) -> Self {
        Self::within(files, open, ((0, 0), (u64::MAX, u64::MAX)))
    }

    /// The same where only these positions are asked for.
    pub(in crate::store) fn within(
        files: &[Arc<SegmentFile>],
        open: &[RecordBatch],
        (first, last): (Position, Position),
    ) -> Self {
        let mut leaves = Self::default();
        for file in files {
            match damage::guarded(&file.path, || Ok(groups(file))) {
                Ok(Ok(groups)) => {
                    for (group, Group { least, most, count }) in groups.into_iter().enumerate() {
                        if least.is_some_and(|least| least > last) || most.is_some_and(|most| most < first) {
                            continue;
                        }
                        let firsts: Vec<(String, Position)> = match file.ranges.as_slice() {
                            [only] => vec![(only.collector.clone(), least.unwrap_or(only.first))],
                            ranges => ranges.iter().map(|range| (range.collector.clone(), range.first)).collect(),
                        };
                        leaves.add(Rows::Group(Arc::clone(file), group), count, firsts);
                    }
                }
                Ok(Err(what)) => leaves.cannot(file, what),
                Err(error) => leaves.cannot(file, error.to_string()),
            }
        }
        for batch in open {
            let mut firsts: BTreeMap<String, Position> = BTreeMap::new();
            places(batch, |_, event| {
                let first = firsts.entry(event.collector.to_owned()).or_insert(event.at);
                *first = event.at.min(*first);
            });
            leaves.add(Rows::Open(batch.clone()), batch.num_rows() as u64, firsts);
        }
        leaves.order.values_mut().for_each(|units| units.sort_unstable_by(|one, next| next.cmp(one)));
        leaves
    }

    /// Holds rows against what queries leave them out by, too.
    pub(super) fn holding(self) -> Self {
        Self { is_holding: true, ..self }
    }

    fn add(&mut self, rows: Rows, count: u64, firsts: impl IntoIterator<Item = (String, Position)>) {
        let unit = self.units.len();
        self.units.push(Unit { rows, count, is_read: false });
        self.total = self.total.saturating_add(count);
        for (collector, first) in firsts {
            self.order.entry(collector).or_default().push((first, unit));
        }
    }

    fn cannot(&mut self, file: &SegmentFile, what: String) {
        self.unreadable.push((name_of(file), what));
    }

    /// Takes out the events of a stretch of a stream, as far as they have been read.
    pub(in crate::store) fn take(
        &mut self,
        collector: &str,
        (first, last): (Position, Position),
    ) -> BTreeMap<u64, Leaf> {
        let Some(read) = self.read.get_mut(collector) else { return BTreeMap::new() };
        let mut rest = read.split_off(&first);
        let mut behind = rest.split_off(&(last.0, last.1.saturating_add(1)));
        read.append(&mut behind);
        rest.into_iter().map(|((_, number), leaf)| (number, leaf)).collect()
    }

    /// Reads one more row group that may hold events up to `last`; false: there is none.
    pub(in crate::store) fn advance(
        &mut self,
        collector: &str,
        last: Position,
        schema: u32,
        keep: &mut Keep<'_>,
    ) -> bool {
        let units = self.order.get_mut(collector);
        let Some((_, unit)) = units.and_then(|units| units.pop_if(|(least, _)| *least <= last)) else { return false };
        // A row group that a range without a tree shares with one that has a tree is hashed as the latter's.
        self.read(unit, schema.max(FIRST_SCHEMA), keep);
        true
    }

    /// Reads one more row group, whatever it may hold, and keeps nothing of it; false: there is none.
    pub(in crate::store) fn skim(&mut self, see: &mut dyn FnMut(&Seen<'_>)) -> bool {
        let Some(unit) =
            (self.skimmed..self.units.len()).find(|unit| self.units.get(*unit).is_some_and(|unit| !unit.is_read))
        else {
            return false;
        };
        self.skimmed = unit;
        self.read(unit, FIRST_SCHEMA, &mut |event| {
            see(event);
            false
        });
        true
    }

    /// What was kept and no stretch took.
    pub(in crate::store) fn left(&mut self) -> impl Iterator<Item = (String, Position)> {
        let of = |(collector, leaves): (String, BTreeMap<Position, Leaf>)| {
            leaves.into_keys().map(move |at| (collector.clone(), at))
        };
        std::mem::take(&mut self.read).into_iter().flat_map(of)
    }

    fn read(&mut self, unit: usize, schema: u32, keep: &mut Keep<'_>) {
        let Some(unit) = self.units.get_mut(unit).filter(|unit| !unit.is_read) else { return };
        unit.is_read = true;
        self.done = self.done.saturating_add(unit.count);
        let (read, twice, further) = (&mut self.read, &mut self.twice, &mut self.further_twice);
        let mut take = |batch: &RecordBatch| {
            places(batch, |row, event| {
                if !keep(event) {
                    return;
                }
                let hash = event::leaf(event.at.1, &content(batch, row, schema));
                let leaf = Leaf { hash, entity: event.entity() };
                let before = match read.get_mut(event.collector) {
                    Some(known) => known.insert(event.at, leaf),
                    None => read.entry(event.collector.to_owned()).or_default().insert(event.at, leaf),
                };
                if before.is_some() && twice.len() < super::LISTED {
                    twice.push((event.collector.to_owned(), event.at));
                } else if before.is_some() {
                    *further = further.saturating_add(1);
                }
            });
        };
        match &unit.rows {
            Rows::Open(batch) => take(batch),
            Rows::Group(file, group) => {
                let (file, group) = (Arc::clone(file), *group);
                // The decoder may panic on bytes that are not what was written.
                let is_holding = self.is_holding;
                let outcome = damage::guarded(&file.path, || {
                    Ok(read_group(&file, group, is_holding, |batch| process_events(batch).map(|batch| take(&batch))))
                });
                match outcome.unwrap_or_else(|error| Err(error.to_string())) {
                    Ok(hidden) if hidden.is_empty() || self.hidden.len() >= super::LISTED => {}
                    Ok(hidden) => self.hidden.push((name_of(&file), hidden)),
                    Err(what) => self.cannot(&file, what),
                }
            }
        }
    }
}

/// A row group: between which positions its events lie, where it tells that, and its rows.
struct Group {
    least: Option<Position>,
    most: Option<Position>,
    count: u64,
}

fn groups(file: &SegmentFile) -> Result<Vec<Group>, String> {
    let opened = crate::store::file::open(&file.path).map_err(|error| error.to_string())?;
    let reader = ParquetRecordBatchReaderBuilder::try_new(opened).map_err(|error| error.to_string())?;
    let one = |group: &RowGroupMetaData| {
        let (epoch, number) = (bounds(group, "epoch"), bounds(group, "seq"));
        let both = epoch.zip(number);
        Group {
            least: both.map(|(epoch, number)| (epoch.0, number.0)),
            most: both.map(|(epoch, number)| (epoch.1, number.1)),
            count: u64::try_from(group.num_rows()).unwrap_or_default(),
        }
    };
    Ok(reader.metadata().row_groups().iter().map(one).collect())
}

fn bounds(group: &RowGroupMetaData, column: &str) -> Option<(u64, u64)> {
    let (least, most) = span(group, column)?;
    u64::try_from(least).ok().zip(u64::try_from(most).ok())
}

fn span(group: &RowGroupMetaData, column: &str) -> Option<(i64, i64)> {
    let column = group.columns().iter().find(|known| known.column_path().string() == column)?;
    let Statistics::Int64(known) = column.statistics()? else { return None };
    known.min_opt().copied().zip(known.max_opt().copied())
}

/// Reads as queries do, by the index of pages where there is one.
fn read_group(
    file: &SegmentFile,
    group: usize,
    is_holding: bool,
    mut take: impl FnMut(&RecordBatch) -> Result<(), ArrowError>,
) -> Result<Vec<Hidden>, String> {
    let opened = crate::store::file::open(&file.path).map_err(|error| error.to_string())?;
    let again = Arc::new(opened.try_clone().map_err(|error| error.to_string())?);
    let options = ArrowReaderOptions::new().with_page_index_policy(PageIndexPolicy::Optional);
    let reader = ParquetRecordBatchReaderBuilder::try_new_with_options(opened, options);
    let reader = reader.map_err(|error| error.to_string())?;
    let pruning = is_holding.then(|| Pruning::of(file, &again, reader.metadata(), reader.schema(), group)).transpose();
    let mut pruning = pruning.map_err(|error| error.to_string())?;
    let batches = reader.with_row_groups(vec![group]).with_batch_size(BATCH_ROWS).build();
    for batch in batches.map_err(|error| error.to_string())? {
        let batch = batch.map_err(|error| error.to_string())?;
        if let Some(pruning) = &mut pruning {
            pruning.take(&batch).map_err(|error| error.to_string())?;
        }
        take(&batch).map_err(|error| error.to_string())?;
    }
    Ok(pruning.map(Pruning::end).unwrap_or_default())
}

/// What queries leave out of a file that is not read otherwise.
pub(super) fn hidden_in(file: &SegmentFile) -> Result<Vec<Hidden>, String> {
    let read = || -> Result<Vec<Hidden>, String> {
        let mut hidden = Vec::new();
        for group in 0..groups(file)?.len() {
            hidden.extend(read_group(file, group, true, |_| Ok(()))?);
        }
        Ok(hidden)
    };
    damage::guarded(&file.path, || Ok(read())).unwrap_or_else(|error| Err(error.to_string()))
}

pub(super) fn name_of(file: &SegmentFile) -> String {
    file.path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

/// Calls `take` with each row. One without a position is none of a stream.
pub(super) fn places<'a>(batch: &'a RecordBatch, mut take: impl FnMut(usize, &Seen<'a>)) {
    let text = |name: &str| batch.column_by_name(name).and_then(|array| array.as_string_opt::<i32>());
    let number = |name: &str| batch.column_by_name(name).and_then(|array| array.as_primitive_opt::<Int64Type>());
    let (Some(collectors), Some(entities)) = (text("collector"), text("entity_id")) else { return };
    let (Some(epochs), Some(numbers)) = (number("epoch"), number("seq")) else { return };
    let times = batch.column_by_name("time").and_then(|array| array.as_primitive_opt::<TimestampMicrosecondType>());
    let rows = collectors.iter().zip(entities.iter()).zip(epochs.iter().zip(numbers.iter()));
    for (row, ((collector, entity), (epoch, number))) in rows.enumerate() {
        let unsigned = |value: Option<i64>| value.and_then(|value| u64::try_from(value).ok());
        let at = unsigned(epoch).zip(unsigned(number)).unwrap_or_default();
        let time_us = times.filter(|times| times.is_valid(row)).map_or(0, |times| times.value(row));
        let (collector, entity) = (collector.unwrap_or_default(), entity.unwrap_or_default());
        take(row, &Seen { collector, at, time_us, entity });
    }
}
