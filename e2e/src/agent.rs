//! A running agent: what it prints, and its many ends.

use std::io::{BufRead as _, BufReader};
use std::process::{Child, ExitStatus};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context as _, Result};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::processes::{children_of, comm};
use crate::wait_for;

/// A running `daemoneye-agent run`; killed when dropped.
pub struct Agent {
    pub(crate) child: Child,
    lines: Arc<Mutex<Vec<String>>>,
}

impl Agent {
    /// Takes over both of its outputs.
    pub(crate) fn follow(mut child: Child) -> Result<Self> {
        let lines = Arc::new(Mutex::new(Vec::new()));
        collect(child.stdout.take().context("stdout")?, "", &lines);
        collect(child.stderr.take().context("stderr")?, "! ", &lines);
        Ok(Self { child, lines })
    }

    /// Pid of the parent process.
    #[must_use]
    pub fn pid(&self) -> Pid {
        Pid::from_raw(i32::try_from(self.child.id()).unwrap_or(i32::MAX))
    }

    /// Everything it has printed, standard error marked with `!`.
    #[must_use]
    pub fn transcript(&self) -> String {
        self.lines.lock().unwrap_or_else(PoisonError::into_inner).join("\n")
    }

    /// Sends Ctrl-C and waits for the end.
    ///
    /// # Errors
    /// When it does not end in time.
    pub fn stop(mut self) -> Result<(ExitStatus, String)> {
        kill(self.pid(), Signal::SIGINT)?;
        let status = wait_for("the agent's end", || Ok(self.child.try_wait()?)).with_context(|| self.transcript())?;
        Ok((status, self.transcript()))
    }

    /// Waits for it to end by itself.
    ///
    /// # Errors
    /// When it does not end in time.
    pub fn ended(mut self) -> Result<(ExitStatus, String)> {
        let status = wait_for("the agent's end", || Ok(self.child.try_wait()?))?;
        // The last lines may still be in the pipe.
        std::thread::park_timeout(Duration::from_millis(50));
        Ok((status, self.transcript()))
    }

    /// kill -9 of the parent and its worker, at once.
    ///
    /// # Errors
    /// When /proc cannot be read.
    pub fn kill_all(mut self) -> Result<()> {
        let parent = self.pid();
        let children = children_of(parent.as_raw())?;
        kill(parent, Signal::SIGKILL)?;
        for child in children.into_iter().filter(|pid| comm(*pid) != "procmond") {
            // It may have ended by itself since it was listed.
            let _gone = kill(Pid::from_raw(child), Signal::SIGKILL);
        }
        self.child.wait()?;
        Ok(())
    }

    /// Pid of the worker.
    #[must_use]
    pub fn worker(&self) -> Option<i32> {
        children_of(self.pid().as_raw()).ok()?.into_iter().find(|pid| comm(*pid) != "procmond")
    }

    /// kill -9 of the parent alone; its children go on.
    ///
    /// # Errors
    /// When it is gone already.
    pub fn kill_parent(&mut self) -> Result<()> {
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }

    /// kill -9 of the worker alone.
    ///
    /// # Errors
    /// When there is none.
    pub fn kill_worker(&self) -> Result<()> {
        kill(Pid::from_raw(self.worker().context("no worker")?), Signal::SIGKILL)?;
        Ok(())
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        if matches!(self.child.try_wait(), Ok(None)) {
            // In order first, so that procmond ends too; then by force.
            let _asked = kill(self.pid(), Signal::SIGTERM);
            let ended = wait_for("the agent's end", || Ok(self.child.try_wait()?));
            if ended.is_err() {
                let _killed = self.child.kill();
                let _reaped = self.child.wait();
            }
        }
    }
}

fn collect(reader: impl std::io::Read + Send + 'static, mark: &'static str, lines: &Arc<Mutex<Vec<String>>>) {
    let lines = Arc::clone(lines);
    std::thread::spawn(move || {
        for line in BufReader::new(reader).lines().map_while(Result::ok) {
            lines.lock().unwrap_or_else(PoisonError::into_inner).push(format!("{mark}{line}"));
        }
    });
}
