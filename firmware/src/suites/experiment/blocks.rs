//! H4 in a pool: a block that changes hands while the next one has the rest of its last line.

use super::judge::Sight;
use crate::diagnosis::Scene;
use crate::experiment::{Direction, Hazard};
use crate::handed::{Fault, Handed, Meanwhile, ended, scene};
use crate::machine::machine;
use crate::memory::Object;
use crate::pattern::{self, CANARY, LaidOut, POISON};
use hal::arch::translate;
use hal::dma::direction::DirectionKind;
use hal::dma::maintenance::line_size;
use hal::dma::{DmaEngine, DmaPool};
use hal::mm::Gfp;

/// Has the engine write a block, and looks at it and at its neighbour. `None` if the pool does not lay
/// them side by side: then they share no line.
pub(super) fn look(engine: &dyn DmaEngine) -> Result<Option<Sight>, Fault> {
    let device = engine.device();
    let (seed, line) = (machine().seed, line_size());
    let len = 4 * line + line / 2;
    let pool = DmaPool::create("experiment", device, len, 0, 0)?;
    let mut blocks = [pool.alloc(Gfp::KERNEL)?, pool.alloc(Gfp::KERNEL)?];
    blocks.sort_by_key(Handed::va);
    let [block, next] = &mut blocks;
    let va = block.va();
    if next.va() != va + len {
        return Ok(None);
    }
    let mut there = machine().pool.alloc(device, len)?;
    pattern::fill(&mut there.as_mut_slice()[..len], seed);
    block.as_mut_slice().fill(POISON);
    next.as_mut_slice().fill(CANARY);
    let received = block.receive(engine, 0..len, &there.part(0, len)?, Meanwhile::Nothing);
    let mut both = Object::zeroed(2 * len, Gfp::KERNEL)?;
    both[..len].copy_from_slice(&block.as_slice()[..len]);
    both[len..2 * len].copy_from_slice(&next.as_slice()[..len]);
    let read = Scene {
        len,
        ..scene(&both[..2 * len], 0, va, DirectionKind::FromDevice)
    };
    let upkeep = ended(received, read, &LaidOut(seed))?;
    Ok(Some(Sight {
        hazard: Hazard::SharedLine,
        diagnosis: read.diagnose(&LaidOut(seed)),
        upkeep,
        va,
        par: translate::read_el1(va),
        len,
        direction: Direction::FromDevice,
        by_hand: false,
        is_coherent: device.is_coherent(),
        is_direct: Sight::is_direct(device, va, len, &upkeep),
    }))
}
