//! `kmap_local`: a page has a second address for a moment.

use super::super::interrupt::InInterrupt;
use super::super::plant::{self, Plant};
use super::super::probe;
use super::changes::Frames;
use crate::machine::machine;
use crate::memory::Pages;
use crate::memory::local::{self, LocalPage};
use crate::provocation::{Kind, Provoked, Wrong};
use crate::report::{Outcome, Stop, diagnostic};
use crate::{check, check_ok, check_served};
use core::sync::atomic::{AtomicBool, Ordering};
use hal::addr::{PAGE_SIZE, Pfn, VirtAddr};
use hal::arch::translate;
use hal::layout::KMAP;
use hal::mm::{Gfp, KMAP_SLOTS, KmapError, MemoryTypeError};
use hal::mmu::{Access, Attributes, Level, MemoryType};
use hal::smp::{self, SmpError};
use hal::sync::PerCpu;

/// The first core on which a page answers at `va`.
fn first_core_with(va: VirtAddr) -> Result<Option<usize>, SmpError> {
    for core in smp::online() {
        if smp::run_on(core, || probe::read_u8(va).is_ok())? {
            return Ok(Some(core));
        }
    }
    Ok(None)
}

/// What is wrong with a mapping of `frame` at `va` by what the MMU says of it.
fn wrong_mapping(va: VirtAddr, frame: Pfn) -> Option<&'static str> {
    let par = translate::read_el1(va);
    let leaf = machine().tables.lock().leaf(va);
    if !KMAP.contains(va) {
        Some("outside its window")
    } else if par.page() != Some(frame.phys()) {
        Some("another frame")
    } else if par.memory_type() != Some(MemoryType::NormalWriteBack) {
        Some("another memory type")
    } else if leaf.and_then(|leaf| leaf.access()) != Some(Access::ReadWrite) {
        Some("other permissions")
    } else {
        None
    }
}

pub(super) fn shows_its_page() -> Outcome {
    let mut block = check_ok!(Pages::alloc(Gfp::KERNEL, 0));
    let frame = block.pfn();
    block.bytes().fill(0x5A);
    let mut page = check_ok!(LocalPage::map(&mut block));
    let va = page.va();
    let wrong = wrong_mapping(va, frame);
    check!(wrong.is_none(), "{va}: {wrong:?}");
    diagnostic(format_args!("{frame} at {va}: {}", translate::read_el1(va)));
    check!(
        page.iter().all(|byte| *byte == 0x5A),
        "the content is another"
    );
    page[PAGE_SIZE - 1] = 0xA5;
    let guard = probe::read_u8(va + PAGE_SIZE).err().map(|fault| fault.far);
    check!(guard == Some(va + PAGE_SIZE), "no guard page: {guard:?}");
    // So that every core's TLB has it.
    let reader = check_ok!(first_core_with(va));
    check!(reader.is_some(), "nobody can read {va}");
    for core in smp::online() {
        let read = check_ok!(smp::run_on(core, || probe::read_u8(va)));
        check!(read.is_ok(), "core {core} reads {read:?}");
    }
    drop(page);
    let last = block.bytes()[PAGE_SIZE - 1];
    check!(last == 0xA5, "what was written is {last:#x}");
    let reader = check_ok!(first_core_with(va));
    check!(reader.is_none(), "core {reader:?} still reads {va}");
    Ok(())
}

pub(super) fn shows_its_page_planted() -> Outcome {
    let frames = check_ok!(Frames::alloc(0));
    let frame = frames.range().start.pfn();
    // The last page of the window is no slot's.
    let va = VirtAddr::new(KMAP.end().get() - PAGE_SIZE);
    for (memory_type, access, what) in [
        (
            MemoryType::NormalNonCacheable,
            Access::ReadOnly,
            "another memory type",
        ),
        (
            MemoryType::NormalWriteBack,
            Access::ReadOnly,
            "other permissions",
        ),
    ] {
        let attributes = Attributes::new(memory_type, access);
        let plant = check_ok!(Plant::new(va, frames.range(), attributes, Level::L3));
        let wrong = wrong_mapping(va, frame);
        let other = wrong_mapping(va, frame + 1);
        let provoked = (memory_type == MemoryType::NormalNonCacheable).then(|| {
            let wrong = Wrong {
                kinds: &[Kind::Mismatched],
                place: "fault_probe_read_u8",
            };
            Provoked::begin_planted(format_args!("test=kmap"), wrong)
        });
        let reader = first_core_with(va);
        drop(provoked);
        let reader = check_ok!(reader);
        check_ok!(plant.remove());
        check!(wrong == Some(what), "{what} is taken for {wrong:?}");
        check!(other == Some("another frame"), "{other:?}");
        check!(reader.is_some(), "a live page is called gone");
    }
    let outside = wrong_mapping(plant::own_page(), frame);
    check!(outside == Some("outside its window"), "{outside:?}");
    Ok(())
}

pub(super) fn nest() -> Outcome {
    let mut blocks = heapless::Vec::<Pages, KMAP_SLOTS>::new();
    for number in 0..KMAP_SLOTS {
        let mut block = check_ok!(Pages::alloc(Gfp::KERNEL, 0));
        block.bytes().fill(number as u8);
        // As many as fit.
        let _ = blocks.push(block);
    }
    let mut one_more = check_ok!(Pages::alloc(Gfp::KERNEL, 0));
    let mut pages = heapless::Vec::<LocalPage<'_>, KMAP_SLOTS>::new();
    for (number, block) in blocks.iter_mut().enumerate() {
        let page = check_ok!(LocalPage::map(block));
        check!(
            !pages.iter().any(|other| other.va() == page.va()),
            "{} twice",
            page.va()
        );
        let first = page[0];
        check!(first == number as u8, "mapping {number} shows {first}");
        let _ = pages.push(page);
    }
    let core = PerCpu::current().index();
    let refused = LocalPage::map(&mut one_more).map(drop);
    check!(refused == Err(KmapError::NoSlot { core }), "{refused:?}");
    // The innermost goes first, and its address is the next one's.
    let innermost = pages.pop().map(|page| page.va());
    let again = check_ok!(LocalPage::map(&mut one_more)).va();
    check!(innermost == Some(again), "{again} after {innermost:?}");
    let below = pages.iter().position(|page| page[0] != page[PAGE_SIZE - 1]);
    check!(below.is_none(), "mapping {below:?} has changed");
    Ok(())
}

pub(super) fn per_core() -> Outcome {
    let mut block = check_ok!(Pages::alloc(Gfp::KERNEL, 0));
    let page = check_ok!(LocalPage::map(&mut block));
    let here = PerCpu::current().index();
    for core in smp::online().filter(|core| *core != here) {
        let mut block = check_ok!(Pages::alloc(Gfp::KERNEL, 0));
        let (va, wrong) = check_ok!(check_ok!(smp::run_on(core, || {
            let frame = block.pfn();
            LocalPage::map(&mut block).map(|page| (page.va(), wrong_mapping(page.va(), frame)))
        })));
        check!(va != page.va(), "core {core} uses {va} too");
        check!(wrong.is_none(), "core {core}, {va}: {wrong:?}");
    }
    Ok(())
}

/// Whether the interrupt handler got no page.
static REFUSED: AtomicBool = AtomicBool::new(false);

/// Maps a page of its own and writes to it.
static MAP_IN_INTERRUPT: InInterrupt<bool> = InInterrupt::new(|| {
    let Ok(mut block) = Pages::alloc(Gfp::ATOMIC, 0) else {
        REFUSED.store(true, Ordering::Relaxed);
        return false;
    };
    let frame = block.pfn();
    let right = match LocalPage::map(&mut block) {
        Ok(mut page) => {
            page.fill(0xEE);
            wrong_mapping(page.va(), frame).is_none()
        }
        Err(_) => false,
    };
    right && block.bytes().iter().all(|byte| *byte == 0xEE)
});

pub(super) fn in_interrupt() -> Outcome {
    let mut block = check_ok!(Pages::alloc(Gfp::KERNEL, 0));
    let frame = block.pfn();
    let mut page = check_ok!(LocalPage::map(&mut block));
    page.fill(0x11);
    let right = MAP_IN_INTERRUPT.run()?;
    check_served!(usize::from(REFUSED.swap(false, Ordering::Relaxed)));
    check!(right, "the handler's mapping is wrong");
    let wrong = wrong_mapping(page.va(), frame);
    check!(wrong.is_none(), "the task's, afterwards: {wrong:?}");
    let other = page.iter().position(|byte| *byte != 0x11);
    check!(other.is_none(), "byte {other:?} of the task's page changed");
    Ok(())
}

pub(super) fn types() -> Outcome {
    let Some(engine) = machine().engines.first() else {
        return Err(Stop::Skipped("no DMA engine"));
    };
    let coherent = check_ok!(machine().pool.alloc(engine.device(), PAGE_SIZE));
    // A refusal takes no slot.
    for number in 0..=KMAP_SLOTS {
        let refused = local::map_coherent(&coherent);
        let Err(KmapError::MemoryType(error @ MemoryTypeError::Conflict { .. })) = refused else {
            check!(false, "{refused:?}");
            return Ok(());
        };
        if number == 0 {
            diagnostic(format_args!("{error}"));
        }
    }
    Ok(())
}
