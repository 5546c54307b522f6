//! Every fork, exec and exit as the kernel's process connector announces it.
//!
//! The announcement of an exec holds a pid and nothing else: arguments, executable and owner are read from `/proc`, in a race
//! with the process. Hence the order of work: take what has arrived, read the arguments at once, everything else only when
//! nothing waits. What was lost is counted from sequence numbers. The kernel's own event filter is not used: it counts what
//! it filtered, and the gaps would mean nothing any more.

mod intake;
mod leaders;
mod lives;
mod message;
mod sequence;
mod socket;
mod standby;

use std::collections::{BTreeMap, VecDeque};
use std::path::Path;
use std::time::{Duration, Instant};

use daemoneye_lib::proto::{Capture, ProcessRecord};
use rustix::io::Errno;
use rustix::time::{ClockId, clock_gettime};

use self::leaders::Leaders;
use self::lives::{Lives, Owner};
use self::message::Message;
use self::sequence::Sequences;
use self::socket::{Arrival, Socket};
pub use self::standby::{Standby, stand_by};
use super::native::read::{Begun, Clock, Reader};
use crate::collector::Image;
use crate::kernel::{KernelSource, KernelSourceError, Notice, What};

const NAME: &str = "proc-connector";

/// Bytes of messages that the kernel keeps for us: about 20,000 of them, two seconds of a storm of 3,000 processes a second.
const BUFFER_BYTES: usize = 16 * 1024 * 1024;

/// How long a notice is held so that one from another CPU, queued later but older, comes out before it.
const WINDOW_NS: u64 = 2_000_000;

/// Processes whose arguments are read and the rest is not. Each holds a handle; the least limit of open files is 1,024.
const UNREAD_MAX: usize = 64;

/// How often `/etc/passwd` is looked at, while nothing happens.
const ACCOUNTS_EVERY: Duration = Duration::from_secs(5);

/// The source.
pub struct Connector {
    socket: Socket,
    reader: Reader,
    sequences: Sequences,
    lives: Lives,
    leaders: Leaders,
    /// By time, then by arrival.
    window: BTreeMap<(u64, u64), Notice>,
    arrivals: u64,
    newest_ns: u64,
    unread: VecDeque<Executed>,
    /// Wall clock minus monotonic clock, µs.
    offset_us: i64,
    accounts_read: Option<Instant>,
}

/// An exec of which only the arguments are read; nothing at all when the process was gone already.
struct Executed {
    at_ns: u64,
    pid: u32,
    begun: Option<Begun>,
    /// It has executed yet another program: whatever is read now belongs to that one.
    overtaken: bool,
}

/// Subscribes to the kernel's process events.
///
/// # Errors
/// [`KernelSourceError::Unavailable`] with the reason: no such kernel option, not the initial namespaces, no privilege.
pub fn open() -> Result<Connector, KernelSourceError> {
    Connector::opened()
}

impl Connector {
    fn opened() -> Result<Self, KernelSourceError> {
        let reader = Reader::open(Path::new("/proc"), Path::new("/etc/passwd"), Clock::of(true))
            .map_err(|error| unavailable(error.to_string()))?;
        let (socket, acknowledged) = Socket::open(BUFFER_BYTES).map_err(unavailable)?;
        let mut connector = Self {
            socket,
            reader,
            sequences: Sequences::default(),
            lives: Lives::default(),
            leaders: Leaders::default(),
            window: BTreeMap::new(),
            arrivals: 0,
            newest_ns: 0,
            unread: VecDeque::new(),
            offset_us: 0,
            accounts_read: None,
        };
        connector.begin(&acknowledged);
        connector.look_at_clock_and_accounts();
        Ok(connector)
    }

    /// From this acknowledgement on every message counts.
    fn begin(&mut self, acknowledged: &Message) {
        self.sequences = Sequences::default();
        self.sequences.take(acknowledged.cpu, acknowledged.sequence);
        self.newest_ns = acknowledged.at_ns;
    }

    /// How long nothing needs to be done unless something arrives.
    fn leisure(&self, wait: Duration) -> Duration {
        let first = self.window.first_key_value().map(|((at_ns, _), _)| at_ns.saturating_add(WINDOW_NS));
        let due = first.into_iter().chain(self.leaders.due_ns()).min();
        due.map_or(wait, |due| wait.min(Duration::from_nanos(due.saturating_sub(now_ns()))))
    }

    /// Takes messages until none waits, or until enough executions wait to be read; tells whether none waits.
    fn take_waiting(&mut self) -> Result<bool, KernelSourceError> {
        while self.unread.len() < UNREAD_MAX {
            match self.socket.next() {
                Ok(Arrival::Message(message)) => self.take(message),
                Ok(Arrival::Foreign | Arrival::Overrun) => {}
                Ok(Arrival::Nothing) => return Ok(true),
                Err(errno) => return Err(died(errno)),
            }
        }
        Ok(false)
    }

    fn take(&mut self, message: Message) {
        if self.sequences.take(message.cpu, message.sequence) {
            self.lives.forget();
        }
        self.newest_ns = self.newest_ns.max(message.at_ns);
        self.intake(message.at_ns, message.event);
    }

    /// Reads the rest of the execution that waits longest; tells whether there was one.
    fn read_next(&mut self) -> bool {
        let Some(Executed { at_ns, pid, begun, overtaken }) = self.unread.pop_front() else { return false };
        let read = match begun {
            Some(begun) if overtaken => Err(begun.into_record()),
            Some(begun) => self.reader.finish(begun),
            None => Err(Box::new(ProcessRecord { pid, ..ProcessRecord::default() })),
        };
        let (record, image, ticks) = match read {
            Ok(full) => {
                if let Some(life) = self.lives.life(pid) {
                    let ProcessRecord { uid, euid, gid, .. } = full.record;
                    life.owner = Owner { uid, euid, gid };
                    life.ticks = Some(full.start_ticks());
                }
                let ticks = Some(full.start_ticks());
                (Box::new(full.record), full.image, ticks)
            }
            Err(record) => (self.partial(record), Image::UNSEEN, self.lives.known(pid).ticks),
        };
        self.hold(at_ns, pid, ticks, What::Exec(record, image, None));
        true
    }

    /// What events alone have told about a process that was gone before it was read.
    fn partial(&self, mut record: Box<ProcessRecord>) -> Box<ProcessRecord> {
        let life = self.lives.known(record.pid);
        record.ppid = life.parent;
        record.uid = life.owner.uid;
        record.euid = life.owner.euid;
        record.gid = life.owner.gid;
        record.user = life.owner.uid.and_then(|uid| self.reader.accounts.name(uid)).map(str::to_owned);
        record.capture = Capture::Partial.into();
        record
    }

    fn hold(&mut self, at_ns: u64, pid: u32, start_ticks: Option<u64>, what: What) {
        self.arrivals = self.arrivals.saturating_add(1);
        let since_boot = i64::try_from(at_ns / 1000).unwrap_or(i64::MAX);
        let time_us = since_boot.saturating_add(self.offset_us);
        self.window.insert((at_ns, self.arrivals), Notice { time_us, pid, start_ticks, what });
    }

    /// Hands out what nothing older can precede any more; returns the time up to which that is so.
    fn release(&mut self, drained: bool, each: &mut dyn FnMut(Notice)) -> u64 {
        // Behind a backlog the clock says nothing about what is still to come.
        let upto = if drained { now_ns() } else { self.newest_ns }.saturating_sub(WINDOW_NS);
        let upto = self.unread.iter().map(|executed| executed.at_ns).fold(upto, u64::min);
        while let Some(first) = self.window.first_entry().filter(|first| first.key().0 <= upto) {
            let ((at_ns, _), mut notice) = first.remove_entry();
            self.identify(&mut notice);
            if matches!(notice.what, What::Exit(_)) {
                self.lives.ended(notice.pid, at_ns);
            }
            each(notice);
        }
        upto
    }

    /// A process that has executed a program meanwhile was read then; of the others only the start is read, here.
    fn identify(&mut self, notice: &mut Notice) {
        if let What::Fork { parent, parent_ticks, .. } = &mut notice.what {
            *parent_ticks = self.lives.known(*parent).ticks;
        }
        if notice.start_ticks.is_some() || matches!(notice.what, What::Exec(..)) {
            return;
        }
        notice.start_ticks = self.start_ticks(notice.pid);
    }

    /// From what is known, or else from `/proc`.
    fn start_ticks(&mut self, pid: u32) -> Option<u64> {
        if let Some(ticks) = self.lives.known(pid).ticks {
            return Some(ticks);
        }
        let ticks = self.reader.lifetime(pid).ok()?.start_ticks;
        if let Some(life) = self.lives.life(pid) {
            life.ticks = Some(ticks);
        }
        Some(ticks)
    }

    fn look_at_clock_and_accounts(&mut self) {
        let wall = clock_gettime(ClockId::Realtime);
        let wall_us = wall.tv_sec.saturating_mul(1_000_000).saturating_add(wall.tv_nsec / 1000);
        self.offset_us = wall_us.saturating_sub(i64::try_from(now_ns() / 1000).unwrap_or(i64::MAX));
        if self.unread.is_empty() && self.accounts_read.is_none_or(|read| read.elapsed() > ACCOUNTS_EVERY) {
            self.reader.accounts.refresh();
            self.accounts_read = Some(Instant::now());
        }
    }
}

impl KernelSource for Connector {
    fn name(&self) -> &'static str {
        NAME
    }

    fn notes(&self) -> Vec<String> {
        let mut notes = vec![format!(
            "{NAME}: every fork, exec and exit; name, program and arguments come from /proc, in a race with the process"
        )];
        let buffer_bytes = self.socket.buffer_bytes;
        if buffer_bytes < BUFFER_BYTES {
            notes.push(format!(
                "{NAME}: a receive buffer of {} KiB instead of {}; the capability NET_ADMIN or a larger net.core.rmem_max allows more; {}",
                buffer_bytes / 1024,
                BUFFER_BYTES / 1024,
                super::granting()
            ));
        }
        notes
    }

    fn is_raced(&self) -> bool {
        true
    }

    fn receive(&mut self, wait: Duration, each: &mut dyn FnMut(Notice)) -> Result<(), KernelSourceError> {
        self.socket.wait(self.leisure(wait));
        let began_ns = now_ns();
        self.look_at_clock_and_accounts();
        loop {
            let drained = self.take_waiting()?;
            let read = self.read_next();
            if drained {
                self.look_at_leaders();
            }
            // A storm goes on for longer than one call: it ends when all that had happened before it is handed out.
            if self.release(drained, each) > began_ns || (drained && !read) {
                return Ok(());
            }
        }
    }

    fn lost(&self) -> u64 {
        self.sequences.lost()
    }
}

fn unavailable(reason: String) -> KernelSourceError {
    KernelSourceError::Unavailable { source_name: NAME, reason }
}

fn died(errno: Errno) -> KernelSourceError {
    KernelSourceError::Died { source_name: NAME, reason: format!("the connector socket cannot be read: {errno}") }
}

/// The clock of the kernel's time stamps.
fn now_ns() -> u64 {
    let now = clock_gettime(ClockId::Monotonic);
    let seconds = u64::try_from(now.tv_sec).unwrap_or(0);
    seconds.saturating_mul(1_000_000_000).saturating_add(u64::try_from(now.tv_nsec).unwrap_or(0))
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;
