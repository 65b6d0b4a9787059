//! A coherency sanitizer: a plugin for an unmodified QEMU that finds what firmware does wrong with
//! caches and DMA.

pub mod board;
pub mod device;
pub mod kind;
