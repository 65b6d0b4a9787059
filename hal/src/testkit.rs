//! A machine for host tests on which forgotten maintenance, barriers and TLB invalidations show.
//!
//! The code under test is the library's own, or a driver's made with it. It loads and stores the
//! host's pretended RAM ([`layout::host`](crate::layout::host)), and the [`Machine`] hears of each
//! instruction of [`arch`](crate::arch) that it issues. Between that memory and what masters see
//! the machine puts
//!
//! | | what it does | until |
//! |---|---|---|
//! | a write-back cache | keeps what the core stored from masters, and what they wrote from the core | a clean, an invalidation, an eviction |
//! | a write buffer | keeps stores to non-cacheable memory, lets them out in any order; lets loads of it come early | `DSB SY`; in order with `DMB OSHST`, `DMB OSHLD` |
//! | TLBs | keep translations, of each core for itself | a TLB invalidation |
//! | time | maintenance and TLB invalidations are under way | the `DSB` that completes them |
//!
//! An adversary that follows from a seed decides what happens meanwhile: lines are fetched and
//! evicted, stores leave, tables are walked, masters go on, at every instruction the code issues. A
//! program that is right is right for every seed; one that lacks an operation it needs is wrong for
//! some. [`Mutants`] makes use of that: it runs a program once for each operation that the program
//! issues, without that one.
//!
//! # What it does not know
//!
//! The core's loads and stores themselves are not seen, so time does not pass between two of them;
//! [`Machine::pass`] lets it. Cores are not modelled beyond their TLBs: locks and atomics are for
//! [loom](https://docs.rs/loom). Maintenance counts as done with the `DSB SY` behind it and not
//! before, although a core orders it with its own accesses to the same line (Arm ARM D7.5.9): another
//! core may be the next to access the memory.
//!
//! # Example
//!
//! A device reads what the core stored, by the rules and without them:
//!
//! ```
//! use hal::dma::{streaming::map_slice, ToDevice};
//! use hal::testkit::{Machine, Wrong};
//!
//! let machine = Machine::new();
//! let master = machine.master();
//! let mut buffer = machine.buffer(64);
//! let right = |_: &Machine| {
//!     buffer.bytes().fill(7);
//!     let mapping = map_slice::<ToDevice>(master.device(), buffer.bytes())
//!         .map_err(|_| Wrong("not mapped"))?;
//!     master.start_read(mapping.dma_segment());
//!     match master.finish() == [7; 64] {
//!         true => Ok(()),
//!         false => Err(Wrong("the device read something else")),
//!     }
//! };
//! assert_eq!(machine.wrong_seeds(0..100, right), 0);
//! ```

mod adversary;
mod buffer;
mod cache;
mod event;
mod leftover;
mod machine;
mod master;
mod mutants;
mod ram;
mod region;
mod state;
mod tables;
mod write_buffer;

pub use buffer::Buffer;
pub use event::{Event, EventKind};
pub use machine::{Machine, Wrong, bytes_of};
pub use master::Master;
pub use mutants::{Excuse, Mutants};
pub use region::Access;
pub use tables::{CORES, Translation};
