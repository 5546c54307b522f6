//! Whose events a merged segment has, from where to where.

use std::sync::Arc;

use super::super::segment::{SegmentFile, SequenceRange};

/// Ranges of one collector in one segment; beyond it neighbours are told as one, and what lies between them with them.
const RANGES: usize = 64;

/// The ranges of all files; those that follow each other without a gap are one.
pub(super) fn joined(files: &[Arc<SegmentFile>]) -> Vec<SequenceRange> {
    let mut ranges: Vec<SequenceRange> = files.iter().flat_map(|file| file.ranges.iter().cloned()).collect();
    ranges.sort_by(|a, b| (&a.collector, a.first).cmp(&(&b.collector, b.first)));
    let mut joined: Vec<SequenceRange> = Vec::new();
    let mut of_collector: usize = 0;
    for range in ranges {
        let last = joined.last_mut().filter(|last| last.collector == range.collector);
        of_collector = if last.is_some() { of_collector } else { 0 };
        match last {
            Some(last) if of_collector >= RANGES || follows(last, &range) => {
                last.last = last.last.max(range.last);
                last.rows = last.rows.saturating_add(range.rows);
            }
            _ => {
                of_collector = of_collector.saturating_add(1);
                joined.push(range);
            }
        }
    }
    joined
}

const fn follows(before: &SequenceRange, after: &SequenceRange) -> bool {
    before.last.0 == after.first.0 && before.last.1.saturating_add(1) >= after.first.1
}

#[cfg(test)]
mod tests {
    use super::super::super::dated::Dated;
    use super::super::super::file::Verified;
    use super::super::super::history::HistoryTable;
    use super::*;

    fn file(collector: &str, first: (u64, u64), last: (u64, u64)) -> Arc<SegmentFile> {
        let rows = last.1 - first.1 + 1;
        Arc::new(SegmentFile {
            table: HistoryTable::ProcessEvents,
            path: "x".into(),
            id: 1,
            level: 0,
            rows,
            bytes: 1,
            first_us: 0,
            last_us: 0,
            ranges: vec![SequenceRange { collector: collector.to_owned(), first, last, rows }],
            hash: [0; 32],
            schema_version: 1,
            dated: Dated::default(),
            verified: Verified::default(),
        })
    }

    #[test]
    fn what_follows_without_a_gap_is_one_range_and_nothing_else_is() {
        let files = [
            file("a", (1, 11), (1, 20)),
            file("a", (1, 1), (1, 10)),
            file("b", (1, 21), (1, 30)),
            file("a", (1, 22), (1, 30)),
            file("a", (2, 31), (2, 40)),
        ];
        let told = joined(&files);
        let told: Vec<_> = told.iter().map(|r| (r.collector.as_str(), r.first, r.last, r.rows)).collect();
        assert_eq!(
            told,
            [
                ("a", (1, 1), (1, 20), 20),
                ("a", (1, 22), (1, 30), 9),
                ("a", (2, 31), (2, 40), 10),
                ("b", (1, 21), (1, 30), 10)
            ]
        );
    }

    #[test]
    fn a_stream_full_of_gaps_costs_a_bounded_number_of_ranges_and_no_row() {
        let files: Vec<_> = (0..1_000).map(|n| file("a", (1, n * 10), (1, n * 10 + 4))).collect();
        let told = joined(&files);
        assert_eq!(told.len(), RANGES);
        assert_eq!(told.iter().map(|range| range.rows).sum::<u64>(), 5_000);
        assert_eq!(told.last().unwrap().last, (1, 9_994));
    }
}
