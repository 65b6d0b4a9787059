//! Reports of failed allocations: what an engineer needs to see why.

use super::page::PageAllocator;
use super::zone::{ZoneInfo, ZoneKind};
use super::{
    CacheInfo, Gfp, KmemCache, Owner, cma_areas, kmalloc_caches, named_caches, owners, pages,
    vmalloc_usage,
};
use crate::addr::PAGE_SIZE;
use crate::arch::counter;
use crate::sync::{Context, IrqLock, Once, PerCpu};
use core::fmt::{self, Formatter};

/// What a failure means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    /// The request could not be served; others may be.
    Failure,
    /// A small request that may reclaim everything failed: the machine has no memory left. Linux
    /// would end a process; here there is none.
    OutOfMemory,
}

/// A failed request and the state of memory: lines of text, the first naming the request, the rest
/// in the manner of Linux's Mem-Info. Formatting takes the locks of zones, caches and owners.
#[derive(Clone, Copy, Debug)]
pub struct FailureReport<'a> {
    allocator: &'a PageAllocator,
    gfp: Gfp,
    order: u32,
    cause: Cause,
    context: Context,
    core: usize,
    owner: Option<&'static Owner>,
    suppressed: u32,
}

/// Reports issued within [`INTERVAL_S`] at most; more are only counted. Linux:
/// `DEFAULT_RATELIMIT_BURST`, `DEFAULT_RATELIMIT_INTERVAL`.
const BURST: u32 = 10;
const INTERVAL_S: u64 = 5;

static HOOK: Once<fn(&FailureReport<'_>)> = Once::new();
static LIMIT: IrqLock<RateLimit> = IrqLock::new(RateLimit::new());

/// Says who is told of failed allocations; the first call wins. The hook may be called in any
/// context and does not allocate.
pub fn set_failure_hook(hook: fn(&FailureReport<'_>)) {
    HOOK.call_once(|| hook);
}

/// Tells the hook of a failure, unless there were too many lately.
pub(super) fn issue(allocator: &PageAllocator, gfp: Gfp, order: u32, cause: Cause) {
    let Some(hook) = HOOK.get() else {
        return;
    };
    let interval = INTERVAL_S * u64::from(counter::frequency());
    let allowed = LIMIT.lock().allows(counter::now(), interval);
    if let Some(suppressed) = allowed {
        hook(&FailureReport {
            suppressed,
            ..FailureReport::new(allocator, gfp, order, cause)
        });
    }
}

/// How many reports there were in the current interval.
#[derive(Debug)]
struct RateLimit {
    begin: u64,
    issued: u32,
    suppressed: u32,
}

impl RateLimit {
    const fn new() -> Self {
        Self {
            begin: 0,
            issued: 0,
            suppressed: 0,
        }
    }

    /// Whether a report may be issued at `now`, in ticks; then also how many were suppressed since
    /// the last one.
    fn allows(&mut self, now: u64, interval: u64) -> Option<u32> {
        if self.issued == 0 || now.wrapping_sub(self.begin) >= interval {
            self.begin = now;
            self.issued = 0;
        }
        if self.issued >= BURST {
            self.suppressed += 1;
            return None;
        }
        self.issued += 1;
        Some(core::mem::take(&mut self.suppressed))
    }
}

impl<'a> FailureReport<'a> {
    /// The report of a request that failed here and now.
    pub fn new(allocator: &'a PageAllocator, gfp: Gfp, order: u32, cause: Cause) -> Self {
        let this_cpu = PerCpu::current();
        Self {
            allocator,
            gfp,
            order,
            cause,
            context: this_cpu.context(),
            core: this_cpu.index(),
            owner: Owner::current(),
            suppressed: 0,
        }
    }

    /// What the failure means.
    pub fn cause(&self) -> Cause {
        self.cause
    }

    fn write_request(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str(match self.cause {
            Cause::Failure => "page allocation failure: ",
            Cause::OutOfMemory => "out of memory: page allocation failure: ",
        })?;
        write!(
            f,
            "order:{}, mode:{}, {} on core {}",
            self.order, self.gfp, self.context, self.core
        )?;
        if let Some(owner) = self.owner {
            write!(f, ", for {}", owner.name())?;
        }
        writeln!(f)
    }

    fn write_reclaim(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let info = self.allocator.reclaim_info();
        writeln!(
            f,
            "reclaim woken:{} background:{} freed:{} direct:{} freed:{} failures:{}",
            info.wakes,
            info.background_runs,
            info.background_freed,
            info.direct_passes,
            info.direct_freed,
            info.failures
        )?;
        for shrinker in self.allocator.shrinkers() {
            writeln!(
                f,
                "shrinker {} calls:{} freed:{}",
                shrinker.name, shrinker.calls, shrinker.freed
            )?;
        }
        Ok(())
    }
}

impl fmt::Display for FailureReport<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        self.write_request(f)?;
        writeln!(f, "Mem-Info:")?;
        for kind in ZoneKind::ALL {
            write_zone(f, kind, &self.allocator.zone(kind))?;
        }
        // Caches and windows are the machine's; another allocator has none.
        if pages().is_some_and(|machine| core::ptr::eq(machine, self.allocator)) {
            write_slabs(f)?;
            write_windows(f)?;
        }
        for owner in owners() {
            writeln!(f, "owner {owner}")?;
        }
        self.write_reclaim(f)?;
        if self.suppressed > 0 {
            writeln!(f, "{} reports suppressed", self.suppressed)?;
        }
        Ok(())
    }
}

const KB: usize = 1024;
const PAGE_KB: usize = PAGE_SIZE / KB;

fn write_zone(f: &mut Formatter<'_>, kind: ZoneKind, zone: &ZoneInfo) -> fmt::Result {
    if zone.managed == 0 {
        return Ok(());
    }
    let kb = |pages: u32| pages as usize * PAGE_KB;
    writeln!(
        f,
        "{kind} free:{}kB min:{}kB low:{}kB high:{}kB managed:{}kB",
        kb(zone.free),
        kb(zone.watermarks.min),
        kb(zone.watermarks.low),
        kb(zone.watermarks.high),
        kb(zone.managed)
    )?;
    writeln!(
        f,
        "{kind} free_highatomic:{}kB free_cma:{}kB local_pcp:{}kB",
        kb(zone.free_highatomic),
        kb(zone.free_cma),
        kb(zone.at_hand)
    )?;
    write!(f, "{kind} lowmem_reserve[]:")?;
    for pages in zone.lowmem_reserve {
        write!(f, " {pages}")?;
    }
    writeln!(f)?;
    write!(f, "{kind}:")?;
    for (order, blocks) in zone.blocks.iter().enumerate() {
        write!(f, " {blocks}*{}kB", PAGE_KB << order)?;
    }
    writeln!(f, " = {}kB", kb(zone.free))
}

fn write_slabs(f: &mut Formatter<'_>) -> fmt::Result {
    for cache in kmalloc_caches().caches().filter(|cache| cache.slabs > 0) {
        write!(f, "slab {}-{}", cache.name, cache.object_size)?;
        write_slab(f, &cache)?;
    }
    for cache in named_caches().map(KmemCache::info) {
        if cache.slabs > 0 {
            write!(f, "slab {}", cache.name)?;
            write_slab(f, &cache)?;
        }
    }
    Ok(())
}

fn write_slab(f: &mut Formatter<'_>, cache: &CacheInfo) -> fmt::Result {
    writeln!(
        f,
        " objects:{} slabs:{} empty:{}",
        cache.objects_out, cache.slabs, cache.empty_slabs
    )
}

/// What `vmalloc` and the contiguous memory areas have.
fn write_windows(f: &mut Formatter<'_>) -> fmt::Result {
    if let Some(usage) = vmalloc_usage() {
        writeln!(
            f,
            "vmalloc areas:{} used:{}kB unpurged:{}kB",
            usage.areas,
            usage.bytes / KB,
            usage.unpurged / KB
        )?;
    }
    for cma in cma_areas() {
        writeln!(
            f,
            "cma {} total:{}kB used:{}kB",
            cma.area().name,
            cma.count() as usize * PAGE_KB,
            cma.stats().used as usize * PAGE_KB
        )?;
    }
    Ok(())
}

#[cfg(test)]
mod tests;
