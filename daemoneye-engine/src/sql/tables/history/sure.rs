//! Rows of which a range of time holds anyway, and those that have to be asked.
//!
//! The plan's own filter would read the time of every row, although the range cuts through one row group of a file and leaves the
//! others whole. A scan of several threads asks by itself: row groups inside of the range as if nothing were asked of the time, the others
//! below a filter of their own.

use super::super::prune::{TIME, TimeRange};
use super::told::MAX_FILES;
use super::{History, estimate, pieces};
use crate::store::Snapshot;
use datafusion::catalog::Session;
use datafusion::common::{DFSchema, Result};
use datafusion::datasource::listing::PartitionedFile;
use datafusion::logical_expr::Expr;
use datafusion::logical_expr::utils::conjunction;
use datafusion::parquet::file::metadata::{ParquetMetaData, RowGroupMetaData};
use datafusion::parquet::file::statistics::Statistics;
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::filter::FilterExecBuilder;
use datafusion::physical_plan::union::UnionExec;
use std::sync::Arc;

/// Row groups of files, and how many rows they have.
#[derive(Default)]
struct Part {
    files: Vec<PartitionedFile>,
    rows: i64,
}

impl Part {
    fn take(&mut self, file: Option<PartitionedFile>, footer: &ParquetMetaData, groups: impl Fn(usize) -> bool) {
        let Some(file) = file else { return };
        let rows = footer.row_groups().iter().enumerate().filter(|(group, _)| groups(*group));
        self.rows = rows.fold(self.rows, |sum, (_, group)| sum.saturating_add(group.num_rows()));
        self.files.push(file);
    }

    fn passing(&self, filters: &[Expr]) -> usize {
        estimate::passing(u64::try_from(self.rows).unwrap_or_default(), filters)
    }
}

impl History {
    /// The rows of `files` and of those in memory that pass the conditions which this scan asks by itself.
    pub(super) async fn asked(
        &self,
        state: &dyn Session,
        snapshot: &Snapshot,
        files: Vec<PartitionedFile>,
        rows: usize,
        projection: Option<&Vec<usize>>,
        filters: &[Expr],
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let (own, others): (Vec<Expr>, Vec<Expr>) = filters.iter().cloned().partition(|filter| self.owes(filter));
        let [sure, cut] = self.parts(state, files, &own).await?;
        let mut inputs = Vec::new();
        let rows = if sure.files.is_empty() { rows } else { cut.passing(filters) };
        if !sure.files.is_empty() {
            let rows = sure.passing(&others);
            inputs.push(self.sealed(state, sure.files, rows, projection, &others, None)?);
        }
        let all: Vec<usize> = (0..self.schema.fields().len()).collect();
        let mut read = projection.unwrap_or(&all).clone();
        let kept: Vec<usize> = (0..read.len()).collect();
        let time = self.schema.index_of(TIME)?;
        if !read.contains(&time) {
            read.push(time);
        }
        let ask = |input: Arc<dyn ExecutionPlan>| -> Result<Arc<dyn ExecutionPlan>> {
            let columns = DFSchema::try_from(input.schema())?;
            let Some(condition) = conjunction(own.iter().cloned()) else { return Ok(input) };
            let condition = state.create_physical_expr(condition, &columns)?;
            let kept = (kept.len() < read.len()).then(|| kept.clone());
            let filter = FilterExecBuilder::new(condition, input).with_batch_size(state.config().batch_size());
            Ok(Arc::new(filter.apply_projection(kept)?.build()?))
        };
        if !cut.files.is_empty() {
            inputs.push(ask(self.sealed(state, cut.files, rows, Some(&read), filters, None)?)?);
        }
        inputs.push(ask(self.open(snapshot, TimeRange::of(filters), Some(&read))?)?);
        match inputs.as_slice() {
            [only] => Ok(Arc::clone(only)),
            _ => UnionExec::try_new(inputs),
        }
    }

    /// The row groups for which all conditions hold, and the others.
    async fn parts(&self, state: &dyn Session, files: Vec<PartitionedFile>, own: &[Expr]) -> Result<[Part; 2]> {
        let [mut sure, mut cut] = [Part::default(), Part::default()];
        if files.len() > MAX_FILES {
            cut.files = files;
            return Ok([sure, cut]);
        }
        let footers = self.footers(state, &files).await?;
        for (file, footer) in files.into_iter().zip(footers) {
            let holds = |group: usize| {
                let times = footer.as_ref().and_then(|footer| times(footer.row_groups().get(group)?));
                times.is_some_and(|(first, last)| own.iter().all(|term| TimeRange::holds(term, first, last)))
            };
            let parted = footer.as_ref().and_then(|footer| Some((footer, pieces::parted(&file, holds)?)));
            match parted {
                Some((footer, [whole, rest])) => {
                    sure.take(whole, footer, holds);
                    cut.take(rest, footer, |group| !holds(group));
                }
                None => cut.files.push(file),
            }
        }
        Ok([sure, cut])
    }
}

/// The first and last instant of a row group; `None` where it does not say, or has rows without one.
fn times(group: &RowGroupMetaData) -> Option<(i64, i64)> {
    let column = group.columns().iter().find(|column| column.column_path().string() == TIME)?;
    match column.statistics()? {
        Statistics::Int64(told) if told.null_count_opt() == Some(0) => Some((*told.min_opt()?, *told.max_opt()?)),
        _ => None,
    }
}
