//! Windows: `serve --offline` works; `run` does not yet, and says so, because its process tree needs an inherited socket pair
//! and process groups.

use std::fs::{File, OpenOptions};
use std::io::{Error, ErrorKind, Result};
use std::path::Path;
use std::process::{ExitStatus, Stdio};

use super::{GroupMay, Kernel, Wish};

/// No end of a pair can exist here.
pub(crate) enum Pair {}
pub(crate) type ReadHalf = tokio::io::Empty;
pub(crate) type WriteHalf = tokio::io::Sink;

fn absent<T>() -> Result<T> {
    Err(Error::new(ErrorKind::Unsupported, "`run` is not built for Windows; `serve --offline` is"))
}

pub(crate) fn socket_pair() -> Result<(Pair, Stdio)> {
    absent()
}

pub(crate) fn inherited_end() -> Result<Pair> {
    absent()
}

pub(crate) fn split(end: Pair) -> Result<(ReadHalf, WriteHalf)> {
    match end {}
}

/// Ctrl-C.
pub(crate) struct Wishes {
    interrupt: tokio::signal::windows::CtrlC,
}

impl Wishes {
    pub(crate) fn listen() -> Result<Self> {
        Ok(Self { interrupt: tokio::signal::windows::ctrl_c()? })
    }

    pub(crate) async fn next(&mut self) -> Wish {
        if self.interrupt.recv().await.is_none() {
            return std::future::pending().await;
        }
        Wish::Stop
    }
}

/// Nothing is started here, so there is no group to make and nobody to signal.
pub(crate) const fn own_group(_command: &mut tokio::process::Command) {}
pub(crate) const fn take_name(_name: &str) {}
/// A program cannot take its own place here.
pub(crate) const fn begin_again_with(_environment: &[(&str, &str)]) {}
pub(crate) const fn terminate(_pid: u32) {}
pub(crate) const fn kill_now(_pid: u32) {}

/// Starts this program again: here nobody can put another file in the place of one that runs.
pub(crate) fn own_program(path: &Path) -> tokio::process::Command {
    tokio::process::Command::new(path)
}

/// How a program ended, in words.
pub(crate) fn describe_exit(status: ExitStatus) -> String {
    status.to_string()
}

/// The directory's access list decides who may read; the mode has no counterpart.
pub(crate) fn create_private(path: &Path, _mode: u32) -> Result<File> {
    OpenOptions::new().write(true).create_new(true).open(path)
}

pub(crate) fn open_append(path: &Path) -> Result<File> {
    OpenOptions::new().append(true).create(true).open(path)
}

/// A file that is open cannot be moved away by others here; only its name can be missing.
pub(crate) fn is_same_file(path: &Path, _file: &File) -> bool {
    path.exists()
}

/// The access list decides here.
pub(crate) const fn open_to_others(_about: &std::fs::Metadata) -> Option<u32> {
    None
}

/// Modes have no counterpart.
#[cfg(test)]
pub(crate) fn mode_is(path: &Path, _mode: u32) -> bool {
    path.exists()
}

pub(crate) fn create_dir(path: &Path, _mode: u32) -> Result<()> {
    std::fs::create_dir_all(path)
}

/// A pipe that somebody serves cannot be opened again, so opening it tells.
pub(crate) const fn answers(_socket: &Path) -> bool {
    false
}

/// The access list decides here, and it lets nobody else in.
pub(crate) const fn give_to_group(_path: &Path, _group: &str) -> Result<bool> {
    Ok(false)
}

pub(crate) const fn mask_new_files(_group: GroupMay) {}

/// What the transport reports for every peer: pipes carry no uid, their access list lets only this user and
/// administrators write.
pub(crate) const fn own_uid() -> u32 {
    u32::MAX
}

pub(crate) const fn is_member(_uid: u32, _gid: u32, _group: &str) -> bool {
    false
}

/// Nothing is closed here.
pub(crate) const fn warm_up() {}

pub(crate) fn user_name(uid: u32) -> String {
    uid.to_string()
}

pub(crate) fn kernel() -> Kernel {
    Kernel {
        hostname: std::env::var("COMPUTERNAME").unwrap_or_default(),
        name: "Windows".to_owned(),
        release: String::new(),
        machine: std::env::consts::ARCH.to_owned(),
    }
}

pub(crate) const fn page_bytes() -> u64 {
    4096
}
