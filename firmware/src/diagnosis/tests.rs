use super::*;
use crate::pattern::{self, CANARY, LaidOut, POISON};
use hal::addr::PAGE_SIZE;

const LINE: usize = 64;
const SEED: u64 = 7;
/// The copy's place in its buffer, which is on a page: whole lines on both sides.
const AT: usize = 4 * LINE;
const BUFFER: usize = 0x4000_0000;

/// A copy of `len` bytes `offset` bytes behind a page, made wrong by `flaw`, which is given the copy
/// and its surroundings.
struct Case {
    offset: usize,
    len: usize,
    memory: MemoryType,
    direction: DirectionKind,
    has_ended: bool,
    in_ram: Option<Vec<u8>>,
}

const CASE: Case = Case {
    offset: 0,
    len: 8 * LINE,
    memory: MemoryType::NormalWriteBack,
    direction: DirectionKind::FromDevice,
    has_ended: true,
    in_ram: None,
};

impl Case {
    fn diagnose(&self, flaw: impl FnOnce(&mut [u8])) -> Option<Diagnosis> {
        let mut bytes = vec![CANARY; AT + self.len + AT];
        pattern::fill(&mut bytes[AT..AT + self.len], SEED);
        flaw(&mut bytes);
        let scene = Scene {
            bytes: &bytes,
            at: AT,
            len: self.len,
            va: VirtAddr::new(BUFFER + self.offset),
            memory: self.memory,
            direction: self.direction,
            line: LINE,
            has_ended: self.has_ended,
            in_ram: self.in_ram.as_deref(),
        };
        scene.diagnose(&LaidOut(SEED))
    }

    fn flaw(&self, flaw: impl FnOnce(&mut [u8])) -> Option<Flaw> {
        self.diagnose(flaw).map(|diagnosis| diagnosis.flaw)
    }

    fn pattern(&self) -> Vec<u8> {
        (0..self.len)
            .map(|index| pattern::byte(SEED, index))
            .collect()
    }
}

/// Makes the bytes of the copy in `range` what they were.
fn old(range: core::ops::Range<usize>) -> impl FnOnce(&mut [u8]) {
    move |bytes| bytes[AT..][range].fill(POISON)
}

#[test]
fn a_right_copy_has_no_flaw() {
    assert_eq!(CASE.diagnose(|_| {}), None);
    assert_eq!(
        Case {
            offset: 3,
            len: 5,
            ..CASE
        }
        .diagnose(|_| {}),
        None
    );
}

#[test]
fn old_bytes_in_whole_lines_of_cached_memory_are_stale_lines() {
    let stale = |lines| Some(Flaw::StaleLine { lines });
    assert_eq!(CASE.flaw(old(LINE..2 * LINE)), stale(1));
    assert_eq!(CASE.flaw(old(0..8 * LINE)), stale(8));
    let two = |bytes: &mut [u8]| {
        bytes[AT..AT + LINE].fill(POISON);
        bytes[AT + 5 * LINE..AT + 6 * LINE].fill(POISON);
    };
    assert_eq!(CASE.flaw(two), stale(2));
    // A copy has a part of its first and of its last line.
    let odd = Case {
        offset: 40,
        len: 100,
        ..CASE
    };
    assert_eq!(odd.flaw(old(0..24)), stale(1));
    assert_eq!(odd.flaw(old(88..100)), stale(1));
}

#[test]
fn old_bytes_in_other_shapes_are_no_stale_line() {
    let torn = Some(Flaw::Torn);
    assert_eq!(CASE.flaw(old(LINE + 32..2 * LINE + 32)), torn);
    assert_eq!(CASE.flaw(old(LINE..2 * LINE - 1)), torn);
    assert_eq!(CASE.flaw(old(LINE + 1..2 * LINE)), torn);
    assert_eq!(CASE.flaw(old(0..1)), torn);
    let odd = Case {
        offset: 40,
        len: 100,
        ..CASE
    };
    assert_eq!(odd.flaw(old(0..LINE)), torn);
    // Non-cacheable memory has no lines.
    let uncached = Case {
        memory: MemoryType::NormalNonCacheable,
        ..CASE
    };
    assert_eq!(uncached.flaw(old(LINE..2 * LINE)), torn);
}

#[test]
fn a_neighbour_is_lost_with_a_line_it_shares() {
    let odd = Case {
        offset: 40,
        len: 100,
        ..CASE
    };
    for (place, first, distance) in [
        (AT - 1, -1, -1),
        (AT - 40, -40, -40),
        (AT + 100, 100, 1),
        (AT + 100 + 51, 151, 52),
    ] {
        let found = odd.diagnose(|bytes| bytes[place] = 0).unwrap();
        assert_eq!(found.flaw, Flaw::LostNeighbour, "{place}");
        assert_eq!((found.first, found.neighbour()), (first, Some(distance)));
    }
}

#[test]
fn of_two_neighbours_the_nearer_is_named() {
    let odd = Case {
        offset: 40,
        len: 100,
        ..CASE
    };
    for (before, after, nearest) in [
        (AT - 3, AT + 100, 100),
        (AT - 1, AT + 100 + 1, -1),
        (AT - 2, AT + 100, 100),
        (AT - 2, AT + 100 + 2, -2),
    ] {
        let both = |bytes: &mut [u8]| (bytes[before], bytes[after]) = (0, 0);
        let found = odd.diagnose(both).unwrap();
        assert_eq!(found.first, nearest);
        assert_eq!((found.flaw, found.of_copy), (Flaw::LostNeighbour, None));
    }
    // The nearer one shares a line with the copy, the other would not.
    let apart = |bytes: &mut [u8]| (bytes[AT - 41], bytes[AT + 100]) = (0, 0);
    assert_eq!(odd.flaw(apart), Some(Flaw::LostNeighbour));
}

#[test]
fn a_lost_neighbour_does_not_hide_stale_lines() {
    let odd = Case {
        offset: 40,
        len: 100,
        ..CASE
    };
    let both = |bytes: &mut [u8]| {
        bytes[AT - 1] = 0;
        bytes[AT..AT + 24].fill(POISON);
    };
    let found = odd.diagnose(both).unwrap();
    assert_eq!(found.flaw, Flaw::LostNeighbour);
    assert_eq!(found.of_copy, Some(Flaw::StaleLine { lines: 1 }));
    assert!(found.to_string().ends_with("; in the copy: stale line"));
    // What is wrong with the copy alone is said once.
    assert_eq!(odd.diagnose(old(0..24)).unwrap().of_copy, None);
}

#[test]
fn what_lies_in_another_line_is_no_lost_neighbour() {
    let elsewhere = Some(Flaw::WrongBusAddress { shift: None });
    let odd = Case {
        offset: 40,
        len: 100,
        ..CASE
    };
    assert_eq!(odd.flaw(|bytes| bytes[AT - 41] = 0), elsewhere);
    assert_eq!(odd.flaw(|bytes| bytes[AT + 152] = 0), elsewhere);
    // Whole lines share none.
    assert_eq!(CASE.flaw(|bytes| bytes[AT - 1] = 0), elsewhere);
    // Without a cache, and for a device that only reads, no line is lost.
    let uncached = Case {
        memory: MemoryType::NormalNonCacheable,
        ..odd
    };
    assert_eq!(uncached.flaw(|bytes| bytes[AT - 1] = 0), elsewhere);
    let read = Case {
        direction: DirectionKind::ToDevice,
        offset: 40,
        len: 100,
        ..CASE
    };
    assert_eq!(read.flaw(|bytes| bytes[AT - 1] = 0), elsewhere);
}

#[test]
fn a_transfer_that_did_not_end_never_ran_if_nothing_is_new() {
    let hung = Case {
        has_ended: false,
        ..CASE
    };
    assert_eq!(hung.flaw(old(0..8 * LINE)), Some(Flaw::NeverRan));
    // A part of it is new, in whole lines or not.
    assert_eq!(hung.flaw(old(LINE..8 * LINE)), Some(Flaw::Torn));
    assert_eq!(hung.flaw(old(7..8 * LINE)), Some(Flaw::Torn));
    // The device said that it did.
    assert_ne!(CASE.flaw(old(0..8 * LINE)), Some(Flaw::NeverRan));
}

#[test]
fn what_the_device_does_not_find_either_went_elsewhere() {
    let elsewhere = Some(Flaw::WrongBusAddress { shift: None });
    let all = || old(0..8 * LINE);
    let old_in_ram = Case {
        in_ram: Some(vec![POISON; 8 * LINE]),
        ..CASE
    };
    assert_eq!(old_in_ram.flaw(all()), elsewhere);
    let uncached = Case {
        memory: MemoryType::NormalNonCacheable,
        ..CASE
    };
    assert_eq!(uncached.flaw(all()), elsewhere);
    // Some of it is new, so the device was here, and lines were written back over the rest.
    let mut first_line_old = CASE.pattern();
    first_line_old[..LINE].fill(POISON);
    let overwritten = Case {
        in_ram: Some(first_line_old),
        ..CASE
    };
    assert_eq!(
        overwritten.flaw(old(0..LINE)),
        Some(Flaw::StaleLine { lines: 1 })
    );
    // RAM has it, so a cache hides it.
    let new_in_ram = Case {
        in_ram: Some(CASE.pattern()),
        ..CASE
    };
    assert_eq!(new_in_ram.flaw(all()), Some(Flaw::StaleLine { lines: 8 }));
}

#[test]
fn a_copy_of_something_else_or_out_of_place_has_a_wrong_bus_address() {
    for by in [1_isize, 4, 64, -1, -63] {
        let shifted = |bytes: &mut [u8]| {
            for index in 0..CASE.len {
                let from = index
                    .checked_add_signed(-by)
                    .filter(|&from| from < CASE.len);
                bytes[AT + index] = from.map_or(0x77, |from| pattern::byte(SEED, from));
            }
        };
        assert_eq!(
            CASE.flaw(shifted),
            Some(Flaw::WrongBusAddress { shift: Some(by) })
        );
    }
    let other = |bytes: &mut [u8]| pattern::fill(&mut bytes[AT..AT + CASE.len], !SEED);
    assert_eq!(
        CASE.flaw(other),
        Some(Flaw::WrongBusAddress { shift: None })
    );
    // Half of it is right.
    let half = |bytes: &mut [u8]| pattern::fill(&mut bytes[AT..AT + CASE.len / 2], !SEED);
    assert_eq!(CASE.flaw(half), Some(Flaw::Unexplained));
    let few = Case { len: 4, ..CASE };
    assert_eq!(
        few.flaw(|bytes| bytes[AT..AT + 4].fill(1)),
        Some(Flaw::Unexplained)
    );
}

#[test]
fn whole_pages_of_something_else_are_foreign() {
    let case = Case {
        len: 4 * PAGE_SIZE,
        ..CASE
    };
    let exchange = |bytes: &mut [u8]| {
        let (first, rest) = bytes[AT + PAGE_SIZE..].split_at_mut(PAGE_SIZE);
        first.swap_with_slice(&mut rest[..PAGE_SIZE]);
    };
    assert_eq!(case.flaw(exchange), Some(Flaw::ForeignPage { pages: 2 }));
    let last = |bytes: &mut [u8]| bytes[AT + 3 * PAGE_SIZE..AT + 4 * PAGE_SIZE].fill(0);
    assert_eq!(case.flaw(last), Some(Flaw::ForeignPage { pages: 1 }));
    // The copy has a part of its first page.
    let odd = Case {
        offset: 0x800,
        len: 2 * PAGE_SIZE,
        ..CASE
    };
    let part = |bytes: &mut [u8]| bytes[AT..AT + PAGE_SIZE - 0x800].fill(0);
    assert_eq!(odd.flaw(part), Some(Flaw::ForeignPage { pages: 1 }));
}

#[test]
fn parts_of_pages_are_not_foreign() {
    let case = Case {
        len: 4 * PAGE_SIZE,
        ..CASE
    };
    for range in [
        PAGE_SIZE..PAGE_SIZE + PAGE_SIZE / 2,
        PAGE_SIZE + PAGE_SIZE / 2..2 * PAGE_SIZE + PAGE_SIZE / 2,
        PAGE_SIZE..PAGE_SIZE + 1,
    ] {
        let found = case.flaw(|bytes| bytes[AT..][range.clone()].fill(0));
        assert_eq!(found, Some(Flaw::Unexplained), "{range:?}");
    }
    // One page is, and a part of another is wrong too.
    let mixed = case.flaw(|bytes| bytes[AT + PAGE_SIZE..][..PAGE_SIZE * 3 / 2].fill(0));
    assert_eq!(mixed, Some(Flaw::Unexplained));
    // All of it is.
    let all = case.flaw(|bytes| bytes[AT..AT + 4 * PAGE_SIZE].fill(0));
    assert_eq!(all, Some(Flaw::WrongBusAddress { shift: None }));
    // Whole pages of what was there before are stale.
    let stale = case.flaw(old(PAGE_SIZE..2 * PAGE_SIZE));
    assert_eq!(
        stale,
        Some(Flaw::StaleLine {
            lines: PAGE_SIZE / LINE
        })
    );
}

#[test]
fn the_words_name_the_line_the_mapping_the_operation_and_the_change() {
    let found = CASE.diagnose(old(LINE..2 * LINE)).unwrap();
    assert_eq!(found.line, VirtAddr::new(BUFFER + LINE));
    let text = found.to_string();
    for word in ["stale line: lines=1", "the first at 64", "DC IVAC", "unmap"] {
        assert!(text.contains(word), "{text}");
    }
    assert!(
        text.contains(&MemoryType::NormalWriteBack.to_string()),
        "{text}"
    );
    let sent = Case {
        direction: DirectionKind::ToDevice,
        ..CASE
    };
    let text = sent.diagnose(old(LINE..2 * LINE)).unwrap().to_string();
    assert!(
        text.contains("DC CVAC") && text.contains("map the buffer"),
        "{text}"
    );
    let odd = Case {
        offset: 40,
        len: 100,
        ..CASE
    };
    let text = odd.diagnose(|bytes| bytes[AT - 2] = 0).unwrap().to_string();
    assert!(
        text.contains("lost neighbour: 2 bytes before the copy"),
        "{text}"
    );
}
