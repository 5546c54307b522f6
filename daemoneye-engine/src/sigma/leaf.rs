//! One field with its values as SQL, and keywords over every text column.

use daemoneye_lib::columns::{self, process_event_column};

use super::expr::{Expr, quoted};
use super::fields::{self, Log, Naming, Target};
use super::modifiers::{Item, Kind, Place, Value, text_of};
use super::pcre;
use super::text::{Pattern, Shape};
use crate::detect::rules::yaml;
use crate::sql::MAX_PATTERN_BYTES;
use crate::text::{Expression, Fits};

/// Longest run of a pattern in bytes; more than this is no rule.
const MAX_VALUE_BYTES: usize = 8 * 1024;
/// What is said of other values.
const EXISTS: &str = "exists takes true or false";

/// The condition of one key of a search identifier.
pub(super) fn field(name: &str, naming: Naming, item: &Item) -> Result<Expr, String> {
    let has_two_meanings = fields::OF_ONE_EVENT.contains(&name) || matches!(item.kind, Kind::FieldRef(_));
    if naming == Naming::CreatedOrExited && has_two_meanings {
        return of_either(name, item);
    }
    let Some(target) = fields::target(name, naming) else {
        let absent = Expr::Unmapped(name.to_owned(), item.at, of_absent(item)?);
        return Ok(if item.negated { absent.not() } else { absent });
    };
    let each: Vec<Expr> = if item.all {
        item.values.iter().map(|variants| any(name, target, item, variants, naming)).collect::<Result<_, _>>()?
    } else {
        let variants: Vec<Value> = item.values.iter().flatten().cloned().collect();
        vec![any(name, target, item, &variants, naming)?]
    };
    let whole = Expr::All(each);
    Ok(if item.negated { whole.not() } else { whole })
}

/// A field that is one column in the events of starts and another in those of ends.
fn of_either(name: &str, item: &Item) -> Result<Expr, String> {
    let ended = Expr::Leaf("ci_eq(event_type, 'stop')".to_owned());
    let of_start = match name {
        // A start has no field of that name, which is no fault of the rule.
        "ProcessName" => Expr::Constant(of_absent(item)? != item.negated),
        _ => field(name, Naming::Created, item)?,
    };
    let of_end = field(name, Naming::Exited, item)?;
    Ok(Expr::Any(vec![Expr::All(vec![ended.clone(), of_end]), Expr::All(vec![ended.not(), of_start])]))
}

/// What a test of a field is for an event without it: null and `exists: false` hold.
fn of_absent(item: &Item) -> Result<bool, String> {
    let holds = |value: &Value| match item.kind {
        Kind::Exists => truth(value).map(|wanted| !wanted).ok_or_else(|| EXISTS.to_owned()),
        Kind::Plain => Ok(*value == Value::Null),
        _ => Ok(false),
    };
    let each: Vec<Vec<bool>> =
        item.values.iter().map(|of| of.iter().map(holds).collect()).collect::<Result<_, _>>()?;
    let mut one = each.iter().map(|variants| variants.contains(&true));
    Ok(if item.all { one.all(|holds| holds) } else { one.any(|holds| holds) })
}

/// One of the values fits.
fn any(name: &str, target: Target, item: &Item, values: &[Value], naming: Naming) -> Result<Expr, String> {
    match target {
        Target::Column("integrity_level") => {
            text_column("integrity_level", item, &levels(name, item, values)?, naming)
        }
        Target::Column(column) => match process_event_column(column).map(|column| column.kind) {
            Some(columns::Kind::Text) => text_column(column, item, values, naming),
            Some(columns::Kind::Integer | columns::Kind::Real) => number_column(name, column, item, values, naming),
            Some(columns::Kind::Boolean) => boolean_column(name, column, item, values),
            _ => common(column, item, values)
                .unwrap_or_else(|| Err(format!("{name} is the column {column}, which Sigma has no values for"))),
        },
        Target::EventId => event_id(item, values),
        Target::Guid(column) => with_texts(name, column, item, values, fields::identity_of),
        Target::Hash(algorithm, digits) => hash(name, algorithm, digits, item, values),
        Target::Label => {
            let is_sid = |text: &str| text.get(..4).is_some_and(|start| start.eq_ignore_ascii_case("S-1-"));
            with_texts(name, "integrity_level", item, values, |sid| is_sid(sid).then(|| fields::level_of(sid)))
        }
    }
}

/// What holds for columns of every kind: presence, and nothing but null.
fn common(column: &str, item: &Item, values: &[Value]) -> Option<Result<Expr, String>> {
    if item.kind == Kind::Exists {
        let each = values.iter().map(|value| match truth(value) {
            Some(true) => Ok(Expr::Leaf(format!("{column} IS NOT NULL"))),
            Some(false) => Ok(Expr::Leaf(format!("{column} IS NULL"))),
            None => Err(EXISTS.to_owned()),
        });
        return Some(each.collect::<Result<_, _>>().map(Expr::Any));
    }
    let only_null = !values.is_empty() && values.iter().all(|value| *value == Value::Null);
    (item.kind == Kind::Plain && only_null).then(|| Ok(Expr::Leaf(format!("{column} IS NULL"))))
}

/// True or false, also in the words of YAML 1.1, which are text where no truth is asked for.
fn truth(value: &Value) -> Option<bool> {
    match value {
        Value::Boolean(typed) => Some(typed.value),
        Value::Text(pattern) => yaml::truth(&pattern.plain()?),
        _ => None,
    }
}

fn text_column(column: &str, item: &Item, values: &[Value], naming: Naming) -> Result<Expr, String> {
    if let Some(done) = common(column, item, values) {
        return done;
    }
    let patterns =
        |wanted_by: &str| values.iter().map(|value| text_of(value, wanted_by)).collect::<Result<Vec<_>, _>>();
    match &item.kind {
        Kind::Plain => {
            let (nulls, texts): (Vec<&Value>, Vec<&Value>) = values.iter().partition(|value| **value == Value::Null);
            let null = (!nulls.is_empty()).then(|| Expr::Leaf(format!("{column} IS NULL")));
            let texts =
                texts.into_iter().map(|value| text_of(value, "a comparison")).collect::<Result<Vec<_>, _>>()?;
            Ok(Expr::Any(null.into_iter().chain(calls(column, item.cased, &texts)?).collect()))
        }
        Kind::Regex(flags) => {
            let each = patterns("re")?.into_iter().map(|pattern| regex(column, &pattern, flags));
            each.collect::<Result<_, _>>().map(Expr::Any)
        }
        Kind::Cidr => {
            let nets: Vec<String> = patterns("cidr")?.iter().filter_map(Pattern::plain).collect();
            let known = nets.iter().map(|net| Fits::of_function("cidr", &[net]).map_or(Ok(()), |fits| fits.map(drop)));
            known.collect::<Result<(), _>>().map_err(|(_, problem)| problem)?;
            let nets: Vec<String> = nets.iter().map(|net| quoted(net)).collect();
            Ok(Expr::Leaf(format!("cidr({column}, {})", nets.join(", "))))
        }
        Kind::Compare(_) => Err(format!("lt, lte, gt and gte need a number, and the column {column} is text")),
        Kind::FieldRef(place) => references(column, *place, item, values, naming),
        Kind::Exists => Err(EXISTS.to_owned()),
    }
}

/// One call for each kind of search, with all its values.
fn calls(column: &str, cased: bool, patterns: &[Pattern]) -> Result<Vec<Expr>, String> {
    const SEARCHES: [&str; 5] = ["eq", "starts", "ends", "contains", "like"];
    let (mut values, mut present, mut expressions) = (SEARCHES.map(|_| Vec::new()), false, Vec::new());
    for pattern in patterns {
        let (search, text) = match pattern.shape() {
            Shape::Equal(text) => (0, text),
            Shape::StartsWith(text) => (1, text),
            Shape::EndsWith(text) => (2, text),
            Shape::Contains(text) => (3, text),
            Shape::Like(text) => (4, text),
            Shape::Expression => {
                expressions.push(matching(column, &pattern.expression(!cased)?)?);
                continue;
            }
            Shape::Present => {
                present = true;
                continue;
            }
        };
        let literal = literal(&text)?;
        if let Some(values) = values.get_mut(search).filter(|values| !values.contains(&literal)) {
            values.push(literal);
        }
    }
    if present {
        return Ok(vec![Expr::Leaf(format!("{column} IS NOT NULL"))]);
    }
    let case = if cased { "cs" } else { "ci" };
    let called = SEARCHES.iter().zip(values).filter(|(_, values)| !values.is_empty());
    Ok(called
        .map(|(search, values)| Expr::Leaf(format!("{case}_{search}({column}, {})", values.join(", "))))
        .chain(expressions)
        .collect())
}

fn literal(text: &str) -> Result<String, String> {
    if text.len() > MAX_VALUE_BYTES {
        return Err(format!("a value has {} bytes, more than {MAX_VALUE_BYTES}", text.len()));
    }
    if text.contains('\0') {
        return Err("a value holds the character NUL, which our SQL has no text for: look for what stands beside it"
            .to_owned());
    }
    Ok(quoted(text))
}

fn regex(column: &str, pattern: &Pattern, flags: &str) -> Result<Expr, String> {
    let text = pattern.plain().ok_or("a list with wildcards cannot be put into a regular expression")?;
    matching(column, &pcre::translated(&text, flags)?)
}

/// The search for an expression of ours.
fn matching(column: &str, text: &str) -> Result<Expr, String> {
    if text.len() > MAX_PATTERN_BYTES {
        return Err(format!("the expression has {} bytes here, more than {MAX_PATTERN_BYTES}", text.len()));
    }
    Expression::new(text, "").map_err(|problem| format!("the expression does not compile: {problem}"))?;
    Ok(Expr::Leaf(format!("re_match({column}, {})", literal(text)?)))
}

/// Compared with other columns of the same event.
fn references(column: &str, place: Place, item: &Item, values: &[Value], naming: Naming) -> Result<Expr, String> {
    let each = values.iter().map(|value| {
        let other = text_of(value, "fieldref")?.plain().unwrap_or_default();
        let Some(target) = fields::target(&other, naming) else {
            return Ok(Expr::Unmapped(other, item.at, false));
        };
        let Target::Column(other_column) = target else {
            return Err(format!("fieldref: {other} has no column of its own"));
        };
        let kind = |name: &str| process_event_column(name).map(|column| column.kind);
        if kind(column) != kind(other_column) {
            return Err(format!("fieldref: {column} and {other_column} are of different kinds"));
        }
        let folds = !item.cased && kind(column) == Some(columns::Kind::Text);
        let side = |name: &str| if folds { format!("ci_fold({name})") } else { name.to_owned() };
        let (left, right) = (side(column), side(other_column));
        let sql = match place {
            Place::Whole => format!("({left} = {right}) IS TRUE"),
            _ if kind(column) != Some(columns::Kind::Text) => {
                return Err("fieldref: only text begins, ends or contains".to_owned());
            }
            Place::Anywhere => format!("contains({left}, {right}) IS TRUE"),
            Place::AtEnd => format!("ends_with({left}, {right}) IS TRUE"),
            Place::AtStart => format!("starts_with({left}, {right}) IS TRUE"),
        };
        Ok(Expr::Leaf(sql))
    });
    each.collect::<Result<_, _>>().map(Expr::Any)
}

/// A whole number as rules and events write it: a number, or text in decimal or hexadecimal digits.
pub(super) fn integer(value: &Value) -> Option<i64> {
    match value {
        Value::Integer(number) => Some(number.value),
        Value::Text(pattern) => parse_integer(&pattern.plain()?),
        _ => None,
    }
}

/// The same of text.
pub(crate) fn parse_integer(text: &str) -> Option<i64> {
    let text = text.trim();
    match text.strip_prefix("0x").or_else(|| text.strip_prefix("0X")) {
        Some(digits) if !digits.starts_with(['+', '-']) => i64::from_str_radix(digits, 16).ok(),
        _ => text.parse().ok(),
    }
}

/// Digits behind a zero, which readers of YAML take for different numbers.
fn is_octal_to_some(written: &str) -> bool {
    let digits = written.trim_start_matches(['+', '-']);
    digits.len() > 1 && digits.starts_with('0') && digits.bytes().all(|byte| byte.is_ascii_digit() || byte == b'_')
}

fn number_column(name: &str, column: &str, item: &Item, values: &[Value], naming: Naming) -> Result<Expr, String> {
    if let Some(done) = common(column, item, values) {
        return done;
    }
    if let Kind::FieldRef(place) = item.kind {
        return references(column, place, item, values, naming);
    }
    let operator = match &item.kind {
        Kind::Plain => "=",
        Kind::Compare(operator) => operator,
        _ => return Err(format!("{name} is a number: text, expressions and networks are not looked for in it")),
    };
    let (mut each, mut numbers) = (Vec::new(), Vec::new());
    for value in values {
        let number = match value {
            Value::Null => {
                each.push(Expr::Leaf(format!("{column} IS NULL")));
                continue;
            }
            Value::Real(number) if is_octal_to_some(&number.written) => {
                return Err(format!(
                    "{} is octal to YAML 1.1 and decimal to 1.2: write {name} without the zeros before it",
                    number.written
                ));
            }
            Value::Real(number) if number.value.is_finite() => format!("{:?}", number.value),
            Value::Text(pattern) if pattern.shape() == Shape::Present => {
                each.push(Expr::Leaf(format!("{column} IS NOT NULL")));
                continue;
            }
            other => match integer(other) {
                Some(number) if operator == "=" => {
                    numbers.push(number.to_string());
                    continue;
                }
                Some(number) => number.to_string(),
                None => return Err(format!("{name} is a number, and a value of it is not")),
            },
        };
        each.push(Expr::Leaf(format!("({column} {operator} {number}) IS TRUE")));
    }
    each.extend(match numbers.as_slice() {
        [] => None,
        [one] => Some(Expr::Leaf(format!("({column} = {one}) IS TRUE"))),
        // One list, however long: a statement has a bound of its own for OR.
        several => Some(Expr::Leaf(format!("({column} IN ({})) IS TRUE", several.join(", ")))),
    });
    Ok(Expr::Any(each))
}

fn boolean_column(name: &str, column: &str, item: &Item, values: &[Value]) -> Result<Expr, String> {
    if let Some(done) = common(column, item, values) {
        return done;
    }
    let each = values.iter().map(|value| match value {
        value if item.kind == Kind::Plain => {
            let value = truth(value).ok_or_else(|| format!("{name} is true or false"))?;
            Ok(Expr::Leaf(format!("{column} IS {}", value.to_string().to_uppercase())))
        }
        _ => Err(format!("{name} is true or false")),
    });
    each.collect::<Result<_, _>>().map(Expr::Any)
}

/// The event's number says what happened to the process.
fn event_id(item: &Item, values: &[Value]) -> Result<Expr, String> {
    if item.kind != Kind::Plain {
        return Err("EventID is compared with numbers only".to_owned());
    }
    let each = values.iter().map(|value| {
        let number = integer(value).ok_or("EventID is a number, and a value of it is not")?;
        let of =
            |(word, log)| Expr::All(vec![Expr::Leaf(format!("ci_eq(event_type, {})", quoted(word))), of_log(log)]);
        Ok(fields::event_of(number).map_or(Expr::Constant(false), of))
    });
    each.collect::<Result<_, _>>().map(Expr::Any)
}

/// Events that are not known to stand in another log.
pub(super) fn of_log(log: Log) -> Expr {
    not_from(&fields::sources_beside(log))
}

/// Events that are not known to be from one of these sources.
pub(super) fn not_from(sources: &[&str]) -> Expr {
    let sources: Vec<String> = sources.iter().map(|source| quoted(source)).collect();
    Expr::Leaf(format!("(source IN ({})) IS NOT TRUE", sources.join(", ")))
}

/// An integrity level is kept as its word, for which the whole SID may stand.
fn levels(name: &str, item: &Item, values: &[Value]) -> Result<Vec<Value>, String> {
    let each = values.iter().map(|value| match value {
        Value::Text(pattern) if matches!(item.kind, Kind::Plain | Kind::Regex(_)) => match pattern.shape() {
            Shape::Equal(text) if item.kind == Kind::Plain && fields::is_label(&text) => {
                Ok(Value::Text(Pattern::literal(&fields::level_of(&text), false)))
            }
            Shape::Equal(_) if item.kind == Kind::Plain => Ok(value.clone()),
            // No word has digits or dashes.
            _ if pattern.has(|c| c.is_ascii_digit() || c == '-') => {
                Err(format!("{name} is kept as a word, for which only a whole SID may stand"))
            }
            _ => Ok(value.clone()),
        },
        other => Ok(other.clone()),
    });
    each.collect()
}

/// Whole values that are written differently in the column.
fn with_texts(
    name: &str,
    column: &str,
    item: &Item,
    values: &[Value],
    translate: impl Fn(&str) -> Option<String>,
) -> Result<Expr, String> {
    if let Some(done) = common(column, item, values) {
        return done;
    }
    let translated = values.iter().map(|value| {
        let whole = text_of(value, name).ok().and_then(|pattern| pattern.plain()).filter(|_| item.kind == Kind::Plain);
        let text = whole.and_then(|text| translate(&text));
        text.map(|text| Pattern::literal(&text, false)).ok_or_else(|| {
            format!("{name} is kept as the column {column} in another form: only whole values are compared")
        })
    });
    Ok(Expr::Any(calls(column, item.cased, &translated.collect::<Result<Vec<_>, _>>()?)?))
}

/// One algorithm's hash inside `hashes`; exact only where all of its digits are given, or none.
fn hash(name: &str, algorithm: &str, digits: usize, item: &Item, values: &[Value]) -> Result<Expr, String> {
    let is_there = || Expr::Leaf(format!("ci_contains(hashes, {})", quoted(&format!("{algorithm}="))));
    if item.kind == Kind::Exists {
        let each = values.iter().map(|value| match truth(value) {
            Some(true) => Ok(is_there()),
            Some(false) => Ok(is_there().not()),
            None => Err(EXISTS.to_owned()),
        });
        return each.collect::<Result<_, _>>().map(Expr::Any);
    }
    let says = |value: &Value| match value {
        Value::Null => Some(is_there().not()),
        Value::Text(pattern) if pattern.shape() == Shape::Present => Some(is_there()),
        _ => None,
    };
    let (said, values): (Vec<&Value>, Vec<&Value>) =
        values.iter().partition(|value| item.kind == Kind::Plain && says(value).is_some());
    let said: Vec<Expr> = said.into_iter().filter_map(says).collect();
    let each = values.into_iter().map(|value| {
        let plain = text_of(value, name).ok().and_then(|pattern| match pattern.shape() {
            Shape::Equal(text) | Shape::Contains(text) | Shape::StartsWith(text) | Shape::EndsWith(text) => Some(text),
            Shape::Expression | Shape::Like(_) | Shape::Present => None,
        });
        let whole = plain.filter(|text| {
            item.kind == Kind::Plain && text.len() == digits && text.bytes().all(|byte| byte.is_ascii_hexdigit())
        });
        whole
            .map(|text| Pattern::literal(&format!("{algorithm}={text}"), false).surrounded(true, true))
            .ok_or_else(|| format!("{name} is a part of the column hashes: only its {digits} digits are compared"))
    });
    let found = calls("hashes", false, &each.collect::<Result<Vec<_>, _>>()?)?;
    Ok(Expr::Any(said.into_iter().chain(found).collect()))
}

/// Text that stands anywhere in the event.
pub(super) fn keywords(item: &Item) -> Result<Expr, String> {
    let one = |values: &[Value]| {
        let texts = values.iter().map(|value| text_of(value, "a keyword")).collect::<Result<Vec<_>, _>>()?;
        let of_column = |column: &'static str| match &item.kind {
            Kind::Plain => {
                let texts: Vec<Pattern> = texts.iter().map(|text| text.clone().surrounded(true, true)).collect();
                calls(column, item.cased, &texts)
            }
            Kind::Regex(flags) => texts.iter().map(|pattern| regex(column, pattern, flags)).collect(),
            _ => Err("a keyword is text or a regular expression".to_owned()),
        };
        let each: Vec<Vec<Expr>> = fields::searched().map(of_column).collect::<Result<_, _>>()?;
        Ok::<_, String>(Expr::Any(each.into_iter().flatten().collect()))
    };
    let each: Vec<Expr> = if item.all {
        item.values.iter().map(|variants| one(variants)).collect::<Result<_, _>>()?
    } else {
        vec![one(&item.values.iter().flatten().cloned().collect::<Vec<_>>())?]
    };
    let whole = Expr::All(each);
    Ok(if item.negated { whole.not() } else { whole })
}
