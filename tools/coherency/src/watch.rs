//! From what a CPU executes to what the rules want to know: physical addresses and mappings.
//!
//! Most accesses change nothing. They end in [`Watch::load`] and [`Watch::store`] after a look at the
//! translation and the line.

mod proof;
mod semihosting;

use crate::checker::{Checker, Touch, Who};
use crate::decode::{LineOp, Operation, XZR};
use crate::lines::{LINE, PAGE, line_of, parts};
use crate::register::{Register, Registers};
use crate::tlb::{Class, Entry, Tlb};
use crate::walk::{Regime, Translation};
use proof::Proof;

/// An access, of which finding out costs time.
pub trait MemoryAccess {
    /// A number below 16 that differs between regimes of translation.
    fn space(&self) -> u64;
    /// Bytes.
    fn size(&self) -> u8;
    /// What was loaded or stored.
    fn value(&self) -> u128;
}

/// `HCR_EL2.E2H` and `.TGE`: EL2 has two halves of addresses, and EL0 is of it.
const HCR_E2H: u64 = 1 << 34;
const HCR_TGE: u64 = 1 << 27;
/// `HCR_EL2.VM`: what EL1 takes for physical addresses is translated again.
const HCR_VM: u64 = 1 << 0;

/// A CPU.
#[derive(Default)]
struct Vcpu {
    /// Spaces as [`MemoryAccess::space`] has them.
    data: Tlb,
    /// Addresses of maintenance; the spaces are exception levels.
    maintenance: Tlb,
    regimes: [Option<Regime>; 4],
}

impl Vcpu {
    fn flush(&mut self) {
        self.data.flush();
        self.maintenance.flush();
    }
}

/// The CPUs, and the rules they are held to.
pub struct Watch {
    checker: Checker,
    vcpus: Vec<Vcpu>,
    /// Who executed last, of what is seen: QEMU does not say for whom it translates a block.
    last: u32,
    counts: Counts,
    /// The first register that could not be read when it was needed.
    unreadable: Option<Register>,
    proof: Proof,
}

/// How much was seen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Loads and stores.
    pub accesses: u64,
    /// Walks of the translation tables.
    pub walks: u64,
    /// Accesses and maintenance that were made although a walk finds nothing mapped. A few are
    /// translations that were removed and are in QEMU's TLB still. Many mean that the tables are not in
    /// the RAM that the plugin reads, or that a hypervisor's second stage lies behind them.
    pub unfollowed: u64,
}

/// Larger accesses than this are none.
const MAX_SIZE: u64 = 16;

impl Watch {
    /// CPUs that have been reset.
    pub fn new(checker: Checker) -> Self {
        Self {
            checker,
            vcpus: Vec::new(),
            last: 0,
            counts: Counts::default(),
            unreadable: None,
            proof: Proof::default(),
        }
    }

    /// The rules.
    pub fn checker(&mut self) -> &mut Checker {
        &mut self.checker
    }

    /// There is a CPU of this number.
    pub fn add_cpu(&mut self, cpu: u32) {
        let count = self.vcpus.len().max(cpu as usize + 1);
        self.vcpus.resize_with(count, Vcpu::default);
    }

    /// How much was seen.
    pub fn counts(&self) -> Counts {
        self.counts
    }

    /// Why what was not found proves nothing.
    pub fn blind(&self) -> Option<String> {
        let Counts {
            accesses,
            walks,
            unfollowed,
        } = self.counts;
        if let Some(register) = self.unreadable {
            Some(format!("{register} could not be read"))
        } else if accesses == 0 {
            Some("no load or store was seen".to_owned())
        } else if unfollowed > walks / 2 {
            Some(format!(
                "{unfollowed} accesses could not be followed to memory: is ram= QEMU's RAM, with \
                 share=on?"
            ))
        } else if self.proof.fails() {
            Some("ram= does not hold what was stored: is it QEMU's RAM, with share=on?".to_owned())
        } else {
            None
        }
    }

    /// The report of the whole run, at its end.
    pub fn end(&mut self) -> String {
        let blind = self.blind();
        self.checker.end(self.counts, blind)
    }

    /// A load was made by the instruction at `pc`.
    #[inline(always)]
    pub fn load(
        &mut self,
        who: Who,
        va: u64,
        access: &impl MemoryAccess,
        registers: &mut impl Registers,
    ) {
        self.counts.accesses += 1;
        self.last = who.cpu;
        let vcpu = &self.vcpus[who.cpu as usize];
        if let Some(entry) = vcpu.data.find(va, access.space())
            && is_in_line(va, access)
        {
            let line = line_of(va);
            let is_quiet = match entry.class {
                Class::Cached(index) => self.checker.lines().page(index).is_quiet_load(line),
                Class::Uncached(index) => {
                    let page = self.checker.lines().page(index);
                    page.is_quiet_uncached_load(line)
                }
                Class::Ruled | Class::Told | Class::Ignored => false,
            };
            if is_quiet {
                return;
            }
        }
        self.access(who, va, access, false, true, registers);
    }

    /// A store was made. `is_certain`: memory holds its value now.
    #[inline(always)]
    pub fn store(
        &mut self,
        who: Who,
        va: u64,
        access: &impl MemoryAccess,
        is_certain: bool,
        registers: &mut impl Registers,
    ) {
        self.counts.accesses += 1;
        self.last = who.cpu;
        let vcpu = &self.vcpus[who.cpu as usize];
        if let Some(entry) = vcpu.data.find(va, access.space())
            && let Class::Cached(index) = entry.class
        {
            let size = u64::from(access.size());
            let offset = va % LINE;
            if offset + size <= LINE {
                let mask = ((1 << size) - 1) << offset;
                if (self.checker.lines().page(index)).quiet_store(line_of(va), mask) {
                    return;
                }
            }
        }
        self.access(who, va, access, true, is_certain, registers);
    }

    #[inline(never)]
    fn access(
        &mut self,
        who: Who,
        va: u64,
        access: &impl MemoryAccess,
        is_store: bool,
        is_certain: bool,
        registers: &mut impl Registers,
    ) {
        let size = u64::from(access.size()).min(MAX_SIZE);
        let space = access.space();
        let is_whole = va % PAGE + size <= PAGE;
        // An access across the end of the address space is none.
        for part in parts(va..va.saturating_add(size), PAGE) {
            let known = self.vcpus[who.cpu as usize].data.find(part.start, space);
            let entry = match known.copied() {
                Some(entry) => entry,
                None => match self.fill(who.cpu, part.start, space, registers) {
                    Some(entry) => entry,
                    None => {
                        self.counts.unfollowed += 1;
                        continue;
                    }
                },
            };
            if entry.class == Class::Ignored {
                continue;
            }
            let is_told = entry.class == Class::Told;
            let wants_value = is_told || self.checker.wants_everything();
            let has_value = is_certain && is_whole;
            let touch = Touch {
                pa: entry.pa + part.start % PAGE,
                size: (part.end - part.start) as u8,
                mapping: entry.mapping,
                is_store,
                value: (wants_value && has_value).then(|| access.value()),
                is_told,
            };
            if is_store && has_value && !is_told && self.proof.wants_more() {
                self.proof
                    .try_with(&touch, access.value(), self.checker.memory());
            }
            self.checker.access(who, &touch);
        }
        if self.checker.take_moved() {
            self.flush();
        }
    }

    /// Walks the tables for an access.
    fn fill(
        &mut self,
        cpu: u32,
        va: u64,
        space: u64,
        registers: &mut impl Registers,
    ) -> Option<Entry> {
        let Translation { pa, mapping } = self.walk(cpu, va, registers)?;
        let is_told = self.checker.wants_page(pa);
        let is_quick = !self.checker.wants_everything();
        let class = match self.checker.lines().find(pa) {
            _ if is_told => Class::Told,
            None => Class::Ignored,
            Some(index) if is_quick && mapping.is_cacheable() => Class::Cached(index),
            Some(index) if is_quick => Class::Uncached(index),
            Some(_) => Class::Ruled,
        };
        let tlb = &mut self.vcpus[cpu as usize].data;
        Some(tlb.insert(va, space, pa, mapping, class))
    }

    fn walk(&mut self, cpu: u32, va: u64, registers: &mut impl Registers) -> Option<Translation> {
        self.counts.walks += 1;
        let level = self.level(registers)?;
        let known = self.vcpus[cpu as usize].regimes[level];
        let regime = match known {
            Some(regime) => regime,
            None => {
                let regime = self.regime(level, registers)?;
                self.vcpus[cpu as usize].regimes[level] = Some(regime);
                regime
            }
        };
        regime.translate(va, self.checker.memory())
    }

    /// The exception level: bits 3:2 of `PSTATE`.
    fn level(&mut self, registers: &mut impl Registers) -> Option<usize> {
        let cpsr = self.readable(registers.read(Register::Cpsr).ok_or(Register::Cpsr));
        cpsr.map(|cpsr| (cpsr >> 2 & 3) as usize)
    }

    /// What translates at that level; `None` if it has a second stage.
    fn regime(&mut self, level: usize, registers: &mut impl Registers) -> Option<Regime> {
        self.readable(read_regime(level as u8, registers)).flatten()
    }

    fn readable<T>(&mut self, read: Result<T, Register>) -> Option<T> {
        read.map_err(|register| self.unreadable.get_or_insert(register))
            .ok()
    }

    /// An instruction is about to be executed that no access shows.
    pub fn execute(&mut self, who: Who, operation: Operation, registers: &mut impl Registers) {
        self.last = who.cpu;
        match operation {
            Operation::Line(op, register) => self.maintain(who, op, register, registers),
            Operation::SetWay(op) => self.checker.maintain_set_way(who, op),
            Operation::InvalidateAllCode => self.checker.invalidate_all_code(),
            Operation::Barrier(barrier) => self.checker.barrier(who, barrier),
            Operation::StoreRelease => self.checker.store_release(who),
            Operation::Translations { registers: true } => {
                let vcpu = &mut self.vcpus[who.cpu as usize];
                vcpu.regimes = [None; 4];
                vcpu.flush();
            }
            Operation::Translations { registers: false } => self.flush(),
            Operation::Level => {
                if self.level(registers).is_none_or(|level| level > 1) {
                    self.vcpus[who.cpu as usize].flush();
                }
            }
            Operation::Call => {
                for vcpu in &mut self.vcpus {
                    vcpu.regimes = [None; 4];
                    vcpu.flush();
                }
            }
            Operation::Semihosting => self.semihosting(who, registers),
        }
    }

    fn maintain(&mut self, who: Who, op: LineOp, register: u8, registers: &mut impl Registers) {
        let va = match register {
            XZR => Some(0),
            _ => self.readable(general(register, registers)),
        };
        let (Some(va), Some(level)) = (va, self.level(registers)) else {
            self.counts.unfollowed += 1;
            return;
        };
        let space = level as u64;
        let known = self.vcpus[who.cpu as usize].maintenance.find(va, space);
        let entry = match known.copied() {
            Some(entry) => entry,
            None => {
                let Some(Translation { pa, mapping }) = self.walk(who.cpu, va, registers) else {
                    self.counts.unfollowed += 1;
                    return;
                };
                let tlb = &mut self.vcpus[who.cpu as usize].maintenance;
                tlb.insert(va, space, pa, mapping, Class::Ruled)
            }
        };
        let pa = entry.pa + va % PAGE;
        self.checker.maintain(who, op, pa, entry.mapping);
    }

    /// Instructions at `pcs`, which ascend, are about to be translated by whoever executes.
    pub fn fetch(&mut self, pcs: impl Iterator<Item = u64>, registers: &mut impl Registers) {
        let level = self.level(registers);
        let Some(regime) = level.and_then(|level| self.regime(level, registers)) else {
            return;
        };
        let mut last = None;
        for pc in pcs {
            if last.replace(pc / LINE) == Some(pc / LINE) {
                continue;
            }
            if let Some(found) = regime.translate(pc, self.checker.memory()) {
                let who = Who { cpu: self.last, pc };
                self.checker.fetch(who, found.pa, regime.fetches_cached());
            }
        }
    }

    fn flush(&mut self) {
        self.vcpus.iter_mut().for_each(Vcpu::flush);
    }
}

/// Whether all bytes are in the line of the first.
#[inline(always)]
fn is_in_line(va: u64, access: &impl MemoryAccess) -> bool {
    let offset = va % LINE;
    offset + MAX_SIZE <= LINE || offset + u64::from(access.size()) <= LINE
}

fn general(number: u8, registers: &mut impl Registers) -> Result<u64, Register> {
    let register = Register::X(number);
    registers.read(register).ok_or(register)
}

/// The regime that translates data addresses at an exception level; none if it has a second stage. The
/// error is a register that it takes and that is not to be had.
fn read_regime(level: u8, registers: &mut impl Registers) -> Result<Option<Regime>, Register> {
    // Without the register there is no EL2.
    let hcr = registers.read(Register::Hcr).unwrap_or(0);
    let is_of_el2 = level == 0 && hcr & HCR_E2H != 0 && hcr & HCR_TGE != 0;
    let owner = match level {
        0 if is_of_el2 => 2,
        0 => 1,
        level => level,
    };
    if owner == 1 && hcr & HCR_VM != 0 {
        return Ok(None);
    }
    let has_upper_half = owner == 1 || owner == 2 && hcr & HCR_E2H != 0;
    let mut read = |register| registers.read(register).ok_or(register);
    let upper = if has_upper_half {
        read(Register::Ttbr1(owner))?
    } else {
        0
    };
    Ok(Some(Regime {
        sctlr: read(Register::Sctlr(owner))?,
        tcr: read(Register::Tcr(owner))?,
        ttbr: [read(Register::Ttbr0(owner))?, upper],
        mair: read(Register::Mair(owner))?,
        has_upper_half,
    }))
}

#[cfg(test)]
mod tests;
