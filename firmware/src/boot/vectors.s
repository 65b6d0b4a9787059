// Exception vectors (Arm ARM D1.3.1.4).
//
// Ordinary code runs on SP_EL0, handlers on SP_EL1, so an overflowing thread stack faults onto a
// good stack by itself. An exception taken inside a handler is always fatal; it is reported on the
// core's emergency stack, whose top TPIDRRO_EL0 holds (there is no EL0 that could want it) until
// it is used. A further one stops the core.
//
// The frame is hal::arch::exception::ExceptionFrame.

.equ    FRAME_SIZE,     288
.equ    FRAME_SP,       31 * 8
.equ    FRAME_ELR,      32 * 8
.equ    FRAME_ESR,      34 * 8

// x0..x3 are saved; the rest of the frame is filled in.
.macro  save_rest
        stp     x4, x5, [sp, #4 * 8]
        stp     x6, x7, [sp, #6 * 8]
        stp     x8, x9, [sp, #8 * 8]
        stp     x10, x11, [sp, #10 * 8]
        stp     x12, x13, [sp, #12 * 8]
        stp     x14, x15, [sp, #14 * 8]
        stp     x16, x17, [sp, #16 * 8]
        stp     x18, x19, [sp, #18 * 8]
        stp     x20, x21, [sp, #20 * 8]
        stp     x22, x23, [sp, #22 * 8]
        stp     x24, x25, [sp, #24 * 8]
        stp     x26, x27, [sp, #26 * 8]
        stp     x28, x29, [sp, #28 * 8]
        str     x30, [sp, #30 * 8]
        mrs     x0, elr_el1
        mrs     x1, spsr_el1
        stp     x0, x1, [sp, #FRAME_ELR]
        mrs     x2, esr_el1
        mrs     x3, far_el1
        stp     x2, x3, [sp, #FRAME_ESR]
.endm

.macro  from_thread handler
        .balign 0x80
        sub     sp, sp, #FRAME_SIZE
        stp     x0, x1, [sp]
        stp     x2, x3, [sp, #2 * 8]
        mrs     x0, sp_el0
        str     x0, [sp, #FRAME_SP]
        save_rest
        mov     x0, sp
        bl      \handler
        b       exception_return
.endm

.macro  from_handler kind
        .balign 0x80
        msr     tpidr_el0, x0
        mov     x0, #\kind
        b       nested_exception
.endm

.macro  from_lower kind
        .balign 0x80
        b       .                               // there is no lower exception level
.endm

        .section .text.vectors, "ax"
        .balign 0x800
        .global vectors
vectors:
        from_thread exception_sync
        from_thread exception_irq
        from_thread exception_fiq
        from_thread exception_serror
        from_handler 0
        from_handler 1
        from_handler 2
        from_handler 3
        from_lower 0
        from_lower 1
        from_lower 2
        from_lower 3
        from_lower 0
        from_lower 1
        from_lower 2
        from_lower 3

exception_return:
        ldp     x0, x1, [sp, #FRAME_ELR]
        msr     elr_el1, x0
        msr     spsr_el1, x1
        ldp     x2, x3, [sp, #2 * 8]
        ldp     x4, x5, [sp, #4 * 8]
        ldp     x6, x7, [sp, #6 * 8]
        ldp     x8, x9, [sp, #8 * 8]
        ldp     x10, x11, [sp, #10 * 8]
        ldp     x12, x13, [sp, #12 * 8]
        ldp     x14, x15, [sp, #14 * 8]
        ldp     x16, x17, [sp, #16 * 8]
        ldp     x18, x19, [sp, #18 * 8]
        ldp     x20, x21, [sp, #20 * 8]
        ldp     x22, x23, [sp, #22 * 8]
        ldp     x24, x25, [sp, #24 * 8]
        ldp     x26, x27, [sp, #26 * 8]
        ldp     x28, x29, [sp, #28 * 8]
        ldr     x30, [sp, #30 * 8]
        ldp     x0, x1, [sp]
        add     sp, sp, #FRAME_SIZE
        eret

// TPIDR_EL0 = the interrupted x0, x0 = kind of exception.
nested_exception:
        msr     contextidr_el1, x0              // ASIDs are not used: a free register
        mrs     x0, tpidrro_el0
        cbz     x0, 1f
        sub     x0, x0, #FRAME_SIZE
        stp     x2, x3, [x0, #2 * 8]
        str     x1, [x0, #1 * 8]
        mov     x1, sp
        str     x1, [x0, #FRAME_SP]
        mov     sp, x0
        mrs     x1, tpidr_el0
        str     x1, [sp]
        msr     tpidrro_el0, xzr
        save_rest
        mov     x0, sp
        mrs     x1, contextidr_el1
        bl      exception_nested
1:      wfe
        b       1b
