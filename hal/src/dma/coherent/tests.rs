use super::*;
use crate::addr::{PhysAddr, PhysRange, VirtAddr};
use crate::arch::trace::{Op, record_during};
use crate::dma::device::fake;
use crate::dma::engine::Source;
use crate::dma::{Device, DmaError, DmaMask, maintenance};
use crate::layout::{self, host};

pub(crate) mod machine;
mod typed;

fn device() -> &'static Device {
    fake("test", DmaMask::new::<48>(), [0, 0x1_0000_0000, 1 << 40])
}

fn pool(pages: u64) -> &'static CoherentPool {
    let frames = host::ram(pages * PAGE_SIZE as u64, 4 << 20);
    // SAFETY: the RAM was just handed out to this call alone; the host has no memory types.
    let pool = unsafe { CoherentPool::new(frames, layout::phys_to_virt(frames.start)) }.unwrap();
    Box::leak(Box::new(pool))
}

#[test]
fn both_addresses_are_aligned_to_the_order() {
    let pool = pool(512);
    let device = device();
    let _page = pool.alloc(device, 1).unwrap();
    for (size, align) in [(1, 0x1000), (0x3000, 0x4000), (0x1_0000, 0x1_0000)] {
        let memory = pool.alloc(device, size).unwrap();
        assert!(memory.va().is_aligned(align), "{:?}", memory.va());
        assert!(
            memory.dma_addr().is_aligned(align),
            "{:?}",
            memory.dma_addr()
        );
        let frame = pool.frames().start + memory.va().checked_sub(pool.cpu_base()).unwrap();
        assert_eq!(memory.dma_addr().get(), 0x1_0000_0000 + frame.get());
        assert_eq!(memory.len(), size.next_multiple_of(PAGE_SIZE));
    }
    assert_eq!(pool.free_pages(), 511);
}

#[test]
fn memory_is_zero_again_after_reuse_and_ordered() {
    let pool = pool(1);
    let device = device();
    let mut first = pool.alloc(device, 10).unwrap();
    first.as_mut_slice().fill(0xA5);
    drop(first);
    let (second, ops) = record_during(|| pool.alloc(device, 10).unwrap());
    assert!(second.as_slice().iter().all(|&byte| byte == 0));
    assert_eq!(ops, [Op::DmbOshst]);
}

#[test]
fn lines_of_a_loader_are_dropped_before_the_first_use_of_each_page() {
    let pool = pool(8);
    let device = device();
    let line = maintenance::line_size();
    let drops = |ops: &[Op]| {
        let lines = ops.iter().filter_map(|op| match op {
            Op::CleanInvalidate(va) => Some(*va),
            _ => None,
        });
        lines.collect::<Vec<_>>()
    };
    let lines_of = |memory: &Coherent| {
        let offsets = (0..memory.len()).step_by(line);
        offsets
            .map(|offset| memory.va() + offset)
            .collect::<Vec<_>>()
    };

    let (one, ops) = record_during(|| pool.alloc(device, 1).unwrap());
    assert_eq!(drops(&ops), lines_of(&one));
    let completed = ops.iter().position(|op| *op == Op::DsbSy).unwrap();
    assert_eq!(completed, PAGE_SIZE / line);
    assert_eq!(ops.last(), Some(&Op::DmbOshst));

    let (other, ops) = record_during(|| pool.alloc(device, 4 * PAGE_SIZE).unwrap());
    assert_eq!(drops(&ops), lines_of(&other));
    drop((one, other));
    let (again, ops) = record_during(|| pool.alloc(device, 1).unwrap());
    assert_eq!(ops, [Op::DmbOshst], "no line can have come back");
    drop(again);
    // Pages 1 to 3 were never handed out.
    let (half_used, ops) = record_during(|| pool.alloc(device, 4 * PAGE_SIZE).unwrap());
    assert_eq!(half_used.va(), pool.cpu_base());
    assert_eq!(drops(&ops), lines_of(&half_used));
}

#[test]
fn exhaustion_is_named_and_passes() {
    let pool = pool(4);
    let device = device();
    let held = pool.alloc(device, 2 * PAGE_SIZE).unwrap();
    assert_eq!(
        pool.alloc(device, 3 * PAGE_SIZE).unwrap_err(),
        DmaError::PoolExhausted {
            size: 3 * PAGE_SIZE,
            free: 2 * PAGE_SIZE
        }
    );
    assert!(matches!(
        pool.alloc(device, usize::MAX).unwrap_err(),
        DmaError::PoolExhausted { .. }
    ));
    assert_eq!(pool.alloc(device, 0).unwrap_err(), DmaError::ZeroLength);
    drop(held);
    assert!(pool.alloc(device, 4 * PAGE_SIZE).is_ok());
    assert_eq!(pool.free_pages(), 4);
}

#[test]
fn a_pool_out_of_reach_loses_nothing() {
    let pool = pool(4);
    let narrow = fake("narrow", DmaMask::new::<28>(), [0, 0, 1]);
    assert!(matches!(
        pool.alloc(narrow, 1),
        Err(DmaError::OutOfReach { .. })
    ));
    assert_eq!(pool.free_pages(), 4);
    // Its lines are still the loader's: whoever is given the page first drops them.
    let (page, ops) = record_during(|| pool.alloc(device(), 1).unwrap());
    let dropped = ops.iter().any(|op| *op == Op::CleanInvalidate(page.va()));
    assert!(dropped, "{ops:?}");
}

#[test]
fn accesses_are_bounded() {
    let pool = pool(1);
    let mut memory = pool.alloc(device(), 1).unwrap();
    memory.write_words(4088, &[1, 2]).unwrap();
    assert_eq!(memory.as_slice()[4092], 2);
    let error = |offset, len| DmaError::OutOfBounds {
        offset,
        len,
        size: 4096,
    };
    assert_eq!(memory.write_words(4092, &[1, 2]), Err(error(4092, 8)));
    assert_eq!(memory.write_words(2, &[1]), Err(error(2, 4)));
    assert_eq!(memory.part(1, 4096).unwrap_err(), error(1, 4096));
    assert_eq!(
        memory.part(usize::MAX, 2).unwrap_err(),
        error(usize::MAX, 2)
    );
    assert_eq!(memory.part_mut(0, 0).unwrap_err(), DmaError::ZeroLength);
    let addr = memory.dma_addr();
    assert_eq!(
        memory.part(3, 5).unwrap().segment(0).unwrap().addr,
        addr + 3
    );
}

#[test]
fn bad_pools_are_refused() {
    let make = |start: u64, size: u64, cpu: usize| {
        let frames = PhysRange::from_size(PhysAddr::new(start), size).unwrap();
        // SAFETY: the pool is never allocated from.
        unsafe { CoherentPool::new(frames, VirtAddr::new(cpu)) }.map(drop)
    };
    assert_eq!(make(0, 0, 0), Err(BadPool::Size(0)));
    assert_eq!(make(0, 0x1800, 0), Err(BadPool::Size(0x1800)));
    assert_eq!(make(0, 17 << 20, 0), Err(BadPool::Size(17 << 20)));
    assert_eq!(
        make(0x20_0000, 0x1000, 0),
        Err(BadPool::Alignment(VirtAddr::new(0)))
    );
    assert_eq!(make(0x20_0000, 0x1000, 0xFFE0_0020_0000), Ok(()));
}
