//! The cacheable memory of requests and answers, and its loan to the firmware.

use crate::addr::DmaAddr;
use crate::dma::streaming::map_single;
use crate::dma::{Bidirectional, Device, DmaError, Mapping};
use core::ptr::NonNull;

/// Bytes in a buffer: enough for a command line with what the boot loader adds.
pub(super) const BUFFER_SIZE: usize = 2048;

/// Cacheable memory of requests and answers. It shares no line, so that nothing else is lost when
/// its lines are dropped.
#[derive(Debug)]
#[repr(C, align(64))]
pub struct PropertyBuffer([u8; BUFFER_SIZE]);

const _: () = assert!(align_of::<PropertyBuffer>() == crate::dma::ALIGNMENT);

impl PropertyBuffer {
    /// An empty buffer.
    pub const fn new() -> Self {
        Self([0; BUFFER_SIZE])
    }
}

impl Default for PropertyBuffer {
    fn default() -> Self {
        Self::new()
    }
}

/// A [`PropertyBuffer`], the CPU's or lent to the firmware. A loan outlives the request it was made
/// for if the firmware does not answer in time.
#[derive(Debug)]
pub(super) struct Cacheable {
    /// Borrowed for good. A pointer, because a loan borrows the buffer as well.
    buffer: NonNull<PropertyBuffer>,
    loan: Option<Mapping<'static, Bidirectional>>,
}

// SAFETY: the pointer stands for an exclusive reference for good, which may cross threads.
unsafe impl Send for Cacheable {}

impl Cacheable {
    /// A buffer that is the CPU's.
    pub(super) fn new(buffer: &'static mut PropertyBuffer) -> Self {
        Self {
            buffer: NonNull::from(buffer),
            loan: None,
        }
    }

    /// The first `len` bytes, at most all, taken back if they are lent.
    pub(super) fn bytes(&mut self, len: usize) -> &mut [u8] {
        self.take_back();
        // SAFETY: the buffer was borrowed exclusively for good, and no loan of it is left.
        let buffer = unsafe { self.buffer.as_mut() };
        &mut buffer.0[..len]
    }

    /// Lends the first `len` bytes to `device` and returns where it sees them.
    pub(super) fn lend(
        &mut self,
        device: &'static Device,
        len: usize,
    ) -> Result<DmaAddr, DmaError> {
        let start = self.bytes(len).as_mut_ptr();
        // SAFETY: the bytes lie in the buffer, which was borrowed exclusively for good. Only `bytes`
        // makes references to it, after the loan has ended.
        let loan = unsafe { map_single(device, start, len) }?;
        Ok(self.loan.insert(loan).dma_addr())
    }

    /// Ends the loan, if there is one. The firmware must be done with the bytes.
    pub(super) fn take_back(&mut self) {
        if let Some(loan) = self.loan.take() {
            loan.unmap();
        }
    }
}
