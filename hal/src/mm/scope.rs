//! Scopes: what a task asks for all allocations made while it does something.
//!
//! A driver that holds what a shrinker may need (a queue that I/O goes through, a file system's
//! journal) opens a scope instead of passing flags down through everything it calls. Scopes nest,
//! end when their guard is dropped, and apply to the task of one core: an interrupt handler that
//! comes in between is not bound by them.

use super::Gfp;
use crate::sync::PerCpu;
use core::cell::Cell;
use core::marker::PhantomData;

/// A scope that lasts until it is dropped, on the core it was opened on.
///
/// ```compile_fail,E0277
/// fn is_send<T: Send>(_: T) {}
/// is_send(hal::mm::memalloc_noio());
/// ```
#[derive(Debug)]
#[must_use = "the scope ends when the guard is dropped"]
pub struct Scope {
    depth: &'static Cell<u32>,
    stays_on_its_core: PhantomData<*mut ()>,
}

impl Scope {
    fn enter(depth: &'static Cell<u32>) -> Self {
        depth.set(depth.get() + 1);
        Self {
            depth,
            stays_on_its_core: PhantomData,
        }
    }
}

impl Drop for Scope {
    fn drop(&mut self) {
        self.depth.set(self.depth.get() - 1);
    }
}

/// Reclaim for this task starts no I/O until the scope ends: every request counts as
/// [`Gfp::NOIO`]. Task context.
#[doc(alias = "memalloc_noio_save")]
pub fn memalloc_noio() -> Scope {
    Scope::enter(&PerCpu::current().scopes().noio)
}

/// Reclaim for this task does not enter file systems until the scope ends: every request counts
/// as [`Gfp::NOFS`] at most. Task context.
#[doc(alias = "memalloc_nofs_save")]
pub fn memalloc_nofs() -> Scope {
    Scope::enter(&PerCpu::current().scopes().nofs)
}

/// This task frees memory until the scope ends: its requests do not reclaim, and no watermark
/// stops them unless they have [`Gfp::NOMEMALLOC`]. Task context.
///
/// Reclaim opens one around every shrinker, so that it is never entered from itself.
#[doc(alias = "memalloc_noreclaim_save")]
#[doc(alias = "PF_MEMALLOC")]
pub fn memalloc_noreclaim() -> Scope {
    Scope::enter(&PerCpu::current().scopes().noreclaim)
}

/// The core does nothing but this task's own work until the scope ends: neither functions that
/// other cores hand to it nor work put off. Task context.
///
/// For a task that holds what such work may want, and could not wait for.
pub(crate) fn alone() -> Scope {
    Scope::enter(&PerCpu::current().scopes().alone)
}

/// What a request with `gfp` may do here: its flags, less what the open scopes take away.
#[doc(alias = "current_gfp_context")]
pub fn rights(gfp: Gfp) -> Gfp {
    let Some(scopes) = PerCpu::current().task_scopes() else {
        return gfp;
    };
    let mut rights = gfp;
    if scopes.noio.get() != 0 {
        rights.remove(Gfp::IO | Gfp::FS);
    } else if scopes.nofs.get() != 0 {
        rights.remove(Gfp::FS);
    }
    if scopes.noreclaim.get() != 0 {
        rights.remove(Gfp::DIRECT_RECLAIM);
        rights.insert(Gfp::MEMALLOC);
    }
    rights
}

/// Whether a request with `gfp` in this task may be held up by work of any kind: the work may need
/// what the flags or a scope have asked reclaim to leave alone.
pub(super) fn admits_any_work(gfp: Gfp) -> bool {
    rights(gfp).contains(Gfp::DIRECT_RECLAIM | Gfp::IO | Gfp::FS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scopes_nest_and_end_in_any_order() {
        assert_eq!(rights(Gfp::KERNEL), Gfp::KERNEL);
        let (outer, inner) = (memalloc_nofs(), memalloc_nofs());
        assert_eq!(rights(Gfp::KERNEL), Gfp::NOFS);
        let noio = memalloc_noio();
        assert_eq!(rights(Gfp::KERNEL), Gfp::NOIO);
        drop(outer);
        drop(noio);
        assert_eq!(rights(Gfp::KERNEL), Gfp::NOFS);
        drop(inner);
        assert_eq!(rights(Gfp::KERNEL), Gfp::KERNEL);
    }

    #[test]
    fn a_task_that_frees_memory_may_use_all_of_it_and_reclaims_nothing() {
        let scope = memalloc_noreclaim();
        let found = rights(Gfp::KERNEL);
        assert!(found.contains(Gfp::MEMALLOC) && !found.may_block());
        drop(scope);
        assert_eq!(rights(Gfp::KERNEL), Gfp::KERNEL);
    }

    #[test]
    fn what_runs_meanwhile_is_not_bound_by_the_tasks_scopes() {
        let scopes = [memalloc_noio(), memalloc_nofs(), memalloc_noreclaim()];
        let scopes_now = PerCpu::current().scopes();
        let found = scopes_now.outside(|| {
            let own = memalloc_nofs();
            let inside = rights(Gfp::KERNEL);
            drop(own);
            (rights(Gfp::KERNEL), inside)
        });
        assert_eq!(found, Some((Gfp::KERNEL, Gfp::NOFS)));
        assert!(rights(Gfp::NOIO).contains(Gfp::MEMALLOC));
        let alone = alone();
        assert_eq!(scopes_now.outside(|| ()), None);
        drop(alone);
        drop(scopes);
        assert_eq!(rights(Gfp::KERNEL), Gfp::KERNEL);
    }

    #[test]
    fn an_interrupt_handler_is_not_bound_by_the_tasks_scopes() {
        let _scope = memalloc_noio();
        PerCpu::current().irq_entered();
        let found = rights(Gfp::ATOMIC | Gfp::IO);
        PerCpu::current().irq_left();
        assert_eq!(found, Gfp::ATOMIC | Gfp::IO);
    }
}
