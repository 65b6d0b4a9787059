//! The machine whose allocators are called.

use hal::addr::{PAGE_SIZE, PhysAddr, PhysRange, VirtAddr};
use hal::layout::host;
use hal::mm::{self, FrameTable, Gfp, Kmalloc, PageAllocator, UsableRam, ZoneInfo, ZoneKind};
use std::mem::MaybeUninit;

const MIB: u64 = 1 << 20;

/// What the zones have, DMA first. The last is large enough for lists of every order that the
/// cores keep at hand, and the first so small that it runs out.
const ZONES: [u64; 3] = [8 * MIB, 24 * MIB, 128 * MIB];

pub(crate) struct Machine {
    pub(crate) pages: &'static PageAllocator,
    pub(crate) kmalloc: &'static Kmalloc,
    pub(crate) ram: PhysRange,
    limits: [PhysAddr; 2],
}

impl Machine {
    /// The process's own machine, whose cores keep pages at hand. Its descriptors hold garbage.
    pub(crate) fn new() -> Self {
        let ram = host::ram(ZONES.iter().sum(), 4 * MIB);
        let dma = ram.start + ZONES[0] as usize;
        let limits = [dma, dma + ZONES[1] as usize];
        let backing = FrameTable::backing_for(ram);
        let memory = vec![0xA5_A5_A5_A5_u128; backing.len().div_ceil(16) + PAGE_SIZE / 16].leak();
        let base = memory.as_mut_ptr().addr().next_multiple_of(PAGE_SIZE);
        let words = vec![MaybeUninit::new(0xA5); FrameTable::words_for(ram)].leak();
        let base = VirtAddr::new(base.wrapping_sub(backing.start));
        // SAFETY: the memory behind the descriptors is leaked, aligned to a page and nobody else's.
        let frames = unsafe { FrameTable::new(base, words) };
        let map = UsableRam {
            ram: &[ram],
            dma_limit: limits[0],
            dma32_limit: limits[1],
        };
        // SAFETY: the RAM is the test's own, the table was made for it, and one thread runs.
        unsafe { mm::init(frames, &map, &[]) }.unwrap();
        Self {
            pages: mm::pages().unwrap(),
            kmalloc: mm::kmalloc_caches(),
            ram,
            limits,
        }
    }

    /// The end of the memory that `gfp` admits.
    pub(crate) fn end_of(&self, gfp: Gfp) -> PhysAddr {
        match gfp.highest_zone() {
            ZoneKind::Dma => self.limits[0],
            ZoneKind::Dma32 => self.limits[1],
            ZoneKind::Normal => self.ram.end,
        }
    }

    /// Gives back what the caches and the executing core keep.
    pub(crate) fn give_back(&self) {
        self.kmalloc.shrink();
        for cache in mm::named_caches() {
            let left = cache.shrink(self.pages);
            assert!(!left, "{} keeps a slab", cache.name());
        }
        self.pages.drain();
    }

    pub(crate) fn zones(&self) -> [ZoneInfo; ZoneKind::COUNT] {
        ZoneKind::ALL.map(|zone| self.pages.zone(zone))
    }
}
