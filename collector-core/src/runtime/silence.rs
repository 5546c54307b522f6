//! The time in which no run of this collector captured: from the last sign of life of earlier runs to the begin of this one.
//! Nobody else can tell it when the agent was down as well, and a query over it must not look complete.

use daemoneye_lib::proto::CoverageGap;
use daemoneye_lib::topic::Topic;
use prost::Message as _;

use crate::source::SourceEvent;

/// A restart in order is shorter, µs; what ended meanwhile is found by the comparison with the checkpoint.
const RESTART_US: i64 = 2_000_000;

/// The gap as a record of the stream, or nothing when there was none.
pub(super) fn gap(collector: &str, last_us: Option<i64>, now_us: i64) -> Option<SourceEvent> {
    let from_us = last_us.filter(|last| now_us.saturating_sub(*last) > RESTART_US)?;
    let gap = CoverageGap {
        collector: collector.to_owned(),
        reason: "collector_unavailable".to_owned(),
        from_us,
        to_us: now_us,
        detail: "the collector did not run".to_owned(),
        ..CoverageGap::default()
    };
    let topic = Topic::CollectorEvents(collector.to_owned()).to_string();
    Some(SourceEvent::new(topic, now_us, gap.encode_to_vec()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_first_start_and_a_restart_in_order_leave_no_gap() {
        assert_eq!(gap("thermo", None, 10_000_000), None);
        assert_eq!(gap("thermo", Some(9_000_000), 10_000_000), None);
    }

    #[test]
    fn the_gap_runs_from_the_last_sign_of_life_to_now() {
        let event = gap("thermo", Some(1_000_000), 10_000_000).unwrap();
        assert_eq!(event.topic, "events.collector.thermo");
        let gap = CoverageGap::decode(event.payload.as_slice()).unwrap();
        assert_eq!((gap.reason.as_str(), gap.from_us, gap.to_us), ("collector_unavailable", 1_000_000, 10_000_000));
    }
}
