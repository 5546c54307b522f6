//! The sources of process records, and the choice among them. This file alone knows which platform has which; everything
//! above it sees a [`ProcessCollector`] for snapshots and, where there is one, a [`KernelSource`] for what happens between.

use std::path::Path;

use crate::collector::{ProcessCollectionError, ProcessCollector};
use crate::kernel::{KernelSource, KernelSourceError};

#[cfg(target_os = "linux")]
#[path = "procfs/mod.rs"]
pub mod native;

#[cfg(target_os = "linux")]
pub mod connector;
#[cfg(all(target_os = "linux", feature = "kernel-monitoring"))]
pub mod ebpf;
#[cfg(target_os = "linux")]
mod fields;

#[cfg(not(target_os = "linux"))]
#[path = "absent.rs"]
pub mod native;

pub mod accounts;
pub mod sysinfo;

/// Why no source could be chosen.
#[derive(Debug, thiserror::Error)]
pub enum ChoiceError {
    /// The source of the kernel that was asked for.
    #[error("{0}; choose another source, or auto")]
    Kernel(#[from] KernelSourceError),
    /// The reader of the process table.
    #[error(transparent)]
    Table(#[from] ProcessCollectionError),
}

/// How a source of the kernel is opened, or takes over; given the boot id.
pub type Open = Box<dyn FnOnce(&str) -> Result<Box<dyn KernelSource>, KernelSourceError> + Send>;

/// Sources that work here, and why they were taken.
pub struct Chosen {
    /// The reader of the process table.
    pub collector: Box<dyn ProcessCollector>,
    /// What announces what happens between two snapshots.
    pub kernel: Option<Box<dyn KernelSource>>,
    /// Why, for `health`.
    pub reason: String,
    /// One line for each better source that was not taken.
    pub passed_over: Vec<String>,
    /// What may take the place of a source of the kernel that dies, best first.
    pub next: Vec<Open>,
}

/// What one run of this executable has opened for the next one in the same process.
pub struct HandedOver {
    /// Name and value of the variable that tells the next run.
    pub variable: (&'static str, String),
    /// Open across the exec, as long as this lives.
    pub held: Box<dyn Send>,
}

/// One source of the kernel.
struct Offer {
    name: &'static str,
    open: fn(&str) -> Result<Box<dyn KernelSource>, KernelSourceError>,
    /// Makes it ready to follow a better one; the jail, entered in between, lets nothing be opened later.
    stand_by: Option<fn() -> Result<Open, KernelSourceError>>,
    /// Opens it for the next run of this executable, where opening leaves more behind than it needs.
    hand_over: Option<fn() -> Option<HandedOver>>,
}

/// The command that lets an ordinary user's procmond open what was refused.
#[cfg(target_os = "linux")]
fn granting() -> String {
    daemoneye_lib::jail::granting(crate::jail::USABLE)
}

/// Every source of the kernel that this build has, best first.
fn offers() -> Vec<Offer> {
    vec![
        #[cfg(all(target_os = "linux", feature = "kernel-monitoring"))]
        Offer {
            name: "ebpf",
            open: |boot_id| Ok(Box::new(ebpf::open(boot_id, ebpf::RING_BYTES)?)),
            stand_by: None,
            hand_over: Some(|| ebpf::hand_over(ebpf::RING_BYTES)),
        },
        #[cfg(target_os = "linux")]
        Offer {
            name: "proc-connector",
            open: |_boot_id| Ok(Box::new(connector::open()?)),
            stand_by: Some(|| {
                let standby = connector::stand_by()?;
                Ok(Box::new(|_boot_id| Ok(Box::new(standby.take_over()?))))
            }),
            hand_over: None,
        },
    ]
}

/// Opens what `wanted` asks for (`auto`, `ebpf`, `proc-connector`, `procfs`, `sysinfo`). `auto` takes the best that works.
///
/// # Errors
/// What is wrong with the source that was asked for; for `auto`, with the last one tried.
pub fn choose(wanted: &str, proc_root: &Path) -> Result<Chosen, ChoiceError> {
    match wanted {
        "procfs" => Ok(alone(checked(native::open(proc_root)?)?, "configured")),
        "sysinfo" => Ok(alone(checked(Box::new(sysinfo::SysinfoCollector::open()?))?, "configured")),
        "auto" => best(proc_root),
        named => fixed(named, proc_root),
    }
}

/// Opens the source that `wanted` asks for, as in [`choose`], for the next run of this executable.
#[must_use]
pub fn hand_over(wanted: &str, proc_root: &Path) -> Option<HandedOver> {
    let mut offers = offers().into_iter();
    let offer = match wanted {
        "auto" if proc_root == Path::new("/proc") => offers.next(),
        named => offers.find(|offer| offer.name == named),
    };
    offer?.hand_over?()
}

fn best(proc_root: &Path) -> Result<Chosen, ChoiceError> {
    let native = native::open(proc_root).and_then(checked);
    let collector = match native {
        Ok(collector) => collector,
        Err(error) => {
            let sysinfo = checked(Box::new(sysinfo::SysinfoCollector::open()?))?;
            let passed_over = vec![format!("procfs not taken: {error}")];
            return Ok(Chosen { passed_over, ..alone(sysinfo, "the only one that works here") });
        }
    };
    let mut offers = offers();
    // A recorded tree shows other processes than the running kernel announces.
    if proc_root != Path::new("/proc") {
        offers.clear();
    }
    let mut passed_over = Vec::new();
    let mut offers = offers.into_iter();
    let kernel = offers.by_ref().find_map(|offer| {
        let opened = (offer.open)(collector.boot_id());
        opened.inspect_err(|error| passed_over.push(format!("{} not taken: {error}", offer.name))).ok()
    });
    Ok(followed(Chosen { kernel, passed_over, ..alone(collector, "best that works here") }, offers))
}

fn fixed(named: &str, proc_root: &Path) -> Result<Chosen, ChoiceError> {
    let collector = checked(native::open(proc_root)?)?;
    let mut offers = offers().into_iter();
    let unavailable = || KernelSourceError::Unavailable {
        source_name: "configured",
        reason: format!("this build has no source {named}"),
    };
    let offer = offers.by_ref().find(|offer| offer.name == named).ok_or_else(unavailable)?;
    let kernel = Some((offer.open)(collector.boot_id())?);
    Ok(followed(Chosen { kernel, ..alone(collector, "configured") }, offers))
}

/// With those of the remaining that can stand by.
fn followed(mut chosen: Chosen, rest: impl Iterator<Item = Offer>) -> Chosen {
    for Offer { name, stand_by, .. } in rest {
        match stand_by.map(|stand_by| stand_by()) {
            Some(Ok(open)) => {
                chosen.reason = format!("{}; {name} stands by", chosen.reason);
                chosen.next.push(open);
            }
            Some(Err(error)) => chosen.passed_over.push(error.to_string()),
            None => {}
        }
    }
    chosen
}

fn alone(collector: Box<dyn ProcessCollector>, reason: &str) -> Chosen {
    Chosen { collector, kernel: None, reason: reason.to_owned(), passed_over: Vec::new(), next: Vec::new() }
}

fn checked(mut collector: Box<dyn ProcessCollector>) -> Result<Box<dyn ProcessCollector>, ProcessCollectionError> {
    collector.health_check()?;
    Ok(collector)
}
