//! Calls of the page allocator: blocks, exact sizes, and blocks taken apart.

use crate::record::Kind;
use crate::{Fuzz, pfn_at};
use hal::addr::PAGE_SIZE;
use hal::layout;
use hal::mm::{AllocError, Gfp, MAX_ORDER, get_order};

impl Fuzz {
    pub(crate) fn alloc_pages(&mut self) {
        let gfp = self.gfp();
        let orders = [0, 0, 0, 0, 1, 1, 2, 3, 4, 5, 7, 9, 10, 11];
        let order = self.random.pick(&orders);
        match self.call(|machine| machine.pages.alloc_pages(gfp, order)) {
            Ok(pfn) => {
                assert!(order <= MAX_ORDER);
                let len = PAGE_SIZE << order;
                let va = layout::phys_to_virt(pfn.phys());
                self.took(va, len, len, gfp, Kind::Pages(order), charge(len, gfp));
            }
            Err(AllocError::OrderTooLarge { .. }) if order > MAX_ORDER => {
                self.wrong("OrderTooLarge");
            }
            Err(error) => self.refused(&error),
        }
    }

    pub(crate) fn alloc_exact(&mut self) {
        let gfp = self.gfp();
        let most = self.random.pick(&[64 << 10, 512 << 10, 5 << 20]);
        let size = self.random.size(most);
        let order = get_order(size);
        match self.call(|machine| machine.pages.alloc_pages_exact(size, gfp)) {
            Ok(va) => {
                let len = size.next_multiple_of(PAGE_SIZE);
                let align = PAGE_SIZE << order;
                self.took(va, len, align, gfp, Kind::Exact, charge(len, gfp));
            }
            Err(AllocError::OrderTooLarge { .. }) if order > MAX_ORDER => {
                self.wrong("OrderTooLarge");
            }
            Err(error) => self.refused(&error),
        }
    }

    /// Takes a block apart; its pages are as many blocks from then on.
    pub(crate) fn split(&mut self) {
        // Larger ones would soon be all there is room for in the record.
        let few = |kind| matches!(kind, Kind::Pages(1..=4));
        let Some((start, block)) = self.record.some(&mut self.random, few).next() else {
            return;
        };
        let order = get_order(block.len);
        self.record.remove(start);
        // SAFETY: the block is the test's.
        let split = unsafe { self.machine.pages.split_page(pfn_at(start), order) };
        assert_eq!(split, Ok(()), "{start:#x} {block:?}");
        for page in 0..1 << order {
            let charged = block.charged >> order;
            let tag = self.random.draw() as u8;
            let start = start + page * PAGE_SIZE;
            self.record
                .insert(start, PAGE_SIZE, Kind::Pages(0), charged, tag);
        }
    }
}

/// What an owner pays for `len` bytes of pages.
pub(crate) fn charge(len: usize, gfp: Gfp) -> usize {
    if gfp.contains(Gfp::ACCOUNT) { len } else { 0 }
}
