//! Devices that no hardware is: memory is mapped for them and nobody is told where.

use hal::addr::PhysAddr;
use hal::dma::{BusWindow, Device, DmaMask};

/// Reaches all memory where the CPU does.
pub(super) static WIDE: Device = phantom("wide", DmaMask::new::<64>(), &EVERYWHERE);
/// As [`WIDE`], for tests that take it as coherent.
pub(super) static SNOOPING: Device = phantom("snooping", DmaMask::new::<64>(), &EVERYWHERE);
/// Drives so few address bits that it reaches no memory anybody is given.
pub(super) static NARROW: Device = phantom("narrow", DmaMask::new::<12>(), &EVERYWHERE);
/// Sees all memory where no engine of a board sees any.
pub(super) static ELSEWHERE: Device = phantom("elsewhere", DmaMask::new::<64>(), &FAR_AWAY);

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
