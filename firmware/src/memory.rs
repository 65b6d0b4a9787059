//! Memory of each kind, owned: what the suites work on and hand to the DMA engines.
//!
//! A test that ends early leaks nothing. Wrong frees are methods of what they are wrong about,
//! because the owner is what proves that nothing is freed under somebody else's feet.

mod area;
#[cfg(feature = "bench")]
pub(crate) mod array;
pub(crate) mod bulk;
pub(crate) mod contiguous;
pub(crate) mod device_ring;
mod dma_block;
pub(crate) mod hoard;
mod kv;
pub(crate) mod local;
pub(crate) mod named;
mod object;
mod pages;
mod payload;
mod registers;
mod shuffled;
#[cfg(feature = "bench")]
pub(crate) mod slot;
#[cfg(feature = "slab-debug")]
pub(crate) mod stray;

pub(crate) use area::{Area, Remapped, free_no_area, vfree_by_address};
pub(crate) use dma_block::{Kept, freed_as_another, freed_twice};
pub(crate) use kv::{Kv, kvfree_area, kvfree_object};
pub(crate) use object::{Object, free_no_object, free_pool_frame, no_array, nothing_resized};
pub(crate) use pages::{ExactPages, Pages, free_foreign};
pub(crate) use payload::{NoPayload, payload};
pub(crate) use registers::Registers;
pub(crate) use shuffled::Shuffled;

use crate::machine::machine;
use hal::dma::Device;
use hal::mm::Gfp;

/// The flags for memory `device` reaches: zone bits only where some RAM is out of its reach.
pub(crate) fn reachable(device: &Device) -> Gfp {
    let limits = machine().board.zone_limits();
    let ram_end = machine().map.ram().iter().map(|ram| ram.end).max();
    let end = device.limit().checked_add(1).unwrap_or(device.limit());
    if ram_end.is_none_or(|ram_end| ram_end <= end) {
        Gfp::KERNEL
    } else if limits.dma32 <= end {
        Gfp::KERNEL | Gfp::DMA32
    } else {
        Gfp::KERNEL | Gfp::DMA
    }
}
