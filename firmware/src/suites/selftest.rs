//! What each kind of bad end looks like. Run only when named: `test=selftest.panic`.

use crate::check;
use crate::report::{Outcome, Suite};
use hal::arch::cpu;
use hal::layout::VMALLOC;

/// The suite.
pub(super) const SUITE: Suite = Suite {
    name: "selftest",
    tests: tests! {
        fail: fail,
        panic: panic,
        fault: fault,
        hang: hang,
    },
};

fn fail() -> Outcome {
    let (expected, found) = (1, core::hint::black_box(2));
    check!(
        expected == found,
        "failing as asked: expected {expected}, found {found}"
    );
    Ok(())
}

fn panic() -> Outcome {
    panic!("panicking as asked");
}

#[expect(unsafe_code, reason = "reads where nothing is mapped, as asked")]
fn fault() -> Outcome {
    // The last page of the window is never handed out.
    let nowhere = VMALLOC.base + (VMALLOC.size - 8);
    // SAFETY: the address is not mapped, so that the read faults, as asked.
    let value = unsafe { nowhere.as_ptr::<u64>().read_volatile() };
    check!(false, "read {value:#x} where nothing is mapped");
    Ok(())
}

fn hang() -> Outcome {
    let _masked = cpu::irq_save();
    loop {
        core::hint::spin_loop();
    }
}
