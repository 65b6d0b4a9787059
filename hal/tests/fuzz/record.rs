//! Who owns what, as the calls told, and nothing the allocators say of themselves.

use crate::cache::{is_constructed, reconstruct};
use crate::random::Random;
use std::collections::BTreeMap;

/// How memory was allocated, which says how it is freed.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Kind {
    /// A block of this order.
    Pages(u32),
    /// Pages by the byte.
    Exact,
    /// A `kmalloc` object.
    Object,
    /// An object of the named cache with this number.
    Cached(usize),
}

/// Memory in use.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Block {
    pub(crate) len: usize,
    pub(crate) kind: Kind,
    /// Bytes charged to the owner.
    pub(crate) charged: usize,
    tag: u8,
}

/// Bytes at the start of a block that are signed, beside its last one.
const SIGNED: usize = 256;

/// Entries looked at for one of a certain kind.
const LOOKS: usize = 200;

#[derive(Default)]
pub(crate) struct Record {
    blocks: BTreeMap<usize, Block>,
    /// Bytes charged to the owner for all of them.
    pub(crate) charged: usize,
}

impl Record {
    pub(crate) fn len(&self) -> usize {
        self.blocks.len()
    }

    pub(crate) fn get(&self, start: usize) -> Option<Block> {
        self.blocks.get(&start).copied()
    }

    /// The block that has the byte at `address`.
    pub(crate) fn covering(&self, address: usize) -> Option<(usize, Block)> {
        let (start, block) = self.blocks.range(..=address).next_back()?;
        (address < start + block.len).then_some((*start, *block))
    }

    /// Takes in `len` bytes, which must overlap no other block, and signs them.
    pub(crate) fn insert(&mut self, start: usize, len: usize, kind: Kind, charged: usize, tag: u8) {
        if let Some((other, block)) = self.blocks.range(..start + len).next_back() {
            assert!(
                other + block.len <= start,
                "{start:#x} {kind:?} overlaps {other:#x} {block:?}"
            );
        }
        let block = Block {
            len,
            kind,
            charged,
            tag,
        };
        block.sign(start);
        self.charged += charged;
        self.blocks.insert(start, block);
    }

    /// Forgets a block, which is as it was signed.
    pub(crate) fn remove(&mut self, start: usize) -> Block {
        let block = self.forget(start);
        block.check(start);
        block
    }

    /// Forgets a block that is free already.
    pub(crate) fn forget(&mut self, start: usize) -> Block {
        let block = self.blocks.remove(&start);
        let block = block.unwrap_or_else(|| panic!("{start:#x} is not in use"));
        self.charged -= block.charged;
        block
    }

    pub(crate) fn pop(&mut self) -> Option<(usize, Block)> {
        let start = *self.blocks.first_key_value()?.0;
        Some((start, self.remove(start)))
    }

    pub(crate) fn any(&self, random: &mut Random) -> Option<(usize, Block)> {
        self.some(random, |_| true).next()
    }

    /// Some of the blocks that `wanted` admits, by address.
    pub(crate) fn some(
        &self,
        random: &mut Random,
        mut wanted: impl FnMut(Kind) -> bool,
    ) -> impl Iterator<Item = (usize, Block)> {
        let ends = self
            .blocks
            .keys()
            .next()
            .zip(self.blocks.keys().next_back());
        let (first, last) = ends.map_or((0, 0), |(first, last)| (*first, *last));
        let from = first + random.below((last - first) as u64 + 1) as usize;
        self.blocks
            .range(from..)
            .take(LOOKS)
            .filter(move |(_, block)| wanted(block.kind))
            .map(|(start, block)| (*start, *block))
    }
}

impl Block {
    /// Marks the memory as this block's.
    pub(crate) fn sign(&self, start: usize) {
        // SAFETY: the block is in use, and the test's.
        let bytes = unsafe { bytes_at(start, self.len) };
        bytes[..self.len.min(SIGNED)].fill(self.tag);
        bytes[self.len - 1] = !self.tag;
    }

    /// Checks that nobody else wrote to the memory.
    pub(crate) fn check(&self, start: usize) {
        self.check_prefix(start, self.len);
    }

    /// Checks the first `len` bytes of the block, or of what it was moved to.
    pub(crate) fn check_prefix(&self, start: usize, len: usize) {
        // SAFETY: the memory is in use, and the test's.
        let bytes = unsafe { bytes_at(start, len) };
        let head = &bytes[..len.min(SIGNED).min(self.len - 1)];
        assert!(
            head.iter().all(|byte| *byte == self.tag)
                && (len < self.len || bytes[self.len - 1] == !self.tag),
            "{start:#x} {self:?} was overwritten"
        );
    }

    /// Whether an object of this block's cache is freed as its constructor made it.
    pub(crate) fn is_constructed(&self) -> bool {
        matches!(self.kind, Kind::Cached(number) if is_constructed(number))
    }

    /// Makes the memory what it must be when it is freed.
    pub(crate) fn prepare(&self, start: usize) {
        if self.is_constructed() {
            // SAFETY: the object is in use, and the test's.
            reconstruct(unsafe { bytes_at(start, self.len) });
        }
    }
}

/// The `len` bytes at `start`.
///
/// # Safety
///
/// They are in use, the caller's, and no other reference to them is left.
pub(crate) unsafe fn bytes_at(start: usize, len: usize) -> &'static mut [u8] {
    let start = std::ptr::with_exposed_provenance_mut(start);
    // SAFETY: handed on to the caller.
    unsafe { std::slice::from_raw_parts_mut(start, len) }
}
