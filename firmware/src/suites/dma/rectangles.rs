//! Rectangles: rows that lie apart arrive, what lies between them stays.

use super::each_engine;
use crate::machine::machine;
use crate::memory::{Object, reachable};
use crate::pattern;
use crate::report::{self, Outcome, Stop};
use crate::{check, check_ok};
use core::sync::atomic::{AtomicU32, Ordering};
use hal::addr::PAGE_SIZE;
use hal::dma::engine::{Completion, copy_2d};
use hal::dma::streaming::map_slice;
use hal::dma::{Coherent, DmaEngine, DmaError, Rectangle, ToDevice};

/// Bytes in each buffer.
const LEN: usize = PAGE_SIZE;

/// A rectangle and where its first row starts on either side.
#[derive(Clone, Copy)]
struct Case {
    src_at: usize,
    dst_at: usize,
    shape: Rectangle,
}

const fn case(at: [usize; 2], rows: usize, row_len: usize, strides: [i16; 2]) -> Case {
    Case {
        src_at: at[0],
        dst_at: at[1],
        shape: Rectangle {
            rows,
            row_len,
            src_stride: strides[0],
            dst_stride: strides[1],
        },
    }
}

/// Cut out, put in, one row, upside down, one row again and again. Whole words, for QEMU's Pi model.
const CASES: [Case; 5] = [
    case([8, 0], 9, 52, [12, 0]),
    case([0, 64], 16, 64, [0, 64]),
    case([4, 4], 1, 128, [100, -100]),
    case([0, 2048], 8, 32, [0, -96]),
    case([16, 0], 4, 64, [-64, 64]),
];

/// Where byte `byte` of row `row` lies.
fn place(at: usize, row_len: usize, stride: i16, row: usize, byte: usize) -> usize {
    let step = row_len as isize + isize::from(stride);
    at.wrapping_add_signed(step * row as isize) + byte
}

/// The first byte of `seen` that is not what a copy of `case` over poison leaves there.
fn difference(source: &[u8], seen: &[u8], case: Case) -> Option<usize> {
    let Rectangle {
        rows,
        row_len,
        src_stride,
        dst_stride,
    } = case.shape;
    let expected = |index: usize| {
        let places = (0..rows).flat_map(|row| (0..row_len).map(move |byte| (row, byte)));
        let mut sources = places
            .filter(|&(row, byte)| place(case.dst_at, row_len, dst_stride, row, byte) == index)
            .map(|(row, byte)| place(case.src_at, row_len, src_stride, row, byte));
        sources.next().map_or(pattern::POISON, |at| source[at])
    };
    (0..LEN).find(|&index| seen[index] != expected(index))
}

/// The two buffers of a copy.
struct Sides {
    source: Object,
    pooled: Coherent,
}

impl Sides {
    /// Copies `case` over poison.
    fn copy(&mut self, engine: &dyn DmaEngine, case: Case) -> Result<(), DmaError> {
        pattern::fill(&mut self.source, machine().seed);
        self.pooled.as_mut_slice().fill(pattern::POISON);
        let mapping = map_slice::<ToDevice>(engine.device(), &mut self.source)?;
        let mut part = self.pooled.part_mut(0, LEN)?;
        copy_2d(
            engine,
            (&mapping, case.src_at),
            (&mut part, case.dst_at),
            case.shape,
            Completion::Interrupt,
        )
    }
}

/// Runs `test` with each engine that copies rectangles.
fn each(test: impl Fn(&'static dyn DmaEngine, Sides) -> Outcome) -> Outcome {
    let tested = AtomicU32::new(0);
    each_engine(|engine| {
        let device = engine.device();
        let mut sides = Sides {
            source: check_ok!(Object::zeroed(LEN, reachable(device))),
            pooled: check_ok!(machine().pool.alloc(device, LEN)),
        };
        let [first, ..] = CASES;
        if let Err(error @ DmaError::NoRectangles { .. }) = sides.copy(engine, first) {
            report::diagnostic(format_args!("{error}"));
            return Ok(());
        }
        tested.fetch_add(1, Ordering::Relaxed);
        test(engine, sides)
    })?;
    match tested.into_inner() {
        0 => Err(Stop::Skipped("no engine copies rectangles")),
        _ => Ok(()),
    }
}

pub(super) fn arrive() -> Outcome {
    each(|engine, mut sides| {
        for (number, case) in CASES.into_iter().enumerate() {
            check_ok!(sides.copy(engine, case));
            let wrong = difference(&sides.source, sides.pooled.as_slice(), case);
            check!(wrong.is_none(), "case {number}: byte {wrong:?}");
        }
        report::diagnostic(format_args!(
            "engine={} rectangles={} observed=data",
            engine.device().name(),
            CASES.len()
        ));
        Ok(())
    })
}

/// A row too few, a row too many, and a wrong stride are found.
pub(super) fn planted() -> Outcome {
    each(|engine, mut sides| {
        let [asked, ..] = CASES;
        for (rows, src_stride) in [(8, 12), (10, 12), (9, 8)] {
            let done = Case {
                shape: Rectangle {
                    rows,
                    src_stride,
                    ..asked.shape
                },
                ..asked
            };
            check_ok!(sides.copy(engine, done));
            check!(
                difference(&sides.source, sides.pooled.as_slice(), asked).is_some(),
                "{rows} rows with stride {src_stride} passed"
            );
        }
        Ok(())
    })
}

pub(super) fn refused() -> Outcome {
    each(|engine, mut sides| {
        let outside = [
            // A byte past the end of the source, and of the destination.
            case([1, 0], 1, LEN, [0, 0]),
            case([0, 4], 2, 1024, [0, 2048]),
            // Below its start.
            case([0, 64], 3, 32, [0, -96]),
            // More than there can be.
            case([0, 0], usize::MAX, usize::MAX, [0, 0]),
        ];
        for (number, case) in outside.into_iter().enumerate() {
            match sides.copy(engine, case) {
                Err(error @ DmaError::OutOfBounds { .. }) => {
                    report::diagnostic(format_args!("{error}"));
                }
                other => return report::failed(format_args!("case {number}: {other:?}")),
            }
        }
        for (rows, row_len) in [(0, 4), (4, 0)] {
            let empty = sides.copy(engine, case([0, 0], rows, row_len, [0, 0]));
            check!(empty == Err(DmaError::ZeroLength), "{empty:?}");
        }
        let tall = case([0, 0], 1 << 20, 4, [-4, -4]);
        let too_tall = sides.copy(engine, tall);
        check!(
            matches!(too_tall, Err(DmaError::RectangleTooLarge { .. })),
            "{too_tall:?}"
        );
        check_ok!(sides.copy(engine, CASES[1]));
        Ok(())
    })
}
