//! `ioremap`: registers by kind, conflicts by name.

use super::{plant, probe};
use crate::machine::machine;
use crate::memory::Registers;
use crate::report::{Outcome, Suite, Test, diagnostic};
use crate::{check, check_ok};
use hal::addr::{PAGE_SIZE, PhysAddr, PhysRange, VirtAddr};
use hal::arch::translate;
use hal::layout::IOREMAP;
use hal::mm::{self, IoKind, IoremapError, ResourceError};
use hal::mmu::{Access, MemoryType};

/// The suite.
pub(super) const SUITE: Suite = Suite {
    name: "ioremap",
    tests: &[
        test("each_kind_has_its_type", kinds),
        test("each_kind_has_its_type_planted", kinds_planted),
        test("an_id_register_reads_through_a_mapping", id_register),
        test("an_unaligned_range_keeps_its_offset", unaligned),
        test(
            "an_unaligned_range_keeps_its_offset_planted",
            unaligned_planted,
        ),
        test("ram_nothing_and_wrapping_ranges_are_refused", refused),
        test("one_page_has_one_type_at_a_time", types),
        test(
            "an_unmapped_page_faults_and_is_not_unmapped_twice",
            unmapped,
        ),
        test(
            "an_unmapped_page_faults_and_is_not_unmapped_twice_planted",
            unmapped_planted,
        ),
        test("a_second_claim_names_the_holder", claims),
    ],
};

const fn test(name: &'static str, run: fn() -> Outcome) -> Test {
    Test { name, run }
}

/// From the console's registers to others nobody maps; they are not accessed.
const ELSEWHERE: usize = 0x1_0000;

fn page_at(start: PhysAddr) -> PhysRange {
    PhysRange::new(start, start + PAGE_SIZE)
}

fn uart() -> PhysRange {
    page_at(machine().board.uart().base)
}

fn elsewhere() -> PhysRange {
    page_at(uart().start + ELSEWHERE)
}

/// What is wrong with the mapping of registers at `va` by what the MMU and the tables say of it.
fn wrong_kind(va: VirtAddr, kind: IoKind) -> Option<&'static str> {
    let leaf = machine().tables.lock().leaf(va);
    if !IOREMAP.contains(va) {
        Some("outside the window")
    } else if translate::read_el1(va).memory_type() != Some(kind.memory_type()) {
        Some("another memory type")
    } else if leaf.and_then(|leaf| leaf.access()) != Some(Access::ReadWrite) {
        Some("other permissions")
    } else {
        None
    }
}

const KINDS: [(IoKind, MemoryType); 3] = [
    (IoKind::Posted, MemoryType::DeviceNgnre),
    (IoKind::NonPosted, MemoryType::DeviceNgnrne),
    (IoKind::WriteCombining, MemoryType::NormalNonCacheable),
];

fn kinds() -> Outcome {
    for (kind, memory_type) in KINDS {
        check!(
            kind.memory_type() == memory_type,
            "{kind:?} is {}",
            kind.memory_type()
        );
        let registers = check_ok!(Registers::map(elsewhere(), kind));
        let wrong = wrong_kind(registers.va(), kind);
        let par = translate::read_el1(registers.va());
        diagnostic(format_args!("{kind:?}: {par} by PAR_EL1"));
        check!(wrong.is_none(), "{kind:?}: {wrong:?}, {par}");
    }
    Ok(())
}

fn kinds_planted() -> Outcome {
    for (mapped, _) in KINDS {
        let registers = check_ok!(Registers::map(elsewhere(), mapped));
        for (wanted, _) in KINDS {
            let wrong = wrong_kind(registers.va(), wanted);
            let right = wanted == mapped;
            check!(
                wrong.is_none() == right,
                "{mapped:?} taken for {wanted:?}: {wrong:?}"
            );
        }
    }
    let outside = wrong_kind(plant::own_page(), IoKind::Posted);
    check!(outside == Some("outside the window"), "{outside:?}");
    Ok(())
}

/// PL011 `UARTPeriphID0` (DDI 0183G 3.3.15): the low byte of the part number, 0x011.
const PERIPH_ID0: usize = 0xFE0;

fn id_register() -> Outcome {
    const PART: u64 = 0x11;
    let registers = check_ok!(Registers::map(uart(), IoKind::Posted));
    let id = check_ok!(probe::read_u32(registers.va() + PERIPH_ID0).map_err(probe::in_words));
    check!(id & 0xFF == PART, "UARTPeriphID0 reads {id:#x}");
    Ok(())
}

fn unaligned() -> Outcome {
    let start = uart().start + 0xFE4;
    let range = PhysRange::new(start, start + PAGE_SIZE);
    let registers = check_ok!(Registers::map(range, IoKind::Posted));
    let va = registers.va();
    check!(va.page_offset() == 0xFE4, "{va} lost the offset");
    for offset in [0, PAGE_SIZE] {
        let at = translate::read_el1(va + offset).page();
        let wanted = (start + offset).align_down(PAGE_SIZE);
        check!(at == Some(wanted), "{offset:#x} leads to {at:?}");
    }
    let guard = va.align_down(PAGE_SIZE) + 2 * PAGE_SIZE;
    check!(is_gone(guard), "no guard page at {guard}");
    Ok(())
}

/// Whether a read of `va`, a register without side effects or nothing, faults at exactly `va`.
fn is_gone(va: VirtAddr) -> bool {
    probe::read_u32(va).is_err_and(|fault| fault.far == va)
}

/// `UARTPeriphID0`, mapped: no guard, not gone, and not where another offset leads.
fn unaligned_planted() -> Outcome {
    let registers = check_ok!(Registers::map(uart(), IoKind::Posted));
    let va = registers.va();
    let at = translate::read_el1(va).page();
    check!(
        at != Some(uart().start + PAGE_SIZE) && at.is_some(),
        "{va} is taken for the next page"
    );
    check!(!is_gone(va + PERIPH_ID0), "a live page is called a guard");
    Ok(())
}

fn refused() -> Outcome {
    let map = |range| Registers::map(range, IoKind::Posted).map(drop);
    let Some(ram) = machine().map.ram().first().copied() else {
        check!(false, "no RAM");
        return Ok(());
    };
    let first = page_at(ram.start);
    check!(
        map(first) == Err(IoremapError::IsRam(first)),
        "RAM is mapped"
    );
    let nothing = PhysRange::new(uart().start, uart().start);
    check!(
        map(nothing) == Err(IoremapError::BadRange(nothing)),
        "nothing is mapped"
    );
    let top = PhysRange::new(PhysAddr::new(u64::MAX - 8), PhysAddr::new(u64::MAX));
    check!(
        map(top) == Err(IoremapError::BadRange(top)),
        "a range that wraps is mapped"
    );
    Ok(())
}

fn types() -> Outcome {
    let registers = check_ok!(Registers::map(elsewhere(), IoKind::Posted));
    let other = Registers::map(elsewhere(), IoKind::WriteCombining).map(drop);
    let Err(IoremapError::OtherType { range, memory_type }) = other else {
        check!(false, "{other:?}");
        return Ok(());
    };
    check!(
        range == elsewhere() && memory_type == MemoryType::DeviceNgnre,
        "{range} as {memory_type} is named"
    );
    let same = check_ok!(Registers::map(elsewhere(), IoKind::Posted));
    drop((same, registers));
    // What was unmapped no longer counts, flushed or not.
    drop(check_ok!(Registers::map(
        elsewhere(),
        IoKind::WriteCombining
    )));
    Ok(())
}

fn unmapped() -> Outcome {
    let registers = check_ok!(Registers::map(uart(), IoKind::Posted));
    let va = registers.va() + PERIPH_ID0;
    check!(probe::read_u32(va).is_ok(), "{va} does not answer");
    let (first, twice) = registers.unmap_twice();
    check_ok!(first);
    check!(
        matches!(twice, Err(IoremapError::NotMapped(_))),
        "{twice:?}"
    );
    mm::vm_unmap_aliases();
    check!(is_gone(va), "{va} answers after the purge");
    Ok(())
}

fn unmapped_planted() -> Outcome {
    let registers = check_ok!(Registers::map(uart(), IoKind::Posted));
    let va = registers.va() + PERIPH_ID0;
    mm::vm_unmap_aliases();
    check!(!is_gone(va), "{va} lives and is called gone");
    // Of two mappings of a page one goes, and the other stays.
    let other = check_ok!(Registers::map(uart(), IoKind::Posted));
    let (first, _) = other.unmap_twice();
    check_ok!(first);
    mm::vm_unmap_aliases();
    check!(!is_gone(va), "{va} went with another mapping");
    Ok(())
}

fn claims() -> Outcome {
    let range = elsewhere();
    let first = check_ok!(mm::request_mem_region(range, "first"));
    let second = mm::request_mem_region(page_at(range.start), "second").map(drop);
    let Err(error @ ResourceError::Busy { holder, held, .. }) = second else {
        check!(false, "{second:?}");
        return Ok(());
    };
    diagnostic(format_args!("{error}"));
    check!(holder == "first" && held == range, "{holder} has {held}");
    drop(first);
    drop(check_ok!(mm::request_mem_region(range, "second")));
    // The drivers have claimed what they use.
    let taken = mm::request_mem_region(uart(), "second").map(drop);
    let Err(error @ ResourceError::Busy { holder, .. }) = taken else {
        check!(false, "the console's registers: {taken:?}");
        return Ok(());
    };
    diagnostic(format_args!("{error}"));
    check!(holder == "console", "{holder} has the console's registers");
    Ok(())
}
