use super::super::DmaMask;
use super::super::device::fake;
use super::super::direction::DirectionKind::{Bidirectional, FromDevice, ToDevice};
use super::*;
use crate::arch::trace::record_during;
use crate::layout::host;

const GIB: u64 = 1 << 30;

fn wide() -> &'static Device {
    fake("wide", DmaMask::new::<64>(), [0, 0, 1 << 40])
}

/// A lease of `len` bytes of RAM, `offset` bytes into a page.
fn lend(
    device: &Device,
    offset: usize,
    len: usize,
    direction: DirectionKind,
) -> Result<Lease, DmaError> {
    let pa = host::ram((offset + len) as u64, 4096).start + offset;
    // SAFETY: the RAM was just handed out to this lease alone, and no device is there.
    unsafe { Lease::begin(device, pa, len, direction) }
}

#[test]
fn whole_lines_are_lent_as_they_are() {
    for direction in [ToDevice, FromDevice, Bidirectional] {
        let lease = lend(wide(), 64, 192, direction).unwrap();
        assert!(lease.is_maintained() && !lease.is_bounced());
    }
}

#[test]
fn lines_may_be_shared_with_a_reader_and_by_a_coherent_device() {
    for (offset, len) in [(1, 64), (0, 63), (63, 2)] {
        assert!(!lend(wide(), offset, len, ToDevice).unwrap().is_bounced());
        let snooping = wide();
        snooping.set_coherent(true);
        let lease = lend(snooping, offset, len, Bidirectional).unwrap();
        assert!(!lease.is_bounced() && !lease.is_maintained());
    }
}

#[test]
fn a_writer_gets_no_line_it_shares() {
    let strict = Box::leak(Box::new(unbounced()));
    for (offset, len) in [(1, 64), (0, 63), (63, 2), (64, 65)] {
        for direction in [FromDevice, Bidirectional] {
            let lease = lend(wide(), offset, len, direction).unwrap();
            assert!(lease.is_bounced() && lease.is_maintained());
            lease.end();
            let (refused, ops) = record_during(|| lend(strict, offset, len, direction));
            assert!(matches!(
                refused,
                Err(DmaError::PartialLine { len: has, granule: 64, .. }) if has == len
            ));
            assert!(ops.is_empty());
        }
    }
}

fn unbounced() -> Device {
    super::super::device::tests::wide("strict").without_bouncing()
}

#[test]
fn what_is_too_long_to_bounce_is_refused() {
    let long = MAX_BOUNCE + 1;
    assert!(matches!(
        lend(wide(), 0, long, FromDevice),
        Err(DmaError::PartialLine { len, .. }) if len == long
    ));
    let lease = lend(wide(), 1, MAX_BOUNCE, FromDevice).unwrap();
    assert!(lease.is_bounced());
    lease.end();
}

#[test]
fn memory_out_of_reach_is_bounced_where_the_device_reaches_the_pool() {
    let pool = bounce::pool()
        .unwrap_or_else(bounce::tests::with_pool)
        .frames();
    let near = fake(
        "near",
        DmaMask::new::<40>(),
        [pool.start.get(), 0, pool.size()],
    );
    let lease = lend(near, 0, 64, ToDevice).unwrap();
    assert!(lease.is_bounced());
    assert!(lease.segment().addr.get() < pool.size());
    lease.end();
    // One byte of the pool less.
    let half = fake(
        "half",
        DmaMask::new::<40>(),
        [pool.start.get(), 0, pool.size() - 1],
    );
    let none = fake("none", DmaMask::new::<32>(), [0, 0, GIB]);
    for device in [half, none] {
        assert!(matches!(
            lend(device, 0, 64, ToDevice),
            Err(DmaError::OutOfReach { len: 64, .. })
        ));
    }
}

#[test]
fn parts_end_where_lines_do() {
    let lease = lend(wide(), 0, 256, FromDevice).unwrap();
    assert_eq!(
        lease.part(64..128, FromDevice),
        Ok(Part {
            offset: 64,
            len: 64
        })
    );
    for range in [1..64, 64..127, 0..255, 255..256] {
        assert!(matches!(
            lease.part(range, FromDevice),
            Err(DmaError::PartialLine { .. })
        ));
    }
    assert!(lease.part(1..64, ToDevice).is_ok());
    assert_eq!(lease.part(5..5, FromDevice), Err(DmaError::ZeroLength));
    #[expect(clippy::reversed_empty_ranges, reason = "what is refused")]
    let reversed = lease.part(64..0, FromDevice);
    assert_eq!(reversed, Err(DmaError::ZeroLength));
    for (range, len) in [(192..257, 65), (256..512, 256)] {
        let offset = range.start;
        assert_eq!(
            lease.part(range, FromDevice),
            Err(DmaError::OutOfBounds {
                offset,
                len,
                size: 256
            })
        );
    }
}
