//! The test suites, in the order they run.

/// The rows of a suite: each test's name and what runs it.
macro_rules! tests {
    ($($name:ident: $run:expr,)*) => {
        &[$($crate::report::Test { name: stringify!($name), run: $run },)*]
    };
}

mod alloc;
mod boot;
mod bounce;
mod busy;
mod cma;
mod coherent;
mod debug;
mod dma;
mod dmatest;
mod experiment;
mod fw_cfg;
mod gfp;
mod interrupt;
mod ioremap;
mod kmalloc;
mod kvmalloc;
mod limits;
mod mailbox;
pub(crate) mod mapping;
mod mmu;
mod pages;
#[expect(unsafe_code, reason = "makes devices that nobody is")]
mod phantom;
#[expect(unsafe_code, reason = "plants the faults the suites must find")]
mod plant;
mod pool;
mod pressure;
#[expect(unsafe_code, reason = "accesses memory that may not be there")]
mod probe;
mod reclaim;
mod refusal;
mod selftest;
mod sg;
mod slab;
#[cfg(feature = "slab-debug")]
mod slab_debug;
mod streaming;
mod stress;
mod vmalloc;
mod zones;

use crate::report::Suite;

/// Every suite there is.
pub const ALL: &[Suite] = &[
    boot::SUITE,
    mmu::SUITE,
    pages::SUITE,
    gfp::SUITE,
    zones::SUITE,
    slab::SUITE,
    #[cfg(feature = "slab-debug")]
    slab_debug::SUITE,
    kmalloc::SUITE,
    vmalloc::SUITE,
    kvmalloc::SUITE,
    cma::SUITE,
    reclaim::SUITE,
    ioremap::SUITE,
    stress::SUITE,
    alloc::SUITE,
    coherent::SUITE,
    pool::SUITE,
    streaming::SUITE,
    sg::SUITE,
    bounce::SUITE,
    dma::SUITE,
    debug::SUITE,
    dmatest::SUITE,
    fw_cfg::SUITE,
    mailbox::SUITE,
    experiment::SUITE,
    selftest::SUITE,
];
