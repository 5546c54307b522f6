//! What a collector is told and asked when it registers: begin, and who is alive now.
//!
//! The list of live processes comes from the collector's tracker and not from history, so `processes` is right at once, also
//! after a restart of the agent.

use std::sync::Arc;
use std::time::Duration;

use daemoneye_lib::proto::{
    CapabilityRequest, CollectorRequest, CollectorResponse, DeliveryGuarantee, DetectionTask, Empty, Lifecycle,
    ProcessFilter, QoS, Register, Sequence, TaskType, collector_request::Verb, collector_response::Answer,
    lifecycle::Phase as LifecyclePhase,
};
use daemoneye_lib::topic::Topic;
use prost::Message as _;

use super::{Phase, Worker, host, ledgers, pushdown, rule_life};
use crate::clock::now_us;

/// How long a collector may take to list every process: 10,000 of them take it far less than a second.
const DEADLINE: Duration = Duration::from_secs(30);
/// How often, and how many times, a collector is asked whether it has looked once: five minutes, as long as the longest
/// snapshot interval that a rule can live with.
const FIRST_CYCLE_POLL: Duration = Duration::from_millis(500);
const FIRST_CYCLE_POLLS: u32 = 600;
/// How long the steady state waits for what a collector had captured before, and how often it looks: it is a start of a
/// second at most.
const CATCH_UP: Duration = Duration::from_millis(500);
const CATCH_UP_POLL: Duration = Duration::from_millis(5);
/// Pages of the list that are taken; far more than a host can have processes.
const MAX_PAGES: usize = 10_000;

/// Greets a collector that has registered.
pub(crate) async fn greet(worker: Arc<Worker>, register: Register) {
    let id = register.collector_id.clone();
    tracing::info!(collector = %id, pid = register.pid, version = %register.version, "registered");
    // A round trip first: what the collector subscribes to right after registering is in place when it answers.
    look_at(&worker, &id).await;
    pushdown::greet(&worker, &register).await;
    let _cycles = ask(&worker, &id).await;
    // Now and not with the next round: an agent that runs for less than that would never know how far the ledger had come.
    ledgers::watch(&worker).await;
    begin_monitoring(&worker);
    let repeated = async {
        while !worker.roster.is_caught_up(&id) {
            tokio::time::sleep(CATCH_UP_POLL).await;
        }
    };
    // A long log is repeated in the background; answers over its time say so.
    let _late = tokio::time::timeout(CATCH_UP, repeated).await;
    worker.phase.send_if_modified(|phase| {
        let first = *phase == Phase::Ready;
        if first {
            *phase = Phase::SteadyState;
        }
        first
    });
    enumerate(&worker, &id).await;
    let notes = register.capabilities.map(|capabilities| capabilities.notes).unwrap_or_default();
    let info = host::describe(notes);
    if let Some(Err(error)) = worker.blocking(move |worker| worker.store.put_system_info(&info)).await {
        tracing::warn!(%error, "what is known about the host was not kept");
    }
    if first_cycle(&worker, &id).await {
        enumerate(&worker, &id).await;
    }
}

/// Asks a collector what it can do now: with another source it fills other columns, and rules that read them see more or less.
pub(crate) async fn look_at(worker: &Arc<Worker>, id: &str) {
    let request = CollectorRequest { verb: Some(Verb::GetCapabilities(CapabilityRequest {})) };
    match worker.broker.call(id, request, DEADLINE).await {
        Ok(CollectorResponse { answer: Some(Answer::Capabilities(told)) }) => {
            worker.roster.can(id, told.capabilities.unwrap_or_default());
            worker.blocking(rule_life::look_again).await;
        }
        Ok(_) => {}
        Err(error) => tracing::warn!(collector = %id, %error, "did not tell its capabilities"),
    }
}

/// Gives every collector leave to begin.
pub(crate) fn begin_monitoring(worker: &Worker) {
    let leave = Lifecycle { phase: LifecyclePhase::BeginMonitoring.into(), time_us: now_us() };
    let qos = QoS { guarantee: DeliveryGuarantee::AtLeastOnce.into(), ..QoS::default() };
    worker.broker.publish(&Topic::Lifecycle, leave.encode_to_vec().into(), qos);
}

/// Waits until a collector has looked once. A freshly started one lists at registration only what its checkpoint knew, which
/// cannot tell what ended while nobody looked.
async fn first_cycle(worker: &Worker, id: &str) -> bool {
    for _ in 0..FIRST_CYCLE_POLLS {
        match ask(worker, id).await {
            Some(0) => tokio::time::sleep(FIRST_CYCLE_POLL).await,
            Some(_) => return true,
            None => return false,
        }
    }
    false
}

/// Asks a collector how it does; how often it has looked, `None` when it does not answer.
async fn ask(worker: &Worker, id: &str) -> Option<u64> {
    let request = CollectorRequest { verb: Some(Verb::HealthCheck(Empty {})) };
    match worker.broker.call(id, request, DEADLINE).await {
        Ok(CollectorResponse { answer: Some(Answer::Health(health)) }) => {
            let cycles = health.cycles;
            worker.roster.told(id, health);
            Some(cycles)
        }
        Ok(_) => Some(0),
        Err(_) => None,
    }
}

async fn enumerate(worker: &Arc<Worker>, id: &str) {
    let task = DetectionTask {
        task_id: "live".to_owned(),
        task_type: TaskType::EnumerateProcesses.into(),
        process_filter: Some(ProcessFilter::default()),
        ..DetectionTask::default()
    };
    let request = CollectorRequest { verb: Some(Verb::ExecuteTask(task)) };
    let mut pages = match worker.broker.call_stream(id, request, DEADLINE).await {
        Ok(pages) => pages,
        Err(error) => return tracing::warn!(collector = id, %error, "did not list its processes"),
    };
    let mut records = Vec::new();
    let mut as_of: Option<Sequence> = None;
    for _ in 0..MAX_PAGES {
        match pages.next().await {
            Ok(Some(page)) => {
                let Some(Answer::Task(mut result)) = page.answer else { continue };
                if !result.success {
                    return tracing::warn!(collector = id, error = result.error, "did not list its processes");
                }
                records.append(&mut result.processes);
                as_of = result.as_of.or(as_of);
            }
            Ok(None) => break,
            Err(error) => return tracing::warn!(collector = id, %error, "did not list all of its processes"),
        }
    }
    let Some(as_of) = as_of else { return };
    let collector = id.to_owned();
    if let Some(Err(error)) = worker.blocking(move |worker| worker.store.reset_live(&collector, records, as_of)).await
    {
        tracing::warn!(%error, "the live processes were not kept");
    }
}
