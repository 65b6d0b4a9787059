//! Against a model that keeps the areas in a vector and scans it.

use super::*;
use crate::layout;
use proptest::prelude::*;

const WINDOW_PAGES: usize = 256;

fn window(pages: usize) -> Window {
    Window {
        name: "test",
        base: layout::VMALLOC.base,
        size: pages * PAGE_SIZE,
    }
}

fn grow<const N: usize>(areas: &mut VaAllocator<u32, N>) {
    areas.grow(Box::leak(Box::new(Chunk::new(0)))).unwrap();
}

/// Page number, pages, data; by page number. Then the areas that wait to be given out again, the
/// last one first.
#[derive(Default)]
struct Model(Vec<(usize, usize, u32)>, Vec<(usize, usize)>);

impl Model {
    /// The gaps as (first page, pages), by address.
    fn gaps(&self) -> Vec<(usize, usize)> {
        let mut taken: Vec<_> = self.0.iter().map(|area| (area.0, area.1)).collect();
        taken.extend(&self.1);
        taken.sort_unstable();
        let starts = taken.iter().map(|area| area.0).chain([WINDOW_PAGES]);
        let ends = taken.iter().map(|area| area.0 + area.1 + 1);
        let ends = [0].into_iter().chain(ends);
        ends.zip(starts)
            .map(|(end, start)| (end, start - end))
            .collect()
    }

    fn alloc(&mut self, pages: usize, align: usize, data: u32) -> Option<usize> {
        let waiting = self.1.iter().rposition(|area| area.1 == pages);
        let start = match waiting.filter(|_| align == 1) {
            Some(index) => self.1.remove(index).0,
            None => {
                let first = |model: &Self| {
                    let mut gaps = model.gaps().into_iter();
                    gaps.find(|gap| gap.1 >= pages + 1 + align - 1)
                };
                let gap = first(self).or_else(|| {
                    self.1.clear();
                    first(self)
                });
                gap?.0.next_multiple_of(align)
            }
        };
        self.0.push((start, pages, data));
        self.0.sort_unstable();
        Some(start)
    }

    fn free(&mut self, index: usize) -> (usize, usize, u32) {
        let area = self.0.remove(index);
        if area.1 <= MAX_RECYCLED_PAGES && self.1.len() < MAX_RECYCLED as usize {
            self.1.push((area.0, area.1));
        }
        area
    }
}

fn va(page: usize) -> VirtAddr {
    layout::VMALLOC.base + page * PAGE_SIZE
}

#[derive(Clone, Debug)]
enum Step {
    Alloc { size: usize, align: u32 },
    Free { pick: usize },
    FreeAt { page: usize },
}

fn step() -> impl Strategy<Value = Step> {
    let size = prop_oneof![1..3 * PAGE_SIZE, 1..20 * PAGE_SIZE, Just(PAGE_SIZE)];
    let align = prop_oneof![3 => Just(0u32), 1 => 0..5u32];
    prop_oneof![
        5 => (size, align).prop_map(|(size, align)| Step::Alloc { size, align }),
        3 => any::<usize>().prop_map(|pick| Step::Free { pick }),
        1 => (0..WINDOW_PAGES + 9).prop_map(|page| Step::FreeAt { page }),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(if cfg!(miri) { 1 } else { 64 }))]

    #[test]
    fn areas_agree_with_a_scanning_model(steps in prop::collection::vec(step(), 1..if cfg!(miri) { 15 } else { 300 })) {
        let mut areas = VaAllocator::<u32, 4>::new(&window(WINDOW_PAGES), 0);
        grow(&mut areas);
        grow(&mut areas);
        let mut model = Model::default();
        for (data, step) in (1..).zip(steps) {
            match step {
                Step::Alloc { size, align } => {
                    let pages = size.div_ceil(PAGE_SIZE);
                    let given = areas.alloc(size, PAGE_SIZE << align, data);
                    let expected = model.alloc(pages, 1 << align, data);
                    let expected = expected.map(|page| Area { va: va(page), size: pages * PAGE_SIZE, data });
                    prop_assert_eq!(given, expected.ok_or(VaError::NoSpace { pages }));
                }
                Step::Free { pick } if !model.0.is_empty() => {
                    let (page, pages, data) = model.free(pick % model.0.len());
                    let freed = Area { va: va(page), size: pages * PAGE_SIZE, data };
                    prop_assert_eq!(areas.free(va(page)), Ok(freed));
                }
                Step::Free { .. } => {}
                Step::FreeAt { page } => {
                    let known = model.0.iter().position(|area| area.0 == page);
                    let freed = areas.free(va(page));
                    prop_assert_eq!(freed.is_ok(), known.is_some());
                    known.map(|index| model.free(index));
                }
            }
            areas.arena.check(WINDOW_PAGES as u32);
            let listed: Vec<_> = areas.iter().map(|area| area.data).collect();
            prop_assert_eq!(listed, model.0.iter().map(|area| area.2).collect::<Vec<_>>());
            let largest = model.gaps().into_iter().map(|gap| gap.1).max().unwrap();
            prop_assert_eq!(areas.largest_gap(), largest * PAGE_SIZE);
        }
        for page in 0..WINDOW_PAGES {
            let next = model.0.iter().find(|area| area.0 >= page);
            let found = areas.first_from(va(page));
            prop_assert_eq!(found.map(|area| area.data), next.map(|area| area.2));
        }
        for page in 0..WINDOW_PAGES {
            let holder = model.0.iter().find(|area| (area.0..area.0 + area.1).contains(&page));
            let found = areas.find(va(page) + 0xFFF);
            prop_assert_eq!(found.map(|area| area.data), holder.map(|area| area.2));
        }
    }
}

#[test]
fn a_guard_page_follows_every_area() {
    let mut areas = VaAllocator::<u32, 0>::new(&window(16), 0);
    let first = areas.alloc(1, 1, 7).unwrap();
    let second = areas.alloc(2 * PAGE_SIZE, PAGE_SIZE, 8).unwrap();
    assert_eq!((first.va, first.size), (va(0), PAGE_SIZE));
    assert_eq!(second.va, va(2));
    assert_eq!(areas.find(va(1)), None);
    assert_eq!(areas.find(va(4)), None);
    assert_eq!(areas.find(va(3) + 9).map(|area| area.data), Some(8));
    // 11 pages are left: 10 and their guard.
    let too_large = VaError::NoSpace { pages: 11 };
    assert_eq!(areas.alloc(11 * PAGE_SIZE, 1, 9), Err(too_large));
    assert!(areas.alloc(10 * PAGE_SIZE, 1, 9).is_ok());
}

#[test]
fn nodes_run_out_by_name_and_growth_helps() {
    let mut areas = VaAllocator::<u32, 1>::new(&window(1 << 20), 0);
    let mut count = 0;
    while areas.alloc(PAGE_SIZE, 1, 0).is_ok() {
        count += 1;
    }
    assert_eq!(count, 62, "64 nodes less nil and the origin");
    assert_eq!(areas.alloc(PAGE_SIZE, 1, 0), Err(VaError::OutOfNodes));
    grow(&mut areas);
    while areas.alloc(PAGE_SIZE, 1, 0).is_ok() {
        count += 1;
    }
    assert_eq!(count, 126);
    let too_many = Err(VaError::TooManyAreas(126));
    assert_eq!(
        areas.alloc(PAGE_SIZE, 1, 0).map(|area| area.va),
        too_many.map(|()| va(0))
    );
    assert_eq!(areas.grow(Box::leak(Box::new(Chunk::new(0)))), too_many);
    let last = areas.iter().last().unwrap();
    areas.free(last.va).unwrap();
    assert_eq!(
        areas.alloc(PAGE_SIZE, 1, 0).map(|area| area.va),
        Ok(last.va)
    );
}

#[test]
fn nonsense_is_refused_by_name() {
    let mut areas = VaAllocator::<u32, 0>::new(&layout::VMALLOC, 0);
    assert_eq!(areas.alloc(0, 1, 0), Err(VaError::Empty));
    assert_eq!(areas.alloc(1, 3, 0), Err(VaError::BadAlignment(3)));
    assert_eq!(areas.alloc(1, 0, 0), Err(VaError::BadAlignment(0)));
    let huge = 1 << 31;
    assert_eq!(areas.alloc(1, huge, 0), Err(VaError::BadAlignment(huge)));
    for size in [usize::MAX, layout::VMALLOC.size, 1 << 44] {
        let pages = size.div_ceil(PAGE_SIZE);
        assert_eq!(areas.alloc(size, 1, 0), Err(VaError::NoSpace { pages }));
    }
    let area = areas.alloc(2 * PAGE_SIZE, 1, 0).unwrap();
    for stray in [
        area.va + 1,
        area.va + PAGE_SIZE,
        area.end(),
        VirtAddr::new(area.va.get() - PAGE_SIZE),
        VirtAddr::new(0),
    ] {
        assert_eq!(areas.free(stray), Err(VaError::NotAnArea(stray)));
    }
    assert_eq!(areas.free(area.va), Ok(area));
    assert_eq!(areas.free(area.va), Err(VaError::NotAnArea(area.va)));
}

#[test]
fn kept_areas_become_gaps_when_addresses_run_short() {
    let mut areas = VaAllocator::<u32, 0>::new(&window(16), 0);
    let given: Vec<_> = (0..8)
        .map(|data| areas.alloc(1, 1, data).unwrap())
        .collect();
    for area in &given {
        areas.free(area.va).unwrap();
        assert_eq!(areas.free(area.va), Err(VaError::NotAnArea(area.va)));
        assert_eq!(areas.find(area.va), None);
    }
    assert_eq!(areas.iter().count(), 0);
    assert_eq!(areas.largest_gap(), 0, "all of them are kept");
    assert_eq!(
        areas.alloc(1, 1, 9).unwrap().va,
        given[7].va,
        "the last one"
    );
    let most = areas.alloc(13 * PAGE_SIZE, 1, 10).unwrap();
    assert_eq!(most.va, va(0), "the kept ones joined");
}
