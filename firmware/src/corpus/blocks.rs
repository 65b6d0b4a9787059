//! What a device reads about its work: control blocks, chains, rows, descriptors. And through which
//! window of its bus.

use super::ground::Ground;
use super::port::{Bcm2711Dma, Block, FwCfg, Port, Way};
use super::seed::{Seed, seeds};
use super::transfers::on;
use hal::dma::maintenance::line_size;

pub(super) const CHANNEL: &[Seed] = seeds! { "bcm2835-dma", on::<Bcm2711Dma>,
    block_not_cleaned as block_not_cleaned: [ReadsDirty],
    second_block_not_cleaned as second_block_not_cleaned: [ReadsDirty],
    row_not_cleaned as row_not_cleaned: [ReadsDirty],
    no_barrier_after_block as no_barrier_after_block: [Barrier],
    source_at_cpu_address as source_at_cpu_address: [Alias],
    destination_at_cached_alias as destination_at_cached_alias: [Alias],
    right_chain as right_chain: [],
    right_rows as right_rows: [],
};

pub(super) const DESCRIPTOR: &[Seed] = seeds! { "fw_cfg", on::<FwCfg>,
    descriptor_not_cleaned as descriptor_not_cleaned: [ReadsDirty, WritesDirty, Stale],
    control_word_not_invalidated as control_word_not_invalidated: [Stale],
    no_barrier_after_descriptor as no_barrier_after_descriptor: [Barrier],
    no_barrier_after_clean_of_descriptor as no_barrier_after_clean_of_descriptor: [Barrier],
    right_descriptor as right_descriptor: [],
};

/// Where control blocks lie in the page: each in a line of its own, after what is copied.
const FIRST: usize = 1024;
const SECOND: usize = 2048;

/// A copy of the cacheable part by the channel.
fn copy_of(ground: &Ground, port: &Bcm2711Dma) -> Block {
    Block {
        src: port.bus(ground.pa()),
        dst: port.scratch(),
        len: ground.part().len(),
        ..Block::default()
    }
}

/// Stores a control block to the cacheable page at `at`.
#[inline(always)]
fn store_block(ground: &Ground, at: usize, block: &Block) {
    for (index, word) in block.words().into_iter().enumerate() {
        ground.store_word(at + index * size_of::<u32>(), word);
    }
}

/// Control blocks in cacheable memory, the data well kept. QEMU's channel finds them all the same.
#[inline(never)]
fn block_not_cleaned(ground: &Ground, port: &Bcm2711Dma) {
    store_block(ground, FIRST, &copy_of(ground, port));
    ground.dsb();
    port.ring_at(port.bus(ground.pa()) + FIRST as u64);
    port.finish();
}

/// A chain whose head alone was cleaned.
#[inline(never)]
fn second_block_not_cleaned(ground: &Ground, port: &Bcm2711Dma) {
    let bus = port.bus(ground.pa());
    let block = copy_of(ground, port);
    let first = Block {
        next: bus + SECOND as u64,
        ..block
    };
    store_block(ground, FIRST, &first);
    store_block(ground, SECOND, &block);
    ground.clean(FIRST..FIRST + line_size());
    ground.dsb();
    port.ring_at(bus + FIRST as u64);
    port.finish();
}

/// Rows with gaps between them, of which the driver cleaned as many bytes as there are in the rows
/// together.
#[inline(never)]
fn row_not_cleaned(ground: &Ground, port: &Bcm2711Dma) {
    let line = line_size();
    let rows = Block {
        len: line,
        further_rows: 2,
        // CAST: a line's length.
        src_stride: line as u32,
        ..copy_of(ground, port)
    };
    port.write_block(&rows);
    ground.store(0..5 * line);
    ground.clean(0..3 * line);
    ground.dsb();
    port.ring_at(port.block_bus());
    port.finish();
}

/// The control block is uncached, and still on its way (OpenBSD's USB audio on a Pi 4).
#[inline(never)]
fn no_barrier_after_block(ground: &Ground, port: &Bcm2711Dma) {
    let block = Block {
        src: ground.uncached_bus(),
        ..copy_of(ground, port)
    };
    for (index, word) in block.words().into_iter().enumerate() {
        ground.store_uncached_word(FIRST + index * size_of::<u32>(), word);
    }
    port.ring_at(ground.uncached_bus() + FIRST as u64);
    port.finish();
    ground.dsb();
}

/// Windows of the legacy bus onto the same memory: what the CPU's addresses fall into, and the right
/// one (BCM2711 ARM Peripherals, 1.2.2).
const ALIAS_MASK: u64 = 0x3FFF_FFFF;
const CACHED_ALIAS: u64 = 0x8000_0000;

/// The CPU's address in the place of the bus's.
#[inline(never)]
fn source_at_cpu_address(ground: &Ground, port: &Bcm2711Dma) {
    let src = port.bus(ground.pa()) & ALIAS_MASK;
    port.prepare(Way::Reads, src, ground.part().len());
    port.ring();
    port.finish();
}

/// The window through the VideoCore's cache.
#[inline(never)]
fn destination_at_cached_alias(ground: &Ground, port: &Bcm2711Dma) {
    let dst = port.bus(ground.pa()) & ALIAS_MASK | CACHED_ALIAS;
    port.prepare(Way::Writes, dst, ground.part().len());
    port.ring();
    port.finish();
    ground.invalidate(ground.part());
    ground.dsb();
}

/// Two control blocks in cacheable memory, both cleaned.
#[inline(never)]
fn right_chain(ground: &Ground, port: &Bcm2711Dma) {
    let bus = port.bus(ground.pa());
    let block = copy_of(ground, port);
    let first = Block {
        next: bus + SECOND as u64,
        ..block
    };
    store_block(ground, FIRST, &first);
    store_block(ground, SECOND, &block);
    ground.clean(FIRST..SECOND + line_size());
    ground.dsb();
    port.ring_at(bus + FIRST as u64);
    port.finish();
}

/// Rows whose gaps are somebody else's, and dirty.
#[inline(never)]
fn right_rows(ground: &Ground, port: &Bcm2711Dma) {
    let line = line_size();
    let rows = Block {
        len: line,
        further_rows: 2,
        // CAST: a line's length.
        src_stride: line as u32,
        ..copy_of(ground, port)
    };
    port.write_block(&rows);
    ground.store(0..5 * line);
    for row in 0..3 {
        ground.clean(2 * row * line..(2 * row + 1) * line);
    }
    ground.dsb();
    port.ring_at(port.block_bus());
    port.finish();
}

/// Stores a descriptor of a transfer to the uncached page, to the cacheable page at [`FIRST`].
#[inline(always)]
fn store_descriptor(ground: &Ground) {
    let words = FwCfg::words(ground.uncached_bus(), ground.part().len());
    for (index, word) in words.into_iter().enumerate() {
        ground.store_word(FIRST + index * size_of::<u32>(), word);
    }
}

/// The device reads the descriptor, and writes its control word.
#[inline(never)]
fn descriptor_not_cleaned(ground: &Ground, port: &FwCfg) {
    store_descriptor(ground);
    ground.dsb();
    port.ring_at(port.bus(ground.pa()) + FIRST as u64);
    ground.load(FIRST..FIRST + 1);
}

/// A loop on a control word that stays in the cache for ever on silicon.
#[inline(never)]
fn control_word_not_invalidated(ground: &Ground, port: &FwCfg) {
    store_descriptor(ground);
    ground.clean(FIRST..FIRST + 1);
    ground.dsb();
    port.ring_at(port.bus(ground.pa()) + FIRST as u64);
    ground.load(FIRST..FIRST + 1);
}

/// Stores to the uncached page a descriptor of a transfer to another part of it.
#[inline(always)]
fn store_uncached_descriptor(ground: &Ground) {
    let words = FwCfg::words(ground.uncached_bus(), ground.part().len());
    for (index, word) in words.into_iter().enumerate() {
        ground.store_uncached_word(FIRST + index * size_of::<u32>(), word);
    }
}

#[inline(never)]
fn no_barrier_after_descriptor(ground: &Ground, port: &FwCfg) {
    store_uncached_descriptor(ground);
    port.ring_at(ground.uncached_bus() + FIRST as u64);
    ground.load_uncached(FIRST..FIRST + 1);
    ground.dsb();
}

#[inline(never)]
fn no_barrier_after_clean_of_descriptor(ground: &Ground, port: &FwCfg) {
    store_descriptor(ground);
    ground.clean(FIRST..FIRST + 1);
    port.ring_at(port.bus(ground.pa()) + FIRST as u64);
    ground.dsb();
    ground.invalidate(FIRST..FIRST + 1);
    ground.dsb();
    ground.load(FIRST..FIRST + 1);
}

/// The least barrier for uncached stores.
#[inline(never)]
fn right_descriptor(ground: &Ground, port: &FwCfg) {
    store_uncached_descriptor(ground);
    ground.dmb();
    port.ring_at(ground.uncached_bus() + FIRST as u64);
    ground.load_uncached(FIRST..FIRST + 1);
}
