//! The store against the ledger, for `audit verify`.

use std::path::Path;

use daemoneye_lib::proto::{AuditCompare, Row, Value, operator_request::Verb};
use serde_json::Value as Json;

use super::data::{document, watch_on};
use super::health;
use crate::agent::Session;
use crate::error::CliError;
use crate::render::{self, Unit};
use crate::settings::Settings;
use crate::value::{self, say};

/// What was counted, in the order of [`ask`].
pub(super) const COLUMNS: [&str; 19] = [
    "ranges",
    "events",
    "removed",
    "pending",
    OVERDUE,
    LOST,
    RESTORED,
    UNPROVEN,
    UNCOVERED,
    "alerts",
    "alerts_growing",
    "alerts_unproven",
    "alerts_removed",
    "coverage",
    "lifetimes",
    "lifetimes_unproven",
    "rows_pending",
    ROWS_OVERDUE,
    ROWS_UNPROVEN,
];
/// Told by collector, and counted here.
const OVERDUE: &str = "overdue";
const LOST: &str = "lost";
const IS_OVERDUE: &str = "are not in the store. Either its agent did not take them and they are in the collector's log still, or they were \
                          deleted and the place that the stream had reached was set back; let the agent catch up and compare again";
const IS_LOST: &str = "were lost with the collector's log before the agent took them: it was full (wal.max_bytes), or it was damaged. The \
                       coverage-gap entries of the ledger say when";
const RESTORED: &str = "restored";
const UNPROVEN: &str = "unproven";
/// Told by stream, and counted here.
const UNCOVERED: &str = "uncovered";
const PROBLEM: [&str; 3] = ["place", "problem", "advice"];

/// Removals that are named on the screen; the ledger has all of them.
const REMOVALS: usize = 10;
const ROWS_OVERDUE: &str = "rows_overdue";
const ROWS_UNPROVEN: &str = "rows_unproven";
/// Alerts and rows of coverage older than the ledger that are named on the screen.
const OLDER: usize = 10;

/// What was counted, in the order of [`COLUMNS`].
pub(super) struct Compared {
    pub(super) values: Vec<Value>,
    /// What keeps it from being proven as a whole, in a word.
    pub(super) lacks: Option<&'static str>,
}

/// Compares, and returns what was counted. Problems are printed, and make an error of it. `ledger` is the directory that was verified.
pub(super) async fn ask(settings: &Settings, ledger: &Path) -> Result<Compared, CliError> {
    let session = Session::open_beside(settings, Some(ledger)).await?;
    let (report, _) = health::report(&session).await?;
    let own = report.pointer("/ledger/dir").and_then(Json::as_str).filter(|own| !own.is_empty());
    if let Some(own) = own.filter(|_| settings.store.is_none()) {
        refuse_another(ledger, Path::new(own))?;
    }
    let verb = Verb::AuditCompare(AuditCompare {});
    let shown = watch_on(session, verb, "comparing events", Unit::Rows).await?;
    let found = document(&shown)?;
    let compared = found.get("ledger").and_then(Json::as_str).unwrap_or_default();
    refuse_another(ledger, Path::new(compared))?;
    tell_removals(&found);
    tell_perhaps(&found);
    let overdue = tell_missing(&found, OVERDUE, IS_OVERDUE);
    let lost = tell_missing(&found, LOST, IS_LOST);
    let restored = tell_restored(&found);
    let uncovered = tell_uncovered(&found);
    tell_older(&found);
    tell_waiting(&found);
    let problems = found.get("problems").and_then(Json::as_array).map(Vec::as_slice).unwrap_or_default();
    let number = |name: &str| found.get(name).and_then(Json::as_u64).unwrap_or_default();
    if !problems.is_empty() {
        let text =
            |problem: &Json, name: &str| problem.get(name).and_then(Json::as_str).unwrap_or_default().to_owned();
        let row = |problem: &Json| Row {
            values: ["place", "what", "advice"].map(|name| value::of_text(text(problem, name))).to_vec(),
        };
        // Whoever does not read the rows is told by the code.
        let _unread = render::rows(settings.format, &PROBLEM, &problems.iter().map(row).collect::<Vec<_>>());
        let count = number("further_problems").saturating_add(problems.len() as u64);
        let what = format!("the store is not what the ledger says, in {count} places; keep both as they are");
        return Err(CliError::NotProven(what));
    }
    if !shown.sound {
        return Err(CliError::Unreadable("the comparison did not reach its end; run it again".to_owned()));
    }
    let count = |name: &str| match name {
        OVERDUE => overdue,
        LOST => lost,
        RESTORED => restored,
        UNCOVERED => uncovered,
        _ => number(name),
    };
    let values = COLUMNS.map(|name| value::of_number(count(name))).to_vec();
    let words = [
        (overdue, "events_overdue"),
        (lost, "events_lost"),
        (restored, "store_restored"),
        (uncovered, "events_uncovered"),
        (number(UNPROVEN), "events_unproven"),
        (number(ROWS_OVERDUE), ROWS_OVERDUE),
        (number(ROWS_UNPROVEN), ROWS_UNPROVEN),
    ];
    let lacks = words.into_iter().find(|(count, _)| *count > 0).map(|(_, word)| word);
    Ok(Compared { values, lacks })
}

/// An agent compares with its own ledger.
fn refuse_another(ledger: &Path, own: &Path) -> Result<(), CliError> {
    if is_same(ledger, own) {
        return Ok(());
    }
    Err(CliError::Usage(format!(
        "the agent compares what it has stored with its own ledger in {}, and {} was verified; leave out --audit-dir, or name a copied \
         store with --store",
        own.display(),
        ledger.display()
    )))
}

fn listed<'a>(found: &'a Json, name: &str) -> &'a [Json] {
    found.get(name).and_then(Json::as_array).map(Vec::as_slice).unwrap_or_default()
}

/// Names the events that no range of the ledger covers; how many there are.
fn tell_uncovered(found: &Json) -> u64 {
    let mut events = found.get("further_uncovered").and_then(Json::as_u64).unwrap_or_default();
    for of in listed(found, UNCOVERED) {
        let text = |name: &str| of.get(name).and_then(Json::as_str).unwrap_or_default();
        let number = |name: &str| of.get(name).and_then(Json::as_u64).unwrap_or_default();
        let time = |name: &str| of.get(name).and_then(Json::as_i64).map(value::timestamp).unwrap_or_default();
        let collector = text("collector");
        let why = match text("why") {
            "older" => {
                "they stand before all that this ledger covers of its stream: whether they were changed, removed or put in later, only \
                 the ledger before this one can tell (--audit-dir)"
            }
            "behind" => {
                "they are dated more than ten minutes behind the ledger's last entry: it could not be written, was copied long before the \
                 store, or its end was cut off (hold it against a checkpoint that was kept: --checkpoint)"
            }
            "unbegun" => {
                "they are of a run that this ledger does not tell of: its disk was full then, or they were put in"
            }
            _ => "it writes no ranges into this ledger: whoever can write the store can have put them in",
        };
        let named: Vec<&str> = listed(of, "named").iter().filter_map(Json::as_str).collect();
        say!(
            "unproven: {} events of {collector} from {} to {}, dated {} to {}, {} of them since this ledger began; {why}. The first \
             that were read: {}",
            number("events"),
            text("first"),
            text("last"),
            time("from_us"),
            time("to_us"),
            number("dated_since"),
            named.join(", "),
        );
        events = events.saturating_add(number("events"));
    }
    events
}

/// Names alerts and rows of coverage that may be older than the ledger.
fn tell_older(found: &Json) {
    let rows = listed(found, "older_rows");
    for row in rows.iter().take(OLDER) {
        let place = row.get("place").and_then(Json::as_str).unwrap_or_default();
        let time = row.get("time_us").and_then(Json::as_i64).map(value::timestamp).unwrap_or_default();
        say!("unproven: {place}, dated {time}, before this ledger began, and no entry tells of it");
    }
    let further = found.get("further_older_rows").and_then(Json::as_u64).unwrap_or_default();
    let more = further.saturating_add(rows.len().saturating_sub(OLDER) as u64);
    if more > 0 {
        say!("unproven: {more} more alerts and rows of coverage from before this ledger began");
    }
}

/// Says since when entries about alerts and rows of coverage wait that the ledger should have long ago.
fn tell_waiting(found: &Json) {
    let count = found.get(ROWS_OVERDUE).and_then(Json::as_u64).unwrap_or_default();
    let since = found.get("rows_overdue_since_us").and_then(Json::as_i64).map(value::timestamp).unwrap_or_default();
    if count > 0 {
        say!(
            "overdue: {count} entries about alerts and rows of coverage wait in the agent's outbox since {since}, and the ledger has gone on \
             for longer than their way into it takes: until it has them they are only what the store says. Either the agent did not run, or \
             somebody keeps them back; let it run beside procmond and compare again"
        );
    }
}

/// Names the events of `kind` that the ledger covers and the store does not have; how many there are.
fn tell_missing(found: &Json, kind: &str, why: &str) -> u64 {
    let mut events = 0_u64;
    for of in listed(found, kind) {
        let text = |name: &str| of.get(name).and_then(Json::as_str).unwrap_or_default();
        let count = of.get("events").and_then(Json::as_u64).unwrap_or_default();
        let since = of.get("since_us").and_then(Json::as_i64).map(value::timestamp).unwrap_or_default();
        let (collector, first, last) = (text("collector"), text("first"), text("last"));
        say!("{kind}: {count} events of {collector} from {first} to {last}, recorded since {since}, {why}");
        events = events.saturating_add(count);
    }
    events
}

/// Says where the store is older than the ledger; how many events and rows that is about.
fn tell_restored(found: &Json) -> u64 {
    let mut all = 0_u64;
    for of in listed(found, RESTORED) {
        let number = |name: &str| of.get(name).and_then(Json::as_u64);
        let [events, rows] = ["events", "rows"].map(|name| number(name).unwrap_or_default());
        all = all.saturating_add(events).saturating_add(rows);
        if of.get("is_copy").and_then(Json::as_bool) == Some(true) {
            say!(
                "older: this copy of a store is older than the ledger: it knows nothing from ledger entry {} on. {rows} alerts and rows of \
                 coverage that the ledger tells of since then are not there, or are as they were. If nothing was copied then, they were \
                 deleted; hold a newer copy against it",
                number("since").unwrap_or_default(),
            );
            continue;
        }
        let entry = number("entry").map_or_else(|| "an entry that waits".to_owned(), |entry| format!("entry {entry}"));
        let time = of.get("time_us").and_then(Json::as_i64).map(value::timestamp).unwrap_or_default();
        say!(
            "restored: the store is older than the ledger: it was put back to a copy from before ledger entry {}, as {entry} of {time} \
             says. {events} events and {rows} alerts and rows of coverage that the ledger tells of since then are not there, or are as \
             they were. If nobody restored it then, they were deleted; if somebody did, write down both entries with a checkpoint",
            number("since").unwrap_or_default(),
        );
    }
    all
}

/// Whether both name one directory; one that cannot be looked at has only its name.
fn is_same(one: &Path, other: &Path) -> bool {
    let place = |path: &Path| path.canonicalize().or_else(|_| std::path::absolute(path)).unwrap_or_default();
    place(one) == place(other)
}

/// Events that retention may have taken or somebody else.
fn tell_perhaps(found: &Json) {
    let events = found.get("perhaps_removed").and_then(Json::as_u64).unwrap_or_default();
    if events > 0 {
        say!(
            "unproven: {events} events are not in the store. The ledger tells of more stretches that retention took than are remembered, \
             far more than a collector's starts make: these lie between them, and its events-removed entries name them or not"
        );
    }
}

/// What retention took, as the ledger says: whoever reads it knows whether they asked for that.
fn tell_removals(found: &Json) {
    let removals = found.get("removals").and_then(Json::as_array).map(Vec::as_slice).unwrap_or_default();
    for removal in removals.iter().rev().take(REMOVALS).rev() {
        let text = |name: &str| removal.get(name).and_then(Json::as_str).unwrap_or_default();
        let number = |name: &str| removal.get(name).and_then(Json::as_u64);
        let entry = number("entry").map_or_else(|| "an entry that waits".to_owned(), |entry| format!("entry {entry}"));
        let time = removal.get("time_us").and_then(Json::as_i64).map(value::timestamp).unwrap_or_default();
        let events = number("events").unwrap_or_default();
        say!("retention, {time}, ledger {entry}: {events} events {}", text("why"));
    }
    let further = found.get("further_removals").and_then(Json::as_u64).unwrap_or_default();
    let older = further.saturating_add(removals.len().saturating_sub(REMOVALS) as u64);
    if older > 0 {
        say!(
            "{older} older removals: daemoneye-cli query \"SELECT time, payload FROM audit_entries WHERE action = 'events-removed'\""
        );
    }
}
