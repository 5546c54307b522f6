//! What the agent knows about the host and its scans: bounded logs, the oldest rows go.

use daemoneye_lib::model::{ScanMetadata, SystemInfo};
use redb::{ReadableTable as _, TableDefinition};

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
        self.logged(SYSTEM)
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
        self.logged(SCANS)
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

    fn logged<T: Record>(&self, table: TableDefinition<'_, u64, Stored<T>>) -> Result<Vec<T>, StoreError> {
        let transaction = self.state.read()?;
        let table = transaction.open_table(table)?;
        table.iter()?.map(|entry| entry?.1.value().decode()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::StoreOptions;

    #[test]
    fn a_log_keeps_the_newest_rows_only() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(StoreOptions::new(dir.path())).unwrap();
        let scan = |cycles| ScanMetadata {
            time_us: 1,
            collector: "procmond".into(),
            cycles,
            processes: 1,
            events: 1,
            errors: 0,
        };
        for cycles in 1..=5 {
            store.log(SCANS, "last_scan", &scan(cycles), 3).unwrap();
        }
        assert_eq!(store.scans().unwrap(), [scan(3), scan(4), scan(5)]);
    }
}
