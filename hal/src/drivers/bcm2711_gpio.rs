//! The BCM2711's pin multiplexer: which block drives a pin, and its pull resistor.
//!
//! Register names and codes: "BCM2711 ARM Peripherals", chapter 5. The pull registers are the
//! BCM2711's own, not the clocked sequence of earlier chips.

use super::registers;
use crate::addr::VirtAddr;
use crate::arch::barrier;
use core::mem::offset_of;
use safe_mmio::fields::ReadPureWrite;
use safe_mmio::{UniqueMmioPointer, field};

/// Pins of the chip: 0 to 57.
const PINS: u8 = 58;

const FSEL_PINS: u8 = 10;
const FSEL_BITS: u32 = 3;
const PULL_PINS: u8 = 16;
const PULL_BITS: u32 = 2;

/// The registers used here.
#[repr(C)]
struct Registers {
    /// `GPFSEL0` to `GPFSEL5`.
    function: [ReadPureWrite<u32>; 6],
    _unused: [u32; 51],
    /// `GPIO_PUP_PDN_CNTRL_REG0` to `3`.
    pull: [ReadPureWrite<u32>; 4],
}

const _: () = assert!(offset_of!(Registers, pull) == 0xE4);

/// A pin of the chip.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pin(u8);

impl Pin {
    /// Pin `number`, or `None` if the chip has no such pin.
    pub const fn new(number: u8) -> Option<Self> {
        if number < PINS {
            Some(Self(number))
        } else {
            None
        }
    }
}

/// What a pin is connected to, with its `FSEL` code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Function {
    /// An input of the GPIO block.
    Input = 0b000,
    /// An output of the GPIO block.
    Output = 0b001,
    /// Alternate function 0. Pins 14 and 15: UART0 transmit and receive.
    Alt0 = 0b100,
    /// Alternate function 3. Pins 32 and 33: UART0 transmit and receive.
    Alt3 = 0b111,
}

/// A pin's pull resistor, with its code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Pull {
    /// None.
    None = 0b00,
    /// To the supply.
    Up = 0b01,
    /// To ground.
    Down = 0b10,
}

/// The pin multiplexer.
#[derive(Debug)]
pub struct Bcm2711Gpio {
    registers: UniqueMmioPointer<'static, Registers>,
}

impl Bcm2711Gpio {
    /// The multiplexer with its registers at `base`.
    ///
    /// # Safety
    ///
    /// `base` maps the BCM2711's GPIO registers as Device memory for the rest of the program, and
    /// nothing else accesses them while the value lives.
    pub unsafe fn new(base: VirtAddr) -> Self {
        Self {
            // SAFETY: promised by the caller.
            registers: unsafe { registers(base) },
        }
    }

    /// Connects `pin` to `function`.
    pub fn set_function(&mut self, pin: Pin, function: Function) {
        replace(
            field!(self.registers, function),
            (pin.0 / FSEL_PINS).into(),
            u32::from(pin.0 % FSEL_PINS) * FSEL_BITS,
            FSEL_BITS,
            function as u32,
        );
    }

    /// Connects the pull resistor of `pin`.
    pub fn set_pull(&mut self, pin: Pin, pull: Pull) {
        replace(
            field!(self.registers, pull),
            (pin.0 / PULL_PINS).into(),
            u32::from(pin.0 % PULL_PINS) * PULL_BITS,
            PULL_BITS,
            pull as u32,
        );
    }

    /// Connects UART0 to pins 14 (transmit) and 15 (receive), as on the header, and to no other.
    ///
    /// The firmware may have given it to pins 32 and 33; they are released first, or receive
    /// would have two sources.
    pub fn connect_uart0(&mut self) {
        for pin in [Pin(32), Pin(33)] {
            self.set_function(pin, Function::Input);
        }
        // An open receive line must read as idle, which is high.
        self.set_pull(Pin(14), Pull::None);
        self.set_pull(Pin(15), Pull::Up);
        for pin in [Pin(14), Pin(15)] {
            self.set_function(pin, Function::Alt0);
        }
        // Accesses to different blocks may be reordered in the chip (section 1.3).
        barrier::dsb_sy();
    }
}

/// Replaces `bits` bits from bit `shift` of register `index` by `value`.
fn replace<const N: usize>(
    mut registers: UniqueMmioPointer<'_, [ReadPureWrite<u32>; N]>,
    index: usize,
    shift: u32,
    bits: u32,
    value: u32,
) {
    if let Some(mut register) = registers.get(index) {
        let mask = ((1 << bits) - 1) << shift;
        register.modify(|old| old & !mask | value << shift);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn uart0_moves_to_the_header() {
        let mut block = [0u32; 0xF4 / 4];
        // As the firmware leaves a Pi with Bluetooth: UART0 on 32 and 33 as ALT3.
        block[3] = 0b111_111 << 6 | 0b001 << 3;
        block[1] = 0b010_010 << 12 | 0b001;
        let base = VirtAddr::from_ptr(block.as_mut_ptr());
        // SAFETY: the block is as large as the registers and outlives the driver.
        unsafe { Bcm2711Gpio::new(base) }.connect_uart0();
        // SAFETY: `block` is live; the driver wrote it behind the compiler's back.
        let block = unsafe { base.as_ptr::<[u32; 0xF4 / 4]>().read_volatile() };
        assert_eq!(block[3], 0b001 << 3);
        assert_eq!(block[1], 0b100_100 << 12 | 0b001);
        assert_eq!(block[0xE4 / 4], 0b01 << 30);
        assert_eq!(block.iter().filter(|&&word| word != 0).count(), 3);
    }

    #[test]
    fn pins_end_at_57() {
        assert!(Pin::new(57).is_some());
        assert!(Pin::new(58).is_none());
    }
}
