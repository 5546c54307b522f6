//! Lower scheduling priority for query threads, so that a query never starves ingest. One file per platform.

#[cfg_attr(target_os = "linux", path = "linux.rs")]
#[cfg_attr(not(target_os = "linux"), path = "other.rs")]
mod platform;

pub(crate) use platform::lower;
