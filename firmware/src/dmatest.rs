//! A client that tests DMA engines by copies of random shape, as Linux's dmatest does.
//!
//! Every copy has its length, the place of its source and of its destination, the kind of memory of
//! either and its bytes drawn from the run's seed, the engine, the submitting core and its number,
//! so that a failure can be had again. After it, all of both buffers is compared: the source is as
//! it was, the destination is the source's copy, and nothing beside it has changed.

pub mod contents;
pub mod options;
pub mod shape;

#[cfg(target_os = "none")]
pub(crate) mod buffer;
#[cfg(target_os = "none")]
pub(crate) mod client;

pub use contents::Flaw;
pub use options::{BadOptions, Kind, Memory, Offsets, Options, Patterns};
pub use shape::Shape;
