use super::property::*;
use super::*;
use crate::addr::{PAGE_SIZE, PhysRange, VirtAddr};
use crate::arch::trace::{self, Op, record_during};
use crate::dma::device::fake;
use crate::dma::{CoherentPool, DmaMask};
use crate::layout::{self, host};
use std::sync::{Arc, Mutex};

const BUS: u64 = 0xC000_0000;
const WINDOW: u64 = 1 << 20;

const DONE: u32 = 0x8000_0000;
const ANSWERED: u32 = 0x8000_0000;

/// The other side: registers, and the answer the firmware gives when the doorbell rings.
struct VideoCore {
    ram: PhysRange,
    /// What replaces the request's words from 1 on.
    answer: Vec<u32>,
    /// Answers that are announced, oldest first.
    outbox: Vec<u32>,
    full: bool,
    silent: bool,
    doorbells: Vec<u32>,
    request: Vec<u32>,
}

impl VideoCore {
    fn ring(&mut self, doorbell: u32) {
        self.doorbells.push(doorbell);
        assert_eq!(doorbell & 0xF, 8);
        let pa = self.ram.start + (u64::from(doorbell & !0xF) - BUS) as usize;
        let buffer: *mut u32 = layout::phys_to_virt(pa).as_ptr();
        // SAFETY: the buffer lies in this test's RAM and the request says how long it is.
        let words = unsafe { std::slice::from_raw_parts_mut(buffer, *buffer as usize / 4) };
        self.request = words.to_vec();
        if !self.silent {
            let answer = std::mem::take(&mut self.answer);
            for (word, value) in words[1..].iter_mut().zip(answer) {
                *word = value;
            }
            self.outbox.push(doorbell);
        }
    }
}

#[derive(Clone)]
struct Io(Arc<Mutex<VideoCore>>);

impl RegisterIo for Io {
    fn read32(&self, offset: usize) -> u32 {
        let mut other = self.0.lock().unwrap();
        match offset {
            READ => other.outbox.remove(0),
            STATUS_0 => u32::from(other.outbox.is_empty()) << 30,
            STATUS_1 => u32::from(other.full) << 31,
            _ => panic!("read of {offset:#x}"),
        }
    }

    fn write32(&self, offset: usize, value: u32) {
        assert_eq!(offset, WRITE);
        trace::assert_behind_barrier();
        self.0.lock().unwrap().ring(value);
    }

    fn read64(&self, offset: usize) -> u64 {
        panic!("64-bit read of {offset:#x}")
    }

    fn write64(&self, offset: usize, _: u64) {
        panic!("64-bit write of {offset:#x}")
    }
}

struct Bench {
    firmware: Arc<Mutex<VideoCore>>,
    mailbox: Mailbox<Io>,
    device: &'static Device,
    pool: &'static CoherentPool,
    streaming: VirtAddr,
}

impl Bench {
    fn new() -> Self {
        Self::at(BUS)
    }

    fn at(bus: u64) -> Self {
        let ram = host::ram(WINDOW, 4096);
        let frames = PhysRange::from_size(ram.start, PAGE_SIZE as u64).unwrap();
        // SAFETY: the first page of this test's RAM; the host has no memory types.
        let pool = unsafe { CoherentPool::new(frames, layout::phys_to_virt(frames.start)) };
        let pool: &'static _ = Box::leak(Box::new(pool.unwrap()));
        let device = fake(
            "mailbox",
            DmaMask::new::<36>(),
            [ram.start.get(), bus, WINDOW],
        );
        let streaming = layout::phys_to_virt(ram.start + PAGE_SIZE);
        // SAFETY: the second page, aligned and large enough, of zeroes, and nobody else's.
        let buffer = unsafe { &mut *streaming.as_ptr::<PropertyBuffer>() };
        let firmware = Arc::new(Mutex::new(VideoCore {
            ram,
            answer: Vec::new(),
            outbox: Vec::new(),
            full: false,
            silent: false,
            doorbells: Vec::new(),
            request: Vec::new(),
        }));
        let coherent = pool.alloc(device, BUFFER_SIZE).unwrap();
        let timer = Timer::new().unwrap();
        let io = Io(firmware.clone());
        let mut mailbox = Mailbox::new(io, device, coherent, buffer, timer).unwrap();
        mailbox.timeout_ns = 1_000_000;
        Self {
            firmware,
            mailbox,
            device,
            pool,
            streaming,
        }
    }

    fn edit<R>(&self, f: impl FnOnce(&mut VideoCore) -> R) -> R {
        f(&mut self.firmware.lock().unwrap())
    }

    /// Asks for `property` once, answered with `values` for its tag.
    fn ask<P: Property>(&self, property: &P, values: &[u32]) -> Result<P::Answer, MailboxError> {
        let bytes = values.len() as u32 * 4;
        self.answered(property, ANSWERED | bytes, values)
    }

    fn answered<P: Property>(
        &self,
        property: &P,
        length: u32,
        values: &[u32],
    ) -> Result<P::Answer, MailboxError> {
        self.edit(|firmware| {
            firmware.answer = vec![DONE, P::TAG, P::BYTES as u32, length];
            firmware.answer.extend(values);
        });
        self.mailbox.request(Via::Streaming, property)
    }
}

const UART_48_MHZ: SetClockRate = SetClockRate {
    clock: ClockId::Uart,
    hz: 48_000_000,
};

#[test]
fn a_streaming_request_is_cleaned_before_the_doorbell_and_invalidated_after_the_answer() {
    let bench = Bench::new();
    let (rate, ops) = record_during(|| bench.ask(&UART_48_MHZ, &[2, 47_999_000]));
    assert_eq!(rate, Ok(47_999_000));
    bench.edit(|firmware| {
        let words = [64, 0, 0x38002, 12, 0, 2, 48_000_000, 0, 0];
        assert_eq!(firmware.request[..9], words);
        assert_eq!(firmware.request.len(), 16);
        assert_eq!(firmware.doorbells, [0xC000_1008]);
    });
    let line = bench.streaming;
    assert_eq!(
        ops,
        [
            Op::Clean(line),
            Op::DsbSy,
            Op::DsbSy,
            Op::DmbOshld,
            Op::Invalidate(line),
            Op::DsbSy
        ]
    );
}

#[test]
fn a_coherent_request_needs_barriers_only() {
    let bench = Bench::new();
    bench.edit(|firmware| firmware.answer = vec![DONE, 0x30006, 8, ANSWERED | 8, 0, 25_000]);
    let (answer, ops) = record_during(|| bench.mailbox.request(Via::Coherent, &Temperature));
    assert_eq!(answer, Ok(25_000));
    assert_eq!(ops, [Op::DsbSy, Op::DmbOshld]);
    bench.edit(|firmware| assert_eq!(firmware.doorbells, [0xC000_0008]));
}

#[test]
fn a_device_taken_as_coherent_is_not_maintained() {
    let bench = Bench::new();
    bench.device.set_coherent(true);
    let (answer, ops) = record_during(|| bench.ask(&Temperature, &[0, 25_000]));
    assert_eq!(answer, Ok(25_000));
    // Given, rung, seen done, taken.
    assert_eq!(ops, [Op::DmbOshst, Op::DsbSy, Op::DmbOshld, Op::DmbOshld]);
}

#[test]
fn every_tag_is_read_as_its_type() {
    let bench = Bench::new();
    assert_eq!(bench.ask(&FirmwareRevision, &[346_337]), Ok(346_337));
    let revision = bench.ask(&BoardRevision, &[0xB0_3115]).unwrap();
    assert_eq!(revision.memory(), Some(2 << 30));
    let mac = bench.answered(&MacAddress, ANSWERED | 6, &[0x1200_5452, 0x5734]);
    assert_eq!(mac, Ok([0x52, 0x54, 0x00, 0x12, 0x34, 0x57]));
    assert_eq!(bench.ask(&Serial, &[0x89AB_CDEF, 1]), Ok(0x1_89AB_CDEF));
    let memory = bench.ask(&ArmMemory, &[0, 0x3C00_0000]).unwrap();
    assert_eq!(memory.to_string(), "0x0..0x3c000000");
    let memory = bench.ask(&VideoCoreMemory, &[0x3C00_0000, 0x400_0000]);
    assert_eq!(memory.unwrap().end.get(), 0x4000_0000);
    assert_eq!(bench.ask(&DmaChannels, &[0x3C]).unwrap().bits(), 0x3C);
    assert_eq!(bench.ask(&ClockRate(ClockId::Emmc2), &[12, 5]), Ok(5));
    assert_eq!(bench.ask(&MaxClockRate(ClockId::Arm), &[3, 6]), Ok(6));
    assert_eq!(bench.ask(&MinClockRate(ClockId::Core), &[4, 7]), Ok(7));
    assert_eq!(bench.ask(&MeasuredClockRate(ClockId::Emmc), &[1, 8]), Ok(8));
    assert_eq!(bench.ask(&MaxTemperature, &[0, 85_000]), Ok(85_000));
    bench.edit(|firmware| assert_eq!(firmware.request[2..6], [0x3000A, 8, 0, 0]));
    let line = bench.answered(&CommandLine::<64>, ANSWERED | 5, &[0x6C6C_6568, 0x6F]);
    assert_eq!(line.unwrap(), b"hello");
    bench.edit(|firmware| assert_eq!(firmware.request.len(), 32));
}

#[test]
fn bad_answers_are_named() {
    let bench = Bench::new();
    let tag = BoardRevision::TAG;
    for (answer, error) in [
        (
            vec![0x8000_0001],
            MailboxError::Refused {
                tag,
                code: 0x8000_0001,
            },
        ),
        (vec![], MailboxError::Stale { tag }),
        (
            vec![DONE, ArmMemory::TAG, 4, ANSWERED | 4],
            MailboxError::WrongAnswer { tag },
        ),
        // QEMU's answer to a tag it does not know.
        (vec![DONE, tag, 4, ANSWERED], MailboxError::Unknown { tag }),
        // The tag was skipped.
        (vec![DONE, tag, 4, 0], MailboxError::Unknown { tag }),
        (
            vec![DONE, tag, 4, ANSWERED | 3],
            MailboxError::Short {
                tag,
                bytes: 3,
                expected: 4,
            },
        ),
        (
            vec![DONE, tag, 4, ANSWERED | 5],
            MailboxError::Truncated {
                tag,
                bytes: 5,
                room: 4,
            },
        ),
    ] {
        for via in [Via::Coherent, Via::Streaming] {
            bench.edit(|firmware| firmware.answer = answer.clone());
            let asked = bench.mailbox.request(via, &BoardRevision);
            assert_eq!(asked, Err(error), "{via:?}");
        }
    }
    let other_clock = bench.ask(&ClockRate(ClockId::Uart), &[3, 700_000_000]);
    let tag = 0x30002;
    assert_eq!(other_clock, Err(MailboxError::WrongAnswer { tag }));
    let unknown = bench.answered(&NoSuchTag, ANSWERED, &[]);
    let tag = NoSuchTag::TAG;
    assert_eq!(unknown, Err(MailboxError::Unknown { tag }));
}

#[test]
fn a_full_mailbox_is_asked_nothing() {
    let bench = Bench::new();
    bench.edit(|firmware| firmware.full = true);
    for via in [Via::Coherent, Via::Streaming] {
        let asked = bench.mailbox.request(via, &Temperature);
        assert_eq!(asked, Err(MailboxError::Full));
    }
    bench.edit(|firmware| {
        assert!(firmware.doorbells.is_empty());
        firmware.full = false;
    });
    assert_eq!(bench.ask(&Temperature, &[0, 1]), Ok(1));
}

#[test]
fn a_lost_answer_blocks_the_mailbox_until_it_comes() {
    for via in [Via::Coherent, Via::Streaming] {
        let bench = Bench::new();
        bench.edit(|firmware| firmware.silent = true);
        let (asked, ops) = record_during(|| bench.mailbox.request(via, &Temperature));
        let tag = Temperature::TAG;
        assert_eq!(asked, Err(MailboxError::NoAnswer { tag }));
        let taken_back = |op: &Op| matches!(op, Op::Invalidate(_));
        assert!(!ops.iter().any(taken_back), "the firmware may still write");
        bench.edit(|firmware| firmware.silent = false);
        assert_eq!(bench.ask(&Temperature, &[0, 1]), Err(MailboxError::Lost));
        // A word of another channel is not the answer.
        let doorbell = bench.edit(|firmware| firmware.doorbells[0]);
        bench.edit(|firmware| firmware.outbox.push(doorbell & !0xF | 1));
        assert_eq!(bench.ask(&Temperature, &[0, 2]), Err(MailboxError::Lost));
        bench.edit(|firmware| {
            assert_eq!(
                firmware.doorbells,
                [doorbell],
                "nothing was asked meanwhile"
            );
            firmware.outbox.push(doorbell);
        });
        let (asked, ops) = record_during(|| bench.ask(&Temperature, &[0, 3]));
        assert_eq!(asked, Ok(3));
        let line = bench.streaming;
        let late: &[Op] = match via {
            Via::Coherent => &[Op::DmbOshld],
            Via::Streaming => &[Op::DmbOshld, Op::Invalidate(line), Op::DsbSy],
        };
        assert!(ops.starts_with(late), "the loan ends: {ops:?}");
        let cleaned = Op::Clean(line);
        assert_eq!(ops.get(late.len()), Some(&cleaned), "the next begins");
    }
}

#[test]
fn a_late_answer_ends_the_loan_whatever_memory_is_asked_by_next() {
    let bench = Bench::new();
    bench.edit(|firmware| firmware.silent = true);
    assert!(bench.mailbox.request(Via::Streaming, &Temperature).is_err());
    bench.edit(|firmware| {
        firmware.silent = false;
        firmware.outbox.push(firmware.doorbells[0]);
        firmware.answer = vec![DONE, Temperature::TAG, 8, ANSWERED | 8, 0, 4];
    });
    let (asked, ops) = record_during(|| bench.mailbox.request(Via::Coherent, &Temperature));
    assert_eq!(asked, Ok(4));
    let late = [Op::DmbOshld, Op::Invalidate(bench.streaming), Op::DsbSy];
    let exchange = [Op::DsbSy, Op::DmbOshld];
    assert_eq!(ops, [&late[..], &exchange].concat());
}

#[test]
fn a_dropped_mailbox_keeps_the_memory_of_an_answer_that_is_owed() {
    for (silent, free_pages) in [(false, 1), (true, 0)] {
        let bench = Bench::new();
        bench.edit(|firmware| firmware.silent = silent);
        let asked = bench.mailbox.request(Via::Streaming, &Temperature);
        let tag = Temperature::TAG;
        let lost = asked == Err(MailboxError::NoAnswer { tag });
        assert_eq!(lost, silent, "{asked:?}");
        let (mailbox, pool) = (bench.mailbox, bench.pool);
        let ((), ops) = record_during(|| drop(mailbox));
        assert_eq!(ops, [], "the loan ends");
        assert_eq!(pool.free_pages(), free_pages);
    }
}

#[test]
fn what_a_boot_loader_left_unread_is_no_answer() {
    let bench = Bench::new();
    bench.edit(|firmware| {
        firmware.outbox = vec![0xC000_1008, 0xC000_0008];
        firmware.silent = true;
    });
    for via in [Via::Streaming, Via::Coherent] {
        let asked = bench.mailbox.request(via, &Temperature);
        assert!(asked.is_err(), "{via:?}: {asked:?}");
    }
}

#[test]
fn a_mailbox_in_use_is_busy() {
    let bench = Bench::new();
    let taken = bench.mailbox.take().unwrap();
    for masked in [false, true] {
        let irq = masked.then(cpu::irq_save);
        let asked = bench.mailbox.request(Via::Coherent, &Temperature);
        irq.into_iter().for_each(cpu::irq_restore);
        assert_eq!(asked, Err(MailboxError::Busy));
    }
    *bench.mailbox.link.lock() = Some(taken);
    assert_eq!(bench.ask(&Temperature, &[0, 1]), Ok(1));
}

#[test]
fn buffers_the_firmware_cannot_be_given_are_refused() {
    for bus in [0x1_0000_0000, 0xC000_0008] {
        let bench = Bench::at(bus);
        for (via, bus) in [(Via::Coherent, bus), (Via::Streaming, bus + 0x1000)] {
            let asked = bench.mailbox.request(via, &Temperature);
            assert_eq!(asked, Err(MailboxError::BadBuffer(DmaAddr::new(bus))));
        }
        bench.edit(|firmware| assert!(firmware.doorbells.is_empty()));
    }
}
