//! The shape of one copy.

use super::contents::{Contents, Pattern};
use super::options::{BadOptions, Kind, Lengths, Options, Patterns};
use crate::pattern::GUARD;
use crate::random::{self, Random};

/// Bytes of a buffer on each side of where copies may be: at least what a lost neighbour is looked
/// for in, and whole cache lines.
const MARGIN: usize = GUARD.next_multiple_of(2 * hal::dma::ALIGNMENT);

/// Bits of a copy's number below those of its core, and of that below those of its engine.
const CORE_SHIFT: u32 = 32;
const ENGINE_SHIFT: u32 = 40;

/// Which copy of a run it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Number {
    /// The engine, in the order of the machine's.
    pub engine: usize,
    /// The submitting core.
    pub core: usize,
    /// From 0.
    pub iteration: u32,
}

/// One copy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shape {
    /// Bytes.
    pub len: usize,
    /// Where the copied bytes start in the source's buffer.
    pub src: usize,
    /// Where they go in the destination's buffer.
    pub dst: usize,
    /// The memory of the source.
    pub from: Kind,
    /// The memory of the destination.
    pub to: Kind,
    pattern: Pattern,
}

/// What the shapes of an engine's copies are drawn from.
#[derive(Clone, Copy, Debug)]
pub struct Shapes<'a> {
    options: &'a Options<'a>,
    lengths: Lengths,
    granule: usize,
    seed: u64,
}

impl<'a> Shapes<'a> {
    /// The shapes that `options` allow an engine that copies multiples of `granule` bytes.
    ///
    /// # Errors
    ///
    /// [`BadOptions`].
    pub fn new(options: &'a Options<'a>, granule: usize, seed: u64) -> Result<Self, BadOptions> {
        let lengths = options.lengths(granule)?;
        Ok(Self {
            options,
            lengths,
            granule,
            seed,
        })
    }

    /// Bytes of a buffer that every shape fits into.
    pub const fn room(&self) -> usize {
        2 * MARGIN + self.options.offsets.bound() + self.lengths.last * self.lengths.step
    }

    /// The shape of a copy, the same whenever it is asked for.
    pub fn draw(&self, number: Number) -> Shape {
        let Number {
            engine,
            core,
            iteration,
        } = number;
        let stream =
            (engine as u64) << ENGINE_SHIFT | (core as u64) << CORE_SHIFT | u64::from(iteration);
        let mut random = Random::new(random::nth(self.seed, stream), 0);
        let Lengths { first, last, step } = self.lengths;
        let options = self.options;
        let kinds = options.memory.kinds();
        let mut kind = || kinds[random.below(kinds.len())];
        let (from, to) = (kind(), kind());
        let mut offset = |kind| {
            let step = match kind {
                // A copy is cut where a page ends, and each piece is of whole granules.
                Kind::Vmalloc => options.alignment.max(self.granule),
                Kind::Kmalloc | Kind::Coherent => options.alignment,
            };
            MARGIN + random.below(options.offsets.bound() / step + 1) * step
        };
        let (src, dst) = (offset(from), offset(to));
        let bits = match options.patterns {
            Patterns::Bits => true,
            Patterns::Random => false,
            Patterns::Mixed => iteration.is_multiple_of(2),
        };
        Shape {
            len: (first + random.below(last - first + 1)) * step,
            src,
            dst,
            from,
            to,
            pattern: match bits {
                true => Pattern::Bits,
                false => Pattern::Random(random.draw()),
            },
        }
    }
}

impl Shape {
    /// What the buffers hold.
    pub const fn contents(&self) -> Contents {
        Contents::new(self.pattern, self.src, self.dst, self.len)
    }
}

#[cfg(test)]
mod tests {
    use super::super::options::{MAX_ALIGNMENT, MAX_SIZE, Memory, Offsets};
    use super::*;
    use proptest::prelude::*;
    use std::collections::HashSet;

    fn number(iteration: u32) -> Number {
        Number {
            engine: 1,
            core: 3,
            iteration,
        }
    }

    #[test]
    fn shapes_can_be_had_again_and_differ_by_all_that_numbers_them() {
        let options = Options::default();
        let shapes = Shapes::new(&options, 1, 7).unwrap();
        let other = Shapes::new(&options, 1, 8).unwrap();
        let drawn = shapes.draw(number(5));
        assert_eq!(drawn, Shapes::new(&options, 1, 7).unwrap().draw(number(5)));
        assert_ne!(drawn, other.draw(number(5)));
        assert_ne!(drawn, shapes.draw(number(7)));
        let elsewhere = [
            Number {
                core: 2,
                ..number(5)
            },
            Number {
                engine: 0,
                ..number(5)
            },
        ];
        for number in elsewhere {
            assert_ne!(drawn, shapes.draw(number));
        }
    }

    #[test]
    fn every_kind_of_memory_and_both_patterns_come_up() {
        let options = Options::default();
        let shapes = Shapes::new(&options, 4, 7).unwrap();
        let drawn: Vec<_> = (0..200).map(|n| shapes.draw(number(n))).collect();
        let pairs: HashSet<_> = drawn
            .iter()
            .map(|s| (s.from.to_string(), s.to.to_string()))
            .collect();
        assert_eq!(pairs.len(), 9);
        let bits = drawn.iter().filter(|s| s.pattern == Pattern::Bits).count();
        assert_eq!(bits, 100);
    }

    #[test]
    fn what_cannot_be_is_named() {
        let sizes = |min_size, max_size, alignment, granule| {
            let options = Options {
                min_size,
                max_size,
                alignment,
                ..Options::default()
            };
            options.lengths(granule).map(drop)
        };
        assert_eq!(
            sizes(10, 9, 1, 1),
            Err(BadOptions::Sizes { min: 10, max: 9 })
        );
        let none = |min, max, step| Err(BadOptions::NoLength { min, max, step });
        assert_eq!(sizes(1, 3, 1, 4), none(1, 3, 4));
        assert_eq!(sizes(65, 127, 64, 4), none(65, 127, 64));
        assert_eq!(sizes(1, 4, 1, 4), Ok(()));
        assert_eq!(sizes(64, 64, 64, 1), Ok(()));
    }

    proptest! {
        #[test]
        fn a_shape_keeps_to_what_was_asked_for(
            (min_size, max_size) in (1..=MAX_SIZE).prop_flat_map(|max| (1..=max, Just(max))),
            alignment in 0..=MAX_ALIGNMENT.ilog2(),
            granule in 0_u32..3,
            bound in 0..10_000_usize,
            seed: u64,
            iteration: u32,
        ) {
            let (alignment, granule) = (1 << alignment, 1 << granule);
            let options = Options {
                min_size,
                max_size,
                alignment,
                offsets: Offsets::Within(bound),
                memory: Memory::Only(Kind::Vmalloc),
                ..Options::default()
            };
            let Ok(shapes) = Shapes::new(&options, granule, seed) else {
                let step = alignment.max(granule);
                prop_assert!((min_size..=max_size).all(|len| len % step != 0));
                return Ok(());
            };
            let Shape { len, src, dst, from, to, .. } = shapes.draw(number(iteration));
            prop_assert!((min_size..=max_size).contains(&len) && len % granule == 0);
            prop_assert_eq!((from, to), (Kind::Vmalloc, Kind::Vmalloc));
            for at in [src, dst] {
                prop_assert!(at % alignment == 0 && at % granule == 0 && at - MARGIN <= bound);
                prop_assert!(at >= GUARD && at + len + GUARD <= shapes.room());
            }
        }
    }
}
