//! The parent of the process tree: a single thread without sockets that starts, watches and restarts the worker and procmond,
//! and stops both in order.
//!
//! It exists because a jailed worker cannot start programs. It decides nothing about events: what it knows comes from exit
//! statuses and from the few words of [`crate::link`]. If it dies, the worker notices and stops in order, and procmond goes
//! on collecting for the next agent.

pub(crate) mod collector;
mod fresh;
mod restarts;
mod slot;
pub(crate) mod token;

use std::path::PathBuf;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use daemoneye_lib::allocator;
use daemoneye_lib::exit::Exit;
use daemoneye_lib::jail::Report;

use self::fresh::Fresh;
use self::slot::{Happening, Slot};
use crate::error::AgentError;
use crate::link::{self, Receiver, Sender, ToParent, ToWorker};
use crate::platform::{self, Wish, Wishes};
use crate::settings::Settings;

/// How long worker and procmond together may take to stop in order.
const STOP_PATIENCE: Duration = Duration::from_secs(10);
/// How often the lock of an adopted procmond is looked at: it is no child, so its end is not told.
const ADOPTED_POLL: Duration = Duration::from_secs(1);
/// Exit codes of a worker that would only fail the same way again.
const FINAL: &[Exit] = &[
    Exit::Usage,
    Exit::InUse,
    Exit::NewerFormat,
    Exit::Unreadable,
    Exit::StartupFailed,
    Exit::CollectorFailed,
    Exit::Config,
    Exit::SandboxIncomplete,
    Exit::DropFailed,
];

/// What one turn of the loop found.
enum Event {
    Collector(Happening),
    Wish(Wish),
    Word(Option<ToParent>),
    Worker(Happening),
}

/// The running tree.
struct Parent {
    settings: Settings,
    jail: Report,
    /// Where this program lay at the start: later the system names it by a path that is gone.
    program: PathBuf,
    worker_args: Vec<std::ffi::OsString>,
    worker: Slot,
    collector: Slot,
    /// A procmond that another agent started: `Some(0)` until its pid is known.
    adopted: Option<u32>,
    sender: Option<Sender>,
    receiver: Option<Receiver>,
    /// Whether the token is one that a procmond of this agent has.
    owns_token: bool,
    /// Whether a worker has ever come up; one that never did is not tried again.
    came_up: bool,
}

/// Runs until a signal or until something cannot be kept running.
pub(crate) async fn run(
    settings: Settings,
    jail: Report,
    worker_args: Vec<std::ffi::OsString>,
) -> Result<Exit, AgentError> {
    collector::check(&settings)?;
    settings.find_rules()?;
    let fresh = Fresh::of(&[&settings.data_dir, &settings.runtime_dir]);
    let mut wishes = Wishes::listen().map_err(|source| AgentError::io("listen for signals", "", source))?;
    let program = std::env::current_exe().map_err(|source| AgentError::io("find this program", "", source))?;
    let limit = settings.procmond.restart_limit;
    let mut parent = Parent {
        settings,
        jail,
        program,
        worker_args,
        worker: Slot::new("worker", limit),
        collector: Slot::new("procmond", limit),
        adopted: None,
        sender: None,
        receiver: None,
        owns_token: false,
        came_up: false,
    };
    parent.start_worker()?;
    let outcome = parent.watch(&mut wishes).await;
    parent.stop().await;
    if !parent.came_up {
        fresh.take_back();
    }
    outcome
}

impl Parent {
    async fn watch(&mut self, wishes: &mut Wishes) -> Result<Exit, AgentError> {
        loop {
            match self.event(wishes).await {
                Event::Wish(Wish::Stop) => return Ok(Exit::Ok),
                Event::Wish(Wish::Reload) => self.say(&ToWorker::Reload).await,
                Event::Word(word) => self.heard(word).await?,
                Event::Worker(happening) => {
                    if let Some(exit) = self.worker_happening(happening)? {
                        return Ok(exit);
                    }
                }
                Event::Collector(happening) => self.collector_happening(happening).await?,
            }
        }
    }

    async fn event(&mut self, wishes: &mut Wishes) -> Event {
        tokio::select! {
            wish = wishes.next() => Event::Wish(wish),
            happening = self.worker.happening() => Event::Worker(happening),
            happening = self.collector.happening() => Event::Collector(happening),
            word = next_word(&mut self.receiver) => Event::Word(word),
        }
    }

    fn start_worker(&mut self) -> Result<(), AgentError> {
        let failed = |source| AgentError::WorkerNotStarted { program: self.program.clone(), source };
        let (ours, theirs) = platform::socket_pair().map_err(failed)?;
        let (sender, receiver) = link::open(ours).map_err(failed)?;
        let mut command = platform::own_program(&self.program);
        command.arg("worker").args(&self.worker_args).stdin(theirs).stdout(Stdio::inherit());
        command.envs(allocator::unset());
        platform::own_group(&mut command);
        self.worker.start(&mut command).map_err(failed)?;
        self.sender = Some(sender);
        self.receiver = Some(receiver);
        Ok(())
    }

    async fn say(&mut self, message: &ToWorker) {
        if let Some(sender) = &mut self.sender
            && sender.send(message).await.is_err()
        {
            // Its exit status follows and tells more than a broken pipe.
            self.sender = None;
        }
    }

    async fn tell_children(&mut self) {
        let mut children = vec![self.worker.state(None)];
        if self.settings.procmond.spawn {
            children.push(self.collector.state(self.adopted));
        }
        let jail = self.jail.clone();
        self.say(&ToWorker::Children { parent: std::process::id(), children, jail }).await;
    }

    async fn heard(&mut self, word: Option<ToParent>) -> Result<(), AgentError> {
        match word {
            None => self.receiver = None,
            Some(ToParent::Listening) => {
                self.came_up = true;
                if self.settings.procmond.spawn && self.collector.is_idle() {
                    self.start_collector()?;
                }
            }
            Some(ToParent::Collector { pid }) => {
                if let Some(adopted) = &mut self.adopted {
                    *adopted = pid;
                }
            }
            Some(ToParent::RestartCollector { reason }) => {
                tracing::warn!(%reason, "procmond is restarted");
                self.terminate_collector();
            }
        }
        self.tell_children().await;
        Ok(())
    }

    fn start_collector(&mut self) -> Result<(), AgentError> {
        self.owns_token = true;
        if token::stands(&self.settings.token_file()) && collector::is_collecting(&self.settings.data_dir) {
            tracing::info!("a procmond that outlived an earlier agent is adopted");
            self.adopted = Some(0);
            self.collector.look_again(ADOPTED_POLL);
            return Ok(());
        }
        self.adopted = None;
        let mut command = collector::command(&self.settings)?;
        let path = &self.settings.procmond.path;
        self.collector.start(&mut command).map_err(|source| AgentError::io("start procmond", path, source))
    }

    fn worker_happening(&mut self, happening: Happening) -> Result<Option<Exit>, AgentError> {
        match happening {
            Happening::Due => {
                if let Err(error) = self.start_worker() {
                    self.worker.not_started(&error);
                    self.plan_worker()?;
                }
            }
            Happening::Overdue => self.worker.kill(),
            Happening::Ended(status) => {
                self.worker.ended(status);
                self.sender = None;
                self.receiver = None;
                if let Some(exit) = self.final_exit(status) {
                    return Ok(Some(exit));
                }
                self.plan_worker()?;
            }
        }
        Ok(None)
    }

    fn plan_worker(&mut self) -> Result<(), AgentError> {
        let last = self.worker.last_exit().unwrap_or("").to_owned();
        if self.worker.plan_restart() { Ok(()) } else { Err(AgentError::WorkerFailed { last }) }
    }

    /// The code with which the whole agent ends because of the worker's; its message stands on standard error already.
    fn final_exit(&self, status: ExitStatus) -> Option<Exit> {
        let code = status.code().and_then(|code| u8::try_from(code).ok())?;
        let exit = Exit::ALL.iter().copied().find(|exit| exit.code() == code)?;
        (FINAL.contains(&exit) || (!self.came_up && exit != Exit::Ok)).then_some(exit)
    }

    async fn collector_happening(&mut self, happening: Happening) -> Result<(), AgentError> {
        match happening {
            Happening::Due if self.adopted.is_some() && collector::is_collecting(&self.settings.data_dir) => {
                self.collector.look_again(ADOPTED_POLL);
                return Ok(());
            }
            Happening::Due => {
                if let Err(error) = self.start_collector() {
                    self.collector.not_started(&error);
                    self.plan_collector(None)?;
                }
            }
            Happening::Overdue => self.collector.kill(),
            Happening::Ended(status) => {
                self.collector.ended(status);
                self.plan_collector(status.code())?;
            }
        }
        self.tell_children().await;
        Ok(())
    }

    fn plan_collector(&mut self, code: Option<i32>) -> Result<(), AgentError> {
        let is = |exit: Exit| code == Some(i32::from(exit.code()));
        let last = self.collector.last_exit().unwrap_or("").to_owned();
        if [Exit::Config, Exit::NewerFormat, Exit::Unreadable].into_iter().any(is) {
            return Err(AgentError::CollectorRefused { last });
        }
        if self.collector.plan_restart() { Ok(()) } else { Err(AgentError::CollectorFailed { last }) }
    }

    /// Stops both in order, then by force; nothing is left running.
    async fn stop(&mut self) {
        self.worker.give_up();
        self.collector.give_up();
        self.say(&ToWorker::Stop).await;
        if !self.worker.runs() {
            self.terminate_collector();
        }
        if tokio::time::timeout(STOP_PATIENCE, self.wait_for_all()).await.is_err() {
            tracing::warn!("not everything stopped in {} s and is killed", STOP_PATIENCE.as_secs());
            self.worker.kill();
            self.collector.kill();
            if let Some(pid) = self.adopted.filter(|_| collector::is_collecting(&self.settings.data_dir)) {
                platform::kill_now(pid);
            }
            let _reaped = tokio::time::timeout(Duration::from_secs(2), self.wait_for_all()).await;
        }
        self.forget_token();
    }

    /// A procmond that lives on shows its token to the next agent; without one it is of no use to anybody.
    fn forget_token(&self) {
        if self.owns_token && !self.collector.runs() && !collector::is_collecting(&self.settings.data_dir) {
            let token = self.settings.token_file();
            if let Err(error) = std::fs::remove_file(&token) {
                tracing::debug!(token = %token.display(), %error, "the token file was not removed");
            }
        }
    }

    fn terminate_collector(&mut self) {
        self.collector.terminate();
        // While the lock is held, the pid is still that of its holder.
        if let Some(pid) = self.adopted.filter(|_| collector::is_collecting(&self.settings.data_dir)) {
            platform::terminate(pid);
        }
    }

    async fn wait_for_all(&mut self) {
        while self.worker.runs() {
            match self.worker.happening().await {
                Happening::Ended(status) => self.worker.ended(status),
                Happening::Due | Happening::Overdue => self.worker.kill(),
            }
        }
        // The worker has asked it over the bus; a worker that could not is made up for here.
        self.terminate_collector();
        while self.collector.runs() {
            match self.collector.happening().await {
                Happening::Ended(status) => self.collector.ended(status),
                Happening::Due | Happening::Overdue => self.collector.kill(),
            }
        }
        while self.adopted.is_some() && collector::is_collecting(&self.settings.data_dir) {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
}

async fn next_word(receiver: &mut Option<Receiver>) -> Option<ToParent> {
    match receiver {
        Some(receiver) => receiver.next().await,
        None => std::future::pending().await,
    }
}
