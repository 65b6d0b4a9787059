//! A machine on which forgotten maintenance shows: a cache between the CPU and memory, and a device
//! that goes past it.
//!
//! The cache is told of each operation that the code under test recorded, in order. What the CPU
//! stores stays in its lines until they are cleaned, and what it once loaded or fetched stays until
//! they are invalidated, whatever the device wrote meanwhile.

use super::super::device::fake;
use super::super::{Bidirectional, Device, DmaMask, FromDevice, ToDevice, bounce};
use super::*;
use crate::arch::trace::{Op, record_during};
use crate::layout::host;
use std::collections::BTreeMap;

mod lives;

const LINE: usize = 64;

/// Bytes in a buffer of these tests: two lines.
const LEN: usize = 2 * LINE;

#[derive(Clone, Copy)]
struct Line {
    bytes: [u8; LINE],
    dirty: bool,
}

/// Memory as the device sees it, by line, and what the cache has of it.
#[derive(Default)]
struct Machine {
    memory: BTreeMap<usize, [u8; LINE]>,
    cache: BTreeMap<usize, Line>,
}

impl Machine {
    fn line(&mut self, at: usize) -> &mut Line {
        let base = at / LINE * LINE;
        let memory = self.memory.entry(base).or_insert([0; LINE]);
        self.cache.entry(base).or_insert(Line {
            bytes: *memory,
            dirty: false,
        })
    }

    fn store(&mut self, at: usize, byte: u8) {
        let line = self.line(at);
        line.bytes[at % LINE] = byte;
        line.dirty = true;
    }

    fn load(&mut self, at: usize) -> u8 {
        self.line(at).bytes[at % LINE]
    }

    fn device_reads(&self, at: usize) -> u8 {
        let line = self.memory.get(&(at / LINE * LINE));
        line.map_or(0, |line| line[at % LINE])
    }

    fn device_writes(&mut self, at: usize, byte: u8) {
        let line = self.memory.entry(at / LINE * LINE).or_insert([0; LINE]);
        line[at % LINE] = byte;
    }

    /// Writes a dirty line back, as a clean does, and an eviction at any time.
    fn clean(&mut self, at: usize) {
        if let Some(line) = self.cache.get_mut(&at).filter(|line| line.dirty) {
            line.dirty = false;
            self.memory.insert(at, line.bytes);
        }
    }

    fn apply(&mut self, ops: &[Op]) {
        for op in ops {
            match *op {
                Op::Copy { from, to, len } => {
                    for at in 0..len {
                        let byte = self.load(from.get() + at);
                        self.store(to.get() + at, byte);
                    }
                }
                Op::Clean(va) => self.clean(va.get()),
                Op::CleanInvalidate(va) => {
                    self.clean(va.get());
                    self.cache.remove(&va.get());
                }
                Op::Invalidate(va) => {
                    self.cache.remove(&va.get());
                }
                _ => {}
            }
        }
    }
}

/// What went wrong in one exchange.
#[derive(Debug, PartialEq, Eq)]
enum Wrong {
    /// The device read something else than the CPU stored.
    ReadByDevice,
    /// The CPU loaded something else than the device wrote.
    ReadByCpu,
    /// What the device did not write is not what the CPU stored.
    Kept,
}

fn wide() -> &'static Device {
    fake("master", DmaMask::new::<64>(), [0, 0, 1 << 40])
}

fn old(at: usize) -> u8 {
    (at % 251) as u8
}

fn new(at: usize) -> u8 {
    !old(at)
}

/// Maps and unmaps a buffer that the CPU filled, and lets the device read all of it and write the
/// first `written` bytes. `forget` says which operations never happen.
fn exchange<D: Direction>(written: usize, forget: impl Fn(&Op) -> bool) -> Result<(), Wrong> {
    let ram = host::ram(LEN as u64, 4096);
    let va = layout::phys_to_virt(ram.start);
    // SAFETY: the RAM was just handed out to this test alone.
    let buffer = unsafe { core::slice::from_raw_parts_mut(va.as_ptr(), LEN) };
    let bytes = va.get()..va.get() + LEN;
    let mut machine = Machine::default();
    bytes.clone().for_each(|at| machine.store(at, old(at)));

    let remembered =
        |ops: Vec<Op>| -> Vec<Op> { ops.into_iter().filter(|op| !forget(op)).collect() };
    let (mapping, map) = record_during(|| map_slice::<D>(wide(), buffer).unwrap());
    machine.apply(&remembered(map));
    let seen = bytes.clone().all(|at| machine.device_reads(at) == old(at));
    for at in bytes.clone().take(written) {
        // The core may fetch what it pleases at any time.
        machine.load(at);
        machine.device_writes(at, new(at));
    }
    let ((), unmap) = record_during(|| mapping.unmap());
    machine.apply(&remembered(unmap));

    if !seen && D::KIND.device_reads() {
        return Err(Wrong::ReadByDevice);
    }
    // Whatever is still dirty is written back some day.
    let dirty: Vec<usize> = machine.cache.keys().copied().collect();
    for at in bytes.clone() {
        let expected = match at - bytes.start < written {
            true => (new(at), Wrong::ReadByCpu),
            false => (old(at), Wrong::Kept),
        };
        if machine.load(at) != expected.0 {
            return Err(expected.1);
        }
    }
    dirty.into_iter().for_each(|at| machine.clean(at));
    match bytes
        .clone()
        .take(written)
        .all(|at| machine.device_reads(at) == new(at))
    {
        true => Ok(()),
        false => Err(Wrong::ReadByCpu),
    }
}

#[test]
fn every_direction_is_right_with_its_maintenance() {
    let nothing = |_: &Op| false;
    assert_eq!(exchange::<ToDevice>(0, nothing), Ok(()));
    for written in [0, LINE, LEN] {
        assert_eq!(exchange::<FromDevice>(written, nothing), Ok(()));
        assert_eq!(exchange::<Bidirectional>(written, nothing), Ok(()));
    }
}

#[test]
fn every_forgotten_operation_shows() {
    let clean = |op: &Op| matches!(op, Op::Clean(_));
    let invalidate = |op: &Op| matches!(op, Op::Invalidate(_));
    assert_eq!(exchange::<ToDevice>(0, clean), Err(Wrong::ReadByDevice));
    assert_eq!(
        exchange::<Bidirectional>(LEN, clean),
        Err(Wrong::ReadByDevice)
    );
    // The device wrote less than announced: the line is dropped with what the CPU stored.
    assert_eq!(exchange::<FromDevice>(0, clean), Err(Wrong::Kept));
    for written in [LINE, LEN] {
        assert_eq!(
            exchange::<FromDevice>(written, invalidate),
            Err(Wrong::ReadByCpu)
        );
        assert_eq!(
            exchange::<Bidirectional>(written, invalidate),
            Err(Wrong::ReadByCpu)
        );
    }
    // A single line is enough.
    for index in 0..LEN / LINE {
        let one = |wanted: fn(&Op) -> Option<VirtAddr>| {
            move |op: &Op| wanted(op).is_some_and(|va| va.page_offset() == index * LINE)
        };
        let cleaned = one(|op| match op {
            Op::Clean(va) => Some(*va),
            _ => None,
        });
        assert_eq!(exchange::<ToDevice>(0, cleaned), Err(Wrong::ReadByDevice));
        let invalidated = one(|op| match op {
            Op::Invalidate(va) => Some(*va),
            _ => None,
        });
        assert_eq!(
            exchange::<FromDevice>(LEN, invalidated),
            Err(Wrong::ReadByCpu)
        );
    }
}

/// What lies in the lines of an odd buffer is its neighbours'. Neither what they store meanwhile nor
/// what the device writes is lost: the device works on slots.
#[test]
fn neighbours_in_a_shared_line_lose_nothing() {
    let ram = host::ram(4096, 4096);
    let page = layout::phys_to_virt(ram.start);
    let (offset, len) = (40, 100);
    // SAFETY: the RAM was just handed out to this test alone.
    let buffer = unsafe { core::slice::from_raw_parts_mut((page + offset).as_ptr(), len) };
    buffer.fill(1);
    let mapping = map_slice::<FromDevice>(wide(), buffer).unwrap();
    assert!(mapping.is_bounced());
    let shown = mapping.dma_segment();
    // The device's view of the slots, at the addresses it was given.
    let slots = layout::phys_to_virt(wide().phys_addr(shown.addr, shown.len).unwrap());
    // SAFETY: both neighbours are this test's; the slots are the mapping's, and no device is there.
    unsafe {
        (page + (offset - 1)).as_ptr::<u8>().write(7);
        (page + (offset + len)).as_ptr::<u8>().write(8);
        slots.as_ptr::<u8>().write_bytes(9, len - 1);
    }
    let ((), ops) = record_during(|| mapping.unmap());
    let is_slot = |va: VirtAddr| (slots.get()..slots.get() + bounce::SLOT_SIZE).contains(&va.get());
    assert!(ops.iter().all(|op| match op {
        Op::Invalidate(va) => is_slot(*va),
        Op::Clean(_) | Op::CleanInvalidate(_) => false,
        _ => true,
    }));
    // SAFETY: as above.
    let bytes =
        unsafe { core::slice::from_raw_parts((page + (offset - 1)).as_ptr::<u8>(), len + 2) };
    assert_eq!((bytes[0], bytes[len + 1]), (7, 8));
    assert!(bytes[1..len].iter().all(|&byte| byte == 9));
    assert_eq!(bytes[len], 1, "what the device did not write stays");
}
