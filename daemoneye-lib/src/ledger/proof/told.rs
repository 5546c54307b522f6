//! What the entries of a period say of it.
//!
//! Silence is shown by heartbeats: intervals that join and say that somebody watched and that there was nothing. Time that is in no
//! such interval, and what the ledger says was not seen, is a gap and never silence.
//!
//! What happens is found and written a little later, so they have to reach as far beyond the time, at both ends, as two of them are
//! apart. And a clock may be set back: the newest heartbeat of all says which times came more than once, and those are gaps as well.

use std::collections::BTreeMap;

use serde_json::Value;

use super::super::clock::LedgerClock;
use super::super::heartbeat::{HEARTBEAT, HeartbeatEntry};
use super::EntryProof;
use super::period::{Period, run_and_newest};

/// Why a time has two passes.
const SET_BACK: &str = "the clock was set back, so this time came twice";

/// A part of a period of which nothing is shown.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Gap {
    /// ms since the Unix epoch.
    pub from_ms: i64,
    /// ms since the Unix epoch.
    pub to_ms: i64,
    /// Why.
    pub why: String,
}

/// What the entries say of a period.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Told {
    /// Entries in it.
    pub entries: u64,
    /// Heartbeats whose intervals touch it; the counters below are theirs.
    pub heartbeats: u64,
    /// Records.
    pub events: u64,
    /// Events that were lost.
    pub lost: u64,
    /// What failed in the source.
    pub errors: u64,
    /// `event-range` entries in it.
    pub ranges: u64,
    /// `alert` and `alert-suppressed` entries in it.
    pub alerts: u64,
    /// Time of which nothing is shown: first what no heartbeat shows, then what came twice, then what the ledger says was not seen; and
    /// where all of these say nothing, what right before or behind it keeps it from being silence.
    pub gaps: Vec<Gap>,
    /// Places in the file of the entries in the period that are neither heartbeats nor ranges.
    pub others: Vec<usize>,
}

impl Told {
    /// What verified entries say of a period.
    pub(super) fn of(period: Period, entries: &[EntryProof], size: u64) -> Result<Self, &'static str> {
        let (run, newest) = run_and_newest(entries);
        let (Some(first), Some(last)) = (run.first(), run.last()) else { return Err("it has no entry") };
        if period.from_ms >= period.to_ms {
            return Err("the period ends before it begins");
        }
        let is_newest = newest.first().is_none_or(|entry| entry.heartbeat().is_some_and(|beat| beat.clock.is_some()));
        let reaches_end = |of: &[EntryProof]| of.last().and_then(|last| last.sequence.checked_add(1)) == Some(size);
        if !newest.is_sorted_by(EntryProof::is_before) || !is_newest || !(newest.is_empty() || reaches_end(newest)) {
            return Err("an entry is missing");
        }
        let begins = first.sequence == 0 || (first.is_collectors() && first.timestamp_ms <= period.from_ms);
        if !begins {
            return Err("its entries begin behind the period's begin");
        }
        if !period.is_told_by(last) && !reaches_end(run) {
            return Err("its entries end before the period's end, and the ledger goes on");
        }
        let every_ms = run.iter().filter_map(EntryProof::heartbeat).map(|beat| beat.every_ms()).max();
        let reach = period.and_around(every_ms.unwrap_or_default());
        let is_begin = first.sequence == 0 && first.timestamp_ms > reach.from_ms;
        let down = is_begin.then(|| "the ledger begins later".to_owned());
        let seen_ms = reach.from_ms;
        let (told, edges, before, coverage) = (Self::default(), Vec::new(), None, BTreeMap::new());
        let mut walk = Walk { period, reach, told, edges, seen_ms, clock_ms: i64::MIN, before, down, coverage };
        run.iter().enumerate().for_each(|(place, entry)| walk.take(place, entry));
        Ok(walk.end(reaches_end(entries).then(|| clock_at_end(entries)).flatten()))
    }

    /// Whether somebody watched all the time and there was nothing.
    #[must_use]
    pub fn is_silence(&self) -> bool {
        let Self { events, lost, ranges, alerts, gaps, .. } = self;
        (*events, *lost, *ranges, *alerts) == (0, 0, 0, 0) && gaps.is_empty()
    }
}

impl EntryProof {
    /// When something was not seen, and what: of a row of coverage or of what the collector lost itself.
    fn coverage(&self) -> Option<(i64, i64, String)> {
        if !matches!(self.action.as_str(), "coverage" | "coverage-gap") {
            return None;
        }
        let payload: Value = serde_json::from_str(&self.payload).ok()?;
        let text = |name: &str| payload.get(name).and_then(Value::as_str).unwrap_or_default();
        let time = |name: &str| payload.get(name).and_then(Value::as_i64).map(|us| us.div_euclid(1_000));
        let why = format!("coverage of {}: {} {}", text("collector"), text("reason"), text("detail"));
        let (from, to) = time("from_us").zip(time("to_us")).unwrap_or((self.timestamp_ms, self.timestamp_ms));
        Some((from, to, why.trim_end().to_owned()))
    }
}

/// Of the collector, as the last of these entries leave it; `None`: no heartbeat of them tells.
fn clock_at_end(entries: &[EntryProof]) -> Option<LedgerClock> {
    let told = entries.iter().enumerate().rev().find_map(|(place, entry)| Some((place, entry.heartbeat()?.clock?)));
    let (place, mut clock) = told?;
    let behind = entries.iter().skip(place).filter(|entry| entry.is_collectors());
    behind.for_each(|entry| clock.shows(entry.timestamp_ms));
    Some(clock)
}

struct Walk {
    period: Period,
    /// And what is around it.
    reach: Period,
    told: Told,
    /// What keeps the period from being silence although it is not in it.
    edges: Vec<Gap>,
    /// Up to here heartbeats tell, or a gap does.
    seen_ms: i64,
    /// Of the collector's last entry.
    clock_ms: i64,
    before: Option<HeartbeatEntry>,
    /// Why there is no heartbeat since the last one.
    down: Option<String>,
    /// What the ledger says was not seen: since when and why, until when.
    coverage: BTreeMap<(i64, String), i64>,
}

impl Walk {
    fn take(&mut self, place: usize, entry: &EntryProof) {
        if entry.is_collectors() {
            self.clock_ms = entry.timestamp_ms;
            match entry.action.as_str() {
                "stop" => self.down = Some("the collector was stopped".to_owned()),
                "start" => {
                    let why = "the collector ended without a word (killed, or the power failed)";
                    self.down.get_or_insert_with(|| why.to_owned());
                }
                _ => {}
            }
        }
        if let Some(beat) = entry.heartbeat() {
            self.beat(beat);
        }
        if let Some((from_ms, to_ms, why)) = entry.coverage() {
            // A row that grows has an entry each time; nothing makes it less.
            self.coverage.entry((from_ms, why)).and_modify(|until| *until = to_ms.max(*until)).or_insert(to_ms);
        }
        if self.period.has(entry.timestamp_ms) || self.period.has(self.clock_ms) {
            self.count(place, entry);
        }
    }

    fn count(&mut self, place: usize, entry: &EntryProof) {
        self.told.entries += 1;
        match entry.action.as_str() {
            HEARTBEAT => return,
            "event-range" => {
                self.told.ranges += 1;
                return;
            }
            "alert" | "alert-suppressed" => self.told.alerts += 1,
            _ => {}
        }
        self.told.others.push(place);
    }

    fn beat(&mut self, beat: HeartbeatEntry) {
        let (from_ms, to_ms) = (beat.from_ms, beat.to_ms);
        if let Some(before) = self.before.take() {
            if to_ms < from_ms {
                self.gap(to_ms, from_ms, SET_BACK.to_owned());
            }
            if from_ms < before.to_ms {
                self.gap(from_ms, before.to_ms, SET_BACK.to_owned());
            }
            if from_ms == before.to_ms && !beat.fits(&before) {
                self.gap(from_ms, to_ms, "the heartbeat's counters do not go on from the one before it".to_owned());
            }
        }
        if from_ms < self.period.to_ms && to_ms > self.period.from_ms {
            self.told.heartbeats += 1;
            self.told.events = self.told.events.saturating_add(beat.events);
            self.told.lost = self.told.lost.saturating_add(beat.lost);
            self.told.errors = self.told.errors.saturating_add(beat.errors);
        }
        if from_ms < self.reach.to_ms && to_ms > self.reach.from_ms {
            if from_ms >= self.period.to_ms && (beat.events, beat.lost) != (0, 0) {
                self.late(&beat);
            }
            self.unseen(from_ms);
            if let Some(why) = beat.blind() {
                self.gap(from_ms, to_ms, why);
            }
            self.seen_ms = self.seen_ms.max(to_ms);
        }
        self.down = None;
        self.before = Some(beat);
    }

    /// Something was written so shortly behind the period that it may have happened in it.
    fn late(&mut self, beat: &HeartbeatEntry) {
        let why = format!("{} events and {} losses came right behind it and may be of it", beat.events, beat.lost);
        let around_ms = self.reach.to_ms.saturating_sub(self.period.to_ms);
        let from_ms = beat.from_ms.saturating_sub(around_ms);
        self.edges.extend(self.period.part(from_ms, self.period.to_ms, why));
    }

    /// The time up to the next heartbeat, or to the end.
    fn unseen(&mut self, until_ms: i64) {
        if until_ms > self.seen_ms {
            let why = self.down.take().unwrap_or_else(|| "no heartbeat is over it".to_owned());
            self.gap(self.seen_ms, until_ms, why);
        }
    }

    /// One of which the period has no part is told only where the period would be silence without it.
    fn gap(&mut self, from_ms: i64, to_ms: i64, why: String) {
        if from_ms < self.period.to_ms && to_ms > self.period.from_ms {
            self.told.gaps.extend(self.period.part(from_ms, to_ms, why));
        } else {
            self.edges.extend(self.reach.part(from_ms, to_ms, why));
        }
    }

    /// `clock`: of the collector at the end of the ledger, where the file has it.
    fn end(mut self, clock: Option<LedgerClock>) -> Told {
        self.unseen(self.reach.to_ms);
        match clock {
            Some(clock) => {
                for (from_ms, to_ms) in clock.twice_in(self.reach.from_ms, self.reach.to_ms) {
                    self.gap(from_ms, to_ms, SET_BACK.to_owned());
                }
            }
            None => {
                let Period { from_ms, to_ms } = self.period;
                let why = "whether the clock was set back is not shown: the ledger's newest heartbeat is not here, or does not tell";
                self.edges.push(Gap { from_ms, to_ms, why: why.to_owned() });
            }
        }
        for ((from_ms, why), to_ms) in std::mem::take(&mut self.coverage) {
            self.gap(from_ms, to_ms, why);
        }
        if self.told.is_silence() {
            self.told.gaps = self.edges;
        }
        self.told
    }
}

#[cfg(test)]
mod tests {
    use super::super::super::checkpoint::{Checkpoint, origin};
    use super::super::super::note::NoteSigner;
    use super::super::super::tree::{self, TreeHash};
    use super::super::super::{AGENT, AuditEntry, GENESIS, LedgerRecord};
    use super::super::{LeafNodes, Proof, ProofFault, Target};
    use super::*;

    const MINUTE: i64 = 60_000;

    fn beat(minute: i64, events: u64, last: u64) -> HeartbeatEntry {
        HeartbeatEntry {
            collector: "procmond".into(),
            from_ms: minute * MINUTE,
            to_ms: (minute + 1) * MINUTE,
            state: "running".into(),
            trouble: String::new(),
            events,
            lost: 0,
            errors: 0,
            cycles: 12,
            entities: 90,
            last: Some(format!("3:{last}")),
            announced: Some(false),
            look_ms: Some(5_000),
            every_ms: Some(60_000),
            clock: Some(LedgerClock { highest_ms: (minute + 1) * MINUTE, twice: Vec::new() }),
        }
    }

    /// Actor, action, time, payload.
    type Line = (&'static str, &'static str, i64, String);

    fn line(beat: HeartbeatEntry) -> Line {
        ("procmond", HEARTBEAT, beat.to_ms + 2, serde_json::to_string(&beat).unwrap())
    }

    fn own(action: &'static str, minute: i64) -> Line {
        ("procmond", action, minute * MINUTE, "{}".into())
    }

    fn chained(lines: &[Line]) -> Vec<LedgerRecord> {
        let mut previous = GENESIS;
        let chain = (0..).zip(lines).map(|(sequence, (actor, action, time, payload))| {
            let entry = AuditEntry::link(sequence, previous, *time, *actor, *action, payload.as_bytes());
            previous = entry.entry_hash;
            LedgerRecord { entry, payload: payload.clone().into(), outbox_id: 0, covered: None, leaf: None }
        });
        chain.collect()
    }

    fn run(lines: &[Line]) -> Vec<EntryProof> {
        chained(lines).iter().filter_map(EntryProof::linked).collect()
    }

    /// Minutes 1 to 3.
    const PERIOD: Period = Period { from_ms: MINUTE + 5, to_ms: 4 * MINUTE - 5 };

    /// Of minutes 1 to 3; the lines are all of the ledger.
    fn told(lines: &[Line]) -> Result<Told, &'static str> {
        Told::of(PERIOD, &run(lines), lines.len() as u64)
    }

    fn gaps(lines: &[Line]) -> Vec<(i64, i64, String)> {
        let of = |gap: &Gap| (gap.from_ms, gap.to_ms, gap.why.chars().take(27).collect());
        told(lines).unwrap().gaps.iter().map(of).collect()
    }

    fn quiet() -> Vec<Line> {
        let mut lines = vec![own("start", 0)];
        lines.extend((0..5).map(|minute| line(beat(minute, 0, 7))));
        lines
    }

    #[test]
    fn heartbeats_that_join_and_counted_nothing_are_silence_and_one_event_is_none() {
        let told_of = told(&quiet()).unwrap();
        assert!(told_of.is_silence(), "{told_of:?}");
        assert_eq!((told_of.heartbeats, told_of.others.len()), (3, 0));
        let mut lines = quiet();
        lines[3] = line(beat(2, 2, 9));
        lines.splice(4.., [line(beat(3, 0, 9)), line(beat(4, 0, 9))]);
        let told_of = told(&lines).unwrap();
        assert_eq!((told_of.is_silence(), told_of.events, told_of.gaps.len()), (false, 2, 0));
        for action in ["event-range", "alert"] {
            let mut lines = quiet();
            // What an agent said may have waited: its place counts as well as its time.
            lines.insert(3, (AGENT, action, 0, "{}".into()));
            assert!(!told(&lines).unwrap().is_silence(), "{action}");
        }
    }

    #[test]
    fn a_time_that_no_heartbeat_is_over_is_a_gap() {
        let mut lines = quiet();
        lines.splice(3..4, [own("stop", 2), own("start", 3)]);
        assert_eq!(gaps(&lines), [(2 * MINUTE, 3 * MINUTE, "the collector was stopped".into())]);
        lines.remove(3);
        assert_eq!(gaps(&lines), [(2 * MINUTE, 3 * MINUTE, "the collector ended without".into())]);
        lines.remove(3);
        assert_eq!(gaps(&lines), [(2 * MINUTE, 3 * MINUTE, "no heartbeat is over it".into())]);
        let begin = [own("start", 2), line(beat(2, 0, 7)), line(beat(3, 0, 7)), line(beat(4, 0, 7))];
        assert_eq!(gaps(&begin), [(MINUTE + 5, 2 * MINUTE, "the ledger begins later".into())]);
        let period = Period { from_ms: MINUTE, to_ms: 9 * MINUTE };
        let end = Told::of(period, &run(&quiet()), 6).unwrap().gaps;
        assert_eq!(end, [Gap { from_ms: 5 * MINUTE, to_ms: 9 * MINUTE, why: "no heartbeat is over it".into() }]);
    }

    #[test]
    fn an_interval_in_which_nobody_watched_or_whose_numbers_do_not_fit_is_a_gap() {
        let whole = (2 * MINUTE, 3 * MINUTE);
        let paused = HeartbeatEntry { state: "paused".into(), ..beat(2, 0, 7) };
        let failed = HeartbeatEntry { trouble: "source stopped".into(), ..beat(2, 0, 7) };
        let unseen = HeartbeatEntry { errors: 1, ..beat(2, 0, 7) };
        let unlooked = HeartbeatEntry { cycles: 0, ..beat(2, 0, 7) };
        let seldom = HeartbeatEntry { cycles: 5, ..beat(2, 0, 7) };
        let unknown = HeartbeatEntry { announced: None, ..beat(2, 0, 7) };
        let cases = [
            (paused, "the collector was not runnin"),
            (failed, "the source did not watch al"),
            (beat(2, 1, 7), "the heartbeat's counters do "),
            (unseen, "1 looks of the source failed"),
            (unlooked.clone(), "the source has to look, and"),
            (seldom.clone(), "the source has to look ever"),
            (unknown, "a heartbeat of a build that"),
        ];
        for (changed, why) in cases {
            let mut lines = quiet();
            lines[3] = line(changed);
            let why: String = why.chars().take(27).collect();
            assert_eq!(gaps(&lines), [(whole.0, whole.1, why)]);
        }
        for fine in [HeartbeatEntry { cycles: 6, ..seldom }, HeartbeatEntry { announced: Some(true), ..unlooked }] {
            let mut lines = quiet();
            lines[3] = line(fine);
            assert!(told(&lines).unwrap().is_silence());
        }
        let slept = HeartbeatEntry { to_ms: 4 * MINUTE, ..beat(1, 0, 7) };
        let lines = [own("start", 0), line(beat(0, 0, 7)), line(slept), line(beat(4, 0, 7))];
        assert_eq!(gaps(&lines), [(MINUTE + 5, 4 * MINUTE - 5, "one heartbeat for so long a".into())]);
        let back = HeartbeatEntry { from_ms: 2 * MINUTE - 500, ..beat(2, 0, 7) };
        let mut lines = quiet();
        lines[3] = line(back);
        assert_eq!(gaps(&lines), [(2 * MINUTE - 500, 2 * MINUTE, "the clock was set back, so ".into())]);
    }

    #[test]
    fn what_is_right_before_or_behind_it_keeps_a_time_from_being_silence_and_is_told_then_only() {
        let why = |lines: &[Line], size: u64| {
            let told = Told::of(PERIOD, &run(lines), size).unwrap();
            told.gaps.into_iter().map(|gap| gap.why).collect::<Vec<_>>()
        };
        let begins_late = quiet().split_off(1);
        let mut renumbered = run(&quiet());
        renumbered.remove(0);
        assert!(Told::of(PERIOD, &renumbered, 6).unwrap().is_silence());
        assert_eq!(why(&begins_late[1..], 4), ["the ledger begins later"]);
        let ends_early = &quiet()[..5];
        assert_eq!(why(ends_early, 5), ["no heartbeat is over it"]);
        let mut late = quiet();
        late[5] = line(beat(4, 3, 10));
        assert_eq!(why(&late, 6), ["3 events and 0 losses came right behind it and may be of it"]);
        late[5] = line(HeartbeatEntry { errors: 2, ..beat(4, 0, 7) });
        assert_eq!(why(&late, 6), ["2 looks of the source failed"]);
        // Where something happened, nobody asks what was around it.
        late[3] = line(beat(2, 2, 9));
        late.splice(4.., [line(beat(3, 0, 9)), line(beat(4, 3, 12))]);
        let told = told(&late).unwrap();
        assert_eq!((told.is_silence(), told.events, told.gaps.len()), (false, 2, 0));
    }

    #[test]
    fn nobody_but_the_collector_says_that_it_watched() {
        let mut lines = quiet();
        let said = HeartbeatEntry { collector: AGENT.into(), ..beat(2, 0, 7) };
        lines[3] = (AGENT, HEARTBEAT, 3 * MINUTE, serde_json::to_string(&said).unwrap());
        assert_eq!(gaps(&lines), [(2 * MINUTE, 3 * MINUTE, "no heartbeat is over it".into())]);
    }

    #[test]
    fn a_time_that_came_twice_is_a_gap_whichever_pass_is_in_the_file() {
        let twice = |mut beat: HeartbeatEntry| {
            let clock = LedgerClock { highest_ms: 9 * MINUTE, twice: vec![(2 * MINUTE, 9 * MINUTE)] };
            beat.clock = Some(clock);
            line(beat)
        };
        let gap = [(2 * MINUTE, 4 * MINUTE - 5, SET_BACK.chars().take(27).collect::<String>())];
        // The pass that is here is the second one: what its heartbeats say of the first one is all that is left of that.
        let mut second = quiet();
        second[5] = twice(beat(4, 0, 7));
        assert_eq!(gaps(&second), gap);
        // It is the first one, and of the second one the ledger's newest heartbeat tells.
        let mut all = quiet();
        all.extend([own("control", 7), own("control", 8), twice(beat(6, 0, 7)), own("config", 7)]);
        let mut entries = run(&all);
        entries.drain(6..8);
        let size = all.len() as u64;
        let gaps_of = |entries: &[EntryProof]| {
            let told = Told::of(PERIOD, entries, size)?;
            Ok::<_, &str>(told.gaps.iter().map(|gap| (gap.from_ms, gap.to_ms)).collect::<Vec<_>>())
        };
        assert_eq!(gaps_of(&entries), Ok(vec![(gap[0].0, gap[0].1)]));
        // Without that one nobody knows.
        assert_eq!(gaps_of(&entries[..6]), Ok(vec![(PERIOD.from_ms, PERIOD.to_ms)]));
        for (place, why) in [(7, "not up to the checkpoint"), (6, "not from a heartbeat on")] {
            let mut lacking = entries.clone();
            lacking.remove(place);
            assert_eq!(gaps_of(&lacking), Err("an entry is missing"), "{why}");
        }
        // An entry behind the newest heartbeat may be of a clock that was set back since.
        let mut since = quiet();
        since.push(own("control", 3));
        assert_eq!(gaps(&since).first().map(|gap| (gap.0, gap.1)), Some((3 * MINUTE, 4 * MINUTE - 5)));
    }

    #[test]
    fn a_row_of_coverage_is_a_gap_once_however_often_it_grew_or_shrank_and_one_of_another_time_is_none() {
        let row = |from: i64, to: i64| {
            let (from_us, to_us) = (from * 1_000, to * 1_000);
            let text = serde_json::json!({"collector": "procmond", "reason": "ring_full", "from_us": from_us, "to_us": to_us});
            (AGENT, "coverage", 9 * MINUTE, text.to_string())
        };
        let mut lines = quiet();
        let (begin, end) = (2 * MINUTE, 3 * MINUTE);
        lines.splice(3..3, [row(begin, begin + 1), row(begin, end), row(begin, begin + 2), row(0, MINUTE)]);
        assert_eq!(gaps(&lines), [(begin, end, "coverage of procmond: ring_".into())]);
    }

    #[test]
    fn entries_that_do_not_reach_over_both_ends_or_lack_one_say_nothing() {
        let lines = quiet();
        let of = |entries: &[EntryProof]| Told::of(PERIOD, entries, 1_000);
        let all = run(&lines);
        assert!(of(&all).is_ok() && of(&all[1..]).is_ok(), "the second entry is before the period too");
        assert_eq!(of(&all[2..]), Err("its entries begin behind the period's begin"));
        assert_eq!(of(&all[..4]), Err("its entries end before the period's end, and the ledger goes on"));
        let mut lacking = all.clone();
        lacking.remove(2);
        assert_eq!(of(&lacking), Err("an entry is missing"));
        assert!(of(&[]).is_err());
        assert!(Told::of(Period { from_ms: 5, to_ms: 5 }, &all, 1_000).is_err());
        // Another may say that it beats in the collector's place, and one that is before the begin by its own clock only.
        let mut foreign = lines.clone();
        foreign[4].0 = AGENT;
        foreign.truncate(5);
        assert!(of(&run(&foreign)).is_err());
        foreign = lines;
        foreign[1].0 = AGENT;
        assert_eq!(of(&run(&foreign)[1..]), Err("its entries begin behind the period's begin"));
    }

    #[test]
    fn a_period_is_proven_by_the_file_and_the_key_alone_and_a_changed_or_missing_entry_is_found() {
        let records = chained(&quiet());
        let leaf = |record: &LedgerRecord| TreeHash::Sha256.leaf(&record.entry.canonical_bytes());
        let mut nodes = LeafNodes::new(TreeHash::Sha256, records.iter().map(leaf).collect());
        let root = tree::root(&mut nodes, TreeHash::Sha256, 6).unwrap_or_default();
        let signer = NoteSigner::new(&origin("m"), &[1; 32]).unwrap();
        let note = Checkpoint { origin: origin("m"), size: 6, root }.sign(&signer).unwrap();
        let period = PERIOD;
        let mut proof = Proof::new(Target::Period(period), TreeHash::Sha256, note, Vec::new());
        proof.set_run(run(&quiet()), 6, &mut nodes).unwrap();
        let file = proof.to_file();
        assert_eq!(
            file.matches("inclusion").count(),
            1,
            "one path is enough: the others hang on the entry behind them"
        );
        let verify = |text: &str| Proof::of_file(text).and_then(|proof| proof.verify(signer.verifier()));
        assert!(verify(&file).unwrap().told.unwrap().is_silence());

        for place in 0..6 {
            let mut lacking = proof.clone();
            lacking.entries.remove(place);
            // Without the first one the second is still before the period.
            assert_eq!(verify(&lacking.to_file()).is_err(), place > 0, "{place}");
            let mut changed = proof.clone();
            changed.entries[place].timestamp_ms += 1;
            let fault = verify(&changed.to_file());
            assert!(matches!(fault, Err(ProofFault::CorruptEntry { .. })), "{place}: {fault:?}");
        }
        let mut other = proof.clone();
        other.target = Target::Period(Period { to_ms: 9 * MINUTE, ..period });
        assert!(
            !verify(&other.to_file()).unwrap().told.unwrap().gaps.is_empty(),
            "what is behind the checkpoint is a gap"
        );
        other.target = Target::Period(Period { from_ms: -MINUTE, ..period });
        assert!(!verify(&other.to_file()).unwrap().told.unwrap().gaps.is_empty());
        other.target = Target::Entry(2);
        assert!(matches!(verify(&other.to_file()), Err(ProofFault::CorruptTarget(_))));
    }
}
