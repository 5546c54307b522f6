//! What a file has proven, as rows for a person or a script.

use daemoneye_lib::exit::Exit;
use daemoneye_lib::ledger::proof::{Held, Part, Proof, Role, Target, Told, Verified, Whole};
use daemoneye_lib::proto::{Row, Value};
use serde_json::Value as Json;

use crate::render::Format;
use crate::value;

pub(super) const COLUMNS: [&str; 6] = ["what", "entry", "time", "role", "detail", "payload"];

/// Characters of a payload that a person is shown; a script gets all of it.
const SHOWN: usize = 60;

/// First what it is below and about, then what was found.
pub(super) fn rows(proof: &Proof, verified: &Verified, held: Option<&Held>, format: Format) -> Vec<Row> {
    let checkpoint = &verified.checkpoint;
    let detail = format!("{}, {} entries", checkpoint.origin, checkpoint.size);
    let mut rows = vec![row("checkpoint", None, String::new(), detail)];
    rows.extend(held.map(kept));
    rows.push(target(proof));
    if let Some(alert) = &verified.alert {
        let detail = format!("{} ({}): {}", alert.id, alert.severity.as_str(), alert.title);
        rows.push(row("alert", None, value::timestamp(alert.time_us), detail));
        if !proof.rule.is_empty() {
            let detail = format!("{} version {}, hash {}", alert.rule_id, alert.rule_version, alert.rule_hash);
            rows.push(row("rule", None, String::new(), detail));
        }
    }
    let evidence = verified.evidence.as_ref();
    rows.extend(evidence.iter().flat_map(|evidence| evidence.parts.iter().map(part)));
    let role = |roles: Option<&Vec<Role>>, place: usize| roles.and_then(|roles| roles.get(place)).copied();
    for (place, (event, at)) in proof.events.iter().zip(&verified.events).enumerate() {
        let text = |name: &str| event.row.get(name).and_then(Json::as_str).unwrap_or_default().to_owned();
        let named = ["event_type", "name", "command_line", "entity_id"].map(text);
        let detail = format!("{}:{}:{} {}", at.collector, at.epoch, at.number, named.join(" "));
        let role = role(evidence.map(|evidence| &evidence.events), place);
        rows.push(with_role("event", Some(event.entry), text("time"), role.map(Role::as_str), detail));
    }
    rows.extend(verified.told.iter().flat_map(told));
    let is_shown = |place: usize| verified.told.as_ref().is_none_or(|told| told.others.binary_search(&place).is_ok());
    for (place, entry) in proof.entries.iter().enumerate().filter(|(place, _)| is_shown(*place)) {
        let role = role(evidence.map(|evidence| &evidence.entries), place);
        // Those that show only that none is missing would bury the others.
        if role == Some(Role::Run) {
            continue;
        }
        let (detail, at) = (format!("{} by {}", entry.action, entry.actor), time(entry.timestamp_ms));
        let mut row = with_role("entry", Some(entry.sequence), at, role.map(Role::as_str), detail);
        if let Some(payload) = row.values.last_mut() {
            *payload = value::of_text(shown(&entry.payload, format));
        }
        rows.push(row);
    }
    rows
}

fn kept(held: &Held) -> Row {
    let Held { checkpoint, below, behind } = held;
    let detail = format!(
        "{}, {} entries: the ledger goes on from the checkpoint that was given; below it {below} entries of the file, behind it {behind}",
        checkpoint.origin, checkpoint.size
    );
    row("kept", None, String::new(), detail)
}

pub(super) fn time(ms: i64) -> String {
    ms.checked_mul(1_000).map(value::timestamp).unwrap_or_default()
}

fn part(part: &Part) -> Row {
    let whole = match part.whole {
        Whole::Complete => "complete",
        Whole::Early => "cannot be judged yet",
        Whole::Lacking => "lacking",
        Whole::Unknown => "cannot be judged",
    };
    with_role("part", None, String::new(), Some(part.name), format!("{whole}: {}", part.detail))
}

fn row(what: &str, entry: Option<u64>, time: String, detail: String) -> Row {
    with_role(what, entry, time, None, detail)
}

fn with_role(what: &str, entry: Option<u64>, time: String, role: Option<&str>, detail: String) -> Row {
    let entry = entry.map_or_else(Value::default, value::of_number);
    let role = role.unwrap_or_default();
    let [what, time, role, detail] = [what.to_owned(), time, role.to_owned(), detail].map(value::of_text);
    Row { values: vec![what, entry, time, role, detail, Value::default()] }
}

/// What an entry says, as far as somebody reads it.
fn shown(payload: &str, format: Format) -> String {
    match payload.char_indices().nth(SHOWN) {
        Some((end, _)) if matches!(format, Format::Table | Format::Line) => {
            format!("{}…", payload.get(..end).unwrap_or_default())
        }
        _ => payload.to_owned(),
    }
}

fn target(proof: &Proof) -> Row {
    let from = match &proof.target {
        Target::Period(period) => time(period.from_ms),
        _ => String::new(),
    };
    let detail = match &proof.target {
        Target::Alert(id) => format!("alert {id}"),
        Target::Entity(id) => {
            format!("{} events of process {id}; that it had no others is not shown", proof.events.len())
        }
        Target::Entry(sequence) => format!("entry {sequence}"),
        Target::Event(at) => format!("event {}:{}:{}", at.collector, at.epoch, at.number),
        Target::Evidence(id) => format!("alert {id} and what belongs to it"),
        Target::Period(period) => format!("all that the ledger says until {}", time(period.to_ms)),
    };
    row("target", None, from, detail)
}

/// Of a time: a script that asks for silence is not to take anything else for it.
pub(super) fn exit(told: &Told) -> Exit {
    match (told.is_silence(), told.gaps.is_empty()) {
        (true, _) => Exit::Ok,
        (false, true) => Exit::Failure,
        (false, false) => Exit::Degraded,
    }
}

/// What the ledger says of a period: each number by itself, then what it does not say.
fn told(told: &Told) -> Vec<Row> {
    let silence = match (told.is_silence(), told.gaps.is_empty()) {
        (true, _) => "yes: somebody watched all the time, and there was no event, no loss and no alert",
        (false, true) => "no: somebody watched all the time, and something happened",
        (false, false) => "not shown: see the gaps, in which nobody watched or something was not seen",
    };
    let mut rows = vec![row("silence", None, String::new(), silence.to_owned())];
    let counted = [
        ("entries", told.entries),
        ("heartbeats", told.heartbeats),
        ("events", told.events),
        ("lost", told.lost),
        ("errors", told.errors),
        ("event-ranges", told.ranges),
        ("alerts", told.alerts),
    ];
    rows.extend(counted.map(|(what, count)| row(what, None, String::new(), count.to_string())));
    for gap in &told.gaps {
        rows.push(row("gap", None, time(gap.from_ms), format!("until {}: {}", time(gap.to_ms), gap.why)));
    }
    rows
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_script_gets_all_of_a_payload_and_a_person_its_beginning() {
        let payload = format!("{{\"rule\":\"{}\"}}", "ä".repeat(100));
        assert_eq!(shown(&payload, Format::Json), payload);
        let short = shown(&payload, Format::Table);
        assert!(short.chars().count() == SHOWN + 1 && short.ends_with('…'), "{short}");
        assert_eq!(shown("{}", Format::Line), "{}");
    }
}
