//! What each method costs by size, and from which size on maps beat coherent memory.

use super::caches::observable;
use super::{engine, method};
use crate::check_ok;
use crate::dma_debug::Unchecked;
use crate::experiment::Method;
use crate::failslab::lightly;
use crate::handed::{Fault, Handed, write_back};
use crate::report::{self, Outcome, Provoked};
use core::hint::black_box;
use hal::addr::PAGE_SIZE;
use hal::arch::counter;
use hal::arch::pmu::InstructionCounter;
use hal::dma::{DmaEngine, coherent};
use hal::mm::Gfp;

/// Bytes of the buffers.
const SIZES: [usize; 5] = [64, 512, PAGE_SIZE, 64 << 10, 1 << 20];

/// Rounds of which the cheapest counts, of all but the copy.
const ROUNDS: usize = 3;

/// What the CPU fills buffers with.
const FILL: u8 = 0x3C;

/// What is counted.
enum Meter {
    /// Instructions of this core, where an emulator counts them.
    Instructions(InstructionCounter),
    /// Ticks of the timer: `CNTVCT_EL0`.
    Ticks,
}

impl Meter {
    /// Time tells something on silicon only, of which caches are a sign.
    fn start(is_silicon: bool) -> Self {
        match InstructionCounter::start() {
            Some(counter) if !is_silicon => Self::Instructions(counter),
            _ => Self::Ticks,
        }
    }

    const fn unit(&self) -> &'static str {
        match self {
            Self::Instructions(_) => "insns",
            Self::Ticks => "ticks",
        }
    }

    fn read(&self) -> u64 {
        match self {
            Self::Instructions(counter) => counter.read().into(),
            Self::Ticks => counter::now(),
        }
    }

    /// What was counted since `start`.
    fn since(&self, start: u64) -> u64 {
        match self {
            Self::Instructions(counter) => counter.read().wrapping_sub(start as u32).into(),
            Self::Ticks => counter::now() - start,
        }
    }

    fn of<T>(&self, f: impl FnOnce() -> T) -> (u64, T) {
        let start = self.read();
        let result = f();
        (self.since(start), result)
    }
}

/// The columns of a row.
#[derive(Clone, Copy, Debug)]
struct Cost {
    alloc: u64,
    fill: u64,
    maintain: u64,
    dma: u64,
    read: u64,
}

impl Cost {
    const MOST: Self = Self {
        alloc: u64::MAX,
        fill: u64::MAX,
        maintain: u64::MAX,
        dma: 0,
        read: u64::MAX,
    };

    /// Column by column the lesser.
    fn min(self, other: Self) -> Self {
        Self {
            alloc: self.alloc.min(other.alloc),
            fill: self.fill.min(other.fill),
            maintain: self.maintain.min(other.maintain),
            dma: self.dma + other.dma,
            read: self.read.min(other.read),
        }
    }

    const fn total(&self) -> u64 {
        self.alloc + self.fill + self.maintain + self.dma + self.read
    }
}

pub(super) fn print() -> Outcome {
    let engine = engine()?;
    let is_silicon = check_ok!(observable(engine));
    let meter = Meter::start(is_silicon);
    let _unchecked = Unchecked::begin();
    let mut crossover = None;
    for &size in &SIZES[..lightly(SIZES.len())] {
        let mut totals = [None; 2];
        for method in Method::ALL {
            let Some(cost) = check_ok!(measure(&meter, engine, method, size)) else {
                continue;
            };
            match method {
                Method::KmallocMap => totals[0] = Some(cost.total()),
                Method::Coherent => totals[1] = Some(cost.total()),
                _ => {}
            }
            report::diagnostic(format_args!(
                "cost method={} size={size} alloc={} fill={} maintain={} dma={} \
                 read={} total={} unit={}",
                method.name(),
                cost.alloc,
                cost.fill,
                cost.maintain,
                cost.dma,
                cost.read,
                cost.total(),
                meter.unit()
            ));
        }
        if let [Some(mapped), Some(coherent)] = totals
            && mapped < coherent
        {
            crossover = crossover.or(Some(size));
        }
    }
    report::diagnostic(format_args!(
        "cost dma is what one copy takes the CPU until it sees the end"
    ));
    if let (Meter::Ticks, false) = (&meter, is_silicon) {
        report::diagnostic(format_args!(
            "cost ticks of an emulator's clock, which say nothing of silicon"
        ));
    }
    match (is_silicon, crossover) {
        (false, _) => report::diagnostic(format_args!(
            "cost crossover=not-observable: nothing cached, so nothing gained by caching"
        )),
        (true, Some(size)) => report::diagnostic(format_args!("cost crossover={size}")),
        (true, None) => report::diagnostic(format_args!("cost crossover=none")),
    }
    Ok(())
}

/// What `size` bytes cost with `method`.
fn measure(
    meter: &Meter,
    engine: &'static dyn DmaEngine,
    method: Method,
    size: usize,
) -> Result<Option<Cost>, Fault> {
    let mut cost = Cost::MOST;
    for round in 0..lightly(ROUNDS) {
        let start = meter.read();
        let used = |memory: &mut dyn Handed| {
            let alloc = meter.since(start);
            let bytes = &mut memory.bytes()[..size];
            let (fill, ()) = meter.of(|| bytes.fill(black_box(FILL)));
            let (maintain, lent) = meter.of(|| memory.lend(engine.device(), 0..size));
            lent?;
            // A copy takes long where an engine is slow: one is enough.
            let provoked = method.is_raw().then(|| {
                let name = method.name();
                Provoked::begin(format_args!("cost method={name} size={size} wrong=any"))
            });
            let dma = match round {
                0 => copy_to(meter, engine, memory, size)?,
                _ => 0,
            };
            let bytes = &memory.bytes()[..size];
            let (read, read_back) = meter.of(|| sum(bytes));
            black_box(read_back);
            if provoked.is_some() {
                write_back(memory.va(), size);
            }
            drop(provoked);
            Ok(Cost {
                alloc,
                fill,
                maintain,
                dma,
                read,
            })
        };
        match method::with(method, engine.device(), size, used)? {
            Some(once) => cost = cost.min(once),
            None => return Ok(None),
        }
    }
    Ok(Some(cost))
}

/// Every byte, eight at a time.
fn sum(bytes: &[u8]) -> u64 {
    let words = bytes.as_chunks().0.iter();
    words.fold(0, |sum, word| sum ^ u64::from_ne_bytes(*word))
}

/// What it takes to have the engine write the `len` bytes, without what maintaining them takes.
fn copy_to(
    meter: &Meter,
    engine: &'static dyn DmaEngine,
    memory: &mut dyn Handed,
    len: usize,
) -> Result<u64, Fault> {
    let source = coherent::alloc(engine.device(), len, Gfp::KERNEL)?;
    let (maintain, lent) = meter.of(|| memory.lend(engine.device(), 0..len));
    lent?;
    let part = source.part(0, len)?;
    let (both, copied) = meter.of(|| memory.receive(engine, 0..len, &part, None));
    copied?;
    Ok(both.saturating_sub(maintain))
}
