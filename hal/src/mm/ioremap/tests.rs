use super::*;
use crate::addr::PhysAddr;
use crate::mmu::kernel::scratch_mapper;

const RAM: PhysRange = PhysRange::new(PhysAddr::new(0x4000_0000), PhysAddr::new(0x8000_0000));
const UART: PhysAddr = PhysAddr::new(0x0900_0000);

fn is_ram(range: PhysRange) -> bool {
    RAM.overlaps(&range)
}

fn scratch(tables: usize) -> Ioremap {
    let mapper = Box::leak(Box::new(IrqLock::new(scratch_mapper(tables))));
    // SAFETY: nobody else has the tables.
    unsafe { Ioremap::new(mapper, is_ram) }
}

fn range(start: u64, size: u64) -> PhysRange {
    PhysRange::from_size(PhysAddr::new(start), size).unwrap()
}

#[test]
fn each_kind_gets_its_type_and_no_execution() {
    let io = scratch(2);
    let kinds = [IoKind::Posted, IoKind::NonPosted, IoKind::WriteCombining];
    let types = [0x04, 0x00, 0x44];
    for (kind, attr) in kinds.into_iter().zip(types) {
        let va = io.ioremap(range(UART.get(), 0x1000), kind).unwrap();
        assert!(IOREMAP.contains(va));
        let leaf = io.tables.lock().leaf(va).unwrap();
        assert_eq!(leaf.pa, UART);
        assert_eq!(leaf.memory_type().map(MemoryType::attr), Some(attr));
        assert_eq!(leaf.access(), Some(Access::ReadWrite));
        // SAFETY: the mapping is never used.
        unsafe { io.iounmap(va) }.unwrap();
        assert_eq!(io.tables.lock().leaf(va), None);
    }
}

#[test]
fn an_unaligned_range_keeps_its_offset_and_gets_both_pages() {
    let io = scratch(2);
    let va = io.ioremap(range(0x0900_0FFE, 4), IoKind::Posted).unwrap();
    assert_eq!(va.page_offset(), 0xFFE);
    let tables = io.tables.lock();
    let translate = |va| tables.leaf(va).and_then(|leaf| leaf.translate(va));
    assert_eq!(translate(va), Some(PhysAddr::new(0x0900_0FFE)));
    assert_eq!(translate(va + 3), Some(PhysAddr::new(0x0900_1001)));
    assert_eq!(translate(va + 2 + PAGE_SIZE), None, "the guard page");
    drop(tables);
    // SAFETY: the mapping is never used.
    unsafe { io.iounmap(va) }.unwrap();
}

#[test]
fn a_large_aligned_range_is_mapped_by_blocks() {
    let io = scratch(1);
    let ecam = range(0x40_1000_0000, 256 << 20);
    let va = io.ioremap(ecam, IoKind::Posted).unwrap();
    let run = io.tables.lock().first_run(va, IOREMAP.end()).unwrap();
    assert_eq!((run.level, run.frames()), (Level::L2, ecam));
}

#[test]
fn ram_nothing_and_wrapping_ranges_are_refused() {
    let io = scratch(2);
    let posted = |range| io.ioremap(range, IoKind::Posted);
    for ram in [
        range(RAM.start.get(), 1),
        // Not itself RAM, but the page is.
        range(RAM.start.get() - 4, 8),
        range(0, 1 << 32),
    ] {
        assert_eq!(posted(ram), Err(IoremapError::IsRam(ram)));
    }
    let empty = range(UART.get(), 0);
    assert_eq!(posted(empty), Err(IoremapError::BadRange(empty)));
    let top = PhysRange::new(PhysAddr::new(u64::MAX - 8), PhysAddr::new(u64::MAX));
    assert_eq!(posted(top), Err(IoremapError::BadRange(top)));
    let backwards = PhysRange::new(UART + 1, UART);
    assert_eq!(posted(backwards), Err(IoremapError::BadRange(backwards)));
    let beyond = range(1 << 40, 1);
    assert!(matches!(
        posted(beyond),
        Err(IoremapError::Map(MapError::OutsidePhysical(_)))
    ));
    assert_eq!(io.areas.lock().va.iter().count(), 0);
}

#[test]
fn one_page_has_one_type_at_a_time() {
    let io = scratch(2);
    let page = range(UART.get(), 0x1000);
    let first = io.ioremap(page, IoKind::Posted).unwrap();
    let second = io
        .ioremap(range(UART.get() + 8, 4), IoKind::Posted)
        .unwrap();
    assert_ne!(first, second);
    let refused = IoremapError::OtherType {
        range: page,
        memory_type: MemoryType::DeviceNgnre,
    };
    let combining = || io.ioremap(range(UART.get(), 0x2000), IoKind::WriteCombining);
    assert_eq!(combining(), Err(refused));
    // SAFETY: the mappings are never used.
    unsafe {
        io.iounmap(first).unwrap();
        assert_eq!(combining(), Err(refused));
        io.iounmap(second).unwrap();
        assert_eq!(io.iounmap(second), Err(IoremapError::NotMapped(second)));
    }
    assert!(combining().is_ok());
}

#[test]
fn running_out_of_tables_takes_no_addresses() {
    let io = scratch(1);
    let error = io.ioremap(range(UART.get(), 1), IoKind::Posted);
    assert!(matches!(
        error,
        Err(IoremapError::Map(MapError::OutOfTables(_)))
    ));
    assert_eq!(io.areas.lock().va.iter().count(), 0);
}

#[test]
fn of_two_concurrent_unmappings_one_is_refused() {
    let io = scratch(2);
    let start = std::sync::Barrier::new(2);
    for _ in 0..if cfg!(miri) { 4 } else { 100 } {
        let pages = range(UART.get(), 8 * PAGE_SIZE as u64);
        let va = io.ioremap(pages, IoKind::Posted).unwrap();
        let unmap = || {
            start.wait();
            // SAFETY: the mapping is never used; one of the calls is refused.
            unsafe { io.iounmap(va) }
        };
        let (first, second) = std::thread::scope(|scope| {
            let other = scope.spawn(unmap);
            (unmap(), other.join().unwrap())
        });
        let refused = Err(IoremapError::NotMapped(va));
        assert!([(Ok(()), refused), (refused, Ok(()))].contains(&(first, second)));
    }
}

#[test]
fn unmapped_areas_share_a_flush_and_keep_their_type_until_then() {
    use crate::arch::trace::{Op, record_during};
    let io = scratch(2);
    let page = range(UART.get(), 0x1000);
    let unmap = |va| {
        // SAFETY: the mapping is never used.
        record_during(|| unsafe { io.iounmap(va) }.unwrap()).1
    };
    let warm = io.ioremap(page, IoKind::Posted).unwrap();
    assert_eq!(unmap(warm), []);
    let again = io.ioremap(page, IoKind::Posted).unwrap();
    assert_ne!(again, warm, "not yet flushed");
    assert_eq!(unmap(again), []);
    // Another type needs the flush at once.
    let (va, ops) = record_during(|| io.ioremap(page, IoKind::WriteCombining).unwrap());
    let flushed = [
        Op::DsbIshst,
        Op::TlbLastLevel(warm),
        Op::TlbLastLevel(again),
        Op::DsbIsh,
        Op::Isb,
    ];
    assert_eq!(ops[..5], flushed);
    assert_eq!(unmap(va), []);
    let mut flushes = 0;
    for _ in 0..3 * LAZY_AREAS {
        let va = io.ioremap(page, IoKind::WriteCombining).unwrap();
        flushes += usize::from(!unmap(va).is_empty());
    }
    assert_eq!(flushes, 3);
    io.vm_unmap_aliases();
    assert_eq!(io.area_from(IOREMAP.base), None);
}
