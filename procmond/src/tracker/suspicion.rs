//! What is suspicious about a process by itself. Each reason is raised once per image, so that a rule over `reason` does not
//! repeat itself at every scan.

use daemoneye_lib::proto::{AlertSeverity, ProcessEvent, ProcessRecord};

/// Start times may lie ahead by the rounding of clocks to ticks or seconds; more is a forged or broken record.
const FUTURE_TOLERANCE_US: i64 = 5_000_000;

/// Names that only threads of the kernel bear; a process with an executable under one of them hides.
const KERNEL_NAMES: &[&str] = &[
    "kthreadd",
    "kworker/",
    "ksoftirqd/",
    "kswapd",
    "khugepaged",
    "kcompactd",
    "kdevtmpfs",
    "kauditd",
    "khungtaskd",
    "migration/",
    "cpuhp/",
    "watchdogd",
    "watchdog/",
    "rcu_sched",
    "rcu_preempt",
    "rcu_gp",
    "rcu_par_gp",
    "rcu_tasks",
    "jbd2/",
    "irq/",
    "scsi_eh_",
    "oom_reaper",
    "idle_inject/",
];

/// One reason.
pub(super) struct Suspicion {
    pub(super) bit: u8,
    pub(super) reason: &'static str,
    pub(super) severity: AlertSeverity,
    holds: fn(&ProcessRecord, i64) -> bool,
}

impl Suspicion {
    /// As an event.
    pub(super) fn event(&self, event: ProcessEvent) -> ProcessEvent {
        ProcessEvent { reason: Some(self.reason.to_owned()), severity: self.severity.into(), ..event }
    }
}

/// Announced, or met by a snapshot: one that lets go in between is seen by the proc connector only.
pub(super) const PTRACE_ATTACHED: Suspicion = Suspicion {
    bit: 16,
    reason: "ptrace_attached",
    severity: AlertSeverity::Medium,
    holds: |record, _| record.status.as_deref() == Some("traced"),
};

/// Closed list; the bits are stored in checkpoints, so they are never reused.
const ALL: &[Suspicion] = &[
    Suspicion {
        bit: 1,
        reason: "executable_deleted",
        severity: AlertSeverity::Medium,
        holds: |record, _| record.deleted_executable == Some(true),
    },
    Suspicion {
        bit: 2,
        reason: "memfd_executable",
        severity: AlertSeverity::High,
        holds: |record, _| record.memfd == Some(true),
    },
    Suspicion {
        bit: 4,
        reason: "kernel_thread_name",
        severity: AlertSeverity::High,
        holds: |record, _| record.executable_path.is_some() && names_a_kernel_thread(record),
    },
    Suspicion {
        bit: 8,
        reason: "start_time_in_future",
        severity: AlertSeverity::Low,
        holds: |record, now| record.start_time_us.is_some_and(|start| start > now.saturating_add(FUTURE_TOLERANCE_US)),
    },
    PTRACE_ATTACHED,
    Suspicion {
        bit: 32,
        reason: "name_unlike_executable",
        severity: AlertSeverity::Low,
        holds: |record, _| names_another_program(record),
    },
];

/// The reasons that hold now.
pub(super) fn found(record: &ProcessRecord, now_us: i64) -> impl Iterator<Item = &'static Suspicion> {
    ALL.iter().filter(move |suspicion| (suspicion.holds)(record, now_us))
}

/// The bit of a reason that was raised earlier; 0 for one that is not of this list.
pub(super) fn bit_of(reason: &str) -> u8 {
    ALL.iter().find(|suspicion| suspicion.reason == reason).map_or(0, |suspicion| suspicion.bit)
}

fn zeroth_argument(record: &ProcessRecord) -> Option<&str> {
    let length = record.arg_lengths.first().and_then(|length| usize::try_from(*length).ok())?;
    record.command_line.as_deref()?.get(..length)
}

/// Whether its first argument is the path of another program than the one that was executed, as `ps` then shows it. Where the name
/// given to exec is not the executable's, a link or a script lies between them and the argument may be right.
fn names_another_program(record: &ProcessRecord) -> bool {
    let base = |path: &str| path.rsplit('/').next().unwrap_or_default().to_owned();
    let shown = zeroth_argument(record).filter(|argument| argument.starts_with('/'));
    let executed = record.exec_filename.as_deref().zip(record.executable_path.as_deref());
    let Some((shown, (given, executable))) = shown.zip(executed) else { return false };
    base(given) == base(executable) && base(shown) != base(executable)
}

fn names_a_kernel_thread(record: &ProcessRecord) -> bool {
    let zeroth = zeroth_argument(record);
    // `ps` shows kernel threads in brackets; the program `[` has no closing one in its name.
    let bracketed = zeroth.is_some_and(|name| name.len() > 2 && name.starts_with('[') && name.ends_with(']'));
    bracketed || KERNEL_NAMES.iter().any(|name| record.name.starts_with(name))
}
