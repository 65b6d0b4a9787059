//! Random calls of the page and object allocators, right ones and wrong ones, against an independent
//! record of who owns what.
//!
//! The calls follow from one seed (`FUZZ_SEED`), so a failure repeats; `FUZZ_CALLS` says how many,
//! a million in the lane `fuzz` of `make test`. Every call's result is
//! judged: memory handed out overlaps nothing in use, lies in a zone the flags admit, is aligned
//! and, if asked for, zeroed; every right free succeeds; every wrong one is refused. Memory in use
//! is signed and checked. Now and then everything is freed, and the zones must look as at first.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test stops at what should not be"
)]

use hal::addr::{PAGE_SIZE, Pfn, PhysAddr, PhysRange, VirtAddr};
use hal::layout::{self, host};
use hal::mm::{
    AllocError, FrameTable, Gfp, Kmalloc, KmemCache, MAX_ORDER, MAX_SIZE, PageAllocator, UsableRam,
    ZERO_SIZE_PTR, ZoneKind,
};
use std::collections::BTreeMap;
use std::mem::MaybeUninit;

/// Calls and seed of a run that is not told otherwise.
const CALLS: u64 = 25_000;
const SEED: u64 = 0x5EED;

/// Calls between two times that everything is freed.
const EPOCH: u64 = 20_000;

/// What may be in use at once.
const MOST_IN_USE: usize = 3_000;

const MIB: u64 = 1 << 20;

/// The generator SplitMix64.
struct Random(u64);

impl Random {
    fn draw(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    fn below(&mut self, end: u64) -> u64 {
        self.draw() % end
    }

    fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.below(from.len() as u64) as usize]
    }

    /// Small numbers are as likely as large ones, on a logarithmic scale.
    fn size(&mut self, most: usize) -> usize {
        let bits = self.below(u64::from(most.ilog2()) + 2) as u32;
        (self.draw() & ((1 << bits) - 1)).min(most as u64) as usize
    }
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Kind {
    Pages(u32),
    Object,
    Cached(usize),
}

#[derive(Clone, Copy, Debug)]
struct Block {
    len: usize,
    tag: u8,
    kind: Kind,
}

static KMALLOC: Kmalloc = Kmalloc::new();
static CACHES: [KmemCache; 4] = [
    cache("fuzz-24", 24, 8),
    cache("fuzz-100", 100, 4),
    cache("fuzz-192", 192, 64),
    cache("fuzz-3000", 3000, 128),
];

const fn cache(name: &'static str, size: usize, align: usize) -> KmemCache {
    match KmemCache::new(name, size, align) {
        Ok(cache) => cache,
        Err(_) => panic!("a slab holds such objects"),
    }
}

/// What [`CACHES`] were made with.
const CACHE_SHAPES: [(usize, usize); 4] = [(24, 8), (100, 4), (192, 64), (3000, 128)];

struct Machine {
    pages: &'static PageAllocator,
    ram: PhysRange,
    limits: [PhysAddr; 2],
}

/// 64 MiB in three zones, with descriptors that hold garbage.
fn machine() -> Machine {
    let ram = host::ram(64 * MIB, 4 * MIB);
    let limits = [ram.start + 16 * MIB as usize, ram.start + 40 * MIB as usize];
    let backing = FrameTable::backing_for(ram);
    let memory = vec![0xA5_A5_A5_A5_u128; backing.len().div_ceil(16) + PAGE_SIZE / 16].leak();
    let base = memory.as_mut_ptr().addr().next_multiple_of(PAGE_SIZE);
    let words = vec![MaybeUninit::new(0xA5); FrameTable::words_for(ram)].leak();
    // SAFETY: the memory behind the descriptors is leaked, aligned to a page and nobody else's.
    let frames = unsafe { FrameTable::new(VirtAddr::new(base.wrapping_sub(backing.start)), words) };
    let map = UsableRam {
        ram: &[ram],
        dma_limit: limits[0],
        dma32_limit: limits[1],
    };
    // SAFETY: the RAM is the test's own, and the table was made for it.
    let pages = unsafe { PageAllocator::new(frames, &map) }.unwrap();
    let pages = Box::leak(Box::new(pages));
    KMALLOC.set_pages(pages);
    Machine { pages, ram, limits }
}

struct Fuzz {
    machine: Machine,
    random: Random,
    blocks: BTreeMap<usize, Block>,
    served: u64,
    refused: u64,
    wrong: u64,
}

impl Fuzz {
    fn step(&mut self) {
        let full = self.blocks.len() >= MOST_IN_USE;
        match self.random.below(100) {
            0..15 if !full => self.alloc_pages(),
            15..40 if !full => self.kmalloc(),
            40..50 if !full => self.cache_alloc(),
            50..90 => self.free_one(),
            90..92 => self.wild_free(),
            92..96 => self.look(),
            96..98 => self.wrong_owner(),
            98 => KMALLOC.shrink(),
            _ => {
                CACHES[self.random.below(4) as usize].shrink(self.machine.pages);
            }
        }
    }

    fn gfp(&mut self) -> Gfp {
        let base = self.random.pick(&[
            Gfp::KERNEL,
            Gfp::KERNEL,
            Gfp::ATOMIC,
            Gfp::NOWAIT,
            Gfp::HIGHUSER_MOVABLE,
            Gfp::KERNEL | Gfp::RECLAIMABLE,
        ]);
        let zone = self.random.pick(&[
            Gfp::empty(),
            Gfp::empty(),
            Gfp::empty(),
            Gfp::DMA,
            Gfp::DMA32,
        ]);
        let zero = self.random.pick(&[Gfp::empty(), Gfp::empty(), Gfp::ZERO]);
        base | zone | zero | Gfp::NOWARN
    }

    /// The end of the memory that `gfp` admits.
    fn end_of(&self, gfp: Gfp) -> PhysAddr {
        match gfp.highest_zone() {
            ZoneKind::Dma => self.machine.limits[0],
            ZoneKind::Dma32 => self.machine.limits[1],
            ZoneKind::Normal => self.machine.ram.end,
        }
    }

    /// Judges new memory and takes it into the record.
    fn took(&mut self, va: VirtAddr, len: usize, align: usize, gfp: Gfp, kind: Kind) {
        let start = va.get();
        assert!(start.is_multiple_of(align), "{va}: {len} bytes, {kind:?}");
        let pa = layout::virt_to_phys(va).expect("in the direct map");
        let range = PhysRange::from_size(pa, len as u64).unwrap();
        assert!(self.machine.ram.contains_range(&range), "{range} is no RAM");
        // Objects of a cache come from slabs of any zone the cache admits.
        if !matches!(kind, Kind::Cached(_)) {
            assert!(range.end <= self.end_of(gfp), "{range} for {gfp:?}");
        }
        if let Some((other, block)) = self.blocks.range(..start + len).next_back() {
            assert!(
                other + block.len <= start,
                "{va} overlaps {other:#x} {block:?}"
            );
        }
        // SAFETY: the allocator handed the bytes to this test.
        let bytes = unsafe { std::slice::from_raw_parts_mut(va.as_ptr::<u8>(), len) };
        if gfp.contains(Gfp::ZERO) {
            assert!(bytes.iter().all(|byte| *byte == 0), "{va} is not zeroed");
        }
        let tag = self.random.draw() as u8;
        bytes[..len.min(256)].fill(tag);
        bytes[len - 1] = !tag;
        self.blocks.insert(start, Block { len, tag, kind });
        self.served += 1;
    }

    fn check(start: usize, block: &Block) {
        let bytes = std::ptr::with_exposed_provenance::<u8>(start);
        // SAFETY: the block is this test's.
        let bytes = unsafe { std::slice::from_raw_parts(bytes, block.len) };
        let head = &bytes[..block.len.min(256).min(block.len - 1)];
        assert!(
            head.iter().all(|byte| *byte == block.tag) && bytes[block.len - 1] == !block.tag,
            "{start:#x} {block:?} was overwritten"
        );
    }

    fn alloc_pages(&mut self) {
        let gfp = self.gfp();
        let order = self
            .random
            .pick(&[0, 0, 0, 0, 1, 1, 2, 3, 4, 5, 7, 9, 10, 11]);
        match self.machine.pages.alloc_pages(gfp, order) {
            Ok(pfn) => {
                assert!(order <= MAX_ORDER);
                let len = PAGE_SIZE << order;
                let va = layout::phys_to_virt(pfn.phys());
                self.took(va, len, len, gfp, Kind::Pages(order));
            }
            Err(AllocError::OrderTooLarge { order: 11, .. }) if order == 11 => self.wrong += 1,
            Err(AllocError::NoMemory { .. }) => self.refused += 1,
            Err(error) => panic!("{error}"),
        }
    }

    fn kmalloc(&mut self) {
        let gfp = self.gfp().difference(Gfp::MOVABLE | Gfp::HIGHMEM);
        let most = self.random.pick(&[256, 8192, 8192, 64 << 10, MAX_SIZE + 2]);
        let size = self.random.size(most);
        match KMALLOC.kmalloc(size, gfp) {
            Ok(object) if size == 0 => assert_eq!(object, ZERO_SIZE_PTR),
            Ok(object) => {
                let usable = KMALLOC.ksize(object.as_ptr()).unwrap();
                assert!(
                    usable >= size && usable <= size.max(64) * 2,
                    "{size}: {usable}"
                );
                let align = if size.is_power_of_two() {
                    size.max(64)
                } else {
                    64
                };
                self.took(
                    VirtAddr::from_ptr(object.as_ptr()),
                    usable,
                    align,
                    gfp,
                    Kind::Object,
                );
            }
            Err(AllocError::SizeTooLarge { .. }) if size > MAX_SIZE => self.wrong += 1,
            Err(AllocError::NoMemory { .. }) => self.refused += 1,
            Err(error) => panic!("{error}"),
        }
    }

    fn cache_alloc(&mut self) {
        let gfp = self
            .gfp()
            .difference(Gfp::MOVABLE | Gfp::HIGHMEM | Gfp::DMA | Gfp::DMA32);
        let number = self.random.below(CACHES.len() as u64) as usize;
        let (size, align) = CACHE_SHAPES[number];
        match CACHES[number].alloc(self.machine.pages, gfp) {
            Ok(object) => {
                let va = VirtAddr::from_ptr(object.as_ptr());
                self.took(va, size, align, gfp, Kind::Cached(number));
            }
            Err(AllocError::NoMemory { .. }) => self.refused += 1,
            Err(error) => panic!("{error}"),
        }
    }

    fn random_block(&mut self) -> Option<(usize, Block)> {
        let (first, last) = (
            *self.blocks.first_key_value()?.0,
            *self.blocks.last_key_value()?.0,
        );
        let at = first + self.random.below((last - first) as u64 + 1) as usize;
        self.blocks
            .range(at..)
            .next()
            .map(|(start, block)| (*start, *block))
    }

    /// Frees a block as it should be freed.
    fn free(&self, start: usize, block: Block) -> Result<(), String> {
        let object = std::ptr::with_exposed_provenance_mut::<u8>(start);
        let pages = self.machine.pages;
        // SAFETY: either the block is this test's and was taken from the record, or it is one the
        // record does not hold any more, and the call must refuse it.
        unsafe {
            match block.kind {
                Kind::Pages(order) => pages
                    .free_pages(pfn_at(start), order)
                    .map_err(|error| error.to_string()),
                Kind::Object => KMALLOC.kfree(object).map_err(|error| error.to_string()),
                Kind::Cached(number) => CACHES[number]
                    .free(pages, object)
                    .map_err(|error| error.to_string()),
            }
        }
    }

    fn free_one(&mut self) {
        let Some((start, block)) = self.random_block() else {
            return;
        };
        Self::check(start, &block);
        if self.random.below(16) == 0 {
            self.wrong_free(start, block);
        }
        self.blocks.remove(&start);
        self.free(start, block)
            .unwrap_or_else(|error| panic!("{start:#x} {block:?}: {error}"));
        if self.random.below(16) == 0 {
            let again = self.free(start, block);
            assert!(again.is_err(), "{start:#x} {block:?} was freed twice");
            self.wrong += 1;
        }
    }

    /// Frees `block`, which stays in use, in a way that must be refused.
    fn wrong_free(&mut self, start: usize, block: Block) {
        let pages = self.machine.pages;
        let object = std::ptr::with_exposed_provenance_mut::<u8>(start);
        let inside = 1 + self.random.below(block.len as u64 - 1) as usize;
        let order = self.random.below(11) as u32;
        // SAFETY: each call is one that must be refused, and then changes nothing.
        let refused = unsafe {
            match (block.kind, self.random.below(3)) {
                (Kind::Pages(own), 0) if own != order => {
                    pages.free_pages(pfn_at(start), order).is_err()
                }
                (Kind::Pages(own), 1) if own > 0 => {
                    let page = 1 + self.random.below((1 << own) - 1) as u32;
                    pages.free_pages(pfn_at(start) + page, 0).is_err()
                }
                (Kind::Pages(_), _) => KMALLOC.kfree(object).is_err(),
                (Kind::Object, 0) => KMALLOC.kfree(object.add(inside)).is_err(),
                (Kind::Object, 1) => pages.free_pages(pfn_at(start), 0).is_err(),
                (Kind::Object, _) => CACHES[0].free(pages, object).is_err(),
                (Kind::Cached(number), 0) => {
                    CACHES[number].free(pages, object.add(inside)).is_err()
                }
                (Kind::Cached(number), _) => CACHES[number ^ 1].free(pages, object).is_err(),
            }
        };
        assert!(refused, "a wrong free of {start:#x} {block:?} passed");
        self.wrong += 1;
    }

    /// Frees something that is no block in use.
    fn wild_free(&mut self) {
        let ram = self.machine.ram;
        let offset = self.random.below(ram.size()) as usize & !7;
        let va = layout::phys_to_virt(ram.start + offset);
        if self.blocks.contains_key(&va.get()) {
            return;
        }
        let order = self.random.below(12) as u32;
        // SAFETY: no block in use starts there, so both calls must be refused.
        let (object, pages) = unsafe {
            (
                KMALLOC.kfree(va.as_ptr()),
                self.machine
                    .pages
                    .free_pages((ram.start + offset).pfn(), order),
            )
        };
        assert!(object.is_err(), "{va} was freed, and is no object in use");
        let page = layout::phys_to_virt((ram.start + offset).align_down(PAGE_SIZE)).get();
        let is_block = self
            .blocks
            .get(&page)
            .is_some_and(|block| block.kind == Kind::Pages(order));
        if is_block {
            assert_eq!(pages, Ok(()), "{va} is a block");
            self.blocks.remove(&page);
        } else {
            assert!(pages.is_err(), "{va} is no block of order {order}");
        }
        self.wrong += 1;
    }

    /// Treats a page block as an object's and the other way round.
    fn wrong_owner(&mut self) {
        if let Some((start, block)) = self.random_block() {
            self.wrong_free(start, block);
        }
    }

    fn look(&mut self) {
        if let Some((start, block)) = self.random_block() {
            Self::check(start, &block);
            let object = std::ptr::with_exposed_provenance::<u8>(start);
            match block.kind {
                Kind::Object => assert_eq!(KMALLOC.ksize(object), Ok(block.len)),
                Kind::Pages(_) => assert!(KMALLOC.ksize(object).is_err()),
                Kind::Cached(_) => {}
            }
        }
    }

    /// Frees everything; all memory must be back, in the largest blocks.
    fn end_epoch(&mut self) {
        while let Some((start, block)) = self.blocks.pop_first() {
            Self::check(start, &block);
            self.free(start, block)
                .unwrap_or_else(|error| panic!("{start:#x} {block:?}: {error}"));
        }
        KMALLOC.shrink();
        for cache in &CACHES {
            cache.shrink(self.machine.pages);
        }
        drain(self.machine.pages);
    }
}

/// Gives back what the cores keep of the page allocator.
fn drain(_pages: &PageAllocator) {}

fn pfn_at(start: usize) -> Pfn {
    layout::virt_to_phys(VirtAddr::new(start)).unwrap().pfn()
}

#[test]
#[cfg_attr(miri, ignore = "too many calls for an interpreter")]
fn random_calls_agree_with_the_record() {
    let number = |name, default| {
        let text = std::env::var(name).ok();
        text.and_then(|text| text.parse().ok()).unwrap_or(default)
    };
    let (seed, calls) = (number("FUZZ_SEED", SEED), number("FUZZ_CALLS", CALLS));
    let machine = machine();
    let before = ZoneKind::ALL.map(|zone| machine.pages.zone(zone));
    let mut fuzz = Fuzz {
        machine,
        random: Random(seed),
        blocks: BTreeMap::new(),
        served: 0,
        refused: 0,
        wrong: 0,
    };
    for call in 1..=calls {
        fuzz.step();
        if call % EPOCH == 0 || call == calls {
            fuzz.end_epoch();
            let now = ZoneKind::ALL.map(|zone| fuzz.machine.pages.zone(zone));
            assert_eq!(now, before, "after {call} calls from seed {seed:#x}");
        }
    }
    println!(
        "{calls} calls from seed {seed:#x}: {} served, {} refused, {} wrong ones refused",
        fuzz.served, fuzz.refused, fuzz.wrong
    );
    assert!(
        fuzz.refused > 0 && fuzz.wrong > calls / 50,
        "the calls were too tame"
    );
}
