//! Walking the chain of frame records (AAPCS64 6.4.6).
//!
//! The image is built with frame pointers, so `x29` points to a record of two words: the caller's
//! record and the return address into it. A report must come out of a damaged stack too, so each
//! record is checked before it is read.

use crate::addr::VirtAddr;
use core::ops::Range;

/// Most return addresses a walk yields.
pub const MAX_FRAMES: usize = 64;

/// Alignment of a frame record, in bytes. AAPCS64 asks for 8, but the compiler places records
/// where `SP` points, and `SP` is kept to 16.
const RECORD_ALIGN: usize = 16;

/// Bytes in a frame record.
const RECORD_SIZE: usize = 16;

/// The return addresses on a stack, innermost first.
#[derive(Clone, Debug)]
pub struct Backtrace<'a> {
    stacks: &'a [Range<VirtAddr>],
    /// The record to read next, if it may be read.
    record: Option<VirtAddr>,
    frames_left: usize,
}

impl<'a> Backtrace<'a> {
    /// Starts at the frame record `frame_pointer` points to. Only records that lie whole in one
    /// of `stacks` are read. May be called in any context.
    ///
    /// # Safety
    ///
    /// Every byte of `stacks` is mapped, readable Normal memory for as long as the walk lasts.
    pub unsafe fn new(frame_pointer: VirtAddr, stacks: &'a [Range<VirtAddr>]) -> Self {
        Self {
            stacks,
            record: checked_record(frame_pointer, stacks),
            frames_left: MAX_FRAMES,
        }
    }
}

/// `frame_pointer`, if a record may be read there.
fn checked_record(frame_pointer: VirtAddr, stacks: &[Range<VirtAddr>]) -> Option<VirtAddr> {
    let end = frame_pointer.checked_add(RECORD_SIZE)?;
    let on_a_stack = stacks
        .iter()
        .any(|stack| stack.start <= frame_pointer && end <= stack.end);
    (frame_pointer.is_aligned(RECORD_ALIGN) && on_a_stack).then_some(frame_pointer)
}

impl Iterator for Backtrace<'_> {
    type Item = VirtAddr;

    fn next(&mut self) -> Option<VirtAddr> {
        let record = self.record.take()?;
        self.frames_left = self.frames_left.checked_sub(1)?;
        // SAFETY: `checked_record` found the 16 aligned bytes inside one of `stacks`, which the
        // caller of `new` promised to be readable. Volatile, because the stack may be a running
        // core's.
        let [caller, return_address] =
            unsafe { record.as_ptr::<[usize; 2]>().cast_const().read_volatile() };
        // Stacks grow down, so a caller's record lies above; this is also what ends a loop.
        if caller > record.get() {
            self.record = checked_record(VirtAddr::new(caller), self.stacks);
        }
        // The outermost record holds no return address.
        (return_address != 0).then(|| VirtAddr::new(return_address))
    }
}

/// The executing function's frame record, where a backtrace from here starts.
#[cfg(target_os = "none")]
#[inline(always)]
pub fn frame_pointer() -> VirtAddr {
    let record: usize;
    // SAFETY: copying a register has no side effect.
    unsafe {
        core::arch::asm!("mov {}, x29", out(reg) record, options(nomem, nostack, preserves_flags));
    };
    VirtAddr::new(record)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A stack of 16-byte slots, each able to hold one record.
    #[repr(align(16))]
    struct Stack([[usize; 2]; 128]);

    impl Stack {
        fn empty() -> Box<Self> {
            Box::new(Self([[0; 2]; 128]))
        }

        fn slot(&self, index: usize) -> usize {
            VirtAddr::from_ptr(&self.0[index]).get()
        }

        /// Links the records at `slots`, innermost first; record `i` returns to `0x100 + i`.
        fn link(&mut self, slots: &[usize]) {
            for (i, &slot) in slots.iter().enumerate() {
                let caller = slots.get(i + 1).map_or(0, |&next| self.slot(next));
                self.0[slot] = [caller, 0x100 + i];
            }
        }

        fn range(&self) -> Range<VirtAddr> {
            let start = VirtAddr::from_ptr(&self.0[0]);
            start..start + size_of::<Self>()
        }

        fn walk(&self, frame_pointer: usize) -> Vec<usize> {
            let stacks = [self.range()];
            // SAFETY: the range is this live allocation.
            unsafe { Backtrace::new(VirtAddr::new(frame_pointer), &stacks) }
                .map(VirtAddr::get)
                .collect()
        }
    }

    #[test]
    fn follows_the_chain_to_its_end() {
        let mut stack = Stack::empty();
        stack.link(&[1, 5, 6, 100]);
        assert_eq!(stack.walk(stack.slot(1)), [0x100, 0x101, 0x102, 0x103]);
        stack.0[6][1] = 0;
        assert_eq!(stack.walk(stack.slot(1)), [0x100, 0x101]);
    }

    #[test]
    fn a_loop_ends() {
        let mut stack = Stack::empty();
        stack.link(&[1, 5, 6]);
        stack.0[6][0] = stack.slot(1);
        assert_eq!(stack.walk(stack.slot(1)), [0x100, 0x101, 0x102]);
        stack.0[1][0] = stack.slot(1);
        assert_eq!(stack.walk(stack.slot(1)), [0x100]);
    }

    #[test]
    fn corrupt_records_are_not_read() {
        let mut stack = Stack::empty();
        stack.link(&[1, 5]);
        let end = stack.range().end.get();
        for corrupt in [
            stack.slot(5) + 8,
            stack.slot(5) + 1,
            end,
            end - 8,
            usize::MAX,
            0x10,
        ] {
            stack.0[1][0] = corrupt;
            assert_eq!(stack.walk(stack.slot(1)), [0x100], "{corrupt:#x}");
            if corrupt != 0x10 {
                assert_eq!(stack.walk(corrupt), [], "{corrupt:#x}");
            }
        }
        assert_eq!(stack.walk(0), []);
    }

    #[test]
    fn crosses_to_another_given_stack_only() {
        let (mut a, mut b) = (Stack::empty(), Stack::empty());
        if a.slot(0) > b.slot(0) {
            core::mem::swap(&mut a, &mut b);
        }
        a.0[0] = [b.slot(3), 0x100];
        b.0[3] = [0, 0x200];
        assert_eq!(a.walk(a.slot(0)), [0x100]);
        let stacks = [a.range(), b.range()];
        // SAFETY: both ranges are live allocations.
        let both = unsafe { Backtrace::new(VirtAddr::new(a.slot(0)), &stacks) };
        assert_eq!(both.map(VirtAddr::get).collect::<Vec<_>>(), [0x100, 0x200]);
    }

    #[test]
    fn the_walk_is_bounded() {
        let mut stack = Stack::empty();
        stack.link(&(0..128).collect::<Vec<_>>());
        assert_eq!(stack.walk(stack.slot(0)).len(), MAX_FRAMES);
    }
}
