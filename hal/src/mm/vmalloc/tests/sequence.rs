//! Any sequence of calls.

use super::pages::MAX_ORDER;
use super::*;
use proptest::prelude::*;
use std::collections::BTreeMap;

#[derive(Clone, Debug)]
enum Step {
    /// An area of so many pages, by an allocator that has so many more runs, none above an order.
    Alloc {
        pages: usize,
        runs: usize,
        largest: u32,
    },
    Free(prop::sample::Index),
    FreeInInterrupt(prop::sample::Index),
    Purge,
}

fn step() -> impl Strategy<Value = Step> {
    let runs = prop_oneof![3 => Just(usize::MAX), 1 => 0..40usize];
    let pages = prop_oneof![4 => 1..20usize, 2 => 20..200usize, 1 => 500..1100usize];
    prop_oneof![
        5 => (pages, runs, 0..=MAX_ORDER)
            .prop_map(|(pages, runs, largest)| Step::Alloc { pages, runs, largest }),
        3 => any::<prop::sample::Index>().prop_map(Step::Free),
        1 => any::<prop::sample::Index>().prop_map(Step::FreeInInterrupt),
        1 => Just(Step::Purge),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(if cfg!(miri) { 1 } else { 48 }))]

    /// Frames run out, and with few tables those too.
    #[test]
    fn failures_leak_nothing(
        tables in 1..6usize,
        steps in prop::collection::vec(step(), 1..if cfg!(miri) { 8 } else { 60 }),
    ) {
        // SAFETY: the case's allocator is not used after it.
        let _ram = unsafe { crate::layout::host::lease() };
        let tables = Box::leak(Box::new(IrqLock::new(scratch_mapper(tables))));
        // SAFETY: nobody else has the tables.
        let vm = unsafe { Vmalloc::new(tables, pages_for(tables)) };
        let (result, _) = record_during(|| follow(&vm, steps));
        result?;
    }
}

fn follow(vm: &Vmalloc<Pages>, steps: Vec<Step>) -> Result<(), TestCaseError> {
    let mut live: BTreeMap<VirtAddr, usize> = BTreeMap::new();
    let nth = |live: &BTreeMap<VirtAddr, usize>, index: prop::sample::Index| {
        (!live.is_empty()).then(|| *live.keys().nth(index.index(live.len())).unwrap())
    };
    for step in steps {
        match step {
            Step::Alloc {
                pages,
                runs,
                largest,
            } => {
                *vm.pages.budget.lock().unwrap() = runs;
                *vm.pages.largest.lock().unwrap() = largest;
                if let Ok(va) = vm.use_new_area(pages, Gfp::KERNEL) {
                    live.insert(va, pages);
                }
            }
            Step::Free(index) | Step::FreeInInterrupt(index) => {
                let Some(va) = nth(&live, index) else {
                    continue;
                };
                live.remove(&va);
                let in_interrupt = matches!(step, Step::FreeInInterrupt(_));
                if in_interrupt {
                    PerCpu::current().irq_entered();
                }
                // SAFETY: the memory was never used.
                let freed = unsafe { vm.vfree(va) };
                if in_interrupt {
                    PerCpu::current().irq_left();
                }
                prop_assert_eq!(freed, Ok(()));
            }
            Step::Purge => {
                vm.vm_unmap_aliases();
                let out: usize = vm.orders_out().iter().map(|order| 1 << order).sum();
                let wanted = live.values().sum::<usize>() + vm.kept_frames().count();
                prop_assert_eq!(out, wanted, "frames are out");
            }
        }
        let areas: Vec<_> = vm
            .areas
            .lock()
            .va
            .iter()
            .filter(|area| area.data.state == State::Live)
            .map(|area| (area.va, area.size / PAGE_SIZE))
            .collect();
        prop_assert_eq!(areas, live.clone().into_iter().collect::<Vec<_>>());
    }
    for va in live.into_keys() {
        // SAFETY: the memory was never used.
        prop_assert_eq!(unsafe { vm.vfree(va) }, Ok(()));
    }
    vm.assert_empty();
    Ok(())
}
