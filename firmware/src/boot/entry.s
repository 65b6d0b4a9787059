// From reset to the first Rust function.
//
// Everything in section .head runs with the MMU off, at whatever physical address the image was
// loaded to, so it addresses memory relative to the program counter only. It fits the one page
// that the identity map holds while the MMU is being switched on.
//
// Register use until Rust:
//   x19  device tree address the loader passed (0 for secondary cores)
//   x20  exception level at entry, 1..3
//   x21  physical address of the image's first byte
//
// Sources: Arm ARM D1.2 (registers), D8 (translation), B2.3.7 (barriers); Linux arm64 boot
// protocol (header, register contents at entry).

.equ    PAGE_SIZE,              0x1000
.equ    LEVEL2_BLOCK_SHIFT,     21

// MAIR_EL1: hal::mmu::mair::MAIR_EL1 asserts the same literal.
.equ    MAIR_VALUE,             0x000444FF

// TCR_EL1 without IPS: T0SZ = T1SZ = 25 (39-bit addresses), write-back inner-shareable walks,
// 4 KiB granules (TG0 = 0b00, TG1 = 0b10).
.equ    TCR_T0SZ,               25
.equ    TCR_WALK0,              (1 << 8) | (1 << 10) | (3 << 12)
.equ    TCR_T1SZ,               25 << 16
.equ    TCR_WALK1,              (1 << 24) | (1 << 26) | (3 << 28)
.equ    TCR_TG1_4K,             2 << 30
.equ    TCR_VALUE,              TCR_T0SZ | TCR_WALK0 | TCR_T1SZ | TCR_WALK1 | TCR_TG1_4K
.equ    TCR_EPD0_BIT,           7
.equ    TCR_IPS_SHIFT,          32
.equ    IPS_40_BIT,             2

// SCTLR_EL1: the RES1 bits of Armv8.0, MMU (0), data cache (2), SP alignment check (3),
// instruction cache (12), writable implies execute-never (19).
.equ    SCTLR_RES1,             0x30D00800
.equ    SCTLR_ON,               SCTLR_RES1 | (1 << 0) | (1 << 2) | (1 << 3) | (1 << 12) | (1 << 19)

// Descriptors (Arm ARM D8.3): valid page/table, AF, SH inner, AttrIndx 0; AP[2] read-only, UXN, PXN.
.equ    DESC_TABLE,             0x3
.equ    DESC_PAGE,              0x3 | (1 << 10) | (3 << 8)
.equ    DESC_READ_ONLY,         1 << 7
.equ    DESC_PXN_BIT,           53
.equ    DESC_UXN_BIT,           54

// SCTLR_EL2: the RES1 bits alone.
.equ    SCTLR_EL2_OFF,          0x30C50830
.equ    HCR_RW,                 1 << 31
.equ    SPSR_EL1H_MASKED,       0x3C5
.equ    SPSR_EL2H_MASKED,       0x3C9
// SCR_EL3: NS, RES1 (5:4), SMD, HCE, RW.
.equ    SCR_VALUE,              0x5B1
.equ    CPUECTLR_SMPEN,         1 << 6
// ACTLR_EL2/EL3 of the A53/A57/A72 family: let EL1/EL2 write CPUACTLR, CPUECTLR, L2CTLR, L2ACTLR.
.equ    ACTLR_ALLOW,            0x73
.equ    CPUACTLR_DIS_INSTR_PREFETCH_BIT, 32
.equ    MIDR_A72_R0P0,          0x410FD080
.equ    AFFINITY_MASK_LOW,      0xFFFFFF
.equ    RELEASE_VALID_BIT,      63

.macro  load_address reg, symbol
        adrp    \reg, \symbol
        add     \reg, \reg, :lo12:\symbol
.endm

        .section .head, "ax"
        .global __entry
__entry:
        b       start                           // code0
        nop                                     // code1
        .quad   0                               // text_offset
        .quad   __image_size
        .quad   (1 << 1) | (1 << 3)             // flags: 4 KiB pages, loadable anywhere
        .quad   0, 0, 0
        .ascii  "ARM\x64"
        .word   0

start:
        msr     daifset, #0xf
        mov     x19, x0
        mrs     x20, CurrentEL
        lsr     x20, x20, #2
        adr     x21, __entry

        // Only at EL3 can all cores arrive here together; whoever is not core 0 waits.
        cmp     x20, #3
        b.ne    0f
        bl      affinity
        cbnz    x0, park
0:      bl      drop_to_el1
        bl      build_tables
        load_address x25, primary_virtual_address
        b       enable_mmu

// Where a core enters that PSCI, the spin table or `park` starts, at any exception level.
        .global __secondary_entry
__secondary_entry:
        msr     daifset, #0xf
        mov     x19, xzr
        mrs     x20, CurrentEL
        lsr     x20, x20, #2
        adr     x21, __entry
        bl      drop_to_el1
        load_address x25, secondary_virtual_address
        b       enable_mmu

// Waits until the release word holds this core's affinity, then starts as a secondary.
park:
        load_address x1, PARK_RELEASE
        orr     x0, x0, #(1 << RELEASE_VALID_BIT)
0:      wfe
        ldr     x2, [x1]
        cmp     x2, x0
        b.ne    0b
        b       __secondary_entry

// x0 = affinity fields of MPIDR_EL1. Clobbers x1.
affinity:
        mrs     x0, mpidr_el1
        and     x1, x0, #(0xFF << 32)
        and     x0, x0, #AFFINITY_MASK_LOW
        orr     x0, x0, x1
        ret

// Turns the MMU and caches on and continues at the virtual address stored at x25.
enable_mmu:
        ldr     x25, [x25]
        load_address x0, BOOT_ID_ROOT
        load_address x1, KERNEL_ROOT
        msr     ttbr0_el1, x0
        msr     ttbr1_el1, x1
        ldr     x0, =MAIR_VALUE
        msr     mair_el1, x0
        ldr     x0, =TCR_VALUE
        mrs     x1, id_aa64mmfr0_el1
        and     x1, x1, #0xF                    // PARange
        mov     x2, #IPS_40_BIT
        cmp     x1, x2
        csel    x1, x1, x2, lo
        orr     x0, x0, x1, lsl #TCR_IPS_SHIFT
        msr     tcr_el1, x0
        tlbi    vmalle1
        ic      iallu
        dsb     nsh
        isb
        ldr     x0, =SCTLR_ON
        msr     sctlr_el1, x0
        isb
        br      x25

// Returns at EL1h with the MMU off, from whatever exception level. Clobbers x0-x4, x23.
drop_to_el1:
        mov     x23, x30
        cmp     x20, #3
        b.eq    from_el3
        cmp     x20, #2
        b.eq    from_el2
        ldr     x0, =SCTLR_RES1
        msr     sctlr_el1, x0
        isb
        ret

from_el3:
        ldr     x0, =SCR_VALUE
        msr     scr_el3, x0
        msr     cptr_el3, xzr
        msr     mdcr_el3, xzr
        // Platform firmware sets CNTFRQ. It is unknown at reset without any; where that reads as 0,
        // as on the boards here, the board's value goes in.
        mrs     x0, cntfrq_el0
        cbnz    x0, 0f
        ldr     x0, =BOARD_CNTFRQ
        msr     cntfrq_el0, x0
0:
        // CPUECTLR_EL1 exists as S3_1_C15_C2_1 on A53, A57, A72, A73 (parts 0xD03, 0xD07..0xD09).
        mrs     x0, midr_el1
        ubfx    x1, x0, #24, #8
        cmp     x1, #0x41                       // Arm Ltd.
        b.ne    3f
        ubfx    x1, x0, #4, #12
        mov     x2, #0xD03
        cmp     x1, x2
        b.eq    1f
        sub     x2, x1, #0xD00
        sub     x2, x2, #7
        cmp     x2, #2
        b.hi    3f
1:      mov     x2, #ACTLR_ALLOW
        msr     actlr_el3, x2
        msr     actlr_el2, x2
        mrs     x2, S3_1_C15_C2_1
        orr     x2, x2, #CPUECTLR_SMPEN         // before any cache or TLB operation
        msr     S3_1_C15_C2_1, x2
        isb
        bl      erratum_859971
3:
        // Give every interrupt to the non-secure side (group 1).
        mrs     x0, id_aa64pfr0_el1
        ubfx    x1, x0, #24, #4                 // system register GIC interface
        cbnz    x1, gic_v3_el3

gic_v2_el3:
        ldr     x1, =BOARD_GICD
        bl      set_groups_spi_v2
        ldr     x1, =BOARD_GICC
        mov     w2, #0xFF
        str     w2, [x1, #4]                    // GICC_PMR: let non-secure priorities through
        b       leave_el3

gic_v3_el3:
        mov     x1, #0xF
        msr     S3_6_C12_C12_5, x1              // ICC_SRE_EL3: system registers on, for EL2 too
        isb
        ubfx    x2, x0, #8, #4                  // EL2 implemented?
        cbz     x2, 0f
        msr     S3_4_C12_C9_5, x1               // ICC_SRE_EL2
        isb
0:      mov     x1, #1
        msr     S3_0_C12_C12_5, x1              // ICC_SRE_EL1, the non-secure copy (SCR_EL3.NS)
        msr     S3_6_C12_C12_7, x1              // ICC_IGRPEN1_EL3: EnableGrp1NS
        mov     x1, #0xFF
        msr     S3_0_C4_C6_0, x1                // ICC_PMR_EL1
        isb
        ldr     x1, =BOARD_GICD
        ldr     w2, [x1]
        mov     w3, #0x30                       // GICD_CTLR: ARE_NS, ARE_S before any group
        orr     w2, w2, w3
        str     w2, [x1]
        bl      wait_gicd
        orr     w2, w2, #2                      // EnableGrp1NS
        str     w2, [x1]
        bl      wait_gicd
        bl      set_groups_spi
        // This core's redistributor: the frame whose GICR_TYPER affinity (63:32) is ours.
        mrs     x0, mpidr_el1
        ubfx    x2, x0, #32, #8
        and     x0, x0, #AFFINITY_MASK_LOW
        orr     x0, x0, x2, lsl #24
        ldr     x1, =BOARD_GICR
1:      ldr     x2, [x1, #8]                    // GICR_TYPER
        lsr     x3, x2, #32
        cmp     x3, x0
        b.eq    2f
        tbnz    x2, #4, leave_el3               // Last: not found, leave it to the driver to say
        add     x1, x1, #0x20000
        b       1b
2:      ldr     w2, [x1, #0x14]                 // GICR_WAKER: clear ProcessorSleep
        bic     w2, w2, #2
        str     w2, [x1, #0x14]
3:      ldr     w2, [x1, #0x14]
        tbnz    w2, #2, 3b                      // until ChildrenAsleep clears
        add     x1, x1, #0x10000                // SGI frame
        mov     w2, #-1
        str     w2, [x1, #0x80]                 // GICR_IGROUPR0
        str     wzr, [x1, #0xD00]               // GICR_IGRPMODR0

leave_el3:
        ldr     x0, =SCTLR_RES1
        msr     sctlr_el1, x0
        mrs     x0, id_aa64pfr0_el1
        ubfx    x0, x0, #8, #4
        cbz     x0, 0f
        ldr     x0, =SCTLR_EL2_OFF              // unknown at reset: MMU, caches, big endian off
        msr     sctlr_el2, x0
        adr     x0, from_el2
        msr     elr_el3, x0
        mov     x0, #SPSR_EL2H_MASKED
        b       1f
0:      msr     elr_el3, x23
        mov     x0, #SPSR_EL1H_MASKED
1:      msr     spsr_el3, x0
        isb
        eret

// x1 = GICD base: waits until a write to GICD_CTLR has taken effect (RWP). Clobbers x3.
wait_gicd:
0:      ldr     w3, [x1]
        tbnz    w3, #31, 0b
        ret

// x1 = GICD base: puts every interrupt into group 1. Clobbers x2-x4. The GICv2 entry includes the
// banked word 0 of this core; with affinity routing that word belongs to the redistributor.
set_groups_spi_v2:
        mov     w4, #-1
        str     w4, [x1, #0x80]                 // GICD_IGROUPR0
set_groups_spi:
        ldr     w2, [x1, #4]                    // GICD_TYPER
        and     w2, w2, #0x1F                   // words after the first
        add     x3, x1, #0x80
        mov     w4, #-1
0:      cbz     w2, 1f
        str     w4, [x3, #4]!
        sub     w2, w2, #1
        b       0b
1:      ret

// Cortex-A72 up to r0p3: no speculative instruction prefetch, which may reach device memory
// (CPUACTLR_EL1, S3_1_C15_C2_0). Clobbers x0-x2.
erratum_859971:
        mrs     x0, midr_el1
        ldr     x1, =MIDR_A72_R0P0              // the revision is in bits 3:0
        sub     x0, x0, x1
        cmp     x0, #3
        b.hi    0f
        mrs     x2, S3_1_C15_C2_0
        tbnz    x2, #CPUACTLR_DIS_INSTR_PREFETCH_BIT, 0f
        orr     x2, x2, #(1 << CPUACTLR_DIS_INSTR_PREFETCH_BIT)
        msr     S3_1_C15_C2_0, x2
        isb
0:      ret

from_el2:
        // Whether EL2 may write CPUACTLR is the EL3 firmware's choice, and being wrong traps. The
        // Pi's stub allows it; TF-A has set the bit itself, and then it is not written again.
        ldr     x0, =BOARD_CPUACTLR_AT_EL2
        cbz     x0, 0f
        bl      erratum_859971
0:      ldr     x0, =HCR_RW
        msr     hcr_el2, x0
        isb
        mrs     x0, cnthctl_el2
        orr     x0, x0, #3                      // EL1PCTEN, EL1PCEN
        msr     cnthctl_el2, x0
        msr     cntvoff_el2, xzr
        mrs     x0, midr_el1
        msr     vpidr_el2, x0
        mrs     x0, mpidr_el1
        msr     vmpidr_el2, x0
        mov     x0, #0x33FF                     // CPTR_EL2 RES1, no traps
        msr     cptr_el2, x0
        msr     hstr_el2, xzr
        mrs     x1, id_aa64dfr0_el1
        ubfx    x1, x1, #8, #4                  // PMUVer: 0 is none, 15 is one of another kind
        sub     x1, x1, #1
        mov     x0, xzr
        cmp     x1, #14
        b.hs    1f
        mrs     x0, pmcr_el0
        ubfx    x0, x0, #11, #5                 // MDCR_EL2.HPMN = PMCR_EL0.N, no traps
1:      msr     mdcr_el2, x0
        msr     vttbr_el2, xzr
        mrs     x0, id_aa64pfr0_el1
        ubfx    x0, x0, #24, #4
        cbz     x0, 0f
        mov     x0, #0xF
        msr     S3_4_C12_C9_5, x0               // ICC_SRE_EL2
        isb
        mrs     x0, S3_4_C12_C9_5
        tbz     x0, #0, 0f                      // EL3 may have kept the registers from us
        msr     S3_4_C12_C11_0, xzr             // ICH_HCR_EL2
0:      ldr     x0, =SCTLR_RES1
        msr     sctlr_el1, x0
        mov     x0, #SPSR_EL1H_MASKED
        msr     spsr_el2, x0
        msr     elr_el2, x23
        isb
        eret

// Fills the boot tables: the identity map of this page, and the image window with its final
// permissions. The data cache is off, so the tables' lines are dropped before they are written
// (a dirty line left by the loader must not land on them later) and after (a stale clean line
// must not hide them from the table walker).
build_tables:
        mov     x22, x30
        load_address x0, __tables_start
        load_address x1, __tables_end
        bl      invalidate_lines
        mov     x2, x0
0:      stp     xzr, xzr, [x2], #16
        cmp     x2, x1
        b.lo    0b

        // Identity map: root -> level 2 -> level 3 -> this page, read-only and executable.
        load_address x2, BOOT_ID_ROOT
        load_address x3, BOOT_ID_L2
        load_address x4, BOOT_ID_L3
        ubfx    x5, x21, #30, #9
        orr     x6, x3, #DESC_TABLE
        str     x6, [x2, x5, lsl #3]
        ubfx    x5, x21, #LEVEL2_BLOCK_SHIFT, #9
        orr     x6, x4, #DESC_TABLE
        str     x6, [x3, x5, lsl #3]
        ubfx    x5, x21, #12, #9
        ldr     x7, =(DESC_PAGE | DESC_READ_ONLY | (1 << DESC_UXN_BIT))
        orr     x6, x21, x7
        str     x6, [x4, x5, lsl #3]

        // Kernel root: the image window's first 4 MiB through two level 3 tables, side by side.
        load_address x2, KERNEL_ROOT
        load_address x3, IMAGE_L2
        load_address x4, IMAGE_L3
        ldr     x8, =__image_start
        ubfx    x5, x8, #30, #9
        orr     x6, x3, #DESC_TABLE
        str     x6, [x2, x5, lsl #3]
        orr     x6, x4, #DESC_TABLE
        str     x6, [x3]
        add     x6, x6, #PAGE_SIZE
        str     x6, [x3, #8]

        mov     x6, x21                         // physical address being mapped
        load_address x5, __text_end
        bl      map_pages                       // x7 still is read-only, executable
        ldr     x7, =(DESC_PAGE | DESC_READ_ONLY | (1 << DESC_UXN_BIT) | (1 << DESC_PXN_BIT))
        load_address x5, __rodata_end
        bl      map_pages
        ldr     x7, =(DESC_PAGE | (1 << DESC_UXN_BIT) | (1 << DESC_PXN_BIT))
        load_address x5, __rw_end
        bl      map_pages
        // Stacks: per core a guard page and a stack, three times over.
        load_address x9, __stacks_end
1:      cmp     x6, x9
        b.hs    2f
        mov     x11, x6
        ldr     x12, =THREAD_STACK_TOP
        bl      map_stack
        ldr     x12, =EXCEPTION_STACK_TOP
        bl      map_stack
        ldr     x12, =EMERGENCY_STACK_TOP
        bl      map_stack
        b       1b
2:
        load_address x0, __tables_start
        load_address x1, __tables_end
        dsb     sy
        bl      invalidate_lines
        ret     x22

// Maps x6 up to x5 with attributes x7, advancing x6 and the entry pointer x4. Clobbers x10.
map_pages:
0:      cmp     x6, x5
        b.hs    1f
        orr     x10, x6, x7
        str     x10, [x4], #8
        add     x6, x6, #PAGE_SIZE
        b       0b
1:      ret

// Leaves the guard page at x6 unmapped and maps from there up to x11 + x12.
map_stack:
        add     x4, x4, #8
        add     x6, x6, #PAGE_SIZE
        add     x5, x11, x12
        b       map_pages

// DC IVAC of every line in x0..x1, with the line size CTR_EL0 gives. Clobbers x2-x4.
invalidate_lines:
        mrs     x2, ctr_el0
        ubfx    x2, x2, #16, #4                 // DminLine, log2 of words
        mov     x3, #4
        lsl     x3, x3, x2
        sub     x4, x3, #1
        bic     x2, x0, x4
0:      dc      ivac, x2
        add     x2, x2, x3
        cmp     x2, x1
        b.lo    0b
        dsb     sy
        ret

        .balign 8
primary_virtual_address:
        .quad   primary_virtual
secondary_virtual_address:
        .quad   secondary_virtual
        .ltorg

// From here on: MMU and caches on, running at the linked address.
        .section .text.boot, "ax"

// Empties the lower half: no walk of TTBR0_EL1, no entry left in the TLB. Clobbers x0.
.macro  drop_identity_map
        mrs     x0, tcr_el1
        orr     x0, x0, #(1 << TCR_EPD0_BIT)
        msr     tcr_el1, x0
        msr     ttbr0_el1, xzr
        isb
        tlbi    vmalle1
        dsb     nsh
        isb
.endm

// SP_EL1 = exception stack, SP_EL0 = thread stack (in use from here), vectors, per-CPU base.
// The stack sizes and offsets are those of boot.rs's CpuStacks.
// \index: core number. Clobbers x0-x3.
.macro  set_up_core index
        ldr     x0, =vectors
        msr     vbar_el1, x0
        ldr     x0, =PER_CPU_AREAS
        ldr     x1, =PER_CPU_SIZE
        madd    x0, x1, \index, x0
        msr     tpidr_el1, x0
        ldr     x0, =__stacks_start
        ldr     x1, =CPU_STACKS_SIZE
        madd    x0, x1, \index, x0
        ldr     x1, =THREAD_STACK_TOP
        add     x2, x0, x1
        msr     sp_el0, x2
        ldr     x1, =EXCEPTION_STACK_TOP
        add     x2, x0, x1
        mov     sp, x2
        ldr     x1, =EMERGENCY_STACK_TOP
        add     x2, x0, x1
        msr     tpidrro_el0, x2                 // see vectors.s
        msr     spsel, #0
        isb
.endm

primary_virtual:
        drop_identity_map
        mov     x4, xzr
        set_up_core x4
        ldr     x0, =__bss_start
        ldr     x1, =__bss_end
0:      cmp     x0, x1                          // both are multiples of 64
        b.hs    1f
        stp     xzr, xzr, [x0]
        stp     xzr, xzr, [x0, #16]
        stp     xzr, xzr, [x0, #32]
        stp     xzr, xzr, [x0, #48]
        add     x0, x0, #64
        b       0b
1:      mov     x0, x19
        mov     x1, x20
        mov     x2, x21
        mov     x29, xzr
        mov     x30, xzr
        b       primary_main

// SECONDARY_INDEX says which core is being started; they are started one at a time.
secondary_virtual:
        drop_identity_map
        ldr     x0, =SECONDARY_INDEX
        ldr     x4, [x0]
        set_up_core x4
        mov     x0, x4
        mov     x29, xzr
        mov     x30, xzr
        b       secondary_main
        .ltorg

        .section .tables, "aw", %nobits
        .balign PAGE_SIZE
        .global KERNEL_ROOT
KERNEL_ROOT:    .skip PAGE_SIZE
IMAGE_L2:       .skip PAGE_SIZE
IMAGE_L3:       .skip 2 * PAGE_SIZE
BOOT_ID_ROOT:   .skip PAGE_SIZE
BOOT_ID_L2:     .skip PAGE_SIZE
BOOT_ID_L3:     .skip PAGE_SIZE

// The release word has a cache line of its own: parked cores read it with the cache off while
// core 0 writes and cleans it. Loaded (not zeroed by us), so that no core reads garbage before
// core 0 is up.
        .section .data.park, "aw"
        .balign 128
        .global PARK_RELEASE
PARK_RELEASE:   .quad 0
        .balign 128
