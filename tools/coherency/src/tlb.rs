//! Translations that are known: a direct-mapped table for each CPU.

use crate::lines::{PAGE, PageIndex};
use crate::walk::Mapping;

/// What to do with an access to a page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// Cached RAM: the line's state decides.
    Cached(PageIndex),
    /// Uncached RAM: the same for loads, and every store counts.
    Uncached(PageIndex),
    /// RAM of which every access has to be looked at.
    Ruled,
    /// As above, and a device's model is told: its registers, or RAM that it watches.
    Told,
    /// Nobody asks for it.
    Ignored,
}

/// The translation of one page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry {
    tag: u64,
    /// Physical address of the page.
    pub pa: u64,
    /// Its mapping.
    pub mapping: Mapping,
    /// What to do.
    pub class: Class,
}

const ENTRIES: usize = 1024;

/// A tag is the page's number, a generation and an address space.
const GENERATION_SHIFT: u32 = 4;
const GENERATIONS: u64 = 256;

/// The table of a CPU.
#[derive(Clone, Debug)]
pub struct Tlb {
    entries: Box<[Entry; ENTRIES]>,
    /// From 1 on, so that no tag is 0.
    generation: u64,
}

impl Default for Tlb {
    fn default() -> Self {
        Self {
            entries: Box::new([EMPTY; ENTRIES]),
            generation: 1,
        }
    }
}

const EMPTY: Entry = Entry {
    tag: 0,
    pa: 0,
    mapping: Mapping::Off,
    class: Class::Ruled,
};

impl Tlb {
    /// The translation of `va` in address space `space`, of which there are 16.
    #[inline(always)]
    pub fn find(&self, va: u64, space: u64) -> Option<&Entry> {
        let entry = &self.entries[slot(va)];
        (entry.tag == self.tag(va, space)).then_some(entry)
    }

    /// Notes a translation.
    pub fn insert(
        &mut self,
        va: u64,
        space: u64,
        pa: u64,
        mapping: Mapping,
        class: Class,
    ) -> Entry {
        let entry = Entry {
            tag: self.tag(va, space),
            pa: pa / PAGE * PAGE,
            mapping,
            class,
        };
        self.entries[slot(va)] = entry;
        entry
    }

    /// Forgets everything.
    pub fn flush(&mut self) {
        self.generation += 1;
        if self.generation == GENERATIONS {
            self.generation = 1;
            self.entries.fill(EMPTY);
        }
    }

    #[inline(always)]
    const fn tag(&self, va: u64, space: u64) -> u64 {
        va & !(PAGE - 1) | self.generation << GENERATION_SHIFT | space & 0xF
    }
}

/// Neighbouring pages are in neighbouring entries; the windows of an address space are shifted
/// against each other.
#[inline(always)]
const fn slot(va: u64) -> usize {
    let number = va / PAGE;
    (number ^ number >> 14 ^ number >> 26) as usize % ENTRIES
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn found_until_flushed() {
        let mut tlb = Tlb::default();
        assert_eq!(tlb.find(0, 0), None);
        for round in 0..600_u64 {
            let va = round << 12 | 0x123;
            let entry = tlb.insert(va, 2, 0x4000_0FFF, Mapping::WriteBack, Class::Ignored);
            assert_eq!(entry.pa, 0x4000_0000);
            assert_eq!(tlb.find(va ^ 0x800, 2), Some(&entry));
            assert_eq!(tlb.find(va, 3), None);
            assert_eq!(tlb.find(va + PAGE, 2), None);
            tlb.flush();
            assert_eq!(tlb.find(va, 2), None);
        }
    }
}
