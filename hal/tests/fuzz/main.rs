//! Random calls of the page and object allocators, right ones and wrong ones, against an independent
//! record of who owns what.
//!
//! The calls follow from one seed (`FUZZ_SEED`), so a failure repeats; `FUZZ_CALLS` says how many,
//! a million in the lane `fuzz` of `make test`. Every call's result is
//! judged: memory handed out overlaps nothing in use, lies in a zone the flags admit, is aligned
//! and, if asked for, zeroed or constructed; what is resized keeps its content; every right free
//! succeeds; every wrong one is refused; the owner is charged for what it has and no more than it
//! may have. Some allocations are made to fail. Memory in use is signed and checked. Now and then
//! everything is freed, and the zones must look as at first.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test stops at what should not be"
)]

mod cache;
mod machine;
mod object;
mod page;
mod random;
mod record;
mod wrong;

use cache::CACHES;
use hal::addr::{PAGE_SIZE, Pfn, PhysRange, VirtAddr};
use hal::layout;
use hal::mm::{AllocError, ChargeScope, Gfp, Owner, charge_to, fault};
use machine::Machine;
use random::Random;
use record::{Block, Kind, Record, bytes_at};
use std::collections::BTreeMap;

/// Calls and seed of a run that is not told otherwise.
const CALLS: u64 = 25_000;
const SEED: u64 = 0x5EED;

/// Calls between two times that everything is freed.
const EPOCH: u64 = 20_000;

/// What may be in use at once.
const MOST_IN_USE: usize = 3_000;

/// Who is charged, and so little that requests are refused.
static OWNER: Owner = Owner::new("fuzz", 8 << 20);

/// One call in this many has an allocation made to fail, one of the first few.
const FAILING: u64 = 32;
const FIRST_FEW: u64 = 4;

struct Fuzz {
    machine: Machine,
    random: Random,
    record: Record,
    _charged: ChargeScope,
    served: u64,
    /// Whether the last call had an allocation made to fail.
    injected: bool,
    made_to_fail: u64,
    no_memory: u64,
    over_limit: u64,
    /// Calls that were wrong and refused, by the name of the error.
    refusals: BTreeMap<&'static str, u64>,
}

impl Fuzz {
    fn new(seed: u64) -> Self {
        Self {
            machine: Machine::new(),
            random: Random(seed),
            record: Record::default(),
            _charged: charge_to(&OWNER).unwrap(),
            served: 0,
            injected: false,
            made_to_fail: 0,
            no_memory: 0,
            over_limit: 0,
            refusals: BTreeMap::new(),
        }
    }

    fn step(&mut self) {
        let full = self.record.len() >= MOST_IN_USE;
        match self.random.below(100) {
            0..13 if !full => self.alloc_pages(),
            13..15 if !full => self.alloc_exact(),
            15..36 if !full => self.kmalloc(),
            36..46 if !full => self.alloc_cached(),
            46..47 if !full => self.alloc_bulk(),
            47..81 => self.free_any(),
            81..83 => self.free_bulk(),
            83..87 => self.krealloc(),
            87..88 => self.split(),
            88..90 => self.wild_free(),
            90..91 => self.foreign_free(),
            91..95 => self.look(),
            95..97 => self.wrong_free_of_any(),
            97 => self.machine.pages.drain(),
            98 => self.machine.kmalloc.shrink(),
            _ => {
                let cache = self.random.below(CACHES.len() as u64) as usize;
                CACHES[cache].shrink(self.machine.pages);
            }
        }
        assert_eq!(OWNER.used(), self.record.charged);
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
        let none = Gfp::empty();
        let zone = self.random.pick(&[none, none, none, Gfp::DMA, Gfp::DMA32]);
        let zero = self.random.pick(&[none, none, Gfp::ZERO]);
        let account = self.random.pick(&[none, none, none, Gfp::ACCOUNT]);
        base | zone | zero | account | Gfp::NOWARN
    }

    /// Flags that make sense for an object.
    fn object_gfp(&mut self) -> Gfp {
        self.gfp().difference(Gfp::MOVABLE | Gfp::HIGHMEM)
    }

    /// Makes a call, now and then one whose memory runs out.
    fn call<T>(&mut self, call: impl FnOnce(&Machine) -> T) -> T {
        if self.random.one_in(FAILING) {
            fault::fail_nth(1 + self.random.below(FIRST_FEW) as u32);
        }
        let result = call(&self.machine);
        self.injected = fault::has_fired();
        if fault::is_armed() {
            fault::disarm();
        }
        result
    }

    /// Judges new memory and takes it into the record.
    fn took(
        &mut self,
        va: VirtAddr,
        len: usize,
        align: usize,
        gfp: Gfp,
        kind: Kind,
        charged: usize,
    ) {
        let start = va.get();
        assert!(start.is_multiple_of(align), "{va}: {len} bytes, {kind:?}");
        let pa = layout::virt_to_phys(va).expect("in the direct map");
        let range = PhysRange::from_size(pa, len as u64).unwrap();
        assert!(self.machine.ram.contains_range(&range), "{range} is no RAM");
        // Objects of a cache come from slabs of any zone the cache admits.
        if !matches!(kind, Kind::Cached(_)) {
            let end = self.machine.end_of(gfp);
            assert!(range.end <= end, "{range} for {gfp:?}");
        }
        if gfp.contains(Gfp::ZERO) {
            // SAFETY: the allocator handed the bytes to this test.
            let bytes = unsafe { bytes_at(start, len) };
            assert!(is_zero(bytes), "{va} is not zeroed");
        }
        let tag = self.random.draw() as u8;
        self.record.insert(start, len, kind, charged, tag);
        self.served += 1;
    }

    /// Judges why a right request got nothing.
    fn refused(&mut self, error: &AllocError) {
        match error {
            AllocError::NoMemory { .. } if self.injected => self.made_to_fail += 1,
            AllocError::NoMemory { .. } => self.no_memory += 1,
            AllocError::OverLimit {
                used, limit, bytes, ..
            } => {
                // A call for several objects may have had some of them.
                assert!(
                    *used >= self.record.charged && used + bytes > *limit,
                    "{error}"
                );
                self.over_limit += 1;
            }
            error => panic!("{error}"),
        }
    }

    /// Frees a block as it should be freed.
    fn free(&mut self, start: usize, block: Block) -> Result<(), wrong::Refusal> {
        let object = std::ptr::with_exposed_provenance_mut::<u8>(start);
        let Machine { pages, kmalloc, .. } = self.machine;
        let other_way = self.random.one_in(4);
        // SAFETY: either the block is this test's and was taken from the record, or it is one the
        // record does not hold any more, and the call must refuse it.
        unsafe {
            match block.kind {
                Kind::Pages(order) => pages.free_pages(pfn_at(start), order)?,
                Kind::Exact => pages.free_pages_exact(VirtAddr::new(start), block.len)?,
                Kind::Object if other_way => kmalloc.kfree_sensitive(object)?,
                Kind::Object => kmalloc.kfree(object)?,
                Kind::Cached(_) if other_way => kmalloc.kfree(object)?,
                Kind::Cached(number) => CACHES[number].free(pages, object)?,
            }
        }
        Ok(())
    }

    fn free_any(&mut self) {
        let Some((start, block)) = self.record.any(&mut self.random) else {
            return;
        };
        if self.random.one_in(16) {
            self.wrong_free(start, block);
        }
        self.record.remove(start);
        self.free_rightly(start, block);
        if self.random.one_in(16) {
            let again = self.free(start, block);
            self.judge(again, block);
        }
    }

    /// Frees a block that has left the record.
    fn free_rightly(&mut self, start: usize, block: Block) {
        block.prepare(start);
        if let Err(refusal) = self.free(start, block) {
            panic!("{start:#x} {block:?}: {refusal:?}");
        }
    }

    fn look(&mut self) {
        if let Some((start, block)) = self.record.any(&mut self.random) {
            block.check(start);
            let object = std::ptr::with_exposed_provenance::<u8>(start);
            let size = self.machine.kmalloc.ksize(object);
            match block.kind {
                Kind::Object | Kind::Cached(_) => assert_eq!(size, Ok(block.len)),
                Kind::Pages(_) | Kind::Exact => assert!(size.is_err()),
            }
        }
    }

    /// Frees everything.
    fn end_epoch(&mut self) {
        while let Some((start, block)) = self.record.pop() {
            self.free_rightly(start, block);
        }
        assert_eq!(OWNER.used(), 0, "nothing is in use");
        self.machine.give_back();
    }
}

fn is_zero(bytes: &[u8]) -> bool {
    const ZEROES: [u8; PAGE_SIZE] = [0; PAGE_SIZE];
    bytes
        .chunks(PAGE_SIZE)
        .all(|chunk| *chunk == ZEROES[..chunk.len()])
}

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
    let mut fuzz = Fuzz::new(seed);
    let before = fuzz.machine.zones();
    for call in 1..=calls {
        fuzz.step();
        if call % EPOCH == 0 || call == calls {
            fuzz.end_epoch();
            let now = fuzz.machine.zones();
            assert_eq!(now, before, "after {call} calls from seed {seed:#x}");
        }
    }
    let wrong: u64 = fuzz.refusals.values().sum();
    println!(
        "{calls} calls from seed {seed:#x}: {} served, {} made to fail, {} without memory, \
         {} over the limit, {wrong} wrong ones refused: {:?}",
        fuzz.served, fuzz.made_to_fail, fuzz.no_memory, fuzz.over_limit, fuzz.refusals
    );
    let missed = wrong::WANTED
        .iter()
        .find(|name| !fuzz.refusals.contains_key(**name));
    assert_eq!(missed, None, "the calls were too tame");
    let refused = [fuzz.made_to_fail, fuzz.no_memory, fuzz.over_limit];
    assert!(
        refused.iter().all(|count| *count > 0) && wrong > calls / 50,
        "the calls were too tame: {refused:?}, {wrong}"
    );
}
