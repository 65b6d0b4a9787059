//! Barriers (Arm ARM B2.3.7, C6.2 `DMB`, `DSB`, `ISB`).

use aarch64_cpu::asm::barrier;

/// Completes every earlier memory access and cache or TLB operation, for the whole system.
///
/// Needed between cache maintenance and the store that starts a device.
#[inline(always)]
pub fn dsb_sy() {
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
