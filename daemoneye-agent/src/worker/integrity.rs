//! Alerts that no rule file raises: the write-ahead log was damaged, which an intruder who hides events would do. They go the
//! way of every alert, so they are deduplicated, delivered and audited like one; also said in the log, as is every other loss
//! of events.

use std::sync::{Arc, PoisonError};

use daemoneye_engine::ingest::{GapAt, batch_from_json};
use daemoneye_engine::store::{Answer, RuleMatch};
use daemoneye_lib::model::{Completeness, Degraded, DetectionRule, RuleKind, RuleState, Severity};
use serde_json::{Map, Value, json};
use uuid::Uuid;

use super::Worker;
use crate::clock::now_ms;

/// Frozen: another value would make every replayed alert a new one.
const WAL_DAMAGED: Uuid = Uuid::from_u128(0x2b1f_6c0a_53d7_4e92_a0b4_7f3e_91c8_5d16);
/// Seconds during which one damage is one alert.
const DEDUP_WINDOW_S: u32 = 300;

impl Worker {
    /// Says in the log that events are lost, at most once a second.
    pub(super) fn say_gaps(&self, gaps: &[GapAt]) {
        let Some(first) = gaps.iter().map(|at| &at.gap).find(|gap| crate::operator::is_loss(&gap.reason)) else {
            return;
        };
        if let Some(runs) = self.gaps.lock().unwrap_or_else(PoisonError::into_inner).count(now_ms()) {
            let (collector, reason, detail) = (&first.collector, &first.reason, &first.detail);
            tracing::warn!(%collector, %reason, lost = first.count, runs, "events are lost: {detail}");
        }
    }
}

/// One match for each damage of a write-ahead log.
pub(super) fn matches(gaps: &[GapAt]) -> Vec<RuleMatch> {
    gaps.iter().filter(|at| at.gap.reason == "wal_corrupt").filter_map(damage).collect()
}

fn damage(at: &GapAt) -> Option<RuleMatch> {
    let (epoch, number) = at.at.key();
    let gap = &at.gap;
    let row = json!({ "time": gap.to_us, "collector": gap.collector, "epoch": epoch, "seq": number });
    let batch = batch_from_json(&[row.as_object()?.clone()]);
    let batch = batch.inspect_err(|error| tracing::warn!(%error, "no alert of a damaged log was made")).ok()?;
    let output: Map<String, Value> =
        json!({ "from_us": gap.from_us, "to_us": gap.to_us, "lost": gap.count, "detail": gap.detail })
            .as_object()?
            .clone();
    let mut completeness = Completeness::complete();
    completeness.degrade(Degraded::EventsShed);
    Some(RuleMatch {
        rule: Arc::new(wal_damaged()),
        batch: Arc::new(batch),
        row: 0,
        answer: Answer::Row(output),
        completeness,
    })
}

fn wal_damaged() -> DetectionRule {
    let sql = "SELECT * FROM coverage WHERE reason = 'wal_corrupt'".to_owned();
    DetectionRule {
        id: WAL_DAMAGED,
        version: 1,
        hash: blake3::hash(sql.as_bytes()).to_hex().to_string(),
        name: "Write-ahead log damaged".to_owned(),
        description: "Records that were durable can no longer be read: a failing disk, or somebody who hides events."
            .to_owned(),
        author: "DaemonEye".to_owned(),
        references: Vec::new(),
        severity: Severity::High,
        category: "integrity".to_owned(),
        tags: vec!["attack.t1070".to_owned()],
        status: "stable".to_owned(),
        false_positives: vec!["a failing disk".to_owned()],
        sql,
        dedup: Vec::new(),
        dedup_window_s: DEDUP_WINDOW_S,
        state: RuleState::Active,
        kind: RuleKind::Stream,
        pack: "built-in".to_owned(),
        file: String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use daemoneye_engine::store::{AlertFilter, Store, StoreOptions};
    use daemoneye_lib::proto::{CoverageGap, Sequence};

    fn gap(reason: &str) -> GapAt {
        let gap = CoverageGap {
            collector: "procmond".into(),
            reason: reason.into(),
            from_us: 1_700_000_000_000_000,
            to_us: 1_700_000_001_000_000,
            count: Some(7),
            detail: "checksum".into(),
            ..CoverageGap::default()
        };
        GapAt { at: Sequence::new(3, 41), gap }
    }

    #[test]
    fn a_damaged_log_is_one_alert_also_when_it_is_told_again() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(StoreOptions::new(dir.path())).unwrap();
        let alerts = store.commit_matches(matches(&[gap("shed"), gap("wal_corrupt")])).unwrap();
        assert_eq!(alerts.len(), 1, "{alerts:?}");
        assert_eq!(alerts[0].severity, Severity::High);
        assert!(store.commit_matches(matches(&[gap("wal_corrupt")])).unwrap().is_empty());
        assert_eq!(store.alerts(&AlertFilter::default()).unwrap().len(), 1);
    }
}
