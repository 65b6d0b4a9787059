//! One buffer, one transfer, and everything a driver can forget around it, on each device.
//!
//! The names of projects are of those in which the bug was met.

use super::ground::Ground;
use super::port::{Bcm2711Dma, Edu, FwCfg, Port, Way};
use super::seed::{Seed, seeds};
use crate::check_ok;
use crate::report::Outcome;

pub(super) const EDU: &[Seed] = seeds! { "edu", on::<Edu>,
    clean_forgotten::<Edu> as clean_forgotten: [ReadsDirty],
    last_line_not_cleaned::<Edu> as last_line_not_cleaned: [ReadsDirty],
    stored_after_the_clean::<Edu> as stored_after_the_clean: [ReadsDirty],
    cleaned_after_the_doorbell::<Edu> as cleaned_after_the_doorbell: [ReadsDirty],
    destination_dirty::<Edu> as destination_dirty: [WritesDirty],
    invalidate_forgotten::<Edu> as invalidate_forgotten: [Stale],
    invalidated_too_early::<Edu> as invalidated_too_early: [Stale],
    invalidated_meanwhile::<Edu> as invalidated_meanwhile: [Stale],
    last_line_not_invalidated::<Edu> as last_line_not_invalidated: [Stale],
    stored_meanwhile::<Edu> as stored_meanwhile: [Touched],
    neighbour_destroyed::<Edu> as neighbour_destroyed: [Neighbour],
    no_barrier_after_clean::<Edu> as no_barrier_after_clean: [Barrier],
    dmb_after_clean::<Edu> as dmb_after_clean: [Barrier],
    no_barrier_after_uncached_stores::<Edu> as no_barrier_after_uncached_stores: [Barrier],
    read_beyond_memory::<Edu> as read_beyond_memory: [Outside],
    right_read::<Edu> as right_read: [],
    right_write::<Edu> as right_write: [],
    right_uncached::<Edu> as right_uncached: [],
    right_neighbour::<Edu> as right_neighbour: [],
    right_again::<Edu> as right_again: [],
};

pub(super) const FW_CFG: &[Seed] = seeds! { "fw_cfg", on::<FwCfg>,
    destination_dirty::<FwCfg> as destination_dirty: [WritesDirty],
    invalidate_forgotten::<FwCfg> as invalidate_forgotten: [Stale],
    invalidated_too_early::<FwCfg> as invalidated_too_early: [Stale],
    stored_beside_meanwhile::<FwCfg> as stored_beside_meanwhile: [Touched],
    neighbour_destroyed::<FwCfg> as neighbour_destroyed: [Neighbour],
    write_beyond_memory::<FwCfg> as write_beyond_memory: [Outside],
    right_write::<FwCfg> as right_write: [],
};

pub(super) const BCM2711: &[Seed] = seeds! { "bcm2835-dma", on::<Bcm2711Dma>,
    clean_forgotten::<Bcm2711Dma> as clean_forgotten: [ReadsDirty],
    last_line_not_cleaned::<Bcm2711Dma> as last_line_not_cleaned: [ReadsDirty],
    stored_after_the_clean::<Bcm2711Dma> as stored_after_the_clean: [ReadsDirty],
    cleaned_after_the_doorbell::<Bcm2711Dma> as cleaned_after_the_doorbell: [ReadsDirty],
    destination_dirty::<Bcm2711Dma> as destination_dirty: [WritesDirty],
    invalidate_forgotten::<Bcm2711Dma> as invalidate_forgotten: [Stale],
    invalidated_too_early::<Bcm2711Dma> as invalidated_too_early: [Stale],
    invalidated_meanwhile::<Bcm2711Dma> as invalidated_meanwhile: [Stale],
    last_line_not_invalidated::<Bcm2711Dma> as last_line_not_invalidated: [Stale],
    stored_meanwhile::<Bcm2711Dma> as stored_meanwhile: [Touched],
    neighbour_destroyed::<Bcm2711Dma> as neighbour_destroyed: [Neighbour],
    no_barrier_after_clean::<Bcm2711Dma> as no_barrier_after_clean: [Barrier],
    dmb_after_clean::<Bcm2711Dma> as dmb_after_clean: [Barrier],
    no_barrier_after_uncached_stores::<Bcm2711Dma> as no_barrier_after_uncached_stores: [Barrier],
    read_beyond_memory::<Bcm2711Dma> as read_beyond_memory: [Outside],
    right_read::<Bcm2711Dma> as right_read: [],
    right_write::<Bcm2711Dma> as right_write: [],
    right_uncached::<Bcm2711Dma> as right_uncached: [],
    right_neighbour::<Bcm2711Dma> as right_neighbour: [],
    right_again::<Bcm2711Dma> as right_again: [],
};

/// Runs a seed on memory and a device of its own.
pub(super) fn on<P: Port>(seed: &Seed, run: fn(&Ground, &P)) -> Outcome {
    let port = P::open()?;
    let ground = check_ok!(Ground::new(port.device()));
    seed.announce();
    run(&ground, &port);
    ground.settle();
    Ok(())
}

/// Prepares a transfer of the cacheable part.
#[inline(always)]
fn prepare<P: Port>(ground: &Ground, port: &P, way: Way) {
    port.prepare(way, port.bus(ground.pa()), ground.part().len());
}

/// The mailbox of a tutorial kernel, once its caches were on (rust-raspberrypi-OS-tutorials).
#[inline(never)]
fn clean_forgotten<P: Port>(ground: &Ground, port: &P) {
    prepare(ground, port, Way::Reads);
    ground.store(ground.part());
    ground.dsb();
    port.ring();
    port.finish();
}

/// A length rounded down to whole lines.
#[inline(never)]
fn last_line_not_cleaned<P: Port>(ground: &Ground, port: &P) {
    prepare(ground, port, Way::Reads);
    ground.store(ground.part());
    ground.clean(0..ground.last_line().start);
    ground.dsb();
    port.ring();
    port.finish();
}

/// A checksum or a sequence number put in last.
#[inline(never)]
fn stored_after_the_clean<P: Port>(ground: &Ground, port: &P) {
    prepare(ground, port, Way::Reads);
    ground.store(ground.part());
    ground.clean(ground.part());
    ground.store_word(0, 1);
    ground.dsb();
    port.ring();
    port.finish();
}

/// The clean comes, but too late.
#[inline(never)]
fn cleaned_after_the_doorbell<P: Port>(ground: &Ground, port: &P) {
    prepare(ground, port, Way::Reads);
    ground.store(ground.part());
    ground.dsb();
    port.ring();
    ground.clean(ground.part());
    ground.dsb();
    port.finish();
}

/// A receive buffer that was zeroed, and whose lines go back over what arrives (Zephyr, MicroPython).
#[inline(never)]
fn destination_dirty<P: Port>(ground: &Ground, port: &P) {
    prepare(ground, port, Way::Writes);
    ground.store(ground.part());
    ground.dsb();
    port.ring();
    port.finish();
    ground.invalidate(ground.part());
    ground.dsb();
    ground.load(ground.part());
}

/// An empty function for "the transfer is over" (AROS).
#[inline(never)]
fn invalidate_forgotten<P: Port>(ground: &Ground, port: &P) {
    prepare(ground, port, Way::Writes);
    ground.load(ground.part());
    port.ring();
    port.finish();
    ground.load(ground.part());
}

/// Invalidated before the transfer only (NuttX, SerenityOS).
#[inline(never)]
fn invalidated_too_early<P: Port>(ground: &Ground, port: &P) {
    prepare(ground, port, Way::Writes);
    ground.load(ground.part());
    ground.invalidate(ground.part());
    ground.dsb();
    port.ring();
    port.finish();
    ground.load(ground.part());
}

/// Invalidated while the device may still write.
#[inline(never)]
fn invalidated_meanwhile<P: Port>(ground: &Ground, port: &P) {
    prepare(ground, port, Way::Writes);
    ground.load(ground.part());
    port.ring();
    ground.invalidate(ground.part());
    ground.dsb();
    port.finish();
    ground.load(ground.part());
}

/// A length rounded down to whole lines.
#[inline(never)]
fn last_line_not_invalidated<P: Port>(ground: &Ground, port: &P) {
    prepare(ground, port, Way::Writes);
    ground.load(ground.part());
    port.ring();
    port.finish();
    ground.invalidate(0..ground.last_line().start);
    ground.dsb();
    ground.load(ground.part());
}

/// A buffer reused before the device is done with it (embedonomicon).
#[inline(never)]
fn stored_meanwhile<P: Port>(ground: &Ground, port: &P) {
    prepare(ground, port, Way::Reads);
    ground.store(ground.part());
    ground.clean(ground.part());
    ground.dsb();
    port.ring();
    ground.store_word(0, 1);
    port.finish();
}

/// As above, of a buffer that the device writes.
#[inline(never)]
fn stored_beside_meanwhile<P: Port>(ground: &Ground, port: &P) {
    prepare(ground, port, Way::Writes);
    port.ring();
    ground.store_word(0, 1);
    port.finish();
    ground.invalidate(ground.part());
    ground.dsb();
}

/// A variable in the buffer's first line, stored to before the buffer is invalidated (circle,
/// esp-hal).
#[inline(never)]
fn neighbour_destroyed<P: Port>(ground: &Ground, port: &P) {
    let part = ground.part();
    let inside = part.start + 32..part.end;
    port.prepare(
        Way::Writes,
        port.bus(ground.pa()) + inside.start as u64,
        inside.len(),
    );
    port.ring();
    port.finish();
    ground.store_word(0, 1);
    ground.invalidate(ground.part());
    ground.dsb();
    ground.load(ground.part());
}

/// Maintenance that nothing waits for.
#[inline(never)]
fn no_barrier_after_clean<P: Port>(ground: &Ground, port: &P) {
    prepare(ground, port, Way::Reads);
    ground.store(ground.part());
    ground.clean(ground.part());
    port.ring();
    port.finish();
    ground.dsb();
}

/// A barrier that orders stores, not maintenance.
#[inline(never)]
fn dmb_after_clean<P: Port>(ground: &Ground, port: &P) {
    prepare(ground, port, Way::Reads);
    ground.store(ground.part());
    ground.clean(ground.part());
    ground.dmb();
    port.ring();
    port.finish();
    ground.dsb();
}

/// Uncached memory, taken for memory that needs nothing (OpenBSD's USB audio on a Pi 4).
#[inline(never)]
fn no_barrier_after_uncached_stores<P: Port>(ground: &Ground, port: &P) {
    port.prepare(Way::Reads, ground.uncached_bus(), ground.part().len());
    ground.store_uncached(ground.part());
    port.ring();
    port.finish();
    ground.dsb();
}

/// Memory above what the device reaches (Pis with more than 1 GiB, infernode).
#[inline(never)]
fn read_beyond_memory<P: Port>(ground: &Ground, port: &P) {
    let len = ground.part().len();
    port.prepare(Way::Reads, port.beyond(len), len);
    port.ring();
    port.finish();
}

/// As above, of memory that the device is to write.
#[inline(never)]
fn write_beyond_memory<P: Port>(ground: &Ground, port: &P) {
    let len = ground.part().len();
    port.prepare(Way::Writes, port.beyond(len), len);
    port.ring();
    port.finish();
}

/// Cleaned, barrier, doorbell.
#[inline(never)]
fn right_read<P: Port>(ground: &Ground, port: &P) {
    prepare(ground, port, Way::Reads);
    ground.store(ground.part());
    ground.clean(ground.part());
    ground.dsb();
    port.ring();
    port.finish();
    ground.load(ground.part());
    ground.store(ground.part());
}

/// Cleaned before, invalidated after.
#[inline(never)]
fn right_write<P: Port>(ground: &Ground, port: &P) {
    prepare(ground, port, Way::Writes);
    ground.store(ground.part());
    ground.clean(ground.part());
    ground.dsb();
    port.ring();
    port.finish();
    ground.invalidate(ground.part());
    ground.dsb();
    ground.load(ground.part());
    ground.store(ground.part());
}

/// Uncached stores and the least barrier that orders them; uncached loads of what the device wrote.
#[inline(never)]
fn right_uncached<P: Port>(ground: &Ground, port: &P) {
    port.prepare(Way::Reads, ground.uncached_bus(), ground.part().len());
    ground.store_uncached(ground.part());
    ground.dmb();
    port.ring();
    port.finish();
    port.prepare(Way::Writes, ground.uncached_bus(), ground.part().len());
    ground.dmb();
    port.ring();
    port.finish();
    ground.load_uncached(ground.part());
}

/// A neighbour in a line of its own.
#[inline(never)]
fn right_neighbour<P: Port>(ground: &Ground, port: &P) {
    prepare(ground, port, Way::Writes);
    let beside = ground.part().end;
    ground.store_word(beside, 1);
    port.ring();
    ground.store_word(beside, 2);
    port.finish();
    ground.invalidate(ground.part());
    ground.dsb();
    ground.load(0..beside + 1);
}

/// The same buffer to the device, from it, and to it again.
#[inline(never)]
fn right_again<P: Port>(ground: &Ground, port: &P) {
    for way in [Way::Reads, Way::Writes, Way::Reads] {
        prepare(ground, port, way);
        ground.store(ground.part());
        ground.clean(ground.part());
        ground.dsb();
        port.ring();
        port.finish();
        if way == Way::Writes {
            ground.invalidate(ground.part());
            ground.dsb();
        }
        ground.load(ground.part());
    }
}
