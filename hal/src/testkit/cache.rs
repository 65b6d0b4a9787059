//! A write-back cache between the core and one stretch of memory.

use super::adversary::{Adversary, Whim};
use super::leftover::Leftover;
use super::ram::{LINE, Ram};

/// The lines of a stretch: of each that is in the cache, what it held when it was last filled or
/// cleaned. It is dirty if the core sees something else now.
///
/// Nobody says when the core loads or stores. A line that is not in the cache shows the core what
/// masters see; if the core sees something else it has stored there, and the line is in the cache.
#[derive(Debug)]
pub(super) struct Cache {
    lines: Vec<Option<[u8; LINE]>>,
}

impl Cache {
    /// A cache without lines, for a stretch of `len` bytes.
    pub(super) fn new(len: usize) -> Self {
        Self {
            lines: vec![None; len / LINE],
        }
    }

    /// Forgets all lines.
    pub(super) fn clear(&mut self) {
        self.lines.fill(None);
    }

    /// Notices stores to line number `index`, which fetched it.
    fn settle(&mut self, ram: &Ram, index: usize) {
        if self.lines[index].is_none() {
            let at = index * LINE;
            if ram.seen::<LINE>(at)[..] != *ram.load(at, LINE) {
                let mut line = [0; LINE];
                line.copy_from_slice(ram.load(at, LINE));
                self.lines[index] = Some(line);
            }
        }
    }

    /// Whether line number `index` is in the cache.
    pub(super) fn holds(&self, index: usize) -> bool {
        self.lines[index].is_some()
    }

    /// Takes a line out, as it is.
    pub(super) fn take(&mut self, ram: &Ram, index: usize) -> Option<Leftover> {
        self.settle(ram, index);
        let held = self.lines[index].take()?;
        let bytes = ram.seen(index * LINE);
        Some(Leftover {
            bytes,
            is_dirty: held != bytes,
        })
    }

    /// Puts a line in, as it is.
    pub(super) fn put(&mut self, ram: &Ram, index: usize, leftover: Leftover) {
        let mut held = leftover.bytes;
        if leftover.is_dirty {
            held.copy_from_slice(ram.load(index * LINE, LINE));
        }
        ram.show(index * LINE, &leftover.bytes);
        self.lines[index] = Some(held);
    }

    /// Fetches a line.
    pub(super) fn fill(&mut self, ram: &Ram, index: usize) {
        self.settle(ram, index);
        self.lines[index].get_or_insert_with(|| ram.seen(index * LINE));
    }

    /// Writes a line back if it is dirty: `DC CVAC`.
    pub(super) fn clean(&mut self, ram: &mut Ram, index: usize) {
        self.settle(ram, index);
        if let Some(line) = &mut self.lines[index] {
            let now: [u8; LINE] = ram.seen(index * LINE);
            if *line != now {
                ram.store(index * LINE, &now);
                *line = now;
            }
        }
    }

    /// Drops a line with whatever was stored to it: `DC IVAC`.
    pub(super) fn invalidate(&mut self, ram: &Ram, index: usize) {
        self.settle(ram, index);
        if self.lines[index].take().is_some() {
            ram.reveal(index * LINE, LINE);
        }
    }

    /// Writes a line back and drops it: `DC CIVAC`, and what an eviction does.
    pub(super) fn clean_invalidate(&mut self, ram: &mut Ram, index: usize) {
        self.clean(ram, index);
        self.invalidate(ram, index);
    }

    /// A master wrote `bytes`, past the cache, at byte `at`. The core sees them where it must fetch
    /// them.
    pub(super) fn written_behind(&mut self, ram: &mut Ram, at: usize, bytes: &[u8]) {
        let mut done = 0;
        while done < bytes.len() {
            let at = at + done;
            let rest = &bytes[done..];
            let part = &rest[..rest.len().min(LINE - at % LINE)];
            self.settle(ram, at / LINE);
            ram.store(at, part);
            if !self.holds(at / LINE) {
                ram.show(at, part);
            }
            done += part.len();
        }
    }

    /// Time passes.
    pub(super) fn pass(&mut self, ram: &mut Ram, adversary: &mut Adversary, may_fill: bool) {
        /// Lines that are looked at in one moment.
        const LOOKS: usize = 4;

        for _ in 0..LOOKS.min(self.lines.len()) {
            let index = adversary.below(self.lines.len());
            if may_fill && adversary.follows(Whim::Prefetch) {
                self.fill(ram, index);
            }
            if adversary.follows(Whim::Evict) {
                self.clean_invalidate(ram, index);
            }
        }
    }
}
