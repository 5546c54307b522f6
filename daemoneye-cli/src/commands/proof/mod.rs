//! `audit prove`, `audit verify-proof`, `alerts evidence`, `alerts verify-evidence`: files that prove something to a stranger.

mod making;

use std::collections::{BTreeMap, HashSet};
use std::io::Read as _;
use std::path::Path;

use daemoneye_lib::exit::Exit;
use daemoneye_lib::ledger::LedgerRecord;
use daemoneye_lib::ledger::proof::{EventColumns, MAX_PROOF_BYTES, Proof, Verified};
use daemoneye_lib::model::{Alert, EventPointer};
use daemoneye_lib::proto::{
    AlertShow, AlertShown, Row, Value, operator_request::Verb, operator_response::Answer, value::Kind,
};
use serde_json::Value as Json;

use self::making::{Making, rows, unreadable};
use super::query::Question;
use super::{alerts, audit};
use crate::agent::Session;
use crate::args::{Evidence, Prove, VerifyEvidence, VerifyProof};
use crate::error::CliError;
use crate::render;
use crate::settings::Settings;
use crate::value;

/// Events of one entity that are proven together: a start, changes, the stop.
const EVENTS: usize = 64;
/// Ancestors that evidence has: as many names as the column `ancestry`.
const ANCESTORS: usize = 16;
/// What was not seen so shortly before an alert belongs to its evidence.
const BEFORE_US: i64 = 600_000_000;

/// Actions of the entries that may be part of evidence.
const CONTEXT: [&str; 5] = ["alert-status", "coverage", "rule-added", "rule-changed", "start"];

const COLUMNS: [&str; 4] = ["what", "entry", "time", "detail"];

pub(super) async fn prove(arguments: Prove, settings: &Settings) -> Result<Exit, CliError> {
    let Prove { target, output, ledger } = arguments;
    let directory = audit::directory_of(ledger, settings).await?;
    let mut making = Making::open(&directory)?;
    if let Some(sequence) = target.seq {
        let none = || CliError::NotFound(format!("the ledger in {} has no entry {sequence}", directory.display()));
        let record = making.files.entry(sequence).map_err(unreadable)?.ok_or_else(none)?;
        making.entry(&record)?;
        return written(&making, &output);
    }
    let session = Session::open(settings).await?;
    if let Some(id) = target.alert {
        add_alert(&mut making, &shown(&session, &id).await?)?;
    }
    if let Some(named) = target.event {
        let (condition, params) = condition_of(&named)?;
        let sql = format!(
            "SELECT * FROM process_events WHERE {condition} ORDER BY collector, epoch, seq LIMIT {}",
            EVENTS + 1
        );
        let mut found = rows(&session, Question { params, ..Question::new(sql) }).await?;
        if found.is_empty() {
            let text = format!("no stored event is {named}: retention may have removed it, or it was never seen");
            return Err(CliError::NotFound(text));
        }
        if found.len() > EVENTS {
            eprintln!("only the first {EVENTS} events are proven; name a later one by its position");
            found.truncate(EVENTS);
        }
        for row in found {
            making.event(&session, row).await?;
        }
    }
    session.close().await;
    written(&making, &output)
}

pub(super) async fn evidence(arguments: Evidence, settings: &Settings) -> Result<Exit, CliError> {
    let Evidence { id, output, ledger } = arguments;
    let directory = audit::directory_of(ledger, settings).await?;
    let mut making = Making::open(&directory)?;
    let session = Session::open(settings).await?;
    let shown = shown(&session, &id).await?;
    let alert = add_alert(&mut making, &shown)?;
    making.proof.rule = shown.rule;
    for record in context(&making, &alert)? {
        making.entry(&record)?;
    }
    for row in cause(&session, &alert).await? {
        making.event(&session, row).await?;
    }
    session.close().await;
    written(&making, &output)
}

/// The events that caused an alert, then their ancestors, each once.
async fn cause(session: &Session, alert: &Alert) -> Result<Vec<EventColumns>, CliError> {
    let (mut found, mut known) = (Vec::new(), HashSet::new());
    let mut parents = Vec::new();
    for EventPointer { collector, epoch, number } in &alert.events {
        let sql = format!("SELECT * FROM process_events WHERE {POSITION}");
        let question = Question { params: position(collector, *epoch, *number), ..Question::new(sql) };
        for row in rows(session, question).await? {
            known.extend(row.get("entity_id").and_then(Json::as_str).map(str::to_owned));
            parents.extend(row.get("parent_entity_id").and_then(Json::as_str).map(str::to_owned));
            found.push(row);
        }
    }
    while let Some(parent) = parents.pop().filter(|_| known.len() < alert.events.len() + ANCESTORS) {
        if !known.insert(parent.clone()) {
            continue;
        }
        // One that was there before its collector may be told of a moment later than what it started.
        let sql = "SELECT * FROM process_events WHERE entity_id = $1 AND event_type = 'start' \
                   ORDER BY time > $2, time DESC LIMIT 1";
        let params = vec![value::of_text(parent), Value { kind: Some(Kind::TimestampUs(alert.time_us)) }];
        for row in rows(session, Question { params, ..Question::new(sql.to_owned()) }).await? {
            parents.extend(row.get("parent_entity_id").and_then(Json::as_str).map(str::to_owned));
            found.push(row);
        }
    }
    Ok(found)
}

/// What the ledger says around an alert, as far as the checkpoint reaches: what operators did with it, its rule, the programs' versions,
/// what was not seen.
fn context(making: &Making, alert: &Alert) -> Result<Vec<LedgerRecord>, CliError> {
    let raised = making.proof.entries.first().map_or(u64::MAX, |entry| entry.sequence);
    let mut found: BTreeMap<String, LedgerRecord> = BTreeMap::new();
    let mut take = |record: LedgerRecord| {
        let payload: Json = serde_json::from_slice(&record.payload).ok()?;
        let text = |name: &str| payload.get(name).and_then(Json::as_str);
        let number = |name: &str| payload.get(name).and_then(Json::as_i64);
        let sequence = record.entry.sequence;
        let kind = match record.entry.action.as_str() {
            "alert-status" if text("alert")? == alert.id.to_string() => format!("alert-status {sequence}"),
            "rule-added" | "rule-changed" if text("rule")? == alert.rule_id.to_string() => {
                (number("version")? == i64::from(alert.rule_version)).then(|| format!("rule {sequence}"))?
            }
            // Of one that grows its last state.
            "coverage" if number("from_us")? <= alert.last_seen_us => {
                let touches = number("to_us")? >= alert.time_us.saturating_sub(BEFORE_US);
                touches.then(|| format!("coverage {}", number("row").unwrap_or_default()))?
            }
            "start" if sequence < raised => format!("start {}", record.entry.actor),
            _ => return None,
        };
        found.insert(kind, record)
    };
    let size = making.size();
    let each = making.files.each(|record| {
        let is_below = record.entry.sequence < size;
        if is_below && CONTEXT.contains(&record.entry.action.as_str()) {
            take(record);
        }
        is_below
    });
    each.map_err(unreadable)?;
    Ok(found.into_values().collect())
}

async fn shown(session: &Session, id: &str) -> Result<AlertShown, CliError> {
    let id = alerts::full(session, id.to_lowercase()).await?;
    match session.ask_once(Verb::AlertShow(AlertShow { id })).await? {
        Answer::Alert(shown) => Ok(shown),
        _ => Err(CliError::AgentAnswer("an alert")),
    }
}

/// Adds an alert as it was raised, and the entry that tells of it.
fn add_alert(making: &mut Making, shown: &AlertShown) -> Result<Alert, CliError> {
    let alert: Alert = serde_json::from_str(&shown.as_raised).map_err(|_| CliError::AgentAnswer("an alert"))?;
    let id = alert.id.to_string();
    let told = |record: &LedgerRecord| {
        if !matches!(record.entry.action.as_str(), "alert" | "alert-suppressed") {
            return None;
        }
        let payload: Json = serde_json::from_slice(&record.payload).ok()?;
        (payload.get("alert")?.as_str()? == id).then(|| (record.clone(), payload))
    };
    let found = making.files.newest(told).map_err(unreadable)?;
    let (record, payload) = found.ok_or_else(|| {
        CliError::NotFound(format!("no entry of the ledger tells of alert {id} yet: it comes within a minute"))
    })?;
    if payload.get("record").is_none() {
        return Err(CliError::NotFound(format!("alert {id} was raised by a build whose alerts have no proof")));
    }
    if !daemoneye_lib::ledger::proof::is_alert(&payload, &alert, &shown.as_raised) {
        let text = format!("alert {id} was changed: it is not what ledger entry {} tells of", record.entry.sequence);
        return Err(CliError::NotProven(text));
    }
    making.entry(&record)?;
    making.proof.alert = Some(shown.as_raised.clone());
    Ok(alert)
}

fn written(making: &Making, output: &Path) -> Result<Exit, CliError> {
    making.write(output)?;
    let (entries, events) = (making.proof.entries.len(), making.proof.events.len());
    eprintln!("{}: {entries} entries and {events} events, below the newest checkpoint", output.display());
    Ok(Exit::Ok)
}

pub(super) fn verify_proof(arguments: &VerifyProof, settings: &Settings) -> Result<Exit, CliError> {
    let (proof, verified) = read(&arguments.file, &arguments.vkey)?;
    render::rows(settings.format, &COLUMNS, &told(&proof, &verified))?;
    Ok(Exit::Ok)
}

pub(super) fn verify_evidence(arguments: &VerifyEvidence, settings: &Settings) -> Result<Exit, CliError> {
    let (proof, verified) = read(&arguments.file, &arguments.vkey)?;
    if verified.alert.is_none() {
        return Err(CliError::Usage(format!("{} is no evidence of an alert", arguments.file.display())));
    }
    render::rows(settings.format, &COLUMNS, &told(&proof, &verified))?;
    let mut exit = Exit::Ok;
    for EventPointer { collector, epoch, number } in &verified.missing {
        eprintln!("event {collector}:{epoch}:{number} caused the alert and is not in the file");
        exit = Exit::Degraded;
    }
    if proof.rule.is_empty() {
        eprintln!("the rule's text is not in the file: another version was loaded when it was made");
        exit = Exit::Degraded;
    }
    Ok(exit)
}

fn read(file: &Path, key: &str) -> Result<(Proof, Verified), CliError> {
    let key = audit::signed::parse_key(key)?;
    let io = |source| CliError::Io { what: format!("read {}", file.display()), source };
    let mut bytes = Vec::new();
    std::fs::File::open(file).and_then(|opened| opened.take(MAX_PROOF_BYTES).read_to_end(&mut bytes)).map_err(io)?;
    let not_proven = |what: String| CliError::NotProven(format!("{} proves nothing: {what}", file.display()));
    let text = String::from_utf8(bytes).map_err(|_| not_proven("it is no text".to_owned()))?;
    let proof = Proof::of_file(&text).map_err(|fault| not_proven(fault.to_string()))?;
    let verified = proof.verify(&key).map_err(|fault| not_proven(fault.to_string()))?;
    Ok((proof, verified))
}

/// What was proven, for a person or a script.
fn told(proof: &Proof, verified: &Verified) -> Vec<Row> {
    let row = |what: &str, entry: Option<u64>, time: String, detail: String| Row {
        values: vec![
            value::of_text(what),
            entry.map_or_else(Value::default, value::of_number),
            value::of_text(time),
            value::of_text(detail),
        ],
    };
    let checkpoint = &verified.checkpoint;
    let detail = format!("{}, {} entries", checkpoint.origin, checkpoint.size);
    let mut rows = vec![row("checkpoint", None, String::new(), detail)];
    if let Some(alert) = &verified.alert {
        let detail = format!("{} ({}): {}", alert.id, alert.severity.as_str(), alert.title);
        rows.push(row("alert", None, value::timestamp(alert.time_us), detail));
        if !proof.rule.is_empty() {
            let detail = format!("{} version {}, hash {}", alert.rule_id, alert.rule_version, alert.rule_hash);
            rows.push(row("rule", None, String::new(), detail));
        }
    }
    for (event, at) in proof.events.iter().zip(&verified.events) {
        let text = |name: &str| event.row.get(name).and_then(Json::as_str).unwrap_or_default().to_owned();
        let named = ["event_type", "name", "command_line", "entity_id"].map(text);
        let detail = format!("{}:{}:{} {}", at.collector, at.epoch, at.number, named.join(" "));
        rows.push(row("event", Some(event.entry), text("time"), detail));
    }
    for entry in &proof.entries {
        let time = entry.timestamp_ms.checked_mul(1_000).map(value::timestamp).unwrap_or_default();
        rows.push(row("entry", Some(entry.sequence), time, format!("{} by {}", entry.action, entry.actor)));
    }
    rows
}

const POSITION: &str = "collector = $1 AND epoch = $2 AND seq = $3";

fn position(collector: &str, epoch: u64, number: u64) -> Vec<Value> {
    vec![value::of_text(collector), value::of_number(epoch), value::of_number(number)]
}

fn condition_of(named: &str) -> Result<(&'static str, Vec<Value>), CliError> {
    if named.len() == 32 && named.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return Ok(("entity_id = $1", vec![value::of_text(named.to_ascii_lowercase())]));
    }
    let mut parts = named.rsplitn(3, ':');
    let (number, epoch) = (parts.next().map(str::parse), parts.next().map(str::parse));
    match (number, epoch, parts.next()) {
        (Some(Ok(number)), Some(Ok(epoch)), Some(collector)) => Ok((POSITION, position(collector, epoch, number))),
        _ => Err(CliError::Usage(format!(
            "{named:?} names no event: give an entity_id (32 hex digits) or a position such as procmond:3:18211"
        ))),
    }
}
