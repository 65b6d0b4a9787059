//! A device that leaves the bus in the middle of a copy: its registers read as all ones.
//!
//! No machine here lets one go. The driver of QEMU's edu drives registers that a program answers.

use crate::machine::machine;
use crate::memory::Object;
use crate::report::{self, Outcome, Stop};
use crate::submission::copy_while;
use crate::suites::phantom::REMOVABLE;
use crate::{check, check_ok};
use core::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use hal::dma::engine::copy;
use hal::dma::streaming::map_slice;
use hal::dma::{DmaError, FromDevice, ToDevice};
use hal::drivers::edu::Edu;
use hal::drivers::mmio::RegisterIo;
use hal::mm::Gfp;

/// Bytes of a copy, and nanoseconds it may take.
const LEN: usize = 64;
const TIMEOUT_NS: u64 = 1_000_000;

/// `IDENTIFICATION` and its value, and `LIVENESS`.
const IDENTIFICATION: usize = 0x00;
const EDU: u32 = 0x0100_00ED;
const LIVENESS: usize = 0x04;

/// The registers of an edu that copies nothing and never interrupts.
#[derive(Debug)]
struct Registers {
    is_gone: AtomicBool,
    liveness: AtomicU32,
}

impl RegisterIo for &Registers {
    fn read32(&self, offset: usize) -> u32 {
        match offset {
            _ if self.is_gone.load(Ordering::Relaxed) => u32::MAX,
            IDENTIFICATION => EDU,
            LIVENESS => !self.liveness.load(Ordering::Relaxed),
            _ => 0,
        }
    }

    fn write32(&self, offset: usize, value: u32) {
        if offset == LIVENESS {
            self.liveness.store(value, Ordering::Relaxed);
        }
    }

    fn read64(&self, _: usize) -> u64 {
        match self.is_gone.load(Ordering::Relaxed) {
            true => u64::MAX,
            false => 0,
        }
    }

    fn write64(&self, _: usize, _: u64) {}
}

/// How a copy ends in whose middle the device `leaves`, and how the next.
fn ends(leaves: bool) -> Result<[Result<(), DmaError>; 2], Stop> {
    let registers = Registers {
        is_gone: AtomicBool::new(false),
        liveness: AtomicU32::new(0),
    };
    let probed = Edu::probe(&registers, &REMOVABLE, &machine().timer);
    let Ok(engine) = probed else {
        return Err(Stop::Failed);
    };
    let mut source = check_ok!(Object::zeroed(LEN, Gfp::KERNEL));
    let mut seen = check_ok!(Object::zeroed(LEN, Gfp::KERNEL));
    let from = check_ok!(map_slice::<ToDevice>(&REMOVABLE, &mut source));
    let mut to = check_ok!(map_slice::<FromDevice>(&REMOVABLE, &mut seen));
    let first = copy_while(&engine, &from, &mut to, TIMEOUT_NS, || {
        registers.is_gone.store(leaves, Ordering::Relaxed);
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
