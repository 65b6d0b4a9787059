//! Zeroing by whole blocks.

use crate::addr::{PAGE_SIZE, VirtAddr};
use crate::arch::cache;

/// `DCZID_EL0.BS`: log2 of the block size in words (Arm ARM D24.2.45).
const DCZID_BS: u64 = 0xF;
/// `DCZID_EL0.DZP`: `DC ZVA` is prohibited.
const DCZID_DZP: u64 = 1 << 4;
/// Bytes in the words `DCZID_EL0.BS` counts.
const WORD: usize = 4;

/// Zeroes `len` bytes at `start`: whole blocks with `DC ZVA` where it is allowed, the rest by plain
/// stores.
///
/// Blocks are zeroed in the cache without reading memory. May be called in any context.
///
/// # Safety
///
/// The bytes are mapped as writable Normal memory and belong to the caller.
pub(super) unsafe fn zero(start: VirtAddr, len: usize) {
    let dczid = cache::dczid_el0();
    let block = WORD << (dczid & DCZID_BS);
    let ragged = start.get().wrapping_neg() & (block - 1);
    if dczid & DCZID_DZP != 0 || len < ragged + block {
        // SAFETY: the caller owns the bytes.
        unsafe { start.as_ptr::<u8>().write_bytes(0, len) };
        return;
    }
    if ragged != 0 {
        // SAFETY: the bytes up to the first block boundary are part of the caller's.
        unsafe { start.as_ptr::<u8>().write_bytes(0, ragged) };
    }
    let mut offset = ragged;
    while len - offset >= block {
        // SAFETY: the block is aligned and ends within the caller's bytes.
        unsafe { cache::zero_block(start + offset) };
        offset += block;
    }
    if offset != len {
        // SAFETY: the bytes after the last whole block are part of the caller's.
        unsafe { (start + offset).as_ptr::<u8>().write_bytes(0, len - offset) };
    }
}

/// Zeroes `pages` pages.
///
/// # Safety
///
/// As for [`zero`]; `start` is aligned to a page.
#[inline]
pub(crate) unsafe fn zero_pages(start: VirtAddr, pages: usize) {
    /// Blocks zeroed before the loop looks again.
    const UNROLLED: usize = 32;
    let block = WORD << (cache::dczid_el0() & DCZID_BS);
    if cache::dczid_el0() & DCZID_DZP != 0 || block * UNROLLED > PAGE_SIZE {
        // SAFETY: handed on to the caller.
        return unsafe { zero(start, pages * PAGE_SIZE) };
    }
    let mut at = start;
    // The caller owns the pages, so they end within the address space.
    let end = VirtAddr::new(start.get().wrapping_add(pages * PAGE_SIZE));
    while at != end {
        for _ in 0..UNROLLED {
            // SAFETY: blocks are powers of two, so each is aligned and 32 of them tile a page.
            unsafe { cache::zero_block(at) };
            at = VirtAddr::new(at.get().wrapping_add(block));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[repr(align(64))]
    struct Lines([u8; 256]);

    #[test]
    fn exactly_the_given_bytes_become_zero() {
        for (start, len) in [
            (0, 256),
            (64, 128),
            (64, 100),
            (3, 61),
            (16, 240),
            (5, 250),
            (0, 0),
        ] {
            let mut lines = Lines([0xA5; 256]);
            let base = VirtAddr::from_ptr(&raw mut lines);
            // SAFETY: the bytes are part of `lines`.
            unsafe { zero(base + start, len) };
            for (at, byte) in lines.0.iter().enumerate() {
                let inside = (start..start + len).contains(&at);
                assert_eq!(*byte, if inside { 0 } else { 0xA5 }, "byte {at}");
            }
        }
    }
}
