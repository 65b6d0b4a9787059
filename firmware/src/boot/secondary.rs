//! Starting the secondary cores.
//!
//! They are started one at a time, because the boot assembly finds its core number in one word.

use super::image::Image;
use core::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use hal::addr::{PhysAddr, VirtAddr};
use hal::arch::cpu::AFFINITY_MASK;
use hal::arch::{barrier, cache, cpu};
use hal::devicetree::{Cpu, EnableMethod};
use hal::drivers::psci::{Psci, PsciError};
use hal::drivers::timer::Timer;
use hal::sync::MAX_CPUS;
use hal::{layout, smp};
use thiserror::Error;

/// How long a core may take to come up. Real cores take microseconds; an emulator that runs its cores in
/// turn lets each wait for the slices of the others, of 100 ms in QEMU.
const START_TIMEOUT_NS: u64 = 1_000_000_000;

/// Set in the release word beside the affinity of the core that may go.
const RELEASE_VALID: u64 = 1 << 63;

/// The number of the core being started, for the boot assembly.
#[unsafe(no_mangle)]
static SECONDARY_INDEX: AtomicUsize = AtomicUsize::new(0);

unsafe extern "C" {
    /// The word parked cores poll (`entry.s`): the affinity of the core that may go.
    static PARK_RELEASE: AtomicU64;
}

/// Why a core is not up.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub enum StartError {
    /// There are more cores than areas for them.
    #[error("core {0:#x}: only {MAX_CPUS} cores are supported")]
    TooMany(u64),
    /// The device tree names no way to start it.
    #[error("core {0:#x}: nothing to start it with")]
    NoMethod(u64),
    /// The firmware refused.
    #[error(transparent)]
    Psci(#[from] PsciError),
    /// Its release word lies outside RAM.
    #[error("core {mpidr:#x}: its release word {word} is not in RAM")]
    ReleaseWord {
        /// The core.
        mpidr: u64,
        /// Where its word is said to be.
        word: PhysAddr,
    },
    /// It was started and has not reported.
    #[error("core {0:#x} was started but does not answer")]
    Silent(u64),
}

/// Starts `core` as number `index` and waits until it is online.
///
/// `parked` says that the cores entered together and wait in the boot code. `in_ram` says whether
/// an address is RAM the direct map holds.
pub fn start(
    image: &Image,
    index: usize,
    core: &Cpu,
    parked: bool,
    psci: Option<&Psci>,
    in_ram: impl Fn(PhysAddr) -> bool,
    timer: &Timer,
) -> Result<(), StartError> {
    let mpidr = core.mpidr & AFFINITY_MASK;
    if index >= MAX_CPUS {
        return Err(StartError::TooMany(mpidr));
    }
    SECONDARY_INDEX.store(index, Ordering::Relaxed);
    barrier::dsb_sy();
    let entry = image.secondary_entry();
    match (core.enable_method, psci) {
        // Where a core waits is what the boot code did, whatever a device tree says.
        _ if parked => {
            // SAFETY: the symbol is the aligned, initialised word of `entry.s`.
            let word = unsafe { &PARK_RELEASE };
            word.store(mpidr | RELEASE_VALID, Ordering::Relaxed);
            publish_uncached(VirtAddr::from_ptr(word));
        }
        (EnableMethod::Psci, Some(psci)) => {
            // SAFETY: `entry` is the boot code's entry for secondary cores; it needs no context.
            unsafe { psci.cpu_on(mpidr, entry, 0) }?;
        }
        (EnableMethod::SpinTable { release }, _) if in_ram(release) => {
            release_spinning(layout::phys_to_virt(release), entry.get());
        }
        (EnableMethod::SpinTable { release }, _) => {
            return Err(StartError::ReleaseWord {
                mpidr,
                word: release,
            });
        }
        _ => return Err(StartError::NoMethod(mpidr)),
    }
    if timer.poll_until(START_TIMEOUT_NS, || smp::is_online(index)) {
        Ok(())
    } else {
        Err(StartError::Silent(mpidr))
    }
}

/// Stores `entry` where a core polls for it.
fn release_spinning(word: VirtAddr, entry: u64) {
    // SAFETY: the device tree gave the 8-byte aligned word for exactly this store, and it lies in
    // RAM that is reserved; see `start`.
    unsafe { word.as_ptr::<u64>().write_volatile(entry) };
    publish_uncached(word);
}

/// Lets cores that poll `word` with their caches off see it, and wakes them.
fn publish_uncached(word: VirtAddr) {
    cache::clean_invalidate_line(word);
    barrier::dsb_sy();
    cpu::send_event();
}
