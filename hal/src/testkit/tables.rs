//! Translation tables, and what cores remember of them.

use super::adversary::{Adversary, Whim};
use crate::addr::{PAGE_SIZE, PhysAddr, VirtAddr};
use crate::arch::trace::Op;
use crate::layout;
use crate::mmu::{Access, Descriptor, Level, MemoryType};
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};

/// Cores, each with TLBs of its own. The code under test runs on number 0.
pub const CORES: usize = 2;

/// What an address translates to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Translation {
    /// Where it leads.
    pub pa: PhysAddr,
    /// How it is accessed.
    pub memory_type: Option<MemoryType>,
    /// What may be done there.
    pub access: Option<Access>,
}

/// An entry that a walk ended at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Found {
    /// Where it is in memory.
    entry: usize,
    level: Level,
    descriptor: Descriptor,
}

/// A leaf in a TLB.
#[derive(Clone, Copy, Debug)]
struct Cached {
    va: VirtAddr,
    level: Level,
    descriptor: Descriptor,
}

impl Cached {
    fn covers(&self, va: VirtAddr) -> bool {
        va.align_down(self.level.size()) == self.va
    }
}

/// What a core remembers.
#[derive(Debug, Default)]
struct Tlb {
    leaves: Vec<Cached>,
    /// Level 3 tables, by the first address they serve.
    tables: BTreeMap<VirtAddr, PhysAddr>,
}

/// A tree in memory, what table walkers see of it, and what the cores remember.
#[derive(Debug)]
pub(super) struct Tables {
    root: PhysAddr,
    /// The pages that the cores use.
    pages: Vec<VirtAddr>,
    /// Stores that walkers do not see yet, in order: the entry and what they see.
    stores: Vec<(usize, u64)>,
    /// What the core under test may still use, of entries that changed since its last `ISB`.
    unsynchronised: BTreeMap<usize, u64>,
    /// TLB invalidations that were issued.
    invalidations: Vec<Op>,
    /// Those that are done, but not known to be done.
    done: Vec<Op>,
    /// Leaves that became invalid, until their invalidation is complete.
    broken: Vec<Cached>,
    tlbs: [Tlb; CORES],
}

/// A breach of the rules of Arm ARM D8.16.
pub(super) type Breach = &'static str;

impl Tables {
    pub(super) fn new(root: PhysAddr, pages: Vec<VirtAddr>) -> Self {
        Self {
            root,
            pages,
            stores: Vec::new(),
            unsynchronised: BTreeMap::new(),
            invalidations: Vec::new(),
            done: Vec::new(),
            broken: Vec::new(),
            tlbs: Default::default(),
        }
    }

    /// Everybody sees what the tables hold, and remembers nothing.
    pub(super) fn restart(&mut self) {
        let pages = std::mem::take(&mut self.pages);
        *self = Self::new(self.root, pages);
    }

    /// What an entry holds, as the core under test sees it.
    fn raw(entry: usize) -> u64 {
        let entry = VirtAddr::new(entry).as_ptr::<u64>();
        // SAFETY: the entry is one of a table in pretended RAM, aligned, and accessed by atomics.
        unsafe { AtomicU64::from_ptr(entry) }.load(Ordering::Relaxed)
    }

    /// What walkers see of an entry.
    fn walked(&self, entry: usize) -> u64 {
        let first = self.stores.iter().find(|(at, _)| *at == entry);
        first.map_or_else(|| Self::raw(entry), |(_, before)| *before)
    }

    /// Where the entry for `va` of the table at `table` is.
    fn entry(table: PhysAddr, level: Level, va: VirtAddr) -> usize {
        layout::phys_to_virt(table).get() + level.index(va) * size_of::<u64>()
    }

    /// A walk for `va` from a table on.
    fn walk(
        mut table: PhysAddr,
        mut level: Level,
        va: VirtAddr,
        read: impl Fn(usize) -> u64,
    ) -> Found {
        loop {
            let entry = Self::entry(table, level, va);
            let descriptor = Descriptor::from_raw(read(entry));
            match (descriptor.next_table(level), level.next()) {
                (Some(below), Some(next)) => (table, level) = (below, next),
                _ => {
                    return Found {
                        entry,
                        level,
                        descriptor,
                    };
                }
            }
        }
    }

    /// What the tables hold for `va`, whoever sees it.
    fn held(&self, va: VirtAddr) -> Found {
        Self::walk(self.root, Level::ROOT, va, Self::raw)
    }

    /// Where the code under test finds `va`.
    pub(super) fn physical(&self, va: VirtAddr) -> Option<PhysAddr> {
        let Found {
            level, descriptor, ..
        } = self.held(va);
        translation(va, level, descriptor).map(|found| found.pa)
    }

    /// What core number `core` uses for `va`.
    pub(super) fn translate(
        &self,
        core: usize,
        va: VirtAddr,
        adversary: &mut Adversary,
    ) -> Option<Translation> {
        let tlb = &self.tlbs[core];
        if let Some(leaf) = tlb.leaves.iter().find(|leaf| leaf.covers(va)) {
            return translation(va, leaf.level, leaf.descriptor);
        }
        let read = |entry| self.walked(entry);
        let span = va.align_down(Level::L2.size());
        let found = match tlb.tables.get(&span) {
            Some(&table) => Self::walk(table, Level::L3, va, read),
            None => Self::walk(self.root, Level::ROOT, va, read),
        };
        if core == 0
            && let Some(&before) = self.unsynchronised.get(&found.entry)
            && adversary.below(2) == 0
        {
            return translation(va, found.level, Descriptor::from_raw(before));
        }
        translation(va, found.level, found.descriptor)
    }

    /// The page of the program whose leaf lies in `entry`.
    fn page_of(&self, entry: usize) -> Option<(VirtAddr, Level)> {
        let mut pages = self.pages.iter();
        pages.find_map(|&va| {
            let found = self.held(va);
            (found.entry == entry).then_some((va.align_down(found.level.size()), found.level))
        })
    }

    /// What the core under test sees in the entry at `entry`.
    pub(super) fn holds(&self, entry: VirtAddr) -> u64 {
        Self::raw(entry.get())
    }

    /// Whether some core may access the page at `pa` through its cache: it remembers a translation
    /// that says so.
    pub(super) fn reaches_cached(&self, pa: PhysAddr) -> bool {
        let leads_there = |leaf: &Cached| {
            let start = leaf.descriptor.output_address();
            let is_cached = leaf.descriptor.memory_type() == Some(MemoryType::NormalWriteBack);
            is_cached && start <= pa && pa < start + leaf.level.size()
        };
        let mut leaves = self.tlbs.iter().flat_map(|tlb| &tlb.leaves);
        leaves.any(leads_there)
    }

    /// Whether the entry at `entry` is valid.
    pub(super) fn is_valid(&self, entry: VirtAddr) -> bool {
        Descriptor::from_raw(Self::raw(entry.get())).is_valid()
    }

    /// The code under test is about to store `new` to `entry`.
    ///
    /// # Errors
    ///
    /// The rule that breaks.
    pub(super) fn store(&mut self, entry: VirtAddr, new: u64) -> Result<(), Breach> {
        let entry = entry.get();
        let before = Self::raw(entry);
        let (old, new) = (Descriptor::from_raw(before), Descriptor::from_raw(new));
        let result = match self.page_of(entry) {
            Some((va, level)) => self.check(va, level, old, new),
            None => Ok(()),
        };
        self.stores.push((entry, before));
        result
    }

    /// Break before make: between two translations of an address lies an invalid entry whose
    /// invalidation has completed. Permissions may change at once.
    fn check(
        &mut self,
        va: VirtAddr,
        level: Level,
        old: Descriptor,
        new: Descriptor,
    ) -> Result<(), Breach> {
        if old.is_valid() && !new.is_valid() {
            self.broken.push(Cached {
                va,
                level,
                descriptor: old,
            });
            return Ok(());
        }
        let differs = |old: Descriptor| {
            old.output_address() != new.output_address() || old.memory_type() != new.memory_type()
        };
        if old.is_valid() && differs(old) {
            return Err("a live entry was overwritten by another translation");
        }
        let was = |broken: &Cached| broken.va == va && differs(broken.descriptor);
        match new.is_valid() && self.broken.iter().any(was) {
            true => Err("an entry was made before the break of the old one was complete"),
            false => Ok(()),
        }
    }

    /// The core under test issues `op`.
    pub(super) fn execute(&mut self, op: Op) {
        match op {
            Op::TlbLastLevel(_) | Op::TlbAllLevels(_) | Op::TlbAll => self.invalidations.push(op),
            Op::DsbIshst => self.show_all(),
            Op::DsbIsh | Op::DsbSy => {
                self.show_all();
                for op in std::mem::take(&mut self.invalidations) {
                    self.invalidate(op);
                    self.done.push(op);
                }
                for op in self.done.drain(..) {
                    self.broken.retain(|broken| !covers(op, broken));
                }
            }
            Op::Isb => self.unsynchronised.clear(),
            _ => {}
        }
    }

    fn show_all(&mut self) {
        while !self.stores.is_empty() {
            self.show_oldest();
        }
    }

    /// Walkers see the oldest store.
    fn show_oldest(&mut self) {
        if !self.stores.is_empty() {
            let (entry, before) = self.stores.remove(0);
            self.unsynchronised.entry(entry).or_insert(before);
        }
    }

    /// All cores forget what `op` covers.
    fn invalidate(&mut self, op: Op) {
        for tlb in &mut self.tlbs {
            tlb.leaves.retain(|leaf| !covers(op, leaf));
            match op {
                Op::TlbAllLevels(va) => {
                    tlb.tables.remove(&va.align_down(Level::L2.size()));
                }
                Op::TlbAll => tlb.tables.clear(),
                _ => {}
            }
        }
    }

    /// Time passes.
    pub(super) fn pass(&mut self, adversary: &mut Adversary) {
        if !self.pages.is_empty() && adversary.follows(Whim::Walk) {
            let va = self.pages[adversary.below(self.pages.len())];
            self.remember(adversary.below(CORES), va);
        }
        if !self.stores.is_empty() && adversary.follows(Whim::Show) {
            self.show_oldest();
        }
        if !self.invalidations.is_empty() && adversary.follows(Whim::Forget) {
            let pick = adversary.below(self.invalidations.len());
            let op = self.invalidations.swap_remove(pick);
            self.invalidate(op);
            self.done.push(op);
        }
    }

    /// Core number `core` walks for `va` and remembers what it finds.
    fn remember(&mut self, core: usize, va: VirtAddr) {
        let found = Self::walk(self.root, Level::ROOT, va, |entry| self.walked(entry));
        let span = va.align_down(Level::L2.size());
        let tlb = &mut self.tlbs[core];
        if found.level == Level::L3 {
            let offset = found.entry % PAGE_SIZE;
            if let Some(table) = layout::virt_to_phys(VirtAddr::new(found.entry - offset)) {
                tlb.tables.entry(span).or_insert(table);
            }
        }
        let is_known = tlb.leaves.iter().any(|leaf| leaf.covers(va));
        if found.descriptor.is_leaf(found.level) && !is_known {
            tlb.leaves.push(Cached {
                va: va.align_down(found.level.size()),
                level: found.level,
                descriptor: found.descriptor,
            });
        }
    }
}

/// Whether `op` covers a leaf.
fn covers(op: Op, leaf: &Cached) -> bool {
    match op {
        Op::TlbLastLevel(va) | Op::TlbAllLevels(va) => leaf.covers(va),
        Op::TlbAll => true,
        _ => false,
    }
}

fn translation(va: VirtAddr, level: Level, descriptor: Descriptor) -> Option<Translation> {
    let offset = va.get() & (level.size() - 1);
    descriptor.is_leaf(level).then(|| Translation {
        pa: descriptor.output_address() + offset,
        memory_type: descriptor.memory_type(),
        access: descriptor.access(),
    })
}
