//! One program that the parent keeps running: its process, when it is due again after it ended, and how it ended.

use std::process::ExitStatus;
use std::time::{Duration, Instant};

use tokio::process::{Child, Command};

use super::restarts::Restarts;
use crate::clock::now_ms;
use crate::error::AgentError;
use crate::link::ChildState;
use crate::platform;

/// How long a program may take to end after it was asked; then it is killed.
const PATIENCE: Duration = Duration::from_secs(5);

/// What happened to the program.
#[derive(Debug)]
pub(crate) enum Happening {
    /// Its wait is over: start it.
    Due,
    /// It ended.
    Ended(ExitStatus),
    /// It was asked to end and did not.
    Overdue,
}

/// A program and its place in time.
pub(crate) struct Slot {
    name: &'static str,
    child: Option<Child>,
    restarts: Restarts,
    due: Option<Instant>,
    kill_at: Option<Instant>,
    last_exit: Option<(String, i64)>,
}

impl Slot {
    /// Nothing runs and nothing is due.
    pub(crate) const fn new(name: &'static str, restart_limit: usize) -> Self {
        Self { name, child: None, restarts: Restarts::new(restart_limit), due: None, kill_at: None, last_exit: None }
    }

    /// Starts the program.
    pub(crate) fn start(&mut self, command: &mut Command) -> std::io::Result<()> {
        self.due = None;
        self.kill_at = None;
        self.child = Some(command.spawn()?);
        tracing::debug!(program = self.name, pid = self.pid(), "started");
        Ok(())
    }

    /// The next thing that happens to it; never returns while nothing runs and nothing is due. Safe to cancel.
    pub(crate) async fn happening(&mut self) -> Happening {
        match (&mut self.child, self.due) {
            (Some(child), _) => {
                let status = child.wait();
                let outcome = match self.kill_at {
                    Some(at) => tokio::select! {
                        status = status => status,
                        () = tokio::time::sleep_until(at.into()) => return Happening::Overdue,
                    },
                    None => status.await,
                };
                Happening::Ended(outcome.unwrap_or_default())
            }
            (None, Some(due)) => {
                tokio::time::sleep_until(due.into()).await;
                Happening::Due
            }
            (None, None) => std::future::pending().await,
        }
    }

    /// Notes the end of the program.
    pub(crate) fn ended(&mut self, status: ExitStatus) {
        self.child = None;
        self.kill_at = None;
        self.last_exit = Some((platform::describe_exit(status), now_ms()));
    }

    /// Notes that the program could not be started.
    pub(crate) fn not_started(&mut self, error: &AgentError) {
        self.last_exit = Some((error.to_string(), now_ms()));
    }

    /// Plans the next start; false when the limit of restarts is reached.
    pub(crate) fn plan_restart(&mut self) -> bool {
        let now = Instant::now();
        let Some(wait) = self.restarts.next(now) else { return false };
        tracing::warn!(
            program = self.name,
            exit = self.last_exit.as_ref().map(|(words, _)| words.as_str()),
            wait_ms = u64::try_from(wait.as_millis()).unwrap_or(u64::MAX),
            "ended and will be started again"
        );
        self.due = Some(now + wait);
        true
    }

    /// Looks again after `wait` without counting it as a restart.
    pub(crate) fn look_again(&mut self, wait: Duration) {
        self.due = Some(Instant::now() + wait);
    }

    /// Nothing is started any more.
    pub(crate) fn give_up(&mut self) {
        self.due = None;
    }

    /// Asks the program to end; it is killed when it does not.
    pub(crate) fn terminate(&mut self) {
        if let Some(pid) = self.pid() {
            platform::terminate(pid);
            self.kill_at.get_or_insert_with(|| Instant::now() + PATIENCE);
        }
    }

    /// Kills the program.
    pub(crate) fn kill(&mut self) {
        if let Some(child) = &mut self.child
            && let Err(error) = child.start_kill()
        {
            tracing::warn!(program = self.name, %error, "could not be killed");
        }
        self.kill_at = None;
    }

    pub(crate) fn pid(&self) -> Option<u32> {
        self.child.as_ref().and_then(Child::id)
    }

    pub(crate) const fn runs(&self) -> bool {
        self.child.is_some()
    }

    /// Nothing runs and nothing is planned.
    pub(crate) const fn is_idle(&self) -> bool {
        self.child.is_none() && self.due.is_none()
    }

    /// How it ended last, in words.
    pub(crate) fn last_exit(&self) -> Option<&str> {
        self.last_exit.as_ref().map(|(words, _)| words.as_str())
    }

    /// As health shows it.
    pub(crate) fn state(&self, adopted: Option<u32>) -> ChildState {
        let state = match (self.runs(), adopted, self.due) {
            (true, ..) => "running",
            (false, Some(_), _) => "adopted",
            (false, None, Some(_)) => "waiting_to_restart",
            (false, None, None) => "stopped",
        };
        ChildState {
            name: self.name.to_owned(),
            state: state.to_owned(),
            // 0 stands for one whose pid nobody has told yet.
            pid: self.pid().or(adopted.filter(|pid| *pid != 0)),
            restarts: self.restarts.total(),
            last_exit: self.last_exit().map(str::to_owned),
            last_exit_ms: self.last_exit.as_ref().map(|(_, when)| *when),
        }
    }
}
