//! What a log may say of one process.

use std::collections::HashMap;

use daemoneye_lib::proto::{Capture, EventType, ProcessEvent, StartKind};

use super::process;

/// What is known of one process so far.
struct Life<'a> {
    image: Image<'a>,
    start: &'a ProcessEvent,
    has_ended: bool,
    /// Descends from this test program.
    ours: bool,
}

/// Name, executable, command line.
type Image<'a> = (&'a str, Option<&'a str>, Option<&'a str>);

/// Panics at one start that is told twice, at a second stop or a start after it, and at an event of a process that has not
/// started.
pub(crate) fn assert_told_once(events: &[ProcessEvent]) {
    let mut lives: HashMap<&[u8], Life<'_>> = HashMap::new();
    for event in events {
        let process = process(event);
        let (entity, parent) = (process.entity_id.as_slice(), process.parent_entity_id.as_deref());
        let shown = || format!("{event:#?}\n{:#?}", told_of(events, entity));
        let image: Image<'_> = (&process.name, process.executable_path.as_deref(), process.command_line.as_deref());
        match (event.event_type(), lives.get_mut(entity)) {
            (EventType::Start, None) => {
                let inherited = parent.and_then(|parent| lives.get(parent)).is_some_and(|parent| parent.ours);
                let ours = inherited || process.ppid == Some(std::process::id());
                lives.insert(entity, Life { image, start: event, has_ended: false, ours });
            }
            (EventType::Start, Some(life)) => {
                assert!(!life.has_ended, "a start after the stop: {}", shown());
                assert!(life.image != image || life.starts_anew(event), "one start told twice: {}", shown());
                (life.image, life.start) = (image, event);
            }
            (_, None) => panic!("an event without a start: {}", shown()),
            (EventType::Stop, Some(life)) => {
                assert!(!life.has_ended, "a second stop: {}", shown());
                life.has_ended = true;
            }
            // What a process made of itself since its start: its next image is compared with this. The dead may still get a hash.
            (_, Some(life)) => life.image = image,
        }
    }
}

impl Life<'_> {
    /// Whether this start of the image that runs already is an event of its own: the kernel has announced it, at a later instant
    /// than the former. What a snapshot tells is told once. None of the tests' own processes executes itself, but one may
    /// execute what it was born as, and images that were gone before the connector could read them look alike.
    fn starts_anew(&self, start: &ProcessEvent) -> bool {
        let former = self.start;
        let is_announced = |event: &ProcessEvent| super::KERNEL_SOURCES.contains(&event.source.as_str());
        let is_first_exec = former.start_kind() == StartKind::Fork && start.start_kind() == StartKind::Exec;
        let unread = [former, start].iter().any(|event| process(event).capture() != Capture::Complete);
        let may_look_alike = is_first_exec || unread && start.source == "proc-connector";
        let is_later = start.time_us > former.time_us && (start.source == former.source || !is_announced(former));
        is_announced(start) && is_later && (may_look_alike || !self.ours)
    }
}

/// Every event of one process in one line each.
fn told_of(events: &[ProcessEvent], entity: &[u8]) -> Vec<String> {
    let of_it = events.iter().filter(|event| process(event).entity_id == entity);
    let line = |event: &ProcessEvent| {
        let (kind, start, fields) = (event.event_type(), event.start_kind(), event.modified_fields.join(","));
        let (process, source, time_us) = (process(event), &event.source, event.time_us);
        format!("{time_us} {kind:?} {start:?} {source} {} {:?} [{fields}]", process.name, process.capture())
    };
    of_it.map(line).collect()
}
