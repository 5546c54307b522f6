//! The tables that a statement may read, by name, and where their rows come from.
//!
//! `process_events` and `process_lifetimes` are scanned from Parquet and the open segment; the rows of every other table are made while the
//! plan runs, a batch at a time. All tables of one query see one snapshot of history, one of `state.redb` and one of what lives, so
//! a self-join cannot see two states.

mod catalog;
mod history;
mod ledger;
mod made;
mod prune;
mod rule_life;
mod segments;
mod system;
mod view;

pub(crate) use history::{History, Readers, bloom_filter, ordered};
pub(crate) use made::{Batches, scan as made_rows};
pub use rule_life::{RuleExceptionRow, RuleLife, RuleListRow, RulePackRow, RuleStatsRow};
pub(crate) use segments::{SEGMENTS_URL, segment_files};
pub(crate) use view::QueryView;

/// The columns of a table.
pub use crate::schema::table_schema as table_columns;

use std::sync::LazyLock;

use crate::detect::rules::Lists;

/// The name of every table, in the order in which they are explained.
pub static TABLES: LazyLock<Vec<&'static str>> =
    LazyLock::new(|| daemoneye_lib::tables::TABLES.iter().map(|table| table.name).collect());

/// Tables whose rows are not in the store: the agent knows them.
pub trait SystemTables: Send + Sync + 'static {
    /// The collectors as they stand now. Called on a query thread: it may lock, it must not wait.
    fn collectors(&self) -> Vec<CollectorRow>;

    /// Whether an agent runs behind it. Without one nobody fills the tables of what only an agent knows, and queries of them say so.
    fn is_live(&self) -> bool {
        true
    }

    /// The document of `health` as it is now, of which `metrics` is made; `None` where nothing keeps one. As above.
    fn health(&self) -> Option<serde_json::Value> {
        None
    }

    /// The lists of values that a statement may name. As above.
    fn lists(&self) -> Lists {
        Lists::default()
    }

    /// The rules as they are loaded now. As above; the lists may be long.
    fn rule_life(&self) -> RuleLife {
        RuleLife::default()
    }
}

/// One row of `collectors`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CollectorRow {
    /// Collector id.
    pub id: String,
    /// What it collects: `process`.
    pub collector_type: String,
    /// Its state word: `running`, `paused`, …
    pub state: String,
    /// Whether it is connected; queries over events say `collector_unavailable` while it is not.
    pub connected: bool,
    /// From this time on, µs since the Unix epoch, events that it has captured may not be in the store yet: it is away, or back
    /// and still repeating. Queries over events of that time say `collector_unavailable`.
    pub behind_since_us: Option<i64>,
    /// Its build.
    pub version: String,
    /// Its process.
    pub pid: Option<u32>,
    /// The source in use.
    pub source: String,
    /// Why that source.
    pub source_reason: String,
    /// When it registered, µs since the Unix epoch.
    pub registered_us: Option<i64>,
    /// When its last heartbeat came, µs since the Unix epoch.
    pub last_heartbeat_us: Option<i64>,
    /// Snapshot cycles.
    pub cycles: u64,
    /// Events captured.
    pub events: u64,
    /// Failed cycles.
    pub errors: u64,
    /// Live processes.
    pub processes: u64,
    /// Events lost.
    pub lost: u64,
    /// Times that the agent started it again.
    pub restarts: u32,
    /// What it leaves out because no rule needs it, in words; `None`: it does not go by rules.
    pub pushdown: Option<String>,
}

/// For offline stores and tests: there are no collectors.
#[derive(Debug, Clone, Copy, Default)]
pub struct NoCollectors;

impl SystemTables for NoCollectors {
    fn is_live(&self) -> bool {
        false
    }

    fn collectors(&self) -> Vec<CollectorRow> {
        Vec::new()
    }
}
