//! The health report: one JSON document, so that every format of the console shows the same.
//!
//! It says what is, and it says what is wrong in findings that name a remedy; `healthy` is nothing but "no findings". A
//! limit that holds by construction (this build sees processes at snapshots only) is a note, not a finding.

mod rules;

use std::sync::PoisonError;
use std::sync::atomic::Ordering;
use std::time::Duration;

use daemoneye_engine::store::{Store, StoreError};
use daemoneye_lib::jail::{self, State};
use daemoneye_lib::proto::{
    CollectorRequest, CollectorResponse, CoverageGap, Empty, HealthShown, collector_request::Verb,
    collector_response::Answer,
};
use serde_json::{Map, Value, json};

use super::{Operators, losses};
use crate::clock::now_us;
use crate::worker::{Collector, LEDGER_REMEDY, Phase, Pushdown, Worker, host};

/// Coverage gaps that the report lists; all of them stand in the table `coverage`.
const GAPS: usize = 20;
/// How long a collector may take to tell its health.
const COLLECTOR_DEADLINE: Duration = Duration::from_secs(1);
/// No finding: it holds by construction, and the way out is another installation.
const SPAWNING: &str = "it starts procmond, which could not take what its parent has given up: so it keeps its privileges and has no list \
                        of system calls; with the two services installed (procmond.mode = external) it has both";
/// A second in microseconds.
const SECOND_US: i64 = 1_000_000;
/// A day in microseconds.
const DAY_US: i64 = 86_400_000_000;

/// What is wrong, and what to do about it.
#[derive(Default)]
struct Findings(Vec<Value>);

impl Findings {
    fn add(&mut self, problem: impl Into<String>, remedy: impl Into<String>) {
        self.0.push(json!({ "problem": problem.into(), "remedy": remedy.into() }));
    }
}

impl Operators {
    /// The document and whether it has no findings.
    pub(super) async fn health(&self) -> HealthShown {
        let mut findings = Findings::default();
        let mut document = self.common(&mut findings).await;
        match &self.worker {
            Some(worker) => {
                ask_collectors(worker).await;
                live(worker, &mut document, &mut findings);
            }
            None => {
                document.insert("state".into(), json!("offline"));
            }
        }
        let healthy = findings.0.is_empty();
        document.insert("healthy".into(), json!(healthy));
        document.insert("findings".into(), Value::Array(findings.0));
        HealthShown { json: Value::Object(document).to_string(), healthy }
    }

    /// What a copied store has too.
    async fn common(&self, findings: &mut Findings) -> Map<String, Value> {
        let (data_dir, runtime_dir) = self.dirs();
        let mut document = Map::new();
        document.insert("version".into(), json!(daemoneye_lib::BUILD));
        document.insert("data_dir".into(), json!(data_dir));
        document.insert("runtime_dir".into(), json!(runtime_dir));
        match self.blocking(store_part).await {
            Ok((parts, lost)) => {
                document.extend(parts);
                lost.into_iter().for_each(|(problem, remedy)| findings.add(problem, remedy));
            }
            Err(fault) => {
                findings.add(format!("the store does not answer: {}", fault.message), "look at the agent's log")
            }
        }
        document
    }
}

/// What the report says without asking a collector: its numbers as they are now, a collector's as its last heartbeat told.
/// Blocking.
pub(crate) fn known(store: &Store, worker: Option<&Worker>) -> Option<Value> {
    let parts = store_part(store).inspect_err(|error| tracing::warn!(%error, "the store does not tell its numbers"));
    let mut document = parts.map(|(parts, _)| parts).unwrap_or_default();
    if let Some(worker) = worker {
        live(worker, &mut document, &mut Findings::default());
    }
    Some(Value::Object(document))
}

/// Fresh numbers: those of the last heartbeat may be half a minute old. One that does not answer keeps its old ones, and its
/// missing heartbeats tell.
async fn ask_collectors(worker: &Worker) {
    for collector in worker.broker.connected() {
        let request = CollectorRequest { verb: Some(Verb::HealthCheck(Empty {})) };
        match worker.broker.call(&collector, request, COLLECTOR_DEADLINE).await {
            Ok(CollectorResponse { answer: Some(Answer::Health(health)) }) => worker.roster.told(&collector, health),
            Ok(_) => tracing::warn!(collector, "answered a health check with something else"),
            Err(error) => tracing::debug!(collector, %error, "did not answer a health check"),
        }
    }
}

/// Statistics, outbox and gaps. Blocking.
fn store_part(store: &Store) -> Result<(Map<String, Value>, losses::Losses), StoreError> {
    let stats = store.stats()?;
    let since = now_us().saturating_sub(DAY_US);
    let gaps: Vec<CoverageGap> =
        store.coverage()?.into_iter().map(|row| row.gap).filter(|gap| gap.to_us >= since).collect();
    let mut lost = losses::of(&gaps, stats.audit_lost);
    let compaction = store.compaction_state()?;
    lost.extend(losses::of_store(store));
    lost.extend(losses::of_ledgers(&store.ledger_falls()?));
    lost.extend(losses::of_merges(&compaction));
    let recent: Vec<Value> = gaps
        .into_iter()
        .map(|gap| {
            json!({ "collector": gap.collector, "reason": gap.reason, "from_us": gap.from_us, "to_us": gap.to_us,
                "count": gap.count, "detail": gap.detail })
        })
        .collect();
    let listed: Vec<&Value> = recent.iter().rev().take(GAPS).collect();
    let mut parts = Map::new();
    parts.insert("coverage".into(), json!({ "gaps_last_day": recent.len(), "latest": listed }));
    let store = json!({
        "segments": stats.segments,
        "segment_rows": stats.segment_rows,
        "segment_bytes": stats.segment_bytes,
        "lifetime_segments": stats.lifetime_segments,
        "lifetime_rows": stats.lifetime_rows,
        "lifetime_bytes": stats.lifetime_bytes,
        "merges_set_back": compaction.set_back,
        "damaged_segments": stats.damaged_segments,
        "open_rows": stats.open_rows,
        "open_bytes": stats.open_bytes,
        "live_processes": stats.live_processes,
        "live_shed": stats.live_shed,
        "alerts": stats.alerts,
        "audit_pending": stats.audit_pending,
        "audit_lost": stats.audit_lost,
        "state_bytes": stats.state_bytes,
    });
    parts.insert("store".into(), store);
    Ok((parts, lost))
}

fn live(worker: &Worker, document: &mut Map<String, Value>, findings: &mut Findings) {
    let phase = *worker.phase.borrow();
    document.insert("state".into(), json!(phase.as_str()));
    document
        .insert("uptime_ms".into(), json!(u64::try_from(worker.started.elapsed().as_millis()).unwrap_or(u64::MAX)));
    document.insert("host".into(), json!(host::name()));
    document.insert("components".into(), components(worker, findings));
    document.insert("sandbox".into(), sandbox(worker, findings));
    document.insert("rules".into(), rules::of(worker, findings));
    document.insert("sinks".into(), sinks(worker, findings));
    document.insert("ingest".into(), ingest(worker, findings));
    document.insert("bus".into(), bus(worker));
    let collectors = worker.roster.all();
    if collectors.is_empty() && phase != Phase::ShuttingDown {
        findings.add(
            "no collector has registered",
            if worker.settings.procmond.spawn {
                "look at procmond's messages; is procmond.path right?"
            } else {
                "start procmond's service; it must use this agent's bus.sock and the token of procmond.token_file"
            },
        );
    }
    let mut shown = Vec::new();
    for (id, collector) in &collectors {
        judge(id, collector, findings);
        shown.push(collector_row(worker, id, collector));
    }
    let first = collectors.values().next();
    document.insert("source".into(), first.map_or(Value::Null, source));
    document.insert("ledger".into(), first.map_or(Value::Null, ledger));
    document.insert("collectors".into(), Value::Array(shown));
}

fn components(worker: &Worker, findings: &mut Findings) -> Value {
    let (parent, children) = worker.children.lock().unwrap_or_else(PoisonError::into_inner).clone();
    let own = std::process::id();
    let mut rows =
        vec![json!({ "name": "agent", "state": "running", "pid": parent, "rss_bytes": host::rss_bytes(parent),
        "restarts": 0, "last_exit": null, "last_exit_ms": null })];
    for child in children {
        // The worker knows its own pid best; a collector's may be known from its registration only.
        let pid =
            if child.name == "worker" { Some(own) } else { child.pid.or_else(|| registered_pid(worker, &child.name)) };
        if child.state == "waiting_to_restart" {
            let exit = child.last_exit.clone().unwrap_or_default();
            findings
                .add(format!("{} is not running ({exit})", child.name), "it is being restarted; look at its messages");
        }
        rows.push(json!({ "name": child.name, "state": child.state, "pid": pid,
            "rss_bytes": pid.and_then(host::rss_bytes), "restarts": child.restarts,
            "last_exit": child.last_exit, "last_exit_ms": child.last_exit_ms }));
    }
    Value::Array(rows)
}

fn registered_pid(worker: &Worker, id: &str) -> Option<u32> {
    worker.roster.all().get(id).filter(|collector| collector.connected).map(|collector| collector.register.pid)
}

fn judge(id: &str, collector: &Collector, findings: &mut Findings) {
    match collector.standing() {
        "healthy" => {}
        "away" => {
            let reason = collector.away.as_ref().map(|(_, reason)| reason.as_str()).unwrap_or_default();
            findings.add(format!("{id} is away: {reason}"), "events since then follow when it is back");
        }
        _ if collector.missed == 0 => {}
        standing => findings.add(
            format!("{id} is {standing}: {} heartbeats are missing", collector.missed),
            "look at its messages; it is restarted after three",
        ),
    }
    if let Some(stuck) = collector.stuck {
        findings.add(
            format!("{id} is degraded: it records, and for {} s nothing of it was committed", stuck.as_secs()),
            "its log keeps the events; look at the agent's messages and at the room on its disk",
        );
    }
    if let Some((_, late_us)) = collector.late {
        findings.add(
            format!("events of {id} are stored and judged {} s after they were captured", late_us / SECOND_US),
            "the host is busier than the agent may be, or rules are slow: SELECT name, time_us FROM rule_stats ORDER BY time_us DESC; \
             answers about the last moments say that they lack something until it has caught up",
        );
    }
    if let Some(Pushdown::Refused(why)) = &collector.pushdown {
        findings.add(
            format!("{id} failed its conformance vectors: {why}"),
            "it is not told what the rules need and does all that its settings say; use a collector of this agent's version",
        );
    }
    if let Some(trouble) = collector.trouble() {
        findings.add(
            format!("{id} does not collect as it should: {trouble}"),
            "see the notes of its source and its messages; a source that failed is tried again by itself",
        );
    }
    let Some(health) = &collector.health else { return };
    if health.lost > 0 {
        findings.add(format!("{id} has lost {} events", health.lost), "see the table coverage for when and why");
    }
    if !health.ledger_trouble.is_empty() {
        findings.add(format!("the ledger of {id} is damaged or not signed: {}", health.ledger_trouble), LEDGER_REMEDY);
    }
    for note in health.notes.iter().filter(|note| note.starts_with(jail::WRONG)) {
        findings.add(format!("{id}: {note}"), "stop it, and look at what has changed on this host since it was right");
    }
}

/// What a collector that goes by the rules leaves empty, and where it fills the rest, or why it is not told of them.
fn pushdown(collector: &Collector) -> Value {
    match &collector.pushdown {
        None => Value::Null,
        Some(Pushdown::Selected(selected)) => {
            let only_where: Vec<String> = selected.only_where.iter().map(ToString::to_string).collect();
            json!({ "left_empty": selected.left_empty, "only_where": only_where })
        }
        Some(Pushdown::Refused(why)) => json!({ "refused": why }),
    }
}

fn collector_row(worker: &Worker, id: &str, collector: &Collector) -> Value {
    let health = collector.health.clone().unwrap_or_default();
    let committed = worker.store.committed(id);
    // Numbers of different epochs cannot be subtracted.
    let lag = health.last.zip(committed).filter(|(last, done)| last.epoch == done.epoch);
    let lag = lag.map(|(last, done)| last.number.saturating_sub(done.number));
    let words = |position: Option<daemoneye_lib::proto::Sequence>| position.map(|at| at.to_string());
    json!({
        "id": id,
        "state": collector.state(),
        "standing": collector.standing(),
        "sub_status": health.sub_status,
        "connected": collector.connected,
        "pid": collector.register.pid,
        "version": collector.register.version,
        "pushdown": pushdown(collector),
        "registered_us": collector.registered_us,
        "last_heartbeat_us": collector.last_heartbeat_us,
        "missed_heartbeats": collector.missed,
        "snapshot_interval_ms": health.snapshot_interval_ms,
        "original_interval_ms": health.original_interval_ms,
        "max_events_in_flight": health.max_events_in_flight,
        "cycles": health.cycles,
        "events": health.events,
        "errors": health.errors,
        "lost": health.lost,
        "kernel_lost": health.kernel_lost,
        "wal_lost": health.wal_lost,
        "missed": health.missed,
        "recall_percent": health.recall_percent,
        "processes": health.processes,
        "last": words(health.last),
        "durable": words(health.durable),
        "committed": words(committed),
        "unsealed_events": lag,
        "late_ms": collector.late.map_or(0, |(_, late_us)| late_us / 1_000),
        "wal_bytes": health.wal_bytes,
        "wal_max_bytes": health.wal_max_bytes,
        "wal_segments": health.wal_segments,
        "buffer_bytes": health.buffer_bytes,
        "buffer_percent": health.buffer_percent,
        "backpressure_count": health.backpressure_count,
        "rss_bytes": health.rss_bytes,
    })
}

fn source(collector: &Collector) -> Value {
    let (name, reason, notes) = collector.source();
    json!({ "name": name, "reason": reason, "notes": notes })
}

fn ledger(collector: &Collector) -> Value {
    let health = collector.health.clone().unwrap_or_default();
    json!({ "dir": health.ledger_dir, "entries": health.ledger_entries, "head": health.ledger_head })
}

/// What the kernel holds the agent's programs to; a layer that is missing is a finding where something would grant it.
fn sandbox(worker: &Worker, findings: &mut Findings) -> Value {
    let Some(jail) = worker.jail.get() else { return Value::Null };
    for entry in jail.layers.iter().filter(|entry| entry.state == State::Missing && !entry.remedy.is_empty()) {
        findings.add(format!("the agent's jail lacks {}: {}", entry.layer, entry.detail), entry.remedy.clone());
    }
    for probe in jail.probes.iter().filter(|probe| !probe.holds()) {
        findings
            .add(format!("the agent's jail let through: {} ({})", probe.call, probe.answer), "see docs/threats.md");
    }
    let parent = worker.parent_jail.lock().unwrap_or_else(PoisonError::into_inner).clone();
    let note = worker.settings.procmond.spawn.then_some(SPAWNING);
    json!({ "worker": jail, "parent": parent, "parent_note": note })
}

fn sinks(worker: &Worker, findings: &mut Findings) -> Value {
    let outbox = worker.store.outbox_stats().unwrap_or_default();
    let mut rows = Vec::new();
    for sink in &worker.sinks {
        let about = sink.about();
        let waiting = outbox.iter().find(|stats| stats.sink == sink.name);
        let (pending, dead) = waiting.map_or((0, 0), |stats| (stats.pending, stats.dead));
        if let Some(error) = &about.last_error {
            findings
                .add(format!("sink {} fails: {error}", sink.name), "its alerts wait in the outbox and are retried");
        }
        if dead > 0 {
            findings.add(format!("sink {} has {dead} dead letters", sink.name), "see the table alert_deliveries");
        }
        rows.push(json!({ "name": sink.name, "state": if about.open { "paused" } else { "open" }, "pending": pending,
            "dead": dead, "delivered": about.delivered, "failed": about.failed, "last_error": about.last_error }));
    }
    Value::Array(rows)
}

fn ingest(worker: &Worker, findings: &mut Findings) -> Value {
    let counters = &worker.counters;
    let paused = worker.store.paused();
    if let Some((_, why)) = &paused {
        findings.add(
            format!("no events are taken: {why}"),
            "make room on the disk of the data directory, or look at the disk; the collectors keep their events in their \
             logs, and it goes on by itself",
        );
    }
    json!({
        "paused_since_us": paused.map(|(since_us, _)| since_us),
        "pauses": counters.pauses.load(Ordering::Relaxed),
        "runs": counters.runs.load(Ordering::Relaxed),
        "rows": counters.rows.load(Ordering::Relaxed),
        "replayed": counters.replayed.load(Ordering::Relaxed),
        "refused": counters.refused.load(Ordering::Relaxed),
        "alerts": counters.alerts.load(Ordering::Relaxed),
        "seals": counters.seals.load(Ordering::Relaxed),
    })
}

fn bus(worker: &Worker) -> Value {
    let stats = worker.broker.stats();
    json!({
        "connections": stats.connections,
        "subscriptions": stats.subscriptions,
        "admitted": stats.admitted,
        "refused": stats.refused,
        "records": stats.records,
        "messages": stats.messages,
        "delivered": stats.delivered,
        "shed": stats.shed,
        "duplicates": stats.duplicates,
        "requests": stats.requests,
        "notices_lost": stats.notices_lost,
    })
}

#[cfg(test)]
mod tests {
    use daemoneye_lib::jail::{Probe, Report};
    use daemoneye_lib::proto::{CollectionCapabilities, CollectorHealth, Register, Sequence};
    use std::time::Instant;

    use super::*;
    use crate::worker::Roster;

    #[test]
    fn a_collector_whose_events_are_not_committed_is_a_finding_with_that_reason() {
        let roster = Roster::after(0);
        roster.registered(Register { collector_id: "procmond".to_owned(), ..Register::default() });
        let last = Some(Sequence::new(1, 7));
        roster.told("procmond", CollectorHealth { last, ..CollectorHealth::default() });
        let start = Instant::now();
        let judged = |seconds| {
            roster.notice_commits(|_| None, Duration::from_secs(60), start + Duration::from_secs(seconds));
            let mut findings = Findings::default();
            judge("procmond", &roster.all()["procmond"], &mut findings);
            findings.0.iter().map(|finding| finding["problem"].to_string()).collect::<Vec<_>>()
        };
        assert_eq!((judged(0), judged(120)), (Vec::new(), Vec::new()));
        let told = "\"procmond is degraded: it records, and for 300 s nothing of it was committed\"";
        assert_eq!(judged(300), [told]);
    }

    #[test]
    fn what_a_collector_tells_of_its_source_now_counts_and_its_trouble_is_a_finding() {
        let roster = Roster::after(0);
        let then = CollectionCapabilities {
            source: "ebpf".to_owned(),
            source_reason: "best that works here".to_owned(),
            notes: vec!["ebpf: short".to_owned()],
            ..CollectionCapabilities::default()
        };
        let id = "procmond".to_owned();
        roster.registered(Register { collector_id: id, capabilities: Some(then), ..Register::default() });
        assert_eq!(source(&roster.all()["procmond"])["name"], "ebpf");
        let now = CollectorHealth {
            source: "procfs".to_owned(),
            source_reason: "its better has failed".to_owned(),
            trouble: "source failed: no such device".to_owned(),
            sub_status: "source failed: no such device".to_owned(),
            ..CollectorHealth::default()
        };
        roster.told("procmond", now);
        let collector = &roster.all()["procmond"];
        let shown = json!({ "name": "procfs", "reason": "its better has failed", "notes": [] });
        assert_eq!((source(collector), collector.standing()), (shown, "degraded"));
        let mut findings = Findings::default();
        judge("procmond", collector, &mut findings);
        let problem = findings.0[0]["problem"].to_string();
        assert!(findings.0.len() == 1 && problem.contains("no such device"), "{problem}");
    }

    #[test]
    fn a_call_that_a_collectors_jail_lets_through_is_a_finding() {
        let exec = |allowed| Probe { call: "execve".to_owned(), wanted: false, allowed, answer: "done".to_owned() };
        let judged = |probe: Probe| {
            let roster = Roster::after(0);
            roster.registered(Register { collector_id: "procmond".to_owned(), ..Register::default() });
            let notes = Report { layers: Vec::new(), probes: vec![probe] }.notes();
            roster.told("procmond", CollectorHealth { notes, ..CollectorHealth::default() });
            let mut findings = Findings::default();
            judge("procmond", &roster.all()["procmond"], &mut findings);
            findings.0
        };
        assert_eq!(judged(exec(false)), Vec::<Value>::new());
        let problem = judged(exec(true))[0]["problem"].to_string();
        assert!(problem.contains("it lets through execve"), "{problem}");
    }
}
