//! A condition on its way to SQL: folded where the answer is known, and written flat, since the guard bounds parentheses.
//!
//! Every leaf is TRUE or FALSE, never NULL, and a negation is written `IS NOT TRUE`, so the whole has Sigma's two truth values.

use serde_saphyr::Location;

/// A condition over one event.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Expr {
    All(Vec<Expr>),
    Any(Vec<Expr>),
    Constant(bool),
    /// SQL that is never NULL and binds tighter than AND.
    Leaf(String),
    Not(Box<Expr>),
    /// A test of a field that no column holds, and its outcome for an event that does not have the field.
    Unmapped(String, Location, bool),
}

/// Characters of one line of SQL before it is broken.
const LINE: usize = 100;

impl Expr {
    pub(super) fn not(self) -> Self {
        match self {
            Self::Constant(value) => Self::Constant(!value),
            other => Self::Not(Box::new(other)),
        }
    }

    /// How many parts it has.
    pub(super) fn size(&self) -> usize {
        match self {
            Self::All(parts) | Self::Any(parts) => parts.iter().map(Self::size).sum::<usize>().saturating_add(1),
            Self::Not(inner) => inner.size().saturating_add(1),
            Self::Constant(_) | Self::Leaf(_) | Self::Unmapped(..) => 1,
        }
    }

    /// The fields that are not mapped: `(field, holds, place)`, each way once; whether the test as a whole holds.
    pub(super) fn unmapped(&self, negated: bool, found: &mut Vec<(String, bool, Location)>) {
        match self {
            Self::All(parts) | Self::Any(parts) => parts.iter().for_each(|part| part.unmapped(negated, found)),
            Self::Not(inner) => inner.unmapped(!negated, found),
            Self::Unmapped(field, at, holds) => {
                let holds = *holds != negated;
                let is_known = |(known, way, _): &(String, bool, Location)| known == field && *way == holds;
                if !found.iter().any(is_known) {
                    found.push((field.clone(), holds, *at));
                }
            }
            Self::Constant(_) | Self::Leaf(_) => {}
        }
    }

    /// The same condition without what is known, and without lists in lists.
    pub(super) fn folded(self) -> Self {
        match self {
            Self::All(parts) => joined(parts, false),
            Self::Any(parts) => joined(parts, true),
            Self::Not(inner) => match inner.folded() {
                Self::Constant(value) => Self::Constant(!value),
                Self::Not(inner) => *inner,
                other => Self::Not(Box::new(other)),
            },
            Self::Unmapped(.., holds) => Self::Constant(holds),
            known => known,
        }
    }

    /// The SQL of a folded condition, indented by `depth` levels where it is broken into lines.
    pub(super) fn sql(&self, depth: usize) -> String {
        match self {
            Self::All(parts) => list(parts, "AND", depth),
            Self::Any(parts) => list(parts, "OR", depth),
            Self::Constant(value) => value.to_string().to_uppercase(),
            Self::Leaf(sql) => sql.clone(),
            Self::Not(inner) => format!("({}) IS NOT TRUE", inner.sql(depth.saturating_add(1))),
            Self::Unmapped(.., holds) => holds.to_string().to_uppercase(),
        }
    }
}

/// `absorbing` is the value that decides the whole by itself: TRUE for OR, FALSE for AND.
fn joined(parts: Vec<Expr>, absorbing: bool) -> Expr {
    let mut kept = Vec::with_capacity(parts.len());
    for part in parts {
        match (part.folded(), absorbing) {
            (Expr::Constant(value), _) if value == absorbing => return Expr::Constant(absorbing),
            (Expr::Constant(_), _) => {}
            (Expr::Any(inner), true) | (Expr::All(inner), false) => kept.extend(inner),
            (other, _) => kept.push(other),
        }
    }
    match (kept.pop(), kept.is_empty()) {
        (None, _) => Expr::Constant(!absorbing),
        (Some(only), true) => only,
        (Some(last), false) => {
            kept.push(last);
            if absorbing { Expr::Any(kept) } else { Expr::All(kept) }
        }
    }
}

fn list(parts: &[Expr], word: &str, depth: usize) -> String {
    let each: Vec<String> = parts
        .iter()
        .map(|part| match part {
            // AND binds tighter, so only an OR inside it needs parentheses.
            Expr::Any(_) if word == "AND" => format!("({})", part.sql(depth.saturating_add(1))),
            other => other.sql(depth.saturating_add(1)),
        })
        .collect();
    let length: usize = each.iter().map(String::len).sum();
    let separator =
        if length > LINE { format!("\n{}{word} ", "  ".repeat(depth.saturating_add(1))) } else { format!(" {word} ") };
    each.join(&separator)
}

/// A text literal.
pub(super) fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn leaf(sql: &str) -> Expr {
        Expr::Leaf(sql.to_owned())
    }

    #[test]
    fn it_is_written_flat_with_parentheses_only_where_they_change_something() {
        let either = Expr::Any(vec![leaf("a"), Expr::Any(vec![leaf("b"), leaf("c")])]);
        let whole = Expr::All(vec![either, Expr::All(vec![leaf("d"), leaf("e").not()])]).folded();
        assert_eq!(whole.sql(0), "(a OR b OR c) AND d AND (e) IS NOT TRUE");
        assert_eq!(leaf("a").not().not().folded().sql(0), "a");
    }

    #[test]
    fn what_is_known_is_folded() {
        let never = Expr::Unmapped("x".to_owned(), Location::UNKNOWN, false);
        assert_eq!(Expr::All(vec![leaf("a"), never.clone()]).folded(), Expr::Constant(false));
        assert_eq!(Expr::Any(vec![leaf("a"), never.clone()]).folded(), leaf("a"));
        assert_eq!(Expr::All(vec![leaf("a"), never.not()]).folded(), leaf("a"));
        assert_eq!(Expr::Any(vec![leaf("a"), Expr::Constant(true)]).folded(), Expr::Constant(true));
    }
}
