//! The door of a socket: accepts, bounds how many wait at it, hears `Hello`, checks the protocol version, and lets in.
//!
//! A peer that has not been admitted holds a place at the door and not a connection: however many hang there with half a
//! frame, those inside and their number are not touched. Both are permits, so every way out gives them back.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use daemoneye_lib::frame::BUS_LIMIT_BYTES;
use daemoneye_lib::proto::{Fault, FaultKind, Hello, Role, Welcome, envelope::Body};
use daemoneye_lib::{BUILD, PROTOCOL_VERSION};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::warn;

use crate::link::{Limits, Link};
use crate::quiet::Quiet;
use crate::transport::{Listener, Stream};
use crate::{BusError, Peer};

/// Peers that may say hello at the same time; the kernel's backlog holds the others.
const AT_THE_DOOR: usize = 64;
/// Pause after a failed accept: out of file descriptors, every try would fail at once.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// How often a peer is pinged, unless set otherwise.
pub(crate) const PING: Duration = Duration::from_secs(30);
/// How long a begun frame, or `Hello`, may take, unless set otherwise.
pub(crate) const HALF_FRAME: Duration = Duration::from_secs(30);
/// Bytes of a frame of a peer that has not been let in: sixty-four of them hold no more than some megabytes.
const HELLO_BYTES: usize = 64 * 1024;
/// Bytes of an id: it stands in topics, logs and every delivery.
const MAX_ID_BYTES: usize = 64;
/// Bytes of a build name.
const MAX_BUILD_BYTES: usize = 64;

/// What a door needs to know.
pub(crate) struct Door {
    pub(crate) limits: Limits,
    pub(crate) slots: Arc<Semaphore>,
    pub(crate) max_connections: usize,
    pub(crate) shutdown: CancellationToken,
    pub(crate) quiet: Quiet,
}

/// A peer that has said who it is and was believed.
pub(crate) struct Guest {
    pub(crate) peer: Peer,
    pub(crate) hello: Hello,
    pub(crate) role: Role,
    pub(crate) link: Link,
    /// Cancelled when the connection can no longer be written, and at shutdown.
    pub(crate) ended: CancellationToken,
    pub(crate) slot: OwnedSemaphorePermit,
}

/// A peer that was not let in.
pub(crate) struct TurnedAway {
    pub(crate) peer: Peer,
    /// What it was told; `None` when it left without a word, as somebody does who only looks whether we answer.
    pub(crate) fault: Option<Fault>,
}

impl Door {
    pub(crate) fn new(limits: Limits, max_connections: usize, shutdown: CancellationToken) -> Arc<Self> {
        Arc::new(Self {
            limits,
            slots: Arc::new(Semaphore::new(max_connections)),
            max_connections,
            shutdown,
            quiet: Quiet::default(),
        })
    }

    /// Accepts until shutdown; each connection is served on a task of its own.
    pub(crate) async fn keep<F, S>(self: Arc<Self>, listener: Listener, path: &Path, tasks: TaskTracker, serve: F)
    where
        F: Fn(Stream, Peer, OwnedSemaphorePermit) -> S,
        S: Future<Output = ()> + Send + 'static,
    {
        let waiting = Arc::new(Semaphore::new(AT_THE_DOOR));
        loop {
            let accepted = tokio::select! {
                biased;
                () = self.shutdown.cancelled() => return,
                accepted = accept(&listener, &waiting) => accepted,
            };
            match accepted {
                Ok((stream, peer, place)) => drop(tasks.spawn(serve(stream, peer, place))),
                Err(error) => {
                    if let Some(held_back) = self.quiet.allow() {
                        warn!(socket = %path.display(), %error, held_back, "cannot accept a connection");
                    }
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }

    /// Hears `Hello` and asks `admit`. On success `place` is given back and a slot is taken; the caller sends `Welcome`.
    pub(crate) async fn greet(
        &self,
        stream: Stream,
        peer: Peer,
        place: OwnedSemaphorePermit,
        admit: impl FnOnce(&Hello) -> Result<Role, Fault>,
    ) -> Result<Guest, TurnedAway> {
        let ended = self.shutdown.child_token();
        let outside = Limits { read_bytes: self.limits.read_bytes.min(HELLO_BYTES), ..self.limits };
        let mut link = Link::new(stream, outside, ended.clone());
        let heard = tokio::select! {
            biased;
            () = ended.cancelled() => Ok(Err(BusError::PeerClosed)),
            heard = tokio::time::timeout(self.limits.half_frame, link.reader.next()) => heard,
        };
        let outcome = match heard {
            Ok(Ok(Body::Hello(hello))) => self.decide(hello, admit).map_err(Some),
            Ok(Ok(_)) => Err(Some(Fault::new(FaultKind::Unauthenticated, "the first message must be Hello"))),
            Ok(Err(error)) => Err(error.fault()),
            Err(_) => Err(Some(Fault::new(FaultKind::Timeout, "no Hello in time"))),
        };
        match outcome {
            Ok((hello, role, slot)) => {
                drop(place);
                link.reader.take_up_to(self.limits.read_bytes);
                Ok(Guest { peer, hello, role, link, ended, slot })
            }
            Err(fault) => {
                link.close(fault.clone()).await;
                Err(TurnedAway { peer, fault })
            }
        }
    }

    fn decide(
        &self,
        hello: Hello,
        admit: impl FnOnce(&Hello) -> Result<Role, Fault>,
    ) -> Result<(Hello, Role, OwnedSemaphorePermit), Fault> {
        check_hello(&hello)?;
        let role = admit(&hello)?;
        let slot = Arc::clone(&self.slots).try_acquire_owned().map_err(|_| {
            let text = format!("all {} connections are in use: close one, or try again later", self.max_connections);
            Fault::new(FaultKind::ResourceExhausted, text)
        })?;
        Ok((hello, role, slot))
    }
}

/// Takes a place first and a connection then: a future dropped in between gives the place back.
async fn accept(
    listener: &Listener,
    waiting: &Arc<Semaphore>,
) -> std::io::Result<(Stream, Peer, OwnedSemaphorePermit)> {
    let place = Arc::clone(waiting).acquire_owned().await.map_err(std::io::Error::other)?;
    let (stream, peer) = listener.accept().await?;
    Ok((stream, peer, place))
}

fn check_hello(hello: &Hello) -> Result<(), Fault> {
    if hello.protocol != PROTOCOL_VERSION {
        let build: String = hello.build.chars().filter(|c| !c.is_control()).take(MAX_BUILD_BYTES).collect();
        let text = format!(
            "protocol {} of build {build:?} is not served: build {BUILD} speaks protocol {PROTOCOL_VERSION}, run the same build on both sides",
            hello.protocol
        );
        return Err(Fault::new(FaultKind::UnsupportedVersion, text));
    }
    let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-' || b == b'_';
    if hello.id.is_empty() || hello.id.len() > MAX_ID_BYTES || !hello.id.bytes().all(plain) {
        let text = format!("an id has 1 to {MAX_ID_BYTES} characters of a-z, 0-9, '-' and '_'");
        return Err(Fault::new(FaultKind::InvalidRequest, text));
    }
    if hello.build.len() > MAX_BUILD_BYTES {
        return Err(Fault::new(
            FaultKind::InvalidRequest,
            format!("a build name has at most {MAX_BUILD_BYTES} bytes"),
        ));
    }
    Ok(())
}

/// The other side of the door: says hello over a fresh connection and waits for `Welcome`.
pub(crate) async fn enter(
    stream: Stream,
    limits: Limits,
    hello: Hello,
    patience: Duration,
    ended: CancellationToken,
) -> Result<(Link, Welcome), BusError> {
    let mut link = Link::new(stream, limits, ended);
    link.outbox.send(Body::Hello(hello)).map_err(|_| BusError::PeerClosed)?;
    let heard = tokio::time::timeout(patience, link.reader.next()).await;
    match heard.map_err(|_| BusError::PeerSilent("no Welcome in time"))?? {
        Body::Welcome(welcome) if welcome.protocol == PROTOCOL_VERSION => Ok((link, welcome)),
        Body::Welcome(_) => Err(BusError::PeerUnexpected("a Welcome of another protocol version")),
        Body::Fault(fault) => Err(BusError::PeerFault(fault)),
        _ => Err(BusError::PeerUnexpected("something else than Welcome")),
    }
}

/// The answer to `Hello`.
pub(crate) fn welcome(role: Role) -> Welcome {
    Welcome { protocol: PROTOCOL_VERSION, build: BUILD.to_owned(), role: role.into(), ..Welcome::default() }
}

/// What the bus holds its peers to, given the two times that can be set. Collectors ping even while they wait, so one that is
/// silent for three intervals is stopped or stuck.
pub(crate) fn bus_limits(ping: Duration, half_frame: Duration) -> Limits {
    let (read_bytes, write_bytes) = (BUS_LIMIT_BYTES, BUS_LIMIT_BYTES);
    Limits { read_bytes, write_bytes, half_frame, ping, silence: Some(ping * 3) }
}
