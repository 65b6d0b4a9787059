//! H7: a doorbell that overtakes what the device is to find. No counter, register or table of a core says
//! in which order its accesses left it, and a run in which nothing went wrong proves nothing.

use super::{each_method, evidence, put};
use crate::experiment::{Cell, Direction, Finding, Hazard, Method, Observed};
use crate::report::Outcome;

pub(super) fn run() -> Outcome {
    #[cfg(feature = "seeds")]
    seeded::planted()?;
    each_method(|method| {
        #[cfg(feature = "seeds")]
        seeded::provoke(method)?;
        put(cell(method))
    })
}

/// Nothing is seen of it from inside.
fn cell(method: Method) -> Cell {
    Cell {
        hazard: Hazard::MissingBarrier,
        method,
        direction: Direction::Both,
        expected: match method.is_raw() {
            // Nobody orders the stores before the doorbell: the device may read what was before.
            true => Finding::Stale,
            false => Finding::Right,
        },
        observed: Observed::NotObservable,
        evidence: evidence(format_args!(
            "no register, table or counter holds the order in which accesses left a core"
        )),
    }
}

/// For a tool that watches from outside. The drivers of the engines keep the rule, so their barrier is
/// left out, and nothing else.
#[cfg(feature = "seeds")]
mod seeded {
    use super::super::{Attempt, Role, engine, method};
    use crate::experiment::{Direction, Hazard, Method};
    use crate::handed::{Fault, Handed, Meanwhile, drop_lines, write_back};
    use crate::machine::machine;
    use crate::pattern;
    use crate::provocation::{DOORBELL, Kind};
    use crate::report::Outcome;
    use crate::{check, check_ok};
    use hal::addr::PAGE_SIZE;
    use hal::arch::omit::{Operation, omit};
    use hal::dma::DmaEngine;

    const LEN: usize = PAGE_SIZE;

    /// The twin that must be found for the cells to count.
    pub(super) fn planted() -> Outcome {
        send(Method::KmallocRaw, Role::Planted)
    }

    /// What a cell of `method` provokes, if it does.
    pub(super) fn provoke(method: Method) -> Outcome {
        match method.is_raw() {
            true => send(method, Role::Cell),
            false => Ok(()),
        }
    }

    fn send(method: Method, role: Role) -> Outcome {
        let engine = engine()?;
        let once = |memory: &mut dyn Handed| send_unordered(engine, memory, method, role);
        let omitted = check_ok!(method::with(method, engine.device(), LEN, once));
        check!(omitted != Some(false), "the engine issued no barrier");
        Ok(())
    }

    /// Cleans every line, waits for none, and has the engine read them. Whether a barrier was left out.
    fn send_unordered(
        engine: &dyn DmaEngine,
        memory: &mut dyn Handed,
        method: Method,
        role: Role,
    ) -> Result<bool, Fault> {
        let attempt = Attempt {
            hazard: Hazard::MissingBarrier,
            method,
            direction: Direction::Both,
            role,
        };
        let mut there = machine().pool.alloc(engine.device(), LEN)?;
        pattern::fill(&mut memory.bytes()[..LEN], machine().seed);
        let mut to = there.part_mut(0, LEN)?;
        let provoked = attempt.announce_if_raw(Kind::Barrier, DOORBELL);
        drop_lines(memory.va(), LEN);
        let (sent, was_omitted) = omit(Operation::Dsb, 0, || {
            memory.send(engine, 0..LEN, &mut to, Meanwhile::Nothing)
        });
        drop(provoked);
        sent?;
        write_back(memory.va(), LEN);
        Ok(was_omitted)
    }
}
