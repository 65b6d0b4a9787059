//! A coherency sanitizer: a plugin for an unmodified QEMU that finds what firmware does wrong with
//! caches and DMA.
//!
//! QEMU models no caches, so a forgotten clean or invalidate goes unpunished there. The plugin watches
//! every load, store, cache and TLB instruction from outside, keeps for each line of memory what a cache
//! may hold of it, and knows from models of the devices ([`device`]) what these read and write. The
//! firmware is not asked and need not know.
//!
//! [`checker`] has the rules and knows nothing of QEMU; [`watch`] feeds it from what a CPU executes;
//! the declarations of QEMU's interface are in one module beside them.

#![allow(
    clippy::single_range_in_vec_init,
    reason = "a list of windows may have one"
)]

#[cfg(not(test))]
mod api;
pub mod board;
pub mod checker;
pub mod console;
pub mod decode;
pub mod device;
pub mod kind;
pub mod lines;
pub mod memory;
pub mod options;
pub mod register;
pub mod report;
pub mod tlb;
pub mod walk;
pub mod watch;
