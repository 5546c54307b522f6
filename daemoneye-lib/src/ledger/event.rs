//! The canonical bytes of a process event: what its collector hashes when it records the event, and what anybody computes again
//! from the stored row.
//!
//! They are `daemoneye/event/v1`, the version of the column table (u32 LE), then for each column that is not NULL, in the order of
//! [`columns::PROCESS_EVENTS`]: its place in the table (u16 LE), the length of its value (u32 LE), the value. Integers, times and
//! doubles are 8 bytes LE, booleans one. The columns of the stream position are left out: the leaf and the range's entry hold
//! them. A column that was appended to the table later is NULL in what is older, so the bytes stay.

use std::sync::LazyLock;

use prost::Message as _;

use super::Hash;
use super::tree::TreeHash;
use crate::columns::{self, Column, Kind};
use crate::event_json::{Cell, EventRow, Origin};
use crate::hex;
use crate::proto::ProcessEvent;
use crate::topic::PROCESS_TOPICS;

const DOMAIN: &[u8] = b"daemoneye/event/v1";
const RECORD_DOMAIN: &[u8] = b"daemoneye/record/v1";
/// Typical bytes of an event: one allocation.
const TYPICAL_BYTES: usize = 1024;
/// What the trees of ranges are hashed with, whatever the ledger's own tree is.
pub const RANGE_HASH: TreeHash = TreeHash::Blake3;

/// Per column, whether it is part of the content.
static IS_CONTENT: LazyLock<Vec<bool>> =
    LazyLock::new(|| columns::PROCESS_EVENTS.iter().map(|column| !column.field.starts_with("record.")).collect());

/// What a record of a stream is for the ledger.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Content {
    /// A process event: the hash of its canonical bytes.
    Event(Hash),
    /// Something that is no row of the store: the hash of its topic and payload.
    Other(Hash),
}

impl Content {
    /// Of an event that was captured just now.
    #[must_use]
    pub fn of_event(event: &ProcessEvent) -> Self {
        let cells = EventRow::new(event, Origin::default()).cells().map(|(_, cell)| cell);
        Self::Event(content_hash(columns::SCHEMA_VERSION, cells))
    }

    /// Of a record as it was written; what the store would not take for an event is none here either.
    #[must_use]
    pub fn of_record(topic: &str, payload: &[u8]) -> Self {
        let is_event = topic.starts_with(PROCESS_TOPICS);
        match is_event.then(|| ProcessEvent::decode(payload)) {
            Some(Ok(event)) if event.flaw().is_none() => Self::of_event(&event),
            _ => {
                let mut hasher = blake3::Hasher::new();
                hasher.update(RECORD_DOMAIN).update(&length(topic.len())).update(topic.as_bytes()).update(payload);
                Self::Other(*hasher.finalize().as_bytes())
            }
        }
    }
}

/// The canonical bytes of a row: its cells in the order of the table, NULLs included.
#[must_use]
pub fn canonical_event<'a>(schema: u32, cells: impl Iterator<Item = Cell<'a>>) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(TYPICAL_BYTES);
    bytes.extend_from_slice(DOMAIN);
    bytes.extend_from_slice(&schema.to_le_bytes());
    for (place, (cell, is_content)) in (0_u16..).zip(cells.zip(IS_CONTENT.iter())) {
        if *is_content {
            push(&mut bytes, place, &cell);
        }
    }
    bytes
}

/// BLAKE3 of the canonical bytes.
#[must_use]
pub fn content_hash<'a>(schema: u32, cells: impl Iterator<Item = Cell<'a>>) -> Hash {
    *blake3::hash(&canonical_event(schema, cells)).as_bytes()
}

/// The leaf of a record in the tree of its range: the hash of its number (u64 LE) and its content.
#[must_use]
pub fn leaf(number: u64, content: &Hash) -> Hash {
    let mut bytes = [0; 40];
    let (place, rest) = bytes.split_at_mut(8);
    place.copy_from_slice(&number.to_le_bytes());
    rest.copy_from_slice(content);
    RANGE_HASH.leaf(&bytes)
}

fn push(bytes: &mut Vec<u8>, place: u16, cell: &Cell<'_>) {
    let mut field = |value: &[u8]| {
        bytes.extend_from_slice(&place.to_le_bytes());
        bytes.extend_from_slice(&length(value.len()));
        bytes.extend_from_slice(value);
    };
    match cell {
        Cell::Blob(value) => field(value),
        Cell::Boolean(value) => field(&[u8::from(*value)]),
        Cell::Integer(value) | Cell::Timestamp(value) => field(&value.to_le_bytes()),
        Cell::Null => {}
        // Files and sockets do not promise to keep which of the many it was.
        Cell::Real(value) if value.is_nan() => field(&f64::NAN.to_le_bytes()),
        Cell::Real(value) => field(&value.to_le_bytes()),
        Cell::Text(value) => field(value.as_bytes()),
        Cell::Made(value) => field(value.as_bytes()),
    }
}

/// A value has at most the 1 MiB of a record.
fn length(bytes: usize) -> [u8; 4] {
    u32::try_from(bytes).unwrap_or(u32::MAX).to_le_bytes()
}

/// A cell as a proof file has it: as in any JSON of events, and a double as text, which keeps every bit.
#[must_use]
pub fn cell_to_json(cell: &Cell<'_>) -> serde_json::Value {
    match cell {
        Cell::Real(value) => format!("{value:?}").into(),
        other => serde_json::to_value(other).unwrap_or_default(),
    }
}

/// The inverse of [`cell_to_json`]; `None` when the column cannot have this value.
#[must_use]
pub fn cell_of_json(column: &Column, value: &serde_json::Value) -> Option<Cell<'static>> {
    let text = value.as_str();
    Some(match column.kind {
        Kind::Blob => Cell::Blob(hex::decode(text?.strip_prefix("0x")?)?.into()),
        Kind::Boolean => Cell::Boolean(value.as_bool()?),
        Kind::Integer => Cell::Integer(value.as_i64()?),
        Kind::Real => Cell::Real(text?.parse().ok()?),
        Kind::Text => Cell::Made(text?.to_owned()),
        Kind::Timestamp => Cell::Timestamp(match text {
            Some(text) => text.parse::<jiff::Timestamp>().ok()?.as_microsecond(),
            None => value.as_i64()?,
        }),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::{EventType, ProcessRecord};

    fn event(process: ProcessRecord) -> ProcessEvent {
        let process = Some(ProcessRecord { entity_id: vec![7; 16], pid: 1, name: "a".into(), ..process });
        ProcessEvent { event_type: EventType::Start.into(), time_us: 5, process, ..ProcessEvent::default() }
    }

    #[test]
    fn the_bytes_are_those_that_the_formats_document() {
        let event = event(ProcessRecord { cpu_usage: Some(0.5), memfd: Some(true), ..ProcessRecord::default() });
        let bytes = canonical_event(1, EventRow::new(&event, Origin::default()).cells().map(|(_, cell)| cell));
        let mut expected = b"daemoneye/event/v1\x01\0\0\0".to_vec();
        let fields: [(u16, &[u8]); 7] = [
            (0, &5_i64.to_le_bytes()),
            (1, b"start"),
            (3, b"07070707070707070707070707070707"),
            (5, &1_i64.to_le_bytes()),
            (12, b"a"),
            (30, &0.5_f64.to_le_bytes()),
            (36, &[1]),
        ];
        for (place, value) in fields {
            expected.extend_from_slice(&place.to_le_bytes());
            expected.extend_from_slice(&u32::try_from(value.len()).unwrap().to_le_bytes());
            expected.extend_from_slice(value);
        }
        assert_eq!(bytes, expected);
    }

    #[test]
    fn what_is_empty_is_not_what_is_unknown_and_the_position_does_not_count() {
        let of = |process| Content::of_event(&event(process));
        let empty = ProcessRecord { cwd: Some(String::new()), ..ProcessRecord::default() };
        assert_ne!(of(empty), of(ProcessRecord::default()));
        let event = event(ProcessRecord::default());
        let at = |number| {
            let origin = Origin { collector: "c", sequence: Some(crate::proto::Sequence::new(1, number)) };
            canonical_event(1, EventRow::new(&event, origin).cells().map(|(_, cell)| cell))
        };
        assert_eq!(at(1), at(2));
        assert_ne!(leaf(1, &[0; 32]), leaf(2, &[0; 32]));
    }

    #[test]
    fn a_record_is_the_event_that_it_holds_or_something_else() {
        let event = event(ProcessRecord::default());
        let payload = event.encode_to_vec();
        assert_eq!(Content::of_record("events.process.start", &payload), Content::of_event(&event));
        assert!(matches!(Content::of_record("events.collector.procmond", &payload), Content::Other(_)));
        assert!(matches!(Content::of_record("events.process.start", b"garbage"), Content::Other(_)));
    }

    #[test]
    fn every_cell_comes_back_from_its_json() {
        let samples = |kind| match kind {
            Kind::Blob => vec![Cell::Blob(vec![0, 255].into())],
            Kind::Boolean => vec![Cell::Boolean(false)],
            Kind::Integer => vec![Cell::Integer(i64::MIN)],
            Kind::Real => {
                vec![Cell::Real(0.1 + 0.2), Cell::Real(-0.0), Cell::Real(f64::MAX), Cell::Real(f64::MIN_POSITIVE)]
            }
            Kind::Text => vec![Cell::Made("a\u{0}\"é".into())],
            Kind::Timestamp => {
                vec![Cell::Timestamp(-1), Cell::Timestamp(i64::MAX), Cell::Timestamp(1_769_860_800_000_001)]
            }
        };
        for column in columns::PROCESS_EVENTS {
            for cell in samples(column.kind) {
                assert_eq!(cell_of_json(column, &cell_to_json(&cell)), Some(cell), "{}", column.name);
            }
        }
    }
}
