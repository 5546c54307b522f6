//! The thread that syncs what has gathered, so that no append waits for the disk.
//!
//! A sync costs more than everything else that happens to an event (docs/adr/0008-one-wake-up-per-process.md), so the first append after a
//! sync starts a clock of [`GROUP_SYNC`], and only somebody who waits for the sync makes it come sooner.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::{GROUP_SYNC, Inner, Shared, SyncMode, Wal};
use crate::error::CollectorError;
use crate::lock::DirLock;
use crate::writer::join_in_time;

/// A sync that has taken this long means a disk that hangs, and then a write may hang as well: many times what a slow disk takes.
const HANGING: Duration = Duration::from_millis(100);

#[derive(Default)]
struct Wish {
    /// When the oldest append that is not synced asked for it.
    wanted: Option<Instant>,
    /// Somebody waits for it.
    urgent: bool,
    closed: bool,
}

/// What the syncing thread is asked for.
#[derive(Default)]
pub(super) struct Wishes {
    wish: Mutex<Wish>,
    changed: Condvar,
    /// How many wait for a sync.
    waiting: AtomicUsize,
    /// When the sync began that has not ended.
    running: Mutex<Option<Instant>>,
    /// Nobody waits for the thread any more.
    abandoned: AtomicBool,
}

impl Wishes {
    fn lock(&self) -> MutexGuard<'_, Wish> {
        self.wish.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Something was appended, or (`urgent`) somebody waits for what was.
    pub(super) fn ask(&self, urgent: bool) {
        let mut wish = self.lock();
        let news = wish.wanted.is_none() || (urgent && !wish.urgent);
        wish.wanted.get_or_insert_with(Instant::now);
        wish.urgent |= urgent;
        drop(wish);
        if news {
            self.changed.notify_one();
        }
    }

    fn running(&self) -> MutexGuard<'_, Option<Instant>> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether the disk has not answered for so long that a write had better wait on a thread of its own.
    pub(super) fn hangs(&self) -> bool {
        self.running().is_some_and(|began| began.elapsed() >= HANGING)
    }

    /// From now on every sync is announced, and the next one comes soon.
    pub(super) fn wait(&self) -> Waiter<'_> {
        self.waiting.fetch_add(1, Ordering::SeqCst);
        self.ask(true);
        Waiter(self)
    }
}

/// Somebody who waits for a sync, for as long as it lives.
pub(super) struct Waiter<'a>(&'a Wishes);

impl Drop for Waiter<'_> {
    fn drop(&mut self) {
        self.0.waiting.fetch_sub(1, Ordering::SeqCst);
    }
}

pub(super) struct Syncer {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

impl Syncer {
    /// Nobody else opens the log while the thread has its `lock`.
    pub(super) fn start(shared: Arc<Shared>, lock: Arc<DirLock>) -> Result<Self, CollectorError> {
        let theirs = Arc::clone(&shared);
        let thread = std::thread::Builder::new()
            .name("wal-sync".to_owned())
            .spawn(move || {
                work(&theirs);
                drop(lock);
            })
            .map_err(|e| CollectorError::io("start the syncing thread for", &shared.options.dir, e))?;
        Ok(Self { shared, thread: Some(thread) })
    }
}

impl Syncer {
    /// Waits for its last sync; `false` when the disk hangs and the thread is left behind.
    pub(super) fn end(mut self) -> bool {
        let Some(thread) = self.thread.take() else { return true };
        self.close();
        let ended = join_in_time(thread);
        self.shared.wishes.abandoned.store(!ended, Ordering::SeqCst);
        ended
    }

    fn close(&self) {
        self.shared.wishes.lock().closed = true;
        self.shared.wishes.changed.notify_one();
    }
}

impl Drop for Syncer {
    fn drop(&mut self) {
        self.close();
    }
}

fn work(shared: &Shared) {
    let Wishes { changed, .. } = &shared.wishes;
    let mut began: Option<Instant> = None;
    loop {
        let mut state = shared.wishes.lock();
        while !state.closed {
            let rest = state.wanted.map(|wanted| rest(shared.options.sync, wanted, state.urgent, began));
            state = match rest {
                None => changed.wait(state).unwrap_or_else(PoisonError::into_inner),
                Some(rest) if rest.is_zero() => break,
                Some(rest) => changed.wait_timeout(state, rest).unwrap_or_else(PoisonError::into_inner).0,
            };
        }
        let (wanted, closed) = (state.wanted.take().is_some(), state.closed);
        state.urgent = false;
        drop(state);
        // The sync before may have taken what this wish was for; another one would make the next append wait for its group.
        if wanted && is_behind(shared) {
            began = Some(Instant::now());
            if !sync_once(shared) {
                return;
            }
        }
        if closed {
            return;
        }
    }
}

/// How long the sync that was first wanted at `wanted` lets more gather; `began` is when the one before it did.
fn rest(mode: SyncMode, wanted: Instant, urgent: bool, began: Option<Instant>) -> Duration {
    let from = match (mode, urgent) {
        (SyncMode::Group, false) => Some(wanted),
        // Under load a sync takes all that gathered since the last one.
        (SyncMode::Group, true) => began,
        (SyncMode::Always | SyncMode::Never, _) => None,
    };
    from.and_then(|from| GROUP_SYNC.checked_sub(from.elapsed())).unwrap_or_default()
}

fn is_behind(shared: &Shared) -> bool {
    let last = shared.lock().last();
    last > shared.progress.borrow().durable
}

/// `false`: a sync failed, and nothing may be synced any more. Never two at once: each takes what the other would have to wait for.
pub(super) fn sync_once(shared: &Shared) -> bool {
    let (files, dir, last, dropped) = {
        let mut inner = shared.lock();
        let mut files = std::mem::take(&mut inner.unsynced);
        files.push(Arc::clone(inner.log.file()));
        let told = if inner.gaps.is_empty() { inner.told() } else { None };
        (files, inner.log.take_unsynced_dir(), inner.last(), told)
    };
    *shared.wishes.running() = Some(Instant::now());
    let mut outcome = files.iter().try_for_each(|file| file.sync());
    if let Some(dir) = dir {
        outcome = outcome.and_then(|()| dir.sync());
    }
    *shared.wishes.running() = None;
    if shared.wishes.abandoned.load(Ordering::SeqCst) {
        return false;
    }
    if let (Ok(()), Some(upto)) = (&outcome, dropped) {
        shared.lock().release_upto(upto, shared);
    }
    shared.progress.send_if_modified(|progress| {
        match &outcome {
            Ok(()) => {
                let shown = progress.visible >= last && progress.written >= last;
                progress.durable = progress.durable.max(last);
                progress.visible = progress.visible.max(last);
                progress.written = progress.written.max(last);
                // Nobody is woken for a sync that nobody waits for. Who waits counts itself before it looks, and both look
                // under the lock of this channel.
                !shown || shared.wishes.waiting.load(Ordering::SeqCst) > 0
            }
            Err(error) => {
                progress.failed = Some(error.to_string());
                true
            }
        }
    });
    // Whoever waits for the sync does not wait for the note as well.
    if let (Ok(()), Some(note), Some(last)) = (&outcome, &shared.note, last) {
        note.write(last.epoch, last.number);
    }
    // Behind the sync, which must not wait for the reading of a segment.
    Inner::tell_again(shared);
    outcome.is_ok()
}

impl Wal {
    /// Returns when everything appended so far is synced (at once with `never`).
    ///
    /// # Errors
    /// [`CollectorError::SyncFailed`].
    pub async fn synced(&self) -> Result<(), CollectorError> {
        if self.syncer.is_some() {
            let _waiting = self.shared.wishes.wait();
            let mut progress = self.progress();
            let target = progress.borrow().written;
            progress.wait_for(|p| p.durable >= target || p.failed.is_some()).await.ok();
        }
        self.check()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::source::SourceEvent;
    use crate::wal::WalOptions;

    #[test]
    fn an_append_is_quick_only_when_nothing_makes_it_wait() {
        let dir = tempfile::tempdir().unwrap();
        let (wal, _) =
            Wal::open(WalOptions { sync: SyncMode::Always, ..WalOptions::new(dir.path(), "test") }).unwrap();
        let events = [SourceEvent::new("events.test", 1, vec![7; 9])];
        {
            let _appending = wal.shared.lock();
            assert!(wal.append_quickly(&events).is_none(), "another append holds the log");
        }
        let long_ago = Instant::now().checked_sub(HANGING).unwrap();
        *wal.shared.wishes.running() = Some(long_ago);
        assert!(wal.append_quickly(&events).is_none(), "the disk hangs");
        // In an hour: it has not hung for long, however late the append looks.
        *wal.shared.wishes.running() = Some(Instant::now() + Duration::from_secs(3600));
        assert!(wal.append_quickly(&events).unwrap().unwrap().is_some(), "a sync that runs is no reason to wait");
    }

    #[test]
    fn what_nobody_waits_for_is_synced_all_the_same() {
        let dir = tempfile::tempdir().unwrap();
        let (wal, _) = Wal::open(WalOptions::new(dir.path(), "test")).unwrap();
        let last = wal.append(&[SourceEvent::new("events.test", 1, vec![7; 9])]).unwrap();
        let began = Instant::now();
        // Looked at, not waited for: whoever waits makes the sync come sooner.
        while wal.shared.progress.borrow().durable < last {
            assert!(began.elapsed() < Duration::from_secs(30), "it is not synced");
            std::thread::yield_now();
        }
    }
}
