//! What a row must have for a predicate to have a truth value.
//!
//! A need is a set of witnesses of which one is there on every row where the predicate has it; no witnesses at all: it never
//! holds. Whatever is not known is open, so a need can only be too wide.

use super::clue::{Clues, when_true};
use super::values;
use super::weights::Weights;
use crate::detect::matcher::{Comparison, Leaf, Scalar};

/// Most witnesses of one rule: a list of names in a rule has some hundred; more would cost more than they save.
pub(super) const MAX_WITNESSES: usize = 4_096;

/// Something that is on a row; a column by its place in the column table, text after simple folding.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Witness {
    /// The column's last `/` or `\` and what stands behind it.
    Base(usize, Box<str>),
    Exact(usize, Box<str>),
    Needle(usize, Box<str>),
    /// The column is not NULL.
    Present(usize),
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Need {
    /// One of these.
    Any(Vec<Witness>),
    Open,
}

impl Need {
    pub(super) fn one(witness: Witness) -> Self {
        Self::Any(vec![witness])
    }

    pub(super) const fn never() -> Self {
        Self::Any(Vec::new())
    }

    /// Estimated share of rows that have it, per million.
    fn cost(&self, weights: &Weights) -> u64 {
        match self {
            Self::Any(witnesses) => witnesses.iter().map(|witness| weights.cost(witness)).fold(0, u64::saturating_add),
            Self::Open => u64::MAX,
        }
    }

    /// All hold, so each one's need is one of all: the rarest.
    pub(super) fn cheapest(needs: impl IntoIterator<Item = Self>, weights: &Weights) -> Self {
        needs.into_iter().min_by_key(|need| need.cost(weights)).unwrap_or(Self::Open)
    }

    /// One of them holds, and nobody knows which.
    pub(super) fn union(needs: impl IntoIterator<Item = Self>) -> Self {
        let mut all = Vec::new();
        for need in needs {
            match need {
                Self::Any(witnesses) => all.extend(witnesses),
                Self::Open => return Self::Open,
            }
        }
        all.sort_unstable();
        all.dedup();
        if all.len() > MAX_WITNESSES { Self::Open } else { Self::Any(all) }
    }
}

/// What a row must have where a leaf has this truth value.
pub(super) fn of_leaf(leaf: &Leaf, wanted: bool, weights: &Weights) -> Clues {
    match (leaf, wanted) {
        (Leaf::Boolean(Scalar::Truth { yes, no }), wanted) => when_true(if wanted { yes } else { no }, weights),
        (Leaf::Fits(subject, fits) | Leaf::Strict(subject, fits), true) => {
            let needs = values::of_fits(subject, fits, weights);
            Clues::all(needs.into_iter().map(|need| Clues::of(need, weights)))
        }
        _ => Clues::of(of_predicate(leaf, wanted, weights), weights),
    }
}

fn of_predicate(leaf: &Leaf, wanted: bool, weights: &Weights) -> Need {
    match (leaf, wanted) {
        (Leaf::Boolean(scalar), _) => present(scalar, weights),
        (Leaf::Compare(left, Comparison::Distinct, right), false) => same(left, right, weights),
        (Leaf::Compare(_, Comparison::Distinct, _), true) | (Leaf::Present(_) | Leaf::Strict(..), false) => Need::Open,
        (Leaf::Compare(left, _, right) | Leaf::Search(left, _, right), _) => {
            Need::cheapest([present(left, weights), present(right, weights)], weights)
        }
        (Leaf::OneOf { subject, texts, .. }, true) => {
            values::of_texts(subject, &mut texts.iter().map(|text| &**text), weights)
        }
        (
            Leaf::Fits(subject, _) | Leaf::OneOf { subject, .. } | Leaf::Present(subject) | Leaf::Strict(subject, _),
            _,
        ) => present(subject, weights),
    }
}

/// IS NOT DISTINCT FROM: with a literal on one side the other cannot be NULL.
fn same(left: &Scalar, right: &Scalar, weights: &Weights) -> Need {
    match (left, right) {
        (Scalar::Text(text), other) | (other, Scalar::Text(text)) => {
            values::of_texts(other, &mut std::iter::once(&**text), weights)
        }
        (Scalar::Boolean(_) | Scalar::Integer(_) | Scalar::Real(_) | Scalar::Timestamp(_), other)
        | (other, Scalar::Boolean(_) | Scalar::Integer(_) | Scalar::Real(_) | Scalar::Timestamp(_)) => {
            present(other, weights)
        }
        _ => Need::Open,
    }
}

/// What must be there for the value not to be NULL.
pub(super) fn present(scalar: &Scalar, weights: &Weights) -> Need {
    match scalar {
        Scalar::Arithmetic(left, _, right) | Scalar::Join(left, right) => {
            Need::cheapest([present(left, weights), present(right, weights)], weights)
        }
        Scalar::Coalesce(choices) => Need::union(choices.iter().map(|choice| present(choice, weights))),
        Scalar::Call(called) => present(&called.0, weights),
        Scalar::NullIf(inner, _) => present(inner, weights),
        Scalar::Column(column) => Need::one(Witness::Present(*column)),
        Scalar::Fold(inner)
        | Scalar::Length(inner)
        | Scalar::Lower(inner)
        | Scalar::Negate(inner)
        | Scalar::ToReal(inner)
        | Scalar::Upper(inner) => present(inner, weights),
        Scalar::Null => Need::never(),
        Scalar::Boolean(_)
        | Scalar::Case(..)
        | Scalar::Concat(_)
        | Scalar::Integer(_)
        | Scalar::JoinAll(..)
        | Scalar::Real(_)
        | Scalar::Text(_)
        | Scalar::Timestamp(_)
        | Scalar::Truth { .. } => Need::Open,
    }
}

#[cfg(test)]
pub(super) mod testing {
    use std::path::Path;

    use daemoneye_lib::columns::PROCESS_EVENTS;
    use serde_json::json;

    use crate::detect::matcher::Test;
    use crate::detect::rules;

    pub(in crate::detect::prefilter) fn place(name: &str) -> usize {
        PROCESS_EVENTS.iter().position(|column| column.name == name).unwrap()
    }

    pub(in crate::detect::prefilter) fn condition(condition: &str) -> Test {
        let sql = format!("SELECT pid FROM process_events WHERE {condition}");
        let yaml = json!({"id": "00000000-0000-4000-8000-000000000001", "name": "n", "severity": "info", "sql": sql});
        let rule = rules::parse(Path::new("rule.yaml"), &yaml.to_string()).unwrap();
        std::sync::Arc::into_inner(rule.compiled).unwrap().condition
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::testing::{condition, place};
    use super::*;
    use crate::detect::matcher::Test;

    /// The witnesses that find the rows.
    fn firsts(clues: Clues) -> Need {
        match clues {
            Clues::Any(clues) => Need::Any(clues.into_iter().map(|clue| clue.witness).collect()),
            Clues::Open => Need::Open,
        }
    }

    fn need(text: &str) -> Need {
        firsts(when_true(&condition(text), &Weights::default()))
    }

    fn needle(column: &str, text: &str) -> Need {
        Need::one(Witness::Needle(place(column), text.into()))
    }

    #[test]
    fn an_and_takes_its_rarest_part_and_an_or_all() {
        let all = "event_type = 'start' AND ci_ends(executable_path, '\\cmd.exe') AND command_line LIKE '%sekurlsa%'";
        assert_eq!(need(all), needle("command_line", "sekurlsa"));
        assert_eq!(need("name LIKE '%abcde%' AND NOT ci_contains(command_line, 'x')"), needle("name", "abcde"));
        let Need::Any(both) = need("ci_contains(name, 'Abcde', 'fghij')") else { panic!() };
        assert_eq!(both.len(), 2);
        assert_eq!(need("name LIKE '%abcde%' OR pid + 1 > uid OR TRUE"), Need::Open);
        assert_eq!(need("name IS NULL"), Need::Open);
        assert_eq!(need("concat(name, cwd) = 'abc'"), Need::Open);
        assert_eq!(need("FALSE"), Need::never());
    }

    #[test]
    fn suffixes_of_paths_are_base_names_and_short_runs_only_tell_that_the_column_is_there() {
        let base = |name: &str| Need::one(Witness::Base(place("executable_path"), name.into()));
        assert_eq!(need("ci_ends(executable_path, '/Unheard')"), base("/unheard"));
        assert_eq!(need("executable_path LIKE '%\\\\Unheard'"), base("\\unheard"));
        assert_eq!(need("ci_contains(name, 'a')"), Need::one(Witness::Present(place("name"))));
        assert_eq!(need("cidr(name, '10.0.0.0/8')"), Need::one(Witness::Present(place("name"))));
    }

    #[test]
    fn an_expression_tells_its_rarest_run() {
        assert_eq!(need("re_match(name, '(?i)foo[0-9]+Unheard\\b\\.exe')"), needle("name", "unheard.exe"));
        let Need::Any(both) = need("re_match(name, 'x*(?:abcde|fghij)')") else { panic!() };
        assert_eq!(both.len(), 2);
        assert_eq!(need("re_match(name, '[0-9]+|abcde')"), Need::one(Witness::Present(place("name"))));
    }

    #[test]
    fn an_empty_list_of_values_never_matches() {
        let leaf = |wanted| {
            let subject = Scalar::Column(place("name"));
            Test::Leaf(Leaf::OneOf { subject, texts: HashSet::new(), with_null: false }, wanted)
        };
        assert_eq!(firsts(when_true(&leaf(true), &Weights::default())), Need::never());
        assert_eq!(firsts(when_true(&leaf(false), &Weights::default())), Need::one(Witness::Present(place("name"))));
        assert_eq!(firsts(when_true(&Test::Not(Box::new(leaf(true))), &Weights::default())), Need::Open);
    }
}
