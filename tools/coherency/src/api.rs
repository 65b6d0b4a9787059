//! QEMU's plugin interface, version 4 (QEMU 10.0: "Writing new TCG plugins" in its manual), as far as
//! it is used, and what it calls.

mod callbacks;
mod qemu;

use crate::register::{self, Register, Registers};
use crate::watch::MemoryAccess;
use std::collections::HashMap;
use std::ffi::CStr;

/// The registers by the handles that QEMU gave out.
struct Handles {
    handles: [qemu::RegisterHandle; Register::COUNT],
    buffer: *mut qemu::GByteArray,
}

impl Handles {
    /// Asks for them; on the thread of a CPU, when that is being set up. The error names those that
    /// nothing can be said without and that are not there.
    fn find() -> Result<Self, String> {
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
        let mut handles = [std::ptr::null_mut(); Register::COUNT];
        for register in Register::all() {
            let named = register.names().into_iter();
            let mut found = named.filter_map(|name| by_name.get(&name));
            if let Some(&handle) = found.next() {
                handles[register.number()] = handle;
            }
        }
        let missing = register::missing(|register| !handles[register.number()].is_null());
        if !missing.is_empty() {
            let names: Vec<_> = missing.iter().map(Register::to_string).collect();
            return Err(format!("QEMU does not give out {}", names.join(", ")));
        }
        Ok(Self { handles, buffer })
    }
}

impl Registers for Handles {
    fn read(&mut self, register: Register) -> Option<u64> {
        let handle = self.handles[register.number()];
        if handle.is_null() {
            return None;
        }
        let mut bytes = [0; 8];
        // SAFETY: every callback that gets here was registered as one that reads registers. The buffer
        // is ours, and QEMU leaves as many bytes in it as its length says.
        let count = unsafe {
            qemu::g_byte_array_set_size(self.buffer, 0);
            qemu::qemu_plugin_read_register(handle, self.buffer);
            let count = ((*self.buffer).len as usize).min(bytes.len());
            std::ptr::copy_nonoverlapping((*self.buffer).data, bytes.as_mut_ptr(), count);
            count
        };
        (count != 0).then(|| u64::from_le_bytes(bytes))
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
