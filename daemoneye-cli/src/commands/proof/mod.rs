//! `audit prove`, `audit verify-proof`, `alerts evidence`, `alerts verify-evidence`: files that prove something to a stranger.

pub(super) mod making;
mod told;

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read as _};
use std::path::Path;

use daemoneye_lib::exit::Exit;
use daemoneye_lib::ledger::proof::{
    Ancestor, Chosen, EventColumns, Held, HoldFault, Lineage, MAX_PROOF_BYTES, PERIOD_ENTRIES, Part, Period,
    PeriodError, Proof, Target, Verified, Whole, is_touched,
};
use daemoneye_lib::ledger::{AGENT, LedgerRecord};
use daemoneye_lib::model::{Alert, EventPointer};
use daemoneye_lib::proto::{
    AlertShow, AlertShown, Value, operator_request::Verb, operator_response::Answer, value::Kind,
};
use jiff::Timestamp;
use serde_json::Value as Json;

use self::making::{Making, rows, unreadable};
use super::audit::signed::Kept;
use super::query::Question;
use super::{alerts, audit};
use crate::agent::Session;
use crate::args::{Evidence, Known, Prove, VerifyEvidence, VerifyProof};
use crate::error::CliError;
use crate::render;
use crate::settings::Settings;
use crate::value::{self, say};

/// Events of one entity that are proven together: a start, changes, the stop.
const EVENTS: usize = 64;
/// Programs and titles of one process among which the one is looked for that its child names: the newest before the child.
const PROGRAMS: usize = 64;
/// Actions of the entries that may be part of evidence.
const CONTEXT: [&str; 5] = ["alert-status", "coverage", "rule-added", "rule-changed", "start"];

pub(super) async fn prove(arguments: Prove, settings: &Settings) -> Result<Exit, CliError> {
    let Prove { target, to, output, since, ledger } = arguments;
    let since = since.since.as_deref();
    let directory = audit::directory_of(ledger, settings).await?;
    if let Some(sequence) = target.seq {
        return written(&entry(&directory, sequence, since)?, &output);
    }
    if let Some((from, to)) = target.from.zip(to) {
        return written(&period(&directory, &from, &to, since)?, &output);
    }
    let session = Session::open(settings).await?;
    let making = match target.alert {
        Some(id) => {
            let shown = shown(&session, &id).await?;
            let alert = as_raised(&shown)?;
            let mut making = Making::open(&directory, Target::Alert(alert.id.to_string()), since)?;
            add_alert(&mut making, shown, &alert)?;
            making
        }
        None => events(&session, &directory, &target.event.unwrap_or_default(), since).await?,
    };
    session.close().await;
    written(&making, &output)
}

fn entry(directory: &Path, sequence: u64, since: Option<&Path>) -> Result<Making, CliError> {
    let mut making = Making::open(directory, Target::Entry(sequence), since)?;
    let none = || CliError::NotFound(format!("the ledger in {} has no entry {sequence}", directory.display()));
    let record = making.files.entry(sequence).map_err(unreadable)?.ok_or_else(none)?;
    making.entry(&record)?;
    Ok(making)
}

fn period(directory: &Path, from: &str, to: &str, since: Option<&Path>) -> Result<Making, CliError> {
    let now = Timestamp::now().as_microsecond();
    // All of the milliseconds that are touched.
    let from_ms = value::instant(from, now)?.div_euclid(1_000);
    let to_ms = value::instant(to, now)?.saturating_add(999).div_euclid(1_000);
    if from_ms >= to_ms {
        return Err(CliError::Usage("--to lies before --from; there is no time between them".to_owned()));
    }
    let period = Period { from_ms, to_ms };
    let mut making = Making::open(directory, Target::Period(period), since)?;
    let run = period.entries(&making.files, making.size()).map_err(|error| match error {
        PeriodError::LimitEntries { last_ms } => CliError::Usage(format!(
            "there are more than {PERIOD_ENTRIES} entries in that time; prove it in parts, the first one with --to {}",
            told::time(last_ms)
        )),
        PeriodError::Segment(error) => unreadable(error),
        PeriodError::NoEntries => CliError::NotFound(error.to_string()),
        PeriodError::CorruptEntry(_) => CliError::NotProven(error.to_string()),
    })?;
    making.run(run)?;
    Ok(making)
}

async fn events(session: &Session, directory: &Path, named: &str, since: Option<&Path>) -> Result<Making, CliError> {
    let (target, condition, params) = named_events(named)?;
    let sql =
        format!("SELECT * FROM process_events WHERE {condition} ORDER BY collector, epoch, seq LIMIT {}", EVENTS + 1);
    let mut found = rows(session, Question { params, ..Question::new(sql) }).await?;
    if found.is_empty() {
        let text = format!("no stored event is {named}: retention may have removed it, or it was never seen");
        return Err(CliError::NotFound(text));
    }
    if found.len() > EVENTS {
        eprintln!("only the first {EVENTS} events are proven; name a later one by its position");
        found.truncate(EVENTS);
    }
    let mut making = Making::open(directory, target, since)?;
    let (of, mut young) = (found.len(), Vec::new());
    for row in found {
        young.extend(making.event(session, row).await?);
    }
    match young.into_iter().reduce(|first, _| first) {
        Some(why) if making.proof.events.is_empty() => Err(CliError::NotFound(why)),
        Some(why) => {
            let left = of.saturating_sub(making.proof.events.len());
            eprintln!("{left} of {of} events are younger than the newest checkpoint and not in the file: {why}");
            Ok(making)
        }
        None => Ok(making),
    }
}

pub(super) async fn evidence(arguments: Evidence, settings: &Settings) -> Result<Exit, CliError> {
    let Evidence { id, output, since, ledger } = arguments;
    let directory = audit::directory_of(ledger, settings).await?;
    let session = Session::open(settings).await?;
    let shown = shown(&session, &id).await?;
    let alert = as_raised(&shown)?;
    let target = Target::Evidence(alert.id.to_string());
    let mut making = Making::open(&directory, target, since.since.as_deref())?;
    making.proof.rule.clone_from(&shown.rule);
    let raised = add_alert(&mut making, shown, &alert)?;
    for record in context(&making, &alert, raised)? {
        making.entry(&record)?;
    }
    for row in cause(&session, &alert).await? {
        if let Some(why) = making.event(&session, row).await? {
            return Err(CliError::NotFound(why));
        }
    }
    session.close().await;
    making.before(&alert, raised)?;
    written(&making, &output)
}

/// The events that caused an alert, then their ancestors, each once.
async fn cause(session: &Session, alert: &Alert) -> Result<Vec<EventColumns>, CliError> {
    let mut found = Vec::new();
    for EventPointer { collector, epoch, number } in &alert.events {
        let sql = format!("SELECT * FROM process_events WHERE {POSITION}");
        let question = Question { params: position(collector, *epoch, *number), ..Question::new(sql) };
        found.extend(rows(session, question).await?);
    }
    let mut lineage = Lineage::of(found.iter());
    while let Some(ancestor) = lineage.wanted() {
        let started = started(session, &ancestor, alert).await?;
        started.first().iter().for_each(|row| lineage.add(row));
        found.extend(started);
    }
    Ok(found)
}

/// The rows that show an ancestor as its child names it; else its start that is likeliest, so that the file has what there is.
async fn started(session: &Session, ancestor: &Ancestor, alert: &Alert) -> Result<Vec<EventColumns>, CliError> {
    let mut known = Vec::new();
    if let Some((collector, epoch, number)) = ancestor.child() {
        for kind in ["start", "modify"] {
            let sql = format!(
                "SELECT * FROM process_events WHERE entity_id = $1 AND event_type = '{kind}' AND collector = $2 \
                 AND (epoch < $3 OR epoch = $3 AND (seq < $4 OR start_kind = 'baseline')) ORDER BY epoch DESC, seq DESC LIMIT {PROGRAMS}"
            );
            let mut params = vec![value::of_text(ancestor.entity_id.clone())];
            params.extend(position(collector, epoch, number));
            known.extend(rows(session, Question { params, ..Question::new(sql) }).await?);
            if let Some(shown) = ancestor.shown_by(&known.iter().collect::<Vec<_>>()) {
                return Ok(shown.into_iter().filter_map(|place| known.get(place)).cloned().collect());
            }
        }
    }
    // One that was there before its collector may be told of a moment later than what it started.
    let sql = "SELECT * FROM process_events WHERE entity_id = $1 AND event_type = 'start' \
               ORDER BY time > $2, time DESC LIMIT 1";
    let at = Value { kind: Some(Kind::TimestampUs(alert.time_us)) };
    let params = vec![value::of_text(ancestor.entity_id.clone()), at];
    rows(session, Question { params, ..Question::new(sql.to_owned()) }).await
}

/// What the ledger says of an alert, as far as the checkpoint reaches: what operators did with it, its rule, the programs' versions,
/// what was not seen. Of the time before it everything is added later.
fn context(making: &Making, alert: &Alert, raised: u64) -> Result<Vec<LedgerRecord>, CliError> {
    let mut found: BTreeMap<String, LedgerRecord> = BTreeMap::new();
    let mut take = |record: LedgerRecord| {
        let payload: Json = serde_json::from_slice(&record.payload).ok()?;
        let text = |name: &str| payload.get(name).and_then(Json::as_str);
        let number = |name: &str| payload.get(name).and_then(Json::as_i64);
        let (sequence, actor) = (record.entry.sequence, record.entry.actor.as_str());
        let kind = match record.entry.action.as_str() {
            "alert-status" if text("alert")? == alert.id.to_string() => format!("alert-status {sequence}"),
            "rule-added" | "rule-changed" if text("rule")? == alert.rule_id.to_string() => {
                (number("version")? == i64::from(alert.rule_version)).then(|| format!("rule {sequence}"))?
            }
            // Of one that grows its last state.
            "coverage" if is_touched(&payload, alert) => {
                format!("coverage {}", number("row").unwrap_or_default())
            }
            "start" if sequence < raised && actor == AGENT => "start".to_owned(),
            // An epoch begins with the start of its collector.
            "start" if sequence < raised => {
                let epoch = payload.get("epoch").and_then(Json::as_u64)?;
                let is_of = |at: &EventPointer| at.collector == actor && at.epoch == epoch;
                alert.events.iter().any(is_of).then(|| format!("start {actor} {epoch}"))?
            }
            _ => return None,
        };
        found.insert(kind, record)
    };
    let size = making.size();
    for record in making.files.from(0).map_err(unreadable)? {
        let record = record.map_err(unreadable)?;
        if record.entry.sequence >= size {
            break;
        }
        if CONTEXT.contains(&record.entry.action.as_str()) {
            take(record);
        }
    }
    Ok(found.into_values().collect())
}

async fn shown(session: &Session, id: &str) -> Result<AlertShown, CliError> {
    let id = alerts::full(session, id.to_lowercase()).await?;
    match session.ask_once(Verb::AlertShow(AlertShow { id })).await? {
        Answer::Alert(shown) => Ok(shown),
        _ => Err(CliError::AgentAnswer("an alert")),
    }
}

fn as_raised(shown: &AlertShown) -> Result<Alert, CliError> {
    serde_json::from_str(&shown.as_raised).map_err(|_| CliError::AgentAnswer("an alert"))
}

/// Adds an alert as it was raised, and the entry that tells of it, whose number it says.
fn add_alert(making: &mut Making, shown: AlertShown, alert: &Alert) -> Result<u64, CliError> {
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
    if !daemoneye_lib::ledger::proof::is_alert(&payload, alert, &shown.as_raised) {
        let text = format!("alert {id} was changed: it is not what ledger entry {} tells of", record.entry.sequence);
        return Err(CliError::NotProven(text));
    }
    making.entry(&record)?;
    making.proof.alert = Some(shown.as_raised);
    Ok(record.entry.sequence)
}

fn written(making: &Making, output: &Path) -> Result<Exit, CliError> {
    let verified = making.write(output)?;
    if let Some(told) = verified.told.as_ref().filter(|told| !told.gaps.is_empty()) {
        eprintln!("of {} parts of that time nothing is shown; `audit verify-proof` names them", told.gaps.len());
    }
    say_lacking(&verified);
    let (entries, events) = (making.proof.entries.len(), making.proof.events.len());
    eprintln!("{}: {entries} entries and {events} events, below the newest checkpoint", output.display());
    Ok(Exit::Ok)
}

pub(super) fn verify_proof(arguments: &VerifyProof, settings: &Settings) -> Result<Exit, CliError> {
    let read = Read::file(&arguments.file, &arguments.known)?;
    read.print(settings)?;
    let told = read.verified.told.as_ref().map_or(Exit::Ok, told::exit);
    Ok(if say_lacking(&read.verified) && read.is_held { told } else { Exit::Degraded })
}

pub(super) fn verify_evidence(arguments: &VerifyEvidence, settings: &Settings) -> Result<Exit, CliError> {
    let read = Read::file(&arguments.file, &arguments.known)?;
    if read.verified.evidence.is_none() {
        return Err(CliError::Usage(format!("{} is no evidence of an alert", arguments.file.display())));
    }
    read.print(settings)?;
    Ok(if say_lacking(&read.verified) && read.is_held { Exit::Ok } else { Exit::Degraded })
}

/// Names what evidence lacks, or may lack; whether it lacks nothing.
fn say_lacking(verified: &Verified) -> bool {
    let parts = verified.evidence.iter().flat_map(|evidence| evidence.parts.iter());
    let lacking: Vec<&Part> = parts.filter(|part| matches!(part.whole, Whole::Early | Whole::Lacking)).collect();
    for Part { name, whole, detail } in &lacking {
        let word = if *whole == Whole::Early { "cannot be judged yet" } else { "lacking" };
        say!("{name} {word}: {detail}");
    }
    lacking.is_empty()
}

/// A file that was verified, and held against what its reader kept.
struct Read {
    proof: Proof,
    verified: Verified,
    held: Option<Held>,
    /// Against all of that.
    is_held: bool,
}

impl Read {
    fn file(file: &Path, known: &Known) -> Result<Self, CliError> {
        let key = audit::signed::parse_key(&known.vkey)?;
        let kept = known.checkpoint.as_deref().map(|kept| Kept::read(kept, Some(key.name()))).transpose()?;
        let io = |source| audit::signed::not_read(file, source);
        let not_proven = |what: String| CliError::NotProven(format!("{} proves nothing: {what}", file.display()));
        let bytes = bytes_of(file).map_err(io)?;
        if bytes.len() as u64 > MAX_PROOF_BYTES {
            return Err(not_proven(format!("it has more than {MAX_PROOF_BYTES} bytes, which no proof has")));
        }
        let text = String::from_utf8(bytes).map_err(|_| not_proven("it is no text".to_owned()))?;
        let proof = Proof::of_file(&text).map_err(|fault| not_proven(fault.to_string()))?;
        let verified = proof.verify(&key).map_err(|fault| match fault.is_misuse() {
            true => CliError::Usage(format!("{}: {fault}", file.display())),
            false => not_proven(fault.to_string()),
        })?;
        let faulty = |fault: HoldFault| match fault.is_misuse() {
            true => CliError::Usage(format!("--checkpoint: {fault}")),
            false => not_proven(fault.to_string()),
        };
        let held = match &kept {
            None => None,
            Some(kept) => {
                let Chosen { note, unsigned, beside } = proof.choose(&key, &verified, kept.notes()).map_err(faulty)?;
                let note = note.as_ref().map_or_else(|| kept.newest(), |chosen| Ok(&*chosen.note))?;
                let held = proof.hold(&key, &verified, note).map_err(faulty)?;
                kept.tell(unsigned);
                tell_beside(beside);
                Some(held)
            }
        };
        Ok(Self { proof, verified, held, is_held: kept.as_ref().is_none_or(Kept::is_whole) })
    }

    fn print(&self, settings: &Settings) -> Result<(), CliError> {
        let Self { proof, verified, held, .. } = self;
        render::rows(settings.format, &told::COLUMNS, &told::rows(proof, verified, held.as_ref(), settings.format))?;
        if let Some(Held { checkpoint, behind: behind @ 1.., .. }) = held {
            eprintln!(
                "{behind} entries of the file came behind your checkpoint over {}: that they were not replaced since, only a later \
                 checkpoint of yours can tell",
                checkpoint.size
            );
        }
        Ok(())
    }
}

/// A file's bytes, or one more than any is read of; the memory for them is taken at once.
fn bytes_of(file: &Path) -> io::Result<Vec<u8>> {
    let opened = File::open(file)?;
    let length = opened.metadata()?.len().min(MAX_PROOF_BYTES);
    let mut bytes = Vec::with_capacity(usize::try_from(length).unwrap_or_default().saturating_add(1));
    opened.take(MAX_PROOF_BYTES + 1).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// What only the ledger itself can be held against.
fn tell_beside(count: u64) {
    if count > 0 {
        eprintln!(
            "nothing in the file leads to {count} of your checkpoints, so it is not held against them; `audit verify --checkpoint` holds the \
             ledger against all"
        );
    }
}

const POSITION: &str = "collector = $1 AND epoch = $2 AND seq = $3";

fn position(collector: &str, epoch: u64, number: u64) -> Vec<Value> {
    vec![value::of_text(collector), value::of_number(epoch), value::of_number(number)]
}

/// What a word names, and the condition for its rows.
fn named_events(named: &str) -> Result<(Target, &'static str, Vec<Value>), CliError> {
    if named.len() == 32 && named.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        let entity = named.to_ascii_lowercase();
        return Ok((Target::Entity(entity.clone()), "entity_id = $1", vec![value::of_text(entity)]));
    }
    let mut parts = named.rsplitn(3, ':');
    let (number, epoch) = (parts.next().map(str::parse), parts.next().map(str::parse));
    match (number, epoch, parts.next()) {
        (Some(Ok(number)), Some(Ok(epoch)), Some(collector)) => {
            let pointer = EventPointer { collector: collector.to_owned(), epoch, number };
            Ok((Target::Event(pointer), POSITION, position(collector, epoch, number)))
        }
        _ => Err(CliError::Usage(format!(
            "{named:?} names no event: give an entity_id (32 hex digits) or a position such as procmond:3:18211"
        ))),
    }
}
