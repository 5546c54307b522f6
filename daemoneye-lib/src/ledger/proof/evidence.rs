//! What belongs to an alert, and whether a file has all of it.
//!
//! Nobody signs a file, so whoever hands it on may leave something out or put something in. What has to be there follows from what is
//! proven: the alert names its causes, each process its parent, the alert the build that raised it and a cause's epoch its collector's
//! start; of the time before the alert every entry is there, one hanging on the next. What does not follow is refused.

mod judge;

use std::collections::{HashSet, VecDeque};

use serde_json::Value;

use super::super::Hash;
use super::super::entries::LedgerFiles;
use super::super::heartbeat::HEARTBEAT_INTERVAL;
use super::period::entries_in;
use super::tree::Nodes;
use super::{EntryProof, EventColumns, HexHash, MakeError, Proof};
use crate::model::Alert;
use crate::segment::SegmentError;

/// Ancestors that evidence has: as many names as the column `ancestry`.
const ANCESTORS: usize = 16;
/// Of this time before an alert evidence has every entry, in µs.
pub const BEFORE_US: i64 = 600_000_000;
/// Seconds of a run: that time, and up to a heartbeat's on either side of it.
const RUN_S: u64 = 720;
/// Entries of a run: all that may come in that time, 87,904.
pub(super) const RUN_ENTRIES: u64 = entries_in(RUN_S);
const _: () = assert!(RUN_S * 1_000_000 == BEFORE_US as u64 + 2 * 1_000_000 * HEARTBEAT_INTERVAL.as_secs());
/// Actions of entries whose payloads say what was seen in a time. Of others the hash is enough, and may be all that is handed on.
const TELLING: [&str; 5] = ["coverage", "coverage-gap", "heartbeat", "start", "stop"];

/// What a row of evidence is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// An event: the start of a parent, of its parent and so on.
    Ancestor,
    /// An event that the alert names.
    Cause,
    /// What was not seen.
    Coverage,
    /// The entry that tells of the alert.
    Raised,
    /// The entry that an event hangs below.
    Range,
    /// The alert's rule was loaded.
    Rule,
    /// One of all entries of the time before the alert.
    Run,
    /// What an operator did with the alert.
    Status,
    /// Another start of one of the programs.
    Start,
    /// The start of the program that raised it or saw a cause.
    Version,
}

impl Role {
    /// The word.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Ancestor => "ancestor",
            Self::Cause => "cause",
            Self::Coverage => "coverage",
            Self::Raised => "raised",
            Self::Range => "range",
            Self::Rule => "rule",
            Self::Run => "run",
            Self::Status => "status",
            Self::Start => "start",
            Self::Version => "version",
        }
    }
}

/// Whether a part of evidence is whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Whole {
    /// All that has to be there is.
    Complete,
    /// The checkpoint ends before what would tell: a file under a later one is whole or lacks something.
    Early,
    /// Something that has to be there is not.
    Lacking,
    /// Nothing in the file tells how much there is.
    Unknown,
}

/// A part of evidence.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Part {
    /// Which one.
    pub name: &'static str,
    /// Whether it is whole.
    pub whole: Whole,
    /// What is there, or what is not.
    pub detail: String,
}

/// What a file has of an alert.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Evidence {
    /// Per event of the file.
    pub events: Vec<Role>,
    /// Per entry.
    pub entries: Vec<Role>,
    /// Each once.
    pub parts: Vec<Part>,
}

/// The ancestors of an alert's causes, nearest first, so that whoever makes a file and whoever reads it mean the same.
#[derive(Debug)]
pub struct Lineage {
    known: HashSet<String>,
    waiting: VecDeque<Ancestor>,
    left: usize,
}

impl Lineage {
    /// Of the causes, in the alert's order.
    pub fn of<'a>(causes: impl Iterator<Item = &'a EventColumns>) -> Self {
        let mut lineage = Self { known: HashSet::new(), waiting: VecDeque::new(), left: ANCESTORS };
        for cause in causes {
            lineage.known.extend(text(cause, "entity_id").map(str::to_owned));
            lineage.add(cause);
        }
        lineage
    }

    /// The next one, each once; `None`: these are all, or there are too many.
    pub fn wanted(&mut self) -> Option<Ancestor> {
        while let Some(parent) = self.waiting.pop_front().filter(|_| self.left > 0) {
            if self.known.insert(parent.entity_id.clone()) {
                self.left -= 1;
                return Some(parent);
            }
        }
        None
    }

    /// Goes on to the parent of an ancestor whose start is known.
    pub fn add(&mut self, row: &EventColumns) {
        self.waiting.extend(Ancestor::of(row));
    }
}

/// A parent as its child's row names it: a process has a start for each program that it ran, and one of them is the child's parent.
#[derive(Debug, Clone)]
pub struct Ancestor {
    /// Which process.
    pub entity_id: String,
    child: EventColumns,
}

impl Ancestor {
    fn of(child: &EventColumns) -> Option<Self> {
        let entity_id = text(child, "parent_entity_id")?.to_owned();
        Some(Self { entity_id, child: child.clone() })
    }

    /// Where the child stands in its stream: collector, epoch, number.
    #[must_use]
    pub fn child(&self) -> Option<(&str, u64, u64)> {
        place(&self.child)
    }

    /// Which of these rows show it as the child names it: its start, or where it took another name or title since, a start of the same
    /// executable and the event that tells of the change. Of several the first counts.
    #[must_use]
    pub fn shown_by(&self, rows: &[&EventColumns]) -> Option<Vec<usize>> {
        let of = |kind: &'static str| {
            let told = rows.iter().enumerate().filter(move |(_, row)| text(row, "event_type") == Some(kind));
            told.filter(|(_, row)| self.is_told_before(row))
        };
        if let Some((start, _)) = of("start").find(|(_, row)| self.is_as_named(row)) {
            return Some(vec![start]);
        }
        let (change, changed) = of("modify").find(|(_, row)| self.is_as_named(row))?;
        let path = text(changed, "executable_path")?;
        let (start, _) =
            of("start").find(|(_, row)| text(row, "executable_path") == Some(path) && place(row) < place(changed))?;
        Some(vec![start, change])
    }

    /// Whether it is an event of this process that is not later than the child. Of two streams no order is known, and the collector's
    /// first look at all that runs may come behind its first events.
    fn is_told_before(&self, row: &EventColumns) -> bool {
        let is_before = match (place(row), self.child()) {
            (Some((collector, epoch, number)), Some((child, of_child, at))) if collector == child => {
                (epoch, number) < (of_child, at)
            }
            _ => true,
        };
        let is_told = is_before || text(row, "start_kind") == Some("baseline");
        is_told && text(row, "entity_id") == Some(self.entity_id.as_str())
    }

    /// Whether name, executable and command line are those that the child names, as far as both rows have them.
    fn is_as_named(&self, row: &EventColumns) -> bool {
        ["name", "executable_path", "command_line"].into_iter().all(|own| {
            let named = format!("parent_{own}");
            let (Some(one), Some(other)) = (text(row, own), text(&self.child, &named)) else { return true };
            let cut = |of: &EventColumns, column: &str| {
                text(of, "truncated").is_some_and(|cut| cut.split(',').any(|name| name == column))
            };
            one == other
                || cut(row, own) && other.starts_with(one)
                || cut(&self.child, &named) && one.starts_with(other)
        })
    }
}

fn place(row: &EventColumns) -> Option<(&str, u64, u64)> {
    let number = |name: &str| row.get(name).and_then(Value::as_u64);
    Some((text(row, "collector")?, number("epoch")?, number("seq")?))
}

fn text<'a>(row: &'a EventColumns, name: &str) -> Option<&'a str> {
    row.get(name).and_then(Value::as_str)
}

fn before_ms(alert: &Alert) -> i64 {
    alert.time_us.saturating_sub(BEFORE_US).div_euclid(1_000)
}

fn is_over(entry: &EntryProof, alert: &Alert) -> bool {
    let end_ms = alert.last_seen_us.div_euclid(1_000);
    entry.is_collectors() && entry.heartbeat().is_some_and(|beat| beat.to_ms > end_ms)
}

/// Whether a row of coverage is of the time of an alert.
#[must_use]
pub fn is_touched(payload: &Value, alert: &Alert) -> bool {
    let number = |name: &str| payload.get(name).and_then(Value::as_i64);
    let begins = number("from_us").is_some_and(|from| from <= alert.last_seen_us);
    begins && number("to_us").is_some_and(|to| to >= alert.time_us.saturating_sub(BEFORE_US))
}

/// Every entry from the collector's last one before the time to the one that tells of the alert, and on to the first heartbeat over it,
/// or to the tree's end where there is none; `None`: they are too many, or one cannot be read.
///
/// # Errors
/// The files cannot be read.
pub fn run_before(
    alert: &Alert,
    raised: u64,
    files: &LedgerFiles,
    size: u64,
) -> Result<Option<Vec<EntryProof>>, SegmentError> {
    let from_ms = before_ms(alert);
    let (mut taken, mut begun, mut over): (Vec<EntryProof>, _, _) = (Vec::new(), false, false);
    for record in files.since(from_ms)? {
        let Some(entry) = EntryProof::linked(&record?).filter(|entry| entry.sequence < size) else { break };
        if entry.is_collectors() {
            begun |= entry.timestamp_ms > from_ms;
            if !begun {
                taken.clear();
            }
        }
        let follows = taken.last().is_none_or(|last| last.is_before(&entry));
        if !follows || taken.len() as u64 == RUN_ENTRIES {
            break;
        }
        over |= is_over(&entry, alert);
        let ends = over && entry.sequence >= raised;
        taken.push(entry);
        if ends {
            break;
        }
    }
    Ok(taken.last().is_some_and(|last| last.sequence >= raised).then_some(taken))
}

impl Proof {
    /// Adds entries that follow each other, beside those that are there already. Payloads that say nothing of the time stay behind.
    ///
    /// # Errors
    /// [`MakeError`].
    pub fn add_run<N: Nodes>(
        &mut self,
        mut run: Vec<EntryProof>,
        size: u64,
        nodes: &mut N,
    ) -> Result<(), MakeError<N::Error>> {
        if let Some(last) = run.last_mut() {
            last.inclusion = self.path(last.sequence, size, nodes)?;
        }
        for mut entry in run {
            let Err(place) = self.entries.binary_search_by_key(&entry.sequence, |known| known.sequence) else {
                continue;
            };
            if !TELLING.contains(&entry.action.as_str()) {
                entry.withhold();
            }
            self.entries.insert(place, entry);
        }
        Ok(())
    }
}

impl EntryProof {
    fn withhold(&mut self) {
        let hash: Hash = *blake3::hash(self.payload.as_bytes()).as_bytes();
        (self.payload, self.payload_hash) = (String::new(), Some(HexHash(hash)));
    }

    fn json(&self) -> Value {
        serde_json::from_str(&self.payload).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::super::super::checkpoint::{Checkpoint, origin};
    use super::super::super::event::{self, Content};
    use super::super::super::heartbeat::HEARTBEAT;
    use super::super::super::note::NoteSigner;
    use super::super::super::tree::{self, TreeHash};
    use super::super::super::{AGENT, AuditEntry, EventRange, GENESIS, LedgerRecord, RangeBuilder};
    use super::super::{LeafNodes, ProofFault, RangeLeaves, Row, Target, rule_hash};
    use super::*;
    use crate::event_json::{EventRow, Origin};
    use crate::model::{AlertStatus, Completeness, EventPointer, Severity};
    use crate::proto::{EventType, ProcessEvent, ProcessRecord, Sequence};

    const MINUTE: i64 = 60_000;
    /// Entries of the sample.
    const RANGE: u64 = 21;
    const COVERAGE: u64 = 22;
    const REFUSED: u64 = 23;
    const RAISED: u64 = 24;
    const OVER: u64 = 25;
    const FOREIGN: u64 = 28;
    const SIZE: u64 = 29;

    /// Process 4 was started by 2, that by 1; 3 is another.
    fn event(number: u64) -> ProcessEvent {
        let id = |number: u8| vec![number; 16];
        let parent = match number {
            4 => Some(id(2)),
            2 => Some(id(1)),
            _ => None,
        };
        let entity_id = id(u8::try_from(number).unwrap());
        let process = ProcessRecord {
            entity_id,
            parent_entity_id: parent,
            parent_name: (number == 2).then(|| "sh".into()),
            pid: 7,
            name: "sh".into(),
            ..ProcessRecord::default()
        };
        ProcessEvent {
            event_type: EventType::Start.into(),
            time_us: 20 * MINUTE * 1_000,
            process: Some(process),
            ..ProcessEvent::default()
        }
    }

    fn row(number: u64, event: &ProcessEvent) -> EventColumns {
        let origin = Origin { collector: "procmond", sequence: Some(Sequence::new(3, number)) };
        Row::columns(EventRow::new(event, origin).cells().map(|(_, cell)| cell))
    }

    /// A rule, and what an override changes of it.
    fn rule() -> Vec<String> {
        vec!["{}".to_owned(), r#"{"severity":"low"}"#.to_owned()]
    }

    fn alert() -> Alert {
        let time_us = (20 * MINUTE + MINUTE / 2) * 1_000;
        Alert {
            id: uuid::Uuid::from_u128(1),
            time_us,
            severity: Severity::High,
            title: "t".into(),
            description: String::new(),
            rule_id: uuid::Uuid::from_u128(2),
            rule_version: 1,
            rule_hash: rule_hash(&rule()),
            pack: String::new(),
            tags: Vec::new(),
            process: serde_json::Map::new(),
            row: serde_json::Map::new(),
            events: vec![EventPointer { collector: "procmond".into(), epoch: 3, number: 4 }],
            dedup_key: String::new(),
            count: 1,
            first_seen_us: time_us,
            last_seen_us: time_us,
            completeness: Completeness::complete(),
            engine: "daemoneye-engine 1.2".into(),
            host: String::new(),
            status: AlertStatus::Open,
            suppressed_by: None,
        }
    }

    fn beat(minute: i64) -> String {
        let beat = serde_json::json!({
            "collector": "procmond", "from_ms": (minute - 1) * MINUTE, "to_ms": minute * MINUTE, "state": "running", "events": 0,
            "lost": 0, "errors": 0, "cycles": 12, "entities": 90, "last": null,
        });
        beat.to_string()
    }

    struct Sample {
        alert: String,
        signer: NoteSigner,
        checkpoint: String,
        records: Vec<LedgerRecord>,
        nodes: LeafNodes,
        range: EventRange,
        leaves: RangeLeaves,
        event: fn(u64) -> ProcessEvent,
    }

    fn sample() -> Sample {
        sample_of(SIZE, event)
    }

    /// With so many entries, and these events.
    fn sample_of(size: u64, event: fn(u64) -> ProcessEvent) -> Sample {
        let (mut builder, mut leaves) = (RangeBuilder::new("procmond"), RangeLeaves::default());
        for number in 1..=4 {
            let content = Content::of_event(&event(number));
            builder.add(Sequence::new(3, number), content);
            if let Content::Event(hash) = content {
                leaves.add(number, event::leaf(number, &hash));
            }
        }
        let range = builder.take().remove(0);
        let alert_text = serde_json::to_string(&alert()).unwrap();
        let covered = |at: i64| serde_json::json!({"row": 1, "from_us": at * 1_000, "to_us": at * 1_000}).to_string();
        let told = serde_json::json!({
            "alert": alert().id, "record": blake3::hash(alert_text.as_bytes()).to_hex().as_str(),
        });
        let status = serde_json::json!({"alert": alert().id, "to": "closed"}).to_string();
        let mut lines: Vec<(&str, &str, i64, String)> = vec![
            ("procmond", "start", 0, r#"{"epoch":3,"version":"1.1"}"#.into()),
            (AGENT, "start", 1, r#"{"build":"1.2"}"#.into()),
        ];
        lines.extend((1..20).map(|minute| ("procmond", HEARTBEAT, minute * MINUTE + 2, beat(minute))));
        let at = 20 * MINUTE;
        lines.extend([
            ("procmond", "event-range", at, String::from_utf8(range.payload()).unwrap()),
            (AGENT, "coverage", at, covered(at)),
            ("operator:eve", "query-refused", at, r#"{"sql":"a secret"}"#.into()),
            (AGENT, "alert", at, told.to_string()),
            ("procmond", HEARTBEAT, at + MINUTE, beat(21)),
            ("operator:eve", "alert-status", at + MINUTE, status),
            (AGENT, "coverage", at + 2 * MINUTE, covered(at + 1)),
            ("procmond", "config", at + 3 * MINUTE, "{}".into()),
        ]);
        let mut previous = GENESIS;
        let chain = (0..).zip(lines).map(|(sequence, (actor, action, time, payload))| {
            let entry = AuditEntry::link(sequence, previous, time, actor, action, payload.as_bytes());
            previous = entry.entry_hash;
            LedgerRecord { entry, payload: payload.into(), outbox_id: 0, covered: None, leaf: None }
        });
        let records: Vec<LedgerRecord> = chain.take(usize::try_from(size).unwrap()).collect();
        let leaf = |record: &LedgerRecord| TreeHash::Sha256.leaf(&record.entry.canonical_bytes());
        let mut nodes = LeafNodes::new(TreeHash::Sha256, records.iter().map(leaf).collect());
        assert_eq!(records.len() as u64, size);
        let root = tree::root(&mut nodes, TreeHash::Sha256, size).unwrap_or_default();
        let signer = NoteSigner::new(&origin("m"), &[1; 32]).unwrap();
        let checkpoint = Checkpoint { origin: origin("m"), size, root }.sign(&signer).unwrap();
        Sample { alert: alert_text, signer, checkpoint, records, nodes, range, leaves, event }
    }

    impl Sample {
        /// A file with these events and entries, the time before the alert ending at the first heartbeat over it.
        fn file(&mut self, events: &[u64], entries: impl Fn(u64) -> bool) -> Proof {
            let target = Target::Evidence(alert().id.to_string());
            let mut proof = Proof::new(target, TreeHash::Sha256, self.checkpoint.clone(), Vec::new());
            proof.alert = Some(self.alert.clone());
            proof.rule = rule();
            for record in self.records.iter().filter(|record| entries(record.entry.sequence)) {
                proof.add_entry(record, self.records.len() as u64, &mut self.nodes).unwrap();
            }
            for number in events {
                let row = row(*number, &(self.event)(*number));
                proof.add_event(RANGE, &self.range, &self.leaves, row, *number).unwrap();
            }
            proof
        }

        fn judged(&self, proof: &Proof) -> Result<Evidence, ProofFault> {
            let read = Proof::of_file(&proof.to_file())?;
            read.verify(self.signer.verifier()).map(|verified| verified.evidence.unwrap())
        }

        fn lacking(&self, proof: &Proof) -> Vec<&'static str> {
            let parts = self.judged(proof).unwrap().parts;
            parts.into_iter().filter(|part| part.whole == Whole::Lacking).map(|part| part.name).collect()
        }
    }

    #[test]
    fn an_ancestor_that_ran_another_program_then_is_lacking() {
        let named = |number: u64| {
            let mut made = event(number);
            made.process.as_mut().unwrap().parent_name = (number == 4).then(|| "evil".into());
            made
        };
        let mut sample = sample_of(SIZE, named);
        let proof = sample.file(&[4, 2, 1], belongs);
        assert_eq!(sample.lacking(&proof), ["ancestors"]);
    }

    /// A child of process 1, which ran `name` then.
    fn child(name: &str) -> EventColumns {
        let text = |text: &str| Value::from(text);
        [
            ("collector", text("procmond")),
            ("epoch", 3.into()),
            ("seq", 9.into()),
            ("parent_entity_id", text(&"01".repeat(16))),
            ("parent_name", text(name)),
            ("parent_executable_path", text(&format!("/bin/{name}"))),
            ("parent_command_line", text(&format!("{name} -x"))),
        ]
        .map(|(name, value)| (name.to_owned(), value))
        .into()
    }

    fn told(kind: &str, seq: u64, name: &str, more: &[(&str, &str)]) -> EventColumns {
        let text = |text: &str| Value::from(text);
        let mut row: EventColumns = [
            ("collector", text("procmond")),
            ("epoch", 3.into()),
            ("seq", seq.into()),
            ("event_type", text(kind)),
            ("entity_id", text(&"01".repeat(16))),
            ("name", text(name)),
            ("executable_path", text(&format!("/bin/{name}"))),
            ("command_line", text(&format!("{name} -x"))),
        ]
        .map(|(name, value)| (name.to_owned(), value))
        .into();
        row.extend(more.iter().map(|(name, value)| ((*name).to_owned(), text(value))));
        row
    }

    #[test]
    fn the_start_of_an_ancestor_is_that_of_the_program_that_its_child_names() {
        let ancestor = Ancestor::of(&child("evil")).unwrap();
        let shown = |rows: &[&EventColumns]| {
            let found = ancestor.shown_by(rows)?;
            Some(found.iter().map(|place| rows[*place]["seq"].as_u64().unwrap()).collect::<Vec<_>>())
        };
        let (sh, evil) = (told("start", 1, "sh", &[]), told("start", 2, "evil", &[]));
        assert_eq!(shown(&[&sh, &evil]), Some(vec![2]));
        assert_eq!(shown(&[&sh]), None, "what it ran before");
        assert_eq!(shown(&[&told("start", 10, "evil", &[])]), None, "later than the child");
        let looked_at = told("start", 10, "evil", &[("start_kind", "baseline")]);
        assert_eq!(shown(&[&looked_at]), Some(vec![10]), "it ran before, and was looked at later");
        for other in [("name", "x"), ("executable_path", "/x"), ("command_line", "evil"), ("entity_id", "x")] {
            assert_eq!(shown(&[&told("start", 2, "evil", &[other])]), None, "{other:?}");
        }
        let mut unread = evil.clone();
        unread.remove("command_line");
        assert_eq!(shown(&[&unread]), Some(vec![2]));
        // A line that was cut begins as the whole one does.
        let cut = [("command_line", "evil"), ("truncated", "cwd,command_line")];
        assert_eq!(shown(&[&told("start", 2, "evil", &cut)]), Some(vec![2]));
        // One that took another title, and the event that tells of it.
        let before = told("start", 2, "evil", &[("command_line", "evil --daemon")]);
        let titled = told("modify", 3, "evil", &[]);
        assert_eq!(shown(&[&before, &titled]), Some(vec![2, 3]));
        assert_eq!(shown(&[&titled]), None, "no start");
        assert_eq!(shown(&[&sh, &titled]), None, "of another executable");
    }

    /// All that belongs to the alert.
    fn belongs(sequence: u64) -> bool {
        sequence < 2 || (11..FOREIGN).contains(&sequence)
    }

    #[test]
    fn each_row_of_evidence_is_labelled_and_each_part_is_said_to_be_whole() {
        let mut sample = sample();
        let judged = sample.file(&[4, 2, 1], belongs);
        let judged = sample.judged(&judged).unwrap();
        assert_eq!(judged.events, [Role::Cause, Role::Ancestor, Role::Ancestor]);
        let shown: Vec<Role> = judged.entries.into_iter().filter(|role| *role != Role::Run).collect();
        let expected =
            [Role::Version, Role::Version, Role::Range, Role::Coverage, Role::Raised, Role::Status, Role::Coverage];
        assert_eq!(shown, expected);
        let parts: Vec<_> = judged.parts.iter().map(|part| (part.name, part.whole)).collect();
        let complete = ["causes", "ancestors", "rule", "versions", "coverage"].map(|name| (name, Whole::Complete));
        assert_eq!(parts[..5], complete);
        assert_eq!(parts[5..], [("coverage", Whole::Unknown), ("status", Whole::Unknown)]);
        let told = judged.parts.iter().find(|part| part.name == "versions").unwrap();
        assert_eq!(told.detail, "agent 1.2, procmond 1.1");
    }

    #[test]
    fn what_was_left_out_of_evidence_is_told() {
        let mut sample = sample();
        for (events, lacking) in
            [(&[4, 2][..], &["ancestors"][..]), (&[4], &["ancestors"]), (&[], &["causes"]), (&[4, 2, 1], &[])]
        {
            let proof = sample.file(events, belongs);
            assert_eq!(sample.lacking(&proof), lacking, "{events:?}");
        }
        for (left_out, lacking) in [(0, "versions"), (1, "versions"), (11, "coverage")] {
            let proof = sample.file(&[4, 2, 1], |sequence| belongs(sequence) && sequence != left_out);
            assert_eq!(sample.lacking(&proof), [lacking], "{left_out}");
        }
        let proof = sample.file(&[4, 2, 1], |sequence| belongs(sequence) && !(11..=15).contains(&sequence));
        assert_eq!(sample.lacking(&proof), ["coverage"]);
        // As builds before this one made it: nothing of the time but a row.
        let proof = sample.file(&[4, 2, 1], |sequence| [0, 1, RANGE, COVERAGE, RAISED].contains(&sequence));
        assert_eq!(sample.lacking(&proof), ["coverage"]);
        let mut proof = sample.file(&[4, 2, 1], belongs);
        proof.rule.clear();
        assert_eq!(sample.lacking(&proof), ["rule"]);
        // Cut behind the alert, with the heartbeat over it.
        let proof = sample.file(&[4, 2, 1], |sequence| belongs(sequence) && sequence < OVER);
        assert_eq!(sample.lacking(&proof), ["coverage"]);
    }

    #[test]
    fn a_hash_and_an_override_are_no_text_of_a_rule() {
        let mut sample = sample();
        let mut proof = sample.file(&[4, 2, 1], belongs);
        let [document, changed] = rule().try_into().unwrap();
        proof.rule = vec![format!("{}\n{changed}", rule_hash(&[document]))];
        assert_eq!(rule_hash(&proof.rule), alert().rule_hash);
        assert!(matches!(sample.judged(&proof), Err(ProofFault::CorruptRule)));
    }

    #[test]
    fn evidence_made_before_the_heartbeat_over_it_goes_to_the_end_of_its_checkpoint() {
        let mut sample = sample_of(OVER, event);
        let proof = sample.file(&[4, 2, 1], belongs);
        let parts = sample.judged(&proof).unwrap().parts;
        let coverage: Vec<Whole> =
            parts.iter().filter(|part| part.name == "coverage").map(|part| part.whole).collect();
        assert_eq!(coverage, [Whole::Early, Whole::Unknown], "nobody knows what was lost in the alert's own minute");
        assert!(sample.lacking(&proof).is_empty());
    }

    #[test]
    fn what_was_put_into_evidence_is_refused() {
        let mut sample = sample();
        let refused = |proof: &Proof, sample: &Sample| {
            let judged = sample.judged(proof);
            assert!(matches!(judged, Err(ProofFault::CorruptTarget(_))), "{judged:?}");
        };
        let proof = sample.file(&[4, 2, 1, 3], belongs);
        refused(&proof, &sample);
        // An ancestor of none that is there.
        let proof = sample.file(&[4, 1], belongs);
        refused(&proof, &sample);
        for more in [2, 9, FOREIGN] {
            let proof = sample.file(&[4, 2, 1], |sequence| belongs(sequence) || sequence == more);
            refused(&proof, &sample);
            // Also where entries of the time are missing.
            let proof = sample.file(&[4, 2, 1], |sequence| (belongs(sequence) && sequence != 11) || sequence == more);
            refused(&proof, &sample);
        }
        // Whoever makes a file takes all entries of the time, or none.
        for hole in [15, COVERAGE] {
            let proof = sample.file(&[4, 2, 1], |sequence| belongs(sequence) && sequence != hole);
            refused(&proof, &sample);
        }
    }

    #[test]
    fn payloads_that_say_nothing_of_the_time_stay_behind_and_those_that_do_may_not() {
        let mut sample = sample();
        let mut proof = sample.file(&[4, 2, 1], |sequence| [0, 1, RANGE, RAISED].contains(&sequence));
        let run = sample.records[11..26].iter().filter_map(EntryProof::linked).collect();
        proof.add_run(run, SIZE, &mut sample.nodes).unwrap();
        assert!(sample.lacking(&proof).is_empty());
        assert_eq!(proof.entries.len(), 17);
        let file = proof.to_file();
        assert!(!file.contains("a secret") && file.contains("query-refused"), "{file}");

        let place = |number: u64| proof.entries.iter().position(|entry| entry.sequence == number).unwrap();
        for number in [12, COVERAGE, RAISED, RANGE, 0] {
            let mut withheld = proof.clone();
            withheld.entries[place(number)].withhold();
            assert!(sample.judged(&withheld).is_err(), "{number}");
        }
        let mut both = proof.clone();
        both.entries[place(REFUSED)].payload = r#"{"sql":"another"}"#.into();
        assert!(matches!(sample.judged(&both), Err(ProofFault::CorruptFile(_))));
        let mut other = proof.clone();
        other.entries[place(REFUSED)].payload_hash = Some(HexHash([7; 32]));
        assert!(matches!(sample.judged(&other), Err(ProofFault::CorruptEntry { .. })));
        let mut alone = Proof::new(Target::Entry(REFUSED), TreeHash::Sha256, sample.checkpoint.clone(), Vec::new());
        alone.add_entry(&sample.records[23], SIZE, &mut sample.nodes).unwrap();
        alone.entries[0].withhold();
        assert!(matches!(alone.verify(sample.signer.verifier()), Err(ProofFault::CorruptTarget(_))));
    }
}
