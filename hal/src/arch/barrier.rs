//! Barriers (Arm ARM B2.3.7, C6.2 `DMB`, `DSB`, `ISB`).

#[cfg(feature = "seeds")]
use crate::arch::omit;
use aarch64_cpu::asm::barrier;

/// Completes every earlier memory access and cache or TLB operation, for the whole system.
///
/// Needed between cache maintenance and the store that starts a device.
#[inline(always)]
pub fn dsb_sy() {
    #[cfg(feature = "seeds")]
    if omit::drops(omit::Operation::Dsb) {
        return;
    }
    barrier::dsb(barrier::SY);
}

/// Completes every earlier memory access and TLB operation, for the inner-shareable domain.
#[inline(always)]
pub fn dsb_ish() {
    barrier::dsb(barrier::ISH);
}

/// Completes every earlier store, for the inner-shareable domain: descriptor writes become
/// visible to the table walkers of all cores.
#[inline(always)]
pub fn dsb_ishst() {
    barrier::dsb(barrier::ISHST);
}

/// Orders stores before later stores as a device sees them: `dma_wmb`.
#[inline(always)]
pub fn dmb_oshst() {
    barrier::dmb(barrier::OSHST);
}

/// Orders loads before later accesses as a device sees them: `dma_rmb`.
#[inline(always)]
pub fn dmb_oshld() {
    barrier::dmb(barrier::OSHLD);
}

/// Makes earlier context changes (system registers, mappings) apply to later instructions.
#[inline(always)]
pub fn isb() {
    barrier::isb(barrier::SY);
}

/// Makes the compiler forget what it knows of the memory `ptr` leads to.
///
/// Called where a buffer changes hands between the CPU and a device: stores before it are issued
/// before it, loads after it are issued after it. A fence does not achieve that for plain accesses,
/// because it orders only what another thread could observe. No instruction is emitted.
#[inline(always)]
pub fn hand_over(ptr: *mut u8) {
    // SAFETY: the block is empty. Without `nomem` the compiler must assume that it reads and writes
    // everything reachable through `ptr`.
    unsafe { core::arch::asm!("/* {} */", in(reg) ptr, options(nostack, preserves_flags)) };
}
