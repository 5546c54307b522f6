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

/// Asks for nothing: no source here is raced.
///
/// # Errors
/// Always.
pub fn run_at_once() -> Result<(), String> {
    Err("this platform has no real-time scheduling that is used here".to_owned())
}

/// None: nothing here announces what could be looked at again.
#[must_use]
pub const fn deleted_executable(_pid: u32) -> Option<String> {
    None
}
