//! kill -9 at random instants, under a storm of processes: nothing acknowledged is lost, nothing comes twice.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use daemoneye_lib::segment::DirReader;
use e2e::{Agent, Home, copy_program, procmonds, wait_for};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::first_light::Hidden;

/// Cycles in CI; `DAEMONEYE_E2E_CYCLES` sets another number.
const CYCLES: u64 = 200;

/// Several seals come in this time.
const SEAL_WAIT: Duration = Duration::from_secs(2);

/// Small, seeded, good enough to pick instants; the seed is printed so that a failure can be replayed.
struct Dice(u64);

impl Dice {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % bound
    }
}

/// Starts copies of `sleep` under a hidden name, each of which is an alert, until told to stop.
struct Storm {
    stop: Arc<AtomicBool>,
    started: Arc<AtomicU64>,
    thread: JoinHandle<()>,
}

impl Storm {
    fn start(program: PathBuf) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let started = Arc::new(AtomicU64::new(0));
        let (stopping, count) = (Arc::clone(&stop), Arc::clone(&started));
        let thread = std::thread::spawn(move || {
            let mut children = Vec::new();
            while !stopping.load(Ordering::Relaxed) {
                let lifetime = match count.load(Ordering::Relaxed) % 3 {
                    0 => "0.15",
                    1 => "0.3",
                    _ => "0.6",
                };
                children.push(Command::new(&program).arg(lifetime).stdin(Stdio::null()).spawn().unwrap());
                count.fetch_add(1, Ordering::Relaxed);
                children.retain_mut(|child| matches!(child.try_wait(), Ok(None)));
                std::thread::park_timeout(Duration::from_millis(40));
            }
            for mut child in children {
                child.wait().unwrap();
            }
        });
        Self { stop, started, thread }
    }

    fn stop(self) -> u64 {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().unwrap();
        self.started.load(Ordering::Relaxed)
    }
}

pub(crate) fn kill_procmond(home: &Home) {
    for pid in procmonds(&home.data()).unwrap() {
        // It may be between two lives.
        let _gone = kill(Pid::from_raw(pid), Signal::SIGKILL);
    }
}

/// Whether a segment was being written when everything ended.
fn lies_unfinished(home: &Home) -> bool {
    let Ok(entries) = fs::read_dir(home.data().join("segments")) else { return false };
    entries.flatten().any(|entry| entry.path().extension().is_some_and(|end| end == "tmp"))
}

/// Kills the worker while it writes a segment, or whenever none is written in time.
fn kill_in_a_seal(home: &Home, running: &Agent) {
    let Some(worker) = running.worker() else { return };
    // It would start another worker.
    kill(running.pid(), Signal::SIGSTOP).unwrap();
    let began = Instant::now();
    while !lies_unfinished(home) && began.elapsed() < SEAL_WAIT {
        std::thread::yield_now();
    }
    // It may be between two lives.
    let _gone = kill(Pid::from_raw(worker), Signal::SIGKILL);
}

/// Asks for a new key and does not wait for it, so that a kill may hit the hand-over.
fn begin_rotation(home: &Home) -> Child {
    let mut command = home.cli_command(&["audit", "rotate-key"]).unwrap();
    command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
}

/// Adds every event record that the WAL holds now; says whether all of it could be read. A segment may be trimmed away between
/// the listing and the look, so one failure proves nothing; failures most of the time would.
fn note_wal(home: &Home, seen: &mut BTreeSet<(u64, u64)>) -> bool {
    let Ok(records) = DirReader::open(&home.data().join("wal"), "procmond", None) else { return false };
    for record in records {
        let Ok(record) = record else { return false };
        if record.topic.starts_with("events.process.") {
            seen.extend(record.sequence.map(|at| (at.epoch, at.number)));
        }
    }
    true
}

fn store_rows(home: &Home, sql: &str) -> Vec<serde_json::Value> {
    let data = home.data();
    let args = ["query", "--store", data.to_str().unwrap(), sql, "--format", "json"];
    let output = home.cli(&args).unwrap();
    // 3: answered over a coverage gap, which killing the collector leaves.
    let answered = output.status.success() || output.status.code() == Some(3);
    assert!(answered, "{sql}: {}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice::<Vec<serde_json::Value>>(&output.stdout).unwrap()
}

#[test]
fn killing_any_program_at_any_instant_loses_nothing_and_repeats_nothing() {
    let cycles = std::env::var("DAEMONEYE_E2E_CYCLES").ok().and_then(|n| n.parse().ok()).unwrap_or(CYCLES);
    let seed = std::env::var("DAEMONEYE_E2E_SEED").ok().and_then(|n| n.parse().ok()).unwrap_or(0x5eed_0001_u64);
    println!("seed {seed}, {cycles} cycles");
    let mut dice = Dice(seed);
    let home = Home::new().unwrap().set("PROCMOND__RESTART_LIMIT", "1000").set("STORE__SEAL_MS", "300");
    let storm_dir = tempfile::Builder::new().prefix("tmp.").tempdir_in("/tmp").unwrap();
    let program = storm_dir.path().join(".storm");
    copy_program("/bin/sleep", &program).unwrap();
    let storm = Storm::start(program);

    let mut in_wal = BTreeSet::new();
    let (mut looks, mut in_seals) = (0, 0);
    let mut agent: Option<Agent> = None;
    for _ in 0..cycles {
        let running = match agent.take() {
            Some(running) => running,
            None => home.start().unwrap(),
        };
        // However slow the machine: in two of three cycles the collector is at work, in the third one whatever has started by then.
        if dice.below(3) > 0 {
            let known = in_wal.len();
            let more = || Ok((note_wal(&home, &mut in_wal) && in_wal.len() > known).then_some(()));
            if let Err(error) = wait_for("an event of this life", more) {
                let log = DirReader::open(&home.data().join("wal"), "procmond", None).map(|log| log.last());
                panic!("{error:#}\n{log:?}\n{:#?}\n{}", home.health(), running.transcript());
            }
        }
        let rotation = (dice.below(4) == 0).then(|| begin_rotation(&home));
        std::thread::park_timeout(Duration::from_millis(dice.below(500)));
        match dice.below(5) {
            0 => {
                kill_procmond(&home);
                agent = Some(running);
            }
            1 => {
                let _between_lives = running.kill_worker();
                agent = Some(running);
            }
            2 => running.kill_all().unwrap(),
            3 => {
                kill_in_a_seal(&home, &running);
                running.kill_all().unwrap();
                in_seals += u64::from(lies_unfinished(&home));
            }
            _ => {
                kill_procmond(&home);
                running.kill_all().unwrap();
            }
        }
        if let Some(mut rotation) = rotation {
            rotation.wait().unwrap();
        }
        looks += u64::from(note_wal(&home, &mut in_wal));
    }
    drop(agent);

    let last = home.start_ready().unwrap();
    let started = storm.stop();
    wait_for("a look at the whole log", || Ok(note_wal(&home, &mut in_wal).then_some(()))).unwrap();
    // The storm is over and every event of it is stored.
    let over = wait_for("the last stop of the storm", || {
        // Degraded, and so no answer, until everything that is in the log has arrived.
        let rows = home.whole_query("SELECT count(*) AS n FROM processes WHERE name = '.storm'");
        Ok(rows.ok().filter(|rows| rows[0]["n"] == 0).map(|_rows| ()))
    });
    if let Err(error) = over {
        let left = home.query("SELECT * FROM processes WHERE name = '.storm'");
        panic!("{error:#}\n{left:#?}\n{:#?}\n{}", home.health(), last.transcript());
    }
    let (status, transcript) = last.stop().unwrap();
    assert_eq!(status.code(), Some(0), "{transcript}");

    check_events(&home, &in_wal);
    check_lifetimes(&home);
    check_alerts(&home);
    let verified = home.cli(&["audit", "verify"]).unwrap();
    assert!(verified.status.success(), "{}", String::from_utf8_lossy(&verified.stderr));
    let rotated = store_rows(&home, "SELECT count(*) AS n FROM audit_entries WHERE action = 'key-rotated'");
    let rotated = rotated[0]["n"].as_u64().unwrap();
    println!("{started} processes started, {} events seen in the WAL, {in_seals} kills inside a seal", in_wal.len());
    println!("{rotated} keys handed over");
    assert!(rotated > 0 || cycles < CYCLES, "no key was handed over");
    assert!(in_seals > 0 || cycles < CYCLES, "no kill has met a seal");
    assert!(looks * 2 > cycles, "only {looks} looks at the WAL succeeded");
    assert!(in_wal.len() as u64 > cycles, "the storm reached the WAL");
}

#[test]
fn the_worker_of_a_killed_parent_makes_room_for_the_next_agent() {
    let home = Home::new().unwrap();
    let mut first = home.start_ready().unwrap();
    // What holds up an end in order: a collector that answers nothing, and a sink that never takes what it is given.
    let collector = Pid::from_raw(home.procmond_pid().unwrap());
    let pipe = home.path().join("never-read");
    nix::unistd::mkfifo(&pipe, nix::sys::stat::Mode::S_IRWXU).unwrap();
    // In one step: an alert beside this test would make the file anew.
    fs::rename(&pipe, home.data().join("alerts.jsonl")).unwrap();
    let hidden = Hidden::start();
    wait_for("an alert that waits for its sink", || {
        let health = home.health()?;
        let file = health["sinks"].as_array().and_then(|sinks| sinks.iter().find(|sink| sink["name"] == "file"));
        Ok(file.filter(|file| file["pending"].as_u64() > Some(0)).map(|_| ()))
    })
    .unwrap();
    kill(collector, Signal::SIGSTOP).unwrap();
    let orphan = first.worker().unwrap();
    first.kill_parent().unwrap();

    let next = home.start().unwrap();
    kill(collector, Signal::SIGCONT).unwrap();
    let is_next = |health: &serde_json::Value| {
        let mut programs = health["components"].as_array().unwrap().iter();
        health["state"] == "steady_state"
            && programs.any(|of| of["name"] == "agent" && of["pid"] == next.pid().as_raw())
    };
    let steady = wait_for("the next agent's steady state", || Ok(home.health().ok().filter(is_next)));
    if let Err(error) = steady {
        panic!("{error:#}\n{}", next.transcript());
    }
    assert_ne!(next.worker().unwrap(), orphan);
    hidden.stop();
    let (status, transcript) = next.stop().unwrap();
    assert_eq!(status.code(), Some(0), "{transcript}");
}

fn check_events(home: &Home, in_wal: &BTreeSet<(u64, u64)>) {
    let mut stored = BTreeMap::new();
    for row in store_rows(home, "SELECT epoch, seq, count(*) AS n FROM process_events GROUP BY epoch, seq") {
        let position = (row["epoch"].as_u64().unwrap(), row["seq"].as_u64().unwrap());
        stored.insert(position, row["n"].as_u64().unwrap());
    }
    let twice: Vec<_> = stored.iter().filter(|(_, count)| **count != 1).collect();
    assert!(twice.is_empty(), "stored more than once: {twice:?}");
    let lost: Vec<_> = in_wal.iter().filter(|position| !stored.contains_key(position)).collect();
    assert!(lost.is_empty(), "in the WAL and not in the store: {lost:?}");
    // One image is told twice when a procmond executes itself at its start, this one or that of a test beside it: the first time a
    // snapshot may have found, as its baseline too, the second the kernel tells at its own, later instant. And at two instants by
    // the kernel when a fork has the image of its parent, which it then executes, or when a process was gone before its image
    // could be looked at.
    let starts = "FROM process_events WHERE event_type = 'start'";
    let announced = "CASE WHEN start_kind <> 'baseline' AND source IN ('ebpf', 'proc-connector') THEN time END";
    let of_kind = |kind: &str| format!("sum(CASE WHEN start_kind = '{kind}' THEN 1 ELSE 0 END)");
    let (forks, execs) = (of_kind("fork"), of_kind("exec"));
    let executed = format!("CASE WHEN start_kind = 'exec' THEN {announced} END");
    let executed_later =
        format!("count({executed}) >= 1 AND max({executed}) = max(time) AND min(time) < max(time) AND {forks} = 0");
    let again = store_rows(
        home,
        &format!(
            "SELECT entity_id, executable_path, command_line, count(*) AS n {starts} GROUP BY entity_id, executable_path, command_line \
             HAVING count(*) > 1 AND NOT (count(*) = 2 AND {executed_later} AND executable_path LIKE '%/procmond') \
             AND NOT (count(*) = count(DISTINCT {announced}) AND {forks} <= 1 AND (executable_path IS NULL OR {execs} <= 1))"
        ),
    );
    let whole: Vec<_> = again
        .iter()
        .map(|row| {
            store_rows(home, &format!("SELECT * {starts} AND entity_id = '{}'", row["entity_id"].as_str().unwrap()))
        })
        .collect();
    assert!(again.is_empty(), "starts announced twice: {again:?}\n{whole:#?}");
}

fn check_lifetimes(home: &Home) {
    let twice = "SELECT entity_id, count(*) AS n FROM process_lifetimes GROUP BY entity_id HAVING count(*) > 1";
    let twice = store_rows(home, twice);
    assert!(twice.is_empty(), "several lifetimes of one process: {twice:?}");
    let of_the_ended = "FROM (SELECT DISTINCT entity_id FROM process_events WHERE event_type = 'stop') AS told \
                        LEFT JOIN process_lifetimes AS lived ON told.entity_id = lived.entity_id";
    let lacking = store_rows(home, &format!("SELECT told.entity_id {of_the_ended} WHERE lived.stop_time IS NULL"));
    assert!(lacking.is_empty(), "ended, and no lifetime says so: {lacking:?}");
    let ended = store_rows(home, &format!("SELECT count(*) AS n {of_the_ended}"));
    assert!(ended[0]["n"].as_u64().is_some_and(|ended| ended > 0), "no end was stored");
}

fn check_alerts(home: &Home) {
    let entities: BTreeSet<String> = store_rows(
        home,
        "SELECT DISTINCT entity_id FROM process_events WHERE name = '.storm' AND event_type = 'start' AND executable_path IS NOT NULL",
    )
    .iter()
    .map(|row| row["entity_id"].as_str().unwrap().to_owned())
    .collect();
    let mut raised: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    let delivered = home.delivered().unwrap();
    // Delivered at least once: a repeat is the same alert under the same id, word for word.
    let mut lines: BTreeMap<&str, &serde_json::Value> = BTreeMap::new();
    for alert in &delivered {
        let first = *lines.entry(alert["id"].as_str().unwrap()).or_insert(alert);
        assert_eq!(first, alert, "one id, two contents");
    }
    println!("{} lines of {} alerts", delivered.len(), lines.len());
    for alert in delivered.iter().filter(|alert| alert["process"]["name"] == ".storm") {
        let entity = alert["process"]["entity_id"].as_str().unwrap().to_owned();
        let rule = alert["rule_id"].as_str().unwrap();
        raised.entry(format!("{entity} {rule}")).or_default().insert(alert["id"].as_str().unwrap().to_owned());
    }
    let twice: Vec<_> = raised.iter().filter(|(_, ids)| ids.len() != 1).collect();
    assert!(twice.is_empty(), "one cause, several alerts: {twice:?}");
    let alerted: BTreeSet<String> = raised.keys().filter_map(|key| key.split(' ').next()).map(str::to_owned).collect();
    let missing: Vec<_> = entities.difference(&alerted).collect();
    let first = missing.first().map_or_else(Vec::new, |entity| {
        store_rows(home, &format!("SELECT * FROM process_events WHERE entity_id = '{entity}'"))
    });
    assert!(missing.is_empty(), "no alert for {missing:?}: {first:#?}");
    let stored = store_rows(home, "SELECT id FROM alerts");
    let unique: BTreeSet<_> = stored.iter().map(|row| row["id"].as_str().unwrap()).collect();
    assert_eq!(unique.len(), stored.len(), "an alert id stands twice");
    let ids: BTreeSet<_> = lines.into_keys().collect();
    assert_eq!(unique, ids, "the store and the sink have the same alerts");
}
