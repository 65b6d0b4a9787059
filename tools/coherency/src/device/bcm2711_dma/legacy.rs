//! Legacy channels: addresses of the 32-bit bus (BCM2711 ARM Peripherals, 4.2.1).

use super::channel::{Block, Layout};
use crate::device::found::Found;
use crate::device::legacy_bus::{self, Place};
use crate::device::{Does, Memory};
use crate::kind::Kind as WrongKind;

/// Bytes in a control block, and its alignment.
pub(super) const BLOCK_SIZE: u32 = 32;

const CS: u64 = 0x00;
const CS_RESET: u32 = 1 << 31;
const CS_ABORT: u32 = 1 << 30;

/// Transfer information.
const TI_INTEN: u32 = 1 << 0;
const TI_TDMODE: u32 = 1 << 1;
const TI_DEST_INC: u32 = 1 << 4;
const TI_DEST_WIDTH: u32 = 1 << 5;
const TI_DEST_IGNORE: u32 = 1 << 7;
const TI_SRC_INC: u32 = 1 << 8;
const TI_SRC_WIDTH: u32 = 1 << 9;
const TI_SRC_IGNORE: u32 = 1 << 11;

/// Bits of a length without rows, and of one on a lite channel.
const LENGTH_MASK: u32 = 0x3FFF_FFFF;
const LITE_LENGTH_MASK: u32 = 0xFFFF;

/// Where the Arm sees the peripherals, but no master on this bus does.
const ARM_PERIPHERALS: u32 = 0xFC00_0000;

/// What a channel can do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// Rectangles, and either side left out.
    Full,
    /// Neither.
    Lite,
}

/// A legacy channel.
#[derive(Clone, Copy, Debug)]
pub(super) struct Legacy {
    pub(super) kind: Kind,
    /// The GiB of RAM that it sees.
    pub(super) page: u8,
}

/// What a control block copies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Shape {
    pub(super) rows: u32,
    pub(super) row_len: u32,
}

impl Shape {
    pub(super) const fn linear(length: u32) -> Self {
        Self {
            rows: 1,
            row_len: length & LENGTH_MASK,
        }
    }

    /// The rows of a length with YLENGTH, which counts one less.
    pub(super) const fn rectangle(length: u32) -> Self {
        Self {
            rows: (length >> 16 & 0x3FFF) + 1,
            row_len: length & 0xFFFF,
        }
    }
}

/// One side of a copy.
#[derive(Clone, Copy, Debug)]
struct Side {
    address: u32,
    stride: i16,
    increments: bool,
    /// 128 bits at a time, or 32.
    is_wide: bool,
    does: Does,
    role: &'static str,
}

impl Layout for Legacy {
    const NEXT_POINTER: u64 = 0x1C;
    const CS_GIVES_UP: u32 = CS_ABORT;

    fn resets(register: u64, value: u32) -> bool {
        register == CS && value & CS_RESET != 0
    }

    fn block(&self, pointer: u32, memory: &dyn Memory, found: &mut Found) -> Option<Block> {
        const ROLE: &str = "control block";
        // The lowest bits cannot be set.
        let pointer = pointer / BLOCK_SIZE * BLOCK_SIZE;
        let place = legacy_bus::place(pointer, BLOCK_SIZE.into(), self.page);
        if let Some(kind) = place.wrong() {
            found.wrong(kind, pointer.into(), ROLE);
        }
        let words = place.memory().and_then(|pa| words(memory, pa.start));
        let Some(words) = words else {
            if place.wrong().is_none() {
                found.wrong(WrongKind::DmaOutsideMemory, pointer.into(), ROLE);
            }
            return None;
        };
        if let Place::Memory(pa) = place {
            found.span(pa, Does::Reads, ROLE);
        }
        let [ti, source, destination, length, stride, next] = words;
        let is_full = self.kind == Kind::Full;
        let is_rectangle = is_full && ti & TI_TDMODE != 0;
        let shape = match self.kind {
            Kind::Lite => Shape::linear(length & LITE_LENGTH_MASK),
            Kind::Full if is_rectangle => Shape::rectangle(length),
            Kind::Full => Shape::linear(length),
        };
        // CAST: each half of the word is a signed number of its own.
        let (source_stride, destination_stride) = (stride as i16, (stride >> 16) as i16);
        if !is_full || ti & TI_SRC_IGNORE == 0 {
            self.side(
                Side {
                    address: source,
                    stride: source_stride,
                    increments: ti & TI_SRC_INC != 0,
                    is_wide: ti & TI_SRC_WIDTH != 0,
                    does: Does::Reads,
                    role: "source",
                },
                shape,
                found,
            );
        }
        if !is_full || ti & TI_DEST_IGNORE == 0 {
            self.side(
                Side {
                    address: destination,
                    stride: destination_stride,
                    increments: ti & TI_DEST_INC != 0,
                    is_wide: ti & TI_DEST_WIDTH != 0,
                    does: Does::Writes,
                    role: "destination",
                },
                shape,
                found,
            );
        }
        Some(Block {
            next,
            interrupts: ti & TI_INTEN != 0,
        })
    }
}

impl Legacy {
    /// The rows of one side. The first that is wrong stands for those that follow.
    fn side(&self, side: Side, shape: Shape, found: &mut Found) {
        let beat = if side.is_wide { 16 } else { 4 };
        let (len, advance) = if side.increments {
            (shape.row_len, shape.row_len)
        } else {
            (shape.row_len.min(beat), 0)
        };
        if len == 0 {
            return;
        }
        let mut address = side.address;
        for _ in 0..shape.rows {
            // Memory is copied, registers are accessed again and again.
            let is_register = !side.increments && address >= ARM_PERIPHERALS;
            let place = legacy_bus::place(address, len.into(), self.page);
            let wrong = match place.wrong() {
                None if is_register => Some(WrongKind::WrongBusAlias),
                wrong => wrong,
            };
            if let Some(kind) = wrong {
                found.wrong(kind, address.into(), side.role);
                return;
            }
            if let Place::Memory(pa) = place {
                found.span(pa, side.does, side.role);
            }
            address = address
                .wrapping_add(advance)
                .wrapping_add_signed(side.stride.into());
        }
    }
}

/// The first words at `pa`, if it is RAM.
pub(super) fn words<const N: usize>(memory: &dyn Memory, pa: u64) -> Option<[u32; N]> {
    let mut bytes = [[0; 4]; N];
    memory
        .read(pa, bytes.as_flattened_mut())
        .then(|| bytes.map(u32::from_le_bytes))
}
