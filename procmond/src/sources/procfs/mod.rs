//! Reads `/proc` directly: the source with exact identities on Linux.
//!
//! A scan reads `stat` and the owner of every known process, and everything of a new one. A known process is read in full
//! again when its name, its image (addresses drawn anew at each exec) or its effective user changed, and otherwise in turn:
//! that is how a deleted executable or a rewritten command line is noticed. It refuses to guess: what the kernel does not
//! show stays absent.

mod known;
pub mod parse;
pub(in crate::sources) mod read;
pub(in crate::sources) mod table;

use std::path::Path;
use std::time::{Duration, Instant};

use daemoneye_lib::entity::EntityId;
use daemoneye_lib::proto::ProcessRecord;
use rustix::fs::CWD;

use self::known::{Cycle, KnownProcesses};
use self::read::{Clock, Reader};
use self::table::Unread;
use crate::collector::{
    CollectionStats, ProcessCollectionError, ProcessCollector, ProcessCollectorCapabilities, Sighting, Ticks, Vitals,
};
use crate::text::{Executable, escaped};

/// A scan that takes longer is given up between two processes: 10,000 take about one second. One that hangs in a single call
/// goes on, and `health` shows it.
const SCAN_LIMIT: Duration = Duration::from_secs(60);

/// Opens the reader over the proc tree at `root`.
///
/// # Errors
/// When it is not a directory, or not a proc tree with a boot id and a boot time.
pub fn open(root: &Path) -> Result<Box<dyn ProcessCollector>, ProcessCollectionError> {
    Ok(Box::new(ProcfsCollector::open(root, Path::new("/etc/passwd"))?))
}

/// The path of the executable that a process runs, if the kernel marks it as deleted. Asks no file system but `/proc`.
#[must_use]
pub fn deleted_executable(pid: u32) -> Option<String> {
    let link = rustix::fs::readlinkat(CWD, format!("/proc/{pid}/exe"), Vec::new()).ok()?;
    // One that is really called so is known by its whole name, and nobody is known by this one.
    let executable = Executable::of(link.as_bytes(), |_path| false);
    executable.deleted.then(|| escaped(executable.path).0)
}

/// Makes this thread run before all ordinary ones: at the lowest real-time priority, which is enough for that.
///
/// # Errors
/// Why the kernel refused.
pub fn run_at_once() -> Result<(), String> {
    use thread_priority::{
        RealtimeThreadSchedulePolicy, ThreadPriority, ThreadPriorityValue, ThreadSchedulePolicy,
        set_thread_priority_and_policy, thread_native_id,
    };
    let lowest = ThreadPriorityValue::try_from(1u8)?;
    let policy = ThreadSchedulePolicy::Realtime(RealtimeThreadSchedulePolicy::Fifo);
    set_thread_priority_and_policy(thread_native_id(), ThreadPriority::Crossplatform(lowest), policy)
        .map_err(|error| format!("{error:?}"))
}

/// The procfs source.
pub struct ProcfsCollector {
    reader: Reader,
    known: KnownProcesses,
    pids: Vec<u32>,
    /// Whether the tree shows this very machine, so that we must find ourselves in it.
    live: bool,
}

impl ProcfsCollector {
    /// A reader over the proc tree at `root`, with user names from `passwd`.
    ///
    /// # Errors
    /// When `root` is not a readable proc tree.
    pub fn open(root: &Path, passwd: &Path) -> Result<Self, ProcessCollectionError> {
        let live = root == Path::new("/proc");
        let reader = Reader::open(root, passwd, Clock::of(live))?;
        Ok(Self { reader, known: KnownProcesses::default(), pids: Vec::new(), live })
    }

    fn visit(
        &mut self,
        pid: u32,
        cycle: &Cycle,
        due: bool,
        stats: &mut CollectionStats,
        each: &mut dyn FnMut(Sighting),
    ) -> Result<(), Unread> {
        let glance = self.reader.glance(pid)?;
        stats.processes = stats.processes.saturating_add(1);
        let cpu_usage = self.known.cpu_usage(pid, &glance, cycle, self.reader.clock.ticks_per_second);
        let ended = glance.ended;
        match self.known.is_same(pid, &glance) {
            true if !due || ended => {
                let entity = EntityId::derive(&self.reader.boot_id, pid, glance.start_ticks);
                if ended {
                    each(Sighting::Ended { entity, pid, exit_code: glance.exit_code });
                } else {
                    let memory_usage = Some(glance.memory_usage);
                    each(Sighting::Same(Vitals { entity, pid, status: glance.status, cpu_usage, memory_usage }));
                }
                self.known.seen(pid, &glance, cycle);
            }
            _ => {
                let full = self.reader.complete(pid, glance)?;
                stats.read_in_full = stats.read_in_full.saturating_add(1);
                let (entity, exit_code) = (full.entity, full.glance.exit_code);
                let record = ProcessRecord { cpu_usage, ..full.record };
                each(Sighting::Read(Box::new(record), full.image));
                if full.glance.ended {
                    each(Sighting::Ended { entity, pid, exit_code });
                }
                // The second look is what the record was made from; the first may be from before an exec.
                self.known.insert(pid, &full.glance, cycle);
            }
        }
        Ok(())
    }
}

impl ProcessCollector for ProcfsCollector {
    fn name(&self) -> &'static str {
        "procfs"
    }

    fn boot_id(&self) -> &str {
        &self.reader.boot_id
    }

    fn ticks(&self) -> Ticks {
        self.reader.ticks()
    }

    fn capabilities(&self) -> ProcessCollectorCapabilities {
        let mut notes = vec!["procfs: exact identities from boot id, pid and start ticks".to_owned()];
        if self.live && !rustix::process::geteuid().is_root() {
            notes.push(
                "executable, working directory and namespace of other users' processes need the capability SYS_PTRACE"
                    .to_owned(),
            );
        }
        ProcessCollectorCapabilities { exact_identity: true, notes, missing_columns: &[] }
    }

    fn collect_processes(
        &mut self,
        each: &mut dyn FnMut(Sighting),
    ) -> Result<CollectionStats, ProcessCollectionError> {
        let started = Instant::now();
        let mut pids = std::mem::take(&mut self.pids);
        self.reader.accounts.refresh();
        self.reader.table.pids(&mut pids).map_err(|source| self.reader.unlisted(source))?;
        // The first process of a namespace lives as long as the namespace.
        let hiding = self.live && !pids.contains(&1);
        let mut stats = CollectionStats { hiding, ..CollectionStats::default() };
        let cycle = self.known.begin(started, &pids);
        for (at, pid) in pids.iter().enumerate() {
            if started.elapsed() > SCAN_LIMIT {
                let after_ms = u64::try_from(SCAN_LIMIT.as_millis()).unwrap_or(u64::MAX);
                return Err(ProcessCollectionError::CollectionTimeout { after_ms });
            }
            match self.visit(*pid, &cycle, cycle.is_due(at), &mut stats, each) {
                Ok(()) => {}
                Err(Unread::Gone) => stats.vanished = stats.vanished.saturating_add(1),
                Err(Unread::Denied | Unread::Failed) => {
                    stats.inaccessible = stats.inaccessible.saturating_add(1);
                    each(Sighting::Unread(*pid));
                }
            }
        }
        self.known.finish(&cycle);
        self.pids = pids;
        Ok(stats)
    }

    fn collect_process(&mut self, pid: u32) -> Result<ProcessRecord, ProcessCollectionError> {
        match self.reader.everything(pid) {
            Ok(full) => Ok(full.record),
            Err(Unread::Denied) => Err(ProcessCollectionError::ProcessAccessDenied { pid }),
            Err(Unread::Failed) => Err(ProcessCollectionError::ProcessUnreadable { pid }),
            Err(Unread::Gone) => Err(ProcessCollectionError::ProcessNotFound { pid }),
        }
    }

    fn forget(&mut self, pids: &[u32]) {
        self.known.forget(pids);
    }

    fn health_check(&mut self) -> Result<(), ProcessCollectionError> {
        let mut pids = Vec::new();
        self.reader.table.pids(&mut pids).map_err(|source| self.reader.unlisted(source))?;
        if self.live { self.collect_process(std::process::id()).map(|_ourselves| ()) } else { Ok(()) }
    }
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;
