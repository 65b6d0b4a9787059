//! Every length at every offset, byte for byte, with the neighbours looked after.

use super::super::bounce;
use super::each_engine;
use crate::machine::machine;
use crate::memory::{Object, reachable};
use crate::pattern::{self, GUARD, Mismatch};
use crate::report::{self, Outcome, Stop};
use crate::{check, check_ok};
use core::ops::RangeInclusive;
use hal::dma::engine::copy;
use hal::dma::streaming::map_slice;
use hal::dma::{DmaEngine, DmaError, FromDevice, ToDevice};

/// Lengths around one line, a page, and what edu copies at once.
const LENGTHS: [RangeInclusive<usize>; 5] =
    [1..=130, 255..=257, 511..=513, 4095..=4097, 8191..=8193];

/// Offsets of the CPU's side within a line. The other side has the next of them.
const OFFSETS: [usize; 5] = [0, 1, 3, 31, 63];

/// Bytes of a buffer: offset and guards around the longest copy.
const ROOM: usize = 3 * 4096;

/// What every engine copies, QEMU's Pi model included.
const WORD: usize = 4;

pub(super) fn whole_words_to_device() -> Outcome {
    each_engine(|engine| sweep(engine, |len| len % WORD == 0, to_device))
}

pub(super) fn whole_words_from_device() -> Outcome {
    // Buffers that end within a line are copied.
    bounce::pool()?;
    each_engine(|engine| sweep(engine, |len| len % WORD == 0, from_device))
}

pub(super) fn odd_lengths_to_device() -> Outcome {
    odd_lengths(to_device)
}

pub(super) fn odd_lengths_from_device() -> Outcome {
    bounce::pool()?;
    odd_lengths(from_device)
}

fn odd_lengths(case: Case) -> Outcome {
    let engines = machine().engines.iter();
    if engines
        .clone()
        .all(|engine| engine.length_granule() >= WORD)
    {
        return Err(Stop::Skipped(
            "the engines copy whole words only (QEMU's Pi model; silicon copies bytes)",
        ));
    }
    each_engine(|engine| sweep(engine, |len| len % WORD != 0, case))
}

/// The two buffers of a sweep.
struct Buffers {
    ram: Object,
    coherent: hal::dma::Coherent,
}

/// One copy.
#[derive(Clone, Copy)]
struct Shape {
    len: usize,
    /// Where it starts in ordinary memory.
    ram: usize,
    /// Where it starts in coherent memory.
    coherent: usize,
    seed: u64,
}

type Case = fn(&dyn DmaEngine, &mut Buffers, Shape) -> Result<Result<(), Mismatch>, DmaError>;

/// Ordinary memory to coherent memory.
fn to_device(
    engine: &dyn DmaEngine,
    buffers: &mut Buffers,
    shape: Shape,
) -> Result<Result<(), Mismatch>, DmaError> {
    let Shape { len, seed, .. } = shape;
    let source = &mut buffers.ram[shape.ram..shape.ram + len];
    pattern::fill(source, seed);
    pattern::lay_out(buffers.coherent.as_mut_slice(), shape.coherent, len);
    let mapping = map_slice::<ToDevice>(engine.device(), source)?;
    let to = &mut buffers.coherent.part_mut(shape.coherent, len)?;
    copy(engine, &mapping, to)?;
    mapping.unmap();
    let result = pattern::verify(buffers.coherent.as_slice(), shape.coherent, len, seed);
    Ok(result)
}

/// Coherent memory to ordinary memory.
fn from_device(
    engine: &dyn DmaEngine,
    buffers: &mut Buffers,
    shape: Shape,
) -> Result<Result<(), Mismatch>, DmaError> {
    let Shape { len, seed, .. } = shape;
    let from = shape.coherent;
    pattern::fill(&mut buffers.coherent.as_mut_slice()[from..from + len], seed);
    pattern::lay_out(&mut buffers.ram, shape.ram, len);
    let target = &mut buffers.ram[shape.ram..shape.ram + len];
    let mut mapping = map_slice::<FromDevice>(engine.device(), target)?;
    copy(engine, &buffers.coherent.part(from, len)?, &mut mapping)?;
    mapping.unmap();
    Ok(pattern::verify(&buffers.ram, shape.ram, len, seed))
}

fn sweep(engine: &dyn DmaEngine, wanted: fn(usize) -> bool, case: Case) -> Outcome {
    let device = engine.device();
    let mut buffers = Buffers {
        ram: check_ok!(Object::zeroed(ROOM, reachable(device))),
        coherent: check_ok!(machine().pool.alloc(device, ROOM)),
    };
    let granule = engine.length_granule();
    let (mut copies, mut bytes) = (0_usize, 0);
    let lengths = LENGTHS.into_iter().flatten().filter(|&len| wanted(len));
    for len in lengths.filter(|len| len.is_multiple_of(granule)) {
        for (index, &offset) in OFFSETS.iter().enumerate() {
            let shape = Shape {
                len,
                ram: GUARD.next_multiple_of(128) + offset,
                coherent: GUARD.next_multiple_of(128) + OFFSETS[(index + 1) % OFFSETS.len()],
                seed: machine().seed.wrapping_add((len * 64 + offset) as u64),
            };
            if let Err(mismatch) = check_ok!(case(engine, &mut buffers, shape)) {
                check!(
                    false,
                    "{}: {len} bytes at offset {offset}: {mismatch}",
                    device.name()
                );
            }
            copies += 1;
            bytes += len;
        }
    }
    check!(copies > 0, "{}: no length was copied", device.name());
    report::diagnostic(format_args!(
        "engine={} copies={copies} bytes={bytes} granule={granule} observed=data",
        device.name()
    ));
    Ok(())
}

/// A flaw, and whether the verifier called it by its name.
type Plant = (fn(&mut [u8]), fn(Mismatch) -> bool);

pub(super) fn planted() -> Outcome {
    const AT: usize = 128;
    const LEN: usize = 257;
    const PLANTS: [Plant; 5] = [
        (
            |bytes| bytes[AT + 100] = !bytes[AT + 100] ^ 1,
            |found| {
                matches!(
                    found,
                    Mismatch::Wrong { index: 100, .. } | Mismatch::Old { first: 100, .. }
                )
            },
        ),
        (
            |bytes| bytes.copy_within(AT..AT + LEN - 1, AT + 1),
            |found| found == Mismatch::Shifted { by: 1 },
        ),
        (
            |bytes| bytes[AT - 1] = 0,
            |found| matches!(found, Mismatch::CanaryBefore { distance: 1, .. }),
        ),
        (
            |bytes| bytes[AT + LEN + 63] = 0,
            |found| matches!(found, Mismatch::CanaryAfter { distance: 64, .. }),
        ),
        (
            |bytes| bytes[AT + LEN - 1] = pattern::POISON,
            |found| matches!(found, Mismatch::Old { count: 1, .. }),
        ),
    ];
    let seed = machine().seed;
    let mut copied = check_ok!(Object::zeroed(1024, hal::mm::Gfp::KERNEL));
    for (index, (plant, is_named)) in PLANTS.iter().enumerate() {
        pattern::lay_out(&mut copied, AT, LEN);
        pattern::fill(&mut copied[AT..AT + LEN], seed);
        check!(
            pattern::verify(&copied, AT, LEN, seed).is_ok(),
            "a good copy was found bad"
        );
        plant(&mut copied);
        let found = pattern::verify(&copied, AT, LEN, seed);
        check!(
            found.is_err_and(is_named),
            "plant {index} was found as {found:?}"
        );
    }
    Ok(())
}
