//! What a query read and did, as one document: the answer to `query --explain`.
//!
//! The numbers are those of the run, not estimates: the statement has been executed under all its limits.

use super::tables::QueryView;
use daemoneye_lib::proto::QueryDone;
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::display::DisplayableExecutionPlan;
use datafusion::physical_plan::metrics::{MetricValue, MetricsSet};
use serde_json::{Map, Value, json};
use std::sync::Arc;

/// Operators shown: a statement of the largest size has fewer.
const MAX_OPERATORS: usize = 500;
/// Bytes that say what an operator does; a list of values can fill a statement.
const DOES_BYTES: usize = 300;
/// Segments that are named: a day in hours and what was sealed since the last one; others are counted.
const MAX_NAMES: usize = 64;
/// Operators that are there for the limits only.
const OURS: &[&str] = &["Between", "CooperativeExec", "Metered", "Sliced"];

/// What the scans and the operators that spill have counted, and the operators themselves.
#[derive(Default)]
struct Totals {
    row_groups_read: usize,
    row_groups_pruned: usize,
    row_groups_pruned_by_bloom_filter: usize,
    pages_read: usize,
    pages_pruned: usize,
    rows: usize,
    bytes: usize,
    spilled_files: usize,
    spilled_rows: usize,
    spilled_bytes: usize,
    operators: Vec<Value>,
}

/// The document of a run that has come to its end.
pub(crate) fn document(plan: &Arc<dyn ExecutionPlan>, view: &QueryView, done: &QueryDone) -> String {
    let mut totals = Totals::default();
    totals.add(plan, 0);
    totals.row_groups_pruned_by_bloom_filter =
        totals.row_groups_pruned_by_bloom_filter.saturating_add(view.excluded_row_groups());
    let (segments, read) = view.segments();
    let named = |pairs: &[(&str, Value)]| -> Value {
        pairs.iter().map(|(name, value)| ((*name).to_owned(), value.clone())).collect::<Map<_, _>>().into()
    };
    named(&[
        ("rows", json!(done.rows)),
        ("elapsed_us", json!(done.elapsed_us)),
        ("complete", json!(done.completeness.as_ref().is_none_or(|known| known.degraded.is_empty()))),
        (
            "segments",
            json!({
                "total": segments,
                "read": read,
                "pruned": segments.saturating_sub(read),
                "files": names(view.read_names()),
                "unreadable": names(view.unreadable_names()),
            }),
        ),
        (
            "row_groups",
            json!({
                "read": totals.row_groups_read,
                "pruned": totals.row_groups_pruned,
                "pruned_by_bloom_filter": totals.row_groups_pruned_by_bloom_filter,
            }),
        ),
        ("pages", totals.pages()),
        ("scanned", json!({ "rows": totals.rows, "bytes": totals.bytes, "open_rows": view.open_rows() })),
        (
            "spilled",
            json!({ "files": totals.spilled_files, "rows": totals.spilled_rows, "bytes": totals.spilled_bytes }),
        ),
        ("operators", Value::Array(totals.operators)),
    ])
    .to_string()
}

/// The first of them, and how many more there are.
fn names(mut all: Vec<String>) -> Value {
    let further = all.len().saturating_sub(MAX_NAMES);
    all.truncate(MAX_NAMES);
    json!({ "names": all, "further": further })
}

impl Totals {
    /// Without a filter that the page index knows something of, nobody counts them, and none is left out by its statistics.
    fn pages(&self) -> Value {
        match (self.pages_read, self.pages_pruned) {
            (0, 0) => Value::Null,
            (read, pruned) => json!({ "read": read, "pruned": pruned }),
        }
    }

    fn add(&mut self, node: &Arc<dyn ExecutionPlan>, depth: usize) {
        let ours = OURS.contains(&node.name());
        if !ours {
            self.operator(node, depth);
        }
        let below = if ours { depth } else { depth.saturating_add(1) };
        for child in node.children() {
            self.add(child, below);
        }
    }

    fn operator(&mut self, node: &Arc<dyn ExecutionPlan>, depth: usize) {
        let metrics = node.metrics().map(|metrics| metrics.aggregate_by_name()).unwrap_or_default();
        self.count(&metrics);
        if self.operators.len() < MAX_OPERATORS {
            let shown = DisplayableExecutionPlan::new(node.as_ref()).one_line().to_string();
            let mut does = shown.trim().strip_prefix(node.name()).unwrap_or(&shown).trim_start_matches(':').trim();
            does = does.get(..does.floor_char_boundary(DOES_BYTES)).unwrap_or(does);
            let elapsed_us = metrics.elapsed_compute().unwrap_or(0) / 1_000;
            self.operators.push(json!({
                "depth": depth,
                "name": node.name(),
                "does": does,
                "rows": metrics.output_rows(),
                "elapsed_us": elapsed_us,
            }));
        }
    }

    fn count(&mut self, metrics: &MetricsSet) {
        let reads_files = metrics.sum_by_name("bytes_scanned").is_some();
        for metric in metrics.iter() {
            let add = |to: &mut usize, number: usize| *to = to.saturating_add(number);
            match metric.value() {
                MetricValue::OutputRows(rows) if reads_files => add(&mut self.rows, rows.value()),
                MetricValue::SpillCount(files) => add(&mut self.spilled_files, files.value()),
                MetricValue::SpilledBytes(bytes) => add(&mut self.spilled_bytes, bytes.value()),
                MetricValue::SpilledRows(rows) => add(&mut self.spilled_rows, rows.value()),
                MetricValue::Count { name, count } => match name.as_ref() {
                    "bytes_scanned" => add(&mut self.bytes, count.value()),
                    "pushdown_rows_pruned" => add(&mut self.rows, count.value()),
                    "row_groups_pruned_dynamic_filter" => add(&mut self.row_groups_pruned, count.value()),
                    _ => {}
                },
                MetricValue::PruningMetrics { name, pruning_metrics } => match name.as_ref() {
                    "row_groups_pruned_statistics" => add(&mut self.row_groups_pruned, pruning_metrics.pruned()),
                    "row_groups_pruned_bloom_filter" => {
                        add(&mut self.row_groups_pruned_by_bloom_filter, pruning_metrics.pruned());
                        add(&mut self.row_groups_read, pruning_metrics.matched());
                    }
                    "page_index_pages_pruned" => {
                        add(&mut self.pages_pruned, pruning_metrics.pruned());
                        add(&mut self.pages_read, pruning_metrics.matched());
                    }
                    _ => {}
                },
                _ => {}
            }
        }
    }
}
