//! Calls of the named caches, one object or many at a time.

use crate::Fuzz;
use crate::record::{Block, Kind, Record};
use hal::addr::VirtAddr;
use hal::mm::{AllocError, Gfp, KmemCache, SlabFlags};
use std::ptr::NonNull;

/// Most objects in one call.
const BULK: usize = 24;

/// What a cache is made with.
pub(crate) struct Shape {
    name: &'static str,
    pub(crate) size: usize,
    align: usize,
    flags: SlabFlags,
    constructor: Option<fn(NonNull<u8>)>,
}

pub(crate) static SHAPES: [Shape; 7] = [
    Shape::new("fuzz-24", 24, 8),
    Shape::new("fuzz-100", 100, 4),
    Shape::new("fuzz-192", 192, 64),
    Shape::new("fuzz-3000", 3000, 128),
    Shape {
        flags: SlabFlags::PACKED,
        ..Shape::new("fuzz-packed", 20, 4)
    },
    Shape {
        constructor: Some(construct),
        ..Shape::new("fuzz-constructed", CONSTRUCTED, 8)
    },
    Shape {
        flags: SlabFlags::ACCOUNT,
        ..Shape::new("fuzz-account", 320, 64)
    },
];

pub(crate) static CACHES: [KmemCache; SHAPES.len()] = [
    SHAPES[0].cache(),
    SHAPES[1].cache(),
    SHAPES[2].cache(),
    SHAPES[3].cache(),
    SHAPES[4].cache(),
    SHAPES[5].cache(),
    SHAPES[6].cache(),
];

/// No object starts in the middle of a line of the CPU's caches, unless it is packed.
const LINE: usize = 64;

impl Shape {
    const fn new(name: &'static str, size: usize, align: usize) -> Self {
        Self {
            name,
            size,
            align,
            flags: SlabFlags::empty(),
            constructor: None,
        }
    }

    const fn cache(&self) -> KmemCache {
        let Ok(cache) = KmemCache::new(self.name, self.size, self.align) else {
            panic!("a slab holds such objects")
        };
        let Ok(cache) = cache.with_flags(self.flags.bits()) else {
            panic!("such objects may have these flags")
        };
        match self.constructor {
            Some(constructor) => cache.with_constructor(constructor),
            None => cache,
        }
    }

    fn is_packed(&self) -> bool {
        self.flags.contains(SlabFlags::PACKED)
    }

    fn is_accounted(&self) -> bool {
        self.flags.contains(SlabFlags::ACCOUNT)
    }
}

/// Size of an object that [`construct`] makes.
const CONSTRUCTED: usize = 200;

fn construct(object: NonNull<u8>) {
    // SAFETY: the cache hands its constructor the bytes of one object.
    reconstruct(unsafe { NonNull::slice_from_raw_parts(object, CONSTRUCTED).as_mut() });
}

/// Byte `index` of a constructed object.
fn constructed(index: usize) -> u8 {
    (index as u8).wrapping_mul(7) ^ 0x3C
}

/// Makes a used object again what its constructor made it.
pub(crate) fn reconstruct(object: &mut [u8]) {
    for (index, byte) in object.iter_mut().enumerate() {
        *byte = constructed(index);
    }
}

pub(crate) fn is_constructed(number: usize) -> bool {
    SHAPES[number].constructor.is_some()
}

impl Fuzz {
    pub(crate) fn alloc_cached(&mut self) {
        let (number, gfp) = self.cached_request();
        let object = self.call(|machine| CACHES[number].alloc(machine.pages, gfp));
        match object {
            Ok(object) => self.took_cached(object, number, gfp),
            Err(error) => self.refused_cached(error, number, gfp),
        }
    }

    pub(crate) fn alloc_bulk(&mut self) {
        let (number, gfp) = self.cached_request();
        let mut objects = [Some(NonNull::dangling()); BULK];
        let count = self.random.below(BULK as u64 + 1) as usize;
        let result = self
            .call(|machine| CACHES[number].alloc_bulk(machine.pages, gfp, &mut objects[..count]));
        match result {
            Ok(()) => {
                for object in &objects[..count] {
                    self.took_cached(object.expect("each is filled"), number, gfp);
                }
            }
            Err(error) => {
                assert_eq!(objects[..count], [None; BULK][..count], "{error}");
                self.refused_cached(error, number, gfp);
            }
        }
    }

    fn cached_request(&mut self) -> (usize, Gfp) {
        let number = self.random.below(CACHES.len() as u64) as usize;
        let mut gfp = self.object_gfp().difference(Gfp::DMA | Gfp::DMA32);
        // Flags that the cache must refuse are rare.
        if !self.random.one_in(16) {
            if is_constructed(number) {
                gfp.remove(Gfp::ZERO);
            }
            if !SHAPES[number].is_accounted() {
                gfp.remove(Gfp::ACCOUNT);
            }
        }
        (number, gfp)
    }

    fn took_cached(&mut self, object: NonNull<u8>, number: usize, gfp: Gfp) {
        let shape = &SHAPES[number];
        assert!(
            shape.is_accounted() || !gfp.contains(Gfp::ACCOUNT),
            "{} cannot charge an object",
            shape.name
        );
        if is_constructed(number) {
            assert!(!gfp.contains(Gfp::ZERO), "{} was zeroed", shape.name);
            // SAFETY: the object is new, and the test's.
            let bytes = unsafe { NonNull::slice_from_raw_parts(object, shape.size).as_ref() };
            let first = bytes
                .iter()
                .enumerate()
                .position(|(index, byte)| *byte != constructed(index));
            assert_eq!(first, None, "{object:?} is not as it was constructed");
        }
        let align = match shape.is_packed() {
            true => shape.align,
            false => shape.align.max(LINE),
        };
        let charged = if shape.is_accounted() { shape.size } else { 0 };
        let va = VirtAddr::from_ptr(object.as_ptr());
        self.took(va, shape.size, align, gfp, Kind::Cached(number), charged);
    }

    fn refused_cached(&mut self, error: AllocError, number: usize, gfp: Gfp) {
        match error {
            AllocError::Constructed { .. } if is_constructed(number) => {
                assert!(gfp.contains(Gfp::ZERO));
                self.wrong("Constructed");
            }
            AllocError::NotAccounted { .. } if !SHAPES[number].is_accounted() => {
                assert!(gfp.contains(Gfp::ACCOUNT));
                self.wrong("NotAccounted");
            }
            error => self.refused(&error),
        }
    }

    /// Frees some objects of a cache in one call, sometimes with a wrong one among them.
    pub(crate) fn free_bulk(&mut self) {
        let number = self.random.below(CACHES.len() as u64) as usize;
        let own = |kind| kind == Kind::Cached(number);
        let blocks: Vec<(usize, Block)> =
            self.record.some(&mut self.random, own).take(BULK).collect();
        if blocks.is_empty() {
            return;
        }
        let mut objects: Vec<_> = blocks.iter().map(|(start, _)| object_at(*start)).collect();
        if self.random.one_in(4) {
            let bad = self.random.below(blocks.len() as u64) as usize;
            objects[bad] = object_at(blocks[bad].0 + 1);
            prepare(&mut self.record, &blocks[..bad]);
            let rest = objects[bad..].to_vec();
            // SAFETY: those before the wrong one are the test's, and left the record.
            let refused = unsafe { CACHES[number].free_bulk(self.machine.pages, &mut objects) };
            self.judge(refused, "the middle of an object");
            assert_eq!(objects[..bad], vec![None; bad], "they are free");
            assert_eq!(objects[bad..], rest, "they are in use");
            return;
        }
        prepare(&mut self.record, &blocks);
        // SAFETY: the objects are the test's, and left the record.
        let freed = unsafe { CACHES[number].free_bulk(self.machine.pages, &mut objects) };
        assert_eq!(freed, Ok(()), "{}", SHAPES[number].name);
        assert_eq!(objects, vec![None; blocks.len()]);
    }
}

fn object_at(address: usize) -> Option<NonNull<u8>> {
    NonNull::new(std::ptr::with_exposed_provenance_mut(address))
}

/// Forgets blocks that are freed next.
fn prepare(record: &mut Record, blocks: &[(usize, Block)]) {
    for (start, block) in blocks {
        record.remove(*start);
        block.prepare(*start);
    }
}
