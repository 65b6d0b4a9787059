//! System registers of every core.

use super::super::{plant, probe};
use crate::boot::image;
use crate::machine::machine;
use crate::report::{Outcome, Stop, diagnostic, failed};
use crate::{check, check_ok};
use hal::addr::VirtAddr;
use hal::arch::exception::{Cause, FaultStatus};
use hal::arch::{cache, sysreg, translate};
use hal::mmu::mair;
use hal::smp;

/// Calls `look` on every core; the first core where it returns something.
fn first_core<R: Send>(
    look: impl Fn() -> Option<R> + Sync,
) -> Result<Option<(usize, R)>, smp::SmpError> {
    for core in smp::online() {
        if let Some(found) = smp::run_on(core, &look)? {
            return Ok(Some((core, found)));
        }
    }
    Ok(None)
}

pub(super) fn entry_level() -> Outcome {
    let level = machine().entry_level;
    diagnostic(format_args!("entered at EL{level}"));
    check!(
        (1..=3).contains(&level),
        "EL{level} is no level to enter at"
    );
    Ok(())
}

pub(super) fn exception_level() -> Outcome {
    let wrong = check_ok!(first_core(|| {
        let state = (sysreg::current_el(), sysreg::uses_own_stack_pointer());
        (state != (1, false)).then_some(state)
    }));
    check!(
        wrong.is_none(),
        "(core, (EL, SPSel)) is {wrong:?}, not EL1 on SP_EL0"
    );
    Ok(())
}

/// Bits of `SCTLR_EL1` that must be set (Arm ARM D24.2.175), each with its name.
const SCTLR_SET: [(u32, &str); 5] = [
    (0, "M: the MMU"),
    (2, "C: the data caches"),
    (3, "SA: the stack alignment check"),
    (12, "I: the instruction cache"),
    (19, "WXN: execute-never for writable memory"),
];

fn missing_in_sctlr(sctlr: u64) -> Option<&'static str> {
    SCTLR_SET
        .iter()
        .find(|(bit, _)| sctlr >> bit & 1 == 0)
        .map(|&(_, name)| name)
}

pub(super) fn sctlr() -> Outcome {
    diagnostic(format_args!("SCTLR_EL1={:#x}", sysreg::sctlr_el1()));
    let missing = check_ok!(first_core(|| missing_in_sctlr(sysreg::sctlr_el1())));
    check!(missing.is_none(), "(core, off) is {missing:?}");
    Ok(())
}

pub(super) fn sctlr_planted() -> Outcome {
    let on = sysreg::sctlr_el1();
    for (bit, name) in SCTLR_SET {
        let found = missing_in_sctlr(on & !(1 << bit));
        check!(found == Some(name), "without {name}: {found:?}");
    }
    Ok(())
}

pub(super) fn mair() -> Outcome {
    diagnostic(format_args!("MAIR_EL1={:#x}", sysreg::mair_el1()));
    let other = check_ok!(first_core(|| {
        let value = sysreg::mair_el1();
        (value != mair::MAIR_EL1).then_some(value)
    }));
    check!(other.is_none(), "(core, MAIR_EL1) is {other:x?}");
    Ok(())
}

/// Fields of `TCR_EL1` (Arm ARM D24.2.191): name, lowest bit, width, value.
const TCR_FIELDS: [(&str, u32, u32, u64); 11] = [
    ("T0SZ", 0, 6, 25),
    ("EPD0", 7, 1, 1),
    ("T1SZ", 16, 6, 25),
    ("A1", 22, 1, 0),
    ("EPD1", 23, 1, 0),
    ("IRGN1", 24, 2, 0b01),
    ("ORGN1", 26, 2, 0b01),
    ("SH1", 28, 2, 0b11),
    ("TG1", 30, 2, 0b10),
    ("TBI0", 37, 1, 0),
    ("TBI1", 38, 1, 0),
];

const IPS_SHIFT: u32 = 32;
/// 40 bits; what the core has where that is less.
const IPS_MOST: u8 = 0b010;

/// The first field that is not as designed, and its value.
fn wrong_in_tcr(tcr: u64, pa_range: u8) -> Option<(&'static str, u64)> {
    let ips = tcr >> IPS_SHIFT & 0b111;
    let field = |lowest: u32, width: u32| tcr >> lowest & ((1 << width) - 1);
    TCR_FIELDS
        .iter()
        .map(|&(name, lowest, width, value)| (name, field(lowest, width), value))
        .chain([("IPS", ips, u64::from(pa_range.min(IPS_MOST)))])
        .find(|(_, found, value)| found != value)
        .map(|(name, found, _)| (name, found))
}

pub(super) fn tcr() -> Outcome {
    diagnostic(format_args!(
        "TCR_EL1={:#x} PARange={:#b}",
        sysreg::tcr_el1(),
        sysreg::pa_range()
    ));
    let wrong = check_ok!(first_core(|| wrong_in_tcr(
        sysreg::tcr_el1(),
        sysreg::pa_range()
    )));
    check!(wrong.is_none(), "(core, (field, value)) is {wrong:?}");
    Ok(())
}

pub(super) fn tcr_planted() -> Outcome {
    let (tcr, pa_range) = (sysreg::tcr_el1(), sysreg::pa_range());
    let fields = TCR_FIELDS.iter().map(|&(name, lowest, ..)| (name, lowest));
    for (name, lowest) in fields.chain([("IPS", IPS_SHIFT)]) {
        let found = wrong_in_tcr(tcr ^ 1 << lowest, pa_range);
        check!(
            found.is_some_and(|(field, _)| field == name),
            "{name} changed: {found:?}"
        );
    }
    Ok(())
}

pub(super) fn vectors() -> Outcome {
    /// Alignment of a vector table (Arm ARM D24.2.220).
    const ALIGN: usize = 2048;
    let own = VirtAddr::new(sysreg::vbar_el1() as usize);
    diagnostic(format_args!("VBAR_EL1={own}"));
    check!(
        own.is_aligned(ALIGN) && image::text().contains(&own),
        "{own} is no vector table in the text"
    );
    let other = check_ok!(first_core(|| {
        let value = sysreg::vbar_el1() as usize;
        (value != own.get()).then_some(value)
    }));
    check!(other.is_none(), "(core, VBAR_EL1) is {other:x?}");
    Ok(())
}

/// Whether reading `va` finds nothing, in the way an address without any table does.
fn is_untranslated(va: VirtAddr) -> bool {
    probe::read_u32(va).is_err_and(|info| {
        matches!(
            info.esr.cause(),
            Cause::DataAbort(abort) if matches!(abort.status, FaultStatus::Translation { .. })
        )
    })
}

pub(super) fn lower_half() -> Outcome {
    // The addresses at which the boot code ran with the MMU off, and the null pointer's.
    let image = machine().image.frames().start.get() as usize;
    for va in [0x10, image].map(VirtAddr::new) {
        let wrong = check_ok!(first_core(|| (!is_untranslated(va)).then_some(va)));
        check!(wrong.is_none(), "(core, address) {wrong:?} can be read");
        let status = translate::read_el1(va).fault_status();
        check!(status.is_some(), "AT S1E1R translates {va}");
    }
    let table = check_ok!(first_core(|| {
        let table = sysreg::ttbr0_el1();
        (table != 0).then_some(table)
    }));
    check!(table.is_none(), "(core, TTBR0_EL1) is {table:x?}");
    match probe::read_u32(VirtAddr::new(image)) {
        Err(info) => diagnostic(format_args!("{}", probe::in_words(info))),
        Ok(value) => return failed(format_args!("read {value:#x} through the identity map")),
    }
    Ok(())
}

pub(super) fn lower_half_planted() -> Outcome {
    let mapped = image::text().start;
    check!(
        !is_untranslated(mapped),
        "{mapped} is mapped, yet called untranslated"
    );
    Ok(())
}

pub(super) fn smp_enable() -> Outcome {
    /// `CPUECTLR_EL1.SMPEN`.
    const SMPEN: u64 = 1 << 6;
    let Some(own) = sysreg::cpuectlr_el1() else {
        return Err(Stop::Skipped("this core has no CPUECTLR_EL1"));
    };
    diagnostic(format_args!(
        "CPUECTLR_EL1={own:#x} MIDR_EL1={:#x}",
        sysreg::midr_el1()
    ));
    if own == 0 {
        return Err(Stop::Skipped("QEMU reads CPUECTLR_EL1 as 0"));
    }
    let off = check_ok!(first_core(|| {
        sysreg::cpuectlr_el1().filter(|value| value & SMPEN == 0)
    }));
    check!(off.is_none(), "(core, CPUECTLR_EL1) is {off:x?}");
    Ok(())
}

pub(super) fn cache_lines() -> Outcome {
    /// `CTR_EL0.CWG`, bits 27:24: log2 of words; 0 means up to 2 KiB (Arm ARM D24.2.34).
    const CWG_SHIFT: u32 = 24;
    const CWG_UNKNOWN: usize = 2048;
    /// What the slab classes are multiples of.
    const LINE: usize = 64;
    let line = plant::smallest_line();
    let granule = match cache::ctr_el0() >> CWG_SHIFT & 0xF {
        0 => CWG_UNKNOWN,
        words => 4 << words,
    };
    diagnostic(format_args!(
        "CTR_EL0={:#x} DminLine={line} CWG={granule}",
        cache::ctr_el0()
    ));
    if line.max(granule) > LINE {
        diagnostic(format_args!(
            "lines of {} bytes: streaming maps judge the edges of a buffer by that, not by {LINE}",
            line.max(granule)
        ));
    }
    check!(
        line <= granule,
        "a line of {line} is more than CWG {granule}"
    );
    let other = check_ok!(first_core(|| {
        let other = plant::smallest_line();
        (other != line).then_some(other)
    }));
    check!(
        other.is_none(),
        "(core, DminLine) is {other:?}, here it is {line}"
    );
    Ok(())
}
