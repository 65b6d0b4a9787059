//! Pages the caller has, and the list of all areas.

use super::*;

#[test]
fn vmap_maps_what_it_is_given_and_leaves_it() {
    let vm = scratch();
    let ram = layout::host::ram(8 << 12, 4096).start.pfn();
    let list = [3, 4, 0, 6].map(|page| ram + page);
    for (protection, access) in [
        (Protection::ReadWrite, Access::ReadWrite),
        (Protection::ReadOnly, Access::ReadOnly),
    ] {
        // SAFETY: the pages are the test's.
        let va = unsafe { vm.vmap(&list, protection) }.unwrap();
        assert_eq!(vm.frames_of(va, 4), list);
        assert!(vm.vmalloc_to_page(va + 4 * PAGE_SIZE).is_err(), "the guard");
        assert_eq!(vm.tables.lock().leaf(va).unwrap().access(), Some(access));
        // SAFETY: refused.
        let wrong = unsafe { vm.vfree(va) };
        let kind = AreaKind::Vmap;
        assert_eq!(wrong, Err(VmallocError::WrongKind { va, kind }));
        // SAFETY: the mapping is not used; the second call is refused.
        let ((), ops) = record_during(|| unsafe { vm.vunmap(va) }.unwrap());
        assert_eq!(ops.last_chunk(), Some(&[Op::DsbIsh, Op::Isb]), "at once");
        // SAFETY: refused.
        let twice = unsafe { vm.vunmap(va) };
        assert_eq!(twice, Err(VmallocError::NotAnArea(va)));
    }
    vm.assert_empty();
}

#[test]
fn vmap_checks_every_page() {
    let vm = scratch();
    let ram = layout::host::ram(2 << 12, 4096).start.pfn();
    let nc = MemoryType::NormalNonCacheable;
    vm.pages.memory_types.lock().unwrap().insert(ram + 1, nc);
    let conflict =
        |pfn, has, wanted| VmallocError::MemoryType(MemoryTypeError::Conflict { pfn, has, wanted });
    let wb = MemoryType::NormalWriteBack;
    // SAFETY: refused, or the pages are the test's.
    unsafe {
        let both = [ram, ram + 1];
        assert_eq!(
            vm.vmap(&both, Protection::ReadWrite),
            Err(conflict(ram + 1, nc, wb))
        );
        assert_eq!(
            vm.vmap(&both, Protection::NonCacheable),
            Err(conflict(ram, wb, nc))
        );
        let va = vm.vmap(&both[1..], Protection::NonCacheable).unwrap();
        let leaf = vm.tables.lock().leaf(va).unwrap();
        assert_eq!(leaf.memory_type(), Some(nc));
        assert!(
            vm.vmap(&[Pfn::new(9)], Protection::ReadWrite).is_err(),
            "no RAM"
        );
        assert_eq!(
            vm.vmap(&[], Protection::ReadWrite),
            Err(VmallocError::ZeroSize)
        );
        vm.vunmap(va).unwrap();
        let area = vm.vmalloc(1).unwrap();
        let kind = AreaKind::Vmalloc;
        assert_eq!(
            vm.vunmap(area),
            Err(VmallocError::WrongKind { va: area, kind })
        );
        vm.vfree(area).unwrap();
    }
    vm.assert_empty();
}

#[test]
fn the_list_of_areas_shows_each_with_its_kind() {
    let vm = scratch();
    let block = 2 << 20;
    let first = vm.vmalloc(block + 1).unwrap();
    let ram = layout::host::ram(4096, 4096).start;
    // SAFETY: the page is the test's.
    let second = unsafe { vm.vmap(&[ram.pfn()], Protection::ReadOnly) }.unwrap();
    let third = vm.vmalloc(1).unwrap();
    let warm = vm.vmalloc(1).unwrap();
    // SAFETY: the memory was never used.
    unsafe {
        vm.vfree(warm).unwrap();
        vm.vfree(third).unwrap();
    }
    let mut from = VMALLOC.base;
    let rows: Vec<_> = std::iter::from_fn(|| {
        let row = vm.area_from(from)?;
        from = row.end();
        Some((row.va, row.kind, row.blocks, row.freed))
    })
    .collect();
    let mut expected = [
        (first, AreaKind::Vmalloc, 1, false),
        (second, AreaKind::Vmap, 0, false),
        (third, AreaKind::Vmalloc, 0, true),
    ];
    expected.sort_by_key(|row| row.0);
    assert_eq!(rows, expected);
    let row = vm.area_from(second).unwrap().to_string();
    let wanted = format!(
        "{second}-{} {:>9} vmap    pages=1 blocks=0 phys={ram} Normal-WB",
        second + 4096,
        4096
    );
    assert_eq!(row, wanted);
}
