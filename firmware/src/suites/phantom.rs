//! Devices that no hardware is: memory is mapped for them and nobody is told where. And an engine
//! that is told so little of memory that it needs bounce buffers for all of it.

pub(super) mod removable;

use crate::machine::machine;
use hal::addr::{PAGE_SIZE, PhysAddr};
use hal::dma::engine::Ticket;
use hal::dma::{
    BusWindow, Completion, Device, DmaEngine, DmaError, DmaMask, SegmentLimits, Transfer, bounce,
};
use hal::sync::Once;

/// Reaches all memory where the CPU does.
pub(super) static WIDE: Device = phantom("wide", DmaMask::new::<64>(), &EVERYWHERE);
/// As [`WIDE`], for tests that take it as coherent.
pub(super) static SNOOPING: Device = phantom("snooping", DmaMask::new::<64>(), &EVERYWHERE);
/// As [`WIDE`], and takes no segment longer than a page or across 64 KiB.
pub(super) static CHOOSY: Device =
    phantom("choosy", DmaMask::new::<64>(), &EVERYWHERE).with_limits(CHOOSY_LIMITS);
const CHOOSY_LIMITS: SegmentLimits = match SegmentLimits::new(0x1000, 0x1_0000) {
    Ok(limits) => limits,
    Err(_) => panic!("a page and a power of two"),
};
/// Drives so few address bits that it reaches no memory anybody is given.
pub(super) static NARROW: Device = phantom("narrow", DmaMask::new::<12>(), &EVERYWHERE);
/// Sees all memory where no engine of a board sees any.
pub(super) static ELSEWHERE: Device = phantom("elsewhere", DmaMask::new::<64>(), &FAR_AWAY);

/// Narrows what a device that is one reaches, for a while. To be held while nobody else uses the
/// device.
pub(super) struct MaskedTo<'a> {
    device: &'a Device,
    before: [u64; 2],
}

impl<'a> MaskedTo<'a> {
    /// `device` with both masks at `mask`.
    pub(super) fn set(device: &'a Device, mask: DmaMask) -> Result<Self, DmaError> {
        let before = [device.mask(), device.coherent_mask()];
        device.set_mask_and_coherent(mask)?;
        Ok(Self { device, before })
    }
}

impl Drop for MaskedTo<'_> {
    fn drop(&mut self) {
        let [streaming, coherent] = self
            .before
            .map(|mask| DmaMask::try_new(u64::BITS - mask.leading_zeros()));
        // Masks that were in force are of whole bits and reach memory.
        if let (Ok(streaming), Ok(coherent)) = (streaming, coherent) {
            let _ = self.device.set_mask(streaming);
            let _ = self.device.set_coherent_mask(coherent);
        }
    }
}
/// As [`WIDE`], without bounce buffers.
pub(super) static STRICT: Device =
    phantom("strict", DmaMask::new::<64>(), &EVERYWHERE).without_bouncing();
/// As [`WIDE`], with segments of at most three pages that do not cross 16 KiB.
pub(super) static LIMITED: Device =
    phantom("limited", DmaMask::new::<64>(), &EVERYWHERE).with_limits(SHORT);

/// The limits of [`LIMITED`].
const SHORT: SegmentLimits = match SegmentLimits::new(3 * PAGE_SIZE, 16 << 10) {
    Ok(limits) => limits,
    Err(_) => panic!("a power of two above a page"),
};

/// As [`WIDE`], of an engine whose registers are a program's.
pub(super) static REMOVABLE: Device = phantom("removable", DmaMask::new::<64>(), &EVERYWHERE);

static EVERYWHERE: [BusWindow; 1] = window(0);
static FAR_AWAY: [BusWindow; 1] = window(1 << 48);

/// All memory, at bus address `bus`.
const fn window(bus: u64) -> [BusWindow; 1] {
    // SAFETY: only the devices of this file see memory through it, and they see nothing.
    match unsafe { BusWindow::new(PhysAddr::new(0), bus, 1 << 40) } {
        Some(window) => [window],
        None => panic!("the window does not wrap"),
    }
}

const fn phantom(name: &'static str, width: DmaMask, windows: &'static [BusWindow]) -> Device {
    // SAFETY: no engine of hardware names it as its device, so its addresses reach nobody.
    unsafe { Device::new(name, width, windows) }
}

/// The machine's first engine, as one whose device reaches the bounce pool and nothing else, or that
/// is given no time.
#[derive(Clone, Copy, Debug)]
pub(super) struct Narrowed {
    engine: &'static dyn DmaEngine,
    device: &'static Device,
    /// Waits at most this long, in ns, if it is in a hurry.
    patience_ns: Option<u64>,
}

impl Narrowed {
    /// For which every submission takes too long that takes any time. `None` without an engine.
    pub(super) fn hasty() -> Option<Self> {
        let engine = *machine().engines.first()?;
        Some(Self {
            engine,
            device: engine.device(),
            patience_ns: Some(1),
        })
    }

    /// `None` without an engine or a pool that it reaches.
    pub(super) fn get() -> Option<Self> {
        static WINDOW: Once<[BusWindow; 1]> = Once::new();
        static DEVICE: Once<Device> = Once::new();

        let engine = *machine().engines.first()?;
        let pool = bounce::pool()?.frames();
        let bus = engine.device().dma_addr(pool.start, pool.size() as usize);
        // SAFETY: there the engine's own device sees the pool.
        let window = unsafe { BusWindow::new(pool.start, bus.ok()?.get(), pool.size()) }?;
        let windows = WINDOW.call_once(|| [window]);
        // SAFETY: the window is part of what the engine's device sees, and the engine drives the
        // addresses in it.
        let device = || unsafe { Device::new("narrowed", DmaMask::new::<64>(), windows) };
        let device = DEVICE.call_once(device);
        Some(Self {
            engine,
            device,
            patience_ns: None,
        })
    }
}

// SAFETY: every call is the engine's own.
unsafe impl DmaEngine for Narrowed {
    fn device(&self) -> &'static Device {
        self.device
    }

    fn length_granule(&self) -> usize {
        self.engine.length_granule()
    }

    fn max_len(&self) -> usize {
        self.engine.max_len()
    }

    fn max_transfers(&self) -> usize {
        self.engine.max_transfers()
    }

    fn timeout_ns(&self, len: usize) -> u64 {
        self.engine.timeout_ns(len)
    }

    unsafe fn submit(&self, transfers: &[Transfer]) -> Result<Ticket, DmaError> {
        // SAFETY: handed on to the caller.
        unsafe { self.engine.submit(transfers) }
    }

    fn on_interrupt(&self) -> bool {
        self.engine.on_interrupt()
    }

    fn interrupts(&self) -> u64 {
        self.engine.interrupts()
    }

    fn lost_interrupts(&self) -> u64 {
        self.engine.lost_interrupts()
    }

    fn wait_by(&self, by: Completion, ticket: Ticket, timeout_ns: u64) -> Result<(), DmaError> {
        let timeout_ns = self.patience_ns.unwrap_or(timeout_ns);
        self.engine.wait_by(by, ticket, timeout_ns)
    }

    fn abort(&self) {
        self.engine.abort();
    }
}
