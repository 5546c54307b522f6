//! From a collector's records to one Arrow batch.
//!
//! Columns are built straight from the decoded messages; past this door there are no per-event structs. A record whose
//! payload is no process event costs a coverage gap and nothing else: its position still counts as seen, so one bad record
//! can never stop a stream. Records without a position, or out of order, are the peer's error and refused as a whole.

mod arrays;
mod cells;
mod json;
mod live;

use std::sync::Arc;

use daemoneye_lib::entity::EntityId;
use daemoneye_lib::model::Completeness;
use daemoneye_lib::proto::{CoverageGap, EventType, ProcessEvent, ProcessRecord, Record, Sequence};
use daemoneye_lib::topic::PROCESS_TOPICS;
use datafusion::arrow::array::RecordBatch;
use datafusion::arrow::error::ArrowError;
use prost::Message as _;

use crate::sql::of_gap;
use crate::store::reason;

pub(crate) use cells::content;
pub use json::{JsonRowError, batch_from_json, row_to_json};
pub(crate) use json::{check_value, value_in};
pub(crate) use live::{LifetimeRow, lifetimes_batch, processes_batch};

/// Topics of everything that collectors see start with this.
const EVENT_TOPICS: &str = "events.";
/// Topics on which collectors tell their gaps start with this; their id follows.
const COLLECTOR_TOPICS: &str = "events.collector.";
/// Bytes of a gap's detail that are kept: a sentence, not a dump.
const DETAIL_BYTES: usize = 512;
/// Reason of the gap that stands for a record nobody could decode.
pub const UNDECODABLE: &str = "undecodable";

/// What a run of records became.
#[derive(Debug, Clone)]
pub struct EventBatch {
    /// The events, in stream order, with the schema of `process_events`. May have no rows.
    pub batch: RecordBatch,
    /// Whose stream it is.
    pub collector: Arc<str>,
    /// Position of the first record.
    pub first: Sequence,
    /// Position of the last record, whether or not it became a row.
    pub last: Sequence,
    /// What could not be seen, with the position of the record that said so.
    pub gaps: Vec<GapAt>,
    /// What the events change in the table of live processes.
    pub live: Vec<LiveChange>,
}

impl EventBatch {
    /// What an alert lacks that is raised of these events: each gap in its reason's own word, so that a collector that was away is
    /// not said to have lost anything.
    #[must_use]
    pub fn completeness(&self) -> Completeness {
        let mut completeness = Completeness::complete();
        self.gaps.iter().filter_map(|at| of_gap(&at.gap.reason)).for_each(|reason| completeness.degrade(reason));
        completeness
    }
}

/// A gap and where in the stream it was told.
#[derive(Debug, Clone, PartialEq)]
pub struct GapAt {
    /// Position of the record that told it, or that could not be decoded.
    pub at: Sequence,
    /// What is missing.
    pub gap: CoverageGap,
}

/// One event's effect on the table of live processes.
#[derive(Debug, Clone, PartialEq)]
pub struct LiveChange {
    /// Position of the event.
    pub at: Sequence,
    /// Time of the event, µs since the Unix epoch.
    pub time_us: i64,
    /// Which process.
    pub entity: EntityId,
    /// The process as the event tells it.
    pub process: Arc<ProcessRecord>,
    /// What that means for it.
    pub fate: Fate,
}

/// What an event says about a process as a whole.
#[derive(Debug, Clone, PartialEq)]
pub enum Fate {
    /// It lives, and the record is all of it.
    Lives,
    /// It lives; the record holds what changed and what identifies it, the rest stays as it was.
    Changed,
    /// It ended.
    Ended(End),
    /// It had ended before; this is learnt late.
    Past,
}

/// How a process ended, as far as it is known.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct End {
    /// Exit status; negative: killed by that signal.
    pub exit_code: Option<i32>,
    /// How long it lived.
    pub runtime_ms: Option<u64>,
    /// False: found later, by its absence.
    pub observed: Option<bool>,
}

/// Why a run of records was refused as a whole.
#[derive(Debug, thiserror::Error)]
pub enum IngestError {
    /// Arrow would not take the columns; a defect of this program, not of the peer.
    #[error("the columns of {collector}'s events do not form a batch: {source}")]
    Columns {
        /// Whose records.
        collector: String,
        /// What Arrow said.
        source: ArrowError,
    },
    /// No records at all.
    #[error("an empty run of {collector} has no position; drop it")]
    MisuseEmpty {
        /// Whose run.
        collector: String,
    },
    /// A position does not follow the one before it.
    #[error("{collector} sent position {after} after {before}; close its connection so that it replays in order")]
    PeerOrder {
        /// Whose stream.
        collector: String,
        /// The position before.
        before: Sequence,
        /// The one that must be greater.
        after: Sequence,
    },
    /// A stream record without a position.
    #[error("{collector} sent a stream record on {topic} without a position; close its connection")]
    PeerUnsequenced {
        /// Whose stream.
        collector: String,
        /// The record's topic.
        topic: String,
    },
}

/// Decodes a run of one collector's stream.
///
/// # Errors
/// [`IngestError`] when the run has no records, or their positions are missing or not ascending. Payloads never fail: what
/// cannot be decoded becomes a gap with the reason [`UNDECODABLE`], events without a table here one with the reason `no_table`.
pub fn decode(collector: &str, records: &[Record]) -> Result<EventBatch, IngestError> {
    let (first, last) = bounds(collector, records)?;
    let mut events = Vec::with_capacity(records.len());
    let mut gaps = Vec::new();
    for record in records {
        let Some(at) = record.sequence else { continue };
        let unkept = |why, detail: &str| GapAt { at, gap: unkept(collector, at, record.time_us, why, detail) };
        let unreadable = if record.topic.starts_with(PROCESS_TOPICS) {
            read_event(record).map(|event| events.push((at, event)))
        } else if has_no_table(&record.topic) {
            gaps.push(unkept(reason::NO_TABLE, &format!("this build has no table for {}", record.topic)));
            continue;
        } else {
            read_gap(collector, record).map(|gap| gaps.push(GapAt { at, gap }))
        };
        if let Err(detail) = unreadable {
            gaps.push(unkept(UNDECODABLE, &detail));
        }
    }
    let batch = arrays::events_batch(collector, &events)
        .map_err(|source| IngestError::Columns { collector: collector.to_owned(), source })?;
    let live = events.into_iter().filter_map(|(at, event)| change(at, event)).collect();
    Ok(EventBatch { batch, collector: collector.into(), first, last, gaps, live })
}

fn bounds(collector: &str, records: &[Record]) -> Result<(Sequence, Sequence), IngestError> {
    let mut span: Option<(Sequence, Sequence)> = None;
    for record in records {
        let Some(at) = record.sequence else {
            let (collector, topic) = (collector.to_owned(), record.topic.clone());
            return Err(IngestError::PeerUnsequenced { collector, topic });
        };
        span = match span {
            None => Some((at, at)),
            Some((first, before)) if before < at => Some((first, at)),
            Some((_, before)) => {
                return Err(IngestError::PeerOrder { collector: collector.to_owned(), before, after: at });
            }
        };
    }
    span.ok_or_else(|| IngestError::MisuseEmpty { collector: collector.to_owned() })
}

fn read_event(record: &Record) -> Result<ProcessEvent, String> {
    let event = ProcessEvent::decode(record.payload.as_ref()).map_err(|error| error.to_string())?;
    match event.flaw() {
        None => Ok(event),
        Some(flaw) => Err(flaw.to_owned()),
    }
}

/// Events of a domain that is not stored here: nothing about processes is missing, so answers about them stay complete.
fn has_no_table(topic: &str) -> bool {
    topic.starts_with(EVENT_TOPICS) && !topic.starts_with(COLLECTOR_TOPICS)
}

fn read_gap(collector: &str, record: &Record) -> Result<CoverageGap, String> {
    if record.topic.strip_prefix(COLLECTOR_TOPICS) != Some(collector) {
        return Err(format!("topic {} carries neither process events nor {collector}'s gaps", record.topic));
    }
    let gap = CoverageGap::decode(record.payload.as_ref()).map_err(|error| error.to_string())?;
    Ok(told(collector, gap))
}

/// A collector speaks for itself only, and at bounded length.
fn told(collector: &str, mut gap: CoverageGap) -> CoverageGap {
    collector.clone_into(&mut gap.collector);
    gap.detail = clipped(&gap.detail);
    gap.reason = clipped(&gap.reason);
    gap
}

fn unkept(collector: &str, at: Sequence, time_us: i64, why: &str, detail: &str) -> CoverageGap {
    CoverageGap {
        collector: collector.to_owned(),
        reason: why.to_owned(),
        from_us: time_us,
        to_us: time_us,
        count: Some(1),
        detail: clipped(detail),
        first: Some(at),
        last: Some(at),
    }
}

fn clipped(text: &str) -> String {
    text.get(..text.floor_char_boundary(DETAIL_BYTES)).unwrap_or_default().to_owned()
}

fn change(at: Sequence, event: ProcessEvent) -> Option<LiveChange> {
    let kind = event.event_type();
    let process = Arc::new(event.process?);
    let fate = match kind {
        EventType::Stop => {
            Fate::Ended(End { exit_code: event.exit_code, runtime_ms: event.runtime_ms, observed: event.end_observed })
        }
        // A hash may come after its process has ended; that word about it does not bring it back.
        _ if process.status.as_deref() == Some("dead") => Fate::Past,
        EventType::Modify => Fate::Changed,
        _ => Fate::Lives,
    };
    let entity = EntityId::from_bytes(&process.entity_id)?;
    Some(LiveChange { at, time_us: event.time_us, entity, process, fate })
}

#[cfg(test)]
mod tests {
    use super::*;
    use daemoneye_lib::model::Degraded;

    fn told(reason: &str, number: u64) -> Record {
        let gap = CoverageGap { collector: "procmond".into(), reason: reason.into(), ..CoverageGap::default() };
        Record {
            topic: format!("{COLLECTOR_TOPICS}procmond"),
            sequence: Some(Sequence::new(1, number)),
            payload: gap.encode_to_vec().into(),
            ..Record::default()
        }
    }

    #[test]
    fn what_a_batch_lacks_is_said_in_the_words_of_its_gaps() {
        let lacks = |reasons: &[&str]| {
            let records: Vec<Record> = reasons.iter().zip(1..).map(|(reason, number)| told(reason, number)).collect();
            decode("procmond", &records).unwrap().completeness().degraded
        };
        assert_eq!(lacks(&["collector_unavailable"]), [Degraded::CollectorUnavailable]);
        assert_eq!(lacks(&["wal_disk"]), [Degraded::EventsShed]);
        assert_eq!(lacks(&["shed", "collector_unavailable"]), [Degraded::CollectorUnavailable, Degraded::EventsShed]);
        assert_eq!(lacks(&["subscriber_slow"]), [], "the store has these events");
    }
}
