//! PSCI: cores on, system off, system reset (Arm DEN0022).

use crate::addr::PhysAddr;
use crate::devicetree::PsciConduit;
use smccc::{Hvc, Smc, psci};
use thiserror::Error;

/// Why a PSCI call failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum PsciError {
    /// The firmware did not start a core.
    #[error("PSCI CPU_ON of core {affinity:#x}: {cause}")]
    CpuOn {
        /// The core's `MPIDR_EL1` affinity.
        affinity: u64,
        /// The firmware's answer.
        cause: psci::Error,
    },
    /// The firmware did not power the system off.
    #[error("PSCI SYSTEM_OFF: {0}")]
    SystemOff(psci::Error),
    /// The firmware did not reset the system.
    #[error("PSCI SYSTEM_RESET: {0}")]
    SystemReset(psci::Error),
}

/// The PSCI firmware.
#[derive(Clone, Copy, Debug)]
pub struct Psci {
    conduit: PsciConduit,
}

impl Psci {
    /// The firmware reached through `conduit`.
    ///
    /// # Safety
    ///
    /// PSCI firmware answers there, as a device tree that has a `psci` node says. Without any, the
    /// instruction is undefined or stops the core.
    pub const unsafe fn new(conduit: PsciConduit) -> Self {
        Self { conduit }
    }

    /// `CPU_ON`: starts the core with affinity `affinity` at `entry`, MMU off, with `context` in
    /// `x0`, at the exception level the firmware enters cores at: EL2 where there is one.
    ///
    /// Everything the core touches before its caches are on must have been cleaned to the point
    /// of coherency. Returns before the core runs.
    ///
    /// # Errors
    ///
    /// [`PsciError::CpuOn`] with the firmware's reason, such as "already on".
    ///
    /// # Safety
    ///
    /// `entry` is the physical address of code that can run on a core that has no stack, and
    /// `context` is what that code expects.
    pub unsafe fn cpu_on(
        &self,
        affinity: u64,
        entry: PhysAddr,
        context: u64,
    ) -> Result<(), PsciError> {
        match self.conduit {
            PsciConduit::Hvc => psci::cpu_on::<Hvc>(affinity, entry.get(), context),
            PsciConduit::Smc => psci::cpu_on::<Smc>(affinity, entry.get(), context),
        }
        .map_err(|cause| PsciError::CpuOn { affinity, cause })
    }

    /// `SYSTEM_OFF`: powers the machine off. Returns only if that failed.
    ///
    /// # Errors
    ///
    /// [`PsciError::SystemOff`] with the firmware's reason.
    pub fn system_off(&self) -> Result<(), PsciError> {
        match self.conduit {
            PsciConduit::Hvc => psci::system_off::<Hvc>(),
            PsciConduit::Smc => psci::system_off::<Smc>(),
        }
        .map_err(PsciError::SystemOff)
    }

    /// `SYSTEM_RESET`: restarts the machine. Returns only if that failed.
    ///
    /// # Errors
    ///
    /// [`PsciError::SystemReset`] with the firmware's reason.
    pub fn system_reset(&self) -> Result<(), PsciError> {
        match self.conduit {
            PsciConduit::Hvc => psci::system_reset::<Hvc>(),
            PsciConduit::Smc => psci::system_reset::<Smc>(),
        }
        .map_err(PsciError::SystemReset)
    }
}
