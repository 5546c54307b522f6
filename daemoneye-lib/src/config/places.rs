//! Directories of this user and host, from the environment that is passed in.

use std::ffi::OsString;
use std::path::PathBuf;

/// Roots under which configuration, data and sockets are looked for. `None`: not known on this host.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Places {
    /// `/etc`; `None` reads no system configuration.
    pub etc: Option<PathBuf>,
    /// `$XDG_CONFIG_HOME` or `~/.config`.
    pub config_home: Option<PathBuf>,
    /// `$XDG_DATA_HOME` or `~/.local/share`.
    pub data_home: Option<PathBuf>,
    /// `$XDG_RUNTIME_DIR`.
    pub runtime_home: Option<PathBuf>,
    /// Whether the system directories are the defaults.
    pub root: bool,
}

impl Places {
    /// The places of this process.
    #[must_use]
    pub fn of_process() -> Self {
        let environment: Vec<(OsString, OsString)> = std::env::vars_os().collect();
        Self::of_environment(&environment)
    }

    /// The places that `environment` names; relative ones are ignored, as the XDG specification demands.
    #[must_use]
    pub fn of_environment(environment: &[(OsString, OsString)]) -> Self {
        let absolute = |name: &str| {
            let (_, value) = environment.iter().find(|(key, _)| key == name)?;
            let path = PathBuf::from(value);
            path.is_absolute().then_some(path)
        };
        let home = absolute("HOME").or_else(|| absolute("USERPROFILE"));
        let under_home = |rest: &str| home.as_ref().map(|home| home.join(rest));
        Self {
            etc: if cfg!(windows) { absolute("ProgramData") } else { Some(PathBuf::from("/etc")) },
            config_home: absolute("XDG_CONFIG_HOME").or_else(|| under_home(".config")),
            data_home: absolute("XDG_DATA_HOME").or_else(|| under_home(".local/share")),
            runtime_home: absolute("XDG_RUNTIME_DIR"),
            root: is_root(),
        }
    }

    /// `/var/lib/daemoneye` for root, else under the user's data directory.
    pub(crate) fn data_dir(&self) -> Option<PathBuf> {
        if self.root {
            return Some(PathBuf::from("/var/lib/daemoneye"));
        }
        self.data_home.as_ref().map(|home| home.join("daemoneye"))
    }

    /// `/run/daemoneye` for root, else under the user's runtime directory; a session without one (su, containers) keeps
    /// its sockets under the data directory, because a shared temporary directory could be taken by somebody else first.
    pub(crate) fn runtime_dir(&self) -> Option<PathBuf> {
        if self.root {
            return Some(PathBuf::from("/run/daemoneye"));
        }
        let own = self.runtime_home.as_ref().map(|home| home.join("daemoneye"));
        own.or_else(|| self.data_dir().map(|data| data.join("run")))
    }
}

#[cfg(unix)]
fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

#[cfg(not(unix))]
const fn is_root() -> bool {
    false
}
