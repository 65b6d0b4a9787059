//! Which pages of a coherent pool are free.
//!
//! One bit a page, set while allocated. Page 0 of the bitmap stands for an address aligned to the
//! largest allocation, so that alignment of an index is alignment of the address; a pool that
//! starts later has its first `skew` pages allocated forever.

/// Bytes in the largest pool.
pub const MAX_POOL_SIZE: usize = 16 << 20;

/// Pages in the largest allocation: order 10.
const MAX_PAGES: usize = super::MAX_ALLOCATION / super::PAGE_SIZE;

/// Pages per word of the bitmap.
const WORD_PAGES: usize = u64::BITS as usize;

const WORDS: usize = (MAX_POOL_SIZE / super::PAGE_SIZE + MAX_PAGES) / WORD_PAGES;

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
pub(super) struct Block {
    /// Index of the first page.
    pub(super) page: usize,
    /// Whether any of the pages is handed out for the first time.
    pub(super) first_use: bool,
}

/// The free pages of a pool.
#[derive(Debug)]
pub(super) struct PageBitmap {
    words: [u64; WORDS],
    /// Pages that were handed out at some time.
    used: [u64; WORDS],
    skew: usize,
    free: usize,
}

impl PageBitmap {
    /// A pool of `pages` free pages, the first of them `skew` pages above the alignment of the
    /// largest allocation.
    pub(super) fn new(skew: usize, pages: usize) -> Self {
        let mut bitmap = Self {
            words: [u64::MAX; WORDS],
            used: [0; WORDS],
            skew,
            free: 0,
        };
        bitmap.free(0, pages);
        bitmap
    }

    /// Pages not allocated.
    pub(super) fn free_pages(&self) -> usize {
        self.free
    }

    /// Allocates `pages` pages, at most [`MAX_PAGES`], at an address aligned to the next power of
    /// two.
    pub(super) fn allocate(&mut self, pages: usize) -> Option<Block> {
        let block = pages.next_power_of_two();
        let start = if block < WORD_PAGES {
            self.find_in_word(block.trailing_zeros())
        } else {
            self.find_words(block / WORD_PAGES)
        }?;
        self.set(start, pages, true);
        self.free -= pages;
        Some(Block {
            page: start - self.skew,
            first_use: self.note_use(start, pages),
        })
    }

    /// Gives back pages that [`Self::allocate`] returned.
    pub(super) fn free(&mut self, start: usize, pages: usize) {
        self.set(start + self.skew, pages, false);
        self.free += pages;
    }

    /// The first free aligned block of 2^`order` pages, less than a word.
    fn find_in_word(&self, order: u32) -> Option<usize> {
        self.words.iter().enumerate().find_map(|(index, word)| {
            // After step n a bit says that 2^(n+1) pages from it on are free.
            let runs = (0..order).fold(!word, |free, n| free & (free >> (1 << n)));
            let blocks = runs & ALIGNED[order as usize];
            (blocks != 0).then(|| index * WORD_PAGES + blocks.trailing_zeros() as usize)
        })
    }

    /// The first free aligned block of `words` whole words.
    fn find_words(&self, words: usize) -> Option<usize> {
        let mut blocks = self.words.chunks_exact(words);
        let index = blocks.position(|block| block.iter().all(|&word| word == 0))?;
        Some(index * words * WORD_PAGES)
    }

    fn set(&mut self, start: usize, pages: usize, allocated: bool) {
        for (index, mask) in words_of(start, pages) {
            let word = &mut self.words[index];
            debug_assert_eq!(*word & mask, if allocated { 0 } else { mask });
            *word = if allocated {
                *word | mask
            } else {
                *word & !mask
            };
        }
    }

    /// Marks the pages as used, and says whether any had not been.
    fn note_use(&mut self, start: usize, pages: usize) -> bool {
        words_of(start, pages).fold(false, |first, (index, mask)| {
            let word = &mut self.used[index];
            let fresh = !*word & mask != 0;
            *word |= mask;
            first | fresh
        })
    }
}

/// The words that hold the bits `start..start + pages`, each with its share of them.
fn words_of(start: usize, pages: usize) -> impl Iterator<Item = (usize, u64)> {
    let end = start + pages;
    let mut at = start;
    core::iter::from_fn(move || {
        let bit = at % WORD_PAGES;
        let count = (WORD_PAGES - bit).min(end.checked_sub(at).filter(|&left| left > 0)?);
        let mask = (u64::MAX >> (WORD_PAGES - count)) << bit;
        let index = at / WORD_PAGES;
        at += count;
        Some((index, mask))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    fn page(block: Option<Block>) -> Option<usize> {
        block.map(|block| block.page)
    }

    #[test]
    fn orders_up_to_the_largest() {
        for order in 0..=10 {
            let mut bitmap = PageBitmap::new(0, 4096);
            let first = page(bitmap.allocate(1)).unwrap();
            assert_eq!(first, 0);
            assert_eq!(page(bitmap.allocate(1 << order)), Some(1 << order));
            assert_eq!(bitmap.free_pages(), 4095 - (1 << order));
        }
    }

    #[test]
    fn a_skewed_pool_aligns_addresses_not_indices() {
        let mut bitmap = PageBitmap::new(512, 512 + 1024);
        assert_eq!(page(bitmap.allocate(1024)), Some(512));
        assert_eq!(page(bitmap.allocate(512)), Some(0));
        assert_eq!(page(bitmap.allocate(1)), None);
    }

    #[test]
    fn a_pool_smaller_than_the_request_is_exhausted() {
        let mut bitmap = PageBitmap::new(0, 512);
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
            skew in prop_oneof![Just(0_usize), 1..1024_usize],
            pages in 1_usize..=700,
            requests in prop::collection::vec((1_usize..=130, any::<bool>()), 1..120),
        ) {
            let mut bitmap = PageBitmap::new(skew, pages);
            let mut live: BTreeMap<usize, usize> = BTreeMap::new();
            for (size, release) in requests {
                if release {
                    if let Some((start, len)) = live.pop_first() {
                        bitmap.free(start, len);
                    }
                    continue;
                }
                let mut used = vec![false; pages];
                for (&start, &len) in &live {
                    used[start..start + len].fill(true);
                }
                let block = size.next_power_of_two();
                let expected = (0..pages)
                    .filter(|start| (start + skew).is_multiple_of(block) && start + block <= pages)
                    .find(|&start| !used[start..start + block].contains(&true));
                prop_assert_eq!(page(bitmap.allocate(size)), expected);
                if let Some(start) = expected {
                    live.insert(start, size);
                }
                let allocated: usize = live.values().sum();
                prop_assert_eq!(bitmap.free_pages(), pages - allocated);
            }
        }
    }
}
