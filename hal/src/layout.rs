//! The kernel address space: one window per way of using memory.
//!
//! ```text
//! 0xFFFF_FF80_0000_0000  direct map   every frame of RAM at a constant offset, Normal write-back
//! 0xFFFF_FFC0_0000_0000  vmalloc      page by page, Normal write-back, a guard page after each area
//! 0xFFFF_FFE0_0000_0000  coherent     Normal non-cacheable, frames absent from the direct map
//! 0xFFFF_FFE8_0000_0000  ioremap      Device-nGnRE (nGnRnE, Normal non-cacheable on request)
//! 0xFFFF_FFF4_0000_0000  frames       one descriptor per page frame, Normal write-back
//! 0xFFFF_FFF8_0000_0000  early        the device tree, read-only; while booting, other first looks
//! 0xFFFF_FFF8_2000_0000  kmap         temporary mappings: a few pages for each core, Normal write-back
//! 0xFFFF_FFFF_8000_0000  image        text R-X, rodata R--, data and stacks RW-, guard pages
//! 0xFFFF_FFFF_FFE0_0000  (nothing)    the top 2 MiB hold error pointers and are never mapped
//! ```
//!
//! The windows lie in the upper half reached through `TTBR1_EL1` with 39-bit addresses
//! (`TCR_EL1.T1SZ` = 25), so a walk starts at level 1 (Arm ARM D8.2.4).
//!
//! On a host target the direct map is a stretch of ordinary memory, see `host`.

use crate::addr::{PhysAddr, VirtAddr};

/// A named part of the address space.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Window {
    /// Name used in reports.
    pub name: &'static str,
    /// First address.
    pub base: VirtAddr,
    /// Bytes in the window.
    pub size: usize,
}

impl Window {
    const fn new(name: &'static str, base: usize, size: usize) -> Self {
        Self {
            name,
            base: VirtAddr::new(base),
            size,
        }
    }

    /// First address after the window.
    pub const fn end(&self) -> VirtAddr {
        VirtAddr::new(self.base.get() + self.size)
    }

    /// Whether `va` lies in the window.
    pub const fn contains(&self, va: VirtAddr) -> bool {
        va.get() >= self.base.get() && va.get() - self.base.get() < self.size
    }
}

const GIB: usize = 1 << 30;

/// Width of a virtual address translated through `TTBR1_EL1`, in bits.
pub const VA_BITS: u32 = 39;

/// Width of the physical addresses the tables are set up for, in bits (`TCR_EL1.IPS` = 0b010).
pub const PA_BITS: u32 = 40;

/// Every frame of RAM, at `VA = PA + DIRECT_MAP.base`.
pub const DIRECT_MAP: Window = Window::new("direct map", 0xFFFF_FF80_0000_0000, 256 * GIB);
/// Areas mapped page by page.
pub const VMALLOC: Window = Window::new("vmalloc", 0xFFFF_FFC0_0000_0000, 128 * GIB);
/// Normal non-cacheable memory for devices that do not snoop.
pub const COHERENT: Window = Window::new("coherent", 0xFFFF_FFE0_0000_0000, 32 * GIB);
/// Device registers.
pub const IOREMAP: Window = Window::new("ioremap", 0xFFFF_FFE8_0000_0000, 32 * GIB);
/// The page frame descriptors, indexed by frame number.
pub const FRAMES: Window = Window::new("frames", 0xFFFF_FFF4_0000_0000, GIB);
/// Views used while booting, before the direct map exists; the device tree's stays.
pub const EARLY: Window = Window::new("early", 0xFFFF_FFF8_0000_0000, GIB / 2);
/// Temporary mappings, see [`Kmap`](crate::mm::Kmap). What one level 3 table maps; with the early
/// window in front it shares a level 2 table.
pub const KMAP: Window = Window::new("kmap", EARLY.end().get(), 2 << 20);
/// The firmware itself. In the top 4 GiB, so that `ADRP` reaches the strings of defmt frames, which
/// are linked at address 0 and never loaded.
pub const IMAGE: Window = Window::new("image", 0xFFFF_FFFF_8000_0000, GIB);

/// All windows, by address.
pub const WINDOWS: [Window; 8] = [
    DIRECT_MAP, VMALLOC, COHERENT, IOREMAP, FRAMES, EARLY, KMAP, IMAGE,
];

/// RAM at or above this address has no place in the direct map and is left unused.
pub const DIRECT_MAP_LIMIT: PhysAddr = PhysAddr::new(DIRECT_MAP.size as u64);

/// The window `va` lies in, if any.
pub fn window_of(va: VirtAddr) -> Option<&'static Window> {
    const ALL: &[Window] = &WINDOWS;
    ALL.iter().find(|window| window.contains(va))
}

/// The direct-map address of `pa`.
///
/// The result may be dereferenced only if the frame is RAM that the direct map holds: coherent
/// pool frames, the image and guard frames are absent from it.
#[inline]
pub fn phys_to_virt(pa: PhysAddr) -> VirtAddr {
    VirtAddr::new((pa.get() as usize).wrapping_add(direct_map_offset()))
}

/// Where the CPU reaches the frames at `pa` that are mapped at `va` in another window than the
/// direct map: there. A host has no other windows, and reaches them in the direct map.
#[inline(always)]
pub(crate) fn mapped_view(va: VirtAddr, pa: PhysAddr) -> VirtAddr {
    if cfg!(target_os = "none") {
        va
    } else {
        phys_to_virt(pa)
    }
}

/// The physical address behind `va`, or `None` if `va` is not a direct-map address.
///
/// No table is consulted: an address of another window has no constant offset and is refused.
#[inline]
pub fn virt_to_phys(va: VirtAddr) -> Option<PhysAddr> {
    let pa = distance_into_direct_map(va);
    (pa < DIRECT_MAP.size).then(|| PhysAddr::new(pa as u64))
}

/// The physical address behind `va`, and at least [`DIRECT_MAP`]'s size for addresses of other
/// windows. May be called in any context.
#[inline(always)]
pub(crate) fn distance_into_direct_map(va: VirtAddr) -> usize {
    if cfg!(target_os = "none") {
        // The base's only bits are above the window's size, and one instruction flips them.
        va.get() ^ direct_map_offset()
    } else {
        va.get().wrapping_sub(direct_map_offset())
    }
}

const _: () = assert!(DIRECT_MAP.base.get() & (DIRECT_MAP.size - 1) == 0);

#[cfg(target_os = "none")]
#[inline]
const fn direct_map_offset() -> usize {
    DIRECT_MAP.base.get()
}

#[cfg(not(target_os = "none"))]
pub mod host;
#[cfg(not(target_os = "none"))]
use host::direct_map_offset;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn windows_are_ordered_and_disjoint() {
        for pair in WINDOWS.windows(2) {
            assert!(
                pair[0].end().get() <= pair[1].base.get(),
                "{} / {}",
                pair[0].name,
                pair[1].name
            );
        }
        assert!(IMAGE.end().get() <= 0xFFFF_FFFF_FFE0_0000);
    }

    #[test]
    fn frames_window_covers_the_direct_map() {
        let frames = DIRECT_MAP.size >> crate::addr::PAGE_SHIFT;
        assert!(frames * 16 <= FRAMES.size);
    }

    #[test]
    fn only_direct_map_addresses_translate_by_offset() {
        assert_eq!(virt_to_phys(VMALLOC.base), None);
        let pa = host::ram(1, 1).start;
        assert_eq!(virt_to_phys(phys_to_virt(pa)), Some(pa));
        assert_eq!(window_of(VMALLOC.base + 5).map(|w| w.name), Some("vmalloc"));
        assert_eq!(window_of(VirtAddr::new(0x1000)), None);
    }
}
