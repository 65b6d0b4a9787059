//! The page allocator: picks the zones that may serve a request.

mod exact;
mod slow;

pub use exact::get_order;

use super::buddy::{FreeError, Histogram, ListError, MAX_ORDER, check_allocated};
use super::fault;
use super::frame::{FrameKind, FrameTable};
use super::misuse::{Misuse, refuse_context};
use super::pcp::{self, AtHand, MAX_PCP_ORDER};
use super::reclaim::Reclaim;
use super::watermark::{Mark, Watermarks};
use super::zero::zero;
use super::zone::{Request, TooManyRanges, Zone, ZoneInfo, ZoneKind};
use super::{AllocError, Gfp, MigrateType};
use crate::addr::{PAGE_SHIFT, PAGE_SIZE, Pfn, PhysAddr, PhysRange};
use crate::layout;
use crate::sync::{Context, PerCpu};

/// `lowmem_reserve_ratio` of Linux: a zone keeps 1/ratio of the pages of the zones above it from
/// requests those zones could serve too. Nothing lies above NORMAL.
const LOWMEM_RESERVE_RATIO: [u32; ZoneKind::COUNT] = [256, 256, 32];

/// Largest order that [`Gfp::NOFAIL`] is meant for.
const NOFAIL_ORDER: u32 = 1;

/// The memory of a machine, as the page allocator is told of it.
#[derive(Clone, Copy, Debug)]
pub struct UsableRam<'a> {
    /// Usable RAM, without anything reserved: the image, tables, pools, firmware's own.
    pub ram: &'a [PhysRange],
    /// End of what every DMA master reaches; a multiple of 4 MiB.
    pub dma_limit: PhysAddr,
    /// End of what masters with 32-bit addresses reach; a multiple of 4 MiB, not below
    /// `dma_limit`.
    pub dma32_limit: PhysAddr,
}

/// Why a [`UsableRam`] is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InitError {
    /// Two ranges share memory.
    #[error("RAM ranges {0} and {1} overlap")]
    Overlap(PhysRange, PhysRange),
    /// A zone would end within a block, or before the zone below it.
    #[error("a zone cannot end at {0}")]
    ZoneLimit(PhysAddr),
    /// RAM is in more pieces than a zone can hold ([`MAX_RANGES`](super::MAX_RANGES)).
    #[error("RAM range {0} is one piece too many for the {1} zone")]
    TooManyRanges(PhysRange, ZoneKind),
    /// The memory allocators have been set up already.
    #[error("the memory allocators are set up already")]
    Twice,
}

/// The pages of a machine.
#[derive(Debug)]
pub struct PageAllocator {
    frames: FrameTable,
    zones: [Zone; ZoneKind::COUNT],
    /// What the cores keep at hand, if anything.
    at_hand: Option<&'static AtHand>,
    /// The zone a request starts with, by the highest zone its flags admit: not an empty one.
    start_zone: [ZoneKind; ZoneKind::COUNT],
    pub(super) reclaim: Reclaim,
}

impl PageAllocator {
    /// An allocator for the RAM of `map`. Its cost does not depend on the amount of RAM.
    ///
    /// # Errors
    ///
    /// [`InitError`] when the map contradicts itself.
    ///
    /// # Safety
    ///
    /// The RAM of `map` is unused, belongs to the allocator from now on, is in the direct map, and
    /// `frames` has backing for its descriptors. No other core uses `frames` yet.
    pub unsafe fn new(frames: FrameTable, map: &UsableRam<'_>) -> Result<Self, InitError> {
        let mut this = Self {
            frames: frames.with_zone_limits([map.dma_limit.pfn(), map.dma32_limit.pfn()]),
            at_hand: None,
            zones: [const { Zone::new() }; ZoneKind::COUNT],
            start_zone: ZoneKind::ALL,
            reclaim: Reclaim::new(),
        };
        for limit in [map.dma_limit, map.dma32_limit] {
            if !limit.is_aligned(PAGE_SIZE << MAX_ORDER) || limit < map.dma_limit {
                return Err(InitError::ZoneLimit(limit));
            }
        }
        for (index, range) in map.ram.iter().enumerate() {
            if let Some(other) = map.ram[..index].iter().find(|o| o.overlaps(range)) {
                return Err(InitError::Overlap(*other, *range));
            }
            // SAFETY: the range is the caller's and no other holds any of it.
            unsafe { this.add_ram(*range)? };
        }
        this.set_limits();
        Ok(this)
    }

    /// Lets the tasks of each core keep blocks of small orders at hand, told of by `at_hand`, which
    /// is in no other use. Without, every call takes its zone's lock, and no page is anywhere but
    /// free or in use.
    ///
    /// # Safety
    ///
    /// One core runs, and no other allocator of the machine keeps blocks at hand.
    pub(super) unsafe fn with_lists(mut self, at_hand: &'static AtHand) -> Self {
        let limits = self
            .zones
            .each_ref()
            .map(|zone| pcp::limits(zone.managed()));
        // SAFETY: handed on to the caller.
        unsafe { at_hand.init(self.frames, &limits) };
        for kind in ZoneKind::ALL {
            let starts_here = |highest: &ZoneKind| self.start_zone[*highest as usize] == kind;
            let highest = ZoneKind::ALL.into_iter().filter(starts_here);
            let bits = highest.fold(0, |bits, highest| bits | 1 << highest as u8);
            self.zones[kind as usize].set_lists(at_hand, kind, bits);
        }
        self.at_hand = Some(at_hand);
        self
    }

    /// Deals the whole pages of `range` out to the zones.
    ///
    /// # Safety
    ///
    /// As for [`new`](Self::new).
    unsafe fn add_ram(&mut self, range: PhysRange) -> Result<(), InitError> {
        let limits = self.frames.zone_limits();
        let start = range.start.get().div_ceil(PAGE_SIZE as u64) as u32;
        let end = (range.end.get() >> PAGE_SHIFT) as u32;
        let mut from = start;
        for (kind, zone) in ZoneKind::ALL.into_iter().zip(&mut self.zones) {
            let until = limits
                .get(kind as usize)
                .map_or(end, |limit| end.min(limit.get()));
            if from < until {
                let part = Pfn::new(from)..Pfn::new(until);
                // SAFETY: the parts are disjoint pieces of the caller's range.
                unsafe { zone.add_range(&self.frames, part, MigrateType::Movable) }
                    .map_err(|TooManyRanges| InitError::TooManyRanges(range, kind))?;
                from = until;
            }
        }
        Ok(())
    }

    /// Takes in the frames of a contiguous memory area, lent to movable requests.
    ///
    /// # Errors
    ///
    /// [`InitError::ZoneLimit`] when `area` is not made of whole blocks of [`MAX_ORDER`] in one
    /// zone.
    ///
    /// # Safety
    ///
    /// As for [`new`](Self::new), with `area` in the place of the RAM.
    pub unsafe fn lend(&mut self, area: PhysRange) -> Result<(), InitError> {
        let range = area.start.pfn()..area.end.pfn();
        let last = Pfn::new(range.end.get().wrapping_sub(1));
        for end in [range.start, range.end] {
            if !end.is_order_aligned(MAX_ORDER) || self.zone_of(range.start) != self.zone_of(last) {
                return Err(InitError::ZoneLimit(end.phys()));
            }
        }
        let kind = self.zone_of(range.start);
        let zone = &mut self.zones[kind as usize];
        // SAFETY: handed on to the caller.
        unsafe { zone.add_range(&self.frames, range, MigrateType::Cma) }
            .map_err(|TooManyRanges| InitError::TooManyRanges(area, kind))?;
        self.set_limits();
        Ok(())
    }

    /// The zone that has `pfn`.
    pub(super) fn zone_at(&self, pfn: Pfn) -> &Zone {
        &self.zones[self.zone_of(pfn) as usize]
    }

    fn set_limits(&mut self) {
        let managed = self.zones.each_ref().map(Zone::managed);
        let total = managed.iter().sum();
        for (index, zone) in self.zones.iter_mut().enumerate() {
            let mut reserve = [0; ZoneKind::COUNT];
            let mut above = 0;
            for (pages, reserve) in managed.iter().zip(&mut reserve).skip(index + 1) {
                above += pages;
                *reserve = above / LOWMEM_RESERVE_RATIO[index];
            }
            zone.set_limits(Watermarks::new(managed[index], total), reserve);
        }
        for kind in ZoneKind::ALL {
            let populated = |zone: &&ZoneKind| managed[**zone as usize] != 0;
            let (admitted, above) = ZoneKind::ALL.split_at(kind as usize + 1);
            // Where a board has no memory below a limit, it has no master limited to it either.
            let start = admitted
                .iter()
                .rfind(populated)
                .or(above.iter().find(populated));
            self.start_zone[kind as usize] = *start.unwrap_or(&kind);
        }
    }

    /// The frame descriptors.
    #[inline]
    pub fn frames(&self) -> &FrameTable {
        &self.frames
    }

    /// What a zone holds now.
    pub fn zone(&self, kind: ZoneKind) -> ZoneInfo {
        self.zones[kind as usize].info()
    }

    /// Free blocks of one migrate type in a zone, per order. The only figure that shows isolated
    /// blocks.
    pub fn blocks_of(&self, kind: ZoneKind, migrate: MigrateType) -> Histogram {
        self.zones[kind as usize].blocks_of(migrate)
    }

    /// Looks at every block on a zone's lists of free blocks: whether it is what the list says,
    /// linked both ways, merged and counted. How many there are.
    ///
    /// For tests and ledgers. Any context; takes time in proportion to the blocks, with interrupts
    /// masked.
    ///
    /// # Errors
    ///
    /// [`ListError`]: the first thing that is wrong.
    pub fn validate(&self, kind: ZoneKind) -> Result<u32, ListError> {
        self.zones[kind as usize].validate(&self.frames)
    }

    /// Free pages of all zones.
    pub fn free_pages_total(&self) -> u32 {
        ZoneKind::ALL.iter().map(|kind| self.zone(*kind).free).sum()
    }

    /// The zone that requests which admit zones up to `highest` start with.
    #[inline]
    pub(super) fn start_zone(&self, highest: ZoneKind) -> ZoneKind {
        self.start_zone[highest as usize]
    }

    /// Free pages that a request with `gfp` could be given if no watermark kept them.
    pub(super) fn usable_pages(&self, gfp: Gfp) -> u32 {
        let movable = gfp.migrate_type() == MigrateType::Movable;
        let usable = |zone: ZoneInfo| zone.spare() + if movable { zone.free_cma } else { 0 };
        let highest = self.start_zone(gfp.highest_zone());
        let admitted = self.zones[..=highest as usize].iter();
        admitted.map(|zone| usable(zone.info())).sum()
    }

    /// Pages the allocator was given.
    pub fn managed_pages(&self) -> u32 {
        ZoneKind::ALL
            .iter()
            .map(|kind| self.zones[*kind as usize].managed())
            .sum()
    }

    /// The zone a frame would belong to.
    #[inline]
    pub fn zone_of(&self, pfn: Pfn) -> ZoneKind {
        self.frames.zone_of(pfn)
    }

    /// Allocates `2^order` contiguous pages, aligned to their size. Linux: `alloc_pages`.
    ///
    /// The memory is in the direct map, zeroed only with [`Gfp::ZERO`], and belongs to the caller
    /// until [`free_pages`](Self::free_pages). May be called in any context with flags that do not
    /// block.
    ///
    /// # Errors
    ///
    /// [`AllocError::OrderTooLarge`] above [`MAX_ORDER`], [`AllocError::Context`] where the flags
    /// let the call block and the context does not, [`AllocError::NoMemory`] when no zone the flags
    /// admit can spare a block, with [`Gfp::ACCOUNT`] also [`AllocError::OverLimit`].
    #[inline(always)]
    pub fn alloc_pages(&self, gfp: Gfp, order: u32) -> Result<Pfn, AllocError> {
        let at_hand = self.at_hand.and_then(|at_hand| take(at_hand, gfp, order));
        match at_hand {
            Some(pfn) => Ok(pfn),
            // Taken apart, so that a caller's fast path keeps the result in registers.
            None => match self.alloc_from_zones(gfp, order) {
                Ok(pfn) => Ok(pfn),
                Err(error) => Err(error),
            },
        }
    }

    /// [`alloc_pages`](Self::alloc_pages) for any request.
    #[inline(never)]
    pub(super) fn alloc_from_zones(&self, gfp: Gfp, order: u32) -> Result<Pfn, AllocError> {
        if order > MAX_ORDER {
            return Err(refuse_order(order, gfp));
        }
        check_context(gfp)?;
        if gfp.is_special() || fault::is_armed() {
            return self.alloc_special(gfp, order);
        }
        self.alloc_plain(gfp, order)
    }

    /// Allocates for a request whose flags may be wrong, which may be charged to an owner, or which
    /// may be made to fail.
    #[cold]
    fn alloc_special(&self, gfp: Gfp, order: u32) -> Result<Pfn, AllocError> {
        if let Err(error) = gfp.check() {
            Misuse::Flags(error).note(gfp);
        }
        if gfp.contains(Gfp::NOFAIL) && order > NOFAIL_ORDER {
            Misuse::NofailOrder(order).note(gfp);
        }
        if fault::should_fail(gfp) {
            return Err(AllocError::NoMemory { order, gfp });
        }
        if gfp.contains(Gfp::ACCOUNT) {
            self.alloc_accounted(gfp, order, || self.alloc_plain(gfp, order))
        } else {
            self.alloc_plain(gfp, order)
        }
    }

    #[inline]
    fn alloc_plain(&self, gfp: Gfp, order: u32) -> Result<Pfn, AllocError> {
        let highest = self.start_zone[gfp.highest_zone() as usize];
        let request = Request {
            gfp,
            order,
            highest,
            mark: Mark::Low,
        };
        // Apart from the general case, of which the usual one needs little.
        let pfn = match self.zones[highest as usize].alloc(&self.frames, request) {
            Some(pfn) => pfn,
            None => match self.try_alloc(gfp, order, Mark::Low) {
                Some(pfn) => pfn,
                None => self.alloc_slow(gfp, order)?,
            },
        };
        if gfp.contains(Gfp::ZERO) {
            // SAFETY: the allocator just took the block, which is RAM in the direct map, off its
            // lists, so nobody else uses it.
            unsafe { zero(layout::phys_to_virt(pfn.phys()), PAGE_SIZE << order) };
        }
        Ok(pfn)
    }

    /// Takes a block from the first zone that can spare it above `mark`, without any further
    /// effort.
    #[cold]
    fn try_alloc(&self, gfp: Gfp, order: u32, mark: Mark) -> Option<Pfn> {
        let highest = self.start_zone(gfp.highest_zone());
        let request = Request {
            gfp,
            order,
            highest,
            mark,
        };
        self.zones[..=highest as usize]
            .iter()
            .rev()
            .find_map(|zone| zone.alloc(&self.frames, request))
    }

    /// Allocates one zeroed page. Linux: `get_zeroed_page`.
    ///
    /// # Errors
    ///
    /// As [`alloc_pages`](Self::alloc_pages).
    pub fn get_zeroed_page(&self, gfp: Gfp) -> Result<Pfn, AllocError> {
        self.alloc_pages(gfp | Gfp::ZERO, 0)
    }

    /// Frees what [`alloc_pages`](Self::alloc_pages) returned. May be called in any context.
    ///
    /// # Errors
    ///
    /// [`FreeError`] when `pfn` is not the first frame of a block of `order` that is in use as
    /// pages; nothing has changed then.
    ///
    /// # Safety
    ///
    /// If it is such a block, it belongs to the caller, who no longer uses it, and no mapping of it
    /// other than the direct map is left.
    #[inline(always)]
    pub unsafe fn free_pages(&self, pfn: Pfn, order: u32) -> Result<(), FreeError> {
        if self
            .at_hand
            .is_some_and(|at_hand| at_hand.lists().push(pfn, order))
        {
            return Ok(());
        }
        self.free_to_zone(pfn, order)
    }

    /// [`free_pages`](Self::free_pages) for any block.
    #[inline(never)]
    pub(super) fn free_to_zone(&self, pfn: Pfn, order: u32) -> Result<(), FreeError> {
        match check_allocated(&self.frames, pfn, order) {
            Ok(()) => {
                self.zone_at(pfn).free(&self.frames, pfn, order);
                Ok(())
            }
            Err(FreeError::WrongKind {
                kind: FrameKind::Accounted,
                ..
            }) => self.free_accounted(pfn, order, || self.free_to_zone(pfn, order)),
            Err(error) => Err(error.noted()),
        }
    }

    /// Gives back what the executing core has at hand. Linux: `drain_local_pages`. May be called
    /// in any context; costs time in proportion to the pages at hand.
    #[doc(alias = "drain_local_pages")]
    pub fn drain(&self) {
        for zone in &self.zones {
            zone.drain(&self.frames);
        }
    }

    /// Opens the lists of blocks at hand, or closes them while an allocation is to fail on purpose.
    pub(super) fn update_at_hand(&self) {
        for zone in &self.zones {
            zone.update_at_hand();
        }
    }

    /// Returns pageblocks of the reserve for atomic requests of more than one page to general use:
    /// in each zone, all that have free memory, or all but one. `false` if there was none.
    #[doc(alias = "unreserve_highatomic_pageblock")]
    pub fn unreserve_highatomic(&self, all: bool) -> bool {
        let keep = u32::from(!all);
        let dissolve = |zone: &Zone| zone.unreserve_highatomic(&self.frames, keep);
        self.zones
            .iter()
            .map(dissolve)
            .fold(false, |any, one| any | one)
    }
}

/// Takes a block this core has at hand for the most plain of requests.
#[inline(always)]
pub(super) fn take(at_hand: &AtHand, gfp: Gfp, order: u32) -> Option<Pfn> {
    let is_plain = order <= MAX_PCP_ORDER && !gfp.contains(Gfp::ZERO) && !gfp.is_special();
    // The machine's lists are closed while something is to fail; on the host each thread has
    // injections of its own.
    let is_armed = cfg!(not(target_os = "none")) && fault::is_armed();
    if !is_plain || is_armed || !is_allowed_here(gfp) {
        return None;
    }
    at_hand.pop(gfp, order)
}

/// The refusal of a block larger than there are, counted.
#[cold]
fn refuse_order(order: u32, gfp: Gfp) -> AllocError {
    Misuse::OrderTooLarge(order).note(gfp);
    AllocError::OrderTooLarge { order, gfp }
}

/// Whether a call with these flags may be made where this core is.
#[inline(always)]
fn is_allowed_here(gfp: Gfp) -> bool {
    !gfp.may_block() || PerCpu::current().context() == Context::Task
}

/// Refuses flags that let a call block in a context that may not.
#[inline(always)]
pub(super) fn check_context(gfp: Gfp) -> Result<(), AllocError> {
    match PerCpu::current().context() {
        Context::Task => Ok(()),
        _ if !gfp.may_block() => Ok(()),
        context => Err(refuse_context(context, gfp)),
    }
}

#[cfg(test)]
mod tests;
