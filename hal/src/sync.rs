//! Mutual exclusion and per-CPU data.
//!
//! The only lock of the library is [`IrqLock`]. Raw `spin` locks are not used elsewhere, because
//! an interrupt handler that meets a lock its own core holds never returns.

mod irq_lock;
pub mod percpu;

pub use irq_lock::{IrqLock, IrqLockGuard};
pub use percpu::{Context, MAX_CPUS, PerCpu};
pub use spin::Once;
