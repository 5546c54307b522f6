//! How much alerts take, and which of them go when that is more than it may be: a rule that matches everything must not fill the
//! disk before anything of it is old.
//!
//! What nobody waits for goes first: suppressed and closed alerts, then others; of each the oldest, and those that a sink is still
//! to get last of all. How much they take is counted in the transactions that add and remove them.

use std::ops::Bound;

use daemoneye_lib::model::AlertStatus;
use daemoneye_lib::proto::CoverageGap;
use redb::{ReadableTable as _, ReadableTableMetadata as _, WriteTransaction};

use super::alert::{STATUSES, StoredAlert, status_key};
use super::forget::{ALERTS_PER_TRANSACTION, Forgotten, Indexed, deliveries, stored, take_out};
use super::outbox::DeliveryState;
use super::owed::{self, Owed};
use super::retention::Expired;
use super::state::{ALERTS, ALERTS_BY_STATUS, META};
use super::value::Record as _;
use super::{Store, StoreError, counts, coverage, reason};

/// Bytes of the stored alerts, as [`weight`] has them, and how many were counted: a build that counts none leaves both alone.
const BYTES: &str = "alerts_bytes";
const COUNTED: &str = "alerts_counted";
/// What an alert takes beside its text: index rows, deliveries, and what repeats add to it.
const BESIDE_BYTES: u64 = 1_024;

/// What coverage and the ledger say about it.
pub(super) const ALERTS_SIZE: &str = "removed because all alerts together had become too large";

/// Bytes of an alert; repeats do not change it.
pub(super) fn weight(stored: &StoredAlert) -> u64 {
    (stored.born().len() as u64).saturating_add(BESIDE_BYTES)
}

/// Counts an alert that this transaction adds.
pub(super) fn add(transaction: &WriteTransaction, stored: &StoredAlert) -> Result<(), StoreError> {
    let (bytes, counted) = (read(transaction, BYTES)?, read(transaction, COUNTED)?);
    set(transaction, bytes.saturating_add(weight(stored)), counted.saturating_add(1))
}

/// The same of one that it removes.
pub(super) fn subtract(transaction: &WriteTransaction, stored: &StoredAlert) -> Result<(), StoreError> {
    let (bytes, counted) = (read(transaction, BYTES)?, read(transaction, COUNTED)?);
    set(transaction, bytes.saturating_sub(weight(stored)), counted.saturating_sub(1))
}

/// Counts anew what a build wrote that counts nothing.
pub(super) fn settle(transaction: &WriteTransaction) -> Result<(), StoreError> {
    let (alerts, counted) = (transaction.open_table(ALERTS)?.len()?, read(transaction, COUNTED)?);
    if alerts == counted {
        return Ok(());
    }
    let mut bytes = 0_u64;
    for alert in transaction.open_table(ALERTS)?.iter()? {
        // One that is damaged is somebody else's to name.
        bytes = bytes.saturating_add(alert?.1.value().decode().map_or(0, |stored| weight(&stored)));
    }
    set(transaction, bytes, alerts)
}

fn read(transaction: &WriteTransaction, name: &str) -> Result<u64, StoreError> {
    match transaction.open_table(META)?.get(name)? {
        Some(number) => number.value().decode(),
        None => Ok(0),
    }
}

fn set(transaction: &WriteTransaction, bytes: u64, counted: u64) -> Result<(), StoreError> {
    let mut meta = transaction.open_table(META)?;
    meta.insert(BYTES, bytes.encode()?)?;
    meta.insert(COUNTED, counted.encode()?)?;
    Ok(())
}

/// Which go together, in their order.
#[derive(Debug, Clone, Copy)]
struct Turn {
    statuses: &'static [AlertStatus],
    /// Those that a sink is still to get, too.
    awaited: bool,
}

const TURNS: [Turn; 4] = [
    Turn { statuses: &[AlertStatus::Suppressed], awaited: true },
    Turn { statuses: &[AlertStatus::Closed], awaited: false },
    Turn { statuses: &STATUSES, awaited: false },
    Turn { statuses: &STATUSES, awaited: true },
];

impl Store {
    /// Bytes of all alerts.
    ///
    /// # Errors
    /// [`StoreError`] when `state.redb` fails.
    pub fn alert_bytes(&self) -> Result<u64, StoreError> {
        match self.state.read()?.open_table(META)?.get(BYTES)? {
            Some(bytes) => bytes.value().decode(),
            None => Ok(0),
        }
    }

    /// Removes alerts while all together are larger than they may be, a bounded number in each transaction, which tells coverage and
    /// the ledger.
    pub(super) fn forget_alerts_by_size(&self) -> Result<Forgotten, StoreError> {
        let mut forgotten = Forgotten::default();
        for turn in TURNS {
            let mut after = None;
            while self.alert_bytes()? > self.options.alert_bytes {
                let oldest = self.oldest_alerts(turn.statuses, after)?;
                let Some((_, time_us, id)) = oldest.last() else { break };
                after = Some((*time_us, *id));
                forgotten.add(self.state.write(|transaction| self.crowd_out(transaction, &oldest, turn.awaited))?);
            }
        }
        Ok(forgotten)
    }

    /// Removes of these as many as have to go.
    fn crowd_out(
        &self,
        transaction: &WriteTransaction,
        oldest: &[Indexed],
        awaited: bool,
    ) -> Result<Forgotten, StoreError> {
        let (mut gone, sinks) = (Forgotten::default(), counts::sinks(transaction)?);
        let mut excess = read(transaction, BYTES)?.saturating_sub(self.options.alert_bytes);
        for at in oldest {
            if excess == 0 {
                break;
            }
            let Some(stored) = stored(transaction, at.2)?.filter(|stored| status_key(stored.status) == at.0) else {
                continue;
            };
            let rows = deliveries(transaction, &sinks, at.2)?;
            let is_awaited = rows.iter().any(|(_, row)| row.state == DeliveryState::Pending);
            if is_awaited && !awaited {
                continue;
            }
            excess = excess.saturating_sub(weight(&stored));
            gone.undelivered = gone.undelivered.saturating_add(u64::from(is_awaited));
            take_out(transaction, *at, stored, &rows, &mut gone)?;
        }
        gone.mark(transaction)?;
        self.tell_crowded_out(transaction, &gone)?;
        Ok(gone)
    }

    fn tell_crowded_out(&self, transaction: &WriteTransaction, gone: &Forgotten) -> Result<(), StoreError> {
        let Some(until_us) = gone.alerts_until_us else { return Ok(()) };
        let (room, now_us) = (self.options.audit_entries, self.believed_us());
        let gap = |reason: &str, count: u64, detail: &str| CoverageGap {
            collector: "agent".to_owned(),
            reason: reason.to_owned(),
            // When it was done, so that it is one row which grows: event times go back and forth, and may lie.
            from_us: now_us,
            to_us: now_us,
            count: Some(count),
            detail: detail.to_owned(),
            ..CoverageGap::default()
        };
        let removed = gap(reason::ALERTS_RETENTION, gone.alerts, ALERTS_SIZE);
        let undelivered = gap(reason::ALERTS_UNDELIVERED, gone.undelivered, "removed before every sink had them");
        for gap in [removed, undelivered].iter().filter(|gap| gap.count != Some(0)) {
            let row = coverage::prolong_alike(transaction, gap)?;
            coverage::tell(transaction, room, [row])?;
        }
        let Forgotten { alerts, deliveries, bytes, .. } = *gone;
        let expired = Expired { alerts, deliveries, bytes, ..Expired::default() };
        owed::tell(transaction, room, ALERTS_SIZE, Owed { before_us: Some(until_us), ranges: Vec::new(), expired })
    }

    /// The oldest alerts with one of these statuses, behind `after`.
    fn oldest_alerts(&self, statuses: &[AlertStatus], after: Option<(i64, u128)>) -> Result<Vec<Indexed>, StoreError> {
        let table = self.state.read()?.open_table(ALERTS_BY_STATUS)?;
        let mut oldest: Vec<Indexed> = Vec::new();
        for status in statuses.iter().map(|status| status_key(*status)) {
            let from = match after {
                Some((time_us, id)) => Bound::Excluded((status, time_us, id)),
                None => Bound::Included((status, i64::MIN, u128::MIN)),
            };
            let range = table.range::<Indexed>((from, Bound::Included((status, i64::MAX, u128::MAX))))?;
            for entry in range.take(ALERTS_PER_TRANSACTION) {
                oldest.push(entry?.0.value());
            }
        }
        oldest.sort_unstable_by_key(|(_, time_us, id)| (*time_us, *id));
        oldest.truncate(ALERTS_PER_TRANSACTION);
        Ok(oldest)
    }
}
