//! The functions that a statement may call, by name: the guard lets these through and the shell completes them.
//!
//! Left out on purpose: what multiplies its input without a bound (repeat, lpad, rpad), what is quadratic (levenshtein),
//! what reads settings, files or the clock of another zone, and everything that returns a list or a struct.

/// How a function is called.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Class {
    /// Over rows of a group; also with OVER.
    Aggregate,
    /// On one row.
    Scalar,
    /// With OVER only.
    Window,
}

/// Every function of the SQL engine, by class and then by name.
pub const FUNCTIONS: &[(&str, Class)] = &[
    ("approx_distinct", Class::Aggregate),
    ("avg", Class::Aggregate),
    ("bool_and", Class::Aggregate),
    ("bool_or", Class::Aggregate),
    ("count", Class::Aggregate),
    ("first_value", Class::Aggregate),
    ("last_value", Class::Aggregate),
    ("max", Class::Aggregate),
    ("median", Class::Aggregate),
    ("min", Class::Aggregate),
    ("stddev", Class::Aggregate),
    ("string_agg", Class::Aggregate),
    ("sum", Class::Aggregate),
    ("abs", Class::Scalar),
    ("btrim", Class::Scalar),
    ("ceil", Class::Scalar),
    ("char_length", Class::Scalar),
    ("character_length", Class::Scalar),
    ("ci_contains", Class::Scalar),
    ("ci_ends", Class::Scalar),
    ("ci_eq", Class::Scalar),
    ("ci_fold", Class::Scalar),
    ("ci_like", Class::Scalar),
    ("ci_starts", Class::Scalar),
    ("cidr", Class::Scalar),
    ("coalesce", Class::Scalar),
    ("concat", Class::Scalar),
    ("concat_ws", Class::Scalar),
    ("contains", Class::Scalar),
    ("cs_contains", Class::Scalar),
    ("cs_ends", Class::Scalar),
    ("cs_eq", Class::Scalar),
    ("cs_like", Class::Scalar),
    ("cs_starts", Class::Scalar),
    ("current_date", Class::Scalar),
    ("date_bin", Class::Scalar),
    ("date_part", Class::Scalar),
    ("date_trunc", Class::Scalar),
    ("ends_with", Class::Scalar),
    ("floor", Class::Scalar),
    ("greatest", Class::Scalar),
    ("least", Class::Scalar),
    ("left", Class::Scalar),
    ("length", Class::Scalar),
    ("lower", Class::Scalar),
    ("ltrim", Class::Scalar),
    ("now", Class::Scalar),
    ("nullif", Class::Scalar),
    ("octet_length", Class::Scalar),
    ("re_match", Class::Scalar),
    ("regexp_count", Class::Scalar),
    ("regexp_like", Class::Scalar),
    ("replace", Class::Scalar),
    ("reverse", Class::Scalar),
    ("right", Class::Scalar),
    ("round", Class::Scalar),
    ("rtrim", Class::Scalar),
    ("split_part", Class::Scalar),
    ("starts_with", Class::Scalar),
    ("strpos", Class::Scalar),
    ("substr", Class::Scalar),
    ("to_timestamp", Class::Scalar),
    ("to_unixtime", Class::Scalar),
    ("upper", Class::Scalar),
    ("cume_dist", Class::Window),
    ("dense_rank", Class::Window),
    ("lag", Class::Window),
    ("lead", Class::Window),
    ("nth_value", Class::Window),
    ("ntile", Class::Window),
    ("percent_rank", Class::Window),
    ("rank", Class::Window),
    ("row_number", Class::Window),
];

/// A time from words, as `datetime('now', '-30 minutes')`; lowered before planning, so no function of that name is registered.
pub const DATETIME: &str = "datetime";

/// The only function in FROM: the processes that lived at an instant.
pub const PROCESSES_AT: &str = "processes_at";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_function_stands_once_in_order_and_in_lower_case() {
        let of = |class| FUNCTIONS.iter().filter(move |(_, of)| *of == class).map(|(name, _)| *name);
        for class in [Class::Aggregate, Class::Scalar, Class::Window] {
            assert!(of(class).is_sorted_by(|a, b| a < b), "{class:?}");
        }
        let mut names: Vec<&str> = FUNCTIONS.iter().map(|(name, _)| *name).chain([DATETIME, PROCESSES_AT]).collect();
        names.sort_unstable();
        assert!(names.windows(2).all(|pair| pair[0] != pair[1]), "{names:?}");
        assert!(names.iter().all(|name| name.bytes().all(|c| c.is_ascii_lowercase() || c == b'_')));
    }
}
