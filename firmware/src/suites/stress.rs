//! All allocators at once: every core allocates, frees and hands over, and on every core a timer
//! interrupt allocates in the middle of it.

use super::interrupt::with_timer_handler;
use crate::ledger::Ledger;
use crate::machine::machine;
use crate::memory::named::{Named, STATE, Small, cache, with_state};
use crate::memory::{Area, Object, Pages};
use crate::random::Random;
use crate::report::{Outcome, Suite, diagnostic};
use crate::{check, check_ok, check_served};
use core::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use hal::arch::counter;
use hal::drivers::gic::Line;
use hal::drivers::irq::IrqHandler;
use hal::mm::{self, AllocError, Gfp, KmemCache, MAX_PACKED_SIZE, Owner, SlabFlags, fault};
use hal::smp;
use hal::sync::{IrqLock, MAX_CPUS, PerCpu};

/// The suite.
pub(super) const SUITE: Suite = Suite {
    name: "stress",
    tests: tests! {
        every_core_allocates_while_interrupts_allocate: storm,
        every_core_allocates_while_interrupts_allocate_planted: storm_planted,
    },
};

/// Calls each core makes.
const ROUNDS: usize = 1500;

/// Calls each core makes in a sweep of failing allocations: few, since each starts interrupts that call too.
const ROUNDS_OF_A_SWEEP: usize = 24;

fn rounds() -> usize {
    if fault::is_armed() {
        ROUNDS_OF_A_SWEEP
    } else {
        ROUNDS
    }
}

/// What a core holds at most.
const HELD: usize = 24;

/// What its interrupt handler holds at most.
const STASHED: usize = 8;

/// Places where one core leaves memory for another.
const MAILBOXES: usize = 16;

/// Shortest and longest time between two interrupts of a core, in nanoseconds: from much less than
/// a call that meets an empty list takes, to several calls.
const INTERVAL_NS: (usize, usize) = (300, 6_000);

/// A cache with magazines, and one whose objects keep their state while they are free.
static PLAIN: KmemCache = cache("test-storm", 320, 8, SlabFlags::empty());
static CONSTRUCTED: KmemCache = with_state("test-storm-constructed");

/// Who the tasks' accounted objects are charged to: more than they ever hold.
static OWNER: Owner = Owner::new("stress suite", 64 << 20);

/// Memory of any kind, signed.
#[derive(Debug)]
struct Held {
    memory: Memory,
    tag: u8,
}

#[derive(Debug)]
enum Memory {
    Object(Object),
    Named(Named),
    /// Of [`CONSTRUCTED`].
    Constructed(Named),
    Small(Small),
    Pages(Pages),
    Area(Area),
}

impl Memory {
    /// An object of one of the slab caches, as `random` has it. Interrupt handlers work for nobody,
    /// so what they allocate is charged to nobody.
    fn object(gfp: Gfp, random: &mut Random) -> Result<Self, AllocError> {
        match random.below(16) {
            0..3 => Named::alloc(&PLAIN, gfp).map(Self::Named),
            3..5 => Named::alloc(&CONSTRUCTED, gfp).map(Self::Constructed),
            5..8 => {
                let size = SIGNATURE + random.below(MAX_PACKED_SIZE - SIGNATURE);
                Small::alloc(size, gfp).map(Self::Small)
            }
            8..11 => Object::alloc(object_size(random), gfp | Gfp::ACCOUNT).map(Self::Object),
            _ => Object::alloc(object_size(random), gfp).map(Self::Object),
        }
    }

    /// Whether the memory is as it must be when it is given out.
    fn is_as_constructed(&mut self) -> bool {
        match self {
            Self::Constructed(object) => object.bytes().chunks(STATE_SIZE).all(is_state),
            _ => true,
        }
    }

    /// Leaves the memory as it must be when it is given back.
    fn restore(&mut self) {
        if let Self::Constructed(object) = self {
            let chunks = object.bytes().chunks_exact_mut(STATE_SIZE);
            chunks.for_each(|word| word.copy_from_slice(&STATE.to_ne_bytes()));
        }
    }

    fn bytes(&mut self) -> &mut [u8] {
        match self {
            Self::Object(object) => object.bytes(),
            Self::Named(object) | Self::Constructed(object) => object.bytes(),
            Self::Small(object) => object.object().bytes(),
            Self::Pages(pages) => pages.bytes(),
            Self::Area(area) => area,
        }
    }
}

/// Bytes of a word of [`STATE`].
const STATE_SIZE: usize = size_of_val(&STATE);

fn is_state(word: &[u8]) -> bool {
    word == STATE.to_ne_bytes()
}

/// Bytes of a signature: the least that can be signed.
const SIGNATURE: usize = 2;

impl Held {
    /// Signs `memory` at both ends, where a neighbour or a second owner would write.
    fn new(memory: Memory, tag: u8) -> Self {
        let mut held = Self { memory, tag };
        let bytes = held.memory.bytes();
        if let [first, .., last] = bytes {
            (*first, *last) = (tag, !tag);
        }
        held
    }

    /// Whether somebody else wrote into the memory.
    fn is_trespassed(&mut self) -> bool {
        let tag = self.tag;
        !matches!(self.memory.bytes(), [first, .., last] if (*first, *last) == (tag, !tag))
    }
}

/// What happened, over all cores.
#[derive(Debug, Default)]
struct Counts {
    served: AtomicUsize,
    /// Task requests that found no memory: there is always enough.
    refused: AtomicUsize,
    trespassed: AtomicUsize,
    /// Objects given out in another state than their constructor's.
    spoilt: AtomicUsize,
    handed_over: AtomicUsize,
    interrupts: AtomicUsize,
    /// Interrupts that came while the task was inside a call of an allocator.
    inside: AtomicUsize,
}

/// What the interrupt handlers work on.
struct Storm {
    seed: AtomicU64,
    counts: Counts,
    stop: AtomicBool,
    stashes: [IrqLock<[Option<Held>; STASHED]>; MAX_CPUS],
    mailboxes: [IrqLock<Option<Held>>; MAILBOXES],
    /// Whether the core's task is inside a call of an allocator.
    inside: [AtomicBool; MAX_CPUS],
    ticks: [AtomicU64; MAX_CPUS],
}

static STORM: Storm = Storm {
    seed: AtomicU64::new(0),
    counts: Counts {
        served: AtomicUsize::new(0),
        refused: AtomicUsize::new(0),
        trespassed: AtomicUsize::new(0),
        spoilt: AtomicUsize::new(0),
        handed_over: AtomicUsize::new(0),
        interrupts: AtomicUsize::new(0),
        inside: AtomicUsize::new(0),
    },
    stop: AtomicBool::new(true),
    stashes: [const { IrqLock::new([const { None }; STASHED]) }; MAX_CPUS],
    mailboxes: [const { IrqLock::new(None) }; MAILBOXES],
    inside: [const { AtomicBool::new(false) }; MAX_CPUS],
    ticks: [const { AtomicU64::new(0) }; MAX_CPUS],
};

impl IrqHandler for Storm {
    fn handle(&self, _line: Line) {
        counter::disarm();
        let start = machine().timer.now_ns();
        let core = PerCpu::current().index();
        self.counts.interrupts.fetch_add(1, Ordering::Relaxed);
        if self.inside[core].load(Ordering::Relaxed) {
            self.counts.inside.fetch_add(1, Ordering::Relaxed);
        }
        let tick = self.ticks[core].fetch_add(1, Ordering::Relaxed);
        let stream = (tick << 8) | 0x80 | core as u64;
        let mut random = Random::new(self.seed.load(Ordering::Relaxed), stream);
        self.exchange(core, &mut random);
        if !self.stop.load(Ordering::Relaxed) {
            let spent_ns = machine().timer.now_ns() - start;
            self.arm(spent_ns, &mut random);
        }
    }
}

impl Storm {
    /// Sets this core's next interrupt. Where instructions take much longer than time says, as
    /// under an emulator, the tasks still get most of it.
    fn arm(&self, spent_ns: u64, random: &mut Random) {
        let ns = INTERVAL_NS.0 + random.below(INTERVAL_NS.1 - INTERVAL_NS.0);
        counter::arm(machine().timer.deadline_after(ns as u64 + 2 * spent_ns));
    }

    /// Frees what is in a place of the core's stash and puts something new there; now and then the
    /// old goes to a mailbox, so that a task, perhaps of another core, frees it.
    fn exchange(&self, core: usize, random: &mut Random) {
        let tag = random.draw() as u8;
        let gfp = Gfp::ATOMIC | Gfp::NOWARN;
        let new = if random.below(8) == 0 {
            Pages::alloc(gfp, random.below(3) as u32).map(Memory::Pages)
        } else {
            Memory::object(gfp, random)
        };
        // Nobody but this handler takes the lock before the storm is over.
        let old = {
            let mut stash = self.stashes[core].lock();
            let place = &mut stash[random.below(STASHED)];
            core::mem::replace(place, new.ok().map(|memory| self.sign(memory, tag)))
        };
        if random.below(3) == 0 {
            self.hand_over(old, random);
        } else {
            self.release(old);
        }
    }

    /// Puts `held` in a mailbox, and frees what was there.
    fn hand_over(&self, held: Option<Held>, random: &mut Random) {
        let mailbox = &self.mailboxes[random.below(MAILBOXES)];
        let previous = core::mem::replace(&mut *mailbox.lock(), held);
        if previous.is_some() {
            self.counts.handed_over.fetch_add(1, Ordering::Relaxed);
        }
        self.release(previous);
    }

    /// Checks what was given out, and signs it.
    fn sign(&self, mut memory: Memory, tag: u8) -> Held {
        let spoilt = usize::from(!memory.is_as_constructed());
        self.counts.spoilt.fetch_add(spoilt, Ordering::Relaxed);
        Held::new(memory, tag)
    }

    /// Checks the signature and frees.
    fn release(&self, held: Option<Held>) {
        if let Some(mut held) = held {
            let trespassed = usize::from(held.is_trespassed());
            self.counts
                .trespassed
                .fetch_add(trespassed, Ordering::Relaxed);
            held.memory.restore();
        }
    }

    /// One core's share: random calls, with interrupts in between and inside.
    fn work(&self, core: usize) {
        let mut random = Random::new(self.seed.load(Ordering::Relaxed), core as u64);
        let mut held = [const { None::<Held> }; HELD];
        let mut areas = [const { None::<Held> }; 4];
        let inside = &self.inside[core];
        // Without an owner, which is possible only while they are used up, nothing is charged.
        let _charged = mm::charge_to(&OWNER);
        self.arm(0, &mut random);
        for _ in 0..rounds() {
            let tag = random.draw() as u8;
            let kind = random.below(32);
            let slot = random.below(HELD);
            inside.store(true, Ordering::Relaxed);
            let (old, new) = if kind == 0 {
                // Areas are freed by tasks only, so they go into no mailbox.
                let place = &mut areas[slot % 4];
                let bytes = 1 + random.below(1 << 16);
                (place.take(), Area::alloc(bytes).map(Memory::Area).ok())
            } else if kind < 6 {
                let order = random.below(5) as u32;
                (
                    held[slot].take(),
                    Pages::alloc(Gfp::KERNEL, order).map(Memory::Pages).ok(),
                )
            } else {
                (
                    held[slot].take(),
                    Memory::object(Gfp::KERNEL, &mut random).ok(),
                )
            };
            if kind != 0 && random.below(4) == 0 {
                self.hand_over(old, &mut random);
            } else {
                self.release(old);
            }
            inside.store(false, Ordering::Relaxed);
            let counter = if new.is_some() {
                &self.counts.served
            } else {
                &self.counts.refused
            };
            counter.fetch_add(1, Ordering::Relaxed);
            let new = new.map(|memory| self.sign(memory, tag));
            match kind {
                0 => areas[slot % 4] = new,
                _ => held[slot] = new,
            }
        }
        counter::disarm();
        held.into_iter()
            .chain(areas)
            .for_each(|held| self.release(held));
    }

    /// Frees what the handlers and the mailboxes still hold.
    fn clear(&self) {
        for stash in &self.stashes {
            let left = core::mem::replace(&mut *stash.lock(), [const { None }; STASHED]);
            left.into_iter().for_each(|held| self.release(held));
        }
        for mailbox in &self.mailboxes {
            let left = mailbox.lock().take();
            self.release(left);
        }
    }
}

/// Mostly small, sometimes up to two pages, sometimes beyond the slab; at least the two bytes of a
/// signature.
fn object_size(random: &mut Random) -> usize {
    SIGNATURE
        + match random.below(16) {
            0 => random.below(64 << 10),
            1..4 => random.below(8 << 10),
            _ => random.below(512),
        }
}

fn storm() -> Outcome {
    /// Goes up with every run, so that `iters=` does not repeat the same calls.
    static RUN: AtomicU64 = AtomicU64::new(0);
    let run = RUN.fetch_add(1, Ordering::Relaxed);
    let before = check_ok!(Ledger::take());
    let counts = &STORM.counts;
    for count in [
        &counts.served,
        &counts.refused,
        &counts.trespassed,
        &counts.spoilt,
        &counts.handed_over,
        &counts.interrupts,
        &counts.inside,
    ] {
        count.store(0, Ordering::Relaxed);
    }
    STORM
        .seed
        .store(machine().seed.wrapping_add(run << 32), Ordering::Relaxed);
    STORM.stop.store(false, Ordering::Relaxed);

    let (ran, stopped) = with_timer_handler(&STORM, || {
        let ran = smp::run_on_all(|core| STORM.work(core));
        STORM.stop.store(true, Ordering::Relaxed);
        // An interrupt that came after the last disarm has armed the timer again.
        (ran, smp::run_on_all(|_| counter::disarm()))
    })?;
    STORM.clear();
    check_ok!(ran);
    check_ok!(stopped);

    let get = |count: &AtomicUsize| count.load(Ordering::Relaxed);
    let cores = smp::online().count();
    diagnostic(format_args!(
        "{} calls on {cores} cores, {} interrupts, {} of them inside a call, {} blocks handed over",
        get(&counts.served),
        get(&counts.interrupts),
        get(&counts.inside),
        get(&counts.handed_over),
    ));
    check!(
        get(&counts.trespassed) == 0,
        "{} blocks had two owners",
        get(&counts.trespassed)
    );
    let (spoilt, charged) = (get(&counts.spoilt), OWNER.used());
    check!(spoilt == 0, "{spoilt} objects had lost their state");
    check!(charged == 0, "{charged} bytes stay charged");
    check_served!(get(&counts.refused));
    check!(get(&counts.served) == cores * rounds(), "calls are missing");
    // A light run may be over before the first interrupt. How many come depends on when QEMU, which
    // counts instructions as time, lets another core run.
    let is_light = rounds() != ROUNDS;
    check!(
        is_light || get(&counts.inside) > 0,
        "the interrupts missed the allocators"
    );
    check!(
        is_light || get(&counts.handed_over) > 0,
        "nothing changed hands"
    );
    let difference = before.difference(&check_ok!(Ledger::take()));
    check!(difference.is_none(), "{difference:?}");
    Ok(())
}

fn storm_planted() -> Outcome {
    let mut held = Held::new(
        Memory::Object(check_ok!(Object::alloc(96, Gfp::KERNEL))),
        0x5A,
    );
    check!(!held.is_trespassed(), "the signature does not hold");
    if let Some(last) = held.memory.bytes().last_mut() {
        *last ^= 1;
    }
    check!(held.is_trespassed(), "a second owner's store was not found");
    let mut memory = Memory::Constructed(check_ok!(Named::alloc(&CONSTRUCTED, Gfp::KERNEL)));
    check!(
        memory.is_as_constructed(),
        "a new object has lost its state"
    );
    let mut held = Held::new(memory, 0x5A);
    check!(
        !held.memory.is_as_constructed(),
        "a lost state was not found"
    );
    held.memory.restore();
    check!(
        held.memory.is_as_constructed(),
        "the state was not restored"
    );
    Ok(())
}
