//! What a backtest has found of one version of a rule: hits and alerts by day, and which values come most often. Bounded, whatever
//! the rule matches; what a bound left out is told.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use daemoneye_engine::RecordBatch;
use daemoneye_engine::detect::LoadedRule;
use daemoneye_engine::ingest::row_to_json;
use daemoneye_engine::replay::{Replay, events_of};
use daemoneye_engine::store::{RuleMatch, StoreError, StoreOptions};
use daemoneye_lib::model::Alert;
use jiff::Timestamp;
use serde_json::{Map, Value, json};

/// Different values that are counted per column.
const VALUES: usize = 10_000;
/// Text of values and examples that is held for all columns, in bytes: a value may have a megabyte.
const TEXT_BYTES: usize = 16 * 1024 * 1024;
/// Values that are shown per column.
const SHOWN_VALUES: usize = 5;
/// Hits whose positions are kept, to tell two versions apart.
const POSITIONS: usize = 100_000;
/// Examples of hits that only one version has.
const EXAMPLES: usize = 10;
/// Columns of an example.
const EXAMPLE: [&str; 6] = ["time", "name", "command_line", "parent_name", "user", "entity_id"];

/// Rows that came together are decided together, at the latest so many µs after their time.
const TICK_US: i64 = 1_000_000;

/// An event's place: epoch and number in its collector's stream.
type Position = (String, u64, u64);

/// One version of a rule over history.
pub(super) struct Tally {
    replay: Replay,
    hits: u64,
    alerts: u64,
    days: BTreeMap<String, Day>,
    /// What is left of [`TEXT_BYTES`].
    room: usize,
    values: BTreeMap<String, HashMap<String, u64>>,
    uncounted: BTreeSet<String>,
    positions: BTreeMap<Position, Seen>,
    /// Hits at these positions.
    placed: u64,
}

/// What was found in the events of one day.
#[derive(Debug, Clone, Copy, Default)]
struct Day {
    hits: u64,
    alerts: u64,
}

/// The hits on one event: a window rule may have several.
#[derive(Debug, Clone, Default)]
struct Seen {
    hits: u64,
    example: Option<Value>,
}

impl Tally {
    /// Of events before `from_us` nothing is counted.
    pub(super) fn new(rule: LoadedRule, options: StoreOptions, from_us: i64) -> Result<Self, StoreError> {
        let (replay, _) = Replay::new(vec![rule], options)?;
        Ok(Self {
            replay: replay.since(from_us),
            hits: 0,
            alerts: 0,
            room: TEXT_BYTES,
            days: BTreeMap::new(),
            values: BTreeMap::new(),
            uncounted: BTreeSet::new(),
            positions: BTreeMap::new(),
            placed: 0,
        })
    }

    /// Takes the next rows in their order.
    pub(super) fn take(&mut self, events: RecordBatch) -> Result<(), StoreError> {
        for found in self.replay.take(&events_of(events))? {
            self.count(&found);
        }
        let settled = self.replay.settled()?;
        self.raised(&settled);
        Ok(())
    }

    /// All events before `to_us` have been taken: what was waited for until then is decided.
    pub(super) fn finish(&mut self, to_us: i64) -> Result<(), StoreError> {
        for found in self.replay.advance(to_us.saturating_add(TICK_US))? {
            self.count(&found);
        }
        let rest = self.replay.alerts()?;
        self.raised(&rest);
        Ok(())
    }

    fn raised(&mut self, alerts: &[Alert]) {
        for alert in alerts {
            let time = Timestamp::from_microsecond(alert.time_us).map(|time| time.to_string()).unwrap_or_default();
            let day = self.days.entry(day(&time)).or_default();
            day.alerts = day.alerts.saturating_add(1);
        }
        self.alerts = self.alerts.saturating_add(alerts.len() as u64);
    }

    fn count(&mut self, found: &RuleMatch) {
        self.hits = self.hits.saturating_add(1);
        let process = row_to_json(&found.batch, found.row);
        let time = process.get("time").and_then(Value::as_str).unwrap_or_default();
        let day = self.days.entry(day(time)).or_default();
        day.hits = day.hits.saturating_add(1);
        for (column, value) in &*found.output() {
            let counts = self.values.entry(column.clone()).or_default();
            let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
            if let Some(count) = counts.get_mut(&text) {
                *count = count.saturating_add(1);
            } else if counts.len() < VALUES && text.len() <= self.room {
                self.room = self.room.saturating_sub(text.len());
                counts.insert(text, 1);
            } else {
                self.uncounted.insert(column.clone());
            }
        }
        self.place(&process);
    }

    /// Examples are those of the beginning; the rest are only positions.
    fn place(&mut self, process: &Map<String, Value>) {
        let number = |name: &str| process.get(name).and_then(Value::as_u64).unwrap_or_default();
        let collector = process.get("collector").and_then(Value::as_str).unwrap_or_default().to_owned();
        let position = (collector, number("epoch"), number("seq"));
        let places = self.positions.len();
        if places >= POSITIONS && !self.positions.contains_key(&position) {
            return;
        }
        let room = &mut self.room;
        let fresh = || Seen { hits: 0, example: (places < POSITIONS / 10).then(|| example(process, room)).flatten() };
        let seen = self.positions.entry(position).or_insert_with(fresh);
        seen.hits = seen.hits.saturating_add(1);
        self.placed = self.placed.saturating_add(1);
    }

    pub(super) const fn hits(&self) -> u64 {
        self.hits
    }

    /// Matches that exceptions hid: no hits.
    pub(super) const fn hidden(&self) -> u64 {
        self.replay.hidden()
    }

    /// Whether every hit's position was kept.
    fn is_whole(&self) -> bool {
        self.placed == self.hits
    }

    /// Hits and alerts of each day that has any, and the most alerts of one day.
    pub(super) fn days(&self) -> (Vec<Value>, u64) {
        let most = self.days.values().map(|day| day.alerts).max().unwrap_or_default();
        let days = self.days.iter();
        let days = days.map(|(day, found)| json!({ "day": day, "hits": found.hits, "alerts": found.alerts }));
        (days.collect(), most)
    }

    pub(super) const fn alerts(&self) -> u64 {
        self.alerts
    }

    /// What it could not decide, or not as it would have been live.
    pub(super) fn shortfalls(&self) -> Vec<String> {
        self.replay.shortfalls()
    }

    /// The most frequent values of every column that the rule returns.
    pub(super) fn top(&self) -> Map<String, Value> {
        let top = |counts: &HashMap<String, u64>| {
            let mut counts: Vec<(&String, &u64)> = counts.iter().collect();
            counts.sort_by(|a, b| b.1.cmp(a.1).then_with(|| a.0.cmp(b.0)));
            let shown = counts.into_iter().take(SHOWN_VALUES);
            Value::from(shown.map(|(value, count)| json!({ "value": value, "count": count })).collect::<Vec<_>>())
        };
        self.values.iter().map(|(column, counts)| (column.clone(), top(counts))).collect()
    }

    /// Columns with more different values than were counted.
    pub(super) fn uncounted(&self) -> Vec<&String> {
        self.uncounted.iter().collect()
    }

    /// What only one of two versions found; a count is `null` where there were too many hits to tell.
    pub(super) fn difference(&self, in_use: &Self) -> Value {
        let only = |a: &Self, b: &Self| {
            let mut count = 0_u64;
            let mut examples = Vec::new();
            for (position, seen) in &a.positions {
                let more = seen.hits.saturating_sub(b.positions.get(position).map_or(0, |other| other.hits));
                if more > 0 {
                    count = count.saturating_add(more);
                    examples.extend(seen.example.clone().filter(|_| examples.len() < EXAMPLES));
                }
            }
            (count, examples)
        };
        if !(self.is_whole() && in_use.is_whole()) {
            return json!({ "only_new": null, "only_in_use": null, "hits": diff(self.hits, in_use.hits) });
        }
        let ((new, new_examples), (old, old_examples)) = (only(self, in_use), only(in_use, self));
        json!({
            "only_new": new,
            "only_in_use": old,
            "hits": diff(self.hits, in_use.hits),
            "examples_only_new": new_examples,
            "examples_only_in_use": old_examples,
        })
    }
}

fn diff(new: u64, old: u64) -> i64 {
    let signed = |number| i64::try_from(number).unwrap_or(i64::MAX);
    signed(new).saturating_sub(signed(old))
}

/// The date of an RFC 3339 time in UTC.
fn day(time: &str) -> String {
    time.chars().take(10).collect()
}

/// `None`: there is no room for it.
fn example(process: &Map<String, Value>, room: &mut usize) -> Option<Value> {
    let known = || EXAMPLE.iter().filter_map(|name| Some((*name, process.get(*name)?)));
    let bytes = known().map(|(_, value)| value.as_str().map_or(0, str::len)).fold(0, usize::saturating_add);
    *room = room.checked_sub(bytes)?;
    Some(Value::Object(known().map(|(name, value)| (name.to_owned(), value.clone())).collect()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use daemoneye_engine::detect::rules;
    use daemoneye_engine::ingest::batch_from_json;

    /// Counts processes by user within ten seconds; each event with which a group reaches two is a hit.
    const COUNTED: &str = "SELECT user, count(*) AS n FROM process_events WHERE time > now() - INTERVAL '10 seconds' \
                           GROUP BY user HAVING count(*) >= 2";
    const ABSENT: &str = "SELECT a.pid AS pid FROM process_events a LEFT JOIN process_events b ON b.ppid = a.pid AND b.time \
                          BETWEEN a.time AND a.time + INTERVAL '3 seconds' WHERE a.name = 'a' AND b.pid IS NULL";
    const START_US: i64 = 1_769_860_800_000_000;

    fn tally(sql: &str, from_s: i64) -> Tally {
        let yaml =
            format!("id: 3d9f2c1e-7a54-4b0e-9a51-0c8c5f3f7a01\nname: r\nseverity: low\nsql: {}\n", Value::from(sql));
        let rule = rules::parse(std::path::Path::new("local/r.yaml"), &yaml).unwrap();
        Tally::new(rule, StoreOptions::new("nowhere"), START_US + from_s * 1_000_000).unwrap()
    }

    fn events(seconds: &[i64]) -> RecordBatch {
        let event = |second: &i64| {
            let event = json!({"time": START_US + second * 1_000_000, "name": "a", "user": "u", "pid": second, "ppid": 0,
                "collector": "c", "epoch": 1, "seq": second + 1, "entity_id": format!("{second:032x}")});
            event.as_object().unwrap().clone()
        };
        batch_from_json(&seconds.iter().map(event).collect::<Vec<_>>()).unwrap()
    }

    #[test]
    fn what_came_before_is_looked_back_at_and_not_counted() {
        let mut tally = tally(COUNTED, 10);
        tally.take(events(&[1, 2, 9, 11])).unwrap();
        tally.finish(START_US + 20_000_000).unwrap();
        assert_eq!((tally.hits(), tally.alerts()), (1, 1), "only the event at 11 s, with the one at 9 s");
    }

    #[test]
    fn an_absence_is_decided_at_the_end_if_its_time_is_over_there() {
        let of = |end_s: i64| {
            let mut tally = tally(ABSENT, 0);
            tally.take(events(&[1, 20])).unwrap();
            tally.finish(START_US + end_s * 1_000_000).unwrap();
            tally.hits()
        };
        assert_eq!((of(21), of(60)), (1, 2));
    }

    #[test]
    fn two_hits_on_one_event_are_both_in_the_difference() {
        let (mut new, old) = (tally(COUNTED, 0), tally(COUNTED, 0));
        let process = events(&[1]);
        let process = row_to_json(&process, 0);
        for _ in 0..2 {
            new.hits += 1;
            new.place(&process);
        }
        let difference = new.difference(&old);
        assert_eq!((&difference["only_new"], &difference["only_in_use"]), (&json!(2), &json!(0)));
    }
}
