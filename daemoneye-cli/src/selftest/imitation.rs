//! A process that looks like an attack and does nothing: this program under another name, which waits until its standard input
//! ends and leaves. No name and no argument that it is given is ever read by anything that would act on it.

use std::io;
use std::path::Path;
use std::process::{Child, ExitCode, Stdio};

use super::cases::{Case, Placed};
use super::start;

/// Set for an imitation; what it is set to means nothing.
const VARIABLE: &str = "DAEMONEYE_CLI_IMITATION";

/// Whether this process is to imitate, whatever its arguments say.
pub(crate) fn is_imitation() -> bool {
    std::env::var_os(VARIABLE).is_some()
}

/// Lives until standard input ends, so that a source which only looks now and then sees it as well.
pub(crate) fn imitate() -> ExitCode {
    drop(io::copy(&mut io::stdin().lock(), &mut io::sink()));
    ExitCode::SUCCESS
}

/// An imitation that runs.
pub(super) struct Running {
    child: Child,
}

impl Running {
    /// Starts `case` in a directory of its own below `dir`.
    pub(super) fn start(case: &Case, dir: &Path, number: usize) -> io::Result<Self> {
        let dir = dir.join(number.to_string());
        std::fs::create_dir(&dir)?;
        let (own, file) = (std::env::current_exe()?, dir.join(case.program));
        match case.placed {
            Placed::Copy => drop(std::fs::copy(own, &file)?),
            Placed::Link => start::link(&own, &file)?,
        }
        let child = start::named(&file, case.program)
            .args(case.arguments)
            .current_dir(&dir)
            .env(VARIABLE, "1")
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()?;
        Ok(Self { child })
    }

    pub(super) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Ends it: its standard input is closed while it is waited for.
    pub(super) fn end(mut self) {
        // How it ended is of no interest; that it ended is.
        drop(self.child.wait());
    }
}
