//! What this machine is, and how its caches are emptied.

use super::engine;
use crate::check_ok;
use crate::handed::Fault;
use crate::memory::Area;
use crate::report::{self, Outcome};
use crate::verdict::{UncleanedLine, probe};
use core::hint::black_box;
use hal::addr::PAGE_SIZE;
use hal::arch::{barrier, sysreg};
use hal::dma::DmaEngine;
use hal::dma::maintenance::line_size;
use hal::sync::Once;

/// How many times the largest cache is walked through, so that nothing else stays in it.
const WALKED: usize = 2;

/// Whether the engine was seen to read bytes that nobody had cleaned; found out once.
pub(super) fn observable(engine: &dyn DmaEngine) -> Result<bool, Fault> {
    static SEEN: Once<bool> = Once::new();

    if let Some(&seen) = SEEN.get() {
        return Ok(seen);
    }
    let seen = probe(engine)? != UncleanedLine::Arrives;
    Ok(*SEEN.call_once(|| seen))
}

/// The first line of the experiment.
pub(super) fn print() -> Outcome {
    let engine = engine()?;
    let device = engine.device();
    let machine = match (check_ok!(observable(engine)), device.is_coherent()) {
        (true, _) => "non-coherent, caches modelled",
        (false, true) => "coherent, caches not observable",
        (false, false) => "caches not observable",
    };
    report::diagnostic(format_args!(
        "experiment machine=\"{machine}\" engine={} taken-as={} line={} largest-cache={}",
        device.name(),
        if device.is_coherent() {
            "coherent"
        } else {
            "non-coherent"
        },
        line_size(),
        sysreg::largest_data_cache()
    ));
    Ok(())
}

/// Drives everything out of this core's caches by reading other memory.
pub(super) fn evict() -> Result<(), Fault> {
    let size = (WALKED * sysreg::largest_data_cache()).max(PAGE_SIZE);
    let other = Area::alloc(size)?;
    for byte in other.iter().step_by(line_size()) {
        black_box(*byte);
    }
    barrier::dsb_sy();
    Ok(())
}
