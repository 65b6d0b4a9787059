//! Emptying a stretch of a contiguous memory area.
//!
//! 1. The blocks around the stretch are isolated: nobody allocates from them any more.
//! 2. From its start on, free memory is taken off the lists, and what is in use is moved away by
//!    its owner and then taken. Pages that a core keeps at hand look as if they were in use, so
//!    the cores are asked to give them back before anything is given up; one that runs a task does
//!    not answer.
//! 3. What was isolated and not taken is lent again.
//!
//! On failure everything that was taken goes back; what was moved stays where it is now.

use super::AllocError;
use super::movable::{Migration, Turn, Unmoved};
use super::page::PageAllocator;
use super::zone::Found;
use crate::addr::Pfn;
use crate::smp;
use core::ops::Range;

/// How often memory that is in use is looked at again before its stretch is given up: it may be on
/// its way to or from somebody.
const TRIES: u32 = 3;

/// Why a stretch was not emptied.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Obstacle {
    /// The frame is in use and stays where it is.
    Busy(Pfn),
    /// There is no memory to move a block to.
    NoTarget(AllocError),
}

/// Takes the frames of `wanted`, part of one contiguous memory area, out of their zone, and returns
/// how many pages were moved for it. They belong to the caller, as tails, until
/// [`Zone::give_range`](super::Zone::give_range). Task context.
///
/// # Errors
///
/// [`Obstacle`]; the frames are then lent as before.
pub(super) fn take(
    pages: &PageAllocator,
    migration: &Migration,
    turn: &Turn<'_>,
    wanted: &Range<Pfn>,
) -> Result<u32, Obstacle> {
    let zone = pages.zone_at(wanted.start);
    let frames = pages.frames();
    zone.isolate(frames, wanted);
    let (mut at, mut moved, mut tries) = (wanted.start, 0, 0);
    let obstacle = loop {
        if at == wanted.end {
            break None;
        }
        let stuck = match zone.take_range(frames, &(at..wanted.end)) {
            Found::Taken(end) => {
                (at, tries) = (end, 0);
                continue;
            }
            Found::Movable(block) => match migration.migrate(turn, pages, &block) {
                Ok(()) => {
                    moved += 1 << block.order;
                    continue;
                }
                Err(Unmoved::Pinned) => block.pfn.max(at),
                Err(Unmoved::NoTarget(error)) => break Some(Obstacle::NoTarget(error)),
            },
            Found::InUse => at,
        };
        tries += 1;
        if tries == TRIES {
            break Some(Obstacle::Busy(stuck));
        }
        // A core that runs a task keeps what it has at hand: it may be waiting for this one.
        let _ = smp::try_run_on_all(|_| pages.drain());
    };
    if obstacle.is_some() {
        // SAFETY: the frames before `at` were taken above, and are tails.
        unsafe { zone.give_range(frames, &(wanted.start..at)) };
    }
    zone.lend_again(frames, wanted);
    match obstacle {
        None => Ok(moved),
        Some(obstacle) => Err(obstacle),
    }
}
