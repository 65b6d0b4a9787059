//! In which order bytes are copied, lines maintained and barriers issued when slots change hands.

use super::super::direction::{Bidirectional, Direction, FromDevice, ToDevice};
use super::super::streaming::map_slice;
use super::super::{Device, DmaMask};
use super::*;
use crate::arch::trace::{Op, record_during};
use crate::dma::device::fake;
use crate::layout::host;

/// Bytes in a cache line.
const LINE: usize = 64;

/// Bytes of the buffer: lines, and a part of one.
const LEN: usize = 2 * LINE + 22;

/// Where the part begins that is handed over by itself.
const PART: usize = LINE;

/// A device that sees nothing but the pool, so that everything is bounced.
fn near(is_coherent: bool) -> &'static Device {
    let pool = bounce::tests::with_pool().frames();
    let device = fake(
        "near",
        DmaMask::new::<40>(),
        [pool.start.get(), 0, pool.size()],
    );
    device.set_coherent(is_coherent);
    device
}

/// What is wanted of one hand-over, of the bytes in a range of the buffer.
#[derive(Clone, Copy)]
enum Wanted {
    Nothing,
    /// Copied in, then cleaned, then the barrier.
    In(usize, usize),
    /// Invalidated, then the barrier, then copied out.
    Out(usize, usize),
}

impl Wanted {
    fn ops(self, is_coherent: bool, slots: VirtAddr, buffer: VirtAddr) -> Vec<Op> {
        let lines = |start: usize, end: usize, op: fn(VirtAddr) -> Op| {
            let end = if is_coherent { start } else { end };
            (start..end)
                .step_by(LINE)
                .map(move |at| op(slots + at))
                .collect::<Vec<_>>()
        };
        let mut ops = Vec::new();
        match self {
            Self::Nothing => {}
            Self::In(start, end) => {
                let (from, to) = (buffer + start, slots + start);
                let len = end - start;
                ops.push(Op::Copy { from, to, len });
                ops.extend(lines(start, end, Op::Clean));
                ops.push(if is_coherent { Op::DmbOshst } else { Op::DsbSy });
            }
            Self::Out(start, end) => {
                ops.extend(lines(start, end, Op::Invalidate));
                ops.push(if is_coherent { Op::DmbOshld } else { Op::DsbSy });
                let (from, to) = (slots + start, buffer + start);
                let len = end - start;
                ops.push(Op::Copy { from, to, len });
            }
        }
        ops
    }
}

/// Hands a buffer to and fro, whole and a part of it, and compares each step with what is wanted of
/// the copies in and out.
fn hand_over<D: Direction>(is_coherent: bool) {
    use Wanted::{In, Nothing, Out};

    let device = near(is_coherent);
    let start = layout::phys_to_virt(host::ram(4096, 4096).start) + 5;
    // SAFETY: the RAM was just handed out to this test alone.
    let buffer = unsafe { core::slice::from_raw_parts_mut(start.as_ptr::<u8>(), LEN) };
    let mut slots = None;
    let mut check = |what: &str, ops: Vec<Op>, wanted: Wanted| {
        if let Some(&Op::Copy { to, .. }) = ops.first().filter(|_| slots.is_none()) {
            slots = Some(to);
        }
        let wanted = wanted.ops(is_coherent, slots.unwrap_or(start), start);
        assert_eq!(ops, wanted, "{what} {:?}, coherent {is_coherent}", D::KIND);
    };
    let out = |start| match D::KIND.device_writes() {
        true => Out(start, LEN),
        false => Nothing,
    };
    let (mapping, ops) = record_during(|| map_slice::<D>(device, buffer).unwrap());
    check("map", ops, In(0, LEN));
    let (cpu, ops) = record_during(|| mapping.sync_for_cpu());
    check("sync for the CPU", ops, out(0));
    let (mut mapping, ops) = record_during(|| cpu.sync_for_device());
    check("sync for the device", ops, In(0, LEN));
    let (part, ops) = record_during(|| mapping.sync_part_for_cpu(PART..LEN).unwrap());
    check("a part for the CPU", ops, out(PART));
    let ((), ops) = record_during(|| drop(part));
    check("a part for the device", ops, In(PART, LEN));
    let ((), ops) = record_during(|| mapping.unmap());
    check("unmap", ops, out(0));
}

#[test]
fn slots_are_copied_before_they_are_cleaned_and_after_they_are_invalidated() {
    for is_coherent in [false, true] {
        hand_over::<ToDevice>(is_coherent);
        hand_over::<FromDevice>(is_coherent);
        hand_over::<Bidirectional>(is_coherent);
    }
}
