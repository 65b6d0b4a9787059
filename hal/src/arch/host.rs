//! The host's twin of the instruction modules: nothing happens, everything is recorded.

/// What was issued, per thread.
pub mod trace {
    use crate::addr::VirtAddr;
    use std::cell::RefCell;

    /// One instruction as a test sees it.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub enum Op {
        /// `DSB SY`.
        DsbSy,
        /// `DSB ISH`.
        DsbIsh,
        /// `DSB ISHST`.
        DsbIshst,
        /// `DMB OSHST`.
        DmbOshst,
        /// `DMB OSHLD`.
        DmbOshld,
        /// `ISB`.
        Isb,
        /// `DC CVAC` of a line.
        Clean(VirtAddr),
        /// `DC CIVAC` of a line.
        CleanInvalidate(VirtAddr),
        /// `DC IVAC` of a line.
        Invalidate(VirtAddr),
        /// `TLBI VAALE1IS` of a page.
        TlbLastLevel(VirtAddr),
        /// `TLBI VAAE1IS` of a page.
        TlbAllLevels(VirtAddr),
        /// `TLBI VMALLE1IS`.
        TlbAll,
        /// No instruction: `len` bytes copied between a buffer and bounce slots, for its place among
        /// the others. Noted in builds for tests.
        Copy {
            /// First byte read.
            from: VirtAddr,
            /// First byte written.
            to: VirtAddr,
            /// Bytes.
            len: usize,
        },
    }

    thread_local! {
        static OPS: RefCell<Option<Vec<Op>>> = const { RefCell::new(None) };
    }

    pub(crate) fn record(op: Op) {
        OPS.with_borrow_mut(|ops| {
            if let Some(ops) = ops {
                ops.push(op);
            }
        });
    }

    /// What was issued since the recording on this thread began, but for the first `skip`.
    #[cfg(test)]
    pub(crate) fn recorded(skip: usize) -> Vec<Op> {
        let since = |ops: &Vec<Op>| ops.get(skip..).map(<[Op]>::to_vec);
        OPS.with_borrow(|ops| ops.as_ref().and_then(since).unwrap_or_default())
    }

    /// Runs `f` and returns what it issued on this thread.
    pub fn record_during<R>(f: impl FnOnce() -> R) -> (R, Vec<Op>) {
        OPS.set(Some(Vec::new()));
        let result = f();
        (result, OPS.take().unwrap_or_default())
    }
}

/// Barriers.
pub mod barrier {
    use super::trace::{Op, record};

    /// `DSB SY`.
    pub fn dsb_sy() {
        record(Op::DsbSy);
    }

    /// `DSB ISH`.
    pub fn dsb_ish() {
        record(Op::DsbIsh);
    }

    /// `DSB ISHST`.
    pub fn dsb_ishst() {
        record(Op::DsbIshst);
    }

    /// `DMB OSHST`.
    pub fn dmb_oshst() {
        record(Op::DmbOshst);
    }

    /// `DMB OSHLD`.
    pub fn dmb_oshld() {
        record(Op::DmbOshld);
    }

    /// `ISB`.
    pub fn isb() {
        record(Op::Isb);
    }

    /// Makes the compiler forget what it knows of the memory `ptr` leads to.
    pub fn hand_over(ptr: *mut u8) {
        std::hint::black_box(ptr);
    }
}

/// Cache maintenance.
pub mod cache {
    use super::trace::{Op, record};
    use crate::addr::VirtAddr;

    /// `CTR_EL0` of a Cortex-A72: 64-byte lines, 64-byte writeback granule.
    pub fn ctr_el0() -> u64 {
        0x8444_C004
    }

    /// `DC CVAC`.
    pub fn clean_line(va: VirtAddr) {
        record(Op::Clean(va));
    }

    /// `DC CIVAC`.
    pub fn clean_invalidate_line(va: VirtAddr) {
        record(Op::CleanInvalidate(va));
    }

    /// `DC IVAC`.
    ///
    /// # Safety
    ///
    /// As on the target; nothing is lost here.
    pub unsafe fn invalidate_line(va: VirtAddr) {
        record(Op::Invalidate(va));
    }

    /// `DCZID_EL0` of a Cortex-A72: 64-byte blocks.
    pub fn dczid_el0() -> u64 {
        4
    }

    /// `DC ZVA` with the 64-byte block of [`dczid_el0`].
    ///
    /// # Safety
    ///
    /// The whole block is memory owned by the caller.
    pub unsafe fn zero_block(va: VirtAddr) {
        // SAFETY: the caller owns the 64 aligned bytes.
        unsafe { va.align_down(64).as_ptr::<[u8; 64]>().write([0; 64]) };
    }
}

/// TLB maintenance.
pub mod tlb {
    use super::trace::{Op, record};
    use crate::addr::VirtAddr;

    /// `TLBI VAALE1IS`.
    pub fn invalidate_last_level(va: VirtAddr) {
        record(Op::TlbLastLevel(va));
    }

    /// `TLBI VAAE1IS`.
    pub fn invalidate_all_levels(va: VirtAddr) {
        record(Op::TlbAllLevels(va));
    }

    /// `TLBI VMALLE1IS`.
    pub fn invalidate_all() {
        record(Op::TlbAll);
    }
}

/// The executing core.
pub mod cpu {
    use std::cell::Cell;

    thread_local! {
        static MASKED: Cell<bool> = const { Cell::new(false) };
    }

    /// The saved mask of [`irq_save`].
    #[derive(Clone, Copy, Debug)]
    #[must_use = "interrupts stay masked until the state is restored"]
    pub struct IrqState(bool);

    impl IrqState {
        pub(crate) const UNMASKED: Self = Self(false);
    }

    /// Marks IRQs masked on this thread.
    pub fn irq_save() -> IrqState {
        IrqState(MASKED.replace(true))
    }

    /// Puts the mask back.
    pub fn irq_restore(state: IrqState) {
        MASKED.set(state.0);
    }

    /// `MPIDR_EL1` affinity: every thread is core 0.
    pub fn affinity() -> u64 {
        0
    }

    /// Whether IRQs are marked masked on this thread.
    pub fn irqs_masked() -> bool {
        MASKED.get()
    }

    /// Gives the processor away for a moment.
    pub fn wait_for_interrupt() {
        std::thread::yield_now();
    }

    /// Gives the processor away for a moment.
    pub fn wait_for_event() {
        std::thread::yield_now();
    }

    /// Nothing: waiting threads poll.
    pub fn send_event() {}
}

/// Address translation.
pub mod translate {
    use crate::addr::VirtAddr;
    use crate::arch::par::Par;
    use crate::layout;

    /// The direct map translates to Normal write-back, everything else faults.
    pub fn read_el1(va: VirtAddr) -> Par {
        match layout::virt_to_phys(va) {
            Some(pa) => Par::new(0xFF00_0000_0000_0B80 | (pa.get() & !0xFFF)),
            None => Par::new(0x80B),
        }
    }
}

/// The generic timer: the host's clock at QEMU's frequency.
pub mod counter {
    use std::cell::Cell;
    use std::sync::OnceLock;
    use std::time::Instant;

    const FREQUENCY: u32 = 62_500_000;

    thread_local! {
        static DEADLINE: Cell<Option<u64>> = const { Cell::new(None) };
    }

    /// `CNTFRQ_EL0`, in Hz.
    pub fn frequency() -> u32 {
        FREQUENCY
    }

    /// `CNTVCT_EL0`, in ticks since the first call.
    pub fn now() -> u64 {
        static START: OnceLock<Instant> = OnceLock::new();
        let elapsed = START.get_or_init(Instant::now).elapsed();
        (elapsed.as_nanos() * u128::from(FREQUENCY) / 1_000_000_000) as u64
    }

    /// Remembers `deadline`; there is no interrupt.
    pub fn arm(deadline: u64) {
        DEADLINE.set(Some(deadline));
    }

    /// Forgets the deadline.
    pub fn disarm() {
        DEADLINE.set(None);
    }

    /// The deadline [`arm`] set on this thread.
    pub fn armed() -> Option<u64> {
        DEADLINE.get()
    }
}

/// Accesses that report a fault: only what the host's pretended RAM holds can be accessed.
pub mod fault_probe {
    use super::translate;
    use crate::addr::VirtAddr;
    use crate::arch::exception::{FaultInfo, Syndrome};

    /// `ESR_EL1` of a data abort from EL1 with a 32-bit instruction.
    const DATA_ABORT: u64 = 0x9600_0000;
    /// `ESR_EL1.WnR`.
    const WRITE: u64 = 1 << 6;

    fn check(va: VirtAddr, access: u64) -> Result<(), FaultInfo> {
        match translate::read_el1(va).fault_status() {
            None => Ok(()),
            Some(status) => Err(FaultInfo {
                esr: Syndrome::new(DATA_ABORT | access | u64::from(status)),
                far: va,
            }),
        }
    }

    macro_rules! twins {
        ($($read:ident, $write:ident, $ty:ty;)*) => {$(
            /// Loads from `va`, or says why that is impossible.
            ///
            /// # Safety
            ///
            /// As on the target.
            pub unsafe fn $read(va: VirtAddr) -> Result<u64, FaultInfo> {
                check(va, 0)?;
                // SAFETY: `va` lies in the host's pretended RAM, which is allocated whole.
                Ok(unsafe { va.as_ptr::<$ty>().read_unaligned() }.into())
            }

            /// Stores to `va`, or says why that is impossible.
            ///
            /// # Safety
            ///
            /// As on the target.
            pub unsafe fn $write(va: VirtAddr, value: u64) -> Result<(), FaultInfo> {
                check(va, WRITE)?;
                // SAFETY: as above, and the caller knows that no object lives there.
                unsafe { va.as_ptr::<$ty>().write_unaligned(value as $ty) };
                Ok(())
            }
        )*};
    }

    twins! {
        probe_read_u8, probe_write_u8, u8;
        probe_read_u32, probe_write_u32, u32;
        probe_read_u64, probe_write_u64, u64;
    }
}
