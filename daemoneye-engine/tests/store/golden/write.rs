//! What every golden data directory holds, written with the store's own calls: `v<N>/` is what the last build of format N
//! made of this. It uses nothing that has changed since, so that an older build can still be asked to write its directory. What
//! came later without a new format stands in `write_later`: `v<N>b/` has some of it, `v<N>c/` all.

use std::path::Path;
use std::sync::Arc;

use daemoneye_engine::detect::rules::ListItem;
use daemoneye_engine::ingest::{EventBatch, decode};
use daemoneye_engine::store::{Answer, KeptList, LedgerMark, RuleMatch, RuleText, Store, StoreOptions};
use daemoneye_lib::entity::EntityId;
use daemoneye_lib::model::{
    AlertStatus, Completeness, DetectionRule, RuleKind, RuleState, ScanMetadata, Severity, SystemInfo,
};
use daemoneye_lib::proto::{CoverageGap, EventType, ProcessEvent, ProcessRecord, Record, Sequence, StartKind};
use prost::Message as _;
use uuid::Uuid;

/// 2026-01-31T12:00:00Z.
pub(crate) const NOON_US: i64 = 1_769_860_800_000_000;
const SECOND_US: i64 = 1_000_000;
/// How far the collector's ledger is.
pub(crate) const LEDGER: LedgerMark = LedgerMark { entries: 42, hash: [7; 32] };

fn record(number: u64, event_type: EventType, pid: u32) -> Record {
    let entity_id = EntityId::derive("boot", pid, 1).as_bytes().to_vec();
    let time_us = NOON_US + i64::try_from(number).unwrap() * SECOND_US;
    let process = ProcessRecord {
        entity_id,
        pid,
        name: format!("p{pid}"),
        command_line: Some(format!("p{pid} --flag")),
        executable_path: Some(format!("/usr/bin/p{pid}")),
        ..ProcessRecord::default()
    };
    let event = ProcessEvent {
        event_type: event_type.into(),
        time_us,
        start_kind: StartKind::Exec.into(),
        process: Some(process),
        source: "golden".into(),
        ..ProcessEvent::default()
    };
    let topic = "events.process.start".to_owned();
    Record { sequence: Some(Sequence::new(1, number)), topic, time_us, payload: event.encode_to_vec().into() }
}

fn starts(collector: &str, numbers: std::ops::RangeInclusive<u64>) -> EventBatch {
    let records: Vec<Record> =
        numbers.map(|number| record(number, EventType::Start, u32::try_from(number).unwrap())).collect();
    decode(collector, &records).unwrap()
}

pub(crate) fn rule() -> DetectionRule {
    DetectionRule {
        id: Uuid::from_u128(0x601d),
        version: 1,
        hash: "h1".into(),
        name: "Golden rule".into(),
        description: "d".into(),
        author: "a".into(),
        references: vec!["https://example.org".into()],
        severity: Severity::High,
        category: "process_creation".into(),
        tags: vec!["attack.t1059".into()],
        status: "stable".into(),
        false_positives: vec!["none".into()],
        sql: "SELECT * FROM process_events WHERE name = 'p1'".into(),
        dedup: vec!["name".into()],
        dedup_window_s: 1,
        state: RuleState::Active,
        kind: RuleKind::Stream,
        pack: "builtin".into(),
        file: "r.yaml".into(),
    }
}

fn matches(batch: &EventBatch, rows: usize) -> Vec<RuleMatch> {
    let one = |row| RuleMatch {
        rule: Arc::new(rule()),
        batch: Arc::new(batch.batch.clone()),
        row,
        answer: Answer::Row(serde_json::Map::from_iter([("row".to_owned(), serde_json::json!(row))])),
        completeness: Completeness::complete(),
    };
    (0..rows).map(one).collect()
}

pub(crate) fn text() -> RuleText {
    RuleText {
        rule: rule().id,
        version: 1,
        hash: rule().hash,
        since_us: NOON_US,
        path: "r.yaml".into(),
        text: "name: Golden rule".into(),
        overrides: vec![("o.yaml".into(), "rule: r".into())],
        hashed: vec!["name: Golden rule".into()],
    }
}

pub(crate) fn list() -> KeptList {
    KeptList {
        name: "shells".into(),
        description: "d".into(),
        files: vec!["l.yaml".into()],
        items: vec![ListItem::Text("sh".into()), ListItem::Integer(7)],
    }
}

/// What rules said, and their lists.
pub(crate) fn write_later(dir: &Path) {
    let store = Store::open(StoreOptions::new(dir)).unwrap();
    store.keep_rule_texts(std::iter::once(text()), std::iter::once(list())).unwrap();
    store.ledger_reached("procmond", LEDGER).unwrap();
}

/// Three segments, two collectors, a gap, three alerts in different states, and more.
pub(crate) fn write(dir: &Path) {
    let options =
        StoreOptions { sinks: vec!["file".into(), "stdout".into()], host: "golden".into(), ..StoreOptions::new(dir) };
    let store = Store::open(options).unwrap();
    store.set_rules(vec![rule()]).unwrap();
    store.append(starts("procmond", 1..=10)).unwrap();
    store.seal().unwrap();
    let second = starts("procmond", 11..=20);
    let alerts = store.commit_matches(matches(&second, 3)).unwrap();
    assert_eq!(alerts.len(), 3);
    let first = alerts.first().unwrap().id;
    store.append(second).unwrap();
    let undecodable = Record { payload: vec![0xff].into(), ..record(21, EventType::Start, 21) };
    store.append(decode("procmond", &[undecodable, record(22, EventType::Stop, 1)]).unwrap()).unwrap();
    store.seal().unwrap();
    store.append(starts("netmond", 101..=105)).unwrap();
    store.seal().unwrap();
    store.set_alert_status(first, AlertStatus::Acknowledged, "root", "seen").unwrap();
    store.outbox_done("file", first).unwrap();
    store.outbox_failed("stdout", first, "closed", NOON_US).unwrap();
    store.audit_push("agent", "start", &serde_json::json!({"build": "golden"})).unwrap();
    store
        .add_coverage(CoverageGap {
            collector: "procmond".into(),
            reason: "wal_bound".into(),
            from_us: NOON_US,
            to_us: NOON_US + SECOND_US,
            count: Some(7),
            detail: "shed".into(),
            ..CoverageGap::default()
        })
        .unwrap();
    store.put_system_info(&system()).unwrap();
    store.put_scan(&scan()).unwrap();
}

pub(crate) fn scan() -> ScanMetadata {
    ScanMetadata { time_us: NOON_US, collector: "procmond".into(), cycles: 1, processes: 2, events: 3, errors: 4 }
}

pub(crate) fn system() -> SystemInfo {
    SystemInfo {
        time_us: NOON_US,
        hostname: "golden".into(),
        os_name: "Linux".into(),
        os_version: "7".into(),
        architecture: "x86_64".into(),
        cpu_cores: 2,
        total_memory_bytes: 1 << 32,
        uptime_s: 5,
        boot_id: "boot".into(),
        capabilities: vec!["procfs".into()],
    }
}
