//! `process_events` and `process_lifetimes`: sealed segments through DataFusion's Parquet reader, and the open rows from memory.
//!
//! The snapshot has every row in exactly one of the two. Segments outside the filters' range of time are not opened;
//! inside, row groups without a value that is asked for are left out, the reader prunes row groups and pages, and filters before
//! it decodes the other columns.

mod blooms;
mod estimate;
mod order;
mod pieces;
mod sure;
mod told;
mod whole;

pub(crate) use blooms::whole as bloom_filter;
pub(crate) use order::ordered;
pub(crate) use pieces::Readers;

use super::prune::{Ranges, TIME, TimeRange, is_range};
use super::{QueryView, SEGMENTS_URL, made};
use crate::schema::read_schema;
use crate::store::{HistoryTable, SegmentFile, Snapshot, has_order};
use async_trait::async_trait;
use datafusion::arrow::array::{Array as _, AsArray as _};
use datafusion::arrow::compute::{cast, max, min};
use datafusion::arrow::datatypes::{SchemaRef, TimestampMicrosecondType};
use datafusion::arrow::error::ArrowError;
use datafusion::arrow::record_batch::{RecordBatch, RecordBatchOptions};
use datafusion::catalog::{Session, TableProvider};
use datafusion::common::stats::Precision;
use datafusion::common::{Result, ScalarValue, Statistics};
use datafusion::datasource::listing::PartitionedFile;
use datafusion::datasource::memory::MemorySourceConfig;
use datafusion::datasource::physical_plan::parquet::metadata::DFParquetMetadata;
use datafusion::datasource::physical_plan::parquet::{CachedParquetFileReaderFactory, ParquetAccessPlan};
use datafusion::datasource::physical_plan::{FileGroup, FileGroupPartitioner, FileScanConfigBuilder, ParquetSource};
use datafusion::datasource::source::DataSourceExec;
use datafusion::execution::object_store::ObjectStoreUrl;
use datafusion::logical_expr::{Expr, TableProviderFilterPushDown, TableType};
use datafusion::parquet::file::metadata::ParquetMetaData;
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::empty::EmptyExec;
use datafusion::physical_plan::union::UnionExec;
use datafusion::prelude::SessionConfig;
use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;

/// Read with the end of a file, so that the footer rarely needs a second read.
const FOOTER_HINT_BYTES: usize = 32 * 1024;
/// Row groups whose Bloom filters a query thread looks into by itself: two small reads each, four million rows.
const FEW_ROW_GROUPS: usize = 64;

/// One table of history, as one query sees it.
#[derive(Debug)]
pub(crate) struct History {
    table: HistoryTable,
    view: Arc<QueryView>,
    schema: SchemaRef,
}

impl History {
    pub(crate) fn new(table: HistoryTable, view: Arc<QueryView>) -> Self {
        let schema = read_schema(table.name()).unwrap_or_else(|| table.schema());
        Self { table, view, schema }
    }

    /// The file's place in the data directory.
    fn inside<'a>(&self, segment: &'a SegmentFile) -> Option<&'a str> {
        segment.path.strip_prefix(self.view.store.dir()).ok().and_then(std::path::Path::to_str)
    }

    fn file(&self, segment: &Arc<SegmentFile>) -> Option<PartitionedFile> {
        let Some(inside) = self.inside(segment) else {
            self.view.note_unreadable(&segment.path, segment.rows, segment.first_us, segment.last_us);
            return None;
        };
        self.view.opens(segment);
        Some(PartitionedFile::new(inside, segment.bytes).with_metadata_size_hint(FOOTER_HINT_BYTES))
    }

    /// The rows in memory, without batches of another time; of events, only the columns that are read become views.
    fn open(
        &self,
        snapshot: &Snapshot,
        told: TimeRange,
        projection: Option<&Vec<usize>>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        match self.table {
            HistoryTable::ProcessEvents => self.viewed(in_time(snapshot, told), projection),
            HistoryTable::ProcessLifetimes => {
                let rows = snapshot.open_lifetimes.clone();
                let schema = Arc::clone(&self.schema);
                made::scan(schema, rows.bytes(), move || Box::new(rows.clone().rows()), projection)
            }
        }
    }

    /// Whether a scan says that it asks this condition by itself, so that nobody asks it behind the scan.
    fn asks(&self, filter: &Expr) -> bool {
        self.view.is_spread() && self.owes(filter) && !filter.column_refs().is_empty()
    }

    /// Whether a scan has to ask this condition, because it may be one of which it has said so: what the planner has made of it since
    /// may have no column any more (of `time > NULL` nothing is left but NULL).
    fn owes(&self, filter: &Expr) -> bool {
        let columns = filter.column_refs();
        self.table == HistoryTable::ProcessEvents
            && (self.view.is_spread() || columns.is_empty())
            && columns.iter().all(|column| column.name == TIME)
            && !filter.contains_outer()
    }

    /// Whether each file and each batch in memory has only rows that pass the filter, or none.
    fn settles(&self, snapshot: &Snapshot, filter: &Expr) -> bool {
        let decided = |first_us, last_us| TimeRange::decides(filter, first_us, last_us);
        self.table == HistoryTable::ProcessEvents
            && is_range(filter)
            && snapshot.segments.iter().all(|segment| decided(segment.first_us, segment.last_us))
            && snapshot.open.iter().all(|batch| times(batch).is_some_and(|(first, last)| decided(first, last)))
    }

    fn viewed<'a>(
        &self,
        batches: impl Iterator<Item = &'a RecordBatch>,
        projection: Option<&Vec<usize>>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let all: Vec<usize> = (0..self.schema.fields().len()).collect();
        let wanted = projection.unwrap_or(&all);
        let schema = Arc::new(self.schema.project(wanted)?);
        let read = |batch: &RecordBatch| {
            let batch = batch.project(wanted)?;
            let columns = batch.columns().iter().zip(schema.fields());
            let columns = columns.map(|(column, field)| cast(column, field.data_type())).collect::<Result<_, _>>()?;
            let rows = RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
            RecordBatch::try_new_with_options(Arc::clone(&schema), columns, &rows)
        };
        let batches = batches.map(read).collect::<Result<Vec<_>, ArrowError>>()?;
        Ok(MemorySourceConfig::try_new_exec(&[batches], Arc::clone(&schema), None)?)
    }

    /// The files, each with the row groups that may have what the filters ask for.
    async fn narrowed(
        &self,
        state: &dyn Session,
        files: Vec<PartitionedFile>,
        filters: &[Expr],
    ) -> Result<Vec<PartitionedFile>> {
        let sought = blooms::sought(filters);
        // Text that is looked up, or gathered by several threads, may be read as dictionaries.
        let several = state.config().target_partitions() > 1 && files.len() <= told::MAX_FILES;
        let tells = self.table == HistoryTable::ProcessEvents && (several || !sought.is_empty());
        if sought.is_empty() && !tells {
            return Ok(files);
        }
        let footers = self.footers(state, &files).await?;
        let told = |(file, footer): (PartitionedFile, &Option<Arc<ParquetMetaData>>)| {
            let Some(footer) = footer.as_ref().filter(|_| tells) else { return file };
            let file = told::with_columns(file, self.table.name(), footer);
            // What several threads share are row groups.
            if several { file.with_extension(ParquetAccessPlan::new_all(footer.num_row_groups())) } else { file }
        };
        let files: Vec<PartitionedFile> = files.into_iter().zip(&footers).map(told).collect();
        if sought.is_empty() {
            return Ok(files);
        }
        let path = |file: &PartitionedFile| self.view.store.dir().join(file.object_meta.location.as_ref());
        let paths: Vec<PathBuf> = files.iter().map(path).collect();
        let row_groups: usize = footers.iter().flatten().map(|footer| footer.num_row_groups()).sum();
        let look = move || -> Vec<Option<Vec<bool>>> {
            let told = paths.iter().zip(&footers);
            told.map(|(path, footer)| Some(blooms::excluded(path, footer.as_ref()?, &sought))).collect()
        };
        // A few reads of what mostly is in memory take less than handing them to another thread and waking up again.
        let excluded = match row_groups <= FEW_ROW_GROUPS {
            true => look(),
            false => tokio::task::spawn_blocking(look).await.unwrap_or_default(),
        };
        Ok(files
            .into_iter()
            .zip(excluded.into_iter().chain(std::iter::repeat(None)))
            .filter_map(|(file, excluded)| self.without(file, excluded))
            .collect())
    }

    /// What each file says of itself; the scan tells of a footer that cannot be read.
    async fn footers(
        &self,
        state: &dyn Session,
        files: &[PartitionedFile],
    ) -> Result<Vec<Option<Arc<ParquetMetaData>>>> {
        let environment = state.runtime_env();
        let objects = environment.object_store(&ObjectStoreUrl::parse(SEGMENTS_URL)?)?;
        let mut footers = Vec::with_capacity(files.len());
        for file in files {
            let footer = DFParquetMetadata::new(objects.as_ref(), &file.object_meta)
                .with_metadata_size_hint(Some(FOOTER_HINT_BYTES))
                .with_file_metadata_cache(Some(environment.cache_manager.get_file_metadata_cache()));
            footers.push(footer.fetch_metadata().await.ok());
        }
        Ok(footers)
    }

    /// The file without these row groups; `None` when no other is left.
    fn without(&self, file: PartitionedFile, excluded: Option<Vec<bool>>) -> Option<PartitionedFile> {
        let Some(excluded) = excluded else { return Some(file) };
        let mut plan = ParquetAccessPlan::new_all(excluded.len());
        let out: Vec<usize> = (0..).zip(&excluded).filter(|(_, out)| **out).map(|(group, _)| group).collect();
        out.iter().for_each(|group| plan.skip(*group));
        self.view.excludes_row_groups(out.len());
        (out.len() < excluded.len()).then(|| file.with_extension(plan))
    }

    fn sealed(
        &self,
        state: &dyn Session,
        files: Vec<PartitionedFile>,
        rows: usize,
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
        let mut options = state.table_options().parquet.clone();
        // `narrowed` has looked where it pays; the reader would load all filters of all row groups for one value.
        options.global.bloom_filter_on_read = false;
        // Statistics that are not there exclude nothing.
        let ordered = |term: &Expr| term.column_refs().iter().any(|column| has_order(&column.name));
        options.global.pruning = filters.is_empty() || filters.iter().any(ordered);
        // The plan's own filter hands it the conditions: given here as well, each would be asked twice.
        let source = ParquetSource::new(Arc::clone(&self.schema))
            .with_table_parquet_options(options)
            .with_parquet_file_reader_factory(Arc::new(footers))
            .with_pushdown_filters(estimate::narrow(filters))
            .with_reorder_filters(true);
        let statistics = Statistics::new_unknown(&self.schema).with_num_rows(Precision::Inexact(rows));
        let (groups, in_order) = spread(files, state.config());
        let config = FileScanConfigBuilder::new(url, Arc::new(source))
            .with_statistics(statistics)
            .with_file_groups(groups)
            .with_preserve_order(in_order)
            .with_projection_indices(projection.cloned())?
            .with_limit(limit)
            .build();
        Ok(DataSourceExec::from_data_source(config))
    }
}

/// The batches of events in memory without those of another time.
fn in_time(snapshot: &Snapshot, told: TimeRange) -> impl Iterator<Item = &RecordBatch> {
    let meant = move |batch: &&RecordBatch| times(batch).is_none_or(|(first, last)| told.overlaps(first, last));
    snapshot.open.iter().filter(meant)
}

/// The first and last instant of a batch in memory; `None` when it has none.
fn times(batch: &RecordBatch) -> Option<(i64, i64)> {
    let times = batch.column_by_name("time")?.as_primitive_opt::<TimestampMicrosecondType>()?;
    if times.null_count() > 0 { None } else { min(times).zip(max(times)) }
}

/// Whether no row passes a condition, of which planning has left a value.
fn is_never(condition: &Expr) -> bool {
    matches!(condition, Expr::Literal(value, _) if value.is_null() || *value == ScalarValue::Boolean(Some(false)))
}

/// The files for the readers that there are, each with about the same share of the work, and whether they lie in order.
fn spread(files: Vec<PartitionedFile>, config: &SessionConfig) -> (Vec<FileGroup>, bool) {
    let readers = config.target_partitions();
    let lookups = || config.get_extension::<Readers>().map_or(readers, |told| told.0);
    let groups = if readers < 2 { pieces::runs(&files, lookups()) } else { pieces::shared(&files, readers) };
    if let Some(groups) = groups {
        return (groups, readers < 2);
    }
    let all = vec![FileGroup::new(files)];
    if readers < 2 {
        return (all, false);
    }
    let partitioner = FileGroupPartitioner::new().with_target_partitions(readers).with_repartition_file_min_size(0);
    (partitioner.repartition_file_groups(&all).unwrap_or(all), false)
}

#[async_trait]
impl TableProvider for History {
    fn schema(&self) -> SchemaRef {
        Arc::clone(&self.schema)
    }

    fn table_type(&self) -> TableType {
        TableType::Base
    }

    /// Filters narrow what is read; the rows of the open segment still pass them, so they stay in the plan. A range of time that
    /// cuts through no file is settled by which files are read, and of several threads each scan asks it where it has to.
    fn supports_filters_pushdown(&self, filters: &[&Expr]) -> Result<Vec<TableProviderFilterPushDown>> {
        let snapshot = self.view.snapshot()?;
        let told = |filter: &&Expr| match self.settles(&snapshot, filter) || self.asks(filter) {
            true => TableProviderFilterPushDown::Exact,
            false => TableProviderFilterPushDown::Inexact,
        };
        Ok(filters.iter().map(told).collect())
    }

    async fn scan(
        &self,
        state: &dyn Session,
        projection: Option<&Vec<usize>>,
        filters: &[Expr],
        limit: Option<usize>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let ranges = Ranges::of(self.table, filters);
        let is_empty = self.table == HistoryTable::ProcessEvents && ranges.asked.is_none();
        if is_empty || filters.iter().any(is_never) {
            let columns = projection
                .map_or_else(|| Ok(Arc::clone(&self.schema)), |kept| self.schema.project(kept).map(Arc::new))?;
            return Ok(Arc::new(EmptyExec::new(columns)));
        }
        let snapshot = self.view.snapshot()?;
        self.view.note_damage(self.table, ranges.told)?;
        self.view.note_coverage(self.table, ranges.asked)?;
        self.view.note_collectors(ranges.asked);
        self.view.note_beginning(ranges.asked)?;
        self.view.note_end(ranges.asked);
        let segments = match self.table {
            HistoryTable::ProcessEvents => &snapshot.segments,
            HistoryTable::ProcessLifetimes => {
                self.view.note_processes();
                &snapshot.lifetimes
            }
        };
        let wanted = || segments.iter().filter(|segment| ranges.told.overlaps(segment.first_us, segment.last_us));
        let rows = estimate::passing(wanted().map(|segment| segment.rows).sum(), filters);
        // One that is gone, cut short or changed is left out and told.
        let whole = whole::of(&self.view, wanted().cloned().collect()).await;
        let files: Vec<PartitionedFile> = whole.iter().filter_map(|segment| self.file(segment)).collect();
        let files = self.narrowed(state, files, filters).await?;
        let left: BTreeSet<&str> = files.iter().map(|file| file.object_meta.location.as_ref()).collect();
        let is_left = |segment: &&Arc<SegmentFile>| self.inside(segment).is_some_and(|inside| left.contains(inside));
        wanted().filter(is_left).for_each(|segment| self.view.reads(segment));
        if filters.iter().any(|filter| self.owes(filter) && !self.settles(&snapshot, filter)) {
            return self.asked(state, &snapshot, files, rows, projection, filters).await;
        }
        let open = self.open(&snapshot, ranges.told, projection)?;
        if files.is_empty() {
            return Ok(open);
        }
        let alone = state.config().target_partitions() < 2;
        let is_lookup = alone && files.iter().all(|file| file.extension::<ParquetAccessPlan>().is_some());
        let sealed = self.sealed(state, files, rows, projection, filters, limit)?;
        // A scan of nothing would be one more task that a lookup waits for. Over several threads the join was slower without it.
        let nothing_open =
            self.table == HistoryTable::ProcessEvents && in_time(&snapshot, ranges.told).next().is_none();
        if is_lookup && nothing_open { Ok(sealed) } else { UnionExec::try_new(vec![sealed, open]) }
    }
}

#[cfg(test)]
mod pruning;
