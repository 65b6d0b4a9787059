//! What an engine and the CPU read of each other in one kind of memory.

use crate::handed::{Fault, Handed, since};
use crate::machine::machine;
use crate::pattern::{self, Mismatch};
use core::fmt;
use hal::dma::DmaEngine;
use hal::dma::maintenance::{Counters, counters};

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
        memory.receive(engine, 0..len, &there.part(0, len)?, None)?;
        let received = pattern::verify(memory.bytes(), 0, len, seed);

        there.as_mut_slice().fill(pattern::POISON);
        pattern::fill(memory.bytes(), !seed);
        memory.send(engine, 0..len, &mut there.part_mut(0, len)?, None)?;
        let sent = pattern::verify(&there.as_slice()[..len], 0, len, !seed);

        Ok(Self {
            received,
            sent,
            maintained: since(before),
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
