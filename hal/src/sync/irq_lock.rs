//! A spin lock that masks IRQs on its core while held.

#![expect(
    clippy::disallowed_types,
    reason = "the one place that masks IRQs around a raw lock"
)]

use super::PerCpu;
use crate::arch::cpu;
use core::marker::PhantomData;
use core::ops::{Deref, DerefMut};
use spin::mutex::{SpinMutex, SpinMutexGuard};

/// A spin lock that may be taken from tasks and from interrupt handlers.
///
/// Taking it masks IRQs on this core and counts the lock as held ([`PerCpu::locks_held`]), which
/// is what makes a blocking allocation inside diagnosable.
///
/// The lock word is an atomic: the lock must lie in Normal write-back memory, never in the
/// coherent window or in device memory, and must not be taken before the MMU and caches are on.
///
/// Order, outermost first: kernel tables, vmalloc areas, ioremap areas, claims of device registers,
/// coherent runs, DMA pool, contiguous memory areas, owners of movable memory, movable slots,
/// registry of slab caches, slab cache, zone, shrinkers, owners, coherent pool, bounce pool, rate limit
/// of failure reports, DMA engine, interrupt handlers, interrupt controller, DMA debug, console.
/// A core holding one takes only locks further down the list.
#[derive(Debug, Default)]
pub struct IrqLock<T> {
    inner: SpinMutex<T>,
}

impl<T> IrqLock<T> {
    /// An unlocked lock around `value`.
    pub const fn new(value: T) -> Self {
        Self {
            inner: SpinMutex::new(value),
        }
    }

    /// Masks IRQs, then spins until the lock is free.
    #[inline]
    pub fn lock(&self) -> IrqLockGuard<'_, T> {
        let irq = cpu::irq_save();
        PerCpu::current().lock_taken(irq);
        IrqLockGuard::new(self.inner.lock())
    }

    /// Takes the lock if it is free. IRQs are masked only if it was.
    #[inline]
    pub fn try_lock(&self) -> Option<IrqLockGuard<'_, T>> {
        let irq = cpu::irq_save();
        match self.inner.try_lock() {
            Some(inner) => {
                PerCpu::current().lock_taken(irq);
                Some(IrqLockGuard::new(inner))
            }
            None => {
                cpu::irq_restore(irq);
                None
            }
        }
    }

    /// The protected value, without locking: the borrow proves that nobody holds it.
    pub fn get_mut(&mut self) -> &mut T {
        self.inner.get_mut()
    }
}

/// Access to what an [`IrqLock`] protects; releases the lock when dropped. IRQs come back with the
/// last guard of a core, in whatever order they are dropped.
///
/// A guard stays on its core, whose IRQs it keeps masked:
///
/// ```compile_fail,E0277
/// # use hal::sync::IrqLock;
/// fn is_send<T: Send>(_: T) {}
/// is_send(IrqLock::new(()).lock());
/// ```
#[derive(Debug)]
pub struct IrqLockGuard<'a, T> {
    /// `Some` until `drop`, which must release the lock before it unmasks IRQs.
    inner: Option<SpinMutexGuard<'a, T>>,
    stays_on_its_core: PhantomData<*mut ()>,
}

impl<'a, T> IrqLockGuard<'a, T> {
    #[inline]
    const fn new(inner: SpinMutexGuard<'a, T>) -> Self {
        Self {
            inner: Some(inner),
            stays_on_its_core: PhantomData,
        }
    }
}

impl<T> Deref for IrqLockGuard<'_, T> {
    type Target = T;

    #[inline]
    fn deref(&self) -> &T {
        match &self.inner {
            Some(inner) => inner,
            None => unreachable!("the guard is emptied by drop only"),
        }
    }
}

impl<T> DerefMut for IrqLockGuard<'_, T> {
    #[inline]
    fn deref_mut(&mut self) -> &mut T {
        match &mut self.inner {
            Some(inner) => inner,
            None => unreachable!("the guard is emptied by drop only"),
        }
    }
}

impl<T> Drop for IrqLockGuard<'_, T> {
    #[inline]
    fn drop(&mut self) {
        self.inner = None;
        PerCpu::current().lock_released();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn irqs_are_masked_exactly_while_held() {
        let lock = IrqLock::new(1);
        assert!(!cpu::irqs_masked());
        {
            let mut outer = lock.lock();
            *outer += 1;
            assert!(cpu::irqs_masked());
            assert_eq!(PerCpu::current().locks_held(), 1);
            assert!(lock.try_lock().is_none());
            assert!(cpu::irqs_masked());
        }
        assert!(!cpu::irqs_masked());
        assert_eq!(PerCpu::current().locks_held(), 0);
        assert_eq!(*lock.lock(), 2);
    }

    #[test]
    fn irqs_come_back_with_the_last_lock_in_any_order() {
        let (a, b) = (IrqLock::new(()), IrqLock::new(()));
        let (first, second) = (a.lock(), b.lock());
        drop(first);
        assert!(cpu::irqs_masked());
        drop(second);
        assert!(!cpu::irqs_masked());
    }

    #[test]
    fn nested_locks_unmask_at_the_outermost_release() {
        let (a, b) = (IrqLock::new(()), IrqLock::new(()));
        let outer = a.lock();
        drop(b.lock());
        assert!(cpu::irqs_masked());
        drop(outer);
        assert!(!cpu::irqs_masked());
    }
}
