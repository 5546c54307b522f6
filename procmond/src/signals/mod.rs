//! The signals that end the program in order. This file alone knows which platform has which.

#[cfg(unix)]
#[path = "unix.rs"]
mod platform;

#[cfg(not(unix))]
#[path = "portable.rs"]
mod platform;

pub(crate) use platform::Signals;
