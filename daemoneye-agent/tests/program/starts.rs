//! Starts the real program, with the real procmond beside it where one is needed; the whole path is checked by the crate `e2e`.

#![cfg(unix)]
#![expect(clippy::unwrap_used, reason = "a failed step of a test is the failure")]

use std::io::{BufRead as _, BufReader};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant, SystemTime};

use daemoneye_engine::generate::Generator;
use daemoneye_eventbus::{Client, ClientEvent, ClientOptions, Connected, OperatorClient};
use daemoneye_lib::metrics::{METRICS, Sample};
use daemoneye_lib::proto::{
    CollectionCapabilities, CollectorHealth, CollectorResponse, ConfigEntry, ConfigShow, Empty, OperatorRequest,
    QueryRequest, Register, Role, TaskType, collector_response, operator_request, operator_response, value::Kind,
};
use serde_json::Value;

/// How long anything may take; the machine may be busy with other tests.
const PATIENCE: Duration = Duration::from_secs(180);

fn agent() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_daemoneye-agent"));
    command.env_clear().stdin(Stdio::null());
    command
}

fn run_in(dir: &Path, more: &[&str]) -> Command {
    let mut command = agent();
    command.arg("run").arg("--data-dir").arg(dir.join("data")).arg("--runtime-dir").arg(dir.join("run")).args(more);
    command.env("HOME", dir);
    command
}

fn external(dir: &Path) -> Command {
    external_with(dir, &[7; 32], 0o400)
}

fn external_with(dir: &Path, bytes: &[u8], mode: u32) -> Command {
    let token = dir.join("token");
    let _absent = std::fs::remove_file(&token);
    std::fs::write(&token, bytes).unwrap();
    std::fs::set_permissions(&token, PermissionsExt::from_mode(mode)).unwrap();
    run_in(dir, &["--procmond-mode", "external", "--procmond-token-file", token.to_str().unwrap()])
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// A program that is ended when the test is over, in order so that it takes its children along.
struct Running {
    child: Child,
    lines: Receiver<String>,
}

impl Running {
    fn start(mut command: Command) -> Self {
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::inherit()).spawn().unwrap();
        let (sender, lines) = channel();
        let stdout = BufReader::new(child.stdout.take().unwrap());
        std::thread::spawn(move || {
            for line in stdout.lines().map_while(Result::ok) {
                if sender.send(line).is_err() {
                    return;
                }
            }
        });
        Self { child, lines }
    }

    fn wait_for_line(&self, part: &str) -> String {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let line = self.lines.recv_timeout(left).unwrap();
            if line.contains(part) {
                return line;
            }
        }
    }

    fn interrupt(&mut self) -> Option<i32> {
        let pid = nix::unistd::Pid::from_raw(i32::try_from(self.child.id()).unwrap());
        nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGINT).unwrap();
        self.child.wait().unwrap().code()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if matches!(self.child.try_wait(), Ok(None)) {
            self.interrupt();
        }
    }
}

#[test]
fn the_version_is_said() {
    let output = agent().arg("--version").output().unwrap();
    assert_eq!(output.status.code(), Some(0));
    assert!(String::from_utf8_lossy(&output.stdout).contains(env!("CARGO_PKG_VERSION")));
}

#[test]
fn an_unknown_key_is_named_with_the_nearest_and_ends_with_78() {
    let dir = tempfile::tempdir().unwrap();
    let config = dir.path().join("agent.yaml");
    std::fs::write(&config, "store:\n  seal_row: 5\n").unwrap();
    let output = run_in(dir.path(), &["--config", config.to_str().unwrap()]).output().unwrap();
    assert_eq!(output.status.code(), Some(78), "{}", said(&output));
    assert!(said(&output).contains("store.seal_rows"), "{}", said(&output));
}

#[test]
fn a_runtime_directory_too_long_for_a_socket_ends_with_78() {
    let dir = tempfile::tempdir().unwrap();
    let long = dir.path().join("x".repeat(120));
    let output = run_in(dir.path(), &["--runtime-dir", long.to_str().unwrap()]).output().unwrap();
    assert_eq!(output.status.code(), Some(78), "{}", said(&output));
    assert!(said(&output).contains("bytes"), "{}", said(&output));
}

#[test]
fn a_missing_procmond_and_a_missing_rules_directory_are_named() {
    let dir = tempfile::tempdir().unwrap();
    let output = run_in(dir.path(), &["--procmond-path", "/nowhere/procmond"]).output().unwrap();
    assert_eq!(output.status.code(), Some(75), "{}", said(&output));
    assert!(said(&output).contains("/nowhere/procmond"), "{}", said(&output));

    let mut command = external(dir.path());
    let output = command.args(["--rules", "/nowhere/rules"]).output().unwrap();
    assert_eq!(output.status.code(), Some(4), "{}", said(&output));
    assert!(said(&output).contains("/nowhere/rules"), "{}", said(&output));
    assert_eq!(held(dir.path()), ["token"], "nothing was made");
}

/// What lies in a directory.
fn held(dir: &Path) -> Vec<String> {
    let names = std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned());
    names.collect()
}

#[test]
fn a_directory_that_cannot_be_made_is_named_with_its_flag() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("file"), "").unwrap();
    for (flag, odd, why) in [
        ("--data-dir", "/proc/x", "No such file"),
        ("--data-dir", "/dev/null", "there is something else of that name"),
        ("--data-dir", dir.path().join("file/data").to_str().unwrap(), "Not a directory"),
        ("--runtime-dir", "/dev/null", "there is something else of that name"),
    ] {
        let output = external(dir.path()).args([flag, odd]).output().unwrap();
        assert_eq!(output.status.code(), Some(72), "{}", said(&output));
        let told = format!("cannot create the directory {odd}: {why}");
        assert!(said(&output).contains(&told), "{told}: {}", said(&output));
        assert!(said(&output).contains(&format!("choose another {flag}")), "{}", said(&output));
    }
    let mut left = held(dir.path());
    left.sort();
    assert_eq!(left, ["file", "token"], "what was made is taken back");
}

#[test]
fn a_copied_store_that_is_none_is_named_with_its_flag_and_nothing_is_made() {
    let dir = tempfile::tempdir().unwrap();
    for (copy, why) in [("/nowhere", "No such file"), (dir.path().to_str().unwrap(), "neither state.redb nor wal")] {
        let mut command = agent();
        command
            .args(["serve", "--offline", copy, "--runtime-dir"])
            .arg(dir.path().join("run"))
            .env("HOME", dir.path());
        let output = command.output().unwrap();
        assert_eq!(output.status.code(), Some(4), "{}", said(&output));
        assert!(said(&output).contains(&format!("directory {copy}: ")), "{}", said(&output));
        assert!(said(&output).contains(why) && said(&output).contains("another with --offline"), "{}", said(&output));
        assert_eq!(held(dir.path()), Vec::<String>::new());
    }
}

#[test]
fn a_server_rests_as_small_as_a_worker_unless_told_otherwise() {
    let dir = tempfile::tempdir().unwrap();
    let said_of = |variable: &str, value: &str| {
        let mut command = agent();
        command.args(["serve", "--offline", "/nonexistent", "--runtime-dir"]).arg(dir.path().join("run"));
        // The allocator then says what it was told.
        said(&command.env("MIMALLOC_VERBOSE", "1").env(variable, value).output().unwrap())
    };
    let told = said_of("MIMALLOC_PURGE_DELAY", "20");
    assert!(told.contains("'arena_eager_commit': 0") && told.contains("'purge_delay': 20"), "{told}");
    let told = said_of("MIMALLOC_ARENA_EAGER_COMMIT", "1");
    assert!(told.contains("'arena_eager_commit': 1") && !told.contains("'arena_eager_commit': 0"), "{told}");
}

#[test]
fn a_transient_server_ends_with_its_input_also_while_it_opens_the_copy() {
    let dir = tempfile::tempdir().unwrap();
    let log = dir.path().join("copy/wal/procmond-00001.wal");
    std::fs::create_dir_all(log.parent().unwrap()).unwrap();
    // Opening it waits for a writer that never comes, as for a disk that does not answer.
    nix::unistd::mkfifo(&log, nix::sys::stat::Mode::S_IRWXU).unwrap();
    let mut command = agent();
    command.args(["serve", "--transient", "--offline"]).arg(dir.path().join("copy"));
    command.arg("--runtime-dir").arg(dir.path().join("run")).env("HOME", dir.path());
    let mut child = command.spawn().unwrap();
    let (pid, (ending, ended)) = (nix::unistd::Pid::from_raw(child.id().cast_signed()), std::sync::mpsc::channel());
    std::thread::spawn(move || ending.send(child.wait()));
    let ended = ended.recv_timeout(PATIENCE);
    // One that goes on would go on for ever.
    let _gone = nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGKILL);
    assert_eq!(ended.unwrap().unwrap().code(), Some(0));
    assert!(!dir.path().join("run").exists());
}

#[test]
fn a_token_file_of_another_length_or_open_to_everybody_ends_with_78() {
    let dir = tempfile::tempdir().unwrap();
    for (bytes, mode, named) in [
        (&[][..], 0o400, "0 bytes"),
        (&[7; 10][..], 0o400, "10 bytes"),
        (&[7; 33][..], 0o400, "33 bytes"),
        (&[7; 32][..], 0o644, "mode 0644"),
    ] {
        let output = external_with(dir.path(), bytes, mode).output().unwrap();
        assert_eq!(output.status.code(), Some(78), "{}", said(&output));
        assert!(said(&output).contains(named) && said(&output).contains("32 random bytes"), "{}", said(&output));
    }
    let mut command = external(dir.path());
    std::fs::remove_file(dir.path().join("token")).unwrap();
    let output = command.output().unwrap();
    assert_eq!(output.status.code(), Some(78), "{}", said(&output));
}

#[test]
fn a_variable_that_procmond_does_not_know_is_told_by_procmond() {
    let dir = tempfile::tempdir().unwrap();
    let mut command = run_in(dir.path(), &[]);
    let output = command.env("PROCMOND_WAL__SINC", "never").output().unwrap();
    assert_eq!(output.status.code(), Some(75), "{}", said(&output));
    assert!(said(&output).contains("did you mean PROCMOND_WAL__SYNC"), "{}", said(&output));
}

#[test]
fn a_second_agent_on_the_same_data_ends_with_70_and_the_first_goes_on() {
    let dir = tempfile::tempdir().unwrap();
    let mut first = Running::start(external(dir.path()));
    first.wait_for_line("stop");
    let other = tempfile::tempdir().unwrap();
    let token = dir.path().join("token");
    for (data, runtime) in [(dir.path(), other.path()), (other.path(), dir.path())] {
        let mut second = agent();
        second.arg("run").arg("--data-dir").arg(data.join("data")).arg("--runtime-dir").arg(runtime.join("run"));
        second.args(["--procmond-mode", "external", "--procmond-token-file"]).arg(&token).env("HOME", other.path());
        let output = second.output().unwrap();
        assert_eq!(output.status.code(), Some(70), "{}", said(&output));
        assert_eq!(held(other.path()), Vec::<String>::new(), "nothing stays of it");
    }
    assert!(first.child.try_wait().unwrap().is_none(), "the first one still runs");
    assert_eq!(first.interrupt(), Some(0));
}

/// Names that the kernel gives processes are numbers of a pid namespace; those outside have none in it.
#[test]
fn an_agent_in_a_pid_namespace_of_its_own_serves_operators_outside_it() {
    let dir = tempfile::tempdir().unwrap();
    let inside = ["--pid", "--fork", "--kill-child", "--mount-proc"];
    if !Command::new("unshare").args(inside).arg("true").status().is_ok_and(|status| status.success()) {
        return println!("skipped: this user may not make a pid namespace");
    }
    let agent = run_in(dir.path(), &["--log-level", "warn", "--procmond-source", "procfs"]);
    let mut command = Command::new("unshare");
    command.args(inside).arg(agent.get_program()).args(agent.get_args()).env_clear().env("HOME", dir.path());
    command.env("PATH", "/usr/bin:/bin").stdin(Stdio::null());
    let agent = Inside(Running::start(command));
    agent.0.wait_for_line("source   procmond: ");
    let socket = dir.path().join("run/cli.sock");
    let document = runtime().block_on(health(&socket));
    assert_eq!(document.pointer("/collectors/0/connected"), Some(&Value::Bool(true)), "{document}");
    // The session of everything in there began outside, so its number is 0.
    let sql = "SELECT session FROM processes WHERE name = 'procmond'";
    assert_eq!(runtime().block_on(first_value(&socket, sql)), Kind::Integer(0));
}

/// The first process of a pid namespace: killed, it takes all of it along.
struct Inside(Running);

impl Drop for Inside {
    fn drop(&mut self) {
        self.0.child.kill().unwrap();
        self.0.child.wait().unwrap();
    }
}

#[test]
fn nobody_registering_in_time_ends_with_73() {
    let dir = tempfile::tempdir().unwrap();
    let mut command = external(dir.path());
    let output = command.args(["--procmond-registration-timeout-ms", "300"]).output().unwrap();
    assert_eq!(output.status.code(), Some(73), "{}", said(&output));
}

#[test]
fn procmond_registers_and_everything_stops_with_0() {
    let procmond = Path::new(env!("CARGO_BIN_EXE_daemoneye-agent")).with_file_name("procmond");
    assert!(procmond.exists(), "{} is missing: cargo build -p procmond", procmond.display());
    let dir = tempfile::tempdir().unwrap();
    let mut command = run_in(dir.path(), &["--log-level", "warn", "--procmond-source", "procfs"]);
    // Left by an agent that was killed: a procmond that it had just started may hold it.
    let token = dir.path().join("run/procmond.token");
    std::fs::create_dir(dir.path().join("run")).unwrap();
    std::fs::write(&token, [9; 32]).unwrap();
    std::fs::set_permissions(&token, PermissionsExt::from_mode(0o400)).unwrap();
    let mut agent = Running::start({
        command.env("PROCMOND_WAL__SYNC", "never");
        command
    });
    let source = agent.wait_for_line("source   procmond: ");
    assert_eq!(std::fs::read(&token).unwrap(), [9; 32]);
    assert_eq!(source.matches("procfs").count(), 1, "{source}");
    let shown = runtime().block_on(settings(&dir.path().join("run/cli.sock")));
    let of_procmond = |key: &str| {
        let entry = shown.iter().find(|entry| entry.component == "procmond" && entry.key == key).unwrap();
        (entry.value.as_str(), entry.origin.as_str())
    };
    assert_eq!(of_procmond("wal.sync"), ("never", "PROCMOND_WAL__SYNC"));
    assert_eq!(of_procmond("source").0, "procfs");
    assert_eq!(agent.interrupt(), Some(0));
    let lock = std::fs::File::open(dir.path().join("data/wal/lock")).unwrap();
    lock.try_lock().unwrap();
    assert!(!token.exists(), "nobody is left who could use it");
}

/// Registers as procmond and answers every request with health, until the test ends; returns once it is registered.
async fn play_procmond(bus: &Path) -> Client {
    play_with(bus, &[]).await
}

/// As [`play_procmond`], announcing these tasks.
async fn play_with(bus: &Path, tasks: &[TaskType]) -> Client {
    let tasks = tasks.iter().map(|task| i32::from(*task)).collect();
    play_that(bus, CollectionCapabilities { tasks, ..CollectionCapabilities::default() }).await
}

/// As [`play_procmond`], announcing this.
async fn play_that(bus: &Path, capabilities: CollectionCapabilities) -> Client {
    play(bus, capabilities).await.0
}

/// As [`play_that`], with the connection that events are sent over.
async fn play(bus: &Path, capabilities: CollectionCapabilities) -> (Client, Connected) {
    let mut options = ClientOptions::new(bus.to_owned(), "procmond", Role::Collector, vec![7; 32]);
    let pid = std::process::id();
    let capabilities = Some(capabilities);
    let collector_type = "process".into();
    let register =
        Register { collector_id: "procmond".into(), collector_type, pid, capabilities, ..Register::default() };
    options.register = Some(Arc::new(move || register.clone()));
    let (client, mut events) = Client::start(options).unwrap();
    let first = tokio::time::timeout(PATIENCE, async {
        loop {
            if let ClientEvent::Connected(connected) = events.recv().await.unwrap() {
                return connected;
            }
        }
    });
    let connected = first.await.unwrap();
    tokio::spawn(async move {
        while let Some(event) = events.recv().await {
            let ClientEvent::Call(call) = event else { continue };
            let health = CollectorHealth { cycles: 3, ..CollectorHealth::default() };
            let answer = collector_response::Answer::Health(health);
            let _answered = call.responder.done(CollectorResponse { answer: Some(answer) }).await;
        }
    });
    (client, connected)
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
}

async fn settings(socket: &Path) -> Vec<ConfigEntry> {
    let client = OperatorClient::connect(socket, "test").await.unwrap();
    let verb = operator_request::Verb::ConfigShow(ConfigShow {});
    let mut answers = client.request(OperatorRequest { verb: Some(verb) }, None).await.unwrap();
    match answers.next().await.unwrap().unwrap().answer {
        Some(operator_response::Answer::Config(shown)) => shown.entries,
        _ => Vec::new(),
    }
}

/// Waits until there is a row; returns its first value.
async fn first_value(socket: &Path, sql: &str) -> Kind {
    let client = OperatorClient::connect(socket, "test").await.unwrap();
    let deadline = Instant::now() + PATIENCE;
    loop {
        let query = QueryRequest { sql: sql.to_owned(), ..QueryRequest::default() };
        let verb = operator_request::Verb::Query(query);
        let mut answers = client.request(OperatorRequest { verb: Some(verb) }, None).await.unwrap();
        while let Some(answer) = answers.next().await.unwrap() {
            if let Some(operator_response::Answer::Page(page)) = answer.answer
                && let Some(value) = page.rows.first().and_then(|row| row.values.first())
            {
                return value.kind.clone().unwrap();
            }
        }
        assert!(Instant::now() < deadline, "no row: {sql}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

async fn health(socket: &Path) -> Value {
    let client = OperatorClient::connect(socket, "test").await.unwrap();
    let verb = operator_request::Verb::Health(Empty {});
    let mut answers = client.request(OperatorRequest { verb: Some(verb) }, None).await.unwrap();
    let shown = match answers.next().await.unwrap().unwrap().answer {
        Some(operator_response::Answer::Health(shown)) => shown.json,
        _ => String::new(),
    };
    serde_json::from_str(&shown).unwrap()
}

/// Waits until the health document passes; returns it.
async fn health_that(socket: &Path, passes: impl Fn(&Value) -> bool) -> Value {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let document = health(socket).await;
        if passes(&document) {
            return document;
        }
        assert!(Instant::now() < deadline, "{document}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// The worker's pid, while it answers.
async fn worker_pid(socket: &Path) -> u64 {
    let of_worker = |document: &Value| {
        let parts = document.pointer("/components")?.as_array()?;
        parts.iter().find(|part| part["name"] == "worker")?.get("pid")?.as_u64()
    };
    of_worker(&health_that(socket, |document| of_worker(document).is_some()).await).unwrap()
}

/// An upgrade puts another file in the place of a program that runs, and a removal none.
#[tokio::test(flavor = "multi_thread")]
async fn a_worker_is_started_again_when_the_program_was_replaced_or_removed() {
    if !Path::new("/proc/self/exe").exists() {
        return println!("skipped: this system has no link to the program that runs");
    }
    let dir = tempfile::tempdir().unwrap();
    let program = dir.path().join("daemoneye-agent");
    // By another process: one of ours that is started meanwhile would hold the copy open for writing.
    assert!(Command::new("cp").arg(env!("CARGO_BIN_EXE_daemoneye-agent")).arg(&program).status().unwrap().success());
    let mut command = Command::new(&program);
    command.args(external(dir.path()).get_args()).env_clear().env("HOME", dir.path()).stdin(Stdio::null());
    let mut agent = Running::start(command);
    let socket = dir.path().join("run/cli.sock");
    agent.wait_for_line("stop");
    let mut pid = worker_pid(&socket).await;
    for replaced in [true, false] {
        if replaced {
            std::fs::write(dir.path().join("next"), "another version").unwrap();
            std::fs::rename(dir.path().join("next"), &program).unwrap();
        } else {
            std::fs::remove_file(&program).unwrap();
        }
        let worker = nix::unistd::Pid::from_raw(i32::try_from(pid).unwrap());
        nix::sys::signal::kill(worker, nix::sys::signal::Signal::SIGKILL).unwrap();
        agent.wait_for_line("stop");
        let next = worker_pid(&socket).await;
        assert_ne!(next, pid);
        assert_eq!(std::fs::read_to_string(format!("/proc/{next}/comm")).unwrap(), "daemoneye-agent\n");
        pid = next;
    }
    assert_eq!(agent.interrupt(), Some(0));
}

/// What the health document says about procmond's process.
fn procmond_process<'a>(document: &'a Value, key: &str) -> &'a Value {
    let parts = document.pointer("/components").unwrap().as_array().unwrap();
    parts.iter().find(|part| part["name"] == "procmond").map_or(&Value::Null, |part| &part[key])
}

#[tokio::test(flavor = "multi_thread")]
async fn a_procmond_that_cannot_be_started_is_tried_again() {
    let dir = tempfile::tempdir().unwrap();
    let (path, aside) = (dir.path().join("procmond"), dir.path().join("aside"));
    let procmond = Path::new(env!("CARGO_BIN_EXE_daemoneye-agent")).with_file_name("procmond");
    assert!(Command::new("cp").arg(&procmond).arg(&path).status().unwrap().success());
    let given = ["--log-level", "error", "--procmond-source", "procfs", "--procmond-path", path.to_str().unwrap()];
    let mut agent = Running::start(run_in(dir.path(), &given));
    agent.wait_for_line("source   procmond: ");
    let socket = dir.path().join("run/cli.sock");
    let runs = |document: &Value| procmond_process(document, "state") == "running";
    let first = procmond_process(&health_that(&socket, runs).await, "pid").as_u64().unwrap();
    std::fs::rename(&path, &aside).unwrap();
    let pid = nix::unistd::Pid::from_raw(i32::try_from(first).unwrap());
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGKILL).unwrap();
    let why = |document: &Value| procmond_process(document, "last_exit").as_str().unwrap_or_default().to_owned();
    let refused = |document: &Value| why(document).contains("cannot start procmond");
    let told = why(&health_that(&socket, refused).await);
    assert!(told.contains(path.to_str().unwrap()), "{told}");
    std::fs::rename(&aside, &path).unwrap();
    let second = health_that(&socket, runs).await;
    assert_ne!(procmond_process(&second, "pid").as_u64(), Some(first));
    assert_eq!(agent.interrupt(), Some(0));
}

/// The gaps of one reason in the health document, the newest first.
fn gaps<'a>(document: &'a Value, reason: &str) -> Vec<&'a Value> {
    let latest = document.pointer("/coverage/latest").unwrap().as_array().unwrap();
    latest.iter().filter(|gap| gap["reason"] == reason).collect()
}

/// Whether a query about all time says that a collector is missing.
async fn is_unavailable(socket: &Path) -> bool {
    let client = OperatorClient::connect(socket, "test").await.unwrap();
    let query = QueryRequest { sql: "SELECT pid FROM process_events".to_owned(), ..QueryRequest::default() };
    let verb = operator_request::Verb::Query(query);
    let mut answers = client.request(OperatorRequest { verb: Some(verb) }, None).await.unwrap();
    loop {
        match answers.next().await.unwrap().unwrap().answer {
            Some(operator_response::Answer::QueryDone(done)) => {
                let degraded = done.completeness.unwrap_or_default().degraded;
                return degraded.iter().any(|reason| reason == "collector_unavailable");
            }
            _ => continue,
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_outage_is_in_answers_at_once_and_in_coverage_while_it_lasts() {
    let dir = tempfile::tempdir().unwrap();
    let agent = Running::start(external(dir.path()));
    agent.wait_for_line("stop");
    let socket = dir.path().join("run/cli.sock");
    assert!(is_unavailable(&socket).await, "nobody has registered");
    let ongoing = health_that(&socket, |document| !gaps(document, "collector_unavailable").is_empty()).await;
    assert_eq!(ongoing.get("healthy"), Some(&Value::Bool(false)));
    let first = gaps(&ongoing, "collector_unavailable").first().unwrap().get("from_us").cloned();

    let client = play_procmond(&dir.path().join("run/bus.sock")).await;
    health_that(&socket, |document| document.pointer("/collectors/0/connected") == Some(&Value::Bool(true))).await;
    client.shutdown().await;
    let two = |document: &Value| gaps(document, "collector_unavailable").len() == 2;
    let again = health_that(&socket, two).await;
    let [second, before] = gaps(&again, "collector_unavailable").try_into().unwrap();
    assert_eq!(before.get("from_us").cloned(), first);
    assert!(second.get("from_us").unwrap().as_i64() > before.get("to_us").unwrap().as_i64(), "{again}");
    assert!(is_unavailable(&socket).await, "it has left");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_first_alerts_of_a_stream_rule_after_an_outage_say_that_nobody_collected_and_later_ones_do_not() {
    let dir = tempfile::tempdir().unwrap();
    let rules = dir.path().join("rules");
    std::fs::create_dir(&rules).unwrap();
    let rule = "id: 5b0f7c1e-2a54-4b0e-9a51-0c8c5f3f7a02\nname: starts\nseverity: low\ndedup: [pid]\n\
                sql: SELECT pid FROM process_events WHERE event_type = 'start'\n";
    std::fs::write(rules.join("starts.yaml"), rule).unwrap();
    let mut command = external(dir.path());
    command.arg("--rules").arg(&rules);
    let agent = Running::start(command);
    agent.wait_for_line("stop");
    let socket = dir.path().join("run/cli.sock");
    health_that(&socket, |document| !gaps(document, "collector_unavailable").is_empty()).await;

    let (_client, connected) = play(&dir.path().join("run/bus.sock"), CollectionCapabilities::default()).await;
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap();
    let mut events = Generator::new(1, i64::try_from(now.as_micros()).unwrap());
    connected.stream.send_run(events.records(1)).await.unwrap();
    let degraded = "SELECT id FROM alerts WHERE completeness LIKE '%collector_unavailable%'";
    first_value(&socket, degraded).await;
    // Until the collector has answered that nothing is left to repeat, its events may be of the time before.
    let deadline = Instant::now() + PATIENCE;
    let complete = "SELECT count(*) FROM alerts WHERE completeness = 'complete'";
    while first_value(&socket, complete).await == Kind::Integer(0) {
        assert!(Instant::now() < deadline, "{}", health(&socket).await);
        connected.stream.send_run(events.records(1)).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_collector_that_fails_its_conformance_vectors_is_not_told_what_rules_need_and_health_says_so() {
    let dir = tempfile::tempdir().unwrap();
    let agent = Running::start(external(dir.path()));
    agent.wait_for_line("stop");
    let _procmond = play_with(&dir.path().join("run/bus.sock"), &[TaskType::SelectColumns]).await;
    let refused = |document: &Value| document.pointer("/collectors/0/pushdown/refused").is_some();
    let told = health_that(&dir.path().join("run/cli.sock"), refused).await;
    let findings = told.get("findings").unwrap().to_string();
    assert!(findings.contains("procmond failed its conformance vectors: it answers something else"), "{findings}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_collector_that_comes_back_with_other_columns_changes_what_its_rules_can_see() {
    let dir = tempfile::tempdir().unwrap();
    let rules = dir.path().join("rules");
    std::fs::create_dir(&rules).unwrap();
    let rule = "id: 3d9f2c1e-7a54-4b0e-9a51-0c8c5f3f7a01\nname: by product\nseverity: low\n\
                sql: SELECT pid FROM process_events WHERE product = 'x'\n";
    std::fs::write(rules.join("rule.yaml"), rule).unwrap();
    let mut command = external(dir.path());
    command.arg("--rules").arg(&rules);
    let agent = Running::start(command);
    agent.wait_for_line("stop");
    let (bus, socket) = (dir.path().join("run/bus.sock"), dir.path().join("run/cli.sock"));
    let play = async |missing: &[&str]| {
        let missing_columns = missing.iter().map(ToString::to_string).collect();
        play_that(&bus, CollectionCapabilities { missing_columns, ..CollectionCapabilities::default() }).await
    };
    let is_blind = async |blind: bool| {
        let words = "no collector fills product";
        let told = move |document: &Value| {
            document.pointer("/collectors/0/connected") == Some(&Value::Bool(true))
                && document["findings"].to_string().contains(words) == blind
        };
        health_that(&socket, told).await
    };
    for (missing, blind) in [(["product"].as_slice(), true), (&[], false), (&["product", "company"], true)] {
        let client = play(missing).await;
        is_blind(blind).await;
        client.shutdown().await;
        health_that(&socket, |document| document.pointer("/collectors/0/connected") == Some(&Value::Bool(false)))
            .await;
    }
}

/// The place of every number below `value`, elements of lists as `*`.
fn numbers(at: &str, value: &Value, places: &mut Vec<String>) {
    match value {
        Value::Number(_) => places.push(at.to_owned()),
        Value::Array(elements) => elements.iter().for_each(|element| numbers(&format!("{at}/*"), element, places)),
        Value::Object(members) => {
            members.iter().for_each(|(name, member)| numbers(&format!("{at}/{name}"), member, places))
        }
        _ => {}
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_metric_stands_in_the_health_document_and_every_number_there_is_a_metric() {
    let dir = tempfile::tempdir().unwrap();
    let agent = Running::start(external(dir.path()));
    agent.wait_for_line("stop");
    let _procmond = play_procmond(&dir.path().join("run/bus.sock")).await;
    // The bus knows a collector before the agent has asked it how it is.
    let has_answered = |document: &Value| document.pointer("/collectors/0/cycles") == Some(&3.into());
    let document = health_that(&dir.path().join("run/cli.sock"), has_answered).await;
    for metric in METRICS {
        let samples = metric.read(&document);
        assert!(
            samples.is_some_and(|samples| !samples.is_empty()),
            "{}: no {} in {document}",
            metric.name,
            metric.pointer
        );
    }
    let cycles = METRICS.iter().find(|metric| metric.name == "daemoneye_collector_cycles_total").unwrap();
    let told = Sample { of: Some("procmond".into()), value: Some(3.0) };
    assert_eq!(cycles.read(&document), Some(vec![told]));

    let mut places = Vec::new();
    numbers("", &document, &mut places);
    // Points in time and process ids are no measurements; a gap's numbers stand in the table `coverage`.
    let none = |place: &str| {
        place.ends_with("/pid")
            || place.ends_with("_us")
            || place.ends_with("/last_exit_ms")
            || place.starts_with("/coverage/latest/")
    };
    for place in places.iter().filter(|place| !none(place)) {
        assert!(METRICS.iter().any(|metric| metric.pointer == place), "{place} of the health document has no metric");
    }
}
