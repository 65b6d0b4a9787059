//! The shapes of a measurement: loops over pairs, halves of a batch, single calls.
//!
//! A mean is that of [`REPETITIONS`] repetitions after one that is not measured. The two
//! instructions of the loop are part of it.

use super::meter::Meter;
use crate::report::{self, Stop};
use core::fmt;
use hal::arch::cpu;

/// Measured repetitions.
pub(super) const REPETITIONS: u64 = 5;

/// A number with three decimals.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Mean {
    thousandths: u64,
}

impl Mean {
    /// Nothing.
    pub(super) const ZERO: Self = Self { thousandths: 0 };
    const ONE: u64 = 1000;

    /// `total / count`, rounded to the nearest; `count` is not 0.
    pub(super) const fn of(total: u64, count: u64) -> Self {
        Self {
            thousandths: (total * Self::ONE + count / 2) / count,
        }
    }

    /// Whether the number is at most `tolerance` thousandths from `whole`.
    pub(super) const fn is_within(self, whole: u64, tolerance: u64) -> bool {
        self.thousandths.abs_diff(whole * Self::ONE) <= tolerance
    }
}

impl fmt::Display for Mean {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (whole, rest) = (self.thousandths / Self::ONE, self.thousandths % Self::ONE);
        write!(f, "{whole}.{rest:03}")
    }
}

/// What a row came to.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sample {
    /// Cost of one operation.
    pub(super) mean: Mean,
    /// Cost of the dearest single call, where calls were measured one by one.
    pub(super) max: Option<u64>,
    /// The size, where it is not the row's.
    pub(super) size: Option<u64>,
}

impl Sample {
    /// The mean of `count` operations that cost `total` together.
    pub(super) const fn mean(total: u64, count: u64) -> Self {
        Self {
            mean: Mean::of(total, count),
            max: None,
            size: None,
        }
    }
}

/// What measuring a row returns.
pub(super) type Measured = Result<Sample, Stop>;

/// Says why an operation failed, which ends the row.
#[cold]
pub(super) fn failed(error: impl fmt::Display) -> Stop {
    match report::failed::<()>(format_args!("{error}")) {
        Ok(()) => Stop::Failed,
        Err(stop) => stop,
    }
}

/// Runs `repetition` once without counting and then [`REPETITIONS`] times; the sum of what it says
/// it took.
#[inline(always)]
pub(super) fn repeat(mut repetition: impl FnMut() -> Result<u64, Stop>) -> Result<u64, Stop> {
    let mut total = 0;
    // One call, so that it is inlined and the measured loop keeps what it uses in registers.
    for round in 0..=REPETITIONS {
        let spent = repetition()?;
        if round > 0 {
            total += spent;
        }
    }
    Ok(total)
}

/// Measures `ops` operations in a loop. `finish` does what they have put off, within the time of
/// each repetition.
#[inline(always)]
pub(super) fn pairs<E: fmt::Display>(
    meter: &Meter,
    ops: u32,
    mut operation: impl FnMut() -> Result<(), E>,
    finish: impl Fn(),
) -> Measured {
    let total = repeat(|| {
        let start = meter.read();
        let mut left = ops;
        while left != 0 {
            operation().map_err(failed)?;
            left -= 1;
        }
        finish();
        Ok(meter.since(start))
    })?;
    Ok(Sample::mean(total, REPETITIONS * u64::from(ops)))
}

/// The half of a workload that a row reports.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Half {
    /// The allocations.
    Alloc,
    /// The frees.
    Free,
}

/// Calls measured one by one, IRQs masked.
#[derive(Debug)]
pub(super) struct Calls<'a> {
    meter: &'a Meter,
    total: u64,
    count: u64,
    worst: u64,
}

impl<'a> Calls<'a> {
    /// None so far.
    pub(super) fn new(meter: &'a Meter) -> Self {
        Self {
            meter,
            total: 0,
            count: 0,
            worst: 0,
        }
    }

    /// Measures one call, without what measuring costs.
    #[inline(always)]
    pub(super) fn time<R>(&mut self, call: impl FnOnce() -> R) -> R {
        let irq = cpu::irq_save();
        let start = self.meter.read();
        let result = call();
        let spent = self.meter.since(start);
        cpu::irq_restore(irq);
        let spent = spent.saturating_sub(self.meter.overhead());
        self.total += spent;
        self.count += 1;
        self.worst = self.worst.max(spent);
        result
    }

    /// Adds the calls of `other`.
    pub(super) fn join(&mut self, other: &Self) {
        self.total += other.total;
        self.count += other.count;
        self.worst = self.worst.max(other.worst);
    }

    /// Mean and maximum.
    pub(super) fn sample(&self) -> Sample {
        Sample {
            max: Some(self.worst),
            ..Sample::mean(self.total, self.count.max(1))
        }
    }
}
