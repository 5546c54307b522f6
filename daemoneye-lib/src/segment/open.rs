//! Opens what lies in a log's directory. A copy that somebody hands over may have anything in a file's place: a link to a device, a pipe
//! that nobody writes, gigabytes where a line belongs. Whoever verifies it must neither hang nor run out of memory.

use std::fs::File;
use std::io::{self, ErrorKind, Read as _};
use std::path::Path;

use super::SegmentError;

/// Opens a regular file for reading, and nothing else: no link, pipe or device.
///
/// # Errors
/// [`SegmentError`]: it is none, or cannot be opened.
pub fn open_regular(path: &Path) -> Result<File, SegmentError> {
    let none = || SegmentError::io("open", path, io::Error::other("it is a link, a pipe or a device and no file"));
    let file = match open_as_it_is(path) {
        Ok(file) => file,
        // Where the last part of the path is a link.
        Err(_) if path.is_symlink() => return Err(none()),
        Err(error) => return Err(SegmentError::io("open", path, error)),
    };
    let metadata = file.metadata().map_err(|error| SegmentError::io("look at", path, error))?;
    if metadata.is_file() { Ok(file) } else { Err(none()) }
}

#[cfg(unix)]
fn open_as_it_is(path: &Path) -> io::Result<File> {
    use rustix::fs::{CWD, Mode, OFlags, openat};
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW | OFlags::NONBLOCK;
    Ok(File::from(openat(CWD, path, flags, Mode::empty())?))
}

#[cfg(not(unix))]
fn open_as_it_is(path: &Path) -> io::Result<File> {
    File::open(path)
}

/// What a small file holds; `None` when there is none.
///
/// # Errors
/// [`SegmentError`]: it is no regular file, holds more than `most` bytes, or cannot be read.
pub fn read_regular(path: &Path, most: usize) -> Result<Option<Vec<u8>>, SegmentError> {
    let file = match open_regular(path) {
        Err(SegmentError::Io { source, .. }) if source.kind() == ErrorKind::NotFound => return Ok(None),
        opened => opened?,
    };
    let mut bytes = Vec::new();
    let failed = |error| SegmentError::io("read", path, error);
    file.take(most as u64 + 1).read_to_end(&mut bytes).map_err(failed)?;
    if bytes.len() > most {
        let text = format!("it has more than the {most} bytes that such a file has at most");
        return Err(failed(io::Error::new(ErrorKind::FileTooLarge, text)));
    }
    Ok(Some(bytes))
}

#[cfg(test)]
#[cfg(target_os = "linux")]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    #[test]
    fn only_a_file_is_opened_and_only_so_much_of_it_is_read() {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name);
        assert_eq!(read_regular(&path("none"), 4).unwrap(), None);
        std::fs::write(path("file"), "1234").unwrap();
        assert_eq!(read_regular(&path("file"), 4).unwrap().as_deref(), Some(&b"1234"[..]));
        assert!(read_regular(&path("file"), 3).unwrap_err().to_string().contains("more than the 3 bytes"));
        symlink("/dev/zero", path("device")).unwrap();
        symlink(path("file"), path("link")).unwrap();
        symlink(path("none"), path("nowhere")).unwrap();
        let _socket = std::os::unix::net::UnixListener::bind(path("socket")).unwrap();
        rustix::fs::mknodat(rustix::fs::CWD, path("pipe"), rustix::fs::FileType::Fifo, rustix::fs::Mode::RUSR, 0)
            .unwrap();
        for name in ["device", "link", "nowhere", "pipe", "socket", "."] {
            assert!(read_regular(&path(name), 4).is_err(), "{name}");
        }
        let error = read_regular(&path("link"), 4).unwrap_err();
        assert!(error.to_string().contains("no file"), "{error}");
    }
}
