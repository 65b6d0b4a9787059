//! Mappings that are wrong on purpose, and a page of the image to try them on.

use core::cell::UnsafeCell;
use hal::addr::{PAGE_SIZE, PhysAddr, PhysRange, VirtAddr};
use hal::arch::exception::{Backtrace, backtrace};
use hal::arch::{barrier, cache};
use hal::layout::EARLY;
use hal::mmu::{Attributes, Level, MapError, MemoryType, TableMemory};

use crate::boot;
use crate::machine::machine;

/// Addresses for planted mappings: the last GiB/8 of a window that is otherwise used while booting
/// only. A multiple of the size of a block.
pub(super) const SCRATCH: VirtAddr = VirtAddr::new(EARLY.base.get() + EARLY.size / 8 * 7);

/// Calls `f` with every return address on the caller's stack, innermost first.
#[inline(never)]
pub(super) fn call_chain(f: impl FnMut(VirtAddr)) {
    let stacks = boot::stacks();
    // SAFETY: the ranges are the stacks proper, without their guard pages; they stay mapped.
    unsafe { Backtrace::new(backtrace::frame_pointer(), &stacks) }.for_each(f);
}

/// Drops the lines of `size` bytes at `va`, which are mapped, from the caches.
pub(super) fn drop_lines(va: VirtAddr, size: usize) {
    let line = smallest_line();
    for offset in (0..size).step_by(line) {
        cache::clean_invalidate_line(va + offset);
    }
    barrier::dsb_sy();
}

/// Bytes in the smallest data cache line: `CTR_EL0.DminLine`, log2 of words.
pub(super) fn smallest_line() -> usize {
    4 << (cache::ctr_el0() >> 16 & 0xF)
}

/// A mapping that a test adds to the kernel's tables, until it is dropped.
#[derive(Debug)]
pub(super) struct Plant {
    va: VirtAddr,
    size: usize,
}

impl Plant {
    /// Maps `frames` at `va`, where nothing is, with leaves of at most `largest`.
    ///
    /// The mapping may break every rule, as long as nobody writes through it: it may be one that
    /// an audit must find, or one whose addresses are read with [`probe::read_u64`](super::probe::read_u64).
    pub(super) fn new(
        va: VirtAddr,
        frames: PhysRange,
        attributes: Attributes,
        largest: Level,
    ) -> Result<Self, MapError> {
        // SAFETY: the addresses are known to the test only, which writes nothing there, so the
        // mapping makes no line dirty and no instruction is changed through it. A test that gives
        // frames a second type drops their lines when the mapping is gone.
        unsafe {
            machine()
                .tables
                .lock()
                .map(va, frames, attributes, largest)?;
        }
        Ok(Self {
            va,
            size: frames.size() as usize,
        })
    }

    /// What removing `size` bytes at `va`, not all of the mapping, says. If it is not refused the
    /// mapping is no longer whole, and dropping it fails.
    pub(super) fn remove_part(&self, offset: usize, size: usize) -> Result<(), MapError> {
        // SAFETY: nothing refers to the mapping.
        unsafe { machine().tables.lock().unmap(self.va + offset, size) }.map(|_| ())
    }

    /// Removes the mapping; on return no core uses it.
    pub(super) fn remove(mut self) -> Result<(), MapError> {
        self.unmap()
    }

    fn unmap(&mut self) -> Result<(), MapError> {
        let size = core::mem::take(&mut self.size);
        if size == 0 {
            return Ok(());
        }
        // SAFETY: nothing refers to the mapping: a probe's load has ended.
        unsafe { machine().tables.lock().unmap(self.va, size) }.map(|_| ())
    }
}

impl Drop for Plant {
    fn drop(&mut self) {
        // Without the mapping there is nothing to remove; the test has failed before.
        let _ = self.unmap();
    }
}

/// A translation table that is in use and in no tree, until it is dropped.
#[derive(Debug)]
pub(super) struct LooseTable(PhysAddr);

impl LooseTable {
    /// Takes a table, if there is memory for one.
    pub(super) fn take() -> Option<Self> {
        machine().tables.lock().memory_mut().alloc().map(Self)
    }
}

impl Drop for LooseTable {
    fn drop(&mut self) {
        // SAFETY: the table was handed out to `self` and never linked.
        unsafe { machine().tables.lock().memory_mut().free(self.0) };
    }
}

/// A page of the image that belongs to a test: mapped by itself and nowhere else.
#[repr(C, align(4096))]
struct OwnPage(UnsafeCell<[u64; WORDS]>);

const WORDS: usize = PAGE_SIZE / size_of::<u64>();

// SAFETY: only `own_page` and its users below refer to it, which run on the core of the tests.
unsafe impl Sync for OwnPage {}

static OWN_PAGE: OwnPage = OwnPage(UnsafeCell::new([0; WORDS]));

/// Where the page is.
pub(super) fn own_page() -> VirtAddr {
    VirtAddr::from_ptr(OWN_PAGE.0.get())
}

/// Writes `seed` and what follows to the page.
pub(super) fn fill_own_page(seed: u64) {
    for index in 0..WORDS {
        // SAFETY: the word is in the page, which is mapped whatever its type, and nobody else uses.
        unsafe {
            own_page()
                .as_ptr::<u64>()
                .add(index)
                .write_volatile(seed ^ index as u64);
        }
    }
}

/// The first word of the page that is not what [`fill_own_page`] wrote.
pub(super) fn own_page_mismatch(seed: u64) -> Option<usize> {
    // SAFETY: as for writing.
    let word = |index| unsafe { own_page().as_ptr::<u64>().add(index).read_volatile() };
    (0..WORDS).find(|&index| word(index) != seed ^ index as u64)
}

/// Gives the page another type, in place.
pub(super) fn retype_own_page(memory_type: MemoryType) -> Result<(), MapError> {
    let page = own_page();
    // SAFETY: nothing refers to the page but the volatile accesses above, no device knows it, and
    // the image's frames are mapped nowhere else.
    unsafe {
        machine()
            .tables
            .lock()
            .change_type(page, page, PAGE_SIZE, memory_type)
    }
}
