//! The agent's requests: all thirteen verbs, `AppendAudit` and `RotateAuditKey`.
//!
//! What changes the state goes through the collector's mailbox, in order; everything else is answered on a task of its own, so a long
//! task delays neither health nor shutdown. How many run at a time is bounded by the connection.

use std::sync::Arc;
use std::time::Duration;

use daemoneye_eventbus::{Client, DEFAULT_DEADLINE, IncomingCall, RpcError};
use daemoneye_lib::proto::collector_request::Verb;
use daemoneye_lib::proto::collector_response::Answer;
use daemoneye_lib::proto::{
    AppendAudit, AuditKey, CapabilityResponse, CollectorRequest, CollectorResponse, ConfigUpdate, DetectionTask,
    Empty, Fault, FaultKind, Word as _,
};
use serde_json::json;
use tokio::sync::mpsc;
use tokio::sync::mpsc::error::TrySendError;

use crate::ledger::{SigningError, agents};
use crate::runtime::{Message, Shared, millis};
use crate::source::SourceError;

/// Bounds of the interval in ms: below it a scan would follow a scan without a pause, above it nothing is monitored.
const INTERVAL_MS: std::ops::RangeInclusive<u64> = 100..=3_600_000;
/// Bounds of the records on their way.
const IN_FLIGHT: std::ops::RangeInclusive<u64> = 1..=100_000;
/// Pages of a task that wait for the connection.
const PAGES: usize = 4;

/// Sorts a request: mailbox, or a task of its own.
pub(crate) async fn take(shared: &Arc<Shared>, client: &Client, mailbox: &mpsc::Sender<Message>, call: IncomingCall) {
    let verb = call.request.verb.as_ref();
    if verb.is_some_and(leaves_an_entry) && shared.orders.take([1]) == 0 {
        let text = "there are more orders than the ledger has room for in a time; ask again later";
        return reply(call, Err(Fault::new(FaultKind::ResourceExhausted, text))).await;
    }
    match verb {
        None => {
            reply(call, Err(Fault::new(FaultKind::InvalidRequest, "the request names no verb this collector knows")))
                .await
        }
        Some(
            Verb::Start(_)
            | Verb::Stop(_)
            | Verb::Restart(_)
            | Verb::Pause(_)
            | Verb::Resume(_)
            | Verb::GracefulShutdown(_)
            | Verb::ForceShutdown(_),
        ) => {
            if let Err((Message::Call(call), fault)) = post(mailbox, Message::Call(Box::new(call))) {
                reply(*call, Err(fault)).await;
            }
        }
        Some(_) => {
            let (shared, client) = (Arc::clone(shared), client.clone());
            tokio::spawn(async move { serve(&shared, &client, call).await });
        }
    }
}

/// Whether the collector writes entries of its own for an order, however often it is given. An end is one.
const fn leaves_an_entry(verb: &Verb) -> bool {
    matches!(
        verb,
        Verb::Start(_)
            | Verb::Stop(_)
            | Verb::Restart(_)
            | Verb::Pause(_)
            | Verb::Resume(_)
            | Verb::UpdateConfig(_)
            | Verb::RotateAuditKey(_)
    )
}

/// Puts a message into the mailbox, or gives it back with what to answer.
fn post(mailbox: &mpsc::Sender<Message>, message: Message) -> Result<(), (Message, Fault)> {
    mailbox.try_send(message).map_err(|refused| match refused {
        TrySendError::Full(message) => {
            let text = "the collector's mailbox is full; ask again later";
            (message, Fault::new(FaultKind::ResourceExhausted, text))
        }
        TrySendError::Closed(message) => {
            (message, Fault::new(FaultKind::Unavailable, "the collector is shutting down"))
        }
    })
}

/// Answers a call.
pub(crate) async fn reply(call: IncomingCall, answer: Result<CollectorResponse, Fault>) {
    match answer {
        Ok(answer) => {
            if let Err(error) = call.responder.done(answer).await {
                tracing::debug!(%error, "an answer was not wanted any more");
            }
        }
        Err(fault) => call.responder.fail(fault).await,
    }
}

async fn serve(shared: &Arc<Shared>, client: &Client, mut call: IncomingCall) {
    let Some(verb) = call.request.verb.take() else { return };
    let answer = match verb {
        Verb::ExecuteTask(task) => return execute(shared, task, call).await,
        Verb::HealthCheck(_) => Ok(Answer::Health(shared.health().await)),
        Verb::GetCapabilities(_) => {
            Ok(Answer::Capabilities(CapabilityResponse { capabilities: Some(shared.source.capabilities()) }))
        }
        Verb::UpdateConfig(update) => configure(shared, &update).await.map(|()| Answer::Done(Empty {})),
        Verb::AppendAudit(append) => audit(shared, append).await,
        Verb::RotateAuditKey(_) => rotate(shared).await,
        Verb::Register(_) => announce(client, Verb::Register(shared.registration())).await,
        Verb::Deregister(_) => announce(client, Verb::Deregister(Empty {})).await,
        // The others went to the mailbox.
        _ => Err(Fault::new(FaultKind::Internal, "the request went astray")),
    };
    reply(call, answer.map(|answer| CollectorResponse { answer: Some(answer) })).await;
}

/// The agent asks the collector to announce itself again, or to take its leave; collection goes on either way.
async fn announce(client: &Client, verb: Verb) -> Result<Answer, Fault> {
    let answer =
        client.call(CollectorRequest { verb: Some(verb) }, DEFAULT_DEADLINE).await.map_err(|error| match error {
            RpcError::PeerFault(fault) => fault,
            other => Fault::new(FaultKind::Unavailable, other.to_string()),
        })?;
    answer.answer.ok_or_else(|| Fault::new(FaultKind::BadMessage, "the agent's answer was empty"))
}

/// A partial update: what it does not name stays. The source reads it at its next look.
async fn configure(shared: &Shared, update: &ConfigUpdate) -> Result<(), Fault> {
    let check = |name: &str, value: Option<u64>, range: &std::ops::RangeInclusive<u64>| match value {
        Some(value) if !range.contains(&value) => {
            let text = format!("{name} of {value} is outside {} to {}", range.start(), range.end());
            Err(Fault::new(FaultKind::InvalidRequest, text))
        }
        _ => Ok(()),
    };
    check("snapshot_interval_ms", update.snapshot_interval_ms, &INTERVAL_MS)?;
    check("max_events_in_flight", update.max_events_in_flight, &IN_FLIGHT)?;
    shared.settings.send_modify(|settings| {
        if let Some(interval) = update.snapshot_interval_ms {
            settings.original_interval = Duration::from_millis(interval);
            settings.interval = settings.original_interval;
        }
        if let Some(bound) = update.max_events_in_flight {
            settings.max_events_in_flight = bound;
        }
    });
    let now = shared.settings.borrow().clone();
    let payload = json!({
        "collector": shared.id,
        "snapshot_interval_ms": millis(now.original_interval),
        "max_events_in_flight": now.max_events_in_flight,
    });
    shared.note("config", payload).await;
    Ok(())
}

/// Takes as many entries as there is room for in a time; the answer says how far that is, and the agent keeps the others.
async fn audit(shared: &Arc<Shared>, mut append: AppendAudit) -> Result<Answer, Fault> {
    let taken = shared.agent_entries.take(append.entries.iter().map(agents::cost));
    if taken == 0 && !append.entries.is_empty() {
        let text = "the ledger takes no more entries now: a time with more of them could not be proven; keep them and ask again";
        return Err(Fault::new(FaultKind::ResourceExhausted, text));
    }
    append.entries.truncate(taken);
    let ledger = Arc::clone(&shared.ledger);
    match tokio::task::spawn_blocking(move || ledger.append_audit(&append.entries)).await {
        Ok(Ok(appended)) => Ok(Answer::Audit(appended)),
        Ok(Err(error)) => {
            shared.failed(error, "append-audit");
            Err(Fault::new(FaultKind::Unavailable, "the ledger cannot be written; keep the entries and ask again"))
        }
        Err(_) => Err(Fault::new(FaultKind::Internal, "the ledger's writer ended")),
    }
}

async fn rotate(shared: &Arc<Shared>) -> Result<Answer, Fault> {
    let ledger = Arc::clone(&shared.ledger);
    let rotated = tokio::task::spawn_blocking(move || ledger.rotate_key()).await;
    match rotated.map_err(|_| Fault::new(FaultKind::Internal, "the ledger's writer ended"))? {
        Ok((key, note)) => {
            if let Some(note) = note {
                shared.publish(&note);
            }
            Ok(Answer::AuditKey(AuditKey { vkey: key.to_string() }))
        }
        Err(SigningError::Disk(error)) => {
            shared.failed(error, "rotate-audit-key");
            Err(Fault::new(FaultKind::Unavailable, "the ledger cannot be written; ask again"))
        }
        Err(error) => Err(Fault::new(FaultKind::Refused, error.to_string())),
    }
}

async fn execute(shared: &Shared, task: DetectionTask, mut call: IncomingCall) {
    let Some(tasks) = shared.tasks.clone() else {
        return reply(call, Err(Fault::new(FaultKind::Refused, "this collector takes no tasks"))).await;
    };
    if !shared.source.capabilities().tasks.contains(&task.task_type) {
        let error = SourceError::UnsupportedTask(task.task_type().word().unwrap_or("of no kind").to_owned());
        return reply(call, Err(Fault::new(error.fault_kind(), error.to_string()))).await;
    }
    let (pages, mut results) = mpsc::channel(PAGES);
    let cancel = call.cancel.clone();
    let work = tokio::spawn(async move { tasks.execute(task, pages, cancel).await });
    let mut last = None;
    while let Some(result) = results.recv().await {
        let more = result.more;
        let page = CollectorResponse { answer: Some(Answer::Task(result)) };
        if !more {
            last = Some(page);
        } else if call.responder.page(page).await.is_err() {
            call.cancel.cancel();
            break;
        }
    }
    // The task sees that nobody reads its pages any more.
    drop(results);
    let answer = match (work.await, last) {
        (Ok(Ok(())), Some(page)) => Ok(page),
        (Ok(Ok(())), None) => Err(Fault::new(FaultKind::Internal, "the task ended without a last page")),
        (Ok(Err(error)), _) => Err(Fault::new(error.fault_kind(), error.to_string())),
        (Err(_), _) => Err(Fault::new(FaultKind::Internal, "the task ended unexpectedly")),
    };
    reply(call, answer).await;
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runtime::MAILBOX;

    #[test]
    fn the_mailbox_holds_a_hundred_messages_and_refuses_the_next_with_a_reason() {
        let (mailbox, messages) = mpsc::channel(MAILBOX);
        for _ in 0..100 {
            assert!(post(&mailbox, Message::Begin).is_ok());
        }
        let refused = |mailbox| post(mailbox, Message::Begin).err().unwrap().1.kind();
        assert_eq!(refused(&mailbox), FaultKind::ResourceExhausted);
        drop(messages);
        assert_eq!(refused(&mailbox), FaultKind::Unavailable);
    }
}
