//! The clock by which history and deliveries grow old. The host's may be set wrongly, by ten years and by anybody who may set it, and what retention has
//! removed is gone: so a step ahead is believed only when it has stood for a while.
//!
//! A step is what the clock gains beyond the time that has passed in this process; a suspended or powered-off host makes one
//! too, and its history then stays as much longer. A step back is believed at once: it removes nothing.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use redb::ReadableTable;

use super::dated::{self, Step};
use super::state::{META, State};
use super::value::{Record as _, Stored};
use super::{Store, StoreError, audit};

/// Steps up to this are taken for granted: more than any time zone mistake, summer time or short suspend.
const STEP_US: u64 = 86_400_000_000;
/// How long a longer step has to stand, in time that the agent has run: long enough that somebody who looks at the host once a
/// day finds it told before anything is removed.
const STAND_US: u64 = 86_400_000_000;
/// The believed time, µs since the Unix epoch, when retention ran last.
const BELIEVED: &str = "retention_clock_us";
/// How long the present step has stood, in µs; absent while there is none.
const STOOD: &str = "retention_clock_stood_us";

/// What the host's clock said when it was judged last, and when that was.
#[derive(Debug)]
struct Judged {
    at: Instant,
    host_us: i64,
    /// How far it was ahead of the believed time.
    ahead_us: i64,
}

/// The clock of a store.
#[derive(Debug)]
pub(super) struct Clock(Mutex<Judged>);

impl Default for Clock {
    fn default() -> Self {
        Self(Mutex::new(Judged { at: Instant::now(), host_us: audit::now_us(), ahead_us: 0 }))
    }
}

impl Clock {
    /// As the last agent left it.
    pub(super) fn load(state: &State) -> Result<Self, StoreError> {
        let clock = Self::default();
        let transaction = state.read()?;
        let kept = read(&transaction.open_table(META)?)?;
        if let (Some(before), stood) = kept {
            let mut judged = clock.judged();
            let host = u64::try_from(judged.host_us).unwrap_or(0);
            judged.ahead_us = difference(host, judge(host, before, stood, 0).now);
        }
        Ok(clock)
    }

    fn judged(&self) -> MutexGuard<'_, Judged> {
        // Three numbers that are set together.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The believed time when the host's clock says `host_us`. A step since it was judged last is not believed.
    fn believed_us(&self, host_us: i64) -> i64 {
        let judged = self.judged();
        let passed_us = i64::try_from(judged.at.elapsed().as_micros()).unwrap_or(i64::MAX);
        let step_us = host_us.saturating_sub(judged.host_us.saturating_add(passed_us));
        let unjudged_us = if u64::try_from(step_us).is_ok_and(|step| step > STEP_US) { step_us } else { 0 };
        host_us.saturating_sub(judged.ahead_us).saturating_sub(unjudged_us)
    }
}

/// The believed time and how long a step has stood, as they are kept.
fn read(meta: &impl ReadableTable<&'static str, Stored<u64>>) -> Result<(Option<u64>, u64), StoreError> {
    let one = |name| meta.get(name)?.map(|value| value.value().decode()).transpose();
    Ok((one(BELIEVED)?, one(STOOD)?.unwrap_or(0)))
}

fn difference(host: u64, believed: u64) -> i64 {
    i64::try_from(host.saturating_sub(believed)).unwrap_or(i64::MAX)
}

impl Store {
    /// Judges the host's clock, which says `host_us`, when `passed` has gone by since this was done last (or since the store was
    /// opened). Returns how far it is ahead of the believed one, in µs; 0: it is believed.
    ///
    /// # Errors
    /// [`StoreError`] when `state.redb` fails.
    pub fn watch_clock(&self, host_us: i64, passed: Duration) -> Result<i64, StoreError> {
        let host = u64::try_from(host_us).unwrap_or(0);
        let passed = u64::try_from(passed.as_micros()).unwrap_or(u64::MAX);
        // What is stored now is dated before the step is believed or after it, not in between.
        let _one_at_a_time = self.sealing.lock().map_err(|_| StoreError::LockPoisoned)?;
        let newest = self.snapshot().segments.iter().map(|file| file.dated.us()).max();
        let verdict = self.state.write(|transaction| {
            let mut meta = transaction.open_table(META)?;
            let (before, stood) = read(&meta)?;
            // A store that kept no such clock was in use until its newest event at least.
            let used = || newest.and_then(|newest| u64::try_from(newest).ok()).map_or(host, |newest| newest.min(host));
            let verdict = judge(host, before.unwrap_or_else(used), stood, passed);
            meta.insert(BELIEVED, verdict.now.encode()?)?;
            match verdict.stood {
                Some(stood) => drop(meta.insert(STOOD, stood.encode()?)?),
                None => drop(meta.remove(STOOD)?),
            }
            verdict.step.map_or(Ok(()), |step| dated::redate(transaction, step))?;
            Ok(verdict)
        })?;
        verdict.step.map_or(Ok(()), |step| self.redated(step))?;
        let ahead_us = difference(host, verdict.now);
        *self.clock.judged() = Judged { at: Instant::now(), host_us, ahead_us };
        Ok(ahead_us)
    }

    /// How far the host's clock was ahead of the believed one when it was judged last, in µs.
    #[must_use]
    pub fn clock_ahead_us(&self) -> i64 {
        self.clock.judged().ahead_us
    }

    /// The time by which everything here grows old, µs since the Unix epoch.
    #[must_use]
    pub fn believed_us(&self) -> i64 {
        self.clock.believed_us(audit::now_us())
    }
}

/// What is believed.
#[derive(Debug, Clone, Copy)]
struct Verdict {
    now: u64,
    /// How long a step that is not believed has stood.
    stood: Option<u64>,
    /// One that is believed from now on.
    step: Option<Step>,
}

fn judge(host: u64, before: u64, stood: u64, passed: u64) -> Verdict {
    let expected = before.saturating_add(passed);
    let stood = stood.saturating_add(passed);
    if host <= expected.saturating_add(STEP_US) {
        return Verdict { now: host, stood: None, step: None };
    }
    if stood < STAND_US {
        return Verdict { now: expected, stood: Some(stood), step: None };
    }
    let signed = |us: u64| i64::try_from(us).unwrap_or(i64::MAX);
    let step = Step { began_us: signed(expected.saturating_sub(stood)), now_us: signed(host) };
    Verdict { now: host, stood: None, step: Some(step) }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: u64 = 3_600_000_000;
    const YEARS: u64 = 10 * 365 * 24 * HOUR;
    const T0: u64 = 1_760_000_000_000_000;

    fn judge(host: u64, before: u64, stood: u64, passed: u64) -> (u64, Option<u64>) {
        let verdict = super::judge(host, before, stood, passed);
        (verdict.now, verdict.stood)
    }

    #[test]
    fn a_step_is_not_believed_before_it_was_judged() {
        let clock = Clock::default();
        let host_us = clock.judged().host_us;
        let years_us = i64::try_from(YEARS).unwrap();
        assert_eq!(clock.believed_us(host_us), host_us);
        assert!((clock.believed_us(host_us + years_us) - host_us).unsigned_abs() < HOUR);
        assert_eq!(clock.believed_us(host_us - years_us), host_us - years_us, "back is harmless");
    }

    #[test]
    fn a_clock_that_runs_with_the_time_that_passes_is_believed() {
        assert_eq!(judge(T0 + HOUR, T0, 0, HOUR), (T0 + HOUR, None));
        assert_eq!(judge(T0 + 24 * HOUR, T0, 0, HOUR), (T0 + 24 * HOUR, None), "a night of suspend");
        assert_eq!(judge(T0 - YEARS, T0, 0, HOUR), (T0 - YEARS, None), "back is harmless");
    }

    #[test]
    fn a_step_ahead_is_believed_only_after_it_has_stood_for_a_day() {
        let (mut believed, mut stood) = (T0, 0);
        for hours in 1..24 {
            let (now, standing) = judge(T0 + YEARS + hours * HOUR, believed, stood, HOUR);
            assert_eq!(now, T0 + hours * HOUR, "it goes on as time passes");
            (believed, stood) = (now, standing.unwrap());
        }
        assert_eq!(judge(T0 + YEARS + 24 * HOUR, believed, stood, HOUR), (T0 + YEARS + 24 * HOUR, None));
        assert_eq!(judge(believed + HOUR, believed, stood, HOUR), (believed + HOUR, None), "one that was taken back");
    }
}
