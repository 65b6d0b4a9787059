//! Whether this machine shows a line that nobody cleaned.

use super::LEN;
use crate::handed::{Fault, Taken};
use crate::machine::machine;
use crate::memory::{Object, reachable};
use crate::pattern;
use crate::provocation::{DOORBELL, Kind, Provoked, Wrong};
use hal::dma::engine::copy;
use hal::dma::streaming::map_slice;
use hal::dma::{DmaEngine, ToDevice};

/// What becomes of a value the CPU has stored but not cleaned, when the device reads the memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum UncleanedLine {
    /// The device reads it all.
    Arrives,
    /// The device reads this many old bytes.
    StaysBehind(usize),
}

/// Tries at most. A line may be evicted before the engine looks, and then arrives by luck.
const TRIES: usize = 8;

/// Lets the engine look at lines that were stored to and not cleaned, until it reads old bytes.
pub(crate) fn probe(engine: &dyn DmaEngine) -> Result<UncleanedLine, Fault> {
    for _ in 1..TRIES {
        match look(engine)? {
            UncleanedLine::Arrives => {}
            stays => return Ok(stays),
        }
    }
    look(engine)
}

/// Stores new bytes over old ones, keeps the lines from being cleaned, and lets the engine look.
fn look(engine: &dyn DmaEngine) -> Result<UncleanedLine, Fault> {
    let device = engine.device();
    let mut memory = Object::zeroed(LEN, reachable(device))?;
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
        let wrong = Wrong {
            kinds: &[Kind::ReadsDirty],
            place: DOORBELL,
        };
        let _provoked = Provoked::begin(format_args!("verdict=uncleaned"), wrong);
        copy(engine, &source, &mut seen.part_mut(0, LEN)?)?;
    }
    let old = seen.as_slice()[..LEN].iter();
    Ok(match old.filter(|&&byte| byte == pattern::POISON).count() {
        0 => UncleanedLine::Arrives,
        old => UncleanedLine::StaysBehind(old),
    })
}
