//! Addresses and page frame numbers as distinct types.
//!
//! A CPU pointer, the physical address behind it and the address a device must be given are three
//! different numbers; on a Raspberry Pi 4 all three differ for the same byte. None of the types
//! converts into another by itself: [`crate::layout`] translates between virtual and physical
//! addresses of the direct map, the MMU walker translates any other virtual address, and only a
//! [`BusWindow`](crate::dma::BusWindow) of a board or an IOMMU mapping makes a [`DmaAddr`].

use core::fmt;

/// log2 of [`PAGE_SIZE`].
pub const PAGE_SHIFT: u32 = 12;

/// Bytes in a page: the 4 KiB translation granule (Arm ARM D8.2.1).
pub const PAGE_SIZE: usize = 1 << PAGE_SHIFT;

macro_rules! address {
    ($(#[$doc:meta])* $name:ident($repr:ty)) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[repr(transparent)]
        pub struct $name($repr);

        impl $name {
            /// The address as a number.
            #[inline]
            pub const fn get(self) -> $repr {
                self.0
            }

            /// Whether the address is a multiple of `align`, a power of two.
            #[inline]
            pub const fn is_aligned(self, align: usize) -> bool {
                debug_assert!(align.is_power_of_two());
                self.0 & (align as $repr - 1) == 0
            }

            /// The greatest multiple of `align` (a power of two) not above the address.
            #[inline]
            #[must_use]
            pub const fn align_down(self, align: usize) -> Self {
                debug_assert!(align.is_power_of_two());
                Self(self.0 & !(align as $repr - 1))
            }

            /// The offset of the address within its page, in bytes.
            #[inline]
            pub const fn page_offset(self) -> usize {
                (self.0 & (PAGE_SIZE as $repr - 1)) as usize
            }

            /// The address `bytes` above, or `None` past the end of the address type.
            #[inline]
            #[must_use]
            pub const fn checked_add(self, bytes: usize) -> Option<Self> {
                match self.0.checked_add(bytes as $repr) {
                    Some(sum) => Some(Self(sum)),
                    None => None,
                }
            }

            /// The distance in bytes from `base` up to this address, or `None` below it.
            #[inline]
            pub const fn checked_sub(self, base: Self) -> Option<usize> {
                match self.0.checked_sub(base.0) {
                    Some(distance) => Some(distance as usize),
                    None => None,
                }
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({:#x})"), self.0)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{:#x}", self.0)
            }
        }

        impl core::ops::Add<usize> for $name {
            type Output = Self;

            #[inline]
            fn add(self, bytes: usize) -> Self {
                Self(self.0 + bytes as $repr)
            }
        }
    };
}

address! {
    /// A CPU physical address: what a translation table descriptor's output address holds.
    PhysAddr(u64)
}

address! {
    /// A CPU virtual address.
    VirtAddr(usize)
}

address! {
    /// The address a device must be given to reach a byte of memory.
    ///
    /// # Invariants
    ///
    /// Every value was made by a [`BusWindow`](crate::dma::BusWindow) (or an IOMMU mapping), so
    /// the device it was made for reaches exactly the memory that was translated.
    DmaAddr(u64)
}

impl PhysAddr {
    /// The physical address `addr`.
    #[inline]
    pub const fn new(addr: u64) -> Self {
        Self(addr)
    }

    /// The frame the address lies in.
    ///
    /// Frames are numbered in 32 bits, which reaches far beyond the 40-bit physical addresses the
    /// kernel's tables can hold (`docs/memory-model.md`).
    #[inline]
    pub const fn pfn(self) -> Pfn {
        Pfn((self.0 >> PAGE_SHIFT) as u32)
    }
}

impl VirtAddr {
    /// The virtual address `addr`.
    #[inline]
    pub const fn new(addr: usize) -> Self {
        Self(addr)
    }

    /// The address of `ptr`.
    #[inline]
    pub fn from_ptr<T: ?Sized>(ptr: *const T) -> Self {
        Self(ptr.cast::<u8>().expose_provenance())
    }

    /// The address as a pointer with exposed provenance.
    #[inline]
    pub const fn as_ptr<T>(self) -> *mut T {
        core::ptr::with_exposed_provenance_mut(self.0)
    }
}

impl DmaAddr {
    /// Makes a device address. Only bus windows and IOMMU mappings call this.
    #[inline]
    pub(crate) const fn new(addr: u64) -> Self {
        Self(addr)
    }
}

/// A page frame number: a physical address divided by [`PAGE_SIZE`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(transparent)]
pub struct Pfn(u32);

impl Pfn {
    /// The frame with number `number`.
    #[inline]
    pub const fn new(number: u32) -> Self {
        Self(number)
    }

    /// The frame's number.
    #[inline]
    pub const fn get(self) -> u32 {
        self.0
    }

    /// The physical address of the frame's first byte.
    #[inline]
    pub const fn phys(self) -> PhysAddr {
        PhysAddr((self.0 as u64) << PAGE_SHIFT)
    }

    /// Whether the frame number is a multiple of `2^order`.
    #[inline]
    pub const fn is_order_aligned(self, order: u32) -> bool {
        self.0 & ((1 << order) - 1) == 0
    }
}

impl fmt::Display for Pfn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "pfn {:#x}", self.0)
    }
}

impl core::ops::Add<u32> for Pfn {
    type Output = Self;

    #[inline]
    fn add(self, frames: u32) -> Self {
        Self(self.0 + frames)
    }
}

/// A half-open range of physical memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PhysRange {
    /// First byte.
    pub start: PhysAddr,
    /// First byte after the range.
    pub end: PhysAddr,
}

impl PhysRange {
    /// The range `start..end`; empty when `end` is not above `start`.
    #[inline]
    pub const fn new(start: PhysAddr, end: PhysAddr) -> Self {
        Self { start, end }
    }

    /// The `size` bytes from `start`, or `None` where they wrap around the address space.
    #[inline]
    pub const fn from_size(start: PhysAddr, size: u64) -> Option<Self> {
        match start.0.checked_add(size) {
            Some(end) => Some(Self {
                start,
                end: PhysAddr(end),
            }),
            None => None,
        }
    }

    /// Bytes in the range.
    #[inline]
    pub const fn size(&self) -> u64 {
        self.end.0.saturating_sub(self.start.0)
    }

    /// Whether the range holds no byte.
    #[inline]
    pub const fn is_empty(&self) -> bool {
        self.end.0 <= self.start.0
    }

    /// Whether `addr` lies in the range.
    #[inline]
    pub const fn contains(&self, addr: PhysAddr) -> bool {
        self.start.0 <= addr.0 && addr.0 < self.end.0
    }

    /// Whether `other` lies in the range whole.
    #[inline]
    pub const fn contains_range(&self, other: &Self) -> bool {
        self.start.0 <= other.start.0 && other.end.0 <= self.end.0
    }

    /// Whether the two ranges share a byte.
    #[inline]
    pub const fn overlaps(&self, other: &Self) -> bool {
        self.start.0 < other.end.0
            && other.start.0 < self.end.0
            && !self.is_empty()
            && !other.is_empty()
    }
}

impl fmt::Display for PhysRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#x}..{:#x}", self.start.0, self.end.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn alignment_and_offsets() {
        let pa = PhysAddr::new(0x4020_1234);
        assert_eq!(pa.align_down(PAGE_SIZE), PhysAddr::new(0x4020_1000));
        assert_eq!(pa.page_offset(), 0x234);
        assert!(!pa.is_aligned(8));
        assert_eq!(pa.pfn(), Pfn::new(0x40201));
        assert_eq!(pa.pfn().phys(), pa.align_down(PAGE_SIZE));
    }

    #[test]
    fn a_wrapping_range_is_refused() {
        assert_eq!(PhysRange::from_size(PhysAddr::new(u64::MAX - 1), 3), None);
        assert_eq!(PhysAddr::new(u64::MAX).checked_add(1), None);
    }

    #[test]
    fn touching_ranges_do_not_overlap() {
        let low = PhysRange::new(PhysAddr::new(0), PhysAddr::new(0x1000));
        let high = PhysRange::new(PhysAddr::new(0x1000), PhysAddr::new(0x2000));
        assert!(!low.overlaps(&high));
        assert!(low.overlaps(&PhysRange::new(PhysAddr::new(0xfff), PhysAddr::new(0x1000))));
    }
}
