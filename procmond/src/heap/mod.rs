//! How the heap of this program behaves. This file alone knows which platform has which.

#[cfg(all(target_os = "linux", target_env = "gnu"))]
#[path = "glibc.rs"]
mod platform;

#[cfg(not(all(target_os = "linux", target_env = "gnu")))]
#[path = "absent.rs"]
mod platform;

pub(crate) use platform::tighten;
