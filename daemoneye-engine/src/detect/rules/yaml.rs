//! A YAML document as a tree in which every key and value knows its place, so that all problems of a file can be told at
//! once and each with line and column.

use std::fmt;

use serde::de::{Deserialize, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde_saphyr::budget::BudgetBreach;
use serde_saphyr::{DuplicateKeyPolicy, Location, MergeKeyPolicy, NonFiniteFloatPolicy, Spanned};

/// Deepest nesting of a document; a rule file needs five.
const MAX_DEPTH: usize = 16;

/// Most nodes of a document, so that aliases cannot unfold without end.
const MAX_NODES: usize = 20_000;

/// A value and its place.
pub(crate) type Node = Spanned<Yaml>;

/// What YAML takes for more than text, and how it is written: `0777` is another text than the number's digits.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Typed<T> {
    pub(crate) value: T,
    /// As it stands in the file.
    pub(crate) written: String,
}

impl<T> Typed<T> {
    /// Not yet looked up in the file.
    const fn new(value: T) -> Self {
        Self { value, written: String::new() }
    }
}

/// One value.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Yaml {
    Boolean(Typed<bool>),
    Integer(Typed<i64>),
    List(Vec<Node>),
    /// In the order of the file.
    Map(Vec<(Spanned<String>, Node)>),
    Null,
    Real(Typed<f64>),
    Text(String),
}

impl Yaml {
    /// `text`, `a list`, …, for messages.
    pub(crate) const fn kind(&self) -> &'static str {
        match self {
            Self::Boolean(_) => "true or false",
            Self::Integer(_) => "a whole number",
            Self::List(_) => "a list",
            Self::Map(_) => "a map",
            Self::Null => "nothing",
            Self::Real(_) => "a number",
            Self::Text(_) => "text",
        }
    }

    /// The value as JSON with sorted keys: the same for every layout of the same content.
    pub(crate) fn canonical(&self) -> serde_json::Value {
        match self {
            Self::Boolean(typed) => typed.value.into(),
            Self::Integer(typed) => typed.value.into(),
            Self::List(items) => items.iter().map(|item| item.value.canonical()).collect(),
            Self::Map(pairs) => {
                let mut pairs: Vec<_> = pairs.iter().map(|(key, value)| (&key.value, value)).collect();
                pairs.sort_by_key(|(key, _)| *key);
                pairs.into_iter().map(|(key, value)| (key.clone(), value.value.canonical())).collect()
            }
            Self::Null => serde_json::Value::Null,
            Self::Real(typed) => typed.value.into(),
            Self::Text(text) => text.as_str().into(),
        }
    }
}

/// What made a text unreadable, and where.
pub(crate) struct Unreadable {
    pub(crate) location: Location,
    pub(crate) message: String,
}

/// Reads one document of ours.
pub(crate) fn read(text: &str) -> Result<Node, Unreadable> {
    read_with(text, MergeKeyPolicy::Error, NonFiniteFloatPolicy::Reject)
}

/// Reads one document in which a map may take over the fields of another (`<<: *base`), as rules of others do. Digits that are
/// too large for a number, as those of a hash may be, are taken: what they are written as is what counts.
pub(crate) fn read_merged(text: &str) -> Result<Node, Unreadable> {
    read_with(text, MergeKeyPolicy::Merge, NonFiniteFloatPolicy::PassThrough)
}

fn read_with(text: &str, merge_keys: MergeKeyPolicy, infinite: NonFiniteFloatPolicy) -> Result<Node, Unreadable> {
    // The reader's places in the text do not count it.
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let options = serde_saphyr::options! {
        budget: serde_saphyr::budget! { max_depth: MAX_DEPTH, max_nodes: MAX_NODES, max_documents: 1 },
        duplicate_keys: DuplicateKeyPolicy::Error,
        merge_keys: merge_keys,
        non_finite_float_policy: infinite,
        strict_booleans: true,
        with_snippet: false,
    };
    let mut node = serde_saphyr::from_str_with_options(text, options).map_err(|error| Unreadable {
        location: error.location().unwrap_or(Location::UNKNOWN),
        message: in_our_words(error.without_snippet()),
    })?;
    look_up(&mut node, text)?;
    Ok(node)
}

/// Gives every number and truth the text that it is written as.
fn look_up(node: &mut Node, text: &str) -> Result<(), Unreadable> {
    let at = node.defined;
    let written = match &mut node.value {
        Yaml::Boolean(typed) => &mut typed.written,
        Yaml::Integer(typed) => &mut typed.written,
        Yaml::Real(typed) => &mut typed.written,
        Yaml::List(items) => return items.iter_mut().try_for_each(|item| look_up(item, text)),
        Yaml::Map(pairs) => return pairs.iter_mut().try_for_each(|(_, value)| look_up(value, text)),
        Yaml::Null | Yaml::Text(_) => return Ok(()),
    };
    let message = "how this value is written cannot be told: put it in quotes".to_owned();
    *written = scalar_at(at, text).ok_or(Unreadable { location: at, message })?.to_owned();
    Ok(())
}

/// The scalar that stands there, of a tagged one in quotes what is between them.
fn scalar_at(at: Location, text: &str) -> Option<&str> {
    let start = usize::try_from(at.span().byte_offset()?).ok()?;
    let length = usize::try_from(at.span().byte_len()?).ok()?;
    let scalar = text.get(start..start.checked_add(length)?)?.trim().trim_matches(['"', '\'']);
    let is_one = |c: char| c.is_ascii_alphanumeric() || matches!(c, '+' | '-' | '.' | '_');
    (!scalar.is_empty() && scalar.chars().all(is_one)).then_some(scalar)
}

/// What the reader says to the one who calls it means nothing to the one who wrote the file.
fn in_our_words(error: &serde_saphyr::Error) -> String {
    use serde_saphyr::Error;
    match error {
        Error::AliasError { error, .. } | Error::WithSnippet { error, .. } => in_our_words(error),
        Error::DuplicateMappingKey { key: Some(key), .. } => format!("the key {key} stands twice in one map"),
        Error::DuplicateMappingKey { .. } => "a key stands twice in one map".to_owned(),
        Error::MultipleDocuments { .. } | Error::Budget { breach: BudgetBreach::Documents { .. }, .. } => {
            "one file holds one rule: give what follows the second --- a file of its own".to_owned()
        }
        Error::Budget { breach: BudgetBreach::Depth { .. }, .. } => format!("it is nested more than {MAX_DEPTH} deep"),
        Error::Budget { breach: BudgetBreach::Nodes { .. }, .. } => format!("it has more than {MAX_NODES} values"),
        Error::Budget { .. } => "it is larger than a rule has to be".to_owned(),
        Error::MergeKeyNotAllowed { .. } => "merge keys (<<) are not taken here: write the fields out".to_owned(),
        Error::BinaryNotUtf8 { .. } => "a !!binary value is no text".to_owned(),
        other => without_place(&other.to_string()).to_owned(),
    }
}

/// The words that YAML 1.1 has for true and false. They are text to YAML 1.2, and mean a truth only where one is asked for.
pub(crate) fn truth(text: &str) -> Option<bool> {
    let is_one_of = |words: &[&str]| words.iter().any(|word| word.eq_ignore_ascii_case(text));
    match () {
        () if is_one_of(&["true", "yes", "on"]) => Some(true),
        () if is_one_of(&["false", "no", "off"]) => Some(false),
        () => None,
    }
}

/// The place is told in its own fields.
fn without_place(message: &str) -> &str {
    message.rsplit_once(" at line ").map_or(message, |(text, _)| text)
}

impl<'de> Deserialize<'de> for Yaml {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(YamlVisitor)
    }
}

struct YamlVisitor;

impl<'de> Visitor<'de> for YamlVisitor {
    type Value = Yaml;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a YAML value")
    }

    fn visit_bool<E>(self, value: bool) -> Result<Yaml, E> {
        Ok(Yaml::Boolean(Typed::new(value)))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Yaml, E> {
        Ok(Yaml::Integer(Typed::new(value)))
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<Yaml, E> {
        let typed = i64::try_from(value).map(|value| Yaml::Integer(Typed::new(value)));
        typed.map_err(|_| E::custom(format!("{value} does not fit 64 bits signed: put it in quotes if it is text")))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Yaml, E> {
        Ok(Yaml::Real(Typed::new(value)))
    }

    fn visit_str<E>(self, value: &str) -> Result<Yaml, E> {
        Ok(Yaml::Text(value.to_owned()))
    }

    fn visit_unit<E>(self) -> Result<Yaml, E> {
        Ok(Yaml::Null)
    }

    fn visit_none<E>(self) -> Result<Yaml, E> {
        Ok(Yaml::Null)
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Yaml, D::Error> {
        Yaml::deserialize(deserializer)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Yaml, A::Error> {
        let mut list = Vec::new();
        while let Some(item) = items.next_element()? {
            list.push(item);
        }
        Ok(Yaml::List(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Yaml, A::Error> {
        let mut pairs = Vec::new();
        while let Some(pair) = entries.next_entry()? {
            pairs.push(pair);
        }
        Ok(Yaml::Map(pairs))
    }
}
