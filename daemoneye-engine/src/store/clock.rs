//! The clock by which history and deliveries grow old. The host's may be set wrongly, by ten years and by anybody who may set it, and what retention has
//! removed is gone: so a step ahead is believed only when it has stood for a while.
//!
//! A step is what the clock gains beyond the time that has passed in this process; a suspended or powered-off host makes one
//! too, and its history then stays as much longer. A step back is believed at once: it removes nothing.

use std::sync::atomic::Ordering;
use std::time::Duration;

use redb::ReadableTable as _;

use super::state::META;
use super::value::Record as _;
use super::{Store, StoreError};

/// Steps up to this are taken for granted: more than any time zone mistake, summer time or short suspend.
const STEP_US: u64 = 86_400_000_000;
/// How long a longer step has to stand, in time that the agent has run: long enough that somebody who looks at the host once a
/// day finds it told before anything is removed.
const STAND_US: u64 = 86_400_000_000;
/// The believed time, µs since the Unix epoch, when retention ran last.
const BELIEVED: &str = "retention_clock_us";
/// How long the present step has stood, in µs; absent while there is none.
const STOOD: &str = "retention_clock_stood_us";

impl Store {
    /// Judges the host's clock, which says `host_us`, when `passed` has gone by since this was done last (or since the store was
    /// opened). Returns how far it is ahead of the believed one, in µs; 0: it is believed.
    ///
    /// # Errors
    /// [`StoreError`] when `state.redb` fails.
    pub fn watch_clock(&self, host_us: i64, passed: Duration) -> Result<i64, StoreError> {
        let host = u64::try_from(host_us).unwrap_or(0);
        let passed = u64::try_from(passed.as_micros()).unwrap_or(u64::MAX);
        let newest = self.snapshot().segments.iter().map(|file| file.last_us).max();
        let ahead_us = self.state.write(|transaction| {
            let mut meta = transaction.open_table(META)?;
            let before = match meta.get(BELIEVED)? {
                Some(before) => before.value().decode()?,
                // A store that kept no such clock was in use until its newest event at least.
                None => newest.and_then(|newest| u64::try_from(newest).ok()).map_or(host, |newest| newest.min(host)),
            };
            let stood = match meta.get(STOOD)? {
                Some(stood) => stood.value().decode()?,
                None => 0,
            };
            let (now, standing) = judge(host, before, stood, passed);
            meta.insert(BELIEVED, now.encode()?)?;
            match standing {
                Some(standing) => drop(meta.insert(STOOD, standing.encode()?)?),
                None => drop(meta.remove(STOOD)?),
            }
            Ok(i64::try_from(host.saturating_sub(now)).unwrap_or(i64::MAX))
        })?;
        self.clock_ahead_us.store(ahead_us, Ordering::Relaxed);
        Ok(ahead_us)
    }

    /// How far the host's clock was ahead of the believed one when it was judged last, in µs.
    #[must_use]
    pub fn clock_ahead_us(&self) -> i64 {
        self.clock_ahead_us.load(Ordering::Relaxed)
    }
}

/// The believed time, and how long a step that is not believed has stood.
fn judge(host: u64, before: u64, stood: u64, passed: u64) -> (u64, Option<u64>) {
    let expected = before.saturating_add(passed);
    let stood = stood.saturating_add(passed);
    if host <= expected.saturating_add(STEP_US) || stood >= STAND_US { (host, None) } else { (expected, Some(stood)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: u64 = 3_600_000_000;
    const YEARS: u64 = 10 * 365 * 24 * HOUR;
    const T0: u64 = 1_760_000_000_000_000;

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
