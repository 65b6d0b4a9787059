//! Memory to go wrong with, and the operations one by one.
//!
//! Everything here is inlined, so that what is done is done in the seed's own function.

use crate::handed::Fault;
use crate::memory::{Pages, reachable};
use core::hint::black_box;
use core::ops::Range;
use hal::addr::{PAGE_SIZE, PhysAddr, VirtAddr};
use hal::arch::{barrier, cache};
use hal::dma::maintenance::line_size;
use hal::dma::{Coherent, Device};
use hal::layout;

/// Lines that change hands.
const LINES: usize = 4;

/// Offset of the word that has byte `at`, counted round in a page.
#[inline(always)]
const fn in_page(at: usize) -> usize {
    at & (PAGE_SIZE - size_of::<u32>())
}

/// A cacheable page and an uncached one, which nobody else has.
///
/// # Invariants
///
/// Only volatile accesses go to either, so a device may work on them at any time.
pub(super) struct Ground {
    cached: Pages,
    uncached: Coherent,
}

impl Ground {
    /// Memory that `device` reaches, and none of it in a cache.
    pub(super) fn new(device: &'static Device) -> Result<Self, Fault> {
        let ground = Self {
            cached: Pages::alloc(reachable(device), 0)?,
            uncached: crate::machine::machine().pool.alloc(device, PAGE_SIZE)?,
        };
        ground.settle();
        Ok(ground)
    }

    /// Bytes that change hands: whole lines at the start of the page.
    #[inline(always)]
    pub(super) fn part(&self) -> Range<usize> {
        0..LINES * line_size()
    }

    /// The last line of [`part`](Self::part).
    #[inline(always)]
    pub(super) fn last_line(&self) -> Range<usize> {
        (LINES - 1) * line_size()..LINES * line_size()
    }

    /// Where the cacheable page is in RAM.
    pub(super) fn pa(&self) -> PhysAddr {
        layout::virt_to_phys(self.cached.va()).unwrap_or_default()
    }

    /// Where the device sees the uncached page.
    pub(super) fn uncached_bus(&self) -> u64 {
        self.uncached.dma_addr().get()
    }

    #[inline(always)]
    fn va(&self) -> VirtAddr {
        self.cached.va()
    }

    /// Stores to every word of the cacheable bytes `range`.
    #[inline(always)]
    pub(super) fn store(&self, range: Range<usize>) {
        for at in range.step_by(size_of::<u32>()) {
            self.store_word(at, at as u32);
        }
    }

    /// Stores the word at byte `at` of the cacheable page.
    #[inline(always)]
    pub(super) fn store_word(&self, at: usize, word: u32) {
        // SAFETY: the word lies in the page whatever `at` is; the page is mapped, this value's, and only
        // volatile accesses go to it.
        unsafe {
            (self.va() + in_page(at))
                .as_ptr::<u32>()
                .write_volatile(word);
        };
    }

    /// Loads from every line of the cacheable bytes `range`.
    #[inline(always)]
    pub(super) fn load(&self, range: Range<usize>) {
        for at in range.step_by(line_size()) {
            // SAFETY: as for `store_word`.
            black_box(unsafe { (self.va() + in_page(at)).as_ptr::<u32>().read_volatile() });
        }
    }

    /// Stores to every word of the uncached bytes `range`.
    #[inline(always)]
    pub(super) fn store_uncached(&self, range: Range<usize>) {
        for at in range.step_by(size_of::<u32>()) {
            self.store_uncached_word(at, at as u32);
        }
    }

    /// Stores the word at byte `at` of the uncached page.
    #[inline(always)]
    pub(super) fn store_uncached_word(&self, at: usize, word: u32) {
        let va = self.uncached.va() + in_page(at);
        // SAFETY: as for `store_word`.
        unsafe { va.as_ptr::<u32>().write_volatile(word) };
    }

    /// Loads from every line of the uncached bytes `range`.
    #[inline(always)]
    pub(super) fn load_uncached(&self, range: Range<usize>) {
        for at in range.step_by(line_size()) {
            let va = self.uncached.va() + in_page(at);
            // SAFETY: as for `store_word`.
            black_box(unsafe { va.as_ptr::<u32>().read_volatile() });
        }
    }

    /// `DC CVAC` of each line of `range`.
    #[inline(always)]
    pub(super) fn clean(&self, range: Range<usize>) {
        for at in range.step_by(line_size()) {
            cache::clean_line(self.va() + at);
        }
    }

    /// `DC CIVAC` of each line of `range`.
    #[inline(always)]
    pub(super) fn clean_invalidate(&self, range: Range<usize>) {
        for at in range.step_by(line_size()) {
            cache::clean_invalidate_line(self.va() + at);
        }
    }

    /// `DC IVAC` of each line of `range`.
    #[inline(always)]
    pub(super) fn invalidate(&self, range: Range<usize>) {
        for at in range.step_by(line_size()) {
            // SAFETY: the line lies in the page, which is this value's whole, and nothing in it is wanted back.
            unsafe { cache::invalidate_line(self.va() + in_page(at)) };
        }
    }

    /// `DSB SY`.
    #[inline(always)]
    pub(super) fn dsb(&self) {
        barrier::dsb_sy();
    }

    /// `DMB OSHST`.
    #[inline(always)]
    pub(super) fn dmb(&self) {
        barrier::dmb_oshst();
    }

    /// Puts all right: nothing of the page is in a cache, nothing is on its way.
    pub(super) fn settle(&self) {
        self.clean_invalidate(0..PAGE_SIZE);
        barrier::dsb_sy();
    }
}
