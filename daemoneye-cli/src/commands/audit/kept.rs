//! A checkpoint that somebody kept: a file of its own, or a log of any length in which there are many.
//!
//! A log is read line by line, each as far as a note can reach, and whatever its bytes are. It has a note in one line, with its line
//! ends written out, or as it is, in lines of its own. The last one counts: a log goes on at its end.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read as _};
use std::path::Path;

use daemoneye_lib::ledger::checkpoint::Checkpoint;
use daemoneye_lib::ledger::note::MAX_NOTE_BYTES;

/// Bytes of a line that are looked at; what a note takes, its line ends written out twice, and what a log puts around it.
const LINE_BYTES: u64 = 2 * MAX_NOTE_BYTES as u64;
/// Bytes of a log that are read; a source without an end is no log.
const FILE_BYTES: u64 = 4 * 1024 * 1024 * 1024;
/// Lines of a log that may hold nothing but the rest of one line: a device, not a log.
const ENDLESS_BYTES: u64 = 64 * 1024 * 1024;
/// What begins a line of signature.
const DASH: &str = "\u{2014} ";

/// The newest note of the ledger `wanted`, else the newest of any.
pub(super) fn newest(path: &Path, wanted: Option<&str>) -> io::Result<Option<String>> {
    search(BufReader::new(File::open(path)?).take(FILE_BYTES), wanted)
}

fn search(mut lines: impl BufRead, wanted: Option<&str>) -> io::Result<Option<String>> {
    let mut found = Found { wanted, of_wanted: None, of_any: None };
    let mut block = Block::default();
    let mut bytes = Vec::new();
    while read_line(&mut lines, &mut bytes)? {
        let line = String::from_utf8_lossy(&bytes);
        let line = line.trim_end_matches(['\r', '\n']);
        block.take(line, &mut found);
        if line.contains("daemoneye/") {
            found.take(note_in(line));
        }
    }
    Ok(found.of_wanted.or(found.of_any))
}

/// Reads a line, the beginning of a longer one; false at the end.
fn read_line(lines: &mut impl BufRead, line: &mut Vec<u8>) -> io::Result<bool> {
    line.clear();
    lines.take(LINE_BYTES).read_until(b'\n', line)?;
    if line.len() as u64 == LINE_BYTES && !line.ends_with(b"\n") {
        skip(lines)?;
    }
    Ok(!line.is_empty())
}

/// What is left of a line.
fn skip(lines: &mut impl BufRead) -> io::Result<()> {
    let mut skipped = 0_u64;
    loop {
        let bytes = lines.fill_buf()?;
        let (taken, is_end) = match bytes.iter().position(|byte| *byte == b'\n') {
            Some(end) => (end.saturating_add(1), true),
            None => (bytes.len(), bytes.is_empty()),
        };
        lines.consume(taken);
        skipped = skipped.saturating_add(taken as u64);
        if is_end {
            return Ok(());
        }
        if skipped > ENDLESS_BYTES {
            let text = "it has a line of more than 64 MiB; name a file with a checkpoint";
            return Err(io::Error::new(io::ErrorKind::InvalidData, text));
        }
    }
}

struct Found<'a> {
    wanted: Option<&'a str>,
    of_wanted: Option<String>,
    of_any: Option<String>,
}

impl Found<'_> {
    fn take(&mut self, note: Option<String>) {
        let Some(note) = note else { return };
        let Ok(checkpoint) = Checkpoint::dangerous_unverified(&note) else { return };
        if self.wanted.is_none_or(|wanted| wanted == checkpoint.origin) {
            self.of_wanted = Some(note);
        } else {
            self.of_any = Some(note);
        }
    }
}

/// Lines that may be a note as it is.
#[derive(Debug, Default)]
struct Block {
    text: String,
    is_signed: bool,
}

impl Block {
    fn take(&mut self, line: &str, found: &mut Found<'_>) {
        let signs = line.starts_with(DASH);
        let is_begin = line.starts_with("daemoneye/");
        let is_over = self.is_signed && !signs;
        if is_begin || is_over || self.text.len().saturating_add(line.len()) > MAX_NOTE_BYTES {
            *self = Self::default();
        }
        if self.text.is_empty() && !is_begin {
            return;
        }
        self.text.push_str(line);
        self.text.push('\n');
        self.is_signed |= signs;
        if signs {
            found.take(Some(self.text.clone()));
        }
    }
}

/// A log writes a line end as a backslash and an n, and as JSON the backslash twice.
fn note_in(line: &str) -> Option<String> {
    let plain = line.replace("\\\\", "\\").replace("\\r", "").replace("\\n", "\n").replace("\\u2014", "\u{2014}");
    let from = plain.rfind("\n\n\u{2014} ")?;
    let begin = plain.get(..from)?.rfind("daemoneye/")?;
    let is_base64 = |c: char| c.is_ascii_alphanumeric() || "+/=".contains(c);
    let mut words = plain.get(from + 2..)?.splitn(3, ' ');
    let (dash, name, signature) = (words.next()?, words.next()?, words.next()?);
    let signature = signature.split(|c| !is_base64(c)).next()?;
    Some(format!("{}\n\n{dash} {name} {signature}\n", plain.get(begin..from)?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use daemoneye_lib::ledger::note::NoteSigner;

    fn note(origin: &str, size: u64) -> String {
        let signer = NoteSigner::new(origin, &[1; 32]).unwrap();
        Checkpoint { origin: origin.into(), size, root: [3; 32] }.sign(&signer).unwrap()
    }

    fn found(text: impl AsRef<[u8]>) -> Option<String> {
        search(text.as_ref(), Some("daemoneye/4f/audit")).unwrap()
    }

    #[test]
    #[cfg(unix)]
    fn a_file_without_an_end_holds_no_checkpoint() {
        assert!(newest(Path::new("/dev/zero"), None).is_err());
    }

    #[test]
    fn a_checkpoint_is_found_in_a_file_of_its_own_and_in_a_line_of_a_log() {
        let note = note("daemoneye/4f/audit", 7);
        assert_eq!(found(&note), Some(note.clone()));
        assert_eq!(found(note.replace('\n', "\r\n")), Some(note.clone()), "a copy from another system");
        let line = format!("Nov 21 host procmond: INFO ledger signed checkpoint={note:?} more=1\n");
        assert_eq!(found(&line), Some(note.clone()), "{line}");
        let json = serde_json::json!({"message": "ledger signed", "checkpoint": format!("{note:?}")}).to_string();
        assert_eq!(found(&json), Some(note.clone()), "{json}");
        let json = serde_json::json!({ "checkpoint": note }).to_string();
        assert_eq!(found(&json), Some(note.clone()), "{json}");
        assert_eq!(found("nothing"), None);
        assert_eq!(found(&note[..note.len() / 2]), None);
    }

    #[test]
    fn of_a_log_of_any_length_and_bytes_the_newest_note_of_the_ledger_counts() {
        let (old, new, other) =
            (note("daemoneye/4f/audit", 7), note("daemoneye/4f/audit", 9), note("daemoneye/5a/audit", 99));
        let noise = format!("{}\n", "x".repeat(120)).repeat(20_000);
        let mut log =
            format!("a checkpoint={old:?}\n{noise}b checkpoint={new:?}\nc checkpoint={other:?}\n").into_bytes();
        assert!(log.len() > 2 * 1024 * 1024);
        log.extend_from_slice(b"latin \xe9\n");
        log.extend(std::iter::repeat_n(b'y', 1024 * 1024));
        assert_eq!(found(&log), Some(new.clone()));
        assert_eq!(found(format!("{old}\n{new}some other line\n{other}")), Some(new), "notes one behind the other");
        assert_eq!(found(format!("checkpoint={other:?}")), Some(other), "which says that it is another ledger's");
    }
}
