//! From a record of the ring to the record of a process. Only what the kernel's program had no room for is read from `/proc`
//! (arguments beyond 4 KiB, very deep paths), so an ordinary exec costs no system call and races with nothing.

use std::path::Path;

use daemoneye_lib::entity::EntityId;
use daemoneye_lib::proto::{Capture, ProcessRecord};
use rustix::time::{ClockId, clock_gettime};

use super::record::{Exec, Flags, Owner};
use crate::collector::Image;
use crate::kernel::Credentials;
use crate::sources::accounts::Accounts;
use crate::sources::native::parse;
use crate::sources::native::table::Table;
use crate::text::{CommandLine, Executable, escaped, mark};

/// How the kernel's nanoseconds since boot become wall-clock time and clock ticks.
#[derive(Debug, Clone, Copy)]
pub(super) struct Clock {
    boot_us: i64,
    tick_us: i64,
    tick_ns: u64,
}

impl Clock {
    pub(super) fn new() -> Self {
        let ticks = rustix::param::clock_ticks_per_second().clamp(1, 1_000_000);
        let mut clock = Self {
            boot_us: 0,
            tick_us: i64::try_from(1_000_000 / ticks).unwrap_or(i64::MAX),
            tick_ns: 1_000_000_000 / ticks,
        };
        clock.refresh();
        clock
    }

    /// The wall clock is set and slewed while the machine runs.
    pub(super) fn refresh(&mut self) {
        let micros = |clock| {
            let now = clock_gettime(clock);
            now.tv_sec.saturating_mul(1_000_000).saturating_add(now.tv_nsec / 1000)
        };
        self.boot_us = micros(ClockId::Realtime).saturating_sub(micros(ClockId::Boottime));
    }

    pub(super) fn wall_us(&self, since_boot_ns: u64) -> i64 {
        self.boot_us.saturating_add(i64::try_from(since_boot_ns / 1000).unwrap_or(i64::MAX))
    }

    /// As the kernel computes field 22 of `stat`.
    pub(super) const fn ticks(&self, since_boot_ns: u64) -> u64 {
        since_boot_ns / self.tick_ns
    }

    fn ticks_us(&self, ticks: u64) -> i64 {
        let since = i64::try_from(ticks).unwrap_or(i64::MAX).saturating_mul(self.tick_us);
        self.boot_us.saturating_add(since)
    }
}

/// Makes process records out of what the kernel's program saw.
pub(super) struct Completer {
    table: Table,
    pub(super) accounts: Accounts,
    boot_id: String,
}

impl Completer {
    pub(super) fn open(boot_id: &str) -> std::io::Result<Self> {
        let table = Table::open(Path::new("/proc"))?;
        Ok(Self { table, accounts: Accounts::new("/etc/passwd"), boot_id: boot_id.to_owned() })
    }

    /// The record of a process that has just replaced its program.
    pub(super) fn record(&mut self, clock: &Clock, pid: u32, ticks: u64, exec: &Exec<'_>) -> (ProcessRecord, Image) {
        let entity = EntityId::derive(&self.boot_id, pid, ticks);
        let [_, stack, _] = exec.image;
        let image = if stack == 0 { Image::UNSEEN } else { Image::at(&entity, &exec.image) };
        let owner = self.credentials(exec.owner);
        let mut record = ProcessRecord {
            pid,
            ppid: Some(exec.parent),
            name: escaped(exec.name).0,
            exec_filename: Some(escaped(exec.filename).0).filter(|name| !name.is_empty()),
            uid: Some(owner.uid),
            gid: Some(owner.gid),
            euid: Some(owner.euid),
            user: owner.user,
            session: Some(owner.session),
            tty: owner.tty,
            start_time_us: Some(clock.ticks_us(ticks)),
            status: Some("running".to_owned()),
            pid_namespace: Some(u64::from(exec.pid_namespace)),
            namespace_pid: Some(exec.namespace_pid),
            capture: Capture::Complete.into(),
            ..ProcessRecord::default()
        };
        if exec.flags.has(Flags::FILENAME_CUT) {
            mark(&mut record, "exec_filename");
        }
        let mut whole = self.executable(&mut record, exec);
        whole &= self.cwd(&mut record, exec);
        whole &= self.cgroup(&mut record, exec);
        whole &= self.arguments(&mut record, exec);
        if !whole {
            record.capture = Capture::Partial.into();
        }
        (record, image)
    }

    pub(super) fn credentials(&self, owner: Owner) -> Credentials {
        let Owner { uid, gid, euid, session, tty } = owner;
        let user = self.accounts.name(uid).map(str::to_owned);
        Credentials { uid, gid, euid, user, session, tty: parse::tty(tty) }
    }

    fn executable(&mut self, record: &mut ProcessRecord, exec: &Exec<'_>) -> bool {
        if exec.flags.has(Flags::EXE_CUT) || exec.exe.is_empty() {
            let Ok(process) = self.table.process(record.pid) else { return false };
            let Ok(link) = self.table.link(&process, "exe") else { return false };
            // The snapshot asks whether a file is really called so; here nothing may wait for a file system.
            let link = Executable::of(link, |_path| false);
            place_executable(record, &link);
            return true;
        }
        let path = exec.exe.path();
        let unhashed = exec.flags.has(Flags::EXE_UNHASHED);
        let memfd = unhashed && path.starts_with(b"/memfd:");
        place_executable(record, &Executable { path: &path, deleted: unhashed && !memfd, memfd });
        true
    }

    fn cwd(&mut self, record: &mut ProcessRecord, exec: &Exec<'_>) -> bool {
        let path = if exec.flags.has(Flags::CWD_CUT) {
            let process = self.table.process(record.pid);
            let Ok(path) = process.and_then(|process| self.table.link(&process, "cwd").map(<[u8]>::to_vec)) else {
                return false;
            };
            path
        } else {
            let mut path = exec.cwd.path();
            if exec.flags.has(Flags::CWD_UNHASHED) {
                // As the link says it.
                path.extend_from_slice(b" (deleted)");
            }
            path
        };
        record.cwd = Some(escaped(&path).0);
        true
    }

    fn cgroup(&mut self, record: &mut ProcessRecord, exec: &Exec<'_>) -> bool {
        let path = if exec.flags.has(Flags::CGROUP_CUT) {
            let process = self.table.process(record.pid);
            let Ok(file) = process.and_then(|process| self.table.file(&process, "cgroup")) else { return false };
            parse::cgroup(file).map(<[u8]>::to_vec).unwrap_or_default()
        } else {
            exec.cgroup.path()
        };
        record.container_id = parse::container_id(&path).map(str::to_owned);
        record.cgroup = Some(escaped(&path).0);
        true
    }

    fn arguments(&mut self, record: &mut ProcessRecord, exec: &Exec<'_>) -> bool {
        let seen = exec.argv;
        if exec.argv_bytes == 0 {
            return true;
        }
        if usize::try_from(exec.argv_bytes) == Ok(seen.len()) {
            set_arguments(record, seen, true);
            return true;
        }
        let process = self.table.process(record.pid);
        let file = process.and_then(|process| self.table.file(&process, "cmdline"));
        // The process may have executed another program since, or written a title over its arguments.
        match file {
            Ok(file) if file.len() > seen.len() && file.starts_with(seen) => {
                set_arguments(record, file, usize::try_from(exec.argv_bytes) == Ok(file.len()));
                true
            }
            _ => {
                set_arguments(record, seen, false);
                false
            }
        }
    }
}

fn place_executable(record: &mut ProcessRecord, executable: &Executable<'_>) {
    record.deleted_executable = Some(executable.deleted);
    record.memfd = Some(executable.memfd);
    record.executable_path = Some(escaped(executable.path).0);
}

/// Arguments at exec are exactly what was given: unlike in a title written later, empty ones at the end are arguments.
fn set_arguments(record: &mut ProcessRecord, bytes: &[u8], whole: bool) {
    let line = CommandLine::of(bytes.strip_suffix(&[0]).unwrap_or(bytes).split(|b| *b == 0));
    if line.truncated || !whole {
        mark(record, "command_line");
    }
    record.command_line = Some(line.text);
    record.arg_lengths = line.arg_lengths;
}
