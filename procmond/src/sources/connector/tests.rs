use super::message::{Event, Task};
use super::*;
use std::collections::{BTreeMap, BTreeSet};
use std::io::Write as _;
use std::os::unix::process::CommandExt as _;
use std::process::{Child, Command, Stdio};

use skip::skipped;

#[path = "../../../../daemoneye-lib/tests/jail/skip.rs"]
mod skip;

const PATIENCE: Duration = Duration::from_secs(180);

/// A pid that no kernel gives away: above the largest that can be configured.
const NOBODY: u32 = 5_000_000;

fn opened() -> Option<Connector> {
    open().inspect_err(|error| skipped(error)).ok()
}

/// Receives until `enough` says so of all that has come.
fn until(connector: &mut Connector, seen: &mut Vec<Notice>, mut enough: impl FnMut(&[Notice]) -> bool) {
    let begin = Instant::now();
    while !enough(seen) {
        assert!(begin.elapsed() < PATIENCE, "not announced; lost {}", connector.lost());
        connector.receive(Duration::from_millis(20), &mut |notice| seen.push(notice)).unwrap();
    }
}

fn has_exit(seen: &[Notice], pid: u32) -> bool {
    seen.iter().any(|notice| notice.pid == pid && matches!(notice.what, What::Exit(_)))
}

fn of(seen: &[Notice], pid: u32) -> Vec<Notice> {
    seen.iter().filter(|notice| notice.pid == pid).cloned().collect()
}

fn shell(script: &str) -> Child {
    Command::new("/bin/sh").args(["-c", script]).stdin(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap()
}

fn end_of(child: &mut Child) -> u32 {
    drop(child.stdin.take());
    child.wait().unwrap();
    child.id()
}

/// One process on each CPU: with its messages a loss at the end shows too.
fn speak_on_every_cpu() {
    let allowed = rustix::thread::sched_getaffinity(None).unwrap();
    for cpu in (0..rustix::thread::CpuSet::MAX_CPU).filter(|cpu| allowed.is_set(*cpu)) {
        let on_cpu = move || {
            let mut alone = rustix::thread::CpuSet::new();
            alone.set(cpu);
            rustix::thread::sched_setaffinity(None, &alone).unwrap();
            Command::new("/bin/true").status().unwrap();
        };
        std::thread::spawn(on_cpu).join().unwrap();
    }
}

#[test]
fn an_acknowledgement_that_has_come_is_read_however_late_it_is_looked_for() {
    let Ok((mut socket, _)) = Socket::open(BUFFER_BYTES) else { return skipped("no connector") };
    socket.unsubscribe();
    socket.subscribe_within(Duration::ZERO).unwrap();
}

#[test]
fn every_exec_is_announced_or_counted_as_lost() {
    let Some(mut connector) = opened() else { return };
    let spawner = std::thread::spawn(|| {
        let run = |number: usize| {
            let mut child = Command::new("/bin/true").arg(format!("arg{number}")).spawn().unwrap();
            child.wait().unwrap();
            (child.id(), number)
        };
        (0..2_000).map(run).collect::<BTreeMap<u32, usize>>()
    });
    let mut seen = Vec::new();
    until(&mut connector, &mut seen, |_| spawner.is_finished());
    let spawned = spawner.join().unwrap();
    let marker = end_of(&mut shell("exit 0"));
    until(&mut connector, &mut seen, |seen| has_exit(seen, marker));
    let mut announced = BTreeSet::new();
    for notice in &seen {
        let (Some(number), What::Exec(record, ..)) = (spawned.get(&notice.pid), &notice.what) else { continue };
        // A reader without real-time scheduling may come too late for the arguments, never with others'.
        if record.command_line.as_deref() == Some(format!("/bin/true arg{number}").as_str()) {
            assert_eq!(record.arg_lengths, [9, u32::try_from(format!("arg{number}").len()).unwrap()]);
        } else {
            assert_eq!((record.command_line.as_deref(), record.capture()), (None, Capture::Partial));
        }
        announced.insert(notice.pid);
    }
    let missing = spawned.len() - announced.len();
    assert!(missing as u64 <= connector.lost(), "{missing} are missing, {} are lost", connector.lost());
    assert_eq!(connector.lost(), 0, "the buffer holds more than this");
}

#[test]
fn the_count_of_lost_messages_is_what_another_listener_has_seen() {
    let Ok((all, _)) = Socket::open(BUFFER_BYTES) else { return skipped("no connector") };
    let (small, acknowledged) = Socket::open(BUFFER_BYTES).unwrap();
    small.shrink();
    let mut counted = Sequences::default();
    let mut ranges = BTreeMap::new();
    let mut received = 0u64;
    let mut overruns = 0;
    let mut take_all = |message: Option<Message>| {
        let mut next = message;
        loop {
            if let Some(message) = next.take() {
                counted.take(message.cpu, message.sequence);
                ranges.entry(message.cpu).or_insert([message.sequence; 2])[1] = message.sequence;
                received += 1;
            }
            match small.next().unwrap() {
                Arrival::Message(message) => next = Some(message),
                Arrival::Overrun => overruns += 1,
                Arrival::Foreign => {}
                Arrival::Nothing => break,
            }
        }
    };
    take_all(Some(acknowledged));
    speak_on_every_cpu();
    take_all(None);
    for _ in 0..200 {
        Command::new("/bin/true").status().unwrap();
    }
    take_all(None);
    speak_on_every_cpu();
    take_all(None);
    assert!(counted.lost() > 0 && overruns > 0, "nothing was lost");
    let mut sent = 0u64;
    loop {
        match all.next().unwrap() {
            Arrival::Message(message) => {
                let range = ranges.get(&message.cpu);
                let within = range
                    .is_some_and(|[first, last]| message.sequence.wrapping_sub(*first) <= last.wrapping_sub(*first));
                sent += u64::from(within);
            }
            Arrival::Overrun => panic!("the other listener has lost some too"),
            Arrival::Foreign => {}
            Arrival::Nothing => break,
        }
    }
    assert_eq!(sent, received + counted.lost());
}

#[test]
fn fork_exec_and_exit_carry_one_identity_and_the_exit_code() {
    let Some(mut connector) = opened() else { return };
    let mut children = [shell("read x; exit 0"), shell("read x; exit 7"), shell("read x; kill -9 $$")];
    let pids = children.each_ref().map(Child::id);
    let mut seen = Vec::new();
    let executed =
        |seen: &[Notice], pid| seen.iter().any(|notice| notice.pid == pid && matches!(notice.what, What::Exec(..)));
    until(&mut connector, &mut seen, |seen| pids.iter().all(|pid| executed(seen, *pid)));
    for child in &mut children {
        end_of(child);
    }
    until(&mut connector, &mut seen, |seen| pids.iter().all(|pid| has_exit(seen, *pid)));
    for (pid, code) in pids.into_iter().zip([0, 7, -9]) {
        let notices = of(&seen, pid);
        let [fork, exec, exit] = notices.as_slice() else { panic!("{notices:?}") };
        assert!(matches!(fork.what, What::Fork { parent, .. } if parent == std::process::id()), "{fork:?}");
        let What::Exec(record, image, _) = &exec.what else { panic!("{exec:?}") };
        assert_eq!((record.name.as_str(), record.ppid), ("sh", Some(std::process::id())));
        assert!(record.command_line.as_ref().is_some_and(|line| line.starts_with("/bin/sh -c read x;")), "{record:?}");
        assert_eq!((record.capture(), record.uid), (Capture::Complete, Some(rustix::process::getuid().as_raw())));
        assert!(record.executable_path.is_some() && record.cwd.is_some() && record.cgroup.is_some(), "{record:?}");
        assert_ne!(*image, Image::UNSEEN);
        assert_eq!(exit.what, What::Exit(Some(code)));
        assert!(exec.start_ticks.is_some());
        assert_eq!((fork.start_ticks, exit.start_ticks), (exec.start_ticks, exec.start_ticks));
        assert!(fork.time_us <= exec.time_us && exec.time_us <= exit.time_us);
    }
}

#[test]
fn threads_are_not_announced() {
    let Some(mut connector) = opened() else { return };
    let thread = || rustix::thread::gettid().as_raw_nonzero().get().unsigned_abs();
    let threads: Vec<u32> = (0..20).map(|_| std::thread::spawn(thread).join().unwrap()).collect();
    let marker = end_of(&mut shell("exit 0"));
    let mut seen = Vec::new();
    until(&mut connector, &mut seen, |seen| has_exit(seen, marker));
    assert!(seen.iter().all(|notice| !threads.contains(&notice.pid)));
    assert_eq!(of(&seen, std::process::id()), []);
}

/// Runs the test of this name alone in a process of its own.
fn in_a_process(test: &str) -> Child {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", &format!("sources::connector::tests::{test}")]).env("DAEMONEYE_CONNECTOR_TEST", test);
    command.stdin(Stdio::null()).stdout(Stdio::null()).spawn().unwrap()
}

#[test]
fn a_thread_that_executes_a_program_does_not_end_its_process() {
    if std::env::var_os("DAEMONEYE_CONNECTOR_TEST").is_some() {
        let execute = || Command::new("/bin/sh").args(["-c", "exit 7"]).exec();
        panic!("{:?}", std::thread::spawn(execute).join());
    }
    let Some(mut connector) = opened() else { return };
    let pid = end_of(&mut in_a_process("a_thread_that_executes_a_program_does_not_end_its_process"));
    let mut seen = Vec::new();
    until(&mut connector, &mut seen, |seen| has_exit(seen, pid));
    let notices = of(&seen, pid);
    let [_, What::Exec(..), What::Exec(..), What::Exit(Some(7))] =
        notices.iter().map(|n| &n.what).collect::<Vec<_>>()[..]
    else {
        panic!("{notices:?}")
    };
    assert_eq!(notices[1].start_ticks, notices[3].start_ticks);
}

#[test]
fn a_process_lives_on_after_its_leader_has_left() {
    let Some(mut connector) = opened() else { return };
    // The main thread ends alone; the other one waits for a line and then ends everything.
    let script = "import ctypes, os, threading
threading.Thread(target=lambda: (os.read(0, 1), os._exit(3))).start()
ctypes.CDLL(None).pthread_exit(None)";
    let child = Command::new("python3").args(["-c", script]).stdin(Stdio::piped()).spawn();
    let Ok(mut child) = child else { return eprintln!("skipped: no python3") };
    let pid = child.id();
    let state = || std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let mut seen = Vec::new();
    until(&mut connector, &mut seen, |_| state().contains(") Z "));
    let marker = end_of(&mut shell("exit 0"));
    until(&mut connector, &mut seen, |seen| has_exit(seen, marker));
    assert!(!has_exit(&seen, pid), "{:?}", of(&seen, pid));
    child.stdin.take().unwrap().write_all(b"x").unwrap();
    child.wait().unwrap();
    until(&mut connector, &mut seen, |seen| has_exit(seen, pid));
    assert_eq!(of(&seen, pid).last().unwrap().what, What::Exit(Some(3)));
}

#[test]
fn a_debugger_that_attaches_is_announced() {
    let Some(mut connector) = opened() else { return };
    if Command::new("strace").arg("-V").output().is_err() {
        return eprintln!("skipped: no strace");
    }
    let mut traced = shell("read x");
    let mut strace =
        Command::new("strace").args(["-qq", "-o", "/dev/null", "-p", &traced.id().to_string()]).spawn().unwrap();
    let mut seen = Vec::new();
    let attached = What::Traced { by: Some(strace.id()) };
    let pid = traced.id();
    until(&mut connector, &mut seen, |seen| of(seen, pid).iter().any(|notice| notice.what == attached));
    end_of(&mut traced);
    strace.wait().unwrap();
}

#[test]
fn a_process_that_renames_itself_is_announced() {
    let Some(mut connector) = opened() else { return };
    let pid = end_of(&mut shell("printf other > /proc/self/comm"));
    let mut seen = Vec::new();
    until(&mut connector, &mut seen, |seen| has_exit(seen, pid));
    let renamed = What::Rename("other".to_owned());
    assert!(of(&seen, pid).iter().any(|notice| notice.what == renamed), "{:?}", of(&seen, pid));
}

#[test]
fn a_process_gone_before_it_is_read_is_announced_with_what_events_told() {
    let Some(mut connector) = opened() else { return };
    let task = Task { tid: NOBODY, pid: NOBODY };
    let now = now_ns();
    connector.intake(now, Event::Fork { parent: Task { tid: 9, pid: 8 }, child: task });
    connector.intake(now + 1, Event::Users(task, [1000, 0]));
    connector.intake(now + 2, Event::Exec(task));
    connector.intake(now + 3, Event::Exit(task, 0x100));
    let mut seen = Vec::new();
    until(&mut connector, &mut seen, |seen| has_exit(seen, NOBODY));
    let notices = of(&seen, NOBODY);
    let [_, What::Exec(record, Image::UNSEEN, None), What::Exit(Some(1))] =
        notices.iter().map(|n| &n.what).collect::<Vec<_>>()[..]
    else {
        panic!("{notices:?}")
    };
    assert_eq!((record.pid, record.ppid, record.uid, record.euid), (NOBODY, Some(8), Some(1000), Some(0)));
    assert_eq!((record.capture(), record.command_line.as_ref()), (Capture::Partial, None));
}

#[test]
fn announcements_come_out_in_the_order_of_their_time() {
    let Some(mut connector) = opened() else { return };
    let task = |pid| Task { tid: pid, pid };
    let now = now_ns();
    for (late, pid) in [(500, NOBODY), (300, NOBODY + 1), (400, NOBODY + 2)] {
        connector.intake(now + late, Event::Exit(task(pid), 0));
    }
    let mut seen = Vec::new();
    until(&mut connector, &mut seen, |seen| has_exit(seen, NOBODY));
    let order: Vec<u32> = seen.iter().map(|notice| notice.pid).filter(|pid| *pid >= NOBODY).collect();
    assert_eq!(order, [NOBODY + 1, NOBODY + 2, NOBODY]);
}

#[test]
fn a_message_from_another_process_is_ignored() {
    let Ok((socket, _)) = Socket::open(BUFFER_BYTES) else { return skipped("no connector") };
    let (forger, _) = Socket::open(BUFFER_BYTES).unwrap();
    if !socket.is_reached_by(&forger, &forged()) {
        return eprintln!("skipped: this kernel lets nobody send to the socket");
    }
    let begin = Instant::now();
    loop {
        match socket.next().unwrap() {
            Arrival::Foreign => return,
            Arrival::Message(message) => assert_ne!(message.event, Event::Exec(Task { tid: NOBODY, pid: NOBODY })),
            _ => assert!(begin.elapsed() < PATIENCE),
        }
    }
}

fn forged() -> Vec<u8> {
    let mut bytes = message::request(2, 0);
    bytes.splice(0..4, 60u32.to_ne_bytes());
    bytes.splice(32..34, 24u16.to_ne_bytes());
    bytes.extend([0; 12]);
    bytes.extend(NOBODY.to_ne_bytes());
    bytes.extend(NOBODY.to_ne_bytes());
    assert!(matches!(message::parse(&bytes), Some(Message { event: Event::Exec(_), .. })));
    bytes
}
