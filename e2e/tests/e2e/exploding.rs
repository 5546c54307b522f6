//! A query that explodes, beside ingest, detection and delivery under the real programs: they go on, and it is cut and says so.

use std::fs;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use e2e::{Home, wait_for};

/// Every process beside every other one, four times over, and a pattern on what they are together.
const EXPLODING: &str = "SELECT count(*) FROM process_events AS a, process_events AS b, process_events AS c, process_events AS d \
                         WHERE a.name || b.name || c.name || d.name REGEXP '(x+x+)+y'";

/// Processes that start, are stored, judged and told of, one after the other, while it runs.
const ROUNDS: usize = 3;

/// Starts a program under a hidden name, which is an alert; ends at once.
fn hidden(round: usize) -> (tempfile::TempDir, PathBuf) {
    let dir = tempfile::Builder::new().prefix("tmp.").tempdir_in("/tmp").unwrap();
    let path = dir.path().join(format!(".round{round}"));
    fs::copy("/bin/sleep", &path).unwrap();
    let status = Command::new(&path).arg("0.3").stdin(Stdio::null()).status().unwrap();
    assert!(status.success());
    (dir, path)
}

/// Whether another query finds no place: there is one, and the first has it.
fn has_the_only_place(home: &Home, running: &mut Child) -> bool {
    let other = home.cli(&["query", "SELECT 1", "--deadline-ms", "1000"]).unwrap();
    let told = String::from_utf8_lossy(&other.stderr).into_owned();
    assert!(other.status.success() || told.contains("queries are running"), "{told}");
    !other.status.success() && running.try_wait().unwrap().is_none()
}

#[test]
fn a_query_that_explodes_is_cut_and_says_so_while_events_are_stored_and_alerts_delivered() {
    let home = Home::new()
        .unwrap()
        .set("QUERY__CONCURRENT", "1")
        .set("QUERY__DEADLINE_MS", "20000")
        .set("STORE__SEAL_MS", "300");
    let agent = home.start_ready().unwrap();
    wait_for("something to multiply", || {
        Ok((home.health()?["store"]["segment_rows"].as_u64() > Some(20)).then_some(()))
    })
    .unwrap();
    let mut command = home.cli_command(&["query", EXPLODING, "--format", "json"]).unwrap();
    let mut query = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    wait_for("the query at work", || Ok(has_the_only_place(&home, &mut query).then_some(()))).unwrap();

    let mut sealed = home.health().unwrap()["store"]["segment_rows"].as_u64();
    for round in 0..ROUNDS {
        let (_dir, path) = hidden(round);
        let told = |alert: &serde_json::Value| alert["process"]["executable_path"] == path.to_str().unwrap();
        wait_for("the alert in alerts.jsonl", || Ok(home.delivered()?.iter().any(told).then_some(()))).unwrap();
        let more = || Ok(home.health()?["store"]["segment_rows"].as_u64()).map(|rows| rows.filter(|_| rows > sealed));
        sealed = Some(wait_for("a seal", more).unwrap());
    }
    assert!(has_the_only_place(&home, &mut query), "it ran all the while");

    let cut = query.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&cut.stderr);
    assert_eq!(cut.status.code(), Some(3), "{said}");
    assert!(
        said.contains("degraded: timed_out") && said.contains("query.deadline_ms"),
        "by what, and what to do: {said}"
    );
    // Whatever was stored meanwhile is there, and the place is free again.
    let rounds = "SELECT count(DISTINCT entity_id) AS n FROM process_events WHERE name LIKE '.round%'";
    assert_eq!(home.query(rounds).unwrap()[0]["n"], ROUNDS);
    let (status, transcript) = agent.stop().unwrap();
    assert_eq!(status.code(), Some(0), "{transcript}");
}
