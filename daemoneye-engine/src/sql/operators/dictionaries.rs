//! Scans that read text as the files hold it: each value of a row group once, and a number for each row.
//!
//! A row of text costs its reader a look into the dictionary and 16 bytes, and whoever groups or compares it costs it a hash
//! besides. Over the numbers both is done once a value.

use datafusion::arrow::array::{Array as _, StringArray};
use datafusion::arrow::compute::cast;
use datafusion::arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use datafusion::arrow::record_batch::{RecordBatch, RecordBatchOptions};
use datafusion::common::{Result, ScalarValue};
use datafusion::datasource::listing::PartitionedFile;
use datafusion::datasource::physical_plan::{
    FileGroup, FileScanConfig, FileScanConfigBuilder, FileSource as _, ParquetSource,
};
use datafusion::datasource::source::DataSourceExec;
use datafusion::logical_expr::Operator;
use datafusion::physical_expr::expressions::{BinaryExpr, Column, Literal};
use datafusion::physical_expr::projection::ProjectionExpr;
use datafusion::physical_expr::utils::collect_columns;
use datafusion::physical_expr::{PhysicalExpr, conjunction_opt, split_conjunction};
use datafusion::physical_plan::ExecutionPlan;
use std::collections::BTreeSet;
use std::sync::Arc;

/// Text of a dictionary.
pub(super) fn dictionary() -> DataType {
    DataType::Dictionary(Box::new(DataType::UInt32), Box::new(DataType::Utf8))
}

/// Whether both are one dictionary: batches of a row group share it.
pub(super) fn same(one: &StringArray, other: &StringArray) -> bool {
    one.len() == other.len() && one.values().ptr_eq(other.values()) && one.offsets().ptr_eq(other.offsets())
}

/// The rows with text where `columns` have it.
pub(super) fn text(batch: &RecordBatch, columns: &SchemaRef) -> Result<RecordBatch> {
    let written = batch.columns().iter().zip(columns.fields()).map(|(column, field)| cast(column, field.data_type()));
    let rows = RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
    Ok(RecordBatch::try_new_with_options(Arc::clone(columns), written.collect::<Result<_, _>>()?, &rows)?)
}

/// The same scan with those of `columns` (numbers in what it hands on) as dictionaries that are text and that it asks nothing
/// about; `None` where none is, or where a file does not have the columns of this build.
pub(super) fn scan(plan: &Arc<dyn ExecutionPlan>, columns: &[usize]) -> Option<Arc<dyn ExecutionPlan>> {
    let scan = Scan::of(plan)?;
    // What only serves to leave out row groups may as well be left out.
    let is_free = |name: &str| !scan.is_asked() || !scan.terms.iter().any(|term| asks_about(term, name));
    let names = columns.iter().filter_map(|column| scan.name(*scan.read.get(*column)?));
    let chosen: BTreeSet<String> = names.filter(|name| is_free(name)).map(str::to_owned).collect();
    let free = |term: &&Arc<dyn PhysicalExpr>| !chosen.iter().any(|name| asks_about(term, name));
    scan.with(&chosen, scan.terms.iter().filter(free).cloned())
}

/// The same scan with each column as a dictionary that it only compares with one text and does not hand on; `None` as for [`scan`].
pub(super) fn compared(plan: &Arc<dyn ExecutionPlan>) -> Option<Arc<dyn ExecutionPlan>> {
    let scan = Scan::of(plan).filter(Scan::is_asked)?;
    let is_compared = |index: &usize| {
        let Some(name) = scan.name(*index) else { return false };
        scan.terms.iter().all(|term| !asks_about(term, name) || equal(term).is_some())
    };
    let asked = scan.terms.iter().filter_map(equal).map(|(column, _)| column.index());
    let chosen = asked.filter(|index| !scan.read.contains(index)).filter(is_compared);
    let chosen: BTreeSet<String> = chosen.filter_map(|index| scan.name(index)).map(str::to_owned).collect();
    // A dictionary is compared with text of its own kind.
    let written = |term: &Arc<dyn PhysicalExpr>| match equal(term).filter(|(column, _)| chosen.contains(column.name()))
    {
        Some((column, text)) => {
            let text = Arc::new(Literal::new(ScalarValue::Utf8(Some(text.to_owned()))));
            Arc::new(BinaryExpr::new(Arc::new(column.clone()), Operator::Eq, text)) as Arc<dyn PhysicalExpr>
        }
        None => Arc::clone(term),
    };
    scan.with(&chosen, scan.terms.iter().map(written))
}

fn asks_about(term: &Arc<dyn PhysicalExpr>, name: &str) -> bool {
    collect_columns(term).iter().any(|column| column.name() == name)
}

/// A column and the one text that it must be.
fn equal(term: &Arc<dyn PhysicalExpr>) -> Option<(&Column, &str)> {
    let term = term.downcast_ref::<BinaryExpr>().filter(|term| *term.op() == Operator::Eq)?;
    let (column, text) = match term.left().downcast_ref::<Column>() {
        Some(column) => (column, term.right()),
        None => (term.right().downcast_ref::<Column>()?, term.left()),
    };
    match text.downcast_ref::<Literal>()?.value() {
        ScalarValue::Utf8View(Some(text)) => Some((column, text)),
        _ => None,
    }
}

/// A scan of Parquet files.
struct Scan<'a> {
    config: &'a FileScanConfig,
    source: &'a ParquetSource,
    /// Of the columns that it hands on, the numbers in the table.
    read: Vec<usize>,
    /// Its conditions.
    terms: Vec<Arc<dyn PhysicalExpr>>,
}

impl<'a> Scan<'a> {
    fn of(plan: &'a Arc<dyn ExecutionPlan>) -> Option<Self> {
        let (config, source) = plan.downcast_ref::<DataSourceExec>()?.downcast_to_file_source::<ParquetSource>()?;
        // One that goes by another name than in the table would lose it.
        let index = |column: &ProjectionExpr| {
            let read = column.expr.downcast_ref::<Column>()?;
            (read.name() == column.alias).then(|| read.index())
        };
        let read = source.projection()?.iter().map(index).collect::<Option<_>>()?;
        let filter = source.filter();
        let terms = filter.iter().flat_map(split_conjunction).cloned().collect();
        Some(Self { config, source, read, terms })
    }

    /// Whether its conditions decide about rows.
    fn is_asked(&self) -> bool {
        self.source.table_parquet_options().global.pushdown_filters
    }

    /// The name of a column of text.
    fn name(&self, index: usize) -> Option<&'a str> {
        let field = self.config.file_schema().fields().get(index)?;
        (*field.data_type() == DataType::Utf8View).then(|| field.name().as_str())
    }

    fn with(
        &self,
        chosen: &BTreeSet<String>,
        terms: impl Iterator<Item = Arc<dyn PhysicalExpr>>,
    ) -> Option<Arc<dyn ExecutionPlan>> {
        if chosen.is_empty() {
            return None;
        }
        let groups = self.config.file_groups.iter().map(|group| told(group, chosen)).collect::<Option<Vec<_>>>()?;
        let mut source = ParquetSource::new(Arc::new(with(self.config.file_schema(), chosen)))
            .with_table_parquet_options(self.source.table_parquet_options().clone());
        if let Some(readers) = self.source.parquet_file_reader_factory() {
            source = source.with_parquet_file_reader_factory(Arc::clone(readers));
        }
        if let Some(terms) = conjunction_opt(terms) {
            source = source.with_predicate(terms);
        }
        let config = FileScanConfigBuilder::from(self.config.clone())
            .with_source(Arc::new(source))
            .with_file_groups(groups)
            .with_projection_indices(Some(self.read.clone()))
            .ok()?
            .build();
        Some(DataSourceExec::from_data_source(config))
    }
}

/// The files, each told what to read as a dictionary; `None` where one has not told its columns.
fn told(group: &FileGroup, chosen: &BTreeSet<String>) -> Option<FileGroup> {
    let file = |file: &PartitionedFile| {
        let columns = file.arrow_schema.as_ref()?;
        Some(file.clone().with_arrow_schema(Arc::new(with(columns, chosen))))
    };
    Some(FileGroup::new(group.files().iter().map(file).collect::<Option<_>>()?))
}

fn with(columns: &Schema, chosen: &BTreeSet<String>) -> Schema {
    let field = |field: &Arc<Field>| match chosen.contains(field.name()) {
        true => Arc::new(field.as_ref().clone().with_data_type(dictionary())),
        false => Arc::clone(field),
    };
    Schema::new_with_metadata(columns.fields().iter().map(field).collect::<Vec<_>>(), columns.metadata().clone())
}
