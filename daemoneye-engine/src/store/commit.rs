//! From matches to alerts: deduplication, rate limit, and one transaction for an alert, its outbox rows and its audit entry.
//!
//! Everything is decided by event time and stream position, never by the wall clock, so a replay after a crash decides the
//! same and finds its own traces: an alert's derived id, the last position that raised a count, the fold of a minute.

use std::collections::BTreeMap;
use std::sync::PoisonError;

use daemoneye_lib::BUILD;
use daemoneye_lib::model::{Alert, AlertStatus, DetectionRule, EventPointer};
use redb::{ReadableTable as _, WriteTransaction};
use serde_json::{Map, json};
use uuid::Uuid;

use super::alert::{AlertFilter, EVENTS_KEPT, StoredAlert, listed, status_key};
use super::folded::Limit;
use super::matches::{HiddenMatch, Moment, RuleMatch, hidden_id, summary_id};
use super::state::{ALERTS, ALERTS_BY_KEY, ALERTS_BY_STATUS, RATES, key};
use super::value::Record as _;
use super::{Store, StoreError, StoreOptions, audit, crowd, growth, outbox};

/// Matches per transaction: one sync for many, and no transaction that holds up a seal for long.
const MATCHES_PER_TRANSACTION: usize = 1_024;
const MINUTE_US: i64 = 60_000_000;
/// A summary is delivered this long after its minute has ended, when late events have been counted too.
const SUMMARY_DELAY_US: i64 = 5_000_000;
/// The key of the counter over all rules.
const ALL_RULES: u128 = 0;

impl Store {
    /// Stores what the rules found and returns the alerts that are new. A match of an alert that stands raises its count,
    /// once per event; a match above the rate limit is folded into the minute's summary.
    ///
    /// # Errors
    /// [`StoreError`] when `state.redb` fails; the same matches may then be offered again.
    pub fn commit_matches(&self, matches: Vec<RuleMatch>) -> Result<Vec<Alert>, StoreError> {
        let mut raised = Vec::new();
        for run in matches.chunks(MATCHES_PER_TRANSACTION) {
            let (alerts, folded) = self.state.write(|transaction| {
                let mut commit = Commit::new(transaction, &self.options);
                for found in run {
                    commit.take(found, None)?;
                }
                Ok((commit.raised, commit.folded))
            })?;
            raised.extend(alerts);
            let mut counts = self.folded.lock().unwrap_or_else(PoisonError::into_inner);
            folded.into_iter().for_each(|(rule, time_us, limit)| counts.take(rule, time_us, limit));
        }
        Ok(raised)
    }

    /// Keeps what exceptions hid, as suppressed alerts: deduplicated and limited as alerts are, each exception by itself; nobody
    /// is told of them.
    ///
    /// # Errors
    /// As [`Store::commit_matches`].
    pub fn commit_hidden(&self, hidden: &[HiddenMatch]) -> Result<(), StoreError> {
        for run in hidden.chunks(MATCHES_PER_TRANSACTION) {
            self.state.write(|transaction| {
                let mut commit = Commit::new(transaction, &self.options);
                run.iter().try_for_each(|hidden| commit.take(&hidden.found, Some(hidden.exception)))
            })?;
        }
        Ok(())
    }

    /// For each exception and its rule how many matches it hid, and when the last of them was, as far back as alerts are kept.
    ///
    /// # Errors
    /// [`StoreError`] when `state.redb` fails or an alert cannot be read.
    pub fn hidden(&self) -> Result<Vec<HiddenCount>, StoreError> {
        let transaction = self.state.read()?;
        let table = transaction.open_table(ALERTS)?;
        let mut counts: BTreeMap<Uuid, HiddenCount> = BTreeMap::new();
        for at in listed(&transaction, AlertStatus::Suppressed, &AlertFilter::default())? {
            let id = at?.0.value().2;
            let Some(alert) = table.get(id)? else { continue };
            let alert = alert.value().decode()?;
            let Some((exception, rule)) = alert.hidden()? else { continue };
            let fresh = HiddenCount { exception, rule, matches: 0, last_us: i64::MIN };
            let count = counts.entry(exception).or_insert(fresh);
            count.matches = count.matches.saturating_add(alert.count);
            count.last_us = count.last_us.max(alert.last_seen_us);
        }
        Ok(counts.into_values().collect())
    }
}

/// What one exception hid.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HiddenCount {
    /// The exception.
    pub exception: Uuid,
    /// Its rule.
    pub rule: Uuid,
    /// Matches.
    pub matches: u64,
    /// Event time of the last one, µs since the Unix epoch.
    pub last_us: i64,
}

struct Commit<'a> {
    transaction: &'a WriteTransaction,
    options: &'a StoreOptions,
    raised: Vec<Alert>,
    /// Rule and time of what was above a limit.
    folded: Vec<(Uuid, i64, Limit)>,
    /// Of the match that was taken last.
    before: Option<Moment>,
    /// The exception that hides what is committed.
    hidden_by: Option<Uuid>,
}

impl<'a> Commit<'a> {
    const fn new(transaction: &'a WriteTransaction, options: &'a StoreOptions) -> Self {
        Self { transaction, options, raised: Vec::new(), folded: Vec::new(), before: None, hidden_by: None }
    }

    /// One match; hidden by that exception, if any.
    fn take(&mut self, found: &RuleMatch, hidden_by: Option<Uuid>) -> Result<(), StoreError> {
        self.hidden_by = hidden_by;
        self.keep(found)?;
        self.before = found.moment();
        Ok(())
    }

    fn keep(&mut self, found: &RuleMatch) -> Result<(), StoreError> {
        let cause = found.pointer();
        let id = self.identity(found, &cause);
        if self.stored(key(id))?.is_some() {
            return Ok(());
        }
        let dedup_key = self.dedup_key(found);
        if let Some(standing) = self.standing(found, &dedup_key)? {
            return self.raise(standing, found, &cause).map(drop);
        }
        let minute = found.time_us().div_euclid(MINUTE_US);
        let summary = summary_id(self.hidden_by.unwrap_or(found.rule.id), minute);
        let folded = self.stored(key(summary))?;
        if folded.as_ref().is_some_and(|folded| folded.has_counted(&cause)) {
            return Ok(());
        }
        let Some(limit) = self.above(found.rule.id, minute)? else {
            return self.insert(self.born(found, id, dedup_key), &cause, 0);
        };
        let is_counted = match folded {
            Some(_) => self.raise(key(summary), found, &cause)?,
            None => self.insert_summary(found, summary, minute, &cause).map(|()| true)?,
        };
        if is_counted {
            self.folded.push((found.rule.id, found.time_us(), limit));
        }
        Ok(())
    }

    /// What is hidden has ids and keys of its own: it must not stand in the place of an alert when the exception has gone.
    fn identity(&self, found: &RuleMatch, cause: &EventPointer) -> Uuid {
        let id = found.alert_id(cause);
        self.hidden_by.map_or(id, |exception| hidden_id(exception, id))
    }

    fn dedup_key(&self, found: &RuleMatch) -> String {
        let key = found.dedup_key();
        match self.hidden_by {
            Some(exception) => format!("{key}|hidden|{exception}"),
            None => key,
        }
    }

    fn born(&self, found: &RuleMatch, id: Uuid, dedup_key: String) -> Alert {
        let status = if self.hidden_by.is_some() { AlertStatus::Suppressed } else { AlertStatus::Open };
        Alert { status, suppressed_by: self.hidden_by, ..born(found, id, dedup_key, self.options) }
    }

    fn stored(&self, id: u128) -> Result<Option<StoredAlert>, StoreError> {
        match self.transaction.open_table(ALERTS)?.get(id)? {
            Some(stored) => stored.value().decode().map(Some),
            None => Ok(None),
        }
    }

    /// The alert whose window covers this match.
    fn standing(&self, found: &RuleMatch, dedup_key: &str) -> Result<Option<u128>, StoreError> {
        let window_us = i64::from(window_s(&found.rule, self.options)).saturating_mul(1_000_000);
        let (hash, time_us) = (key_hash(dedup_key), found.time_us());
        let table = self.transaction.open_table(ALERTS_BY_KEY)?;
        let oldest = time_us.saturating_sub(window_us);
        match table.range((hash, oldest)..=(hash, time_us))?.next_back() {
            Some(entry) => {
                let (at, id) = entry?;
                Ok((at.value().1 > oldest).then(|| id.value()))
            }
            None => Ok(None),
        }
    }

    /// Whether it counts for one more.
    fn raise(&self, id: u128, found: &RuleMatch, cause: &EventPointer) -> Result<bool, StoreError> {
        if let Some(mut stored) = self.stored(id)? {
            // A collector tells one thing in several events: a file that went is a change and is suspicious.
            let again = self.before.is_some() && self.before == found.moment();
            if stored.raise(cause, found.time_us(), &found.completeness, again) {
                self.transaction.open_table(ALERTS)?.insert(id, stored.encode()?)?;
                growth::note(self.transaction, id)?;
                return Ok(!again);
            }
        }
        Ok(false)
    }

    /// Counts one more new alert of this minute, unless the limit of the rule or of all rules is reached: that one. What an
    /// exception hides counts for that exception alone, so that it takes no room from alerts.
    fn above(&self, rule: Uuid, minute: i64) -> Result<Option<Limit>, StoreError> {
        let mut rates = self.transaction.open_table(RATES)?;
        let of_all = (ALL_RULES, u64::from(self.options.rate_total), Limit::OfAllRules);
        let of_one = (key(self.hidden_by.unwrap_or(rule)), u64::from(self.options.rate_per_rule), Limit::OfTheRule);
        let limits = [Some(of_one), self.hidden_by.is_none().then_some(of_all)];
        let mut counts = Vec::with_capacity(limits.len());
        for (of, limit, which) in limits.into_iter().flatten() {
            let count = match rates.get((of, minute))? {
                Some(count) => count.value().decode()?,
                None => 0,
            };
            if count >= limit {
                return Ok(Some(which));
            }
            counts.push((of, count.saturating_add(1)));
        }
        for (of, count) in counts {
            rates.insert((of, minute), count.encode()?)?;
        }
        Ok(None)
    }

    fn insert_summary(
        &mut self,
        found: &RuleMatch,
        id: Uuid,
        minute: i64,
        cause: &EventPointer,
    ) -> Result<(), StoreError> {
        let limited = self.hidden_by.unwrap_or(found.rule.id);
        let born = self.born(found, id, format!("{limited}|rate|{minute}"));
        let due_us = minute.saturating_add(1).saturating_mul(MINUTE_US).saturating_add(SUMMARY_DELAY_US);
        // Event times may lie; a delivery may not wait for them longer than an honest one would.
        let latest_us = audit::now_us().saturating_add(MINUTE_US + SUMMARY_DELAY_US);
        let summary = Alert {
            title: format!("{}: matches above the rate limit", born.title),
            description: format!(
                "New alerts are limited to {} a minute for a rule and {} in all. `count` says how many further matches of \
                 this minute were folded into this one; a query over process_events finds them.",
                self.options.rate_per_rule, self.options.rate_total
            ),
            row: Map::new(),
            ..born
        };
        self.insert(summary, cause, due_us.min(latest_us))
    }

    fn insert(&mut self, alert: Alert, cause: &EventPointer, next_try_us: i64) -> Result<(), StoreError> {
        let (id, time_us) = (key(alert.id), alert.time_us);
        let stored = StoredAlert::new(&alert, cause)?;
        let mut payload = audited(&alert, &stored);
        self.transaction.open_table(ALERTS)?.insert(id, stored.encode()?)?;
        crowd::add(self.transaction, &stored)?;
        self.transaction.open_table(ALERTS_BY_STATUS)?.insert((status_key(alert.status), time_us, id), ())?;
        self.transaction.open_table(ALERTS_BY_KEY)?.insert((key_hash(&alert.dedup_key), time_us), id)?;
        let room = self.options.audit_entries;
        if alert.suppressed_by.is_some() {
            if let Some(fields) = payload.as_object_mut() {
                fields.insert("suppressed_by".to_owned(), json!(alert.suppressed_by));
            }
            audit::push(self.transaction, room, "agent", "alert-suppressed", &payload)?;
            return Ok(());
        }
        outbox::enqueue(self.transaction, &self.options.sinks, alert.id, audit::now_us(), next_try_us)?;
        audit::push(self.transaction, room, "agent", "alert", &payload)?;
        self.raised.push(alert);
        Ok(())
    }
}

fn window_s(rule: &DetectionRule, options: &StoreOptions) -> u32 {
    if rule.dedup_window_s == 0 { options.dedup_window_s } else { rule.dedup_window_s }
}

/// 128 bits of BLAKE3: keys have any length, index entries should not.
pub(super) fn key_hash(dedup_key: &str) -> u128 {
    let hash = blake3::hash(dedup_key.as_bytes());
    let mut bytes = [0; 16];
    for (to, from) in bytes.iter_mut().zip(hash.as_bytes()) {
        *to = *from;
    }
    u128::from_be_bytes(bytes)
}

fn born(found: &RuleMatch, id: Uuid, dedup_key: String, options: &StoreOptions) -> Alert {
    let (rule, time_us) = (&found.rule, found.time_us());
    Alert {
        id,
        time_us,
        severity: rule.severity,
        title: rule.name.clone(),
        description: rule.description.clone(),
        rule_id: rule.id,
        rule_version: rule.version,
        rule_hash: rule.hash.clone(),
        pack: rule.pack.clone(),
        tags: rule.tags.clone(),
        process: found.process(),
        row: found.output().into_owned(),
        events: found.pointers().into_iter().rev().take(EVENTS_KEPT).rev().collect(),
        dedup_key,
        count: 1,
        first_seen_us: time_us,
        last_seen_us: time_us,
        completeness: found.completeness.clone(),
        engine: format!("daemoneye-engine {BUILD}"),
        host: options.host.clone(),
        status: AlertStatus::Open,
        suppressed_by: None,
    }
}

/// What the ledger says about an alert: enough to find it and to prove every word of it, nothing that may hold secrets.
fn audited(alert: &Alert, stored: &StoredAlert) -> serde_json::Value {
    json!({
        "alert": alert.id,
        "record": blake3::hash(stored.born().as_bytes()).to_hex().as_str(),
        "time_us": alert.time_us,
        "severity": alert.severity,
        "rule": alert.rule_id,
        "rule_version": alert.rule_version,
        "rule_hash": alert.rule_hash,
        "entity_id": alert.process.get("entity_id"),
        "events": alert.events,
        "completeness": alert.completeness.describe(),
        "raised": stored.raised(),
        "bytes": crowd::weight(stored),
    })
}
