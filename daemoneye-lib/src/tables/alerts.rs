//! Columns of what detection makes and runs.

use crate::columns::{Column, Kind, Sensitivity, columns};

pub(super) const ALERTS: &[Column] = columns! {
    "id" Text "UUID" Public "" "identity; derived from its cause, so a replay makes the same"
        "0c7e0a8e-5a0f-5c5b-9d5e-0d2b6f1f3a77";
    "time" Timestamp "µs since the Unix epoch, UTC" Public "" "time of the event that raised it" "2026-01-31T12:00:00.000000Z";
    "severity" Text "" Public "" "info, low, medium, high or critical" "high";
    "title" Text "" Public "" "name of the rule" "Reverse shell from a script interpreter";
    "description" Text "" Public "" "what the rule finds and why that is bad" "A shell whose input and output are a socket.";
    "status" Text "" Public "" "open, acknowledged, closed or reopened; suppressed: an exception of the rule holds, and nobody was told" "open";
    "rule_id" Text "UUID" Public "" "which rule" "6f1f3a77-3f0a-4b6c-9a9e-2d0b7c1e5a10";
    "rule_version" Integer "" Public "" "which version of it" "2";
    "rule_hash" Text "hex" Public "" "BLAKE3 of that version's text" "af1349b9f5f9a1a6a0404dea36dcc949";
    "pack" Text "" Public "" "pack that the rule came in" "linux";
    "tags" Text "comma-separated" Public "" "ATT&CK ids and free tags" "attack.t1059.004";
    "entity_id" Text "32 hex digits" Public "" "identity of the process" "5f1c0e6a9d3b47c2a1e8f00db4c6d7e9";
    "pid" Integer "" Public "" "its process id" "4242";
    "name" Text "" Public "" "its short name" "bash";
    "executable_path" Text "" Public "" "its executable" "/usr/bin/bash";
    "command_line" Text "" Argument "" "its arguments joined by one space" "bash -i";
    "process" Text "JSON object" Argument "" "the process by its columns, those that were known" "{\"pid\":4242,\"name\":\"bash\"}";
    "row" Text "JSON object" Argument "" "what the rule's SELECT returned" "{\"name\":\"bash\"}";
    "dedup_key" Text "" Public "" "what tells this alert from the next one of its rule"
        "6f1f3a77-3f0a-4b6c-9a9e-2d0b7c1e5a10|5f1c0e6a9d3b47c2a1e8f00db4c6d7e9";
    "count" Integer "matches" Public "" "matches folded into it, the first included" "1";
    "first_seen" Timestamp "µs since the Unix epoch, UTC" Public "" "time of the first match" "2026-01-31T12:00:00.000000Z";
    "last_seen" Timestamp "µs since the Unix epoch, UTC" Public "" "time of the last match" "2026-01-31T12:04:10.000000Z";
    "completeness" Text "" Public "" "complete, or degraded and why" "complete";
    "collector" Text "" Public "" "collector of the event that raised it" "procmond";
    "epoch" Integer "" Public "" "that event's epoch in the collector's stream" "3";
    "seq" Integer "" Public "" "that event's number in the collector's stream" "18211";
    "engine" Text "" Public "" "build that decided" "daemoneye-engine 0.1.0";
    "host" Text "" Public "" "name of the host" "web-1";
    "suppressed_by" Text "UUID" Public "" "the exception that hides it, as in rule_exceptions; NULL where none does"
        "9b2f1c4e-8d3a-5e7f-a1b2-c3d4e5f60718";
};

pub(super) const ALERT_DELIVERIES: &[Column] = columns! {
    "sink" Text "" Public "" "where to" "file";
    "alert_id" Text "UUID" Public "" "which alert" "0c7e0a8e-5a0f-5c5b-9d5e-0d2b6f1f3a77";
    "state" Text "" Public "" "pending, done or dead" "done";
    "attempts" Integer "attempts" Public "" "how often it was tried" "1";
    "created" Timestamp "µs since the Unix epoch, UTC" Public "" "when the alert entered the outbox" "2026-01-31T12:00:00.010000Z";
    "next_try" Timestamp "µs since the Unix epoch, UTC" Public "" "not before this; NULL when it is not due by a time"
        "2026-01-31T12:00:05.000000Z";
    "last_error" Text "" Public "" "why the last attempt failed; NULL when none did" "permission denied";
};

pub(super) const RULES: &[Column] = columns! {
    "id" Text "UUID" Public "" "identity" "6f1f3a77-3f0a-4b6c-9a9e-2d0b7c1e5a10";
    "version" Integer "" Public "" "grows when the text changes" "2";
    "name" Text "" Public "" "title of its alerts" "Reverse shell from a script interpreter";
    "severity" Text "" Public "" "info, low, medium, high or critical" "high";
    "state" Text "" Public "" "active, archived, disabled or draft" "active";
    "kind" Text "" Public "" "stream (decided by one event) or window (needs history)" "stream";
    "category" Text "" Public "" "what kind of event it looks at" "process_creation";
    "tags" Text "comma-separated" Public "" "ATT&CK ids and free tags" "attack.t1059.004";
    "status" Text "" Public "" "how far its author trusts it: stable, test, experimental or deprecated" "stable";
    "description" Text "" Public "" "what it finds and why that is bad" "A shell whose input and output are a socket.";
    "author" Text "" Public "" "who wrote it" "DaemonEye";
    "reference_urls" Text "comma-separated" Public "" "where to read more" "https://attack.mitre.org/techniques/T1059/004/";
    "false_positives" Text "separated by semicolons" Public "" "harmless causes" "administrators who debug a network";
    "sql" Text "" Public "" "the statement" "SELECT * FROM process_events WHERE name = 'nc'";
    "dedup" Text "comma-separated column names" Public "" "columns whose values tell one alert from the next; empty: entity_id"
        "name,uid";
    "dedup_window_s" Integer "s" Public "" "how long repeats raise the count of the alert that stands; 0: as the agent is set" "300";
    "hash" Text "hex" Public "" "BLAKE3 of its text" "af1349b9f5f9a1a6a0404dea36dcc949";
    "pack" Text "" Public "" "pack that it came in" "linux";
    "file" Text "" Public "" "file name inside the pack" "reverse_shell.yml";
};
