//! What a cache holds.

use core::fmt;

/// What a cache holds at one moment: a line of the slab report.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CacheInfo {
    /// The cache's name; `kmalloc` caches are told apart by their objects' size.
    pub name: &'static str,
    /// Bytes per object.
    pub object_size: usize,
    /// Objects in a slab of the order the cache prefers.
    pub objects_per_slab: u32,
    /// Slabs the cache owns.
    pub slabs: u32,
    /// Slabs without an object in use.
    pub empty_slabs: u32,
    /// Objects with callers or in the cores' magazines.
    pub objects_out: u32,
}

impl fmt::Display for CacheInfo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            name,
            object_size,
            objects_per_slab,
            slabs,
            empty_slabs,
            objects_out,
        } = self;
        write!(
            f,
            "{name} objects_out={objects_out} objsize={object_size} objperslab={objects_per_slab} \
             slabs={slabs} empty={empty_slabs}"
        )
    }
}
