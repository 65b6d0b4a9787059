//! Whatever a CPU does to a device, its model holds to what [`Device`] promises.

use super::testing::Ram;
use super::{Access, Device, Event, JobId};
use crate::board;
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::Index;
use std::collections::HashSet;
use std::ops::Range;

const RAM_SIZE: u64 = 0x4000;
/// Spans of one event. What a model has at most is its own matter; this is what no checker can bear.
const TOO_MANY_SPANS: usize = 1 << 17;

/// A step of a CPU that knows a little of what it does.
#[derive(Clone, Debug)]
enum Step {
    /// An access to a register: of which window, where, and what it stores or loads.
    Register(Index, Index, u8, bool, u64),
    /// A load of watched RAM.
    Look(Index, u64, u8, u64),
    /// A word of RAM is changed.
    Ram(u64, u32),
    /// What a driver does, with two numbers and an address in RAM.
    Drive(u16, u16, u64),
}

/// Numbers that devices make something of: addresses, lengths, bits, in either byte order.
fn number(ram: u64) -> impl Strategy<Value = u64> {
    let pointer = (0..RAM_SIZE / 16).prop_map(move |at| ram + at * 16);
    let plain = prop_oneof![
        2 => any::<u64>(),
        4 => 0..16_u64,
        2 => (0..64_u32).prop_map(|bit| 1 << bit),
        6 => pointer.clone(),
        4 => pointer.clone().prop_map(|pa| pa | 0xC000_0000),
        2 => pointer.prop_map(|pa| pa & 0xFFFF_FFFF | 8),
        1 => Just(u64::MAX),
        1 => Just(0x11E8_1234),
        1 => (0..8_u64).prop_map(|at| 0x4_0000 + at * 0x100),
    ];
    (plain, 0..4_u8).prop_map(|(number, order)| match order {
        0 => number.swap_bytes(),
        _ => number,
    })
}

fn size() -> impl Strategy<Value = u8> {
    prop_oneof![8 => Just(4_u8), 2 => Just(8), 1 => Just(1), 1 => Just(2), 1 => Just(16)]
}

fn step(ram: u64) -> impl Strategy<Value = Step> {
    let register = (any::<Index>(), any::<Index>(), size(), any::<bool>());
    prop_oneof![
        6 => (register, number(ram)).prop_map(|((window, at, size, is_store), value)| {
            Step::Register(window, at, size, is_store, value)
        }),
        2 => (any::<Index>(), 0..16_u64, size(), number(ram))
            .prop_map(|(watched, at, size, value)| Step::Look(watched, at, size, value)),
        3 => (0..RAM_SIZE / 4, number(ram)).prop_map(|(at, word)| Step::Ram(at * 4, word as u32)),
        6 => (any::<u16>(), any::<u16>(), 0..RAM_SIZE / 32)
            .prop_map(move |(some, other, at)| Step::Drive(some, other, ram + at * 32)),
    ]
}

/// Offsets that are more interesting than others: of the models' registers, within their windows.
fn offset(at: Index, window: &Range<u64>) -> u64 {
    const KNOWN: [u64; 44] = [
        0x00, 0x04, 0x08, 0x0C, 0x10, 0x14, 0x18, 0x1C, 0x20, 0x24, 0x28, 0x2C, 0x30, 0x34, 0x38,
        0x3C, 0x40, 0x44, 0x50, 0x60, 0x64, 0x70, 0x80, 0x84, 0x88, 0x90, 0x94, 0x98, 0xA0, 0xA4,
        0xC0, 0x100, 0x104, 0x700, 0x704, 0xB00, 0xB04, 0xB0C, 0xB28, 0xE00, 0xE04, 0xFE0, 0xFF0,
        0xFFC,
    ];
    KNOWN[at.index(KNOWN.len())] % (window.end - window.start)
}

/// A device, and what its model has said.
struct Watch {
    device: Box<dyn Device>,
    ram: Ram,
    known: HashSet<JobId>,
    running: HashSet<JobId>,
    /// The address of RAM, and the index of the available ring that is near its start.
    base: u64,
    offered: u16,
}

/// Where that ring is in RAM.
const AVAILABLE: u64 = 0x1000;

impl Watch {
    fn access(&mut self, pa: u64, size: u8, is_store: bool, value: u64) {
        // What a CPU stores or loads has no more bits than that.
        let bits = u32::from(size) * 8;
        let access = Access {
            cpu: 0,
            pa,
            size,
            is_store,
            value: value
                & u64::MAX
                    .checked_shr(64_u32.saturating_sub(bits))
                    .unwrap_or(0),
        };
        let before = (self.device.windows(), self.device.watched());
        let mut events = Vec::new();
        self.device.access(&access, &self.ram, &mut events);
        let after = (self.device.windows(), self.device.watched());
        let has_moved = events.contains(&Event::Moved);
        assert!(has_moved || before == after, "{access:x?}");
        assert!(after.0.iter().chain(&after.1).all(|part| !part.is_empty()));
        for event in events {
            match event {
                Event::Started { job, spans } => {
                    assert!(self.known.insert(job), "{job:?} again");
                    self.running.insert(job);
                    check(&spans);
                }
                Event::Extended { job, spans } => {
                    assert!(self.running.contains(&job), "{job:?} runs no more");
                    check(&spans);
                }
                Event::Completed { job } => {
                    assert!(self.running.remove(&job), "{job:?} ends twice");
                }
                Event::Read { spans } => check(&spans),
                Event::LeftOut { count } => assert_ne!(count, 0),
                Event::Wrong { .. } | Event::Moved => {}
            }
        }
    }

    fn go(&mut self, step: &Step, ram: u64) {
        match step {
            Step::Register(window, at, size, is_store, value) => {
                let windows = self.device.windows();
                let window = &windows[window.index(windows.len())];
                let pa = window.start + offset(*at, window);
                self.access(pa, *size, *is_store, *value);
            }
            Step::Look(watched, at, size, value) => {
                let all = self.device.watched();
                if !all.is_empty() {
                    let pa = all[watched.index(all.len())].start.wrapping_add(*at);
                    self.access(pa, *size, false, *value);
                }
            }
            Step::Ram(at, word) => self.ram.put(ram + at, &word.to_le_bytes()),
            Step::Drive(some, other, pa) => self.drive(u64::from(*some), u64::from(*other), *pa),
        }
    }

    /// What a driver of the device does: a start, an end, or setting it up.
    fn drive(&mut self, some: u64, other: u64, pa: u64) {
        let windows = self.device.windows();
        let base = windows[0].start;
        match self.device.name() {
            "bcm2835-dma" => {
                let channel = base + some % 15 * 0x100;
                let pointer = if some % 15 < 11 {
                    pa | 0xC000_0000
                } else {
                    pa >> 5
                };
                match other % 4 {
                    0 => self.access(channel, 4, false, other >> 2),
                    1 => self.access(channel, 4, true, other >> 2),
                    _ => {
                        self.access(channel + 4, 4, true, pointer);
                        self.access(channel, 4, true, 1);
                    }
                }
            }
            "bcm2835-mbox" => match other % 2 {
                0 => self.access(base + 0x20, 4, true, pa & 0xFFFF_FFFF | 8),
                _ => self.access(base, 4, false, pa & 0xFFFF_FFFF | 8),
            },
            "edu" => {
                let [.., registers] = &windows[2..] else {
                    return;
                };
                let base = registers.start;
                match other % 4 {
                    0 => self.access(base + 0x98, 8, false, some & 1),
                    1 => self.access(base + 0x24, 4, false, some),
                    _ => {
                        let (ram, own) = (pa, 0x4_0000 + (some & 0x7FF));
                        let (from, to) = if other & 4 == 0 {
                            (ram, own)
                        } else {
                            (own, ram)
                        };
                        self.access(base + 0x80, 8, true, from);
                        self.access(base + 0x88, 8, true, to);
                        self.access(base + 0x90, 8, true, some >> 4);
                        self.access(base + 0x98, 8, true, 1 | other >> 1 & 6);
                    }
                }
            }
            "fw_cfg" => self.access(base, 8, true, pa.swap_bytes()),
            _ => {
                self.offered = self.offered.wrapping_add(some as u16 % 3);
                let index = self.base + AVAILABLE + 2;
                self.ram.put(index, &self.offered.to_le_bytes());
                let registers = match other % 8 {
                    0 => vec![
                        (0x28, 4096),
                        (0x30, some & 1),
                        (0x38, some >> 8),
                        (0x40, pa >> 12),
                    ],
                    1 => vec![
                        (0x24, 0),
                        (0x20, some << 20),
                        (0x30, some & 1),
                        (0x38, 1 << (some >> 8 & 7)),
                        (0x80, pa),
                        (0x90, self.base + AVAILABLE),
                        (0xA0, pa ^ 0x2000),
                        (0x44, other >> 2 & 7),
                    ],
                    _ => vec![(0x50, 0), (0x50, 1)],
                };
                for (register, value) in registers {
                    self.access(base + register, 4, true, value);
                }
                if let Some(used) = self.device.watched().first() {
                    self.access(used.start, 4, false, (other >> 13) << 16);
                }
            }
        }
    }

    /// Makes the device end or forget what it does.
    fn end(&mut self) {
        let windows = self.device.windows();
        let base = windows[0].start;
        match self.device.name() {
            "bcm2835-dma" => {
                for channel in 0..11 {
                    self.access(base + channel * 0x100, 4, true, 1 << 31);
                }
                for channel in 11..15 {
                    self.access(base + channel * 0x100 + 0xC, 4, true, 1 << 23);
                }
            }
            "bcm2835-mbox" => {
                // Sixteen others, and the answers to them.
                for request in 0..16 {
                    self.access(base + 0x20, 4, true, 0x3FFF_0008 | request << 4);
                }
                for request in 0..16 {
                    self.access(base, 4, false, 0x3FFF_0008 | request << 4);
                }
            }
            "edu" => {
                if let [.., registers] = &windows[2..] {
                    self.access(registers.start + 0x98, 8, false, 0);
                } else {
                    // Nobody can look without registers; it has one copy at most.
                    assert!(self.running.len() <= 1);
                    self.running.clear();
                }
            }
            "fw_cfg" => {
                if let [watched] = &self.device.watched()[..] {
                    self.access(watched.start, 4, false, 0);
                }
            }
            name => {
                assert!(name.starts_with("virtio-mmio@"), "{name}: how does it end?");
                self.access(base + 0x70, 4, true, 0);
            }
        }
    }
}

fn check(spans: &[super::Span]) {
    assert!(spans.len() < TOO_MANY_SPANS);
    assert!(spans.iter().all(|span| !span.pa.is_empty()));
}

/// The devices of a board, without the transports that are all alike but one.
fn run(name: &str, words: &[u64], steps: &[Step]) {
    let board = board::find(name).unwrap();
    let base = board.ram_base;
    let mut is_first = true;
    for device in board.devices {
        if device.name().starts_with("virtio") && !std::mem::take(&mut is_first) {
            continue;
        }
        let ram = Ram::new(base..base + RAM_SIZE);
        for (at, word) in (base..base + RAM_SIZE).step_by(4).zip(words.iter().cycle()) {
            ram.put(at, &(*word as u32).to_le_bytes());
        }
        let mut watch = Watch {
            device,
            ram,
            known: HashSet::new(),
            running: HashSet::new(),
            base,
            offered: 0,
        };
        if watch.device.name() == "edu" {
            // A firmware that finds the device and gives it registers, so that there is something to do.
            let function = watch.device.windows()[0].start;
            watch.access(function, 4, false, 0x11E8_1234);
            watch.access(function + 0x10, 4, true, 0x1000_0000);
            watch.access(function + 4, 4, true, 6);
        }
        for step in steps {
            watch.go(step, base);
        }
        watch.end();
        assert!(watch.running.is_empty(), "{}", watch.device.name());
    }
}

/// How many cases a run has unless the environment says otherwise: a case has many accesses.
const CASES: u32 = 64;

fn config() -> ProptestConfig {
    let mut config = ProptestConfig::default();
    if std::env::var_os("PROPTEST_CASES").is_none() {
        config.cases = CASES;
    }
    config.failure_persistence = None;
    config
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn virt(words in vec(number(0x4000_0000), 61), steps in vec(step(0x4000_0000), 1..100)) {
        run("virt", &words, &steps);
    }

    #[test]
    fn raspi4b(words in vec(number(0), 61), steps in vec(step(0), 1..100)) {
        run("raspi4b", &words, &steps);
    }
}
