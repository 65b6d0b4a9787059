//! Registers of a DMA4 channel (BCM2711 ARM Peripherals, 4.2.1).

use tock_registers::register_bitfields;

/// Address of the current control block, divided by its alignment.
pub(super) const CB_OFFSET: usize = 0x04;
/// Errors, what happens on one, and version.
pub(super) const DEBUG_OFFSET: usize = 0x0C;
/// Reads and writes that are under way.
pub(super) const DEBUG2_OFFSET: usize = 0x2C;

register_bitfields! [u32,
    /// Control and status.
    pub(super) CS [
        /// Ends the current transfer in order; clears itself once that is done.
        HALT OFFSET(31) NUMBITS(1) [],
        /// Gives the current control block up.
        ABORT OFFSET(30) NUMBITS(1) [],
        /// A debugger that halts the cores does not pause the channel.
        DISDEBUG OFFSET(29) NUMBITS(1) [],
        /// Defers the end of a control block until the last write was acknowledged.
        WAIT_FOR_OUTSTANDING_WRITES OFFSET(28) NUMBITS(1) [],
        /// Reads or writes are under way.
        OUTSTANDING_TRANSACTIONS OFFSET(25) NUMBITS(1) [],
        /// The channel is working.
        DMA_BUSY OFFSET(24) NUMBITS(1) [],
        /// Bus priority while a peripheral's panic line is up.
        PANIC_QOS OFFSET(20) NUMBITS(4) [],
        /// Bus priority otherwise.
        QOS OFFSET(16) NUMBITS(4) [],
        /// DEBUG holds an error that was not read yet.
        ERROR OFFSET(10) NUMBITS(1) [],
        /// Writes are not acknowledged yet.
        WAITING_FOR_OUTSTANDING_WRITES OFFSET(7) NUMBITS(1) [],
        /// Runs the channel; clears itself after the last control block.
        ACTIVE OFFSET(0) NUMBITS(1) []
    ],
    /// Errors, what happens on one, and version. Reading it clears the errors.
    pub(super) DEBUG [
        /// 1 on silicon.
        VERSION OFFSET(28) NUMBITS(4) [],
        /// Resets the channel. Fatal while the channel uses the bus.
        RESET OFFSET(23) NUMBITS(1) [],
        /// Gives the control block up on an error.
        ABORT_ON_ERROR OFFSET(10) NUMBITS(1) [],
        /// Halts on an error.
        HALT_ON_ERROR OFFSET(9) NUMBITS(1) [],
        /// Raises CS.INT on an error.
        INT_ON_ERROR OFFSET(8) NUMBITS(1) [],
        /// The control block could not be read.
        READ_CB_ERROR OFFSET(3) NUMBITS(1) [],
        /// A read was answered with an error.
        READ_ERROR OFFSET(2) NUMBITS(1) [],
        /// The FIFO over- or underran.
        FIFO_ERROR OFFSET(1) NUMBITS(1) [],
        /// A write was answered with an error.
        WRITE_ERROR OFFSET(0) NUMBITS(1) []
    ],
    /// Transfer information: the first word of a control block.
    pub(super) TI [
        /// Copies rows.
        TDMODE OFFSET(1) NUMBITS(1) [],
        /// Raises CS.INT at the end of the control block.
        INTEN OFFSET(0) NUMBITS(1) []
    ],
    /// The upper part of an address and how it advances: SRCI and DESTI.
    pub(super) SIDE [
        /// Added to the address after a row, signed.
        STRIDE OFFSET(16) NUMBITS(16) [],
        /// Bits in a beat.
        SIZE OFFSET(13) NUMBITS(2) [
            Bits32 = 0,
            Bits64 = 1,
            Bits128 = 2
        ],
        /// The address increments.
        INC OFFSET(12) NUMBITS(1) [],
        /// Beats of a burst after the first.
        BURST_LENGTH OFFSET(8) NUMBITS(4) [],
        /// Bits 39 to 32 of the address.
        ADDR_HIGH OFFSET(0) NUMBITS(8) []
    ]
];
