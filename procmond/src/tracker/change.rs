//! What differs between two reads of one process.
//!
//! Absent means "not known", never "empty": a field that could not be read this time keeps its value and is no change. CPU,
//! memory, status and working directory move all the time; they are kept up to date without an event.

use daemoneye_lib::proto::{Capture, ProcessRecord};

use crate::text::push_step;

/// Brings `known` up to date from `read` and names the columns that changed. A slim record has lost its long fields, so
/// only what it still holds is compared.
pub(super) fn merge(known: &mut ProcessRecord, read: &mut ProcessRecord, slim: bool) -> Vec<&'static str> {
    let mut modified = Vec::new();
    macro_rules! compare {
        ($($field:ident),+) => {$(
            if read.$field.is_some() && read.$field != known.$field {
                known.$field = read.$field.take();
                modified.push(stringify!($field));
            }
        )+};
    }
    compare!(executable_path, uid, gid, euid, session, tty, deleted_executable, memfd, pid_namespace, namespace_pid);
    if !slim {
        compare!(cgroup, container_id);
        if read.command_line.is_some() && read.command_line != known.command_line {
            known.command_line = read.command_line.take();
            known.arg_lengths = std::mem::take(&mut read.arg_lengths);
            modified.push("command_line");
        }
        known.truncated.retain(|field| field.starts_with("parent_"));
        known.truncated.append(&mut read.truncated);
    }
    if !read.name.is_empty() && read.name != known.name {
        known.name = std::mem::take(&mut read.name);
        rename(known);
        modified.push("name");
    }
    quietly(known, read, slim);
    modified.sort_unstable();
    modified
}

fn quietly(known: &mut ProcessRecord, read: &mut ProcessRecord, slim: bool) {
    macro_rules! refresh {
        ($($field:ident),+) => {$(
            if read.$field.is_some() {
                known.$field = read.$field.take();
            }
        )+};
    }
    refresh!(user, status, cpu_usage, memory_usage);
    if !slim {
        refresh!(cwd);
        if read.capture() == Capture::Complete {
            known.capture = read.capture;
        }
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
