//! Accounts from `/etc/passwd` and `/etc/group`, read as files: name services would load modules and open sockets in a
//! process that still is root. And what an account must own, given to it without following anything planted.

use std::fs::File;
use std::io;
use std::ops::RangeInclusive;
use std::path::Path;

use rustix::fs::{AtFlags, Dir, FileType, Gid, Mode, OFlags, Uid, fchmod, fchown, fstat, openat};
use rustix::process::getegid;

/// Users that neither distributions, service managers nor containers number
/// (<https://systemd.io/UIDS-GIDS/>, "unused").
const NOBODYS: RangeInclusive<u32> = 60_578..=61_183;

/// A user and a group by number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Account {
    /// User id.
    pub uid: u32,
    /// Group id.
    pub gid: u32,
}

impl Account {
    /// The local user `user` and the local group `group`, when both exist and neither is root.
    #[must_use]
    pub fn find(user: &str, group: &str) -> Option<Self> {
        let number = |path: &str, name: &str| numbered(&std::fs::read_to_string(path).ok()?, name);
        let account = Self { uid: number("/etc/passwd", user)?, gid: number("/etc/group", group)? };
        (account.uid != 0 && account.gid != 0).then_some(account)
    }

    /// What root becomes where that account does not exist: a user without a name, so that no file is its own but what it is
    /// given, in the group that started it, which opens the agent's socket.
    #[must_use]
    pub fn stand_in() -> Option<Self> {
        let known = std::fs::read_to_string("/etc/passwd").ok()?;
        Some(Self { uid: nobodys(&known)?, gid: getegid().as_raw() })
    }
}

/// The first user id of [`NOBODYS`] that no line has.
fn nobodys(text: &str) -> Option<u32> {
    let taken: Vec<u32> = text.lines().filter_map(|line| line.split(':').nth(2)?.parse().ok()).collect();
    NOBODYS.into_iter().find(|uid| !taken.contains(uid))
}

/// Third field of the line whose first is `name`; both files have it there.
fn numbered(text: &str, name: &str) -> Option<u32> {
    let mut lines = text.lines().map(|line| line.split(':'));
    let mut fields = lines.find_map(|mut fields| (fields.next() == Some(name)).then_some(fields))?;
    fields.nth(1)?.parse().ok()
}

/// Gives `directory` and the plain files in it to `account`. A link, a file with several names and anything that is not a
/// plain file stays as it is, so that nobody is given what lies elsewhere.
///
/// # Errors
/// The system's, for the directory or one of its files.
pub fn give(directory: &Path, account: Account, directory_mode: u32, file_mode: u32) -> io::Result<()> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let opened = File::from(rustix::fs::open(directory, flags, Mode::empty())?);
    let (uid, gid) = (Uid::from_raw(account.uid), Gid::from_raw(account.gid));
    for entry in Dir::read_from(&opened)? {
        let entry = entry?;
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let seen = rustix::fs::statat(&opened, entry.file_name(), AtFlags::SYMLINK_NOFOLLOW)?;
        if FileType::from_raw_mode(seen.st_mode) != FileType::RegularFile {
            continue;
        }
        let file = openat(&opened, entry.file_name(), flags, Mode::empty())?;
        let stat = fstat(&file)?;
        if FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile && stat.st_nlink == 1 {
            fchown(&file, Some(uid), Some(gid))?;
            fchmod(&file, Mode::from_raw_mode(file_mode))?;
        }
    }
    fchown(&opened, Some(uid), Some(gid))?;
    fchmod(&opened, Mode::from_raw_mode(directory_mode))?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_account_is_found_by_its_whole_name() {
        let text = "root:x:0:0::/:/bin/sh\ndaemoneye-procmond2:x:7:7::/:\ndaemoneye-procmond:x:990:985::/:\nbroken\n";
        assert_eq!(numbered(text, "daemoneye-procmond"), Some(990));
        assert_eq!(numbered(text, "daemoneye"), None);
        assert_eq!(numbered(text, "broken"), None);
    }

    #[test]
    fn a_stand_in_is_a_user_that_nobody_has() {
        assert_eq!(nobodys("root:x:0:0::/:/bin/sh\n"), Some(60_578));
        assert_eq!(nobodys("a:x:60578:0::/:\nb:x:60579:0::/:\n"), Some(60_580));
        let all: String = NOBODYS.map(|uid| format!("u:x:{uid}:0::/:\n")).collect();
        assert_eq!(nobodys(&all), None);
    }
}
