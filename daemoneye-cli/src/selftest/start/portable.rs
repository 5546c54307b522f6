//! Links need a privilege here and a command line begins with the file, so a copy has to do for both.

use std::io;
use std::path::Path;
use std::process::Command;

pub(in crate::selftest) fn link(own: &Path, file: &Path) -> io::Result<()> {
    std::fs::copy(own, file).map(drop)
}

pub(in crate::selftest) fn named(file: &Path, _name: &str) -> Command {
    Command::new(file)
}
