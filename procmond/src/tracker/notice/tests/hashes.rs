//! Hashes, which come whenever they are ready.

use super::*;

#[test]
fn a_hash_that_comes_before_the_start_of_its_process_is_part_of_it() {
    let mut host = Host::new();
    let found = ProcessRecord { executable_path: Some("/bin/sh".into()), ..record(7, 1, "sh", 15) };
    host.begin(20);
    host.see(&found);
    assert_eq!(host.hash(&found, "/bin/sh"), []);
    host.see(&record(1, 0, "init", 5));
    let events = host.end();
    let hashes: Vec<_> =
        events.iter().map(|event| event.process.as_ref().unwrap().executable_hash.as_deref()).collect();
    assert_eq!(hashes, [Some("00")]);
}

#[test]
fn a_hash_is_not_the_first_that_is_heard_of_a_process_that_was_dead_at_the_baseline() {
    let mut host = Host::unseen();
    let dead = record(7, 1, "sh", 15);
    host.begin(20);
    host.see(&dead);
    host.see_dead(&dead);
    assert_eq!(host.end(), []);
    assert_eq!(host.hash(&dead, "/bin/sh"), []);
}

#[test]
fn a_hash_that_comes_late_is_a_change_and_one_of_another_image_is_nothing() {
    let mut host = Host::new();
    let child = host.fork(20, 1, 7).remove(0).process.unwrap();
    assert_eq!(host.hash(&child, "/bin/other"), []);
    let event = host.hash(&child, "/bin/init");
    assert_eq!(host.hash(&child, "/bin/init"), []);
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
    let child = log[0].process.clone().unwrap();
    let told: Vec<_> =
        ["/bin/init", "/bin/init", "/bin/other"].into_iter().flat_map(|path| host.hash(&child, path)).collect();
    let [event] = told.as_slice() else { panic!("{told:?}") };
    let process = event.process.as_ref().unwrap();
    assert_eq!((process.executable_hash.as_deref(), process.status.as_deref()), (Some("00"), Some("dead")));
    assert_eq!(host.tracker.counters().unclaimed, 1);
    let again = Host::after(log.into_iter().chain(told));
    assert_eq!(again.tracker.len(), Host::new().tracker.len());
}
