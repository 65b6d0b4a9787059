//! The machine as a test sees it.

use super::buffer::{Buffer, pattern};
use super::event::Event;
use super::master::Master;
use super::ram::{LINE, Ram};
use super::region::{Access, Region};
use super::state::State;
use super::tables::{Tables, Translation};
use crate::addr::{PAGE_SIZE, PhysAddr, PhysRange, VirtAddr};
use crate::arch::trace::{self, Observer, Op};
use crate::dma::{BusWindow, Device, DmaMask, bounce};
use crate::layout::{self, host};
use std::ops::Range;
use std::panic::Location;
use std::rc::Rc;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// What a program under test found wrong: wrong data, or a broken rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Wrong(pub &'static str);

/// A machine with a cache, a write buffer, TLBs and masters that snoop none of it.
///
/// A program runs on it in [`run`](Self::run), on the calling thread. Memory taken from the machine
/// stays for good, so a test makes one machine and runs many programs on it.
#[derive(Clone, Debug)]
pub struct Machine {
    state: Arc<Mutex<State>>,
}

impl Default for Machine {
    fn default() -> Self {
        Self::new()
    }
}

/// What hears of the operations of a program.
struct Listener(Machine);

impl Observer for Listener {
    fn on_op(&self, op: Op, site: &'static Location<'static>) {
        self.0.state().issue(op, site);
    }

    fn on_entry(&self, entry: VirtAddr, new: u64, site: &'static Location<'static>) -> bool {
        self.0.state().store_entry(entry, new, site)
    }
}

impl Machine {
    /// A machine without memory.
    pub fn new() -> Self {
        Self {
            state: Arc::new(Mutex::new(State::new())),
        }
    }

    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        // A program that panics leaves nothing half done that the next run would see.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes `len` bytes of cached memory, rounded up to lines.
    pub fn buffer(&self, len: usize) -> Buffer {
        self.buffer_as(len, Access::Cached)
    }

    /// Takes `len` bytes of memory, rounded up to lines, that are accessed as `access` says.
    pub fn buffer_as(&self, len: usize, access: Access) -> Buffer {
        let len = len.next_multiple_of(LINE);
        let page = host::ram(len as u64, PAGE_SIZE as u64);
        let range = PhysRange::new(page.start, page.start + len);
        // SAFETY: the RAM was just handed out to this buffer alone, and comes zeroed.
        unsafe {
            self.watch(range, access);
            Buffer::new(layout::phys_to_virt(range.start), len)
        }
    }

    /// Takes `pages` pages of non-cacheable memory, aligned as a
    /// [`CoherentPool`](crate::dma::CoherentPool) of them has to be.
    pub fn uncached_pages(&self, pages: usize) -> PhysRange {
        let size = (pages * PAGE_SIZE) as u64;
        let frames = host::ram(size, crate::dma::coherent::MAX_ALLOCATION as u64);
        // SAFETY: the RAM was just handed out to this machine alone, for good.
        unsafe { self.watch(frames, Access::Uncached) };
        frames
    }

    /// Leaves dirty lines of `frames`, which are non-cacheable, in the cache: those of a loader that
    /// ran before.
    pub fn leave_lines(&self, frames: PhysRange) {
        self.state().leave_lines(frames.start);
    }

    /// Sees to it that there is a bounce pool, and watches its first `len` bytes. The pool is the
    /// process's: no other thread may bounce meanwhile.
    pub fn bounce_pool(&self, len: usize) {
        let pool = bounce::pool_for_tests();
        let start = pool.frames().start;
        // SAFETY: the pool's memory is there for good; its slots are used by who has them lent.
        unsafe { self.watch(PhysRange::new(start, start + len), Access::Cached) };
    }

    /// Puts the machine between the core and `range`, whole lines of pretended RAM.
    ///
    /// # Safety
    ///
    /// The memory stays for the rest of the program. Whoever it belongs to lets it change in each
    /// call of [`arch`](crate::arch) as memory does that a device has.
    pub unsafe fn watch(&self, range: PhysRange, access: Access) {
        // SAFETY: the caller's contract.
        let ram = unsafe { Ram::new(range) };
        self.state().regions.push(Region::new(ram, access));
    }

    /// Lets the cores use the tree of tables at `root`, at the addresses of `pages`: whatever walks,
    /// walks for those.
    ///
    /// # Safety
    ///
    /// The tables lie in pretended RAM for good, and only [`mmu`](crate::mmu) changes entries.
    pub unsafe fn attach(&self, root: PhysAddr, pages: Vec<VirtAddr>) {
        self.state().tables = Some(Tables::new(root, pages));
    }

    /// What core number `core`, below [`CORES`](super::CORES), uses for `va`: what its TLBs
    /// remember, or what a walk finds. Core 0 runs the program; the others have been told of what
    /// it did, and have issued an `ISB`.
    ///
    /// # Panics
    ///
    /// If there is no such core.
    pub fn translate(&self, core: usize, va: VirtAddr) -> Option<Translation> {
        self.state().translation(core, va)
    }

    /// A master that does not snoop and sees all memory at its physical address.
    pub fn master(&self) -> Master {
        // SAFETY: the only device told of such addresses is the master, which finds memory there.
        let window = unsafe { BusWindow::new(PhysAddr::new(0), 0, 1 << 40) };
        let windows: &[BusWindow] = Box::leak(Box::new(window.into_iter().collect::<Vec<_>>()));
        // SAFETY: as above.
        let device = unsafe { Device::new("master", DmaMask::new::<40>(), windows) };
        self.master_of(Box::leak(Box::new(device)))
    }

    /// What plays `device`.
    pub fn master_of(&self, device: &'static Device) -> Master {
        Master::new(self.clone(), device)
    }

    /// Lets time pass: whatever may happen by itself may happen now.
    pub fn pass(&self) {
        self.state().pass();
    }

    /// Lets so much time pass that masters see what the core stored past the cache, and the core what
    /// they wrote there: what a loop that waits for the other side may count on in the end.
    pub fn settle(&self) {
        self.state().settle();
    }

    /// Runs `program` under the adversary of `seed`, with garbage in all memory of the machine.
    ///
    /// # Errors
    ///
    /// What the program found wrong, or the rule it broke.
    pub fn run(
        &self,
        seed: u64,
        program: impl FnMut(&Self) -> Result<(), Wrong>,
    ) -> Result<(), Wrong> {
        self.run_without(seed, None, program)
    }

    /// As [`run`](Self::run), without the operation number `omitted` that the program issues.
    ///
    /// # Errors
    ///
    /// As for [`run`](Self::run).
    pub fn run_without(
        &self,
        seed: u64,
        omitted: Option<usize>,
        mut program: impl FnMut(&Self) -> Result<(), Wrong>,
    ) -> Result<(), Wrong> {
        self.state().restart(seed, omitted);
        let listener = Rc::new(Listener(self.clone()));
        let result = trace::observe_during(listener, || program(self));
        match self.state().take_fault() {
            Some(fault) => Err(Wrong(fault)),
            None => result,
        }
    }

    /// The operations that the last program issued.
    pub fn events(&self) -> Vec<Event> {
        self.state().events.clone()
    }

    /// The operation number `number` that the last program issued.
    pub(super) fn event(&self, number: usize) -> Option<Event> {
        self.state().events.get(number).copied()
    }

    /// How many of the adversaries of `seeds` make `program` go wrong.
    pub fn wrong_seeds(
        &self,
        seeds: Range<u64>,
        mut program: impl FnMut(&Self) -> Result<(), Wrong>,
    ) -> usize {
        let is_wrong = |seed: &u64| self.run(*seed, &mut program).is_err();
        seeds.filter(is_wrong).count()
    }
}

/// Bytes that a device may send: those that [`Buffer::fill`] stores for `seed`.
pub fn bytes_of(seed: u64, len: usize) -> Vec<u8> {
    (0..len).map(|at| pattern(seed, at)).collect()
}
