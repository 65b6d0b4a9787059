//! vmalloc memory by scatter-gather, on a zone with nothing but single pages.

use super::each_engine;
use crate::machine::machine;
use crate::memory::{Area, reachable};
use crate::report::{self, Outcome};
use crate::{check, check_ok, pattern};
use hal::addr::PAGE_SIZE;
use hal::dma::engine::copy;
use hal::dma::sg::ScatterEntry;
use hal::dma::{DmaError, FromDevice, ScatterList, ToDevice};

const PAGES: usize = 16;
const LEN: usize = PAGES * PAGE_SIZE;

/// The segments of a list over `area`, and whether they cover its physical runs exactly.
fn segments(area: &mut Area) -> Result<(usize, bool), DmaError> {
    let runs = area.runs();
    let mut room = [ScatterEntry::default(); PAGES];
    let list = ScatterList::new(&mut room, area)?;
    let bytes = list.entries().iter().map(ScatterEntry::len).sum::<usize>();
    let count = list.entries().len();
    Ok((count, count == runs && bytes == LEN))
}

pub(super) fn fragmented() -> Outcome {
    each_engine(|engine| {
        let device = engine.device();
        let mut area = check_ok!(Area::fragmented(LEN, reachable(engine.device())));
        let (count, exact) = check_ok!(segments(&mut area));
        check!(exact, "{count} segments for {} physical runs", area.runs());
        check!(
            count > PAGES / 2,
            "only {count} runs: the zone was not fragmented"
        );
        let seed = machine().seed;
        let mut pooled = check_ok!(machine().pool.alloc(device, LEN));
        let mut room = [ScatterEntry::default(); PAGES];

        pattern::fill(pooled.as_mut_slice(), seed);
        area.fill(pattern::POISON);
        let list = check_ok!(ScatterList::new(&mut room, &mut area));
        let mut mapping = check_ok!(list.map::<FromDevice>(device));
        check_ok!(copy(engine, &check_ok!(pooled.part(0, LEN)), &mut mapping));
        mapping.unmap();
        check_ok!(pattern::verify(&area, 0, LEN, seed));

        pattern::fill(&mut area, !seed);
        pooled.as_mut_slice().fill(pattern::POISON);
        let list = check_ok!(ScatterList::new(&mut room, &mut area));
        let mapping = check_ok!(list.map::<ToDevice>(device));
        check_ok!(copy(
            engine,
            &mapping,
            &mut check_ok!(pooled.part_mut(0, LEN))
        ));
        mapping.unmap();
        check_ok!(pattern::verify(pooled.as_slice(), 0, LEN, !seed));
        report::diagnostic(format_args!(
            "engine={} pages={PAGES} runs={count} segments={count} observed=data",
            device.name()
        ));
        Ok(())
    })
}

/// A list of the first half, taken for one of the whole: the detection must tell.
pub(super) fn planted() -> Outcome {
    each_engine(|engine| {
        let mut area = check_ok!(Area::fragmented(LEN, reachable(engine.device())));
        let runs = area.runs();
        let mut room = [ScatterEntry::default(); PAGES];
        let half = check_ok!(ScatterList::new(&mut room, &mut area[..LEN / 2]));
        check!(
            half.entries().len() < runs,
            "a list of half the buffer has all of its runs"
        );
        let mut room = [ScatterEntry::default(); 1];
        let short = ScatterList::new(&mut room, &mut area).map(drop);
        check!(
            short == Err(DmaError::TooManySegments { capacity: 1 }),
            "a list without room for its runs: {short:?}"
        );
        Ok(())
    })
}
