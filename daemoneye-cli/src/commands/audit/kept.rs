//! Checkpoints that somebody kept: a file of its own, or a log of any length in which there are many.
//!
//! A log is read line by line, each as far as a note can reach, and whatever its bytes are. It has a note in one line, with its line
//! ends written out, or as it is, in lines of its own. All of them count: after a rewrite a log goes on with notes that fit it.

use std::collections::HashSet;
use std::fs::File;
use std::hash::{BuildHasher as _, RandomState};
use std::io::{self, BufRead, BufReader, Read as _};
use std::path::Path;
use std::sync::Arc;

use daemoneye_lib::ledger::checkpoint::Checkpoint;
use daemoneye_lib::ledger::kept::{KeptNote, KeptRoots, Offered};
use daemoneye_lib::ledger::note::{MAX_NOTE_BYTES, MAX_SIGNATURES, VerifierKey};

/// Bytes of a line that are looked at; what a note takes, its line ends written out twice, and what a log puts around it.
const LINE_BYTES: u64 = 2 * MAX_NOTE_BYTES as u64;
/// Bytes of a log that are read; a source without an end is no log.
const FILE_BYTES: u64 = 4 * 1024 * 1024 * 1024;
/// Lines of a log that may hold nothing but the rest of one line: a device, not a log.
const ENDLESS_BYTES: u64 = 64 * 1024 * 1024;
/// Different notes that are taken whole, for a proof: 69 days of one each minute.
pub(super) const MAX_NOTES: usize = 100_000;
/// Bytes of the notes that are taken: that many of the usual 250 bytes, twice.
const NOTES_BYTES: usize = 48 * 1024 * 1024;
/// Different notes that nobody signed after which no more are looked at: whoever writes them into a log makes each cost a
/// signature, some 100 s in all.
pub(super) const MAX_OTHERS: usize = 1_000_000;
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
    collect(opened(path)?, wanted)
}

fn opened(path: &Path) -> io::Result<impl BufRead> {
    Ok(BufReader::new(File::open(path)?).take(FILE_BYTES))
}

fn collect(lines: impl BufRead, wanted: Option<&str>) -> io::Result<Notes> {
    let mut collected = Collected::default();
    let seen = search(lines, wanted, &mut |note, checkpoint| collected.take(note, &checkpoint))?;
    let mut notes = collected.end();
    (notes.foreign, notes.newest_foreign) = (seen.foreign, seen.newest_foreign);
    Ok(notes)
}

/// The notes of a file, each held against keys as it is read, so that any number of them takes little room.
#[derive(Debug, Default)]
pub(super) struct Judged {
    /// Those that a key signed.
    pub(super) roots: KeptRoots,
    /// Different ones that none of them signed.
    pub(super) unsigned: u64,
    /// Those that there was no room for, or no time.
    pub(super) left_out: u64,
    pub(super) seen: Seen,
}

pub(super) fn judged(path: &Path, wanted: Option<&str>, keys: Vec<VerifierKey>) -> io::Result<Judged> {
    judge(opened(path)?, wanted, keys)
}

fn judge(lines: impl BufRead, wanted: Option<&str>, keys: Vec<VerifierKey>) -> io::Result<Judged> {
    let mut judged = Judged { roots: KeptRoots::of(keys), ..Judged::default() };
    let (mut others, state) = (HashSet::new(), RandomState::new());
    judged.seen = search(lines, wanted, &mut |note, checkpoint| {
        if others.len() >= MAX_OTHERS {
            judged.left_out += 1;
            return;
        }
        match judged.roots.offer(note, &checkpoint) {
            Offered::Known | Offered::Taken => {}
            Offered::LeftOut => judged.left_out += 1,
            Offered::Unsigned => judged.unsigned += u64::from(others.insert(state.hash_one(note))),
        }
    })?;
    Ok(judged)
}

/// What a file holds beside the notes that are asked for.
#[derive(Debug, Default)]
pub(super) struct Seen {
    /// Notes of other ledgers.
    pub(super) foreign: u64,
    newest: Option<String>,
    newest_foreign: Option<String>,
}

impl Seen {
    /// The last one of the ledger that was asked for, else the last one of any.
    pub(super) fn newest(&self) -> Option<&str> {
        self.newest.as_deref().or(self.newest_foreign.as_deref())
    }
}

/// Takes a note of the ledger that was asked for.
type Each<'a> = &'a mut dyn FnMut(&str, Checkpoint);

fn search(mut lines: impl BufRead, wanted: Option<&str>, each: Each<'_>) -> io::Result<Seen> {
    let mut found = Found { wanted, each, seen: Seen::default() };
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
    Ok(found.seen)
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
    each: Each<'a>,
    seen: Seen,
}

impl Found<'_> {
    /// Whether it is a note.
    fn take(&mut self, note: Option<&str>) -> bool {
        let Some(note) = note else { return false };
        let Ok(checkpoint) = Checkpoint::dangerous_unverified(note) else { return false };
        if self.wanted.is_some_and(|wanted| wanted != checkpoint.origin) {
            self.seen.foreign += 1;
            self.seen.newest_foreign = Some(note.to_owned());
        } else {
            self.seen.newest = Some(note.to_owned());
            (self.each)(note, checkpoint);
        }
        true
    }
}

/// Notes as they are, each once.
#[derive(Default)]
struct Collected {
    notes: Notes,
    known: HashSet<Arc<str>>,
    bytes: usize,
    /// The last one that there was no room for.
    last: Option<KeptNote>,
}

impl Collected {
    fn take(&mut self, note: &str, checkpoint: &Checkpoint) {
        if self.known.contains(note) {
            return;
        }
        let kept = KeptNote { note: note.into(), size: checkpoint.size, root: checkpoint.root };
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
        collect(text.as_ref(), Some("daemoneye/4f/audit")).unwrap()
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
        let mut sizes = Vec::new();
        let each = &mut |_: &str, checkpoint: Checkpoint| sizes.push(checkpoint.size);
        let mut found = Found { wanted: None, each, seen: Seen::default() };
        let mut block = Block::default();
        for line in one.lines().chain(std::iter::repeat_n("\u{2014} a b", 100_000)) {
            block.take(line, &mut found);
            parsed = parsed.max(block.text.len());
        }
        block.end(&mut found);
        assert!(parsed < MAX_SIGNATURES * (DASH.len() + 4) + one.len(), "{parsed}");
        assert_eq!(sizes, [7]);
    }

    #[test]
    fn any_number_of_notes_is_held_against_keys_as_it_is_read() {
        let signer = |seed| NoteSigner::new("daemoneye/4f/audit", &[seed; 32]).unwrap();
        let (one, other) = (note("daemoneye/4f/audit", 7), note("daemoneye/5a/audit", 8));
        let forged = Checkpoint { origin: "daemoneye/4f/audit".into(), size: 7, root: [3; 32] };
        let forged = forged.sign(&signer(2)).unwrap();
        let mut log = format!("a checkpoint={one:?}\n{one}\nb checkpoint={other:?}\n");
        // One size and root that a key has signed are no further note, whoever signed this one; the same note twice is one.
        log.push_str(&forged);
        log.push_str(&forged.replacen("\n7\n", "\n8\n", 1).repeat(2));
        for size in 10..MAX_NOTES + 12 {
            log.push_str(&forged.replacen("\n7\n", &format!("\n{size}\n"), 1));
        }
        log.push_str(&note("daemoneye/4f/audit", 9));
        let judge = |log: &str, seed| {
            let keys = vec![signer(seed).verifier().clone()];
            judge(log.as_bytes(), Some("daemoneye/4f/audit"), keys).unwrap()
        };
        let judged = judge(&log, 1);
        assert_eq!((judged.roots.len(), judged.unsigned, judged.left_out), (2, MAX_NOTES as u64 + 3, 0));
        assert_eq!((judged.seen.foreign, judged.seen.newest().is_some()), (1, true));
        assert!(judge(&one, 3).roots.is_empty());
    }
}
