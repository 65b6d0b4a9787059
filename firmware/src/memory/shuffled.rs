//! A block of pages that is also mapped with two of its pages exchanged.

use super::Pages;
use crate::handed::Fault;
use hal::addr::VirtAddr;
use hal::mm::{self, Gfp, Protection};

/// log2 of its pages.
const ORDER: u32 = 2;

/// Which page of the block each page of the mapping is. The first stays first, so that the block is
/// what a driver finds that looks at the first page only.
const PAGES: [u32; 1 << ORDER] = [0, 2, 1, 3];

/// Pages that are one run for a device and another for the CPU: memory of `vmalloc`'s kind, of which
/// every frame belongs to the owner, whatever order a device takes them in.
#[derive(Debug)]
pub(crate) struct Shuffled {
    block: Pages,
    va: VirtAddr,
}

impl Shuffled {
    /// Its bytes.
    pub(crate) const LEN: usize = hal::addr::PAGE_SIZE << ORDER;

    /// `alloc_pages`, then `vmap`.
    pub(crate) fn alloc(gfp: Gfp) -> Result<Self, Fault> {
        let block = Pages::alloc(gfp, ORDER)?;
        let list = PAGES.map(|page| block.pfn() + page);
        // SAFETY: the block is kept as long as the mapping, and its type never changes.
        let va = unsafe { mm::vmap(&list, Protection::ReadWrite) }?;
        Ok(Self { block, va })
    }

    /// Where the mapping is.
    pub(crate) fn va(&self) -> VirtAddr {
        self.va
    }

    /// The content in the mapping's order.
    pub(crate) fn bytes(&mut self) -> &mut [u8] {
        // SAFETY: the pages are mapped there, read-write, and belong to `self`. The borrow keeps
        // `block` from being used meanwhile.
        unsafe { core::slice::from_raw_parts_mut(self.va.as_ptr(), Self::LEN) }
    }

    /// The content in the order of the frames.
    pub(crate) fn block(&mut self) -> &mut [u8] {
        self.block.bytes()
    }
}

impl Drop for Shuffled {
    fn drop(&mut self) {
        // SAFETY: the mapping belongs to `self`. A refusal shows in the list of areas.
        let _ = unsafe { mm::vunmap(self.va) };
    }
}
