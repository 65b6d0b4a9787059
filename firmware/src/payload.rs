//! The payload: a file handed over as initial RAM disk, copied by a DMA engine into each kind of
//! memory and hashed there. The hash is that of the file if the copy is right.

use crate::handed::Fault;
use crate::machine::machine;
use crate::memory::{self, Area, NoPayload, Object, reachable};
use crate::report::{self, Outcome, Stop};
use core::fmt;
use core::ops::Range;
use hal::addr::PAGE_SIZE;
use hal::dma::engine::{Source, copy};
use hal::dma::sg::ScatterEntry;
use hal::dma::streaming::{map_shared, map_slice};
use hal::dma::{DmaEngine, DmaError, FromDevice, ScatterList, coherent};
use hal::mm::{AllocError, Gfp};
use hal::sync::Once;
use sha2::{Digest, Sha256};

/// Bytes copied and hashed at a time: the largest piece of `kmalloc` and of the pool.
const CHUNK: usize = 4 << 20;

/// Bytes of vmalloc memory mapped at a time, which bounds the room for its physical runs.
const SCATTERED: usize = 1 << 20;

/// The kind of memory the payload is copied to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Method {
    /// Streaming maps of contiguous memory.
    Kmalloc,
    /// Scatter lists of memory that is contiguous for the CPU only.
    Vmalloc,
    /// Memory that needs no maintenance.
    Coherent,
}

impl fmt::Display for Method {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Kmalloc => "kmalloc",
            Self::Vmalloc => "vmalloc",
            Self::Coherent => "coherent",
        })
    }
}

type Hash = [u8; 32];

struct Hex<'a>(&'a Hash);

impl fmt::Display for Hex<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// Copies the payload by `method` with the first engine and reports size and hash.
pub fn run(method: Method) -> Outcome {
    let payload = match memory::payload() {
        Ok(payload) => payload,
        Err(NoPayload::Absent) => {
            return Err(Stop::Skipped("no payload: make run PAYLOAD=FILE"));
        }
        Err(error) => {
            report::diagnostic(format_args!("{error}"));
            return Err(Stop::Failed);
        }
    };
    let Some(&engine) = machine().engines.first() else {
        return Err(Stop::Skipped("no DMA engine"));
    };
    let copied = match method {
        Method::Kmalloc => by_kmalloc(engine, payload),
        Method::Vmalloc => by_vmalloc(engine, payload),
        Method::Coherent => by_coherent(engine, payload),
    };
    let (hash, chunk) = match copied {
        Ok(copied) => copied,
        Err(fault) => {
            report::diagnostic(format_args!("payload by {method}"));
            return report::failed_operation(&fault);
        }
    };
    report::diagnostic(format_args!(
        "engine={} copied {} bytes, at most {chunk} at a time",
        engine.device().name(),
        payload.len()
    ));
    report::diagnostic(format_args!(
        "payload method={method} size={} sha256={}",
        payload.len(),
        Hex(&hash)
    ));
    static READ_BY_CPU: Once<Hash> = Once::new();
    let expected = READ_BY_CPU.call_once(|| Sha256::digest(payload).into());
    if hash == *expected {
        Ok(())
    } else {
        report::diagnostic(format_args!(
            "the CPU reads other bytes at the source: sha256={}",
            Hex(expected)
        ));
        Err(Stop::Failed)
    }
}

fn by_kmalloc(engine: &dyn DmaEngine, payload: &[u8]) -> Result<(Hash, usize), Fault> {
    let device = engine.device();
    let gfp = reachable(device);
    let (mut buffer, size) = largest(payload.len(), |size| Object::zeroed(size, gfp))?;
    let mut hash = Sha256::new();
    for chunk in payload.chunks(size) {
        spoil(&mut buffer, chunk);
        deliver(engine, chunk, |source, part| {
            let mut mapping = map_slice::<FromDevice>(device, &mut buffer[part])?;
            copy(engine, source, &mut mapping)
        })?;
        hash.update(&buffer[..chunk.len()]);
    }
    Ok((hash.finalize().into(), size))
}

fn by_vmalloc(engine: &dyn DmaEngine, payload: &[u8]) -> Result<(Hash, usize), Fault> {
    let device = engine.device();
    let gfp = reachable(device);
    let whole = payload.len().next_multiple_of(PAGE_SIZE);
    let (mut area, _) = largest_below(whole, whole, |size| Area::alloc_with(size, gfp))?;
    let mut hash = Sha256::new();
    // The area holds the payload, or as much of it as there is memory for, several times over.
    for filling in payload.chunks(area.len()) {
        let pieces = filling.chunks(SCATTERED).enumerate();
        for (index, piece) in pieces {
            let target = &mut area[index * SCATTERED..];
            spoil(target, piece);
            deliver(engine, piece, |source, part| {
                let mut room = [ScatterEntry::default(); SCATTERED / PAGE_SIZE];
                let list = ScatterList::new(&mut room, &mut target[part])?;
                copy(engine, source, &mut list.map::<FromDevice>(device)?)
            })?;
        }
        hash.update(&area[..filling.len()]);
    }
    Ok((hash.finalize().into(), SCATTERED.min(area.len())))
}

fn by_coherent(engine: &dyn DmaEngine, payload: &[u8]) -> Result<(Hash, usize), Fault> {
    let device = engine.device();
    let (mut buffer, size) = largest(payload.len(), |size| {
        coherent::alloc(device, size, Gfp::KERNEL)
    })?;
    let mut hash = Sha256::new();
    for chunk in payload.chunks(size) {
        spoil(buffer.as_mut_slice(), chunk);
        deliver(engine, chunk, |source, part| {
            copy(
                engine,
                source,
                &mut buffer.part_mut(part.start, part.len())?,
            )
        })?;
        hash.update(&buffer.as_slice()[..chunk.len()]);
    }
    Ok((hash.finalize().into(), size))
}

/// Fills the start of `target` so that not one byte is that of `chunk`: what an engine does not
/// write cannot be right by what lay there before.
fn spoil(target: &mut [u8], chunk: &[u8]) {
    for (byte, coming) in target.iter_mut().zip(chunk) {
        *byte = !coming;
    }
}

/// Memory for `len` bytes in whole pages, at most [`CHUNK`], or as much as there is.
fn largest<T, E>(len: usize, alloc: impl FnMut(usize) -> Result<T, E>) -> Result<(T, usize), E> {
    largest_below(CHUNK, len.next_multiple_of(PAGE_SIZE), alloc)
}

/// Memory for `size` bytes, at most `most`, halving the size while there is not enough.
fn largest_below<T, E>(
    most: usize,
    size: usize,
    mut alloc: impl FnMut(usize) -> Result<T, E>,
) -> Result<(T, usize), E> {
    let mut size = size.min(most);
    loop {
        match alloc(size) {
            Ok(memory) => return Ok((memory, size)),
            Err(_) if size > PAGE_SIZE => size = (size / 2).next_multiple_of(PAGE_SIZE),
            Err(error) => return Err(error),
        }
    }
}

/// Lets `receive` copy `chunk` to the range of its buffer that it is given.
///
/// What the engine cannot take as it is goes through a buffer of its own: a chunk out of its reach,
/// and the end of one that is no multiple of its granule. The engine then neither reads a byte
/// behind the chunk nor writes one behind the buffer, which holds whole pages.
fn deliver(
    engine: &dyn DmaEngine,
    chunk: &[u8],
    mut receive: impl FnMut(&dyn Source, Range<usize>) -> Result<(), DmaError>,
) -> Result<(), Fault> {
    let device = engine.device();
    let granule = engine.length_granule();
    let (body, tail) = chunk.split_at(chunk.len() - chunk.len() % granule);
    let bounce = |bytes: &[u8]| -> Result<Object, AllocError> {
        let mut bounce = Object::zeroed(bytes.len().next_multiple_of(granule), reachable(device))?;
        bounce[..bytes.len()].copy_from_slice(bytes);
        Ok(bounce)
    };
    if !body.is_empty() {
        match map_shared(device, body) {
            Ok(source) => receive(&source, 0..body.len())?,
            Err(DmaError::OutOfReach { .. }) => {
                let bounce = bounce(body)?;
                receive(&map_shared(device, &bounce)?, 0..body.len())?;
            }
            Err(error) => return Err(error.into()),
        }
    }
    if !tail.is_empty() {
        let bounce = bounce(tail)?;
        let end = body.len() + bounce.len();
        receive(&map_shared(device, &bounce)?, body.len()..end)?;
    }
    Ok(())
}
