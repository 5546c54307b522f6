//! Whether this run works for an agent. The agent says so through the environment; the token travels in a file, never in
//! an argument or a variable.

use std::ffi::OsString;
use std::fs::File;
use std::io::Read;
use std::path::PathBuf;

use collector_core::runtime::BusOptions;

/// Where the agent's socket lies; unset: standalone.
const SOCKET: &str = "DAEMONEYE_BROKER_SOCKET";

/// File with the token.
const TOKEN_FILE: &str = "DAEMONEYE_BROKER_TOKEN_FILE";

/// Bytes of a token file that are taken; tokens have 32, and a wrong path may name anything.
const TOKEN_BYTES: u64 = 4096;

/// For whom this run works.
pub(crate) enum Mode {
    /// For an agent.
    Actor(BusOptions),
    /// For itself; an agent that comes later replays everything.
    Standalone,
}

/// Why the mode cannot be entered.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ModeError {
    /// The token file cannot be read.
    #[error("cannot read the token file {path} named by {TOKEN_FILE}: {source}; the agent writes it for the user it starts procmond as", path = .path.display())]
    Io {
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
    /// The token file is empty.
    #[error("the token file {path} named by {TOKEN_FILE} is empty", path = .path.display())]
    MisuseEmptyToken { path: PathBuf },
    /// A socket without a token.
    #[error("{SOCKET} is set but {TOKEN_FILE} is not; set both, or neither for standalone mode")]
    MisuseNoToken,
}

impl Mode {
    /// What the environment of this process asks for; `standalone` in the settings overrules it.
    pub(crate) fn of_environment(standalone: bool) -> Result<Self, ModeError> {
        Self::of(standalone, |name| std::env::var_os(name))
    }

    /// For the log.
    pub(crate) const fn name(&self) -> &'static str {
        match self {
            Self::Actor(_) => "actor",
            Self::Standalone => "standalone",
        }
    }

    fn of(standalone: bool, variable: impl Fn(&str) -> Option<OsString>) -> Result<Self, ModeError> {
        let given = |name| variable(name).filter(|value| !value.is_empty()).map(PathBuf::from);
        let Some(socket) = given(SOCKET).filter(|_| !standalone) else { return Ok(Self::Standalone) };
        let path = given(TOKEN_FILE).ok_or(ModeError::MisuseNoToken)?;
        let mut token = Vec::new();
        File::open(&path)
            .and_then(|file| file.take(TOKEN_BYTES).read_to_end(&mut token))
            .map_err(|source| ModeError::Io { path: path.clone(), source })?;
        if token.is_empty() {
            return Err(ModeError::MisuseEmptyToken { path });
        }
        Ok(Self::Actor(BusOptions { socket, token }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(standalone: bool, variables: &[(&str, &str)]) -> Result<Mode, ModeError> {
        Mode::of(standalone, |name| variables.iter().find(|(n, _)| *n == name).map(|(_, value)| value.into()))
    }

    #[test]
    fn without_a_socket_or_when_told_so_it_is_standalone() {
        assert!(matches!(of(false, &[]), Ok(Mode::Standalone)));
        assert!(matches!(of(false, &[(SOCKET, "")]), Ok(Mode::Standalone)));
        assert!(matches!(of(true, &[(SOCKET, "/run/bus.sock")]), Ok(Mode::Standalone)));
    }

    #[test]
    fn a_socket_needs_a_token_that_can_be_read() {
        assert!(matches!(of(false, &[(SOCKET, "/s")]), Err(ModeError::MisuseNoToken)));
        let absent = of(false, &[(SOCKET, "/s"), (TOKEN_FILE, "/nonexistent/token")]);
        assert!(matches!(absent, Err(ModeError::Io { .. })));
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("token");
        let file = file.to_str().unwrap();
        std::fs::write(file, []).unwrap();
        assert!(matches!(of(false, &[(SOCKET, "/s"), (TOKEN_FILE, file)]), Err(ModeError::MisuseEmptyToken { .. })));
        std::fs::write(file, [7; 32]).unwrap();
        let Ok(Mode::Actor(bus)) = of(false, &[(SOCKET, "/s"), (TOKEN_FILE, file)]) else { panic!("no actor") };
        assert_eq!((bus.token, bus.socket), (vec![7; 32], PathBuf::from("/s")));
    }
}
