//! What a new user reads: which memory each engine was handed, what the driver did, what happened,
//! and how that is known.
//!
//! Nothing is called right that could not have gone wrong here. `[data]` means that bytes were
//! compared, `[structural]` that attributes, addresses or the driver's own counts were looked at,
//! and `[not observable]` that this machine shows no difference.

use crate::machine::machine;
use crate::memory::{Area, Heap, map_refused, reachable};
use crate::pattern::{self, Mismatch};
use crate::report::{self, Outcome, Stop};
use core::fmt;
use hal::addr::{DmaAddr, PAGE_SIZE, PhysAddr, VirtAddr};
use hal::arch::translate;
use hal::dma::engine::{Destination, Source, copy};
use hal::dma::maintenance::{Counters, counters};
use hal::dma::sg::ScatterEntry;
use hal::dma::streaming::map_slice;
use hal::dma::{
    Coherent, Device, DmaEngine, DmaError, FromDevice, MemoryKind, ScatterList, ToDevice,
};
use hal::mm::{AllocError, VmallocError};

/// Bytes in each buffer: a page, and for vmalloc several.
const LEN: usize = PAGE_SIZE;
const AREA_LEN: usize = 4 * PAGE_SIZE;

/// Takes a device as coherent or not for a while.
///
/// To be held over whole maps, from map to unmap, while nobody else uses the device.
pub(crate) struct Taken<'a> {
    device: &'a Device,
    before: bool,
}

impl<'a> Taken<'a> {
    pub(crate) fn as_coherent(device: &'a Device, coherent: bool) -> Self {
        let before = device.is_coherent();
        device.set_coherent(coherent);
        Self { device, before }
    }
}

impl Drop for Taken<'_> {
    fn drop(&mut self) {
        self.device.set_coherent(self.before);
    }
}

/// Why the table cannot be made.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Fault {
    #[error(transparent)]
    Dma(#[from] DmaError),
    #[error(transparent)]
    Kmalloc(#[from] AllocError),
    #[error(transparent)]
    Vmalloc(#[from] VmallocError),
}

/// What becomes of a value the CPU has stored but not cleaned, when the device reads the memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum UncleanedLine {
    /// The device reads it all.
    Arrives,
    /// The device reads this many old bytes.
    StaysBehind(usize),
}

/// Stores new bytes over old ones, keeps the lines from being cleaned, and lets the engine look.
pub(crate) fn probe(engine: &dyn DmaEngine) -> Result<UncleanedLine, Fault> {
    let device = engine.device();
    let mut memory = Heap::new(LEN, reachable(device))?;
    let mut seen = machine().pool.alloc(device, LEN)?;
    memory.fill(pattern::POISON);
    {
        let _maintained = Taken::as_coherent(device, false);
        map_slice::<ToDevice>(device, &mut memory)?.unmap();
    }
    pattern::fill(&mut memory, machine().seed);
    {
        let _unmaintained = Taken::as_coherent(device, true);
        let source = map_slice::<ToDevice>(device, &mut memory)?;
        copy(engine, &source, &mut seen.part_mut(0, LEN)?)?;
    }
    let old = seen.as_slice()[..LEN].iter();
    Ok(match old.filter(|&&byte| byte == pattern::POISON).count() {
        0 => UncleanedLine::Arrives,
        old => UncleanedLine::StaysBehind(old),
    })
}

/// Memory that an engine is handed in one of the ways there are.
trait Handed {
    fn bytes(&mut self) -> &mut [u8];
    /// Lets the engine write it.
    fn receive(&mut self, engine: &dyn DmaEngine, source: &dyn Source) -> Result<(), DmaError>;
    /// Lets the engine read it.
    fn send(&mut self, engine: &dyn DmaEngine, to: &mut dyn Destination) -> Result<(), DmaError>;
}

impl Handed for Heap {
    fn bytes(&mut self) -> &mut [u8] {
        self
    }

    fn receive(&mut self, engine: &dyn DmaEngine, source: &dyn Source) -> Result<(), DmaError> {
        let mut mapping = map_slice::<FromDevice>(engine.device(), self)?;
        copy(engine, source, &mut mapping)
    }

    fn send(&mut self, engine: &dyn DmaEngine, to: &mut dyn Destination) -> Result<(), DmaError> {
        let mapping = map_slice::<ToDevice>(engine.device(), self)?;
        copy(engine, &mapping, to)
    }
}

impl Handed for Area {
    fn bytes(&mut self) -> &mut [u8] {
        self
    }

    fn receive(&mut self, engine: &dyn DmaEngine, source: &dyn Source) -> Result<(), DmaError> {
        let mut room = [ScatterEntry::default(); AREA_LEN / PAGE_SIZE];
        let list = ScatterList::new(&mut room, self)?;
        copy(
            engine,
            source,
            &mut list.map::<FromDevice>(engine.device())?,
        )
    }

    fn send(&mut self, engine: &dyn DmaEngine, to: &mut dyn Destination) -> Result<(), DmaError> {
        let mut room = [ScatterEntry::default(); AREA_LEN / PAGE_SIZE];
        let list = ScatterList::new(&mut room, self)?;
        copy(engine, &list.map::<ToDevice>(engine.device())?, to)
    }
}

impl Handed for Coherent {
    fn bytes(&mut self) -> &mut [u8] {
        self.as_mut_slice()
    }

    fn receive(&mut self, engine: &dyn DmaEngine, source: &dyn Source) -> Result<(), DmaError> {
        let len = self.len();
        copy(engine, source, &mut self.part_mut(0, len)?)
    }

    fn send(&mut self, engine: &dyn DmaEngine, to: &mut dyn Destination) -> Result<(), DmaError> {
        copy(engine, &self.part(0, self.len())?, to)
    }
}

/// What came of one kind of memory.
struct Trip {
    /// The engine wrote the memory, the CPU read it.
    received: Result<(), Mismatch>,
    /// The CPU wrote the memory, the engine read it.
    sent: Result<(), Mismatch>,
    maintained: Counters,
}

impl Trip {
    /// Has the engine write `memory` and then read it, each time with new bytes.
    fn make(engine: &dyn DmaEngine, memory: &mut dyn Handed) -> Result<Self, Fault> {
        let seed = machine().seed;
        let len = memory.bytes().len();
        let mut there = machine().pool.alloc(engine.device(), len)?;
        let before = counters();

        pattern::fill(&mut there.as_mut_slice()[..len], seed);
        memory.bytes().fill(pattern::POISON);
        memory.receive(engine, &there.part(0, len)?)?;
        let received = pattern::verify(memory.bytes(), 0, len, seed);

        there.as_mut_slice().fill(pattern::POISON);
        pattern::fill(memory.bytes(), !seed);
        memory.send(engine, &mut there.part_mut(0, len)?)?;
        let sent = pattern::verify(&there.as_slice()[..len], 0, len, !seed);

        let after = counters();
        Ok(Self {
            received,
            sent,
            maintained: Counters {
                cleaned: after.cleaned - before.cleaned,
                invalidated: after.invalidated - before.invalidated,
                cleaned_and_invalidated: after.cleaned_and_invalidated
                    - before.cleaned_and_invalidated,
            },
        })
    }

    fn is_equal(&self) -> bool {
        self.received.is_ok() && self.sent.is_ok()
    }
}

impl fmt::Display for Trip {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.received, self.sent) {
            (Ok(()), Ok(())) => f.write_str("bytes equal in both directions"),
            (Err(flaw), Ok(())) => write!(f, "written by the engine, read by the CPU: {flaw}"),
            (Ok(()), Err(flaw)) => write!(f, "written by the CPU, read by the engine: {flaw}"),
            (Err(read), Err(wrote)) => write!(f, "CPU reads: {read}; engine reads: {wrote}"),
        }
    }
}

/// The lines a driver maintained, in words.
struct Lines(Counters);

impl fmt::Display for Lines {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0 == Counters::default() {
            return f.write_str("no cache maintenance");
        }
        write!(f, "{} lines cleaned", self.0.cleaned)?;
        write!(f, " before, {} invalidated after", self.0.invalidated)?;
        match self.0.cleaned_and_invalidated {
            0 => Ok(()),
            shared => write!(f, ", {shared} shared lines cleaned and invalidated"),
        }
    }
}

/// Where a buffer is, for everybody who looks at it.
struct Place {
    va: VirtAddr,
    pa: Option<PhysAddr>,
    bus: Option<DmaAddr>,
}

impl Place {
    fn of(device: &Device, va: VirtAddr) -> Self {
        let pa = translate::read_el1(va).page();
        let bus = pa.and_then(|pa| device.dma_addr(pa, 1).ok());
        Self { va, pa, bus }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "CPU {}", self.va)?;
        if let Some(pa) = self.pa {
            write!(f, ", RAM {pa}")?;
        }
        if let Some(bus) = self.bus {
            write!(f, ", bus {bus}")?;
        }
        write!(f, ", {} by PAR_EL1", translate::read_el1(self.va))
    }
}

/// Prints the verdict for every engine. Passes if the right ways work and the wrong one is refused.
pub fn print() -> Outcome {
    let engines = &machine().engines;
    if engines.is_empty() {
        return Err(Stop::Skipped("no DMA engine"));
    }
    let mut outcome = Ok(());
    for &engine in engines {
        match table(engine) {
            Ok(true) => {}
            Ok(false) => outcome = Err(Stop::Failed),
            Err(fault) => {
                report::diagnostic(format_args!("{}: {fault}", engine.device().name()));
                outcome = Err(Stop::Failed);
            }
        }
    }
    outcome
}

macro_rules! say {
    ($($text:tt)*) => { report::diagnostic(format_args!($($text)*)) };
}

/// The table of one engine, and whether all is as it must be.
fn table(engine: &dyn DmaEngine) -> Result<bool, Fault> {
    let device = engine.device();
    let name = device.name();
    let probed = probe(engine)?;
    say!("");
    match probed {
        UncleanedLine::Arrives => {
            say!("THIS MACHINE: {name} read bytes that the CPU had stored and nobody had cleaned.");
            say!("  Caches are not observable: {name} snoops them, or there are none (QEMU models");
            say!("  none). A forgotten clean or invalidate goes unpunished here; not on silicon.");
        }
        UncleanedLine::StaysBehind(old) => {
            say!("THIS MACHINE: {name} read {old} old bytes of {LEN}, because nobody had cleaned");
            say!("  the lines. Caches are observable: a forgotten clean or invalidate shows.");
        }
    }
    let kind = if device.is_coherent() {
        "coherent"
    } else {
        "not coherent"
    };
    say!("");
    say!("WHICH MEMORY {name} WAS HANDED (taken as {kind}), and what came of it");
    let mut good = streaming(engine, probed)?;
    good &= unmaintained(engine, probed)?;
    good &= vmalloc(engine)?;
    good &= coherent(engine)?;
    say!("");
    say!("IN SHORT: hand {name} kmalloc memory through a streaming map, vmalloc memory as a");
    say!("  scatter list, or dma_alloc_coherent memory. Never a bare pointer.");
    say!("");
    Ok(good)
}

fn row(what: &str, place: &Place) {
    say!("");
    say!("{what}");
    say!("  memory  {place}");
}

fn equal(trip: &Trip) -> bool {
    say!("  result  {trip} [data]");
    trip.is_equal()
}

fn streaming(engine: &dyn DmaEngine, probed: UncleanedLine) -> Result<bool, Fault> {
    let device = engine.device();
    let mut memory = Heap::new(LEN, reachable(device))?;
    row(
        "kmalloc, through a streaming map: right",
        &Place::of(device, memory.va()),
    );
    let trip = Trip::make(engine, &mut memory)?;
    say!("  driver  {} [structural]", Lines(trip.maintained));
    let good = equal(&trip);
    if probed == UncleanedLine::Arrives && !device.is_coherent() {
        say!("          whether the maintenance was needed: [not observable]");
    }
    Ok(good)
}

fn unmaintained(engine: &dyn DmaEngine, probed: UncleanedLine) -> Result<bool, Fault> {
    let device = engine.device();
    let mut memory = Heap::new(LEN, reachable(device))?;
    let place = Place::of(device, memory.va());
    if device.is_coherent() {
        row(
            "kmalloc, address handed over bare: right for a coherent device",
            &place,
        );
    } else {
        row("kmalloc, address handed over bare: WRONG", &place);
    }
    let _unmaintained = Taken::as_coherent(device, true);
    let trip = Trip::make(engine, &mut memory)?;
    say!("  driver  {} [structural]", Lines(trip.maintained));
    match (trip.is_equal(), probed) {
        (true, UncleanedLine::Arrives) => {
            say!("  result  bytes equal, which proves nothing here [not observable]");
        }
        (true, UncleanedLine::StaysBehind(_)) => {
            say!("  result  bytes equal this time, by luck [data]");
        }
        (false, _) => say!("  result  {trip} [data]"),
    }
    // Whatever came of it, it is only shown.
    Ok(true)
}

fn vmalloc(engine: &dyn DmaEngine) -> Result<bool, Fault> {
    let device = engine.device();
    let mut memory = Area::fragmented(AREA_LEN, reachable(device))?;
    let place = Place::of(device, memory.va());
    row("vmalloc, through a scatter list: right", &place);
    say!(
        "          {} pages, apart in RAM on purpose: segments {}",
        AREA_LEN / PAGE_SIZE,
        memory.runs()
    );
    let trip = Trip::make(engine, &mut memory)?;
    say!("  driver  {} [structural]", Lines(trip.maintained));
    let good = equal(&trip);

    row("vmalloc, as one piece to a streaming map: WRONG", &place);
    let refusal = map_refused(device, memory.va(), AREA_LEN);
    match refusal {
        Err(error) => {
            say!("  driver  refused it before the engine heard of it [structural]:");
            say!("          {error}");
        }
        Ok(()) => say!("  driver  NOT refused"),
    }
    say!("  result  no transfer");
    let by_name = matches!(
        refusal,
        Err(DmaError::NotMappable {
            kind: MemoryKind::Vmalloc,
            ..
        })
    );
    Ok(good && by_name)
}

fn coherent(engine: &dyn DmaEngine) -> Result<bool, Fault> {
    let device = engine.device();
    let mut memory = machine().pool.alloc(device, LEN)?;
    let place = Place::of(device, memory.va());
    row("dma_alloc_coherent: right", &place);
    let trip = Trip::make(engine, &mut memory)?;
    say!(
        "  driver  {}, none is needed [structural]",
        Lines(trip.maintained)
    );
    let good = equal(&trip);
    let alias = place
        .pa
        .map(|pa| translate::read_el1(hal::layout::phys_to_virt(pa)));
    let no_alias = alias.is_some_and(|par| par.page().is_none());
    if no_alias {
        say!("          no cacheable alias of it is mapped [structural]");
    } else {
        say!("          a cacheable alias of it is mapped: WRONG [structural]");
    }
    Ok(good && no_alias && trip.maintained == Counters::default())
}
