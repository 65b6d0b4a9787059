//! A device that leaves the bus in the middle of a copy: its registers read as all ones.
//!
//! No machine here lets one go. The driver of QEMU's edu drives registers that a program answers.

use crate::memory::Object;
use crate::report::{self, Outcome, Stop};
use crate::submission::copy_while;
use crate::suites::phantom::REMOVABLE;
use crate::suites::phantom::removable::Registers;
use crate::{check, check_ok};
use hal::dma::engine::copy;
use hal::dma::streaming::map_slice;
use hal::dma::{DmaError, FromDevice, ToDevice};
use hal::mm::Gfp;

/// Bytes of a copy, and nanoseconds it may take.
const LEN: usize = 64;
const TIMEOUT_NS: u64 = 1_000_000;

/// How a copy ends in whose middle the device `leaves`, and how the next.
fn ends(leaves: bool) -> Result<[Result<(), DmaError>; 2], Stop> {
    let registers = Registers::new();
    let Ok(engine) = registers.probe() else {
        return Err(Stop::Failed);
    };
    let mut source = check_ok!(Object::zeroed(LEN, Gfp::KERNEL));
    let mut seen = check_ok!(Object::zeroed(LEN, Gfp::KERNEL));
    let from = check_ok!(map_slice::<ToDevice>(&REMOVABLE, &mut source));
    let mut to = check_ok!(map_slice::<FromDevice>(&REMOVABLE, &mut seen));
    let first = copy_while(&engine, &from, &mut to, TIMEOUT_NS, || {
        registers.set_gone(leaves);
    });
    let second = match leaves {
        true => copy(&engine, &from, &mut to),
        false => Ok(()),
    };
    Ok([first, second])
}

pub(super) fn named() -> Outcome {
    let ended = ends(true)?;
    check!(ended == [Err(DmaError::Gone); 2], "{ended:?}");
    report::diagnostic(format_args!("edu: {}", DmaError::Gone));
    Ok(())
}

/// One that stays and does not go on took too long.
pub(super) fn planted() -> Outcome {
    let [ended, _] = ends(false)?;
    check!(ended == Err(DmaError::Timeout(TIMEOUT_NS)), "{ended:?}");
    Ok(())
}
