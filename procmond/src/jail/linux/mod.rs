//! Linux: procmond's calls, its directories, and what it tries from inside.

mod calls;

use std::fs::{DirBuilder, File, OpenOptions};
use std::io;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};

use daemoneye_lib::jail::{Account, Probe, give};
use rustix::fs::{Gid, MemfdFlags, Mode, OFlags, fchmod, fchown, fstat, memfd_create};
use rustix::process::{Pid, chroot, geteuid, test_kill_process};

pub(super) use self::calls::PROCMOND;
use super::KEYS_DIR;

/// The log belongs to procmond alone.
const WAL_MODES: (u32, u32) = (0o700, 0o600);

/// The ledger is read by the group; what is created in it later belongs to the group as well.
const LEDGER_MODES: (u32, u32) = (0o2750, 0o640);

/// The seed is read by procmond alone and written by nobody: a new one takes its place.
const KEYS_MODES: (u32, u32) = (0o700, 0o400);

/// Agent and operators come through here.
const DATA_DIR_MODE: u32 = 0o750;

/// Gives the account, or who stands in for it, what it will write, when there is somebody to give it.
pub(super) fn give_directories(data_dir: &Path, account: (&str, &str)) -> Result<(), (PathBuf, io::Error)> {
    if !geteuid().is_root() {
        return Ok(());
    }
    let named = Account::find(account.0, account.1);
    let Some(account) = named.or_else(Account::stand_in) else { return Ok(()) };
    DirBuilder::new()
        .recursive(true)
        .mode(DATA_DIR_MODE)
        .create(data_dir)
        .and_then(|()| named.map_or(Ok(()), |account| open_to_group(data_dir, account)))
        .map_err(|error| (data_dir.to_owned(), error))?;
    for (name, (directory, file)) in [("wal", WAL_MODES), ("audit", LEDGER_MODES), (KEYS_DIR, KEYS_MODES)] {
        let path = data_dir.join(name);
        let given = create(&path, directory).and_then(|()| give(&path, account, directory, file));
        given.map_err(|error| (path, error))?;
    }
    Ok(())
}

fn create(path: &Path, mode: u32) -> io::Result<()> {
    match DirBuilder::new().mode(mode).create(path) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        outcome => outcome,
    }
}

/// The agent's directory keeps its owner; one that root has made is opened to the group. One that everybody may enter is not
/// only ours, and stays as it is.
fn open_to_group(data_dir: &Path, account: Account) -> io::Result<()> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let opened = File::from(rustix::fs::open(data_dir, flags, Mode::empty())?);
    if Mode::from_raw_mode(fstat(&opened)?.st_mode).intersects(Mode::RWXO) {
        return Ok(());
    }
    fchown(&opened, None, Some(Gid::from_raw(account.gid)))?;
    fchmod(&opened, Mode::from_raw_mode(DATA_DIR_MODE))?;
    Ok(())
}

/// What procmond must not be able to do, each harmless should it come through.
pub(super) fn probes() -> Vec<Probe> {
    let mut probes = vec![
        refused("kill", Pid::from_raw(1).map_or(Ok(()), test_kill_process)),
        refused("chroot", chroot("/")),
        refused("memfd_create", memfd_create(c"probe", MemfdFlags::CLOEXEC)),
    ];
    // Root writes its own files whatever its capabilities; the report says that the user layer is missing.
    if !geteuid().is_root() {
        probes.push(refused("open /etc/passwd for writing", OpenOptions::new().append(true).open("/etc/passwd")));
    }
    probes
}

fn refused<T, E: std::fmt::Display>(call: &str, outcome: Result<T, E>) -> Probe {
    let answer = outcome.as_ref().map_or_else(ToString::to_string, |_| "done".to_owned());
    Probe { call: call.to_owned(), wanted: false, allowed: outcome.is_ok(), answer }
}
