//! What an engine and the CPU read of each other in one kind of memory.

use crate::diagnosis::Diagnosis;
use crate::handed::{Fault, Handed, Meanwhile, ended, scene, since};
use crate::machine::machine;
use crate::pattern::{self, LaidOut};
use core::fmt;
use hal::dma::DmaEngine;
use hal::dma::direction::DirectionKind;
use hal::dma::maintenance::{Counters, counters};

/// What came of one kind of memory.
pub(super) struct Trip {
    /// The engine wrote the memory, the CPU read it.
    pub(super) received: Option<Diagnosis>,
    /// The CPU wrote the memory, the engine read it.
    pub(super) sent: Option<Diagnosis>,
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
        let va = memory.va();
        let received = memory.receive(engine, 0..len, &there.part(0, len)?, Meanwhile::Nothing);
        let read = scene(memory.bytes(), 0, va, DirectionKind::FromDevice);
        ended(received, read, &LaidOut(seed))?;
        let received = scene(memory.bytes(), 0, va, DirectionKind::FromDevice);
        let received = received.diagnose(&LaidOut(seed));

        there.as_mut_slice().fill(pattern::POISON);
        pattern::fill(memory.bytes(), !seed);
        let mut to = there.part_mut(0, len)?;
        let sent = memory.send(engine, 0..len, &mut to, Meanwhile::Nothing);
        let written = scene(&there.as_slice()[..len], 0, va, DirectionKind::ToDevice);
        ended(sent, written, &LaidOut(!seed))?;
        let sent = scene(&there.as_slice()[..len], 0, va, DirectionKind::ToDevice);
        let sent = sent.diagnose(&LaidOut(!seed));

        Ok(Self {
            received,
            sent,
            maintained: since(before),
        })
    }

    pub(super) fn is_equal(&self) -> bool {
        self.received.is_none() && self.sent.is_none()
    }
}

impl fmt::Display for Trip {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.received, self.sent) {
            (None, None) => f.write_str("bytes equal in both directions"),
            (Some(flaw), None) => write!(f, "written by the engine, read by the CPU: {flaw}"),
            (None, Some(flaw)) => write!(f, "written by the CPU, read by the engine: {flaw}"),
            (Some(read), Some(wrote)) => write!(f, "CPU reads: {read}; engine reads: {wrote}"),
        }
    }
}
