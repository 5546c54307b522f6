//! The one metric table: every counter and gauge that the health document shows, by a name that other systems can keep.
//!
//! A metric is a place in the document, so there is no second set of counters that could disagree with `health`. The
//! reference page is made of this table, and a test of the agent holds it against the document of a running one, in both
//! directions. A name is never reused for something else.

use serde_json::Value;

/// Whether a number only grows while its program runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    /// Grows; back to zero when the program that counts starts again.
    Counter,
    /// Goes up and down.
    Gauge,
}

impl Kind {
    /// `counter` or `gauge`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Counter => "counter",
            Self::Gauge => "gauge",
        }
    }
}

/// One counter or gauge.
#[derive(Debug, Clone, Copy)]
pub struct Metric {
    /// Stable name; counters end with `_total`.
    pub name: &'static str,
    /// Counter or gauge.
    pub kind: Kind,
    /// What one of it is.
    pub unit: &'static str,
    /// JSON pointer into the health document; `*` stands for every element of a list.
    pub pointer: &'static str,
    /// Member that tells the elements of that list apart; empty where there is no list.
    pub label: &'static str,
    /// What it counts, in one line.
    pub meaning: &'static str,
}

/// A metric's value at one place of a document.
#[derive(Debug, Clone, PartialEq)]
pub struct Sample {
    /// Which collector, sink or program it is of; `None` where there is only one.
    pub of: Option<String>,
    /// `None`: not known now, as the memory of a program that does not run.
    pub value: Option<f64>,
}

impl Metric {
    /// Reads the metric from a health document. `None` when the document has no such place; a list without elements gives
    /// no samples.
    #[must_use]
    pub fn read(&self, document: &Value) -> Option<Vec<Sample>> {
        let Some((list, member)) = self.pointer.split_once("/*") else {
            let value = number(document.pointer(self.pointer)?)?;
            return Some(vec![Sample { of: None, value }]);
        };
        let sample = |element: &Value| {
            let of = element.get(self.label)?.as_str()?.to_owned();
            Some(Sample { of: Some(of), value: number(element.pointer(member)?)? })
        };
        document.pointer(list)?.as_array()?.iter().map(sample).collect()
    }
}

/// Outer `None`: not a number at all.
fn number(value: &Value) -> Option<Option<f64>> {
    if value.is_null() { Some(None) } else { value.as_f64().map(Some) }
}

// Metrics as `"name" Kind "unit" "pointer" "label" "meaning";`, so that the table reads as one.
macro_rules! metrics {
    ($($name:literal $kind:ident $unit:literal $pointer:literal $label:literal $meaning:literal;)+) => {
        &[$(Metric {
            name: $name,
            kind: Kind::$kind,
            unit: $unit,
            pointer: $pointer,
            label: $label,
            meaning: $meaning,
        }),+]
    };
}

/// Every metric, in the order of the document's path: capture, bus, ingest, store, alerts, programs.
pub const METRICS: &[Metric] = metrics! {
    "daemoneye_collector_cycles_total" Counter "snapshots" "/collectors/*/cycles" "id"
        "looks at the whole process table";
    "daemoneye_collector_events_total" Counter "events" "/collectors/*/events" "id"
        "events that the collector wrote to its log";
    "daemoneye_collector_errors_total" Counter "snapshots" "/collectors/*/errors" "id"
        "looks that failed";
    "daemoneye_collector_lost_total" Counter "events" "/collectors/*/lost" "id"
        "events that the log could not keep; the table coverage says when and why";
    "daemoneye_collector_kernel_lost_total" Counter "events" "/collectors/*/kernel_lost" "id"
        "part of the lost: announcements that the kernel could not hand over, counted exactly";
    "daemoneye_collector_wal_lost_total" Counter "events" "/collectors/*/wal_lost" "id"
        "part of the lost: events for which the log had no room";
    "daemoneye_collector_missed_total" Counter "processes" "/collectors/*/missed" "id"
        "what only a snapshot found: not lost, but without the events in between";
    "daemoneye_collector_recall_percent" Gauge "percent" "/collectors/*/recall_percent" "id"
        "share of what appeared that events announced before a snapshot found it, less what the kernel lost; null where nothing announces";
    "daemoneye_collector_backpressure_total" Counter "changes" "/collectors/*/backpressure_count" "id"
        "times that backpressure set in";
    "daemoneye_collector_processes" Gauge "processes" "/collectors/*/processes" "id"
        "processes that live, as the collector sees it";
    "daemoneye_collector_snapshot_interval_milliseconds" Gauge "ms" "/collectors/*/snapshot_interval_ms" "id"
        "time between two looks now; longer than configured under backpressure";
    "daemoneye_collector_original_interval_milliseconds" Gauge "ms" "/collectors/*/original_interval_ms" "id"
        "time between two looks as configured";
    "daemoneye_collector_max_events_in_flight" Gauge "events" "/collectors/*/max_events_in_flight" "id"
        "events that may wait for the agent's acknowledgement";
    "daemoneye_collector_buffer_bytes" Gauge "bytes" "/collectors/*/buffer_bytes" "id"
        "what the buffer for the bus holds at most";
    "daemoneye_collector_buffer_percent" Gauge "percent" "/collectors/*/buffer_percent" "id"
        "how full the collector's buffer for the bus is";
    "daemoneye_collector_missed_heartbeats" Gauge "heartbeats" "/collectors/*/missed_heartbeats" "id"
        "heartbeats in a row that did not come";
    "daemoneye_collector_rss_bytes" Gauge "bytes" "/collectors/*/rss_bytes" "id"
        "resident memory, as the collector says it";
    "daemoneye_wal_bytes" Gauge "bytes" "/collectors/*/wal_bytes" "id"
        "size of the write-ahead log on disk";
    "daemoneye_wal_max_bytes" Gauge "bytes" "/collectors/*/wal_max_bytes" "id"
        "bound of the write-ahead log on disk";
    "daemoneye_wal_segments" Gauge "files" "/collectors/*/wal_segments" "id"
        "files of the write-ahead log";
    "daemoneye_collector_late_milliseconds" Gauge "ms" "/collectors/*/late_ms" "id"
        "how long after its capture an event was stored and judged, while that is more than 5 s";
    "daemoneye_wal_unsealed_events" Gauge "events" "/collectors/*/unsealed_events" "id"
        "events after the committed position: the log must keep them; not known over a change of epoch";
    "daemoneye_ledger_entries" Gauge "entries" "/ledger/entries" ""
        "entries of the audit ledger";
    "daemoneye_bus_connections" Gauge "connections" "/bus/connections" ""
        "peers of the bus that are connected now";
    "daemoneye_bus_subscriptions" Gauge "subscriptions" "/bus/subscriptions" ""
        "subscriptions that stand, those that wait for their subscriber to return included";
    "daemoneye_bus_admitted_total" Counter "peers" "/bus/admitted" ""
        "peers that were let in";
    "daemoneye_bus_refused_total" Counter "peers" "/bus/refused" ""
        "peers that were refused at the door or closed for a fault";
    "daemoneye_bus_records_total" Counter "records" "/bus/records" ""
        "stream records that were taken from collectors";
    "daemoneye_bus_messages_total" Counter "messages" "/bus/messages" ""
        "messages that peers and the agent published";
    "daemoneye_bus_delivered_total" Counter "messages" "/bus/delivered" ""
        "messages that were put into the queue of a subscriber";
    "daemoneye_bus_shed_total" Counter "messages" "/bus/shed" ""
        "messages that a subscriber's full queue shed";
    "daemoneye_bus_duplicates_total" Counter "messages" "/bus/duplicates" ""
        "repeated messages that were dropped or merged, where a subscriber asked for it";
    "daemoneye_bus_requests_total" Counter "requests" "/bus/requests" ""
        "requests that were sent to collectors";
    "daemoneye_bus_notices_lost_total" Counter "notices" "/bus/notices_lost" ""
        "notices that the agent did not fetch in time";
    "daemoneye_ingest_runs_total" Counter "runs" "/ingest/runs" ""
        "runs of records that were taken in";
    "daemoneye_events_total" Counter "events" "/ingest/rows" ""
        "events that entered the store";
    "daemoneye_ingest_replayed_total" Counter "events" "/ingest/replayed" ""
        "events that came again after a crash or reconnect and stood already";
    "daemoneye_ingest_refused_total" Counter "runs" "/ingest/refused" ""
        "runs that did not continue their stream; a gap in coverage each";
    "daemoneye_ingest_pauses_total" Counter "pauses" "/ingest/pauses" ""
        "times that no events were taken because the disk was full or failed; a gap in coverage each";
    "daemoneye_store_seals_total" Counter "seals" "/ingest/seals" ""
        "times that the open segment became a file";
    "daemoneye_store_segments" Gauge "files" "/store/segments" ""
        "sealed files of events";
    "daemoneye_store_segment_rows" Gauge "events" "/store/segment_rows" ""
        "events in sealed files";
    "daemoneye_store_segment_bytes" Gauge "bytes" "/store/segment_bytes" ""
        "size of sealed files of events";
    "daemoneye_store_lifetime_segments" Gauge "files" "/store/lifetime_segments" ""
        "sealed files of lifetimes";
    "daemoneye_store_lifetime_rows" Gauge "processes" "/store/lifetime_rows" ""
        "lifetimes in sealed files";
    "daemoneye_store_lifetime_bytes" Gauge "bytes" "/store/lifetime_bytes" ""
        "size of sealed files of lifetimes";
    "daemoneye_store_merges_set_back" Gauge "groups" "/store/merges_set_back" ""
        "groups of segments whose merge failed and waits for another try";
    "daemoneye_store_damaged_segments" Gauge "files" "/store/damaged_segments" ""
        "registered files that cannot be used";
    "daemoneye_store_open_rows" Gauge "events" "/store/open_rows" ""
        "events in memory, not sealed yet";
    "daemoneye_store_open_bytes" Gauge "bytes" "/store/open_bytes" ""
        "memory that they take";
    "daemoneye_store_state_bytes" Gauge "bytes" "/store/state_bytes" ""
        "length of state.redb";
    "daemoneye_live_processes" Gauge "processes" "/store/live_processes" ""
        "rows of the table processes";
    "daemoneye_live_processes_shed_total" Counter "processes" "/store/live_shed" ""
        "live processes that found no room in that table; their events are stored";
    "daemoneye_coverage_gaps" Gauge "gaps" "/coverage/gaps_last_day" ""
        "gaps in what was seen that ended within the last 24 h";
    "daemoneye_audit_pending" Gauge "entries" "/store/audit_pending" ""
        "entries that wait to be written to the ledger";
    "daemoneye_audit_lost_total" Counter "entries" "/store/audit_lost" ""
        "entries that found no room to wait, since the store began";
    "daemoneye_rules_running" Gauge "rules" "/rules/running" ""
        "rules in force, drafts among them";
    "daemoneye_rules_drafts" Gauge "rules" "/rules/drafts" ""
        "rules that are evaluated and never alert";
    "daemoneye_rules_unhealthy" Gauge "rules" "/rules/unhealthy" ""
        "rules whose collector or column is missing";
    "daemoneye_rules_over_budget" Gauge "rules" "/rules/over_budget" ""
        "rules that took more than their budget three times in a row";
    "daemoneye_rules_held" Gauge "rules" "/rules/held_now" ""
        "rules of which the limits of alerts held something back in the last hour";
    "daemoneye_rule_exceptions" Gauge "exceptions" "/rules/exceptions" ""
        "exceptions of the rules in force, those that have ended among them";
    "daemoneye_rule_exceptions_expired" Gauge "exceptions" "/rules/exceptions_expired" ""
        "exceptions that have ended and hide nothing any more";
    "daemoneye_rule_evaluations_total" Counter "evaluations" "/rules/evaluations" ""
        "batches that the rules in force were asked about, each rule by itself";
    "daemoneye_rule_matches_total" Counter "matches" "/rules/matches" ""
        "events that the rules in force matched, those of drafts and those that exceptions hid among them";
    "daemoneye_rule_folded_total" Counter "events" "/rules/folded" ""
        "matches above the limits of alerts, which are counted in a summary for each minute";
    "daemoneye_rule_degraded_total" Counter "evaluations" "/rules/degraded" ""
        "evaluations of the rules in force that lacked something that the rule reads";
    "daemoneye_rule_time_microseconds_total" Counter "µs" "/rules/time_us" ""
        "time that the rules in force took";
    "daemoneye_window_rules_running" Gauge "rules" "/rules/windows/running" ""
        "those of them that look at several events";
    "daemoneye_window_rule_evaluations_total" Counter "evaluations" "/rules/windows/evaluations" ""
        "runs of their plans";
    "daemoneye_window_rule_degraded_total" Counter "evaluations" "/rules/windows/degraded" ""
        "those over something that is missing";
    "daemoneye_window_rule_cpu_nanoseconds_total" Counter "ns" "/rules/windows/cpu_ns" ""
        "processor time of the runs";
    "daemoneye_window_rule_kept_rows" Gauge "events" "/rules/windows/kept_rows" ""
        "events kept in memory for them";
    "daemoneye_window_rule_kept_bytes" Gauge "bytes" "/rules/windows/kept_bytes" ""
        "what these count for";
    "daemoneye_window_rule_shed_total" Counter "events" "/rules/windows/shed" ""
        "events that found no room in a window";
    "daemoneye_window_rule_late_total" Counter "events" "/rules/windows/late" ""
        "events that came after the grace period";
    "daemoneye_window_rule_ahead_total" Counter "events" "/rules/windows/ahead" ""
        "events that were ahead of the clock, and times that it was set back";
    "daemoneye_window_rule_postponed_total" Counter "decisions" "/rules/windows/postponed" ""
        "decisions that their share of time was spent for";
    "daemoneye_window_rule_timed_out_total" Counter "evaluations" "/rules/windows/timed_out" ""
        "runs that had no answer in time";
    "daemoneye_window_rule_failed_total" Counter "evaluations" "/rules/windows/failed" ""
        "runs that failed otherwise";
    "daemoneye_window_rule_skipped_total" Counter "moments" "/rules/windows/skipped" ""
        "moments of a burst at which they may have matched and that were passed over";
    "daemoneye_window_rule_untimed_total" Counter "events" "/rules/windows/untimed" ""
        "events without a time, which they go by";
    "daemoneye_window_rule_over_budget_total" Counter "evaluations" "/rules/windows/over_budget" ""
        "runs that took more than 100 ms of a processor";
    "daemoneye_alerts" Gauge "alerts" "/store/alerts" ""
        "alerts in the store";
    "daemoneye_alerts_generated_total" Counter "alerts" "/ingest/alerts" ""
        "new alerts; repeats raise the count of one that stands";
    "daemoneye_alert_deliveries_total" Counter "alerts" "/sinks/*/delivered" "name"
        "alerts that the sink took";
    "daemoneye_alert_delivery_failures_total" Counter "attempts" "/sinks/*/failed" "name"
        "attempts that the sink did not take";
    "daemoneye_alert_deliveries_pending" Gauge "alerts" "/sinks/*/pending" "name"
        "alerts that wait for the sink";
    "daemoneye_alert_deliveries_dead" Gauge "alerts" "/sinks/*/dead" "name"
        "alerts whose delivery was given up";
    "daemoneye_component_rss_bytes" Gauge "bytes" "/components/*/rss_bytes" "name"
        "resident memory of a program, as the operating system says it";
    "daemoneye_component_restarts_total" Counter "restarts" "/components/*/restarts" "name"
        "times that the parent started the program again";
    "daemoneye_uptime_milliseconds" Gauge "ms" "/uptime_ms" ""
        "time since the worker started";
};

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;
    use std::collections::HashSet;

    #[test]
    fn names_and_places_are_unique_and_names_tell_counters_from_gauges() {
        let (mut names, mut places) = (HashSet::new(), HashSet::new());
        for metric in METRICS {
            assert!(names.insert(metric.name), "{} stands twice", metric.name);
            assert!(places.insert(metric.pointer), "{} has two names", metric.pointer);
            assert!(metric.name.starts_with("daemoneye_"), "{}", metric.name);
            assert!(metric.name.bytes().all(|b| b.is_ascii_lowercase() || b == b'_'), "{}", metric.name);
            assert_eq!(metric.name.ends_with("_total"), metric.kind == Kind::Counter, "{}", metric.name);
            assert_eq!(metric.pointer.contains("/*/"), !metric.label.is_empty(), "{}", metric.name);
            assert!(!metric.unit.is_empty() && !metric.meaning.is_empty(), "{}", metric.name);
        }
    }

    #[test]
    fn a_list_gives_one_sample_per_element_and_what_is_missing_is_told_from_what_is_unknown() {
        let metric = |pointer, label| Metric { pointer, label, ..METRICS[0] };
        let document =
            json!({ "a": { "b": 3 }, "text": "x", "list": [{ "id": "one", "n": 1 }, { "id": "two", "n": null }] });
        let sample = |of: Option<&str>, value| Sample { of: of.map(str::to_owned), value };
        assert_eq!(metric("/a/b", "").read(&document), Some(vec![sample(None, Some(3.0))]));
        let list = vec![sample(Some("one"), Some(1.0)), sample(Some("two"), None)];
        assert_eq!(metric("/list/*/n", "id").read(&document), Some(list));
        for (pointer, label) in
            [("/a/c", ""), ("/text", ""), ("/list/*/m", "id"), ("/list/*/n", "name"), ("/a/*/n", "id")]
        {
            assert_eq!(metric(pointer, label).read(&document), None, "{pointer}");
        }
    }
}
