//! What differs between two reads of one process.
//!
//! Absent means "not known", never "empty": a field that could not be read this time keeps its value and is no change. CPU,
//! memory, status and working directory move all the time; they are kept up to date without an event.
//!
//! An exec is told from a process that writes a new title over its own arguments: it has another executable, or addresses
//! that only an exec draws anew. An executable that is moved while it runs shows another path with the same addresses and
//! the same title; that is no exec.

use daemoneye_lib::proto::{Capture, ProcessRecord};

use crate::collector::Image;
use crate::text::push_step;

/// What a later read came to.
pub(super) struct Change {
    /// The columns that changed, sorted.
    pub(super) modified: Vec<&'static str>,
    /// The process runs another program now, and the record holds nothing of the former one.
    pub(super) exec: bool,
}

/// Brings `known` up to date from `read`. A slim record has lost its long fields, so only what it still holds is compared.
pub(super) fn merge(
    known: &mut ProcessRecord,
    read: &mut ProcessRecord,
    slim: bool,
    images: (Image, Image),
) -> Change {
    let modified = differences(known, read, slim);
    let exec = is_exec(known, read, &modified, images);
    if exec {
        succeed(known, read);
    } else {
        update(known, read, slim);
    }
    Change { modified, exec }
}

fn differences(known: &ProcessRecord, read: &ProcessRecord, slim: bool) -> Vec<&'static str> {
    let mut modified = Vec::new();
    macro_rules! compare {
        ($($field:ident),+) => {$(
            if read.$field.is_some() && read.$field != known.$field {
                modified.push(stringify!($field));
            }
        )+};
    }
    compare!(executable_path, uid, gid, euid, session, tty, deleted_executable, memfd, pid_namespace, namespace_pid);
    if !slim {
        compare!(cgroup, container_id, command_line);
    }
    if !read.name.is_empty() && read.name != known.name {
        modified.push("name");
    }
    modified.sort_unstable();
    modified
}

fn is_exec(known: &ProcessRecord, read: &ProcessRecord, modified: &[&str], (before, now): (Image, Image)) -> bool {
    let renamed = modified.iter().any(|field| matches!(*field, "name" | "command_line"));
    match (&known.executable_path, &read.executable_path) {
        (Some(former), Some(path)) if former != path => renamed || !before.stays(now),
        // A helper of the kernel has no executable until its exec; one that may only now be read is no news by itself.
        (None, Some(_)) => renamed && !before.stays(now),
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

fn rename(known: &mut ProcessRecord) {
    if let Some(path) = &mut known.ancestry
        && let Some(last) = path.rfind('/')
    {
        path.truncate(last);
        push_step(path, &known.name);
    }
}
