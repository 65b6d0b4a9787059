use super::*;
use crate::addr::PAGE_SIZE;
use crate::arch::trace::{Op, record_during};
use crate::dma::device::fake;
use crate::dma::{DmaMask, bounce};
use crate::layout::host;
use DirectionKind::{FromDevice, ToDevice};

const BUS: u64 = 0x10_0000_0000;

fn device() -> &'static Device {
    fake("test", DmaMask::new::<40>(), [0, BUS, 1 << 36])
}

/// A page of its own, by physical address.
fn page() -> PhysAddr {
    host::ram(PAGE_SIZE as u64, PAGE_SIZE as u64).start
}

fn line(pa: PhysAddr) -> VirtAddr {
    layout::phys_to_virt(pa)
}

#[test]
fn single_maps_maintain_as_the_direction_asks() {
    let (device, pa) = (device(), page());
    let ptr = line(pa).as_ptr();
    // SAFETY: the page is this test's, and the host's device accesses nothing.
    let (addr, map) = record_during(|| unsafe { dma_map_single(device, ptr, 128, FromDevice) });
    assert_eq!(addr.get(), BUS + pa.get());
    assert!(!dma_mapping_error(device, addr));
    assert_eq!(
        map,
        [Op::Clean(line(pa)), Op::Clean(line(pa + 64)), Op::DsbSy]
    );
    // SAFETY: mapped above.
    let ((), sync) = record_during(|| unsafe {
        dma_sync_single_range_for_cpu(device, addr, 64, 64, FromDevice);
        dma_sync_single_range_for_device(device, addr, 64, 64, FromDevice);
    });
    let second = line(pa + 64);
    assert_eq!(
        sync,
        [
            Op::Invalidate(second),
            Op::DsbSy,
            Op::Clean(second),
            Op::DsbSy
        ]
    );
    // SAFETY: as above.
    let ((), unmap) = record_during(|| unsafe { dma_unmap_single(device, addr, 128, FromDevice) });
    assert_eq!(
        unmap,
        [Op::Invalidate(line(pa)), Op::Invalidate(second), Op::DsbSy]
    );
}

#[test]
fn what_a_device_only_reads_needs_nothing_at_unmap() {
    let (device, pa) = (device(), page());
    // SAFETY: the page is this test's, and the host's device accesses nothing.
    let addr = unsafe { dma_map_page(device, pa.pfn(), 64, 64, ToDevice) };
    assert_eq!(addr.get(), BUS + pa.get() + 64);
    // SAFETY: mapped above.
    let ((), unmap) = record_during(|| unsafe { dma_unmap_page(device, addr, 64, ToDevice) });
    assert!(unmap.is_empty());
}

/// The device was taken as something else between map and unmap.
#[test]
fn maps_are_ended_as_they_were_made() {
    let (device, pa) = (
        fake("turncoat", DmaMask::new::<40>(), [0, BUS, 1 << 36]),
        page(),
    );
    for is_coherent in [false, true] {
        device.set_coherent(is_coherent);
        // SAFETY: the page is this test's, and the host's device accesses nothing.
        let addr = unsafe { dma_map_page(device, pa.pfn(), 0, 64, FromDevice) };
        device.set_coherent(!is_coherent);
        // SAFETY: mapped above.
        let ((), ops) = record_during(|| unsafe { dma_unmap_page(device, addr, 64, FromDevice) });
        match is_coherent {
            true => assert_eq!(ops, [Op::DmbOshld]),
            false => assert_eq!(ops, [Op::Invalidate(line(pa)), Op::DsbSy]),
        }
    }
    // What was refused is no map.
    device.set_coherent(false);
    // SAFETY: no bytes are refused.
    let refused = unsafe { dma_map_page(device, pa.pfn(), 0, 0, FromDevice) };
    device.set_coherent(true);
    assert!(dma_mapping_error(device, refused) && device.is_noted_coherent());
}

#[test]
fn refused_maps_return_the_error() {
    let device = device();
    let outside = layout::VMALLOC.base.as_ptr();
    for (ptr, len) in [
        (outside, 64),
        (line(page()).as_ptr(), 0),
        (line(page()).as_ptr(), usize::MAX),
    ] {
        // SAFETY: each is refused.
        let addr = unsafe { dma_map_single(device, ptr, len, ToDevice) };
        assert!(dma_mapping_error(device, addr));
    }
    // SAFETY: the device sees nothing there, so nothing is done.
    let ((), ops) = record_during(|| unsafe {
        dma_unmap_single(device, DMA_MAPPING_ERROR, 64, FromDevice);
        dma_sync_single_for_device(device, DMA_MAPPING_ERROR, 64, FromDevice);
    });
    assert!(ops.is_empty());
}

#[test]
fn lists_are_mapped_whole_or_not_at_all_with_one_barrier() {
    let device = device();
    let (a, b) = (page(), page());
    let mut list = [Scatter::new(a, 64), Scatter::new(b + 128, 64)];
    // SAFETY: the pages are this test's, and the host's device accesses nothing.
    let (count, map) = record_during(|| unsafe { dma_map_sg(device, &mut list, FromDevice) });
    assert_eq!(count, 2);
    assert_eq!(
        map,
        [Op::Clean(line(a)), Op::Clean(line(b + 128)), Op::DsbSy]
    );
    assert_eq!(list[1].dma_address().get(), BUS + b.get() + 128);
    assert_eq!(list[1].dma_len(), 64);
    // SAFETY: mapped above.
    let ((), sync) = record_during(|| unsafe {
        dma_sync_sg_for_cpu(device, &list, FromDevice);
        dma_sync_sg_for_device(device, &list, FromDevice);
    });
    assert_eq!(sync.iter().filter(|op| **op == Op::DsbSy).count(), 2);
    // SAFETY: as above.
    let ((), unmap) = record_during(|| unsafe { dma_unmap_sg(device, &mut list, FromDevice) });
    assert_eq!(
        unmap,
        [
            Op::Invalidate(line(a)),
            Op::Invalidate(line(b + 128)),
            Op::DsbSy
        ]
    );

    let is_unmapped =
        |entry: &Scatter| (entry.dma_address(), entry.dma_len()) == (DMA_MAPPING_ERROR, 0);
    assert!(list.iter().all(is_unmapped));
    // SAFETY: nothing is mapped any more, so nothing is done.
    let ((), again) = record_during(|| unsafe {
        dma_sync_sg_for_cpu(device, &list, FromDevice);
        dma_unmap_sg(device, &mut list, FromDevice);
    });
    assert!(again.is_empty());

    let mut list = [Scatter::new(a, 64), Scatter::new(b, 0)];
    // SAFETY: as above; the second entry is refused.
    assert_eq!(unsafe { dma_map_sg(device, &mut list, FromDevice) }, 0);
    assert!(list.iter().all(is_unmapped));
}

#[test]
fn resources_are_translated_and_never_maintained() {
    let device = fake(
        "test",
        DmaMask::new::<32>(),
        [0xFE00_0000, 0x7E00_0000, 0x180_0000],
    );
    let ((), ops) = record_during(|| {
        let addr = dma_map_resource(device, PhysAddr::new(0xFE20_1000), 4, ToDevice);
        assert_eq!(addr.get(), 0x7E20_1000);
        dma_unmap_resource(device, addr, 4, ToDevice);
    });
    assert!(ops.is_empty());
    let none = dma_map_resource(device, PhysAddr::new(0x1000), 4, ToDevice);
    assert!(dma_mapping_error(device, none));
}

/// Of a bounced buffer a driver keeps the slots' address only.
#[test]
fn bounced_buffers_are_found_by_the_address_of_their_slots() {
    let (device, pa) = (device(), page());
    bounce::tests::with_pool();
    // A line is shared at either end, and the second slot is used.
    let len = bounce::SLOT_SIZE + 7;
    // SAFETY: the page is this test's.
    let bytes = unsafe { core::slice::from_raw_parts_mut((line(pa) + 5).as_ptr::<u8>(), len) };
    bytes.fill(0x11);
    // SAFETY: nobody else uses the page, and the host's device accesses nothing.
    let addr = unsafe { dma_map_single(device, bytes.as_mut_ptr(), len, FromDevice) };
    let slots = line(device.phys_addr(addr, len).unwrap()).as_ptr::<u8>();
    // SAFETY: the slots are this mapping's, and this is the device's part.
    let shown = unsafe { core::slice::from_raw_parts_mut(slots, len) };
    assert!(shown.iter().all(|&byte| byte == 0x11));
    shown.fill(0x22);
    // SAFETY: mapped above.
    unsafe { dma_sync_single_range_for_cpu(device, addr, bounce::SLOT_SIZE, 7, FromDevice) };
    let (head, tail) = bytes.split_at(bounce::SLOT_SIZE);
    assert!(head.iter().all(|&byte| byte == 0x11) && tail == [0x22; 7]);
    // SAFETY: as above.
    unsafe { dma_unmap_single(device, addr, len, FromDevice) };
    assert!(bytes.iter().all(|&byte| byte == 0x22));
}

/// Where the last bytes of a slot are synchronised by their own address, only their line is touched:
/// the one behind it is another slot's, or nobody's of the pool.
#[test]
fn bytes_at_the_end_of_a_slot_keep_off_the_next_line() {
    const SLOT: usize = bounce::SLOT_SIZE;

    let buffer = Bounced::map(SLOT);
    let (slots, bytes) = (line(buffer.slots()), buffer.start + Bounced::MARGIN);
    let sync = |offset, len| {
        let ((), ops) = record_during(|| {
            // SAFETY: mapped above, and the device is nobody.
            unsafe {
                dma_sync_single_range_for_cpu(device(), buffer.addr, offset, len, FromDevice);
            }
        });
        let (from, to) = (slots + offset, bytes + offset);
        (ops, Op::Copy { from, to, len })
    };
    let last = slots + (SLOT - 64);
    let (ops, copy) = sync(SLOT - 3, 3);
    assert_eq!(ops, [Op::CleanInvalidate(last), Op::DsbSy, copy]);
    let (ops, copy) = sync(SLOT - 64, 63);
    assert_eq!(ops, [Op::Invalidate(last), Op::DsbSy, copy]);
    // For the device, nothing of what it wrote is overwritten by what the CPU sees.
    // SAFETY: as above.
    let ((), ops) = record_during(|| unsafe {
        dma_sync_single_range_for_device(device(), buffer.addr, SLOT - 3, 3, FromDevice);
    });
    assert_eq!(ops, [Op::Clean(last), Op::DsbSy]);
    buffer.unmap(SLOT);
}

/// A buffer that is bounced: it shares its lines with bytes before and behind it.
struct Bounced {
    addr: DmaAddr,
    start: VirtAddr,
    len: usize,
}

impl Bounced {
    const MARGIN: usize = 5;

    /// Maps `len` bytes of 0x11, with 0x33 around them; then a device writes 0x22.
    fn map(len: usize) -> Self {
        let size = (len + 2 * Self::MARGIN).next_multiple_of(PAGE_SIZE);
        let start = line(host::ram(size as u64, PAGE_SIZE as u64).start);
        let (ptr, buffer) = (start.as_ptr::<u8>(), start + Self::MARGIN);
        // SAFETY: the pages are this test's, and the host's device accesses nothing.
        let addr = unsafe {
            ptr.write_bytes(0x33, size);
            ptr.add(Self::MARGIN).write_bytes(0x11, len);
            dma_map_single(device(), buffer.as_ptr(), len, FromDevice)
        };
        let this = Self { addr, start, len };
        assert!(this.is_lent());
        // SAFETY: the slots are this mapping's, and this is the device's part.
        unsafe { line(this.slots()).as_ptr::<u8>().write_bytes(0x22, len) };
        this
    }

    fn slots(&self) -> PhysAddr {
        device().phys_addr(self.addr, 1).unwrap()
    }

    fn is_lent(&self) -> bool {
        let place = bounce::tests::with_pool().place_of(self.slots());
        matches!(place, bounce::Place::Lent { .. })
    }

    fn unmap(&self, len: usize) {
        // SAFETY: with a wrong length, or twice, it is up to this test that nothing is touched but
        // this buffer.
        unsafe { dma_unmap_single(device(), self.addr, len, FromDevice) };
    }

    /// Stores to the whole buffer.
    fn fill(&self, byte: u8) {
        let buffer = self.start + Self::MARGIN;
        // SAFETY: the page is this test's.
        unsafe { buffer.as_ptr::<u8>().write_bytes(byte, self.len) };
    }

    /// Whether the buffer begins with `count` times `first`, goes on with `rest`, and nothing around
    /// it has changed.
    fn holds(&self, count: usize, first: u8, rest: u8) -> bool {
        let size = self.len + 2 * Self::MARGIN;
        // SAFETY: the page is this test's, and nobody stores to it meanwhile.
        let bytes = unsafe { core::slice::from_raw_parts(self.start.as_ptr::<u8>(), size) };
        bytes.iter().enumerate().all(|(at, &byte)| {
            byte == match at.checked_sub(Self::MARGIN) {
                Some(at) if at < count.min(self.len) => first,
                Some(at) if at < self.len => rest,
                _ => 0x33,
            }
        })
    }
}

/// Such calls break the contract, and yet do as little harm as they can.
#[test]
fn wrong_unmaps_touch_nothing_but_what_was_bounced() {
    bounce::tests::with_pool();
    let len = bounce::SLOT_SIZE + 7;
    // Other tests find room in the slots before those of this one, even when these are free.
    let room = Bounced::map(bounce::MAX_BOUNCE / 2);
    let keeper = Bounced::map(len);
    let kept = [Bounced::map(len), Bounced::map(len), Bounced::map(len)];
    let neighbours = [Bounced::map(len), Bounced::map(len)];
    room.unmap(room.len);

    // An unmap of no bytes does nothing.
    let ((), ops) = record_during(|| keeper.unmap(0));
    assert!(ops.is_empty() && keeper.is_lent() && keeper.holds(0, 0, 0x11));
    // Any other length ends the whole mapping, and copies what was lent at most.
    for (buffer, wrong) in kept.iter().zip([len, 1, 3 * bounce::SLOT_SIZE]) {
        buffer.unmap(wrong);
        assert!(!buffer.is_lent() && buffer.holds(wrong, 0x22, 0x11));
        let tail = buffer.slots() + bounce::SLOT_SIZE;
        let pool = bounce::tests::with_pool();
        assert_eq!(pool.place_of(tail), bounce::Place::Free, "no slot leaks");
        // The CPU's stores outlive another unmap, and another sync.
        buffer.fill(0x44);
        let ((), ops) = record_during(|| {
            buffer.unmap(len);
            // SAFETY: no longer mapped, which is to have no effect.
            unsafe { dma_sync_single_for_cpu(device(), buffer.addr, len, FromDevice) };
        });
        assert!(ops.is_empty() && buffer.holds(len, 0x44, 0));
    }
    for buffer in neighbours.iter().chain([&keeper]) {
        assert!(buffer.is_lent() && buffer.holds(0, 0, 0x11));
        buffer.unmap(len);
        assert!(!buffer.is_lent() && buffer.holds(len, 0x22, 0));
    }
}

#[test]
fn empty_lists_are_refused() {
    // SAFETY: nothing is lent.
    let (count, ops) = record_during(|| unsafe { dma_map_sg(device(), &mut [], ToDevice) });
    assert_eq!(count, 0);
    assert!(ops.is_empty());
}
