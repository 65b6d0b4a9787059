//! Which pages of a coherent pool are free.
//!
//! One bit a page, set while allocated. Page 0 of the bitmap stands for an address aligned to the
//! largest allocation, so that alignment of an index is alignment of the address; a pool that
//! starts later has its first `skew` pages allocated forever.

use super::{MAX_ALLOCATION, PAGE_SIZE};

/// Pages per word of the bitmap.
const WORD_PAGES: u32 = u64::BITS;

/// Words of the bitmap of `size` bytes.
pub(super) const fn words_for(size: usize) -> usize {
    (size / PAGE_SIZE).div_ceil(WORD_PAGES as usize)
}

/// Words that a pool may need more, for where it starts: those of the largest allocation.
pub(super) const SKEW_WORDS: usize = words_for(MAX_ALLOCATION);

/// Bits at the multiples of 2^n, for blocks of 2^n pages within a word.
const ALIGNED: [u64; 6] = [
    u64::MAX,
    0x5555_5555_5555_5555,
    0x1111_1111_1111_1111,
    0x0101_0101_0101_0101,
    0x0001_0001_0001_0001,
    0x0000_0001_0000_0001,
];

/// What [`PageBitmap::allocate`] hands out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Found {
    /// Index of the first page.
    pub(super) page: u32,
    /// Whether any of the pages is handed out for the first time.
    pub(super) first_use: bool,
}

/// Sixty-four pages.
#[derive(Clone, Copy, Debug)]
struct Word {
    allocated: u64,
    /// Pages that were handed out at some time.
    used: u64,
}

impl Word {
    /// Allocates the pages of `mask`, which are free, and says whether any never was before.
    #[inline]
    fn allocate(&mut self, mask: u64) -> bool {
        debug_assert_eq!(self.allocated & mask, 0);
        let first_use = !self.used & mask != 0;
        self.allocated |= mask;
        self.used |= mask;
        first_use
    }
}

/// The free pages of a pool.
#[derive(Debug)]
pub(super) struct PageBitmap<const WORDS: usize> {
    words: [Word; WORDS],
    skew: u32,
    /// No page is free in the words before this one.
    lowest: usize,
}

impl<const WORDS: usize> PageBitmap<WORDS> {
    /// A pool of `pages` free pages, the first of them `skew` pages above the alignment of the
    /// largest allocation. Unless they are `untouched`, none counts as handed out for the first
    /// time.
    pub(super) fn new(skew: u32, pages: u32, untouched: bool) -> Self {
        let word = Word {
            allocated: u64::MAX,
            used: if untouched { 0 } else { u64::MAX },
        };
        let mut bitmap = Self {
            words: [word; WORDS],
            skew,
            lowest: 0,
        };
        bitmap.free(0, pages);
        bitmap
    }

    /// Whether all of `pages` pages, which is how many there are, are free.
    pub(super) fn is_unused(&self, pages: u32) -> bool {
        let free: u32 = self
            .words
            .iter()
            .map(|word| word.allocated.count_zeros())
            .sum();
        free == pages
    }

    /// Allocates `pages` pages at an address aligned to the next power of two.
    #[inline(always)]
    pub(super) fn allocate(&mut self, pages: u32) -> Option<Found> {
        let block = pages.next_power_of_two();
        if block < WORD_PAGES {
            self.allocate_in_word(pages, block.trailing_zeros())
        } else {
            self.allocate_words(pages, (block / WORD_PAGES) as usize)
        }
    }

    /// Takes the first free aligned block of 2^`order` pages, less than a word.
    #[inline(always)]
    fn allocate_in_word(&mut self, pages: u32, order: u32) -> Option<Found> {
        let aligned = ALIGNED.get(order as usize)?;
        let mut index = self.lowest;
        loop {
            let word = self.words.get_mut(index)?;
            if word.allocated == u64::MAX && index == self.lowest {
                self.lowest += 1;
            }
            // After step n a bit says that 2^(n+1) pages from it on are free.
            let runs = (0..order).fold(!word.allocated, |free, n| free & (free >> (1 << n)));
            let blocks = runs & aligned;
            if blocks != 0 {
                let bit = blocks.trailing_zeros();
                let start = index as u32 * WORD_PAGES + bit;
                return Some(Found {
                    page: start - self.skew,
                    first_use: word.allocate(mask(bit, pages)),
                });
            }
            index += 1;
        }
    }

    /// Takes the first free aligned block of `words` whole words.
    #[inline(never)]
    fn allocate_words(&mut self, pages: u32, words: usize) -> Option<Found> {
        let mut blocks = self.words.chunks_exact(words);
        let index = blocks.position(|block| block.iter().all(|word| word.allocated == 0))?;
        let start = (index * words) as u32 * WORD_PAGES;
        let mut first_use = false;
        for (index, mask) in words_of(start, pages) {
            if let Some(word) = self.words.get_mut(index) {
                first_use |= word.allocate(mask);
            }
        }
        Some(Found {
            page: start - self.skew,
            first_use,
        })
    }

    /// Gives back pages that [`Self::allocate`] returned.
    #[inline]
    pub(super) fn free(&mut self, page: u32, pages: u32) {
        let start = page + self.skew;
        let bit = start % WORD_PAGES;
        if pages <= WORD_PAGES - bit {
            self.clear((start / WORD_PAGES) as usize, mask(bit, pages));
        } else {
            for (index, mask) in words_of(start, pages) {
                self.clear(index, mask);
            }
        }
        self.lowest = self.lowest.min((start / WORD_PAGES) as usize);
    }

    /// Notes that pages which are allocated were not handed out, so that nobody has dropped their
    /// lines yet.
    pub(super) fn forget_use(&mut self, page: u32, pages: u32) {
        for (index, mask) in words_of(page + self.skew, pages) {
            if let Some(word) = self.words.get_mut(index) {
                word.used &= !mask;
            }
        }
    }

    /// Marks the pages of `mask` in a word as free.
    #[inline]
    fn clear(&mut self, index: usize, mask: u64) {
        if let Some(word) = self.words.get_mut(index) {
            debug_assert_eq!(word.allocated & mask, mask);
            word.allocated &= !mask;
        }
    }
}

/// The bits of `count` pages from `bit` on, in one word.
#[inline]
const fn mask(bit: u32, count: u32) -> u64 {
    (u64::MAX >> (WORD_PAGES - count)) << bit
}

/// The words that hold the bits `start..start + pages`, each with its share of them.
#[inline]
fn words_of(start: u32, pages: u32) -> impl Iterator<Item = (usize, u64)> {
    let (mut at, mut left) = (start, pages);
    core::iter::from_fn(move || {
        if left == 0 {
            return None;
        }
        let bit = at % WORD_PAGES;
        let count = left.min(WORD_PAGES - bit);
        let index = (at / WORD_PAGES) as usize;
        left -= count;
        at += count;
        Some((index, mask(bit, count)))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    type Bitmap = PageBitmap<80>;

    fn page(block: Option<Found>) -> Option<u32> {
        block.map(|block| block.page)
    }

    #[test]
    fn orders_up_to_the_largest() {
        for order in 0..=10 {
            let mut bitmap = Bitmap::new(0, 4096, true);
            let first = page(bitmap.allocate(1)).unwrap();
            assert_eq!(first, 0);
            assert_eq!(page(bitmap.allocate(1 << order)), Some(1 << order));
            assert!(!bitmap.is_unused(4096));
            bitmap.free(0, 1);
            bitmap.free(1 << order, 1 << order);
            assert!(bitmap.is_unused(4096));
        }
    }

    #[test]
    fn a_skewed_pool_aligns_addresses_not_indices() {
        let mut bitmap = Bitmap::new(512, 512 + 1024, true);
        assert_eq!(page(bitmap.allocate(1024)), Some(512));
        assert_eq!(page(bitmap.allocate(512)), Some(0));
        assert_eq!(page(bitmap.allocate(1)), None);
    }

    #[test]
    fn a_pool_smaller_than_the_request_is_exhausted() {
        let mut bitmap = Bitmap::new(0, 512, true);
        assert_eq!(page(bitmap.allocate(513)), None);
        assert_eq!(page(bitmap.allocate(512)), Some(0));
        assert_eq!(page(bitmap.allocate(1)), None);
        bitmap.free(0, 512);
        assert_eq!(page(bitmap.allocate(1)), Some(0));
    }

    proptest! {
        /// Against a set of pages: blocks are aligned, in the pool, disjoint, and refused only
        /// where no aligned block is free.
        #[test]
        fn agrees_with_a_set_of_pages(
            skew in prop_oneof![Just(0_u32), 1..1024_u32],
            pages in 1_u32..=700,
            requests in prop::collection::vec((1_u32..=130, any::<bool>()), 1..120),
        ) {
            let mut bitmap = Bitmap::new(skew, pages, true);
            let mut live: BTreeMap<u32, u32> = BTreeMap::new();
            for (size, release) in requests {
                if release {
                    if let Some((start, len)) = live.pop_first() {
                        bitmap.free(start, len);
                    }
                    continue;
                }
                let mut used = vec![false; pages as usize];
                for (&start, &len) in &live {
                    used[start as usize..(start + len) as usize].fill(true);
                }
                let block = size.next_power_of_two();
                let expected = (0..pages)
                    .filter(|start| (start + skew).is_multiple_of(block) && start + block <= pages)
                    .find(|&start| !used[start as usize..(start + block) as usize].contains(&true));
                prop_assert_eq!(page(bitmap.allocate(size)), expected);
                if let Some(start) = expected {
                    live.insert(start, size);
                }
                prop_assert_eq!(bitmap.is_unused(pages), live.is_empty());
            }
        }
    }
}
