//! Landlock: everything that is not granted is denied, and so are TCP ports, abstract sockets of others and signals to others.

use daemoneye_lib::jail::{JailError, Layer, LayerReport, State};
use landlock::{
    ABI, Access as _, AccessFs, AccessNet, BitFlags, CompatLevel, Compatible as _, PathBeneath, PathFd, Ruleset,
    RulesetAttr as _, RulesetCreatedAttr as _, RulesetStatus, Scope, make_bitflags,
};

use crate::jail::{Grant, Right};

const LAYER: Layer = Layer::Landlock;

/// The newest rules that are asked for; an older kernel enforces those that it has, and the report says so.
const RULES: ABI = ABI::V6;

fn access(right: Right) -> BitFlags<AccessFs> {
    let read = make_bitflags!(AccessFs::{ReadFile | ReadDir});
    match right {
        Right::Keep => {
            read | make_bitflags!(AccessFs::{
                WriteFile | Truncate | MakeReg | MakeDir | RemoveFile | RemoveDir | Refer
            })
        }
        Right::Read => read,
        Right::Remove => read | make_bitflags!(AccessFs::{RemoveFile | RemoveDir}),
        Right::Sockets => read | make_bitflags!(AccessFs::{MakeSock | RemoveFile}),
        Right::Write => read | make_bitflags!(AccessFs::{WriteFile | MakeReg}),
    }
}

/// Restricts the calling thread and those that it starts.
pub(in crate::jail) fn restrict_files(grants: &[Grant]) -> Result<LayerReport, JailError> {
    let broken = |error: landlock::RulesetError| JailError::Broken { layer: LAYER, reason: error.to_string() };
    let (status, granted) = restrict(grants).map_err(broken)?;
    let told =
        |state, detail: String, remedy: &str| LayerReport { layer: LAYER, state, detail, remedy: remedy.into() };
    Ok(match status {
        RulesetStatus::FullyEnforced => {
            told(State::On, format!("{granted} paths, no TCP port, no signals or abstract sockets of others"), "")
        }
        RulesetStatus::PartiallyEnforced => {
            let detail = format!("{granted} paths; not all rules about ports and signals");
            told(State::On, detail, "a kernel from 6.12 on has all of them")
        }
        RulesetStatus::NotEnforced => {
            told(State::Missing, "this kernel has no Landlock, or it is off".into(), "boot with landlock in lsm=")
        }
    })
}

fn restrict(grants: &[Grant]) -> Result<(RulesetStatus, usize), landlock::RulesetError> {
    let mut rules = Ruleset::default()
        .set_compatibility(CompatLevel::BestEffort)
        .handle_access(AccessFs::from_all(RULES))?
        .handle_access(AccessNet::from_all(RULES))?
        .scope(Scope::from_all(RULES))?
        .create()?;
    let mut granted = 0_usize;
    for grant in grants {
        // What is not there cannot be granted; whoever needs it says so when it fails.
        let Ok(path) = PathFd::new(&grant.path) else { continue };
        let mut allowed = access(grant.right);
        if !grant.path.is_dir() {
            allowed &= AccessFs::from_file(RULES);
        }
        rules = rules.add_rule(PathBeneath::new(path, allowed))?;
        granted += 1;
        tracing::debug!(path = %grant.path.display(), right = ?grant.right, why = grant.why, "granted");
    }
    Ok((rules.restrict_self()?.ruleset, granted))
}
