//! The tables whose rows lie in files: one list, so that sealing, retention and queries treat them alike.
//!
//! Their schemas share the column `time`, by which files are named, pruned and removed: of an event when it happened, of a
//! lifetime when its end was told.

use std::sync::Arc;

use datafusion::arrow::datatypes::SchemaRef;

use super::reason;
use crate::schema::table_schema;

/// A table of history.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum HistoryTable {
    /// Every event.
    ProcessEvents,
    /// Every process that has ended.
    ProcessLifetimes,
}

impl HistoryTable {
    pub(super) const ALL: [Self; 2] = [Self::ProcessEvents, Self::ProcessLifetimes];

    /// SQL name; the first part of its files' names and keys.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::ProcessEvents => "process_events",
            Self::ProcessLifetimes => "process_lifetimes",
        }
    }

    /// The table of that name.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|table| table.name() == name)
    }

    /// The table of a file called `stem`, and the rest of the name behind it.
    pub(super) fn of_file(stem: &str) -> Option<(Self, &str)> {
        Self::ALL.into_iter().find_map(|table| Some((table, stem.strip_prefix(table.name())?.strip_prefix('-')?)))
    }

    /// Its columns.
    #[must_use]
    pub fn schema(self) -> SchemaRef {
        table_schema(self.name()).unwrap_or_else(|| Arc::new(datafusion::arrow::datatypes::Schema::empty()))
    }

    /// The table of which rows are gone for this reason, because they were too old.
    pub(crate) fn removed_for(reason: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|table| table.retention_reason() == reason)
    }

    /// Why rows of it are gone that were too old.
    pub(crate) const fn retention_reason(self) -> &'static str {
        match self {
            Self::ProcessEvents => reason::RETENTION,
            Self::ProcessLifetimes => reason::LIFETIMES_RETENTION,
        }
    }
}
