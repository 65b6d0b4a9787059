//! QEMU's plugin interface, version 4 (QEMU 10.0: "Writing new TCG plugins" in its manual), as far as
//! it is used, and what it calls.

mod callbacks;
mod qemu;

use crate::watch::{MemoryAccess, Register, Registers};
use std::collections::HashMap;
use std::ffi::CStr;

/// The registers by the handles that QEMU gave out.
struct Handles {
    handles: [qemu::RegisterHandle; REGISTERS],
    buffer: *mut qemu::GByteArray,
}

impl Handles {
    /// Asks for them; on the thread of a CPU, when that is being set up.
    fn find() -> Self {
        let mut by_name = HashMap::new();
        // SAFETY: QEMU calls this on a CPU's thread. The array is ours: its descriptors are read
        // within its length, their names are strings that live as long as the CPU, and it is freed
        // once, after that.
        let buffer = unsafe {
            let array = qemu::qemu_plugin_get_registers();
            if !array.is_null() {
                let (first, count) = ((*array).data, (*array).len as usize);
                for index in 0..count {
                    let register = &*first.cast::<qemu::RegisterDescriptor>().add(index);
                    let name = CStr::from_ptr(register.name).to_string_lossy();
                    by_name.insert(name.into_owned(), register.handle);
                }
                qemu::g_array_free(array, 1);
            }
            qemu::g_byte_array_new()
        };
        let mut handles = [std::ptr::null_mut(); REGISTERS];
        for register in all_registers() {
            let named = names(register).into_iter();
            let mut found = named.filter_map(|name| by_name.get(&name));
            if let Some(&handle) = found.next() {
                handles[number(register)] = handle;
            }
        }
        Self { handles, buffer }
    }
}

impl Registers for Handles {
    fn read(&mut self, register: Register) -> u64 {
        let handle = self.handles[number(register)];
        if handle.is_null() {
            return 0;
        }
        let mut bytes = [0; 8];
        // SAFETY: every callback that gets here was registered as one that reads registers. The buffer
        // is ours, and QEMU leaves as many bytes in it as its length says.
        unsafe {
            qemu::g_byte_array_set_size(self.buffer, 0);
            qemu::qemu_plugin_read_register(handle, self.buffer);
            let count = ((*self.buffer).len as usize).min(bytes.len());
            std::ptr::copy_nonoverlapping((*self.buffer).data, bytes.as_mut_ptr(), count);
        }
        u64::from_le_bytes(bytes)
    }
}

/// As many numbers as [`number`] gives.
const REGISTERS: usize = 50;

/// The place of a register among the handles.
const fn number(register: Register) -> usize {
    let (first, level) = match register {
        Register::X(number) => return (number % 31) as usize,
        Register::Cpsr => return 31,
        Register::Hcr => return 32,
        Register::Ctr => return 33,
        Register::Midr => return 49,
        Register::Sctlr(level) => (33, level),
        Register::Tcr(level) => (36, level),
        Register::Ttbr0(level) => (39, level),
        Register::Ttbr1(level) => (42, level),
        Register::Mair(level) => (45, level),
    };
    first + level as usize
}

fn all_registers() -> impl Iterator<Item = Register> {
    let general = (0..31).map(Register::X);
    let levels = (1..=3).flat_map(|level| {
        [
            Register::Sctlr(level),
            Register::Tcr(level),
            Register::Ttbr0(level),
            Register::Ttbr1(level),
            Register::Mair(level),
        ]
    });
    let others = [Register::Cpsr, Register::Hcr, Register::Ctr, Register::Midr];
    general.chain(levels).chain(others)
}

/// What QEMU calls a register; for those of EL1 it leaves the level out where AArch32 has the same.
fn names(register: Register) -> Vec<String> {
    let with_level = |name: &str, level: u8| {
        let mut names = vec![format!("{name}_EL{level}")];
        if level == 1 {
            names.push(name.to_owned());
        }
        names
    };
    match register {
        Register::X(number) => vec![format!("x{number}")],
        Register::Cpsr => vec!["cpsr".to_owned()],
        Register::Sctlr(level) => with_level("SCTLR", level),
        Register::Tcr(level) => with_level("TCR", level),
        Register::Ttbr0(level) => with_level("TTBR0", level),
        Register::Ttbr1(level) => with_level("TTBR1", level),
        Register::Mair(level) => with_level("MAIR", level),
        Register::Hcr => vec!["HCR_EL2".to_owned(), "HCR".to_owned()],
        Register::Ctr => vec!["CTR_EL0".to_owned(), "CTR".to_owned()],
        Register::Midr => vec!["MIDR_EL1".to_owned(), "MIDR".to_owned()],
    }
}

/// QEMU's handle of an access; valid in the callback that was given it.
#[derive(Clone, Copy)]
struct MemInfo(u32);

impl MemoryAccess for MemInfo {
    #[inline(always)]
    fn space(&self) -> u64 {
        // The low bits tell regimes apart. Should a QEMU fill them otherwise, the flush at each
        // change of level remains.
        u64::from(self.0 & 0xF)
    }

    #[inline(always)]
    fn size(&self) -> u8 {
        // SAFETY: the handle is of the callback that runs.
        let shift = unsafe { qemu::qemu_plugin_mem_size_shift(self.0) };
        1 << shift.min(4)
    }

    fn value(&self) -> u128 {
        // SAFETY: as above.
        let value = unsafe { qemu::qemu_plugin_mem_get_value(self.0) };
        let (low, high) = (value.low, value.high);
        // A narrow value fills only its own bytes of the union.
        match value.kind {
            0 => u128::from(low as u8),
            1 => u128::from(low as u16),
            2 => u128::from(low as u32),
            3 => u128::from(low),
            _ => u128::from(high) << 64 | u128::from(low),
        }
    }
}
