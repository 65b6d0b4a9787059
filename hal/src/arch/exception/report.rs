//! One sentence about a fault, with the place it happened in.

use super::{Access, Cause, FaultInfo, FaultStatus};
use crate::addr::{PAGE_SIZE, VirtAddr};
use crate::arch::par::Par;
use crate::layout::{self, IMAGE, VMALLOC};
use core::fmt;

/// A fault as a person reads it.
///
/// ```
/// # use hal::addr::VirtAddr;
/// # use hal::arch::exception::{FaultInfo, FaultReport, Syndrome};
/// let report = FaultReport {
///     info: FaultInfo {
///         esr: Syndrome::new(0x9600_0047),
///         far: VirtAddr::new(0xFFFF_FFC0_0000_3000),
///     },
///     translation: None,
/// };
/// assert_eq!(
///     report.to_string(),
///     "translation fault (level 3), write at 0xffffffc000003000 in the vmalloc window (guard page?)"
/// );
/// ```
#[derive(Clone, Copy, Debug)]
pub struct FaultReport {
    /// The syndrome registers.
    pub info: FaultInfo,
    /// What translating the address gives now, to name the memory type. `None` if nobody asked.
    pub translation: Option<Par>,
}

impl fmt::Display for FaultReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let cause = self.info.esr.cause();
        cause.fmt(f)?;
        let (status, access, far_valid) = match cause {
            Cause::DataAbort(abort) => (abort.status, abort.access, abort.far_valid),
            Cause::InstructionAbort(abort) => (abort.status, Access::Fetch, abort.far_valid),
            Cause::PcAlignment => return write!(f, " {}", self.info.far),
            _ => return Ok(()),
        };
        if let Some(ty) = self.translation.and_then(Par::memory_type) {
            write!(f, " on {ty} memory")?;
        }
        if far_valid {
            write!(f, ", {access} at {}", self.info.far)?;
            write_place(f, self.info.far, status)
        } else {
            write!(f, ", {access} at an unknown address")
        }
    }
}

/// Names the window `va` lies in and guesses at the usual mistake behind the fault.
fn write_place(f: &mut fmt::Formatter<'_>, va: VirtAddr, status: FaultStatus) -> fmt::Result {
    let Some(window) = layout::window_of(va) else {
        let guess = if va.get() < PAGE_SIZE {
            " (null pointer?)"
        } else {
            ""
        };
        return write!(f, " outside every window{guess}");
    };
    write!(f, " in the {} window", window.name)?;
    // The two windows with guard pages; their neighbours are mapped, so the walk fails at level 3.
    let guarded = *window == VMALLOC || *window == IMAGE;
    if guarded && status == (FaultStatus::Translation { level: 3 }) {
        f.write_str(" (guard page?)")?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::Syndrome;
    use super::*;
    use crate::layout::{DIRECT_MAP, IOREMAP};

    fn report(esr: u64, far: VirtAddr, par: Option<u64>) -> String {
        FaultReport {
            info: FaultInfo {
                esr: Syndrome::new(esr),
                far,
            },
            translation: par.map(Par::new),
        }
        .to_string()
    }

    #[test]
    fn unaligned_device_access() {
        assert_eq!(
            report(
                0x9600_0021,
                IOREMAP.base + 1,
                Some(0x0400_0000_0900_0B00 | 2 << 7)
            ),
            "alignment fault on Device-nGnRE memory, read at 0xffffffe800000001 \
             in the ioremap window"
        );
    }

    #[test]
    fn a_guess_only_where_it_can_be_right() {
        assert_eq!(
            report(0x9600_0047, IMAGE.base + 0x5FF0, Some(0x80F)),
            "translation fault (level 3), write at 0xffffffff80005ff0 \
             in the image window (guard page?)"
        );
        assert_eq!(
            report(0x9600_0046, VMALLOC.base, None),
            "translation fault (level 2), write at 0xffffffc000000000 in the vmalloc window"
        );
        assert_eq!(
            report(0x9600_0007, DIRECT_MAP.base, None),
            "translation fault (level 3), read at 0xffffff8000000000 in the direct map window"
        );
        assert_eq!(
            report(0x9600_0004, VirtAddr::new(0x10), None),
            "translation fault (level 0), read at 0x10 outside every window (null pointer?)"
        );
    }

    #[test]
    fn an_invalid_far_is_not_printed() {
        assert_eq!(
            report(0x9600_0410, VirtAddr::new(0xDEAD_0000), None),
            "synchronous external abort, read at an unknown address"
        );
        assert_eq!(
            report(0xF200_0001, VirtAddr::new(0xDEAD_0000), None),
            "BRK #0x1"
        );
    }

    #[test]
    fn fetches() {
        assert_eq!(
            report(0x8600_000F, DIRECT_MAP.base, None),
            "permission fault (level 3), instruction fetch at 0xffffff8000000000 \
             in the direct map window"
        );
        assert_eq!(
            report(0x8A00_0000, VirtAddr::new(0x1002), None),
            "misaligned program counter 0x1002"
        );
    }
}
