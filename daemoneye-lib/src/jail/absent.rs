//! Systems for which no jail is built. Nothing is given up, and the report says so.

use std::io;
use std::path::Path;

use super::{JailError, Layer, LayerReport, Line, Plan, Probe, Report, State};

/// No calls are listed here.
pub static BASE: &[Line] = &[];

/// No calls are listed here.
pub static UNIX_SOCKETS: &[Line] = &[];

/// A user and a group by number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Account {
    /// User id.
    pub uid: u32,
    /// Group id.
    pub gid: u32,
}

impl Account {
    /// No accounts are looked up here.
    #[must_use]
    pub const fn find(_user: &str, _group: &str) -> Option<Self> {
        None
    }

    /// Nobody stands in here.
    #[must_use]
    pub const fn stand_in() -> Option<Self> {
        None
    }
}

/// The proof that [`Dropped::seal`] needs.
#[derive(Debug)]
pub struct Dropped {
    plan: Plan,
    layers: Vec<LayerReport>,
}

/// The report of a jail that is not there.
#[derive(Debug)]
pub struct Jailed {
    report: Report,
}

impl Plan {
    /// Gives nothing away.
    ///
    /// # Errors
    /// None here.
    pub const fn drop_privileges(self) -> Result<Dropped, JailError> {
        Ok(Dropped { plan: self, layers: Vec::new() })
    }
}

impl Dropped {
    /// Adds a layer that the program has put up itself.
    pub fn record(&mut self, entry: LayerReport) {
        self.layers.push(entry);
    }

    /// Reports every layer as missing.
    ///
    /// # Errors
    /// [`JailError::Missing`]: a layer was required by name.
    pub fn seal(mut self) -> Result<Jailed, JailError> {
        let (reason, remedy) = ("not built for this system", "use Linux, or take it out of sandbox.required");
        for layer in Layer::ALL.iter().copied() {
            if self.plan.required.names(layer) {
                return Err(JailError::Missing { layer, reason: reason.to_owned(), remedy: remedy.to_owned() });
            }
            self.layers.push(LayerReport {
                layer,
                state: State::Missing,
                detail: reason.to_owned(),
                remedy: String::new(),
            });
        }
        Ok(Jailed { report: Report { layers: self.layers, probes: Vec::new() } })
    }
}

impl Jailed {
    /// Nothing is tried where nothing holds.
    #[must_use]
    pub fn probed(self, _extra: Vec<Probe>) -> Self {
        self
    }

    /// What holds: nothing.
    #[must_use]
    pub const fn report(&self) -> &Report {
        &self.report
    }
}

/// Real-time scheduling is not asked for here.
///
/// # Errors
/// None here.
pub const fn allow_realtime(_priority: u64) -> io::Result<()> {
    Ok(())
}

/// Owners stay as they are here.
///
/// # Errors
/// None here.
pub const fn give(_directory: &Path, _account: Account, _directory_mode: u32, _file_mode: u32) -> io::Result<()> {
    Ok(())
}
