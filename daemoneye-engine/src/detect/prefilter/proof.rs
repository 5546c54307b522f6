//! What being a candidate proves of a rule's condition, so that it is not asked again: where the witnesses of a part are there, and its
//! column's texts are ASCII, the part holds.

use super::clue::Clue;
use super::need::Witness;
use super::values::exactly;
use crate::detect::matcher::Test;
use crate::detect::row::Columns;

/// Parts of a condition that hold on every row where its rule is a candidate.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Proof {
    /// A bit for each, by its place among [`Test::parts`].
    parts: u64,
    /// Their columns, a bit for each by its place in the column table.
    columns: u64,
}

impl Proof {
    /// Of a condition and all its clues; `looked_for`: whether a witness is looked for at all.
    pub(super) fn of(condition: &Test, clues: &[Clue], looked_for: impl Fn(&Witness) -> bool) -> Self {
        let mut this = Self::default();
        for (at, part) in (0..u64::BITS).zip(condition.parts()) {
            let Some((column, witnesses)) = exactly(part) else { continue };
            let Some(column) = u32::try_from(column).ok().and_then(|column| 1_u64.checked_shl(column)) else {
                continue;
            };
            let tells = |witness: &Witness| witnesses.contains(witness) && looked_for(witness);
            let proves = |clue: &Clue| {
                tells(&clue.witness) || clue.further.iter().any(|further| further.witnesses.iter().all(tells))
            };
            if clues.iter().all(proves) {
                this.parts |= 1 << at;
                this.columns |= column;
            }
        }
        this
    }

    /// The bits of the parts that hold on the rows of a batch where the rule is a candidate.
    pub(super) fn parts(self, columns: &Columns<'_>) -> u64 {
        let mut left = self.columns;
        while left != 0 {
            let column = left.trailing_zeros();
            if !usize::try_from(column).is_ok_and(|column| columns.is_ascii(column)) {
                return 0;
            }
            left &= left.wrapping_sub(1);
        }
        self.parts
    }
}

#[cfg(test)]
mod tests {
    use super::super::need::testing::condition;
    use super::super::{Candidates, Prefilter};
    use super::*;
    use crate::ingest::batch_from_json;

    /// The parts of a condition that are proven for an event with this name and command line, of how many; `None`: no candidate.
    fn proven(sql: &str, name: &str, command: &str) -> Option<(u32, usize)> {
        let condition = condition(sql);
        let prefilter = Prefilter::new([&condition].into_iter());
        let row = [("name", name), ("command_line", command)].map(|(column, text)| (column.to_owned(), text.into()));
        let batch = batch_from_json(&[row.into_iter().collect()]).unwrap();
        let (columns, mut candidates) = (Columns::of(&batch), Candidates::default());
        prefilter.find(&columns, 0, &mut candidates);
        let parts = prefilter.proven(0, &columns);
        let is_candidate = candidates.rules().next().is_some();
        assert!(is_candidate || !condition.holds(&columns, 0), "{sql} on {name} {command}");
        assert_eq!(
            condition.holds(&columns, 0),
            is_candidate && condition.holds_beside(parts, &columns, 0),
            "{sql} on {name} {command}"
        );
        is_candidate.then(|| (parts.count_ones(), condition.parts().len()))
    }

    #[test]
    fn what_is_found_exactly_is_not_asked_again_and_the_rest_is() {
        let both = "ci_ends(name, '/curl', '/wget') AND (ci_contains(command_line, 'http', 'FTP') AND pid IS NULL)";
        assert_eq!(proven(both, "/bin/Curl", "x HTTP://a"), Some((2, 3)));
        assert_eq!(proven(both, "curl", "x http://a"), None, "without its separator");
        assert_eq!(proven(both, "\\curl", "x http://a"), None, "with another");
        let not = "ci_eq(name, 'a') AND NOT ci_contains(command_line, 'sekurlsa')";
        assert_eq!(proven(not, "A", "sekurlsa"), Some((1, 2)));
        assert_eq!(proven(not, "A", "other"), Some((1, 2)));
        assert_eq!(proven("ci_eq(name, 'a', 'b', 'c', 'd', 'e', 'f')", "F", ""), Some((1, 1)));
        let one = "ci_contains(command_line, 'sekurlsa')";
        assert_eq!(proven(one, "", "xxxxxxxxl_)4&2|fxxxxxxxx"), None, "its hash begins as the other's does");
        assert_eq!(proven(one, "", "xxxxxxxxsekurlsaxxxxxxxx"), Some((1, 1)));
    }

    #[test]
    fn what_a_witness_only_hints_at_is_asked() {
        for sql in [
            "cs_contains(name, 'Abcd')",
            "name LIKE '%Abcd%'",
            "name = 'Abcd'",
            "ci_starts(name, 'abcd')",
            "ci_ends(name, 'abcd')",
            "re_match(name, 'abcd$')",
            "ci_contains(lower(name), 'abcd')",
        ] {
            for name in ["Abcd", "abcd", "xabcd", "abcdx"] {
                assert!(proven(sql, name, "").is_none_or(|(parts, _)| parts == 0), "{sql}");
            }
        }
        for sql in ["ci_contains(name, 'skd')", "ci_eq(name, '\u{17f}kd')", "ci_contains(name, '\u{212a}d', 'skd')"] {
            for name in ["skd", "\u{17f}kd", "s\u{212a}d", "SKD"] {
                let parts = proven(sql, name, "").map(|(parts, _)| parts);
                assert!(
                    parts.is_none_or(|parts| parts == 0 || (name.is_ascii() && sql.is_ascii())),
                    "{sql} on {name}"
                );
            }
        }
    }

    #[test]
    fn of_several_ways_to_hold_each_must_prove_it() {
        let either =
            "(ci_eq(name, 'a') OR ci_contains(command_line, 'sekurlsa')) AND ci_contains(command_line, 'lsa')";
        assert_eq!(proven(either, "x", "sekurlsa"), Some((1, 2)));
        assert_eq!(proven(either, "a", "x"), None);
    }
}
