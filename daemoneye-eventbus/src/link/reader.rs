//! Takes frames from a socket. All state lives in the reader, so dropping the future of [`FrameReader::next`] loses nothing.

use std::future::pending;
use std::io;
use std::sync::Arc;

use bytes::BytesMut;
use daemoneye_lib::frame;
use daemoneye_lib::proto::envelope::Body;
use tokio::io::AsyncReadExt as _;
use tokio::time::{Instant, sleep_until};

use super::Limits;
use crate::BusError;
use crate::transport::Stream;

/// Room that is made for reads: a burst of small frames costs one system call. Below the size from which the allocator asks
/// the kernel for pages each time.
const READ_BYTES: usize = 64 * 1024;
/// Less room than this is not worth a read: more is made.
const LEAST_READ_BYTES: usize = 8 * 1024;

pub(crate) struct FrameReader {
    stream: Arc<Stream>,
    buffer: BytesMut,
    limits: Limits,
    /// When the frame at the front of the buffer was begun. Not moved by further bytes, or a peer could drip for ever.
    begun: Option<Instant>,
}

impl FrameReader {
    pub(super) fn new(stream: Arc<Stream>, limits: Limits) -> Self {
        Self { stream, buffer: BytesMut::new(), limits, begun: None }
    }

    /// Largest frame from here on, in bytes.
    pub(crate) fn take_up_to(&mut self, read_bytes: usize) {
        self.limits.read_bytes = read_bytes;
    }

    /// The next message.
    pub(crate) async fn next(&mut self) -> Result<Body, BusError> {
        loop {
            if let Some(envelope) = frame::decode(&mut self.buffer, self.limits.read_bytes)? {
                self.begun = None;
                return envelope
                    .body
                    .ok_or(BusError::PeerUnexpected("a message of a kind that this build does not know"));
            }
            if self.buffer.is_empty() {
                self.begun = None;
            } else if self.begun.is_none() {
                self.begun = Some(Instant::now());
            }
            self.fill().await?;
        }
    }

    async fn fill(&mut self) -> Result<(), BusError> {
        if self.buffer.capacity() - self.buffer.len() < LEAST_READ_BYTES {
            self.buffer.reserve(READ_BYTES);
        }
        let mut stream = &*self.stream;
        let now = Instant::now();
        let half = at(self.begun.map(|begun| begun + self.limits.half_frame));
        let silence = at(self.limits.silence.map(|silence| now + silence));
        tokio::select! {
            biased;
            read = stream.read_buf(&mut self.buffer) => match read {
                Ok(0) => Err(BusError::PeerClosed),
                Ok(_) => Ok(()),
                Err(error) if error.kind() == io::ErrorKind::ConnectionReset => Err(BusError::PeerClosed),
                Err(source) => Err(BusError::Io { action: "read from", path: "the bus connection".into(), source }),
            },
            () = half => Err(BusError::PeerSilent("it began a frame and did not finish it in time")),
            () = silence => Err(BusError::PeerSilent("not a byte for three ping intervals")),
        }
    }
}

/// Resolves at that time, or never.
async fn at(instant: Option<Instant>) {
    match instant {
        Some(instant) => sleep_until(instant).await,
        None => pending().await,
    }
}
