//! One contiguous run of memory lent to a device: what every kind of streaming map is made of.
//!
//! The one place that decides how a device gets at memory: directly, where it reaches it and may
//! have its lines for itself; through the [bounce pool](super::bounce) where not; and refused by
//! name where it is nobody's to lend, or the pool does not help.

use super::bounce::{self, BouncePool, MAX_BOUNCE, Place};
use super::direction::DirectionKind;
use super::{Device, DmaError, DmaSegment, maintenance};
use crate::addr::{DmaAddr, PhysAddr, VirtAddr};
use crate::arch::barrier;
use crate::layout;
use crate::mm::{self, Unlendable};
use core::ops::Range;

/// The alignment the allocators promise for memory that is safe for DMA, in bytes.
pub const ALIGNMENT: usize = 64;

/// A run of memory lent to a device, and what it takes to have it back.
///
/// Plain data: who holds it keeps the rules of [`begin`](Self::begin), ends it once, and names the
/// same memory at each call. Nothing happens when it is dropped.
#[derive(Clone, Copy, Debug)]
pub(super) struct Lease {
    /// Where the CPU finds what the device accesses, in the direct map: the memory, or slots.
    shown: VirtAddr,
    segment: DmaSegment,
    upkeep: Upkeep,
}

/// What a hand-over takes, as it was when the memory was lent.
///
/// A whole word, for the padding beside anything less is copied byte by byte at every move.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(usize)]
enum Upkeep {
    /// Nothing: the device snoops.
    Nothing,
    /// Maintenance of each line.
    Lines,
    /// A copy: the device sees slots.
    Copy,
    /// A copy, and maintenance of the slots' lines.
    CopyAndLines,
}

impl Lease {
    /// Lends the `len` bytes of RAM at `pa`, more than none and mapped in the direct map, to
    /// `device`. Unless the device is coherent, each line is cleaned; the barrier,
    /// [`given`](Self::given), is left to the caller.
    ///
    /// May be called in any context.
    ///
    /// # Errors
    ///
    /// [`DmaError::Unowned`], [`DmaError::Packed`], [`DmaError::OutOfReach`],
    /// [`DmaError::PartialLine`], [`DmaError::BounceExhausted`], in the debug build `Freed`.
    ///
    /// # Safety
    ///
    /// Until the lease ends the bytes stay valid, and nobody but the device accesses them while
    /// they are the device's; a device that reads them may share them with readers.
    #[inline(always)]
    pub(super) unsafe fn begin(
        device: &Device,
        pa: PhysAddr,
        len: usize,
        direction: DirectionKind,
    ) -> Result<Self, DmaError> {
        // SAFETY: the caller's contract.
        unsafe { Self::begin_as(device, !device.is_coherent(), pa, len, direction) }
    }

    /// As [`begin`](Self::begin), for who has decided whether the memory is maintained.
    ///
    /// # Errors
    ///
    /// As there.
    ///
    /// # Safety
    ///
    /// As there.
    #[inline(always)]
    pub(super) unsafe fn begin_as(
        device: &Device,
        is_maintained: bool,
        pa: PhysAddr,
        len: usize,
        direction: DirectionKind,
    ) -> Result<Self, DmaError> {
        if !mm::is_line_object(pa, len) {
            check_owner(pa, len, is_maintained)?;
        }
        #[cfg(feature = "slab-debug")]
        check_in_use(pa, len)?;
        let shown = layout::phys_to_virt(pa);
        let shares_lines = is_maintained && direction.device_writes() && !fills_lines(shown, len);
        match device.plain_addr(pa, len) {
            Some(addr) if !shares_lines => Ok(Self::direct(pa, addr, len, is_maintained)),
            // SAFETY: the caller's contract.
            _ => unsafe { Self::begin_elsewhere(device, pa, len, is_maintained, shares_lines) },
        }
    }

    /// Lends memory that the device is given as it is.
    #[inline(always)]
    fn direct(pa: PhysAddr, addr: DmaAddr, len: usize, is_maintained: bool) -> Self {
        let lease = Self {
            shown: layout::phys_to_virt(pa),
            segment: DmaSegment { addr, len },
            upkeep: match is_maintained {
                true => Upkeep::Lines,
                false => Upkeep::Nothing,
            },
        };
        lease.clean(lease.whole());
        lease
    }

    /// Lends memory in a window that is not the device's first, or through slots.
    ///
    /// # Safety
    ///
    /// As for [`begin`](Self::begin).
    #[cold]
    unsafe fn begin_elsewhere(
        device: &Device,
        pa: PhysAddr,
        len: usize,
        is_maintained: bool,
        shares_lines: bool,
    ) -> Result<Self, DmaError> {
        let buffer = layout::phys_to_virt(pa);
        let refusal = match device.dma_addr(pa, len) {
            Ok(addr) if !shares_lines => {
                return Ok(Self::direct(pa, addr, len, is_maintained));
            }
            Ok(_) => DmaError::PartialLine {
                addr: buffer,
                len,
                granule: maintenance::writeback_granule(),
            },
            Err(error) => error,
        };
        let Some(pool) = usable_pool(device, len) else {
            return Err(refusal);
        };
        let slots = pool.take(buffer, len)?;
        let addr = match device.dma_addr(slots, len) {
            Ok(addr) => addr,
            Err(error) => {
                pool.give_back(slots);
                return Err(error);
            }
        };
        let lease = Self {
            shown: layout::phys_to_virt(slots),
            segment: DmaSegment { addr, len },
            upkeep: match is_maintained {
                true => Upkeep::CopyAndLines,
                false => Upkeep::Copy,
            },
        };
        // SAFETY: the caller's bytes are valid and left alone, and the slots are this lease's.
        unsafe { lease.copy_in(buffer, lease.whole()) };
        lease.clean(lease.whole());
        Ok(lease)
    }

    /// The lease of the memory that `device` was given as `segment`, a part of what was lent, and
    /// where it lies in the direct map: for callers that keep nothing but the segment. Whether it is
    /// maintained is what the device [notes](Device::note_map); of slots it is no longer than what
    /// they are lent for. `None` for no bytes, if the device sees no memory there, and for slots that
    /// are not lent.
    pub(super) fn again(device: &Device, segment: DmaSegment) -> Option<(Self, VirtAddr)> {
        let DmaSegment { addr, len } = segment;
        if len == 0 {
            return None;
        }
        // The length may be wrong, and of slots is known better.
        let pa = device.phys_addr(addr, 1)?;
        let place = bounce::pool().map_or(Place::Outside, |pool| pool.place_of(pa));
        let shown = layout::phys_to_virt(pa);
        let (buffer, len, upkeep) = match (place, device.is_noted_coherent()) {
            (Place::Free, _) => return None,
            (Place::Lent { buffer, len: lent }, true) => (buffer, len.min(lent), Upkeep::Copy),
            (Place::Lent { buffer, len: lent }, false) => {
                (buffer, len.min(lent), Upkeep::CopyAndLines)
            }
            (Place::Outside, is_coherent) => {
                device.phys_addr(addr, len)?;
                let upkeep = match is_coherent {
                    true => Upkeep::Nothing,
                    false => Upkeep::Lines,
                };
                (shown, len, upkeep)
            }
        };
        let lease = Self {
            shown,
            segment: DmaSegment { addr, len },
            upkeep,
        };
        Some((lease, buffer))
    }

    /// The address and length the device must be given.
    #[inline(always)]
    pub(super) const fn segment(&self) -> DmaSegment {
        self.segment
    }

    /// Whether the memory is maintained when it changes hands.
    #[inline(always)]
    pub(super) const fn is_maintained(&self) -> bool {
        matches!(self.upkeep, Upkeep::Lines | Upkeep::CopyAndLines)
    }

    /// Whether the device sees slots.
    #[inline(always)]
    pub(super) const fn is_bounced(&self) -> bool {
        matches!(self.upkeep, Upkeep::Copy | Upkeep::CopyAndLines)
    }

    /// The barrier that is due when memory was given to the device.
    #[inline(always)]
    pub(super) const fn given(&self) -> Due {
        match self.is_maintained() {
            true => Due::Maintenance,
            false => Due::Stores,
        }
    }

    /// The barrier that is due when memory that the device wrote was taken from it.
    #[inline(always)]
    const fn taken(&self) -> Due {
        match self.is_maintained() {
            true => Due::Maintenance,
            false => Due::Loads,
        }
    }

    /// Cleans a part of what the device accesses.
    #[inline(always)]
    fn clean(&self, part: Part) {
        if self.is_maintained() {
            maintenance::clean(self.shown + part.offset, part.len);
        }
    }

    /// Makes what the CPU stored to a part of the memory, mapped at `buffer`, visible to the device
    /// (`dma_sync_single_for_device`), once the barrier that is returned was issued.
    ///
    /// Slots are made what the CPU sees whatever the direction, as lines are cleaned in every one:
    /// what the CPU stored is still there when the memory is taken back, unless the device wrote it.
    ///
    /// # Safety
    ///
    /// The memory is the CPU's and valid, and `part` lies in it.
    #[inline(always)]
    pub(super) unsafe fn give(&self, buffer: VirtAddr, part: Part) -> Due {
        if self.is_bounced() {
            // SAFETY: the caller's contract.
            unsafe { self.copy_in(buffer, part) };
        }
        self.give_as_it_is(part)
    }

    /// As [`give`](Self::give), without a copy: slots keep what they hold, which may be newer than
    /// what the CPU sees.
    #[inline(always)]
    pub(super) fn give_as_it_is(&self, part: Part) -> Due {
        self.clean(part);
        self.given()
    }

    /// Makes what the device stored to a part of the memory, mapped at `buffer`, visible to the CPU
    /// (`dma_sync_single_for_cpu`), once the barrier that is returned was issued.
    ///
    /// # Safety
    ///
    /// The part is the device's, lies in the memory and is valid; the CPU stored nothing to it since
    /// it was given, and the device is done with it.
    #[inline(always)]
    pub(super) unsafe fn take(
        &self,
        buffer: VirtAddr,
        part: Part,
        direction: DirectionKind,
    ) -> Due {
        if !direction.device_writes() {
            return Due::Nothing;
        }
        if self.is_bounced() {
            // SAFETY: the caller's contract.
            unsafe { self.copy_out(buffer, part) };
            return Due::Nothing;
        }
        if self.is_maintained() {
            // SAFETY: the caller's contract.
            unsafe { maintenance::invalidate(self.shown + part.offset, part.len) };
        }
        self.taken()
    }

    /// Gives the slots back, all that the memory was lent through, if there are any: it is the CPU's
    /// from now on. To be called once, and nothing after it.
    #[inline(always)]
    pub(super) fn end(&self) {
        if self.is_bounced() {
            self.release_slots();
        }
    }

    /// All of the memory.
    #[inline(always)]
    pub(super) const fn whole(&self) -> Part {
        Part {
            offset: 0,
            len: self.segment.len,
        }
    }

    /// The bytes in `range`, if they can be handed to and fro by themselves.
    ///
    /// # Errors
    ///
    /// [`DmaError::ZeroLength`], [`DmaError::OutOfBounds`], [`DmaError::PartialLine`].
    pub(super) fn part(
        &self,
        range: Range<usize>,
        direction: DirectionKind,
    ) -> Result<Part, DmaError> {
        let size = self.segment.len;
        let (offset, len) = (range.start, range.end.saturating_sub(range.start));
        if len == 0 {
            return Err(DmaError::ZeroLength);
        }
        if range.end > size {
            return Err(DmaError::OutOfBounds { offset, len, size });
        }
        let granule = maintenance::writeback_granule();
        // Behind the end nothing of anybody's lies, in the line of a slot either.
        let is_cut = |at: usize| at != size && !(self.shown + at).is_aligned(granule);
        let must_fit = self.is_maintained() && direction.device_writes();
        if must_fit && (is_cut(offset) || is_cut(range.end)) {
            let addr = self.shown + offset;
            return Err(DmaError::PartialLine { addr, len, granule });
        }
        Ok(Part { offset, len })
    }

    /// Copies, and lets the compiler forget what it knows of the slots: it sees nobody read them.
    ///
    /// # Safety
    ///
    /// As for [`give`](Self::give).
    #[cold]
    unsafe fn copy_in(&self, buffer: VirtAddr, part: Part) {
        let slots = self.shown + part.offset;
        if let Some(pool) = bounce::pool() {
            // SAFETY: the part lies in the memory and in the slots, which are the CPU's.
            unsafe { pool.copy_in(slots, buffer + part.offset, part.len) };
        }
        barrier::hand_over(slots.as_ptr());
    }

    /// Maintains the slots, issues the barrier that is due, and copies.
    ///
    /// # Safety
    ///
    /// As for [`take`](Self::take).
    #[cold]
    unsafe fn copy_out(&self, buffer: VirtAddr, part: Part) {
        let slots = self.shown + part.offset;
        if self.is_maintained() {
            // The last line is the slots' own whole.
            let end = (slots + part.len)
                .get()
                .next_multiple_of(maintenance::line_size());
            // SAFETY: the lines are the slots' and the device's, so the CPU stored nothing to them.
            unsafe { maintenance::invalidate(slots, end - slots.get()) };
        }
        self.taken().issue();
        barrier::hand_over(slots.as_ptr());
        if let Some(pool) = bounce::pool() {
            // SAFETY: the part lies in the memory and in the slots, and the device is done.
            unsafe { pool.copy_out(slots, buffer + part.offset, part.len) };
        }
    }

    #[cold]
    fn release_slots(&self) {
        if let (Some(pool), Some(start)) = (bounce::pool(), layout::virt_to_phys(self.shown)) {
            pool.give_back(start);
        }
    }
}

/// The barrier that ends a hand-over, of one lease or of several: the greatest that is due to one of
/// them. The one place where memory that changes hands meets the barrier it needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[must_use = "without its barrier a hand-over is none"]
pub(super) enum Due {
    /// None: the device stored nothing, or what it stored was copied since.
    Nothing,
    /// `DMB OSHLD`: a device that snoops stored, and the CPU's loads come after the one that saw it
    /// done (`dma_rmb`).
    Loads,
    /// `DMB OSHST`: a device that snoops sees what the CPU stored before the store that tells it to
    /// look (`dma_wmb`).
    Stores,
    /// `DSB SY`: lines were maintained, and that is complete.
    Maintenance,
}

impl Due {
    /// Issues the barrier.
    #[inline(always)]
    pub(super) fn issue(self) {
        match self {
            Self::Nothing => {}
            Self::Loads => barrier::dmb_oshld(),
            Self::Stores => barrier::dmb_oshst(),
            Self::Maintenance => maintenance::complete(),
        }
    }
}

/// Some of the bytes that were lent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Part {
    /// First byte.
    pub(super) offset: usize,
    /// Bytes, more than none.
    pub(super) len: usize,
}

/// The pool if it has room for `len` bytes in one piece, and `device` may bounce and reaches it.
pub(super) fn usable_pool(device: &Device, len: usize) -> Option<&'static BouncePool> {
    let pool = bounce::pool().filter(|_| device.may_bounce() && len <= MAX_BOUNCE)?;
    let frames = pool.frames();
    let is_reached = device.streaming_addr(frames.start, frames.size() as usize);
    is_reached.map(|_: DmaAddr| pool)
}

/// Refuses memory that is nobody's to lend. A device that snoops may share cache lines.
#[cold]
fn check_owner(pa: PhysAddr, len: usize, is_maintained: bool) -> Result<(), DmaError> {
    let Some((page, why)) = mm::unlendable_at(pa, len) else {
        return Ok(());
    };
    let addr = layout::phys_to_virt(page);
    match why {
        Unlendable::Packed(_) if !is_maintained => Ok(()),
        Unlendable::Packed(cache) => Err(DmaError::Packed { addr, cache }),
        why => Err(DmaError::Unowned { addr, why }),
    }
}

/// Refuses memory with a free object in it: whoever lends it has given that up.
#[cfg(feature = "slab-debug")]
fn check_in_use(pa: PhysAddr, len: usize) -> Result<(), DmaError> {
    match mm::freed_object_in(pa, len) {
        Some((at, cache)) => Err(DmaError::Freed {
            addr: layout::phys_to_virt(at),
            cache,
        }),
        None => Ok(()),
    }
}

/// Whether nothing but the `len` bytes at `va` lies in what the caches write back with them.
#[inline(always)]
fn fills_lines(va: VirtAddr, len: usize) -> bool {
    (va.get() | len) & (maintenance::writeback_granule() - 1) == 0
}

#[cfg(test)]
mod order;
#[cfg(test)]
#[path = "lease/tests.rs"]
mod tests;
