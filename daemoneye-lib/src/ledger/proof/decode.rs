//! Reads a file's parts, no more of them than a file has at most: nothing of it is verified before it is decoded, so what a hostile one
//! costs is bounded here.

use std::fmt;
use std::io::{self, Write};
use std::marker::PhantomData;

use serde::de::{Deserialize, Deserializer, Error as _, MapAccess, SeqAccess, Visitor};
use serde_json::Value;

use super::evidence::RUN_ENTRIES;
use super::signed::MAX_ROTATIONS;
use super::{EntryProof, EventColumns, EventProof, HexHash};
use crate::columns::{PROCESS_EVENTS, process_event_column};

/// Events of a file. One of a process has 64, evidence 16 causes and 16 ancestors, for each of which two may be needed.
const MAX_EVENTS: usize = 128;
/// Entries of a file: those of the time before an alert, and as many again that tell of the alert, its rule and its coverage.
const MAX_ENTRIES: usize = 200_000;
const _: () = assert!(MAX_ENTRIES as u64 >= 2 * RUN_ENTRIES);
/// Hashes of a path: a tree has no more than 64 levels, a range's far fewer.
const MAX_PATH: usize = 128;
/// Parts of a rule: its text, and one for each file of overrides that changes it.
const MAX_RULE: usize = 1_024;

/// What is decoded one after the other.
struct Parts<T> {
    what: &'static str,
    most: usize,
    of: PhantomData<T>,
}

impl<'de, T: Deserialize<'de>> Visitor<'de> for Parts<T> {
    type Value = Vec<T>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "at most {} {}", self.most, self.what)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Vec<T>, A::Error> {
        let mut parts = Vec::new();
        while let Some(part) = seq.next_element()? {
            if parts.len() == self.most {
                return Err(A::Error::custom(format!("it has more than {} {}", self.most, self.what)));
            }
            parts.push(part);
        }
        Ok(parts)
    }
}

fn at_most<'de, D: Deserializer<'de>, T: Deserialize<'de>>(
    from: D,
    most: usize,
    what: &'static str,
) -> Result<Vec<T>, D::Error> {
    from.deserialize_seq(Parts { what, most, of: PhantomData })
}

pub(super) fn entries<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<EntryProof>, D::Error> {
    at_most(from, MAX_ENTRIES, "entries")
}

pub(super) fn events<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<EventProof>, D::Error> {
    at_most(from, MAX_EVENTS, "events")
}

pub(super) fn path<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<HexHash>, D::Error> {
    at_most(from, MAX_PATH, "hashes in a path")
}

pub(super) fn rotations<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<String>, D::Error> {
    at_most(from, MAX_ROTATIONS, "rotations of a key")
}

pub(super) fn rule<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<String>, D::Error> {
    at_most(from, MAX_RULE, "parts of a rule")
}

/// A column's value: none is made of several.
struct Scalar(Value);

impl<'de> Deserialize<'de> for Scalar {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        from.deserialize_any(Column)
    }
}

struct Column;

impl Visitor<'_> for Column {
    type Value = Scalar;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the value of a column")
    }

    fn visit_bool<E>(self, value: bool) -> Result<Scalar, E> {
        Ok(Scalar(value.into()))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Scalar, E> {
        Ok(Scalar(value.into()))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Scalar, E> {
        Ok(Scalar(value.into()))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Scalar, E> {
        Ok(Scalar(value.into()))
    }

    fn visit_str<E>(self, value: &str) -> Result<Scalar, E> {
        Ok(Scalar(value.into()))
    }

    fn visit_string<E>(self, value: String) -> Result<Scalar, E> {
        Ok(Scalar(value.into()))
    }
}

struct Columns;

impl<'de> Visitor<'de> for Columns {
    type Value = EventColumns;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "at most {} columns", PROCESS_EVENTS.len())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<EventColumns, A::Error> {
        let mut columns = EventColumns::new();
        while let Some((name, Scalar(value))) = map.next_entry::<String, Scalar>()? {
            if process_event_column(&name).is_none() {
                return Err(A::Error::custom(format!("process_events has no column {name}")));
            }
            columns.insert(name, value);
        }
        Ok(columns)
    }
}

pub(super) fn columns<'de, D: Deserializer<'de>>(from: D) -> Result<EventColumns, D::Error> {
    from.deserialize_map(Columns)
}

/// What is written has to be this text, of which no second copy is made.
pub(super) struct Same<'a>(pub(super) &'a [u8]);

impl Write for Same<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0 = self.0.strip_prefix(bytes).ok_or(io::ErrorKind::InvalidData)?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
