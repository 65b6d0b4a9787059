//! The table of all descriptors: a pointer for each pageblock.

use super::{
    Frame, FrameError, MemoryTypeError, PAGEBLOCK_ORDER, PAGEBLOCK_PAGES, PAGEBLOCK_SHIFT,
};
use crate::addr::{PAGE_SHIFT, Pfn, PhysRange, VirtAddr};
use crate::mm::slab::SLOT;
use crate::mm::zero::zero_page;
use crate::mm::{MigrateType, ZoneKind};
use crate::mmu::MemoryType;
use core::mem::MaybeUninit;
use core::ops::Range;
use core::ptr;
use core::slice;
use core::sync::atomic::{AtomicPtr, AtomicU8, Ordering};

/// What every pageblock without descriptors of its own has: all tails. Never written.
static TAILS: [Frame; PAGEBLOCK_PAGES as usize] =
    [const { Frame::new() }; PAGEBLOCK_PAGES as usize];

/// Bytes of the descriptors of a pageblock.
const DESCRIPTOR_BYTES: usize = size_of::<[Frame; PAGEBLOCK_PAGES as usize]>();

/// log2 of [`SLOT`].
const SLOT_SHIFT: u32 = SLOT.ilog2();

/// The read side of a [`FrameTable`]: from a frame's number to its descriptor. Freely copied; the
/// empty one knows no frame.
///
/// # Invariants
///
/// `blocks` points to `count` pointers, each to the 512 initialised descriptors of its pageblock,
/// and then to `count` flag bytes, all for the rest of the program.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub(crate) struct FrameLookup {
    blocks: *const AtomicPtr<Frame>,
    count: usize,
}

impl FrameLookup {
    pub(crate) const EMPTY: Self = Self {
        blocks: ptr::null(),
        count: 0,
    };

    /// The pointer to the descriptors of pageblock number `block`.
    #[inline(always)]
    fn block(&self, block: usize) -> Option<&'static AtomicPtr<Frame>> {
        if block >= self.count {
            return None;
        }
        // SAFETY: the table has `count` pointers for the rest of the program.
        Some(unsafe { &*self.blocks.add(block) })
    }

    #[inline(always)]
    fn flags(&self, pfn: Pfn) -> Option<&'static AtomicU8> {
        let block = (pfn.get() >> PAGEBLOCK_ORDER) as usize;
        if block >= self.count {
            return None;
        }
        // SAFETY: `count` flag bytes lie behind the `count` pointers.
        Some(unsafe { &*self.blocks.add(self.count).cast::<AtomicU8>().add(block) })
    }

    /// The descriptors of pageblock number `block`, or the shared tails; `None` above the table.
    #[inline(always)]
    fn descriptors(&self, block: usize) -> Option<*const Frame> {
        // Acquire pairs with the release in `prepare`, which makes the zeroes visible.
        let frames = self.block(block)?.load(Ordering::Acquire);
        // SAFETY: the pointer leads to descriptors.
        unsafe { core::hint::assert_unchecked(!frames.is_null()) };
        Some(frames)
    }

    /// The descriptor of `pfn`, or one of the shared tails; `None` above the table.
    #[inline(always)]
    pub(in crate::mm) fn find(&self, pfn: Pfn) -> Option<&'static Frame> {
        let frames = self.descriptors((pfn.get() >> PAGEBLOCK_ORDER) as usize)?;
        // SAFETY: the pointer leads to 512 descriptors.
        Some(unsafe { &*frames.add((pfn.get() & (PAGEBLOCK_PAGES - 1)) as usize) })
    }

    /// The descriptors of the block of `2^order` pages that `pfn` is part of, at most a pageblock.
    #[inline(always)]
    pub(in crate::mm) fn find_block(&self, pfn: Pfn, order: u32) -> Option<&'static [Frame]> {
        let frames = self.descriptors((pfn.get() >> PAGEBLOCK_ORDER) as usize)?;
        let pages = 1 << order.min(PAGEBLOCK_ORDER);
        let index = pfn.get() & (PAGEBLOCK_PAGES - 1) & !(pages - 1);
        // SAFETY: the pointer leads to 512 descriptors, and `index` is a multiple of `pages`, both
        // powers of two up to 512.
        Some(unsafe { slice::from_raw_parts(frames.add(index as usize), pages as usize) })
    }

    /// The descriptors of the slab that the frame `pfn` is part of.
    #[inline(always)]
    pub(in crate::mm) fn find_slab(&self, pfn: Pfn) -> Option<&'static [Frame]> {
        let frames = self.descriptors((pfn.get() >> PAGEBLOCK_ORDER) as usize)?;
        let index = pfn.get() & (PAGEBLOCK_PAGES - 1);
        // SAFETY: the pointer leads to 512 descriptors.
        let order = unsafe { &*frames.add(index as usize) }.slab_order();
        let pages = 1 << order.min(PAGEBLOCK_ORDER);
        let first = index & !(pages - 1);
        // SAFETY: as in `find_block`.
        Some(unsafe { slice::from_raw_parts(frames.add(first as usize), pages as usize) })
    }

    /// Calls `f` with every frame of a slab of the cache with `tag`. Costs time in proportion to the
    /// memory in use.
    pub(in crate::mm) fn for_each_slab(&self, tag: u8, mut f: impl FnMut(Pfn, &'static Frame)) {
        for block in 0..self.count {
            let Some(pointer) = self.block(block) else {
                return;
            };
            let frames = pointer.load(Ordering::Acquire);
            if ptr::eq(frames, TAILS.as_ptr()) {
                continue;
            }
            for index in 0..PAGEBLOCK_PAGES {
                // SAFETY: the pointer leads to 512 descriptors.
                let frame = unsafe { &*frames.add(index as usize) };
                if frame.tag() == tag {
                    f(Pfn::new(block as u32 * PAGEBLOCK_PAGES + index), frame);
                }
            }
        }
    }

    /// The descriptor of the frame that holds physical address `pa`, and in which [`SLOT`] of the
    /// frame the address is, modulo 64. `None` above the table and in the midst of a slot.
    ///
    /// The descriptor may be one of the shared tails.
    #[inline(always)]
    pub(in crate::mm) fn find_slot(&self, pa: usize) -> Option<(&'static Frame, u32)> {
        // A misaligned address becomes a huge one, so that one comparison does for both.
        let turned = pa.rotate_right(SLOT_SHIFT);
        let block = self.block(turned >> (PAGEBLOCK_SHIFT - SLOT_SHIFT))?;
        // Relaxed suffices: who holds an object got it after the descriptors were made, and what
        // another reader makes of old descriptors or new ones is an error either way.
        let frames = block.load(Ordering::Relaxed);
        // SAFETY: the pointer leads to descriptors.
        unsafe { core::hint::assert_unchecked(!frames.is_null()) };
        let index = turned >> (PAGE_SHIFT - SLOT_SHIFT) & (PAGEBLOCK_PAGES as usize - 1);
        // SAFETY: the pointer leads to 512 descriptors.
        Some((unsafe { &*frames.add(index) }, turned as u32))
    }
}

/// Access to the descriptors of all frames: a handle, freely copied.
#[derive(Clone, Copy, Debug)]
pub struct FrameTable {
    lookup: FrameLookup,
    /// Where the descriptor of frame 0 is or would be.
    frames: *const Frame,
    /// First frame above each zone but the last.
    zone_limits: [Pfn; ZoneKind::COUNT - 1],
}

// SAFETY: the handle gives access to atomics only.
unsafe impl Send for FrameTable {}
// SAFETY: as above.
unsafe impl Sync for FrameTable {}

/// Flag of a pageblock: it has no descriptors of its own.
const UNTOUCHED: u8 = 1 << 7;
/// Flag of a pageblock: set aside at boot, it never has descriptors.
const SET_ASIDE: u8 = 1 << 5;
/// Flag of a pageblock: a frame of it has been claimed for another memory type than write-back at
/// some time, so that each frame has to be asked.
const CLAIMED: u8 = 1 << 6;
/// The memory type of a pageblock that was set aside, within its flags.
const TYPE_MASK: u8 = 0x3;
/// The pageblock's migrate type, within its flags: two bits at the bottom, and one apart that the
/// ordinary types do not have. What lies between is the zone's number. So the flags of a pageblock
/// whose blocks may be kept at hand are the number of a [`Group`], and those of any other are more.
const MIGRATE_LOW: u8 = 0x3;
const MIGRATE_HIGH: u8 = 1 << 4;
const MIGRATE_MASK: u8 = MIGRATE_LOW | MIGRATE_HIGH;
const MIGRATE_HIGH_SHIFT: u32 = 2;
const ZONE_SHIFT: u32 = 2;

/// The flags for a migrate type.
const fn migrate_bits(migrate: MigrateType) -> u8 {
    let number = migrate as u8;
    number & MIGRATE_LOW | (number & !MIGRATE_LOW) << MIGRATE_HIGH_SHIFT
}

/// The migrate type in the flags of a pageblock.
const fn migrate_of(flags: u8) -> MigrateType {
    MigrateType::from_index(flags & MIGRATE_LOW | (flags & MIGRATE_HIGH) >> MIGRATE_HIGH_SHIFT)
}

/// A zone and a migrate type whose blocks a core may keep at hand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::mm) struct Group(u8);

impl Group {
    /// One more than the highest number.
    pub(in crate::mm) const COUNT: usize = ZoneKind::COUNT << ZONE_SHIFT;

    /// The number of the group of the first migrate type of `zone`.
    pub(in crate::mm) const fn first_of(zone: ZoneKind) -> u8 {
        (zone as u8) << ZONE_SHIFT
    }

    /// The group's number, below [`COUNT`](Self::COUNT).
    #[inline(always)]
    pub(in crate::mm) fn number(self) -> usize {
        usize::from(self.0)
    }
}

const _: () = assert!(Group::COUNT <= MIGRATE_HIGH as usize);

impl FrameTable {
    /// Words of memory a table for RAM up to the end of `span` needs: a pointer and a flag byte for
    /// each pageblock from physical address 0 on.
    pub const fn words_for(span: PhysRange) -> usize {
        let blocks = span.end.get().div_ceil(1 << PAGEBLOCK_SHIFT) as usize;
        blocks + blocks.div_ceil(size_of::<u64>())
    }

    /// The virtual addresses, relative to the descriptor of frame 0, that must be backed by memory
    /// before `ram` is given to an allocator: the descriptors of every pageblock it touches.
    pub const fn backing_for(ram: PhysRange) -> Range<usize> {
        let first = ram.start.get() >> PAGEBLOCK_SHIFT << PAGEBLOCK_ORDER;
        let end = ram.end.get().div_ceil(1 << PAGEBLOCK_SHIFT) << PAGEBLOCK_ORDER;
        first as usize * size_of::<Frame>()..end as usize * size_of::<Frame>()
    }

    /// A table whose descriptor of frame 0 is, or would be, at `frames`, with as many pageblocks as
    /// `words` has room for, see [`words_for`](Self::words_for). What the memory holds does not
    /// matter.
    ///
    /// # Safety
    ///
    /// For every range of RAM that is later given to an allocator using this table,
    /// [`backing_for`](Self::backing_for) the range from `frames` on is mapped as Normal memory,
    /// used for nothing else, for the rest of the program. `frames` is aligned to a page.
    pub unsafe fn new(frames: VirtAddr, words: &'static mut [MaybeUninit<u64>]) -> Self {
        const _: () = assert!(size_of::<AtomicPtr<Frame>>() == size_of::<u64>());
        // Of nine words eight are pointers and one holds their flags.
        let count = words.len() * size_of::<u64>() / (size_of::<u64>() + 1);
        let (pointers, flags) = words.split_at_mut(count);
        let blocks = pointers.as_mut_ptr().cast::<*const Frame>();
        for block in 0..pointers.len() {
            // SAFETY: the pointer has the size of the word it replaces.
            unsafe { blocks.add(block).write(TAILS.as_ptr()) };
        }
        flags.fill(MaybeUninit::new(u64::from_ne_bytes(
            [UNTOUCHED; size_of::<u64>()],
        )));
        Self {
            lookup: FrameLookup {
                blocks: words.as_mut_ptr().cast(),
                count,
            },
            frames: frames.as_ptr(),
            zone_limits: [Pfn::new(0); ZoneKind::COUNT - 1],
        }
    }

    /// The table for an allocator whose zones but the last end at `limits`, multiples of a
    /// pageblock. It notes the zone of each pageblock it prepares.
    pub(in crate::mm) fn with_zone_limits(self, zone_limits: [Pfn; ZoneKind::COUNT - 1]) -> Self {
        Self {
            zone_limits,
            ..self
        }
    }

    /// First frame above each zone but the last.
    pub(in crate::mm) fn zone_limits(&self) -> [Pfn; ZoneKind::COUNT - 1] {
        self.zone_limits
    }

    /// The zone that has `pfn`.
    #[inline]
    pub(in crate::mm) fn zone_of(&self, pfn: Pfn) -> ZoneKind {
        if pfn < self.zone_limits[0] {
            ZoneKind::Dma
        } else if pfn < self.zone_limits[1] {
            ZoneKind::Dma32
        } else {
            ZoneKind::Normal
        }
    }

    /// The read side alone.
    #[inline(always)]
    pub(in crate::mm) fn lookup(&self) -> FrameLookup {
        self.lookup
    }

    /// The descriptor of `pfn`. May be called in any context and with any number.
    ///
    /// # Errors
    ///
    /// See [`FrameError`]. A tail in a pageblock that is in use is returned as a frame of kind
    /// [`FrameKind::Tail`](super::FrameKind::Tail).
    #[inline]
    pub fn get(&self, pfn: Pfn) -> Result<&'static Frame, FrameError> {
        match self.get_ready(pfn) {
            Some(frame) => Ok(frame),
            None => Err(self.why_not_ready(pfn)),
        }
    }

    #[cold]
    fn why_not_ready(&self, pfn: Pfn) -> FrameError {
        let Some(flags) = self.lookup.flags(pfn) else {
            return FrameError::OutOfRange(pfn);
        };
        let flags = flags.load(Ordering::Relaxed);
        if flags & SET_ASIDE == 0 {
            return FrameError::Untouched(pfn);
        }
        let memory_type = set_aside_type(flags);
        FrameError::SetAside { pfn, memory_type }
    }

    /// The descriptor of `pfn` if its pageblock has any: the fast half of [`get`](Self::get).
    #[inline]
    pub(in crate::mm) fn get_ready(&self, pfn: Pfn) -> Option<&'static Frame> {
        let block = self.lookup.block((pfn.get() >> PAGEBLOCK_ORDER) as usize)?;
        // Acquire pairs with the release in `prepare`, which makes the zeroes visible.
        let frames = block.load(Ordering::Acquire);
        if ptr::eq(frames, TAILS.as_ptr()) {
            return None;
        }
        // SAFETY: the pointer leads to 512 descriptors.
        Some(unsafe { &*frames.add((pfn.get() & (PAGEBLOCK_PAGES - 1)) as usize) })
    }

    /// The descriptor of `pfn`, whose pageblock is known to have descriptors.
    ///
    /// # Safety
    ///
    /// [`prepare`](Self::prepare) has given the pageblock descriptors, and the caller has learnt of
    /// it from whoever did.
    #[inline(always)]
    pub(in crate::mm) unsafe fn frame_unchecked(&self, pfn: Pfn) -> &'static Frame {
        // SAFETY: handed on to the caller.
        unsafe { self.plain().frame(pfn) }
    }

    /// What the fast paths of pages at hand need of the table.
    #[inline(always)]
    pub(in crate::mm) fn plain(&self) -> PlainFrames {
        PlainFrames {
            // The flag bytes lie behind the pointers.
            flags: self.lookup.blocks.wrapping_add(self.lookup.count).cast(),
            count: self.lookup.count,
            frames: self.frames,
        }
    }

    /// The first frame of the block of `order` at `pfn` that is not write-back memory.
    pub(in crate::mm) fn claimed_frame(&self, pfn: Pfn, order: u32) -> Option<(Pfn, MemoryType)> {
        let end = pfn.get() + (1 << order);
        let mut at = pfn.get();
        while at < end {
            let until = end.min((at | (PAGEBLOCK_PAGES - 1)) + 1);
            let flags = self.lookup.flags(Pfn::new(at));
            if flags.is_some_and(|flags| flags.load(Ordering::Relaxed) & CLAIMED != 0) {
                let found = (at..until).map(Pfn::new).find_map(|pfn| {
                    let memory_type = self.get_ready(pfn)?.memory_type();
                    (memory_type != MemoryType::NormalWriteBack).then_some((pfn, memory_type))
                });
                if found.is_some() {
                    return found;
                }
            }
            at = until;
        }
        None
    }

    /// Gives the pageblocks of the block of `order` that starts at `pfn` descriptors, all zero, and
    /// the migrate type `fresh`, where they have none yet. `false` when the table does not reach
    /// the block or it was set aside.
    ///
    /// # Safety
    ///
    /// The block is RAM that belongs to the caller's allocator, whose lock is held. If the block is
    /// smaller than a pageblock, so does the whole pageblock, or it has descriptors already, or no
    /// other core uses the table yet.
    pub(in crate::mm) unsafe fn prepare(&self, pfn: Pfn, order: u32, fresh: MigrateType) -> bool {
        let first = pfn.get() & !(PAGEBLOCK_PAGES - 1);
        for block in 0..1 << order.saturating_sub(PAGEBLOCK_ORDER) {
            let start = Pfn::new(first + block * PAGEBLOCK_PAGES);
            if self.get_ready(start).is_some() {
                continue;
            }
            let (Some(pointer), Some(flags)) = (
                self.lookup.block((start.get() >> PAGEBLOCK_ORDER) as usize),
                self.lookup.flags(start),
            ) else {
                return false;
            };
            if flags.load(Ordering::Relaxed) & SET_ASIDE != 0 {
                return false;
            }
            let frames = self.frames.wrapping_add(start.get() as usize).cast_mut();
            let va = VirtAddr::from_ptr(frames);
            for page in (0..DESCRIPTOR_BYTES).step_by(1 << PAGE_SHIFT) {
                // SAFETY: the descriptors are whole pages of memory used for nothing else (contract
                // of `new`), and no reference to them exists, because no pointer led to them. Only
                // the owner of the pageblock prepares it (contract of this function).
                unsafe { zero_page(va + page) };
            }
            let zone = (self.zone_of(start) as u8) << ZONE_SHIFT;
            flags.store(migrate_bits(fresh) | zone, Ordering::Release);
            pointer.store(frames, Ordering::Release);
        }
        true
    }

    /// The migrate type of the pageblock that holds `pfn`.
    #[inline]
    pub(in crate::mm) fn migrate_type(&self, pfn: Pfn) -> MigrateType {
        let flags = self.lookup.flags(pfn);
        let flags = flags.map_or(0, |flags| flags.load(Ordering::Relaxed));
        migrate_of(flags)
    }

    /// Changes the migrate type of the pageblock that holds `pfn`. The lock of the allocator that
    /// owns the pageblock is held.
    pub(in crate::mm) fn set_migrate_type(&self, pfn: Pfn, migrate: MigrateType) {
        if let Some(flags) = self.lookup.flags(pfn) {
            let change = |old: u8| Some(old & !MIGRATE_MASK | migrate_bits(migrate));
            // Atomic, because the owner of a block may claim frames of it meanwhile.
            let _ = flags.fetch_update(Ordering::Relaxed, Ordering::Relaxed, change);
        }
    }

    /// The memory type `pfn` is mapped as, wherever it is mapped.
    ///
    /// # Errors
    ///
    /// [`FrameError`] when `pfn` is not RAM, or RAM no allocator has touched.
    pub fn memory_type(&self, pfn: Pfn) -> Result<MemoryType, FrameError> {
        match self.get(pfn) {
            Ok(frame) => Ok(frame.memory_type()),
            Err(FrameError::SetAside { memory_type, .. }) => Ok(memory_type),
            Err(error) => Err(error),
        }
    }

    /// Whether `pfn` may be mapped as `wanted`: a frame has one memory type at a time.
    ///
    /// # Errors
    ///
    /// [`MemoryTypeError`] when it has another type or cannot be looked up.
    pub fn check_memory_type(&self, pfn: Pfn, wanted: MemoryType) -> Result<(), MemoryTypeError> {
        match self.memory_type(pfn)? {
            has if has == wanted => Ok(()),
            has => Err(MemoryTypeError::Conflict { pfn, has, wanted }),
        }
    }

    /// Sets `frames`, whole pageblocks, aside as memory of type `wanted`, for good: every lookup
    /// names that, and no allocator takes them. All or none; costs a store for each pageblock.
    ///
    /// # Errors
    ///
    /// [`MemoryTypeError`] when a pageblock is in use or beyond the table, or the range is not made
    /// of whole pageblocks ([`FrameError::Tail`]).
    ///
    /// # Safety
    ///
    /// The frames are RAM that the boot code set aside, and no other core uses the table yet.
    pub unsafe fn set_aside(
        &self,
        frames: Range<Pfn>,
        wanted: MemoryType,
    ) -> Result<(), MemoryTypeError> {
        for end in [frames.start, frames.end] {
            if !end.is_order_aligned(PAGEBLOCK_ORDER) {
                return Err(FrameError::Tail(end).into());
            }
        }
        let blocks = (frames.start.get()..frames.end.get()).step_by(PAGEBLOCK_PAGES as usize);
        for pfn in blocks.clone().map(Pfn::new) {
            match self.memory_type(pfn) {
                Err(FrameError::Untouched(_)) => {}
                Ok(has) => return Err(MemoryTypeError::Conflict { pfn, has, wanted }),
                Err(error) => return Err(error.into()),
            }
        }
        for flags in blocks.filter_map(|pfn| self.lookup.flags(Pfn::new(pfn))) {
            flags.store(SET_ASIDE | wanted as u8, Ordering::Relaxed);
        }
        Ok(())
    }

    /// Changes the memory type of `frames` from Normal write-back to `wanted`, all or none.
    ///
    /// Records only; mappings and caches are the caller's business. Costs time in proportion to
    /// the number of frames.
    ///
    /// # Errors
    ///
    /// [`MemoryTypeError`] when a frame has another type than Normal write-back already, or cannot
    /// be looked up.
    ///
    /// # Safety
    ///
    /// The caller owns the frames: an allocator handed them to it, or they were set aside at boot.
    pub unsafe fn claim_memory_type(
        &self,
        frames: Range<Pfn>,
        wanted: MemoryType,
    ) -> Result<(), MemoryTypeError> {
        for number in frames.start.get()..frames.end.get() {
            let pfn = Pfn::new(number);
            if let Err(FrameError::SetAside { memory_type, .. }) = self.get(pfn) {
                let has = memory_type;
                return Err(MemoryTypeError::Conflict { pfn, has, wanted });
            }
            // SAFETY: the caller owns the frame; an allocator that handed it out has prepared the
            // pageblock, and where none did, none runs yet.
            if !unsafe { self.prepare(pfn, 0, MigrateType::Unmovable) } {
                return Err(FrameError::OutOfRange(pfn).into());
            }
            let has = self.get(pfn)?.memory_type();
            if has != MemoryType::NormalWriteBack {
                return Err(MemoryTypeError::Conflict { pfn, has, wanted });
            }
        }
        let first = frames.start.get() & !(PAGEBLOCK_PAGES - 1);
        let blocks = (first..frames.end.get()).step_by(PAGEBLOCK_PAGES as usize);
        for flags in blocks.filter_map(|pfn| self.lookup.flags(Pfn::new(pfn))) {
            flags.fetch_or(CLAIMED, Ordering::Relaxed);
        }
        self.store_memory_type(frames, wanted);
        Ok(())
    }

    /// Makes `frames` Normal write-back again. Frames of that type stay as they are.
    ///
    /// # Safety
    ///
    /// As for [`claim_memory_type`](Self::claim_memory_type); no mapping of another type is left,
    /// in a table or in a TLB.
    pub unsafe fn release_memory_type(&self, frames: Range<Pfn>) {
        self.store_memory_type(frames, MemoryType::NormalWriteBack);
    }

    fn store_memory_type(&self, frames: Range<Pfn>, memory_type: MemoryType) {
        for number in frames.start.get()..frames.end.get() {
            if let Some(frame) = self.get_ready(Pfn::new(number)) {
                frame.set_memory_type(memory_type);
            }
        }
    }
}

/// What the fast paths of pages at hand need of a [`FrameTable`]. Freely copied; the empty one knows
/// no frame.
///
/// # Invariants
///
/// `flags` points to `count` flag bytes, and `frames` to where the descriptor of frame 0 is or would
/// be, for the rest of the program.
#[derive(Clone, Copy, Debug)]
pub(in crate::mm) struct PlainFrames {
    flags: *const AtomicU8,
    count: usize,
    frames: *const Frame,
}

impl PlainFrames {
    pub(in crate::mm) const EMPTY: Self = Self {
        flags: ptr::null(),
        count: 0,
        frames: ptr::null(),
    };

    /// The descriptor of `pfn` and the group of its pageblock, if that has descriptors, all of it
    /// has always been write-back memory and its type is an ordinary one, or the reserve for atomic
    /// requests, for which no list has room.
    #[inline(always)]
    pub(in crate::mm) fn get_plain(&self, pfn: Pfn) -> Option<(&'static Frame, Group)> {
        let block = (pfn.get() >> PAGEBLOCK_ORDER) as usize;
        if block >= self.count {
            return None;
        }
        // SAFETY: there are `count` flag bytes for the rest of the program.
        let flags = unsafe { &*self.flags.add(block) };
        // Acquire pairs with the release in `prepare`, which makes the zeroes visible.
        let flags = flags.load(Ordering::Acquire);
        if usize::from(flags) >= Group::COUNT {
            return None;
        }
        // SAFETY: the flags of a pageblock without descriptors are `UNTOUCHED` or `SET_ASIDE`, which
        // are more than any group's number.
        Some((unsafe { self.frame(pfn) }, Group(flags)))
    }

    /// The descriptor of `pfn`, whose pageblock is known to have descriptors.
    ///
    /// # Safety
    ///
    /// As for [`FrameTable::frame_unchecked`].
    #[inline(always)]
    pub(in crate::mm) unsafe fn frame(&self, pfn: Pfn) -> &'static Frame {
        // `wrapping_add`, because the array need not begin with frame 0.
        let frame = self.frames.wrapping_add(pfn.get() as usize);
        // SAFETY: the descriptor is backed by memory (contract of `FrameTable::new`) and initialised
        // (the caller's contract), for the rest of the program; hence not null.
        unsafe {
            core::hint::assert_unchecked(!frame.is_null());
            &*frame
        }
    }
}

/// The memory type in the flags of a pageblock that was set aside.
fn set_aside_type(flags: u8) -> MemoryType {
    MemoryType::from_index(flags & TYPE_MASK).unwrap_or(MemoryType::NormalWriteBack)
}
