mod suspicions;

use super::*;
use crate::collector::{Image, Vitals};
use daemoneye_lib::event_json::{EventRow, Origin};
use proptest::prelude::*;
use std::collections::{HashMap as Map, HashSet};

const SECOND: i64 = 1_000_000;

fn tracker() -> Tracker {
    Tracker::new("procfs", "boot", Limits::default())
}

fn process(pid: u32, ppid: u32, name: &str, start_s: i64) -> ProcessRecord {
    let entity = EntityId::derive("boot", pid, start_s.unsigned_abs());
    ProcessRecord {
        entity_id: entity.as_bytes().to_vec(),
        pid,
        ppid: Some(ppid),
        name: name.into(),
        executable_path: Some(format!("/usr/bin/{name}")),
        command_line: Some(format!("{name} -x")),
        arg_lengths: vec![u32::try_from(name.len()).unwrap(), 2],
        euid: Some(0),
        start_time_us: Some(start_s * SECOND),
        deleted_executable: Some(false),
        memfd: Some(false),
        ..Default::default()
    }
}

fn id(record: &ProcessRecord) -> EntityId {
    EntityId::from_bytes(&record.entity_id).unwrap()
}

fn read(record: &ProcessRecord) -> Sighting {
    Sighting::Read(Box::new(record.clone()), Image::UNSEEN)
}

fn read_image(record: &ProcessRecord, address: u64) -> Sighting {
    Sighting::Read(Box::new(record.clone()), Image::at(&id(record), &[address]))
}

fn exported(tracker: &Tracker) -> Vec<u8> {
    let mut state = Vec::new();
    tracker.export(&mut state).unwrap();
    state
}

fn sweep(tracker: &mut Tracker, time_s: i64, complete: bool, sightings: Vec<Sighting>) -> Vec<ProcessEvent> {
    let mut events = Vec::new();
    let mut emit = |event| events.push(event);
    tracker.apply(Input::Begin { time_us: time_s * SECOND }, &mut emit);
    for sighting in sightings {
        tracker.apply(Input::Seen(sighting), &mut emit);
    }
    tracker.apply(Input::End { complete }, &mut emit);
    while tracker.proceed(&mut emit) {}
    events
}

fn whole(tracker: &mut Tracker, time_s: i64, records: impl IntoIterator<Item = ProcessRecord>) -> Vec<ProcessEvent> {
    sweep(tracker, time_s, true, records.into_iter().map(|record| read(&record)).collect())
}

fn lines(events: &[ProcessEvent]) -> String {
    let line = |event| serde_json::to_string(&EventRow::new(event, Origin::default())).unwrap() + "\n";
    events.iter().map(line).collect()
}

fn kinds(events: &[ProcessEvent]) -> Vec<(EventType, u32)> {
    events.iter().map(|event| (event.event_type(), event.process.as_ref().unwrap().pid)).collect()
}

#[test]
fn a_recorded_day_gives_the_golden_events() {
    let mut tracker = tracker();
    let (init, sshd) = (process(1, 0, "systemd", 0), process(10, 1, "sshd", 5));
    let mut bash = process(20, 10, "bash", 100);
    let mut golden = String::new();
    // Listed child first: parents are placed first whatever the order.
    golden += &lines(&whole(&mut tracker, 110, [sshd.clone(), init.clone()]));
    golden += &lines(&whole(&mut tracker, 115, [bash.clone(), init.clone(), sshd.clone()]));
    bash.name = "curl".into();
    bash.executable_path = Some("/usr/bin/curl".into());
    bash.command_line = Some("curl -s".into());
    golden += &lines(&whole(&mut tracker, 120, [init.clone(), sshd, bash.clone()]));
    bash.deleted_executable = Some(true);
    golden += &lines(&whole(&mut tracker, 125, [init.clone(), bash.clone()]));
    golden += &lines(&whole(&mut tracker, 130, [init.clone(), process(20, 1, "worker", 128)]));
    insta::assert_snapshot!(golden);
}

#[test]
fn another_executable_is_a_start_of_the_same_entity_that_keeps_its_parent_and_nothing_of_the_old_image() {
    let mut tracker = tracker();
    let (init, shell) = (process(1, 0, "init", 0), process(7, 1, "sh", 1));
    whole(&mut tracker, 10, [init.clone(), ProcessRecord { memfd: Some(true), ..shell.clone() }]);
    let program = ProcessRecord {
        ppid: Some(99),
        name: "curl".into(),
        executable_path: Some("/usr/bin/curl".into()),
        command_line: None,
        arg_lengths: Vec::new(),
        ..shell.clone()
    };
    let events = whole(&mut tracker, 15, [init.clone(), program.clone()]);
    assert_eq!(kinds(&events), [(EventType::Start, 7)]);
    let started = events[0].process.clone().unwrap();
    assert_eq!((events[0].start_kind(), &started.entity_id), (StartKind::Exec, &shell.entity_id));
    assert_eq!(events[0].modified_fields, ["executable_path", "memfd", "name"]);
    assert_eq!((started.ppid, started.parent_name.as_deref()), (Some(1), Some("init")));
    assert_eq!(
        (started.ancestry.as_deref(), started.command_line, started.arg_lengths),
        (Some("/init/curl"), None, vec![])
    );
    assert_eq!(whole(&mut tracker, 20, [init.clone(), program]), []);
    // Suspicions belong to an image: the next one that deserves it is named again.
    let again = ProcessRecord { memfd: Some(true), ..shell };
    assert_eq!(kinds(&whole(&mut tracker, 25, [init, again])), [(EventType::Start, 7), (EventType::Suspicious, 7)]);
}

#[test]
fn the_same_executable_is_a_start_when_the_addresses_say_exec_and_a_change_when_only_the_title_does() {
    let mut tracker = tracker();
    let first = process(7, 1, "sh", 1);
    let mut look = |second: i64, record: &ProcessRecord, address| {
        let seen = if address == 0 { read(record) } else { read_image(record, address) };
        let events = sweep(&mut tracker, second, true, vec![seen]);
        events.iter().map(|event| (event.event_type(), event.modified_fields.join(","))).collect::<Vec<_>>()
    };
    let title = |line: &str| ProcessRecord { command_line: Some(line.into()), ..first.clone() };
    let event = |kind, fields: &str| vec![(kind, fields.to_owned())];
    assert_eq!(look(10, &first, 1), event(EventType::Start, ""));
    assert_eq!(look(15, &title("sh: idle"), 1), event(EventType::Modify, "command_line"));
    assert_eq!(look(20, &title("sh b"), 2), event(EventType::Start, "command_line"));
    // Executed anew with nothing to tell the two apart: not announced twice, and the next look compares with it.
    assert_eq!(look(25, &title("sh b"), 3), []);
    assert_eq!(look(30, &title("sh c"), 3), event(EventType::Modify, "command_line"));
    // Addresses that could not be seen prove nothing.
    assert_eq!(look(35, &title("sh d"), 0), event(EventType::Modify, "command_line"));
    assert_eq!(look(40, &title("sh d"), 3), []);
    assert_eq!(look(45, &ProcessRecord { name: "x".into(), ..title("sh d") }, 4), event(EventType::Start, "name"));
    // The file was moved under the running program.
    let moved = ProcessRecord { executable_path: Some("/old/sh".into()), name: "x".into(), ..title("sh d") };
    assert_eq!(look(50, &moved, 4), event(EventType::Modify, "executable_path"));
}

#[test]
fn a_process_met_in_the_middle_of_an_exec_starts_again_when_its_arguments_are_there() {
    let mut tracker = tracker();
    let mut record = process(7, 1, "sh", 1);
    sweep(&mut tracker, 10, true, vec![read_image(&record, 1)]);
    let partial = daemoneye_lib::proto::Capture::Partial.into();
    record.executable_path = Some("/bin/x".into());
    let unfinished = ProcessRecord { command_line: None, capture: partial, ..record.clone() };
    assert_eq!(kinds(&whole(&mut tracker, 15, [unfinished])), [(EventType::Start, 7)]);
    let events = sweep(&mut tracker, 20, true, vec![read_image(&record, 2)]);
    assert_eq!(kinds(&events), [(EventType::Start, 7)]);
    assert_eq!(events[0].process.as_ref().unwrap().command_line, record.command_line);
}

#[test]
fn a_helper_of_the_kernel_starts_at_its_exec_and_a_path_that_may_now_be_read_is_no_event() {
    let mut tracker = tracker();
    let thread = ProcessRecord { executable_path: None, command_line: None, ..process(7, 2, "kworker/u8:1", 1) };
    whole(&mut tracker, 10, [thread]);
    let helper = process(7, 2, "modprobe", 1);
    let events = sweep(&mut tracker, 15, true, vec![read_image(&helper, 1)]);
    assert_eq!((kinds(&events), events[0].start_kind()), (vec![(EventType::Start, 7)], StartKind::Exec));
    let hidden = ProcessRecord { executable_path: None, ..process(8, 1, "other", 1) };
    whole(&mut tracker, 20, [helper.clone(), hidden]);
    assert_eq!(whole(&mut tracker, 25, [helper, process(8, 1, "other", 1)]), []);
}

#[test]
fn an_exec_while_nobody_watched_is_told_after_the_restart_and_not_again() {
    let mut before = tracker();
    let shell = process(7, 1, "sh", 1);
    let baseline = sweep(&mut before, 10, true, vec![read_image(&shell, 1)]);
    let line = ProcessRecord { command_line: Some("sh b".into()), ..shell };
    // The image is part of the state, so the same executable with another title is known for an exec.
    let mut after = tracker();
    after.import(&exported(&before)).unwrap();
    let mut log = sweep(&mut after, 20, true, vec![read_image(&line, 2)]);
    assert_eq!((kinds(&log), log[0].start_kind()), (vec![(EventType::Start, 7)], StartKind::Exec));
    // Behind an older checkpoint the log says it, and its image is not mistaken for the one before.
    let mut replayed = tracker();
    replayed.import(&exported(&before)).unwrap();
    replayed.apply(Input::Replay(Box::new(log.remove(0))), &mut |_| unreachable!());
    assert_eq!(sweep(&mut replayed, 25, true, vec![read_image(&line, 2)]), []);
    assert_eq!(baseline.len(), 1);
}

#[test]
fn what_did_not_change_is_no_event() {
    let mut tracker = tracker();
    let mut init = process(1, 0, "init", 0);
    whole(&mut tracker, 10, [init.clone()]);
    init.cpu_usage = Some(99.0);
    init.memory_usage = Some(1 << 30);
    init.status = Some("running".into());
    init.cwd = Some("/elsewhere".into());
    assert_eq!(whole(&mut tracker, 15, [init.clone()]), []);
    let vitals = Vitals { entity: id(&init), pid: 1, status: "idle", cpu_usage: Some(1.0), memory_usage: None };
    assert_eq!(sweep(&mut tracker, 20, true, vec![Sighting::Same(vitals)]), []);
    let stopped = whole(&mut tracker, 25, []).remove(0).process.unwrap();
    assert_eq!(
        (stopped.status.as_deref(), stopped.cpu_usage, stopped.memory_usage),
        (Some("idle"), Some(1.0), Some(1 << 30))
    );
}

#[test]
fn a_field_that_could_not_be_read_is_no_change() {
    let mut tracker = tracker();
    let known = process(5, 1, "a", 1);
    whole(&mut tracker, 10, [known.clone()]);
    let unread = ProcessRecord { executable_path: None, command_line: None, euid: None, ..known.clone() };
    assert_eq!(whole(&mut tracker, 15, [unread]), []);
    let other = ProcessRecord { euid: Some(7), ..known.clone() };
    assert_eq!(whole(&mut tracker, 20, [other])[0].modified_fields, ["euid"]);
    // What was not known before is filled in quietly.
    let filled = ProcessRecord { euid: Some(7), cgroup: Some("/x".into()), uid: Some(5), ..known };
    assert_eq!(whole(&mut tracker, 25, [filled]), []);
    let ended = whole(&mut tracker, 30, []).remove(0).process.unwrap();
    assert_eq!((ended.cgroup.as_deref(), ended.uid), (Some("/x"), Some(5)));
}

#[test]
fn a_dead_parent_is_still_known_for_a_while() {
    let mut tracker = tracker();
    let parent = process(50, 0, "make", 10);
    whole(&mut tracker, 20, [parent.clone()]);
    whole(&mut tracker, 25, []);
    let events = whole(&mut tracker, 30, [process(51, 50, "cc", 24)]);
    let child = events[0].process.as_ref().unwrap();
    assert_eq!((child.parent_name.as_deref(), child.ancestry.as_deref()), (Some("make"), Some("/make/cc")));
    let late = whole(&mut tracker, 30 + 601, [process(52, 50, "ld", 600)]);
    assert_eq!(late.last().unwrap().process.as_ref().unwrap().parent_name, None);
}

#[test]
fn a_later_holder_of_the_parents_pid_is_not_the_parent() {
    let mut tracker = tracker();
    let events = whole(&mut tracker, 100, [process(7, 0, "young", 90), process(8, 7, "old", 10)]);
    assert_eq!(events[1].process.as_ref().unwrap().parent_name, None);
}

#[test]
fn a_zombie_has_stopped_once_and_is_not_started_again() {
    let mut tracker = tracker();
    whole(&mut tracker, 10, []);
    let short = process(9, 1, "true", 11);
    let ended = || Sighting::Ended { entity: id(&short), pid: 9, exit_code: Some(-9) };
    let events = sweep(&mut tracker, 15, true, vec![read(&short), ended()]);
    assert_eq!(kinds(&events), [(EventType::Start, 9), (EventType::Stop, 9)]);
    assert_eq!((events[1].exit_code, events[1].runtime_ms), (Some(-9), Some(4000)));
    assert_eq!(sweep(&mut tracker, 20, true, vec![ended()]), []);
    assert_eq!(whole(&mut tracker, 25, []), []);
    assert!(tracker.is_empty());
}

#[test]
fn an_incomplete_sweep_stops_nobody_but_a_pid_that_has_a_new_holder() {
    let mut tracker = tracker();
    whole(&mut tracker, 10, [process(1, 0, "init", 0), process(5, 1, "a", 1)]);
    let events = sweep(&mut tracker, 15, false, vec![read(&process(5, 1, "b", 12))]);
    assert_eq!(kinds(&events), [(EventType::Stop, 5), (EventType::Start, 5)]);
}

#[test]
fn an_interrupted_baseline_goes_on_as_a_baseline() {
    let mut tracker = tracker();
    sweep(&mut tracker, 10, false, vec![read(&process(1, 0, "init", 0))]);
    let events = whole(&mut tracker, 15, [process(1, 0, "init", 0), process(2, 1, "a", 1)]);
    assert_eq!(events[0].start_kind(), StartKind::Baseline);
    assert_eq!(whole(&mut tracker, 20, [process(3, 1, "b", 16)]).last().unwrap().start_kind(), StartKind::Exec);
}

#[test]
fn a_restored_state_gives_only_differences() {
    let mut before = tracker();
    let (init, gone, odd) = (process(1, 0, "init", 0), process(2, 1, "gone", 1), process(3, 1, "odd", 1));
    let odd = ProcessRecord { deleted_executable: Some(true), ..odd };
    whole(&mut before, 10, [init.clone(), gone, odd.clone()]);
    let mut after = tracker();
    after.import(&exported(&before)).unwrap();
    let events = whole(&mut after, 50, [init, odd, process(4, 1, "new", 20)]);
    assert_eq!(kinds(&events), [(EventType::Stop, 2), (EventType::Start, 4)]);
    assert_eq!((events[0].end_observed, events[0].runtime_ms), (Some(false), None));
    assert_eq!(events[1].start_kind(), StartKind::Exec);
    assert_eq!(events[1].process.as_ref().unwrap().ancestry.as_deref(), Some("/init/new"));
}

#[test]
fn after_a_reboot_everything_has_ended_unseen_and_the_first_sweep_is_a_baseline() {
    let mut before = tracker();
    whole(&mut before, 10, [process(1, 0, "init", 0)]);
    let mut after = Tracker::new("procfs", "another boot", Limits::default());
    after.import(&exported(&before)).unwrap();
    let mut init = process(1, 0, "init", 0);
    init.entity_id = EntityId::derive("another boot", 1, 0).as_bytes().to_vec();
    let events = whole(&mut after, 100, [init]);
    assert_eq!(kinds(&events), [(EventType::Stop, 1), (EventType::Start, 1)]);
    assert_eq!((events[0].end_observed, events[1].start_kind()), (Some(false), StartKind::Baseline));
}

#[test]
fn a_replayed_log_gives_the_same_state_as_the_run_that_wrote_it() {
    let mut run = tracker();
    let (init, shell) = (process(1, 0, "init", 0), process(2, 1, "sh", 1));
    let mut log = whole(&mut run, 10, [init.clone(), shell.clone()]);
    log.extend(whole(&mut run, 15, [init.clone(), process(3, 1, "cp", 12)]));
    let deleted = ProcessRecord { deleted_executable: Some(true), ..process(3, 1, "cp", 12) };
    log.extend(whole(&mut run, 20, [init.clone(), deleted.clone()]));
    let mut replayed = tracker();
    for event in log {
        replayed.apply(Input::Replay(Box::new(event)), &mut |_| unreachable!());
    }
    assert_eq!(whole(&mut replayed, 25, [init.clone(), deleted.clone()]), []);
    assert_eq!(whole(&mut replayed, 30, [init, deleted, process(4, 1, "n", 26)])[0].start_kind(), StartKind::Exec);
}

#[test]
fn a_damaged_state_is_refused_and_leaves_the_tracker_empty() {
    let mut before = tracker();
    whole(&mut before, 10, [process(1, 0, "init", 0), process(2, 1, "a", 1)]);
    let bytes = exported(&before);
    for end in 0..bytes.len() {
        let mut after = tracker();
        assert!(after.import(&bytes[..end]).is_err(), "cut at {end}");
        assert!(after.is_empty());
    }
}

#[test]
fn a_process_that_the_tracker_does_not_know_is_asked_for() {
    let mut tracker = tracker();
    let stranger = process(77, 1, "x", 1);
    let vitals = Vitals { entity: id(&stranger), pid: 77, status: "idle", cpu_usage: None, memory_usage: None };
    assert_eq!(sweep(&mut tracker, 10, true, vec![Sighting::Same(vitals)]), []);
    assert_eq!(tracker.take_unknown(), [77]);
    assert_eq!(tracker.take_unknown(), Vec::<u32>::new());
}

#[test]
fn under_pressure_the_dead_go_first_and_then_the_long_fields_and_both_are_counted() {
    let mut tracker = Tracker::new("procfs", "boot", Limits { bytes: 8_000, dead_us: i64::MAX });
    let many: Vec<_> = (1..=12).map(|pid| process(pid, 0, "x", 1)).collect();
    whole(&mut tracker, 10, many);
    whole(&mut tracker, 15, []);
    let long: Vec<_> = (21..=60)
        .map(|pid| ProcessRecord { command_line: Some("y".repeat(400)), ..process(pid, 0, "x", 11) })
        .collect();
    assert_eq!(whole(&mut tracker, 20, long.clone()).len(), 40);
    let counters = tracker.counters();
    assert!(counters.evicted > 0 && counters.slimmed > 0, "{counters:?}");
    // No identity was lost: the next sweep announces nobody.
    assert_eq!(whole(&mut tracker, 25, long), []);
}

#[test]
fn an_ancestry_keeps_the_sixteen_names_nearest_to_the_process() {
    let mut tracker = tracker();
    let chain: Vec<_> = (1..=20).map(|pid| process(pid, pid - 1, &format!("p{pid}"), i64::from(pid))).collect();
    let events = whole(&mut tracker, 100, chain);
    let deepest = events[19].process.as_ref().unwrap().ancestry.clone().unwrap();
    assert_eq!(deepest.matches('/').count(), ANCESTRY_NAMES);
    assert!(deepest.starts_with("/p5/") && deepest.ends_with("/p20"), "{deepest}");
}

#[test]
fn processes_that_claim_each_other_as_parents_all_start() {
    let events = whole(&mut tracker(), 10, [process(1, 2, "a", 1), process(2, 1, "b", 1), process(3, 3, "c", 1)]);
    assert_eq!(events.len(), 3);
}

/// How a process looks; an exec that leaves all of it as it was is no event.
fn shown(event: &ProcessEvent) -> (String, Option<String>, Option<String>) {
    let process = event.process.clone().unwrap();
    (process.name, process.executable_path, process.command_line)
}

#[derive(Debug, Clone)]
struct Step {
    present: Vec<(u32, i64, bool, u64)>,
    complete: bool,
    restart: bool,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let seen = (1u32..8, 0i64..3, any::<bool>(), 0u64..5);
    let step = (proptest::collection::vec(seen, 0..8), any::<bool>(), proptest::bool::weighted(0.2))
        .prop_map(|(present, complete, restart)| Step { present, complete, restart });
    proptest::collection::vec(step, 1..12)
}

proptest! {
    #[test]
    fn no_image_of_an_entity_starts_twice_in_a_row_and_no_entity_stops_twice(steps in steps()) {
        let mut tracker = tracker();
        let (mut started, mut stopped) = (Map::new(), HashSet::new());
        // A pid's start times only grow, as the kernel guarantees.
        let mut newest: Map<u32, i64> = Map::new();
        for (at, step) in steps.into_iter().enumerate() {
            if step.restart {
                let state = exported(&tracker);
                tracker = self::tracker();
                tracker.import(&state).unwrap();
            }
            let mut sightings = Vec::new();
            for (pid, later, ended, address) in step.present {
                let start = newest.entry(pid).or_insert(1);
                // An entity that has stopped does not come back; a real table would show a later start.
                while *start < later || stopped.contains(&id(&process(pid, 0, "p", *start))) {
                    *start += 1;
                }
                let mut record = process(pid, pid / 2, if ended { "q" } else { "p" }, *start);
                record.command_line = Some(format!("p {}", address / 2));
                sightings.push(if address == 0 { read(&record) } else { read_image(&record, address) });
                if ended {
                    sightings.push(Sighting::Ended { entity: id(&record), pid, exit_code: None });
                }
            }
            for event in sweep(&mut tracker, 100 + i64::try_from(at).unwrap(), step.complete, sightings) {
                let entity = id(event.process.as_ref().unwrap());
                match event.event_type() {
                    EventType::Start => {
                        let again = event.start_kind() == StartKind::Exec && !event.modified_fields.is_empty();
                        prop_assert!(!stopped.contains(&entity), "{entity} started after its stop");
                        let image = shown(&event);
                        let former = started.insert(entity, image.clone());
                        prop_assert_eq!(former.is_some(), again);
                        prop_assert!(former != Some(image), "two starts of one image of {}", entity);
                    }
                    EventType::Stop => {
                        prop_assert!(started.contains_key(&entity), "{entity} stopped without a start");
                        prop_assert!(stopped.insert(entity), "two stops of {entity}");
                    }
                    _ => {
                        prop_assert!(!stopped.contains(&entity));
                        prop_assert!(started.insert(entity, shown(&event)).is_some());
                    }
                }
            }
        }
    }

    #[test]
    fn foreign_bytes_are_no_state(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        let mut tracker = tracker();
        prop_assert!(tracker.import(&bytes).is_ok() || tracker.is_empty());
    }
}
