//! What is where.

use crate::device::Device;
use std::ops::Range;

/// A machine of QEMU's.
pub struct Board {
    /// Where RAM starts.
    pub ram_base: u64,
    /// The UART's data register.
    pub uart: u64,
    /// Its bus masters.
    pub devices: Vec<Box<dyn Device>>,
}

impl Board {
    /// RAM.
    pub fn ram(&self, file: Range<u64>) -> Vec<Range<u64>> {
        vec![file]
    }
}

/// All of them.
pub const NAMES: &str = "virt, raspi4b";

/// The one of that name.
pub fn find(name: &str) -> Option<Board> {
    let (ram_base, uart) = match name {
        "virt" => (0x4000_0000, 0x0900_0000),
        "raspi4b" => (0, 0xFE20_1000),
        _ => return None,
    };
    Some(Board {
        ram_base,
        uart,
        devices: Vec::new(),
    })
}
