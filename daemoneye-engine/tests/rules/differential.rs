//! The row matcher and DataFusion decide the same rule over the same rows: their answers must be the same, always.

use std::cell::Cell;
use std::ops::{ControlFlow, RangeInclusive};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use daemoneye_engine::detect::{LoadedRule, RuleSet, rules};
use daemoneye_engine::ingest::{EventBatch, batch_from_json};
use daemoneye_engine::schema::process_events_schema;
use daemoneye_engine::sql::{check, evaluate};
use daemoneye_lib::columns::{Kind, PROCESS_EVENTS};
use daemoneye_lib::model::{Completeness, RuleKind};
use daemoneye_lib::proto::Sequence;
use datafusion::arrow::array::{
    Array, ArrayRef, AsArray as _, BinaryArray, BooleanArray, Float64Array, Int64Array, RecordBatch, StringArray,
    TimestampMicrosecondArray,
};
use datafusion::arrow::datatypes::{DataType, Float64Type, Int32Type, Int64Type};
use datafusion::sql::sqlparser::ast::{BinaryOperator, Expr, UnaryOperator, visit_expressions};
use proptest::prelude::*;
use proptest::test_runner::TestRunner;
use serde_json::{Value, json};

// ---- events ---------------------------------------------------------------------------------------------------------

/// What trips string code: case pairs beyond ASCII, wildcards, escapes, line ends.
const PIECES: &[&str] = &[
    "a", "A", "b", "k", "K", "\u{212a}", "s", "\u{17f}", "é", "É", "ß", "Σ", "ς", "İ", "%", "_", "\\", ".", "/", "\n",
    " ", "'", "sh", "ab",
];

fn text() -> impl Strategy<Value = String> {
    prop_oneof![
        4 => prop::collection::vec(prop::sample::select(PIECES), 0..5).prop_map(|pieces| pieces.concat()),
        1 => prop::sample::select(vec!["start", "stop", "exec", "fork", "baseline", "/tmp/.hidden", "Straße", "10.1.2.3", "fe80::1", "7", "-1", "+5", "007", " 5", "\n6\t", "\u{b}7", "9223372036854775808", "-"]).prop_map(str::to_owned),
    ]
}

fn integer() -> impl Strategy<Value = i64> {
    prop_oneof![4 => -3_i64..6, 1 => prop::sample::select(vec![i64::MIN, i64::MIN + 1, i64::MAX, i64::MAX - 1, 1_000_000])]
}

fn real() -> impl Strategy<Value = f64> {
    prop::sample::select(vec![-0.0, 0.0, 1.0, 1.5, -2.5, 3.0, f64::NAN, f64::INFINITY, f64::NEG_INFINITY, 9e15])
}

fn literal() -> impl Strategy<Value = String> {
    integer().prop_filter("has no literal", |value| *value != i64::MIN).prop_map(|value| value.to_string())
}

#[derive(Debug, Clone)]
pub(super) struct Row {
    texts: Vec<Option<String>>,
    integers: Vec<Option<i64>>,
    reals: Vec<Option<f64>>,
    booleans: Vec<Option<bool>>,
    times: Vec<Option<i64>>,
}

fn count(kind: Kind) -> usize {
    PROCESS_EVENTS.iter().filter(|column| column.kind == kind).count()
}

pub(super) fn row() -> impl Strategy<Value = Row> {
    (
        prop::collection::vec(prop::option::weighted(0.8, text()), count(Kind::Text)),
        prop::collection::vec(prop::option::weighted(0.8, integer()), count(Kind::Integer)),
        prop::collection::vec(prop::option::weighted(0.8, real()), count(Kind::Real)),
        prop::collection::vec(prop::option::weighted(0.7, any::<bool>()), count(Kind::Boolean)),
        prop::collection::vec(
            prop::option::weighted(
                0.8,
                prop::sample::select(vec![0, 1, 1_769_860_800_000_000, 1_769_860_800_000_001]),
            ),
            count(Kind::Timestamp),
        ),
    )
        .prop_map(|(texts, integers, reals, booleans, times)| Row { texts, integers, reals, booleans, times })
}

/// `seq` is the row's number, so that answers can be compared as sets of rows.
pub(super) fn batch(rows: &[Row]) -> RecordBatch {
    let mut seen = [0_usize; 5];
    let mut next = |kind: usize| {
        seen[kind] += 1;
        seen[kind] - 1
    };
    let arrays = PROCESS_EVENTS.iter().map(|column| -> ArrayRef {
        match column.kind {
            Kind::Blob => {
                Arc::new(BinaryArray::from_iter(rows.iter().map(|row| row.booleans[0].map(|_| b"\x01".to_vec()))))
            }
            Kind::Boolean => {
                let at = next(0);
                Arc::new(rows.iter().map(|row| row.booleans[at]).collect::<BooleanArray>())
            }
            Kind::Integer => {
                let at = next(1);
                if column.name == "seq" {
                    return Arc::new(Int64Array::from_iter_values(0..i64::try_from(rows.len()).unwrap()));
                }
                Arc::new(rows.iter().map(|row| row.integers[at]).collect::<Int64Array>())
            }
            Kind::Real => {
                let at = next(2);
                Arc::new(rows.iter().map(|row| row.reals[at]).collect::<Float64Array>())
            }
            Kind::Text => {
                let at = next(3);
                Arc::new(rows.iter().map(|row| row.texts[at].as_deref()).collect::<StringArray>())
            }
            Kind::Timestamp => {
                let at = next(4);
                let times: TimestampMicrosecondArray = rows.iter().map(|row| row.times[at]).collect();
                Arc::new(times.with_timezone("UTC"))
            }
        }
    });
    RecordBatch::try_new(process_events_schema(), arrays.collect()).unwrap()
}

// ---- rules ----------------------------------------------------------------------------------------------------------

fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}

fn column(names: &'static [&'static str]) -> impl Strategy<Value = String> {
    prop::sample::select(names).prop_map(str::to_owned)
}

fn text_column() -> impl Strategy<Value = String> {
    column(&["name", "executable_path", "process_events.command_line", "event_type", "start_kind", "Parent_Name"])
}

fn text_value() -> impl Strategy<Value = String> {
    let leaf = prop_oneof![4 => text_column(), 1 => text().prop_map(|text| quoted(&text))];
    leaf.prop_recursive(2, 6, 2, |inner| {
        prop_oneof![
            inner.clone().prop_map(|a| format!("lower({a})")),
            inner.clone().prop_map(|a| format!("ci_fold({a})")),
            inner.clone().prop_map(|a| format!("upper({a})")),
            (inner.clone(), sliced()).prop_map(|(a, call)| call.replace('#', &a)),
            (inner.clone(), inner.clone()).prop_map(|(a, b)| format!("nullif({a}, {b})")),
            (inner.clone(), inner.clone()).prop_map(|(a, b)| format!("concat_ws('-', {a}, {b})")),
            (when(), inner.clone(), inner.clone())
                .prop_map(|(c, a, b)| format!("CASE WHEN {c} THEN {a} ELSE {b} END")),
            (text_column(), inner.clone(), inner.clone())
                .prop_map(|(of, a, b)| format!("(CASE {of} WHEN 'a' THEN {a} WHEN {b} THEN 'x' END)")),
            (inner.clone(), inner.clone()).prop_map(|(a, b)| format!("coalesce({a}, {b})")),
            (inner.clone(), inner.clone()).prop_map(|(a, b)| format!("concat({a}, {b})")),
            (inner.clone(), inner).prop_map(|(a, b)| format!("({a} || {b})")),
        ]
    })
}

/// Text of the text that `#` stands for.
fn sliced() -> impl Strategy<Value = String> {
    let number = || prop::sample::select(vec![-3, -1, 0, 1, 2, 5]);
    let characters = || prop::sample::select(vec!["' '", "'a'", "'kK'", "'\u{212a}é'", "''"]);
    let separator = prop::sample::select(vec!["'a'", "'/'", "'sh'", "''", "'\u{212a}'"]);
    prop_oneof![
        (number(), 0..4).prop_map(|(start, length)| format!("substr(#, {start}, {length})")),
        number().prop_map(|start| format!("substr(#, {start})")),
        (1..4, 0..3).prop_map(|(start, length)| format!("SUBSTRING(# FROM {start} FOR {length})")),
        number().prop_map(|count| format!("left(#, {count})")),
        number().prop_map(|count| format!("right(#, {count})")),
        (prop::sample::select(vec!["btrim", "ltrim", "rtrim"]), characters())
            .prop_map(|(trim, of)| format!("{trim}(#, {of})")),
        prop::sample::select(vec!["btrim(#)", "ltrim(#)", "rtrim(#)", "TRIM(#)", "reverse(#)", "CAST(# AS TEXT)"])
            .prop_map(str::to_owned),
        (prop::sample::select(vec!["BOTH", "LEADING", "TRAILING"]), characters())
            .prop_map(|(side, of)| format!("TRIM({side} {of} FROM #)")),
        (separator, prop::sample::select(vec![-2, -1, 1, 2, 3]))
            .prop_map(|(by, n)| format!("split_part(#, {by}, {n})")),
        Just("concat(CAST(pid AS TEXT), #)".to_owned()),
        Just("(CAST(memfd AS TEXT) || #)".to_owned()),
    ]
}

/// Simple conditions, of all truth values.
fn when() -> impl Strategy<Value = &'static str> {
    prop::sample::select(vec![
        "memfd",
        "NOT deleted_executable",
        "pid > 1",
        "name IS NULL",
        "ci_contains(name, 'a')",
        "uid = ppid",
    ])
}

fn integer_value() -> impl Strategy<Value = String> {
    let parts = vec!["year", "quarter", "month", "day", "dow", "doy", "hour", "minute", "second"];
    let found = prop::sample::select(vec!["strpos(#, 'a')", "POSITION('é' IN #)", "strpos(#, '')", "octet_length(#)"]);
    let leaf = prop_oneof![
        4 => column(&["pid", "ppid", "uid", "memory_usage"]),
        1 => literal(),
        1 => text_column().prop_map(|column| format!("(length({column}) + 0)")),
        1 => (found, text_column()).prop_map(|(call, column)| format!("({} + 0)", call.replace('#', &column))),
        1 => prop::sample::select(parts.clone()).prop_map(|part| format!("(date_part('{part}', time) + 0)")),
        1 => prop::sample::select(parts).prop_map(|part| format!("(EXTRACT({part} FROM start_time) + 0)")),
        1 => text_column().prop_map(|column| format!("TRY_CAST({column} AS BIGINT)")),
        1 => column(&["CAST(memfd AS BIGINT)", "CAST(pid AS BIGINT)"]),
    ];
    leaf.prop_recursive(2, 6, 2, |inner| {
        let operator = prop::sample::select(vec!["+", "-", "*"]);
        let divisor = prop::sample::select(vec!["/ 3", "% 7", "/ -2", "% 1"]);
        prop_oneof![
            (inner.clone(), operator, inner.clone()).prop_map(|(a, op, b)| format!("{a} {op} {b}")),
            (inner.clone(), divisor).prop_map(|(a, by)| format!("({a} {by})")),
            (inner.clone(), inner.clone()).prop_map(|(a, b)| format!("coalesce({a}, {b})")),
            (inner.clone(), inner.clone()).prop_map(|(a, b)| format!("nullif({a}, {b})")),
            inner.clone().prop_map(|a| format!("abs({a})")),
            (when(), inner.clone(), inner.clone())
                .prop_map(|(c, a, b)| format!("CASE WHEN {c} THEN {a} ELSE {b} END")),
            inner.prop_map(|a| format!("(- ({a}))")),
        ]
    })
}

fn pattern() -> impl Strategy<Value = String> {
    let pieces = ["%", "%", "_", "\\", "a", "K", "s", "é", "sh", ".", "\n", "\\%", "\\_"];
    prop::collection::vec(prop::sample::select(pieces.to_vec()), 0..5).prop_map(|pieces| quoted(&pieces.concat()))
}

// Among them what DataFusion's optimizer would change the meaning of, were it let: a literal backslash, which becomes LIKE
// without being escaped, and `.*`, which becomes IS NOT NULL and so FALSE where the operator is NULL.
const EXPRESSIONS: &[&str] = &[
    "",
    "a",
    "^a",
    "a$",
    "^a$",
    "^$",
    "a|b",
    "^(a|b)$",
    "^a|b$",
    ".*",
    "(.*)",
    "^.*$",
    "a.*b",
    "[a-z]+",
    r"\bk",
    "(?i)k",
    r"\\",
    r"a\\",
    r"^\\",
    r"\\|b",
    r"\x5c",
    r"(?x)a # b",
    "s",
    "é",
    r"\.",
    "(?m)^a$",
    r"\w",
    "%",
    "_",
    ".",
    "(?s).",
    "k|s|a|b|é|sh",
    "[[:alpha:]]{2}",
    "^(sh)$",
];

fn comparison() -> impl Strategy<Value = &'static str> {
    prop::sample::select(vec!["=", "<>", "!=", "<", "<=", ">", ">="])
}

fn distinct() -> impl Strategy<Value = &'static str> {
    prop::sample::select(vec!["IS DISTINCT FROM", "IS NOT DISTINCT FROM"])
}

fn text_leaf() -> BoxedStrategy<String> {
    let not = || prop::sample::select(vec!["", "NOT "]);
    prop_oneof![
        (text_value(), comparison(), text_value()).prop_map(|(a, op, b)| format!("{a} {op} {b}")),
        (text_value(), distinct(), text_value()).prop_map(|(a, op, b)| format!("{a} {op} {b}")),
        (text_value(), not(), prop::sample::select(vec!["LIKE", "ILIKE"]), pattern())
            .prop_map(|(a, not, like, pattern)| format!("{a} {not}{like} {pattern}")),
        (text_column(), not(), pattern()).prop_map(|(a, not, pattern)| format!("{a} {not}LIKE {pattern} ESCAPE '\\'")),
        (text_value(), prop::sample::select(vec!["~", "~*", "!~", "!~*"]), prop::sample::select(EXPRESSIONS))
            .prop_map(|(a, op, expression)| format!("{a} {op} {}", quoted(expression))),
        (text_column(), prop::sample::select(EXPRESSIONS)).prop_map(|(a, e)| format!("{a} REGEXP {}", quoted(e))),
        (
            text_value(),
            prop::sample::select(EXPRESSIONS),
            prop::sample::select(vec!["", ", 'i'", ", 's'", ", 'is'", ", ''"])
        )
            .prop_map(|(a, e, flags)| format!("regexp_like({a}, {}{flags})", quoted(e))),
        (
            text_value(),
            not(),
            prop::collection::vec(
                prop_oneof![4 => text().prop_map(|t| quoted(&t)), 1 => Just("NULL".to_owned())],
                1..6
            )
        )
            .prop_map(|(a, not, list)| format!("{a} {not}IN ({})", list.join(", "))),
        (prop::sample::select(vec!["starts_with", "ends_with", "contains"]), text_value(), text_value())
            .prop_map(|(function, a, b)| format!("{function}({a}, {b})")),
        strict_leaf(),
        (text_value(), not(), text_value(), text_value())
            .prop_map(|(a, not, b, c)| format!("{a} {not}BETWEEN {b} AND {c}")),
        (text_value(), prop::sample::select(vec!["IS NULL", "IS NOT NULL"])).prop_map(|(a, is)| format!("{a} {is}")),
    ]
    .boxed()
}

fn strict_leaf() -> BoxedStrategy<String> {
    let function = prop::sample::select(vec![
        "ci_contains",
        "ci_ends",
        "ci_eq",
        "ci_starts",
        "cs_contains",
        "cs_ends",
        "cs_eq",
        "cs_starts",
    ]);
    let value = || prop_oneof![4 => text_value(), 1 => Just("NULL".to_owned())];
    let texts = |texts: Vec<String>| texts.iter().map(|text| quoted(text)).collect::<Vec<_>>().join(", ");
    let networks = vec!["10.0.0.0/8", "10.1.2.3", "fe80::/10", "::/0", "0.0.0.0/0", "192.168.0.0/16"];
    prop_oneof![
        4 => (function, value(), prop::collection::vec(text(), 1..7))
            .prop_map(move |(function, a, values)| format!("{function}({a}, {})", texts(values))),
        2 => (prop::sample::select(vec!["ci_like", "cs_like"]), value(), prop::collection::vec(pattern(), 1..4))
            .prop_map(|(function, a, patterns)| format!("{function}({a}, {})", patterns.join(", "))),
        2 => (value(), prop::sample::select(EXPRESSIONS), prop::sample::select(vec!["", ", 'i'", ", 'ims'", ", ''"]))
            .prop_map(|(a, expression, flags)| format!("re_match({a}, {}{flags})", quoted(expression))),
        1 => (value(), prop::collection::vec(prop::sample::select(networks), 1..3))
            .prop_map(move |(a, nets)| format!("cidr({a}, {})", texts(nets.into_iter().map(str::to_owned).collect()))),
    ]
    .boxed()
}

fn number_leaf() -> BoxedStrategy<String> {
    let real_literal = prop::sample::select(vec!["1", "1.5", "-2.5", "0.0", "3", "1e3"]);
    let time = prop::sample::select(vec![
        "'1970-01-01T00:00:00Z'",
        "'2026-01-31T12:00:00Z'",
        "'2026-01-31T12:00:00.000001Z'",
        "TIMESTAMP '2026-01-31T12:00:00Z'",
        "'2026-01-31T13:00:00+01:00'",
        "start_time",
        "datetime('2026-01-31 12:00')",
        "datetime('2026-01-31T12:30Z', '-30 minutes')",
        "CAST('2026-01-31 12:00:00' AS TIMESTAMP)",
    ]);
    let item = prop_oneof![3 => literal(), 1 => Just("NULL".to_owned())];
    prop_oneof![
        (integer_value(), comparison(), integer_value()).prop_map(|(a, op, b)| format!("{a} {op} {b}")),
        (integer_value(), distinct(), integer_value()).prop_map(|(a, op, b)| format!("{a} {op} {b}")),
        (integer_value(), prop::collection::vec(item, 1..5), any::<bool>()).prop_map(|(a, list, not)| format!(
            "{a} {}IN ({})",
            if not { "NOT " } else { "" },
            list.join(", ")
        )),
        (integer_value(), integer_value(), integer_value()).prop_map(|(a, b, c)| format!("{a} BETWEEN {b} AND {c}")),
        (comparison(), real_literal.clone()).prop_map(|(op, literal)| format!("cpu_usage {op} {literal}")),
        (comparison(), real_literal).prop_map(|(op, literal)| format!("{literal} {op} pid")),
        comparison().prop_map(|op| format!("cpu_usage {op} pid")),
        comparison().prop_map(|op| format!("abs(cpu_usage) {op} CAST(pid AS DOUBLE)")),
        (comparison(), time.clone()).prop_map(|(op, time)| format!("time {op} {time}")),
        any::<bool>().prop_map(|not| format!("time {}IN ('2026-01-31T12:00:00Z')", if not { "NOT " } else { "" })),
        time.prop_map(|time| format!("time BETWEEN {time} AND '2026-02-01T00:00:00Z'")),
        column(&["pid IS NULL", "cpu_usage IS NOT NULL", "arg_lengths IS NULL", "time IS NOT NULL"]),
    ]
    .boxed()
}

fn boolean_leaf() -> BoxedStrategy<String> {
    prop_oneof![
        (when(), when()).prop_map(|(a, b)| format!("CASE WHEN {a} THEN {b} ELSE memfd END")),
        column(&["deleted_executable", "memfd", "end_observed", "TRUE", "FALSE", "NULL", "(NULL = 1)"]),
        column(&[
            "memfd = TRUE",
            "memfd <> deleted_executable",
            "memfd IS NULL",
            "end_observed = false",
            "memfd < deleted_executable"
        ]),
        (column(&["memfd", "deleted_executable"]), truth()).prop_map(|(column, is)| format!("{column} {is}")),
    ]
    .boxed()
}

fn truth() -> impl Strategy<Value = &'static str> {
    prop::sample::select(vec![
        "IS TRUE",
        "IS NOT TRUE",
        "IS FALSE",
        "IS NOT FALSE",
        "IS UNKNOWN",
        "IS NOT UNKNOWN",
        "IS NULL",
        "IS NOT NULL",
    ])
}

pub(super) fn condition() -> impl Strategy<Value = String> {
    prop_oneof![4 => text_leaf(), 2 => number_leaf(), 1 => boolean_leaf()].prop_recursive(4, 20, 3, |inner| {
        let chain = |word: &'static str| {
            prop::collection::vec(inner.clone(), 2..4).prop_map(move |all| format!("({})", all.join(word)))
        };
        prop_oneof![
            3 => chain(" AND "),
            3 => chain(" OR "),
            2 => inner.clone().prop_map(|a| format!("NOT ({a})")),
            2 => (inner.clone(), truth()).prop_map(|(a, is)| format!("(({a}) {is})")),
            1 => (inner.clone(), inner.clone()).prop_map(|(a, b)| format!("(({a}) = ({b}))")),
        ]
    })
}

// ---- the two ways -----------------------------------------------------------------------------------------------------

fn rule(sql: &str) -> Option<LoadedRule> {
    numbered(1, sql)
}

/// The rule, or `None` where a constant in it does not fit: that, and nothing else that is generated, is refused.
pub(super) fn numbered(number: usize, sql: &str) -> Option<LoadedRule> {
    let id = format!("00000000-0000-4000-8000-{number:012}");
    let yaml = json!({"id": id, "name": "generated", "severity": "info", "sql": sql});
    let overflows = has_constant_that_overflows(sql);
    match rules::parse(Path::new("generated/rule.yaml"), &yaml.to_string()) {
        Ok(rule) => {
            assert!(!overflows, "a constant does not fit, and the rule was taken: {sql}");
            Some(rule)
        }
        Err(problems) => {
            let told: Vec<String> = problems.iter().map(ToString::to_string).collect();
            assert!(
                overflows && told.len() == 1 && told[0].contains("does not fit a whole number"),
                "{sql}\n{told:#?}"
            );
            None
        }
    }
}

/// Calculated in 128 bits from the syntax alone, so that neither way of deciding a rule has a part in it.
fn has_constant_that_overflows(sql: &str) -> bool {
    let checked = check(sql).unwrap_or_else(|refusal| panic!("{sql}\n{refusal}"));
    let found = visit_expressions(checked.query(), |expr| match constant(expr) {
        Some(value) if i64::try_from(value).is_err() => ControlFlow::Break(()),
        _ => ControlFlow::Continue(()),
    });
    found.is_break()
}

fn constant(expr: &Expr) -> Option<i128> {
    match expr {
        Expr::Nested(inner) => constant(inner),
        Expr::Value(value) => value.to_string().parse().ok(),
        Expr::UnaryOp { op: UnaryOperator::Minus, expr } => constant(expr)?.checked_neg(),
        Expr::BinaryOp { left, op, right } => {
            let (left, right) = (constant(left)?, constant(right)?);
            match op {
                BinaryOperator::Divide => left.checked_div(right),
                BinaryOperator::Minus => left.checked_sub(right),
                BinaryOperator::Modulo => left.checked_rem(right),
                BinaryOperator::Multiply => left.checked_mul(right),
                BinaryOperator::Plus => left.checked_add(right),
                _ => None,
            }
        }
        _ => None,
    }
}

pub(super) fn events(batch: &RecordBatch) -> EventBatch {
    let at = Sequence { epoch: 1, number: 1 };
    EventBatch {
        batch: batch.clone(),
        collector: "test".into(),
        first: at,
        last: at,
        gaps: Vec::new(),
        live: Vec::new(),
    }
}

/// (row, output) of every match.
fn by_matcher(rule: LoadedRule, batch: &RecordBatch) -> Vec<(usize, Value)> {
    let by = |set: &RuleSet| -> Vec<(usize, Value)> {
        let matches = set.evaluate(&events(batch), &Completeness::complete());
        matches.into_iter().map(|found| (found.row, Value::Object(found.output().into_owned()))).collect()
    };
    let sql = rule.rule.sql.clone();
    let (set, refusals) = RuleSet::compile(vec![rule.clone()]);
    assert!(refusals.is_empty());
    let found = by(&set);
    for time in ["seen once", "remembered"] {
        assert_eq!(found, by(&set), "values {time}: {sql}");
    }
    let everywhere = RuleSet::compile(vec![rule]).0.without_prefilter();
    assert_eq!(found, by(&everywhere), "with and without the prefilter: {sql}");
    found
}

/// What a query or a backtest over these rows answers; `None` when a whole number overflows in one of them, which fails a query.
fn try_query(sql: &str, batch: &RecordBatch) -> Option<Vec<Value>> {
    let checked = check(sql).unwrap_or_else(|refusal| panic!("{sql}\n{refusal}"));
    match evaluate(&checked, "process_events", vec![batch.clone()]) {
        Ok(found) => Some(found.iter().flat_map(rows_of).collect()),
        Err(error) if error.to_string().contains("does not fit a whole number") => None,
        Err(error) => panic!("{sql}\n{error}"),
    }
}

fn by_query(sql: &str, batch: &RecordBatch) -> Vec<Value> {
    try_query(sql, batch).unwrap_or_else(|| panic!("{sql}\noverflows"))
}

/// What was compared over all cases: a check that compares nothing passes always.
#[derive(Debug, Default)]
pub(super) struct Tally {
    rules: Cell<usize>,
    /// Rules with a constant that does not fit.
    refused: Cell<usize>,
    /// Rows, once for each rule.
    rows: Cell<usize>,
    /// Those in which a number overflows: a query fails there, and a rule takes NULL.
    overflowed: Cell<usize>,
    matches: Cell<usize>,
}

impl Tally {
    pub(super) fn add(&self, rules: usize, refused: usize, rows: usize, matches: usize) {
        let counts = [(&self.rules, rules), (&self.refused, refused), (&self.rows, rows), (&self.matches, matches)];
        counts.into_iter().for_each(|(count, more)| count.set(count.get() + more));
    }

    /// Most rules were compared, over most of their rows, of which so many of a hundred matched.
    pub(super) fn assert_compared(&self, rules: usize, shares: RangeInclusive<usize>) {
        println!("{self:?}");
        assert!(self.rules.get() + self.refused.get() >= rules, "fewer rules than {rules} were made: {self:?}");
        assert!(self.refused.get() * 5 <= self.rules.get(), "too many rules were refused: {self:?}");
        assert!(self.overflowed.get() * 10 <= self.rows.get(), "too many rows were left out: {self:?}");
        assert!(self.rows.get() >= self.rules.get() * 4, "there were few rows: {self:?}");
        let share = self.matches.get() * 100 / self.rows.get().max(1);
        assert!(shares.contains(&share), "{share} of 100 rows match: {self:?}");
    }
}

/// Runs a test over so many cases.
pub(super) fn for_cases<S: Strategy>(cases: u32, strategy: S, test: impl Fn(S::Value)) {
    let config = ProptestConfig { cases, failure_persistence: None, ..ProptestConfig::default() };
    let ran = TestRunner::new(config).run(&strategy, |value| {
        test(value);
        Ok(())
    });
    ran.unwrap_or_else(|failure| panic!("{failure}"));
}

/// Both give the same outputs over all rows but those in which a number overflows; a rule that is refused is not compared.
fn assert_agree(rule_sql: &str, query_sql: &str, batch: &RecordBatch, tally: &Tally) {
    let Some(rule) = rule(rule_sql) else { return tally.add(0, 1, 0, 0) };
    let (ours, theirs) = by_both(&rule, query_sql, batch, tally);
    assert_eq!(ours, theirs, "{rule_sql}");
    tally.add(1, 0, batch.num_rows(), ours.len());
}

fn by_both(rule: &LoadedRule, query_sql: &str, batch: &RecordBatch, tally: &Tally) -> (Vec<Value>, Vec<Value>) {
    if let Some(theirs) = try_query(query_sql, batch) {
        return (by_matcher(rule.clone(), batch).into_iter().map(|(_, output)| output).collect(), theirs);
    }
    let middle = batch.num_rows() / 2;
    if middle == 0 {
        // There is no answer of theirs; ours has to be the same in all ways of finding it.
        by_matcher(rule.clone(), batch);
        tally.overflowed.set(tally.overflowed.get() + 1);
        return (Vec::new(), Vec::new());
    }
    let (mut ours, mut theirs) = by_both(rule, query_sql, &batch.slice(0, middle), tally);
    let (more_of_ours, more_of_theirs) =
        by_both(rule, query_sql, &batch.slice(middle, batch.num_rows() - middle), tally);
    ours.extend(more_of_ours);
    theirs.extend(more_of_theirs);
    (ours, theirs)
}

fn rows_of(batch: &RecordBatch) -> Vec<Value> {
    let schema = batch.schema();
    let row = |row| {
        let cells = schema.fields().iter().zip(batch.columns());
        Value::Object(cells.map(|(field, array)| (field.name().clone(), cell(array, row))).collect())
    };
    (0..batch.num_rows()).map(row).collect()
}

fn cell(array: &ArrayRef, row: usize) -> Value {
    if array.is_null(row) {
        return Value::Null;
    }
    match array.data_type() {
        DataType::Boolean => array.as_boolean().value(row).into(),
        DataType::Float64 => array.as_primitive::<Float64Type>().value(row).into(),
        DataType::Int32 => array.as_primitive::<Int32Type>().value(row).into(),
        DataType::Int64 => array.as_primitive::<Int64Type>().value(row).into(),
        DataType::LargeUtf8 => array.as_string::<i64>().value(row).into(),
        DataType::Null => Value::Null,
        DataType::Utf8 => array.as_string::<i32>().value(row).into(),
        DataType::Utf8View => array.as_string_view().value(row).into(),
        other => panic!("no cell of {other}"),
    }
}

/// What history answers for a rule: forks are there, and the rule does not see them unless it asks.
fn as_history(select: &str, condition: &str) -> String {
    let forks = if condition.contains("start_kind") { "" } else { " AND start_kind IS DISTINCT FROM 'fork'" };
    format!("SELECT {select} FROM process_events WHERE ({condition}){forks}")
}

/// A few for every run; `PROPTEST_CASES=20000` for a night.
pub(super) fn cases() -> u32 {
    std::env::var("PROPTEST_CASES").map_or(192, |cases| cases.parse().unwrap())
}

#[test]
fn the_matcher_and_datafusion_agree_on_every_generated_rule() {
    let tally = Tally::default();
    let generated =
        (prop::collection::vec(row(), 1..24), prop::collection::vec(condition(), 4), text_value(), integer_value());
    for_cases(cases(), generated, |(rows, conditions, text, number)| {
        let batch = batch(&rows);
        for condition in &conditions {
            let select = format!("seq, {text} AS t, {number} AS n, cpu_usage, memfd");
            let rule = format!("SELECT {select} FROM process_events WHERE {condition}");
            assert_agree(&rule, &as_history(&select, condition), &batch, &tally);
        }
    });
    tally.assert_compared(cases() as usize * 4, 5..=95);
}

// Alone, because DataFusion's optimizer subtracts one list of columns from another by their text, not by their values.
#[test]
fn lists_of_columns_agree() {
    let tally = Tally::default();
    let generated = (prop::collection::vec(row(), 1..24), text_value(), integer_value());
    for_cases(cases(), generated, |(rows, text, number)| {
        let batch = batch(&rows);
        for condition in [
            format!("name IN ({text}, parent_name)"),
            format!("NOT (name NOT IN ({text}, executable_path, NULL))"),
            format!("pid NOT IN ({number}, uid)"),
            format!("(pid IN (ppid, 1, {number})) IS NOT TRUE"),
            "time IN (start_time, '2026-01-31T12:00:00Z')".to_owned(),
            "time NOT IN (start_time)".to_owned(),
        ] {
            let rule = format!("SELECT seq FROM process_events WHERE {condition}");
            assert_agree(&rule, &as_history("seq", &condition), &batch, &tally);
        }
    });
    tally.assert_compared(cases() as usize * 6, 5..=95);
}

#[test]
fn a_condition_returned_as_a_value_is_the_same() {
    let tally = Tally::default();
    let generated = (prop::collection::vec(row(), 1..16), condition());
    for_cases(cases(), generated, |(rows, condition)| {
        let batch = batch(&rows);
        let sql = format!("SELECT seq, ({condition}) AS c FROM process_events WHERE start_kind IS NULL OR TRUE");
        assert_agree(&sql, &sql, &batch, &tally);
    });
    tally.assert_compared(cases() as usize, 90..=100);
}

#[test]
fn the_functions_of_rules_are_strict_and_two_valued_in_both() {
    let named = |name: Option<&str>| {
        let name = name.map_or(Value::Null, Value::from);
        json!({"name": name}).as_object().unwrap().clone()
    };
    let rows = [None, Some("CMD.exe"), Some("10.1.2.3"), Some("\u{212a}")].map(named);
    let numbered = rows.into_iter().enumerate().map(|(at, mut row)| {
        row.insert("seq".into(), at.into());
        row
    });
    let batch = batch_from_json(&numbered.collect::<Vec<_>>()).unwrap();
    for (condition, expected) in [
        ("ci_eq(name, 'cmd.EXE', 'x')", vec![1]),
        ("NOT ci_eq(name, 'cmd.EXE')", vec![0, 2, 3]),
        ("ci_eq(name, 'cmd.exe') IS NULL", vec![]),
        ("ci_eq(name, 'k')", vec![]),
        ("name ILIKE 'k'", vec![3]),
        ("cs_ends(name, '.EXE') OR ci_starts(name, 'cMd')", vec![1]),
        ("NOT cidr(name, '10.0.0.0/8', '::/0')", vec![0, 1, 3]),
        ("re_match(name, '^c', 'i') OR re_match(name, '^C')", vec![1]),
        ("NOT (ci_like(name, '%.E_E') AND TRUE)", vec![0, 2, 3]),
        ("ci_contains(NULL, 'a') IS FALSE", vec![0, 1, 2, 3]),
    ] {
        let sql = format!("SELECT seq FROM process_events WHERE {condition}");
        let expected: Vec<Value> = expected.into_iter().map(|seq| json!({"seq": seq})).collect();
        assert_eq!(by_query(&sql, &batch), expected, "{sql}");
        let ours: Vec<Value> = by_matcher(rule(&sql).unwrap(), &batch).into_iter().map(|(_, output)| output).collect();
        assert_eq!(ours, expected, "{sql}");
    }
}

#[test]
fn wrong_values_of_the_functions_of_rules_are_refused_by_name() {
    for (call, message) in [
        ("ci_eq(name, parent_name)", "value of ci_eq must be"),
        ("ci_eq(name, 5)", "value of ci_eq must be"),
        ("cidr(name, '10.0.0.0/33')", "not from 0 to 32"),
        ("re_match(name, '(')", "does not compile"),
        ("re_match(name, 'a', 'q')", "flags 'q'"),
    ] {
        let sql = format!("SELECT seq FROM process_events WHERE {call}");
        let refusal = check(&sql).expect_err(call).to_string();
        assert!(refusal.contains(message), "{call}: {refusal}");
    }
    for call in ["ci_eq(name)", "ci_eq(pid, 'x')", "ci_eq(name, NULL)", "re_match(name, 'a', 'i', 'x')"] {
        let sql = format!("SELECT seq FROM process_events WHERE {call}");
        let yaml = json!({"id": "00000000-0000-4000-8000-000000000001", "name": "n", "severity": "info", "sql": sql});
        assert!(rules::parse(Path::new("rule.yaml"), &yaml.to_string()).is_err(), "{call}");
    }
}

fn pack() -> Vec<LoadedRule> {
    let loaded = rules::load_dirs(&[PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../rules")]);
    assert!(loaded.problems.is_empty(), "{:#?}", loaded.problems);
    loaded.rules
}

#[test]
fn the_matcher_and_datafusion_agree_on_every_built_in_rule() {
    let mut pack = pack();
    // The others are DataFusion's anyway.
    pack.retain(|rule| rule.rule.kind == RuleKind::Stream);
    let events = pack.iter().flat_map(|rule| rule.tests.iter()).enumerate().map(|(at, test)| {
        let mut event = test.event.clone();
        event.insert("seq".into(), at.into());
        event
    });
    let batch = batch_from_json(&events.collect::<Vec<_>>()).unwrap();
    let mut matches = 0;
    for rule in pack {
        let sql = rule.rule.sql.clone();
        let (_, condition) = sql.split_once("WHERE").unwrap();
        let theirs = by_query(&as_history("seq", condition), &batch);
        let theirs: Vec<Value> = theirs.into_iter().map(|row| row["seq"].clone()).collect();
        let ours: Vec<Value> = by_matcher(rule, &batch).into_iter().map(|(row, _)| row.into()).collect();
        assert_eq!(ours, theirs, "{sql}");
        matches += ours.len();
    }
    assert!(matches > 24, "the pack's own positive tests are among the events");
}
