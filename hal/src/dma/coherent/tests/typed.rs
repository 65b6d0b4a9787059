//! Coherent memory by type.

use super::*;
use zerocopy::{FromBytes, Immutable, IntoBytes};

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable)]
#[repr(C)]
struct Descriptor {
    addr: u64,
    len: u32,
    status: u32,
}

const STATUS: Field<Descriptor, u32> = crate::dma_field!(Descriptor, status);
const ADDR: Field<Descriptor, u64> = crate::dma_field!(Descriptor, addr);

#[test]
fn values_and_fields_are_bounded() {
    let pool = pool(1);
    let mut ring = Coherent::<[Descriptor]>::from_bytes(pool.alloc(device(), 1).unwrap());
    assert_eq!((ring.len(), ring.size()), (256, PAGE_SIZE));
    let one = Descriptor {
        addr: 1,
        len: 2,
        status: 3,
    };
    ring.write_at(255, one).unwrap();
    ring.write_field_at(255, STATUS, 0x8000_0000).unwrap();
    assert_eq!(ring.read_field_at(255, ADDR), Ok(1));
    let status = 0x8000_0000;
    assert_eq!(ring.read_at(255), Ok(Descriptor { status, ..one }));
    assert_eq!(ring.as_slice()[254], Descriptor::default());
    let (offset, len, size) = (PAGE_SIZE, 16, PAGE_SIZE);
    let outside = DmaError::OutOfBounds { offset, len, size };
    assert_eq!(ring.read_at(256), Err(outside));
    assert_eq!(ring.write_field_at(256, STATUS, 0), Err(outside));
    assert!(ring.read_at(usize::MAX).is_err());
}

#[test]
fn before_boot_is_done_there_is_no_coherent_memory() {
    let refused = Coherent::<Descriptor>::zeroed(device(), crate::mm::Gfp::KERNEL);
    let not_ready = DmaError::NoMemory(crate::mm::AllocError::NotReady);
    assert_eq!(refused.map(drop), Err(not_ready));
}
