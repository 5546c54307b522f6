//! procmond's jail, tried from inside: this test binary starts itself again, the child enters the very same jail and then
//! tries every call. And the running program, read back from outside.
#![cfg(target_os = "linux")]
#![expect(clippy::expect_used, clippy::panic, clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Read as _;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use daemoneye_lib::jail::{Account, Layer, Probe, Report, Required, State, give};
use daemoneye_lib::ledger::LedgerReader;
use jailed::accounts::{ACCOUNTS, is_root, with_accounts};
use jailed::calls::CALLS;
use jailed::skip::{SKIPPED, skipped};
use jailed::{Try, told};
use procmond::jail;
use rustix::net::{AddressFamily, SocketType};

#[path = "../../daemoneye-lib/tests/jail/mod.rs"]
mod jailed;

/// A start takes 50 ms; only a test that fails waits for so long.
const DEADLINE: Duration = Duration::from_secs(120);

/// Asks the copy to keep a thread that the jail does not reach.
const WITH_A_THREAD: &str = "with-a-thread";

const LAYERS: &[Layer] = &[
    Layer::Capabilities,
    Layer::NetworkNamespace,
    Layer::NoNewPrivs,
    Layer::NotDumpable,
    Layer::Seccomp,
    Layer::User,
];

/// What procmond lives on, and what only it could do.
const OWN: &[Try] = &[
    ("a signal to others", &[&[Layer::Seccomp], &[Layer::User, Layer::Capabilities]], |_| {
        told(rustix::process::test_kill_process(
            rustix::process::getppid().ok_or(std::io::ErrorKind::NotFound).unwrap(),
        ))
    }),
    ("a lower priority", &[], |_| told(rustix::process::setpriority_process(None, 5))),
    ("a connection of others", CALLS, |_| {
        let flags = rustix::net::SocketFlags::empty();
        told(
            rustix::net::socketpair(AddressFamily::UNIX, SocketType::STREAM, flags, None)
                .and_then(|pair| rustix::net::accept(pair.0)),
        )
    }),
    ("another directory", CALLS, |_| told(rustix::process::chdir("/"))),
    ("a file of another user, read", &[], |home| told(fs::read(home.join("foreign")))),
    ("another user's stat", &[], |_| told(fs::read(strange().join("stat")))),
    ("another user's environment", &[], |_| told(File::open(strange().join("environ")))),
    ("another user's executable", &[], |_| told(File::open(strange().join("exe")))),
    ("link of another user's executable", &[], |_| told(fs::read_link(strange().join("exe")))),
    ("its log", &[], |home| {
        let log = home.parent().unwrap().join("wal");
        told(fs::create_dir_all(log.join("d")).and_then(|()| fs::remove_dir(log.join("d"))))
    }),
    ("real-time priority", &[], |_| match procmond::sources::native::run_at_once() {
        // An ordinary user may not have it, in a jail or not.
        Err(_) if !STRANGER.get().unwrap().1 => Ok(()),
        outcome => outcome,
    }),
];

/// A program of another user that waits for the end of the copy, and whether root started it.
static STRANGER: OnceLock<(u32, bool)> = OnceLock::new();

fn strange() -> PathBuf {
    PathBuf::from(format!("/proc/{}", STRANGER.get().unwrap().0))
}

/// Enters the jail in a copy of this program, and tries.
fn inside(layers: Vec<Layer>, home: &Path) {
    if std::env::args().any(|argument| argument == WITH_A_THREAD) {
        std::thread::spawn(std::thread::park);
    }
    let mut stranger = Command::new("cat");
    if is_root() {
        stranger.uid(jailed::STRANGER);
    }
    let stranger = stranger.stdin(Stdio::piped()).spawn().unwrap();
    STRANGER.set((stranger.id(), is_root())).unwrap();
    let mut plan = jail::plan(Required::Available);
    plan.layers = layers;
    let dropped = jail::acquire(home.parent().unwrap(), plan).expect("acquire").drop_privileges().expect("drop");
    match dropped.seal() {
        Ok(_jailed) => jailed::try_all(OWN, home),
        Err(error) => println!("seal refused: {error}"),
    }
    std::process::exit(0);
}

/// No harness: its main thread would be one that the jail never reached, and the jail refuses to hold without it.
fn main() {
    if let Some((layers, home)) = jailed::told_to_copy() {
        inside(layers, &home);
    }
    let filter = std::env::args().skip(1).find(|argument| !argument.starts_with('-')).unwrap_or_default();
    for (name, test) in TESTS.iter().filter(|(name, _)| name.contains(&filter)) {
        test();
        println!("test {name} ... {}", if SKIPPED.swap(false, Ordering::Relaxed) { "skipped" } else { "ok" });
    }
}

const TESTS: &[(&str, fn())] = &[
    (
        "a_layer_that_is_required_by_name_and_missing_ends_with_77_and_says_what_grants_it",
        a_layer_that_is_required_by_name_and_missing_ends_with_77_and_says_what_grants_it,
    ),
    (
        "an_ordinary_user_is_told_one_and_the_same_command_by_the_jail_and_by_the_sources",
        an_ordinary_user_is_told_one_and_the_same_command_by_the_jail_and_by_the_sources,
    ),
    ("privileges_that_cannot_be_dropped_end_it_with_79", privileges_that_cannot_be_dropped_end_it_with_79),
    ("the_ledger_holds_what_was_put_up_and_tried", the_ledger_holds_what_was_put_up_and_tried),
    ("a_thread_that_the_jail_does_not_reach_is_found", a_thread_that_the_jail_does_not_reach_is_found),
    ("a_directory_that_everybody_may_enter_stays_as_it_is", a_directory_that_everybody_may_enter_stays_as_it_is),
    ("directories_and_files_are_open_to_nobody_else", directories_and_files_are_open_to_nobody_else),
    (
        "every_combination_of_layers_refuses_exactly_what_it_should",
        every_combination_of_layers_refuses_exactly_what_it_should,
    ),
    (
        "every_forbidden_call_is_refused_and_every_needed_one_works",
        every_forbidden_call_is_refused_and_every_needed_one_works,
    ),
    (
        "every_thread_of_the_running_program_reads_back_as_jailed",
        every_thread_of_the_running_program_reads_back_as_jailed,
    ),
    ("root_without_the_account_becomes_a_user_without_a_name", root_without_the_account_becomes_a_user_without_a_name),
    ("the_account_owns_what_it_writes_and_nothing_else", the_account_owns_what_it_writes_and_nothing_else),
    (
        "the_compiled_filter_answers_every_call_as_the_table_says",
        the_compiled_filter_answers_every_call_as_the_table_says,
    ),
];

// test, run by main
fn every_forbidden_call_is_refused_and_every_needed_one_works() {
    jailed::try_whole(LAYERS, &[], OWN);
}

// test, run by main
fn every_combination_of_layers_refuses_exactly_what_it_should() {
    let without = [(Layer::Seccomp, 20), (Layer::Capabilities, 20), (Layer::NetworkNamespace, 2), (Layer::User, 5)];
    jailed::try_every_combination(LAYERS, &[], OWN, |_up| true, &without);
}

// test, run by main
fn the_compiled_filter_answers_every_call_as_the_table_says() {
    let plan = jail::plan(Required::Available);
    jailed::filter::answers_as_the_table_says(&plan, "procmond");
    jailed::filter::decides_by_arguments(&plan);
}

// test, run by main
fn a_thread_that_the_jail_does_not_reach_is_found() {
    if !is_root() {
        return skipped("needs root");
    }
    let (output, _home) = jailed::copy(LAYERS, &[WITH_A_THREAD]);
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(text.contains("seal refused: the capabilities layer of the jail did not take: thread"), "{text}");
    let (output, _home) = jailed::copy(&[Layer::NetworkNamespace], &[WITH_A_THREAD]);
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(text.contains("seal refused: the network-namespace layer of the jail did not take: thread"), "{text}");
}

// test, run by main
fn root_without_the_account_becomes_a_user_without_a_name() {
    if !is_root() {
        return skipped("needs root");
    }
    if Account::find(jail::ACCOUNT.0, jail::ACCOUNT.1).is_some() {
        SKIPPED.store(true, Ordering::Relaxed);
        return println!("skipped: this host has the account");
    }
    let dir = tempfile::tempdir().unwrap();
    let before = fs::metadata(dir.path()).unwrap();
    let mut command = Command::new(PROGRAM);
    command.env("PROCMOND_STANDALONE", "1").env("PROCMOND_DATA_DIR", dir.path());
    let mut child = Procmond(command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap());
    let report = wait_for_entry(dir.path(), &mut child);
    let entry = report.layers.iter().find(|entry| entry.layer == Layer::User).unwrap();
    assert!(entry.state == State::On && entry.remedy.contains("useradd --system"), "{entry:?}");
    let (uid, gid) = Account::stand_in().map(|account| (account.uid, account.gid)).unwrap();
    for task in fs::read_dir(format!("/proc/{}/task", child.0.id())).unwrap().flatten() {
        // One that has ended since the listing.
        let Ok(text) = fs::read_to_string(task.path().join("status")) else { continue };
        let status = fields(&text);
        let held = ["Uid", "Gid", "Groups"].map(|name| *status.get(name).unwrap());
        let four = |id: u32| [id; 4].map(|id| id.to_string()).join("\t");
        assert_eq!(held, [four(uid).as_str(), four(gid).as_str(), ""], "{}", task.path().display());
    }
    let owner = |path: &Path| fs::metadata(path).unwrap().uid();
    assert_eq!([dir.path().join("wal"), dir.path().join("audit")].map(|path| owner(&path)), [uid, uid]);
    let after = fs::metadata(dir.path()).unwrap();
    assert_eq!((after.mode(), after.uid(), after.gid()), (before.mode(), 0, before.gid()), "as it was");
    assert!(report.probes.iter().any(|probe| probe.call == "open /etc/passwd for writing" && probe.holds()));
}

// test, run by main
fn a_directory_that_everybody_may_enter_stays_as_it_is() {
    if !is_root() {
        return skipped("needs root");
    }
    let (dir, accounts) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let shared = fs::Permissions::from_mode(0o1777);
    fs::set_permissions(dir.path(), shared).unwrap();
    let mut child = start(dir.path(), accounts.path());
    wait_for_entry(dir.path(), &mut child);
    let about = fs::metadata(dir.path()).unwrap();
    assert_eq!((about.mode() & 0o7777, about.gid()), (0o1777, 0));
}

/// Only what lies in the directory itself is given: links and second names may lead to what is nobody's business.
// test, run by main
fn the_account_owns_what_it_writes_and_nothing_else() {
    if !is_root() {
        return skipped("needs root");
    }
    let (dir, outside) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let foreign = outside.path().join("shadow");
    fs::write(&foreign, b"").unwrap();
    fs::write(dir.path().join("procmond-00001.wal"), b"").unwrap();
    fs::hard_link(&foreign, dir.path().join("second-name")).unwrap();
    std::os::unix::fs::symlink(&foreign, dir.path().join("link")).unwrap();
    let account = Account { uid: 12345, gid: 12346 };
    give(dir.path(), account, 0o2750, 0o640).unwrap();
    let of = |path: &Path| fs::metadata(path).map(|meta| (meta.uid(), meta.gid(), meta.mode() & 0o7777)).unwrap();
    assert_eq!(of(dir.path()), (12345, 12346, 0o2750));
    assert_eq!(of(&dir.path().join("procmond-00001.wal")), (12345, 12346, 0o640));
    assert_eq!(of(&foreign).0, 0, "neither link gave it away");
    let link = outside.path().join("directory");
    std::os::unix::fs::symlink(dir.path(), &link).unwrap();
    assert!(give(&link, account, 0o700, 0o600).is_err(), "a planted directory is refused");
}

/// The running program, told to capture without an agent.
struct Procmond(Child);

impl Drop for Procmond {
    fn drop(&mut self) {
        self.0.kill().ok();
        self.0.wait().ok();
    }
}

/// Where there is an account it becomes that: as root, `accounts` holds what it finds in `/etc`.
fn start(data_dir: &Path, accounts: &Path) -> Procmond {
    let mut command = with_accounts(accounts, Path::new(PROGRAM));
    command.env("PROCMOND_STANDALONE", "1").env("PROCMOND_DATA_DIR", data_dir);
    Procmond(command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap())
}

const PROGRAM: &str = env!("CARGO_BIN_EXE_procmond");

fn fields(text: &str) -> BTreeMap<&str, &str> {
    text.lines().filter_map(|line| line.split_once(':')).map(|(name, value)| (name, value.trim())).collect()
}

/// The ledger says `sandbox` once the program is in its jail and has opened its logs.
fn wait_for_entry(data_dir: &Path, child: &mut Procmond) -> Report {
    let deadline = Instant::now() + DEADLINE;
    loop {
        if let Ok(mut reader) = LedgerReader::open(&data_dir.join("audit")) {
            let records = std::iter::from_fn(|| reader.advance().ok().flatten());
            if let Some(record) = records.filter(|record| record.entry.action == "sandbox").last() {
                return serde_json::from_slice(&record.payload).unwrap();
            }
        }
        if let Some(status) = child.0.try_wait().unwrap() {
            let mut told = String::new();
            child.0.stderr.take().unwrap().read_to_string(&mut told).unwrap();
            panic!("{status}: {told}");
        }
        assert!(Instant::now() < deadline, "no entry of the jail in {DEADLINE:?}");
        std::thread::yield_now();
    }
}

// test, run by main
fn the_ledger_holds_what_was_put_up_and_tried() {
    let (dir, accounts) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let mut child = start(dir.path(), accounts.path());
    let report = wait_for_entry(dir.path(), &mut child);
    let named: Vec<Layer> = report.layers.iter().map(|entry| entry.layer).collect();
    assert_eq!(named, Layer::ALL, "one entry a layer");
    for entry in &report.layers {
        let is_on = LAYERS.contains(&entry.layer) && (is_root() || !FOR_ROOT.contains(&entry.layer));
        assert!(entry.state == State::On || !is_on, "{entry:?}");
        assert!(!entry.detail.is_empty(), "{entry:?}");
    }
    assert!(report.probes.len() >= 16, "{:?}", report.probes);
    for call in ["socket AF_INET", "execve", "unshare", "kill", "chroot", "memfd_create"] {
        assert!(report.probes.iter().any(|probe| probe.call == call && !probe.allowed), "{call}: {:?}", report.probes);
    }
    assert!(report.probes.iter().all(Probe::holds), "{:?}", report.probes);
}

/// What only root can put up.
const FOR_ROOT: [Layer; 2] = [Layer::NetworkNamespace, Layer::User];

// test, run by main
fn every_thread_of_the_running_program_reads_back_as_jailed() {
    if !is_root() {
        return skipped("needs root");
    }
    let (dir, accounts) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let mut child = start(dir.path(), accounts.path());
    wait_for_entry(dir.path(), &mut child);
    let ids = |id: u32| [id; 4].map(|id| id.to_string()).join("\t");
    let (uid, gid) = (ids(UID), ids(GID));
    let mut threads = 0;
    for task in fs::read_dir(format!("/proc/{}/task", child.0.id())).unwrap().flatten() {
        // One that has ended since the listing.
        let Ok(text) = fs::read_to_string(task.path().join("status")) else { continue };
        let Ok(environment) = fs::metadata(task.path().join("environ")) else { continue };
        let status = fields(&text);
        // cap_dac_read_search is bit 2, cap_sys_ptrace bit 19, and cap_sys_nice bit 23 where the limit could not be raised.
        let held = *status.get("CapEff").unwrap();
        assert!(["0000000000080004", "0000000000880004"].contains(&held), "{held}");
        let expected = [
            ("CapEff", held),
            ("CapPrm", held),
            ("CapBnd", "0000000000000000"),
            ("CapInh", "0000000000000000"),
            ("CapAmb", "0000000000000000"),
            ("NoNewPrivs", "1"),
            ("Seccomp", "2"),
            ("Seccomp_filters", "2"),
            ("Uid", uid.as_str()),
            ("Gid", gid.as_str()),
            ("Groups", ""),
        ];
        assert_eq!(environment.uid(), 0, "of a process that is not dumpable they are root's");
        for (name, value) in expected {
            assert_eq!(status.get(name), Some(&value), "{name} of {}", task.path().display());
        }
        threads += 1;
    }
    assert!(threads > 1, "the log's own thread is one of them");
    let own = fs::read_link("/proc/self/ns/net").unwrap();
    assert_ne!(fs::read_link(format!("/proc/{}/ns/net", child.0.id())).unwrap(), own);
}

const UID: u32 = ACCOUNTS[0].1;
const GID: u32 = ACCOUNTS[2].1;

/// With an account of its own the ledger's directory also hands on its group (2750).
// test, run by main
fn directories_and_files_are_open_to_nobody_else() {
    let (dir, accounts) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let data_dir = dir.path().join("data");
    let mut child = start(&data_dir, accounts.path());
    wait_for_entry(&data_dir, &mut child);
    let of = |path: &Path| fs::metadata(path).map(|meta| (meta.mode() & 0o7777, meta.uid(), meta.gid())).unwrap();
    let (handed_on, owner) = if is_root() { (0o2000, (UID, GID)) } else { (0, (of(&data_dir).1, of(&data_dir).2)) };
    for (name, directory, file) in [("wal", 0o700, 0o600), ("audit", 0o750 | handed_on, 0o640)] {
        let path = data_dir.join(name);
        assert_eq!(of(&path), (directory, owner.0, owner.1), "{name}");
        let mut files = 0;
        for entry in fs::read_dir(&path).unwrap().flatten() {
            assert_eq!(of(&entry.path()), (file, owner.0, owner.1), "{}", entry.path().display());
            files += 1;
        }
        assert!(files > 0, "{name}");
    }
    if is_root() {
        assert_eq!(of(&data_dir), (0o750, 0, GID), "the group passes through to the ledger");
    }
}

/// Runs it to its end, which comes before it captures anything.
fn ended(command: &mut Command, required: &str) -> (Option<i32>, String) {
    let dir = tempfile::tempdir().unwrap();
    let settings = [("PROCMOND_STANDALONE", "1"), ("PROCMOND_SANDBOX__REQUIRED", required)];
    let output = command.envs(settings).env("PROCMOND_DATA_DIR", dir.path()).stdout(Stdio::null()).output().unwrap();
    (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
}

// test, run by main
fn a_layer_that_is_required_by_name_and_missing_ends_with_77_and_says_what_grants_it() {
    let (code, told) = ended(Command::new("timeout").args(["120", PROGRAM]), "landlock");
    assert_eq!(code, Some(77), "{told}");
    assert!(told.contains("sandbox.required names landlock") && told.contains("take it out"), "{told}");
}

// test, run by main
fn an_ordinary_user_is_told_one_and_the_same_command_by_the_jail_and_by_the_sources() {
    let (dir, accounts) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    // Without a capability in its hands, whoever runs the tests.
    let command = |source: &str| {
        let mut command = with_accounts(accounts.path(), Path::new("setpriv"));
        if is_root() {
            std::os::unix::fs::chown(dir.path(), Some(jailed::STRANGER), None).unwrap();
            command.args(["--reuid", &jailed::STRANGER.to_string(), "--clear-groups"]);
        }
        command.args(["--inh-caps=-all", "--bounding-set=-all"]);
        command.arg(PROGRAM).args(["--data-dir"]).arg(dir.path());
        command.env("PROCMOND_STANDALONE", "1").env("PROCMOND_SOURCE", source).env("HOME", dir.path());
        command.stdout(Stdio::null()).stderr(Stdio::piped());
        command
    };
    let mut child = Procmond(command("auto").spawn().unwrap());
    let report = wait_for_entry(dir.path(), &mut child);
    drop(child);
    let remedy = report.layers.into_iter().find(|entry| entry.layer == Layer::Capabilities).unwrap().remedy;
    let all = "cap_bpf,cap_dac_read_search,cap_net_admin,cap_perfmon,cap_sys_nice,cap_sys_ptrace";
    assert_eq!(remedy, format!("setcap {all}+ep {PROGRAM} grants what it can use"));
    if cfg!(feature = "kernel-monitoring") {
        let refused = command("ebpf").output().unwrap();
        let told = String::from_utf8_lossy(&refused.stderr);
        assert!(!refused.status.success() && told.contains(&remedy), "{told}");
    }
}

/// The kernel is told beforehand to refuse what every change of user needs.
// test, run by main
fn privileges_that_cannot_be_dropped_end_it_with_79() {
    if !is_root() {
        return skipped("needs root");
    }
    let mut command = Command::new("timeout");
    let (code, told) = ended(command.args(["120", "setpriv", "--securebits=+keep_caps_locked", PROGRAM]), "none");
    assert_eq!(code, Some(79), "{told}");
}
