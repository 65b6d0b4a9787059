//! A channel that follows a chain of control blocks: what legacy channels and DMA4 share.

use crate::addr::{DmaAddr, PAGE_SIZE};
use crate::arch::barrier;
use crate::dma::engine::submission::{Control, Progress};
use crate::dma::{Coherent, CoherentPool, Device, DmaError, Ticket};
use core::mem::ManuallyDrop;

/// Bytes in a control block, and its alignment.
pub(in crate::drivers) const BLOCK_SIZE: usize = 32;

/// Words in a control block.
pub(in crate::drivers) const BLOCK_WORDS: usize = BLOCK_SIZE / size_of::<u32>();

/// Control blocks of a channel: those that fill a page.
pub(in crate::drivers) const MAX_BLOCKS: usize = PAGE_SIZE / BLOCK_SIZE;

/// Nanoseconds before even the shortest submission counts as hung.
const TIMEOUT_BASE_NS: u64 = 1_000_000_000;
/// Nanoseconds a byte before a submission counts as hung: 10 MB/s, far below any channel.
const TIMEOUT_BYTE_NS: u64 = 100;

/// Nanoseconds after which a submission of `len` bytes counts as hung.
pub(in crate::drivers) const fn timeout_ns(len: usize) -> u64 {
    TIMEOUT_BASE_NS.saturating_add((len as u64).saturating_mul(TIMEOUT_BYTE_NS))
}

/// Looks before a channel counts as one that does not stop, as in Linux's driver.
const STOP_LOOKS: u32 = 10_000;
/// Looks in a row at which a channel must be quiet: a write that was on its way to the counter when
/// the first was taken shows at the second.
const QUIET_LOOKS: u32 = 2;

/// Whether a channel is quiet, and stays so: for one that nobody waits for.
pub(in crate::drivers) fn stays_quiet(is_quiet: impl Fn() -> bool) -> bool {
    (0..QUIET_LOOKS).all(|_| is_quiet())
}

/// Whether a channel becomes quiet, and stays so, within a bounded number of looks.
pub(in crate::drivers) fn becomes_quiet(is_quiet: impl Fn() -> bool) -> bool {
    let mut in_a_row = 0;
    (0..STOP_LOOKS).any(|_| {
        core::hint::spin_loop();
        in_a_row = if is_quiet() { in_a_row + 1 } else { 0 };
        in_a_row == QUIET_LOOKS
    })
}

/// What a channel signals.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::drivers) enum Signal {
    /// The end of a control block that raises the interrupt.
    End,
    /// A failure.
    Error,
}

/// The registers of a channel.
pub(in crate::drivers) trait Registers {
    /// How the channel is told of a control block at `addr`; `None` if it cannot be.
    fn pointer(addr: DmaAddr) -> Option<u32>;

    /// Starts the chain whose first control block `first` points to.
    fn start(&self, first: u32);

    /// What the channel signals, if anything.
    fn signal(&self) -> Option<Signal>;

    /// Withdraws the signal of an end.
    fn acknowledge(&self);

    /// The error bits, 0 without an error. DMA4 forgets them when they are read: to be asked for once,
    /// when they are wanted.
    fn errors(&self) -> u32;

    /// Stops the channel whatever it is doing and leaves it without signals and errors. Returns
    /// whether it is known to be quiet: nothing of it is on the bus any more. A channel that is not is
    /// not reset: a reset would forget what is under way, not take it back.
    fn stop(&self) -> bool;
}

/// A channel with its control blocks and its submission: what the lock of a channel protects. No
/// other lock is taken under it.
///
/// Dropping it stops the channel. One that does not stop keeps its control blocks for good.
#[derive(Debug)]
pub(in crate::drivers) struct Chain<R: Registers> {
    registers: R,
    blocks: ManuallyDrop<Coherent>,
    progress: Progress,
    /// The channel did not stop when told to. It may still access the memory of the submission that
    /// ended so, and gets no other any more.
    is_condemned: bool,
}

impl<R: Registers> Chain<R> {
    /// Memory for the control blocks of a channel of `device`.
    pub(in crate::drivers) fn allocate(
        pool: &'static CoherentPool,
        device: &'static Device,
    ) -> Result<Coherent, DmaError> {
        pool.alloc(device, MAX_BLOCKS * BLOCK_SIZE)
    }

    /// A channel that is stopped first; `None` if it does not stop. `blocks` come from
    /// [`allocate`](Self::allocate). A channel that does not stop was never told of them.
    pub(in crate::drivers) fn new(registers: R, blocks: Coherent) -> Option<Self> {
        let is_quiet = registers.stop();
        barrier::dsb_sy();
        is_quiet.then(|| Self {
            registers,
            blocks: ManuallyDrop::new(blocks),
            progress: Progress::new(),
            is_condemned: false,
        })
    }

    pub(in crate::drivers) fn registers(&self) -> &R {
        &self.registers
    }

    /// Starts a chain of `count` control blocks. `words` makes one from its index and the pointer to
    /// the next, `None` at the end, which has to raise the interrupt.
    pub(in crate::drivers) fn submit(
        &mut self,
        count: usize,
        words: impl Fn(usize, Option<u32>) -> Result<[u32; BLOCK_WORDS], DmaError>,
    ) -> Result<Ticket, DmaError> {
        if self.progress.is_taken() {
            return Err(DmaError::Busy);
        }
        if self.is_condemned {
            return Err(DmaError::Wedged);
        }
        for index in 0..count {
            let next = match index + 1 {
                last if last == count => None,
                next => Some(self.pointer(next)?),
            };
            let words = words(index, next)?;
            self.blocks.write_words(index * BLOCK_SIZE, &words)?;
        }
        let first = self.pointer(0)?;
        let ticket = self.progress.start();
        // The control blocks, and the maintenance and stores of the buffers, are in memory before
        // the channel is told to look.
        barrier::dsb_sy();
        self.registers.start(first);
        Ok(ticket)
    }

    fn pointer(&self, index: usize) -> Result<u32, DmaError> {
        let addr = self.blocks.dma_addr() + index * BLOCK_SIZE;
        let len = BLOCK_SIZE;
        R::pointer(addr).ok_or(DmaError::ForeignAddress { addr, len })
    }

    fn stop(&mut self) -> bool {
        self.is_condemned |= !self.registers.stop();
        barrier::dsb_sy();
        !self.is_condemned
    }

    /// Stops the channel and closes its submission with `error`.
    fn stop_with(&mut self, error: DmaError) {
        let error = if self.stop() { error } else { DmaError::Wedged };
        self.progress.finish(Err(error));
    }
}

impl<R: Registers> Drop for Chain<R> {
    fn drop(&mut self) {
        if !self.is_condemned && self.stop() {
            // SAFETY: they are dropped here only, and used nowhere afterwards.
            unsafe { ManuallyDrop::drop(&mut self.blocks) };
        }
    }
}

impl<R: Registers> Control for Chain<R> {
    /// Stopping ends whatever runs.
    const GRACE_NS: u64 = 0;

    fn progress(&mut self) -> &mut Progress {
        &mut self.progress
    }

    fn serve(&mut self) -> bool {
        // Accesses to different peripherals are not ordered against each other: barriers at entry
        // and exit of a handler (BCM2711 ARM Peripherals, 1.3).
        barrier::dsb_sy();
        let Some(signal) = self.registers.signal() else {
            return false;
        };
        match (signal, self.registers.errors()) {
            (Signal::End, 0) => {
                // Only the last control block of a chain raises INT, so the channel is idle.
                self.registers.acknowledge();
                self.progress.finish(Ok(()));
            }
            (_, flags) => self.stop_with(DmaError::Bus { flags }),
        }
        barrier::dsb_sy();
        true
    }

    fn cancel(&mut self, error: DmaError) -> bool {
        if !self.progress.is_running() {
            return false;
        }
        if self.serve() {
            self.progress.anticipate();
            return true;
        }
        self.stop_with(error);
        false
    }

    fn give_up(&mut self, _: DmaError) {
        self.progress.finish(Err(DmaError::Wedged));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use core::cell::Cell;

    #[test]
    fn a_channel_is_quiet_at_two_looks_in_a_row() {
        let looks = Cell::new(0);
        let look = |is_quiet: fn(u32) -> bool| {
            looks.set(0);
            becomes_quiet(|| {
                looks.set(looks.get() + 1);
                is_quiet(looks.get())
            })
        };
        assert!(look(|number| number != 2));
        assert_eq!(looks.get(), 4);
        assert!(!look(|number| number % 2 == 0));
        assert_eq!(looks.get(), STOP_LOOKS);
    }

    #[test]
    fn a_channel_that_nobody_waits_for_is_looked_at_twice() {
        let looks = Cell::new(0);
        let look = |is_quiet: fn(u32) -> bool| {
            looks.set(0);
            stays_quiet(|| {
                looks.set(looks.get() + 1);
                is_quiet(looks.get())
            })
        };
        assert!(look(|_| true));
        assert!(!look(|number| number == 1));
        assert_eq!(looks.get(), QUIET_LOOKS);
    }
}
