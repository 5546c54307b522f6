//! Alerts that went because all together had become too large, as entries say, and whether there were so many.
//!
//! Such an entry names no alert: it says how many went and of which time the latest was. So it excuses that many of those that were
//! told of before it. It comes from the agent's outbox, as every excuse does, so it is held against how much the alerts took that
//! the ledger knows of: fewer than the least setting allows were never too many.

use daemoneye_lib::config::LEAST_ALERT_BYTES;

use super::facts::order;

/// What has gone by age is taken off by the average, which may be far from what it was.
const PLAUSIBLE_BYTES: u64 = LEAST_ALERT_BYTES / 4;

/// What went, as entries say.
#[derive(Debug, Default)]
struct Gone {
    /// Order of an entry, and the time of the latest alert that went; once [`Gone::settle`] has run, by it or a later one.
    crowds: Vec<(u64, i64)>,
    /// How many went.
    alerts: u64,
}

impl Gone {
    fn add(&mut self, entry: Option<u64>, until_us: i64, alerts: u64) {
        self.alerts = self.alerts.saturating_add(alerts);
        self.crowds.push((order(entry), until_us));
    }

    fn settle(&mut self) {
        self.crowds.sort_unstable();
        let mut latest_us = i64::MIN;
        for (_, until_us) in self.crowds.iter_mut().rev() {
            latest_us = latest_us.max(*until_us);
            *until_us = latest_us;
        }
    }

    fn took(&self, newest: Option<u64>, time_us: i64, before: u64) -> bool {
        let behind = self.crowds.partition_point(|(at, _)| *at < order(newest));
        before < self.alerts && self.crowds.get(behind).is_some_and(|(_, until_us)| time_us <= *until_us)
    }
}

/// All of it.
#[derive(Debug)]
pub(super) struct Crowds {
    /// Alerts that are there, and their bytes, as far as the ledger has been read.
    alerts: u64,
    bytes: u64,
    /// No entry was lost, and each said how large its alert was.
    pub(super) is_known: bool,
    gone: Gone,
    /// Where entries were lost, or the store had alerts before this ledger began: how large they were together nobody knows.
    perhaps: Gone,
    /// Entries with fewer alerts than any setting allows.
    pub(super) implausible: Vec<Option<u64>>,
}

impl Default for Crowds {
    fn default() -> Self {
        let (gone, perhaps) = (Gone::default(), Gone::default());
        Self { alerts: 0, bytes: 0, is_known: true, gone, perhaps, implausible: Vec::new() }
    }
}

impl Crowds {
    /// An alert was raised; `None`: by a build that did not say how large it was.
    pub(super) fn comes(&mut self, bytes: Option<i64>) {
        self.is_known &= bytes.is_some();
        self.alerts = self.alerts.saturating_add(1);
        self.bytes = self.bytes.saturating_add(unsigned(bytes));
    }

    /// Some went because of their age.
    pub(super) fn ages(&mut self, alerts: Option<i64>) {
        let gone = unsigned(alerts).min(self.alerts);
        let average = self.bytes.checked_div(self.alerts).unwrap_or_default();
        self.take(gone, average.saturating_mul(gone));
    }

    /// Some went because all together were too large, the latest of them of `until_us`. `had_history`: the store is older than the
    /// ledger.
    pub(super) fn goes(
        &mut self,
        (entry, until_us): (Option<u64>, i64),
        [alerts, bytes]: [Option<i64>; 2],
        had_history: bool,
    ) {
        if self.bytes < PLAUSIBLE_BYTES {
            if self.is_known && !had_history {
                self.implausible.push(entry);
            } else {
                self.perhaps.add(entry, until_us, unsigned(alerts));
            }
            return;
        }
        self.gone.add(entry, until_us, unsigned(alerts));
        self.take(unsigned(alerts), unsigned(bytes));
    }

    fn take(&mut self, alerts: u64, bytes: u64) {
        self.alerts = self.alerts.saturating_sub(alerts);
        self.bytes = self.bytes.saturating_sub(bytes);
    }

    /// Nothing more comes.
    pub(super) fn settle(&mut self) {
        self.gone.settle();
        self.perhaps.settle();
    }

    /// Whether an alert of `time_us` of which `newest` told last may be one of them; `before` others are taken for such already.
    pub(super) fn took(&self, newest: Option<u64>, time_us: i64, before: u64) -> bool {
        self.gone.took(newest, time_us, before)
    }

    /// The same of those of which nobody can tell whether they were too many.
    pub(super) fn perhaps_took(&self, newest: Option<u64>, time_us: i64, before: u64) -> bool {
        self.perhaps.took(newest, time_us, before)
    }
}

fn unsigned(number: Option<i64>) -> u64 {
    number.and_then(|number| u64::try_from(number).ok()).unwrap_or_default()
}
