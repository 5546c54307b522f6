//! From the bytes of the bus to rows whose watermark is committed: decoded, appended, sealed with its syncs, on one thread as
//! the agent does it.

use std::time::{Duration, Instant};

use daemoneye_engine::ingest::decode;
use daemoneye_engine::store::Store;

use crate::events::{Events, RUN};

/// Runs that are generated before the clock starts again: their bytes stay below 50 MB.
const AHEAD: usize = 64;

/// What ingest took.
pub(crate) struct Ingested {
    pub(crate) rows: usize,
    pub(crate) took: Duration,
}

impl Ingested {
    pub(crate) fn rows_per_second(&self) -> f64 {
        self.rows as f64 / self.took.as_secs_f64()
    }
}

/// Fills the store; making the events is not counted.
pub(crate) fn fill(store: &Store, events: &mut Events, rows: usize) -> Ingested {
    let mut took = Duration::ZERO;
    let mut left = rows;
    while left > 0 {
        let mut runs = Vec::with_capacity(AHEAD);
        while left > 0 && runs.len() < AHEAD {
            let records = events.records(left.min(RUN));
            left -= records.len();
            runs.push(records);
        }
        let began = Instant::now();
        for records in &runs {
            store.append(decode("procmond", records).unwrap()).unwrap();
            if store.seal_due() {
                store.seal().unwrap();
            }
        }
        if left == 0 {
            store.seal().unwrap();
        }
        took += began.elapsed();
    }
    Ingested { rows, took }
}
