//! Rows of the small tables, column by column.

mod alerts;
mod rule_life;

pub(super) use alerts::alert_column;

use super::super::ledger::{self, Entry};
use super::super::made::Batches;
use super::super::prune::TimeRange;
use super::super::{CollectorRow, QueryView, catalog};
use super::chunks::{batch, chunks, failed};
use crate::schema::TIME_ZONE;
use crate::sql::completeness::Lack;
use crate::store::{CoverageRow, Delivery, RuleText, StateView, StoreError};
use daemoneye_lib::metrics::{METRICS, Metric, Sample};
use daemoneye_lib::model::{Degraded, DetectionRule, ScanMetadata, SystemInfo};
use datafusion::arrow::array::{
    ArrayRef, BooleanArray, Float64Array, Int64Array, StringArray, TimestampMicrosecondArray,
};
use datafusion::arrow::datatypes::SchemaRef;
use datafusion::arrow::error::ArrowError;
use serde::Serialize;
use std::sync::Arc;

/// The rows of a table, in the order of its schema, and the bytes that they are made of as long as they are read. `state`: where they
/// are read from, for those that the store has.
pub(super) fn batches(
    table: &str,
    view: &QueryView,
    state: Option<&StateView>,
    range: TimeRange,
    schema: &SchemaRef,
) -> Result<(Batches, usize), ArrowError> {
    if let Some(state) = state {
        return Ok((stored(table, state, schema).map_err(failed)?, 0));
    }
    if table == "audit_entries" {
        let entries = entries(view, range);
        let bytes = entries.iter().fold(0_usize, |sum, entry| sum.saturating_add(entry.bytes()));
        let rows = Box::new(entries.into_iter().map(Ok));
        return Ok((chunks(rows, Arc::clone(schema), Entry::bytes, audit_entries), bytes));
    }
    let columns = match table {
        "rule_stats" => rule_life::stats(&view.rule_life().stats),
        "rule_exceptions" => rule_life::exceptions(&view.rule_life().exceptions),
        "rule_lists" => rule_life::lists(&view.rule_life().lists),
        "rule_packs" => rule_life::packs(&view.rule_life().packs),
        "rule_problems" => rule_life::problems(&view.rule_life().problems),
        "collectors" => collectors(&view.extra.collectors()),
        "metrics" => metrics(&samples(view)),
        "tables" => catalog::tables(),
        "columns" => catalog::columns(),
        _ => Vec::new(),
    };
    let rows = columns.first().map_or(0, |column| column.len());
    Ok((Box::new(std::iter::once(batch(schema, columns, rows))), 0))
}

/// Tables that [`batches`] reads from `state.redb`.
pub(super) const STORED: [&str; 6] =
    ["alert_deliveries", "coverage", "rule_versions", "rules", "scans", "system_info"];

fn stored(table: &str, state: &StateView, schema: &SchemaRef) -> Result<Batches, StoreError> {
    let schema = Arc::clone(schema);
    Ok(match table {
        "alert_deliveries" => chunks(state.deliveries()?, schema, |_| size_of::<Delivery>(), deliveries),
        "coverage" => chunks(state.coverage()?, schema, |_| size_of::<CoverageRow>(), coverage),
        "rule_versions" => chunks(state.rule_texts()?, schema, text_bytes, rule_life::versions),
        "rules" => chunks(state.rules()?, schema, |rule| rule.sql.len(), rules),
        "scans" => chunks(state.scans()?, schema, |_| size_of::<ScanMetadata>(), scans),
        "system_info" => chunks(state.system_info()?, schema, |_| size_of::<SystemInfo>(), system_info),
        _ => Box::new(std::iter::empty()),
    })
}

fn text_bytes(version: &RuleText) -> usize {
    version.overrides.iter().fold(version.text.len(), |sum, (_, text)| sum.saturating_add(text.len()))
}

fn deliveries(rows: &[Delivery]) -> Vec<ArrayRef> {
    vec![
        text(rows, |delivery| delivery.sink.clone()),
        text(rows, |delivery| delivery.alert_id.to_string()),
        text(rows, |delivery| delivery.state.as_str().to_owned()),
        count(rows, |delivery| u64::from(delivery.attempts)),
        time(rows, |delivery| Some(delivery.created_us)),
        time(rows, |delivery| (delivery.next_try_us > 0).then_some(delivery.next_try_us)),
        texts(rows, |delivery| delivery.last_error.clone()),
    ]
}

fn rules(rows: &[DetectionRule]) -> Vec<ArrayRef> {
    vec![
        text(rows, |rule| rule.id.to_string()),
        count(rows, |rule| u64::from(rule.version)),
        text(rows, |rule| rule.name.clone()),
        text(rows, |rule| rule.severity.as_str().to_owned()),
        texts(rows, |rule| word(&rule.state)),
        texts(rows, |rule| word(&rule.kind)),
        text(rows, |rule| rule.category.clone()),
        text(rows, |rule| rule.tags.join(",")),
        text(rows, |rule| rule.status.clone()),
        text(rows, |rule| rule.description.clone()),
        text(rows, |rule| rule.author.clone()),
        text(rows, |rule| rule.references.join(",")),
        text(rows, |rule| rule.false_positives.join("; ")),
        text(rows, |rule| rule.sql.clone()),
        text(rows, |rule| rule.dedup.join(",")),
        count(rows, |rule| u64::from(rule.dedup_window_s)),
        text(rows, |rule| rule.hash.clone()),
        text(rows, |rule| rule.pack.clone()),
        text(rows, |rule| rule.file.clone()),
    ]
}

fn coverage(rows: &[CoverageRow]) -> Vec<ArrayRef> {
    vec![
        text(rows, |row| row.gap.collector.clone()),
        text(rows, |row| row.gap.reason.clone()),
        time(rows, |row| Some(row.gap.from_us)),
        time(rows, |row| Some(row.gap.to_us)),
        integer(rows, |row| row.gap.count.and_then(|count| i64::try_from(count).ok())),
        text(rows, |row| row.gap.detail.clone()),
    ]
}

fn collectors(rows: &[CollectorRow]) -> Vec<ArrayRef> {
    vec![
        text(rows, |row| row.id.clone()),
        text(rows, |row| row.collector_type.clone()),
        text(rows, |row| row.state.clone()),
        Arc::new(rows.iter().map(|row| Some(row.connected)).collect::<BooleanArray>()),
        text(rows, |row| row.version.clone()),
        integer(rows, |row| row.pid.map(i64::from)),
        text(rows, |row| row.source.clone()),
        text(rows, |row| row.source_reason.clone()),
        time(rows, |row| row.registered_us),
        time(rows, |row| row.last_heartbeat_us),
        count(rows, |row| row.cycles),
        count(rows, |row| row.events),
        count(rows, |row| row.errors),
        count(rows, |row| row.processes),
        count(rows, |row| row.lost),
        count(rows, |row| u64::from(row.restarts)),
        texts(rows, |row| row.pushdown.clone()),
    ]
}

fn scans(rows: &[ScanMetadata]) -> Vec<ArrayRef> {
    vec![
        time(rows, |scan| Some(scan.time_us)),
        text(rows, |scan| scan.collector.clone()),
        count(rows, |scan| scan.cycles),
        count(rows, |scan| scan.processes),
        count(rows, |scan| scan.events),
        count(rows, |scan| scan.errors),
    ]
}

fn system_info(rows: &[SystemInfo]) -> Vec<ArrayRef> {
    vec![
        time(rows, |info| Some(info.time_us)),
        text(rows, |info| info.hostname.clone()),
        text(rows, |info| info.os_name.clone()),
        text(rows, |info| info.os_version.clone()),
        text(rows, |info| info.architecture.clone()),
        count(rows, |info| u64::from(info.cpu_cores)),
        count(rows, |info| info.total_memory_bytes),
        count(rows, |info| info.uptime_s),
        text(rows, |info| info.boot_id.clone()),
        text(rows, |info| info.capabilities.join(",")),
    ]
}

fn entries(view: &QueryView, range: TimeRange) -> Vec<Entry> {
    let (entries, missing) = ledger::read(&view.store.ledger_dir(), range);
    if let Some(reason) = missing {
        let what = match reason {
            Degraded::Capped => "only the newest entries of the ledger are read",
            _ => "the ledger cannot be read, or only in part: see daemoneye-cli audit verify",
        };
        view.note(Lack::new(reason, what));
    }
    entries
}

fn audit_entries(rows: &[Entry]) -> Vec<ArrayRef> {
    vec![
        count(rows, |row| row.header.entry.sequence),
        time(rows, |row| Some(row.time_us())),
        text(rows, |row| row.header.entry.actor.clone()),
        text(rows, |row| row.header.entry.action.clone()),
        text(rows, |row| row.payload.clone()),
        text(rows, |row| hex::encode(row.header.entry.payload_hash)),
        text(rows, |row| hex::encode(row.header.entry.previous_hash)),
        text(rows, |row| hex::encode(row.header.entry.entry_hash)),
    ]
}

/// Every metric that the document has: over a copied store those of the store only.
fn samples(view: &QueryView) -> Vec<(&'static Metric, Sample)> {
    let Some(document) = view.extra.health() else { return Vec::new() };
    let of =
        |metric: &'static Metric| metric.read(&document).into_iter().flatten().map(move |sample| (metric, sample));
    METRICS.iter().flat_map(of).collect()
}

fn metrics(rows: &[(&Metric, Sample)]) -> Vec<ArrayRef> {
    vec![
        text(rows, |(metric, _)| metric.name.to_owned()),
        texts(rows, |(_, sample)| sample.of.clone()),
        text(rows, |(metric, _)| metric.kind.as_str().to_owned()),
        text(rows, |(metric, _)| metric.unit.to_owned()),
        Arc::new(rows.iter().map(|(_, sample)| sample.value).collect::<Float64Array>()),
        text(rows, |(metric, _)| metric.meaning.to_owned()),
    ]
}

fn text<T>(rows: &[T], of: impl Fn(&T) -> String) -> ArrayRef {
    Arc::new(StringArray::from_iter_values(rows.iter().map(of)))
}

fn texts<T>(rows: &[T], of: impl Fn(&T) -> Option<String>) -> ArrayRef {
    Arc::new(rows.iter().map(of).collect::<StringArray>())
}

fn integer<T>(rows: &[T], of: impl Fn(&T) -> Option<i64>) -> ArrayRef {
    Arc::new(rows.iter().map(of).collect::<Int64Array>())
}

/// A count beyond 63 bits cannot happen; should it, it reads as unknown and not as negative.
fn count<T>(rows: &[T], of: impl Fn(&T) -> u64) -> ArrayRef {
    integer(rows, |row| i64::try_from(of(row)).ok())
}

fn time<T>(rows: &[T], of: impl Fn(&T) -> Option<i64>) -> ArrayRef {
    Arc::new(rows.iter().map(of).collect::<TimestampMicrosecondArray>().with_timezone(TIME_ZONE))
}

fn json(value: &impl Serialize) -> Option<String> {
    serde_json::to_string(value).ok()
}

/// The word that an enum has in JSON.
fn word(value: &impl Serialize) -> Option<String> {
    serde_json::to_value(value).ok().and_then(|value| value.as_str().map(str::to_owned))
}
