//! vmalloc memory by scatter-gather, on a zone with nothing but single pages.

use super::each_engine;
use crate::machine::machine;
use crate::memory::Area;
use crate::memory::hoard::{LOWEST_ZONE, SLACK, fragment};
use crate::report::{self, Outcome, Stop};
use crate::{check, check_ok, pattern};
use hal::addr::{PAGE_SIZE, PhysAddr};
use hal::arch::translate;
use hal::dma::engine::copy;
use hal::dma::sg::ScatterEntry;
use hal::dma::{DmaError, FromDevice, ScatterList, ToDevice};
use heapless::Vec;

const PAGES: usize = 16;
const LEN: usize = PAGES * PAGE_SIZE;

/// An area of pages no two of which are neighbours in physical memory.
fn scattered_area() -> Result<Area, Stop> {
    let hoard = fragment(PAGES + SLACK)?;
    let area = check_ok!(Area::alloc_with(LEN, LOWEST_ZONE));
    drop(hoard);
    Ok(area)
}

/// A run of a list: physical start and length.
type Run = (PhysAddr, usize);

/// What is wrong with `runs` as the list of `area`'s bytes, asking the MMU for each page.
fn flaw(runs: &[Run], area: &Area) -> Option<&'static str> {
    let mut pages = (0..area.len()).step_by(PAGE_SIZE);
    let mut end = None;
    for &(start, len) in runs {
        if end == Some(start) {
            return Some("two runs that are one");
        }
        for offset in (0..len).step_by(PAGE_SIZE) {
            let Some(page) = pages.next() else {
                return Some("bytes beyond the end");
            };
            if translate::read_el1(area.va() + page).page() != Some(start + offset) {
                return Some("another page");
            }
        }
        end = Some(start + len);
    }
    pages.next().map(|_| "bytes missing at the end")
}

/// The runs of a list over `area`.
fn list_of(area: &mut Area) -> Result<Vec<Run, PAGES>, DmaError> {
    let mut room = [ScatterEntry::default(); PAGES];
    let list = ScatterList::new(&mut room, area)?;
    let entries = list.entries().iter();
    Ok(entries.map(|entry| (entry.phys(), entry.len())).collect())
}

pub(super) fn fragmented() -> Outcome {
    each_engine(|engine| {
        let device = engine.device();
        let mut area = scattered_area()?;
        let runs = check_ok!(list_of(&mut area));
        let (count, found) = (runs.len(), flaw(&runs, &area));
        check!(found.is_none(), "{count} segments: {found:?}");
        check!(
            count == PAGES,
            "{count} runs of {PAGES} pages: the zone was not fragmented"
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

/// Lists without a run, with two runs merged, in another order: each must be found.
pub(super) fn planted() -> Outcome {
    type Plant = fn(&mut Vec<Run, PAGES>);
    const PLANTS: [(&str, Plant); 4] = [
        ("the last run missing", |runs| runs.truncate(PAGES - 1)),
        ("a run in the middle missing", |runs| {
            runs.remove(PAGES / 2);
        }),
        ("two runs merged", |runs| {
            let (_, len) = runs.remove(1);
            runs[0].1 += len;
        }),
        ("two runs exchanged", |runs| runs.swap(0, 1)),
    ];
    let mut area = scattered_area()?;
    let good = check_ok!(list_of(&mut area));
    check!(good.len() == PAGES, "the zone was not fragmented");
    check!(flaw(&good, &area).is_none(), "a good list was found bad");
    for (what, plant) in PLANTS {
        let mut runs = good.clone();
        plant(&mut runs);
        check!(flaw(&runs, &area).is_some(), "{what}: not found");
    }
    Ok(())
}
