//! Devices that no hardware is: memory is mapped for them and nobody is told where.

use hal::addr::PhysAddr;
use hal::dma::{BusWindow, Device, DmaError, DmaMask};

/// Reaches all memory where the CPU does.
pub(super) static WIDE: Device = phantom("wide", DmaMask::new::<64>(), &EVERYWHERE);
/// As [`WIDE`], for tests that take it as coherent.
pub(super) static SNOOPING: Device = phantom("snooping", DmaMask::new::<64>(), &EVERYWHERE);
/// Drives so few address bits that it reaches no memory anybody is given.
pub(super) static NARROW: Device = phantom("narrow", DmaMask::new::<12>(), &EVERYWHERE);
/// Sees all memory where no engine of a board sees any.
pub(super) static ELSEWHERE: Device = phantom("elsewhere", DmaMask::new::<64>(), &FAR_AWAY);

/// Narrows what a device that is one reaches, for a while. To be held while nobody else uses the
/// device.
pub(super) struct Narrowed<'a> {
    device: &'a Device,
    before: [u64; 2],
}

impl<'a> Narrowed<'a> {
    /// `device` with both masks at `mask`.
    pub(super) fn to(device: &'a Device, mask: DmaMask) -> Result<Self, DmaError> {
        let before = [device.mask(), device.coherent_mask()];
        device.set_mask_and_coherent(mask)?;
        Ok(Self { device, before })
    }
}

impl Drop for Narrowed<'_> {
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
    // SAFETY: no engine names it as its device, so its addresses reach nobody.
    unsafe { Device::new(name, width, windows) }
}
