//! Whether memory is somebody's to lend to a device.
//!
//! A device writes where it is told, so memory that nobody owns, or the memory management itself,
//! must never be named to one. What an allocator handed out is somebody's, and so is what was left
//! in RAM for the program by whoever started it, to the byte. Any other frame is refused by what it
//! is.

use super::buddy::block_at;
use super::frame::{Frame, FrameError, FrameKind, FrameTable};
use super::slab;
use crate::addr::{Pfn, PhysAddr, PhysRange};
use crate::memory_map::MAX_RESERVED;
use crate::mmu::MemoryType;
use crate::sync::Once;
use core::fmt;

/// What the program was started with: the ranges of RAM that are its own and no allocator's.
static GIVEN: Once<heapless::Vec<PhysRange, MAX_RESERVED>> = Once::new();

/// Says which ranges of RAM were left for the program by whoever started it, such as an initial RAM
/// disk. They may be lent to devices as allocated memory may; what lies beside them in their first and
/// last page may not. The first call wins; ranges beyond [`MAX_RESERVED`] are not taken.
pub fn note_given_memory(ranges: impl Iterator<Item = PhysRange>) {
    GIVEN.call_once(|| ranges.take(MAX_RESERVED).collect());
}

/// Why a frame is nobody's to lend.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unlendable {
    /// It is free.
    Free,
    /// It is a translation table.
    Table,
    /// It is in use as memory of another type, which a cached alias must not touch.
    OtherType(MemoryType),
    /// No allocator handed it out, and nobody left it for the program: reserved, or no RAM.
    Unowned,
    /// It is a slab of the named packed cache, whose objects share cache lines.
    Packed(&'static str),
}

impl fmt::Display for Unlendable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Free => f.write_str("a free page"),
            Self::Table => f.write_str("a translation table"),
            Self::OtherType(memory_type) => write!(f, "{memory_type} memory"),
            Self::Unowned => f.write_str("memory nobody was given"),
            Self::Packed(cache) => write!(f, "an object of packed cache {cache}"),
        }
    }
}

/// The first frame of the `len` bytes at `pa` that is nobody's to lend, and why. `len` is not 0, and
/// the range does not wrap.
///
/// Looks at every page. What the caller owns does not change meanwhile; of anything else either
/// answer may be given. May be called in any context.
pub(super) fn unlendable(
    frames: &FrameTable,
    pa: PhysAddr,
    len: usize,
) -> Option<(Pfn, Unlendable)> {
    let lent = PhysRange::new(pa, pa + len);
    let last = (pa + (len - 1)).pfn();
    // First page not known to be somebody's.
    let mut unknown = pa.pfn();
    for pfn in (pa.pfn().get()..=last.get()).map(Pfn::new) {
        match refusal(frames, pfn, pfn < unknown, lent) {
            Ok(end) => unknown = unknown.max(end),
            Err(why) => return Some((pfn, why)),
        }
    }
    None
}

/// Why the part of `lent` in `pfn` is nobody's to lend, or the end of what has its owner. With
/// `is_owned` an owner is known.
fn refusal(
    frames: &FrameTable,
    pfn: Pfn,
    is_owned: bool,
    lent: PhysRange,
) -> Result<Pfn, Unlendable> {
    let memory_type = match frames.memory_type(pfn) {
        Ok(memory_type) => memory_type,
        Err(FrameError::SetAside { memory_type, .. }) => memory_type,
        Err(_) => return given(pfn, lent),
    };
    if memory_type != MemoryType::NormalWriteBack {
        return Err(Unlendable::OtherType(memory_type));
    }
    if is_owned {
        return Ok(pfn + 1);
    }
    match block_at(frames, pfn) {
        Some((head, frame)) => end_of_block(head, frame, pfn, lent),
        // Inside an allocation from an area, which need be no block.
        None if super::cma_areas().iter().any(|cma| cma.is_allocated(pfn)) => Ok(pfn + 1),
        None => given(pfn, lent),
    }
}

/// The end of what the owner of the block at `head` that holds `pfn` has.
fn end_of_block(head: Pfn, frame: &Frame, pfn: Pfn, lent: PhysRange) -> Result<Pfn, Unlendable> {
    match frame.kind() {
        FrameKind::Free | FrameKind::PcpFree => Err(Unlendable::Free),
        FrameKind::Table => Err(Unlendable::Table),
        FrameKind::Slab if slab::is_packed(frame) => {
            Err(Unlendable::Packed(slab::name_of(frame.tag())))
        }
        FrameKind::Slab => Ok(pfn + 1),
        FrameKind::CmaAllocated => Ok(head + frame.data()),
        FrameKind::Allocated
        | FrameKind::LargeObject
        | FrameKind::Movable
        | FrameKind::Accounted => Ok(head + (1 << frame.order())),
        FrameKind::Tail => given(pfn, lent),
    }
}

/// The end of `pfn`, if the part of `lent` in it was left for the program.
#[cold]
fn given(pfn: Pfn, lent: PhysRange) -> Result<Pfn, Unlendable> {
    let start = lent.start.max(pfn.phys());
    let end = lent.end.min((pfn + 1).phys());
    let holds = |range: &PhysRange| range.start <= start && end <= range.end;
    match GIVEN.get().is_some_and(|given| given.iter().any(holds)) {
        true => Ok(pfn + 1),
        false => Err(Unlendable::Unowned),
    }
}

#[cfg(test)]
mod tests;
