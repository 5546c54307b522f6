//! Lines as rows of `process_events`: each known field in its column, and what follows from it.
//!
//! An event that does not say what it is is taken for the start of a program, since that is what rules of processes are about.

use std::sync::Arc;

use daemoneye_lib::columns::{Kind, PROCESS_EVENTS};
use datafusion::arrow::array::{
    ArrayRef, BinaryBuilder, BooleanBuilder, Float64Builder, Int64Builder, RecordBatch, StringBuilder,
    TimestampMicrosecondBuilder, new_null_array,
};
use datafusion::arrow::error::ArrowError;

use super::cell::{Cell, integer, text};
use super::lacks::Lacks;
use super::mend::mended;
use super::read::{Fields, Unmapped, fields};
use super::settle::{PLACES, settle};
use super::time::time;
use crate::detect::rules::yaml::truth;
use crate::schema::{TIME_ZONE, arrow_type, process_events_schema};

/// Rows of a batch: enough that what a batch costs by itself does not count.
const BATCH_ROWS: usize = 2_048;
/// Bytes of lines after which a batch is complete however few they are.
const BATCH_BYTES: usize = 8 * 1024 * 1024;

/// Rows under way to a batch.
#[derive(Debug)]
pub struct Rows {
    columns: Vec<Column>,
    rows: usize,
    bytes: usize,
    unmapped: Unmapped,
    /// For each of them the events that had it.
    had: Vec<u64>,
}

/// Rows as they are evaluated; `seq` is the number of the line that each came from.
#[derive(Debug)]
pub struct Lines {
    pub(super) batch: RecordBatch,
}

impl Lines {
    /// The rows, with the schema of `process_events`.
    #[must_use]
    pub const fn batch(&self) -> &RecordBatch {
        &self.batch
    }
}

/// What became of a line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Line {
    /// It is a row.
    Taken,
    /// It is a row; this of it could not be taken as it is.
    Without(Lacks),
    /// It is no event of a process's start or end.
    Other,
    /// It is a row of which nothing is known: no field of the line has a value.
    Strange,
    /// It cannot be read, and why.
    Broken(String),
}

/// A column's values so far, made once it has one.
#[derive(Debug)]
struct Column {
    name: &'static str,
    kind: Kind,
    values: Option<Values>,
    /// NULLs before the first value.
    nulls: usize,
}

#[derive(Debug)]
enum Values {
    Blob(BinaryBuilder),
    Boolean(BooleanBuilder),
    Integer(Int64Builder),
    Real(Float64Builder),
    Text(StringBuilder),
    Timestamp(TimestampMicrosecondBuilder),
}

impl Default for Rows {
    fn default() -> Self {
        Self::counting(&[])
    }
}

fn empty() -> Vec<Column> {
    let column = |column: &daemoneye_lib::columns::Column| Column {
        name: column.name,
        kind: column.kind,
        values: None,
        nulls: 0,
    };
    PROCESS_EVENTS.iter().map(column).collect()
}

impl Rows {
    /// Counts the events that have these fields, which no column holds.
    #[must_use]
    pub fn counting(unmapped: &[String]) -> Self {
        let had = vec![0; unmapped.len()];
        let unmapped = unmapped.iter().enumerate().map(|(at, name)| (name.clone(), at)).collect();
        Self { columns: empty(), rows: 0, bytes: 0, unmapped, had }
    }

    /// The fields of [`Rows::counting`] that events had, by name, and how many.
    #[must_use]
    pub fn unmapped(&self) -> Vec<(&str, u64)> {
        let count = |at: usize| self.had.get(at).copied().unwrap_or_default();
        let each = self.unmapped.iter().map(|(name, at)| (name.as_str(), count(*at)));
        let mut found: Vec<_> = each.filter(|(_, events)| *events > 0).collect();
        found.sort_unstable();
        found
    }

    /// Reads a line; `number` is its place in the file.
    pub fn take(&mut self, number: u64, line: &[u8]) -> Line {
        let problem = match fields(line, &self.unmapped) {
            Ok(fields) => return self.row(number, line.len(), fields, false),
            Err(problem) => problem,
        };
        let Some(mended) = mended(line) else { return Line::Broken(problem) };
        match fields(mended.as_bytes(), &self.unmapped) {
            Ok(fields) => self.row(number, line.len(), fields, true),
            Err(problem) => Line::Broken(problem),
        }
    }

    fn row(&mut self, number: u64, bytes: usize, mut fields: Fields<'_>, replaced: bool) -> Line {
        let (is_empty, says_nothing) = (fields.is_empty(), fields.says_nothing());
        let Some(mut lacks) = settle(&mut fields) else { return Line::Other };
        lacks.replaced = replaced;
        lacks.strange = says_nothing && fields.has_unknown();
        for at in fields.unmapped() {
            if let Some(events) = self.had.get_mut(at) {
                *events = events.saturating_add(1);
            }
        }
        // What a window rule finds names its events by their place.
        *fields.column(PLACES.seq) = i64::try_from(number).ok().map(Cell::Integer);
        for (at, column) in self.columns.iter_mut().enumerate() {
            if !column.push(fields.column(at).take()) {
                lacks.unread.push(column.name);
            }
        }
        lacks.unread.sort_unstable();
        self.rows += 1;
        self.bytes = self.bytes.saturating_add(bytes);
        match lacks.is_nothing() {
            true if is_empty => Line::Strange,
            true => Line::Taken,
            false => Line::Without(lacks),
        }
    }

    /// Whether it is time to evaluate.
    #[must_use]
    pub const fn is_full(&self) -> bool {
        self.rows >= BATCH_ROWS || self.bytes >= BATCH_BYTES
    }

    /// The rows so far, of which there may be none.
    ///
    /// # Errors
    /// Arrow would not take the columns; a defect of this program.
    pub fn finish(&mut self) -> Result<Lines, ArrowError> {
        let (columns, rows) = (std::mem::replace(&mut self.columns, empty()), self.rows);
        (self.rows, self.bytes) = (0, 0);
        let arrays = columns.into_iter().map(|column| column.finish(rows)).collect();
        Ok(Lines { batch: RecordBatch::try_new(process_events_schema(), arrays)? })
    }
}

impl Column {
    /// Whether the value could be read; otherwise it is NULL.
    fn push(&mut self, cell: Option<Cell<'_>>) -> bool {
        let Some(cell) = cell else {
            match &mut self.values {
                Some(values) => values.null(),
                None => self.nulls += 1,
            }
            return true;
        };
        let (kind, nulls) = (self.kind, self.nulls);
        self.values.get_or_insert_with(|| Values::new(kind, nulls)).push(&cell)
    }

    fn finish(self, rows: usize) -> ArrayRef {
        self.values.map_or_else(|| new_null_array(&arrow_type(self.kind), rows), Values::finish)
    }
}

impl Values {
    fn new(kind: Kind, nulls: usize) -> Self {
        let mut values = match kind {
            Kind::Blob => Self::Blob(BinaryBuilder::new()),
            Kind::Boolean => Self::Boolean(BooleanBuilder::new()),
            Kind::Integer => Self::Integer(Int64Builder::new()),
            Kind::Real => Self::Real(Float64Builder::new()),
            Kind::Text => Self::Text(StringBuilder::new()),
            Kind::Timestamp => Self::Timestamp(TimestampMicrosecondBuilder::new().with_timezone(TIME_ZONE)),
        };
        (0..nulls).for_each(|_| values.null());
        values
    }

    fn null(&mut self) {
        match self {
            Self::Blob(builder) => builder.append_null(),
            Self::Boolean(builder) => builder.append_null(),
            Self::Integer(builder) => builder.append_null(),
            Self::Real(builder) => builder.append_null(),
            Self::Text(builder) => builder.append_null(),
            Self::Timestamp(builder) => builder.append_null(),
        }
    }

    fn push(&mut self, cell: &Cell<'_>) -> bool {
        let read = match (&mut *self, cell) {
            (Self::Blob(builder), Cell::Text(text)) => {
                let bytes = text.strip_prefix("0x").and_then(|digits| hex::decode(digits).ok());
                bytes.map(|bytes| builder.append_value(bytes))
            }
            (Self::Boolean(builder), Cell::Boolean(value)) => {
                builder.append_value(*value);
                Some(())
            }
            (Self::Integer(builder), cell) => integer(cell).map(|value| builder.append_value(value)),
            (Self::Real(builder), Cell::Real(value)) => {
                builder.append_value(*value);
                Some(())
            }
            (Self::Real(builder), Cell::Text(text)) => {
                text.trim().parse().ok().map(|value| builder.append_value(value))
            }
            (Self::Real(builder), Cell::Integer(value)) => {
                value.to_string().parse().ok().map(|value| builder.append_value(value))
            }
            (Self::Boolean(builder), Cell::Text(text)) => truth(text.trim()).map(|value| builder.append_value(value)),
            (Self::Boolean(builder), Cell::Integer(value @ (0 | 1))) => {
                builder.append_value(*value == 1);
                Some(())
            }
            (Self::Text(builder), cell) => text(cell).map(|text| builder.append_value(text)),
            (Self::Timestamp(builder), cell) => time(cell).map(|us| builder.append_value(us)),
            _ => None,
        };
        if read.is_none() {
            self.null();
        }
        read.is_some()
    }

    fn finish(self) -> ArrayRef {
        match self {
            Self::Blob(mut builder) => Arc::new(builder.finish()),
            Self::Boolean(mut builder) => Arc::new(builder.finish()),
            Self::Integer(mut builder) => Arc::new(builder.finish()),
            Self::Real(mut builder) => Arc::new(builder.finish()),
            Self::Text(mut builder) => Arc::new(builder.finish()),
            Self::Timestamp(mut builder) => Arc::new(builder.finish()),
        }
    }
}
