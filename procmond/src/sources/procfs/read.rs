//! One process, from its files to a record.

use std::hash::{BuildHasher, RandomState};
use std::os::fd::OwnedFd;
use std::path::Path;

use daemoneye_lib::entity::EntityId;
use daemoneye_lib::proto::{Capture, Identity, ProcessRecord};
use rustix::time::{ClockId, clock_gettime};

use super::parse;
use super::table::{Table, Unread};
use crate::collector::{Image, ProcessCollectionError, Ticks};
use crate::sources::accounts::Accounts;
use crate::text::{Executable, escaped, mark};

const MICROS: i64 = 1_000_000;

/// Reads of a process that keeps executing other programs; each exec takes longer than a read, so one repeat is rare.
const ATTEMPTS: u32 = 3;

/// How ticks and pages become microseconds and bytes.
#[derive(Debug, Clone, Copy)]
pub(in crate::sources) struct Clock {
    pub(super) ticks_per_second: u64,
    page_bytes: u64,
    /// When the machine booted, from its own clocks; `None` for a recorded tree, whose `stat` file says it to the second.
    boot_us: Option<i64>,
}

impl Clock {
    pub(in crate::sources) fn of(live: bool) -> Self {
        let micros = |clock| {
            let now = clock_gettime(clock);
            now.tv_sec.saturating_mul(MICROS).saturating_add(now.tv_nsec / 1000)
        };
        Self {
            ticks_per_second: rustix::param::clock_ticks_per_second().max(1),
            page_bytes: u64::try_from(rustix::param::page_size()).unwrap_or(4096),
            boot_us: live.then(|| micros(ClockId::Realtime).saturating_sub(micros(ClockId::Boottime))),
        }
    }
}

/// What `stat` and the owner tell; enough for a process that is already known.
#[derive(Debug, Clone, Copy)]
pub(in crate::sources) struct Glance {
    pub(super) start_ticks: u64,
    pub(super) cpu_ticks: u64,
    pub(super) status: &'static str,
    pub(super) memory_usage: u64,
    pub(super) ended: bool,
    pub(super) exit_code: Option<i32>,
    pub(super) owner: u32,
    pub(super) blank: bool,
    /// Digest of name, image, owner, and whether a debugger holds it.
    pub(super) mark: u64,
}

/// A process read in full.
pub(in crate::sources) struct Full {
    pub(super) entity: EntityId,
    pub(super) glance: Glance,
    pub(in crate::sources) image: Image,
    pub(in crate::sources) record: ProcessRecord,
}

/// What tells a lifetime and its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::sources) struct Lifetime {
    pub(in crate::sources) start_ticks: u64,
    pub(in crate::sources) threads: u64,
    pub(in crate::sources) ended: bool,
}

/// A process that has just executed a program: its arguments, read at once, and the handle to the rest.
pub(in crate::sources) struct Begun {
    process: OwnedFd,
    record: ProcessRecord,
    whole: bool,
}

impl Full {
    pub(in crate::sources) const fn start_ticks(&self) -> u64 {
        self.glance.start_ticks
    }
}

impl Begun {
    /// Without the rest.
    pub(in crate::sources) fn into_record(self) -> Box<ProcessRecord> {
        Box::new(self.record)
    }
}

/// Reads processes out of a proc tree.
pub(in crate::sources) struct Reader {
    pub(super) table: Table,
    pub(in crate::sources) accounts: Accounts,
    pub(super) boot_id: String,
    pub(super) clock: Clock,
    boot_us: i64,
    digest: RandomState,
    root: String,
    /// The namespace of every process that is in none below it: a link less to read for each.
    own_namespace: Option<u64>,
}

impl Reader {
    pub(in crate::sources) fn open(root: &Path, passwd: &Path, clock: Clock) -> Result<Self, ProcessCollectionError> {
        let shown = root.display().to_string();
        let mut table = Table::open(root)
            .map_err(|source| ProcessCollectionError::SystemEnumerationFailed { what: shown.clone(), source })?;
        let missing = |file: &str| ProcessCollectionError::InvalidProcessData { what: format!("{shown}/{file}") };
        let boot_file = "sys/kernel/random/boot_id";
        let boot_id = table.root_file(boot_file).map_err(|_unread| missing(boot_file))?;
        let boot_id = escaped(boot_id.trim_ascii()).0;
        if boot_id.is_empty() {
            return Err(missing(boot_file));
        }
        let seconds = table.root_file("stat").ok().and_then(parse::boot_seconds).ok_or_else(|| missing("stat"))?;
        let boot_us = clock.boot_us.unwrap_or_else(|| seconds.saturating_mul(MICROS));
        let accounts = Accounts::new(passwd);
        let digest = RandomState::new();
        let own_namespace = table.own_namespace();
        Ok(Self { table, accounts, boot_id, clock, boot_us, digest, root: shown, own_namespace })
    }

    pub(super) fn unlisted(&self, source: std::io::Error) -> ProcessCollectionError {
        ProcessCollectionError::SystemEnumerationFailed { what: self.root.clone(), source }
    }

    pub(super) fn ticks(&self) -> Ticks {
        Ticks { zero_us: self.boot_us, per_second: self.clock.ticks_per_second }
    }

    /// The cheap look.
    pub(super) fn glance(&mut self, pid: u32) -> Result<Glance, Unread> {
        let owner = self.table.owner(pid)?;
        let stat = parse::stat(self.table.stat(pid)?).filter(|stat| stat.pid == pid).ok_or(Unread::Denied)?;
        Ok(glance(&self.clock, &self.digest, &stat, owner))
    }

    /// Everything. Fails only when not even `stat` can be read; what vanishes later leaves a partial record.
    pub(super) fn everything(&mut self, pid: u32) -> Result<Full, Unread> {
        let glance = self.glance(pid)?;
        self.complete(pid, glance)
    }

    /// Everything about the process that the last [`Self::glance`] was at. A process that executes another program while it
    /// is read is read again, or its record would mix the two.
    pub(super) fn complete(&mut self, pid: u32, mut glance: Glance) -> Result<Full, Unread> {
        let mut attempt = 1u32;
        loop {
            let (mut full, whole, process) = self.assemble(pid, glance)?;
            let again = self.table.file(&process, "stat").ok().and_then(parse::stat);
            let again = again.map(|stat| self::glance(&self.clock, &self.digest, &stat, glance.owner));
            let in_exec = glance.blank && full.record.executable_path.is_some();
            let same = again.is_some_and(|now| (now.start_ticks, now.mark) == (glance.start_ticks, glance.mark));
            let steady = same && !in_exec;
            // A process that ended meanwhile answers the reads with "no such file", exactly as a kernel thread answers some.
            let ended = again.is_none_or(|now| now.ended && now.start_ticks == glance.start_ticks);
            if steady || ended || attempt == ATTEMPTS {
                if !(steady && whole) {
                    full.record.capture = Capture::Partial.into();
                }
                return Ok(full);
            }
            attempt = attempt.saturating_add(1);
            glance = self.glance(pid)?;
        }
    }

    /// The lifetime that stands under this pid now.
    pub(in crate::sources) fn lifetime(&mut self, pid: u32) -> Result<Lifetime, Unread> {
        let stat = parse::stat(self.table.stat(pid)?).ok_or(Unread::Denied)?;
        Ok(Lifetime { start_ticks: stat.start_ticks, threads: stat.threads, ended: stat.ended() })
    }

    /// The arguments of a process that may be gone within half a millisecond; [`Self::finish`] reads the rest.
    pub(in crate::sources) fn begin(&mut self, pid: u32) -> Result<Begun, Unread> {
        let process = self.table.process(pid)?;
        let mut record = ProcessRecord { pid, ..ProcessRecord::default() };
        let whole = self.arguments(&process, &mut record) && record.command_line.is_some();
        Ok(Begun { process, record, whole })
    }

    /// What [`Self::begin`] left. What can no longer be read leaves a partial record; without `stat` the arguments come back.
    pub(in crate::sources) fn finish(&mut self, begun: Begun) -> Result<Full, Box<ProcessRecord>> {
        let Begun { process, record: mut early, whole } = begun;
        // The link goes with the address space, `stat` stays until the process is reaped.
        let mut whole = self.executable(&process, &mut early, |_path| false).is_ok() && whole;
        let stat = self.table.stat_in(&process).ok().and_then(|()| parse::stat(self.table.last_stat()));
        let Some(stat) = stat else { return Err(Box::new(early)) };
        let glance = self::glance(&self.clock, &self.digest, &stat, 0);
        let entity = EntityId::derive(&self.boot_id, stat.pid, stat.start_ticks);
        let image = stat.image.fixed().map_or(Image::UNSEEN, |addresses| Image::at(&entity, &addresses));
        let basics = self.basics(&stat, &glance, entity);
        let mut record = ProcessRecord {
            executable_path: early.executable_path,
            deleted_executable: early.deleted_executable,
            memfd: early.memfd,
            command_line: early.command_line,
            arg_lengths: early.arg_lengths,
            truncated: early.truncated,
            ..basics
        };
        whole &= self.credentials(&process, &mut record);
        whole &= self.placement(&process, &mut record);
        if !whole || glance.ended {
            record.capture = Capture::Partial.into();
        }
        Ok(Full { entity, glance, image, record })
    }

    fn assemble(&mut self, pid: u32, glance: Glance) -> Result<(Full, bool, OwnedFd), Unread> {
        let process = self.table.process(pid)?;
        let stat = parse::stat(self.table.last_stat()).filter(|stat| stat.pid == pid).ok_or(Unread::Denied)?;
        let entity = EntityId::derive(&self.boot_id, pid, stat.start_ticks);
        let image = stat.image.fixed().map_or(Image::UNSEEN, |addresses| Image::at(&entity, &addresses));
        let mut record = self.basics(&stat, &glance, entity);
        let mut whole = !glance.ended;
        whole &= self.credentials(&process, &mut record);
        whole &= self.arguments(&process, &mut record);
        whole &= self.placement(&process, &mut record);
        let executable = self.executable(&process, &mut record, |path| Table::executable_stands_at(&process, path));
        // A kernel thread has none.
        whole &= executable.is_ok() || executable == Err(Unread::Gone);
        Ok((Full { entity, glance, image, record }, whole, process))
    }

    fn basics(&self, stat: &parse::Stat<'_>, glance: &Glance, entity: EntityId) -> ProcessRecord {
        let (name, _) = escaped(stat.comm);
        ProcessRecord {
            entity_id: entity.as_bytes().to_vec(),
            identity: Identity::Exact.into(),
            pid: stat.pid,
            ppid: Some(stat.ppid),
            name,
            session: Some(stat.session),
            tty: parse::tty(stat.tty_nr),
            start_time_us: self.ticks().time_us(stat.start_ticks),
            status: Some(glance.status.to_owned()),
            memory_usage: Some(glance.memory_usage),
            capture: Capture::Complete.into(),
            ..ProcessRecord::default()
        }
    }

    fn credentials(&mut self, process: &OwnedFd, record: &mut ProcessRecord) -> bool {
        let Ok(bytes) = self.table.file(process, "status") else { return false };
        let status = parse::status(bytes);
        record.uid = status.uid;
        record.euid = status.euid;
        record.gid = status.gid;
        record.namespace_pid = status.namespace_pid;
        record.pid_namespace = self.own_namespace.filter(|_| status.outermost);
        record.user = status.uid.and_then(|uid| self.accounts.name(uid)).map(str::to_owned);
        if status.traced {
            record.status = Some(parse::TRACED.to_owned());
        }
        true
    }

    fn arguments(&mut self, process: &OwnedFd, record: &mut ProcessRecord) -> bool {
        let bytes = match self.table.file(process, "cmdline") {
            Ok(bytes) => bytes,
            Err(unread) => return unread == Unread::Denied,
        };
        if let Some(line) = parse::command_line(bytes) {
            record.command_line = Some(line.text);
            record.arg_lengths = line.arg_lengths;
            if line.truncated {
                mark(record, "command_line");
            }
        }
        true
    }

    fn placement(&mut self, process: &OwnedFd, record: &mut ProcessRecord) -> bool {
        let whole = match self.table.file(process, "cgroup") {
            Ok(bytes) => {
                if let Some(path) = parse::cgroup(bytes) {
                    record.container_id = parse::container_id(path).map(str::to_owned);
                    let (text, fits) = escaped(path);
                    record.cgroup = Some(text);
                    if !fits {
                        mark(record, "cgroup");
                    }
                }
                true
            }
            Err(unread) => unread == Unread::Denied,
        };
        record.cwd = self.table.link(process, "cwd").ok().map(|path| escaped(path).0);
        if record.pid_namespace.is_none() {
            record.pid_namespace = self.table.link(process, "ns/pid").ok().and_then(parse::namespace_inode);
        }
        whole
    }

    fn executable(
        &mut self,
        process: &OwnedFd,
        record: &mut ProcessRecord,
        stands_at: impl FnOnce(&[u8]) -> bool,
    ) -> Result<(), Unread> {
        let executable = Executable::of(self.table.link(process, "exe")?, stands_at);
        let path = executable.path;
        record.deleted_executable = Some(executable.deleted);
        record.memfd = Some(executable.memfd);
        record.executable_path = Some(escaped(path).0);
        Ok(())
    }
}

fn glance(clock: &Clock, digest: &RandomState, stat: &parse::Stat<'_>, owner: u32) -> Glance {
    Glance {
        start_ticks: stat.start_ticks,
        cpu_ticks: stat.cpu_ticks,
        status: stat.status(),
        memory_usage: stat.rss_pages.saturating_mul(clock.page_bytes),
        ended: stat.ended(),
        // Zero also stands for "may not be seen", and a zero that means success cannot be told from it.
        exit_code: (stat.ended() && stat.exit_status != 0).then(|| parse::exit_code(stat.exit_status)),
        owner,
        blank: stat.image.is_blank(),
        mark: digest.hash_one((stat.comm, stat.image, owner, stat.state == b't')),
    }
}
