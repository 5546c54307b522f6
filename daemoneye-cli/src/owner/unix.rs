//! Unix: user, group and mode.

use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use nix::unistd::{Gid, Group, Uid, User};

/// Owner, group and mode of `path`, or of the nearest directory above it that may be looked at.
pub(crate) fn of(path: &Path) -> String {
    let seen = path.ancestors().find_map(|at| at.metadata().ok().map(|metadata| (at, metadata)));
    let Some((at, metadata)) = seen else { return String::new() };
    let user = User::from_uid(Uid::from_raw(metadata.uid())).ok().flatten();
    let group = Group::from_gid(Gid::from_raw(metadata.gid())).ok().flatten();
    let user = user.map_or_else(|| metadata.uid().to_string(), |user| user.name);
    let group = group.map_or_else(|| metadata.gid().to_string(), |group| group.name);
    format!("{} belongs to user {user}, group {group}, mode {:04o}", at.display(), metadata.mode() & 0o7777)
}
