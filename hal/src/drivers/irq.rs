//! Interrupt dispatch: from the exception vector to the driver that owns the line.

use super::gic::{Gic, LINES, Line};
use crate::dma::DmaEngine;
use crate::sync::{IrqLock, Once, PerCpu};
use core::fmt;
use core::sync::atomic::{AtomicU32, Ordering};
use thiserror::Error;

/// What runs when a line is raised.
pub trait IrqHandler: Sync {
    /// Serves `line`: makes the device withdraw a level-sensitive line before it returns.
    ///
    /// Runs with IRQs masked on the core the interrupt was sent to, and may not block.
    fn handle(&self, line: Line);
}

/// The interrupt of a DMA engine.
///
/// The line has no other handler. If it stays raised although the engine has nothing to say, it is
/// disabled: its core would do nothing else any more. [`Interrupts::silenced`] tells of it. The engine
/// then goes on with [polled](crate::dma::Completion::Polled) copies only.
#[derive(Debug)]
pub struct EngineInterrupt {
    engine: &'static dyn DmaEngine,
    /// Interrupts since the last that was the engine's.
    foreign: AtomicU32,
}

/// Interrupts in a row that may be somebody else's. A few are: a level-sensitive line may be taken
/// once more while the device is withdrawing it.
const FOREIGN_LIMIT: u32 = 1_000;

impl EngineInterrupt {
    /// The interrupt of `engine`.
    pub const fn new(engine: &'static dyn DmaEngine) -> Self {
        Self {
            engine,
            foreign: AtomicU32::new(0),
        }
    }

    /// Serves the interrupt and returns whether the line may go on.
    fn serve(&self) -> bool {
        if self.engine.on_interrupt() {
            self.foreign.store(0, Ordering::Relaxed);
            return true;
        }
        self.foreign.fetch_add(1, Ordering::Relaxed) < FOREIGN_LIMIT
    }
}

impl IrqHandler for EngineInterrupt {
    fn handle(&self, line: Line) {
        if !self.serve()
            && let Some(interrupts) = interrupts()
        {
            interrupts.silence(line);
        }
    }
}

/// Why a handler was not registered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum IrqError {
    /// The line has a handler already. Sharing a line needs a handler that knows both devices.
    #[error("{0} has a handler already")]
    Taken(Line),
}

/// The handler of each line.
///
/// Some 16 KiB, so it lives in a static and is never moved over a stack.
pub struct Handlers(IrqLock<[Option<&'static dyn IrqHandler>; LINES]>);

impl Handlers {
    /// No line has a handler.
    pub const fn new() -> Self {
        Self(IrqLock::new([None; LINES]))
    }
}

impl Default for Handlers {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for Handlers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Handlers").finish_non_exhaustive()
    }
}

/// Lines, one bit each.
#[derive(Debug)]
struct LineSet([AtomicU32; LINES.div_ceil(u32::BITS as usize)]);

impl LineSet {
    const fn new() -> Self {
        Self([const { AtomicU32::new(0) }; _])
    }

    fn insert(&self, line: Line) {
        let (word, bit) = Self::place(line);
        self.0[word].fetch_or(bit, Ordering::Relaxed);
    }

    fn contains(&self, line: Line) -> bool {
        let (word, bit) = Self::place(line);
        self.0[word].load(Ordering::Relaxed) & bit != 0
    }

    fn place(line: Line) -> (usize, u32) {
        let bits = u32::BITS as usize;
        (line.index() / bits, 1 << (line.index() % bits))
    }
}

/// An interrupt controller and the handlers of its lines.
#[derive(Debug)]
pub struct Interrupts {
    gic: Gic,
    handlers: &'static Handlers,
    silenced: LineSet,
}

impl Interrupts {
    /// Dispatches what `gic` signals to `handlers`.
    pub const fn new(gic: Gic, handlers: &'static Handlers) -> Self {
        Self {
            gic,
            handlers,
            silenced: LineSet::new(),
        }
    }

    /// The interrupt controller.
    pub fn gic(&self) -> &Gic {
        &self.gic
    }

    /// The lines that were disabled because nobody made their device withdraw them, on one core at
    /// least. What they were to tell is not told since.
    pub fn silenced(&self) -> impl Iterator<Item = Line> {
        (0..LINES as u32)
            .filter_map(Line::new)
            .filter(|&line| self.silenced.contains(line))
    }

    /// Disables a line that was just acknowledged.
    pub(super) fn silence(&self, line: Line) {
        self.gic.silence(line);
        self.silenced.insert(line);
    }

    /// Makes `handler` serve `line`, on every core if the line is private to each. Register
    /// before enabling the line. May be called in any context.
    ///
    /// # Errors
    ///
    /// [`IrqError::Taken`] if the line has a handler.
    pub fn register(&self, line: Line, handler: &'static dyn IrqHandler) -> Result<(), IrqError> {
        let slot = &mut self.handlers.0.lock()[line.index()];
        if slot.is_some() {
            return Err(IrqError::Taken(line));
        }
        *slot = Some(handler);
        Ok(())
    }

    /// Takes the handler of `line` away. Disable the line first. A handler that runs on another
    /// core at this moment goes on to its end.
    pub fn unregister(&self, line: Line) {
        self.handlers.0.lock()[line.index()] = None;
    }

    /// Serves every interrupt that is pending for this core.
    ///
    /// The IRQ vector calls this, with IRQs masked. A line without a handler is disabled, because
    /// nobody could make its device be quiet; the return value is the last such line.
    pub fn handle(&self) -> Option<Line> {
        let core = PerCpu::current();
        core.irq_entered();
        let unclaimed = self.serve_all();
        core.irq_left();
        unclaimed
    }

    /// Apart from its caller, see [`PerCpu::irq_entered`].
    #[inline(never)]
    fn serve_all(&self) -> Option<Line> {
        let mut unclaimed = None;
        // No line left, or a spurious interrupt: the device withdrew before the acknowledgement.
        while let Some(interrupt) = self.gic.acknowledge() {
            let line = interrupt.line();
            // Copied, so that the handler does not run under the lock.
            let handler = self.handlers.0.lock()[line.index()];
            match handler {
                Some(handler) => handler.handle(line),
                None => {
                    unclaimed = Some(line);
                    self.silence(line);
                }
            }
            self.gic.end(interrupt);
        }
        unclaimed
    }
}

static HANDLERS: Handlers = Handlers::new();
static INTERRUPTS: Once<Interrupts> = Once::new();

/// Makes `gic` the machine's interrupt controller; the first call wins. Called once by the boot
/// core, after [`Gic::init`].
pub fn install(gic: Gic) -> &'static Interrupts {
    INTERRUPTS.call_once(|| Interrupts::new(gic, &HANDLERS))
}

/// The machine's interrupt controller, once installed.
pub fn interrupts() -> Option<&'static Interrupts> {
    INTERRUPTS.get()
}

/// What the IRQ vector calls: [`Interrupts::handle`] of the machine's interrupt controller.
///
/// Nothing happens before [`install`], when no interrupt can have been enabled.
pub fn handle_irq() -> Option<Line> {
    interrupts().and_then(Interrupts::handle)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dma::engine::tests::Recorder;

    #[test]
    fn a_line_that_is_never_the_engines_is_given_up() {
        let interrupt = EngineInterrupt::new(Box::leak(Box::new(Recorder::new(None))));
        for _ in 0..FOREIGN_LIMIT {
            assert!(interrupt.serve());
        }
        assert!(!interrupt.serve());
    }
}
