//! How a program is started under another name. The only place of the selftest that asks which system it runs on.

#[cfg(not(unix))]
mod portable;
#[cfg(unix)]
mod unix;

#[cfg(not(unix))]
pub(super) use self::portable::{link, named};
#[cfg(unix)]
pub(super) use self::unix::{link, named};
