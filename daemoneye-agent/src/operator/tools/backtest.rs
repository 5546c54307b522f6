//! `rules backtest`: a rule over stored events, day by day, beside the version in use.

use std::sync::Arc;
use std::time::{Duration, Instant};

use daemoneye_engine::RecordBatch;
use daemoneye_engine::detect::{LoadedRule, RuleSet, history_sql};
use daemoneye_engine::replay::events_of;
use daemoneye_engine::store::{StoreError, StoreOptions};
use daemoneye_lib::model::{Completeness, Degraded, RuleState};
use daemoneye_lib::proto::{Fault, FaultKind, Progress, QueryDone, RulesBacktest, operator_response::Answer};
use jiff::Timestamp;
use serde_json::{Value, json};
use tokio::task::block_in_place;
use tokio_util::sync::CancellationToken;

use super::super::data::shown;
use super::super::{Answers, Operators, internal, say};
use super::rows::time;
use super::tally::Tally;
use crate::worker::unfilled;

/// History is read in pieces of this length: what a piece matches is sorted in memory, and progress is told between two.
const PIECE_US: i64 = 24 * 3_600 * 1_000_000;
/// Events on which the cost of one event is measured.
const SAMPLE_EVENTS: usize = 10_000;
const COUNT: &str = "SELECT count(*) FROM process_events WHERE time >= $1 AND time < $2";
const SAMPLE: &str = "SELECT * FROM process_events WHERE time >= $1 AND time < $2 LIMIT 10000";

/// A backtest under way.
struct Backtest {
    tally: Tally,
    in_use: Option<(u32, Tally)>,
    /// Both read the same rows: more may arrive at any moment.
    sql: String,
    /// Where reading begins: before `from_us` by what the rules look back over.
    begin_us: i64,
    from_us: i64,
    to_us: i64,
    lacks: Vec<String>,
    degraded: Vec<String>,
}

impl Operators {
    pub(in crate::operator) async fn rules_backtest(
        &self,
        asked: RulesBacktest,
        answers: &Answers,
        cancel: CancellationToken,
    ) -> Result<(), Fault> {
        let began = Instant::now();
        let file = asked.file.as_ref();
        let file = file.ok_or_else(|| Fault::new(FaultKind::InvalidRequest, "there is no rule to run"))?;
        if asked.from_us >= asked.to_us {
            return Err(Fault::new(FaultKind::InvalidRequest, "the time ends before it begins"));
        }
        let mut rule = self.parse(file)?;
        // Whoever tries a rule out may not have switched it on yet.
        Arc::make_mut(&mut rule.rule).state = RuleState::Active;
        let mut backtest = self.begin(rule.clone(), &asked)?;
        if let Some(lack) = self.worker.as_ref().and_then(|worker| unfilled(worker, &rule)) {
            backtest.degraded.push(Degraded::SchemaUnavailable.as_str().to_owned());
            backtest.lacks.push(lack);
        }
        let to = time(backtest.to_us);
        let total = self.number(COUNT, vec![time(backtest.begin_us), to.clone()], cancel.clone()).await?;
        let events = self.number(COUNT, vec![time(backtest.from_us), to], cancel.clone()).await?;
        let (mut at, mut done) = (backtest.begin_us, 0_u64);
        while at < backtest.to_us {
            let until = at.saturating_add(PIECE_US).min(backtest.to_us);
            let events = self.number(COUNT, vec![time(at), time(until)], cancel.clone()).await?;
            if events > 0 {
                self.piece(&mut backtest, at, until, &cancel).await?;
            }
            (at, done) = (until, done.saturating_add(events));
            if !say(answers, Answer::Progress(Progress { done, total })).await {
                return Ok(());
            }
        }
        block_in_place(|| backtest.finish()).map_err(|error| internal(&error))?;
        let sample = self.sample(rule.clone(), &backtest, cancel).await?;
        let document = backtest.document(&rule, events, &sample, began.elapsed());
        let sound = backtest.degraded.is_empty() && backtest.lacks.is_empty();
        say(answers, Answer::Data(shown(&document, sound)?)).await;
        Ok(())
    }

    fn begin(&self, rule: LoadedRule, asked: &RulesBacktest) -> Result<Backtest, Fault> {
        let failed = |error: StoreError| internal(&error);
        let loaded = self.loaded().into_iter().find(|loaded| loaded.rule.id == rule.rule.id);
        // Both are tried under the same local words, or the difference would be theirs.
        let rule = match &loaded {
            Some(loaded) => {
                let kept = self.store.rule_text(loaded.rule.id, loaded.rule.version).map_err(failed)?;
                rule.overridden_as(loaded, &kept.unwrap_or_default().text, &self.lists())
            }
            None => rule,
        };
        let in_use = loaded.filter(|loaded| loaded.rule.state == RuleState::Active);
        let back_us = in_use.iter().map(LoadedRule::look_back_us).fold(rule.look_back_us(), i64::max);
        let sql = history_sql(&std::iter::once(&rule).chain(&in_use).collect::<Vec<_>>());
        let in_use = in_use.map(|rule| -> Result<_, StoreError> {
            Ok((rule.rule.version, Tally::new(rule, self.like_ours(), asked.from_us)?))
        });
        Ok(Backtest {
            sql,
            tally: Tally::new(rule, self.like_ours(), asked.from_us).map_err(failed)?,
            in_use: in_use.transpose().map_err(failed)?,
            begin_us: asked.from_us.saturating_sub(back_us),
            from_us: asked.from_us,
            to_us: asked.to_us,
            lacks: Vec::new(),
            degraded: Vec::new(),
        })
    }

    /// Deduplication and rate limits as this agent has them.
    fn like_ours(&self) -> StoreOptions {
        let narrow = |number: u64| u32::try_from(number).unwrap_or(u32::MAX);
        StoreOptions {
            dedup_window_s: narrow(self.settings.alerts.dedup_window.as_secs()),
            rate_per_rule: narrow(self.settings.alerts.rate_per_rule_per_minute),
            rate_total: narrow(self.settings.alerts.rate_per_minute),
            audit_entries: 0,
            ..StoreOptions::new(self.store.dir())
        }
    }

    async fn piece(
        &self,
        backtest: &mut Backtest,
        from: i64,
        until: i64,
        cancel: &CancellationToken,
    ) -> Result<(), Fault> {
        let bounds = vec![time(from), time(until)];
        let mut rows = self.rows(backtest.sql.clone(), bounds, cancel.clone()).await?;
        while let Some(batch) = rows.next().await? {
            block_in_place(|| backtest.take(batch)).map_err(|error| internal(&error))?;
        }
        backtest.note(&rows.done());
        Ok(())
    }

    /// Nanoseconds that the rule takes for one event as they come, over a sample of stored ones.
    async fn sample(&self, rule: LoadedRule, backtest: &Backtest, cancel: CancellationToken) -> Result<Value, Fault> {
        let (set, _) = RuleSet::compile(vec![rule]);
        let bounds = vec![time(backtest.from_us), time(backtest.to_us)];
        let mut rows = self.rows(SAMPLE.to_owned(), bounds, cancel).await?;
        let (mut events, mut took) = (0_usize, Duration::ZERO);
        while let Some(batch) = rows.next().await? {
            events = events.saturating_add(batch.num_rows());
            let (batch, began) = (events_of(batch), Instant::now());
            block_in_place(|| set.evaluate(&batch, &Completeness::complete()));
            took = took.saturating_add(began.elapsed());
        }
        let per_event = took.as_nanos().checked_div(events.min(SAMPLE_EVENTS) as u128);
        let per_event = per_event.map(|ns| u64::try_from(ns).unwrap_or(u64::MAX));
        Ok(json!({ "sample_events": events, "ns_per_event": per_event }))
    }
}

impl Backtest {
    fn take(&mut self, batch: RecordBatch) -> Result<(), StoreError> {
        if let Some((_, tally)) = &mut self.in_use {
            tally.take(batch.clone())?;
        }
        self.tally.take(batch)
    }

    fn finish(&mut self) -> Result<(), StoreError> {
        self.tally.finish(self.to_us)?;
        self.lacks.extend(self.tally.shortfalls());
        if let Some((_, tally)) = &mut self.in_use {
            tally.finish(self.to_us)?;
            self.lacks.extend(tally.shortfalls().into_iter().map(|lack| format!("the version in use: {lack}")));
        }
        Ok(())
    }

    fn note(&mut self, done: &QueryDone) {
        let degraded = done.completeness.iter().flat_map(|known| known.degraded.iter());
        for reason in degraded {
            if !self.degraded.contains(reason) {
                self.degraded.push(reason.clone());
            }
        }
        for lack in &done.lacks {
            if !self.lacks.contains(&lack.what) {
                self.lacks.push(lack.what.clone());
            }
        }
    }

    fn document(&self, rule: &LoadedRule, events: u64, cost: &Value, took: Duration) -> Value {
        let (days, most) = self.tally.days();
        let at = |us: i64| Timestamp::from_microsecond(us).map(|time| format!("{time:.6}")).unwrap_or_default();
        let elapsed_ms = u64::try_from(took.as_millis()).unwrap_or(u64::MAX);
        let mut document = json!({
            "rule": { "id": rule.rule.id, "name": rule.rule.name, "file": rule.rule.file },
            "from": at(self.from_us),
            "to": at(self.to_us),
            "events": events,
            "hits": self.tally.hits(),
            "hidden": self.tally.hidden(),
            "alerts": self.tally.alerts(),
            "most_alerts_a_day": most,
            "days": days,
            "top": self.tally.top(),
            "top_is_a_part_of": self.tally.uncounted(),
            "cost": cost,
            "elapsed_ms": elapsed_ms,
            "degraded": self.degraded,
            "lacks": self.lacks,
            "in_use": null,
            "difference": null,
        });
        if let (Some((version, tally)), Some(members)) = (&self.in_use, document.as_object_mut()) {
            let in_use = json!({ "version": version, "hits": tally.hits(), "alerts": tally.alerts() });
            members.insert("in_use".to_owned(), in_use);
            members.insert("difference".to_owned(), self.tally.difference(tally));
        }
        document
    }
}
