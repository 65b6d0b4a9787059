//! The PL011 UART (Arm DDI 0183), polled.

use super::registers;
use crate::addr::VirtAddr;
use arm_pl011_uart::{DataBits, Interrupts, LineConfig, Parity, StopBits};
use core::fmt;
use thiserror::Error;

/// 8 data bits, no parity, one stop bit.
const LINE: LineConfig = LineConfig {
    data_bits: DataBits::Bits8,
    parity: Parity::None,
    stop_bits: StopBits::One,
};

/// How often the flags are read before the transmitter counts as stuck. A read of a device
/// register takes some 100 ns, so this is 100 ms: a full FIFO of 32 bytes is out after 33 ms even
/// at 9600 baud.
const MAX_POLLS: u32 = 1_000_000;

/// Why the UART failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum UartError {
    /// No divisor makes this baud rate from the clock.
    #[error("{baud} baud cannot be made from a UART clock of {clock_hz} Hz")]
    Baud {
        /// The baud rate asked for.
        baud: u32,
        /// The UART's clock.
        clock_hz: u32,
    },
    /// The transmitter accepts no byte: it has no clock, or flow control stopped it.
    #[error("the UART does not transmit")]
    Stuck,
}

/// A PL011, one byte after the other. Interrupts are not used.
pub struct Uart {
    base: VirtAddr,
    inner: arm_pl011_uart::Uart<'static>,
}

impl Uart {
    /// A UART that is used as it was left: by the firmware that ran first, or by
    /// [`Uart::configure`].
    ///
    /// # Safety
    ///
    /// `base` maps the registers of a PL011 as Device memory for the rest of the program, and
    /// nothing else accesses them while the value lives. A panic may break the second promise
    /// once no other core will go on printing (see [`Console`](super::console::Console)).
    pub unsafe fn new(base: VirtAddr) -> Self {
        Self {
            base,
            // SAFETY: promised by the caller.
            inner: arm_pl011_uart::Uart::new(unsafe { registers(base) }),
        }
    }

    /// Where the registers are.
    pub fn base(&self) -> VirtAddr {
        self.base
    }

    /// Sets up 8N1 at `baud` from a UART clock of `clock_hz`, with FIFOs on and interrupts off.
    ///
    /// Waits until what was written before has left, because the line may change only while the
    /// UART is idle (DDI 0183 3.3.8).
    ///
    /// # Errors
    ///
    /// [`UartError::Baud`] if the divisor does not exist; nothing was changed then.
    /// [`UartError::Stuck`] if the earlier output does not leave.
    pub fn configure(&mut self, clock_hz: u32, baud: u32) -> Result<(), UartError> {
        self.flush()?;
        self.inner.set_interrupt_masks(Interrupts::empty());
        self.inner
            .enable(LINE, baud, clock_hz)
            .map_err(|_| UartError::Baud { baud, clock_hz })
    }

    /// Writes `bytes` as they are. Returns when the last one is in the FIFO.
    ///
    /// # Errors
    ///
    /// [`UartError::Stuck`] if the FIFO stays full; the remaining bytes are lost.
    pub fn write_bytes(&mut self, bytes: &[u8]) -> Result<(), UartError> {
        for &byte in bytes {
            poll(|| !self.inner.is_tx_fifo_full())?;
            self.inner.write_word(byte);
        }
        Ok(())
    }

    /// Waits until every byte has left, stop bit included.
    ///
    /// # Errors
    ///
    /// [`UartError::Stuck`] if the FIFO does not drain.
    pub fn flush(&mut self) -> Result<(), UartError> {
        poll(|| !self.inner.is_busy())
    }
}

/// Waits for `ready`, but not forever.
fn poll(ready: impl Fn() -> bool) -> Result<(), UartError> {
    for _ in 0..MAX_POLLS {
        if ready() {
            return Ok(());
        }
        core::hint::spin_loop();
    }
    Err(UartError::Stuck)
}

/// Text, with each `\n` sent as `\r\n`.
impl fmt::Write for Uart {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        with_carriage_returns(text, |bytes| self.write_bytes(bytes)).map_err(|_| fmt::Error)
    }
}

impl fmt::Debug for Uart {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Uart")
            .field("base", &self.base)
            .finish_non_exhaustive()
    }
}

/// Gives `put` the bytes of `text` in order, with a `\r` before each `\n`.
fn with_carriage_returns<E>(
    text: &str,
    mut put: impl FnMut(&[u8]) -> Result<(), E>,
) -> Result<(), E> {
    let mut lines = text.split('\n');
    if let Some(first) = lines.next() {
        put(first.as_bytes())?;
    }
    for line in lines {
        put(b"\r\n")?;
        put(line.as_bytes())?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use core::convert::Infallible;

    /// Word offsets of the registers the tests look at (DDI 0183 3.2).
    const DR: usize = 0;
    const FR: usize = 0x18 / 4;
    const IBRD: usize = 0x24 / 4;
    const FBRD: usize = 0x28 / 4;
    const LCR_H: usize = 0x2C / 4;
    const CR: usize = 0x30 / 4;

    fn fake() -> (*mut [u32; 1024], Uart) {
        let registers = Box::into_raw(Box::new([0u32; 1024]));
        // SAFETY: the block has a PL011's size and is leaked.
        (registers, unsafe {
            Uart::new(VirtAddr::from_ptr(registers))
        })
    }

    fn read(registers: *mut [u32; 1024], index: usize) -> u32 {
        // SAFETY: `registers` is the leaked block of `fake`, and no reference to it exists.
        unsafe { (&raw const (*registers)[index]).read_volatile() }
    }

    fn write(registers: *mut [u32; 1024], index: usize, value: u32) {
        // SAFETY: as in `read`.
        unsafe { (&raw mut (*registers)[index]).write_volatile(value) };
    }

    #[test]
    fn the_pi_at_115200() {
        let (registers, mut uart) = fake();
        uart.configure(48_000_000, 115_200).unwrap();
        assert_eq!((read(registers, IBRD), read(registers, FBRD)), (26, 3));
        assert_eq!(read(registers, LCR_H), 0x70);
        assert_eq!(read(registers, CR), 0x301);
        uart.write_bytes(b"ab").unwrap();
        assert_eq!(read(registers, DR), u32::from(b'b'));
    }

    #[test]
    fn an_impossible_baud_rate_is_named() {
        let (registers, mut uart) = fake();
        assert_eq!(
            uart.configure(48_000_000, 48_000_000),
            Err(UartError::Baud {
                baud: 48_000_000,
                clock_hz: 48_000_000
            })
        );
        assert_eq!(read(registers, CR), 0);
    }

    #[test]
    fn a_dead_transmitter_does_not_hang_the_caller() {
        let (registers, mut uart) = fake();
        write(registers, FR, 1 << 5 | 1 << 3);
        assert_eq!(uart.write_bytes(b"a"), Err(UartError::Stuck));
        assert_eq!(read(registers, DR), 0);
        assert_eq!(uart.configure(48_000_000, 115_200), Err(UartError::Stuck));
    }

    #[test]
    fn newlines_get_a_carriage_return() {
        for (text, bytes) in [
            ("", ""),
            ("a", "a"),
            ("\n", "\r\n"),
            ("a\n\nb", "a\r\n\r\nb"),
            ("a\n", "a\r\n"),
        ] {
            let mut sent = Vec::new();
            with_carriage_returns(text, |bytes| {
                sent.extend_from_slice(bytes);
                Ok::<(), Infallible>(())
            })
            .unwrap();
            assert_eq!(sent, bytes.as_bytes());
        }
    }
}
