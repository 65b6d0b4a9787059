//! One bit for each page of an area.

use core::ops::Range;

const WORD: u32 = u64::BITS;

/// Which pages are taken.
#[derive(Debug)]
pub(super) struct Bitmap {
    words: &'static mut [u64],
    bits: u32,
}

impl Bitmap {
    /// Words that `bits` bits need.
    pub(super) const fn words_for(bits: u32) -> usize {
        bits.div_ceil(WORD) as usize
    }

    /// A map of `bits` bits in `words`, all of which are zero and enough.
    pub(super) fn new(words: &'static mut [u64], bits: u32) -> Self {
        Self { words, bits }
    }

    pub(super) fn is_set(&self, bit: u32) -> bool {
        let word = self.words.get((bit / WORD) as usize);
        word.is_some_and(|word| word & 1 << (bit % WORD) != 0)
    }

    pub(super) fn set(&mut self, range: Range<u32>) {
        self.update(range, |word, mask| *word |= mask);
    }

    pub(super) fn clear(&mut self, range: Range<u32>) {
        self.update(range, |word, mask| *word &= !mask);
    }

    fn update(&mut self, range: Range<u32>, change: impl Fn(&mut u64, u64)) {
        for (index, mask) in masks(range) {
            if let Some(word) = self.words.get_mut(index) {
                change(word, mask);
            }
        }
    }

    /// The first of `count` clear bits in a row, at or after `from`, that is a multiple of
    /// `2^align_order` when `skew` is added to it.
    pub(super) fn find_clear(
        &self,
        from: u32,
        count: u32,
        align_order: u32,
        skew: u32,
    ) -> Option<u32> {
        let align = |bit: u32| {
            let aligned = bit
                .checked_add(skew)?
                .checked_next_multiple_of(1 << align_order)?;
            Some(aligned - skew)
        };
        let mut first = align(from)?;
        loop {
            let end = first.checked_add(count).filter(|end| *end <= self.bits)?;
            match self.last_set(first..end) {
                None => return Some(first),
                Some(bit) => first = align(self.next_clear(bit + 1))?,
            }
        }
    }

    /// The first bit at or after `from` that is clear, or the number of bits.
    fn next_clear(&self, from: u32) -> u32 {
        let clear = masks(from..self.bits).find_map(|(index, mask)| {
            let clear = !self.words.get(index)? & mask;
            (clear != 0).then(|| index as u32 * WORD + clear.trailing_zeros())
        });
        clear.unwrap_or(self.bits)
    }

    /// The last bit of `range` that is set.
    fn last_set(&self, range: Range<u32>) -> Option<u32> {
        masks(range).rev().find_map(|(index, mask)| {
            let word = self.words.get(index)? & mask;
            Some(index as u32 * WORD + word.checked_ilog2()?)
        })
    }
}

/// The words that hold bits of `range`, and which bits of each.
fn masks(range: Range<u32>) -> impl DoubleEndedIterator<Item = (usize, u64)> {
    (range.start / WORD..range.end.div_ceil(WORD)).map(move |index| {
        let first = range.start.saturating_sub(index * WORD).min(WORD - 1);
        let end = (range.end - index * WORD).min(WORD);
        (index as usize, u64::MAX << first & u64::MAX >> (WORD - end))
    })
}
