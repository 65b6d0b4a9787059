//! Faults, caught and put into words.

use super::super::{plant, probe};
use crate::boot::image;
use crate::exit;
use crate::machine::machine;
use crate::report::{Outcome, Stop, diagnostic, failed};
use crate::{check, check_ok};
use core::fmt::Write;
use hal::addr::VirtAddr;
use hal::arch::exception::{Access, Cause, FaultInfo, FaultStatus};
use hal::layout::{IOREMAP, VMALLOC};

/// Checks that the sentence for `info` holds all of `parts`, and shows it.
fn says(info: FaultInfo, parts: &[&str]) -> Outcome {
    let mut text = heapless::String::<160>::new();
    check_ok!(write!(text, "{}", probe::in_words(info)));
    diagnostic(format_args!("{text}"));
    for part in parts {
        check!(text.contains(part), "the sentence lacks \"{part}\"");
    }
    Ok(())
}

pub(super) fn alignment() -> Outcome {
    /// Identification registers of Arm's peripherals; on others nothing that minds being read.
    const HARMLESS: usize = 0xFE0;
    let mapped = machine()
        .tables
        .lock()
        .first_leaf(IOREMAP.base, IOREMAP.end());
    let Some(registers) = mapped else {
        return failed(format_args!("no registers are mapped"));
    };
    let va = registers.va + (HARMLESS + 1);
    match probe::read_u32(va) {
        Err(info) => says(
            info,
            &[
                "alignment fault on Device-nGnRE memory",
                "read at",
                "in the ioremap window",
            ],
        ),
        Ok(_) if exit::is_emulated() || machine().board.is_emulated() => Err(Stop::Skipped(
            "QEMU with one CPU or -icount checks no alignment",
        )),
        Ok(value) => failed(format_args!("read {value:#x} at {va}")),
    }
}

pub(super) fn translation() -> Outcome {
    // The last page of the window is never handed out.
    let nowhere = VMALLOC.base + (VMALLOC.size - 8);
    match probe::read_u64(nowhere) {
        Err(info) => {
            check!(
                info.far == nowhere,
                "FAR_EL1 is {}, not {nowhere}",
                info.far
            );
            says(
                info,
                &["translation fault", "read at", "in the vmalloc window"],
            )
        }
        Ok(value) => failed(format_args!("read {value:#x} where nothing is mapped")),
    }
}

/// Whether storing to `va` is refused for want of permission; how, if so.
fn refused(va: VirtAddr) -> Option<FaultInfo> {
    let info = probe::rewrite_u8(va).err()?;
    let is_permission = matches!(
        info.esr.cause(),
        Cause::DataAbort(abort) if abort.access == Access::Write
            && matches!(abort.status, FaultStatus::Permission { .. })
    );
    is_permission.then_some(info)
}

pub(super) fn permission() -> Outcome {
    for section in [image::text(), image::rodata()] {
        let last = VirtAddr::new(section.end.get() - 1);
        for va in [section.start, last] {
            let Some(info) = refused(va) else {
                return failed(format_args!("{va} can be written"));
            };
            if va == section.start {
                says(
                    info,
                    &["permission fault", "write at", "in the image window"],
                )?;
            }
        }
    }
    Ok(())
}

pub(super) fn permission_planted() -> Outcome {
    let writable = plant::own_page();
    check!(
        refused(writable).is_none(),
        "{writable} is writable, yet refused"
    );
    Ok(())
}
