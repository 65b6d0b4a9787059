//! A channel that follows a chain of control blocks: what legacy ones and DMA4 have in common.

use crate::device::found::{Found, Jobs};
use crate::device::{Event, JobId, Memory};
use std::collections::HashSet;

/// Control and status.
const CS: u64 = 0x00;
/// Runs the channel; reads 0 after the last control block.
const CS_ACTIVE: u32 = 1 << 0;
/// An interrupt is raised. Write 1 to clear.
const CS_INT: u32 = 1 << 2;
/// Pointer to the current control block; reads 0 after the last.
const BLOCK_POINTER: u64 = 0x04;

/// Control blocks of a chain. A longer one is not followed to its end.
pub(super) const MAX_BLOCKS: usize = 4096;

/// What kinds of channels differ in.
pub(super) trait Layout {
    /// The register with the pointer to the control block after the current one.
    const NEXT_POINTER: u64;

    /// The bits of CS that make the channel give up what it does, as soon as it can.
    const CS_GIVES_UP: u32;

    /// Whether a store makes the channel forget everything.
    fn resets(register: u64, value: u32) -> bool;

    /// Reads the control block at `pointer`; `None` if it cannot be read.
    fn block(&self, pointer: u32, memory: &dyn Memory, found: &mut Found) -> Option<Block>;
}

/// What a control block says about its chain.
pub(super) struct Block {
    /// Pointer to the next control block, 0 at the end.
    pub(super) next: u32,
    /// Whether its end raises the interrupt.
    pub(super) interrupts: bool,
}

/// A channel.
#[derive(Debug, Default)]
pub(super) struct Channel {
    /// The control block it was given and not started with.
    first: u32,
    running: Option<Running>,
}

/// A job whose end the CPU has not seen.
#[derive(Clone, Copy, Debug)]
struct Running {
    job: JobId,
    /// No other control block than the last raises the interrupt.
    interrupt_is_end: bool,
    /// The CPU has made it pause: that it is not active does not say that it has ended.
    is_paused: bool,
    /// The CPU has made it give up: once not active, it has.
    gives_up: bool,
}

impl Channel {
    #[expect(
        clippy::too_many_arguments,
        reason = "what an access is, and where it is told"
    )]
    pub(super) fn store<L: Layout>(
        &mut self,
        layout: &L,
        is_enabled: bool,
        register: u64,
        value: u32,
        jobs: &mut Jobs,
        memory: &dyn Memory,
        events: &mut Vec<Event>,
    ) {
        if L::resets(register, value) {
            self.first = 0;
            self.complete(events);
        } else if register == BLOCK_POINTER {
            self.first = value;
        } else if register == L::NEXT_POINTER {
            if let Some(running) = &mut self.running {
                let mut found = Found::default();
                running.interrupt_is_end = follow(layout, value, memory, &mut found);
                found.extend(running.job, events);
            }
        } else if register == CS {
            let is_active = value & CS_ACTIVE != 0;
            if value & CS_INT != 0 {
                self.interrupted(events);
            }
            if is_active && is_enabled && self.first != 0 {
                // A channel that is given another chain has ended, or the CPU must think so.
                self.complete(events);
                let first = std::mem::take(&mut self.first);
                let mut found = Found::default();
                let interrupt_is_end = follow(layout, first, memory, &mut found);
                let job = jobs.next();
                found.start(job, events);
                self.running = Some(Running {
                    job,
                    interrupt_is_end,
                    is_paused: false,
                    gives_up: false,
                });
            } else if let Some(running) = &mut self.running {
                running.is_paused = !is_active;
                running.gives_up |= value & L::CS_GIVES_UP != 0;
            }
        }
    }

    pub(super) fn load(&mut self, register: u64, value: u32, events: &mut Vec<Event>) {
        let Some(running) = &self.running else {
            return;
        };
        let has_ended = match register {
            CS => value & CS_ACTIVE == 0 && (!running.is_paused || running.gives_up),
            BLOCK_POINTER => value == 0,
            _ => false,
        };
        if has_ended {
            self.complete(events);
        }
    }

    /// The CPU has seen the interrupt, or makes it go away.
    pub(super) fn interrupted(&mut self, events: &mut Vec<Event>) {
        if self.running.is_some_and(|running| running.interrupt_is_end) {
            self.complete(events);
        }
    }

    fn complete(&mut self, events: &mut Vec<Event>) {
        let ended = self.running.take();
        events.extend(ended.map(|Running { job, .. }| Event::Completed { job }));
    }
}

/// Follows the chain from `first` on. Returns whether its last control block, and no other, raises the
/// interrupt.
fn follow<L: Layout>(layout: &L, first: u32, memory: &dyn Memory, found: &mut Found) -> bool {
    let mut seen = HashSet::new();
    let mut pointer = first;
    let mut is_early = false;
    let mut is_at_end = false;
    while pointer != 0 && seen.insert(pointer) {
        if seen.len() > MAX_BLOCKS {
            found.leave_out();
            return false;
        }
        let Some(block) = layout.block(pointer, memory, found) else {
            return false;
        };
        match block.next {
            0 => is_at_end = block.interrupts,
            _ => is_early |= block.interrupts,
        }
        pointer = block.next;
    }
    is_at_end && !is_early
}
