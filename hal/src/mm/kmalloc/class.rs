//! Size classes: four to each doubling, all multiples of the cache line.
//!
//! ```text
//! 64 128 192 256 | 320 384 448 512 | 640 768 896 1024 | ... | 5120 6144 7168 8192
//! ```

/// Bytes the size classes are multiples of: the largest cache line and writeback granule of the
/// cores supported without bouncing (`CTR_EL0.CWG`; 64 on a Cortex-A72).
pub const DMA_ALIGN: usize = 64;

/// Largest size served from a class; larger requests take whole blocks of pages.
pub const MAX_CLASS_SIZE: usize = 8192;

/// Classes to a doubling.
const STEPS: usize = 4;

/// log2 of [`STEPS`].
const STEP_SHIFT: u32 = STEPS.ilog2();

/// log2 of the size up to which the classes are one [`DMA_ALIGN`] apart.
const LINEAR_SHIFT: u32 = (DMA_ALIGN * STEPS).ilog2();

/// Number of classes.
pub const CLASSES: usize = STEPS * (1 + (MAX_CLASS_SIZE.ilog2() - LINEAR_SHIFT) as usize);

/// The smallest class that holds `size` bytes, for sizes of 1 to [`MAX_CLASS_SIZE`].
///
/// With a constant size the compiler evaluates it.
#[inline(always)]
pub const fn class_of(size: usize) -> usize {
    let last = size - 1;
    if last < 1 << LINEAR_SHIFT {
        return last / DMA_ALIGN;
    }
    let shift = last.ilog2();
    let step = last >> (shift - STEP_SHIFT) & (STEPS - 1);
    STEPS + (shift - LINEAR_SHIFT) as usize * STEPS + step
}

/// The size of the objects of `class`, in bytes.
#[inline(always)]
pub const fn class_size(class: usize) -> usize {
    if class < STEPS {
        return (class + 1) * DMA_ALIGN;
    }
    let shift = LINEAR_SHIFT + (class / STEPS) as u32 - 1;
    (1 << shift) + ((class % STEPS + 1) << (shift - STEP_SHIFT))
}

/// The alignment of the objects of `class`: the largest power of two that divides its size, which
/// is Linux's promise for `kmalloc`.
pub const fn class_align(class: usize) -> usize {
    let size = class_size(class);
    let align = 1 << size.trailing_zeros();
    if align > crate::addr::PAGE_SIZE {
        crate::addr::PAGE_SIZE
    } else {
        align
    }
}

const _: () = assert!(class_size(CLASSES - 1) == MAX_CLASS_SIZE);

#[cfg(test)]
mod tests {
    use super::*;

    const SIZES: [usize; 24] = [
        64, 128, 192, 256, 320, 384, 448, 512, 640, 768, 896, 1024, 1280, 1536, 1792, 2048, 2560,
        3072, 3584, 4096, 5120, 6144, 7168, 8192,
    ];

    #[test]
    fn classes_are_the_listed_ones() {
        assert_eq!(CLASSES, SIZES.len());
        for (class, size) in SIZES.into_iter().enumerate() {
            assert_eq!(class_size(class), size);
        }
    }

    #[test]
    fn every_size_gets_the_smallest_class_that_holds_it() {
        for size in 1..=8192 {
            let expected = SIZES.iter().position(|class| *class >= size);
            assert_eq!(Some(class_of(size)), expected, "{size}");
        }
        const AT_COMPILE_TIME: usize = class_of(100);
        assert_eq!(AT_COMPILE_TIME, 1);
    }

    #[test]
    fn waste_of_uniform_sizes_is_at_most_9_percent() {
        let asked: usize = (1..=8192).sum();
        let given: usize = (1..=8192).map(|size| class_size(class_of(size))).sum();
        assert!((given - asked) * 100 <= given * 9, "{asked} of {given}");
    }
}
