//! Rule files: what is refused, with its place; what overrides what; what a rule set reports.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use daemoneye_engine::detect::{LoadedRule, Refusal, RuleSet, rules};
use daemoneye_engine::ingest::{EventBatch, batch_from_json};
use daemoneye_lib::model::{Completeness, Degraded, RuleState};
use daemoneye_lib::proto::Sequence;
use datafusion::arrow::array::RecordBatch;
use serde_json::{Map, Value, json};

const ID: &str = "7e8a0a3e-2f5d-4c6e-9d0f-1a2b3c4d5e6f";

fn file(sql: &str) -> String {
    let sql = sql.lines().map(|line| format!("  {line}\n")).collect::<String>();
    format!("id: {ID}\nname: a rule\nseverity: low\nsql: |\n{sql}")
}

fn parse(yaml: &str) -> Result<LoadedRule, Vec<Refusal>> {
    rules::parse(Path::new("pack/rule.yaml"), yaml)
}

fn refused(sql: &str) -> Refusal {
    let mut problems = parse(&file(sql)).unwrap_err();
    assert_eq!(problems.len(), 1, "{problems:#?}");
    problems.remove(0)
}

fn batch(rows: &[Value]) -> EventBatch {
    let rows: Vec<Map<String, Value>> = rows.iter().map(|row| row.as_object().unwrap().clone()).collect();
    let at = Sequence { epoch: 1, number: 1 };
    let batch = batch_from_json(&rows).unwrap();
    EventBatch { batch, collector: "test".into(), first: at, last: at, gaps: Vec::new(), live: Vec::new() }
}

fn set_of(sqls: &[&str]) -> RuleSet {
    let loaded = sqls.iter().enumerate().map(|(at, sql)| {
        let mut rule = parse(&file(sql)).unwrap();
        Arc::make_mut(&mut rule.rule).id = format!("00000000-0000-4000-8000-00000000000{at}").parse().unwrap();
        rule
    });
    let (set, refusals) = RuleSet::compile(loaded.collect());
    assert!(refusals.is_empty());
    set
}

#[test]
fn every_problem_of_a_file_is_told_with_its_place() {
    let yaml = "id: not-a-uuid\nnmae: x\nseverity: hihg\ntags: one\nwindow: 0\nenabled: maybe\ndedup: [comand_line, zzz]\n\
                sql: SELECT nam FROM process_events\ntests:\n  - name: a\n    event: {nam: x, pid: abc, time: soon}\n";
    let problems = parse(yaml).unwrap_err();
    let told: Vec<String> = problems.iter().map(ToString::to_string).collect();
    for expected in [
        "pack/rule.yaml:1:5: id is not a UUID: not-a-uuid",
        "pack/rule.yaml:1:1: the field name is missing",
        "pack/rule.yaml:2:1: a rule has no field nmae (did you mean name?)",
        "pack/rule.yaml:3:11: there is no severity hihg",
        "pack/rule.yaml:4:7: tags is a list, and this is text",
        "pack/rule.yaml:5:9: window is a number of seconds",
        "pack/rule.yaml:6:10: enabled is true or false, and this is text",
        "process_events has no column comand_line (did you mean command_line?)",
        "process_events has no column zzz (SELECT * FROM process_events LIMIT 1 shows the columns)",
        "pack/rule.yaml:8:13: process_events has no column nam (did you mean name?)",
        "pack/rule.yaml:10:5: the test does not say what it expects",
        "pack/rule.yaml:11:13: process_events has no column nam (did you mean name?)",
        "pack/rule.yaml:11:26: pid takes an integer, not \"abc\"",
        "pack/rule.yaml:11:37: time takes an RFC 3339 time or microseconds since 1970, not \"soon\"",
    ] {
        assert!(
            told.iter().any(|line| line.starts_with(expected) || line.contains(expected)),
            "{expected} in {told:#?}"
        );
    }
}

#[test]
fn yaml_that_cannot_be_read_names_its_line() {
    let problems = parse("id: a\nname: [\n").unwrap_err();
    assert_eq!(problems.len(), 1);
    assert!(problems[0].line >= 2 && problems[0].message.starts_with("this is not YAML"), "{problems:#?}");
    let twice = parse(&format!("{}name: again\n", file("SELECT pid FROM process_events"))).unwrap_err();
    assert!(twice[0].message.contains("name") && twice[0].line == 6, "{twice:#?}");
    assert!(!parse("").unwrap_err().is_empty());
    assert!(!parse("- a list").unwrap_err().is_empty());
}

#[test]
fn a_place_in_the_sql_is_the_place_in_the_file() {
    let refusal = refused("SELECT pid\nFROM process_events\nWHERE nmae = 'x'");
    assert_eq!((refusal.line, refusal.column), (7, 9), "{refusal}");
    assert_eq!(refusal.hint.as_deref(), Some("did you mean name?"));
}

/// The places and the beginnings of the messages.
fn told(sql: &str) -> Vec<(u64, u64, String)> {
    let problems = parse(&file(sql)).unwrap_err();
    problems.into_iter().map(|problem| (problem.line, problem.column, problem.message)).collect()
}

#[test]
fn every_problem_of_a_select_is_told_in_the_order_of_the_places() {
    let sql = "SELECT pid, comand_line, foo(name) AS f\n\
               FROM process_events\n\
               WHERE nmae = 'x' AND pid = 'x'\n\
               OR ci_contains(executable_path, 5) AND name SIMILAR TO 'x'\n\
               OR regexp_like(name, '(') AND exe_path IN (list('none'), 'a') AND usr LIKE 'a%' LIMIT 5";
    let found = told(sql);
    let expected = [
        (5, 3, "ORDER BY, LIMIT"),
        (5, 15, "process_events has no column comand_line"),
        (5, 28, "there is no function foo"),
        (7, 9, "process_events has no column nmae"),
        (7, 24, "an integer cannot be compared with text"),
        (8, 35, "a value of ci_contains"),
        (8, 42, "SIMILAR TO"),
        (9, 24, "the pattern does not compile"),
        (9, 33, "process_events has no column exe_path"),
        (9, 46, "there is no list none"),
        (9, 69, "process_events has no column usr"),
    ];
    assert_eq!(found.len(), expected.len(), "{found:#?}");
    for ((line, column, begins), (at_line, at_column, message)) in expected.iter().zip(&found) {
        assert_eq!((line, column), (at_line, at_column), "{begins}: {found:#?}");
        assert!(message.starts_with(begins), "{begins}: {found:#?}");
    }
}

#[test]
fn what_follows_from_a_problem_is_no_further_one() {
    for condition in [
        "nmae + 1 > 2",
        "abs(nmae) * 2 = 4 AND pid = 1",
        "CASE WHEN pid = 1 THEN nmae END = 'x'",
        "coalesce(nmae, 5) = 'x'",
        "nullif(nmae, 'x') || name = 'x'",
        "substr(name, nmae) = 'x'",
        "name LIKE nmae",
        "nmae @@ name",
        "time > now() + pid",
        "foo(bar(nmae)) = baz",
        "name IN (list('none'))",
        "re_match(name, '(')",
        "datetime('2026-01-31', 'start of aeon') < time",
        "time - INTERVAL '1 aeon' > time",
    ] {
        let found = told(&format!("SELECT pid FROM process_events WHERE {condition}"));
        let most = if condition.contains("baz") { 2 } else { 1 };
        assert_eq!(found.len(), most, "{condition}: {found:#?}");
    }
}

#[test]
fn a_window_rule_tells_all_of_its_unknown_names() {
    let sql = "SELECT usr, count(*) AS n, foo(name)\nFROM process_event AS e\n\
               WHERE e.nmae = 'x' AND tmie > now() - INTERVAL '5 minutes'\nGROUP BY usr HAVING cuont(*) > 3";
    let found: Vec<_> = told(sql);
    let places: Vec<_> = found.iter().map(|(line, column, _)| (*line, *column)).collect();
    assert_eq!(places, [(5, 10), (5, 30), (6, 8), (7, 9), (7, 26), (8, 12), (8, 23)], "{found:#?}");
    let forgotten = told("SELECT usr, count(*) AS n FROM process_events WHERE nmae = 'x' GROUP BY usr");
    assert_eq!(forgotten.len(), 4, "three names and the time: {forgotten:#?}");
    assert!(forgotten[1].2.starts_with("nothing says how far back"), "{forgotten:#?}");
    let foreign = "SELECT e.pid FROM process_events e JOIN users u ON u.uid = e.uid\n\
                   WHERE u.username = 'x' AND foo(u.home) = 1 AND e.time > now() - INTERVAL '1 minute'";
    let of_table: Vec<_> = told(foreign).into_iter().map(|(line, column, _)| (line, column)).collect();
    assert_eq!(of_table, [(5, 43), (6, 30)], "nobody knows its columns");
    // What it returns under a name of its own is no column that is missing.
    let yaml = file(sql).replace("sql: |", "dedup: [n, zzz]\nsql: |");
    let told = parse(&yaml).unwrap_err();
    let of_dedup: Vec<_> = told.iter().filter(|problem| problem.line == 4).collect();
    assert!(of_dedup.len() == 1 && of_dedup[0].message.ends_with("zzz"), "{told:#?}");
}

#[test]
fn one_mistake_over_and_over_is_told_up_to_a_bound() {
    let many = (0..50).map(|at| format!("nmae{at} = 1")).collect::<Vec<_>>().join(" OR ");
    let found = told(&format!("SELECT pid FROM process_events WHERE {many}"));
    assert_eq!(found.len(), 21, "{found:#?}");
    assert_eq!(found[20].2, "and 30 more problems in this SELECT");
    let endless = (0..2_000).map(|at| format!("nmae{at} = 1")).collect::<Vec<_>>().join(" OR ");
    let found = told(&format!("SELECT pid FROM process_events WHERE {endless}"));
    assert!(found.len() == 21 && found[20].2.starts_with("and at least "), "{found:#?}");
    let values = (0..1_000).map(|at| at.to_string()).collect::<Vec<_>>().join(",");
    let huge = (0..30).map(|at| format!("ppid{at} IN ({values})")).collect::<Vec<_>>().join(" OR ");
    let found = told(&format!("SELECT pid FROM process_events WHERE {huge}"));
    let of_size = found.iter().filter(|(_, _, message)| message.contains("larger than")).count();
    assert_eq!(of_size, 1, "{found:#?}");
}

#[test]
fn a_rule_as_deep_as_a_file_is_long_is_refused() {
    for condition in [
        format!("pid = 1{}", "+1".repeat(60_000)),
        format!("nmae{} = 'x'", "::text".repeat(20_000)),
        format!("memfd{}", " IS TRUE".repeat(20_000)),
    ] {
        let found = told(&format!("SELECT pid FROM process_events WHERE {condition}"));
        assert!(found.len() == 1 && found[0].2.contains("operators in a row"), "{found:#?}");
    }
}

#[test]
fn an_exception_tells_all_problems_of_its_condition() {
    let yaml = format!(
        "override: {ID}\nexceptions:\n  - where: nmae = 'x' OR\n      pid = 'y' OR foo(1)\n    owner: a\n    \
         reason: b\n    expires: never\n"
    );
    let Err(problems) = rules::check_file(Path::new("o.yaml"), &yaml, &rules::Lists::default()) else {
        panic!("taken")
    };
    let places: Vec<_> = problems.iter().map(|problem| (problem.line, problem.column)).collect();
    assert_eq!(places, [(3, 12), (4, 7), (4, 20)], "{problems:#?}");
}

#[test]
fn a_function_of_queries_alone_is_refused_with_what_says_the_same() {
    for (condition, message, hint) in [
        ("time > now()", "now", "its own time"),
        ("time > datetime('now', '-30 minutes')", "now", "its own time"),
        ("replace(name, 'a', 'b') = 'x'", "replace", "split_part"),
        ("greatest(pid, 1) = 1", "greatest", "CASE"),
        ("date_trunc('hour', time) = start_time", "date_trunc", "date_part"),
        ("time > datetime('2026-01-31', 'start of day')", "date_trunc", "date_part"),
        ("CAST(name AS BIGINT) = 1", "cast text to BIGINT", "TRY_CAST"),
        ("CAST(pid AS INTEGER) = 1", "INTEGER", "leave the cast out"),
        ("CAST(cpu_usage AS TEXT) = '1'", "a real number", "TRY_CAST"),
        ("substr(name, pid) = 'x'", "whole number that is written out", ""),
        ("split_part(name, '/', 0) = 'x'", "counted from 1", ""),
        ("substr(name, 1, -1) = 'x'", "negative", ""),
        ("date_part('epoch', time) = 1", "epoch", "hour"),
        ("CASE WHEN memfd THEN 1 ELSE 'x' END = 1", "mixes", "one kind"),
        ("nullif(name, 1) = 'x'", "nullif", "CASE"),
        ("time > datetime('2026-01-31', '-1 month')", "INTERVAL", "write the time itself"),
    ] {
        let refusal = refused(&format!("SELECT pid FROM process_events WHERE {condition}"));
        assert!(refusal.message.contains(message), "{condition}: {refusal}");
        assert!(refusal.hint.clone().unwrap_or_default().contains(hint), "{condition}: {refusal}");
        assert!(refusal.line > 0, "{condition}: {refusal}");
    }
}

#[test]
fn a_function_that_rules_lack_is_answered_with_those_that_they_have() {
    for function in ["md5", "sha256", "repeat"] {
        let hint = refused(&format!("SELECT pid FROM process_events WHERE {function}(pid) = 1")).hint.unwrap();
        assert!(hint.starts_with("rules know abs, btrim, ") && !hint.contains("date_trunc"), "{function}: {hint}");
    }
    assert_eq!(refused("SELECT lowr(name) FROM process_events").hint.unwrap(), "did you mean lower?");
}

#[test]
fn a_number_that_does_not_fit_is_null_and_counted() {
    let events = batch(&[json!({"pid": 2, "name": "a"}), json!({"pid": i64::MAX, "name": "b"})]);
    let set = set_of(&["SELECT name, pid + 1 AS next FROM process_events WHERE (pid * 2 > 0) IS NOT FALSE"]);
    let matches = set.evaluate(&events, &Completeness::complete());
    let next: Vec<Value> = matches.iter().map(|found| found.output()["next"].clone()).collect();
    assert_eq!(next, [json!(3), Value::Null]);
    assert_eq!(set.stats()[0].overflows, 2);
}

#[test]
fn a_rule_is_not_told_to_bind_a_value() {
    let refusal = refused("SELECT pid FROM process_events WHERE re_match(name, user)");
    assert!(
        refusal.hint.as_deref().is_some_and(|hint| hint.contains("write it out") && !hint.contains('$')),
        "{refusal}"
    );
}

#[test]
fn what_the_matcher_does_not_know_is_refused_by_name() {
    for (sql, message) in [
        ("SELECT pid FROM process_events ORDER BY pid", "have no meaning"),
        ("SELECT pid FROM process_events LIMIT 1", "have no meaning"),
        ("SELECT DISTINCT pid FROM process_events", "have no meaning"),
        ("SELECT pid FROM process_events WHERE pid = '4'", "an integer cannot be compared with text"),
        ("SELECT pid FROM process_events WHERE name", "a condition must be true or false"),
        ("SELECT pid FROM process_events WHERE lower(pid) = 'a'", "text is needed here"),
        ("SELECT pid FROM process_events WHERE time > now()", "cannot call now"),
        ("SELECT pid FROM process_events WHERE time > 'yesterday'", "not a time"),
        ("SELECT pid FROM process_events WHERE name LIKE executable_path", "must be a text literal"),
        ("SELECT pid FROM process_events WHERE name ~ '('", "does not compile"),
        ("SELECT pid FROM process_events WHERE name LIKE 'a!%' ESCAPE '!'", "the escape character of LIKE"),
        ("SELECT pid FROM process_events WHERE pid / ppid = 1", "divides by a number"),
        ("SELECT pid FROM process_events WHERE arg_lengths = arg_lengths", "bytes cannot be compared"),
        ("SELECT pid, ppid AS pid FROM process_events", "returns pid twice"),
        ("SELECT pid FROM process_events WHERE x.name = 'a'", "there is no table x"),
        ("SELECT pid FROM process_events WHERE pid = $1", "has no value"),
        (
            "SELECT pid + (2 - -9223372036854775807) FROM process_events",
            "2 - -9223372036854775807 does not fit a whole number",
        ),
        ("SELECT pid FROM process_events WHERE pid > -(-9223372036854775807 - 1)", "does not fit a whole number"),
    ] {
        let refusal = refused(sql);
        assert!(refusal.message.contains(message), "{sql}: {refusal}");
    }
}

#[test]
fn a_mistake_in_folded_or_quoted_sql_is_told_where_it_stands() {
    let head = "id: 6f1f3a77-3f0a-4b6c-9a9e-2d0b7c1e5a10\nname: x\nseverity: low\n";
    for sql in [
        "sql: >\n  SELECT pid\n  FROM process_events\n  WHERE nmae = 'x'\n",
        "sql: >-\n    SELECT pid\n\n      FROM process_events\n    WHERE\n    nmae = 'x'\n",
        "sql: 'SELECT pid\n  FROM process_events\n  WHERE nmae = ''x'''\n",
        "sql: \"SELECT pid\\n FROM process_events WHERE \\u006eame = 'x' AND\n  nmae = 'x'\"\n",
        "sql: SELECT pid FROM process_events\n  WHERE nmae = 'x'\n",
        "sql: |2\n   SELECT pid FROM process_events\n   WHERE nmae = 'x'\n",
    ] {
        let yaml = format!("{head}{sql}");
        let problems = parse(&yaml).unwrap_err();
        let (line, text) = (1..).zip(yaml.lines()).find(|(_, line)| line.contains("nmae")).unwrap();
        let column = text[..text.find("nmae").unwrap()].chars().count() + 1;
        assert_eq!((problems[0].line, problems[0].column), (line, column as u64), "{yaml}{problems:#?}");
    }
}

#[test]
fn statements_that_are_no_select_do_not_load() {
    for sql in ["DELETE FROM process_events", "SELECT 1; SELECT 2", "", "DROP TABLE rules", "SELEC pid"] {
        assert!(parse(&file(sql)).is_err(), "{sql}");
    }
}

#[test]
fn comments_and_layout_keep_the_hash_and_content_changes_it() {
    let plain = parse(&file("SELECT pid FROM process_events")).unwrap().rule;
    let commented = format!("# a comment\n\n{}", file("SELECT pid FROM process_events"));
    assert_eq!(parse(&commented).unwrap().rule.hash, plain.hash);
    assert_eq!(plain.hash.len(), 64);
    assert_ne!(parse(&file("SELECT ppid FROM process_events")).unwrap().rule.hash, plain.hash);
    assert_eq!((plain.pack.as_str(), plain.file.as_str(), plain.dedup_window_s), ("pack", "rule.yaml", 300));
}

#[test]
fn later_directories_override_by_id_and_a_bad_file_stops_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let (vendor, local) = (dir.path().join("vendor"), dir.path().join("local"));
    fs::create_dir_all(vendor.join("sub")).unwrap();
    fs::create_dir_all(&local).unwrap();
    let other = file("SELECT pid FROM process_events").replace(ID, "11111111-2222-4333-8444-555555555555");
    fs::write(vendor.join("a.yaml"), file("SELECT pid FROM process_events")).unwrap();
    fs::write(vendor.join("sub/b.yml"), other).unwrap();
    fs::write(vendor.join("bad.yaml"), "id: [").unwrap();
    fs::write(vendor.join("binary.yaml"), [0xff, 0xfe, 0x00]).unwrap();
    fs::write(vendor.join("huge.yaml"), "#".repeat(300 * 1024)).unwrap();
    fs::write(vendor.join("z-same-id.yaml"), file("SELECT uid FROM process_events")).unwrap();
    fs::write(vendor.join("readme.md"), "not a rule").unwrap();
    fs::write(local.join("mine.yaml"), format!("{}enabled: false\n", file("SELECT ppid FROM process_events")))
        .unwrap();
    let loaded = rules::load_dirs(&[vendor, local, dir.path().join("missing")]);
    assert_eq!(loaded.rules.len(), 2);
    let overridden = loaded.rules.iter().find(|rule| rule.rule.id.to_string() == ID).unwrap();
    assert_eq!((overridden.rule.pack.as_str(), overridden.rule.state), ("local", RuleState::Disabled));
    let told: Vec<String> = loaded.problems.iter().map(ToString::to_string).collect();
    assert_eq!(told.len(), 5, "{told:#?}");
    for expected in [
        "bad.yaml",
        "valid UTF-8",
        "larger than",
        "z-same-id.yaml:1:5: the id",
        "missing: the directory cannot be read",
    ] {
        assert!(told.iter().any(|line| line.contains(expected)), "{expected} in {told:#?}");
    }
}

#[test]
fn rules_see_no_forks_unless_they_ask() {
    let events = batch(&[
        json!({"event_type": "start", "start_kind": "exec", "name": "a"}),
        json!({"event_type": "start", "start_kind": "fork", "name": "a"}),
        json!({"event_type": "start", "start_kind": "baseline", "name": "a"}),
        json!({"event_type": "stop", "name": "a"}),
    ]);
    let set = set_of(&[
        "SELECT start_kind FROM process_events WHERE name = 'a'",
        "SELECT pid FROM process_events WHERE name = 'a' AND start_kind IS NOT NULL",
    ]);
    let matches = set.evaluate(&events, &Completeness::complete());
    let seen: Vec<(String, usize)> =
        matches.iter().map(|found| (found.rule.id.to_string().split_off(35), found.row)).collect();
    let expected = [("0", 0), ("0", 2), ("0", 3), ("1", 0), ("1", 1), ("1", 2)];
    assert_eq!(seen, expected.map(|(rule, row)| (rule.to_owned(), row)));
}

#[test]
fn a_match_carries_what_the_select_returned() {
    let events = batch(&[json!({
        "time": "2026-01-31T12:00:00.5Z", "event_type": "start", "pid": 7, "name": "X", "memfd": true, "cpu_usage": 1.5,
        "arg_lengths": "0x0402",
    })]);
    let set = set_of(&[
        "SELECT time, pid, lower(name) AS n, memfd, cpu_usage, arg_lengths, tty, pid + 1 FROM process_events",
    ]);
    let mut completeness = Completeness::complete();
    completeness.degrade(Degraded::EventsShed);
    let matches = set.evaluate(&events, &completeness);
    assert_eq!(
        Value::Object(matches[0].output().into_owned()),
        json!({
            "time": "2026-01-31T12:00:00.500000Z", "pid": 7, "n": "x", "memfd": true, "cpu_usage": 1.5,
            "arg_lengths": "0x0402", "tty": null, "pid + 1": 8,
        })
    );
    assert_eq!(matches[0].completeness, completeness);
}

#[test]
fn a_missing_column_degrades_the_match_and_is_counted() {
    let mut events = batch(&[json!({"name": "a", "user": "alice"})]);
    let keep: Vec<usize> =
        (0..events.batch.num_columns()).filter(|at| events.batch.schema().field(*at).name() != "user").collect();
    events.batch = RecordBatch::project(&events.batch, &keep).unwrap();
    let set = set_of(&[
        "SELECT pid FROM process_events WHERE user IS NULL AND name = 'a'",
        "SELECT pid FROM process_events WHERE name = 'a'",
    ]);
    let matches = set.evaluate(&events, &Completeness::complete());
    assert_eq!(matches[0].completeness.degraded, [Degraded::SchemaUnavailable]);
    assert!(matches[1].completeness.is_complete());
    let degraded: Vec<u64> = set.stats().iter().map(|stats| stats.degraded).collect();
    assert_eq!(degraded, [1, 0]);
}

#[test]
fn every_evaluation_over_something_that_is_missing_is_counted_whether_it_matched_or_not() {
    let sql = "SELECT pid FROM process_events WHERE name = 'a'";
    let late = batch(&[
        json!({"time": "1970-01-01T00:10:00Z", "name": "b"}),
        json!({"time": "1970-01-01T00:00:01Z", "name": "b"}),
    ]);
    let whole = batch(&[json!({"time": "1970-01-01T00:10:00Z", "name": "b"})]);
    let (set, complete, mut shed) = (set_of(&[sql]), Completeness::complete(), Completeness::complete());
    shed.degrade(Degraded::EventsShed);
    for (events, completeness, degraded) in
        [(&whole, &complete, 0), (&whole, &shed, 1), (&late, &complete, 2), (&late, &shed, 3)]
    {
        assert!(set.evaluate(events, completeness).is_empty());
        assert_eq!(set.stats()[0].degraded, degraded);
    }
    let reloaded = set_of(&[sql]);
    reloaded.continue_counters_of(&set);
    assert_eq!(reloaded.stats()[0].degraded, 3);
}

#[test]
fn counters_tell_what_a_rule_did_and_survive_a_reload() {
    let sql = "SELECT pid FROM process_events WHERE name = 'a'";
    let events = batch(&[json!({"time": "1970-01-01T00:00:01Z", "name": "a"}), json!({"name": "b"})]);
    let set = set_of(&[sql]);
    assert_eq!(set.stats()[0].last_match_us, None);
    for _ in 0..2 {
        assert_eq!(set.evaluate(&events, &Completeness::complete()).len(), 1);
    }
    let reloaded = set_of(&[sql]);
    reloaded.continue_counters_of(&set);
    let stats = &reloaded.stats()[0];
    assert_eq!((stats.evaluations, stats.rows, stats.matches, stats.last_match_us), (2, 4, 2, Some(1_000_000)));
    let changed = set_of(&["SELECT ppid FROM process_events WHERE name = 'a'"]);
    changed.continue_counters_of(&set);
    assert_eq!(changed.stats()[0].evaluations, 0);
}

#[test]
fn disabled_rules_do_not_run_and_a_taken_id_is_refused() {
    let rule = parse(&file("SELECT pid FROM process_events")).unwrap();
    let mut disabled = rule.clone();
    Arc::make_mut(&mut disabled.rule).state = RuleState::Disabled;
    let (set, refusals) = RuleSet::compile(vec![disabled, rule.clone(), rule]);
    assert_eq!((set.len(), refusals.len()), (1, 1));
    assert!(refusals[0].message.contains(ID) && refusals[0].file == Path::new("pack/rule.yaml"));
}

#[test]
fn a_failing_rule_test_says_what_was_expected() {
    let yaml = format!(
        "{}tests:\n  - {{name: wrong, match: true, event: {{name: b}}}}\n  - {{name: odd, match: false, event: {{name: a}}}}\n",
        file("SELECT pid FROM process_events WHERE name = 'a'")
    );
    let report = rules::run_tests(&parse(&yaml).unwrap());
    assert_eq!((report.passed, report.failures.len()), (0, 2));
    assert_eq!((report.failures[0].line, report.failures[0].test.as_str()), (7, "wrong"));
    assert!(report.failures[0].message.contains("must match"));
    assert!(report.failures[1].message.contains("must not match"));
}
