//! The tables about the system itself. Their rows are made while the plan runs, a batch at a time, under the limits of the query.

mod alerts;
mod chunks;
mod rows;

use super::prune::TimeRange;
use super::view::store_error;
use super::{QueryView, made, table_columns};
use crate::sql::completeness::Lack;
use crate::store::Thinned;
use async_trait::async_trait;
use daemoneye_lib::model::Degraded;
use datafusion::arrow::datatypes::{Schema, SchemaRef};
use datafusion::catalog::{Session, TableProvider};
use datafusion::common::Result;
use datafusion::logical_expr::{Expr, TableProviderFilterPushDown, TableType};
use datafusion::physical_plan::ExecutionPlan;
use std::sync::Arc;

/// Tables of which the rows are in a running agent and nowhere else.
const OF_THE_AGENT: [&str; 6] =
    ["collectors", "rule_exceptions", "rule_lists", "rule_packs", "rule_problems", "rule_stats"];

/// One of these tables, as one query sees it.
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

    /// Says what the table has lost of what is asked for, or cannot have here.
    fn note(&self, filters: &[Expr]) -> Result<()> {
        if OF_THE_AGENT.contains(&self.name) && !self.view.extra.is_live() {
            let what = format!("{}: only a running agent knows it, and a copied store does not", self.name);
            self.view.note(Lack::new(Degraded::SchemaUnavailable, what));
        }
        let over = |column| TimeRange::over(column, filters);
        let (table, asked) = match self.name {
            "alerts" => (Thinned::Alerts, over("time")),
            "alert_deliveries" => (Thinned::Deliveries, over("created")),
            "coverage" => (Thinned::Coverage, over("from_time").and(over("to_time"))),
            "scans" => (Thinned::Scans, over("time")),
            "system_info" => (Thinned::SystemInfo, over("time")),
            _ => return Ok(()),
        };
        let removed = self.view.state()?.removed_until(table).map_err(store_error)?;
        if let Some(until_us) = removed.filter(|until_us| asked.asks_back_to(*until_us)) {
            let what = format!("{}: rows up to then were deleted because of their age, number or size", self.name);
            self.view.note(Lack::new(Degraded::Capped, what).during(asked.from_us, until_us));
        }
        Ok(())
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

    /// They narrow what is read and what is missing; rows still pass all that the table does not decide itself. What passes no filter
    /// is not gathered for one, so the newest few are not followed by the rest.
    fn supports_filters_pushdown(&self, filters: &[&Expr]) -> Result<Vec<TableProviderFilterPushDown>> {
        let decides = |filter: &&Expr| self.name == "alerts" && alerts::decides(filter);
        let of = |filter| match decides(filter) {
            true => TableProviderFilterPushDown::Exact,
            false => TableProviderFilterPushDown::Inexact,
        };
        Ok(filters.iter().map(of).collect())
    }

    async fn scan(
        &self,
        _: &dyn Session,
        projection: Option<&Vec<usize>>,
        filters: &[Expr],
        limit: Option<usize>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        self.note(filters)?;
        self.view.note_end(TimeRange::of(filters));
        let schema = Arc::clone(&self.schema);
        if self.name == "alerts" {
            return alerts::scan(self.view.state()?, &schema, projection, filters, limit);
        }
        if self.name == "processes" {
            self.view.note_collectors(TimeRange::ALL);
            self.view.note_processes();
            let living = self.view.living()?;
            let bytes = living.bytes();
            let make = move || -> made::Batches { Box::new(living.clone().processes()) };
            return made::scan(schema, bytes, make, projection);
        }
        let state = if rows::STORED.contains(&self.name) { Some(self.view.state()?) } else { None };
        let (name, view, columns) = (self.name, Arc::clone(&self.view), Arc::clone(&schema));
        let range = TimeRange::of(filters);
        let make = move || -> (made::Batches, usize) {
            rows::batches(name, &view, state.as_deref(), range, &columns)
                .unwrap_or_else(|error| (Box::new(std::iter::once(Err(error))), 0))
        };
        made::scan_weighed(schema, make, projection)
    }
}
