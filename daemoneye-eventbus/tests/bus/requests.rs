//! Requests to collectors: answers, pages, deadlines, cancellation, bounds.

use std::time::Duration;

use daemoneye_eventbus::{Broker, ClientEvent, IncomingCall, RpcError};
use daemoneye_lib::proto::{
    CollectorRequest, CollectorResponse, DetectionResult, Empty, Fault, FaultKind, collector_request,
    collector_response,
};
use tokio::sync::mpsc;

use crate::support::{Bus, fault_kind, next, within};

const DEADLINE: Duration = Duration::from_secs(30);

fn ask(verb: collector_request::Verb) -> CollectorRequest {
    CollectorRequest { verb: Some(verb) }
}

fn pause() -> CollectorRequest {
    ask(collector_request::Verb::Pause(Empty {}))
}

fn done() -> CollectorResponse {
    CollectorResponse { answer: Some(collector_response::Answer::Done(Empty {})) }
}

fn page(number: u32, more: bool) -> CollectorResponse {
    let result = DetectionResult { task_id: number.to_string(), more, ..DetectionResult::default() };
    CollectorResponse { answer: Some(collector_response::Answer::Task(result)) }
}

async fn call(events: &mut mpsc::Receiver<ClientEvent>) -> IncomingCall {
    loop {
        if let ClientEvent::Call(call) = next(events).await {
            return *call;
        }
    }
}

fn in_background(broker: &Broker) -> tokio::task::JoinHandle<Result<CollectorResponse, RpcError>> {
    let broker = broker.clone();
    tokio::spawn(async move { broker.call("procmond", pause(), DEADLINE).await })
}

#[tokio::test]
async fn a_request_gets_its_answer_or_its_fault() {
    let bus = Bus::open().await;
    let (_client, mut events, _connected) = bus.collector("procmond").await;
    let asked = in_background(&bus.broker);
    let incoming = call(&mut events).await;
    assert_eq!(incoming.request, pause());
    incoming.responder.done(done()).await.unwrap();
    assert_eq!(within(asked).await.unwrap().unwrap(), done());

    let asked = in_background(&bus.broker);
    call(&mut events).await.responder.fail(Fault::new(FaultKind::Refused, "not now")).await;
    assert_eq!(fault_kind(&within(asked).await.unwrap().unwrap_err()), Some(FaultKind::Refused));

    let asked = in_background(&bus.broker);
    drop(call(&mut events).await);
    assert_eq!(fault_kind(&within(asked).await.unwrap().unwrap_err()), Some(FaultKind::Internal));

    let nobody = bus.broker.call("nobody", pause(), DEADLINE).await.unwrap_err();
    assert!(matches!(nobody, RpcError::Unavailable(id) if id == "nobody"));
}

#[tokio::test]
async fn many_pages_arrive_in_order_with_back_pressure() {
    let bus = Bus::open().await;
    let (_client, mut events, _connected) = bus.collector("procmond").await;
    let mut pages = bus.broker.call_stream("procmond", pause(), DEADLINE).await.unwrap();
    let answering = tokio::spawn(async move {
        let mut responder = call(&mut events).await.responder;
        for number in 0..200 {
            responder.page(page(number, true)).await.unwrap();
        }
        responder.done(page(200, false)).await.unwrap();
        events
    });
    for number in 0..=200 {
        assert_eq!(within(pages.next()).await.unwrap(), Some(page(number, number < 200)));
    }
    assert_eq!(pages.next().await.unwrap(), None);
    within(answering).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_collector_that_hangs_costs_its_deadline_and_no_more() {
    let bus = Bus::open().await;
    let (_client, mut events, _connected) = bus.collector("procmond").await;
    let began = tokio::time::Instant::now();
    let broker = bus.broker.clone();
    // Below the shortest deadline: held to one second.
    let asked = tokio::spawn(async move { broker.call("procmond", pause(), Duration::ZERO).await });
    let incoming = call(&mut events).await;
    assert!(matches!(asked.await.unwrap(), Err(RpcError::Timeout)));
    assert!(began.elapsed() >= Duration::from_secs(1) && began.elapsed() < DEADLINE);
    assert!(incoming.cancel.is_cancelled());
    assert!(matches!(incoming.responder.done(done()).await, Err(RpcError::Cancelled)), "too late");
    // The connection goes on working.
    let asked = in_background(&bus.broker);
    call(&mut events).await.responder.done(done()).await.unwrap();
    assert_eq!(asked.await.unwrap().unwrap(), done());
}

#[tokio::test]
async fn dropping_the_pages_cancels_the_request_at_the_collector() {
    let bus = Bus::open().await;
    let (_client, mut events, _connected) = bus.collector("procmond").await;
    let pages = bus.broker.call_stream("procmond", pause(), DEADLINE).await.unwrap();
    let mut incoming = call(&mut events).await;
    drop(pages);
    within(incoming.cancel.cancelled()).await;
    assert!(matches!(incoming.responder.page(page(1, true)).await, Err(RpcError::Cancelled)));
}

#[tokio::test]
async fn the_eleventh_request_at_once_is_refused() {
    let bus = Bus::open().await;
    let (_client, mut events, _connected) = bus.collector("procmond").await;
    let mut running = Vec::new();
    let mut calls = Vec::new();
    for _ in 0..10 {
        running.push(bus.broker.call_stream("procmond", pause(), DEADLINE).await.unwrap());
        calls.push(call(&mut events).await);
    }
    let refused = bus.broker.call("procmond", pause(), DEADLINE).await.unwrap_err();
    assert!(matches!(refused, RpcError::LimitRunning));
    calls.pop().unwrap().responder.done(done()).await.unwrap();
    assert_eq!(within(running.pop().unwrap().next()).await.unwrap(), Some(done()));
    let asked = in_background(&bus.broker);
    call(&mut events).await.responder.done(done()).await.unwrap();
    within(asked).await.unwrap().unwrap();
}

#[tokio::test]
async fn a_collector_that_goes_away_leaves_nobody_waiting() {
    let bus = Bus::open().await;
    let (client, mut events, _connected) = bus.collector("procmond").await;
    let asked = in_background(&bus.broker);
    let incoming = call(&mut events).await;
    client.shutdown().await;
    assert!(matches!(within(asked).await.unwrap(), Err(RpcError::Unavailable(_))));
    within(incoming.cancel.cancelled()).await;
}

#[tokio::test]
async fn a_collector_leaves_in_order() {
    let bus = Bus::open().await;
    let (client, _events, _connected) = bus.collector("procmond").await;
    let answer = within(client.call(ask(collector_request::Verb::Deregister(Empty {})), DEADLINE)).await.unwrap();
    assert_eq!(answer, done());
    assert_eq!(bus.house.left.load(std::sync::atomic::Ordering::SeqCst), 1);
}

#[tokio::test]
async fn an_answer_that_fits_into_no_frame_becomes_a_fault() {
    let bus = Bus::open().await;
    let (_client, mut events, _connected) = bus.collector("procmond").await;
    let asked = in_background(&bus.broker);
    let result = DetectionResult { error: "x".repeat(1_100_000), ..DetectionResult::default() };
    let answer = CollectorResponse { answer: Some(collector_response::Answer::Task(result)) };
    call(&mut events).await.responder.done(answer).await.unwrap();
    assert_eq!(fault_kind(&within(asked).await.unwrap().unwrap_err()), Some(FaultKind::TooLarge));
}
