//! What the library knows of one device that does DMA.

use super::{BusWindow, DmaError, DmaMask};
use crate::addr::{DmaAddr, PhysAddr, VirtAddr};
use crate::layout;
use core::sync::atomic::{AtomicBool, Ordering};

/// A device: what it reaches, at which addresses, and whether its accesses snoop the CPU's caches.
///
/// Every address is checked in software before the device is told of it, because a device given an
/// address beyond its reach does not report an error: it accesses other memory.
#[derive(Debug)]
pub struct Device {
    name: &'static str,
    mask: DmaMask,
    windows: &'static [BusWindow],
    coherent: AtomicBool,
}

impl Device {
    /// A device that drives the address bits of `mask` and sees memory through `windows`, taken as
    /// not coherent.
    ///
    /// The mask limits addresses on the device's side of the windows. An engine whose controller
    /// sees the first GiB at 0xC000_0000 drives 32 bits and has one window of 1 GiB.
    pub const fn new(name: &'static str, mask: DmaMask, windows: &'static [BusWindow]) -> Self {
        Self {
            name,
            mask,
            windows,
            coherent: AtomicBool::new(false),
        }
    }

    /// Name used in reports.
    pub const fn name(&self) -> &'static str {
        self.name
    }

    /// The address bits the device drives.
    pub const fn mask(&self) -> DmaMask {
        self.mask
    }

    /// Whether the device snoops the CPU's caches, so that maps need no maintenance.
    #[inline]
    pub fn is_coherent(&self) -> bool {
        self.coherent.load(Ordering::Relaxed)
    }

    /// Decides whether the device is taken as coherent: the command line decides, then the device
    /// tree, then the board.
    ///
    /// To be called before the first map. A buffer mapped under the other answer would be missing
    /// half of its maintenance. Treating a coherent device as not coherent is always correct.
    pub fn set_coherent(&self, coherent: bool) {
        self.coherent.store(coherent, Ordering::Relaxed);
    }

    /// The address the device must be given for the `len` bytes at `pa`.
    ///
    /// # Errors
    ///
    /// [`DmaError::ZeroLength`], [`DmaError::OutOfReach`]. Lengths that wrap are out of reach.
    pub fn dma_addr(&self, pa: PhysAddr, len: usize) -> Result<DmaAddr, DmaError> {
        if len == 0 {
            return Err(DmaError::ZeroLength);
        }
        self.windows
            .iter()
            .filter_map(|window| window.translate(pa, len))
            .find(|&addr| self.mask_covers(addr, len))
            .ok_or(DmaError::OutOfReach {
                addr: pa,
                len,
                limit: self.limit(),
            })
    }

    /// Checks that the `len` bytes at `addr` are memory this device reaches: what an engine does
    /// with every address before it starts.
    ///
    /// # Errors
    ///
    /// [`DmaError::ZeroLength`], [`DmaError::ForeignAddress`] for an address that was made for
    /// another device.
    pub fn check(&self, addr: DmaAddr, len: usize) -> Result<(), DmaError> {
        if len == 0 {
            return Err(DmaError::ZeroLength);
        }
        let windows = self.windows.iter();
        let in_window = windows
            .filter_map(|window| window.untranslate(addr, len))
            .next()
            .is_some();
        if in_window && self.mask_covers(addr, len) {
            Ok(())
        } else {
            Err(DmaError::ForeignAddress { addr, len })
        }
    }

    /// The last byte of memory the device reaches, address 0 if it reaches none.
    pub fn limit(&self) -> PhysAddr {
        let mask = self.mask.value();
        let ends = self
            .windows
            .iter()
            .filter_map(|window| window.last_reached(mask));
        ends.max().unwrap_or_default()
    }

    fn mask_covers(&self, addr: DmaAddr, len: usize) -> bool {
        addr.checked_add(len - 1)
            .is_some_and(|last| last.get() <= self.mask.value())
    }

    /// The physical and the device address of `len` bytes of the direct map at `va`.
    pub(super) fn direct_map_addr(
        &self,
        va: VirtAddr,
        len: usize,
    ) -> Result<(PhysAddr, DmaAddr), DmaError> {
        use super::MemoryKind;

        if len == 0 {
            return Err(DmaError::ZeroLength);
        }
        let last = va
            .checked_add(len - 1)
            .ok_or(DmaError::Wraps { addr: va, len })?;
        for addr in [va, last] {
            if let Some(kind) = MemoryKind::outside_direct_map(addr) {
                return Err(DmaError::NotMappable { addr, kind });
            }
        }
        let pa = layout::virt_to_phys(va).ok_or(DmaError::NoPage { addr: va })?;
        Ok((pa, self.dma_addr(pa, len)?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GIB: u64 = 1 << 30;

    fn leak(window: BusWindow) -> &'static [BusWindow] {
        Box::leak(Box::new([window]))
    }

    #[test]
    fn reach_is_window_and_mask() {
        let windows = leak(BusWindow::new(PhysAddr::new(0), 0xC000_0000, GIB).unwrap());
        let legacy = Device::new("legacy", DmaMask::new::<32>(), windows);
        assert_eq!(legacy.limit(), PhysAddr::new(0x3FFF_FFFF));
        let addr = legacy.dma_addr(PhysAddr::new(0x3FFF_F000), 0x1000).unwrap();
        assert_eq!(addr.get(), 0xFFFF_F000);
        assert_eq!(
            legacy.dma_addr(PhysAddr::new(0x4000_0000), 1),
            Err(DmaError::OutOfReach {
                addr: PhysAddr::new(0x4000_0000),
                len: 1,
                limit: PhysAddr::new(0x3FFF_FFFF)
            })
        );
        assert!(legacy.dma_addr(PhysAddr::new(0x3FFF_F000), 0x1001).is_err());
        assert!(legacy.dma_addr(PhysAddr::new(0x1000), usize::MAX).is_err());
        assert_eq!(
            legacy.dma_addr(PhysAddr::new(0x1000), 0),
            Err(DmaError::ZeroLength)
        );
    }

    #[test]
    fn a_narrow_mask_cuts_an_identity_window() {
        let windows = leak(BusWindow::new(PhysAddr::new(0), 0, 1 << 40).unwrap());
        let narrow = Device::new("narrow", DmaMask::new::<28>(), windows);
        assert_eq!(narrow.limit(), PhysAddr::new(0x0FFF_FFFF));
        assert!(narrow.dma_addr(PhysAddr::new(0x0FFF_FFFF), 1).is_ok());
        assert!(matches!(
            narrow.dma_addr(PhysAddr::new(0x0FFF_FFFF), 2),
            Err(DmaError::OutOfReach { .. })
        ));
    }

    #[test]
    fn an_address_made_for_another_device_is_refused() {
        let identity = leak(BusWindow::new(PhysAddr::new(0), 0, 1 << 40).unwrap());
        let alias = leak(BusWindow::new(PhysAddr::new(0), 0xC000_0000, GIB).unwrap());
        let pci = Device::new("pci", DmaMask::new::<64>(), identity);
        let legacy = Device::new("legacy", DmaMask::new::<32>(), alias);
        let addr = pci.dma_addr(PhysAddr::new(0x1000), 64).unwrap();
        assert_eq!(
            legacy.check(addr, 64),
            Err(DmaError::ForeignAddress { addr, len: 64 })
        );
        let own = legacy.dma_addr(PhysAddr::new(0x1000), 64).unwrap();
        assert_eq!(legacy.check(own, 64), Ok(()));
        assert_eq!(legacy.check(own, 0), Err(DmaError::ZeroLength));
        assert!(legacy.check(own, 1 << 30).is_err());
    }

    #[test]
    fn coherence_is_decided_at_run_time() {
        let device = Device::new("device", DmaMask::new::<32>(), &[]);
        assert!(!device.is_coherent());
        device.set_coherent(true);
        assert!(device.is_coherent());
        assert_eq!(device.limit(), PhysAddr::new(0));
    }
}
