//! The datagrams of the process connector: netlink header, connector header, process event, all in host byte order.
//!
//! The layouts are the kernel's `linux/netlink.h`, `linux/connector.h` and `linux/cn_proc.h`. Bytes that are not such a message
//! are `None`, never a panic: they come from whoever may send to the socket.

use crate::sources::fields::Fields;

/// Connector index and value of the process events.
const CN_IDX_PROC: u32 = 1;
const CN_VAL_PROC: u32 = 1;

/// Netlink type of a message that stands alone.
const NLMSG_DONE: u16 = 3;

/// "Send me the events."
pub(super) const LISTEN: u32 = 1;
/// "Send me no more."
pub(super) const IGNORE: u32 = 2;

/// Bytes of the netlink header (16), the connector header (20) and the operation (4).
const REQUEST_BYTES: u32 = 40;

/// One message of the kernel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Message {
    /// Counts the messages of this CPU.
    pub(super) sequence: u32,
    /// One more than the acknowledged request's.
    pub(super) acknowledges: u32,
    pub(super) cpu: u32,
    /// Nanoseconds of the monotonic clock.
    pub(super) at_ns: u64,
    pub(super) event: Event,
}

/// A task: its own id and that of its thread group.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Task {
    pub(super) tid: u32,
    pub(super) pid: u32,
}

impl Task {
    /// Whether it stands for the process and not for one of its further threads.
    pub(super) const fn leads(self) -> bool {
        self.tid == self.pid
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Event {
    /// The answer to a request; the error number is 0 when it was granted.
    Acknowledged(u32),
    Fork {
        parent: Task,
        child: Task,
    },
    Exec(Task),
    /// Real and effective user.
    Users(Task, [u32; 2]),
    /// Real and effective group.
    Groups(Task, [u32; 2]),
    Ptrace {
        traced: Task,
        by: Task,
    },
    /// The name, padded with zeros.
    Comm(Task, [u8; 16]),
    /// The wait status.
    Exit(Task, u32),
    /// Sessions, core dumps, and what later kernels add.
    Other,
}

/// Parses one datagram.
pub(super) fn parse(datagram: &[u8]) -> Option<Message> {
    let mut bytes = Fields(datagram);
    let length = usize::try_from(bytes.u32()?).ok()?;
    let kind = bytes.u16()?;
    let (_flags, _sequence, _port) = (bytes.u16()?, bytes.u32()?, bytes.u32()?);
    if kind != NLMSG_DONE || length > datagram.len() || bytes.u32()? != CN_IDX_PROC || bytes.u32()? != CN_VAL_PROC {
        return None;
    }
    let (sequence, acknowledges) = (bytes.u32()?, bytes.u32()?);
    let (payload, _flags) = (usize::from(bytes.u16()?), bytes.u16()?);
    let mut bytes = Fields(bytes.0.get(..payload)?);
    let what = bytes.u32()?;
    let (cpu, at_ns) = (bytes.u32()?, bytes.u64()?);
    Some(Message { sequence, acknowledges, cpu, at_ns, event: event(what, &mut bytes)? })
}

fn event(what: u32, bytes: &mut Fields<'_>) -> Option<Event> {
    Some(match what {
        0 => Event::Acknowledged(bytes.u32()?),
        0x0000_0001 => Event::Fork { parent: Task::read(bytes)?, child: Task::read(bytes)? },
        0x0000_0002 => Event::Exec(Task::read(bytes)?),
        0x0000_0004 => Event::Users(Task::read(bytes)?, [bytes.u32()?, bytes.u32()?]),
        0x0000_0040 => Event::Groups(Task::read(bytes)?, [bytes.u32()?, bytes.u32()?]),
        0x0000_0100 => Event::Ptrace { traced: Task::read(bytes)?, by: Task::read(bytes)? },
        0x0000_0200 => Event::Comm(Task::read(bytes)?, bytes.array()?),
        0x8000_0000 => Event::Exit(Task::read(bytes)?, bytes.u32()?),
        _ => Event::Other,
    })
}

/// The request to begin or to end; the answer acknowledges `token + 1`.
pub(super) fn request(operation: u32, token: u32) -> Vec<u8> {
    let mut bytes = Vec::new();
    bytes.extend(REQUEST_BYTES.to_ne_bytes());
    bytes.extend(NLMSG_DONE.to_ne_bytes());
    bytes.extend([0; 10]);
    for word in [CN_IDX_PROC, CN_VAL_PROC, 0, token] {
        bytes.extend(word.to_ne_bytes());
    }
    bytes.extend(4u16.to_ne_bytes());
    bytes.extend([0; 2]);
    bytes.extend(operation.to_ne_bytes());
    bytes
}

impl Task {
    /// The kernel writes the thread's own id first.
    fn read(bytes: &mut Fields<'_>) -> Option<Self> {
        Some(Self { tid: bytes.u32()?, pid: bytes.u32()? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn datagram(what: u32, data: &[u32]) -> Vec<u8> {
        let payload = 16 + 4 * data.len();
        let mut bytes = Vec::new();
        bytes.extend(u32::try_from(36 + payload).unwrap().to_ne_bytes());
        bytes.extend(3u16.to_ne_bytes());
        bytes.extend([0; 10]);
        for word in [1, 1, 77, 78] {
            bytes.extend(u32::to_ne_bytes(word));
        }
        bytes.extend(u16::try_from(payload).unwrap().to_ne_bytes());
        bytes.extend([0; 2]);
        bytes.extend(what.to_ne_bytes());
        bytes.extend(3u32.to_ne_bytes());
        bytes.extend(1_000_000_007u64.to_ne_bytes());
        for word in data {
            bytes.extend(word.to_ne_bytes());
        }
        bytes
    }

    fn event_of(what: u32, data: &[u32]) -> Event {
        let message = parse(&datagram(what, data)).unwrap();
        assert_eq!((message.sequence, message.acknowledges), (77, 78));
        assert_eq!((message.cpu, message.at_ns), (3, 1_000_000_007));
        message.event
    }

    #[test]
    fn every_event_is_read_as_the_kernel_lays_it_out() {
        let (five, six) = (Task { tid: 5, pid: 5 }, Task { tid: 7, pid: 6 });
        assert!(five.leads() && !six.leads());
        assert_eq!(event_of(0, &[13]), Event::Acknowledged(13));
        assert_eq!(event_of(1, &[5, 5, 7, 6]), Event::Fork { parent: five, child: six });
        assert_eq!(event_of(2, &[5, 5]), Event::Exec(five));
        assert_eq!(event_of(4, &[5, 5, 1000, 0]), Event::Users(five, [1000, 0]));
        assert_eq!(event_of(0x40, &[5, 5, 100, 0]), Event::Groups(five, [100, 0]));
        assert_eq!(event_of(0x100, &[7, 6, 5, 5]), Event::Ptrace { traced: six, by: five });
        assert_eq!(event_of(0x200, &[5, 5, 0, 0, 0, 0]), Event::Comm(five, [0; 16]));
        assert_eq!(event_of(0x8000_0000, &[5, 5, 9, 17, 1, 1]), Event::Exit(five, 9));
        assert_eq!(event_of(0x80, &[5, 5]), Event::Other);
    }

    #[test]
    fn a_message_cut_at_any_byte_is_refused() {
        let whole = datagram(1, &[5, 5, 7, 6]);
        for cut in 0..whole.len() {
            assert_eq!(parse(&whole[..cut]), None, "cut at {cut}");
        }
    }

    #[test]
    fn a_message_of_another_connector_is_refused() {
        for at in [4, 16, 20] {
            let mut bytes = datagram(2, &[5, 5]);
            bytes[at] ^= 0x40;
            assert_eq!(parse(&bytes), None, "changed at {at}");
        }
    }

    #[test]
    fn a_request_is_forty_bytes() {
        assert_eq!(request(LISTEN, 9).len(), usize::try_from(REQUEST_BYTES).unwrap());
    }

    proptest! {
        #[test]
        fn no_bytes_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _any = parse(&bytes);
        }

        #[test]
        fn no_change_of_a_real_message_panics(at in 0usize..68, to in any::<u8>(), what in any::<u32>()) {
            let mut bytes = datagram(what, &[1, 2, 3, 4]);
            bytes[at] = to;
            let _any = parse(&bytes);
        }
    }
}
