//! Pages mapped for a moment.

use super::Pages;
use core::marker::PhantomData;
use core::ops::{Deref, DerefMut};
use hal::addr::{PAGE_SIZE, VirtAddr};
use hal::arch::translate;
use hal::dma::Coherent;
use hal::mm::{self, KmapError, LocalMapping};

/// A page of a block by its temporary address.
#[derive(Debug)]
pub(crate) struct LocalPage<'a> {
    mapping: LocalMapping<'static>,
    block: PhantomData<&'a mut Pages>,
}

impl<'a> LocalPage<'a> {
    /// `kmap_local` of the first page of `block`.
    pub(crate) fn map(block: &'a mut Pages) -> Result<Self, KmapError> {
        // SAFETY: the borrow keeps the block and its memory type, and everybody else off it.
        let mapping = unsafe { mm::kmap_local(block.pfn()) }?;
        let block = PhantomData;
        Ok(Self { mapping, block })
    }

    /// Where the page is mapped.
    pub(crate) fn va(&self) -> VirtAddr {
        self.mapping.va()
    }
}

impl Deref for LocalPage<'_> {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        // SAFETY: the page is mapped and belongs to `self`.
        unsafe { core::slice::from_raw_parts(self.va().as_ptr(), PAGE_SIZE) }
    }
}

impl DerefMut for LocalPage<'_> {
    fn deref_mut(&mut self) -> &mut [u8] {
        // SAFETY: as above, and borrowed exclusively.
        unsafe { core::slice::from_raw_parts_mut(self.va().as_ptr(), PAGE_SIZE) }
    }
}

/// `kmap_local` of the first page of `memory`, which must be refused: it is not cacheable.
pub(crate) fn map_coherent(memory: &Coherent) -> Result<(), KmapError> {
    let va = VirtAddr::from_ptr(memory.as_slice().as_ptr());
    let frame = translate::read_el1(va).page().unwrap_or_default();
    // SAFETY: the borrow keeps the memory, and the mapping is dropped unused.
    unsafe { mm::kmap_local(frame.pfn()) }.map(drop)
}
