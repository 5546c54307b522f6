//! Checkpoints that somebody kept: a file of its own, or a log of any length in which there are many.
//!
//! A log is read line by line, each as far as a note can reach, and whatever its bytes are. It has a note in one line, with its line
//! ends written out, or as it is, in lines of its own. All of them count: after a rewrite a log goes on with notes that fit it.

use std::collections::HashSet;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read as _};
use std::path::Path;
use std::sync::Arc;

use daemoneye_lib::ledger::checkpoint::Checkpoint;
use daemoneye_lib::ledger::kept::KeptNote;
use daemoneye_lib::ledger::note::{MAX_NOTE_BYTES, MAX_SIGNATURES};

/// Bytes of a line that are looked at; what a note takes, its line ends written out twice, and what a log puts around it.
const LINE_BYTES: u64 = 2 * MAX_NOTE_BYTES as u64;
/// Bytes of a log that are read; a source without an end is no log.
const FILE_BYTES: u64 = 4 * 1024 * 1024 * 1024;
/// Lines of a log that may hold nothing but the rest of one line: a device, not a log.
const ENDLESS_BYTES: u64 = 64 * 1024 * 1024;
/// Different notes that are taken: 69 days of one each minute.
pub(super) const MAX_NOTES: usize = 100_000;
/// Bytes of the notes that are taken: that many of the usual 250 bytes, twice.
const NOTES_BYTES: usize = 48 * 1024 * 1024;
/// What begins a line of signature.
const DASH: &str = "\u{2014} ";

/// The notes of a file.
#[derive(Debug, Default)]
pub(in crate::commands) struct Notes {
    /// Of the ledger that was asked for, or of any where none was, in the order of the file, each once.
    pub(in crate::commands) taken: Vec<KeptNote>,
    /// Notes of other ledgers.
    pub(in crate::commands) foreign: u64,
    /// Notes that there was no room for. The first ones are taken, as what is appended later cannot push them out, and the last one.
    pub(in crate::commands) left_out: u64,
    newest_foreign: Option<String>,
}

impl Notes {
    /// The last one of the ledger that was asked for, else the last one of any.
    pub(super) fn newest(&self) -> Option<&str> {
        self.taken.last().map(|kept| &*kept.note).or(self.newest_foreign.as_deref())
    }
}

/// The notes of the ledger `wanted`; how many others there are.
pub(super) fn notes(path: &Path, wanted: Option<&str>) -> io::Result<Notes> {
    search(BufReader::new(File::open(path)?).take(FILE_BYTES), wanted)
}

fn search(mut lines: impl BufRead, wanted: Option<&str>) -> io::Result<Notes> {
    let mut found = Found { wanted, notes: Notes::default(), known: HashSet::new(), bytes: 0, last: None };
    let mut block = Block::default();
    let mut bytes = Vec::new();
    while read_line(&mut lines, &mut bytes)? {
        let line = String::from_utf8_lossy(&bytes);
        let line = line.trim_end_matches(['\r', '\n']);
        block.take(line, &mut found);
        if line.contains("daemoneye/") {
            found.take(note_in(line).as_deref());
        }
    }
    block.end(&mut found);
    Ok(found.end())
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
    notes: Notes,
    known: HashSet<Arc<str>>,
    bytes: usize,
    /// The last one that there was no room for.
    last: Option<KeptNote>,
}

impl Found<'_> {
    /// Whether it is a note.
    fn take(&mut self, note: Option<&str>) -> bool {
        let Some(note) = note else { return false };
        let Ok(Checkpoint { origin, size, root }) = Checkpoint::dangerous_unverified(note) else { return false };
        if self.wanted.is_some_and(|wanted| wanted != origin) {
            self.notes.foreign += 1;
            self.notes.newest_foreign = Some(note.to_owned());
        } else if !self.known.contains(note) {
            self.add(KeptNote { note: note.into(), size, root });
        }
        true
    }

    fn add(&mut self, kept: KeptNote) {
        self.bytes = self.bytes.saturating_add(kept.note.len());
        if self.notes.taken.len() >= MAX_NOTES || self.bytes > NOTES_BYTES {
            self.notes.left_out += 1;
            self.last = Some(kept);
            return;
        }
        self.known.insert(Arc::clone(&kept.note));
        self.notes.taken.push(kept);
    }

    fn end(mut self) -> Notes {
        if let Some(last) = self.last {
            self.notes.left_out -= 1;
            self.notes.taken.push(last);
        }
        self.notes
    }
}

/// Lines that may be a note as it is.
#[derive(Debug, Default)]
struct Block {
    text: String,
    signatures: usize,
    /// Where the first signature ends.
    first_end: usize,
}

impl Block {
    fn take(&mut self, line: &str, found: &mut Found<'_>) {
        let signs = line.starts_with(DASH);
        let is_begin = line.starts_with("daemoneye/");
        let is_long = self.text.len().saturating_add(line.len()) > MAX_NOTE_BYTES;
        if is_begin || is_long || (self.signatures > 0 && !signs) {
            self.end(found);
        }
        if self.text.is_empty() && !is_begin || self.signatures == MAX_SIGNATURES {
            return;
        }
        self.text.push_str(line);
        self.text.push('\n');
        if signs {
            self.signatures += 1;
            if self.signatures == 1 {
                self.first_end = self.text.len();
            }
        }
    }

    /// What a block is shows at its end, once: behind a signature may stand more of them, or what only looks like one.
    fn end(&mut self, found: &mut Found<'_>) {
        let Self { text, signatures, first_end } = std::mem::take(self);
        if signatures > 0 && !found.take(Some(&text)) {
            found.take(text.get(..first_end));
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

    fn all(text: impl AsRef<[u8]>) -> Notes {
        search(text.as_ref(), Some("daemoneye/4f/audit")).unwrap()
    }

    fn found(text: impl AsRef<[u8]>) -> Option<String> {
        all(text).newest().map(str::to_owned)
    }

    fn sizes(notes: &Notes) -> Vec<u64> {
        notes.taken.iter().map(|kept| kept.size).collect()
    }

    #[test]
    #[cfg(unix)]
    fn a_file_without_an_end_holds_no_checkpoint() {
        assert!(notes(Path::new("/dev/zero"), None).is_err());
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
    fn of_a_log_of_any_length_and_bytes_every_note_of_the_ledger_counts() {
        let (old, new, other) =
            (note("daemoneye/4f/audit", 7), note("daemoneye/4f/audit", 9), note("daemoneye/5a/audit", 99));
        let noise = format!("{}\n", "x".repeat(120)).repeat(20_000);
        let mut log =
            format!("a checkpoint={old:?}\n{noise}b checkpoint={new:?}\nc checkpoint={other:?}\n").into_bytes();
        assert!(log.len() > 2 * 1024 * 1024);
        log.extend_from_slice(b"latin \xe9\n");
        log.extend(std::iter::repeat_n(b'y', 1024 * 1024));
        assert_eq!((sizes(&all(&log)), all(&log).foreign), (vec![7, 9], 1));
        assert_eq!(found(&log), Some(new.clone()));
        assert_eq!(found(format!("{old}\n{new}some other line\n{other}")), Some(new), "notes one behind the other");
        assert_eq!(found(format!("checkpoint={other:?}")), Some(other), "which says that it is another ledger's");
    }
    #[test]
    fn a_note_counts_once_and_what_there_is_no_room_for_is_told() {
        let (one, two) = (note("daemoneye/4f/audit", 7), note("daemoneye/4f/audit", 9));
        let log = format!("{one}\na checkpoint={one:?}\n{two}\nb checkpoint={one:?}\n");
        assert_eq!(sizes(&all(log)), [7, 9]);
        let mut many = String::new();
        for size in 1..=MAX_NOTES + 3 {
            many.push_str(&one.replacen("\n7\n", &format!("\n{size}\n"), 1));
        }
        let notes = all(many);
        assert_eq!((notes.taken.len(), notes.left_out), (MAX_NOTES + 1, 2));
        assert_eq!(notes.taken.last().unwrap().size, MAX_NOTES as u64 + 3, "the last one is taken all the same");
    }

    #[test]
    fn a_note_with_more_signatures_or_what_looks_like_some_is_read_once_and_found() {
        let one = note("daemoneye/4f/audit", 7);
        let signature = one.lines().last().unwrap().to_owned();
        let witnessed = format!("{one}{signature}\n");
        assert_eq!(found(&witnessed), Some(witnessed.clone()));
        assert_eq!(found(format!("{one}\u{2014} said the log\n")), Some(one.clone()));
        let mut parsed = 0;
        let mut found = Found { wanted: None, notes: Notes::default(), known: HashSet::new(), bytes: 0, last: None };
        let mut block = Block::default();
        for line in one.lines().chain(std::iter::repeat_n("\u{2014} a b", 100_000)) {
            block.take(line, &mut found);
            parsed = parsed.max(block.text.len());
        }
        block.end(&mut found);
        assert!(parsed < MAX_SIGNATURES * (DASH.len() + 4) + one.len(), "{parsed}");
        assert_eq!(sizes(&found.notes), [7]);
    }
}
