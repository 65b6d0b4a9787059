//! Buffers of each kind of memory, lent to an engine in part.

use super::options::{Kind, MAX_SIZE};
use crate::handed::Fault;
use crate::machine::machine;
use crate::memory::{Area, Object, reachable};
use core::ops::Range;
use hal::addr::{PAGE_SIZE, VirtAddr};
use hal::dma::engine::{Destination, Source};
use hal::dma::sg::ScatterEntry;
use hal::dma::streaming::map_slice;
use hal::dma::{Coherent, Device, DmaError, FromDevice, ScatterList, ToDevice};

/// Pages of the longest copy, wherever in its first page it starts.
const PAGES: usize = MAX_SIZE / PAGE_SIZE + 1;

/// A buffer.
#[derive(Debug)]
pub(crate) enum Buffer {
    Kmalloc(Object),
    Coherent(Coherent),
    Vmalloc(Area),
}

impl Buffer {
    /// At least `len` bytes that `device` reaches.
    pub(crate) fn alloc(kind: Kind, device: &'static Device, len: usize) -> Result<Self, Fault> {
        Ok(match kind {
            Kind::Kmalloc => Self::Kmalloc(Object::zeroed(len, reachable(device))?),
            Kind::Coherent => Self::Coherent(machine().pool.alloc(device, len)?),
            Kind::Vmalloc => Self::Vmalloc(Area::alloc_with(len, reachable(device))?),
        })
    }

    pub(super) const fn kind(&self) -> Kind {
        match self {
            Self::Kmalloc(_) => Kind::Kmalloc,
            Self::Coherent(_) => Kind::Coherent,
            Self::Vmalloc(_) => Kind::Vmalloc,
        }
    }

    pub(crate) fn bytes(&mut self) -> &mut [u8] {
        match self {
            Self::Kmalloc(object) => object,
            Self::Coherent(coherent) => coherent.as_mut_slice(),
            Self::Vmalloc(area) => area,
        }
    }

    /// Where the CPU finds byte `index`.
    pub(super) fn va(&self, index: usize) -> VirtAddr {
        let start = match self {
            Self::Kmalloc(object) => object.va(),
            Self::Coherent(coherent) => coherent.va(),
            Self::Vmalloc(area) => area.va(),
        };
        start + index
    }

    /// Lets `device` read the bytes of `part` while `f` runs.
    pub(super) fn lend(
        &mut self,
        device: &Device,
        part: Range<usize>,
        f: impl FnOnce(&dyn Source) -> Result<(), DmaError>,
    ) -> Result<(), DmaError> {
        match self {
            Self::Kmalloc(object) => f(&map_slice::<ToDevice>(device, &mut object[part])?),
            Self::Coherent(coherent) => f(&coherent.part(part.start, part.len())?),
            Self::Vmalloc(area) => {
                let mut room = [ScatterEntry::default(); PAGES];
                let list = ScatterList::new(&mut room, &mut area[part])?;
                f(&list.map::<ToDevice>(device)?)
            }
        }
    }

    /// Lets `device` write the bytes of `part` while `f` runs.
    pub(crate) fn lend_mut<E: From<DmaError>>(
        &mut self,
        device: &Device,
        part: Range<usize>,
        f: impl FnOnce(&mut dyn Destination) -> Result<(), E>,
    ) -> Result<(), E> {
        match self {
            Self::Kmalloc(object) => f(&mut map_slice::<FromDevice>(device, &mut object[part])?),
            Self::Coherent(coherent) => f(&mut coherent.part_mut(part.start, part.len())?),
            Self::Vmalloc(area) => {
                let mut room = [ScatterEntry::default(); PAGES];
                let list = ScatterList::new(&mut room, &mut area[part])?;
                f(&mut list.map::<FromDevice>(device)?)
            }
        }
    }
}
