//! The terminal's size, and one key at a time. The only place of the shell that asks which system it runs on.

#[cfg(unix)]
mod unix;
#[cfg(unix)]
pub(super) use unix::{key, size};

#[cfg(not(unix))]
mod portable;
#[cfg(not(unix))]
pub(super) use portable::{key, size};

/// What a reader of a long text wants.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Key {
    Line,
    Other,
    Page,
    Quit,
}

impl Key {
    /// Ctrl-C and Ctrl-D end as `q` does.
    #[cfg_attr(not(unix), expect(dead_code, reason = "no keys are read there"))]
    const fn of(byte: u8) -> Self {
        match byte {
            b' ' | b'f' => Self::Page,
            b'\n' | b'\r' | b'j' => Self::Line,
            b'q' | b'Q' | 3 | 4 => Self::Quit,
            _ => Self::Other,
        }
    }
}
