//! Whose a file is, for the advice that follows a refused access. Reads names and rights only.

#[cfg(unix)]
mod unix;
#[cfg(unix)]
pub(crate) use unix::of;

#[cfg(not(unix))]
mod portable;
#[cfg(not(unix))]
pub(crate) use portable::of;
