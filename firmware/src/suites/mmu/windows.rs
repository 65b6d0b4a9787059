//! Every window against its rule. Types come from the MMU (`PAR_EL1`), sizes and permissions from a
//! walk of the tables.

use super::super::plant::{self, Plant};
use super::super::probe;
use super::changes::Frames;
use crate::boot::{self, image};
use crate::check;
use crate::check_ok;
use crate::machine::machine;
use crate::memory::Area;
use crate::report::{Outcome, Stop, diagnostic, failed};
use core::fmt;
use hal::addr::{PAGE_SIZE, PhysRange, VirtAddr};
use hal::arch::par::{Par, Shareability};
use hal::arch::translate;
use hal::layout::{
    COHERENT, DIRECT_MAP, EARLY, IMAGE, IOREMAP, VMALLOC, WINDOWS, Window, phys_to_virt,
};
use hal::mmu::mapper::{FIRST, LIMIT};
use hal::mmu::{Access, Attributes, Descriptor, Leaf, Level, MapError, MemoryType};

/// The memory type everything in `window` has.
fn rule(window: &Window) -> MemoryType {
    if *window == COHERENT {
        MemoryType::NormalNonCacheable
    } else if *window == IOREMAP {
        MemoryType::DeviceNgnre
    } else {
        MemoryType::NormalWriteBack
    }
}

/// A page that is not what its window says.
#[derive(Debug)]
struct Wrong {
    va: VirtAddr,
    what: &'static str,
    par: Par,
}

impl fmt::Display for Wrong {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{}: {} (PAR_EL1={:#x})",
            self.va,
            self.what,
            self.par.raw()
        )
    }
}

/// Judges `va`, a page of `run` in a window with the type `expected`, by what the MMU says.
fn judge(va: VirtAddr, run: &Leaf, expected: MemoryType) -> Option<Wrong> {
    let par = translate::read_el1(va);
    let shareability = match expected {
        MemoryType::NormalWriteBack => Shareability::Inner,
        // Whatever the descriptor says (Arm ARM D8.5.2).
        _ => Shareability::Outer,
    };
    let what = if par.page() != run.translate(va) {
        "PAR_EL1 and the tables name different frames"
    } else if par.memory_type() != run.memory_type() {
        "PAR_EL1 and the tables name different types"
    } else if par.memory_type() != Some(expected) {
        "not the type of its window"
    } else if par.shareability() != Some(shareability) {
        "not the shareability of its type"
    } else {
        return None;
    };
    Some(Wrong { va, what, par })
}

/// The first page of `window` that is not as its rule says, and how many runs were looked at.
fn first_wrong(window: &'static Window) -> (Option<Wrong>, usize) {
    let mut next = window.base;
    let mut runs = 0;
    loop {
        let run = machine().tables.lock().first_run(next, window.end());
        let Some(run) = run else {
            return (None, runs);
        };
        let last_page = run.va + (run.size - PAGE_SIZE);
        let pages = [run.va, last_page];
        let wrong = pages
            .into_iter()
            .find_map(|va| judge(va, &run, rule(window)));
        if wrong.is_some() {
            return (wrong, runs);
        }
        runs += 1;
        next = run.end();
    }
}

pub(super) fn types() -> Outcome {
    // So that there is something in that window.
    let area = check_ok!(Area::alloc(3 * PAGE_SIZE));
    let mut found = None;
    for window in &WINDOWS {
        let (wrong, runs) = first_wrong(window);
        diagnostic(format_args!(
            "{}: {} by PAR_EL1 in the first and last page of {runs} runs",
            window.name,
            rule(window)
        ));
        found = found.or(wrong);
    }
    let in_vmalloc = machine()
        .tables
        .lock()
        .first_run(VMALLOC.base, VMALLOC.end());
    check_ok!(area.free());
    check!(
        in_vmalloc.is_some(),
        "the vmalloc area is not in its window"
    );
    found.map_or(Ok(()), |wrong| failed(format_args!("{wrong}")))
}

pub(super) fn types_planted() -> Outcome {
    let frames = check_ok!(Frames::alloc(0));
    for memory_type in [MemoryType::NormalNonCacheable, MemoryType::DeviceNgnre] {
        let attributes = Attributes::new(memory_type, Access::ReadOnly);
        let plant = check_ok!(Plant::new(
            plant::SCRATCH,
            frames.range(),
            attributes,
            Level::L3
        ));
        let (found, _) = first_wrong(&EARLY);
        check_ok!(plant.remove());
        match found {
            Some(wrong) => check!(
                wrong.va == plant::SCRATCH,
                "found {wrong} instead of the plant"
            ),
            None => return failed(format_args!("{memory_type} in {} is not found", EARLY.name)),
        }
    }
    Ok(())
}

/// The first page of the image whose permissions are not those of its section, and them.
fn wrong_permission(
    expected: impl Fn(VirtAddr) -> Option<Access>,
) -> Option<(VirtAddr, Option<Access>)> {
    let tables = machine().tables.lock();
    let pages = (IMAGE.base.get()..image_end().get()).step_by(PAGE_SIZE);
    pages.map(VirtAddr::new).find_map(|page| {
        let found = tables.leaf(page).and_then(|leaf| leaf.access());
        (found != expected(page)).then_some((page, found))
    })
}

/// First address after the last stack, where the image ends.
fn image_end() -> VirtAddr {
    let stacks = boot::stacks();
    stacks.last().map_or(IMAGE.base, |stack| stack.end)
}

/// What `page` of the image may be used for.
fn section_access(page: VirtAddr) -> Option<Access> {
    if image::text().contains(&page) {
        Some(Access::ReadExecute)
    } else if image::rodata().contains(&page) {
        Some(Access::ReadOnly)
    } else if boot::stacks()
        .iter()
        .any(|stack| stack.start == page + PAGE_SIZE)
    {
        None
    } else {
        Some(Access::ReadWrite)
    }
}

pub(super) fn sections() -> Outcome {
    let wrong = wrong_permission(section_access);
    check!(wrong.is_none(), "(page, access) is {wrong:?}");
    let outside = machine().tables.lock().first_leaf(image_end(), IMAGE.end());
    check!(outside.is_none(), "{outside:x?} lies after the image");
    // Execute-never cannot be tried out without leaving this function, so it is read.
    let executable = machine()
        .tables
        .lock()
        .runs(FIRST, LIMIT)
        .find(|run| run.descriptor().is_executable() && !image::text().contains(&run.va));
    check!(executable.is_none(), "{executable:x?} can be executed");
    diagnostic(format_args!(
        "structural: walk of all tables; only the text can be executed"
    ));
    Ok(())
}

pub(super) fn sections_planted() -> Outcome {
    let data = plant::own_page();
    let found = wrong_permission(|page| {
        if page == data {
            Some(Access::ReadOnly)
        } else {
            section_access(page)
        }
    });
    check!(
        found == Some((data, Some(Access::ReadWrite))),
        "a page with other permissions than expected is not found: {found:?}"
    );
    Ok(())
}

pub(super) fn direct_map() -> Outcome {
    let mut bytes = 0;
    for range in machine().map.direct_map_ranges() {
        bytes += range.size();
        let last = range.end.align_down(PAGE_SIZE).get() - PAGE_SIZE as u64;
        for pa in [range.start, hal::addr::PhysAddr::new(last)] {
            let par = translate::read_el1(phys_to_virt(pa));
            check!(
                par.page() == Some(pa),
                "PAR_EL1={:#x} at the place of {pa}",
                par.raw()
            );
        }
    }
    let mapped: usize = machine()
        .tables
        .lock()
        .runs(DIRECT_MAP.base, DIRECT_MAP.end())
        .map(|run| run.size)
        .sum();
    diagnostic(format_args!("{} MiB", mapped >> 20));
    check!(
        mapped as u64 == bytes,
        "{mapped:#x} bytes are mapped, {bytes:#x} should be"
    );
    let offset = DIRECT_MAP.base.get();
    let stray = machine()
        .tables
        .lock()
        .runs(DIRECT_MAP.base, DIRECT_MAP.end())
        .find(|run| run.va.get() - offset != run.pa.get() as usize);
    check!(stray.is_none(), "{stray:x?} is not at its offset");
    Ok(())
}

/// A run in `start..end` that a larger leaf could map a part of.
fn too_small(start: VirtAddr, end: VirtAddr) -> Option<Leaf> {
    let larger = |level| match level {
        Level::L1 => None,
        Level::L2 => Some(Level::L1),
        Level::L3 => Some(Level::L2),
    };
    machine().tables.lock().runs(start, end).find(|run| {
        let Some(size) = larger(run.level).map(Level::size) else {
            return false;
        };
        let first = run.va.get().next_multiple_of(size);
        let congruent = (run.va.get() as u64 ^ run.pa.get()).is_multiple_of(size as u64);
        congruent && first + size <= run.end().get()
    })
}

pub(super) fn leaf_sizes() -> Outcome {
    // Contiguous memory areas are mapped by pages, because their type may change.
    let mut next = DIRECT_MAP.base;
    let mut small = None;
    for area in machine().map.cma_ranges() {
        small = small.or_else(|| too_small(next, phys_to_virt(area.start)));
        next = phys_to_virt(area.end);
    }
    let small = small.or_else(|| too_small(next, DIRECT_MAP.end()));
    check!(
        small.is_none(),
        "{small:x?} could be mapped by larger leaves"
    );
    Ok(())
}

pub(super) fn leaf_sizes_planted() -> Outcome {
    let frames = check_ok!(Frames::alloc_block());
    let attributes = Attributes::new(MemoryType::NormalWriteBack, Access::ReadOnly);
    let planted = Plant::new(plant::SCRATCH, frames.range(), attributes, Level::L3);
    let plant = check_ok!(planted);
    let found = too_small(plant::SCRATCH, EARLY.end());
    check_ok!(plant.remove());
    check!(
        found.is_some_and(|run| run.va == plant::SCRATCH),
        "pages in the place of a block are not found: {found:x?}"
    );
    Ok(())
}

pub(super) fn pool() -> Outcome {
    let pool = machine().pool;
    let (frames, va) = (pool.frames(), pool.cpu_base());
    let mut at = va;
    let end = va + frames.size() as usize;
    while at < end {
        let run = machine().tables.lock().first_run(at, end);
        let Some(run) = run.filter(|run| run.va == at) else {
            return failed(format_args!("{at} of the pool is not mapped"));
        };
        let offset = run.va.get() - va.get();
        check!(
            run.pa == frames.start + offset,
            "{} is not behind {at}",
            run.pa
        );
        diagnostic(format_args!(
            "{} of {:#x} bytes in leaves of {}",
            frames,
            run.size,
            crate::address_space::leaf_size(run.level)
        ));
        at = run.end();
    }
    check!(at == end, "the mapping of the pool ends at {at}, not {end}");
    let outside = machine().tables.lock().first_leaf(end, COHERENT.end());
    check!(outside.is_none(), "{outside:x?} is not the pool's");
    let small = too_small(va, end);
    check!(
        small.is_none(),
        "{small:x?} could be mapped by larger leaves"
    );
    Ok(())
}

/// What is wrong with the bits of a leaf that are the same for every one of them.
fn wrong_bits(leaf: Descriptor) -> Option<&'static str> {
    // Arm ARM D8.3.1: lower and upper attributes.
    const ACCESS_FLAG: u64 = 1 << 10;
    const NOT_GLOBAL: u64 = 1 << 11;
    const EL0: u64 = 1 << 6;
    const CONTIGUOUS: u64 = 1 << 52;
    const UXN: u64 = 1 << 54;
    let raw = leaf.raw();
    if raw & ACCESS_FLAG == 0 {
        Some("AF is clear: the first access would fault")
    } else if raw & NOT_GLOBAL != 0 {
        Some("nG is set: the entry belongs to one address space")
    } else if raw & EL0 != 0 {
        Some("AP[1] is set: EL0 has access")
    } else if raw & CONTIGUOUS != 0 {
        Some("the contiguous hint is set")
    } else if raw & UXN == 0 {
        Some("UXN is clear: EL0 may execute")
    } else {
        None
    }
}

pub(super) fn flags() -> Outcome {
    let mut runs = 0;
    let wrong = machine().tables.lock().runs(FIRST, LIMIT).find_map(|run| {
        runs += 1;
        wrong_bits(run.descriptor()).map(|what| (run.va, what))
    });
    check!(wrong.is_none(), "{wrong:x?}");
    diagnostic(format_args!("structural: {runs} runs of equal leaves"));
    Ok(())
}

pub(super) fn flags_planted() -> Outcome {
    let Some(good) = machine().tables.lock().leaf(IMAGE.base) else {
        return Err(Stop::Failed);
    };
    for bit in [6, 10, 11, 52, 54] {
        let bad = Descriptor::from_raw(good.descriptor().raw() ^ 1 << bit);
        check!(
            wrong_bits(bad).is_some(),
            "a change of bit {bit} is not found"
        );
    }
    Ok(())
}

pub(super) fn error_pointers() -> Outcome {
    /// The top page and the lowest error pointer.
    const ADDRESSES: [usize; 3] = [LIMIT.get(), 0xFFFF_FFFF_FFFF_F000, 0usize.wrapping_sub(8)];
    for va in ADDRESSES.map(VirtAddr::new) {
        let status = translate::read_el1(va).fault_status();
        check!(status.is_some(), "{va} translates");
        check!(probe::read_u64(va).is_err(), "{va} can be read");
    }
    let frames = check_ok!(Frames::alloc(0));
    let attributes = Attributes::new(MemoryType::NormalWriteBack, Access::ReadOnly);
    let refusal = Plant::new(LIMIT, frames.range(), attributes, Level::L3);
    check!(
        matches!(refusal, Err(MapError::OutsideWindow { .. })),
        "mapping {LIMIT} gives {refusal:?}"
    );
    // The same questions, asked of an address that is mapped.
    let mapped = phys_to_virt(frames.range().start);
    check!(
        translate::read_el1(mapped).fault_status().is_none() && probe::read_u64(mapped).is_ok(),
        "{mapped} is mapped, yet nothing answers"
    );
    let nothing = PhysRange::new(frames.range().start, frames.range().start);
    let refusal = Plant::new(plant::SCRATCH, nothing, attributes, Level::L3);
    check!(
        matches!(refusal, Err(MapError::Empty(_))),
        "mapping nothing gives {refusal:?}"
    );
    Ok(())
}
