//! Runs of letters, all looked for in one pass over a text.
//!
//! Of each needle one window of eight, four or two bytes is looked for, and where that stands the rest is compared. Each place
//! of a text is hashed by itself and looked up in a few kilobytes of bits, where nearly all places end. An automaton takes
//! one step after the other, each with the state of the one before: with it an event took nearly twice as long against a hundred rules.
//!
//! What is found of ten thousand rules lies far from the processor, so it is little: what is known of a window has the bytes
//! around it and the witness too, and the whole needle is read only where it is longer.

use std::cmp::Reverse;
use std::collections::HashMap;

use foldhash::fast::RandomState;
use memchr::memmem::Finder;

use super::bits::{AT_ONCE, Bits, EIGHT, FOUR, Place, beginning, hash};
use super::column::WitnessAt;
use super::frequency::times;

/// Widths of windows: a needle has the widest one that is not longer than it.
pub(super) const WIDTHS: [usize; 3] = [EIGHT, FOUR, TWO];
const TWO: usize = 2;
/// Most beginnings of lists of windows.
const MOST_STARTS: usize = 512 * 1024;
/// So many needles of less than four bytes are looked for one by one, each faster than all places are hashed once more.
const FEW_SHORT: usize = 4;
/// Bytes around a window that are known with it.
const AROUND: usize = 8;
/// Bits of one word.
const WORD: u32 = u64::BITS;
type Counts = HashMap<u64, u32, RandomState>;

/// Built once per column.
#[derive(Debug)]
pub(super) struct Needles {
    /// All needles behind each other.
    texts: Box<[u8]>,
    /// By needle, where it stands among all.
    spans: Box<[Span]>,
    bits: Bits,
    by_width: [Windows; WIDTHS.len()],
    /// Those that are looked for one by one.
    short: Box<[(Finder<'static>, WitnessAt)]>,
}

#[derive(Debug, Clone, Copy)]
struct Span {
    from: u32,
    length: u16,
    /// How much of it stands before its window.
    before: u16,
}

/// The windows of one width.
#[derive(Debug, Default)]
struct Windows {
    /// By as many upper bits as there are windows: where those with them begin, and one more.
    starts: Box<[u32]>,
    starts_shift: u32,
    anchors: Box<[Anchor]>,
}

/// The window by which one needle is found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Anchor {
    /// Of the window, all of it: no other window has it.
    hash: u64,
    witness: WitnessAt,
    around: Around,
    needle: u32,
}

/// What of a needle stands next to its window: behind it at the beginning of `bytes`, before it at the end, zeros between.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Around {
    bytes: [u8; AROUND],
    after: u8,
    before: u8,
    /// Whether that and the window are the needle.
    is_all: bool,
}

impl Needles {
    /// Of needles with what they are handed over as. `None`: one is too short, or all together are longer than can be counted.
    pub(super) fn new(needles: &[(Box<str>, WitnessAt)]) -> Option<Self> {
        let texts: Box<[u8]> = needles.iter().flat_map(|(needle, _)| needle.bytes()).collect();
        let (mut from, mut anchors): (u32, [Vec<Anchor>; WIDTHS.len()]) = (0, Default::default());
        let (mut counts, mut beginnings): ([Counts; WIDTHS.len()], Counts) = Default::default();
        let mut windows: [Vec<u64>; WIDTHS.len()] = Default::default();
        for (needle, _) in needles {
            let (at, width) = width_of(needle)?;
            for window in needle.as_bytes().windows(width).map(number) {
                *counts.get_mut(at)?.entry(window).or_insert(0) += 1;
                *beginnings.entry(beginning(window).into()).or_insert(0) += 1;
            }
        }
        let is_short = |needle: &str| needle.len() < FOUR;
        let one_by_one = needles.iter().filter(|(needle, _)| is_short(needle)).count() <= FEW_SHORT;
        let (mut spans, mut short) = (Vec::with_capacity(needles.len()), Vec::new());
        for (at_needle, (needle, witness)) in (0..).zip(needles) {
            let (at, width) = width_of(needle)?;
            let length = u16::try_from(needle.len()).ok()?;
            let (before, window) = rarest(needle.as_bytes(), width, counts.get(at)?, &beginnings)?;
            if one_by_one && is_short(needle) {
                short.push((Finder::new(needle.as_bytes()).into_owned(), *witness));
            } else {
                let (hash, around) = (hash(window), Around::of(needle.as_bytes(), before.into(), width)?);
                let anchor = Anchor { hash, witness: *witness, around, needle: at_needle };
                anchors.get_mut(at)?.push(anchor);
                windows.get_mut(at)?.push(window);
            }
            spans.push(Span { from, length, before });
            from = from.checked_add(length.into())?;
        }
        let [eight, four, _] = &windows;
        let bits = Bits::of(eight, four);
        Some(Self { texts, spans: spans.into(), bits, by_width: anchors.map(Windows::of), short: short.into() })
    }

    /// Size in bytes.
    pub(super) fn bytes(&self) -> usize {
        let spans = size_of_val(&*self.spans).saturating_add(self.bits.bytes());
        self.by_width.iter().map(Windows::bytes).fold(self.texts.len().saturating_add(spans), usize::saturating_add)
    }

    /// Hands over each needle in the text, at least once. `from` is the text and what lies behind it, so that the last places need no
    /// walk of their own.
    pub(super) fn each(&self, text: &[u8], from: &[u8], mut take: impl FnMut(WitnessAt)) {
        let padded;
        let from = match from.get(..text.len().saturating_add(EIGHT - 1)) {
            Some(from) => from,
            None => {
                padded = [text, &[0; EIGHT - 1]].concat();
                &padded
            }
        };
        let [eight, four, two] = &self.by_width;
        self.walk(text, from, eight, four, &mut take);
        if !two.anchors.is_empty() {
            for at in 0..text.len() {
                two.look::<TWO>(text, at, |anchor| self.take::<TWO>(anchor, text, at, &mut take));
            }
        }
        for (finder, witness) in &self.short {
            if finder.find(text).is_some() {
                take(*witness);
            }
        }
    }

    fn walk(&self, text: &[u8], from: &[u8], eight: &Windows, four: &Windows, take: &mut impl FnMut(WitnessAt)) {
        let mut passed = [Place::default(); AT_ONCE];
        for first in (0..text.len()).step_by(AT_ONCE) {
            let some = first..from.len().min(first.saturating_add(AT_ONCE + EIGHT - 1));
            for place in self.bits.pass(from.get(some).unwrap_or_default(), &mut passed) {
                let at = first.saturating_add(place.at());
                if place.eight() {
                    eight.look::<EIGHT>(text, at, |anchor| self.take::<EIGHT>(anchor, text, at, take));
                }
                if place.four() {
                    four.look::<FOUR>(text, at, |anchor| self.take::<FOUR>(anchor, text, at, take));
                }
            }
        }
    }

    /// Hands the needle over if it stands around its window, which is at `at`.
    #[inline]
    fn take<const WIDTH: usize>(&self, anchor: &Anchor, text: &[u8], at: usize, take: &mut impl FnMut(WitnessAt)) {
        let stands = match anchor.around.stands::<WIDTH>(text, at) {
            Some(false) => false,
            Some(true) if anchor.around.is_all => true,
            _ => self.stands(anchor, text, at),
        };
        if stands {
            take(anchor.witness);
        }
    }

    /// Whether all of it is there.
    #[inline(never)]
    fn stands(&self, anchor: &Anchor, text: &[u8], at: usize) -> bool {
        let Some(span) = self.spans.get(place(anchor.needle.into())) else { return false };
        let Some(from) = at.checked_sub(span.before.into()) else { return false };
        let start = place(span.from.into());
        let needle = self.texts.get(start..start.saturating_add(span.length.into()));
        needle.zip(text.get(from..)).is_some_and(|(needle, text)| text.starts_with(needle))
    }
}

impl Around {
    /// Of the window behind the first `before` bytes of a needle.
    fn of(needle: &[u8], before: usize, width: usize) -> Option<Self> {
        let (before, behind) = (needle.get(..before)?, needle.get(before.checked_add(width)?..)?);
        let after = behind.get(..AROUND).unwrap_or(behind);
        let room = AROUND.checked_sub(after.len())?;
        let near = before.get(before.len().saturating_sub(room)..)?;
        let is_all = near.len() == before.len() && after.len() == behind.len();
        let bytes = number(after) | number(near).checked_shl(bits_of(AROUND.checked_sub(near.len())?)).unwrap_or(0);
        let bytes = bytes.to_le_bytes();
        Some(Self { bytes, after: u8::try_from(after.len()).ok()?, before: u8::try_from(near.len()).ok()?, is_all })
    }

    /// Whether it stands around the window at `at`; `None` near the ends of the text, where fewer bytes are.
    #[inline]
    fn stands<const WIDTH: usize>(self, text: &[u8], at: usize) -> Option<bool> {
        let before = text.get(at.checked_sub(AROUND)?..)?.first_chunk::<AROUND>()?;
        let after = text.get(at.saturating_add(WIDTH)..)?.first_chunk::<AROUND>()?;
        let low = u64::MAX.checked_shr(WORD.saturating_sub(bits_of(self.after.into()))).unwrap_or(0);
        let high = u64::MAX.checked_shl(WORD.saturating_sub(bits_of(self.before.into()))).unwrap_or(0);
        Some(
            (u64::from_le_bytes(*after) & low) | (u64::from_le_bytes(*before) & high)
                == u64::from_le_bytes(self.bytes),
        )
    }
}

impl Windows {
    fn of(mut anchors: Vec<Anchor>) -> Self {
        if anchors.is_empty() {
            return Self::default();
        }
        let buckets = anchors.len().next_power_of_two().clamp(2, MOST_STARTS);
        let starts_shift = WORD - buckets.ilog2();
        anchors.sort_unstable();
        let starts = (0..=buckets).map(|bucket| {
            let before = |anchor: &Anchor| place(anchor.hash >> starts_shift) < bucket;
            u32::try_from(anchors.partition_point(before)).unwrap_or(u32::MAX)
        });
        let starts = starts.collect();
        Self { starts, starts_shift, anchors: anchors.into() }
    }

    fn bytes(&self) -> usize {
        size_of_val(&*self.starts).saturating_add(size_of_val(&*self.anchors))
    }

    /// Hands over the anchors whose window stands there.
    #[inline]
    fn look<const WIDTH: usize>(&self, text: &[u8], at: usize, found: impl FnMut(&Anchor)) {
        let Some(window) = text.get(at..).and_then(<[u8]>::first_chunk::<WIDTH>) else { return };
        let hash = hash(number(window));
        let anchors = self.anchors_of(hash).iter();
        anchors.filter(|anchor| anchor.hash == hash).for_each(found);
    }

    fn anchors_of(&self, hash: u64) -> &[Anchor] {
        let bucket = place(hash >> self.starts_shift);
        let Some([from, to]) = self.starts.get(bucket..bucket.saturating_add(2)) else { return &[] };
        self.anchors.get(place((*from).into())..place((*to).into())).unwrap_or_default()
    }
}

/// Bits of at most eight bytes.
fn bits_of(bytes: usize) -> u32 {
    u32::try_from(bytes).unwrap_or(u32::MAX).saturating_mul(u8::BITS)
}

fn place(place: u64) -> usize {
    usize::try_from(place).unwrap_or(usize::MAX)
}

/// At most eight bytes as a number.
pub(super) fn number(window: &[u8]) -> u64 {
    let mut bytes = [0; 8];
    bytes.iter_mut().zip(window).for_each(|(to, from)| *to = *from);
    u64::from_le_bytes(bytes)
}

fn width_of(needle: &str) -> Option<(usize, usize)> {
    WIDTHS.into_iter().enumerate().find(|(_, width)| *width <= needle.len())
}

/// Where the window stands that the fewest texts have, as far as one can guess, and which it is. Of several the one that begins as most do:
/// the fewer beginnings there are, the fewer places of a text have one.
fn rarest(needle: &[u8], width: usize, counts: &Counts, beginnings: &Counts) -> Option<(u16, u64)> {
    let windows = needle.windows(width).map(number).zip(0..=u16::MAX);
    let of = |counts: &Counts, what: u64| counts.get(&what).copied().unwrap_or(0);
    let cost = |window: &u64| {
        let begins = of(beginnings, beginning(*window).into());
        (times(width, *window), of(counts, *window).checked_ilog2(), Reverse(begins))
    };
    windows.min_by_key(|(window, _)| cost(window)).map(|(window, before)| (before, window))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn built(needles: &[Box<str>]) -> Option<Needles> {
        Needles::new(&needles.iter().cloned().zip(0..).collect::<Vec<_>>())
    }

    fn found(needles: &[Box<str>], text: &str) -> Vec<u32> {
        let mut found = Vec::new();
        built(needles).unwrap().each(text.as_bytes(), text.as_bytes(), |needle| found.push(needle));
        found.sort_unstable();
        found.dedup();
        found
    }

    #[test]
    fn needles_of_every_length_are_found_at_every_place_and_among_each_other() {
        for length in 2..20 {
            let needle: Box<str> = "abcdefghijklmnopqrst"[..length].into();
            let all = [needle.clone(), "zz".into(), format!("{needle}!").into()];
            for text in [format!("{needle}"), format!("x{needle}"), format!("x{needle}y"), format!("xyz{needle}")] {
                assert_eq!(found(&all, &text), [0], "{text}");
            }
            assert_eq!(found(&all, &format!("zz{needle}!")), [0, 1, 2]);
            assert!(found(&all, &needle[..length - 1]).is_empty());
        }
        assert!(found(&["ab".into()], "").is_empty() && found(&[], "abc").is_empty());
        assert!(built(&["a".into()]).is_none());
    }

    #[test]
    fn they_are_found_at_every_place_of_a_long_text_and_not_in_what_lies_behind_it() {
        let needles: [Box<str>; 3] = ["needle-of-some-length".into(), "ofeight!".into(), "four".into()];
        let built = built(&needles).unwrap();
        for (at, needle) in (0..).zip(&needles) {
            for before in 0..2 * AT_ONCE + 9 {
                let text = format!("{}{needle}", ".".repeat(before));
                assert_eq!(found(&needles, &text), [at], "{before}");
                built.each(&text.as_bytes()[..text.len() - 1], text.as_bytes(), |needle| panic!("{needle} {before}"));
            }
        }
    }

    /// What is found is taken for proven, so not even windows whose hashes have the same upper half are taken for each other.
    #[test]
    fn a_window_that_hashes_nearly_like_another_is_not_it() {
        for (needle, other) in [("sekurlsa", "l_)4&2|f"), ("mimikatz", "qi/^@y<+"), ("certutil", ";{7x#7z@")] {
            let upper = |text: &str| hash(number(text.as_bytes())) >> 32;
            assert!(upper(needle) == upper(other) && needle != other);
            assert!(found(&[needle.into()], &format!("xxxxxxxx{other}xxxxxxxx")).is_empty(), "{needle}");
            assert_eq!(found(&[needle.into()], &format!("xxxxxxxx{needle}xxxxxxxx")), [0]);
        }
    }

    #[test]
    fn each_of_however_many_is_found() {
        for count in [100_u32, 3_000, 20_000] {
            let needle = |at: u32| format!("{at:0width$x}", width = if at.is_multiple_of(10) { 5 } else { 9 });
            let needles: Vec<Box<str>> = (0..count).map(|at| needle(at).into()).collect();
            let built = built(&needles).unwrap();
            for at in (0..count).step_by(7) {
                let (text, mut found) = (format!("x{}y", needle(at)), Vec::new());
                built.each(text.as_bytes(), text.as_bytes(), |needle| found.push(needle));
                assert!(found.contains(&at), "{at} of {count}");
            }
        }
    }

    proptest! {
        #[test]
        fn found_is_what_a_text_contains(
            needles in prop::collection::vec("[ab/é]{2,12}|[a/]{12,30}", 0..40),
            text in "[ab/é\0]{0,60}|[a/]{0,90}",
        ) {
            let needles: Vec<Box<str>> = needles.into_iter().map(Into::into).collect();
            let expected: Vec<u32> = (0..).zip(&needles).filter(|(_, one)| text.contains(&***one)).map(|(at, _)| at).collect();
            prop_assert_eq!(found(&needles, &text), expected);
        }
    }
}
