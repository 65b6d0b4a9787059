//! Memory that core and device use together.

use super::{Visit, check};
use hal::addr::{DmaAddr, PAGE_SIZE, PhysRange};
use hal::arch::barrier;
use hal::dma::coherent::Field;
use hal::dma::ring::{Descriptor, Owner};
use hal::dma::{Coherent, CoherentPool, Completion, Ring, engine};
use hal::layout;
use hal::testkit::{Machine, Master, Wrong, bytes_of};
use zerocopy::{FromBytes, Immutable, IntoBytes};

/// Bytes that are looked at.
const LEN: usize = 64;

const REFUSED: Wrong = Wrong("the pool refused");

pub(crate) fn for_each(visit: Visit<'_>) {
    let machine = Machine::new();
    let master = machine.master();
    let frames = machine.uncached_pages(1);
    visit("lines of a loader", &machine, &mut |machine| {
        loader(machine, &master, frames)
    });

    let machine = Machine::new();
    let master = machine.master();
    let pool = pool(machine.uncached_pages(2));
    // What a pool does once is done.
    let [mut from, mut to] = [(); 2].map(|()| page(pool, &master).unwrap());
    visit("copy, polled", &machine, &mut |_| {
        copy(&master, &mut from, &mut to, Completion::Polled)
    });
    visit("copy, by interrupt", &machine, &mut |_| {
        copy(&master, &mut from, &mut to, Completion::Interrupt)
    });
    drop((from, to));
    visit("zeros", &machine, &mut |_| zeros(&master, pool));
    visit("ring", &machine, &mut |machine| {
        with_ring(&master, pool, |it| ring(machine, &master, it))
    });
    visit("ring of a stopped device", &machine, &mut |machine| {
        with_ring(&master, pool, |it| reclaimed(machine, &master, it))
    });
}

/// A pool of `frames`, none of which was ever used.
pub(crate) fn pool(frames: PhysRange) -> &'static CoherentPool {
    let cpu = layout::phys_to_virt(frames.start);
    // SAFETY: the frames are this program's, and the pool of its last run is not used any more.
    let pool = unsafe { CoherentPool::new(frames, cpu) };
    Box::leak(Box::new(pool.unwrap()))
}

fn page(pool: &'static CoherentPool, master: &Master) -> Result<Coherent, Wrong> {
    pool.alloc(master.device(), PAGE_SIZE).map_err(|_| REFUSED)
}

/// A device that is told of new memory finds zeros there.
fn zeros(master: &Master, pool: &'static CoherentPool) -> Result<(), Wrong> {
    let memory = page(pool, master)?;
    for offset in [0, PAGE_SIZE / 2, PAGE_SIZE - LEN] {
        let mut segment = engine::Source::segment(&memory.part(offset, LEN).unwrap(), 0).unwrap();
        segment.len = LEN;
        master.start_read(segment);
    }
    let read = master.finish();
    check(
        read.iter().all(|byte| *byte == 0),
        "the device read what was there before",
    )
}

/// What a loader left in the cache disturbs neither side.
fn loader(machine: &Machine, master: &Master, frames: PhysRange) -> Result<(), Wrong> {
    machine.leave_lines(frames);
    let mut memory = page(pool(frames), master)?;
    memory.as_mut_slice().fill(7);
    barrier::dmb_oshst();
    master.ring_doorbell();
    for offset in (0..PAGE_SIZE).step_by(LEN) {
        master.write(memory.dma_addr() + offset, &bytes_of(offset as u64, 8));
    }
    machine.pass();
    machine.settle();
    for (offset, line) in (0..).step_by(LEN).zip(memory.as_slice().chunks(LEN)) {
        check(
            line[..8] == bytes_of(offset, 8),
            "the core read a line of the loader",
        )?;
        check(
            line[8..] == [7; LEN - 8],
            "a line of the loader overwrote the core's",
        )?;
    }
    Ok(())
}

/// An engine copies what the core stored last, and the core reads the copy.
fn copy(
    master: &Master,
    from: &mut Coherent,
    to: &mut Coherent,
    by: Completion,
) -> Result<(), Wrong> {
    for round in 1..3 {
        from.as_mut_slice()[..LEN].copy_from_slice(&bytes_of(round, LEN));
        let src = from.part(0, LEN).unwrap();
        let mut dst = to.part_mut(0, LEN).unwrap();
        engine::copy_with(master, &src, &mut dst, by).map_err(|_| Wrong("the copy failed"))?;
        let copied = to.as_slice()[..LEN] == bytes_of(round, LEN);
        check(copied, "the copy is not what was stored")?;
    }
    Ok(())
}

/// What core and device hand to each other.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable)]
#[repr(C)]
struct Packet {
    argument: u64,
    answer: u32,
    status: u32,
    rest: [u8; PAGE_SIZE / SLOTS - 16],
}

/// Packets in a ring of one page: few, so that a program can give all of them.
const SLOTS: usize = 4;

const OWN: u32 = 1 << 31;
const ARGUMENT: Field<Packet, u64> = hal::dma_field!(Packet, argument);
const ANSWER: Field<Packet, u32> = hal::dma_field!(Packet, answer);

const STATUS: Field<Packet, u32> = hal::dma_field!(Packet, status);

impl Descriptor for Packet {
    const OWNER: Owner<Self> = Owner::new(STATUS, 31);
}

/// What the core asks.
fn argument_of(packet: u64) -> u64 {
    packet << 32 | packet
}

/// What the device answers.
fn answer(argument: u64) -> u32 {
    argument as u32 ^ 0x5A5A_5A5A
}

/// Packets that are out at once.
const DEPTH: u64 = 3;

/// Looks until time is up and stores must have arrived.
const PATIENCE: usize = 8;

/// Serves packet number `packet` of a ring at `first` once it is the device's.
fn serve(machine: &Machine, master: &Master, first: DmaAddr, packet: u64) -> Result<(), Wrong> {
    let addr = first + (packet as usize - 1) * size_of::<Packet>();
    let owner = addr + STATUS.offset();
    let word = || u32::from_le_bytes(master.read(owner));
    let sees = |_: &usize| {
        machine.pass();
        word() & OWN != 0
    };
    if (0..PATIENCE).find(sees).is_none() {
        machine.settle();
    }
    check(word() & OWN != 0, "a packet never arrived")?;
    let argument = u64::from_le_bytes(master.read(addr + ARGUMENT.offset()));
    check(
        argument == argument_of(packet),
        "the device read an old argument",
    )?;
    master.write(addr + ANSWER.offset(), &answer(argument).to_le_bytes());
    master.write(owner, &(word() & !OWN).to_le_bytes());
    Ok(())
}

/// Runs `program` with a ring of `pool` that no device knows.
fn with_ring(
    master: &Master,
    pool: &'static CoherentPool,
    program: impl FnOnce(&mut Ring<Packet>) -> Result<(), Wrong>,
) -> Result<(), Wrong> {
    let memory = page(pool, master)?;
    let mut ring = Ring::of(Coherent::from_bytes(memory));
    let result = program(&mut ring);
    if result.is_err() {
        // Its memory would be kept for a device that may use it, and missed by the next run.
        // SAFETY: the program is over.
        unsafe { ring.reclaim() };
    }
    result
}

/// Hands the next slot over, with an argument for `packet`.
fn give(ring: &mut Ring<Packet>, packet: u64) -> Result<(), Wrong> {
    let mut slot = ring.next().ok_or(Wrong("the ring is full"))?;
    let stored = slot.write(ARGUMENT, argument_of(packet));
    stored.map_err(|_| Wrong("a field was refused"))?;
    slot.give(0);
    Ok(())
}

/// Each packet is answered once, and the answer is read.
fn ring(machine: &Machine, master: &Master, ring: &mut Ring<Packet>) -> Result<(), Wrong> {
    // From here on the device looks at the ring.
    master.ring_doorbell();
    let first = ring.dma_addr();
    for packet in 1..=DEPTH {
        give(ring, packet)?;
    }
    for packet in 1..=DEPTH {
        serve(machine, master, first, packet)?;
        let mut take = || ring.complete().map(|done| done.read(ANSWER));
        let early = (0..PATIENCE).find_map(|_| {
            machine.pass();
            take()
        });
        let got = early.or_else(|| {
            machine.settle();
            take()
        });
        check(got.is_some(), "an answer never arrived")?;
        check(
            got == Some(answer(argument_of(packet))),
            "an answer is wrong",
        )?;
    }
    Ok(())
}

/// A device is stopped that has answered; what it answered is read when its slot is the core's again.
fn reclaimed(machine: &Machine, master: &Master, ring: &mut Ring<Packet>) -> Result<(), Wrong> {
    master.ring_doorbell();
    let first = ring.dma_addr();
    // As many as there are: the slot after the last is the first.
    for packet in 1..=SLOTS as u64 {
        give(ring, packet)?;
    }
    for packet in 1..=SLOTS as u64 {
        serve(machine, master, first, packet)?;
    }
    machine.pass();
    // SAFETY: the device does nothing any more.
    unsafe { ring.reclaim() };
    let slot = ring.next().ok_or(Wrong("a slot is not the core's"))?;
    check(
        slot.read(ANSWER) == answer(argument_of(1)),
        "an answer is wrong",
    )
}
