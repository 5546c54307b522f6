//! What is signed of the ledger: its key, its newest checkpoint, and the hand-over to a new key.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use daemoneye_lib::exit::Exit;
use daemoneye_lib::ledger::checkpoint::Checkpoint;
use daemoneye_lib::ledger::kept::{KeptNote, KeptRoots, MAX_ROOTS};
use daemoneye_lib::ledger::keys::{CREATED, KeyEntry, ROTATED};
use daemoneye_lib::ledger::note::VerifierKey;
use daemoneye_lib::ledger::notes::{checkpoint_file, keys_file, read_text};
use daemoneye_lib::ledger::{Demands, LedgerFiles};
use daemoneye_lib::proto::{Empty, Row, operator_request::Verb, operator_response::Answer};
use qrcode::render::unicode::Dense1x2;
use qrcode::{EcLevel, QrCode};

use super::kept::{self, Judged, MAX_NOTES, MAX_OTHERS, Notes};
use super::unreadable;
use crate::agent::Session;
use crate::error::CliError;
use crate::render::{self, Format, Output};
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

/// Which ledger this is, as far as it says itself: by its newest checkpoint, else by the entry that names its first key.
pub(in crate::commands) fn origin(directory: &Path) -> Option<String> {
    let signed = || Some(Checkpoint::dangerous_unverified(&newest_checkpoint(directory).ok()?).ok()?.origin);
    let keyed = || {
        let entries = LedgerFiles::open(directory).ok()?.from(0).ok()?;
        let mut keys = entries.map_while(Result::ok).filter(|record| record.entry.action == CREATED);
        Some(KeyEntry::parse(&keys.next()?.payload)?.key.name().to_owned())
    };
    signed().or_else(keyed)
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

/// The keys of a ledger, as far as it says itself: of its file of keys, else of its entries.
pub(super) fn keys_of(directory: &Path) -> Vec<VerifierKey> {
    let listed = read_text(&keys_file(directory)).ok().flatten().unwrap_or_default();
    let listed: Vec<VerifierKey> = listed.lines().map_while(|line| line.parse().ok()).collect();
    if listed.is_empty() { entered_keys(directory) } else { listed }
}

/// The keys that the entries name.
pub(super) fn entered_keys(directory: &Path) -> Vec<VerifierKey> {
    let entries = LedgerFiles::open(directory).ok().and_then(|files| files.from(0).ok());
    let records = entries.into_iter().flatten().map_while(Result::ok);
    let named = records.filter(|record| [CREATED, ROTATED].contains(&record.entry.action.as_str()));
    named.filter_map(|record| Some(KeyEntry::parse(&record.payload)?.key)).collect()
}

/// The checkpoints of a file that a ledger is to be held against. What no key of it signed says nothing, so where there are others
/// that is only told.
pub(super) struct Held {
    path: PathBuf,
    roots: Arc<KeptRoots>,
    judged: Judged,
    /// How many count.
    count: usize,
}

impl Held {
    pub(super) fn read(path: &Path, wanted: Option<&str>, keys: Vec<VerifierKey>) -> Result<Self, CliError> {
        let mut judged = kept::judged(path, wanted, keys).map_err(|source| not_read(path, source))?;
        newest(path, judged.seen.newest())?;
        // A ledger that does not name itself has nothing that many notes could be of.
        let count = if wanted.is_some() { judged.roots.len() } else { 0 };
        let roots = Arc::new(std::mem::take(&mut judged.roots));
        Ok(Self { path: path.to_owned(), roots, judged, count })
    }

    /// One alone is judged as it is, whoever signed it.
    pub(super) fn demand(&self, demands: &mut Demands) {
        if self.count == 0 || (self.count == 1 && self.judged.unsigned == 0) {
            demands.checkpoint = self.judged.seen.newest().map(str::to_owned);
        } else {
            demands.kept = Arc::clone(&self.roots);
        }
    }

    /// Whether another key may have signed some of them.
    pub(super) const fn has_unsigned(&self) -> bool {
        self.judged.unsigned > 0
    }

    /// Checkpoints of a ledger of this name that none of the keys signed, where others were.
    const fn unsigned(&self) -> u64 {
        if self.count == 0 { 0 } else { self.judged.unsigned }
    }

    pub(super) fn tell(&self) {
        let Judged { seen, left_out, .. } = &self.judged;
        tell_others(&self.path, self.unsigned(), if self.count == 0 { 0 } else { seen.foreign });
        if *left_out > 0 {
            eprintln!(
                "{left_out} checkpoints in {} were not looked at, as it has more than {MAX_ROOTS} that keys of this ledger signed or \
                 {MAX_OTHERS} that none did: put them into another file and hold the ledger against that as well",
                self.path.display()
            );
        }
        if self.count > 1 {
            let path = self.path.display();
            eprintln!("the ledger is held against {} checkpoints in {path}, all of which its keys signed", self.count);
        }
    }

    /// The ledger has another root than one over so many entries.
    pub(super) fn tell_fork(&self, size: u64) {
        if self.count > 1 {
            eprintln!(
                "the ledger does not go on from each of the {} checkpoints in {}: the first that it contradicts is over {size} entries, the \
                 last before it that fits over {}",
                self.count,
                self.path.display(),
                self.roots.fits_before(size)
            );
        }
    }

    /// Why a ledger in which every entry verifies is not verified by them.
    pub(super) fn shortfall(&self, key: Option<&VerifierKey>) -> Option<&'static str> {
        if self.judged.left_out > 0 {
            return Some("checkpoints_left_out");
        }
        if self.unsigned() == 0 || key.is_some() {
            return None;
        }
        eprintln!(
            "whether this ledger was begun anew, with a key of its own, in the place of the one that those checkpoints are of, only a key \
             tells that was kept elsewhere: give that with --vkey (`audit key` printed it)"
        );
        Some("checkpoints_unsigned")
    }
}

fn newest<'a>(path: &Path, newest: Option<&'a str>) -> Result<&'a str, CliError> {
    newest.ok_or_else(|| {
        let path = path.display();
        CliError::Usage(format!("{path} holds no checkpoint; `audit checkpoint` prints one"))
    })
}

/// Says how many there are that say nothing of the ledger, where others do.
fn tell_others(path: &Path, unsigned: u64, foreign: u64) {
    let path = path.display();
    if unsigned > 0 {
        eprintln!(
            "{unsigned} checkpoints in {path} are not signed by a key of this ledger and say nothing of it: they are forged or damaged, or \
             of a ledger that was there before this one was begun"
        );
    }
    if foreign > 0 {
        eprintln!("{foreign} checkpoints in {path} are of other ledgers and say nothing of this one");
    }
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
        newest(&self.path, self.notes.newest())
    }

    /// Whether there was room for all.
    pub(in crate::commands) const fn is_whole(&self) -> bool {
        self.notes.left_out == 0
    }

    /// Says how many there are that say nothing of the ledger, where others do.
    pub(in crate::commands) fn tell(&self, unsigned: u64) {
        let Notes { taken, foreign, left_out, .. } = &self.notes;
        tell_others(&self.path, unsigned, if taken.is_empty() { 0 } else { *foreign });
        if *left_out > 0 {
            eprintln!(
                "{left_out} checkpoints in {} were not looked at, as it has more than {MAX_NOTES} or they are too long: put them into \
                 another file and use that as well",
                self.path.display()
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
