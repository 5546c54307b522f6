//! The portable source, over the `sysinfo` crate. Start times come in whole seconds, so identities are marked estimated: a
//! pid that is reused within one second by a process that starts in the same second is not told from the one before.
//!
//! It is never mixed with procfs on one host: its identities differ, and every process would stop and start.

use std::path::Path;

use daemoneye_lib::entity::EntityId;
use daemoneye_lib::proto::{Capture, Identity, ProcessRecord};
use sysinfo::{
    Pid, Process, ProcessRefreshKind, ProcessStatus, ProcessesToUpdate, RefreshKind, System, ThreadKind, UpdateKind,
};

use super::accounts::Accounts;
use crate::collector::{
    CollectionStats, Image, ProcessCollectionError, ProcessCollector, ProcessCollectorCapabilities, Sighting,
};
use crate::text::{CommandLine, Executable, escaped, mark};

const MICROS: u64 = 1_000_000;

/// The sysinfo source.
pub struct SysinfoCollector {
    system: System,
    boot_id: String,
    accounts: Accounts,
}

impl SysinfoCollector {
    /// Opens it.
    ///
    /// # Errors
    /// The crate does not support this system.
    pub fn open() -> Result<Self, ProcessCollectionError> {
        // Where the kernel has a boot id, it is steadier than the boot time, which moves when the clock is set.
        let boot_id = std::fs::read_to_string("/proc/sys/kernel/random/boot_id")
            .map(|text| text.trim().to_owned())
            .unwrap_or_else(|_absent| format!("boot-{}", System::boot_time().unwrap_or(0)));
        let unsupported = |error: sysinfo::Error| ProcessCollectionError::PlatformError {
            source_name: "sysinfo",
            reason: error.to_string(),
        };
        let system = System::new_with_specifics(RefreshKind::nothing()).map_err(unsupported)?;
        Ok(Self { system, boot_id, accounts: Accounts::new("/etc/passwd") })
    }

    fn refresh(&mut self, which: ProcessesToUpdate<'_>) -> usize {
        let kind = ProcessRefreshKind::nothing()
            .without_tasks()
            .with_memory()
            .with_cpu()
            .with_exe(UpdateKind::Always)
            .with_cmd(UpdateKind::Always)
            .with_cwd(UpdateKind::Always)
            .with_user(UpdateKind::Always);
        self.accounts.refresh();
        self.system.refresh_processes_specifics(which, true, kind)
    }

    fn record(&self, process: &Process) -> (EntityId, ProcessRecord) {
        let pid = process.pid().as_u32();
        let start_us = process.start_time().saturating_mul(MICROS);
        let entity = EntityId::derive(&self.boot_id, pid, start_us);
        let id = |text: String| text.parse::<u32>().ok();
        let uid = process.user_id().and_then(|uid| id(uid.to_string()));
        let mut record = ProcessRecord {
            entity_id: entity.as_bytes().to_vec(),
            identity: Identity::Estimated.into(),
            pid,
            ppid: process.parent().map(Pid::as_u32),
            name: escaped(process.name().as_encoded_bytes()).0,
            cwd: process.cwd().map(path_text),
            uid,
            euid: process.effective_user_id().and_then(|uid| id(uid.to_string())),
            gid: process.group_id().and_then(|gid| id(gid.to_string())),
            user: uid.and_then(|uid| self.accounts.name(uid)).map(str::to_owned),
            session: process.session_id().map(Pid::as_u32),
            start_time_us: i64::try_from(start_us).ok(),
            status: Some(status(process.status()).to_owned()),
            cpu_usage: Some(f64::from(process.cpu_usage())),
            memory_usage: Some(process.memory()),
            capture: Capture::Complete.into(),
            ..ProcessRecord::default()
        };
        if let Some(link) = process.exe() {
            let bytes = link.as_os_str().as_encoded_bytes();
            let executable = Executable::of(bytes, |_marked| link.exists());
            record.executable_path = Some(escaped(executable.path).0);
            record.deleted_executable = Some(executable.deleted);
            record.memfd = Some(executable.memfd);
        }
        arguments(process, &mut record);
        (entity, record)
    }
}

impl ProcessCollector for SysinfoCollector {
    fn name(&self) -> &'static str {
        "sysinfo"
    }

    fn boot_id(&self) -> &str {
        &self.boot_id
    }

    fn capabilities(&self) -> ProcessCollectorCapabilities {
        ProcessCollectorCapabilities {
            exact_identity: false,
            notes: vec![
                "sysinfo: start times in whole seconds, identities are estimated".to_owned(),
                "sysinfo: no terminal, control group, container or namespace".to_owned(),
            ],
            missing_columns: &["tty", "cgroup", "container_id", "pid_namespace", "namespace_pid"],
        }
    }

    fn collect_processes(
        &mut self,
        each: &mut dyn FnMut(Sighting),
    ) -> Result<CollectionStats, ProcessCollectionError> {
        self.refresh(ProcessesToUpdate::All);
        let mut stats = CollectionStats::default();
        for process in self.system.processes().values() {
            if process.thread_kind() == Some(ThreadKind::Userland) {
                continue;
            }
            let (entity, record) = self.record(process);
            let pid = record.pid;
            stats.processes = stats.processes.saturating_add(1);
            stats.read_in_full = stats.read_in_full.saturating_add(1);
            each(Sighting::Read(Box::new(record), Image::UNSEEN));
            if matches!(process.status(), ProcessStatus::Zombie | ProcessStatus::Dead) {
                each(Sighting::Ended { entity, pid, exit_code: None });
            }
        }
        if stats.processes == 0 {
            let reason = "it lists no process at all".to_owned();
            return Err(ProcessCollectionError::PlatformError { source_name: "sysinfo", reason });
        }
        Ok(stats)
    }

    fn collect_process(&mut self, pid: u32) -> Result<ProcessRecord, ProcessCollectionError> {
        let wanted = Pid::from_u32(pid);
        self.refresh(ProcessesToUpdate::Some(&[wanted]));
        let process = self.system.process(wanted).ok_or(ProcessCollectionError::ProcessNotFound { pid })?;
        Ok(self.record(process).1)
    }

    fn forget(&mut self, _pids: &[u32]) {
        // Every scan reads everything.
    }

    fn health_check(&mut self) -> Result<(), ProcessCollectionError> {
        self.collect_process(std::process::id()).map(|_ourselves| ())
    }
}

fn arguments(process: &Process, record: &mut ProcessRecord) {
    if !process.cmd().is_empty() {
        let line = CommandLine::of(process.cmd().iter().map(|argument| argument.as_encoded_bytes()));
        record.command_line = Some(line.text);
        record.arg_lengths = line.arg_lengths;
        if line.truncated {
            mark(record, "command_line");
        }
    }
}

fn path_text(path: &Path) -> String {
    escaped(path.as_os_str().as_encoded_bytes()).0
}

const fn status(status: ProcessStatus) -> &'static str {
    match status {
        ProcessStatus::Run | ProcessStatus::Waking => "running",
        ProcessStatus::Sleep | ProcessStatus::Parked | ProcessStatus::LockBlocked => "sleeping",
        ProcessStatus::UninterruptibleDiskSleep | ProcessStatus::Wakekill => "disk_sleep",
        ProcessStatus::Stop | ProcessStatus::Suspended => "stopped",
        ProcessStatus::Tracing => "traced",
        ProcessStatus::Zombie => "zombie",
        ProcessStatus::Dead => "dead",
        ProcessStatus::Idle => "idle",
        ProcessStatus::Unknown(_) => "unknown",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_sees_this_process_with_an_estimated_identity() {
        let mut collector = SysinfoCollector::open().unwrap();
        collector.health_check().unwrap();
        let mut found = None;
        collector
            .collect_processes(&mut |sighting| {
                if let Sighting::Read(record, _) = sighting
                    && record.pid == std::process::id()
                {
                    found = Some(record);
                }
            })
            .unwrap();
        let record = found.unwrap();
        assert_eq!(record.identity(), Identity::Estimated);
        assert!(record.memory_usage.unwrap() > 4096 && record.start_time_us.is_some());
        assert!(record.executable_path.unwrap().starts_with('/'));
    }

    #[test]
    fn a_pid_that_nobody_has_is_not_found() {
        let error = SysinfoCollector::open().unwrap().collect_process(u32::MAX / 2).unwrap_err();
        assert!(matches!(error, ProcessCollectionError::ProcessNotFound { .. }));
    }
}
