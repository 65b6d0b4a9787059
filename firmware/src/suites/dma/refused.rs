//! What must never reach an engine is refused by name, and the engine goes on working.

use super::super::phantom::{ELSEWHERE, MaskedTo, NARROW};
use super::super::refusal::{NotRefused, is_usable, refusal};
use super::each_engine;
use crate::machine::machine;
use crate::memory::{Area, Object, reachable};
use crate::report::{self, Outcome, Stop};
use crate::submission::{copy_while, map_refused, submit_refused};
use crate::{check, check_ok};
use hal::addr::{PAGE_SIZE, VirtAddr};
use hal::dma::engine::{Source, copy};
use hal::dma::streaming::{map_shared, map_slice};
use hal::dma::{DmaEngine, DmaError, DmaMask, MemoryKind, Transfer};
use hal::layout::{DIRECT_MAP, IOREMAP};
use hal::mm::Gfp;

/// Bytes of a buffer.
const LEN: usize = 256;

fn is_kind(wanted: MemoryKind) -> impl Fn(&DmaError) -> bool {
    move |error| matches!(error, DmaError::NotMappable { kind, .. } if *kind == wanted)
}

pub(super) fn kinds_of_memory() -> Outcome {
    each_engine(|engine| {
        let device = engine.device();
        let before = engine.interrupts();
        let area = check_ok!(Area::alloc(PAGE_SIZE));
        let coherent = check_ok!(machine().pool.alloc(device, LEN));
        let on_stack = [0_u8; LEN];
        static READ_ONLY: [u8; LEN] = [0x11; LEN];
        let cases = [
            ("vmalloc", area.va(), MemoryKind::Vmalloc),
            ("coherent", coherent.va(), MemoryKind::Coherent),
            ("device registers", IOREMAP.base, MemoryKind::Ioremap),
            (
                "stack",
                VirtAddr::from_ptr(&raw const on_stack),
                MemoryKind::Image,
            ),
            (
                "read-only data",
                VirtAddr::from_ptr(&raw const READ_ONLY),
                MemoryKind::Image,
            ),
            ("no memory", VirtAddr::new(0x1000), MemoryKind::Unmapped),
        ];
        for (what, va, kind) in cases {
            check_ok!(refusal(what, map_refused(device, va, LEN), is_kind(kind)));
        }
        is_usable(engine, before)
    })
}

pub(super) fn out_of_reach() -> Outcome {
    each_engine(|engine| {
        let device = engine.device();
        let before = engine.interrupts();
        let is_named = |error: &DmaError| matches!(error, DmaError::OutOfReach { .. });
        let mut memory = check_ok!(Object::zeroed(LEN, Gfp::KERNEL));
        let narrow = map_slice::<hal::dma::ToDevice>(&NARROW, &mut memory);
        check_ok!(refusal("memory above a 12-bit mask", narrow, is_named));
        let pooled = machine().pool.alloc(&NARROW, LEN);
        check_ok!(refusal("the pool above a 12-bit mask", pooled, is_named));
        let pa = hal::layout::virt_to_phys(memory.va()).unwrap_or_default();
        if pa > device.limit() {
            let mapped = map_slice::<hal::dma::ToDevice>(device, &mut memory);
            check!(
                check_ok!(mapped).is_bounced(),
                "memory above the engine's own reach is not bounced"
            );
        } else {
            report::diagnostic(format_args!(
                "{} reaches all memory that kmalloc gives, up to {}",
                device.name(),
                device.limit()
            ));
        }
        is_usable(engine, before)
    })
}

/// The engine's own device, its masks narrowed by software to where no RAM is, as a driver does
/// whose device drives fewer bits than its bus.
pub(super) fn narrowed() -> Outcome {
    each_engine(|engine| {
        let device = engine.device();
        let before = engine.interrupts();
        let mut memory = check_ok!(Object::zeroed(LEN, reachable(device)));
        // Where RAM starts at 0, nobody is given its first page.
        let lowest = machine().map.ram().iter().map(|ram| ram.start.get()).min();
        let below = lowest.and_then(u64::checked_ilog2).unwrap_or(0);
        let mask = check_ok!(DmaMask::try_new(below.max(PAGE_SIZE.ilog2())));
        match MaskedTo::set(device, mask) {
            Ok(_narrowed) => {
                let mapped = map_slice::<hal::dma::ToDevice>(device, &mut memory);
                check_ok!(refusal("memory above a narrowed mask", mapped, |error| {
                    matches!(error, DmaError::OutOfReach { .. })
                }));
            }
            Err(error) => {
                check_ok!(refusal(
                    "a mask that reaches no memory",
                    Err::<(), _>(error),
                    |error| matches!(error, DmaError::MaskUnsupported { .. })
                ));
            }
        }
        is_usable(engine, before)
    })
}

pub(super) fn lengths() -> Outcome {
    each_engine(|engine| {
        let device = engine.device();
        let before = engine.interrupts();
        let memory = check_ok!(Object::zeroed(LEN, reachable(device)));
        let mut pooled = check_ok!(machine().pool.alloc(device, LEN));
        let zero = |error: &DmaError| *error == DmaError::ZeroLength;
        check_ok!(refusal(
            "zero bytes",
            map_refused(device, memory.va(), 0),
            zero
        ));
        check_ok!(refusal(
            "zero coherent bytes",
            machine().pool.alloc(device, 0),
            zero
        ));
        check_ok!(refusal("no transfer", submit_refused(engine, &[]), zero));
        let wraps = map_refused(device, memory.va(), usize::MAX);
        check_ok!(refusal("a length that wraps", wraps, |error| {
            matches!(error, DmaError::Wraps { .. })
        }));
        let leaves = map_refused(device, DIRECT_MAP.end() + 0, LEN);
        check_ok!(refusal(
            "memory behind the direct map",
            leaves,
            is_kind(MemoryKind::Vmalloc)
        ));
        let outside = pooled.part(LEN, pooled.len());
        check_ok!(refusal(
            "more than was allocated",
            outside.map(drop),
            |error| { matches!(error, DmaError::OutOfBounds { .. }) }
        ));
        let source = check_ok!(map_shared(device, &memory[..LEN / 2]));
        let unequal = copy(engine, &source, &mut check_ok!(pooled.part_mut(0, LEN)));
        check_ok!(refusal("ends of different length", unequal, |error| {
            matches!(error, DmaError::LengthMismatch { .. })
        }));
        drop(source);
        transfers(engine, &memory, &pooled)?;
        is_usable(engine, before)
    })
}

/// What only a driver that fills transfers in by hand gets wrong.
fn transfers(engine: &dyn DmaEngine, memory: &Object, pooled: &hal::dma::Coherent) -> Outcome {
    let device = engine.device();
    let source = check_ok!(map_shared(device, memory));
    let Some(segment) = source.segment(0) else {
        return Err(Stop::Failed);
    };
    let good = Transfer {
        src: segment.addr,
        dst: pooled.dma_addr(),
        len: LEN,
    };
    let granule = engine.length_granule();
    if granule > 1 {
        let odd = Transfer {
            len: granule + 1,
            ..good
        };
        check_ok!(refusal(
            "half a granule",
            submit_refused(engine, &[odd]),
            |error| { matches!(error, DmaError::LengthGranule { .. }) }
        ));
    }
    let empty = Transfer { len: 0, ..good };
    check_ok!(refusal(
        "an empty transfer",
        submit_refused(engine, &[empty]),
        |error| { *error == DmaError::ZeroLength }
    ));
    let endless = Transfer {
        len: usize::MAX & !63,
        ..good
    };
    check_ok!(refusal(
        "a transfer of all there is",
        submit_refused(engine, &[endless]),
        |error| { matches!(error, DmaError::ForeignAddress { .. }) }
    ));
    if let Some(len) = engine
        .max_len()
        .checked_add(granule)
        .filter(|&len| len < 1 << 29)
    {
        let long = Transfer { len, ..good };
        // Where the engine's window ends before the length does, that is found first.
        check_ok!(refusal(
            "a transfer longer than the engine takes",
            submit_refused(engine, &[long]),
            |error| {
                matches!(
                    error,
                    DmaError::SegmentTooLong { .. } | DmaError::ForeignAddress { .. }
                )
            }
        ));
    }
    const MANY: usize = 256;
    if engine.max_transfers() < MANY {
        let many = [good; MANY];
        check_ok!(refusal(
            "more transfers than the engine takes",
            submit_refused(engine, &many),
            |error| { matches!(error, DmaError::TooManyTransfers { .. }) }
        ));
    }
    Ok(())
}

pub(super) fn foreign_addresses() -> Outcome {
    each_engine(|engine| {
        let device = engine.device();
        let before = engine.interrupts();
        let memory = check_ok!(Object::zeroed(LEN, reachable(device)));
        let mut pooled = check_ok!(machine().pool.alloc(device, LEN));
        let foreign = check_ok!(map_shared(&ELSEWHERE, &memory));
        let refused = copy(engine, &foreign, &mut check_ok!(pooled.part_mut(0, LEN)));
        check_ok!(refusal("memory lent to another device", refused, |error| {
            matches!(error, DmaError::OtherDevice { .. })
        }));
        let part = &mut check_ok!(pooled.part_mut(0, LEN));
        let refused = copy_while(engine, &foreign, part, 0, || ());
        check_ok!(refusal("the same, watched", refused, |error| {
            matches!(error, DmaError::OtherDevice { .. })
        }));
        // A driver that fills transfers in by hand.
        let src = foreign.dma_segment().addr;
        let dst = pooled.dma_addr();
        check_ok!(refusal(
            "an address made for another device",
            submit_refused(engine, &[Transfer { src, dst, len: LEN }]),
            |error| { matches!(error, DmaError::ForeignAddress { .. }) }
        ));
        drop(foreign);
        is_usable(engine, before)
    })
}

/// Good memory, taken for refused; a refusal, taken for another.
pub(super) fn planted() -> Outcome {
    each_engine(|engine| {
        let mut memory = check_ok!(Object::zeroed(LEN, reachable(engine.device())));
        let is_named = is_kind(MemoryKind::Vmalloc);
        let mapped = map_slice::<hal::dma::ToDevice>(engine.device(), &mut memory);
        let found = refusal("kmalloc", mapped, &is_named);
        check!(
            matches!(found, Err(NotRefused::Accepted(_))),
            "an accepted map was taken for a refusal"
        );
        let mapped = map_slice::<hal::dma::ToDevice>(&NARROW, &mut memory);
        let found = refusal("kmalloc", mapped, &is_named);
        check!(
            matches!(found, Err(NotRefused::OtherName(..))),
            "a refusal was taken for another"
        );
        Ok(())
    })
}
