//! Every core: online, with its own state, its own interrupts and work handed to it.

use crate::boot;
use crate::machine::machine;
use crate::report::{Outcome, Stop, diagnostic};
use crate::{check, check_ok};
use core::sync::atomic::{AtomicU32, AtomicUsize, Ordering};
use embedded_hal::delay::DelayNs;
use hal::addr::VirtAddr;
use hal::arch::exception::backtrace;
use hal::arch::{counter, cpu};
use hal::board::SecondaryStart;
use hal::drivers::gic::Line;
use hal::drivers::irq::IrqHandler;
use hal::smp;
use hal::sync::{MAX_CPUS, PerCpu};

pub(super) fn online() -> Outcome {
    let machine = machine();
    let named = match (
        machine.description.cpus.len(),
        machine.board.secondary_start(),
    ) {
        (0, SecondaryStart::SpinTable(words)) => words.len(),
        (0, SecondaryStart::ParkedOnly) if machine.entry_level == 3 => {
            let up = smp::online().count();
            diagnostic(format_args!("{up} cores that came in together answer"));
            return Err(Stop::Skipped("nobody says how many cores there are"));
        }
        // Nobody names the others, and nobody started them.
        (0, SecondaryStart::ParkedOnly) => 1,
        (count, _) => count,
    };
    for absent in &machine.absent_cores {
        diagnostic(format_args!("{absent}"));
    }
    let up = smp::online().count();
    diagnostic(format_args!("{up} of {named} cores"));
    check!(
        up == named.min(MAX_CPUS),
        "{named} cores are named, {up} are online"
    );
    Ok(())
}

/// Something no two inputs have in common.
fn mix(value: u64) -> u64 {
    value.wrapping_mul(0x9E37_79B9_7F4A_7C15).rotate_left(17)
}

pub(super) fn run_on() -> Outcome {
    let seed = machine().seed;
    for core in smp::online() {
        let (index, result) = check_ok!(smp::run_on(core, || {
            let index = PerCpu::current().index();
            (index, mix(seed ^ index as u64))
        }));
        check!(index == core, "core {core} was asked, core {index} ran");
        let expected = mix(seed ^ core as u64);
        check!(
            result == expected,
            "core {core} returned {result:#x}, not {expected:#x}"
        );
    }
    let offline = (0..MAX_CPUS)
        .find(|&core| !smp::is_online(core))
        .unwrap_or(MAX_CPUS);
    let refusal = smp::run_on(offline, || ());
    check!(
        refusal == Err(smp::SmpError::Offline(offline)),
        "core {offline} is not there, yet {refusal:?}"
    );
    Ok(())
}

pub(super) fn run_on_all() -> Outcome {
    const TIMEOUT_NS: u64 = 1_000_000_000;
    let expected = smp::online().count();
    let timer = machine().timer;
    let arrived = AtomicUsize::new(0);
    let met = AtomicUsize::new(0);
    check_ok!(smp::run_on_all(|_| {
        arrived.fetch_add(1, Ordering::SeqCst);
        // Whoever gets here waits for all the others: one after the other would not do.
        if timer.poll_until(TIMEOUT_NS, || arrived.load(Ordering::SeqCst) == expected) {
            met.fetch_add(1, Ordering::SeqCst);
        }
    }));
    let met = met.into_inner();
    check!(
        met == expected,
        "{met} of {expected} cores met all the others"
    );
    Ok(())
}

/// What belongs to one core.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct State {
    core: usize,
    affinity: u64,
    per_cpu: VirtAddr,
    /// Where it has its frame record, so which stack it is on.
    stack: VirtAddr,
}

impl State {
    fn of_this_core() -> Self {
        let per_cpu = PerCpu::current();
        Self {
            core: per_cpu.index(),
            affinity: cpu::affinity(),
            per_cpu: VirtAddr::from_ptr(per_cpu),
            stack: backtrace::frame_pointer(),
        }
    }

    /// Whether the core is on the thread stack that is its own.
    fn is_on_own_stack(&self) -> bool {
        boot::stacks()
            .get(3 * self.core)
            .is_some_and(|own| own.contains(&self.stack))
    }
}

/// What is wrong with `one`, seen with the states of the `others`.
fn conflict(one: &State, others: &[State]) -> Option<&'static str> {
    let shared = |field: fn(&State) -> u64| {
        others
            .iter()
            .any(|other| other.core != one.core && field(other) == field(one))
    };
    if !one.is_on_own_stack() {
        Some("it is not on its own stack")
    } else if shared(|state| state.per_cpu.get() as u64) {
        Some("another core has the same per-CPU area")
    } else if shared(|state| state.affinity) {
        Some("another core has the same MPIDR_EL1")
    } else {
        None
    }
}

fn states() -> Result<heapless::Vec<State, MAX_CPUS>, smp::SmpError> {
    smp::online()
        .map(|core| smp::run_on(core, State::of_this_core))
        .collect()
}

pub(super) fn own_state() -> Outcome {
    let states = check_ok!(states());
    for (core, state) in smp::online().zip(&states) {
        check!(
            state.core == core,
            "core {core} takes itself for core {}",
            state.core
        );
        diagnostic(format_args!(
            "core {core}: MPIDR_EL1={:#x} per-CPU area {} stack {}",
            state.affinity, state.per_cpu, state.stack
        ));
        let wrong = conflict(state, &states);
        check!(wrong.is_none(), "core {core}: {wrong:?}");
    }
    Ok(())
}

pub(super) fn own_state_planted() -> Outcome {
    let states = check_ok!(states());
    let one = states[0];
    let other_core = (one.core + 1) % MAX_CPUS;
    let strayed = State {
        core: other_core,
        ..one
    };
    let found = conflict(&strayed, &states);
    check!(
        found.is_some(),
        "a core on another core's stack is not noticed"
    );
    let twin = State {
        core: other_core,
        ..one
    };
    let found = conflict(&one, &[one, twin]);
    check!(
        found.is_some(),
        "two cores with one per-CPU area are not noticed"
    );
    Ok(())
}

/// Whether the executing core's timer interrupt comes: its handler disarms the timer.
fn timer_interrupt_comes(wait_ns: u64) -> bool {
    const DEADLINE_NS: u64 = 20_000;
    let timer = machine().timer;
    counter::arm(timer.deadline_after(DEADLINE_NS));
    let came = timer.poll_until(wait_ns, || counter::armed().is_none());
    counter::disarm();
    came
}

pub(super) fn timer() -> Outcome {
    const WAIT_NS: u64 = 100_000_000;
    for core in smp::online() {
        let came = check_ok!(smp::run_on(core, || timer_interrupt_comes(WAIT_NS)));
        check!(came, "core {core} took no timer interrupt");
        // The way drivers wait: asleep until the interrupt.
        let timer = machine().timer;
        let early = check_ok!(smp::run_on(core, || timer.wait_until(100_000, || false)));
        check!(!early, "core {core}: a wait for nothing ended");
    }
    Ok(())
}

pub(super) fn timer_planted() -> Outcome {
    const WAIT_NS: u64 = 200_000;
    for core in smp::online() {
        let came = check_ok!(smp::run_on(core, || {
            let irq = cpu::irq_save();
            let came = timer_interrupt_comes(WAIT_NS);
            cpu::irq_restore(irq);
            came
        }));
        check!(!came, "core {core} masked interrupts and yet took one");
    }
    Ok(())
}

/// An inter-processor interrupt of this suite.
const LINE: Line = match Line::sgi(1) {
    Some(line) => line,
    None => unreachable!(),
};

static TAKEN: [AtomicU32; MAX_CPUS] = [const { AtomicU32::new(0) }; MAX_CPUS];

struct Count;

impl IrqHandler for Count {
    fn handle(&self, _line: Line) {
        TAKEN[PerCpu::current().index()].fetch_add(1, Ordering::SeqCst);
    }
}

/// Which core took an inter-processor interrupt sent to `core` within `wait_ns`.
fn taker(core: usize, wait_ns: u64) -> Option<usize> {
    for count in &TAKEN {
        count.store(0, Ordering::SeqCst);
    }
    let taker = || {
        TAKEN
            .iter()
            .position(|count| count.load(Ordering::SeqCst) != 0)
    };
    if machine().interrupts.gic().send_sgi(LINE, core).is_err() {
        return None;
    }
    machine().timer.poll_until(wait_ns, || taker().is_some());
    taker()
}

/// Runs `f` while [`LINE`] has a handler and is enabled on every core.
fn with_line(f: impl FnOnce() -> Outcome) -> Outcome {
    let interrupts = machine().interrupts;
    check_ok!(interrupts.register(LINE, &Count));
    for core in smp::online() {
        check_ok!(check_ok!(smp::run_on(core, || interrupts
            .gic()
            .enable(LINE))));
    }
    let outcome = f();
    for core in smp::online() {
        check_ok!(check_ok!(smp::run_on(core, || interrupts
            .gic()
            .disable(LINE))));
    }
    interrupts.unregister(LINE);
    outcome
}

pub(super) fn sgi() -> Outcome {
    const WAIT_NS: u64 = 100_000_000;
    with_line(|| {
        for core in smp::online() {
            let taker = taker(core, WAIT_NS);
            check!(
                taker == Some(core),
                "sent to core {core}, taken by {taker:?}"
            );
        }
        Ok(())
    })
}

pub(super) fn sgi_planted() -> Outcome {
    const WAIT_NS: u64 = 200_000;
    with_line(|| {
        for core in smp::online() {
            // Not by turning the line off: a GICv2 need not let software do that to an SGI.
            let taken = check_ok!(smp::run_on(core, || {
                let irq = cpu::irq_save();
                let taken = taker(core, WAIT_NS);
                cpu::irq_restore(irq);
                taken
            }));
            check!(
                taken.is_none(),
                "core {core} masked interrupts, yet {taken:?} took it"
            );
            // It stayed pending, and is taken now.
            let late = || TAKEN[core].load(Ordering::SeqCst) != 0;
            check!(
                machine().timer.poll_until(WAIT_NS, late),
                "core {core} lost the interrupt"
            );
        }
        Ok(())
    })
}

pub(super) fn delays() -> Outcome {
    let mut timer = machine().timer;
    diagnostic(format_args!("CNTFRQ_EL0={} Hz", timer.frequency()));
    for ns in [1, 100, 1_000, 50_000, 1_000_000] {
        let start = timer.now();
        timer.delay_ns(ns);
        let waited = timer.now() - start;
        let least = timer.ns_to_ticks(ns.into());
        check!(
            waited >= least,
            "{ns} ns are {least} ticks; only {waited} passed"
        );
    }
    // Every core has the same time: what one reads lies between two reads of another.
    for core in smp::online() {
        let before = timer.now();
        let theirs = check_ok!(smp::run_on(core, || timer.now()));
        let after = timer.now();
        check!(
            (before..=after).contains(&theirs),
            "core {core} reads {theirs}, between {before} and {after} here"
        );
    }
    Ok(())
}
