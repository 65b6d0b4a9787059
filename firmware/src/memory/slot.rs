//! Objects kept in one word each, as C keeps them: for code whose every instruction is counted.

use hal::mm::{self, AllocError, Gfp};

/// Room for one object from `kmalloc`, which is freed with it.
#[derive(Debug)]
pub(crate) struct Slot(*mut u8);

impl Slot {
    /// A slot without an object.
    pub(crate) const EMPTY: Self = Self(core::ptr::null_mut());

    /// Whether there is no object in the slot.
    #[inline(always)]
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_null()
    }

    /// `kmalloc` into the slot, which is empty.
    #[inline(always)]
    pub(crate) fn fill(&mut self, size: usize, gfp: Gfp) -> Result<(), AllocError> {
        debug_assert!(self.is_empty(), "the object would leak");
        self.0 = mm::kmalloc(size, gfp)?.as_ptr();
        Ok(())
    }

    /// `kfree` of the object. As in every `Drop` the result is not looked at: a refusal shows in
    /// the ledger.
    #[inline(always)]
    pub(crate) fn clear(&mut self) {
        let object = core::mem::replace(&mut self.0, core::ptr::null_mut());
        // SAFETY: the object came from `fill`, and the slot no longer has it.
        let _ = unsafe { mm::kfree(object) };
    }
}

impl Default for Slot {
    fn default() -> Self {
        Self::EMPTY
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        if !self.is_empty() {
            self.clear();
        }
    }
}
