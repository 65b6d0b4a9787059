//! The instructions the rest of the library is built on, one documented function each.
//!
//! On a bare-metal target the functions are the instructions. On a host they are a twin with the
//! same names that records what was issued (`trace`), so that tests can assert on the
//! sequence: which lines were cleaned, which addresses were invalidated, in what order.

#[cfg(target_os = "none")]
pub mod barrier;
#[cfg(target_os = "none")]
pub mod cache;
#[cfg(target_os = "none")]
pub mod counter;
#[cfg(target_os = "none")]
pub mod cpu;
#[cfg(target_os = "none")]
pub mod entry;
#[cfg(target_os = "none")]
pub mod fault_probe;
#[cfg(all(target_os = "none", feature = "seeds"))]
pub mod omit;
#[cfg(target_os = "none")]
pub mod pmu;
#[cfg(target_os = "none")]
pub mod sysreg;
#[cfg(target_os = "none")]
pub mod tlb;
#[cfg(target_os = "none")]
pub mod translate;

#[cfg(not(target_os = "none"))]
mod host;
#[cfg(not(target_os = "none"))]
pub use host::{barrier, cache, counter, cpu, entry, fault_probe, tlb, trace, translate};

pub mod cache_size;
pub mod exception;
pub mod par;
