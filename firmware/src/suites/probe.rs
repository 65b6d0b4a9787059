//! Accesses that may fault.

use hal::addr::VirtAddr;
use hal::arch::exception::{FaultInfo, FaultReport};
use hal::arch::{fault_probe, translate};
use hal::dma::Coherent;

/// Loads a byte from `va`, which is RAM or not mapped.
pub(super) fn read_u8(va: VirtAddr) -> Result<u64, FaultInfo> {
    // SAFETY: if the load succeeds it changes nothing.
    unsafe { fault_probe::probe_read_u8(va) }
}

/// Loads a word from `va`, which is RAM, a register without side effects, or not mapped.
pub(super) fn read_u32(va: VirtAddr) -> Result<u64, FaultInfo> {
    // SAFETY: if the load succeeds it changes nothing.
    unsafe { fault_probe::probe_read_u32(va) }
}

/// Loads a double word from `va`, which is RAM, a register without side effects, or not mapped.
pub(super) fn read_u64(va: VirtAddr) -> Result<u64, FaultInfo> {
    // SAFETY: if the load succeeds it changes nothing.
    unsafe { fault_probe::probe_read_u64(va) }
}

/// Stores the byte at `va`, memory of the image nobody writes meanwhile, to where it is.
pub(super) fn rewrite_u8(va: VirtAddr) -> Result<(), FaultInfo> {
    // SAFETY: the load changes nothing, and the store stores what is there.
    unsafe { fault_probe::probe_write_u8(va, fault_probe::probe_read_u8(va)?) }
}

/// The fault as a sentence, with the memory type its address has now.
pub(super) fn in_words(info: FaultInfo) -> FaultReport {
    FaultReport {
        info,
        translation: Some(translate::read_el1(info.far)),
    }
}

/// Stores and loads eight bytes at `offset` of coherent memory with one access each, aligned or
/// not. `None` if they do not fit.
pub(super) fn store_and_load(memory: &mut Coherent, offset: usize, value: u64) -> Option<u64> {
    let end = offset.checked_add(size_of::<u64>())?;
    let bytes = memory.as_mut_slice().get_mut(offset..end)?;
    let va = VirtAddr::from_ptr(bytes.as_mut_ptr());
    // SAFETY: the bytes are the slice's, borrowed exclusively; alignment is what is being tested.
    unsafe {
        fault_probe::probe_write_u64(va, value).ok()?;
        fault_probe::probe_read_u64(va).ok()
    }
}
