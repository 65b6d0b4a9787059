//! Instructions that change while a cache may have them: no device is needed.

use super::port::Second;
use super::seed::Seed;
use crate::provocation::Kind;
use crate::report::{Outcome, Stop};
use crate::{check, check_ok};
use core::arch::{asm, global_asm};
use hal::addr::{PAGE_SIZE, PhysRange, VirtAddr};
use hal::arch::{barrier, translate};
use hal::mmu::{Access, Attributes, MemoryType};

pub(super) const SEEDS: &[Seed] = &[
    seed("none.code_not_cleaned", &[Kind::Code], |seed| {
        on(seed, |code| code.invalidate_instructions())
    }),
    seed("none.code_not_invalidated", &[Kind::Code], |seed| {
        on(seed, Code::clean)
    }),
    seed("none.code_not_maintained", &[Kind::Code], |seed| {
        on(seed, |_| barrier::dsb_ish())
    }),
    seed("none.right_code", &[], |seed| {
        on(seed, |code| {
            code.clean();
            code.invalidate_instructions();
        })
    }),
];

/// The function that is changed, and executed: what must be found is found where it is.
const PLACE: &str = "corpus_changed_code";

const fn seed(name: &'static str, kinds: &'static [Kind], run: fn(&Seed) -> Outcome) -> Seed {
    Seed {
        name,
        kinds,
        device: "none",
        place: PLACE,
        run,
    }
}

/// `MOV W0, #number` (Arm ARM C6.2.222, `MOVZ`).
const fn mov_w0(number: u32) -> u32 {
    0x5280_0000 | number << 5
}

// A page of the image for it alone, so that nothing else is writable by its second mapping.
global_asm!(
    ".pushsection .text.corpus, \"ax\"",
    ".balign 4096",
    ".global corpus_changed_code",
    ".type corpus_changed_code, @function",
    "corpus_changed_code:",
    "mov w0, #1",
    "ret",
    ".size corpus_changed_code, . - corpus_changed_code",
    ".balign 4096",
    ".popsection",
);

unsafe extern "C" {
    /// Returns the number that its first instruction has.
    safe fn corpus_changed_code() -> u32;
}

/// The code, and where it can be written.
struct Code {
    writable: Second,
}

impl Code {
    fn open() -> Result<Self, Stop> {
        let va = Self::va();
        let Some(page) = translate::read_el1(va).page() else {
            return Err(Stop::Failed);
        };
        let frames = PhysRange::new(page, page + PAGE_SIZE);
        let attributes = Attributes::new(MemoryType::NormalWriteBack, Access::ReadWrite);
        // SAFETY: the page holds `corpus_changed_code` and nothing else. It is executed and written by this
        // module only, and `on` leaves the line written back.
        let writable = check_ok!(unsafe { Second::map(frames, attributes) });
        Ok(Self { writable })
    }

    /// Where it is executed.
    fn va() -> VirtAddr {
        VirtAddr::new(corpus_changed_code as extern "C" fn() -> u32 as usize)
    }

    /// Makes it return `number`. Nothing is maintained.
    fn write(&self, number: u32) {
        let first = self.writable.va().as_ptr::<u32>();
        // SAFETY: the mapping is of the page that `corpus_changed_code` starts and fills alone, and no core is
        // in that function now. What is written is one aligned instruction that needs no other.
        unsafe { first.write_volatile(mov_w0(number)) };
    }

    /// Writes the line back to where instructions are fetched from.
    fn clean(&self) {
        // SAFETY: the address is that of a function, so mapped. A clean changes no byte.
        unsafe { asm!("dc cvau, {}", in(reg) Self::va().get(), options(nostack)) };
        barrier::dsb_ish();
    }

    /// Drops the line from the instruction caches.
    fn invalidate_instructions(&self) {
        // SAFETY: as for `clean`. What is dropped is fetched again.
        unsafe { asm!("ic ivau, {}", in(reg) Self::va().get(), options(nostack)) };
        barrier::dsb_ish();
        barrier::isb();
    }
}

/// Changes the code, maintains it by `maintain`, and executes it.
fn on(seed: &Seed, maintain: fn(&Code)) -> Outcome {
    let code = Code::open()?;
    let before = corpus_changed_code();
    seed.announce();
    code.write(2);
    maintain(&code);
    barrier::isb();
    let after = corpus_changed_code();
    code.write(1);
    code.clean();
    code.invalidate_instructions();
    let again = corpus_changed_code();
    check!(
        (before, after, again) == (1, 2, 1),
        "the code returned {before}, {after} and {again}"
    );
    Ok(())
}
