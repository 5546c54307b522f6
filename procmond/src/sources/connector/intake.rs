//! What each announcement means, as soon as it arrives.

use super::lives::Life;
use super::message::{Event, Task};
use super::{Connector, Executed, now_ns};
use crate::kernel::What;
use crate::sources::native::parse::exit_code;
use crate::sources::native::table::Unread;
use crate::text::escaped;

impl Connector {
    pub(super) fn intake(&mut self, at_ns: u64, event: Event) {
        match event {
            Event::Fork { parent, child } if child.leads() => {
                self.lives.born(child.pid, parent.pid, at_ns);
                self.hold(
                    at_ns,
                    child.pid,
                    None,
                    What::Fork { parent: parent.pid, parent_ticks: None, credentials: None },
                );
            }
            Event::Fork { child, .. } => self.learn(child, |life| life.threaded = true),
            Event::Exec(task) => self.executed(at_ns, task.pid),
            Event::Users(task, [uid, euid]) if task.leads() => self.learn(task, |life| {
                life.owner.uid = Some(uid);
                life.owner.euid = Some(euid);
            }),
            Event::Groups(task, [gid, _]) if task.leads() => self.learn(task, |life| life.owner.gid = Some(gid)),
            // Whoever attaches to any thread has the whole process; only the leader's detachment frees it.
            Event::Ptrace { traced, by } if by.pid != 0 || traced.leads() => {
                let by = (by.pid != 0).then_some(by.pid);
                self.hold(at_ns, traced.pid, None, What::Traced { by });
            }
            Event::Comm(task, name) if task.leads() => {
                let name = name.split(|byte| *byte == 0).next().unwrap_or_default();
                self.hold(at_ns, task.pid, None, What::Rename(escaped(name).0));
            }
            Event::Exit(task, wait_status) if task.leads() => self.ended(at_ns, task.pid, wait_status),
            Event::Exit(task, wait_status) => self.leaders.thread_ended(task.pid, at_ns, wait_status),
            _ => {}
        }
    }

    fn learn(&mut self, task: Task, what: impl FnOnce(&mut Life)) {
        if let Some(life) = self.lives.life(task.pid) {
            what(life);
        }
    }

    fn executed(&mut self, at_ns: u64, pid: u32) {
        let begun = self.reader.begin(pid).ok();
        self.leaders.replaced(pid);
        if let Some(life) = self.lives.life(pid) {
            life.threaded = false;
        }
        for earlier in self.unread.iter_mut().filter(|earlier| earlier.pid == pid) {
            earlier.overtaken = true;
        }
        self.unread.push_back(Executed { at_ns, pid, begun, overtaken: false });
    }

    fn ended(&mut self, at_ns: u64, pid: u32, wait_status: u32) {
        let life = self.lives.known(pid);
        let mut threaded = life.threaded;
        let mut ticks = life.ticks;
        if (ticks.is_none() || threaded)
            && let Ok(found) = self.reader.lifetime(pid)
        {
            ticks = ticks.or(Some(found.start_ticks));
            // A thread that executes a program is the only one left, and leads, before its exec is announced.
            threaded = found.threads > 1 || (threaded && !found.ended);
        }
        if !threaded || !self.leaders.hold(pid, ticks, at_ns, wait_status) {
            self.hold(at_ns, pid, ticks, What::Exit(Some(exit_code(wait_status))));
        }
    }

    /// Hands on the ends of those whose last thread has gone. Only when no message waits: it may be that of a thread which
    /// has executed a program.
    pub(super) fn look_at_leaders(&mut self) {
        let now_ns = now_ns();
        if self.leaders.due_ns().is_none_or(|due| due > now_ns) {
            return;
        }
        let reader = &mut self.reader;
        let gone = self.leaders.take_ended(now_ns, |leader| {
            let another = |start_ticks| leader.ticks.is_some_and(|ticks| ticks != start_ticks);
            match reader.lifetime(leader.pid) {
                Ok(found) => found.ended || another(found.start_ticks),
                Err(unread) => unread == Unread::Gone,
            }
        });
        for leader in gone {
            self.hold(leader.at_ns, leader.pid, leader.ticks, What::Exit(Some(exit_code(leader.wait_status))));
        }
    }
}
