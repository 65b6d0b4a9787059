//! Control blocks: what a channel reads from memory (BCM2711 ARM Peripherals, 4.2.1.1).

use super::Kind;
use super::chain::BLOCK_WORDS;
use super::registers::{STRIDE, TI};
use super::shape::Shape;
use tock_registers::fields::FieldValue;

/// Words that channel 0 reads in one burst: its external FIFO holds them (4.5).
const FIFO_BURST: u32 = 8;
/// Words that the other full channels read in one burst. More than fits their input register
/// stalls the read bus (4.3).
const FULL_BURST: u32 = 1;
/// Lite channels read single transfers: their buffer holds one of 128 bits (4.6).
const LITE_BURST: u32 = 0;

/// One copy between memory and memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct ControlBlock {
    /// Bus address of the first byte to read.
    pub(super) src: u32,
    /// Bus address of the first byte to write.
    pub(super) dst: u32,
    /// What to copy.
    pub(super) shape: Shape,
}

impl ControlBlock {
    /// The words as the channel of `kind` reads them: TI, SOURCE_AD, DEST_AD, TXFR_LEN, STRIDE,
    /// NEXTCONBK, and two reserved. `next` is the bus address of the next control block, or `None` at
    /// the end of the chain, which raises the interrupt.
    pub(super) fn words(&self, kind: Kind, next: Option<u32>) -> [u32; BLOCK_WORDS] {
        let ti = transfer_information(kind, next.is_none())
            + TI::TDMODE.val(u32::from(self.shape.is_rectangle()));
        let (src_stride, dst_stride) = self.shape.strides();
        let stride = STRIDE::D_STRIDE.val(dst_stride) + STRIDE::S_STRIDE.val(src_stride);
        [
            ti.value,
            self.src,
            self.dst,
            self.shape.length(),
            stride.value,
            next.unwrap_or(0),
            0,
            0,
        ]
    }
}

/// A copy of memory: both addresses increment, 128 bits at a time. Writes are not acknowledged one
/// by one (`WAIT_RESP`), because `CS.WAIT_FOR_OUTSTANDING_WRITES` defers the end of the block.
fn transfer_information(kind: Kind, last: bool) -> FieldValue<u32, TI::Register> {
    let burst = match kind {
        Kind::Fifo => FIFO_BURST,
        Kind::Full => FULL_BURST,
        Kind::Lite => LITE_BURST,
    };
    TI::SRC_INC::SET
        + TI::SRC_WIDTH::SET
        + TI::DEST_INC::SET
        + TI::DEST_WIDTH::SET
        + TI::BURST_LENGTH.val(burst)
        + TI::INTEN.val(u32::from(last))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dma::Rectangle;

    const BLOCK: ControlBlock = ControlBlock {
        src: 0xC012_3401,
        dst: 0xC800_0000,
        shape: Shape::Linear(0x3FFF_FFC0),
    };

    #[test]
    fn words_of_the_last_block_on_channel_0() {
        assert_eq!(
            BLOCK.words(Kind::Fifo, None),
            [
                0x0000_8331,
                0xC012_3401,
                0xC800_0000,
                0x3FFF_FFC0,
                0,
                0,
                0,
                0
            ]
        );
    }

    #[test]
    fn words_of_a_chained_block() {
        let next = Some(0xC000_0020);
        assert_eq!(
            BLOCK.words(Kind::Full, next),
            [
                0x0000_1330,
                0xC012_3401,
                0xC800_0000,
                0x3FFF_FFC0,
                0,
                0xC000_0020,
                0,
                0
            ]
        );
        assert_eq!(BLOCK.words(Kind::Lite, next)[0], 0x0000_0330);
    }

    #[test]
    fn words_of_a_rectangle() {
        let shape = Rectangle {
            rows: 3,
            row_len: 0x40,
            src_stride: 0x10,
            dst_stride: -0x80,
        };
        let block = ControlBlock {
            shape: Shape::rows(&shape).unwrap(),
            ..BLOCK
        };
        assert_eq!(
            block.words(Kind::Full, None),
            [
                0x0000_1333,
                0xC012_3401,
                0xC800_0000,
                0x0002_0040,
                0xFF80_0010,
                0,
                0,
                0
            ]
        );
    }
}
