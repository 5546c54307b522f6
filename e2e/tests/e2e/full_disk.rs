//! A disk without room, under the real programs: nothing is taken, everybody is told, nothing is lost, and it goes on by
//! itself in the same worker. Needs root for a small file system; skipped otherwise.

use std::fs::{self, File};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use e2e::{Agent, Home, wait_for};
use serde_json::Value;

#[path = "../../../daemoneye-lib/tests/jail/skip.rs"]
mod skip;

/// Processes that live while nothing is taken.
const LIVES: usize = 20;

/// A small file system, for as long as it lives.
struct Tmpfs(PathBuf);

impl Tmpfs {
    fn mount(at: PathBuf, mib: u32) -> Option<Self> {
        fs::create_dir_all(&at).unwrap();
        let size = format!("size={mib}m");
        let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", &size, "tmpfs"]).arg(&at).output();
        let mounted = mounted.is_ok_and(|output| output.status.success());
        if !mounted {
            skip::skipped("only root may mount a small file system");
        }
        mounted.then_some(Self(at))
    }

    fn ballast(&self) -> PathBuf {
        self.0.join("ballast")
    }

    /// Takes all the room there is.
    fn fill(&self) {
        let mut ballast = File::create(self.ballast()).unwrap();
        for size in [65_536, 4_096] {
            while ballast.write_all(&vec![1; size]).is_ok() {}
        }
    }

    fn make_room(&self) {
        fs::remove_file(self.ballast()).unwrap();
    }
}

impl Drop for Tmpfs {
    fn drop(&mut self) {
        Command::new("umount").arg("-l").arg(&self.0).status().ok();
    }
}

/// Processes that live until this goes: those of a test that failed must not be counted by the next one.
struct Sleepers(Vec<Child>);

impl Drop for Sleepers {
    fn drop(&mut self) {
        for child in &mut self.0 {
            child.kill().ok();
            child.wait().ok();
        }
    }
}

/// Another run of these tests on this host is seen by the same kernel.
fn own(mark: &str) -> String {
    format!("{mark}{:08}", std::process::id())
}

fn sleepers(mark: &str) -> Sleepers {
    let one = |number| {
        let mut command = Command::new("sleep");
        command.arg(format!("{}{number:03}", own(mark))).stdin(Stdio::null()).spawn().unwrap()
    };
    Sleepers((0..LIVES).map(one).collect())
}

fn is_paused(health: &Value) -> bool {
    let findings = health["findings"].as_array().unwrap();
    findings.iter().any(|finding| finding["problem"].as_str().unwrap().starts_with("no events are taken"))
}

fn wait_for_pause(home: &Home, agent: &Agent, paused: bool) {
    let found = wait_for(if paused { "the pause" } else { "the end of the pause" }, || {
        Ok(home.health().ok().filter(|health| is_paused(health) == paused))
    });
    if let Err(error) = found {
        panic!("{error:#}\n{:#?}\n{}", home.health(), agent.transcript());
    }
}

fn wait_for_lives(home: &Home, agent: &Agent, mark: &str) {
    let sql = format!(
        "SELECT count(DISTINCT entity_id) AS n FROM process_events WHERE event_type = 'start' AND command_line LIKE 'sleep {}%'",
        own(mark)
    );
    let seen = wait_for("every process that lived meanwhile", || {
        // A log on the full disk may have shed what else happened meanwhile: the answer is there, and degraded.
        let output = home.cli(&["query", &sql, "--format", "json"])?;
        let rows: Option<Value> = serde_json::from_slice(&output.stdout).ok();
        Ok(rows.filter(|rows| rows[0]["n"] == LIVES).map(drop))
    });
    if let Err(error) = seen {
        panic!("{error:#}\n{:?}\n{}", home.query(&sql), agent.transcript());
    }
    let twice = "SELECT epoch, seq FROM process_events GROUP BY epoch, seq HAVING count(*) > 1";
    let output = home.cli(&["query", twice, "--format", "json"]).unwrap();
    assert_eq!(output.stdout.trim_ascii(), b"[]", "nothing is doubled: {}", String::from_utf8_lossy(&output.stderr));
}

/// Waits until something has been sealed, so that everything is in place.
fn wait_for_a_seal(home: &Home, agent: &Agent) {
    let sealed = wait_for("a seal", || {
        Ok(home.health().ok().filter(|health| health["ingest"]["seals"].as_u64() > Some(0)).map(drop))
    });
    if let Err(error) = sealed {
        panic!("{error:#}\n{}", agent.transcript());
    }
}

fn segments(home: &Home) -> PathBuf {
    home.data().join("segments")
}

#[test]
fn history_without_room_pauses_ingest_is_told_and_loses_nothing() {
    let home = Home::new().unwrap().set("STORE__SEAL_MS", "300");
    let Some(disk) = Tmpfs::mount(segments(&home), 64) else { return };
    let agent = home.start_ready().unwrap();
    wait_for_a_seal(&home, &agent);
    let worker = agent.worker().unwrap();

    disk.fill();
    let children = sleepers("3600.1");
    wait_for_pause(&home, &agent, true);
    let answer = home.cli(&["query", "SELECT count(*) FROM process_events"]).unwrap();
    assert_eq!(answer.status.code(), Some(3), "an answer about now lacks what waits");
    let coverage = home.query("SELECT reason, detail FROM coverage WHERE reason = 'store_paused'").unwrap();
    assert!(coverage[0]["detail"].as_str().unwrap().contains("segments"), "{coverage:?}");
    let later = sleepers("3600.2");

    disk.make_room();
    wait_for_pause(&home, &agent, false);
    wait_for_lives(&home, &agent, "3600.1");
    wait_for_lives(&home, &agent, "3600.2");
    let coverage = home.query("SELECT reason FROM coverage WHERE reason = 'store_paused'").unwrap();
    assert_eq!(coverage.len(), 1, "one pause is one gap: {coverage:?}");
    let lost = home.query("SELECT * FROM coverage WHERE reason LIKE 'wal%'").unwrap();
    assert_eq!(lost, Vec::<Value>::new(), "the log held everything");
    assert_eq!(agent.worker(), Some(worker), "the same worker: {}", agent.transcript());
    drop(children);
    drop(later);
    let (status, transcript) = agent.stop().unwrap();
    assert_eq!(status.code(), Some(0), "{transcript}");
    assert!(!is_stray(&segments(&home)), "{transcript}");
}

/// Whether an unfinished file lies there.
fn is_stray(dir: &Path) -> bool {
    let mut names = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name());
    names.any(|name| name.to_string_lossy().ends_with(".tmp"))
}

#[test]
fn a_data_directory_without_room_is_survived_and_goes_on_by_itself() {
    let home = Home::new().unwrap().set("STORE__SEAL_MS", "300").variable("PROCMOND_WAL__SEGMENT_BYTES", "262144");
    let Some(disk) = Tmpfs::mount(home.data(), 24) else { return };
    let agent = home.start_ready().unwrap();
    wait_for_a_seal(&home, &agent);
    let worker = agent.worker().unwrap();
    disk.fill();
    drop(sleepers("3600.3"));
    wait_for_pause(&home, &agent, true);
    for _ in 0..10 {
        let answer = home.cli(&["query", "SELECT count(*) AS n FROM process_events", "--format", "json"]).unwrap();
        let said = String::from_utf8_lossy(&answer.stderr);
        assert_eq!(answer.status.code(), Some(3), "it answers, and says what it lacks: {said}");
    }
    disk.make_room();
    wait_for_pause(&home, &agent, false);
    let children = sleepers("3600.4");
    wait_for_lives(&home, &agent, "3600.4");
    assert_eq!(agent.worker(), Some(worker), "the same worker: {}", agent.transcript());
    drop(children);
    let (status, transcript) = agent.stop().unwrap();
    assert_eq!(status.code(), Some(0), "{transcript}");
    let verified = home.cli(&["audit", "verify"]).unwrap();
    assert!(verified.status.success(), "{}", String::from_utf8_lossy(&verified.stderr));
}

/// A worker on a full disk has to begin as one that waits, whatever had ended the one before it.
#[test]
fn a_worker_that_starts_without_room_waits_for_it_answers_meanwhile_and_loses_nothing() {
    let home = Home::new().unwrap().set("STORE__SEAL_MS", "300").variable("PROCMOND_WAL__SEGMENT_BYTES", "262144");
    let Some(disk) = Tmpfs::mount(home.data(), 24) else { return };
    let agent = home.start_ready().unwrap();
    wait_for_a_seal(&home, &agent);
    // What is sealed: the rest is the collector's until there is room.
    let before = home.health().unwrap()["store"]["segment_rows"].as_u64().unwrap();
    assert!(before > 0);
    let first = agent.worker().unwrap();
    disk.fill();
    agent.kill_worker().unwrap();
    let second = wait_for("another worker", || Ok(agent.worker().filter(|worker| *worker != first)));
    let second = second.unwrap_or_else(|error| panic!("{error:#}\n{}", agent.transcript()));
    wait_for_pause(&home, &agent, true);
    let answer = home.cli(&["query", "SELECT count(*) AS n FROM process_events", "--format", "json"]).unwrap();
    assert_eq!(answer.status.code(), Some(3), "it answers, and says what it lacks");
    let rows: Value = serde_json::from_slice(&answer.stdout).unwrap();
    assert!(rows[0]["n"].as_u64().unwrap() >= before, "{rows}");
    let health = home.health().unwrap();
    assert!(health["ingest"]["paused_since_us"].is_i64(), "{health:#}");

    disk.make_room();
    wait_for_pause(&home, &agent, false);
    let children = sleepers("3600.5");
    wait_for_lives(&home, &agent, "3600.5");
    assert_eq!(agent.worker(), Some(second), "the same worker: {}", agent.transcript());
    assert!(home.health().unwrap()["rules"]["running"].as_u64() > Some(0), "its rules are in force");
    let starts = "SELECT count(*) AS n FROM audit_entries WHERE action = 'start' AND actor = 'agent'";
    let told =
        wait_for("the second start in the ledger", || Ok(home.query(starts).ok().filter(|rows| rows[0]["n"] == 2)));
    told.unwrap_or_else(|error| panic!("{error:#}\n{}", agent.transcript()));
    drop(children);
    let (status, transcript) = agent.stop().unwrap();
    assert_eq!(status.code(), Some(0), "{transcript}");
    assert_eq!(
        home.json(&["data", "fsck", "--store", home.data().to_str().unwrap()]).unwrap()["problems"],
        serde_json::json!([])
    );
}
