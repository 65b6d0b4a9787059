//! The interrupt controller: a GICv2 (GIC-400 of the BCM2711, QEMU virt's default) or a GICv3.
//!
//! Everything runs in non-secure group 1, or in whatever a controller with one security state
//! calls its only group; see the two variants. Interrupts are not nested: all lines get the same
//! priority unless [`Gic::set_priority`] says otherwise, and handlers run with IRQs masked.
//!
//! SGIs and PPIs are private to a core: a call about one configures the executing core's.
//! SPIs are shared, and sent to the boot core until [`Gic::set_target`].

mod v2;
mod v3;

use crate::addr::VirtAddr;
use crate::arch::{barrier, cpu};
use crate::sync::PerCpu;
pub use arm_gic::Trigger;
use arm_gic::{IntId, gicv3};
use core::fmt;
use thiserror::Error;

/// Interrupt numbers a line can have: 0 to 1019. The rest are special (IHI 0048B 2.2.1).
pub const LINES: usize = 1020;

const PPI_START: u32 = 16;
const SPI_START: u32 = 32;

/// An interrupt line, by its INTID.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Line(u16);

impl Line {
    /// The line with INTID `intid`, or `None` if that is a special number.
    pub const fn new(intid: u32) -> Option<Self> {
        if intid < LINES as u32 {
            Some(Self(intid as u16))
        } else {
            None
        }
    }

    /// Software-generated interrupt `number`, 0 to 15.
    pub const fn sgi(number: u32) -> Option<Self> {
        if number < PPI_START {
            Self::new(number)
        } else {
            None
        }
    }

    /// Private peripheral interrupt `number`, 0 to 15: the number in a device tree's `interrupts`
    /// cell of type 1.
    pub const fn ppi(number: u32) -> Option<Self> {
        if number < SPI_START - PPI_START {
            Self::new(PPI_START + number)
        } else {
            None
        }
    }

    /// Shared peripheral interrupt `number`, from 0: the number in a device tree's `interrupts`
    /// cell of type 0.
    pub const fn spi(number: u32) -> Option<Self> {
        match number.checked_add(SPI_START) {
            Some(intid) => Self::new(intid),
            None => None,
        }
    }

    /// The INTID.
    pub const fn intid(self) -> u32 {
        self.0 as u32
    }

    /// The INTID as an index below [`LINES`].
    pub const fn index(self) -> usize {
        self.0 as usize
    }

    /// Whether the line is an SGI.
    pub const fn is_sgi(self) -> bool {
        self.intid() < PPI_START
    }

    /// Whether each core has its own such line: an SGI or a PPI.
    pub const fn is_private(self) -> bool {
        self.intid() < SPI_START
    }
}

impl fmt::Display for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.intid() {
            sgi @ 0..PPI_START => write!(f, "SGI {sgi}"),
            ppi @ PPI_START..SPI_START => write!(f, "PPI {}", ppi - PPI_START),
            spi => write!(f, "SPI {}", spi - SPI_START),
        }
    }
}

impl From<Line> for IntId {
    fn from(line: Line) -> Self {
        if line.is_sgi() {
            IntId::sgi(line.intid())
        } else if line.is_private() {
            IntId::ppi(line.intid() - PPI_START)
        } else {
            IntId::spi(line.intid() - SPI_START)
        }
    }
}

/// Why the interrupt controller refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum GicError {
    /// The controller has fewer lines.
    #[error("{line} does not exist: the interrupt controller has {lines} lines")]
    NoSuchLine {
        /// The line asked for.
        line: Line,
        /// How many INTIDs the controller implements.
        lines: u32,
    },
    /// The line is private to each core and cannot be sent to another.
    #[error("{0} is private to each core")]
    Private(Line),
    /// The line is software-generated, and those are edge-triggered.
    #[error("the trigger of {0} cannot be changed")]
    FixedTrigger(Line),
    /// The line is not software-generated.
    #[error("{0} cannot be raised by software")]
    NotSoftware(Line),
    /// The core has not called [`Gic::init_core`].
    #[error("core {core} has not set up its interrupt controller interface")]
    CoreNotReady {
        /// The core's number.
        core: usize,
    },
    /// No redistributor belongs to the executing core.
    #[error("no redistributor has affinity {affinity:#x}")]
    NoRedistributor {
        /// The core's `MPIDR_EL1` affinity.
        affinity: u64,
    },
    /// A GICv3 SGI reaches `Aff0` 0 to 15 only without range selectors.
    #[error("an SGI cannot reach the core with affinity {affinity:#x}")]
    Unreachable {
        /// The core's `MPIDR_EL1` affinity.
        affinity: u64,
    },
    /// The GICv3's registers make no sense.
    #[error(transparent)]
    V3(#[from] gicv3::GicError),
}

/// An interrupt controller.
#[derive(Debug)]
pub struct Gic {
    version: Version,
    lines: u32,
}

#[derive(Debug)]
enum Version {
    V2(v2::GicV2),
    V3(v3::GicV3),
}

/// An interrupt that was acknowledged and must be [ended](Gic::end).
#[derive(Debug, PartialEq, Eq)]
#[must_use = "the core gets no further interrupt until this one is ended"]
pub struct Acknowledged {
    line: Line,
    /// What the acknowledge register held: on a GICv2 the line and, for an SGI, its sender.
    token: u32,
}

impl Acknowledged {
    /// `None` if `token` names no line: nothing was pending after all.
    fn new(token: u32) -> Option<Self> {
        // GICC_IAR.Interrupt_ID (IHI 0048B 4.4.4); no line of a GICv3 we use has a wider number.
        const INTID_MASK: u32 = 0x3FF;
        Line::new(token & INTID_MASK).map(|line| Self { line, token })
    }

    /// The line.
    pub fn line(&self) -> Line {
        self.line
    }
}

impl Gic {
    /// A GICv2 with its distributor and CPU interface at the given addresses.
    ///
    /// # Safety
    ///
    /// The addresses map the `GICD` (4 KiB) and `GICC` (8 KiB) registers of a GICv2 as Device
    /// memory for the rest of the program, and nothing else accesses them.
    pub unsafe fn v2(distributor: VirtAddr, cpu_interface: VirtAddr) -> Self {
        // SAFETY: promised by the caller.
        let gic = unsafe { v2::GicV2::new(distributor, cpu_interface) };
        Self {
            lines: gic.lines(),
            version: Version::V2(gic),
        }
    }

    /// A GICv3 with its distributor and redistributors at the given addresses.
    ///
    /// # Errors
    ///
    /// [`GicError::V3`] if the redistributors have a layout the driver does not know.
    ///
    /// # Safety
    ///
    /// The addresses map the `GICD` registers and the `GICR` frames of every core, one after the
    /// other up to the one marked last, as Device memory for the rest of the program, and nothing
    /// else accesses them.
    pub unsafe fn v3(distributor: VirtAddr, redistributors: VirtAddr) -> Result<Self, GicError> {
        // SAFETY: promised by the caller.
        let gic = unsafe { v3::GicV3::new(distributor, redistributors) }?;
        Ok(Self {
            lines: gic.lines(),
            version: Version::V3(gic),
        })
    }

    /// How many INTIDs the controller implements, SGIs and PPIs included.
    pub fn lines(&self) -> u32 {
        self.lines
    }

    /// Sets up the distributor, and the executing core as [`Gic::init_core`] does: all lines
    /// disabled, level-sensitive, of equal priority, SPIs sent to this core.
    ///
    /// Called by the boot core, once, with IRQs masked, before any other core calls anything.
    ///
    /// # Errors
    ///
    /// Those of [`Gic::init_core`].
    pub fn init(&self) -> Result<(), GicError> {
        match &self.version {
            // The targets of SPIs are known once the core's own interface is.
            Version::V2(gic) => {
                let core = PerCpu::current().index();
                gic.init_core(core);
                gic.init(core)
            }
            // Redistributors listen once the distributor routes by affinity.
            Version::V3(gic) => {
                gic.init(cpu::affinity())?;
                self.init_core()
            }
        }
    }

    /// Sets up the executing core's interface: its SGIs and PPIs disabled, interrupts accepted.
    ///
    /// Called by every core once, with IRQs masked; for the boot core [`Gic::init`] does it.
    ///
    /// # Errors
    ///
    /// [`GicError::NoRedistributor`] if a GICv3 does not know the core.
    pub fn init_core(&self) -> Result<(), GicError> {
        let core = PerCpu::current().index();
        match &self.version {
            Version::V2(gic) => {
                gic.init_core(core);
                Ok(())
            }
            Version::V3(gic) => gic.init_core(core, cpu::affinity()),
        }
    }

    /// Lets `line` interrupt. May be called in any context.
    ///
    /// # Errors
    ///
    /// [`GicError::NoSuchLine`], [`GicError::CoreNotReady`].
    pub fn enable(&self, line: Line) -> Result<(), GicError> {
        self.set_enabled(line, true)
    }

    /// Stops `line` from interrupting. The line may still be served once if it was signalled to a
    /// core already. May be called in any context.
    ///
    /// # Errors
    ///
    /// [`GicError::NoSuchLine`], [`GicError::CoreNotReady`].
    pub fn disable(&self, line: Line) -> Result<(), GicError> {
        self.set_enabled(line, false)
    }

    fn set_enabled(&self, line: Line, enabled: bool) -> Result<(), GicError> {
        self.check(line)?;
        match &self.version {
            Version::V2(gic) => {
                gic.set_enabled(line, enabled);
                Ok(())
            }
            Version::V3(gic) => gic.set_enabled(line, enabled),
        }
    }

    /// Disables a line that was just acknowledged, so that it exists for sure.
    pub(super) fn silence(&self, line: Line) {
        let _ = self.disable(line);
    }

    /// Makes `line` edge-triggered or level-sensitive. Message-signalled interrupts and the
    /// SMMUv3's are edges: as levels they are lost. The line must be disabled.
    ///
    /// # Errors
    ///
    /// [`GicError::FixedTrigger`] for an SGI, [`GicError::NoSuchLine`], [`GicError::CoreNotReady`].
    pub fn set_trigger(&self, line: Line, trigger: Trigger) -> Result<(), GicError> {
        self.check(line)?;
        if line.is_sgi() {
            return Err(GicError::FixedTrigger(line));
        }
        match &self.version {
            Version::V2(gic) => {
                gic.set_trigger(line, trigger);
                Ok(())
            }
            Version::V3(gic) => gic.set_trigger(line, trigger),
        }
    }

    /// Gives `line` a priority; 0 is the most urgent. Controllers implement the upper bits only,
    /// and a non-secure view drops one more.
    ///
    /// # Errors
    ///
    /// [`GicError::NoSuchLine`], [`GicError::CoreNotReady`].
    pub fn set_priority(&self, line: Line, priority: u8) -> Result<(), GicError> {
        self.check(line)?;
        match &self.version {
            Version::V2(gic) => {
                gic.set_priority(line, priority);
                Ok(())
            }
            Version::V3(gic) => gic.set_priority(line, priority),
        }
    }

    /// Sends the SPI `line` to core number `core` only.
    ///
    /// # Errors
    ///
    /// [`GicError::Private`] for an SGI or PPI, [`GicError::NoSuchLine`],
    /// [`GicError::CoreNotReady`].
    pub fn set_target(&self, line: Line, core: usize) -> Result<(), GicError> {
        self.check(line)?;
        if line.is_private() {
            return Err(GicError::Private(line));
        }
        match &self.version {
            Version::V2(gic) => gic.set_target(line, core),
            Version::V3(gic) => gic.set_target(line, core),
        }
    }

    /// Raises the SGI `line` on core number `core`, which may be the executing one. The other
    /// core's handler sees everything stored before the call.
    ///
    /// # Errors
    ///
    /// [`GicError::NotSoftware`] for a PPI or SPI, [`GicError::CoreNotReady`],
    /// [`GicError::Unreachable`].
    pub fn send_sgi(&self, line: Line, core: usize) -> Result<(), GicError> {
        if !line.is_sgi() {
            return Err(GicError::NotSoftware(line));
        }
        // The SGI travels outside the memory system; without the barrier it may overtake stores.
        barrier::dsb_ishst();
        match &self.version {
            Version::V2(gic) => gic.send_sgi(line, core),
            Version::V3(gic) => gic.send_sgi(line, core),
        }
    }

    /// Takes the most urgent pending interrupt of the executing core, or `None` if there is none
    /// (any more). Called with IRQs masked.
    pub fn acknowledge(&self) -> Option<Acknowledged> {
        let interrupt = match &self.version {
            Version::V2(gic) => Acknowledged::new(gic.acknowledge()),
            Version::V3(gic) => gic.acknowledge().and_then(Acknowledged::new),
        };
        // The handler's loads come after the acknowledgement: they see what was stored before the
        // interrupt was raised.
        barrier::dsb_sy();
        interrupt
    }

    /// Ends `interrupt`, on the core that acknowledged it.
    pub fn end(&self, interrupt: Acknowledged) {
        // The device must have seen the handler's accesses before its line is looked at again, or
        // a level that is about to fall interrupts once more.
        barrier::dsb_sy();
        match &self.version {
            Version::V2(gic) => gic.end(interrupt.token),
            Version::V3(gic) => gic.end(interrupt.line),
        }
    }

    fn check(&self, line: Line) -> Result<(), GicError> {
        if line.intid() < self.lines {
            Ok(())
        } else {
            Err(GicError::NoSuchLine {
                line,
                lines: self.lines,
            })
        }
    }
}

#[cfg(test)]
mod tests;
