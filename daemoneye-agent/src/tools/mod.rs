//! Work on files that needs the engine and no running agent: the console starts this program for it, because it links no engine.
//!
//! Standard output carries the result and nothing else. The files were written by anybody, so they are read in a jail that has no
//! way out and grants reading only.

pub(crate) mod hunt;
pub(crate) mod import;

use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use daemoneye_engine::sigma::{Lists, read_lists};
use daemoneye_lib::exit::Exit;
use daemoneye_lib::jail::{Dropped, Required};

use crate::error::AgentError;
use crate::jail;

/// The values for placeholders; none without a file.
fn lists(path: Option<&Path>) -> Result<Lists, AgentError> {
    let Some(path) = path else { return Ok(Lists::new()) };
    read_lists(path).map_err(|problem| AgentError::Input {
        what: "lists",
        flag: "--lists",
        path: path.to_owned(),
        source: std::io::Error::new(if path.exists() { ErrorKind::InvalidData } else { ErrorKind::NotFound }, problem),
    })
}

/// What was named must be there, before anything is done.
fn present(what: &'static str, flag: &'static str, path: &Path) -> Result<(), AgentError> {
    let found = std::fs::metadata(path).map(drop);
    found.map_err(|source| AgentError::Input { what, flag, path: path.to_owned(), source })
}

/// Reading below these paths, and nothing else of files.
fn confine(paths: &[PathBuf]) -> Result<Dropped, AgentError> {
    Ok(jail::enter(&jail::tool(paths), &Required::Available)?)
}

/// What a command ends with: something was left out, or nothing was.
const fn ended(is_whole: bool) -> Exit {
    if is_whole { Exit::Ok } else { Exit::Degraded }
}
