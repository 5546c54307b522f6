//! The queue of files and the threads that read them.
//!
//! One thread is enough; another is added only while files wait and every thread that works has been stuck in one read for a
//! while. A watching thread does that, and answers for reads that never come back.

use std::collections::{BTreeMap, HashMap};
use std::ops::Bound;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use super::cache::Cache;
use super::file::{FileKey, Source, Waiting, hash};
use super::seek::Seeking;
use super::{Answer, Deliver, HashOptions, HashStatus, HashWish, Hashed, hex};

/// Files that are held open while they wait: few enough for the usual bound of 1,024 descriptors a process.
const PINNED: usize = 256;

/// Processes that may wait for one and the same file: a fork storm of one program, or a large baseline of it, is answered with
/// one read. About 100 bytes each.
const ASKERS: usize = 16_384;

/// What was done and what was not.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counters {
    /// Files that were read.
    pub hashed: u64,
    /// Reads that did not come back in time.
    pub timeouts: u64,
    /// Wishes that found no room, or every thread stuck.
    pub shed: u64,
    /// Threads that hang in a read now.
    pub left_behind: u64,
}

/// Whoever waits for one file.
pub(super) type Askers = Vec<HashWish>;

pub(super) struct Job {
    pub(super) key: FileKey,
    pub(super) file: Box<dyn Waiting>,
    pub(super) pinned: bool,
}

/// Whose file, its bytes, and a number in the order of asking.
pub(super) type Place = (u32, u64, u64);

/// A file that is being read.
struct Running {
    key: FileKey,
    since: Instant,
    /// When its last read came back.
    progress: Instant,
    /// Its askers have been answered without it.
    given_up: bool,
}

#[derive(Default)]
pub(super) struct State {
    pub(super) queue: BTreeMap<Place, Job>,
    /// Who had the last turn.
    turn: u32,
    pub(super) asked: u64,
    /// Answered by whoever watches.
    pub(super) told: Vec<(Option<Askers>, HashStatus)>,
    /// Of files that are looked for, wait or are being read.
    pub(super) askers: HashMap<FileKey, Askers>,
    pub(super) seeking: Seeking,
    running: HashMap<u64, Running>,
    threads: usize,
    pinned: usize,
    pub(super) numbers: u64,
    cache: Cache,
    pub(super) counters: Counters,
    /// When the bytes that were read so far are paid for.
    paid: Option<Instant>,
    pub(super) stopping: bool,
}

impl State {
    fn is_stuck(&self, now: Instant, options: &HashOptions) -> bool {
        let stuck = |running: &Running| now.duration_since(running.progress) >= options.stall;
        self.running.len() == self.threads && self.running.values().all(stuck)
    }

    /// The smallest file of the next user.
    fn pop(&mut self) -> Option<Job> {
        let after = (Bound::Excluded((self.turn, u64::MAX, u64::MAX)), Bound::Unbounded);
        let place = *self.queue.range(after).chain(&self.queue).next()?.0;
        self.turn = place.0;
        self.queue.remove(&place)
    }

    /// Makes room for a file of `bytes`: where it is full, or its user has half of it, a larger one of theirs gives way.
    pub(super) fn make_room(&mut self, uid: u32, bytes: u64, room: usize) -> bool {
        let theirs = (uid, 0, 0)..=(uid, u64::MAX, u64::MAX);
        if self.queue.len() < room.div_ceil(2)
            || (self.queue.len() < room && self.queue.range(theirs.clone()).count() < room.div_ceil(2))
        {
            return true;
        }
        let largest = self.queue.range(theirs).next_back().map(|(place, _)| *place);
        match largest.filter(|(_, largest, _)| *largest > bytes).and_then(|place| self.queue.remove(&place)) {
            Some(job) => {
                self.shed(&job, HashStatus::QueueFull);
                true
            }
            None => false,
        }
    }

    fn shed(&mut self, job: &Job, status: HashStatus) {
        if job.pinned {
            self.unpin();
        }
        let askers = self.askers.remove(&job.key);
        let count = askers.as_ref().map_or(0, Vec::len) as u64;
        self.counters.shed = self.counters.shed.saturating_add(count);
        self.told.push((askers, status));
    }

    /// Answers for what waits for a device that does not answer, or for everything, when nobody is left to work.
    fn shed_all(&mut self, device: Option<(u32, u32)>) {
        let given_up: Vec<_> =
            self.queue.extract_if(.., |_, job| device.is_none_or(|device| job.key.device == device)).collect();
        for (_, job) in given_up {
            self.shed(&job, HashStatus::Stalled);
        }
    }

    /// The answer, when it is known; whoever asks for what others wait for joins them.
    pub(super) fn join(&mut self, key: &FileKey, wish: HashWish) -> Result<Option<Answer>, HashWish> {
        if let Some(outcome) = self.cache.outcome_of(key, now_s()) {
            return Ok(Some(answer(outcome)));
        }
        match self.askers.get_mut(key) {
            Some(askers) if askers.len() < ASKERS => {
                askers.push(wish);
                Ok(None)
            }
            Some(_) => Ok(Some(self.refuse(HashStatus::QueueFull))),
            None => Err(wish),
        }
    }

    /// As [`Self::join`]; a device that does not answer is left alone.
    pub(super) fn known(&mut self, key: FileKey, wish: HashWish) -> Result<Option<Answer>, HashWish> {
        let wish = match self.join(&key, wish) {
            Ok(answer) => return Ok(answer),
            Err(wish) => wish,
        };
        let hangs = self.running.values().any(|running| running.given_up && running.key.device == key.device);
        if hangs || self.seeking.hangs_on(key.device) {
            return Ok(Some(self.refuse(HashStatus::Stalled)));
        }
        Err(wish)
    }

    /// Whether there is a descriptor left to hold one more file open.
    pub(super) const fn pin(&mut self) -> bool {
        let pinned = self.pinned < PINNED;
        if pinned {
            self.pinned = self.pinned.saturating_add(1);
        }
        pinned
    }

    pub(super) const fn unpin(&mut self) {
        self.pinned = self.pinned.saturating_sub(1);
    }

    pub(super) const fn refuse(&mut self, status: HashStatus) -> Answer {
        self.counters.shed = self.counters.shed.saturating_add(1);
        Answer::without(status)
    }
}

pub(super) struct Pool {
    pub(super) source: Box<dyn Source>,
    pub(super) options: HashOptions,
    deliver: Deliver,
    state: Mutex<State>,
    pub(super) changed: Condvar,
}

impl Pool {
    pub(super) fn start(
        source: Box<dyn Source>,
        options: HashOptions,
        deliver: Deliver,
    ) -> std::io::Result<Arc<Self>> {
        let state = Mutex::new(State::default());
        let pool = Arc::new(Self { source, options, deliver, state, changed: Condvar::new() });
        let watched = Arc::clone(&pool);
        std::thread::Builder::new().name("hash watch".to_owned()).spawn(move || watched.watch())?;
        pool.add_thread(&mut pool.state())?;
        pool.add_seeker(&mut pool.state())?;
        Ok(pool)
    }

    pub(super) fn stop(&self) {
        self.state().stopping = true;
        self.changed.notify_all();
    }

    pub(super) fn counters(&self) -> Counters {
        let state = self.state();
        let left_behind = state.running.values().filter(|running| running.given_up).count();
        let left_behind = left_behind.saturating_add(state.seeking.left_behind());
        Counters { left_behind: left_behind as u64, ..state.counters }
    }

    #[cfg(test)]
    pub(super) fn waiting(&self) -> usize {
        let state = self.state();
        state.queue.len().saturating_add(usize::from(state.seeking.is_busy()))
    }

    /// Why a file is not even queued.
    pub(super) fn skips(&self, key: FileKey, regular: bool) -> Option<HashStatus> {
        let seconds = key.size.checked_div(self.options.bytes_per_second)?;
        match () {
            () if !regular => Some(HashStatus::NotRegular),
            () if key.size > self.options.max_file_bytes => Some(HashStatus::TooLarge),
            () if Duration::from_secs(seconds) >= self.options.file_deadline => Some(HashStatus::Budget),
            () => None,
        }
    }

    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn add_thread(self: &Arc<Self>, state: &mut State) -> std::io::Result<()> {
        let pool = Arc::clone(self);
        state.numbers = state.numbers.saturating_add(1);
        let number = state.numbers;
        std::thread::Builder::new().name(format!("hash {number}")).spawn(move || pool.work(number))?;
        state.threads = state.threads.saturating_add(1);
        Ok(())
    }

    /// One thread: files until it is told to end, or is one too many.
    fn work(&self, number: u64) {
        self.source.enter();
        while let Some(job) = self.next(number) {
            let outcome = hash(job.file.as_ref(), job.key, &mut |bytes| self.pace(number, bytes));
            // Closing the handle may wait for the device as well, so it is done before the file counts as read.
            drop(job.file);
            self.finish(number, job.key, job.pinned, outcome);
        }
    }

    fn next(&self, number: u64) -> Option<Job> {
        let mut state = self.state();
        loop {
            let working = state.running.values().filter(|running| !running.given_up).count();
            // Those that hang have been replaced; one that comes back is one too many.
            let spare = state.threads.saturating_sub(state.running.len()) > 1 || working > 0;
            if state.stopping || (spare && state.queue.is_empty()) {
                state.threads = state.threads.saturating_sub(1);
                self.changed.notify_all();
                return None;
            }
            if let Some(job) = state.pop() {
                let (key, now) = (job.key, Instant::now());
                state.running.insert(number, Running { key, since: now, progress: now, given_up: false });
                drop(state);
                self.changed.notify_all();
                return Some(job);
            }
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Keeps the rate and the deadline, and shows that the read goes on.
    fn pace(&self, number: u64, bytes: u64) -> Result<(), HashStatus> {
        let due = {
            let mut state = self.state();
            let now = Instant::now();
            let stopping = state.stopping;
            let running = state.running.get_mut(&number).ok_or(HashStatus::Timeout)?;
            running.progress = now;
            if stopping || running.given_up || now.duration_since(running.since) >= self.options.file_deadline {
                return Err(HashStatus::Timeout);
            }
            let nanos =
                u128::from(bytes).saturating_mul(1_000_000_000) / u128::from(self.options.bytes_per_second.max(1));
            // What was not used a moment ago may be used now, so that small files are not held up.
            let burst = Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX));
            let paid = state.paid.unwrap_or(now).max(now.checked_sub(burst).unwrap_or(now));
            state.paid = Some(paid + burst);
            paid
        };
        while let Some(left) = due.checked_duration_since(Instant::now()).filter(|left| !left.is_zero()) {
            std::thread::park_timeout(left);
        }
        Ok(())
    }

    fn finish(
        &self,
        number: u64,
        key: FileKey,
        pinned: bool,
        outcome: Result<(Option<FileKey>, [u8; 32]), HashStatus>,
    ) {
        let mut state = self.state();
        if pinned {
            state.unpin();
        }
        let given_up = state.running.remove(&number).is_none_or(|running| running.given_up);
        if let Ok((shown, hash)) = outcome {
            state.counters.hashed = state.counters.hashed.saturating_add(1);
            if let Some(shown) = shown {
                state.cache.keep(shown, hash, now_s());
            }
        }
        if given_up || state.stopping {
            return;
        }
        if outcome == Err(HashStatus::Timeout) {
            state.cache.skip(key, now_s());
            state.counters.timeouts = state.counters.timeouts.saturating_add(1);
        }
        let askers = state.askers.remove(&key);
        drop(state);
        self.tell(askers, &answer(outcome.map(|(_, hash)| hash)));
    }

    /// Gives up what never comes back, and sees to it that somebody works.
    fn watch(self: Arc<Self>) {
        let mut state = self.state();
        while !state.stopping {
            let now = Instant::now();
            self.give_up(&mut state, now);
            self.watch_seekers(&mut state, now);
            if !state.queue.is_empty() && state.is_stuck(now, &self.options) {
                if state.threads < self.options.threads {
                    // Without a thread more the files go on waiting, until one comes back or time is up.
                    self.add_thread(&mut state).ok();
                } else if state.running.values().all(|running| running.given_up) {
                    state.shed_all(None);
                }
            }
            let told = std::mem::take(&mut state.told);
            if !told.is_empty() {
                drop(state);
                for (askers, status) in told {
                    self.tell(askers, &Answer::without(status));
                }
                state = self.state();
                continue;
            }
            state = self.rest(state);
        }
    }

    /// Until something changes; while files are read, at most as long as it takes to call a read stuck.
    fn rest<'a>(&self, state: MutexGuard<'a, State>) -> MutexGuard<'a, State> {
        let watching = !state.queue.is_empty()
            || state.seeking.is_busy()
            || state.running.values().any(|running| !running.given_up);
        if watching {
            return self.changed.wait_timeout(state, self.options.stall).unwrap_or_else(PoisonError::into_inner).0;
        }
        self.changed.wait(state).unwrap_or_else(PoisonError::into_inner)
    }

    /// A read that goes on ends itself when its time is over; one that does not come back means that its device does not
    /// answer.
    fn give_up(&self, state: &mut State, now: Instant) {
        let State { running, askers, counters, told, .. } = state;
        let mut dead = Vec::new();
        for running in running.values_mut().filter(|running| !running.given_up) {
            if now.duration_since(running.progress) >= self.options.file_deadline {
                running.given_up = true;
                counters.timeouts = counters.timeouts.saturating_add(1);
                told.push((askers.remove(&running.key), HashStatus::Timeout));
                dead.push(running.key.device);
            }
        }
        for device in dead {
            state.shed_all(Some(device));
        }
    }

    pub(super) fn tell(&self, askers: Option<Askers>, answer: &Answer) {
        for HashWish { entity, pid, executable_path, .. } in askers.unwrap_or_default() {
            (self.deliver)(Hashed { entity, pid, executable_path, answer: answer.clone() });
        }
    }
}

fn answer(outcome: Result<[u8; 32], HashStatus>) -> Answer {
    match outcome {
        Ok(hash) => {
            let hash = hex(&hash);
            Answer { hash: Some(hash), status: HashStatus::Ok }
        }
        Err(status) => Answer::without(status),
    }
}

fn now_s() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_secs()).unwrap_or(i64::MAX)
}
