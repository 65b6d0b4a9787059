//! A stretch of memory with what lies between the core and it.

use super::adversary::{Adversary, Whim};
use super::cache::Cache;
use super::leftover::{Leftover, Leftovers};
use super::ram::{LINE, Ram};
use super::write_buffer::WriteBuffer;
use crate::addr::{PhysAddr, PhysRange};

/// How the core accesses a stretch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Normal write-back memory: through the cache.
    Cached,
    /// Normal non-cacheable memory: past the cache, through the write buffer.
    Uncached,
}

/// What is done to a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Maintenance {
    Clean,
    Invalidate,
    CleanInvalidate,
}

#[derive(Debug)]
pub(super) struct Region {
    ram: Ram,
    cache: Cache,
    buffer: WriteBuffer,
    leftovers: Leftovers,
    access: Access,
    /// How it is accessed when a program starts.
    initial: Access,
}

impl Region {
    /// A stretch that is accessed as `access` says.
    pub(super) fn new(ram: Ram, access: Access) -> Self {
        let mut this = Self {
            cache: Cache::new(ram.len()),
            buffer: WriteBuffer::default(),
            leftovers: Leftovers::default(),
            ram,
            access,
            initial: access,
        };
        this.buffer.start(&this.ram);
        this
    }

    /// Fills the stretch with garbage that everybody sees, with nothing in between.
    pub(super) fn restart(&mut self, adversary: &mut Adversary) {
        self.ram.garble(adversary);
        self.cache.clear();
        self.leftovers.clear();
        self.buffer.start(&self.ram);
        self.access = self.initial;
    }

    /// The core accesses the stretch in another way from now on. What its cache holds stays there,
    /// and stores that are on their way go on: a line that is fetched meanwhile lacks them.
    pub(super) fn change(&mut self, access: Access, adversary: &mut Adversary) {
        if access == self.access {
            return;
        }
        self.observe();
        self.access = access;
        let Self {
            ram,
            cache,
            buffer,
            leftovers,
            ..
        } = self;
        match access {
            Access::Uncached => {
                for index in 0..ram.len() / LINE {
                    if let Some(leftover) = cache.take(ram, index) {
                        leftovers.leave(index, leftover);
                    }
                }
                buffer.start(ram);
            }
            Access::Cached => {
                buffer.load_anew(ram, |at| leftovers.hides(at));
                for index in 0..ram.len() / LINE {
                    if let Some(leftover) = leftovers.take(index) {
                        cache.put(ram, index, leftover);
                    }
                }
                for index in buffer.lines_on_their_way() {
                    if !cache.holds(index) && adversary.follows(Whim::Prefetch) {
                        ram.reveal(index * LINE, LINE);
                        cache.fill(ram, index);
                    }
                }
            }
        }
    }

    /// A core fetches a line of memory that is not cached any more.
    pub(super) fn stray(&mut self, adversary: &mut Adversary) {
        let index = adversary.below(self.ram.len() / LINE);
        if self.access == Access::Uncached
            && !self.leftovers.hides(index * LINE)
            && adversary.follows(Whim::Prefetch)
        {
            let mut bytes = [0; LINE];
            bytes.copy_from_slice(self.ram.load(index * LINE, LINE));
            let is_dirty = false;
            self.leftovers.leave(index, Leftover { bytes, is_dirty });
        }
    }

    /// Leaves dirty lines of garbage in the cache, as of a time when the memory was cached.
    pub(super) fn leave_lines(&mut self, adversary: &mut Adversary) {
        for index in 0..self.ram.len() / LINE {
            let leftover = Leftover {
                bytes: adversary.garbage(),
                is_dirty: true,
            };
            self.leftovers.leave(index, leftover);
        }
    }

    pub(super) fn range(&self) -> PhysRange {
        self.ram.range()
    }

    /// Where in the stretch `pa` lies.
    pub(super) fn offset(&self, pa: PhysAddr) -> Option<usize> {
        self.ram.offset(pa)
    }

    /// Maintains the line that holds byte `at`.
    pub(super) fn maintain(&mut self, at: usize, what: Maintenance) {
        let Self { ram, cache, .. } = self;
        if self.access == Access::Uncached {
            if let Some(leftover) = self.leftovers.take(at / LINE) {
                let is_lost = what == Maintenance::Invalidate;
                self.drop_leftover(at / LINE, leftover, is_lost);
            }
            return;
        }
        match what {
            Maintenance::Clean => cache.clean(ram, at / LINE),
            Maintenance::Invalidate => cache.invalidate(ram, at / LINE),
            Maintenance::CleanInvalidate => cache.clean_invalidate(ram, at / LINE),
        }
    }

    /// A leftover has left the cache; it is written back unless it is clean or lost.
    fn drop_leftover(&mut self, index: usize, leftover: Leftover, is_lost: bool) {
        if leftover.is_dirty && !is_lost {
            self.buffer.observe(&self.ram);
            self.buffer
                .written_behind(&mut self.ram, index * LINE, &leftover.bytes);
        }
    }

    /// What a master reads.
    pub(super) fn load(&self, at: usize, len: usize) -> &[u8] {
        self.ram.load(at, len)
    }

    /// What a master writes.
    pub(super) fn store(&mut self, at: usize, bytes: &[u8]) {
        match self.access {
            Access::Cached => self.cache.written_behind(&mut self.ram, at, bytes),
            Access::Uncached => {
                self.buffer.observe(&self.ram);
                self.buffer.written_behind(&mut self.ram, at, bytes);
            }
        }
    }

    /// Notices what the core stored to non-cacheable memory since the last look.
    pub(super) fn observe(&mut self) {
        if self.access == Access::Uncached {
            self.buffer.observe(&self.ram);
        }
    }

    /// `DMB OSHST`.
    pub(super) fn order_stores(&mut self) {
        self.buffer.order();
    }

    /// A register of a device is stored to: what was ordered before is there by then.
    pub(super) fn doorbell(&mut self) {
        self.buffer.drain_ordered(&mut self.ram);
    }

    /// `DMB OSHLD`.
    pub(super) fn order_loads(&mut self) {
        let Self { leftovers, .. } = self;
        let hidden = |at| leftovers.hides(at);
        self.buffer.load_anew(&self.ram, hidden);
    }

    /// `DSB SY`.
    pub(super) fn complete(&mut self) {
        self.buffer.drain(&mut self.ram);
        self.order_loads();
    }

    /// Time passes.
    pub(super) fn pass(&mut self, adversary: &mut Adversary) {
        let Self {
            ram,
            cache,
            buffer,
            leftovers,
            ..
        } = self;
        match self.access {
            Access::Cached => cache.pass(ram, adversary, true),
            Access::Uncached => {
                buffer.pass(ram, adversary, |at| leftovers.hides(at));
                if let Some((index, leftover)) = leftovers.pass(adversary) {
                    self.drop_leftover(index, leftover, false);
                }
            }
        }
    }
}
