//! Arrow batches into the pages that go over a socket.

mod cells;

pub use cells::value_at;

use daemoneye_lib::proto::{ResultColumn, ResultPage, Row, Value, value::Kind};
use datafusion::arrow::datatypes::{DataType, Schema};
use datafusion::arrow::record_batch::RecordBatch;
use datafusion::common::DFSchema;
use prost::Message;
use std::collections::{HashMap, HashSet};

/// Encoded bytes of a page: half of the largest frame, so that the envelope always fits.
const PAGE_BYTES: usize = 512 * 1024;

/// Bytes of a column's name: an expression without an alias is called by its whole text.
const NAME_BYTES: usize = 256;

/// Names and SQL types of an answer's columns.
#[must_use]
pub fn page_columns(schema: &Schema) -> Vec<ResultColumn> {
    schema
        .fields()
        .iter()
        .map(|field| {
            let mut name = field.name().clone();
            name.truncate(name.floor_char_boundary(NAME_BYTES));
            ResultColumn { name, r#type: sql_type(field.data_type()).to_owned() }
        })
        .collect()
}

/// Columns of an answer in which no two are called alike, as JSON needs it: those that are get their table in front, and what is
/// still alike gets a number.
pub(crate) fn unique_names(mut columns: Vec<ResultColumn>, schema: &DFSchema) -> Vec<ResultColumn> {
    let mut times: HashMap<String, usize> = HashMap::new();
    for column in &columns {
        *times.entry(column.name.clone()).or_default() += 1;
    }
    for (column, (table, _)) in columns.iter_mut().zip(schema.iter()) {
        if let Some(table) = table.filter(|_| times.get(&column.name).is_some_and(|times| *times > 1)) {
            column.name = format!("{}.{}", table.table(), column.name);
        }
    }
    let mut taken: HashSet<String> = HashSet::new();
    for column in &mut columns {
        let plain = column.name.clone();
        let mut number: usize = 1;
        while !taken.insert(column.name.clone()) {
            number = number.saturating_add(1);
            column.name = format!("{plain}_{number}");
        }
    }
    columns
}

/// The SQL word for what a value of this type becomes in a page.
fn sql_type(data_type: &DataType) -> &'static str {
    match data_type {
        DataType::Boolean => "BOOLEAN",
        DataType::Int8
        | DataType::Int16
        | DataType::Int32
        | DataType::Int64
        | DataType::UInt8
        | DataType::UInt16
        | DataType::UInt32
        | DataType::UInt64 => "BIGINT",
        DataType::Float16 | DataType::Float32 | DataType::Float64 => "DOUBLE",
        DataType::Timestamp(..) => "TIMESTAMP",
        DataType::Binary | DataType::LargeBinary | DataType::BinaryView | DataType::FixedSizeBinary(_) => "BLOB",
        DataType::Dictionary(_, values) => sql_type(values),
        _ => "TEXT",
    }
}

/// Fills pages row by row up to their bounds.
#[derive(Debug)]
pub(crate) struct Pages {
    page_rows: usize,
    rows: Vec<Row>,
    bytes: usize,
    /// Sent with the first page only.
    columns: Vec<ResultColumn>,
    first_sent: bool,
    /// Whether a cell was cut because its row alone would have outgrown a page.
    pub(crate) cut: bool,
}

impl Pages {
    pub(crate) fn new(columns: Vec<ResultColumn>, page_rows: usize) -> Self {
        let bytes = columns.iter().fold(0_usize, |sum, column| sum.saturating_add(column.encoded_len()));
        Self { page_rows: page_rows.max(1), rows: Vec::new(), bytes, columns, first_sent: false, cut: false }
    }

    /// Takes a batch in; gives the pages that it completed.
    pub(crate) fn take(&mut self, batch: &RecordBatch) -> Vec<ResultPage> {
        let mut full = Vec::new();
        for index in 0..batch.num_rows() {
            let values = batch.columns().iter().map(|column| value_at(column.as_ref(), index)).collect();
            let row = self.fitting(Row { values });
            // A tag and a length stand before each row.
            let bytes = row.encoded_len().saturating_add(6);
            if self.bytes.saturating_add(bytes) > PAGE_BYTES {
                full.extend(self.flush());
            }
            self.bytes = self.bytes.saturating_add(bytes);
            self.rows.push(row);
            if self.rows.len() >= self.page_rows {
                full.extend(self.flush());
            }
        }
        full
    }

    /// The page under way; also an empty first one, because it carries the columns.
    pub(crate) fn flush(&mut self) -> Option<ResultPage> {
        if self.rows.is_empty() && self.first_sent {
            return None;
        }
        self.first_sent = true;
        self.bytes = 0;
        Some(ResultPage { columns: std::mem::take(&mut self.columns), rows: std::mem::take(&mut self.rows) })
    }

    /// Forgets the rows that came after a page that nobody took: sent, they would stand behind a hole. Returns how many.
    pub(crate) fn end_here(&mut self) -> usize {
        std::mem::take(&mut self.rows).len()
    }

    /// Forgets the rows of a page that was not sent yet; false when one was.
    pub(crate) fn restart(&mut self) -> bool {
        if self.first_sent {
            return false;
        }
        *self = Self::new(std::mem::take(&mut self.columns), self.page_rows);
        true
    }

    /// A row that alone outgrows a page gets its long cells cut to an even share.
    fn fitting(&mut self, mut row: Row) -> Row {
        if row.encoded_len() <= PAGE_BYTES / 2 {
            return row;
        }
        self.cut = true;
        let share = PAGE_BYTES / 2 / row.values.len().max(1);
        for Value { kind } in &mut row.values {
            match kind {
                Some(Kind::Text(text)) => text.truncate(text.floor_char_boundary(share)),
                Some(Kind::Blob(blob)) => blob.truncate(share),
                None | Some(Kind::Boolean(_) | Kind::Integer(_) | Kind::Real(_) | Kind::TimestampUs(_)) => {}
            }
        }
        row
    }
}
