use super::*;
use crate::addr::VirtAddr;
use crate::alloc::testing::Host;
use proptest::prelude::*;
use std::cell::{Cell, RefCell};
use std::rc::Rc;

type HostVec<T> = Vec<T, Host>;

const GFP: Flags = Flags::KERNEL;

/// Notes its drop.
struct Noted<'a>(u32, &'a RefCell<std::vec::Vec<u32>>);

impl Drop for Noted<'_> {
    fn drop(&mut self) {
        self.1.borrow_mut().push(self.0);
    }
}

fn noted(notes: &RefCell<std::vec::Vec<u32>>, count: u32) -> HostVec<Noted<'_>> {
    let mut vec = HostVec::new();
    for number in 0..count {
        vec.push(Noted(number, notes), GFP).unwrap();
    }
    vec
}

#[test]
fn elements_are_dropped_first_to_last_and_memory_freed() {
    let notes = RefCell::default();
    let mut vec = noted(&notes, 6);
    vec.truncate(4);
    assert_eq!(notes.take(), [4, 5]);
    drop(vec.remove(1));
    assert_eq!(notes.take(), [1]);
    vec.retain(|element| element.0 != 2);
    assert_eq!(notes.take(), [2]);
    drop(vec);
    assert_eq!((notes.take(), Host::live()), (vec![0, 3], 0));
}

#[test]
fn an_iterator_drops_what_was_not_taken() {
    let notes = RefCell::default();
    let mut elements = noted(&notes, 6).into_iter();
    let taken = (elements.next().unwrap(), elements.next_back().unwrap());
    assert_eq!((taken.0.0, taken.1.0, elements.len()), (0, 5, 4));
    assert!(elements.as_slice().iter().map(|e| e.0).eq(1..5));
    assert!(notes.borrow().is_empty());
    drop(elements);
    assert_eq!((notes.take(), Host::live()), (vec![1, 2, 3, 4], 0));
    drop(taken);
    assert_eq!(notes.take(), [0, 5]);
}

#[test]
fn a_boxed_slice_has_the_elements_and_no_more_memory() {
    let notes = RefCell::default();
    let vec = noted(&notes, 3);
    assert!(vec.capacity() > 3);
    let boxed = vec.into_boxed_slice(GFP).unwrap();
    assert!(boxed.iter().map(|e| e.0).eq(0..3));
    drop(boxed);
    assert_eq!((notes.take(), Host::live()), (vec![0, 1, 2], 0));
    let empty = HostVec::<u64>::with_capacity(9, GFP).unwrap();
    assert!(empty.into_boxed_slice(GFP).unwrap().is_empty());
    assert_eq!(Host::live(), 0);
    let vec = noted(&notes, 3);
    Host::fail_after(0);
    assert_eq!(vec.into_boxed_slice(GFP).map(|_| ()), Err(Host::REFUSED));
    assert_eq!((notes.take(), Host::live()), (vec![0, 1, 2], 0));
}

#[test]
fn elements_of_size_0_take_no_memory_and_are_dropped() {
    thread_local!(static DROPS: Cell<usize> = const { Cell::new(0) });
    #[derive(Clone)]
    struct Nothing;
    impl Drop for Nothing {
        fn drop(&mut self) {
            DROPS.set(DROPS.get() + 1);
        }
    }
    Host::fail_after(0);
    let mut vec = HostVec::with_capacity(usize::MAX, GFP).unwrap();
    vec.extend_with(1000, Nothing, GFP).unwrap();
    assert_eq!((vec.len(), vec.capacity()), (1000, usize::MAX));
    drop(vec.pop());
    assert_eq!(vec.remove(500).map(|_| ()), Ok(()));
    vec.truncate(900);
    assert_eq!((DROPS.get(), vec.len()), (100, 900));
    let overflow = AllocError::CapacityOverflow {
        count: usize::MAX,
        size: 0,
    };
    assert_eq!(vec.reserve(usize::MAX, GFP), Err(overflow));
    vec.shrink_to(0, GFP).unwrap();
    let mut elements = vec.into_iter();
    drop(elements.next());
    assert_eq!((DROPS.get(), elements.len()), (101, 899));
    drop(elements);
    let boxed = HostVec::from_elem(Nothing, 5, GFP).unwrap();
    drop(boxed.into_boxed_slice(GFP).unwrap());
    assert_eq!((DROPS.get(), Host::live()), (1005, 0));
    assert_eq!(Host::refusals(), 0);
}

#[test]
fn capacities_that_overflow_are_refused_by_name() {
    let overflow = |count| AllocError::CapacityOverflow { count, size: 8 };
    let count = usize::MAX / 8 + 1;
    let refused = HostVec::<u64>::with_capacity(count, GFP).map(|_| ());
    assert_eq!(refused, Err(overflow(count)));
    let mut vec = HostVec::from_elem(7u64, 3, GFP).unwrap();
    assert_eq!(vec.reserve(usize::MAX, GFP), Err(overflow(usize::MAX)));
    assert_eq!(
        vec.extend_with(usize::MAX - 3, 0, GFP),
        Err(overflow(usize::MAX))
    );
    // More than an object of Rust may have, though a number.
    let count = isize::MAX as usize / 8 + 1;
    assert_eq!(vec.reserve(count - 3, GFP), Err(overflow(count)));
    assert_eq!(&vec[..], [7, 7, 7]);
}

#[test]
fn a_refused_push_changes_nothing_but_the_value() {
    let notes = RefCell::default();
    let mut vec = noted(&notes, 2);
    while vec.len() < vec.capacity() {
        let pushed = vec.push_within_capacity(Noted(9, &notes));
        assert!(pushed.is_ok());
    }
    let (len, place) = (vec.len(), vec.as_ptr());
    let back = vec.push_within_capacity(Noted(10, &notes)).map_err(|back| {
        assert_eq!(back.0.0, 10);
    });
    assert_eq!((back, notes.take()), (Err(()), vec![10]));
    Host::fail_after(0);
    let refused = vec.push(Noted(11, &notes), GFP);
    assert_eq!((refused, notes.take()), (Err(Host::REFUSED), vec![11]));
    assert_eq!((vec.len(), vec.as_ptr()), (len, place));
    vec.push(Noted(12, &notes), GFP).unwrap();
    assert_eq!(vec.len(), len + 1);
}

#[test]
fn growth_copies_each_element_a_bounded_number_of_times() {
    let mut vec = HostVec::new();
    let mut moves = 0;
    let mut place = vec.as_ptr();
    for number in 0..10_000u32 {
        vec.push(number, GFP).unwrap();
        if place != vec.as_ptr() {
            (place, moves) = (vec.as_ptr(), moves + 1);
        }
    }
    assert!(moves <= 11, "{moves} moves");
    assert!(vec.iter().copied().eq(0..10_000));
}

#[test]
fn room_may_be_written_before_it_counts() {
    let mut vec = HostVec::with_capacity(4, GFP).unwrap();
    vec.push(1u16, GFP).unwrap();
    assert_eq!(vec.spare_capacity_mut().len(), 3);
    for (room, value) in vec.spare_capacity_mut().iter_mut().zip([2, 3]) {
        room.write(value);
    }
    // SAFETY: two were written.
    unsafe { vec.inc_len(2) };
    assert_eq!(&vec[..], [1, 2, 3]);
    let (start, len, capacity) = vec.into_raw_parts();
    // SAFETY: just taken apart.
    let vec = unsafe { HostVec::from_raw_parts(start, len, capacity) };
    assert_eq!(format!("{vec:?}"), "[1, 2, 3]");
}

#[test]
fn alignment_up_to_a_page_is_honoured() {
    #[derive(Clone)]
    #[repr(align(1024))]
    struct Block(u8);
    let vec = HostVec::from_elem(Block(1), 3, GFP).unwrap();
    assert!(VirtAddr::from_ptr(vec.as_ptr()).is_aligned(1024));
    assert!(vec.iter().all(|block| block.0 == 1));
}

/// An element that counts those alive.
struct Tracked(u8, Rc<Cell<usize>>);

impl Tracked {
    fn new(value: u8, alive: &Rc<Cell<usize>>) -> Self {
        alive.set(alive.get() + 1);
        Self(value, Rc::clone(alive))
    }
}

impl Clone for Tracked {
    fn clone(&self) -> Self {
        Self::new(self.0, &self.1)
    }
}

impl Drop for Tracked {
    fn drop(&mut self) {
        self.1.set(self.1.get() - 1);
    }
}

#[derive(Clone, Debug)]
enum Call {
    Push(u8),
    PushWithin(u8),
    Pop,
    Remove(usize),
    Truncate(usize),
    Clear,
    Retain(u8),
    Reserve(usize),
    ShrinkTo(usize),
    ExtendWith(usize, u8),
    ExtendFromSlice(std::vec::Vec<u8>),
    Resize(usize, u8),
    TakeApart(usize, usize),
    FailAfter(usize),
}

fn call() -> impl Strategy<Value = Call> {
    let small = 0..20usize;
    prop_oneof![
        6 => any::<u8>().prop_map(Call::Push),
        2 => any::<u8>().prop_map(Call::PushWithin),
        3 => Just(Call::Pop),
        2 => (0..40usize).prop_map(Call::Remove),
        1 => (0..40usize).prop_map(Call::Truncate),
        1 => Just(Call::Clear),
        1 => (1..5u8).prop_map(Call::Retain),
        2 => small.clone().prop_map(Call::Reserve),
        2 => small.clone().prop_map(Call::ShrinkTo),
        2 => (small.clone(), any::<u8>()).prop_map(|(n, v)| Call::ExtendWith(n, v)),
        2 => prop::collection::vec(any::<u8>(), 0..20).prop_map(Call::ExtendFromSlice),
        2 => (0..40usize, any::<u8>()).prop_map(|(n, v)| Call::Resize(n, v)),
        1 => (0..4usize, 0..4usize).prop_map(|(f, b)| Call::TakeApart(f, b)),
        4 => (0..2usize).prop_map(Call::FailAfter),
    ]
}

/// Makes `call`, and on the model what it must do.
fn make(
    call: Call,
    vec: &mut HostVec<Tracked>,
    model: &mut std::vec::Vec<u8>,
    alive: &Rc<Cell<usize>>,
) -> Result<(), AllocError> {
    let tracked = |value| Tracked::new(value, alive);
    match call {
        Call::Push(value) => {
            vec.push(tracked(value), GFP)?;
            model.push(value);
        }
        Call::PushWithin(value) => {
            let had_room = vec.len() < vec.capacity();
            let pushed = vec.push_within_capacity(tracked(value));
            assert_eq!(pushed.is_ok(), had_room);
            if had_room {
                model.push(value);
            }
        }
        Call::Pop => assert_eq!(vec.pop().map(|t| t.0), model.pop()),
        Call::Remove(index) => {
            let removed = vec.remove(index).map(|t| t.0);
            let len = model.len();
            let expected = (index < len).then(|| model.remove(index));
            assert_eq!(removed, expected.ok_or(RemoveError { index, len }));
        }
        Call::Truncate(len) => {
            vec.truncate(len);
            model.truncate(len);
        }
        Call::Clear => {
            vec.clear();
            model.clear();
        }
        Call::Retain(divisor) => {
            vec.retain(|t| !t.0.is_multiple_of(divisor));
            model.retain(|value| !value.is_multiple_of(divisor));
        }
        Call::Reserve(more) => {
            vec.reserve(more, GFP)?;
            assert!(vec.capacity() >= model.len() + more);
        }
        Call::ShrinkTo(capacity) => {
            vec.shrink_to(capacity, GFP)?;
            assert!(vec.capacity() >= model.len());
        }
        Call::ExtendWith(count, value) => {
            vec.extend_with(count, tracked(value), GFP)?;
            model.extend(std::iter::repeat_n(value, count));
        }
        Call::ExtendFromSlice(values) => {
            let other: std::vec::Vec<_> = values.iter().copied().map(tracked).collect();
            vec.extend_from_slice(&other, GFP)?;
            model.extend(values);
        }
        Call::Resize(len, value) => {
            vec.resize(len, tracked(value), GFP)?;
            model.resize(len, value);
        }
        Call::TakeApart(front, back) => {
            let mut elements = core::mem::take(vec).into_iter();
            let mut expected = core::mem::take(model).into_iter();
            for _ in 0..front {
                assert_eq!(elements.next().map(|t| t.0), expected.next());
            }
            for _ in 0..back {
                assert_eq!(elements.next_back().map(|t| t.0), expected.next_back());
            }
            assert_eq!(elements.len(), expected.len());
        }
        Call::FailAfter(allocations) => Host::fail_after(allocations),
    }
    Ok(())
}

proptest! {
    #[test]
    fn a_vector_follows_the_standard_one(calls in prop::collection::vec(call(), 1..80)) {
        let alive = Rc::new(Cell::new(0));
        let mut vec = HostVec::new();
        let mut model = std::vec::Vec::new();
        for call in calls {
            let (refusals, capacity) = (Host::refusals(), vec.capacity());
            let result = make(call, &mut vec, &mut model, &alive);
            prop_assert_eq!(result.is_err(), Host::refusals() > refusals);
            if result.is_err() {
                prop_assert_eq!(result, Err(Host::REFUSED));
                prop_assert_eq!(vec.capacity(), capacity);
            }
            prop_assert!(vec.iter().map(|t| t.0).eq(model.iter().copied()));
            prop_assert_eq!(alive.get(), model.len());
            prop_assert_eq!(Host::live(), usize::from(vec.capacity() > 0));
        }
        drop(vec);
        prop_assert_eq!((alive.get(), Host::live()), (0, 0));
    }
}
