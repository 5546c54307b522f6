//! Witnesses from the values that a text is asked for.
//!
//! A text that equals, holds or ends with a value does so after folding, so every value is folded and looked for in folded
//! text, whatever the question's own folding is. `lower(column)` counts as the column: small letters of a text stand where
//! its letters stood, but for `İ`, which becomes an `i` and a dot, so a run through it ends at an `i`. Other functions and
//! concatenations only tell that their columns are there.

use memchr::memrchr2;
use regex_syntax::hir::{Class, Hir, HirKind};

use super::need::{Need, Witness, present};
use super::weights::Weights;
use crate::detect::matcher::{Leaf, Scalar, Test};
use crate::text::{Expression, Fits, Like, Way, folded_simple};

/// Needles are at least this long in bytes: one letter is in every text.
const MIN_NEEDLE: usize = 2;

/// Most characters of a class that fold to one: `k`, `K` and the Kelvin sign.
const MAX_FOLDED: usize = 3;

/// A column, or its small letters.
#[derive(Debug, Clone, Copy)]
struct Place<'w> {
    column: usize,
    lowered: bool,
    weights: &'w Weights,
}

/// The last separator of a path, of either kind, and what stands behind it.
#[inline]
pub(super) fn with_separator(path: &str) -> Option<&str> {
    path.get(memrchr2(b'/', b'\\', path.as_bytes())?..)
}

/// What a row must have where the subject fits, all of it.
pub(super) fn of_fits(subject: &Scalar, fits: &Fits, weights: &Weights) -> Vec<Need> {
    match subject {
        Scalar::Coalesce(choices) => {
            let cheapest = |choice| Need::cheapest(of_fits(choice, fits, weights), weights);
            vec![Need::union(choices.iter().map(cheapest))]
        }
        Scalar::Text(text) if fits.fits((&**text).into()) => vec![Need::Open],
        Scalar::Text(_) => vec![Need::never()],
        other => place(other, weights).map_or_else(|| vec![present(other, weights)], |place| place.fits(fits)),
    }
}

/// What a row must have where the subject is one of the texts.
pub(super) fn of_texts(subject: &Scalar, texts: &mut dyn Iterator<Item = &str>, weights: &Weights) -> Need {
    place(subject, weights)
        .map_or_else(|| present(subject, weights), |place| Need::union(texts.map(|text| place.exact(text))))
}

/// The column of a test, and witnesses of which one is there exactly where the test holds, as long as the column's texts are ASCII: so
/// far all ways to fold case are one.
pub(super) fn exactly(test: &Test) -> Option<(usize, Vec<Witness>)> {
    let Test::Leaf(Leaf::Fits(Scalar::Column(column), fits) | Leaf::Strict(Scalar::Column(column), fits), true) = test
    else {
        return None;
    };
    let ascii = |texts: &[Box<str>]| texts.iter().all(|text| text.is_ascii());
    let is_exact = fits.folds()
        && match fits.way() {
            Way::Contains(needles) => needles.values().all(|value| value.is_ascii() && value.len() >= MIN_NEEDLE),
            Way::Ends(values) => {
                let is_base = |value: &str| value.len() > 1 && with_separator(value) == Some(value);
                ascii(values) && values.iter().all(|value| is_base(value))
            }
            Way::Equal(values) => ascii(values),
            Way::OneOf(values) => values.iter().all(|value| value.is_ascii()),
            Way::Expression(_) | Way::Like(_) | Way::Network(_) | Way::Starts(_) => false,
        };
    let place = Place { column: *column, lowered: false, weights: &Weights::default() };
    match place.fits(fits).as_slice() {
        [Need::Any(witnesses)] if is_exact => Some((*column, witnesses.clone())),
        _ => None,
    }
}

fn place<'w>(subject: &Scalar, weights: &'w Weights) -> Option<Place<'w>> {
    match subject {
        Scalar::Column(column) => Some(Place { column: *column, lowered: false, weights }),
        // Folding simply folds all that this folds.
        Scalar::Fold(inner) => place(inner, weights),
        Scalar::Lower(inner) => place(inner, weights).map(|place| Place { lowered: true, ..place }),
        _ => None,
    }
}

impl Place<'_> {
    fn fits(self, fits: &Fits) -> Vec<Need> {
        let union = match fits.way() {
            Way::Contains(needles) => Need::union(needles.values().map(|value| self.bytes(value))),
            Way::Ends(values) => Need::union(values.iter().map(|value| self.suffix(value))),
            Way::Equal(values) => Need::union(values.iter().map(|value| self.exact(value))),
            Way::Expression(expression) => return self.expression(expression),
            Way::Like(likes) => match &**likes {
                [only] => return self.like(only),
                several => Need::union(several.iter().map(|like| Need::cheapest(self.like(like), self.weights))),
            },
            Way::Network(_) => self.present(),
            Way::OneOf(values) => Need::union(values.iter().map(|value| self.exact(value))),
            Way::Starts(values) => Need::union(values.iter().map(|value| self.needle(value))),
        };
        vec![union]
    }

    fn present(self) -> Need {
        Need::one(Witness::Present(self.column))
    }

    /// Lowered text has a letter that is not where it was only beyond ASCII.
    fn exact(self, text: &str) -> Need {
        if self.lowered && !text.is_ascii() {
            return self.needle(text);
        }
        Need::one(Witness::Exact(self.column, folded_simple(text).into()))
    }

    fn needle(self, text: &str) -> Need {
        let text = folded_simple(text);
        let run = if self.lowered { longest_run(&text) } else { &text };
        if run.len() < MIN_NEEDLE { self.present() } else { Need::one(Witness::Needle(self.column, run.into())) }
    }

    fn bytes(self, needle: &[u8]) -> Need {
        std::str::from_utf8(needle).map_or_else(|_| self.present(), |needle| self.needle(needle))
    }

    /// A suffix with a separator fixes all that is behind the last one.
    fn suffix(self, text: &str) -> Need {
        let Some(base) = with_separator(text).filter(|base| base.len() > 1 && (!self.lowered || base.is_ascii()))
        else {
            return self.needle(text);
        };
        let is_all = base.len() == text.len();
        let base = Need::one(Witness::Base(self.column, folded_simple(base).into()));
        // Where the base name is all of it, the run is on every row that the name is on.
        if is_all { base } else { Need::cheapest([base, self.needle(text)], self.weights) }
    }

    fn like(self, like: &Like) -> Vec<Need> {
        match like {
            Like::Equal(text) => vec![self.exact(text)],
            Like::Expression(expression) => self.expression(expression),
            Like::Runs { start, between, end } => {
                let between = between.iter().map(|run| self.bytes(run.text()));
                [self.suffix(end), self.needle(start)].into_iter().chain(between).collect()
            }
        }
    }

    /// Flags are written into the expression, so parsing it again tells all of it.
    fn expression(self, expression: &Expression) -> Vec<Need> {
        let mut needs =
            regex_syntax::parse(expression.as_str()).map_or_else(|_| Vec::new(), |hir| Runs::of(self, &hir));
        needs.push(self.present());
        needs
    }
}

/// The longest part that lowered text keeps together.
fn longest_run(text: &str) -> &str {
    text.split(|letter: char| letter == 'i' || !letter.is_ascii()).max_by_key(|run| run.len()).unwrap_or_default()
}

/// Literal runs of an expression, of which every match has all.
struct Runs<'w> {
    place: Place<'w>,
    needs: Vec<Need>,
    run: String,
}

impl<'w> Runs<'w> {
    fn of(place: Place<'w>, hir: &Hir) -> Vec<Need> {
        let mut runs = Self { place, needs: Vec::new(), run: String::new() };
        runs.walk(hir);
        runs.broken();
        runs.needs
    }

    fn walk(&mut self, hir: &Hir) {
        match hir.kind() {
            HirKind::Alternation(branches) => {
                let of = |branch| Need::cheapest(Self::of(self.place, branch), self.place.weights);
                let branches = branches.iter().map(of);
                let need = Need::union(branches);
                self.broken();
                self.needs.push(need);
            }
            HirKind::Capture(capture) => self.walk(&capture.sub),
            HirKind::Class(class) => match folds_to_one(class) {
                Some(letter) => self.run.push(letter),
                None => self.broken(),
            },
            HirKind::Concat(parts) => parts.iter().for_each(|part| self.walk(part)),
            // Nothing wide, so what is on both sides stays together.
            HirKind::Empty | HirKind::Look(_) => {}
            HirKind::Literal(literal) => match std::str::from_utf8(&literal.0) {
                Ok(text) => self.run.push_str(text),
                Err(_) => self.broken(),
            },
            HirKind::Repetition(repetition) => {
                self.broken();
                if repetition.min > 0 {
                    self.walk(&repetition.sub);
                    self.broken();
                }
            }
        }
    }

    fn broken(&mut self) {
        if !self.run.is_empty() {
            self.needs.push(self.place.needle(&self.run));
            self.run.clear();
        }
    }
}

/// A class whose characters are one after folding.
fn folds_to_one(class: &Class) -> Option<char> {
    let letters: Vec<char> = match class {
        Class::Bytes(bytes) => {
            let ranges = bytes.iter().flat_map(|range| range.start()..=range.end());
            ranges.take(MAX_FOLDED.saturating_add(1)).map(char::from).collect()
        }
        Class::Unicode(letters) => {
            let ranges = letters.iter().flat_map(|range| range.start()..=range.end());
            ranges.take(MAX_FOLDED.saturating_add(1)).collect()
        }
    };
    if letters.len() > MAX_FOLDED {
        return None;
    }
    let folded = |letter: &char| folded_simple(letter.encode_utf8(&mut [0; 4])).chars().next();
    let first = folded(letters.first()?)?;
    letters.iter().all(|letter| folded(letter) == Some(first)).then_some(first)
}
