use super::*;

const GIB: u64 = 1 << 30;

fn leak(cpu: u64, bus: u64, size: u64) -> &'static [BusWindow] {
    // SAFETY: no device is told the addresses of a test.
    let window = unsafe { BusWindow::new(PhysAddr::new(cpu), bus, size) }.unwrap();
    Box::leak(Box::new([window]))
}

fn device(name: &'static str, width: DmaMask, windows: &'static [BusWindow]) -> Device {
    // SAFETY: as above.
    unsafe { Device::new(name, width, windows) }
}

/// A device that nobody is, which sees `size` bytes of memory from `cpu` at bus address `bus`. There
/// is a bounce pool from then on.
pub(crate) fn fake(
    name: &'static str,
    width: DmaMask,
    [cpu, bus, size]: [u64; 3],
) -> &'static Device {
    crate::dma::bounce::tests::with_pool();
    Box::leak(Box::new(device(name, width, leak(cpu, bus, size))))
}

/// A device that nobody is and that reaches all memory.
pub(in crate::dma) fn wide(name: &'static str) -> Device {
    device(name, DmaMask::new::<64>(), leak(0, 0, 1 << 40))
}

#[test]
fn reach_is_window_and_mask() {
    let windows = leak(0, 0xC000_0000, GIB);
    let legacy = device("legacy", DmaMask::new::<32>(), windows);
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
    let windows = leak(0, 0, 1 << 40);
    let narrow = device("narrow", DmaMask::new::<28>(), windows);
    assert_eq!(narrow.limit(), PhysAddr::new(0x0FFF_FFFF));
    assert!(narrow.dma_addr(PhysAddr::new(0x0FFF_FFFF), 1).is_ok());
    assert!(matches!(
        narrow.dma_addr(PhysAddr::new(0x0FFF_FFFF), 2),
        Err(DmaError::OutOfReach { .. })
    ));
}

#[test]
fn an_address_made_for_another_device_is_refused() {
    let identity = leak(0, 0, 1 << 40);
    let alias = leak(0, 0xC000_0000, GIB);
    let pci = device("pci", DmaMask::new::<64>(), identity);
    let legacy = device("legacy", DmaMask::new::<32>(), alias);
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

/// Slots bound a buffer only where they help one that is out of reach.
#[test]
fn the_largest_buffer_is_that_of_slots_where_they_are_needed_and_help() {
    let pool = crate::dma::bounce::tests::with_pool().frames();
    let far = PhysRange::new(PhysAddr::new(1 << 38), PhysAddr::new((1 << 38) + GIB));
    let size = |device: Device, ram: &[PhysRange]| device.max_mapping_size_in(ram);
    let all = || device("all", DmaMask::new::<64>(), leak(0, 0, 1 << 40));
    let near = || device("near", DmaMask::new::<64>(), leak(0, 0, pool.end.get()));
    let short = || {
        device(
            "short",
            DmaMask::new::<64>(),
            leak(0, 0, pool.end.get() - 1),
        )
    };
    let ram = &[pool, far];
    assert_eq!(size(all(), ram), usize::MAX);
    assert_eq!(size(near(), &[pool]), usize::MAX);
    assert_eq!(size(near(), ram), MAX_BOUNCE);
    assert_eq!(size(near().without_bouncing(), ram), usize::MAX);
    assert_eq!(size(short(), ram), usize::MAX, "the pool is out of reach");
    // By its mask, and no more by a wider one.
    let masked = all();
    let bits = u64::BITS - pool.end.get().leading_zeros();
    masked.set_mask(DmaMask::try_new(bits).unwrap()).unwrap();
    assert_eq!(masked.max_mapping_size_in(ram), MAX_BOUNCE);
    masked.set_mask(DmaMask::new::<64>()).unwrap();
    assert_eq!(masked.max_mapping_size_in(ram), usize::MAX);
}

#[test]
fn coherence_is_decided_at_run_time() {
    let quiet = device("device", DmaMask::new::<32>(), &[]);
    assert!(!quiet.is_coherent());
    quiet.set_coherent(true);
    assert!(quiet.is_coherent());
    assert_eq!(quiet.limit(), PhysAddr::new(0));
}

#[test]
fn masks_are_set_apart_and_limited_by_the_width() {
    let legacy = device("legacy", DmaMask::new::<32>(), leak(0, 0xC000_0000, GIB));
    let pa = PhysAddr::new;
    assert_eq!(legacy.set_mask(DmaMask::new::<64>()), Ok(()));
    assert_eq!(legacy.mask(), u64::from(u32::MAX));
    assert_eq!(
        legacy.set_mask_and_coherent(DmaMask::new::<31>()),
        Err(DmaError::MaskUnsupported {
            device: "legacy",
            mask: 0x7FFF_FFFF
        })
    );
    assert!(legacy.dma_addr(pa(0x3FFF_FFFF), 1).is_ok());

    let pci = device("pci", DmaMask::new::<40>(), leak(0, 0, 1 << 40));
    assert_eq!(pci.set_mask(DmaMask::new::<32>()), Ok(()));
    assert_eq!(pci.limit(), pa(0xFFFF_FFFF));
    assert!(pci.dma_addr(pa(4 * GIB), 1).is_err());
    assert!(pci.coherent_addr(pa(4 * GIB), 1).is_ok());
    assert_eq!(pci.set_coherent_mask(DmaMask::new::<30>()), Ok(()));
    assert!(pci.coherent_addr(pa(GIB), 1).is_err());
    assert!(pci.dma_addr(pa(GIB), 1).is_ok());
}

#[test]
fn a_second_window_is_found() {
    // SAFETY: no device is told the addresses of a test.
    let window = |cpu, bus| unsafe { BusWindow::new(PhysAddr::new(cpu), bus, GIB) }.unwrap();
    let windows = Box::leak(Box::new([window(0, 0x4000_0000), window(4 * GIB, 0)]));
    let device = device("two", DmaMask::new::<32>(), windows);
    let addr = device.dma_addr(PhysAddr::new(4 * GIB + 5), 3).unwrap();
    assert_eq!(addr, DmaAddr::new(5));
    assert_eq!(device.phys_addr(addr, 3), Some(PhysAddr::new(4 * GIB + 5)));
    assert!(device.dma_addr(PhysAddr::new(GIB), 1).is_err());
    assert_eq!(
        device.dma_addr(PhysAddr::new(4 * GIB), 0),
        Err(DmaError::ZeroLength)
    );
}
