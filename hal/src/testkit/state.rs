//! All that the machine has, and what an operation does to it.

use super::adversary::{Adversary, Whim};
use super::event::{Event, EventKind};
use super::ram::LINE;
use super::region::{Access, Maintenance, Region};
use super::tables::{Tables, Translation};
use crate::addr::{PhysAddr, VirtAddr};
use crate::arch::trace::Op;
use crate::layout;
use crate::mmu::{Descriptor, Level, MemoryType};
use std::collections::VecDeque;
use std::panic::Location;

/// Maintenance that no barrier has completed.
#[derive(Clone, Copy, Debug)]
struct Pending {
    pa: PhysAddr,
    what: Maintenance,
}

/// Where a master takes bytes from.
#[derive(Clone, Debug)]
pub(super) enum Source {
    Memory(PhysAddr),
    Data(Vec<u8>),
}

/// Where a master puts bytes.
#[derive(Clone, Copy, Debug)]
pub(super) enum Sink {
    Memory(PhysAddr),
    /// What the master keeps for itself.
    Fifo,
}

/// What a master has to do.
#[derive(Clone, Debug)]
pub(super) struct Job {
    pub(super) source: Source,
    pub(super) sink: Sink,
    pub(super) len: usize,
    pub(super) done: usize,
}

#[derive(Debug)]
pub(super) struct State {
    pub(super) adversary: Adversary,
    pub(super) regions: Vec<Region>,
    pending: Vec<Pending>,
    pub(super) tables: Option<Tables>,
    jobs: VecDeque<Job>,
    fifo: Vec<u8>,
    pub(super) events: Vec<Event>,
    /// The number of the event that does not happen.
    omitted: Option<usize>,
    /// What no hardware has to put up with.
    fault: Option<&'static str>,
}

impl State {
    pub(super) fn new() -> Self {
        Self {
            adversary: Adversary::new(0),
            regions: Vec::new(),
            pending: Vec::new(),
            tables: None,
            jobs: VecDeque::new(),
            fifo: Vec::new(),
            events: Vec::new(),
            omitted: None,
            fault: None,
        }
    }

    /// Starts over with another adversary, and the memory as the core sees it.
    pub(super) fn restart(&mut self, seed: u64, omitted: Option<usize>) {
        self.adversary = Adversary::new(seed);
        for region in &mut self.regions {
            region.restart(&mut self.adversary);
        }
        self.pending.clear();
        if let Some(tables) = &mut self.tables {
            tables.restart();
        }
        self.jobs.clear();
        self.fifo.clear();
        self.events.clear();
        self.omitted = omitted;
        self.fault = None;
    }

    /// Notes what the code under test or a device must never do. The first counts.
    pub(super) fn fault(&mut self, what: &'static str) {
        self.fault.get_or_insert(what);
    }

    pub(super) fn take_fault(&mut self) -> Option<&'static str> {
        self.fault.take()
    }

    /// The region that holds `pa`, and where.
    fn find(&mut self, pa: PhysAddr) -> Option<(&mut Region, usize)> {
        let mut regions = self.regions.iter_mut();
        regions.find_map(|region| region.offset(pa).map(|at| (region, at)))
    }

    /// Notes an operation; whether it happens.
    pub(super) fn happens(&mut self, kind: EventKind, site: &'static Location<'static>) -> bool {
        let number = self.events.len();
        self.events.push(Event { kind, site });
        self.omitted != Some(number)
    }

    /// An instruction of the code under test.
    pub(super) fn issue(&mut self, op: Op, site: &'static Location<'static>) {
        let Some(kind) = EventKind::of(op) else {
            return;
        };
        self.pass();
        if self.happens(kind, site) {
            self.execute(op);
        }
        self.pass();
    }

    /// A store of the code under test to an entry of a table; whether it happens.
    pub(super) fn store_entry(
        &mut self,
        entry: VirtAddr,
        new: u64,
        site: &'static Location<'static>,
    ) -> bool {
        match &self.tables {
            Some(tables) if tables.holds(entry) != new => {}
            _ => return true,
        }
        self.pass();
        let Some(tables) = &mut self.tables else {
            return true;
        };
        let is_break = tables.is_valid(entry) && !Descriptor::from_raw(new).is_valid();
        if is_break && !self.happens(EventKind::Break, site) {
            return false;
        }
        let stored = self.tables.as_mut().map(|tables| tables.store(entry, new));
        if let Some(Err(breach)) = stored {
            self.fault(breach);
        }
        self.change_access(Descriptor::from_raw(new));
        true
    }

    /// Accesses the memory that a new page leads to as the page says.
    fn change_access(&mut self, page: Descriptor) {
        let access = match page.memory_type() {
            Some(MemoryType::NormalWriteBack) => Access::Cached,
            _ => Access::Uncached,
        };
        let Self {
            adversary, regions, ..
        } = self;
        let mut regions = regions.iter_mut();
        if page.is_leaf(Level::L3)
            && let Some(region) = regions.find(|it| it.offset(page.output_address()).is_some())
        {
            region.change(access, adversary);
        }
    }

    /// What core number `core` uses for `va`.
    pub(super) fn translation(&mut self, core: usize, va: VirtAddr) -> Option<Translation> {
        let Self {
            adversary, tables, ..
        } = self;
        tables.as_ref()?.translate(core, va, adversary)
    }

    fn execute(&mut self, op: Op) {
        if let Some(tables) = &mut self.tables {
            tables.execute(op);
        }
        match op {
            Op::Clean(va) => self.maintain(va, Maintenance::Clean),
            Op::Invalidate(va) => self.maintain(va, Maintenance::Invalidate),
            Op::CleanInvalidate(va) => self.maintain(va, Maintenance::CleanInvalidate),
            Op::DmbOshst | Op::DsbIshst => self.each(Region::order_stores),
            Op::DmbOshld => self.each(Region::order_loads),
            // Maintenance to the point of coherency is for observers outside of the inner
            // shareable domain: this barrier does not wait for it.
            Op::DsbIsh => {
                self.each(Region::order_stores);
                self.each(Region::order_loads);
            }
            Op::DsbSy => {
                self.perform_all();
                self.each(Region::complete);
            }
            Op::Isb | Op::TlbLastLevel(_) | Op::TlbAllLevels(_) | Op::TlbAll | Op::Copy { .. } => {}
        }
    }

    fn each(&mut self, f: fn(&mut Region)) {
        self.regions.iter_mut().for_each(f);
    }

    /// Where the code under test finds `va`.
    fn translate(&self, va: VirtAddr) -> Option<PhysAddr> {
        let tables = self.tables.as_ref();
        layout::virt_to_phys(va).or_else(|| tables?.physical(va))
    }

    fn maintain(&mut self, va: VirtAddr, what: Maintenance) {
        match self.translate(va) {
            Some(pa) => self.pending.push(Pending { pa, what }),
            None => self.fault("maintenance of an address that is not mapped"),
        }
    }

    fn perform_all(&mut self) {
        for pending in std::mem::take(&mut self.pending) {
            self.perform(pending);
        }
    }

    fn perform(&mut self, Pending { pa, what }: Pending) {
        if let Some((region, at)) = self.find(pa) {
            region.maintain(at, what);
        }
    }

    /// Time passes.
    pub(super) fn pass(&mut self) {
        let Self {
            adversary,
            regions,
            tables,
            ..
        } = self;
        for region in regions {
            region.observe();
            region.pass(adversary);
            if let Some(tables) = tables
                && tables.reaches_cached(region.range().start)
            {
                region.stray(adversary);
            }
        }
        if let Some(tables) = tables {
            tables.pass(adversary);
        }
        if !self.pending.is_empty() && self.adversary.follows(Whim::Proceed) {
            self.perform_any();
        }
        if !self.jobs.is_empty() && self.adversary.follows(Whim::Transfer) {
            self.transfer();
        }
    }

    /// Does some pending maintenance before its barrier. Operations on one line stay in order.
    fn perform_any(&mut self) {
        let pick = self.adversary.below(self.pending.len());
        let line = |pending: &Pending| pending.pa.align_down(LINE);
        let wanted = line(&self.pending[pick]);
        let first = self.pending.iter().position(|other| line(other) == wanted);
        let pending = self.pending.remove(first.unwrap_or(pick));
        self.perform(pending);
    }

    /// A register of a device is stored to, which may make it do a job.
    pub(super) fn doorbell(&mut self, job: Option<Job>) {
        self.observe();
        self.each(Region::doorbell);
        self.jobs.extend(job);
        self.pass();
    }

    fn observe(&mut self) {
        self.each(Region::observe);
    }

    /// Does the next bytes of the oldest job. Returns whether there was anything to do.
    pub(super) fn transfer(&mut self) -> bool {
        /// Bytes a master moves at once: as much as one beat of a 128-bit bus.
        const BEAT: usize = 16;

        let Some(mut job) = self.jobs.pop_front() else {
            return false;
        };
        let len = BEAT.min(job.len - job.done);
        let bytes = match &job.source {
            Source::Memory(pa) => self.load(*pa + job.done, len),
            Source::Data(data) => data[job.done..job.done + len].to_vec(),
        };
        match job.sink {
            Sink::Memory(pa) => self.store(pa + job.done, &bytes),
            Sink::Fifo => self.fifo.extend(&bytes),
        }
        job.done += len;
        if job.done < job.len {
            self.jobs.push_front(job);
        }
        true
    }

    /// So much time passes that every store has left and every load is anew. What nothing limits in
    /// time, as what a cache holds, stays.
    pub(super) fn settle(&mut self) {
        self.observe();
        self.each(Region::complete);
        self.pass();
    }

    /// Leaves dirty lines of `pa`'s stretch in the cache, as of a time when it was cached.
    pub(super) fn leave_lines(&mut self, pa: PhysAddr) {
        let Self {
            adversary, regions, ..
        } = self;
        let mut regions = regions.iter_mut();
        if let Some(region) = regions.find(|region| region.offset(pa).is_some()) {
            region.leave_lines(adversary);
        }
    }

    /// What masters have kept since the last call.
    pub(super) fn take_fifo(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.fifo)
    }

    /// Whether a master works.
    pub(super) fn is_busy(&self) -> bool {
        !self.jobs.is_empty()
    }

    /// A master reads.
    pub(super) fn load(&mut self, pa: PhysAddr, len: usize) -> Vec<u8> {
        self.observe();
        match self.find(pa) {
            Some((region, at)) if at + len <= region.range().size() as usize => {
                region.load(at, len).to_vec()
            }
            _ => {
                self.fault("a master read where the machine has no memory");
                vec![0; len]
            }
        }
    }

    /// A master writes.
    pub(super) fn store(&mut self, pa: PhysAddr, bytes: &[u8]) {
        match self.find(pa) {
            Some((region, at)) if at + bytes.len() <= region.range().size() as usize => {
                region.store(at, bytes);
            }
            _ => self.fault("a master wrote where the machine has no memory"),
        }
    }
}
