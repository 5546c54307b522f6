//! Seeded generator for benchmarks and tests: process events as a busy Linux host makes them.
//!
//! The same seed makes the same records, so that two runs measure the same work. Lifetimes are whole: every stop and change
//! belongs to a start that came before it, and parents are processes that live. Names, paths and arguments repeat as they do
//! on a real host, with a tail of rare ones.

use daemoneye_lib::proto::{Capture, EventType, Identity, ProcessEvent, ProcessRecord, Record, Sequence, StartKind};
use prost::Message;

/// Live processes; the oldest stop when there are more.
const LIVE: usize = 400;
/// Mean time between two events, in µs: some 200 events a second.
const STEP_US: u64 = 10_000;
const COLLECTOR_EPOCH: u64 = 1;

/// Executable, weight, arguments; `{}` becomes a number so that command lines differ.
const PROGRAMS: &[(&str, u32, &str)] = &[
    ("/usr/bin/bash", 16, "-c make -j{} all"),
    ("/usr/bin/cat", 12, "/proc/{}/status"),
    ("/usr/bin/grep", 12, "-rn --include=*.rs error_{} src"),
    ("/usr/bin/sed", 10, "-e s/{}/x/g input.txt"),
    ("/usr/bin/git", 8, "rev-parse --short=12 HEAD~{}"),
    ("/usr/lib/git-core/git", 6, "index-pack --stdin --fix-thin --keep={}"),
    ("/usr/bin/gcc", 6, "-O2 -g -Wall -Iinclude -c src/unit_{}.c -o build/unit.o"),
    ("/usr/libexec/gcc/x86_64-linux-gnu/14/cc1", 6, "-quiet -Iinclude src/unit_{}.c -o /tmp/cc.s"),
    ("/usr/bin/python3", 5, "/opt/app/worker.py --shard {} --queue default"),
    ("/usr/bin/node", 3, "/srv/web/server.js --port {}"),
    ("/usr/bin/sleep", 3, "{}"),
    ("/usr/sbin/sshd", 2, "-D -R {}"),
    ("/usr/bin/curl", 2, "-fsS https://repo.example.org/pool/{}/package.deb"),
    ("/usr/sbin/cron", 1, "-f -P {}"),
    ("/usr/bin/openssl", 1, "x509 -in /etc/ssl/certs/{}.pem -noout -enddate"),
    ("/home/alice/.cargo/bin/cargo", 1, "build --release --jobs {}"),
];

struct Live {
    entity: [u8; 16],
    pid: u32,
    program: usize,
    argument: u64,
    started_us: i64,
    /// The parent as it was at the start: entity, pid, program.
    parent: Option<([u8; 16], u32, usize)>,
}

/// An endless stream of records of one collector.
pub struct Generator {
    random: u64,
    time_us: i64,
    next_number: u64,
    next_pid: u32,
    live: Vec<Live>,
}

impl std::fmt::Debug for Generator {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Generator").field("time_us", &self.time_us).finish_non_exhaustive()
    }
}

impl Generator {
    /// A stream that begins at `start_us` (µs since the Unix epoch).
    #[must_use]
    pub const fn new(seed: u64, start_us: i64) -> Self {
        Self { random: seed, time_us: start_us, next_number: 1, next_pid: 1, live: Vec::new() }
    }

    /// Time of the last record.
    #[must_use]
    pub const fn time_us(&self) -> i64 {
        self.time_us
    }

    /// The next `count` records, as a collector's write-ahead log holds them.
    pub fn records(&mut self, count: usize) -> Vec<Record> {
        (0..count).map(|_| self.record()).collect()
    }

    /// The next record.
    pub fn record(&mut self) -> Record {
        let step = self.below(STEP_US * 2);
        self.time_us = self.time_us.saturating_add(i64::try_from(step).unwrap_or(0));
        let (topic, event) = self.event();
        let sequence = Sequence::new(COLLECTOR_EPOCH, self.next_number);
        self.next_number = self.next_number.saturating_add(1);
        Record {
            sequence: Some(sequence),
            topic: topic.to_owned(),
            time_us: event.time_us,
            payload: event.encode_to_vec().into(),
        }
    }

    fn event(&mut self) -> (&'static str, ProcessEvent) {
        let roll = self.below(100);
        if self.live.len() > LIVE || (roll < 40 && self.live.len() > 8) {
            let index = usize::try_from(self.below(self.live.len() as u64 - 2)).unwrap_or(0) + 2;
            let stopped = self.live.swap_remove(index.min(self.live.len().saturating_sub(1)));
            return ("events.process.stop", self.stop(&stopped));
        }
        if roll >= 90 && !self.live.is_empty() {
            let index = usize::try_from(self.below(self.live.len() as u64)).unwrap_or(0);
            return ("events.process.modify", self.modify(index));
        }
        ("events.process.start", self.start())
    }

    fn start(&mut self) -> ProcessEvent {
        let argument = self.below(5_000);
        let program = self.program();
        let parent = usize::try_from(self.below(self.live.len().max(1) as u64)).unwrap_or(0);
        let parent = self.live.get(parent).map(|parent| (parent.entity, parent.pid, parent.program));
        let pid = self.next_pid;
        // Pids wrap as the kernel's do, so that pid alone never identifies a process here either.
        self.next_pid = if pid >= 4_194_303 { 300 } else { pid.saturating_add(1) };
        let mut entity = [0_u8; 16];
        for half in entity.chunks_mut(8) {
            half.copy_from_slice(&self.next().to_le_bytes());
        }
        let live = Live { entity, pid, program, argument, started_us: self.time_us, parent };
        let event = ProcessEvent { start_kind: StartKind::Exec.into(), ..self.about(EventType::Start, &live) };
        self.live.push(live);
        event
    }

    fn stop(&mut self, live: &Live) -> ProcessEvent {
        let lived_us = self.time_us.saturating_sub(live.started_us);
        let failed = self.below(20) == 0;
        ProcessEvent {
            exit_code: Some(i32::from(failed)),
            runtime_ms: u64::try_from(lived_us / 1_000).ok(),
            end_observed: Some(true),
            ..self.about(EventType::Stop, live)
        }
    }

    fn modify(&mut self, index: usize) -> ProcessEvent {
        let argument = self.below(5_000);
        let Some(live) = self.live.get_mut(index) else { return ProcessEvent::default() };
        live.argument = argument;
        let Some(live) = self.live.get(index) else { return ProcessEvent::default() };
        let mut event = self.about(EventType::Modify, live);
        event.modified_fields = vec!["command_line".to_owned(), "memory_usage".to_owned()];
        event
    }

    fn about(&self, event_type: EventType, live: &Live) -> ProcessEvent {
        ProcessEvent {
            event_type: event_type.into(),
            time_us: self.time_us,
            process: Some(Self::process(live)),
            source: "generated".to_owned(),
            ..ProcessEvent::default()
        }
    }

    fn process(live: &Live) -> ProcessRecord {
        let (path, arguments) = program(live.program);
        let name = base_name(path);
        let command_line = format!("{name} {}", arguments.replace("{}", &live.argument.to_string()));
        let parent_path = live.parent.map_or("/usr/lib/systemd/systemd", |(_, _, index)| program(index).0);
        let root = live.pid.is_multiple_of(7);
        ProcessRecord {
            entity_id: live.entity.to_vec(),
            identity: Identity::Exact.into(),
            pid: live.pid,
            ppid: Some(live.parent.map_or(1, |(_, pid, _)| pid)),
            parent_entity_id: live.parent.map(|(entity, _, _)| entity.to_vec()),
            parent_name: Some(base_name(parent_path).to_owned()),
            parent_executable_path: Some(parent_path.to_owned()),
            parent_command_line: Some(parent_path.to_owned()),
            ancestry: Some(format!("/systemd/{}/{name}", base_name(parent_path))),
            name: name.chars().take(15).collect(),
            executable_path: Some(path.to_owned()),
            arg_lengths: command_line.split(' ').map(|part| u32::try_from(part.len()).unwrap_or(0)).collect(),
            command_line: Some(command_line),
            cwd: Some(if root { "/" } else { "/home/alice/src" }.to_owned()),
            uid: Some(if root { 0 } else { 1000 }),
            gid: Some(if root { 0 } else { 1000 }),
            euid: Some(if root { 0 } else { 1000 }),
            user: Some(if root { "root" } else { "alice" }.to_owned()),
            session: Some(live.pid / 50),
            tty: (!root).then(|| "pts/0".to_owned()),
            start_time_us: Some(live.started_us),
            status: Some("running".to_owned()),
            cpu_usage: Some(f64::from(live.pid % 100) / 10.0),
            memory_usage: Some(u64::from(live.pid % 512) * 65_536),
            executable_hash: Some(fixed_hash(live.program)),
            hash_algorithm: Some("sha256".to_owned()),
            hash_status: Some("ok".to_owned()),
            deleted_executable: Some(false),
            memfd: Some(false),
            cgroup: Some(if root { "/system.slice/cron.service" } else { "/user.slice/user-1000.slice" }.to_owned()),
            pid_namespace: Some(4_026_531_836),
            namespace_pid: Some(live.pid),
            capture: Capture::Complete.into(),
            ..ProcessRecord::default()
        }
    }

    fn program(&mut self) -> usize {
        let total: u32 = PROGRAMS.iter().map(|(_, weight, _)| weight).sum();
        let mut at = u32::try_from(self.below(u64::from(total))).unwrap_or(0);
        for (index, (_, weight, _)) in PROGRAMS.iter().enumerate() {
            if at < *weight {
                return index;
            }
            at -= weight;
        }
        0
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.next().checked_rem(bound).unwrap_or(0)
    }

    /// SplitMix64 (Steele, Lea, Flood 2014): tiny, seeded, the same everywhere.
    fn next(&mut self) -> u64 {
        self.random = self.random.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.random;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }
}

fn program(index: usize) -> (&'static str, &'static str) {
    PROGRAMS.get(index).map_or(("/usr/bin/true", ""), |(path, _, arguments)| (path, arguments))
}

fn base_name(path: &str) -> &str {
    path.rsplit('/').next().unwrap_or(path)
}

/// The hash that program `index` has in every event; benchmarks look one up.
fn fixed_hash(index: usize) -> String {
    blake3::hash(program(index).0.as_bytes()).to_hex().to_string()
}
