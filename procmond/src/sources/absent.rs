//! The native reader where there is none: opening it says so, and the portable source is taken.

use std::path::Path;

use crate::collector::{ProcessCollectionError, ProcessCollector};

/// Refuses: there is no `/proc` to read.
///
/// # Errors
/// Always.
pub fn open(_proc_root: &Path) -> Result<Box<dyn ProcessCollector>, ProcessCollectionError> {
    Err(ProcessCollectionError::PlatformError {
        source_name: "procfs",
        reason: "this platform has no proc file system".to_owned(),
    })
}
