//! Sizes that cannot wrap: sums and products that stick at `usize::MAX`, which no allocation
//! grants.
//!
//! A size computed from a count that somebody else chose must not wrap, or too little is
//! allocated. Computed here, it becomes a size that every allocator refuses
//! ([`AllocError::SizeTooLarge`](super::AllocError::SizeTooLarge)).

use super::kmalloc::{MAX_CLASS_SIZE, MAX_SIZE, class_of, class_size};
use crate::addr::PAGE_SIZE;

/// `a + b` bytes, or `usize::MAX`.
#[doc(alias = "check_add_overflow")]
pub const fn size_add(a: usize, b: usize) -> usize {
    a.saturating_add(b)
}

/// `a * b` bytes, or `usize::MAX`.
#[doc(alias = "check_mul_overflow")]
pub const fn size_mul(a: usize, b: usize) -> usize {
    a.saturating_mul(b)
}

/// Bytes of `count` elements of `size` bytes, or `usize::MAX`. Linux: `array_size`.
pub const fn array_size(count: usize, size: usize) -> usize {
    size_mul(count, size)
}

/// Bytes of `rows` times `columns` elements of `size` bytes, or `usize::MAX`. Linux:
/// `array3_size`.
pub const fn array3_size(rows: usize, columns: usize, size: usize) -> usize {
    size_mul(size_mul(rows, columns), size)
}

/// Bytes of a `Header` followed by `count` values of type `Element`, each where its alignment
/// puts it, or `usize::MAX`. Linux: `struct_size`, of a structure that ends in an array.
///
/// ```
/// use hal::mm::struct_size;
///
/// assert_eq!(struct_size::<u32, u64>(3), 8 + 3 * 8);
/// assert_eq!(struct_size::<u32, u64>(usize::MAX), usize::MAX);
/// ```
pub const fn struct_size<Header, Element>(count: usize) -> usize {
    let header = size_of::<Header>().next_multiple_of(align_of::<Element>());
    size_add(header, array_size(count, size_of::<Element>()))
}

/// Bytes that `kmalloc(size)` makes usable, so that all of them may be asked for and used: the
/// size of the class or of the block of pages. 0 for 0, and `size` itself above
/// [`MAX_SIZE`], which `kmalloc` refuses. Linux: `kmalloc_size_roundup`.
pub const fn kmalloc_size_roundup(size: usize) -> usize {
    match size {
        0 => 0,
        1..=MAX_CLASS_SIZE => class_size(class_of(size)),
        _ if size <= MAX_SIZE => size.next_power_of_two(),
        _ => size,
    }
}

const _: () = assert!(MAX_CLASS_SIZE >= PAGE_SIZE / 2, "a block has whole pages");

#[cfg(test)]
mod tests {
    use super::*;

    const MAX: usize = usize::MAX;

    #[test]
    fn sums_and_products_stick_at_the_largest_size() {
        assert_eq!([size_add(2, 3), size_add(MAX, 0)], [5, MAX]);
        assert_eq!([size_add(MAX, 1), size_add(MAX - 1, 2)], [MAX, MAX]);
        assert_eq!([size_mul(6, 7), size_mul(0, MAX)], [42, 0]);
        assert_eq!([size_mul(MAX / 2 + 1, 2), size_mul(MAX, MAX)], [MAX, MAX]);
        assert_eq!([array_size(4, 4), array_size(1 << 32, 1 << 32)], [16, MAX]);
        assert_eq!(array3_size(2, 3, 4), 24);
        assert_eq!(array3_size(1 << 32, 1 << 32, 4), MAX);
        assert_eq!(array3_size(1 << 32, 1 << 31, 2), MAX);
        // The first product alone overflows.
        assert_eq!(array3_size(MAX, 2, 0), 0);
    }

    #[test]
    fn a_structure_ends_in_its_array() {
        #[repr(C)]
        struct Frame {
            id: u32,
            kind: u8,
        }
        assert_eq!(struct_size::<Frame, u8>(0), size_of::<Frame>());
        assert_eq!(struct_size::<Frame, u16>(5), 8 + 10);
        assert_eq!(struct_size::<[u8; 3], u64>(2), 8 + 16);
        assert_eq!(struct_size::<(), [u8; 16]>(3), 48);
        assert_eq!(struct_size::<Frame, ()>(MAX), 8);
        assert_eq!(struct_size::<Frame, u8>(MAX - 7), MAX);
        assert_eq!(struct_size::<Frame, u8>(MAX), MAX);
        const AT_COMPILE_TIME: usize = struct_size::<u64, u32>(4);
        assert_eq!(AT_COMPILE_TIME, 24);
    }

    #[test]
    fn sizes_round_up_to_what_is_usable() {
        for (size, usable) in [
            (0, 0),
            (1, 64),
            (64, 64),
            (65, 128),
            (100, 128),
            (257, 320),
            (8191, 8192),
            (8192, 8192),
            (8193, 16384),
            (16385, 32768),
            (MAX_SIZE - 1, MAX_SIZE),
            (MAX_SIZE, MAX_SIZE),
            (MAX_SIZE + 1, MAX_SIZE + 1),
            (MAX, MAX),
        ] {
            assert_eq!(kmalloc_size_roundup(size), usable, "{size}");
        }
    }
}
