//! Requests to the VideoCore's firmware, which reads them and writes its answer over them.

use super::ground::Ground;
use super::port::{ELSEWHERE, Window};
use super::seed::{Seed, seeds};
use crate::check_ok;
use crate::machine::machine;
use crate::report::{Outcome, Stop};
use core::hint::spin_loop;
use hal::addr::{DmaAddr, PhysAddr};
use hal::arch::barrier;
use hal::dma::Device;
use hal::drivers::mmio::RegisterIo;

pub(super) const SEEDS: &[Seed] = seeds! { "bcm2835-mbox", on,
    request_not_cleaned as request_not_cleaned: [ReadsDirty, WritesDirty],
    answer_not_invalidated as answer_not_invalidated: [Stale],
    answer_invalidated_too_early as answer_invalidated_too_early: [Stale],
    answer_looked_at_too_early as answer_looked_at_too_early: [Touched],
    answer_destroys_neighbour as answer_destroys_neighbour: [Neighbour],
    no_barrier_after_request as no_barrier_after_request: [Barrier],
    no_barrier_after_clean_of_request as no_barrier_after_clean_of_request: [Barrier],
    request_at_cached_alias as request_at_cached_alias: [Alias],
    request_outside_memory as request_outside_memory: [Outside],
    right_request as right_request: [],
    right_uncached_request as right_uncached_request: [],
};

/// The page that holds the mailboxes (BCM2711 ARM Peripherals, 1.2.4).
const PAGE: PhysAddr = PhysAddr::new(0xFE00_B000);
const PAGE_SIZE: usize = 0x1000;
/// Registers of the mailbox to the Arm and of that from it.
const READ: usize = 0x880;
const STATUS: usize = 0x898;
const WRITE: usize = 0x8A0;
/// `STATUS`: nothing to read.
const EMPTY: u32 = 1 << 30;
/// The channel of property requests.
const CHANNEL: u64 = 8;

/// Asks for the firmware's revision: size, code, tag, room, length, value, end.
const REQUEST: [u32; 8] = [32, 0, 1, 4, 0, 0, 0, 0];
const REQUEST_SIZE: usize = size_of_val(&REQUEST);

/// The window onto memory through the VideoCore's cache, in the place of the one past it.
const ALIAS_MASK: u64 = 0x3FFF_FFFF;
const CACHED_ALIAS: u64 = 0x8000_0000;
/// The window onto memory that only older chips have (BCM2711 ARM Peripherals, 1.2.4): the VideoCore takes an
/// address in it for one past the first GiB. QEMU still has the window, so the request is answered.
const NO_WINDOW: u64 = 0x4000_0000;

/// The mailbox, whose driver is idle.
struct Mailbox {
    window: Window,
    device: &'static Device,
}

impl Mailbox {
    fn open() -> Result<Self, Stop> {
        let device = machine().mailbox.ok_or(ELSEWHERE)?.device();
        let window = Window::map(PAGE, PAGE_SIZE)?;
        Ok(Self { window, device })
    }

    fn bus(&self, ground: &Ground) -> u64 {
        // The memory was allocated within the device's reach.
        let addr = self.device.dma_addr(ground.pa(), REQUEST_SIZE);
        addr.map_or(0, DmaAddr::get)
    }

    /// Rings for the request at `bus`.
    #[inline(always)]
    fn ring(&self, bus: u64) {
        // CAST: the device has 32 address bits.
        self.window.io.write32(WRITE, (bus | CHANNEL) as u32);
    }

    /// Waits for the answer's word and takes it.
    fn finish(&self) {
        while self.window.io.read32(STATUS) & EMPTY != 0 {
            spin_loop();
        }
        self.window.io.read32(READ);
        barrier::dmb_oshld();
    }
}

/// Runs a seed on memory of its own.
fn on(seed: &Seed, run: fn(&Ground, &Mailbox)) -> Outcome {
    let mailbox = Mailbox::open()?;
    let ground = check_ok!(Ground::new(mailbox.device));
    seed.announce();
    run(&ground, &mailbox);
    ground.settle();
    Ok(())
}

/// Stores the request at byte `at` of the cacheable page.
#[inline(always)]
fn store_request(ground: &Ground, at: usize) {
    for (index, word) in REQUEST.into_iter().enumerate() {
        ground.store_word(at + index * size_of::<u32>(), word);
    }
}

/// The same, uncached.
#[inline(always)]
fn store_uncached_request(ground: &Ground) {
    for (index, word) in REQUEST.into_iter().enumerate() {
        ground.store_uncached_word(index * size_of::<u32>(), word);
    }
}

/// As soon as the caches are on, nobody answers (rust-raspberrypi-OS-tutorials, r9).
#[inline(never)]
fn request_not_cleaned(ground: &Ground, mailbox: &Mailbox) {
    store_request(ground, 0);
    ground.dsb();
    mailbox.ring(mailbox.bus(ground));
    mailbox.finish();
    ground.invalidate(0..REQUEST_SIZE);
    ground.dsb();
    ground.load(0..REQUEST_SIZE);
}

/// An answer that never changes (NuttX).
#[inline(never)]
fn answer_not_invalidated(ground: &Ground, mailbox: &Mailbox) {
    store_request(ground, 0);
    ground.clean(0..REQUEST_SIZE);
    ground.dsb();
    mailbox.ring(mailbox.bus(ground));
    mailbox.finish();
    ground.load(0..REQUEST_SIZE);
}

/// Cleaned and invalidated before, and never after (SerenityOS, for three years).
#[inline(never)]
fn answer_invalidated_too_early(ground: &Ground, mailbox: &Mailbox) {
    store_request(ground, 0);
    ground.clean_invalidate(0..REQUEST_SIZE);
    ground.dsb();
    mailbox.ring(mailbox.bus(ground));
    mailbox.finish();
    ground.load(0..REQUEST_SIZE);
}

/// The next request is stored before the mailbox has said that this one is done.
#[inline(never)]
fn answer_looked_at_too_early(ground: &Ground, mailbox: &Mailbox) {
    store_request(ground, 0);
    ground.clean_invalidate(0..REQUEST_SIZE);
    ground.dsb();
    mailbox.ring(mailbox.bus(ground));
    ground.store_word(0, 0);
    mailbox.finish();
    ground.invalidate(0..REQUEST_SIZE);
    ground.dsb();
}

/// A request on the stack, aligned to 16 bytes as the mailbox asks, and a variable beside it (NuttX).
#[inline(never)]
fn answer_destroys_neighbour(ground: &Ground, mailbox: &Mailbox) {
    const AT: usize = 16;

    store_request(ground, AT);
    ground.clean(0..AT + REQUEST_SIZE);
    ground.dsb();
    mailbox.ring(mailbox.bus(ground) + AT as u64);
    mailbox.finish();
    ground.store_word(0, 1);
    ground.invalidate(0..AT + REQUEST_SIZE);
    ground.dsb();
    ground.load(0..AT + REQUEST_SIZE);
}

#[inline(never)]
fn no_barrier_after_request(ground: &Ground, mailbox: &Mailbox) {
    store_uncached_request(ground);
    mailbox.ring(ground.uncached_bus());
    mailbox.finish();
    ground.load_uncached(0..REQUEST_SIZE);
}

#[inline(never)]
fn no_barrier_after_clean_of_request(ground: &Ground, mailbox: &Mailbox) {
    store_request(ground, 0);
    ground.clean(0..REQUEST_SIZE);
    mailbox.ring(mailbox.bus(ground));
    mailbox.finish();
    ground.dsb();
    ground.invalidate(0..REQUEST_SIZE);
    ground.dsb();
    ground.load(0..REQUEST_SIZE);
}

/// The wrong window of the bus.
#[inline(never)]
fn request_at_cached_alias(ground: &Ground, mailbox: &Mailbox) {
    store_uncached_request(ground);
    ground.dsb();
    mailbox.ring(ground.uncached_bus() & ALIAS_MASK | CACHED_ALIAS);
    mailbox.finish();
}

/// An address of a board with another bus.
#[inline(never)]
fn request_outside_memory(ground: &Ground, mailbox: &Mailbox) {
    store_uncached_request(ground);
    ground.dsb();
    mailbox.ring(ground.uncached_bus() & ALIAS_MASK | NO_WINDOW);
    mailbox.finish();
}

#[inline(never)]
fn right_request(ground: &Ground, mailbox: &Mailbox) {
    store_request(ground, 0);
    ground.clean(0..REQUEST_SIZE);
    ground.dsb();
    mailbox.ring(mailbox.bus(ground));
    mailbox.finish();
    ground.invalidate(0..REQUEST_SIZE);
    ground.dsb();
    ground.load(0..REQUEST_SIZE);
}

/// The least barrier for uncached stores.
#[inline(never)]
fn right_uncached_request(ground: &Ground, mailbox: &Mailbox) {
    store_uncached_request(ground);
    ground.dmb();
    mailbox.ring(ground.uncached_bus());
    mailbox.finish();
    ground.load_uncached(0..REQUEST_SIZE);
}
