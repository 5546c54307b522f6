//! What differs between operating systems: file modes, positional writes, directory syncs, the size of this process.

#[cfg(unix)]
mod unix;
#[cfg(unix)]
pub(crate) use unix::{
    Dir, create_dir, create_file, is_closed, is_private, open_no_follow, open_or_create, resident_bytes, write_at,
};

#[cfg(not(unix))]
mod portable;
#[cfg(not(unix))]
pub(crate) use portable::{
    Dir, create_dir, create_file, is_closed, is_private, open_no_follow, open_or_create, resident_bytes, write_at,
};
