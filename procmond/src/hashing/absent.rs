//! Systems where the executable of a process cannot be held while it is hashed.

use super::file::{FileKey, Found, Source, Waiting};
use super::{HashStatus, HashWish};

pub(super) const AVAILABLE: bool = false;

/// No executables.
pub(super) struct Executables;

impl Source for Executables {
    fn find(&self, _wish: &HashWish) -> Result<Found, HashStatus> {
        Err(HashStatus::Unreadable)
    }

    fn hold(&self, _key: FileKey, _wish: &HashWish, _pinned: bool) -> Result<(FileKey, Box<dyn Waiting>), HashStatus> {
        Err(HashStatus::Unreadable)
    }
}
