//! Objects on several cores at once, and in an interrupt that came into the allocator.

use super::super::interrupt::with_timer_handler;
use crate::failslab::lightly;
use crate::ledger::Ledger;
use crate::machine::machine;
use crate::memory::Object;
use crate::random::Random;
use crate::report::{Outcome, Stop, diagnostic};
use crate::{check, check_ok, check_served};
use core::ops::Range;
use core::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering, compiler_fence};
use hal::arch::counter;
use hal::drivers::gic::Line;
use hal::drivers::irq::IrqHandler;
use hal::mm::Gfp;
use hal::smp;
use hal::sync::{IrqLock, PerCpu};

/// Where cores leave objects for others to free.
static EXCHANGE: IrqLock<[Option<Object>; 32]> = IrqLock::new([const { None }; 32]);

pub(super) fn all_cores() -> Outcome {
    const ROUNDS: usize = 500;
    let before = check_ok!(Ledger::take());
    let (remote, refused, bad) = (
        AtomicUsize::new(0),
        AtomicUsize::new(0),
        AtomicUsize::new(0),
    );
    check_ok!(smp::run_on_all(|core| {
        let mut random = Random::new(machine().seed, core as u64 + 101);
        for _ in 0..lightly(ROUNDS) {
            // Small sizes often, large ones now and then.
            let limit = 64 << random.below(8);
            let size = 1 + random.below(limit);
            let Ok(mut object) = Object::alloc(size, Gfp::KERNEL) else {
                refused.fetch_add(1, Ordering::Relaxed);
                continue;
            };
            let fill = size as u8;
            object.bytes().fill(fill);
            let slot = random.below(32);
            let old = EXCHANGE.lock()[slot].replace(object);
            let Some(mut old) = old else {
                continue;
            };
            remote.fetch_add(1, Ordering::Relaxed);
            let expected = old.len() as u8;
            let intact = old.bytes().iter().all(|byte| *byte == expected);
            if !intact || old.free().is_err() {
                bad.fetch_add(1, Ordering::Relaxed);
            }
        }
    }));
    for slot in 0..32 {
        drop(EXCHANGE.lock()[slot].take());
    }
    let (remote, refused, bad) = (remote.into_inner(), refused.into_inner(), bad.into_inner());
    diagnostic(format_args!(
        "{remote} objects changed hands on {} cores",
        smp::online().count()
    ));
    check!(bad == 0, "{bad} objects shared or not freed");
    let difference = before.difference(&check_ok!(Ledger::take()));
    check!(difference.is_none(), "{difference:?}");
    check_served!(refused);
    Ok(())
}

/// Bytes written of each object, few, so that most of the time goes to the allocator.
const TOUCHED: usize = 32;

/// Allocates in the timer's interrupt, and asks for the next one.
struct AllocateInInterrupt {
    served: AtomicUsize,
    refused: AtomicUsize,
    /// Calls outside of a handler, by what the core says, and objects that could not be freed.
    failed: AtomicUsize,
    /// Interrupts that came while [`INSIDE`].
    inside: AtomicUsize,
    seed: AtomicU64,
}

/// Whether the interrupted code is in a call of the allocator.
static INSIDE: AtomicBool = AtomicBool::new(false);

/// Calls the allocator.
fn inside<T>(call: impl FnOnce() -> T) -> T {
    INSIDE.store(true, Ordering::Relaxed);
    // The handler runs on this core, so the order of the instructions is all that counts.
    compiler_fence(Ordering::SeqCst);
    let result = call();
    compiler_fence(Ordering::SeqCst);
    INSIDE.store(false, Ordering::Relaxed);
    result
}

static IN_INTERRUPT: AllocateInInterrupt = AllocateInInterrupt {
    served: AtomicUsize::new(0),
    refused: AtomicUsize::new(0),
    failed: AtomicUsize::new(0),
    inside: AtomicUsize::new(0),
    seed: AtomicU64::new(0),
};

impl AllocateInInterrupt {
    /// Asks for an interrupt after some time, never the same, and long enough that the
    /// interrupted code gets most of it when a handler takes `spent_ns`.
    fn arm(&self, spent_ns: u64) {
        const SHORTEST_NS: u64 = 2_000;
        let stream = self.seed.fetch_add(1, Ordering::Relaxed);
        let ns = SHORTEST_NS + Random::new(machine().seed, stream).draw() % SHORTEST_NS;
        counter::arm(machine().timer.deadline_after(ns + 4 * spent_ns));
    }
}

impl IrqHandler for AllocateInInterrupt {
    fn handle(&self, _line: Line) {
        let start = machine().timer.now_ns();
        let in_handler = PerCpu::current().irq_depth() > 0;
        let inside = usize::from(INSIDE.load(Ordering::Relaxed));
        self.inside.fetch_add(inside, Ordering::Relaxed);
        for size in [64, 1024] {
            let tally = match Object::alloc(size, Gfp::ATOMIC) {
                Err(_) => &self.refused,
                Ok(mut object) => {
                    object.bytes()[..TOUCHED].fill(0xEE);
                    match object.free() {
                        Ok(()) if in_handler => &self.served,
                        _ => &self.failed,
                    }
                }
            };
            tally.fetch_add(1, Ordering::Relaxed);
        }
        self.arm(machine().timer.now_ns() - start);
    }
}

/// Allocations in interrupts of a run that is not light.
const MOST_WANTED: usize = 200;

pub(super) fn interrupt() -> Outcome {
    const LEAST_ROUNDS: usize = 50;
    const MOST_ROUNDS: usize = 100_000;
    let wanted = lightly(MOST_WANTED);
    IN_INTERRUPT.served.store(0, Ordering::Relaxed);
    IN_INTERRUPT.refused.store(0, Ordering::Relaxed);
    IN_INTERRUPT.failed.store(0, Ordering::Relaxed);
    IN_INTERRUPT.inside.store(0, Ordering::Relaxed);
    let outcome = with_timer_handler(&IN_INTERRUPT, || {
        IN_INTERRUPT.arm(0);
        interrupted_loop(wanted, lightly(LEAST_ROUNDS)..MOST_ROUNDS)
    })?;
    let (served, failed) = (
        IN_INTERRUPT.served.load(Ordering::Relaxed),
        IN_INTERRUPT.failed.load(Ordering::Relaxed),
    );
    let rounds = outcome?;
    let inside = IN_INTERRUPT.inside.load(Ordering::Relaxed);
    diagnostic(format_args!(
        "{served} allocations in interrupts during {rounds} rounds; {inside} interrupts came into a call"
    ));
    check!(failed == 0, "{failed} allocations in an interrupt failed");
    check_served!(IN_INTERRUPT.refused.load(Ordering::Relaxed));
    check!(
        served >= wanted,
        "{served} of {wanted} allocations in {MOST_ROUNDS} rounds"
    );
    // A light run has a few interrupts only.
    check!(
        inside > 0 || wanted < MOST_WANTED,
        "no interrupt came into the allocator"
    );
    Ok(())
}

/// Allocates and frees without pause until the handler has allocated `wanted` times and, unless the
/// run is light, came into a call, for a number of rounds within `limits`. Where an emulator delivers
/// interrupts depends on its host, and it can take many of them until one comes into a call.
fn interrupted_loop(wanted: usize, limits: Range<usize>) -> Result<usize, Stop> {
    let mut rounds = 0;
    let waiting = || {
        let inside = IN_INTERRUPT.inside.load(Ordering::Relaxed);
        IN_INTERRUPT.served.load(Ordering::Relaxed) < wanted || wanted == MOST_WANTED && inside == 0
    };
    while rounds < limits.start || waiting() && rounds < limits.end {
        let mut held = [const { None::<Object> }; 8];
        for (index, slot) in held.iter_mut().enumerate() {
            // The handler's own sizes, so that it meets the caches that were interrupted.
            let size = if index % 2 == 0 { 64 } else { 1024 };
            let mut object = check_ok!(inside(|| Object::alloc(size, Gfp::KERNEL)));
            object.bytes()[..TOUCHED].fill(index as u8);
            *slot = Some(object);
        }
        for (index, slot) in held.iter_mut().enumerate() {
            let intact =
                |object: &mut Object| object.bytes()[..TOUCHED].iter().all(|b| *b == index as u8);
            check!(
                slot.as_mut().is_some_and(intact),
                "an interrupt wrote into object {index}"
            );
        }
        inside(|| drop(held));
        rounds += 1;
    }
    Ok(rounds)
}
