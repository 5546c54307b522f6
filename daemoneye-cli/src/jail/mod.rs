//! The console's jail: Unix sockets only, no program is started, nothing of it can be dumped. It shows what processes wrote
//! about themselves, so what reads that has no way out.
//!
//! It is closed before the first question; a console that starts an agent for a copied store does so right after that agent
//! has answered. The only place of the console's jail that asks which system it runs on.

#[cfg(target_os = "linux")]
mod linux;
#[cfg(not(target_os = "linux"))]
mod portable;
#[cfg(all(test, target_os = "linux"))]
mod tests;

use std::sync::OnceLock;

use daemoneye_lib::jail::{BASE, JailError, Layer, Plan, Required, UNIX_SOCKETS};

#[cfg(target_os = "linux")]
use self::linux::OWN;
#[cfg(not(target_os = "linux"))]
use self::portable::OWN;

/// Closes the jail for all threads, once; again it does nothing.
///
/// # Errors
/// [`JailError`]: a layer did not take, or one that was required by name is missing.
pub(crate) fn close(required: &Required) -> Result<(), JailError> {
    static CLOSED: OnceLock<()> = OnceLock::new();
    if CLOSED.get().is_none() {
        close_with(LAYERS, required)?;
        CLOSED.get_or_init(|| ());
    }
    Ok(())
}

const LAYERS: &[Layer] = &[Layer::NoNewPrivs, Layer::NotDumpable, Layer::Seccomp];

fn plan(layers: &[Layer], required: &Required) -> Plan {
    Plan {
        usable: &[],
        layers: layers.to_vec(),
        required: required.clone(),
        account: None,
        keep: &[],
        calls: vec![BASE, UNIX_SOCKETS, OWN],
    }
}

fn close_with(layers: &[Layer], required: &Required) -> Result<(), JailError> {
    let jailed = plan(layers, required).drop_privileges()?.seal()?;
    for note in jailed.report().notes() {
        tracing::debug!("{note}");
    }
    Ok(())
}
