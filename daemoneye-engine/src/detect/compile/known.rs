//! What a rule over single events may call, and what to write instead of what it may not. The reference of rules is made of it.

use crate::sql::names::nearest;

/// Functions by how they are called; the names alone are what the compiler knows.
pub(super) const KNOWN: &[(&str, &str)] = &[
    ("abs", "`abs(number)`"),
    ("btrim", "`btrim(text[, 'characters'])`, `TRIM(…)`"),
    ("char_length", "`char_length(text)`"),
    ("character_length", "`character_length(text)`"),
    ("ci_contains", "`ci_contains(text, 'value', …)`"),
    ("ci_ends", "`ci_ends(text, 'value', …)`"),
    ("ci_eq", "`ci_eq(text, 'value', …)`"),
    ("ci_fold", "`ci_fold(text)`"),
    ("ci_like", "`ci_like(text, 'pattern', …)`"),
    ("ci_starts", "`ci_starts(text, 'value', …)`"),
    ("cidr", "`cidr(text, 'network', …)`"),
    ("coalesce", "`coalesce(value, …)`"),
    ("concat", "`concat(text, …)`, `text || text`"),
    ("concat_ws", "`concat_ws('separator', text, …)`"),
    ("contains", "`contains(text, text)`"),
    ("cs_contains", "`cs_contains(text, 'value', …)`"),
    ("cs_ends", "`cs_ends(text, 'value', …)`"),
    ("cs_eq", "`cs_eq(text, 'value', …)`"),
    ("cs_like", "`cs_like(text, 'pattern', …)`"),
    ("cs_starts", "`cs_starts(text, 'value', …)`"),
    (
        "date_part",
        "`date_part('hour', time)`, `EXTRACT(hour FROM time)`: year, quarter, month, day, dow, doy, hour, minute, second",
    ),
    ("datetime", "`datetime('2026-01-31 12:00'[, '-30 minutes'])`, without `'now'`"),
    ("ends_with", "`ends_with(text, text)`"),
    ("left", "`left(text, 3)`"),
    ("length", "`length(text)`"),
    ("lower", "`lower(text)`"),
    ("ltrim", "`ltrim(text[, 'characters'])`"),
    ("nullif", "`nullif(value, value)` of text and whole numbers"),
    ("octet_length", "`octet_length(text)`"),
    ("re_match", "`re_match(text, 'expression'[, 'imsx'])`"),
    ("regexp_like", "`regexp_like(text, 'expression'[, 'imsx'])`"),
    ("reverse", "`reverse(text)`"),
    ("right", "`right(text, 3)`"),
    ("rtrim", "`rtrim(text[, 'characters'])`"),
    ("split_part", "`split_part(text, 'separator', 1)`"),
    ("starts_with", "`starts_with(text, text)`"),
    ("strpos", "`strpos(text, 'part')`, `POSITION('part' IN text)`"),
    ("substr", "`substr(text, 1[, 3])`, `SUBSTRING(text FROM 1 FOR 3)`"),
    ("upper", "`upper(text)`"),
];

/// Functions of queries that a rule over single events has not, and what says the same.
const INSTEAD: &[(&str, &str)] = &[
    (
        "current_date",
        "each event is decided by its own time, so that a replay decides the same: compare time, or date_part('hour', time)",
    ),
    ("ceil", "compare with the bounds: a > 1 AND a <= 2"),
    ("date_bin", "compare time, or use date_part('hour', time)"),
    ("date_trunc", "compare time, or use date_part('hour', time)"),
    ("floor", "compare with the bounds: a >= 1 AND a < 2"),
    ("greatest", "use CASE WHEN a > b THEN a ELSE b END"),
    ("least", "use CASE WHEN a < b THEN a ELSE b END"),
    (
        "now",
        "each event is decided by its own time, so that a replay decides the same: compare time, or date_part('hour', time)",
    ),
    ("regexp_count", "use regexp_like(text, '(…){3}')"),
    ("replace", "compare parts of the text: split_part, substr, LIKE, or ci_contains"),
    ("round", "compare with the bounds: a >= 0.5 AND a < 1.5"),
    ("substring", "use substr(text, 1, 3)"),
    ("to_timestamp", "write TIMESTAMP '2026-01-31T12:00:00Z'"),
    ("to_unixtime", "compare time with TIMESTAMP '2026-01-31T12:00:00Z'"),
];

/// Whether the compiler knows it.
pub(super) fn is_known(name: &str) -> bool {
    KNOWN.iter().any(|(known, _)| *known == name)
}

/// What to call instead of a function that rules do not have.
pub(in crate::detect) fn instead(name: &str) -> String {
    if let Some((_, instead)) = INSTEAD.iter().find(|(tried, _)| *tried == name) {
        return (*instead).to_owned();
    }
    let names = KNOWN.iter().map(|(known, _)| *known);
    nearest(name, names.clone()).map_or_else(
        || format!("rules know {}", names.collect::<Vec<_>>().join(", ")),
        |known| format!("did you mean {known}?"),
    )
}

#[cfg(test)]
mod tests {
    use daemoneye_lib::functions::{Class, FUNCTIONS};

    use super::*;

    #[test]
    fn every_function_of_queries_is_known_or_has_what_says_the_same() {
        for (name, class) in FUNCTIONS {
            let is_answered = is_known(name) || INSTEAD.iter().any(|(tried, _)| tried == name);
            assert!(is_answered || *class != Class::Scalar, "{name}");
        }
    }

    /// `DAEMONEYE_WRITE_DOCS=1` writes it.
    #[test]
    fn the_reference_of_rules_lists_them() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/rules.md");
        let text = std::fs::read_to_string(path).unwrap().replace("\r\n", "\n");
        let (begin, end) = ("<!-- functions: made of the table in the code -->\n", "<!-- end of functions -->");
        let (before, rest) = text.split_once(begin).unwrap();
        let (listed, behind) = rest.split_once(end).unwrap();
        let known = KNOWN.iter().map(|(_, called)| format!("- {called}\n"));
        let instead =
            INSTEAD.iter().map(|(name, instead)| format!("| `{name}` | {} |\n", instead.replace('|', "\\|")));
        let wanted = format!(
            "\n{}\n| not in a rule over single events | instead |\n|---|---|\n{}\n",
            known.collect::<String>(),
            instead.collect::<String>()
        );
        if std::env::var_os("DAEMONEYE_WRITE_DOCS").is_some() {
            std::fs::write(path, format!("{before}{begin}{wanted}{end}{behind}")).unwrap();
            return;
        }
        assert_eq!(listed, wanted, "run with DAEMONEYE_WRITE_DOCS=1");
    }
}
