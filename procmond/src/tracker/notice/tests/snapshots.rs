//! What a snapshot finds beside what is announced.

use super::*;

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
        host.see_dead(&zombie);
        assert_eq!(host.end(), []);
    }
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
fn what_comes_after_a_pause_was_not_missed() {
    let mut host = Host::new();
    host.tracker.excuse();
    assert_eq!(host.look(20, [record(1, 0, "init", 5), record(7, 1, "sh", 15)]).len(), 1);
    assert_eq!(host.tracker.counters().missed, 0);
    host.look(30, [record(1, 0, "init", 5), record(7, 1, "sh", 15), record(8, 1, "sh", 25)]);
    assert_eq!(host.tracker.counters().missed, 1);
}
