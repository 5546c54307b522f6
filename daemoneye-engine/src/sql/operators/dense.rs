//! Rows without the pages that they were read from.
//!
//! Text that is read from a file points into the page that holds it. A few rows that are kept would keep whole pages in memory:
//! of a batch of ten rows out of a hundred thousand, a dictionary of megabytes.

use datafusion::arrow::array::{ArrayRef, AsArray as _};
use datafusion::arrow::record_batch::{RecordBatch, RecordBatchOptions};
use datafusion::common::Result;
use std::sync::Arc;

/// Bytes behind a column of text, as a multiple of those that its rows need, from which on they are copied.
const BEHIND: usize = 2;

/// The same rows, with no more text behind them than they need.
pub(super) fn dense(batch: RecordBatch) -> Result<RecordBatch> {
    if !batch.columns().iter().any(is_sparse) {
        return Ok(batch);
    }
    let columns =
        batch.columns().iter().map(|column| if is_sparse(column) { copied(column) } else { Arc::clone(column) });
    let rows = RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
    Ok(RecordBatch::try_new_with_options(batch.schema(), columns.collect(), &rows)?)
}

fn is_sparse(column: &ArrayRef) -> bool {
    column.as_string_view_opt().is_some_and(|text| {
        let behind: usize = text.data_buffers().iter().map(|buffer| buffer.capacity()).sum();
        behind > text.total_buffer_bytes_used().saturating_mul(BEHIND)
    })
}

fn copied(column: &ArrayRef) -> ArrayRef {
    column.as_string_view_opt().map_or_else(|| Arc::clone(column), |text| Arc::new(text.gc()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use datafusion::arrow::array::StringViewArray;

    #[test]
    fn a_few_rows_of_a_large_page_keep_their_text_and_not_the_page() {
        let text: Vec<String> =
            (0..10_000).map(|number| format!("a text of more than twelve bytes, {number}")).collect();
        let page = StringViewArray::from_iter_values(&text);
        let rows = RecordBatch::try_from_iter([("text", Arc::new(page.slice(40, 3)) as ArrayRef)]).unwrap();
        let kept = dense(rows.clone()).unwrap();
        assert_eq!(kept, rows);
        assert!(kept.get_array_memory_size() < 1_000 && rows.get_array_memory_size() > 100_000);
        let whole = RecordBatch::try_from_iter([("text", Arc::new(page) as ArrayRef)]).unwrap();
        let behind = |batch: &RecordBatch| batch.column(0).as_string_view().data_buffers()[0].as_ptr();
        assert_eq!(behind(&dense(whole.clone()).unwrap()), behind(&whole), "a full page is not copied");
    }
}
