//! PCI Express configuration space (PCI Express Base Specification, 7.2.2), as the firmware is seen to
//! use it: where it puts the registers of one kind of device.

use crate::device::Access;
use std::collections::BTreeMap;
use std::ops::Range;

/// Bytes of configuration space that a function has.
const FUNCTION_SIZE: u64 = 4096;
/// The part of it that is followed: up to the first base address register.
const HEADER_SIZE: usize = 0x14;

/// Vendor (low half) and device identifier.
const ID: usize = 0x00;
const COMMAND: usize = 0x04;
const BAR0: usize = 0x10;

/// The function answers to memory accesses.
const COMMAND_MEMORY: u32 = 1 << 1;
/// What tells registers in memory from I/O ports, and their kind.
const BAR_FLAGS: u32 = 0xF;

/// Configuration space.
#[derive(Debug)]
pub(super) struct ConfigurationSpace {
    windows: Vec<Range<u64>>,
    id: u32,
    size: u32,
    /// Functions that are of the kind, or may be: the address of each, and its header.
    functions: BTreeMap<u64, Header>,
    registers: Option<Range<u64>>,
}

/// What was seen of a function's header.
#[derive(Clone, Copy, Debug, Default)]
struct Header([u8; HEADER_SIZE]);

impl Header {
    fn word(&self, at: usize) -> u32 {
        let bytes = self.0.get(at..).and_then(|bytes| bytes.first_chunk());
        bytes.map_or(0, |&bytes| u32::from_le_bytes(bytes))
    }

    /// Takes over the bytes of an access to `registers` of the header.
    fn put(&mut self, access: &Access, registers: Range<usize>) {
        let offset = (access.pa % FUNCTION_SIZE) as usize;
        let bytes = access.value.to_le_bytes();
        for (at, byte) in (offset..).zip(&bytes[..usize::from(access.size).min(bytes.len())]) {
            if registers.contains(&at) {
                self.0[at] = *byte;
            }
        }
    }
}

impl ConfigurationSpace {
    /// Configuration space in any of `windows`. Looks for functions with identifiers `id` and `size`
    /// bytes of registers, a power of two.
    pub(super) fn new(windows: &[Range<u64>], id: u32, size: u32) -> Self {
        Self {
            windows: windows.to_vec(),
            id,
            size,
            functions: BTreeMap::new(),
            registers: None,
        }
    }

    pub(super) fn windows(&self) -> &[Range<u64>] {
        &self.windows
    }

    /// Where the registers of the device are: the CPU has them where the bus has.
    pub(super) fn registers(&self) -> Option<Range<u64>> {
        self.registers.clone()
    }

    /// Takes notice of an access. Returns whether the registers have moved.
    pub(super) fn access(&mut self, access: &Access) -> bool {
        let function = access.pa / FUNCTION_SIZE * FUNCTION_SIZE;
        if access.pa - function >= HEADER_SIZE as u64 {
            return false;
        }
        let known = self.functions.get(&function).copied();
        let mut header = known.unwrap_or_default();
        if access.is_store {
            header.put(access, COMMAND..ID + HEADER_SIZE);
        } else {
            header.put(access, ID..COMMAND);
        }
        // Who looks for devices loads the identifiers of many functions that are not there.
        let nobody = |byte| byte == 0xFF;
        if known.is_none() && header.0[ID..COMMAND].iter().copied().all(nobody) {
            return false;
        }
        self.functions.insert(function, header);
        let registers = self
            .functions
            .values()
            .find_map(|header| self.place(header));
        let has_moved = registers != self.registers;
        self.registers = registers;
        has_moved
    }

    /// The registers of a function, if it is of the kind and answers.
    fn place(&self, header: &Header) -> Option<Range<u64>> {
        let bar = header.word(BAR0);
        let is_of_kind = header.word(ID) == self.id && header.word(COMMAND) & COMMAND_MEMORY != 0;
        // All ones ask for the size.
        let start = bar & !BAR_FLAGS & !(self.size - 1);
        let is_set = start != 0 && bar | BAR_FLAGS != u32::MAX;
        (is_of_kind && is_set).then(|| u64::from(start)..u64::from(start) + u64::from(self.size))
    }
}
