//! Blocks of a pool, which are used again and again.

use super::{Visit, check};
use hal::addr::{PAGE_SIZE, PhysAddr, PhysRange, VirtAddr};
use hal::alloc::{AllocError, Allocator, Flags};
use hal::dma::coherent::CoherentMemory;
use hal::dma::{CoherentPool, DmaPool, DmaSegment};
use hal::layout::host;
use hal::mm::{FrameTable, Gfp, PageAllocator, UsableRam};
use hal::mmu::{KernelMapper, KernelTableMemory, Mapper};
use hal::sync::IrqLock;
use hal::testkit::{Machine, Master, Wrong};
use std::alloc::Layout;
use std::mem::MaybeUninit;
use std::ptr::NonNull;

/// Bytes in a block.
const LEN: usize = 64;

pub(crate) fn for_each(visit: Visit<'_>) {
    let machine = Machine::new();
    let master = machine.master();
    let memory = memory(super::coherent::pool(machine.uncached_pages(2)));
    let pool = DmaPool::<Host>::create_from(memory, "blocks", master.device(), LEN, 0, 0).unwrap();
    // What a pool does once is done.
    drop(pool.alloc(Gfp::ATOMIC).unwrap());
    visit("block used again", &machine, &mut |_| {
        used_again(&master, &pool)
    });
}

/// A device that is told of a block finds zeros there, whatever the block was used for before.
fn used_again(master: &Master, pool: &DmaPool<Host>) -> Result<(), Wrong> {
    const REFUSED: Wrong = Wrong("the pool refused");

    let mut first = pool.alloc(Gfp::ATOMIC).map_err(|_| REFUSED)?;
    let addr = first.dma_addr();
    first.as_mut_slice().fill(7);
    drop(first);
    let second = pool.alloc(Gfp::ATOMIC | Gfp::ZERO).map_err(|_| REFUSED)?;
    check(second.dma_addr() == addr, "the block was not used again")?;
    master.start_read(DmaSegment { addr, len: LEN });
    check(
        master.finish() == [0; LEN],
        "the device read what was there before",
    )
}

/// Coherent memory that is `pool`'s and nothing else: no pages, no tables, no areas.
fn memory(pool: &'static CoherentPool) -> &'static CoherentMemory {
    let tables: &'static _ = Box::leak(Box::new(IrqLock::new(no_tables())));
    let pages: &'static _ = Box::leak(Box::new(pages()));
    Box::leak(Box::new(CoherentMemory::new(
        pool,
        tables,
        pages,
        &[],
        || (),
    )))
}

fn no_tables() -> KernelMapper {
    let root = host::ram(PAGE_SIZE as u64, PAGE_SIZE as u64).start;
    let nowhere = PhysRange::new(PhysAddr::new(0), PhysAddr::new(0));
    // SAFETY: the root is this tree's, zeroed, and there is no reserve.
    unsafe {
        let memory = KernelTableMemory::new(nowhere, VirtAddr::new(0), nowhere);
        Mapper::new(root, memory)
    }
}

/// An allocator of pages, which nobody asks.
fn pages() -> PageAllocator {
    const SIZE: u64 = 8 << 20;

    let ram = host::ram(SIZE, 4 << 20);
    let backing = FrameTable::backing_for(ram);
    let memory = vec![0_u128; backing.len().div_ceil(16) + PAGE_SIZE / 16].leak();
    let base = memory.as_mut_ptr().addr().next_multiple_of(PAGE_SIZE);
    let words = vec![MaybeUninit::new(0); FrameTable::words_for(ram)].leak();
    let base = VirtAddr::new(base.wrapping_sub(backing.start));
    let map = UsableRam {
        ram: &[ram],
        dma_limit: ram.end,
        dma32_limit: ram.end,
    };
    // SAFETY: the memory behind the descriptors is leaked, aligned to a page and nobody else's, and
    // so is the RAM.
    unsafe { PageAllocator::new(FrameTable::new(base, words), &map) }.unwrap()
}

/// Where the pool keeps its books.
#[derive(Debug)]
enum Host {}

// SAFETY: host memory is the caller's until it is given back.
unsafe impl Allocator for Host {
    const MAX_ALIGN: usize = PAGE_SIZE;

    unsafe fn realloc(
        ptr: Option<NonNull<u8>>,
        layout: Layout,
        old_layout: Layout,
        _: Flags,
    ) -> Result<NonNull<u8>, AllocError> {
        match ptr {
            None if layout.size() != 0 => {
                // SAFETY: the size is not zero.
                let memory = unsafe { std::alloc::alloc(layout) };
                Ok(NonNull::new(memory).unwrap())
            }
            Some(old) if layout.size() == 0 && old_layout.size() != 0 => {
                // SAFETY: allocated above, with this layout.
                unsafe { std::alloc::dealloc(old.as_ptr(), old_layout) };
                Ok(layout.dangling_ptr())
            }
            _ => unreachable!("a box is not resized"),
        }
    }
}
