//! Time in which nobody captured: before this run, from the last sign of life of earlier ones to its begin, and within it, while its
//! source was down. Nobody else can tell it when the agent was down as well, and a query over it must not look complete.

use daemoneye_lib::proto::CoverageGap;
use daemoneye_lib::topic::Topic;
use prost::Message as _;

use crate::source::SourceEvent;

/// Before this run no collector ran. However short that was: a process may live for a millisecond.
const NO_COLLECTOR: &str = "collector_unavailable";
/// The source was stopped, has failed or has ended, and was started again.
const NO_SOURCE: &str = "source_down";

/// The time before this run, or nothing when this is the first one.
pub(super) fn before(collector: &str, last_us: Option<i64>, now_us: i64) -> Option<SourceEvent> {
    let from_us = last_us.filter(|last| *last < now_us)?;
    Some(gap(collector, NO_COLLECTOR, (from_us, now_us), "the collector did not run".to_owned()))
}

/// A time without the source.
pub(super) fn within(collector: &str, since: &Down, now_us: i64) -> SourceEvent {
    gap(collector, NO_SOURCE, (since.at_us, now_us.max(since.at_us)), since.why.clone())
}

/// Since when, in µs since the Unix epoch, a source is down, and why.
pub(super) struct Down {
    pub(super) at_us: i64,
    pub(super) why: String,
}

fn gap(collector: &str, reason: &str, (from_us, to_us): (i64, i64), detail: String) -> SourceEvent {
    let (collector, reason) = (collector.to_owned(), reason.to_owned());
    let topic = Topic::CollectorEvents(collector.clone()).to_string();
    let gap = CoverageGap { collector, reason, from_us, to_us, detail, ..CoverageGap::default() };
    SourceEvent::new(topic, to_us, gap.encode_to_vec())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_first_start_leaves_no_gap_and_neither_does_a_clock_that_went_back() {
        assert_eq!(before("thermo", None, 10_000_000), None);
        assert_eq!(before("thermo", Some(10_000_001), 10_000_000), None);
    }

    #[test]
    fn the_gap_runs_from_the_last_sign_of_life_to_now() {
        for last_us in [1_000_000, 9_999_000] {
            let event = before("thermo", Some(last_us), 10_000_000).unwrap();
            assert_eq!(event.topic, "events.collector.thermo");
            let gap = CoverageGap::decode(event.payload.as_slice()).unwrap();
            assert_eq!((gap.reason.as_str(), gap.from_us, gap.to_us), ("collector_unavailable", last_us, 10_000_000));
        }
    }
}
