//! The allow-lists: tables by name, functions by name. An alias that is not listed here does not exist.
//!
//! Names compare after ASCII lower-casing of what was not quoted, exactly as the planner does it, so that no other
//! letter (a Kelvin sign, a dotless i) can stand for one of ours.

use super::tables::TABLES;
use daemoneye_lib::columns::PROCESS_EVENTS;
use daemoneye_lib::functions::FUNCTIONS;
pub(crate) use daemoneye_lib::functions::{Class, DATETIME, PROCESSES_AT};
use datafusion::sql::sqlparser::ast::{Function, FunctionArguments, Ident, ObjectName, ObjectNamePart};

/// What people try, and what does it here.
const INSTEAD: &[(&str, &str)] = &[
    ("array_agg", "string_agg(x, ',')"),
    ("current_timestamp", "now()"),
    ("current_user", "\"user\", the column of whoever runs a process; who asks is not told"),
    ("date", "date_trunc('day', time) or CAST(time AS DATE)"),
    ("date_format", "date_trunc('hour', time) or date_part('hour', time)"),
    ("datediff", "extract(epoch FROM a - b)"),
    ("from_unixtime", "to_timestamp(seconds)"),
    ("getdate", "now()"),
    ("group_concat", "string_agg(x, ',')"),
    ("ifnull", "coalesce(a, b)"),
    ("instr", "strpos(text, part)"),
    ("isnull", "x IS NULL"),
    ("list", "x IN ('…', '…') or x IN (list('name')); SELECT items FROM rule_lists shows what one holds"),
    ("localtimestamp", "now()"),
    ("lpad", "concat(…): columns are aligned by the program that shows them"),
    ("nvl", "coalesce(a, b)"),
    ("percentile_cont", "median(x)"),
    ("random", "ORDER BY a column: an answer is the same each time"),
    ("regexp_matches", "regexp_like(text, pattern)"),
    ("regexp_match", "regexp_like(text, pattern)"),
    ("rpad", "concat(…): columns are aligned by the program that shows them"),
    ("strftime", "date_trunc('hour', time) or date_part('hour', time)"),
    ("substring_index", "split_part(text, separator, n)"),
    ("to_char", "date_trunc('hour', time) or CAST(x AS TEXT)"),
    ("trim", "TRIM(text) with one argument"),
    ("unix_timestamp", "to_unixtime(time)"),
];

/// The functions of one class.
pub(crate) fn functions(class: Class) -> impl Iterator<Item = &'static str> {
    FUNCTIONS.iter().filter(move |(_, of)| *of == class).map(|(name, _)| *name)
}

/// The class of a function; `None` refuses it.
pub(crate) fn class_of(name: &str) -> Option<Class> {
    FUNCTIONS.iter().find(|(known, _)| *known == name).map(|(_, class)| *class)
}

/// The name that the planner will look up: what is not quoted folds to lower case.
pub(crate) fn normal(ident: &Ident) -> String {
    if ident.quote_style.is_some() { ident.value.clone() } else { ident.value.to_ascii_lowercase() }
}

/// Whether this is the column `user`, or `table.user`, which the parser takes for a niladic function of PostgreSQL.
pub(crate) fn is_user_column(function: &Function) -> bool {
    let Function { name, uses_odbc_syntax, parameters, args, filter, null_treatment, over, within_group } = function;
    let (last, table) = match name.0.as_slice() {
        [table @ .., ObjectNamePart::Identifier(last)] => (last, table),
        _ => return false,
    };
    (last.quote_style.is_none() && normal(last) == "user")
        && matches!(table, [] | [ObjectNamePart::Identifier(_)])
        && !uses_odbc_syntax
        && matches!((parameters, args), (FunctionArguments::None, FunctionArguments::None))
        && filter.is_none()
        && null_treatment.is_none()
        && over.is_none()
        && within_group.is_empty()
}

/// Whether this names the function that selects an instant.
pub(crate) fn is_instant(name: &ObjectName) -> bool {
    matches!(name.0.as_slice(), [part] if part.as_ident().is_some_and(|ident| normal(ident) == PROCESSES_AT))
}

/// The table of that name.
pub(crate) fn table(name: &str) -> Option<&'static str> {
    TABLES.iter().find(|known| **known == name).copied()
}

/// What to use instead of a function that we do not have.
pub(crate) fn instead_of_function(name: &str) -> String {
    let name = name.to_ascii_lowercase();
    if let Some((_, instead)) = INSTEAD.iter().find(|(tried, _)| *tried == name) {
        return format!("use {instead}");
    }
    let like = FUNCTIONS.iter().map(|(known, _)| *known).filter(|known| is_slip(&name, known));
    nearest(&name, like).map_or_else(
        || {
            let known: Vec<&str> = FUNCTIONS.iter().map(|(known, _)| *known).collect();
            format!("the functions are {}", known.join(", "))
        },
        |known| format!("did you mean {known}?"),
    )
}

/// Whether one is the other with a slip or two, or its beginning: functions that only begin alike do other things.
fn is_slip(name: &str, known: &str) -> bool {
    let letters = name.len().max(known.len());
    strsim::damerau_levenshtein(name, known) <= letters / 4 || (name.len() >= 4 && known.starts_with(name))
}

/// Columns as osquery calls them, and as they are called here.
const COLUMNS_INSTEAD: &[(&str, &str)] =
    &[("cmdline", "command_line"), ("path", "executable_path"), ("parent", "ppid")];

/// The column of `known` that is meant by a name that is none.
pub(crate) fn instead_of_column<'a>(name: &str, known: impl Iterator<Item = &'a str> + Clone) -> Option<&'a str> {
    let elsewhere = COLUMNS_INSTEAD.iter().find(|(tried, _)| *tried == name);
    elsewhere.and_then(|(_, instead)| known.clone().find(|column| column == instead)).or_else(|| nearest(name, known))
}

/// What to write instead of a column that events do not have.
pub(crate) fn column_hint(name: &str) -> String {
    instead_of_column(name, PROCESS_EVENTS.iter().map(|column| column.name)).map_or_else(
        || "SELECT * FROM process_events LIMIT 1 shows the columns".to_owned(),
        |known| format!("did you mean {known}?"),
    )
}

/// How to find out what there is, for those who ask the way other databases are asked.
pub(crate) fn listing() -> String {
    format!("the tables are {}; SELECT * FROM processes LIMIT 1 shows the columns of one", TABLES.join(", "))
}

/// What to use instead of a table that we do not have.
pub(crate) fn instead_of_table(name: &str) -> String {
    nearest(&name.to_ascii_lowercase(), TABLES.iter().copied())
        .map_or_else(|| format!("the tables are {}", TABLES.join(", ")), |known| format!("did you mean {known}?"))
}

/// The name most like `name`, if any is like it at all.
pub(crate) fn nearest<'a>(name: &str, known: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    // Jaro-Winkler rewards a common beginning, which is how people get column names half right.
    const LIKE_ENOUGH: f64 = 0.8;
    known
        .map(|candidate| (strsim::jaro_winkler(name, candidate), candidate))
        .filter(|(score, _)| *score >= LIKE_ENOUGH)
        .max_by(|(a, _), (b, _)| a.total_cmp(b))
        .map(|(_, candidate)| candidate)
}
