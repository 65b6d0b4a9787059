use super::*;
use crate::addr::VirtAddr;
use crate::alloc::testing::{GARBAGE, Host};
use std::cell::Cell;
use std::rc::Rc;

type HostBox<T> = Box<T, Host>;

const GFP: Flags = Flags::KERNEL;

/// Counts its drops.
struct Counted<'a>(u32, &'a Cell<u32>);

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        self.1.set(self.1.get() + 1);
    }
}

#[test]
fn a_box_drops_its_value_once_and_frees_its_memory() {
    let drops = Cell::new(0);
    let boxed = HostBox::new(Counted(7, &drops), GFP).unwrap();
    assert_eq!((boxed.0, Host::live(), drops.get()), (7, 1, 0));
    drop(boxed);
    assert_eq!((Host::live(), drops.get()), (0, 1));
}

#[test]
fn without_memory_the_value_is_dropped_and_the_error_named() {
    let drops = Cell::new(0);
    Host::fail_after(0);
    let refused = HostBox::new(Counted(7, &drops), GFP).map(|_| ());
    assert_eq!(refused, Err(Host::REFUSED));
    assert_eq!((Host::live(), drops.get()), (0, 1));
}

#[test]
fn a_value_of_size_0_takes_no_memory_and_is_dropped() {
    thread_local!(static DROPS: Cell<u32> = const { Cell::new(0) });
    #[repr(align(256))]
    struct Nothing;
    impl Drop for Nothing {
        fn drop(&mut self) {
            DROPS.set(DROPS.get() + 1);
        }
    }
    Host::fail_after(0);
    let boxed = HostBox::new(Nothing, GFP).unwrap();
    assert!(VirtAddr::from_ptr(&raw const *boxed).is_aligned(256));
    assert_eq!(Host::live(), 0);
    drop(boxed);
    assert_eq!(DROPS.get(), 1);
}

#[test]
fn alignment_up_to_a_page_is_honoured() {
    #[repr(align(4096))]
    struct Page([u8; 4096]);
    let page = HostBox::new(Page([1; 4096]), GFP).unwrap();
    assert!(VirtAddr::from_ptr(&raw const page.0).is_aligned(4096));
}

#[test]
fn a_value_moves_out_without_being_dropped() {
    let drops = Cell::new(0);
    let boxed = HostBox::new(Counted(7, &drops), GFP).unwrap();
    let value = HostBox::into_inner(boxed);
    assert_eq!((value.0, Host::live(), drops.get()), (7, 0, 0));
    drop(value);
    assert_eq!(drops.get(), 1);
}

#[test]
fn dropped_contents_leave_the_memory_for_another_value() {
    let drops = Cell::new(0);
    let boxed = HostBox::new(Counted(7, &drops), GFP).unwrap();
    let place = &raw const *boxed;
    let memory = Box::drop_contents(boxed);
    assert_eq!((Host::live(), drops.get()), (1, 1));
    let boxed = memory.write(Counted(8, &drops));
    assert_eq!((&raw const *boxed, boxed.0), (place, 8));
    drop(boxed);
    assert_eq!((Host::live(), drops.get()), (0, 2));
}

#[test]
fn memory_without_a_value_is_freed_and_nothing_dropped() {
    let memory = HostBox::<Rc<u8>>::new_uninit(GFP).unwrap();
    assert_eq!(Host::live(), 1);
    drop(memory);
    assert_eq!(Host::live(), 0);
    let bytes = HostBox::<[u8; 16]>::new_uninit(GFP).unwrap();
    // SAFETY: the allocator wrote every byte.
    assert_eq!(*unsafe { bytes.assume_init() }, [GARBAGE; 16]);
}

#[test]
fn raw_pointers_carry_the_ownership() {
    let drops = Cell::new(0);
    let raw = HostBox::into_raw(HostBox::new(Counted(7, &drops), GFP).unwrap());
    assert_eq!((Host::live(), drops.get()), (1, 0));
    // SAFETY: from `into_raw`, once.
    let boxed = unsafe { HostBox::from_raw(raw) };
    assert_eq!(boxed.0, 7);
    // A trait object is one cast away, and dropped with its own layout.
    // SAFETY: as above; the cast keeps the value.
    let any: HostBox<dyn Fn() -> u32> = unsafe {
        let closure = HostBox::new(move || boxed.0 + 1, GFP).unwrap();
        let raw = HostBox::into_raw(closure);
        HostBox::from_raw(raw)
    };
    assert_eq!(any(), 8);
    drop(any);
    assert_eq!((Host::live(), drops.get()), (0, 1));
}

#[test]
fn a_leaked_value_stays() {
    let value: &'static mut u32 = HostBox::leak(HostBox::new(5, GFP).unwrap());
    *value += 1;
    assert_eq!((*value, Host::live()), (6, 1));
    // SAFETY: the value came from a box, and the reference is not used again.
    drop(unsafe { HostBox::from_raw(value) });
    assert_eq!(Host::live(), 0);
}

#[test]
fn a_pinned_value_is_made_in_place_or_not_at_all() {
    let drops = Cell::new(0);
    let pinned = HostBox::pin(Counted(1, &drops), GFP).unwrap();
    assert_eq!(pinned.0, 1);
    let mut seen = None;
    // SAFETY: a valid value is written before `Ok`.
    let made = unsafe {
        HostBox::<Counted<'_>>::try_pin_init::<AllocError>(
            |place| {
                seen = Some(place);
                place.write(Counted(2, &drops));
                Ok(())
            },
            GFP,
        )
    };
    let made = made.unwrap();
    assert_eq!(Some(NonNull::from(&*made)), seen);
    assert_eq!((made.0, Host::live()), (2, 2));
    // SAFETY: nothing is left to drop on `Err`.
    let refused = unsafe { HostBox::<Counted<'_>>::try_pin_init(|_| Err(Host::REFUSED), GFP) };
    assert_eq!(refused.map(|_| ()), Err(Host::REFUSED));
    assert_eq!(Host::live(), 2);
    drop((pinned, made));
    assert_eq!((Host::live(), drops.get()), (0, 2));
}

#[test]
fn boxes_show_their_values() {
    let boxed = HostBox::new(Some(3), GFP).unwrap();
    assert_eq!(format!("{boxed:?}"), "Some(3)");
    assert_eq!(HostBox::new("text", GFP).unwrap().to_string(), "text");
    let pinned: Pin<HostBox<u8>> = HostBox::new(3, GFP).unwrap().into();
    assert_eq!(*pinned, 3);
}
