//! Interrupt dispatch: from the exception vector to the driver that owns the line.

use super::gic::{Gic, LINES, Line};
use crate::dma::DmaEngine;
use crate::sync::{IrqLock, Once, PerCpu};
use core::fmt;
use thiserror::Error;

/// What runs when a line is raised.
pub trait IrqHandler: Sync {
    /// Serves `line`: makes the device withdraw a level-sensitive line before it returns.
    ///
    /// Runs with IRQs masked on the core the interrupt was sent to, and may not block.
    fn handle(&self, line: Line);
}

/// The interrupt of a DMA engine.
#[derive(Debug)]
pub struct EngineInterrupt(pub &'static dyn DmaEngine);

impl IrqHandler for EngineInterrupt {
    fn handle(&self, _line: Line) {
        // Whether it was the engine's does not matter: the line has no other handler.
        self.0.on_interrupt();
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

/// An interrupt controller and the handlers of its lines.
#[derive(Debug)]
pub struct Interrupts {
    gic: Gic,
    handlers: &'static Handlers,
}

impl Interrupts {
    /// Dispatches what `gic` signals to `handlers`.
    pub const fn new(gic: Gic, handlers: &'static Handlers) -> Self {
        Self { gic, handlers }
    }

    /// The interrupt controller.
    pub fn gic(&self) -> &Gic {
        &self.gic
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
                    self.gic.silence(line);
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
