//! What a run of one method under one hazard says, and how it says it.

use crate::diagnosis::Diagnosis;
use crate::experiment::{Direction, Evidence, Finding, Hazard, Observed};
use crate::handed::Upkeep;
use core::fmt;
use hal::addr::VirtAddr;
use hal::arch::par::Par;
use hal::arch::translate;
use hal::dma::Device;
use hal::dma::maintenance::{Counters, line_size, writeback_granule};
use hal::mmu::MemoryType;

/// What was seen of one transfer.
#[derive(Debug)]
pub(super) struct Sight {
    /// What was provoked.
    pub(super) hazard: Hazard,
    /// What is wrong with the bytes.
    pub(super) diagnosis: Option<Diagnosis>,
    /// What the hand-over took.
    pub(super) upkeep: Upkeep,
    /// Where the CPU has the bytes that changed hands, as what, and how many.
    pub(super) va: VirtAddr,
    pub(super) par: Par,
    pub(super) len: usize,
    pub(super) direction: Direction,
    /// Whether all lines of the bytes were invalidated afterwards, whoever else had a part of them.
    pub(super) by_hand: bool,
    /// Whether the device was to be handed memory as one that snoops.
    pub(super) is_coherent: bool,
    /// Whether the device was given the memory itself, and not slots.
    pub(super) is_direct: bool,
}

/// A rule that the hand-over broke.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Broken {
    #[error("clean missing")]
    NotCleaned,
    #[error("invalidate missing")]
    NotInvalidated,
    #[error("a line is shared")]
    SharesLine,
    #[error("maintained though not cacheable")]
    Superfluous,
    #[error("no memory for a device")]
    Type,
}

impl Broken {
    /// The rule that keeps `hazard`, one of H1 to H5, from happening.
    pub(super) const fn for_want_of(hazard: Hazard) -> Self {
        match hazard {
            Hazard::StaleLine | Hazard::Prefetch => Self::NotInvalidated,
            Hazard::SharedLine => Self::SharesLine,
            _ => Self::NotCleaned,
        }
    }
}

impl Sight {
    /// Lines that the device's part of the memory touches.
    fn lines(&self) -> u64 {
        let line = line_size();
        let start = match self.is_direct {
            true => self.va.get(),
            // Slots start on lines.
            false => 0,
        };
        ((start + self.len).div_ceil(line) - start / line) as u64
    }

    /// Whether the hand-over kept the rules, which it must whatever the caches do meanwhile. `None`
    /// if there are none to keep: the device snoops.
    pub(super) fn rules(&self) -> Option<Result<(), Broken>> {
        if self.is_coherent {
            return None;
        }
        Some(self.kept())
    }

    fn kept(&self) -> Result<(), Broken> {
        let Upkeep { before, after, .. } = self.upkeep;
        match self.par.memory_type() {
            Some(MemoryType::NormalWriteBack) => {}
            Some(MemoryType::NormalNonCacheable) => {
                return match self.upkeep.total() == Counters::default() {
                    true => Ok(()),
                    false => Err(Broken::Superfluous),
                };
            }
            _ => return Err(Broken::Type),
        }
        let writes = self.direction == Direction::FromDevice;
        let ends = self.va.get() | (self.va.get() + self.len);
        let shares = writes && self.is_direct && !ends.is_multiple_of(writeback_granule());
        let broken = [
            (shares, Broken::SharesLine),
            (before.cleaned != self.lines(), Broken::NotCleaned),
            (
                writes && after.invalidated != self.lines(),
                Broken::NotInvalidated,
            ),
        ];
        // The hazard's own rule first: of several it is the one that this cell is about.
        let own = Broken::for_want_of(self.hazard);
        let mut broken = broken
            .into_iter()
            .filter_map(|(is, rule)| is.then_some(rule));
        match broken
            .clone()
            .find(|rule| *rule == own)
            .or_else(|| broken.next())
        {
            Some(rule) => Err(rule),
            None => Ok(()),
        }
    }

    /// What a way that must come out right came to. `shown` if the same hazard did go wrong in this
    /// run, in its wrong way.
    pub(super) fn of_right_way(&self, shown: bool) -> Observed {
        match (self.diagnosis, self.rules()) {
            (Some(diagnosis), _) => Observed::data(diagnosis.flaw.into()),
            (None, Some(Err(_))) => Observed::structural(Finding::Unguarded),
            (None, _) if shown => Observed::data(Finding::Right),
            (None, Some(Ok(()))) => Observed::structural(Finding::Right),
            (None, None) => Observed::NotObservable,
        }
    }

    /// What a way that must not be taken came to.
    pub(super) fn of_wrong_way(&self, caches_are_observable: bool) -> Observed {
        match self.diagnosis {
            Some(diagnosis) => Observed::data(diagnosis.flaw.into()),
            None if caches_are_observable => Observed::data(Finding::Right),
            None => Observed::NotObservable,
        }
    }

    /// What the rules were judged by.
    pub(super) fn evidence(&self) -> Evidence {
        super::evidence(format_args!("{self}"))
    }

    /// Whether `device` was given the `len` bytes at `va` themselves.
    pub(super) fn is_direct(device: &Device, va: VirtAddr, len: usize, upkeep: &Upkeep) -> bool {
        let page = translate::read_el1(va).page();
        let offset = va.get() % hal::addr::PAGE_SIZE;
        let addr = page.and_then(|page| device.dma_addr(page + offset, 1.min(len)).ok());
        addr.is_some() && addr == upkeep.first.map(|segment| segment.addr)
    }
}

impl fmt::Display for Sight {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (lines, upkeep) = (self.lines(), &self.upkeep);
        write!(f, "{}", self.par)?;
        if !self.is_direct {
            f.write_str(", bounced")?;
        }
        write!(f, ", {}/{lines} cleaned before", upkeep.before.cleaned)?;
        if self.direction == Direction::FromDevice {
            write!(
                f,
                ", {}/{lines} invalidated after",
                upkeep.after.invalidated
            )?;
        }
        if self.by_hand {
            write!(f, ", then DC IVAC of all {lines}")?;
        }
        match self.rules() {
            Some(Err(broken)) => write!(f, "; {broken}"),
            Some(Ok(())) => Ok(()),
            None => f.write_str("; the device snoops"),
        }
    }
}
