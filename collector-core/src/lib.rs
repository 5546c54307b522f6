//! The collector SDK: a new collector is a source plus some thirty lines.
//!
//! The [`runtime`] wires source → WAL → publisher → heartbeat → control once. A source emits [`SourceEvent`]s whose payload is encoded
//! once; from there the bytes in the WAL, on the bus and in a replay are the same. Nothing here knows what a process is.
//!
//! ```
//! use collector_core::source::{EventSource, SourceContext, SourceError, SourceEvent, SourceHealth};
//! use collector_core::{Runtime, SourceCaps, wal::DirReader};
//! use daemoneye_lib::proto::CollectionCapabilities;
//! use std::sync::Arc;
//! use tokio_util::sync::CancellationToken;
//!
//! struct Temperature;
//!
//! #[async_trait::async_trait]
//! impl EventSource for Temperature {
//!     fn name(&self) -> &str {
//!         "thermal"
//!     }
//!     fn capabilities(&self) -> CollectionCapabilities {
//!         SourceCaps::PERFORMANCE.describe("thermal", "the only one")
//!     }
//!     async fn start(&self, context: SourceContext) -> Result<(), SourceError> {
//!         context.events.emit(vec![SourceEvent::new("events.performance.temperature", 0, b"41".to_vec())]).await?;
//!         context.shutdown.cancelled().await;
//!         Ok(())
//!     }
//!     async fn health(&self) -> SourceHealth {
//!         SourceHealth::default()
//!     }
//! }
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let dir = tempfile::tempdir()?;
//! let stop = CancellationToken::new();
//! let seen = stop.clone();
//! let runtime = Runtime::builder("thermal", "performance", dir.path())
//!     .source(Arc::new(Temperature))
//!     .follow(Arc::new(move |record| if record.topic.ends_with("temperature") { seen.cancel() }));
//! tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(runtime.run(stop))?;
//!
//! let topics: Vec<String> =
//!     DirReader::open(&dir.path().join("wal"), "thermal", None)?.map(|r| Ok::<_, Box<dyn std::error::Error>>(r?.topic)).collect::<Result<_, _>>()?;
//! assert_eq!(topics, ["events.performance.temperature"]);
//! # Ok(())
//! # }
//! ```

mod control;
mod disk;
mod error;
pub mod ledger;
mod lock;
mod platform;
mod publisher;
pub mod runtime;
pub mod source;
pub mod testing;
pub mod wal;
mod writer;

pub use disk::{Disk, DiskDir, DiskFile, RealDisk};
pub use error::CollectorError;
pub use runtime::{Runtime, RuntimeBuilder, State, Stopped};
pub use source::{
    EventSource, MonitorCollector, SourceCaps, SourceContext, SourceError, SourceEvent, SourceHealth, Tasks,
    TriggerableCollector,
};

/// Creates a file that only this user may read, in place of one that a broken-off run left there.
///
/// # Errors
/// What the operating system says.
pub fn private_file(path: &std::path::Path) -> std::io::Result<std::fs::File> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error),
        _ => platform::create_file(path, 0o600),
    }
}

/// Opens a file that only this user may read, as [`private_file`] makes it; `None` when others may as well.
///
/// # Errors
/// What the operating system says; a link is not followed.
pub fn open_private(path: &std::path::Path) -> std::io::Result<Option<std::fs::File>> {
    let file = platform::open_no_follow(path)?;
    Ok(platform::is_private(&file.metadata()?).then_some(file))
}
