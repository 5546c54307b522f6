//! Files as they come: events out of order, fields that no column holds, rules that hold for a while.

use daemoneye_engine::hunt::{Line, Rows};
use daemoneye_engine::sigma::{Verdict, convert};
use proptest::prelude::*;
use serde_json::{Value, json};

use super::correlations::{at, at_ms, hunted, rules};
use super::{converted, decides, file, lists, rule, told};

/// The lines at which a correlation of this body is found.
fn found(body: &str, events: &[Value]) -> Vec<u64> {
    let body: String = body.lines().map(|line| format!("  {line}\n")).collect();
    let text = format!(
        "title: t\nname: outer\nid: 7e8a0a3e-2f5d-4c6e-9d0f-1a2b3c4d5e6f\ncorrelation:\n{body}---\n{}",
        rules()
    );
    let (found, hunt) = hunted(&[("x.yml", &text)], events, 7);
    assert_eq!(hunt.shortfalls(), Vec::<String>::new());
    let mut lines: Vec<u64> = found.iter().filter(|(id, _)| id.ends_with("6f")).map(|(_, line)| *line).collect();
    lines.sort_unstable();
    lines
}

#[test]
fn a_field_that_no_column_holds_is_one_that_no_event_has() {
    let with = |test: &str| rule(&format!("sel:\n  CommandLine: a\n  {test}\ncondition: sel"));
    for test in [
        "FileVersion: null",
        "FileVersion: [null, x]",
        "LogonGuid|exists: false",
        "FileVersion|neq: '1.0'",
        "FileVersion|contains|neq: x",
    ] {
        decides(test, &with(test), &["a"], &["b"]);
        told(test, &with(test), Verdict::Partial, "what it would take out stays in");
    }
    for test in ["FileVersion: ''", "FileVersion: '*'", "LogonGuid|exists: true", "FileVersion|neq: null"] {
        told(test, &with(test), Verdict::Inert, "what needs it never matches");
    }
    let out = rule("sel: {CommandLine: [a, b]}\nout: {FileVersion: null, CommandLine: b}\ncondition: sel and not out");
    decides("not null", &out, &["a"], &["b"]);
    told("exists of nothing", &with("FileVersion|exists: 1"), Verdict::Refused, "exists takes true or false");
    told("nothing else", &rule("sel: {FileVersion: null}\ncondition: sel"), Verdict::Refused, "every event");
}

#[test]
fn the_end_of_a_process_has_names_of_its_own_in_securitys_log() {
    let of = |source: &str, selection: &str| {
        rule(&format!("sel: {{{selection}}}\ncondition: sel"))
            .replace("category: process_creation, product: windows", source)
    };
    let ended = r#"{"EventID": 4689, "Channel": "Security", "ProcessId": "0x10", "ProcessName": "C:\\a.exe"}"#;
    let other = r#"{"EventID": 4689, "Channel": "Security", "ProcessId": "0x11", "ProcessName": "C:\\b.exe"}"#;
    for (source, number) in [
        ("product: windows, service: security", "EventID: 4689, "),
        ("product: windows, service: security, category: process_termination", ""),
        ("product: windows", "EventID: 4689, "),
    ] {
        for test in ["ProcessId: '0x10'", "ProcessName|endswith: '\\a.exe'"] {
            decides(test, &of(source, &format!("{number}{test}")), &[ended], &[other]);
        }
    }
    let begun = r#"{"EventID": 4688, "NewProcessId": "0x20", "ProcessId": "0x10", "NewProcessName": "C:\\a.exe"}"#;
    let by = "product: windows, service: security";
    decides("4688", &of(by, "EventID: 4688, ProcessId: 16"), &[begun], &[&begun.replace("0x10", "0x11")]);
    let ids = |id: &str, own: &str| begun.replace("0x10", id).replace("0x20", own);
    for number in ["", "EventID: [4688, 4689], ", "EventID: ['4689', 4688], "] {
        let is = |test: &str| of(by, &format!("{number}{test}"));
        decides(number, &is("ProcessId: 16"), &[ended, begun], &[other, &ids("0x11", "0x10")]);
        decides(number, &is("ProcessId|neq: 16"), &[other, &ids("0x11", "0x10")], &[ended, begun]);
        decides(number, &is("ProcessName|endswith: '\\a.exe'"), &[ended], &[other, begun]);
        decides(number, &is("ProcessName|exists: false"), &[begun], &[ended, other]);
        decides(number, &is("NewProcessId|fieldref: ProcessId"), &[&ids("0x10", "0x10")], &[begun]);
        assert_eq!(converted(&is("ProcessName: a")).verdict, Verdict::Compiled);
    }
    // Elsewhere the name may mean another thing.
    let line = r#"{"ProcessName": "C:\\a.exe"}"#;
    assert!(matches!(Rows::default().take(0, line.as_bytes()), Line::Without(lacks) if lacks.strange));
}

#[test]
fn a_name_may_stand_in_the_attributes_and_an_event_that_says_nothing_is_told() {
    let of = rule("sel: {Image|endswith: '\\a.exe'}\ncondition: sel");
    let named = r##"{"Event": {"EventData": {"Data": [{"#attributes": {"Name": "Image"}, "#text": "C:\\a.exe"}]}}}"##;
    decides("attributes", &of, &[named], &[&named.replace("a.exe", "b.exe")]);
    let strange =
        |line: &str| matches!(Rows::default().take(0, line.as_bytes()), Line::Without(lacks) if lacks.strange);
    assert!(strange(r#"{"EventID": 1, "UtcTime": "2026-01-31 12:00:00", "Fields": {"Image": "C:\\a.exe"}}"#));
    assert!(!strange(r#"{"EventID": 1, "Image": "C:\\a.exe", "Fields": 1}"#));
}

#[test]
fn what_stands_behind_a_refused_collection_is_refused_too() {
    let global = "action: global\nlogsource: {category: process_termination, product: windows}\n";
    let part = "title: part\nid: 8d5f1f6e-6d0a-4c9b-9d6b-2f6f0c1a7e12\ndetection: {sel: {Image|endswith: '\\a.exe'}, condition: sel}\n";
    let whole = rule("sel: {CommandLine: a}\ncondition: sel");
    let all = convert(&[file("a.yml", &format!("{whole}---\n{global}---\n{part}")), file("b.yml", part)], &lists());
    let verdicts: Vec<Verdict> = all.iter().map(|one| one.verdict).collect();
    assert_eq!(verdicts, [Verdict::Compiled, Verdict::Refused, Verdict::Refused, Verdict::Compiled]);
    let told = &all[2].reasons[0];
    assert!(told.message.contains("behind a collection of rules (action, line 8)"), "{told:?}");
    assert!(told.line > 9, "{told:?}");
    assert!(converted(part).rule.is_some());
    let reset = format!("{global}---\naction: reset\n---\n{part}");
    let all = convert(&[file("c.yml", &reset)], &lists());
    assert_eq!(all[2].verdict, Verdict::Compiled, "behind a reset it is whole: {:?}", all[2].reasons);
}

#[test]
fn a_count_that_need_not_stay_holds_at_events_of_its_group() {
    let count = |bound: &str| {
        format!("type: event_count\nrules: [rule_a]\ngroup-by: [User]\ntimespan: 1m\ncondition: {{{bound}}}")
    };
    let of = |ms: i64, user: &str| at_ms(ms, "a", user);
    // At 55 s the first of u has become too old for one minute behind 50 s, and u has one again: nothing of u happened then.
    let events = [of(0, "u"), of(40_000, "u"), of(59_900, "v")];
    let later = [json!({"UtcTime": "2026-01-31 12:01:20", "CommandLine": "a", "User": "w"})];
    let all: Vec<Value> = events.iter().chain(&later).cloned().collect();
    assert_eq!(found(&count("eq: 1"), &all), [0, 2, 3]);
    assert_eq!(found(&count("lt: 2"), &all), [0, 2, 3]);
    assert_eq!(found(&count("neq: 1"), &all), [1]);
    assert_eq!(found(&count("gte: 2, lte: 2"), &all), [1]);
    let values =
        "type: value_count\nrules: [rule_a]\ngroup-by: [User]\ntimespan: 1m\ncondition: {field: CommandLine, eq: 1}";
    assert_eq!(found(values, &all), [0, 1, 2, 3]);
    // Many at one time: each is counted with those before it.
    let ties: Vec<Value> = (0..4).map(|_| of(0, "u")).collect();
    assert_eq!(found(&count("lt: 3"), &ties), [0, 1]);
}

#[test]
fn one_rule_in_order_has_its_group_too() {
    let body = "type: temporal_ordered\nrules: [rule_a]\ngroup-by: [Company]\ntimespan: 10s";
    let mut events = [at(0, "a"), at(1, "a")];
    events[1]["Company"] = json!("us");
    assert_eq!(found(body, &events), [1]);
}

/// Of a line each time, so far behind those before it that it is still in time.
fn shuffled() -> impl Strategy<Value = Vec<(i64, char)>> {
    let event = (0..900_i64, 0..4_900_i64, prop::sample::select(vec!['a', 'b', 'c']));
    prop::collection::vec(event, 4..40).prop_map(|steps| {
        let mut ms = 0;
        let mut sent: Vec<(i64, i64, char)> = Vec::new();
        for (step, delay, name) in steps {
            ms += step;
            sent.push((ms + delay, ms, name));
        }
        sent.sort_by_key(|(came, ..)| *came);
        sent.into_iter().map(|(_, ms, name)| (ms, name)).collect()
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]
    #[test]
    fn a_file_out_of_order_by_seconds_is_read_as_one_in_order(events in shuffled(), kind in 0..3_usize) {
        let body = [
            "type: temporal_ordered\nrules: [rule_a, rule_b]\ngroup-by: [User]\ntimespan: 5s",
            "type: event_count\nrules: [rule_a]\ngroup-by: [User]\ntimespan: 5s\ncondition: {gte: 3}",
            "type: temporal\nrules: [rule_a, rule_b, rule_c]\ngroup-by: [User]\ntimespan: 5s",
        ][kind];
        let mut order: Vec<usize> = (0..events.len()).collect();
        order.sort_by_key(|line| events[*line].0);
        let event = |(ms, name): &(i64, char)| at_ms(*ms, &name.to_string(), "root");
        let sorted: Vec<Value> = order.iter().map(|line| event(&events[*line])).collect();
        let mut expected: Vec<u64> =
            found(body, &sorted).iter().map(|at| order[usize::try_from(*at).unwrap()] as u64).collect();
        expected.sort_unstable();
        prop_assert_eq!(found(body, &events.iter().map(event).collect::<Vec<_>>()), expected);
    }
}

/// An event at that second since noon.
fn at_second(second: i64, name: &str) -> Value {
    let mut event = at(0, name);
    event["UtcTime"] =
        json!(format!("2026-01-31 {:02}:{:02}:{:02}", 12 + second / 3_600, second / 60 % 60, second % 60));
    event
}

const THREE: &str = "type: event_count\nrules: [rule_a]\ngroup-by: [User]\ntimespan: 10s\ncondition: {gte: 3}";
const THEN: &str = "type: temporal_ordered\nrules: [rule_a, rule_b]\ngroup-by: [User]\ntimespan: 10s";

#[test]
fn a_clock_that_was_wrong_in_one_line_costs_no_match_around_it() {
    let of = |names: &str, from: i64| {
        names.chars().zip(from..).map(|(name, at)| at_second(at, &name.to_string())).collect::<Vec<_>>()
    };
    let mut events = of("aaab", 1);
    events.extend((0..40).map(|minute| at_second(60 + minute * 60, "c")));
    let middle = events.len() + 2;
    events.extend(of("aaab", 2_600));
    events.extend((0..40).map(|minute| at_second(3_000 + minute * 60, "c")));
    events.extend(of("aaab", 6_000));
    let mut wrong = at(0, "a");
    wrong["UtcTime"] = json!("2099-01-01 00:00:00");
    for place in [3, 30, middle, middle + 20] {
        let mut events = events.clone();
        events.insert(place, wrong.clone());
        let after = |line: usize| (line + usize::from(place <= line)) as u64;
        assert_eq!(found(THREE, &events), [2, middle, 90].map(after), "the wrong one at {place}");
        assert_eq!(found(THEN, &events), [3, middle + 1, 91].map(after), "the wrong one at {place}");
    }
}

#[test]
fn a_file_that_begins_with_what_is_newer_is_read_as_two() {
    let newer = "aaabccccccccccccc";
    let newer: Vec<Value> = newer.chars().zip(800..).map(|(name, at)| at_second(at, &name.to_string())).collect();
    // Each rule has few events among the others.
    let older = |at: i64| match at {
        10..=12 | 900..=902 | 4_990..=4_992 => "a",
        14 | 904 | 4_994 => "b",
        _ => "c",
    };
    let older: Vec<Value> =
        (0..500).flat_map(|ten| [0, 1, 2, 4].map(|at| ten * 10 + at)).map(|at| at_second(at, older(at))).collect();
    let events = [newer, older].concat();
    let line = |second: u64| 17 + second / 10 * 4 + [0, 1, 2, 0, 3][(second % 10) as usize];
    for (body, at) in [(THREE, [2, line(12), line(902), line(4_992)]), (THEN, [3, line(14), line(904), line(4_994)])] {
        let text = format!(
            "title: t\nid: 7e8a0a3e-2f5d-4c6e-9d0f-1a2b3c4d5e6f\ncorrelation:\n  {}\n{}",
            body.replace('\n', "\n  "),
            rules()
        );
        for lines in [7, 4_096] {
            let (found, hunt) = hunted(&[("x.yml", &text)], &events, lines);
            let found = found.iter().filter(|(id, _)| id.ends_with("6f")).map(|(_, line)| *line);
            assert_eq!(found.collect::<Vec<_>>(), at, "{body}");
            let told = hunt.shortfalls();
            assert!(told.len() == 1 && told[0].contains("went back 1 times"), "{told:?}");
        }
    }
}

#[test]
fn a_step_back_that_a_rule_looks_over_ends_nothing() {
    // Two hosts whose lines come in turn, 10 s of each at a time: each piece of the second begins behind the first's.
    let mut events = Vec::new();
    for piece in 0..4_i64 {
        for host in 0..2 {
            events.extend((0..50).map(|at| {
                let name = match (piece, host, at) {
                    (_, 1, 49) => "a",
                    (2, 1, 48) => "b",
                    _ => "c",
                };
                at_second(piece * 10 + at / 5, name)
            }));
        }
    }
    let body = "type: event_count\n  rules: [rule_a]\n  group-by: [User]\n  timespan: 1h\n  condition: {gte: 4}";
    let text = format!("title: t\nid: 7e8a0a3e-2f5d-4c6e-9d0f-1a2b3c4d5e6f\ncorrelation:\n  {body}\n{}", rules());
    let (found, hunt) = hunted(&[("x.yml", &text)], &events, 4_096);
    let lines: Vec<u64> = found.iter().filter(|(id, _)| id.ends_with("6f")).map(|(_, line)| *line).collect();
    assert_eq!(lines, [399], "of all four pieces: {:?}", hunt.shortfalls());
}

#[test]
fn a_time_at_which_nothing_happened_is_no_moment() {
    let rule = "id: 7e8a0a3e-2f5d-4c6e-9d0f-1a2b3c4d5e6f\nname: three\nseverity: low\nsql: |\n  SELECT user, count(*) AS n FROM process_events \
                WHERE command_line = 'a' AND time > now() - INTERVAL '1 second' GROUP BY user HAVING count(*) = 3\n";
    // Eight times in ten seconds, of which the last has several events: four within its second, three once the one before is gone.
    let times = [1_000, 2_100, 3_200, 4_300, 5_400, 6_500, 7_600, 8_300, 8_300, 8_300];
    let events: Vec<Value> =
        times.iter().map(|ms| at_ms(*ms, "a", "root")).chain([at_ms(30_000, "c", "root")]).collect();
    for lines in [1, 4_096] {
        assert_eq!(hunted(&[("x.yaml", rule)], &events, lines).0, [], "in pieces of {lines}");
    }
}

#[test]
fn late_lines_of_a_step_back_are_decided_as_they_come() {
    let rule = "id: 7e8a0a3e-2f5d-4c6e-9d0f-1a2b3c4d5e6f\nname: three\nseverity: low\nsql: |\n  SELECT user, count(*) AS n FROM process_events \
                WHERE command_line = 'a' AND time > now() - INTERVAL '1 hour' GROUP BY user HAVING count(*) = 3\n";
    // Two logs of fifty minutes; only the second has what the rule is about, five times of each of four users.
    let first = (0..300).map(|ten| at_second(ten * 10, "c"));
    let second = (0..300).map(|ten| {
        let is_meant = (100..180).contains(&ten) && ten % 20 < 5;
        let mut event = at_second(ten * 10, if is_meant { "a" } else { "c" });
        event["User"] = json!(format!("user {}", ten / 20));
        event
    });
    let events: Vec<Value> = first.chain(second).collect();
    let (found, hunt) = hunted(&[("x.yaml", rule)], &events, 4_096);
    assert_eq!(
        found.iter().map(|(_, line)| *line).collect::<Vec<_>>(),
        [402, 422, 442, 462],
        "{:?}",
        hunt.shortfalls()
    );
    assert!(hunt.shortfalls().iter().any(|told| told.contains("went back 1 times")), "{:?}", hunt.shortfalls());
}
