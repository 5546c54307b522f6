//! Alerts that no rule file raises: the write-ahead log was damaged, which an intruder who hides events would do, or the ledger was, or
//! is not signed any more, which one who rewrites history leaves behind. They go the way of every alert, so they are deduplicated,
//! delivered and audited like one; also said in the log, as is every other loss of events.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use daemoneye_engine::ingest::{GapAt, batch_from_json};
use daemoneye_engine::store::{Answer, LedgerFall, RuleMatch};
use daemoneye_lib::model::{Completeness, Degraded, DetectionRule, RuleKind, RuleState, Severity};
use serde_json::{Value, json};
use uuid::Uuid;

use super::Worker;
use crate::clock::{now_ms, now_us};

/// Frozen, both: another value would make every replayed alert a new one.
const WAL_DAMAGED: Uuid = Uuid::from_u128(0x2b1f_6c0a_53d7_4e92_a0b4_7f3e_91c8_5d16);
const LEDGER_UNSIGNED: Uuid = Uuid::from_u128(0x9c4e_17d2_6b0f_4a35_8e71_d3a9_52f8_0cb6);
/// Seconds during which one damage is one alert.
const DEDUP_WINDOW_S: u32 = 300;
/// Seconds during which a cause that the agent's next start finds again is no new alert.
const LEDGER_WINDOW_S: u32 = 3_600;
/// What to do about a ledger; health says it as well.
pub(crate) const LEDGER_REMEDY: &str = "keep a copy of procmond's audit/ and keys/ and run on it: daemoneye-cli audit verify --audit-dir COPY; \
                                        then do as docs/audit.md says, \"When nothing is signed\"";
/// What to do about a ledger that is not the one that it was.
pub(crate) const FALL_REMEDY: &str = "if nobody moved it away or put an older copy back on purpose, keep a copy of audit/ and keys/ and hold it \
                                      against a checkpoint that left the host; when that is clear, run: daemoneye-cli audit accept-ledger \
                                      (docs/audit.md, \"A ledger that is not the one that it was\")";

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
    let output = json!({ "from_us": gap.from_us, "to_us": gap.to_us, "lost": gap.count, "detail": gap.detail });
    let mut completeness = Completeness::complete();
    completeness.degrade(Degraded::EventsShed);
    found(wal_damaged(), &row, &output, completeness)
}

fn found(rule: DetectionRule, row: &Value, output: &Value, completeness: Completeness) -> Option<RuleMatch> {
    let batch = batch_from_json(&[row.as_object()?.clone()]);
    let batch = batch.inspect_err(|error| tracing::warn!(%error, rule = rule.name, "no alert was made")).ok()?;
    let (rule, batch, answer) = (Arc::new(rule), Arc::new(batch), Answer::Row(output.as_object()?.clone()));
    Some(RuleMatch { rule, batch, row: 0, answer, completeness })
}

/// What is wrong with each collector's ledger, as far as it was raised.
#[derive(Debug, Default)]
pub(super) struct Troubles(Mutex<BTreeMap<String, String>>);

impl Troubles {
    /// Of what the collectors say now (empty: sound), what was not raised yet. One that says nothing keeps what was raised of it.
    fn news(&self, said: Vec<(String, String)>) -> Vec<(String, String)> {
        let mut raised = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        for (collector, _) in said.iter().filter(|(_, trouble)| trouble.is_empty()) {
            raised.remove(collector);
        }
        let is_new =
            |(collector, trouble): &(String, String)| !trouble.is_empty() && raised.get(collector) != Some(trouble);
        said.into_iter().filter(is_new).collect()
    }

    fn raised(&self, collector: String, trouble: String) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(collector, trouble);
    }
}

/// Raises an alert of each ledger that is damaged or is not signed, once for each cause. What the store does not take now is raised
/// the next time.
pub(super) async fn ledgers(worker: &Arc<Worker>) {
    for (collector, trouble) in worker.ledger_troubles.news(worker.roster.ledger_troubles()) {
        let Some(found) = unsigned(&collector, &trouble) else { continue };
        match worker.blocking(move |worker| worker.raise(vec![found])).await {
            Some(Ok(())) => {
                tracing::error!(collector, trouble, "the ledger is damaged or not signed; {LEDGER_REMEDY}");
                worker.ledger_troubles.raised(collector, trouble);
            }
            Some(Err(error)) => tracing::debug!(%error, "an alert of the ledger waits for the store"),
            None => {}
        }
    }
}

fn unsigned(collector: &str, trouble: &str) -> Option<RuleMatch> {
    let row = json!({ "time": now_us(), "collector": collector });
    let output = json!({ "cause": trouble, "remedy": LEDGER_REMEDY });
    found(ledger_unsigned(), &row, &output, Completeness::complete())
}

/// A ledger that is not the one that it was, one match for each time.
pub(super) fn fell(fall: &LedgerFall) -> Option<RuleMatch> {
    let row = json!({ "time": fall.at_us, "collector": fall.keeper });
    let mut output = fall.told();
    if let Some(output) = output.as_object_mut() {
        output.extend([("cause".to_owned(), json!(fall.to_string())), ("remedy".to_owned(), json!(FALL_REMEDY))]);
    }
    found(ledger_unsigned(), &row, &output, Completeness::complete())
}

fn ledger_unsigned() -> DetectionRule {
    let sql = "SELECT * FROM audit_entries WHERE action = 'ledger-damage'".to_owned();
    DetectionRule {
        id: LEDGER_UNSIGNED,
        hash: blake3::hash(sql.as_bytes()).to_hex().to_string(),
        name: "Audit ledger damaged or not signed".to_owned(),
        description: "Entries of the ledger are missing, changed or do not continue what was signed, or its key is gone: a failing disk, \
                      an older copy that was put back, or somebody who rewrites history. What is written from here on has no proof."
            .to_owned(),
        false_positives: vec![
            "a failing or full disk".to_owned(),
            "a data directory that was put back from a copy".to_owned(),
        ],
        sql,
        // One that fell a second time is another alert, however alike.
        dedup: vec!["collector".to_owned(), "cause".to_owned(), "fell_us".to_owned()],
        dedup_window_s: LEDGER_WINDOW_S,
        ..wal_damaged()
    }
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
    fn a_ledger_that_is_not_signed_is_one_alert_for_each_cause() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(StoreOptions::new(dir.path())).unwrap();
        let troubles = Troubles::default();
        let say = |trouble: &str| {
            let said = vec![("procmond".to_owned(), trouble.to_owned())];
            let mut alerts = Vec::new();
            for (collector, trouble) in troubles.news(said) {
                alerts.extend(store.commit_matches(vec![unsigned(&collector, &trouble).unwrap()]).unwrap());
                troubles.raised(collector, trouble);
            }
            alerts
        };
        assert!(say("").is_empty());
        let alerts = say("the seed is gone");
        let [alert] = alerts.as_slice() else { panic!("{alerts:?}") };
        assert_eq!((alert.severity, &alert.row["cause"]), (Severity::High, &"the seed is gone".into()));
        assert!(alert.row["remedy"].as_str().unwrap().contains("audit verify"), "{alert:?}");
        assert!(say("the seed is gone").is_empty() && troubles.news(Vec::new()).is_empty());
        assert!(say("").is_empty() && say("the seed is gone").is_empty(), "within the hour it is the same alert");
        assert_eq!(say("another root").len(), 1);
        assert_eq!(store.alerts(&AlertFilter::default()).unwrap().len(), 2);
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
