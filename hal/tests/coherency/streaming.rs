//! Buffers lent to a device and taken back.

use super::{Visit, check};
use hal::addr::PhysAddr;
use hal::dma::direction::{DeviceReads, DeviceWrites, DirectionKind};
use hal::dma::raw::{
    dma_map_single, dma_mapping_error, dma_sync_single_range_for_cpu, dma_unmap_single,
};
use hal::dma::sg::{ScatterEntry, ScatterList};
use hal::dma::streaming::map_slice;
use hal::dma::{
    Bidirectional, BusWindow, Device, Direction, DmaMask, DmaSegment, FromDevice, ToDevice,
};
use hal::testkit::{Access, Buffer, Machine, Master, Wrong, bytes_of};
use std::sync::{Mutex, PoisonError};

/// Bytes in a line.
const LINE: usize = 64;

/// Bytes in a buffer: enough lines to have a first, a last, and one between them.
const LEN: usize = 3 * LINE;

/// Bytes in a long buffer: so many lines that they are maintained many in a round, and some are left
/// over.
const LONG: usize = 34 * LINE;

/// The one bounce pool of the process, whose slots are watched by one machine at a time.
static BOUNCES: Mutex<()> = Mutex::new(());

const NOT_MAPPED: Wrong = Wrong("the buffer was refused");
const DEVICE: &str = "the device read something else than was stored";
const CORE: &str = "the core read something else than the device wrote";
const KEPT: &str = "what the device did not write is lost";

pub(crate) fn for_each(visit: Visit<'_>) {
    let machine = Machine::new();
    let master = machine.master();
    let mut buffer = machine.buffer(LEN);
    let mut other = machine.buffer(LEN);
    let mut long = machine.buffer(LONG);

    visit("map to device", &machine, &mut |_| {
        to_device::<ToDevice>(&master, &mut buffer)
    });
    visit("map from device", &machine, &mut |_| {
        from_device::<FromDevice>(&master, &mut buffer, LINE)
    });
    visit("map from, short writes", &machine, &mut |_| {
        from_device::<FromDevice>(&master, &mut buffer, 8)
    });
    visit("map both ways, short writes", &machine, &mut |_| {
        from_device::<Bidirectional>(&master, &mut buffer, 8)
    });
    visit("map both ways", &machine, &mut |_| {
        both_ways(&master, &mut buffer)
    });
    visit("long map to device", &machine, &mut |_| {
        to_device::<ToDevice>(&master, &mut long)
    });
    visit("long map from device", &machine, &mut |_| {
        from_device::<FromDevice>(&master, &mut long, LINE)
    });
    visit("syncs", &machine, &mut |_| syncs(&master, &mut buffer));
    visit("partial syncs", &machine, &mut |_| {
        partial_syncs(&master, &mut buffer)
    });
    visit("scatter to device", &machine, &mut |_| {
        scatter_to(&master, &mut buffer, &mut other)
    });
    visit("scatter from device", &machine, &mut |_| {
        scatter_from(&master, &mut buffer, &mut other)
    });
    visit("part of a line, raw", &machine, &mut |_| {
        part_of_a_line(&master, &mut buffer)
    });
    snooped(visit);
    bounced(visit);
}

/// What a device reads is what the core stored last.
fn to_device<D: DeviceReads>(master: &Master, buffer: &mut Buffer) -> Result<(), Wrong> {
    for round in 1..3 {
        buffer.fill(round);
        let mapping = map_slice::<D>(master.device(), buffer.bytes()).map_err(|_| NOT_MAPPED)?;
        master.start_read(mapping.dma_segment());
        let read = master.finish();
        mapping.unmap();
        check(read == bytes_of(round, buffer.bytes().len()), DEVICE)?;
    }
    Ok(())
}

/// The device writes the first `written` bytes of each line of a buffer.
fn write_lines(master: &Master, DmaSegment { addr, len }: DmaSegment, written: usize, seed: u64) {
    for line in (0..len).step_by(LINE) {
        master.start_write(addr + line, &bytes_of(seed, written));
    }
    master.finish();
}

/// What the core reads is what a device wrote, and besides what was there.
fn check_lines(bytes: &[u8], written: usize, seed: u64, before: u64) -> Result<(), Wrong> {
    let before = bytes_of(before, bytes.len());
    for line in (0..bytes.len()).step_by(LINE) {
        let (new, old) = (line..line + written, line + written..line + LINE);
        check(bytes[new] == bytes_of(seed, written), CORE)?;
        check(bytes[old.clone()] == before[old], KEPT)?;
    }
    Ok(())
}

fn from_device<D: DeviceWrites>(
    master: &Master,
    buffer: &mut Buffer,
    written: usize,
) -> Result<(), Wrong> {
    buffer.fill(1);
    let mapping = map_slice::<D>(master.device(), buffer.bytes()).map_err(|_| NOT_MAPPED)?;
    write_lines(master, mapping.dma_segment(), written, 2);
    mapping.unmap();
    check_lines(buffer.bytes(), written, 2, 1)
}

/// A device reads a buffer and answers in it.
fn both_ways(master: &Master, buffer: &mut Buffer) -> Result<(), Wrong> {
    buffer.fill(3);
    let device = master.device();
    let mapping = map_slice::<Bidirectional>(device, buffer.bytes()).map_err(|_| NOT_MAPPED)?;
    master.start_read(mapping.dma_segment());
    master.start_write(mapping.dma_addr(), &bytes_of(4, LEN));
    let read = master.finish();
    mapping.unmap();
    check(read == bytes_of(3, LEN), DEVICE)?;
    check(buffer.is_filled(4), CORE)
}

/// A mapping that changes hands and back, twice.
fn syncs(master: &Master, buffer: &mut Buffer) -> Result<(), Wrong> {
    buffer.fill(1);
    let device = master.device();
    let mut mapping = map_slice::<Bidirectional>(device, buffer.bytes()).map_err(|_| NOT_MAPPED)?;
    for round in 1..3 {
        master.start_write(mapping.dma_addr(), &bytes_of(2 * round, LEN));
        master.finish();
        let mut cpu = mapping.sync_for_cpu();
        check(*cpu == bytes_of(2 * round, LEN), CORE)?;
        cpu.copy_from_slice(&bytes_of(2 * round + 1, LEN));
        mapping = cpu.sync_for_device();
        master.start_read(mapping.dma_segment());
        check(master.finish() == bytes_of(2 * round + 1, LEN), DEVICE)?;
    }
    write_lines(master, mapping.dma_segment(), 8, 6);
    mapping.unmap();
    check_lines(buffer.bytes(), 8, 6, 5)
}

/// One line of a mapping changes hands while the device goes on with the others.
fn partial_syncs(master: &Master, buffer: &mut Buffer) -> Result<(), Wrong> {
    buffer.fill(1);
    let device = master.device();
    let mut mapping = map_slice::<Bidirectional>(device, buffer.bytes()).map_err(|_| NOT_MAPPED)?;
    let whole = mapping.dma_segment();
    let addr = whole.addr;
    master.start_write(addr, &bytes_of(2, LINE));
    master.finish();
    master.start_write(addr + LINE, &bytes_of(3, LINE));
    let mut part = mapping
        .sync_part_for_cpu(0..LINE)
        .map_err(|_| Wrong("a whole line was refused"))?;
    check(*part == bytes_of(2, LINE), CORE)?;
    part.copy_from_slice(&bytes_of(4, LINE));
    drop(part);
    master.start_read(mapping.dma_segment());
    let read = master.finish();
    write_lines(master, whole, LINE, 5);
    mapping.unmap();
    check(read[..LINE] == bytes_of(4, LINE), DEVICE)?;
    check(read[LINE..2 * LINE] == bytes_of(3, LINE), DEVICE)?;
    check(read[2 * LINE..] == bytes_of(1, LEN)[2 * LINE..], DEVICE)?;
    check_lines(buffer.bytes(), LINE, 5, 1)
}

fn scatter_to(master: &Master, one: &mut Buffer, two: &mut Buffer) -> Result<(), Wrong> {
    one.fill(1);
    two.fill(2);
    let mut room = [ScatterEntry::default(); 2];
    let mapping = list::<ToDevice>(master, &mut room, one, two)?;
    mapping.segments().for_each(|it| master.start_read(it));
    let read = master.finish();
    mapping.unmap();
    check(
        read == [bytes_of(1, LEN), bytes_of(2, LEN)].concat(),
        DEVICE,
    )
}

fn scatter_from(master: &Master, one: &mut Buffer, two: &mut Buffer) -> Result<(), Wrong> {
    one.fill(1);
    two.fill(2);
    let mut room = [ScatterEntry::default(); 2];
    let mapping = list::<FromDevice>(master, &mut room, one, two)?;
    for (seed, segment) in (3..).zip(mapping.segments()) {
        write_lines(master, segment, 8, seed);
    }
    mapping.unmap();
    check_lines(one.bytes(), 8, 3, 1)?;
    check_lines(two.bytes(), 8, 4, 2)
}

fn list<'a, D: Direction>(
    master: &'a Master,
    room: &'a mut [ScatterEntry],
    one: &'a mut Buffer,
    two: &'a mut Buffer,
) -> Result<hal::dma::SgMapping<'a, D>, Wrong> {
    let mut list = ScatterList::empty(room);
    list.push(one.bytes()).map_err(|_| NOT_MAPPED)?;
    list.push(two.bytes()).map_err(|_| NOT_MAPPED)?;
    list.map::<D>(master.device()).map_err(|_| NOT_MAPPED)
}

/// Bytes in the middle of lines are made the core's by the C-shaped call, which refuses nothing. The
/// device writes the lines whole, and the core stores to none of them.
fn part_of_a_line(master: &Master, buffer: &mut Buffer) -> Result<(), Wrong> {
    const PART: std::ops::Range<usize> = 40..LEN - 24;
    const DIRECTION: DirectionKind = DirectionKind::FromDevice;

    buffer.fill(1);
    let device = master.device();
    // SAFETY: the buffer is the device's until it is unmapped, but for what is synchronised.
    let addr = unsafe { dma_map_single(device, buffer.bytes().as_mut_ptr(), LEN, DIRECTION) };
    if dma_mapping_error(device, addr) {
        return Err(NOT_MAPPED);
    }
    let segment = DmaSegment { addr, len: LEN };
    write_lines(master, segment, LINE, 2);
    // SAFETY: mapped above, and the device is done.
    unsafe { dma_sync_single_range_for_cpu(device, addr, PART.start, PART.len(), DIRECTION) };
    check_lines(buffer.bytes(), LINE, 2, 1)?;
    // The core stored nothing, so there is nothing to be given back.
    write_lines(master, segment, LINE, 3);
    // SAFETY: as above.
    unsafe { dma_unmap_single(device, addr, LEN, DIRECTION) };
    check_lines(buffer.bytes(), LINE, 3, 1)
}

/// A device that snoops. Its memory is as memory past the cache is to another: nothing is to be
/// maintained, and the order of accesses is all there is.
fn snooped(visit: Visit<'_>) {
    let machine = Machine::new();
    // SAFETY: the only device told of such addresses is the master, which finds memory there.
    let window = unsafe { BusWindow::new(PhysAddr::new(0), 0, 1 << 40) };
    let windows: &[BusWindow] = Box::leak(Box::new([window.unwrap()]));
    // SAFETY: as above.
    let device = unsafe { Device::new("snooping", DmaMask::new::<40>(), windows) };
    device.set_coherent(true);
    let master = machine.master_of(Box::leak(Box::new(device)));
    let mut buffer = machine.buffer_as(LEN, Access::Uncached);
    visit("snooped, both ways", &machine, &mut |_| {
        both_ways(&master, &mut buffer)
    });
}

/// A buffer that shares its lines with neighbours, which nobody disturbs.
fn bounced(visit: Visit<'_>) {
    /// Where the buffer lies in its lines.
    const PART: std::ops::Range<usize> = 40..140;

    let _alone = BOUNCES.lock().unwrap_or_else(PoisonError::into_inner);
    let machine = Machine::new();
    machine.bounce_pool(4 * LINE);
    let master = machine.master();
    let mut lines = machine.buffer(LEN);
    visit("bounce", &machine, &mut |_| {
        lines.fill(1);
        let buffer = &mut lines.bytes()[PART];
        let mapping = map_slice::<Bidirectional>(master.device(), buffer);
        let mapping = mapping.map_err(|_| NOT_MAPPED)?;
        check(mapping.is_bounced(), "a partial line was not bounced")?;
        master.start_read(mapping.dma_segment());
        // The last bytes keep what was there.
        let written = PART.len() - 10;
        master.start_write(mapping.dma_addr(), &bytes_of(2, written));
        let read = master.finish();
        mapping.unmap();
        check(read == bytes_of(1, LEN)[PART], DEVICE)?;
        let bytes = lines.bytes();
        let end = PART.start + written;
        check(bytes[PART.start..end] == bytes_of(2, written), CORE)?;
        check(bytes[..PART.start] == bytes_of(1, LEN)[..PART.start], KEPT)?;
        check(bytes[end..] == bytes_of(1, LEN)[end..], KEPT)
    });
}
