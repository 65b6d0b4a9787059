//! Bytes to copy, and what a copy of them must look like: whole, in place, nothing beside it.

use crate::random;

/// What a destination holds before a transfer. No pattern contains it.
pub const POISON: u8 = 0xA5;

/// What lies on both sides of a destination.
pub const CANARY: u8 = 0x5C;

/// Bytes of canary that are laid out and looked at on each side: a cache line and more, so that
/// they share the destination's first and last line.
pub const GUARD: usize = 72;

/// How far off a copy is still recognised as a shifted one.
const FARTHEST_SHIFT: isize = 64;

/// Bytes that must agree before a copy counts as shifted and not as wrong.
const SHIFT_EVIDENCE: usize = 8;

/// Byte `index` of the pattern `seed`.
pub fn byte(seed: u64, index: usize) -> u8 {
    match random::nth(seed, index as u64 / 8).to_le_bytes()[index % 8] {
        POISON => !POISON,
        byte => byte,
    }
}

/// Writes the pattern `seed` over `bytes`.
pub fn fill(bytes: &mut [u8], seed: u64) {
    for (index, to) in bytes.iter_mut().enumerate() {
        *to = byte(seed, index);
    }
}

/// Poisons the `len` bytes at `at` of `bytes` and lays canaries on both sides, as far as there is
/// room.
pub fn lay_out(bytes: &mut [u8], at: usize, len: usize) {
    let end = bytes.len().min(at + len + GUARD);
    bytes[at.saturating_sub(GUARD)..end].fill(CANARY);
    bytes[at..at + len].fill(POISON);
}

/// What is wrong with a copy.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Mismatch {
    /// A byte before the destination was overwritten.
    #[error("lost neighbour: {distance} bytes before the copy is {found:#04x}")]
    CanaryBefore {
        /// Distance from the destination's first byte.
        distance: usize,
        /// What is there now.
        found: u8,
    },
    /// A byte after the destination was overwritten.
    #[error("lost neighbour: {distance} bytes after the copy is {found:#04x}")]
    CanaryAfter {
        /// Distance from the destination's last byte.
        distance: usize,
        /// What is there now.
        found: u8,
    },
    /// Bytes hold what they held before: they were not written, or a cache hides that they were.
    #[error("{count} bytes, the first at {first}, are old")]
    Old {
        /// The first of them.
        first: usize,
        /// How many.
        count: usize,
    },
    /// The right bytes in the wrong place.
    #[error("shifted by {by} bytes")]
    Shifted {
        /// By how many bytes, towards the end.
        by: isize,
    },
    /// A byte is wrong.
    #[error("byte {index} is {found:#04x}, not {expected:#04x}")]
    Wrong {
        /// The first such.
        index: usize,
        /// What it should be.
        expected: u8,
        /// What it is.
        found: u8,
    },
}

/// What a buffer holds in and around a copy.
pub trait Expected {
    /// The byte at `index` of the buffer, which lies beside the copy.
    fn beside(&self, index: usize) -> u8;
    /// What byte `index` of the copy was before. Never what it is to become.
    fn old(&self, index: usize) -> u8;
    /// Byte `index` of the copy.
    fn copied(&self, index: usize) -> u8;
}

/// What [`lay_out`] and then the pattern of this seed leave.
#[derive(Clone, Copy, Debug)]
pub struct LaidOut(pub u64);

impl Expected for LaidOut {
    fn beside(&self, _: usize) -> u8 {
        CANARY
    }

    fn old(&self, _: usize) -> u8 {
        POISON
    }

    fn copied(&self, index: usize) -> u8 {
        byte(self.0, index)
    }
}

/// What the pattern of `seed` leaves of bytes that all were `old`.
#[derive(Clone, Copy, Debug)]
pub struct Over {
    /// Of the pattern.
    pub seed: u64,
    /// What was there before.
    pub old: u8,
}

impl Expected for Over {
    fn beside(&self, _: usize) -> u8 {
        CANARY
    }

    fn old(&self, _: usize) -> u8 {
        self.old
    }

    fn copied(&self, index: usize) -> u8 {
        byte(self.seed, index)
    }
}

/// Looks at the `len` bytes at `at` of `bytes`, laid out by [`lay_out`] and then written with the
/// pattern `seed`.
///
/// # Errors
///
/// The first thing that is wrong: the canaries, then the bytes.
pub fn verify(bytes: &[u8], at: usize, len: usize, seed: u64) -> Result<(), Mismatch> {
    let seen = at.saturating_sub(GUARD)..bytes.len().min(at + len + GUARD);
    let at = at - seen.start;
    compare(&bytes[seen], at, len, &LaidOut(seed))
}

/// Looks at all of `bytes`, of which the `len` bytes at `at` are a copy.
///
/// # Errors
///
/// The first thing that is wrong: what lies nearest before the copy, nearest after it, then the
/// copy from its start.
pub fn compare(
    bytes: &[u8],
    at: usize,
    len: usize,
    expected: &impl Expected,
) -> Result<(), Mismatch> {
    let (before, rest) = bytes.split_at(at);
    let (copy, after) = rest.split_at(len);
    let lost = |&(index, &found): &(usize, &u8)| found != expected.beside(index);
    if let Some((index, &found)) = before.iter().enumerate().rev().find(lost) {
        let distance = at - index;
        return Err(Mismatch::CanaryBefore { distance, found });
    }
    let mut behind = (at + len..).zip(after);
    if let Some((index, &found)) = behind.find(lost) {
        let distance = index - (at + len) + 1;
        return Err(Mismatch::CanaryAfter { distance, found });
    }
    let wrong = |&(index, &found): &(usize, &u8)| found != expected.copied(index);
    let Some((index, &found)) = copy.iter().enumerate().find(wrong) else {
        return Ok(());
    };
    if found == expected.old(index) {
        let is_old = |&(index, &found): &(usize, &u8)| {
            found == expected.old(index) && found != expected.copied(index)
        };
        return Err(Mismatch::Old {
            first: index,
            count: copy.iter().enumerate().filter(is_old).count(),
        });
    }
    let shifts = (1..=FARTHEST_SHIFT).flat_map(|by| [by, -by]);
    match shifts
        .into_iter()
        .find(|&by| is_shifted(copy, expected, by))
    {
        Some(by) => Err(Mismatch::Shifted { by }),
        None => Err(Mismatch::Wrong {
            index,
            expected: expected.copied(index),
            found,
        }),
    }
}

/// Whether all of `copy` that can be is the pattern, `by` bytes further on.
fn is_shifted(copy: &[u8], expected: &impl Expected, by: isize) -> bool {
    let origin = |index: usize| {
        index
            .checked_add_signed(-by)
            .filter(|&from| from < copy.len())
    };
    // A pattern that repeats itself looks the same when it is shifted by its period.
    let shows = |(index, &found): (usize, &u8)| {
        origin(index).is_some_and(|from| found == expected.copied(from))
            && found != expected.copied(index)
    };
    let overlap = copy.len().saturating_sub(by.unsigned_abs());
    overlap >= SHIFT_EVIDENCE
        && copy.iter().enumerate().any(shows)
        && copy
            .iter()
            .enumerate()
            .all(|(index, &found)| origin(index).is_none_or(|from| found == expected.copied(from)))
}

#[cfg(test)]
mod tests {
    use super::*;

    const AT: usize = 100;
    const LEN: usize = 257;

    fn copy(seed: u64) -> Vec<u8> {
        let mut bytes = vec![0; 1024];
        lay_out(&mut bytes, AT, LEN);
        fill(&mut bytes[AT..AT + LEN], seed);
        bytes
    }

    #[test]
    fn a_good_copy_passes_and_every_flaw_is_named() {
        assert_eq!(verify(&copy(7), AT, LEN, 7), Ok(()));
        let flawed = |flaw: &dyn Fn(&mut [u8])| {
            let mut bytes = copy(7);
            flaw(&mut bytes);
            verify(&bytes, AT, LEN, 7).unwrap_err()
        };
        for index in [0, 1, 128, LEN - 1] {
            let found = flawed(&|bytes| bytes[AT + index] ^= 0x10);
            assert!(
                matches!(found, Mismatch::Wrong { index: at, .. } if at == index)
                    || matches!(found, Mismatch::Old { .. })
            );
        }
        assert_eq!(
            flawed(&|bytes| bytes[AT + LEN - 3..AT + LEN].fill(POISON)),
            Mismatch::Old {
                first: LEN - 3,
                count: 3
            }
        );
        for by in [1_isize, 3, 4, 63, -1, -4, -64] {
            let found = flawed(&|bytes| {
                for index in 0..LEN {
                    let origin = index.checked_add_signed(-by).filter(|&from| from < LEN);
                    bytes[AT + index] = origin.map_or(0x77, |from| byte(7, from));
                }
            });
            assert_eq!(found, Mismatch::Shifted { by });
        }
        assert_eq!(
            flawed(&|bytes| bytes[AT - 1] = 1),
            Mismatch::CanaryBefore {
                distance: 1,
                found: 1
            }
        );
        assert_eq!(
            flawed(&|bytes| bytes[AT + LEN + 63] = 2),
            Mismatch::CanaryAfter {
                distance: 64,
                found: 2
            }
        );
    }

    /// The runner has the same bytes in a test of the file it makes for the suite `fw_cfg`.
    #[test]
    fn the_pattern_is_the_runners() {
        let first: Vec<_> = (0..8).map(|index| byte(0x6677_5F63_6667, index)).collect();
        assert_eq!(first, [0x14, 0xCC, 0x09, 0xCE, 0xCA, 0x5A, 0xD6, 0x8C]);
    }

    #[test]
    fn no_pattern_holds_poison_and_seeds_differ() {
        let bytes = |seed| (0..4096).map(|index| byte(seed, index)).collect::<Vec<_>>();
        assert!(!bytes(1).contains(&POISON));
        assert_ne!(bytes(1), bytes(2));
    }
}
