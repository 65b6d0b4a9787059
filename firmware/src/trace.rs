//! The trace channel: defmt frames on the console UART, between the lines of the report.
//!
//! A frame is opened by `00 FF`, closed by `00`, and goes out in one piece, so that a reader
//! separates it from text exactly: text has neither byte, and the rzCOBS encoding inside has no
//! `00`. Nothing is sent unless the command line says `defmt`.

use crate::console;
use core::cell::UnsafeCell;
use core::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use hal::arch::counter;
use hal::arch::cpu::{self, IrqState};
use hal::sync::{MAX_CPUS, PerCpu};

/// The longest frame, in bytes; a longer one is dropped and counted.
const MAX_FRAME: usize = 256;

const FRAME_OPEN: [u8; 2] = [0x00, 0xFF];
const FRAME_CLOSE: u8 = 0x00;

static ENABLED: AtomicBool = AtomicBool::new(false);
static DROPPED: AtomicU32 = AtomicU32::new(0);

/// Sends frames from now on.
pub fn enable() {
    ENABLED.store(true, Ordering::Relaxed);
}

/// Frames lost because they were too long.
pub(crate) fn dropped() -> u32 {
    DROPPED.load(Ordering::Relaxed)
}

/// The frame a core is writing.
struct Frame {
    encoder: defmt::Encoder,
    bytes: heapless::Vec<u8, { MAX_FRAME + FRAME_OPEN.len() + 1 }>,
    is_whole: bool,
    irq: Option<IrqState>,
}

/// A frame per core.
struct Frames([UnsafeCell<Frame>; MAX_CPUS]);

// SAFETY: a core touches its own frame only, and with IRQs masked, so that no handler does so
// meanwhile.
unsafe impl Sync for Frames {}

static FRAMES: Frames = Frames(
    [const {
        UnsafeCell::new(Frame {
            encoder: defmt::Encoder::new(),
            bytes: heapless::Vec::new(),
            is_whole: true,
            irq: None,
        })
    }; MAX_CPUS],
);

/// The executing core's frame.
///
/// # Safety
///
/// IRQs are masked on this core, and no other reference to the frame is live.
unsafe fn own_frame() -> &'static mut Frame {
    // SAFETY: the core is the only user of its frame; the caller vouches for the rest.
    unsafe { &mut *FRAMES.0[PerCpu::current().index()].get() }
}

#[defmt::global_logger]
struct Logger;

// SAFETY: `acquire` masks IRQs until `release`, and each core has its own frame and encoder, so no
// two frames are written at the same time; `release` sends a frame in one piece under the console's
// lock.
unsafe impl defmt::Logger for Logger {
    fn acquire() {
        let irq = cpu::irq_save();
        // SAFETY: IRQs are masked, and defmt does not nest frames.
        let frame = unsafe { own_frame() };
        frame.irq = Some(irq);
        frame.is_whole = true;
        frame.bytes.clear();
        frame.encoder.start_frame(|_| ());
        put(&mut frame.bytes, &mut frame.is_whole, &FRAME_OPEN);
    }

    unsafe fn flush() {
        console::flush();
    }

    unsafe fn release() {
        // SAFETY: defmt calls this after `acquire`, on the same core, with IRQs still masked.
        let frame = unsafe { own_frame() };
        let Frame {
            encoder,
            bytes,
            is_whole,
            irq,
        } = frame;
        // The encoder ends a frame with the byte that closes ours.
        encoder.end_frame(|data| put(bytes, is_whole, data));
        if !*is_whole {
            DROPPED.fetch_add(1, Ordering::Relaxed);
        } else if ENABLED.load(Ordering::Relaxed) {
            debug_assert_eq!(bytes.last(), Some(&FRAME_CLOSE));
            console::raw(bytes);
        }
        if let Some(irq) = irq.take() {
            cpu::irq_restore(irq);
        }
    }

    unsafe fn write(data: &[u8]) {
        // SAFETY: as in `release`.
        let frame = unsafe { own_frame() };
        let Frame {
            encoder,
            bytes,
            is_whole,
            ..
        } = frame;
        encoder.write(data, |data| put(bytes, is_whole, data));
    }
}

fn put(
    bytes: &mut heapless::Vec<u8, { MAX_FRAME + FRAME_OPEN.len() + 1 }>,
    is_whole: &mut bool,
    data: &[u8],
) {
    *is_whole &= bytes.extend_from_slice(data).is_ok();
}

// Ticks of the generic timer; the report says how many make a second.
defmt::timestamp!("{=u64}", counter::now());
