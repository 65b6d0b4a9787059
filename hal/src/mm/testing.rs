//! What the tests of this module share: machines made of pretended RAM, and an oracle.

use super::pcp::AtHand;
use super::{FrameTable, Gfp, MAX_ORDER, PageAllocator, Shrinker, UsableRam};
use crate::addr::{Pfn, PhysAddr, PhysRange, VirtAddr};
use crate::layout::host;
use core::mem::MaybeUninit;
use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Bytes of a descriptor.
const GARBAGE: usize = 16;

/// What looks like the descriptor of a free block of `order`.
fn garbage(order: u8) -> [u8; GARBAGE] {
    let mut garbage = [0xA5; GARBAGE];
    (garbage[0], garbage[1]) = (1, order);
    garbage
}

/// A frame table for the frames of `span`, whose memory holds garbage: what would be free blocks
/// of every order, with links and types of 0xA5.
pub(super) fn frame_table(span: PhysRange) -> FrameTable {
    let backing = FrameTable::backing_for(span);
    let layout = std::alloc::Layout::from_size_align(backing.len().max(64), 4096).unwrap();
    // SAFETY: the layout's size is not zero.
    let memory = unsafe { std::alloc::alloc(layout) };
    assert!(!memory.is_null());
    // The first few are written, and copied on and on: a loop over all takes an interpreter seconds.
    let heads: Vec<[u8; GARBAGE]> = (0..=MAX_ORDER as u8).map(garbage).collect();
    let (mut have, want) = (heads.len() * GARBAGE, layout.size());
    // SAFETY: the allocation has `want` bytes, of which the first `have` are written each time.
    unsafe {
        memory.copy_from_nonoverlapping(heads.as_ptr().cast(), have.min(want));
        while have < want {
            memory
                .add(have)
                .copy_from_nonoverlapping(memory, have.min(want - have));
            have *= 2;
        }
    }
    let words = vec![MaybeUninit::new(0xA5); FrameTable::words_for(span)];
    let base = VirtAddr::from_ptr(memory).get().wrapping_sub(backing.start);
    // SAFETY: the backing of the span is leaked, fresh memory.
    unsafe { FrameTable::new(VirtAddr::new(base), words.leak()) }
}

/// Pretended RAM of `mib` MiB, aligned to 4 MiB.
pub(crate) fn ram(mib: u64) -> PhysRange {
    host::ram(mib << 20, 4 << 20)
}

/// A page allocator for `ranges`, all in the NORMAL zone, that keeps blocks at hand.
pub(super) fn with_lists(ranges: &[PhysRange]) -> &'static PageAllocator {
    let pages = build(ranges, PhysAddr::new(0), PhysAddr::new(0));
    // SAFETY: on the host each allocator has lists of its own.
    let pages = unsafe { pages.with_lists(Box::leak(Box::new(AtHand::new()))) };
    Box::leak(Box::new(pages))
}

/// A page allocator for `ranges`, with one zone boundary pair.
pub(super) fn pages(
    ranges: &[PhysRange],
    dma_limit: PhysAddr,
    dma32_limit: PhysAddr,
) -> &'static PageAllocator {
    Box::leak(Box::new(build(ranges, dma_limit, dma32_limit)))
}

/// A page allocator for `ram` and what `area`, behind it, lends, all in the NORMAL zone.
pub(crate) fn with_area(ram: PhysRange, area: PhysRange) -> &'static PageAllocator {
    let map = UsableRam {
        ram: &[ram],
        dma_limit: PhysAddr::new(0),
        dma32_limit: PhysAddr::new(0),
    };
    let frames = frame_table(PhysRange::new(ram.start, area.end));
    // SAFETY: the test's ranges are its own, and the table was made for them.
    let pages = unsafe {
        let mut pages = PageAllocator::new(frames, &map).unwrap();
        pages.lend(area).unwrap();
        pages
    };
    Box::leak(Box::new(pages))
}

fn build(ranges: &[PhysRange], dma_limit: PhysAddr, dma32_limit: PhysAddr) -> PageAllocator {
    let start = ranges.iter().map(|r| r.start).min().unwrap();
    let end = ranges.iter().map(|r| r.end).max().unwrap();
    let map = UsableRam {
        ram: ranges,
        dma_limit,
        dma32_limit,
    };
    // SAFETY: the test's ranges are its own, and the table was made for them.
    let pages = unsafe { PageAllocator::new(frame_table(PhysRange::new(start, end)), &map) };
    pages.unwrap()
}

/// A machine with `mib` MiB in the NORMAL zone.
pub(super) fn normal_machine(mib: u64) -> (&'static PageAllocator, PhysRange) {
    let ram = ram(mib);
    (pages(&[ram], PhysAddr::new(0), PhysAddr::new(0)), ram)
}

/// Which stretches of numbers are taken: an independent record to check an allocator against.
#[derive(Default)]
pub(super) struct Oracle {
    taken: BTreeMap<u64, u64>,
}

impl Oracle {
    /// Records `start..start + len`, which must overlap nothing taken.
    pub(super) fn take(&mut self, start: u64, len: u64) {
        let before = self.taken.range(..start + len).next_back();
        if let Some((other, size)) = before {
            assert!(other + size <= start, "{start:#x} overlaps {other:#x}");
        }
        self.taken.insert(start, len);
    }

    /// Forgets the entry that starts at `start`.
    pub(super) fn forget(&mut self, start: u64) {
        assert!(
            self.taken.remove(&start).is_some(),
            "{start:#x} is not taken"
        );
    }

    /// The entries at or above `start`.
    pub(super) fn within(&self, start: u64) -> Vec<(u64, u64)> {
        self.taken.range(start..).map(|(s, l)| (*s, *l)).collect()
    }

    /// Whether `number` is part of an entry.
    pub(super) fn holds(&self, number: u64) -> bool {
        let before = self.taken.range(..=number).next_back();
        before.is_some_and(|(start, len)| number < start + len)
    }

    /// Removes and returns the entry with index `index`, modulo the number of entries.
    pub(super) fn remove(&mut self, index: usize) -> Option<(u64, u64)> {
        let at = index.checked_rem(self.taken.len())?;
        let (start, len) = self.taken.iter().nth(at).map(|(s, l)| (*s, *l))?;
        self.taken.remove(&start);
        Some((start, len))
    }
}

/// A cache of single pages that gives them up when asked.
pub(super) struct PageCache {
    name: &'static str,
    needs: Gfp,
    pages: &'static PageAllocator,
    held: Mutex<Vec<Pfn>>,
    /// Calls of `scan`.
    pub(super) scans: AtomicUsize,
    /// Calls of `scan` that give nothing up before the first that does.
    pub(super) reluctance: usize,
}

impl PageCache {
    /// A registered cache of nothing.
    pub(super) fn register(
        pages: &'static PageAllocator,
        name: &'static str,
        needs: Gfp,
        reluctance: usize,
    ) -> &'static Self {
        let cache: &'static Self = Box::leak(Box::new(Self {
            name,
            needs,
            pages,
            held: Mutex::default(),
            scans: AtomicUsize::new(0),
            reluctance,
        }));
        pages.register_shrinker(cache).unwrap();
        cache
    }

    /// Takes `count` pages, or with `usize::MAX` all that `gfp` gets.
    pub(super) fn fill(&self, gfp: Gfp, count: usize) -> usize {
        let taken = (0..count).map_while(|_| self.pages.alloc_pages(gfp, 0).ok());
        let taken: Vec<_> = taken.collect();
        let count = taken.len();
        self.held.lock().unwrap().extend(taken);
        count
    }

    pub(super) fn held(&self) -> usize {
        self.held.lock().unwrap().len()
    }

    pub(super) fn scans(&self) -> usize {
        self.scans.load(Ordering::Relaxed)
    }
}

impl Shrinker for PageCache {
    fn name(&self) -> &'static str {
        self.name
    }

    fn needs(&self) -> Gfp {
        self.needs
    }

    fn count(&self) -> usize {
        self.held()
    }

    fn scan(&self, wanted: usize, _gfp: Gfp) -> usize {
        if self.scans.fetch_add(1, Ordering::Relaxed) < self.reluctance {
            return 0;
        }
        let mut held = self.held.lock().unwrap();
        let keep = held.len().saturating_sub(wanted);
        let given = held.split_off(keep);
        for pfn in &given {
            // SAFETY: the page is the cache's and never touched.
            unsafe { self.pages.free_pages(*pfn, 0) }.unwrap();
        }
        given.len()
    }
}
