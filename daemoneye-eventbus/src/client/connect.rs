//! Connects, serves the connection until it ends, waits, connects again.

use std::collections::VecDeque;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Duration;

use daemoneye_lib::proto::{
    CollectorRequest, Deliver, Fault, FaultKind, Hello, Ping, Pong, Registered, Request, Response, RpcStatus,
    Unsubscribe, Welcome, collector_request, collector_response, envelope::Body, request, response,
};
use daemoneye_lib::{BUILD, PROTOCOL_VERSION};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until, timeout};
use tracing::{debug, info};

use super::backoff::Backoff;
use super::serve::{IncomingCall, Responder};
use super::session::{RunStream, Session};
use super::{ClientEvent, Connected, Delivered, Shared};
use crate::BusError;
use crate::door::{HALF_FRAME, bus_limits, enter};
use crate::link::{FrameReader, Link, locked};
use crate::quiet::Quiet;
use crate::rpc::{Serving, deadline_of};
use crate::transport::{self, Instance};

/// How long connecting, `Welcome` and the answer to the registration may take, each.
const PATIENCE: Duration = Duration::from_secs(10);
/// How often a waiting client looks whether a new socket has appeared: a restarted agent is found at once, at the cost of a
/// `stat`.
const LOOK_EVERY: Duration = Duration::from_millis(250);
/// Messages that may come before the answer to the registration.
const EARLY_MESSAGES: usize = 1_024;
/// The id of the registration's request; those of the client's own requests count from 1.
const REGISTRATION: u64 = u64::MAX;

/// Runs until the client is shut down or nobody listens to its events.
pub(super) async fn keep_connected(shared: Arc<Shared>, events: mpsc::Sender<ClientEvent>) {
    let work = Connecting {
        shared: &shared,
        events: &events,
        backoff: Backoff::default(),
        number: 0,
        quiet: Quiet::default(),
    };
    tokio::select! {
        () = work.run() => {}
        () = events.closed() => {}
    }
    if let Some(session) = shared.current.send_replace(None) {
        session.end();
    }
}

struct Connecting<'a> {
    shared: &'a Arc<Shared>,
    events: &'a mpsc::Sender<ClientEvent>,
    backoff: Backoff,
    number: u64,
    quiet: Quiet,
}

/// A connection that has said hello, registered and subscribed.
struct Established {
    link: Link,
    session: Arc<Session>,
    welcome: Welcome,
    registered: Option<Registered>,
    /// Subscriptions that the broker knows already.
    announced: Vec<u64>,
    early: VecDeque<Body>,
}

impl Connecting<'_> {
    async fn run(mut self) {
        loop {
            let seen = transport::instance(&self.shared.options.socket);
            let established = tokio::select! {
                biased;
                () = self.shared.stop.cancelled() => return,
                established = self.establish() => established,
            };
            match established {
                Ok(established) => self.serve(established).await,
                Err(error) => self.refused(error).await,
            }
            if self.shared.stop.is_cancelled() {
                return;
            }
            let wait = self.backoff.failed(getrandom::u64().unwrap_or_default());
            tokio::select! {
                biased;
                () = self.shared.stop.cancelled() => return,
                renewed = self.wait(wait, seen) => if renewed { self.backoff.renew() },
            }
        }
    }

    /// Waits, or until another socket has taken the place of the one that was tried.
    async fn wait(&self, delay: Duration, seen: Option<Instance>) -> bool {
        let until = Instant::now() + delay;
        loop {
            let now = transport::instance(&self.shared.options.socket);
            if now.is_some() && now != seen {
                return true;
            }
            if Instant::now() >= until {
                return false;
            }
            sleep_until(until.min(Instant::now() + LOOK_EVERY)).await;
        }
    }

    async fn refused(&self, error: BusError) {
        if let BusError::PeerFault(fault) = &error {
            if let Some(held_back) = self.quiet.allow() {
                // The owner is told and says it in its own words.
                debug!(kind = fault.kind().as_str_name(), fault.message, held_back, "the broker refused this client");
            }
            self.emit(ClientEvent::Refused(fault.clone())).await;
        } else {
            debug!(%error, "cannot connect to the broker");
        }
    }

    /// For the events between connections, which may wait for the owner.
    async fn emit(&self, event: ClientEvent) {
        tokio::select! {
            () = self.shared.stop.cancelled() => {}
            // A receiver that is gone ends the client.
            sent = self.events.send(event) => drop(sent),
        }
    }

    async fn establish(&mut self) -> Result<Established, BusError> {
        let options = &self.shared.options;
        let socket = transport::connect(&options.socket);
        let stream = timeout(PATIENCE, socket).await.map_err(|_| BusError::PeerSilent("it does not accept"))??;
        let ended = self.shared.stop.child_token();
        let hello = Hello {
            protocol: PROTOCOL_VERSION,
            build: BUILD.to_owned(),
            role: options.role.into(),
            id: options.id.clone(),
            token: options.token.clone(),
        };
        let limits = bus_limits(options.ping_interval, HALF_FRAME);
        let (mut link, welcome) = enter(stream, limits, hello, PATIENCE, ended.clone()).await?;
        // Before the registration: what the agent says to a collector that has announced itself must not fall into a gap.
        let mut announced = Vec::new();
        for subscribe in locked(&self.shared.subscriptions).values() {
            announced.push(subscribe.subscription_id);
            link.outbox.send(Body::Subscribe(subscribe.clone())).map_err(|_| BusError::PeerClosed)?;
        }
        let mut early = VecDeque::new();
        let registered = match &options.register {
            None => None,
            Some(build) => {
                let verb = collector_request::Verb::Register(build());
                let registering = register(&mut link, verb, &mut early);
                Some(
                    timeout(PATIENCE, registering)
                        .await
                        .map_err(|_| BusError::PeerSilent("no answer to Register"))??,
                )
            }
        };
        self.number += 1;
        let session = Arc::new(Session::new(self.number, Arc::clone(&link.outbox), welcome.credit, ended));
        Ok(Established { link, session, welcome, registered, announced, early })
    }

    async fn serve(&mut self, established: Established) {
        let Established { mut link, session, welcome, registered, announced, early } = established;
        info!(build = welcome.build, "connected to the broker");
        let stream = RunStream::new(Arc::clone(&session));
        {
            let subscriptions = locked(&self.shared.subscriptions);
            let since = subscriptions.values().filter(|s| !announced.contains(&s.subscription_id));
            since.for_each(|subscribe| session.tell(Body::Subscribe(subscribe.clone())));
            for subscription_id in announced.into_iter().filter(|id| !subscriptions.contains_key(id)) {
                session.tell(Body::Unsubscribe(Unsubscribe { subscription_id }));
            }
            self.shared.current.send_replace(Some(Arc::clone(&session)));
        }
        // Last, so that an owner who publishes as soon as it hears of the connection has one.
        self.emit(ClientEvent::Connected(Connected { welcome, registered, stream })).await;
        // The first answer to a ping proves that the broker does more than accept.
        session.tell(Body::Ping(Ping { nonce: 0 }));
        let serving = Serving::new(Arc::clone(&session.outbox), session.ended.clone());
        let mut serve = Serve { connecting: self, session: &session, serving };
        let reason = serve.until_the_end(&mut link.reader, early).await;
        self.shared.current.send_replace(None);
        let fault = reason.fault();
        if let BusError::PeerFault(fault) = &reason {
            self.emit(ClientEvent::Refused(fault.clone())).await;
        }
        link.close(fault).await;
        session.end();
        info!(%reason, "disconnected from the broker");
        self.emit(ClientEvent::Disconnected { reason: reason.to_string() }).await;
    }
}

/// Registers, and keeps what else comes meanwhile.
async fn register(
    link: &mut Link,
    verb: collector_request::Verb,
    early: &mut VecDeque<Body>,
) -> Result<Registered, BusError> {
    let body = Some(request::Body::Collector(CollectorRequest { verb: Some(verb) }));
    let request = Request { id: REGISTRATION, deadline_ms: 0, correlation: None, body };
    link.outbox.send(Body::Request(request)).map_err(|_| BusError::PeerClosed)?;
    loop {
        match link.reader.next().await? {
            Body::Response(response) if response.id == REGISTRATION => return registered(response),
            Body::Fault(fault) => return Err(BusError::PeerFault(fault)),
            other if early.len() < EARLY_MESSAGES => early.push_back(other),
            _ => return Err(BusError::PeerUnexpected("too much before its answer to Register")),
        }
    }
}

fn registered(response: Response) -> Result<Registered, BusError> {
    if response.status() != RpcStatus::Success {
        let fault = response.fault.unwrap_or_else(|| Fault::new(FaultKind::Refused, "registration refused"));
        return Err(BusError::PeerFault(fault));
    }
    match response.body {
        Some(response::Body::Collector(answer)) => match answer.answer {
            Some(collector_response::Answer::Registered(registered)) => Ok(registered),
            _ => Err(BusError::PeerUnexpected("another answer than Registered")),
        },
        _ => Err(BusError::PeerUnexpected("no answer to Register")),
    }
}

struct Serve<'a, 'b> {
    connecting: &'a mut Connecting<'b>,
    session: &'a Arc<Session>,
    serving: Arc<Serving>,
}

impl Serve<'_, '_> {
    async fn until_the_end(&mut self, reader: &mut FrameReader, mut early: VecDeque<Body>) -> BusError {
        loop {
            let next = match early.pop_front() {
                Some(body) => Ok(body),
                None => tokio::select! {
                    biased;
                    () = self.session.ended.cancelled() => return BusError::PeerClosed,
                    next = reader.next() => next,
                },
            };
            let handled = match next {
                Ok(body) => self.handle(body).await,
                Err(error) => return error,
            };
            if let ControlFlow::Break(error) = handled {
                return error;
            }
        }
    }

    async fn handle(&mut self, body: Body) -> ControlFlow<BusError> {
        match body {
            Body::Ack(ack) => match ack.committed {
                Some(committed) => return self.event(ClientEvent::Committed(committed)),
                None => self.session.acknowledged(ack),
            },
            Body::Credit(credit) => {
                let spent = usize::try_from(self.session.full_credit).unwrap_or(0) - self.available();
                let records = usize::try_from(credit.records).unwrap_or(usize::MAX);
                self.session.credit.add_permits(records.min(spent));
            }
            Body::Deliver(deliver) => {
                return self.event(ClientEvent::Deliver(delivered(deliver, self.session.number)));
            }
            Body::Request(request) => return self.request(request),
            Body::Cancel(cancel) => {
                self.serving.cancel(cancel.request_id);
            }
            Body::Response(response) => self.session.calls.answer(response).await,
            Body::Ping(ping) => self.session.tell(Body::Pong(Pong { nonce: ping.nonce })),
            Body::Pong(_) => {
                if self.connecting.backoff.proven() {
                    self.session.tell(Body::Ping(Ping { nonce: 0 }));
                }
            }
            Body::Fault(fault) => return ControlFlow::Break(BusError::PeerFault(fault)),
            Body::Hello(_) | Body::Welcome(_) | Body::Publish(_) | Body::Subscribe(_) | Body::Unsubscribe(_) => {
                return ControlFlow::Break(BusError::PeerUnexpected("a message that only clients send"));
            }
        }
        ControlFlow::Continue(())
    }

    fn available(&self) -> usize {
        let full = usize::try_from(self.session.full_credit).unwrap_or(0);
        self.session.credit.available_permits().min(full)
    }

    /// Never waits: an owner that waits for credit before it reads on would otherwise wait for itself.
    fn event(&self, event: ClientEvent) -> ControlFlow<BusError> {
        match self.connecting.events.try_send(event) {
            Ok(()) => ControlFlow::Continue(()),
            Err(_) => ControlFlow::Break(BusError::PeerUnexpected("more than this client's owner fetched")),
        }
    }

    fn request(&self, request: Request) -> ControlFlow<BusError> {
        let deadline = deadline_of(&request);
        let Request { id, correlation, body, .. } = request;
        let refused = match body {
            Some(request::Body::Collector(asked)) if asked.verb.is_some() => {
                match self.serving.begin(id, Some(deadline)) {
                    Ok(running) => {
                        let cancel = running.cancelled().clone();
                        let responder = Responder::new(running);
                        return self.event(ClientEvent::Call(Box::new(IncomingCall {
                            request: asked,
                            correlation,
                            cancel,
                            responder,
                        })));
                    }
                    Err(fault) => fault,
                }
            }
            _ => Fault::new(FaultKind::InvalidRequest, "a verb that this build does not know"),
        };
        let response = Response { id, status: RpcStatus::Error.into(), fault: Some(refused), body: None };
        self.session.tell(Body::Response(response));
        ControlFlow::Continue(())
    }
}

fn delivered(deliver: Deliver, session: u64) -> Delivered {
    let Deliver { subscription_id, delivery_id, publisher, records, correlation } = deliver;
    Delivered { subscription: subscription_id, publisher, records, correlation, delivery_id, session }
}
