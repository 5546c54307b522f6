//! Ways in which the programs live together other than one agent that starts everything.

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use e2e::{Agent, Home, procmonds, program, wait_for};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::first_light::Hidden;

/// Ended in order when dropped.
pub(crate) struct Procmond(Child);

impl Procmond {
    fn start(home: &Home, settings: &[(&str, &str)]) -> Self {
        Self::start_in(&home.data(), settings)
    }

    pub(crate) fn start_in(data: &Path, settings: &[(&str, &str)]) -> Self {
        let mut command = Command::new(program("procmond").unwrap());
        command.arg("--data-dir").arg(data).args(["--snapshot-interval-ms", "100"]);
        command.env_clear().envs(settings.iter().copied()).stdin(Stdio::null()).stderr(Stdio::null());
        Self(command.spawn().unwrap())
    }

    pub(crate) fn stop(&mut self) -> Option<i32> {
        kill(Pid::from_raw(self.0.id().try_into().unwrap()), Signal::SIGTERM).unwrap();
        wait_for("procmond's end", || Ok(self.0.try_wait()?)).unwrap().code()
    }
}

impl Drop for Procmond {
    fn drop(&mut self) {
        let _ended = self.0.kill();
        let _reaped = self.0.wait();
    }
}

/// Also where the answer lacks something: between two collectors nobody captures.
fn count(home: &Home, condition: &str) -> i64 {
    let sql = format!("SELECT count(*) AS n FROM process_events WHERE {condition}");
    let asked = home.cli(&["query", &sql, "--format", "json"]);
    let answered = asked.ok().filter(|output| matches!(output.status.code(), Some(0 | 3)));
    let rows: Option<Vec<serde_json::Value>> = answered.and_then(|output| serde_json::from_slice(&output.stdout).ok());
    rows.and_then(|rows| rows.first()?["n"].as_i64()).unwrap_or(0)
}

#[test]
fn a_collector_that_outlives_its_agent_goes_on_and_is_adopted() {
    let home = Home::new().unwrap();
    let first = home.start_ready().unwrap();
    let collector = home.procmond_pid().unwrap();
    first.kill_all().unwrap();

    // Nobody listens, and it collects all the same.
    let hidden = Hidden::start();
    let second = home.start_ready().unwrap();
    assert_eq!(procmonds(&home.data()).unwrap(), [collector], "the same process, and no second one");
    let path = hidden.path.to_str().unwrap();
    wait_for("the alert", || {
        Ok(home.delivered()?.into_iter().find(|alert| alert["process"]["executable_path"] == path))
    })
    .unwrap();
    hidden.stop();
    assert_eq!(second.stop().unwrap().0.code(), Some(0));
    wait_for("procmond's end", || Ok(procmonds(&home.data())?.is_empty().then_some(()))).unwrap();
}

#[test]
fn what_a_standalone_collector_saw_is_stored_by_the_agent_that_comes_later() {
    let home = Home::new().unwrap();
    let mut collector = Procmond::start(&home, &[("PROCMOND_STANDALONE", "1")]);
    wait_for("the baseline in the log", || {
        Ok(daemoneye_lib::segment::DirReader::open(&home.data().join("wal"), "procmond", None)
            .ok()
            .and_then(|mut all| all.next()?.ok()))
    })
    .unwrap();
    let hidden = Hidden::start();
    let pid = hidden.child.id();
    wait_for("the event in the log", || {
        let records = daemoneye_lib::segment::DirReader::open(&home.data().join("wal"), "procmond", None)?;
        let needle = hidden.path.to_str().map(str::as_bytes).unwrap_or_default();
        let mut records = records.map_while(Result::ok);
        Ok(records.any(|record| record.payload.windows(needle.len()).any(|window| window == needle)).then_some(()))
    })
    .unwrap();
    assert_eq!(collector.stop(), Some(0));
    hidden.stop();

    let _agent = home.start_ready().unwrap();
    wait_for("its start in the store", || {
        Ok((count(&home, &format!("event_type = 'start' AND pid = {pid} AND name = '.hidden'")) == 1).then_some(()))
    })
    .unwrap();
    wait_for("the stop that nobody saw", || {
        let stopped = format!("event_type = 'stop' AND pid = {pid} AND name = '.hidden' AND NOT end_observed");
        Ok((count(&home, &stopped) == 1).then_some(()))
    })
    .unwrap();
}

#[test]
fn an_external_collector_registers_with_the_token_from_its_file() {
    let home = Home::new().unwrap();
    let data = home.data();
    let (home, agent, mut collector) = start_external(home, &data);
    wait_for("its baseline", || Ok((count(&home, "start_kind = 'baseline'") > 0).then_some(()))).unwrap();
    assert_eq!(agent.stop().unwrap().0.code(), Some(0));
    collector.stop();
}

/// An agent, and a procmond that has a service of its own, on the data directory `data`.
pub(crate) fn start_external(home: Home, data: &Path) -> (Home, Agent, Procmond) {
    let token = home.path().join("token");
    fs::write(&token, [7; 32]).unwrap();
    fs::set_permissions(&token, fs::Permissions::from_mode(0o400)).unwrap();
    let token = token.to_str().unwrap().to_owned();
    let home = home.set("PROCMOND__MODE", "external").set("PROCMOND__TOKEN_FILE", &token);
    let agent = home.start().unwrap();
    let socket = home.runtime().join("bus.sock");
    wait_for("the bus", || Ok(socket.exists().then_some(()))).unwrap();
    let settings =
        [("DAEMONEYE_BROKER_SOCKET", socket.to_str().unwrap()), ("DAEMONEYE_BROKER_TOKEN_FILE", token.as_str())];
    let collector = Procmond::start_in(data, &settings);
    wait_for("the steady state", || Ok(home.health().ok().filter(|health| health["state"] == "steady_state")))
        .unwrap();
    (home, agent, collector)
}

/// The first event that the console follows, which must be of a `.hidden`.
fn follow(home: &Home) {
    let arguments = ["events", "follow", "--where", "name = '.hidden'", "--format", "jsonl"];
    let mut follower = home.cli_command(&arguments).unwrap().stdout(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(follower.stdout.take().unwrap()).lines();
    // The follower may come after the first start: then it sees the next one.
    let (sender, receiver) = std::sync::mpsc::channel();
    std::thread::spawn(move || sender.send(lines.next()));
    let line = wait_for("a followed event", || {
        let hidden = Hidden::start();
        let line = receiver.recv_timeout(std::time::Duration::from_millis(500)).ok();
        hidden.stop();
        Ok(line)
    })
    .unwrap();
    let event: serde_json::Value = serde_json::from_str(&line.unwrap().unwrap()).unwrap();
    assert_eq!(event["name"], ".hidden");
    follower.kill().unwrap();
    follower.wait().unwrap();
}

#[test]
fn events_are_followed_as_they_come() {
    let home = Home::new().unwrap();
    let _agent = home.start_ready().unwrap();
    follow(&home);
}

#[test]
fn rules_are_checked_where_no_agent_runs() {
    let home = Home::new().unwrap();
    let rules = e2e::builtin_rules();
    let tested = home.cli(&["rules", "test", rules.to_str().unwrap()]).unwrap();
    assert!(tested.status.success(), "{}", String::from_utf8_lossy(&tested.stderr));
}

#[test]
fn an_ordinary_user_runs_everything() {
    let mut home = Home::new().unwrap();
    if nix::unistd::geteuid().is_root() {
        home = home.as_nobody().unwrap();
    }
    let agent = home.start_ready().unwrap();
    // Another user's executable path cannot be read without privileges, its name and arguments can.
    let line = "read wait # >> /nowhere/.ssh/authorized_keys";
    let mut suspect = Command::new("sh").args(["-c", line]).stdin(Stdio::piped()).spawn().unwrap();
    let pid = suspect.id();
    let alert =
        wait_for("the alert", || Ok(home.delivered()?.into_iter().find(|alert| alert["process"]["pid"] == pid)))
            .unwrap();
    let command_line = format!("sh -c {line}");
    let rows =
        home.query(&format!("SELECT command_line FROM process_events WHERE pid = {pid} AND name = 'sh'")).unwrap();
    assert_eq!(
        (&rows[0]["command_line"], &alert["process"]["command_line"]),
        (&command_line.as_str().into(), &command_line.as_str().into())
    );
    let id = alert["id"].as_str().unwrap();
    assert_eq!(home.json(&["alerts", "show", id]).unwrap()["id"], id);
    for (command, column, wanted) in [
        (["alerts", "list", "--limit", "1000000"].as_slice(), "id", alert["id"].clone()),
        (&["processes"], "pid", pid.into()),
        (&["rules", "list"], "id", alert["rule_id"].clone()),
    ] {
        let rows = home.answer(command).unwrap();
        assert!(rows.as_array().unwrap().iter().any(|row| row[column] == wanted), "{command:?}: {rows}");
    }
    let health = home.health().unwrap();
    assert_eq!(health["state"], "steady_state", "{health}");
    assert!(health["source"]["name"].is_string(), "{health}");
    follow(&home);
    drop(suspect.stdin.take());
    suspect.wait().unwrap();
    assert_eq!(agent.stop().unwrap().0.code(), Some(0));
    assert!(home.cli(&["audit", "verify"]).unwrap().status.success());
}
