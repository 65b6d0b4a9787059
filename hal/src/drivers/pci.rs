//! PCI Express: configuration space through ECAM, and addresses for devices that have none.
//!
//! The firmware finds the functions of bus 0 and gives the ones it uses addresses from the bridge's
//! memory window. It does not number the buses behind bridges: the machines with such buses leave
//! them to an operating system. Offsets and bits are those of the PCI Local Bus Specification 3.0,
//! chapter 6, and the PCI Express Base Specification, 7.2.2 (ECAM).

use super::mmio::RegisterIo;
use crate::addr::PhysAddr;

/// Bytes of ECAM that describe bus 0: 32 devices of 8 functions of 4 KiB.
pub const BUS_SIZE: usize = DEVICES * FUNCTIONS * FUNCTION_SIZE;

const DEVICES: usize = 32;
const FUNCTIONS: usize = 8;
const FUNCTION_SIZE: usize = 4096;

/// Vendor (low half) and device identifier.
const ID: usize = 0x00;
/// Command (low half) and status.
const COMMAND: usize = 0x04;
/// The byte with the header type is the third of this word.
const HEADER: usize = 0x0C;
/// The first base address register.
const BAR0: usize = 0x10;
/// Interrupt line (low byte) and pin.
const INTERRUPT: usize = 0x3C;

/// What reads back where no function is.
const NO_VENDOR: u16 = 0xFFFF;

/// The function answers to memory accesses.
const COMMAND_MEMORY: u32 = 1 << 1;
/// The function may access memory itself.
const COMMAND_BUS_MASTER: u32 = 1 << 2;
/// The writable half of the command word: status bits in the other are cleared by ones.
const COMMAND_MASK: u32 = 0xFFFF;

const HEADER_MULTI_FUNCTION: u32 = 1 << 23;
const HEADER_LAYOUT_SHIFT: u32 = 16;
const HEADER_LAYOUT_MASK: u32 = 0x7F;

const BAR_IO: u32 = 1 << 0;
const BAR_TYPE_MASK: u32 = 0b11 << 1;
const BAR_TYPE_64: u32 = 0b10 << 1;
const BAR_ADDRESS_MASK: u32 = !0xF;

/// Base address registers of an ordinary function (header layout 0).
const BARS: usize = 6;

/// Why a function cannot be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PciError {
    /// No function on bus 0 has the identifiers.
    #[error("no PCI function {vendor:04x}:{device:04x}")]
    NotFound {
        /// Vendor identifier.
        vendor: u16,
        /// Device identifier.
        device: u16,
    },
    /// The function is a bridge or of an unknown layout.
    #[error("PCI header layout {0:#x} has no base address registers to assign")]
    Layout(u8),
    /// The memory window has no room for a base address register.
    #[error("no room for {size:#x} bytes of BAR {bar} in the PCI memory window")]
    WindowFull {
        /// Index of the register.
        bar: usize,
        /// Bytes it decodes.
        size: u64,
    },
}

/// A part of the address space that a host bridge forwards to its functions.
#[derive(Debug)]
pub struct MemoryWindow {
    next: u64,
    end: u64,
    cpu_offset: u64,
}

impl MemoryWindow {
    /// The `size` bytes at `bus`, which the CPU sees at `cpu`. Nothing is taken yet. A window that
    /// wraps around ends with the address space.
    pub const fn new(cpu: PhysAddr, bus: u64, size: u64) -> Self {
        Self {
            next: bus,
            end: bus.saturating_add(size),
            cpu_offset: cpu.get().wrapping_sub(bus),
        }
    }

    /// Takes `size` bytes, a power of two, aligned to their size.
    fn take(&mut self, size: u64) -> Option<u64> {
        let start = self.next.checked_next_multiple_of(size)?;
        let end = start.checked_add(size).filter(|&end| end <= self.end)?;
        self.next = end;
        Some(start)
    }
}

/// Where one function's configuration space lies in ECAM.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Function {
    device: u8,
    function: u8,
}

impl Function {
    /// Device number on bus 0, 0 to 31: decides which line an interrupt pin is wired to.
    pub const fn device(self) -> u8 {
        self.device
    }

    /// Function number in the device, 0 to 7.
    pub const fn function(self) -> u8 {
        self.function
    }

    fn offset(self) -> usize {
        (usize::from(self.device) * FUNCTIONS + usize::from(self.function)) * FUNCTION_SIZE
    }
}

/// Registers of a function, once they have an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bar {
    /// The CPU's address of the first byte.
    pub base: PhysAddr,
    /// Bytes.
    pub size: u64,
}

/// An interrupt pin of a function.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Pin {
    /// INTA.
    A = 1,
    /// INTB.
    B = 2,
    /// INTC.
    C = 3,
    /// INTD.
    D = 4,
}

/// Bus 0 of a host bridge.
#[derive(Debug)]
pub struct Bus<Io> {
    ecam: Io,
}

impl<Io: RegisterIo> Bus<Io> {
    /// The bus whose configuration space is `ecam`, [`BUS_SIZE`] bytes.
    pub const fn new(ecam: Io) -> Self {
        Self { ecam }
    }

    /// The functions that are present, by number.
    pub fn functions(&self) -> impl Iterator<Item = Function> + '_ {
        (0..DEVICES as u8).flat_map(move |device| {
            let first = Function {
                device,
                function: 0,
            };
            let count = match self.is_present(first) {
                false => 0,
                true if self.read(first, HEADER) & HEADER_MULTI_FUNCTION == 0 => 1,
                true => FUNCTIONS as u8,
            };
            (0..count)
                .map(move |function| Function { device, function })
                .filter(|&function| self.is_present(function))
        })
    }

    /// The first function with the identifiers.
    ///
    /// # Errors
    ///
    /// [`PciError::NotFound`].
    pub fn find(&self, vendor: u16, device: u16) -> Result<Function, PciError> {
        self.functions()
            .find(|&function| self.id(function) == (vendor, device))
            .ok_or(PciError::NotFound { vendor, device })
    }

    /// Vendor and device identifier.
    pub fn id(&self, function: Function) -> (u16, u16) {
        let id = self.read(function, ID);
        (id as u16, (id >> 16) as u16)
    }

    /// The pin on which the function raises interrupts, if it has one.
    pub fn pin(&self, function: Function) -> Option<Pin> {
        match (self.read(function, INTERRUPT) >> 8) as u8 {
            1 => Some(Pin::A),
            2 => Some(Pin::B),
            3 => Some(Pin::C),
            4 => Some(Pin::D),
            _ => None,
        }
    }

    /// Gives every memory register of the function an address from `window`, lets the function
    /// answer to memory accesses and access memory itself, and returns where the registers are,
    /// by index of the base address register.
    ///
    /// To be called once a function: its registers move.
    ///
    /// # Errors
    ///
    /// [`PciError::Layout`], [`PciError::WindowFull`]; the function stays disabled.
    pub fn enable(
        &self,
        function: Function,
        window: &mut MemoryWindow,
    ) -> Result<[Option<Bar>; BARS], PciError> {
        let layout = (self.read(function, HEADER) >> HEADER_LAYOUT_SHIFT) & HEADER_LAYOUT_MASK;
        if layout != 0 {
            return Err(PciError::Layout(layout as u8));
        }
        // A register that decodes while it is sized or half written answers at wrong addresses.
        let command = self.read(function, COMMAND) & COMMAND_MASK;
        let quiet = command & !(COMMAND_MEMORY | COMMAND_BUS_MASTER);
        self.write(function, COMMAND, quiet);
        let mut bars = [None; BARS];
        let mut index = 0;
        while index < BARS {
            let register = BAR0 + index * size_of::<u32>();
            let low = self.read(function, register);
            let is_wide = low & BAR_IO == 0 && low & BAR_TYPE_MASK == BAR_TYPE_64;
            if let Some(size) = self.size(function, register, is_wide) {
                let bus = window
                    .take(size)
                    .ok_or(PciError::WindowFull { bar: index, size })?;
                self.write(function, register, bus as u32);
                if is_wide {
                    self.write(function, register + size_of::<u32>(), (bus >> 32) as u32);
                }
                bars[index] = Some(Bar {
                    base: PhysAddr::new(bus.wrapping_add(window.cpu_offset)),
                    size,
                });
            }
            index += if is_wide { 2 } else { 1 };
        }
        self.write(
            function,
            COMMAND,
            quiet | COMMAND_MEMORY | COMMAND_BUS_MASTER,
        );
        Ok(bars)
    }

    /// Bytes that the memory register at `register` decodes, found by writing ones: the address
    /// bits that stay 0 are those within the range. `None` for an I/O or absent register.
    fn size(&self, function: Function, register: usize, is_wide: bool) -> Option<u64> {
        if self.read(function, register) & BAR_IO != 0 {
            return None;
        }
        self.write(function, register, u32::MAX);
        let low = self.read(function, register) & BAR_ADDRESS_MASK;
        let high = if is_wide {
            self.write(function, register + size_of::<u32>(), u32::MAX);
            self.read(function, register + size_of::<u32>())
        } else {
            u32::MAX
        };
        let mask = u64::from(high) << 32 | u64::from(low);
        // The lowest address bit that can be set; a register without one is not there.
        (low != 0 || is_wide && high != 0).then(|| 1 << mask.trailing_zeros())
    }

    fn is_present(&self, function: Function) -> bool {
        self.id(function).0 != NO_VENDOR
    }

    fn read(&self, function: Function, register: usize) -> u32 {
        self.ecam.read32(function.offset() + register)
    }

    fn write(&self, function: Function, register: usize, value: u32) {
        self.ecam.write32(function.offset() + register, value);
    }
}

#[cfg(test)]
#[path = "pci/tests.rs"]
mod tests;
