//! Columns of what belongs to rules: what they cost, what they may not mean, what they name and what they come in.

use crate::columns::{Column, Kind, Sensitivity, columns};

pub(super) const RULE_VERSIONS: &[Column] = columns! {
    "rule_id" Text "UUID" Public "" "which rule" "6f1f3a77-3f0a-4b6c-9a9e-2d0b7c1e5a10";
    "version" Integer "" Public "" "which version of it, as in alerts.rule_version" "2";
    "hash" Text "hex" Public "" "BLAKE3 of its text, as in alerts.rule_hash" "af1349b9f5f9a1a6a0404dea36dcc949";
    "since" Timestamp "µs since the Unix epoch, UTC" Public "" "when it was first loaded" "2026-01-31T12:00:00.000000Z";
    "file" Text "" Public "" "the file that it was read from" "/etc/daemoneye/rules.d/shell.yaml";
    "text" Text "YAML" Public "" "what that held" "id: 6f1f3a77-3f0a-4b6c-9a9e-2d0b7c1e5a10";
    "overrides" Text "JSON object" Public "" "the files that override it, each with what it held" "{}";
};

pub(super) const RULE_STATS: &[Column] = columns! {
    "rule_id" Text "UUID" Public "" "which rule" "6f1f3a77-3f0a-4b6c-9a9e-2d0b7c1e5a10";
    "name" Text "" Public "" "its name" "Reverse shell from a script interpreter";
    "version" Integer "" Public "" "its version" "2";
    "state" Text "" Public "" "active; or draft: it is evaluated and counted, and never alerts" "active";
    "health" Text "" Public "" "ok; unhealthy: something that it reads is missing; slow or degraded: it is over its budget; held: the limit of alerts folds its matches" "ok";
    "reason" Text "" Public "" "why it is not ok; NULL where it is" "no collector of processes is connected";
    "evaluations" Integer "batches" Public "" "batches of events that it was asked about; of a window rule the times that it was decided" "18220";
    "rows" Integer "events" Public "" "events that it was asked about; those of the past with which a window rule begins are not counted" "91344";
    "matches" Integer "events" Public "" "events that it matched; of a draft those that would have been alerts" "3";
    "hidden" Integer "events" Public "" "matches that its exceptions hid, as far back as alerts are kept" "12";
    "folded" Integer "events" Public "" "matches above the limit of alerts since the agent began: they are counted in a summary for each minute" "0";
    "time_us" Integer "µs" Public "" "time that it took" "4120";
    "over_budget" Integer "batches" Public "" "batches that cost it more than 100 ms of CPU time" "0";
    "degraded" Integer "batches" Public "" "batches over something that is missing: events, or a column that it reads" "0";
    "overflows" Integer "results" Public "" "numbers that did not fit and were NULL" "0";
    "last_match" Timestamp "µs since the Unix epoch, UTC" Public "" "time of the last event that it matched; NULL when none did"
        "2026-01-31T12:00:00.000000Z";
    "overrides" Text "comma-separated" Public "" "the override files that change it" "webserver.yaml";
};

pub(super) const RULE_EXCEPTIONS: &[Column] = columns! {
    "id" Text "UUID" Public "" "identity; derived from the rule and the condition" "9b2f1c4e-8d3a-5e7f-a1b2-c3d4e5f60718";
    "rule_id" Text "UUID" Public "" "the rule that it belongs to" "6f1f3a77-3f0a-4b6c-9a9e-2d0b7c1e5a10";
    "rule" Text "" Public "" "that rule's name" "Reverse shell from a script interpreter";
    "condition" Text "SQL" Public "" "the events that it hides" "executable_path = '/opt/backup/agent'";
    "owner" Text "" Identity "" "who answers for it" "alice";
    "reason" Text "" Public "" "why it is there" "the backup agent opens a shell every night";
    "expires" Timestamp "µs since the Unix epoch, UTC" Public "" "from then on it hides nothing; NULL: it stays" "2026-12-31T00:00:00.000000Z";
    "state" Text "" Public "" "active or expired" "active";
    "hits" Integer "events" Public "" "matches that it hid, as far back as alerts are kept" "12";
    "last_hit" Timestamp "µs since the Unix epoch, UTC" Public "" "time of the last one; NULL when there is none" "2026-01-31T12:00:00.000000Z";
    "file" Text "" Public "" "the override file" "backup.yaml";
    "line" Integer "" Public "" "its line in that file" "7";
};

pub(super) const RULE_LISTS: &[Column] = columns! {
    "name" Text "" Public "" "what rules call it: x IN (list('web_servers'))" "web_servers";
    "description" Text "" Public "" "what its values are" "programs that serve HTTP";
    "size" Integer "values" Public "" "how many values it has" "5";
    "items" Text "JSON array" Public "" "its values" "[\"nginx\",\"httpd\"]";
    "rules" Integer "rules" Public "" "how many rules name it" "3";
    "files" Text "comma-separated" Public "" "the files that it is made of" "web_servers.yaml,local.yaml";
};

pub(super) const RULE_PACKS: &[Column] = columns! {
    "name" Text "" Public "" "name, as in rules.pack" "linux";
    "version" Text "" Public "" "as its manifest says; NULL: the directory has no manifest" "1.2.0";
    "description" Text "" Public "" "what its rules are about; NULL without a manifest" "Linux hosts";
    "author" Text "" Public "" "who made it; NULL without a manifest" "DaemonEye";
    "rules" Integer "rules" Public "" "its rules, those that do not run among them" "18";
    "running" Integer "rules" Public "" "those that run, drafts among them" "18";
};

pub(super) const RULE_PROBLEMS: &[Column] = columns! {
    "place" Text "" Public "" "file, line and column as editors take them" "/etc/daemoneye/rules.d/shell.yaml:12:9";
    "file" Text "" Public "" "the file that was not taken, or the directory that cannot be read" "/etc/daemoneye/rules.d/shell.yaml";
    "line" Integer "" Public "" "line in it, from 1; NULL: the file as a whole" "12";
    "column" Integer "" Public "" "column in that line, from 1" "9";
    "problem" Text "" Public "" "what is wrong" "process_events has no column nmae";
    "hint" Text "" Public "" "what to write instead; NULL where that cannot be said" "did you mean name?";
};
