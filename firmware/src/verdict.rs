//! What a new user reads: which memory each engine was handed, what the driver did, what happened,
//! and how that is known.
//!
//! Nothing is called right that could not have gone wrong here. `[data]` means that bytes were
//! compared, `[structural]` that attributes, addresses or the driver's own counts were looked at,
//! and `[not observable]` that this machine shows no difference.

mod trip;
mod uncleaned;

pub(crate) use uncleaned::{UncleanedLine, probe};

use crate::check;
use crate::handed::{Fault, Lines, Taken, write_back};
use crate::machine::machine;
use crate::memory::hoard::{LOWEST_ZONE, SLACK, fragment};
use crate::memory::{Area, Object, reachable};
use crate::provocation::{DOORBELL, Kind, Provoked, Wrong};
use crate::report::{self, Outcome, Stop};
use crate::submission::map_refused;
use crate::suites::mapping::physical_breaks;
use core::fmt;
use hal::addr::{DmaAddr, PAGE_SIZE, PhysAddr, VirtAddr};
use hal::arch::translate;
use hal::dma::maintenance::Counters;
use hal::dma::{Device, DmaEngine, DmaError, MemoryKind};
use trip::Trip;

/// Bytes in each buffer: a page, and for vmalloc several.
const LEN: usize = PAGE_SIZE;
const AREA_LEN: usize = 4 * PAGE_SIZE;

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
    let mut first = None;
    for &engine in engines {
        match of_engine(engine, first) {
            Ok(behaviour) => {
                if !behaviour.good {
                    outcome = Err(Stop::Failed);
                }
                first.get_or_insert(behaviour);
            }
            Err(fault) => {
                report::diagnostic(format_args!("{}: {fault}", engine.device().name()));
                outcome = Err(report::stop_for_error(&fault));
            }
        }
    }
    outcome
}

/// Prints the table of `engine`, or one line if it behaves as the `first` engine did.
fn of_engine(engine: &dyn DmaEngine, first: Option<Behaviour>) -> Result<Behaviour, Fault> {
    if let Some(first) = first {
        let behaviour = table(&Out::Discarded, engine)?;
        if behaviour.good && behaviour == first {
            report::diagnostic(format_args!(
                "{}: the same trips, the same results as above",
                engine.device().name()
            ));
            return Ok(behaviour);
        }
        // The run that was not printed counts: a failure may not come twice.
        let mut printed = table(&Out::Printed, engine)?;
        if !behaviour.good && printed.good {
            report::diagnostic(format_args!(
                "{}: a first, unprinted round of these trips failed",
                engine.device().name()
            ));
        }
        printed.good &= behaviour.good;
        return Ok(printed);
    }
    table(&Out::Printed, engine)
}

/// What came of a table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Behaviour {
    /// The right ways work and the wrong one is refused.
    good: bool,
    /// Memory handed over bare had the right bytes.
    bare_is_equal: bool,
    /// Bytes nobody had cleaned arrived.
    snoops: bool,
    /// The device is taken as coherent.
    coherent: bool,
}

/// Where a table goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Out {
    Printed,
    Discarded,
}

macro_rules! say {
    ($out:expr, $($text:tt)*) => {
        if *$out == Out::Printed { report::diagnostic(format_args!($($text)*)) }
    };
}

/// The table of one engine.
fn table(out: &Out, engine: &dyn DmaEngine) -> Result<Behaviour, Fault> {
    let device = engine.device();
    let name = device.name();
    let probed = probe(engine)?;
    say!(out, "");
    match probed {
        UncleanedLine::Arrives => {
            say!(
                out,
                "THIS MACHINE: {name} read bytes that the CPU had stored and nobody had cleaned."
            );
            say!(
                out,
                "  Caches are not observable: {name} snoops them, or there are none (QEMU models"
            );
            say!(
                out,
                "  none). A forgotten clean or invalidate goes unpunished here; not on silicon."
            );
        }
        UncleanedLine::StaysBehind(old) => {
            say!(
                out,
                "THIS MACHINE: {name} read {old} old bytes of {LEN}, because nobody had cleaned"
            );
            say!(
                out,
                "  the lines. Caches are observable: a forgotten clean or invalidate shows."
            );
        }
    }
    let kind = if device.is_coherent() {
        "coherent"
    } else {
        "not coherent"
    };
    say!(out, "");
    say!(
        out,
        "WHICH MEMORY {name} WAS HANDED (taken as {kind}), and what came of it"
    );
    let mut good = is_taken_rightly(out, device, probed);
    good &= streaming(out, engine, probed)?;
    let bare_is_equal = unmaintained(out, engine, probed)?;
    good &= vmalloc(out, engine)?;
    good &= coherent(out, engine)?;
    say!(out, "");
    if good {
        say!(
            out,
            "IN SHORT: hand {name} kmalloc memory through a streaming map, vmalloc memory as a"
        );
        say!(
            out,
            "  scatter list, or dma_alloc_coherent memory. Never a bare pointer."
        );
    } else {
        say!(
            out,
            "IN SHORT: a way that must work does not work here; see above."
        );
    }
    say!(out, "");
    Ok(Behaviour {
        good,
        bare_is_equal,
        snoops: probed == UncleanedLine::Arrives,
        coherent: device.is_coherent(),
    })
}

/// Whether what the device is taken as does not contradict what it was seen to read.
fn is_taken_rightly(out: &Out, device: &Device, probed: UncleanedLine) -> bool {
    let contradicted = device.is_coherent() && probed != UncleanedLine::Arrives;
    if contradicted {
        say!(
            out,
            "  WRONG: {} does not snoop. Nothing is maintained for it, and every buffer is at risk:",
            device.name()
        );
        say!(
            out,
            "  take dma.coherent=yes off the command line, or dma-coherent out of the device tree."
        );
    }
    !contradicted
}

/// A device that is taken as coherent and was seen not to be.
pub fn planted() -> Outcome {
    let Some(engine) = machine().engines.first() else {
        return Err(Stop::Skipped("no DMA engine"));
    };
    let device = engine.device();
    let out = Out::Discarded;
    let old_bytes = UncleanedLine::StaysBehind(1);
    let _coherent = Taken::as_coherent(device, true);
    check!(
        !is_taken_rightly(&out, device, old_bytes),
        "a device that read old bytes passes as coherent"
    );
    check!(
        is_taken_rightly(&out, device, UncleanedLine::Arrives),
        "a device that read new bytes does not pass as coherent"
    );
    Ok(())
}

fn row(out: &Out, what: &str, place: &Place) {
    say!(out, "");
    say!(out, "{what}");
    say!(out, "  memory  {place}");
}

fn equal(out: &Out, trip: &Trip) -> bool {
    say!(out, "  result  {trip} [data]");
    trip.is_equal()
}

fn streaming(out: &Out, engine: &dyn DmaEngine, probed: UncleanedLine) -> Result<bool, Fault> {
    let device = engine.device();
    let mut memory = Object::zeroed(LEN, reachable(device))?;
    row(
        out,
        "kmalloc, through a streaming map: right",
        &Place::of(device, memory.va()),
    );
    let trip = Trip::make(engine, &mut memory)?;
    say!(out, "  driver  {} [structural]", Lines(trip.maintained));
    let good = equal(out, &trip);
    if probed == UncleanedLine::Arrives && !device.is_coherent() {
        say!(
            out,
            "          whether the maintenance was needed: [not observable]"
        );
    }
    Ok(good)
}

/// Whether the bytes were equal. Whatever came of it, it is only shown.
fn unmaintained(out: &Out, engine: &dyn DmaEngine, probed: UncleanedLine) -> Result<bool, Fault> {
    let device = engine.device();
    let mut memory = Object::zeroed(LEN, reachable(device))?;
    let place = Place::of(device, memory.va());
    if device.is_coherent() {
        row(
            out,
            "kmalloc, address handed over bare: right for a coherent device",
            &place,
        );
    } else {
        row(out, "kmalloc, address handed over bare: WRONG", &place);
    }
    let trip = {
        let wrong = Wrong {
            kinds: &[Kind::WritesDirty, Kind::ReadsDirty],
            place: DOORBELL,
        };
        let provoked = Provoked::begin(format_args!("verdict=bare"), wrong);
        let _unmaintained = Taken::as_coherent(device, true);
        let trip = Trip::make(engine, &mut memory);
        drop(provoked);
        write_back(memory.va(), LEN);
        trip?
    };
    say!(out, "  driver  {} [structural]", Lines(trip.maintained));
    match (trip.is_equal(), probed) {
        (true, UncleanedLine::Arrives) => {
            say!(
                out,
                "  result  bytes equal, which proves nothing here [not observable]"
            );
        }
        (true, UncleanedLine::StaysBehind(_)) => {
            say!(out, "  result  bytes equal this time, by luck [data]");
        }
        (false, _) => say!(out, "  result  {trip} [data]"),
    }
    Ok(trip.is_equal())
}

fn vmalloc(out: &Out, engine: &dyn DmaEngine) -> Result<bool, Fault> {
    let device = engine.device();
    // Without a fragmented zone the pages are what they are; how many runs they form is printed.
    let hoard = fragment(AREA_LEN / PAGE_SIZE + SLACK).ok();
    let mut memory = Area::alloc_with(AREA_LEN, LOWEST_ZONE)?;
    drop(hoard);
    let runs = physical_breaks(memory.va(), AREA_LEN).map_or(0, |breaks| breaks + 1);
    let place = Place::of(device, memory.va());
    row(out, "vmalloc, through a scatter list: right", &place);
    say!(
        out,
        "          {} pages, {}runs: {}",
        AREA_LEN / PAGE_SIZE,
        if runs > 1 { "apart in RAM, " } else { "" },
        runs
    );
    let trip = Trip::make(engine, &mut memory)?;
    say!(out, "  driver  {} [structural]", Lines(trip.maintained));
    let good = equal(out, &trip);

    row(
        out,
        "vmalloc, as one piece to a streaming map: WRONG",
        &place,
    );
    let refusal = map_refused(device, memory.va(), AREA_LEN);
    match refusal {
        Err(error) => {
            say!(
                out,
                "  driver  refused it before the engine heard of it [structural]:"
            );
            say!(out, "          {error}");
        }
        Ok(()) => say!(out, "  driver  NOT refused"),
    }
    say!(out, "  result  no transfer");
    let by_name = matches!(
        refusal,
        Err(DmaError::NotMappable {
            kind: MemoryKind::Vmalloc,
            ..
        })
    );
    Ok(good && by_name)
}

fn coherent(out: &Out, engine: &dyn DmaEngine) -> Result<bool, Fault> {
    let device = engine.device();
    let mut memory = machine().pool.alloc(device, LEN)?;
    let place = Place::of(device, memory.va());
    row(out, "dma_alloc_coherent: right", &place);
    let trip = Trip::make(engine, &mut memory)?;
    say!(
        out,
        "  driver  {}, none is needed [structural]",
        Lines(trip.maintained)
    );
    let good = equal(out, &trip);
    let alias = place
        .pa
        .map(|pa| translate::read_el1(hal::layout::phys_to_virt(pa)));
    let no_alias = alias.is_some_and(|par| par.page().is_none());
    if no_alias {
        say!(
            out,
            "          no cacheable alias of it is mapped [structural]"
        );
    } else {
        say!(
            out,
            "          a cacheable alias of it is mapped: WRONG [structural]"
        );
    }
    Ok(good && no_alias && trip.maintained == Counters::default())
}
