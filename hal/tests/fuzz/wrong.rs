//! Frees that must be refused, and by what name.

use crate::cache::CACHES;
use crate::record::{Block, Kind};
use crate::{Fuzz, pfn_at};
use hal::addr::{PAGE_SIZE, VirtAddr};
use hal::layout;
use hal::mm::{FrameError, FreeError, Gfp, ObjectError, ReallocError};
use std::fmt::Debug;

/// What a long run must have been refused, by [`Refusal`] and the names [`Fuzz::wrong`] is given.
pub(crate) const WANTED: [&str; 15] = [
    "Address",
    "Constructed",
    "DoubleFree",
    "DoubleFree of pages",
    "NotAccounted",
    "NotAllocated",
    "NotAnObject",
    "NotAtObject",
    "OrderTooLarge",
    "OutOfRange",
    "SizeTooLarge",
    "Untouched",
    "WrongCache",
    "WrongKind",
    "WrongOrder",
];

/// The name of the error a free was refused with.
#[derive(Debug)]
pub(crate) struct Refusal(&'static str);

impl From<FreeError> for Refusal {
    fn from(error: FreeError) -> Self {
        Self(match error {
            FreeError::Frame(FrameError::OutOfRange(_)) => "OutOfRange",
            FreeError::Frame(FrameError::Untouched(_)) => "Untouched",
            FreeError::Frame(FrameError::Tail(_)) => "Tail",
            FreeError::DoubleFree(_) => "DoubleFree of pages",
            FreeError::WrongKind { .. } => "WrongKind",
            FreeError::WrongOrder { .. } => "WrongOrder",
            FreeError::Address(_) => "Address",
            other => panic!("{other}"),
        })
    }
}

impl From<ObjectError> for Refusal {
    fn from(error: ObjectError) -> Self {
        match error {
            ObjectError::NotDirectMap(_) => Self("NotDirectMap"),
            ObjectError::NotAllocated { .. } => Self("NotAllocated"),
            ObjectError::NotAnObject { .. } => Self("NotAnObject"),
            ObjectError::NotAtObject(_) => Self("NotAtObject"),
            ObjectError::DoubleFree(_) => Self("DoubleFree"),
            ObjectError::WrongCache { .. } => Self("WrongCache"),
            ObjectError::Pages(error) => error.into(),
            other => panic!("{other}"),
        }
    }
}

impl From<ReallocError> for Refusal {
    fn from(error: ReallocError) -> Self {
        match error {
            ReallocError::Object(error) => error.into(),
            ReallocError::Alloc(error) => panic!("{error}"),
        }
    }
}

impl Fuzz {
    /// Takes note of a refusal.
    pub(crate) fn wrong(&mut self, name: &'static str) {
        *self.refusals.entry(name).or_default() += 1;
    }

    /// Judges the result of a call that must be refused.
    pub(crate) fn judge(&mut self, result: Result<(), impl Into<Refusal>>, what: impl Debug) {
        match result.map_err(Into::into) {
            Ok(()) => panic!("a wrong free of {what:?} passed"),
            Err(Refusal(name)) => self.wrong(name),
        }
    }

    /// Frees some block, which stays in use, in a way that must be refused.
    pub(crate) fn wrong_free_of_any(&mut self) {
        if let Some((start, block)) = self.record.any(&mut self.random) {
            self.wrong_free(start, block);
        }
    }

    pub(crate) fn wrong_free(&mut self, start: usize, block: Block) {
        match block.kind {
            Kind::Pages(order) => self.wrong_free_of_pages(start, block, order),
            // Each page is a block of its own.
            Kind::Exact => self.wrong_free_of_pages(start, block, 0),
            Kind::Object => self.wrong_free_of_object(start, block),
            Kind::Cached(number) => self.wrong_free_of_cached(start, block, number),
        }
    }

    fn wrong_free_of_pages(&mut self, start: usize, block: Block, own: u32) {
        let pages = self.machine.pages;
        let object = std::ptr::with_exposed_provenance_mut::<u8>(start);
        let order = match self.random.below(11) as u32 {
            order if order == own => own + 1,
            order => order,
        };
        let inside = self.random.below(block.len as u64) as usize | 1;
        let page = pfn_at(start) + self.random.below(1 << own) as u32;
        // SAFETY: each call is one that must be refused, and then changes nothing.
        unsafe {
            match self.random.below(6) {
                0 => self.judge(pages.free_pages(pfn_at(start), order), block),
                1 => self.judge(pages.split_page(pfn_at(start), order), block),
                2 if page != pfn_at(start) => self.judge(pages.free_pages(page, 0), block),
                3 => {
                    let va = VirtAddr::new(start + inside);
                    self.judge(pages.free_pages_at(va, own), block);
                }
                4 => self.judge(CACHES[0].free(pages, object), block),
                _ => self.judge(self.machine.kmalloc.kfree(object), block),
            }
        }
    }

    fn wrong_free_of_object(&mut self, start: usize, block: Block) {
        let (pages, kmalloc) = (self.machine.pages, self.machine.kmalloc);
        let object = std::ptr::with_exposed_provenance_mut::<u8>(start);
        let inside = 1 + self.random.below(block.len as u64 - 1) as usize;
        // SAFETY: each call is one that must be refused, and then changes nothing.
        unsafe {
            match self.random.below(5) {
                0 => self.judge(kmalloc.kfree(object.add(inside)), block),
                1 => self.judge(kmalloc.kfree_sensitive(object.add(inside)), block),
                2 => self.judge(pages.free_pages(pfn_at(start), 0), block),
                3 => {
                    let moved = kmalloc.krealloc(object.add(inside), block.len, Gfp::NOWAIT);
                    self.judge(moved.map(drop), block);
                }
                _ => self.judge(CACHES[0].free(pages, object), block),
            }
        }
    }

    fn wrong_free_of_cached(&mut self, start: usize, block: Block, number: usize) {
        let pages = self.machine.pages;
        let object = std::ptr::with_exposed_provenance_mut::<u8>(start);
        let inside = 1 + self.random.below(block.len as u64 - 1) as usize;
        let other = (number + 1) % CACHES.len();
        // SAFETY: each call is one that must be refused, and then changes nothing.
        unsafe {
            match self.random.below(4) {
                0 => self.judge(CACHES[number].free(pages, object.add(inside)), block),
                1 => self.judge(self.machine.kmalloc.kfree(object.add(inside)), block),
                2 => self.judge(pages.free_pages(pfn_at(start), 0), block),
                _ => self.judge(CACHES[other].free(pages, object), block),
            }
        }
    }

    /// Frees something that is in no record, or a block that a lucky shot has hit.
    pub(crate) fn wild_free(&mut self) {
        let ram = self.machine.ram;
        let offset = self.random.below(ram.size()) as usize & !7;
        let va = layout::phys_to_virt(ram.start + offset);
        let page = va.align_down(PAGE_SIZE).get();
        let order = self.random.below(12) as u32;
        let hit = self.record.covering(page).map(|(start, block)| {
            block.kind == Kind::Exact || (start == page && block.kind == Kind::Pages(order))
        });
        if hit == Some(true) || self.record.get(va.get()).is_some() {
            return;
        }
        // SAFETY: no block in use starts there, so both calls must be refused.
        unsafe {
            self.judge(self.machine.kmalloc.kfree(va.as_ptr()), va);
            self.judge(self.machine.pages.free_pages(pfn_at(page), order), va);
        }
    }

    /// Frees what no allocator ever had.
    pub(crate) fn foreign_free(&mut self) {
        let pages = self.machine.pages;
        let mut local = 0_u8;
        let beyond = self.machine.ram.end.pfn() + self.random.below(1 << 20) as u32;
        // SAFETY: the allocators have none of it, so each call must be refused.
        unsafe {
            self.judge(self.machine.kmalloc.kfree(&raw mut local), "the stack");
            self.judge(CACHES[0].free(pages, &raw mut local), "the stack");
            self.judge(pages.free_pages(beyond, 0), beyond);
            let beyond = layout::phys_to_virt(beyond.phys());
            self.judge(self.machine.kmalloc.kfree(beyond.as_ptr()), beyond);
        }
    }
}
