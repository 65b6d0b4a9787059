//! Copies from every core, and what became of them.

use super::buffer::Buffer;
use super::contents::{Contents, Flaw};
use super::options::{BadOptions, Kind, Options};
use super::shape::{Number, Shape, Shapes};
use crate::failslab;
use crate::handed::Fault;
use crate::machine::machine;
use crate::submission::when_free;
use core::fmt;
use core::num::NonZeroUsize;
use hal::addr::{DmaAddr, VirtAddr};
use hal::arch::cpu;
use hal::dma::engine::{Destination, Source, copy_within};
use hal::dma::{Completion, DmaEngine, DmaError};
use hal::smp::{self, SmpError};
use hal::sync::{IrqLock, MAX_CPUS, PerCpu};

const NS_PER_MS: u64 = 1_000_000;
const NS_PER_S: u64 = 1_000_000_000;

/// One engine under test.
#[derive(Debug)]
pub(crate) struct Client<'a> {
    engine: &'static dyn DmaEngine,
    number: usize,
    options: &'a Options<'a>,
    shapes: Shapes<'a>,
}

/// What is done to the buffers between a copy and the look at them: nothing, but for who plants a
/// fault.
pub(crate) type Tamper = fn(&Contents, source: &mut [u8], destination: &mut [u8]);

/// Does nothing.
pub(crate) fn leave(_: &Contents, _: &mut [u8], _: &mut [u8]) {}

/// What is wrong with a copy.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Why {
    #[error(transparent)]
    Dma(DmaError),
    #[error(transparent)]
    Bytes(Flaw),
}

/// Where one side of a copy is.
#[derive(Clone, Copy, Debug)]
struct Place {
    kind: Kind,
    offset: usize,
    va: VirtAddr,
    /// Its first address on the device's side, if it was lent.
    bus: Option<DmaAddr>,
}

impl Place {
    fn new(buffer: &Buffer, offset: usize) -> Self {
        Self {
            kind: buffer.kind(),
            offset,
            va: buffer.va(offset),
            bus: None,
        }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}+{:#x} cpu={}", self.kind, self.offset, self.va)?;
        match self.bus {
            Some(bus) => write!(f, " bus={bus}"),
            None => f.write_str(" not lent"),
        }
    }
}

/// A copy that failed, with what it takes to have it again.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Failure {
    number: Number,
    len: usize,
    from: Place,
    to: Place,
    pub(crate) why: Why,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{}; core={} iteration={} len={} src={} dst={} seed={:#x}",
            self.why,
            self.number.core,
            self.number.iteration,
            self.len,
            self.from,
            self.to,
            machine().seed
        )
    }
}

/// What became of the copies of one core.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    /// Copies that were made.
    pub(crate) tests: u32,
    /// Of these, copies that were wrong or ended with an error.
    pub(crate) failures: u32,
    /// Of these, copies that took too long.
    pub(crate) timeouts: u32,
    bytes: u64,
    ns: u64,
    /// The first copy that failed.
    pub(crate) failure: Option<Failure>,
    /// Why there were no buffers.
    pub(crate) refused: Option<Fault>,
}

impl Tally {
    fn count(&mut self, len: usize, failure: Option<Failure>) {
        self.tests += 1;
        let Some(failure) = failure else {
            self.bytes += len as u64;
            return;
        };
        self.failures += 1;
        self.timeouts += u32::from(matches!(failure.why, Why::Dma(DmaError::Timeout(_))));
        self.failure.get_or_insert(failure);
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let per_second = |amount: u64| match self.ns {
            0 => 0,
            ns => u128::from(amount) * u128::from(NS_PER_S) / u128::from(ns),
        };
        let hundredths = per_second(u64::from(self.tests) * 100);
        write!(
            f,
            "tests={} failures={} timeouts={} bytes={} ns={} iops={}.{:02} bytes_per_s={}",
            self.tests,
            self.failures,
            self.timeouts,
            self.bytes,
            self.ns,
            hundredths / 100,
            hundredths % 100,
            per_second(self.bytes)
        )
    }
}

/// The tallies of the cores, by number.
pub(crate) type Tallies = [Tally; MAX_CPUS];

/// The two buffers of each kind of memory that are copied between.
struct Buffers {
    from: heapless::Vec<Buffer, { Kind::ALL.len() }>,
    to: heapless::Vec<Buffer, { Kind::ALL.len() }>,
}

impl Buffers {
    fn alloc(client: &Client<'_>) -> Result<Self, Fault> {
        let alloc = || {
            let kinds = client.options.memory.kinds().iter();
            let room = client.shapes.room();
            let device = client.engine.device();
            kinds
                .map(|&kind| Buffer::alloc(kind, device, room))
                .collect::<Result<_, _>>()
        };
        Ok(Self {
            from: alloc()?,
            to: alloc()?,
        })
    }

    fn of(&mut self, shape: &Shape) -> Option<(&mut Buffer, &mut Buffer)> {
        let mut from = self.from.iter_mut();
        let mut to = self.to.iter_mut();
        Some((
            from.find(|buffer| buffer.kind() == shape.from)?,
            to.find(|buffer| buffer.kind() == shape.to)?,
        ))
    }
}

impl<'a> Client<'a> {
    /// Tests engine `number` of the machine, `engine`, as `options` say.
    ///
    /// # Errors
    ///
    /// [`BadOptions`].
    pub(crate) fn new(
        number: usize,
        engine: &'static dyn DmaEngine,
        options: &'a Options<'a>,
    ) -> Result<Self, BadOptions> {
        Ok(Self {
            engine,
            number,
            options,
            shapes: Shapes::new(options, engine.length_granule(), machine().seed)?,
        })
    }

    /// Copies each core makes.
    pub(crate) fn iterations(&self) -> u32 {
        let asked = self.options.iterations as usize;
        u32::try_from(failslab::lightly(asked)).unwrap_or(self.options.iterations)
    }

    /// Lets every core submit, as many at the same time as the options say.
    pub(crate) fn run(&self) -> Result<Tallies, SmpError> {
        let tallies: [IrqLock<Tally>; MAX_CPUS] = core::array::from_fn(|_| IrqLock::default());
        let cores = smp::online().count();
        let threads = self.options.threads.map_or(cores, NonZeroUsize::get);
        for group in 0..cores.div_ceil(threads) {
            smp::run_on_all(|core| {
                let position = smp::online().take_while(|&other| other != core).count();
                if position / threads == group {
                    let tally = self.submit(core, leave);
                    *tallies[core].lock() = tally;
                }
            })?;
        }
        Ok(tallies.map(|mut tally| core::mem::take(tally.get_mut())))
    }

    /// Lets the calling core submit, and does `tamper` to the buffers of each copy.
    pub(crate) fn run_here(&self, tamper: Tamper) -> Tally {
        self.submit(PerCpu::current().index(), tamper)
    }

    /// Makes the copies of `core`, on that core.
    fn submit(&self, core: usize, tamper: Tamper) -> Tally {
        let mut tally = Tally::default();
        let mut buffers = match Buffers::alloc(self) {
            Ok(buffers) => buffers,
            Err(fault) => {
                tally.refused = Some(fault);
                return tally;
            }
        };
        let begin = machine().timer.now_ns();
        for iteration in 0..self.iterations() {
            let number = Number {
                engine: self.number,
                core,
                iteration,
            };
            let shape = self.shapes.draw(number);
            if let Some((from, to)) = buffers.of(&shape) {
                let failure = self.copy(number, &shape, from, to, tamper);
                tally.count(shape.len, failure);
            }
        }
        tally.ns = machine().timer.now_ns() - begin;
        tally
    }

    /// Makes one copy and looks at every byte of both buffers. What is wrong, if anything is.
    fn copy(
        &self,
        number: Number,
        shape: &Shape,
        from: &mut Buffer,
        to: &mut Buffer,
        tamper: Tamper,
    ) -> Option<Failure> {
        let (mut src, mut dst) = (Place::new(from, shape.src), Place::new(to, shape.dst));
        let contents = shape.contents();
        contents.lay_out(from.bytes(), to.bytes());
        let device = self.engine.device();
        let copied = from.lend(device, contents.source(), |source| {
            src.bus = source.segment(0).map(|segment| segment.addr);
            to.lend_mut(device, contents.destination(), |destination| {
                dst.bus = destination.segment(0).map(|segment| segment.addr);
                let timeout_ns = self.timeout_ns(shape.len);
                when_free(timeout_ns, || self.transfer(source, destination))
            })
        });
        tamper(&contents, from.bytes(), to.bytes());
        let why = match copied {
            Ok(()) if self.options.verify => {
                Why::Bytes(contents.compare(from.bytes(), to.bytes()).err()?)
            }
            copied => Why::Dma(copied.err()?),
        };
        Some(Failure {
            number,
            len: shape.len,
            from: src,
            to: dst,
            why,
        })
    }

    /// Nanoseconds a submission may take, if the options say.
    fn asked_timeout_ns(&self) -> Option<u64> {
        let ms = self.options.timeout_ms?;
        Some(u64::from(ms) * NS_PER_MS)
    }

    /// Nanoseconds a submission of `len` bytes may take.
    fn timeout_ns(&self, len: usize) -> u64 {
        self.asked_timeout_ns()
            .unwrap_or_else(|| self.engine.timeout_ns(len))
    }

    /// Copies once and waits as the options say. IRQs are masked if the end is polled for: what
    /// ends the copy is then not the engine's handler on this core.
    fn transfer(
        &self,
        source: &dyn Source,
        destination: &mut dyn Destination,
    ) -> Result<(), DmaError> {
        let timeout_ns = self.asked_timeout_ns();
        let mut copy =
            |completion| copy_within(self.engine, source, destination, completion, timeout_ns);
        if !self.options.polled {
            return copy(Completion::Interrupt);
        }
        let irq = cpu::irq_save();
        let copied = copy(Completion::Polled);
        cpu::irq_restore(irq);
        copied
    }
}
