//! What a window rule has done and what it cost.

use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use daemoneye_lib::model::DetectionRule;

use super::super::pace::Pace;
use super::super::set::RuleStats;
use super::WindowStats;
use super::run::Failure;

/// Written by the evaluating thread, read by health; nothing is decided by them, so their order does not matter.
#[derive(Debug)]
pub(super) struct Counters {
    evaluations: AtomicU64,
    pub(super) rows: AtomicU64,
    matches: AtomicU64,
    nanoseconds: AtomicU64,
    degraded: AtomicU64,
    last_match_us: AtomicI64,
    pub(super) shed: AtomicU64,
    pub(super) late: AtomicU64,
    pub(super) ahead: AtomicU64,
    pub(super) postponed: AtomicU64,
    pub(super) timed_out: AtomicU64,
    pub(super) failed: AtomicU64,
    pub(super) skipped: AtomicU64,
    pub(super) untimed: AtomicU64,
    /// It reads a column that no collector fills.
    blind: AtomicBool,
    failure: Mutex<Option<Arc<str>>>,
    pace: Pace,
}

impl Default for Counters {
    fn default() -> Self {
        let [evaluations, rows, matches, nanoseconds, degraded] = [const { AtomicU64::new(0) }; 5];
        let [shed, late, ahead, postponed, timed_out, failed, skipped, untimed] = [const { AtomicU64::new(0) }; 8];
        let last_match_us = AtomicI64::new(i64::MIN);
        Self {
            evaluations,
            rows,
            matches,
            nanoseconds,
            degraded,
            last_match_us,
            shed,
            late,
            ahead,
            postponed,
            timed_out,
            failed,
            skipped,
            untimed,
            blind: AtomicBool::default(),
            failure: Mutex::default(),
            pace: Pace::default(),
        }
    }
}

impl Counters {
    pub(super) fn ran(&self, cpu_ns: u64, degraded: bool) {
        self.decided(degraded);
        self.nanoseconds.fetch_add(cpu_ns, Ordering::Relaxed);
        self.pace.ran(Duration::from_nanos(cpu_ns));
    }

    /// With or without a run.
    pub(super) fn decided(&self, degraded: bool) {
        self.evaluations.fetch_add(1, Ordering::Relaxed);
        let degraded = degraded || self.blind.load(Ordering::Relaxed);
        self.degraded.fetch_add(u64::from(degraded), Ordering::Relaxed);
    }

    pub(super) fn mark_blind(&self, is_blind: bool) {
        self.blind.store(is_blind, Ordering::Relaxed);
    }

    /// A run had no answer; whether it is the first.
    pub(super) fn failed(&self, counter: &AtomicU64, failure: &Failure) -> bool {
        *self.failure.lock().unwrap_or_else(PoisonError::into_inner) = Some(failure.to_string().into());
        counter.fetch_add(1, Ordering::Relaxed) == 0
    }

    /// Beside the runs of its plan: finding and keeping rows.
    pub(super) fn took(&self, time: Duration) {
        self.nanoseconds.fetch_add(u64::try_from(time.as_nanos()).unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    pub(super) fn matched(&self, time: Option<i64>) {
        self.matches.fetch_add(1, Ordering::Relaxed);
        self.last_match_us.fetch_max(time.unwrap_or(i64::MIN), Ordering::Relaxed);
    }

    pub(super) fn stats(&self, rule: &Arc<DetectionRule>, (rows, bytes): (usize, usize)) -> RuleStats {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let last = self.last_match_us.load(Ordering::Relaxed);
        RuleStats {
            rule: Arc::clone(rule),
            evaluations: read(&self.evaluations),
            rows: read(&self.rows),
            matches: read(&self.matches),
            nanoseconds: read(&self.nanoseconds),
            last_match_us: (last != i64::MIN).then_some(last),
            degraded: read(&self.degraded),
            overflows: 0,
            over_budget: self.pace.misses(),
            mark: self.pace.mark(),
            window: Some(WindowStats {
                kept_rows: rows as u64,
                kept_bytes: bytes as u64,
                shed: read(&self.shed),
                late: read(&self.late),
                ahead: read(&self.ahead),
                postponed: read(&self.postponed),
                timed_out: read(&self.timed_out),
                failed: read(&self.failed),
                skipped: read(&self.skipped),
                untimed: read(&self.untimed),
                over_budget: self.pace.misses(),
                over_in_a_row: self.pace.in_a_row(),
            }),
            failure: self.failure.lock().unwrap_or_else(PoisonError::into_inner).clone(),
        }
    }
}
