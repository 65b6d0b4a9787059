//! What an engine and the CPU read of each other in one kind of memory.

use super::{AREA_LEN, Fault};
use crate::machine::machine;
use crate::memory::{Area, Object};
use crate::pattern::{self, Mismatch};
use core::fmt;
use hal::addr::PAGE_SIZE;
use hal::dma::engine::{Destination, Source, copy};
use hal::dma::maintenance::{Counters, counters};
use hal::dma::sg::ScatterEntry;
use hal::dma::streaming::map_slice;
use hal::dma::{Coherent, DmaEngine, DmaError, FromDevice, ScatterList, ToDevice};

/// Memory that an engine is handed in one of the ways there are.
pub(super) trait Handed {
    fn bytes(&mut self) -> &mut [u8];
    /// Lets the engine write it.
    fn receive(&mut self, engine: &dyn DmaEngine, source: &dyn Source) -> Result<(), DmaError>;
    /// Lets the engine read it.
    fn send(&mut self, engine: &dyn DmaEngine, to: &mut dyn Destination) -> Result<(), DmaError>;
}

impl Handed for Object {
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
pub(super) struct Trip {
    /// The engine wrote the memory, the CPU read it.
    pub(super) received: Result<(), Mismatch>,
    /// The CPU wrote the memory, the engine read it.
    pub(super) sent: Result<(), Mismatch>,
    pub(super) maintained: Counters,
}

impl Trip {
    /// Has the engine write `memory` and then read it, each time with new bytes.
    pub(super) fn make(engine: &dyn DmaEngine, memory: &mut dyn Handed) -> Result<Self, Fault> {
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

    pub(super) fn is_equal(&self) -> bool {
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
pub(super) struct Lines(pub(super) Counters);

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
