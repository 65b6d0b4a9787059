//! What a device tree says, as plain data.

use super::Problem;
use crate::addr::{PhysAddr, PhysRange};
use crate::sync::MAX_CPUS;
use heapless::Vec;

/// RAM ranges kept. An 8 GiB Raspberry Pi 4 has four.
pub const MAX_RAM_RANGES: usize = 16;
/// Reserved ranges kept.
pub const MAX_RESERVED_RANGES: usize = 32;
/// Contiguous memory areas kept.
pub const MAX_CMA_NODES: usize = 4;
/// Problems kept; the rest is counted.
pub const MAX_PROBLEMS: usize = 16;

/// What a device tree says about the machine.
#[derive(Clone, Debug, Default)]
pub struct Description<'a> {
    /// The enabled memory nodes' ranges in the tree's order, as given: unsorted, perhaps
    /// overlapping, perhaps empty. [`MemoryMap`](crate::memory_map::MemoryMap) judges them.
    pub ram: Vec<PhysRange, MAX_RAM_RANGES>,
    /// The `/memreserve/` entries and the children of `/reserved-memory` that have a `reg`.
    pub reserved: Vec<ReservedRange, MAX_RESERVED_RANGES>,
    /// The children of `/reserved-memory` that ask for a contiguous memory area: compatible with
    /// `shared-dma-pool` and `reusable`.
    pub cma: Vec<CmaNode<'a>, MAX_CMA_NODES>,
    /// The command line, `/chosen/bootargs`.
    pub bootargs: Option<&'a str>,
    /// The initial RAM disk, `/chosen/linux,initrd-start` and `-end`.
    pub initrd: Option<PhysRange>,
    /// The console's path or alias, `/chosen/stdout-path`.
    pub stdout_path: Option<&'a str>,
    /// The processors that can be used, in the tree's order.
    pub cpus: Vec<Cpu, MAX_CPUS>,
    /// How PSCI is called (`arm,psci*`).
    pub psci: Option<PsciConduit>,
    /// `arm,cortex-a15-gic`, `arm,gic-400` or `arm,gic-v3`.
    pub interrupt_controller: Option<InterruptController>,
    /// `pci-host-ecam-generic`.
    pub pci: Option<PciHost>,
    /// `brcm,bcm2835-dma`.
    pub bcm2835_dma: Option<BcmDma>,
    /// `brcm,bcm2711-dma`: the DMA4 channels.
    pub bcm2711_dma: Option<BcmDma>,
    /// `arm,armv8-timer`.
    pub timer: Option<Timer>,
    /// Properties that were left out because they make no sense.
    pub problems: Vec<Problem<'a>, MAX_PROBLEMS>,
    /// Problems beyond those in [`problems`](Self::problems).
    pub further_problems: usize,
}

impl<'a> Description<'a> {
    /// Records a problem.
    pub(super) fn report(&mut self, problem: Problem<'a>) {
        if self.problems.push(problem).is_err() {
            self.further_problems += 1;
        }
    }
}

/// Memory set aside by whoever started us.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReservedRange {
    /// Where it is.
    pub range: PhysRange,
    /// Whether it must not be mapped at all (`no-map`), so that no speculative access reaches it.
    pub no_map: bool,
}

/// A contiguous memory area that is asked for (Linux `reserved-memory/shared-dma-pool.yaml`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CmaNode<'a> {
    /// The node's name with its unit address.
    pub name: &'a str,
    /// Where it is to be.
    pub place: CmaPlace,
    /// Whether it is to serve everybody who has no area of their own (`linux,cma-default`).
    pub is_default: bool,
}

/// Where a contiguous memory area is to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CmaPlace {
    /// There (`reg`).
    Fixed(PhysRange),
    /// Anywhere.
    Anywhere {
        /// Bytes (`size`).
        size: u64,
        /// What its address is a multiple of (`alignment`); 0 or 1 for anything.
        align: u64,
        /// What it has to be inside of (the first of `alloc-ranges`).
        within: Option<PhysRange>,
    },
}

/// A processor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cpu {
    /// The affinity fields of the core's `MPIDR_EL1` (Aff3 in bits 39:32, Aff2 to Aff0 below 24).
    pub mpidr: u64,
    /// How it is started.
    pub enable_method: EnableMethod,
}

/// How a processor is started.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EnableMethod {
    /// `CPU_ON`.
    Psci,
    /// It waits for an address to appear in a 64-bit word.
    SpinTable {
        /// Where the word is, 8-byte aligned.
        release: PhysAddr,
    },
    /// Nothing needs to be done, or can be: all cores enter together.
    None,
}

/// The instruction that reaches the PSCI firmware.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PsciConduit {
    /// `HVC`.
    Hvc,
    /// `SMC`.
    Smc,
}

/// The interrupt controller and where its registers are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InterruptController {
    /// GIC architecture version 1 or 2.
    GicV2 {
        /// `GICD_*`.
        distributor: PhysRange,
        /// `GICC_*`.
        cpu_interface: PhysRange,
    },
    /// GIC architecture version 3 or 4.
    GicV3 {
        /// `GICD_*`.
        distributor: PhysRange,
        /// The first region of `GICR_*` frames.
        redistributors: PhysRange,
    },
}

/// A PCI host bridge with memory-mapped configuration space (ECAM).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PciHost {
    /// The configuration space; its first byte is that of bus [`first_bus`](Self::first_bus).
    pub ecam: PhysRange,
    /// The first bus number.
    pub first_bus: u8,
    /// The last bus number the configuration space holds.
    pub last_bus: u8,
    /// The window for 32-bit memory BARs.
    pub memory: PciWindow,
}

/// A stretch of a PCI address space the CPU can reach.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PciWindow {
    /// Where the CPU sees it.
    pub cpu: PhysRange,
    /// The PCI address of its first byte.
    pub bus: u64,
}

/// Channels of the DMA controller of the Raspberry Pi's SoCs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BcmDma {
    /// The channels' registers.
    pub registers: PhysRange,
    /// Bit n is set if channel n of the controller is ours (`brcm,dma-channel-mask`).
    pub channel_mask: u32,
}

/// The generic timer's interrupts, as GIC interrupt IDs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timer {
    /// Secure physical timer.
    pub secure_physical: u32,
    /// Non-secure physical timer, `CNTP_*` at EL1.
    pub physical: u32,
    /// Virtual timer, `CNTV_*`.
    pub virtual_timer: u32,
    /// Hypervisor timer, `CNTHP_*`.
    pub hypervisor: u32,
}
