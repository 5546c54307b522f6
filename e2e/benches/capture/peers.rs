//! The tools of the field under the same load, each with a configuration of its own, started and stopped here.

use std::fs;
use std::fs::File;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::load::{self, cost, found};
use crate::support::cpu_seconds;
use crate::{RATES, row};

/// How long a peer may take to start, and to write its tail.
const REST: Duration = Duration::from_secs(3);

fn installed(program: &str) -> Option<PathBuf> {
    let found = ["/usr/sbin", "/usr/bin", "/sbin", "/bin"].iter().map(|dir| Path::new(dir).join(program));
    found.into_iter().find(|path| path.exists())
}

/// A peer that is ended with this value.
struct Peer(Child);

impl Peer {
    /// `None` when it has ended again.
    fn start(command: &mut Command) -> Option<Self> {
        let mut peer = Self(command.stdin(Stdio::null()).stderr(Stdio::null()).spawn().ok()?);
        std::thread::park_timeout(REST);
        matches!(peer.0.try_wait(), Ok(None)).then_some(peer)
    }

    /// Of it and its children.
    fn cpu_seconds(&self) -> f64 {
        let pid = self.0.id();
        let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
        let children = children.split_whitespace().filter_map(|pid| pid.parse().ok());
        children.chain(i32::try_from(pid)).map(cpu_seconds).sum()
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        if let Ok(pid) = i32::try_from(self.0.id()) {
            let _asked = kill(Pid::from_raw(pid), Signal::SIGTERM);
        }
        let _reaped = self.0.wait();
    }
}

fn measure(who: &str, peer: &Peer, execs: usize, output: &Path) {
    for (number, rate) in RATES.iter().enumerate() {
        let tag = format!("{}{number}", who.get(..5).unwrap_or(who));
        let (load, cpu) = cost(|| peer.cpu_seconds(), || load::run(*rate, execs, &tag));
        std::thread::park_timeout(REST);
        let seen = String::from_utf8_lossy(&fs::read(output).unwrap_or_default()).into_owned();
        row(who, &load, found(&seen, &tag), cpu, "");
    }
}

pub(crate) fn forkstat(execs: usize) {
    let Some(program) = installed("forkstat") else { return println!("| forkstat | not installed |") };
    let dir = tempfile::tempdir().unwrap();
    let output = dir.path().join("forkstat.txt");
    let mut command = Command::new(program);
    command.args(["-e", "exec", "-l"]).stdout(File::create(&output).unwrap());
    match Peer::start(&mut command) {
        Some(peer) => measure("forkstat", &peer, execs, &output),
        None => println!("| forkstat | does not run here |"),
    }
}

/// Audit rules of this benchmark, gone with this value.
struct Rules {
    auditctl: PathBuf,
    was_enabled: bool,
    backlog: String,
}

impl Rules {
    /// `None` when somebody's rules are in force: they are not ours to replace.
    fn set(auditctl: PathBuf) -> Option<Self> {
        let said = |arguments: &[&str]| {
            let output = Command::new(&auditctl).args(arguments).output().ok()?;
            output.status.success().then(|| String::from_utf8_lossy(&output.stdout).into_owned())
        };
        if !said(&["-l"])?.starts_with("No rules") {
            return None;
        }
        let state = said(&["-s"])?;
        let was_enabled = !state.contains("enabled 0");
        let backlog = state.lines().find_map(|line| line.strip_prefix("backlog_limit "))?.trim().to_owned();
        let rules = Self { auditctl: auditctl.clone(), was_enabled, backlog };
        said(&["-b", "8192"])?;
        said(&["-a", "always,exit", "-F", "arch=b64", "-S", "execve,execveat", "-k", "bench"])?;
        said(&["-e", "1"])?;
        Some(rules)
    }
}

impl Drop for Rules {
    fn drop(&mut self) {
        let enabled = if self.was_enabled { "1" } else { "0" };
        for arguments in [["-D", "-k", "bench"].as_slice(), &["-b", &self.backlog], &["-e", enabled]] {
            let _left = Command::new(&self.auditctl).args(arguments).stdout(Stdio::null()).status();
        }
    }
}

pub(crate) fn auditd_and_laurel(execs: usize) {
    const WHO: &str = "auditd + laurel";
    let programs = (installed("auditd"), installed("auditctl"), installed("laurel"));
    let (Some(auditd), Some(auditctl), Some(laurel)) = programs else { return println!("| {WHO} | not installed |") };
    if Path::new("/run/auditd.pid").exists() {
        return println!("| {WHO} | not measured: an auditd is running |");
    }
    let dir = tempfile::tempdir().unwrap();
    let output = configure(dir.path(), &laurel).unwrap();
    let Some(peer) =
        Peer::start(Command::new(auditd).args(["-n", "-s", "nochange", "-c"]).arg(dir.path()).stdout(Stdio::null()))
    else {
        return println!("| {WHO} | does not run here |");
    };
    match Rules::set(auditctl) {
        Some(_rules) => measure(WHO, &peer, execs, &output),
        None => println!("| {WHO} | not measured: other audit rules are in force, or none can be set |"),
    }
}

/// Writes the private configuration; returns where laurel writes.
fn configure(dir: &Path, laurel: &Path) -> std::io::Result<PathBuf> {
    let shown = dir.display();
    fs::create_dir(dir.join("plugins.d"))?;
    let settings = format!(
        "local_events = yes\nwrite_logs = no\nlog_format = RAW\nlog_file = {shown}/audit.log\nname_format = NONE\n\
         flush = NONE\nq_depth = 20000\noverflow_action = IGNORE\nspace_left = 2\n\
         space_left_action = IGNORE\nadmin_space_left = 1\nadmin_space_left_action = IGNORE\n\
         disk_full_action = IGNORE\ndisk_error_action = IGNORE\nplugin_dir = {shown}/plugins.d\n"
    );
    private(&dir.join("auditd.conf"), &settings)?;
    let plugin = format!(
        "active = yes\ndirection = out\ntype = always\nformat = string\npath = {}\nargs = --config {shown}/laurel.toml\n",
        laurel.display()
    );
    private(&dir.join("plugins.d/laurel.conf"), &plugin)?;
    let laurel = format!(
        "directory = \"{shown}/laurel\"\n[auditlog]\nfile = \"audit.log\"\nsize = 2000000000\ngenerations = 1\n\
         [transform]\nexecve-argv = [\"string\"]\n"
    );
    private(&dir.join("laurel.toml"), &laurel)?;
    Ok(dir.join("laurel/audit.log"))
}

/// auditd refuses a configuration that others could have written.
fn private(path: &Path, text: &str) -> std::io::Result<()> {
    use std::os::unix::fs::OpenOptionsExt as _;
    let mut file = File::options().write(true).create_new(true).mode(0o640).open(path)?;
    file.write_all(text.as_bytes())
}
