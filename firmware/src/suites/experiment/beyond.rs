//! H9: memory beyond the address bits of the device, which neither the bus nor the device refuses.

use super::super::phantom::{ELSEWHERE, NARROW, WIDE};
use super::{NOTHING_SEEN, each_method, engine, evidence, put};
use crate::experiment::{Cell, Direction, Finding, Hazard, Method, Observed};
use crate::handed::Fault;
use crate::machine::machine;
use crate::memory::contiguous::Contiguous;
use crate::memory::{Area, Object, reachable};
use crate::report::Outcome;
use crate::submission::submit_refused;
use crate::{check, check_ok};
use hal::addr::{DmaAddr, PAGE_SIZE};
use hal::dma::sg::ScatterEntry;
use hal::dma::streaming::{map_shared, map_slice};
use hal::dma::{
    Device, DmaEngine, DmaError, DmaPool, DmaPoolError, ScatterList, ToDevice, Transfer, coherent,
};
use hal::mm::{self, Gfp};

const LEN: usize = PAGE_SIZE;

/// Where the memory is to be out of reach: of a device that the memory is mapped for, and, where an
/// address is handed over bare, as one that another device was given.
struct Reach {
    mapped: &'static Device,
    bare: &'static Device,
}

pub(super) fn run() -> Outcome {
    let engine = engine()?;
    let beyond = Reach {
        mapped: &NARROW,
        bare: &ELSEWHERE,
    };
    each_method(|method| {
        let Some(refusal) = check_ok!(refusal(method, engine, &beyond)) else {
            return NOTHING_SEEN;
        };
        put(Cell {
            hazard: Hazard::BeyondMask,
            method,
            direction: Direction::Both,
            expected: Finding::Refused,
            observed: Observed::structural(finding(&refusal)),
            evidence: match refusal {
                Err(error) => evidence(format_args!("{error}")),
                Ok(()) => evidence(format_args!("accepted")),
            },
        })
    })
}

/// Devices that reach the memory: what is not refused is seen not to be.
pub(super) fn planted() -> Outcome {
    let engine = engine()?;
    let reached = Reach {
        mapped: &WIDE,
        bare: engine.device(),
    };
    for method in Method::ALL {
        if let Some(refusal) = check_ok!(refusal(method, engine, &reached)) {
            let found = finding(&refusal);
            let name = method.name();
            check!(
                found == Finding::Unguarded,
                "{name}: {refusal:?} passes for a refusal"
            );
        }
    }
    Ok(())
}

fn finding(refusal: &Result<(), DmaError>) -> Finding {
    match refusal {
        Err(DmaError::OutOfReach { .. } | DmaError::ForeignAddress { .. }) => Finding::Refused,
        _ => Finding::Unguarded,
    }
}

/// What the method says to memory out of `reach`. `None` where there is no contiguous memory area.
///
/// # Errors
///
/// Those that say that memory has run out.
fn refusal(
    method: Method,
    engine: &dyn DmaEngine,
    reach: &Reach,
) -> Result<Option<Result<(), DmaError>>, Fault> {
    let gfp = reachable(engine.device());
    let mapped = |bytes: &mut [u8]| map_slice::<ToDevice>(reach.mapped, bytes).map(drop);
    let mut room = [ScatterEntry::default(); 1];
    let refusal = match method {
        Method::KmallocRaw => {
            let memory = Object::zeroed(LEN, gfp)?;
            let src = map_shared(reach.bare, &memory)?.dma_segment().addr;
            bare(engine, src)?
        }
        Method::VmallocRaw => {
            let mut memory = Area::zeroed(LEN)?;
            let list = ScatterList::new(&mut room, &mut memory)?;
            let mapping = list.map::<ToDevice>(reach.bare)?;
            let src = mapping.segments().next().map(|segment| segment.addr);
            bare(engine, src.unwrap_or_default())?
        }
        Method::KmallocMap => mapped(&mut Object::zeroed(LEN, gfp)?),
        Method::Cma => match mm::default_cma() {
            Some(cma) => mapped(&mut Contiguous::alloc(cma, 1, 0)?),
            None => return Ok(None),
        },
        Method::VmallocSg => {
            let mut memory = Area::zeroed(LEN)?;
            let list = ScatterList::new(&mut room, &mut memory)?;
            list.map::<ToDevice>(reach.mapped).map(drop)
        }
        Method::Coherent => coherent::alloc(reach.mapped, LEN, Gfp::KERNEL).map(drop),
        Method::Pool => {
            match DmaPool::create("beyond", reach.mapped, LEN, 0, 0)?.alloc(Gfp::KERNEL) {
                Ok(_) => Ok(()),
                Err(DmaPoolError::Memory(error)) => Err(error),
                Err(error) => return Err(error.into()),
            }
        }
    };
    match refusal {
        Err(DmaError::NoMemory(error)) => Err(error.into()),
        refusal => Ok(Some(refusal)),
    }
}

/// What the engine says to an address that somebody filled in by hand.
fn bare(engine: &dyn DmaEngine, src: DmaAddr) -> Result<Result<(), DmaError>, Fault> {
    let there = machine().pool.alloc(engine.device(), LEN)?;
    let transfer = Transfer {
        src,
        dst: there.dma_addr(),
        len: LEN,
    };
    Ok(submit_refused(engine, &[transfer]))
}
