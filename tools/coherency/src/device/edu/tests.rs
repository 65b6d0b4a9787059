use super::*;
use crate::device::testing::{Bench, Ram, reads, started, writes};
use std::slice;

const ECAM: u64 = 0x40_1000_0000;
const ECAM_END: u64 = ECAM + 0x1000_0000;
const FUNCTION: u64 = ECAM + (1 << 15);
const BAR: u64 = 0x1010_0000;
const RAM: u64 = 0x4000_0000;

fn unplaced(mask: u64) -> Bench<Edu> {
    let configuration = ECAM..ECAM_END;
    Bench {
        device: Edu::new(slice::from_ref(&configuration), mask),
        ram: Ram::new(RAM..RAM + 0x1000),
        base: BAR,
    }
}

/// The device with its registers where the firmware has put them.
fn bench(mask: u64) -> Bench<Edu> {
    let mut bench = unplaced(mask);
    assert_eq!(bench.access(FUNCTION, 4, false, ID.into()), []);
    assert_eq!(bench.access(FUNCTION + 0x10, 4, true, BAR), []);
    assert_eq!(bench.access(FUNCTION + 4, 4, true, 6), [Event::Moved]);
    bench
}

impl Bench<Edu> {
    fn put(&mut self, offset: u64, value: u64) -> Vec<Event> {
        self.access(BAR + offset, 8, true, value)
    }

    fn copy(&mut self, source: u64, destination: u64, count: u64, command: u64) -> Vec<Event> {
        assert_eq!(self.put(DMA_SOURCE, source), []);
        assert_eq!(self.put(DMA_DESTINATION, destination), []);
        assert_eq!(self.put(DMA_COUNT, count), []);
        self.put(DMA_COMMAND, command)
    }
}

fn outside(address: u64, role: &'static str) -> Event {
    Event::Wrong {
        kind: Kind::DmaOutsideMemory,
        address,
        role,
    }
}

#[test]
fn registers_are_where_the_firmware_puts_them() {
    let mut bench = unplaced(u64::MAX);
    let nowhere = bench.device.windows();
    // A look for functions, by halves of the identifier; one is not there, one is another.
    for (function, vendor, device) in [
        (ECAM, 0x1B36, 0x0008),
        (FUNCTION, 0x1234, 0x11E8),
        (FUNCTION + 0x8000, 0xFFFF, 0xFFFF),
    ] {
        assert_eq!(bench.access(function, 2, false, vendor), []);
        assert_eq!(bench.access(function + 2, 2, false, device), []);
    }
    // Sizing while it answers, which is bad but done.
    assert_eq!(bench.access(FUNCTION + 4, 2, true, 2), []);
    assert_eq!(bench.access(FUNCTION + 0x10, 4, true, 0xFFFF_FFFF), []);
    assert_eq!(bench.access(FUNCTION + 0x10, 4, false, 0xFFF0_0000), []);
    assert_eq!(bench.device.windows(), nowhere);
    let moved = [Event::Moved];
    // The register has no more bits than the size leaves.
    let written = bench.access(FUNCTION + 0x10, 4, true, BAR + 0x800);
    assert_eq!(written, moved);
    assert_eq!(bench.device.windows()[1], BAR..BAR + 0x10_0000);
    assert_eq!(bench.access(FUNCTION + 0x10, 4, true, BAR), [], "again");
    let another = 0x1020_0000;
    assert_eq!(bench.access(ECAM + 0x10, 4, true, another), []);
    assert_eq!(bench.access(ECAM + 4, 2, true, 2), []);
    assert_eq!(bench.access(FUNCTION + 4, 2, true, 0), moved);
    assert_eq!(bench.device.windows(), nowhere);
}

#[test]
fn memory_is_read_until_the_command_reads_done() {
    let mut bench = bench(u64::MAX);
    let events = bench.copy(RAM + 1, BUFFER.start, 0x100, COMMAND_RUN);
    assert_eq!(events.len(), 1);
    let (job, spans) = started(&events);
    assert_eq!(spans, [reads(RAM + 1..RAM + 0x101, "source")]);
    // Busy registers ignore what is stored.
    assert_eq!(bench.copy(RAM, BUFFER.start, 1, COMMAND_RUN), []);
    assert_eq!(bench.load(DMA_COMMAND, 1), []);
    assert_eq!(bench.load(INTERRUPT_STATUS, 0x100), [], "an older one");
    assert_eq!(bench.load(DMA_COMMAND, 0), [Event::Completed { job }]);
    assert_eq!(bench.load(DMA_COMMAND, 0), []);
}

#[test]
fn memory_is_written_until_the_interrupt_is_seen() {
    let mut bench = bench(u64::MAX);
    let command = COMMAND_RUN | COMMAND_TO_MEMORY | COMMAND_INTERRUPT;
    let (job, spans) = started(&bench.copy(BUFFER.start + 8, RAM, 0xFF8, command));
    assert_eq!(spans, [writes(RAM..RAM + 0xFF8, "destination")]);
    assert_eq!(bench.load(INTERRUPT_STATUS, 1), [], "a factorial");
    let end = [Event::Completed { job }];
    assert_eq!(bench.load(INTERRUPT_STATUS, 0x100), end);
}

#[test]
fn words_of_32_bits_are_whole_values() {
    let mut bench = bench(u64::MAX);
    bench.put(DMA_SOURCE, u64::MAX);
    bench.store(DMA_SOURCE, RAM as u32);
    bench.store(DMA_SOURCE + 4, 7);
    bench.store(DMA_DESTINATION, BUFFER.start as u32);
    bench.store(DMA_COUNT, 4);
    assert_eq!(bench.store(DMA_COMMAND, 2), [], "no start");
    let (_, spans) = started(&bench.store(DMA_COMMAND, 1));
    assert_eq!(spans, [reads(RAM..RAM + 4, "source")]);
}

#[test]
fn the_buffer_has_an_end() {
    for (own, count) in [
        (BUFFER.start, 0x1001),
        (BUFFER.start - 1, 1),
        (BUFFER.end - 1, 2),
        (0, 4),
        (u64::MAX, 4),
    ] {
        let mut bench = bench(u64::MAX);
        let events = bench.copy(RAM, own, count, COMMAND_RUN);
        assert_eq!(events[1..], [outside(own, "device buffer")]);
        let (_, spans) = started(&events);
        assert_eq!(spans, [reads(RAM..RAM + count.min(0x1000), "source")]);
    }
}

#[test]
fn the_device_drives_so_many_bits() {
    let mut narrow = bench(0x0FFF_FFFF);
    let events = narrow.copy(RAM, BUFFER.start, 4, COMMAND_RUN);
    assert_eq!(events[1..], [outside(RAM, "source")]);
    assert_eq!(started(&events).1, []);
    let mut edge = bench(0x4000_0FFF);
    let command = COMMAND_RUN | COMMAND_TO_MEMORY;
    let events = edge.copy(BUFFER.start, RAM + 0xFFE, 4, command);
    assert_eq!(events[1..], [outside(RAM + 0xFFE, "destination")]);
    let mut wide = bench(u64::MAX);
    let events = wide.copy(u64::MAX - 1, BUFFER.start, 4, COMMAND_RUN);
    assert_eq!(events[1..], [outside(u64::MAX - 1, "source")]);
}
