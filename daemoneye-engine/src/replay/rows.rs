//! Rows from elsewhere in the shape of `process_events`: every column of the table, each with its type.

use std::sync::Arc;

use daemoneye_lib::proto::{ResultColumn, Row};
use datafusion::arrow::array::{Array as _, RecordBatch, new_null_array};
use datafusion::arrow::compute::cast;
use datafusion::arrow::error::ArrowError;

use crate::schema::process_events_schema;
use crate::sql::batch;

/// The rows of an answer as columns.
///
/// # Errors
/// [`ArrowError`] when the columns do not form a batch.
pub fn batch_of_rows(columns: &[ResultColumn], rows: &[Row]) -> Result<RecordBatch, ArrowError> {
    process_events(&batch(columns, rows)?)
}

/// The columns of the table, in its order; one that `rows` lacks is NULL, one that the table lacks is left out.
///
/// # Errors
/// [`ArrowError`] when a column cannot have the table's type.
pub fn process_events(rows: &RecordBatch) -> Result<RecordBatch, ArrowError> {
    let schema = process_events_schema();
    let columns = schema.fields().iter().map(|field| match rows.column_by_name(field.name()) {
        Some(array) if array.data_type() == field.data_type() => Ok(Arc::clone(array)),
        Some(array) => cast(array, field.data_type()),
        None => Ok(new_null_array(field.data_type(), rows.num_rows())),
    });
    let columns = columns.collect::<Result<Vec<_>, _>>()?;
    RecordBatch::try_new(schema, columns)
}
