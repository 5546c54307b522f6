//! What is signed of the ledger: its key, its newest checkpoint, and the hand-over to a new key.

use std::fs::File;
use std::io::Read as _;
use std::path::Path;

use daemoneye_lib::exit::Exit;
use daemoneye_lib::ledger::checkpoint::Checkpoint;
use daemoneye_lib::ledger::note::{MAX_NOTE_BYTES, VerifierKey};
use daemoneye_lib::ledger::notes::{checkpoint_file, keys_file, read_text};
use daemoneye_lib::proto::{Empty, operator_request::Verb, operator_response::Answer};
use qrcode::render::unicode::Dense1x2;
use qrcode::{EcLevel, QrCode};

use super::unreadable;
use crate::agent::Session;
use crate::error::CliError;
use crate::render::Output;
use crate::settings::Settings;

/// Bytes of a file in which a checkpoint is looked for: some lines of a log.
const FILE_BYTES: u64 = 16 * MAX_NOTE_BYTES as u64;

/// Prints the key that signs now, and nothing else.
pub(super) fn key(directory: &Path) -> Result<Exit, CliError> {
    let text = read_text(&keys_file(directory)).map_err(|error| unreadable(directory, &error))?.unwrap_or_default();
    let newest = text.lines().last().and_then(|line| line.parse::<VerifierKey>().ok());
    let newest = newest.ok_or_else(|| {
        CliError::NotFound(format!(
            "the ledger in {} has no key; procmond makes one at its next start",
            directory.display()
        ))
    })?;
    Output::stdout().print(&format!("{newest}\n"))?;
    Ok(Exit::Ok)
}

/// Prints the newest checkpoint as it is, or as a code.
pub(super) fn checkpoint(directory: &Path, qr: bool) -> Result<Exit, CliError> {
    let note = newest_checkpoint(directory)?;
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

/// The note in a file: alone, or in a line of a log.
pub(in crate::commands) fn read_note(path: &Path) -> Result<String, CliError> {
    let failed = |source| CliError::Io { what: format!("read {}", path.display()), source };
    let mut text = String::new();
    let read = File::open(path).and_then(|file| file.take(FILE_BYTES + 1).read_to_string(&mut text));
    let read = read.map_err(failed)? as u64;
    let note = if read <= FILE_BYTES { note_in(&text) } else { None };
    note.ok_or_else(|| {
        CliError::Usage(format!("{} holds no checkpoint; `audit checkpoint` prints one", path.display()))
    })
}

/// A log writes a line end as a backslash and an n, and as JSON the backslash twice.
fn note_in(text: &str) -> Option<String> {
    let is_note = |note: &String| Checkpoint::dangerous_unverified(note).is_ok();
    if let Some(note) = Some(text.to_owned()).filter(is_note) {
        return Some(note);
    }
    let plain = text.replace("\\\\n", "\n").replace("\\n", "\n");
    let from = plain.rfind("\n\n\u{2014} ")?;
    let begin = plain.get(..from)?.rfind("daemoneye/")?;
    let is_base64 = |c: char| c.is_ascii_alphanumeric() || "+/=".contains(c);
    let mut words = plain.get(from + 2..)?.splitn(3, ' ');
    let (dash, name, signature) = (words.next()?, words.next()?, words.next()?);
    let signature = signature.split(|c| !is_base64(c)).next()?;
    let note = format!("{}\n\n{dash} {name} {signature}\n", plain.get(begin..from)?);
    Some(note).filter(is_note)
}

#[cfg(test)]
mod tests {
    use super::*;
    use daemoneye_lib::ledger::note::NoteSigner;

    #[test]
    #[cfg(unix)]
    fn a_file_without_an_end_holds_no_checkpoint() {
        assert!(matches!(read_note(Path::new("/dev/zero")), Err(CliError::Usage(_))));
    }

    #[test]
    fn a_checkpoint_is_found_in_a_file_of_its_own_and_in_a_line_of_a_log() {
        let origin = "daemoneye/4f/audit";
        let signer = NoteSigner::new(origin, &[1; 32]).unwrap();
        let note = Checkpoint { origin: origin.into(), size: 7, root: [3; 32] }.sign(&signer).unwrap();
        assert_eq!(note_in(&note), Some(note.clone()));
        let line = format!("Nov 21 host procmond: INFO ledger signed checkpoint={note:?} more=1\n");
        assert_eq!(note_in(&line), Some(note.clone()), "{line}");
        let json = serde_json::json!({"message": "ledger signed", "checkpoint": format!("{note:?}")}).to_string();
        assert_eq!(note_in(&json), Some(note.clone()), "{json}");
        assert_eq!(note_in("nothing"), None);
        assert_eq!(note_in(&note[..note.len() / 2]), None);
    }
}
