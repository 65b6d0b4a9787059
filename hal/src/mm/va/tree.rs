//! The nodes of [`VaAllocator`](super::VaAllocator): an AVL tree by address, threaded as a list,
//! every node augmented with the largest gap in its subtree.
//!
//! Nodes are named by number. The tree's height is at most 1.44 log2 of the nodes, which bounds
//! the recursion at 30 for any window.

use super::VaError;
use crate::addr::{PAGE_SIZE, Pfn, VirtAddr};
use crate::layout;

/// "No node": a real node of height 0 without a gap, so that reading it needs no test.
pub(super) const NIL: u32 = 0;

/// The node of no pages at the start of the window, which owns the gap before the first area.
/// Never removed.
const ORIGIN: u32 = 1;

/// Nodes in a [`Chunk`].
const NODES: usize = 64;

#[derive(Clone, Copy, Debug)]
struct Node<D> {
    /// First page, counted from the window's.
    start: u32,
    /// Pages, guard included.
    pages: u32,
    /// Free pages that follow.
    gap: u32,
    /// The largest `gap` in the subtree.
    max_gap: u32,
    left: u32,
    right: u32,
    /// Neighbours by address. Unused nodes are chained by `next`.
    prev: u32,
    next: u32,
    height: u32,
    /// [`IN_USE`], or the next on the same list of areas to be given out again. [`NIL`] for what
    /// is no area.
    recycled: u32,
    data: D,
}

/// The `recycled` of an area that is given out.
const IN_USE: u32 = u32::MAX;

impl<D> Node<D> {
    const fn idle(data: D) -> Self {
        Self {
            start: 0,
            pages: 0,
            gap: 0,
            max_gap: 0,
            left: NIL,
            right: NIL,
            prev: NIL,
            next: NIL,
            height: 0,
            recycled: NIL,
            data,
        }
    }
}

/// Memory for 64 nodes; at most a page.
#[derive(Debug)]
pub struct Chunk<D>([Node<D>; NODES]);

impl<D: Copy> Chunk<D> {
    /// Unused nodes, filled with `idle`.
    pub const fn new(idle: D) -> Self {
        const { assert!(size_of::<Self>() <= PAGE_SIZE) };
        Self([Node::idle(idle); NODES])
    }

    /// Unused nodes in the frame `pfn`.
    ///
    /// # Safety
    ///
    /// The frame is RAM in the direct map that belongs to the chunk from now on.
    pub unsafe fn in_frame(pfn: Pfn, idle: D) -> &'static mut Self {
        let chunk = layout::phys_to_virt(pfn.phys()).as_ptr::<Self>();
        // SAFETY: a frame is large enough (asserted in `new`), aligned and ours for good.
        unsafe {
            chunk.write(Self::new(idle));
            &mut *chunk
        }
    }
}

#[derive(Debug)]
pub(super) struct Arena<D: 'static, const CHUNKS: usize> {
    first: Chunk<D>,
    more: heapless::Vec<&'static mut Chunk<D>, CHUNKS>,
    /// Head of the unused nodes that have been used before.
    unused: u32,
    /// The lowest node that was never used.
    fresh: u32,
    root: u32,
}

impl<D: Copy, const CHUNKS: usize> Arena<D, CHUNKS> {
    pub(super) const fn new(window_pages: u32, idle: D) -> Self {
        let mut first = Chunk::new(idle);
        first.0[ORIGIN as usize] = Node {
            gap: window_pages,
            max_gap: window_pages,
            height: 1,
            ..Node::idle(idle)
        };
        Self {
            first,
            more: heapless::Vec::new(),
            unused: NIL,
            fresh: ORIGIN + 1,
            root: ORIGIN,
        }
    }

    pub(super) fn grow(&mut self, chunk: &'static mut Chunk<D>) -> Result<(), VaError> {
        let areas = self.most_areas();
        let grown = self.more.push(chunk);
        grown.map_err(|_| VaError::TooManyAreas(areas))
    }

    /// How many areas the nodes there are can describe.
    fn most_areas(&self) -> usize {
        self.capacity() - [NIL, ORIGIN].len()
    }

    fn capacity(&self) -> usize {
        (self.more.len() + 1) * NODES
    }

    #[inline(always)]
    fn node(&self, node: u32) -> &Node<D> {
        let (chunk, index) = (node as usize / NODES, node as usize % NODES);
        match chunk.checked_sub(1) {
            None => &self.first.0[index],
            Some(chunk) => &self.more[chunk].0[index],
        }
    }

    #[inline(always)]
    fn node_mut(&mut self, node: u32) -> &mut Node<D> {
        let (chunk, index) = (node as usize / NODES, node as usize % NODES);
        match chunk.checked_sub(1) {
            None => &mut self.first.0[index],
            Some(chunk) => &mut self.more[chunk].0[index],
        }
    }

    /// Takes the area `node` off the hands of its owner and puts it before `next`, the head of a
    /// list of such areas: it stays in the tree.
    #[inline]
    pub(super) fn recycle(&mut self, node: u32, next: u32) {
        self.node_mut(node).recycled = next;
    }

    /// Gives the area `node` out again, with `data`: its start, and the area that follows it on its
    /// list.
    #[inline]
    pub(super) fn reuse(&mut self, node: u32, data: D) -> (u32, u32) {
        let node = self.node_mut(node);
        node.data = data;
        (node.start, core::mem::replace(&mut node.recycled, IN_USE))
    }

    /// Whether the area is given out, not waiting to be given out again.
    #[inline]
    pub(super) fn is_in_use(&self, node: u32) -> bool {
        self.node(node).recycled == IN_USE
    }

    /// Whether `node`, any that ever was one or 0, is an area in use that starts at `page`.
    #[inline]
    pub(super) fn is_area_at(&self, node: u32, page: u32) -> bool {
        let node = self.node(node);
        node.start == page && node.recycled == IN_USE
    }

    /// Start, pages with the guard, and data of `node`.
    #[inline]
    pub(super) fn get(&self, node: u32) -> (u32, u32, D) {
        let node = self.node(node);
        (node.start, node.pages, node.data)
    }

    /// As [`get`](Self::get), with the data open to change.
    #[inline]
    pub(super) fn get_mut(&mut self, node: u32) -> (u32, u32, &mut D) {
        let node = self.node_mut(node);
        (node.start, node.pages, &mut node.data)
    }

    pub(super) fn end_of(&self, node: u32) -> u32 {
        let node = self.node(node);
        node.start + node.pages
    }

    pub(super) fn largest_gap(&self) -> u32 {
        self.node(self.root).max_gap
    }

    /// The lowest node followed by a gap of at least `pages`.
    pub(super) fn first_gap(&self, pages: u32) -> Option<u32> {
        let mut found = self.root;
        if self.node(found).max_gap < pages {
            return None;
        }
        loop {
            let node = self.node(found);
            if self.node(node.left).max_gap >= pages {
                found = node.left;
            } else if node.gap >= pages {
                return Some(found);
            } else {
                found = node.right;
            }
        }
    }

    /// The node with the greatest start not above `page`, if it is an area.
    pub(super) fn last_at_or_below(&self, page: u32) -> Option<u32> {
        let (mut found, mut cursor) = (ORIGIN, self.root);
        while cursor != NIL {
            let node = self.node(cursor);
            if node.start <= page {
                // The origin shares its start with an area at the window's first page.
                if node.pages > 0 {
                    found = cursor;
                }
                cursor = node.right;
            } else {
                cursor = node.left;
            }
        }
        (found != ORIGIN).then_some(found)
    }

    /// The areas in use by address, as [`get`](Self::get) gives them.
    pub(super) fn iter(&self) -> impl Iterator<Item = (u32, u32, D)> + '_ {
        let mut next = self.node(ORIGIN).next;
        core::iter::from_fn(move || {
            let node = self.node(next);
            next = node.next;
            (node.height > 0).then_some((node.start, node.pages, node.data, node.recycled))
        })
        .filter_map(|(start, pages, data, recycled)| {
            (recycled == IN_USE).then_some((start, pages, data))
        })
    }

    /// The first area in use that starts at or after `page`, as [`get`](Self::get) gives it.
    pub(super) fn first_from(&self, page: u32) -> Option<(u32, u32, D)> {
        let before = self.last_at_or_below(page).unwrap_or(ORIGIN);
        let mut node = self.node(before);
        while node.start < page || node.recycled != IN_USE {
            if node.next == NIL {
                return None;
            }
            node = self.node(node.next);
        }
        Some((node.start, node.pages, node.data))
    }

    /// Where the chunk number `index` of those added lies.
    pub(super) fn chunk(&self, index: usize) -> Option<VirtAddr> {
        let chunk = self.more.get(index)?;
        Some(VirtAddr::from_ptr(&raw const **chunk))
    }

    /// Makes `pages` from `start` an area, and names it. They lie in the gap after `before`.
    pub(super) fn insert_after(
        &mut self,
        before: u32,
        start: u32,
        pages: u32,
        data: D,
    ) -> Result<u32, VaError> {
        let new = self.take_unused()?;
        let front = start - self.end_of(before);
        let next = self.node(before).next;
        let gap = self.node(before).gap - front - pages;
        *self.node_mut(new) = Node {
            start,
            pages,
            gap,
            max_gap: gap,
            prev: before,
            next,
            height: 1,
            recycled: IN_USE,
            ..Node::idle(data)
        };
        self.node_mut(before).gap = front;
        self.node_mut(before).next = new;
        if next != NIL {
            self.node_mut(next).prev = new;
        }
        // `before` is an ancestor of the new node, so the way back up settles its `max_gap` too.
        self.root = self.insert(self.root, new, before);
        Ok(new)
    }

    /// Removes the area that starts at page `start`, if there is one; what it covered joins the
    /// gap before it.
    pub(super) fn remove(&mut self, start: u32) -> Option<(u32, u32, D)> {
        let mut removed = NIL;
        self.root = self.delete(self.root, start, &mut removed);
        if removed == NIL {
            return None;
        }
        let node = *self.node(removed);
        self.node_mut(node.prev).next = node.next;
        if node.next != NIL {
            self.node_mut(node.next).prev = node.prev;
        }
        let unused = self.unused;
        let idle = self.node_mut(removed);
        idle.height = 0;
        idle.recycled = NIL;
        idle.next = unused;
        self.unused = removed;
        Some((node.start, node.pages, node.data))
    }

    fn take_unused(&mut self) -> Result<u32, VaError> {
        let node = self.unused;
        if node != NIL {
            self.unused = self.node(node).next;
            return Ok(node);
        }
        if self.fresh as usize == self.capacity() {
            return Err(if self.more.is_full() {
                VaError::TooManyAreas(self.most_areas())
            } else {
                VaError::OutOfNodes
            });
        }
        self.fresh += 1;
        Ok(self.fresh - 1)
    }

    /// Inserts `new`, which follows `before`, into the tree at `at`; its new root.
    fn insert(&mut self, at: u32, new: u32, before: u32) -> u32 {
        if at == NIL {
            return new;
        }
        let node = self.node(at);
        if at == before || node.start < self.node(new).start {
            let right = self.insert(node.right, new, before);
            self.node_mut(at).right = right;
        } else {
            let left = self.insert(node.left, new, before);
            self.node_mut(at).left = left;
        }
        self.balance(at)
    }

    /// Takes the area that starts at `start` out of the tree at `at`, if it is there; its new
    /// root.
    ///
    /// The node before it inherits its pages. That node is an ancestor, or the last of the left
    /// subtree, which then takes the place of the removed one: either way it is on the way up.
    fn delete(&mut self, at: u32, start: u32, removed: &mut u32) -> u32 {
        if at == NIL {
            return NIL;
        }
        let node = *self.node(at);
        if node.start == start && node.pages > 0 {
            *removed = at;
            self.node_mut(node.prev).gap += node.pages + node.gap;
            if node.left == NIL {
                return node.right;
            }
            let left = self.delete_last(node.left);
            let heir = self.node_mut(node.prev);
            heir.left = left;
            heir.right = node.right;
            return self.balance(node.prev);
        }
        if start < node.start {
            let left = self.delete(node.left, start, removed);
            self.node_mut(at).left = left;
        } else {
            let right = self.delete(node.right, start, removed);
            self.node_mut(at).right = right;
        }
        self.balance(at)
    }

    /// Takes the last node out of the tree at `at`; its new root.
    fn delete_last(&mut self, at: u32) -> u32 {
        let node = *self.node(at);
        if node.right == NIL {
            return node.left;
        }
        let right = self.delete_last(node.right);
        self.node_mut(at).right = right;
        self.balance(at)
    }

    /// Restores height, largest gap and balance of `at` whose subtrees are in order and differ in
    /// height by at most 2; the root of the result.
    fn balance(&mut self, at: u32) -> u32 {
        let (left, right) = (self.node(at).left, self.node(at).right);
        let (left_height, right_height) = (self.node(left).height, self.node(right).height);
        if left_height > right_height + 1 {
            if self.node(self.node(left).left).height < self.node(self.node(left).right).height {
                self.node_mut(at).left = self.rotate_left(left);
            }
            return self.rotate_right(at);
        }
        if right_height > left_height + 1 {
            if self.node(self.node(right).right).height < self.node(self.node(right).left).height {
                self.node_mut(at).right = self.rotate_right(right);
            }
            return self.rotate_left(at);
        }
        self.update(at);
        at
    }

    fn rotate_left(&mut self, at: u32) -> u32 {
        let top = self.node(at).right;
        self.node_mut(at).right = self.node(top).left;
        self.node_mut(top).left = at;
        self.update(at);
        self.update(top);
        top
    }

    fn rotate_right(&mut self, at: u32) -> u32 {
        let top = self.node(at).left;
        self.node_mut(at).left = self.node(top).right;
        self.node_mut(top).right = at;
        self.update(at);
        self.update(top);
        top
    }

    fn update(&mut self, at: u32) {
        let node = self.node(at);
        let (left, right) = (self.node(node.left), self.node(node.right));
        let height = 1 + left.height.max(right.height);
        let max_gap = node.gap.max(left.max_gap).max(right.max_gap);
        let node = self.node_mut(at);
        node.height = height;
        node.max_gap = max_gap;
    }

    /// Panics unless every promise of the tree holds.
    #[cfg(test)]
    pub(super) fn check(&self, window_pages: u32) {
        let mut in_order = Vec::new();
        self.check_subtree(self.root, &mut in_order);
        assert_eq!(in_order[0], ORIGIN);
        let mut end = 0;
        for pair in in_order.windows(2) {
            assert_eq!(self.node(pair[0]).next, pair[1]);
            assert_eq!(self.node(pair[1]).prev, pair[0]);
        }
        for node in in_order.into_iter().map(|node| self.node(node)) {
            assert_eq!(node.start, end);
            end = node.start + node.pages + node.gap;
        }
        assert_eq!(end, window_pages);
    }

    #[cfg(test)]
    fn check_subtree(&self, at: u32, in_order: &mut Vec<u32>) {
        if at == NIL {
            return;
        }
        let node = self.node(at);
        self.check_subtree(node.left, in_order);
        in_order.push(at);
        self.check_subtree(node.right, in_order);
        let (left, right) = (self.node(node.left), self.node(node.right));
        assert!(left.height.abs_diff(right.height) <= 1);
        assert_eq!(node.height, 1 + left.height.max(right.height));
        let max_gap = node.gap.max(left.max_gap).max(right.max_gap);
        assert_eq!(node.max_gap, max_gap);
    }
}
