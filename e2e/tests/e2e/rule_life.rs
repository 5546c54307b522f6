//! The life of rules in the real programs: lists, overrides, exceptions, drafts, reloads under load, a rule that matches everything.

use std::fs;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use e2e::{Home, wait_for};
use nix::sys::signal::{Signal, kill};
use serde_json::Value;

const ID: &str = "3d9f2c1e-7a54-4b0e-9a51-0c8c5f3f7a11";

/// Programs that sleep until they are dropped, each with its own first argument.
struct Sleepers(Vec<Child>);

impl Sleepers {
    fn start(dir: &Path, name: &str, count: u32) -> Self {
        let program = dir.join(name);
        if !program.exists() {
            // By another program: while it is open for writing here, a child of another test would have it open as well.
            assert!(Command::new("cp").arg("/bin/sleep").arg(&program).status().unwrap().success());
        }
        let start = |_| Command::new(&program).arg("60").stdin(Stdio::null()).spawn().unwrap();
        Self((0..count).map(start).collect())
    }

    fn pids(&self) -> Vec<u64> {
        self.0.iter().map(|child| child.id().into()).collect()
    }
}

impl Drop for Sleepers {
    fn drop(&mut self) {
        for child in &mut self.0 {
            child.kill().unwrap();
            child.wait().unwrap();
        }
    }
}

fn rule(condition: &str) -> String {
    format!(
        "id: {ID}\nname: watched\ndescription: watched\nauthor: test\nseverity: low\ncategory: process_creation\n\
         sql: SELECT pid, name FROM process_events WHERE event_type = 'start' AND {condition}\n"
    )
}

/// The pids of the delivered alerts of the test's rule, each as often as it was delivered.
fn alerted(home: &Home) -> anyhow::Result<Vec<u64>> {
    let ours = home.delivered()?.into_iter().filter(|alert| alert["rule_id"] == ID);
    Ok(ours.filter_map(|alert| alert["process"]["pid"].as_u64()).collect())
}

fn wait_alerted(home: &Home, pid: u64) {
    wait_for("the alert", || Ok(alerted(home)?.contains(&pid).then_some(()))).unwrap();
}

fn one(home: &Home, sql: &str) -> anyhow::Result<Value> {
    Ok(home.query(sql)?.pop().unwrap_or(Value::Null))
}

#[test]
fn lists_and_exceptions_decide_as_soon_as_they_are_written_and_what_they_hid_is_there() {
    let rules = tempfile::tempdir().unwrap();
    let programs = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| fs::write(rules.path().join(name), text).unwrap();
    write("rule.yaml", &rule("name IN (list('watched_names'))"));
    write("list.yaml", "list: watched_names\nvalues: [never-there]\n");
    let home = Home::new().unwrap().rules(rules.path().to_owned());
    let _agent = home.start_ready().unwrap();
    let version = || one(&home, &format!("SELECT version FROM rules WHERE id = '{ID}'"));
    assert_eq!(version().unwrap()["version"], 1);

    write("list.yaml", "list: watched_names\nvalues: [dl-one, dl-two]\n");
    wait_for("the list's new version of the rule", || Ok((version()?["version"] == 2).then_some(()))).unwrap();
    let first = Sleepers::start(programs.path(), "dl-one", 1);
    wait_alerted(&home, first.pids()[0]);
    let said = home
        .query("SELECT version, text LIKE '%watched_names%' AS whole FROM rule_versions ORDER BY version")
        .unwrap();
    assert_eq!(said, [1, 2].map(|version| serde_json::json!({ "version": version, "whole": true })));
    let list = one(&home, "SELECT size, items, rules FROM rule_lists").unwrap();
    assert_eq!(list, serde_json::json!({ "size": 2, "items": "[\"dl-one\",\"dl-two\"]", "rules": 1 }));

    write(
        "local.yaml",
        &format!(
            "override: {ID}\nexceptions:\n  - where: name = 'dl-one'\n    owner: alice\n    reason: known\n    expires: never\n\
             \x20 - where: name = 'dl-two'\n    owner: bob\n    reason: it was known\n    expires: 2020-01-01\n"
        ),
    );
    let state = "SELECT owner, state, hits, file, line FROM rule_exceptions ORDER BY owner";
    wait_for("the exceptions", || Ok((home.query(state)?.len() == 2).then_some(()))).unwrap();
    let (hidden, told) =
        (Sleepers::start(programs.path(), "dl-one", 1), Sleepers::start(programs.path(), "dl-two", 1));
    wait_alerted(&home, told.pids()[0]);
    let suppressed = wait_for("the suppressed alert", || {
        let listed = home.json(&["alerts", "list", "--suppressed"])?;
        Ok(listed.as_array().unwrap().iter().find(|alert| alert["pid"] == hidden.pids()[0]).cloned())
    });
    assert_eq!(suppressed.unwrap()["status"], "suppressed");
    assert!(!alerted(&home).unwrap().contains(&hidden.pids()[0]), "nobody is told");
    let rows = home.query(state).unwrap();
    assert_eq!(
        rows[0],
        serde_json::json!({ "owner": "alice", "state": "active", "hits": 1, "file": "local.yaml", "line": 3 })
    );
    assert_eq!((&rows[1]["state"], &rows[1]["hits"]), (&"expired".into(), &0.into()));
    let health = home.health().unwrap();
    assert!(health["findings"].to_string().contains("has expired (bob: it was known)"), "{health}");
    let stats = one(&home, "SELECT state, health, matches, hidden, overrides FROM rule_stats").unwrap();
    assert_eq!(
        (&stats["health"], &stats["hidden"], &stats["overrides"]),
        (&"ok".into(), &1.into(), &"local.yaml".into())
    );
    let entries = "SELECT action FROM audit_entries WHERE action IN ('rule-exceptions', 'exception-expired', 'alert-suppressed')";
    wait_for("the ledger's entries", || {
        let actions: std::collections::BTreeSet<String> =
            home.query(entries)?.iter().filter_map(|row| row["action"].as_str().map(str::to_owned)).collect();
        Ok((actions.len() == 3).then_some(()))
    })
    .unwrap();
}

#[test]
fn a_draft_counts_and_never_alerts_until_it_is_released_by_an_override() {
    let rules = tempfile::tempdir().unwrap();
    let programs = tempfile::tempdir().unwrap();
    fs::write(rules.path().join("rule.yaml"), format!("{}state: draft\n", rule("name = 'dl-draft'"))).unwrap();
    fs::write(rules.path().join("pack.yaml"), "pack: trial\nversion: 0.3.1\n").unwrap();
    let home = Home::new().unwrap().rules(rules.path().to_owned());
    let _agent = home.start_ready().unwrap();
    let first = Sleepers::start(programs.path(), "dl-draft", 1);
    let stats = "SELECT state, matches FROM rule_stats";
    wait_for("the draft's match", || Ok((one(&home, stats)?["matches"] == 1).then_some(()))).unwrap();
    assert_eq!(one(&home, stats).unwrap()["state"], "draft");
    let pack = one(&home, "SELECT name, version, rules, running FROM rule_packs").unwrap();
    assert_eq!(pack, serde_json::json!({ "name": "trial", "version": "0.3.1", "rules": 1, "running": 1 }));

    fs::write(rules.path().join("local.yaml"), format!("override: {ID}\nstate: active\n")).unwrap();
    wait_for("the release", || Ok((one(&home, stats)?["state"] == "active").then_some(()))).unwrap();
    let second = Sleepers::start(programs.path(), "dl-draft", 1);
    wait_alerted(&home, second.pids()[0]);
    assert_eq!(alerted(&home).unwrap(), second.pids());
    drop(first);

    fs::remove_file(rules.path().join("rule.yaml")).unwrap();
    let state = format!("SELECT state FROM rules WHERE id = '{ID}'");
    wait_for("the archive", || Ok((one(&home, &state)?["state"] == "archived").then_some(()))).unwrap();
    let health = home.health().unwrap();
    assert!(health["findings"].to_string().contains("local.yaml:1:11: no rule that is loaded has the id"), "{health}");
}

#[test]
fn reloads_under_load_lose_and_double_no_alert() {
    const PROCESSES: u32 = 120;
    let rules = tempfile::tempdir().unwrap();
    let programs = tempfile::tempdir().unwrap();
    fs::write(rules.path().join("rule.yaml"), rule("name = 'dl-load'")).unwrap();
    let home = Home::new().unwrap().rules(rules.path().to_owned());
    let agent = home.start_ready().unwrap();
    let other = |number: u32| {
        let text = rule(&format!("name = 'never-{number}'")).replace(ID, "3d9f2c1e-7a54-4b0e-9a51-0c8c5f3f7a12");
        fs::write(rules.path().join("other.yaml"), text).unwrap();
    };
    let mut sleepers = Vec::new();
    for round in 0..PROCESSES / 4 {
        sleepers.push(Sleepers::start(programs.path(), "dl-load", 4));
        other(round);
        match round % 3 {
            0 => kill(agent.pid(), Signal::SIGHUP).unwrap(),
            1 => assert!(home.cli(&["rules", "reload"]).unwrap().status.success()),
            // Left to the look at the files.
            _ => {}
        }
    }
    let mut wanted: Vec<u64> = sleepers.iter().flat_map(Sleepers::pids).collect();
    wanted.sort_unstable();
    wait_for("an alert of each process", || Ok((alerted(&home)?.len() >= wanted.len()).then_some(()))).unwrap();
    let last = Sleepers::start(programs.path(), "dl-load", 1);
    wait_alerted(&home, last.pids()[0]);
    let mut found = alerted(&home).unwrap();
    found.retain(|pid| *pid != last.pids()[0]);
    found.sort_unstable();
    assert_eq!(found, wanted);
    let counts = home.query(&format!("SELECT DISTINCT count FROM alerts WHERE rule_id = '{ID}'")).unwrap();
    assert_eq!(counts, [serde_json::json!({ "count": 1 })]);
    assert!(one(&home, "SELECT max(version) AS version FROM rules").unwrap()["version"].as_u64().unwrap() > 2);
}

#[test]
fn a_rule_that_matches_everything_is_stopped_by_the_rate_limit_visibly_and_others_alert() {
    let rules = tempfile::tempdir().unwrap();
    let programs = tempfile::tempdir().unwrap();
    let all = format!("id: {ID}\nname: everything\nseverity: low\nsql: SELECT pid FROM process_events\n");
    fs::write(rules.path().join("all.yaml"), all).unwrap();
    let precise = "3d9f2c1e-7a54-4b0e-9a51-0c8c5f3f7a13";
    fs::write(rules.path().join("precise.yaml"), rule("name = 'dl-precise'").replace(ID, precise)).unwrap();
    let home = Home::new().unwrap().rules(rules.path().to_owned()).set("ALERTS__RATE_PER_RULE_PER_MINUTE", "5");
    let _agent = home.start_ready().unwrap();
    let _many = Sleepers::start(programs.path(), "dl-many", 30);
    let _one = Sleepers::start(programs.path(), "dl-precise", 1);
    wait_for("the alert of the other rule", || {
        Ok(home.delivered()?.iter().any(|alert| alert["rule_id"] == precise).then_some(()))
    })
    .unwrap();
    let summary = wait_for("the summary of the excess", || {
        let sql = format!(
            "SELECT title, description, count FROM alerts WHERE rule_id = '{ID}' AND title LIKE '%above the rate limit'"
        );
        Ok(home.query(&sql)?.pop())
    });
    let summary = summary.unwrap();
    assert_eq!(summary["title"], "everything: matches above the rate limit");
    assert!(
        summary["count"].as_u64().unwrap() > 1 && summary["description"].as_str().unwrap().contains("limited to 5")
    );
    let minutes =
        "SELECT date_trunc('minute', time) AS minute, count(*) AS n FROM alerts WHERE title = 'everything' GROUP BY 1";
    let rows = home.query(minutes).unwrap();
    assert!(!rows.is_empty() && rows.iter().all(|row| row["n"].as_u64().unwrap() <= 5), "{rows:?}");
    let matches = one(&home, "SELECT matches, folded, health FROM rule_stats WHERE name = 'everything'").unwrap();
    assert!(matches["matches"].as_u64().unwrap() > 30, "the counters have all of them: {matches}");
    assert!(matches["folded"].as_u64().unwrap() > 1 && matches["health"] == "held", "and what was folded: {matches}");
    let health = home.health().unwrap();
    let findings = health["findings"].as_array().unwrap();
    let held: Vec<&Value> =
        findings.iter().filter(|finding| finding["problem"].to_string().contains("is held")).collect();
    assert_eq!(held.len(), 1, "{findings:#?}");
    assert!(
        held[0]["problem"].as_str().unwrap().starts_with("the rule everything is held by its limit of alerts since ")
    );
    assert!(held[0]["remedy"].as_str().unwrap().contains("disable it"), "{held:?}");
    assert_eq!((&health["rules"]["held"][0]["rule_id"], &health["healthy"]), (&Value::from(ID), &Value::from(false)));
}

#[test]
fn a_rule_over_hashes_is_unhealthy_without_hashing_and_its_alerts_say_so() {
    let rules = tempfile::tempdir().unwrap();
    let programs = tempfile::tempdir().unwrap();
    fs::write(rules.path().join("rule.yaml"), rule("name = 'dl-hash' AND executable_hash IS NULL")).unwrap();
    let home = Home::new().unwrap().rules(rules.path().to_owned()).variable("PROCMOND_HASHING__ENABLED", "false");
    let _agent = home.start_ready().unwrap();
    let stats = one(&home, "SELECT health, reason FROM rule_stats").unwrap();
    assert_eq!(stats, serde_json::json!({ "health": "unhealthy", "reason": "no collector fills executable_hash" }));
    let health = home.health().unwrap();
    assert!(health["findings"].to_string().contains("1 rules cannot see what they read"), "{health}");
    assert_eq!(
        one(&home, "SELECT value FROM metrics WHERE name = 'daemoneye_rules_unhealthy'").unwrap()["value"],
        1.0
    );
    let listed = home.json(&["rules", "list"]).unwrap();
    assert_eq!(listed[0]["health"], "unhealthy");
    let sleeper = Sleepers::start(programs.path(), "dl-hash", 1);
    wait_alerted(&home, sleeper.pids()[0]);
    let alert = home.delivered().unwrap().pop().unwrap();
    assert_eq!(alert["completeness"]["degraded"], serde_json::json!(["schema_unavailable"]));
}

#[test]
fn executables_are_hashed_only_while_a_rule_reads_their_hash_where_that_is_asked_for() {
    let rules = tempfile::tempdir().unwrap();
    let programs = tempfile::tempdir().unwrap();
    fs::write(rules.path().join("rule.yaml"), rule("name = 'w-plain'")).unwrap();
    let home = Home::new().unwrap().rules(rules.path().to_owned()).variable("PROCMOND_HASHING__SCOPE", "rules");
    let _agent = home.start_ready().unwrap();
    let told = |left_empty: &Value| {
        let health = home.health()?;
        Ok((health["collectors"][0]["pushdown"]["left_empty"] == *left_empty).then_some(health))
    };
    let hashes = serde_json::json!(["executable_hash", "hash_algorithm", "hash_status"]);
    let health = wait_for("the selection without hashes", || told(&hashes)).unwrap();
    assert!(health.to_string().contains("no rule in force reads a hash"), "{health}");
    let plain = Sleepers::start(programs.path(), "w-plain", 1);
    wait_alerted(&home, plain.pids()[0]);
    let hashed = |name: &str| {
        let sql =
            format!("SELECT count(*) AS n, count(hash_status) AS hashed FROM process_events WHERE name = '{name}'");
        one(&home, &sql)
    };
    let seen = hashed("w-plain").unwrap();
    assert!(seen["n"].as_u64().unwrap() > 0 && seen["hashed"] == 0, "{seen}");

    let other = rule("name = 'w-never' AND executable_hash = 'x'").replace(ID, &ID.replace("7a11", "7a12"));
    fs::write(rules.path().join("hash.yaml"), other).unwrap();
    wait_for("the selection with hashes", || told(&serde_json::json!([]))).unwrap();
    let _hashed = Sleepers::start(programs.path(), "w-hashed", 1);
    wait_for("the hash", || Ok((hashed("w-hashed")?["hashed"].as_u64() > Some(0)).then_some(()))).unwrap();

    fs::remove_file(rules.path().join("hash.yaml")).unwrap();
    wait_for("the selection without hashes again", || told(&hashes)).unwrap();
}

#[test]
fn only_executables_are_hashed_that_a_rule_over_hashes_can_match() {
    let rules = tempfile::tempdir().unwrap();
    let programs = tempfile::tempdir().unwrap();
    let condition = "executable_path ILIKE '%/W-in%' AND executable_hash <> 'x'";
    // A hash that takes its time comes with an event of its own.
    fs::write(rules.path().join("rule.yaml"), rule(condition).replace("event_type = 'start' AND ", "")).unwrap();
    let home = Home::new().unwrap().rules(rules.path().to_owned()).variable("PROCMOND_HASHING__SCOPE", "rules");
    let _agent = home.start_ready().unwrap();
    let told = |words: &str| {
        let row = one(&home, "SELECT pushdown FROM collectors WHERE id = 'procmond'")?;
        Ok((row["pushdown"] == words).then_some(()))
    };
    let only = "fills executable_hash, hash_algorithm, hash_status only where executable_path contains \"/w-in\"";
    wait_for("the selection of paths", || told(only)).unwrap();
    let outside = Sleepers::start(programs.path(), "w-out", 1);
    let inside = Sleepers::start(programs.path(), "w-inside", 1);
    wait_alerted(&home, inside.pids()[0]);
    let left_out = format!(
        "SELECT count(*) AS n, count(hash_status) AS hashed FROM process_events WHERE pid = {}",
        outside.pids()[0]
    );
    let seen =
        wait_for("the other program", || Ok(Some(one(&home, &left_out)?).filter(|row| row["n"].as_u64() > Some(0))));
    assert_eq!(seen.unwrap()["hashed"], 0);
    let entity = format!("SELECT entity_id FROM process_events WHERE pid = {} LIMIT 1", outside.pids()[0]);
    let entity = one(&home, &entity).unwrap()["entity_id"].as_str().unwrap().to_owned();
    let explained = home.json(&["rules", "explain", ID, &entity]).unwrap();
    assert_eq!(explained["pushdown"], serde_json::json!([format!("procmond {only}")]));
}
