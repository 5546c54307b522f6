//! Values of a store written behind its back: what a newer build, or damage, would leave.
#![expect(clippy::unwrap_used, reason = "a test that cannot set itself up should stop there")]

use std::path::Path;

use redb::TableDefinition;

/// The value type of the real tables, with bytes of the test's choosing.
#[derive(Debug)]
pub(crate) struct Raw<const COUNTER: bool>;

impl<const COUNTER: bool> redb::Value for Raw<COUNTER> {
    type SelfType<'a> = &'a [u8];
    type AsBytes<'a> = &'a [u8];

    fn fixed_width() -> Option<usize> {
        None
    }
    fn from_bytes<'a>(data: &'a [u8]) -> &'a [u8]
    where
        Self: 'a,
    {
        data
    }
    fn as_bytes<'a, 'b: 'a>(value: &'a &'b [u8]) -> &'a [u8]
    where
        Self: 'b,
    {
        value
    }
    fn type_name() -> redb::TypeName {
        redb::TypeName::new(if COUNTER { "daemoneye::counter" } else { "daemoneye::system_info" })
    }
}

/// Puts `value` under `key` of a table of a store that nobody has open.
pub(crate) fn overwrite<const COUNTER: bool, K: redb::Key + 'static>(
    dir: &Path,
    table: TableDefinition<'_, K, Raw<COUNTER>>,
    key: K::SelfType<'_>,
    value: &[u8],
) {
    let db = redb::Database::open(dir.join("state.redb")).unwrap();
    let transaction = db.begin_write().unwrap();
    transaction.open_table(table).unwrap().insert(key, value).unwrap();
    transaction.commit().unwrap();
}
