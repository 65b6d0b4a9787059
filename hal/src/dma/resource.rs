//! Device registers that another device is to reach, such as the data register of a peripheral that
//! an engine feeds.

use super::{Device, DmaError, DmaSegment};
use crate::addr::PhysRange;
use crate::mm;
use core::marker::PhantomData;

/// Registers as a device sees them. Nothing happens when it is dropped: registers are not cached.
#[derive(Debug)]
pub struct ResourceMapping<'a> {
    segment: DmaSegment,
    device: PhantomData<&'a Device>,
}

impl ResourceMapping<'_> {
    /// The address and length the device must be given.
    pub fn dma_segment(&self) -> DmaSegment {
        self.segment
    }
}

/// The registers at `range`, for `device`. No maintenance, whatever the device; never bounced.
///
/// The board must have given the device a [window](super::BusWindow) onto them. May be called in any
/// context.
///
/// # Errors
///
/// [`DmaError::ZeroLength`], [`DmaError::IsRam`] if the range holds a byte of RAM, whose caches would
/// not be maintained, and [`DmaError::OutOfReach`].
#[doc(alias("dma_map_resource", "dma_unmap_resource"))]
pub fn map_resource(device: &Device, range: PhysRange) -> Result<ResourceMapping<'_>, DmaError> {
    if mm::is_ram(range) {
        return Err(DmaError::IsRam { range });
    }
    let len = range.size() as usize;
    let addr = device.dma_addr(range.start, len)?;
    Ok(ResourceMapping {
        segment: DmaSegment { addr, len },
        device: PhantomData,
    })
}

#[cfg(test)]
mod tests {
    use super::super::DmaMask;
    use super::super::device::fake;
    use super::*;
    use crate::addr::PhysAddr;
    use crate::arch::trace::record_during;

    #[test]
    fn registers_are_translated_and_not_maintained() {
        let device = fake(
            "engine",
            DmaMask::new::<32>(),
            [0xFE00_0000, 0x7E00_0000, 0x180_0000],
        );
        let uart = PhysAddr::new(0xFE20_1000);
        let range = PhysRange::new(uart, uart + 4);
        let (mapped, ops) = record_during(|| map_resource(device, range).unwrap());
        assert_eq!(mapped.dma_segment().addr.get(), 0x7E20_1000);
        assert_eq!(mapped.dma_segment().len, 4);
        assert!(ops.is_empty());
        let none = map_resource(device, PhysRange::new(uart, uart));
        assert_eq!(none.unwrap_err(), DmaError::ZeroLength);
        let outside = PhysRange::new(PhysAddr::new(0x1000), PhysAddr::new(0x2000));
        assert!(matches!(
            map_resource(device, outside),
            Err(DmaError::OutOfReach { .. })
        ));
    }
}
