//! Frames for the tests, and what watches over them.

use super::super::*;
use crate::addr::PhysRange;
use crate::arch::trace::{Op, recorded};
use crate::layout;
use crate::mm::FrameError;
use crate::mmu::kernel::scratch_mapper;
use std::collections::BTreeMap;
use std::sync::Mutex;

pub(super) const MAX_ORDER: u32 = 10;

/// What the TLBs of all cores hold at worst: every page there ever was, until its invalidation.
#[derive(Default)]
pub(super) struct Tlb {
    frames: BTreeMap<VirtAddr, Pfn>,
    pages: BTreeMap<Pfn, VirtAddr>,
    /// Recorded instructions that have had their effect.
    seen: usize,
}

impl Tlb {
    /// Lets the instructions recorded meanwhile have their effect.
    fn catch_up(&mut self) {
        let ops = recorded(self.seen);
        self.seen += ops.len();
        for op in ops {
            match op {
                Op::TlbAll => {
                    self.frames.clear();
                    self.pages.clear();
                }
                Op::TlbLastLevel(va) => {
                    if let Some(pfn) = self.frames.remove(&va) {
                        self.pages.remove(&pfn);
                    }
                }
                _ => {}
            }
        }
    }

    /// Every core uses the page at `va`, of frame `pfn`.
    pub(super) fn fill(&mut self, va: VirtAddr, pfn: Pfn) {
        self.catch_up();
        let stale = self.frames.insert(va, pfn);
        assert_eq!(stale, None, "{va} is used again before its invalidation");
        self.pages.insert(pfn, va);
    }

    /// The frames are about to change hands.
    fn check_forgotten(&mut self, first: Pfn, frames: u32) {
        self.catch_up();
        let stale = self.pages.range(first..first + frames).next();
        assert_eq!(stale, None, "{first} leaves before its invalidation");
    }
}

/// Hands out frames, those that came back last first, and keeps the ledger: what is out, with which
/// order.
pub(super) struct Pages {
    tables: &'static IrqLock<KernelMapper>,
    pub(super) out: Mutex<BTreeMap<Pfn, u32>>,
    spare: Mutex<[Vec<Pfn>; MAX_ORDER as usize + 1]>,
    pub(super) tlb: Mutex<Tlb>,
    /// Orders above this fail: a fragmented zone.
    pub(super) largest: Mutex<u32>,
    /// Allocations that still succeed.
    pub(super) budget: Mutex<usize>,
    /// The flags of every request.
    pub(super) asked: Mutex<Vec<Gfp>>,
    /// Frames that are not Normal write-back.
    pub(super) memory_types: Mutex<BTreeMap<Pfn, MemoryType>>,
}

// SAFETY: `ram` hands out each piece once and aligned; `spare` has those that are not out.
unsafe impl PageSource for Pages {
    const MAX_ORDER: u32 = MAX_ORDER;

    fn alloc(&self, order: u32, gfp: Gfp) -> Option<Pfn> {
        assert_eq!(PerCpu::current().locks_held(), 0, "may block");
        self.asked.lock().unwrap().push(gfp);
        let mut budget = self.budget.lock().unwrap();
        if order > *self.largest.lock().unwrap() || *budget == 0 {
            return None;
        }
        *budget -= 1;
        let size = (PAGE_SIZE << order) as u64;
        let spare = self.spare.lock().unwrap()[order as usize].pop();
        let pfn = spare.unwrap_or_else(|| layout::host::ram(size, size).start.pfn());
        self.tlb.lock().unwrap().check_forgotten(pfn, 1 << order);
        let start = layout::phys_to_virt(pfn.phys()).as_ptr::<u8>();
        // SAFETY: the piece is not out.
        unsafe {
            let fill = if gfp.contains(Gfp::ZERO) { 0 } else { 0xA5 };
            start.write_bytes(fill, size as usize);
        }
        self.out.lock().unwrap().insert(pfn, order);
        Some(pfn)
    }

    unsafe fn free(&self, pfn: Pfn, order: u32) {
        assert_eq!(self.out.lock().unwrap().remove(&pfn), Some(order));
        let frames = Run { pfn, order };
        let start = pfn.phys();
        let frames = PhysRange::new(start, start + frames.size());
        let tables = self.tables.lock();
        let mapping = tables.find_mapping_of(frames, mapper::FIRST, mapper::LIMIT);
        assert_eq!(mapping, None, "freed while mapped");
        self.tlb.lock().unwrap().check_forgotten(pfn, 1 << order);
        self.spare.lock().unwrap()[order as usize].push(pfn);
    }

    fn total_frames(&self) -> usize {
        4096
    }

    fn check_memory_type(&self, pfn: Pfn, wanted: MemoryType) -> Result<(), MemoryTypeError> {
        match *self
            .memory_types
            .lock()
            .unwrap()
            .get(&pfn)
            .unwrap_or(&MemoryType::NormalWriteBack)
        {
            _ if pfn < layout::host::RAM_BASE.pfn() => Err(FrameError::Untouched(pfn).into()),
            has if has == wanted => Ok(()),
            has => Err(MemoryTypeError::Conflict { pfn, has, wanted }),
        }
    }
}

pub(super) fn pages_for(tables: &'static IrqLock<KernelMapper>) -> &'static Pages {
    Box::leak(Box::new(Pages {
        tables,
        out: Mutex::default(),
        spare: Mutex::default(),
        tlb: Mutex::default(),
        largest: Mutex::new(MAX_ORDER),
        budget: Mutex::new(usize::MAX),
        asked: Mutex::default(),
        memory_types: Mutex::default(),
    }))
}

pub(super) fn scratch() -> Vmalloc<Pages> {
    let tables = Box::leak(Box::new(IrqLock::new(scratch_mapper(16))));
    // SAFETY: nobody else has the tables.
    unsafe { Vmalloc::new(tables, pages_for(tables)) }
}

impl Vmalloc<Pages> {
    pub(super) fn orders_out(&self) -> Vec<u32> {
        self.pages.out.lock().unwrap().values().copied().collect()
    }

    pub(super) fn frames_of(&self, va: VirtAddr, pages: usize) -> Vec<Pfn> {
        (0..pages)
            .map(|page| self.vmalloc_to_page(va + page * PAGE_SIZE).unwrap())
            .collect()
    }

    /// An area whose pages every core uses.
    pub(super) fn use_new_area(&self, pages: usize, gfp: Gfp) -> Result<VirtAddr, VmallocError> {
        let va = self.vmalloc_with(pages * PAGE_SIZE, gfp)?;
        for (page, frame) in self.frames_of(va, pages).into_iter().enumerate() {
            let mut tlb = self.pages.tlb.lock().unwrap();
            tlb.fill(va + page * PAGE_SIZE, frame);
        }
        Ok(va)
    }

    pub(super) fn assert_empty(&self) {
        self.vm_unmap_aliases();
        assert_eq!(self.orders_out(), vec![0; self.kept_frames().count()]);
        assert_eq!(self.areas.lock().va.iter().count(), 0);
        let leaf = self.tables.lock().first_leaf(mapper::FIRST, mapper::LIMIT);
        assert_eq!(leaf, None);
    }
}
