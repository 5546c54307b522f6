//! `process_events` and `process_lifetimes`: sealed segments through DataFusion's Parquet reader, and the open rows from memory.
//!
//! The snapshot has every row in exactly one of the two. Segments outside the filters' range of time are not opened;
//! inside, the reader prunes row groups and pages, and filters before it decodes the other columns.

use super::prune::Ranges;
use super::{QueryView, SEGMENTS_URL, made};
use crate::store::{HistoryTable, SegmentFile, Snapshot};
use async_trait::async_trait;
use datafusion::arrow::datatypes::SchemaRef;
use datafusion::catalog::{Session, TableProvider};
use datafusion::common::{DFSchema, Result};
use datafusion::datasource::listing::PartitionedFile;
use datafusion::datasource::memory::MemorySourceConfig;
use datafusion::datasource::physical_plan::parquet::CachedParquetFileReaderFactory;
use datafusion::datasource::physical_plan::{FileGroup, FileScanConfigBuilder, ParquetSource};
use datafusion::datasource::source::DataSourceExec;
use datafusion::execution::object_store::ObjectStoreUrl;
use datafusion::logical_expr::utils::conjunction;
use datafusion::logical_expr::{Expr, TableProviderFilterPushDown, TableType};
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::union::UnionExec;
use std::sync::Arc;

/// Read with the end of a file, so that the footer rarely needs a second read.
const FOOTER_HINT_BYTES: usize = 32 * 1024;

/// One table of history, as one query sees it.
#[derive(Debug)]
pub(crate) struct History {
    table: HistoryTable,
    view: Arc<QueryView>,
    schema: SchemaRef,
}

impl History {
    pub(crate) fn new(table: HistoryTable, view: Arc<QueryView>) -> Self {
        Self { table, view, schema: table.schema() }
    }

    fn file(&self, segment: &Arc<SegmentFile>) -> Option<PartitionedFile> {
        let whole = std::fs::metadata(&segment.path).is_ok_and(|found| found.len() == segment.bytes);
        let inside = segment.path.strip_prefix(self.view.store.dir()).ok().and_then(std::path::Path::to_str);
        match (whole, inside) {
            (true, Some(inside)) => {
                self.view.opens(segment);
                Some(PartitionedFile::new(inside, segment.bytes).with_metadata_size_hint(FOOTER_HINT_BYTES))
            }
            _ => {
                self.view.note_unreadable(&segment.path, segment.rows, segment.first_us, segment.last_us);
                None
            }
        }
    }

    fn open(&self, snapshot: &Snapshot, projection: Option<&Vec<usize>>) -> Result<Arc<dyn ExecutionPlan>> {
        let schema = Arc::clone(&self.schema);
        match self.table {
            HistoryTable::ProcessEvents => {
                let open: Arc<dyn ExecutionPlan> = MemorySourceConfig::try_new_exec(
                    std::slice::from_ref(&snapshot.open),
                    schema,
                    projection.cloned(),
                )?;
                Ok(open)
            }
            HistoryTable::ProcessLifetimes => {
                let rows = snapshot.open_lifetimes.clone();
                made::scan(schema, rows.bytes(), move || Box::new(rows.clone().rows()), projection)
            }
        }
    }

    fn sealed(
        &self,
        state: &dyn Session,
        files: Vec<PartitionedFile>,
        projection: Option<&Vec<usize>>,
        filters: &[Expr],
        limit: Option<usize>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let url = ObjectStoreUrl::parse(SEGMENTS_URL)?;
        let environment = state.runtime_env();
        let footers = CachedParquetFileReaderFactory::new(
            environment.object_store(&url)?,
            environment.cache_manager.get_file_metadata_cache(),
        );
        let mut source = ParquetSource::new(Arc::clone(&self.schema))
            .with_table_parquet_options(state.table_options().parquet.clone())
            .with_parquet_file_reader_factory(Arc::new(footers))
            .with_pushdown_filters(true)
            .with_reorder_filters(true);
        if let Some(filter) = conjunction(filters.to_vec()) {
            let columns = DFSchema::try_from(Arc::clone(&self.schema))?;
            source = source.with_predicate(state.create_physical_expr(filter, &columns)?);
        }
        let config = FileScanConfigBuilder::new(url, Arc::new(source))
            .with_file_group(FileGroup::new(files))
            .with_projection_indices(projection.cloned())?
            .with_limit(limit)
            .build();
        Ok(DataSourceExec::from_data_source(config))
    }
}

#[async_trait]
impl TableProvider for History {
    fn schema(&self) -> SchemaRef {
        Arc::clone(&self.schema)
    }

    fn table_type(&self) -> TableType {
        TableType::Base
    }

    /// Filters narrow what is read; the rows of the open segment still pass all of them, so they stay in the plan.
    fn supports_filters_pushdown(&self, filters: &[&Expr]) -> Result<Vec<TableProviderFilterPushDown>> {
        Ok(vec![TableProviderFilterPushDown::Inexact; filters.len()])
    }

    async fn scan(
        &self,
        state: &dyn Session,
        projection: Option<&Vec<usize>>,
        filters: &[Expr],
        limit: Option<usize>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let ranges = Ranges::of(self.table, filters);
        let snapshot = self.view.snapshot()?;
        self.view.note_damage(self.table, ranges.told)?;
        self.view.note_coverage(self.table, ranges.asked)?;
        self.view.note_collectors(ranges.asked);
        let segments = match self.table {
            HistoryTable::ProcessEvents => &snapshot.segments,
            HistoryTable::ProcessLifetimes => {
                self.view.note_processes();
                self.view.note_beginning(ranges.asked)?;
                &snapshot.lifetimes
            }
        };
        let wanted = segments.iter().filter(|segment| ranges.told.overlaps(segment.first_us, segment.last_us));
        // One that is gone or cut short is left out and told.
        let files: Vec<PartitionedFile> = wanted.filter_map(|segment| self.file(segment)).collect();
        let open = self.open(&snapshot, projection)?;
        if files.is_empty() {
            return Ok(open);
        }
        UnionExec::try_new(vec![self.sealed(state, files, projection, filters, limit)?, open])
    }
}

#[cfg(test)]
mod pruning;
