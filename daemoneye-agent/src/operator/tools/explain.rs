//! `rules explain`: one rule, and the events that were asked about.

use std::collections::BTreeMap;

use daemoneye_engine::RecordBatch;
use daemoneye_engine::detect::{self, LoadedRule};
use daemoneye_engine::ingest::{batch_from_json, row_to_json};
use daemoneye_lib::proto::{DataShown, Fault, FaultKind, RulesExplain, Value as Parameter, value::Kind};
use serde_json::{Map, Value, json};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::super::data::shown;
use super::super::rules::refusal;
use super::super::{Operators, internal};
use super::rows::text;
use crate::worker::{Collector, Pushdown};

/// Events of one entity that are explained: a start, a few changes, the stop.
const EVENTS: usize = 16;
/// What a person knows an event by.
const NAMED_BY: [&str; 9] =
    ["time", "event_type", "start_kind", "entity_id", "pid", "name", "command_line", "epoch", "seq"];

impl Operators {
    pub(in crate::operator) async fn rules_explain(
        &self,
        asked: RulesExplain,
        cancel: CancellationToken,
    ) -> Result<DataShown, Fault> {
        let rule = match &asked.file {
            Some(file) => self.parse(file)?,
            None => self.rule_called(&asked.rule)?,
        };
        let events = if asked.event_json.is_empty() {
            self.stored_events(&asked.event, cancel).await?
        } else {
            given_event(&asked.event_json)?
        };
        let (id, hash) = (rule.rule.id, rule.rule.hash.clone());
        let pushed = self.worker.as_ref().map(|worker| pushed(&worker.roster.all(), &rule)).unwrap_or_default();
        let explained = tokio::task::spawn_blocking(move || explain(&rule, &events));
        let mut explained = explained.await.map_err(|error| internal(&error))??;
        let stats = self.worker.as_ref().map(|worker| worker.rules.set().stats()).unwrap_or_default();
        let of_rule = stats.iter().find(|stats| stats.rule.id == id && stats.rule.hash == hash);
        if let (Some(kept), Some(members)) = (of_rule.and_then(|stats| stats.window), explained.as_object_mut()) {
            members.insert("kept_rows".to_owned(), kept.kept_rows.into());
        }
        if let Some(members) = explained.as_object_mut().filter(|_| !pushed.is_empty()) {
            members.insert("pushdown".to_owned(), pushed.into());
        }
        shown(&explained, true)
    }

    /// The events that something names: an alert its first one, a position itself, an entity all of its own.
    async fn stored_events(&self, named: &str, cancel: CancellationToken) -> Result<RecordBatch, Fault> {
        let (condition, params) = match named.parse::<Uuid>() {
            // Without hyphens it is an entity.
            Ok(alert) if named.contains('-') => self.cause_of(alert).await?,
            _ => condition_of(named)?,
        };
        let sql =
            format!("SELECT * FROM process_events WHERE {condition} ORDER BY collector, epoch, seq LIMIT {EVENTS}");
        let mut rows = self.rows(sql, params, cancel).await?;
        match rows.next().await? {
            Some(events) if events.num_rows() > 0 => Ok(events),
            _ => {
                let text =
                    format!("no stored event is {named:?}: retention may have removed it, or it was never seen");
                Err(Fault::new(FaultKind::NotFound, text))
            }
        }
    }

    async fn cause_of(&self, alert: Uuid) -> Result<(&'static str, Vec<Parameter>), Fault> {
        let found = self.blocking(move |store| store.alert(alert)).await?;
        let cause = found.and_then(|alert| alert.events.into_iter().next());
        let cause = cause.ok_or_else(|| Fault::new(FaultKind::NotFound, format!("no alert has the id {alert}")))?;
        Ok((POSITION, position(&cause.collector, cause.epoch, cause.number)))
    }
}

/// What collectors do about columns that the rule reads and that they may leave out.
fn pushed(collectors: &BTreeMap<String, Collector>, rule: &LoadedRule) -> Vec<String> {
    let reads = rule.reads();
    let concerned = collectors.iter().filter_map(|(id, collector)| match &collector.pushdown {
        Some(told @ Pushdown::Selected(selected)) => {
            selected.optional.iter().any(|column| reads.contains(column.as_str())).then(|| format!("{id} {told}"))
        }
        _ => None,
    });
    concerned.collect()
}

const POSITION: &str = "collector = $1 AND epoch = $2 AND seq = $3";

fn position(collector: &str, epoch: u64, number: u64) -> Vec<Parameter> {
    let integer = |number: u64| Parameter { kind: Some(Kind::Integer(i64::try_from(number).unwrap_or(i64::MAX))) };
    vec![text(collector), integer(epoch), integer(number)]
}

fn condition_of(named: &str) -> Result<(&'static str, Vec<Parameter>), Fault> {
    if named.len() == 32 && named.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return Ok(("entity_id = $1", vec![text(&named.to_ascii_lowercase())]));
    }
    let mut parts = named.rsplitn(3, ':');
    let (number, epoch) = (parts.next().map(str::parse), parts.next().map(str::parse));
    if let (Some(Ok(number)), Some(Ok(epoch)), Some(collector)) = (number, epoch, parts.next()) {
        return Ok((POSITION, position(collector, epoch, number)));
    }
    let message = format!(
        "{named:?} names no event and is no file: give a file of one JSON object, an entity_id (32 hex digits), a position such as \
         procmond:3:18211, or the id of an alert"
    );
    Err(Fault::new(FaultKind::InvalidRequest, message))
}

fn given_event(json: &str) -> Result<RecordBatch, Fault> {
    let wrong = |what: String| {
        let text = format!("{what}: give one JSON object whose members are columns of process_events");
        Fault::new(FaultKind::InvalidRequest, text)
    };
    let event: Map<String, Value> = serde_json::from_str(json).map_err(|error| wrong(error.to_string()))?;
    batch_from_json(&[event]).map_err(|error| wrong(error.to_string()))
}

fn explain(rule: &LoadedRule, events: &RecordBatch) -> Result<Value, Fault> {
    let mut explained = Vec::with_capacity(events.num_rows());
    for row in 0..events.num_rows() {
        let explanation = detect::explain(rule, events, row).map_err(|problem| {
            let mut fault = Fault::new(FaultKind::Refused, problem.message.clone());
            fault.problems = vec![refusal(&problem)];
            fault
        })?;
        let event = row_to_json(events, row);
        let known: Map<String, Value> =
            NAMED_BY.iter().filter_map(|name| Some(((*name).to_owned(), event.get(*name)?.clone()))).collect();
        let mut shown = json!(explanation);
        if let Some(members) = shown.as_object_mut() {
            members.insert("event".to_owned(), Value::Object(known));
        }
        explained.push(shown);
    }
    Ok(json!({ "rule_id": rule.rule.id, "rule": rule.rule.name, "file": rule.rule.file, "events": explained }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_is_named_by_its_entity_or_its_position() {
        let (condition, _) = condition_of("5f1c0e6a9d3b47c2a1e8f00db4c6d7e9").unwrap();
        assert_eq!(condition, "entity_id = $1");
        let (condition, params) = condition_of("procmond:3:18211").unwrap();
        assert_eq!((condition, params.len()), (POSITION, 3));
        assert!(condition_of("nginx").unwrap_err().message.contains("entity_id"));
        assert!(condition_of("a:b:c").is_err());
    }
}
