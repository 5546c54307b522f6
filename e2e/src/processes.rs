//! Processes that run on a directory, and who descends from whom, as /proc tells it.

use std::fs;
use std::path::Path;

use anyhow::Result;

/// Pids of every live procmond whose data directory is `data`.
///
/// # Errors
/// When /proc cannot be read.
pub fn procmonds(data: &Path) -> Result<Vec<i32>> {
    processes_that(|pid| {
        let command_line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        let environment = fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
        let name = fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
        let needle = data.as_os_str().as_encoded_bytes();
        name.trim() == "procmond" && (contains(&command_line, needle) || contains(&environment, needle))
    })
}

/// Pids of every live process that mentions `dir` in its command line.
///
/// # Errors
/// When /proc cannot be read.
pub fn processes_on(dir: &Path) -> Result<Vec<i32>> {
    let needle = dir.as_os_str().as_encoded_bytes().to_vec();
    processes_that(|pid| contains(&fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default(), &needle))
}

fn processes_that(select: impl Fn(i32) -> bool) -> Result<Vec<i32>> {
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc")? {
        if let Some(pid) = entry?.file_name().to_str().and_then(|name| name.parse().ok())
            && select(pid)
        {
            found.push(pid);
        }
    }
    Ok(found)
}

fn contains(haystack: &[u8], needle: &[u8]) -> bool {
    haystack.windows(needle.len()).any(|window| window == needle)
}

pub(crate) fn comm(pid: i32) -> String {
    fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default().trim().to_owned()
}

pub(crate) fn children_of(parent: i32) -> Result<Vec<i32>> {
    processes_that(|pid| {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        let after_name = stat.rsplit_once(')').map_or("", |(_, rest)| rest);
        after_name.split_whitespace().nth(1).and_then(|ppid| ppid.parse().ok()) == Some(parent)
    })
}
