//! DMA4 channels: 40-bit addresses of the whole machine (BCM2711 ARM Peripherals, 1.2.2, 4.2.1).

use super::channel::{Block, Layout};
use super::legacy::{BLOCK_SIZE, Shape, words};
use crate::device::found::Found;
use crate::device::{Does, Memory};
use crate::kind::Kind;
use std::ops::Range;

const CS_HALT: u32 = 1 << 31;
const CS_ABORT: u32 = 1 << 30;
const DEBUG: u64 = 0x0C;
const DEBUG_RESET: u32 = 1 << 23;

/// Transfer information.
const TI_INTEN: u32 = 1 << 0;
const TI_TDMODE: u32 = 1 << 1;

/// SRCI and DESTI: bits 39 to 32 of the address, how it advances, and the stride in the upper half.
const SIDE_ADDRESS_MASK: u32 = 0xFF;
const SIDE_INC: u32 = 1 << 12;
const SIDE_SIZE_SHIFT: u32 = 13;
const SIDE_SIZE_MASK: u32 = 0b11;
const SIDE_IGNORE: u32 = 1 << 15;

/// RAM, as far as the address map goes. How much of it there is, is the machine's.
const RAM: Range<u64> = 0..0x4_0000_0000;
/// The first GiB of RAM through the VideoCore's cache, twice.
const CACHED: [Range<u64>; 2] = [0x4_0000_0000..0x4_4000_0000, 0x4_8000_0000..0x4_C000_0000];
/// Peripherals, those of the Arm cores, and PCI Express.
const REGISTERS: [Range<u64>; 3] = [
    0x4_7C00_0000..0x4_8000_0000,
    0x4_C000_0000..0x5_0000_0000,
    0x6_0000_0000..0x8_0000_0000,
];
/// What 32-bit masters are given for RAM, and above where the Arm sees the peripherals. RAM here, where
/// there is as much.
const OTHER_BUS: Range<u64> = 0xC000_0000..0x1_0000_0000;

/// A DMA4 channel.
#[derive(Clone, Copy, Debug)]
pub(super) struct Dma4;

impl Layout for Dma4 {
    const NEXT_POINTER: u64 = 0x28;
    const CS_GIVES_UP: u32 = CS_HALT | CS_ABORT;

    fn resets(register: u64, value: u32) -> bool {
        register == DEBUG && value & DEBUG_RESET != 0
    }

    fn block(&self, pointer: u32, memory: &dyn Memory, found: &mut Found) -> Option<Block> {
        const ROLE: &str = "control block";
        let address = u64::from(pointer) * u64::from(BLOCK_SIZE);
        let Some(
            [
                ti,
                source,
                source_side,
                destination,
                destination_side,
                length,
                next,
            ],
        ) = words(memory, address)
        else {
            let kind = wrong(address, u64::from(BLOCK_SIZE), memory);
            found.wrong(kind.unwrap_or(Kind::DmaOutsideMemory), address, ROLE);
            return None;
        };
        let end = address + u64::from(BLOCK_SIZE);
        found.span(address..end, Does::Reads, ROLE);
        let shape = match ti & TI_TDMODE {
            0 => Shape::linear(length),
            _ => Shape::rectangle(length),
        };
        let sides = [
            (source, source_side, Does::Reads, "source"),
            (destination, destination_side, Does::Writes, "destination"),
        ];
        for (low, side, does, role) in sides {
            if side & SIDE_IGNORE == 0 {
                rows(low, side, shape, does, role, memory, found);
            }
        }
        Some(Block {
            next,
            interrupts: ti & TI_INTEN != 0,
        })
    }
}

/// The rows of one side. The first that is wrong stands for those that follow.
fn rows(
    low: u32,
    side: u32,
    shape: Shape,
    does: Does,
    role: &'static str,
    memory: &dyn Memory,
    found: &mut Found,
) {
    let row_len = u64::from(shape.row_len);
    let beat = 4 << (side >> SIDE_SIZE_SHIFT & SIDE_SIZE_MASK);
    let (len, advance) = match side & SIDE_INC {
        0 => (row_len.min(beat), 0),
        _ => (row_len, row_len),
    };
    if len == 0 {
        return;
    }
    // CAST: the upper half is a signed number.
    let stride = i64::from((side >> 16) as i16);
    let mut address = u64::from(side & SIDE_ADDRESS_MASK) << 32 | u64::from(low);
    for _ in 0..shape.rows {
        if let Some(kind) = wrong(address, len, memory) {
            found.wrong(kind, address, role);
            return;
        }
        if RAM.contains(&address) {
            found.span(address..address + len, does, role);
        }
        address = address.wrapping_add(advance).wrapping_add_signed(stride);
    }
}

/// What is wrong with giving a channel `len` bytes at `address`.
fn wrong(address: u64, len: u64, memory: &dyn Memory) -> Option<Kind> {
    let holds = |range: &Range<u64>| {
        range.contains(&address) && address.checked_add(len).is_some_and(|end| end <= range.end)
    };
    let is_ram = || memory.read(address, &mut [0]);
    if CACHED.iter().any(holds) || holds(&OTHER_BUS) && !is_ram() {
        Some(Kind::WrongBusAlias)
    } else if holds(&RAM) || REGISTERS.iter().any(holds) {
        None
    } else {
        Some(Kind::DmaOutsideMemory)
    }
}
