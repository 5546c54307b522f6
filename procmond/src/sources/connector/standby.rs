//! The connector behind another source: opened while that is allowed, silent until it is asked to take over.
//!
//! Once the jail is entered no socket can be opened, bound or joined to a group. So the socket is opened, bound and
//! acknowledged beforehand, and then told to be silent: the kernel delivers nothing to it, and nothing can overflow. One
//! message makes it listen again; it belongs to the network namespace in which it was opened, wherever its owner lives now.

use rustix::thread::{CapabilitySet, CapabilitySets, capabilities, set_capabilities};

use super::{Connector, unavailable};
use crate::kernel::KernelSourceError;

/// A connector that can take over.
pub struct Standby(Connector);

/// Opens the connector and proves that it can be subscribed to later, when the capability NET_ADMIN is gone.
///
/// # Errors
/// [`KernelSourceError::Unavailable`] with the reason.
pub fn stand_by() -> Result<Standby, KernelSourceError> {
    let mut connector = Connector::opened()?;
    connector.socket.unsubscribe();
    let again = without_net_admin(|| connector.socket.subscribe());
    again.map_err(|reason| unavailable(format!("it cannot stand by for another source: {reason}")))?;
    connector.socket.unsubscribe();
    Ok(Standby(connector))
}

impl Standby {
    /// Subscribes.
    ///
    /// # Errors
    /// [`KernelSourceError::Unavailable`] with the reason.
    pub fn take_over(self) -> Result<Connector, KernelSourceError> {
        let mut connector = self.0;
        let acknowledged = connector.socket.subscribe().map_err(unavailable)?;
        connector.begin(&acknowledged);
        Ok(connector)
    }
}

/// What this thread does while the capability is out of force.
fn without_net_admin<T>(work: impl FnOnce() -> T) -> T {
    let before = capabilities(None);
    if let Ok(CapabilitySets { effective, permitted, inheritable }) = before {
        let effective = effective.difference(CapabilitySet::NET_ADMIN);
        // Who may not give capabilities up for a while keeps them, and the trial says less.
        let _less = set_capabilities(None, CapabilitySets { effective, permitted, inheritable });
    }
    let done = work();
    if let Ok(before) = before {
        let _again = set_capabilities(None, before);
    }
    done
}
