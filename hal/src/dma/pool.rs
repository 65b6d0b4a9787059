//! Small blocks of coherent memory of one size: `dma_pool`.
//!
//! A page or more of [coherent memory](super::coherent) at a time is cut into blocks. Which of them
//! are free is noted beside it, in ordinary memory: what a device can write is never trusted with a
//! pointer, and non-cacheable memory takes no atomics.

mod error;
mod geometry;

pub use error::{DmaPoolError, PoolCreateError};

use super::coherent::{self, Coherent};
use super::{Device, DmaError};
use crate::addr::{DmaAddr, VirtAddr};
use crate::alloc::{Flags, KVec};
use crate::arch::barrier;
use crate::mm::Gfp;
use crate::sync::IrqLock;
use core::ptr::NonNull;
use geometry::Geometry;
