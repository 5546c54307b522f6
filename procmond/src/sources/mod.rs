//! The sources of process records. This file alone knows which platform has which; everything above it sees a
//! [`ProcessCollector`].

use std::path::Path;

use crate::collector::{ProcessCollectionError, ProcessCollector};

#[cfg(target_os = "linux")]
#[path = "procfs/mod.rs"]
pub mod native;

#[cfg(not(target_os = "linux"))]
#[path = "absent.rs"]
pub mod native;

pub mod accounts;
pub mod sysinfo;

/// A source that works here, and why it was taken.
pub struct Chosen {
    /// The reader.
    pub collector: Box<dyn ProcessCollector>,
    /// For `health`.
    pub reason: String,
}

/// Opens the source called `wanted` (`auto`, `procfs`, `sysinfo`). `auto` takes the best that passes its own check.
///
/// # Errors
/// What is wrong with the source that was asked for; for `auto`, with the last one tried.
pub fn choose(wanted: &str, proc_root: &Path) -> Result<Chosen, ProcessCollectionError> {
    match wanted {
        "procfs" => checked(native::open(proc_root)?, "configured".to_owned()),
        "sysinfo" => checked(Box::new(sysinfo::SysinfoCollector::open()?), "configured".to_owned()),
        _ => match native::open(proc_root).and_then(|native| checked(native, "best that works here".to_owned())) {
            Ok(chosen) => Ok(chosen),
            Err(error) => {
                checked(Box::new(sysinfo::SysinfoCollector::open()?), format!("procfs does not work: {error}"))
            }
        },
    }
}

fn checked(mut collector: Box<dyn ProcessCollector>, reason: String) -> Result<Chosen, ProcessCollectionError> {
    collector.health_check()?;
    Ok(Chosen { collector, reason })
}
