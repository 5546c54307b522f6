//! Rows of the store as batches, a bounded number and a bounded weight in each.

use super::super::made::Batches;
use crate::store::{Rows, StoreError};
use datafusion::arrow::array::ArrayRef;
use datafusion::arrow::datatypes::SchemaRef;
use datafusion::arrow::error::ArrowError;
use datafusion::arrow::record_batch::{RecordBatch, RecordBatchOptions};
use std::sync::Arc;

/// Rows of the first batch: whoever wants a few reads few.
const FIRST_ROWS: usize = 32;
/// Rows of any batch.
const MOST_ROWS: usize = 1_024;
/// Bytes of the rows of a batch, as they are stored, from which on no more are read into it.
const BYTES: usize = 1024 * 1024;

/// Batches of `rows`, whose weight in bytes `weigh` tells and whose columns `columns` makes.
pub(super) fn chunks<T: Send + 'static>(
    rows: Rows<T>,
    schema: SchemaRef,
    weigh: impl Fn(&T) -> usize + Send + 'static,
    columns: impl Fn(&[T]) -> Vec<ArrayRef> + Send + 'static,
) -> Batches {
    Box::new(Chunks { rows, schema, weigh, columns, most: FIRST_ROWS, over: false })
}

/// One batch of these columns.
pub(super) fn batch(schema: &SchemaRef, columns: Vec<ArrayRef>, rows: usize) -> Result<RecordBatch, ArrowError> {
    let options = RecordBatchOptions::new().with_row_count(Some(rows));
    RecordBatch::try_new_with_options(Arc::clone(schema), columns, &options)
}

/// A store that cannot be read fails the query: it is not an empty one.
pub(super) fn failed(error: StoreError) -> ArrowError {
    ArrowError::ExternalError(Box::new(error))
}

struct Chunks<T, W, C> {
    rows: Rows<T>,
    schema: SchemaRef,
    weigh: W,
    columns: C,
    most: usize,
    over: bool,
}

impl<T, W: Fn(&T) -> usize, C: Fn(&[T]) -> Vec<ArrayRef>> Chunks<T, W, C> {
    fn read(&mut self) -> Result<Vec<T>, StoreError> {
        let (mut read, mut bytes) = (Vec::new(), 0_usize);
        while read.len() < self.most && bytes < BYTES {
            let Some(row) = self.rows.next().transpose()? else { break };
            bytes = bytes.saturating_add((self.weigh)(&row));
            read.push(row);
        }
        self.most = self.most.saturating_mul(2).min(MOST_ROWS);
        Ok(read)
    }
}

impl<T, W: Fn(&T) -> usize, C: Fn(&[T]) -> Vec<ArrayRef>> Iterator for Chunks<T, W, C> {
    type Item = Result<RecordBatch, ArrowError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.over {
            return None;
        }
        match self.read() {
            Ok(read) if read.is_empty() => None,
            Ok(read) => Some(batch(&self.schema, (self.columns)(&read), read.len())),
            Err(error) => {
                self.over = true;
                Some(Err(failed(error)))
            }
        }
    }
}
