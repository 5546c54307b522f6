//! The thread that syncs what has gathered, so that no append waits for the disk.

use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Instant;

use super::{GROUP_SYNC, Shared, SyncMode, Wal};
use crate::error::CollectorError;

#[derive(Default)]
struct Wish {
    wanted: bool,
    closed: bool,
}

pub(super) struct Syncer {
    wish: Arc<(Mutex<Wish>, Condvar)>,
    thread: Option<JoinHandle<()>>,
}

impl Syncer {
    pub(super) fn start(shared: Arc<Shared>) -> Result<Self, CollectorError> {
        let wish = Arc::new((Mutex::new(Wish::default()), Condvar::new()));
        let theirs = Arc::clone(&wish);
        let dir = shared.options.dir.clone();
        let thread = std::thread::Builder::new()
            .name("wal-sync".to_owned())
            .spawn(move || work(&shared, &theirs))
            .map_err(|e| CollectorError::io("start the syncing thread for", &dir, e))?;
        Ok(Self { wish, thread: Some(thread) })
    }

    pub(super) fn wake(&self) {
        self.wish.0.lock().unwrap_or_else(PoisonError::into_inner).wanted = true;
        self.wish.1.notify_one();
    }
}

impl Drop for Syncer {
    fn drop(&mut self) {
        self.wish.0.lock().unwrap_or_else(PoisonError::into_inner).closed = true;
        self.wish.1.notify_one();
        if let Some(thread) = self.thread.take() {
            thread.join().ok();
        }
    }
}

fn work(shared: &Shared, (wish, changed): &(Mutex<Wish>, Condvar)) {
    let mut began: Option<Instant> = None;
    loop {
        let mut state = wish.lock().unwrap_or_else(PoisonError::into_inner);
        while !state.wanted && !state.closed {
            state = changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        // Under load a sync takes all that gathered since the last one; whoever waits for each sync does not wait for the rest.
        let gather = began.and_then(|at| GROUP_SYNC.checked_sub(at.elapsed()));
        if let Some(rest) = gather.filter(|_| shared.options.sync == SyncMode::Group) {
            let mut until = Some(rest);
            while let Some(left) = until.filter(|_| !state.closed) {
                let since = Instant::now();
                state = changed.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
                until = left.checked_sub(since.elapsed()).filter(|left| !left.is_zero());
            }
        }
        let (wanted, closed) = (std::mem::take(&mut state.wanted), state.closed);
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
        let told = if inner.gaps.is_empty() { inner.condemned.len() } else { 0 };
        (files, inner.log.take_unsynced_dir(), inner.last(), told)
    };
    let mut outcome = files.iter().try_for_each(|file| file.sync());
    if dir {
        outcome = outcome.and_then(|()| shared.options.disk.sync_dir(&shared.options.dir));
    }
    if outcome.is_ok() && dropped > 0 {
        shared.lock().release_first(dropped, &shared.options);
    }
    shared.progress.send_modify(|progress| match &outcome {
        Ok(()) => {
            progress.durable = progress.durable.max(last);
            progress.visible = progress.visible.max(last);
            progress.written = progress.written.max(last);
        }
        Err(error) => progress.failed = Some(error.to_string()),
    });
    // Whoever waits for the sync does not wait for the note as well.
    if let (Ok(()), Some(note), Some(last)) = (&outcome, &shared.note, last) {
        note.write(last.epoch, last.number);
    }
    outcome.is_ok()
}

impl Wal {
    /// Returns when everything appended so far is synced (at once with `never`).
    ///
    /// # Errors
    /// [`CollectorError::SyncFailed`].
    pub async fn synced(&self) -> Result<(), CollectorError> {
        // Every append has woken the syncing thread already.
        if self.syncer.is_some() {
            let mut progress = self.progress();
            let target = progress.borrow().written;
            progress.wait_for(|p| p.durable >= target || p.failed.is_some()).await.ok();
        }
        self.check()
    }
}
