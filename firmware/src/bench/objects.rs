//! `kmalloc` and slab caches.

use super::meter::Meter;
use super::shape::{Calls, Half, Measured, REPETITIONS, Sample, failed, pairs, repeat};
use crate::machine::machine;
use crate::memory::array::Array;
use crate::memory::bulk::Bulk;
use crate::memory::slot::Slot;
use crate::random::Random;
use crate::report::{Stop, failed as stop};
use hal::arch::pmu::opaque;
use hal::mm::{AllocError, Gfp, KmemCache};

/// Pairs in a repetition.
const PAIRS: u32 = 20_000;

/// Objects in a batch, and batches in a repetition.
const BATCH: usize = 256;
const BATCHES: u64 = 40;

/// Objects that are freed in random order.
const CROWD: usize = 8192;

/// Slots of the mix, and calls in a repetition.
const MIX_SLOTS: usize = 512;
const MIX_CALLS: usize = 32_768;

/// The cache that objects are taken from many at a time.
static BULK_CACHE: KmemCache = match KmemCache::new("bench_bulk", 192, 64) {
    Ok(cache) => cache,
    Err(_) => panic!("no slab holds the objects"),
};

/// Streams of random numbers.
const ORDER_STREAM: u64 = 0xB0;
const MIX_STREAM: u64 = 0xB1;

/// One object allocated and freed again, its size known to the compiler.
pub(super) fn pair_const<const SIZE: usize>(meter: &Meter, _size: usize) -> Measured {
    let pair = move || {
        let mut slot = Slot::EMPTY;
        slot.fill(SIZE, Gfp::KERNEL)?;
        slot.clear();
        Ok::<_, AllocError>(())
    };
    pairs(meter, PAIRS, pair, || ())
}

/// One object allocated and freed again, its size a variable.
pub(super) fn pair_var(meter: &Meter, size: usize) -> Measured {
    let pair = move || {
        let mut slot = Slot::EMPTY;
        slot.fill(opaque(size), Gfp::KERNEL)?;
        slot.clear();
        Ok::<_, AllocError>(())
    };
    pairs(meter, PAIRS, pair, || ())
}

/// The allocations of [`batch`].
pub(super) fn batch_alloc(meter: &Meter, size: usize) -> Measured {
    batch(meter, size, Half::Alloc)
}

/// The frees of [`batch`].
pub(super) fn batch_free(meter: &Meter, size: usize) -> Measured {
    batch(meter, size, Half::Free)
}

/// A batch allocated, then freed in the order of allocation.
fn batch(meter: &Meter, size: usize, half: Half) -> Measured {
    let mut slots = [const { Slot::EMPTY }; BATCH];
    let total = repeat(|| {
        let mut total = 0;
        for _ in 0..BATCHES {
            let start = meter.read();
            for slot in &mut slots {
                slot.fill(opaque(size), Gfp::KERNEL).map_err(failed)?;
            }
            let allocated = meter.since(start);
            let start = meter.read();
            for slot in &mut slots {
                slot.clear();
            }
            let freed = meter.since(start);
            total += match half {
                Half::Alloc => allocated,
                Half::Free => freed,
            };
        }
        Ok(total)
    })?;
    Ok(Sample::mean(total, REPETITIONS * BATCHES * BATCH as u64))
}

/// A call of the mix: which slot, and the size if the slot is empty.
#[derive(Clone, Copy, Debug, Default)]
struct Call {
    slot: u16,
    size: u16,
}

/// Calls drawn beforehand: each frees the object of a random slot, or allocates one of
/// 1 to `largest` bytes if there is none.
pub(super) fn mix(meter: &Meter, largest: usize) -> Measured {
    let mut random = Random::new(machine().seed, MIX_STREAM);
    let mut calls = Array::<Call>::new(MIX_CALLS).map_err(failed)?;
    for call in calls.iter_mut() {
        *call = Call {
            slot: random.below(MIX_SLOTS) as u16,
            size: 1 + random.below(largest) as u16,
        };
    }
    let mut slots = [const { Slot::EMPTY }; MIX_SLOTS];
    let total = repeat(|| {
        let start = meter.read();
        for call in calls.iter() {
            let slot = &mut slots[usize::from(call.slot) % MIX_SLOTS];
            if slot.is_empty() {
                slot.fill(call.size.into(), Gfp::KERNEL).map_err(failed)?;
            } else {
                slot.clear();
            }
        }
        Ok(meter.since(start))
    })?;
    Ok(Sample::mean(total, REPETITIONS * MIX_CALLS as u64))
}

/// The allocations of [`random_free`].
pub(super) fn random_free_alloc(meter: &Meter, size: usize) -> Measured {
    random_free(meter, size, Half::Alloc)
}

/// The frees of [`random_free`].
pub(super) fn random_free_free(meter: &Meter, size: usize) -> Measured {
    random_free(meter, size, Half::Free)
}

/// More objects than any list keeps at hand, freed in an order that has nothing to do with that of
/// their allocation.
fn random_free(meter: &Meter, size: usize, half: Half) -> Measured {
    let order = random_order(CROWD)?;
    let mut slots = Array::<Slot>::new(CROWD).map_err(failed)?;
    let total = repeat(|| {
        let start = meter.read();
        for slot in slots.iter_mut() {
            slot.fill(opaque(size), Gfp::KERNEL).map_err(failed)?;
        }
        let allocated = meter.since(start);
        let start = meter.read();
        for &index in order.iter() {
            if let Some(slot) = slots.get_mut(usize::from(index)) {
                slot.clear();
            }
        }
        let freed = meter.since(start);
        Ok(match half {
            Half::Alloc => allocated,
            Half::Free => freed,
        })
    })?;
    Ok(Sample::mean(total, REPETITIONS * CROWD as u64))
}

/// The numbers below `count` in random order, the same in every run with one seed.
pub(super) fn random_order(count: usize) -> Result<Array<u16>, Stop> {
    if count > usize::from(u16::MAX) {
        return stop(format_args!("{count} numbers do not fit"));
    }
    let mut random = Random::new(machine().seed, ORDER_STREAM);
    let mut order = Array::new(count).map_err(failed)?;
    for (number, place) in (0..).zip(order.iter_mut()) {
        *place = number;
    }
    // Fisher and Yates.
    for last in (1..count).rev() {
        order.swap(last, random.below(last + 1));
    }
    Ok(order)
}

/// Objects of a named cache allocated and freed many at a time.
pub(super) fn cache_bulk(meter: &Meter, _size: usize) -> Measured {
    let mut batch = Bulk::<BATCH>::new(&BULK_CACHE);
    let total = repeat(|| {
        let start = meter.read();
        for _ in 0..BATCHES {
            batch.fill(Gfp::KERNEL).map_err(failed)?;
            // A refusal shows in the ledger.
            let _ = batch.free();
        }
        Ok(meter.since(start))
    })?;
    Ok(Sample::mean(total, REPETITIONS * BATCHES * BATCH as u64))
}

/// The allocations of [`worst`].
pub(super) fn kmalloc_worst(meter: &Meter, size: usize) -> Measured {
    worst(meter, size, Half::Alloc)
}

/// The frees of [`worst`].
pub(super) fn kfree_worst(meter: &Meter, size: usize) -> Measured {
    worst(meter, size, Half::Free)
}

/// Single calls, from the first object of a size on: the crowd is allocated, then freed in random
/// order, again and again.
fn worst(meter: &Meter, size: usize, half: Half) -> Measured {
    let order = random_order(CROWD)?;
    let mut slots = Array::<Slot>::new(CROWD).map_err(failed)?;
    let (mut allocs, mut frees) = (Calls::new(meter), Calls::new(meter));
    for _ in 0..REPETITIONS {
        for slot in slots.iter_mut() {
            // With IRQs masked nothing may block.
            let filled = allocs.time(|| slot.fill(opaque(size), Gfp::ATOMIC));
            filled.map_err(failed)?;
        }
        for &index in order.iter() {
            if let Some(slot) = slots.get_mut(usize::from(index)) {
                frees.time(|| slot.clear());
            }
        }
    }
    Ok(match half {
        Half::Alloc => allocs.sample(),
        Half::Free => frees.sample(),
    })
}
