//! What the buffers of a copy hold, before and after.

use crate::pattern::{self, Expected, Mismatch};
use core::ops::Range;

/// Set in every byte of a source.
const SOURCE: u8 = 0x80;
/// Set in the bytes of a source that are copied.
const COPIED: u8 = 0x40;
/// Set in the bytes of a destination that are to be overwritten.
const OVERWRITTEN: u8 = 0x20;
/// The bits left count the bytes, downwards.
const COUNT: u8 = 0x1F;

/// How bytes are told apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Pattern {
    /// By bits that say what each is, and five of its place.
    Bits,
    /// By being random.
    Random(u64),
}

/// What is wrong after a copy.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Flaw {
    /// The source was written.
    #[error("source: byte {index} of the buffer is {found:#04x}, not {expected:#04x}")]
    Source {
        /// The first byte, from the start of its buffer.
        index: usize,
        /// What it was.
        expected: u8,
        /// What it is.
        found: u8,
    },
    /// The destination, or what lies beside it, is wrong.
    #[error("destination: {0}")]
    Destination(#[from] Mismatch),
}

/// What the two buffers of a copy hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Contents {
    pattern: Pattern,
    src: usize,
    dst: usize,
    len: usize,
}

impl Contents {
    pub(super) const fn new(pattern: Pattern, src: usize, dst: usize, len: usize) -> Self {
        Self {
            pattern,
            src,
            dst,
            len,
        }
    }

    /// The bytes of the source's buffer that are copied.
    pub const fn source(&self) -> Range<usize> {
        self.src..self.src + self.len
    }

    /// The bytes of the destination's buffer that they are copied to.
    pub const fn destination(&self) -> Range<usize> {
        self.dst..self.dst + self.len
    }

    /// Fills the buffers as they are to be before the copy. Each holds its part of it.
    pub fn lay_out(&self, source: &mut [u8], destination: &mut [u8]) {
        for (index, byte) in source.iter_mut().enumerate() {
            *byte = self.source_byte(index);
        }
        for (index, byte) in destination.iter_mut().enumerate() {
            *byte = match index.checked_sub(self.dst) {
                Some(copied) if copied < self.len => self.old(copied),
                _ => self.beside(index),
            };
        }
    }

    /// Undoes the end of a copy, from its byte `first` on: for who plants a torn one.
    pub fn tear(&self, destination: &mut [u8], first: usize) {
        for index in first..self.len {
            destination[self.dst + index] = self.old(index);
        }
    }

    /// Looks at every byte of the buffers after the copy.
    ///
    /// # Errors
    ///
    /// The first [`Flaw`].
    pub fn compare(&self, source: &[u8], destination: &[u8]) -> Result<(), Flaw> {
        let is_wrong = |&(index, &found): &(usize, &u8)| found != self.source_byte(index);
        if let Some((index, &found)) = source.iter().enumerate().find(is_wrong) {
            return Err(Flaw::Source {
                index,
                expected: self.source_byte(index),
                found,
            });
        }
        Ok(pattern::compare(destination, self.dst, self.len, self)?)
    }

    fn source_byte(&self, index: usize) -> u8 {
        match self.pattern {
            Pattern::Bits if self.source().contains(&index) => SOURCE | COPIED | count(index),
            Pattern::Bits => SOURCE | count(index),
            Pattern::Random(seed) => pattern::byte(seed, index),
        }
    }
}

impl Expected for Contents {
    fn beside(&self, index: usize) -> u8 {
        match self.pattern {
            Pattern::Bits => count(index),
            Pattern::Random(seed) => pattern::byte(!seed, index),
        }
    }

    fn old(&self, index: usize) -> u8 {
        match self.pattern {
            Pattern::Bits => OVERWRITTEN | count(self.dst + index),
            Pattern::Random(_) => pattern::POISON,
        }
    }

    fn copied(&self, index: usize) -> u8 {
        self.source_byte(self.src + index)
    }
}

/// Five bits of a place.
const fn count(index: usize) -> u8 {
    !(index as u8) & COUNT
}

#[cfg(test)]
mod tests {
    use super::*;

    const ROOM: usize = 1000;
    const SRC: usize = 130;
    const DST: usize = 241;
    const LEN: usize = 500;

    /// The buffers after a copy, spoilt by `flaw`, and what is found.
    fn found(pattern: Pattern, flaw: impl FnOnce(&mut [u8], &mut [u8])) -> Result<(), Flaw> {
        let contents = Contents::new(pattern, SRC, DST, LEN);
        let (mut source, mut destination) = (vec![0; ROOM], vec![0; ROOM]);
        contents.lay_out(&mut source, &mut destination);
        destination[DST..DST + LEN].copy_from_slice(&source[SRC..SRC + LEN]);
        flaw(&mut source, &mut destination);
        contents.compare(&source, &destination)
    }

    fn mismatch(pattern: Pattern, flaw: impl FnOnce(&mut [u8])) -> Mismatch {
        match found(pattern, |_, destination| flaw(destination)) {
            Err(Flaw::Destination(mismatch)) => mismatch,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn bits_are_those_of_dmatest() {
        let contents = Contents::new(Pattern::Bits, 2, 3, 2);
        let (mut source, mut destination) = ([0; 6], [0; 6]);
        contents.lay_out(&mut source, &mut destination);
        assert_eq!(source, [0x9F, 0x9E, 0xDD, 0xDC, 0x9B, 0x9A]);
        assert_eq!(destination, [0x1F, 0x1E, 0x1D, 0x3C, 0x3B, 0x1A]);
    }

    #[test]
    fn every_flaw_of_a_copy_has_its_name() {
        for pattern in [Pattern::Bits, Pattern::Random(7)] {
            assert_eq!(found(pattern, |_, _| {}), Ok(()));
            for index in [0, SRC, SRC + LEN - 1, ROOM - 1] {
                let flaw = found(pattern, |source, _| source[index] ^= 1);
                assert!(matches!(flaw, Err(Flaw::Source { index: at, .. }) if at == index));
            }
            for (index, distance) in [(0, DST), (DST - 1, 1)] {
                let flaw = mismatch(pattern, |to| to[index] ^= 1);
                assert!(
                    matches!(flaw, Mismatch::CanaryBefore { distance: at, .. } if at == distance)
                );
            }
            for (index, distance) in [(DST + LEN, 1), (ROOM - 1, ROOM - DST - LEN)] {
                let flaw = mismatch(pattern, |to| to[index] ^= 1);
                assert!(
                    matches!(flaw, Mismatch::CanaryAfter { distance: at, .. } if at == distance)
                );
            }
            let wrong = mismatch(pattern, |to| to[DST + 9] ^= 1);
            assert!(matches!(wrong, Mismatch::Wrong { index: 9, .. }));
            let shifted = mismatch(pattern, |to| to.copy_within(DST..DST + LEN - 3, DST + 3));
            assert_eq!(shifted, Mismatch::Shifted { by: 3 });
        }
    }

    #[test]
    fn what_was_not_written_is_old() {
        for pattern in [Pattern::Bits, Pattern::Random(7)] {
            let contents = Contents::new(pattern, SRC, DST, LEN);
            let torn = mismatch(pattern, |to| contents.tear(to, 100));
            assert_eq!(
                torn,
                Mismatch::Old {
                    first: 100,
                    count: 400
                }
            );
        }
    }
}
