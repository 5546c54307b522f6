//! Runs of letters, all looked for in one pass over a text.
//!
//! Of each needle one window of eight, four or two bytes is looked for, and where that stands the rest is compared. Each place
//! of a text is hashed by itself and looked up in a few kilobytes of bits, where nearly all places end. An automaton takes
//! one step after the other, each with the state of the one before: with it an event took nearly twice as long against a hundred rules.
//!
//! What is found of ten thousand rules lies far from the processor, so it is little: what is known of a window has the bytes
//! around it and the witness too, and the whole needle is read only where it is longer.

use std::collections::HashMap;

use foldhash::fast::RandomState;
use memchr::memmem::Finder;

use super::column::WitnessAt;
use super::frequency::times;

/// Widths of windows: a needle has the widest one that is not longer than it.
pub(super) const WIDTHS: [usize; 3] = [EIGHT, FOUR, TWO];
const EIGHT: usize = 8;
const FOUR: usize = 4;
const TWO: usize = 2;
/// Spreads a window over 64 bits, whose upper ones are used: 2^64 divided by the golden ratio.
const SPREAD: u64 = 0x9e37_79b9_7f4a_7c15;
/// Bits for each window that is looked for, so that few others pass.
const BITS_EACH: usize = 16;
/// Most bits of one width: 64 KiB stay near the processor, and places of a text do not wait for each other.
const MOST_BITS: usize = 512 * 1024;
/// So many needles of less than four bytes are looked for one by one, each faster than all places are hashed once more.
const FEW_SHORT: usize = 4;
/// Bytes around a window that are known with it.
const AROUND: usize = 8;
/// Places of a text that are looked at before those that passed are looked at again.
const AT_ONCE: usize = 64;
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
    /// By hash: whether one of them has it.
    bits: Box<[u64]>,
    /// Leaves as many of a hash's upper bits as tell `bits` apart.
    shift: u32,
    /// By as many upper bits as there are windows: where those with them begin, and one more.
    starts: Box<[u32]>,
    starts_shift: u32,
    anchors: Box<[Anchor]>,
}

/// The window by which one needle is found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Anchor {
    /// Upper half of its hash.
    tag: u32,
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
        let (mut from, mut anchors): (u32, [Vec<(u64, Anchor)>; WIDTHS.len()]) = (0, Default::default());
        let mut counts: [Counts; WIDTHS.len()] = Default::default();
        for (needle, _) in needles {
            let (at, width) = width_of(needle)?;
            for window in needle.as_bytes().windows(width) {
                *counts.get_mut(at)?.entry(number(window)).or_insert(0) += 1;
            }
        }
        let is_short = |needle: &str| needle.len() < FOUR;
        let one_by_one = needles.iter().filter(|(needle, _)| is_short(needle)).count() <= FEW_SHORT;
        let (mut spans, mut short) = (Vec::with_capacity(needles.len()), Vec::new());
        for (at_needle, (needle, witness)) in (0..).zip(needles) {
            let (at, width) = width_of(needle)?;
            let length = u16::try_from(needle.len()).ok()?;
            let (before, window) = rarest(needle.as_bytes(), width, counts.get(at)?)?;
            if one_by_one && is_short(needle) {
                short.push((Finder::new(needle.as_bytes()).into_owned(), *witness));
            } else {
                let (hash, around) = (hash(window), Around::of(needle.as_bytes(), before.into(), width)?);
                let anchor = Anchor { tag: tag(hash), witness: *witness, around, needle: at_needle };
                anchors.get_mut(at)?.push((hash, anchor));
            }
            spans.push(Span { from, length, before });
            from = from.checked_add(length.into())?;
        }
        Some(Self { texts, spans: spans.into(), by_width: anchors.map(Windows::of), short: short.into() })
    }

    /// Size in bytes.
    pub(super) fn bytes(&self) -> usize {
        let spans = size_of_val(&*self.spans);
        self.by_width.iter().map(Windows::bytes).fold(self.texts.len().saturating_add(spans), usize::saturating_add)
    }

    /// Hands over each needle in the text, at least once.
    pub(super) fn each(&self, text: &[u8], mut take: impl FnMut(WitnessAt)) {
        let [eight, four, two] = &self.by_width;
        eight.each::<EIGHT>(text, |anchor, at| self.take::<EIGHT>(anchor, text, at, &mut take));
        four.each::<FOUR>(text, |anchor, at| self.take::<FOUR>(anchor, text, at, &mut take));
        two.each::<TWO>(text, |anchor, at| self.take::<TWO>(anchor, text, at, &mut take));
        for (finder, witness) in &self.short {
            if finder.find(text).is_some() {
                take(*witness);
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
    /// Anchors with the hashes of their windows.
    fn of(mut anchors: Vec<(u64, Anchor)>) -> Self {
        if anchors.is_empty() {
            return Self::default();
        }
        let count = anchors.len().saturating_mul(BITS_EACH).next_power_of_two().clamp(64, MOST_BITS);
        let buckets = anchors.len().next_power_of_two().clamp(2, MOST_BITS);
        let (shift, starts_shift) = (WORD - count.ilog2(), WORD - buckets.ilog2());
        let mut bits = vec![0_u64; count / 64];
        for (hash, _) in &anchors {
            let bit = hash >> shift;
            if let Some(word) = bits.get_mut(place(bit / 64)) {
                *word |= 1 << (bit % 64);
            }
        }
        anchors.sort_unstable();
        let starts = (0..=buckets).map(|bucket| {
            let before = |(hash, _): &(u64, Anchor)| place(hash >> starts_shift) < bucket;
            u32::try_from(anchors.partition_point(before)).unwrap_or(u32::MAX)
        });
        let starts = starts.collect();
        let anchors = anchors.into_iter().map(|(_, anchor)| anchor).collect();
        Self { bits: bits.into(), shift, starts, starts_shift, anchors }
    }

    fn bytes(&self) -> usize {
        let tables = size_of_val(&*self.bits).saturating_add(size_of_val(&*self.starts));
        tables.saturating_add(size_of_val(&*self.anchors))
    }

    fn each<const WIDTH: usize>(&self, text: &[u8], mut found: impl FnMut(&Anchor, usize)) {
        if self.anchors.is_empty() {
            return;
        }
        let mut passed = [0; AT_ONCE];
        for first in (0..text.len()).step_by(AT_ONCE) {
            let some = first..text.len().min(first.saturating_add(AT_ONCE).saturating_add(WIDTH - 1));
            let mut count = 0_usize;
            for (at, window) in text.get(some).unwrap_or_default().array_windows::<WIDTH>().enumerate() {
                let bit = hash(number(window)) >> self.shift;
                let word = self.bits.get(place(bit / 64)).copied().unwrap_or_default();
                // Written whether it passes or not: the processor cannot foresee which does.
                if let Some(next) = passed.get_mut(count) {
                    *next = first.saturating_add(at);
                }
                count = count.saturating_add(place(word >> (bit % 64) & 1));
            }
            for at in passed.iter().take(count) {
                self.look::<WIDTH>(text, *at, &mut found);
            }
        }
    }

    /// Hands over the anchors whose window stands there.
    fn look<const WIDTH: usize>(&self, text: &[u8], at: usize, found: &mut impl FnMut(&Anchor, usize)) {
        let Some(window) = text.get(at..).and_then(<[u8]>::first_chunk::<WIDTH>) else { return };
        let hash = hash(number(window));
        let anchors = self.anchors_of(hash).iter();
        anchors.filter(|anchor| anchor.tag == tag(hash)).for_each(|anchor| found(anchor, at));
    }

    fn anchors_of(&self, hash: u64) -> &[Anchor] {
        let bucket = place(hash >> self.starts_shift);
        let Some([from, to]) = self.starts.get(bucket..bucket.saturating_add(2)) else { return &[] };
        self.anchors.get(place((*from).into())..place((*to).into())).unwrap_or_default()
    }
}

const fn hash(window: u64) -> u64 {
    window.wrapping_mul(SPREAD)
}

fn tag(hash: u64) -> u32 {
    u32::try_from(hash >> 32).unwrap_or(u32::MAX)
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

/// Where the window stands that the fewest texts have, as far as one can guess, and which it is.
fn rarest(needle: &[u8], width: usize, counts: &Counts) -> Option<(u16, u64)> {
    let windows = needle.windows(width).map(number).zip(0..=u16::MAX);
    let cost = |window: &u64| (times(width, *window), counts.get(window).copied());
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
        built(needles).unwrap().each(text.as_bytes(), |needle| found.push(needle));
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
