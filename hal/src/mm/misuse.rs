//! Wrong requests: counted, and reported once each.
//!
//! A request that is wrong whatever memory there is says something about the code that made it.
//! `hal` prints nothing; a hook that the firmware sets is called at the first misuse of each kind.

use super::{AllocError, FreeError, Gfp, GfpError, ObjectError, VmallocError};
use crate::addr::VirtAddr;
use crate::layout;
use crate::sync::{Context, Once};
use core::sync::atomic::{AtomicU32, Ordering};

/// A wrong request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Misuse {
    /// A blocking request where blocking is not allowed. It is refused.
    #[error("a blocking allocation in {0}")]
    Context(Context),
    /// Flags that contradict each other.
    #[error(transparent)]
    Flags(#[from] GfpError),
    /// A request that must not fail for more than two pages.
    #[error("an allocation of order {0} that must not fail")]
    NofailOrder(u32),
    /// A request that must not fail by a task that frees memory, which may not reclaim any.
    #[error("an allocation that must not fail in a task that frees memory")]
    NofailReclaim,
    /// A block larger than there are. It is refused.
    #[error("an allocation of order {0}")]
    OrderTooLarge(u32),
    /// Coherent memory as a compound page. It is refused.
    #[error("coherent memory as a compound page")]
    CoherentCompound,
    /// Something is mapped where memory that was coherent belongs, in the direct map or, half-way,
    /// in the coherent window. The memory is kept out of use.
    #[error("coherent memory whose place at {0} is taken: it is kept out of use")]
    CoherentKept(VirtAddr),
    /// Flags of memory that users have mapped, for an object. They are ignored. Linux: "Unexpected
    /// gfp".
    #[error("an object with {0}")]
    ObjectFlags(Gfp),
    /// An area of no bytes. It is refused.
    #[error("an area of zero bytes")]
    ZeroSize,
    /// A free of memory that is free already, or of what is no object or area. It is refused.
    #[error("a free of {0}, where nothing in use starts")]
    WrongFree(VirtAddr),
    /// An area of more bytes than the machine has, or than any request may have. It is refused.
    #[error("an area of {0:#x} bytes")]
    TooLarge(usize),
    /// Zeroes asked of a cache whose constructor has made the objects. It is refused.
    #[error("zeroed objects of slab cache {0}, which has a constructor")]
    Constructed(&'static str),
    /// A window for copying out that leaves the object. Nothing may be copied.
    #[error("a usercopy window outside the objects of slab cache {0}")]
    UsercopyWindow(&'static str),
}

/// What no object is: memory without a permanent mapping, or that may be migrated.
pub(super) const NO_OBJECT: Gfp = Gfp::HIGHMEM.union(Gfp::MOVABLE);

/// Kinds of misuse, by [`Misuse::kind`].
const KINDS: usize = 20;

static COUNTS: [AtomicU32; KINDS] = [const { AtomicU32::new(0) }; KINDS];

/// Bit `k`: the hook was told of kind `k`.
static REPORTED: AtomicU32 = AtomicU32::new(0);
const _: () = assert!(KINDS <= u32::BITS as usize);

static HOOK: Once<fn(Misuse, Gfp)> = Once::new();

impl Misuse {
    /// The kind's number, whatever values it carries.
    const fn kind(self) -> usize {
        match self {
            Self::Context(Context::Task) => 0,
            Self::Context(Context::Interrupt) => 1,
            Self::Context(Context::LockHeld) => 2,
            Self::Context(Context::IrqsMasked) => 3,
            Self::Flags(GfpError::UnknownBits { .. }) => 4,
            Self::Flags(GfpError::TwoZones(_)) => 5,
            Self::Flags(GfpError::TwoMigrateTypes(_)) => 6,
            Self::Flags(GfpError::NofailNoretry(_)) => 7,
            Self::Flags(GfpError::NofailNonblocking(_)) => 8,
            Self::NofailOrder(_) => 9,
            Self::OrderTooLarge(_) => 10,
            Self::NofailReclaim => 11,
            Self::ObjectFlags(_) => 12,
            Self::ZeroSize => 13,
            Self::WrongFree(_) => 14,
            Self::CoherentCompound => 15,
            Self::TooLarge(_) => 16,
            Self::Constructed(_) => 17,
            Self::UsercopyWindow(_) => 18,
            Self::CoherentKept(_) => 19,
        }
    }

    /// How often requests were wrong in the same way, whatever the values, since boot.
    pub fn count(self) -> u32 {
        COUNTS[self.kind()].load(Ordering::Relaxed)
    }

    /// Counts a misuse by a request with `gfp`; the first of its kind that may be reported is. Any
    /// context.
    #[cold]
    pub(crate) fn note(self, gfp: Gfp) {
        COUNTS[self.kind()].fetch_add(1, Ordering::Relaxed);
        if let Some(hook) = HOOK.get()
            && self.is_reported_now(&REPORTED, gfp)
        {
            hook(self, gfp);
        }
    }

    /// Whether a request with `gfp` is the first of its kind to be reported, which it is from now
    /// on. One with [`Gfp::NOWARN`] leaves the report to the next.
    fn is_reported_now(self, reported: &AtomicU32, gfp: Gfp) -> bool {
        let kind = 1 << self.kind();
        !gfp.contains(Gfp::NOWARN) && reported.fetch_or(kind, Ordering::Relaxed) & kind == 0
    }
}

/// Counts what is wrong with the flags of a request for an object of a slab. Any context.
#[inline]
pub(super) fn note_object_flags(gfp: Gfp) {
    if gfp.intersects(NO_OBJECT) {
        Misuse::ObjectFlags(gfp).note(gfp);
    }
    if gfp.is_special()
        && let Err(error) = gfp.check()
    {
        Misuse::Flags(error).note(gfp);
    }
}

/// Counts what is wrong with a free of `va`, which asks for nothing. Any context.
#[cold]
#[inline(never)]
fn note_wrong_free(va: VirtAddr) {
    Misuse::WrongFree(va).note(Gfp::empty());
}

impl ObjectError {
    /// The same error of a free, counted unless the page allocator has done so.
    #[cold]
    #[inline(never)]
    pub(super) fn noted(self) -> Self {
        match self {
            Self::VmallocAddress(va)
            | Self::NotDirectMap(va)
            | Self::NotAllocated { va, .. }
            | Self::NotAnObject { va, .. }
            | Self::NotAtObject(va)
            | Self::DoubleFree(va)
            | Self::WrongCache { va, .. } => note_wrong_free(va),
            Self::Usercopy { .. } | Self::Pages(_) => {}
        }
        self
    }
}

impl FreeError {
    /// The same, counted if a block was freed twice.
    #[cold]
    pub(super) fn noted(self) -> Self {
        if let Self::DoubleFree(pfn) = self {
            note_wrong_free(layout::phys_to_virt(pfn.phys()));
        }
        self
    }
}

impl VmallocError {
    /// The same, counted if an area of no or too many bytes was asked for with `gfp`, or one freed
    /// that is none.
    #[cold]
    #[inline(never)]
    pub(super) fn noted(self, gfp: Gfp) -> Self {
        match self {
            Self::ZeroSize => Misuse::ZeroSize.note(gfp),
            Self::TooLarge { size, .. } => Misuse::TooLarge(size).note(gfp),
            Self::NotAnArea(va) | Self::WrongKind { va, .. } => note_wrong_free(va),
            _ => {}
        }
        self
    }
}

/// The refusal of a blocking request in `context`, counted.
#[cold]
pub(super) fn refuse_context(context: Context, gfp: Gfp) -> AllocError {
    Misuse::Context(context).note(gfp);
    AllocError::Context { context, gfp }
}

/// Says who is told of the first misuse of each kind that comes without [`Gfp::NOWARN`]; the first
/// call wins. The hook may be called
/// in any context and does not allocate.
pub fn set_misuse_hook(hook: fn(Misuse, Gfp)) {
    HOOK.call_once(|| hook);
}

#[cfg(test)]
mod tests;
