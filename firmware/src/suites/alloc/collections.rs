//! Rust's own collections on the machine's memory: nothing else in the firmware uses them.
//!
//! No allocation is made to fail while a collection grows that has not asked first: it ends the machine
//! then.

extern crate alloc as rust;

use crate::failslab::genuine;
use crate::ledger::Ledger;
use crate::machine::machine;
use crate::random::Random;
use crate::report::Outcome;
use crate::{check, check_ok};
use core::fmt::Write;
use hal::addr::{PAGE_SIZE, VirtAddr};
use hal::alloc::GlobalKernelAllocator;
use hal::layout::{DIRECT_MAP, VMALLOC};
use hal::mm::{MAX_SIZE, fault};
use hal::sync::IrqLock;
use rust::boxed::Box;
use rust::collections::{BTreeMap, VecDeque};
use rust::string::String;
use rust::vec::Vec;

#[global_allocator]
static ALLOCATOR: GlobalKernelAllocator = GlobalKernelAllocator;

/// The ledger of `work`.
fn leaves_nothing(work: impl FnOnce() -> Outcome) -> Outcome {
    let before = check_ok!(Ledger::take());
    work()?;
    let difference = before.difference(&check_ok!(Ledger::take()));
    check!(difference.is_none(), "{difference:?}");
    Ok(())
}

pub(super) fn model() -> Outcome {
    let _paused = fault::pause();
    leaves_nothing(|| {
        const KEYS: usize = 512;
        let mut random = Random::new(machine().seed, 33);
        let mut map = BTreeMap::new();
        let mut model = [None; KEYS];
        for round in 0..4 * KEYS {
            let key = random.below(KEYS);
            let (old, expected) = if random.below(3) == 0 {
                (map.remove(&key), model[key].take())
            } else {
                (map.insert(key, round), model[key].replace(round))
            };
            check!(old == expected, "key {key}: {old:?}, not {expected:?}");
        }
        let all = model.iter().enumerate();
        let all = all.filter_map(|(key, value)| value.map(|value| (key, value)));
        check!(
            map.iter().map(|(k, v)| (*k, *v)).eq(all),
            "the map's content"
        );
        let mut text = String::new();
        for key in map.keys() {
            check_ok!(write!(text, "{key} "));
        }
        let words = text.split_whitespace().map(str::parse::<usize>);
        check!(words.flatten().eq(map.keys().copied()), "{text}");
        let mut queue: VecDeque<_> = map.into_values().collect();
        queue.rotate_left(5);
        let sorted = {
            let mut values: Vec<_> = queue.into();
            values.sort_unstable();
            values
        };
        check!(sorted.is_sorted(), "{sorted:?}");
        Ok(())
    })
}

pub(super) fn large() -> Outcome {
    let _paused = fault::pause();
    leaves_nothing(|| {
        const WORDS: usize = 2 * MAX_SIZE / size_of::<usize>();
        let mut words = Vec::new();
        words.push(0);
        let first = VirtAddr::from_ptr(words.as_ptr());
        check!(DIRECT_MAP.contains(first), "one word at {first}");
        words.extend(1..WORDS);
        let grown = VirtAddr::from_ptr(words.as_ptr());
        check!(VMALLOC.contains(grown), "{WORDS} words at {grown}");
        let wrong = (0..WORDS).find(|&index| words[index] != index);
        check!(wrong.is_none(), "element {wrong:?} was lost on the way");
        // Under a lock there is no way into the window, and no need for it.
        let lock = IrqLock::new(());
        let held = lock.lock();
        let small = Vec::<u8>::with_capacity(PAGE_SIZE);
        let mut refused = Vec::<u8>::new();
        let refused = refused.try_reserve_exact(2 * MAX_SIZE);
        drop(words);
        drop(held);
        check!(
            DIRECT_MAP.contains(VirtAddr::from_ptr(small.as_ptr())),
            "{:p}",
            small.as_ptr()
        );
        check!(refused.is_err(), "more than kmalloc gives, under a lock");
        Ok(())
    })
}

pub(super) fn alignment() -> Outcome {
    let _paused = fault::pause();
    #[repr(align(128))]
    struct Lines(u8);
    #[repr(align(4096))]
    struct Page {
        _byte: u8,
    }
    #[repr(align(65536))]
    struct Chunk {
        _byte: u8,
    }
    #[repr(align(2097152))]
    struct Block {
        _byte: u8,
    }
    fn is_aligned<T>() -> bool {
        let vec = Vec::<T>::with_capacity(1);
        vec.as_ptr().is_aligned()
    }
    leaves_nothing(|| {
        let lines: Vec<_> = (0..20).map(|n| Box::new(Lines(n))).collect();
        let stray = lines
            .iter()
            .find(|lines| !(&raw const ***lines).is_aligned());
        check!(stray.is_none(), "a box not aligned to 128 bytes");
        check!(lines.iter().map(|lines| lines.0).eq(0..20), "boxes overlap");
        check!(is_aligned::<Page>(), "a page");
        check!(is_aligned::<Chunk>(), "64 KiB");
        check!(is_aligned::<Block>(), "2 MiB");
        Ok(())
    })
}

pub(super) fn zeroed() -> Outcome {
    let _paused = fault::pause();
    leaves_nothing(|| {
        for len in [1, 100, 3 * PAGE_SIZE, 2 * MAX_SIZE] {
            drop(rust::vec![0xA5u8; len]);
            let zeroed = rust::vec![0u8; len];
            let set = zeroed.iter().position(|byte| *byte != 0);
            check!(set.is_none(), "{len} bytes: byte {set:?} is not zero");
        }
        Ok(())
    })
}

pub(super) fn refused() -> Outcome {
    leaves_nothing(|| {
        let mut bytes = Vec::<u8>::new();
        // Room for an object, a block of pages, an area.
        for size in [100, 3 * PAGE_SIZE, 2 * MAX_SIZE] {
            let room = genuine(|| bytes.try_reserve_exact(size))?;
            check!(room.is_ok() && bytes.capacity() >= size, "{room:?}");
        }
        bytes.extend_from_slice(b"kept");
        let too_much = bytes.try_reserve_exact(isize::MAX as usize - 5);
        check!(too_much.is_err(), "{} bytes", bytes.capacity());
        check!(bytes == b"kept", "{bytes:?}");
        Ok(())
    })
}
