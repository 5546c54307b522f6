//! The tools around rules, in the real programs: imitations raise their alerts, a rule is explained, tried out, exported and
//! replayed.

use std::fs;
use std::path::Path;

use e2e::{Home, wait_for};
use serde_json::Value;

use crate::first_light::Hidden;

/// Name and file of the rule that a hidden program raises.
const HIDDEN: &str = "Hidden executable in a temporary directory";
const HIDDEN_FILE: &str = "hidden-executable-in-temp.yaml";

/// The alert of a hidden program that runs now, and the program.
fn hidden_alert(home: &Home) -> (Hidden, Value) {
    let hidden = Hidden::start();
    let path = hidden.path.to_str().unwrap().to_owned();
    let alert = wait_for("the alert", || {
        Ok(home.delivered()?.into_iter().find(|alert| alert["process"]["executable_path"] == path.as_str()))
    });
    (hidden, alert.unwrap())
}

/// What a backtest tells. It says what it lacks: a home that has just started saw nothing before.
fn tried(home: &Home, file: &str) -> Value {
    let (status, text, said) = code(home, &["rules", "backtest", file, "--since", "1h", "--format", "json"]);
    assert!(matches!(status, 0 | 3), "{said}");
    serde_json::from_str(&text).unwrap()
}

fn code(home: &Home, args: &[&str]) -> (i32, String, String) {
    let output = home.cli(args).unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (output.status.code().unwrap(), text(&output.stdout), text(&output.stderr))
}

#[test]
fn imitations_of_known_attacks_raise_the_alerts_of_their_rules_and_do_nothing() {
    let home = Home::new().unwrap();
    let _agent = home.start_ready().unwrap();
    let output = home.cli(&["selftest", "--wait-s", "50", "--format", "json"]).unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    let rows: Vec<Value> = serde_json::from_slice(&output.stdout).unwrap();
    let missing: Vec<&Value> = rows.iter().filter(|row| row["result"] == "missing").collect();
    assert!(missing.is_empty(), "{missing:#?}\n{said}");
    let came: Vec<&Value> = rows.iter().filter(|row| row["result"] == "alert").collect();
    assert!(came.len() >= 15, "{rows:#?}");
    assert_eq!(output.status.code(), Some(if came.len() == rows.len() { 0 } else { 3 }), "{said}");
    for row in &came {
        assert!(row["ms"].is_number() && row["alert_id"].as_str().unwrap().len() == 36, "{row}");
    }
    // They are told from the others by the directory that all of them ran in.
    let marked = home.query("SELECT id FROM alerts WHERE contains(process, 'daemoneye-selftest-')").unwrap();
    let marked: Vec<&str> = marked.iter().map(|row| row["id"].as_str().unwrap()).collect();
    for row in &came {
        assert!(marked.contains(&row["alert_id"].as_str().unwrap()), "{row}");
    }
    wait_for("the end of every imitation", || {
        let left = home.query("SELECT pid FROM processes WHERE contains(cwd, 'daemoneye-selftest-')")?;
        Ok(left.is_empty().then_some(()))
    })
    .unwrap();
    let (status, _, said) = code(&home, &["selftest", "--store", home.data().to_str().unwrap()]);
    assert_eq!(status, 2, "{said}");
}

#[test]
fn a_rule_is_explained_predicate_by_predicate_for_stored_and_given_events() {
    let home = Home::new().unwrap();
    let _agent = home.start_ready().unwrap();
    let (hidden, alert) = hidden_alert(&home);
    let id = alert["id"].as_str().unwrap();
    let entity = alert["process"]["entity_id"].as_str().unwrap();
    let position = format!(
        "{}:{}:{}",
        alert["events"][0]["collector"].as_str().unwrap(),
        alert["events"][0]["epoch"],
        alert["events"][0]["number"]
    );
    for event in [id, entity, position.as_str()] {
        let explained = home.json(&["rules", "explain", HIDDEN, event]).unwrap();
        let events = explained["events"].as_array().unwrap();
        let found = events.iter().find(|event| event["matches"] == true).unwrap_or_else(|| panic!("{explained}"));
        assert_eq!(found["condition"]["kind"], "and");
        let parts = found["condition"]["parts"].as_array().unwrap();
        assert!(parts.iter().all(|part| part["outcome"] == true), "{explained}");
        let path = &parts.iter().flat_map(leaves).find(|leaf| leaf["values"]["executable_path"].is_string()).unwrap();
        assert_eq!(path["values"]["executable_path"], hidden.path.to_str().unwrap());
    }
    let (status, text, _) = code(&home, &["rules", "explain", HIDDEN, id]);
    assert!(status == 0 && text.contains("MATCHES") && text.contains("TRUE   AND"), "{text}");
    let (status, _, said) = code(&home, &["rules", "explain", "No such rule", id]);
    assert!(status == 4 && said.contains("rules list"), "{said}");
    let (status, _, said) = code(&home, &["rules", "explain", HIDDEN, "nginx"]);
    assert!(status == 5 && said.contains("entity_id"), "{said}");
    hidden.stop();
}

/// The predicates of a part.
fn leaves(part: &Value) -> Vec<Value> {
    match part["parts"].as_array() {
        Some(parts) => parts.iter().flat_map(leaves).collect(),
        None => vec![part.clone()],
    }
}

#[test]
fn a_new_rule_passes_its_tests_and_is_explained_without_an_agent() {
    let home = Home::new().unwrap();
    let file = home.path().join("mine.yaml");
    let file = file.to_str().unwrap();
    let (status, path, said) = code(&home, &["rules", "new", "Shell: below \"a\" mail server", "--output", file]);
    assert_eq!((status, path.trim()), (0, file), "{said}");
    let (status, tested, said) = code(&home, &["rules", "test", file, "--format", "json"]);
    assert_eq!(status, 0, "{said}");
    let tested: Value = serde_json::from_str(&tested).unwrap();
    assert_eq!((&tested[0]["rule"], &tested[0]["passed"]), (&"Shell: below \"a\" mail server".into(), &2.into()));
    let (status, _, said) = code(&home, &["rules", "new", "x", "--output", file]);
    assert!(status != 0 && said.contains(file), "nothing is overwritten: {said}");

    let event = home.path().join("event.json");
    fs::write(&event, r#"{"event_type":"start","start_kind":"exec","name":"sh","parent_name":"sshd"}"#).unwrap();
    let explained = home.json(&["rules", "explain", file, event.to_str().unwrap()]).unwrap();
    let parts = explained["events"][0]["condition"]["parts"].as_array().unwrap().clone();
    let outcomes: Vec<&Value> = parts.iter().map(|part| &part["outcome"]).collect();
    assert_eq!(outcomes, [&Value::from(true), &Value::from(true), &Value::from(false)], "{explained}");
    assert_eq!(parts[2]["values"]["parent_name"], "sshd");
    fs::write(&event, r#"{"nmae":"sh"}"#).unwrap();
    let (status, _, said) = code(&home, &["rules", "explain", file, event.to_str().unwrap()]);
    assert!(status == 5 && said.contains("nmae"), "{said}");
}

#[test]
fn loaded_rules_are_exported_whole_and_counted_by_tactic() {
    let home = Home::new().unwrap();
    let _agent = home.start_ready().unwrap();
    let dir = home.path().join("exported");
    let (status, _, said) = code(&home, &["rules", "export", dir.to_str().unwrap()]);
    assert_eq!(status, 0, "{said}");
    let exported = fs::read_dir(dir.join("linux")).unwrap().count();
    let files = fs::read_dir(e2e::builtin_rules()).unwrap().map(|entry| entry.unwrap().file_name());
    assert_eq!(exported, files.filter(|name| name != "pack.yaml").count(), "the manifest is no rule");
    let (status, _, said) = code(&home, &["rules", "test", dir.to_str().unwrap()]);
    assert_eq!(status, 0, "{said}");
    let (status, _, said) = code(&home, &["rules", "export", dir.to_str().unwrap()]);
    assert!(status == 2 && said.contains("not empty"), "{said}");

    let layer = home.path().join("layer.json");
    let tactics = home.json(&["rules", "coverage", "--navigator", layer.to_str().unwrap()]).unwrap();
    let covered = tactics.as_array().unwrap().iter().filter(|tactic| tactic["rules"].as_u64() > Some(0)).count();
    assert!(covered >= 10, "{tactics}");
    let layer: Value = serde_json::from_slice(&fs::read(layer).unwrap()).unwrap();
    let techniques = home.json(&["rules", "coverage", "--techniques"]).unwrap();
    assert_eq!(layer["techniques"].as_array().unwrap().len(), techniques.as_array().unwrap().len());
    assert!(layer["techniques"][0]["techniqueID"].as_str().unwrap().starts_with('T'), "{layer}");
}

#[test]
fn a_backtest_tells_hits_alerts_and_the_difference_to_the_version_in_use() {
    let home = Home::new().unwrap();
    let _agent = home.start_ready().unwrap();
    let (hidden, _) = hidden_alert(&home);
    let path = hidden.path.to_str().unwrap().to_owned();
    let file = e2e::builtin_rules().join(HIDDEN_FILE);
    let same = file.to_str().unwrap();
    let found = tried(&home, same);
    assert!(found["hits"].as_u64() >= Some(1) && found["alerts"].as_u64() >= Some(1), "{found}");
    assert!(found["events"].as_u64() > found["hits"].as_u64(), "{found}");
    assert_eq!(
        (&found["difference"]["only_new"], &found["difference"]["only_in_use"]),
        (&0.into(), &0.into()),
        "{found}"
    );
    assert_eq!(found["in_use"]["hits"], found["hits"]);
    assert!(found["cost"]["ns_per_event"].is_number(), "{found}");
    let top = found["top"]["executable_path"].as_array().unwrap();
    assert!(top.iter().any(|value| value["value"] == path.as_str()), "{found}");

    // A version that is blind to it.
    let text = fs::read_to_string(&file).unwrap();
    let narrower = home.path().join("narrower.yaml");
    fs::write(&narrower, text.replace("event_type = 'start'", "event_type = 'start' AND name <> '.hidden'")).unwrap();
    let narrower = narrower.to_str().unwrap();
    let lost = tried(&home, narrower);
    assert!(lost["difference"]["only_in_use"].as_u64() >= Some(1), "{lost}");
    assert_eq!(lost["difference"]["only_new"], 0, "{lost}");
    let examples = lost["difference"]["examples_only_in_use"].as_array().unwrap();
    assert!(examples.iter().any(|example| example["name"] == ".hidden"), "{lost}");
    assert_eq!(code(&home, &["rules", "backtest", narrower, "--since", "1h", "--fail-on-loss"]).0, 1);
    assert_eq!(code(&home, &["rules", "backtest", same, "--since", "1h", "--max-alerts-per-day", "0"]).0, 1);
    let (status, text, _) = code(&home, &["rules", "backtest", same, "--since", "1h"]);
    assert!(matches!(status, 0 | 3) && text.contains("only the one in use: 0"), "{text}");

    let broken = home.path().join("broken.yaml");
    fs::write(&broken, fs::read_to_string(&file).unwrap().replace("executable_path LIKE", "executable_pth LIKE"))
        .unwrap();
    let (status, _, said) = code(&home, &["rules", "backtest", broken.to_str().unwrap()]);
    assert!(status == 5 && said.contains("executable_path"), "{said}");
    assert_eq!(code(&home, &["rules", "backtest", same, "--since", "soon"]).0, 2);
    hidden.stop();
}

/// Standard output of a replay with the built-in rules.
fn replayed(home: &Home, path: &Path) -> Vec<u8> {
    let rules = e2e::builtin_rules();
    let output = home.cli(&["replay", path.to_str().unwrap(), "--rules", rules.to_str().unwrap()]).unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
    output.stdout
}

fn ids(alerts: &[u8]) -> Vec<String> {
    let lines = std::str::from_utf8(alerts).unwrap().lines();
    lines.map(|line| serde_json::from_str::<Value>(line).unwrap()["id"].as_str().unwrap().to_owned()).collect()
}

#[test]
fn a_replay_of_an_export_or_a_log_raises_the_same_alerts_byte_by_byte() {
    let home = Home::new().unwrap();
    let _agent = home.start_ready().unwrap();
    let (hidden, alert) = hidden_alert(&home);
    let live = alert["id"].as_str().unwrap().to_owned();
    let from_log = replayed(&home, &home.data());
    assert!(ids(&from_log).contains(&live), "the log has the event, and the alert its id");
    let mut exports = Vec::new();
    let start = format!("entity_id = '{}' AND event_type = 'start'", alert["process"]["entity_id"].as_str().unwrap());
    for name in ["events.parquet", "events.jsonl"] {
        let file = home.path().join(name);
        let file_name = file.to_str().unwrap();
        let (status, _, said) = code(&home, &["data", "export", "--output", file_name, "--where", &start]);
        assert!(matches!(status, 0 | 3), "{said}");
        let once = replayed(&home, &file);
        assert_eq!(once, replayed(&home, &file), "{name}");
        assert!(ids(&once).contains(&live), "{name}");
        exports.push(once);
    }
    assert_eq!(exports[0], exports[1], "the format is not the content");
    let nothing = home.path().join("nothing");
    fs::create_dir(&nothing).unwrap();
    let rules = e2e::builtin_rules();
    let (status, _, said) = code(&home, &["replay", nothing.to_str().unwrap(), "--rules", rules.to_str().unwrap()]);
    assert!(status == 2 && said.contains("no log"), "{said}");
    hidden.stop();
}
