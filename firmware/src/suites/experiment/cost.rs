//! What each method costs by size, and from which size on maps beat coherent memory.

use super::caches::observable;
use super::{engine, method};
use crate::check_ok;
use crate::dma_debug::Unchecked;
use crate::experiment::{Crossover, Method};
use crate::failslab::lightly;
use crate::handed::{Fault, Handed, Meanwhile, write_back};
use crate::provocation::{DOORBELL, Kind, Provoked, Wrong};
use crate::report::{self, Outcome};
use core::cell::Cell;
use core::hint::black_box;
use hal::addr::PAGE_SIZE;
use hal::arch::counter;
use hal::arch::pmu::InstructionCounter;
use hal::dma::{DmaEngine, coherent};
use hal::mm::Gfp;

/// Bytes of the buffers.
const SIZES: [usize; 5] = [64, 512, PAGE_SIZE, 64 << 10, 1 << 20];

/// Rounds of which the cheapest counts. The copy is of the last, when the code is warm: one takes long
/// where an engine is slow.
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
    /// Where caches were seen time tells something, and elsewhere instructions at most.
    fn start(caches: bool) -> Self {
        match InstructionCounter::start() {
            Some(counter) if !caches => Self::Instructions(counter),
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

    /// What was counted between two readings.
    fn between(&self, start: u64, end: u64) -> u64 {
        match self {
            Self::Instructions(_) => (end as u32).wrapping_sub(start as u32).into(),
            Self::Ticks => end - start,
        }
    }

    /// What was counted since `start`.
    fn since(&self, start: u64) -> u64 {
        self.between(start, self.read())
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
    /// What the CPU does: all but the copy.
    const fn of_cpu(&self) -> u64 {
        self.alloc + self.fill + self.maintain + self.read
    }

    const fn total(&self) -> u64 {
        self.of_cpu() + self.dma
    }
}

pub(super) fn print() -> Outcome {
    let engine = engine()?;
    let caches = check_ok!(observable(engine));
    let meter = Meter::start(caches);
    let _unchecked = Unchecked::begin();
    let mut maps_are_cheaper = heapless::Vec::<_, { SIZES.len() }>::new();
    for &size in &SIZES[..lightly(SIZES.len())] {
        let mut of_cpu = [None; 2];
        for method in Method::ALL {
            let Some(cost) = check_ok!(measure(&meter, engine, method, size)) else {
                continue;
            };
            match method {
                Method::KmallocMap => of_cpu[0] = Some(cost.of_cpu()),
                Method::Coherent => of_cpu[1] = Some(cost.of_cpu()),
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
        if let [Some(mapped), Some(coherent)] = of_cpu {
            // There is room for every size.
            let _ = maps_are_cheaper.push((size, mapped < coherent));
        }
    }
    report::diagnostic(format_args!(
        "cost dma is what one copy takes the CPU until it sees the end; alloc includes zeroing, and of \
         dma-pool the pool's creation"
    ));
    if let (Meter::Ticks, false) = (&meter, caches) {
        report::diagnostic(format_args!(
            "cost ticks of an emulator's clock, which say nothing of silicon"
        ));
    }
    match caches {
        false => report::diagnostic(format_args!(
            "cost crossover=not-observable: nothing cached, so nothing gained by caching"
        )),
        true => report::diagnostic(format_args!(
            "cost crossover={}, without dma",
            Crossover::of(maps_are_cheaper)
        )),
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
    let mut cheapest: Option<Cost> = None;
    let rounds = lightly(ROUNDS);
    for round in 1..=rounds {
        let start = meter.read();
        let used = |memory: &mut dyn Handed| {
            let alloc = meter.since(start);
            let bytes = &mut memory.bytes()[..size];
            let (fill, ()) = meter.of(|| bytes.fill(black_box(FILL)));
            let maintain = match method.is_raw() {
                // Nobody does anything.
                true => 0,
                false => {
                    let (maintain, lent) = meter.of(|| memory.lend(engine.device(), 0..size));
                    lent?;
                    maintain
                }
            };
            let dma = match round == rounds {
                true => {
                    let _provoked = method.is_raw().then(|| provoked(method, size));
                    copy_to(meter, engine, memory, size)?
                }
                false => 0,
            };
            let bytes = &memory.bytes()[..size];
            let (read, read_back) = meter.of(|| sum(bytes));
            black_box(read_back);
            if method.is_raw() {
                write_back(memory.va(), size);
            }
            Ok(Cost {
                alloc,
                fill,
                maintain,
                dma,
                read,
            })
        };
        let Some(once) = method::with(method, engine.device(), size, used)? else {
            return Ok(None);
        };
        let cheaper = cheapest.filter(|cost| cost.of_cpu() <= once.of_cpu());
        cheapest = Some(Cost {
            dma: once.dma,
            ..cheaper.unwrap_or(once)
        });
    }
    Ok(cheapest)
}

/// What was filled is not cleaned before the engine writes it.
fn provoked(method: Method, size: usize) -> Provoked {
    let wrong = Wrong {
        kinds: &[Kind::WritesDirty],
        place: DOORBELL,
    };
    let name = method.name();
    Provoked::begin(format_args!("cost method={name} size={size}"), wrong)
}

/// Every byte, eight at a time.
fn sum(bytes: &[u8]) -> u64 {
    let words = bytes.as_chunks().0.iter();
    words.fold(0, |sum, word| sum ^ u64::from_ne_bytes(*word))
}

/// What it takes to have the engine write `len` bytes that are lent to it already.
fn copy_to(
    meter: &Meter,
    engine: &'static dyn DmaEngine,
    memory: &mut dyn Handed,
    len: usize,
) -> Result<u64, Fault> {
    let source = coherent::alloc(engine.device(), len, Gfp::KERNEL)?;
    let part = source.part(0, len)?;
    let readings = Cell::new([0; 2]);
    let look = || readings.set([readings.get()[1], meter.read()]);
    memory.receive(engine, 0..len, &part, Meanwhile::Timed(&look))?;
    let [start, end] = readings.get();
    Ok(meter.between(start, end))
}
