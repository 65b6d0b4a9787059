//! The payload the boot loader left in memory.

use crate::machine::machine;
use hal::addr::{PAGE_SIZE, PhysAddr, PhysRange};
use hal::arch::translate;
use hal::layout::phys_to_virt;
use hal::mmu::MemoryType;

/// Why there is no payload to copy.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum NoPayload {
    /// The device tree names none.
    #[error("no payload: make run PAYLOAD=FILE")]
    Absent,
    /// The memory map gives the memory to nobody or to somebody else.
    #[error("the payload {0} is not reserved")]
    NotReserved(PhysRange),
    /// A page of it is not ordinary memory of the direct map.
    #[error("the payload's page {0} is not write-back memory of the direct map")]
    NotMapped(PhysAddr),
}

/// The payload's bytes.
///
/// # Errors
///
/// [`NoPayload`].
pub(crate) fn payload() -> Result<&'static [u8], NoPayload> {
    let range = machine().payload.ok_or(NoPayload::Absent)?;
    let reserved = machine().map.reserved().iter();
    if !reserved
        .clone()
        .any(|reserved| reserved.range.contains_range(&range))
    {
        return Err(NoPayload::NotReserved(range));
    }
    let mut page = range.start.align_down(PAGE_SIZE);
    while page < range.end {
        let par = translate::read_el1(phys_to_virt(page));
        if par.page() != Some(page) || par.memory_type() != Some(MemoryType::NormalWriteBack) {
            return Err(NoPayload::NotMapped(page));
        }
        page = page + PAGE_SIZE;
    }
    let start = phys_to_virt(range.start).as_ptr::<u8>();
    // SAFETY: every page is mapped, as checked; the memory is reserved, so that no allocator owns
    // it, and nothing writes it.
    Ok(unsafe { core::slice::from_raw_parts(start, range.size() as usize) })
}
