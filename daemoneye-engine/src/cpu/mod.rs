//! What the calling thread has used of a processor. One file per platform.

#[cfg_attr(unix, path = "unix.rs")]
#[cfg_attr(not(unix), path = "other.rs")]
mod platform;

pub(crate) use platform::thread_ns;
