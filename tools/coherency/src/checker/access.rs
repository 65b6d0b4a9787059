//! Loads, stores and instruction fetches.

use super::{Checker, Problem, Who};
use crate::device::{Access, Does};
use crate::kind::Kind;
use crate::lines::{
    self, BYPASSED, CACHED, CODE_STALE, DIRTY, DROPPED, LENT_TO_READ, LENT_TO_WRITE, LINE,
    NOT_UNIFIED, STALE, line_of,
};
use crate::walk::Mapping;
use std::ops::Range;

/// A load or store that was made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Touch {
    /// Physical address of the first byte; all are in one page.
    pub pa: u64,
    /// How many.
    pub size: u8,
    /// The mapping that it went through.
    pub mapping: Mapping,
    /// A store, or a load.
    pub is_store: bool,
    /// What was loaded or stored; `None` if memory may hold something else afterwards.
    pub value: Option<u128>,
    /// Whether it is in a page that [`Checker::wants_page`] says a device's model is told of.
    pub is_told: bool,
}

impl Touch {
    fn range(&self) -> Range<u64> {
        self.pa..self.pa + u64::from(self.size)
    }
}

/// What a load or store of one line violates.
#[derive(Default)]
struct Violations {
    is_lent: bool,
    /// Bytes that are old if a device wrote them.
    stale: u64,
    mismatch: Option<&'static str>,
}

/// The line with older bytes may go to memory any time after a store to others of it.
pub(super) const WRITTEN_BACK: &str =
    "DC CIVAC by VA between the uncached store and the cached one to the same line";

impl Checker {
    /// Takes notice of a load or store.
    pub fn access(&mut self, who: Who, touch: &Touch) {
        let mut fetched = None;
        for bytes in lines::parts(touch.range(), LINE) {
            if self.access_line(who, touch, &bytes) {
                fetched = Some(bytes.start / LINE);
            }
        }
        self.compare(who, touch);
        if !touch.is_told {
            return;
        }
        if self.uart == Some(touch.pa) && touch.is_store {
            if let Some(value) = touch.value {
                self.console.put(value as u8);
            }
            return;
        }
        self.learned = fetched;
        for model in 0..self.models.len() {
            if self.models[model].watches(&touch.range()) {
                self.tell(who, model, touch);
            }
        }
        self.learned = None;
    }

    fn tell(&mut self, who: Who, model: usize, touch: &Touch) {
        match touch.value {
            Some(value) => {
                let access = Access {
                    cpu: who.cpu,
                    pa: touch.pa,
                    size: touch.size,
                    is_store: touch.is_store,
                    // CAST: the low half.
                    value: value as u64,
                };
                self.device_access(who, model, &access);
            }
            // No model is told of a value that may not be.
            None => self.lost += 1,
        }
    }

    /// Returns whether a load has fetched the line: it was in no cache.
    fn access_line(&mut self, who: Who, touch: &Touch, bytes: &Range<u64>) -> bool {
        let Some(index) = self.lines.find(bytes.start) else {
            return false;
        };
        let page = self.lines.page(index);
        page.seen = Some(touch.mapping);
        let line = line_of(bytes.start);
        let mask = lines::mask(bytes);
        let flags = &mut page.flags[line];
        let dirty = &mut page.dirty[line];
        let mut found = Violations::default();
        let lent = if touch.is_store {
            LENT_TO_READ | LENT_TO_WRITE
        } else {
            LENT_TO_WRITE
        };
        found.is_lent = *flags & lent != 0;
        let is_dropped = *flags & DROPPED != 0;
        let is_fetched =
            !touch.is_store && touch.mapping.is_cacheable() && *flags & (CACHED | STALE) == 0;
        let hidden = match *flags & BYPASSED {
            0 => 0,
            _ => self
                .bypassed
                .get(&(bytes.start / LINE))
                .copied()
                .unwrap_or(0),
        };
        let mut covered = 0;
        if touch.mapping.is_cacheable() {
            if touch.is_store {
                covered = hidden & mask;
            } else if hidden & mask != 0 {
                found.mismatch =
                    Some("DC CIVAC by VA between the uncached store and the cached load");
                covered = hidden;
            }
            *flags |= CACHED;
            if touch.is_store {
                *flags |= CODE_STALE;
                if touch.mapping == Mapping::WriteBack {
                    *flags |= DIRTY | NOT_UNIFIED;
                    *dirty |= mask;
                }
            } else {
                found.stale = if *flags & STALE != 0 {
                    mask & !*dirty
                } else {
                    0
                };
            }
        } else if touch.is_store {
            if *dirty != 0 {
                found.mismatch =
                    Some("DC CIVAC by VA between the cached store and the uncached one");
            } else if *flags & CACHED != 0 {
                *flags |= BYPASSED;
                *self.bypassed.entry(bytes.start / LINE).or_default() |= mask;
            }
            *flags |= CODE_STALE;
        } else if *dirty & mask != 0 {
            found.mismatch = Some("DC CVAC by VA between the cached store and the uncached load");
        } else if *dirty != 0 && hidden & mask != 0 {
            found.mismatch = Some(WRITTEN_BACK);
            covered = hidden;
        }
        if covered != 0 {
            self.cover(bytes.start, covered);
        }
        if touch.is_store && (self.is_coherent || !touch.mapping.is_cacheable()) {
            self.pending(who.cpu).stored.add(bytes.clone());
        }
        if is_dropped && touch.is_store {
            self.replace_dropped(bytes.start, mask);
        } else if is_dropped {
            self.miss_dropped(bytes.start, mask);
        }
        self.report_access(who, touch, bytes, &found);
        is_fetched
    }

    /// Of the line of `pa`, `bytes` that were stored past the cache are known to it, or were reported.
    pub(super) fn cover(&mut self, pa: u64, bytes: u64) {
        let Some(hidden) = self.bypassed.get_mut(&(pa / LINE)) else {
            return;
        };
        *hidden &= !bytes;
        if *hidden == 0 {
            self.bypassed.remove(&(pa / LINE));
            if let Some(index) = self.lines.find(pa) {
                self.lines.page(index).flags[line_of(pa)] &= !BYPASSED;
            }
        }
    }

    fn report_access(&mut self, who: Who, touch: &Touch, bytes: &Range<u64>, found: &Violations) {
        let mut problem = Problem {
            kind: Kind::MismatchedAttributes,
            pa: bytes.start,
            device: None,
            mapping: Some(touch.mapping),
            missing: "",
        };
        if found.is_lent
            && (touch.is_store || !self.is_watched(&touch.range()))
            && let Some((model, role)) = self.owner(bytes, touch.is_store)
        {
            if touch.is_store {
                self.touched.insert(bytes.start / LINE);
            }
            self.report(
                who,
                Problem {
                    kind: Kind::TouchedWhileOwned,
                    device: Some((model, role)),
                    missing: "one owner at a time: no access between doorbell and end",
                    ..problem
                },
            );
        } else if found.stale != 0 && found.stale & self.device_bytes(bytes.start) != 0 {
            self.report(
                who,
                Problem {
                    kind: Kind::StaleRead,
                    device: self.writer(bytes),
                    missing: "DC IVAC by VA between the end of the transfer and the load",
                    ..problem
                },
            );
        }
        if let Some(missing) = found.mismatch {
            problem.missing = missing;
            self.report(who, problem);
        }
    }

    /// The bytes as the CPUs know them, against those that were loaded.
    fn compare(&mut self, who: Who, touch: &Touch) {
        let range = touch.range();
        let Some(shadow) = &mut self.shadow else {
            return;
        };
        let Some(index) = self.lines.find(touch.pa) else {
            return;
        };
        let Some(value) = touch.value.filter(|_| touch.mapping.is_cacheable()) else {
            if touch.is_store {
                shadow.forget(&range);
            }
            return;
        };
        let bytes = &value.to_le_bytes()[..usize::from(touch.size).min(16)];
        if touch.is_store {
            shadow.store(touch.pa, bytes);
            return;
        }
        let Some(pa) = shadow.see(touch.pa, bytes) else {
            return;
        };
        // What a model has told is found by the line's state.
        let told = STALE | LENT_TO_WRITE;
        if self.lines.page(index).flags[line_of(pa)] & told == 0 && !self.is_coherent {
            self.report(
                who,
                Problem {
                    kind: Kind::StaleRead,
                    pa,
                    device: None,
                    mapping: Some(touch.mapping),
                    missing: "DC IVAC by VA after somebody wrote behind the cache, before the load",
                },
            );
        }
    }

    /// Takes notice of an instruction that is fetched at `pa`, through caches or past them
    /// (`SCTLR_ELx.I`). Past them nothing old is found but what a clean has not written back; the
    /// instruction cache is not looked at, nor filled, by any core of QEMU's.
    pub fn fetch(&mut self, who: Who, pa: u64, is_cached: bool) {
        let Some(index) = self.lines.find(pa) else {
            return;
        };
        let flags = &mut self.lines.page(index).flags[line_of(pa)];
        let missing = if *flags & NOT_UNIFIED != 0 && (!self.cores.sees_stores || !is_cached) {
            "DC CVAU by VA after the store, then DSB, IC IVAU, DSB, ISB"
        } else if *flags & CODE_STALE != 0 && !self.cores.sees_memory && is_cached {
            "IC IVAU by VA after the line was changed and cleaned, then DSB, ISB"
        } else {
            return;
        };
        let problem = Problem {
            kind: Kind::StaleCode,
            pa,
            device: None,
            mapping: None,
            missing,
        };
        self.report(who, problem);
    }

    /// Whether a device tells of its ends in all of `range`.
    fn is_watched(&self, range: &Range<u64>) -> bool {
        let holds = |own: &Range<u64>| own.start <= range.start && range.end <= own.end;
        self.models
            .iter()
            .any(|model| model.watched.iter().any(holds))
    }

    /// The job that has `bytes`, so that a store, or also a load, is in its way.
    fn owner(&self, bytes: &Range<u64>, is_store: bool) -> Option<(usize, &'static str)> {
        self.jobs.iter().find_map(|job| {
            let span = job.spans.iter().find(|span| {
                span.pa.start < bytes.end
                    && bytes.start < span.pa.end
                    && (is_store || span.does == Does::Writes)
            })?;
            Some((job.model, span.role))
        })
    }

    /// The device that wrote `bytes` last.
    pub(super) fn writer(&self, bytes: &Range<u64>) -> Option<(usize, &'static str)> {
        let last = self.written.iter().rev();
        let mut meeting =
            last.filter(|written| written.pa.start < bytes.end && bytes.start < written.pa.end);
        meeting.next().map(|written| (written.model, written.role))
    }
}
