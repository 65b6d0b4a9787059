//! Memory of each kind in the hands of a DMA engine, and what handing it over took.

mod kinds;
mod window;

pub(crate) use window::{Window, invalidate_by_hand};

use crate::diagnosis::{Diagnosis, Scene};
use crate::pattern::Expected;
use crate::submission::copy_while;
use core::fmt;
use core::ops::Range;
use hal::addr::VirtAddr;
use hal::arch::{barrier, cache, translate};
use hal::dma::direction::DirectionKind;
use hal::dma::engine::{Destination, Source, copy};
use hal::dma::maintenance::{Counters, counters, line_size};
use hal::dma::pool::PoolCreateError;
use hal::dma::{Device, DmaEngine, DmaError, DmaPoolError, DmaSegment};
use hal::mm::{AllocError, CmaError, VmallocError};
use hal::mmu::MemoryType;

/// Why memory could not be had or handed over.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Fault {
    #[error(transparent)]
    Dma(#[from] DmaError),
    #[error(transparent)]
    Kmalloc(#[from] AllocError),
    #[error(transparent)]
    Vmalloc(#[from] VmallocError),
    #[error(transparent)]
    Pool(#[from] DmaPoolError),
    #[error(transparent)]
    Create(#[from] PoolCreateError),
    #[error(transparent)]
    Cma(#[from] CmaError),
    /// The device never reported an end, and what that made of the copy.
    #[error("transfer timed out after {timeout_ns} ns; {diagnosis}")]
    Unended {
        timeout_ns: u64,
        diagnosis: Diagnosis,
    },
}

/// What handing memory over and taking it back took.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Upkeep {
    /// Maintained before the engine started.
    pub(crate) before: Counters,
    /// Maintained after it had ended.
    pub(crate) after: Counters,
    /// The first segment that the engine was given.
    pub(crate) first: Option<DmaSegment>,
    /// How many there were.
    pub(crate) segments: usize,
}

impl Upkeep {
    /// All of it.
    pub(crate) fn total(&self) -> Counters {
        Counters {
            cleaned: self.before.cleaned + self.after.cleaned,
            invalidated: self.before.invalidated + self.after.invalidated,
            cleaned_and_invalidated: self.before.cleaned_and_invalidated
                + self.after.cleaned_and_invalidated,
        }
    }

    /// Notes what the engine is about to be given.
    fn starts(&mut self, begin: Counters, segment: impl Fn(usize) -> Option<DmaSegment>) {
        self.before = since(begin);
        self.first = segment(0);
        self.segments = (0..).map_while(segment).count();
    }
}

/// What was maintained since `before`.
pub(crate) fn since(before: Counters) -> Counters {
    let after = counters();
    Counters {
        cleaned: after.cleaned - before.cleaned,
        invalidated: after.invalidated - before.invalidated,
        cleaned_and_invalidated: after.cleaned_and_invalidated - before.cleaned_and_invalidated,
    }
}

/// A copy that ended: all of `bytes` but the first and the last `at`. The CPU has the memory that
/// changed hands at `va`.
pub(crate) fn scene(bytes: &[u8], at: usize, va: VirtAddr, direction: DirectionKind) -> Scene<'_> {
    let memory = translate::read_el1(va).memory_type();
    Scene {
        bytes,
        at,
        len: bytes.len() - 2 * at,
        va,
        // Device memory and memory that is not mapped have no lines either.
        memory: memory.unwrap_or(MemoryType::NormalNonCacheable),
        direction,
        line: line_size(),
        has_ended: true,
        in_ram: None,
    }
}

/// What a hand-over took. Of one whose device never reported an end the copy, as `scene` shows it, is
/// looked at before the run ends for it.
pub(crate) fn ended(
    result: Result<Upkeep, DmaError>,
    scene: Scene<'_>,
    expected: &impl Expected,
) -> Result<Upkeep, Fault> {
    let Err(DmaError::Timeout(timeout_ns)) = result else {
        return Ok(result?);
    };
    let scene = Scene {
        has_ended: false,
        ..scene
    };
    Err(match scene.diagnose(expected) {
        Some(diagnosis) => Fault::Unended {
            timeout_ns,
            diagnosis,
        },
        None => DmaError::Timeout(timeout_ns).into(),
    })
}

/// What happens while memory is lent, besides the transfer.
#[derive(Clone, Copy)]
pub(crate) enum Meanwhile<'a> {
    Nothing,
    /// A look at the clock, before the engine is told anything and when its end was seen.
    Timed(&'a dyn Fn()),
    /// What the CPU does to the memory before the engine is started, again while it works, and again
    /// when it has ended. Source and destination are of one segment.
    Accessed(&'a dyn Fn(&Window<'_>)),
}

/// Memory that an engine is handed in one of the ways there are.
pub(crate) trait Handed {
    /// Where the CPU has it.
    fn va(&self) -> VirtAddr;

    /// Its bytes.
    fn bytes(&mut self) -> &mut [u8];

    /// Lets the engine write `part` of it.
    fn receive(
        &mut self,
        engine: &dyn DmaEngine,
        part: Range<usize>,
        source: &dyn Source,
        meanwhile: Meanwhile<'_>,
    ) -> Result<Upkeep, DmaError>;

    /// Lets the engine read `part` of it.
    fn send(
        &mut self,
        engine: &dyn DmaEngine,
        part: Range<usize>,
        to: &mut dyn Destination,
        meanwhile: Meanwhile<'_>,
    ) -> Result<Upkeep, DmaError>;

    /// Lends `part` of it to a device that writes, and takes it back: what that takes by itself.
    fn lend(&mut self, device: &Device, part: Range<usize>) -> Result<(), DmaError>;
}

/// Copies, with something to do meanwhile, perhaps to the memory that the window shows.
fn transfer(
    engine: &dyn DmaEngine,
    source: &dyn Source,
    to: &mut dyn Destination,
    window: &Window<'_>,
    meanwhile: Meanwhile<'_>,
) -> Result<(), DmaError> {
    match meanwhile {
        Meanwhile::Nothing => copy(engine, source, to),
        Meanwhile::Timed(look) => {
            look();
            let ended = copy(engine, source, to);
            look();
            ended
        }
        Meanwhile::Accessed(access) => {
            access(window);
            let len = source.segment(0).map_or(0, |segment| segment.len);
            let during = || access(window);
            copy_while(engine, source, to, engine.timeout_ns(len), during)?;
            access(window);
            Ok(())
        }
    }
}

/// Memory whose addresses the engine is given bare: nobody maintains it.
pub(crate) struct Bare<'a>(pub(crate) &'a mut dyn Handed);

impl Handed for Bare<'_> {
    fn va(&self) -> VirtAddr {
        self.0.va()
    }

    fn bytes(&mut self) -> &mut [u8] {
        self.0.bytes()
    }

    fn receive(
        &mut self,
        engine: &dyn DmaEngine,
        part: Range<usize>,
        source: &dyn Source,
        meanwhile: Meanwhile<'_>,
    ) -> Result<Upkeep, DmaError> {
        let _unmaintained = Taken::as_coherent(engine.device(), true);
        self.0.receive(engine, part, source, meanwhile)
    }

    fn send(
        &mut self,
        engine: &dyn DmaEngine,
        part: Range<usize>,
        to: &mut dyn Destination,
        meanwhile: Meanwhile<'_>,
    ) -> Result<Upkeep, DmaError> {
        let _unmaintained = Taken::as_coherent(engine.device(), true);
        self.0.send(engine, part, to, meanwhile)
    }

    fn lend(&mut self, device: &Device, part: Range<usize>) -> Result<(), DmaError> {
        let _unmaintained = Taken::as_coherent(device, true);
        self.0.lend(device, part)
    }
}

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

/// Writes the lines of `len` bytes at `va` to memory and drops them.
pub(crate) fn write_back(va: VirtAddr, len: usize) {
    drop_lines(va, len);
    barrier::dsb_sy();
}

/// As [`write_back`], without waiting for it.
#[inline(always)]
pub(crate) fn drop_lines(va: VirtAddr, len: usize) {
    let line = line_size();
    let first = va.get() & !(line - 1);
    for at in (first..va.get() + len).step_by(line) {
        cache::clean_invalidate_line(VirtAddr::new(at));
    }
}

/// The lines a driver maintained, in words.
pub(crate) struct Lines(pub(crate) Counters);

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
