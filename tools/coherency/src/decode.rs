//! The instructions that no memory callback shows (Arm ARM C6.2, D24).

/// Domain and types of access of a barrier.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Barrier {
    /// A `DSB`, which also waits for cache maintenance, or a `DMB`.
    pub is_dsb: bool,
    /// Orders stores.
    pub stores: bool,
    /// Orders loads as well as stores.
    pub everything: bool,
    /// Reaches observers outside of the inner shareable domain: devices.
    pub outer: bool,
    /// Reaches other CPUs.
    pub inner: bool,
}

impl Barrier {
    const fn new(is_dsb: bool, option: u32) -> Self {
        // CRm of DMB and DSB: bits 1:0 are loads, stores or all; bits 3:2 the domain. The reserved
        // numbers act on the full system.
        let types = option & 3;
        let domain = if types == 0 { 3 } else { option >> 2 & 3 };
        Self {
            is_dsb,
            stores: types != 1,
            everything: types == 3 || types == 0,
            outer: matches!(domain, 0 | 3),
            inner: domain != 1,
        }
    }
}

/// A cache operation on one line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LineOp {
    /// `DC CVAC`, `DC CVAP`, `DC CVADP`.
    Clean,
    /// `DC CVAU`.
    CleanToUnification,
    /// `DC CIVAC`.
    CleanInvalidate,
    /// `DC IVAC`.
    Invalidate,
    /// `DC ZVA`: a store.
    Zero,
    /// `IC IVAU`.
    InvalidateCode,
}

/// A cache operation on one set and way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SetWayOp {
    /// `DC CSW`.
    Clean,
    /// `DC CISW`.
    CleanInvalidate,
    /// `DC ISW`.
    Invalidate,
}

/// What the sanitizer has to hear of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    /// A cache operation on the line at the address in `Xt`.
    Line(LineOp, u8),
    /// A cache operation by set and way.
    SetWay(SetWayOp),
    /// `IC IALLU`, `IC IALLUIS`.
    InvalidateAllCode,
    /// A barrier.
    Barrier(Barrier),
    /// A store that comes after all before it; what follows may come before it.
    StoreRelease,
    /// Translations are not what they were: `TLBI`, or `MSR` to a register that decides them.
    Translations {
        /// The registers have to be read anew.
        registers: bool,
    },
    /// The CPU goes on at another exception level: `ERET`.
    Level,
    /// A call of a higher exception level, `HVC` or `SMC`: with PSCI it can turn off or reset CPUs.
    Call,
    /// A call of the debugger, which QEMU can be (`HLT #0xF000`).
    Semihosting,
}

/// Number of the zero register.
pub const XZR: u8 = 31;

/// What an instruction does, if it matters.
pub const fn decode(insn: u32) -> Option<Operation> {
    if insn & 0xFFF8_0000 == 0xD508_0000 {
        return system(insn);
    }
    if insn & 0xFFF0_0000 == 0xD510_0000 {
        return move_to_system(insn);
    }
    if insn & 0xFFFF_F0FF == 0xD503_309F {
        // DSB #0 and #4 are SSBB and PSSBB, which order only accesses to the same address.
        let option = insn >> 8 & 0xF;
        return match option {
            0 | 4 => None,
            _ => Some(Operation::Barrier(Barrier::new(true, option))),
        };
    }
    if insn & 0xFFFF_F3FF == 0xD503_323F {
        // DSB nXS is a DSB for all types of access; its domain is in bits 11:10.
        return Some(Operation::Barrier(Barrier::new(true, insn >> 8 & 0xC | 3)));
    }
    if insn & 0xFFFF_F0FF == 0xD503_30BF {
        let option = insn >> 8 & 0xF;
        return Some(Operation::Barrier(Barrier::new(false, option)));
    }
    if is_store_release(insn) {
        return Some(Operation::StoreRelease);
    }
    // ERET, ERETAA, ERETAB.
    if insn == 0xD69F_03E0 || insn & 0xFFFF_FBFF == 0xD69F_0BFF {
        return Some(Operation::Level);
    }
    // HVC, SMC.
    if matches!(insn & 0xFFE0_001F, 0xD400_0002 | 0xD400_0003) {
        return Some(Operation::Call);
    }
    if insn == 0xD45E_0000 {
        return Some(Operation::Semihosting);
    }
    None
}

/// Whether it stores, does nothing else, and comes after all before it.
const fn is_store_release(insn: u32) -> bool {
    // STLR, STLRB, STLRH; STLLR and its like, which are the same where no region is limited.
    let ordered = insn & 0x3FE0_0000 == 0x0880_0000;
    // With an offset (FEAT_LRCPC2): STLUR, STLURB, STLURH.
    let unscaled = insn & 0x3FE0_0C00 == 0x1900_0000;
    // FEAT_LRCPC3: STLR with write-back, STILP, STLUR and STL1 of a vector's register.
    let written_back = insn & 0x3FFF_FC00 == 0x1980_0800;
    let pair = insn & 0x3FE0_EC00 == 0x1900_0800;
    let vector = insn & 0x3F60_0C00 == 0x1D00_0800;
    let element = insn & 0xBFFF_FC00 == 0x0D01_8400;
    ordered || unscaled || written_back || pair || vector || element
}

/// Whether a store's value may not be what memory then holds: exclusives that can fail, and atomic
/// read-modify-write instructions.
pub const fn is_uncertain_store(insn: u32) -> bool {
    let exclusive = insn & 0x3F00_0000 == 0x0800_0000 && insn & 0x0080_0000 == 0;
    let compare_and_swap = insn & 0x3FA0_7C00 == 0x08A0_7C00;
    let atomic = insn & 0x3F20_0C00 == 0x3820_0000;
    exclusive || compare_and_swap || atomic
}

/// `SYS`: cache and TLB maintenance.
const fn system(insn: u32) -> Option<Operation> {
    let rt = (insn & 31) as u8;
    let (op1, crn, crm, op2) = fields(insn);
    Some(match (op1, crn, crm, op2) {
        (0, 7, 6, 1) => Operation::Line(LineOp::Invalidate, rt),
        (3, 7, 10 | 12 | 13, 1) => Operation::Line(LineOp::Clean, rt),
        (3, 7, 11, 1) => Operation::Line(LineOp::CleanToUnification, rt),
        (3, 7, 14, 1) => Operation::Line(LineOp::CleanInvalidate, rt),
        // DC ZVA, and DC GZVA, which sets tags as well.
        (3, 7, 4, 1 | 4) => Operation::Line(LineOp::Zero, rt),
        (3, 7, 5, 1) => Operation::Line(LineOp::InvalidateCode, rt),
        (0, 7, 6, 2) => Operation::SetWay(SetWayOp::Invalidate),
        (0, 7, 10, 2) => Operation::SetWay(SetWayOp::Clean),
        (0, 7, 14, 2) => Operation::SetWay(SetWayOp::CleanInvalidate),
        (0, 7, 1 | 5, 0) => Operation::InvalidateAllCode,
        (_, 8 | 9, _, _) => Operation::Translations { registers: false },
        _ => return None,
    })
}

/// `MSR` to `SCTLR`, `HCR`, `SCR`, `TTBR`, `TCR`, `VTTBR`, `MAIR` of any level.
const fn move_to_system(insn: u32) -> Option<Operation> {
    let is_debug = insn >> 19 & 1 == 0;
    let (_, crn, _, _) = fields(insn);
    match crn {
        1 | 2 | 10 if !is_debug => Some(Operation::Translations { registers: true }),
        _ => None,
    }
}

const fn fields(insn: u32) -> (u32, u32, u32, u32) {
    (
        insn >> 16 & 7,
        insn >> 12 & 15,
        insn >> 8 & 15,
        insn >> 5 & 7,
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cache_maintenance() {
        let line = |op, rt| Some(Operation::Line(op, rt));
        // As an assembler encodes `dc cvac, x0` and the others.
        assert_eq!(decode(0xD50B_7A20), line(LineOp::Clean, 0));
        assert_eq!(decode(0xD50B_7C25), line(LineOp::Clean, 5));
        assert_eq!(decode(0xD50B_7B21), line(LineOp::CleanToUnification, 1));
        assert_eq!(decode(0xD50B_7E22), line(LineOp::CleanInvalidate, 2));
        assert_eq!(decode(0xD508_7623), line(LineOp::Invalidate, 3));
        assert_eq!(decode(0xD50B_7424), line(LineOp::Zero, 4));
        assert_eq!(decode(0xD50B_7526), line(LineOp::InvalidateCode, 6));
        let set_way = |op| Some(Operation::SetWay(op));
        assert_eq!(decode(0xD508_7641), set_way(SetWayOp::Invalidate));
        assert_eq!(decode(0xD508_7A41), set_way(SetWayOp::Clean));
        assert_eq!(decode(0xD508_7E41), set_way(SetWayOp::CleanInvalidate));
        assert_eq!(decode(0xD508_751F), Some(Operation::InvalidateAllCode));
        assert_eq!(decode(0xD508_711F), Some(Operation::InvalidateAllCode));
    }

    #[test]
    fn barriers() {
        let barrier = |insn| match decode(insn) {
            Some(Operation::Barrier(barrier)) => barrier,
            other => panic!("{insn:#x}: {other:?}"),
        };
        let dsb_sy = barrier(0xD503_3F9F);
        assert!(dsb_sy.is_dsb && dsb_sy.everything && dsb_sy.outer);
        let dsb_ishst = barrier(0xD503_3A9F);
        assert!(dsb_ishst.is_dsb && dsb_ishst.stores && dsb_ishst.inner);
        assert!(!dsb_ishst.everything && !dsb_ishst.outer);
        let dmb_oshst = barrier(0xD503_32BF);
        assert!(!dmb_oshst.is_dsb && dmb_oshst.stores && dmb_oshst.outer);
        let dmb_ish = barrier(0xD503_3BBF);
        assert!(dmb_ish.everything && !dmb_ish.outer);
        let dmb_oshld = barrier(0xD503_31BF);
        assert!(!dmb_oshld.stores);
        assert_eq!(decode(0xD503_309F), None, "SSBB");
        assert_eq!(decode(0xD503_3FDF), None, "ISB");
    }

    #[test]
    fn stores_that_release() {
        // As LLVM encodes them.
        for (insn, name) in [
            (0xC89F_FC20, "STLR X0, [X1]"),
            (0x489F_FC20, "STLRH W0, [X1]"),
            (0xC89F_7C20, "STLLR X0, [X1]"),
            (0x089F_7C20, "STLLRB W0, [X1]"),
            (0x991F_C020, "STLUR W0, [X1, #-4]"),
            (0xD900_8020, "STLUR X0, [X1, #8]"),
            (0x1900_0020, "STLURB W0, [X1]"),
            (0x5900_1020, "STLURH W0, [X1, #1]"),
            (0x9980_0820, "STLR W0, [X1, #-4]!"),
            (0xD980_0820, "STLR X0, [X1, #-8]!"),
            (0x9902_1820, "STILP W0, W2, [X1]"),
            (0xD902_0820, "STILP X0, X2, [X1, #-16]!"),
            (0x1D00_0820, "STLUR B0, [X1]"),
            (0xDD00_0820, "STLUR D0, [X1]"),
            (0x1D81_0820, "STLUR Q0, [X1, #16]"),
            (0x0D01_8420, "STL1 {V0.D}[0], [X1]"),
            (0x4D01_8420, "STL1 {V0.D}[1], [X1]"),
        ] {
            assert_eq!(decode(insn), Some(Operation::StoreRelease), "{name}");
            assert!(!is_uncertain_store(insn), "{name}");
        }
        for (insn, name) in [
            (0xC8DF_FC20, "LDAR X0, [X1]"),
            (0xC8DF_7C20, "LDLAR X0, [X1]"),
            (0xD940_0020, "LDAPUR X0, [X1]"),
            (0x1980_0020, "LDAPURSB X0, [X1]"),
            (0xD942_1820, "LDIAPP X0, X2, [X1]"),
            (0xD9C0_0820, "LDAPR X0, [X1], #8"),
            (0xDD40_0820, "LDAPUR D0, [X1]"),
            (0x1DC0_0820, "LDAPUR Q0, [X1]"),
            (0x4D41_8420, "LDAP1 {V0.D}[1], [X1]"),
            (0x4D00_8420, "ST1 {V0.D}[1], [X1]"),
            (0xD920_0820, "STG X0, [X1]"),
            (0x1901_0440, "CPYFP [X0]!, [X1]!, X2!"),
            // Their values are not known: they are counted, and no device is told.
            (0xC803_FC20, "STLXR W3, X0, [X1]"),
            (0xC8A0_FC22, "CASL X0, X2, [X1]"),
            (0xF860_8022, "SWPL X0, X2, [X1]"),
            (0xF860_003F, "STADDL X0, [X1]"),
        ] {
            assert_eq!(decode(insn), None, "{name}");
        }
    }

    #[test]
    fn what_changes_translations() {
        let tlb = Some(Operation::Translations { registers: false });
        let registers = Some(Operation::Translations { registers: true });
        assert_eq!(decode(0xD508_831F), tlb, "TLBI VMALLE1IS");
        assert_eq!(decode(0xD508_83E0), tlb, "TLBI VAALE1IS, X0");
        assert_eq!(decode(0xD518_1000), registers, "MSR SCTLR_EL1");
        assert_eq!(decode(0xD518_2020), registers, "MSR TTBR1_EL1");
        assert_eq!(decode(0xD518_A200), registers, "MSR MAIR_EL1");
        assert_eq!(decode(0xD538_1000), None, "MRS SCTLR_EL1");
        assert_eq!(decode(0xD518_C000), None, "MSR VBAR_EL1");
        assert_eq!(decode(0xD69F_03E0), Some(Operation::Level), "ERET");
        assert_eq!(decode(0xD400_0003), Some(Operation::Call), "SMC");
        assert_eq!(decode(0xD400_0002), Some(Operation::Call), "HVC");
        assert_eq!(decode(0xD45E_0000), Some(Operation::Semihosting), "HLT");
        assert_eq!(decode(0xD45E_0020), None, "HLT, another");
        assert_eq!(decode(0xD400_0001), None, "SVC");
    }

    #[test]
    fn ordinary_instructions_are_nothing() {
        for insn in [0xD503_201F, 0xF940_0020, 0xF900_0020, 0x9100_0400, 0, !0] {
            assert_eq!(decode(insn), None, "{insn:#x}");
        }
    }

    #[test]
    fn stores_that_may_not_happen() {
        assert!(is_uncertain_store(0xC800_7C20), "STXR");
        assert!(is_uncertain_store(0xC8E0_FC41), "CASAL");
        assert!(is_uncertain_store(0xF8E0_0041), "LDADDAL");
        assert!(!is_uncertain_store(0xF900_0020), "STR");
        assert!(!is_uncertain_store(0xC89F_FC20), "STLR");
        assert!(!is_uncertain_store(0xF820_6841), "STR, register offset");
    }
}
