//! Linux: what is left is given away first, then the system calls are listed; both are read back for every thread.
//!
//! Most of it is a property of one thread that later threads inherit, so it is done before there are others. Should there be
//! others all the same, reading back finds the ones that were not reached, and the program ends.

mod accounts;
mod calls;
mod filter;
mod privileges;
mod probe;
mod status;

pub use accounts::{Account, give};
pub use calls::{BASE, UNIX_SOCKETS};

use std::io;

use rustix::process::{
    DumpableBehavior, Resource, Rlimit, dumpable_behavior, getrlimit, set_dumpable_behavior, setrlimit,
};
use seccompiler::BpfProgram;

use self::privileges::Held;
use super::{JailError, Layer, LayerReport, Plan, Probe, Report, State};

/// Privileges are gone; the proof that [`Dropped::seal`] needs.
#[derive(Debug)]
pub struct Dropped {
    plan: Plan,
    held: Held,
    layers: Vec<LayerReport>,
}

/// Everything of the plan is up and was read back.
#[derive(Debug)]
pub struct Jailed {
    report: Report,
}

impl Plan {
    /// Gives away what the plan does not keep: network, account, capabilities. Call it before there are threads.
    ///
    /// # Errors
    /// [`JailError`]: a layer did not take, or one that was required by name is missing.
    pub fn drop_privileges(self) -> Result<Dropped, JailError> {
        let (entry, network) = privileges::leave_network(&self)?;
        let mut layers = vec![entry];
        let (entries, held) = privileges::become_less(&self, network)?;
        layers.extend(entries);
        Ok(Dropped { plan: self, held, layers })
    }

    /// The system calls as programs for the kernel, in the order in which they are applied.
    ///
    /// # Errors
    /// In words: no filter can be built for this processor.
    pub fn filters(&self) -> Result<[BpfProgram; 2], String> {
        filter::programs(&self.calls)
    }
}

impl Dropped {
    /// Adds a layer that the program has put up itself, such as Landlock.
    pub fn record(&mut self, entry: LayerReport) {
        self.layers.push(entry);
    }

    /// Shuts the door: no new privileges, no core files, only the listed calls. Later threads inherit all of it.
    ///
    /// # Errors
    /// [`JailError`]: a layer did not take, reads back otherwise, or was required by name and is missing.
    pub fn seal(mut self) -> Result<Jailed, JailError> {
        let layers = [self.no_new_privs()?, self.not_dumpable()?, self.seccomp()?];
        self.layers.extend(layers);
        for layer in Layer::ALL {
            if !self.layers.iter().any(|entry| entry.layer == *layer) {
                self.layers.push(not_applicable(*layer, "not part of this program's jail"));
            }
        }
        self.layers.sort_by_key(|entry| entry.layer);
        if let Some(entry) = self.layers.iter().find(|entry| self.is_lacking(entry)) {
            let remedy = if entry.remedy.is_empty() { "take it out of sandbox.required" } else { &entry.remedy };
            let (reason, remedy) = (entry.detail.clone(), remedy.to_owned());
            return Err(JailError::Missing { layer: entry.layer, reason, remedy });
        }
        let report = Report { layers: self.layers, probes: Vec::new() };
        status::verify(&report, &self.held)?;
        Ok(Jailed { report })
    }

    /// Required by name, and the system does not have it or this program does not put it up.
    fn is_lacking(&self, entry: &LayerReport) -> bool {
        let is_up = entry.state != State::Missing && self.plan.layers.contains(&entry.layer);
        !is_up && self.plan.required.names(entry.layer)
    }

    fn no_new_privs(&self) -> Result<LayerReport, JailError> {
        let layer = Layer::NoNewPrivs;
        if !self.plan.layers.contains(&layer) {
            return Ok(not_applicable(layer, "left out"));
        }
        rustix::thread::set_no_new_privs(true).map_err(|error| JailError::broken(layer, error))?;
        Ok(on(layer, "a program that is started gains nothing"))
    }

    fn not_dumpable(&self) -> Result<LayerReport, JailError> {
        let layer = Layer::NotDumpable;
        if !self.plan.layers.contains(&layer) {
            return Ok(not_applicable(layer, "left out"));
        }
        let none = Rlimit { current: Some(0), maximum: Some(0) };
        setrlimit(Resource::Core, none).map_err(|error| JailError::broken(layer, error))?;
        set_dumpable_behavior(DumpableBehavior::NotDumpable).map_err(|error| JailError::broken(layer, error))?;
        // Of the whole process, not of a thread; asked here because nobody may ask later.
        let reads_back = dumpable_behavior().map_err(|error| JailError::broken(layer, error))?;
        if reads_back != DumpableBehavior::NotDumpable || getrlimit(Resource::Core) != none {
            return Err(JailError::broken(layer, "it reads back otherwise"));
        }
        Ok(on(layer, "no core files, no debugger of the same user"))
    }

    fn seccomp(&self) -> Result<LayerReport, JailError> {
        let layer = Layer::Seccomp;
        if !self.plan.layers.contains(&layer) {
            return Ok(not_applicable(layer, "left out"));
        }
        let programs = match self.plan.filters() {
            Ok(programs) => programs,
            Err(reason) => return Ok(missing(layer, &reason, "use a build for x86-64, ARM64 or RISC-V")),
        };
        if !status::offers_seccomp() {
            return Ok(missing(layer, "this kernel has no seccomp", "use a kernel with CONFIG_SECCOMP_FILTER"));
        }
        for program in &programs {
            seccompiler::apply_filter_all_threads(program).map_err(|error| JailError::broken(layer, error))?;
        }
        let calls: usize = self.plan.calls.iter().map(|table| table.len()).sum();
        Ok(on(layer, &format!("{calls} lines of allowed calls")))
    }
}

impl Jailed {
    /// Tries the jail from inside, once, and adds what came out to the report.
    #[must_use]
    pub fn probed(mut self, extra: Vec<Probe>) -> Self {
        self.report.probes = probe::common(&self.report);
        self.report.probes.extend(extra);
        self
    }

    /// What holds.
    #[must_use]
    pub const fn report(&self) -> &Report {
        &self.report
    }
}

/// Lets a thread of this process ask for real-time scheduling up to `priority` after the privileges are gone.
///
/// # Errors
/// The system's: without CAP_SYS_RESOURCE the hard limit stays.
pub fn allow_realtime(priority: u64) -> io::Result<()> {
    let limit = getrlimit(Resource::Rtprio);
    if limit.current.is_none_or(|current| current >= priority) {
        return Ok(());
    }
    setrlimit(Resource::Rtprio, Rlimit { current: Some(priority), maximum: Some(priority) })?;
    Ok(())
}

fn on(layer: Layer, detail: &str) -> LayerReport {
    LayerReport { layer, state: State::On, detail: detail.to_owned(), remedy: String::new() }
}

fn not_applicable(layer: Layer, detail: &str) -> LayerReport {
    LayerReport { layer, state: State::NotApplicable, detail: detail.to_owned(), remedy: String::new() }
}

fn missing(layer: Layer, detail: &str, remedy: &str) -> LayerReport {
    LayerReport { layer, state: State::Missing, detail: detail.to_owned(), remedy: remedy.to_owned() }
}
