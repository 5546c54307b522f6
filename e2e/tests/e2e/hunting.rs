//! `hunt` and `rules import` as a user runs them: no agent is up, and files of events and rules lie around.

use std::fs;
use std::process::Output;

use e2e::Home;
use serde_json::{Value, json};

const SHELL_OF_WORD: &str = r"
title: Shell of a word processor
id: 5F1C0E6A-9d3b-47c2-a1e8-f00db4c6d7e9
status: test
level: high
logsource: {category: process_creation, product: windows}
detection:
  sel:
    ParentImage|endswith: '\winword.exe'
    Image|endswith: ['\cmd.exe', '\powershell.exe']
  filter:
    CommandLine|contains: harmless
  condition: sel and not filter
";

const CURL: &str = r"
id: 3d9f2c1e-7a54-4b0e-9a51-0c8c5f3f7a01
name: curl
description: curl runs
author: test
severity: low
category: process_creation
sql: SELECT pid FROM process_events WHERE name = 'curl'
";

const EVENTS: &str = concat!(
    r#"{"Image":"C:\\Windows\\CMD.exe","ParentImage":"C:\\Office\\WinWord.exe","CommandLine":"cmd /c x"}"#,
    "\nthis is no JSON\n\n",
    r#"{"Image":"C:\\Windows\\cmd.exe","ParentImage":"C:\\Office\\winword.exe","CommandLine":"harmless"}"#,
    "\n",
    r#"{"winlog":{"event_id":1,"event_data":{"Image":"C:\\powershell.exe","ParentImage":"D:\\winword.exe"}}}"#,
    "\n",
    r#"{"event_type":"start","start_kind":"exec","name":"curl","executable_path":"/usr/bin/curl"}"#,
);

fn stdout(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

fn stderr(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

#[test]
fn rules_of_both_kinds_hunt_through_a_file_and_what_is_broken_is_told() {
    let home = Home::new().unwrap();
    let (rules, events) = (home.path().join("rules"), home.path().join("events.jsonl"));
    fs::create_dir_all(rules.join("sigma")).unwrap();
    fs::write(rules.join("sigma/shell.yml"), SHELL_OF_WORD).unwrap();
    fs::write(rules.join("sigma/broken.yml"), SHELL_OF_WORD.replace("sel and", "nobody and")).unwrap();
    fs::write(rules.join("curl.yaml"), CURL).unwrap();
    fs::write(&events, EVENTS).unwrap();
    let of = |rules: &str| home.cli(&["hunt", "--rules", rules, "--events", events.to_str().unwrap()]).unwrap();
    let output = of(rules.to_str().unwrap());
    let found: Vec<Value> = stdout(&output).lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let (sigma, own) = ("5F1C0E6A-9d3b-47c2-a1e8-f00db4c6d7e9", "3d9f2c1e-7a54-4b0e-9a51-0c8c5f3f7a01");
    let wanted = [
        json!({"rule_id": sigma, "event": 0}),
        json!({"rule_id": sigma, "event": 4}),
        json!({"rule_id": own, "event": 5}),
    ];
    assert_eq!(found, wanted, "{}", stderr(&output));
    assert_eq!(output.status.code(), Some(3), "{}", stderr(&output));
    for part in ["event 1: not a JSON object", "broken.yml", "nobody"] {
        assert!(stderr(&output).contains(part), "{part} is missing in:\n{}", stderr(&output));
    }
    let whole = of(rules.join("sigma/shell.yml").to_str().unwrap());
    assert_eq!(stdout(&whole).lines().count(), 2);
    assert_eq!(whole.status.code(), Some(3), "a line is broken: {}", stderr(&whole));
    let (partial, asked) = (home.path().join("partial.yml"), home.path().join("asked.jsonl"));
    fs::write(&partial, SHELL_OF_WORD.replace("CommandLine|contains", "FileVersion|contains")).unwrap();
    for (event, code) in [(r#"{"FileVersion": "1"}"#, 3), (r#"{"Product": "1"}"#, 0)] {
        fs::write(&asked, event).unwrap();
        let hunted =
            home.cli(&["hunt", "--rules", partial.to_str().unwrap(), "--events", asked.to_str().unwrap()]).unwrap();
        assert_eq!(hunted.status.code(), Some(code), "{}", stderr(&hunted));
        assert_eq!(stderr(&hunted).contains("1 events have FileVersion"), code == 3, "{}", stderr(&hunted));
    }
    let nowhere = of(home.path().join("nowhere").to_str().unwrap());
    assert_eq!((nowhere.status.code(), stdout(&nowhere).as_str()), (Some(4), ""), "{}", stderr(&nowhere));
}

#[test]
fn imported_rules_validate_and_the_report_says_what_became_of_each() {
    let home = Home::new().unwrap();
    let (sigma, out) = (home.path().join("sigma"), home.path().join("out"));
    fs::create_dir_all(sigma.join("windows")).unwrap();
    let write = |name: &str, change: (&str, &str)| {
        let id = format!("{:08}", name.len());
        let text = SHELL_OF_WORD.replace(change.0, change.1).replace("5F1C0E6A", &id);
        fs::write(sigma.join("windows").join(name), text).unwrap();
    };
    write("a.yml", ("", ""));
    write("part.yml", ("CommandLine|contains", "FileVersion|contains"));
    write("inert.yml", ("ParentImage", "FileVersion"));
    write("refused.yml", ("|endswith", "|frobnicate"));
    let (from, to) = (sigma.to_str().unwrap(), out.to_str().unwrap());
    let imported = home.cli(&["rules", "import", "--sigma", from, "--output", to, "--format", "json"]).unwrap();
    assert_eq!(imported.status.code(), Some(3), "{}", stderr(&imported));
    let report: Value = serde_json::from_str(&stdout(&imported)).unwrap();
    assert_eq!(report["counts"], json!({"compiled": 1, "partial": 1, "inert": 1, "refused": 1}));
    let reasons = report["reasons"].to_string();
    assert!(reasons.contains("FileVersion") && reasons.contains("frobnicate"), "{reasons}");
    let files: Vec<_> = fs::read_dir(out.join("windows")).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(files.len(), 2, "{files:?}");
    let text = fs::read_to_string(out.join("windows/a.yaml")).unwrap();
    assert!(text.contains(r"ci_ends(parent_executable_path, '\winword.exe')"), "{text}");
    let validated = home.cli(&["rules", "validate", to]).unwrap();
    assert!(validated.status.success(), "{}", stderr(&validated));
    let shown = home.cli(&["rules", "import", "--sigma", from]).unwrap();
    assert!(stdout(&shown).contains("frobnicate") && stdout(&shown).contains("compiled"), "{}", stdout(&shown));
}

#[test]
fn an_answer_is_not_whole_where_a_time_cannot_be_read() {
    let home = Home::new().unwrap();
    let (rule, events) = (home.path().join("rule.yml"), home.path().join("events.jsonl"));
    fs::write(&rule, SHELL_OF_WORD).unwrap();
    fs::write(&events, r#"{"CommandLine": "x", "UtcTime": "31/01/2026 12:00:00"}"#).unwrap();
    let hunted = home.cli(&["hunt", "--rules", rule.to_str().unwrap(), "--events", events.to_str().unwrap()]).unwrap();
    assert_eq!(hunted.status.code(), Some(3), "{}", stderr(&hunted));
    assert!(stderr(&hunted).contains("event 0: not whole: cannot be read, so NULL: time"), "{}", stderr(&hunted));
}

#[test]
fn of_imported_rules_with_one_id_the_first_is_written_and_the_other_refused() {
    let home = Home::new().unwrap();
    let (sigma, out) = (home.path().join("sigma"), home.path().join("out"));
    fs::create_dir_all(&sigma).unwrap();
    fs::write(sigma.join("a.yml"), SHELL_OF_WORD).unwrap();
    fs::write(sigma.join("b.yml"), SHELL_OF_WORD.replace("harmless", "other")).unwrap();
    let (from, to) = (sigma.to_str().unwrap(), out.to_str().unwrap());
    let imported = home.cli(&["rules", "import", "--sigma", from, "--output", to, "--format", "json"]).unwrap();
    assert_eq!(imported.status.code(), Some(3), "{}", stderr(&imported));
    let report: Value = serde_json::from_str(&stdout(&imported)).unwrap();
    assert_eq!(report["counts"], json!({"compiled": 1, "partial": 0, "inert": 0, "refused": 1}));
    assert!(report["reasons"].to_string().contains("is also that of the rule in"), "{report}");
    assert!(out.join("a.yaml").exists() && !out.join("b.yaml").exists());
}

#[test]
fn a_file_that_cannot_be_read_is_told_and_the_others_are_checked() {
    let home = Home::new().unwrap();
    let rules = home.path().join("rules");
    fs::create_dir_all(&rules).unwrap();
    fs::write(rules.join("a.yaml"), b"name: \xff\xfe\n").unwrap();
    fs::write(rules.join("b.yaml"), CURL).unwrap();
    std::os::unix::fs::symlink(home.path().join("nowhere"), rules.join("c.yaml")).unwrap();
    let checked = home.cli(&["rules", "validate", rules.to_str().unwrap(), "--format", "json"]).unwrap();
    assert_eq!(checked.status.code(), Some(5), "{}", stderr(&checked));
    for part in ["a.yaml", "UTF-8", "c.yaml", "leads nowhere"] {
        assert!(stderr(&checked).contains(part), "{part} is missing in:\n{}", stderr(&checked));
    }
    assert!(stdout(&checked).contains("b.yaml") && stdout(&checked).contains("valid"), "{}", stdout(&checked));
}
