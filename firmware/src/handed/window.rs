//! Memory that an engine owns, in the hands of the CPU all the same.

use core::marker::PhantomData;
use core::ops::Range;
use hal::addr::VirtAddr;
use hal::arch::{barrier, cache, fault_probe};
use hal::dma::maintenance::line_size;

/// Drops every line that holds a byte of `part` with all that was stored to it since it was last
/// cleaned, as a driver does that takes its buffer for the only owner of its lines. A line that
/// is not of `bytes` whole stays.
pub(crate) fn invalidate_by_hand(bytes: &mut [u8], part: Range<usize>) {
    let line = line_size();
    barrier::hand_over(bytes.as_mut_ptr());
    let whole = VirtAddr::from_ptr(bytes.as_mut_ptr());
    let first = (whole + part.start).get() & !(line - 1);
    for at in (first..(whole + part.end).get()).step_by(line) {
        if at >= whole.get() && at + line <= whole.get() + bytes.len() {
            // SAFETY: the line's bytes are plain and borrowed exclusively. What they hold afterwards
            // they held before.
            unsafe { cache::invalidate_line(VirtAddr::new(at)) };
        }
    }
    barrier::dsb_sy();
    barrier::hand_over(bytes.as_mut_ptr());
}

/// Where bytes are that are about to be lent.
#[derive(Clone, Copy, Debug)]
pub(super) struct Place {
    va: VirtAddr,
    len: usize,
}

impl Place {
    pub(super) fn of(bytes: &mut [u8]) -> Self {
        Self {
            va: VirtAddr::from_ptr(bytes.as_mut_ptr()),
            len: bytes.len(),
        }
    }
}

/// Bytes that are lent to a device, for a CPU that breaks the rule and accesses them meanwhile. Each
/// access is one instruction that the compiler knows nothing of, so the program stays sound: what
/// the device and the CPU read is any mixture of the bytes they store.
#[derive(Debug)]
pub(crate) struct Window<'a> {
    va: VirtAddr,
    len: usize,
    memory: PhantomData<&'a mut [u8]>,
}

impl<'a> Window<'a> {
    /// Onto the bytes at `place`.
    ///
    /// # Safety
    ///
    /// They are plain bytes, mapped, and borrowed exclusively during `'a` by what gives no access to
    /// them: a device's handle.
    pub(super) unsafe fn onto(place: Place) -> Self {
        let Place { va, len } = place;
        Self {
            va,
            len,
            memory: PhantomData,
        }
    }

    /// Loads a byte of each line, so that the caches fetch it.
    pub(crate) fn load_lines(&self, line: usize) {
        for offset in (0..self.len).step_by(line) {
            // SAFETY: the byte is RAM that `'a` borrows; a load of it changes nothing.
            let _ = unsafe { fault_probe::probe_read_u8(self.va + offset) };
        }
    }

    /// Stores `byte(index)` to each byte of `range`.
    pub(crate) fn store(&self, range: Range<usize>, byte: impl Fn(usize) -> u8) {
        for index in range.start..range.end.min(self.len) {
            // SAFETY: the byte is plain, mapped, and of memory that `'a` borrows exclusively: no
            // reference to it is used before the borrow ends.
            let _ = unsafe { fault_probe::probe_write_u8(self.va + index, byte(index).into()) };
        }
    }
}
