//! One line of events: an object with our column names, or with those of Sysmon's event 1 and Security's event 4688, flat or
//! inside what exporters put around them (`Event.EventData`, `winlog.event_data`). Only known names are kept; the rest of the line
//! is skipped without being built.

use std::borrow::Cow;
use std::collections::{BTreeSet, HashMap};
use std::fmt;
use std::sync::LazyLock;

use daemoneye_lib::columns::{Kind, PROCESS_EVENTS};
use serde::de::{DeserializeSeed, Deserializer, Error as _, IgnoredAny, MapAccess, SeqAccess, Visitor};

use super::cell::{Cell, differ};
use crate::sigma::fields::{FIELDS, Target};

/// Objects inside objects that are walked into; exporters need four.
const MAX_DEPTH: usize = 8;

/// Maps that other maps put around the fields.
const CONTAINERS: &[&str] = &["Event", "EventData", "System", "UserData", "winlog", "event_data", "_source"];
/// A list of `{"@Name": …, "#text": …}`, as XML becomes it; the name may stand inside of `#attributes`.
const NAMED: &str = "Data";
/// Prefixes of flat names.
const PREFIXES: &[&str] = &["Event.EventData.", "Event.System.", "winlog.event_data.", "winlog.", "EventData."];

/// What is no column by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[repr(usize)]
pub(super) enum Special {
    Channel,
    EventId,
    Guid,
    Imphash,
    Label,
    Md5,
    ParentGuid,
    ProcessId,
    ProcessName,
    Provider,
    Sha1,
    Sha256,
    SubjectUser,
    SystemTime,
    TimeCreated,
    Timestamp,
    UtcTime,
}

/// One past the last of [`Special`].
const SPECIALS: usize = Special::UtcTime as usize + 1;
const PROVIDER: usize = PROCESS_EVENTS.len() + Special::Provider as usize;
/// What stands around every event, and a name that only one kind of event has.
const FRAME: [usize; 8] = {
    const AT: usize = PROCESS_EVENTS.len();
    [
        AT + Special::Channel as usize,
        AT + Special::EventId as usize,
        AT + Special::ProcessName as usize,
        PROVIDER,
        AT + Special::SystemTime as usize,
        AT + Special::TimeCreated as usize,
        AT + Special::Timestamp as usize,
        AT + Special::UtcTime as usize,
    ]
};

/// Names under which an object holds the value that it stands for: XML's attributes stand beside the text.
const VALUES: &[&str] = &["#text", "SystemTime", "@SystemTime", "Value", "#attributes"];
/// The same of the program that wrote the event.
const NAMES: &[&str] = &["Name", "@Name", "#attributes"];

/// The known fields of a line: columns by their place in the table, then what is special.
#[derive(Debug)]
pub(super) struct Fields<'a> {
    slots: Vec<Option<Cell<'a>>>,
    /// Those for which there were several values.
    differ: BTreeSet<usize>,
    /// Those of [`Unmapped`] that have a value.
    unmapped: BTreeSet<usize>,
    /// There is a field that is not known here.
    unknown: bool,
}

/// Fields that no column holds and some rule asks for, by name, each with its number.
pub(super) type Unmapped = HashMap<String, usize>;
/// Among them it stands for every field: keywords ask for them all.
pub(super) const ANY_FIELD: &str = "a field that keywords were not looked for in";

impl<'a> Fields<'a> {
    pub(super) fn unmapped(&self) -> impl Iterator<Item = usize> + '_ {
        self.unmapped.iter().copied()
    }

    /// Slots for which there were several values, of which the last is there.
    pub(super) fn differ(&self) -> impl Iterator<Item = usize> + '_ {
        self.differ.iter().copied()
    }

    pub(super) fn column(&mut self, at: usize) -> &mut Option<Cell<'a>> {
        self.slot(at)
    }

    pub(super) fn special(&mut self, special: Special) -> &mut Option<Cell<'a>> {
        self.slot(PROCESS_EVENTS.len() + special as usize)
    }

    /// Whether the line has no field that is known here.
    pub(super) fn is_empty(&self) -> bool {
        self.slots.iter().all(Option::is_none) && self.unmapped.is_empty()
    }

    /// Whether none of those that are says more than that there was an event.
    pub(super) fn says_nothing(&self) -> bool {
        let says = |(slot, cell): (usize, &Option<Cell<'_>>)| cell.is_some() && !FRAME.contains(&slot);
        !self.slots.iter().enumerate().any(says) && self.unmapped.is_empty()
    }

    /// Whether the line has a field that is not known here.
    pub(super) const fn has_unknown(&self) -> bool {
        self.unknown
    }

    pub(super) const fn has_another(&mut self) {
        self.unknown = true;
    }

    /// Exporters put some fields into an event twice, one of them as an object or null; the value stays.
    fn put(&mut self, at: usize, value: Option<Cell<'a>>) {
        let slot = self.slot(at);
        let known = slot.take();
        let is_value = !matches!(value, None | Some(Cell::Nested));
        let is_other =
            known.as_ref().zip(value.as_ref()).is_some_and(|(known, value)| differ(kind_of(at), known, value));
        *slot = if known.is_none() || is_value { value } else { known };
        if is_other {
            self.differ.insert(at);
        }
    }

    fn keep(&mut self, key: Key, value: Option<Cell<'a>>) {
        let (slot, field) = match key {
            Key::Asked(slot, field) => (Some(slot), Some(field)),
            Key::Slot(slot) => (Some(slot), None),
            Key::Unmapped(field) => (None, Some(field)),
            Key::Other => {
                self.unknown |= value.is_some();
                return;
            }
            Key::Container | Key::Named => return,
        };
        self.unmapped.extend(field.filter(|_| value.is_some()));
        if let Some(slot) = slot {
            self.put(slot, value);
        }
    }

    #[expect(clippy::indexing_slicing, reason = "every place comes from the table that this list is as long as")]
    fn slot(&mut self, at: usize) -> &mut Option<Cell<'a>> {
        &mut self.slots[at]
    }
}

fn kind_of(slot: usize) -> Kind {
    const NUMBERS: [usize; 2] =
        [PROCESS_EVENTS.len() + Special::EventId as usize, PROCESS_EVENTS.len() + Special::ProcessId as usize];
    let is_number = NUMBERS.contains(&slot);
    PROCESS_EVENTS.get(slot).map_or(if is_number { Kind::Integer } else { Kind::Text }, |column| column.kind)
}

/// Reads one line.
pub(super) fn fields<'a>(line: &'a [u8], unmapped: &Unmapped) -> Result<Fields<'a>, String> {
    let slots = vec![None; PROCESS_EVENTS.len() + SPECIALS];
    let mut fields = Fields { slots, differ: BTreeSet::new(), unmapped: BTreeSet::new(), unknown: false };
    let mut json = serde_json::Deserializer::from_slice(line);
    let read = Object { fields: &mut fields, unmapped, depth: 0 }.deserialize(&mut json).and_then(|is_map| {
        json.end()?;
        if is_map { Ok(()) } else { Err(serde_json::Error::custom("this is no object")) }
    });
    read.map_err(|error| format!("not a JSON object: {error}"))?;
    Ok(fields)
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Key {
    /// A slot, and a field that some rule asks for.
    Asked(usize, usize),
    Container,
    Named,
    Other,
    Slot(usize),
    Unmapped(usize),
}

static KEYS: LazyLock<HashMap<&'static str, Key>> = LazyLock::new(|| {
    let special = |special: Special| Key::Slot(PROCESS_EVENTS.len() + special as usize);
    let column =
        |name: &str| PROCESS_EVENTS.iter().position(|column| column.name == name).map_or(Key::Other, Key::Slot);
    let mut keys: HashMap<&'static str, Key> =
        FIELDS.iter().map(|(name, target)| (*name, of_target(*target, column, special))).collect();
    keys.extend(PROCESS_EVENTS.iter().enumerate().map(|(at, column)| (column.name, Key::Slot(at))));
    keys.extend(CONTAINERS.iter().map(|name| (*name, Key::Container)));
    keys.extend([
        (NAMED, Key::Named),
        ("Channel", special(Special::Channel)),
        ("channel", special(Special::Channel)),
        ("EventId", special(Special::EventId)),
        ("event_id", special(Special::EventId)),
        ("ProcessId", special(Special::ProcessId)),
        ("ProcessName", special(Special::ProcessName)),
        ("SubjectUserName", special(Special::SubjectUser)),
        ("Provider", special(Special::Provider)),
        ("ProviderName", special(Special::Provider)),
        ("Provider_Name", special(Special::Provider)),
        ("provider_name", special(Special::Provider)),
        ("SourceName", special(Special::Provider)),
        ("@timestamp", special(Special::Timestamp)),
        ("SystemTime", special(Special::SystemTime)),
        ("TimeCreated", special(Special::TimeCreated)),
        ("UtcTime", special(Special::UtcTime)),
    ]);
    keys
});

fn of_target(target: Target, column: impl Fn(&str) -> Key, special: impl Fn(Special) -> Key) -> Key {
    match target {
        Target::Column(name) => column(name),
        Target::EventId => special(Special::EventId),
        Target::Guid("entity_id") => special(Special::Guid),
        Target::Guid(_) => special(Special::ParentGuid),
        Target::Hash("IMPHASH", _) => special(Special::Imphash),
        Target::Hash("MD5", _) => special(Special::Md5),
        Target::Hash("SHA1", _) => special(Special::Sha1),
        Target::Hash(..) => special(Special::Sha256),
        Target::Label => special(Special::Label),
    }
}

fn key(name: &str, unmapped: &Unmapped) -> Key {
    let (name, known) = match KEYS.get(name) {
        Some(key) => (name, Some(*key)),
        None => {
            let bare = PREFIXES.iter().find_map(|prefix| name.strip_prefix(prefix)).unwrap_or(name);
            (bare, KEYS.get(bare).copied())
        }
    };
    match (known, unmapped.get(name)) {
        (Some(Key::Slot(at)), Some(field)) => Key::Asked(at, *field),
        (Some(key), _) => key,
        (None, field) => field.or_else(|| unmapped.get(ANY_FIELD)).map_or(Key::Other, |at| Key::Unmapped(*at)),
    }
}

struct KeySeed<'u>(&'u Unmapped);

impl<'de> DeserializeSeed<'de> for KeySeed<'_> {
    type Value = Key;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Key, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl Visitor<'_> for KeySeed<'_> {
    type Value = Key;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a name")
    }

    fn visit_str<E>(self, name: &str) -> Result<Key, E> {
        Ok(key(name, self.0))
    }
}

/// A map of fields, a list of such maps, or something that holds none; whether it was a map.
struct Object<'f, 'de> {
    fields: &'f mut Fields<'de>,
    unmapped: &'f Unmapped,
    depth: usize,
}

impl<'de> DeserializeSeed<'de> for Object<'_, 'de> {
    type Value = bool;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<bool, D::Error> {
        if self.depth > MAX_DEPTH {
            return IgnoredAny::deserialize_in(deserializer).map(|()| false);
        }
        deserializer.deserialize_any(self)
    }
}

/// What is of no interest, whatever it is.
trait Ignored {
    fn deserialize_in<'de, D: Deserializer<'de>>(deserializer: D) -> Result<(), D::Error>;
}

impl Ignored for IgnoredAny {
    fn deserialize_in<'de, D: Deserializer<'de>>(deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_ignored_any(Self).map(drop)
    }
}

macro_rules! scalars {
    ($value:expr; $($visit:ident $type:ty),+) => {
        $(fn $visit<E>(self, _: $type) -> Result<Self::Value, E> {
            Ok($value)
        })+

        fn visit_unit<E>(self) -> Result<Self::Value, E> {
            Ok($value)
        }
    };
}

impl<'de> Visitor<'de> for Object<'_, 'de> {
    type Value = bool;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<bool, A::Error> {
        while let Some(key) = map.next_key_seed(KeySeed(self.unmapped))? {
            match key {
                Key::Container => {
                    let (fields, depth) = (&mut *self.fields, self.depth + 1);
                    map.next_value_seed(Object { fields, unmapped: self.unmapped, depth })?;
                }
                Key::Named => map.next_value_seed(Named { fields: &mut *self.fields, unmapped: self.unmapped })?,
                Key::Other => {
                    map.next_value::<IgnoredAny>()?;
                    self.fields.unknown = true;
                }
                Key::Slot(_) | Key::Asked(..) | Key::Unmapped(_) => {
                    let value = map.next_value_seed(CellSeed::of(key))?;
                    self.fields.keep(key, value);
                }
            }
        }
        Ok(true)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<bool, A::Error> {
        let (unmapped, depth) = (self.unmapped, self.depth + 1);
        while items.next_element_seed(Object { fields: &mut *self.fields, unmapped, depth })?.is_some() {}
        Ok(false)
    }

    scalars!(false; visit_bool bool, visit_i64 i64, visit_u64 u64, visit_f64 f64, visit_str &str);
}

/// A list of named values.
struct Named<'f, 'de> {
    fields: &'f mut Fields<'de>,
    unmapped: &'f Unmapped,
}

impl<'de> DeserializeSeed<'de> for Named<'_, 'de> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Named<'_, 'de> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("named values")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<(), A::Error> {
        let unmapped = self.unmapped;
        while items.next_element_seed(Named { fields: &mut *self.fields, unmapped })?.is_some() {}
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let (mut found, mut value) = (Key::Other, None);
        while let Some(name) = map.next_key::<Cow<'_, str>>()? {
            match &*name {
                "@Name" | "Name" => found = map.next_value_seed(KeySeed(self.unmapped))?,
                "#attributes" => {
                    if let Some(Cell::Text(name)) = map.next_value_seed(CellSeed(NAMES))? {
                        found = key(&name, self.unmapped);
                    }
                }
                "#text" | "text" | "Value" => value = map.next_value_seed(CellSeed(VALUES))?,
                _ => drop(map.next_value::<IgnoredAny>()?),
            }
        }
        self.fields.keep(found, value);
        Ok(())
    }

    scalars!((); visit_bool bool, visit_i64 i64, visit_u64 u64, visit_f64 f64, visit_str &str);
}

/// A value, of an object the one under these names; `None` for null.
#[derive(Clone, Copy)]
struct CellSeed(&'static [&'static str]);

impl CellSeed {
    fn of(key: Key) -> Self {
        Self(if matches!(key, Key::Slot(PROVIDER) | Key::Asked(PROVIDER, _)) { NAMES } else { VALUES })
    }
}

impl<'de> DeserializeSeed<'de> for CellSeed {
    type Value = Option<Cell<'de>>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for CellSeed {
    type Value = Option<Cell<'de>>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }

    fn visit_bool<E>(self, value: bool) -> Result<Self::Value, E> {
        Ok(Some(Cell::Boolean(value)))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Self::Value, E> {
        Ok(Some(Cell::Integer(value)))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Self::Value, E> {
        Ok(Some(i64::try_from(value).map_or_else(|_| Cell::Text(Cow::Owned(value.to_string())), Cell::Integer)))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Self::Value, E> {
        Ok(Some(Cell::Real(value)))
    }

    fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Self::Value, E> {
        Ok(Some(Cell::Text(Cow::Borrowed(text))))
    }

    fn visit_str<E>(self, text: &str) -> Result<Self::Value, E> {
        Ok(Some(Cell::Text(Cow::Owned(text.to_owned()))))
    }

    fn visit_unit<E>(self) -> Result<Self::Value, E> {
        Ok(None)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Self::Value, A::Error> {
        while items.next_element::<IgnoredAny>()?.is_some() {}
        Ok(Some(Cell::Nested))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut value = Some(Cell::Nested);
        while let Some(name) = map.next_key::<Cow<'_, str>>()? {
            if self.0.contains(&&*name) {
                let inner = map.next_value_seed(self)?;
                if inner != Some(Cell::Nested) {
                    value = inner;
                }
            } else {
                map.next_value::<IgnoredAny>()?;
            }
        }
        Ok(value)
    }
}
