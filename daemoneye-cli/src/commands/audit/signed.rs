//! What is signed of the ledger: its key, its newest checkpoint, and the hand-over to a new key.

use std::io;
use std::path::Path;

use daemoneye_lib::exit::Exit;
use daemoneye_lib::ledger::checkpoint::Checkpoint;
use daemoneye_lib::ledger::note::VerifierKey;
use daemoneye_lib::ledger::notes::{checkpoint_file, keys_file, read_text};
use daemoneye_lib::proto::{Empty, Row, operator_request::Verb, operator_response::Answer};
use qrcode::render::unicode::Dense1x2;
use qrcode::{EcLevel, QrCode};

use super::{kept, unreadable};
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

/// Which ledger this is, as far as it says itself.
pub(super) fn origin(directory: &Path) -> Option<String> {
    let note = newest_checkpoint(directory).ok()?;
    Checkpoint::dangerous_unverified(&note).ok().map(|checkpoint| checkpoint.origin)
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

/// The note in a file: alone, or the newest one of a log; of the ledger `wanted` where the file has one of it.
pub(in crate::commands) fn read_note(path: &Path, wanted: Option<&str>) -> Result<String, CliError> {
    let found = kept::newest(path, wanted).map_err(|source| not_read(path, source))?;
    found.ok_or_else(|| {
        CliError::Usage(format!("{} holds no checkpoint; `audit checkpoint` prints one", path.display()))
    })
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
