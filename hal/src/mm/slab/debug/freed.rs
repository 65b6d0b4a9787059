//! Free objects in the way of a map for a device.

use super::{FrameLookup, PhysAddr, SLOT, with_owner};

/// The first of `pa` and the slots from there to the end of `len` bytes, more than none, that is
/// part of a free object, and the name of its cache.
pub(in crate::mm) fn freed_object_in(
    frames: FrameLookup,
    pa: PhysAddr,
    len: usize,
) -> Option<(PhysAddr, &'static str)> {
    let offset = pa.page_offset() % SLOT;
    let next_slots = (SLOT - offset..len).step_by(SLOT);
    core::iter::once(0).chain(next_slots).find_map(|offset| {
        let at = pa + offset;
        Some((at, freed_object_at(frames, at)?))
    })
}

/// The name of the cache whose free object the memory at `pa` is part of, if it is.
fn freed_object_at(frames: FrameLookup, pa: PhysAddr) -> Option<&'static str> {
    let frame = frames.find(pa.pfn())?;
    with_owner(frame, |owner| {
        owner.is_freed(frames, pa, frame).then(|| owner.name())
    })
    .flatten()
}
