//! One area per core, reached through `TPIDR_EL1`.

use crate::arch::cpu::{self, IrqState};
use crate::mm::Magazines;
#[cfg(target_os = "none")]
use crate::mm::{FrameLookup, FrameTable, PageLimits, PageLists};
use core::cell::Cell;

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

/// What a core knows about itself, as a task or as interrupt handlers.
///
/// Each core has two areas, and an interrupt switches from the first to the second for as long as
/// its handlers run: so what a task has in hand in its area no handler disturbs, and no mask is
/// needed to use it. Handlers that interrupt each other share the second.
///
/// Only the core it belongs to touches an area, so plain cells suffice; the type is not `Sync`.
#[derive(Debug)]
#[repr(C, align(64))]
pub struct PerCpu {
    /// First, so that the fast paths index it from the area's own address.
    magazines: Magazines,
    index: Cell<usize>,
    /// Locks held, in the low half, and interrupt handlers running: zero if the core may block.
    depths: Cell<u64>,
    /// Whether IRQs were masked before the first of the locks held. Of no meaning while none is.
    irq_before_locks: Cell<IrqState>,
    scopes: TaskScopes,
    #[cfg(target_os = "none")]
    page_lists: PageLists,
}

/// What the task of a core has asked for all its allocations; see [`mm::scope`](crate::mm::scope).
///
/// Counts, not flags: scopes of one kind nest and may end in any order.
#[derive(Debug)]
pub(crate) struct TaskScopes {
    /// Scopes in which reclaim starts no I/O.
    pub(crate) noio: Cell<u32>,
    /// Scopes in which reclaim does not enter file systems.
    pub(crate) nofs: Cell<u32>,
    /// Scopes in which nothing is reclaimed and no watermark applies.
    pub(crate) noreclaim: Cell<u32>,
    /// Number of the owner that accounted memory is charged to, 0 for none.
    pub(crate) owner: Cell<u32>,
    /// Scopes in which the core does nothing that is not the task's own work.
    pub(crate) alone: Cell<u32>,
}

impl TaskScopes {
    const fn new() -> Self {
        Self {
            noio: Cell::new(0),
            nofs: Cell::new(0),
            noreclaim: Cell::new(0),
            owner: Cell::new(0),
            alone: Cell::new(0),
        }
    }

    /// Runs `f`, which is not the task's own work, with none of the task's scopes open. `None`,
    /// without running it, if the task wants to be alone.
    pub(crate) fn outside<R>(&self, f: impl FnOnce() -> R) -> Option<R> {
        if self.alone.get() != 0 {
            return None;
        }
        let own = [&self.noio, &self.nofs, &self.noreclaim, &self.owner];
        let own = own.map(|cell| (cell, cell.take()));
        let result = f();
        for (cell, value) in own {
            cell.set(value);
        }
        Some(result)
    }
}

/// One in the half of [`PerCpu::depths`] that counts handlers.
const ONE_HANDLER: u64 = 1 << u32::BITS;

impl PerCpu {
    /// Areas of each core: for tasks and for interrupt handlers.
    #[cfg(target_os = "none")]
    const LEVELS: usize = 2;

    /// The distance from a core's areas to the next core's, in bytes, for the boot code.
    #[cfg(target_os = "none")]
    pub const STRIDE: usize = size_of::<[Self; Self::LEVELS]>();

    /// An area with nothing held. All zero, and core 0's until it is set up.
    const fn new() -> Self {
        Self {
            index: Cell::new(0),
            depths: Cell::new(0),
            irq_before_locks: Cell::new(IrqState::UNMASKED),
            scopes: TaskScopes::new(),
            magazines: Magazines::new(),
            #[cfg(target_os = "none")]
            page_lists: PageLists::new(),
        }
    }

    /// The scopes of this core's task; none in an interrupt handler, which is not the task's work.
    #[inline]
    pub(crate) fn task_scopes(&self) -> Option<&TaskScopes> {
        (self.irq_depth() == 0).then_some(&self.scopes)
    }

    /// The scopes of this core's task, for the guards that enter and leave them.
    pub(crate) fn scopes(&self) -> &TaskScopes {
        &self.scopes
    }

    /// The core's number, `0..MAX_CPUS`; core 0 booted first.
    #[inline]
    pub fn index(&self) -> usize {
        self.index.get()
    }

    /// How many interrupt handlers are running on this core, one inside the other.
    #[inline]
    pub fn irq_depth(&self) -> u32 {
        (self.depths.get() >> u32::BITS) as u32
    }

    /// How many [`IrqLock`](super::IrqLock)s this core holds.
    #[inline]
    pub fn locks_held(&self) -> u32 {
        self.depths.get() as u32
    }

    /// What the core is doing.
    #[inline(always)]
    pub fn context(&self) -> Context {
        if self.depths.get() == 0 {
            if cpu::irqs_masked() {
                Context::IrqsMasked
            } else {
                Context::Task
            }
        } else if self.irq_depth() != 0 {
            Context::Interrupt
        } else {
            Context::LockHeld
        }
    }

    /// What the core has at hand of slab objects.
    #[inline(always)]
    pub(crate) fn magazines(&self) -> &Magazines {
        &self.magazines
    }

    /// What the core has at hand of pages.
    #[cfg(target_os = "none")]
    #[inline(always)]
    pub(crate) fn page_lists(&self) -> &PageLists {
        &self.page_lists
    }

    /// Marks the start of an interrupt handler. From here on to [`irq_left`](Self::irq_left) the
    /// core uses its second area; the code in between is a function of its own, called and not
    /// inlined, because the compiler takes [`current`](Self::current) to be constant within one.
    #[inline]
    pub fn irq_entered(&self) {
        let area = self.handlers_area();
        area.depths.set(area.depths.get() + ONE_HANDLER);
        #[cfg(target_os = "none")]
        // SAFETY: the area is this core's, of those in `PER_CPU_AREAS`. IRQs are masked.
        unsafe {
            core::arch::asm!("msr tpidr_el1, {}", in(reg) &raw const *area, options(nostack, preserves_flags));
        }
    }

    /// Marks the end of an interrupt handler that started with `irq_entered` on the same area.
    #[inline]
    pub fn irq_left(&self) {
        let area = self.handlers_area();
        area.depths.set(area.depths.get() - ONE_HANDLER);
        #[cfg(target_os = "none")]
        // SAFETY: the area is this core's and the one the interrupted code used. IRQs are masked.
        unsafe {
            core::arch::asm!("msr tpidr_el1, {}", in(reg) &raw const *self, options(nostack, preserves_flags));
        }
    }

    /// The area of this core's handlers.
    #[cfg(target_os = "none")]
    #[inline]
    fn handlers_area(&self) -> &'static Self {
        &PER_CPU_AREAS.0[self.index.get() % MAX_CPUS][1]
    }

    /// A host thread has one area, and no handlers that interrupt it.
    #[cfg(not(target_os = "none"))]
    fn handlers_area(&self) -> &Self {
        self
    }

    /// Counts a lock taken with IRQs masked; `irq` is the state before that. The outermost lock's
    /// state is kept, so that IRQs come back when the last lock goes, in whatever order they go.
    #[inline]
    pub(super) fn lock_taken(&self, irq: IrqState) {
        let depths = self.depths.get();
        if depths as u32 == 0 {
            self.irq_before_locks.set(irq);
        }
        self.depths.set(depths + 1);
    }

    /// Counts a lock released; with the last one IRQs are as they were before the first.
    #[inline]
    pub(super) fn lock_released(&self) {
        let depths = self.depths.get() - 1;
        self.depths.set(depths);
        if depths as u32 == 0 {
            cpu::irq_restore(self.irq_before_locks.get());
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
            static AREA: &'static PerCpu = {
                let area = Box::leak(Box::new(PerCpu::new()));
                area.index.set(NEXT.fetch_add(1, Ordering::Relaxed) % MAX_CPUS);
                area.magazines.init(true);
                area
            };
        }
        AREA.with(|area| *area)
    }
}

/// The areas of all cores. The boot code finds those of core `n` at `n * PerCpu::STRIDE`.
#[cfg(target_os = "none")]
#[repr(transparent)]
#[derive(Debug)]
pub struct Areas([[PerCpu; PerCpu::LEVELS]; MAX_CPUS]);

// SAFETY: but for `init`, an area is reached through `PerCpu::current` only, that is by its own
// core.
#[cfg(target_os = "none")]
unsafe impl Sync for Areas {}

/// The areas of all cores. All zero, so that they take no room in the image.
#[cfg(target_os = "none")]
#[unsafe(no_mangle)]
pub static PER_CPU_AREAS: Areas =
    Areas([const { [const { PerCpu::new() }; PerCpu::LEVELS] }; MAX_CPUS]);

/// Sets the areas of all cores up. The first thing the boot code calls.
///
/// # Safety
///
/// One core runs, and does so for the first time.
#[cfg(target_os = "none")]
pub unsafe fn init() {
    for (index, levels) in PER_CPU_AREAS.0.iter().enumerate() {
        for (level, area) in levels.iter().enumerate() {
            area.index.set(index);
            area.magazines.init(level == 0);
        }
    }
}

/// Tells every core where frames are looked up.
///
/// # Safety
///
/// One core runs.
#[cfg(target_os = "none")]
pub(crate) unsafe fn set_frames(frames: FrameLookup) {
    for area in PER_CPU_AREAS.0.as_flattened() {
        area.magazines.set_frames(frames);
    }
}

/// Gives the tasks of every core room for page blocks at hand. Handlers get none.
///
/// # Safety
///
/// One core runs.
#[cfg(target_os = "none")]
pub(crate) unsafe fn set_page_lists(frames: FrameTable, limits: &PageLimits) {
    for [tasks, _] in &PER_CPU_AREAS.0 {
        tasks.page_lists.init(frames, limits);
    }
}
