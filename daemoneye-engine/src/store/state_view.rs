//! `state.redb` as it stood at one instant, read a row at a time: what one statement sees, however often it reads a table.
//!
//! While it lives, redb keeps the pages that it shows, and the file cannot be made smaller. Whoever holds one lets it go with
//! the last row that is read from it.

use std::collections::VecDeque;

use daemoneye_lib::model::{Alert, AlertStatus, DetectionRule, ScanMetadata, SystemInfo};
use daemoneye_lib::proto::CoverageGap;
use redb::{Key, ReadOnlyTable, ReadTransaction, TableDefinition, WriteTransaction};
use uuid::Uuid;

use super::alert::{Listed, StoredAlert, listed};
use super::coverage::{CoverageRow, StoredGap};
use super::outbox::{Delivery, DeliveryRow};
use super::state::{ALERTS, COVERAGE, COVERAGE_NEWEST, DELIVERIES, META, RULE_VERSIONS, RULES, SCANS, SYSTEM, key};
use super::unreceived::Told;
use super::value::{Record, Stored};
use super::versions::RuleText;
use super::{AlertFilter, Store, StoreError, reason};

/// Rows as they are read; after an error come none.
pub type Rows<T> = Box<dyn Iterator<Item = Result<T, StoreError>> + Send>;

/// A table of which rows are gone that were there once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Thinned {
    /// Past the retention.
    Alerts,
    /// Past the retention.
    Coverage,
    /// With their alerts.
    Deliveries,
    /// Only the newest are kept.
    Scans,
    /// Only the newest are kept.
    SystemInfo,
}

impl Thinned {
    /// Where `meta` says up to when rows were removed; `None`: the numbers of the rows that are left tell.
    const fn key(self) -> Option<&'static str> {
        match self {
            Self::Alerts => Some("alerts_removed_us"),
            Self::Coverage => Some("coverage_removed_us"),
            Self::Deliveries => Some("deliveries_removed_us"),
            Self::Scans | Self::SystemInfo => None,
        }
    }

    /// Writes down that rows up to then were removed, in the transaction that removes them.
    pub(super) fn mark(self, transaction: &WriteTransaction, until_us: Option<i64>) -> Result<(), StoreError> {
        use redb::ReadableTable as _;
        let (Some(name), Some(until_us)) = (self.key(), until_us) else { return Ok(()) };
        let mut meta = transaction.open_table(META)?;
        let before = match meta.get(name)? {
            Some(before) => before.value().decode()?,
            None => 0,
        };
        // Nothing happened before 1970; a clock that says so is wrong.
        let until_us = u64::try_from(until_us).unwrap_or(0).max(before);
        meta.insert(name, until_us.encode()?)?;
        Ok(())
    }
}

/// An alert, as far as it was read.
#[derive(Debug, Clone, PartialEq)]
pub struct AlertRow {
    /// Its id.
    pub id: Uuid,
    /// Time of the event that raised it, µs since the Unix epoch.
    pub time_us: i64,
    /// What was done with it.
    pub status: AlertStatus,
    /// All of it, where that was asked for.
    pub alert: Option<Alert>,
    /// Bytes of what was read, as they are stored.
    pub bytes: usize,
}

/// `state.redb` at one instant.
pub struct StateView {
    transaction: ReadTransaction,
    /// Gaps that were only in memory then, or also there.
    waiting: Vec<CoverageGap>,
}

impl std::fmt::Debug for StateView {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("StateView").field("waiting", &self.waiting.len()).finish_non_exhaustive()
    }
}

impl Store {
    /// `state.redb` as it stands now; what is written later does not show in it.
    ///
    /// # Errors
    /// [`StoreError`] when `state.redb` fails.
    pub fn state_view(&self) -> Result<StateView, StoreError> {
        // Memory first: what is sealed between the two reads is then seen twice and known by its position, not missed.
        let waiting = self.waiting_gaps()?;
        Ok(StateView { transaction: self.state.read()?, waiting })
    }
}

impl StateView {
    /// Alerts, newest first; `whole`: more than the index tells.
    ///
    /// # Errors
    /// [`StoreError`] when `state.redb` fails.
    pub fn alerts(&self, filter: &AlertFilter, whole: bool) -> Result<Rows<AlertRow>, StoreError> {
        let stored = self.transaction.open_table(ALERTS)?;
        if let Some(id) = filter.id {
            let found = alert_row(&stored, id, whole).transpose();
            let wanted = filter.clone();
            return Ok(Box::new(found.into_iter().filter(move |row| match row {
                Ok(row) => wanted.takes(row),
                Err(_) => true,
            })));
        }
        let begin = |status: &AlertStatus| NewestOf::begin(*status, listed(&self.transaction, *status, filter)?);
        let lists = filter.statuses.iter().map(begin).collect::<Result<Vec<_>, StoreError>>()?;
        let newest = Newest { lists, stored, whole };
        Ok(Box::new(newest.take(filter.limit)))
    }

    /// The deliveries of all sinks, by sink.
    ///
    /// # Errors
    /// [`StoreError`] when `state.redb` fails.
    pub fn deliveries(&self) -> Result<Rows<Delivery>, StoreError> {
        self.each(DELIVERIES, |(sink, id): (&str, u128), row: DeliveryRow| row.into_delivery(sink, id))
    }

    /// Every gap: those that are stored by time, and then those that wait in memory for the next seal; without what was told
    /// twice.
    ///
    /// # Errors
    /// [`StoreError`] when `state.redb` fails.
    pub fn coverage(&self) -> Result<Rows<CoverageRow>, StoreError> {
        let holes = self.holes()?;
        if holes.is_empty() {
            return Ok(Box::new(self.gaps()?));
        }
        let told = Told::of(holes, self.gaps()?.map(|row| Ok(row?.gap)))?;
        let rest = move |row: CoverageRow| Some(CoverageRow { gap: told.rest(row.gap)?, ..row });
        Ok(Box::new(self.gaps()?.filter_map(move |row| row.map(&rest).transpose())))
    }

    fn gaps(&self) -> Result<Gaps, StoreError> {
        let stored = self.each(COVERAGE, |(_, id), gap: StoredGap| CoverageRow { id, gap: gap.into_gap() })?;
        Ok(Gaps { stored, waiting: self.waiting.clone().into() })
    }

    /// The collectors in whose streams records are missing.
    fn holes(&self) -> Result<Vec<String>, StoreError> {
        let waiting = self.waiting.iter().filter(|gap| gap.reason == reason::NOT_RECEIVED);
        let mut holes: Vec<String> = waiting.map(|gap| gap.collector.clone()).collect();
        for newest in self.transaction.open_table(COVERAGE_NEWEST)?.range::<(&str, &str)>(..)? {
            let (kind, _) = newest?;
            let (collector, reason) = kind.value();
            if reason == reason::NOT_RECEIVED {
                holes.push(collector.to_owned());
            }
        }
        Ok(holes)
    }

    /// When the first gap that is stored begins, µs since the Unix epoch.
    ///
    /// # Errors
    /// [`StoreError`] when `state.redb` fails.
    pub fn first_gap_us(&self) -> Result<Option<i64>, StoreError> {
        let first = self.transaction.open_table(COVERAGE)?.range::<(i64, u64)>(..)?.next();
        let stored = first.transpose()?.map(|(at, _)| at.value().0);
        Ok(stored.into_iter().chain(self.waiting.iter().map(|gap| gap.from_us)).min())
    }

    /// Every rule that was ever loaded.
    ///
    /// # Errors
    /// [`StoreError`] when `state.redb` fails.
    pub fn rules(&self) -> Result<Rows<DetectionRule>, StoreError> {
        self.each(RULES, |_, rule| rule)
    }

    /// Every version of a rule that is kept, by rule and version.
    ///
    /// # Errors
    /// [`StoreError`] when `state.redb` fails.
    pub fn rule_texts(&self) -> Result<Rows<RuleText>, StoreError> {
        self.each(RULE_VERSIONS, |_, text| text)
    }

    /// The scans that are kept, oldest first.
    ///
    /// # Errors
    /// [`StoreError`] when `state.redb` fails.
    pub fn scans(&self) -> Result<Rows<ScanMetadata>, StoreError> {
        self.each(SCANS, |_, scan| scan)
    }

    /// What the host was at each start, oldest first.
    ///
    /// # Errors
    /// [`StoreError`] when `state.redb` fails.
    pub fn system_info(&self) -> Result<Rows<SystemInfo>, StoreError> {
        self.each(SYSTEM, |_, system| system)
    }

    /// Up to when rows of this table are gone, µs since the Unix epoch; `None`: none are.
    ///
    /// # Errors
    /// [`StoreError`] when `state.redb` fails.
    pub fn removed_until(&self, table: Thinned) -> Result<Option<i64>, StoreError> {
        match table.key() {
            Some(name) => {
                let Some(until) = self.transaction.open_table(META)?.get(name)? else { return Ok(None) };
                Ok(Some(i64::try_from(until.value().decode()?).unwrap_or(i64::MAX)))
            }
            None if table == Thinned::Scans => self.before_first(SCANS, |scan| scan.time_us),
            None => self.before_first(SYSTEM, |system| system.time_us),
        }
    }

    /// Rows are numbered from 1, so a first one of a higher number had others before it.
    fn before_first<T: Record>(
        &self,
        table: TableDefinition<'_, u64, Stored<T>>,
        time_us: impl Fn(&T) -> i64,
    ) -> Result<Option<i64>, StoreError> {
        let first = self.transaction.open_table(table)?.range::<u64>(..)?.next().transpose()?;
        match first {
            Some((id, row)) if id.value() > 1 => Ok(Some(time_us(&row.value().decode()?).saturating_sub(1))),
            _ => Ok(None),
        }
    }

    fn each<K: Key + Send + 'static, T: Record + Send, R: 'static>(
        &self,
        table: TableDefinition<'_, K, Stored<T>>,
        read: impl Fn(K::SelfType<'_>, T) -> R + Send + 'static,
    ) -> Result<Rows<R>, StoreError> {
        let rows = self.transaction.open_table(table)?.range::<K::SelfType<'_>>(..)?;
        Ok(Box::new(rows.map(move |entry| {
            let (at, row) = entry?;
            let row = row.value().decode()?;
            Ok(read(at.value(), row))
        })))
    }
}

impl AlertFilter {
    fn takes(&self, row: &AlertRow) -> bool {
        self.statuses.contains(&row.status)
            && self.from_us.is_none_or(|from_us| row.time_us >= from_us)
            && self.to_us.is_none_or(|to_us| row.time_us <= to_us)
            && self.limit > 0
    }
}

type StoredAlerts = ReadOnlyTable<u128, Stored<StoredAlert>>;

fn alert_row(stored: &StoredAlerts, id: Uuid, whole: bool) -> Result<Option<AlertRow>, StoreError> {
    let Some(found) = stored.get(key(id))? else { return Ok(None) };
    let (bytes, found) = (found.value().len(), found.value().decode()?);
    let (time_us, status) = (found.time_us, found.status);
    let alert = if whole { Some(found.into_alert()?) } else { None };
    Ok(Some(AlertRow { id, time_us, status, alert, bytes }))
}

/// The alerts of one status, the newest next.
struct NewestOf {
    status: AlertStatus,
    /// Time and id.
    next: Option<(i64, u128)>,
    rest: Listed,
}

impl NewestOf {
    fn begin(status: AlertStatus, rest: Listed) -> Result<Self, StoreError> {
        let mut list = Self { status, next: None, rest };
        list.step()?;
        Ok(list)
    }

    fn step(&mut self) -> Result<(), StoreError> {
        self.next = match self.rest.next().transpose()? {
            Some((at, _)) => {
                let (_, time_us, id) = at.value();
                Some((time_us, id))
            }
            None => None,
        };
        Ok(())
    }
}

/// The alerts of several statuses, the newest first.
struct Newest {
    lists: Vec<NewestOf>,
    stored: StoredAlerts,
    whole: bool,
}

impl Newest {
    fn step(&mut self) -> Result<Option<AlertRow>, StoreError> {
        loop {
            let Some(list) = self.lists.iter_mut().max_by_key(|list| list.next) else { return Ok(None) };
            let Some((time_us, id)) = list.next else { return Ok(None) };
            let status = list.status;
            list.step()?;
            let id = Uuid::from_u128(id);
            if !self.whole {
                return Ok(Some(AlertRow { id, time_us, status, alert: None, bytes: 0 }));
            }
            if let Some(row) = alert_row(&self.stored, id, true)? {
                return Ok(Some(row));
            }
        }
    }
}

impl Iterator for Newest {
    type Item = Result<AlertRow, StoreError>;

    fn next(&mut self) -> Option<Self::Item> {
        let row = self.step();
        if row.is_err() {
            self.lists.clear();
        }
        row.transpose()
    }
}

/// Stored gaps, and then those in memory that none of them covers.
struct Gaps {
    stored: Rows<CoverageRow>,
    waiting: VecDeque<CoverageGap>,
}

impl Iterator for Gaps {
    type Item = Result<CoverageRow, StoreError>;

    fn next(&mut self) -> Option<Self::Item> {
        let Some(row) = self.stored.next() else {
            return self.waiting.pop_front().map(|gap| Ok(CoverageRow { id: 0, gap }));
        };
        if let Ok(CoverageRow { gap: row, .. }) = &row {
            let same = |gap: &CoverageGap| row.collector == gap.collector && row.reason == gap.reason;
            self.waiting.retain(|gap| !(gap.last.is_some() && same(gap) && row.last >= gap.last));
        }
        Some(row)
    }
}
