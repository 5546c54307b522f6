//! What is announced of one life: its birth, its programs, its names and its end.

use super::*;

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
    host.look(20, [record(1, 0, "init", 5), record(7, 1, "init", 20)]);
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
