//! Puts a proof together: entries and their places from the ledger's files, events and the leaves beside them from the store.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::convert::Infallible;
use std::io::{self, Write as _};
use std::path::Path;

use daemoneye_lib::event_json::Cell;
use daemoneye_lib::ledger::checkpoint::Checkpoint;
use daemoneye_lib::ledger::kept::{KeptFork, SignedNotes};
use daemoneye_lib::ledger::keys::{KeyChain, KeyEntry, ROTATED};
use daemoneye_lib::ledger::note::VerifierKey;
use daemoneye_lib::ledger::notes::{keys_file, read_text};
use daemoneye_lib::ledger::proof::{
    EntryProof, EventColumns, MAX_PROOF_BYTES, MakeError, Proof, RangeLeaves, Row, SinceError, Target, Verified,
    run_before,
};
use daemoneye_lib::ledger::tiles::{StoredTree, TreeError, tree_hash};
use daemoneye_lib::ledger::{EventRange, LedgerFiles, LedgerRecord};
use daemoneye_lib::model::{Alert, EventPointer};
use daemoneye_lib::proto::{
    AuditLeaves, Sequence, Value, operator_request::Verb, operator_response::Answer, value::Kind,
};
use daemoneye_lib::segment::SegmentError;

use super::super::audit::signed::{Kept, newest_checkpoint, origin};
use super::super::query::{Question, request};
use crate::agent::Session;
use crate::error::CliError;
use crate::private::NewFile;

/// A proof that grows.
pub(super) struct Making {
    pub(super) files: LedgerFiles,
    tree: StoredTree,
    pub(super) proof: Proof,
    checkpoint: Checkpoint,
    /// The ledger's first key.
    first: VerifierKey,
    /// Ranges whose leaves are here already, by their entry.
    ranges: HashMap<u64, (EventRange, RangeLeaves)>,
}

impl Making {
    /// `since`: where the checkpoint is that the reader of the file kept.
    pub(super) fn open(dir: &Path, target: Target, since: Option<&Path>) -> Result<Self, CliError> {
        let none = || {
            let text = format!("the ledger in {} has no tree yet; procmond makes one at its start", dir.display());
            CliError::NotFound(text)
        };
        // Before the newest checkpoint: a live ledger may sign another meanwhile, which a log has at once.
        let kept = since.map(|path| Kept::read(path, origin(dir).as_deref())).transpose()?;
        let note = newest_checkpoint(dir)?;
        let checkpoint =
            Checkpoint::dangerous_unverified(&note).map_err(|error| CliError::NotProven(error.to_string()))?;
        let hash = tree_hash(dir).map_err(broken)?.ok_or_else(none)?;
        let tree = StoredTree::open(dir, hash, checkpoint.size).map_err(broken)?;
        let files = LedgerFiles::open(dir).map_err(unreadable)?;
        let keys = read_text(&keys_file(dir)).map_err(unreadable)?.unwrap_or_default();
        let rotations = if keys.lines().count() > 1 { rotations(&files, checkpoint.size)? } else { Vec::new() };
        let first = keys.lines().next().and_then(|key| key.parse().ok()).ok_or_else(|| keyless(dir))?;
        let proof = Proof::new(target, hash, note, rotations);
        let mut making = Self { files, tree, proof, checkpoint, first, ranges: HashMap::new() };
        if let Some(kept) = kept {
            making.since(&kept)?;
        }
        Ok(making)
    }

    /// Before anything else is put together: a checkpoint that does not fit makes all of it useless.
    fn since(&mut self, kept: &Kept) -> Result<(), CliError> {
        let mut keys = KeyChain::new(self.first.clone());
        // As far as they hold together: where they do not, the file is refused before it is written.
        let _is_whole = self.proof.rotations.iter().try_for_each(|note| keys.follow(note)).is_ok();
        let signed = SignedNotes::of(kept.notes(), &keys);
        let mut roots = BTreeMap::new();
        // One alone is held by the path from it.
        if signed.notes.len() > 1 {
            let sizes = signed.notes.iter().map(|kept| kept.size).filter(|size| *size <= self.checkpoint.size);
            for size in sizes.collect::<BTreeSet<_>>() {
                roots.insert(size, self.tree.root_at(size).map_err(broken)?);
            }
        }
        if let Some(KeptFork { note, fits }) = signed.fork(|size| roots.get(&size).copied()) {
            return Err(CliError::NotProven(format!(
                "the ledger does not go on from one of the checkpoints that were given, over {} entries, so entries before were replaced; \
                 the last before it that fits is over {fits}",
                note.size
            )));
        }
        let note = signed.largest().map_or_else(|| kept.newest(), |kept| Ok(&*kept.note))?.to_owned();
        self.proof.set_since(note, &self.checkpoint, &mut self.tree).map_err(|error| match error {
            SinceError::Nodes(error) => broken(error),
            SinceError::CorruptRollback { .. } => CliError::NotProven(error.to_string()),
            SinceError::MisuseCheckpoint(_) => CliError::Usage(error.to_string()),
        })?;
        kept.tell(signed.unsigned);
        Ok(())
    }

    /// Entries below the checkpoint.
    pub(super) const fn size(&self) -> u64 {
        self.tree.size()
    }

    pub(super) fn entry(&mut self, record: &LedgerRecord) -> Result<(), CliError> {
        let size = self.tree.size();
        self.proof.add_entry(record, size, &mut self.tree).map_err(not_made)
    }

    /// All entries of a period.
    pub(super) fn run(&mut self, run: Vec<EntryProof>) -> Result<(), CliError> {
        let size = self.tree.size();
        self.proof.set_run(run, size, &mut self.tree).map_err(not_made)
    }

    /// Every entry of the time before an alert, so that what was not seen cannot be left out.
    pub(super) fn before(&mut self, alert: &Alert, raised: u64) -> Result<(), CliError> {
        let size = self.tree.size();
        match run_before(alert, raised, &self.files, size).map_err(unreadable)? {
            Some(run) => self.proof.add_run(run, size, &mut self.tree).map_err(not_made),
            None => {
                eprintln!(
                    "the entries of the time before the alert are too many or damaged: what was not seen is not shown"
                );
                Ok(())
            }
        }
    }

    /// Adds a stored event, and the entry that covers it; otherwise says why it has no proof yet.
    pub(super) async fn event(
        &mut self,
        session: &Session,
        columns: EventColumns,
    ) -> Result<Option<String>, CliError> {
        let row = Row::read(&columns).map_err(CliError::NotProven)?;
        let EventPointer { collector, epoch, number } = row.pointer;
        let covers = |range: &EventRange| {
            range.collector == collector && range.epoch == epoch && (range.first..=range.last).contains(&number)
        };
        if let Some((entry, (range, leaves))) = self.ranges.iter().find(|(_, (range, _))| covers(range)) {
            return self.proof.add_event(*entry, range, leaves, columns, number).map(|()| None).map_err(not_its_range);
        }
        let found = self.files.range_of(&collector, Sequence::new(epoch, number)).map_err(unreadable)?;
        let at = format!("{collector}:{epoch}:{number}");
        let Some((record, range)) = found else {
            return Ok(Some(format!("no entry of the ledger covers event {at} yet: one is written every second")));
        };
        if record.entry.sequence >= self.size() {
            let text = format!(
                "event {at} is covered by entry {}, and the newest checkpoint is over {} entries: one comes within a minute",
                record.entry.sequence,
                self.size()
            );
            return Ok(Some(text));
        }
        if !range.has_tree() {
            let text = format!("event {at} was recorded by a build that made no tree of events: it has no proof");
            return Err(CliError::NotFound(text));
        }
        self.entry(&record)?;
        let sequence = record.entry.sequence;
        let leaves = leaves(session, &range).await?;
        self.proof.add_event(sequence, &range, &leaves, columns, number).map_err(not_its_range)?;
        self.ranges.insert(sequence, (range, leaves));
        Ok(None)
    }

    /// Writes the file, once it is one that is read and proves what it says: a wrong tile would show only where nobody can help it any
    /// more.
    pub(super) fn write(&self, output: &Path) -> Result<Verified, CliError> {
        let text = self.proof.to_file();
        let verified = Proof::of_file(&text).and_then(|proof| proof.verify(&self.first));
        let verified =
            verified.map_err(|error| CliError::NotProven(format!("{error}; run: daemoneye-cli audit verify")))?;
        if text.len() as u64 > MAX_PROOF_BYTES {
            let text =
                format!("the file would have {} bytes, and nobody reads more than {MAX_PROOF_BYTES}", text.len());
            return Err(CliError::Usage(format!("{text}; prove a shorter time")));
        }
        let io = |source| CliError::Io { what: format!("write {}", output.display()), source };
        let file = NewFile::create(output).map_err(|source| is_there(output, "--output", source))?;
        file.writer().and_then(|mut writer| writer.write_all(text.as_bytes())).map_err(io)?;
        file.keep().map_err(io)?;
        Ok(verified)
    }
}

/// A file that is there may be somebody's proof.
pub(in crate::commands) fn is_there(path: &Path, option: &str, source: io::Error) -> CliError {
    let what = match source.kind() {
        io::ErrorKind::AlreadyExists => {
            format!("write {}, which is there: move it away, or name another with {option}", path.display())
        }
        _ => format!("write {}", path.display()),
    };
    CliError::Io { what, source }
}

/// What nobody can verify here is not written: a tile that is wrong would make a file that proves nothing anywhere.
fn keyless(dir: &Path) -> CliError {
    CliError::NotFound(format!(
        "{} names no key, so a proof could not be verified before it is written; procmond's next start writes that file again, a copy \
         needs it too",
        keys_file(dir).display()
    ))
}

fn not_made(error: MakeError<TreeError>) -> CliError {
    match error {
        MakeError::Nodes(error) => broken(error),
        other => CliError::NotFound(other.to_string()),
    }
}

fn not_its_range(error: MakeError<Infallible>) -> CliError {
    CliError::NotProven(format!("{error}; run: daemoneye-cli audit verify --rows"))
}

/// Below the checkpoint: a key that came later has signed nothing that is proven here.
fn rotations(files: &LedgerFiles, size: u64) -> Result<Vec<String>, CliError> {
    let mut notes = Vec::new();
    for record in files.from(0).map_err(unreadable)? {
        let LedgerRecord { entry, payload, .. } = record.map_err(unreadable)?;
        if entry.sequence >= size {
            break;
        }
        let is_rotation = entry.action == ROTATED;
        notes.extend(is_rotation.then(|| KeyEntry::parse(&payload)).flatten().map(|key| key.note));
    }
    Ok(notes)
}

/// Of all events of a range, from the store.
async fn leaves(session: &Session, range: &EventRange) -> Result<RangeLeaves, CliError> {
    let wrong = || CliError::AgentAnswer("the leaves of a range");
    let EventRange { collector, epoch, first, last, schema, .. } = range.clone();
    let mut answers = session.ask(Verb::AuditLeaves(AuditLeaves { collector, epoch, first, last, schema })).await?;
    let mut leaves = RangeLeaves::default();
    loop {
        let answer = answers.next().await?.and_then(|response| response.answer);
        let Some(Answer::AuditLeaves(part)) = answer else { return Err(wrong()) };
        let (hashes, []) = part.leaves.as_chunks() else { return Err(wrong()) };
        if hashes.len() != part.numbers.len() {
            return Err(wrong());
        }
        part.numbers.iter().zip(hashes).for_each(|(number, hash)| leaves.add(*number, *hash));
        if part.last {
            return Ok(leaves);
        }
    }
}

/// Rows of `process_events`, whole.
pub(super) async fn rows(session: &Session, question: Question) -> Result<Vec<EventColumns>, CliError> {
    let mut answers = session.ask(Verb::Query(request(session, &question))).await?;
    let (mut names, mut rows) = (Vec::new(), Vec::new());
    while let Some(response) = answers.next().await? {
        match response.answer {
            Some(Answer::Page(page)) => {
                if !page.columns.is_empty() {
                    names = page.columns.into_iter().map(|column| column.name).collect();
                }
                rows.extend(page.rows.into_iter().map(|row| columns(&names, row.values)));
            }
            Some(Answer::QueryDone(_)) => return Ok(rows),
            _ => break,
        }
    }
    Err(CliError::AgentAnswer("rows"))
}

fn columns(names: &[String], values: Vec<Value>) -> EventColumns {
    let known: HashMap<&str, Cell<'static>> =
        names.iter().zip(values).map(|(name, value)| (name.as_str(), cell(value))).collect();
    let in_order = daemoneye_lib::columns::PROCESS_EVENTS.iter();
    Row::columns(in_order.map(|column| known.get(column.name).cloned().unwrap_or(Cell::Null)))
}

fn cell(value: Value) -> Cell<'static> {
    match value.kind {
        None => Cell::Null,
        Some(Kind::Blob(bytes)) => Cell::Blob(bytes.into()),
        Some(Kind::Boolean(value)) => Cell::Boolean(value),
        Some(Kind::Integer(value)) => Cell::Integer(value),
        Some(Kind::Real(value)) => Cell::Real(value),
        Some(Kind::Text(text)) => Cell::Made(text),
        Some(Kind::TimestampUs(us)) => Cell::Timestamp(us),
    }
}

pub(super) fn unreadable(error: SegmentError) -> CliError {
    CliError::Unreadable(format!("{error}; read the ledger with sudo, or name a copy with --audit-dir"))
}

fn broken(error: TreeError) -> CliError {
    match error {
        TreeError::Segment(error) => unreadable(error),
        other => CliError::NotProven(other.to_string()),
    }
}
