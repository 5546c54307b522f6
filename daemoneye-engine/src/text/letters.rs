//! Which letters a text has, in one word: a value with one that the text has not does not stand in it, which is known without looking
//! at the text again. Of a list of values that leaves hardly any to look for.

/// Letters, small and capital ones as one; digits and the rest of ASCII share what is left, and other bytes come wherever they fall.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Letters(u64);

/// Of each byte its bit.
const BITS: [u64; 256] = {
    let mut bits = [0; 256];
    let (mut byte, mut rest): (u8, &mut [u64]) = (0, &mut bits);
    while let [first, others @ ..] = rest {
        let half = if byte & 0x40 == 0 { 32 } else { 0 };
        *first = 1 << ((byte & 31) | half);
        byte = byte.wrapping_add(1);
        rest = others;
    }
    bits
};

impl Letters {
    /// Nobody has looked.
    pub(crate) const UNKNOWN: Self = Self(u64::MAX);

    pub(crate) fn of(text: &[u8]) -> Self {
        let bit = |byte: &u8| BITS.get(usize::from(*byte)).copied().unwrap_or(u64::MAX);
        let (fours, rest) = text.as_chunks::<4>();
        let of_fours =
            fours.iter().fold([0; 4], |[a, b, c, d], [e, f, g, h]| [a | bit(e), b | bit(f), c | bit(g), d | bit(h)]);
        Self(of_fours.into_iter().chain(rest.iter().map(bit)).fold(0, |all, some| all | some))
    }

    pub(crate) fn is_known(self) -> bool {
        self != Self::UNKNOWN
    }

    /// Whether a value of these letters can stand in a text that has `self`.
    pub(super) const fn may_hold(self, value: Self) -> bool {
        value.0 & !self.0 == 0
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn what_stands_in_a_text_has_no_other_letters_whatever_its_case(
            before in "\\PC{0,9}", value in "\\PC{0,9}", after in "\\PC{0,9}",
        ) {
            let text = Letters::of(format!("{before}{value}{after}").as_bytes());
            for value in [value.clone(), value.to_ascii_lowercase(), value.to_ascii_uppercase()] {
                prop_assert!(text.may_hold(Letters::of(value.as_bytes())));
            }
        }
    }

    #[test]
    fn what_has_another_letter_cannot_stand_there() {
        let text = Letters::of(b"/usr/bin/bash -c id");
        assert!(
            !text.may_hold(Letters::of(b"curl"))
                && !text.may_hold(Letters::of(b"x"))
                && text.may_hold(Letters::of(b"BASH"))
        );
        assert!(Letters::UNKNOWN.may_hold(Letters::of(b"anything")) && text.is_known());
    }
}
