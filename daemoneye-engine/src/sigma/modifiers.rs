//! The modifiers behind a field's name, applied to its values in the order in which they stand.
//!
//! A value may become several, of which one has to fit; `all` joins the values as they were written. What is not known here, or
//! stands where it means nothing, is refused by its name.

use serde_saphyr::Location;

use super::encode::{self, Wide};
use super::lists::Lists;
use super::text::{Pattern, Token};
use crate::detect::rules::yaml::{Node, Typed, Yaml};

/// Most values that one value may become.
const MAX_VARIANTS: usize = 10_000;
/// Options of a value of which every spelling is written: 25 texts are looked for faster than one expression. More are one expression.
const MAX_LISTED: usize = 2;
/// Options of a value that is encoded further, each spelling by itself: five have 3,125.
const MAX_SPELLED: usize = 5;

/// How values are compared.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Kind {
    Cidr,
    /// An operator of SQL.
    Compare(&'static str),
    Exists,
    /// The value names another field; where the other's text has to stand.
    FieldRef(Place),
    Plain,
    /// With its flags.
    Regex(String),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    Anywhere,
    AtEnd,
    AtStart,
    Whole,
}

/// One value after the modifiers.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Value {
    Boolean(Typed<bool>),
    Bytes(Vec<u8>),
    Integer(Typed<i64>),
    Null,
    Real(Typed<f64>),
    Text(Pattern),
}

/// Everything behind one key of a search identifier.
#[derive(Debug)]
pub(super) struct Item {
    /// Where its field stands.
    pub(super) at: Location,
    pub(super) kind: Kind,
    pub(super) cased: bool,
    pub(super) all: bool,
    /// `neq`.
    pub(super) negated: bool,
    /// The values as written, each as what it became.
    pub(super) values: Vec<Vec<Value>>,
}

/// Applies the modifiers to the values.
pub(super) fn apply(at: Location, modifiers: &[&str], values: &[&Node], lists: &Lists) -> Result<Item, String> {
    let has = |name: &str| modifiers.contains(&name);
    let raw = has("re") || has("cidr") || has("fieldref");
    let read = |value: &&Node| read(&value.value, raw, has("expand")).map(|value| vec![value]);
    let values = values.iter().map(read).collect::<Result<_, _>>()?;
    let mut chain = Chain {
        item: Item { at, kind: Kind::Plain, cased: false, all: false, negated: false, values },
        is_reference: has("fieldref"),
        place: Place::Whole,
        lists,
    };
    for modifier in modifiers {
        chain.step(modifier)?;
    }
    if chain.is_reference {
        chain.item.kind = Kind::FieldRef(chain.place);
    }
    chain.each(|value| spelled(value, MAX_LISTED))?;
    if chain.item.values.iter().flatten().any(|value| matches!(value, Value::Bytes(_))) {
        return Err(
            "a UTF-16 modifier needs base64 or base64offset behind it: text columns hold no such bytes".to_owned()
        );
    }
    Ok(chain.item)
}

fn read(value: &Yaml, raw: bool, placeholders: bool) -> Result<Value, String> {
    Ok(match value {
        Yaml::Null => Value::Null,
        Yaml::Boolean(value) => Value::Boolean(value.clone()),
        Yaml::Integer(value) => Value::Integer(value.clone()),
        Yaml::Real(value) => Value::Real(value.clone()),
        Yaml::Text(text) if raw => Value::Text(Pattern::literal(text, placeholders)),
        Yaml::Text(text) => Value::Text(Pattern::parse(text, placeholders)),
        Yaml::List(_) | Yaml::Map(_) => return Err(format!("a value is {}", value.kind())),
    })
}

struct Chain<'a> {
    item: Item,
    is_reference: bool,
    place: Place,
    lists: &'a Lists,
}

impl Chain<'_> {
    fn step(&mut self, modifier: &str) -> Result<(), String> {
        match modifier {
            "all" => self.item.all = true,
            "cased" => self.item.cased = true,
            "neq" => self.item.negated = true,
            "fieldref" => {}
            "contains" => self.place(modifier, Place::Anywhere)?,
            "startswith" => self.place(modifier, Place::AtStart)?,
            "endswith" => self.place(modifier, Place::AtEnd)?,
            "base64" | "base64offset" | "wide" | "utf16le" | "utf16be" | "utf16" | "windash" | "expand" => {
                self.transform(modifier)?;
            }
            "re" => self.kind(modifier, Kind::Regex(String::new()))?,
            "i" | "m" | "s" => match &mut self.item.kind {
                Kind::Regex(flags) if !flags.contains(modifier) => flags.push_str(modifier),
                Kind::Regex(_) => {}
                _ => return Err(format!("the modifier {modifier} stands behind re only")),
            },
            "cidr" => self.kind(modifier, Kind::Cidr)?,
            "exists" => self.kind(modifier, Kind::Exists)?,
            "lt" => self.kind(modifier, Kind::Compare("<"))?,
            "lte" => self.kind(modifier, Kind::Compare("<="))?,
            "gt" => self.kind(modifier, Kind::Compare(">"))?,
            "gte" => self.kind(modifier, Kind::Compare(">="))?,
            "minute" | "hour" | "day" | "week" | "month" | "year" => {
                return Err(format!(
                    "the modifier {modifier} is not built: no column is compared by a part of its time"
                ));
            }
            other => return Err(format!("the modifier {other} is not known")),
        }
        Ok(())
    }

    fn kind(&mut self, modifier: &str, kind: Kind) -> Result<(), String> {
        if self.item.kind != Kind::Plain || self.is_reference || self.place != Place::Whole {
            return Err(format!("the modifier {modifier} cannot be combined with the one before it"));
        }
        self.item.kind = kind;
        Ok(())
    }

    fn place(&mut self, modifier: &str, place: Place) -> Result<(), String> {
        if self.is_reference {
            self.place = place;
            return Ok(());
        }
        if self.item.kind != Kind::Plain {
            return Err(format!("the modifier {modifier} cannot be combined with the one before it"));
        }
        self.place = place;
        let (before, behind) =
            (matches!(place, Place::Anywhere | Place::AtEnd), matches!(place, Place::Anywhere | Place::AtStart));
        self.each(|value| Ok(vec![Value::Text(text_of(&value, modifier)?.surrounded(before, behind))]))
    }

    fn transform(&mut self, modifier: &str) -> Result<(), String> {
        if modifier == "expand" {
            let lists = self.lists;
            return self.each(|value| expanded(value, lists));
        }
        if self.item.kind != Kind::Plain || self.is_reference {
            return Err(format!("the modifier {modifier} cannot be combined with the one before it"));
        }
        let plain = |value: &Value| {
            let text = text_of(value, modifier)?;
            text.plain().ok_or_else(|| match text.dashes() {
                0 => format!("the modifier {modifier} cannot encode wildcards"),
                _ => format!("the modifier {modifier} cannot encode more than {MAX_SPELLED} options in one value"),
            })
        };
        let bytes = |value: Value| match value {
            Value::Bytes(bytes) => Ok(bytes),
            other => plain(&other).map(String::into_bytes),
        };
        if modifier != "windash" {
            self.each(|value| spelled(value, MAX_SPELLED))?;
        }
        let literal = |text: String| Value::Text(Pattern::literal(&text, false));
        self.each(|value| {
            Ok(match modifier {
                "base64" => vec![literal(encode::base64(&bytes(value)?))],
                "base64offset" => {
                    let shifts = encode::base64_at_offsets(&bytes(value)?);
                    let shifts = shifts.ok_or("base64offset: a value of one byte leaves nothing to look for")?;
                    shifts.into_iter().map(literal).collect()
                }
                "utf16be" => vec![Value::Bytes(encode::utf16(&plain(&value)?, Wide::Big))],
                "utf16" => vec![Value::Bytes(encode::utf16(&plain(&value)?, Wide::Marked))],
                "windash" => vec![Value::Text(encode::windash(&text_of(&value, modifier)?))],
                _ => vec![Value::Bytes(encode::utf16(&plain(&value)?, Wide::Little))],
            })
        })
    }

    fn each(&mut self, change: impl Fn(Value) -> Result<Vec<Value>, String>) -> Result<(), String> {
        for variants in &mut self.item.values {
            let mut changed = Vec::with_capacity(variants.len());
            for value in std::mem::take(variants) {
                changed.extend(change(value)?);
                if changed.len() > MAX_VARIANTS {
                    return Err(format!("a value becomes more than {MAX_VARIANTS} values"));
                }
            }
            *variants = changed;
        }
        Ok(())
    }
}

/// Every way to write the options of a value, of which it may have this many; with more it stays as it is.
fn spelled(value: Value, most: usize) -> Result<Vec<Value>, String> {
    match value {
        Value::Text(pattern) if (1..=most).contains(&pattern.dashes()) => {
            Ok(pattern.spelled().into_iter().map(Value::Text).collect())
        }
        other => Ok(vec![other]),
    }
}

/// A value as text; numbers as they are written.
pub(super) fn text_of(value: &Value, wanted_by: &str) -> Result<Pattern, String> {
    match value {
        Value::Text(pattern) => Ok(pattern.clone()),
        Value::Integer(number) => Ok(Pattern::literal(&number.written, false)),
        Value::Real(number) => Ok(Pattern::literal(&number.written, false)),
        Value::Boolean(value) => Ok(Pattern::literal(&value.written, false)),
        Value::Null => Err(format!("{wanted_by} needs text, and null is none")),
        Value::Bytes(_) => Err(format!("{wanted_by} needs text: base64 or base64offset comes first")),
    }
}

/// Each placeholder replaced by each value of its list.
fn expanded(value: Value, lists: &Lists) -> Result<Vec<Value>, String> {
    let Value::Text(pattern) = value else { return Ok(vec![value]) };
    let mut done = vec![Vec::new()];
    let mut rest = pattern.0.as_slice();
    while let Some((first, behind)) = rest.split_first() {
        let Some((name, after)) = placeholder(*first, behind) else {
            done.iter_mut().for_each(|tokens| tokens.push(*first));
            rest = behind;
            continue;
        };
        let values = lists.get(&name).ok_or_else(|| {
            format!("the placeholder %{name}% has no values: give them with --lists, or take the rule out")
        })?;
        let with = |tokens: &Vec<Token>, value: &String| {
            tokens.iter().copied().chain(Pattern::parse(value, false).0).collect::<Vec<_>>()
        };
        done = done.iter().flat_map(|tokens| values.iter().map(move |value| with(tokens, value))).collect();
        if done.len() > MAX_VARIANTS {
            return Err(format!("the placeholder %{name}% gives more than {MAX_VARIANTS} values"));
        }
        rest = after;
    }
    Ok(done.into_iter().map(|tokens| Value::Text(Pattern(tokens))).collect())
}

/// The name that begins with this token, and what stands behind its end.
fn placeholder(first: Token, behind: &[Token]) -> Option<(String, &[Token])> {
    let end = behind.iter().position(|token| *token == Token::Percent).filter(|_| first == Token::Percent)?;
    let (name, after) = behind.split_at_checked(end)?;
    let name = Pattern(name.to_vec()).plain()?;
    let is_name = !name.is_empty() && name.chars().all(|c| c.is_alphanumeric() || matches!(c, '_' | '-' | '.'));
    is_name.then_some((name, after.get(1..).unwrap_or_default()))
}
