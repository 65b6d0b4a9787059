//! Access to device registers.
//!
//! A driver is generic over [`RegisterIo`], so that its tests put a model of the device behind it.

use crate::addr::VirtAddr;

/// Reads and writes registers of one device, at byte offsets from its base.
///
/// An access has side effects in the device, and is neither dropped, merged nor split. It is
/// ordered against other accesses to the same device; order against memory is the driver's matter.
pub trait RegisterIo {
    /// Reads the 32-bit register at `offset`.
    fn read32(&self, offset: usize) -> u32;
    /// Writes the 32-bit register at `offset`.
    fn write32(&self, offset: usize, value: u32);
    /// Reads the 64-bit register at `offset` with one access.
    fn read64(&self, offset: usize) -> u64;
    /// Writes the 64-bit register at `offset` with one access.
    fn write64(&self, offset: usize, value: u64);
}

/// Registers mapped as Device memory.
#[derive(Debug)]
pub struct Mmio {
    base: VirtAddr,
    size: usize,
}

impl Mmio {
    /// The `size` bytes of registers mapped at `base`.
    ///
    /// # Safety
    ///
    /// The range is mapped as Device memory for as long as the value lives, `base` is a multiple of
    /// 8, and the registers are those of the device whose driver is given the value; nobody else
    /// accesses them.
    pub const unsafe fn new(base: VirtAddr, size: usize) -> Self {
        Self { base, size }
    }

    /// The address of the register of type `T` at `offset`.
    ///
    /// # Panics
    ///
    /// If it is misaligned or past the end: a driver's offsets are constants.
    fn register<T>(&self, offset: usize) -> *mut T {
        assert!(
            offset.is_multiple_of(size_of::<T>()) && offset < self.size,
            "no register at offset {offset:#x}"
        );
        (self.base + offset).as_ptr()
    }
}

/// Inlined, so that who looks at an access from outside sees the driver's function.
impl RegisterIo for Mmio {
    #[inline(always)]
    fn read32(&self, offset: usize) -> u32 {
        // SAFETY: `register` is in bounds and aligned, and `new`'s caller promised the mapping.
        unsafe { access::load32(self.register(offset)) }
    }

    #[inline(always)]
    fn write32(&self, offset: usize, value: u32) {
        // SAFETY: as above.
        unsafe { access::store32(self.register(offset), value) }
    }

    #[inline(always)]
    fn read64(&self, offset: usize) -> u64 {
        // SAFETY: as above.
        unsafe { access::load64(self.register(offset)) }
    }

    #[inline(always)]
    fn write64(&self, offset: usize, value: u64) {
        // SAFETY: as above.
        unsafe { access::store64(self.register(offset), value) }
    }
}

/// One plain `LDR` or `STR` an access. A volatile access may be compiled to a form with writeback,
/// which a hypervisor that emulates the device cannot decode (ESR_EL2.ISV = 0, Arm ARM D24.2.40).
#[cfg(target_os = "none")]
mod access {
    use core::arch::asm;

    macro_rules! access {
        ($load:ident, $store:ident, $ty:ty, $modifier:literal) => {
            /// # Safety
            ///
            /// `register` is a mapped, aligned register.
            #[inline]
            pub(super) unsafe fn $load(register: *mut $ty) -> $ty {
                let value;
                // SAFETY: the caller's contract.
                unsafe {
                    asm!(
                        concat!("ldr {value", $modifier, "}, [{register}]"),
                        value = out(reg) value,
                        register = in(reg) register,
                        options(nostack, preserves_flags)
                    )
                };
                value
            }

            /// # Safety
            ///
            /// `register` is a mapped, aligned register.
            #[inline]
            pub(super) unsafe fn $store(register: *mut $ty, value: $ty) {
                // SAFETY: the caller's contract.
                unsafe {
                    asm!(
                        concat!("str {value", $modifier, "}, [{register}]"),
                        value = in(reg) value,
                        register = in(reg) register,
                        options(nostack, preserves_flags)
                    )
                };
            }
        };
    }

    access!(load32, store32, u32, ":w");
    access!(load64, store64, u64, ":x");
}

/// Volatile accesses: no hypervisor decodes a test's.
#[cfg(not(target_os = "none"))]
mod access {
    macro_rules! access {
        ($load:ident, $store:ident, $ty:ty) => {
            pub(super) unsafe fn $load(register: *mut $ty) -> $ty {
                // SAFETY: the caller's contract.
                unsafe { register.read_volatile() }
            }

            pub(super) unsafe fn $store(register: *mut $ty, value: $ty) {
                // SAFETY: the caller's contract.
                unsafe { register.write_volatile(value) }
            }
        };
    }

    access!(load32, store32, u32);
    access!(load64, store64, u64);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn accesses_have_their_width() {
        let mut memory = [u64::MAX; 2];
        // SAFETY: the array stands in for registers.
        let io = unsafe { Mmio::new(VirtAddr::from_ptr(memory.as_mut_ptr()), 16) };
        io.write32(4, 0x1122_3344);
        assert_eq!(io.read64(0), 0x1122_3344_FFFF_FFFF);
        io.write64(8, 5);
        assert_eq!(io.read32(8), 5);
        assert_eq!(io.read32(12), 0);
    }

    #[test]
    #[should_panic(expected = "no register at offset 0x10")]
    fn offsets_past_the_end_are_caught() {
        // SAFETY: nothing is accessed.
        let io = unsafe { Mmio::new(VirtAddr::new(0x1000), 16) };
        io.read32(16);
    }
}
