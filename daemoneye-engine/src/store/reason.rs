//! Why events or rows are not there: the words in the table `coverage` that this crate writes or gives a meaning.

/// Alerts were removed because all together had become too large.
pub(crate) const ALERTS_RETENTION: &str = "alerts_retention";
/// Of these, such as a sink was still to get.
pub(crate) const ALERTS_UNDELIVERED: &str = "alerts_undelivered";
/// Entries for the ledger found the outbox full.
pub(crate) const AUDIT_FULL: &str = "audit_outbox_full";
/// Lifetimes of processes were removed because of their age.
pub(crate) const LIFETIMES_RETENTION: &str = "lifetimes_retention";
/// Nobody captured.
pub(crate) const COLLECTOR_UNAVAILABLE: &str = "collector_unavailable";
/// Events of a kind that is not stored.
pub(crate) const NO_TABLE: &str = "no_table";
/// A stream goes on behind records that never came.
pub(crate) const NOT_RECEIVED: &str = "not_received";
/// The table of live processes was full.
pub(crate) const PROCESSES_FULL: &str = "processes_full";
/// Removed because of its age.
pub(crate) const RETENTION: &str = "retention";
/// A rule takes too long, and alerts come late.
pub(crate) const RULE_OVER_BUDGET: &str = "rule_over_budget";
/// The disk failed and no events were taken; the collectors kept them.
pub(crate) const STORE_PAUSED: &str = "store_paused";
/// A subscriber of the bus was too slow for a copy; the store has the events.
pub(crate) const SUBSCRIBER_SLOW: &str = "subscriber_slow";
/// A registered file of events cannot be used.
pub(crate) const SEGMENT_DAMAGED: &str = "segment_damaged";
/// Files of events that `state.redb` does not know.
pub(crate) const SEGMENTS_UNREGISTERED: &str = "segments_unregistered";
/// Events in a copied log that are more than an offline store holds.
pub(crate) const WAL_BEYOND_BOUND: &str = "wal_beyond_bound";
/// Events in a copied log that cannot be read.
pub(crate) const WAL_UNREADABLE: &str = "wal_unreadable";
