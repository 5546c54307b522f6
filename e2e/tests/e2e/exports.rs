//! Exported files as others and we ourselves read them, beside the answer to a query over the same events.

use std::fs;
use std::path::Path;
use std::process::Command;

use e2e::{Home, wait_for};
use serde_json::{Value, json};

use crate::first_light::Hidden;
use crate::ledger::python;

#[test]
fn an_exported_parquet_file_holds_what_a_query_answers_also_for_other_readers() {
    let home = Home::new().unwrap();
    let agent = home.start_ready().unwrap();
    let hidden = Hidden::start();
    let path = hidden.path.display().to_string();
    let own = format!("SELECT seq FROM process_events WHERE executable_path = '{path}'");
    wait_for("the event", || Ok(home.query(&own)?.pop())).unwrap();
    // Up to a position nothing is added any more.
    let last = home.query("SELECT max(seq) AS seq FROM process_events").unwrap()[0]["seq"].as_i64().unwrap();
    let counted = "count(*) AS rows, count(DISTINCT entity_id) AS entities, sum(pid) AS pids";
    let mut answer =
        home.query(&format!("SELECT {counted} FROM process_events WHERE seq <= {last}")).unwrap().remove(0);
    let rows = format!(
        "SELECT seq, pid, name, command_line FROM process_events WHERE executable_path = '{path}' AND seq <= {last} ORDER BY seq"
    );
    let rows: Vec<Value> = home.query(&rows).unwrap();
    let listed = rows.iter().map(|row| json!([row["seq"], row["pid"], row["name"], row["command_line"]]));
    answer["own"] = listed.collect::<Vec<_>>().into();
    assert!(answer["rows"].as_i64() > Some(1) && !rows.is_empty(), "{answer}");

    let file = home.path().join("all.parquet");
    let name = file.to_str().unwrap();
    let output = home.cli(&["data", "export", "--output", name, "--where", &format!("seq <= {last}")]).unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(matches!(output.status.code(), Some(0 | 3)), "{said}");
    assert!(said.contains(&format!("{} rows in", answer["rows"])), "{said}");

    match python("duckdb, pyarrow.parquet") {
        Err(why) => eprintln!("skipped: {why}"),
        Ok(python) => {
            let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/e2e/read_export.py");
            let asked = Command::new(python).arg(script).args([name, &path]).output().unwrap();
            assert!(asked.status.success(), "{}", String::from_utf8_lossy(&asked.stderr));
            let read: Vec<Value> = serde_json::from_slice(&asked.stdout).unwrap();
            assert_eq!(read, [answer.clone(), answer.clone()], "pyarrow, then DuckDB");
        }
    }

    // We read it as events of the past.
    let rules = home.path().join("own-rules");
    fs::create_dir(&rules).unwrap();
    let rule = format!(
        "id: 3d9f2c1e-7a54-4b0e-9a51-0c8c5f3f7a02\nname: own\ndescription: the program of this test\nauthor: test\n\
         severity: low\ncategory: process_creation\ndedup: [seq]\n\
         sql: SELECT seq, pid, name, command_line FROM process_events WHERE executable_path = '{path}'\n"
    );
    fs::write(rules.join("own.yaml"), rule).unwrap();
    let replayed = home.cli(&["replay", name, "--rules", rules.to_str().unwrap()]).unwrap();
    let complaint = String::from_utf8_lossy(&replayed.stderr).into_owned();
    assert!(matches!(replayed.status.code(), Some(0 | 3)), "{complaint}");
    let alerts = String::from_utf8(replayed.stdout).unwrap();
    let alerts = alerts.lines().map(|line| serde_json::from_str::<Value>(line).unwrap()["row"].clone());
    let mut found: Vec<Value> =
        alerts.map(|row| json!([row["seq"], row["pid"], row["name"], row["command_line"]])).collect();
    found.sort_by_key(|row| row[0].as_i64());
    assert_eq!(Value::from(found), answer["own"], "{complaint}");
    hidden.stop();
    agent.stop().unwrap();
}
