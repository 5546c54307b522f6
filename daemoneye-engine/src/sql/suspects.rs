//! Whether a file is to blame for a query that failed while it was planned or read: what the query had open is hashed.
//!
//! That takes as long as a disk takes for all of history, and anybody who may ask can bring it about. So it happens on a
//! thread of its own and not on one of the few that read for queries, one at a time, and ends with the query that waits for it.

use super::QueryError;
use super::niceness::lower;
use super::refusal::in_words;
use crate::store::{SegmentFile, Store};
use datafusion::arrow::error::ArrowError;
use datafusion::common::DataFusionError;
use datafusion::parquet::errors::ParquetError;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use tokio::sync::{Semaphore, oneshot};
use tokio_util::sync::CancellationToken;

/// What ended the reading.
#[derive(Debug)]
pub(crate) enum Doubt {
    /// A condition that was evaluated with it; the failure is the query's unless a file is damaged.
    Condition(QueryError),
    /// A decoder gave way.
    Panic,
    /// The file itself.
    Read,
}

impl Doubt {
    /// A condition is evaluated while a file is read, and its own failure (a number that does not fit, a division by zero)
    /// then looks like the file's.
    pub(crate) fn of(error: &DataFusionError) -> Self {
        condition_failed(error).map_or(Self::Read, Self::Condition)
    }

    /// What the query fails with when all files are whole; `None`: its rows end here, and that is told.
    pub(crate) fn failure(self) -> Option<QueryError> {
        match self {
            Self::Condition(error) => Some(error),
            Self::Panic => Some(gave_way()),
            Self::Read => None,
        }
    }
}

/// What is left to say of a panic when no file is to blame.
pub(crate) fn gave_way() -> QueryError {
    QueryError::Execution("the engine failed inside; the agent's log has more".to_owned())
}

fn condition_failed(error: &DataFusionError) -> Option<QueryError> {
    let DataFusionError::ParquetError(read) = error.find_root() else { return None };
    let ParquetError::External(cause) = read.as_ref() else { return None };
    match cause.downcast_ref::<ArrowError>()? {
        // Quoted once more by each layer; what the function said stands inside.
        ArrowError::ComputeError(text) => {
            let inner = text.split_once("(\"").and_then(|(_, rest)| rest.rsplit_once("\")"));
            let said = inner.map(|(said, _)| said).filter(|said| !said.is_empty());
            Some(QueryError::Execution(in_words(said.unwrap_or(text))))
        }
        _ => None,
    }
}

/// Files that were as they were written when they were hashed here, by number; only those that still exist.
type Whole = Arc<Mutex<HashMap<u64, Weak<SegmentFile>>>>;

/// Shared by all queries of an engine.
#[derive(Debug)]
pub(crate) struct Suspects {
    turn: Arc<Semaphore>,
    whole: Whole,
}

impl Default for Suspects {
    fn default() -> Self {
        Self { turn: Arc::new(Semaphore::new(1)), whole: Whole::default() }
    }
}

impl Suspects {
    /// Hashes these files and sets aside the damaged ones; true when there are any. After a condition's failure, which is
    /// hardly ever a file's, one that was found whole before is believed. Dropping the future ends the work.
    pub(crate) async fn check(&self, store: &Arc<Store>, files: Vec<Arc<SegmentFile>>, doubt: &Doubt) -> bool {
        let Ok(turn) = Arc::clone(&self.turn).acquire_owned().await else { return false };
        let files = if matches!(doubt, Doubt::Condition(_)) { self.unknown(files) } else { files };
        if files.is_empty() {
            return false;
        }
        let stop = CancellationToken::new();
        let _stop = stop.clone().drop_guard();
        let (told, damaged) = oneshot::channel();
        let (store, whole) = (Arc::clone(store), Arc::clone(&self.whole));
        let work = move || {
            lower();
            // Nobody waits any more when the query has ended.
            told.send(look(&store, &files, &whole, &stop)).unwrap_or_default();
            drop(turn);
        };
        let started = std::thread::Builder::new().name("sql-check".to_owned()).spawn(work);
        started.is_ok() && damaged.await.unwrap_or(false)
    }

    fn unknown(&self, files: Vec<Arc<SegmentFile>>) -> Vec<Arc<SegmentFile>> {
        let whole = self.whole.lock().unwrap_or_else(PoisonError::into_inner);
        files.into_iter().filter(|file| !whole.contains_key(&file.id)).collect()
    }
}

fn look(store: &Store, files: &[Arc<SegmentFile>], whole: &Whole, stop: &CancellationToken) -> bool {
    let checked = store.check_files(files, &|| !stop.is_cancelled());
    let Ok((sound, damaged)) = checked.inspect_err(|error| tracing::warn!(%error, "files cannot be set aside")) else {
        return false;
    };
    let mut whole = whole.lock().unwrap_or_else(PoisonError::into_inner);
    whole.retain(|_, file| file.strong_count() > 0);
    whole.extend(sound.iter().map(|file| (file.id, Arc::downgrade(file))));
    damaged > 0
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::generate::Generator;
    use crate::ingest::decode;
    use crate::store::StoreOptions;
    use futures::FutureExt as _;

    fn condition() -> Doubt {
        Doubt::Condition(QueryError::Execution("a number does not fit".to_owned()))
    }

    fn sealed() -> (tempfile::TempDir, Arc<Store>) {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(StoreOptions::new(dir.path())).unwrap();
        store.append(decode("procmond", &Generator::new(7, 1).records(100)).unwrap()).unwrap();
        store.seal().unwrap();
        (dir, Arc::new(store))
    }

    #[tokio::test]
    async fn one_check_runs_at_a_time_and_a_file_found_whole_is_not_hashed_for_a_condition_again() {
        let (_dir, store) = sealed();
        let (suspects, files) = (Suspects::default(), store.snapshot().segments);
        let running = Arc::clone(&suspects.turn).acquire_owned().await.unwrap();
        let mut waiting = Box::pin(suspects.check(&store, files.clone(), &Doubt::Read));
        assert_eq!((&mut waiting).now_or_never(), None, "another check runs");
        drop(running);
        assert!(!waiting.await);
        std::fs::write(&files[0].path, vec![0; usize::try_from(files[0].bytes).unwrap()]).unwrap();
        assert!(!suspects.check(&store, files.clone(), &condition()).await, "known to be whole");
        assert!(suspects.check(&store, files, &Doubt::Panic).await);
        assert_eq!(store.snapshot().damaged.len(), 1);
    }

    #[tokio::test]
    async fn a_check_that_nobody_waits_for_ends_and_gives_its_turn_back() {
        let (_dir, store) = sealed();
        let (suspects, files) = (Suspects::default(), store.snapshot().segments);
        std::fs::write(&files[0].path, "cut").unwrap();
        assert_eq!(store.check_files(&files, &|| false).unwrap(), (Vec::new(), 0));
        assert_eq!(store.snapshot().damaged.len(), 0, "nothing is said of a file that was not read to its end");
        let asked = Box::pin(suspects.check(&store, files, &Doubt::Read)).now_or_never();
        assert_eq!(asked, None, "it has only begun");
        drop(suspects.turn.acquire().await.unwrap());
    }
}
