//! Pages of a result as one Parquet file, written as they come: what is held is one row group.
//!
//! The types are those of a result: BOOLEAN, BIGINT, DOUBLE, TEXT, BLOB, and TIMESTAMP in microseconds, UTC. A list is text.

use std::sync::Arc;

use daemoneye_lib::proto::{ResultColumn, Row, Value, value::Kind};
use datafusion::arrow::array::{
    ArrayRef, BinaryArray, BooleanArray, Float64Array, Int64Array, RecordBatch, StringArray, TimestampMicrosecondArray,
};
use datafusion::arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit};
use datafusion::arrow::error::ArrowError;
use datafusion::parquet::arrow::ArrowWriter;
use datafusion::parquet::basic::{Compression, ZstdLevel};
use datafusion::parquet::errors::ParquetError;
use datafusion::parquet::file::properties::WriterProperties;

/// As in segments.
const ZSTD_LEVEL: i32 = 3;
/// Rows of a row group: what readers of Parquet split their work by.
const GROUP_ROWS: usize = 64 * 1024;
/// Bytes after which a row group ends early, so that long command lines do not gather.
const GROUP_BYTES: usize = 16 * 1024 * 1024;
const UTC: &str = "UTC";

/// A Parquet file under way.
pub struct ParquetExport {
    schema: SchemaRef,
    writer: ArrowWriter<Vec<u8>>,
}

impl std::fmt::Debug for ParquetExport {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ParquetExport").field("columns", &self.schema.fields().len()).finish_non_exhaustive()
    }
}

impl ParquetExport {
    /// A file with these columns.
    ///
    /// # Errors
    /// [`ParquetError`] when the columns cannot be written.
    pub fn new(columns: &[ResultColumn]) -> Result<Self, ParquetError> {
        let schema = schema(columns);
        let properties = WriterProperties::builder()
            .set_compression(Compression::ZSTD(ZstdLevel::try_new(ZSTD_LEVEL)?))
            .set_max_row_group_row_count(Some(GROUP_ROWS))
            .set_max_row_group_bytes(Some(GROUP_BYTES))
            .set_created_by(format!("daemoneye {}", daemoneye_lib::BUILD))
            .build();
        Ok(Self { writer: ArrowWriter::try_new(Vec::new(), Arc::clone(&schema), Some(properties))?, schema })
    }

    /// Takes rows; gives the bytes that are ready, which may be none.
    ///
    /// # Errors
    /// [`ParquetError`] when a row cannot be written.
    pub fn take(&mut self, rows: &[Row]) -> Result<Vec<u8>, ParquetError> {
        self.writer.write(&batch_of(&self.schema, rows)?)?;
        Ok(std::mem::take(self.writer.inner_mut()))
    }

    /// The last bytes.
    ///
    /// # Errors
    /// [`ParquetError`] when the end cannot be written.
    pub fn finish(self) -> Result<Vec<u8>, ParquetError> {
        self.writer.into_inner()
    }
}

/// Rows of a result as columns.
pub(crate) fn batch(columns: &[ResultColumn], rows: &[Row]) -> Result<RecordBatch, ArrowError> {
    batch_of(&schema(columns), rows)
}

fn schema(columns: &[ResultColumn]) -> SchemaRef {
    let field = |column: &ResultColumn| Field::new(&column.name, data_type(&column.r#type), true);
    Arc::new(Schema::new(columns.iter().map(field).collect::<Vec<_>>()))
}

fn batch_of(schema: &SchemaRef, rows: &[Row]) -> Result<RecordBatch, ArrowError> {
    let arrays = schema.fields().iter().enumerate().map(|(at, field)| array(field.data_type(), rows, at));
    RecordBatch::try_new(Arc::clone(schema), arrays.collect())
}

fn data_type(word: &str) -> DataType {
    match word {
        "BOOLEAN" => DataType::Boolean,
        "BIGINT" => DataType::Int64,
        "DOUBLE" => DataType::Float64,
        "TIMESTAMP" => DataType::Timestamp(TimeUnit::Microsecond, Some(UTC.into())),
        "BLOB" => DataType::Binary,
        _ => DataType::Utf8,
    }
}

/// One column of `rows`; a value of another kind than the column's is NULL.
fn array(of: &DataType, rows: &[Row], at: usize) -> ArrayRef {
    fn cells<'a, T>(
        rows: &'a [Row],
        at: usize,
        take: impl Fn(&'a Kind) -> Option<T> + 'a,
    ) -> impl Iterator<Item = Option<T>> + 'a {
        rows.iter().map(move |row| row.values.get(at).and_then(|Value { kind }| kind.as_ref()).and_then(&take))
    }
    match of {
        DataType::Boolean => {
            let take = |kind: &Kind| if let Kind::Boolean(value) = kind { Some(*value) } else { None };
            Arc::new(cells(rows, at, take).collect::<BooleanArray>())
        }
        DataType::Int64 => {
            let take = |kind: &Kind| if let Kind::Integer(value) = kind { Some(*value) } else { None };
            Arc::new(cells(rows, at, take).collect::<Int64Array>())
        }
        DataType::Float64 => {
            let take = |kind: &Kind| if let Kind::Real(value) = kind { Some(*value) } else { None };
            Arc::new(cells(rows, at, take).collect::<Float64Array>())
        }
        DataType::Timestamp(..) => {
            let take = |kind: &Kind| if let Kind::TimestampUs(value) = kind { Some(*value) } else { None };
            Arc::new(cells(rows, at, take).collect::<TimestampMicrosecondArray>().with_timezone(UTC))
        }
        DataType::Binary => {
            fn take(kind: &Kind) -> Option<&[u8]> {
                if let Kind::Blob(value) = kind { Some(value.as_slice()) } else { None }
            }
            Arc::new(cells(rows, at, take).collect::<BinaryArray>())
        }
        _ => {
            fn take(kind: &Kind) -> Option<&str> {
                if let Kind::Text(value) = kind { Some(value.as_str()) } else { None }
            }
            Arc::new(cells(rows, at, take).collect::<StringArray>())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use datafusion::parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;

    #[test]
    fn what_is_exported_reads_back_with_its_types() {
        let names =
            [("t", "TIMESTAMP"), ("n", "BIGINT"), ("x", "DOUBLE"), ("s", "TEXT"), ("b", "BLOB"), ("y", "BOOLEAN")];
        let columns = names.map(|(name, word)| ResultColumn { name: name.into(), r#type: word.into() });
        let kinds = [
            Kind::TimestampUs(1_769_860_800_000_000),
            Kind::Integer(-7),
            Kind::Real(1.5),
            Kind::Text("größe".into()),
            Kind::Blob(vec![0, 255]),
            Kind::Boolean(true),
        ];
        let full = Row { values: kinds.into_iter().map(|kind| Value { kind: Some(kind) }).collect() };
        let empty = Row { values: vec![Value { kind: None }; 6] };
        let mut export = ParquetExport::new(&columns).unwrap();
        let mut bytes = export.take(&[full.clone(), empty]).unwrap();
        bytes.extend(export.take(&[full]).unwrap());
        bytes.extend(export.finish().unwrap());
        let reader = ParquetRecordBatchReaderBuilder::try_new(bytes::Bytes::from(bytes)).unwrap().build().unwrap();
        let batches: Vec<RecordBatch> = reader.map(Result::unwrap).collect();
        let rows: usize = batches.iter().map(RecordBatch::num_rows).sum();
        assert_eq!(rows, 3);
        let shown = |column: usize| {
            let batch = &batches[0];
            let text = crate::sql::value_at(batch.column(column).as_ref(), 0);
            (text.kind, batch.column(column).is_null(1))
        };
        assert_eq!(shown(0), (Some(Kind::TimestampUs(1_769_860_800_000_000)), true));
        assert_eq!(shown(3), (Some(Kind::Text("größe".into())), true));
        assert_eq!(shown(4), (Some(Kind::Blob(vec![0, 255])), true));
        assert_eq!(shown(5), (Some(Kind::Boolean(true)), true));
    }
}
