//! What happens to rules while they run: one is over its budget again and again, an exception has ended, the limits of alerts hold one
//! back. Each is told once, where people look: log, ledger, and for a degraded rule coverage and an alert; a rule that is held in the log
//! only, as its summaries are alerts. Nothing is switched off.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};

use daemoneye_engine::detect::{BUDGET, Exception, Mark, RuleStats};
use daemoneye_engine::ingest::batch_from_json;
use daemoneye_engine::store::{Answer, Folded, RuleMatch, Store, StoreError};
use daemoneye_lib::model::{Completeness, Degraded, DetectionRule, RuleKind, RuleState, Severity};
use daemoneye_lib::proto::CoverageGap;
use serde_json::json;
use uuid::Uuid;

use super::{Worker, audit};
use crate::clock::now_us;

/// Frozen: another value would make every replayed alert a new one.
const RULE_DEGRADED: Uuid = Uuid::from_u128(0x8c4e_19d7_0b62_4a35_9e71_d50f_3ac8_2b96);
/// Seconds during which one rule that stays degraded is one alert, also over restarts: a day.
const DEDUP_WINDOW_S: u32 = 24 * 3600;
/// Rules that one look names in the log: the limit of all rules together may hold thousands at once.
const HELD_NAMED: usize = 10;

/// What was told since the worker started.
#[derive(Debug, Default)]
pub(crate) struct Told {
    /// By rule and text.
    marks: Mutex<BTreeMap<(Uuid, String), Mark>>,
    /// By exception and expiry.
    ended: Mutex<BTreeSet<(Uuid, Option<i64>)>>,
    /// Rules that are held. One that is held again after an hour is told again.
    held: Mutex<BTreeSet<Uuid>>,
}

impl Told {
    /// The rules whose mark is worse than what was told.
    fn news_of(&self, stats: Vec<RuleStats>) -> Vec<RuleStats> {
        let mut told = self.marks.lock().unwrap_or_else(PoisonError::into_inner);
        let marked = stats.into_iter().filter(|stats| stats.mark != Mark::Kept);
        marked
            .filter(|stats| {
                let of = (stats.rule.id, stats.rule.hash.clone());
                let before = told.insert(of, stats.mark).unwrap_or_default();
                before < stats.mark
            })
            .collect()
    }

    /// The exceptions that have ended and were not told.
    fn newly_ended<'a>(&self, all: impl Iterator<Item = &'a Arc<Exception>>, now_us: i64) -> Vec<Arc<Exception>> {
        let mut told = self.ended.lock().unwrap_or_else(PoisonError::into_inner);
        let ended = all.filter(|exception| exception.is_expired(now_us));
        ended.filter(|exception| told.insert((exception.id, exception.expires_us))).cloned().collect()
    }

    /// The rules that are held and were not when somebody looked before.
    fn newly_held(&self, folded: &[Folded]) -> Vec<Folded> {
        let held: Vec<Folded> = folded.iter().filter(|folded| folded.last_hour > 0).copied().collect();
        let mut told = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        let before = std::mem::replace(&mut *told, held.iter().map(|held| held.rule).collect());
        held.into_iter().filter(|held| !before.contains(&held.rule)).collect()
    }
}

/// Tells what is new.
pub(super) async fn tell(worker: &Arc<Worker>) {
    let told = worker.blocking(|worker| {
        let in_force = worker.rules.in_force();
        let ended = worker.rules.told.newly_ended(in_force.exceptions().iter(), worker.store.believed_us());
        ended.iter().for_each(|exception| say_ended(&worker.store, exception));
        let stats = in_force.set().stats();
        say_held(&stats, &worker.rules.told.newly_held(&worker.store.folded(worker.store.believed_us())));
        let marked = worker.rules.told.news_of(stats);
        marked.iter().try_for_each(|stats| say_marked(worker, stats))
    });
    if let Some(Err(error)) = told.await {
        tracing::warn!(%error, "a rule over its budget was not told of everywhere");
    }
}

fn say_ended(store: &Store, exception: &Exception) {
    let Exception { id, rule, condition, owner, reason, .. } = exception;
    tracing::warn!(%rule, owner, reason, "an exception has expired and hides nothing any more: {condition}");
    let payload = json!({ "id": id, "rule": rule, "condition": condition, "owner": owner, "reason": reason,
        "expires_us": exception.expires_us });
    audit::push(store, "agent", "exception-expired", &payload);
}

fn say_held(stats: &[RuleStats], held: &[Folded]) {
    for folded in held.iter().take(HELD_NAMED) {
        let rule =
            stats.iter().find(|stats| stats.rule.id == folded.rule).map_or("", |stats| stats.rule.name.as_str());
        let limit =
            if folded.by_its_own { "its limit of alerts" } else { "the limit of alerts of all rules together" };
        tracing::warn!(
            rule,
            id = %folded.rule,
            folded = folded.last_hour,
            "the rule is held by {limit}: its matches are folded into a summary for each minute; see daemoneye-cli health"
        );
    }
    if let Some(more) = held.len().checked_sub(HELD_NAMED).filter(|more| *more > 0) {
        tracing::warn!(more, "the limits of alerts hold further rules; see the table rule_stats");
    }
}

fn say_marked(worker: &Worker, stats: &RuleStats) -> Result<(), StoreError> {
    let (rule, times) = (&stats.rule, stats.over_budget);
    let mark = word(stats.mark);
    tracing::warn!(
        rule = rule.name,
        times,
        "the rule is {mark}: it takes more than its budget for a batch, and goes on"
    );
    let payload = json!({ "rule": rule.id, "name": rule.name, "version": rule.version, "mark": mark, "times": times,
        "budget_ms": u64::try_from(BUDGET.as_millis()).unwrap_or(u64::MAX) });
    audit::push(&worker.store, "agent", "rule-over-budget", &payload);
    if stats.mark != Mark::Degraded {
        return Ok(());
    }
    let now = now_us();
    worker.store.add_coverage(gap(rule, times, now))?;
    worker.raise(found(stats, now).into_iter().collect())
}

/// `ok`, `slow` or `degraded`.
pub(super) const fn word(mark: Mark) -> &'static str {
    match mark {
        Mark::Kept => "ok",
        Mark::Slow => "slow",
        Mark::Degraded => "degraded",
    }
}

fn gap(rule: &DetectionRule, times: u64, now: i64) -> CoverageGap {
    CoverageGap {
        collector: "agent".to_owned(),
        reason: "rule_over_budget".to_owned(),
        from_us: now,
        to_us: now,
        detail: format!(
            "the rule {} ({}) was over its budget of {} ms {times} times and delays all others; its alerts come, late",
            rule.name,
            rule.id,
            BUDGET.as_millis()
        ),
        ..CoverageGap::default()
    }
}

fn found(stats: &RuleStats, now: i64) -> Option<RuleMatch> {
    let row = json!({ "time": now, "collector": "agent", "epoch": 0, "seq": 0 });
    let batch = batch_from_json(&[row.as_object()?.clone()]);
    let batch = batch.inspect_err(|error| tracing::warn!(%error, "no alert of a degraded rule was made")).ok()?;
    let output = json!({ "rule": stats.rule.id, "name": stats.rule.name, "version": stats.rule.version,
        "over_budget": stats.over_budget });
    let mut completeness = Completeness::complete();
    completeness.degrade(Degraded::TimedOut);
    let (batch, output) = (Arc::new(batch), output.as_object()?.clone());
    Some(RuleMatch { rule: Arc::new(degraded()), batch, row: 0, answer: Answer::Row(output), completeness })
}

fn degraded() -> DetectionRule {
    let sql = "SELECT * FROM rule_stats WHERE health = 'degraded'".to_owned();
    DetectionRule {
        id: RULE_DEGRADED,
        version: 1,
        hash: blake3::hash(sql.as_bytes()).to_hex().to_string(),
        name: "Detection rule over its budget".to_owned(),
        description: "A rule takes more CPU time than it may, again and again, and with it the alerts of all rules come late. It was \
                      not switched off: correct it, or disable it with an override."
            .to_owned(),
        author: "DaemonEye".to_owned(),
        references: Vec::new(),
        severity: Severity::Medium,
        category: "integrity".to_owned(),
        tags: Vec::new(),
        status: "stable".to_owned(),
        false_positives: vec!["a machine that is far too small for its load".to_owned()],
        sql,
        dedup: vec!["rule".to_owned()],
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
    use daemoneye_engine::detect::rules::parse;
    use daemoneye_engine::store::{AlertFilter, StoreOptions};
    use std::path::Path;

    fn stats(mark: Mark) -> RuleStats {
        let yaml = "id: 3d9f2c1e-7a54-4b0e-9a51-0c8c5f3f7a01\nname: heavy\nseverity: low\nsql: SELECT pid FROM process_events\n";
        let rule = parse(Path::new("pack/heavy.yaml"), yaml).unwrap().rule;
        RuleStats {
            rule,
            evaluations: 9,
            rows: 9,
            matches: 0,
            nanoseconds: 0,
            last_match_us: None,
            degraded: 0,
            overflows: 0,
            over_budget: 6,
            mark,
            window: None,
            failure: None,
        }
    }

    #[test]
    fn each_mark_of_a_rule_is_news_once() {
        let told = Told::default();
        let news = |mark| told.news_of(vec![stats(mark)]).len();
        assert_eq!([news(Mark::Kept), news(Mark::Slow), news(Mark::Slow)], [0, 1, 0]);
        assert_eq!([news(Mark::Degraded), news(Mark::Degraded)], [1, 0]);
    }

    #[test]
    fn a_rule_that_becomes_held_is_news_and_again_after_an_hour_without() {
        let told = Told::default();
        let news = |rules: &[(u128, u64)]| -> Vec<u128> {
            let of = |&(rule, last_hour): &(u128, u64)| Folded {
                rule: Uuid::from_u128(rule),
                matches: 9,
                last_hour,
                since_us: 0,
                by_its_own: true,
            };
            let held: Vec<Folded> = rules.iter().map(of).collect();
            told.newly_held(&held).iter().map(|held| held.rule.as_u128()).collect()
        };
        assert_eq!(news(&[(1, 5), (2, 0)]), [1]);
        assert_eq!(news(&[(1, 6), (2, 1)]), [2]);
        assert_eq!(news(&[(1, 0), (2, 1)]), [0_u128; 0]);
        assert_eq!(news(&[(1, 3), (2, 1)]), [1]);
    }

    #[test]
    fn a_degraded_rule_is_one_alert_a_day_and_a_row_of_coverage() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(StoreOptions::new(dir.path())).unwrap();
        let now = now_us();
        let alerts = |at| store.commit_matches(found(&stats(Mark::Degraded), at).into_iter().collect()).unwrap();
        assert_eq!(alerts(now).len(), 1);
        assert!(alerts(now + 60_000_000).is_empty(), "a restart tells it again, and it is the same alert");
        let alert = store.alerts(&AlertFilter::default()).unwrap().remove(0);
        assert_eq!(alert.row["name"], "heavy");
        store.add_coverage(gap(&stats(Mark::Degraded).rule, 6, now)).unwrap();
        assert_eq!(store.coverage().unwrap()[0].gap.reason, "rule_over_budget");
    }
}
