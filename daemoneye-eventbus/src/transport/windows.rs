//! Named pipes: the socket path names the pipe, so that two runtime directories do not meet. The pipe's default security
//! descriptor admits its creator only, and Windows removes it with its last handle.

use std::io;
use std::path::Path;

use interprocess::local_socket::traits::StreamCommon as _;
use interprocess::local_socket::{GenericNamespaced, ListenerOptions, Name, ToNsName as _, tokio as local};

use super::{Peer, failed};
use crate::BusError;

pub(super) fn name(path: &Path) -> io::Result<Name<'_>> {
    let text: String =
        path.to_string_lossy().chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '_' }).collect();
    format!("daemoneye-{text}").to_ns_name::<GenericNamespaced>()
}

pub(super) async fn bind(path: &Path) -> Result<local::Listener, BusError> {
    let name = name(path).map_err(failed("name", path))?;
    ListenerOptions::new().name(name).create_tokio().map_err(failed("open", path))
}

/// Windows tells the process, not a numeric user; the pipe's own access list has decided already.
pub(super) fn peer(stream: &local::Stream) -> io::Result<Peer> {
    Ok(Peer { uid: u32::MAX, gid: u32::MAX, pid: stream.peer_creds()?.pid() })
}

/// A pipe has no file whose age could be told.
pub(crate) type Instance = ();

pub(super) fn instance(_path: &Path) -> Option<Instance> {
    None
}

pub(super) struct SocketFile;

impl SocketFile {
    pub(super) fn of(_path: &Path) -> Self {
        Self
    }
}
