//! A mapped buffer, taken back as a whole.

use super::super::debug::{self, Kind};
use super::super::direction::Direction;
use super::Mapping;
use core::fmt;
use core::mem::ManuallyDrop;
use core::ops::{Deref, DerefMut};

/// A mapped buffer that is the CPU's for the moment. Dropping it ends the mapping.
#[must_use = "dropping it ends the mapping"]
pub struct CpuOwned<'a, D: Direction> {
    mapping: ManuallyDrop<Mapping<'a, D>>,
}

impl<'a, D: Direction> CpuOwned<'a, D> {
    /// The buffer of `mapping`, which was taken from the device.
    #[inline(always)]
    pub(super) fn new(mapping: Mapping<'a, D>) -> Self {
        let mapping = ManuallyDrop::new(mapping);
        Self { mapping }
    }

    /// Gives the buffer to the device again.
    ///
    /// Whatever the direction, what the CPU stored meanwhile is there when the buffer is taken back,
    /// unless the device writes it: also with a device that only writes, on a
    /// [copy](crate::dma::bounce) of the buffer or not.
    #[doc(alias = "dma_sync_single_for_device")]
    #[track_caller]
    pub fn sync_for_device(self) -> Mapping<'a, D> {
        let mut this = ManuallyDrop::new(self);
        // SAFETY: `this` is never dropped nor used again, so the mapping is taken once.
        let mapping = unsafe { ManuallyDrop::take(&mut this.mapping) };
        mapping.give_to_device(mapping.lease.whole());
        mapping
    }
}

impl<D: Direction> Drop for CpuOwned<'_, D> {
    fn drop(&mut self) {
        let Mapping { device, lease, .. } = &*self.mapping;
        debug::on_unmap(device, Kind::Single, lease, D::KIND);
        // What the CPU stored stays: nothing is taken from the device again.
        self.mapping.lease.end();
    }
}

impl<D: Direction> Deref for CpuOwned<'_, D> {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        // SAFETY: `map_single`'s caller promised the bytes valid and exclusive for 'a, and the
        // device gave them back.
        unsafe { core::slice::from_raw_parts(self.mapping.ptr, self.mapping.dma_segment().len) }
    }
}

impl<D: Direction> DerefMut for CpuOwned<'_, D> {
    fn deref_mut(&mut self) -> &mut [u8] {
        // SAFETY: as for `deref`; the borrow of `self` is exclusive.
        unsafe { core::slice::from_raw_parts_mut(self.mapping.ptr, self.mapping.dma_segment().len) }
    }
}

impl<D: Direction> fmt::Debug for CpuOwned<'_, D> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("CpuOwned").field(&*self.mapping).finish()
    }
}
