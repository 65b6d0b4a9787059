//! From the boot assembly to a machine with its address space, interrupts and cores up.

mod cma;
pub mod image;
pub mod memory;
pub mod secondary;

use core::arch::global_asm;
use core::cell::UnsafeCell;
use core::mem::{MaybeUninit, offset_of, size_of};
use core::ops::Range;
use hal::addr::{PAGE_SIZE, PhysRange, VirtAddr};
use hal::layout::IMAGE;
use hal::mmu::{KernelMapper, KernelTableMemory};
use hal::sync::{MAX_CPUS, PerCpu};
use image::Image;

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
    per_cpu = const PerCpu::STRIDE,
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

/// Tables that the address space needs before there is a page allocator: those of the direct map,
/// the coherent and early windows, and the frame descriptors of a machine with RAM in a few pieces.
const RESERVED_TABLES: usize = 32;

#[repr(C, align(4096))]
struct TableReserve(UnsafeCell<MaybeUninit<[[u8; PAGE_SIZE]; RESERVED_TABLES]>>);

// SAFETY: the mapper of the kernel's tables is the only user.
unsafe impl Sync for TableReserve {}

#[unsafe(link_section = ".uninit")]
static TABLE_RESERVE: TableReserve = TableReserve(UnsafeCell::new(MaybeUninit::uninit()));

/// The mapper of the tables the boot assembly left, to be made once.
pub(crate) fn kernel_mapper(image: &Image) -> KernelMapper {
    let start = image.phys(VirtAddr::from_ptr(&raw const TABLE_RESERVE));
    let reserve = PhysRange::new(start, start + size_of::<TableReserve>());
    // SAFETY: the reserve is part of the image, page aligned, mapped Normal write-back by the boot
    // assembly, and used by nobody else; the image is mapped at the image window's start.
    let memory = unsafe { KernelTableMemory::new(image.frames(), IMAGE.base, reserve) };
    // SAFETY: the root and the tables it leads to are the boot assembly's, in the image; nobody
    // else changes them from here on.
    unsafe { KernelMapper::new(image.root_table(), memory) }
}
