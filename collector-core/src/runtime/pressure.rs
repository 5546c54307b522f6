//! Backpressure: what waits between the WAL and the bus has a bound; near it, the source is asked to look less often.
//!
//! Nothing is shed here, and what a kernel announces is never slowed: only the interval of looks changes. On at 70 %, off below
//! 50 %, so it does not flap; each step makes the interval half as long again.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::source::Settings;

/// How often it is judged.
const TICK: Duration = Duration::from_secs(1);
/// Share of the buffer at which the interval is stretched, in percent.
const ON_PERCENT: f64 = 70.0;
/// Share below which the interval is what it was asked to be, in percent.
const OFF_PERCENT: f64 = 50.0;
/// A step makes the interval 3/2 as long.
const STEP: (u32, u32) = (3, 2);
/// Longest stretched interval: an hour without a look is as far as a monitor may go.
const MAX_INTERVAL: Duration = Duration::from_secs(3600);

/// Stretches and restores the interval of `settings` until `shutdown`; counts how often it went on.
pub(super) async fn keep(
    percent: impl Fn() -> f64,
    settings: &watch::Sender<Settings>,
    count: &AtomicU64,
    shutdown: CancellationToken,
) {
    let mut pressure = Pressure::default();
    loop {
        tokio::select! {
            () = shutdown.cancelled() => return,
            () = tokio::time::sleep(TICK) => {}
        }
        let original = settings.borrow().original_interval;
        let steps = pressure.steps;
        pressure.observe(percent(), original, Instant::now());
        if steps == 0 && pressure.steps > 0 {
            count.fetch_add(1, Ordering::Relaxed);
        }
        // Compared each time: an update of the configuration sets the interval without knowing of the pressure.
        let interval = pressure.interval(original);
        let changed = settings.send_if_modified(|settings| {
            let changes = settings.original_interval == original && settings.interval != interval;
            if changes {
                settings.interval = interval;
            }
            changes
        });
        if changed {
            tracing::warn!(?interval, asked_for = ?original, "backpressure changes how often the source looks");
        }
    }
}

#[derive(Debug, Default)]
struct Pressure {
    /// How often the interval was stretched; 0: off.
    steps: u32,
    /// When the next step is due at the earliest.
    next_step: Option<Instant>,
}

impl Pressure {
    fn observe(&mut self, percent: f64, original: Duration, now: Instant) {
        if percent < OFF_PERCENT {
            *self = Self::default();
        } else if percent >= ON_PERCENT
            && self.next_step.is_none_or(|due| now >= due)
            && (self.steps == 0 || self.interval(original) < MAX_INTERVAL)
        {
            self.steps += 1;
            // A step takes effect at the source's next look, so the next one is judged after that.
            self.next_step = now.checked_add(self.interval(original));
        }
    }

    /// What `original` is stretched to; an interval that was asked to be longer than an hour stays.
    fn interval(&self, original: Duration) -> Duration {
        let longest = MAX_INTERVAL.max(original);
        let mut interval = original;
        for _ in 0..self.steps {
            if interval >= longest {
                break;
            }
            interval = interval * STEP.0 / STEP.1;
        }
        interval.min(longest)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    /// The task under a paused clock, the share set by the test.
    struct Bench {
        percent: Arc<AtomicU64>,
        count: Arc<AtomicU64>,
        settings: Arc<watch::Sender<Settings>>,
    }

    impl Bench {
        fn start(interval_s: u64) -> Self {
            let interval = Duration::from_secs(interval_s);
            let settings = Settings { interval, original_interval: interval, max_events_in_flight: 1, paused: false };
            let bench = Self {
                percent: Arc::default(),
                count: Arc::default(),
                settings: Arc::new(watch::Sender::new(settings)),
            };
            let (percent, count, settings) =
                (Arc::clone(&bench.percent), Arc::clone(&bench.count), Arc::clone(&bench.settings));
            tokio::spawn(async move {
                let share = || f64::from(u32::try_from(percent.load(Ordering::Relaxed)).unwrap()) / 10.0;
                keep(share, &settings, &count, CancellationToken::new()).await;
            });
            bench
        }

        /// The interval in ms after `seconds` at `tenths` of a percent, and how often pressure has set in.
        async fn after(&self, tenths: u64, seconds: u64) -> (u128, u64) {
            self.percent.store(tenths, Ordering::Relaxed);
            tokio::time::sleep(Duration::from_millis(seconds * 1000 + 1)).await;
            (self.settings.borrow().interval.as_millis(), self.count.load(Ordering::Relaxed))
        }
    }

    #[tokio::test(start_paused = true)]
    async fn it_goes_on_at_seventy_percent_and_off_only_below_fifty() {
        let bench = Bench::start(10);
        assert_eq!(bench.after(699, 5).await, (10_000, 0));
        assert_eq!(bench.after(700, 2).await, (15_000, 1));
        assert_eq!(bench.after(500, 60).await, (15_000, 1), "between the two nothing changes");
        assert_eq!(bench.after(499, 2).await, (10_000, 1));
        assert_eq!(bench.after(650, 60).await, (10_000, 1), "the way up needs seventy again");
        assert_eq!(bench.after(700, 2).await, (15_000, 2));
    }

    #[tokio::test(start_paused = true)]
    async fn each_step_is_half_as_long_again_waits_for_the_one_before_and_ends_at_an_hour() {
        let bench = Bench::start(10);
        assert_eq!(bench.after(1000, 2).await, (15_000, 1));
        assert_eq!(bench.after(1000, 12).await, (15_000, 1), "the source has not looked at that interval yet");
        assert_eq!(bench.after(1000, 5).await, (22_500, 1));
        assert_eq!(bench.after(1000, 100_000).await, (3_600_000, 1), "steps are not new activations");
    }

    #[tokio::test(start_paused = true)]
    async fn an_update_under_pressure_is_stretched_as_well() {
        let bench = Bench::start(10);
        assert_eq!(bench.after(700, 2).await, (15_000, 1));
        bench.settings.send_modify(|settings| {
            settings.original_interval = Duration::from_secs(20);
            settings.interval = settings.original_interval;
        });
        assert_eq!(bench.after(600, 2).await, (30_000, 1));
        assert_eq!(bench.after(100, 2).await, (20_000, 1));
    }
}
