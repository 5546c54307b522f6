use super::*;
use crate::collector::Image;
use daemoneye_lib::proto::{Capture, Identity};
use std::fs;
use std::os::unix::fs::symlink;
use std::path::PathBuf;

/// A recorded proc tree that a test may change between scans.
struct Tree {
    dir: tempfile::TempDir,
}

impl Tree {
    fn new() -> Self {
        let tree = Self { dir: tempfile::tempdir().unwrap() };
        fs::create_dir_all(tree.path("sys/kernel/random")).unwrap();
        fs::write(tree.path("sys/kernel/random/boot_id"), "11111111-2222-3333-4444-555555555555\n").unwrap();
        fs::write(tree.path("stat"), "cpu 1 2\nbtime 1700000000\n").unwrap();
        fs::write(tree.path("passwd"), "alice:x:1000:1000::/home/alice:/bin/sh\n").unwrap();
        fs::create_dir(tree.path("self")).unwrap();
        tree
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn open(&self) -> ProcfsCollector {
        ProcfsCollector::open(self.dir.path(), &self.path("passwd")).unwrap()
    }

    fn process(&self, pid: u32, comm: &str, state: char, start_ticks: u64) {
        let dir = self.path(&pid.to_string());
        fs::create_dir_all(dir.join("ns")).unwrap();
        self.stat(pid, comm, state, start_ticks, 0x4000);
        let status = format!("Name:\t{comm}\nUid:\t1000\t0\t0\t0\nGid:\t100\t100\t100\t100\nNSpid:\t{pid}\t3\n");
        fs::write(dir.join("status"), status).unwrap();
        fs::write(dir.join("cmdline"), format!("{comm}\0--flag\0a b\0")).unwrap();
        fs::write(dir.join("cgroup"), "0::/system.slice/x.service\n").unwrap();
        for (name, target) in [("cwd", "/srv"), ("ns/pid", "pid:[4026531836]")] {
            relink(target, &dir.join(name));
        }
        self.exe(pid, &format!("/usr/bin/{comm}"));
    }

    fn stat(&self, pid: u32, comm: &str, state: char, start_ticks: u64, image: u64) {
        let stat = format!(
            "{pid} ({comm}) {state} 1 {pid} {pid} 34816 0 0 0 0 0 0 10 5 0 0 20 0 1 0 {start_ticks} 0 25 0 {image} 0 \
{image} 0 0 0 0 0 0 0 0 0 17 0 0 0 0 0 0 0 0 0 0 0 0 0 9\n"
        );
        fs::write(self.path(&pid.to_string()).join("stat"), stat).unwrap();
    }

    fn exe(&self, pid: u32, target: &str) {
        relink(target, &self.path(&pid.to_string()).join("exe"));
    }
}

fn relink(target: &str, link: &Path) {
    if link.is_symlink() {
        fs::remove_file(link).unwrap();
    }
    symlink(target, link).unwrap();
}

fn scan(collector: &mut ProcfsCollector) -> Vec<Sighting> {
    let mut seen = Vec::new();
    collector.collect_processes(&mut |sighting| seen.push(sighting)).unwrap();
    seen
}

#[test]
fn every_column_of_a_recorded_process_is_read() {
    let tree = Tree::new();
    tree.process(42, "we (ird", 'S', 250);
    let record = tree.open().collect_process(42).unwrap();
    let expected = ProcessRecord {
        entity_id: daemoneye_lib::entity::EntityId::derive("11111111-2222-3333-4444-555555555555", 42, 250)
            .as_bytes()
            .to_vec(),
        identity: Identity::Exact.into(),
        pid: 42,
        ppid: Some(1),
        name: "we (ird".into(),
        executable_path: Some("/usr/bin/we (ird".into()),
        command_line: Some("we (ird --flag a b".into()),
        arg_lengths: vec![7, 6, 3],
        cwd: Some("/srv".into()),
        uid: Some(1000),
        gid: Some(100),
        euid: Some(0),
        session: Some(42),
        tty: Some("pts/0".into()),
        start_time_us: Some(1_700_000_000_000_000 + 250 * 1_000_000 / 100),
        status: Some("sleeping".into()),
        memory_usage: Some(25 * rustix::param::page_size() as u64),
        deleted_executable: Some(false),
        memfd: Some(false),
        cgroup: Some("/system.slice/x.service".into()),
        pid_namespace: Some(4_026_531_836),
        namespace_pid: Some(3),
        capture: Capture::Complete.into(),
        ..Default::default()
    };
    assert_eq!(record, expected);
}

#[test]
fn user_names_come_from_the_passwd_file_at_each_scan() {
    let tree = Tree::new();
    tree.process(42, "a", 'S', 250);
    let seen = scan(&mut tree.open());
    assert!(matches!(&seen[..], [Sighting::Read(record, _)] if record.user.as_deref() == Some("alice")), "{seen:?}");
}

#[test]
fn a_known_process_is_read_again_only_when_something_suggests_a_change() {
    let tree = Tree::new();
    for pid in 1..=40 {
        tree.process(pid, "a", 'S', 250);
    }
    let mut collector = tree.open();
    assert_eq!(scan(&mut collector).iter().filter(|s| matches!(s, Sighting::Read(..))).count(), 40);
    let again = scan(&mut collector);
    let read: Vec<_> = again.iter().filter(|s| matches!(s, Sighting::Read(..))).collect();
    assert!(read.len() < 40, "all were read again");
    tree.stat(40, "a", 'S', 250, 0x5555);
    tree.stat(39, "b", 'S', 250, 0x4000);
    let changed = scan(&mut collector);
    for pid in [39, 40] {
        assert!(changed.iter().any(|s| matches!(s, Sighting::Read(record, _) if record.pid == pid)), "{pid}");
    }
}

#[test]
fn a_deleted_executable_is_noticed_when_the_turn_comes() {
    let tree = Tree::new();
    tree.process(7, "a", 'S', 250);
    let mut collector = tree.open();
    scan(&mut collector);
    tree.exe(7, "/usr/bin/a (deleted)");
    let seen = scan(&mut collector);
    assert!(
        matches!(&seen[..], [Sighting::Read(record, _)]
            if record.deleted_executable == Some(true) && record.executable_path.as_deref() == Some("/usr/bin/a")),
        "{seen:?}"
    );
    tree.exe(7, "/memfd:x (deleted)");
    let record = collector.collect_process(7).unwrap();
    assert_eq!((record.memfd, record.deleted_executable), (Some(true), Some(false)));
}

#[test]
fn a_reused_pid_is_another_entity_and_a_vanished_one_is_skipped() {
    let tree = Tree::new();
    tree.process(7, "a", 'S', 250);
    tree.process(8, "b", 'S', 250);
    let mut collector = tree.open();
    let first = scan(&mut collector);
    tree.process(7, "a", 'S', 900);
    fs::remove_file(tree.path("8/stat")).unwrap();
    let second = scan(&mut collector);
    let (Sighting::Read(before, _), Sighting::Read(after, _)) = (&first[0], &second[0]) else { panic!("{second:?}") };
    assert_ne!(before.entity_id, after.entity_id);
    assert_eq!(second.len(), 1);
}

#[test]
fn what_vanishes_while_it_is_read_is_partial() {
    let tree = Tree::new();
    tree.process(7, "a", 'S', 250);
    fs::remove_file(tree.path("7/status")).unwrap();
    let record = tree.open().collect_process(7).unwrap();
    assert_eq!((record.capture(), record.name.as_str(), record.uid), (Capture::Partial, "a", None));
}

#[test]
fn only_what_the_kernel_says_is_absent_counts_as_gone() {
    let tree = Tree::new();
    tree.process(7, "a", 'S', 250);
    let mut collector = tree.open();
    scan(&mut collector);
    fs::remove_file(tree.path("7/stat")).unwrap();
    // Reading it fails with an error of its own, as when no descriptor is left.
    fs::create_dir(tree.path("7/stat")).unwrap();
    assert_eq!(scan(&mut collector), [Sighting::Unread(7)]);
    assert!(matches!(collector.collect_process(7), Err(ProcessCollectionError::ProcessUnreadable { pid: 7 })));
    fs::remove_dir_all(tree.path("7")).unwrap();
    assert_eq!(scan(&mut collector), []);
}

#[test]
fn a_record_without_the_executable_that_there_is_is_partial() {
    let tree = Tree::new();
    tree.process(7, "a", 'S', 250);
    fs::remove_file(tree.path("7/exe")).unwrap();
    assert_eq!(tree.open().collect_process(7).unwrap().capture(), Capture::Complete, "a kernel thread has none");
    fs::write(tree.path("7/exe"), "no link").unwrap();
    assert_eq!(tree.open().collect_process(7).unwrap().capture(), Capture::Partial);
}

#[test]
fn an_image_is_told_from_the_next_and_one_that_is_not_whole_yet_makes_a_partial_record() {
    let tree = Tree::new();
    tree.process(7, "a", 'S', 250);
    let image = |address| {
        tree.stat(7, "a", 'S', 250, address);
        let seen = scan(&mut tree.open());
        let [Sighting::Read(record, image)] = &seen[..] else { panic!("{seen:?}") };
        (*image, record.capture())
    };
    let (first, second, unfinished) = (image(0x4000), image(0x5000), image(0));
    assert!(first.0.replaced_by(second.0) && first.0.stays(image(0x4000).0));
    assert_eq!((first.1, unfinished), (Capture::Complete, (Image::UNSEEN, Capture::Partial)));
}

#[test]
fn a_zombie_is_reported_as_ended_with_its_exit_code() {
    let tree = Tree::new();
    tree.process(7, "a", 'Z', 250);
    let seen = scan(&mut tree.open());
    assert!(
        matches!(&seen[..], [Sighting::Read(..), Sighting::Ended { pid: 7, exit_code: Some(-9), .. }]),
        "{seen:?}"
    );
}

#[test]
fn a_tree_without_boot_id_or_with_garbage_is_refused_or_skipped() {
    let tree = Tree::new();
    tree.process(7, "a", 'S', 250);
    fs::write(tree.path("7/stat"), "garbage").unwrap();
    let mut collector = tree.open();
    let mut seen = Vec::new();
    let stats = collector.collect_processes(&mut |sighting| seen.push(sighting)).unwrap();
    assert_eq!((stats.processes, stats.inaccessible, seen), (0, 1, vec![Sighting::Unread(7)]));
    fs::remove_file(tree.path("sys/kernel/random/boot_id")).unwrap();
    let error = ProcfsCollector::open(tree.dir.path(), &tree.path("passwd")).err().unwrap();
    assert!(error.to_string().contains("boot_id"), "{error}");
}

#[test]
fn the_live_tree_shows_this_process_exactly() {
    let mut collector = ProcfsCollector::open(Path::new("/proc"), Path::new("/etc/passwd")).unwrap();
    collector.health_check().unwrap();
    let record = collector.collect_process(std::process::id()).unwrap();
    assert_eq!((record.identity(), record.capture()), (Identity::Exact, Capture::Complete));
    assert_eq!(record.executable_path.map(PathBuf::from), std::env::current_exe().ok());
    let arguments: Vec<String> = std::env::args().collect();
    assert_eq!(record.command_line.unwrap(), arguments.join(" "));
    assert_eq!(record.arg_lengths.len(), arguments.len());
    assert_eq!(record.cwd.map(PathBuf::from), std::env::current_dir().ok());
    assert_eq!(record.ppid, Some(std::os::unix::process::parent_id()));
    assert!(record.memory_usage.unwrap() > 1 << 16);
    assert!(matches!(collector.collect_process(u32::MAX / 2), Err(ProcessCollectionError::ProcessNotFound { .. })));
}
