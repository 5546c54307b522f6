//! What differs between two reads of one process.
//!
//! Absent means "not known", never "empty": a field that could not be read this time keeps its value and is no change, and
//! one that could not be read before is filled in without an event. CPU, memory, status and working directory move all the
//! time; they are kept up to date without an event.
//!
//! An exec is told from a process that writes a new title over its own arguments: it has another executable, or addresses
//! that only an exec draws anew. An executable that is moved while it runs shows another path with the same addresses and
//! the same title; that is no exec.

use daemoneye_lib::proto::{Capture, ProcessRecord};

use crate::collector::Image;
use crate::text::{REPEATED_BYTES, push_step};

/// What a later read came to.
#[derive(Debug, Clone)]
pub(super) struct Change {
    /// The columns whose known values changed, sorted; of an exec also those that were not known before.
    pub(super) modified: Vec<&'static str>,
    /// The process runs another program now.
    pub(super) exec: bool,
}

/// Compares `known` with `read`. A slim record has lost its long fields, so only what it still holds is compared.
pub(super) fn between(known: &ProcessRecord, read: &ProcessRecord, slim: bool, images: (Image, Image)) -> Change {
    let (mut modified, learned) = differences(known, read, slim);
    let every: Vec<_> = modified.iter().chain(&learned).copied().collect();
    let exec = is_exec(known, read, (&modified, &every), images);
    if exec {
        modified = every;
        modified.sort_unstable();
    }
    Change { modified, exec }
}

/// Brings `known` up to date from `read` after the comparison.
pub(super) fn merge(known: &mut ProcessRecord, read: &mut ProcessRecord, slim: bool, exec: bool) {
    if exec {
        succeed(known, read);
    } else {
        update(known, read, slim);
    }
}

/// Brings `known` up to date from an exec that was announced; returns the columns that differ, sorted. What the announcer
/// could not read any more and an exec does not change is taken from before.
pub(super) fn announced(known: &mut ProcessRecord, read: &mut ProcessRecord, slim: bool) -> Vec<&'static str> {
    if read.capture() == Capture::Partial {
        inherit(known, read);
    }
    let (mut modified, learned) = differences(known, read, slim);
    // A fork does not tell where a process runs, so meeting that here is no change.
    const PROGRAM: [&str; 5] = ["command_line", "deleted_executable", "executable_path", "memfd", "name"];
    modified.extend(learned.into_iter().filter(|field| PROGRAM.contains(field)));
    modified.sort_unstable();
    succeed(known, read);
    modified
}

/// Not the effective user, which a set-uid program changes.
fn inherit(known: &ProcessRecord, read: &mut ProcessRecord) {
    macro_rules! fill {
        ($($field:ident),+) => {$(
            if read.$field.is_none() {
                read.$field.clone_from(&known.$field);
            }
        )+};
    }
    if read.uid.is_none() || read.uid == known.uid {
        fill!(user);
    }
    fill!(cwd, uid, gid, session, tty, cgroup, container_id, pid_namespace, namespace_pid);
}

/// The columns whose known values changed, and those that were not known before.
fn differences(known: &ProcessRecord, read: &ProcessRecord, slim: bool) -> (Vec<&'static str>, Vec<&'static str>) {
    let (mut modified, mut learned) = (Vec::new(), Vec::new());
    macro_rules! compare {
        ($($field:ident),+) => {$(
            if read.$field.is_some() && read.$field != known.$field {
                if known.$field.is_some() { modified.push(stringify!($field)) } else { learned.push(stringify!($field)) }
            }
        )+};
    }
    compare!(executable_path, uid, gid, euid, session, tty, deleted_executable, memfd, pid_namespace, namespace_pid);
    if !slim {
        compare!(cgroup, container_id);
    }
    if !slim && !completes(known, read) {
        compare!(command_line);
    }
    if !read.name.is_empty() && read.name != known.name {
        if known.name.is_empty() { learned.push("name") } else { modified.push("name") }
    }
    modified.sort_unstable();
    (modified, learned)
}

/// Only the beginning of the command line was known, as the log tells it of a fork, and it is the same.
fn completes(known: &ProcessRecord, read: &ProcessRecord) -> bool {
    let cut = known.truncated.iter().any(|field| field == "command_line");
    let (known, read) = (known.command_line.as_deref(), read.command_line.as_deref());
    cut && known.zip(read).is_some_and(|(known, read)| known.len() == floor(read) && read.starts_with(known))
}

/// Where an event cuts a line.
fn floor(line: &str) -> usize {
    line.floor_char_boundary(REPEATED_BYTES)
}

fn is_exec(
    known: &ProcessRecord,
    read: &ProcessRecord,
    (modified, every): (&[&str], &[&str]),
    (before, now): (Image, Image),
) -> bool {
    let names = |fields: &[&str]| fields.iter().any(|field| matches!(*field, "name" | "command_line"));
    let renamed = names(every);
    match (&known.executable_path, &read.executable_path) {
        (Some(former), Some(path)) if former != path => renamed || !before.stays(now),
        // A helper of the kernel has no executable until its exec; one that may only now be read is no news by itself.
        (None, Some(_)) => names(modified) && !before.stays(now),
        // It was met in the middle of an exec, before the new image had its arguments.
        (Some(_), Some(_)) if known.command_line.is_none() && known.capture() == Capture::Partial => {
            renamed && before == Image::UNSEEN && now != Image::UNSEEN
        }
        _ => renamed && before.replaced_by(now),
    }
}

/// The record of a new image: of the old one only the parent is kept, as it was when the process came to be.
fn succeed(known: &mut ProcessRecord, read: &mut ProcessRecord) {
    let mut truncated = std::mem::take(&mut known.truncated);
    truncated.retain(|field| field.starts_with("parent_"));
    truncated.append(&mut read.truncated);
    *known = ProcessRecord {
        ppid: known.ppid,
        parent_entity_id: known.parent_entity_id.take(),
        parent_name: known.parent_name.take(),
        parent_executable_path: known.parent_executable_path.take(),
        parent_command_line: known.parent_command_line.take(),
        ancestry: known.ancestry.take(),
        truncated,
        ..std::mem::take(read)
    };
    rename(known);
}

fn update(known: &mut ProcessRecord, read: &mut ProcessRecord, slim: bool) {
    macro_rules! refresh {
        ($($field:ident),+) => {$(
            if read.$field.is_some() {
                known.$field = read.$field.take();
            }
        )+};
    }
    refresh!(executable_path, uid, gid, euid, session, tty, deleted_executable, memfd, pid_namespace, namespace_pid);
    refresh!(user, status, cpu_usage, memory_usage);
    if !slim {
        refresh!(cgroup, container_id, cwd);
        if read.command_line.is_some() {
            known.command_line = read.command_line.take();
            known.arg_lengths = std::mem::take(&mut read.arg_lengths);
        }
        known.truncated.retain(|field| field.starts_with("parent_"));
        known.truncated.append(&mut read.truncated);
        if read.capture() == Capture::Complete {
            known.capture = read.capture;
        }
    }
    if !read.name.is_empty() && read.name != known.name {
        known.name = std::mem::take(&mut read.name);
        rename(known);
    }
}

pub(super) fn rename(known: &mut ProcessRecord) {
    if let Some(path) = &mut known.ancestry
        && let Some(last) = path.rfind('/')
    {
        path.truncate(last);
        push_step(path, &known.name);
    }
}
