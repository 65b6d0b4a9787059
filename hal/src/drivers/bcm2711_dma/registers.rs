//! Registers of a legacy channel (BCM2711 ARM Peripherals, 4.2.1).

use tock_registers::register_bitfields;

/// Bus address of the current control block, of a channel; 0 when it is idle.
pub(super) const CONBLK_AD_OFFSET: usize = 0x04;
/// Errors and version, of a channel.
pub(super) const DEBUG_OFFSET: usize = 0x20;

/// Enabled channels and DRAM pages, of the controller.
pub(super) const ENABLE_OFFSET: usize = 0xFF0;

register_bitfields! [u32,
    /// Control and status.
    pub(super) CS [
        /// Resets the channel. Clears itself.
        RESET OFFSET(31) NUMBITS(1) [],
        /// Gives the current control block up. Clears itself.
        ABORT OFFSET(30) NUMBITS(1) [],
        /// Defers the end of a control block until the last write was acknowledged.
        WAIT_FOR_OUTSTANDING_WRITES OFFSET(28) NUMBITS(1) [],
        /// Bus priority while a peripheral's panic line is up.
        PANIC_PRIORITY OFFSET(20) NUMBITS(4) [],
        /// Bus priority otherwise.
        PRIORITY OFFSET(16) NUMBITS(4) [],
        /// DEBUG holds an error.
        ERROR OFFSET(8) NUMBITS(1) [],
        /// Writes are not acknowledged yet.
        WAITING_FOR_OUTSTANDING_WRITES OFFSET(6) NUMBITS(1) [],
        /// The channel transfers nothing: it is not active, or waits.
        PAUSED OFFSET(4) NUMBITS(1) [],
        /// An interrupt is raised. Write 1 to clear.
        INT OFFSET(2) NUMBITS(1) [],
        /// Runs the channel; clears itself after the last control block.
        ACTIVE OFFSET(0) NUMBITS(1) []
    ],
    /// Transfer information: the first word of a control block.
    pub(super) TI [
        /// Words a burst asks for; 0 is a single transfer.
        BURST_LENGTH OFFSET(12) NUMBITS(4) [],
        /// Reads 128 bits at a time.
        SRC_WIDTH OFFSET(9) NUMBITS(1) [],
        /// The source address increments.
        SRC_INC OFFSET(8) NUMBITS(1) [],
        /// Writes 128 bits at a time.
        DEST_WIDTH OFFSET(5) NUMBITS(1) [],
        /// The destination address increments.
        DEST_INC OFFSET(4) NUMBITS(1) [],
        /// Copies rows; full channels only.
        TDMODE OFFSET(1) NUMBITS(1) [],
        /// Raises CS.INT at the end of the control block.
        INTEN OFFSET(0) NUMBITS(1) []
    ],
    /// Length, with TI.TDMODE; a number of bytes without.
    pub(super) TXFR_LEN [
        /// Rows after the first; the datasheet says rows.
        YLENGTH OFFSET(16) NUMBITS(14) [],
        /// Bytes in a row.
        XLENGTH OFFSET(0) NUMBITS(16) []
    ],
    /// What is added to the addresses after a row, signed.
    pub(super) STRIDE [
        /// To the destination's.
        D_STRIDE OFFSET(16) NUMBITS(16) [],
        /// To the source's.
        S_STRIDE OFFSET(0) NUMBITS(16) []
    ],
    /// Errors and version.
    pub(super) DEBUG [
        /// The version of the channel: 2 on silicon.
        VERSION OFFSET(25) NUMBITS(3) [],
        /// Writes whose responses have not come yet. A reset forgets them, and so does a start.
        OUTSTANDING_WRITES OFFSET(4) NUMBITS(4) [],
        /// A read was answered with an error. Write 1 to clear.
        READ_ERROR OFFSET(2) NUMBITS(1) [],
        /// The FIFO over- or underran. Write 1 to clear.
        FIFO_ERROR OFFSET(1) NUMBITS(1) [],
        /// The bus did not mark the last beat of a read. Write 1 to clear.
        READ_LAST_NOT_SET_ERROR OFFSET(0) NUMBITS(1) []
    ],
    /// Enabled channels and the GiB of DRAM they see.
    pub(super) ENABLE [
        /// The GiB that the lite channels see.
        PAGELITE OFFSET(28) NUMBITS(4) [],
        /// The GiB that the full channels see.
        PAGE OFFSET(24) NUMBITS(4) [],
        /// One bit a channel.
        CHANNELS OFFSET(0) NUMBITS(15) []
    ]
];
