//! Runs that wait are taken together: what a run costs, however small it is, would else keep a busy host ever further behind.

use std::sync::Arc;

use daemoneye_eventbus::Run;
use daemoneye_lib::proto::Record;
use tokio::sync::mpsc::Receiver;

/// Records that are taken together, at most: a few milliseconds of judging.
const RECORDS: usize = 2_048;
/// Bytes of their payloads.
const BYTES: usize = 2 * 1024 * 1024;

/// Runs of one collector, each behind the one before.
pub(super) struct Joined {
    pub(super) collector: Arc<str>,
    pub(super) records: Vec<Record>,
    /// Where each run ends.
    ends: Vec<usize>,
    /// Their room in the collector's budget.
    _held: Vec<Run>,
}

impl Joined {
    /// The run and those behind it that have arrived; `next` is kept for the next time.
    pub(super) fn of(mut run: Run, runs: &mut Receiver<Run>, next: &mut Option<Run>) -> Self {
        let records = std::mem::take(&mut run.records);
        let collector = Arc::clone(&run.collector);
        let mut bytes = payloads(&records);
        let mut joined = Self { collector, ends: vec![records.len()], records, _held: vec![run] };
        while let Ok(mut run) = runs.try_recv() {
            let more = payloads(&run.records);
            let fits = joined.records.len().saturating_add(run.records.len()) <= RECORDS
                && bytes.saturating_add(more) <= BYTES;
            if !fits || !joined.goes_on(&run) {
                *next = Some(run);
                break;
            }
            bytes = bytes.saturating_add(more);
            joined.records.append(&mut run.records);
            joined.ends.push(joined.records.len());
            joined._held.push(run);
        }
        joined
    }

    /// Whether its first record is the one behind the last of these: what is repeated, or of another life, is judged by itself.
    fn goes_on(&self, run: &Run) -> bool {
        let before = self.records.last().and_then(|record| record.sequence);
        let first = run.records.first().and_then(|record| record.sequence);
        run.collector == self.collector
            && before.zip(first).is_some_and(|(before, first)| {
                first.epoch == before.epoch && before.number.checked_add(1) == Some(first.number)
            })
    }

    /// Each run by itself.
    pub(super) fn parts(&self) -> impl Iterator<Item = &[Record]> {
        let begins = std::iter::once(0).chain(self.ends.iter().copied());
        begins.zip(&self.ends).filter_map(|(begin, end)| self.records.get(begin..*end))
    }

    pub(super) fn runs(&self) -> usize {
        self.ends.len()
    }
}

fn payloads(records: &[Record]) -> usize {
    records.iter().map(|record| record.payload.len()).fold(0, usize::saturating_add)
}

#[cfg(test)]
mod tests {
    use daemoneye_lib::proto::Sequence;
    use tokio::sync::mpsc;

    use super::*;

    fn run(collector: &str, epoch: u64, numbers: std::ops::Range<u64>) -> Run {
        let record = |number| Record { sequence: Some(Sequence::new(epoch, number)), ..Record::default() };
        Run::new(collector.into(), numbers.map(record).collect())
    }

    /// What is taken together, as the runs' first numbers.
    fn taken(runs: Vec<Run>) -> Vec<Vec<u64>> {
        let (sender, mut receiver) = mpsc::channel(64);
        runs.into_iter().for_each(|run| sender.try_send(run).unwrap());
        let (mut next, mut all) = (None, Vec::new());
        while let Some(run) = next.take().or_else(|| receiver.try_recv().ok()) {
            let joined = Joined::of(run, &mut receiver, &mut next);
            assert_eq!(joined.runs(), joined.parts().count());
            assert_eq!(joined.parts().map(<[Record]>::len).sum::<usize>(), joined.records.len());
            all.push(joined.parts().map(|part| part[0].sequence.unwrap().number).collect());
        }
        all
    }

    #[test]
    fn runs_that_follow_each_other_are_taken_together_and_others_by_themselves() {
        assert_eq!(taken(vec![run("a", 1, 1..3), run("a", 1, 3..4), run("a", 1, 4..9)]), [vec![1, 3, 4]]);
        assert_eq!(taken(vec![run("a", 1, 1..3), run("a", 1, 2..4)]), [[1], [2]], "one that is repeated");
        assert_eq!(taken(vec![run("a", 1, 1..3), run("a", 1, 4..5)]), [[1], [4]], "one behind a gap");
        assert_eq!(taken(vec![run("a", 1, 1..3), run("a", 2, 3..4)]), [[1], [3]], "another life");
        assert_eq!(taken(vec![run("a", 1, 1..3), run("b", 1, 3..4), run("a", 1, 3..4)]), [[1], [3], [3]]);
        let long = 1_500_u64;
        assert_eq!(taken(vec![run("a", 1, 0..long), run("a", 1, long..2 * long)]), [[0], [long]], "too many at once");
    }
}
