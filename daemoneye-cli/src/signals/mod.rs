//! What a supervisor asks with. This module alone knows which system has which signals.

#[cfg(unix)]
mod unix;
#[cfg(unix)]
use unix as system;

#[cfg(not(unix))]
mod portable;
#[cfg(not(unix))]
use portable as system;

pub(crate) use system::terminated;
