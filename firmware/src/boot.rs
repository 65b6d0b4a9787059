//! From the boot assembly to a machine with its address space, interrupts and cores up.

use core::arch::global_asm;
use core::cell::UnsafeCell;
use core::mem::{MaybeUninit, offset_of, size_of};
use core::ops::Range;
use hal::addr::{PAGE_SIZE, VirtAddr};
use hal::sync::{MAX_CPUS, PerCpu};

const THREAD_STACK_SIZE: usize = 64 << 10;
const EXCEPTION_STACK_SIZE: usize = 16 << 10;
const EMERGENCY_STACK_SIZE: usize = 8 << 10;

/// A core's three stacks, a page that is never mapped below each.
#[repr(C, align(4096))]
struct CpuStacks {
    thread_guard: [u8; PAGE_SIZE],
    thread: [u8; THREAD_STACK_SIZE],
    exception_guard: [u8; PAGE_SIZE],
    exception: [u8; EXCEPTION_STACK_SIZE],
    emergency_guard: [u8; PAGE_SIZE],
    emergency: [u8; EMERGENCY_STACK_SIZE],
}

#[repr(transparent)]
struct Stacks(UnsafeCell<MaybeUninit<[CpuStacks; MAX_CPUS]>>);

// SAFETY: only the cores' stack pointers refer to it.
unsafe impl Sync for Stacks {}

#[used]
#[unsafe(link_section = ".stacks")]
static STACKS: Stacks = Stacks(UnsafeCell::new(MaybeUninit::uninit()));

global_asm!(
    ".set PER_CPU_SIZE, {per_cpu}",
    ".set CPU_STACKS_SIZE, {stacks}",
    ".set THREAD_STACK_TOP, {thread}",
    ".set EXCEPTION_STACK_TOP, {exception}",
    ".set EMERGENCY_STACK_TOP, {emergency}",
    include_str!("boot/entry.s"),
    include_str!("boot/vectors.s"),
    per_cpu = const size_of::<PerCpu>(),
    stacks = const size_of::<CpuStacks>(),
    thread = const offset_of!(CpuStacks, thread) + THREAD_STACK_SIZE,
    exception = const offset_of!(CpuStacks, exception) + EXCEPTION_STACK_SIZE,
    emergency = const offset_of!(CpuStacks, emergency) + EMERGENCY_STACK_SIZE,
);

/// The usable parts of all cores' stacks, guard pages left out.
pub fn stacks() -> [Range<VirtAddr>; 3 * MAX_CPUS] {
    let base = VirtAddr::from_ptr(&raw const STACKS);
    core::array::from_fn(|index| {
        let core = base + (index / 3) * size_of::<CpuStacks>();
        let (offset, size) = match index % 3 {
            0 => (offset_of!(CpuStacks, thread), THREAD_STACK_SIZE),
            1 => (offset_of!(CpuStacks, exception), EXCEPTION_STACK_SIZE),
            _ => (offset_of!(CpuStacks, emergency), EMERGENCY_STACK_SIZE),
        };
        core + offset..core + (offset + size)
    })
}

unsafe extern "C" {
    static __image_start: [u8; 0];
    fn __secondary_entry();
}
