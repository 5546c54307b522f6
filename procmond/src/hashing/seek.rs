//! Finding files, which is asking the file system: on threads of its own and without the lock of the queue, because a file server that
//! is gone may never answer.
//!
//! One thread is enough, and does nothing else: a process that lives for a millisecond has to be held while it is there. One that hangs is
//! left behind and another one takes over, as with reads.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, PoisonError};
use std::time::Instant;

use super::file::FileKey;
use super::pool::{Askers, Job, Pool, State};
use super::{Answer, HashOptions, HashStatus, HashWish};

/// Wishes whose file nobody has found yet.
#[derive(Default)]
pub(super) struct Seeking {
    waiting: VecDeque<HashWish>,
    finding: HashMap<u64, Finding>,
    threads: usize,
}

/// A wish whose file is looked for.
struct Finding {
    wish: HashWish,
    since: Instant,
    /// It has been answered without its file.
    given_up: bool,
}

impl Seeking {
    pub(super) fn left_behind(&self) -> usize {
        self.finding.values().filter(|finding| finding.given_up).count()
    }

    /// Whether somebody has to look from time to time if all goes well.
    pub(super) fn is_busy(&self) -> bool {
        !self.waiting.is_empty() || self.finding.values().any(|finding| !finding.given_up)
    }

    fn is_stuck(&self, now: Instant, options: &HashOptions) -> bool {
        let stuck = |finding: &Finding| now.duration_since(finding.since) >= options.stall;
        self.finding.len() == self.threads && self.finding.values().all(stuck)
    }
}

impl Pool {
    /// Answers from what is known, or leaves the file to be found. Asks no file system.
    pub(super) fn take(&self, wish: HashWish) -> Option<Answer> {
        let mut state = self.state();
        let wish = match wish.file.map(|key| state.known(key, wish.clone())) {
            Some(Ok(answer)) => return answer,
            Some(Err(wish)) => wish,
            None => wish,
        };
        if state.seeking.waiting.len() >= self.options.queue {
            return Some(state.refuse(HashStatus::QueueFull));
        }
        if let Some(key) = wish.file {
            // Whoever asks for the same file meanwhile joins.
            state.askers.insert(key, vec![wish.clone()]);
        }
        state.seeking.waiting.push_back(wish);
        drop(state);
        self.changed.notify_all();
        None
    }

    pub(super) fn add_seeker(self: &Arc<Self>, state: &mut State) -> std::io::Result<()> {
        let pool = Arc::clone(self);
        state.numbers = state.numbers.saturating_add(1);
        let number = state.numbers;
        std::thread::Builder::new().name(format!("hash find {number}")).spawn(move || pool.seek(number))?;
        state.seeking.threads = state.seeking.threads.saturating_add(1);
        Ok(())
    }

    /// One thread: wishes until it is told to end, or is one too many.
    fn seek(&self, number: u64) {
        while let Some(wish) = self.next_wish(number) {
            let told = self.find(number, &wish);
            self.state().seeking.finding.remove(&number);
            for (askers, answer) in told {
                self.tell(Some(askers), &answer);
            }
        }
    }

    fn next_wish(&self, number: u64) -> Option<HashWish> {
        let mut state = self.state();
        loop {
            if state.stopping {
                return None;
            }
            let Seeking { waiting, finding, threads } = &mut state.seeking;
            let working = finding.values().filter(|finding| !finding.given_up).count();
            // Those that hang have been replaced; one that comes back is one too many.
            let spare = threads.saturating_sub(finding.len()) > 1 || working > 0;
            if spare && waiting.is_empty() {
                *threads = threads.saturating_sub(1);
                return None;
            }
            if let Some(wish) = waiting.pop_front() {
                finding.insert(number, Finding { wish: wish.clone(), since: Instant::now(), given_up: false });
                return Some(wish);
            }
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Finds a file, takes hold of it and queues it; returns who has an answer already.
    fn find(&self, number: u64, wish: &HashWish) -> Vec<(Askers, Answer)> {
        let refused = |status| vec![(vec![wish.clone()], Answer::without(status))];
        let key = match wish.file.map_or_else(|| self.look(wish), Ok) {
            Ok(key) => key,
            Err(status) => return if self.is_given_up(number) { Vec::new() } else { refused(status) },
        };
        let pinned = {
            let mut state = self.state();
            if state.seeking.has_given_up(number) {
                return Vec::new();
            }
            if wish.file.is_none() {
                match state.known(key, wish.clone()) {
                    Ok(answer) => return answer.map(|answer| (vec![wish.clone()], answer)).into_iter().collect(),
                    Err(wish) => drop(state.askers.insert(key, vec![wish])),
                }
                // From here on it is given up with all who join it.
                if let Some(finding) = state.seeking.finding.get_mut(&number) {
                    finding.wish.file = Some(key);
                }
            }
            state.pin()
        };
        let held = self.source.hold(key, wish, pinned);
        let mut state = self.state();
        let askers = state.askers.remove(&key).unwrap_or_default();
        let told = match held {
            // Answered meanwhile by whoever watches, and nobody has asked again.
            _ if askers.is_empty() => Err(Vec::new()),
            Err(status) => Err(vec![(askers, Answer::without(status))]),
            Ok((shown, file)) => self.enqueue(&mut state, Job { key: shown, file, pinned }, key.size, askers),
        };
        if told.is_err() && pinned {
            state.unpin();
        }
        drop(state);
        self.changed.notify_all();
        told.err().unwrap_or_default()
    }

    /// What a process runs, unless it is not even queued.
    pub(super) fn look(&self, wish: &HashWish) -> Result<FileKey, HashStatus> {
        let found = self.source.find(wish)?;
        self.skips(found.key, found.regular).map_or(Ok(found.key), Err)
    }

    fn is_given_up(&self, number: u64) -> bool {
        self.state().seeking.has_given_up(number)
    }

    /// Lets it wait with those who ask for it; those who have an answer otherwise.
    fn enqueue(&self, state: &mut State, job: Job, bytes: u64, askers: Askers) -> Result<(), Vec<(Askers, Answer)>> {
        let uid = askers.first().and_then(|wish| wish.uid).unwrap_or(0);
        let (mut rest, mut told) = (Vec::new(), Vec::new());
        // The file system may show another identity than the kernel keeps, and that one may be known.
        for wish in askers {
            match state.join(&job.key, wish.clone()) {
                Ok(Some(answer)) => told.push((vec![wish], answer)),
                Ok(None) => {}
                Err(wish) => rest.push(wish),
            }
        }
        if rest.is_empty() {
            return Err(told);
        }
        if !state.make_room(uid, bytes, self.options.queue) {
            told.push((rest, state.refuse(HashStatus::QueueFull)));
            return Err(told);
        }
        state.asked = state.asked.saturating_add(1);
        state.askers.insert(job.key, rest);
        let place = (uid, bytes, state.asked);
        state.queue.insert(place, job);
        Ok(())
    }

    /// Gives up what is never found, and sees to it that somebody looks.
    pub(super) fn watch_seekers(self: &Arc<Self>, state: &mut State, now: Instant) {
        let State { seeking, askers, counters, told, .. } = state;
        for finding in seeking.finding.values_mut().filter(|finding| !finding.given_up) {
            if now.duration_since(finding.since) >= self.options.file_deadline {
                finding.given_up = true;
                counters.timeouts = counters.timeouts.saturating_add(1);
                told.push((of(&finding.wish, askers), HashStatus::Timeout));
            }
        }
        if seeking.waiting.is_empty() || !seeking.is_stuck(now, &self.options) {
            return;
        }
        if seeking.threads < self.options.threads {
            // Without a thread more the wishes go on waiting, until one comes back or time is up.
            self.add_seeker(state).ok();
        } else if seeking.finding.values().all(|finding| finding.given_up) {
            for wish in std::mem::take(&mut seeking.waiting) {
                counters.shed = counters.shed.saturating_add(1);
                told.push((of(&wish, askers), HashStatus::Stalled));
            }
        }
    }
}

impl Seeking {
    /// Whether a file of this device was looked for in vain and nobody has come back.
    pub(super) fn hangs_on(&self, device: (u32, u32)) -> bool {
        let there = |finding: &Finding| finding.wish.file.is_some_and(|key| key.device == device);
        self.finding.values().any(|finding| finding.given_up && there(finding))
    }

    fn has_given_up(&self, number: u64) -> bool {
        self.finding.get(&number).is_none_or(|finding| finding.given_up)
    }
}

/// Whoever waits with it, or it alone.
fn of(wish: &HashWish, askers: &mut HashMap<FileKey, Askers>) -> Option<Askers> {
    wish.file.map_or_else(|| Some(vec![wish.clone()]), |key| askers.remove(&key))
}
