//! A part of a mapped buffer, taken back while the device goes on with the rest.

use super::super::direction::Direction;
use super::super::lease::Part;
use super::Mapping;
use core::fmt;
use core::ops::{Deref, DerefMut};

/// Some bytes of a [`Mapping`] that are the CPU's for the moment. Dropping it gives them to the
/// device again; the mapping knows of them if it is forgotten.
#[must_use = "dropping it gives the bytes to the device again"]
pub struct CpuPart<'m, 'a, D: Direction> {
    pub(super) mapping: &'m mut Mapping<'a, D>,
    pub(super) part: Part,
}

impl<D: Direction> CpuPart<'_, '_, D> {
    fn ptr(&self) -> *mut u8 {
        self.mapping.ptr.wrapping_add(self.part.offset)
    }
}

impl<D: Direction> Deref for CpuPart<'_, '_, D> {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        // SAFETY: the part lies in the buffer, which `map_single`'s caller promised valid and
        // exclusive, and the device gave it back.
        unsafe { core::slice::from_raw_parts(self.ptr(), self.part.len) }
    }
}

impl<D: Direction> DerefMut for CpuPart<'_, '_, D> {
    fn deref_mut(&mut self) -> &mut [u8] {
        // SAFETY: as for `deref`; the borrow of `self` is exclusive.
        unsafe { core::slice::from_raw_parts_mut(self.ptr(), self.part.len) }
    }
}

impl<D: Direction> Drop for CpuPart<'_, '_, D> {
    fn drop(&mut self) {
        self.mapping.give_back_part();
    }
}

impl<D: Direction> fmt::Debug for CpuPart<'_, '_, D> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CpuPart")
            .field("mapping", &self.mapping)
            .field("part", &self.part)
            .finish()
    }
}
