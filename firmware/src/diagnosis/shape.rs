//! The shapes that wrong bytes form.

use super::{Flaw, Scene};
use crate::pattern::{self, Expected, Mismatch};
use core::ops::Range;
use hal::addr::PAGE_SIZE;

/// Of bytes that have nothing to do with either version, one in 128 is of one of them by chance. A
/// stretch is called foreign up to one in this many.
const BY_CHANCE: usize = 16;

/// Bytes below which a copy of nothing but wrong bytes is not called one from elsewhere: as many
/// can be wrong by accident.
const ELSEWHERE_EVIDENCE: usize = 8;

/// How the bytes of a stretch compare.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Tally {
    /// As expected, and not what was there before.
    right: usize,
    /// What was there before, and not as expected.
    old: usize,
    /// Neither.
    other: usize,
}

impl Tally {
    fn of(copy: &[u8], range: Range<usize>, expected: &impl Expected) -> Self {
        let mut tally = Self::default();
        for index in range {
            let found = copy[index];
            let (new, old) = (expected.copied(index), expected.old(index));
            match (found == new, found == old) {
                // Both versions have the byte: it tells nothing.
                (true, true) => {}
                (true, false) => tally.right += 1,
                (false, true) => tally.old += 1,
                (false, false) => tally.other += 1,
            }
        }
        tally
    }

    const fn wrong(self) -> usize {
        self.old + self.other
    }

    const fn is_right(self) -> bool {
        self.wrong() == 0
    }

    /// Nothing here is new.
    const fn is_old(self) -> bool {
        self.right == 0 && self.other == 0 && self.old != 0
    }

    /// Hardly a byte here is of either version.
    const fn is_foreign(self) -> bool {
        (self.right + self.old) * BY_CHANCE < self.other
    }
}

/// What is wrong with the copy itself, the first wrong byte from the copy's first, and how many are wrong.
pub(super) fn flaw(scene: &Scene<'_>, expected: &impl Expected) -> Option<(Flaw, isize, usize)> {
    let copy = &scene.bytes[scene.at..scene.at + scene.len];
    let whole = Tally::of(copy, 0..scene.len, expected);
    let first = (0..scene.len).find(|&index| copy[index] != expected.copied(index))?;
    let flaw = of_copy(scene, copy, whole, expected);
    Some((flaw, first as isize, whole.wrong()))
}

/// The byte beside the copy, nearest to it, that is not what it was, and what that means: a cache loses it
/// only together with a line that the copy has a part of.
pub(super) fn beside(scene: &Scene<'_>, expected: &impl Expected) -> Option<(Flaw, isize)> {
    let (at, end) = (scene.at, scene.at + scene.len);
    let lost = |&index: &usize| scene.bytes[index] != expected.beside(index);
    let before = (0..at)
        .rev()
        .find(lost)
        .map(|index| index as isize - at as isize);
    let after = (end..scene.bytes.len())
        .find(lost)
        .map(|index| (index - at) as isize);
    let distance = |first: &isize| match *first {
        first if first < 0 => first.unsigned_abs(),
        first => first.unsigned_abs() + 1 - scene.len,
    };
    let first = before.into_iter().chain(after).min_by_key(distance)?;
    let edge = if first < 0 { 0 } else { scene.len as isize - 1 };
    let shares_line = scene.line_of(first) == scene.line_of(edge);
    let flaw = match scene.is_cached() && shares_line && scene.direction.device_writes() {
        true => Flaw::LostNeighbour,
        false => Flaw::WrongBusAddress { shift: None },
    };
    Some((flaw, first))
}

fn of_copy(scene: &Scene<'_>, copy: &[u8], whole: Tally, expected: &impl Expected) -> Flaw {
    if whole.other == 0 {
        return of_old_bytes(scene, copy, whole, expected);
    }
    if let Err(Mismatch::Shifted { by }) = pattern::compare(copy, 0, copy.len(), expected) {
        return Flaw::WrongBusAddress { shift: Some(by) };
    }
    let pages = || stretches(scene, PAGE_SIZE).map(|page| Tally::of(copy, page, expected));
    let foreign = pages().filter(|page| page.is_foreign()).count();
    let right = pages().filter(|page| page.is_right()).count();
    if foreign != 0 && right != 0 && foreign + right == pages().count() {
        return Flaw::ForeignPage { pages: foreign };
    }
    if whole.is_foreign() && scene.len >= ELSEWHERE_EVIDENCE {
        return Flaw::WrongBusAddress { shift: None };
    }
    Flaw::Unexplained
}

/// Every wrong byte is what was there before.
fn of_old_bytes(scene: &Scene<'_>, copy: &[u8], whole: Tally, expected: &impl Expected) -> Flaw {
    if !scene.has_ended {
        return match whole.is_old() {
            true => Flaw::NeverRan,
            false => Flaw::Torn,
        };
    }
    let lines = || stretches(scene, scene.line).map(|line| Tally::of(copy, line, expected));
    let stale = lines().filter(|line| line.is_old()).count();
    let is_by_lines = lines().all(|line| line.is_old() || line.is_right());
    // A device that was asked reads what a cache hides.
    let hidden = scene.in_ram.is_none_or(|ram| {
        let reads = |index: &usize| ram.get(*index) == Some(&expected.copied(*index));
        (0..scene.len).all(|index| reads(&index))
    });
    match (is_by_lines && scene.is_cached(), whole.is_old()) {
        // The device wrote here, so where memory has old lines too they were written back over it.
        (true, false) => Flaw::StaleLine { lines: stale },
        (true, true) if hidden => Flaw::StaleLine { lines: stale },
        (_, true) => Flaw::WrongBusAddress { shift: None },
        (false, false) => Flaw::Torn,
    }
}

/// The copy cut where its memory crosses multiples of `size`.
fn stretches(scene: &Scene<'_>, size: usize) -> impl Iterator<Item = Range<usize>> + use<> {
    let (len, offset) = (scene.len, scene.va.get() % size);
    (0..(offset + len).div_ceil(size)).map(move |index| {
        (index * size).saturating_sub(offset)..((index + 1) * size - offset).min(len)
    })
}
