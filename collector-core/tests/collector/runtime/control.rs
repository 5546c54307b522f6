//! Every verb of the agent, and what backpressure does.

use std::sync::Arc;
use std::time::Duration;

use daemoneye_eventbus::{Authority, Broker, BrokerOptions, RpcError};
use daemoneye_lib::ledger::verify_dir;
use daemoneye_lib::proto::collector_request::Verb;
use daemoneye_lib::proto::collector_response::Answer;
use daemoneye_lib::proto::{
    AppendAudit, AuditAppend, CapabilityRequest, CollectorRequest, ConfigUpdate, DetectionTask, Empty, FaultKind,
    Register, TaskType,
};
use tokio_util::sync::CancellationToken;

use super::house::{DEADLINE, House, actions, ask, health, names};
use crate::support::{events, until};

#[tokio::test]
async fn pause_resume_stop_start_and_restart_reach_the_source() {
    let house = House::new();
    let (broker, running, stop) = house.begun().await;
    ask(&broker, Verb::Pause(Empty {})).await.unwrap();
    assert_eq!(health(&broker).await.state, "paused");
    house.source.feed(events(0..5)).await;
    assert_eq!(health(&broker).await.events, 0, "nothing is written during a pause");
    ask(&broker, Verb::Resume(Empty {})).await.unwrap();
    house.has_received(5).await;
    assert_eq!(health(&broker).await.state, "running");
    ask(&broker, Verb::Stop(Empty {})).await.unwrap();
    assert_eq!(house.source.stops(), 1);
    let now = health(&broker).await;
    assert_eq!((now.sub_status.as_str(), now.trouble.as_str()), ("source stopped", "source stopped"));
    ask(&broker, Verb::Start(Empty {})).await.unwrap();
    until("started", async || house.source.starts() == 2).await;
    ask(&broker, Verb::Restart(Empty {})).await.unwrap();
    until("started again", async || house.source.starts() == 3).await;
    assert_eq!(house.source.stops(), 2);
    stop.cancel();
    running.await.unwrap().unwrap();
    broker.shutdown().await;
}

#[tokio::test]
async fn a_partial_update_changes_only_what_it_names_and_nonsense_is_refused() {
    let house = House::new();
    let (broker, running, stop) = house.begun().await;
    let update = |interval, in_flight| {
        Verb::UpdateConfig(ConfigUpdate { snapshot_interval_ms: interval, max_events_in_flight: in_flight })
    };
    ask(&broker, update(Some(750), None)).await.unwrap();
    ask(&broker, update(None, Some(3))).await.unwrap();
    let now = health(&broker).await;
    assert_eq!((now.snapshot_interval_ms, now.original_interval_ms), (750, 750));
    let in_flight = "max_events_in_flight of 0 is outside 1 to 100000";
    for (nonsense, why) in [
        (update(Some(1), None), "snapshot_interval_ms of 1 is outside 100 to 3600000"),
        (update(Some(3_600_001), Some(9)), "snapshot_interval_ms of 3600001 is outside 100 to 3600000"),
        (update(Some(800), Some(0)), in_flight),
    ] {
        let Err(RpcError::PeerFault(fault)) = ask(&broker, nonsense).await else { panic!("taken") };
        assert_eq!((fault.kind(), fault.message.as_str()), (FaultKind::InvalidRequest, why));
    }
    let now = health(&broker).await;
    assert_eq!((now.original_interval_ms, now.max_events_in_flight), (750, 3), "refused as a whole");
    house.source.feed(events(0..100)).await;
    house.has_received(100).await;
    let configs: Vec<_> = actions(&house.data()).into_iter().filter(|(name, _)| name == "config").collect();
    assert_eq!(configs[1].1["max_events_in_flight"], 3);
    assert_eq!(configs[1].1["snapshot_interval_ms"], 750);
    stop.cancel();
    running.await.unwrap().unwrap();
    broker.shutdown().await;
}

#[tokio::test]
async fn health_capabilities_tasks_and_registration_answer_truthfully() {
    let house = House::new();
    let (broker, running, stop) = house.begun().await;
    house.source.feed(events(0..40)).await;
    house.has_received(40).await;
    until("covered", async || names(&house.data()).iter().any(|n| n == "event-range")).await;
    until("durable", async || health(&broker).await.durable.map(|s| s.number) == Some(40)).await;
    let now = health(&broker).await;
    assert_eq!((now.source.as_str(), now.source_reason.as_str()), ("fake", "a test asked for it"));
    assert_eq!((now.events, now.cycles, now.last.unwrap().number, now.lost), (40, 1, 40, 1));
    assert_eq!(
        (now.wal_max_bytes, now.buffer_bytes, now.max_events_in_flight),
        (1024 * 1024, 10 * 1024 * 1024, 8_192)
    );
    assert_eq!((now.recall_percent, now.kernel_lost, now.missed), (Some(99.5), 1, 2), "what the source tells");
    assert!(now.bus_connected && now.wal_bytes > 0 && now.wal_segments == 1 && now.ledger_entries > 2);
    assert_eq!((now.ledger_head.len(), now.trouble.as_str()), (64, ""));
    assert_eq!(now.ledger_dir, house.data().join("audit").display().to_string());

    let Answer::Capabilities(found) = ask(&broker, Verb::GetCapabilities(CapabilityRequest {})).await.unwrap() else {
        panic!("another answer")
    };
    assert_eq!(found.capabilities.unwrap().bits, 24);

    let task = |kind: TaskType| {
        Verb::ExecuteTask(DetectionTask { task_id: "t".into(), task_type: kind.into(), ..DetectionTask::default() })
    };
    let request = CollectorRequest { verb: Some(task(TaskType::MonitorPerformance)) };
    let mut pages = broker.call_stream("test", request, DEADLINE).await.unwrap();
    let mut more = Vec::new();
    while let Some(page) = pages.next().await.unwrap() {
        let Some(Answer::Task(result)) = page.answer else { panic!("another answer") };
        more.push(result.more);
    }
    assert_eq!(more, [true, false]);
    let Err(RpcError::PeerFault(fault)) = ask(&broker, task(TaskType::MonitorNetwork)).await else { panic!("taken") };
    assert_eq!(fault.kind(), FaultKind::Refused);

    house.registered(1).await;
    stop.cancel();
    running.await.unwrap().unwrap();
    broker.shutdown().await;
}

#[tokio::test]
async fn the_agents_entries_are_chained_once() {
    let house = House::new();
    let (broker, running, stop) = house.begun().await;
    let append = |ids: &[u64]| {
        let entries = ids.iter().map(|id| AuditAppend {
            outbox_id: *id,
            actor: "agent".into(),
            action: "alert".into(),
            timestamp_ms: 7,
            payload: b"{}".to_vec(),
        });
        Verb::AppendAudit(AppendAudit { entries: entries.collect() })
    };
    for ids in [&[1, 2][..], &[1, 2, 3]] {
        let Answer::Audit(appended) = ask(&broker, append(ids)).await.unwrap() else { panic!("another answer") };
        assert_eq!(Some(&appended.last_outbox_id), ids.last());
    }
    assert_eq!(names(&house.data()).iter().filter(|n| *n == "alert").count(), 3);
    stop.cancel();
    running.await.unwrap().unwrap();
    verify_dir(&house.data().join("audit"), |_| {}).unwrap();
    broker.shutdown().await;
}

#[tokio::test]
async fn graceful_and_forced_shutdown_end_it() {
    for (verb, reason) in
        [(Verb::GracefulShutdown(Empty {}), "graceful shutdown"), (Verb::ForceShutdown(Empty {}), "force shutdown")]
    {
        let house = House::new();
        let (broker, running, _stop) = house.begun().await;
        ask(&broker, verb).await.unwrap();
        assert_eq!(running.await.unwrap().unwrap().reason, reason);
        assert_eq!(names(&house.data()).last().unwrap(), "stop");
        broker.shutdown().await;
    }
}

#[tokio::test]
async fn an_agent_that_gives_no_credit_stretches_the_interval_and_one_that_does_restores_it() {
    let house = House::new();
    let broker = {
        let mut options = BrokerOptions::new(house.socket(), Arc::clone(&house.agent) as Arc<dyn Authority>);
        options.credit_records = 8;
        let (broker, streams) = Broker::start(options).await.unwrap();
        tokio::spawn(async move {
            let mut streams = streams;
            while streams.runs.recv().await.is_some() {}
        });
        broker
    };
    let stop = CancellationToken::new();
    let run = house.collector().buffer_bytes(2_000).interval(Duration::from_secs(10)).begin_timeout(Duration::ZERO);
    let running = tokio::spawn(run.run(stop.clone()));
    house.source.feed(events(0..100)).await;
    until("connected", async || broker.connected().contains(&"test".to_owned())).await;
    until("stretched", async || health(&broker).await.snapshot_interval_ms == 15_000).await;
    let under = health(&broker).await;
    assert_eq!((under.backpressure_count, under.original_interval_ms), (1, 10_000));
    assert!(under.buffer_percent >= 70.0);
    assert_eq!(under.wal_lost, 0, "nothing is shed");
    house.source.feed(events(100..200)).await;
    until("written", async || health(&broker).await.events == 200).await;
    until("restored", async || {
        broker.credit("test", 8);
        health(&broker).await.snapshot_interval_ms == 10_000
    })
    .await;
    stop.cancel();
    running.await.unwrap().unwrap();
    broker.shutdown().await;
}

#[tokio::test]
async fn asked_to_it_registers_again_and_takes_its_leave_and_goes_on_collecting() {
    let house = House::new();
    let (broker, running, stop) = house.begun().await;
    let Answer::Registered(again) = ask(&broker, Verb::Register(Register::default())).await.unwrap() else {
        panic!("another answer")
    };
    assert_eq!(again.heartbeat_interval_ms, 100);
    house.registered(2).await;
    assert!(matches!(ask(&broker, Verb::Deregister(Empty {})).await, Ok(Answer::Done(_))));
    assert_eq!(*house.agent.deregistered.lock().unwrap(), 1);
    house.source.feed(events(0..10)).await;
    house.has_received(10).await;
    stop.cancel();
    running.await.unwrap().unwrap();
    broker.shutdown().await;
}

#[tokio::test]
async fn a_request_without_a_verb_is_refused() {
    let house = House::new();
    let (broker, running, stop) = house.begun().await;
    let refused = broker.call("test", CollectorRequest { verb: None }, DEADLINE).await;
    let Err(RpcError::PeerFault(fault)) = refused else { panic!("taken") };
    assert_eq!(fault.kind(), FaultKind::InvalidRequest);
    stop.cancel();
    running.await.unwrap().unwrap();
    broker.shutdown().await;
}

#[tokio::test]
async fn a_flood_of_the_agents_entries_or_orders_has_to_wait_and_the_ledger_says_so() {
    let house = House::new();
    let (broker, running, stop) = house.begun().await;
    let append = |first: u64| {
        let entries = (first..first + 256).map(|outbox_id| AuditAppend {
            outbox_id,
            actor: "agent".into(),
            action: "alert".into(),
            timestamp_ms: 7,
            payload: b"{}".to_vec(),
        });
        Verb::AppendAudit(AppendAudit { entries: entries.collect() })
    };
    let (mut next, mut refused) = (1, None);
    while refused.is_none() && next < 65_536 {
        match ask(&broker, append(next)).await {
            Ok(Answer::Audit(taken)) => next = taken.last_outbox_id + 1,
            Err(RpcError::PeerFault(fault)) => refused = Some(fault.kind()),
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(refused, Some(FaultKind::ResourceExhausted), "{next} entries were taken");
    let waits = health(&broker).await.notes.into_iter().find(|note| note.contains("had to wait"));
    assert!(waits.is_some());
    // What is kept and sent again is taken in its turn, none twice and none left out.
    until("room", async || {
        let taken = ask(&broker, append(next)).await;
        taken.is_ok_and(|answer| matches!(answer, Answer::Audit(taken) if taken.last_outbox_id >= next))
    })
    .await;
    let calm = ask(&broker, Verb::Pause(Empty {})).await;
    assert!(calm.is_ok(), "orders do not wait for entries: {calm:?}");
    let mut refused = None;
    for _ in 0..10_000 {
        if let Err(RpcError::PeerFault(fault)) = ask(&broker, Verb::UpdateConfig(ConfigUpdate::default())).await {
            refused = Some(fault.kind());
            break;
        }
    }
    assert_eq!(refused, Some(FaultKind::ResourceExhausted));
    ask(&broker, Verb::GracefulShutdown(Empty {})).await.unwrap();
    running.await.unwrap().unwrap();
    let told: Vec<_> = actions(&house.data()).into_iter().filter(|(name, _)| name == "audit-delayed").collect();
    let sum = |what: &str| told.iter().map(|(_, payload)| payload[what].as_u64().unwrap()).sum::<u64>();
    assert!(sum("appends") > 0 && sum("orders") > 0, "{told:?}");
    verify_dir(&house.data().join("audit"), |_| {}).unwrap();
    broker.shutdown().await;
    drop(stop);
}
