//! One file that shows that entries stand in a ledger, and that events and an alert are those that the entries tell of. Whoever has
//! the ledger's verifier key needs nothing else.
//!
//! Every member is bound to the signed checkpoint by a hash, and a file that is not written exactly as [`Proof::to_file`] writes it
//! is refused, so no bit of it can be another one. What a file does not have (an event that retention removed) is told by
//! [`Verified`], never by the file itself.

mod decode;
mod evidence;
mod fault;
mod leaves;
mod period;
mod row;
mod signed;
mod since;
mod target;
mod told;

use serde::{Deserialize, Serialize};
use serde_json::Value;

pub use self::evidence::{Ancestor, BEFORE_US, Evidence, Lineage, Part, Role, Whole, is_touched, run_before};
pub use self::fault::ProofFault;
pub use self::leaves::{LeafNodes, RangeLeaves};
pub use self::period::{
    AGENT_AT_ONCE, AGENT_ENTRY_BYTES, AGENT_PAYLOAD_BYTES, AGENT_PER_S, ORDERS_AT_ONCE, ORDERS_PER_S, PERIOD_ENTRIES,
    Period, PeriodError,
};
pub use self::row::{EventColumns, Row};
pub use self::since::{Chosen, Held, HoldFault, Since, SinceError, SinceFault};
pub use self::target::Target;
pub use self::told::{Gap, Told};

use super::checkpoint::Checkpoint;
use super::event::{self, RANGE_HASH};
use super::note::VerifierKey;
use super::tree::{self, Nodes, TreeHash};
use super::{AuditEntry, EventRange, Hash, LedgerRecord, hexed};
use crate::model::{Alert, EventPointer};
use crate::proto::Sequence;

/// What a file of this form says first.
const FORMAT: &str = "daemoneye-proof/v1";
/// Largest file that is read. Evidence may have 87,904 entries of 330 bytes beside their payloads, of which the agent's come to 80 MB at
/// the most, and 48 events of 256 KiB; a time has 65,536 entries, some 30 MB.
pub const MAX_PROOF_BYTES: u64 = 128 * 1024 * 1024;

/// A file that proves something.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Proof {
    format: String,
    /// What it is to prove.
    pub target: Target,
    /// What the ledger's tree is hashed with.
    tree: String,
    /// The signed note.
    pub checkpoint: String,
    /// The notes by which one key hands over to the next, oldest first.
    #[serde(deserialize_with = "decode::rotations")]
    pub rotations: Vec<String>,
    /// A checkpoint that somebody kept, and how the file's goes on from it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    since: Option<Since>,
    /// By sequence.
    #[serde(deserialize_with = "decode::entries")]
    pub entries: Vec<EntryProof>,
    /// What an `alert` entry tells of, exactly as it was raised.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub alert: Option<String>,
    /// What the alert's rule says, in the parts whose hash the alert has: its text, then what each override of it changes.
    #[serde(default, skip_serializing_if = "Vec::is_empty", deserialize_with = "decode::rule")]
    pub rule: Vec<String>,
    /// Events that `event-range` entries cover.
    #[serde(deserialize_with = "decode::events")]
    pub events: Vec<EventProof>,
}

/// An entry, and how it hangs below the checkpoint.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EntryProof {
    /// Its number.
    pub sequence: u64,
    /// ms since the Unix epoch.
    pub timestamp_ms: i64,
    /// Who acted.
    pub actor: String,
    /// What was done.
    pub action: String,
    /// JSON; empty where only its hash is handed on.
    pub payload: String,
    /// BLAKE3 of a payload that is withheld.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    payload_hash: Option<HexHash>,
    /// Hash of the entry before it.
    #[serde(with = "hexed")]
    previous_hash: Hash,
    /// From the leaf up; none where the next entry of the file is the next one of the ledger, whose `previous_hash` proves this one.
    #[serde(default, skip_serializing_if = "Vec::is_empty", deserialize_with = "decode::path")]
    inclusion: Vec<HexHash>,
}

/// A stored event, and how it hangs below its range's root.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EventProof {
    /// The `event-range` entry.
    pub entry: u64,
    /// From the leaf up.
    #[serde(deserialize_with = "decode::path")]
    path: Vec<HexHash>,
    /// Its columns.
    #[serde(deserialize_with = "decode::columns")]
    pub row: EventColumns,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
struct HexHash(#[serde(with = "hexed")] Hash);

/// Why a proof cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum MakeError<E> {
    /// The tree's nodes.
    #[error("{0}")]
    Nodes(E),
    /// The payload is no text.
    #[error("entry {0} has a payload that is no text")]
    MisusePayload(u64),
    /// The events are not those of the range.
    #[error(
        "the stored events {first} to {last} of {collector} (epoch {epoch}) are not those that ledger entry {entry} covers"
    )]
    CorruptRange {
        /// Whose.
        collector: String,
        /// Which epoch.
        epoch: u64,
        /// First record.
        first: u64,
        /// Last record.
        last: u64,
        /// The entry.
        entry: u64,
    },
    /// The entry is younger than the checkpoint.
    #[error("entry {0} is not below a checkpoint yet: one is made every minute, try again then")]
    Younger(u64),
}

/// What was proven.
#[derive(Debug, Clone, PartialEq)]
pub struct Verified {
    /// The checkpoint that everything hangs below.
    pub checkpoint: Checkpoint,
    /// The older one that the file was made for.
    pub since: Option<Checkpoint>,
    /// Per event of the file, in order, its place.
    pub events: Vec<EventPointer>,
    /// The alert.
    pub alert: Option<Box<Alert>>,
    /// Events that caused the alert and are not in the file: retention has removed them, or nobody asked for them.
    pub missing: Vec<EventPointer>,
    /// What the entries say of a period.
    pub told: Option<Told>,
    /// What evidence has of its alert.
    pub evidence: Option<Evidence>,
}

impl Proof {
    /// With nothing proven yet.
    #[must_use]
    pub fn new(target: Target, tree: TreeHash, checkpoint: String, rotations: Vec<String>) -> Self {
        let (format, tree) = (FORMAT.to_owned(), tree.word().to_owned());
        Self {
            format,
            target,
            tree,
            checkpoint,
            rotations,
            since: None,
            entries: Vec::new(),
            alert: None,
            rule: Vec::new(),
            events: Vec::new(),
        }
    }

    /// The file.
    #[must_use]
    pub fn to_file(&self) -> String {
        let text = serde_json::to_string_pretty(self).unwrap_or_default();
        format!("{text}\n")
    }

    /// Reads a file; nothing in it is verified.
    ///
    /// # Errors
    /// [`ProofFault::CorruptFile`]: it is not exactly what [`Self::to_file`] writes.
    pub fn of_file(text: &str) -> Result<Self, ProofFault> {
        let proof: Self = serde_json::from_str(text).map_err(|error| {
            // It repeats names of the file, which may hold line ends.
            ProofFault::CorruptFile(error.to_string().replace(char::is_control, " "))
        })?;
        let mut same = decode::Same(text.as_bytes());
        if serde_json::to_writer_pretty(&mut same, &proof).is_err() || same.0 != b"\n" {
            return Err(ProofFault::CorruptFile("it was written anew or changed".to_owned()));
        }
        if proof.format != FORMAT {
            return Err(ProofFault::CorruptFile(format!("its form is {:?}, this build reads {FORMAT}", proof.format)));
        }
        Ok(proof)
    }

    /// Adds an entry, once.
    ///
    /// # Errors
    /// [`MakeError`].
    pub fn add_entry<N: Nodes>(
        &mut self,
        record: &LedgerRecord,
        size: u64,
        nodes: &mut N,
    ) -> Result<(), MakeError<N::Error>> {
        let sequence = record.entry.sequence;
        let Err(place) = self.entries.binary_search_by_key(&sequence, |known| known.sequence) else {
            return Ok(());
        };
        let mut proof = EntryProof::linked(record).ok_or(MakeError::MisusePayload(sequence))?;
        proof.inclusion = self.path(sequence, size, nodes)?;
        self.entries.insert(place, proof);
        Ok(())
    }

    /// Takes the entries of a period: each hangs on the one behind it, and below the checkpoint where that is not the next one.
    ///
    /// # Errors
    /// [`MakeError`].
    pub fn set_run<N: Nodes>(
        &mut self,
        mut run: Vec<EntryProof>,
        size: u64,
        nodes: &mut N,
    ) -> Result<(), MakeError<N::Error>> {
        let mut next = None;
        for entry in run.iter_mut().rev() {
            if entry.sequence.checked_add(1) != next {
                entry.inclusion = self.path(entry.sequence, size, nodes)?;
            }
            next = Some(entry.sequence);
        }
        self.entries = run;
        Ok(())
    }

    fn path<N: Nodes>(&self, sequence: u64, size: u64, nodes: &mut N) -> Result<Vec<HexHash>, MakeError<N::Error>> {
        let path = tree::inclusion(nodes, self.hash(), sequence, size).map_err(MakeError::Nodes)?;
        Ok(path.ok_or(MakeError::Younger(sequence))?.into_iter().map(HexHash).collect())
    }

    /// Adds an event that `entry` covers, of whose range `leaves` are all.
    ///
    /// # Errors
    /// [`MakeError::CorruptRange`]: the leaves are not those of the range.
    pub fn add_event(
        &mut self,
        entry: u64,
        range: &EventRange,
        leaves: &RangeLeaves,
        row: EventColumns,
        number: u64,
    ) -> Result<(), MakeError<std::convert::Infallible>> {
        let path = leaves.path(range, number).ok_or_else(|| MakeError::CorruptRange {
            collector: range.collector.clone(),
            epoch: range.epoch,
            first: range.first,
            last: range.last,
            entry,
        })?;
        let proof = EventProof { entry, path: path.into_iter().map(HexHash).collect(), row };
        if !self.events.contains(&proof) {
            self.events.push(proof);
        }
        Ok(())
    }

    fn hash(&self) -> TreeHash {
        TreeHash::of_word(&self.tree).unwrap_or(TreeHash::Sha256)
    }

    /// Verifies all of it, beginning with `key`.
    ///
    /// # Errors
    /// [`ProofFault`] says what does not fit.
    pub fn verify(&self, key: &VerifierKey) -> Result<Verified, ProofFault> {
        let (keys, checkpoint) = self.signed(key)?;
        let tree = TreeHash::of_word(&self.tree)
            .ok_or_else(|| ProofFault::CorruptFile(format!("no tree is hashed with {:?}", self.tree)))?;
        let since = self.since.as_ref().map(|since| since.verify(&keys, tree, &checkpoint)).transpose()?;
        if self.entries.is_empty() {
            return Err(ProofFault::CorruptFile("it has no entry and proves nothing".to_owned()));
        }
        if !self.entries.is_sorted_by(|one, next| one.sequence < next.sequence) {
            return Err(ProofFault::CorruptFile("its entries are not in order".to_owned()));
        }
        self.entries.iter().rev().try_fold(None, |next, entry| entry.verify(next, tree, &checkpoint).map(Some))?;
        let numbered = (1_usize..).zip(&self.events);
        let events = numbered
            .map(|(number, event)| self.place(event).map_err(|what| ProofFault::CorruptEvent { number, what }))
            .collect::<Result<Vec<_>, _>>()?;
        let alert = self.proven_alert()?;
        let missing = alert.iter().flat_map(|alert| alert.events.iter());
        let missing = missing.filter(|pointer| !events.contains(pointer)).cloned().collect();
        let told = self.fits_target(&checkpoint, alert.as_deref(), &events).map_err(ProofFault::CorruptTarget)?;
        let evidence = self.judged(&checkpoint, alert.as_deref(), &events).map_err(ProofFault::CorruptTarget)?;
        Ok(Verified { checkpoint, since, events, alert, missing, told, evidence })
    }

    fn judged(
        &self,
        checkpoint: &Checkpoint,
        alert: Option<&Alert>,
        events: &[EventPointer],
    ) -> Result<Option<Evidence>, &'static str> {
        let (Target::Evidence(_), Some(alert), Some(text)) = (&self.target, alert, &self.alert) else {
            return Ok(None);
        };
        let raised = self.entries.iter().find(|entry| entry.tells_of(alert, text)).map(|entry| entry.sequence);
        Evidence::of(self, alert, events, (raised.unwrap_or_default(), checkpoint.size)).map(Some)
    }

    /// Shows that an event is in its range.
    fn place(&self, proof: &EventProof) -> Result<EventPointer, String> {
        let entry = self.entries.iter().find(|entry| entry.sequence == proof.entry);
        let entry = entry.filter(|entry| entry.action == "event-range");
        // Nobody but its collector says what a stream holds.
        let said = |entry: &EntryProof| {
            EventRange::read(entry.payload.as_bytes()).filter(|range| range.collector == entry.actor)
        };
        let range = entry.and_then(said).filter(EventRange::has_tree);
        let range = range.ok_or_else(|| format!("entry {} is not here, or covers no events", proof.entry))?;
        let row = Row::read(&proof.row)?;
        let at = row.pointer.clone();
        if at.collector != range.collector || at.epoch != range.epoch {
            return Err(format!("entry {} covers another stream", proof.entry));
        }
        let index = index_in(&range, at.number);
        let index = index.ok_or_else(|| format!("entry {} does not cover its position", proof.entry))?;
        let leaf = event::leaf(at.number, &row.content(range.schema));
        let path: Vec<Hash> = proof.path.iter().map(|hash| hash.0).collect();
        tree::verify_inclusion(RANGE_HASH, &leaf, index, range.events, &range.root, &path).map_err(|what| {
            format!("{at}: it was changed, or is not in the range of entry {}: {what}", proof.entry, at = shown(&at))
        })?;
        Ok(at)
    }

    fn proven_alert(&self) -> Result<Option<Box<Alert>>, ProofFault> {
        let Some(text) = &self.alert else {
            return if self.rule.is_empty() { Ok(None) } else { Err(ProofFault::CorruptRule) };
        };
        let alert: Alert = serde_json::from_str(text).map_err(|_| ProofFault::CorruptAlert)?;
        if !self.entries.iter().any(|entry| entry.tells_of(&alert, text)) {
            return Err(ProofFault::CorruptAlert);
        }
        // An override is hashed with the hash before it, so without this both of them would pass for a text.
        let is_text = self.rule.first().is_none_or(|text| is_document(text));
        if !is_text || !self.rule.is_empty() && rule_hash(&self.rule) != alert.rule_hash {
            return Err(ProofFault::CorruptRule);
        }
        Ok(Some(Box::new(alert)))
    }
}

/// The hash of a rule whose text is the first part and whose overrides are the others.
#[must_use]
pub fn rule_hash(parts: &[String]) -> String {
    let mut parts = parts.iter();
    let hash = |text: &str| blake3::hash(text.as_bytes()).to_hex().to_string();
    let text = parts.next().map(|text| hash(text)).unwrap_or_default();
    parts.fold(text, |before, changed| hash(&format!("{before}\n{changed}")))
}

/// Whether a rule's text is one: its document in the first line, and the lists that it names in those behind.
fn is_document(text: &str) -> bool {
    let document = text.lines().next().unwrap_or_default();
    serde_json::from_str::<Value>(document).is_ok_and(|document| document.is_object())
}

impl EntryProof {
    /// Without its place below a checkpoint; `None`: its payload is no text.
    fn linked(record: &LedgerRecord) -> Option<Self> {
        let AuditEntry { sequence, timestamp_ms, actor, action, previous_hash, .. } = record.entry.clone();
        let payload = std::str::from_utf8(&record.payload).ok()?.to_owned();
        let (payload_hash, inclusion) = (None, Vec::new());
        Some(Self { sequence, timestamp_ms, actor, action, payload, payload_hash, previous_hash, inclusion })
    }

    /// `next`: the entry behind it in the file, which is verified.
    fn verify(
        &self,
        next: Option<AuditEntry>,
        tree: TreeHash,
        checkpoint: &Checkpoint,
    ) -> Result<AuditEntry, ProofFault> {
        let Self { sequence, inclusion, .. } = self;
        let entry = self.linked_entry()?;
        let is_before = |next: &AuditEntry| {
            sequence.checked_add(1) == Some(next.sequence) && next.previous_hash == entry.entry_hash
        };
        if inclusion.is_empty() && next.as_ref().is_some_and(is_before) {
            return Ok(entry);
        }
        let leaf = tree.leaf(&entry.canonical_bytes());
        let path: Vec<Hash> = inclusion.iter().map(|hash| hash.0).collect();
        tree::verify_inclusion(tree, &leaf, *sequence, checkpoint.size, &checkpoint.root, &path)
            .map_err(|what| ProofFault::CorruptEntry { sequence: *sequence, what })?;
        Ok(entry)
    }

    fn linked_entry(&self) -> Result<AuditEntry, ProofFault> {
        let Self { sequence, timestamp_ms, actor, action, payload, payload_hash, previous_hash, .. } = self;
        let (actor, action) = (actor.as_str(), action.as_str());
        let link = |hash: Hash| AuditEntry::link_hashed(*sequence, *previous_hash, *timestamp_ms, actor, action, hash);
        match payload_hash {
            Some(hash) if payload.is_empty() => Ok(link(hash.0)),
            Some(_) => {
                Err(ProofFault::CorruptFile(format!("entry {sequence} has a payload and says that it is withheld")))
            }
            None => Ok(link(*blake3::hash(payload.as_bytes()).as_bytes())),
        }
    }

    fn tells_of(&self, alert: &Alert, text: &str) -> bool {
        matches!(self.action.as_str(), "alert" | "alert-suppressed")
            && serde_json::from_str::<Value>(&self.payload).is_ok_and(|payload| is_alert(&payload, alert, text))
    }
}

/// Whether an `alert` entry's payload tells of this alert with this text.
#[must_use]
pub fn is_alert(payload: &Value, alert: &Alert, text: &str) -> bool {
    let member = |name: &str| payload.get(name).and_then(Value::as_str);
    member("alert") == Some(alert.id.to_string().as_str())
        && member("record") == Some(blake3::hash(text.as_bytes()).to_hex().as_str())
}

/// Where an event stands among the events of its range.
fn index_in(range: &EventRange, number: u64) -> Option<u64> {
    let index = range.numbers().position(|known| known == number)?;
    u64::try_from(index).ok()
}

fn shown(at: &EventPointer) -> String {
    format!("{}:{}", at.collector, Sequence::new(at.epoch, at.number))
}

#[cfg(test)]
mod tests {
    use super::super::checkpoint::origin;
    use super::super::event::Content;
    use super::super::kept::KeptNote;
    use super::super::keys::rotation_note;
    use super::super::note::NoteSigner;
    use super::super::{GENESIS, RangeBuilder};
    use super::*;
    use crate::event_json::{EventRow, Origin};
    use crate::proto::{EventType, ProcessEvent, ProcessRecord};

    fn event(number: u64) -> ProcessEvent {
        let process = ProcessRecord {
            entity_id: vec![u8::try_from(number).unwrap(); 16],
            pid: 7,
            name: "sh".into(),
            cpu_usage: Some(0.1),
            arg_lengths: vec![1, 300],
            command_line: Some("sh \"x\"".into()),
            ..ProcessRecord::default()
        };
        ProcessEvent {
            event_type: EventType::Start.into(),
            time_us: 1_769_860_800_000_000,
            process: Some(process),
            ..ProcessEvent::default()
        }
    }

    fn row(number: u64) -> EventColumns {
        let origin = Origin { collector: "procmond", sequence: Some(Sequence::new(3, number)) };
        Row::columns(EventRow::new(&event(number), origin).cells().map(|(_, cell)| cell))
    }

    struct Sample {
        key: VerifierKey,
        old: NoteSigner,
        new: NoteSigner,
        checkpoint: String,
        rotations: Vec<String>,
        records: Vec<LedgerRecord>,
        nodes: LeafNodes,
        range: EventRange,
        leaves: RangeLeaves,
    }

    /// Twenty entries; number 7 covers seven records, of which the third is no event.
    fn sample() -> Sample {
        let (mut builder, mut leaves) = (RangeBuilder::new("procmond"), RangeLeaves::default());
        for number in 1..=7 {
            let content = if number == 3 { Content::Other([1; 32]) } else { Content::of_event(&event(number)) };
            builder.add(Sequence::new(3, number), content);
            if let Content::Event(hash) = content {
                leaves.add(number, event::leaf(number, &hash));
            }
        }
        let range = builder.take().remove(0);
        let (mut records, mut previous) = (Vec::new(), GENESIS);
        for sequence in 0..20 {
            let (action, payload) =
                if sequence == 7 { ("event-range", range.payload()) } else { ("config", b"{}".to_vec()) };
            let entry = AuditEntry::link(sequence, previous, 5, "procmond", action, &payload);
            previous = entry.entry_hash;
            records.push(LedgerRecord { entry, payload: payload.into(), outbox_id: 0, covered: None, leaf: None });
        }
        let tree = records.iter().map(|record| TreeHash::Sha256.leaf(&record.entry.canonical_bytes())).collect();
        let mut nodes = LeafNodes::new(TreeHash::Sha256, tree);
        let root = tree::root(&mut nodes, TreeHash::Sha256, 20).unwrap_or_default();
        let signer = |seed| NoteSigner::new(&origin("m"), &[seed; 32]).unwrap();
        let (old, new) = (signer(1), signer(2));
        let checkpoint = Checkpoint { origin: origin("m"), size: 20, root }.sign(&new).unwrap();
        let rotations = vec![rotation_note(&old, new.verifier()).unwrap()];
        let key = old.verifier().clone();
        Sample { key, old, new, checkpoint, rotations, records, nodes, range, leaves }
    }

    fn event_target(number: u64) -> Target {
        Target::Event(EventPointer { collector: "procmond".into(), epoch: 3, number })
    }

    fn proof(sample: &mut Sample) -> Proof {
        let mut proof =
            Proof::new(event_target(5), TreeHash::Sha256, sample.checkpoint.clone(), sample.rotations.clone());
        proof.add_entry(&sample.records[7], 20, &mut sample.nodes).unwrap();
        proof.add_event(7, &sample.range, &sample.leaves, row(5), 5).unwrap();
        proof
    }

    #[test]
    fn an_event_is_proven_by_the_file_and_the_key_alone() {
        let mut sample = sample();
        let file = proof(&mut sample).to_file();
        let verified = Proof::of_file(&file).unwrap().verify(&sample.key).unwrap();
        assert_eq!(verified.events, [EventPointer { collector: "procmond".into(), epoch: 3, number: 5 }]);
        assert_eq!(verified.checkpoint.size, 20);
    }

    /// The checkpoint of the first `size` entries, which the key of that time signed.
    fn kept(sample: &mut Sample, size: u64, signer: &NoteSigner) -> String {
        let root = tree::root(&mut sample.nodes, TreeHash::Sha256, size).unwrap_or_default();
        Checkpoint { origin: origin("m"), size, root }.sign(signer).unwrap()
    }

    fn proof_since(sample: &mut Sample, note: &str) -> Proof {
        let mut since = proof(sample);
        let newest = Checkpoint::dangerous_unverified(&sample.checkpoint).unwrap();
        since.set_since(note.to_owned(), &newest, &mut sample.nodes).unwrap();
        since
    }

    #[test]
    fn a_file_is_held_against_a_checkpoint_that_somebody_kept() {
        let mut sample = sample();
        let (old, new) = (sample.old.clone(), sample.new.clone());
        let hold = |proof: &Proof, note: &str, sample: &Sample| {
            let read = Proof::of_file(&proof.to_file()).unwrap();
            let verified = read.verify(&sample.key).unwrap();
            read.hold(&sample.key, &verified, note).map(|held| (held.checkpoint.size, held.below, held.behind))
        };
        for (size, signer) in [(1, &old), (5, &old), (8, &old), (13, &new), (19, &new)] {
            let note = kept(&mut sample, size, signer);
            let since = proof_since(&mut sample, &note);
            let below = usize::from(size > 7);
            assert_eq!(hold(&since, &note, &sample), Ok((size, below, 1 - below)));
            // The same without a path, and with one from another checkpoint.
            let without = hold(&proof(&mut sample), &note, &sample);
            assert_eq!(without, Err(HoldFault::MisuseNoPath { size, newest: 20 }));
            let other = kept(&mut sample, 11, &new);
            let other = proof_since(&mut sample, &other);
            assert_eq!(hold(&other, &note, &sample), without);
        }
        let same = sample.checkpoint.clone();
        assert_eq!(hold(&proof(&mut sample), &same, &sample), Ok((20, 1, 0)));
    }

    #[test]
    fn a_file_of_a_ledger_that_was_rewritten_and_signed_again_is_refused_with_a_checkpoint_from_before() {
        let mut sample = sample();
        let new = sample.new.clone();
        let note = kept(&mut sample, 13, &new);
        let since = proof_since(&mut sample, &note);
        let verified = since.verify(&sample.key).unwrap();
        let hold = |note: &str| since.hold(&sample.key, &verified, note);
        let signed = |size, of: &str, signer: &NoteSigner| {
            Checkpoint { origin: origin(of), size, root: [7; 32] }.sign(signer).unwrap()
        };
        // What the file is below has the real key's signature: the history is another.
        for size in [13, 20] {
            assert_eq!(hold(&signed(size, "m", &new)), Err(HoldFault::CorruptFork { size }));
        }
        let stranger = NoteSigner::new(&origin("m"), &[9; 32]).unwrap();
        assert_eq!(hold(&signed(13, "m", &stranger)), Err(HoldFault::CorruptKeys));
        let younger = hold(&signed(21, "m", &stranger)).unwrap_err();
        assert_eq!(younger, HoldFault::MisuseYounger { size: 21, newest: 20 });
        let elsewhere = NoteSigner::new(&origin("other"), &[2; 32]).unwrap();
        for note in [signed(13, "other", &elsewhere), "nothing".to_owned()] {
            assert!(matches!(hold(&note), Err(HoldFault::MisuseCheckpoint(_))), "{note}");
        }
        let changed = note.replace("\n13\n", "\n12\n");
        assert!(hold(&changed).is_err());
        // A path from a checkpoint that this history does not go on from proves nothing to anybody.
        for forged in [signed(13, "m", &new), changed] {
            let forged = proof_since(&mut sample, &forged).verify(&sample.key);
            assert!(matches!(forged, Err(ProofFault::CorruptSince(_))), "{forged:?}");
        }
        let newest = Checkpoint::dangerous_unverified(&sample.checkpoint).unwrap();
        let mut made = proof(&mut sample);
        let cut = made.set_since(signed(21, "m", &new), &newest, &mut sample.nodes);
        assert!(matches!(cut, Err(SinceError::CorruptRollback { size: 21, newest: 20 })));
        let other = made.set_since(signed(3, "other", &elsewhere), &newest, &mut sample.nodes);
        assert!(matches!(other, Err(SinceError::MisuseCheckpoint(_))));
    }

    #[test]
    fn of_many_kept_checkpoints_the_one_that_the_file_knows_is_chosen_and_those_of_one_size_agree() {
        let mut sample = sample();
        let old = sample.old.clone();
        let signed = |size, root: u8, seed: u8| {
            let signer = NoteSigner::new(&origin("m"), &[seed; 32]).unwrap();
            Checkpoint { origin: origin("m"), size, root: [root; 32] }.sign(&signer).unwrap()
        };
        let (five, eight) = (kept(&mut sample, 5, &old), kept(&mut sample, 8, &old));
        let own = sample.checkpoint.clone();
        let since = proof_since(&mut sample, &five);
        let verified = since.verify(&sample.key).unwrap();
        let choose = |notes: &[&str]| {
            let notes: Vec<KeptNote> = notes.iter().map(|note| KeptNote::read(note).unwrap()).collect();
            let chosen = since.choose(&sample.key, &verified, &notes)?;
            Ok((chosen.note.map(|kept| kept.size), chosen.unsigned, chosen.beside))
        };
        let (forged, later) = (signed(5, 7, 9), signed(30, 7, 2));
        assert_eq!(choose(&[&eight, &five, &forged, &later]), Ok((Some(5), 1, 2)));
        assert_eq!(choose(&[&five, &own, &eight]), Ok((Some(20), 0, 1)));
        assert_eq!(choose(&[&later, &eight]), Ok((Some(8), 0, 2)), "not the one that says nothing");
        assert_eq!(choose(&[&forged]), Ok((None, 1, 0)));
        // Whichever of the two the ledger of the file is, one of them is of another.
        for (size, right) in [(5, &five), (8, &eight), (20, &own)] {
            let wrong = signed(size, 7, 1 + u8::from(size == 20));
            for notes in [[right, &wrong], [&wrong, right]] {
                assert_eq!(choose(&notes.map(String::as_str)), Err(HoldFault::CorruptFork { size }));
            }
        }
        assert_eq!(choose(&[&later, &signed(30, 8, 2)]), Ok((Some(30), 0, 2)));
    }

    #[test]
    fn a_changed_bit_anywhere_in_the_file_is_found() {
        let mut sample = sample();
        let old = sample.old.clone();
        let note = kept(&mut sample, 5, &old);
        let file = proof_since(&mut sample, &note).to_file();
        let since = file.find("\"since\"").unwrap()..file.find("\"entries\"").unwrap();
        // One bit of each byte, every one of them in turn: all of them take a minute of signatures.
        let some = (0..file.len()).map(|byte| byte * 8 + byte * 5 % 8);
        for bit in some.chain(since.start * 8..since.end * 8) {
            let mut bytes = file.clone().into_bytes();
            bytes[bit / 8] ^= 1 << (bit % 8);
            let Ok(text) = String::from_utf8(bytes) else { continue };
            let verified = Proof::of_file(&text).and_then(|proof| proof.verify(&sample.key));
            assert!(verified.is_err(), "bit {} of byte {}: {:?}", bit % 8, bit / 8, &text[bit / 8 - 20..bit / 8 + 20]);
        }
    }

    #[test]
    fn another_event_in_the_place_of_the_proven_one_is_refused_and_so_is_a_range_that_lacks_one() {
        let mut sample = sample();
        let mut swapped = proof(&mut sample);
        swapped.events[0].row = row(6);
        assert!(matches!(swapped.verify(&sample.key), Err(ProofFault::CorruptEvent { number: 1, .. })));
        let mut lacking = RangeLeaves::default();
        sample.leaves.iter().skip(1).for_each(|(number, leaf)| lacking.add(number, leaf));
        let made = proof(&mut sample).add_event(7, &sample.range, &lacking, row(5), 5);
        assert!(matches!(made, Err(MakeError::CorruptRange { entry: 7, .. })));
    }

    #[test]
    fn a_file_proves_what_it_is_about_and_nothing_else() {
        let mut sample = sample();
        let entity = |number: u8| Target::Entity(format!("{number:02x}").repeat(16));
        let fault = |proof: &Proof, key: &VerifierKey| match proof.verify(key) {
            Err(ProofFault::CorruptTarget(what)) => what,
            other => panic!("{other:?}"),
        };
        let mut about = proof(&mut sample);
        about.target = entity(5);
        assert!(about.verify(&sample.key).is_ok());
        for wrong in
            [entity(6), event_target(6), Target::Entry(7), Target::Alert("x".into()), Target::Evidence("x".into())]
        {
            about.target = wrong;
            fault(&about, &sample.key);
        }
        about.target = Target::Period(Period { from_ms: 0, to_ms: 9 });
        fault(&about, &sample.key);
        about.target = entity(5);
        about.events.clear();
        fault(&about, &sample.key);
        about.target = Target::Entry(7);
        assert!(about.verify(&sample.key).is_ok());
        // Beside the event that is named an entry that is of none.
        let mut more = proof(&mut sample);
        more.target = entity(5);
        more.add_entry(&sample.records[8], 20, &mut sample.nodes).unwrap();
        fault(&more, &sample.key);
    }

    #[test]
    fn a_process_has_each_of_its_events_once() {
        let mut sample = sample();
        let mut proof = proof(&mut sample);
        proof.target = Target::Entity("05".repeat(16));
        assert!(proof.verify(&sample.key).is_ok());
        proof.events = vec![proof.events[0].clone(); 5];
        assert!(matches!(proof.verify(&sample.key), Err(ProofFault::CorruptTarget(_))));
    }

    #[test]
    fn a_key_that_is_not_the_ledgers_is_named_and_so_is_the_ledger_that_the_file_is_of() {
        let mut sample = sample();
        let proof = proof(&mut sample);
        let key = |name: &str| NoteSigner::new(&origin(name), &[9; 32]).unwrap().verifier().clone();
        let fault = |key: &VerifierKey| proof.verify(key).unwrap_err();
        let elsewhere = fault(&key("other"));
        assert!(elsewhere.is_misuse(), "{elsewhere}");
        let said = elsewhere.to_string();
        assert!(said.contains("daemoneye/m/audit") && said.contains("daemoneye/other/audit"), "{said}");
        let stranger = fault(&key("m"));
        assert!(!stranger.is_misuse() && stranger.to_string().contains(&key("m").to_string()), "{stranger}");
        // The younger one that signed the checkpoint is as good as the first.
        assert!(proof.verify(sample.new.verifier()).is_ok());
    }

    #[test]
    fn a_chain_of_keys_in_a_circle_is_refused_and_so_is_one_without_an_end() {
        let mut sample = sample();
        let mut circle = proof(&mut sample);
        let (old, new) = (sample.old.clone(), sample.new.clone());
        let back = rotation_note(&new, old.verifier()).unwrap();
        circle.rotations = vec![sample.rotations[0].clone(), back, sample.rotations[0].clone()];
        for key in [&old, &new] {
            assert!(matches!(circle.verify(key.verifier()), Err(ProofFault::CorruptKeys(_))));
        }
        let mut endless = proof(&mut sample);
        endless.rotations = vec![sample.rotations[0].clone(); 10_001];
        let read = Proof::of_file(&endless.to_file());
        assert!(matches!(read, Err(ProofFault::CorruptFile(what)) if what.contains("10000 rotations")));
    }

    #[test]
    fn a_file_with_more_than_a_file_has_is_refused_before_all_of_it_is_decoded() {
        let mut sample = sample();
        let sound = proof(&mut sample);
        let refused = |proof: &Proof, says: &str| match Proof::of_file(&proof.to_file()) {
            Err(ProofFault::CorruptFile(what)) => assert!(what.contains(says), "{what}"),
            other => panic!("{other:?}"),
        };
        let mut many = sound.clone();
        many.events = vec![sound.events[0].clone(); 129];
        refused(&many, "more than 128 events");
        many = sound.clone();
        many.entries[0].inclusion = vec![HexHash([0; 32]); 129];
        refused(&many, "more than 128 hashes");
        many = sound.clone();
        many.rule = vec!["{}".to_owned(); 1_025];
        refused(&many, "more than 1024 parts");
        for (name, value) in [("pid", serde_json::json!([[], []])), ("pid", Value::Null), ("unknown", 1.into())] {
            many = sound.clone();
            many.events[0].row.insert(name.to_owned(), value);
            assert!(Proof::of_file(&many.to_file()).is_err(), "{name}");
        }
        let more = format!("{}\n", sound.to_file());
        assert!(Proof::of_file(&more).is_err(), "something behind it");
    }

    #[test]
    fn an_entry_behind_the_checkpoint_has_no_proof_yet() {
        let mut sample = sample();
        let mut proof = Proof::new(Target::Entry(7), TreeHash::Sha256, sample.checkpoint.clone(), Vec::new());
        let made = proof.add_entry(&sample.records[7], 7, &mut sample.nodes);
        assert!(matches!(made, Err(MakeError::Younger(7))));
    }
}
