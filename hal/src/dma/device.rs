//! What the library knows of one device that does DMA.

mod coherence;
mod limits;

pub use limits::{BadLimits, SegmentLimits};

use super::bounce::MAX_BOUNCE;
use super::{BusWindow, DmaError, DmaMask, debug, lease};
use crate::addr::{DmaAddr, PhysAddr, PhysRange, VirtAddr};
use crate::layout;
use crate::mm;
use coherence::Coherence;
use core::panic::Location;
use core::sync::atomic::{AtomicU64, Ordering};

/// A device: what it reaches, at which addresses, and whether its accesses snoop the CPU's caches.
///
/// Every address is checked in software before the device is told of it, because a device given an
/// address beyond its reach does not report an error: it accesses other memory.
#[derive(Debug)]
pub struct Device {
    name: &'static str,
    width: DmaMask,
    windows: &'static [BusWindow],
    /// The first of them, here for speed; empty if there is none.
    first: BusWindow,
    limits: SegmentLimits,
    streaming: Reach,
    coherent_memory: Reach,
    coherence: Coherence,
    may_bounce: bool,
}

/// What a device reaches of memory under one of its masks.
#[derive(Debug)]
struct Reach {
    mask: AtomicU64,
    /// Bytes reached of the first window, so that most addresses need one comparison.
    first_window: AtomicU64,
}

impl Reach {
    const fn new(mask: DmaMask, windows: &[BusWindow]) -> Self {
        Self {
            mask: AtomicU64::new(mask.value()),
            first_window: AtomicU64::new(reached(mask, windows)),
        }
    }

    fn mask(&self) -> u64 {
        self.mask.load(Ordering::Relaxed)
    }
}

/// Bytes of the first window that a device driving `mask` reaches.
const fn reached(mask: DmaMask, windows: &[BusWindow]) -> u64 {
    match windows.first() {
        Some(window) => window.reached(mask.value()),
        None => 0,
    }
}

impl Device {
    /// A device that drives the address bits of `width` and sees memory through `windows`, taken as
    /// not coherent. Both its masks start at `width`; it takes segments of any length.
    ///
    /// The width limits addresses on the device's side of the windows. An engine whose controller
    /// sees the first GiB at 0xC000_0000 drives 32 bits and has one window of 1 GiB.
    ///
    /// # Safety
    ///
    /// Whatever is told an address that was made for this device drives at least the bits of
    /// `width`, and sees memory where `windows` say: it accesses other memory otherwise.
    pub const unsafe fn new(
        name: &'static str,
        width: DmaMask,
        windows: &'static [BusWindow],
    ) -> Self {
        Self {
            name,
            width,
            windows,
            first: match windows.first() {
                Some(first) => *first,
                None => BusWindow::EMPTY,
            },
            limits: SegmentLimits::NONE,
            streaming: Reach::new(width, windows),
            coherent_memory: Reach::new(width, windows),
            coherence: Coherence::new(),
            may_bounce: true,
        }
    }

    /// The device with limits on the segments of a scattered buffer.
    #[doc(alias("dma_set_max_seg_size", "dma_set_seg_boundary"))]
    pub const fn with_limits(self, limits: SegmentLimits) -> Self {
        Self { limits, ..self }
    }

    /// The device without [bounce buffers](super::bounce): memory it cannot be given as it is, is
    /// refused.
    pub const fn without_bouncing(self) -> Self {
        Self {
            may_bounce: false,
            ..self
        }
    }

    /// Whether buffers of the device may be bounced.
    pub const fn may_bounce(&self) -> bool {
        self.may_bounce
    }

    /// Name used in reports.
    pub const fn name(&self) -> &'static str {
        self.name
    }

    /// What the device takes in one segment of a scattered buffer.
    #[doc(alias("dma_get_max_seg_size", "dma_get_seg_boundary"))]
    pub const fn limits(&self) -> SegmentLimits {
        self.limits
    }

    /// The greatest device address that is used for streaming maps.
    #[doc(alias = "dma_get_mask")]
    pub fn mask(&self) -> u64 {
        self.streaming.mask().min(self.width.value())
    }

    /// The greatest device address that is used for coherent memory.
    #[doc(alias = "coherent_dma_mask")]
    pub fn coherent_mask(&self) -> u64 {
        self.coherent_memory.mask().min(self.width.value())
    }

    /// Says how many address bits the driver uses for streaming maps from now on. A wider mask than
    /// the device drives is taken and changes nothing, and one of at least 32 bits is always taken.
    ///
    /// To be called before the first map. May be called in any context.
    ///
    /// # Errors
    ///
    /// [`DmaError::MaskUnsupported`] if the device would reach none of the machine's RAM.
    #[doc(alias = "dma_set_mask")]
    pub fn set_mask(&self, mask: DmaMask) -> Result<(), DmaError> {
        self.set(&self.streaming, mask)
    }

    /// As [`set_mask`](Self::set_mask), for coherent memory.
    ///
    /// # Errors
    ///
    /// As for [`set_mask`](Self::set_mask).
    #[doc(alias = "dma_set_coherent_mask")]
    pub fn set_coherent_mask(&self, mask: DmaMask) -> Result<(), DmaError> {
        self.set(&self.coherent_memory, mask)
    }

    /// As [`set_mask`](Self::set_mask), for both kinds of memory; neither changes on an error.
    ///
    /// # Errors
    ///
    /// As for [`set_mask`](Self::set_mask).
    #[doc(alias = "dma_set_mask_and_coherent")]
    pub fn set_mask_and_coherent(&self, mask: DmaMask) -> Result<(), DmaError> {
        self.set_mask(mask)?;
        self.set_coherent_mask(mask)
    }

    fn set(&self, reach: &Reach, mask: DmaMask) -> Result<(), DmaError> {
        let used = mask.min(self.width);
        if mask < ALWAYS_TAKEN && !reaches_ram(used.value(), self.windows) {
            return Err(DmaError::MaskUnsupported {
                device: self.name,
                mask: mask.value(),
            });
        }
        reach.mask.store(used.value(), Ordering::Relaxed);
        reach
            .first_window
            .store(reached(used, self.windows), Ordering::Relaxed);
        Ok(())
    }

    /// The address the device must be given for the `len` bytes at `pa`.
    ///
    /// # Errors
    ///
    /// [`DmaError::ZeroLength`], [`DmaError::OutOfReach`]. Lengths that wrap are out of reach.
    #[inline]
    pub fn dma_addr(&self, pa: PhysAddr, len: usize) -> Result<DmaAddr, DmaError> {
        self.reach(&self.streaming, pa, len)
    }

    /// As [`dma_addr`](Self::dma_addr), for coherent memory.
    ///
    /// # Errors
    ///
    /// As for [`dma_addr`](Self::dma_addr).
    #[inline]
    pub fn coherent_addr(&self, pa: PhysAddr, len: usize) -> Result<DmaAddr, DmaError> {
        self.reach(&self.coherent_memory, pa, len)
    }

    /// The address of the `len` bytes at `pa` for streaming maps, or `None` if the device does not
    /// reach them: [`dma_addr`](Self::dma_addr) for callers that have another way.
    #[inline(always)]
    pub(super) fn streaming_addr(&self, pa: PhysAddr, len: usize) -> Option<DmaAddr> {
        self.find(&self.streaming, pa, len)
    }

    /// As [`streaming_addr`](Self::streaming_addr), in the first window alone: what nearly all maps
    /// need.
    #[inline(always)]
    pub(super) fn plain_addr(&self, pa: PhysAddr, len: usize) -> Option<DmaAddr> {
        let size = self.streaming.first_window.load(Ordering::Relaxed);
        self.first.translate_below(pa, len, size)
    }

    #[inline(always)]
    fn reach(&self, reach: &Reach, pa: PhysAddr, len: usize) -> Result<DmaAddr, DmaError> {
        match self.find(reach, pa, len) {
            Some(addr) => Ok(addr),
            None => Err(self.out_of_reach(reach, pa, len)),
        }
    }

    #[inline(always)]
    fn find(&self, reach: &Reach, pa: PhysAddr, len: usize) -> Option<DmaAddr> {
        let size = reach.first_window.load(Ordering::Relaxed);
        match self.first.translate_below(pa, len, size) {
            None => self.find_in_others(reach, pa, len),
            addr => addr,
        }
    }

    #[cold]
    fn find_in_others(&self, reach: &Reach, pa: PhysAddr, len: usize) -> Option<DmaAddr> {
        let mask = reach.mask();
        let mut others = self.windows.iter().skip(1);
        others.find_map(|window| window.translate_below(pa, len, window.reached(mask)))
    }

    #[cold]
    fn out_of_reach(&self, reach: &Reach, pa: PhysAddr, len: usize) -> DmaError {
        match len {
            0 => DmaError::ZeroLength,
            _ => DmaError::OutOfReach {
                addr: pa,
                len,
                limit: limit(reach.mask(), self.windows).unwrap_or_default(),
            },
        }
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
        self.phys_addr(addr, len)
            .map(drop)
            .ok_or(DmaError::ForeignAddress { addr, len })
    }

    /// The memory behind the `len` bytes that the device sees at `addr`, if it sees any there.
    pub fn phys_addr(&self, addr: DmaAddr, len: usize) -> Option<PhysAddr> {
        let last = addr.checked_add(len.saturating_sub(1))?;
        if last.get() > self.width.value() {
            return None;
        }
        let mut windows = self.windows.iter();
        windows.find_map(|window| window.untranslate(addr, len))
    }

    /// Says that the driver is done with the device: each mapping it still has is a leak, and
    /// [reported](super::debug) with the place of the map and of this call. Returns how many there
    /// are; 0 while DMA calls are not checked.
    ///
    /// Nothing ends by it. To be called where the device is given up, after it was stopped. May be
    /// called in any context.
    #[doc(alias = "dma_debug_device_change")]
    #[track_caller]
    pub fn release(&self) -> usize {
        match debug::is_on() {
            true => debug::on_release(self, Location::caller()),
            false => 0,
        }
    }

    /// Whether streaming maps reach all of the machine's RAM, so that nothing is bounced for its
    /// place.
    #[doc(alias = "dma_addressing_limited")]
    pub fn reaches_all_ram(&self) -> bool {
        self.reaches_all(mm::ram())
    }

    fn reaches_all(&self, ram: &[PhysRange]) -> bool {
        let reached = |ram: &PhysRange| self.streaming_addr(ram.start, ram.size() as usize);
        ram.iter().all(|ram| reached(ram).is_some())
    }

    /// Bytes in the largest buffer of whole cache lines that is mapped wherever it lies, if that
    /// depends on its size: where the device does not reach all RAM with its mask, and what it does
    /// not reach is bounced. `usize::MAX` otherwise: everything is reached, or no size helps what is
    /// not. No smaller size is any better.
    ///
    /// A buffer that shares a cache line with its neighbours, which a device writes that is not
    /// coherent, is bounced wherever it lies, and never longer than
    /// [`MAX_BOUNCE`].
    #[doc(alias("dma_max_mapping_size", "dma_opt_mapping_size"))]
    pub fn max_mapping_size(&self) -> usize {
        self.max_mapping_size_in(mm::ram())
    }

    fn max_mapping_size_in(&self, ram: &[PhysRange]) -> usize {
        match !self.reaches_all(ram) && lease::usable_pool(self, MAX_BOUNCE).is_some() {
            true => MAX_BOUNCE,
            false => usize::MAX,
        }
    }

    /// The last byte of memory that streaming maps reach, address 0 if they reach none.
    pub fn limit(&self) -> PhysAddr {
        limit(self.streaming.mask(), self.windows).unwrap_or_default()
    }

    /// The last byte of memory that coherent memory reaches, address 0 if it reaches none.
    pub fn coherent_limit(&self) -> PhysAddr {
        limit(self.coherent_memory.mask(), self.windows).unwrap_or_default()
    }

    /// The physical address of `len` bytes of the direct map at `va`.
    #[inline]
    pub(super) fn direct_map_range(va: VirtAddr, len: usize) -> Result<PhysAddr, DmaError> {
        let last = va.get().checked_add(len.wrapping_sub(1));
        match (layout::virt_to_phys(va), last.map(VirtAddr::new)) {
            (Some(pa), Some(last)) if len != 0 && layout::virt_to_phys(last).is_some() => Ok(pa),
            _ => Err(no_direct_map_range(va, len)),
        }
    }
}

/// Why `len` bytes at `va` are no memory of the direct map.
#[cold]
fn no_direct_map_range(va: VirtAddr, len: usize) -> DmaError {
    use super::MemoryKind;

    if len == 0 {
        return DmaError::ZeroLength;
    }
    let Some(last) = va.checked_add(len - 1) else {
        return DmaError::Wraps { addr: va, len };
    };
    let kind = |addr| MemoryKind::outside_direct_map(addr).map(|kind| (addr, kind));
    match kind(va).or_else(|| kind(last)) {
        Some((addr, kind)) => DmaError::NotMappable { addr, kind },
        None => DmaError::NoPage { addr: va },
    }
}

/// Masks from this one on are taken, as drivers expect (Linux `Documentation/core-api/dma-api-howto`,
/// "DMA addressing capabilities").
const ALWAYS_TAKEN: DmaMask = DmaMask::new::<32>();

/// Whether a device driving `mask` reaches a byte of RAM; any memory at all, as long as nobody has
/// said where RAM is.
fn reaches_ram(mask: u64, windows: &[BusWindow]) -> bool {
    let ram = mm::ram();
    windows.iter().any(|window| {
        let reached = window.reached_range(mask);
        !reached.is_empty() && (ram.is_empty() || ram.iter().any(|ram| ram.overlaps(&reached)))
    })
}

/// The last byte of memory that a device driving `mask` reaches, or `None` if it reaches none.
fn limit(mask: u64, windows: &[BusWindow]) -> Option<PhysAddr> {
    let ends = windows
        .iter()
        .filter_map(|window| window.last_reached(mask));
    ends.max()
}

#[cfg(test)]
#[path = "device/tests.rs"]
pub(super) mod tests;
#[cfg(test)]
pub(crate) use tests::fake;
