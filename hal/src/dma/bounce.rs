//! Bounce buffers: memory every device reaches, for buffers that a device cannot be given as they
//! are. Linux calls it swiotlb.
//!
//! A buffer out of the device's reach, or one that shares a cache line with a neighbour while a
//! device that does not snoop writes it, is copied through slots of a pool:
//!
//! | | to device | from device | bidirectional |
//! |---|---|---|---|
//! | map | in | in | in |
//! | sync for the CPU, unmap | - | out | out |
//! | sync for the device | in | in | in |
//!
//! The copies in of a buffer from the device keep what the device does not write, should it write
//! less than announced: what was there at the map, and what the CPU stored between two syncs. So a
//! buffer reads alike, bounced or not. The calls of [`raw`](super::raw) make the one at a sync for the
//! device only if the device reads, as Linux does. Slots start on cache lines and are whole lines, so maintaining them touches
//! nobody else's.
//!
//! The pool is set up once and then serves any context.

mod segment;
#[cfg(test)]
pub(super) mod tests;

use super::DmaError;
use crate::addr::{PAGE_SIZE, PhysAddr, PhysRange, VirtAddr};
use crate::mm::{self, AllocError, Gfp, MAX_ORDER, get_order};
use crate::sync::{IrqLock, Once};
use core::sync::atomic::{AtomicU64, Ordering};
use segment::{SEGMENT_SLOTS, Segment};

/// Bytes in a slot (`IO_TLB_SIZE`).
pub const SLOT_SIZE: usize = 2 << 10;

/// Bytes of the largest buffer that is bounced: a mapping takes slots of one segment.
#[doc(alias = "swiotlb_max_mapping_size")]
pub const MAX_BOUNCE: usize = SLOT_SIZE * SEGMENT_SLOTS as usize;

/// Bytes in the largest pool: the largest block of pages.
pub const MAX_POOL: usize = PAGE_SIZE << MAX_ORDER;

const MAX_SEGMENTS: usize = MAX_POOL / MAX_BOUNCE;

/// The default pool is this part of RAM. Linux takes 64 MiB of any machine, which is a 16th of the
/// smallest this firmware is run on; what needs bouncing here is small.
const RAM_PART: u64 = 256;

static POOL: Once<BouncePool> = Once::new();

/// Bytes of the pool if nobody asks for another size: a 256th of `ram` bytes, between one segment
/// and the largest pool.
pub fn default_size(ram: u64) -> usize {
    usize::try_from(ram / RAM_PART)
        .unwrap_or(MAX_POOL)
        .clamp(MAX_BOUNCE, MAX_POOL)
}

/// Sets the machine's pool up with at least `size` bytes, rounded to a block of pages and at most
/// [`MAX_POOL`], from the zone every device reaches or else any; without a pool if `size` is 0. The
/// first call wins.
///
/// # Errors
///
/// [`AllocError`] when the page allocator has no such block; there is no pool then.
#[doc(alias = "swiotlb_init")]
pub fn init(size: usize) -> Result<(), AllocError> {
    if size == 0 || POOL.is_completed() {
        return Ok(());
    }
    let order = get_order(size.clamp(MAX_BOUNCE, MAX_POOL));
    // Boot code runs with interrupts masked, so nothing may block.
    let pfn = mm::alloc_pages(Gfp::NOWAIT | Gfp::DMA, order)
        .or_else(|_| mm::alloc_pages(Gfp::NOWAIT, order))?;
    let start = pfn.phys();
    let frames = PhysRange::new(start, start + (PAGE_SIZE << order));
    // SAFETY: the block was just allocated, is in the direct map, and is never freed.
    POOL.call_once(|| unsafe { BouncePool::new(frames) });
    Ok(())
}

/// The machine's pool, if it has one.
#[inline]
pub fn pool() -> Option<&'static BouncePool> {
    POOL.get()
}

/// What a pool has done and holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BounceStats {
    /// Slots in the pool.
    pub slots: usize,
    /// Slots lent now.
    pub used: usize,
    /// Most slots that were lent at once.
    pub high_water: usize,
    /// Buffers that were bounced.
    pub maps: u64,
    /// Maps that found no room.
    pub exhausted: u64,
    /// Bytes copied into slots.
    pub bytes_in: u64,
    /// Bytes copied out of slots.
    pub bytes_out: u64,
}

/// Slots of memory that devices reach.
///
/// Its lock is taken in any context and is innermost: nothing is called with it held.
#[derive(Debug)]
pub struct BouncePool {
    frames: PhysRange,
    state: IrqLock<State>,
    bytes_in: AtomicU64,
    bytes_out: AtomicU64,
}

#[derive(Debug)]
struct State {
    segments: [Segment; MAX_SEGMENTS],
    /// What each slot is lent for.
    notes: [Note; MAX_SEGMENTS * SEGMENT_SLOTS as usize],
    /// Segments the pool has.
    count: usize,
    /// The segment in which slots were found last, where the next search begins.
    hint: usize,
    used: usize,
    high_water: usize,
    maps: u64,
    exhausted: u64,
}

/// What is noted of a slot.
#[derive(Clone, Copy, Debug)]
struct Note {
    /// Where the buffer begins whose bytes the slot has some of (`orig_addr`).
    buffer: VirtAddr,
    /// Bytes of that buffer (`alloc_size`); 0 of a slot that is not lent.
    len: u32,
    /// Where in the buffer the slot's bytes begin.
    offset: u32,
}

impl Note {
    /// Of a slot that is not lent.
    const FREE: Self = Self {
        buffer: VirtAddr::new(0),
        len: 0,
        offset: 0,
    };
}

/// What an address is to a pool.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// None of the pool's.
    Outside,
    /// In the pool, and no part of a mapping.
    Free,
    /// In a mapping: where its buffer has that byte, and how many bytes it has from there on.
    Lent { buffer: VirtAddr, len: usize },
}

impl BouncePool {
    /// A pool of the whole segments in `frames`, at most [`MAX_POOL`].
    ///
    /// # Safety
    ///
    /// `frames` is page-aligned memory in the direct map that belongs to the pool for the rest of
    /// the program.
    unsafe fn new(frames: PhysRange) -> Self {
        let count = (frames.size() as usize / MAX_BOUNCE).min(MAX_SEGMENTS);
        Self {
            frames: PhysRange::new(frames.start, frames.start + count * MAX_BOUNCE),
            state: IrqLock::new(State {
                segments: [Segment::EMPTY; MAX_SEGMENTS],
                notes: [Note::FREE; MAX_SEGMENTS * SEGMENT_SLOTS as usize],
                count,
                hint: 0,
                used: 0,
                high_water: 0,
                maps: 0,
                exhausted: 0,
            }),
            bytes_in: AtomicU64::new(0),
            bytes_out: AtomicU64::new(0),
        }
    }

    /// The memory of the pool.
    pub fn frames(&self) -> PhysRange {
        self.frames
    }

    /// What the pool has done and holds.
    pub fn stats(&self) -> BounceStats {
        let state = self.state.lock();
        BounceStats {
            slots: state.count * SEGMENT_SLOTS as usize,
            used: state.used,
            high_water: state.high_water,
            maps: state.maps,
            exhausted: state.exhausted,
            bytes_in: self.bytes_in.load(Ordering::Relaxed),
            bytes_out: self.bytes_out.load(Ordering::Relaxed),
        }
    }

    /// Takes slots for the `len` bytes at `buffer`, more than none and at most [`MAX_BOUNCE`].
    ///
    /// # Errors
    ///
    /// [`DmaError::BounceExhausted`].
    pub(super) fn take(&self, buffer: VirtAddr, len: usize) -> Result<PhysAddr, DmaError> {
        let wanted = slots_for(len);
        let mut state = self.state.lock();
        let State { count, hint, .. } = *state;
        let order = (hint..count).chain(0..hint);
        let found = order
            .into_iter()
            .find_map(|index| Some((index, state.segments[index].take(wanted)?)));
        let Some((index, slot)) = found else {
            state.exhausted += 1;
            let slots = count * SEGMENT_SLOTS as usize;
            let free = (slots - state.used) * SLOT_SIZE;
            return Err(DmaError::BounceExhausted { len, free });
        };
        state.hint = index;
        state.used += wanted as usize;
        state.high_water = state.high_water.max(state.used);
        state.maps += 1;
        let first = index * SEGMENT_SLOTS as usize + slot as usize;
        let notes = state.notes[first..].iter_mut();
        for (note, offset) in notes.zip((0..len).step_by(SLOT_SIZE)) {
            *note = Note {
                buffer,
                len: len as u32,
                offset: offset as u32,
            };
        }
        Ok(self.frames.start + first * SLOT_SIZE)
    }

    /// What the address `shown` is: for who keeps nothing but the device's address.
    pub(super) fn place_of(&self, shown: PhysAddr) -> Place {
        if !self.frames.contains(shown) {
            return Place::Outside;
        }
        let at = (shown.get() - self.frames.start.get()) as usize;
        let note = self.state.lock().notes[at / SLOT_SIZE];
        let offset = note.offset as usize + at % SLOT_SIZE;
        match (note.len as usize).saturating_sub(offset) {
            0 => Place::Free,
            len => Place::Lent {
                buffer: note.buffer + offset,
                len,
            },
        }
    }

    /// Takes back all slots that [`take`](Self::take) gave at `start`. Nothing happens if no mapping
    /// begins there: who keeps nothing but the device's address may end one twice.
    pub(super) fn give_back(&self, start: PhysAddr) {
        if !self.frames.contains(start) {
            return;
        }
        let at = (start.get() - self.frames.start.get()) as usize;
        let first = at / SLOT_SIZE;
        let mut state = self.state.lock();
        let Note { len, offset, .. } = state.notes[first];
        if len == 0 || offset != 0 || !at.is_multiple_of(SLOT_SIZE) {
            return;
        }
        let slots = slots_for(len as usize);
        state.notes[first..][..slots as usize].fill(Note::FREE);
        let slot = first % SEGMENT_SLOTS as usize;
        state.segments[first / SEGMENT_SLOTS as usize].give_back(slot as u32, slots);
        state.used -= slots as usize;
    }

    /// Copies `len` bytes of a buffer into slots.
    ///
    /// # Safety
    ///
    /// The bytes at `buffer` are valid for reads and nobody writes them meanwhile; those at `slots`
    /// lie in slots that were taken and are the CPU's.
    pub(super) unsafe fn copy_in(&self, slots: VirtAddr, buffer: VirtAddr, len: usize) {
        self.bytes_in.fetch_add(len as u64, Ordering::Relaxed);
        // SAFETY: the caller's contract; slots never overlap what is not of the pool.
        unsafe { copy(buffer, slots, len) };
    }

    /// Copies `len` bytes out of slots into a buffer.
    ///
    /// # Safety
    ///
    /// As for [`copy_in`](Self::copy_in), with reads and writes exchanged.
    pub(super) unsafe fn copy_out(&self, slots: VirtAddr, buffer: VirtAddr, len: usize) {
        self.bytes_out.fetch_add(len as u64, Ordering::Relaxed);
        // SAFETY: as above.
        unsafe { copy(slots, buffer, len) };
    }
}

/// Copies `len` bytes.
///
/// # Safety
///
/// Those at `from` are valid for reads, those at `to` for writes, nobody else accesses either
/// meanwhile, and they do not overlap.
unsafe fn copy(from: VirtAddr, to: VirtAddr, len: usize) {
    #[cfg(test)]
    crate::arch::trace::record(crate::arch::trace::Op::Copy { from, to, len });
    // SAFETY: the caller's contract.
    unsafe {
        from.as_ptr::<u8>().copy_to_nonoverlapping(to.as_ptr(), len);
    };
}

/// Slots that `len` bytes take.
fn slots_for(len: usize) -> u32 {
    len.div_ceil(SLOT_SIZE) as u32
}
