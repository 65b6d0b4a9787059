//! What the MMU and the tables say of a stretch of addresses: the detections the suites share.

use crate::machine::machine;
use hal::addr::{PAGE_SIZE, PhysRange, VirtAddr};
use hal::arch::translate;
use hal::layout::DIRECT_MAP;
use hal::mmu::mapper::{FIRST, LIMIT};
use hal::mmu::{Leaf, MemoryType};

/// Places in the `len` bytes at `va` where the next page's frame is not the next frame, as
/// `AT S1E1R` translates them; the address that does not translate, if there is one.
pub(crate) fn physical_breaks(va: VirtAddr, len: usize) -> Result<usize, VirtAddr> {
    let mut breaks = 0;
    let mut expected = None;
    for page in pages(va, len) {
        let pa = translate::read_el1(page).page().ok_or(page)?;
        if expected.is_some_and(|expected| expected != pa) {
            breaks += 1;
        }
        expected = Some(pa + PAGE_SIZE);
    }
    Ok(breaks)
}

/// The first page of the `len` bytes at `va` that `AT S1E1R` does not find at the direct map's
/// offset from its frame.
pub(super) fn off_the_direct_map(va: VirtAddr, len: usize) -> Option<VirtAddr> {
    pages(va, len).find(|page| {
        let pa = translate::read_el1(*page)
            .page()
            .map(|pa| pa.get() as usize);
        pa.map(|pa| page.get().wrapping_sub(pa)) != Some(DIRECT_MAP.base.get())
    })
}

/// The first page of the `len` bytes at `va` that `PAR_EL1` does not call `wanted`.
pub(super) fn other_type(va: VirtAddr, len: usize, wanted: MemoryType) -> Option<VirtAddr> {
    pages(va, len).find(|page| translate::read_el1(*page).memory_type() != Some(wanted))
}

/// A mapping of any of `frames` outside the addresses `va..end`, in the whole tree.
pub(super) fn alias_of(frames: PhysRange, va: VirtAddr, end: VirtAddr) -> Option<Leaf> {
    let tables = machine().tables.lock();
    let before = tables.find_mapping_of(frames, FIRST, va);
    before.or_else(|| tables.find_mapping_of(frames, end, LIMIT))
}

/// A sum that changes with any leaf of the kernel's tree, and the number of its tables.
pub(super) fn fingerprint() -> (u64, usize) {
    let mut tables = machine().tables.lock();
    let mut sum = 0u64;
    for run in tables.runs(FIRST, LIMIT) {
        for word in [run.va.get() as u64, run.size as u64, run.descriptor().raw()] {
            // FNV-1a, word by word.
            sum = (sum ^ word).wrapping_mul(0x0100_0000_01B3);
        }
    }
    (sum, tables.memory_mut().tables_in_use())
}

fn pages(va: VirtAddr, len: usize) -> impl Iterator<Item = VirtAddr> {
    (0..len).step_by(PAGE_SIZE).map(move |offset| va + offset)
}
