//! What the verified rows of a file are to its alert, and what of it is not there.

use std::collections::HashSet;

use serde_json::Value;

use super::super::super::AGENT;
use super::super::{EntryProof, EventColumns, Proof};
use super::{Evidence, Lineage, Part, Role, TELLING, Whole, before_ms, is_over, is_touched, text};
use crate::model::{Alert, EventPointer};

/// Verified parts of a file, on the way to what they are.
struct Judge<'a> {
    proof: &'a Proof,
    alert: &'a Alert,
    /// Places of the events.
    at: &'a [EventPointer],
    /// Place of the entry that tells of the alert.
    raised: usize,
    /// Entries that the checkpoint is over.
    size: u64,
    events: Vec<Option<Role>>,
    entries: Vec<Option<Role>>,
    parts: Vec<Part>,
}

impl Evidence {
    /// What verified rows are to an alert.
    pub(in super::super) fn of(
        proof: &Proof,
        alert: &Alert,
        at: &[EventPointer],
        (raised, size): (u64, u64),
    ) -> Result<Self, &'static str> {
        if proof.entries.iter().any(|entry| entry.payload_hash.is_some() && TELLING.contains(&entry.action.as_str())) {
            return Err("the payload of an entry that tells what was seen is withheld");
        }
        let raised = proof.entries.iter().position(|entry| entry.sequence == raised);
        let mut judge = Judge {
            proof,
            alert,
            at,
            raised: raised.unwrap_or_default(),
            size,
            events: vec![None; proof.events.len()],
            entries: vec![None; proof.entries.len()],
            parts: Vec::new(),
        };
        judge.causes();
        judge.ancestors();
        judge.rule();
        judge.versions();
        let run = judge.run();
        judge.others(run)
    }
}

impl<'a> Judge<'a> {
    fn part(&mut self, name: &'static str, lacking: &[String], detail: String) {
        let (whole, detail) = match lacking {
            [] => (Whole::Complete, detail),
            some => (Whole::Lacking, some.join("; ")),
        };
        self.parts.push(Part { name, whole, detail });
    }

    fn place_of(&self, pointer: &EventPointer) -> Option<usize> {
        self.at.iter().position(|at| at == pointer)
    }

    fn row(&self, place: usize) -> Option<&'a EventColumns> {
        self.proof.events.get(place).map(|event| &event.row)
    }

    fn set(roles: &mut [Option<Role>], place: usize, role: Role) {
        if let Some(known) = roles.get_mut(place) {
            known.get_or_insert(role);
        }
    }

    fn causes(&mut self) {
        let mut lacking = Vec::new();
        for pointer in &self.alert.events {
            match self.place_of(pointer) {
                Some(place) => Self::set(&mut self.events, place, Role::Cause),
                None => lacking
                    .push(format!("event {} caused the alert and is not in the file", super::super::shown(pointer))),
            }
        }
        self.part("causes", &lacking, format!("all {} events that the alert names", self.alert.events.len()));
    }

    fn ancestors(&mut self) {
        let causes: Vec<&EventColumns> =
            self.alert.events.iter().filter_map(|pointer| self.row(self.place_of(pointer)?)).collect();
        let mut lineage = Lineage::of(causes.into_iter());
        let (mut lacking, mut found) = (Vec::new(), 0);
        let rows: Vec<&EventColumns> = self.proof.events.iter().map(|event| &event.row).collect();
        while let Some(wanted) = lineage.wanted() {
            let id = &wanted.entity_id;
            let is_start =
                |row: &&EventColumns| text(row, "entity_id") == Some(id) && text(row, "event_type") == Some("start");
            let shown = wanted.shown_by(&rows);
            // Another of its starts belongs here too, and shows less.
            let other = || rows.iter().position(is_start).into_iter().collect();
            let taken: Vec<usize> = shown.clone().unwrap_or_else(other);
            match (&shown, taken.first()) {
                (Some(_), _) => found += 1,
                (None, Some(_)) => lacking.push(format!(
                    "the start of process {id}, an ancestor, is in the file as that of another program than its child names, or as a later one"
                )),
                (None, None) => lacking.push(format!("the start of process {id}, an ancestor, is not in the file")),
            }
            taken.iter().for_each(|place| Self::set(&mut self.events, *place, Role::Ancestor));
            if let Some(row) = taken.first().and_then(|place| rows.get(*place)) {
                lineage.add(row);
            }
        }
        let bound = if lineage.left == 0 { ", the nearest" } else { ", up to one that names no parent" };
        self.part("ancestors", &lacking, format!("{found} processes{bound}"));
    }

    fn rule(&mut self) {
        let lacking = "the rule's text is not in the file: that version was kept no more when it was made".to_owned();
        let lacking = if self.proof.rule.is_empty() { vec![lacking] } else { Vec::new() };
        self.part("rule", &lacking, "its text has the hash that the alert names".to_owned());
    }

    fn start(&self, fits: impl Fn(&EntryProof, &Value) -> bool) -> Option<(usize, Value)> {
        let before = self.proof.entries.iter().enumerate().take(self.raised).rev();
        let mut starts = before.filter(|(_, entry)| entry.action == "start").map(|found| (found, found.1.json()));
        starts.find(|((_, entry), payload)| fits(entry, payload)).map(|((place, _), payload)| (place, payload))
    }

    fn versions(&mut self) {
        let (mut lacking, mut told) = (Vec::new(), Vec::new());
        let build = self.alert.engine.rsplit(' ').next().unwrap_or_default();
        match self.start(|entry, payload| entry.actor == AGENT && payload.get("build") == Some(&Value::from(build))) {
            Some((place, _)) => {
                Self::set(&mut self.entries, place, Role::Version);
                told.push(format!("agent {build}"));
            }
            None => lacking.push(format!("the start of the agent of build {build} is not in the file")),
        }
        let causes = self.alert.events.iter().filter(|pointer| self.place_of(pointer).is_some());
        let streams: HashSet<(&str, u64)> = causes.map(|at| (at.collector.as_str(), at.epoch)).collect();
        for (collector, epoch) in streams {
            let found = self.start(|entry, payload| {
                entry.actor == collector && payload.get("epoch").and_then(Value::as_u64) == Some(epoch)
            });
            match found {
                Some((place, payload)) => {
                    Self::set(&mut self.entries, place, Role::Version);
                    let version = payload.get("version").and_then(Value::as_str).unwrap_or_default();
                    told.push(format!("{collector} {version}"));
                }
                None => lacking.push(format!("the start of {collector} for epoch {epoch} is not in the file")),
            }
        }
        self.part("versions", &lacking, told.join(", "));
    }

    /// The places of all entries of the time, where none is missing.
    fn run(&mut self) -> Option<std::ops::RangeInclusive<usize>> {
        let (entries, raised) = (&self.proof.entries, self.raised);
        let is_linked = |place: &usize| {
            let before = place.checked_sub(1).and_then(|before| entries.get(before));
            before.zip(entries.get(*place)).is_some_and(|(before, entry)| before.is_before(entry))
        };
        let first = (0..=raised).rev().find(|place| !is_linked(place)).unwrap_or_default();
        let from_ms = before_ms(self.alert);
        let block = entries.iter().enumerate().take(raised + 1).skip(first);
        let own = block.filter(|(_, entry)| entry.is_collectors());
        let early = own.take_while(|(_, entry)| entry.timestamp_ms <= from_ms).last().map(|(place, _)| place);
        let is_begin = entries.get(first).is_some_and(|entry| entry.sequence == 0);
        let Some(begin) = early.or(is_begin.then_some(first)) else {
            let what =
                "entries of the ten minutes before the alert are not in the file, so what was not seen may be missing";
            self.part("coverage", &[what.to_owned()], String::new());
            return None;
        };
        let behind = (raised + 1..entries.len()).take_while(is_linked).last().unwrap_or(raised);
        let over = (begin..=behind).find(|place| entries.get(*place).is_some_and(|entry| is_over(entry, self.alert)));
        // Without one the file must have all that the checkpoint is over: else it was cut behind the alert. It may have been made with an
        // early checkpoint so that the heartbeat is not in it, so nothing is said of the alert's own minute.
        let run = begin..=over.unwrap_or(behind).max(raised);
        let beats: Vec<_> = run.clone().filter_map(|place| entries.get(place)?.heartbeat()).collect();
        let lost = beats.iter().fold(0_u64, |sum, beat| sum.saturating_add(beat.lost));
        let errors = beats.iter().fold(0_u64, |sum, beat| sum.saturating_add(beat.errors));
        let awake = beats.iter().filter(|beat| beat.blind().is_none()).count();
        let number = |place: &usize| entries.get(*place).map(|entry| entry.sequence).unwrap_or_default();
        let last = number(run.end());
        let is_cut = over.is_none() && last.saturating_add(1) != self.size;
        let lacking = is_cut.then(|| {
            format!(
                "the ledger goes on behind entry {last}, and what follows is not in the file up to the collector's first heartbeat \
                 over the alert: what was not seen may be missing"
            )
        });
        let detail = format!(
            "every entry of the ledger from {} to {}: {} heartbeats, {} of them of a collector that watched all the time, {lost} \
             events lost, {errors} errors",
            number(run.start()),
            number(run.end()),
            beats.len(),
            awake
        );
        match over {
            None if !is_cut => {
                let detail = format!(
                    "{detail}; the collector's first heartbeat over the alert is not under this checkpoint: ask for \
                    evidence under a later one"
                );
                self.parts.push(Part { name: "coverage", whole: Whole::Early, detail });
            }
            _ => self.part("coverage", lacking.as_slice(), detail),
        }
        let later = format!("what was told of that time behind entry {last}");
        self.parts.push(Part { name: "coverage", whole: Whole::Unknown, detail: later });
        Some(run)
    }

    fn others(mut self, run: Option<std::ops::RangeInclusive<usize>>) -> Result<Evidence, &'static str> {
        let mut changes = 0;
        // Where some are missing those are of that time that hang together with the alert's.
        let run = run.unwrap_or_else(|| self.around());
        for (place, entry) in self.proof.entries.iter().enumerate() {
            let role = match self.role(place, entry) {
                Some(role) => role,
                None if run.contains(&place) => match entry.action.as_str() {
                    "coverage-gap" => Role::Coverage,
                    _ => Role::Run,
                },
                None => return Err("an entry is neither of the alert nor of its time"),
            };
            changes += usize::from(role == Role::Status);
            Self::set(&mut self.entries, place, role);
        }
        let detail = format!("what operators did with it: {changes} changes; there may be others");
        self.parts.push(Part { name: "status", whole: Whole::Unknown, detail });
        let events: Option<Vec<Role>> = self.events.into_iter().collect();
        Ok(Evidence {
            events: events.ok_or("an event is neither a cause of the alert nor an ancestor of one")?,
            entries: self.entries.into_iter().flatten().collect(),
            parts: self.parts,
        })
    }

    /// The places of the entries that follow each other up to the alert's, and from there to the first heartbeat over it or the last one.
    fn around(&self) -> std::ops::RangeInclusive<usize> {
        let is_linked = |(before, next): (&EntryProof, &EntryProof)| before.is_before(next);
        let entries = &self.proof.entries;
        let (before, behind) = entries.split_at(self.raised.saturating_add(1).min(entries.len()));
        let pairs = before.iter().zip(before.iter().skip(1)).rev();
        let first = self.raised.saturating_sub(pairs.take_while(|pair| is_linked(*pair)).count());
        let pairs = before.last().into_iter().chain(behind).zip(behind);
        let linked = pairs.take_while(|pair| is_linked(*pair)).count();
        let over = behind.iter().take(linked).position(|entry| is_over(entry, self.alert));
        first..=self.raised.saturating_add(over.map_or(linked, |over| over.saturating_add(1)))
    }

    fn role(&self, place: usize, entry: &EntryProof) -> Option<Role> {
        if place == self.raised {
            return Some(Role::Raised);
        }
        if self.proof.events.iter().any(|event| event.entry == entry.sequence) {
            return Some(Role::Range);
        }
        let is = |payload: &Value, name: &str, id: uuid::Uuid| {
            payload.get(name).and_then(Value::as_str) == Some(id.to_string().as_str())
        };
        match entry.action.as_str() {
            "alert-status" => is(&entry.json(), "alert", self.alert.id).then_some(Role::Status),
            "coverage" => is_touched(&entry.json(), self.alert).then_some(Role::Coverage),
            "rule-added" | "rule-changed" => {
                let payload = entry.json();
                let same = payload.get("version").and_then(Value::as_u64) == Some(self.alert.rule_version.into());
                (same && is(&payload, "rule", self.alert.rule_id)).then_some(Role::Rule)
            }
            "start" => {
                let is_cause = self.alert.events.iter().any(|at| at.collector == entry.actor);
                (place < self.raised && (is_cause || entry.actor == AGENT)).then_some(Role::Start)
            }
            _ => None,
        }
    }
}
