//! The thread that listens to the kernel. It does nothing but take announcements over and hand them on; when nobody takes
//! them it waits, the kernel's own buffer fills, and the source counts exactly what that loses.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use tokio::sync::mpsc::{self, Receiver, Sender};

use super::watch::now_us;
use crate::kernel::{KernelSource, Notice};
use crate::sources::native;

/// Announcements that may wait for the tracker: about 4 MiB of them, a second of a heavy storm.
const QUEUE: usize = 2048;

/// Announcements handed on without a pause, so that the tracker is woken once for them: those of a few short processes.
const TOGETHER: usize = 64;

/// How long the thread waits for the kernel before it looks whether it is to end or to answer.
const WAIT: Duration = Duration::from_millis(100);

/// How long a source may hold announcements back to bring them into order; several times the connector's window.
const HELD_BACK: Duration = Duration::from_millis(20);

/// What the thread hands on, in order.
pub(super) enum Heard {
    /// The source has ended with this reason.
    Died(String),
    /// Everything that happened before this number was asked for has been handed on.
    Fence(u64),
    /// So many announcements have been lost since the source was opened, and since this time no loss was known of.
    Lost { total: u64, since_us: i64 },
    /// An announcement.
    Notice(Notice),
}

#[derive(Default)]
struct Shared {
    asked: AtomicU64,
    ending: AtomicBool,
}

/// The thread, which gives the source back at its end.
pub(super) type Listening = JoinHandle<Box<dyn KernelSource>>;

/// A source that is being listened to.
pub(super) struct Reader {
    heard: Receiver<Heard>,
    shared: Arc<Shared>,
    thread: Option<Listening>,
    /// What `health` should say about the thread.
    pub(super) note: Option<String>,
}

impl Reader {
    /// Nobody listened to it since `idle_since_us`.
    pub(super) fn start(mut source: Box<dyn KernelSource>, idle_since_us: i64) -> std::io::Result<Self> {
        let shared = Arc::new(Shared::default());
        let (sender, heard) = mpsc::channel(QUEUE);
        let (told, at_once) = std::sync::mpsc::sync_channel(1);
        let theirs = Arc::clone(&shared);
        let thread = std::thread::Builder::new().name(format!("{} reader", source.name())).spawn(move || {
            let raced = if source.is_raced() { native::run_at_once() } else { Ok(()) };
            // The other end waits for it.
            told.send(raced).ok();
            listen(source.as_mut(), idle_since_us, &theirs, &sender);
            source
        })?;
        let refused = at_once.recv().ok().and_then(Result::err);
        let note = refused.map(|why| {
            format!("the reader has no real-time priority ({why}): command lines of very short processes may be missed; it needs the capability SYS_NICE")
        });
        Ok(Self { heard, shared, thread: Some(thread), note })
    }

    /// Waits for announcements and takes what is there, at most `bound`.
    pub(super) async fn hear(&mut self, heard: &mut Vec<Heard>, bound: usize) -> usize {
        self.heard.recv_many(heard, bound).await
    }

    /// Asks for a [`Heard::Fence`] and returns its number.
    pub(super) fn ask(&self) -> u64 {
        self.shared.asked.fetch_add(1, Ordering::SeqCst).saturating_add(1)
    }

    /// Tells the thread to end, and leaves it.
    pub(super) fn cut_off(mut self) -> Option<Listening> {
        self.thread.take()
    }

    /// Ends the thread and gives the source back; what it had handed on before is added to `rest`.
    pub(super) async fn end(mut self, rest: &mut Vec<Heard>) -> Option<Box<dyn KernelSource>> {
        self.shared.ending.store(true, Ordering::Relaxed);
        while let Some(one) = self.heard.recv().await {
            rest.push(one);
        }
        let thread = self.thread.take()?;
        tokio::task::spawn_blocking(move || thread.join().ok()).await.ok().flatten()
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        self.shared.ending.store(true, Ordering::Relaxed);
    }
}

/// `false`: nobody takes them any more.
fn hand_on(gathered: &mut Vec<Notice>, out: &Sender<Heard>) -> bool {
    gathered.drain(..).all(|notice| out.blocking_send(Heard::Notice(notice)).is_ok())
}

/// A question that waits for its answer.
struct Asked {
    number: u64,
    at: Instant,
    at_us: i64,
}

fn listen(source: &mut dyn KernelSource, idle_since_us: i64, shared: &Shared, out: &Sender<Heard>) {
    let (mut answered, mut asked, mut lost) = (0, None::<Asked>, source.lost());
    let (mut newest_us, mut since_us) = (i64::MIN, idle_since_us);
    let mut gathered = Vec::with_capacity(TOGETHER);
    while !shared.ending.load(Ordering::Relaxed) {
        let wanted = shared.asked.load(Ordering::SeqCst);
        if wanted > answered && asked.as_ref().is_none_or(|asked| asked.number != wanted) {
            asked = Some(Asked { number: wanted, at: Instant::now(), at_us: now_us() });
        }
        let began = Instant::now();
        let mut closed = false;
        let received = source.receive(WAIT, &mut |notice| {
            newest_us = notice.time_us;
            gathered.push(notice);
            if gathered.len() >= TOGETHER {
                closed |= !hand_on(&mut gathered, out);
            }
        });
        closed |= !hand_on(&mut gathered, out);
        let total = source.lost();
        if total > std::mem::replace(&mut lost, total) {
            closed |= out.blocking_send(Heard::Lost { total, since_us }).is_err();
        }
        // A loss becomes known with the next announcement, so silence proves nothing.
        since_us = since_us.max(newest_us);
        if closed {
            return;
        }
        if let Err(error) = received {
            // Nobody listens any more: nobody has to know.
            out.blocking_send(Heard::Died(error.to_string())).ok();
            return;
        }
        let settled = |asked: &mut Asked| {
            let emptied = began.duration_since(asked.at) >= HELD_BACK && source.has_caught_up();
            emptied || Duration::from_micros(newest_us.saturating_sub(asked.at_us).try_into().unwrap_or(0)) > HELD_BACK
        };
        if let Some(Asked { number, .. }) = asked.take_if(settled) {
            answered = number;
            if out.blocking_send(Heard::Fence(number)).is_err() {
                return;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel::{KernelSourceError, What};

    /// Hands out one announcement at each call, of those that wait and then of those that happen now.
    struct Backlog {
        waiting: u32,
        then: bool,
    }

    impl KernelSource for Backlog {
        fn name(&self) -> &'static str {
            "backlog"
        }
        fn notes(&self) -> Vec<String> {
            Vec::new()
        }
        fn is_raced(&self) -> bool {
            false
        }
        fn receive(&mut self, wait: Duration, each: &mut dyn FnMut(Notice)) -> Result<(), KernelSourceError> {
            let notice = |time_us| Notice { time_us, pid: 1, start_ticks: None, what: What::Exit(None) };
            if self.waiting > 0 {
                self.waiting -= 1;
                each(notice(1));
            } else if self.then {
                each(notice(now_us()));
            } else {
                std::thread::park_timeout(wait);
            }
            Ok(())
        }
        fn has_caught_up(&self) -> bool {
            self.waiting == 0 && !self.then
        }
        fn lost(&self) -> u64 {
            0
        }
    }

    /// How many of those that waited came before the answer.
    async fn before_the_answer(backlog: Backlog) -> usize {
        let mut reader = Reader::start(Box::new(backlog), 0).unwrap();
        let number = reader.ask();
        let (mut heard, mut count) = (Vec::new(), 0);
        loop {
            let heard_now = tokio::time::timeout(Duration::from_secs(60), reader.hear(&mut heard, 512)).await;
            assert!(heard_now.unwrap() > 0);
            for one in heard.drain(..) {
                match one {
                    Heard::Notice(notice) => count += usize::from(notice.time_us == 1),
                    Heard::Fence(answered) if answered == number => return count,
                    _ => {}
                }
            }
        }
    }

    #[tokio::test]
    async fn a_question_is_answered_only_behind_everything_that_waited() {
        assert_eq!(before_the_answer(Backlog { waiting: 200_000, then: false }).await, 200_000);
    }

    #[tokio::test]
    async fn a_storm_without_an_end_does_not_keep_the_answer() {
        assert_eq!(before_the_answer(Backlog { waiting: 200_000, then: true }).await, 200_000);
    }
}
