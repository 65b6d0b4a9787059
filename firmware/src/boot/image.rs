//! Where the image is.

use core::ops::Range;
use hal::addr::{PAGE_SIZE, PhysAddr, PhysRange, VirtAddr};
use hal::layout::IMAGE;

unsafe extern "C" {
    static __text_end: [u8; 0];
    static __rodata_end: [u8; 0];
    static __image_end: [u8; 0];
    static __secondary_entry: [u8; 0];
    static KERNEL_ROOT: [u8; 0];
}

/// The image reserves whole blocks of this size, so that the direct map around it can be made of
/// blocks.
const GRANULE: u64 = 2 << 20;

/// The running image.
#[derive(Clone, Copy, Debug)]
pub struct Image {
    base: PhysAddr,
}

impl Image {
    /// The image whose first byte the boot code found at `base`.
    pub(crate) const fn new(base: PhysAddr) -> Self {
        Self { base }
    }

    /// The frames that belong to the image: nothing else may use or map them.
    pub fn frames(&self) -> PhysRange {
        let size = end().get() - IMAGE.base.get();
        let end = self.base + size;
        if self.base.get().is_multiple_of(GRANULE) {
            PhysRange::new(
                self.base,
                PhysAddr::new(end.get().next_multiple_of(GRANULE)),
            )
        } else {
            PhysRange::new(self.base, end)
        }
    }

    /// The physical address of something in the image.
    ///
    /// # Panics
    ///
    /// If `va` is not in the image window.
    pub fn phys(&self, va: VirtAddr) -> PhysAddr {
        assert!(IMAGE.contains(va), "{va} is not in the image");
        self.base + (va.get() - IMAGE.base.get())
    }

    /// The physical address secondary cores start at.
    pub fn secondary_entry(&self) -> PhysAddr {
        self.phys(VirtAddr::from_ptr(&raw const __secondary_entry))
    }

    /// The physical address of the kernel's root table.
    pub fn root_table(&self) -> PhysAddr {
        self.phys(VirtAddr::from_ptr(&raw const KERNEL_ROOT))
    }
}

/// The part of the image that can be executed. It starts with the header.
pub fn text() -> Range<VirtAddr> {
    IMAGE.base..VirtAddr::from_ptr(&raw const __text_end)
}

/// The part of the image that can only be read.
pub fn rodata() -> Range<VirtAddr> {
    text().end..VirtAddr::from_ptr(&raw const __rodata_end)
}

/// First address after the image; a page boundary.
fn end() -> VirtAddr {
    let end = VirtAddr::from_ptr(&raw const __image_end);
    debug_assert!(end.is_aligned(PAGE_SIZE));
    end
}
