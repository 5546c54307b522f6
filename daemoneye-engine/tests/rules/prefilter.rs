//! The prefilter saves work and decides nothing: with it and without it every rule has the same matches.

use daemoneye_engine::detect::{LoadedRule, RuleSet};
use daemoneye_engine::ingest::{EventBatch, batch_from_json};
use daemoneye_lib::model::Completeness;
use datafusion::arrow::array::RecordBatch;
use proptest::prelude::*;
use serde_json::{Value, json};

use super::differential::{self, Tally, batch, cases, condition, events, for_cases, row};

/// `None` where a constant does not fit, and nothing else.
fn numbered(at: usize, condition: &str) -> Option<LoadedRule> {
    differential::numbered(at, &format!("SELECT seq FROM process_events WHERE {condition}"))
}

fn found(set: &RuleSet, events: &EventBatch) -> Vec<(String, usize)> {
    let matches = set.evaluate(events, &Completeness::complete());
    matches.into_iter().map(|found| (found.rule.id.to_string(), found.row)).collect()
}

/// The matches of all rules together, the same in all ways of finding them.
fn held_to_each_other(rules: Vec<LoadedRule>, batch: &RecordBatch) -> Vec<(String, usize)> {
    let (set, refusals) = RuleSet::compile(rules.clone());
    assert!(refusals.is_empty(), "{refusals:?}");
    let everywhere = RuleSet::compile(rules).0.without_prefilter();
    let expected = found(&everywhere, &events(batch));
    assert_eq!(found(&set, &events(batch)), expected, "with and without");
    for time in ["seen once", "remembered"] {
        assert_eq!(found(&set, &events(batch)), expected, "values {time}");
    }
    for row in 0..batch.num_rows() {
        let of_row: Vec<_> = expected.iter().filter(|(_, at)| *at == row).map(|(rule, _)| (rule.clone(), 0)).collect();
        assert_eq!(found(&set, &events(&batch.slice(row, 1))), of_row, "a batch of one");
    }
    expected
}

#[test]
fn the_prefilter_never_changes_an_answer() {
    let tally = Tally::default();
    let generated = (prop::collection::vec(row(), 1..20), prop::collection::vec(condition(), 1..16));
    for_cases(cases() / 4, generated, |(rows, conditions)| {
        let numbered = |(at, condition): (usize, &String)| numbered(at, condition);
        let rules: Vec<LoadedRule> = conditions.iter().enumerate().filter_map(numbered).collect();
        let compared = rules.len();
        let matches = held_to_each_other(rules, &batch(&rows)).len();
        tally.add(compared, conditions.len() - compared, compared * rows.len(), matches);
    });
    tally.assert_compared(cases() as usize, 5..=95);
}

/// Events of some columns each; what is not named is NULL.
fn rows(events: &[Value]) -> RecordBatch {
    let events: Vec<_> = events.iter().map(|event| event.as_object().unwrap().clone()).collect();
    batch_from_json(&events).unwrap()
}

/// Which rows one condition matches.
fn matched(condition: &str, events: &[Value]) -> Vec<usize> {
    let rule = numbered(0, condition).unwrap_or_else(|| panic!("{condition}"));
    held_to_each_other(vec![rule], &rows(events)).into_iter().map(|(_, row)| row).collect()
}

#[test]
fn a_negated_branch_of_an_or_needs_no_witness_of_the_others() {
    let events =
        [json!({"name": "a", "command_line": "needle"}), json!({"name": "x"}), json!({"name": "b"}), json!({})];
    assert_eq!(matched("ci_contains(command_line, 'needle') OR NOT ci_eq(name, 'x')", &events), [0, 2, 3]);
    assert_eq!(matched("command_line LIKE '%needle%' OR (name = 'x') IS NOT TRUE", &events), [0, 2, 3]);
    assert_eq!(matched("NOT (NOT ci_eq(name, 'x') AND NOT ci_eq(name, 'b'))", &events), [1, 2]);
    assert_eq!(matched("((NOT ci_eq(name, 'x')) IS NOT TRUE)", &events), [1]);
}

#[test]
fn a_cased_value_is_found_in_folded_text() {
    let events = [
        json!({"command_line": "Invoke-ABC"}),
        json!({"command_line": "invoke-abc"}),
        json!({"command_line": "\u{212a}ey\u{17f}"}),
    ];
    assert_eq!(matched("command_line LIKE '%-ABC'", &events), [0]);
    assert_eq!(matched("cs_contains(command_line, '-ABC', 'nothing')", &events), [0]);
    assert_eq!(matched("ci_contains(command_line, '-ABC')", &events), [0, 1]);
    assert_eq!(matched("command_line = 'Invoke-ABC'", &events), [0]);
    assert_eq!(matched("lower(command_line) = 'invoke-abc'", &events), [0, 1]);
    assert_eq!(matched("upper(command_line) LIKE '%ABC'", &events), [0, 1]);
    assert_eq!(matched("command_line ILIKE 'KEYS'", &events), [2]);
    assert_eq!(matched("command_line ~* '^keys$' OR ci_contains(command_line, '\u{212a}')", &events), [2]);
    assert_eq!(matched("ci_contains(command_line, 'key')", &events), Vec::<usize>::new());
}

#[test]
fn a_letter_that_lowers_to_two_is_not_lost() {
    let events = [json!({"name": "x\u{130}y"}), json!({"name": "İ"}), json!({"name": "XIY"})];
    assert_eq!(matched("lower(name) LIKE '%i_y' AND lower(name) NOT LIKE '%iy'", &events), [0]);
    assert_eq!(matched("contains(lower(name), 'xi')", &events), [0, 2]);
    assert_eq!(matched("lower(name) = 'i\u{307}'", &events), [1]);
}

#[test]
fn numbers_and_lists_are_looked_at_too() {
    let events =
        [json!({"pid": 4, "name": "z"}), json!({"pid": 5, "name": "a"}), json!({"pid": 6, "uid": 2}), json!({})];
    assert_eq!(matched("pid = 4 OR uid IN (1, 2)", &events), [0, 2]);
    assert_eq!(matched("name IN ('a', 'b', 'c') OR pid > 5", &events), [1, 2]);
    assert_eq!(matched("name NOT IN ('a', 'b')", &events), [0]);
    assert_eq!(matched("name IN (NULL, 'z')", &events), [0]);
    assert_eq!(matched("coalesce(name, 'none') = 'none' AND pid IS NULL", &events), [3]);
    assert_eq!(
        matched("(name IS NOT DISTINCT FROM 'z') OR ((uid IS NOT DISTINCT FROM NULL) AND pid = 5)", &events),
        [0, 1]
    );
    assert_eq!(matched("name IS NOT DISTINCT FROM 'z' AND pid = 4 OR uid IS DISTINCT FROM NULL", &events), [0, 2]);
}

#[test]
fn short_values_and_none_are_found() {
    let events = [json!({"name": "a"}), json!({"name": ""}), json!({"name": "/"}), json!({})];
    assert_eq!(matched("ci_contains(name, 'A')", &events), [0]);
    assert_eq!(matched("name LIKE '%/%'", &events), [2]);
    assert_eq!(matched("ci_ends(name, '/')", &events), [2]);
    assert_eq!(matched("ci_contains(name, '')", &events), [0, 1, 2]);
    assert_eq!(matched("name = ''", &events), [1]);
    assert_eq!(matched("name LIKE '%'", &events), [0, 1, 2]);
    assert_eq!(matched("re_match(name, '')", &events), [0, 1, 2]);
}

#[test]
fn alternatives_of_an_expression_are_all_kept() {
    let events = ["ace", "bdf", "adf", "xyz", "aaa7", "k\u{212a}", ""].map(|name| json!({"name": name}));
    assert_eq!(matched("re_match(name, '(a|b)(c|d)(e|f)')", &events), [0, 1, 2]);
    assert_eq!(matched("re_match(name, 'ace|(?:xyz)?$|nothing')", &events), [0, 1, 2, 3, 4, 5, 6]);
    assert_eq!(matched("re_match(name, '^(?:ace)*a{3}[0-9]')", &events), [4]);
    assert_eq!(matched("re_match(name, 'A\\x43(?-i:e)', 'i')", &events), [0]);
    assert_eq!(matched("re_match(name, '^kk$', 'i')", &events), [5]);
    assert_eq!(matched(r"re_match(name, '\bb\Bd\Bf\b')", &events), [1]);
    let many: Vec<String> = (0..600).map(|at| format!("w{at}x")).collect();
    assert_eq!(matched(&format!("re_match(name, '{}|xyz')", many.join("|")), &events), [3]);
}

#[test]
fn a_condition_that_is_always_or_never_true_is_decided_so() {
    let events = [json!({"name": "a"}), json!({})];
    assert_eq!(matched("name = 'x' OR TRUE", &events), [0, 1]);
    assert_eq!(matched("name = 'a' AND (TRUE OR pid = 1)", &events), [0]);
    assert_eq!(matched("name = 'a' AND FALSE", &events), Vec::<usize>::new());
    assert_eq!(matched("(name = 'a' AND NULL) IS NOT FALSE", &events), [0, 1]);
    assert_eq!(matched("NULL = name", &events), Vec::<usize>::new());
}

#[test]
fn base_names_are_those_behind_either_separator() {
    let events = [r"C:\x\CMD.exe", "/bin/cmd.exe", "cmd.exe", r"C:\cmd.exe\y", r"a/b\cmd.exe", r"C:\x\acmd.exe"]
        .map(|path| json!({"executable_path": path}));
    assert_eq!(matched(r"ci_ends(executable_path, '\cmd.exe')", &events), [0, 4]);
    assert_eq!(matched(r"executable_path LIKE '%/cmd.exe'", &events), [1]);
    assert_eq!(matched(r"ci_ends(executable_path, 'cmd.exe')", &events), [0, 1, 2, 4, 5]);
    assert_eq!(matched(r"ci_like(executable_path, '%\\x\\%.exe')", &events), [0, 5]);
    assert_eq!(matched(r"ci_ends(executable_path, '\x\cmd.exe', 'exe\y')", &events), [0, 3]);
}

#[test]
fn forks_are_seen_by_rules_that_ask_and_by_no_others() {
    let events =
        [json!({"name": "a", "start_kind": "fork"}), json!({"name": "a", "start_kind": "exec"}), json!({"name": "a"})];
    assert_eq!(matched("name = 'a'", &events), [1, 2]);
    assert_eq!(matched("name = 'a' AND (start_kind = 'fork' OR start_kind IS NULL)", &events), [0, 2]);
}

#[test]
fn a_text_full_of_needles_and_one_that_is_not_remembered_are_found() {
    let long = "needle".repeat(2_000);
    let events = [json!({"command_line": long}), json!({"command_line": format!("{long} END")})];
    assert_eq!(matched("ci_contains(command_line, 'NEEDLEneedle') AND ci_ends(command_line, 'end')", &events), [1]);
}

#[test]
fn more_candidates_than_are_held_at_once_are_all_evaluated_and_in_order() {
    let rules: Vec<LoadedRule> =
        (0..400).map(|at| numbered(at, &format!("pid IS NULL OR pid = {at}")).unwrap()).collect();
    let events_of: Vec<Value> = (0..400).map(|pid| json!({"pid": pid})).collect();
    let (set, _) = RuleSet::compile(rules);
    let found = found(&set, &events(&rows(&events_of)));
    let expected: Vec<(String, usize)> =
        (0..400).map(|at| (format!("00000000-0000-4000-8000-{at:012}"), at)).collect();
    assert_eq!(found, expected);
}

#[test]
fn a_rule_is_no_candidate_where_another_part_of_it_cannot_hold() {
    let events = rows(&[
        json!({"command_line": "x sekurlsa", "executable_path": "/bin/vi", "user": "root"}),
        json!({"command_line": "x sekurlsa", "executable_path": "/bin/sh", "user": "eve"}),
        json!({"command_line": "x", "executable_path": "/bin/sh", "user": "root"}),
        json!({"command_line": "x sekurlsa", "executable_path": "/bin/bash", "user": "root"}),
    ]);
    let condition =
        "ci_contains(command_line, 'SEKURLSA') AND ci_ends(executable_path, '/sh', '/bash') AND user = 'root'";
    let (set, _) = RuleSet::compile(vec![numbered(0, condition).unwrap()]);
    assert_eq!(found(&set, &self::events(&events)).iter().map(|(_, row)| *row).collect::<Vec<_>>(), [3]);
    assert_eq!(set.candidates(), 1);
}

#[test]
fn what_is_on_every_event_of_a_host_is_no_longer_what_rules_are_found_by() {
    let rule = || {
        let held = "ci_contains(command_line, 'everywhere one') AND ci_contains(command_line, 'everywhere two') \
                    AND ci_contains(command_line, 'everywhere three') AND ci_contains(command_line, 'zzz')";
        vec![numbered(0, held).unwrap()]
    };
    let line = |at: usize| {
        if at == 7 {
            "everywhere one, everywhere two, everywhere three: zzz"
        } else {
            "everywhere one, everywhere two, everywhere three"
        }
    };
    let events =
        events(&rows(&(0..1_000).map(|at| json!({"command_line": format!("{} {at}", line(at))})).collect::<Vec<_>>()));
    let (set, _) = RuleSet::compile(rule());
    assert!(!set.reweigh(), "nothing was seen");
    let mut seen = Vec::new();
    for _ in 0..40 {
        seen = found(&set, &events);
    }
    let before = set.candidates();
    assert_eq!(before, 40 * 1_000, "all that was taken for rare is everywhere");
    assert!(set.reweigh());
    assert_eq!(found(&set, &events), seen);
    assert_eq!((seen.len(), set.candidates() - before), (1, 1));
    for _ in 0..40 {
        assert_eq!(found(&set, &events), seen);
    }
    assert!(!set.reweigh(), "it is no surprise any more");
    let (next, _) = RuleSet::compile(rule());
    next.continue_counters_of(&set);
    assert_eq!((found(&next, &events), next.candidates()), (seen, 1), "and the next set begins with it");
}
