//! The conditions of a scan in the order in which they pay.
//!
//! The reader asks one condition after the other, and decodes the columns of the next for the rows that are left. A condition that
//! leaves runs of rows or most of them goes last: stepping over its half of the rows costs more than it saves. One over a column
//! of a few bytes goes before one over a large one.

use super::estimate::WIDE;
use datafusion::common::Result;
use datafusion::common::tree_node::{Transformed, TransformedResult as _, TreeNode as _};
use datafusion::datasource::physical_plan::{FileScanConfigBuilder, ParquetSource};
use datafusion::datasource::source::DataSourceExec;
use datafusion::physical_expr::utils::collect_columns;
use datafusion::physical_expr::{conjunction, split_conjunction};
use datafusion::physical_plan::{ExecutionPlan, PhysicalExpr};
use std::sync::Arc;

/// Columns with more than two bytes an event (docs/benchmarks.md, History).
const LARGE: &[&str] = &["command_line", "entity_id", "parent_entity_id", "ppid", "start_time"];

/// The plan with the conditions of its scans in order.
pub(crate) fn ordered(plan: Arc<dyn ExecutionPlan>) -> Result<Arc<dyn ExecutionPlan>> {
    plan.transform_up(|node| Ok(scan(&node).map_or_else(|| Transformed::no(node), Transformed::yes))).data()
}

fn scan(node: &Arc<dyn ExecutionPlan>) -> Option<Arc<dyn ExecutionPlan>> {
    let scan = node.downcast_ref::<DataSourceExec>()?;
    let (config, source) = scan.downcast_to_file_source::<ParquetSource>()?;
    let filter = datafusion::datasource::physical_plan::FileSource::filter(source)?;
    let mut terms: Vec<_> = split_conjunction(&filter).into_iter().cloned().collect();
    terms.sort_by_key(rank);
    let source = source.with_predicate(conjunction(terms)).with_reorder_filters(false);
    let config = FileScanConfigBuilder::from(config.clone()).with_source(Arc::new(source)).build();
    Some(DataSourceExec::from_data_source(config))
}

fn rank(term: &Arc<dyn PhysicalExpr>) -> u8 {
    let columns = collect_columns(term);
    let mut names = columns.iter().map(|column| column.name());
    if names.all(|name| WIDE.contains(&name)) {
        return 2;
    }
    u8::from(columns.iter().any(|column| LARGE.contains(&column.name())))
}
