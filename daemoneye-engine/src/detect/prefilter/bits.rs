//! Places of a text where a window may begin that is looked for, told in two steps without a decision of the processor, which could not
//! foresee it: by the first three bytes, and of what that leaves by hashes of eight and of four.
//!
//! All tables have sizes that the compiler knows: so it knows that a hash does not lead out of them, which would be looked at for each place.

/// Bytes of a long window and of a short one.
pub(super) const EIGHT: usize = 8;
pub(super) const FOUR: usize = 4;
/// Places of a text that are looked at before those that passed are looked at again.
pub(super) const AT_ONCE: usize = 128;
/// Windows up to which the small tables and the middling ones let few places pass that have none.
const FEW: usize = 1_024;
const SOME: usize = 4_096;
/// Words of a bit for each hash of three bytes.
const BEGINNINGS: usize = 1_024;
/// The three bytes of four that stand first, and what spreads them over 32 bits: 2^32 divided by the golden ratio.
const THREE: u32 = 0x00ff_ffff;
const SPREAD_THREE: u32 = 0x9e37_79b1;
/// Spreads a window over 64 bits, whose upper ones are used: 2^64 divided by the golden ratio.
const SPREAD: u64 = 0x9e37_79b9_7f4a_7c15;
/// The four bytes of a window of eight that stand first.
const FIRST_FOUR: u64 = 0xffff_ffff;

/// A place of some text.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Place {
    at: u8,
    windows: u8,
}

/// Which windows are looked for.
#[derive(Debug)]
pub(super) struct Bits {
    /// By the first three bytes of a window: two stand at most places of a text where there are thousands of windows.
    beginnings: Box<[u64; BEGINNINGS]>,
    hashed: Hashed,
}

#[derive(Debug)]
enum Hashed {
    Small(Both<512, 256>),
    Middle(Both<2_048, 512>),
    /// 72 KiB and the 8 of the beginnings stay near the processor, and places of a text do not wait for each other.
    Large(Both<8_192, 1_024>),
}

/// By hash, whether a window of eight and of four bytes has it, in so many words each.
#[derive(Debug)]
struct Both<const EIGHTS: usize, const FOURS: usize> {
    eight: Box<[u64; EIGHTS]>,
    four: Box<[u64; FOURS]>,
}

impl Place {
    pub(super) const fn at(self) -> usize {
        self.at as usize
    }

    /// Whether a window of eight bytes may begin there.
    pub(super) const fn eight(self) -> bool {
        self.windows & 1 != 0
    }

    /// And one of four.
    pub(super) const fn four(self) -> bool {
        self.windows & 2 != 0
    }
}

impl Bits {
    /// Of windows of eight and of four bytes.
    pub(super) fn of(eight: &[u64], four: &[u64]) -> Self {
        let mut beginnings = Box::new([0; BEGINNINGS]);
        for window in eight.iter().chain(four) {
            let (word, bit) = of_beginning(beginning(*window));
            if let Some(word) = beginnings.get_mut(word) {
                *word |= 1 << bit;
            }
        }
        let count = eight.len().max(four.len().saturating_mul(2));
        let hashed = if count <= FEW {
            Hashed::Small(Both::of(eight, four))
        } else if count <= SOME {
            Hashed::Middle(Both::of(eight, four))
        } else {
            Hashed::Large(Both::of(eight, four))
        };
        Self { beginnings, hashed }
    }

    /// Size in bytes.
    pub(super) const fn bytes(&self) -> usize {
        let hashed = match &self.hashed {
            Hashed::Small(bits) => bits.bytes(),
            Hashed::Middle(bits) => bits.bytes(),
            Hashed::Large(bits) => bits.bytes(),
        };
        size_of_val(&*self.beginnings).saturating_add(hashed)
    }

    /// Places among the first [`AT_ONCE`] where a window may begin that does not reach over the end.
    pub(super) fn pass<'p>(&self, some: &[u8], passed: &'p mut [Place; AT_ONCE]) -> &'p [Place] {
        let (mut begin_at, mut at, mut count) = ([0_u8; AT_ONCE], 0_u8, 0_usize);
        let firsts = some.get(..some.len().saturating_sub(EIGHT - FOUR)).unwrap_or_default();
        for first in firsts.array_windows::<FOUR>() {
            // Written whether it passes or not.
            if let Some(next) = begin_at.get_mut(count % AT_ONCE) {
                *next = at;
            }
            let (word, bit) = of_beginning(spread(u32::from_le_bytes(*first)));
            let begins = self.beginnings.get(word).copied().unwrap_or_default() >> bit & 1 != 0;
            count = count.wrapping_add(usize::from(begins));
            at = at.wrapping_add(1);
        }
        let begins = begin_at.get(..count).unwrap_or_default();
        let count = match &self.hashed {
            Hashed::Small(bits) => bits.pass(some, begins, passed),
            Hashed::Middle(bits) => bits.pass(some, begins, passed),
            Hashed::Large(bits) => bits.pass(some, begins, passed),
        };
        passed.get(..count).unwrap_or_default()
    }
}

impl<const EIGHTS: usize, const FOURS: usize> Both<EIGHTS, FOURS> {
    fn of(eight: &[u64], four: &[u64]) -> Self {
        Self { eight: with_bits(eight), four: with_bits(four) }
    }

    const fn bytes(&self) -> usize {
        size_of_val(&*self.eight).saturating_add(size_of_val(&*self.four))
    }

    fn pass(&self, some: &[u8], begins: &[u8], passed: &mut [Place; AT_ONCE]) -> usize {
        let mut count = 0_usize;
        for at in begins {
            let Some(window) = some.get(usize::from(*at)..).and_then(<[u8]>::first_chunk) else { break };
            let window = u64::from_le_bytes(*window);
            let (eight, four) = (bit(&self.eight, hash(window)), bit(&self.four, hash(window & FIRST_FOUR)));
            if let Some(next) = passed.get_mut(count % AT_ONCE) {
                *next = Place { at: *at, windows: eight | four << 1 };
            }
            count = count.wrapping_add((eight | four).into());
        }
        count
    }
}

/// With the bit of each window set.
fn with_bits<const WORDS: usize>(windows: &[u64]) -> Box<[u64; WORDS]> {
    let mut bits = Box::new([0; WORDS]);
    for window in windows {
        let (word, bit) = of_hash::<WORDS>(hash(*window));
        if let Some(word) = bits.get_mut(word) {
            *word |= 1 << bit;
        }
    }
    bits
}

fn bit<const WORDS: usize>(bits: &[u64; WORDS], hash: u64) -> u8 {
    let (word, bit) = of_hash::<WORDS>(hash);
    u8::from(bits.get(word).copied().unwrap_or_default() >> bit & 1 != 0)
}

/// A word and a bit of it, by the upper bits of a hash.
fn of_hash<const WORDS: usize>(hash: u64) -> (usize, u64) {
    let shift = const { u64::BITS - WORDS.ilog2() };
    (usize::try_from(hash >> shift).unwrap_or(usize::MAX), hash >> (shift - u64::BITS.ilog2()) & 63)
}

fn of_beginning(beginning: u16) -> (usize, u16) {
    (usize::from(beginning / 64), beginning % 64)
}

/// A hash of the first three bytes of a window.
pub(super) const fn beginning(window: u64) -> u16 {
    let [a, b, c, ..] = window.to_le_bytes();
    spread(u32::from_le_bytes([a, b, c, 0]))
}

const fn spread(four: u32) -> u16 {
    let [.., low, high] = (four & THREE).wrapping_mul(SPREAD_THREE).to_le_bytes();
    u16::from_le_bytes([low, high])
}

pub(super) const fn hash(window: u64) -> u64 {
    window.wrapping_mul(SPREAD)
}
