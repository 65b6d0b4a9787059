use super::segment::Segment;
use super::*;
use crate::layout::{self, host};
use proptest::prelude::*;

/// Gives the machine of these tests its pool.
pub(in crate::dma) fn with_pool() -> &'static BouncePool {
    POOL.call_once(|| {
        // On a thread of its own, so that no test gives the RAM back.
        let ram = || host::ram(MAX_POOL as u64, MAX_POOL as u64);
        let frames = std::thread::spawn(ram).join().unwrap();
        // SAFETY: the RAM was just handed out to this pool alone.
        unsafe { BouncePool::new(frames) }
    })
}

fn small_pool() -> BouncePool {
    let frames = host::ram(2 * MAX_BOUNCE as u64, PAGE_SIZE as u64);
    // SAFETY: the RAM was just handed out to this pool alone.
    unsafe { BouncePool::new(frames) }
}

/// Where the buffers of mappings begin that copy nothing.
const BUFFER: VirtAddr = VirtAddr::new(0x1000);

#[test]
fn one_mapping_takes_at_most_a_segment() {
    let pool = small_pool();
    let first = pool.take(BUFFER, MAX_BOUNCE).unwrap();
    assert_eq!(first, pool.frames().start);
    let second = pool.take(BUFFER, 1).unwrap();
    assert_eq!(second, first + MAX_BOUNCE, "no run crosses segments");
    assert_eq!(
        pool.take(BUFFER, MAX_BOUNCE),
        Err(DmaError::BounceExhausted {
            len: MAX_BOUNCE,
            free: MAX_BOUNCE - SLOT_SIZE
        })
    );
    pool.give_back(second);
    assert_eq!(pool.take(BUFFER, MAX_BOUNCE), Ok(second));
    pool.give_back(second);
    pool.give_back(first);
    let stats = pool.stats();
    assert_eq!((stats.used, stats.high_water), (0, 256));
    assert_eq!((stats.maps, stats.exhausted), (3, 1));
}

#[test]
fn an_address_is_known_by_the_mapping_it_is_in() {
    let pool = small_pool();
    let len = SLOT_SIZE + 7;
    let (before, slots, after) = (
        pool.take(BUFFER, SLOT_SIZE).unwrap(),
        pool.take(BUFFER, len).unwrap(),
        pool.take(BUFFER, 1).unwrap(),
    );
    let lent = |offset| Place::Lent {
        buffer: BUFFER + offset,
        len: len - offset,
    };
    for offset in [0, 1, SLOT_SIZE - 1, SLOT_SIZE, len - 1] {
        assert_eq!(pool.place_of(slots + offset), lent(offset));
    }
    assert_eq!(pool.place_of(slots + len), Place::Free, "behind the end");
    for outside in [
        PhysAddr::new(pool.frames().start.get() - 1),
        pool.frames().end,
    ] {
        assert_eq!(pool.place_of(outside), Place::Outside);
        pool.give_back(outside);
    }
    // Nothing begins at these.
    for offset in [1, SLOT_SIZE, len] {
        pool.give_back(slots + offset);
        assert_eq!((pool.stats().used, pool.place_of(slots)), (4, lent(0)));
    }
    for _ in 0..2 {
        pool.give_back(slots);
        assert_eq!(pool.stats().used, 2);
        assert_eq!(pool.place_of(slots + SLOT_SIZE), Place::Free);
    }
    for held in [before, after] {
        assert!(matches!(pool.place_of(held), Place::Lent { .. }));
        pool.give_back(held);
    }
    assert_eq!(pool.stats().used, 0);
}

#[test]
fn the_default_follows_ram() {
    const MIB: u64 = 1 << 20;
    assert_eq!(default_size(0), MAX_BOUNCE);
    assert_eq!(default_size(128 * MIB), 512 << 10);
    assert_eq!(default_size(8192 * MIB), MAX_POOL);
}

#[test]
fn copies_are_counted() {
    let pool = small_pool();
    let buffer = layout::phys_to_virt(host::ram(4096, 4096).start);
    let slots = layout::phys_to_virt(pool.take(buffer, 4096).unwrap());
    // SAFETY: both are this test's own.
    unsafe {
        buffer.as_ptr::<u8>().write_bytes(7, 4096);
        pool.copy_in(slots, buffer, 4096);
        slots.as_ptr::<u8>().write_bytes(9, 64);
        pool.copy_out(slots, buffer, 100);
        assert_eq!(buffer.as_ptr::<[u8; 2]>().byte_add(63).read(), [9, 7]);
    }
    let stats = pool.stats();
    assert_eq!((stats.bytes_in, stats.bytes_out), (4096, 100));
}

proptest! {
    /// Against an array of flags: the first run that is free, no slot twice.
    #[test]
    fn a_segment_is_first_fit(calls in prop::collection::vec((1_u32..=40, any::<bool>()), 1..60)) {
        let mut segment = Segment::EMPTY;
        let mut taken = [false; SEGMENT_SLOTS as usize];
        let mut live = Vec::new();
        for (count, frees) in calls {
            if frees && !live.is_empty() {
                let (first, count): (u32, u32) = live.remove(count as usize % live.len());
                segment.give_back(first, count);
                taken[first as usize..][..count as usize].fill(false);
            }
            let fits = taken.windows(count as usize).position(|run| run.iter().all(|&slot| !slot));
            prop_assert_eq!(segment.take(count), fits.map(|first| first as u32));
            if let Some(first) = fits {
                taken[first..][..count as usize].fill(true);
                live.push((first as u32, count));
            }
        }
    }
}
