//! Linux: Landlock here, the other layers by `daemoneye_lib::jail`.

mod calls;
mod files;
mod probe;

use daemoneye_lib::jail::{BASE, Line, UNIX_SOCKETS};

pub(super) use self::files::restrict_files;
pub(super) use self::probe::probes;

pub(super) fn worker_calls() -> Vec<&'static [Line]> {
    vec![BASE, UNIX_SOCKETS, calls::WORKER]
}

pub(super) fn parent_calls() -> Vec<&'static [Line]> {
    vec![BASE, UNIX_SOCKETS, calls::WORKER, calls::PARENT]
}
