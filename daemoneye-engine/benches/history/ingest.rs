//! From the bytes of the bus to rows whose watermark is committed: decoded and appended on one thread, sealed with its syncs on
//! another, one segment at a time, as the agent does it.

use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::{self, Scope};
use std::time::{Duration, Instant};

use daemoneye_engine::ingest::decode;
use daemoneye_engine::store::Store;
use daemoneye_lib::proto::Record;

use crate::events::{Events, RUN};

/// Runs that are generated before the clock starts again: sixteen segments of them, below 200 MB.
const AHEAD: usize = 256;

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

/// The thread that seals.
pub(crate) struct Sealing {
    orders: SyncSender<()>,
    done: Receiver<()>,
    begun: bool,
}

impl Sealing {
    pub(crate) fn start<'scope>(scope: &'scope Scope<'scope, '_>, store: &'scope Store) -> Self {
        let (orders, ordered) = sync_channel(1);
        let (out, done) = sync_channel(1);
        scope.spawn(move || {
            while ordered.recv().is_ok() {
                store.seal().unwrap();
                out.send(()).unwrap();
            }
        });
        Self { orders, done, begun: false }
    }

    pub(crate) fn begin(&mut self) {
        self.wait();
        self.orders.send(()).unwrap();
        self.begun = true;
    }

    /// Until no segment is being sealed.
    pub(crate) fn wait(&mut self) {
        if std::mem::take(&mut self.begun) {
            self.done.recv().unwrap();
        }
    }
}

/// Fills the store; making the events is not counted.
pub(crate) fn fill(store: &Store, events: &mut Events, rows: usize) -> Ingested {
    thread::scope(|scope| {
        let mut sealing = Sealing::start(scope, store);
        let mut took = Duration::ZERO;
        let mut left = rows;
        while left > 0 {
            let runs = runs(events, &mut left);
            let began = Instant::now();
            for records in &runs {
                store.append(decode("procmond", records).unwrap()).unwrap();
                if store.seal_due() {
                    sealing.begin();
                }
            }
            if left == 0 {
                sealing.begin();
            }
            // The clock stands still while events are made, so nothing may go on meanwhile.
            sealing.wait();
            took += began.elapsed();
        }
        Ingested { rows, took }
    })
}

fn runs(events: &mut Events, left: &mut usize) -> Vec<Vec<Record>> {
    let mut runs = Vec::with_capacity(AHEAD);
    while *left > 0 && runs.len() < AHEAD {
        let records = events.records((*left).min(RUN));
        *left -= records.len();
        runs.push(records);
    }
    runs
}
