//! A file system that shows one program and stops answering when it is told to, as a file server does that is gone. It speaks as much of
//! the kernel's FUSE protocol (`linux/fuse.h`, version 7.31) as running that program takes. Needs root and `/dev/fuse`.
#![expect(clippy::indexing_slicing, reason = "requests have the layout of the kernel's header file")]

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::os::fd::AsRawFd as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::io::{FdFlags, fcntl_setfd};

const LOOKUP: u32 = 1;
const FORGET: u32 = 2;
const GETATTR: u32 = 3;
const OPEN: u32 = 14;
const READ: u32 = 15;
const RELEASE: u32 = 18;
const INIT: u32 = 26;
const INTERRUPT: u32 = 36;
const BATCH_FORGET: u32 = 42;

const ENOENT: i32 = 2;
const ENOSYS: i32 = 38;
/// Bytes of a request's header, and where its fields stand.
const HEADER_BYTES: usize = 40;
/// The program's number; the directory's is 1.
const PROGRAM_NODE: u64 = 2;
const NAME: &[u8] = b"program\0";
/// How long the kernel need not ask again, in seconds.
const VALID_S: u64 = 3600;

pub(crate) struct Fuse {
    at: PathBuf,
    gone: Arc<AtomicBool>,
    /// Closing it would answer everything with an error.
    _device: Arc<File>,
}

impl Fuse {
    /// Shows a copy of `program` as `at/program`; `None` where that cannot be mounted.
    pub(crate) fn mount(at: &Path, program: &str) -> Option<Self> {
        let device = File::options().read(true).write(true).open("/dev/fuse").ok()?;
        // For mount alone; the tests beside this one must not pass it on to their children for long.
        fcntl_setfd(&device, FdFlags::empty()).ok()?;
        let options = format!("fd={},rootmode=40755,user_id=0,group_id=0,allow_other", device.as_raw_fd());
        let mounted = Command::new("mount").args(["-i", "-t", "fuse", "-o", &options, "silent"]).arg(at).output();
        fcntl_setfd(&device, FdFlags::CLOEXEC).ok()?;
        mounted.ok().filter(|output| output.status.success())?;
        let (device, gone) = (Arc::new(device), Arc::new(AtomicBool::new(false)));
        let (theirs, content, silent) = (Arc::clone(&device), std::fs::read(program).unwrap(), Arc::clone(&gone));
        std::thread::spawn(move || serve(&theirs, &content, &silent));
        Some(Self { at: at.to_owned(), gone, _device: device })
    }

    /// From here on one request is answered, and then none.
    pub(crate) fn fall_silent(&self) {
        self.gone.store(true, Ordering::SeqCst);
    }
}

impl Drop for Fuse {
    fn drop(&mut self) {
        Command::new("umount").args(["-f", "-l"]).arg(&self.at).status().ok();
    }
}

/// Ends with the mount, or with the first answer after it was told to fall silent.
fn serve(device: &File, content: &[u8], gone: &AtomicBool) {
    let mut request = vec![0; 256 * 1024];
    loop {
        let Ok(length) = (&*device).read(&mut request) else { return };
        let request = &request[..length];
        let word = |at: usize| u32::from_ne_bytes(request[at..at + 4].try_into().unwrap());
        let long = |at: usize| u64::from_ne_bytes(request[at..at + 8].try_into().unwrap());
        let answer = match word(4) {
            FORGET | INTERRUPT | BATCH_FORGET => continue,
            INIT => Ok(init()),
            LOOKUP if request.get(HEADER_BYTES..) == Some(NAME) => Ok(entry(content.len() as u64)),
            LOOKUP => Err(ENOENT),
            GETATTR => Ok([words(&[VALID_S, 0]), attributes(long(16), content.len() as u64)].concat()),
            OPEN => Ok(words(&[0, 0])),
            READ => {
                let from = usize::try_from(long(HEADER_BYTES + 8)).unwrap().min(content.len());
                let end = from.saturating_add(word(HEADER_BYTES + 16) as usize).min(content.len());
                Ok(content[from..end].to_vec())
            }
            RELEASE => Ok(Vec::new()),
            // Flushes among them: the kernel asks for none any more, and the end of a process would wait for one for ever.
            _ => Err(ENOSYS),
        };
        let (error, body) = answer.map_or_else(|errno: i32| (-errno, Vec::new()), |body| (0, body));
        let bytes = u32::try_from(16 + body.len()).unwrap().to_ne_bytes();
        let reply = [&bytes[..], &error.to_ne_bytes(), &long(8).to_ne_bytes(), &body].concat();
        // Whoever asked may have been killed meanwhile.
        (&*device).write_all(&reply).ok();
        // Who waits for what nobody has taken can be killed; who waits for an answer to what was taken cannot.
        if gone.load(Ordering::SeqCst) {
            return;
        }
    }
}

fn words(numbers: &[u64]) -> Vec<u8> {
    numbers.iter().flat_map(|number| number.to_ne_bytes()).collect()
}

/// Version 7.31, reads ahead of 128 KiB, writes of 4 KiB, and nothing else that is optional.
fn init() -> Vec<u8> {
    let numbers: [u32; 16] = [7, 31, 128 * 1024, 0, 0, 4096, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    numbers.iter().flat_map(|number| number.to_ne_bytes()).collect()
}

fn entry(bytes: u64) -> Vec<u8> {
    [words(&[PROGRAM_NODE, 0, VALID_S, VALID_S, 0]), attributes(PROGRAM_NODE, bytes)].concat()
}

fn attributes(node: u64, bytes: u64) -> Vec<u8> {
    // inode, size, blocks, three times
    let long = words(&[node, bytes, bytes.div_ceil(512), 1, 1, 1]);
    let mode = if node == PROGRAM_NODE { 0o100_755 } else { 0o040_755 };
    // the times' nanoseconds, mode, links, user, group, device, block size, flags
    let short: [u32; 10] = [0, 0, 0, mode, 1, 0, 0, 0, 4096, 0];
    [long, short.iter().flat_map(|number| number.to_ne_bytes()).collect()].concat()
}
