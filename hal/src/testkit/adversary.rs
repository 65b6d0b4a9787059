//! Who decides what the hardware does when it may do several things.

/// What may happen at a moment, each with the chance a temper gives it.
#[derive(Clone, Copy, Debug)]
pub(super) enum Whim {
    /// A line that is not in the cache is fetched.
    Prefetch,
    /// A line leaves the cache, written back if it is dirty.
    Evict,
    /// A store leaves the write buffer, or maintenance is done before its barrier asks for it.
    Proceed,
    /// The core loads what a master wrote to non-cacheable memory.
    Notice,
    /// A master goes on with its work.
    Transfer,
    /// A core walks the tables and keeps what it finds.
    Walk,
    /// Table walkers see a store.
    Show,
    /// A TLB invalidation is done.
    Forget,
}

impl Whim {
    const COUNT: usize = 8;
}

/// A source of decisions that all follow from one seed.
#[derive(Debug)]
pub(super) struct Adversary {
    state: u64,
    /// Chances of each whim, of [`CERTAIN`].
    temper: [u64; Whim::COUNT],
}

/// The chance of what always happens.
const CERTAIN: u64 = 16;

/// The chances of a temper: some hardware never does a thing, some does it whenever it may.
const CHANCES: [u64; 4] = [0, 2, 8, CERTAIN];

impl Adversary {
    /// The adversary of `seed`: its temper and every decision.
    pub(super) fn new(seed: u64) -> Self {
        let mut this = Self {
            state: seed,
            temper: [0; Whim::COUNT],
        };
        this.temper = std::array::from_fn(|_| CHANCES[this.below(CHANCES.len())]);
        this
    }

    /// The next of a sequence that passes the usual tests of randomness (SplitMix64).
    fn draw(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.state;
        mixed = (mixed ^ mixed >> 30).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ mixed >> 31
    }

    /// A number below `end`, which is not 0.
    pub(super) fn below(&mut self, end: usize) -> usize {
        (self.draw() % end as u64) as usize
    }

    /// Bytes of no meaning.
    pub(super) fn garbage<const N: usize>(&mut self) -> [u8; N] {
        let mut bytes = [0; N];
        for word in bytes.chunks_mut(size_of::<u64>()) {
            let garbage = self.draw().to_le_bytes();
            word.copy_from_slice(&garbage[..word.len()]);
        }
        bytes
    }

    /// Whether `whim` is followed now.
    pub(super) fn follows(&mut self, whim: Whim) -> bool {
        let chance = self.temper[whim as usize];
        self.draw() % CERTAIN < chance
    }
}
