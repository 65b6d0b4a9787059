//! GICv3 (IHI 0069H), affinity routing on, group 1 of the current security state.

use super::{GicError, LINES, Line, SPI_START, Trigger};
use crate::addr::VirtAddr;
use crate::arch::barrier;
use crate::drivers::registers;
use crate::sync::{IrqLock, MAX_CPUS, PerCpu};
use arm_gic::gicv3::registers::{GicdCtlr, GicrSgi};
use arm_gic::gicv3::{GicCpuInterface, GicRedistributorIterator, SgiTarget, SgiTargetGroup};
use arm_gic::{IntId, InterruptGroup};
use core::ptr::NonNull;
use core::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

/// `ICC_PMR_EL1`: every priority a line can have is signalled.
const PRIORITY_MASK: u8 = 0xFF;

/// What is known about a core.
#[derive(Debug)]
struct Core {
    /// Its `MPIDR_EL1` affinity.
    affinity: AtomicU64,
    /// The position of its redistributor, or [`Core::UNKNOWN`] before the core was set up.
    redistributor: AtomicUsize,
}

impl Core {
    const UNKNOWN: usize = usize::MAX;
}

#[derive(Debug)]
pub(super) struct GicV3 {
    /// The lock is a leaf: nothing else is locked under it.
    inner: IrqLock<arm_gic::gicv3::GicV3<'static>>,
    redistributors: usize,
    cores: [Core; MAX_CPUS],
}

impl GicV3 {
    /// # Safety
    ///
    /// As [`super::Gic::v3`].
    pub(super) unsafe fn new(
        distributor: VirtAddr,
        redistributors: VirtAddr,
    ) -> Result<Self, GicError> {
        // SAFETY: promised by the caller: mapped, hence not null.
        let first: NonNull<GicrSgi> = unsafe { NonNull::new_unchecked(redistributors.as_ptr()) };
        // SAFETY: promised by the caller. The iterator is gone before the driver below exists.
        let count = unsafe { GicRedistributorIterator::new(first) }?.count();
        // SAFETY: promised by the caller.
        let inner = unsafe { arm_gic::gicv3::GicV3::new(registers(distributor), first, count) }?;
        Ok(Self {
            inner: IrqLock::new(inner),
            redistributors: count,
            cores: [const {
                Core {
                    affinity: AtomicU64::new(0),
                    redistributor: AtomicUsize::new(Core::UNKNOWN),
                }
            }; MAX_CPUS],
        })
    }

    pub(super) fn lines(&self) -> u32 {
        (self.inner.lock().typer().num_spis() + SPI_START).min(LINES as u32)
    }

    pub(super) fn init(&self, affinity: u64) -> Result<(), GicError> {
        let lines = self.lines();
        let mut gic = self.inner.lock();
        // Affinity routing may be turned on only while no group is enabled (IHI 0069H 12.9.4).
        gic.gicd_clear_control(GicdCtlr::EnableGrp0 | GicdCtlr::EnableGrp1NS);
        let distributor = gic.distributor();
        distributor.enable_all_interrupts(false);
        distributor.configure_default_settings();
        for spi in (SPI_START..lines).filter_map(Line::new) {
            distributor.set_routing(spi.into(), Some(affinity))?;
        }
        Ok(())
    }

    pub(super) fn init_core(&self, core: usize, affinity: u64) -> Result<(), GicError> {
        let mut gic = self.inner.lock();
        let index = (0..self.redistributors)
            .find(|&index| {
                gic.gicr_typer(index)
                    .is_ok_and(|typer| typer.core_mpidr() == affinity)
            })
            .ok_or(GicError::NoRedistributor { affinity })?;
        GicCpuInterface::enable_system_register_el1();
        // The other registers of the interface exist only after this (IHI 0069H 12.2.22).
        barrier::isb();
        gic.init_cpu(index);
        gic.redistributor(index)?.configure_default_settings();
        gic.gicr_barrier(index)?;
        GicCpuInterface::set_priority_mask(PRIORITY_MASK);
        GicCpuInterface::enable_group1(true);
        barrier::isb();
        let core = self
            .cores
            .get(core)
            .ok_or(GicError::CoreNotReady { core })?;
        core.affinity.store(affinity, Ordering::Relaxed);
        core.redistributor.store(index, Ordering::Release);
        Ok(())
    }

    pub(super) fn set_enabled(&self, line: Line, enabled: bool) -> Result<(), GicError> {
        let own = self.own_redistributor(line)?;
        let mut gic = self.inner.lock();
        gic.enable_interrupt(line.into(), own, enabled)?;
        if !enabled {
            // Wait until the change has reached every core.
            match own {
                Some(index) => gic.gicr_barrier(index)?,
                None => gic.gicd_barrier(),
            }
        }
        Ok(())
    }

    pub(super) fn set_trigger(&self, line: Line, trigger: Trigger) -> Result<(), GicError> {
        let own = self.own_redistributor(line)?;
        Ok(self.inner.lock().set_trigger(line.into(), own, trigger)?)
    }

    pub(super) fn set_priority(&self, line: Line, priority: u8) -> Result<(), GicError> {
        let own = self.own_redistributor(line)?;
        let mut gic = self.inner.lock();
        Ok(gic.set_interrupt_priority(line.into(), own, priority)?)
    }

    pub(super) fn set_target(&self, line: Line, core: usize) -> Result<(), GicError> {
        let affinity = self.ready(core)?.affinity.load(Ordering::Relaxed);
        let mut gic = self.inner.lock();
        Ok(gic.distributor().set_routing(line.into(), Some(affinity))?)
    }

    pub(super) fn send_sgi(&self, line: Line, core: usize) -> Result<(), GicError> {
        let affinity = self.ready(core)?.affinity.load(Ordering::Relaxed);
        let [aff0, aff1, aff2, _, aff3, ..] = affinity.to_le_bytes();
        let target_list = 1u16
            .checked_shl(aff0.into())
            .ok_or(GicError::Unreachable { affinity })?;
        let target = SgiTarget::List {
            affinity3: aff3,
            affinity2: aff2,
            affinity1: aff1,
            target_list,
        };
        GicCpuInterface::send_sgi(line.into(), target, SgiTargetGroup::CurrentGroup1)?;
        barrier::isb();
        Ok(())
    }

    pub(super) fn acknowledge(&self) -> Option<u32> {
        GicCpuInterface::get_and_acknowledge_interrupt(InterruptGroup::Group1).map(IntId::raw_value)
    }

    pub(super) fn end(&self, line: Line) {
        GicCpuInterface::end_interrupt(line.into(), InterruptGroup::Group1);
        barrier::isb();
    }

    /// The executing core's redistributor if `line` is configured there.
    fn own_redistributor(&self, line: Line) -> Result<Option<usize>, GicError> {
        if !line.is_private() {
            return Ok(None);
        }
        let core = self.ready(PerCpu::current().index())?;
        Ok(Some(core.redistributor.load(Ordering::Relaxed)))
    }

    fn ready(&self, core: usize) -> Result<&Core, GicError> {
        self.cores
            .get(core)
            .filter(|core| core.redistributor.load(Ordering::Acquire) != Core::UNKNOWN)
            .ok_or(GicError::CoreNotReady { core })
    }
}
