//! What is announced and what is found, in every order.

mod births;
mod hashes;
mod merge;
mod restarts;
mod snapshots;
mod storm;

use daemoneye_lib::proto::{Capture, Identity};

use super::super::*;
use crate::collector::Image;
use crate::kernel::{Credentials, What};

/// A tick is a hundredth of a second, as on most kernels.
const TICKS: Ticks = Ticks { zero_us: 0, per_second: 100 };
const TICK_US: i64 = 10_000;

struct Host {
    tracker: Tracker,
    events: Vec<ProcessEvent>,
}

impl Host {
    /// Nobody has been met.
    fn unseen() -> Self {
        let mut tracker = Tracker::new("procfs", "boot", Limits::default()).with_ticks(TICKS);
        tracker.listen_to(Some("ebpf"));
        Self { tracker, events: Vec::new() }
    }

    /// Init has been met by the baseline.
    fn new() -> Self {
        let mut host = Self::unseen();
        host.look(10, [record(1, 0, "init", 5)]);
        host.events.clear();
        host
    }

    /// The same, in a run that follows on one with this log.
    fn after(log: impl IntoIterator<Item = ProcessEvent>) -> Self {
        let mut host = Self::new();
        for event in log {
            host.input(Input::Replay(Box::new(event)));
        }
        host
    }

    fn input(&mut self, input: Input) {
        let Self { tracker, events } = self;
        tracker.apply(input, &mut |event| events.push(event));
    }

    fn tell(&mut self, tick: u64, pid: u32, start: Option<u64>, what: What) -> Vec<ProcessEvent> {
        self.input(Input::Notice(Notice { time_us: us(tick), pid, start_ticks: start, what }));
        std::mem::take(&mut self.events)
    }

    fn fork(&mut self, tick: u64, parent: u32, pid: u32) -> Vec<ProcessEvent> {
        self.tell(tick, pid, Some(tick), What::Fork { parent, parent_ticks: None, credentials: None })
    }

    fn begin(&mut self, tick: u64) {
        self.input(Input::Begin { time_us: us(tick) });
    }

    fn see(&mut self, record: &ProcessRecord) {
        self.input(Input::Seen(Sighting::Read(Box::new(record.clone()), Image::UNSEEN)));
    }

    /// It has ended and waits to be reaped.
    fn see_dead(&mut self, record: &ProcessRecord) {
        let entity = EntityId::from_bytes(&record.entity_id).unwrap();
        self.input(Input::Seen(Sighting::Ended { entity, pid: record.pid, exit_code: None }));
    }

    /// The file behind `path` has been hashed for this process.
    fn hash(&mut self, process: &ProcessRecord, path: &str) -> Vec<ProcessEvent> {
        self.input(Input::Hashed(Box::new(Hashed {
            entity: EntityId::from_bytes(&process.entity_id).unwrap(),
            pid: process.pid,
            executable_path: path.into(),
            time_us: us(25),
            algorithm: "sha256".into(),
            hash: Some("00".into()),
            status: "ok".into(),
        })));
        std::mem::take(&mut self.events)
    }

    fn end(&mut self) -> Vec<ProcessEvent> {
        self.input(Input::End { complete: true });
        let Self { tracker, events } = self;
        while tracker.proceed(&mut |event| events.push(event)) {}
        std::mem::take(events)
    }

    fn look(&mut self, tick: u64, records: impl IntoIterator<Item = ProcessRecord>) -> Vec<ProcessEvent> {
        self.begin(tick);
        for record in records {
            self.see(&record);
        }
        self.end()
    }
}

fn us(tick: u64) -> i64 {
    i64::try_from(tick).unwrap() * TICK_US
}

/// As a snapshot reads it.
fn record(pid: u32, ppid: u32, name: &str, start: u64) -> ProcessRecord {
    ProcessRecord {
        entity_id: EntityId::derive("boot", pid, start).as_bytes().to_vec(),
        identity: Identity::Exact.into(),
        start_time_us: TICKS.time_us(start),
        ..image(pid, ppid, name)
    }
}

/// As an announcer of an exec reads it.
fn image(pid: u32, ppid: u32, name: &str) -> ProcessRecord {
    ProcessRecord {
        pid,
        ppid: Some(ppid),
        name: name.into(),
        executable_path: Some(format!("/bin/{name}")),
        command_line: Some(format!("{name} x")),
        uid: Some(0),
        cwd: Some("/root".into()),
        namespace_pid: Some(pid),
        capture: Capture::Complete.into(),
        ..Default::default()
    }
}

fn exec(record: ProcessRecord) -> What {
    What::Exec(Box::new(record), Image::UNSEEN, None)
}

fn shown(events: &[ProcessEvent]) -> Vec<String> {
    let word = |event: &ProcessEvent| {
        let process = event.process.as_ref().unwrap();
        let kind = match event.event_type() {
            EventType::Start => format!("{:?}", event.start_kind()).to_lowercase(),
            kind => format!("{kind:?}").to_lowercase(),
        };
        format!("{kind} {} {} by {}", process.pid, process.name, event.source)
    };
    events.iter().map(word).collect()
}

fn entity(event: &ProcessEvent) -> &[u8] {
    &event.process.as_ref().unwrap().entity_id
}
