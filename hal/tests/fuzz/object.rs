//! Calls of `kmalloc`, and objects that grow.

use crate::Fuzz;
use crate::page::charge;
use crate::record::{Block, Kind, bytes_at};
use hal::addr::VirtAddr;
use hal::mm::{AllocError, DMA_ALIGN, Gfp, MAX_CLASS_SIZE, MAX_SIZE, ReallocError, ZERO_SIZE_PTR};
use std::ptr::NonNull;

impl Fuzz {
    pub(crate) fn kmalloc(&mut self) {
        let gfp = self.object_gfp();
        let most = self.random.pick(&[256, 8192, 8192, 64 << 10, MAX_SIZE + 2]);
        let size = self.random.size(most);
        match self.call(|machine| machine.kmalloc.kmalloc(size, gfp)) {
            Ok(object) if size == 0 => assert_eq!(object, ZERO_SIZE_PTR),
            Ok(object) => self.took_object(object, size, gfp),
            Err(error) => self.refused_object(&error, size),
        }
    }

    fn took_object(&mut self, object: NonNull<u8>, size: usize, gfp: Gfp) {
        let usable = self.machine.kmalloc.ksize(object.as_ptr()).unwrap();
        assert!(
            usable >= size && usable <= size.max(DMA_ALIGN) * 2,
            "{size}: {usable}"
        );
        let align = match size.is_power_of_two() {
            true => size.max(DMA_ALIGN),
            false => DMA_ALIGN,
        };
        let other_kind = gfp.intersects(Gfp::DMA | Gfp::DMA32 | Gfp::RECLAIMABLE);
        let charged = match size <= MAX_CLASS_SIZE && other_kind {
            true => 0,
            false => charge(usable, gfp),
        };
        let va = VirtAddr::from_ptr(object.as_ptr());
        self.took(va, usable, align, gfp, Kind::Object, charged);
    }

    fn refused_object(&mut self, error: &AllocError, size: usize) {
        match error {
            AllocError::SizeTooLarge { .. } if size > MAX_SIZE => self.wrong("SizeTooLarge"),
            error => self.refused(error),
        }
    }

    /// Resizes an object, to nothing, to less, or to more.
    pub(crate) fn krealloc(&mut self) {
        let objects = |kind| matches!(kind, Kind::Object | Kind::Cached(_));
        let Some((start, block)) = self.record.some(&mut self.random, objects).next() else {
            return;
        };
        block.check(start);
        let gfp = self.object_gfp();
        let most = self
            .random
            .pick(&[block.len, block.len, 2 * block.len, 8192, MAX_SIZE + 2]);
        let mut size = self.random.size(most);
        if block.is_constructed() && size > block.len {
            // It would be freed as the test left it.
            size = block.len;
        }
        if size == 0 {
            block.prepare(start);
        }
        let object = std::ptr::with_exposed_provenance_mut(start);
        // SAFETY: the object is the test's, which from now on uses what is returned.
        let new = self.call(|machine| unsafe { machine.kmalloc.krealloc(object, size, gfp) });
        match new {
            Ok(new) if size == 0 => {
                assert_eq!(new, ZERO_SIZE_PTR);
                self.record.forget(start);
            }
            Ok(new) if size <= block.len => {
                assert_eq!(new.as_ptr(), object, "{size} bytes of {block:?}");
                stays(start, &block, size, gfp);
            }
            Ok(new) => self.moved(start, &block, new, size, gfp),
            Err(ReallocError::Alloc(error)) => {
                block.check(start);
                self.refused_object(&error, size);
            }
            Err(error) => panic!("{start:#x} {block:?}: {error}"),
        }
    }

    /// Judges an object that was moved.
    fn moved(&mut self, start: usize, block: &Block, new: NonNull<u8>, size: usize, gfp: Gfp) {
        let at = VirtAddr::from_ptr(new.as_ptr()).get();
        block.check_prefix(at, block.len);
        if gfp.contains(Gfp::ZERO) {
            // SAFETY: the object has that many bytes, and is the test's.
            let bytes = unsafe { bytes_at(at, size) };
            assert!(bytes[block.len..].iter().all(|byte| *byte == 0), "{at:#x}");
        }
        self.record.forget(start);
        let again = self.free(start, *block);
        self.judge(again, "an object that was moved");
        self.took_object(new, size, gfp.difference(Gfp::ZERO));
    }
}

/// Judges an object that was large enough.
fn stays(start: usize, block: &Block, size: usize, gfp: Gfp) {
    if gfp.contains(Gfp::ZERO) {
        block.check_prefix(start, size);
        // SAFETY: the object has that many bytes, and is the test's.
        let bytes = unsafe { bytes_at(start, block.len) };
        assert!(bytes[size..].iter().all(|byte| *byte == 0), "{start:#x}");
        block.sign(start);
    } else {
        block.check(start);
    }
}
