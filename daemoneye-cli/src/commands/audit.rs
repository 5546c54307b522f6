//! `audit`: reads the ledger's files themselves, so a wrong answer of the agent cannot hide a change. Where it asks the agent
//! for their directory, it says so: an agent that was taken over may name another one.

mod export;
mod kept;
pub(super) mod signed;

use std::fmt::Display;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use daemoneye_lib::exit::Exit;
use daemoneye_lib::ledger::note::VerifierKey;
use daemoneye_lib::ledger::{Demands, LedgerError, LedgerFault, LedgerSummary, SetBack, SetBacks, verify_with};
use daemoneye_lib::proto::{Empty, Row, operator_request::Verb, operator_response::Answer};
use daemoneye_lib::segment::{DurableNote, SegmentName, list};
use serde_json::Value as Json;

use super::data::document;
use super::{compare, health, proof};
use crate::agent::Session;
use crate::args::{Audit, LedgerDir, Verify};
use crate::error::CliError;
use crate::offline;
use crate::owner;
use crate::render::{self, Progress, Unit};
use crate::settings::Settings;
use crate::value::{self, say};

/// Columns of a ledger in which every entry verifies, and of one in which `entry` is the first that does not.
const GOOD: [&str; 11] = [
    "result",
    "entries",
    "first",
    "last",
    "head",
    "root",
    "checkpoints",
    "signed_entries",
    "segments",
    "set_backs",
    "directory",
];
const ACCEPTED: [&str; 6] = ["collector", "had_entries", "had_hash", "has_entries", "has_hash", "fell"];
const BAD: [&str; 6] = ["result", "entry", "file", "offset", "problem", "directory"];

pub(super) async fn run(verb: Audit, settings: &Settings) -> Result<Exit, CliError> {
    match verb {
        Audit::Verify(verify) => run_verify(verify, settings).await,
        Audit::Key(key) => signed::key(&directory_of(key.ledger, settings).await?, settings.format),
        Audit::Checkpoint(checkpoint) => {
            signed::checkpoint(&directory_of(checkpoint.ledger, settings).await?, checkpoint.qr, settings.format)
        }
        Audit::Export(export) => {
            export::tiles(&directory_of(export.ledger, settings).await?, &export.tiles, settings.format)
        }
        Audit::Prove(arguments) => proof::prove(*arguments, settings).await,
        Audit::AcceptLedger => accept(settings).await,
        Audit::RotateKey => signed::rotate(settings).await,
        Audit::VerifyProof(arguments) => proof::verify_proof(&arguments, settings),
    }
}

/// Prints which ledgers were accepted, and how far they had been and are.
async fn accept(settings: &Settings) -> Result<Exit, CliError> {
    let session = Session::open(settings).await?;
    let answer = session.ask_once(Verb::AuditAcceptLedger(Empty {})).await?;
    session.close().await;
    let Answer::Data(shown) = answer else { return Err(CliError::AgentAnswer("a document")) };
    let found = document(&shown)?;
    let row = |of: &Json| {
        let text = |name: &str| value::of_text(of.get(name).and_then(Json::as_str).unwrap_or_default().to_owned());
        let number = |name: &str| value::of_number(of.get(name).and_then(Json::as_u64).unwrap_or_default());
        let fell = of.get("fell_us").and_then(Json::as_i64).map(value::timestamp).unwrap_or_default();
        let [had, had_hash, has, has_hash] =
            [number("had_entries"), text("had_hash"), number("has_entries"), text("has_hash")];
        Row { values: vec![text("collector"), had, had_hash, has, has_hash, value::of_text(fell)] }
    };
    let ledgers = found.get("ledgers").and_then(Json::as_array).map(Vec::as_slice).unwrap_or_default();
    render::rows(settings.format, &ACCEPTED, &ledgers.iter().map(row).collect::<Vec<_>>())?;
    Ok(Exit::Ok)
}

async fn run_verify(verify: Verify, settings: &Settings) -> Result<Exit, CliError> {
    // A directory without a store would compare as well as one whose store was deleted.
    settings.store.as_deref().map(offline::find).transpose()?;
    let compares = verify.rows || settings.store.is_some();
    let key = verify.vkey.as_deref().map(signed::parse_key).transpose()?;
    let directory = directory_of(verify.ledger, settings).await?;
    let wanted = signed::origin(&directory);
    let checkpoint = verify.checkpoint.as_deref();
    let mut keys = checkpoint.map_or_else(Vec::new, |_| signed::keys_of(&directory));
    keys.extend(key.clone());
    let (mut held, mut verified) = walked(&directory, checkpoint, wanted.as_deref(), (key.as_ref(), keys))?;
    let lacks_keys = verified.as_ref().is_ok_and(|summary| summary.unlisted_keys);
    if lacks_keys && held.as_ref().is_some_and(signed::Held::has_unsigned) {
        // The file of keys has not all that the entries name.
        let keys = signed::entered_keys(&directory).into_iter().chain(key.clone()).collect();
        (held, verified) = walked(&directory, checkpoint, wanted.as_deref(), (key.as_ref(), keys))?;
    }
    let summary = match verified {
        Ok(summary) => summary,
        Err(error) if error.exit() == Exit::Usage => return Err(CliError::Usage(error.what.to_string())),
        Err(error) if error.exit() == Exit::Unreadable => return Err(unreadable(&directory, &error)),
        Err(error) => {
            if let (LedgerFault::CorruptFork { size, .. }, Some(held)) = (&error.what, &held)
                && error.file == directory
            {
                held.tell_fork(*size);
            }
            // Whoever does not read the row is told by the code.
            let _unread = render::rows(settings.format, &BAD, &[bad_row(&error, &directory)]);
            return Err(CliError::Tampered(error));
        }
    };
    if summary.entries == 0 {
        let text = format!(
            "the ledger in {} has no entry; name the directory of another with --audit-dir",
            directory.display()
        );
        return Err(CliError::NotFound(text));
    }
    tell_unsigned(&summary);
    tell_set_backs(&summary.set_backs);
    if let Some(held) = &held {
        held.tell();
    }
    let (mut result, mut exit) = judge(&summary, &directory)?;
    let short = held.as_ref().and_then(|held| held.shortfall(key.as_ref()));
    if let Some(word) = short.filter(|_| exit == Exit::Ok) {
        (result, exit) = (word, Exit::Degraded);
    }
    let compared = if compares { Some(compare::ask(settings, &directory).await?) } else { None };
    if let Some(word) = compared.as_ref().and_then(|compared| compared.lacks).filter(|_| exit == Exit::Ok) {
        (result, exit) = (word, Exit::Degraded);
    }
    let (mut columns, mut row) = (GOOD.to_vec(), row(result, &summary, &directory));
    if let Some(kept) = summary.kept_entries {
        columns.push("kept_entries");
        row.values.push(value::of_number(kept));
    }
    if let Some(compared) = compared {
        columns.extend(compare::COLUMNS);
        row.values.extend(compared.values);
    }
    render::rows(settings.format, &columns, &[row])?;
    Ok(exit)
}

/// What a ledger is held against, and what came of it.
type Walked = (Option<signed::Held>, Result<LedgerSummary, LedgerError>);

/// Walks the ledger once. `known`: the key that is trusted, and those by which kept checkpoints are judged.
fn walked(
    directory: &Path,
    checkpoint: Option<&Path>,
    wanted: Option<&str>,
    (key, known): (Option<&VerifierKey>, Vec<VerifierKey>),
) -> Result<Walked, CliError> {
    let held = checkpoint.map(|path| signed::Held::read(path, wanted, known)).transpose()?;
    let mut demands = Demands { key: key.cloned(), ..Demands::default() };
    if let Some(held) = &held {
        held.demand(&mut demands);
    }
    let mut progress = Progress::new("verifying", Unit::Bytes);
    let verified = verify_with(directory, &demands, |at| progress.show(at.bytes, at.total_bytes));
    Ok((held, verified))
}

/// How far signatures reach, the reader's own among them.
fn tell_unsigned(summary: &LedgerSummary) {
    if let Some(kept) = summary.kept_entries {
        let behind = summary.entries.saturating_sub(kept);
        eprintln!(
            "the ledger goes on from the checkpoint that was given, which is over {kept} entries; {behind} came behind it: that they were \
             not replaced since, only a later checkpoint of yours can tell"
        );
    }
    let signed = summary.signed_entries.max(summary.kept_entries.unwrap_or_default());
    let unsigned = summary.entries.saturating_sub(signed);
    if unsigned > 0 {
        eprintln!("{unsigned} entries lie behind the last checkpoint, so no signature is over them yet");
    }
}

/// Times are not judged, but whoever reads them has to know where they go back.
fn tell_set_backs(found: &SetBacks) {
    let Some(first) = &found.first else { return };
    let shown = |step: &SetBack| {
        let time = |ms: i64| value::timestamp(ms.saturating_mul(1_000));
        format!("at entry {} from {} to {}", step.sequence, time(step.from_ms), time(step.to_ms))
    };
    let longest = found.longest.as_ref().filter(|longest| *longest != first);
    let longest = longest.map_or_else(String::new, |step| format!("; the longest {}", shown(step)));
    eprintln!("the collector's clock was set back {} times, first {}{longest}", found.count, shown(first));
}

/// What a ledger is in which every entry verifies.
fn judge(summary: &LedgerSummary, directory: &Path) -> Result<(&'static str, Exit), CliError> {
    let end = judge_end(directory)?;
    if !summary.unsigned.has_key {
        eprintln!(
            "every entry verifies, but none of them names a key, so nothing of this ledger is signed and anybody who could write it may have \
             written all of it: it is of a build that signed nothing, or was made to look like one"
        );
        return Ok(("plain_chain", Exit::Degraded));
    }
    if summary.unsigned.lacks_checkpoint() {
        let lacking = if summary.unsigned.has_checkpoint {
            "its last checkpoint is too long ago"
        } else {
            "it has no checkpoint"
        };
        eprintln!(
            "every entry verifies, but {lacking}: procmond signs each minute and every thousand entries. It could not (its log, the alert \
             \"Audit ledger damaged or not signed\" and `ledger-damage` entries say so), or checkpoints were taken away and what they were \
             over was replaced, or the ledger was copied slowly while it was written, its checkpoints first; verify it with a newer \
             --checkpoint that left the host"
        );
        return Ok(("unsigned_end", Exit::Degraded));
    }
    match end {
        Exit::Ok if summary.unsynced_tiles > 0 => {
            eprintln!(
                "every entry verifies, but {} tiles do not fit and were not noted as synced; after a power failure procmond makes \
                 them again with its next checkpoints",
                summary.unsynced_tiles
            );
            Ok(("tiles_not_synced", Exit::Degraded))
        }
        Exit::Ok => Ok(("verified", Exit::Ok)),
        exit => Ok(("end_unknown", exit)),
    }
}

/// The chain cannot know of itself that its end is missing; the writer's note of what it synced tells, when it is there.
fn judge_end(directory: &Path) -> Result<Exit, CliError> {
    let name = SegmentName::ledger();
    if DurableNote::read(directory, &name).map_err(|error| unreadable(directory, &error))?.is_some() {
        return Ok(Exit::Ok);
    }
    eprintln!(
        "every entry verifies, but {} is missing or damaged, so nobody can tell whether entries were cut off the end; compare \
         the number and the head with a copy from before",
        DurableNote::path(directory, &name).display()
    );
    Ok(Exit::Degraded)
}

/// A directory that cannot be read is neither absent nor changed.
fn look(directory: &Path) -> Result<(), CliError> {
    match std::fs::read_dir(directory) {
        Ok(_) if is_data_dir(directory) => {
            let (data, ledger) = (directory.display(), directory.join("audit"));
            let text = format!("{data} is a data directory and no ledger; name --audit-dir {}", ledger.display());
            Err(CliError::NotFound(text))
        }
        Ok(_) => Ok(()),
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => {
            let text = format!("there is no ledger in {}; name its directory with --audit-dir", directory.display());
            Err(CliError::NotFound(text))
        }
        Err(error) => Err(unreadable(directory, &error)),
    }
}

fn is_data_dir(directory: &Path) -> bool {
    let is_ledger = list(directory, &SegmentName::ledger()).is_ok_and(|files| !files.is_empty());
    !is_ledger && directory.join("audit").is_dir()
}

fn unreadable(directory: &Path, error: &dyn Display) -> CliError {
    CliError::Unreadable(format!(
        "cannot read the ledger in {}: {error}\n{}; verify with sudo, or name a copy with --audit-dir",
        directory.display(),
        owner::of(directory)
    ))
}

fn bad_row(error: &LedgerError, directory: &Path) -> Row {
    let result = if error.exit() == Exit::Tampered { "tampered" } else { "not_verified" };
    Row {
        values: vec![
            value::of_text(result),
            value::of_number(error.sequence),
            value::of_text(error.file.display().to_string()),
            value::of_number(error.offset),
            value::of_text(error.what.to_string()),
            value::of_text(directory.display().to_string()),
        ],
    }
}

fn row(result: &str, summary: &LedgerSummary, directory: &Path) -> Row {
    let time = |ms: Option<i64>| ms.and_then(|ms| ms.checked_mul(1_000)).map(value::timestamp).unwrap_or_default();
    let hex = |hash: &[u8; 32]| hash.iter().fold(String::new(), |hex, byte| format!("{hex}{byte:02x}"));
    Row {
        values: vec![
            value::of_text(result),
            value::of_number(summary.entries),
            value::of_text(time(summary.first_ms)),
            value::of_text(time(summary.last_ms)),
            value::of_text(hex(&summary.head)),
            // A plain chain has none.
            value::of_text(summary.root.as_ref().map(hex).unwrap_or_default()),
            value::of_number(summary.checkpoints),
            value::of_number(summary.signed_entries),
            value::of_number(summary.segments),
            value::of_number(summary.set_backs.count),
            value::of_text(directory.display().to_string()),
        ],
    }
}

/// A directory that is there.
pub(super) async fn directory_of(named: LedgerDir, settings: &Settings) -> Result<PathBuf, CliError> {
    let directory = match named.audit_dir {
        Some(directory) => directory,
        None => usual_directory(settings).await?,
    };
    look(&directory)?;
    Ok(directory)
}

/// A directory of the settings, else the one that the running agent's collector writes, else the default one.
async fn usual_directory(settings: &Settings) -> Result<PathBuf, CliError> {
    if let Some(store) = &settings.store {
        return Ok(store.join("audit"));
    }
    if settings.data_dir_is_given {
        return Ok(settings.data_dir()?.join("audit"));
    }
    let session = match Session::open(settings).await {
        Ok(session) => session,
        Err(error) if error.is_away() => return Ok(settings.data_dir()?.join("audit")),
        Err(error) => return Err(error),
    };
    let (report, _) = health::report(&session).await?;
    session.close().await;
    let usual = settings.data_dir().map(|data| data.join("audit"));
    match ledger_dir(&report) {
        Some(directory) => {
            if usual.is_ok_and(|usual| usual != directory) {
                say!("the agent says that its collector's ledger is in {}", directory.display());
            }
            Ok(directory)
        }
        None => usual,
    }
}

/// Where the report says that the collector writes the ledger.
fn ledger_dir(report: &Json) -> Option<PathBuf> {
    let text = |pointer: &str| report.pointer(pointer).and_then(Json::as_str).filter(|path| !path.is_empty());
    let named = text("/ledger/dir").map(PathBuf::from);
    named.or_else(|| text("/data_dir").map(|data| PathBuf::from(data).join("audit")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn the_ledger_is_where_the_collector_writes_it_else_in_the_agents_data_directory() {
        let both = json!({"data_dir": "/d", "ledger": {"dir": "/elsewhere/audit"}});
        assert_eq!(ledger_dir(&both), Some(PathBuf::from("/elsewhere/audit")));
        let away = json!({"data_dir": "/d", "ledger": null});
        assert_eq!(ledger_dir(&away), Some(PathBuf::from("/d/audit")));
        assert_eq!(ledger_dir(&json!({})), None);
    }
}
