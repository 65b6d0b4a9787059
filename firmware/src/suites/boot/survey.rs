//! Where the memory map comes from, and whether it says what its source says.

use crate::check;
use crate::cmdline::CmdLine;
use crate::machine::machine;
use crate::report::{Outcome, diagnostic, failed};
use hal::addr::{PAGE_SIZE, PhysAddr, PhysRange};
use hal::layout::DIRECT_MAP_LIMIT;
use hal::mm::{self, AREA_ALIGN};
use hal::mmu::Level;

pub(super) fn source() -> Outcome {
    let machine = machine();
    match &machine.tree {
        Ok(tree) => diagnostic(format_args!("device tree of {} bytes", tree.size())),
        Err(fault) => diagnostic(format_args!("{fault}: the board's own map is used")),
    }
    check!(!machine.map.ram().is_empty(), "there is no RAM");
    check!(
        machine.tree.is_ok() || machine.description.ram.is_empty(),
        "a device tree that is not used describes memory"
    );
    Ok(())
}

/// The first page that one of `ram` and `source` has and the other has not, as far as the direct
/// map reaches. Both are looked at range by range, so that overlaps do not matter.
fn first_difference(ram: &[PhysRange], source: &[PhysRange]) -> Option<PhysAddr> {
    let limited = |range: &PhysRange| {
        let end = range.end.min(DIRECT_MAP_LIMIT).align_down(PAGE_SIZE);
        let start = range.start.get().next_multiple_of(PAGE_SIZE as u64);
        PhysRange::new(PhysAddr::new(start), end)
    };
    let uncovered = |range: &PhysRange, by: &[PhysRange]| {
        let range = limited(range);
        let mut at = range.start;
        while at < range.end {
            match by.iter().map(limited).find(|other| other.contains(at)) {
                Some(other) => at = other.end,
                None => return Some(at),
            }
        }
        None
    };
    ram.iter()
        .find_map(|range| uncovered(range, source))
        .or_else(|| source.iter().find_map(|range| uncovered(range, ram)))
}

fn said() -> &'static [PhysRange] {
    let machine = machine();
    if machine.tree.is_ok() {
        &machine.description.ram
    } else {
        machine.board.built_in_ram()
    }
}

pub(super) fn memory_map() -> Outcome {
    let map = &machine().map;
    let difference = first_difference(map.ram(), said());
    // What was put right is said in the notes at the start of the report.
    check!(
        difference.is_none() || !map.notes().is_empty(),
        "{difference:?} is in one of the map and its source only, and no note says why"
    );
    let free = map.free_ranges();
    for range in free {
        let owner = map
            .reserved()
            .iter()
            .find(|owner| owner.range.overlaps(&range));
        check!(owner.is_none(), "{range} is free and belongs to {owner:?}");
    }
    Ok(())
}

pub(super) fn memory_map_planted() -> Outcome {
    let Some(&first) = machine().map.ram().first() else {
        return failed(format_args!("there is no RAM"));
    };
    let cut = first.end.get() - PAGE_SIZE as u64;
    let short = [PhysRange::new(first.start, PhysAddr::new(cut))];
    for (ram, source) in [(&[first], &short), (&short, &[first])] {
        let found = first_difference(ram, source);
        check!(
            found == Some(PhysAddr::new(cut)),
            "a missing page is not found: {found:?}"
        );
    }
    Ok(())
}

/// What the coherent pool and the default contiguous area take of RAM where nobody asks for another
/// size: a 64th, 2 to 16 MiB, and a 16th, at most 64 MiB.
pub(super) fn shares() -> Outcome {
    const MIB: u64 = 1 << 20;
    let machine = machine();
    let cmdline = CmdLine::parse(machine.description.bootargs.unwrap_or_default());
    let ram = machine.map.ram_size();
    let pool = machine.pool.frames().size();
    let area = mm::default_cma().map_or(0, |cma| cma.area().frames.size());
    diagnostic(format_args!(
        "of {ram:#x} bytes the coherent pool has {pool:#x}, the default area {area:#x}"
    ));
    if cmdline.coherent_pool.is_none() {
        let usual = (ram / 64).clamp(2 * MIB, 16 * MIB);
        let usual = usual.next_multiple_of(Level::L2.size() as u64);
        check!(pool == usual, "the pool should have {usual:#x}");
    }
    let by_tree = machine.description.cma.iter().any(|node| node.is_default);
    if cmdline.cma.is_none() && !by_tree {
        let usual = (ram / 16).min(64 * MIB).next_multiple_of(AREA_ALIGN);
        check!(area == usual, "the area should have {usual:#x}");
    }
    Ok(())
}
