//! Where the CPU's memory appears on a device's bus.

use crate::addr::{DmaAddr, PhysAddr, PhysRange};

/// A stretch of CPU physical memory and the address at which a device sees it.
///
/// One entry of a bus's `dma-ranges` in the device tree. A bus window is the only thing that makes
/// a [`DmaAddr`], so an address given to a device was translated by a rule of its board.
///
/// # Invariants
///
/// Neither the CPU's nor the bus's side wraps around the address space.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BusWindow {
    cpu: PhysAddr,
    bus: u64,
    size: u64,
}

impl BusWindow {
    /// A window onto nothing.
    pub(super) const EMPTY: Self = Self {
        cpu: PhysAddr::new(0),
        bus: 0,
        size: 0,
    };

    /// The `size` bytes at `cpu`, seen by devices at `bus`; `None` if either side wraps or `size`
    /// is 0.
    ///
    /// ```
    /// use hal::addr::PhysAddr;
    /// use hal::dma::BusWindow;
    ///
    /// // The first GiB behind the uncached alias of a VideoCore bus.
    /// // SAFETY: no device is told the addresses of an example.
    /// let window = unsafe { BusWindow::new(PhysAddr::new(0), 0xC000_0000, 1 << 30) }.unwrap();
    /// let addr = window.translate(PhysAddr::new(0x1000), 64).unwrap();
    /// assert_eq!(addr.get(), 0xC000_1000);
    /// assert_eq!(window.translate(PhysAddr::new(0x3FFF_FFC1), 64), None);
    /// ```
    ///
    /// # Safety
    ///
    /// The devices whose window it becomes see the memory at `cpu` there: a board's documentation,
    /// its device tree or an IOMMU's tables say so.
    pub const unsafe fn new(cpu: PhysAddr, bus: u64, size: u64) -> Option<Self> {
        if size == 0
            || cpu.get().checked_add(size - 1).is_none()
            || bus.checked_add(size - 1).is_none()
        {
            return None;
        }
        // INVARIANT: neither side wraps, checked above.
        Some(Self { cpu, bus, size })
    }

    /// The device address of the `len` bytes at `pa`, or `None` if they do not lie in the window
    /// whole. `len` 0 counts as 1.
    #[inline]
    pub const fn translate(&self, pa: PhysAddr, len: usize) -> Option<DmaAddr> {
        match offset_in(pa.get(), len, self.cpu.get(), self.size) {
            Some(offset) => Some(DmaAddr::new(self.bus + offset)),
            None => None,
        }
    }

    /// The device address of the `len` bytes at `pa`, more than none, or `None` if they do not lie
    /// in the first `size` bytes of the window whole. `size` comes from [`reached`](Self::reached).
    #[inline(always)]
    pub(super) const fn translate_below(
        &self,
        pa: PhysAddr,
        len: usize,
        size: u64,
    ) -> Option<DmaAddr> {
        let offset = pa.get().wrapping_sub(self.cpu.get());
        if len == 0 || offset >= size || size - offset < len as u64 {
            return None;
        }
        Some(DmaAddr::new(self.bus.wrapping_add(offset)))
    }

    /// How many bytes of the window a device driving at most `mask` on its bus reaches.
    pub(super) const fn reached(&self, mask: u64) -> u64 {
        match mask.checked_sub(self.bus) {
            Some(last) if last < self.size => last + 1,
            Some(_) => self.size,
            None => 0,
        }
    }

    /// The CPU's side of what a device driving at most `mask` reaches.
    pub(super) fn reached_range(&self, mask: u64) -> PhysRange {
        PhysRange::new(self.cpu, PhysAddr::new(self.cpu.get() + self.reached(mask)))
    }

    /// The CPU's address of the `len` bytes a device sees at `addr`, or `None` if they do not lie
    /// in the window whole. `len` 0 counts as 1.
    #[inline]
    pub const fn untranslate(&self, addr: DmaAddr, len: usize) -> Option<PhysAddr> {
        match offset_in(addr.get(), len, self.bus, self.size) {
            Some(offset) => Some(PhysAddr::new(self.cpu.get() + offset)),
            None => None,
        }
    }

    /// The CPU's address of the last byte in the window that a device driving at most `mask` on
    /// its bus reaches, or `None` if it reaches none.
    pub(super) const fn last_reached(&self, mask: u64) -> Option<PhysAddr> {
        match self.reached(mask) {
            0 => None,
            bytes => Some(PhysAddr::new(self.cpu.get() + (bytes - 1))),
        }
    }
}

/// The distance of `addr` from `base`, if `len` bytes from `addr` end within `size` bytes of it.
const fn offset_in(addr: u64, len: usize, base: u64, size: u64) -> Option<u64> {
    let last = if len == 0 { 0 } else { len as u64 - 1 };
    match addr.checked_sub(base) {
        Some(offset) if offset < size && last < size - offset => Some(offset),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GIB: u64 = 1 << 30;

    fn window(cpu: u64, bus: u64, size: u64) -> Option<BusWindow> {
        // SAFETY: no device is told the addresses of a test.
        unsafe { BusWindow::new(PhysAddr::new(cpu), bus, size) }
    }

    fn legacy() -> BusWindow {
        window(0, 0xC000_0000, GIB).unwrap()
    }

    #[test]
    fn the_last_byte_is_in_and_the_next_is_out() {
        let window = legacy();
        let last = PhysAddr::new(0x3FFF_FFFF);
        assert_eq!(window.translate(last, 1), Some(DmaAddr::new(0xFFFF_FFFF)));
        assert_eq!(window.translate(last, 2), None);
        assert_eq!(window.translate(PhysAddr::new(GIB), 1), None);
        assert_eq!(
            window.translate(PhysAddr::new(0), 1 << 30),
            Some(DmaAddr::new(0xC000_0000))
        );
        assert_eq!(window.translate(PhysAddr::new(1), 1 << 30), None);
    }

    #[test]
    fn lengths_that_wrap_are_out() {
        let window = legacy();
        assert_eq!(window.translate(PhysAddr::new(0x1000), usize::MAX), None);
        assert_eq!(window.translate(PhysAddr::new(u64::MAX), 2), None);
        assert_eq!(window.untranslate(DmaAddr::new(u64::MAX), usize::MAX), None);
    }

    #[test]
    fn windows_that_wrap_are_refused() {
        assert!(window(0, 0, 0).is_none());
        assert!(window(u64::MAX, 0, 2).is_none());
        assert!(window(0, u64::MAX, 2).is_none());
        assert!(window(0, 0, u64::MAX).is_some());
    }

    #[test]
    fn both_directions_agree() {
        let window = window(0xFE00_0000, 0x7E00_0000, 0x180_0000).unwrap();
        let addr = window.translate(PhysAddr::new(0xFE20_1000), 4).unwrap();
        assert_eq!(addr.get(), 0x7E20_1000);
        assert_eq!(
            window.untranslate(addr, 4),
            Some(PhysAddr::new(0xFE20_1000))
        );
        assert_eq!(window.untranslate(DmaAddr::new(0x7DFF_FFFF), 4), None);
    }

    #[test]
    fn reach_ends_with_the_mask_or_the_window() {
        assert_eq!(
            legacy().last_reached(u64::MAX),
            Some(PhysAddr::new(0x3FFF_FFFF))
        );
        assert_eq!(
            legacy().last_reached(0xC000_0FFF),
            Some(PhysAddr::new(0xFFF))
        );
        assert_eq!(legacy().last_reached(0xBFFF_FFFF), None);
        assert_eq!(legacy().reached(0xC000_0FFF), 0x1000);
        assert_eq!(legacy().reached(0xFFFF_FFFF), GIB);
    }

    #[test]
    fn a_part_of_the_window_is_translated_as_the_whole() {
        let pa = PhysAddr::new;
        assert_eq!(
            legacy().translate_below(pa(0xFFF), 1, 0x1000),
            Some(DmaAddr::new(0xC000_0FFF))
        );
        assert_eq!(legacy().translate_below(pa(0xFFF), 2, 0x1000), None);
        assert_eq!(legacy().translate_below(pa(0x1000), 1, 0x1000), None);
        assert_eq!(legacy().translate_below(pa(0), 0, 0x1000), None);
        assert_eq!(legacy().translate_below(pa(0), usize::MAX, 0x1000), None);
        assert_eq!(legacy().translate_below(pa(u64::MAX), 2, 0x1000), None);
    }
}
