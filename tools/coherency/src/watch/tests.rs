use super::*;
use crate::checker::Machine;
use crate::decode::decode;
use crate::device::Memory;
use crate::kind::Kind;
use crate::report::Suppressions;
use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex};

const RAM: u64 = 0x4000_0000;
const SIZE: u64 = 1 << 21;

/// RAM whose words tests set.
#[derive(Clone, Default)]
struct Words(Arc<Mutex<HashMap<u64, u64>>>);

impl Words {
    fn set(&self, pa: u64, word: u64) {
        self.0.lock().unwrap().insert(pa, word);
    }
}

impl Memory for Words {
    fn read(&self, pa: u64, bytes: &mut [u8]) -> bool {
        let word = self.0.lock().unwrap().get(&pa).copied().unwrap_or(0);
        let word = word.to_le_bytes();
        bytes.copy_from_slice(&word[..bytes.len()]);
        (RAM..RAM + SIZE).contains(&pa)
    }
}

impl Registers for BTreeMap<Register, u64> {
    fn read(&mut self, register: Register) -> Option<u64> {
        self.get(&register).copied()
    }
}

struct Fake(u8, u128);

impl MemoryAccess for Fake {
    fn space(&self) -> u64 {
        2
    }

    fn size(&self) -> u8 {
        self.0
    }

    fn value(&self) -> u128 {
        self.1
    }
}

/// Tables for EL1: 4 KiB pages, 39 bits, the first gigabyte through one table of the last level, whose
/// descriptors begin here.
const PAGES: u64 = RAM + 0x10_0000;
const ROOT: u64 = PAGES + 0x1000;
const MIDDLE: u64 = PAGES + 0x2000;

/// Attributes 0 are write-back, 1 non-cacheable.
const WB: u64 = 0;
const NC: u64 = 1 << 2;

struct Rig {
    watch: Watch,
    words: Words,
    registers: BTreeMap<Register, u64>,
    pc: u64,
}

impl Rig {
    fn new() -> Self {
        Self::with(false)
    }

    fn with(shadow: bool) -> Self {
        let words = Words::default();
        let machine = Machine {
            ram: vec![RAM..RAM + SIZE],
            readable: Vec::new(),
            memory: Box::new(words.clone()),
            devices: Vec::new(),
            uart: None,
            coherent: false,
            shadow,
        };
        let checker = Checker::new(machine, Suppressions::default(), |_| {});
        let mut watch = Watch::new(checker);
        watch.add_cpu(1);
        words.set(ROOT, MIDDLE | 3);
        words.set(MIDDLE, PAGES | 3);
        let registers = BTreeMap::from([
            (Register::Cpsr, 1 << 2),
            (Register::Sctlr(1), 5),
            (Register::Tcr(1), 25 | 1 << 23),
            (Register::Ttbr0(1), ROOT),
            (Register::Ttbr1(1), 0),
            (Register::Mair(1), 0x44FF),
            (Register::Sctlr(2), 0),
            (Register::Tcr(2), 0),
            (Register::Ttbr0(2), 0),
            (Register::Mair(2), 0),
        ]);
        Self {
            watch,
            words,
            registers,
            pc: 0,
        }
    }

    fn map(&self, va: u64, pa: u64, attributes: u64) {
        self.words.set(PAGES + va / PAGE * 8, pa | attributes | 3);
    }

    fn who(&mut self) -> Who {
        self.pc += 4;
        Who {
            cpu: 1,
            pc: self.pc,
        }
    }

    fn load(&mut self, va: u64, size: u8) {
        let who = self.who();
        self.watch
            .load(who, va, &Fake(size, 0), &mut self.registers);
    }

    fn store(&mut self, va: u64, size: u8) {
        let who = self.who();
        let registers = &mut self.registers;
        self.watch.store(who, va, &Fake(size, 0), true, registers);
    }

    fn execute(&mut self, word: u32) {
        let who = self.who();
        self.execute_as(who, word);
    }

    fn execute_as(&mut self, who: Who, word: u32) {
        let operation = decode(word).unwrap();
        self.watch.execute(who, operation, &mut self.registers);
    }

    fn kinds(&mut self) -> Vec<Kind> {
        let findings = self.watch.checker().findings().iter();
        findings.map(|finding| finding.kind).collect()
    }
}

const TLBI_VMALLE1IS: u32 = 0xD508_831F;
const DC_CIVAC_X3: u32 = 0xD50B_7E23;
const DC_IVAC_X3: u32 = 0xD508_7623;
const MSR_SCTLR_EL1: u32 = 0xD518_1000;
const HVC: u32 = 0xD400_0002;
const HLT_SEMIHOSTING: u32 = 0xD45E_0000;

#[test]
fn two_mappings_of_a_page_meet_in_its_lines() {
    let mut rig = Rig::new();
    rig.map(0x5000, RAM + 0x3000, WB);
    rig.map(0x9000, RAM + 0x3000, NC);
    rig.store(0x5010, 8);
    rig.load(0x9020, 8);
    assert_eq!(rig.kinds(), []);
    rig.load(0x9014, 4);
    assert_eq!(rig.kinds(), [Kind::MismatchedAttributes]);
    let finding = &rig.watch.checker().findings()[0];
    assert_eq!((finding.pa, finding.pc), (RAM + 0x3014, rig.pc));
}

#[test]
fn maintenance_goes_through_the_tables_too() {
    let mut rig = Rig::new();
    rig.map(0x5000, RAM + 0x3000, WB);
    rig.map(0x9000, RAM + 0x3000, NC);
    rig.registers.insert(Register::X(3), 0x5010);
    rig.store(0x5010, 8);
    rig.execute(DC_CIVAC_X3);
    rig.load(0x9010, 8);
    assert_eq!(rig.kinds(), []);
}

#[test]
fn dropped_bytes_are_missed_after_others_of_the_line_were_used() {
    for va in [0x5000, 0x9000] {
        let mut rig = Rig::new();
        rig.map(0x5000, RAM + 0x3000, WB);
        rig.map(0x9000, RAM + 0x3000, NC);
        rig.registers.insert(Register::X(3), 0x5010);
        rig.store(0x5010, 8);
        rig.execute(DC_IVAC_X3);
        rig.load(va + 0x20, 8);
        assert_eq!(rig.kinds(), []);
        rig.load(va + 0x10, 8);
        assert_eq!(rig.kinds(), [Kind::InvalidateDestroysNeighbour]);
    }
}

#[test]
fn translations_are_kept_until_the_tlb_is_told() {
    let mut rig = Rig::new();
    rig.map(0x5000, RAM + 0x3000, WB);
    rig.store(0x5000, 8);
    rig.store(0x5000, 8);
    rig.store(0x5008, 8);
    assert_eq!(rig.watch.counts.walks, 1);
    rig.map(0x5000, RAM + 0x4000, NC);
    rig.store(0x5000, 8);
    rig.execute(TLBI_VMALLE1IS);
    rig.store(0x5000, 8);
    rig.load(0x5000, 8);
    assert_eq!((rig.watch.counts.walks, rig.watch.counts.accesses), (2, 6));
    assert_eq!(rig.kinds(), []);
}

#[test]
fn registers_are_read_again_after_they_were_written() {
    let mut rig = Rig::new();
    rig.map(0x5000, RAM + 0x3000, WB);
    rig.store(0x5000, 8);
    rig.execute(MSR_SCTLR_EL1);
    rig.registers.insert(Register::Sctlr(1), 0);
    rig.load(RAM + 0x3000, 8);
    assert_eq!(rig.kinds(), [Kind::MismatchedAttributes]);
}

#[test]
fn accesses_across_lines_and_pages_are_of_both() {
    let mut rig = Rig::new();
    rig.map(0x5000, RAM + 0x3000, WB);
    rig.map(0x6000, RAM + 0x8000, WB);
    // All lines are quiet before.
    for va in [0x5000, 0x5030, 0x5FF0, 0x6000] {
        rig.store(va, 16);
    }
    rig.store(0x503C, 8);
    rig.store(0x5FFC, 8);
    let lines = rig.watch.checker().lines();
    let mut dirty = |pa: u64| {
        let index = lines.find(pa).unwrap();
        lines.page(index).dirty[line_of(pa)]
    };
    assert_eq!(dirty(RAM + 0x3000), 0xFFFF_0000_0000_FFFF);
    assert_eq!(dirty(RAM + 0x3040), 0xF);
    assert_eq!(dirty(RAM + 0x3FC0), 0xFFFF << 48);
    assert_eq!(dirty(RAM + 0x8000), 0xFFFF);
}

#[test]
fn each_exception_level_has_its_own_registers() {
    let mut rig = Rig::new();
    rig.map(0x5000, RAM + 0x3000, WB);
    rig.store(0x5000, 8);
    // EL2 with the MMU off, and EL3 with tables of its own.
    rig.execute(HVC);
    rig.registers.insert(Register::Cpsr, 2 << 2);
    rig.watch.vcpus[1].flush();
    rig.load(RAM + 0x3000, 8);
    assert_eq!(rig.kinds(), [Kind::MismatchedAttributes]);
    for (register, value) in [
        (Register::Cpsr, 3 << 2),
        (Register::Sctlr(3), 5),
        (Register::Tcr(3), 25),
        (Register::Ttbr0(3), ROOT),
        (Register::Mair(3), 0xFF),
    ] {
        rig.registers.insert(register, value);
    }
    rig.watch.vcpus[1].flush();
    rig.store(0x5FF8, 8);
    let index = rig.watch.checker().lines().find(RAM + 0x3000).unwrap();
    let page = rig.watch.checker().lines().page(index);
    assert_eq!(page.dirty[63], 0xFF << 56);
}

#[test]
fn code_is_found_where_it_is_in_memory() {
    let mut rig = Rig::new();
    rig.map(0x5000, RAM + 0x3000, WB);
    rig.map(0x9000, RAM + 0x3000, WB);
    rig.store(0x9040, 4);
    let pcs = |first: u64| (first..first + 64).step_by(4);
    rig.watch.fetch(pcs(0x5000), &mut rig.registers);
    assert_eq!(rig.kinds(), []);
    rig.watch.fetch(pcs(0x5020), &mut rig.registers);
    assert_eq!(rig.kinds(), [Kind::StaleCode]);
}

#[test]
fn code_is_fetched_by_who_executed_last() {
    for is_store in [false, true] {
        let mut rig = Rig::new();
        rig.map(0x5000, RAM + 0x3000, WB);
        // The second round is quiet.
        for cpu in [0, 1, 0] {
            let who = Who { cpu, pc: 4 };
            let (access, registers) = (Fake(4, 0), &mut rig.registers);
            rig.watch.store(who, 0x5000, &access, true, registers);
            if !is_store {
                rig.watch.load(who, 0x5000, &access, registers);
            }
        }
        let who = Who { cpu: 1, pc: 4 };
        let (access, registers) = (Fake(4, 0), &mut rig.registers);
        if is_store {
            rig.watch.store(who, 0x5000, &access, true, registers);
        } else {
            rig.watch.load(who, 0x5000, &access, registers);
        }
        assert_eq!(rig.watch.counts.walks, 2);
        rig.watch.fetch(std::iter::once(0x5000), registers);
        assert_eq!(rig.kinds(), [Kind::StaleCode]);
        assert_eq!(rig.watch.checker().findings()[0].cpu, 1);
    }
}

#[test]
fn what_cannot_be_followed_is_counted() {
    let mut rig = Rig::new();
    rig.map(0x5000, RAM + 0x3000, WB);
    rig.load(0x5000, 8);
    rig.load(0x6000, 8);
    assert_eq!(rig.watch.counts.unfollowed, 1);
    assert_eq!(rig.watch.blind(), None);
    // A guest of a hypervisor.
    rig.registers.insert(Register::Hcr, HCR_VM);
    rig.registers.insert(Register::X(3), 0x5000);
    rig.execute(MSR_SCTLR_EL1);
    rig.store(0x5000, 8);
    rig.execute(DC_CIVAC_X3);
    assert_eq!(rig.watch.counts.unfollowed, 3);
    assert!(rig.watch.blind().unwrap().contains("3 accesses"));
}

#[test]
fn a_run_that_saw_nothing_is_blind() {
    let mut rig = Rig::new();
    assert!(rig.watch.blind().unwrap().contains("no load"));
    assert!(rig.watch.end().contains("\"blind\":\"no load"));
    rig.map(0x5000, RAM + 0x3000, WB);
    rig.load(0x5000, 8);
    assert!(rig.watch.end().contains("\"lost\":0,\"blind\":null,"));
}

#[test]
fn a_register_that_is_not_there_is_named_and_not_zero() {
    for gone in [
        Register::Cpsr,
        Register::Sctlr(1),
        Register::Tcr(1),
        Register::Ttbr0(1),
        Register::Ttbr1(1),
        Register::Mair(1),
    ] {
        let mut rig = Rig::new();
        rig.map(0x5000, RAM + 0x3000, WB);
        rig.map(0x9000, RAM + 0x3000, NC);
        rig.registers.remove(&gone);
        rig.store(0x5000, 8);
        rig.load(0x9000, 8);
        assert_eq!(rig.kinds(), []);
        let blind = rig.watch.blind().unwrap();
        assert!(blind.contains(&gone.to_string()), "{blind}");
    }
    // A level that QEMU shows nothing of.
    let mut rig = Rig::new();
    rig.registers.insert(Register::Cpsr, 3 << 2);
    rig.load(RAM, 8);
    assert!(rig.watch.blind().unwrap().contains("SCTLR_EL3"));
    // What maintenance is about.
    let mut rig = Rig::new();
    rig.map(0, RAM, WB);
    rig.load(0, 8);
    rig.execute(DC_CIVAC_X3);
    assert!(rig.watch.blind().unwrap().contains("X3"));
}

#[test]
fn ram_that_is_not_the_machines_is_found_out() {
    for (is_there, value) in [(true, 7), (false, 7), (false, 0)] {
        let mut rig = Rig::new();
        rig.map(0x5000, RAM + 0x3000, WB);
        if is_there {
            rig.words.set(RAM + 0x3000, value as u64);
        }
        let who = rig.who();
        let stored = Fake(8, value);
        rig.watch
            .store(who, 0x5000, &stored, true, &mut rig.registers);
        let is_blind = !is_there && value != 0;
        assert_eq!(rig.watch.blind().is_some(), is_blind);
        // What may not have been stored proves nothing.
        let mut rig = Rig::new();
        rig.map(0x5000, RAM + 0x3000, WB);
        let who = rig.who();
        rig.watch
            .store(who, 0x5000, &stored, false, &mut rig.registers);
        assert_eq!(rig.watch.blind(), None);
    }
}

#[test]
fn nonsense_is_survived() {
    let mut rig = Rig::new();
    rig.load(u64::MAX - 3, 8);
    rig.store(u64::MAX - 3, 16);
    rig.load(0x7FFF_FFFF_F000, 8);
    rig.store(0x123, 200);
    assert_eq!(rig.kinds(), []);
}

#[test]
fn a_core_that_comes_back_has_no_translations() {
    let mut rig = Rig::new();
    rig.map(0x5000, RAM + 0x3000, WB);
    rig.store(0x5000, 8);
    // Core 0 has it turned on again by PSCI's CPU_ON: with the MMU off.
    let other = Who { cpu: 0, pc: 0 };
    rig.watch.add_cpu(0);
    rig.registers.insert(Register::Sctlr(1), 0);
    rig.execute_as(other, HVC);
    rig.load(RAM + 0x3040, 8);
    rig.load(0x5000, 8);
    assert_eq!(rig.watch.counts.unfollowed, 0);
    assert_eq!(rig.kinds(), []);
    rig.load(RAM + 0x3000, 8);
    assert_eq!(rig.kinds(), [Kind::MismatchedAttributes]);
}

#[test]
fn code_is_fetched_past_the_caches_if_they_are_off() {
    for (sctlr, kinds) in [(5, vec![]), (5 | 1 << 12, vec![Kind::StaleCode])] {
        let mut rig = Rig::new();
        rig.map(0x5000, RAM + 0x3000, NC);
        rig.registers.insert(Register::Sctlr(1), sctlr);
        rig.store(0x5000, 4);
        rig.watch.fetch(std::iter::once(0x5000), &mut rig.registers);
        assert_eq!(rig.kinds(), kinds);
    }
}

/// Where a buffer and a block of parameters are.
const READ_INTO: u64 = 0x5000;
const BLOCK: u64 = 0x9FF8;

/// A call with these parameters, and then a load of other bytes from the buffer.
fn call(operation: u64, fields: [u64; 3]) -> Vec<Kind> {
    let mut rig = Rig::with(true);
    rig.map(READ_INTO, RAM + 0x3000, WB);
    // The parameters are in two pages.
    rig.map(BLOCK, RAM + 0x6000, WB);
    rig.map(BLOCK + 8, RAM + 0x8000, WB);
    rig.words.set(RAM + 0x6FF8, fields[0]);
    rig.words.set(RAM + 0x8000, fields[1]);
    rig.words.set(RAM + 0x8008, fields[2]);
    let load = |rig: &mut Rig, va, value| {
        let who = rig.who();
        let loaded = Fake(8, value);
        rig.watch.load(who, va, &loaded, &mut rig.registers);
    };
    load(&mut rig, READ_INTO + 0x40, 1);
    load(&mut rig, BLOCK, 1);
    rig.registers.insert(Register::X(0), operation);
    rig.registers.insert(Register::X(1), BLOCK);
    rig.execute(HLT_SEMIHOSTING);
    load(&mut rig, READ_INTO + 0x40, 2);
    let kinds = rig.kinds();
    load(&mut rig, BLOCK, 2);
    assert!(kinds.is_empty() || rig.kinds().len() == 2);
    kinds
}

#[test]
fn what_semihosting_writes_is_no_devices() {
    let nobodys = [Kind::StaleRead];
    assert_eq!(call(0x06, [1, READ_INTO, 0x100]), [], "SYS_READ");
    assert_eq!(call(0x06, [1, READ_INTO, 0x40]), nobodys, "and no more");
    assert_eq!(call(0x05, [1, READ_INTO, 0x100]), nobodys, "SYS_WRITE");
    assert_eq!(call(0x15, [READ_INTO, 0x100, 0]), [], "SYS_GET_CMDLINE");
    assert_eq!(call(0x0D, [READ_INTO, 0, 0x100]), [], "SYS_TMPNAM");
    assert_eq!(call(0x16, [READ_INTO + 0x38, 0, 0]), [], "SYS_HEAPINFO");
    assert_eq!(call(0x06, [1, u64::MAX - 8, u64::MAX]), nobodys);
}
