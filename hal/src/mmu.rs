//! The AArch64 stage 1 translation regime at EL1: types, descriptors, tables, mapping.

pub mod mair;

pub use mair::MemoryType;
