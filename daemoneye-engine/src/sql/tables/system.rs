//! The small tables: each is built as one batch when a query reads it.

mod rows;

use super::prune::TimeRange;
use super::view::store_error;
use super::{QueryView, made, table_columns};
use async_trait::async_trait;
use datafusion::arrow::datatypes::{Schema, SchemaRef};
use datafusion::catalog::{Session, TableProvider};
use datafusion::common::Result;
use datafusion::datasource::memory::MemorySourceConfig;
use datafusion::logical_expr::{Expr, TableProviderFilterPushDown, TableType};
use datafusion::physical_plan::ExecutionPlan;
use std::sync::Arc;

/// One small table, as one query sees it.
#[derive(Debug)]
pub(crate) struct SystemTable {
    name: &'static str,
    view: Arc<QueryView>,
    schema: SchemaRef,
}

impl SystemTable {
    pub(crate) fn new(name: &'static str, view: Arc<QueryView>) -> Self {
        let schema = table_columns(name).unwrap_or_else(|| Arc::new(Schema::empty()));
        Self { name, view, schema }
    }
}

#[async_trait]
impl TableProvider for SystemTable {
    fn schema(&self) -> SchemaRef {
        Arc::clone(&self.schema)
    }

    fn table_type(&self) -> TableType {
        TableType::Base
    }

    /// The ledger is read as far back as was asked; nothing else is large enough to care.
    fn supports_filters_pushdown(&self, filters: &[&Expr]) -> Result<Vec<TableProviderFilterPushDown>> {
        let narrows = if self.name == "audit_entries" {
            TableProviderFilterPushDown::Inexact
        } else {
            TableProviderFilterPushDown::Unsupported
        };
        Ok(vec![narrows; filters.len()])
    }

    async fn scan(
        &self,
        _: &dyn Session,
        projection: Option<&Vec<usize>>,
        filters: &[Expr],
        _: Option<usize>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        if self.name == "processes" {
            self.view.note_collectors(TimeRange::ALL);
            self.view.note_processes();
            let living = self.view.store.live().map_err(store_error)?;
            let bytes = living.bytes();
            let make = move || -> made::Batches { Box::new(living.clone().processes()) };
            return made::scan(Arc::clone(&self.schema), bytes, make, projection);
        }
        let batch = rows::of(self.name, &self.view, TimeRange::of(filters), Arc::clone(&self.schema))?;
        let plan = MemorySourceConfig::try_new_exec(&[vec![batch]], Arc::clone(&self.schema), projection.cloned())?;
        Ok(plan)
    }
}
