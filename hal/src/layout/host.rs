//! RAM on the host: one large anonymous allocation plays the physical memory.
//!
//! The stretch starts at physical address [`RAM_BASE`]; pages are committed by the operating
//! system only when touched. Each test takes its own piece with [`ram`], so tests do not share
//! memory although they share the address space. What the many cases of a property take they give
//! back with a [`Lease`]: together they would use up any stretch, sooner or later depending on what
//! runs beside them.

use crate::addr::{PhysAddr, PhysRange};
use std::alloc::Layout;
use std::cell::RefCell;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, OnceLock, PoisonError};

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

thread_local! {
    /// What this thread took during its lease, if it has one.
    static TAKEN: RefCell<Option<Vec<PhysRange>>> = const { RefCell::new(None) };
}

/// What came back.
static SPARE: Mutex<Vec<PhysRange>> = Mutex::new(Vec::new());

/// Gives back, when dropped, what its thread took with [`ram`] meanwhile.
#[derive(Debug)]
#[must_use = "the RAM comes back when the lease is dropped"]
pub struct Lease(());

/// Begins a lease for this thread, in place of one that it has.
///
/// # Safety
///
/// When the lease is dropped nothing uses the RAM taken meanwhile by this thread, ever again.
pub unsafe fn lease() -> Lease {
    TAKEN.set(Some(Vec::new()));
    Lease(())
}

impl Drop for Lease {
    fn drop(&mut self) {
        let taken = TAKEN.take().unwrap_or_default();
        let mut spare = SPARE.lock().unwrap_or_else(PoisonError::into_inner);
        spare.extend(taken);
    }
}

/// Takes `size` bytes of pretended RAM aligned to `align`, zeroed and owned by the caller for the
/// rest of the process, or of the thread's [`Lease`].
///
/// # Panics
///
/// When the process has used up [`RAM_SIZE`].
pub fn ram(size: u64, align: u64) -> PhysRange {
    let piece = spare(size, align).unwrap_or_else(|| fresh(size, align));
    TAKEN.with_borrow_mut(|taken| taken.iter_mut().for_each(|taken| taken.push(piece)));
    piece
}

/// A piece that came back, zeroed again.
fn spare(size: u64, align: u64) -> Option<PhysRange> {
    let mut spare = SPARE.lock().unwrap_or_else(PoisonError::into_inner);
    let fits = |piece: &PhysRange| piece.size() == size && piece.start.get().is_multiple_of(align);
    let index = spare.iter().position(fits)?;
    let piece = spare.swap_remove(index);
    drop(spare);
    let first = super::phys_to_virt(piece.start).as_ptr::<u8>();
    // SAFETY: the piece lies in the stretch, and who gave it back has done with it.
    unsafe { first.write_bytes(0, size as usize) };
    Some(piece)
}

/// A piece nobody has had.
fn fresh(size: u64, align: u64) -> PhysRange {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_lease_took_comes_back_zeroed() {
        // No other test takes pieces of this size.
        const SIZE: u64 = 37 * 4096;
        let taken: Vec<_> = (0..3)
            .map(|_| {
                // SAFETY: the piece is used here only.
                let _ram = unsafe { lease() };
                let piece = ram(SIZE, 4096);
                let first = crate::layout::phys_to_virt(piece.start).as_ptr::<u8>();
                // SAFETY: the piece is this thread's, until the lease is dropped.
                let bytes = unsafe { std::slice::from_raw_parts_mut(first, SIZE as usize) };
                assert!(bytes.iter().all(|byte| *byte == 0));
                bytes.fill(0xA5);
                piece
            })
            .collect();
        assert_eq!(taken, [taken[0]; 3]);
        assert_ne!(ram(SIZE, 4096), ram(SIZE, 4096), "without a lease");
    }
}
