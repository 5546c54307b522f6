//! User names from `/etc/passwd`, read as a file: `getpwnam` would load name-service modules, sockets and all, into the
//! process that holds the privileges. Accounts that live elsewhere (LDAP, systemd-homed) have no name here.

use std::collections::HashMap;
use std::path::PathBuf;
use std::time::SystemTime;

/// Largest file that is read; a passwd of 50,000 local accounts has 3 MiB.
const PASSWD_BYTES: u64 = 4 * 1024 * 1024;

/// The uid → name table, read again when the file changes.
#[derive(Debug)]
pub struct Accounts {
    path: PathBuf,
    read_at: Option<(SystemTime, u64)>,
    names: HashMap<u32, String>,
}

impl Accounts {
    /// A table over the file at `path`; nothing is read yet.
    #[must_use]
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into(), read_at: None, names: HashMap::new() }
    }

    /// Once per scan: one `stat`, and the file only when it changed. A file that cannot be read leaves the table as it is.
    pub fn refresh(&mut self) {
        let Ok(meta) = std::fs::metadata(&self.path) else { return };
        let Ok(modified) = meta.modified() else { return };
        if self.read_at == Some((modified, meta.len())) || meta.len() > PASSWD_BYTES {
            return;
        }
        if let Ok(bytes) = std::fs::read(&self.path) {
            self.names = parse(&bytes);
            self.read_at = Some((modified, meta.len()));
        }
    }

    /// The name of a user.
    #[must_use]
    pub fn name(&self, uid: u32) -> Option<&str> {
        self.names.get(&uid).map(String::as_str)
    }
}

fn parse(bytes: &[u8]) -> HashMap<u32, String> {
    let mut names = HashMap::new();
    for line in bytes.split(|b| *b == b'\n') {
        let mut fields = line.split(|b| *b == b':');
        let (Some(name), Some(_), Some(uid)) = (fields.next(), fields.next(), fields.next()) else { continue };
        let Some(uid) = std::str::from_utf8(uid).ok().and_then(|uid| uid.parse().ok()) else { continue };
        // The first line of a uid wins, as in getpwuid.
        names.entry(uid).or_insert_with(|| crate::text::escaped(name).0);
    }
    names
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_name_of_a_uid_wins_and_a_changed_file_is_read_again() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("passwd");
        std::fs::write(&path, "root:x:0:0::/:/bin/sh\ntoor:x:0:0::/:/bin/sh\nbroken\n+::\n").unwrap();
        let mut accounts = Accounts::new(&path);
        accounts.refresh();
        assert_eq!((accounts.name(0), accounts.name(7)), (Some("root"), None));
        std::fs::write(&path, "root:x:0:0::/:/bin/sh\nalice:x:7:0::/:/bin/sh\n").unwrap();
        accounts.refresh();
        assert_eq!(accounts.name(7), Some("alice"));
    }

    #[test]
    fn a_missing_file_leaves_everybody_nameless() {
        let mut accounts = Accounts::new("/nonexistent/passwd");
        accounts.refresh();
        assert_eq!(accounts.name(0), None);
    }
}
