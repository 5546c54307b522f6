//! Columns of the tables about the system itself.

use crate::columns::{Column, Kind, Sensitivity, columns};

pub(super) const COVERAGE: &[Column] = columns! {
    "collector" Text "" Public "" "whose events; bus, agent or empty where it is nobody's alone" "procmond";
    "reason" Text "" Public "" "why, one of the list in docs/formats.md" "kernel_lost";
    "from_time" Timestamp "µs since the Unix epoch, UTC" Public "" "first instant that it concerns" "2026-01-31T12:00:00.000000Z";
    "to_time" Timestamp "µs since the Unix epoch, UTC" Public "" "last instant that it concerns" "2026-01-31T12:00:04.000000Z";
    "count" Integer "events, or what the reason names" Public "" "how many are missing; NULL where that cannot be known" "17";
    "detail" Text "" Public "" "in words" "the ring buffer was full";
};

pub(super) const COLLECTORS: &[Column] = columns! {
    "id" Text "" Public "" "identity" "procmond";
    "type" Text "" Public "" "what it collects" "process";
    "state" Text "" Public "" "waiting_for_agent, running, paused, shutting_down, stopped, registered or away" "running";
    "connected" Boolean "" Public "" "false: what it sees now follows when it is back" "true";
    "version" Text "" Public "" "its build" "0.1.0";
    "pid" Integer "" Public "" "its process" "811";
    "source" Text "" Public "" "how it captures" "ebpf";
    "source_reason" Text "" Public "" "why that way" "best source that works here";
    "registered" Timestamp "µs since the Unix epoch, UTC" Public "" "when it registered" "2026-01-31T08:00:00.000000Z";
    "last_heartbeat" Timestamp "µs since the Unix epoch, UTC" Public "" "when it was last heard of" "2026-01-31T12:00:00.000000Z";
    "cycles" Integer "snapshots" Public "" "looks at the whole process table" "480";
    "events" Integer "events" Public "" "events that it wrote to its log" "91344";
    "errors" Integer "snapshots" Public "" "looks that failed" "0";
    "processes" Integer "processes" Public "" "processes that live, as it sees it" "212";
    "lost" Integer "events" Public "" "events that it lost; coverage says when and why" "0";
    "restarts" Integer "restarts" Public "" "times that the agent started it again" "0";
    "pushdown" Text "" Public "" "what it leaves out because no rule needs it; NULL: it does not go by rules" "leaves out nothing";
};

pub(super) const SCANS: &[Column] = columns! {
    "time" Timestamp "µs since the Unix epoch, UTC" Public "" "when the collector told it" "2026-01-31T12:00:00.000000Z";
    "collector" Text "" Public "" "which collector" "procmond";
    "cycles" Integer "snapshots" Public "" "looks so far" "480";
    "processes" Integer "processes" Public "" "processes that lived" "212";
    "events" Integer "events" Public "" "events so far" "91344";
    "errors" Integer "snapshots" Public "" "looks that failed so far" "0";
};

pub(super) const SYSTEM_INFO: &[Column] = columns! {
    "time" Timestamp "µs since the Unix epoch, UTC" Public "" "when this was written down" "2026-01-31T08:00:00.000000Z";
    "hostname" Text "" Public "" "name of the host" "web-1";
    "os_name" Text "" Public "" "operating system" "Linux";
    "os_version" Text "" Public "" "version of its kernel" "6.12.9";
    "architecture" Text "" Public "" "of the processor" "x86_64";
    "cpu_cores" Integer "logical CPUs" Public "" "processors that the agent may use" "8";
    "total_memory_bytes" Integer "bytes" Public "" "physical memory; 0: not known" "16623403008";
    "uptime_s" Integer "s" Public "" "time since the host booted" "3600";
    "boot_id" Text "UUID" Public "" "tells one boot from the next" "5b2f0d0a-8e0c-4c9b-9a55-1a6f0f1f9e11";
    "capabilities" Text "comma-separated" Public "" "what capture can see here" "exec,exit_code";
};

pub(super) const AUDIT_ENTRIES: &[Column] = columns! {
    "sequence" Integer "" Public "" "number of the entry, from 0 without gaps" "1204";
    "time" Timestamp "µs since the Unix epoch, UTC" Public "" "when it was written, to the millisecond" "2026-01-31T12:00:00.004000Z";
    "actor" Text "" Identity "" "who acted: procmond, agent, operator:alice" "agent";
    "action" Text "" Public "" "what was done, one of the list in docs/formats.md" "alert";
    "payload" Text "JSON object" Identity "" "the particulars; the CLI's audit verify checks them against payload_hash"
        "{\"alert\":\"0c7e0a8e-5a0f-5c5b-9d5e-0d2b6f1f3a77\"}";
    "payload_hash" Text "64 hex digits" Public "" "BLAKE3 of the payload" "af1349b9f5f9a1a6a0404dea36dcc9499bcb25c9adc112b7cc9a93cae41f3262";
    "previous_hash" Text "64 hex digits" Public "" "entry_hash of the entry before"
        "0000000000000000000000000000000000000000000000000000000000000000";
    "entry_hash" Text "64 hex digits" Public "" "BLAKE3 of the entry, its place in the chain"
        "5f1c0e6a9d3b47c2a1e8f00db4c6d7e9a1e8f00db4c6d7e95f1c0e6a9d3b47c2";
};

pub(super) const METRICS: &[Column] = columns! {
    "name" Text "" Public "" "stable name; docs/reference/metrics.md has them all" "daemoneye_alert_deliveries_total";
    "subject" Text "" Public "" "which collector, sink or program; NULL where there is only one" "file";
    "kind" Text "" Public "" "counter (grows while its program runs) or gauge" "counter";
    "unit" Text "" Public "" "what one of it is" "alerts";
    "value" Real "see the column unit" Public "" "as it is now; NULL: not known now" "12.0";
    "meaning" Text "" Public "" "what it counts" "alerts that the sink took";
};

pub(super) const TABLES: &[Column] = columns! {
    "name" Text "" Public "" "SQL name" "processes";
    "meaning" Text "" Public "" "what its rows are" "the processes that live now";
};

pub(super) const COLUMNS: &[Column] = columns! {
    "table_name" Text "" Public "" "which table" "processes";
    "position" Integer "" Public "" "place in SELECT *, from 1" "6";
    "name" Text "" Public "" "SQL name" "pid";
    "type" Text "" Public "" "TEXT, BIGINT, DOUBLE, BOOLEAN, TIMESTAMP or BLOB" "BIGINT";
    "unit" Text "" Public "" "unit or notation; NULL where the type says it all" "ms";
    "sensitivity" Text "" Public "" "what it can give away about people; empty: nothing" "may hold secrets";
    "meaning" Text "" Public "" "what it holds" "process id in the collector's namespace";
    "example" Text "" Public "" "a value as the CLI prints it" "4242";
};
