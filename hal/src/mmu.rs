//! The AArch64 stage 1 translation regime at EL1: types, descriptors, tables, mapping.
//!
//! ```text
//! mair        what a memory type is
//! descriptor  one 64-bit entry: encode, decode
//! table       one 4 KiB table and the level it belongs to
//! mapper      changes the tree, with the barriers and break-before-make the architecture asks for
//! run         frames mapped as they were allocated, and given back after the flush
//! paged       maps memory by pages from the start, whole tables at a time
//! retype      moves frames between memory types
//! flush       what must leave the TLBs, and the proof that it did
//! quarantine  what waits for a flush it shares
//! walk        reads the tree; audits are questions asked of a walk
//! kernel      the one tree of the kernel, behind its lock
//! ```

pub mod audit;
pub mod descriptor;
pub mod flush;
pub mod kernel;
pub mod mair;
pub mod mapper;
mod paged;
pub mod quarantine;
mod retype;
pub mod run;
pub mod table;
pub mod walk;

pub use descriptor::{Access, Attributes, Descriptor};
pub use flush::{Flushed, Stale};
pub use kernel::{KernelMapper, KernelTableMemory, init_kernel_tables, kernel_tables};
pub use mair::MemoryType;
pub use mapper::{MapError, Mapper};
pub use quarantine::Quarantine;
pub use run::Run;
pub use table::{Level, Table, TableMemory};
pub use walk::Leaf;
