//! The eBPF source against real processes. Needs root (or the capabilities BPF and PERFMON) and a kernel with BTF; where it
//! does not load, each test says why and passes. A program of its own: beside the storms that other tests make, what was lost
//! and what was missed would not be seen up to the same point.
#![cfg(all(target_os = "linux", feature = "kernel-monitoring"))]
#![expect(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "helpers of an integration test")]

use std::collections::HashMap;
use std::ffi::OsStr;
use std::io::{BufRead as _, BufReader};
use std::os::fd::AsRawFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use daemoneye_lib::entity::EntityId;
use daemoneye_lib::proto::{Capture, ProcessRecord};
use procmond::collector::{Image, Sighting};
use procmond::hashing::{HashOptions, HashWish, Hasher};
use procmond::kernel::{KernelSource, KernelSourceError, Notice, What};
use procmond::sources::ebpf::{self, Ebpf, RING_BYTES};
use skip::skipped;

#[path = "../../daemoneye-lib/tests/jail/skip.rs"]
mod skip;

/// How long a notice may take on a machine that compiles beside the tests.
const PATIENCE: Duration = Duration::from_secs(180);

/// Not by this process: a test beside this one may fork while the file is open for writing, and then it is busy.
fn copy(program: &str, to: &Path) {
    assert!(Command::new("cp").arg(program).arg(to).status().unwrap().success());
}

fn boot_id() -> String {
    std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap().trim().to_owned()
}

fn source(ring_bytes: u32) -> Option<Ebpf> {
    match ebpf::open(&boot_id(), ring_bytes) {
        Ok(source) => Some(source),
        Err(KernelSourceError::Unavailable { reason, .. }) => {
            skipped(reason);
            None
        }
        Err(error) => panic!("{error}"),
    }
}

/// Receives until `enough` says so of everything seen so far.
fn receive(source: &mut Ebpf, enough: impl Fn(&[Notice]) -> bool) -> Vec<Notice> {
    let (deadline, mut seen) = (Instant::now() + PATIENCE, Vec::new());
    while !enough(&seen) {
        assert!(Instant::now() < deadline, "the awaited notice did not come; {} others did", seen.len());
        source.receive(Duration::from_millis(100), &mut |notice| seen.push(notice)).unwrap();
    }
    seen
}

fn has_exited(pid: u32) -> impl Fn(&[Notice]) -> bool {
    move |seen| seen.iter().any(|notice| notice.pid == pid && matches!(notice.what, What::Exit(_)))
}

fn exec(notice: &Notice) -> Option<&ProcessRecord> {
    match &notice.what {
        What::Exec(record, ..) => Some(record),
        _ => None,
    }
}

/// Runs a command to its end and hands back the notices about it alone.
fn notices_of(source: &mut Ebpf, command: &mut Command) -> Vec<Notice> {
    let mut child = command.stdin(Stdio::null()).stdout(Stdio::null()).spawn().expect("spawn");
    child.wait().expect("wait");
    let pid = child.id();
    let mut seen = receive(source, has_exited(pid));
    seen.retain(|notice| notice.pid == pid);
    seen
}

fn arguments(record: &ProcessRecord) -> Vec<String> {
    let (line, mut at) = (record.command_line.as_deref().unwrap(), 0);
    let argument = |length: &u32| {
        let end = at + usize::try_from(*length).unwrap();
        let argument = line[at..end].to_owned();
        at = end + 1;
        argument
    };
    record.arg_lengths.iter().map(argument).collect()
}

#[test]
fn every_exec_of_a_storm_is_seen_with_its_arguments_or_counted() {
    const STORM: usize = 2000;
    let Some(mut source) = source(RING_BYTES) else { return };
    let spawner = std::thread::spawn(|| {
        let spawn = |n| Command::new("/bin/true").arg(format!("storm{n}")).spawn().expect("spawn");
        let mut children: Vec<_> = (0..STORM).map(spawn).collect();
        children.iter_mut().for_each(|child| drop(child.wait()));
        let last = Command::new("/bin/true").arg("storm-over").status().expect("run");
        assert!(last.success());
    });
    let over = |seen: &[Notice]| {
        seen.iter().any(|n| exec(n).is_some_and(|r| r.command_line.as_deref() == Some("/bin/true storm-over")))
    };
    let seen = receive(&mut source, over);
    spawner.join().unwrap();
    let mut met = vec![false; STORM];
    for record in seen.iter().filter_map(exec) {
        let argument = record.command_line.as_deref().and_then(|line| line.strip_prefix("/bin/true storm"));
        if let Some(at) = argument.and_then(|number| number.parse::<usize>().ok()) {
            assert_eq!((record.capture(), record.name.as_str()), (Capture::Complete, "true"));
            assert!(!std::mem::replace(&mut met[at], true), "storm{at} twice");
        }
    }
    let missing = u64::try_from(met.iter().filter(|met| !**met).count()).unwrap();
    assert!(missing <= source.lost(), "{missing} missing, {} counted as lost", source.lost());
}

/// What tells one notice from every other within a test.
fn key(notice: &Notice) -> (u32, Option<u64>, String) {
    let what = match &notice.what {
        // Not by its arguments: long ones are read later, from whoever is still there.
        What::Exec(record, ..) => format!("exec {:?}", record.exec_filename),
        other => format!("{other:?}"),
    };
    (notice.pid, notice.start_ticks, what)
}

/// How many of all notices, from `first` to the last that was kept, were not kept.
fn missing(all: &[Notice], kept: &[Notice], first: &Notice) -> u64 {
    let mut held: HashMap<_, i64> = HashMap::new();
    for notice in kept {
        *held.entry(key(notice)).or_default() += 1;
    }
    let at = |wanted: &Notice| all.iter().position(|notice| key(notice) == key(wanted)).unwrap();
    let both = at(first)..=at(kept.last().unwrap());
    let is_missing = |notice: &&Notice| {
        let held = held.entry(key(notice)).or_default();
        *held -= 1;
        *held < 0
    };
    all.get(both).unwrap().iter().filter(is_missing).count().try_into().unwrap()
}

#[test]
fn what_a_stalled_reader_loses_is_counted_exactly() {
    // The witness holds everything that happens meanwhile: 3,000 processes leave about 1 MiB.
    let Some(mut witness) = source(32 * 1024 * 1024) else { return };
    let Some(mut stalled) = source(16 * 1024) else { return };
    let mark = |word: &str| assert!(Command::new("/bin/true").arg(word).status().unwrap().success());
    let reached = |word: &'static str| {
        move |seen: &[Notice]| {
            let line = format!("/bin/true {word}");
            seen.iter().any(|notice| exec(notice).is_some_and(|r| r.command_line.as_deref() == Some(&line)))
        }
    };
    mark("before-stall");
    let mut kept = receive(&mut stalled, reached("before-stall"));
    // While its programs were attached one by one it could not see everything.
    let first = kept.iter().find(|notice| reached("before-stall")(std::slice::from_ref(notice))).unwrap().clone();
    for n in 0..1000 {
        mark(&format!("stall{n}"));
    }
    // A loss becomes known with a later record, and others are busy meanwhile: what both have seen to the same point has to
    // agree in the end.
    let (deadline, mut all) = (Instant::now() + PATIENCE, Vec::new());
    loop {
        stalled.receive(Duration::ZERO, &mut |notice| kept.push(notice)).unwrap();
        mark("after-stall");
        stalled.receive(Duration::from_millis(100), &mut |notice| kept.push(notice)).unwrap();
        let last = key(kept.last().unwrap());
        while !all.iter().any(|notice| key(notice) == last) {
            assert!(Instant::now() < deadline, "the witness has not seen {last:?}");
            witness.receive(Duration::from_millis(100), &mut |notice| all.push(notice)).unwrap();
        }
        assert_eq!(witness.lost(), 0, "the witness must miss nothing");
        let (lost, missing) = (stalled.lost(), missing(&all, &kept, &first));
        if reached("after-stall")(&kept) && lost == missing {
            break;
        }
        assert!(Instant::now() < deadline, "{missing} missing, {lost} counted as lost");
    }
    assert!(stalled.lost() > 2000, "{}", stalled.lost());
}

#[test]
fn fork_exec_and_exit_come_in_order_with_one_identity_and_the_exit_code() {
    let Some(mut source) = source(RING_BYTES) else { return };
    for (script, code) in [("exit 0", 0), ("exit 7", 7), ("kill -9 $$", -9)] {
        let seen = notices_of(&mut source, Command::new("/bin/sh").args(["-c", script]));
        let [fork, exec, exit] = seen.as_slice() else { panic!("{seen:?}") };
        assert!(matches!(fork.what, What::Fork { parent, .. } if parent == std::process::id()), "{fork:?}");
        let What::Exec(record, image, _) = &exec.what else { panic!("{exec:?}") };
        assert_eq!(arguments(record), ["/bin/sh", "-c", script]);
        assert_eq!(record.ppid, Some(std::process::id()));
        assert_ne!(*image, Image::UNSEEN);
        assert_eq!(exit.what, What::Exit(Some(code)));
        assert!(seen.iter().all(|notice| notice.start_ticks == fork.start_ticks && fork.start_ticks.is_some()));
        assert!(seen.is_sorted_by_key(|notice| notice.time_us));
    }
}

#[test]
fn threads_are_no_notices() {
    let Some(mut source) = source(RING_BYTES) else { return };
    let us = std::process::id();
    std::thread::scope(|scope| {
        for _ in 0..20 {
            scope.spawn(|| std::hint::black_box(1));
        }
    });
    let mut child = Command::new("/bin/true").spawn().unwrap();
    child.wait().unwrap();
    let seen = receive(&mut source, has_exited(child.id()));
    // The other tests of this program run as threads beside this one and fork children; none of those is our own birth or end.
    let own = |notice: &&Notice| notice.pid == us && matches!(notice.what, What::Exit(_) | What::Fork { .. });
    assert_eq!(seen.iter().find(own), None);
}

#[test]
fn arguments_keep_their_boundaries_and_their_bytes() {
    let Some(mut source) = source(RING_BYTES) else { return };
    let cases: [&[&[u8]]; 4] =
        [&[b"two words", b"", b"a\nb"], &[b"", b""], &[b"caf\xc3\xa9", b"\xff"], &["\u{1f600}".as_bytes()]];
    let shown: [&[&str]; 4] = [&["two words", "", "a\nb"], &["", ""], &["café", "\\xff"], &["\u{1f600}"]];
    for (given, shown) in cases.iter().zip(shown) {
        let mut command = Command::new("/bin/true");
        command.args(given.iter().map(|argument| OsStr::from_bytes(argument)));
        let seen = notices_of(&mut source, &mut command);
        let record = seen.iter().find_map(exec).unwrap();
        assert_eq!(arguments(record)[1..], *shown);
    }
}

#[test]
fn long_arguments_are_completed_from_the_living_process_and_cut_at_the_field_bound() {
    let Some(mut source) = source(RING_BYTES) else { return };
    for (bytes, cut) in [(10_000, false), (100 * 1024, true)] {
        let mut child =
            Command::new("/bin/sleep").arg0("x".repeat(bytes)).arg("60").stdin(Stdio::null()).spawn().unwrap();
        let pid = child.id();
        let seen = receive(&mut source, |seen| seen.iter().any(|n| n.pid == pid && exec(n).is_some()));
        child.kill().unwrap();
        child.wait().unwrap();
        let record = seen.iter().find(|n| n.pid == pid && exec(n).is_some()).and_then(exec).unwrap();
        let line = record.command_line.as_deref().unwrap();
        assert_eq!(record.truncated.contains(&"command_line".to_owned()), cut);
        assert_eq!(record.capture(), Capture::Complete);
        assert_eq!(line.len(), if cut { 32 * 1024 } else { bytes + 3 });
    }
}

#[test]
fn long_arguments_of_a_process_that_is_gone_are_cut_and_marked() {
    let Some(mut source) = source(RING_BYTES) else { return };
    let seen = notices_of(&mut source, Command::new("/bin/true").arg("y".repeat(10_000)));
    let record = seen.iter().find_map(exec).unwrap();
    assert_eq!((record.capture(), record.truncated.as_slice()), (Capture::Partial, &["command_line".to_owned()][..]));
    assert!(record.command_line.as_deref().unwrap().starts_with("/bin/true yyy"));
}

#[test]
fn an_exec_without_a_fork_is_a_new_image_of_the_same_process() {
    let Some(mut source) = source(RING_BYTES) else { return };
    let seen = notices_of(&mut source, Command::new("/bin/sh").args(["-c", "exec /bin/true again"]));
    let execs: Vec<_> = seen.iter().filter(|notice| exec(notice).is_some()).collect();
    let [first, second] = execs.as_slice() else { panic!("{seen:?}") };
    assert_eq!(first.start_ticks, second.start_ticks);
    let (What::Exec(_, before, _), What::Exec(record, after, _)) = (&first.what, &second.what) else { panic!() };
    assert!(before.replaced_by(*after));
    assert_eq!(record.command_line.as_deref(), Some("/bin/true again"));
    // The name that came with a program is told by its exec alone.
    assert!(!seen.iter().any(|notice| matches!(notice.what, What::Rename(_))), "{seen:?}");
}

#[test]
fn a_process_that_renames_itself_is_told() {
    let Some(mut source) = source(RING_BYTES) else { return };
    let seen = notices_of(&mut source, Command::new("/bin/sh").args(["-c", "printf renamed > /proc/$$/comm"]));
    assert!(seen.iter().any(|notice| notice.what == What::Rename("renamed".to_owned())), "{seen:?}");
}

#[test]
fn what_the_kernel_saw_is_what_proc_shows() {
    let Some(mut source) = source(RING_BYTES) else { return };
    let directory = tempfile::tempdir().unwrap();
    let place = directory.path().join("a b");
    std::fs::create_dir(&place).unwrap();
    let mut child = Command::new("/bin/sleep").arg("60").current_dir(&place).stdin(Stdio::null()).spawn().unwrap();
    let pid = child.id();
    let seen = receive(&mut source, |seen| seen.iter().any(|n| n.pid == pid && exec(n).is_some()));
    let mut procfs = procmond::sources::native::open(Path::new("/proc")).unwrap();
    let mut shown = None;
    let each = &mut |sighting| match sighting {
        Sighting::Read(record, image) if record.pid == pid => shown = Some((record, image)),
        _ => {}
    };
    procfs.collect_processes(each).unwrap();
    child.kill().unwrap();
    child.wait().unwrap();
    let notice = seen.iter().find(|n| n.pid == pid && exec(n).is_some()).unwrap();
    let (What::Exec(kernel, kernel_image, _), (proc, proc_image)) = (&notice.what, shown.unwrap()) else { panic!() };
    assert_eq!(*kernel_image, proc_image);
    assert_eq!(EntityId::derive(&boot_id(), pid, notice.start_ticks.unwrap()).as_bytes().as_slice(), proc.entity_id);
    let off_us = kernel.start_time_us.unwrap() - proc.start_time_us.unwrap();
    assert!(off_us.abs() < 1_000_000, "{off_us}");
    let expected = ProcessRecord {
        entity_id: Vec::new(),
        identity: kernel.identity,
        exec_filename: Some("/bin/sleep".to_owned()),
        start_time_us: kernel.start_time_us,
        status: kernel.status.clone(),
        memory_usage: None,
        ..*proc
    };
    assert_eq!(**kernel, expected);
    assert_eq!(kernel.cwd.as_deref(), place.to_str());
}

#[test]
fn deleted_and_memory_executables_are_told_apart() {
    let Some(mut source) = source(RING_BYTES) else { return };
    let memory = rustix::fs::memfd_create("ghost", rustix::fs::MemfdFlags::empty()).unwrap();
    let program = std::fs::read("/bin/true").unwrap();
    rustix::io::write(&memory, &program).unwrap();
    let seen = notices_of(&mut source, &mut Command::new(format!("/proc/self/fd/{}", memory.as_raw_fd())));
    let record = seen.iter().find_map(exec).unwrap();
    assert_eq!((record.memfd, record.deleted_executable), (Some(true), Some(false)));
    assert_eq!(record.executable_path.as_deref(), Some("/memfd:ghost"));

    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("gone");
    copy("/bin/true", &path);
    let open = std::fs::File::open(&path).unwrap();
    rustix::io::fcntl_setfd(&open, rustix::io::FdFlags::empty()).unwrap();
    std::fs::remove_file(&path).unwrap();
    let seen = notices_of(&mut source, &mut Command::new(format!("/proc/self/fd/{}", open.as_raw_fd())));
    let record = seen.iter().find_map(exec).unwrap();
    assert_eq!((record.memfd, record.deleted_executable), (Some(false), Some(true)));
    assert_eq!(record.executable_path.as_deref(), path.to_str());
}

#[test]
fn a_process_that_renames_itself_without_pause_is_told_once_a_second_and_at_its_end() {
    let Some(mut source) = source(RING_BYTES) else { return };
    let script = "i=0; while [ $i -lt 20000 ]; do echo name$i > /proc/$$/comm; i=$((i+1)); done";
    let seen = notices_of(&mut source, Command::new("/bin/sh").args(["-c", script]));
    let renamed: Vec<&str> = seen
        .iter()
        .filter_map(|notice| match &notice.what {
            What::Rename(name) => Some(name.as_str()),
            _ => None,
        })
        .collect();
    let (first, last) = (seen.first().unwrap(), seen.last().unwrap());
    let seconds = usize::try_from((last.time_us - first.time_us) / 1_000_000).unwrap();
    assert!((2..=seconds + 2).contains(&renamed.len()), "{renamed:?} in {seconds} s");
    assert_eq!(renamed.last().map(|name| name.trim_end()), Some("name19999"), "whatever it was called when it ended");
}

#[test]
fn a_child_is_born_with_its_own_credentials() {
    let Some(mut source) = source(RING_BYTES) else { return };
    let script = "$( = $) = 65533; $< = $> = 65534; defined(my $child = fork) or die; $child ? wait : print $$";
    let mut command = Command::new("perl");
    let Ok(output) = command.args(["-e", script]).output() else {
        eprintln!("skipped: this needs perl");
        return;
    };
    let child: u32 = String::from_utf8(output.stdout).unwrap().parse().unwrap();
    let seen = receive(&mut source, has_exited(child));
    let born = seen.iter().find_map(|notice| match &notice.what {
        What::Fork { credentials, .. } if notice.pid == child => credentials.clone(),
        _ => None,
    });
    let born = born.unwrap();
    assert_eq!((born.uid, born.gid, born.euid), (65534, 65533, 65534));
    // Not by `getsid`: who was started by the kernel is in session 0, which is no process.
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap();
    let ours = stat.rsplit_once(')').unwrap().1.split_whitespace().nth(3).unwrap();
    assert_eq!(born.session.to_string(), ours);
}

#[test]
fn a_fresh_program_that_is_over_at_once_gets_its_hash() {
    let Some(mut source) = source(RING_BYTES) else { return };
    let (sender, answers) = std::sync::mpsc::channel();
    let sender = std::sync::Mutex::new(sender);
    let deliver = Box::new(move |hashed| sender.lock().unwrap().send(hashed).unwrap_or_default());
    let hasher = Hasher::start(HashOptions::default(), deliver).unwrap();
    let directory = tempfile::tempdir().unwrap();
    for number in 0..5 {
        let path = directory.path().join(format!("dropper{number}"));
        copy("/bin/true", &path);
        let seen = notices_of(&mut source, &mut Command::new(&path));
        let exec = seen.iter().find_map(|notice| match &notice.what {
            What::Exec(record, _, file) => Some((notice, record, *file)),
            _ => None,
        });
        let (notice, record, file) = exec.unwrap();
        let meta = std::fs::metadata(&path).unwrap();
        let file = file.unwrap();
        assert_eq!((file.inode, file.size), (meta.ino(), meta.size()));
        assert_eq!((file.modified.0, i64::from(file.modified.1)), (meta.mtime(), meta.mtime_nsec()));
        assert_eq!((file.changed.0, i64::from(file.changed.1)), (meta.ctime(), meta.ctime_nsec()));
        let wish = HashWish {
            entity: EntityId::derive(&boot_id(), notice.pid, notice.start_ticks.unwrap()),
            pid: notice.pid,
            executable_path: record.executable_path.clone().unwrap(),
            uid: record.uid,
            file: Some(file),
        };
        let answer = hasher.ask(wish).unwrap_or_else(|| answers.recv_timeout(PATIENCE).unwrap().answer);
        let sum = Command::new("sha256sum").arg(&path).output().unwrap();
        assert_eq!(answer.hash, Some(String::from_utf8(sum.stdout).unwrap()[..64].to_owned()), "{answer:?}");
    }
}

/// Started as an operator would: one run of the program loads, the next one in the same process reads.
#[test]
fn the_memory_that_loading_takes_is_gone_when_the_program_reads() {
    if source(RING_BYTES).is_none() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_procmond"));
    command.args(["--follow", "--source", "ebpf", "--data-dir"]).arg(dir.path()).env("PROCMOND_STANDALONE", "1");
    command.env_remove("DAEMONEYE_HEAP_SET").stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
    let mut child = command.spawn().unwrap();
    let out = BufReader::new(child.stdout.take().unwrap());
    let (sender, lines) = std::sync::mpsc::channel();
    std::thread::spawn(move || out.lines().map_while(Result::ok).try_for_each(|line| sender.send(line)));
    let deadline = Instant::now() + PATIENCE;
    let is_announced = |line: &str| line.contains("handed-over-mark") && line.contains("\"source\":\"ebpf\"");
    let mut seen = false;
    while !seen && Instant::now() < deadline {
        assert!(Command::new("/bin/true").arg("handed-over-mark").status().unwrap().success());
        seen = lines.recv_timeout(Duration::from_millis(100)).is_ok_and(|line| is_announced(&line))
            || lines.try_iter().any(|line| is_announced(&line));
    }
    let proc = Path::new("/proc").join(child.id().to_string());
    let status = std::fs::read_to_string(proc.join("status")).unwrap();
    let held =
        std::fs::read_dir(proc.join("fd")).unwrap().flatten().filter_map(|fd| std::fs::read_link(fd.path()).ok());
    let held: Vec<_> = held
        .filter(|link| link.starts_with("anon_inode:bpf-map") || link.starts_with("anon_inode:bpf_link"))
        .collect();
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(seen, "no exec was announced");
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")?.strip_suffix("kB")).unwrap();
    let peak: u64 = peak.trim().parse().unwrap();
    // The programs' own pages and the ring; with the type information it is more than 45,000.
    assert!(peak < 36_000, "{peak} KiB");
    assert!((4..=5).contains(&held.len()), "the ring and each program once: {held:?}");
}
