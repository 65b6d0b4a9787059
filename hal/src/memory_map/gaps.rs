//! What is left of RAM.

use super::{Reserved, ReservedKind};
use crate::addr::{PAGE_SIZE, PhysAddr, PhysRange};

/// The pages of RAM that no reservation of certain kinds touches, as ranges that are as large as
/// possible, by address.
#[derive(Clone, Debug)]
pub struct Gaps<'a> {
    /// The RAM not looked at yet. Sorted, page aligned, apart from each other.
    ram: core::slice::Iter<'a, PhysRange>,
    reserved: &'a [Reserved],
    takes: fn(ReservedKind) -> bool,
    /// What is left of the current range.
    rest: PhysRange,
}

impl<'a> Gaps<'a> {
    /// The pages of `ram` outside those reservations whose kind `takes` names.
    pub(super) fn new(
        ram: &'a [PhysRange],
        reserved: &'a [Reserved],
        takes: fn(ReservedKind) -> bool,
    ) -> Self {
        Self {
            ram: ram.iter(),
            reserved,
            takes,
            rest: PhysRange::new(PhysAddr::new(0), PhysAddr::new(0)),
        }
    }

    /// The reservations that count, extended to whole pages.
    fn taken(&self) -> impl Iterator<Item = PhysRange> + use<'a> {
        let takes = self.takes;
        self.reserved
            .iter()
            .filter(move |reserved| takes(reserved.kind))
            .map(|Reserved { range, .. }| {
                let end = range.end.checked_add(PAGE_SIZE - 1).unwrap_or(range.end);
                PhysRange::new(range.start.align_down(PAGE_SIZE), end.align_down(PAGE_SIZE))
            })
    }
}

impl Iterator for Gaps<'_> {
    type Item = PhysRange;

    fn next(&mut self) -> Option<PhysRange> {
        loop {
            if self.rest.is_empty() {
                self.rest = *self.ram.next()?;
            }
            let start = self.rest.start;
            if let Some(taken) = self.taken().find(|taken| taken.contains(start)) {
                self.rest.start = taken.end;
                continue;
            }
            // The first reservation above ends the gap, or else the RAM does.
            let end = self
                .taken()
                .map(|taken| taken.start)
                .filter(|&taken| taken > start)
                .fold(self.rest.end, PhysAddr::min);
            self.rest.start = end;
            return Some(PhysRange::new(start, end));
        }
    }
}
