//! One operator's connection, on the agent's side.

use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Duration;

use daemoneye_lib::proto::{
    Cancel, Empty, Fault, FaultKind, Hello, OperatorRequest, OperatorResponse, Pong, Request, Response, Role,
    RpcStatus, envelope::Body, operator_request, operator_response, request, response,
};
use tokio::sync::{OwnedSemaphorePermit, mpsc};
use tokio_util::sync::CancellationToken;
use tracing::warn;

use super::{Caller, OperatorService, is_endless};
use crate::Peer;
use crate::door::{Door, Guest, TurnedAway, welcome};
use crate::link::{FrameReader, Outbox};
use crate::rights::{may, operator_verb};
use crate::rpc::{Running, Serving, deadline_of};
use crate::transport::Stream;

/// Pages between a service and the connection's writer: one being made while one is being written.
const PAGES_AHEAD: usize = 2;
/// What a cancelled service gets to put itself in order before its future is dropped.
const CANCEL_GRACE: Duration = Duration::from_secs(1);

pub(super) async fn serve(
    service: Arc<dyn OperatorService>,
    door: Arc<Door>,
    stream: Stream,
    peer: Peer,
    place: OwnedSemaphorePermit,
) {
    let admit = |hello: &Hello| match service.admit(&peer, hello)? {
        role @ (Role::Operator | Role::Viewer) => Ok(role),
        _ => Err(Fault::new(FaultKind::Forbidden, "this socket is for operators")),
    };
    match door.greet(stream, peer, place, admit).await {
        Ok(guest) => run(service, &door, guest).await,
        Err(TurnedAway { peer, fault: Some(fault) }) => log_refusal(&door, &peer, &fault),
        Err(TurnedAway { fault: None, .. }) => {}
    }
}

fn log_refusal(door: &Door, peer: &Peer, fault: &Fault) {
    if let Some(held_back) = door.quiet.allow() {
        let kind = fault.kind().as_str_name();
        warn!(uid = peer.uid, pid = peer.pid, kind, fault.message, held_back, "operator refused");
    }
}

async fn run(service: Arc<dyn OperatorService>, door: &Door, guest: Guest) {
    let Guest { peer, hello, role, mut link, ended, slot } = guest;
    // A peer that is gone already is noticed by the first read.
    drop(link.outbox.send(Body::Welcome(welcome(role))));
    let outbox = Arc::clone(&link.outbox);
    let serving = Serving::new(Arc::clone(&outbox), ended.clone());
    let session = Session { service, caller: Caller { peer, role, id: hello.id }, outbox, serving };
    let fault = session.until_the_end(&mut link.reader, &ended).await;
    if let Some(fault) = &fault {
        log_refusal(door, &peer, fault);
    }
    ended.cancel();
    link.close(fault).await;
    drop(slot);
}

struct Session {
    service: Arc<dyn OperatorService>,
    caller: Caller,
    outbox: Arc<Outbox>,
    serving: Arc<Serving>,
}

impl Session {
    async fn until_the_end(&self, reader: &mut FrameReader, ended: &CancellationToken) -> Option<Fault> {
        loop {
            let next = tokio::select! {
                biased;
                () = ended.cancelled() => return None,
                next = reader.next() => next,
            };
            match next {
                Ok(body) => {
                    if let ControlFlow::Break(fault) = self.handle(body) {
                        return fault;
                    }
                }
                Err(error) => return error.fault(),
            }
        }
    }

    fn handle(&self, body: Body) -> ControlFlow<Option<Fault>> {
        match body {
            Body::Request(request) => self.request(request),
            Body::Cancel(cancel) => {
                self.serving.cancel(cancel.request_id);
            }
            Body::Ping(ping) => drop(self.outbox.send(Body::Pong(Pong { nonce: ping.nonce }))),
            Body::Pong(_) => {}
            Body::Fault(_) => return ControlFlow::Break(None),
            _ => {
                let fault = Fault::new(FaultKind::InvalidRequest, "operators send requests and nothing else");
                return ControlFlow::Break(Some(fault));
            }
        }
        ControlFlow::Continue(())
    }

    fn request(&self, request: Request) {
        let deadline = deadline_of(&request);
        let id = request.id;
        let Some(request::Body::Operator(asked)) = request.body else {
            return self.refuse(id, Fault::new(FaultKind::InvalidRequest, "not a request of an operator"));
        };
        let Some(verb) = &asked.verb else {
            return self.refuse(id, Fault::new(FaultKind::InvalidRequest, "a verb that this build does not know"));
        };
        if !may(self.caller.role, operator_verb(verb)) {
            let text = format!("{} may not do this: ask an operator", self.caller.role.as_str_name());
            return self.refuse(id, Fault::new(FaultKind::Forbidden, text));
        }
        if let operator_request::Verb::Cancel(cancel) = verb {
            return self.cancel(id, cancel);
        }
        let deadline = if is_endless(&asked) { None } else { Some(deadline) };
        match self.serving.begin(id, deadline) {
            Ok(running) => {
                let (service, caller) = (Arc::clone(&self.service), self.caller.clone());
                drop(tokio::spawn(work(service, caller, asked, running)));
            }
            Err(fault) => self.refuse(id, fault),
        }
    }

    fn cancel(&self, id: u64, cancel: &Cancel) {
        if !self.serving.cancel(cancel.request_id) {
            let text = format!("request {} is not running", cancel.request_id);
            return self.refuse(id, Fault::new(FaultKind::NotFound, text));
        }
        let done = OperatorResponse { answer: Some(operator_response::Answer::Done(Empty {})) };
        self.respond(id, RpcStatus::Success, None, Some(response::Body::Operator(done)));
    }

    fn refuse(&self, id: u64, fault: Fault) {
        self.respond(id, RpcStatus::Error, Some(fault), None);
    }

    fn respond(&self, id: u64, status: RpcStatus, fault: Option<Fault>, body: Option<response::Body>) {
        // An operator that has hung up is not answered.
        drop(self.outbox.send(Body::Response(Response { id, status: status.into(), fault, body })));
    }
}

/// Runs one request to its end, page by page. The service goes on while a page waits for the connection: it has bounds of its
/// own for a caller who does not read.
async fn work(service: Arc<dyn OperatorService>, caller: Caller, request: OperatorRequest, running: Running) {
    let (answers, pages) = mpsc::channel(PAGES_AHEAD);
    let cancel = running.cancelled().clone();
    let mut handling = service.handle(caller, request, answers, cancel.clone());
    let gone = async {
        cancel.cancelled().await;
        tokio::time::sleep(CANCEL_GRACE).await;
    };
    tokio::pin!(gone);
    let result = {
        let forwarding = forward(&running, pages);
        tokio::pin!(forwarding);
        let (mut result, mut open) = (None, true);
        // The service may drop its sender before it is done, or leave it with a task that is still at work.
        while open || result.is_none() {
            tokio::select! {
                biased;
                () = &mut gone => return,
                () = &mut forwarding, if open => open = false,
                ended = &mut handling, if result.is_none() => result = Some(ended),
            }
        }
        result
    };
    match result {
        Some(Err(fault)) => running.fail(fault),
        // Fails only when the request was cancelled meanwhile, which its caller knows.
        _ => drop(running.succeed(None)),
    }
}

/// Sends pages as they come; when it ends early the service sees its channel closed.
async fn forward(running: &Running, mut pages: mpsc::Receiver<OperatorResponse>) {
    while let Some(page) = pages.recv().await {
        if let Err(error) = running.page(response::Body::Operator(page)).await {
            // Nobody wants further pages, or one does not fit.
            running.fail(Fault::new(FaultKind::TooLarge, error.to_string()));
            return;
        }
    }
}
