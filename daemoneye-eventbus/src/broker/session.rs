//! One connection: greeting, then message by message until either side ends it. Whatever way it ends, its slot, its entry
//! among the connected and its requests go with it.

use std::sync::Arc;
use std::sync::atomic::AtomicU32;
use std::time::Duration;

use daemoneye_lib::proto::{
    CollectorRequest, CollectorResponse, Empty, Fault, FaultKind, Hello, Pong, Register, Request, Response, Role,
    RpcStatus, Subscribe, collector_request, collector_response, envelope::Body, request, response,
};
use daemoneye_lib::topic::Pattern;
use tokio::sync::OwnedSemaphorePermit;
use tracing::debug;

use super::Notice;
use super::core::{Connection, Core};
use super::publish::{Publisher, check_length};
use crate::door::{Door, Guest, TurnedAway, welcome};
use crate::link::FrameReader;
use crate::rights::{Verb, collector_verb, may, may_on};
use crate::rpc::Calls;
use crate::transport::Stream;
use crate::{BusError, Peer};

/// Characters of a peer's own words that go into a reason, and from there into logs.
const MAX_REASON: usize = 200;
/// Notices about an end wait for the owner no longer than this: a stalled owner must not keep slots taken.
const NOTICE_PATIENCE: Duration = Duration::from_secs(5);

pub(super) async fn serve(core: Arc<Core>, door: Arc<Door>, stream: Stream, peer: Peer, place: OwnedSemaphorePermit) {
    let admit = |hello: &Hello| match core.options.authority.admit(&peer, hello)? {
        role @ (Role::Collector | Role::Subscriber) => Ok(role),
        _ => Err(Fault::new(FaultKind::Forbidden, "the bus is for collectors and subscribers")),
    };
    match door.greet(stream, peer, place, admit).await {
        Ok(guest) => run(&core, guest).await,
        Err(TurnedAway { peer, fault: Some(fault) }) => refuse(&core, peer, fault),
        Err(TurnedAway { fault: None, .. }) => {}
    }
}

fn refuse(core: &Core, peer: Peer, fault: Fault) {
    core.counters.refused.add(1);
    if let Some(held_back) = core.quiet.allow() {
        // The owner is told and says it in its own words.
        debug!(
            uid = peer.uid,
            pid = peer.pid,
            kind = fault.kind().as_str_name(),
            fault.message,
            held_back,
            "peer refused"
        );
    }
    core.try_notify(Notice::Refused { peer, fault });
}

async fn run(core: &Arc<Core>, guest: Guest) {
    let Guest { peer, hello, role, mut link, ended, slot } = guest;
    let id: Arc<str> = hello.id.as_str().into();
    let calls = Calls::new(&id, Arc::clone(&link.outbox));
    let full_credit = if role == Role::Collector { core.options.credit_records } else { 0 };
    let connection = Arc::new(Connection {
        id: Arc::clone(&id),
        role,
        outbox: Arc::clone(&link.outbox),
        calls: Arc::clone(&calls),
        credit: AtomicU32::new(full_credit),
        full_credit,
        ended,
    });
    let mut answer = welcome(role);
    answer.credit = full_credit;
    answer.committed = if role == Role::Collector { core.options.authority.committed(&id) } else { None };
    // Before the connection can be found: nothing may overtake the Welcome.
    drop(link.outbox.send(Body::Welcome(answer)));
    core.enter(&connection);
    core.notify(Notice::Connected { id: Arc::clone(&id), role, peer, build: hello.build }).await;

    let end = Session { core, peer: &connection, publisher: Publisher::new(&id) }.serve(&mut link.reader).await;
    core.leave(&connection);
    let (reason, fault) = end.told();
    debug!(peer = %id, reason, "connection ended");
    if let Some(fault) = fault.clone() {
        refuse(core, peer, fault);
    }
    link.close(fault).await;
    calls.end();
    drop(slot);
    let notice = core.notify(Notice::Disconnected { collector: id, reason });
    if tokio::time::timeout(NOTICE_PATIENCE, notice).await.is_err() {
        core.counters.notices_lost.add(1);
    }
}

/// How a connection ended.
enum End {
    /// We end it: the peer did what it may not.
    Fault(Fault),
    /// The peer is gone, or its bytes are wrong.
    Lost(BusError),
    /// Shutdown, a successor under the same id, or a peer that does not read.
    Closed,
    /// The peer said why it leaves.
    Told(Fault),
}

impl End {
    fn told(self) -> (String, Option<Fault>) {
        match self {
            Self::Fault(fault) => (fault.message.clone(), Some(fault)),
            Self::Lost(error) => (error.to_string(), error.fault()),
            Self::Closed => {
                ("closed by the broker: shutdown, a newer connection, or a peer that does not read".to_owned(), None)
            }
            Self::Told(fault) => {
                let message: String = fault.message.chars().filter(|c| !c.is_control()).take(MAX_REASON).collect();
                (format!("the peer left: {message}"), None)
            }
        }
    }
}

struct Session<'a> {
    core: &'a Arc<Core>,
    peer: &'a Arc<Connection>,
    publisher: Publisher,
}

impl Session<'_> {
    async fn serve(mut self, reader: &mut FrameReader) -> End {
        let ended = self.peer.ended.clone();
        loop {
            let body = tokio::select! {
                biased;
                () = ended.cancelled() => return End::Closed,
                next = reader.next() => match next {
                    Ok(body) => body,
                    Err(error) => return End::Lost(error),
                },
            };
            if let Body::Fault(fault) = body {
                return End::Told(fault);
            }
            // Waits inside (for the owner to take runs or pages) end with the connection.
            let handled = tokio::select! {
                biased;
                () = ended.cancelled() => return End::Closed,
                handled = self.handle(body) => handled,
            };
            if let Err(fault) = handled {
                return End::Fault(fault);
            }
        }
    }

    async fn handle(&mut self, body: Body) -> Result<(), Fault> {
        match body {
            Body::Publish(publish) => self.publisher.take(self.core, self.peer, publish).await,
            Body::Subscribe(wanted) => self.subscribe(&wanted),
            Body::Unsubscribe(unwanted) => {
                self.core.unsubscribe(&self.peer.id, unwanted.subscription_id);
                Ok(())
            }
            Body::Credit(credit) => {
                self.core.grant(&self.peer.id, credit.subscription_id, credit.records);
                Ok(())
            }
            Body::Ack(ack) => {
                self.core.ack(&self.peer.id, ack.id);
                Ok(())
            }
            Body::Request(request) => self.request(request).await,
            Body::Response(response) => {
                self.peer.calls.answer(response).await;
                Ok(())
            }
            Body::Ping(ping) => self.send(Body::Pong(Pong { nonce: ping.nonce })),
            // Requests of collectors are answered at once, so there is nothing to cancel.
            Body::Pong(_) | Body::Cancel(_) => Ok(()),
            Body::Hello(_) | Body::Welcome(_) | Body::Deliver(_) | Body::Fault(_) => Err(Fault::new(
                FaultKind::InvalidRequest,
                "a message that only opens a connection or only the broker sends",
            )),
        }
    }

    fn send(&self, body: Body) -> Result<(), Fault> {
        self.peer.outbox.send(body).map_err(|_| Fault::new(FaultKind::Unavailable, "the connection is closing"))
    }

    fn subscribe(&self, wanted: &Subscribe) -> Result<(), Fault> {
        check_length(&wanted.pattern)?;
        let pattern: Pattern =
            wanted.pattern.parse().map_err(|error| Fault::new(FaultKind::InvalidRequest, format!("{error}")))?;
        if !may_on(self.peer.role, Verb::Subscribe, pattern.as_str(), &self.peer.id) {
            let (role, id) = (self.peer.role.as_str_name(), &self.peer.id);
            let text = format!("{role} {id:?} may not subscribe to {}", pattern.as_str());
            return Err(Fault::new(FaultKind::Forbidden, text));
        }
        self.core.subscribe(self.peer, wanted, pattern)
    }

    async fn request(&self, request: Request) -> Result<(), Fault> {
        let Some(request::Body::Collector(CollectorRequest { verb: Some(verb) })) = request.body else {
            return Err(Fault::new(FaultKind::InvalidRequest, "a request without a verb of the bus"));
        };
        if !collector_verb(&verb).is_some_and(|verb| may(self.peer.role, verb)) {
            return Err(Fault::new(FaultKind::Forbidden, "only the agent may ask this"));
        }
        let answer = match verb {
            collector_request::Verb::Register(register) => self.register(register).await,
            _ => {
                self.core.options.authority.deregister(&self.peer.id);
                Ok(collector_response::Answer::Done(Empty {}))
            }
        };
        let response = match answer {
            Ok(answer) => Response {
                id: request.id,
                status: RpcStatus::Success.into(),
                fault: None,
                body: Some(response::Body::Collector(CollectorResponse { answer: Some(answer) })),
            },
            Err(fault) => Response { id: request.id, status: RpcStatus::Error.into(), fault: Some(fault), body: None },
        };
        self.send(Body::Response(response))
    }

    async fn register(&self, register: Register) -> Result<collector_response::Answer, Fault> {
        if register.collector_id != *self.peer.id {
            let text =
                format!("registration of {:?} over the connection of {:?}", register.collector_id, self.peer.id);
            return Err(Fault::new(FaultKind::Forbidden, text));
        }
        let registered = self.core.options.authority.register(&register)?;
        self.core.notify(Notice::Registered(Box::new(register))).await;
        Ok(collector_response::Answer::Registered(registered))
    }
}
