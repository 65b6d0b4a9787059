//! Whole lives of mappings on that machine: single buffers, a part of one, lists, with bounce slots and
//! without. A life is lived once as it is, and once for each of its operations without that one, which
//! must show: none is left out, and none is made for nothing.

use super::super::super::sg::{ScatterEntry, ScatterList, SgCpuOwned, SgMapping};
use super::super::super::{DmaSegment, bounce};
use super::*;

/// A life, but for one operation that never happens.
#[derive(Default)]
struct Life {
    machine: Machine,
    /// The number of the operation that is left out.
    left_out: Option<usize>,
    /// Operations so far. Barriers are none: the machine does everything at once.
    count: usize,
    wrong: Option<Wrong>,
}

impl Life {
    /// Calls `f`, and does to the machine what it did.
    fn run<R>(&mut self, f: impl FnOnce() -> R) -> R {
        let (result, ops) = record_during(f);
        for op in ops {
            if matches!(op, Op::DsbSy | Op::DmbOshst | Op::DmbOshld) {
                continue;
            }
            if self.left_out != Some(self.count) {
                self.machine.apply(&[op]);
            }
            self.count += 1;
        }
        result
    }

    fn expect(&mut self, holds: bool, wrong: Wrong) {
        if !holds {
            self.wrong.get_or_insert(wrong);
        }
    }
}

/// Lives a life as it is; how many operations it has.
fn live_once(life: impl Fn(&mut Life)) -> usize {
    let mut whole = Life::default();
    life(&mut whole);
    assert_eq!(whole.wrong, None);
    whole.count
}

/// Lives a life as it is, and without one operation after the other.
fn live(life: impl Fn(&mut Life)) {
    let count = live_once(&life);
    assert_ne!(count, 0);
    for index in 0..count {
        let mut lacking = Life {
            left_out: Some(index),
            ..Life::default()
        };
        life(&mut lacking);
        assert!(lacking.wrong.is_some(), "operation {index} is for nothing");
    }
}

/// The bytes of a mapping: where the CPU and where the device finds each, and what it is to be.
struct Bytes {
    cpu: Vec<usize>,
    device: Vec<usize>,
    value: Vec<u8>,
}

/// What is stored to byte `at` in round `round`: another value in each.
fn value(round: u8, at: usize) -> u8 {
    (at % 61) as u8 * 4 + round
}

impl Bytes {
    /// Bytes that the CPU filled.
    fn filled(life: &mut Life, buffers: &[(usize, usize)]) -> Self {
        let all = buffers.iter().flat_map(|&(start, len)| start..start + len);
        let cpu: Vec<usize> = all.collect();
        let value: Vec<u8> = cpu.iter().map(|&at| value(0, at)).collect();
        let pairs = cpu.iter().zip(&value);
        pairs.for_each(|(&at, &value)| life.machine.store(at, value));
        let device = Vec::new();
        Self { cpu, device, value }
    }

    /// Takes note of where the device was told to look.
    fn told(&mut self, device: &Device, segments: impl IntoIterator<Item = DmaSegment>) {
        let shown = segments.into_iter().flat_map(|DmaSegment { addr, len }| {
            let pa = device.phys_addr(addr, len).unwrap();
            let start = layout::phys_to_virt(pa).get();
            start..start + len
        });
        self.device = shown.collect();
        assert_eq!(self.device.len(), self.cpu.len());
    }

    /// The device reads all of it if that is its direction, and writes half of it likewise. Before it
    /// writes a byte, the core fetches its line, which it may at any time.
    fn device_turn<D: Direction>(&mut self, life: &mut Life, round: u8) {
        for (index, &at) in self.device.iter().enumerate() {
            if D::KIND.device_reads() {
                let is_seen = life.machine.device_reads(at) == self.value[index];
                life.expect(is_seen, Wrong::ReadByDevice);
            }
        }
        let written = self.device.iter().enumerate().step_by(2);
        for (index, &at) in written.filter(|_| D::KIND.device_writes()) {
            life.machine.load(at);
            self.value[index] = value(round, self.cpu[index]);
            life.machine.device_writes(at, self.value[index]);
        }
    }

    /// The CPU loads the bytes numbered `range`.
    fn cpu_turn(&self, life: &mut Life, range: Range<usize>) {
        for index in range {
            let is_right = life.machine.load(self.cpu[index]) == self.value[index];
            let is_written = index.is_multiple_of(2);
            life.expect(
                is_right,
                if is_written {
                    Wrong::ReadByCpu
                } else {
                    Wrong::Kept
                },
            );
        }
    }

    /// The CPU stores to a quarter of the bytes numbered `range`, none of which the device writes.
    fn stored(&mut self, life: &mut Life, range: Range<usize>, round: u8) {
        for index in range.filter(|index| index % 4 == 1) {
            self.value[index] = value(round, self.cpu[index]);
            life.machine.store(self.cpu[index], self.value[index]);
        }
    }

    /// At last: as the CPU sees it, and once everything is written back.
    fn end(&self, life: &mut Life) {
        self.cpu_turn(life, 0..self.cpu.len());
        let lines: Vec<usize> = life.machine.cache.keys().copied().collect();
        lines.into_iter().for_each(|line| life.machine.clean(line));
        life.machine.cache.clear();
        self.cpu_turn(life, 0..self.cpu.len());
    }
}

/// What all mappings have.
trait Mapped: Sized {
    type Owned;
    fn segments(&self) -> Vec<DmaSegment>;
    fn take(self) -> Self::Owned;
    fn give(owned: Self::Owned) -> Self;
    fn end(self);
}

impl<'a, D: Direction> Mapped for Mapping<'a, D> {
    type Owned = CpuOwned<'a, D>;

    fn segments(&self) -> Vec<DmaSegment> {
        vec![self.dma_segment()]
    }

    fn take(self) -> Self::Owned {
        self.sync_for_cpu()
    }

    fn give(owned: Self::Owned) -> Self {
        owned.sync_for_device()
    }

    fn end(self) {
        self.unmap();
    }
}

impl<'a, D: Direction> Mapped for SgMapping<'a, D> {
    type Owned = SgCpuOwned<'a, D>;

    fn segments(&self) -> Vec<DmaSegment> {
        Self::segments(self).collect()
    }

    fn take(self) -> Self::Owned {
        self.sync_for_cpu()
    }

    fn give(owned: Self::Owned) -> Self {
        owned.sync_for_device()
    }

    fn end(self) {
        self.unmap();
    }
}

/// Mapped, used by the device, the CPU and the device again, and unmapped.
fn exchanged<D: Direction, M: Mapped>(
    life: &mut Life,
    device: &Device,
    buffers: &[(usize, usize)],
    map: impl FnOnce() -> M,
) {
    let mut bytes = Bytes::filled(life, buffers);
    let mapping = life.run(map);
    bytes.told(device, mapping.segments());
    bytes.device_turn::<D>(life, 1);
    let owned = life.run(|| mapping.take());
    let all = 0..bytes.cpu.len();
    bytes.cpu_turn(life, all.clone());
    bytes.stored(life, all, 2);
    let mapping = life.run(|| M::give(owned));
    bytes.device_turn::<D>(life, 3);
    life.run(|| mapping.end());
    bytes.end(life);
}

/// A device that sees nothing but the pool, so that everything is bounced.
fn near() -> &'static Device {
    let pool = bounce::tests::with_pool().frames();
    let reach = [pool.start.get(), 0, pool.size()];
    fake("near", DmaMask::new::<40>(), reach)
}

/// A buffer of its own, `offset` bytes into a page.
fn memory(offset: usize, len: usize) -> &'static mut [u8] {
    let start = host::ram((offset + len) as u64, 4096).start + offset;
    // SAFETY: the RAM was just handed out to this call alone.
    unsafe { core::slice::from_raw_parts_mut(layout::phys_to_virt(start).as_ptr(), len) }
}

/// Two lines, and what is more than a line of a third.
const ODD: usize = 2 * LINE + 23;

fn single<D: Direction>(device: &'static Device, offset: usize, len: usize, is_bounced: bool) {
    live(|life| {
        let buffer = memory(offset, len);
        let place = (buffer.as_ptr().addr(), len);
        exchanged::<D, _>(life, device, &[place], || {
            let mapping = map_slice::<D>(device, buffer).unwrap();
            assert_eq!(mapping.is_bounced(), is_bounced);
            mapping
        });
    });
}

#[test]
fn no_operation_of_a_single_buffer_can_be_left_out() {
    single::<ToDevice>(wide(), 0, LEN, false);
    single::<ToDevice>(wide(), 5, ODD, false);
    single::<FromDevice>(wide(), 0, LEN, false);
    single::<Bidirectional>(wide(), 0, LEN, false);
}

#[test]
fn no_operation_of_a_bounced_buffer_can_be_left_out() {
    single::<ToDevice>(near(), 5, ODD, true);
    single::<FromDevice>(near(), 0, LEN, true);
    single::<FromDevice>(wide(), 5, ODD, true);
    single::<Bidirectional>(wide(), 5, ODD, true);
}

/// One run is lent as it is and one through slots, where the device writes or does not reach.
fn listed<D: Direction>(device: &'static Device) {
    live(|life| {
        let (first, second) = (memory(0, LEN), memory(9, ODD));
        let places = [&*first, &*second].map(|bytes| (bytes.as_ptr().addr(), bytes.len()));
        let mut room = [ScatterEntry::default(); 2];
        let mut list = ScatterList::empty(&mut room);
        list.push(first).unwrap();
        list.push(second).unwrap();
        exchanged::<D, _>(life, device, &places, || list.map::<D>(device).unwrap());
    });
}

#[test]
fn no_operation_of_a_list_can_be_left_out() {
    listed::<ToDevice>(wide());
    listed::<ToDevice>(near());
    listed::<FromDevice>(wide());
    listed::<Bidirectional>(wide());
    listed::<Bidirectional>(near());
}

/// A part comes back while the device has the rest, and goes again: dropped, or forgotten.
fn parted<D: Direction>(life: &mut Life, device: &'static Device, len: usize, is_forgotten: bool) {
    let buffer = memory(0, len);
    let mut bytes = Bytes::filled(life, &[(buffer.as_ptr().addr(), len)]);
    let mut mapping = life.run(|| map_slice::<D>(device, buffer).unwrap());
    bytes.told(device, [mapping.dma_segment()]);
    bytes.device_turn::<D>(life, 1);
    let part = LINE..len;
    let taken = life.run(|| mapping.sync_part_for_cpu(part.clone()).unwrap());
    bytes.cpu_turn(life, part.clone());
    bytes.stored(life, part, 2);
    if is_forgotten {
        core::mem::forget(taken);
    } else {
        life.run(|| drop(taken));
        bytes.device_turn::<D>(life, 3);
    }
    life.run(|| mapping.unmap());
    bytes.end(life);
}

#[test]
fn no_operation_of_a_part_can_be_left_out() {
    live(|life| parted::<ToDevice>(life, wide(), ODD, false));
    live(|life| parted::<ToDevice>(life, near(), ODD, false));
    live(|life| parted::<FromDevice>(life, wide(), LEN, false));
    live(|life| parted::<FromDevice>(life, wide(), ODD, false));
    live(|life| parted::<Bidirectional>(life, wide(), LEN, false));
    live(|life| parted::<Bidirectional>(life, near(), ODD, false));
}

#[test]
fn a_part_that_is_never_given_back_keeps_what_the_cpu_stored() {
    for len in [LEN, ODD] {
        live_once(|life| parted::<FromDevice>(life, wide(), len, true));
        live_once(|life| parted::<Bidirectional>(life, wide(), len, true));
        live_once(|life| parted::<Bidirectional>(life, near(), len, true));
    }
}
