//! Translation tables that change while other cores use them.

use super::{Visit, check};
use hal::addr::{PAGE_SIZE, PhysAddr, PhysRange, VirtAddr};
use hal::arch::barrier;
use hal::layout::{self, IOREMAP, VMALLOC, host};
use hal::mm::{IoKind, Ioremap};
use hal::mmu::{
    Access, Attributes, KernelMapper, KernelTableMemory, Level, Mapper, MemoryType, Quarantine,
    Stale,
};
use hal::sync::IrqLock;
use hal::testkit::{self, Buffer, CORES, Machine, Master, Wrong, bytes_of};

/// Pages in a mapping.
const PAGES: usize = 3;

const SIZE: usize = PAGES * PAGE_SIZE;

/// One page more than a table holds, so many that all translations are invalidated at once.
const MANY: usize = Level::L2.size() / PAGE_SIZE + 1;

const CACHED: Attributes = Attributes::new(MemoryType::NormalWriteBack, Access::ReadWrite);

const OLD: &str = "a core uses an old translation";
const REFUSED: Wrong = Wrong("the tables refused");

/// Where programs map.
const VA: VirtAddr = VMALLOC.base;

/// Where they map too: served by another table of level 2.
const OTHER: VirtAddr = VirtAddr::new(VA.get() + Level::L1.size());

/// Frames that programs map; nobody accesses them.
fn frames(number: usize) -> PhysRange {
    let start = PhysAddr::new(0x8000_0000) + number * Level::L2.size();
    PhysRange::new(start, start + SIZE)
}

pub(crate) fn for_each(visit: Visit<'_>) {
    visit_one(visit, "map and unmap", map_and_unmap);
    visit_one(visit, "permissions", |machine, mapper| {
        permissions(machine, mapper, SIZE)
    });
    visit_one(visit, "permissions of many pages", |machine, mapper| {
        permissions(machine, mapper, MANY * PAGE_SIZE)
    });
    visit_one(visit, "shared flush", shared_flush);
    visit_one(visit, "block in place of a table", block);
    retype(visit);
    ioremap(visit);
}

/// Device registers that come and go in one window.
fn ioremap(visit: Visit<'_>) {
    const WATCHED: usize = 8;

    let pages = (0..WATCHED).map(|page| IOREMAP.base + page * PAGE_SIZE);
    let program = Program::with_pages(pages.collect());
    visit("ioremap", &program.machine, &mut |machine| {
        let tables = Box::into_raw(Box::new(IrqLock::new(program.mapper())));
        // SAFETY: nothing else uses the tree, no range of the program holds RAM, and the window is
        // gone before the lock is.
        let result = unsafe {
            let window = Box::new(Ioremap::new(&*tables, |_| false));
            registers(machine, &window)
        };
        // SAFETY: the box was made above, and its last borrower is gone.
        drop(unsafe { Box::from_raw(tables) });
        result
    });
}

fn registers(machine: &Machine, window: &Ioremap) -> Result<(), Wrong> {
    let mut used = Vec::new();
    for (round, kind) in [(0, IoKind::Posted), (1, IoKind::WriteCombining)] {
        let va = window.ioremap(frames(round), kind).map_err(|_| REFUSED)?;
        used.push(va);
        for offset in (0..SIZE).step_by(PAGE_SIZE) {
            for core in 0..CORES {
                let found = machine.translate(core, va + offset);
                let is_right = found.is_some_and(|found| {
                    let memory_type = Some(kind.memory_type());
                    found.pa == frames(round).start + offset && found.memory_type == memory_type
                });
                check(is_right, OLD)?;
            }
        }
        // SAFETY: nothing refers to the registers, which no machine has.
        unsafe { window.iounmap(va) }.map_err(|_| REFUSED)?;
        window.vm_unmap_aliases();
        for core in 0..CORES {
            for offset in (0..SIZE).step_by(PAGE_SIZE) {
                check(machine.translate(core, va + offset).is_none(), OLD)?;
            }
        }
    }
    check(used[0] == used[1], "the addresses were not used again")
}

/// Memory that becomes non-cacheable, and cached again.
fn retype(visit: Visit<'_>) {
    let program = Program::new();
    let machine = &program.machine;
    let master = machine.master();
    let mut page = machine.buffer(PAGE_SIZE);
    visit("to non-cacheable", machine, &mut |machine| {
        let mut mapper = program.mapper();
        to_non_cacheable(machine, &mut mapper, &master, &mut page, OTHER)
    });

    let program = Program::new();
    let machine = &program.machine;
    let master = machine.master();
    let mut page = machine.buffer_as(PAGE_SIZE, testkit::Access::Uncached);
    visit("to write-back", machine, &mut |machine| {
        let mut mapper = program.mapper();
        map_page(&mut mapper, &page, MemoryType::NormalNonCacheable)?;
        expect_at(machine, VA, &page, MemoryType::NormalNonCacheable)?;
        to_write_back(machine, &mut mapper, &master, &mut page, OTHER)
    });

    let program = Program::new();
    let machine = &program.machine;
    let master = machine.master();
    let mut page = machine.buffer(PAGE_SIZE);
    visit("retyped in place", machine, &mut |machine| {
        let mut mapper = program.mapper();
        to_non_cacheable(machine, &mut mapper, &master, &mut page, VA)?;
        to_write_back(machine, &mut mapper, &master, &mut page, VA)
    });
}

/// A machine, and room for a tree of tables.
struct Program {
    machine: Machine,
    ram: PhysRange,
}

impl Program {
    fn new() -> Self {
        let pages = (0..PAGES).map(|page| VA + page * PAGE_SIZE);
        Self::with_pages(pages.chain([OTHER]).collect())
    }

    fn with_pages(pages: Vec<VirtAddr>) -> Self {
        const TABLES: usize = 6;

        let machine = Machine::new();
        let ram = host::ram(((TABLES + 1) * PAGE_SIZE) as u64, PAGE_SIZE as u64);
        // SAFETY: the tables are this program's, in pretended RAM for good.
        unsafe { machine.attach(ram.start, pages) };
        Self { machine, ram }
    }

    /// An empty tree, in place of the one of the last run.
    fn mapper(&self) -> KernelMapper {
        let Self { ram, .. } = self;
        let first = layout::phys_to_virt(ram.start);
        // SAFETY: the RAM is this program's, and no mapper of its last run is used any more.
        unsafe {
            first.as_ptr::<u8>().write_bytes(0, ram.size() as usize);
            let nowhere = PhysRange::new(PhysAddr::new(0), PhysAddr::new(0));
            let reserve = PhysRange::new(ram.start + PAGE_SIZE, ram.end);
            let memory = KernelTableMemory::new(nowhere, VirtAddr::new(0), reserve);
            Mapper::new(ram.start, memory)
        }
    }
}

fn visit_one(
    visit: Visit<'_>,
    name: &'static str,
    run: fn(&Machine, &mut KernelMapper) -> Result<(), Wrong>,
) {
    let program = Program::new();
    visit(name, &program.machine, &mut |machine| {
        run(machine, &mut program.mapper())
    });
}

/// Whether all cores use `frames` for the whole range, or nothing.
fn expect(machine: &Machine, frames: Option<PhysRange>, access: Access) -> Result<(), Wrong> {
    for offset in (0..SIZE).step_by(PAGE_SIZE) {
        for core in 0..CORES {
            let found = machine.translate(core, VA + offset);
            let is_right = match (found, frames) {
                (None, None) => true,
                (Some(found), Some(frames)) => {
                    found.pa == frames.start + offset && found.access == Some(access)
                }
                _ => false,
            };
            check(is_right, OLD)?;
        }
    }
    Ok(())
}

fn map(mapper: &mut KernelMapper, frames: PhysRange) -> Result<(), Wrong> {
    // SAFETY: nothing uses the tree.
    unsafe { mapper.map(VA, frames, CACHED, Level::L2) }.map_err(|_| REFUSED)
}

/// The same addresses lead here, nowhere, and there.
fn map_and_unmap(machine: &Machine, mapper: &mut KernelMapper) -> Result<(), Wrong> {
    for round in 0..2 {
        map(mapper, frames(round))?;
        expect(machine, Some(frames(round)), Access::ReadWrite)?;
        // SAFETY: as above.
        unsafe { mapper.unmap(VA, SIZE) }.map_err(|_| REFUSED)?;
        expect(machine, None, Access::ReadWrite)?;
    }
    Ok(())
}

fn permissions(machine: &Machine, mapper: &mut KernelMapper, size: usize) -> Result<(), Wrong> {
    let start = frames(0).start;
    let range = PhysRange::new(start, start + size);
    // SAFETY: nothing uses the tree.
    unsafe { mapper.map(VA, range, CACHED, Level::L3) }.map_err(|_| REFUSED)?;
    expect(machine, Some(frames(0)), Access::ReadWrite)?;
    // SAFETY: as above.
    unsafe { mapper.protect(VA, size, Access::ReadOnly) }.map_err(|_| REFUSED)?;
    expect(machine, Some(frames(0)), Access::ReadOnly)
}

/// Ranges that leave the TLBs together, before their addresses are used again.
fn shared_flush(machine: &Machine, mapper: &mut KernelMapper) -> Result<(), Wrong> {
    let mut waiting = Quarantine::<usize, 4>::new();
    map(mapper, frames(0))?;
    expect(machine, Some(frames(0)), Access::ReadWrite)?;
    for page in 0..PAGES {
        let mut stale = Stale::empty(VA + page * PAGE_SIZE);
        // SAFETY: nothing uses the tree.
        unsafe { mapper.retire(&mut stale, PAGE_SIZE) }.map_err(|_| REFUSED)?;
        waiting.push(stale, page).map_err(|_| REFUSED)?;
    }
    waiting.flush();
    expect(machine, None, Access::ReadWrite)?;
    while let Some((mut flushed, _)) = waiting.pop() {
        while let Ok(Some(_)) = mapper.reap(&mut flushed) {}
    }
    map(mapper, frames(1))?;
    expect(machine, Some(frames(1)), Access::ReadWrite)
}

/// An empty table makes way for a block, and is used elsewhere.
fn block(machine: &Machine, mapper: &mut KernelMapper) -> Result<(), Wrong> {
    map(mapper, frames(0))?;
    expect(machine, Some(frames(0)), Access::ReadWrite)?;
    // SAFETY: nothing uses the tree.
    unsafe { mapper.unmap(VA, SIZE) }.map_err(|_| REFUSED)?;
    expect(machine, None, Access::ReadWrite)?;
    let start = frames(1).start;
    let whole = PhysRange::new(start, start + Level::L2.size());
    // SAFETY: as above.
    unsafe { mapper.map(VA, whole, CACHED, Level::L2) }.map_err(|_| REFUSED)?;
    expect(machine, Some(frames(1)), Access::ReadWrite)?;
    // The table serves other addresses now.
    // SAFETY: as above.
    unsafe { mapper.map(OTHER, frames(2), CACHED, Level::L3) }.map_err(|_| REFUSED)?;
    for core in 0..CORES {
        let found = machine.translate(core, OTHER).map(|found| found.pa);
        check(found == Some(frames(2).start), OLD)?;
    }
    expect(machine, Some(frames(1)), Access::ReadWrite)
}

/// Bytes in a line.
const LINE: usize = 64;

/// Whether on every core `va` leads to `page`, of the type, and the other address nowhere.
fn expect_at(
    machine: &Machine,
    va: VirtAddr,
    page: &Buffer,
    memory_type: MemoryType,
) -> Result<(), Wrong> {
    let other = if va == VA { OTHER } else { VA };
    for core in 0..CORES {
        check(machine.translate(core, other).is_none(), OLD)?;
        let found = machine.translate(core, va);
        let is_moved = found
            .is_some_and(|found| found.pa == page.pa() && found.memory_type == Some(memory_type));
        check(is_moved, "the memory is not where it was moved to")?;
    }
    Ok(())
}

fn map_page(mapper: &mut KernelMapper, page: &Buffer, as_type: MemoryType) -> Result<(), Wrong> {
    let range = PhysRange::new(page.pa(), page.pa() + PAGE_SIZE);
    let attributes = Attributes::new(as_type, Access::ReadWrite);
    // SAFETY: the page is the program's and is mapped here only.
    unsafe { mapper.map(VA, range, attributes, Level::L3) }.map_err(|_| REFUSED)
}

/// Content survives, and from then on neither side sees a cache.
fn to_non_cacheable(
    machine: &Machine,
    mapper: &mut KernelMapper,
    master: &Master,
    page: &mut Buffer,
    new: VirtAddr,
) -> Result<(), Wrong> {
    let wanted = MemoryType::NormalNonCacheable;
    map_page(mapper, page, MemoryType::NormalWriteBack)?;
    expect_at(machine, VA, page, MemoryType::NormalWriteBack)?;
    page.fill(1);
    // SAFETY: the page is the program's, which refers to it only behind the call.
    unsafe { mapper.change_type(VA, new, PAGE_SIZE, wanted) }.map_err(|_| REFUSED)?;
    expect_at(machine, new, page, wanted)?;
    let addr = master.device().dma_addr(page.pa(), PAGE_SIZE).unwrap();
    let before = bytes_of(1, PAGE_SIZE);
    for line in (0..PAGE_SIZE).step_by(LINE) {
        let seen: [u8; LINE] = master.read(addr + line);
        check(seen == before[line..line + LINE], "the content is lost")?;
        master.write(addr + line, &bytes_of(2, 8));
    }
    barrier::dmb_oshld();
    for line in page.bytes().chunks(LINE) {
        check(
            line[..8] == bytes_of(2, 8),
            "a line of before hides what the device wrote",
        )?;
    }
    Ok(())
}

/// What was stored past the cache is what the cache fetches, and what masters see.
fn to_write_back(
    machine: &Machine,
    mapper: &mut KernelMapper,
    master: &Master,
    page: &mut Buffer,
    new: VirtAddr,
) -> Result<(), Wrong> {
    let wanted = MemoryType::NormalWriteBack;
    page.fill(3);
    // SAFETY: as above.
    unsafe { mapper.change_type(VA, new, PAGE_SIZE, wanted) }.map_err(|_| REFUSED)?;
    expect_at(machine, new, page, wanted)?;
    let addr = master.device().dma_addr(page.pa(), PAGE_SIZE).unwrap();
    let stored = bytes_of(3, PAGE_SIZE);
    for line in (0..PAGE_SIZE).step_by(LINE) {
        let seen: [u8; LINE] = master.read(addr + line);
        check(seen == stored[line..line + LINE], "a store never arrived")?;
    }
    check(
        page.is_filled(3),
        "the core reads something else than it stored",
    )
}
