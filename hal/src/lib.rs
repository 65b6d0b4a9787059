//! Linux-shaped memory management and DMA for bare-metal AArch64.
//!
//! The library names no board and contains no entry point. A board crate describes its memory map,
//! interrupt controller and DMA masters through [`board::Board`]; a binary brings the machine up
//! and then uses what the modules below offer:
//!
//! | module | what it holds |
//! |---|---|
//! | [`addr`] | physical, virtual and device addresses as distinct types |
//! | [`layout`] | the kernel address space: which window lies where |
//! | [`arch`] | one documented function per AArch64 instruction; on the host, a recording twin |
//! | [`devicetree`] | what the blob we were booted with says, checked |
//! | [`memory_map`] | RAM and its owners while booting |
//! | [`mmu`] | memory types, descriptors, the table walker and the mapper |
//! | [`mm`] | frames, zones, buddy pages, slab and kmalloc, vmalloc |
//! | [`alloc`] | boxes and vectors on that memory, and the global allocator |
//! | [`dma`] | masks, bus windows, coherent and streaming memory, the `DmaEngine` trait |
//! | [`sync`] | the IRQ-saving lock and per-CPU data |
//! | [`smp`] | running a function on another core |
//! | [`deferred`] | work put off to an idle core or the next blocking call |
//! | [`board`] | what a board must say of itself |
//! | [`drivers`] | interrupt controller, UART, timer, PCI and the DMA engines |
//! | `testkit` | with the feature of that name: a host machine on which forgotten maintenance shows |
//!
//! Dependencies between the modules point up this table only, but for those of [`sync`], [`smp`] and
//! [`deferred`], which all may use, of [`board`], which names what a board
//! hands over, and of `PAR_EL1`, which holds a type of memory.
//!
//! On a host target the same code runs against a stretch of ordinary memory standing in for RAM
//! (see [`layout`]), which is how its tests work.

#![cfg_attr(target_os = "none", no_std)]

pub mod addr;
pub mod alloc;
pub mod arch;
pub mod board;
pub mod deferred;
pub mod devicetree;
pub mod dma;
pub mod drivers;
pub mod layout;
pub mod memory_map;
pub mod mm;
pub mod mmu;
pub mod smp;
pub mod sync;
#[cfg(feature = "testkit")]
pub mod testkit;
mod trace;
