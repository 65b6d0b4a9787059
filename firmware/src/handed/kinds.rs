//! The kinds of memory, each handed over as it has to be.

use super::window::Place;
use super::{Handed, Meanwhile, Upkeep, Window, since, transfer};
use crate::memory::contiguous::Contiguous;
use crate::memory::{Area, Object, Shuffled};
use core::ops::Range;
use hal::addr::VirtAddr;
use hal::dma::engine::{Destination, Source};
use hal::dma::maintenance::counters;
use hal::dma::sg::ScatterEntry;
use hal::dma::streaming::map_slice;
use hal::dma::{
    Coherent, Device, DmaEngine, DmaError, FromDevice, PoolBlock, ScatterList, ToDevice,
};

/// The most pages of an area that is handed over: each may be a run by itself.
const MAX_PAGES: usize = 256;

/// Lets the engine write `bytes` through a streaming map.
fn receive_mapped(
    bytes: &mut [u8],
    engine: &dyn DmaEngine,
    source: &dyn Source,
    meanwhile: Meanwhile<'_>,
) -> Result<Upkeep, DmaError> {
    let mut upkeep = Upkeep::default();
    let begin = counters();
    let place = Place::of(bytes);
    let mut mapping = map_slice::<FromDevice>(engine.device(), bytes)?;
    upkeep.starts(begin, |index| Destination::segment(&mapping, index));
    // SAFETY: `mapping` borrows the bytes exclusively, gives no access to them, and ends after
    // the window.
    let window = unsafe { Window::onto(place) };
    transfer(engine, source, &mut mapping, &window, meanwhile)?;
    let begin = counters();
    mapping.unmap();
    upkeep.after = since(begin);
    Ok(upkeep)
}

/// Lets the engine read `bytes` through a streaming map.
fn send_mapped(
    bytes: &mut [u8],
    engine: &dyn DmaEngine,
    to: &mut dyn Destination,
    meanwhile: Meanwhile<'_>,
) -> Result<Upkeep, DmaError> {
    let mut upkeep = Upkeep::default();
    let begin = counters();
    let place = Place::of(bytes);
    let mapping = map_slice::<ToDevice>(engine.device(), bytes)?;
    upkeep.starts(begin, |index| Source::segment(&mapping, index));
    // SAFETY: `mapping` borrows the bytes exclusively, gives no access to them, and ends after
    // the window.
    let window = unsafe { Window::onto(place) };
    transfer(engine, &mapping, to, &window, meanwhile)?;
    let begin = counters();
    mapping.unmap();
    upkeep.after = since(begin);
    Ok(upkeep)
}

macro_rules! mapped {
    ($($owner:ty),*) => {$(
        impl Handed for $owner {
            fn va(&self) -> VirtAddr {
                self.va()
            }

            fn bytes(&mut self) -> &mut [u8] {
                self
            }

            fn receive(
                &mut self,
                engine: &dyn DmaEngine,
                part: Range<usize>,
                source: &dyn Source,
                meanwhile: Meanwhile<'_>,
            ) -> Result<Upkeep, DmaError> {
                receive_mapped(&mut self[part], engine, source, meanwhile)
            }

            fn send(
                &mut self,
                engine: &dyn DmaEngine,
                part: Range<usize>,
                to: &mut dyn Destination,
                meanwhile: Meanwhile<'_>,
            ) -> Result<Upkeep, DmaError> {
                send_mapped(&mut self[part], engine, to, meanwhile)
            }

            fn lend(&mut self, device: &Device, part: Range<usize>) -> Result<(), DmaError> {
                map_slice::<FromDevice>(device, &mut self[part]).map(|mapping| mapping.unmap())
            }
        }
    )*};
}

mapped!(Object, Contiguous);

impl Handed for Area {
    fn va(&self) -> VirtAddr {
        self.va()
    }

    fn bytes(&mut self) -> &mut [u8] {
        self
    }

    fn receive(
        &mut self,
        engine: &dyn DmaEngine,
        part: Range<usize>,
        source: &dyn Source,
        meanwhile: Meanwhile<'_>,
    ) -> Result<Upkeep, DmaError> {
        let mut upkeep = Upkeep::default();
        let mut room = [ScatterEntry::default(); MAX_PAGES];
        let begin = counters();
        let place = Place::of(&mut self[part.clone()]);
        let list = ScatterList::new(&mut room, &mut self[part])?;
        let mut mapping = list.map::<FromDevice>(engine.device())?;
        upkeep.starts(begin, |index| Destination::segment(&mapping, index));
        // SAFETY: `mapping` borrows the bytes exclusively, gives no access to them, and ends after
        // the window.
        let window = unsafe { Window::onto(place) };
        transfer(engine, source, &mut mapping, &window, meanwhile)?;
        let begin = counters();
        mapping.unmap();
        upkeep.after = since(begin);
        Ok(upkeep)
    }

    fn send(
        &mut self,
        engine: &dyn DmaEngine,
        part: Range<usize>,
        to: &mut dyn Destination,
        meanwhile: Meanwhile<'_>,
    ) -> Result<Upkeep, DmaError> {
        let mut upkeep = Upkeep::default();
        let mut room = [ScatterEntry::default(); MAX_PAGES];
        let begin = counters();
        let place = Place::of(&mut self[part.clone()]);
        let list = ScatterList::new(&mut room, &mut self[part])?;
        let mapping = list.map::<ToDevice>(engine.device())?;
        upkeep.starts(begin, |index| Source::segment(&mapping, index));
        // SAFETY: `mapping` borrows the bytes exclusively, gives no access to them, and ends after
        // the window.
        let window = unsafe { Window::onto(place) };
        transfer(engine, &mapping, to, &window, meanwhile)?;
        let begin = counters();
        mapping.unmap();
        upkeep.after = since(begin);
        Ok(upkeep)
    }

    fn lend(&mut self, device: &Device, part: Range<usize>) -> Result<(), DmaError> {
        let mut room = [ScatterEntry::default(); MAX_PAGES];
        let list = ScatterList::new(&mut room, &mut self[part])?;
        list.map::<FromDevice>(device)
            .map(|mapping| mapping.unmap())
    }
}

impl Handed for Coherent {
    fn va(&self) -> VirtAddr {
        self.va()
    }

    fn bytes(&mut self) -> &mut [u8] {
        self.as_mut_slice()
    }

    fn receive(
        &mut self,
        engine: &dyn DmaEngine,
        part: Range<usize>,
        source: &dyn Source,
        meanwhile: Meanwhile<'_>,
    ) -> Result<Upkeep, DmaError> {
        let mut upkeep = Upkeep::default();
        let begin = counters();
        let place = Place::of(
            self.as_mut_slice()
                .get_mut(part.clone())
                .unwrap_or_default(),
        );
        let mut to = self.part_mut(part.start, part.len())?;
        upkeep.starts(begin, |index| Destination::segment(&to, index));
        // SAFETY: `self` is borrowed exclusively, and nothing of it but its address is used until
        // the window is gone.
        let window = unsafe { Window::onto(place) };
        transfer(engine, source, &mut to, &window, meanwhile)?;
        upkeep.after = since(begin);
        Ok(upkeep)
    }

    fn send(
        &mut self,
        engine: &dyn DmaEngine,
        part: Range<usize>,
        to: &mut dyn Destination,
        meanwhile: Meanwhile<'_>,
    ) -> Result<Upkeep, DmaError> {
        let mut upkeep = Upkeep::default();
        let begin = counters();
        let place = Place::of(
            self.as_mut_slice()
                .get_mut(part.clone())
                .unwrap_or_default(),
        );
        let from = self.part(part.start, part.len())?;
        upkeep.starts(begin, |index| Source::segment(&from, index));
        // SAFETY: `self` is borrowed exclusively, and nothing of it but its address is used until
        // the window is gone.
        let window = unsafe { Window::onto(place) };
        transfer(engine, &from, to, &window, meanwhile)?;
        upkeep.after = since(begin);
        Ok(upkeep)
    }

    fn lend(&mut self, _: &Device, _: Range<usize>) -> Result<(), DmaError> {
        Ok(())
    }
}

/// Whole: an engine takes no part of a block.
impl Handed for PoolBlock<'_> {
    fn va(&self) -> VirtAddr {
        VirtAddr::from_ptr(self.as_ptr().as_ptr())
    }

    fn bytes(&mut self) -> &mut [u8] {
        self.as_mut_slice()
    }

    fn receive(
        &mut self,
        engine: &dyn DmaEngine,
        _: Range<usize>,
        source: &dyn Source,
        meanwhile: Meanwhile<'_>,
    ) -> Result<Upkeep, DmaError> {
        let mut upkeep = Upkeep::default();
        let begin = counters();
        let place = Place::of(self.as_mut_slice());
        upkeep.starts(begin, |index| Destination::segment(self, index));
        // SAFETY: `self` is borrowed exclusively, and nothing of it but its address is used until
        // the window is gone.
        let window = unsafe { Window::onto(place) };
        transfer(engine, source, self, &window, meanwhile)?;
        upkeep.after = since(begin);
        Ok(upkeep)
    }

    fn send(
        &mut self,
        engine: &dyn DmaEngine,
        _: Range<usize>,
        to: &mut dyn Destination,
        meanwhile: Meanwhile<'_>,
    ) -> Result<Upkeep, DmaError> {
        let mut upkeep = Upkeep::default();
        let begin = counters();
        let place = Place::of(self.as_mut_slice());
        upkeep.starts(begin, |index| Source::segment(self, index));
        // SAFETY: `self` is borrowed exclusively, and nothing of it but its address is used until
        // the window is gone.
        let window = unsafe { Window::onto(place) };
        transfer(engine, self, to, &window, meanwhile)?;
        upkeep.after = since(begin);
        Ok(upkeep)
    }

    fn lend(&mut self, _: &Device, _: Range<usize>) -> Result<(), DmaError> {
        Ok(())
    }
}

/// Through one streaming map, as if the pages were one run: what a driver does that takes the frame
/// of the first byte for all of them.
impl Handed for Shuffled {
    fn va(&self) -> VirtAddr {
        self.va()
    }

    fn bytes(&mut self) -> &mut [u8] {
        self.bytes()
    }

    fn receive(
        &mut self,
        engine: &dyn DmaEngine,
        part: Range<usize>,
        source: &dyn Source,
        meanwhile: Meanwhile<'_>,
    ) -> Result<Upkeep, DmaError> {
        receive_mapped(&mut self.block()[part], engine, source, meanwhile)
    }

    fn send(
        &mut self,
        engine: &dyn DmaEngine,
        part: Range<usize>,
        to: &mut dyn Destination,
        meanwhile: Meanwhile<'_>,
    ) -> Result<Upkeep, DmaError> {
        send_mapped(&mut self.block()[part], engine, to, meanwhile)
    }

    fn lend(&mut self, device: &Device, part: Range<usize>) -> Result<(), DmaError> {
        map_slice::<FromDevice>(device, &mut self.block()[part]).map(|mapping| mapping.unmap())
    }
}
