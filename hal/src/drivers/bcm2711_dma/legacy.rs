//! The registers of one legacy channel.

use super::chain::{self, Registers, Signal};
use super::registers::{CONBLK_AD_OFFSET, CS, DEBUG, DEBUG_OFFSET};
use super::window::{CS_OFFSET, Window};
use crate::addr::DmaAddr;
use crate::drivers::mmio::RegisterIo;
use tock_registers::LocalRegisterCopy;

/// Bus priority of the engine against others, 0 to 15: just above the lowest.
const PRIORITY: u32 = 1;
/// Bus priority in a panic: the highest, so that a peripheral's FIFO does not overrun.
const PANIC_PRIORITY: u32 = 15;

/// The errors DEBUG reports, and the bits that clear them.
const DEBUG_ERRORS: u32 = DEBUG::READ_ERROR::SET.value
    | DEBUG::FIFO_ERROR::SET.value
    | DEBUG::READ_LAST_NOT_SET_ERROR::SET.value;

/// The registers of a legacy channel.
#[derive(Debug)]
pub(super) struct LegacyRegisters<'a, Io>(Window<'a, Io>);

impl<'a, Io: RegisterIo> LegacyRegisters<'a, Io> {
    pub(super) fn new(io: &'a Io, channel: u8) -> Self {
        Self(Window::new(io, channel))
    }

    /// `DEBUG.VERSION`: 2 on silicon, 0 of QEMU's model.
    pub(super) fn version(&self) -> u32 {
        self.debug().read(DEBUG::VERSION)
    }

    /// Whether the channel raises its line.
    pub(super) fn raises_line(&self) -> bool {
        self.status()
            .any_matching_bits_set(CS::INT::SET + CS::ERROR::SET)
    }

    fn status(&self) -> LocalRegisterCopy<u32, CS::Register> {
        LocalRegisterCopy::new(self.0.read(CS_OFFSET))
    }

    fn debug(&self) -> LocalRegisterCopy<u32, DEBUG::Register> {
        LocalRegisterCopy::new(self.0.read(DEBUG_OFFSET))
    }

    /// Whether the channel has no control block to go on with.
    fn is_idle(&self) -> bool {
        !self.status().is_set(CS::ACTIVE) && self.0.read(CONBLK_AD_OFFSET) == 0
    }

    /// Whether the channel transfers nothing and none of its writes is under way.
    fn is_quiet(&self) -> bool {
        let status = self.status();
        !status.is_set(CS::WAITING_FOR_OUTSTANDING_WRITES)
            // QEMU's model says that it is paused only after a copy.
            && (status.is_set(CS::PAUSED) || self.is_idle())
            // Last: a channel that is paused sends no more.
            && self.debug().read(DEBUG::OUTSTANDING_WRITES) == 0
    }
}

impl<Io: RegisterIo> Registers for LegacyRegisters<'_, Io> {
    fn pointer(addr: DmaAddr) -> Option<u32> {
        u32::try_from(addr.get()).ok()
    }

    fn start(&self, first: u32) {
        self.0.write(CONBLK_AD_OFFSET, first);
        let start = CS::WAIT_FOR_OUTSTANDING_WRITES::SET
            + CS::PANIC_PRIORITY.val(PANIC_PRIORITY)
            + CS::PRIORITY.val(PRIORITY)
            + CS::ACTIVE::SET;
        self.0.write(CS_OFFSET, start.value);
    }

    fn signal(&self) -> Option<Signal> {
        self.0.signal(CS::ERROR::SET.value)
    }

    fn acknowledge(&self) {
        self.0.acknowledge();
    }

    fn errors(&self) -> u32 {
        self.debug().get() & DEBUG_ERRORS
    }

    /// Pauses; if that does not help, has the control block given up; lets outstanding writes land
    /// for a bounded time; resets.
    ///
    /// A chain may have ended with writes still outstanding, so they are waited for in any case,
    /// and before the reset, which sets their counter to zero without waiting for them.
    fn stop(&self) -> bool {
        let pause = CS::WAIT_FOR_OUTSTANDING_WRITES::SET;
        let landed = [pause, pause + CS::ABORT::SET].into_iter().any(|how| {
            self.0.write(CS_OFFSET, how.value);
            chain::becomes_quiet(|| self.is_quiet())
        });
        if !landed {
            return false;
        }
        self.0.write(CS_OFFSET, CS::RESET::SET.value);
        self.acknowledge();
        // Only where there is something to clear: QEMU's model keeps what is written to DEBUG.
        match self.errors() {
            0 => {}
            flags => self.0.write(DEBUG_OFFSET, flags),
        }
        self.is_idle()
    }
}
