//! What the parent and its worker say to each other, as JSON lines over the inherited socket pair.
//!
//! The pair is also the life line: when the parent dies, the worker reads the end of the stream and stops in order; there is
//! no pid to poll and no window in which a worker serves without a parent. Lines are bounded, so neither side can make the
//! other one grow.

use daemoneye_lib::jail::Report;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};

use crate::platform::{self, Pair, ReadHalf, WriteHalf};

/// Longest line in bytes: a dozen child states are a few kilobytes.
const LINE_LIMIT_BYTES: u64 = 64 * 1024;

/// What one started program is doing, as health shows it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ChildState {
    /// `procmond` or `worker`.
    pub(crate) name: String,
    /// `running`, `adopted`, `waiting to restart`, `stopped`.
    pub(crate) state: String,
    pub(crate) pid: Option<u32>,
    pub(crate) restarts: u32,
    /// How the last one ended, in words.
    pub(crate) last_exit: Option<String>,
    /// When it ended, ms since the Unix epoch.
    pub(crate) last_exit_ms: Option<i64>,
}

/// Parent to worker.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum ToWorker {
    /// The states of all children changed; with what holds the parent itself.
    Children { parent: u32, children: Vec<ChildState>, jail: Report },
    /// Read the rules again.
    Reload,
    /// Ask the collectors to stop, seal, end.
    Stop,
}

/// Worker to parent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum ToParent {
    /// A collector registered; its pid by the kernel, which the parent needs for one that it did not start.
    Collector { pid: u32 },
    /// The store is held and the bus answers: collectors may be started.
    Listening,
    /// The collector answers no more.
    RestartCollector { reason: String },
}

/// The sending half.
pub(crate) struct Sender {
    half: WriteHalf,
}

/// The receiving half.
pub(crate) struct Receiver {
    half: BufReader<ReadHalf>,
    line: Vec<u8>,
}

/// Both halves of one end of the pair.
pub(crate) fn open(end: Pair) -> std::io::Result<(Sender, Receiver)> {
    let (read, write) = platform::split(end)?;
    Ok((Sender { half: write }, Receiver { half: BufReader::new(read), line: Vec::new() }))
}

impl Sender {
    /// Sends one message; an error means that the other side is gone.
    pub(crate) async fn send<T: Serialize>(&mut self, message: &T) -> std::io::Result<()> {
        let mut line = serde_json::to_vec(message)?;
        line.push(b'\n');
        self.half.write_all(&line).await
    }
}

impl Receiver {
    /// The next message; `None` when the other side is gone. Safe to cancel: half a line is kept for the next call.
    pub(crate) async fn next<T: DeserializeOwned>(&mut self) -> Option<T> {
        loop {
            let room = LINE_LIMIT_BYTES.saturating_sub(u64::try_from(self.line.len()).unwrap_or(u64::MAX));
            let read = (&mut self.half).take(room).read_until(b'\n', &mut self.line).await;
            if !matches!(read, Ok(1..)) || self.line.last() != Some(&b'\n') {
                return None;
            }
            let line = std::mem::take(&mut self.line);
            match serde_json::from_slice(&line) {
                Ok(message) => return Some(message),
                Err(error) => tracing::warn!(%error, "a line between parent and worker was not understood"),
            }
        }
    }
}

// The pair exists on Unix only.
#[cfg(unix)]
#[cfg(test)]
mod tests {
    use super::*;

    fn pair() -> ((Sender, Receiver), (Sender, Receiver)) {
        let (one, two) = Pair::pair().unwrap();
        (open(one).unwrap(), open(two).unwrap())
    }

    #[tokio::test]
    async fn messages_arrive_in_order_and_the_end_is_seen() {
        let ((mut sender, _keep), (_, mut receiver)) = pair();
        sender.send(&ToWorker::Reload).await.unwrap();
        sender.send(&ToWorker::Stop).await.unwrap();
        drop(sender);
        drop(_keep);
        assert_eq!(receiver.next().await, Some(ToWorker::Reload));
        assert_eq!(receiver.next().await, Some(ToWorker::Stop));
        assert_eq!(receiver.next::<ToWorker>().await, None);
    }

    #[tokio::test]
    async fn an_unknown_line_is_skipped_and_an_endless_one_ends_the_link() {
        let ((mut sender, _keep), (_other, mut receiver)) = pair();
        sender.half.write_all(b"{\"what\":1}\n").await.unwrap();
        sender.send(&ToWorker::Stop).await.unwrap();
        assert_eq!(receiver.next().await, Some(ToWorker::Stop));
        let endless = tokio::spawn(async move {
            let _ended = sender.half.write_all(&vec![b'x'; 2 * 64 * 1024]).await;
        });
        assert_eq!(receiver.next::<ToWorker>().await, None);
        drop(receiver);
        endless.abort();
    }
}
