use super::*;
use crate::addr::PAGE_SIZE;
use crate::arch::trace::{Op, record_during};
use crate::dma::DmaMask;
use crate::dma::coherent::CoherentPool;
use crate::dma::device::fake;
use crate::layout::{self, host};
use std::sync::atomic::{AtomicU32, Ordering};
use zerocopy::{FromBytes, Immutable, IntoBytes};

#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable)]
#[repr(C)]
struct Packet {
    argument: u64,
    answer: u32,
    status: u32,
}

const OWN: u32 = 1 << 31;
const ARGUMENT: Field<Packet, u64> = crate::dma_field!(Packet, argument);
const ANSWER: Field<Packet, u32> = crate::dma_field!(Packet, answer);

const STATUS: Field<Packet, u32> = crate::dma_field!(Packet, status);

impl Descriptor for Packet {
    const OWNER: Owner<Self> = Owner::new(STATUS, 31);
}

/// A ring that fills `pages` pages.
fn ring(pages: u64) -> (Ring<Packet>, &'static CoherentPool) {
    let (memory, pool) = memory(pages);
    (Ring::of(memory), pool)
}

/// The memory of such a ring.
fn memory(pages: u64) -> (Coherent<[Packet]>, &'static CoherentPool) {
    let frames = host::ram(pages * PAGE_SIZE as u64, 4 << 20);
    // SAFETY: the RAM was just handed out to this call alone; the host has no memory types.
    let pool = unsafe { CoherentPool::new(frames, layout::phys_to_virt(frames.start)) }.unwrap();
    let pool: &CoherentPool = Box::leak(Box::new(pool));
    let device = fake("ring", DmaMask::new::<48>(), [0, 0, 1 << 40]);
    let memory = pool.alloc(device, pages as usize * PAGE_SIZE).unwrap();
    (Coherent::from_bytes(memory), pool)
}

/// What plays the device: it reads arguments, writes answers, and gives slots back.
struct Model {
    base: usize,
    len: usize,
    at: usize,
}

impl Model {
    fn of(ring: &Ring<Packet>) -> Self {
        Self {
            base: ring.memory.as_ptr().as_ptr().expose_provenance(),
            len: ring.len(),
            at: 0,
        }
    }

    fn field<T>(&self, offset: usize) -> *mut T {
        let address = self.base + self.at * size_of::<Packet>() + offset;
        std::ptr::with_exposed_provenance_mut(address)
    }

    /// Serves one slot if it is the device's.
    fn serve(&mut self) -> bool {
        // SAFETY: the ring outlives its model; the word is accessed by atomics here and by single
        // volatile accesses there.
        let word = unsafe { AtomicU32::from_ptr(self.field(STATUS.offset())) };
        let status = word.load(Ordering::Acquire);
        if status & OWN == 0 {
            return false;
        }
        // SAFETY: the slot is the device's.
        unsafe {
            let argument = self.field::<u64>(ARGUMENT.offset()).read_volatile();
            let answer = argument as u32 ^ 0x5A5A_5A5A;
            self.field::<u32>(ANSWER.offset()).write_volatile(answer);
        }
        word.store(status & !OWN, Ordering::Release);
        self.at = (self.at + 1) % self.len;
        true
    }
}

#[test]
fn the_barriers_stand_between_the_word_and_the_fields() {
    let (mut ring, _) = ring(1);
    let mut model = Model::of(&ring);
    let (index, ops) = record_during(|| {
        let mut slot = ring.next().unwrap();
        slot.write(ARGUMENT, 7).unwrap();
        slot.index()
    });
    assert_eq!((index, ops), (0, vec![]));
    assert!(!model.serve(), "filled is not handed over");
    let ((), ops) = record_during(|| ring.next().unwrap().give(5));
    assert_eq!(ops, [Op::DmbOshst]);
    let (pending, ops) = record_during(|| ring.complete().is_none());
    assert!(
        pending && ops.is_empty(),
        "no field is read of what is not ours"
    );
    assert!(model.serve());
    let ((answer, word), ops) = record_during(|| {
        let done = ring.complete().unwrap();
        (done.read(ANSWER), done.word())
    });
    assert_eq!((answer, word), (7 ^ 0x5A5A_5A5A, 5));
    assert_eq!(ops, [Op::DmbOshld]);
    assert!(ring.complete().is_none() && ring.given() == 0);
}

#[test]
fn the_word_is_stored_by_the_hand_over_only() {
    let (mut ring, _) = ring(1);
    let mut slot = ring.next().unwrap();
    assert_eq!(slot.write(STATUS, OWN), Err(OwnerWord(12)));
    let wide: Field<Packet, u64> = Field::new(8, |packet| &packet.argument);
    assert_eq!(slot.write(wide, u64::MAX), Err(OwnerWord(8)));
    assert_eq!(slot.read(STATUS), 0);
}

#[test]
fn a_full_ring_has_no_slot_and_wraps_around() {
    let (mut ring, _) = ring(1);
    let mut model = Model::of(&ring);
    for round in 0..3_u64 {
        for index in 0..256 {
            let mut slot = ring.next().unwrap();
            assert_eq!(slot.index(), index);
            slot.write(ARGUMENT, round << 8 | index as u64).unwrap();
            slot.give(0);
        }
        assert!(ring.next().is_none());
        for index in 0..256 {
            assert!(model.serve());
            let done = ring.complete().unwrap();
            let expected = (round << 8 | index as u64) as u32 ^ 0x5A5A_5A5A;
            assert_eq!((done.index(), done.read(ANSWER)), (index, expected));
        }
    }
}

#[test]
fn a_device_beside_the_cpu_answers_all() {
    const PACKETS: u64 = if cfg!(miri) { 500 } else { 50_000 };
    let (mut ring, _) = ring(1);
    let mut model = Model::of(&ring);
    std::thread::scope(|scope| {
        scope.spawn(move || {
            let mut served = 0;
            while served < PACKETS {
                if model.serve() {
                    served += 1;
                } else {
                    std::thread::yield_now();
                }
            }
        });
        let (mut sent, mut answered) = (0, 0);
        while answered < PACKETS {
            if sent < PACKETS
                && let Some(mut slot) = ring.next()
            {
                slot.write(ARGUMENT, sent).unwrap();
                slot.give(0);
                sent += 1;
            }
            if let Some(done) = ring.complete() {
                assert_eq!(done.read(ANSWER), answered as u32 ^ 0x5A5A_5A5A);
                answered += 1;
            } else {
                std::thread::yield_now();
            }
        }
    });
}

#[test]
fn memory_the_device_may_write_is_kept() {
    let (mut ring, pool) = ring(1);
    ring.next().unwrap().give(0);
    drop(ring);
    assert_eq!(pool.free_pages(), 0, "the device may still write there");

    let (mut stopped, pool) = self::ring(1);
    stopped.next().unwrap().give(0);
    // SAFETY: there is no device.
    unsafe { stopped.reclaim() };
    assert_eq!(stopped.next().unwrap().index(), 1);
    drop(stopped);
    assert_eq!(pool.free_pages(), 1);
}

/// What a device finds in each slot of a ring that nobody gave it.
fn served(ring: &Ring<Packet>) -> usize {
    let mut model = Model::of(ring);
    (0..ring.len())
        .filter(|&at| {
            model.at = at;
            model.serve()
        })
        .count()
}

#[test]
fn a_ring_of_used_memory_starts_as_the_cpus() {
    let (mut memory, _) = memory(1);
    let left = Packet {
        argument: 1,
        answer: 2,
        status: u32::MAX,
    };
    memory.as_mut_slice().fill(left);
    let mut ring = Ring::of(memory);
    assert_eq!(served(&ring), 0, "a word of an earlier life");
    let slot = ring.next().unwrap();
    assert_eq!((slot.index(), slot.read(STATUS)), (0, 0));
    assert_eq!(slot.read(ARGUMENT), 1, "the rest is left as it was");
}

#[test]
fn a_reclaimed_ring_starts_as_the_cpus() {
    let (mut ring, _) = ring(1);
    let mut model = Model::of(&ring);
    for _ in 0..5 {
        ring.next().unwrap().give(7);
    }
    assert!(model.serve());
    assert_eq!(ring.complete().map(|done| done.index()), Some(0));
    // SAFETY: there is no device.
    unsafe { ring.reclaim() };
    assert_eq!(served(&ring), 0, "a word of before the stop");
    assert!(ring.complete().is_none());
    // The whole ring can be given again, from where it was.
    for index in 0..ring.len() {
        let slot = ring.next().unwrap();
        assert_eq!(slot.index(), (5 + index) % 256);
        assert_eq!(slot.read(STATUS), 0);
        slot.give(0);
    }
    assert!(ring.next().is_none());
}

#[test]
fn every_bit_says_whose_a_descriptor_is() {
    for bit in 0..u32::BITS {
        let owner = Owner::<Packet>::new(STATUS, bit);
        for word in [0, 1 << bit, !(1 << bit), u32::MAX] {
            assert!(owner.is_given(owner.given(word)), "{bit}: {word:#x}");
            assert_eq!(owner.given(word) | 1 << bit, word | 1 << bit);
        }
        assert!(!owner.is_given(0));
    }
}
