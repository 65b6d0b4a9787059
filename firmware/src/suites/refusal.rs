//! Refusals by name, and engines that work on after them.

use crate::machine::machine;
use crate::memory::{Object, reachable};
use crate::oom::OutOfMemory;
use crate::report::{self, Outcome};
use crate::{check, check_ok, pattern};
use hal::dma::engine::copy;
use hal::dma::streaming::map_shared;
use hal::dma::{DmaEngine, DmaError};

/// Bytes of the copy that shows an engine at work.
const LEN: usize = 256;

/// Why a refusal is none.
#[derive(Debug, thiserror::Error)]
pub(super) enum NotRefused {
    #[error("{0} was accepted")]
    Accepted(&'static str),
    #[error("{0} was refused as something else: {1}")]
    OtherName(&'static str, DmaError),
}

impl OutOfMemory for NotRefused {}

/// Whether `result` is the refusal that `is_named` knows.
pub(super) fn refusal<T>(
    what: &'static str,
    result: Result<T, DmaError>,
    is_named: impl Fn(&DmaError) -> bool,
) -> Result<(), NotRefused> {
    match result {
        Ok(_) => Err(NotRefused::Accepted(what)),
        Err(error) if is_named(&error) => {
            report::diagnostic(format_args!("{what}: {error}"));
            Ok(())
        }
        Err(error) => Err(NotRefused::OtherName(what, error)),
    }
}

/// The engine was not started since it had served `interrupts`, and copies.
pub(super) fn is_usable(engine: &dyn DmaEngine, interrupts: u64) -> Outcome {
    let device = engine.device();
    check!(
        engine.interrupts() == interrupts,
        "{} was started by what was refused",
        device.name()
    );
    let seed = machine().seed;
    let mut source = check_ok!(Object::zeroed(LEN, reachable(device)));
    let mut seen = check_ok!(machine().pool.alloc(device, LEN));
    pattern::fill(&mut source, seed);
    let mapping = check_ok!(map_shared(device, &source));
    check_ok!(copy(
        engine,
        &mapping,
        &mut check_ok!(seen.part_mut(0, LEN))
    ));
    check_ok!(pattern::verify(&seen.as_slice()[..LEN], 0, LEN, seed));
    Ok(())
}
