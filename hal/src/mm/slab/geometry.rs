//! How the objects of a cache lie in its slabs. All of it is known at compile time.

use crate::addr::PAGE_SIZE;
use crate::mm::Gfp;

/// Largest order of a slab.
pub const MAX_SLAB_ORDER: u32 = 3;

/// Number of slab orders.
const SLAB_ORDERS: usize = MAX_SLAB_ORDER as usize + 1;

/// Smallest object: a free one holds its link and its mark.
pub const MIN_OBJECT_SIZE: usize = 16;

/// Largest object: one fills a slab of the smallest order that any cache uses as a last resort.
pub const MAX_OBJECT_SIZE: usize = 8192;

/// Object sizes and alignments are multiples of this, in bytes.
const GRANULE: usize = 8;

/// A slab of the preferred order holds at least this many objects, where one can.
const WANTED_OBJECTS: usize = 8;

/// At most this part of a slab of the preferred order is left over: 1/16.
const WASTE_DIVISOR: usize = 16;

/// Objects of one core are kept back up to about this many bytes per cache.
const MAGAZINE_BYTES: usize = 32 << 10;

/// Why a cache cannot be made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CacheError {
    /// The object size is 0 or above [`MAX_OBJECT_SIZE`].
    #[error("no slab holds objects of {0} bytes")]
    Size(usize),
    /// The alignment is no power of two, or larger than a page.
    #[error("objects cannot be aligned to {0} bytes")]
    Align(usize),
}

/// Size and place of objects.
#[derive(Clone, Copy, Debug)]
pub(in crate::mm) struct Geometry {
    /// Bytes from one object to the next.
    pub(super) size: u32,
    /// `ceil(2^32 / (size / GRANULE))`: turns division by the size into a multiplication.
    reciprocal: u32,
    /// Objects in a slab, by order.
    objects: [u16; SLAB_ORDERS],
    pub(in crate::mm) preferred_order: u8,
    pub(super) smallest_order: u8,
    /// Objects a core keeps back.
    pub(super) magazine: u8,
    /// Zone bits of the slabs.
    pub(super) zone: Gfp,
}

impl Geometry {
    /// Objects of `size` bytes aligned to `align`, from slabs in the zone `zone` selects.
    pub(in crate::mm) const fn new(
        size: usize,
        align: usize,
        zone: Gfp,
    ) -> Result<Self, CacheError> {
        if !align.is_power_of_two() || align > PAGE_SIZE {
            return Err(CacheError::Align(align));
        }
        if size == 0 || size > MAX_OBJECT_SIZE {
            return Err(CacheError::Size(size));
        }
        let align = if align < GRANULE { GRANULE } else { align };
        let size = if size < MIN_OBJECT_SIZE {
            MIN_OBJECT_SIZE
        } else {
            size
        };
        let size = size.next_multiple_of(align);
        let mut objects = [0; SLAB_ORDERS];
        let mut preferred_order = MAX_SLAB_ORDER;
        let mut smallest_order = MAX_SLAB_ORDER;
        let mut order = SLAB_ORDERS;
        while order > 0 {
            order -= 1;
            let bytes = PAGE_SIZE << order;
            let count = bytes / size;
            let count = if count > MAX_OBJECTS {
                MAX_OBJECTS
            } else {
                count
            };
            objects[order] = count as u16;
            if count > 0 {
                smallest_order = order as u32;
            }
            if count >= WANTED_OBJECTS && (bytes - count * size) * WASTE_DIVISOR <= bytes {
                preferred_order = order as u32;
            }
        }
        let kept = MAGAZINE_BYTES / size;
        Ok(Self {
            size: size as u32,
            reciprocal: u32::MAX / (size / GRANULE) as u32 + 1,
            objects,
            preferred_order: preferred_order as u8,
            smallest_order: smallest_order as u8,
            magazine: if kept < super::magazine::CAPACITY {
                kept as u8
            } else {
                super::magazine::CAPACITY as u8
            },
            zone,
        })
    }

    /// The number of the object that starts `offset` bytes into a slab, or `None` when none can
    /// start there. The offset lies within a slab of the largest order.
    ///
    /// Exact because both factors are below 2^16 (Lemire, Kaser, Kurz: Faster remainder by direct
    /// computation, 2019).
    #[inline(always)]
    pub(super) fn index_of(&self, offset: usize) -> Option<u32> {
        if !offset.is_multiple_of(GRANULE) {
            return None;
        }
        let product = (offset / GRANULE) as u64 * u64::from(self.reciprocal);
        ((product as u32) < self.reciprocal).then_some((product >> u32::BITS) as u32)
    }

    /// Objects in a slab of `order`.
    #[inline]
    pub(in crate::mm) fn objects(&self, order: u32) -> u32 {
        u32::from(self.objects[order as usize % SLAB_ORDERS])
    }
}

/// Most objects in a slab: their numbers are stored in 10 bits, with one value to spare.
const MAX_OBJECTS: usize = 1023;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn index_agrees_with_division() {
        for size in (16..=8192).step_by(8) {
            let geometry = Geometry::new(size, 8, Gfp::empty()).unwrap();
            for offset in 0..PAGE_SIZE << MAX_SLAB_ORDER {
                if offset % 8 != 0 && offset > 64 || cfg!(miri) && offset > 300 {
                    continue;
                }
                let expected = offset
                    .is_multiple_of(size)
                    .then_some((offset / size) as u32);
                assert_eq!(geometry.index_of(offset), expected, "{size} {offset}");
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
