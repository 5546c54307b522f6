//! What the agent knows about the host it runs on.

use std::fs;

use daemoneye_lib::model::SystemInfo;

use crate::clock::now_us;
use crate::platform;

/// The name of this host; it goes into every alert.
pub(crate) fn name() -> String {
    platform::kernel().hostname
}

/// The host as it is now. What the system does not tell is 0 or empty.
pub(crate) fn describe(capabilities: Vec<String>) -> SystemInfo {
    let kernel = platform::kernel();
    SystemInfo {
        time_us: now_us(),
        hostname: kernel.hostname,
        os_name: kernel.name,
        os_version: kernel.release,
        architecture: kernel.machine,
        cpu_cores: std::thread::available_parallelism()
            .map_or(0, |cpus| u32::try_from(cpus.get()).unwrap_or(u32::MAX)),
        total_memory_bytes: total_memory_bytes(),
        uptime_s: first_number("/proc/uptime"),
        boot_id: fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default().trim().to_owned(),
        capabilities,
    }
}

/// Resident bytes of a process; none where there is no /proc.
pub(crate) fn rss_bytes(pid: u32) -> Option<u64> {
    let pages: u64 = fs::read_to_string(format!("/proc/{pid}/statm")).ok()?.split_whitespace().nth(1)?.parse().ok()?;
    Some(pages.saturating_mul(platform::page_bytes()))
}

fn total_memory_bytes() -> u64 {
    let text = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let line = text.lines().find(|line| line.starts_with("MemTotal:")).unwrap_or_default();
    let kib: u64 = line.split_whitespace().nth(1).and_then(|word| word.parse().ok()).unwrap_or(0);
    kib.saturating_mul(1024)
}

fn first_number(path: &str) -> u64 {
    let text = fs::read_to_string(path).unwrap_or_default();
    text.split(['.', ' ']).next().and_then(|word| word.parse().ok()).unwrap_or(0)
}
