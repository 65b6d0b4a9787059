//! Masters: devices that access memory past the caches.

use super::machine::Machine;
use super::state::{Job, Sink, Source};
use crate::addr::{DmaAddr, PhysAddr};
use crate::arch::barrier;
use crate::dma::engine::submission::{self, Control, Progress};
use crate::dma::{Clock, Completion, Device, DmaEngine, DmaError, DmaSegment, Ticket, Transfer};
use crate::sync::IrqLock;

/// What plays a device: it accesses memory at the bus addresses it is given, when it pleases.
///
/// [`start_read`](Self::start_read) and [`start_write`](Self::start_write) are a plain store to a
/// device register, without any barrier: what has to be there before is for the caller to see to.
/// As a [`DmaEngine`] it does what the trait asks for.
#[derive(Debug)]
pub struct Master {
    machine: Machine,
    device: &'static Device,
    registers: IrqLock<Registers>,
}

#[derive(Debug)]
struct Registers {
    machine: Machine,
    progress: Progress,
}

/// Time passes while somebody sleeps, and is not measured. Interrupts come in sleep only.
struct Sleep<'a>(&'a Master);

impl Clock for Sleep<'_> {
    fn now_ns(&self) -> u64 {
        0
    }

    fn sleep_until(&self, _: u64) {
        self.0.machine.pass();
        self.0.on_interrupt();
    }
}

impl Master {
    pub(super) fn new(machine: Machine, device: &'static Device) -> Self {
        let registers = IrqLock::new(Registers {
            machine: machine.clone(),
            progress: Progress::new(),
        });
        Self {
            machine,
            device,
            registers,
        }
    }

    /// The device.
    pub fn device(&self) -> &'static Device {
        self.device
    }

    /// What the device finds at a bus address.
    fn memory(&self, DmaSegment { addr, len }: DmaSegment) -> PhysAddr {
        let found = self.device.phys_addr(addr, len);
        found.unwrap_or_else(|| {
            let what = "a master was given an address that leads nowhere";
            self.machine.state().fault(what);
            PhysAddr::new(0)
        })
    }

    fn start(&self, source: Source, sink: Sink, len: usize) {
        let job = Job {
            source,
            sink,
            len,
            done: 0,
        };
        self.machine.state().doorbell(Some(job));
    }

    /// Stores to a register of the device, without any barrier: it is told of something.
    pub fn ring_doorbell(&self) {
        self.machine.state().doorbell(None);
    }

    /// Tells the master to read `segment`, some time from now on, and to keep the bytes.
    pub fn start_read(&self, segment: DmaSegment) {
        let memory = self.memory(segment);
        self.start(Source::Memory(memory), Sink::Fifo, segment.len);
    }

    /// Tells the master to write `bytes` at `addr`, some time from now on.
    pub fn start_write(&self, addr: DmaAddr, bytes: &[u8]) {
        let len = bytes.len();
        let memory = self.memory(DmaSegment { addr, len });
        self.start(Source::Data(bytes.to_vec()), Sink::Memory(memory), len);
    }

    /// Sleeps until the master has done all it was told, and returns the bytes it has kept.
    pub fn finish(&self) -> Vec<u8> {
        let mut state = self.machine.state();
        while state.transfer() {
            state.pass();
        }
        state.take_fifo()
    }

    /// The master reads now, of its own accord.
    pub fn read<const N: usize>(&self, addr: DmaAddr) -> [u8; N] {
        let memory = self.memory(DmaSegment { addr, len: N });
        let mut state = self.machine.state();
        let bytes = state.load(memory, N);
        state.pass();
        let mut read = [0; N];
        read.copy_from_slice(&bytes);
        read
    }

    /// The master writes now, of its own accord.
    pub fn write(&self, addr: DmaAddr, bytes: &[u8]) {
        let len = bytes.len();
        let memory = self.memory(DmaSegment { addr, len });
        let mut state = self.machine.state();
        state.store(memory, bytes);
        state.pass();
    }
}

impl Control for Registers {
    const GRACE_NS: u64 = 0;

    fn progress(&mut self) -> &mut Progress {
        &mut self.progress
    }

    fn serve(&mut self) -> bool {
        let mut state = self.machine.state();
        state.pass();
        state.transfer();
        if state.is_busy() || !self.progress.is_running() {
            return false;
        }
        self.progress.finish(Ok(()));
        true
    }

    fn cancel(&mut self, error: DmaError) -> bool {
        self.progress.finish(Err(error));
        false
    }

    fn give_up(&mut self, error: DmaError) {
        self.cancel(error);
    }
}

// SAFETY: `wait` returns when no job is left, and nothing else accesses memory.
unsafe impl DmaEngine for Master {
    fn device(&self) -> &'static Device {
        self.device
    }

    fn length_granule(&self) -> usize {
        1
    }

    fn max_len(&self) -> usize {
        usize::MAX
    }

    fn max_transfers(&self) -> usize {
        usize::MAX
    }

    fn timeout_ns(&self, _: usize) -> u64 {
        u64::MAX
    }

    unsafe fn submit(&self, transfers: &[Transfer]) -> Result<Ticket, DmaError> {
        self.check(transfers)?;
        let mut registers = self.registers.lock();
        if registers.progress.is_taken() {
            return Err(DmaError::Busy);
        }
        barrier::dsb_sy();
        for &Transfer { src, dst, len } in transfers {
            let [from, to] = [src, dst].map(|addr| self.memory(DmaSegment { addr, len }));
            self.start(Source::Memory(from), Sink::Memory(to), len);
        }
        Ok(registers.progress.start())
    }

    fn on_interrupt(&self) -> bool {
        submission::on_interrupt(&self.registers)
    }

    fn interrupts(&self) -> u64 {
        self.registers.lock().progress.interrupts()
    }

    fn lost_interrupts(&self) -> u64 {
        self.registers.lock().progress.lost_interrupts()
    }

    fn wait_by(&self, by: Completion, ticket: Ticket, timeout_ns: u64) -> Result<(), DmaError> {
        submission::wait(&self.registers, &Sleep(self), ticket, timeout_ns, by)
    }

    fn abort(&self) {
        self.registers.lock().cancel(DmaError::Aborted);
    }
}
