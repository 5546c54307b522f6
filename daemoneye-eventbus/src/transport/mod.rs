//! Local sockets through `interprocess`: who may open them, where they may lie, who is on the other side.
//!
//! A directory that is absent is created 0750; one that exists is never chmodded, and one that everybody may write to is
//! refused. The socket gets its mode when it is created. A socket file is replaced only when nobody answers on it.

#[cfg(unix)]
#[path = "unix.rs"]
mod platform;
#[cfg(windows)]
#[path = "windows.rs"]
mod platform;

use std::io;
use std::path::{Path, PathBuf};

use interprocess::local_socket::tokio as local;
use interprocess::local_socket::traits::tokio::{Listener as _, Stream as _};

use crate::BusError;

pub(crate) use platform::Instance;

/// Longest socket path: `sockaddr_un.sun_path` less its terminating zero.
pub const PATH_LIMIT_BYTES: usize = if cfg!(target_os = "linux") { 107 } else { 103 };
/// Mode of a socket: owner and group. The process umask takes away from it, so an agent that serves a group needs umask 007.
pub const SOCKET_MODE: u16 = 0o660;
/// Mode of a runtime directory that we create.
pub const DIRECTORY_MODE: u32 = 0o750;

/// Credentials that the kernel vouches for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Peer {
    /// Effective user id when it connected.
    pub uid: u32,
    /// Effective group id when it connected.
    pub gid: u32,
    /// Process id, where the platform tells; none for a peer outside our pid namespace. Nothing is decided by it.
    pub pid: Option<u32>,
}

/// A connected socket. Shared by a reader and a writer task; closed when both have dropped it.
pub(crate) type Stream = local::Stream;

/// An open socket; its file is removed when this is dropped.
pub(crate) struct Listener {
    // The file goes while the socket still answers, so a successor cannot have replaced it yet.
    _file: platform::SocketFile,
    inner: local::Listener,
}

impl Listener {
    /// Opens `path` for listening.
    pub(crate) async fn open(path: &Path) -> Result<Self, BusError> {
        check_path(path)?;
        let inner = platform::bind(path).await?;
        Ok(Self { _file: platform::SocketFile::of(path), inner })
    }

    /// The next connection and who made it.
    pub(crate) async fn accept(&self) -> io::Result<(Stream, Peer)> {
        let stream = self.inner.accept().await?;
        let peer = platform::peer(&stream)?;
        Ok((stream, peer))
    }
}

/// Connects to `path`.
pub(crate) async fn connect(path: &Path) -> Result<Stream, BusError> {
    check_path(path)?;
    let name = platform::name(path).map_err(failed("name", path))?;
    Stream::connect(name).await.map_err(failed("connect to", path))
}

/// What distinguishes one socket file from its successor under the same path; `None` when there is none.
pub(crate) fn instance(path: &Path) -> Option<Instance> {
    platform::instance(path)
}

/// Refuses a path that no socket can have.
pub(crate) fn check_path(path: &Path) -> Result<(), BusError> {
    let length = path.as_os_str().len();
    if length > PATH_LIMIT_BYTES {
        return Err(BusError::LimitPath { path: path.to_path_buf(), length, limit: PATH_LIMIT_BYTES });
    }
    Ok(())
}

fn failed(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> BusError {
    let path = PathBuf::from(path);
    move |source| BusError::Io { action, path, source }
}
