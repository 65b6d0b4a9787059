//! Control blocks of DMA4: what a channel reads from memory (BCM2711 ARM Peripherals, 4.2.1.1).

use super::registers::{SIDE, TI};
use crate::addr::DmaAddr;
use crate::drivers::bcm2711_dma::chain::{BLOCK_SIZE, BLOCK_WORDS};
use crate::drivers::bcm2711_dma::shape::Shape;

/// Beats of a burst after the first: 16 in all, as in Linux's driver for this channel.
const BURST: u32 = 15;

/// One copy between memory and memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct ControlBlock {
    /// The first byte to read: 40 bits.
    pub(super) src: DmaAddr,
    /// The first byte to write.
    pub(super) dst: DmaAddr,
    /// What to copy.
    pub(super) shape: Shape,
}

impl ControlBlock {
    /// The words as the channel reads them: TI, SRC, SRCI, DEST, DESTI, LEN, NEXT_CB, and one
    /// reserved. `next` is the [`pointer()`] to the next control block, or `None` at the end of
    /// the chain, which raises the interrupt.
    ///
    /// TI stays zero but for these two bits. With `WAIT_RD_RESP` a copy between memory and memory
    /// has brought boards down, one in a thousand (rsta2/circle, pull request 354).
    pub(super) fn words(&self, next: Option<u32>) -> [u32; BLOCK_WORDS] {
        let ti = TI::INTEN.val(u32::from(next.is_none()))
            + TI::TDMODE.val(u32::from(self.shape.is_rectangle()));
        let (src_stride, dst_stride) = self.shape.strides();
        [
            ti.value,
            low(self.src),
            side(self.src, src_stride),
            low(self.dst),
            side(self.dst, dst_stride),
            self.shape.length(),
            next.unwrap_or(0),
            0,
        ]
    }
}

/// Bits 31 to 0 of an address.
const fn low(addr: DmaAddr) -> u32 {
    // CAST: the upper bits are in SRCI and DESTI.
    addr.get() as u32
}

/// SRCI or DESTI: 128 bits at a time, incrementing.
fn side(addr: DmaAddr, stride: u32) -> u32 {
    let high = (addr.get() >> 32) as u32;
    (SIDE::STRIDE.val(stride)
        + SIDE::SIZE::Bits128
        + SIDE::INC::SET
        + SIDE::BURST_LENGTH.val(BURST)
        + SIDE::ADDR_HIGH.val(high))
    .value
}

/// How a channel is told the address of a control block: divided by its alignment, which reaches 37
/// bits. `None` if the address is misaligned or beyond.
pub(super) fn pointer(addr: DmaAddr) -> Option<u32> {
    let blocks = addr.get() / BLOCK_SIZE as u64;
    u32::try_from(blocks)
        .ok()
        .filter(|_| addr.is_aligned(BLOCK_SIZE))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dma::Rectangle;

    const BLOCK: ControlBlock = ControlBlock {
        src: DmaAddr::new(0x12_8000_0001),
        dst: DmaAddr::new(0x1_4000_0040),
        shape: Shape::Linear(0x3FFF_FFC0),
    };

    #[test]
    fn words_of_the_last_block() {
        assert_eq!(
            BLOCK.words(None),
            [
                0x0000_0001,
                0x8000_0001,
                0x0000_5F12,
                0x4000_0040,
                0x0000_5F01,
                0x3FFF_FFC0,
                0,
                0
            ]
        );
    }

    #[test]
    fn words_of_a_chained_block() {
        let next = pointer(DmaAddr::new(0x1_0000_0020));
        assert_eq!(next, Some(0x0800_0001));
        let words = BLOCK.words(next);
        assert_eq!((words[0], words[6]), (0, 0x0800_0001));
    }

    #[test]
    fn words_of_a_rectangle() {
        let shape = Rectangle {
            rows: 0x4000,
            row_len: 0x10,
            src_stride: -1,
            dst_stride: 0x7FFF,
        };
        let block = ControlBlock {
            shape: Shape::rows(&shape).unwrap(),
            ..BLOCK
        };
        let words = block.words(None);
        assert_eq!(words[0], 0b11);
        assert_eq!((words[2], words[4]), (0xFFFF_5F12, 0x7FFF_5F01));
        assert_eq!(words[5], 0x3FFF_0010);
    }

    #[test]
    fn pointers_reach_37_bits_of_whole_blocks() {
        let last = DmaAddr::new(0x1F_FFFF_FFE0);
        assert_eq!(pointer(last), Some(u32::MAX));
        for bad in [0x20_0000_0000, 0x1010, 0x1001] {
            assert_eq!(pointer(DmaAddr::new(bad)), None, "{bad:#x}");
        }
    }
}
