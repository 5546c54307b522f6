//! Correlations: each type finds what it is to find as a window rule, and what cannot be said is refused by its name.

use daemoneye_engine::detect::RuleSet;
use daemoneye_engine::hunt::{Hunt, Line, Rows};
use daemoneye_engine::ingest::EventBatch;
use daemoneye_engine::sigma::{Verdict, convert};
use daemoneye_lib::model::Completeness;
use daemoneye_lib::proto::Sequence;
use serde_json::{Value, json};

use super::{file, lists};

/// Rules `a`, `b` and `c`, each for the command line of that name.
pub(super) fn rules() -> String {
    let one = |name: &str| {
        format!(
            "---\ntitle: rule {name}\nid: 8d5f1f6e-6d0a-4c9b-9d6b-2f6f0c1a7e1{name}\nname: rule_{name}\n\
             logsource: {{category: process_creation}}\ndetection: {{sel: {{CommandLine: {name}}}, condition: sel}}\n"
        )
    };
    ["a", "b", "c"].map(one).concat()
}

fn correlation(body: &str) -> String {
    let body: String = body.lines().map(|line| format!("  {line}\n")).collect();
    format!("title: together\nid: 7e8a0a3e-2f5d-4c6e-9d0f-1a2b3c4d5e6f\nlevel: high\ncorrelation:\n{body}{}", rules())
}

/// The groups and counts that are found in events `(second, command line, user)`.
fn found(body: &str, events: &[(i64, &str, Option<&str>)]) -> Vec<Value> {
    let events: Vec<Value> = events
        .iter()
        .map(|(second, command_line, user)| json!({"time": us(*second), "command_line": command_line, "user": user}))
        .collect();
    found_in(body, &events)
}

fn us(second: i64) -> i64 {
    1_769_860_800_000_000 + second * 1_000_000
}

fn found_in(body: &str, events: &[Value]) -> Vec<Value> {
    let mut conversions = convert(&[file("x.yml", &correlation(body))], &lists());
    let rule = conversions.remove(0);
    let Some(rule) = rule.rule else { panic!("{body}: {:?}", rule.reasons) };
    assert!(conversions.iter().all(|part| part.verdict == Verdict::Compiled), "the parts are in order");
    let (set, refusals) = RuleSet::compile(vec![rule]);
    assert!(refusals.is_empty(), "{refusals:?}");
    let mut rows = Rows::default();
    for (number, event) in (0..).zip(events) {
        let mut event = event.clone();
        let place = [("seq", json!(number)), ("epoch", json!(1)), ("collector", json!("c"))];
        let entity = ("entity_id", json!(format!("{number:032x}")));
        place.into_iter().chain([entity]).for_each(|(name, value)| event[name] = value);
        assert_eq!(rows.take(number, event.to_string().as_bytes()), Line::Taken);
    }
    let at = Sequence::new(1, 1);
    let batch = rows.finish().unwrap().batch().clone();
    let batch = EventBatch { batch, collector: "c".into(), first: at, last: at, gaps: Vec::new(), live: Vec::new() };
    let mut matches = set.evaluate(&batch, &Completeness::complete());
    matches.extend(set.advance(i64::MAX));
    matches
        .iter()
        .map(|found| json!({"user": found.output().get("user"), "found": found.output().get("found")}))
        .collect()
}

const ROOT: Option<&str> = Some("root");

#[test]
fn events_are_counted_by_group_within_the_span() {
    let body = "type: event_count\nrules: [rule_a]\ngroup-by: [User]\ntimespan: 1m\ncondition: {gte: 3}";
    let events =
        [(0, "a", ROOT), (5, "a", Some("bob")), (10, "b", ROOT), (20, "A", ROOT), (30, "a", None), (59, "a", ROOT)];
    assert_eq!(found(body, &events), [json!({"user": "root", "found": 3})]);
    let apart = [(0, "a", ROOT), (50, "a", ROOT), (100, "a", ROOT)];
    assert_eq!(found(body, &apart), Vec::<Value>::new());
}

#[test]
fn a_month_is_a_span_as_a_minute_is() {
    let day = 86_400;
    for kind in ["event_count", "temporal", "temporal_ordered"] {
        let condition = if kind == "event_count" { "\ncondition: {gte: 2}" } else { "" };
        let body = format!("type: {kind}\nrules: [rule_a, rule_b]\ngroup-by: [User]\ntimespan: 30d{condition}");
        let within = [(0, "a", ROOT), (12 * day, "c", ROOT), (29 * day, "b", ROOT)];
        assert_eq!(found(&body, &within).len(), 1, "{kind}");
        let beyond = [(0, "a", ROOT), (12 * day, "c", ROOT), (31 * day, "b", ROOT)];
        assert_eq!(found(&body, &beyond), Vec::<Value>::new(), "{kind}");
    }
}

#[test]
fn events_of_several_rules_count_together() {
    let body = "type: event_count\nrules: [rule_a, 8d5f1f6e-6d0a-4c9b-9d6b-2f6f0c1a7e1b]\ngroup-by: [User]\ntimespan: 60s\ncondition: {gt: 1, lte: 5}";
    assert_eq!(found(body, &[(0, "a", ROOT), (1, "b", ROOT), (2, "c", ROOT)]), [json!({"user": "root", "found": 2})]);
}

#[test]
fn values_are_counted_once() {
    let body =
        "type: value_count\nrules: [rule_a]\ngroup-by: [CommandLine]\ntimespan: 1h\ncondition: {gte: 2, field: User}";
    let same = [(0, "a", ROOT), (1, "a", ROOT), (2, "a", None)];
    assert_eq!(found(body, &same), Vec::<Value>::new());
    assert_eq!(found(body, &[(0, "a", ROOT), (1, "a", Some("bob"))]).len(), 1);
}

#[test]
fn rules_fit_together_in_any_order_or_in_theirs() {
    let of = |kind: &str| format!("type: {kind}\nrules: [rule_a, rule_b]\ngroup-by: [User]\ntimespan: 10s");
    let (forth, back) = ([(0, "a", ROOT), (5, "b", ROOT)], [(0, "b", ROOT), (5, "a", ROOT)]);
    for (kind, events, times) in [
        ("temporal", &forth, 1),
        ("temporal", &back, 1),
        ("temporal_ordered", &forth, 1),
        ("temporal_ordered", &back, 0),
    ] {
        assert_eq!(found(&of(kind), events).len(), times, "{kind} {events:?}");
    }
    for kind in ["temporal", "temporal_ordered"] {
        assert_eq!(found(&of(kind), &[(0, "a", ROOT), (5, "b", Some("bob"))]).len(), 0, "{kind}: other groups");
        assert_eq!(found(&of(kind), &[(0, "a", ROOT), (15, "b", ROOT)]).len(), 0, "{kind}: too late");
        assert_eq!(found(&of(kind), &[(0, "a", ROOT), (5, "a", ROOT)]).len(), 0, "{kind}: one of them");
    }
}

#[test]
fn some_of_the_rules_are_enough_where_the_condition_says_so() {
    let body = "type: temporal\nrules: [rule_a, rule_b, rule_c]\ngroup-by: [User]\ntimespan: 10s\ncondition: {gte: 2}";
    assert_eq!(found(body, &[(0, "c", ROOT), (5, "a", ROOT)]).len(), 1);
    assert_eq!(found(body, &[(0, "c", ROOT), (5, "c", ROOT)]).len(), 0);
}

#[test]
fn three_rules_in_order() {
    let body = "type: temporal_ordered\nrules: [rule_a, rule_b, rule_c]\ngroup-by: [User]\ntimespan: 10s";
    assert_eq!(found(body, &[(0, "a", ROOT), (3, "b", ROOT), (9, "c", ROOT)]).len(), 1);
    assert_eq!(found(body, &[(0, "a", ROOT), (3, "c", ROOT), (9, "b", ROOT)]).len(), 0);
    assert_eq!(found(body, &[(0, "a", ROOT), (8, "b", ROOT), (11, "c", ROOT)]).len(), 0);
}

#[test]
fn an_alias_may_stand_for_another_field_in_each_rule() {
    let of = |kind: &str, more: &str| {
        format!(
            "type: {kind}\nrules: [rule_a, rule_b]\ngroup-by: [who]\ntimespan: 10s\n\
             aliases: {{who: {{rule_a: User, rule_b: ParentUser}}}}\n{more}"
        )
    };
    // Second, command line, user, user of the parent.
    type Event<'a> = (i64, &'a str, Option<&'a str>, Option<&'a str>);
    let found = |body: &str, events: &[Event<'_>]| {
        let events: Vec<Value> = events
            .iter()
            .map(|(second, line, user, parent)| {
                json!({"time": us(*second), "command_line": line, "user": user, "parent_user": parent})
            })
            .collect();
        found_in(body, &events)
    };
    let bob = Some("bob");
    let crossed = [(0, "a", ROOT, bob), (5, "b", bob, ROOT)];
    let straight = [(0, "a", ROOT, bob), (5, "b", ROOT, bob)];
    for (kind, events, times) in [
        ("temporal", crossed, 1),
        ("temporal", straight, 0),
        ("temporal_ordered", crossed, 1),
        ("temporal_ordered", straight, 0),
    ] {
        assert_eq!(found(&of(kind, ""), &events).len(), times, "{kind} {events:?}");
    }
    assert_eq!(
        found(&of("temporal", ""), &[(0, "a", None, ROOT), (5, "b", bob, None)]).len(),
        0,
        "no value, no group"
    );
    let counted = of("event_count", "condition: {gte: 2}");
    assert_eq!(found(&counted, &crossed), [json!({"user": "root", "found": 2})]);
    let twice = counted.replace("[rule_a,", "[8d5f1f6e-6d0a-4c9b-9d6b-2f6f0c1a7e1a, rule_a,");
    assert_eq!(found(&twice, &[(0, "a", ROOT, ROOT)]).len(), 0, "an event is counted once");
    assert_eq!(found(&twice, &crossed), [json!({"user": "root", "found": 2})]);
    let values = of("value_count", "condition: {gte: 2, field: CommandLine}");
    assert_eq!(found(&values, &crossed), [json!({"user": "root", "found": 2})]);
    assert_eq!(found(&values, &[(0, "a", ROOT, None), (5, "a", ROOT, None)]).len(), 0);
}

#[test]
fn a_correlation_over_a_partial_rule_is_partial_and_says_what_is_missing() {
    let body = "type: event_count\nrules: [rule_a]\ngroup-by: [User]\ntimespan: 1w\ncondition: {gte: 3}";
    let text = correlation(body).replace("{CommandLine: a}", "[{CommandLine: a}, {FileVersion: x}]");
    let conversions = convert(&[file("x.yml", &text)], &lists());
    assert_eq!((conversions[0].verdict, conversions[1].verdict), (Verdict::Partial, Verdict::Partial));
    assert_eq!(conversions[0].unmapped, ["FileVersion"]);
    let reasons: Vec<&str> = conversions[0].reasons.iter().map(|reason| reason.message.as_str()).collect();
    assert!(reasons[0].contains("rule_a") && reasons[0].contains("FileVersion"), "{reasons:?}");
    assert!(conversions[0].rule.is_some());
}

#[test]
fn what_a_correlation_cannot_say_is_refused_by_its_name() {
    let good = "type: event_count\nrules: [rule_a]\ngroup-by: [User]\ntimespan: 1m\ncondition: {gte: 3}";
    for (from, to, word) in [
        ("event_count", "value_avg", "value_avg"),
        ("[rule_a]", "[nobody]", "nobody"),
        ("[rule_a]", "[]", "1 to"),
        ("1m", "1x", "1x"),
        ("1m", "999d", "999d"),
        ("[User]", "[Nowhere]", "Nowhere"),
        ("{gte: 3}", "{about: 3}", "about"),
        ("{gte: 3}", "{}", "no bound"),
        ("{gte: 3}", "{gte: many}", "whole number"),
        ("event_count", "value_count", "field"),
        ("timespan: 1m", "timespan: 1m\ngap: 1s", "gap"),
        ("timespan: 1m", "timespan: 1m\naliases: {User: {rule_b: User}}", "rule_a"),
        ("timespan: 1m", "timespan: 1m\naliases: {User: Image}", "a map of rules"),
        ("timespan: 1m", "timespan: 53w", "53w"),
        ("[rule_a]", "[7e8a0a3e-2f5d-4c6e-9d0f-1a2b3c4d5e6f]", "refers back to it or stands in a circle"),
        ("{gte: 3}", "{lt: 1}", "can never be true"),
        ("{gte: 3}", "{gte: 32769}", "at most the 32768 events that are kept for a rule"),
        ("{gte: 3}", "{gt: 3, lt: 4}", "can never be true"),
        ("{gte: 3}", "{gte: 3, field: User}", "an event_count counts events"),
        ("event_count", "temporal", "can never be true: of its rules 1 to 1"),
    ] {
        let conversion = convert(&[file("x.yml", &correlation(&good.replace(from, to)))], &lists()).remove(0);
        let reasons: Vec<&str> = conversion.reasons.iter().map(|reason| reason.message.as_str()).collect();
        assert_eq!(conversion.verdict, Verdict::Refused, "{to}: {reasons:?}");
        assert!(reasons.iter().any(|reason| reason.contains(word)), "{to}: {reasons:?}");
    }
}

/// Why the correlation of these files is refused.
fn refused(text: &str) -> Vec<String> {
    let conversion = convert(&[file("x.yml", text)], &lists()).remove(0);
    assert_eq!(conversion.verdict, Verdict::Refused, "{text}");
    assert!(conversion.reasons.iter().all(|reason| reason.line > 0), "{:?}", conversion.reasons);
    conversion.reasons.into_iter().map(|reason| reason.message).collect()
}

#[test]
fn a_name_or_id_of_several_rules_is_refused_with_the_places_of_all_of_them() {
    let body = "type: event_count\nrules: [rule_a]\ngroup-by: [User]\ntimespan: 1m\ncondition: {gte: 3}";
    let told = refused(&correlation(body).replace("name: rule_b", "name: rule_a"));
    assert!(told.len() == 1 && told[0].contains("rule a (x.yml:11), rule b (x.yml:17)"), "{told:?}");
    let twice = body.replace("[rule_a]", "[rule_a, rule_a]");
    assert_eq!(refused(&correlation(&twice).replace("name: rule_b", "name: rule_a")), told);
    let by_id = body.replace("rule_a", "8d5f1f6e-6d0a-4c9b-9d6b-2f6f0c1a7e1b");
    let told = refused(&correlation(&by_id).replace("7e1c", "7e1b"));
    assert!(told.len() == 1 && told[0].contains("rule b") && told[0].contains("rule c"), "{told:?}");
}

#[test]
fn a_field_that_is_another_column_in_each_event_is_nothing_to_group_by() {
    let of = |number: &str| {
        format!(
            "{}---\ntitle: s\nid: 8d5f1f6e-6d0a-4c9b-9d6b-2f6f0c1a7e11\nname: of_security\nlogsource: {{product: windows, service: security}}\n\
             detection: {{sel: {{{number}CommandLine: a}}, condition: sel}}\n",
            correlation(
                "type: event_count\nrules: [of_security]\ngroup-by: [ProcessId]\ntimespan: 1m\ncondition: {gte: 2}"
            )
        )
    };
    for number in ["", "EventID: [4688, 4689], "] {
        let told = refused(&of(number));
        assert!(told.iter().any(|told| told.contains("let that ask for one EventID")), "{told:?}");
    }
    let all = convert(&[file("x.yml", &of("EventID: 4688, "))], &lists());
    assert_eq!(all[0].verdict, Verdict::Compiled, "{:?}", all[0].reasons);
}

#[test]
fn a_rule_that_is_not_there_is_the_only_problem_told_of() {
    let body = "type: event_count\nrules: [nobody]\ngroup-by: [User, Image]\ntimespan: 1m\ncondition: {gte: 3}";
    let told = refused(&correlation(body));
    assert!(told.len() == 1 && told[0].contains("no such rule"), "{told:?}");
    let several = body.replace("event_count", "value_count").replace("gte: 3", "gte: 3, field: [User, Image]");
    assert!(refused(&correlation(&several)).iter().any(|told| told.contains("several fields")));
    let alone = several.replace("nobody", "rule_a");
    assert!(refused(&correlation(&alone))[0].contains("several fields is not built"));
}

#[test]
fn the_order_of_what_events_have_in_common_changes_nothing() {
    let of = |groups: &str, kind: &str| {
        format!(
            "type: {kind}\nrules: [rule_a, rule_b]\ngroup-by: [{groups}]\ntimespan: 10s\n\
             aliases: {{who: {{rule_a: User, rule_b: ParentUser}}, whom: {{rule_a: ParentUser, rule_b: User}}}}"
        )
    };
    let event = |second, line: &str, user: &str, parent: &str| json!({"time": us(second), "command_line": line, "user": user, "parent_user": parent});
    let (same, other) = (
        [event(0, "a", "root", "root"), event(1, "b", "root", "root")],
        [event(0, "a", "root", "bob"), event(1, "b", "root", "bob")],
    );
    for kind in ["temporal", "temporal_ordered"] {
        for groups in ["who, User", "User, who", "who, whom, User, ParentUser", "ParentUser, whom, who, User"] {
            assert_eq!(found_in(&of(groups, kind), &same).len(), 1, "{kind} {groups}");
            assert_eq!(found_in(&of(groups, kind), &other).len(), 0, "{kind} {groups}");
        }
    }
}

#[test]
fn rules_in_order_may_have_the_condition_that_all_of_them_are_needed() {
    let body = |condition: &str| {
        format!(
            "type: temporal_ordered\nrules: [rule_a, rule_b]\ngroup-by: [User]\ntimespan: 10s\ncondition: {condition}"
        )
    };
    for condition in ["{gte: 2}", "{gt: 1}", "{eq: 2}", "{gte: 2, lte: 5}"] {
        assert_eq!(found(&body(condition), &[(0, "a", ROOT), (5, "b", ROOT)]).len(), 1, "{condition}");
        assert_eq!(found(&body(condition), &[(0, "b", ROOT), (5, "a", ROOT)]).len(), 0, "{condition}");
    }
    for (condition, word) in
        [("{gte: 1}", "need all 2"), ("{gte: 3}", "never be true"), ("{gte: 2, field: User}", "has no field")]
    {
        let told = refused(&correlation(&body(condition)));
        assert!(told[0].contains(word), "{condition}: {told:?}");
    }
}

#[test]
fn few_events_are_counted_where_there_are_any() {
    let body = |condition: &str, groups: &str| {
        format!("type: event_count\nrules: [rule_a]{groups}\ntimespan: 10s\ncondition: {condition}")
    };
    let events = [(0, "b", ROOT), (10, "a", ROOT), (30, "a", ROOT), (31, "a", ROOT)];
    for groups in ["", "\ngroup-by: [User]"] {
        let counts = |condition: &str| {
            let found = found(&body(condition, groups), &events);
            found.iter().map(|found| found["found"].as_i64().unwrap()).collect::<Vec<_>>()
        };
        assert_eq!(counts("{lte: 1}"), [1, 1], "{groups}");
        assert_eq!(counts("{lt: 2}"), [1, 1], "{groups}");
        assert_eq!(counts("{neq: 1}"), [2], "{groups}");
        assert_eq!(counts("{gte: 0, lte: 1}"), [1, 1], "{groups}");
    }
}

#[test]
fn what_is_found_out_about_a_whole_rule_has_the_place_of_its_title_and_a_second_id_its_own() {
    let long = "x".repeat(300 * 1024);
    let text = rules().replacen("title: rule b", &format!("description: {long}\ntitle: rule b"), 1);
    let conversions = convert(&[file("x.yml", &text)], &lists());
    let reason = &conversions[1].reasons[0];
    assert_eq!((conversions[1].verdict, reason.line, reason.column), (Verdict::Refused, 9, 1), "{}", reason.message);
    let twice = rules().replace("7e1c", "7e1a");
    let conversions = convert(&[file("x.yml", &twice)], &lists());
    let reason = &conversions[2].reasons[0];
    assert_eq!((conversions[2].verdict, reason.line, reason.column), (Verdict::Refused, 15, 5), "{reason:?}");
    assert!(reason.message.contains("x.yml:3 (rule a)"), "{reason:?}");
}

#[test]
fn rules_of_a_correlation_raise_nothing_by_themselves_unless_it_says_so() {
    let body = "type: event_count\nrules: [rule_a]\ngroup-by: [User]\ntimespan: 1m\ncondition: {gte: 3}";
    for (said, alone) in
        [("", false), ("\ngenerate: true", true), ("\ngenerate: yes", true), ("\ngenerate: off", false)]
    {
        let body = format!("{body}{said}");
        let conversions = convert(&[file("x.yml", &correlation(&body))], &lists());
        assert_eq!(conversions[1].rule.is_some(), alone);
        assert!(conversions[2].rule.is_some(), "rule_b is in no correlation");
    }
}

#[test]
fn rules_of_a_refused_correlation_go_on_by_themselves() {
    let body = "type: value_avg\nrules: [rule_a]\ngroup-by: [User]\ntimespan: 1m\ncondition: {gte: 3}";
    let conversions = convert(&[file("x.yml", &correlation(body))], &lists());
    assert_eq!(conversions[0].verdict, Verdict::Refused);
    assert!(conversions[1].rule.is_some());
}

/// What a hunt with these rule files prints, in batches of so many lines.
pub(super) fn hunted(rules: &[(&str, &str)], events: &[Value], lines: usize) -> (Vec<(String, u64)>, Hunt) {
    let dir = tempfile::tempdir().unwrap();
    let paths: Vec<_> = rules.iter().map(|(name, _)| dir.path().join(name)).collect();
    for (path, (_, text)) in paths.iter().zip(rules) {
        std::fs::write(path, text).unwrap();
    }
    let (hunt, notes) = Hunt::load(&paths, &lists());
    assert!(notes.iter().all(|note| !note.is_refusal), "{notes:?}");
    let mut rows = Rows::default();
    let (mut found, mut number) = (Vec::new(), 0);
    for some in events.chunks(lines) {
        for event in some {
            assert_eq!(rows.take(number, event.to_string().as_bytes()), Line::Taken);
            number += 1;
        }
        let matches = hunt.matches(rows.finish().unwrap());
        found.extend(matches.iter().map(|found| (found.rule_id.to_owned(), found.event)));
    }
    found.extend(hunt.finish().iter().map(|found| (found.rule_id.to_owned(), found.event)));
    (found, hunt)
}

pub(super) fn at(second: i64, command_line: &str) -> Value {
    json!({"UtcTime": format!("2026-01-31 12:00:{second:02}.000"), "CommandLine": command_line, "User": "root", "seq": 99})
}

#[test]
fn a_hunt_runs_correlations_and_names_the_line_that_completed_each() {
    let body = "type: event_count\nrules: [rule_a]\ngroup-by: [User]\ntimespan: 10s\ncondition: {gte: 3}";
    let events = [at(0, "a"), at(1, "b"), at(2, "a"), at(3, "c"), at(4, "a"), at(40, "a")];
    for lines in [1, 2, 100] {
        let (found, hunt) = hunted(&[("x.yml", &correlation(body))], &events, lines);
        let of = |last: &str| {
            found.iter().filter(|(id, _)| id.ends_with(last)).map(|(_, event)| *event).collect::<Vec<_>>()
        };
        assert_eq!(
            (of("6f"), of("1a"), of("1b"), of("1c")),
            (vec![4], vec![], vec![1], vec![3]),
            "{lines} lines: {found:?}"
        );
        assert_eq!(hunt.shortfalls(), Vec::<String>::new());
    }
}

/// An event so many ms after the start.
pub(super) fn at_ms(ms: i64, command_line: &str, user: &str) -> Value {
    let time = format!("2026-01-31 12:00:{:02}.{:03}", ms / 1_000, ms % 1_000);
    json!({"UtcTime": time, "CommandLine": command_line, "User": user})
}

fn lines_of(found: &[(String, u64)]) -> Vec<u64> {
    let mut lines: Vec<u64> = found.iter().filter(|(id, _)| id.ends_with("6f")).map(|(_, line)| *line).collect();
    lines.sort_unstable();
    lines
}

#[test]
fn a_hunt_misses_no_group_of_a_burst() {
    let body = "type: event_count\nrules: [rule_a]\ngroup-by: [User]\ntimespan: 1s\ncondition: {gte: 10}";
    let events: Vec<Value> =
        (0..200).map(|at| at_ms(at / 10 * 900 + at % 10 * 90, "a", &format!("user{}", at / 10))).collect();
    let (found, hunt) = hunted(&[("x.yml", &correlation(body))], &events, 64);
    let expected: Vec<u64> = (0..20).map(|user| user * 10 + 9).collect();
    assert_eq!((lines_of(&found), hunt.shortfalls()), (expected, Vec::new()));
}

#[test]
fn many_events_in_order_are_as_many_matches_as_there_are_last_ones() {
    let body = "type: temporal_ordered\nrules: [rule_a, rule_b, rule_c]\ngroup-by: [User]\ntimespan: 60s";
    let events: Vec<Value> =
        (0..300_i64).zip(["a", "b", "c"].iter().cycle()).map(|(at, name)| at_ms(at * 50, name, "root")).collect();
    let (found, hunt) = hunted(&[("x.yml", &correlation(body))], &events, 100);
    let expected: Vec<u64> = (0..100).map(|third| third * 3 + 2).collect();
    assert_eq!((lines_of(&found), hunt.shortfalls()), (expected, Vec::new()));
}

#[test]
fn one_event_is_not_two_steps() {
    let body = "type: temporal_ordered\nrules: [rule_b, rule_b]\ngroup-by: [User]\ntimespan: 10s";
    assert_eq!(found(body, &[(0, "b", ROOT)]).len(), 0);
    assert_eq!(found(body, &[(0, "b", ROOT), (11, "b", ROOT)]).len(), 0, "too late");
    assert_eq!(found(body, &[(0, "b", ROOT), (5, "b", ROOT)]).len(), 1);
    assert_eq!(found(body, &[(0, "b", ROOT), (0, "b", ROOT)]).len(), 1, "at one time");
    let back = "type: temporal_ordered\nrules: [rule_b, rule_a, rule_b]\ngroup-by: [User]\ntimespan: 10s";
    assert_eq!(found(back, &[(0, "b", ROOT), (0, "a", ROOT)]).len(), 0);
    assert_eq!(found(back, &[(0, "b", ROOT), (0, "a", ROOT), (0, "b", ROOT)]).len(), 1);
}

#[test]
fn eight_rules_in_order() {
    let body = |rules: &str| format!("type: temporal_ordered\nrules: [{rules}]\ngroup-by: [User]\ntimespan: 10s");
    let eight = "rule_a, rule_b, rule_c, rule_a, rule_b, rule_c, rule_a, rule_b";
    let events: Vec<_> = (0..8).zip(["a", "b", "c"].into_iter().cycle()).map(|(at, name)| (at, name, ROOT)).collect();
    assert_eq!(found(&body(eight), &events).len(), 1);
    assert_eq!(found(&body(eight), &events[1..]).len(), 0);
    assert_eq!(found(&body("rule_a, rule_b, rule_c, rule_a"), &events[..4]).len(), 1);
}

#[test]
fn an_ordered_span_begins_with_the_latest_first_event_that_fits() {
    let body = "type: temporal_ordered\nrules: [rule_a, rule_b, rule_c]\ngroup-by: [User]\ntimespan: 10s";
    assert_eq!(found(body, &[(0, "a", ROOT), (4, "a", ROOT), (6, "b", ROOT), (13, "c", ROOT)]).len(), 1);
    assert_eq!(found(body, &[(0, "a", ROOT), (6, "b", ROOT), (7, "a", ROOT), (13, "c", ROOT)]).len(), 0);
}

const ABSENCE: &str = "id: 3d9f2c1e-7a54-4b0e-9a51-0c8c5f3f7a01\nname: nobody follows\nseverity: low\n\
    sql: SELECT a.pid AS pid FROM process_events a LEFT JOIN process_events b ON b.command_line = 'b' AND b.time BETWEEN a.time AND \
    a.time + INTERVAL '5 seconds' WHERE a.command_line = 'a' AND b.time IS NULL\n";

#[test]
fn a_hunt_decides_at_the_end_of_the_file_what_does_not_come_and_tells_what_came_too_late() {
    let (found, hunt) = hunted(&[("own.yaml", ABSENCE)], &[at(0, "a"), at(2, "b"), at(50, "a")], 1);
    let id = "3d9f2c1e-7a54-4b0e-9a51-0c8c5f3f7a01".to_owned();
    assert_eq!((found, hunt.shortfalls()), (vec![(id, 2)], Vec::new()));
    let mut events = vec![at(50, "a")];
    events.extend((0..40).map(|_| at(56, "c")));
    events.push(at(0, "a"));
    let (_, hunt) = hunted(&[("own.yaml", ABSENCE)], &events, 1);
    assert!(hunt.shortfalls()[0].contains("1 events came too late"), "{:?}", hunt.shortfalls());
}

#[test]
fn a_hunt_takes_lists_and_exceptions_from_any_of_its_paths() {
    let rule = "id: 3d9f2c1e-7a54-4b0e-9a51-0c8c5f3f7a01\nname: r\nseverity: low\nsql: \"SELECT pid FROM process_events WHERE \
        command_line IN (list('tools'))\"\n";
    let list = "list: tools\nvalues: [a, b]\n";
    let over = "override: 3d9f2c1e-7a54-4b0e-9a51-0c8c5f3f7a01\nexceptions:\n  - where: command_line = 'b'\n    \
        owner: ops\n    reason: ours\n    expires: never\n";
    let files = [("rule.yaml", rule), ("list.yaml", list), ("over.yaml", over)];
    let (found, _) = hunted(&files, &[at(0, "a"), at(1, "b"), at(2, "c")], 100);
    assert_eq!(found.iter().map(|(_, event)| *event).collect::<Vec<_>>(), [0]);
}

#[test]
fn overrides_and_exceptions_count_for_sigma_rules_too() {
    let rule = rules();
    let over = "override: 8d5f1f6e-6d0a-4c9b-9d6b-2f6f0c1a7e1a\nexceptions:\n  - where: user = 'root'\n    \
        owner: ops\n    reason: ours\n    expires: never\n";
    let off = "override: 8d5f1f6e-6d0a-4c9b-9d6b-2f6f0c1a7e1b\nenabled: false\n";
    let events = [at(0, "a"), at(1, "b"), at(2, "c")];
    let (found, _) = hunted(&[("o.yaml", over), ("off.yaml", off), ("x.yml", &rule)], &events, 100);
    assert_eq!(found.iter().map(|(_, event)| *event).collect::<Vec<_>>(), [2]);
    let body = "type: event_count\nrules: [rule_c]\ngroup-by: [User]\ntimespan: 1m\ncondition: {gte: 1}";
    let over = over.replace("8d5f1f6e-6d0a-4c9b-9d6b-2f6f0c1a7e1a", "7e8a0a3e-2f5d-4c6e-9d0f-1a2b3c4d5e6f");
    let (found, _) = hunted(&[("o.yaml", &over), ("x.yml", &correlation(body))], &events, 100);
    assert_eq!(found.iter().map(|(_, event)| *event).collect::<Vec<_>>(), [0, 1], "the correlation is hidden");
}

#[test]
fn a_file_is_read_once_however_many_paths_lead_there_and_its_end_may_be_in_capitals() {
    let dir = tempfile::tempdir().unwrap();
    let below = dir.path().join("below");
    std::fs::create_dir(&below).unwrap();
    std::fs::write(below.join("X.YML"), rules()).unwrap();
    let own = ABSENCE.replace("LEFT JOIN", "JOIN").replace(" AND b.time IS NULL", "");
    std::fs::write(below.join("own.YAML"), own).unwrap();
    let (hunt, notes) = Hunt::load(&[dir.path().to_owned(), below.clone(), below.join("X.YML")], &lists());
    assert_eq!((hunt.rules(), notes), (4, Vec::new()));
}

#[cfg(unix)]
#[test]
fn a_link_to_nothing_is_called_that() {
    let dir = tempfile::tempdir().unwrap();
    std::os::unix::fs::symlink("nowhere", dir.path().join("a.yml")).unwrap();
    let (_, notes) = Hunt::load(&[dir.path().to_owned()], &lists());
    assert!(notes.len() == 1 && notes[0].text.contains("it is a link to what is not there"), "{notes:?}");
}

#[test]
fn a_hunt_names_the_line_that_completed_a_match_once_however_many_ways_led_there() {
    let body = "type: temporal_ordered\nrules: [rule_a, rule_b]\ngroup-by: [User]\ntimespan: 1m";
    let events = [at(0, "a"), at(1, "a"), at(2, "a"), at(3, "b")];
    for lines in [1, 2, 100] {
        let (mut found, hunt) = hunted(&[("x.yml", &correlation(body))], &events, lines);
        found.retain(|(id, _)| id.ends_with("6f"));
        assert_eq!(found.iter().map(|(_, event)| *event).collect::<Vec<_>>(), [3], "{lines} lines");
        assert_eq!(hunt.maybe_again(), 0);
    }
}
