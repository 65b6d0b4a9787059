//! One area per core, reached through `TPIDR_EL1`.

#![cfg_attr(
    not(target_os = "none"),
    expect(
        clippy::disallowed_types,
        reason = "a host thread has no interrupt handlers"
    )
)]

use crate::arch::cpu::{self, IrqState};
use core::cell::Cell;
#[cfg(target_os = "none")]
use core::cell::UnsafeCell;
use core::fmt;

/// Most cores the firmware brings up.
pub const MAX_CPUS: usize = 8;

/// What a core is doing, as far as blocking goes: only a [`Task`](Context::Task) may.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Context {
    /// A run-to-completion task, IRQs on and no lock held.
    #[error("a task")]
    Task,
    /// An interrupt handler is running.
    #[error("an interrupt handler")]
    Interrupt,
    /// An [`IrqLock`](super::IrqLock) is held.
    #[error("code that holds a lock")]
    LockHeld,
    /// IRQs are masked for another reason.
    #[error("code with interrupts masked")]
    IrqsMasked,
}

/// What a core knows about itself.
///
/// Only the core it belongs to (its tasks and its interrupt handlers) touches an area, so plain
/// cells suffice; the type is not `Sync`.
#[derive(Debug)]
#[repr(C, align(64))]
pub struct PerCpu {
    index: usize,
    irq_depth: Cell<u32>,
    locks_held: Cell<u32>,
    /// Whether IRQs were masked before the first of the locks held.
    irq_before_locks: Cell<Option<IrqState>>,
}

impl PerCpu {
    /// The area of core number `index`, with nothing held.
    pub const fn new(index: usize) -> Self {
        Self {
            index,
            irq_depth: Cell::new(0),
            locks_held: Cell::new(0),
            irq_before_locks: Cell::new(None),
        }
    }

    /// The core's number, `0..MAX_CPUS`; core 0 booted first.
    #[inline]
    pub fn index(&self) -> usize {
        self.index
    }

    /// How many interrupt handlers are running on this core, one inside the other.
    #[inline]
    pub fn irq_depth(&self) -> u32 {
        self.irq_depth.get()
    }

    /// How many [`IrqLock`](super::IrqLock)s this core holds.
    #[inline]
    pub fn locks_held(&self) -> u32 {
        self.locks_held.get()
    }

    /// What the core is doing.
    #[inline]
    pub fn context(&self) -> Context {
        if self.irq_depth.get() != 0 {
            Context::Interrupt
        } else if self.locks_held.get() != 0 {
            Context::LockHeld
        } else if cpu::irqs_masked() {
            Context::IrqsMasked
        } else {
            Context::Task
        }
    }

    /// Marks the start of an interrupt handler.
    #[inline]
    pub fn irq_entered(&self) {
        self.irq_depth.set(self.irq_depth.get() + 1);
    }

    /// Marks the end of an interrupt handler.
    #[inline]
    pub fn irq_left(&self) {
        self.irq_depth.set(self.irq_depth.get() - 1);
    }

    /// Counts a lock taken with IRQs masked; `irq` is the state before that. The outermost lock's
    /// state is kept, so that IRQs come back when the last lock goes, in whatever order they go.
    #[inline]
    pub(super) fn lock_taken(&self, irq: IrqState) {
        let held = self.locks_held.get();
        if held == 0 {
            self.irq_before_locks.set(Some(irq));
        }
        self.locks_held.set(held + 1);
    }

    /// Counts a lock released; with the last one IRQs are as they were before the first.
    #[inline]
    pub(super) fn lock_released(&self) {
        let held = self.locks_held.get() - 1;
        self.locks_held.set(held);
        if held == 0
            && let Some(irq) = self.irq_before_locks.take()
        {
            cpu::irq_restore(irq);
        }
    }

    /// The executing core's area.
    #[cfg(target_os = "none")]
    #[inline(always)]
    pub fn current() -> &'static Self {
        let area: *const Self;
        // SAFETY: reading TPIDR_EL1 has no side effect. Each core's boot code sets it to the area
        // `AREAS` holds for it before any Rust runs there, and nothing else writes it.
        unsafe {
            core::arch::asm!("mrs {}, tpidr_el1", out(reg) area, options(pure, nomem, nostack, preserves_flags));
            &*area
        }
    }

    /// The area of the host thread, numbered in order of first use.
    #[cfg(not(target_os = "none"))]
    pub fn current() -> &'static Self {
        use std::sync::atomic::{AtomicUsize, Ordering};
        static NEXT: AtomicUsize = AtomicUsize::new(0);
        thread_local! {
            static AREA: &'static PerCpu = Box::leak(Box::new(PerCpu::new(
                NEXT.fetch_add(1, Ordering::Relaxed) % MAX_CPUS,
            )));
        }
        AREA.with(|area| *area)
    }
}

/// One value for each core, in cache lines of its own, that only its core touches.
pub struct PerCpuCell<T> {
    slots: [PerCpuSlot<T>; MAX_CPUS],
}

/// The value of one core in a [`PerCpuCell`].
#[repr(align(64))]
pub struct PerCpuSlot<T> {
    #[cfg(target_os = "none")]
    value: UnsafeCell<T>,
    /// Host threads may share a core number and are not stopped by masked IRQs.
    #[cfg(not(target_os = "none"))]
    value: spin::mutex::SpinMutex<T>,
}

impl<T> PerCpuSlot<T> {
    /// A slot that holds `value`.
    pub const fn new(value: T) -> Self {
        Self {
            #[cfg(target_os = "none")]
            value: UnsafeCell::new(value),
            #[cfg(not(target_os = "none"))]
            value: spin::mutex::SpinMutex::new(value),
        }
    }
}

// SAFETY: a slot is reached through `PerCpuCell::with` only, that is by its own core with IRQs
// masked; `Send` because the cell may be filled on one core and used by another.
#[cfg(target_os = "none")]
unsafe impl<T: Send> Sync for PerCpuSlot<T> {}

impl<T> PerCpuCell<T> {
    /// A cell of the given slots.
    pub const fn new(slots: [PerCpuSlot<T>; MAX_CPUS]) -> Self {
        Self { slots }
    }

    /// Runs `f` on the executing core's value, with IRQs masked. May be called in any context.
    ///
    /// # Safety
    ///
    /// `f` does not reach the same cell again.
    #[inline(always)]
    pub unsafe fn with<R>(&self, f: impl FnOnce(&mut T) -> R) -> R {
        let irq = cpu::irq_save();
        // The mask keeps the number in range without a check that could panic.
        let slot = &self.slots[PerCpu::current().index() % MAX_CPUS];
        #[cfg(target_os = "none")]
        // SAFETY: the slot belongs to this core, which runs nothing else while IRQs are masked,
        // and `f` does not come here again.
        let result = f(unsafe { &mut *slot.value.get() });
        #[cfg(not(target_os = "none"))]
        let result = f(&mut slot.value.lock());
        cpu::irq_restore(irq);
        result
    }
}

impl<T> fmt::Debug for PerCpuCell<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PerCpuCell").finish_non_exhaustive()
    }
}

/// The areas of all cores. The boot code finds the one for core `n` at `n * size_of::<PerCpu>()`.
#[cfg(target_os = "none")]
#[repr(transparent)]
#[derive(Debug)]
pub struct Areas([PerCpu; MAX_CPUS]);

// SAFETY: an area is reached through `PerCpu::current` only, that is by its own core.
#[cfg(target_os = "none")]
unsafe impl Sync for Areas {}

/// The areas of all cores.
#[cfg(target_os = "none")]
#[unsafe(no_mangle)]
pub static PER_CPU_AREAS: Areas = {
    let mut areas = [const { PerCpu::new(0) }; MAX_CPUS];
    let mut index = 0;
    while index < MAX_CPUS {
        areas[index] = PerCpu::new(index);
        index += 1;
    }
    Areas(areas)
};
