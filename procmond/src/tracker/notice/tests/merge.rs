//! One process, one truth: what a look has met, and what the kernel recorded before, while and behind it, in every order.

use std::collections::VecDeque;

use proptest::prelude::*;

use super::*;

const PID: u32 = 7;
const START: u64 = 15;

#[derive(Debug, Clone, Copy)]
enum Step {
    /// It executes a program: another one, or its own with the same arguments.
    Executes(bool),
    /// It gives itself another user, which is no exec.
    Changes,
    /// The next record of the kernel arrives.
    Hears,
    Begins,
    Reads,
    /// Behind everything that was recorded before.
    Ends,
    /// A look that does not wait for what was recorded; one at a time.
    LooksEarly,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        3 => any::<bool>().prop_map(Step::Executes),
        1 => Just(Step::Changes),
        2 => Just(Step::Hears),
        2 => Just(Step::Begins),
        3 => Just(Step::Reads),
        2 => Just(Step::Ends),
        1 => Just(Step::LooksEarly),
    ];
    proptest::collection::vec(step, 1..30)
}

/// What really happens, and what the tracker tells of it. The directory of an image is its number.
struct Life {
    host: Host,
    tick: u64,
    image: u64,
    name: String,
    uid: u32,
    /// Recorded and not heard.
    ring: VecDeque<(u64, What)>,
    /// A look goes on, and has met the process.
    look: Option<bool>,
    /// Something recorded before the last early look has not been heard.
    is_overtaken: bool,
    told: Vec<u64>,
}

impl Life {
    /// Nobody knows it, and nobody recorded its first program.
    fn new() -> Self {
        let (host, name) = (Host::unseen(), "first".to_owned());
        let (ring, told) = (VecDeque::new(), Vec::new());
        Self { host, tick: 20, image: 1, name, uid: 0, ring, look: None, is_overtaken: false, told }
    }

    fn addresses(&self) -> Image {
        Image::at(&EntityId::derive("boot", PID, START), &[self.image, 2, 3])
    }

    fn as_it_is(&self) -> ProcessRecord {
        let cwd = Some(self.image.to_string());
        ProcessRecord { uid: Some(self.uid), cwd, ..record(PID, 1, &self.name, START) }
    }

    fn step(&mut self, step: Step) {
        self.tick += 1;
        match step {
            Step::Executes(another) => {
                self.image += 1;
                if another {
                    self.name = format!("p{}", self.image);
                }
                let seen = ProcessRecord { entity_id: Vec::new(), ..self.as_it_is() };
                self.ring.push_back((self.tick, What::Exec(Box::new(seen), self.addresses(), None)));
            }
            Step::Changes => self.uid += 1,
            Step::Hears => {
                let Some((at, what)) = self.ring.pop_front() else { return };
                self.is_overtaken &= !self.ring.is_empty();
                let events = self.host.tell(at, PID, Some(START), what);
                self.note(&events);
            }
            Step::Begins if self.look.is_none() => {
                self.look = Some(false);
                self.host.begin(self.tick);
            }
            Step::Reads if self.look == Some(false) => {
                self.look = Some(true);
                self.meet();
            }
            Step::Ends if self.look == Some(true) => {
                self.look = None;
                self.hear_all();
                let events = self.host.end();
                self.note(&events);
            }
            Step::LooksEarly if self.look.is_none() && !self.is_overtaken => {
                self.is_overtaken = !self.ring.is_empty();
                self.host.begin(self.tick);
                self.meet();
                self.host.tracker.overtake();
                let events = self.host.end();
                self.note(&events);
            }
            _ => {}
        }
    }

    fn meet(&mut self) {
        let seen = Sighting::Read(Box::new(self.as_it_is()), self.addresses());
        self.host.input(Input::Seen(seen));
    }

    fn hear_all(&mut self) {
        while !self.ring.is_empty() {
            self.step(Step::Hears);
        }
    }

    fn note(&mut self, events: &[ProcessEvent]) {
        let starts = events.iter().filter(|event| event.event_type() == EventType::Start);
        let images = starts.map(|event| event.process.as_ref().unwrap().cwd.as_deref().unwrap().parse::<u64>());
        self.told.extend(images.map(Result::unwrap));
    }
}

proptest! {
    /// Each program that was recorded starts once, and so does the one that the first look met; nothing starts twice.
    #[test]
    fn each_program_starts_once_whoever_sees_it_first(steps in steps()) {
        let mut life = Life::new();
        steps.into_iter().for_each(|step| life.step(step));
        life.hear_all();
        [Step::Ends, Step::Begins, Step::Reads, Step::Ends].into_iter().for_each(|step| life.step(step));
        let mut told = life.told.clone();
        told.sort_unstable();
        let first = if told.first() == Some(&1) { 1 } else { 2 };
        prop_assert_eq!(&told, &(first..=life.image).collect::<Vec<_>>(), "in this order: {:?}", &life.told);
        let known = life.host.tracker.members().first().and_then(Member::record);
        prop_assert_eq!(known.and_then(|known| known.cwd), Some(life.image.to_string()));
    }
}

/// procmond does so at its start, and the baseline of another one may meet it in between.
#[test]
fn who_executes_itself_starts_at_the_look_and_again_at_the_exec() {
    let mut life = Life::new();
    [Step::Begins, Step::Reads, Step::Ends].into_iter().for_each(|step| life.step(step));
    life.step(Step::Executes(false));
    let events = life.host.tell(life.tick, PID, Some(START), life.ring.pop_front().unwrap().1);
    assert_eq!((shown(&events), &life.told), (vec!["exec 7 first by ebpf".to_owned()], &vec![1]));
}

#[test]
fn who_executes_itself_while_a_long_baseline_is_told_starts_again() {
    let mut life = Life::new();
    life.step(Step::Begins);
    life.step(Step::Reads);
    (100..500).for_each(|pid| life.host.see(&record(pid, 1, "sh", START)));
    life.host.input(Input::End { complete: true });
    let Host { tracker, events } = &mut life.host;
    assert!(tracker.proceed(&mut |event| events.push(event)), "there are more");
    assert_eq!(shown(&events[..1]), ["baseline 7 first by procfs"]);
    events.clear();
    life.step(Step::Executes(false));
    life.step(Step::Hears);
    assert_eq!(life.told, [2]);
}

#[test]
fn a_late_announcement_is_not_told_again_although_its_process_has_changed_since() {
    let mut life = Life::new();
    for step in [Step::Executes(true), Step::Changes, Step::LooksEarly, Step::Hears] {
        life.step(step);
    }
    assert_eq!(life.told, [2]);
    let known = life.host.tracker.members().first().and_then(Member::record).unwrap();
    assert_eq!(known.uid, Some(1), "what is known is newer");
}
