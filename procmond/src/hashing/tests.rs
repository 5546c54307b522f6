mod stalls;

use super::file::{FileKey, Found, Opened, Source, Waiting};
use super::*;
use std::collections::HashMap;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Condvar, Mutex};
use std::time::Instant;

/// Far more than anything here takes, so that only a real fault meets it.
const DEADLINE: Duration = Duration::from_secs(30);

fn entity(number: u64) -> EntityId {
    EntityId::derive("boot", 1, number)
}

fn started(source: Option<Box<dyn Source>>, options: HashOptions) -> (Hasher, Receiver<Hashed>) {
    let (sender, answers) = channel();
    let sender: Mutex<Sender<Hashed>> = Mutex::new(sender);
    let deliver: Deliver = Box::new(move |hashed| sender.lock().unwrap().send(hashed).unwrap_or_default());
    let source = source.unwrap_or_else(|| Box::new(system::Executables));
    (Hasher::over(source, options, deliver).unwrap(), answers)
}

/// One whose every look hangs until the sender goes; its answers go nowhere.
pub(crate) fn that_hangs() -> (Sender<()>, Hasher) {
    struct Gone(Mutex<Receiver<()>>);
    impl Source for Gone {
        fn find(&self, _wish: &HashWish) -> Result<Found, HashStatus> {
            self.0.lock().unwrap().recv().unwrap_err();
            Err(HashStatus::Unreadable)
        }
        fn hold(&self, _: FileKey, wish: &HashWish, _: bool) -> Result<(FileKey, Box<dyn Waiting>), HashStatus> {
            Err(self.find(wish).unwrap_err())
        }
    }
    let (let_go, held) = channel();
    let source = Box::new(Gone(Mutex::new(held)));
    (let_go, Hasher::over(source, HashOptions::default(), Box::new(|_hashed| {})).unwrap())
}

/// Looks at the file as whoever scans does, asks, and returns when it is found.
fn asked(hasher: &Hasher, wish: HashWish) -> Option<Answer> {
    let file = match wish.file.map_or_else(|| hasher.look(&wish), Ok) {
        Ok(file) => Some(file),
        Err(status) => return Some(Answer::without(status)),
    };
    let answer = hasher.ask(HashWish { file, ..wish });
    while hasher.pool.state().seeking.is_busy() {
        std::thread::yield_now();
    }
    answer
}

/// A program that runs until the test is over.
struct Running(Child, PathBuf);

impl Running {
    fn copy_of(original: &str, path: PathBuf) -> Self {
        // Not copied by this process: a test beside this one may fork while the file is open for writing.
        assert!(Command::new("cp").args([Path::new(original), &path]).status().unwrap().success());
        Self::of(path)
    }

    fn of(path: PathBuf) -> Self {
        let child = Command::new(&path).arg("300").stdin(Stdio::null()).spawn().unwrap();
        Self(child, path)
    }

    fn wish(&self, number: u64) -> HashWish {
        let path = self.1.to_str().unwrap().to_owned();
        HashWish { entity: entity(number), pid: self.0.id(), executable_path: path, uid: None, file: None }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.0.kill().ok();
        self.0.wait().ok();
    }
}

fn sha256sum(path: &Path) -> String {
    let out = Command::new("sha256sum").arg(path).output().unwrap();
    String::from_utf8(out.stdout).unwrap()[..64].to_owned()
}

#[test]
fn the_hash_is_that_of_sha256sum_also_when_the_file_is_deleted_and_the_process_gone() {
    let dir = tempfile::tempdir().unwrap();
    let (hasher, answers) = started(None, HashOptions::default());
    let mut running = Running::copy_of("/bin/sleep", dir.path().join("sleeper"));
    let expected = sha256sum(&running.1);
    std::fs::remove_file(&running.1).unwrap();
    assert_eq!(asked(&hasher, running.wish(1)), None);
    running.0.kill().unwrap();
    running.0.wait().unwrap();
    let hashed = answers.recv_timeout(DEADLINE).unwrap();
    assert_eq!(hashed.answer, Answer { hash: Some(expected), status: HashStatus::Ok });
    assert_eq!((hashed.entity, hashed.executable_path), (entity(1), running.1.to_str().unwrap().to_owned()));
    assert_eq!(asked(&hasher, running.wish(2)).unwrap().status, HashStatus::Vanished);
}

#[test]
fn a_file_that_was_hashed_is_answered_at_once() {
    let (hasher, answers) = started(None, HashOptions::default());
    // The system's own program: its file has not changed for a while.
    let path = std::fs::canonicalize("/bin/sleep").unwrap();
    let (first, second) = (Running::of(path.clone()), Running::of(path));
    let hash = asked(&hasher, first.wish(1)).unwrap_or_else(|| answers.recv_timeout(DEADLINE).unwrap().answer);
    assert_eq!(asked(&hasher, second.wish(2)), Some(hash));
    assert_eq!(hasher.counters().hashed, 1);
}

#[test]
fn a_process_that_runs_something_else_by_now_is_not_hashed_for_it() {
    let (hasher, _answers) = started(None, HashOptions::default());
    let running = Running::of(std::fs::canonicalize("/bin/sleep").unwrap());
    let wish = HashWish { executable_path: "/bin/other".to_owned(), ..running.wish(1) };
    assert_eq!(asked(&hasher, wish).unwrap().status, HashStatus::Vanished);
}

/// Files that are put in the place of executables, by pid.
#[derive(Default)]
struct Table {
    files: HashMap<u32, PathBuf>,
    found: HashMap<u32, Found>,
    gate: Arc<Gate>,
    /// Looking at and taking hold of the executables of these comes back when the gate opens.
    lost: Vec<u32>,
}

impl Table {
    fn answers(&self, pid: u32) {
        if self.lost.contains(&pid) {
            self.gate.wait();
        }
    }
}

/// Reads of some files come back when it opens.
#[derive(Default)]
struct Gate {
    open: Mutex<bool>,
    changed: Condvar,
}

impl Gate {
    fn wait(&self) {
        drop(self.changed.wait_while(self.open.lock().unwrap(), |open| !*open).unwrap());
    }

    fn open(&self) {
        *self.open.lock().unwrap() = true;
        self.changed.notify_all();
    }
}

struct File {
    key: FileKey,
    gate: Option<Arc<Gate>>,
    left: u64,
}

impl Waiting for File {
    fn open(&self) -> Result<Box<dyn Opened>, HashStatus> {
        Ok(Box::new(Self { key: self.key, gate: self.gate.clone(), left: self.left }))
    }

    fn still_runs(&self) -> bool {
        true
    }
}

impl Opened for File {
    fn key(&self) -> Result<FileKey, HashStatus> {
        Ok(self.key)
    }
}

impl Read for File {
    fn read(&mut self, chunk: &mut [u8]) -> io::Result<usize> {
        if let Some(gate) = &self.gate {
            gate.wait();
        }
        let read = usize::try_from(self.left).unwrap().min(chunk.len());
        self.left -= read as u64;
        Ok(read)
    }
}

const fn key(device: u32, inode: u64, size: u64) -> FileKey {
    FileKey { device: (0, device), inode, size, modified: (0, 0), changed: (0, 0) }
}

/// Pids below 100 hang on device 1, each with its own file; pids from 200 lead to real paths.
impl Source for Table {
    fn find(&self, wish: &HashWish) -> Result<Found, HashStatus> {
        self.answers(wish.pid);
        if let Some(path) = self.files.get(&wish.pid) {
            return system::look(path.to_str().unwrap());
        }
        if let Some(found) = self.found.get(&wish.pid) {
            return Ok(*found);
        }
        Ok(Found { key: key(if wish.pid < 100 { 1 } else { wish.pid }, wish.pid.into(), 8), regular: true })
    }

    fn hold(&self, key: FileKey, wish: &HashWish, _pinned: bool) -> Result<(FileKey, Box<dyn Waiting>), HashStatus> {
        self.answers(wish.pid);
        if let Some(path) = self.files.get(&wish.pid) {
            return Ok((key, system::held(key, path.to_str().unwrap())?));
        }
        let gate = (wish.pid < 150).then(|| Arc::clone(&self.gate));
        Ok((key, Box::new(File { key, gate, left: key.size })))
    }
}

fn wish(pid: u32) -> HashWish {
    HashWish { entity: entity(pid.into()), pid, executable_path: "/x".to_owned(), uid: None, file: None }
}

fn status_of(answers: &Receiver<Hashed>, pid: u32) -> HashStatus {
    let hashed = answers.recv_timeout(DEADLINE).unwrap();
    assert_eq!(hashed.entity, entity(pid.into()));
    hashed.answer.status
}

#[test]
fn huge_and_strange_files_are_answered_without_being_opened() {
    let dir = tempfile::tempdir().unwrap();
    let (sparse, fifo) = (dir.path().join("sparse"), dir.path().join("fifo"));
    std::fs::File::create(&sparse).unwrap().set_len(200 * 1024 * 1024 * 1024).unwrap();
    assert!(Command::new("mkfifo").arg(&fifo).status().unwrap().success());
    let slow = key(9, 9, 500 * 1024 * 1024);
    let table = Table {
        files: [(200, sparse), (201, fifo), (202, PathBuf::from("/dev/zero")), (203, dir.path().to_owned())].into(),
        found: [(204, Found { key: slow, regular: true })].into(),
        ..Table::default()
    };
    let options = HashOptions { bytes_per_second: 1024 * 1024, ..HashOptions::default() };
    let (hasher, _answers) = started(Some(Box::new(table)), options);
    let status = |pid| asked(&hasher, wish(pid)).unwrap().status;
    assert_eq!(status(200), HashStatus::TooLarge);
    assert_eq!([status(201), status(202), status(203)], [HashStatus::NotRegular; 3]);
    assert_eq!(status(204), HashStatus::Budget);
}

#[test]
fn a_file_that_is_written_or_replaced_before_it_is_read_has_no_hash() {
    let dir = tempfile::tempdir().unwrap();
    let paths = ["written", "replaced", "pipe"].map(|name| dir.path().join(name));
    for path in &paths {
        std::fs::write(path, "before").unwrap();
    }
    let files = (200..).zip(paths.clone()).collect();
    let table = Table { files, ..Table::default() };
    let keys: Vec<FileKey> = (200..203).map(|pid| table.find(&wish(pid)).unwrap().key).collect();
    std::fs::write(&paths[0], "and after").unwrap();
    std::fs::write(dir.path().join("new"), "before").unwrap();
    std::fs::rename(dir.path().join("new"), &paths[1]).unwrap();
    std::fs::remove_file(&paths[2]).unwrap();
    assert!(Command::new("mkfifo").arg(&paths[2]).status().unwrap().success());
    let outcome = |at: usize| {
        let file = system::held(keys[at], paths[at].to_str().unwrap())?;
        file::hash(file.as_ref(), keys[at], &mut |_bytes| Ok(()))
    };
    assert_eq!(outcome(0), Err(HashStatus::Changed));
    assert_eq!(outcome(1), Err(HashStatus::Vanished));
    // Opening a pipe for reading would wait for a writer.
    assert_eq!(outcome(2), Err(HashStatus::Vanished));
}

#[test]
fn a_file_that_changes_while_it_is_read_has_no_hash() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("file");
    std::fs::write(&path, vec![7; 300 * 1024]).unwrap();
    let key = system::look(path.to_str().unwrap()).unwrap().key;
    let file = system::held(key, path.to_str().unwrap()).unwrap();
    let mut chunks = 0;
    let outcome = file::hash(file.as_ref(), key, &mut |_bytes| {
        chunks += 1;
        if chunks == 2 {
            std::fs::write(&path, vec![8; 300 * 1024]).unwrap();
        }
        Ok(())
    });
    assert_eq!(outcome, Err(HashStatus::Changed));
}

#[test]
fn a_program_that_changes_the_mode_of_its_own_file_all_the_time_has_its_hash() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("restless");
    assert!(Command::new("cp").arg("/bin/sh").arg(&path).status().unwrap().success());
    let script = "while :; do chmod 711 \"$0\"; ln \"$0\" \"$0.2\"; rm \"$0.2\"; done";
    let child = Command::new(&path).args(["-c", script]).arg(&path).stdin(Stdio::null()).spawn().unwrap();
    let running = Running(child, path.clone());
    let key = || system::look(path.to_str().unwrap()).unwrap().key;
    let changes = |since: FileKey| {
        let end = Instant::now() + DEADLINE;
        while key().changed == since.changed {
            assert!(Instant::now() < end, "it runs");
            std::thread::yield_now();
        }
    };
    let first = key();
    changes(first);
    let (_, file) = system::Executables.hold(first, &running.wish(1), true).unwrap();
    let outcome = file::hash(file.as_ref(), first, &mut |_bytes| {
        changes(key());
        Ok(())
    });
    assert_eq!(outcome, Ok((None, hex(&sha256sum(&path)))), "and is not remembered under a time that has passed");

    let second = key();
    changes(second);
    drop(running);
    let after = file::hash(file.as_ref(), second, &mut |_bytes| Ok(()));
    assert_eq!(after, Err(HashStatus::Changed), "nothing keeps others from writing to it now");
}

fn hex(text: &str) -> [u8; 32] {
    std::array::from_fn(|at| u8::from_str_radix(&text[2 * at..2 * at + 2], 16).unwrap())
}

#[test]
fn a_storm_of_one_program_is_one_read_and_the_queue_has_a_bound() {
    let gate = Arc::new(Gate::default());
    let table = Table { gate: Arc::clone(&gate), ..Table::default() };
    let options = HashOptions { file_deadline: DEADLINE, threads: 1, queue: 1, ..HashOptions::default() };
    let (hasher, answers) = started(Some(Box::new(table)), options);
    assert_eq!(asked(&hasher, wish(101)), None);
    let same = HashWish { entity: entity(7), ..wish(101) };
    assert_eq!(asked(&hasher, same), None);
    while hasher.pool.waiting() > 0 {
        std::thread::yield_now();
    }
    assert_eq!([102, 103, 104].map(|pid| asked(&hasher, wish(pid))), [None, None, None]);
    let full = [103, 104].map(|_| answers.recv_timeout(DEADLINE).unwrap().answer.status);
    assert_eq!((full, hasher.counters().shed), ([HashStatus::QueueFull; 2], 2));
    gate.open();
    let answered: Vec<EntityId> = (0..2).map(|_| answers.recv_timeout(DEADLINE).unwrap().entity).collect();
    assert_eq!(answered, [entity(101), entity(7)]);
}

#[test]
fn a_program_that_has_ended_is_hashed_by_its_path_if_that_still_leads_to_it() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("dropper");
    std::fs::write(&path, "payload").unwrap();
    let file = system::look(path.to_str().unwrap()).unwrap().key;
    let (hasher, answers) = started(None, HashOptions::default());
    // No process has this pid, as when the program was over before anybody looked.
    let gone = |number, file: FileKey| HashWish {
        entity: entity(number),
        pid: u32::MAX,
        executable_path: path.to_str().unwrap().to_owned(),
        uid: Some(0),
        file: Some(file),
    };
    let outcome = |wish| asked(&hasher, wish).unwrap_or_else(|| answers.recv_timeout(DEADLINE).unwrap().answer);
    assert_eq!(outcome(gone(1, file)).hash, Some(sha256sum(&path)));
    let elsewhere = FileKey { device: (file.device.0, file.device.1 + 1), ..file };
    assert_eq!(outcome(gone(2, elsewhere)).status, HashStatus::Vanished);
    assert_eq!(outcome(gone(3, FileKey { inode: file.inode + 1, ..file })).status, HashStatus::Vanished);
    assert_eq!(outcome(gone(4, FileKey { changed: (1, 1), ..file })).status, HashStatus::Changed);
    assert_eq!(asked(&hasher, HashWish { file: None, ..gone(5, file) }).unwrap().status, HashStatus::Vanished);
}

#[test]
fn a_file_system_that_shows_another_device_than_the_kernel_keeps_is_hashed_while_the_program_runs() {
    let (hasher, answers) = started(None, HashOptions::default());
    let path = std::fs::canonicalize("/bin/sleep").unwrap();
    let (running, shown) = (Running::of(path.clone()), system::look(path.to_str().unwrap()).unwrap().key);
    let kept = FileKey { device: (0, 999), ..shown };
    let wish = |number| HashWish { file: Some(kept), ..running.wish(number) };
    assert_eq!(asked(&hasher, wish(1)), None);
    assert_eq!(answers.recv_timeout(DEADLINE).unwrap().answer.hash, Some(sha256sum(&path)));
    // What was learned is filed under what was seen, never under what could not be verified.
    assert_eq!(asked(&hasher, HashWish { pid: u32::MAX, ..wish(2) }), None);
    assert_eq!(answers.recv_timeout(DEADLINE).unwrap().answer.status, HashStatus::Vanished);
    assert_eq!(
        asked(&hasher, HashWish { pid: u32::MAX, file: Some(shown), ..wish(3) }).unwrap().hash,
        Some(sha256sum(&path))
    );
}

#[test]
fn small_files_and_other_users_do_not_wait_for_large_ones() {
    let gate = Arc::new(Gate::default());
    let size = |pid, bytes| (pid, Found { key: key(pid, pid.into(), bytes), regular: true });
    let found = [size(300, 3_000), size(301, 2_000), size(302, 10), size(303, 9_000), size(304, 8_000)].into();
    let table = Table { gate: Arc::clone(&gate), found, ..Table::default() };
    let options = HashOptions { file_deadline: DEADLINE, threads: 1, ..HashOptions::default() };
    let (hasher, answers) = started(Some(Box::new(table)), options);
    assert_eq!(asked(&hasher, HashWish { uid: Some(0), ..wish(101) }), None);
    while hasher.pool.waiting() > 0 {
        std::thread::yield_now();
    }
    for (pid, uid) in [(300, 7), (301, 7), (302, 7), (303, 9), (304, 9)] {
        assert_eq!(asked(&hasher, HashWish { uid: Some(uid), ..wish(pid) }), None);
    }
    gate.open();
    let order: Vec<u32> = (0..6).map(|_| answers.recv_timeout(DEADLINE).unwrap().pid).collect();
    assert_eq!(order, [101, 302, 304, 301, 303, 300]);
}

#[test]
fn a_user_who_fills_half_of_the_queue_displaces_only_larger_files_of_their_own() {
    let gate = Arc::new(Gate::default());
    let size = |pid, bytes| (pid, Found { key: key(pid, pid.into(), bytes), regular: true });
    let found = [size(300, 3_000), size(301, 2_000), size(302, 10), size(303, 9_000)].into();
    let table = Table { gate: Arc::clone(&gate), found, ..Table::default() };
    let options = HashOptions { file_deadline: DEADLINE, threads: 1, queue: 4, ..HashOptions::default() };
    let (hasher, answers) = started(Some(Box::new(table)), options);
    let ask = |pid, uid| asked(&hasher, HashWish { uid: Some(uid), ..wish(pid) }).map(|answer| answer.status);
    assert_eq!(ask(101, 0), None);
    while hasher.pool.waiting() > 0 {
        std::thread::yield_now();
    }
    assert_eq!([ask(300, 7), ask(301, 7), ask(302, 7)], [None; 3]);
    assert_eq!(answers.recv_timeout(DEADLINE).unwrap().answer.status, HashStatus::QueueFull);
    assert_eq!(ask(303, 7), None);
    assert_eq!(answers.recv_timeout(DEADLINE).unwrap().answer.status, HashStatus::QueueFull);
    assert_eq!(ask(303, 9), None);
    gate.open();
    let rest: Vec<u32> = (0..4).map(|_| answers.recv_timeout(DEADLINE).unwrap().pid).collect();
    assert_eq!(rest, [101, 302, 303, 301]);
}
