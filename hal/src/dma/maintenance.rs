//! Cache maintenance of a buffer by range, for devices that do not snoop.
//!
//! The rules are those of Linux on arm64. For the device, every direction cleans: a buffer the
//! device is to write may hold dirty lines too, and a device that writes less than announced must
//! not uncover older bytes. For the CPU, a buffer the device only read needs nothing; any other is
//! invalidated, because the CPU may have prefetched lines while the device wrote. A line of which
//! only a part belongs to the buffer is cleaned as well as invalidated, so that what a neighbour
//! stored survives.
//!
//! Data caches behave as physically indexed and tagged on every Armv8 core (Arm ARM D7.5.1), so
//! maintenance through any cacheable mapping of a frame covers all of them.

use crate::addr::VirtAddr;
use crate::arch::{barrier, cache};
use core::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

static CLEANED: AtomicU64 = AtomicU64::new(0);
static INVALIDATED: AtomicU64 = AtomicU64::new(0);
static CLEANED_AND_INVALIDATED: AtomicU64 = AtomicU64::new(0);

/// How many lines were maintained since boot, by operation.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// `DC CVAC`.
    pub cleaned: u64,
    /// `DC IVAC`.
    pub invalidated: u64,
    /// `DC CIVAC`: lines shared with a neighbour.
    pub cleaned_and_invalidated: u64,
}

/// The counters of all cores together.
pub fn counters() -> Counters {
    Counters {
        cleaned: CLEANED.load(Ordering::Relaxed),
        invalidated: INVALIDATED.load(Ordering::Relaxed),
        cleaned_and_invalidated: CLEANED_AND_INVALIDATED.load(Ordering::Relaxed),
    }
}

/// Bytes in a word, the unit in which `CTR_EL0` counts (Arm ARM D24.2.34).
const WORD: usize = 4;

/// Bytes in the smallest data cache line of the system: `CTR_EL0.DminLine`.
#[inline(always)]
pub fn line_size() -> usize {
    1 << line_shift()
}

/// log2 of [`line_size`].
#[inline(always)]
fn line_shift() -> u32 {
    (cache::ctr_el0() >> 16 & 0xF) as u32 + WORD.ilog2()
}

/// The writeback granule Linux assumes where `CTR_EL0.CWG` is 0, "not known": `ARCH_DMA_MINALIGN`.
const UNKNOWN_GRANULE: usize = 128;

/// Bytes that a cache may write back together: the larger of the line size and `CTR_EL0.CWG`.
///
/// Buffers that devices write start on multiples of it and are multiples of it long, or are copied.
/// Two buffers in one granule are not independent as soon as a device writes one of them.
#[doc(alias = "dma_get_cache_alignment")]
#[inline(always)]
pub fn writeback_granule() -> usize {
    match GRANULE.load(Ordering::Relaxed) {
        0 => find_granule(),
        granule => granule,
    }
}

/// [`writeback_granule`] once a core has looked, 0 before. All cores of a machine say the same.
static GRANULE: AtomicUsize = AtomicUsize::new(0);

#[cold]
fn find_granule() -> usize {
    let granule = match (cache::ctr_el0() >> 24) & 0xF {
        0 => UNKNOWN_GRANULE,
        log2_words => WORD << log2_words,
    };
    let granule = granule.max(line_size());
    GRANULE.store(granule, Ordering::Relaxed);
    granule
}

/// Bytes up to which lines are maintained where the call is; a longer run goes through a longer loop.
const FEW: usize = 512;

/// Calls `op` for each line from `first` up to the one that holds the byte before `end`, at least
/// one, and returns how many there are.
#[inline(always)]
fn for_each_line(
    first: usize,
    end: usize,
    op: impl Fn(VirtAddr),
    many: impl Fn(usize, usize, usize) -> usize,
) -> usize {
    let shift = line_shift();
    let mut at = first;
    if end.wrapping_sub(first) > FEW {
        at = many(first, end, 1 << shift);
    } else {
        loop {
            op(VirtAddr::new(at));
            at = at.wrapping_add(1 << shift);
            if at >= end {
                break;
            }
        }
    }
    at.wrapping_sub(first) >> shift
}

/// Calls `op` for each line from `first` up to the one that holds the byte before `end`, and returns
/// where that one ends. Many lines a round: the loop's own instructions would otherwise cost as much
/// as the maintenance.
#[inline(always)]
fn for_many_lines(first: usize, end: usize, line: usize, op: impl Fn(VirtAddr)) -> usize {
    const UNROLL: usize = 32;

    let mut at = first;
    let mut step = || {
        op(VirtAddr::new(at));
        at = at.wrapping_add(line);
        at
    };
    // Lines are powers of two long.
    let rounds = end.wrapping_sub(first) & line.wrapping_mul(UNROLL).wrapping_neg();
    let mut done = first;
    while done != first.wrapping_add(rounds) {
        for _ in 0..UNROLL {
            done = step();
        }
    }
    while done < end {
        done = step();
    }
    done
}

/// Cleans the lines of `line` bytes from `first` up to the one that holds the byte before `end`, and
/// returns where that one ends.
#[inline(never)]
fn clean_many(first: usize, end: usize, line: usize) -> usize {
    for_many_lines(first, end, line, |at| {
        cache::clean_line(at);
    })
}

/// As [`clean_many`], invalidating.
///
/// # Safety
///
/// As for [`invalidate`]; `first` and `end` are multiples of the line size.
#[inline(never)]
unsafe fn invalidate_many(first: usize, end: usize, line: usize) -> usize {
    // SAFETY: the lines lie in the range whole, and the caller gives up their dirty bytes.
    for_many_lines(first, end, line, |at| unsafe { cache::invalidate_line(at) })
}

/// Writes every line of the `len` bytes at `va` back to the point of coherency, without the
/// barrier that completes it. The range must be mapped.
#[inline(always)]
pub(super) fn clean(va: VirtAddr, len: usize) {
    let first = va.get() & !(line_size() - 1);
    let end = va.get().wrapping_add(len);
    let one = |at| {
        cache::clean_line(at);
    };
    let lines = for_each_line(first, end, one, clean_many);
    CLEANED.fetch_add(lines as u64, Ordering::Relaxed);
}

/// Writes back and drops every line of the `len` bytes at `va`, whole lines, and waits for it:
/// whatever cached a frame before it was mapped otherwise is gone. Not counted: the counters are
/// about buffers that change hands. The range must be mapped, as any type.
pub(super) fn drop_lines(va: VirtAddr, len: usize) {
    let first = va.get();
    for_many_lines(first, first + len, line_size(), |at| {
        cache::clean_invalidate_line(at);
    });
    barrier::dsb_sy();
}

/// Drops every line of the `len` bytes at `va`, writing back those that the range does not cover
/// whole. Leaves the completing barrier to the caller.
///
/// # Safety
///
/// The range is mapped, and what the CPU stored to it since it was last cleaned may be lost.
#[inline(always)]
pub(super) unsafe fn invalidate(va: VirtAddr, len: usize) {
    let inside = line_size() - 1;
    let mut first = va.get();
    let mut end = first.wrapping_add(len);
    if (first | end) & inside != 0 {
        (first, end) = clean_invalidate_ends(first, end);
    }
    if first < end {
        // SAFETY: the lines lie in the range whole, and the caller gives up their dirty bytes.
        let one = |at| unsafe { cache::invalidate_line(at) };
        // SAFETY: as above.
        let many = |first, end, line| unsafe { invalidate_many(first, end, line) };
        let lines = for_each_line(first, end, one, many);
        INVALIDATED.fetch_add(lines as u64, Ordering::Relaxed);
    }
}

/// Cleans and invalidates the lines that the bytes from `start` up to `end` do not cover whole.
/// Returns where those that they do cover start and end.
#[cold]
fn clean_invalidate_ends(start: usize, end: usize) -> (usize, usize) {
    let line = line_size();
    let last = end & !(line - 1);
    let mut first = start & !(line - 1);
    let mut shared = 0;
    if first != start {
        cache::clean_invalidate_line(VirtAddr::new(first));
        shared += 1;
        first += line;
    }
    // A range inside one line ends in the line that was just done.
    if last != end && first <= last {
        cache::clean_invalidate_line(VirtAddr::new(last));
        shared += 1;
    }
    CLEANED_AND_INVALIDATED.fetch_add(shared, Ordering::Relaxed);
    (first, last)
}

/// Completes maintenance: what was cleaned is in memory, what was invalidated is gone.
#[inline(always)]
pub(super) fn complete() {
    barrier::dsb_sy();
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::arch::trace::{Op, record_during};
    use proptest::prelude::*;

    const LINE: usize = 64;

    fn ops(start: usize, len: usize) -> (Vec<Op>, Vec<Op>) {
        let va = VirtAddr::new(0x10_0000 + start);
        let ((), cleaned) = record_during(|| clean(va, len));
        // SAFETY: the twin loses nothing.
        let ((), invalidated) = record_during(|| unsafe { invalidate(va, len) });
        (cleaned, invalidated)
    }

    fn line(offset: usize) -> VirtAddr {
        VirtAddr::new(0x10_0000 + offset)
    }

    #[test]
    fn a_cortex_a72_has_64_byte_lines_and_granules() {
        assert_eq!(line_size(), 64);
        assert_eq!(writeback_granule(), 64);
    }

    #[test]
    fn whole_lines_are_invalidated_plainly() {
        let (cleaned, invalidated) = ops(0, 2 * LINE);
        assert_eq!(cleaned, [Op::Clean(line(0)), Op::Clean(line(64))]);
        assert_eq!(
            invalidated,
            [Op::Invalidate(line(0)), Op::Invalidate(line(64))]
        );
    }

    #[test]
    fn partial_first_and_last_lines_are_cleaned_too() {
        let (cleaned, invalidated) = ops(1, 3 * LINE);
        assert_eq!(cleaned.len(), 4);
        assert_eq!(
            invalidated,
            [
                Op::CleanInvalidate(line(0)),
                Op::CleanInvalidate(line(192)),
                Op::Invalidate(line(64)),
                Op::Invalidate(line(128)),
            ]
        );
    }

    #[test]
    fn a_range_inside_one_line_is_cleaned_too() {
        for (start, len) in [(0, 1), (63, 1), (1, 62), (0, 63), (1, 63)] {
            let (cleaned, invalidated) = ops(start, len);
            assert_eq!(cleaned, [Op::Clean(line(0))], "{start}+{len}");
            assert_eq!(invalidated, [Op::CleanInvalidate(line(0))], "{start}+{len}");
        }
    }

    proptest! {
        /// Byte by byte: a line is touched iff it holds a byte of the range, once, and plainly
        /// invalidated iff all its bytes are in the range.
        #[test]
        fn every_line_once_and_no_neighbour_lost(start in 0_usize..200, len in 1_usize..600) {
            let (_, invalidated) = ops(start, len);
            let (mut expected, mut whole) = (Vec::new(), Vec::new());
            for base in (0..1024).step_by(LINE) {
                let inside = (base..base + LINE).filter(|b| (start..start + len).contains(b)).count();
                match inside {
                    0 => {}
                    LINE => whole.push(Op::Invalidate(line(base))),
                    _ => expected.push(Op::CleanInvalidate(line(base))),
                }
            }
            expected.append(&mut whole);
            prop_assert_eq!(invalidated, expected);
        }
    }
}
