//! RAM on the host: one large anonymous allocation plays the physical memory.
//!
//! The stretch starts at physical address [`RAM_BASE`]; pages are committed by the operating
//! system only when touched. Each test takes its own piece with [`ram`], so tests do not share
//! memory although they share the address space.

use crate::addr::{PhysAddr, PhysRange};
use std::alloc::Layout;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

/// Physical address of the first byte of the host's pretended RAM.
pub const RAM_BASE: PhysAddr = PhysAddr::new(0x4000_0000);

/// Bytes of pretended RAM. Miri commits every byte, so it gets less.
pub const RAM_SIZE: u64 = if cfg!(miri) { 128 << 20 } else { 4 << 30 };

/// Alignment of the stretch, so that physical and virtual alignment agree up to 4 MiB.
const RAM_ALIGN: usize = 4 << 20;

fn ram_start() -> usize {
    static START: OnceLock<usize> = OnceLock::new();
    *START.get_or_init(|| {
        // Aligned by hand: a zeroed allocation of high alignment would touch every page.
        let layout = Layout::from_size_align(RAM_SIZE as usize + RAM_ALIGN, 16)
            .unwrap_or_else(|_| unreachable!("16 is a power of two"));
        // SAFETY: the layout's size is not zero.
        let start = unsafe { std::alloc::alloc_zeroed(layout) };
        assert!(
            !start.is_null(),
            "the host has no room for {RAM_SIZE} bytes of pretended RAM"
        );
        start.expose_provenance().next_multiple_of(RAM_ALIGN)
    })
}

/// What to add to a physical address to get the pointer behind it.
pub(super) fn direct_map_offset() -> usize {
    ram_start().wrapping_sub(RAM_BASE.get() as usize)
}

/// Takes `size` bytes of pretended RAM aligned to `align`, zeroed and owned by the caller for the
/// rest of the process.
///
/// # Panics
///
/// When the process has used up [`RAM_SIZE`].
pub fn ram(size: u64, align: u64) -> PhysRange {
    static NEXT: AtomicU64 = AtomicU64::new(RAM_BASE.get());
    let align = align.max(4096);
    let mut start = 0;
    let end = NEXT
        .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |next| {
            start = next.next_multiple_of(align);
            Some((start + size).next_multiple_of(4096))
        })
        .map(|_| start + size)
        .unwrap_or_default();
    assert!(end <= RAM_BASE.get() + RAM_SIZE, "pretended RAM used up");
    PhysRange::new(PhysAddr::new(start), PhysAddr::new(end))
}
