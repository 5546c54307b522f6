//! The tables as programs for the kernel.

use std::collections::BTreeMap;

use nix::libc;
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter, SeccompRule,
    TargetArch,
};

use super::super::syscalls::{Check, Line};

/// The programs in the order in which they are applied. `clone3` hides its flags behind a pointer, so the first answers it
/// with ENOSYS, and the C library falls back to `clone`; a later EPERM would win, so the list itself lets it through.
pub(super) fn programs(tables: &[&[Line]]) -> Result<[BpfProgram; 2], String> {
    let arch = TargetArch::try_from(std::env::consts::ARCH).map_err(|error| error.to_string())?;
    let errno = |number: i32| SeccompAction::Errno(number.unsigned_abs());
    let clone3 = BTreeMap::from([(libc::SYS_clone3, Vec::new())]);
    let first = SeccompFilter::new(clone3, SeccompAction::Allow, errno(libc::ENOSYS), arch);
    let mut rules = rules(tables)?;
    rules.insert(libc::SYS_clone3, Vec::new());
    let second = SeccompFilter::new(rules, errno(libc::EPERM), SeccompAction::Allow, arch);
    let built = |filter: Result<SeccompFilter, _>| filter.and_then(BpfProgram::try_from).map_err(|e| e.to_string());
    Ok([built(first)?, built(second)?])
}

/// A call without alternatives is allowed always, whatever another table says of it.
fn rules(tables: &[&[Line]]) -> Result<BTreeMap<i64, Vec<SeccompRule>>, String> {
    let mut rules: BTreeMap<i64, Option<Vec<SeccompRule>>> = BTreeMap::new();
    for line in tables.iter().copied().flatten() {
        let alternatives: Result<Vec<SeccompRule>, String> = line.when.iter().map(|checks| rule(checks)).collect();
        let alternatives = alternatives?;
        match rules.entry(line.number).or_insert_with(|| Some(Vec::new())) {
            Some(known) if !alternatives.is_empty() => known.extend(alternatives),
            known => *known = None,
        }
    }
    Ok(rules.into_iter().map(|(number, alternatives)| (number, alternatives.unwrap_or_default())).collect())
}

fn rule(checks: &[Check]) -> Result<SeccompRule, String> {
    let conditions: Result<Vec<SeccompCondition>, _> = checks.iter().copied().map(condition).collect();
    conditions.and_then(SeccompRule::new).map_err(|error| error.to_string())
}

fn condition(check: Check) -> Result<SeccompCondition, seccompiler::BackendError> {
    let (argument, operator, value) = match check {
        Check::Is(argument, value) => (argument, SeccompCmpOp::Eq, value),
        Check::Masked { argument, mask, value } => (argument, SeccompCmpOp::MaskedEq(mask.into()), value),
        Check::OwnPid(argument) => (argument, SeccompCmpOp::Eq, std::process::id()),
    };
    SeccompCondition::new(argument, SeccompCmpArgLen::Dword, operator, value.into())
}
