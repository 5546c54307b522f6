//! Any order of seals, merges, reads, restarts and crashes at any step of a merge: no row is lost, none is there twice.

use proptest::prelude::*;

use super::*;

/// Where a merge is interrupted.
#[derive(Debug, Clone, Copy)]
enum Crash {
    /// In the middle of the merged file.
    Writing,
    /// Between its name and the transaction.
    Renamed,
    /// Behind the transaction, before any input is deleted.
    Swapped,
    /// When the inputs are deleted and still on the list of those that are to be.
    Deleted,
}

#[derive(Debug, Clone)]
enum Step {
    /// Events of one of two collectors: how many, in which hour, how far apart.
    Seal {
        other: bool,
        count: usize,
        hour: i64,
        step_us: i64,
    },
    /// A query takes its view.
    Look,
    /// It ends.
    Leave,
    Compact {
        hour: i64,
    },
    Vacuum,
    Reopen,
    Crash(Crash),
}

fn step() -> impl Strategy<Value = Step> {
    let seal = (any::<bool>(), 1..12_usize, 0..60_i64, prop_oneof![Just(0), Just(1_000_000), Just(HOUR_US)]);
    prop_oneof![
        6 => seal.prop_map(|(other, count, hour, step_us)| Step::Seal { other, count, hour, step_us }),
        1 => Just(Step::Look),
        1 => Just(Step::Leave),
        3 => (0..80_i64).prop_map(|hour| Step::Compact { hour }),
        1 => Just(Step::Vacuum),
        1 => Just(Step::Reopen),
        3 => prop_oneof![Just(Crash::Writing), Just(Crash::Renamed), Just(Crash::Swapped), Just(Crash::Deleted)]
            .prop_map(Step::Crash),
    ]
}

type Rows = BTreeMap<(String, i64, i64, [u8; 32]), usize>;

struct World {
    dir: tempfile::TempDir,
    store: Option<Store>,
    collectors: (Collector, Collector),
    sent: Rows,
    lived: Lived,
    reader: Option<(Snapshot, Rows)>,
}

impl World {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let store = Some(open(dir.path()));
        let collectors = (Collector::with_ends("procmond", 1), Collector::with_ends("netmond", 2));
        Self { dir, store, collectors, sent: Rows::new(), lived: Lived::new(), reader: None }
    }

    fn store(&self) -> &Store {
        self.store.as_ref().unwrap()
    }

    fn take(&mut self, step: &Step) {
        match *step {
            Step::Seal { other, count, hour, step_us } => {
                let collector = if other { &mut self.collectors.1 } else { &mut self.collectors.0 };
                let batch = collector.events(count, T0 + hour * HOUR_US, step_us);
                for (row, times) in rows_of(std::slice::from_ref(&batch.batch)) {
                    *self.sent.entry(row).or_insert(0) += times;
                }
                live_through(&mut self.lived, &batch.batch);
                seal(self.store(), batch);
            }
            Step::Look => self.reader = Some((self.store().snapshot(), self.sent.clone())),
            Step::Leave => self.reader = None,
            Step::Compact { hour } => drop(compact(self.store(), T0 + hour * HOUR_US)),
            Step::Vacuum => drop(self.store().vacuum(T0, &CancellationToken::new()).unwrap()),
            Step::Reopen => self.reopen(),
            Step::Crash(at) => self.crash(at),
        }
    }

    /// The queries end with the process.
    fn end(&mut self) {
        self.store = None;
        self.reader = None;
    }

    fn reopen(&mut self) {
        self.end();
        self.store = Some(open(self.dir.path()));
    }

    /// The directory as one merge leaves it that gets this far, put together from what lies there before and after.
    fn crash(&mut self, at: Crash) {
        self.end();
        let state = self.dir.path().join("state.redb");
        let before = fs::read(&state).unwrap();
        let store = open(self.dir.path());
        // A reader holds the inputs, as if the process ended before they are deleted.
        let inputs = store.snapshot();
        let merged = store.compact(T0 + 80 * HOUR_US, &CancellationToken::new()).unwrap();
        let kept = listed(&store.snapshot());
        drop(store);
        match at {
            Crash::Writing => fs::write(self.dir.path().join("segments/merge.parquet.tmp"), b"PAR1 half").unwrap(),
            Crash::Renamed if merged.is_some() => fs::write(&state, before).unwrap(),
            Crash::Deleted => {
                let gone = listed(&inputs).into_iter().filter(|path| !kept.contains(path));
                gone.for_each(|path| fs::remove_file(path).unwrap());
            }
            Crash::Renamed | Crash::Swapped => {}
        }
        drop(inputs);
        self.store = Some(open(self.dir.path()));
        assert_only_listed_files(self.store(), self.dir.path());
    }

    fn check(&self) {
        let snapshot = self.store().snapshot();
        assert!(rows(&snapshot) == self.sent, "the rows are not those that were sent");
        assert!(snapshot.completeness.is_complete() && self.store().coverage().unwrap().is_empty());
        assert_lifetimes(self.store(), &self.lived);
        if let Some((reader, expected)) = &self.reader {
            assert!(rows(reader) == *expected, "a reader does not see any more what it saw");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 16, ..ProptestConfig::default() })]

    #[test]
    fn any_order_of_seals_merges_reads_and_crashes_keeps_each_row_once(steps in prop::collection::vec(step(), 1..24)) {
        let mut world = World::new();
        for step in &steps {
            world.take(step);
            world.check();
        }
        assert_registered_exactly(&world.store().snapshot());
    }
}
