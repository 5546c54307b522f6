//! The formats of `/proc/<pid>/*`, from bytes. Every parser takes what a hostile process may have chosen (names, arguments,
//! control group names) and answers `None` or an empty value for what it cannot read; none of them panics or allocates more
//! than its result.

use crate::text::CommandLine;

/// What tells one program image from the next inside one process: addresses that are drawn anew at each exec. All zero
/// where the kernel does not let us see them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct ImageMark([u64; 6]);

impl ImageMark {
    /// Code, stack and heap: the addresses that a process cannot move by writing itself a new title, which may move the
    /// others. `None` where they may not be seen, and in the middle of an exec, where the stack stands at a place that it
    /// does not keep.
    #[must_use]
    pub const fn fixed(&self) -> Option<[u64; 3]> {
        let [code, stack, heap, ..] = self.0;
        if stack == 0 || self.is_blank() { None } else { Some([code, stack, heap]) }
    }

    /// There is no program yet, or never: between the old image and the new one an exec shows the new executable without
    /// addresses and arguments, for less than a millisecond unless it is preempted there. Addresses that may not be seen
    /// are not zero.
    #[must_use]
    pub const fn is_blank(&self) -> bool {
        let [code, ..] = self.0;
        code == 0
    }
}

/// The status of a process with a debugger.
pub const TRACED: &str = "traced";

/// `/proc/<pid>/stat`, as far as it is used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stat<'a> {
    /// Thread group id.
    pub pid: u32,
    /// Short name, raw.
    pub comm: &'a [u8],
    /// State letter.
    pub state: u8,
    /// Parent.
    pub ppid: u32,
    /// Session id.
    pub session: u32,
    /// Device number of the controlling terminal, 0 for none.
    pub tty_nr: u32,
    /// User plus system time, in clock ticks.
    pub cpu_ticks: u64,
    /// Threads; a zombie with more than one is only a leader that left early.
    pub threads: u64,
    /// Start, in clock ticks since boot.
    pub start_ticks: u64,
    /// Resident pages.
    pub rss_pages: u64,
    /// Changes at exec.
    pub image: ImageMark,
    /// Wait status; 0 also when it may not be seen.
    pub exit_status: u32,
}

impl Stat<'_> {
    /// Whether the whole process has ended and only waits for its parent.
    #[must_use]
    pub const fn ended(&self) -> bool {
        matches!(self.state, b'X' | b'x') || (self.state == b'Z' && self.threads <= 1)
    }

    /// The column's word for the state.
    #[must_use]
    pub const fn status(&self) -> &'static str {
        match self.state {
            b'R' => "running",
            b'S' => "sleeping",
            b'D' => "disk_sleep",
            b'T' => "stopped",
            b't' => TRACED,
            b'Z' => "zombie",
            b'X' | b'x' => "dead",
            b'I' => "idle",
            _ => "unknown",
        }
    }
}

/// Parses `stat`. The name may hold spaces and parentheses, so fields are counted from the last `)`.
#[must_use]
pub fn stat(bytes: &[u8]) -> Option<Stat<'_>> {
    let open = bytes.iter().position(|b| *b == b'(')?;
    let close = bytes.iter().rposition(|b| *b == b')')?;
    let mut stat = Stat {
        pid: number(bytes.get(..open)?.trim_ascii())?,
        comm: bytes.get(open.checked_add(1)?..close)?,
        state: 0,
        ppid: 0,
        session: 0,
        tty_nr: 0,
        cpu_ticks: 0,
        threads: 0,
        start_ticks: 0,
        rss_pages: 0,
        image: ImageMark::default(),
        exit_status: 0,
    };
    // Numbers as in proc_pid_stat(5): the first word after the name is field 3.
    let mut last = 0;
    for (field, word) in (3u8..).zip(bytes.get(close.checked_add(1)?..)?.trim_ascii().split(|b| *b == b' ')) {
        stat.set(field, word)?;
        last = field;
        if field == 52 {
            break;
        }
    }
    (last >= 24).then_some(stat)
}

impl Stat<'_> {
    fn set(&mut self, field: u8, word: &[u8]) -> Option<()> {
        match field {
            3 => self.state = *word.first()?,
            4 => self.ppid = number(word)?,
            // Negative for a session outside our pid namespace: not known.
            6 => self.session = number(word).unwrap_or(0),
            // Printed as a signed int of which only the device bits count; negative ones have no terminal.
            7 => self.tty_nr = number(word).unwrap_or(0),
            14 | 15 => self.cpu_ticks = self.cpu_ticks.saturating_add(number(word)?),
            20 => self.threads = number(word)?,
            22 => self.start_ticks = number(word)?,
            24 => self.rss_pages = number(word).unwrap_or(0),
            26 => self.image.0[0] = number(word).unwrap_or(0),
            28 => self.image.0[1] = number(word).unwrap_or(0),
            47 => self.image.0[2] = number(word).unwrap_or(0),
            48 => self.image.0[3] = number(word).unwrap_or(0),
            49 => self.image.0[4] = number(word).unwrap_or(0),
            50 => self.image.0[5] = number(word).unwrap_or(0),
            52 => self.exit_status = number(word).unwrap_or(0),
            _ => {}
        }
        Some(())
    }
}

/// The column's exit code from a wait status: the status, or the negative signal.
#[must_use]
pub fn exit_code(wait_status: u32) -> i32 {
    let signal = wait_status & 0x7f;
    let code = if signal == 0 { (wait_status >> 8) & 0xff } else { signal };
    let code = i32::try_from(code).unwrap_or(i32::MAX);
    if signal == 0 { code } else { code.saturating_neg() }
}

/// `/proc/<pid>/status`, as far as `stat` does not say it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Status {
    /// Real user.
    pub uid: Option<u32>,
    /// Effective user.
    pub euid: Option<u32>,
    /// Real group.
    pub gid: Option<u32>,
    /// The pid in the innermost namespace.
    pub namespace_pid: Option<u32>,
    /// It lives in the pid namespace of the proc tree itself, not in one below.
    pub outermost: bool,
    /// A debugger is attached, whether it holds the process at the moment or not.
    pub traced: bool,
}

/// Parses `status`. The name on its first line is escaped by the kernel, so no line can be forged.
#[must_use]
pub fn status(bytes: &[u8]) -> Status {
    let mut status = Status::default();
    for line in bytes.split(|b| *b == b'\n') {
        if let Some(ids) = line.strip_prefix(b"Uid:") {
            let mut ids = words(ids);
            status.uid = ids.next().and_then(number);
            status.euid = ids.next().and_then(number);
        } else if let Some(ids) = line.strip_prefix(b"Gid:") {
            status.gid = words(ids).next().and_then(number);
        } else if let Some(ids) = line.strip_prefix(b"NSpid:") {
            status.namespace_pid = words(ids).last().and_then(number);
            status.outermost = words(ids).count() == 1;
        } else if let Some(tracer) = line.strip_prefix(b"TracerPid:") {
            status.traced = words(tracer).next().is_some_and(|pid| pid != b"0");
        }
    }
    status
}

/// Parses `cmdline`; `None` for a process without one (kernel threads, zombies).
///
/// Two or more empty arguments at the end are the zeroed rest of a title written over the arguments, and are dropped.
#[must_use]
pub fn command_line(bytes: &[u8]) -> Option<CommandLine> {
    let end = bytes.iter().rposition(|b| *b != 0)?.checked_add(1)?;
    let used = bytes.get(..end)?;
    let one_empty_argument = bytes.len().saturating_sub(end) == 2;
    let trailing: Option<&[u8]> = one_empty_argument.then_some(&[]);
    Some(CommandLine::of(used.split(|b| *b == 0).chain(trailing)))
}

/// The control group that places the process: the unified one, or systemd's own, or the first.
#[must_use]
pub fn cgroup(bytes: &[u8]) -> Option<&[u8]> {
    let mut best: Option<(u8, &[u8])> = None;
    for line in bytes.split(|b| *b == b'\n') {
        let mut fields = line.splitn(3, |b| *b == b':');
        let (Some(hierarchy), Some(controllers), Some(path)) = (fields.next(), fields.next(), fields.next()) else {
            continue;
        };
        // In a hybrid set-up the unified tree exists but every process may sit in its root.
        let rank = match (hierarchy, controllers) {
            _ if path == b"/" => 0,
            (b"0", b"") => 3,
            (_, b"name=systemd") => 2,
            _ => 1,
        };
        if best.is_none_or(|(known, _)| rank > known) {
            best = Some((rank, path));
        }
    }
    best.map(|(_, path)| path)
}

/// The container that a control group path names: docker, containerd, cri-o, podman; the innermost one.
#[must_use]
pub fn container_id(cgroup: &[u8]) -> Option<&str> {
    cgroup.rsplit(|b| *b == b'/').find_map(|segment| {
        let segment = std::str::from_utf8(segment).ok()?;
        let segment = segment.strip_suffix(".scope").unwrap_or(segment);
        // `docker-<id>`, `cri-containerd-<id>`, `crio-<id>`, `libpod-<id>`; `<slice>:cri-containerd:<id>`; or the bare id.
        // `crio-conmon-` and `libpod-conmon-` are the monitors beside a container, not the container.
        let (owner, id) = match segment.rfind(['-', ':']) {
            Some(at) => (segment.get(..at)?, segment.get(at.checked_add(1)?..)?),
            None => ("", segment),
        };
        let hexadecimal = id.len() == 64 && id.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
        (hexadecimal && !owner.ends_with("conmon")).then_some(id)
    })
}

/// The inode in a namespace link such as `pid:[4026531836]`.
#[must_use]
pub fn namespace_inode(link: &[u8]) -> Option<u64> {
    let open = link.iter().position(|b| *b == b'[')?;
    number(link.get(open.checked_add(1)?..)?.strip_suffix(b"]")?)
}

/// `btime` of `/proc/stat`: seconds since the Unix epoch.
#[must_use]
pub fn boot_seconds(bytes: &[u8]) -> Option<i64> {
    bytes.split(|b| *b == b'\n').find_map(|line| number(line.strip_prefix(b"btime ")?.trim_ascii()))
}

/// The terminal behind a device number, as `ps` names it; `None` for no terminal.
#[must_use]
pub fn tty(device: u32) -> Option<String> {
    if device == 0 {
        return None;
    }
    // The kernel's new_encode_dev: 12 bits of major between the low 8 and the high 12 bits of minor.
    let major = (device >> 8) & 0xfff;
    let minor = (device & 0xff) | ((device >> 12) & 0xf_ff00);
    Some(match major {
        4 if minor < 64 => format!("tty{minor}"),
        4 => format!("ttyS{}", minor.saturating_sub(64)),
        5 if minor == 1 => "console".to_owned(),
        136..=143 => format!("pts/{}", (major.saturating_sub(136)).saturating_mul(256).saturating_add(minor)),
        188 => format!("ttyUSB{minor}"),
        204 if minor >= 64 => format!("ttyAMA{}", minor.saturating_sub(64)),
        229 => format!("hvc{minor}"),
        _ => format!("{major}:{minor}"),
    })
}

fn words(line: &[u8]) -> impl Iterator<Item = &[u8]> {
    line.split(|b| matches!(b, b' ' | b'\t')).filter(|word| !word.is_empty())
}

/// Decimal digits and nothing else.
pub(crate) fn number<T: std::str::FromStr>(digits: &[u8]) -> Option<T> {
    if !digits.first().is_some_and(u8::is_ascii_digit) {
        return None;
    }
    std::str::from_utf8(digits).ok()?.parse().ok()
}

#[cfg(test)]
#[path = "parse_tests.rs"]
mod tests;
