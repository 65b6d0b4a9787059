//! H9: memory beyond the address bits of the device, which neither the bus nor the device refuses.

use super::super::phantom::{NARROW, WIDE};
use super::{NOTHING_SEEN, each_method, engine, evidence, put};
use crate::experiment::{Cell, Direction, Finding, Hazard, Method, Observed};
use crate::handed::Fault;
use crate::machine::machine;
use crate::memory::contiguous::Contiguous;
use crate::memory::hoard::LOWEST_ZONE;
use crate::memory::{Area, Object, reachable};
use crate::report::Outcome;
use crate::submission::submit_refused;
use crate::{check, check_ok};
use hal::addr::{PAGE_SIZE, VirtAddr};
use hal::arch::translate;
use hal::dma::direction::DirectionKind;
use hal::dma::sg::ScatterEntry;
use hal::dma::streaming::map_slice;
use hal::dma::{
    Device, DmaEngine, DmaError, DmaPool, DmaPoolError, FromDevice, ScatterList, ToDevice,
    Transfer, coherent,
};
use hal::mm::{self, Gfp};

const LEN: usize = PAGE_SIZE;

/// How far the memory is to be out of reach.
struct Reach {
    /// The device that memory is mapped for.
    mapped: &'static Device,
    /// What is added to an address that is handed over bare.
    beyond: u64,
}

pub(super) fn run() -> Outcome {
    let engine = engine()?;
    let beyond = Reach {
        mapped: &NARROW,
        // One bit more than the engine drives. Should it start all the same and drop that bit, it
        // meets memory of the test's own.
        beyond: engine.device().mask().wrapping_add(1),
    };
    each_method(|method| {
        let Some(refusals) = check_ok!(refusals(method, engine, &beyond)) else {
            return NOTHING_SEEN;
        };
        let accepted = refusals.iter().position(Result::is_ok);
        put(Cell {
            hazard: Hazard::BeyondMask,
            method,
            direction: Direction::Both,
            expected: Finding::Refused,
            observed: Observed::structural(match accepted {
                Some(_) => Finding::Unguarded,
                None => Finding::Refused,
            }),
            evidence: match (accepted, refusals) {
                (None, [Err(error), _]) => evidence(format_args!("{error}")),
                (Some(0), _) => evidence(format_args!("accepted to-device")),
                _ => evidence(format_args!("accepted from-device")),
            },
        })
    })
}

/// Addresses that the devices reach: what is not refused is seen not to be.
pub(super) fn planted() -> Outcome {
    let engine = engine()?;
    let reached = Reach {
        mapped: &WIDE,
        beyond: 0,
    };
    for method in Method::ALL {
        if let Some(refusals) = check_ok!(refusals(method, engine, &reached)) {
            let name = method.name();
            check!(
                refusals == [Ok(()), Ok(())],
                "{name}: {refusals:?} for what is in reach"
            );
        }
    }
    Ok(())
}

/// What the method says to memory out of `reach` that the device is to read, and to write.
fn refusals(
    method: Method,
    engine: &dyn DmaEngine,
    reach: &Reach,
) -> Result<Option<[Result<(), DmaError>; 2]>, Fault> {
    let to = refusal::<ToDevice>(method, engine, reach)?;
    let from = refusal::<FromDevice>(method, engine, reach)?;
    Ok(to.zip(from).map(|(to, from)| [to, from]))
}

/// What the method says to memory out of `reach`. `None` where there is no contiguous memory area.
///
/// # Errors
///
/// Those that say anything but that it is out of reach.
fn refusal<D: hal::dma::direction::Direction>(
    method: Method,
    engine: &dyn DmaEngine,
    reach: &Reach,
) -> Result<Option<Result<(), DmaError>>, Fault> {
    let gfp = reachable(engine.device());
    let mapped = |bytes: &mut [u8]| map_slice::<D>(reach.mapped, bytes).map(drop);
    let refusal = match method {
        Method::KmallocRaw => bare(D::KIND, engine, Object::zeroed(LEN, gfp)?.va(), reach)?,
        Method::VmallocRaw => bare(
            D::KIND,
            engine,
            Area::alloc_with(LEN, LOWEST_ZONE)?.va(),
            reach,
        )?,
        Method::KmallocMap => mapped(&mut Object::zeroed(LEN, gfp)?),
        Method::Cma => match mm::default_cma() {
            Some(cma) => mapped(&mut Contiguous::alloc(cma, 1, 0)?),
            None => return Ok(None),
        },
        Method::VmallocSg => {
            let mut memory = Area::zeroed(LEN)?;
            let mut room = [ScatterEntry::default(); 1];
            let list = ScatterList::new(&mut room, &mut memory)?;
            list.map::<D>(reach.mapped).map(drop)
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
        Ok(()) | Err(DmaError::OutOfReach { .. } | DmaError::ForeignAddress { .. }) => {
            Ok(Some(refusal))
        }
        Err(error) => Err(error.into()),
    }
}

/// What the engine says to an address that somebody filled in by hand, of memory at `va` or as far
/// beyond as `reach` says.
fn bare(
    direction: DirectionKind,
    engine: &dyn DmaEngine,
    va: VirtAddr,
    reach: &Reach,
) -> Result<Result<(), DmaError>, Fault> {
    let there = machine().pool.alloc(engine.device(), LEN)?;
    let page = translate::read_el1(va).page().unwrap_or_default();
    let own = engine.device().dma_addr(page, LEN)?;
    let beyond = own.checked_add(reach.beyond as usize).unwrap_or(own);
    let (src, dst) = match direction {
        DirectionKind::ToDevice => (beyond, there.dma_addr()),
        _ => (there.dma_addr(), beyond),
    };
    let transfer = Transfer { src, dst, len: LEN };
    Ok(submit_refused(engine, &[transfer]))
}
