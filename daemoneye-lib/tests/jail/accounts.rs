//! Accounts of an installed system for the programs of a test: they see them in a mount namespace of their own, and the host's
//! stay as they are.

#![expect(clippy::unwrap_used, reason = "a failed step of a test is the failure")]

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Command;

/// Accounts of an installed system, by numbers that this host gives to nobody.
pub(crate) const ACCOUNTS: [(&str, u32); 4] =
    [("daemoneye-procmond", 54_990), ("daemoneye-agent", 54_991), ("daemoneye", 54_985), ("daemoneye-admin", 54_986)];
pub(crate) fn is_root() -> bool {
    nix::unistd::geteuid().is_root()
}

/// A program that finds the accounts of an installed system, for root: in a mount namespace of its own, with `dir` for what it
/// sees in `/etc`. The process is the program itself.
pub(crate) fn with_accounts(dir: &Path, program: &Path) -> Command {
    if !is_root() {
        return Command::new(program);
    }
    for (file, suffix) in [("passwd", ":54985::/:/usr/sbin/nologin"), ("group", ":")] {
        let known = fs::read_to_string(Path::new("/etc").join(file)).unwrap();
        let known = known.lines().filter(|line| !line.starts_with("daemoneye")).map(str::to_owned);
        let added = ACCOUNTS.map(|(name, id)| format!("{name}:x:{id}{suffix}"));
        let lines: Vec<String> = known.chain(added).collect();
        fs::write(dir.join(file), lines.join("\n") + "\n").unwrap();
        fs::set_permissions(dir.join(file), fs::Permissions::from_mode(0o644)).unwrap();
    }
    let script = "mount --bind \"$0/passwd\" /etc/passwd && mount --bind \"$0/group\" /etc/group && exec \"$@\"";
    let mut command = Command::new("unshare");
    command.args(["--mount", "--propagation", "private", "sh", "-c", script]).arg(dir).arg(program);
    command
}
