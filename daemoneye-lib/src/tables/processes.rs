//! What `processes` and `process_lifetimes` take from the columns of process events, and what is different there.

use crate::columns::{Column, Kind, Sensitivity, columns};

/// What describes a process, rather than something that happened to it.
pub(super) fn describes_a_process(column: &Column) -> bool {
    column.field.starts_with("process.") || column.field.starts_with("record.") || column.field == "time_us"
}

/// What holds for a process as a whole. Samples have their peaks instead, and what is long and stands in the start event is
/// not repeated.
pub(super) fn belongs_to_a_lifetime(column: &Column) -> bool {
    let at_its_end = matches!(column.name, "exit_code" | "runtime_ms" | "end_observed");
    let elsewhere = matches!(
        column.name,
        "arg_lengths" | "cpu_usage" | "memory_usage" | "parent_command_line" | "status" | "truncated"
    );
    let in_its_start = column.field.starts_with("process.windows.");
    (describes_a_process(column) || at_its_end) && !elsewhere && !in_its_start
}

pub(super) const OF_THE_LIVING: &[Column] = columns! {
    "time" Timestamp "µs since the Unix epoch, UTC" Public "time_us"
        "time of its latest event" "2026-01-31T12:00:00.000000Z";
};

pub(super) const OF_A_LIFETIME: &[Column] = columns! {
    "time" Timestamp "µs since the Unix epoch, UTC" Public "time_us"
        "when its end was told; of a process that lives, its latest event" "2026-01-31T12:00:01.830000Z";
    "start_time" Timestamp "µs since the Unix epoch, UTC" Public ""
        "when it started; where that could not be read, when it was first told of" "2026-01-31T12:00:00.000000Z";
    "exit_code" Integer "" Public "exit_code"
        "exit status; negative: killed by that signal; NULL while it lives and where no kernel source saw the end" "0";
    "runtime_ms" Integer "ms" Public "runtime_ms"
        "how long it lived; NULL while it lives and where nobody watched its end" "1830";
    "end_observed" Boolean "" Public "end_observed"
        "false when the end was found later, so that stop_time is the latest it can have been; NULL while it lives" "true";
    "stop_time" Timestamp "µs since the Unix epoch, UTC" Public ""
        "when it ended; NULL while it lives" "2026-01-31T12:00:01.830000Z";
    "max_cpu_usage" Real "percent of one CPU" Public ""
        "highest cpu_usage that was told of it: at its start, its changes, its end and when its collector connects" "12.5";
    "max_memory_usage" Integer "bytes" Public ""
        "highest memory_usage that was told of it, on the same occasions" "8388608";
};
