//! What queries leave rows out by: a row that is in its file, and that they pass over all the same, is hidden.
//!
//! A query reads neither a file outside its registered time nor a row group or page whose statistics, or whose Bloom filter, say
//! that it cannot hold what is asked for. All of that lies beside the rows, so whoever can write a file can change it and leave
//! every row as it was. So each row is held against what stands for it.

use std::collections::BTreeSet;
use std::fs::File;
use std::sync::Arc;

use datafusion::arrow::array::{Array, ArrayRef, AsArray as _, BooleanArray, RecordBatch, Scalar, UInt64Array};
use datafusion::arrow::compute::kernels::cmp::{gt, lt};
use datafusion::arrow::compute::or;
use datafusion::arrow::datatypes::{DataType, Float64Type, Schema};
use datafusion::arrow::error::ArrowError;
use datafusion::parquet::arrow::arrow_reader::statistics::StatisticsConverter;
use datafusion::parquet::bloom_filter::Sbbf;
use datafusion::parquet::column::page::{Page, PageReader as _};
use datafusion::parquet::errors::ParquetError;
use datafusion::parquet::file::metadata::ParquetMetaData;
use datafusion::parquet::file::page_index::offset_index::PageLocation;
use datafusion::parquet::file::serialized_reader::SerializedPageReader;

use super::super::segment::SegmentFile;
use super::found::{Proven, named, shown};
use super::leaves::places;
use crate::sql::bloom_filter;

/// A hidden row, and by what; without a row, what of its file is not as its rows are.
pub(super) type Hidden = (Option<String>, String);

/// A row group whose rows are read from first to last.
pub(super) struct Pruning<'a> {
    file: &'a SegmentFile,
    columns: Vec<Column>,
    /// Rows that went by.
    rows: usize,
    /// What is told of already: the first row for each reason is enough to find the others.
    told: BTreeSet<String>,
    hidden: Vec<Hidden>,
}

/// What a file says of one column of a row group.
struct Column {
    name: String,
    group: Stated,
    pages: Vec<(usize, Stated)>,
    filter: Option<Sbbf>,
}

/// Of some rows: between which values theirs lie, and how many have none.
struct Stated {
    bounds: Option<(ArrayRef, ArrayRef)>,
    nulls: Option<u64>,
    seen: u64,
}

impl Stated {
    fn of(least: &ArrayRef, most: &ArrayRef, nulls: &UInt64Array, at: usize) -> Self {
        let is_known = |array: &ArrayRef| at < array.len() && array.is_valid(at);
        let bounds = (is_known(least) && is_known(most)).then(|| (least.slice(at, 1), most.slice(at, 1)));
        let nulls = (at < nulls.len() && nulls.is_valid(at)).then(|| nulls.value(at));
        Self { bounds, nulls, seen: 0 }
    }

    /// Takes note of some values; the first of them that lies outside.
    fn take(&mut self, values: &ArrayRef) -> Result<Option<usize>, ArrowError> {
        self.seen = self.seen.saturating_add(values.null_count() as u64);
        let Some((least, most)) = &self.bounds else { return Ok(None) };
        outside(values, least, most)
    }

    fn has_other_nulls(&self) -> bool {
        self.nulls.is_some_and(|nulls| nulls != self.seen)
    }
}

impl<'a> Pruning<'a> {
    /// Of a group of a file, as the reader of queries has opened it.
    pub(super) fn of(
        file: &'a SegmentFile,
        opened: &Arc<File>,
        metadata: &ParquetMetaData,
        schema: &Schema,
        group: usize,
    ) -> Result<Self, ParquetError> {
        let mut pruning = Self { file, columns: Vec::new(), rows: 0, told: BTreeSet::new(), hidden: Vec::new() };
        for field in schema.fields() {
            let column = pruning.column(opened, metadata, schema, (field.name(), group))?;
            pruning.columns.extend(column);
        }
        Ok(pruning)
    }

    fn column(
        &mut self,
        opened: &Arc<File>,
        metadata: &ParquetMetaData,
        schema: &Schema,
        (name, group): (&str, usize),
    ) -> Result<Option<Column>, ParquetError> {
        let stated = StatisticsConverter::try_new(name, schema, metadata.file_metadata().schema_descr())?;
        let groups = metadata.row_groups().get(group);
        let Some((leaf, of)) = stated.parquet_column_index().zip(groups) else { return Ok(None) };
        let Some(chunk) = of.columns().get(leaf) else { return Ok(None) };
        let (least, most) = (stated.row_group_mins([of])?, stated.row_group_maxes([of])?);
        let whole = Stated::of(&least, &most, &stated.row_group_null_counts([of])?, 0);
        let is_text = schema.field_with_name(name).is_ok_and(|field| field.data_type() == &DataType::Utf8);
        let filter = is_text.then(|| bloom_filter(opened, chunk)).flatten();
        let mut pages = Vec::new();
        if let Some(places) = metadata.offset_index().and_then(|index| index.get(group)?.get(leaf)) {
            let places = places.page_locations();
            let rows = usize::try_from(of.num_rows()).unwrap_or_default();
            let starts = starts(places, rows);
            let reader = SerializedPageReader::new(Arc::clone(opened), chunk, rows, Some(places.clone()))?;
            if starts.is_none() || starts != found(reader, rows)? {
                self.tell(None, format!("the index of its pages of {name} does not say which rows they have"));
            } else if let (Some(index), Some(offsets)) = (metadata.column_index(), metadata.offset_index()) {
                let least = stated.data_page_mins(index, offsets, [&group])?;
                let most = stated.data_page_maxes(index, offsets, [&group])?;
                let nulls = stated.data_page_null_counts(index, offsets, [&group])?;
                let page = |(at, start): (usize, usize)| (start, Stated::of(&least, &most, &nulls, at));
                pages = starts.unwrap_or_default().into_iter().enumerate().map(page).collect();
            }
        }
        Ok(Some(Column { name: name.to_owned(), group: whole, pages, filter }))
    }

    /// The next rows of the group, as they stand in the file.
    pub(super) fn take(&mut self, rows: &RecordBatch) -> Result<(), ArrowError> {
        let mut found = Vec::new();
        for column in &mut self.columns {
            let Some(values) = rows.column_by_name(&column.name) else { continue };
            let name = &column.name;
            if let Some(row) = column.group.take(values)? {
                found.push((row, format!("the statistics of {name}")));
            }
            if let Some(row) = column.filter.as_ref().and_then(|filter| lacking(filter, values)) {
                found.push((row, format!("the Bloom filter of {name}")));
            }
            let mut end = usize::MAX;
            for (start, page) in column.pages.iter_mut().rev() {
                let from = start.saturating_sub(self.rows).min(values.len());
                let to = end.saturating_sub(self.rows).min(values.len());
                end = *start;
                if from < to
                    && let Some(row) = page.take(&values.slice(from, to.saturating_sub(from)))?
                {
                    found.push((from.saturating_add(row), format!("the page index of {name}")));
                }
            }
        }
        let mut late = None;
        places(rows, |at, event| {
            if !(self.file.first_us..=self.file.last_us).contains(&event.time_us) {
                late.get_or_insert(at);
            }
        });
        found.extend(late.map(|row| (row, "the time for which its file is registered".to_owned())));
        for (row, by) in found {
            self.tell(Some((rows, row)), by);
        }
        self.rows = self.rows.saturating_add(rows.num_rows());
        Ok(())
    }

    /// When all have gone by.
    pub(super) fn end(mut self) -> Vec<Hidden> {
        let mut told = Vec::new();
        for Column { name, group, pages, .. } in &self.columns {
            if group.has_other_nulls() {
                told.push(format!("its statistics of {name} have another number of rows without a value"));
            }
            if pages.iter().any(|(_, page)| page.has_other_nulls()) {
                told.push(format!("its page index of {name} has another number of rows without a value"));
            }
        }
        told.into_iter().for_each(|what| self.tell(None, what));
        self.hidden
    }

    fn tell(&mut self, row: Option<(&RecordBatch, usize)>, by: String) {
        if !self.told.insert(by.clone()) {
            return;
        }
        let mut place = None;
        if let Some((rows, row)) = row {
            places(rows, |at, event| {
                if at == row {
                    place = Some(format!("{}:{}", named(event.collector), shown(event.at)));
                }
            });
        }
        self.hidden.push((place, by));
    }
}

/// Names what is hidden in a file.
pub(super) fn tell(file: &str, hidden: &[Hidden], found: &mut Proven) {
    for (row, by) in hidden {
        match row {
            Some(place) => found.report(place, format!("no query shows it: {by} in segments/{file} leaves it out")),
            None => found.report(format!("segments/{file}"), format!("queries may not show its rows: {by}")),
        }
    }
}

/// The first value that does not lie between the two.
fn outside(values: &ArrayRef, least: &ArrayRef, most: &ArrayRef) -> Result<Option<usize>, ArrowError> {
    if let (Some(values), Some(least), Some(most)) = (
        values.as_primitive_opt::<Float64Type>(),
        least.as_primitive_opt::<Float64Type>(),
        most.as_primitive_opt::<Float64Type>(),
    ) {
        // No bounds are over what is no number, and nothing that is asked for is equal to it.
        let (least, most) = (least.value(0), most.value(0));
        return Ok(values.iter().position(|value| value.is_some_and(|value| value < least || value > most)));
    }
    let below = lt(values, &Scalar::new(Arc::clone(least)))?;
    let above = gt(values, &Scalar::new(Arc::clone(most)))?;
    let outside: BooleanArray = or(&below, &above)?;
    Ok(if outside.true_count() == 0 { None } else { outside.iter().position(|value| value == Some(true)) })
}

/// The first text that the filter says is not there.
fn lacking(filter: &Sbbf, values: &ArrayRef) -> Option<usize> {
    let values = values.as_string_opt::<i32>()?;
    let mut before = None;
    values.iter().position(|value| {
        // Sorted by time, but a value often repeats the one before.
        let is_known = value.is_none() || value == before || value.is_some_and(|value| filter.check(value));
        before = value;
        !is_known
    })
}

/// The first row of each page, as the index has them; `None` where that is no order.
fn starts(places: &[PageLocation], rows: usize) -> Option<Vec<usize>> {
    let starts: Vec<usize> =
        places.iter().map(|place| usize::try_from(place.first_row_index).ok()).collect::<Option<_>>()?;
    let is_ordered = starts.is_sorted_by(|one, next| one < next) && starts.first() == Some(&0);
    (is_ordered && starts.last().is_some_and(|last| *last < rows)).then_some(starts)
}

/// The first row of each page, as the pages themselves have them; `None` where they have other rows than the group.
fn found(mut reader: SerializedPageReader<File>, rows: usize) -> Result<Option<Vec<usize>>, ParquetError> {
    let (mut starts, mut next) = (Vec::new(), 0_usize);
    while let Some(page) = reader.get_next_page()? {
        // No column is nested, so each value is of a row of its own.
        if let Page::DataPage { num_values, .. } | Page::DataPageV2 { num_values, .. } = page {
            starts.push(next);
            next = next.saturating_add(usize::try_from(num_values).unwrap_or(usize::MAX));
        }
    }
    Ok((next == rows).then_some(starts))
}
