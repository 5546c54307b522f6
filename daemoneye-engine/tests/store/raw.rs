//! Values of a store written behind its back: what a newer build, damage, or whoever may write its file would leave.
#![expect(clippy::unwrap_used, reason = "a test that cannot set itself up should stop there")]

use std::marker::PhantomData;
use std::path::Path;

use redb::TableDefinition;

/// What a real table calls its values.
pub(crate) trait Named: std::fmt::Debug {
    const NAME: &'static str;
}

#[derive(Debug)]
pub(crate) struct Counter;

impl Named for Counter {
    const NAME: &'static str = "daemoneye::counter";
}

/// The value type of the real tables, with bytes of the test's choosing.
#[derive(Debug)]
pub(crate) struct Raw<T>(PhantomData<T>);

impl<T: Named> redb::Value for Raw<T> {
    type SelfType<'a>
        = &'a [u8]
    where
        Self: 'a;
    type AsBytes<'a>
        = &'a [u8]
    where
        Self: 'a;

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
        redb::TypeName::new(T::NAME)
    }
}

/// Puts `value` under `key` of a table of a store that nobody has open.
pub(crate) fn overwrite<T: Named + 'static, K: redb::Key + 'static>(
    dir: &Path,
    table: TableDefinition<'_, K, Raw<T>>,
    key: K::SelfType<'_>,
    value: &[u8],
) {
    let db = redb::Database::open(dir.join("state.redb")).unwrap();
    let transaction = db.begin_write().unwrap();
    transaction.open_table(table).unwrap().insert(key, value).unwrap();
    transaction.commit().unwrap();
}
