//! Areas of existing pages, areas that grow, and the list of all areas.

use super::is_gone;
use crate::machine::machine;
use crate::memory::{Area, Pages, Remapped};
use crate::report::{Outcome, Stop, diagnostic};
use crate::{check, check_ok};
use hal::addr::PAGE_SIZE;
use hal::arch::translate;
use hal::mm::{self, AreaKind, Gfp, MemoryTypeError, Protection, VmallocError};
use hal::mmu::{Access, MemoryType};

const ORDER: u32 = 2;

pub(super) fn order() -> Outcome {
    let block = check_ok!(Pages::alloc(Gfp::KERNEL, ORDER));
    let mapped = check_ok!(Remapped::backwards(&block, Protection::ReadWrite));
    let pages = 1 << ORDER;
    for page in 0..pages {
        let va = mapped.va() + page * PAGE_SIZE;
        let wanted = block.pfn() + (pages - 1 - page) as u32;
        let at = translate::read_el1(va).page();
        check!(at == Some(wanted.phys()), "{va} leads to {at:?}");
        check!(
            mm::vmalloc_to_page(va) == Ok(wanted),
            "{va} is not {wanted}"
        );
    }
    let end = mapped.va() + pages * PAGE_SIZE;
    check!(is_gone(end), "no guard page at {end}");
    let wrong = mapped.free_as_area();
    check!(
        matches!(
            wrong,
            Err(VmallocError::WrongKind {
                kind: AreaKind::Vmap,
                ..
            })
        ),
        "{wrong:?}"
    );
    let va = mapped.va();
    check_ok!(mapped.unmap());
    check!(is_gone(va), "{va} still answers after vunmap");
    Ok(())
}

/// Checks what the MMU and the tables say of a mapping.
fn judge(mapped: &Remapped<'_>, memory_type: MemoryType, access: Access) -> Outcome {
    let par = translate::read_el1(mapped.va()).memory_type();
    let leaf = machine().tables.lock().leaf(mapped.va());
    let found = leaf.and_then(|leaf| leaf.access());
    let executable = leaf.is_none_or(|leaf| leaf.descriptor().is_executable());
    check!(
        par == Some(memory_type) && found == Some(access) && !executable,
        "{par:?} {found:?}, {memory_type} {access} wanted, executable: {executable}"
    );
    Ok(())
}

pub(super) fn attributes() -> Outcome {
    let block = check_ok!(Pages::alloc(Gfp::KERNEL, ORDER));
    for (protection, access) in [
        (Protection::ReadWrite, Access::ReadWrite),
        (Protection::ReadOnly, Access::ReadOnly),
    ] {
        let mapped = check_ok!(Remapped::backwards(&block, protection));
        judge(&mapped, MemoryType::NormalWriteBack, access)?;
    }
    Ok(())
}

pub(super) fn not_cacheable() -> Outcome {
    let Some(engine) = machine().engines.first() else {
        return Err(Stop::Skipped("no DMA engine"));
    };
    let coherent = check_ok!(machine().pool.alloc(engine.device(), PAGE_SIZE));
    let mapped = check_ok!(Remapped::of_coherent(&coherent, Protection::NonCacheable));
    judge(&mapped, MemoryType::NormalNonCacheable, Access::ReadWrite)
}

pub(super) fn types() -> Outcome {
    let block = check_ok!(Pages::alloc(Gfp::KERNEL, 0));
    let refused = Remapped::backwards(&block, Protection::NonCacheable).map(drop);
    let Err(VmallocError::MemoryType(MemoryTypeError::Conflict { pfn, .. })) = refused else {
        check!(false, "{refused:?}");
        return Ok(());
    };
    check!(
        pfn == block.pfn(),
        "{pfn} is named, {} refused",
        block.pfn()
    );
    let Some(engine) = machine().engines.first() else {
        return Err(Stop::Skipped("no DMA engine"));
    };
    let coherent = check_ok!(machine().pool.alloc(engine.device(), PAGE_SIZE));
    let refused = Remapped::of_coherent(&coherent, Protection::ReadWrite).map(drop);
    let named = matches!(refused, Err(VmallocError::MemoryType(_)));
    check!(named, "pool memory as write-back: {refused:?}");
    Ok(())
}

pub(super) fn resize() -> Outcome {
    let gfp = Gfp::KERNEL | Gfp::ZERO;
    let mut area = check_ok!(Area::alloc_with(PAGE_SIZE, gfp));
    area.fill(0x5A);
    let before = area.va();
    check_ok!(area.resize(100, gfp));
    check!(area.va() == before, "moved although it shrank");
    let kept = area[..100].iter().all(|byte| *byte == 0x5A);
    let rest = area[100..].iter().all(|byte| *byte == 0);
    check!(
        kept && rest,
        "shrinking: content kept {kept}, rest zero {rest}"
    );
    check_ok!(area.resize(5 * PAGE_SIZE, gfp));
    let kept = area[..100].iter().all(|byte| *byte == 0x5A);
    let rest = area[100..].iter().all(|byte| *byte == 0);
    check!(
        kept && rest,
        "growing: content kept {kept}, rest zero {rest}"
    );
    let refused = area.resize(usize::MAX, gfp);
    check!(
        matches!(refused, Err(VmallocError::TooLarge { .. })),
        "{refused:?}"
    );
    check!(area[99] == 0x5A, "a refusal took the content");
    Ok(())
}

pub(super) fn info() -> Outcome {
    let area = check_ok!(Area::alloc((2 << 20) + PAGE_SIZE));
    let block = check_ok!(Pages::alloc(Gfp::KERNEL, ORDER));
    let mapped = check_ok!(Remapped::backwards(&block, Protection::ReadOnly));
    let mut found = [false; 3];
    for row in mm::vmallocinfo() {
        if row.va == area.va() && row.kind == AreaKind::Vmalloc && row.size == area.len() {
            found[0] = true;
            diagnostic(format_args!("{row}"));
        } else if row.va == mapped.va() && row.kind == AreaKind::Vmap && !row.freed {
            found[1] = true;
            diagnostic(format_args!("{row}"));
        } else if row.kind == AreaKind::Ioremap && !found[2] {
            found[2] = true;
            diagnostic(format_args!("{row}"));
        }
    }
    check!(found == [true; 3], "vmalloc, vmap, ioremap: {found:?}");
    Ok(())
}
