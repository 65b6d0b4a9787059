//! The rules: what CPUs and devices do, in order, goes in; findings come out.
//!
//! Nothing here knows of QEMU. Addresses are physical, and every event carries what it needs.

mod access;
mod dropped;
mod host;
mod jobs;
mod maintenance;
mod pending;
mod shadow;

pub use access::Touch;

use crate::console::Console;
use crate::device::{Device, Memory};
use crate::kind::Kind;
use crate::lines::{LINE, Lines, PAGE};
use crate::report::{Accounts, Finding, Reports, Suppressions};
use crate::walk::Mapping;
use crate::watch::Counts;
use dropped::Dropped;
use jobs::{Job, Model, Written};
use pending::Pending;
use shadow::Shadow;
use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::ops::Range;
use std::rc::Rc;

/// The machine that is watched.
pub struct Machine {
    /// Where RAM is: whole pages.
    pub ram: Vec<Range<u64>>,
    /// Where devices can read, but not write, besides: flash.
    pub readable: Vec<Range<u64>>,
    /// RAM's content.
    pub memory: Box<dyn Memory>,
    /// Its bus masters.
    pub devices: Vec<Box<dyn Device>>,
    /// The data register of the UART that the firmware prints on.
    pub uart: Option<u64>,
    /// Whether the devices snoop the caches.
    pub coherent: bool,
    /// Whether bytes are compared as well.
    pub shadow: bool,
}

/// The instruction behind an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Who {
    /// The CPU.
    pub cpu: u32,
    /// The instruction's virtual address.
    pub pc: u64,
}

/// What the rules have to know of the CPUs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Cores {
    /// Stores need no clean before they can be fetched (`CTR_EL0.IDC`).
    pub sees_stores: bool,
    /// The instruction cache needs no invalidation (`CTR_EL0.DIC`).
    pub sees_memory: bool,
}

/// The state of the machine's caches and devices, and what was found.
pub struct Checker {
    lines: Lines,
    readable: Vec<Range<u64>>,
    memory: Box<dyn Memory>,
    models: Vec<Model>,
    jobs: Vec<Job>,
    /// The bytes that a device wrote, of stale lines that it did not write whole.
    partial: HashMap<u64, u64>,
    /// The bytes that were stored past the cache, of lines that may have been in it.
    bypassed: HashMap<u64, u64>,
    dropped: Dropped,
    /// The line that a CPU has just fetched and is learning of an end from.
    learned: Option<u64>,
    /// Lines that were stored to while a device had them, until they are maintained.
    touched: HashSet<u64>,
    /// Who wrote lately, to name in a report.
    written: VecDeque<Written>,
    pending: Vec<Pending>,
    shadow: Option<Shadow>,
    console: Console,
    uart: Option<u64>,
    is_coherent: bool,
    cores: Cores,
    symbols: HashMap<u64, Rc<str>>,
    reports: Reports,
    /// Doorbells of each device.
    jobs_done: BTreeMap<String, u64>,
    /// Parts of jobs that a model left out, and accesses that it could not be told of.
    lost: u64,
    has_moved: bool,
    show: Box<dyn FnMut(&Finding)>,
}

impl Checker {
    /// A machine that has just been reset. `show` is called with each finding when it is made.
    pub fn new(
        machine: Machine,
        suppressions: Suppressions,
        show: impl FnMut(&Finding) + 'static,
    ) -> Self {
        let models: Vec<_> = machine.devices.into_iter().map(Model::new).collect();
        Self {
            lines: Lines::new(&machine.ram),
            readable: machine.readable,
            memory: machine.memory,
            models,
            jobs: Vec::new(),
            partial: HashMap::new(),
            bypassed: HashMap::new(),
            dropped: Dropped::default(),
            learned: None,
            touched: HashSet::new(),
            written: VecDeque::new(),
            pending: Vec::new(),
            shadow: machine.shadow.then(Shadow::default),
            console: Console::default(),
            uart: machine.uart,
            is_coherent: machine.coherent,
            cores: Cores::default(),
            symbols: HashMap::new(),
            reports: Reports::new(suppressions),
            jobs_done: BTreeMap::new(),
            lost: 0,
            has_moved: false,
            show: Box::new(show),
        }
    }

    /// Says what the CPUs are, where it is not what most are.
    pub fn set_cores(&mut self, cores: Cores) {
        self.cores = cores;
    }

    /// Names the function that the instruction at `pc` is in.
    pub fn name(&mut self, pc: u64, symbol: &str) {
        if self.symbols.get(&pc).is_none_or(|known| **known != *symbol) {
            self.symbols.insert(pc, symbol.into());
        }
    }

    /// RAM, for walks of the translation tables.
    pub fn memory(&self) -> &dyn Memory {
        &*self.memory
    }

    /// The lines, for the fast path.
    #[inline(always)]
    pub fn lines(&mut self) -> &mut Lines {
        &mut self.lines
    }

    /// Whether every access has to be told, also those that change no line.
    pub fn wants_everything(&self) -> bool {
        self.is_coherent || self.shadow.is_some()
    }

    /// Whether accesses to the page of `pa` have to be told: registers of a model, watched RAM.
    pub fn wants_page(&self, pa: u64) -> bool {
        let page = pa / PAGE * PAGE..(pa / PAGE + 1) * PAGE;
        self.uart.is_some_and(|uart| page.contains(&uart))
            || self.models.iter().any(|model| model.watches(&page))
    }

    /// Whether the answers of [`wants_page`](Self::wants_page) have changed since the last call.
    pub fn take_moved(&mut self) -> bool {
        std::mem::take(&mut self.has_moved)
    }

    /// The findings so far.
    pub fn findings(&self) -> &[Finding] {
        self.reports.findings()
    }

    /// The report of the whole run, at its end, with what the caller has counted.
    pub fn end(&mut self, counts: Counts, blind: Option<String>) -> String {
        self.report_dropped();
        let pending = self.pending.iter().map(Pending::forgotten);
        let accounts = Accounts {
            counts,
            blind,
            lost: self.lost + pending.sum::<u64>(),
            jobs: self.jobs_done.clone(),
        };
        self.reports.to_json(&accounts)
    }

    fn pending(&mut self, cpu: u32) -> &mut Pending {
        let index = cpu as usize;
        if self.pending.len() <= index {
            self.pending.resize_with(index + 1, Pending::default);
        }
        let pending = &mut self.pending[index];
        pending.has_acted = true;
        pending
    }

    /// The bytes of the stale line at `pa` that a device wrote.
    fn device_bytes(&self, pa: u64) -> u64 {
        self.partial.get(&(pa / LINE)).copied().unwrap_or(!0)
    }

    fn report(&mut self, who: Who, problem: Problem) {
        let finding = self.finding(who, problem);
        self.add(finding);
    }

    fn add(&mut self, finding: Finding) {
        if let Some(finding) = self.reports.add(finding) {
            (self.show)(finding);
        }
    }

    fn finding(&mut self, who: Who, problem: Problem) -> Finding {
        let mapping = match problem.mapping {
            Some(mapping) => Some(mapping),
            None => (self.lines.find(problem.pa)).and_then(|index| self.lines.page(index).seen),
        };
        Finding {
            kind: problem.kind,
            pa: problem.pa,
            pc: who.pc,
            symbol: self.symbols.get(&who.pc).map(|symbol| symbol.to_string()),
            cpu: who.cpu,
            device: problem
                .device
                .map(|(model, role)| (self.models[model].device.name().to_owned(), role)),
            mapping: mapping.map_or("not accessed by a CPU", Mapping::name),
            missing: problem.missing,
            console: self.console.last().to_owned(),
            scope: self.console.scope(),
            count: 1,
        }
    }
}

/// What a rule says.
struct Problem {
    kind: Kind,
    pa: u64,
    device: Option<(usize, &'static str)>,
    mapping: Option<Mapping>,
    missing: &'static str,
}

/// The state of the line of `pa`, for tests.
#[cfg(test)]
impl Checker {
    fn flags(&mut self, pa: u64) -> u16 {
        let index = self.lines.find(pa).unwrap();
        self.lines.page(index).flags[crate::lines::line_of(pa)]
    }
}

#[cfg(test)]
mod tests;
