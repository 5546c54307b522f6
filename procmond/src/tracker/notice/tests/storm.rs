//! Any order of births, programs and ends, some of them lost.

use std::collections::{BTreeMap, HashSet};

use proptest::prelude::*;

use super::*;

#[derive(Debug, Clone)]
enum Step {
    Born(u32),
    Runs(u32),
    Dies(u32),
    Lost(u32, bool),
    Look,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let pid = 2u32..7;
    let step = prop_oneof![
        3 => pid.clone().prop_map(Step::Born),
        3 => pid.clone().prop_map(Step::Runs),
        3 => pid.clone().prop_map(Step::Dies),
        1 => (pid, any::<bool>()).prop_map(|(pid, dies)| Step::Lost(pid, dies)),
        2 => Just(Step::Look),
    ];
    proptest::collection::vec(step, 1..40)
}

proptest! {
    /// Whatever is lost: after a look the tracker knows who lives, and nobody started twice or stopped twice.
    #[test]
    fn lost_announcements_are_healed_and_nothing_is_told_twice(steps in steps()) {
        let mut host = Host::new();
        let mut living: BTreeMap<u32, ProcessRecord> = BTreeMap::new();
        let (mut started, mut stopped) = (HashSet::new(), HashSet::new());
        let mut tick = 20;
        for step in steps.into_iter().chain([Step::Look]) {
            tick += 1;
            let events = match step {
                Step::Born(pid) if !living.contains_key(&pid) => {
                    living.insert(pid, record(pid, 1, "init", tick));
                    host.fork(tick, 1, pid)
                }
                Step::Runs(pid) if living.contains_key(&pid) => {
                    let now = living.get_mut(&pid).unwrap();
                    let start = TICKS.at(now.start_time_us.unwrap());
                    *now = record(pid, 1, &format!("p{tick}"), start);
                    host.tell(tick, pid, Some(start), exec(image(pid, 1, &format!("p{tick}"))))
                }
                Step::Dies(pid) if living.contains_key(&pid) => {
                    let start = TICKS.at(living.remove(&pid).unwrap().start_time_us.unwrap());
                    host.tell(tick, pid, Some(start), What::Exit(Some(0)))
                }
                Step::Lost(pid, true) => {
                    living.remove(&pid);
                    Vec::new()
                }
                Step::Lost(pid, false) if !living.contains_key(&pid) => {
                    living.insert(pid, record(pid, 1, "lost", tick));
                    Vec::new()
                }
                Step::Look => {
                    let all: Vec<_> = living.values().cloned().chain([record(1, 0, "init", 5)]).collect();
                    let events = host.look(tick, all);
                    prop_assert_eq!(host.tracker.len(), living.len() + 1);
                    events
                }
                _ => Vec::new(),
            };
            for event in events {
                let id = entity(&event).to_vec();
                match event.event_type() {
                    EventType::Start => {
                        prop_assert!(!stopped.contains(&id));
                        let first = started.insert(id);
                        prop_assert!(first || event.start_kind() == StartKind::Exec);
                    }
                    EventType::Stop => {
                        prop_assert!(started.contains(&id) && stopped.insert(id));
                    }
                    _ => prop_assert!(started.contains(&id)),
                }
            }
        }
    }
}
