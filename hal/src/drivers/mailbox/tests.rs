use super::*;
use crate::arch::trace::{Op, record_during};
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;

const BUS: u64 = 0xC010_0040;
const READ: usize = 0;
const STATUS_0: usize = 0x18 / 4;
const WRITE: usize = 0x20 / 4;
const STATUS_1: usize = 0x38 / 4;

/// Registers and buffer as the VideoCore sees them.
#[derive(Clone, Copy)]
struct VideoCore {
    registers: &'static [AtomicU32; 16],
    buffer: &'static [AtomicU32; BUFFER_WORDS],
}

impl VideoCore {
    /// A mailbox and the other side of it.
    fn new() -> (Self, Mailbox) {
        let registers: &'static [AtomicU32; 16] = Box::leak(Box::default());
        registers[STATUS_0].store(STATUS_EMPTY, Ordering::Relaxed);
        let buffer: &'static mut PropertyBuffer = Box::leak(Box::default());
        let words = VirtAddr::from_ptr(buffer).as_ptr::<[AtomicU32; BUFFER_WORDS]>();
        // SAFETY: the register block is leaked and large enough.
        let mailbox = unsafe {
            Mailbox::new(
                VirtAddr::from_ptr(registers),
                buffer,
                DmaAddr::new(BUS),
                Timer::new().unwrap(),
            )
        };
        // SAFETY: the buffer is leaked, and the mailbox uses it through a raw pointer only.
        let buffer = unsafe { &*words };
        (Self { registers, buffer }, mailbox.unwrap())
    }

    /// Waits for one request, returns it, and answers it with `answer` over its words from 1 on.
    fn serve(self, answer: Vec<u32>) -> thread::JoinHandle<Vec<u32>> {
        thread::spawn(move || {
            while self.registers[WRITE].load(Ordering::Acquire) == 0 {
                thread::yield_now();
            }
            let request = self.buffer.iter().map(|word| word.load(Ordering::Relaxed));
            let request = request.collect();
            for (word, value) in self.buffer[1..].iter().zip(answer) {
                word.store(value, Ordering::Relaxed);
            }
            let doorbell = self.registers[WRITE].load(Ordering::Relaxed);
            self.registers[READ].store(doorbell, Ordering::Relaxed);
            self.registers[STATUS_0].store(0, Ordering::Release);
            request
        })
    }
}

#[test]
fn sets_the_uart_clock() {
    let (firmware, mut mailbox) = VideoCore::new();
    let served = firmware.serve(vec![
        CODE_DONE,
        TAG_SET_CLOCK_RATE,
        12,
        0x8000_0008,
        2,
        47_999_000,
    ]);
    let (rate, ops) = record_during(|| mailbox.set_clock_rate(Clock::Uart, 48_000_000));
    assert_eq!(rate, Ok(47_999_000));
    let request = served.join().unwrap();
    assert_eq!(request[..9], [64, 0, 0x38002, 12, 0, 2, 48_000_000, 0, 0]);
    assert_eq!(
        firmware.registers[WRITE].load(Ordering::Relaxed),
        0xC010_0048
    );
    let line = VirtAddr::from_ptr(firmware.buffer);
    assert_eq!(
        ops,
        [
            Op::CleanInvalidate(line),
            Op::DsbSy,
            Op::Invalidate(line),
            Op::DsbSy
        ]
    );
}

#[test]
fn reads_memory_and_revision() {
    let (firmware, mut mailbox) = VideoCore::new();
    let served = firmware.serve(vec![
        CODE_DONE,
        TAG_ARM_MEMORY,
        8,
        0x8000_0008,
        0,
        0x3C00_0000,
    ]);
    let memory = mailbox.arm_memory().unwrap();
    assert_eq!(memory.to_string(), "0x0..0x3c000000");
    served.join().unwrap();

    let (firmware, mut mailbox) = VideoCore::new();
    let served = firmware.serve(vec![
        CODE_DONE,
        TAG_BOARD_REVISION,
        4,
        0x8000_0004,
        0x00B0_3115,
    ]);
    assert_eq!(mailbox.board_revision(), Ok(0x00B0_3115));
    served.join().unwrap();
}

#[test]
fn bad_answers_are_named() {
    for (answer, error) in [
        (
            vec![0x8000_0001, TAG_BOARD_REVISION, 4, 0, 0],
            MailboxError::Refused {
                tag: TAG_BOARD_REVISION,
                code: 0x8000_0001,
            },
        ),
        // QEMU's answer to a tag it does not know.
        (
            vec![CODE_DONE, TAG_BOARD_REVISION, 4, 0x8000_0000, 0],
            MailboxError::Short {
                tag: TAG_BOARD_REVISION,
                bytes: 0,
            },
        ),
        // The tag was skipped.
        (
            vec![CODE_DONE, TAG_BOARD_REVISION, 4, 0, 0],
            MailboxError::Short {
                tag: TAG_BOARD_REVISION,
                bytes: 0,
            },
        ),
    ] {
        let (firmware, mut mailbox) = VideoCore::new();
        let served = firmware.serve(answer);
        assert_eq!(mailbox.board_revision(), Err(error));
        served.join().unwrap();
    }
}

#[test]
fn a_silent_firmware_ends_the_conversation() {
    let (firmware, mut mailbox) = VideoCore::new();
    firmware.registers[STATUS_1].store(STATUS_FULL, Ordering::Relaxed);
    assert_eq!(mailbox.board_revision(), Err(MailboxError::Full));
    firmware.registers[STATUS_1].store(0, Ordering::Relaxed);
    // Another channel's word does not count as the answer.
    firmware.registers[READ].store(0xC010_0041, Ordering::Relaxed);
    firmware.registers[STATUS_0].store(0, Ordering::Relaxed);
    assert_eq!(
        mailbox.board_revision(),
        Err(MailboxError::NoAnswer {
            tag: TAG_BOARD_REVISION
        })
    );
    assert_eq!(mailbox.board_revision(), Err(MailboxError::Lost));
}

#[test]
fn a_buffer_out_of_reach_is_refused() {
    for bus in [0x1_0000_0000, 0xC000_0008] {
        let bus = DmaAddr::new(bus);
        let buffer = Box::leak(Box::default());
        // SAFETY: refused before the registers are touched.
        let mailbox = unsafe { Mailbox::new(VirtAddr::new(4), buffer, bus, Timer::new().unwrap()) };
        assert_eq!(mailbox.err(), Some(MailboxError::BadBuffer(bus)));
    }
}
