//! Declarations.

use std::ffi::{c_char, c_int, c_uint, c_void};

/// Of the interface that these declarations are of.
pub(super) const VERSION: c_int = 4;

pub(super) type PluginId = u64;

/// What QEMU says of itself: the first members of its structure, which it makes and the plugin only looks
/// at. Numbers of CPUs follow. Of these members the versions are here for those behind them.
#[repr(C)]
pub(super) struct Info {
    pub(super) target_name: *const c_char,
    pub(super) min_version: c_int,
    pub(super) cur_version: c_int,
    pub(super) is_system: bool,
}

/// Handles; null is none.
pub(super) type TranslationBlock = *mut c_void;
pub(super) type Instruction = *mut c_void;
pub(super) type RegisterHandle = *mut c_void;

#[repr(C)]
pub(super) struct RegisterDescriptor {
    pub(super) handle: RegisterHandle,
    pub(super) name: *const c_char,
    pub(super) feature: *const c_char,
}

/// GLib's arrays.
#[repr(C)]
pub(super) struct GByteArray {
    pub(super) data: *mut u8,
    pub(super) len: c_uint,
}

/// A value of 1, 2, 4, 8 or 16 bytes: `kind` is the binary logarithm. The narrow ones are in the low
/// bytes of `low`, as both are little endian.
#[repr(C)]
#[derive(Clone, Copy)]
pub(super) struct MemValue {
    pub(super) kind: c_int,
    pub(super) low: u64,
    pub(super) high: u64,
}

/// Whether a callback reads registers.
pub(super) const NO_REGISTERS: c_int = 0;
pub(super) const READS_REGISTERS: c_int = 1;

/// Which accesses a callback is for.
pub(super) const LOADS: c_int = 1;
pub(super) const STORES: c_int = 2;

pub(super) type VcpuCallback = extern "C" fn(PluginId, c_uint);
pub(super) type TranslationCallback = extern "C" fn(PluginId, TranslationBlock);
pub(super) type InstructionCallback = extern "C" fn(c_uint, *mut c_void);
pub(super) type MemoryCallback = extern "C" fn(c_uint, u32, u64, *mut c_void);
pub(super) type EndCallback = extern "C" fn(PluginId, *mut c_void);

unsafe extern "C" {
    pub(super) fn qemu_plugin_register_vcpu_init_cb(id: PluginId, callback: VcpuCallback);
    pub(super) fn qemu_plugin_register_vcpu_tb_trans_cb(
        id: PluginId,
        callback: TranslationCallback,
    );
    pub(super) fn qemu_plugin_register_atexit_cb(
        id: PluginId,
        callback: EndCallback,
        data: *mut c_void,
    );
    pub(super) fn qemu_plugin_register_vcpu_insn_exec_cb(
        instruction: Instruction,
        callback: InstructionCallback,
        flags: c_int,
        data: *mut c_void,
    );
    pub(super) fn qemu_plugin_register_vcpu_mem_cb(
        instruction: Instruction,
        callback: MemoryCallback,
        flags: c_int,
        which: c_int,
        data: *mut c_void,
    );

    pub(super) fn qemu_plugin_tb_n_insns(block: TranslationBlock) -> usize;
    pub(super) fn qemu_plugin_tb_get_insn(block: TranslationBlock, index: usize) -> Instruction;
    pub(super) fn qemu_plugin_insn_data(
        instruction: Instruction,
        bytes: *mut c_void,
        size: usize,
    ) -> usize;
    pub(super) fn qemu_plugin_insn_vaddr(instruction: Instruction) -> u64;
    pub(super) fn qemu_plugin_insn_symbol(instruction: Instruction) -> *const c_char;

    pub(super) fn qemu_plugin_mem_size_shift(info: u32) -> c_uint;
    pub(super) fn qemu_plugin_mem_get_value(info: u32) -> MemValue;

    pub(super) fn qemu_plugin_get_registers() -> *mut GByteArray;
    pub(super) fn qemu_plugin_read_register(
        handle: RegisterHandle,
        buffer: *mut GByteArray,
    ) -> c_int;

    pub(super) fn g_byte_array_new() -> *mut GByteArray;
    pub(super) fn g_byte_array_set_size(array: *mut GByteArray, size: c_uint) -> *mut GByteArray;
    pub(super) fn g_array_free(array: *mut GByteArray, free_elements: c_int) -> *mut c_char;

    /// Ends the process without its exit handlers.
    pub(super) fn _exit(status: c_int) -> !;
}
