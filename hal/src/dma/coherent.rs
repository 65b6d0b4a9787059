//! Coherent memory: seen alike by the CPU and by devices that do not snoop, without maintenance.
//!
//! | module | what it holds |
//! |---|---|
//! | `machine` | [`alloc`](alloc()): the one entry, and the machine's state behind it |
//! | `memory` | where a request is served from |
//! | `pool` | memory that is non-cacheable already, for callers that may not block |
//! | `run` | contiguous memory that becomes non-cacheable, and cacheable again |
//! | `object` | [`Coherent`]: an allocation, as bytes or as a type |
//!
//! Non-cacheable memory takes unaligned accesses and `DC ZVA`, but exclusive accesses are not legal
//! there: no lock and no atomic may live in it, and nothing here keeps its own state in it.
//!
//! Dropping an allocation frees it, in any context. What came from the pool is free at once. What
//! was made non-cacheable becomes cacheable memory of the direct map again, which takes time in
//! proportion to its size and the lock of the kernel's tables: in a task that is done on return,
//! elsewhere it is left to [`Work::CoherentFree`](crate::deferred::Work::CoherentFree).

mod bitmap;
mod block;
mod field;
mod machine;
mod memory;
mod object;
mod pool;
mod run;

use crate::addr::PAGE_SIZE;

pub use field::Field;
pub(super) use machine::memory;
pub use machine::{alloc, drain, info, init, kept_frames};
pub use memory::{CoherentMemory, RunInfo};
pub use object::{Coherent, CoherentPart, CoherentPartMut, Plain};
pub use pool::{BadPool, CHUNK_SIZE, CoherentPool, MAX_CHUNKS, MAX_POOL_SIZE, PoolInfo};
pub use run::RunError;

/// Bytes in the largest allocation from a pool, and the alignment a pool's two addresses agree in:
/// the largest block of pages.
pub const MAX_ALLOCATION: usize = PAGE_SIZE << crate::mm::MAX_ORDER;

#[cfg(test)]
pub(crate) use tests::machine as testing;
#[cfg(test)]
mod tests;
