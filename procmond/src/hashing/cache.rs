//! What became of files that were read before.

use std::collections::{HashMap, VecDeque};

use super::HashStatus;
use super::file::FileKey;

/// Files that are remembered: more than a host runs; about 200 bytes each.
const FILES: usize = 4096;

/// How old a file's last change must be before its identity is trusted to name its content: the coarsest clocks of file
/// systems tick every two seconds, and a file may be written twice within one tick.
const SETTLED_S: i64 = 2;

/// How long a file that took too long is not tried again: long enough that such files take a hundredth of the time, short
/// enough that one busy hour leaves no file without its hash for good.
const TIMEOUT_S: i64 = 1000;

#[derive(Clone, Copy)]
enum Known {
    Hash([u8; 32]),
    /// Not to be tried before this second.
    TooSlow(i64),
}

#[derive(Default)]
pub(super) struct Cache {
    files: HashMap<FileKey, Known>,
    order: VecDeque<FileKey>,
}

impl Cache {
    pub(super) fn outcome_of(&self, key: &FileKey, now_s: i64) -> Option<Result<[u8; 32], HashStatus>> {
        match self.files.get(key)? {
            Known::Hash(hash) => Some(Ok(*hash)),
            Known::TooSlow(until_s) => (now_s < *until_s).then_some(Err(HashStatus::Timeout)),
        }
    }

    /// Remembers that a file took too long.
    pub(super) fn skip(&mut self, key: FileKey, now_s: i64) {
        self.insert(key, Known::TooSlow(now_s.saturating_add(TIMEOUT_S)));
    }

    /// Remembers a hash, when the file had not changed for a while at `now_s`, and forgets the oldest.
    pub(super) fn keep(&mut self, key: FileKey, hash: [u8; 32], now_s: i64) {
        let last = key.modified.0.max(key.changed.0);
        if now_s.saturating_sub(last) > SETTLED_S {
            self.insert(key, Known::Hash(hash));
        }
    }

    fn insert(&mut self, key: FileKey, known: Known) {
        if self.files.insert(key, known).is_some() {
            return;
        }
        self.order.push_back(key);
        if self.order.len() > FILES
            && let Some(oldest) = self.order.pop_front()
        {
            self.files.remove(&oldest);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(inode: u64, changed_s: i64) -> FileKey {
        FileKey { device: (0, 1), inode, size: 1, modified: (0, 0), changed: (changed_s, 0) }
    }

    #[test]
    fn a_file_that_has_just_changed_is_hashed_again() {
        let mut cache = Cache::default();
        cache.keep(key(1, 100), [1; 32], 102);
        cache.keep(key(2, 100), [2; 32], 103);
        assert_eq!(
            (cache.outcome_of(&key(1, 100), 103), cache.outcome_of(&key(2, 100), 103)),
            (None, Some(Ok([2; 32])))
        );
    }

    #[test]
    fn the_oldest_is_forgotten_first() {
        let mut cache = Cache::default();
        for inode in 0..=FILES as u64 {
            cache.keep(key(inode, 0), [0; 32], 100);
        }
        assert!(cache.outcome_of(&key(0, 0), 100).is_none() && cache.outcome_of(&key(1, 0), 100).is_some());
        assert_eq!((cache.files.len(), cache.order.len()), (FILES, FILES));
    }

    #[test]
    fn a_file_that_took_too_long_is_tried_again_after_a_while() {
        let mut cache = Cache::default();
        cache.skip(key(1, 0), 100);
        assert_eq!(cache.outcome_of(&key(1, 0), 99 + TIMEOUT_S), Some(Err(HashStatus::Timeout)));
        assert_eq!(cache.outcome_of(&key(1, 0), 100 + TIMEOUT_S), None);
    }
}
