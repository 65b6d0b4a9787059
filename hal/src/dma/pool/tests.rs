use super::*;
use crate::addr::PAGE_SIZE;
use crate::alloc::testing::Host;
use crate::arch::trace::record_during;
use crate::dma::coherent::testing;
use crate::dma::{DmaError, DmaMask, device};

type Pool = DmaPool<Host>;

fn fake() -> &'static Device {
    device::fake("pool", DmaMask::new::<48>(), [0, 0x1_0000_0000, 1 << 40])
}

/// A pool of blocks with coherent memory of `pages` pages.
fn pool(pages: u64, size: usize, align: usize, boundary: usize) -> Pool {
    let source = testing::memory(pages);
    Pool::create_from(source, "test", fake(), size, align, boundary).unwrap()
}

#[test]
fn blocks_are_aligned_disjoint_and_within_their_boundary() {
    for (size, align, boundary) in [(40, 8, 0), (100, 64, 256), (48, 16, 64), (1, 0, 0)] {
        let pool = pool(8, size, align, boundary);
        let blocks: Vec<_> = (0..100).map(|_| pool.alloc(Gfp::ATOMIC).unwrap()).collect();
        let step = pool.block_size() as u64;
        let mut starts: Vec<_> = blocks.iter().map(|block| block.dma_addr().get()).collect();
        starts.sort_unstable();
        assert!(starts.windows(2).all(|pair| pair[1] - pair[0] >= step));
        for start in starts {
            assert!(start.is_multiple_of(align.max(1) as u64));
            let limit = if boundary == 0 { PAGE_SIZE } else { boundary } as u64;
            assert_eq!(start / limit, (start + step - 1) / limit, "{start:#x}");
        }
        assert_eq!(pool.info().live, 100);
        drop(blocks);
        assert!(pool.destroy().is_ok());
        assert_eq!(Host::live(), 0);
    }
}

#[test]
fn large_blocks_take_pages_of_their_own() {
    let pool = pool(8, 5000, 0, 8192);
    let (first, second) = (
        pool.alloc(Gfp::ATOMIC).unwrap(),
        pool.alloc(Gfp::ATOMIC).unwrap(),
    );
    assert!(first.dma_addr().is_aligned(8192) && second.dma_addr().is_aligned(8192));
    assert_eq!(pool.info().blocks, 2);
}

#[test]
fn zeroed_blocks_are_zero_and_others_are_poisoned_in_the_debug_build() {
    let pool = pool(1, 64, 64, 0);
    let mut block = pool.alloc(Gfp::ATOMIC).unwrap();
    let addr = block.dma_addr();
    if cfg!(feature = "slab-debug") {
        assert!(
            block
                .as_slice()
                .iter()
                .all(|byte| *byte == POISON_ALLOCATED)
        );
    }
    block.as_mut_slice().fill(1);
    let cpu = block.as_ptr();
    drop(block);
    if cfg!(feature = "slab-debug") {
        // SAFETY: the memory stays the pool's; a device may write there by mistake.
        unsafe {
            assert_eq!(cpu.as_ptr().read(), POISON_FREE);
            cpu.as_ptr().write(0);
        }
    }
    let again = pool.alloc(Gfp::ATOMIC | Gfp::ZERO).unwrap();
    assert_eq!(again.dma_addr(), addr);
    assert!(again.as_slice().iter().all(|byte| *byte == 0));
    let corrupted = usize::from(cfg!(feature = "slab-debug"));
    assert_eq!(pool.info().corrupted, corrupted);
}

#[test]
fn wrong_frees_are_named_and_change_nothing() {
    let pool = pool(2, 64, 0, 0);
    let held = pool.alloc_raw(Gfp::ATOMIC).unwrap();
    let other = pool.alloc_raw(Gfp::ATOMIC).unwrap();
    // SAFETY: all but the last are refused, and nothing is used after it was freed.
    let free = |block| unsafe { pool.free_raw(block) };
    let addr = held.addr + 8;
    let foreign = |addr| Err(DmaPoolError::Foreign { pool: "test", addr });
    assert_eq!(free(RawBlock { addr, ..held }), foreign(addr));
    let addr = held.addr + PAGE_SIZE * 16;
    assert_eq!(free(RawBlock { addr, ..held }), foreign(addr));
    let mixed = RawBlock {
        cpu: other.cpu,
        addr: held.addr,
    };
    let (name, addr) = ("test", held.addr);
    assert_eq!(
        free(mixed),
        Err(DmaPoolError::OtherAddress { pool: name, addr })
    );
    assert_eq!(free(held), Ok(()));
    assert_eq!(
        free(held),
        Err(DmaPoolError::AlreadyFree { pool: name, addr })
    );
    assert_eq!(pool.info().live, 1);
    assert_eq!(free(other), Ok(()));
}

#[test]
fn a_busy_pool_is_not_destroyed_and_its_blocks_are_listed() {
    let pool = pool(2, 64, 0, 0);
    let kept = pool.alloc(Gfp::ATOMIC).unwrap().into_raw();
    let passing = pool.alloc(Gfp::ATOMIC).unwrap();
    drop(passing);
    let busy = pool.destroy().unwrap_err();
    assert_eq!((busy.live, busy.first), (1, kept.addr));
    assert!(busy.to_string().contains("busy"));
    let mut listed = Vec::new();
    busy.pool.for_each_live(|block| listed.push(block));
    assert_eq!(listed, [kept]);
    // SAFETY: the block is not used any more.
    unsafe { busy.pool.free_raw(kept) }.unwrap();
    assert!(busy.pool.destroy().is_ok());
    assert_eq!(Host::live(), 0);
}

#[test]
fn engines_are_given_a_block_as_it_is() {
    let pool = pool(1, 40, 8, 64);
    let (first, second) = (
        pool.alloc(Gfp::ATOMIC).unwrap(),
        pool.alloc(Gfp::ATOMIC).unwrap(),
    );
    let (source, destination): (&dyn Source, &dyn Destination) = (&first, &second);
    assert!(core::ptr::eq(source.device(), destination.device()));
    let addr = first.dma_addr();
    let len = pool.block_size();
    let (given, ops) = record_during(|| source.segment(0));
    assert_eq!((given, ops), (Some(DmaSegment { addr, len }), vec![]));
    let addr = second.dma_addr();
    assert_eq!(destination.segment(0), Some(DmaSegment { addr, len }));
    assert_eq!((source.segment(1), destination.segment(1)), (None, None));
}

#[test]
fn running_out_is_named_and_loses_nothing() {
    let pool = pool(1, PAGE_SIZE, 0, 0);
    let block = pool.alloc(Gfp::ATOMIC).unwrap();
    let refused = pool.alloc(Gfp::ATOMIC).unwrap_err();
    assert!(matches!(
        refused,
        DmaPoolError::Memory(DmaError::PoolExhausted { .. })
    ));
    drop(block);
    let pool = self::pool(1, 64, 0, 0);
    Host::fail_after(0);
    assert_eq!(
        pool.alloc(Gfp::ATOMIC).unwrap_err(),
        DmaPoolError::Notes(Host::REFUSED)
    );
    assert!(pool.alloc(Gfp::ATOMIC).is_ok(), "the page came back");
}
