//! Every fork, exec and exit as a BPF program in the kernel sees it.
//!
//! The programs (`bpf/procmond.bpf.c`, whose object is part of this binary) write into one ring buffer that this reads. After
//! [`open`] nothing here calls `bpf()` any more, so the jail may deny it. Losses are counted in the kernel and carried by
//! every record, hence exact, but one becomes known with the next record of any processor, not before.

mod complete;
mod handed;
mod record;

use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use aya::maps::{Map, MapData, RingBuf};
use aya::programs::tp_btf::BtfTracePointLink;
use aya::programs::{BtfTracePoint, ProgramError};
use aya::{Btf, EbpfLoader};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout};
use nix::sys::signal::{SigSet, SigmaskHow};

use self::complete::{Clock, Completer};
pub(in crate::sources) use self::handed::hand_over;
use self::record::{Body, Record};
use crate::kernel::{KernelSource, KernelSourceError, Notice, What};
use crate::sources::native::parse;

/// Bytes of the ring: see `docs/adr/0007-ring-size.md`. Both mappings of it count as resident memory.
pub const RING_BYTES: u32 = 2 * 1024 * 1024;

/// Records handed out by one call, so that a storm cannot keep its caller from everything else.
const BATCH: usize = 4096;

/// How long records gather after the first has come: a short process forks, executes and ends within it, and everything from here
/// to the alert then wakes up once for it instead of three times (docs/adr/0008-one-wake-up-per-process.md). Whole milliseconds: `poll`
/// knows no others.
const GATHER: Duration = Duration::from_millis(2);

/// How often the account file may be looked at: a `stat` a second is nothing, one per exec is not.
const ACCOUNTS_EVERY: Duration = Duration::from_secs(1);

/// The inode of the first pid namespace, the same on every kernel.
const FIRST_PID_NAMESPACE: u64 = 0xeffffffc;

const NAME: &str = "ebpf";

static OBJECT: &[u8] = aya::include_bytes_aligned!("../../../../bpf/procmond.bpf.o");

/// The eBPF source. Dropping it detaches the programs.
pub struct Ebpf {
    ring: RingBuf<MapData>,
    completer: Completer,
    clock: Clock,
    accounts_at: Option<Instant>,
    /// The last call has left something in the ring.
    behind: bool,
    notes: Vec<String>,
    /// As the newest record says.
    lost: u64,
    /// Records that this build does not understand.
    refused: u64,
    _links: Vec<Link>,
}

/// Detaches its program when it is dropped.
type Link = Box<dyn Send + Sync>;

/// Programs at work.
struct Attached {
    ring: Map,
    links: Vec<Link>,
    /// For `health`.
    notes: Vec<String>,
}

/// Loads and attaches the programs with a ring of `ring_bytes` (a power of two, whole pages), unless an earlier run of this
/// process has left some; `boot_id` is part of every identity.
///
/// # Errors
/// [`KernelSourceError::Unavailable`] with what is missing: privileges, BTF, a tracepoint, or the first pid namespace.
pub fn open(boot_id: &str, ring_bytes: u32) -> Result<Ebpf, KernelSourceError> {
    let Attached { ring, links, notes } = handed::take(ring_bytes).map_or_else(|| attached(ring_bytes), Ok)?;
    Ok(Ebpf {
        ring: RingBuf::try_from(ring).map_err(unavailable)?,
        completer: Completer::open(boot_id).map_err(unavailable)?,
        clock: Clock::new(),
        accounts_at: None,
        behind: false,
        notes,
        lost: 0,
        refused: 0,
        _links: links,
    })
}

fn attached(ring_bytes: u32) -> Result<Attached, KernelSourceError> {
    // The kernel's programs know pids of the first namespace only.
    let namespace = std::fs::read_link("/proc/self/ns/pid").map_err(unavailable)?;
    if parse::namespace_inode(namespace.as_os_str().as_encoded_bytes()) != Some(FIRST_PID_NAMESPACE) {
        return Err(unavailable(
            "it needs the host's pid namespace; run procmond outside of containers, or with theirs shared",
        ));
    }
    let (mut object, btf) = load(ring_bytes)?;
    let mut notes = vec![format!(
        "ebpf: forks, execs and exits from tracepoints, arguments read in the kernel, ring of {ring_bytes} bytes"
    )];
    let links = attach_all(&mut object, &btf, &mut notes)?;
    let ring = object.take_map("RING").ok_or_else(|| unavailable("its object has no ring"))?;
    Ok(Attached { ring, links, notes })
}

fn load(ring_bytes: u32) -> Result<(aya::Ebpf, Btf), KernelSourceError> {
    let btf = Btf::from_sys_fs()
        .map_err(|error| unavailable(format!("the kernel has no type information (BTF): {error}")))?;
    let object =
        EbpfLoader::new().btf(Some(&btf)).map_max_entries("RING", ring_bytes).load(OBJECT).map_err(|error| {
            unavailable(format!("{error}; it needs the capabilities BPF and PERFMON, or root; {}", super::granting()))
        })?;
    Ok((object, btf))
}

/// Attaches every program; forks first, so that no exec comes from a process that is not known.
fn attach_all(object: &mut aya::Ebpf, btf: &Btf, notes: &mut Vec<String>) -> Result<Vec<Link>, KernelSourceError> {
    let mut links = vec![
        attach(object, "process_fork", "sched_process_fork", btf)?,
        attach(object, "process_exec", "sched_process_exec", btf)?,
    ];
    links.push(match attach(object, "process_exit", "sched_process_exit", btf) {
        Ok(link) => link,
        Err(_older_kernel) => attach(object, "process_exit_before", "sched_process_exit", btf)?,
    });
    match attach(object, "process_rename", "task_rename", btf) {
        Ok(link) => links.push(link),
        Err(error) => notes.push(format!("ebpf: renamed processes are left to the snapshots: {error}")),
    }
    // Only there may one program interrupt another one, and the kernel then skips the inner one.
    if std::fs::read("/sys/kernel/realtime").is_ok_and(|shown| shown.starts_with(b"1")) {
        notes.push(
            "ebpf: a real-time kernel may skip announcements uncounted; the snapshots find what it skips".to_owned(),
        );
    }
    notes.push("ebpf: attaching debuggers have no tracepoint and are left to the snapshots".to_owned());
    Ok(links)
}

/// The kernel stops verifying a program when a signal waits for this thread; blocked, they wait for the process.
fn undisturbed<T>(work: impl FnOnce() -> T) -> T {
    let before = SigSet::all().thread_swap_mask(SigmaskHow::SIG_BLOCK);
    let done = work();
    if let Ok(before) = before {
        let _again = before.thread_set_mask();
    }
    done
}

fn attach(object: &mut aya::Ebpf, program: &str, tracepoint: &str, btf: &Btf) -> Result<Link, KernelSourceError> {
    let failed = |error: ProgramError| match error {
        // The verifier's log has thousands of lines.
        ProgramError::LoadError { io_error, .. } => unavailable(format!("the kernel refuses {program}: {io_error}")),
        error => unavailable(format!("{program} does not attach to {tracepoint}: {error}")),
    };
    let found = object.program_mut(program).ok_or_else(|| unavailable(format!("its object has no {program}")))?;
    let found: &mut BtfTracePoint = found.try_into().map_err(failed)?;
    undisturbed(|| found.load(tracepoint, btf)).map_err(failed)?;
    let link = found.attach().map_err(failed)?;
    let link: BtfTracePointLink = found.take_link(link).map_err(failed)?;
    Ok(Box::new(link))
}

fn unavailable(reason: impl ToString) -> KernelSourceError {
    KernelSourceError::Unavailable { source_name: NAME, reason: reason.to_string() }
}

impl Ebpf {
    fn drain(&mut self, each: &mut dyn FnMut(Notice)) {
        let mut count = 0;
        while count < BATCH {
            let Some(item) = self.ring.next() else { break };
            count = count.saturating_add(1);
            let Some(record) = record::parse(&item) else {
                self.refused = self.refused.saturating_add(1);
                continue;
            };
            // Two processors may write in another order than they read the counter.
            self.lost = self.lost.max(record.lost);
            each(notice(&mut self.completer, &self.clock, &record));
        }
        self.behind = count == BATCH;
    }

    fn refresh(&mut self) {
        self.clock.refresh();
        if self.accounts_at.is_none_or(|read| read.elapsed() >= ACCOUNTS_EVERY) {
            self.completer.accounts.refresh();
            self.accounts_at = Some(Instant::now());
        }
    }
}

fn notice(completer: &mut Completer, clock: &Clock, record: &Record<'_>) -> Notice {
    let ticks = clock.ticks(record.start_ns);
    let what = match record.body {
        Body::Exec(exec) => {
            let (full, image) = completer.record(clock, record.pid, ticks, &exec);
            What::Exec(Box::new(full), image, exec.file)
        }
        Body::Fork { parent, parent_start_ns, owner } => What::Fork {
            parent,
            parent_ticks: Some(clock.ticks(parent_start_ns)),
            credentials: Some(Box::new(completer.credentials(owner))),
        },
        Body::Exit { wait_status } => What::Exit(Some(parse::exit_code(wait_status))),
        Body::Rename(name) => What::Rename(crate::text::escaped(name).0),
    };
    Notice { time_us: clock.wall_us(record.time_ns), pid: record.pid, start_ticks: Some(ticks), what }
}

/// Whether one of these became ready in time.
fn poll(descriptors: &mut [PollFd<'_>], wait: Duration) -> Result<bool, KernelSourceError> {
    match nix::poll::poll(descriptors, PollTimeout::try_from(wait).unwrap_or(PollTimeout::MAX)) {
        Ok(ready) => Ok(ready > 0),
        Err(Errno::EINTR) => Ok(false),
        Err(errno) => {
            Err(KernelSourceError::Died { source_name: NAME, reason: format!("waiting for its ring fails: {errno}") })
        }
    }
}

impl KernelSource for Ebpf {
    fn name(&self) -> &'static str {
        NAME
    }

    fn notes(&self) -> Vec<String> {
        self.notes.clone()
    }

    fn is_raced(&self) -> bool {
        false
    }

    fn tells_exec_filename(&self) -> bool {
        true
    }

    fn receive(&mut self, wait: Duration, each: &mut dyn FnMut(Notice)) -> Result<(), KernelSourceError> {
        if !self.behind {
            if !poll(&mut [PollFd::new(self.ring.as_fd(), PollFlags::POLLIN)], wait)? {
                return Ok(());
            }
            poll(&mut [], wait.min(GATHER))?;
        }
        self.refresh();
        self.drain(each);
        Ok(())
    }

    fn has_caught_up(&self) -> bool {
        !self.behind
    }

    fn lost(&self) -> u64 {
        self.lost.saturating_add(self.refused)
    }
}
