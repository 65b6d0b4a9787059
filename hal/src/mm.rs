//! Memory management on top of the page tables.

pub mod ioremap;
pub mod va;
pub mod vmalloc;
