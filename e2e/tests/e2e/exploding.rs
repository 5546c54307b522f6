//! A query that explodes, beside ingest, detection and delivery under the real programs: they go on, and it is cut and says so.

use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};

use e2e::{Home, copy_program, wait_for};

/// Every process beside every other one, four times over, and a pattern on what they are together.
const EXPLODING: &str = "SELECT count(*) FROM process_events AS a, process_events AS b, process_events AS c, process_events AS d \
                         WHERE a.name || b.name || c.name || d.name REGEXP '(x+x+)+y'";

/// Processes that start, are stored, judged and told of, one after the other, while it runs.
const ROUNDS: usize = 3;

/// How long it may take, the first time and again: a busy machine needs longer for the rounds.
const DEADLINES_MS: [u64; 3] = [20_000, 60_000, 180_000];

/// Starts a program under a hidden name, which is an alert; ends at once.
fn hidden(round: usize) -> (tempfile::TempDir, PathBuf) {
    let dir = tempfile::Builder::new().prefix("tmp.").tempdir_in("/tmp").unwrap();
    let path = dir.path().join(format!(".round{round}"));
    copy_program("/bin/sleep", &path).unwrap();
    let status = Command::new(&path).arg("0.3").stdin(Stdio::null()).status().unwrap();
    assert!(status.success());
    (dir, path)
}

/// Whether another query finds no place: there is one, and `running` has it. No answer in time proves nothing.
fn has_the_only_place(home: &Home, running: &mut Child) -> bool {
    let mut deadline_ms = 1_000;
    loop {
        let other = home.cli(&["query", "SELECT 1", "--deadline-ms", &deadline_ms.to_string()]).unwrap();
        if other.status.success() || running.try_wait().unwrap().is_some() {
            return false;
        }
        if String::from_utf8_lossy(&other.stderr).contains("queries are running") {
            return true;
        }
        deadline_ms = 20_000.min(deadline_ms * 2);
    }
}

/// How the query ended, if it ran all the while.
fn exploded(home: &Home) -> Option<Output> {
    wait_for("something to multiply", || {
        Ok((home.health()?["store"]["segment_rows"].as_u64() > Some(20)).then_some(()))
    })
    .unwrap();
    // The agent's own deadline is the one that counts.
    let mut command = home.cli_command(&["query", EXPLODING, "--format", "json", "--deadline-ms", "300000"]).unwrap();
    let mut query = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let at_work = wait_for("the query at work", || {
        let at_work = has_the_only_place(home, &mut query);
        Ok((at_work || query.try_wait()?.is_some()).then_some(at_work))
    });
    if !at_work.unwrap() {
        return None;
    }

    let mut sealed = home.health().unwrap()["store"]["segment_rows"].as_u64();
    for round in 0..ROUNDS {
        let (_dir, path) = hidden(round);
        let told = |alert: &serde_json::Value| alert["process"]["executable_path"] == path.to_str().unwrap();
        wait_for("the alert in alerts.jsonl", || Ok(home.delivered()?.iter().any(told).then_some(()))).unwrap();
        let more = || Ok(home.health()?["store"]["segment_rows"].as_u64()).map(|rows| rows.filter(|_| rows > sealed));
        sealed = Some(wait_for("a seal", more).unwrap());
    }
    let all_the_while = has_the_only_place(home, &mut query);
    let ended = query.wait_with_output().unwrap();
    all_the_while.then_some(ended)
}

#[test]
fn a_query_that_explodes_is_cut_and_says_so_while_events_are_stored_and_alerts_delivered() {
    for deadline_ms in DEADLINES_MS {
        let home = Home::new()
            .unwrap()
            .set("QUERY__CONCURRENT", "1")
            .set("QUERY__DEADLINE_MS", &deadline_ms.to_string())
            .set("STORE__SEAL_MS", "300");
        let agent = home.start_ready().unwrap();
        let Some(cut) = exploded(&home) else { continue };

        let said = String::from_utf8_lossy(&cut.stderr);
        assert_eq!(cut.status.code(), Some(3), "{said}");
        assert!(
            said.contains("degraded: timed_out") && said.contains("query.deadline_ms"),
            "by what, and what to do: {said}"
        );
        // Whatever was stored meanwhile is there, and the place is free again as soon as the thread has seen that time is up.
        let rounds = "SELECT count(DISTINCT entity_id) AS n FROM process_events WHERE name LIKE '.round%'";
        let stored = wait_for("the place", || Ok(home.query(rounds).ok())).unwrap();
        assert_eq!(stored[0]["n"], ROUNDS);
        let (status, transcript) = agent.stop().unwrap();
        assert_eq!(status.code(), Some(0), "{transcript}");
        return;
    }
    panic!("it never ran all the while");
}
