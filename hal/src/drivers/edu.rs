//! QEMU's teaching device as a DMA engine (QEMU documentation, "EDU device").
//!
//! The device has a buffer of 4096 bytes and copies between it and memory. A copy from memory to
//! memory goes through that buffer in steps: fill, drain, fill, drain. Each half step takes 100 ms
//! of the machine's virtual time, whatever its length, and ends with an interrupt; the handler
//! starts the next, so that a long copy costs no processor time in between.
//!
//! The device checks nothing. It clamps an address beyond its `dma_mask` option to another one, and
//! a length beyond its buffer overruns QEMU's own memory: both are ruled out here.

use super::mmio::RegisterIo;
use crate::arch::barrier;
use crate::dma::engine::submission::{self, Control, Progress};
use crate::dma::{Clock, Completion, Device, DmaEngine, DmaError, Ticket, Transfer};
use crate::sync::IrqLock;

/// PCI vendor and device identifier.
pub const PCI_ID: (u16, u16) = (0x1234, 0x11E8);

/// Bytes of registers: base address register 0.
pub const REGISTERS_SIZE: usize = 1 << 20;

/// Identification: version 1.0.
const IDENTIFICATION: usize = 0x00;
/// What [`IDENTIFICATION`] reads in every version: the major and minor version lie above.
const IDENTIFICATION_VALUE: u32 = 0x0000_00ED;
const IDENTIFICATION_MASK: u32 = 0x0000_FFFF;
/// Reads back the complement of what was written.
const LIVENESS: usize = 0x04;
/// Some value with zeros and ones in every byte.
const LIVENESS_PROBE: u32 = 0x1234_ABCD;
/// Pending interrupts.
const INTERRUPT_STATUS: usize = 0x24;
/// Clears the pending interrupts whose bits are written.
const INTERRUPT_ACKNOWLEDGE: usize = 0x64;
/// Source address, 64 bits. A 32-bit store would replace the whole value.
const DMA_SOURCE: usize = 0x80;
/// Destination address, 64 bits.
const DMA_DESTINATION: usize = 0x88;
/// Length in bytes, 64 bits.
const DMA_COUNT: usize = 0x90;
/// Command, 64 bits.
const DMA_COMMAND: usize = 0x98;

/// Starts a half step; reads 1 until it has ended.
const COMMAND_RUN: u64 = 1 << 0;
/// From the buffer to memory; otherwise from memory to the buffer.
const COMMAND_DRAIN: u64 = 1 << 1;
/// Raises [`INTERRUPT_DMA`] at the end.
const COMMAND_INTERRUPT: u64 = 1 << 2;

/// The end of a half step, in [`INTERRUPT_STATUS`].
const INTERRUPT_DMA: u32 = 0x100;

/// Where the device's own side of a half step sees the buffer.
const BUFFER: u64 = 0x4_0000;
/// Bytes in the buffer.
const BUFFER_SIZE: usize = 4096;

/// Nanoseconds a half step takes.
const HALF_STEP_NS: u64 = 100_000_000;
/// How much longer than it should a copy may take before it counts as hung.
const PATIENCE: u64 = 3;

/// Transfers in one submission.
const MAX_TRANSFERS: usize = 64;

/// Why the device cannot be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProbeError {
    /// The identification register holds something else.
    #[error("edu identification reads {0:#010x}")]
    Identification(u32),
    /// The liveness register does not invert.
    #[error("edu liveness check reads {0:#010x}")]
    Liveness(u32),
}

/// The edu device as a [`DmaEngine`].
#[derive(Debug)]
pub struct Edu<Io> {
    device: &'static Device,
    clock: &'static dyn Clock,
    inner: IrqLock<Inner<Io>>,
}

/// What the lock of the engine protects. The lock is taken last: no other is taken under it.
#[derive(Debug)]
struct Inner<Io> {
    io: Io,
    progress: Progress,
    queue: heapless::Vec<Transfer, MAX_TRANSFERS>,
    step: Step,
    /// Set to stop after the half step under way, with what the submission then ends with.
    cancelled: Option<DmaError>,
}

/// The half step under way, or the next to start.
#[derive(Clone, Copy, Debug, Default)]
struct Step {
    /// Index of the transfer.
    transfer: usize,
    /// Bytes of it already copied.
    done: usize,
    /// Whether the buffer is filled and to be drained.
    is_drain: bool,
}

impl<Io: RegisterIo> Edu<Io> {
    /// Takes over the device with the registers `io` ([`REGISTERS_SIZE`] bytes), whose memory
    /// decoding and bus mastering are on.
    ///
    /// # Errors
    ///
    /// [`ProbeError`].
    ///
    /// # Safety
    ///
    /// `device` describes this device: what its bus reaches, and no more address bits than the machine
    /// was started with (QEMU's `dma_mask` option).
    pub unsafe fn probe(
        io: Io,
        device: &'static Device,
        clock: &'static dyn Clock,
    ) -> Result<Self, ProbeError> {
        let identification = io.read32(IDENTIFICATION);
        if identification & IDENTIFICATION_MASK != IDENTIFICATION_VALUE {
            return Err(ProbeError::Identification(identification));
        }
        io.write32(LIVENESS, LIVENESS_PROBE);
        let liveness = io.read32(LIVENESS);
        if liveness != !LIVENESS_PROBE {
            return Err(ProbeError::Liveness(liveness));
        }
        Ok(Self {
            device,
            clock,
            inner: IrqLock::new(Inner {
                io,
                progress: Progress::new(),
                queue: heapless::Vec::new(),
                step: Step::default(),
                cancelled: None,
            }),
        })
    }
}

/// What a read of a device that is no longer on the bus returns (PCI Local Bus Specification 3.0,
/// 3.2.2.3.4: the master abort).
const NOBODY_ANSWERS: u32 = u32::MAX;

impl<Io: RegisterIo> Inner<Io> {
    fn is_gone(&self) -> bool {
        self.io.read32(IDENTIFICATION) == NOBODY_ANSWERS
    }

    /// Withdraws what the device signals and returns it.
    fn acknowledge(&self) -> u32 {
        match self.io.read32(INTERRUPT_STATUS) {
            0 | NOBODY_ANSWERS => 0,
            pending => {
                self.io.write32(INTERRUPT_ACKNOWLEDGE, pending);
                pending
            }
        }
    }

    fn is_busy(&self) -> bool {
        self.io.read64(DMA_COMMAND) & COMMAND_RUN != 0
    }

    /// Starts the half step that `self.step` names.
    fn start_step(&self) {
        let Some(transfer) = self.queue.get(self.step.transfer) else {
            return;
        };
        let done = self.step.done;
        let (source, destination, direction) = if self.step.is_drain {
            (BUFFER, (transfer.dst + done).get(), COMMAND_DRAIN)
        } else {
            ((transfer.src + done).get(), BUFFER, 0)
        };
        self.io.write64(DMA_SOURCE, source);
        self.io.write64(DMA_DESTINATION, destination);
        self.io.write64(DMA_COUNT, chunk(transfer, done) as u64);
        self.io
            .write64(DMA_COMMAND, COMMAND_RUN | COMMAND_INTERRUPT | direction);
    }

    /// Moves on to the next half step and returns whether there is one.
    fn advance(&mut self) -> bool {
        let Some(transfer) = self.queue.get(self.step.transfer) else {
            return false;
        };
        if !self.step.is_drain {
            self.step.is_drain = true;
            return true;
        }
        self.step.is_drain = false;
        self.step.done += chunk(transfer, self.step.done);
        if self.step.done == transfer.len {
            self.step.transfer += 1;
            self.step.done = 0;
        }
        self.step.transfer < self.queue.len()
    }
}

/// Bytes of the step that begins `done` bytes into `transfer`: never more than the buffer holds.
fn chunk(transfer: &Transfer, done: usize) -> usize {
    (transfer.len - done).min(BUFFER_SIZE)
}

// SAFETY: `submission::wait` returns when the last half step has ended, or would have on a device that
// is gone, with `Wedged` if it runs on.
unsafe impl<Io: RegisterIo + Send> DmaEngine for Edu<Io> {
    fn device(&self) -> &'static Device {
        self.device
    }

    fn length_granule(&self) -> usize {
        1
    }

    fn max_len(&self) -> usize {
        // Any length: it is cut into steps.
        usize::MAX
    }

    fn max_transfers(&self) -> usize {
        MAX_TRANSFERS
    }

    fn timeout_ns(&self, len: usize) -> u64 {
        // A submission of small transfers has a step for each.
        let steps = (len / BUFFER_SIZE + MAX_TRANSFERS) as u64;
        steps.saturating_mul(2 * HALF_STEP_NS * PATIENCE)
    }

    unsafe fn submit(&self, transfers: &[Transfer]) -> Result<Ticket, DmaError> {
        self.check(transfers)?;
        let mut inner = self.inner.lock();
        if inner.progress.is_taken() {
            return Err(DmaError::Busy);
        }
        if inner.is_gone() {
            return Err(DmaError::Gone);
        }
        // A half step that outlived its submission: the registers ignore what is written.
        if inner.is_busy() {
            return Err(DmaError::Wedged);
        }
        inner.queue.clear();
        inner.queue.extend(transfers.iter().copied());
        inner.step = Step::default();
        inner.cancelled = None;
        let ticket = inner.progress.start();
        // Maintenance and stores of the buffers are complete before the device is told to look.
        barrier::dsb_sy();
        inner.start_step();
        Ok(ticket)
    }

    fn on_interrupt(&self) -> bool {
        submission::on_interrupt(&self.inner)
    }

    fn interrupts(&self) -> u64 {
        self.inner.lock().progress.interrupts()
    }

    fn lost_interrupts(&self) -> u64 {
        self.inner.lock().progress.lost_interrupts()
    }

    fn wait_by(&self, by: Completion, ticket: Ticket, timeout_ns: u64) -> Result<(), DmaError> {
        submission::wait(&self.inner, self.clock, ticket, timeout_ns, by)
    }

    fn abort(&self) {
        self.inner.lock().cancel(DmaError::Aborted);
    }
}

impl<Io: RegisterIo> Control for Inner<Io> {
    /// The device cannot break a half step off.
    const GRACE_NS: u64 = HALF_STEP_NS * PATIENCE;

    fn progress(&mut self) -> &mut Progress {
        &mut self.progress
    }

    fn serve(&mut self) -> bool {
        let pending = self.acknowledge();
        if pending == 0 {
            return false;
        }
        if pending & INTERRUPT_DMA != 0 && self.progress.is_running() && !self.is_busy() {
            if let Some(error) = self.cancelled.take() {
                self.progress.finish(Err(error));
            } else if self.advance() {
                self.start_step();
            } else {
                self.progress.finish(Ok(()));
            }
        }
        // The line is level: the acknowledgement reaches the device before the end of interrupt.
        barrier::dsb_sy();
        true
    }

    fn cancel(&mut self, error: DmaError) -> bool {
        if !self.progress.is_running() || self.cancelled.is_some() {
            return false;
        }
        // A device that is gone reads as busy. Its half step may still be under way: registers that are
        // no longer decoded do not keep it from memory.
        if self.is_busy() {
            self.cancelled = Some(error);
            return false;
        }
        // A half step has ended, perhaps the last, and nobody was told.
        if self.acknowledge() != 0 {
            self.progress.anticipate();
        }
        let ended = if self.advance() { Err(error) } else { Ok(()) };
        self.progress.finish(ended);
        true
    }

    fn give_up(&mut self, error: DmaError) {
        let error = match self.is_busy() {
            true if self.is_gone() => DmaError::Gone,
            true => DmaError::Wedged,
            // It ended, but its interrupt got lost.
            false => self.cancelled.take().unwrap_or(error),
        };
        self.progress.finish(Err(error));
    }
}

#[cfg(test)]
#[path = "edu/tests.rs"]
mod tests;
