//! The logs on good, full, failing and lossy disks, and a collector as a whole.
#![expect(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic, reason = "tests")]

mod descriptors;
mod forged;
mod inject;
mod ledger;
mod lossy;
mod runtime;
mod set_back;
#[cfg(target_os = "linux")]
#[path = "../../../daemoneye-lib/tests/jail/skip.rs"]
mod skip;
mod support;
mod tree;
mod wal;
