//! What the planner says, in the words of whoever typed the statement, and what to do about it.

use super::names;
use super::{absent, arithmetic, coerce, outer, patterns, units};
use datafusion::arrow::datatypes::DataType;
use datafusion::sql::sqlparser::ast::{BinaryOperator, Expr, UnaryOperator};

/// What the planner says, and what to do about it: the first that fits.
const HINTS: [(&str, &str); 46] = [
    (
        coerce::RANGE_OVER,
        "RANGE measures numbers with a number, times with INTERVAL '1 minute'; ROWS and GROUPS count",
    ),
    (coerce::FROM_ONE, "nth_value(name, 2) is the second; last_value(name) the last"),
    ("takes a number, and", "a number that is text is CAST(column AS BIGINT)"),
    ("a time and a text", "a length of time is INTERVAL '1 day'; a time stands as '2026-01-31 12:00:00'"),
    ("a time and a number", "a length of time is INTERVAL '1 day', or INTERVAL '90 seconds'"),
    ("a length of time and a number", "write the length as it is meant, INTERVAL '2 days'"),
    ("in whole rows", "lag(pid, 2) is the second row before"),
    ("called alike", "give one of them a name of its own: expression AS name"),
    ("numbers of columns", "select as many in each; NULL stands where one has none"),
    ("is no number", "a number stands without quotes; CAST(column AS TEXT) compares as text"),
    ("is text and no time", "write text in quotes; CAST(column AS TIMESTAMP) where each row has a time"),
    (coerce::IS_TEXT, "write the number as text, '1'; CAST(column AS BIGINT) where each row has a number"),
    (
        units::NO_UNIT,
        "use 'year', 'quarter', 'month', 'week', 'day', 'hour', 'minute', 'second', 'millisecond' or 'microsecond'",
    ),
    (units::NO_PART, "use 'year', 'month', 'week', 'day', 'hour', 'minute', 'second', 'dow', 'doy' or 'epoch'"),
    (units::NO_WIDTH, "date_bin(INTERVAL '15 minutes', time)"),
    ("parsing timestamp", "write a time as '2026-01-31 12:00:00', '2026-01-31T12:00Z' or '2026-01-31'"),
    (
        "to Nanosecond",
        "write a time of the years 1678 to 2261; a comparison of a column with plain text takes all years",
    ),
    ("pattern", patterns::HINT),
    ("LIKE", "LIKE compares text: write CAST(column AS TEXT) LIKE …"),
    ("a time is not", "compare a time with '2026-01-31 12:00:00' or datetime('now', '-1 hour')"),
    ("true or false", "a column that is true or false stands alone, or with = true or = false"),
    ("Timestamp", "compare a time with '2026-01-31 12:00:00' or datetime('now', '-1 hour')"),
    (arithmetic::DOES_NOT_FIT, "calculate with smaller numbers, or with DOUBLE"),
    ("extract(epoch", "times 1000 for milliseconds"),
    ("not support logical expression", "join the table, or ask the subquery in WHERE"),
    (
        "orrelated scalar subquery",
        "a value for each row is an aggregate without LIMIT: (SELECT max(name) … WHERE c.pid = p.ppid)",
    ),
    ("counts further", "a number in ORDER BY or GROUP BY counts the columns of the SELECT, from 1"),
    ("substr takes", "substr(text, 1, 3)"),
    (outer::MAY_NOT, "group or number the rows in a SELECT of FROM, and JOIN it on the columns that are compared"),
    (outer::IN_ON, "ask it in WHERE, or of the joined table alone: JOIN (SELECT … WHERE … IN (SELECT …)) AS t"),
    (absent::IN_BOTH, "give one of them a name of its own: FROM process_events AS b"),
    (
        absent::NOT_ALONE,
        "join it to the other conditions by AND, or let the list be without LIMIT and window functions",
    ),
    (
        "one value and looks at the outer row",
        "for example (SELECT max(c.name) FROM processes AS c WHERE c.pid = p.ppid)",
    ),
    ("join condition", "write JOIN … ON a.x = b.x; CROSS JOIN pairs all rows"),
    ("compared with bytes", "0x10 and X'10' are bytes: write 16"),
    ("SELECT DISTINCT", "select the column too, or order by one that is selected"),
    ("GROUP BY", "put the column into GROUP BY, or into an aggregate such as max(column)"),
    (NO_WINDOW, "define it, FROM … WINDOW name AS (PARTITION BY … ORDER BY …)"),
    ("reads no table", "name a table as FROM does; where it has an alias, by that"),
    ("more than once", "give each a name of its own"),
    ("one column", "let the subquery select one column"),
    ("an aggregate in WHERE", "conditions on aggregates stand in HAVING, after GROUP BY"),
    (
        "an aggregate inside of another",
        "calculate the inner one in a query of its own: FROM (SELECT count(*) AS n … GROUP BY …)",
    ),
    ("takes conditions", "compare both sides: pid = 1 AND name = 'sh'"),
    ("is no condition", "compare it: … = 1, or … IS NOT NULL"),
    ("NTILE", "ntile(4) makes four parts: the number is at least 1"),
];

const NO_WINDOW: &str = "there is no window ";

/// What to do where nothing else fits: most of what the planner refuses is of types.
const TYPES: &str = "compare the types of the columns; CAST converts";

/// How functions are called whose values are often given otherwise.
const CALLS: [(&str, &str); 6] = [
    ("concat_ws", "concat_ws(', ', name, user)"),
    ("replace", "replace(text, 'a', 'b')"),
    ("round", "round(number, 2)"),
    ("split_part", "split_part(text, '/', 2)"),
    ("string_agg", "string_agg(name, ',')"),
    ("strpos", "strpos(text, 'part')"),
];

/// Sorts of values, as far as they differ for whoever compares them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Sort {
    Bytes,
    Length,
    Nothing,
    Number,
    Text,
    Time,
    Truth,
}

impl Sort {
    pub(super) fn of(data_type: &DataType) -> Self {
        match data_type {
            DataType::Dictionary(_, values) => Self::of(values),
            other => Self::named(&other.to_string()),
        }
    }

    /// Of a type as the planner spells it.
    fn named(text: &str) -> Self {
        let begins = |words: &[&str]| words.iter().any(|word| text.starts_with(word));
        match () {
            () if begins(&["Bool"]) => Self::Truth,
            () if begins(&["Timestamp", "Date", "Time"]) => Self::Time,
            () if begins(&["Interval", "Duration"]) => Self::Length,
            () if begins(&["Utf8", "LargeUtf8"]) => Self::Text,
            () if begins(&["Binary", "LargeBinary", "FixedSizeBinary"]) => Self::Bytes,
            () if begins(&["Null"]) => Self::Nothing,
            () => Self::Number,
        }
    }

    pub(super) const fn words(self) -> &'static str {
        match self {
            Self::Bytes => "bytes",
            Self::Length => "a length of time",
            Self::Nothing => "NULL",
            Self::Number => "a number",
            Self::Text => "a text",
            Self::Time => "a time",
            Self::Truth => "what is true or false",
        }
    }
}

/// An operator between values that it does not take.
pub(super) struct Operation<'a> {
    pub(super) left: Sort,
    pub(super) op: &'a str,
    pub(super) right: Sort,
    compares: bool,
}

impl<'a> Operation<'a> {
    pub(super) fn of(message: &'a str) -> Option<Self> {
        let after = |words: &str| message.split_once(words).map(|(_, rest)| rest);
        if let Some(rest) = after("common type to coerce ") {
            let (left, right) = rest.strip_suffix(" in LIKE expression")?.split_once(" and ")?;
            return Some(Self { left: Sort::named(left), op: "LIKE", right: Sort::named(right), compares: false });
        }
        let compared = after("for comparison operation ");
        let rest = compared.or_else(|| after("logical boolean operation "));
        let rest = rest.or_else(|| after("arithmetic expression ")?.strip_suffix(" to valid types"));
        let rest = rest.or_else(|| after("temporal operation ")?.split_once(": ").map(|(rest, _)| rest))?;
        // Types are spelled with spaces inside of brackets only.
        let (mut depth, mut ends) = (0_i32, None);
        for (at, sign) in rest.char_indices() {
            depth = depth.saturating_add(i32::from(sign == '(')).saturating_sub(i32::from(sign == ')'));
            if sign == ' ' && depth == 0 {
                ends = Some(at);
                break;
            }
        }
        let (left, rest) = rest.split_at_checked(ends?)?;
        let (op, right) = match rest.trim_start().rsplit_once(" Timestamp(") {
            Some((op, _)) => (op, Sort::Time),
            None => rest.trim_start().rsplit_once(' ').map(|(op, right)| (op, Sort::named(right)))?,
        };
        Some(Self { left: Sort::named(left), op, right, compares: compared.is_some() })
    }

    fn words(&self) -> String {
        let (left, right) = (self.left.words(), self.right.words());
        match (self.compares, self.op) {
            (true, _) if self.right == Sort::Time => format!("a time is not compared with {left}"),
            (true, _) => format!("{left} is not compared with {right}"),
            (false, "AND" | "OR") => format!("{} takes conditions, not {left} and {right}", self.op),
            (false, _) => format!("{} does not take {left} and {right}", self.op),
        }
    }
}

/// The function that the planner complains about: how many values it takes, or of which types.
pub(super) fn function_named(message: &str) -> Option<&str> {
    let quoted = |before: &str| message.split_once(before)?.1.split_once('\'').map(|(name, _)| name);
    let known = |name: &str| names::class_of(&name.to_ascii_lowercase()).is_some();
    quoted("Function '")
        .or_else(|| quoted("a call to '"))
        .or_else(|| message.starts_with('\'').then(|| quoted("'")).flatten())
        .or_else(|| {
            let text = message.strip_prefix("[return_type] ").unwrap_or(message);
            text.split([':', ' ']).next().filter(|name| known(name))
        })
}

/// What stands in the message as a column may: with its table, or before anything else.
pub(super) fn columns_named(message: &str) -> Vec<String> {
    let word = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '.';
    let words = message.split(|c| !word(c)).filter(|part| !part.is_empty()).map(|part| part.trim_matches('.'));
    let mut columns: Vec<String> =
        words.filter_map(|part| part.rsplit_once('.')).map(|(_, column)| column.to_owned()).collect();
    if let Some((before, _)) = message.split_once(coerce::IS_TEXT) {
        columns.extend(before.split_whitespace().next_back().map(str::to_owned));
    }
    columns
}

/// As it was written.
pub(super) fn first_number(message: &str) -> Option<&str> {
    message.split(|c: char| !c.is_ascii_digit()).find(|part| !part.is_empty())
}

/// Whether an expression looks like what WHERE takes.
pub(super) fn is_condition(expr: &Expr) -> bool {
    match expr {
        Expr::Nested(inner) => is_condition(inner),
        Expr::BinaryOp { op, .. } => !matches!(
            op,
            BinaryOperator::Plus
                | BinaryOperator::Minus
                | BinaryOperator::Multiply
                | BinaryOperator::Divide
                | BinaryOperator::Modulo
                | BinaryOperator::StringConcat
                | BinaryOperator::BitwiseAnd
                | BinaryOperator::BitwiseOr
        ),
        Expr::UnaryOp { op, .. } => *op == UnaryOperator::Not,
        Expr::Identifier(_) | Expr::CompoundIdentifier(_) | Expr::Value(_) | Expr::Cast { .. } | Expr::Function(_) => {
            false
        }
        _ => true,
    }
}

/// The message and its hint.
pub(super) fn of_planner(message: String) -> (String, String) {
    let operation = Operation::of(&message).map(|operation| operation.words());
    let (words, hint) = match operation.or_else(|| of_clause(&message)) {
        Some(words) => (words, None),
        None => of_function(&message).unwrap_or((message, None)),
    };
    let hint = hint.or_else(|| HINTS.iter().find(|(said, _)| words.contains(said)).map(|(_, hint)| *hint));
    (words, hint.unwrap_or(TYPES).to_owned())
}

fn of_clause(message: &str) -> Option<String> {
    let has = |words: &str| message.contains(words);
    let after = |words: &str| message.split_once(words).map(|(_, rest)| rest);
    if has("unique expression names") {
        return Some("two columns of one SELECT are called alike".to_owned());
    }
    if let Some(rest) = after("non-boolean predicate ") {
        let sort = rest.rsplit_once(" returning ").map_or(Sort::Number, |(_, of)| Sort::named(of));
        return Some(format!("WHERE takes a condition, and {} is no condition", sort.words()));
    }
    if has("Aggregate functions are not allowed in the WHERE") {
        return Some("an aggregate in WHERE, which looks at single rows".to_owned());
    }
    if has("calls cannot be nested") {
        return Some("an aggregate inside of another".to_owned());
    }
    if has("Order by column out of bounds") {
        return Some(format!("ORDER BY {} counts further than the SELECT has columns", first_number(message)?));
    }
    if has("Order by index starts at 1") {
        return Some("ORDER BY 0 counts further than the SELECT has columns".to_owned());
    }
    if has("Unary operator '-'") {
        return Some("- takes a number, and what follows is none".to_owned());
    }
    if has("Expected an integer value") {
        return Some("lag, lead and nth_value count in whole rows".to_owned());
    }
    if let Some(rest) = after("The window ") {
        let name = rest.strip_suffix(" is not defined!")?;
        return Some(format!("{NO_WINDOW}{name}"));
    }
    if let Some(table) = after("Invalid qualifier ") {
        return Some(format!("the statement reads no table {table}"));
    }
    if has("Cannot find column with position") {
        return Some(format!("GROUP BY {} counts further than the SELECT has columns", first_number(message)?));
    }
    if let Some(rest) = after("ORDER BY expressions ") {
        let column = rest.split_once(" must appear").map_or("", |(column, _)| column);
        let column = columns_named(column).into_iter().next().unwrap_or_else(|| "something".to_owned());
        return Some(format!("ORDER BY {column} after SELECT DISTINCT, which does not select it"));
    }
    if has("should only return one column") {
        return Some("a subquery that stands for one value selects more than one column".to_owned());
    }
    if let (Some((clause, _)), Some(rest)) = (message.split_once(" must be in GROUP BY"), after("column \"")) {
        let column = rest.split_once('"').map_or("", |(column, _)| column);
        let column = column.rsplit_once('.').map_or(column, |(_, column)| column);
        let clause = clause.strip_prefix("Column in ").unwrap_or("SELECT");
        return Some(format!("{column} in {clause} is neither in GROUP BY nor in an aggregate"));
    }
    if has("HAVING clause references") {
        return Some("HAVING looks at a column that is neither in GROUP BY nor in an aggregate".to_owned());
    }
    if has("UNION queries have different number") {
        return Some("the SELECTs of a UNION have different numbers of columns".to_owned());
    }
    if has("Unary operator 'NOT'") {
        return Some("NOT takes a condition, and what follows is no condition".to_owned());
    }
    let (text, of) = after("Cannot cast string ")?.split_once(" to value of ")?;
    let noun = match Sort::named(of) {
        Sort::Truth => "neither true nor false",
        Sort::Time => "no time",
        Sort::Length => "no length of time",
        _ => "no number",
    };
    Some(format!("{text} is {noun}"))
}

fn of_function(message: &str) -> Option<(String, Option<&'static str>)> {
    let name = function_named(message)?.to_ascii_lowercase();
    names::class_of(&name)?;
    let call = CALLS.iter().find(|(known, _)| *known == name).map(|(_, call)| *call);
    let required = message.split_once("' requires ").and_then(|(_, rest)| rest.split_once("but received "));
    if let Some((_, given)) = required.and_then(|(_, given)| given.split_once("DataType: ")) {
        return Some((format!("{name} does not take {}", Sort::named(given).words()), call.or(Some("CAST converts"))));
    }
    let count = message.split_once(" expects ").and_then(|(_, rest)| {
        let (most, rest) = rest.split_once(" arguments but received ")?;
        Some((most, rest.split_once('.').map_or(rest, |(given, _)| given)))
    });
    let words = match count {
        Some((most, given)) => {
            let values = if most == "1" { "value" } else { "values" };
            format!("{name} takes {most} {values}, and {given} are given")
        }
        None if message.contains("does not support zero arguments") => format!("{name} takes at least one value"),
        None => {
            let types = message
                .split_once("argument types '")
                .and_then(|(_, rest)| rest.split_once('(')?.1.rsplit_once(")'").map(|(types, _)| types.to_owned()));
            let types = types
                .or_else(|| message.split_once("coercion from ")?.1.split_once(" to the").map(|(t, _)| t.to_owned()));
            let types = types.or_else(|| message.contains("not supported for Null").then(|| "Null".to_owned()));
            let known = message.contains("coerce arguments")
                || message.contains("any signature")
                || message.contains("[return_type]");
            if !known {
                return None;
            }
            match types.filter(|types| !types.contains('(')) {
                Some(types) => {
                    let sorts: Vec<&str> = types.split(", ").map(|of| Sort::named(of).words()).collect();
                    format!("{name} does not take {}", sorts.join(" and "))
                }
                None => format!("{name} does not take values of these types"),
            }
        }
    };
    Some((words, Some(call.unwrap_or("CAST converts"))))
}
