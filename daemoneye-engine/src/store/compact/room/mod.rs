//! Room for a merged file beside its inputs: a merge must not be what fills the disk that ingest needs. One file per platform.

#[cfg_attr(unix, path = "unix.rs")]
#[cfg_attr(not(unix), path = "other.rs")]
mod platform;

use std::path::Path;

use super::super::StoreError;

/// What a merge leaves to the others: some hundred sealed segments and a log of the collector.
const RESERVE_BYTES: u64 = 128 * 1024 * 1024;

/// Refuses a merge whose output, as large as its inputs at most, may not fit. Where the system does not tell, it fits.
pub(super) fn check(dir: &Path, bytes: u64) -> Result<(), StoreError> {
    fits(dir, bytes, platform::free_bytes(dir))
}

fn fits(dir: &Path, bytes: u64, free: Option<u64>) -> Result<(), StoreError> {
    let needed = bytes.saturating_add(RESERVE_BYTES);
    match free.filter(|free| *free < needed) {
        Some(free) => Err(StoreError::LimitRoom { dir: dir.to_owned(), needed, free }),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_merge_that_would_fill_the_disk_is_refused_with_what_it_needs() {
        let dir = Path::new("segments");
        assert!(fits(dir, 1_000, Some(RESERVE_BYTES + 1_000)).is_ok());
        assert!(fits(dir, u64::MAX, None).is_ok(), "the system does not tell");
        let refused = fits(dir, 1_000, Some(RESERVE_BYTES)).unwrap_err().to_string();
        assert!(refused.contains("134218728") && refused.contains("134217728"), "{refused}");
    }

    #[cfg(unix)]
    #[test]
    fn this_system_tells_how_much_room_there_is() {
        let dir = tempfile::tempdir().unwrap();
        assert!(platform::free_bytes(dir.path()).is_some_and(|free| free > 0));
        assert_eq!(platform::free_bytes(&dir.path().join("none")), None);
    }
}
