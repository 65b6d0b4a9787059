//! The address space as it is, in the report: what is mapped where, and as what.
//!
//! Sizes and permissions come from a walk of the tables; the memory type comes from `PAR_EL1`, that
//! is from the MMU, for the first and the last page. Where the two disagree the line says so.

use crate::report;
use core::fmt;
use hal::addr::{PAGE_SIZE, VirtAddr};
use hal::arch::translate;
use hal::layout::{WINDOWS, Window};
use hal::mmu::{Access, KernelMapper, Leaf, Level, MemoryType};
use hal::sync::IrqLock;

/// Prints one line for each stretch of `tables`.
pub fn print(tables: &IrqLock<KernelMapper>) {
    for window in &WINDOWS {
        let mut stretches = 0;
        let mut next = window.base;
        while let Some(stretch) = Stretch::first(tables, window, next) {
            next = stretch.last.end();
            report::note(format_args!("{stretch}"));
            stretches += 1;
        }
        if stretches == 0 {
            report::note(format_args!("map window={} size=0", Name(window)));
        }
    }
}

/// Runs of leaves that have everything in common but are parted by single unmapped pages: the
/// stacks of the image would fill the screen otherwise.
#[derive(Debug)]
struct Stretch {
    window: &'static Window,
    first: Leaf,
    last: Leaf,
    /// Bytes that are mapped.
    size: usize,
    /// Unmapped pages between the runs.
    guards: usize,
}

impl Stretch {
    /// The first one at or after `start`. The tables are locked run by run, never while printing.
    fn first(
        tables: &IrqLock<KernelMapper>,
        window: &'static Window,
        start: VirtAddr,
    ) -> Option<Self> {
        let first = tables.lock().first_run(start, window.end())?;
        let mut stretch = Self {
            window,
            first,
            last: first,
            size: first.size,
            guards: 0,
        };
        loop {
            let end = stretch.last.end();
            let next = tables.lock().first_run(end, window.end());
            let Some(next) = next.filter(|next| stretch.is_continued_by(next)) else {
                return Some(stretch);
            };
            stretch.last = next;
            stretch.size += next.size;
            stretch.guards += 1;
        }
    }

    fn is_continued_by(&self, next: &Leaf) -> bool {
        let last = &self.last;
        next.va == last.end() + PAGE_SIZE
            && next.pa == last.frames().end + PAGE_SIZE
            && next.level == last.level
            && next.attributes() == last.attributes()
    }
}

impl fmt::Display for Stretch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let last_page = self.last.va + (self.last.size - PAGE_SIZE);
        let pars = [self.first.va, last_page].map(|va| translate::read_el1(va).memory_type());
        write!(
            f,
            "map window={} va={} size={:#x} pa={} type={} access={} leaf={}",
            Name(self.window),
            self.first.va,
            self.size,
            self.first.pa,
            Type(pars[0]),
            Permissions(self.first.access()),
            leaf_size(self.first.level),
        )?;
        if self.guards > 0 {
            write!(f, " guards={}", self.guards)?;
        }
        let walked = self.first.memory_type();
        if pars != [walked; 2] {
            write!(
                f,
                " DISAGREES table={} par_last={}",
                Type(walked),
                Type(pars[1])
            )?;
        }
        Ok(())
    }
}

/// The name of a window as one word.
struct Name(&'static Window);

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, word) in self.0.name.split(' ').enumerate() {
            if index > 0 {
                f.write_str("-")?;
            }
            f.write_str(word)?;
        }
        Ok(())
    }
}

/// A memory type that need not be one of ours.
pub struct Type(pub Option<MemoryType>);

impl fmt::Display for Type {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(memory_type) => memory_type.fmt(f),
            None => f.write_str("none"),
        }
    }
}

/// Permissions that need not be some of ours.
struct Permissions(Option<Access>);

impl fmt::Display for Permissions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(access) => access.fmt(f),
            None => f.write_str("unknown"),
        }
    }
}

/// How large a leaf of `level` is.
pub fn leaf_size(level: Level) -> &'static str {
    match level {
        Level::L1 => "1G",
        Level::L2 => "2M",
        Level::L3 => "4K",
    }
}
