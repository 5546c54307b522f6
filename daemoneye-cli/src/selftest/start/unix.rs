//! A link gives a process its name, the first argument what its command line begins with.

use std::io;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::Command;

pub(in crate::selftest) fn link(own: &Path, file: &Path) -> io::Result<()> {
    std::os::unix::fs::symlink(own, file)
}

pub(in crate::selftest) fn named(file: &Path, name: &str) -> Command {
    let mut command = Command::new(file);
    command.arg0(name);
    command
}
