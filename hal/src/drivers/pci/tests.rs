use super::*;
use std::collections::BTreeMap;
use std::sync::Mutex;

/// Configuration space of a few functions: words that exist, and the writable bits of each.
struct FakeEcam {
    words: Mutex<BTreeMap<usize, (u32, u32)>>,
    log: Mutex<Vec<(usize, u32)>>,
}

impl RegisterIo for FakeEcam {
    fn read32(&self, offset: usize) -> u32 {
        let words = self.words.lock().unwrap();
        let present = words.contains_key(&(offset & !0xFFF));
        words
            .get(&offset)
            .map_or(if present { 0 } else { u32::MAX }, |word| word.0)
    }
    fn write32(&self, offset: usize, value: u32) {
        self.log.lock().unwrap().push((offset, value));
        if let Some((word, writable)) = self.words.lock().unwrap().get_mut(&offset) {
            *word = *word & !*writable | value & *writable;
        }
    }
    fn read64(&self, offset: usize) -> u64 {
        panic!("64-bit read of {offset:#x}")
    }
    fn write64(&self, offset: usize, _: u64) {
        panic!("64-bit write of {offset:#x}")
    }
}

fn bus(words: &[(usize, u32, u32)]) -> Bus<FakeEcam> {
    Bus::new(FakeEcam {
        words: Mutex::new(
            words
                .iter()
                .map(|&(at, word, mask)| (at, (word, mask)))
                .collect(),
        ),
        log: Mutex::new(Vec::new()),
    })
}

const SLOT_1: usize = 1 << 15;
const SLOT_2: usize = 2 << 15;

/// A host bridge in slot 0, a function like QEMU's edu in slot 1, and two functions in slot 2.
fn machine() -> Bus<FakeEcam> {
    bus(&[
        (0, 0x0008_1B36, 0),
        (SLOT_1, 0x11E8_1234, 0),
        (SLOT_1 + 0x04, 0x0010_0000, 0x0000_0547),
        (SLOT_1 + 0x10, 0x0000_0000, 0xFFF0_0000),
        (SLOT_1 + 0x3C, 0x0000_0100, 0xFF),
        (SLOT_2, 0x0002_8086, 0),
        (SLOT_2 + 0x04, 0, 0x0000_0547),
        (SLOT_2 + 0x0C, 0x0080_0000, 0),
        (SLOT_2 + 0x10, 0x0000_0001, 0xFFFF_FFE0),
        (SLOT_2 + 0x14, 0x0000_0000, 0xFFFF_F000),
        (SLOT_2 + 0x18, 0x0000_000C, 0xFFFE_0000),
        (SLOT_2 + 0x1C, 0, 0xFFFF_FFFF),
        (SLOT_2 + 0x3C, 0x0000_0400, 0xFF),
        (SLOT_2 + 0x3000, 0x0003_8086, 0),
        (SLOT_2 + 0x300C, 0x0001_0000, 0),
    ])
}

fn word(bus: &Bus<FakeEcam>, at: usize) -> u32 {
    bus.ecam.read32(at)
}

#[test]
fn functions_are_found_by_identifier() {
    let bus = machine();
    let found: Vec<_> = bus
        .functions()
        .map(|f| (f.device(), f.function(), bus.id(f)))
        .collect();
    assert_eq!(
        found,
        [
            (0, 0, (0x1B36, 0x0008)),
            (1, 0, (0x1234, 0x11E8)),
            (2, 0, (0x8086, 0x0002)),
            (2, 3, (0x8086, 0x0003)),
        ]
    );
    let edu = bus.find(0x1234, 0x11E8).unwrap();
    assert_eq!((edu.device(), bus.pin(edu)), (1, Some(Pin::A)));
    assert_eq!(bus.pin(bus.find(0x8086, 2).unwrap()), Some(Pin::D));
    assert_eq!(bus.pin(bus.find(0x1B36, 8).unwrap()), None);
    assert_eq!(
        bus.find(0x1234, 0x11E9),
        Err(PciError::NotFound {
            vendor: 0x1234,
            device: 0x11E9
        })
    );
}

#[test]
fn registers_get_aligned_addresses_and_only_then_decode() {
    let bus = machine();
    let mut window = MemoryWindow::new(PhysAddr::new(0x1000_4000), 0x1000_4000, 0x2EFE_C000);
    let edu = bus.find(0x1234, 0x11E8).unwrap();
    let bars = bus.enable(edu, &mut window).unwrap();
    let base = PhysAddr::new(0x1010_0000);
    assert_eq!(
        bars,
        [
            Some(Bar {
                base,
                size: 0x10_0000
            }),
            None,
            None,
            None,
            None,
            None
        ]
    );
    assert_eq!(word(&bus, SLOT_1 + 0x10), 0x1010_0000);
    let log = bus.ecam.log.lock().unwrap().clone();
    assert_eq!(log.first(), Some(&(SLOT_1 + 0x04, 0)));
    assert_eq!(log.last(), Some(&(SLOT_1 + 0x04, 0x6)));
    assert!(
        log[1..log.len() - 1]
            .iter()
            .all(|&(at, _)| at != SLOT_1 + 0x04)
    );
}

#[test]
fn wide_and_io_registers_are_told_apart() {
    let bus = machine();
    let mut window = MemoryWindow::new(PhysAddr::new(0x80_0000_0000), 0x1_0000_0800, 1 << 30);
    let bars = bus
        .enable(bus.find(0x8086, 2).unwrap(), &mut window)
        .unwrap();
    let bar = |bus_addr: u64, size| {
        let base = PhysAddr::new(bus_addr - 0x1_0000_0800 + 0x80_0000_0000);
        Some(Bar { base, size })
    };
    assert_eq!(bars[0], None);
    assert_eq!(bars[1], bar(0x1_0000_1000, 0x1000));
    assert_eq!(bars[2], bar(0x1_0002_0000, 0x2_0000));
    assert_eq!(bars[3..], [None; 3]);
    assert_eq!(word(&bus, SLOT_2 + 0x18) & !0xF, 0x0002_0000);
    assert_eq!(word(&bus, SLOT_2 + 0x1C), 1);
}

#[test]
fn a_full_window_leaves_the_function_off() {
    let bus = machine();
    let mut window = MemoryWindow::new(PhysAddr::new(0x1000_0001), 0x1000_0001, 0x10_0000);
    let edu = bus.find(0x1234, 0x11E8).unwrap();
    let error = PciError::WindowFull {
        bar: 0,
        size: 0x10_0000,
    };
    assert_eq!(bus.enable(edu, &mut window), Err(error));
    assert_eq!(word(&bus, SLOT_1 + 0x04) & 0x6, 0);
    let bridge = bus.find(0x8086, 3).unwrap();
    assert_eq!(bus.enable(bridge, &mut window), Err(PciError::Layout(1)));
}
