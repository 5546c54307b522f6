//! Files and file systems that do not answer hold up nobody else.

use super::*;

#[test]
fn reads_that_never_come_back_hold_up_nobody_and_are_bounded() {
    let gate = Arc::new(Gate::default());
    let table = Table { gate: Arc::clone(&gate), ..Table::default() };
    let stall = Duration::from_millis(5);
    let options = HashOptions { file_deadline: DEADLINE, stall, threads: 3, ..HashOptions::default() };
    let (hasher, answers) = started(Some(Box::new(table)), options);
    // Two files of a dead mount; the third has its answer while they hang.
    for pid in [1, 2, 300] {
        assert_eq!(asked(&hasher, wish(pid)), None);
    }
    assert_eq!(status_of(&answers, 300), HashStatus::Ok);
    assert_eq!(answers.recv_timeout(Duration::ZERO), Err(RecvTimeoutError::Timeout));
    gate.open();
    assert_eq!([1, 2].map(|_| answers.recv_timeout(DEADLINE).unwrap().answer.status), [HashStatus::Ok; 2]);
}

#[test]
fn a_file_system_that_does_not_answer_holds_up_nobody_who_asks_and_no_other_file() {
    let gate = Arc::new(Gate::default());
    let table = Table { gate: Arc::clone(&gate), lost: vec![300, 301, 302], ..Table::default() };
    let brief = Duration::from_millis(500);
    let options = HashOptions { file_deadline: 4 * brief, stall: brief, threads: 3, ..HashOptions::default() };
    let (hasher, answers) = started(Some(Box::new(table)), options);
    // One that nobody has looked at, and one that the kernel has shown: neither look comes back.
    let shown = HashWish { file: Some(key(301, 301, 8)), ..wish(301) };
    assert_eq!([hasher.ask(wish(300)), hasher.ask(shown.clone()), hasher.ask(shown.clone())], [None, None, None]);
    let other = HashWish { file: Some(key(400, 400, 8)), ..wish(400) };
    assert_eq!(hasher.ask(other), None);
    let mut told: Vec<_> = (0..4).map(|_| answers.recv_timeout(DEADLINE).unwrap()).collect();
    told.sort_by_key(|hashed| hashed.pid);
    let told: Vec<_> = told.into_iter().map(|hashed| (hashed.pid, hashed.answer.status)).collect();
    let late = HashStatus::Timeout;
    assert_eq!(told, [(300, late), (301, late), (301, late), (400, HashStatus::Ok)]);
    // Its device is left alone; when every thread that finds files hangs, none is looked for.
    assert_eq!(hasher.ask(shown).unwrap().status, HashStatus::Stalled);
    assert_eq!(hasher.ask(HashWish { file: Some(key(302, 302, 8)), ..wish(302) }), None);
    assert_eq!(status_of(&answers, 302), HashStatus::Timeout);
    assert_eq!(hasher.ask(wish(401)), None);
    assert_eq!(status_of(&answers, 401), HashStatus::Stalled);
    assert_eq!(hasher.counters().left_behind, 3);
    gate.open();
    let end = Instant::now() + DEADLINE;
    while hasher.counters().left_behind > 0 && Instant::now() < end {
        std::thread::yield_now();
    }
    assert_eq!(hasher.ask(wish(402)), None);
    assert_eq!(status_of(&answers, 402), HashStatus::Ok);
    assert_eq!(answers.recv_timeout(Duration::ZERO), Err(RecvTimeoutError::Timeout), "each once");
}

#[test]
fn a_read_that_takes_too_long_is_given_up_and_its_device_left_alone_until_it_answers() {
    let gate = Arc::new(Gate::default());
    let table = Table { gate: Arc::clone(&gate), ..Table::default() };
    let brief = Duration::from_millis(500);
    let options = HashOptions { file_deadline: brief, stall: brief / 4, threads: 2, ..HashOptions::default() };
    let (hasher, answers) = started(Some(Box::new(table)), options);
    assert_eq!(asked(&hasher, wish(1)), None);
    assert_eq!(status_of(&answers, 1), HashStatus::Timeout);
    assert_eq!(asked(&hasher, wish(2)).unwrap().status, HashStatus::Stalled);
    // Another device still works, until the last thread hangs too.
    assert_eq!(asked(&hasher, wish(300)), None);
    assert_eq!(status_of(&answers, 300), HashStatus::Ok);
    assert_eq!(asked(&hasher, wish(120)), None);
    assert_eq!(status_of(&answers, 120), HashStatus::Timeout);
    assert_eq!(asked(&hasher, wish(301)), None);
    assert_eq!(status_of(&answers, 301), HashStatus::Stalled);
    assert_eq!((hasher.counters().timeouts, hasher.counters().left_behind), (2, 2));
    gate.open();
    let end = Instant::now() + DEADLINE;
    while hasher.counters().left_behind > 0 && Instant::now() < end {
        std::thread::yield_now();
    }
    assert_eq!(asked(&hasher, wish(302)), None);
    assert_eq!(status_of(&answers, 302), HashStatus::Ok);
}

#[test]
fn a_file_that_took_too_long_is_skipped_the_next_time() {
    // Eight chunks at eight chunks a second; the bound in whole seconds lets it in.
    let slow = Found { key: key(300, 300, 8 * file::CHUNK_BYTES as u64), regular: true };
    let table = Table { found: [(300, slow), (301, slow)].into(), ..Table::default() };
    let options = HashOptions {
        bytes_per_second: slow.key.size + 1,
        file_deadline: Duration::from_millis(600),
        ..HashOptions::default()
    };
    let (hasher, answers) = started(Some(Box::new(table)), options);
    assert_eq!(asked(&hasher, wish(300)), None);
    assert_eq!(status_of(&answers, 300), HashStatus::Timeout);
    assert_eq!(asked(&hasher, wish(301)).unwrap().status, HashStatus::Timeout);
}
