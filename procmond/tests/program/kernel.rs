//! The real program beside the kernel's announcements, from the event to the log. Needs root; skipped otherwise.

use std::collections::HashSet;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use daemoneye_lib::proto::{EventType, ProcessEvent, StartKind};
use serde_json::Value;

use crate::support::{
    DEADLINE, Procmond, Running, assert_told_once, copy, has, in_memory, is, is_root, kernel_sources, of, process,
    sources,
};

const SHORT: usize = 300;

/// Processes that live at once.
const BOMB: usize = 2000;

/// Of an unoptimised build; two thousand processes are a few MiB of it.
const PEAK_KIB: u64 = 64 * 1024;

fn run(program: &str, arguments: &[&str]) -> (u32, Option<i32>) {
    let mut child = Command::new(program).args(arguments).stdin(Stdio::null()).spawn().unwrap();
    (child.id(), child.wait().unwrap().code())
}

/// How often a storm is made anew because the kernel lost some of it.
const STORMS: usize = 3;

/// All events of a run beside `storm`, and what that returned. A machine that is held up may lose announcements in the kernel, which
/// are counted: then it is tried again.
fn whole<T>(source: &str, mut storm: impl FnMut(&mut Procmond) -> T) -> (Vec<ProcessEvent>, T) {
    let mut runs = (0..STORMS).filter_map(|_| {
        let dir = tempfile::tempdir().unwrap();
        // Scans all the time, so that they meet what is announced.
        let mut procmond = Procmond::ready(dir.path(), source, &[]);
        let made = storm(&mut procmond);
        procmond.whole_log(dir.path()).map(|events| (events, made))
    });
    runs.next().unwrap_or_else(|| panic!("{source}: something was lost each time"))
}

#[test]
fn each_short_process_has_one_exec_and_one_end_with_its_exit_code() {
    for source in kernel_sources() {
        let (events, (short, failed, twice)) = whole(source, |procmond| {
            let short: Vec<u32> = (0..SHORT).map(|at| run("/bin/true", &[&format!("arg{at}")]).0).collect();
            let (failed, _) = run("/bin/sh", &["-c", "exit 7"]);
            let (twice, _) = run("/bin/sh", &["-c", "exec /bin/sleep 0.01"]);
            procmond.wait_for("last stop", |event| is(event, "stop", twice));
            (short, failed, twice)
        });

        for (at, pid) in short.iter().enumerate() {
            let starts = of(&events, EventType::Start, *pid);
            let (forks, execs): (Vec<_>, Vec<_>) =
                starts.iter().partition(|event| event.start_kind() == StartKind::Fork);
            assert_eq!((forks.len(), execs.len()), (1, 1), "{source}: {starts:#?}");
            let stops = of(&events, EventType::Stop, *pid);
            assert_eq!(stops.len(), 1, "{source}: {stops:#?}");
            let ids: HashSet<_> = starts.iter().chain(&stops).map(|event| &process(event).entity_id).collect();
            assert_eq!(ids.len(), 1, "{source}: one entity");
            assert_eq!((stops[0].exit_code, stops[0].end_observed), (Some(0), Some(true)), "{source}");
            assert_eq!(process(execs[0]).parent_name, process(forks[0]).parent_name);
            if source == "ebpf" {
                assert_eq!(process(execs[0]).command_line.as_deref(), Some(format!("/bin/true arg{at}").as_str()));
            }
            assert_eq!(execs[0].source, source);
        }
        assert_eq!(of(&events, EventType::Stop, failed)[0].exit_code, Some(7), "{source}");
        let images: Vec<_> = of(&events, EventType::Start, twice)
            .into_iter()
            .filter(|event| event.start_kind() == StartKind::Exec)
            .map(|event| (process(event).name.as_str(), &process(event).entity_id))
            .collect();
        let [(sh, first), (sleep, second)] = images[..] else { panic!("{source}: {images:?}") };
        // The connector reads the name after the event and may come too late for it.
        assert!(source != "ebpf" || (sh, sleep) == ("sh", "sleep"), "{source}: {images:?}");
        assert_eq!(first, second, "{source}: an exec keeps the entity");
    }
}

#[test]
fn threads_are_no_processes_and_nobody_is_told_twice() {
    for source in kernel_sources() {
        let (events, threads) = whole(source, |procmond| {
            let id = || rustix::thread::gettid().as_raw_nonzero().get().unsigned_abs();
            let threads: HashSet<u32> = (0..50).map(|_| std::thread::spawn(id).join().unwrap()).collect();
            let (last, _) = run("/bin/true", &[]);
            procmond.wait_for("last stop", |event| is(event, "stop", last));
            threads
        });
        let told = events.iter().find(|event| threads.contains(&process(event).pid));
        assert_eq!(told, None, "{source}: a thread was told");
    }
}

#[test]
fn a_debugger_a_program_in_memory_and_a_stolen_name_are_suspicious() {
    for source in sources() {
        let dir = tempfile::tempdir().unwrap();
        let mut procmond = Procmond::ready(&dir.path().join("data"), source, &[]);
        let mut told = |pid: u32, reason: &str, severity: &str| {
            let event = procmond.wait_for(reason, |event| is(event, "suspicious", pid));
            assert_eq!(
                (&event["reason"], &event["severity"]),
                (&reason.into(), &severity.into()),
                "{source}: {event}"
            );
        };

        let program = dir.path().join("gone");
        copy("/bin/sleep", &program);
        let gone = Running::of(&program);
        std::fs::remove_file(&program).unwrap();
        told(gone.pid(), "executable_deleted", "medium");

        let named = Running::shell("printf kworker/7:7 > /proc/$$/comm; read never");
        told(named.pid(), "kernel_thread_name", "high");

        // What was given to exec is known from the kernel alone.
        if source == "ebpf" {
            let posing = Running::spawn(Command::new("sleep").arg0("/usr/sbin/sshd").arg("300"));
            told(posing.pid(), "name_unlike_executable", "low");
        }

        let (_memory, path) = in_memory("/bin/sleep");
        let hidden = Running::of(&path);
        told(hidden.pid(), "memfd_executable", "high");

        // A program under its debugger from the start on, and one that it has attached to; both sleep most of the time.
        if is_root() && has("strace") {
            let victim = Running::of("sleep");
            let attach = |command: &mut Command| Running::spawn(command.args(["-qq", "-o", "/dev/null"]));
            let _debugger = attach(Command::new("strace").args(["-p", &victim.pid().to_string()]));
            told(victim.pid(), "ptrace_attached", "medium");
        }
    }
}

/// procmond does so itself when it starts, and the baseline of another one may meet it in between.
#[test]
fn who_was_there_before_and_executes_itself_starts_at_the_look_and_once_more_at_the_exec() {
    for source in kernel_sources() {
        let dir = tempfile::tempdir().unwrap();
        let (data, script) = (dir.path().join("data"), dir.path().join("again.sh"));
        std::fs::write(&script, "read go\n[ \"$AGAIN\" ] && read never\nexport AGAIN=1\nexec sh \"$0\"\n").unwrap();
        let mut again = Running::spawn(Command::new("sh").arg(&script));
        let mut procmond = Procmond::ready(&data, source, &[]);
        again.tell();
        procmond.find("its exec", |event| is(event, "start", again.pid()) && event["start_kind"] == "exec");
        again.end();
        procmond.find("its end", |event| is(event, "stop", again.pid()));
        let (events, _) = procmond.log(&data);
        let starts = of(&events, EventType::Start, again.pid());
        let [look, exec] = starts[..] else { panic!("{source}: {starts:#?}") };
        assert_eq!((look.start_kind(), exec.start_kind()), (StartKind::Baseline, StartKind::Exec), "{source}");
        assert_eq!(process(look).command_line, process(exec).command_line, "{source}: they look alike");
        assert!(look.time_us < exec.time_us && exec.source == source, "{source}: {starts:#?}");
    }
}

/// How long one deletion is waited for; it is told within a second.
const TRY: Duration = Duration::from_secs(5);

/// Starts one fresh program after the other until the deletion of one is told, of a process that `wanted` accepts. There is one
/// look at each: a machine that holds up the deletion until then, or the look for as long as the process lives, has it missed.
fn is_told(
    procmond: &mut Procmond,
    place: &Path,
    start: impl Fn(&str) -> Running,
    wanted: impl Fn(&Running, &Value) -> bool,
) {
    let begun = Instant::now();
    for number in 0.. {
        let program = format!("{}{number}", place.display());
        let running = start(&program);
        let told = procmond.find_within(TRY, |event| {
            event["event_type"] == "suspicious"
                && event["executable_path"] == program
                && wanted(&running, &event["pid"])
        });
        if let Some(event) = told {
            assert_eq!(event.get("reason").and_then(Value::as_str), Some("executable_deleted"), "{event}");
            return;
        }
        assert!(begun.elapsed() < DEADLINE, "{program} is as little told as the ones before it");
        println!("{program} was missed");
    }
}

#[test]
fn an_executable_that_goes_right_after_its_start_is_found_without_a_snapshot() {
    for source in kernel_sources() {
        let dir = tempfile::tempdir().unwrap();
        let hour = ["--snapshot-interval-ms", "3600000"];
        let mut procmond = Procmond::ready(&dir.path().join("data"), source, &hour);
        let place = |name: &str| dir.path().join(name);

        // By its parent as soon as it runs (not before: then nothing would start), and the program stays.
        let dropper = |program: &str| {
            let runs = format!("until [ /proc/$!/exe -ef {program} ]; do :; done");
            Running::shell(&format!("cp /bin/sleep {program}; {program} 5 & {runs}; rm {program}; wait"))
        };
        is_told(&mut procmond, &place("dropped"), dropper, |_, _| true);

        let own = |then: &str| {
            let script = format!("rm \"$0\"; {then}; :");
            move |program: &str| {
                copy("/bin/sh", Path::new(program));
                Running::spawn(Command::new(program).args(["-c", &script, program]))
            }
        };
        // By itself as its first act, and it is gone after a second.
        is_told(&mut procmond, &place("brief"), own("sleep 1"), |brief, pid| *pid == brief.pid());
        // By itself, and it goes on as a child that executes nothing.
        is_told(&mut procmond, &place("daemon"), own("(sleep 5; :) & exit"), |parent, pid| *pid != parent.pid());
    }
}

#[test]
fn a_thread_that_executes_a_program_keeps_the_entity_and_ends_nothing() {
    for source in sources().filter(|_| has("python3")) {
        let dir = tempfile::tempdir().unwrap();
        let mut procmond = Procmond::ready(dir.path(), source, &[]);
        let word = format!("300.8{}", std::process::id());
        let script = "import os, sys, threading
sys.stdin.readline()
threading.Thread(target=os.execv, args=('/bin/sleep', ['sleep', sys.argv[1]])).start()
threading.Event().wait()";
        let mut python = Running::spawn(Command::new("python3").args(["-c", script, &word]));
        let pid = python.pid();
        let is_python = |event: &Value| event["name"].as_str().is_some_and(|name| name.starts_with("python"));
        let before = procmond.find("start", |event| is(event, "start", pid) && is_python(event));
        python.tell();
        let after = procmond.find("exec", |event| event["command_line"] == format!("sleep {word}"));
        assert_eq!((&after["entity_id"], &after["pid"]), (&before["entity_id"], &pid.into()), "{source}");
        assert_eq!(after["start_kind"], "exec", "{source}");
        python.end();
        let stop = procmond.find("stop", |event| is(event, "stop", pid));
        // The connector may come too late for the name, never for the arguments of a process that lives.
        assert_eq!(stop["command_line"], format!("sleep {word}"), "{source}");
        let (events, _) = procmond.log(dir.path());
        assert_eq!(of(&events, EventType::Stop, pid).len(), 1, "{source}");
        assert_told_once(&events);
    }
}

#[test]
fn a_fork_bomb_is_told_process_by_process_in_bounded_memory() {
    for source in kernel_sources() {
        let (events, pid) = whole(source, |procmond| {
            let script = format!("i=0; while [ $i -lt {BOMB} ]; do sleep 2 & i=$((i + 1)); done; wait; exit 5");
            let mut bomb = Running::shell(&script);
            let pid = bomb.pid();
            procmond.find("end of the bomb", |event| is(event, "stop", pid));
            assert_eq!(bomb.0.wait().unwrap().code(), Some(5));
            let peak = peak_kib(procmond.child.id());
            assert!(peak < PEAK_KIB, "{source}: {peak} KiB");
            pid
        });
        let of_bomb = |event: &&ProcessEvent| process(event).ppid == Some(pid);
        let children: HashSet<_> = events.iter().filter(of_bomb).map(|event| &process(event).entity_id).collect();
        assert_eq!(children.len(), BOMB, "{source}");
        for kind in [EventType::Start, EventType::Stop] {
            // A start is a fork and an exec.
            let told = events.iter().filter(|event| event.event_type() == kind);
            let told = told.filter(|event| children.contains(&process(event).entity_id)).count();
            assert_eq!(told, if kind == EventType::Start { 2 * BOMB } else { BOMB }, "{source}: {kind:?}");
        }
    }
}

fn peak_kib(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}
