// Asks a virtio entropy device for 256 bytes and adds them up. One core, EL1, MMU and caches on.
//
//      -device virtio-rng-device       in the last of virt's 32 transports, of either version
//
// The queue is in uncached memory. The buffer, and the indirect table that describes it, are in cached
// memory: they are cleaned before the device has them, and the buffer is invalidated when it is done.
//
// Each of these symbols, if it is defined, makes one thing wrong:
//
//      TABLE_NOT_CLEANED               the device may read an old descriptor
//      BUFFER_NOT_CLEANED              a line may be written back over its bytes
//      NO_BARRIER_AFTER_CLEAN          the cleaning may go on after the doorbell
//      NO_BARRIER_AFTER_STORES         the doorbell may overtake the index of the ring
//      BUFFER_OUTSIDE                  the buffer is behind the end of RAM
//      BUFFER_TOUCHED                  the buffer is looked at while the device has it
//      BUFFER_NOT_INVALIDATED          it is read from lines that are older than the bytes
//      BUFFER_INVALIDATED_TOO_EARLY    so it may be: before the end is not enough
//      NEIGHBOUR_DESTROYED             a variable in the buffer's last line is lost with it

        .equ    RAM,            0x40000000
        .equ    QUEUE,          0x40400000      // uncached: the third block of 2 MiB
        .equ    UART,           0x09000000      // PL011
        .equ    TRANSPORT,      0x0A003E00      // virtio-mmio number 31

        // Registers of a transport (Virtual I/O Device 1.2, 4.2.2).
        .equ    MAGIC,          0x000
        .equ    VERSION,        0x004
        .equ    DEVICE_ID,      0x008
        .equ    FEATURES,       0x020
        .equ    FEATURES_SELECT, 0x024
        .equ    QUEUE_SELECT,   0x030
        .equ    QUEUE_NUMBER,   0x038
        .equ    QUEUE_NOTIFY,   0x050
        .equ    STATUS,         0x070
        // Of version 1 (4.2.4).
        .equ    PAGE_SIZE,      0x028
        .equ    QUEUE_ALIGN,    0x03C
        .equ    QUEUE_PAGE,     0x040
        // Of version 2.
        .equ    QUEUE_READY,    0x044
        .equ    QUEUE_TABLE,    0x080
        .equ    QUEUE_AVAILABLE, 0x090
        .equ    QUEUE_USED,     0x0A0

        .equ    MAGIC_VALUE,    0x74726976
        .equ    LEGACY,         1
        .equ    ENTROPY,        4

        .equ    STARTED,        3               // ACKNOWLEDGE, DRIVER
        .equ    FEATURES_OK,    8
        .equ    DRIVER_OK,      4
        .equ    INDIRECT_TABLES, 1 << 28        // of the first 32 features
        .equ    VERSION_1,      1 << 0          // of the second

        .equ    WRITTEN,        2               // a buffer that the device writes
        .equ    INDIRECT,       4               // a buffer that is a table

        .equ    ENTRIES,        8
        .equ    AVAILABLE,      QUEUE + 16 * ENTRIES
        .equ    USED,           QUEUE + 4096
        .equ    LENGTH,         256
        .equ    LINE,           64
        .equ    DESCRIPTOR,     16
        .equ    POLLS,          1 << 24         // of a device that does not answer

        .ifdef  NEIGHBOUR_DESTROYED
        .equ    LENT,           LENGTH - 8      // the rest is the neighbour
        .else
        .equ    LENT,           LENGTH
        .endif

        // Attributes of MAIR_EL1: 0 write-back, 1 non-cacheable, 2 Device-nGnRE.
        .equ    MAIR,           0x0444FF
        // Blocks: access flag, inner shareable, not from EL0; which attribute; execute never.
        .equ    BLOCK,          0x701
        .equ    UNCACHED,       1 << 2
        .equ    DEVICE,         2 << 2
        .equ    TABLE,          3
        // TCR_EL1: 39 bits of address, 4 KiB pages, walks cacheable and inner shareable, no TTBR1.
        .equ    TCR,            25 | 1 << 8 | 1 << 10 | 3 << 12 | 1 << 23 | 2 << 32

        .section .text.start, "ax"
        .global _start
        .type   _start, @function
_start:
        adrp    x0, stack_top
        mov     sp, x0

        // Level 1: the first GiB is devices; of the second a table of blocks.
        adrp    x1, level1
        mov     x2, #(BLOCK | DEVICE)
        movk    x2, #0x0060, lsl #48            // execute never
        str     x2, [x1]
        adrp    x3, level2
        orr     x4, x3, #TABLE
        str     x4, [x1, #8]

        // Level 2: 16 MiB of write-back memory, the third block uncached.
        mov     x5, #RAM
        mov     x6, #0
        mov     x8, #BLOCK
1:      orr     x7, x5, x8
        cmp     x6, #2
        b.ne    2f
        orr     x7, x7, #UNCACHED
2:      str     x7, [x3, x6, lsl #3]
        add     x5, x5, #0x200000
        add     x6, x6, #1
        cmp     x6, #8
        b.ne    1b

        // The tables were written with the caches off, so memory has them.
        dsb     sy
        ldr     x0, =MAIR
        msr     mair_el1, x0
        ldr     x0, =TCR
        msr     tcr_el1, x0
        msr     ttbr0_el1, x1
        tlbi    vmalle1
        ic      iallu
        dsb     sy
        isb
        mrs     x0, sctlr_el1
        orr     x0, x0, #(1 << 0)               // M
        orr     x0, x0, #(1 << 2)               // C
        orr     x0, x0, #(1 << 12)              // I
        msr     sctlr_el1, x0
        isb

        ldr     x20, =TRANSPORT
        ldr     w0, [x20, #MAGIC]
        ldr     w1, =MAGIC_VALUE
        cmp     w0, w1
        b.ne    no_device
        ldr     w0, [x20, #DEVICE_ID]
        cmp     w0, #ENTROPY
        b.ne    no_device

        bl      set_up
        bl      fill
        bl      request
        .ifdef  BUFFER_TOUCHED
        bl      touch
        .endif
        bl      wait
        bl      take
        bl      sum
        cbz     w0, no_bytes
        adr     x0, said_done
        bl      print
        b       off

no_device:
        adr     x0, said_no_device
        bl      print
        b       off
no_bytes:
        adr     x0, said_no_bytes
        bl      print
off:
        ldr     x0, =0x84000008                 // PSCI SYSTEM_OFF
        hvc     #0
3:      wfi
        b       3b
        .size   _start, . - _start

// Acknowledges the device and gives it a queue.
        .type   set_up, @function
set_up:
        str     wzr, [x20, #STATUS]
        mov     w0, #STARTED
        str     w0, [x20, #STATUS]
        str     wzr, [x20, #FEATURES_SELECT]
        mov     w1, #INDIRECT_TABLES
        str     w1, [x20, #FEATURES]
        str     wzr, [x20, #QUEUE_SELECT]
        mov     w1, #ENTRIES
        str     w1, [x20, #QUEUE_NUMBER]
        // The queue starts as zeros.
        ldr     x2, =QUEUE
        mov     x3, #(2 * 4096)
4:      str     xzr, [x2], #8
        subs    x3, x3, #8
        b.ne    4b
        dsb     sy
        ldr     w1, [x20, #VERSION]
        cmp     w1, #LEGACY
        b.ne    12f

        mov     w1, #4096
        str     w1, [x20, #PAGE_SIZE]
        str     w1, [x20, #QUEUE_ALIGN]
        ldr     x2, =(QUEUE >> 12)
        str     w2, [x20, #QUEUE_PAGE]
        b       13f

12:     mov     w1, #1
        str     w1, [x20, #FEATURES_SELECT]
        mov     w1, #VERSION_1
        str     w1, [x20, #FEATURES]
        orr     w0, w0, #FEATURES_OK
        str     w0, [x20, #STATUS]
        // The halves above are zeros, as all of it is below 4 GiB.
        ldr     x2, =QUEUE
        str     w2, [x20, #QUEUE_TABLE]
        ldr     x2, =AVAILABLE
        str     w2, [x20, #QUEUE_AVAILABLE]
        ldr     x2, =USED
        str     w2, [x20, #QUEUE_USED]
        mov     w1, #1
        str     w1, [x20, #QUEUE_READY]

13:     orr     w0, w0, #DRIVER_OK
        str     w0, [x20, #STATUS]
        ret
        .size   set_up, . - set_up

// Stores to the buffer, and so has it in the cache.
        .type   fill, @function
fill:
        adrp    x0, buffer
        mov     x1, #LENGTH
5:      str     xzr, [x0], #8
        subs    x1, x1, #8
        b.ne    5b
        ret
        .size   fill, . - fill

// Hands the buffer to the device.
        .type   request, @function
request:
        adrp    x0, buffer
        adrp    x9, table
        .ifdef  BUFFER_OUTSIDE
        mov     x2, #0x100000000
        str     x2, [x9]                        // address
        .else
        str     x0, [x9]                        // address
        .endif
        mov     w4, #LENT
        str     w4, [x9, #8]
        mov     w4, #WRITTEN                    // no next one
        str     w4, [x9, #12]
        .ifndef TABLE_NOT_CLEANED
        dc      cvac, x9
        .endif

        .ifndef BUFFER_NOT_CLEANED
        mov     x1, #(LENGTH / LINE)
        mov     x2, x0
6:      dc      cvac, x2
        .ifdef  BUFFER_INVALIDATED_TOO_EARLY
        dc      ivac, x2
        .endif
        add     x2, x2, #LINE
        subs    x1, x1, #1
        b.ne    6b
        .endif
        .ifndef NO_BARRIER_AFTER_CLEAN
        dsb     sy
        .endif

        ldr     x3, =QUEUE                      // descriptor 0
        str     x9, [x3]                        // address
        mov     w4, #DESCRIPTOR
        str     w4, [x3, #8]
        mov     w4, #INDIRECT
        str     w4, [x3, #12]
        ldr     x5, =AVAILABLE
        strh    wzr, [x5, #4]                   // the first entry: descriptor 0
        dmb     oshst
        mov     w4, #1
        strh    w4, [x5, #2]                    // so many entries
        .ifndef NO_BARRIER_AFTER_STORES
        dmb     oshst
        .endif
        str     wzr, [x20, #QUEUE_NOTIFY]
        ret
        .size   request, . - request

        .ifdef  BUFFER_TOUCHED
// Looks whether something has come, which is too early to say.
        .type   touch, @function
touch:
        adrp    x0, buffer
        ldrb    w0, [x0]
        ret
        .size   touch, . - touch
        .endif

// Waits until the device has used the descriptor.
        .type   wait, @function
wait:
        ldr     x0, =USED
        mov     w2, #POLLS
7:      ldrh    w1, [x0, #2]
        cbnz    w1, 14f
        subs    w2, w2, #1
        b.ne    7b
14:     dmb     oshld
        ret
        .size   wait, . - wait

// Takes the buffer back.
        .type   take, @function
take:
        adrp    x0, buffer
        .ifdef  NEIGHBOUR_DESTROYED
        str     x0, [x0, #LENT]
        .endif
        .ifndef BUFFER_NOT_INVALIDATED
        .ifndef BUFFER_INVALIDATED_TOO_EARLY
        mov     x1, #(LENGTH / LINE)
8:      dc      ivac, x0
        add     x0, x0, #LINE
        subs    x1, x1, #1
        b.ne    8b
        .endif
        .endif
        dsb     sy
        ret
        .size   take, . - take

// Adds the bytes up. On silicon it may find zeros where an invalidate is missing.
        .type   sum, @function
sum:
        adrp    x1, buffer
        mov     x2, #LENGTH
        mov     w0, #0
9:      ldrb    w3, [x1], #1
        add     w0, w0, w3
        subs    x2, x2, #1
        b.ne    9b
        ret
        .size   sum, . - sum

// Prints the string at x0.
        .type   print, @function
print:
        ldr     x1, =UART
10:     ldrb    w2, [x0], #1
        cbz     w2, 11f
        str     w2, [x1]
        b       10b
11:     ret
        .size   print, . - print

        .ltorg
said_done:
        .asciz  "bytes came\n"
said_no_device:
        .asciz  "no virtio-rng-device\n"
said_no_bytes:
        .asciz  "no bytes came\n"

        .section .bss, "aw", @nobits
        .balign 4096
level1: .space  4096
level2: .space  4096
buffer: .space  LENGTH
        .balign 4096
table:  .space  LINE
        .balign 4096
        .space  4096
stack_top:
