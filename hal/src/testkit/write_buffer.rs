//! Stores to non-cacheable memory on their way, and loads of it that came early.

use super::adversary::{Adversary, Whim};
use super::ram::{LINE, Ram};
use std::collections::{BTreeMap, BTreeSet};

/// Bytes that are stored and loaded at once: no more than what every access of a structure's field
/// has.
const GRAIN: usize = 4;

/// Of how many stores, or loads, any may be the next.
const WINDOW: usize = 64;

/// The core's side of a stretch of non-cacheable memory.
///
/// A store waits here, and stores between two barriers leave in any order. What a master writes the
/// core may not load for a while, as if it had loaded early, in any order too, until a barrier
/// orders its loads.
#[derive(Debug, Default)]
pub(super) struct WriteBuffer {
    /// Counts barriers.
    age: u64,
    /// Stores that masters do not see yet, by the barriers before each, which let the earlier ones
    /// out first, and by place.
    waiting: BTreeMap<(u64, usize), [u8; GRAIN]>,
    /// What the core saw when it was last looked at; whatever differs it has stored since.
    known: Vec<u8>,
    /// Grains that a master wrote and the core has not loaded since.
    unseen: BTreeSet<usize>,
}

impl WriteBuffer {
    /// Nothing on its way, of `ram`.
    pub(super) fn start(&mut self, ram: &Ram) {
        *self = Self::default();
        self.known = Self::seen(ram);
    }

    fn seen(ram: &Ram) -> Vec<u8> {
        let grains = (0..ram.len()).step_by(GRAIN);
        grains.flat_map(|at| ram.seen::<GRAIN>(at)).collect()
    }

    /// Notices what the core stored.
    pub(super) fn observe(&mut self, ram: &Ram) {
        const BLOCK: usize = LINE;

        if ram.shows(&self.known) {
            return;
        }
        for block in (0..self.known.len()).step_by(BLOCK) {
            if ram.seen::<BLOCK>(block)[..] == self.known[block..block + BLOCK] {
                continue;
            }
            for at in (block..block + BLOCK).step_by(GRAIN) {
                let bytes: [u8; GRAIN] = ram.seen(at);
                if bytes[..] != self.known[at..at + GRAIN] {
                    self.known[at..at + GRAIN].copy_from_slice(&bytes);
                    self.unseen.remove(&at);
                    self.waiting.insert((self.age, at), bytes);
                }
            }
        }
    }

    /// Orders the stores so far before later ones: `DMB OSHST`.
    pub(super) fn order(&mut self) {
        self.age += 1;
    }

    /// Lets the stores out that a barrier ordered before what the core does now.
    pub(super) fn drain_ordered(&mut self, ram: &mut Ram) {
        let later = self.waiting.split_off(&(self.age, 0));
        for ((_, at), bytes) in std::mem::replace(&mut self.waiting, later) {
            ram.store(at, &bytes);
        }
    }

    /// Lets all stores out: `DSB SY`.
    pub(super) fn drain(&mut self, ram: &mut Ram) {
        self.order();
        self.drain_ordered(ram);
    }

    /// Makes loads from now on see what masters wrote until now: `DMB OSHLD`. Where `hidden` says so
    /// something else is in the way.
    pub(super) fn load_anew(&mut self, ram: &Ram, hidden: impl Fn(usize) -> bool) {
        for at in std::mem::take(&mut self.unseen) {
            self.notice(ram, at, &hidden);
        }
    }

    fn notice(&mut self, ram: &Ram, at: usize, hidden: impl Fn(usize) -> bool) {
        let oldest = self.waiting.keys().next().map_or(self.age, |(age, _)| *age);
        let is_own = (oldest..=self.age).any(|age| self.waiting.contains_key(&(age, at)));
        if hidden(at) {
            self.unseen.insert(at);
        } else if !is_own {
            ram.reveal(at, GRAIN);
            self.known[at..at + GRAIN].copy_from_slice(ram.load(at, GRAIN));
        }
    }

    /// A master wrote `bytes` at byte `at`.
    pub(super) fn written_behind(&mut self, ram: &mut Ram, at: usize, bytes: &[u8]) {
        ram.store(at, bytes);
        let first = at - at % GRAIN;
        self.unseen.extend((first..at + bytes.len()).step_by(GRAIN));
    }

    /// The lines, by number, of stores that masters do not see yet.
    pub(super) fn lines_on_their_way(&self) -> BTreeSet<usize> {
        self.waiting.keys().map(|(_, at)| at / LINE).collect()
    }

    /// Time passes.
    pub(super) fn pass(
        &mut self,
        ram: &mut Ram,
        adversary: &mut Adversary,
        hidden: impl Fn(usize) -> bool,
    ) {
        if let Some(&(oldest, first)) = self.waiting.keys().next()
            && adversary.follows(Whim::Proceed)
        {
            let eligible = self.waiting.range(..(oldest + 1, 0)).take(WINDOW);
            let pick = adversary.below(eligible.clone().count());
            let key = eligible.map(|(&key, _)| key).nth(pick);
            let key = key.unwrap_or((oldest, first));
            if let Some(bytes) = self.waiting.remove(&key) {
                ram.store(key.1, &bytes);
            }
        }
        if !self.unseen.is_empty() && adversary.follows(Whim::Notice) {
            let pick = adversary.below(self.unseen.len().min(WINDOW));
            if let Some(&at) = self.unseen.iter().nth(pick) {
                self.unseen.remove(&at);
                self.notice(ram, at, hidden);
            }
        }
    }
}
