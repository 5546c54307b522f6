//! What is announced and what is found, in every order.

use super::super::*;
use crate::collector::Image;
use crate::kernel::{Credentials, What};
use daemoneye_lib::proto::{Capture, Identity};
use proptest::prelude::*;
use std::collections::HashSet;

/// A tick is a hundredth of a second, as on most kernels.
const TICKS: Ticks = Ticks { zero_us: 0, per_second: 100 };
const TICK_US: i64 = 10_000;

struct Host {
    tracker: Tracker,
    events: Vec<ProcessEvent>,
}

impl Host {
    /// Init has been met by the baseline.
    fn new() -> Self {
        let mut tracker = Tracker::new("procfs", "boot", Limits::default()).with_ticks(TICKS);
        tracker.listen_to(Some("ebpf"));
        let mut host = Self { tracker, events: Vec::new() };
        host.look(10, [record(1, 0, "init", 5)]);
        host.events.clear();
        host
    }

    fn input(&mut self, input: Input) {
        let Self { tracker, events } = self;
        tracker.apply(input, &mut |event| events.push(event));
    }

    fn tell(&mut self, tick: u64, pid: u32, start: Option<u64>, what: What) -> Vec<ProcessEvent> {
        self.input(Input::Notice(Notice { time_us: us(tick), pid, start_ticks: start, what }));
        std::mem::take(&mut self.events)
    }

    fn fork(&mut self, tick: u64, parent: u32, pid: u32) -> Vec<ProcessEvent> {
        self.tell(tick, pid, Some(tick), What::Fork { parent, parent_ticks: None, credentials: None })
    }

    fn begin(&mut self, tick: u64) {
        self.input(Input::Begin { time_us: us(tick) });
    }

    fn see(&mut self, record: &ProcessRecord) {
        self.input(Input::Seen(Sighting::Read(Box::new(record.clone()), Image::UNSEEN)));
    }

    fn end(&mut self) -> Vec<ProcessEvent> {
        self.input(Input::End { complete: true });
        let Self { tracker, events } = self;
        while tracker.proceed(&mut |event| events.push(event)) {}
        std::mem::take(events)
    }

    fn look(&mut self, tick: u64, records: impl IntoIterator<Item = ProcessRecord>) -> Vec<ProcessEvent> {
        self.begin(tick);
        for record in records {
            self.see(&record);
        }
        self.end()
    }
}

fn us(tick: u64) -> i64 {
    i64::try_from(tick).unwrap() * TICK_US
}

/// As a snapshot reads it.
fn record(pid: u32, ppid: u32, name: &str, start: u64) -> ProcessRecord {
    ProcessRecord {
        entity_id: EntityId::derive("boot", pid, start).as_bytes().to_vec(),
        identity: Identity::Exact.into(),
        start_time_us: TICKS.time_us(start),
        ..image(pid, ppid, name)
    }
}

/// As an announcer of an exec reads it.
fn image(pid: u32, ppid: u32, name: &str) -> ProcessRecord {
    ProcessRecord {
        pid,
        ppid: Some(ppid),
        name: name.into(),
        executable_path: Some(format!("/bin/{name}")),
        command_line: Some(format!("{name} x")),
        uid: Some(0),
        cwd: Some("/root".into()),
        namespace_pid: Some(pid),
        capture: Capture::Complete.into(),
        ..Default::default()
    }
}

fn exec(record: ProcessRecord) -> What {
    What::Exec(Box::new(record), Image::UNSEEN, None)
}

fn shown(events: &[ProcessEvent]) -> Vec<String> {
    let word = |event: &ProcessEvent| {
        let process = event.process.as_ref().unwrap();
        let kind = match event.event_type() {
            EventType::Start => format!("{:?}", event.start_kind()).to_lowercase(),
            kind => format!("{kind:?}").to_lowercase(),
        };
        format!("{kind} {} {} by {}", process.pid, process.name, event.source)
    };
    events.iter().map(word).collect()
}

fn entity(event: &ProcessEvent) -> &[u8] {
    &event.process.as_ref().unwrap().entity_id
}

#[test]
fn a_fork_is_its_parents_copy_an_exec_keeps_the_entity_and_an_exit_tells_all_of_the_end() {
    let mut host = Host::new();
    let fork = host.fork(20, 1, 7).remove(0);
    let child = fork.process.clone().unwrap();
    assert_eq!(shown(std::slice::from_ref(&fork)), ["fork 7 init by ebpf"]);
    assert_eq!(
        (child.ppid, child.parent_name.as_deref(), child.executable_path.as_deref()),
        (Some(1), Some("init"), Some("/bin/init"))
    );
    assert_eq!((child.ancestry.as_deref(), child.exec_filename, child.identity), (Some("/init/init"), None, 1));
    assert_eq!((child.command_line.as_deref(), child.start_time_us), (Some("init x"), Some(us(20))));

    let start = host.tell(21, 7, Some(20), exec(image(7, 1, "true"))).remove(0);
    assert_eq!(shown(std::slice::from_ref(&start)), ["exec 7 true by ebpf"]);
    assert_eq!(start.modified_fields, ["command_line", "executable_path", "name"]);
    assert_eq!(entity(&start), entity(&fork));
    assert_eq!(start.process.as_ref().unwrap().ancestry.as_deref(), Some("/init/true"));
    // Without a fork: the next program of the same process.
    let again = host.tell(22, 7, Some(20), exec(image(7, 1, "sleep"))).remove(0);
    assert_eq!((entity(&again), &again.process.as_ref().unwrap().parent_name), (entity(&fork), &child.parent_name));

    let stop = host.tell(120, 7, Some(20), What::Exit(Some(-9))).remove(0);
    assert_eq!((stop.exit_code, stop.runtime_ms, stop.end_observed), (Some(-9), Some(1000), Some(true)));
    assert_eq!((entity(&stop), stop.process.as_ref().unwrap().name.as_str()), (entity(&fork), "sleep"));
    assert_eq!(host.tell(121, 7, Some(20), What::Exit(Some(0))), []);
    assert_eq!(host.tracker.counters().strays, 1);
    assert_eq!(host.look(200, [record(1, 0, "init", 5)]), []);
}

#[test]
fn an_exec_whose_fork_was_lost_is_a_start_and_another_start_under_its_pid_ends_the_former_unseen() {
    let mut host = Host::new();
    let start = host.tell(21, 7, Some(20), exec(image(7, 1, "true"))).remove(0);
    assert_eq!((start.start_kind(), start.modified_fields.len()), (StartKind::Exec, 0));
    assert_eq!(start.process.as_ref().unwrap().parent_name.as_deref(), Some("init"));
    let events = host.tell(31, 7, Some(30), exec(image(7, 1, "cp")));
    assert_eq!(shown(&events), ["stop 7 true by ebpf", "exec 7 cp by ebpf"]);
    assert_eq!((events[0].end_observed, events[0].runtime_ms), (Some(false), None));
    assert_ne!(entity(&events[0]), entity(&events[1]));
    // A fork under a pid that is taken, from a source that knows no ticks.
    let events = host.tell(40, 7, None, What::Fork { parent: 1, parent_ticks: None, credentials: None });
    assert_eq!(shown(&events), ["stop 7 cp by ebpf", "fork 7 init by ebpf"]);
}

#[test]
fn what_a_partial_exec_lacks_comes_from_before_it_where_it_is_still_true() {
    let mut host = Host::new();
    host.fork(20, 1, 7);
    host.look(
        20,
        [
            record(1, 0, "init", 5),
            ProcessRecord {
                executable_path: Some("/bin/init".into()),
                command_line: Some("init x".into()),
                ..record(7, 1, "init", 20)
            },
        ],
    );
    host.look(
        20,
        [
            record(1, 0, "init", 5),
            ProcessRecord {
                executable_path: Some("/bin/init".into()),
                command_line: Some("init x".into()),
                ..record(7, 1, "init", 20)
            },
        ],
    );
    let bare = ProcessRecord { pid: 7, name: "true".into(), capture: Capture::Partial.into(), ..Default::default() };
    let start = host.tell(21, 7, Some(20), exec(bare)).remove(0).process.unwrap();
    assert_eq!((start.cwd.as_deref(), start.uid, start.namespace_pid), (Some("/root"), Some(0), Some(7)));
    assert_eq!((start.executable_path, start.command_line, start.capture), (None, None, 2));
    // A snapshot that still finds it fills the rest in without an event.
    let whole = record(7, 1, "true", 20);
    assert_eq!(host.look(30, [record(1, 0, "init", 5), whole.clone()]), []);
    let stop = host.tell(40, 7, Some(20), What::Exit(Some(0))).remove(0);
    assert_eq!(stop.process.unwrap().executable_path, whole.executable_path);
}

#[test]
fn a_fork_is_told_as_whoever_it_says_and_nowhere_until_it_is_read() {
    let mut host = Host::new();
    let own = Credentials { uid: 65534, gid: 5, euid: 65534, user: Some("nobody".into()), session: 7, tty: None };
    let what = What::Fork { parent: 1, parent_ticks: None, credentials: Some(Box::new(own)) };
    let child = host.tell(20, 7, Some(20), what).remove(0).process.unwrap();
    assert_eq!(
        (child.uid, child.gid, child.euid, child.user.as_deref()),
        (Some(65534), Some(5), Some(65534), Some("nobody"))
    );
    assert_eq!((child.capture(), child.session), (Capture::Partial, Some(7)));
    assert_eq!((child.tty, child.cwd, child.namespace_pid), (None, None, None));
    // Nothing says that it is still its parent's user.
    let child = host.fork(21, 1, 8).remove(0).process.unwrap();
    assert_eq!((child.capture(), child.uid, child.cwd), (Capture::Partial, None, None));
}

#[test]
fn births_ends_and_renames_say_nothing_long_again() {
    let mut host = Host::new();
    let long = "x".repeat(32 * 1024);
    let shell =
        ProcessRecord { command_line: Some(long.clone()), arg_lengths: vec![1; 16 * 1024], ..image(7, 1, "sh") };
    host.fork(20, 1, 7);
    assert_eq!(
        host.tell(21, 7, Some(20), exec(shell))[0].process.as_ref().unwrap().command_line.as_ref(),
        Some(&long)
    );
    let mut log = host.fork(22, 7, 8);
    log.extend(host.tell(23, 8, Some(22), What::Rename("busy".into())));
    log.extend(host.tell(24, 8, Some(22), What::Exit(Some(0))));
    assert_eq!(shown(&log), ["fork 8 sh by ebpf", "modify 8 busy by ebpf", "stop 8 busy by ebpf"]);
    for event in &log {
        assert!(prost::Message::encoded_len(event) < 4096, "{}", shown(std::slice::from_ref(event))[0]);
    }
    for at in [0, 2] {
        let told = log[at].process.as_ref().unwrap();
        assert_eq!(told.command_line.as_deref(), Some(&long[..1024]));
        assert_eq!((&told.truncated, &told.parent_command_line), (&vec!["command_line".to_owned()], &None));
    }
    // What starts from it knows all of it.
    host.fork(25, 7, 9);
    let start = host.tell(26, 9, Some(25), exec(image(9, 7, "cp"))).remove(0).process.unwrap();
    assert_eq!(start.parent_command_line, Some(long));
}

#[test]
fn what_the_log_says_in_short_is_no_change_after_a_restart() {
    let mut host = Host::new();
    let long = "x".repeat(5000);
    let shell = ProcessRecord { command_line: Some(long.clone()), ..image(7, 1, "sh") };
    let mut log = host.fork(20, 1, 7);
    log.extend(host.tell(21, 7, Some(20), exec(shell.clone())));
    log.extend(host.tell(22, 7, Some(20), What::Rename("zsh".into())));
    log.extend(host.fork(23, 7, 8));
    let mut after = Host::new();
    for event in log {
        after.input(Input::Replay(Box::new(event)));
    }
    let read = |pid, start| ProcessRecord {
        command_line: Some(long.clone()),
        name: "zsh".into(),
        ..record(pid, 1, "sh", start)
    };
    assert_eq!(after.look(30, [record(1, 0, "init", 5), read(7, 20), read(8, 23)]), []);
    let start = after.tell(31, 8, Some(23), exec(image(8, 7, "cp"))).remove(0).process.unwrap();
    assert_eq!(start.parent_command_line, Some(long));
}

#[test]
fn who_cannot_be_read_has_not_ended() {
    let mut host = Host::new();
    let init = record(1, 0, "init", 5);
    host.look(20, [init.clone(), record(7, 1, "sh", 15)]);
    host.begin(30);
    host.see(&init);
    host.input(Input::Seen(Sighting::Unread(7)));
    assert_eq!(host.end(), []);
    assert_eq!(shown(&host.look(40, [init])), ["stop 7 sh by procfs"]);
}

#[test]
fn an_estimated_start_is_made_exact_quietly_when_a_snapshot_finds_it() {
    for off in [0, 1] {
        let mut host = Host::new();
        let fork =
            host.tell(20 + off, 7, None, What::Fork { parent: 1, parent_ticks: None, credentials: None }).remove(0);
        assert_eq!(fork.process.as_ref().unwrap().identity(), Identity::Estimated);
        let found = record(7, 1, "init", 20);
        let init = record(1, 0, "init", 5);
        assert_eq!(host.look(30, [init.clone(), ProcessRecord { command_line: Some("init x".into()), ..found }]), []);
        // The next look knows it by its exact identity only.
        host.begin(40);
        host.see(&init);
        let entity_id = EntityId::derive("boot", 7, 20);
        let vitals = crate::collector::Vitals {
            entity: entity_id,
            pid: 7,
            status: "idle",
            cpu_usage: None,
            memory_usage: None,
        };
        host.input(Input::Seen(Sighting::Same(vitals)));
        assert_eq!(host.end(), []);
        let stop = host.tell(50, 7, Some(20), What::Exit(Some(0))).remove(0);
        assert_eq!((entity(&stop), stop.process.as_ref().unwrap().identity()), (entity(&fork), Identity::Exact));
    }
}

#[test]
fn what_was_announced_while_a_snapshot_was_taken_is_not_told_again() {
    let mut host = Host::new();
    let init = record(1, 0, "init", 5);
    host.begin(20);
    host.see(&init);
    // Found before its announcement came, changed before its exec came, ended before its end came.
    host.see(&record(7, 1, "cp", 20));
    assert_eq!(host.fork(20, 1, 7).len(), 1);
    assert_eq!(host.tell(21, 7, Some(20), exec(image(7, 1, "cp"))).len(), 1);
    host.see(&record(8, 1, "short", 20));
    host.fork(20, 1, 8);
    assert_eq!(host.tell(21, 8, Some(20), What::Exit(Some(0))).len(), 1);
    // Born after the list was taken.
    host.fork(22, 1, 9);
    assert_eq!(host.end(), []);
    let counters = host.tracker.counters();
    assert_eq!((counters.missed, counters.vanished), (0, 0));
    assert_eq!(host.tracker.take_unknown(), [7], "what may be older than an announcement is read anew");

    // An exec that a snapshot shows before it is announced, and a look that is older than it.
    host.begin(30);
    host.see(&init);
    host.see(&record(7, 1, "mv", 20));
    host.see(&record(9, 1, "init", 22));
    assert_eq!(host.events, []);
    assert_eq!(shown(&host.tell(30, 7, Some(20), exec(image(7, 1, "mv")))), ["exec 7 mv by ebpf"]);
    assert_eq!(shown(&host.tell(31, 7, Some(20), exec(image(7, 1, "ln")))), ["exec 7 ln by ebpf"]);
    assert_eq!(host.end(), []);
}

#[test]
fn an_end_that_was_announced_during_a_snapshot_stands_even_when_the_dead_are_many() {
    let mut host = Host::new();
    let init = record(1, 0, "init", 5);
    host.fork(20, 1, 7);
    host.begin(30);
    host.see(&init);
    host.see(&record(7, 1, "cp", 20));
    assert_eq!(host.tell(31, 7, Some(20), What::Exit(Some(0))).len(), 1);
    for pid in 100..5000 {
        host.fork(40, 1, pid);
        host.tell(41, pid, Some(40), What::Exit(Some(0)));
    }
    assert_eq!(host.end(), []);
}

#[test]
fn what_nobody_announced_is_told_by_the_snapshot_and_counted() {
    let mut host = Host::new();
    let (init, hidden) = (record(1, 0, "init", 5), record(7, 1, "hidden", 12));
    assert_eq!(shown(&host.look(20, [init.clone(), hidden.clone()])), ["exec 7 hidden by procfs"]);
    // An exec of a known process that was lost.
    let other = record(7, 1, "other", 12);
    assert_eq!(shown(&host.look(30, [init.clone(), other])), ["exec 7 other by procfs"]);
    let stop = host.look(40, [init]).remove(0);
    assert_eq!((stop.source.as_str(), stop.end_observed, stop.runtime_ms), ("procfs", Some(false), None));
    let counters = host.tracker.counters();
    assert_eq!((counters.announced, counters.missed, counters.vanished), (0, 2, 1));
}

#[test]
fn a_process_that_waits_to_be_reaped_after_its_announced_end_is_not_told_again() {
    let mut host = Host::new();
    host.fork(20, 1, 7);
    host.tell(21, 7, Some(20), What::Exit(Some(0)));
    let zombie = record(7, 1, "init", 20);
    for tick in [30, 40] {
        host.begin(tick);
        host.see(&record(1, 0, "init", 5));
        host.see(&zombie);
        host.input(Input::Seen(Sighting::Ended {
            entity: EntityId::from_bytes(&zombie.entity_id).unwrap(),
            pid: 7,
            exit_code: None,
        }));
        assert_eq!(host.end(), []);
    }
}

#[test]
fn a_rename_is_a_change_of_the_name_and_a_debugger_is_told_once_per_image() {
    let mut host = Host::new();
    host.fork(20, 1, 7);
    let renamed = host.tell(21, 7, None, What::Rename("kworker/0:1".into()));
    assert_eq!(shown(&renamed), ["modify 7 kworker/0:1 by ebpf", "suspicious 7 kworker/0:1 by ebpf"]);
    assert_eq!(
        (&renamed[0].modified_fields, renamed[1].reason.as_deref()),
        (&vec!["name".into()], Some("kernel_thread_name"))
    );
    assert_eq!(host.tell(21, 7, None, What::Rename("kworker/0:1".into())), []);
    let traced = host.tell(22, 7, None, What::Traced { by: Some(1) });
    assert_eq!((traced.len(), traced[0].reason.as_deref()), (1, Some("ptrace_attached")));
    assert_eq!(host.tell(23, 7, None, What::Traced { by: None }), []);
    assert_eq!(host.tell(24, 7, None, What::Traced { by: Some(1) }), []);
    host.tell(25, 7, None, exec(image(7, 1, "x")));
    assert_eq!(host.tell(26, 7, None, What::Traced { by: Some(1) }).len(), 1);
}

#[test]
fn a_hash_that_comes_before_the_start_of_its_process_is_part_of_it() {
    let mut host = Host::new();
    let found = ProcessRecord { executable_path: Some("/bin/sh".into()), ..record(7, 1, "sh", 15) };
    host.begin(20);
    host.see(&found);
    host.input(Input::Hashed(Box::new(Hashed {
        entity: EntityId::from_bytes(&found.entity_id).unwrap(),
        pid: 7,
        executable_path: "/bin/sh".into(),
        time_us: us(21),
        algorithm: "sha256".into(),
        hash: Some("00".into()),
        status: "ok".into(),
    })));
    assert_eq!(host.events, []);
    host.see(&record(1, 0, "init", 5));
    let events = host.end();
    let hashes: Vec<_> =
        events.iter().map(|event| event.process.as_ref().unwrap().executable_hash.as_deref()).collect();
    assert_eq!(hashes, [Some("00")]);
}

#[test]
fn an_exec_that_is_announced_long_after_a_snapshot_has_told_it_is_not_told_again() {
    let mut host = Host::new();
    let image_of_7 = |stack| Image::at(&EntityId::derive("boot", 7, 15), &[1, stack, 3]);
    host.begin(20);
    host.see(&record(1, 0, "init", 5));
    host.input(Input::Seen(Sighting::Read(Box::new(record(7, 1, "sh", 15)), image_of_7(1))));
    assert_eq!(shown(&host.end()), ["exec 7 sh by procfs"]);
    let late = |stack| What::Exec(Box::new(image(7, 1, "sh")), image_of_7(stack), None);
    assert_eq!(host.tell(16, 7, Some(15), late(1)), []);
    assert_eq!(shown(&host.tell(30, 7, Some(15), late(2))), ["exec 7 sh by ebpf"]);

    // Also of a process whose birth was announced.
    host.fork(40, 1, 8);
    let image_of_8 = Image::at(&EntityId::derive("boot", 8, 40), &[1, 2, 3]);
    host.begin(50);
    for known in [record(1, 0, "init", 5), record(7, 1, "sh", 15)] {
        host.see(&known);
    }
    host.input(Input::Seen(Sighting::Read(Box::new(record(8, 1, "sh", 40)), image_of_8)));
    assert_eq!(shown(&host.end()), ["exec 8 sh by procfs"]);
    assert_eq!(host.tell(51, 8, Some(40), What::Exec(Box::new(image(8, 1, "sh")), image_of_8, None)), []);
}

#[test]
fn a_hash_is_not_the_first_that_is_heard_of_a_process_that_was_dead_at_the_baseline() {
    let mut host = Host::new();
    host.tracker = Tracker::new("procfs", "boot", Limits::default()).with_ticks(TICKS);
    host.tracker.listen_to(Some("ebpf"));
    let dead = record(7, 1, "sh", 15);
    let entity = EntityId::from_bytes(&dead.entity_id).unwrap();
    host.begin(20);
    host.see(&dead);
    host.input(Input::Seen(Sighting::Ended { entity, pid: 7, exit_code: None }));
    assert_eq!(host.end(), []);
    host.input(Input::Hashed(Box::new(Hashed {
        entity,
        pid: 7,
        executable_path: "/bin/sh".into(),
        time_us: us(21),
        algorithm: "sha256".into(),
        hash: Some("00".into()),
        status: "ok".into(),
    })));
    assert_eq!(host.events, []);
}

#[test]
fn what_comes_after_a_pause_was_not_missed() {
    let mut host = Host::new();
    host.tracker.excuse();
    assert_eq!(host.look(20, [record(1, 0, "init", 5), record(7, 1, "sh", 15)]).len(), 1);
    assert_eq!(host.tracker.counters().missed, 0);
    host.look(30, [record(1, 0, "init", 5), record(7, 1, "sh", 15), record(8, 1, "sh", 25)]);
    assert_eq!(host.tracker.counters().missed, 1);
}

#[test]
fn a_hash_that_comes_late_is_a_change_and_one_of_another_image_is_nothing() {
    let mut host = Host::new();
    let fork = host.fork(20, 1, 7).remove(0);
    let hashed = |path: &str, hash: Option<&str>| {
        Input::Hashed(Box::new(Hashed {
            entity: EntityId::from_bytes(entity(&fork)).unwrap(),
            pid: 7,
            executable_path: path.into(),
            time_us: us(25),
            algorithm: "sha256".into(),
            hash: hash.map(str::to_owned),
            status: if hash.is_some() { "hashed" } else { "too_large" }.into(),
        }))
    };
    host.input(hashed("/bin/other", Some("00")));
    assert_eq!(host.events, []);
    host.input(hashed("/bin/init", Some("00")));
    host.input(hashed("/bin/init", Some("00")));
    let event = std::mem::take(&mut host.events);
    assert_eq!((event.len(), &event[0].modified_fields), (1, &vec!["executable_hash".into(), "hash_status".into()]));
    let process = event[0].process.as_ref().unwrap();
    assert_eq!((process.hash_algorithm.as_deref(), process.executable_hash.as_deref()), (Some("sha256"), Some("00")));
    // The child has its parent's image, and so its hash.
    assert_eq!(host.fork(30, 7, 8)[0].process.as_ref().unwrap().executable_hash.as_deref(), Some("00"));
    assert_eq!(host.tell(31, 8, None, exec(image(8, 7, "x")))[0].process.as_ref().unwrap().executable_hash, None);
}

#[test]
fn a_hash_that_comes_after_the_end_of_its_process_is_told_and_brings_nobody_back() {
    let mut host = Host::new();
    let mut log = host.fork(20, 1, 7);
    log.extend(host.tell(22, 7, Some(20), What::Exit(Some(0))));
    let hashed = |path: &str| {
        Input::Hashed(Box::new(Hashed {
            entity: EntityId::from_bytes(entity(&log[0])).unwrap(),
            pid: 7,
            executable_path: path.into(),
            time_us: us(25),
            algorithm: "sha256".into(),
            hash: Some("00".into()),
            status: "ok".into(),
        }))
    };
    for path in ["/bin/init", "/bin/init", "/bin/other"] {
        host.input(hashed(path));
    }
    let told = std::mem::take(&mut host.events);
    let [event] = told.as_slice() else { panic!("{told:?}") };
    let process = event.process.as_ref().unwrap();
    assert_eq!((process.executable_hash.as_deref(), process.status.as_deref()), (Some("00"), Some("dead")));
    assert_eq!(host.tracker.counters().unclaimed, 1);
    let mut again = Host::new();
    let living = again.tracker.len();
    for event in log.into_iter().chain(told) {
        again.input(Input::Replay(Box::new(event)));
    }
    assert_eq!(again.tracker.len(), living);
}

#[test]
fn a_run_that_was_killed_goes_on_with_differences_only() {
    let mut host = Host::new();
    let mut log = host.fork(20, 1, 7);
    log.extend(host.tell(21, 7, Some(20), exec(image(7, 1, "cp"))));
    log.extend(host.fork(22, 1, 8));
    log.extend(host.tell(23, 8, Some(22), What::Exit(Some(0))));
    let mut after = Host::new();
    for event in log {
        after.input(Input::Replay(Box::new(event)));
    }
    let ended = record(8, 1, "init", 22);
    after.begin(30);
    after.see(&record(1, 0, "init", 5));
    after.see(&record(7, 1, "cp", 20));
    after.see(&ended);
    after.input(Input::Seen(Sighting::Ended {
        entity: EntityId::from_bytes(&ended.entity_id).unwrap(),
        pid: 8,
        exit_code: None,
    }));
    assert_eq!(after.end(), []);
    assert_eq!(after.fork(31, 7, 9)[0].process.as_ref().unwrap().parent_name.as_deref(), Some("cp"));
}

#[derive(Debug, Clone)]
enum Step {
    Born(u32),
    Runs(u32),
    Dies(u32),
    Lost(u32, bool),
    Look,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let pid = 2u32..7;
    let step = prop_oneof![
        3 => pid.clone().prop_map(Step::Born),
        3 => pid.clone().prop_map(Step::Runs),
        3 => pid.clone().prop_map(Step::Dies),
        1 => (pid, any::<bool>()).prop_map(|(pid, dies)| Step::Lost(pid, dies)),
        2 => Just(Step::Look),
    ];
    proptest::collection::vec(step, 1..40)
}

proptest! {
    /// Whatever is lost: after a look the tracker knows who lives, and nobody started twice or stopped twice.
    #[test]
    fn lost_announcements_are_healed_and_nothing_is_told_twice(steps in steps()) {
        let mut host = Host::new();
        let mut living: std::collections::BTreeMap<u32, ProcessRecord> = std::collections::BTreeMap::new();
        let (mut started, mut stopped) = (HashSet::new(), HashSet::new());
        let mut tick = 20;
        for step in steps.into_iter().chain([Step::Look]) {
            tick += 1;
            let events = match step {
                Step::Born(pid) if !living.contains_key(&pid) => {
                    living.insert(pid, record(pid, 1, "init", tick));
                    host.fork(tick, 1, pid)
                }
                Step::Runs(pid) if living.contains_key(&pid) => {
                    let now = living.get_mut(&pid).unwrap();
                    let start = TICKS.at(now.start_time_us.unwrap());
                    *now = record(pid, 1, &format!("p{tick}"), start);
                    host.tell(tick, pid, Some(start), exec(image(pid, 1, &format!("p{tick}"))))
                }
                Step::Dies(pid) if living.contains_key(&pid) => {
                    let start = TICKS.at(living.remove(&pid).unwrap().start_time_us.unwrap());
                    host.tell(tick, pid, Some(start), What::Exit(Some(0)))
                }
                Step::Lost(pid, true) => {
                    living.remove(&pid);
                    Vec::new()
                }
                Step::Lost(pid, false) if !living.contains_key(&pid) => {
                    living.insert(pid, record(pid, 1, "lost", tick));
                    Vec::new()
                }
                Step::Look => {
                    let all: Vec<_> = living.values().cloned().chain([record(1, 0, "init", 5)]).collect();
                    let events = host.look(tick, all);
                    prop_assert_eq!(host.tracker.len(), living.len() + 1);
                    events
                }
                _ => Vec::new(),
            };
            for event in events {
                let id = entity(&event).to_vec();
                match event.event_type() {
                    EventType::Start => {
                        prop_assert!(!stopped.contains(&id));
                        let first = started.insert(id);
                        prop_assert!(first || event.start_kind() == StartKind::Exec);
                    }
                    EventType::Stop => {
                        prop_assert!(started.contains(&id) && stopped.insert(id));
                    }
                    _ => prop_assert!(started.contains(&id)),
                }
            }
        }
    }
}
