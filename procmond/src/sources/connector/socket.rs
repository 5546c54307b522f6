//! The netlink socket: opened, subscribed and acknowledged, or refused with the reason.

use std::os::fd::{AsFd as _, OwnedFd};
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use rustix::io::Errno;
use rustix::net::netlink::{CONNECTOR, SocketAddrNetlink};
use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, bind, recvfrom, send, socket_with, sockopt,
};

use super::super::granting;
use super::message::{self, Event, IGNORE, LISTEN, Message};

/// The multicast group of the process events.
const GROUP: u32 = 1;

/// How long the kernel may take to acknowledge; it answers within the call unless it does not answer at all. What has come by then
/// is read however late this looks.
const ACKNOWLEDGED_WITHIN: Duration = Duration::from_secs(1);

/// Messages that are read when that time is over: more than wait in the buffer, where each takes several hundred bytes, so that the
/// storms of a busy host are not read for ever.
const READ_LATE: usize = 65_536;

/// Bytes of one datagram: 76 today, with room for fields of later kernels.
const DATAGRAM_BYTES: usize = 256;

/// What one look at the socket brought.
#[derive(Debug)]
pub(super) enum Arrival {
    Message(Message),
    /// From another sender, or not a process event.
    Foreign,
    /// The buffer was full; how much is missing shows in the sequence numbers.
    Overrun,
    Nothing,
}

pub(super) struct Socket {
    fd: OwnedFd,
    /// As the kernel granted it, without the bookkeeping that it adds.
    pub(super) buffer_bytes: usize,
    subscribed: bool,
}

impl Socket {
    /// Subscribes, and returns the acknowledgement, from which on every message counts.
    pub(super) fn open(buffer_bytes: usize) -> Result<(Self, Message), String> {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let fd = socket_with(AddressFamily::NETLINK, SocketType::DGRAM, flags, Some(CONNECTOR))
            .map_err(|errno| format!("no connector socket: {errno}; the kernel needs CONFIG_PROC_EVENTS"))?;
        let forced = sockopt::set_socket_recv_buffer_size_force(&fd, buffer_bytes);
        let set = forced.or_else(|_denied| sockopt::set_socket_recv_buffer_size(&fd, buffer_bytes));
        set.map_err(|errno| format!("no receive buffer: {errno}"))?;
        let buffer_bytes = sockopt::socket_recv_buffer_size(&fd).map_or(0, |doubled| doubled / 2);
        bind(&fd, &SocketAddrNetlink::new(0, GROUP)).map_err(|errno| {
            format!("cannot subscribe: {errno}; older kernels need the capability NET_ADMIN; {}", granting())
        })?;
        let mut socket = Self { fd, buffer_bytes, subscribed: false };
        let acknowledged = socket.subscribe()?;
        Ok((socket, acknowledged))
    }

    /// Returns the acknowledgement; whatever waits before it is thrown away.
    pub(super) fn subscribe(&mut self) -> Result<Message, String> {
        self.subscribe_within(ACKNOWLEDGED_WITHIN)
    }

    pub(super) fn subscribe_within(&mut self, patience: Duration) -> Result<Message, String> {
        // Others subscribe too, and everybody sees every answer.
        let nanos = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic).tv_nsec;
        let token = std::process::id() ^ u32::try_from(nanos).unwrap_or(0);
        send(&self.fd, &message::request(LISTEN, token), SendFlags::empty()).map_err(|errno| {
            format!(
                "cannot subscribe: {errno}; it needs the initial network namespace and, on older kernels, NET_ADMIN; {}",
                granting()
            )
        })?;
        self.subscribed = true;
        self.acknowledgement(token.wrapping_add(1), Instant::now() + patience)
    }

    fn acknowledgement(&self, awaited: u32, until: Instant) -> Result<Message, String> {
        let mut late = 0;
        while late < READ_LATE {
            // Before the look: what has come by then is there.
            let left = until.saturating_duration_since(Instant::now());
            match self.next().map_err(|errno| format!("cannot receive: {errno}"))? {
                Arrival::Message(message) if message.acknowledges == awaited => match message.event {
                    Event::Acknowledged(0) => return Ok(message),
                    Event::Acknowledged(error) => {
                        let errno = std::io::Error::from_raw_os_error(i32::try_from(error).unwrap_or(i32::MAX));
                        return Err(format!(
                            "the kernel refuses: {errno}; it needs the capability NET_ADMIN; {}",
                            granting()
                        ));
                    }
                    _ => {}
                },
                Arrival::Nothing if left.is_zero() => break,
                Arrival::Nothing => self.wait(left),
                _ => {}
            }
            late += usize::from(left.is_zero());
        }
        Err(format!("no acknowledgement within {ACKNOWLEDGED_WITHIN:?}; it needs the initial pid and user namespaces"))
    }

    /// Nothing arrives until the next subscription. Older kernels go on building events for nobody unless they are told,
    /// but count whoever tells them twice twice.
    pub(super) fn unsubscribe(&mut self) {
        if std::mem::take(&mut self.subscribed) {
            // Privileges may be gone by now.
            let _told = send(&self.fd, &message::request(IGNORE, 0), SendFlags::DONTWAIT);
        }
    }

    /// The next datagram, without waiting.
    pub(super) fn next(&self) -> Result<Arrival, Errno> {
        let mut datagram = [0; DATAGRAM_BYTES];
        let (length, from) = match recvfrom(&self.fd, &mut datagram, RecvFlags::DONTWAIT) {
            Ok((length, _truncated, from)) => (length, from),
            Err(Errno::NOBUFS) => return Ok(Arrival::Overrun),
            Err(Errno::AGAIN) => return Ok(Arrival::Nothing),
            Err(Errno::INTR) => return Ok(Arrival::Foreign),
            Err(errno) => return Err(errno),
        };
        // Port 0 is the kernel; anybody may send to a socket, and the kernel writes the sender's address.
        let from_kernel =
            from.and_then(|from| SocketAddrNetlink::try_from(from).ok()).is_some_and(|from| from.pid() == 0);
        let message = from_kernel.then(|| message::parse(datagram.get(..length)?)).flatten();
        Ok(message.map_or(Arrival::Foreign, Arrival::Message))
    }

    /// Returns when something is there, when the time is over, or early.
    pub(super) fn wait(&self, time: Duration) {
        // Rounded up: a wait of zero would spin until the rest of the millisecond is over.
        let millis = i32::try_from(time.as_micros().div_ceil(1000)).unwrap_or(i32::MAX);
        let timeout = PollTimeout::try_from(millis).unwrap_or(PollTimeout::MAX);
        // An interrupted wait is a short one, and any other error shows at the next read.
        let _early = poll(&mut [PollFd::new(self.fd.as_fd(), PollFlags::POLLIN)], timeout);
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        self.unsubscribe();
    }
}

#[cfg(test)]
impl Socket {
    /// To the least buffer that the kernel allows, after the acknowledgement has found room.
    pub(super) fn shrink(&self) {
        sockopt::set_socket_recv_buffer_size(&self.fd, 1).unwrap();
    }

    /// Sends `bytes` from another socket; whether the kernel lets them through.
    pub(super) fn is_reached_by(&self, other: &Self, bytes: &[u8]) -> bool {
        let address = rustix::net::getsockname(&self.fd).unwrap();
        rustix::net::sendto(&other.fd, bytes, SendFlags::empty(), &address).is_ok()
    }
}
