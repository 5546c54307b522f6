//! Where a buffer that many rows point into may hold what a pattern looks for.
//!
//! One walk over a whole dictionary costs a tenth of asking for each of its values. Values that the walk did not meet are out; for
//! the others the pattern itself decides.

use memchr::memmem::Finder;
use regex_syntax::hir::literal::Extractor;

/// Bytes of a fixed text below which it stands nearly everywhere.
const MIN_BYTES: usize = 3;
/// Bytes of a LIKE pattern behind the fixed text that are compared on the walk; the pattern itself knows the rest.
const MAX_BEHIND: usize = 32;
/// Bytes of a buffer that are worth a walk for each row that points into it.
const BYTES_A_ROW: usize = 256;
/// Places of the fixed text, one in so many bytes, above which the walk is given up.
const BYTES_A_PLACE: usize = 24;
/// Largest buffer that is walked: the places of its bytes take an eighth of it.
const MAX_BYTES: usize = 16 * 1024 * 1024;
/// Bits of a word of places.
const WORD: usize = 64;

/// A text that stands in everything that a pattern matches.
#[derive(Debug)]
pub(super) struct Piece {
    text: Finder<'static>,
    /// What follows it: these bytes, and any one character of a single byte.
    behind: Box<[Option<u8>]>,
}

impl Piece {
    /// The longest of a LIKE pattern in which nothing is escaped.
    pub(super) fn of_like(pattern: &str) -> Option<Self> {
        let fixed = pattern.split(['%', '_']).max_by_key(|text| text.len())?;
        let rest = pattern.get(pattern.find(fixed)?.checked_add(fixed.len())?..)?;
        let run = rest.split('%').next().unwrap_or_default().bytes();
        let behind = run.take(MAX_BEHIND).map(|byte| (byte != b'_').then_some(byte));
        Self::new(fixed.as_bytes(), behind.collect())
    }

    /// With what each match of a regular expression begins.
    pub(super) fn of_expression(pattern: &str) -> Option<Self> {
        let begins = Extractor::new().extract(&regex_syntax::parse(pattern).ok()?);
        Self::new(begins.longest_common_prefix()?, Box::default())
    }

    fn new(text: &[u8], behind: Box<[Option<u8>]>) -> Option<Self> {
        (text.len() >= MIN_BYTES).then(|| Self { text: Finder::new(text).into_owned(), behind })
    }

    /// Whether what follows does not contradict the pattern.
    fn goes_on(&self, rest: &[u8]) -> bool {
        for (wanted, found) in self.behind.iter().zip(rest) {
            match wanted {
                Some(wanted) if wanted != found => return false,
                // A character of several bytes: what follows it is elsewhere.
                None if !found.is_ascii() => return true,
                _ => {}
            }
        }
        true
    }
}

/// The places of one buffer at which a piece stands.
#[derive(Debug)]
pub(super) struct Sieve {
    /// One bit for each byte.
    places: Vec<u64>,
    /// Bytes of the piece.
    bytes: usize,
}

impl Sieve {
    /// `None` when the walk does not pay for so many rows, or finds the piece nearly everywhere.
    pub(super) fn over(buffer: &[u8], piece: &Piece, rows: usize) -> Option<Self> {
        if buffer.len() > MAX_BYTES || buffer.len() > rows.saturating_mul(BYTES_A_ROW) {
            return None;
        }
        let bytes = piece.text.needle().len();
        let mut places = vec![0_u64; buffer.len().div_ceil(WORD)];
        let mut left = buffer.len().div_ceil(BYTES_A_PLACE);
        for at in piece.text.find_iter(buffer) {
            left = left.checked_sub(1)?;
            let behind = buffer.get(at.saturating_add(bytes)..).unwrap_or_default();
            if piece.goes_on(behind) {
                *places.get_mut(at / WORD)? |= 1 << (at % WORD);
            }
        }
        Some(Self { places, bytes })
    }

    /// Whether the piece stands in this part of the buffer.
    #[inline]
    pub(super) fn passes(&self, offset: u32, length: u32) -> bool {
        let (from, length) = (offset as usize, length as usize);
        let Some(room) = length.checked_sub(self.bytes) else { return false };
        let to = from.saturating_add(room);
        let (first, last) = (from / WORD, to / WORD);
        let word = |index: usize| self.places.get(index).copied().unwrap_or(u64::MAX);
        let (begin, end) = (u64::MAX << (from % WORD), u64::MAX >> (WORD - 1 - to % WORD));
        if first == last {
            return word(first) & begin & end != 0;
        }
        word(first) & begin != 0 || word(last) & end != 0 || (first + 1..last).any(|index| word(index) != 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use regex::Regex;

    /// The texts one behind the other, as a page of a dictionary has them, and the place of each.
    fn page(texts: &[String]) -> (Vec<u8>, Vec<(u32, u32)>) {
        let (mut buffer, mut places) = (Vec::new(), Vec::new());
        for text in texts {
            let length = u32::try_from(text.len()).unwrap();
            buffer.extend(length.to_le_bytes());
            places.push((u32::try_from(buffer.len()).unwrap(), length));
            buffer.extend(text.as_bytes());
        }
        (buffer, places)
    }

    #[test]
    fn no_text_that_the_pattern_matches_is_sieved_out_and_most_others_are() {
        let mut texts: Vec<String> = (0..3_000).map(|number| format!("gcc -c src/unit_{number}.c -o x.o")).collect();
        let odd =
            ["", "unit", "unit_", "unit\u{e9}42", "xunit_42", "unit_42", "unitx42unit_4", "uni", "t_42", "un\nit_42"];
        texts.extend(odd.map(str::to_owned));
        texts.extend((0..200).map(|count| format!("{}unit_42", "y".repeat(count))));
        let (buffer, places) = page(&texts);
        let pieces = [
            (Piece::of_like("%unit_42%"), "(?s)unit.42"),
            (Piece::of_like("%src%it_42%"), "(?s)src.*it.42"),
            (Piece::of_expression(r"unit_[0-9]+7\.c"), r"unit_[0-9]+7\.c"),
            (Piece::of_expression(r"^gcc.*unit_1[0-9]2"), r"^gcc.*unit_1[0-9]2"),
        ];
        for (piece, pattern) in pieces {
            let (sieve, regex) =
                (Sieve::over(&buffer, &piece.unwrap(), texts.len()).unwrap(), Regex::new(pattern).unwrap());
            for (text, (offset, length)) in texts.iter().zip(&places) {
                assert!(sieve.passes(*offset, *length) || !regex.is_match(text), "{pattern} in {text:?}");
            }
        }
        let sieve = Sieve::over(&buffer, &Piece::of_like("%unit_42%").unwrap(), texts.len()).unwrap();
        let passed = places.iter().filter(|(offset, length)| sieve.passes(*offset, *length)).count();
        assert_eq!(passed, 11 + 4 + 200, "those with it, and one whose wildcard is longer than a byte");
    }

    #[test]
    fn what_is_not_worth_a_walk_is_not_walked() {
        assert!(Piece::of_like("%a_b%").is_none() && Piece::of_expression("(?i)unit").is_none());
        assert!(Piece::of_expression("unit|gcc").is_none() && Piece::of_expression("(").is_none());
        let piece = Piece::of_like("%unit_4%").unwrap();
        let (buffer, _) = page(&vec!["unit_5 unit_5 unit_5 unit_5".to_owned(); 1_000]);
        assert!(Sieve::over(&buffer, &piece, 1_000).is_none(), "it stands everywhere");
        assert!(Sieve::over(&vec![0; 100_000], &piece, 100).is_none(), "a few rows of a large page");
    }
}
