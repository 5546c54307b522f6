//! What is signed of the ledger: its key, its newest checkpoint, and the hand-over to a new key.

use std::io;
use std::path::{Path, PathBuf};

use daemoneye_lib::exit::Exit;
use daemoneye_lib::ledger::LedgerFiles;
use daemoneye_lib::ledger::checkpoint::Checkpoint;
use daemoneye_lib::ledger::kept::{KeptFork, KeptNote, KeptSummary, hold_kept};
use daemoneye_lib::ledger::keys::{CREATED, KeyEntry};
use daemoneye_lib::ledger::note::VerifierKey;
use daemoneye_lib::ledger::notes::{checkpoint_file, keys_file, read_text};
use daemoneye_lib::proto::{Empty, Row, operator_request::Verb, operator_response::Answer};
use qrcode::render::unicode::Dense1x2;
use qrcode::{EcLevel, QrCode};

use super::kept::{self, MAX_NOTES, Notes};
use super::unreadable;
use crate::agent::Session;
use crate::error::CliError;
use crate::render::{self, Format, Output, Progress, Unit};
use crate::settings::Settings;
use crate::value;

/// Prints the key that signs now, and nothing else where a person or a file is to have it.
pub(super) fn key(directory: &Path, format: Format) -> Result<Exit, CliError> {
    let text = read_text(&keys_file(directory)).map_err(|error| unreadable(directory, &error))?.unwrap_or_default();
    let newest = text.lines().last().and_then(|line| line.parse::<VerifierKey>().ok());
    let newest = newest.ok_or_else(|| {
        CliError::NotFound(format!(
            "the ledger in {} has no key; procmond makes one at its next start",
            directory.display()
        ))
    })?;
    if is_for_a_script(format) {
        let key = newest.to_string();
        render::rows(format, &["vkey"], &[Row { values: vec![value::of_text(key)] }])?;
        return Ok(Exit::Ok);
    }
    Output::stdout().print(&format!("{newest}\n"))?;
    Ok(Exit::Ok)
}

/// Both print what is kept as it is, where nobody asks for another shape.
const fn is_for_a_script(format: Format) -> bool {
    matches!(format, Format::Csv | Format::Json | Format::JsonLines)
}

/// Prints the newest checkpoint as it is, or as a code.
pub(super) fn checkpoint(directory: &Path, qr: bool, format: Format) -> Result<Exit, CliError> {
    let note = newest_checkpoint(directory)?;
    if !qr && is_for_a_script(format) {
        let known = Checkpoint::dangerous_unverified(&note).map_err(|error| unreadable(directory, &error))?;
        let root = known.root.iter().fold(String::new(), |hex, byte| format!("{hex}{byte:02x}"));
        let [origin, root, note] = [known.origin, root, note].map(value::of_text);
        let values = vec![origin, value::of_number(known.size), root, note];
        render::rows(format, &["origin", "entries", "root", "checkpoint"], &[Row { values }])?;
        return Ok(Exit::Ok);
    }
    if !qr {
        Output::stdout().print(&note)?;
        return Ok(Exit::Ok);
    }
    let code = QrCode::with_error_correction_level(note.as_bytes(), EcLevel::L);
    let code = code.map_err(|error| CliError::Usage(format!("the checkpoint does not fit a code: {error}")))?;
    // Light modules are printed, so that the code is dark on light on a dark terminal as well.
    let image = code.render::<Dense1x2>().dark_color(Dense1x2::Dark).light_color(Dense1x2::Light).build();
    Output::stdout().print(&format!("{image}\n"))?;
    Ok(Exit::Ok)
}

/// The note of the newest checkpoint.
pub(in crate::commands) fn newest_checkpoint(directory: &Path) -> Result<String, CliError> {
    let note = read_text(&checkpoint_file(directory)).map_err(|error| unreadable(directory, &error))?;
    note.filter(|note| Checkpoint::dangerous_unverified(note).is_ok()).ok_or_else(|| {
        let text =
            format!("the ledger in {} has no checkpoint; procmond signs one at each start", directory.display());
        CliError::NotFound(text)
    })
}

/// A ledger, and what its checkpoints say first.
#[derive(Debug)]
pub(in crate::commands) struct Named {
    directory: PathBuf,
    origin: String,
}

impl Named {
    pub(in crate::commands) fn origin(&self) -> &str {
        &self.origin
    }
}

/// Which ledger this is, as far as it says itself: by its newest checkpoint, else by the entry that names its first key.
pub(in crate::commands) fn origin(directory: &Path) -> Option<Box<Named>> {
    let signed = || Some(Checkpoint::dangerous_unverified(&newest_checkpoint(directory).ok()?).ok()?.origin);
    let keyed = || {
        let entries = LedgerFiles::open(directory).ok()?.from(0).ok()?;
        let mut keys = entries.map_while(Result::ok).filter(|record| record.entry.action == CREATED);
        Some(KeyEntry::parse(&keys.next()?.payload)?.key.name().to_owned())
    };
    let origin = signed().or_else(keyed)?;
    Some(Box::new(Named { directory: directory.to_owned(), origin }))
}

/// Asks the agent, which asks procmond, and prints the new key.
pub(super) async fn rotate(settings: &Settings) -> Result<Exit, CliError> {
    let session = Session::open(settings).await?;
    let answer = session.ask_once(Verb::AuditRotateKey(Empty {})).await?;
    session.close().await;
    let Answer::AuditKey(key) = answer else { return Err(CliError::AgentAnswer("a key")) };
    Output::stdout().print(&format!("{}\n", key.vkey))?;
    Ok(Exit::Ok)
}

pub(in crate::commands) fn parse_key(text: &str) -> Result<VerifierKey, CliError> {
    text.trim().parse().map_err(|error| CliError::Usage(format!("--vkey: {error}")))
}

/// The note that a ledger is to be held against, of a file that may have many: one that it contradicts, else the one over most entries
/// that its keys signed. What no key of it signed says nothing, so where there are others that is only told.
pub(super) fn read_note(path: &Path, wanted: Option<&Named>) -> Result<String, CliError> {
    let kept = Kept::read(path, wanted.map(Named::origin))?;
    let newest = kept.newest()?.to_owned();
    let (Some(named), [_, _, ..]) = (wanted, kept.notes.taken.as_slice()) else {
        kept.tell(0);
        return Ok(newest);
    };
    let mut progress = Progress::new("holding against what was kept", Unit::Bytes);
    let held = hold_kept(&named.directory, &kept.notes.taken, |at| progress.show(at.bytes, at.total_bytes));
    drop(progress);
    let KeptSummary { fork, largest, signed, unsigned } = match held {
        Ok(held) => held,
        // The verification that follows names the place.
        Err(error) if error.exit() == Exit::Tampered => return Ok(newest),
        Err(error) => return Err(super::unreadable(&named.directory, &error)),
    };
    if signed == 0 {
        return Ok(newest);
    }
    kept.tell(unsigned);
    if let Some(KeptFork { note, fits }) = fork {
        eprintln!(
            "the ledger does not go on from each of the {signed} checkpoints in {}: the first that it contradicts is over {} entries, the \
             last before it that fits over {fits}",
            path.display(),
            note.size
        );
        return Ok(note.note.to_string());
    }
    eprintln!("the ledger is held against {signed} checkpoints in {}, all of which its keys signed", path.display());
    Ok(largest.map_or(newest, |largest| largest.note.to_string()))
}

/// The checkpoints of a file.
pub(in crate::commands) struct Kept {
    path: PathBuf,
    notes: Notes,
}

impl Kept {
    /// Those of the ledger `wanted`, of which the file has some, or of another.
    pub(in crate::commands) fn read(path: &Path, wanted: Option<&str>) -> Result<Self, CliError> {
        let notes = kept::notes(path, wanted).map_err(|source| not_read(path, source))?;
        let kept = Self { path: path.to_owned(), notes };
        kept.newest()?;
        Ok(kept)
    }

    /// Of the ledger that was asked for, in the order of the file.
    pub(in crate::commands) fn notes(&self) -> &[KeptNote] {
        &self.notes.taken
    }

    /// The last one of the ledger, else the last one of any.
    pub(in crate::commands) fn newest(&self) -> Result<&str, CliError> {
        self.notes.newest().ok_or_else(|| {
            let path = self.path.display();
            CliError::Usage(format!("{path} holds no checkpoint; `audit checkpoint` prints one"))
        })
    }

    /// Says how many there are that say nothing of the ledger, where others do.
    pub(in crate::commands) fn tell(&self, unsigned: u64) {
        let (path, Notes { foreign, left_out, .. }) = (self.path.display(), &self.notes);
        if unsigned > 0 {
            eprintln!(
                "{unsigned} checkpoints in {path} are not signed by a key of this ledger and say nothing of it: they are forged or damaged, \
                 or of a ledger that was there before this one was begun"
            );
        }
        if *foreign > 0 && !self.notes.taken.is_empty() {
            eprintln!("{foreign} checkpoints in {path} are of other ledgers and say nothing of this one");
        }
        if *left_out > 0 {
            eprintln!(
                "{left_out} checkpoints in {path} were not looked at, as it has more than {MAX_NOTES} or they are too long: put them into \
                 another file and hold the ledger against that as well"
            );
        }
    }
}

/// A file of an operator that cannot be read.
pub(in crate::commands) fn not_read(path: &Path, source: io::Error) -> CliError {
    match source.kind() {
        io::ErrorKind::IsADirectory => {
            CliError::Unreadable(format!("cannot read {}: it is a directory; name the file in it", path.display()))
        }
        _ => CliError::Io { what: format!("read {}", path.display()), source },
    }
}
