//! Window rules over real processes: one event after another, and one that did not come.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use e2e::{Home, wait_for};
use serde_json::Value;

/// A copy of a program under a name that no other test uses.
fn named(dir: &Path, name: &str) -> PathBuf {
    let path = dir.join(name);
    // By another program: while it is open for writing here, a child of another test would have it open as well.
    assert!(Command::new("cp").arg("/bin/sleep").arg(&path).status().unwrap().success());
    path
}

/// Running programs; a source that takes snapshots sees them too.
#[derive(Default)]
struct Running(Vec<Child>);

impl Running {
    fn start(&mut self, path: &Path) {
        self.0.push(Command::new(path).arg("120").stdin(Stdio::null()).spawn().unwrap());
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        for child in &mut self.0 {
            child.kill().and_then(|()| child.wait()).ok();
        }
    }
}

fn rule(dir: &Path, at: u32, name: &str, sql: &str) {
    let yaml = format!(
        "id: 5b0f9d62-0f43-4f0e-9d5e-00000000000{at}\nname: {name}\ndescription: {name}\nauthor: test\nseverity: low\n\
         category: process_creation\nsql: {sql}\n"
    );
    fs::write(dir.join(format!("{at}.yaml")), yaml).unwrap();
}

fn alert_of(home: &Home, name: &str) -> anyhow::Result<Option<Value>> {
    Ok(home.delivered()?.into_iter().find(|alert| alert["title"] == name))
}

#[test]
fn a_count_a_sequence_and_an_absence_are_found_in_real_processes() {
    let dir = tempfile::tempdir().unwrap();
    let rules = dir.path().join("rules");
    fs::create_dir(&rules).unwrap();
    rule(
        &rules,
        1,
        "three of them",
        "SELECT name, count(*) AS n FROM process_events WHERE event_type = 'start' AND name = 'dw-many' AND time > now() - \
         INTERVAL '5 minutes' GROUP BY name HAVING count(*) >= 3",
    );
    rule(
        &rules,
        2,
        "one after the other",
        "SELECT a.name AS first, b.name AS second FROM process_events a JOIN process_events b ON b.time BETWEEN a.time AND \
         a.time + INTERVAL '10 minutes' WHERE a.event_type = 'start' AND a.name = 'dw-first' AND b.event_type = 'start' AND \
         b.name = 'dw-second'",
    );
    rule(
        &rules,
        3,
        "not answered",
        "SELECT a.pid AS pid FROM process_events a LEFT JOIN process_events b ON b.event_type = 'start' AND b.name = \
         'dw-answer' AND b.time BETWEEN a.time AND a.time + INTERVAL '2 seconds' WHERE a.event_type = 'start' AND a.name = \
         'dw-ask' AND b.pid IS NULL",
    );
    let home = Home::new().unwrap().rules(rules);
    let agent = home.start_ready().unwrap();
    let path = |name: &str| named(dir.path(), name);
    let (many, first, second, ask) = (path("dw-many"), path("dw-first"), path("dw-second"), path("dw-ask"));
    let mut running = Running::default();
    for program in [&many, &many, &many, &first] {
        running.start(program);
    }
    // The kernel lets the parent go on before it dates the execution: the next one could be earlier.
    let begun = "SELECT pid FROM process_events WHERE name = 'dw-first' AND event_type = 'start'";
    wait_for("the first of the sequence", || Ok(home.query(begun)?.pop())).unwrap();
    for program in [&second, &ask] {
        running.start(program);
    }

    let counted = wait_for("the count", || alert_of(&home, "three of them")).unwrap();
    assert_eq!(counted["row"]["n"], 3, "{counted}");
    assert_eq!(counted["completeness"]["degraded"], serde_json::json!([]), "{counted}");
    let sequence = wait_for("the sequence", || alert_of(&home, "one after the other")).unwrap();
    assert_eq!(sequence["row"], serde_json::json!({"first": "dw-first", "second": "dw-second"}));
    assert_eq!(sequence["events"].as_array().unwrap().len(), 2, "{sequence}");
    assert_eq!(sequence["process"]["name"], "dw-second");
    // Nothing else starts: the clock decides it.
    let absence = wait_for("the absence", || alert_of(&home, "not answered")).unwrap();
    assert_eq!(absence["process"]["name"], "dw-ask", "{absence}");

    let health = home.health().unwrap();
    assert_eq!(health["rules"]["windows"]["running"], 3, "{health}");
    assert!(health["rules"]["windows"]["evaluations"].as_u64().unwrap() > 0, "{health}");
    agent.stop().unwrap();

    // What was found is not found again from the history that the next agent reads.
    let agent = home.start_ready().unwrap();
    running.start(&second);
    wait_for("the sequence with the next event", || {
        let listed = home.json(&["alerts", "list"])?;
        let sequences =
            listed.as_array().into_iter().flatten().filter(|alert| alert["title"] == "one after the other");
        Ok((sequences.count() == 2).then_some(()))
    })
    .unwrap();
    let listed = home.json(&["alerts", "list"]).unwrap();
    let of = |name: &str| listed.as_array().unwrap().iter().filter(|alert| alert["title"] == name).count();
    assert_eq!((of("three of them"), of("not answered")), (1, 1), "{listed}");
    agent.stop().unwrap();
}
