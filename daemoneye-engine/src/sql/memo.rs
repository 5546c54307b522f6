//! What a pattern said of a value that a page holds once and many rows point to.

use super::sieve::{Piece, Sieve};
use datafusion::arrow::array::ByteView;
use datafusion::arrow::buffer::Buffer;

/// Values that are remembered, a power of two; 512 KiB, which the second level of a cache holds.
const PLACES: usize = 1 << 16;
/// Longest text that stands in its view and not in a buffer.
const INLINE: u32 = 12;

/// Answers by place in one buffer, which is held so that a place stays the same text.
#[derive(Debug, Default)]
pub(super) struct Memo {
    buffer: Option<Buffer>,
    /// Which of the batch's buffers it is.
    index: Option<u32>,
    /// Offset (32 bits), length (30), 1, answer; 0 for none. Only once the buffer has come in two batches: pages without a
    /// dictionary come in one.
    places: Vec<u64>,
    /// The values of the buffer that are worth asking about.
    sieve: Option<Sieve>,
}

impl Memo {
    /// Whether it is about one of these buffers.
    pub(super) fn knows(&self, buffers: &[Buffer]) -> bool {
        self.place(buffers).is_some()
    }

    fn place(&self, buffers: &[Buffer]) -> Option<usize> {
        let held = self.buffer.as_ref()?;
        buffers.iter().position(|buffer| held.ptr_eq(buffer))
    }

    /// For so many views of a batch with these buffers, of which those with `piece` are asked about.
    pub(super) fn turn_to(&mut self, buffers: &[Buffer], piece: Option<&Piece>, rows: usize) {
        let again = self.place(buffers);
        if again.is_none() {
            self.buffer = buffers.last().cloned();
            self.places.clear();
            self.sieve = self.buffer.as_ref().zip(piece).and_then(|(buffer, piece)| Sieve::over(buffer, piece, rows));
        } else if self.places.is_empty() {
            self.places.resize(PLACES, 0);
        }
        self.index = again.or(buffers.len().checked_sub(1)).and_then(|index| u32::try_from(index).ok());
    }

    /// The answer for the text of this view, asked for once while the batches come from one dictionary.
    #[inline]
    pub(super) fn get_or(&mut self, view: u128, ask: impl FnOnce() -> bool) -> bool {
        let view = ByteView::from(view);
        if view.length <= INLINE || self.index != Some(view.buffer_index) {
            return ask();
        }
        if self.sieve.as_ref().is_some_and(|sieve| !sieve.passes(view.offset, view.length)) {
            return false;
        }
        if self.places.is_empty() || view.length >= 1 << 30 {
            return ask();
        }
        let key = (u64::from(view.offset) << 32) | (u64::from(view.length) << 2) | 2;
        // The high bits of the product depend on all of the offset.
        let place = usize::try_from(view.offset.wrapping_mul(0x9E37_79B1) >> 16).unwrap_or_default();
        let Some(place) = self.places.get_mut(place) else { return ask() };
        if *place & !1 == key {
            return *place & 1 == 1;
        }
        let answer = ask();
        *place = key | u64::from(answer);
        answer
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use datafusion::arrow::array::{StringViewArray, StringViewBuilder};

    /// In one buffer, as a page of a dictionary is.
    fn dictionary(texts: &[String]) -> StringViewArray {
        let mut builder = StringViewBuilder::new().with_fixed_block_size(1 << 20);
        texts.iter().for_each(|text| builder.append_value(text));
        builder.finish()
    }

    fn answers(memo: &mut Memo, views: &StringViewArray, asked: &mut usize) -> Vec<bool> {
        memo.turn_to(views.data_buffers(), None, views.views().len());
        let rows = views.iter().zip(views.views());
        rows.map(|(text, view)| {
            memo.get_or(*view, || {
                *asked += 1;
                text.unwrap().contains('7')
            })
        })
        .collect()
    }

    #[test]
    fn a_value_is_asked_about_once_while_its_dictionary_lasts_and_never_again_wrongly() {
        let texts: Vec<String> = (0..3_000).map(|number| format!("a text of some length, {number}")).collect();
        let expected: Vec<bool> = texts.iter().map(|text| text.contains('7')).collect();
        let all = dictionary(&texts);
        let (mut memo, mut asked) = (Memo::default(), 0);
        for _ in 0..4 {
            assert_eq!(answers(&mut memo, &all, &mut asked), expected);
        }
        assert!((6_000..7_000).contains(&asked), "{asked}: twice each, and few more that share a place");
        let half = all.slice(1_500, 1_500);
        assert_eq!(answers(&mut memo, &half, &mut asked), expected[1_500..]);
        let other: Vec<String> = texts.iter().rev().cloned().collect();
        let reversed: Vec<bool> = expected.iter().rev().copied().collect();
        for _ in 0..2 {
            assert_eq!(answers(&mut memo, &dictionary(&other), &mut asked), reversed);
        }
        let short = StringViewArray::from_iter_values(["7", "8", "7"]);
        assert_eq!(answers(&mut memo, &short, &mut asked), [true, false, true]);
    }
}
