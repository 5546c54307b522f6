//! What the agent knows about the host and its scans: bounded logs, the oldest rows go.

use daemoneye_lib::model::{ScanMetadata, SystemInfo};
use redb::TableDefinition;

use super::state::{SCANS, SYSTEM, next};
use super::value::{Record, Stored};
use super::{Store, StoreError};

/// Scans that are kept: at one heartbeat every 30 s, three and a half days.
const SCANS_KEPT: u64 = 10_000;
/// Descriptions of the host that are kept: one per start of the agent.
const SYSTEMS_KEPT: u64 = 1_000;

impl Store {
    /// Records what the host is.
    ///
    /// # Errors
    /// [`StoreError`] when `state.redb` fails.
    pub fn put_system_info(&self, system: &SystemInfo) -> Result<(), StoreError> {
        self.log(SYSTEM, "last_system", system, SYSTEMS_KEPT)
    }

    /// What the host was at each start, oldest first.
    ///
    /// # Errors
    /// [`StoreError`] when `state.redb` fails or a row cannot be read.
    pub fn system_info(&self) -> Result<Vec<SystemInfo>, StoreError> {
        self.state_view()?.system_info()?.collect()
    }

    /// Records a scan.
    ///
    /// # Errors
    /// [`StoreError`] when `state.redb` fails.
    pub fn put_scan(&self, scan: &ScanMetadata) -> Result<(), StoreError> {
        self.log(SCANS, "last_scan", scan, SCANS_KEPT)
    }

    /// The scans that are kept, oldest first.
    ///
    /// # Errors
    /// [`StoreError`] when `state.redb` fails or a row cannot be read.
    pub fn scans(&self) -> Result<Vec<ScanMetadata>, StoreError> {
        self.state_view()?.scans()?.collect()
    }

    fn log<T: Record>(
        &self,
        table: TableDefinition<'_, u64, Stored<T>>,
        counter: &str,
        record: &T,
        kept: u64,
    ) -> Result<(), StoreError> {
        self.state.write(|transaction| {
            let id = next(transaction, counter)?;
            let mut table = transaction.open_table(table)?;
            table.insert(id, record.encode()?)?;
            table.retain_in(..=id.saturating_sub(kept), |_, _| false)?;
            Ok(())
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::{StoreOptions, Thinned};

    #[test]
    fn a_log_keeps_the_newest_rows_only() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(StoreOptions::new(dir.path())).unwrap();
        let scan = |cycles: u64| ScanMetadata {
            time_us: i64::try_from(cycles).unwrap() * 10,
            collector: "procmond".into(),
            cycles,
            processes: 1,
            events: 1,
            errors: 0,
        };
        let gone = || store.state_view().unwrap().removed_until(Thinned::Scans).unwrap();
        for cycles in 1..=5 {
            assert_eq!(gone(), (cycles > 4).then_some(19), "{cycles}");
            store.log(SCANS, "last_scan", &scan(cycles), 3).unwrap();
        }
        assert_eq!(gone(), Some(29), "those from before the oldest that is left");
        assert_eq!(store.scans().unwrap(), [scan(3), scan(4), scan(5)]);
    }
}
