//! For each kind a wrong sequence, which is found, and the right one, in which nothing is.

mod barriers;
mod dropped;
mod kinds;
mod ownership;
mod shadows;
mod strangers;

use super::*;
use crate::decode::{LineOp, Operation, decode};
use crate::device::{Access, Does, Event, JobId, Span};
use std::cell::RefCell;
use std::sync::{Arc, Mutex};

/// Where RAM starts; tests use the bytes after it.
pub(super) const RAM: u64 = 0x4000_0000;
const RAM_SIZE: u64 = 1 << 20;

/// Registers of the device: a store rings its bell, a load of 1 is its end.
const DOORBELL: u64 = 0x1000_0000;
const STATUS: u64 = 0x1000_0008;

/// Memory that devices read only.
const FLASH: Range<u64> = 0..0x400_0000;

const UART: u64 = 0x0900_0000;

const WB: Mapping = Mapping::WriteBack;
const NC: Mapping = Mapping::NonCacheable;

/// RAM that holds zeros.
struct Zeros;

impl Memory for Zeros {
    fn read(&self, pa: u64, bytes: &mut [u8]) -> bool {
        bytes.fill(0);
        (RAM..RAM + RAM_SIZE).contains(&pa)
    }
}

/// A device that works on whatever it is told by the test.
struct Engine {
    spans: Arc<Mutex<Vec<Span>>>,
    watched: Vec<Range<u64>>,
    jobs: u32,
}

impl Device for Engine {
    fn name(&self) -> &str {
        "engine"
    }

    fn windows(&self) -> Vec<Range<u64>> {
        vec![DOORBELL..DOORBELL + 0x1000]
    }

    fn watched(&self) -> Vec<Range<u64>> {
        self.watched.clone()
    }

    fn access(&mut self, access: &Access, _: &dyn Memory, events: &mut Vec<Event>) {
        match (access.pa, access.is_store, access.value) {
            (DOORBELL, true, _) => {
                self.jobs += 1;
                events.push(Event::Started {
                    job: JobId(self.jobs),
                    spans: self.spans.lock().unwrap().clone(),
                });
            }
            (STATUS, false, 1) => events.push(Event::Completed {
                job: JobId(self.jobs),
            }),
            // A word in memory that tells of the end.
            (pa, false, 1) if self.watched.iter().any(|word| word.start == pa) => {
                events.push(Event::Completed {
                    job: JobId(self.jobs),
                });
            }
            (STATUS, true, address) => events.push(Event::Wrong {
                kind: Kind::WrongBusAlias,
                address,
                role: "source",
            }),
            _ => {}
        }
    }
}

/// A machine with one device. Every call is an instruction of its own, numbered from 1 on.
pub(super) struct Rig {
    pub(super) checker: Checker,
    spans: Arc<Mutex<Vec<Span>>>,
    pc: u64,
    cpu: u32,
}

impl Rig {
    pub(super) fn new() -> Self {
        Self::with(|_| {})
    }

    pub(super) fn with(change: impl FnOnce(&mut Machine)) -> Self {
        let spans = Arc::<Mutex<Vec<Span>>>::default();
        let engine = Engine {
            spans: spans.clone(),
            watched: vec![RAM + 0x8000..RAM + 0x8004],
            jobs: 0,
        };
        let mut machine = Machine {
            ram: vec![RAM..RAM + RAM_SIZE],
            readable: vec![FLASH],
            memory: Box::new(Zeros),
            devices: vec![Box::new(engine)],
            uart: Some(UART),
            coherent: false,
            shadow: false,
        };
        change(&mut machine);
        let checker = Checker::new(machine, Suppressions::default(), |_| {});
        Self {
            checker,
            spans,
            pc: 0,
            cpu: 0,
        }
    }

    fn who(&mut self) -> Who {
        self.pc += 1;
        Who {
            cpu: self.cpu,
            pc: self.pc,
        }
    }

    fn touch(&mut self, pa: u64, size: u8, mapping: Mapping, is_store: bool, value: u128) {
        let who = self.who();
        let value = Some(value);
        let touch = Touch {
            pa,
            size,
            mapping,
            is_store,
            value,
            is_told: self.checker.wants_page(pa),
        };
        self.checker.access(who, &touch);
    }

    pub(super) fn load(&mut self, pa: u64, mapping: Mapping) -> &mut Self {
        self.touch(pa, 8, mapping, false, 0);
        self
    }

    pub(super) fn store(&mut self, pa: u64, mapping: Mapping) -> &mut Self {
        self.touch(pa, 8, mapping, true, 0);
        self
    }

    /// Stores all bytes of `range`.
    pub(super) fn fill(&mut self, range: Range<u64>, mapping: Mapping) -> &mut Self {
        for pa in range.step_by(8) {
            self.store(pa, mapping);
        }
        self
    }

    /// Loads all bytes of `range`.
    pub(super) fn read(&mut self, range: Range<u64>, mapping: Mapping) -> &mut Self {
        for pa in range.step_by(8) {
            self.load(pa, mapping);
        }
        self
    }

    pub(super) fn each_line(&mut self, op: LineOp, range: Range<u64>) -> &mut Self {
        for pa in (range.start / LINE * LINE..range.end).step_by(LINE as usize) {
            let who = self.who();
            self.checker.maintain(who, op, pa, WB);
        }
        self
    }

    /// An instruction as an assembler encodes it.
    pub(super) fn instruction(&mut self, word: u32) -> &mut Self {
        let who = self.who();
        match decode(word) {
            Some(Operation::Barrier(barrier)) => self.checker.barrier(who, barrier),
            Some(Operation::StoreRelease) => self.checker.store_release(who),
            Some(Operation::SetWay(op)) => self.checker.maintain_set_way(who, op),
            Some(Operation::InvalidateAllCode) => self.checker.invalidate_all_code(),
            other => panic!("{word:#x}: {other:?}"),
        }
        self
    }

    pub(super) fn dsb(&mut self) -> &mut Self {
        self.instruction(DSB_SY)
    }

    /// Rings the bell for a device that does this.
    pub(super) fn start(&mut self, spans: &[(Range<u64>, Does)]) -> &mut Self {
        *self.spans.lock().unwrap() = spans
            .iter()
            .map(|(pa, does)| Span {
                pa: pa.clone(),
                does: *does,
                role: match does {
                    Does::Reads => "source",
                    Does::Writes => "destination",
                },
            })
            .collect();
        self.touch(DOORBELL, 4, Mapping::Device, true, 1);
        self
    }

    pub(super) fn end(&mut self) -> &mut Self {
        self.touch(STATUS, 4, Mapping::Device, false, 1);
        self
    }

    pub(super) fn print(&mut self, text: &str) -> &mut Self {
        for byte in text.bytes() {
            self.touch(UART, 4, Mapping::Device, true, u128::from(byte));
        }
        self
    }

    /// The run ends: what was waited for does not come.
    pub(super) fn finish(&mut self) -> &mut Self {
        self.checker.end(Counts::default(), None);
        self
    }

    /// What was found: the kind and the instruction.
    pub(super) fn found(&self) -> Vec<(Kind, u64)> {
        let findings = self.checker.findings().iter();
        findings.map(|finding| (finding.kind, finding.pc)).collect()
    }

    /// Asserts that nothing was found.
    #[track_caller]
    pub(super) fn is_silent(&self) {
        assert_eq!(self.checker.findings(), []);
    }

    /// Asserts that the last instruction, and no other, did this.
    #[track_caller]
    pub(super) fn is(&self, kind: Kind) {
        assert_eq!(self.found(), [(kind, self.pc)]);
    }
}

pub(super) const DSB_SY: u32 = 0xD503_3F9F;
pub(super) const DSB_ISH: u32 = 0xD503_3B9F;
pub(super) const DSB_ISHST: u32 = 0xD503_3A9F;
pub(super) const DMB_OSHST: u32 = 0xD503_32BF;
pub(super) const DMB_OSHLD: u32 = 0xD503_31BF;
pub(super) const DMB_ISHST: u32 = 0xD503_3ABF;

/// A buffer of four lines.
pub(super) const BUFFER: Range<u64> = RAM + 0x1000..RAM + 0x1100;

#[test]
fn the_shown_findings_are_those_kept() {
    let shown = std::rc::Rc::new(RefCell::new(0));
    let count = shown.clone();
    let mut rig = Rig::new();
    rig.checker.show = Box::new(move |_| *count.borrow_mut() += 1);
    rig.fill(BUFFER, WB).start(&[(BUFFER, Does::Reads)]);
    assert_eq!((rig.found().len(), *shown.borrow()), (1, 1));
    let finding = &rig.checker.findings()[0];
    assert_eq!(finding.device, Some(("engine".to_owned(), "source")));
    assert_eq!(finding.mapping, "Normal write-back");
    assert_eq!(finding.pa, BUFFER.start);
    let json = rig.checker.end(Counts::default(), None);
    assert!(json.ends_with("\"findings\":1,\"jobs\":{\"engine\":1}}\n"));
}

#[test]
fn a_device_is_not_told_of_a_value_that_may_not_be() {
    let mut rig = Rig::new();
    let who = rig.who();
    let touch = Touch {
        pa: DOORBELL,
        size: 4,
        mapping: Mapping::Device,
        is_store: true,
        value: None,
        is_told: true,
    };
    rig.checker.access(who, &touch);
    let json = rig.checker.end(Counts::default(), None);
    assert!(json.contains("\"lost\":1,") && json.contains("\"jobs\":{}"));
}
