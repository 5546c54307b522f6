//! What an event of the real program holds, column by column, whichever source has seen it; what the program adds, and what
//! it takes out: hashes of executables, secrets of command lines.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

use daemoneye_lib::entity::EntityId;
use daemoneye_lib::proto::EventType;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::support::{DEADLINE, Procmond, Running, in_memory, is, is_root, of, process, program, sources};

/// A shell that waits, under a command line with a secret; its children get it as their parent's.
fn with_secret() -> Running {
    Running::spawn(Command::new("sh").args(["-c", "cat; :", "--password", "hunter2"]))
}

fn stored(dir: &Path) -> Vec<u8> {
    let mut bytes = Vec::new();
    for entry in std::fs::read_dir(dir).unwrap().map(Result::unwrap) {
        bytes.extend(if entry.file_type().unwrap().is_dir() {
            stored(&entry.path())
        } else {
            std::fs::read(entry.path()).unwrap()
        });
    }
    bytes
}

fn holds(bytes: &[u8], text: &str) -> bool {
    bytes.windows(text.len()).any(|window| window == text.as_bytes())
}

fn is_stored(event: &Value, pid: u32) -> bool {
    event["pid"] == pid && event["command_line"].as_str().is_some_and(|line| line.contains("--password"))
}

#[test]
fn a_secret_is_stored_as_its_token_and_the_executable_gets_its_hash() {
    let dir = tempfile::tempdir().unwrap();
    let mut procmond = Procmond::start(dir.path(), "auto", &[]);
    let shell = with_secret();
    let pid = shell.pid();
    let start = procmond.wait_for("start with its command line", |event| is_stored(event, pid));
    let line = start["command_line"].as_str().unwrap().to_owned();
    let token = line.strip_prefix("sh -c cat; : --password ").unwrap().to_owned();
    assert!(token.starts_with("[redacted:") && token.len() == "[redacted:01234567]".len(), "{line}");
    assert_eq!(start["argc"], 5);

    let hashed = procmond.find("hash", |event| event["pid"] == pid && event["hash_status"] == "ok");
    let sum = Command::new("sha256sum").arg(hashed["executable_path"].as_str().unwrap()).output().unwrap();
    assert_eq!(hashed["executable_hash"], String::from_utf8(sum.stdout).unwrap()[..64]);
    assert_eq!(hashed["hash_algorithm"], "sha256");

    // Another process with the same secret shows the same token.
    let other = with_secret();
    let again = procmond.wait_for("second start", |event| is_stored(event, other.pid()));
    assert_eq!(again["command_line"], line);
    drop(procmond);
    let bytes = stored(dir.path());
    assert!(holds(&bytes, &token) && !holds(&bytes, "hunter2"));
}

#[test]
fn who_turns_both_off_gets_neither() {
    let dir = tempfile::tempdir().unwrap();
    let mut procmond = Procmond::start(dir.path(), "auto", &["--redaction", "off", "--hashing-enabled=false"]);
    let shell = with_secret();
    let start = procmond.wait_for("start with its command line", |event| is_stored(event, shell.pid()));
    assert_eq!(start["command_line"], "sh -c cat; : --password hunter2");
    assert_eq!(start["hash_status"], Value::Null);
    assert!(!dir.path().join("redaction.key").exists());
}

#[test]
fn a_key_that_others_may_read_ends_the_start_with_a_message() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("redaction.key"), [7; 32]).unwrap();
    assert!(Command::new("chmod").arg("644").arg(dir.path().join("redaction.key")).status().unwrap().success());
    let out = program().args(["--standalone", "--data-dir"]).arg(dir.path()).env("HOME", dir.path()).output().unwrap();
    let said = String::from_utf8(out.stderr).unwrap();
    assert_eq!(out.status.code(), Some(72), "{said}");
    assert!(said.contains("redaction.key") && said.contains("chmod 600"), "{said}");
}

const CONTAINER: &str = "3f4e1c0b9a8d7f6e5d4c3b2a190807f6e5d4c3b2a190807f6e5d4c3b2a190807";

/// A branch of the control groups for one test, removed with it.
struct Groups(PathBuf);

impl Groups {
    /// `None` where no unified hierarchy stands that we may write to.
    fn of(source: &str) -> Option<Self> {
        let mounts = std::fs::read_to_string("/proc/self/mounts").unwrap();
        let mount = mounts.lines().find(|line| line.split(' ').nth(2) == Some("cgroup2"))?;
        let name = format!("daemoneye-{source}-{}.slice", std::process::id());
        let top = Path::new(mount.split(' ').nth(1)?).join(name);
        std::fs::create_dir(&top).is_ok().then_some(Self(top))
    }

    /// The path from the root of the hierarchy.
    fn name(&self) -> String {
        format!("/{}", self.0.file_name().unwrap().to_str().unwrap())
    }
}

impl Drop for Groups {
    fn drop(&mut self) {
        let end = Instant::now() + DEADLINE;
        // A group is busy for a moment after its last process was reaped.
        while self.0.exists() && Instant::now() < end {
            for group in std::fs::read_dir(&self.0).into_iter().flatten().map_while(Result::ok) {
                std::fs::remove_dir(group.path()).ok();
            }
            std::fs::remove_dir(&self.0).ok();
            std::thread::yield_now();
        }
    }
}

/// What is known of a process by other means than ours.
struct Truth {
    dir: String,
    group: Option<String>,
    pid: u64,
    source: &'static str,
}

impl Truth {
    fn link(&self, name: &str) -> String {
        real_link(&format!("/proc/{}/{name}", self.pid))
    }

    fn stat(&self, field: usize) -> u64 {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.pid)).unwrap();
        stat.rsplit_once(") ").unwrap().1.split(' ').nth(field - 3).unwrap().parse().unwrap()
    }

    /// What every event about it holds.
    fn basics(&self) -> Vec<(&'static str, Value)> {
        let boot_id = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap();
        let entity = EntityId::derive(boot_id.trim(), self.pid.try_into().unwrap(), self.stat(22));
        vec![
            ("entity_id", entity.to_string().into()),
            ("identity", "exact".into()),
            ("ppid", self.stat(4).into()),
            ("session", self.stat(6).into()),
            ("source", self.source.into()),
            ("capture", "complete".into()),
        ]
    }
}

fn real_link(path: &str) -> String {
    std::fs::read_link(path).unwrap().to_str().unwrap().to_owned()
}

fn real(path: &str) -> Value {
    std::fs::canonicalize(path).unwrap().to_str().unwrap().into()
}

type Expected = fn(&Truth) -> Vec<(&'static str, Value)>;

/// Shell scripts that end in a process with `$N` in its command line, and what the event of that process holds.
const CASES: &[(&str, Expected)] = &[
    ("exec sh -c 'read never; :' $N 'two words' '' 'a\nb' ''", |_| {
        vec![("argc", 8.into()), ("arg_lengths", "0x02020d0e09000300".into())]
    }),
    ("cd /bin; exec ./sleep $N", |truth| {
        let given = if truth.source == "ebpf" { "./sleep".into() } else { Value::Null };
        vec![("exec_filename", given), ("executable_path", real("/bin/sleep")), ("name", "sleep".into())]
    }),
    ("mkdir \"$DIR/a b\"; cd \"$DIR/a b\"; exec sleep $N", |truth| vec![("cwd", format!("{}/a b", truth.dir).into())]),
    ("exec setsid sleep $N", |truth| vec![("session", truth.pid.into()), ("tty", Value::Null)]),
    ("exec script -qec 'exec sleep $N' /dev/null", |truth| {
        let terminal = truth.link("fd/0");
        vec![("tty", terminal.strip_prefix("/dev/").unwrap().into()), ("session", truth.pid.into())]
    }),
    ("sh -c 'sh -c \"sleep \\$N; :\"; :'; :", |_| {
        vec![
            ("parent_name", "sh".into()),
            ("parent_executable_path", real("/bin/sh")),
            ("parent_command_line", "sh -c sleep $N; :".into()),
            ("ancestry", "/sh/sh/sh/sleep".into()),
        ]
    }),
    ("cp /bin/sleep \"$DIR/gone\"; exec 3<\"$DIR/gone\"; rm \"$DIR/gone\"; exec /proc/self/fd/3 $N", |truth| {
        let path = format!("{}/gone", truth.dir).into();
        vec![("executable_path", path), ("deleted_executable", true.into()), ("memfd", false.into())]
    }),
    ("exec $MEMORY $N", |_| {
        let path = "/memfd:hidden".into();
        vec![("executable_path", path), ("deleted_executable", false.into()), ("memfd", true.into())]
    }),
    ("exec setpriv --ruid 65534 --euid 65533 --rgid 65532 --egid 65531 --clear-groups sleep $N", |_| {
        vec![("uid", 65534.into()), ("euid", 65533.into()), ("gid", 65532.into()), ("user", "nobody".into())]
    }),
    ("unshare -pf --kill-child sleep $N", |truth| {
        let inode: u64 = truth.link("ns/pid").trim_matches(|c: char| !c.is_ascii_digit()).parse().unwrap();
        vec![("pid_namespace", inode.into()), ("namespace_pid", 1.into())]
    }),
    ("group=$GROUP/ssh.service; mkdir $group; echo $$ > $group/cgroup.procs; exec sleep $N", |truth| {
        let group = format!("{}/ssh.service", truth.group.as_ref().unwrap());
        vec![("cgroup", group.into()), ("container_id", Value::Null)]
    }),
    (IN_CONTAINER, |_| vec![("container_id", CONTAINER.into())]),
];

/// `$ENGINE` stands for the names that the usual engines give to the groups of their containers.
const IN_CONTAINER: &str =
    "group=$GROUP/$ENGINE$CONTAINER.scope; mkdir $group; echo $$ > $group/cgroup.procs; exec sleep $N";
const ENGINES: [&str; 4] = ["docker-", "cri-containerd-", "libpod-", "crio-"];

struct Subject {
    shell: Running,
    word: String,
    script: &'static str,
    expected: Expected,
}

fn subjects(at: usize, dir: &str, memory: &str, groups: Option<&Groups>) -> Vec<Subject> {
    let root = is_root();
    let mut subjects = Vec::new();
    for (script, expected) in CASES {
        let needs_root = ["setpriv", "unshare", "$GROUP"].iter().any(|word| script.contains(word));
        if needs_root && !root || script.contains("$GROUP") && groups.is_none() {
            eprintln!("left out: {script}");
            continue;
        }
        let engines: &[&str] = if *script == IN_CONTAINER { &ENGINES } else { &[""] };
        for engine in engines {
            // A number that sleep takes and that nobody else runs with.
            let word = format!("300.{at}{:02}{:07}", subjects.len(), std::process::id());
            let mut shell = Command::new("sh");
            shell.args(["-c", script]).env("N", &word).env("DIR", dir).env("MEMORY", memory).env("SHELL", "/bin/sh");
            shell.env("ENGINE", engine).env("CONTAINER", CONTAINER);
            shell.env("GROUP", groups.map_or(Path::new(""), |groups| &groups.0));
            // Some say that they were ended, as they are.
            shell.stderr(Stdio::null());
            subjects.push(Subject { shell: Running::spawn(&mut shell), word, script, expected: *expected });
        }
    }
    subjects
}

impl Subject {
    /// The exec of the process itself, not of what came before it under the same words. The connector may read the words
    /// of the next program for one that has gone on to it, and then says that it has not seen all.
    fn is_of(&self, event: &Value) -> bool {
        let before = ["setsid", "script", "unshare", "setpriv"];
        event["start_kind"] == "exec"
            && event["capture"] == "complete"
            && event["command_line"].as_str().is_some_and(|line| line.contains(&self.word))
            && !before.iter().any(|name| event["name"] == *name)
    }
}

#[test]
fn every_column_holds_what_the_process_is() {
    for (at, source) in sources().enumerate() {
        let dir = tempfile::tempdir().unwrap();
        let place = real(dir.path().to_str().unwrap()).as_str().unwrap().to_owned();
        let groups = Groups::of(source);
        let (_memory, memory_path) = in_memory("/bin/sleep");
        let mut procmond = Procmond::ready(&dir.path().join("data"), source, &[]);
        let mut wrong = Vec::new();
        for mut subject in subjects(at, &place, &memory_path, groups.as_ref()) {
            let event = procmond.find(subject.script, |event| subject.is_of(event));
            let group = groups.as_ref().map(Groups::name);
            let truth = Truth { dir: place.clone(), group, pid: event["pid"].as_u64().unwrap(), source };
            for (column, expected) in truth.basics().into_iter().chain((subject.expected)(&truth)) {
                let held = &event[column];
                let tail = column == "ancestry" && held.as_str().unwrap().ends_with(expected.as_str().unwrap());
                if *held != expected && !tail {
                    wrong.push(format!("{}: {column}: {expected} is told as {held}", subject.script));
                }
            }
            kill_process(Pid::from_raw(truth.pid.try_into().unwrap()).unwrap(), Signal::KILL).unwrap();
            subject.shell.0.wait().unwrap();
        }
        assert!(wrong.is_empty(), "{source}: {wrong:#?}");
    }
}

#[test]
fn an_end_has_its_exit_code_or_signal_and_its_runtime() {
    for source in sources() {
        let dir = tempfile::tempdir().unwrap();
        let mut procmond = Procmond::ready(dir.path(), source, &[]);
        // The snapshot cannot tell a code of 0 from one that it may not see.
        let cases = [("read x; exit 7", 7), ("read x; kill -9 $$", -9), ("read x; kill -TERM $$", -15)];
        let mut shells = cases.map(|(script, code)| (Running::shell(script), code));
        for (shell, code) in &mut shells {
            let pid = shell.pid();
            procmond.find("start", |event| is(event, "start", pid) && event["start_kind"] == "exec");
            // Reaped only after its end was told: the snapshot sees the code of one that waits for that.
            shell.tell();
            let stop = procmond.find("stop", |event| is(event, "stop", pid));
            assert_eq!(stop["exit_code"], *code, "{source}: {stop}");
        }
        let (events, _) = procmond.log(dir.path());
        for (shell, _) in &shells {
            let stop = of(&events, EventType::Stop, shell.pid())[0];
            let lived_us = stop.time_us - process(stop).start_time_us.unwrap();
            assert_eq!(stop.runtime_ms, u64::try_from(lived_us / 1000).ok(), "{source}");
        }
    }
}

#[test]
fn a_parent_that_is_gone_is_told_as_it_was() {
    for source in sources() {
        let dir = tempfile::tempdir().unwrap();
        let mut procmond = Procmond::ready(&dir.path().join("data"), source, &[]);
        let gate = dir.path().join("gate");
        let word = format!("300.9{}", std::process::id());
        assert!(Command::new("mkfifo").arg(&gate).status().unwrap().success());
        let script = "(read x < $GATE; exec sleep $N) & read x";
        let mut parent = Running::spawn(Command::new("sh").args(["-c", script]).env("GATE", &gate).env("N", &word));
        let pid = parent.pid();
        let started = procmond.find("start of the parent", |event| {
            is(event, "start", pid) && event["command_line"] == format!("sh -c {script}")
        });
        let copy = procmond.find("birth of the child", |event| {
            event["event_type"] == "start" && event["ppid"] == pid && event["name"] == "sh"
        });
        parent.tell();
        parent.0.wait().unwrap();
        procmond.find("stop of the parent", |event| is(event, "stop", pid));
        std::fs::write(&gate, "\n").unwrap();
        let child = procmond.find("exec of the child", |event| event["command_line"] == format!("sleep {word}"));
        let number = child["pid"].as_i64().unwrap().try_into().unwrap();
        kill_process(Pid::from_raw(number).unwrap(), Signal::KILL).unwrap();
        assert_eq!((&child["entity_id"], &child["parent_entity_id"]), (&copy["entity_id"], &started["entity_id"]));
        assert_eq!((&child["parent_name"], &child["ppid"]), (&"sh".into(), &pid.into()), "{source}");
        assert_eq!(child["parent_command_line"], format!("sh -c {script}"), "{source}");
        assert!(child["ancestry"].as_str().unwrap().ends_with("/sh/sleep"), "{source}: {child}");
    }
}
