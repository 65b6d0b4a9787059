//! QEMU's firmware configuration device: a file of the host, copied by DMA to each kind of memory.

use super::dma::maintained::{demanded, maintained};
use super::phantom::{MaskedTo, WIDE};
use crate::dmatest::Kind;
use crate::dmatest::buffer::Buffer;
use crate::handed::Taken;
use crate::machine::machine;
use crate::memory::{Object, reachable};
use crate::pattern::{self, CANARY, Expected, GUARD, Mismatch, POISON};
use crate::provocation::{Kind as Provocation, Provoked, Wrong};
use crate::report::{self, Outcome, Stop, Suite};
use crate::{check, check_ok};
use hal::addr::PAGE_SIZE;
use hal::dma::maintenance::{Counters, line_size};
use hal::dma::streaming::{map_shared, map_slice};
use hal::dma::{DmaError, DmaMask, FromDevice};
use hal::drivers::fw_cfg::{File, FwCfg, FwCfgError};
use hal::smp;

/// The suite.
pub(super) const SUITE: Suite = Suite {
    name: "fw_cfg",
    tests: tests! {
        the_device_comes_up: comes_up,
        a_file_arrives_in_kmalloc_memory: || arrives(Kind::Kmalloc),
        a_file_arrives_in_coherent_memory: || arrives(Kind::Coherent),
        a_file_arrives_in_vmalloc_memory: || arrives(Kind::Vmalloc),
        a_wrong_byte_is_found_planted: planted,
        maintenance_is_what_the_lines_demand: maintenance,
        maintenance_is_what_the_lines_demand_planted: maintenance_planted,
        bytes_that_are_not_there_are_refused: not_there,
        memory_that_is_not_the_devices_is_refused: not_reached,
        a_write_is_refused: write,
        every_core_reads: every_core,
    },
};

/// The file that the runner adds, its size, and the seed of the pattern it holds
/// (`tools/runner/src/machine/file.rs`).
const NAME: &str = "opt/dmaproof/pattern";
const SIZE: usize = 12_345;
const SEED: u64 = 0x6677_5F63_6667;

/// Parts of the file, as offset and length: all of it, single bytes, around lines and pages.
const PARTS: [(usize, usize); 6] = [
    (0, SIZE),
    (0, 1),
    (1, 64),
    (63, 130),
    (4095, 4098),
    (SIZE - 1, 1),
];

/// Where parts go in a line.
const PLACES: [usize; 3] = [0, 1, 63];

/// The first byte that a part goes to: whole lines, and more than the canaries before it.
const START: usize = GUARD.next_multiple_of(128);

/// Bytes of a buffer for the longest part.
const ROOM: usize = START + 64 + SIZE + GUARD;

/// The device, or why there is nothing to show.
fn device() -> Result<&'static FwCfg, Stop> {
    machine()
        .fw_cfg
        .ok_or(Stop::Skipped("no fw_cfg device (it is QEMU's virt's)"))
}

/// The device and the runner's file.
fn file() -> Result<(&'static FwCfg, File), Stop> {
    let fw_cfg = device()?;
    let file = check_ok!(fw_cfg.find(NAME));
    Ok((fw_cfg, file))
}

fn comes_up() -> Outcome {
    let tree = machine().tree.as_ref().ok();
    let promised = tree.and_then(|tree| tree.registers("qemu,fw-cfg-mmio"));
    check!(
        machine().fw_cfg.is_some() || promised.is_none(),
        "the device tree has one at {promised:?}; the notes at the start of the report say why it is \
         not up"
    );
    let (fw_cfg, file) = file()?;
    check!(
        file.size() as usize == SIZE,
        "{NAME} has {} bytes, not {SIZE}",
        file.size()
    );
    report::diagnostic(format_args!(
        "device={} file={NAME} bytes={SIZE} reach={}",
        fw_cfg.device().name(),
        fw_cfg.device().limit()
    ));
    Ok(())
}

/// The file from `offset` on, between canaries.
struct Part {
    offset: usize,
}

impl Expected for Part {
    fn beside(&self, _: usize) -> u8 {
        CANARY
    }

    fn old(&self, _: usize) -> u8 {
        POISON
    }

    fn copied(&self, index: usize) -> u8 {
        pattern::byte(SEED, self.offset + index)
    }
}

/// Reads `len` bytes from `offset` to `at` of `buffer`, laid out before.
fn read(
    fw_cfg: &FwCfg,
    file: &File,
    buffer: &mut Buffer,
    at: usize,
    (offset, len): (usize, usize),
) -> Result<(), FwCfgError> {
    pattern::lay_out(buffer.bytes(), at, len);
    buffer.lend_mut(fw_cfg.device(), at..at + len, |destination| {
        fw_cfg.read_into(file, offset as u32, destination)
    })
}

/// What is wrong with the bytes read to `at`, and with their neighbours.
fn look(bytes: &[u8], at: usize, (offset, len): (usize, usize)) -> Result<(), Mismatch> {
    let seen = &bytes[at - GUARD..at + len + GUARD];
    pattern::compare(seen, GUARD, len, &Part { offset })
}

fn arrives(kind: Kind) -> Outcome {
    let (fw_cfg, file) = file()?;
    let mut buffer = check_ok!(Buffer::alloc(kind, fw_cfg.device(), ROOM));
    let mut bytes = 0;
    for part in PARTS {
        for place in PLACES {
            let at = START + place;
            check_ok!(read(fw_cfg, &file, &mut buffer, at, part));
            let looked_at = look(buffer.bytes(), at, part);
            let (offset, len) = part;
            check!(
                looked_at.is_ok(),
                "{len} bytes from {offset} to offset {at}: {looked_at:?}"
            );
            bytes += len;
        }
    }
    report::diagnostic(format_args!(
        "memory={kind} parts={} bytes={bytes} observed=data",
        PARTS.len() * PLACES.len()
    ));
    Ok(())
}

/// A byte of the part, one beside it, and its end, each changed after the device wrote it.
fn planted() -> Outcome {
    type Plant = (fn(&mut [u8], usize), fn(&Mismatch) -> bool);
    const LEN: usize = 257;
    const PLANTS: [Plant; 4] = [
        (
            |bytes, at| bytes[at + 100] ^= 1,
            |found| matches!(found, Mismatch::Wrong { index: 100, .. }),
        ),
        (
            |bytes, at| bytes[at - 1] ^= 1,
            |found| matches!(found, Mismatch::CanaryBefore { distance: 1, .. }),
        ),
        (
            |bytes, at| bytes[at + LEN] ^= 1,
            |found| matches!(found, Mismatch::CanaryAfter { distance: 1, .. }),
        ),
        (
            |bytes, at| bytes[at + LEN - 9..at + LEN].fill(POISON),
            |found| matches!(found, Mismatch::Old { count: 9, .. }),
        ),
    ];
    let (fw_cfg, file) = file()?;
    let mut buffer = check_ok!(Buffer::alloc(Kind::Kmalloc, fw_cfg.device(), ROOM));
    for (plant, is_named) in PLANTS {
        let part = (1000, LEN);
        check_ok!(read(fw_cfg, &file, &mut buffer, START, part));
        check_ok!(look(buffer.bytes(), START, part));
        plant(buffer.bytes(), START);
        let found = look(buffer.bytes(), START, part);
        check!(found.as_ref().is_err_and(is_named), "found as {found:?}");
    }
    Ok(())
}

/// What the reads of all parts maintain, compared with what their lines demand. The first
/// difference.
fn difference(fw_cfg: &FwCfg, file: &File) -> Result<Option<(Counters, Counters)>, Stop> {
    let device = fw_cfg.device();
    let mut memory = check_ok!(Object::zeroed(ROOM, reachable(device)));
    for (offset, len) in PARTS {
        for place in PLACES {
            let at = START + place;
            let start = memory.va().get() + at;
            let demand = demanded(start..start + len, true);
            let target = &mut memory[at..at + len];
            let count = check_ok!(maintained(|| fw_cfg.read(file, offset as u32, target)));
            if count != demand {
                return Ok(Some((demand, count)));
            }
        }
    }
    Ok(None)
}

fn maintenance() -> Outcome {
    let (fw_cfg, file) = file()?;
    let device = fw_cfg.device();
    let _maintained = Taken::as_coherent(device, false);
    if let Some((demand, count)) = difference(fw_cfg, &file)? {
        check!(false, "{demand:?} demanded, {count:?} done");
    }
    let mut coherent = check_ok!(machine().pool.alloc(device, PAGE_SIZE));
    let mut part = check_ok!(coherent.part_mut(1, 100));
    let count = check_ok!(maintained(|| fw_cfg.read_into(&file, 0, &mut part)));
    check!(
        count == Counters::default(),
        "{count:?} for coherent memory"
    );
    report::diagnostic(format_args!(
        "parts={} line={} observed=structural",
        PARTS.len() * PLACES.len(),
        line_size()
    ));
    Ok(())
}

/// The device wrongly taken as coherent: nothing is maintained, and that must be found.
fn maintenance_planted() -> Outcome {
    let (fw_cfg, file) = file()?;
    let difference = {
        let wrong = Wrong {
            kinds: &[Provocation::WritesDirty],
            place: "fw_cfg::Inner::run",
        };
        let _provoked = Provoked::begin_planted(format_args!("test=fw_cfg"), wrong);
        let _forgotten = Taken::as_coherent(fw_cfg.device(), true);
        difference(fw_cfg, &file)?
    };
    check!(difference.is_some(), "forgotten maintenance was not found");
    Ok(())
}

/// Ends the test unless `result` is the refusal that `is_named` knows.
fn refused<T>(
    what: &str,
    result: Result<T, FwCfgError>,
    is_named: impl Fn(&FwCfgError) -> bool,
) -> Outcome {
    let Err(error) = result else {
        return report::failed(format_args!("{what} was accepted"));
    };
    check!(is_named(&error), "{what}: {error}");
    report::diagnostic(format_args!("{what}: {error}"));
    Ok(())
}

/// The device reads as if nothing had been asked of it.
fn is_usable(fw_cfg: &FwCfg, file: &File) -> Result<(), Stop> {
    let mut buffer = check_ok!(Buffer::alloc(Kind::Kmalloc, fw_cfg.device(), ROOM));
    check_ok!(read(fw_cfg, file, &mut buffer, START, PARTS[0]));
    check_ok!(look(buffer.bytes(), START, PARTS[0]));
    Ok(())
}

fn not_there() -> Outcome {
    let (fw_cfg, file) = file()?;
    refused(
        "a file that is missing",
        fw_cfg.find("opt/dmaproof/none"),
        |error| matches!(error, FwCfgError::NotFound(_)),
    )?;
    let long = [b'x'; 60];
    let long = core::str::from_utf8(&long).unwrap_or_default();
    refused("a name that is too long", fw_cfg.find(long), |error| {
        *error == FwCfgError::NameLength(60)
    })?;
    let mut memory = check_ok!(Object::zeroed(SIZE + 1, reachable(fw_cfg.device())));
    memory.fill(CANARY);
    for (what, offset, len) in [
        ("more than the file has", 0, SIZE + 1),
        ("the byte behind the end", SIZE, 1),
        ("the last byte and one more", SIZE - 1, 2),
        ("an offset that wraps", u32::MAX as usize, 2),
    ] {
        let read = fw_cfg.read(&file, offset as u32, &mut memory[..len]);
        refused(what, read, |error| {
            matches!(error, FwCfgError::PastEnd { .. })
        })?;
    }
    let nothing = fw_cfg.read(&file, 0, &mut []);
    refused("no bytes", nothing, |error| {
        *error == FwCfgError::Dma(DmaError::ZeroLength)
    })?;
    let touched = memory.iter().position(|&byte| byte != CANARY);
    check!(touched.is_none(), "byte {touched:?} was written");
    is_usable(fw_cfg, &file)
}

fn not_reached() -> Outcome {
    /// Where RAM starts on virt, no byte of it is reached.
    const MASK: DmaMask = DmaMask::new::<30>();
    let (fw_cfg, file) = file()?;
    let device = fw_cfg.device();
    let mut memory = check_ok!(Object::zeroed(PAGE_SIZE, reachable(device)));
    let narrowed = MaskedTo::set(device, MASK).map(drop);
    refused(
        "a mask that reaches no memory",
        narrowed.map_err(FwCfgError::Dma),
        |error| matches!(error, FwCfgError::Dma(DmaError::MaskUnsupported { .. })),
    )?;
    let mut foreign = check_ok!(map_slice::<FromDevice>(&WIDE, &mut memory));
    let read = fw_cfg.read_into(&file, 0, &mut foreign);
    refused("memory lent to another device", read, |error| {
        matches!(error, FwCfgError::Dma(DmaError::OtherDevice { .. }))
    })?;
    drop(foreign);
    is_usable(fw_cfg, &file)
}

fn write() -> Outcome {
    let (fw_cfg, file) = file()?;
    let device = fw_cfg.device();
    let memory = check_ok!(Object::zeroed(PAGE_SIZE, reachable(device)));
    let source = check_ok!(map_shared(device, &memory));
    refused("a write", fw_cfg.write_from(&file, 0, &source), |error| {
        matches!(error, FwCfgError::Refused(_))
    })?;
    source.unmap();
    is_usable(fw_cfg, &file)
}

fn every_core() -> Outcome {
    let (fw_cfg, file) = file()?;
    for core in smp::online() {
        check_ok!(smp::run_on(core, || is_usable(fw_cfg, &file)))?;
    }
    Ok(())
}
