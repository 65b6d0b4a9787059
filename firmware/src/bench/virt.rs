//! Memory contiguous in virtual addresses, and device registers.

use super::meter::Meter;
use super::shape::{Measured, pairs};
use crate::machine::machine;
use crate::memory::Registers;
use crate::memory::{Area, Kv};
use hal::addr::{PAGE_SIZE, PhysRange};
use hal::arch::pmu::opaque;
use hal::mm::{self, Gfp, IoKind};

/// Pairs in a repetition, fewer of larger areas: in every case more than fit the addresses that may
/// wait for an invalidation, so that its cost is in the mean.
const fn pairs_of(pages: usize) -> u32 {
    match pages {
        0..=1 => 50_000,
        2..=4 => 30_000,
        5..=16 => 10_000,
        17..=64 => 4_000,
        65..=256 => 2_000,
        _ => 400,
    }
}

/// Pairs of memory of either kind in a repetition.
const KV_PAIRS: u32 = 5_000;

/// Pairs of registers in a repetition.
const REGISTER_PAIRS: u32 = 50_000;

/// Does what `vfree` and `iounmap` have put off.
fn purge() {
    mm::vm_unmap_aliases();
}

/// An area of `pages` pages allocated and freed again, everything put off included.
pub(super) fn vmalloc(meter: &Meter, pages: usize) -> Measured {
    let pair = move || Area::alloc(opaque(pages) * PAGE_SIZE).map(drop);
    pairs(meter, pairs_of(pages), pair, purge)
}

/// Memory of either kind allocated and freed again.
pub(super) fn kvmalloc(meter: &Meter, size: usize) -> Measured {
    let pair = move || Kv::alloc(opaque(size), Gfp::KERNEL).map(drop);
    pairs(meter, KV_PAIRS, pair, purge)
}

/// The console's registers mapped a second time and unmapped again: the one device every board has.
pub(super) fn ioremap(meter: &Meter, size: usize) -> Measured {
    let base = machine().board.uart().base;
    let pair =
        || Registers::map(PhysRange::new(base, base + opaque(size)), IoKind::Posted).map(drop);
    pairs(meter, REGISTER_PAIRS, pair, purge)
}
