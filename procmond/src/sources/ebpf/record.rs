//! The ring's records, from bytes: `docs/formats.md`, "Ring record". What does not fit the layout is `None`; lengths come from
//! the kernel side, text from whoever executes a program.

use crate::hashing::FileKey;
use crate::sources::fields::Fields;

/// One announcement as the kernel's program wrote it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Record<'a> {
    pub(super) pid: u32,
    /// Since boot, suspended time included.
    pub(super) time_ns: u64,
    pub(super) start_ns: u64,
    /// Records that had found no room when this one was made.
    pub(super) lost: u64,
    pub(super) body: Body<'a>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Body<'a> {
    Exec(Exec<'a>),
    Fork { parent: u32, parent_start_ns: u64, owner: Owner },
    Exit { wait_status: u32 },
    Rename(&'a [u8]),
}

/// Whose a process is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Owner {
    pub(super) uid: u32,
    pub(super) gid: u32,
    pub(super) euid: u32,
    pub(super) session: u32,
    pub(super) tty: u32,
}

/// What an exec looked like from inside.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Exec<'a> {
    /// Code, stack and heap, as `stat` shows them.
    pub(super) image: [u64; 3],
    /// Bytes of all arguments with their terminators.
    pub(super) argv_bytes: u64,
    /// The executable as the kernel identifies it.
    pub(super) file: Option<FileKey>,
    pub(super) parent: u32,
    pub(super) owner: Owner,
    pub(super) pid_namespace: u32,
    pub(super) namespace_pid: u32,
    pub(super) flags: Flags,
    pub(super) name: &'a [u8],
    pub(super) filename: &'a [u8],
    pub(super) exe: Steps<'a>,
    pub(super) cwd: Steps<'a>,
    pub(super) cgroup: Steps<'a>,
    /// At most the first 4 KiB; none where they could not be read.
    pub(super) argv: &'a [u8],
}

/// What the kernel's program could not do, or noticed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Flags(u16);

impl Flags {
    pub(super) const EXE_CUT: u16 = 1;
    pub(super) const CWD_CUT: u16 = 2;
    pub(super) const CGROUP_CUT: u16 = 4;
    pub(super) const FILENAME_CUT: u16 = 8;
    pub(super) const EXE_UNHASHED: u16 = 16;
    pub(super) const CWD_UNHASHED: u16 = 32;

    pub(super) const fn has(self, flag: u16) -> bool {
        self.0 & flag != 0
    }
}

/// The steps of a path, each with a terminator, from the leaf to the root.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Steps<'a>(&'a [u8]);

impl Steps<'_> {
    /// The path; that of no steps is the root.
    pub(super) fn path(self) -> Vec<u8> {
        let mut path = Vec::with_capacity(self.0.len().max(1));
        for step in self.0.strip_suffix(&[0]).unwrap_or(self.0).rsplit(|b| *b == 0) {
            path.push(b'/');
            path.extend_from_slice(step);
        }
        path
    }

    pub(super) const fn is_empty(self) -> bool {
        self.0.is_empty()
    }
}

/// Reads one record.
pub(super) fn parse(bytes: &[u8]) -> Option<Record<'_>> {
    let mut cursor = Fields(bytes);
    let kind = cursor.u32()?;
    let pid = cursor.u32().filter(|pid| *pid != 0)?;
    let (time_ns, start_ns, lost) = (cursor.u64()?, cursor.u64()?, cursor.u64()?);
    let body = match kind {
        1 => Body::Exec(exec(&mut cursor)?),
        2 => {
            let parent_start_ns = cursor.u64()?;
            Body::Fork { parent: cursor.u32()?, parent_start_ns, owner: owner(&mut cursor)? }
        }
        3 => Body::Exit { wait_status: cursor.u32()? },
        4 => Body::Rename(until_zero(cursor.take(NAME_BYTES)?)),
        _ => return None,
    };
    Some(Record { pid, time_ns, start_ns, lost, body })
}

/// Bytes of a process name with its terminator (TASK_COMM_LEN).
const NAME_BYTES: usize = 16;

fn owner(cursor: &mut Fields<'_>) -> Option<Owner> {
    let [uid, gid, euid] = [cursor.u32()?, cursor.u32()?, cursor.u32()?];
    Some(Owner { uid, gid, euid, session: cursor.u32()?, tty: cursor.u32()? })
}

/// The inner `None`: the kernel's program could not read it.
fn file(cursor: &mut Fields<'_>) -> Option<Option<FileKey>> {
    let (inode, size) = (cursor.u64()?, cursor.u64()?);
    let [modified_s, changed_s] = [cursor.array()?, cursor.array()?].map(i64::from_ne_bytes);
    let (modified_ns, changed_ns) = (cursor.u32()?, cursor.u32()?);
    let device = cursor.u32()?;
    let _zero = cursor.u32()?;
    // The kernel's own encoding, not that of `stat`: twelve bits and twenty.
    let device = (device >> 20, device & 0x000f_ffff);
    let key = FileKey { device, inode, size, modified: (modified_s, modified_ns), changed: (changed_s, changed_ns) };
    Some(Some(key).filter(|key| key.inode != 0))
}

fn exec<'a>(cursor: &mut Fields<'a>) -> Option<Exec<'a>> {
    let image = [cursor.u64()?, cursor.u64()?, cursor.u64()?];
    let argv_bytes = cursor.u64()?;
    let file = file(cursor)?;
    let (parent, owner) = (cursor.u32()?, owner(cursor)?);
    let (pid_namespace, namespace_pid) = (cursor.u32()?, cursor.u32()?);
    let flags = Flags(cursor.u16()?);
    let mut lengths = [0; 5];
    for length in &mut lengths {
        *length = usize::from(cursor.u16()?);
    }
    let [filename, exe, cwd, cgroup, argv] = lengths;
    let _zero = cursor.u32()?;
    Some(Exec {
        image,
        argv_bytes,
        file,
        parent,
        owner,
        pid_namespace,
        namespace_pid,
        flags,
        name: until_zero(cursor.take(NAME_BYTES)?),
        filename: until_zero(cursor.take(filename)?),
        exe: Steps(cursor.take(exe)?),
        cwd: Steps(cursor.take(cwd)?),
        cgroup: Steps(cursor.take(cgroup)?),
        argv: cursor.take(argv)?,
    })
}

fn until_zero(bytes: &[u8]) -> &[u8] {
    bytes.split(|b| *b == 0).next().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn head(kind: u32) -> Vec<u8> {
        let mut bytes = Vec::new();
        bytes.extend(kind.to_ne_bytes());
        bytes.extend(42u32.to_ne_bytes());
        for number in [1_000u64, 500, 3] {
            bytes.extend(number.to_ne_bytes());
        }
        bytes
    }

    fn exec_bytes() -> Vec<u8> {
        let mut bytes = head(1);
        for number in [1u64, 2, 3, 7] {
            bytes.extend(number.to_ne_bytes());
        }
        for number in [99u64, 8, 1_700_000_000, 1_700_000_001] {
            bytes.extend(number.to_ne_bytes());
        }
        for number in [5u32, 6, 8 << 20 | 3, 0] {
            bytes.extend(number.to_ne_bytes());
        }
        for number in 10u32..18 {
            bytes.extend(number.to_ne_bytes());
        }
        for number in [Flags::EXE_UNHASHED, 7, 8, 0, 5, 7, 0, 0] {
            bytes.extend(number.to_ne_bytes());
        }
        bytes.extend(b"sh\0\0\0\0\0\0\0\0\0\0\0\0\0\0./a.sh\0sh\0bin\0\0b.sl\0sh\0-c\0\0".iter());
        bytes
    }

    #[test]
    fn an_exec_record_is_read_field_by_field() {
        let bytes = exec_bytes();
        let record = parse(&bytes).unwrap();
        assert_eq!((record.pid, record.time_ns, record.start_ns, record.lost), (42, 1_000, 500, 3));
        let Body::Exec(exec) = record.body else { panic!("{record:?}") };
        assert_eq!((exec.image, exec.argv_bytes, exec.parent, exec.namespace_pid), ([1, 2, 3], 7, 10, 17));
        let (modified, changed) = ((1_700_000_000, 5), (1_700_000_001, 6));
        assert_eq!(exec.file, Some(FileKey { device: (8, 3), inode: 99, size: 8, modified, changed }));
        assert_eq!(exec.owner, Owner { uid: 11, gid: 12, euid: 13, session: 14, tty: 15 });
        assert_eq!((exec.name, exec.filename), (&b"sh"[..], &b"./a.sh"[..]));
        assert!(exec.flags.has(Flags::EXE_UNHASHED) && !exec.flags.has(Flags::EXE_CUT));
        assert_eq!((exec.cwd.path(), exec.cgroup.path()), (b"/".to_vec(), b"/b.sl".to_vec()));
        assert_eq!(exec.argv, b"sh\0-c\0\0");
    }

    #[test]
    fn steps_are_joined_from_the_root() {
        assert_eq!(Steps(b"sh\0bin\0usr\0").path(), b"/usr/bin/sh");
        assert_eq!(Steps(b"").path(), b"/");
    }

    #[test]
    fn a_record_cut_anywhere_is_refused() {
        let whole = exec_bytes();
        for end in 0..whole.len() {
            assert_eq!(parse(&whole[..end]), None, "{end}");
        }
    }

    proptest! {
        #[test]
        fn no_bytes_make_the_parser_panic(kind in 0u32..6, rest in proptest::collection::vec(any::<u8>(), 0..400)) {
            let mut bytes = kind.to_ne_bytes().to_vec();
            bytes.extend(rest);
            if let Some(Record { body: Body::Exec(exec), .. }) = parse(&bytes) {
                let _paths = (exec.exe.path(), exec.cwd.path(), exec.cgroup.path());
            }
        }
    }
}
