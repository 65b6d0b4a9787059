//! The counter that measures, and the proof that it counts right.

use super::shape::Mean;
use crate::cmdline::BenchCounter;
use crate::machine::machine;
use crate::report::{self, Stop, diagnostic};
use core::fmt;
use hal::arch::counter;
use hal::arch::pmu::{CycleCounter, InstructionCounter, count_down, count_down_over_nops};

/// Rounds of the two loops of known length.
const EMPTY_ROUNDS: u64 = 1_000_000;
const NOP_ROUNDS: u64 = 100_000;
/// Instructions in a round of each.
const EMPTY_LENGTH: u64 = 2;
const NOP_LENGTH: u64 = 12;

/// What a loop may be off, in thousandths of an instruction a round: the reads around it, and one
/// step of the virtual counter.
const TOLERANCE: u64 = 2;

/// Attempts to find what the two reads around a call cost; the least counts.
const OVERHEAD_ATTEMPTS: u32 = 16;

/// Time for the other cores to be asleep again, in nanoseconds.
const SETTLE_NS: u64 = 1_000_000;

/// Sleeps until the other cores sleep too. They end what they were asked to do before their
/// answer is read, but not the way back to `WFI`.
pub(super) fn settle() {
    machine().timer.wait_until(SETTLE_NS, || false);
}

/// What is counted.
#[derive(Debug)]
enum Source {
    /// Instructions, by the performance monitor.
    Instructions(InstructionCounter),
    /// Instructions, where an emulator's clock counts them: 1 ns each, in steps of a tick.
    VirtualTime,
    /// Cycles, by the performance monitor.
    Cycles(CycleCounter),
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Instructions(_) => "INST_RETIRED",
            Self::VirtualTime => "CNTVCT_EL0",
            Self::Cycles(_) => "PMCCNTR_EL0",
        })
    }
}

/// A counter of this core that can be believed.
#[derive(Debug)]
pub(super) struct Meter {
    source: Source,
    /// What the reads around a call cost.
    overhead: u64,
}

impl Meter {
    /// The counter the command line asks for, after two loops of known length showed their length;
    /// of a counter of cycles, that it counts at all.
    ///
    /// Without a counter of instructions the clock serves, if it counts them.
    pub(super) fn calibrated(wanted: BenchCounter) -> Result<Self, Stop> {
        let source = match wanted {
            BenchCounter::Instructions => match InstructionCounter::start() {
                Some(counter) => Source::Instructions(counter),
                None => Source::VirtualTime,
            },
            BenchCounter::Cycles => match CycleCounter::start() {
                Some(counter) => Source::Cycles(counter),
                None => return Err(Stop::Skipped("this core has no cycle counter")),
            },
        };
        let mut meter = Self {
            source,
            overhead: 0,
        };
        let empty = Mean::of(meter.count(|| count_down(EMPTY_ROUNDS)), EMPTY_ROUNDS);
        let nops = Mean::of(meter.count(|| count_down_over_nops(NOP_ROUNDS)), NOP_ROUNDS);
        diagnostic(format_args!(
            "counter={} empty_loop={empty} ten_nops={nops}",
            meter.source
        ));
        let right =
            empty.is_within(EMPTY_LENGTH, TOLERANCE) && nops.is_within(NOP_LENGTH, TOLERANCE);
        match meter.source {
            Source::Instructions(_) if !right => {
                return report::failed(format_args!(
                    "the loops have {EMPTY_LENGTH} and {NOP_LENGTH} instructions"
                ));
            }
            Source::VirtualTime if !right => {
                return Err(Stop::Skipped(
                    "nothing counts instructions here: under QEMU ICOUNT=on, or bench.counter=cycles",
                ));
            }
            Source::Cycles(_) if empty == Mean::ZERO => {
                return Err(Stop::Skipped("the cycle counter stands still"));
            }
            Source::Instructions(_) | Source::VirtualTime | Source::Cycles(_) => {}
        }
        let attempts = (0..OVERHEAD_ATTEMPTS).map(|_| meter.count(|| ()));
        meter.overhead = attempts.min().unwrap_or(0);
        Ok(meter)
    }

    /// The key under which a mean is reported.
    pub(super) fn unit(&self) -> &'static str {
        match self.source {
            Source::Instructions(_) | Source::VirtualTime => "insns",
            Source::Cycles(_) => "cycles",
        }
    }

    /// What the reads around a call cost.
    pub(super) fn overhead(&self) -> u64 {
        self.overhead
    }

    /// The counter.
    #[inline(always)]
    pub(super) fn read(&self) -> u64 {
        match &self.source {
            Source::Instructions(counter) => counter.read().into(),
            Source::VirtualTime => counter::now(),
            Source::Cycles(counter) => counter.read(),
        }
    }

    /// What was counted since `start`, which [`read`](Self::read) returned: less than 2^32
    /// instructions ago.
    #[inline(always)]
    pub(super) fn since(&self, start: u64) -> u64 {
        let end = self.read();
        match &self.source {
            Source::Instructions(_) => u64::from((end as u32).wrapping_sub(start as u32)),
            Source::VirtualTime => machine().timer.ticks_to_ns(end - start),
            Source::Cycles(_) => end - start,
        }
    }

    /// What `f` takes, the two reads included.
    #[inline(always)]
    fn count(&self, f: impl FnOnce()) -> u64 {
        let start = self.read();
        f();
        self.since(start)
    }
}
