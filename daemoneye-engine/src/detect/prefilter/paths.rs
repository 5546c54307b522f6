//! What the path of the executable must be for a condition to hold: all that a collector has to know to leave out what is expensive
//! where the rule cannot match.

use std::collections::BTreeSet;

use daemoneye_lib::columns::PROCESS_EVENTS;
use daemoneye_lib::path_test::base_of;
use daemoneye_lib::proto::{PathQuestion, PathTest};

use super::clue::{Clues, when_true};
use super::need::{Need, Witness, of_leaf};
use super::weights::Weights;
use crate::detect::matcher::Test;

/// The column that a collector knows before it does what is expensive.
const PATH: &str = "executable_path";

/// Tests of which one passes wherever the condition holds; `None`: the path may be anything.
pub(in crate::detect) fn paths_when_true(condition: &Test) -> Option<Vec<PathTest>> {
    let path = PROCESS_EVENTS.iter().position(|column| column.name == PATH)?;
    let Need::Any(witnesses) = need(condition, path) else { return None };
    let tests: Option<BTreeSet<(PathQuestion, Box<str>)>> = witnesses.into_iter().map(question).collect();
    Some(tests?.into_iter().map(|(question, text)| PathTest::new(question, &text)).collect())
}

/// As the prefilter's, of one column only.
fn need(test: &Test, path: usize) -> Need {
    match test {
        Test::All(tests) => Need::cheapest(tests.iter().map(|test| need(test, path)), &Weights::default()),
        Test::Always => Need::Open,
        Test::Any(tests) => Need::union(tests.iter().map(|test| need(test, path))),
        Test::Leaf(leaf, wanted) => only(of_leaf(leaf, *wanted, &Weights::default()), path),
        Test::Never => Need::never(),
        Test::Not(_) => only(when_true(test, &Weights::default()), path),
    }
}

fn only(clues: Clues, path: usize) -> Need {
    let Clues::Any(clues) = clues else { return Need::Open };
    let witnesses: Vec<Witness> = clues.into_iter().map(|clue| clue.witness).collect();
    let asks = |witness: &Witness| witness.column() == path && !matches!(witness, Witness::Present(_));
    if witnesses.iter().all(asks) { Need::Any(witnesses) } else { Need::Open }
}

fn question(witness: Witness) -> Option<(PathQuestion, Box<str>)> {
    match witness {
        Witness::Base(_, text) => Some((PathQuestion::BaseName, base_of(&text).into())),
        Witness::Exact(_, text) => Some((PathQuestion::Equals, text)),
        Witness::Needle(_, text) => Some((PathQuestion::Contains, text)),
        Witness::Present(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use daemoneye_lib::path_test::FoldedPath;

    use super::*;
    use crate::detect::prefilter::need::testing::condition;
    use crate::detect::row::Columns;
    use crate::ingest::batch_from_json;

    #[test]
    fn the_path_is_told_whatever_else_is_rarer_and_only_where_it_is_needed() {
        let paths = |sql: &str| {
            let words = |tests: Vec<PathTest>| tests.iter().map(ToString::to_string).collect::<Vec<_>>();
            paths_when_true(&condition(sql)).map(words)
        };
        let told = |words: &[&str]| Some(words.iter().map(|word| format!("executable_path {word}")).collect());
        assert_eq!(
            paths("executable_path LIKE '/tmp/%' AND command_line LIKE '%sekurlsa%'"),
            told(&["contains \"/tmp/\""])
        );
        let either =
            "(executable_path = '/usr/bin/Sudo' OR ci_ends(executable_path, '/unheard')) AND executable_hash <> 'x'";
        assert_eq!(paths(either), told(&["is \"/usr/bin/sudo\"", "has the base name \"unheard\""]));
        assert_eq!(paths("executable_path LIKE '/tmp/%' OR name = 'x'"), None);
        assert_eq!(paths("executable_path NOT LIKE '/usr/%' AND executable_hash = 'x'"), None);
        assert_eq!(paths("NOT (executable_path NOT LIKE '/srv/%')"), told(&["contains \"/srv/\""]));
        assert_eq!(paths("executable_path IS NOT NULL"), None);
        assert_eq!(paths("parent_executable_path LIKE '/tmp/%'"), None);
        assert_eq!(paths("FALSE"), told(&[]));
    }

    #[test]
    fn wherever_a_condition_holds_one_of_its_tests_passes() {
        let conditions = [
            "executable_path ILIKE '%/Tasks/K%'",
            "executable_path ~* '(opt|x).skd$'",
            "ci_starts(executable_path, '/opt/', '/srv/')",
            "lower(executable_path) = '/opt/skd'",
            "executable_path IN ('/opt/SKD', '/x')",
            "cs_ends(executable_path, '\\skd', '/SKD')",
        ];
        let paths = [
            "/opt/SKD",
            "/opt/\u{17f}\u{212a}d",
            "/srv/tasks/kk",
            "C:\\x\\skd",
            "/x",
            "/tmp/Tasks/\u{212a}",
            "/opt/ssshd",
        ];
        let mut held = 0;
        for sql in conditions {
            let condition = condition(sql);
            let tests = paths_when_true(&condition).unwrap_or_else(|| panic!("{sql}"));
            for path in paths {
                let row = serde_json::Map::from_iter([(PATH.to_owned(), path.into())]);
                let event = batch_from_json(&[row]).unwrap();
                let holds = condition.holds(&Columns::of(&event), 0);
                held += usize::from(holds);
                let passes = tests.iter().any(|test| test.passes(&FoldedPath::new(path)));
                assert!(passes || !holds, "{sql} on {path}: {tests:?}");
            }
        }
        assert!(held >= 9, "{held}");
    }
}
