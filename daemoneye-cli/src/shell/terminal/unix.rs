//! Unix: termios.

use std::io::{self, Read as _};

use nix::sys::termios::{LocalFlags, SetArg, Termios, tcgetattr, tcsetattr};
use rustix::termios::tcgetwinsize;

use super::Key;

/// Columns and rows; `None` where they are not known.
pub(crate) fn size() -> Option<(usize, usize)> {
    let size = tcgetwinsize(io::stdout()).ok()?;
    Some((usize::from(size.ws_col), usize::from(size.ws_row))).filter(|(width, height)| *width > 0 && *height > 1)
}

/// Waits for a key, which is not shown. The end of the input ends the reading too.
pub(crate) fn key() -> io::Result<Key> {
    let stdin = io::stdin();
    let _raw = Raw::begin()?;
    let mut byte = [0];
    let read = stdin.lock().read(&mut byte)?;
    Ok(if read == 0 { Key::Quit } else { Key::of(byte[0]) })
}

/// Keys come at once and are not shown, until this goes.
struct Raw(Termios);

impl Raw {
    fn begin() -> io::Result<Self> {
        let before = tcgetattr(io::stdin())?;
        let mut raw = before.clone();
        raw.local_flags.remove(LocalFlags::ICANON | LocalFlags::ECHO | LocalFlags::ISIG);
        tcsetattr(io::stdin(), SetArg::TCSADRAIN, &raw)?;
        Ok(Self(before))
    }
}

impl Drop for Raw {
    fn drop(&mut self) {
        // Fails only when the terminal is gone.
        tcsetattr(io::stdin(), SetArg::TCSADRAIN, &self.0).unwrap_or_default();
    }
}
