//! How the objects of a cache lie in its slabs. All of it is known at compile time.

use super::magazine::{ENDS, STRIDE};
use super::slabs::MAX_GIVEN;
use crate::addr::{PAGE_SIZE, VirtAddr};
use crate::mm::Gfp;
use crate::mm::zero::zero;
use core::ptr::NonNull;

/// Largest order of a slab.
pub const MAX_SLAB_ORDER: u32 = 3;

/// Number of slab orders.
const SLAB_ORDERS: usize = MAX_SLAB_ORDER as usize + 1;

/// Objects start at multiples of this, in bytes: a bit of a frame's descriptor for each.
pub(crate) const SLOT: usize = PAGE_SIZE / u64::BITS as usize;

/// Largest object: one fills a slab of the smallest order that any cache uses as a last resort.
pub const MAX_OBJECT_SIZE: usize = 8192;

/// A slab of the preferred order holds at least this many objects, where one can.
const WANTED_OBJECTS: usize = 8;

/// At most this part of a slab of the preferred order is left over: 1/16.
const WASTE_DIVISOR: usize = 16;

/// Objects of one core are kept back up to about this many bytes per cache.
const MAGAZINE_BYTES: usize = 128 << 10;

/// Empty slabs of a cache are kept up to this many bytes, to be given back when memory is low.
const KEPT_BYTES: usize = 64 << 10;

/// The same for a cache that any size of request may come to.
const MANY_KEPT_BYTES: usize = 1 << 20;

/// Fewest and most objects kept back, whatever their size.
const MAGAZINE_OBJECTS: [usize; 2] = [4, 9 * STRIDE - ENDS];

/// Most objects that move from the slabs to a magazine in one call, which bounds its cost.
const MAX_REFILL: usize = 32;

/// Most objects that move from a magazine to the slabs in one call.
const MAX_DRAIN: usize = MAX_GIVEN;

/// Why a cache cannot be made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CacheError {
    /// The object size is 0 or above [`MAX_OBJECT_SIZE`].
    #[error("no slab holds objects of {0} bytes")]
    Size(usize),
    /// The alignment is no power of two, or larger than a page.
    #[error("objects cannot be aligned to {0} bytes")]
    Align(usize),
    /// Flags without a meaning, see [`SlabFlags`](super::SlabFlags).
    #[error("no slab flag has the bits {0:#x}")]
    Flags(u32),
    /// Objects too large to share cache lines, or flags that want whole lines, device memory or owners.
    #[error("objects of {size} bytes with the flags {flags:#x} cannot be packed")]
    Packed {
        /// Bytes of an object, as asked for.
        size: usize,
        /// The flags' bits.
        flags: u32,
    },
}

/// Frames in slabs of all orders: the masks of order `k` start at index `2^k - 1`.
const MASKS: usize = (1 << SLAB_ORDERS) - 1;

/// Size and place of objects.
#[derive(Clone, Copy, Debug)]
pub(in crate::mm) struct Geometry {
    /// Bytes from one object to the next, a multiple of [`SLOT`].
    pub(super) size: u32,
    /// Bytes of an object: the same, but in the debug build.
    pub(super) object: u32,
    /// Bytes before the first object: none, but in the debug build.
    pub(super) lead: u32,
    pub(in crate::mm) preferred_order: u8,
    pub(super) smallest_order: u8,
    /// Objects a core keeps back.
    pub(in crate::mm) magazine: u16,
    /// Objects in a magazine after it was filled from the slabs.
    pub(super) refill: u8,
    /// Objects that go from a full magazine to the slabs.
    pub(super) drain: u8,
    /// Empty slabs the cache keeps for the next allocations.
    pub(super) kept_empty: u16,
    /// Whether objects are charged to owners, whose numbers lie at the end of each slab, a byte for
    /// each object, the first object's last.
    pub(in crate::mm) accounted: bool,
    /// What is asked of the slabs' pages: their zone, their grouping, an owner.
    pub(super) pages: Gfp,
    /// For each frame of a slab, by order: at which slots objects start.
    masks: [u64; MASKS],
}

impl Geometry {
    /// Objects of `size` bytes aligned to `align`, from slabs of such `pages`.
    ///
    /// With [`Gfp::ACCOUNT`] objects are charged to owners. Their numbers take the place of an
    /// object, unless a slab has bytes left over: so objects are aligned as without.
    pub(in crate::mm) const fn new(
        size: usize,
        align: usize,
        pages: Gfp,
    ) -> Result<Self, CacheError> {
        let accounted = pages.contains(Gfp::ACCOUNT);
        if !align.is_power_of_two() || align > PAGE_SIZE {
            return Err(CacheError::Align(align));
        }
        if size == 0 || size > MAX_OBJECT_SIZE {
            return Err(CacheError::Size(size));
        }
        let align = if align < SLOT { SLOT } else { align };
        let object = size.next_multiple_of(align);
        #[cfg(not(feature = "slab-debug"))]
        let (lead, size) = (0, object);
        #[cfg(feature = "slab-debug")]
        // Side by side, objects of such a size are aligned to it, whatever was asked for.
        let align = if object.is_power_of_two() {
            object
        } else {
            align
        };
        #[cfg(feature = "slab-debug")]
        let (lead, size) = (align, (object + super::debug::META).next_multiple_of(align));
        let mut masks = [0; MASKS];
        let mut preferred_order = MAX_SLAB_ORDER;
        let mut smallest_order = MAX_SLAB_ORDER;
        let mut order = SLAB_ORDERS;
        while order > 0 {
            order -= 1;
            let bytes = PAGE_SIZE << order;
            let count = bytes.saturating_sub(lead) / (size + accounted as usize);
            let mut number = 0;
            while number < count {
                let start = lead + number * size;
                let frame = (1 << order) - 1 + start / PAGE_SIZE;
                masks[frame] |= 1 << (start % PAGE_SIZE / SLOT);
                number += 1;
            }
            if count > 0 {
                smallest_order = order as u32;
            }
            if count >= WANTED_OBJECTS && (bytes - count * size) * WASTE_DIVISOR <= bytes {
                preferred_order = order as u32;
            }
        }
        let [fewest, most] = MAGAZINE_OBJECTS;
        let mut magazine = MAGAZINE_BYTES / size;
        if magazine < fewest {
            magazine = fewest;
        } else if magazine > most {
            magazine = most;
        }
        Ok(Self {
            size: size as u32,
            object: object as u32,
            lead: lead as u32,
            preferred_order: preferred_order as u8,
            smallest_order: smallest_order as u8,
            magazine: magazine as u16,
            refill: at_most(magazine, MAX_REFILL),
            drain: at_most(magazine.div_ceil(2), MAX_DRAIN),
            accounted,
            kept_empty: ((KEPT_BYTES / PAGE_SIZE) >> preferred_order) as u16,
            pages,
            masks,
        })
    }

    /// At which slots of frame number `frame` of a slab of `order` objects start.
    #[inline]
    pub(super) fn starts(&self, order: u32, frame: u32) -> u64 {
        let index = (1 << (order & MAX_SLAB_ORDER)) - 1 + frame as usize;
        self.masks.get(index).copied().unwrap_or(0)
    }

    /// At which slots of each frame of a slab of `order` objects start.
    #[inline]
    pub(super) fn starts_of(&self, order: u32) -> impl Iterator<Item = u64> {
        let before = (1 << (order & MAX_SLAB_ORDER)) - 1;
        self.masks.iter().copied().skip(before)
    }

    /// Objects in a slab of `order`.
    pub(in crate::mm) fn objects(&self, order: u32) -> u32 {
        let frames = 0..1 << order;
        frames.map(|f| self.starts(order, f).count_ones()).sum()
    }

    /// The same, with magazines of at most `strides` strides.
    pub(in crate::mm) const fn with_magazine_of(mut self, strides: usize) -> Self {
        let most = (strides * STRIDE - ENDS) as u16;
        if self.magazine > most {
            self.magazine = most;
        }
        let magazine = self.magazine as usize;
        self.refill = at_most(magazine, MAX_REFILL);
        self.drain = at_most(magazine.div_ceil(2), MAX_DRAIN);
        self
    }

    /// The same, of a cache that keeps many empty slabs.
    pub(in crate::mm) const fn keeping_many(mut self) -> Self {
        self.kept_empty = ((MANY_KEPT_BYTES / PAGE_SIZE) >> self.preferred_order) as u16;
        self
    }

    /// Zeroes an object that is the caller's alone, if [`Gfp::ZERO`] asks for it.
    #[inline(always)]
    pub(super) fn zero_if(&self, object: NonNull<u8>, gfp: Gfp) {
        if gfp.contains(Gfp::ZERO) {
            let va = VirtAddr::from_ptr(object.as_ptr());
            // SAFETY: the object is that many bytes of mapped memory.
            unsafe { zero(va, self.object as usize) };
        }
    }

    /// Strides a magazine of the cache takes, with its ends: none if objects are charged.
    pub(in crate::mm) const fn strides(&self) -> usize {
        if self.accounted {
            return 0;
        }
        (self.magazine as usize + ENDS).div_ceil(STRIDE)
    }
}

/// `count`, but at most `most`.
const fn at_most(count: usize, most: usize) -> u8 {
    (if count < most { count } else { most }) as u8
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[cfg_attr(feature = "slab-debug", ignore = "objects lie apart")]
    fn starts_agree_with_division() {
        for size in (64..=8192).step_by(64) {
            let geometry = Geometry::new(size, 64, Gfp::empty()).unwrap();
            for order in 0..=MAX_SLAB_ORDER {
                let bytes = PAGE_SIZE << order;
                assert_eq!(geometry.objects(order) as usize, bytes / size);
                for slot in 0..bytes / SLOT {
                    let start = slot * SLOT;
                    let expected = start.is_multiple_of(size) && start + size <= bytes;
                    let starts = geometry.starts(order, (start / PAGE_SIZE) as u32);
                    let found = starts >> (slot % u64::BITS as usize) & 1 == 1;
                    assert_eq!(found, expected, "{size} {order} {slot}");
                }
            }
        }
    }

    #[test]
    fn sizes_and_alignments_are_checked() {
        let error = |size, align| Geometry::new(size, align, Gfp::empty()).err();
        assert_eq!(error(0, 8), Some(CacheError::Size(0)));
        assert_eq!(error(8193, 8), Some(CacheError::Size(8193)));
        assert_eq!(error(64, 48), Some(CacheError::Align(48)));
        assert_eq!(error(64, 8192), Some(CacheError::Align(8192)));
        assert_eq!(error(1, 1), None);
    }
}
